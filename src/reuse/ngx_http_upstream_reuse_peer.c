
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_upstream_reuse_layer.h"


static void reuse_stand_before(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc);
static void reuse_reset(ngx_http_upstream_reuse_peer_t *rp);
static void reuse_begin(ngx_http_upstream_reuse_peer_t *rp);
static ngx_inline ngx_int_t reuse_choose(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc);
static ngx_int_t reuse_begin_choice(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc);
static ngx_int_t reuse_take_over(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc);
static ngx_int_t reuse_take(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc);
static ngx_http_upstream_reuse_new_e reuse_unfit(
    ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c,
    ngx_http_upstream_reuse_conn_t *conn);

static void reuse_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static void reuse_end_unwanted(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_conn_t *conn, ngx_uint_t state);
static ngx_http_upstream_reuse_conn_t *reuse_prepare(
    ngx_peer_connection_t *pc, ngx_http_upstream_reuse_peer_t *rp,
    ngx_uint_t state);
static void reuse_end(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_close_e reason);
#if (NGX_HTTP_MYPROXY_TWO_STEPS)
static void reuse_begin_anew(ngx_http_upstream_reuse_peer_t *rp);
#endif
static void reuse_notify(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t type);


ngx_int_t
ngx_http_upstream_reuse_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_int_t                            rc;
    ngx_uint_t                           tells, unasked;
    ngx_http_upstream_reuse_peer_t      *rp;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = ngx_http_conf_upstream_srv_conf(us, ngx_http_upstream_reuse_module);
    tells = (ngx_http_get_module_ctx(r, ngx_http_upstream_reuse_module)
             != NULL);

    /*
     * Our pool is there only because a handler has asked for it, and this is
     * another one, for which all is to be as nginx has it.
     */

    unasked = (rcf->added && rcf->reuse == NGX_CONF_UNSET && !tells);

    rp = ngx_pcalloc(r->pool, sizeof(ngx_http_upstream_reuse_peer_t));
    if (rp == NULL) {
        return NGX_ERROR;
    }

    rp->request = r;
    rp->upstream = r->upstream;
    rp->conf = rcf;
    rp->location = r->upstream->conf;

#if (NGX_HTTP_MYPROXY_TWO_STEPS)

    if (ngx_http_upstream_reuse_mark_peer(rp) != NGX_OK) {
        return NGX_ERROR;
    }

#endif

    if (unasked && !rcf->native) {

        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                       "upstream reuse: not asked for");

        rp->bypass = 1;

        rc = rcf->init_balancer(r, us);

    } else {
        rc = ngx_http_upstream_reuse_pool_init(rp, us);
    }

    if (rc != NGX_OK) {
        return rc;
    }

#if (NGX_HTTP_MYPROXY_TWO_STEPS)

    if (r->upstream->peer.type == SOCK_DGRAM) {

        /* QUIC has connections of another kind */

        return NGX_OK;
    }

#endif

    rp->apart = (unasked && rcf->native);
    rp->hint.expected = tells;

    rp->identity = ngx_http_upstream_reuse_find_identity(rp);
    if (rp->identity == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_upstream_reuse_pool_has_keys(rp)) {
        rp->key.hash = (uint32_t) rp->identity->hash;
    }

    rp->nservers = r->upstream->peer.tries;

    reuse_stand_before(rp, &r->upstream->peer);

    return NGX_OK;
}


static void
reuse_stand_before(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc)
{
    ngx_http_upstream_reuse_save_hooks(&rp->next, pc);

#if (NGX_HTTP_MYPROXY_TWO_STEPS)
    rp->begin_anew = reuse_begin_anew;

    ngx_http_upstream_reuse_stand_between(rp, pc);
#else
    pc->data = rp;
#endif

    pc->get = ngx_http_upstream_reuse_get_peer;
    pc->free = reuse_free;

    if (pc->notify) {
        pc->notify = reuse_notify;
    }

#if (NGX_HTTP_SSL)

    if (rp->upstream->ssl) {
        pc->set_session = ngx_http_upstream_reuse_set_session;
        pc->save_session = ngx_http_upstream_reuse_save_session;
    }

#endif
}


ngx_int_t
ngx_http_upstream_reuse_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_upstream_reuse_peer_t  *rp =
                                     ngx_http_upstream_reuse_peer_of(pc, data);

    ngx_int_t  rc;

#if (NGX_HTTP_MYPROXY_TWO_STEPS)
    rp->chosen = 1;
