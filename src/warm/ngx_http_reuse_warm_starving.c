
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A server may have one process or thread for each connection, which waits
 * for a request on the connection that it has accepted.  Connections that are
 * opened ahead take all of them then, while requests wait on connections that
 * only the server's kernel has accepted.
 *
 * That cannot be seen, but it can be tried out.  When requests have waited
 * for suspiciously long, all idle connections to the server are closed.  If
 * an answer comes promptly then, the server is not kept warm for a time that
 * grows.  If requests wait as long without such connections, these were not
 * to blame.
 */


#include "ngx_http_reuse_warm.h"


/* milliseconds */

#define NGX_HTTP_REUSE_WARM_PATIENCE  1000   /* at least */
#define NGX_HTTP_REUSE_WARM_PATIENT   30000  /* at most */
#define NGX_HTTP_REUSE_WARM_PROMPT    250    /* at least */
#define NGX_HTTP_REUSE_WARM_TRIAL     10000  /* no longer */
#define NGX_HTTP_REUSE_WARM_STOP      60000

#define NGX_HTTP_REUSE_WARM_STOPS     6      /* times it is doubled */

/* it will be known by then whether the server's kernel has a request */
#define NGX_HTTP_REUSE_WARM_UNKNOWN   250

/* so many times as patient while the server answers other requests */
#define NGX_HTTP_REUSE_WARM_BUSY      4


static void reuse_remove(ngx_http_upstream_reuse_peer_t *rp);
static ngx_uint_t reuse_is_answered(ngx_http_upstream_reuse_peer_t *rp);
static ngx_uint_t reuse_is_tried(ngx_http_upstream_reuse_peer_t *rp);
static void reuse_note_answer(ngx_http_upstream_reuse_peer_t *rp);
static void reuse_note_timeout(ngx_http_upstream_reuse_peer_t *rp);
static void reuse_look_at_request(ngx_http_upstream_reuse_peer_t *rp,
    ngx_msec_t *next);

static ngx_uint_t reuse_has_unused(ngx_http_upstream_reuse_server_t *server);
static ngx_uint_t reuse_waited_without(
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t since,
    ngx_msec_t now, ngx_msec_t *waited);
static ngx_msec_t reuse_patience(ngx_http_upstream_reuse_server_t *server);
static ngx_msec_t reuse_prompt(ngx_http_upstream_reuse_server_t *server);

static void reuse_begin_trial(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t waited);
static void reuse_stop(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server);
static void reuse_resume(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t waited);
static void reuse_close_idle(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server);


void
ngx_http_reuse_warm_begin_waiting(ngx_http_upstream_reuse_peer_t *rp)
{
    rp->since = ngx_current_msec;
    rp->awaits = 1;

    ngx_queue_insert_tail(&rp->conf->warmth->waiting, &rp->queue);
}


void
ngx_http_reuse_warm_end_waiting(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_connection_t  *c;

    if (!rp->awaits) {
        return;
    }

    reuse_remove(rp);

    if (rp->conn && rp->watch.silent) {

        /* the path is to blame */

        return;
    }

    if (reuse_is_answered(rp)) {
        reuse_note_answer(rp);
        return;
    }

    c = rp->upstream->peer.connection;

    if (c && (c->read->timedout || c->write->timedout)) {
        reuse_note_timeout(rp);
    }
}


static void
reuse_remove(ngx_http_upstream_reuse_peer_t *rp)
{
    rp->awaits = 0;
    ngx_queue_remove(&rp->queue);
}


static ngx_uint_t
reuse_is_answered(ngx_http_upstream_reuse_peer_t *rp)
{
    return rp->upstream->state
           && rp->upstream->state->header_time != (ngx_msec_t) -1;
}


static void
reuse_note_answer(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_msec_t                           when, waited;
    ngx_http_reuse_warm_t               *warm;
    ngx_http_upstream_reuse_server_t    *server;
    ngx_http_upstream_reuse_starving_t  *starving;

    warm = rp->conf->warmth;
    server = rp->server;
    starving = &server->record->starving;

    when = rp->upstream->start_time + rp->upstream->state->header_time;

    if ((ngx_msec_int_t) (when - server->ahead.answered) > 0) {
        server->ahead.answered = when;
    }

    /* a trial that ended while nobody waited */

    if (!ngx_http_reuse_warm_is_cold(server)) {
        server->ahead.own_trial = 0;
    }

    if (!reuse_waited_without(server, rp->since, when, &waited)) {
        return;
    }

    if (server->ahead.own_trial && !reuse_is_tried(rp)) {

        /* a quick request says nothing of those that wait */

    } else if (server->ahead.own_trial) {

        if (waited <= reuse_prompt(server)) {
            reuse_stop(warm, server);

        } else {
            reuse_resume(warm, server, when - rp->since);
        }

    } else if (ngx_http_reuse_warm_is_cold(server)
               && waited >= starving->waited)
    {
        reuse_resume(warm, server, waited);
    }

    /* the longest of late */

    waited = ngx_max(waited, starving->usual - starving->usual / 16);

    if (waited != starving->usual) {
        starving->usual = waited;
    }
}


