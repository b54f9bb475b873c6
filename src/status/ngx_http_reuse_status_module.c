
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * "reuse_status" shows what the reuse layer has counted.
 */


#include "ngx_http_reuse_status.h"


/* so many servers have metrics of their own by default */
#define NGX_HTTP_REUSE_STATUS_SERVERS  1000


/* a format: by the argument, and by the types that stand for it in Accept */

typedef struct {
    ngx_uint_t                           servers;  /* as in the text */
} reuse_status_loc_conf_t;


typedef struct {
    ngx_str_t                            name;
    ngx_str_t                            accept[4];
    ngx_str_t                            type;
    size_t                               type_len;  /* without parameters */
    ngx_http_reuse_status_format_pt      write;
} reuse_status_format_t;


static ngx_int_t reuse_status_handler(ngx_http_request_t *r);
static reuse_status_format_t *reuse_status_format(ngx_http_request_t *r);
static reuse_status_format_t *reuse_status_accepted(ngx_http_request_t *r);
static void reuse_status_weigh(ngx_str_t *value, reuse_status_format_t **best,
    ngx_uint_t *weight);
static ngx_uint_t reuse_status_quality(u_char *p, u_char *last);
static ngx_int_t reuse_status_send(ngx_http_request_t *r,
    reuse_status_format_t *format, ngx_http_reuse_status_text_t *text);
static ngx_int_t reuse_status_add_field(ngx_http_request_t *r,
    const char *name, const char *value);

static void *ngx_http_reuse_status_create_loc_conf(ngx_conf_t *cf);
static char *reuse_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


/* the first is for those who accept anything */

static reuse_status_format_t  reuse_status_formats[] = {

    { ngx_string("html"),
      { ngx_string("text/html"), ngx_string("*/*"), ngx_string("text/*"),
        ngx_null_string },
      ngx_string("text/html; charset=utf-8"),
      sizeof("text/html") - 1,
      ngx_http_reuse_status_html },

    { ngx_string("json"),
      { ngx_string("application/json"), ngx_string("application/*"),
        ngx_null_string, ngx_null_string },
      ngx_string("application/json; charset=utf-8"),
      sizeof("application/json") - 1,
      ngx_http_reuse_status_json },

    { ngx_string("prometheus"),
      { ngx_string("text/plain"), ngx_string("application/openmetrics-text"),
        ngx_null_string, ngx_null_string },
      ngx_string("text/plain; version=0.0.4; charset=utf-8"),
      sizeof("text/plain") - 1,
      ngx_http_reuse_status_prometheus },

    { ngx_null_string,
      { ngx_null_string, ngx_null_string, ngx_null_string, ngx_null_string },
      ngx_null_string,
      0,
      NULL }
};


static ngx_command_t  ngx_http_reuse_status_commands[] = {

    { ngx_string("reuse_status"),
      NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS
                        |NGX_CONF_TAKE1,
      reuse_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_reuse_status_module_ctx = {
    NULL,                                  /* preconfiguration */
    NULL,                                  /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_reuse_status_create_loc_conf, /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_reuse_status_module = {
    NGX_MODULE_V1,
    &ngx_http_reuse_status_module_ctx,     /* module context */
    ngx_http_reuse_status_commands,        /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_http_reuse_status_create_loc_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(reuse_status_loc_conf_t));
}


/* reuse_status [servers=N | servers=off]; */

static char *
reuse_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    reuse_status_loc_conf_t  *slcf = conf;

    ngx_int_t                  n;
    ngx_str_t                 *value;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler == reuse_status_handler) {
        return "is duplicate";
    }

    value = cf->args->elts;
    n = NGX_HTTP_REUSE_STATUS_SERVERS;

    if (cf->args->nelts == 2) {

        n = NGX_ERROR;

        if (ngx_strcmp(value[1].data, "servers=off") == 0) {
            n = 0;

        } else if (ngx_strncmp(value[1].data, "servers=", 8) == 0) {
            n = ngx_atoi(value[1].data + 8, value[1].len - 8);
        }

        if (n == NGX_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" of "
                               "\"reuse_status\": it is \"servers=off\", or "
                               "up to how many servers have metrics of their "
                               "own, as in \"servers=1000\"", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    if (clcf->handler) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"%V\" takes the place of what was to answer "
                           "requests in the same block, as \"proxy_pass\" "
                           "does: remove one of them", &cmd->name);
    }

    slcf->servers = n;

    clcf->handler = reuse_status_handler;

    return NGX_CONF_OK;
}