#endif

    reuse_reset(rp);

    if (rp->again) {
        rp->account.why_new = rp->watch.silent
                              ? NGX_HTTP_UPSTREAM_REUSE_NEW_SILENT
                              : NGX_HTTP_UPSTREAM_REUSE_NEW_RETRY;

        ngx_http_upstream_reuse_get_again(pc, rp);
        reuse_begin(rp);

        return NGX_OK;
    }

    rc = ngx_http_upstream_reuse_is_limited_peer(rp)
         ? ngx_http_upstream_reuse_choose_limited(rp, pc, reuse_choose,
                                                  reuse_begin_choice)
         : reuse_choose(rp, pc);

    if (rc != NGX_OK && rc != NGX_DONE) {
        rp->account.requests = 0;

        return rc;
    }

    reuse_begin(rp);

    return rc;
}


/* The balancer chooses a server, and the pool may have a connection to it. */

static ngx_inline ngx_int_t
reuse_choose(ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc)
{
    ngx_int_t  rc;

    rp->account.why_new = NGX_HTTP_UPSTREAM_REUSE_NEW_NONE;

    rc = ngx_http_upstream_reuse_pool_take(rp, pc);

    if (rc == NGX_DONE && pc->connection) {
        rc = reuse_take(rp, pc);

        if (rc == NGX_DONE && rp->server->slow) {
            ngx_http_upstream_reuse_note_pace(rp->server, rp->idle);
        }

    } else if (rc == NGX_OK) {
        rp->server = ngx_http_upstream_reuse_find_server(rp->conf, pc);
    }

    return (rc == NGX_OK) ? reuse_take_over(rp, pc) : rc;
}


/* Balancers do not choose a server twice for a request. */

static ngx_int_t
reuse_begin_choice(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc)
{
    ngx_int_t   rc;
    ngx_uint_t  tries;

    tries = pc->tries;

    /* round robin would take what is there for its own */

    pc->data = NULL;

    rc = ngx_http_upstream_reuse_pool_init(rp, rp->upstream->upstream);

    pc->tries = tries;

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    reuse_stand_before(rp, pc);

    return NGX_OK;
}


/* Nothing is known of the attempt yet. */

static void
reuse_reset(ngx_http_upstream_reuse_peer_t *rp)
{
    rp->conn = NULL;
    rp->account.warm = 0;
    rp->account.shared = 0;
    rp->watch.sent = 0;
    rp->idle = 0;
    rp->account.rtt = 0;
    rp->account.connected = 0;
    rp->watch.peeked = 0;
    rp->hint.told = 0;
    rp->account.requests = 1;
    rp->account.opened = 0;
    rp->account.start = ngx_current_msec;
    rp->account.explained = NGX_HTTP_UPSTREAM_REUSE_CLOSE_PENDING;
    rp->account.reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_PENDING;
}


/* The request has been given a connection, or one to open. */

static void
reuse_begin(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_http_upstream_reuse_count_request(rp);

    if (rp->conf->listener && !rp->bypass && !rp->uses) {
        rp->uses = 1;
        rp->conf->listener->begin_use(rp);
    }
}


/* The pool has nothing for the request: another worker may have had it. */

static ngx_int_t
reuse_take_over(ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc)
{
    /* where one without a known limit is of no use, no other one is better */

    while (rp->account.why_new != NGX_HTTP_UPSTREAM_REUSE_NEW_UNBUFFERED
           && ngx_http_upstream_reuse_take_over(rp, pc) == NGX_DONE)
    {
        if (reuse_take(rp, pc) == NGX_DONE) {
            rp->account.shared = 1;
            return NGX_DONE;
        }
    }

    if (rp->account.why_new == NGX_HTTP_UPSTREAM_REUSE_NEW_NONE) {
        rp->account.why_new = ngx_http_upstream_reuse_why_new(rp);
    }

    return NGX_OK;
}


/* What the pool has is looked at, and taken or closed. */

