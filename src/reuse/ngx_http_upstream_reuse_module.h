
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A layer over the peers of any upstream.  Idle connections live in nginx's
 * own ngx_http_upstream_keepalive_module; this module decides which upstreams
 * have it, which requests may use which connection, and what becomes of a
 * request that has met one which the origin was just closing.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_MODULE_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_MODULE_H_INCLUDED_


#include "ngx_http_upstream_reuse_counters.h"
#include "ngx_http_upstream_reuse_warnings.h"
#include "ngx_http_upstream_reuse_answers.h"
#include "ngx_http_upstream_reuse_ssl.h"


/* module */

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
 * Asks for an upstream that has no servers: its addresses come with the
 * requests, and may be any number.  There can be one of this kind.
 */
ngx_int_t ngx_http_upstream_reuse_ask_unbounded(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);

/*
 * Tells that a handler will need connections for HTTP/1.1 with these settings,
 * so that some can be opened before there is a request.  To be called while
 * the configuration is merged, for a location with an upstream that is known.
 *
 *     conf  the location's, which stays, once it is merged; with conf->ssl
 *           if its connections are over TLS, and only then
 *
 * Returns NGX_OK, or NGX_ERROR if there is no memory.
 */
ngx_int_t ngx_http_upstream_reuse_foresee(ngx_conf_t *cf,
    ngx_http_upstream_conf_t *conf);


/* handler */

/*
 * Tells that the handler of this request speaks HTTP/1.1, sets u->keepalive as
 * it should be, and will call ngx_http_upstream_reuse_hint().  To be called
 * before ngx_http_upstream_init().
 */
void ngx_http_upstream_reuse_accept(ngx_http_request_t *r);

/*
 * Tells the value of a Keep-Alive in the header of a response that has come
 * over the connection.  Where the handler does not, u->headers_in is searched,
 * which after a revalidation has the fields of the cache, not the origin's.
 */
void ngx_http_upstream_reuse_hint(ngx_http_request_t *r, ngx_str_t *value);

/*
 * Tells why the connection of this request will not be kept, where core only
 * knows that it will not.  Of several calls the first one counts.
 */
void ngx_http_upstream_reuse_explain(ngx_http_request_t *r,
    ngx_http_upstream_reuse_close_e reason);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_MODULE_H_INCLUDED_ */
