
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"
#include "ngx_http_upstream_reuse_module.h"


static ngx_int_t myproxy_no_target(ngx_http_request_t *r);
static void myproxy_set_callbacks(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf);
static ngx_int_t myproxy_preconfigure(ngx_conf_t *cf);
static ngx_int_t myproxy_postconfigure(ngx_conf_t *cf);
static ngx_int_t myproxy_add_variables(ngx_conf_t *cf);
static ngx_int_t myproxy_target_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t myproxy_forwarded_for_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_module_t  ngx_http_myproxy_module_ctx = {
    myproxy_preconfigure,                  /* preconfiguration */
    myproxy_postconfigure,                 /* postconfiguration */

    ngx_http_myproxy_create_main_conf,     /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_myproxy_create_loc_conf,      /* create location configuration */
    ngx_http_myproxy_merge_loc_conf        /* merge location configuration */
};


ngx_module_t  ngx_http_myproxy_module = {
    NGX_MODULE_V1,
    &ngx_http_myproxy_module_ctx,          /* module context */
    ngx_http_myproxy_commands,             /* module directives */
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


static ngx_http_variable_t  ngx_http_myproxy_variables[] = {

    { ngx_string("myproxy_host"), NULL, myproxy_target_variable,
      offsetof(ngx_http_myproxy_target_t, host),
      NGX_HTTP_VAR_CHANGEABLE|NGX_HTTP_VAR_NOCACHEABLE|NGX_HTTP_VAR_NOHASH,
      0 },

    { ngx_string("myproxy_port"), NULL, myproxy_target_variable,
      offsetof(ngx_http_myproxy_target_t, port),
      NGX_HTTP_VAR_CHANGEABLE|NGX_HTTP_VAR_NOCACHEABLE|NGX_HTTP_VAR_NOHASH,
      0 },

    { ngx_string("myproxy_add_x_forwarded_for"), NULL,
      myproxy_forwarded_for_variable, 0, NGX_HTTP_VAR_NOHASH, 0 },

      ngx_http_null_variable
};


/*
 * The content handler.  The callbacks run in this order: create_key if there
 * is a cache, create_request, then for each attempt process_header (status
 * line, then header) and one of the body filters, with reinit_request between
 * two attempts; finalize_request comes last, before the peer is freed.
 */

ngx_int_t
ngx_http_myproxy_handler(ngx_http_request_t *r)
{
    ngx_int_t                     rc;
    ngx_http_upstream_t          *u;
    ngx_http_myproxy_ctx_t       *ctx;
    ngx_http_myproxy_loc_conf_t  *mlcf;

    if (r->method == NGX_HTTP_CONNECT) {

        /* where "tunnel_pass" is used in the same server */

        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                      "client sent CONNECT, which \"myproxy_pass\" does not "
                      "pass on");
        return NGX_HTTP_NOT_ALLOWED;
    }

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_myproxy_module);

    if (!ngx_http_myproxy_has_target(mlcf)) {
        return myproxy_no_target(r);
    }

    if (ngx_http_upstream_create(r) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_myproxy_ctx_t));
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_set_ctx(r, ctx, ngx_http_myproxy_module);
    ngx_http_upstream_reuse_accept(r);

    u = r->upstream;

    if (mlcf->pass) {
        if (ngx_http_myproxy_eval_target(r, ctx, mlcf) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

    } else {
        ctx->target = &mlcf->target;
        u->schema.data = mlcf->url.data;
        u->schema.len = sizeof("http://") - 1 + mlcf->ssl;
        u->ssl = mlcf->ssl;
    }

    rc = ngx_http_myproxy_read_connection_fields(r, ctx, mlcf);
    if (rc != NGX_OK) {
        return rc;
    }

    myproxy_set_callbacks(r, ctx, mlcf);

#if (NGX_HTTP_MYPROXY_TWO_STEPS)

    /* the balancer looks at it when it takes the time of a response */

    if (u->buffering && ngx_http_myproxy_create_pipe(r) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

#endif

    if ((ngx_http_myproxy_caches(mlcf) || mlcf->upstream.store)
        && ngx_http_myproxy_prepare_cache(r, ctx, mlcf) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_myproxy_read_body(r, ctx, mlcf);
}


/*
 * Of several "if" blocks that are true the handler is that of the last one
 * that has a handler, but the configuration is that of the last one.
 */

static ngx_int_t
myproxy_no_target(ngx_http_request_t *r)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "there is no \"myproxy_pass\" for this request: the last "
                  "\"if\" that was true in location \"%V\" has none, and "
                  "that of an earlier \"if\" does not apply to it; "
                  "write \"myproxy_pass\" in the location itself, or in each "
                  "of its \"if\" blocks", &clcf->name);

    return NGX_HTTP_INTERNAL_SERVER_ERROR;
}


