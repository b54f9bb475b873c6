
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What is in shared memory.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_ZONE_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_ZONE_H_INCLUDED_


#include "ngx_http_upstream_reuse_counters.h"


/*
 * cycle, in shared memory: what was learned of a server.  Fields are read by
 * all workers at any time, and written under the lock of the zone.
 */

typedef struct {
    ngx_msec_t                       idle;   /* 0: not known */
    ngx_msec_t                       survived;  /* a connection of this age
                                                   was alive */

    /* closes that were seen at about one age */
    ngx_msec_t                       suspect;
    ngx_uint_t                       closes;
    ngx_uint_t                       moments;
    ngx_msec_t                       noted;  /* the last moment */

    /* requests that were answered, or reset, after so long */
    ngx_msec_t                       served;   /* the most */
    ngx_msec_t                       refused;  /* the least */
    ngx_uint_t                       resets;
    ngx_uint_t                       reset_moments;
    ngx_msec_t                       reset_noted;

    ngx_msec_t                       pause;  /* between two trials */
    ngx_uint_t                       silent;  /* unsigned  silent:1;
                                                 "idle" was learned from
                                                 resets */

    ngx_msec_t                       testing;  /* none begins until then;
                                                  without the lock */

    ngx_uint_t                       rtt;    /* the least of all connections,
                                                microseconds; 0: not known */
    ngx_uint_t                       near_rtt;  /* so many were near it */
} ngx_http_upstream_reuse_learned_t;


/*
 * cycle, in shared memory: whether connections without a request keep a
 * server from answering.  Written without the lock: it is no harm if two
 * workers find out at a time.  Times are in milliseconds.
 */

typedef struct {
    ngx_msec_t                       trial;  /* the last one began then */
    ngx_msec_t                       until;  /* not warm before; 0: warm */
    ngx_msec_t                       waited;  /* a request, at that time */
    ngx_msec_t                       usual;  /* a request waits so long if
                                                there are none; at most */
    ngx_msec_t                       patience;  /* at least */
    ngx_uint_t                       stops;  /* in a row */
} ngx_http_upstream_reuse_starving_t;


/* what is counted with a server */

typedef enum {
    NGX_HTTP_UPSTREAM_REUSE_STANDS_ALONE = 0,
    NGX_HTTP_UPSTREAM_REUSE_STANDS_OTHERS,   /* too many of an upstream */
    NGX_HTTP_UPSTREAM_REUSE_STANDS_OVERFLOW  /* there was no room for them */
} ngx_http_upstream_reuse_stands_e;


/*
 * cycle, in shared memory: what one worker has counted.  Only that worker
 * writes to it, and without a lock; the process that finds it gone adds what
 * it left to the record.
 */

typedef struct ngx_http_upstream_reuse_tally_s
    ngx_http_upstream_reuse_tally_t;

struct ngx_http_upstream_reuse_tally_s {
    ngx_http_upstream_reuse_tally_t     *next;
    ngx_pid_t                            pid;   /* 0: nobody's */

    /* for src/warm: connections that this worker has now */

    uint32_t                             used;   /* with requests */
    uint32_t                             connecting;  /* opened ahead */
    uint32_t                             unused;  /* idle, were never used */
    ngx_msec_t                           configured;  /* its configuration is
                                                         of that time */

    /*
     * Connections that this worker has closed and that are no more; less those
     * that are in its counters no longer.
     */
    uint32_t                             ended;

    ngx_http_upstream_reuse_counts_t     counters;
};


/* so many parts of an hour are kept apart */
#define NGX_HTTP_UPSTREAM_REUSE_PARTS  6


/*
 * cycle, in shared memory: what was counted of a server when a part of the
 * last hour began.  Each request since then pays for connections that were
 * opened ahead and not used: usage.c in src/warm.
 */

typedef struct {
    ngx_atomic_uint_t                    requests;
    ngx_atomic_uint_t                    unused;  /* opened ahead, and not
                                                     used so far */
} ngx_http_upstream_reuse_paid_t;


/* cycle, in shared memory: an address of an upstream */

