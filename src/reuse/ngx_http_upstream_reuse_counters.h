
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the reuse layer has counted, for whoever shows it.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_COUNTERS_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_COUNTERS_H_INCLUDED_


#include "ngx_http_upstream_reuse_module.h"


/* why a request got a new connection; docs/directives.md: $reuse_reason */

typedef enum {
    NGX_HTTP_UPSTREAM_REUSE_NEW_NONE = 0,  /* it got none, or a kept one */
    NGX_HTTP_UPSTREAM_REUSE_NEW_EMPTY,
    NGX_HTTP_UPSTREAM_REUSE_NEW_EXPIRED,
    NGX_HTTP_UPSTREAM_REUSE_NEW_STALE,
    NGX_HTTP_UPSTREAM_REUSE_NEW_RETRY,
    NGX_HTTP_UPSTREAM_REUSE_NEW_SILENT,
    NGX_HTTP_UPSTREAM_REUSE_NEW_IDENTITY,
    NGX_HTTP_UPSTREAM_REUSE_NEW_UNBUFFERED,
    NGX_HTTP_UPSTREAM_REUSE_NEW_OFF,
    NGX_HTTP_UPSTREAM_REUSE_NEW_LAST
} ngx_http_upstream_reuse_new_e;


/* bounds of the histograms; the last has none */

#define NGX_HTTP_UPSTREAM_REUSE_BUCKETS  12


/*
 * The counters of a server.  Each is one word, which wraps around; IDLE goes
 * down as well.  Of the enumerations above, the entries that are no reason are
 * never counted.
 */

enum {
    NGX_HTTP_UPSTREAM_REUSE_REUSED = 0,  /* requests on a kept connection */
    NGX_HTTP_UPSTREAM_REUSE_WARM,        /* requests on one that was opened
                                            ahead, the first of each */
    NGX_HTTP_UPSTREAM_REUSE_NEW,         /* requests on a new connection, by
                                            reason */

    NGX_HTTP_UPSTREAM_REUSE_OPENED = NGX_HTTP_UPSTREAM_REUSE_NEW
                                     + NGX_HTTP_UPSTREAM_REUSE_NEW_LAST,
                                         /* connections that were opened */
    NGX_HTTP_UPSTREAM_REUSE_IDLE,        /* connections in the pools of
                                            workers now */
    NGX_HTTP_UPSTREAM_REUSE_CLOSED,      /* connections that were closed, by
                                            reason */

    NGX_HTTP_UPSTREAM_REUSE_PROVEN = NGX_HTTP_UPSTREAM_REUSE_CLOSED
                                     + NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST,
                                         /* requests that were not
                                            delivered and were sent again */
    NGX_HTTP_UPSTREAM_REUSE_REFUSED,     /* requests that failed and may have
                                            been received */
    NGX_HTTP_UPSTREAM_REUSE_LOST,        /* requests that were not delivered
                                            and cannot be sent again */

    NGX_HTTP_UPSTREAM_REUSE_RENEWED,     /* requests of which nothing was
                                            acknowledged and that were sent
                                            again by nginx's rules */

    NGX_HTTP_UPSTREAM_REUSE_AHEAD,       /* connections opened ahead */
    NGX_HTTP_UPSTREAM_REUSE_UNUSED,      /* of these, those that were closed
                                            without a request */

    NGX_HTTP_UPSTREAM_REUSE_HANDED_OVER,  /* connections that were parked for
                                             any worker */
    NGX_HTTP_UPSTREAM_REUSE_TAKEN_OVER,  /* connections that were taken out
                                            for a request */
    NGX_HTTP_UPSTREAM_REUSE_SWEPT,       /* connections that were taken out to
                                            be closed */

    /* from here on, all workers count in the record, without the lock */

    NGX_HTTP_UPSTREAM_REUSE_HANDSHAKES_FULL,  /* TLS handshakes without a
                                                 session */
    NGX_HTTP_UPSTREAM_REUSE_HANDSHAKES_RESUMED,  /* and those with one */

    NGX_HTTP_UPSTREAM_REUSE_CONNECT,     /* connections, by the time that TCP
                                            took to connect */
    NGX_HTTP_UPSTREAM_REUSE_CONNECT_TIME = NGX_HTTP_UPSTREAM_REUSE_CONNECT
                                           + NGX_HTTP_UPSTREAM_REUSE_BUCKETS,
                                         /* the microseconds of all */

