
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
} ngx_http_upstream_reuse_limit_t;


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


/*
 * cycle, in shared memory: what one worker has counted.  Only that worker
 * writes to it, and without a lock; the process that finds it gone adds what
 * it left to the record.
 */

typedef struct ngx_http_upstream_reuse_share_s
    ngx_http_upstream_reuse_share_t;

struct ngx_http_upstream_reuse_share_s {
    ngx_http_upstream_reuse_share_t     *next;
    ngx_pid_t                            pid;   /* 0: nobody's */
    ngx_http_upstream_reuse_counters_t   counters;
};


/* cycle, in shared memory: an address of an upstream */

typedef struct {
    ngx_str_node_t                       node;  /* upstream, zero, address */
    ngx_http_upstream_reuse_limit_t      limit;
    ngx_http_upstream_reuse_limit_t      unused;  /* of connections that have
                                                     carried no request */

    /*
     * How many connections a worker has used at a time: of late, and since
     * it was last lowered.  Raised without the lock.
     */
    ngx_uint_t                           peak;
    ngx_uint_t                           seen;

    ngx_http_upstream_reuse_starving_t   starving;

    ngx_http_upstream_reuse_share_t     *shares;
    ngx_http_upstream_reuse_counters_t   counters;  /* of workers that are
                                                       gone */
    ngx_http_upstream_reuse_closes_t     marks[2];  /* of all; the older one
                                                       first */
} ngx_http_upstream_reuse_record_t;


/* cycle, in shared memory */

typedef struct {
    ngx_rbtree_t                         rbtree;
    ngx_rbtree_node_t                    sentinel;

    ngx_uint_t                           nunbounded;  /* of that upstream */

    /* stands for all servers for which there was no room */
    ngx_http_upstream_reuse_record_t     overflow;
    ngx_atomic_t                         uncounted;
    ngx_uint_t                           full;  /* unsigned  full:1; */

    ngx_msec_t                           lowered;  /* the servers' peaks */

    ngx_msec_t                           marked;   /* last */
    ngx_msec_t                           sampled;  /* last */
    ngx_http_upstream_reuse_sample_t     sum;      /* at that time */
    ngx_uint_t                           nsamples;  /* ever taken */
    ngx_http_upstream_reuse_sample_t
                              samples[NGX_HTTP_UPSTREAM_REUSE_SAMPLES];
} ngx_http_upstream_reuse_zone_t;


#endif /* _NGX_HTTP_UPSTREAM_REUSE_ZONE_H_INCLUDED_ */