static void
myproxy_set_callbacks(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_http_myproxy_loc_conf_t *mlcf)
{
    ngx_http_upstream_t           *u;
#if (NGX_HTTP_CACHE)
    ngx_http_myproxy_main_conf_t  *mmcf;
#endif

    u = r->upstream;

    u->output.tag = (ngx_buf_tag_t) &ngx_http_myproxy_module;

    u->conf = &mlcf->upstream;

#if (NGX_HTTP_CACHE)
    mmcf = ngx_http_get_module_main_conf(r, ngx_http_myproxy_module);

    u->caches = &mmcf->caches;
    u->create_key = ngx_http_myproxy_create_key;
#endif

    u->create_request = ngx_http_myproxy_create_request;
    u->reinit_request = ngx_http_myproxy_reinit_request;
    u->process_header = ngx_http_myproxy_process_status_line;
    u->abort_request = ngx_http_myproxy_abort_request;
    u->finalize_request = ngx_http_myproxy_finalize_request;
    r->state = 0;

    if (mlcf->redirects) {
        u->rewrite_redirect = ngx_http_myproxy_rewrite_redirect;
    }

    if (mlcf->cookie_domains || mlcf->cookie_paths || mlcf->cookie_flags) {
        u->rewrite_cookie = ngx_http_myproxy_rewrite_cookie;
    }

    u->buffering = mlcf->upstream.buffering;

    ngx_http_myproxy_reset_body(u);
    u->input_filter_ctx = r;

    u->accel = 1;
}


static ngx_int_t
myproxy_preconfigure(ngx_conf_t *cf)
{
    if (ngx_http_myproxy_watch_stock(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    return myproxy_add_variables(cf);
}


static ngx_int_t
myproxy_postconfigure(ngx_conf_t *cf)
{
    ngx_http_myproxy_check_stock(cf);

    return ngx_http_myproxy_init_known_fields(cf);
}


static ngx_int_t
myproxy_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_myproxy_variables; v->name.len; v++) {

        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


/* $myproxy_host, $myproxy_port */

static ngx_int_t
myproxy_target_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_str_t               *s;
    ngx_http_myproxy_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    if (ctx == NULL || ctx->target == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    s = (ngx_str_t *) ((char *) ctx->target + data);

    v->data = s->data;
    v->len = s->len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


/*
 * $myproxy_add_x_forwarded_for: the client's X-Forwarded-For fields, in their
 * order, and the address that the client has for us.
 */

static ngx_int_t
myproxy_forwarded_for_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char           *p;
    size_t            len;
    ngx_str_t        *addr;
    ngx_uint_t        i, fill;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    addr = &r->connection->addr_text;

    p = NULL;
    len = 0;

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    for (fill = 0; fill < 2; fill++) {

        for (part = &r->headers_in.headers.part; part; part = part->next) {

            h = part->elts;

            for (i = 0; i < part->nelts; i++) {

                if (h[i].key.len != sizeof("x-forwarded-for") - 1
                    || ngx_strncmp(h[i].lowcase_key, "x-forwarded-for",
                                   sizeof("x-forwarded-for") - 1)
                       != 0)
                {
                    continue;
                }

                if (fill) {
                    p = ngx_cpymem(p, h[i].value.data, h[i].value.len);
                    *p++ = ',';
                    *p++ = ' ';

                } else {
                    len += h[i].value.len + sizeof(", ") - 1;
                }
            }
        }

        if (fill) {
            break;
        }

        if (len == 0) {
            v->data = addr->data;
            v->len = addr->len;

            return NGX_OK;
        }

        v->len = len + addr->len;

        v->data = ngx_pnalloc(r->pool, v->len);
        if (v->data == NULL) {
            return NGX_ERROR;
        }

        p = v->data;
    }

    ngx_memcpy(p, addr->data, addr->len);

    return NGX_OK;
}