static ngx_int_t
reuse_status_handler(ngx_http_request_t *r)
{
    ngx_int_t                            rc;
    reuse_status_format_t               *format;
    reuse_status_loc_conf_t             *slcf;
    ngx_http_reuse_status_text_t         text;
    ngx_http_upstream_reuse_snapshot_t  *shot;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    format = reuse_status_format(r);

    if (format == NULL) {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                      "the format of the reuse status is \"html\", \"json\" "
                      "or \"prometheus\"");
        return NGX_HTTP_BAD_REQUEST;
    }

    slcf = ngx_http_get_module_loc_conf(r, ngx_http_reuse_status_module);

    shot = ngx_http_upstream_reuse_take_snapshot(r->pool);
    if (shot == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memzero(&text, sizeof(ngx_http_reuse_status_text_t));
    text.pool = r->pool;
    text.servers = slcf->servers;

    format->write(&text, shot);

    if (text.failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return reuse_status_send(r, format, &text);
}


/* NULL: the argument names none. */

static reuse_status_format_t *
reuse_status_format(ngx_http_request_t *r)
{
    ngx_str_t               value;
    reuse_status_format_t  *format;

    if (ngx_http_arg(r, (u_char *) "format", sizeof("format") - 1, &value)
        != NGX_OK)
    {
        return reuse_status_accepted(r);
    }

    for (format = reuse_status_formats; format->write; format++) {
        if (value.len == format->name.len
            && ngx_strncmp(value.data, format->name.data, value.len) == 0)
        {
            return format;
        }
    }

    return NULL;
}


/* Accept (RFC 9110, section 12.5.1); who wants none of them gets the first. */

static reuse_status_format_t *
reuse_status_accepted(ngx_http_request_t *r)
{
    ngx_uint_t              i, weight;
    ngx_list_part_t        *part;
    ngx_table_elt_t        *h;
    reuse_status_format_t  *best;

    best = reuse_status_formats;
    weight = 0;

    for (part = &r->headers_in.headers.part; part; part = part->next) {

        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].key.len == sizeof("Accept") - 1
                && ngx_strncasecmp(h[i].key.data, (u_char *) "Accept",
                                   h[i].key.len)
                   == 0)
            {
                reuse_status_weigh(&h[i].value, &best, &weight);
            }
        }
    }

    return best;
}


static void
reuse_status_weigh(ngx_str_t *value, reuse_status_format_t **best,
    ngx_uint_t *weight)
{
    u_char                 *p, *last, *type, *end;
    ngx_uint_t              i, quality;
    reuse_status_format_t  *format;

    p = value->data;
    last = p + value->len;

    while (p < last) {

        while (p < last && (*p == ' ' || *p == '\t' || *p == ',')) {
            p++;
        }

        type = p;

        while (p < last && *p != ',' && *p != ';' && *p != ' ' && *p != '\t') {
            p++;
        }

        end = p;

        while (p < last && *p != ',') {
            p++;
        }

        quality = reuse_status_quality(end, p);

        if (quality <= *weight) {
            continue;
        }

        for (format = reuse_status_formats; format->write; format++) {

            for (i = 0; format->accept[i].len; i++) {

                if (format->accept[i].len == (size_t) (end - type)
                    && ngx_strncasecmp(format->accept[i].data, type,
                                       end - type)
                       == 0)
                {
                    *best = format;
                    *weight = quality;
                }
            }
        }
    }
}


/* Thousandths, of ";q=0.5" among parameters. */

static ngx_uint_t
reuse_status_quality(u_char *p, u_char *last)
{
    u_char     *end;
    ngx_int_t   n;

    for ( /* void */ ; p + 3 < last; p++) {

        if ((*p != ';' && *p != ' ' && *p != '\t')
            || (p[1] | 0x20) != 'q' || p[2] != '=')
        {
            continue;
        }

        p += 3;

        for (end = p; end < last; end++) {
            if (*end != '.' && (*end < '0' || *end > '9')) {
                break;
            }
        }

        n = ngx_atofp(p, end - p, 3);

        return (n == NGX_ERROR) ? 0 : n;
    }

    return 1000;
}


static ngx_int_t
reuse_status_send(ngx_http_request_t *r, reuse_status_format_t *format,
    ngx_http_reuse_status_text_t *text)
{
    ngx_int_t    rc;
    ngx_buf_t   *b;
    ngx_chain_t  out;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = text->last - text->start;
    r->headers_out.content_type = format->type;
    r->headers_out.content_type_len = format->type_len;
    r->headers_out.content_type_lowcase = NULL;

    if (reuse_status_add_field(r, "Cache-Control", "no-store") != NGX_OK
        || reuse_status_add_field(r, "Vary", "Accept") != NGX_OK
        || reuse_status_add_field(r, "X-Content-Type-Options", "nosniff")
           != NGX_OK
        || reuse_status_add_field(r, "Content-Security-Policy",
                                  "default-src 'none'; "
                                  "style-src 'unsafe-inline'; "
                                  "script-src 'unsafe-inline'; "
                                  "connect-src 'self'; img-src data:; "
                                  "frame-ancestors 'self'")
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b->pos = text->start;
    b->last = text->last;
    b->temporary = 1;
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


static ngx_int_t
reuse_status_add_field(ngx_http_request_t *r, const char *name,
    const char *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value.data = (u_char *) value;
    h->value.len = ngx_strlen(value);
    h->lowcase_key = NULL;
    ngx_http_myproxy_unlink_header(h);

    return NGX_OK;
}
