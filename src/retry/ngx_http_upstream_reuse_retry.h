
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What becomes of a request whose connection fails.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_RETRY_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_RETRY_H_INCLUDED_


#include "ngx_http_upstream_reuse_limit.h"
#include "ngx_http_upstream_reuse_silence.h"


/* retry */

/*
 * A request is about to be sent on a kept connection: functions of our own
 * stand in the places of c->recv and c->send_chain.  Until the first byte
 * of a response is there, each close or reset of the connection is examined.
 */
void ngx_http_upstream_reuse_watch(ngx_http_upstream_reuse_peer_t *rp,
    ngx_connection_t *c);

/*
 * The attempt is over before a byte of a response was there; to be called
 * first in peer.free.  Returns 1 if the request was provably not delivered
 * and is to be sent again: the peer is still held then, and the next
 * peer.get begins with ngx_http_upstream_reuse_get_again().  Otherwise 0;
 * NGX_PEER_FAILED is taken from *state if the peer is not to blame.
 */
ngx_uint_t ngx_http_upstream_reuse_send_again(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp, ngx_uint_t *state);

void ngx_http_upstream_reuse_get_again(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);


/* http2 */

/* Tells whether a request is in HTTP/2 and was sent in part. */
ngx_uint_t ngx_http_upstream_reuse_is_partial_http2(ngx_http_upstream_t *u);

/* Makes a request in HTTP/2 the first of its connection. */
void ngx_http_upstream_reuse_renumber_http2(ngx_http_upstream_t *u);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_RETRY_H_INCLUDED_ */