static ngx_int_t
reuse_take(ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc)
{
    ngx_connection_t                *c;
    ngx_http_upstream_reuse_conn_t  *conn;
    ngx_http_upstream_reuse_close_e  reason;

    c = pc->connection;

    conn = ngx_http_upstream_reuse_find_conn(c);

    if (conn) {
        ngx_http_upstream_reuse_set_state(conn,
                                          NGX_HTTP_UPSTREAM_REUSE_CONN_USED);
        rp->idle = ngx_current_msec - conn->since;
        rp->server = conn->server;

        if (conn->queued) {
            rp->conf->listener->end_idle(conn);
        }

    } else {
        rp->server = ngx_http_upstream_reuse_find_server(rp->conf, pc);
    }

    rp->account.why_new = reuse_unfit(rp, c, conn);

    if (rp->account.why_new == NGX_HTTP_UPSTREAM_REUSE_NEW_NONE) {
        rp->conn = conn;
        rp->account.requests = c->requests + 1;
        rp->account.start = c->start_time;
        rp->account.warm = conn->warm;

        conn->warm = 0;

        ngx_http_upstream_reuse_watch(rp, c);

        return NGX_DONE;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "upstream reuse: connection %p is not used: %V", c,
                   &ngx_http_upstream_reuse_new_reasons[rp->account.why_new]
                       .name);

    if (conn) {
        ngx_http_upstream_reuse_uncount(conn->server, IDLE);
    }

    if (rp->account.why_new == NGX_HTTP_UPSTREAM_REUSE_NEW_EXPIRED
        && rp->conf->waiters == NULL
        && ngx_http_upstream_reuse_put_to_test(conn, rp->idle))
    {
        ngx_http_upstream_reuse_set_state(conn,
                                         NGX_HTTP_UPSTREAM_REUSE_CONN_TESTED);

    } else {

        if (conn) {
            reason = ngx_http_upstream_reuse_why_unfit(rp);

            ngx_http_upstream_reuse_end_conn(conn, reason);
        }

        ngx_http_upstream_reuse_close(c);
    }

    /* the peer stays, and is connected to afresh */

    rp->idle = 0;

    pc->connection = NULL;
    pc->cached = 0;

    return NGX_OK;
}


/* Returns why a connection must not carry this request. */

static ngx_http_upstream_reuse_new_e
reuse_unfit(ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c,
    ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = rp->request;

    if (conn == NULL
        || !ngx_http_upstream_reuse_same_identity(conn->identity,
                                                  rp->identity))
    {
        return NGX_HTTP_UPSTREAM_REUSE_NEW_IDENTITY;
    }

    if (conn->server->record->silent
        && ngx_http_upstream_reuse_is_suspect(conn, rp->idle))
    {
        return NGX_HTTP_UPSTREAM_REUSE_NEW_SILENT;
    }

    if (!ngx_http_upstream_reuse_is_fresh(conn, rp->idle)
        && !ngx_http_upstream_reuse_may_try(rp, conn))
    {
        (void) ngx_http_upstream_reuse_note_end(conn, rp->idle);

        return NGX_HTTP_UPSTREAM_REUSE_NEW_EXPIRED;
    }

    if (ngx_http_upstream_reuse_body_is_gone(rp)
        && !ngx_http_upstream_reuse_knows_end(conn))
    {
        return NGX_HTTP_UPSTREAM_REUSE_NEW_UNBUFFERED;
    }

#if (NGX_HTTP_SSL)

    /* what was read from the socket does not show there any more */

    if (conn->warm && c->ssl) {

        rc = ngx_http_upstream_reuse_read_tickets(conn);

        if (rc != NGX_AGAIN) {
            rp->account.excess = (rc == NGX_DECLINED);
            return NGX_HTTP_UPSTREAM_REUSE_NEW_STALE;
        }

        /* an event that waits is that of tickets: no response was there */

        rp->watch.peeked = 1;
    }

#endif

    /*
     * For other methods it will show soon whether something had arrived, and
     * they may go again then.
     */

    if (!(r->method & NGX_HTTP_UPSTREAM_REUSE_NON_IDEMPOTENT)
        && !ngx_http_upstream_reuse_body_is_gone(rp)
        && !c->read->ready)
    {
        return NGX_HTTP_UPSTREAM_REUSE_NEW_NONE;
    }

    /* the event may wait behind the client's that we are in */

    if (!ngx_http_upstream_reuse_is_quiet(c->fd)) {
        rc = ngx_http_upstream_reuse_note_end(conn, rp->idle);

        if (rc == NGX_ABORT) {
            return NGX_HTTP_UPSTREAM_REUSE_NEW_SILENT;
        }

        rp->account.excess = (rc == NGX_DECLINED);

        return NGX_HTTP_UPSTREAM_REUSE_NEW_STALE;
    }

    c->read->ready = 0;
    rp->watch.peeked = 1;

    return NGX_HTTP_UPSTREAM_REUSE_NEW_NONE;
}


