
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the reuse layer has counted, for whoever shows it.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_SNAPSHOT_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_SNAPSHOT_H_INCLUDED_


#include "ngx_http_upstream_reuse_counters.h"


/* one server, or what is the sum of some */

typedef struct {
    ngx_str_t                            upstream;  /* as it is shown */
    ngx_str_t                            name;      /* as it is configured */
    ngx_str_t                            address;   /* as text; "all" */
    ngx_str_t                            sockaddr;  /* empty: it stands for
                                                       others */
    ngx_uint_t                           most;      /* connections that it may
                                                       have; 0: no limit */
    ngx_msec_t                           idle_limit;  /* learned; 0: none */
    ngx_uint_t                           rtt;       /* microseconds; 0 */

    /* sums, so that all who show them agree */

    ngx_atomic_uint_t                    requests;
    ngx_atomic_uint_t                    fresh;     /* on new connections */
    ngx_atomic_uint_t                    open;
    ngx_atomic_uint_t                    parked;    /* of those that are idle,
                                                       IDLE includes them */
    ngx_atomic_uint_t                    closed;
    ngx_atomic_uint_t                    connects;
    ngx_atomic_uint_t                    handshakes;
    uint64_t                             saved;     /* microseconds */

    /* servers to which fewer connections are opened ahead than wanted: for
       want of requests, and because those may keep it from answering */

    ngx_uint_t                           unpaid;
    ngx_uint_t                           starving;

    ngx_http_upstream_reuse_closes_t     late;      /* of late only */
    ngx_http_upstream_reuse_counters_t   counters;
} ngx_http_upstream_reuse_view_t;


/* requests that wait for a connection, and that did or were refused */

typedef struct {
    ngx_uint_t                           limited;  /* unsigned  limited:1;
                                                      there is a queue */
    ngx_uint_t                           bounded;  /* unsigned  bounded:1;
                                                      there is a limit of
                                                      those that may wait */
    ngx_uint_t                           most;     /* it is so */
    ngx_atomic_uint_t                    waiting;
    ngx_atomic_uint_t                    waited;
    ngx_atomic_uint_t                    full;
    ngx_atomic_uint_t                    timeout;
} ngx_http_upstream_reuse_queue_view_t;


/* the servers of one upstream, and their sum */

typedef struct {
    ngx_http_upstream_reuse_view_t        sum;
    ngx_http_upstream_reuse_queue_view_t  queue;
    ngx_http_upstream_reuse_view_t       *servers;
    ngx_uint_t                            nservers;
    ngx_uint_t                            configured;  /* it is still */
} ngx_http_upstream_reuse_upstream_view_t;


/* all that there is at one time */

typedef struct {
    ngx_http_upstream_reuse_view_t        total;
    ngx_http_upstream_reuse_queue_view_t  queue;    /* the sum */
    ngx_array_t                           servers;  /* ..._view_t, by name */
    ngx_array_t                           upstreams;  /* ..._upstream_view_t */
    ngx_array_t                          *warnings;  /* ngx_str_t */

    ngx_array_t                           samples;  /* the oldest first */

    size_t                                size;     /* of the zone, bytes */
    size_t                                free;
    time_t                                started;  /* counted since then */
    ngx_uint_t                            workers;
    ngx_atomic_uint_t                     uncounted;  /* requests, for want
                                                         of memory */
    ngx_uint_t                            full;  /* unsigned  full:1; */
} ngx_http_upstream_reuse_snapshot_t;


/*
 * A reason: its name in variables, JSON and metrics; of a close, on whose side
 * the cause is: "origin", "nginx" or "client"; its meaning, and what the
 * operator may do about it, NULL: there is nothing to be done.
 */

typedef struct {
    ngx_str_t                            name;
    const char                          *by;
    const char                          *meaning;
    const char                          *advice;
} ngx_http_upstream_reuse_reason_t;


/*
 * By ngx_http_upstream_reuse_new_e, ngx_http_upstream_reuse_close_e and
 * ngx_http_upstream_reuse_refused_e: each row stands at the place of its
 * reason.  They are defined in ngx_http_upstream_reuse_reasons.c.
 */

extern ngx_http_upstream_reuse_reason_t
    ngx_http_upstream_reuse_new_reasons[];
extern ngx_http_upstream_reuse_reason_t
    ngx_http_upstream_reuse_close_reasons[];
extern ngx_http_upstream_reuse_reason_t
    ngx_http_upstream_reuse_refused_reasons[];

/* microseconds; for all but the last bucket */

extern ngx_uint_t  ngx_http_upstream_reuse_bounds[];


/*
 * Takes a snapshot, with its memory from pool; NULL if there is none.  Takes
 * the zone's lock for a time that grows with servers times workers.  In it
 * requests = REUSED + WARM + fresh and OPENED = open + closed hold exactly.
 */
ngx_http_upstream_reuse_snapshot_t *ngx_http_upstream_reuse_take_snapshot(
    ngx_pool_t *pool);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_SNAPSHOT_H_INCLUDED_ */
