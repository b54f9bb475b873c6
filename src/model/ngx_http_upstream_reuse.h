
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The data of the reuse layer, which its folders have in common.  Each of them
 * has a header for what others may call, and includes those of the folders
 * below it, so that no file can call one of a folder above:
 *
 * reuse: when the configuration is read, for a request, for a worker
 *
 *     module      the table of directives; which upstreams keep connections
 *     directives  reads values that core's slot functions cannot
 *     handler     a request's handler tells what it is about
 *     peer        a request gets a connection and gives it back
 *     variables   what a log may have of all this
 *     worker      a worker begins and ends
 *
 * tls: which TLS session a connection may take up
 *
 *     sessions    those of requests, and of connections opened ahead
 *     ssl_digest  what TLS settings are, by value
 *     session_cache  TLS sessions, in shared memory
 *
 * retry: a request's connection fails
 *
 *     retry       it was not delivered and is sent again
 *     silence     nothing of it is acknowledged
 *     http2       what is special in HTTP/2; over QUIC the layer does nothing
 *
 * limit: requests wait, where connections are limited
 *
 *     wait        one waits
 *     queue       those that wait, of all workers, in order of arrival
 *     bells       datagram sockets, by which one worker wakes another
 *     evict       an idle connection is closed for it
 *     refuse      the log line and the Retry-After of one that is refused
 *
 * share: a connection is handed over to another worker
 *
 *     handover    it is given away, and taken over
 *     sweep       those that are parked are looked at, and closed
 *     adopt       one that was parked becomes this worker's
 *     park        one that is idle is parked
 *     places      where it is parked meanwhile
 *     sockets     in which its descriptor lies there
 *     parcel      what is handed over of what is known of it
 *
 * connection: the life of one that is kept
 *
 *     connection  what is known of it, and its state
 *     expiry      how long it may be idle
 *     learned     when origins close idle connections: learned from closes
 *     age         how old it may become
 *     drain       its server gets no requests any more
 *     answers     the resolver does not know its address any more
 *     probe       the kernel looks whether it is alive
 *     tcp         what the kernel knows of it
 *     identity    whom it may serve
 *
 * accounts: what all workers know and have counted
 *
 *     zone        shared memory begins, for a worker
 *     servers     what a worker has of each server
 *     gone        frees what a worker has of servers that are gone
 *     fold        adds up what was counted of servers that are gone
 *     records     one for each server, in shared memory
 *     counters    what became of each request and each connection
 *     snapshot    what was counted, added up for all workers
 *     reasons     why a connection is new, or was closed
 *     slots       how many connections a server may have
 *     upstreams   those of the configuration
 *     tasks       what a worker does from time to time
 *
 * pool: where idle connections are, nginx's keepalive module
 *
 *     pool        they are put there, and taken
 *     pool_conf   what that module is told, by the operator and by us
 *     selftest    whether it is as it is expected to be
 *     assertions  what nginx's types must be for this to compile
 *     steps       takes and gives back in Angie, which connects in a step of
 *                 its own
 *     warnings    notes what defeats reuse for the log and the page
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"
#include "ngx_http_upstream_reuse_counters.h"
#include "ngx_http_upstream_reuse_zone.h"
#include "ngx_http_upstream_reuse_ahead.h"
#include "ngx_http_upstream_reuse_live.h"
#include "ngx_http_upstream_reuse_identity.h"


/*
 * Milliseconds since a time that another worker may have noted, whose clock is
 * a little ahead of ours if it has looked at it later.
 */
#define ngx_http_upstream_reuse_passed_since(time)                            \
    ((ngx_msec_t) ngx_max((ngx_msec_int_t) (ngx_current_msec - (time)), 0))


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
    ngx_flag_t                            reuse;
    ngx_flag_t                            retry;
    ngx_http_upstream_reuse_probe_t      *probe;  /* NULL: off */
    ngx_int_t                             warm;   /* how many, or ..._AUTO */
    ngx_uint_t                            expiry;
    ngx_msec_t                            idle;   /* of "reuse_expiry TIME" */
    ngx_msec_t                            max_age;  /* 0: off */
    ngx_uint_t                            jitter;  /* percent of it */

    /* of "reuse_limit" */

    ngx_int_t                             limit;  /* connections; 0: none */
    ngx_int_t                             queue;  /* requests that may wait */
    ngx_msec_t                            queue_timeout;

    /* of the keepalive module, as far as they are known */
    ngx_uint_t                            size;   /* 0: not known */
    ngx_uint_t                            max_requests;
    ngx_msec_t                            max_time;
    ngx_msec_t                            timeout;

    ngx_http_upstream_srv_conf_t         *uscf;
    ngx_http_upstream_reuse_main_conf_t  *main;
    ngx_str_t                             name;  /* implicit: with port */

    /* unsigned  local:1;  locations may not share connections */
    ngx_uint_t                            local;

    ngx_http_upstream_init_pt             init_upstream;

    /* without and with the keepalive module */
    ngx_http_upstream_init_peer_pt        init_balancer;
    ngx_http_upstream_init_peer_pt        init_peer;

    /* the same without what stands above a "keepalive" that is written */
    ngx_http_upstream_init_pt             init_keepalive;
    ngx_http_upstream_init_peer_pt        init_pool;

    /* worker: the servers that it has met, also by their last use */

    ngx_rbtree_t                          servers;
    ngx_rbtree_node_t                     sentinel;
    ngx_queue_t                           by_use;

    ngx_queue_t                           kept;   /* ..._conn_t, all of them */
    ngx_http_upstream_reuse_live_t        live;
    ngx_http_upstream_reuse_waiters_t    *waiters;  /* NULL: there is no
                                                       limit */

    ngx_http_upstream_reuse_listener_t   *listener;  /* NULL: none */
    ngx_http_reuse_warm_t                *warmth;  /* if it is kept warm */
    ngx_msec_t                            crowded_until; /* not tried before */

    unsigned                              asked:1;
    unsigned                              added:1;    /* the pool is ours */
    unsigned                              round_robin:1; /* has its servers as
                                                            core's has */
    unsigned                              native:1;   /* nginx would add one */
    unsigned                              unbounded:1;  /* has any number of
                                                           servers */
    unsigned                              crowded:1;  /* it had too many */
    unsigned                              foreign:1;  /* has servers that round
                                                         robin does not know */
    unsigned                              cleaned:1;  /* the pool frees its
                                                         servers */
} ngx_http_upstream_reuse_srv_conf_t;


