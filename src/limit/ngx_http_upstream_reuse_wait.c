
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A request that finds no connection, where "reuse_limit" lets no more be
 * opened, waits for its turn.  For core it has one that is being connected: a
 * socket that leads nowhere.  When its turn has come, that connection fails,
 * and core has it choose a server as in the beginning: nothing was sent.
 */


#include "ngx_http_upstream_reuse_limit.h"


/* request: one that has waited for a connection at least once */

struct ngx_http_upstream_reuse_wait_s {
    ngx_http_upstream_reuse_queued_t     queued;
    ngx_http_upstream_reuse_peer_t      *peer;

    /* what core takes for its connection, NULL: none; its own handler */

    ngx_connection_t                    *connection;
    ngx_event_handler_pt                 handler;
    ngx_event_t                          event;  /* it can be prepared */
    ngx_msec_t                           paused;  /* it waits since then */

    ngx_http_upstream_conf_t             conf;   /* stands in for that one */
    ngx_http_upstream_conf_t            *saved_conf;
    ngx_uint_t                           tries;

    ngx_http_upstream_reuse_refused_e    refused;
    unsigned                             turn:1;  /* has come */
};


static ngx_int_t reuse_await_turn(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc);
static ngx_int_t reuse_take_turn(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc, ngx_int_t rc);
static void reuse_give_back(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc);

static ngx_int_t reuse_wait(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc);
static ngx_http_upstream_reuse_wait_t *reuse_create_wait(
    ngx_http_upstream_reuse_peer_t *rp);
static void reuse_leave(ngx_http_upstream_reuse_wait_t *w);
static ngx_int_t reuse_pause(ngx_http_upstream_reuse_wait_t *w,
    ngx_peer_connection_t *pc);
static ngx_connection_t *reuse_connect_nowhere(ngx_log_t *log);
static void reuse_cleanup_pause(void *data);
static void reuse_cleanup_wait(void *data);
static void reuse_paused_handler(ngx_event_t *ev);
static void reuse_prepare(ngx_http_upstream_reuse_wait_t *w);
static void reuse_timeout_handler(ngx_event_t *ev);
static void reuse_shutdown_handler(ngx_event_t *ev);
static void reuse_turn(ngx_http_upstream_reuse_queued_t *queued);
static void reuse_go_on(ngx_http_upstream_reuse_wait_t *w);
static void reuse_forget_attempt(ngx_http_request_t *r);

static ngx_uint_t reuse_has_stale(ngx_http_upstream_reuse_wait_t *w);
static void reuse_refuse(ngx_http_upstream_reuse_wait_t *w);


ngx_int_t
ngx_http_upstream_reuse_choose_limited(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc, ngx_http_upstream_reuse_choose_pt choose,
    ngx_http_upstream_reuse_choose_pt begin)
{
    ngx_int_t  rc;

    rc = reuse_await_turn(rp, pc);

    if (rc == NGX_DONE) {
        rc = begin(rp, pc);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    do {
        rc = reuse_take_turn(rp, pc, choose(rp, pc));
    } while (rc == NGX_DECLINED);

    return rc;
}


/* NGX_DONE: its turn has come, after it had to wait. */

static ngx_int_t
reuse_await_turn(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc)
{
    ngx_http_upstream_reuse_wait_t  *w;

    rp->nfull = 0;

    w = rp->wait;

    if (w && w->refused) {

        /* core has something old in its cache */

        pc->name = &rp->conf->name;

        return NGX_BUSY;
    }

    if (w && w->turn) {
        return NGX_DONE;
    }

    if (rp->conf->waiters->queue->waiting == 0) {
        return NGX_OK;
    }

    return reuse_wait(rp, pc);
}


/* NGX_DECLINED: the server is full, and another one is to be chosen. */

static ngx_int_t
reuse_take_turn(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc, ngx_int_t rc)
{
    if (rc == NGX_OK) {

        if (!ngx_http_upstream_reuse_open_slot(rp->server, 0)
            && !ngx_http_upstream_reuse_evict(rp))
        {
            reuse_give_back(rp, pc);

            return (++rp->nfull < rp->nservers) ? NGX_DECLINED
                                                : reuse_wait(rp, pc);
        }

        rp->account.opened = 1;

    } else if (rc == NGX_BUSY && rp->nfull) {
        return reuse_wait(rp, pc);
    }

    if (rp->wait) {
        reuse_leave(rp->wait);
    }

    return (rc == NGX_DECLINED) ? NGX_ERROR : rc;
}


/* As core does where it goes on to another server, but no try is lost. */

static void
reuse_give_back(ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc)
{
    ngx_uint_t  tries;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "upstream reuse: server %V has all connections that it may "
                   "have", pc->name);

    tries = pc->tries;

    (void) ngx_http_upstream_reuse_pool_put(rp, pc, 0);

    pc->tries = tries;
    pc->sockaddr = NULL;

    ngx_http_myproxy_set_peer_sid(pc, NULL);
}


