
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the files of the reuse layer have in common:
 *
 *     module      which upstreams keep connections
 *     directives  their values
 *     keepalive   what the operator has told the keepalive module
 *     warnings    what of the configuration defeats reuse
 *     peer        a request gets a connection and gives it back
 *     kept        what is known of a connection
 *     key         by which the keepalive module finds connections
 *     identity    whom a kept connection may serve
 *     retry       a request that was not delivered is sent again
 *     http2       the same for requests in HTTP/2
 *     warm        connections are there before they are needed
 *     plan        how many of which kind, to which server
 *     kinds       what they are opened with
 *     opening     one of them is opened
 *     sessions    their TLS sessions
 *     expiry      how long a connection may be idle
 *     limits      what was learned of that
 *     zone        what workers know of servers together, in shared memory
 *     counters    what became of each request and each connection
 *     variables   what a log may have of all this
 *     tcp         what the kernel knows of a connection
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"
#include "ngx_http_upstream_reuse_module.h"
#include "ngx_http_upstream_reuse_counters.h"
#include "ngx_http_upstream_reuse_zone.h"


/* the methods that nginx does not send again unless told to */
#define NGX_HTTP_UPSTREAM_REUSE_NON_IDEMPOTENT                                \
    (NGX_HTTP_POST|NGX_HTTP_LOCK|NGX_HTTP_PATCH)


typedef enum {
    NGX_HTTP_UPSTREAM_REUSE_EXPIRY_OFF,
    NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO,
    NGX_HTTP_UPSTREAM_REUSE_EXPIRY_TIME
} ngx_http_upstream_reuse_expiry_e;


/* of "reuse_warm" */

#define NGX_HTTP_UPSTREAM_REUSE_WARM_AUTO  -2

typedef struct ngx_http_upstream_reuse_warm_s  ngx_http_upstream_reuse_warm_t;
typedef struct ngx_http_upstream_reuse_kind_s  ngx_http_upstream_reuse_kind_t;


/* cycle: what handlers have asked for, and what holds for all upstreams */

typedef struct {
    ngx_array_t                      asked;
                                         /* ngx_http_upstream_srv_conf_t * */
    ngx_array_t                      foreseen;
                                         /* ..._reuse_foreseen_t */
    ngx_array_t                      warm;  /* ..._reuse_warm_t * */
    ngx_array_t                      warnings;         /* ngx_str_t */
    ngx_pool_t                      *pool;
    ngx_shm_zone_t                  *zone;
    size_t                           zone_size;

    ngx_http_upstream_srv_conf_t    *open;  /* has no servers of its own */
    ngx_uint_t                       all;  /* unsigned  all:1; */
} ngx_http_upstream_reuse_main_conf_t;


/* cycle: one upstream, or what http{} says for all of them */

typedef struct {
    ngx_flag_t                       reuse;
    ngx_flag_t                       retry;
    ngx_int_t                        warm;   /* how many, or ..._AUTO */
    ngx_uint_t                       expiry;
    ngx_msec_t                       idle;   /* of "reuse_expiry TIME" */

    /* of the keepalive module, as far as they are known */
    ngx_uint_t                       size;   /* 0: not known */
    ngx_uint_t                       max_requests;
    ngx_msec_t                       max_time;
    ngx_msec_t                       timeout;

    ngx_http_upstream_reuse_main_conf_t  *main;
    ngx_str_t                        name;   /* with the port, if implicit */

    ngx_http_upstream_init_pt        init_upstream;

    /* without and with the keepalive module */
    ngx_http_upstream_init_peer_pt   init_balancer;
    ngx_http_upstream_init_peer_pt   init_peer;

    /* worker: the servers that it has met */

    ngx_rbtree_t                     servers;
    ngx_rbtree_node_t                sentinel;

    ngx_http_upstream_reuse_warm_t  *warmth;  /* NULL: it is not kept warm */
    ngx_msec_t                       crowded_until;  /* not tried before */

    unsigned                         asked:1;
    unsigned                         added:1;
    unsigned                         open:1;     /* has any number of them */
    unsigned                         crowded:1;  /* it had too many */
} ngx_http_upstream_reuse_srv_conf_t;