/* worker: the same address, by which it is found without a lock */

typedef struct {
    ngx_str_node_t                       node;  /* address */
    ngx_http_upstream_reuse_record_t    *record;
    ngx_http_upstream_reuse_tally_t     *tally;
    ngx_http_upstream_reuse_learned_t   *learned;  /* NULL: none is kept */
    ngx_atomic_t                        *uncounted;  /* NULL, or counts the
                                                        requests where there
                                                        is no real tally */
    ngx_http_upstream_reuse_stands_e     stands;  /* for itself, or others */

    /*
     * It is freed some time after the server is gone, and not while a
     * connection of it is counted as open in the tally, or while "holders" is
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


/* worker: its requests that wait for a connection to one upstream */

struct ngx_http_upstream_reuse_waiters_s {
    ngx_http_upstream_reuse_waiters_t   *next;
    ngx_http_upstream_reuse_srv_conf_t  *conf;   /* the latest */
    ngx_http_upstream_reuse_queue_t     *queue;
    ngx_queue_t                          requests;  /* by number */
    ngx_queue_t                          spare;  /* its idle connections */
    ngx_event_t                          event;  /* something may be free */
};


/* tells whether there is a layer over an upstream */
#define ngx_http_upstream_reuse_has_layer(rcf)                                \
    ((rcf)->asked || (rcf)->reuse != NGX_CONF_UNSET)


/*
 * What a connection that has been kept does now.  Which state may follow on
 * which: reuse_next_states[] (connection.c), in this order.
 */

typedef enum {
    NGX_HTTP_UPSTREAM_REUSE_CONN_USED = 0,  /* has a request, or had one */
    NGX_HTTP_UPSTREAM_REUSE_CONN_IDLE,      /* is in the pool */
    NGX_HTTP_UPSTREAM_REUSE_CONN_PARKED,    /* is any worker's now; what is
                                               left here is closed */
    NGX_HTTP_UPSTREAM_REUSE_CONN_TESTED,    /* is left alone until the origin
                                               closes it, or the end of a
                                               test */
    NGX_HTTP_UPSTREAM_REUSE_CONN_LAST
} ngx_http_upstream_reuse_conn_state_e;


/* connection, as soon as it has been kept: lives in its pool, as a cleanup */

typedef struct {
    ngx_connection_t                     *connection;
    ngx_http_upstream_reuse_srv_conf_t   *conf;
    ngx_http_upstream_reuse_identity_t   *identity;
    struct sockaddr                      *sockaddr;
    socklen_t                             socklen;

    ngx_http_upstream_reuse_conn_state_e  state;

    /* why it will be closed, by its timer or by pool_remove() */
    ngx_http_upstream_reuse_close_e       on_timeout;

    /* what was read of its end in TLS; NGX_AGAIN: nothing */
    ngx_int_t                             ended;

    /* the request that has it; NULL while it is idle */
    ngx_http_upstream_reuse_peer_t       *peer;

    off_t                                 sent;  /* for earlier requests */

    ngx_queue_t                           kept;  /* in its upstream's */
    ngx_uint_t                            target;  /* the number of its name:
                                                      note_answer() */
    ngx_msec_t                            lifetime;  /* it ends at this age;
                                                        0: at none */

    ngx_msec_t                            since;  /* idle from then on */
    ngx_msec_t                            rtt;    /* rounded up */
    ngx_msec_t                            announced;  /* idle limit; 0: none */
    ngx_uint_t                            max;    /* requests; 0: no limit */
    ngx_http_upstream_reuse_server_t     *server;
    ngx_http_upstream_reuse_learned_t    *learned;  /* NULL: not known */

    ngx_queue_t                           spare;  /* if is_spare is set */
    unsigned                              is_spare:1;  /* is idle, and there
                                                          is a limit */

    ngx_queue_t                           offered;  /* if offers is set */
    ngx_http_upstream_conf_t             *location;  /* of the last request */
    unsigned                              offers:1;  /* to be parked soon */
    unsigned                              listed:1;  /* its server is, or was,
                                                        one of its upstream */
    unsigned                              leaving:1;  /* its server gets no
                                                         more requests */

    /* for src/warm */

    ngx_http_reuse_warm_profile_t        *profile;
    ngx_queue_t                           queue;
    ngx_msec_t                            early;  /* replaced before its end */
    ngx_event_handler_pt                  handler;  /* stands behind ours */

    unsigned                              queued:1;
    unsigned                              warm:1;   /* has had no request */
    unsigned                              outlives:1;  /* its limit: a test */
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


extern ngx_module_t  ngx_http_upstream_reuse_module;


#include "ngx_http_upstream_reuse_peer.h"


#endif /* _NGX_HTTP_UPSTREAM_REUSE_H_INCLUDED_ */