static ngx_int_t
reuse_wait(ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc)
{
    ngx_http_upstream_reuse_wait_t  *w;

    w = rp->wait;

    if (w == NULL) {
        w = reuse_create_wait(rp);
        if (w == NULL) {
            return NGX_ERROR;
        }
    }

    w->turn = 0;

    pc->name = &rp->conf->name;
    pc->sockaddr = NULL;
    pc->connection = NULL;
    pc->cached = 0;

    if (!w->queued.waits
        && ngx_http_upstream_reuse_enter_queue(&w->queued, rp->conf, pc->log)
           != NGX_OK)
    {
        w->refused = NGX_HTTP_UPSTREAM_REUSE_REFUSED_FULL;

        if (reuse_has_stale(w)) {
            ngx_http_upstream_reuse_log_refused(w->peer, w->refused);
            return NGX_BUSY;
        }
    }

    if (reuse_pause(w, pc) != NGX_OK) {
        reuse_leave(w);
        return NGX_ERROR;
    }

    return NGX_AGAIN;
}


static ngx_http_upstream_reuse_wait_t *
reuse_create_wait(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_pool_cleanup_t              *cln;
    ngx_http_upstream_reuse_wait_t  *w;

    cln = ngx_pool_cleanup_add(rp->request->pool,
                               sizeof(ngx_http_upstream_reuse_wait_t));
    if (cln == NULL) {
        return NULL;
    }

    w = cln->data;
    ngx_memzero(w, sizeof(ngx_http_upstream_reuse_wait_t));

    cln->handler = reuse_cleanup_wait;

    w->peer = rp;

    w->queued.nservers = rp->nservers;
    w->queued.turn = reuse_turn;

    w->event.handler = reuse_paused_handler;
    w->event.data = w;
    w->event.log = ngx_cycle->log;

    rp->wait = w;

    return w;
}


static void
reuse_leave(ngx_http_upstream_reuse_wait_t *w)
{
    w->turn = 0;

    ngx_http_upstream_reuse_leave_queue(&w->queued);
}


/*
 * Gives core a connection that is being made.  Core waits for it as long as
 * the settings say, which are not its own meanwhile, and goes on to another
 * attempt when it fails.
 */

