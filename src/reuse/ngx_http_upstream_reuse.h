
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the files of the reuse layer have in common:
 *
 * when the configuration is read:
 *
 *     module      the directives; which upstreams keep connections
 *     directives  the functions that read the values of directives
 *     pool_conf   what the keepalive module is told, by the operator and by us
 *     selftest    whether that module is as it is expected to be
 *     warnings    notes what defeats reuse for the log and the page
 *
 * for a request:
 *
 *     handler     its handler tells what it is about
 *     peer        it gets a connection and gives it back
 *     pool        where idle connections are: nginx's keepalive module
 *     steps       the same for Angie, which connects in a step of its own
 *     identity    whom a connection may serve
 *     sessions    which TLS session it may take up
 *     ssl_digest  what its TLS settings are, by value
 *     retry       it was not delivered and is sent again
 *     silence     nothing of it is acknowledged
 *     wait        it waits, where connections are limited
 *     queue       with those of other workers, in order of arrival
 *     evict       an idle connection is closed for it
 *     refuse      it has waited for nothing
 *     http2       the same for requests in HTTP/2
 *     reasons     why its connection is new, or was closed
 *
 * for a connection:
 *
 *     connection  what is known of it, once it was kept
 *     handover    it is handed over to another worker
 *     adopt       one that was parked becomes this worker's
 *     sweep       those that are parked are looked at, and closed
 *     parcel      what is handed over of what is known of it
 *     places      where it is parked meanwhile
 *     sockets     in which its descriptor lies there
 *     expiry      how long it may be idle
 *     age         how old it may become
 *     limits      learns when origins close idle connections
 *     probe       the kernel looks whether it is alive
 *     tcp         what the kernel knows of it
 *     drain       its server gets no requests any more
 *     answers     the resolver does not know its address any more
 *
 * for a worker:
 *
 *     worker      it begins and ends
 *     gone        frees what it has of servers that are gone
 *     fold        what was counted of them, in shared memory
 *     zone        what workers know of servers together, in shared memory
 *     session_cache  TLS sessions, in shared memory
 *     slots       how many connections a server may have
 *     bells       by which one wakes another
 *     tasks       what it does from time to time
 *     counters    what became of each request and each connection
 *     snapshot    the same, added up for all workers
 *     variables   what a log may have of all this
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"
#include "ngx_http_upstream_reuse_module.h"
#include "ngx_http_upstream_reuse_counters.h"
#include "ngx_http_upstream_reuse_zone.h"
#include "ngx_http_upstream_reuse_ahead.h"
#include "ngx_http_upstream_reuse_live.h"
#include "ngx_http_upstream_reuse_identity.h"
#include "ngx_http_upstream_reuse_tasks.h"


/* the methods that nginx does not send again unless told to */
#define NGX_HTTP_UPSTREAM_REUSE_NON_IDEMPOTENT                                \
    (NGX_HTTP_POST|NGX_HTTP_LOCK|NGX_HTTP_PATCH)


typedef enum {
    NGX_HTTP_UPSTREAM_REUSE_EXPIRY_OFF,
    NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO,
    NGX_HTTP_UPSTREAM_REUSE_EXPIRY_TIME
} ngx_http_upstream_reuse_expiry_e;


/* milliseconds: an origin that keeps an unused connection so long wants it */
#define NGX_HTTP_UPSTREAM_REUSE_PROVED  250


/* of "reuse_warm" */
#define NGX_HTTP_UPSTREAM_REUSE_WARM_AUTO  -2

typedef struct ngx_http_reuse_warm_s  ngx_http_reuse_warm_t;
typedef struct ngx_http_reuse_warm_profile_s  ngx_http_reuse_warm_profile_t;

typedef struct ngx_http_upstream_reuse_wait_s  ngx_http_upstream_reuse_wait_t;
typedef struct ngx_http_upstream_reuse_waiters_s
    ngx_http_upstream_reuse_waiters_t;
typedef struct ngx_http_upstream_reuse_listener_s
    ngx_http_upstream_reuse_listener_t;
typedef struct ngx_http_upstream_reuse_probe_s
    ngx_http_upstream_reuse_probe_t;


/* cycle: a handler will need connections with these settings */

typedef struct {
    ngx_http_conf_ctx_t                  ctx;
    ngx_http_upstream_conf_t            *conf;
} ngx_http_upstream_reuse_foreseen_t;


/* cycle: what handlers have asked for, and what holds for all upstreams */

