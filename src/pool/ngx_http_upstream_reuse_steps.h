
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A peer that is chosen and connected to in two steps, as in Angie.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_STEPS_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_STEPS_H_INCLUDED_


#include "ngx_http_upstream_reuse.h"


#if (NGX_HTTP_MYPROXY_TWO_STEPS)

/* The peer is that of the upstream which its request has now. */
ngx_int_t ngx_http_upstream_reuse_mark_peer(
    ngx_http_upstream_reuse_peer_t *rp);
ngx_http_upstream_reuse_peer_t *ngx_http_upstream_reuse_find_marked(
    ngx_http_request_t *r);

/*
 * Stands before the steps in which the pool has a part.  Calls
 * rp->begin_anew() when the attempt goes on with another connection to that
 * peer.
 */
void ngx_http_upstream_reuse_stand_between(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc);

/*
 * Asks the pool, by its function, for a connection with the key that stands
 * in place of the address.  NGX_DONE: has it; NGX_OK: there is none.
 */
ngx_int_t ngx_http_upstream_reuse_ask_pool(ngx_peer_connection_t *pc,
    ngx_event_connect_peer_pt connect);

/* What the functions of a peer are called with. */
#define ngx_http_upstream_reuse_peer_of(pc, data)                             \
    ngx_http_upstream_reuse_find_marked((pc)->ctx)

#else

#define ngx_http_upstream_reuse_peer_of(pc, data)  (data)

#endif


#endif /* _NGX_HTTP_UPSTREAM_REUSE_STEPS_H_INCLUDED_ */
