
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the files have in common that open connections before they are needed.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_WARM_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_WARM_H_INCLUDED_


#include "ngx_http_upstream_reuse.h"


/* so many kinds of connections of one upstream are kept warm */
#define NGX_HTTP_UPSTREAM_REUSE_KINDS  8

/* milliseconds after which a plan is made again, if nothing has changed */
#define NGX_HTTP_UPSTREAM_REUSE_SELDOM  1000

/* milliseconds: a connection that has lasted so long is wanted */
#define NGX_HTTP_UPSTREAM_REUSE_PROVED  250

/* seconds after which a peak of use is lowered */
#define NGX_HTTP_UPSTREAM_REUSE_LOWER  60


/* cycle: a handler will need connections with these settings */

typedef struct {
    ngx_http_conf_ctx_t                  ctx;
    ngx_http_upstream_conf_t            *conf;
} ngx_http_upstream_reuse_foreseen_t;


/* worker: a kind of connections, and what they are opened with */

struct ngx_http_upstream_reuse_kind_s {
    ngx_http_upstream_reuse_identity_t   identity;
    ngx_http_conf_ctx_t                  ctx;
    ngx_http_upstream_conf_t            *conf;     /* the handler's */
    ngx_http_upstream_conf_t             opening;  /* without what takes a
                                                      client's request */
    ngx_addr_t                           local;

    ngx_uint_t                           used;   /* with requests */
    ngx_uint_t                           peak;   /* of late */
    ngx_uint_t                           seen;   /* since it was lowered */

    /* a request has shown it, and another may once it is of no use */

    ngx_uint_t                           unused;  /* idle or being opened */
    size_t                               room;   /* for what has no end */
    u_char                              *bytes;
    unsigned                             learned:1;
};


/* worker: an upstream that is kept warm */

struct ngx_http_upstream_reuse_warm_s {
    ngx_http_upstream_srv_conf_t        *uscf;
    ngx_http_upstream_reuse_srv_conf_t  *conf;

    ngx_http_upstream_reuse_kind_t      *kinds[NGX_HTTP_UPSTREAM_REUSE_KINDS];
    ngx_uint_t                           nkinds;

    ngx_queue_t                          idle;  /* ..._reuse_kept_t */
    ngx_uint_t                           nidle;
    ngx_uint_t                           used;   /* with requests */
    ngx_uint_t                           opening;
    ngx_msec_t                           lowered;  /* the kinds' peaks */
    ngx_msec_t                           due;    /* the next plan */

    /* a plan that is being made */

    ngx_array_t                          servers;  /* ..._server_t * */
    ngx_uint_t                           round;
    ngx_uint_t                           weight;  /* of all servers */
};


/* warm */

/*
 * Prepares an upstream for being kept warm, when it is initialised.  NGX_ERROR
 * if that cannot be, which is logged, or there is no memory.
 */
ngx_int_t ngx_http_upstream_reuse_init_warm(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf);

/*
 * What is remembered of a peak of use, one interval later: it is gone by an
 * eighth if there was none like it.
 */
#define ngx_http_upstream_reuse_lower(peak, seen)                             \
    ((peak) - ngx_min((peak) - ngx_min(peak, seen), 1 + (peak) / 8))

/*
 * Lowers, with the lock, what is remembered of the connections that were used
 * at a time.
 */
void ngx_http_upstream_reuse_lower_peaks(ngx_http_upstream_reuse_zone_t *zone);

/* A worker begins. */
void ngx_http_upstream_reuse_start_warming(
    ngx_http_upstream_reuse_main_conf_t *rmcf);

/* A request has got a connection, and gives it back; for a warm upstream. */
void ngx_http_upstream_reuse_begin_use(ngx_http_upstream_reuse_peer_t *rp);
void ngx_http_upstream_reuse_end_use(ngx_http_upstream_reuse_peer_t *rp);