typedef struct {
    ngx_array_t                      asked;
                                         /* ngx_http_upstream_srv_conf_t * */
    ngx_array_t                      foreseen;
                                         /* ..._reuse_foreseen_t */
    ngx_array_t                      warnings;         /* ngx_str_t */
    ngx_pool_t                      *pool;
    ngx_shm_zone_t                  *zone;
    size_t                           zone_size;

    ngx_int_t                        share;   /* "reuse_share": 0: off; 1: on;
                                                 how many places */
    ngx_shm_zone_t                  *answers;  /* NULL: no variable targets */
    ngx_shm_zone_t                  *places;
    ngx_uint_t                       nplaces;  /* 0: none is shared */
    ngx_uint_t                       cycle;   /* its number */

#if (NGX_HTTP_SSL)
    ngx_shm_zone_t                  *sessions;
    u_char                          *system_cas;  /* a digest; NULL: it was not
                                                     needed so far */
    u_char                           generation[16];  /* random */
#endif
    size_t                           sessions_size;

    ngx_http_upstream_srv_conf_t    *unbounded;  /* of addresses that only
                                                    variables name */

    unsigned                         all:1;  /* upstreams are asked for */
    unsigned                         unsound:1;  /* the keepalive module has
                                                    failed its self-test */
} ngx_http_upstream_reuse_main_conf_t;


/* cycle: one upstream, or what http{} says for all of them */

typedef struct {
    ngx_flag_t                       reuse;
    ngx_flag_t                       retry;
    ngx_http_upstream_reuse_probe_t *probe;  /* NULL: off */
    ngx_int_t                        warm;   /* how many, or ..._AUTO */
    ngx_uint_t                       expiry;
    ngx_msec_t                       idle;   /* of "reuse_expiry TIME" */
    ngx_msec_t                       max_age;  /* 0: off */
    ngx_uint_t                       jitter;  /* percent of it */

    /* of "reuse_limit" */

    ngx_int_t                        limit;  /* connections; 0: none */
    ngx_int_t                        queue;  /* requests that may wait */
    ngx_msec_t                       queue_timeout;

    /* of the keepalive module, as far as they are known */
    ngx_uint_t                       size;   /* 0: not known */
    ngx_uint_t                       max_requests;
    ngx_msec_t                       max_time;
    ngx_msec_t                       timeout;

    ngx_http_upstream_srv_conf_t    *uscf;
    ngx_http_upstream_reuse_main_conf_t  *main;
    ngx_str_t                        name;   /* with the port, if implicit */
    ngx_uint_t                       local;  /* unsigned  local:1;  locations
                                                may not share connections */

    ngx_http_upstream_init_pt        init_upstream;

    /* without and with the keepalive module */
    ngx_http_upstream_init_peer_pt   init_balancer;
    ngx_http_upstream_init_peer_pt   init_peer;

    /* the same without what stands above a "keepalive" that is written */
    ngx_http_upstream_init_pt        init_keepalive;
    ngx_http_upstream_init_peer_pt   init_pool;

    /* worker: the servers that it has met, also by their last use */

    ngx_rbtree_t                     servers;
    ngx_rbtree_node_t                sentinel;
    ngx_queue_t                      by_use;

    ngx_queue_t                      kept;   /* ..._conn_t, all of them */
    ngx_http_upstream_reuse_live_t   live;
    ngx_http_upstream_reuse_waiters_t   *waiters;  /* NULL: there is no
                                                      limit */

    ngx_http_upstream_reuse_listener_t  *listener;  /* NULL: none */
    ngx_http_reuse_warm_t  *warmth;  /* if it is kept warm */
    ngx_msec_t                       crowded_until;  /* not tried before */

    unsigned                         asked:1;
    unsigned                         added:1;    /* the pool is ours */
    unsigned                         round_robin:1;  /* it has its servers as
                                                        core's has */
    unsigned                         native:1;   /* nginx would add one */
    unsigned                         unbounded:1;  /* has any number of
                                                      servers */
    unsigned                         crowded:1;  /* it had too many */
    unsigned                         foreign:1;  /* has servers that round
                                                    robin does not know */
    unsigned                         cleaned:1;  /* its servers are freed with
                                                    the pool */
} ngx_http_upstream_reuse_srv_conf_t;


/* worker: the same address, by which it is found without a lock */

