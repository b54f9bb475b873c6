
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What is counted: why connections are new, why they are closed, and how
 * often.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_COUNTERS_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_COUNTERS_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"


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


/*
 * What becomes of a connection, when its request is over or later:
 * $reuse_fate.  The names, meanings and advice are in
 * ngx_http_upstream_reuse_reasons.c, in docs/status.md and docs/runbook.md.
 * There each row stands at the place of its reason here: the compiler checks
 * only how many rows there are.
 */

typedef enum {
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_PENDING = 0,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT,

    /* it is closed, and why */

    NGX_HTTP_UPSTREAM_REUSE_CLOSE_OFF,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONFIGURED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_CLOSE,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_ANNOUNCED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_HTTP10,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNFRAMED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXCESS,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNREAD,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_EARLY,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNSENT,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UPGRADED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_AUTHENTICATED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_REQUESTS,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_TIME,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_AGE,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_DRAINED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_CLOSED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNDELIVERED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_SILENT,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONNECT_FAILED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_TIMEOUT,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_SHUTDOWN,

    /* it was kept, and is closed with no request on it */

    NGX_HTTP_UPSTREAM_REUSE_CLOSE_IDLE,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_FULL,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_IDENTITY,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNBUFFERED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_STARVING,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_LIMIT,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_CRASH,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST
} ngx_http_upstream_reuse_close_e;


/* why a request that needs a connection is answered 503 */

typedef enum {
    NGX_HTTP_UPSTREAM_REUSE_REFUSED_NOT = 0,
    NGX_HTTP_UPSTREAM_REUSE_REFUSED_FULL,
    NGX_HTTP_UPSTREAM_REUSE_REFUSED_TIMEOUT,
    NGX_HTTP_UPSTREAM_REUSE_REFUSED_SHUTDOWN,
    NGX_HTTP_UPSTREAM_REUSE_REFUSED_LAST
} ngx_http_upstream_reuse_refused_e;


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
    NGX_HTTP_UPSTREAM_REUSE_UNPROVEN,     /* requests that failed and may have
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

#define NGX_HTTP_UPSTREAM_REUSE_TALLY  NGX_HTTP_UPSTREAM_REUSE_HANDSHAKES_FULL

typedef uint32_t
    ngx_http_upstream_reuse_counts_t[NGX_HTTP_UPSTREAM_REUSE_TALLY];


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
    ngx_atomic_uint_t  requests;
    ngx_atomic_uint_t  closed[NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST];
} ngx_http_upstream_reuse_closes_t;


/* the address of the one that stands for all servers which are gone */
#define NGX_HTTP_UPSTREAM_REUSE_REMOVED  "removed"

/* the upstream, and the address, of all for which there was no room */
#define NGX_HTTP_UPSTREAM_REUSE_OVERFLOW  "(zone full)"


#endif /* _NGX_HTTP_UPSTREAM_REUSE_COUNTERS_H_INCLUDED_ */
