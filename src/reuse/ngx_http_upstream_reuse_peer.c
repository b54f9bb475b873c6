
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_upstream_reuse.h"


static ngx_int_t reuse_get(ngx_peer_connection_t *pc, void *data);
static void reuse_begin(ngx_http_upstream_reuse_peer_t *rp);
static ngx_int_t reuse_take(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc);
static ngx_http_upstream_reuse_new_e reuse_why_new(
    ngx_http_upstream_reuse_peer_t *rp);
static ngx_http_upstream_reuse_fate_e reuse_unfit_fate(
    ngx_http_upstream_reuse_peer_t *rp);
static ngx_http_upstream_reuse_new_e reuse_unfit(
    ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c,
    ngx_http_upstream_reuse_kept_t *kept);
static ngx_uint_t reuse_is_silent(ngx_connection_t *c);

static void reuse_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static ngx_http_upstream_reuse_kept_t *reuse_prepare(
    ngx_peer_connection_t *pc, ngx_http_upstream_reuse_peer_t *rp,
    ngx_uint_t state);
static void reuse_end(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_fate_e fate);
static ngx_http_upstream_reuse_fate_e reuse_why_not_kept(
    ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c,
    ngx_uint_t state);
static void reuse_notify(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t type);


ngx_int_t
ngx_http_upstream_reuse_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_int_t                            rc;
    ngx_uint_t                           tells;
    ngx_peer_connection_t               *pc;
    ngx_http_upstream_reuse_peer_t      *rp;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = ngx_http_conf_upstream_srv_conf(us, ngx_http_upstream_reuse_module);
    tells = (ngx_http_get_module_ctx(r, ngx_http_upstream_reuse_module)
             != NULL);

    rp = ngx_pcalloc(r->pool, sizeof(ngx_http_upstream_reuse_peer_t));
    if (rp == NULL) {
        return NGX_ERROR;
    }

    rp->request = r;
    rp->upstream = r->upstream;
    rp->uscf = us;
    rp->conf = rcf;

    if (rcf->warmth) {
        rp->opening = ngx_http_upstream_reuse_find_opening(r);
    }

    if (rp->opening) {
        rc = ngx_http_upstream_reuse_init_opening(r, us, rp);

    } else if (rcf->added && rcf->reuse == NGX_CONF_UNSET && !tells) {

        /*
         * the upstream keeps connections only because a handler asked for
         * it, and this is another one: go around the keepalive module
         */

        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                       "upstream reuse: not asked for");

        rp->around = 1;

        rc = rcf->init_balancer(r, us);

    } else {
        rc = ngx_http_upstream_reuse_init_pool(r, us, rp);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (rp->opening == NULL) {
        rp->identity = ngx_http_upstream_reuse_find_identity(r);
        if (rp->identity == NULL) {
            return NGX_ERROR;
        }
    }

    if (rp->balancer_get) {
        rp->hash = ngx_http_upstream_reuse_hash_identity(rp->identity);
    }

    rp->tells = tells;

    pc = &r->upstream->peer;

    rp->data = pc->data;
    rp->get = pc->get;
    rp->free = pc->free;
    rp->notify = pc->notify;

    pc->data = rp;
    pc->get = reuse_get;
    pc->free = reuse_free;

    if (pc->notify) {
        pc->notify = reuse_notify;
    }

#if (NGX_HTTP_SSL)
    rp->set_session = pc->set_session;
    rp->save_session = pc->save_session;
    pc->set_session = ngx_http_upstream_reuse_set_session;
    pc->save_session = ngx_http_upstream_reuse_save_session;
#endif

    return NGX_OK;
}


static ngx_int_t
reuse_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_upstream_reuse_peer_t  *rp = data;

    ngx_int_t  rc;

    if (rp->opening) {
        return ngx_http_upstream_reuse_get_opening(pc, rp);
    }

    rp->kept = NULL;
    rp->warm = 0;
    rp->sent = 0;
    rp->age = 0;
    rp->rtt = 0;
    rp->connected = 0;
    rp->peeked = 0;
    rp->hinted = 0;
    rp->requests = 1;
    rp->start = ngx_current_msec;
    rp->explained = NGX_HTTP_UPSTREAM_REUSE_FATE_PENDING;
    rp->fate = NGX_HTTP_UPSTREAM_REUSE_FATE_PENDING;

    if (rp->again) {
        rp->why_new = NGX_HTTP_UPSTREAM_REUSE_NEW_RETRY;

        ngx_http_upstream_reuse_get_again(pc, rp);
        reuse_begin(rp);

        return NGX_OK;
    }

    rc = ngx_http_upstream_reuse_get_from_pool(pc, rp);

    if (rc == NGX_DONE && pc->connection) {
        rc = reuse_take(rp, pc);

    } else if (rc == NGX_OK) {
        rp->server = ngx_http_upstream_reuse_find_server(rp->conf, pc);
        rp->why_new = reuse_why_new(rp);

    } else {
        rp->why_new = NGX_HTTP_UPSTREAM_REUSE_NEW_NONE;
        rp->requests = 0;

        return rc;
    }

    reuse_begin(rp);

    return rc;
}