typedef struct {
    ngx_str_node_t                       node;  /* upstream, zero, address */
    ngx_http_upstream_reuse_learned_t    learned;
    ngx_http_upstream_reuse_learned_t    unused_learned;  /* of connections
                                                             that have carried
                                                             no request */

    /*
     * How many connections all workers use now, and have used at a time: of
     * late, and since that was last lowered.  Raised without the lock.
     */
    ngx_atomic_t                         used;
    ngx_uint_t                           peak;
    ngx_uint_t                           seen;

    /* the worker that opens connections for all of them, and when it did */

    ngx_pid_t                            planner;  /* 0: none */
    ngx_msec_t                           planned;
    ngx_msec_t                           configured;  /* as in its tally */

    /* what was counted by the parts of the last hour; and for want of requests
       fewer connections were opened than wanted: the last time, 0: never */

    ngx_http_upstream_reuse_paid_t
                                  paid[NGX_HTTP_UPSTREAM_REUSE_PARTS];
    ngx_msec_t                           unpaid;

    /* connections that have been idle since then are not used; 0: never */
    ngx_msec_t                           silent;

    /* parked connections that the server closed as soon as they were there */
    ngx_atomic_t                         unwanted;

    ngx_http_upstream_reuse_starving_t   starving;

    ngx_msec_t                           active;  /* a worker that has no tally
                                                     any more used it last */
    ngx_msec_t                           checked;  /* whether it is gone */
    ngx_uint_t                           unbounded;  /* unsigned  unbounded:1;
                                                        it is one of these */

    /*
     * The sums of what workers counted before, and have no longer in their
     * tallies.  How connections were made is counted here alone.
     */
    ngx_http_upstream_reuse_tally_t     *tallies;
    ngx_http_upstream_reuse_counters_t   counters;
    ngx_atomic_uint_t                    ended;  /* as in a tally */
    ngx_http_upstream_reuse_closes_t     marks[2];  /* of all; the older one
                                                       first */
} ngx_http_upstream_reuse_record_t;


/* so many workers may wait for connections */
#define NGX_HTTP_UPSTREAM_REUSE_BELLS  240


/* cycle, in shared memory: by which a worker is woken */

typedef struct {
    ngx_pid_t                            pid;    /* 0: nobody's */
    ngx_atomic_t                         rung;   /* and not heard so far */
    ngx_msec_t                           unheard;  /* since then; 0: heard */
} ngx_http_upstream_reuse_bell_t;


/*
 * cycle, in shared memory: the requests of one worker that wait for a
 * connection.  Each has a number, in order of arrival.
 */

typedef struct {
    ngx_atomic_uint_t                    first;  /* 0: none waits */
    ngx_atomic_uint_t                    count;
} ngx_http_upstream_reuse_line_t;


/*
 * cycle, in shared memory: the requests of all workers that wait for a
 * connection to an upstream.  Nothing of it is a list, as a worker may die at
 * any time.
 */

typedef struct ngx_http_upstream_reuse_queue_s
    ngx_http_upstream_reuse_queue_t;

struct ngx_http_upstream_reuse_queue_s {
    ngx_http_upstream_reuse_queue_t     *next;
    ngx_str_t                            name;   /* of the upstream */

    ngx_atomic_t                         number;  /* of the last that came */
    ngx_atomic_t                         waiting;  /* the sum of all lines */

    /*
     * How many requests had to wait, and how many were refused: for a full
     * queue (queue.c), and for the time that they had waited (wait.c).
     */

    ngx_atomic_t                         waited;
    ngx_atomic_t                         full;
    ngx_atomic_t                         timeout;

    /* by the number of the worker's bell */

    ngx_http_upstream_reuse_line_t
                                  lines[NGX_HTTP_UPSTREAM_REUSE_BELLS];
};


/* cycle, in shared memory */

typedef struct {
    ngx_rbtree_t                         rbtree;
    ngx_rbtree_node_t                    sentinel;

    time_t                               started;  /* it counts since then */

    ngx_uint_t                           cycle;  /* number of the first one */
    ngx_uint_t                           nunbounded;  /* of that upstream */

    /* stands for all servers for which there was no room */
    ngx_http_upstream_reuse_record_t     overflow;
    ngx_atomic_t                         uncounted;
    ngx_uint_t                           overflowed;  /* it has counted */
    ngx_uint_t                           full;  /* unsigned  full:1; */

    /* NULL: nothing was ever limited */

    ngx_http_upstream_reuse_queue_t     *queues;
    ngx_http_upstream_reuse_bell_t      *bells;
    ngx_uint_t                           upper;  /* unsigned  upper:1;  they
                                                    are taken from the middle
                                                    on */
    ngx_msec_t                           folded;  /* records, last */
    ngx_msec_t                           wanted[2];  /* room for a server, and
                                                        for an unbounded one,
                                                        last; 0: never */

    ngx_msec_t                           lowered;  /* the servers' peaks */
    ngx_msec_t                           parted;   /* the last part began */
    ngx_uint_t                           part;     /* of an hour: the oldest */

    ngx_msec_t                           marked;   /* last */
    ngx_msec_t                           sampled;  /* last */
    ngx_http_upstream_reuse_sample_t     sum;      /* at that time */
    ngx_uint_t                           nsamples;  /* ever taken */
    ngx_http_upstream_reuse_sample_t
                              samples[NGX_HTTP_UPSTREAM_REUSE_SAMPLES];
} ngx_http_upstream_reuse_zone_t;


#endif /* _NGX_HTTP_UPSTREAM_REUSE_ZONE_H_INCLUDED_ */