typedef struct {
    ngx_str_node_t                       node;  /* address */
    ngx_http_upstream_reuse_record_t    *record;
    ngx_http_upstream_reuse_share_t     *share;
    ngx_http_upstream_reuse_limit_t     *limit;  /* NULL: none is kept */
    ngx_atomic_t                        *uncounted;  /* NULL, or counts the
                                                        requests where there
                                                        is no real share */
    ngx_http_upstream_reuse_stands_e     stands;  /* for itself, or others */

    /*
     * It is freed some time after the server is gone, and not while a
     * connection of it is counted as open in the share, or while "holders" is
     * not 0: connections that were kept, and others that point here.
     */
    ngx_uint_t                           holders;
    ngx_queue_t                          by_use;
    uint32_t                             requests;  /* counted, when it was
                                                       looked at last */
    ngx_msec_t                           active;  /* there was a new one */
    ngx_msec_t                           checked;  /* whether it is gone */
    ngx_uint_t                           asked;  /* unsigned  asked:1;  some
                                                    request went to it */
    ngx_uint_t                           missed;  /* looks at which one had,
                                                     and it was no server */

    unsigned                             listed:1;  /* as its connections */
    unsigned                             slow:1;  /* this worker did not need
                                                     an idle connection again
                                                     within a moment */

    /* where connections to it are limited; otherwise NULL, and 0 */

    ngx_http_upstream_reuse_srv_conf_t  *limited;
    ngx_uint_t                           most;
    ngx_uint_t                           closing;  /* are counted as closed,
                                                      and closed in a moment */
    ngx_queue_t                          queue;  /* if closing is not 0 */

    ngx_http_upstream_reuse_ahead_t      ahead;  /* for src/warm */
} ngx_http_upstream_reuse_server_t;


/* tells whether there is a layer over an upstream */
#define ngx_http_upstream_reuse_has_layer(rcf)                                \
    ((rcf)->asked || (rcf)->reuse != NGX_CONF_UNSET)


/* what a connection that has been kept does now */

typedef enum {
    NGX_HTTP_UPSTREAM_REUSE_CONN_USED = 0,  /* has a request, or had one */
    NGX_HTTP_UPSTREAM_REUSE_CONN_IDLE,      /* is in the pool */
    NGX_HTTP_UPSTREAM_REUSE_CONN_PARKED,    /* is any worker's now; what is
                                               left here is closed */
    NGX_HTTP_UPSTREAM_REUSE_CONN_TESTED     /* is left alone until the origin
                                               closes it, or the end of a
                                               test */
} ngx_http_upstream_reuse_conn_state_e;


/* connection, as soon as it has been kept: lives in its pool, as a cleanup */

typedef struct {
    ngx_connection_t                *connection;
    ngx_http_upstream_reuse_srv_conf_t  *conf;
    ngx_http_upstream_reuse_identity_t  *identity;
    struct sockaddr                 *sockaddr;
    socklen_t                        socklen;

    ngx_http_upstream_reuse_conn_state_e  state;

    /* why it is closed, if it is because of its timer */
    ngx_http_upstream_reuse_close_e   on_timeout;

    /* what was read of its end in TLS; NGX_AGAIN: nothing */
    ngx_int_t                        ended;

    /* the request that has it; NULL while it is idle */
    ngx_http_upstream_reuse_peer_t  *peer;

    off_t                            sent;   /* bytes of earlier requests */

    ngx_queue_t                      kept;   /* in those of its upstream */
    ngx_uint_t                       target;  /* the name that it was opened
                                                 for; 0: none */
    ngx_msec_t                       lifetime;  /* it ends at this age; 0: at
                                                   none */

    ngx_msec_t                       since;  /* idle from then on */
    ngx_msec_t                       rtt;    /* rounded up */
    ngx_msec_t                       announced;  /* idle limit; 0: none */
    ngx_uint_t                       max;    /* requests; 0: no limit */
    ngx_http_upstream_reuse_server_t    *server;
    ngx_http_upstream_reuse_limit_t *limit;  /* NULL: nothing is known */

    ngx_queue_t                      spare;  /* if is_spare is set */
    unsigned                         is_spare:1;  /* is idle, and connections
                                                     are limited */

    ngx_queue_t                      offered;  /* if offers is set */
    ngx_http_upstream_conf_t        *location;  /* of the last request */
    unsigned                         offers:1;  /* to be parked soon */
    unsigned                         listed:1;  /* its server is, or was, one
                                                   of its upstream */
    unsigned                         leaving:1;  /* its server gets no requests
                                                    any more */

    /* for src/warm */

    ngx_http_reuse_warm_profile_t   *profile;
    ngx_queue_t                      queue;
    ngx_msec_t                       early;  /* replaced before its end */
    ngx_event_handler_pt             handler;  /* stands behind ours */

    unsigned                         queued:1;
    unsigned                         warm:1;     /* has carried no request */
    unsigned                         outlives:1; /* its limit, to test it */
} ngx_http_upstream_reuse_conn_t;