/* The request has been given a connection, or one to open. */

static void
reuse_begin(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_http_upstream_reuse_count_request(rp);

    if (rp->conf->warmth && !rp->around && !rp->uses) {
        ngx_http_upstream_reuse_begin_use(rp);
    }
}


/* What the pool has is looked at, and taken or closed. */

static ngx_int_t
reuse_take(ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc)
{
    ngx_connection_t                *c;
    ngx_http_upstream_reuse_kept_t  *kept;

    c = pc->connection;

    kept = ngx_http_upstream_reuse_find_kept(c);

    if (kept) {
        kept->idle = 0;
        rp->age = ngx_current_msec - kept->since;
        rp->server = kept->server;

        if (kept->queued) {
            ngx_http_upstream_reuse_end_idle(kept);
        }

    } else {
        rp->server = ngx_http_upstream_reuse_find_server(rp->conf, pc);
    }

    rp->why_new = reuse_unfit(rp, c, kept);

    if (rp->why_new == NGX_HTTP_UPSTREAM_REUSE_NEW_NONE) {
        rp->kept = kept;
        rp->requests = c->requests + 1;
        rp->start = c->start_time;
        rp->warm = kept->warm;

        kept->warm = 0;

        ngx_http_upstream_reuse_watch(rp, c);

        return NGX_DONE;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "upstream reuse: connection %p is not used: %d", c,
                   rp->why_new);

    if (kept) {
        ngx_http_upstream_reuse_uncount(kept->server, IDLE);
    }

    if (rp->why_new != NGX_HTTP_UPSTREAM_REUSE_NEW_EXPIRED
        || !ngx_http_upstream_reuse_put_to_test(kept, rp->age))
    {
        if (kept) {
            ngx_http_upstream_reuse_count_kept_closed(kept,
                                                      reuse_unfit_fate(rp));
        }

        ngx_http_upstream_reuse_close(c);
    }

    /* the peer stays, and is connected to afresh */

    rp->age = 0;

    pc->connection = NULL;
    pc->cached = 0;

    return NGX_OK;
}


/* Finds out why the pool had none. */

static ngx_http_upstream_reuse_new_e
reuse_why_new(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_http_upstream_reuse_server_t  *server;

    if (rp->around || rp->conf->reuse == 0) {
        return NGX_HTTP_UPSTREAM_REUSE_NEW_OFF;
    }

    /* those that there are, it does not give to this request */

    server = rp->server;

    return (server->limit
            && server->share->counters[NGX_HTTP_UPSTREAM_REUSE_IDLE])
           ? NGX_HTTP_UPSTREAM_REUSE_NEW_IDENTITY
           : NGX_HTTP_UPSTREAM_REUSE_NEW_EMPTY;
}


static ngx_http_upstream_reuse_fate_e
reuse_unfit_fate(ngx_http_upstream_reuse_peer_t *rp)
{
    switch (rp->why_new) {

    case NGX_HTTP_UPSTREAM_REUSE_NEW_EXPIRED:
        return NGX_HTTP_UPSTREAM_REUSE_FATE_EXPIRED;

    case NGX_HTTP_UPSTREAM_REUSE_NEW_STALE:
        return rp->excess ? NGX_HTTP_UPSTREAM_REUSE_FATE_EXCESS
                          : NGX_HTTP_UPSTREAM_REUSE_FATE_CLOSED;

    case NGX_HTTP_UPSTREAM_REUSE_NEW_UNBUFFERED:
        return NGX_HTTP_UPSTREAM_REUSE_FATE_UNBUFFERED;

    default: /* NGX_HTTP_UPSTREAM_REUSE_NEW_IDENTITY */
        return NGX_HTTP_UPSTREAM_REUSE_FATE_IDENTITY;
    }
}


/* Returns why a connection must not carry this request. */