/*
 * What a connection was opened for: behind one address are many names, and
 * maybe more than one protocol.
 */

typedef struct {
    /* stands for the protocol that is spoken; NULL: HTTP/1.1 */
    ngx_int_t                      (*create_request)(ngx_http_request_t *r);

#if (NGX_HTTP_SSL)
    ngx_ssl_t                       *ssl;  /* NULL: no TLS */
    ngx_uint_t                       checks;  /* SNI is sent, is verified */
    ngx_str_t                        name;
    ngx_str_t                        certificate;
#endif
    struct sockaddr                 *local;
    socklen_t                        local_len;
} ngx_http_upstream_reuse_identity_t;


/* worker: the same address, by which it is found without a lock */

typedef struct {
    ngx_str_node_t                       node;  /* address */
    ngx_http_upstream_reuse_record_t    *record;
    ngx_http_upstream_reuse_share_t     *share;
    ngx_http_upstream_reuse_limit_t     *limit;  /* NULL: none is kept */
    ngx_atomic_t                        *uncounted;  /* the share counts for
                                                        nothing, this does */

    /* if the upstream is kept warm: connections with requests */

    ngx_uint_t                           used;

    /* those that are idle, of all kinds */

    ngx_uint_t                           nidle;

    /* those that are being opened, and how that went of late */

    ngx_uint_t                           opening;
    ngx_uint_t                           failures;
    ngx_msec_t                           retry;   /* not before */
    ngx_msec_t                           closed;  /* one that was young */
    ngx_msec_t                           restarted;  /* one that was not */
    ngx_uint_t                           wasted;  /* closed unused */
    ngx_msec_t                           second;  /* in which they were */

    /* a plan that is being made: of one kind of connections */

    ngx_uint_t                           round;
    ngx_uint_t                           weight;
    ngx_uint_t                           room;
    ngx_uint_t                           ready;
    ngx_uint_t                           idle;   /* ready or not */

    unsigned                             unwanted:1;  /* it has closed some
                                                         at once */
    unsigned                             telling:1;  /* one that is being
                                                        opened may log */
    unsigned                             told:1;  /* in the log, it fails */
    unsigned                             hopeless:1;
} ngx_http_upstream_reuse_server_t;


/* tells whether there is a layer over an upstream */
#define ngx_http_upstream_reuse_has_layer(rcf)                                \
    ((rcf)->asked || (rcf)->reuse != NGX_CONF_UNSET)


typedef struct ngx_http_upstream_reuse_peer_s  ngx_http_upstream_reuse_peer_t;


/* connection, as soon as it has been kept: lives in its pool, as a cleanup */

typedef struct {
    ngx_connection_t                *connection;
    ngx_http_upstream_reuse_srv_conf_t  *conf;
    ngx_http_upstream_reuse_identity_t   identity;

    /* the request that has it; NULL while it is idle */
    ngx_http_upstream_reuse_peer_t  *peer;

    off_t                            sent;   /* bytes of earlier requests */

    ngx_msec_t                       since;  /* idle from then on */
    ngx_msec_t                       rtt;    /* rounded up */
    ngx_msec_t                       announced;  /* idle limit; 0: none */
    ngx_uint_t                       max;    /* requests; 0: no limit */
    ngx_http_upstream_reuse_server_t    *server;
    ngx_http_upstream_reuse_limit_t *limit;  /* NULL: nothing is known */

    /* if the upstream is kept warm */

    ngx_http_upstream_reuse_kind_t  *kind;
    ngx_queue_t                      queue;
    ngx_msec_t                       early;  /* replaced before its end */
    ngx_int_t                        ended;  /* if that was heard */
    ngx_event_handler_pt             handler;  /* stands behind ours */

    unsigned                         queued:1;
    unsigned                         warm:1;     /* has carried no request */
    unsigned                         outlives:1; /* its limit, to test it */
    unsigned                         heard:1;    /* what ended it, in TLS */
    unsigned                         idle:1;     /* not with a request */
    unsigned                         testing:1;  /* nor in the pool */
    unsigned                         expiring:1;  /* the timer is ours */
} ngx_http_upstream_reuse_kept_t;