static ngx_int_t
reuse_pause(ngx_http_upstream_reuse_wait_t *w, ngx_peer_connection_t *pc)
{
    ngx_msec_t            passed, timeout;
    ngx_connection_t     *c;
    ngx_pool_cleanup_t   *cln;
    ngx_http_upstream_t  *u;

    c = reuse_connect_nowhere(pc->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(c->pool, 0);
    if (cln == NULL) {
        ngx_http_upstream_reuse_close(c);
        return NGX_ERROR;
    }

    cln->handler = reuse_cleanup_pause;
    cln->data = w;

    u = w->peer->upstream;
    timeout = w->peer->conf->queue_timeout;
    passed = w->queued.waits ? ngx_current_msec - w->queued.since : 0;

    w->conf = *u->conf;
    w->conf.next_upstream |= NGX_HTTP_UPSTREAM_FT_ERROR
                             |NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT;
    w->conf.next_upstream_timeout = 0;
    w->conf.connect_timeout = (passed < timeout) ? timeout - passed : 1;

    w->saved_conf = u->conf;
    u->conf = &w->conf;

    w->tries = pc->tries;
    pc->tries = ngx_max(pc->tries, 1);

    w->connection = c;
    w->handler = NULL;
    w->paused = ngx_current_msec;

    pc->connection = c;

    ngx_post_event(&w->event, &ngx_posted_events);

    return NGX_OK;
}


/*
 * A socket whose other end was closed with something unread has the error that
 * a connection which was reset has, and core does not log it.
 */

static ngx_connection_t *
reuse_connect_nowhere(ngx_log_t *log)
{
    ngx_socket_t       pair[2];
    ngx_connection_t  *c;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == -1) {
        ngx_log_error(NGX_LOG_ALERT, log, ngx_socket_errno,
                      "socketpair() for a request that is to wait failed");
        return NULL;
    }

    if (send(pair[0], "", 1, 0) != 1) {
        ngx_log_error(NGX_LOG_ALERT, log, ngx_socket_errno,
                      "send() for a request that is to wait failed");
    }

    (void) ngx_close_socket(pair[1]);

    c = ngx_get_connection(pair[0], log);

    if (c == NULL) {
        (void) ngx_close_socket(pair[0]);
        return NULL;
    }

    c->pool = ngx_create_pool(256, log);

    if (c->pool == NULL) {
        ngx_close_connection(c);
        return NULL;
    }

    c->type = SOCK_STREAM;
    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    c->start_time = ngx_current_msec;

    c->recv = ngx_recv;
    c->send = ngx_send;
    c->recv_chain = ngx_recv_chain;
    c->send_chain = ngx_send_chain;

    c->log_error = NGX_ERROR_IGNORE_ECONNRESET;

    c->read->log = log;
    c->write->log = log;

#if (NGX_HAVE_KQUEUE)

    /* there core looks at what the event says */

    if (ngx_event_flags & NGX_USE_KQUEUE_EVENT) {
        c->write->pending_eof = 1;
        c->write->kq_errno = NGX_ECONNRESET;
    }

#endif

    return c;
}


/* Core closes it: the wait is over, or the request is. */

static void
reuse_cleanup_pause(void *data)
{
    ngx_http_upstream_reuse_wait_t  *w = data;

    ngx_http_upstream_t  *u;

    u = w->peer->upstream;

    w->connection = NULL;

    u->conf = w->saved_conf;
    u->peer.tries = w->tries;

    if (w->event.posted) {
        ngx_delete_posted_event(&w->event);
    }

    if (!w->turn) {
        reuse_leave(w);
    }
}


/* If core has given it up in spite of its turn. */

static void
reuse_cleanup_wait(void *data)
{
    reuse_leave(data);
}


/* Core has done with the connection what it does. */

static void
reuse_paused_handler(ngx_event_t *ev)
{
    ngx_http_upstream_reuse_wait_t  *w = ev->data;

    reuse_prepare(w);

    if (w->refused) {
        reuse_refuse(w);
    }
}


static void
reuse_prepare(ngx_http_upstream_reuse_wait_t *w)
{
    ngx_connection_t  *c;

    if (w->handler) {
        return;
    }

    c = w->connection;

    w->handler = c->write->handler;

    c->data = w;
    c->write->handler = reuse_timeout_handler;
    c->read->handler = reuse_shutdown_handler;
}


static void
reuse_timeout_handler(ngx_event_t *ev)
{
    ngx_connection_t                *c;
    ngx_http_upstream_reuse_wait_t  *w;

    if (!ev->timedout) {
        return;
    }

    c = ev->data;
    w = c->data;

    w->refused = NGX_HTTP_UPSTREAM_REUSE_REFUSED_TIMEOUT;

    (void) ngx_atomic_fetch_add(&w->peer->conf->waiters->queue->timeout, 1);

    reuse_refuse(w);
}


/* Core ends what there is when "worker_shutdown_timeout" is over. */

