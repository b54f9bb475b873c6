
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Where "reuse_limit" says how many connections a server may have, in all
 * workers together: they are counted, and requests that find none wait, in
 * order of arrival.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_QUEUE_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_QUEUE_H_INCLUDED_


#include "ngx_http_upstream_reuse.h"


/* worker: its requests that wait for a connection to one upstream */

struct ngx_http_upstream_reuse_waiters_s {
    ngx_http_upstream_reuse_waiters_t   *next;
    ngx_http_upstream_reuse_srv_conf_t  *conf;   /* the latest */
    ngx_http_upstream_reuse_queue_t     *queue;
    ngx_queue_t                          requests;  /* by number */
    ngx_queue_t                          spare;  /* its idle connections */
    ngx_event_t                          event;  /* something may be free */
};


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
    ngx_msec_t                           waited;  /* milliseconds, before */
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

/*
 * Adds "Retry-After" to the response, for 503, unless its "error_page" may
 * have a response with another status.
 */
void ngx_http_upstream_reuse_add_retry_after(ngx_http_request_t *r);


/* queue */

/* worker: begins */
void ngx_http_upstream_reuse_begin_queues(ngx_cycle_t *cycle);

/* Tells whether a request is one of those that may have to wait. */
#define ngx_http_upstream_reuse_is_limited_peer(rp)                           \
    ((rp)->conf->waiters != NULL && !(rp)->bypass)

/*
 * Has a request wait, and calls turn() when it is the first of all and
 * something may be free, as often as it goes on waiting.  NGX_DECLINED: as
 * many wait as may.
 */
ngx_int_t ngx_http_upstream_reuse_enter_queue(
    ngx_http_upstream_reuse_queued_t *queued,
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_log_t *log);

/* It does not wait any more, if it did. */
void ngx_http_upstream_reuse_leave_queue(
    ngx_http_upstream_reuse_queued_t *queued);

/* A connection has become idle: a request may wait for it. */
void ngx_http_upstream_reuse_spare(ngx_http_upstream_reuse_conn_t *conn);


/* slots */

/*
 * A connection is closed, or will be before the event that is being handled is
 * over; each has one reason.
 */
void ngx_http_upstream_reuse_count_closed(
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_reuse_close_e reason);

/*
 * Counts a connection as opened, which it is to be at once, unless its server
 * has as many as it may have: returns 0 then.  One that is opened ahead is not
 * opened either while a request waits.
 */
ngx_uint_t ngx_http_upstream_reuse_open_slot(
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t ahead);

/* With the lock: whether a server may have one more, or one is parked. */
ngx_uint_t ngx_http_upstream_reuse_has_slot(
    ngx_http_upstream_reuse_server_t *server);

/* Finds what limits the connections to a server that is new to this worker. */
void ngx_http_upstream_reuse_limit_server(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);

/*
 * How many connections a server may have, by the configuration of an upstream
 * with a limit.  Takes locks of the upstream.
 */
ngx_uint_t ngx_http_upstream_reuse_find_most(
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_str_t *address);

/* What is called when connections to a limited server have been closed. */
extern void (*ngx_http_upstream_reuse_freed)(
    ngx_http_upstream_reuse_server_t *server);


/* bells */

/* master: opens them, if anything is limited */
void ngx_http_upstream_reuse_open_bells(ngx_cycle_t *cycle);

/*
 * worker: takes one, which calls heard() from then on, and gives it back.
 * NGX_DECLINED: there is none.
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

/*
 * With the lock: forgets workers that are gone, and the requests which they
 * had waiting.
 */
void ngx_http_upstream_reuse_sweep_bells(ngx_http_upstream_reuse_zone_t *zone);

/* With the lock: adds up who waits. */
void ngx_http_upstream_reuse_sum_queue(ngx_http_upstream_reuse_queue_t *queue);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_QUEUE_H_INCLUDED_ */