    NGX_HTTP_UPSTREAM_REUSE_TLS,         /* TLS handshakes, in the same way */
    NGX_HTTP_UPSTREAM_REUSE_TLS_TIME = NGX_HTTP_UPSTREAM_REUSE_TLS
                                       + NGX_HTTP_UPSTREAM_REUSE_BUCKETS,

    NGX_HTTP_UPSTREAM_REUSE_COUNTERS
};


typedef ngx_atomic_uint_t
    ngx_http_upstream_reuse_counters_t[NGX_HTTP_UPSTREAM_REUSE_COUNTERS];


/*
 * What a worker counts of a server, apart from how connections were made:
 * shorter words, which it adds to the whole ones long before they could wrap
 * around.
 */

#define NGX_HTTP_UPSTREAM_REUSE_SHARED  NGX_HTTP_UPSTREAM_REUSE_HANDSHAKES_FULL

typedef uint32_t
    ngx_http_upstream_reuse_shared_t[NGX_HTTP_UPSTREAM_REUSE_SHARED];


/* how often, and how many samples, the ratio is kept */

#define NGX_HTTP_UPSTREAM_REUSE_INTERVAL  10    /* seconds */
#define NGX_HTTP_UPSTREAM_REUSE_SAMPLES   180


/* what happened in one interval */

typedef struct {
    ngx_atomic_uint_t                    requests;
    ngx_atomic_uint_t                    ready;   /* reused or warm */
} ngx_http_upstream_reuse_sample_t;


/* seconds: "of late" is so long, and up to twice as long */

#define NGX_HTTP_UPSTREAM_REUSE_LATE      900


/* what is compared to what it was some time ago */

typedef struct {
    ngx_atomic_uint_t                    requests;
    ngx_atomic_uint_t        closed[NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST];
} ngx_http_upstream_reuse_closes_t;


/* the address of the one that stands for all servers which are gone */
#define NGX_HTTP_UPSTREAM_REUSE_REMOVED  "removed"


/* one server, or what is the sum of some */

typedef struct {
    ngx_str_t                            upstream;
    ngx_str_t                            address;   /* as text; "all" */
    ngx_str_t                            sockaddr;  /* empty: it stands for
                                                       others */
    ngx_uint_t                           most;      /* connections that it may
                                                       have; 0: no limit */
    ngx_msec_t                           limit;     /* learned; 0: none */
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
    ngx_http_upstream_reuse_view_t       sum;
    ngx_http_upstream_reuse_queue_view_t  queue;
    ngx_http_upstream_reuse_view_t      *servers;
    ngx_uint_t                           nservers;
    ngx_uint_t                           configured;  /* it is still */
} ngx_http_upstream_reuse_upstream_view_t;


/* all that there is at one time */

typedef struct {
    ngx_http_upstream_reuse_view_t       total;
    ngx_http_upstream_reuse_queue_view_t  queue;    /* the sum */
    ngx_array_t                          servers;  /* ..._view_t, by name */
    ngx_array_t                          upstreams;  /* ..._upstream_view_t */
    ngx_array_t                         *warnings;  /* ngx_str_t */

    ngx_array_t                          samples;  /* the oldest first */

    size_t                               size;     /* of the zone, bytes */
    size_t                               free;
    ngx_uint_t                           workers;
    ngx_atomic_uint_t                    uncounted;  /* requests, for want
                                                        of memory */
    ngx_uint_t                           full;  /* unsigned  full:1; */
} ngx_http_upstream_reuse_snapshot_t;


/* why a request that needs a connection is answered 503 */

typedef enum {
    NGX_HTTP_UPSTREAM_REUSE_REFUSED_NOT = 0,
    NGX_HTTP_UPSTREAM_REUSE_REFUSED_FULL,
    NGX_HTTP_UPSTREAM_REUSE_REFUSED_TIMEOUT,
    NGX_HTTP_UPSTREAM_REUSE_REFUSED_SHUTDOWN,
    NGX_HTTP_UPSTREAM_REUSE_REFUSED_LAST
} ngx_http_upstream_reuse_refused_e;


/*
 * A reason: its name in variables, JSON and metrics, its meaning, and what the
 * operator may do about it; NULL: there is nothing to be done.
 */

typedef struct {
    ngx_str_t                            name;
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


#endif /* _NGX_HTTP_UPSTREAM_REUSE_COUNTERS_H_INCLUDED_ */