/*
 * Tells whether a request had waited for about as long as the one because of
 * which the trial began; if that has timed out, any other one does.
 */

static ngx_uint_t
reuse_is_tried(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_http_upstream_reuse_starving_t  *starving;

    starving = &rp->server->record->starving;

    return rp->server->ahead.timed_out
           || (ngx_msec_int_t) (starving->trial - rp->since)
              >= (ngx_msec_int_t) (starving->waited / 2);
}


static void
reuse_note_timeout(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_http_upstream_reuse_server_t  *server;

    server = rp->server;

    if ((ngx_msec_int_t) (server->ahead.answered - rp->since) <= 0
        && reuse_has_unused(server)
        && !ngx_http_reuse_warm_is_cold(server))
    {
        reuse_begin_trial(rp->conf->warmth, server,
                          ngx_current_msec - rp->since);

        server->ahead.timed_out = 1;
    }
}


void
ngx_http_reuse_warm_watch_waiting(ngx_http_reuse_warm_t *warm,
    ngx_msec_t *next)
{
    ngx_uint_t                          i;
    ngx_queue_t                        *q;
    ngx_http_upstream_reuse_peer_t     *rp;
    ngx_http_upstream_reuse_server_t  **server;

    q = ngx_queue_head(&warm->waiting);

    while (q != ngx_queue_sentinel(&warm->waiting)) {

        rp = ngx_queue_data(q, ngx_http_upstream_reuse_peer_t, queue);
        q = ngx_queue_next(q);

        if (reuse_is_answered(rp)) {
            reuse_remove(rp);
            reuse_note_answer(rp);

        } else {
            reuse_look_at_request(rp, next);
        }
    }

    server = warm->servers.elts;

    for (i = 0; i < warm->servers.nelts; i++) {

        if (server[i]->ahead.trial_seen != server[i]->record->starving.trial) {

            /* any worker may have begun it */

            server[i]->ahead.trial_seen = server[i]->record->starving.trial;

            if (ngx_http_reuse_warm_is_cold(server[i])) {
                reuse_close_idle(warm, server[i]);
            }
        }
    }
}


/* A request that has no answer yet. */

static void
reuse_look_at_request(ngx_http_upstream_reuse_peer_t *rp, ngx_msec_t *next)
{
    ngx_msec_t                         waited, alone, patience;
    ngx_http_upstream_t               *u;
    ngx_http_reuse_warm_t             *warm;
    ngx_http_upstream_reuse_server_t  *server;

    u = rp->upstream;
    warm = rp->conf->warmth;
    server = rp->server;

    if (server->limit == NULL) {
        return;
    }

    if (u->request_sent && !u->request_body_sent
        && u->peer.connection && u->peer.connection->write->ready)
    {

        /*
         * It is the server that waits, for the rest of the body.  Where the
         * socket takes no more, nobody reads at its other end.
         */

        rp->since = ngx_current_msec;
        return;
    }

    if (ngx_http_reuse_warm_is_cold(server)) {

        if (!reuse_waited_without(server, rp->since, ngx_current_msec,
                                  &waited))
        {
            return;
        }

        patience = server->ahead.own_trial
                   ? reuse_prompt(server) + 1
                   : server->record->starving.waited;

        if (waited >= patience && ngx_http_upstream_reuse_may_be_lost(rp)) {
            *next = ngx_min(*next, NGX_HTTP_REUSE_WARM_UNKNOWN);

        } else if (waited >= patience) {
            reuse_resume(warm, server, ngx_current_msec - rp->since);

        } else {
            *next = ngx_min(*next, patience - waited);
        }

        return;
    }

    server->ahead.own_trial = 0;

    if (!reuse_has_unused(server)) {
        return;
    }

    patience = reuse_patience(server);
    waited = ngx_current_msec - rp->since;

    alone = ngx_min(waited, ngx_current_msec - server->ahead.answered);

    if (alone >= patience
        || waited >= patience * NGX_HTTP_REUSE_WARM_BUSY)
    {
        if (ngx_http_upstream_reuse_may_be_lost(rp)) {
            *next = ngx_min(*next, NGX_HTTP_REUSE_WARM_UNKNOWN);
            return;
        }

        reuse_begin_trial(warm, server, waited);

    } else {
        *next = ngx_min(*next, patience - alone);
    }
}


static ngx_uint_t
reuse_has_unused(ngx_http_upstream_reuse_server_t *server)
{
    return server->ahead.nwarm || server->ahead.connecting
           || server->ahead.unused;
}


/*
 * Tells whether a request has waited while no unused connections to the server
 * were open, and for how many milliseconds of the time from since to now.
 * Other workers close theirs when they make a plan.
 */

