/*
 * "minimal_pass" passes GET requests to an upstream so that nginx can reuse
 * the connection; with -DMINIMAL_CLOSE so that it cannot: docs/for-authors.md.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#if (MINIMAL_CLOSE)
#define MINIMAL_REQUEST                                                       \
    "GET %V HTTP/1.0" CRLF "Host: %V" CRLF "Connection: close" CRLF CRLF
#else
#define MINIMAL_REQUEST  "GET %V HTTP/1.1" CRLF "Host: %V" CRLF CRLF
#endif

extern ngx_module_t  ngx_http_minimal_module;


static ngx_int_t
minimal_create_request(ngx_http_request_t *r)
{
    size_t        len;
    ngx_str_t    *host = &r->headers_in.host->value;
    ngx_chain_t  *cl;

    len = sizeof(MINIMAL_REQUEST) + r->unparsed_uri.len + host->len;
    cl = ngx_alloc_chain_link(r->pool);
    if (cl == NULL || (cl->buf = ngx_create_temp_buf(r->pool, len)) == NULL) {
        return NGX_ERROR;
    }

    cl->buf->last = ngx_sprintf(cl->buf->last, MINIMAL_REQUEST,
                                &r->unparsed_uri, host);
    cl->next = NULL;
    r->upstream->request_bufs = cl;
    return NGX_OK;
}


static ngx_int_t
minimal_reinit_request(ngx_http_request_t *r)
{
    ngx_memzero(ngx_http_get_module_ctx(r, ngx_http_minimal_module),
                sizeof(ngx_http_status_t));
    r->state = 0;
    return NGX_OK;
}


static ngx_int_t
minimal_process_field(ngx_http_request_t *r)
{
    ngx_table_elt_t                *h;
    ngx_http_upstream_header_t     *hh;
    ngx_http_upstream_main_conf_t  *umcf;

    h = ngx_list_push(&r->upstream->headers_in.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }
    ngx_memzero(h, sizeof(ngx_table_elt_t));
    h->key.len = r->header_name_end - r->header_name_start;
    h->value.len = r->header_end - r->header_start;
    h->key.data = ngx_pnalloc(r->pool, 2 * h->key.len + h->value.len + 2);
    if (h->key.data == NULL) {
        return NGX_ERROR;
    }
    h->value.data = ngx_cpystrn(h->key.data, r->header_name_start,
                                h->key.len + 1) + 1;
    h->lowcase_key = ngx_cpystrn(h->value.data, r->header_start,
                                 h->value.len + 1) + 1;
    ngx_strlow(h->lowcase_key, h->key.data, h->key.len);
    h->hash = r->header_hash;
    umcf = ngx_http_get_module_main_conf(r, ngx_http_upstream_module);
    hh = ngx_hash_find(&umcf->headers_in_hash, h->hash, h->lowcase_key,
                       h->key.len);
    return hh ? hh->handler(r, h, hh->offset) : NGX_OK;
}


static ngx_int_t
minimal_process_header(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_http_upstream_t  *u = r->upstream;
    ngx_http_status_t    *status = ngx_http_get_module_ctx(r,
                                                     ngx_http_minimal_module);

    if (u->headers_in.status_n == 0) {
        rc = ngx_http_parse_status_line(r, &u->buffer, status);
        if (rc != NGX_OK || status->code < 200) {
            return rc == NGX_AGAIN ? rc : NGX_HTTP_UPSTREAM_INVALID_HEADER;
        }
        u->headers_in.status_n = u->state->status = status->code;
        u->headers_in.connection_close =
                                 (status->http_version < NGX_HTTP_VERSION_11);
    }

    while ((rc = ngx_http_parse_header_line(r, &u->buffer, 1)) == NGX_OK) {
        if (minimal_process_field(r) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (rc != NGX_HTTP_PARSE_HEADER_DONE || u->headers_in.chunked) {
        return rc == NGX_AGAIN ? rc : NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }
    if (u->headers_in.status_n == 204 || u->headers_in.status_n == 304) {
        u->headers_in.content_length_n = 0;
    }
    u->keepalive = !u->headers_in.connection_close
                   && u->headers_in.content_length_n != -1;
    return NGX_OK;
}


static ngx_int_t
minimal_filter_init(void *data)
{
    ngx_http_upstream_t  *u = data;

    u->length = u->headers_in.content_length_n;
    return NGX_OK;
}


static ngx_int_t
minimal_filter(void *data, ssize_t bytes)
{
    ngx_chain_t          *cl, **ll;
    ngx_http_upstream_t  *u = data;

    if (u->length == 0) {
        u->keepalive = 0;
        return NGX_OK;
    }

    if ((cl = ngx_chain_get_free_buf(u->output.pool, &u->free_bufs)) == NULL) {
        return NGX_ERROR;
    }

    for (ll = &u->out_bufs; *ll; ll = &(*ll)->next) { /* void */ }
    *ll = cl;
    cl->buf->flush = cl->buf->memory = 1;
    cl->buf->tag = u->output.tag;
    cl->buf->pos = u->buffer.last;
    u->buffer.last += bytes;

    if (bytes > u->length && u->length != -1) {
        u->keepalive = 0;
        bytes = u->length;
    }

    u->length -= (u->length == -1) ? 0 : bytes;
    cl->buf->last = cl->buf->pos + bytes;
    return NGX_OK;
}