/* how it is known that a request was not delivered */

typedef enum {
    NGX_HTTP_UPSTREAM_REUSE_PROOF_UNKNOWN = 0,
    NGX_HTTP_UPSTREAM_REUSE_PROOF_UNSENT,
    NGX_HTTP_UPSTREAM_REUSE_PROOF_CLOSED,
    NGX_HTTP_UPSTREAM_REUSE_PROOF_RESET
} ngx_http_upstream_reuse_proof_e;


/* request: of our own, that opens a connection and sends nothing */

typedef struct ngx_http_upstream_reuse_opening_s
    ngx_http_upstream_reuse_opening_t;


/* the attempt before one that was not delivered */

typedef struct {
    ngx_http_upstream_conf_t         conf;   /* stands in for that one */
    ngx_http_upstream_conf_t        *saved_conf;
    struct sockaddr                 *sockaddr;
    socklen_t                        socklen;
    ngx_str_t                       *name;
    ngx_uint_t                       tries;
} ngx_http_upstream_reuse_held_t;


/* request: the peer functions that we stand before */

struct ngx_http_upstream_reuse_peer_s {
    ngx_http_request_t              *request;
    ngx_http_upstream_t             *upstream;
    ngx_http_upstream_srv_conf_t    *uscf;
    ngx_http_upstream_reuse_srv_conf_t  *conf;
    ngx_http_upstream_reuse_identity_t  *identity;

    ngx_http_upstream_reuse_opening_t   *opening;  /* NULL: a client's */
    ngx_http_upstream_reuse_kind_t  *kind;

    void                            *data;
    ngx_event_get_peer_pt            get;
    ngx_event_free_peer_pt           free;
    ngx_event_notify_peer_pt         notify;
#if (NGX_HTTP_SSL)
    ngx_event_set_peer_session_pt    set_session;
    ngx_event_save_peer_session_pt   save_session;
#endif

    /* the balancer's, if we have a layer above it, and what is its */

    ngx_event_get_peer_pt            balancer_get;
    ngx_event_free_peer_pt           balancer_free;
    struct sockaddr                 *address;  /* NULL: is in place */
    struct sockaddr                 *keyed;  /* what the key was made of */
    struct sockaddr                 *key;
    socklen_t                        address_len;
    socklen_t                        key_len;
    uint32_t                         hash;   /* of the identity */
    uint64_t                         space[4];  /* for the key of an IP
                                                   address */

    /* attempt: on a kept connection, NULL on a new one */

    ngx_http_upstream_reuse_server_t    *server;
    ngx_http_upstream_reuse_kept_t  *kept;
    ngx_recv_pt                      recv;      /* stands behind ours */
    ngx_msec_t                       age;       /* idle before it was taken */
    uint64_t                         taken;     /* microseconds */
    off_t                            sent;      /* c->sent at that time */
    uint64_t                         written;   /* to the socket by then */
    ngx_uint_t                       batch;
    ngx_http_upstream_reuse_proof_e  proof;

    /* the same, for the counters and the variables */

    ngx_msec_t                       start;  /* the connection was opened */
    ngx_msec_t                       connected;  /* and TLS began */
    ngx_uint_t                       rtt;    /* microseconds, if known */
    ngx_msec_t                       end;    /* the request was over */
    ngx_uint_t                       requests;  /* 0: there is none yet */
    ngx_http_upstream_reuse_new_e    why_new;
    ngx_http_upstream_reuse_fate_e   explained;  /* what it will be */
    ngx_http_upstream_reuse_fate_e   fate;

