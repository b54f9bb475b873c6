
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Connections that are there before they are needed: a listener of the reuse
 * layer, to which nothing there knows the way.
 *
 *     module      which upstreams; what becomes of their connections
 *     profiles    what connections are opened with
 *     plan        how many of which profile, to which server, and how many
 *                 at a time
 *     wanted      how many that is
 *     starving    servers that idle connections may keep from answering
 *     preconnect  one of them is opened
 *     handshake   TLS on it
 *     usage       what all workers have together, and which of them plans
 *     pace        when the next plan is made, and after which failures
 */


#ifndef _NGX_HTTP_REUSE_WARM_H_INCLUDED_
#define _NGX_HTTP_REUSE_WARM_H_INCLUDED_


#include "ngx_http_upstream_reuse_silence.h"
#include "ngx_http_upstream_reuse_sessions.h"


#define NGX_HTTP_REUSE_WARM_PROFILES  NGX_HTTP_UPSTREAM_REUSE_PROFILES

/* milliseconds after which a plan is made again, if nothing has changed */
#define NGX_HTTP_REUSE_WARM_SELDOM  1000

/* the same for connections of which other workers take some now */
#define NGX_HTTP_REUSE_WARM_OFTEN   100

/*
 * Seconds after which a peak of use is lowered.  There are three: of a server
 * in all workers and in this one (usage), and of a profile (module, plan).
 */
#define NGX_HTTP_REUSE_WARM_LOWER  60


/*
 * worker: connections of one identity, and the settings that they are opened
 * with
 */

struct ngx_http_reuse_warm_profile_s {
    ngx_uint_t                           index;  /* in the upstream */
    ngx_uint_t                           number;  /* changes as another one
                                                     takes its place */
    ngx_http_upstream_reuse_identity_t  *identity;
    size_t                               room;   /* bytes, for the identity */
    ngx_http_conf_ctx_t                  ctx;
    ngx_http_upstream_conf_t            *conf;     /* the handler's */
    ngx_addr_t                           local;

    ngx_uint_t                           used;   /* with requests */
    ngx_uint_t                           peak;   /* of late */
    ngx_uint_t                           seen;   /* since it was lowered */

    /* learned from a request; while it is unused, another may replace it */

    ngx_uint_t                           unused;  /* idle or being opened */
    unsigned                             learned:1;
};


/* worker: a server that gets requests, as the balancer has it at one time */

typedef struct {
    ngx_sockaddr_t                       addr;
    socklen_t                            socklen;
    ngx_uint_t                           weight;
    ngx_uint_t                           room;   /* by "max_conns" */
} ngx_http_reuse_warm_peer_t;


/* worker: an upstream that is kept warm */

struct ngx_http_reuse_warm_s {
    ngx_http_upstream_reuse_srv_conf_t  *conf;
    ngx_msec_t                           configured;  /* when it was read */

    ngx_http_reuse_warm_profile_t
                                       *profiles[NGX_HTTP_REUSE_WARM_PROFILES];
    ngx_uint_t                           nprofiles;

    ngx_queue_t                          idle;  /* ..._reuse_conn_t */
    ngx_queue_t                          waiting;  /* ..._reuse_peer_t */
    ngx_uint_t                           nidle;
    ngx_uint_t                           used;   /* with requests */
    ngx_uint_t                           connecting;
    ngx_uint_t                           wanted;  /* ready in this worker, by
                                                      the last plan */
    ngx_msec_t                           lowered;  /* the profiles' peaks */
    ngx_msec_t                           due;    /* the next plan */

    /* a plan that is being made */

    ngx_array_t                          peers;  /* ..._peer_t */
    ngx_array_t                          servers;  /* ..._server_t * */
    ngx_uint_t                           round;
    ngx_uint_t                           weight;  /* of all servers */
};


/*
 * What is remembered of a peak of use, one interval later: it is gone by an
 * eighth if there was none like it.
 */
#define ngx_http_reuse_warm_lower(peak, seen)                                 \
    ((peak) - ngx_min((peak) - ngx_min(peak, seen), 1 + (peak) / 8))