static ngx_http_upstream_reuse_new_e
reuse_unfit(ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c,
    ngx_http_upstream_reuse_kept_t *kept)
{
    ngx_http_request_t  *r;
#if (NGX_HTTP_SSL)
    ngx_int_t            rc;
#endif

    r = rp->request;

    if (kept == NULL
        || !ngx_http_upstream_reuse_same_identity(&kept->identity,
                                                  rp->identity))
    {
        return NGX_HTTP_UPSTREAM_REUSE_NEW_IDENTITY;
    }

    if (!ngx_http_upstream_reuse_is_fresh(kept, rp->age)) {
        (void) ngx_http_upstream_reuse_note_end(kept, rp->age);

        return NGX_HTTP_UPSTREAM_REUSE_NEW_EXPIRED;
    }

    /* a body that is gone could not be sent again */

    if (r->request_body_no_buffering
        && !ngx_http_upstream_reuse_is_limited(kept))
    {
        return NGX_HTTP_UPSTREAM_REUSE_NEW_UNBUFFERED;
    }

#if (NGX_HTTP_SSL)

    /* what was read from the socket does not show there any more */

    if (kept->warm && c->ssl
        && (c->read->ready
            || (r->method & NGX_HTTP_UPSTREAM_REUSE_NON_IDEMPOTENT)
            || ngx_http_myproxy_ssl_pending(c->ssl->connection)))
    {
        rc = ngx_http_upstream_reuse_read_tickets(kept);

        if (rc != NGX_AGAIN) {
            rp->excess = (rc == NGX_DECLINED);
            return NGX_HTTP_UPSTREAM_REUSE_NEW_STALE;
        }
    }

#endif

    /*
     * For other methods it will show soon whether something had arrived, and
     * they may go again then.
     */

    if (!(r->method & NGX_HTTP_UPSTREAM_REUSE_NON_IDEMPOTENT)
        && !r->request_body_no_buffering
        && !c->read->ready)
    {
        return NGX_HTTP_UPSTREAM_REUSE_NEW_NONE;
    }

    if (!reuse_is_silent(c)) {
        rp->excess = (ngx_http_upstream_reuse_note_end(kept, rp->age)
                      == NGX_DECLINED);

        return NGX_HTTP_UPSTREAM_REUSE_NEW_STALE;
    }

    c->read->ready = 0;
    rp->peeked = 1;

    return NGX_HTTP_UPSTREAM_REUSE_NEW_NONE;
}


/*
 * An idle connection on which something has arrived is of no use: an end, or
 * bytes that would be taken for the answer to the next request.  The event
 * may wait behind the client's that we are in.
 */

static ngx_uint_t
reuse_is_silent(ngx_connection_t *c)
{
    char     buf[1];
    ssize_t  n;

    n = recv(c->fd, buf, 1, MSG_PEEK);

    return n == -1 && ngx_socket_errno == NGX_EAGAIN;
}


static void
reuse_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_http_upstream_reuse_peer_t  *rp = data;

    ngx_connection_t                *c;
    ngx_http_upstream_reuse_kept_t  *kept;
    ngx_http_upstream_reuse_fate_e   fate;

    c = pc->connection;

    rp->end = ngx_current_msec;

    if (rp->waiting
        && ngx_http_upstream_reuse_send_again(pc, rp, &state))
    {
        reuse_end(rp, NGX_HTTP_UPSTREAM_REUSE_FATE_UNDELIVERED);
        return;
    }

    if (rp->uses) {
        ngx_http_upstream_reuse_end_use(rp);
    }

    kept = reuse_prepare(pc, rp, state);

    fate = NGX_HTTP_UPSTREAM_REUSE_FATE_UNCONNECTED;

    if (kept) {

        /* it may be closed at once, as an idle one */

        ngx_http_upstream_reuse_count(rp->server, IDLE);
    }

    if (c && (kept == NULL || rp->why_new)) {

        fate = reuse_why_not_kept(rp, c, state);

        if (rp->holds && rp->why_new
            && fate != NGX_HTTP_UPSTREAM_REUSE_FATE_UNCONNECTED)
        {
            ngx_http_upstream_reuse_count_opening(rp, c);
        }
    }

    ngx_http_upstream_reuse_free_to_pool(pc, rp, state);

    if (pc->connection || c == NULL) {

        if (kept) {

            /* it was not wanted */

            ngx_http_upstream_reuse_uncount(rp->server, IDLE);
            kept->idle = 0;

            fate = reuse_why_not_kept(rp, c, state);
        }

        reuse_end(rp, fate);
        return;
    }

    rp->holds = 0;

    if (c->fd == (ngx_socket_t) -1) {
        rp->fate = NGX_HTTP_UPSTREAM_REUSE_FATE_CLOSED;
        return;
    }

    rp->fate = NGX_HTTP_UPSTREAM_REUSE_FATE_KEPT;

    if (kept) {
        ngx_http_upstream_reuse_set_expiry(kept);

        if (rp->conf->warmth) {
            ngx_http_upstream_reuse_begin_idle(kept);
        }

        if (rp->opening) {
            ngx_http_upstream_reuse_end_opening(rp, kept);
        }
    }
}


/* Prepares a connection for being kept; NULL if it will not be. */

