
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A layer over the peers of any upstream.  Idle connections live in nginx's
 * own ngx_http_upstream_keepalive_module; this module decides which upstreams
 * have it and which requests may use it.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_MODULE_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_MODULE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/* cycle: one upstream */

typedef struct {
    ngx_flag_t                       reuse;

    ngx_http_upstream_init_pt        init_upstream;

    /* without and with the keepalive module */
    ngx_http_upstream_init_peer_pt   init_balancer;
    ngx_http_upstream_init_peer_pt   init_peer;

    unsigned                         asked:1;
    unsigned                         added:1;
} ngx_http_upstream_reuse_srv_conf_t;


/*
 * Asks for idle connections to be kept in an upstream, unless the operator
 * has written "keepalive" or "reuse off" there.  Only requests that
 * ngx_http_upstream_reuse_accept() was called for will use them, so that
 * other handlers on the same upstream behave as before.
 *
 *     cf    within http{}, before ngx_http_upstream_module is initialised
 *     uscf  the upstream, explicit or implicit; NULL asks for all of them,
 *           as a handler must that learns the upstream's name from variables
 *
 * Returns NGX_OK, or NGX_ERROR if there is no memory.
 */
ngx_int_t ngx_http_upstream_reuse_ask(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);

/*
 * Tells that the handler of this request keeps the rules of a reusable
 * connection.  To be called before ngx_http_upstream_init().
 */
void ngx_http_upstream_reuse_accept(ngx_http_request_t *r);


/*
 * Stands before the peer functions of an upstream, as its peer.init: a kept
 * connection carries a request only if it was opened for the same identity.
 */
ngx_int_t ngx_http_upstream_reuse_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);


extern ngx_module_t  ngx_http_upstream_reuse_module;


#endif /* _NGX_HTTP_UPSTREAM_REUSE_MODULE_H_INCLUDED_ */