typedef struct ngx_http_reuse_warm_preconnect_s
    ngx_http_reuse_warm_preconnect_t;

typedef void (*ngx_http_reuse_warm_handshake_pt)(
    ngx_http_reuse_warm_preconnect_t *p, ngx_int_t rc);

/* worker: lives until the connection is in the pool, or is given up */

struct ngx_http_reuse_warm_preconnect_s {
    ngx_queue_t                          queue;

    ngx_http_reuse_warm_t               *warm;
    ngx_http_reuse_warm_profile_t       *profile;
    ngx_http_upstream_reuse_server_t    *server;
    ngx_http_upstream_reuse_attempts_t  *attempts;

    ngx_peer_connection_t                peer;
    ngx_event_t                          event;  /* posted: connect() is over
                                                    at once */
    ngx_msec_t                           start;
    ngx_msec_t                           connected;  /* and TLS begins */

    /* TLS: what to call when the handshake is over, NGX_OK or NGX_ERROR */
    ngx_http_reuse_warm_handshake_pt     handler;

    ngx_log_t                            log;
    ngx_str_t                            name;
    u_char                               text[NGX_SOCKADDR_STRLEN];

    unsigned                             telling:1;  /* its failure is
                                                        logged */
    unsigned                             opened:1;
    unsigned                             failed:1;  /* and that was logged */
};


/* pace */

/* A worker begins: what makes plans when it is time. */
void ngx_http_reuse_warm_start_timer(ngx_event_handler_pt handler);

/* It is called within so many milliseconds. */
void ngx_http_reuse_warm_set_timer(ngx_msec_t delay);

/* The same, and makes a plan for that upstream. */
void ngx_http_reuse_warm_schedule(ngx_http_reuse_warm_t *warm,
    ngx_msec_t delay);

/* An attempt to open a connection is over. */
void ngx_http_reuse_warm_note_preconnect(
    ngx_http_reuse_warm_preconnect_t *p);

/* An idle connection was closed. */
void ngx_http_reuse_warm_note_closed_idle(
    ngx_http_upstream_reuse_conn_t *conn,
    ngx_http_upstream_reuse_close_e reason);

/*
 * For the planner: whether parked connections were closed as soon as they were
 * there, or have been kept by their server.
 */
void ngx_http_reuse_warm_note_parked(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t proved);

/*
 * A server takes connections of a profile, and keeps them.  Nothing is known
 * of those whose profile is NULL.
 */
void ngx_http_reuse_warm_recover(ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server);

/* How connections of a profile to a server went of late. */
ngx_http_upstream_reuse_attempts_t *ngx_http_reuse_warm_find_attempts(
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server);


/* usage */

/* How many workers there are. */
ngx_uint_t ngx_http_reuse_warm_count_workers(void);

/*
 * A request has got a connection, and gives it back.  The first tells whether
 * more are used at a time than of late.
 */
ngx_uint_t ngx_http_reuse_warm_begin_use(
    ngx_http_upstream_reuse_server_t *server);
void ngx_http_reuse_warm_end_use(ngx_http_upstream_reuse_server_t *server);

/* How many connections all workers use now. */
ngx_uint_t ngx_http_reuse_warm_count_used(
    ngx_http_upstream_reuse_server_t *server);

/*
 * With "auto", how many connections there are to be in all, those in use
 * included: a quarter more than were used at a time of late, and a few at
 * least; none if none was used.
 */
ngx_uint_t ngx_http_reuse_warm_add_spare(ngx_uint_t peak);

/* Has peaks of use forgotten: what workers remember together, and its own. */
void ngx_http_reuse_warm_lower_peaks(void);
void ngx_http_reuse_warm_lower_own(ngx_http_upstream_reuse_server_t *server);

/*
 * For a plan: what other workers have, whether this one is the planner, and
 * for how many connections requests have paid.  Parked connections that end
 * within so many milliseconds are near their end.  Takes the lock of the zone.
 * Returns after how many milliseconds that is to be done again.
 */