static ngx_http_upstream_reuse_kept_t *
reuse_prepare(ngx_peer_connection_t *pc, ngx_http_upstream_reuse_peer_t *rp,
    ngx_uint_t state)
{
    ngx_http_upstream_reuse_kept_t  *kept;

    if (rp->conf->reuse == 0) {

        /* whatever would keep the connection, by directive or by default */

        rp->upstream->keepalive = 0;
    }

    if (!rp->upstream->keepalive
        || pc->connection == NULL
        || (state & NGX_PEER_FAILED))
    {
        return NULL;
    }

    kept = ngx_http_upstream_reuse_keep(rp, pc);

    if (kept == NULL) {
        rp->upstream->keepalive = 0;

    } else if (rp->opening) {
        ngx_http_upstream_reuse_keep_opening(rp, kept);
    }

    return kept;
}


/* The connection is about to be closed. */

static void
reuse_end(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_fate_e fate)
{
    rp->fate = fate;

    if (rp->holds) {
        rp->holds = 0;
        ngx_http_upstream_reuse_count_closed(rp->server, fate);
    }
}


/* Finds out why a connection is not kept, if it will not be. */

static ngx_http_upstream_reuse_fate_e
reuse_why_not_kept(ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c,
    ngx_uint_t state)
{
    ngx_http_upstream_t             *u;
    ngx_http_upstream_headers_in_t  *in;

    u = rp->upstream;
    in = &u->headers_in;

    if (rp->opening && rp->explained != NGX_HTTP_UPSTREAM_REUSE_FATE_PENDING) {
        return rp->explained;
    }

    if ((state & NGX_PEER_FAILED) && rp->kept == NULL && !u->request_sent) {
        return NGX_HTTP_UPSTREAM_REUSE_FATE_UNCONNECTED;
    }

    if (c->read->timedout || c->write->timedout) {
        return NGX_HTTP_UPSTREAM_REUSE_FATE_TIMEOUT;
    }

    if (u->upgrade) {
        return NGX_HTTP_UPSTREAM_REUSE_FATE_UPGRADED;
    }

    if (rp->kept && rp->stray) {
        return NGX_HTTP_UPSTREAM_REUSE_FATE_EXCESS;
    }

    if ((state & NGX_PEER_FAILED) || c->read->error || c->write->error) {
        return NGX_HTTP_UPSTREAM_REUSE_FATE_ERROR;
    }

    if (rp->around || rp->conf->reuse == 0) {
        return NGX_HTTP_UPSTREAM_REUSE_FATE_OFF;
    }

    if (!u->request_body_sent) {
        return NGX_HTTP_UPSTREAM_REUSE_FATE_UNSENT;
    }

    if (rp->explained != NGX_HTTP_UPSTREAM_REUSE_FATE_PENDING) {
        return rp->explained;
    }

    if (in->connection_close) {
        return NGX_HTTP_UPSTREAM_REUSE_FATE_CLOSE;
    }

    if (!u->keepalive) {
        return (c->read->eof && !in->chunked && in->content_length_n == -1)
               ? NGX_HTTP_UPSTREAM_REUSE_FATE_UNFRAMED
               : NGX_HTTP_UPSTREAM_REUSE_FATE_UNREAD;
    }

    if (c->read->eof) {
        return NGX_HTTP_UPSTREAM_REUSE_FATE_CLOSED;
    }

    if (c->requests >= rp->conf->max_requests) {
        return NGX_HTTP_UPSTREAM_REUSE_FATE_REQUESTS;
    }

    if (ngx_current_msec - c->start_time > rp->conf->max_time) {
        return NGX_HTTP_UPSTREAM_REUSE_FATE_TIME;
    }

    return (ngx_exiting || ngx_terminate)
           ? NGX_HTTP_UPSTREAM_REUSE_FATE_SHUTDOWN
           : NGX_HTTP_UPSTREAM_REUSE_FATE_ERROR;
}


void
ngx_http_upstream_reuse_explain(ngx_http_request_t *r,
    ngx_http_upstream_reuse_fate_e fate)
{
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = ngx_http_upstream_reuse_find_peer(r);

    if (rp && rp->explained == NGX_HTTP_UPSTREAM_REUSE_FATE_PENDING) {
        rp->explained = fate;
    }
}


ngx_http_upstream_reuse_peer_t *
ngx_http_upstream_reuse_find_peer(ngx_http_request_t *r)
{
    return (r->upstream && r->upstream->peer.get == reuse_get)
           ? r->upstream->peer.data : NULL;
}


static void
reuse_notify(ngx_peer_connection_t *pc, void *data, ngx_uint_t type)
{
    ngx_http_upstream_reuse_peer_t  *rp = data;

    rp->notify(pc, rp->data, type);
}
