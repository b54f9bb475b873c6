
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * How long a connection may be idle (expiry), and how that is learned
 * (learned).
 *
 * A limit that was learned is put to the test in three ways: a connection is
 * left in the pool beyond it (may_outlive), or out of the pool (put_to_test),
 * or a request is sent on one (may_try).
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_EXPIRY_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_EXPIRY_H_INCLUDED_


#include "ngx_http_upstream_reuse_accounts.h"


/*
 * Milliseconds: the least margin before an idle limit, for timers that are not
 * exact.  With a limit that is no longer than this no connection is reused.
 */
#define NGX_HTTP_UPSTREAM_REUSE_LEAST_MARGIN  10


/* expiry */

/*
 * Measures a connection that is to be kept for the first time.  Returns its
 * round trip in microseconds; 0 if it is not known.
 */
ngx_uint_t ngx_http_upstream_reuse_measure(
    ngx_http_upstream_reuse_conn_t *conn);

/*
 * Tells whether a connection that has been idle for so many milliseconds is
 * far enough from the end that the origin will make of it.
 */
ngx_uint_t ngx_http_upstream_reuse_is_fresh(
    ngx_http_upstream_reuse_conn_t *conn, ngx_msec_t age);

/*
 * Milliseconds for which an idle connection will still be used; 0 if it will
 * not.
 */
ngx_msec_t ngx_http_upstream_reuse_left(ngx_http_upstream_reuse_conn_t *conn);

/* The same without the age at which it ends (reuse_max_age). */
ngx_msec_t ngx_http_upstream_reuse_idle_left(
    ngx_http_upstream_reuse_conn_t *conn);

/* Milliseconds that an unused connection to a server lasts. */
ngx_msec_t ngx_http_upstream_reuse_unused_limit(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);

/*
 * An idle connection is near its end.  If that was learned, one may be left in
 * the pool to see whether the origin closes it; returns 1 then.
 */
ngx_uint_t ngx_http_upstream_reuse_may_outlive(
    ngx_http_upstream_reuse_conn_t *conn);

/* Tells whether anything is known of that end. */
ngx_uint_t ngx_http_upstream_reuse_knows_end(
    ngx_http_upstream_reuse_conn_t *conn);

/* The handler tells of a Keep-Alive in the response. */
void ngx_http_upstream_reuse_note_hint(ngx_http_upstream_reuse_peer_t *rp,
    ngx_str_t *value);

/*
 * Reads Keep-Alive in the response (RFC 2068, section 19.7.1.1).  Returns 0
 * if by its terms the connection cannot carry another request.
 */
ngx_uint_t ngx_http_upstream_reuse_read_hint(
    ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_conn_t *conn);

/* Has the keepalive module close an idle connection in time. */
void ngx_http_upstream_reuse_set_expiry(ngx_http_upstream_reuse_conn_t *conn);

/*
 * A connection that was idle for so long is given up: learns from whether the
 * origin has closed it by now.  Returns NGX_OK if so, NGX_AGAIN if not,
 * NGX_ABORT if a probe has found it dead, and NGX_DECLINED if it has sent
 * something that tells neither.
 */
ngx_int_t ngx_http_upstream_reuse_note_end(
    ngx_http_upstream_reuse_conn_t *conn, ngx_msec_t age);

/*
 * A connection that was idle for so long is too near a limit.  If that was
 * learned, it may be left open for a while, out of the pool, to see whether
 * the origin closes it; returns 1 then.
 */
ngx_uint_t ngx_http_upstream_reuse_put_to_test(
    ngx_http_upstream_reuse_conn_t *conn, ngx_msec_t age);

/*
 * Tells whether a request may use a connection that is beyond a limit, to put
 * the limit to the test.  No other one may for some time then.
 */
ngx_uint_t ngx_http_upstream_reuse_may_try(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_conn_t *conn);


/* learned */

/*
 * Milliseconds before an idle limit at which a connection is given up: two
 * round trips, a sixteenth of the limit, and the least margin above.  It is
 * the same for limits that were configured, announced and learned.
 */
ngx_msec_t ngx_http_upstream_reuse_margin(
    ngx_http_upstream_reuse_conn_t *conn, ngx_msec_t limit);

/* A limit is put to the test by a request; when another one may be. */
void ngx_http_upstream_reuse_defer_trial(
    ngx_http_upstream_reuse_learned_t *limit);

/*
 * A connection was alive, or was closed by the origin, after being idle for
 * so many milliseconds.
 */
void ngx_http_upstream_reuse_note_alive(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t age);
void ngx_http_upstream_reuse_note_closed(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t age);

/* All that is known of it is that the origin has not closed it. */
void ngx_http_upstream_reuse_note_open(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t age);

/*
 * A request has failed on a kept connection before a byte of the response, and
 * rp->watch.proof is what is known of that.
 */
void ngx_http_upstream_reuse_note_failure(ngx_http_upstream_reuse_peer_t *rp,
    ngx_connection_t *c);

/*
 * The least round trip of a connection that is kept for the first time, in
 * microseconds; 0 if none was measured.
 */
void ngx_http_upstream_reuse_note_rtt(ngx_http_upstream_reuse_conn_t *conn,
    ngx_uint_t rtt);

/*
 * The least round trip to the server, if that of the connection is this one
 * now; 0 if too few connections have met one like it.
 */
ngx_uint_t ngx_http_upstream_reuse_least_rtt(
    ngx_http_upstream_reuse_conn_t *conn, ngx_uint_t rtt);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_EXPIRY_H_INCLUDED_ */