static void
minimal_finalize_request(ngx_http_request_t *r, ngx_int_t rc)
{
}


static ngx_int_t
minimal_handler(ngx_http_request_t *r)
{
    ngx_http_status_t    *status;
    ngx_http_upstream_t  *u;

    if (r->method != NGX_HTTP_GET || r->headers_in.host == NULL
        || ngx_http_discard_request_body(r) != NGX_OK)
    {
        return NGX_HTTP_BAD_REQUEST;
    }
    status = ngx_pcalloc(r->pool, sizeof(ngx_http_status_t));
    if (status == NULL || ngx_http_upstream_create(r) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    ngx_http_set_ctx(r, status, ngx_http_minimal_module);
    u = r->upstream;
    u->conf = ngx_http_get_module_loc_conf(r, ngx_http_minimal_module);
    u->output.tag = (ngx_buf_tag_t) &ngx_http_minimal_module;
    u->create_request = minimal_create_request;
    u->reinit_request = minimal_reinit_request;
    u->process_header = minimal_process_header;
    u->finalize_request = minimal_finalize_request;
    u->input_filter_init = minimal_filter_init;
    u->input_filter = minimal_filter;
    u->input_filter_ctx = u;
    r->main->count++;
    ngx_http_upstream_init(r);
    return NGX_DONE;
}


static void *
minimal_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_upstream_conf_t  *ucf;

    if ((ucf = ngx_pcalloc(cf->pool, sizeof(ngx_http_upstream_conf_t)))) {
        ucf->connect_timeout = ucf->send_timeout = ucf->read_timeout = 60000;
        ucf->buffer_size = ngx_pagesize;
        ucf->next_upstream = NGX_HTTP_UPSTREAM_FT_ERROR;
        ucf->hide_headers = ucf->pass_headers = NGX_CONF_UNSET_PTR;
    }
    return ucf;
}


static char *
minimal_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_url_t                  url = { .default_port = 80, .no_resolve = 1 };
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_upstream_conf_t  *ucf = conf;
    static ngx_str_t           hidden[] = { ngx_null_string };
    static ngx_hash_init_t     hash = { .max_size = 512, .bucket_size = 64,
                                        .name = "minimal_hide_headers" };

    url.url = ((ngx_str_t *) cf->args->elts)[1];
    ucf->upstream = ngx_http_upstream_add(cf, &url, 0);
    if (ucf->upstream == NULL || ngx_http_upstream_hide_headers_hash(cf, ucf,
                                                         ucf, hidden, &hash))
    {
        return NGX_CONF_ERROR;
    }
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = minimal_handler;
    return NGX_CONF_OK;
}


static ngx_command_t  minimal_commands[] = {
    { ngx_string("minimal_pass"), NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      minimal_pass, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL },
    ngx_null_command
};
static ngx_http_module_t  minimal_ctx = {
    NULL, NULL, NULL, NULL, NULL, NULL, minimal_create_loc_conf, NULL
};
ngx_module_t  ngx_http_minimal_module = {
    NGX_MODULE_V1, &minimal_ctx, minimal_commands, NGX_HTTP_MODULE,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NGX_MODULE_V1_PADDING
};
