
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Idle connections are handed over from one worker to another: they are
 * parked, where each worker finds them.  Those over TLS stay where they are,
 * as OpenSSL's state of a connection does not leave its process, and so do
 * those with a state of another module, as in HTTP/2.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_SHARE_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_SHARE_H_INCLUDED_


#include "ngx_http_upstream_reuse_places.h"


/* handover */

/* worker: begins; connections are handed over from then on, if they may be */
void ngx_http_upstream_reuse_begin_handover(ngx_cycle_t *cycle);

/* Tells whether workers hand over those of an upstream that have no TLS. */
#define ngx_http_upstream_reuse_is_shared(rcf)                                \
    (ngx_http_upstream_reuse_nplaces != 0 && (rcf)->reuse != 0)

/*
 * A connection is idle from now on: it is parked if that lasts, or at once if
 * it lasted the last time, so that the caller must not look at it any more.
 */
void ngx_http_upstream_reuse_offer(ngx_http_upstream_reuse_conn_t *conn);

/* Parks an idle connection now.  NGX_DECLINED: it stays in the pool. */
ngx_int_t ngx_http_upstream_reuse_hand_over(
    ngx_http_upstream_reuse_conn_t *conn);

/*
 * This worker has used a connection to a server that it had left idle for so
 * many milliseconds.
 */
void ngx_http_upstream_reuse_note_pace(
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t age);

/*
 * Looks for a parked connection to pc->sockaddr for a request, for which the
 * worker has none.  NGX_DONE: it is pc->connection, as if it had been idle in
 * the pool; NGX_DECLINED: there is none.  rp->account.why_new is set if one
 * was there that had ended.
 */
ngx_int_t ngx_http_upstream_reuse_take_over(
    ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc);


/* adopt */

/*
 * Makes a connection of what was parked, idle as if it came from the pool.
 * NULL if that cannot be had: it is closed, and counted, then.
 */
ngx_http_upstream_reuse_conn_t *ngx_http_upstream_reuse_adopt(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server, struct sockaddr *sockaddr,
    ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    ngx_log_t *log);

/* Closes one on which something has arrived. */
void ngx_http_upstream_reuse_close_ended(ngx_http_upstream_reuse_conn_t *conn,
    ngx_http_upstream_reuse_parcel_t *parcel);

/* Tells whether there is nothing to be read: no data, no end, no error. */
ngx_uint_t ngx_http_upstream_reuse_is_quiet(ngx_socket_t fd);


/* sweep */

/* worker: looks at parked connections from now on, in turn with others */
void ngx_http_upstream_reuse_begin_sweep(void);

/* The last worker ends: nobody would look at what is parked any more. */
void ngx_http_upstream_reuse_end_sweep(void);

/* Closes a parked connection to a server; returns 0 if there is none. */
ngx_uint_t ngx_http_upstream_reuse_close_one_parked(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_reuse_close_e reason);

/* Closes all parked connections to a server. */
void ngx_http_upstream_reuse_close_parked(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_reuse_close_e reason);


/*
 * Closes a parked connection to a server that ends within so many milliseconds
 * anyway; returns 0 if there is none.
 */
ngx_uint_t ngx_http_upstream_reuse_retire_parked(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t most);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_SHARE_H_INCLUDED_ */