/*
 * What hears of all connections of an upstream.  The layer calls a listener
 * through these functions only, and works as well if there is none.  A few
 * fields it keeps for src/warm, where they are marked as such.
 */

struct ngx_http_upstream_reuse_listener_s {

    /* a request has got a connection, and gives it back */
    void  (*begin_use)(ngx_http_upstream_reuse_peer_t *rp);
    void  (*end_use)(ngx_http_upstream_reuse_peer_t *rp);

    /* a connection is about to be kept after that request */
    void  (*keep)(ngx_http_upstream_reuse_peer_t *rp,
        ngx_http_upstream_reuse_conn_t *conn);

    /* it is idle from now on, and is not: taken, or about to be closed */
    void  (*begin_idle)(ngx_http_upstream_reuse_conn_t *conn);
    void  (*end_idle)(ngx_http_upstream_reuse_conn_t *conn);

    /* it was closed with no request on it */
    void  (*closed)(ngx_http_upstream_reuse_conn_t *conn,
        ngx_http_upstream_reuse_close_e reason);

    /* a server without connections is about to be freed */
    void  (*forget)(ngx_http_upstream_reuse_srv_conf_t *rcf,
        ngx_http_upstream_reuse_server_t *server);
};


#include "ngx_http_upstream_reuse_peer.h"


/* peer */

/* Stands before the peer functions of an upstream, as its peer.init. */
ngx_int_t ngx_http_upstream_reuse_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);

/* Stands in peer.get, by which find_peer() knows what is ours. */
ngx_int_t ngx_http_upstream_reuse_get_peer(ngx_peer_connection_t *pc,
    void *data);


/* handler */

/* What we have of a request's upstream; NULL if there is no layer. */
ngx_http_upstream_reuse_peer_t *ngx_http_upstream_reuse_find_peer(
    ngx_http_request_t *r);


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


/* Changes the state; logs an alert if it cannot follow on the one before. */
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


/* retry */

/*
 * A request is about to be sent on a kept connection.  Until the first byte
 * of a response is there, each end of the connection is looked at.
 */
void ngx_http_upstream_reuse_watch(ngx_http_upstream_reuse_peer_t *rp,
    ngx_connection_t *c);

/*
 * The attempt is over before a byte of a response was there; to be called
 * first in peer.free.  Returns 1 if the request was provably not delivered
 * and is to be sent again: the peer is still held then, and the next
 * peer.get begins with ngx_http_upstream_reuse_get_again().  Otherwise 0;
 * NGX_PEER_FAILED is taken from *state if the peer is not to blame.
 */
ngx_uint_t ngx_http_upstream_reuse_send_again(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp, ngx_uint_t *state);

void ngx_http_upstream_reuse_get_again(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);


/* http2 */

/* Tells whether a request is in HTTP/2 and was sent in part. */
ngx_uint_t ngx_http_upstream_reuse_is_partial_http2(ngx_http_upstream_t *u);

/* Makes a request in HTTP/2 the first of its connection. */
void ngx_http_upstream_reuse_renumber_http2(ngx_http_upstream_t *u);


/* directives */

extern ngx_conf_post_t  ngx_http_upstream_reuse_post;  /* of "reuse" */

char *ngx_http_upstream_reuse_set_expiry_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_probe_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_max_age_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_warm_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_limit_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_share_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_zone_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_sessions_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);


/* zone */

/*
 * Adds shared memory of the layer, of which init() makes something.  NULL if
 * there is no memory.
 */
ngx_shm_zone_t *ngx_http_upstream_reuse_add_shared(ngx_conf_t *cf,
    ngx_str_t *name, size_t size, ngx_shm_zone_init_pt init);

/* Adds the zone; NULL if there is no memory. */
ngx_shm_zone_t *ngx_http_upstream_reuse_add_zone(ngx_conf_t *cf, size_t size);

/*
 * Finds or makes what is known of the server of the address in pc.  Never
 * NULL: if the zone is full, as the log says, all further servers are one,
 * and so are those of an unbounded upstream that has many.
 */