    ngx_http_upstream_reuse_held_t  *held;  /* if again */

    ngx_int_t                        hinted_timeout;  /* NGX_ERROR: none */
    ngx_int_t                        hinted_max;

    unsigned                         log_error:3;
    unsigned                         holds:1;    /* a connection that was
                                                    counted */
    unsigned                         peeked:1;   /* nothing had arrived */
    unsigned                         waiting:1;  /* for the first byte */
    unsigned                         judged:1;
    unsigned                         stray:1;
    unsigned                         excess:1;   /* it was unfit for that */
    unsigned                         again:1;
    unsigned                         around:1;   /* the pool is not used */
    unsigned                         tells:1;    /* its handler, of hints */
    unsigned                         hinted:1;
    unsigned                         uses:1;     /* is among those used */
    unsigned                         warm:1;     /* the first on a connection
                                                    that was there before */
};


/* keepalive */

/*
 * Finds a directive of the keepalive module, and what the module has of an
 * upstream; NULL, both, if nginx is built without it.
 */
ngx_command_t *ngx_http_upstream_reuse_find_directive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf, const char *directive, void **conf);

/*
 * Stands before the directive "keepalive" from the beginning to the end of the
 * file, so as to be below the module where the operator writes it.
 */
ngx_int_t ngx_http_upstream_reuse_hook_keepalive(ngx_conf_t *cf);
void ngx_http_upstream_reuse_unhook_keepalive(void);

/* Carries out directives that are not in the file, unless others are. */
ngx_int_t ngx_http_upstream_reuse_add_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);
ngx_int_t ngx_http_upstream_reuse_raise_requests(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);

/* Reads its size and limits, once the upstream is initialised. */
void ngx_http_upstream_reuse_read_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf);

/* Tells whether a balancer has its servers as core's round robin does. */
ngx_uint_t ngx_http_upstream_reuse_has_round_robin(
    ngx_http_upstream_srv_conf_t *uscf);

/* How many addresses get requests while all is well. */
ngx_uint_t ngx_http_upstream_reuse_count_servers(
    ngx_http_upstream_srv_conf_t *uscf);


/* warnings */

/* Warns of a pool, before the upstream is initialised. */
void ngx_http_upstream_reuse_check_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf);


/* peer */

/* Stands before the peer functions of an upstream, as its peer.init. */
ngx_int_t ngx_http_upstream_reuse_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);

/* What we have of a request's upstream; NULL if there is no layer. */
ngx_http_upstream_reuse_peer_t *ngx_http_upstream_reuse_find_peer(
    ngx_http_request_t *r);


/* kept */

/* Prepares a connection for being kept; NULL if it must not be. */
ngx_http_upstream_reuse_kept_t *ngx_http_upstream_reuse_keep(
    ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc);

/* The record of a connection; NULL if it was never kept. */
ngx_http_upstream_reuse_kept_t *ngx_http_upstream_reuse_find_kept(
    ngx_connection_t *c);

/* Closes a connection that is not in the pool. */
void ngx_http_upstream_reuse_close(ngx_connection_t *c);


/* key */

/*
 * The functions of the peer, as the keepalive module has left them, called
 * so that it keeps connections apart by identity.
 */
ngx_int_t ngx_http_upstream_reuse_init_pool(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us, ngx_http_upstream_reuse_peer_t *rp);
ngx_int_t ngx_http_upstream_reuse_get_from_pool(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);
void ngx_http_upstream_reuse_free_to_pool(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp, ngx_uint_t state);

/* Tells whether the pool is being given another connection than this one. */
ngx_uint_t ngx_http_upstream_reuse_is_pooling(ngx_connection_t *c);

/* Stands between the keepalive module and the balancer, as its peer.init. */
ngx_int_t ngx_http_upstream_reuse_init_balancer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);


/* identity */

#if (NGX_HTTP_SSL)
#define ngx_http_upstream_reuse_checks(conf)                                  \
    (((conf)->ssl_server_name ? 1 : 0) | ((conf)->ssl_verify ? 2 : 0))