/* A connection is idle from now on, and is not; for a warm upstream. */
void ngx_http_upstream_reuse_begin_idle(ngx_http_upstream_reuse_kept_t *kept);
void ngx_http_upstream_reuse_end_idle(ngx_http_upstream_reuse_kept_t *kept);

/* One has been opened, or not; one was closed with no request on it. */
void ngx_http_upstream_reuse_note_opening(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t opened);
void ngx_http_upstream_reuse_note_closed_idle(
    ngx_http_upstream_reuse_kept_t *kept, ngx_http_upstream_reuse_fate_e fate);


/* A server takes connections, and keeps them. */
void ngx_http_upstream_reuse_recover(ngx_http_upstream_reuse_server_t *server);


/* kinds */

/* What handlers have foreseen of an upstream. */
ngx_int_t ngx_http_upstream_reuse_foresee_kinds(ngx_conf_t *cf,
    ngx_http_upstream_reuse_warm_t *warm);

/*
 * The kind of connections that a request needs; NULL if it is not known.  The
 * second makes it one that is known, if its settings can be had without a
 * client's request and there is room.
 */
ngx_http_upstream_reuse_kind_t *ngx_http_upstream_reuse_find_kind(
    ngx_http_upstream_reuse_peer_t *rp);
ngx_http_upstream_reuse_kind_t *ngx_http_upstream_reuse_learn_kind(
    ngx_http_upstream_reuse_peer_t *rp);

/* plan */

/*
 * Opens what is missing in an upstream, and closes what is replaced.  Returns
 * after how many milliseconds that is to be looked at again.
 */
ngx_msec_t ngx_http_upstream_reuse_plan(ngx_http_upstream_reuse_warm_t *warm);


/* opening */

/*
 * Opens a connection in the background.  NGX_ERROR if that cannot begin;
 * otherwise ngx_http_upstream_reuse_note_opening() will be called.
 */
ngx_int_t ngx_http_upstream_reuse_open(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_reuse_server_t *server);

/* How many of a kind are being opened to a server. */
ngx_uint_t ngx_http_upstream_reuse_count_openings(
    ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_reuse_server_t *server);
ngx_uint_t ngx_http_upstream_reuse_count_all_openings(void);

/* Gives all of them up. */
void ngx_http_upstream_reuse_abort_openings(void);

/* What a request opens; NULL for a client's request. */
ngx_http_upstream_reuse_opening_t *ngx_http_upstream_reuse_find_opening(
    ngx_http_request_t *r);

/* Has such a request get its connection, and keep it. */
ngx_int_t ngx_http_upstream_reuse_init_opening(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us, ngx_http_upstream_reuse_peer_t *rp);
ngx_int_t ngx_http_upstream_reuse_get_opening(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);
void ngx_http_upstream_reuse_keep_opening(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_kept_t *kept);
void ngx_http_upstream_reuse_end_opening(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_kept_t *kept);


/* sessions */

#if (NGX_HTTP_SSL)

/*
 * Reads what is no data, such as session tickets.  Returns NGX_AGAIN if that
 * was all, NGX_BUSY if a part of more is there, NGX_DECLINED if there are
 * data, NGX_OK if it is the end, and NGX_ERROR.
 */
ngx_int_t ngx_http_upstream_reuse_drain(ngx_connection_t *c);

/* TLS sessions of the server that a connection is opened to */
ngx_int_t ngx_http_upstream_reuse_set_server_session(
    ngx_peer_connection_t *pc, ngx_http_upstream_reuse_peer_t *rp);
void ngx_http_upstream_reuse_save_server_session(ngx_peer_connection_t *pc,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_server_t *server);

/* The same of a connection that is kept, and may have no request. */
ngx_int_t ngx_http_upstream_reuse_read_tickets(
    ngx_http_upstream_reuse_kept_t *kept);
#endif


#endif /* _NGX_HTTP_UPSTREAM_REUSE_WARM_H_INCLUDED_ */