ngx_msec_t ngx_http_reuse_warm_take_stock(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t ahead);


/* profiles */

/* What handlers have foreseen of an upstream. */
ngx_int_t ngx_http_reuse_warm_foresee_profiles(ngx_conf_t *cf,
    ngx_http_reuse_warm_t *warm);

/*
 * The profile of what a request needs; NULL if it is not known.  The second
 * makes it one that is known, if its settings can be had without a client's
 * request and there is room.
 */
ngx_http_reuse_warm_profile_t *ngx_http_reuse_warm_find_profile(
    ngx_http_upstream_reuse_peer_t *rp);
ngx_http_reuse_warm_profile_t *ngx_http_reuse_warm_learn_profile(
    ngx_http_upstream_reuse_peer_t *rp);


/* plan */

/*
 * Opens what is missing in an upstream, and closes what is replaced.  Returns
 * after how many milliseconds that is to be looked at again.
 */
ngx_msec_t ngx_http_reuse_warm_plan(ngx_http_reuse_warm_t *warm);


/* wanted */

/* Of what is shared out in parts, one that comes after others. */

typedef struct {
    ngx_uint_t                           before;
    ngx_uint_t                           share;
    ngx_uint_t                           all;
} ngx_http_reuse_warm_part_t;

/* All parts together are the whole. */
ngx_uint_t ngx_http_reuse_warm_part(ngx_uint_t whole,
    ngx_http_reuse_warm_part_t *part);

/* Tells whether one worker opens connections for all of them. */
ngx_uint_t ngx_http_reuse_warm_is_shared(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile);

/*
 * How many connections of a profile to a server are to be ready: in all
 * workers, or in this one if they are not shared.  The parts are those of the
 * profile, and of the server by its weight.  ready and idle of the server have
 * to be those of the profile in this worker.
 */
ngx_uint_t ngx_http_reuse_warm_count_wanted(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_reuse_warm_part_t *part, ngx_http_reuse_warm_part_t *weight);


/* starving */

/*
 * A request of a warm upstream has got a connection, and gives it back or has
 * another one.
 */
void ngx_http_reuse_warm_begin_waiting(ngx_http_upstream_reuse_peer_t *rp);
void ngx_http_reuse_warm_end_waiting(ngx_http_upstream_reuse_peer_t *rp);

/*
 * Looks at all requests that have no answer, for a plan whose servers are
 * collected, and closes connections to servers that these may starve.  Lowers
 * *next to the milliseconds after which that is to be done again.
 */
void ngx_http_reuse_warm_watch_waiting(ngx_http_reuse_warm_t *warm,
    ngx_msec_t *next);

/* Tells whether a server must have no connections without a request. */
ngx_uint_t ngx_http_reuse_warm_is_cold(
    ngx_http_upstream_reuse_server_t *server);


/* handshake */

/*
 * Begins TLS.  The handler is called when that is over, maybe at once.
 * NGX_ERROR: it cannot begin, and nothing is called.
 */
ngx_int_t ngx_http_reuse_warm_handshake(ngx_http_reuse_warm_preconnect_t *p,
    ngx_http_reuse_warm_handshake_pt handler);


/* preconnect */

/*
 * Opens a connection in the background.  NGX_ERROR if there is no memory;
 * otherwise ngx_http_reuse_warm_note_preconnect() will be called.
 */
ngx_int_t ngx_http_reuse_warm_preconnect(
    ngx_http_reuse_warm_t *warm, ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server);

/* How many of a profile are being opened to a server, and how many in all. */
ngx_uint_t ngx_http_reuse_warm_count_preconnects(
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server);
ngx_uint_t ngx_http_reuse_warm_count_all_preconnects(void);

/* Gives up those to a server, or all of them if it is NULL. */
void ngx_http_reuse_warm_abort_preconnects(
    ngx_http_upstream_reuse_server_t *server);


#endif /* _NGX_HTTP_REUSE_WARM_H_INCLUDED_ */
