
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Why a request has a new connection, and why one is closed: which reason it
 * is.  The reasons are ngx_http_upstream_reuse_new_e and
 * ngx_http_upstream_reuse_close_e (counters.h); their names, meanings and
 * advice are arrays in reasons.c, which snapshot.h declares, as are those of
 * requests that are refused.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_REASONS_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_REASONS_H_INCLUDED_


#include "ngx_http_upstream_reuse_pool.h"


/*
 * Why the pool had no connection for a request: OFF, EMPTY or IDENTITY.  Where
 * a connection was found and not used, whoever found it says why:
 * reuse_unfit() and reuse_get_peer() (peer.c), and take_over() (handover.c).
 */
ngx_http_upstream_reuse_new_e ngx_http_upstream_reuse_why_new(
    ngx_http_upstream_reuse_peer_t *rp);

/*
 * Why a connection that the pool had for a request is closed: the reason that
 * goes with rp->account.why_new.
 */
ngx_http_upstream_reuse_close_e ngx_http_upstream_reuse_why_unfit(
    ngx_http_upstream_reuse_peer_t *rp);

/* Why a connection is not kept after a request, if it will not be. */
ngx_http_upstream_reuse_close_e ngx_http_upstream_reuse_why_closed(
    ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c,
    ngx_uint_t state);

/*
 * Why an idle connection is closed; ended is what
 * ngx_http_upstream_reuse_note_end() says of it.
 */
ngx_http_upstream_reuse_close_e ngx_http_upstream_reuse_why_idle_closed(
    ngx_http_upstream_reuse_conn_t *conn, ngx_int_t ended);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_REASONS_H_INCLUDED_ */
