
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Where "reuse_limit" says how many connections a server may have, in all
 * workers together: they are counted, and requests that find none wait, in
 * order of arrival.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_LIMIT_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_LIMIT_H_INCLUDED_


#include "ngx_http_upstream_reuse_share.h"


/* worker: a request that waits */

typedef struct ngx_http_upstream_reuse_queued_s
    ngx_http_upstream_reuse_queued_t;

struct ngx_http_upstream_reuse_queued_s {
    ngx_queue_t                          queue;  /* if waits is set */
    ngx_http_upstream_reuse_waiters_t   *waiters;
    ngx_atomic_uint_t                    number;
    ngx_uint_t                           nservers;  /* it may be given */
    void                               (*turn)(
                                    ngx_http_upstream_reuse_queued_t *queued);

    ngx_msec_t                           since;  /* it waits */
    ngx_msec_t                           waited;  /* milliseconds of waits
                                                     that are over */
    unsigned                             waits:1;
};


/* wait */

/* Tells whether a request is one of those that may have to wait. */
#define ngx_http_upstream_reuse_is_limited_peer(rp)                           \
    ((rp)->conf->waiters != NULL && !(rp)->bypass)

typedef ngx_int_t (*ngx_http_upstream_reuse_choose_pt)(
    ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc);

/*
 * Has choose() choose a server, which returns NGX_DONE for an idle connection
 * and NGX_OK if there is none, until there is one that may have another
 * connection, which is counted as opened then.  After the request had to wait,
 * begin() is called first, so that servers that were refused can be chosen
 * again.  Returns what peer.get returns, NGX_AGAIN if the request waits.
 */
ngx_int_t ngx_http_upstream_reuse_choose_limited(
    ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_choose_pt choose,
    ngx_http_upstream_reuse_choose_pt begin);

/* Milliseconds for which a request has waited; NGX_ERROR: it never had to. */
ngx_msec_int_t ngx_http_upstream_reuse_queue_time(
    ngx_http_upstream_reuse_peer_t *rp);

/* Why a request got no connection, if it was refused. */
ngx_http_upstream_reuse_refused_e ngx_http_upstream_reuse_why_refused(
    ngx_http_upstream_reuse_peer_t *rp);


/* evict */

/*
 * Closes idle connections to the server of a request, and counts the one that
 * it is to open, as open_slot() does.  0: there was nothing to be closed.
 */
ngx_uint_t ngx_http_upstream_reuse_evict(ngx_http_upstream_reuse_peer_t *rp);


/* refuse */

/* Logs that a request of a limited upstream is answered 503, and why. */
void ngx_http_upstream_reuse_log_refused(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_refused_e reason);

/*
 * Adds "Retry-After" to the response, for 503, unless its "error_page" may
 * have a response with another status.
 */
void ngx_http_upstream_reuse_add_retry_after(ngx_http_request_t *r);


/* queue */

/* worker: begins, and ends */
void ngx_http_upstream_reuse_begin_queues(ngx_cycle_t *cycle);
void ngx_http_upstream_reuse_end_queues(void);

/*
 * Has a request wait behind all others, and calls turn() when it is the first
 * of all and something may be free, as often as it goes on waiting.
 * NGX_DECLINED: as many wait as may.
 */
ngx_int_t ngx_http_upstream_reuse_enter_queue(
    ngx_http_upstream_reuse_queued_t *queued,
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_log_t *log);

/* It does not wait any more, if it did. */
void ngx_http_upstream_reuse_leave_queue(
    ngx_http_upstream_reuse_queued_t *queued);

/* A connection has become idle: a request may wait for it. */
void ngx_http_upstream_reuse_spare(ngx_http_upstream_reuse_conn_t *conn);


/* bells */

/* master: opens them, if anything is limited */
void ngx_http_upstream_reuse_open_bells(ngx_cycle_t *cycle);

/*
 * worker, with the lock of the zone: takes one, which calls heard() from then
 * on, and gives it back.  NGX_DECLINED: there is none.
 */
ngx_int_t ngx_http_upstream_reuse_take_bell(ngx_cycle_t *cycle,
    ngx_http_upstream_reuse_zone_t *zone, void (*heard)(void));
void ngx_http_upstream_reuse_leave_bell(void);

/* worker: its number; NGX_ERROR: it has none */
extern ngx_int_t  ngx_http_upstream_reuse_bell;

/* Wakes the worker of a bell, and of a process number. */
void ngx_http_upstream_reuse_ring(ngx_uint_t i);
void ngx_http_upstream_reuse_ring_worker(ngx_pid_t pid);

/* Has all be rung anew, also those that seem to ring. */
void ngx_http_upstream_reuse_reset_bells(void);

/* Tells whether the worker of a bell was woken long ago, and has not heard. */
ngx_uint_t ngx_http_upstream_reuse_hangs(ngx_uint_t i);

/*
 * With the lock: forgets workers that are gone, and the requests which they
 * had waiting.
 */
void ngx_http_upstream_reuse_forget_bells(
    ngx_http_upstream_reuse_zone_t *zone);

/* With the lock: adds up who waits. */
void ngx_http_upstream_reuse_sum_queue(ngx_http_upstream_reuse_queue_t *queue);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_LIMIT_H_INCLUDED_ */