static ngx_uint_t
reuse_waited_without(ngx_http_upstream_reuse_server_t *server,
    ngx_msec_t since, ngx_msec_t now, ngx_msec_t *waited)
{
    ngx_msec_t  begin;

    if (server->ahead.nwarm || server->ahead.connecting) {
        return 0;
    }

    begin = server->ahead.bare_since;

    if (ngx_http_reuse_warm_is_cold(server)) {

        if (ngx_http_reuse_warm_count_workers() > 1) {
            begin = server->record->starving.trial
                    + NGX_HTTP_REUSE_WARM_SELDOM;
        }

    } else if (server->ahead.unused) {
        return 0;
    }

    if ((ngx_msec_int_t) (begin - since) < 0) {
        begin = since;
    }

    *waited = ((ngx_msec_int_t) (now - begin) > 0) ? now - begin : 0;

    return 1;
}


static ngx_msec_t
reuse_patience(ngx_http_upstream_reuse_server_t *server)
{
    ngx_msec_t                           patience;
    ngx_http_upstream_reuse_starving_t  *starving;

    starving = &server->record->starving;

    patience = ngx_max(4 * starving->usual, starving->patience);
    patience = ngx_max(patience, NGX_HTTP_REUSE_WARM_PATIENCE);

    return ngx_min(patience, NGX_HTTP_REUSE_WARM_PATIENT);
}


/* How soon after the connections were closed an answer is due to that. */

static ngx_msec_t
reuse_prompt(ngx_http_upstream_reuse_server_t *server)
{
    ngx_http_upstream_reuse_starving_t  *starving;

    starving = &server->record->starving;

    return ngx_max(ngx_min(2 * starving->usual, starving->waited / 2),
                   NGX_HTTP_REUSE_WARM_PROMPT);
}


ngx_uint_t
ngx_http_reuse_warm_is_cold(ngx_http_upstream_reuse_server_t *server)
{
    ngx_msec_t  until;

    until = server->record->starving.until;

    return until && (ngx_msec_int_t) (until - ngx_current_msec) > 0;
}


static void
reuse_begin_trial(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t waited)
{
    ngx_http_upstream_reuse_starving_t  *starving;

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                   "upstream reuse: no answer from a server of \"%V\" "
                   "for %M ms, idle connections are closed",
                   &warm->conf->name, waited);

    starving = &server->record->starving;

    starving->waited = waited;
    starving->until = ngx_current_msec + NGX_HTTP_REUSE_WARM_TRIAL;
    starving->trial = ngx_current_msec;

    server->ahead.own_trial = 1;
    server->ahead.timed_out = 0;

    ngx_http_reuse_warm_schedule(warm, 1);
}


/* The unused connections were to blame. */

static void
reuse_stop(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server)
{
    size_t                               len;
    u_char                               text[NGX_SOCKADDR_STRLEN];
    ngx_msec_t                           stop;
    ngx_str_t                            upstream;
    ngx_http_upstream_reuse_starving_t  *starving;

    starving = &server->record->starving;

    stop = NGX_HTTP_REUSE_WARM_STOP
           << ngx_min(starving->stops, NGX_HTTP_REUSE_WARM_STOPS);

    starving->stops++;
    starving->until = ngx_current_msec + stop;

    server->ahead.own_trial = 0;

    ngx_http_upstream_reuse_name_record(server->record, &upstream, text,
                                        &len);

    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                  "upstream \"%V\" is not kept warm for %M seconds: server "
                  "%*s left a request unanswered for %M ms, until idle "
                  "connections to it were closed; remove \"reuse_warm\" if "
                  "the server has one process or thread for each connection",
                  &upstream, stop / 1000, len, text, starving->waited);
}


/* They were not: a request has waited for so long without them. */

static void
reuse_resume(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t waited)
{
    ngx_http_upstream_reuse_starving_t  *starving;

    starving = &server->record->starving;

    starving->until = 0;
    starving->patience = ngx_max(starving->patience, 2 * waited);

    if (server->ahead.own_trial) {
        server->ahead.own_trial = 0;

    } else {
        starving->stops -= (starving->stops > 0);

        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "upstream \"%V\" is kept warm again: requests are "
                      "unanswered for %M ms without that, too",
                      &warm->conf->name, waited);
    }

    ngx_http_reuse_warm_schedule(warm, 1);
}


static void
reuse_close_idle(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_queue_t                     *q;
    ngx_http_upstream_reuse_conn_t  *conn;

    ngx_http_reuse_warm_abort_preconnects(server);

    q = ngx_queue_head(&warm->idle);

    while (q != ngx_queue_sentinel(&warm->idle)) {

        conn = ngx_queue_data(q, ngx_http_upstream_reuse_conn_t, queue);
        q = ngx_queue_next(q);

        if (conn->server != server) {
            continue;
        }

        conn->on_timeout = NGX_HTTP_UPSTREAM_REUSE_CLOSE_STARVING;

        ngx_http_upstream_reuse_pool_remove(conn->connection);
    }

    ngx_http_upstream_reuse_close_parked(warm->conf, server,
                                     NGX_HTTP_UPSTREAM_REUSE_CLOSE_STARVING);

    server->ahead.bare_since = ngx_current_msec;
}
