
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What src/warm remembers of a server, beside what the layer knows of it.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_AHEAD_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_AHEAD_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"


/*
 * worker: how connections to a server that were opened ahead with the settings
 * of one profile went of late.  What fails with one profile, such as the
 * verification of a certificate, may work with another.  Times are in
 * milliseconds, as ngx_current_msec is.
 */

typedef struct {
    ngx_uint_t                       number;  /* of the profile: one that took
                                                 its place has another */
    ngx_uint_t                       failures;  /* in a row */
    ngx_msec_t                       retry_at;
    ngx_msec_t                       young_closed;  /* when the server last
                                                       closed a new one */
    ngx_uint_t                       wasted;  /* closed without a request */
    ngx_msec_t                       wasted_since;  /* within a second from
                                                       then on */

    unsigned                         unwanted:1;  /* it closes them at once */
    unsigned                         telling:1;  /* one attempt may log */
    unsigned                         told:1;     /* a failure was logged */
} ngx_http_upstream_reuse_attempts_t;


/* so many profiles of one upstream are kept warm */
#define NGX_HTTP_UPSTREAM_REUSE_PROFILES  8


/*
 * worker: what src/warm remembers of a server, which nobody else reads.  Times
 * are in milliseconds, as ngx_current_msec is.
 */

typedef struct {
    ngx_uint_t                       used;   /* connections with requests */
    ngx_uint_t                       peak;   /* at a time, of late */
    ngx_uint_t                       seen;   /* since that was lowered */
    ngx_msec_t                       lowered;
    ngx_uint_t                       nidle;  /* idle, of all profiles */
    ngx_uint_t                       nwarm;  /* of these, never used */

    /* those that are being opened, and how that went of late */

    ngx_uint_t                       connecting;
    ngx_msec_t                       old_closed;  /* when the server last
                                                     closed an old one, as it
                                                     does when it restarts */
    ngx_http_upstream_reuse_attempts_t
                            attempts[NGX_HTTP_UPSTREAM_REUSE_PROFILES];

    /* whether connections without a request keep it from answering */

    ngx_msec_t                       bare_since;  /* there are none of them */
    ngx_msec_t                       answered;  /* when it last did */
    ngx_msec_t                       trial_seen;  /* when that one began */

    /* what all workers have, as far as this one has to know it */

    ngx_uint_t                       elsewhere;  /* idle: in other workers,
                                                    and parked */
    ngx_uint_t                       ending;  /* parked, near their end */
    ngx_uint_t                       opening;  /* ahead, by other workers */
    ngx_uint_t                       others;  /* both, in workers of the same
                                                 configuration */
    ngx_uint_t                       unused;  /* of both, never used */
    ngx_atomic_uint_t                unwanted;  /* of the record, as seen */
    ngx_int_t                        credit;  /* so many may be opened ahead
                                                 with "auto" */
    ngx_atomic_uint_t                requests;  /* that were counted */
    ngx_msec_t                       busy;   /* when there was another one */

    /* while a plan is made, of one profile after the other */

    ngx_uint_t                       round;
    ngx_uint_t                       weight;
    ngx_uint_t                       room;   /* left by max_conns */
    ngx_uint_t                       ready;  /* idle, and not near their end */
    ngx_uint_t                       idle;   /* ready or not */

    unsigned                         planner:1;  /* this worker opens those
                                                    that any may use */
    unsigned                         hopeless:1;  /* they end too soon */
    unsigned                         own_trial:1;  /* this worker's goes on */
    unsigned                         timed_out:1;  /* the request with which
                                                      the trial began */
} ngx_http_upstream_reuse_ahead_t;


#endif /* _NGX_HTTP_UPSTREAM_REUSE_AHEAD_H_INCLUDED_ */