ngx_http_upstream_reuse_server_t *ngx_http_upstream_reuse_find_server(
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_peer_connection_t *pc);

/*
 * With the lock: all records, beginning with NULL; the shares of workers that
 * are gone go to their records, and returns how many others have a share.
 */
ngx_http_upstream_reuse_record_t *ngx_http_upstream_reuse_next_record(
    ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_record_t *record);
ngx_uint_t ngx_http_upstream_reuse_sweep(ngx_http_upstream_reuse_zone_t *zone);

/* Tells whether there is no worker of that process number any more. */
ngx_uint_t ngx_http_upstream_reuse_has_died(ngx_pid_t pid);

/* Takes the lock in which limits change. */
void ngx_http_upstream_reuse_lock(ngx_http_upstream_reuse_conn_t *conn);
void ngx_http_upstream_reuse_unlock(ngx_http_upstream_reuse_conn_t *conn);

/* Parts a record's key: the upstream's name, and the address as text. */
void ngx_http_upstream_reuse_name_record(
    ngx_http_upstream_reuse_record_t *record, ngx_str_t *upstream,
    u_char *text, size_t *len);

/*
 * A process begins, which may be a worker, and ends: returns how many workers
 * are left.
 */
void ngx_http_upstream_reuse_enter_zone(ngx_shm_zone_t *shm_zone,
    ngx_uint_t worker);
ngx_uint_t ngx_http_upstream_reuse_leave_zone(ngx_shm_zone_t *shm_zone);


/* worker: callbacks of the module */

ngx_int_t ngx_http_upstream_reuse_init_module(ngx_cycle_t *cycle);
ngx_int_t ngx_http_upstream_reuse_init_process(ngx_cycle_t *cycle);
void ngx_http_upstream_reuse_exit_process(ngx_cycle_t *cycle);


/* counters */

#define ngx_http_upstream_reuse_count(server, counter)                        \
    (server)->share->counters[NGX_HTTP_UPSTREAM_REUSE_##counter]++

#define ngx_http_upstream_reuse_uncount(server, counter)                      \
    (server)->share->counters[NGX_HTTP_UPSTREAM_REUSE_##counter]--

/* A request has been given a connection, a kept one or a new one. */
void ngx_http_upstream_reuse_count_request(ngx_http_upstream_reuse_peer_t *rp);

/*
 * A new connection was opened, in so many milliseconds, of which TCP took so
 * many; rtt is in microseconds, 0 if it is not known.
 */
void ngx_http_upstream_reuse_count_times(
    ngx_http_upstream_reuse_server_t *server, ngx_connection_t *c,
    ngx_msec_t all, ngx_msec_t tcp, ngx_uint_t rtt);

/* The same for one that core has opened for a request. */
void ngx_http_upstream_reuse_count_peer_times(
    ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c);

/* How many requests a record has counted, and a share. */
ngx_atomic_uint_t ngx_http_upstream_reuse_sum_requests(
    volatile ngx_atomic_uint_t *counters);
int32_t ngx_http_upstream_reuse_sum_shared(volatile uint32_t *counters);


/* snapshot */

/*
 * The settings of an upstream that can have some, from number *i of all on,
 * which is raised; NULL: there is no other one.
 */
ngx_http_upstream_reuse_srv_conf_t *ngx_http_upstream_reuse_next_conf(
    ngx_http_upstream_main_conf_t *umcf, ngx_uint_t *i);

/* The upstream of that name in the configuration; NULL: there is none. */
ngx_http_upstream_reuse_srv_conf_t *ngx_http_upstream_reuse_find_conf(
    ngx_str_t *upstream);

/* With the zone's lock: takes the ratio, if it is time. */
void ngx_http_upstream_reuse_take_sample(ngx_http_upstream_reuse_zone_t *zone);


/* variables */

ngx_int_t ngx_http_upstream_reuse_add_variables(ngx_conf_t *cf);


#include "ngx_http_upstream_reuse_drain.h"
#include "ngx_http_upstream_reuse_expiry.h"
#include "ngx_http_upstream_reuse_fold.h"
#include "ngx_http_upstream_reuse_handover.h"
#include "ngx_http_upstream_reuse_pool.h"
#include "ngx_http_upstream_reuse_queue.h"
#include "ngx_http_upstream_reuse_sessions.h"
#include "ngx_http_upstream_reuse_silence.h"


#endif /* _NGX_HTTP_UPSTREAM_REUSE_H_INCLUDED_ */
