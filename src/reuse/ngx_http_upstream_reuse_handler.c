
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the handler of a request tells the layer.
 */


#include "ngx_http_upstream_reuse_layer.h"


void
ngx_http_upstream_reuse_accept(ngx_http_request_t *r)
{
    /* the address serves as a mark only */

    ngx_http_set_ctx(r, &ngx_http_upstream_reuse_module,
                     ngx_http_upstream_reuse_module);
}


ngx_http_upstream_reuse_peer_t *
ngx_http_upstream_reuse_find_peer(ngx_http_request_t *r)
{
#if !(NGX_HTTP_MYPROXY_TWO_STEPS)
    ngx_http_upstream_reuse_peer_t  *rp;
#endif

    if (r->upstream == NULL
        || r->upstream->peer.get != ngx_http_upstream_reuse_get_peer)
    {
        return NULL;
    }

#if (NGX_HTTP_MYPROXY_TWO_STEPS)
    return ngx_http_upstream_reuse_find_marked(r);
#else
    rp = r->upstream->peer.data;

    /* a balancer may have put its own data there for as long as it runs */

    return (rp->request == r && rp->upstream == r->upstream) ? rp : NULL;
#endif
}


void
ngx_http_upstream_reuse_explain(ngx_http_request_t *r,
    ngx_http_upstream_reuse_close_e reason)
{
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = ngx_http_upstream_reuse_find_peer(r);

    if (rp && rp->account.explained == NGX_HTTP_UPSTREAM_REUSE_CLOSE_PENDING) {
        rp->account.explained = reason;
    }
}


void
ngx_http_upstream_reuse_hint(ngx_http_request_t *r, ngx_str_t *value)
{
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = ngx_http_upstream_reuse_find_peer(r);

    if (rp) {
        ngx_http_upstream_reuse_note_hint(rp, value);
    }
}