#endif

/*
 * What a connection for this request has to have been opened for; NULL if
 * there is no memory.
 */
ngx_http_upstream_reuse_identity_t *ngx_http_upstream_reuse_find_identity(
    ngx_http_request_t *r);

ngx_uint_t ngx_http_upstream_reuse_same_identity(
    ngx_http_upstream_reuse_identity_t *a,
    ngx_http_upstream_reuse_identity_t *b);

uint32_t ngx_http_upstream_reuse_hash_identity(
    ngx_http_upstream_reuse_identity_t *id);

/* The bytes that an identity refers to; a copy of it that has them at p. */
size_t ngx_http_upstream_reuse_identity_size(
    ngx_http_upstream_reuse_identity_t *id);
void ngx_http_upstream_reuse_copy_identity(
    ngx_http_upstream_reuse_identity_t *copy,
    ngx_http_upstream_reuse_identity_t *id, u_char *p);

/*
 * NTLM and Negotiate authenticate the connection, not the request (RFC 4559,
 * section 6): one on which they appeared belongs to that client.
 */
ngx_uint_t ngx_http_upstream_reuse_is_authenticated(ngx_http_request_t *r);

#if (NGX_HTTP_SSL)
/* callbacks of ngx_peer_connection_t */
ngx_int_t ngx_http_upstream_reuse_set_session(ngx_peer_connection_t *pc,
    void *data);
void ngx_http_upstream_reuse_save_session(ngx_peer_connection_t *pc,
    void *data);
#endif


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
char *ngx_http_upstream_reuse_set_warm_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_zone_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);


/* expiry */

/*
 * Measures a connection that is to be kept for the first time.  Returns its
 * round trip in microseconds; 0 if it is not known.
 */
ngx_uint_t ngx_http_upstream_reuse_measure(
    ngx_http_upstream_reuse_kept_t *kept);

/*
 * Tells whether a connection that has been idle for so many milliseconds is
 * far enough from the end that the origin will make of it.
 */
ngx_uint_t ngx_http_upstream_reuse_is_fresh(
    ngx_http_upstream_reuse_kept_t *kept, ngx_msec_t age);

/*
 * Milliseconds for which an idle connection will still be used; 0 if it will
 * not.
 */
ngx_msec_t ngx_http_upstream_reuse_left(ngx_http_upstream_reuse_kept_t *kept);

/* Milliseconds that an unused connection to a server lasts. */
ngx_msec_t ngx_http_upstream_reuse_unused_limit(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);

/*
 * An idle connection is near its end.  If that was learned, one may be left in
 * the pool to see whether the origin closes it; returns 1 then.
 */
ngx_uint_t ngx_http_upstream_reuse_may_outlive(
    ngx_http_upstream_reuse_kept_t *kept);

/* How long before an idle limit a connection is given up. */
ngx_msec_t ngx_http_upstream_reuse_margin(
    ngx_http_upstream_reuse_kept_t *kept, ngx_msec_t limit);

/* Tells whether anything is known of that end. */
ngx_uint_t ngx_http_upstream_reuse_is_limited(
    ngx_http_upstream_reuse_kept_t *kept);

/*
 * Reads Keep-Alive in the response (RFC 2068, section 19.7.1.1).  Returns 0
 * if by its terms the connection cannot carry another request.
 */
ngx_uint_t ngx_http_upstream_reuse_read_hint(
    ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_kept_t *kept);

/* Has the keepalive module close an idle connection in time. */
void ngx_http_upstream_reuse_set_expiry(ngx_http_upstream_reuse_kept_t *kept);

/*
 * A connection that was idle for so long is given up: learns from whether the
 * origin has closed it by now.  Returns NGX_OK if so, NGX_AGAIN if not, and
 * NGX_DECLINED if it has sent something that tells neither.
 */
ngx_int_t ngx_http_upstream_reuse_note_end(
    ngx_http_upstream_reuse_kept_t *kept, ngx_msec_t age);

