
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What we have of a request is as old as the request's pool, but not in it:
 * many requests would need another block of memory there.
 */


#include "ngx_http_myproxy_module.h"


/*
 * Kept by each worker for other requests.  Tools that look for what is used
 * too late must see its end, though.
 */
#if (NGX_DEBUG_PALLOC)
#define NGX_HTTP_MYPROXY_SPARES  0
#else
#define NGX_HTTP_MYPROXY_SPARES  512
#endif


static void free_context(void *data);


/* worker */

static ngx_http_myproxy_ctx_t  *spare;
static ngx_uint_t               spares;


ngx_http_myproxy_ctx_t *
ngx_http_myproxy_create_context(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t      *cln;
    ngx_http_myproxy_ctx_t  *ctx;

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    ctx = spare;

    if (ctx) {
        spare = ctx->next;
        spares--;

    } else {
        ctx = ngx_alloc(sizeof(ngx_http_myproxy_ctx_t), r->connection->log);
        if (ctx == NULL) {
            return NULL;
        }
    }

    cln->handler = free_context;
    cln->data = ctx;

    ngx_memzero(ctx, sizeof(ngx_http_myproxy_ctx_t));

    return ctx;
}


static void
free_context(void *data)
{
    ngx_http_myproxy_ctx_t *ctx = data;

    if (spares == NGX_HTTP_MYPROXY_SPARES) {
        ngx_free(ctx);
        return;
    }

    ctx->next = spare;
    spare = ctx;
    spares++;
}
