/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What ends a connection without its origin or its requests having to do with
 * it: its server gets no requests any more (drain), the resolver does not know
 * its address any more (answers), or it is too old (age).
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_DRAIN_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_DRAIN_H_INCLUDED_


#include "ngx_http_upstream_reuse_accounts.h"


/* drain */

/* milliseconds: so often a worker looks which servers get requests */
#define NGX_HTTP_UPSTREAM_REUSE_LOOK  400

/*
 * A record of a connection was made, and is about to go.  While there are any
 * in this worker, it looks at their servers from time to time.
 */
void ngx_http_upstream_reuse_register(ngx_http_upstream_reuse_conn_t *conn);
void ngx_http_upstream_reuse_unregister(ngx_http_upstream_reuse_conn_t *conn);

/*
 * Tells whether the server of a new connection is one that its upstream has.
 * A balancer may choose others, as one that is written in Lua does.
 */
ngx_uint_t ngx_http_upstream_reuse_is_listed(
    ngx_http_upstream_reuse_conn_t *conn);

/*
 * Tells whether the server of a connection gets no requests any more; of one
 * that its upstream never had nothing is known.
 */
ngx_uint_t ngx_http_upstream_reuse_is_drained(
    ngx_http_upstream_reuse_conn_t *conn);

/* Tells whether a server with that hash of its address gets requests. */
ngx_uint_t ngx_http_upstream_reuse_is_live(
    ngx_http_upstream_reuse_live_t *live, uint32_t hash);

/* Looks at the servers of all upstreams, unless it was done just now. */
void ngx_http_upstream_reuse_look_at_servers(void);


/* age */

/* The least age, in milliseconds, at which connections of an upstream end. */
ngx_msec_t ngx_http_upstream_reuse_least_age(
    ngx_http_upstream_reuse_srv_conf_t *rcf);

/* The age at which a new connection will end, in milliseconds; 0: at none. */
ngx_msec_t ngx_http_upstream_reuse_draw_lifetime(
    ngx_http_upstream_reuse_srv_conf_t *rcf);

/*
 * The same for one that is there, as of the configuration in force: the age
 * that was drawn holds as long as it could have been drawn.
 */
ngx_msec_t ngx_http_upstream_reuse_renew_lifetime(
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_msec_t lifetime);

/* Milliseconds until then, of a connection that has such an age. */
ngx_msec_t ngx_http_upstream_reuse_age_left(
    ngx_http_upstream_reuse_conn_t *conn);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_DRAIN_H_INCLUDED_ */