/*
 * A connection that was idle for so long is too near a limit.  If that was
 * learned, it may be left open for a while, out of the pool, to see whether
 * the origin closes it; returns 1 then.
 */
ngx_uint_t ngx_http_upstream_reuse_put_to_test(
    ngx_http_upstream_reuse_kept_t *kept, ngx_msec_t age);


/* limits */

/*
 * A connection was alive, or was closed by the origin, after being idle for
 * so many milliseconds.
 */
void ngx_http_upstream_reuse_note_alive(ngx_http_upstream_reuse_kept_t *kept,
    ngx_msec_t age);
void ngx_http_upstream_reuse_note_closed(ngx_http_upstream_reuse_kept_t *kept,
    ngx_msec_t age);

/*
 * A round trip of so many microseconds was measured.  Returns the least that
 * is known of the peer, on any connection.
 */
ngx_uint_t ngx_http_upstream_reuse_note_rtt(
    ngx_http_upstream_reuse_kept_t *kept, ngx_uint_t rtt);


/* zone */

/* Adds the zone; NULL if there is no memory. */
ngx_shm_zone_t *ngx_http_upstream_reuse_add_zone(ngx_conf_t *cf, size_t size);

/*
 * Finds or makes what is known of the server of the address in pc.  Never
 * NULL: if the zone is full, as the log says, all further servers are one,
 * and so are those of an open upstream that has many.
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

/* Takes the lock in which limits change. */
void ngx_http_upstream_reuse_lock(ngx_http_upstream_reuse_kept_t *kept);
void ngx_http_upstream_reuse_unlock(ngx_http_upstream_reuse_kept_t *kept);

/* Parts a record's key: the upstream's name, and the address as text. */
void ngx_http_upstream_reuse_name_record(
    ngx_http_upstream_reuse_record_t *record, ngx_str_t *upstream,
    u_char *text, size_t *len);

/* of the module: a worker begins, and ends */
ngx_int_t ngx_http_upstream_reuse_init_process(ngx_cycle_t *cycle);
void ngx_http_upstream_reuse_exit_process(ngx_cycle_t *cycle);


/* counters */

#define ngx_http_upstream_reuse_count(server, counter)                        \
    (server)->share->counters[NGX_HTTP_UPSTREAM_REUSE_##counter]++

#define ngx_http_upstream_reuse_uncount(server, counter)                      \
    (server)->share->counters[NGX_HTTP_UPSTREAM_REUSE_##counter]--

/* A connection is closed, or is about to be; each has one fate. */
#define ngx_http_upstream_reuse_count_closed(server, fate)                    \
    (server)->share->counters[NGX_HTTP_UPSTREAM_REUSE_CLOSED + (fate)]++

/* A request has been given a connection, a kept one or a new one. */
void ngx_http_upstream_reuse_count_request(ngx_http_upstream_reuse_peer_t *rp);

/* A new connection has served its request: how long it took to open it. */
void ngx_http_upstream_reuse_count_opening(
    ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c);

/* With the zone's lock: the ratio, if it is time. */
void ngx_http_upstream_reuse_take_sample(ngx_http_upstream_reuse_zone_t *zone);

/*
 * A kept connection is being closed while no request has it; and ended is what
 * ngx_http_upstream_reuse_note_end() says of it.
 */
void ngx_http_upstream_reuse_count_idle_closed(
    ngx_http_upstream_reuse_kept_t *kept, ngx_int_t ended);

/* The same, for a reason that is known. */
void ngx_http_upstream_reuse_count_kept_closed(
    ngx_http_upstream_reuse_kept_t *kept, ngx_http_upstream_reuse_fate_e fate);


/* variables */

ngx_int_t ngx_http_upstream_reuse_add_variables(ngx_conf_t *cf);


#include "ngx_http_upstream_reuse_warm.h"



#endif /* _NGX_HTTP_UPSTREAM_REUSE_H_INCLUDED_ */