static void
reuse_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_http_upstream_reuse_peer_t  *rp =
                                     ngx_http_upstream_reuse_peer_of(pc, data);

    ngx_int_t                        put;
    ngx_connection_t                *c;
    ngx_http_upstream_reuse_conn_t  *conn;
    ngx_http_upstream_reuse_close_e  reason;

    c = pc->connection;

    rp->account.end = ngx_current_msec;

    if (rp->watch.waiting
        && ngx_http_upstream_reuse_send_again(pc, rp, &state))
    {
        reuse_end(rp, rp->watch.silent
                      ? NGX_HTTP_UPSTREAM_REUSE_CLOSE_SILENT
                      : NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNDELIVERED);
        return;
    }

    if (rp->uses) {
        rp->uses = 0;
        rp->conf->listener->end_use(rp);
    }

    conn = reuse_prepare(pc, rp, state);

    reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONNECT_FAILED;

    if (conn) {

        /* it may be closed at once, as an idle one */

        ngx_http_upstream_reuse_count(rp->server, IDLE);
    }

    if (c && (conn == NULL || rp->account.why_new)) {

        reason = ngx_http_upstream_reuse_why_closed(rp, c, state);

        if (rp->account.holds && rp->account.why_new
            && reason != NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONNECT_FAILED)
        {
            ngx_http_upstream_reuse_count_peer_times(rp, c);
        }
    }

    put = ngx_http_upstream_reuse_pool_put(rp, pc, state);

    if (put == NGX_DECLINED) {

        if (conn) {
            reuse_end_unwanted(rp, conn, state);

        } else {
            reuse_end(rp, reason);
        }

        return;
    }

    rp->account.holds = 0;

    if (put == NGX_DONE) {
        rp->account.reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_CLOSED;
        return;
    }

    rp->account.reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT;

    if (conn) {
        ngx_http_upstream_reuse_set_expiry(conn);

        if (rp->conf->listener) {
            rp->conf->listener->begin_idle(conn);
        }

        if (rp->conf->waiters) {
            ngx_http_upstream_reuse_spare(conn);
        }

        ngx_http_upstream_reuse_offer(conn);
    }
}


/* The pool has not taken it: another worker may, if this one is to end. */

static void
reuse_end_unwanted(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_conn_t *conn, ngx_uint_t state)
{
    ngx_http_upstream_reuse_close_e  reason;

    reason = ngx_http_upstream_reuse_why_closed(rp, conn->connection, state);

    if (reason == NGX_HTTP_UPSTREAM_REUSE_CLOSE_SHUTDOWN
        && ngx_exiting
        && ngx_http_upstream_reuse_park_conn(conn) == NGX_OK)
    {
        /* core closes what is left of it in this worker */

        ngx_http_upstream_reuse_set_state(conn,
                                         NGX_HTTP_UPSTREAM_REUSE_CONN_PARKED);
        rp->account.holds = 0;
        rp->account.reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT;

        ngx_http_upstream_reuse_spare(conn);

        return;
    }

    ngx_http_upstream_reuse_uncount(rp->server, IDLE);
    ngx_http_upstream_reuse_set_state(conn,
                                      NGX_HTTP_UPSTREAM_REUSE_CONN_USED);

    reuse_end(rp, reason);
}


/* Prepares a connection for being kept; NULL if it will not be. */

static ngx_http_upstream_reuse_conn_t *
reuse_prepare(ngx_peer_connection_t *pc, ngx_http_upstream_reuse_peer_t *rp,
    ngx_uint_t state)
{
    ngx_http_upstream_reuse_conn_t  *conn;

    if (rp->conf->reuse == 0) {

        /* whatever would keep the connection, by directive or by default */

        rp->upstream->keepalive = 0;
    }

#if (NGX_HTTP_SSL)

    if ((state & NGX_PEER_FAILED)
        && pc->connection
        && rp->conn == NULL
        && !rp->upstream->request_sent)
    {
        ngx_http_upstream_reuse_forget_session(pc->connection, rp->conf);
    }

#endif

    if (!rp->upstream->keepalive
        || pc->connection == NULL
        || (state & NGX_PEER_FAILED))
    {
        return NULL;
    }

    conn = ngx_http_upstream_reuse_keep(rp, pc);

    if (conn == NULL) {
        rp->upstream->keepalive = 0;
    }

    return conn;
}


/* The connection is about to be closed. */

static void
reuse_end(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_close_e reason)
{
    rp->account.reason = reason;

    if (rp->account.holds) {
        rp->account.holds = 0;
        ngx_http_upstream_reuse_count_closed(rp->server, reason);
    }
}


#if (NGX_HTTP_MYPROXY_TWO_STEPS)

static void
reuse_begin_anew(ngx_http_upstream_reuse_peer_t *rp)
{
    if (rp->watch.waiting) {
        ngx_http_upstream_reuse_end_wait(rp);
        rp->watch.waiting = 0;
    }

    rp->again = 0;
    reuse_end(rp, NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNREAD);
    reuse_reset(rp);

    rp->account.why_new = NGX_HTTP_UPSTREAM_REUSE_NEW_RETRY;

    reuse_begin(rp);
}

#endif


static void
reuse_notify(ngx_peer_connection_t *pc, void *data, ngx_uint_t type)
{
    ngx_http_upstream_reuse_peer_t  *rp =
                                     ngx_http_upstream_reuse_peer_of(pc, data);

    rp->next.notify(pc, rp->next.data, type);
}
