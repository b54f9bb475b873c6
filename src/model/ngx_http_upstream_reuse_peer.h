
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the reuse layer has of a request: as long as it is served, and for each
 * attempt to serve it.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_PEER_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_PEER_H_INCLUDED_


/*
 * How it is known that a request was not delivered.  UNSENT: no byte of it was
 * written; CLOSED: the origin had ended its side before; RESET: the reset came
 * sooner than an answer to the request could; UNKNOWN: it is not known.
 * reuse_judge() (retry.c) decides, and has a text for each in reuse_proofs[].
 */

typedef enum {
    NGX_HTTP_UPSTREAM_REUSE_PROOF_UNKNOWN = 0,
    NGX_HTTP_UPSTREAM_REUSE_PROOF_UNSENT,
    NGX_HTTP_UPSTREAM_REUSE_PROOF_CLOSED,
    NGX_HTTP_UPSTREAM_REUSE_PROOF_RESET,
    NGX_HTTP_UPSTREAM_REUSE_PROOF_LAST
} ngx_http_upstream_reuse_proof_e;


/* the peer of a request that was not delivered, to which it is sent again */

typedef struct {
    ngx_http_upstream_conf_t         conf;   /* stands in for that one */
    ngx_http_upstream_conf_t        *saved_conf;
    struct sockaddr                 *sockaddr;
    socklen_t                        socklen;
    ngx_str_t                       *name;
    ngx_str_t                       *sid;    /* of sticky sessions */
    ngx_uint_t                       tries;
} ngx_http_upstream_reuse_held_t;


/* request: peer functions but those of sessions, and what they get */

typedef struct {
    void                            *data;
    ngx_event_get_peer_pt            get;
    ngx_event_free_peer_pt           free;
    ngx_event_notify_peer_pt         notify;
} ngx_http_upstream_reuse_hooks_t;


/* request: the key by which the pool knows connections of its identity */

typedef struct {
    uint32_t                         hash;   /* of the identity */
    socklen_t                        len;
    struct sockaddr                 *sockaddr;
    struct sockaddr                 *made_of;  /* NULL: there is no key */
    uint64_t                         space[4];  /* for that of an IP address */

    /* while the key stands in its place; otherwise NULL */
    struct sockaddr                 *address;
    socklen_t                        address_len;
} ngx_http_upstream_reuse_key_t;


/*
 * attempt: what may prove, of a request on a kept connection, that it was not
 * delivered
 */

typedef struct {
    ngx_recv_pt                      recv;   /* stands behind ours */
    ngx_send_chain_pt                send_chain;   /* likewise */
    uint64_t                         taken;  /* the connection was, in
                                                microseconds */
    off_t                            sent;   /* c->sent at that time */
    uint64_t                         written;  /* to the socket by then */
    ngx_uint_t                       batch;
    ngx_http_upstream_reuse_proof_e  proof;

    ngx_queue_t                      queue;  /* of those that are waiting, or
                                                of itself alone */
    ngx_msec_t                       begun;  /* to be sent, or later */

    unsigned                         log_error;  /* c->log_error was */
    unsigned                         peeked:1;   /* nothing had arrived */
    unsigned                         waiting:1;  /* for the first byte */
    unsigned                         judged:1;
    unsigned                         stray:1;    /* bytes before the request */
    unsigned                         unsent:1;   /* at the last look */
    unsigned                         silent:1;   /* nothing of it was
                                                    acknowledged */
} ngx_http_upstream_reuse_watch_t;


/* attempt: for the counters and the variables */

typedef struct {
    ngx_msec_t                       start;  /* the connection was opened */
    ngx_msec_t                       connected;  /* and TLS began */
    ngx_msec_t                       end;    /* the request was over */
    ngx_uint_t                       rtt;    /* of this connection,
                                                microseconds; 0: not known */
    ngx_uint_t                       requests;  /* 0: there is none yet */
    ngx_http_upstream_reuse_new_e    why_new;
    ngx_http_upstream_reuse_close_e  explained;  /* by the handler; PENDING:
                                                    it has said nothing */
    ngx_http_upstream_reuse_close_e  reason;

    unsigned                         holds:1;    /* a connection that was
                                                    counted */
    unsigned                         opened:1;   /* it was counted as such */
    unsigned                         warm:1;     /* the first on a connection
                                                    that was there before */
    unsigned                         shared:1;   /* taken over from another
                                                    worker */
    unsigned                         excess:1;   /* the origin had sent data
                                                    on the idle one */
} ngx_http_upstream_reuse_account_t;


