
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The life of a connection that is kept.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_CONNECTION_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_CONNECTION_H_INCLUDED_


#include "ngx_http_upstream_reuse_accounts.h"
#include "ngx_http_upstream_reuse_answers.h"
#include "ngx_http_upstream_reuse_drain.h"
#include "ngx_http_upstream_reuse_expiry.h"
#include "ngx_http_upstream_reuse_tcp.h"


/* connection */

/* Prepares a connection for being kept; NULL if it must not be. */
ngx_http_upstream_reuse_conn_t *ngx_http_upstream_reuse_keep(
    ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc);

/*
 * Makes the record of a connection, which is that of a request or was parked;
 * NULL if there is no memory.
 */
ngx_http_upstream_reuse_conn_t *ngx_http_upstream_reuse_create_conn(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_reuse_identity_t *id, struct sockaddr *sockaddr,
    socklen_t socklen, ngx_connection_t *c);

/* The record of a connection; NULL if it was never kept. */
ngx_http_upstream_reuse_conn_t *ngx_http_upstream_reuse_find_conn(
    ngx_connection_t *c);


/*
 * Changes the state; logs an alert if it cannot follow on the one before, by
 * reuse_next_states[] (connection.c).  A new state also needs its case in
 * reuse_cleanup_conn() there, in drain.c, in why_idle_closed() (reasons.c),
 * and where one is expected: peer.c, handover.c, and module.c of src/warm.
 */
void ngx_http_upstream_reuse_set_state(ngx_http_upstream_reuse_conn_t *conn,
    ngx_http_upstream_reuse_conn_state_e state);

/*
 * A connection that was kept is closed, while no request has it, for a reason
 * that is known.
 */
void ngx_http_upstream_reuse_end_conn(ngx_http_upstream_reuse_conn_t *conn,
    ngx_http_upstream_reuse_close_e reason);

/*
 * What the kernel still has of a request must not reach anyone now: closed
 * after this, a connection drops it.
 */
void ngx_http_upstream_reuse_abort(ngx_connection_t *c);

/*
 * How a worker that ends may leave an idle connection to others: NGX_OK if it
 * is theirs; NULL: it cannot.
 */
extern ngx_int_t (*ngx_http_upstream_reuse_leave)(
    ngx_http_upstream_reuse_conn_t *conn);


/* identity */

/*
 * What a connection for this request has to have been opened for; NULL if
 * there is no memory.
 */
ngx_http_upstream_reuse_identity_t *ngx_http_upstream_reuse_find_identity(
    ngx_http_upstream_reuse_peer_t *rp);

/*
 * The same for all requests of a location in HTTP/1.1, to an upstream of that
 * host: NGX_OK, NGX_DECLINED if it is not the same for all, and NGX_ERROR.
 */
ngx_int_t ngx_http_upstream_reuse_foresee_identity(
    ngx_http_upstream_conf_t *conf, ngx_str_t *host, ngx_pool_t *pool,
    ngx_http_upstream_reuse_identity_t **id);

/* A copy that lives as long as the pool; NULL if there is no memory. */
ngx_http_upstream_reuse_identity_t *ngx_http_upstream_reuse_copy_identity(
    ngx_http_upstream_reuse_identity_t *id, ngx_pool_t *pool);

/*
 * NTLM and Negotiate authenticate the connection, not the request (RFC 4559,
 * section 6): one on which they appeared belongs to that client.
 */
ngx_uint_t ngx_http_upstream_reuse_is_authenticated(ngx_http_request_t *r);


/* probe */

/* cycle: "reuse_probe", with times in seconds */

struct ngx_http_upstream_reuse_probe_s {
    int                              idle;
    int                              interval;
    int                              count;  /* 0: as the system has it */
};

extern ngx_http_upstream_reuse_probe_t  ngx_http_upstream_reuse_default_probe;

/*
 * Has the kernel probe a connection that is kept for the first time.  The
 * options stay with the socket, whichever worker has it later.
 */
void ngx_http_upstream_reuse_set_probe(ngx_http_upstream_reuse_conn_t *conn,
    ngx_http_upstream_conf_t *conf);

/*
 * Tells of a connection that has ended whether a probe was unanswered then, so
 * that nobody has closed it because it was idle: one system call.
 */
ngx_uint_t ngx_http_upstream_reuse_is_lost(
    ngx_http_upstream_reuse_conn_t *conn);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_CONNECTION_H_INCLUDED_ */