static void
reuse_shutdown_handler(ngx_event_t *ev)
{
    ngx_connection_t                *c;
    ngx_http_upstream_reuse_wait_t  *w;

    c = ev->data;
    w = c->data;

    if (c->close) {
        w->refused = NGX_HTTP_UPSTREAM_REUSE_REFUSED_SHUTDOWN;
        reuse_refuse(w);
    }
}


/* The first of all gets what is free. */

static void
reuse_turn(ngx_http_upstream_reuse_queued_t *queued)
{
    ngx_http_upstream_reuse_wait_t  *w;

    w = (ngx_http_upstream_reuse_wait_t *) queued;

    if (w->connection == NULL) {

        /* there was no memory to begin its next attempt */

        reuse_leave(w);
        return;
    }

    reuse_go_on(w);
}


/*
 * The connection fails, and core asks for another one.  What the log would
 * have of it is forgotten.  The request may be no more when this returns.
 */

static void
reuse_go_on(ngx_http_upstream_reuse_wait_t *w)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    c = w->connection;
    r = w->peer->request;

    reuse_prepare(w);

    if (r->connection->error) {

        /* the client is gone, and core will not ask */

        reuse_leave(w);

    } else {
        w->turn = 1;
        reuse_forget_attempt(r);
    }

    w->peer->upstream->peer.start_time += ngx_current_msec - w->paused;

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    c->write->timedout = 0;
    c->data = r;

    w->handler(c->write);
}


/* Core goes on using what was the last element until it has another one. */

static void
reuse_forget_attempt(ngx_http_request_t *r)
{
    ngx_array_t                *states;
    ngx_http_upstream_state_t  *state;

    states = r->upstream_states;

    if (states == NULL || states->nelts == 0) {
        return;
    }

    state = states->elts;

    if (&state[states->nelts - 1] == r->upstream->state) {
        states->nelts--;
    }
}


/* Core then serves it for a request that finds no server. */

static ngx_uint_t
reuse_has_stale(ngx_http_upstream_reuse_wait_t *w)
{
#if (NGX_HTTP_CACHE)

    ngx_http_request_t        *r;
    ngx_http_upstream_t       *u;
    ngx_http_upstream_conf_t  *conf;

    r = w->peer->request;
    u = w->peer->upstream;
    conf = w->connection ? w->saved_conf : u->conf;

    return u->cache_status == NGX_HTTP_CACHE_EXPIRED
           && r->cache
           && ((conf->cache_use_stale & NGX_HTTP_UPSTREAM_FT_NOLIVE)
               || r->cache->stale_error);

#else

    return 0;

#endif
}


/* From an event of ours, with core being nowhere in the request. */

static void
reuse_refuse(ngx_http_upstream_reuse_wait_t *w)
{
    ngx_connection_t     *c;
    ngx_http_request_t   *r;
    ngx_http_upstream_t  *u;

    r = w->peer->request;
    u = w->peer->upstream;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    ngx_http_upstream_reuse_log_refused(w->peer, w->refused);
    reuse_leave(w);

    if (reuse_has_stale(w) || c->error) {
        reuse_go_on(w);
        return;
    }

    /* core ends what it has with the upstream, and the request stays */

    r->main->count++;

    (*u->cleanup)(r);

    reuse_forget_attempt(r);

    ngx_http_upstream_reuse_add_retry_after(r);

    ngx_http_finalize_request(r, NGX_HTTP_SERVICE_UNAVAILABLE);

    ngx_http_run_posted_requests(c);
}


ngx_msec_int_t
ngx_http_upstream_reuse_queue_time(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_http_upstream_reuse_wait_t  *w;

    w = rp->wait;

    if (w == NULL) {
        return NGX_ERROR;
    }

    return w->queued.waited
           + (w->queued.waits ? ngx_current_msec - w->queued.since : 0);
}


ngx_http_upstream_reuse_refused_e
ngx_http_upstream_reuse_why_refused(ngx_http_upstream_reuse_peer_t *rp)
{
    return rp->wait ? rp->wait->refused : NGX_HTTP_UPSTREAM_REUSE_REFUSED_NOT;
}