/* attempt: Keep-Alive in the response */

typedef struct {
    ngx_int_t                        timeout;  /* seconds; NGX_ERROR: none */
    ngx_int_t                        max;    /* requests; NGX_ERROR: none */

    unsigned                         expected:1;  /* the handler tells of it */
    unsigned                         told:1;     /* and has */
} ngx_http_upstream_reuse_hint_t;


/* request: what the layer has of a request that it serves */

struct ngx_http_upstream_reuse_peer_s {
    ngx_http_request_t                  *request;
    ngx_http_upstream_t                 *upstream;
    ngx_http_upstream_reuse_srv_conf_t  *conf;
    ngx_http_upstream_conf_t            *location;  /* the handler's settings;
                                                       a balancer may put a
                                                       copy in their place */
    ngx_http_upstream_reuse_identity_t  *identity;
    ngx_uint_t                           target;  /* as in its connection */

    ngx_http_upstream_reuse_hooks_t      next;   /* what ours stand before */
    ngx_http_upstream_reuse_hooks_t      balancer;  /* if the pool has keys */
#if (NGX_HTTP_MYPROXY_TWO_STEPS)
    ngx_event_connect_peer_pt            connect;  /* the pool's; NULL: none */
    ngx_event_close_peer_pt              close;
    void                           (*begin_anew)(
                                         ngx_http_upstream_reuse_peer_t *rp);
#endif

    ngx_http_upstream_reuse_key_t        key;

    /* attempt: on a kept connection; NULL: on a new one */

    ngx_http_upstream_reuse_server_t    *server;
    ngx_http_upstream_reuse_conn_t      *conn;
    ngx_msec_t                           idle;   /* before it was taken */

    ngx_http_upstream_reuse_watch_t      watch;
    ngx_http_upstream_reuse_account_t    account;
    ngx_http_upstream_reuse_hint_t       hint;

    ngx_http_upstream_reuse_held_t      *held;   /* while again is set */
    ngx_http_upstream_reuse_wait_t      *wait;   /* NULL: it never had to */
    ngx_uint_t                           nservers;  /* that it may be given */
    ngx_uint_t                           nfull;  /* of these, refused now */

    /* for src/warm */

    ngx_http_reuse_warm_profile_t       *profile;
    ngx_queue_t                          queue;  /* of those without answer */
    ngx_msec_t                           since;  /* it has waited for one */

    unsigned                             again:1;
    unsigned                             bypass:1;   /* the pool is not used */
    unsigned                             placing:1;  /* no request: it puts a
                                                        connection there */
    unsigned                             apart:1;    /* its location shares no
                                                        connections */
    unsigned                             uses:1;     /* begin_use() called */
    unsigned                             awaits:1;   /* an answer: is queued */
#if (NGX_HTTP_MYPROXY_TWO_STEPS)
    unsigned                             chosen:1;   /* and not connected to */
#endif
};


/*
 * Tells whether the body of a request is gone as soon as it has been sent, so
 * that it could not be sent again.  Nothing of it has been sent where
 * u->request_sent is 0.
 */
#define ngx_http_upstream_reuse_body_is_gone(rp)                              \
    ((rp)->request->request_body_no_buffering)

/* Tells whether nginx's rules let a request go again after such a failure. */
#define ngx_http_upstream_reuse_lets_go_again(rp, failure)                    \
    (((rp)->upstream->conf->next_upstream & (failure))                        \
     && (!((rp)->request->method & NGX_HTTP_UPSTREAM_REUSE_NON_IDEMPOTENT)    \
         || ((rp)->upstream->conf->next_upstream                              \
             & NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT))                          \
     && !ngx_http_upstream_reuse_body_is_gone(rp))


#endif /* _NGX_HTTP_UPSTREAM_REUSE_PEER_H_INCLUDED_ */
