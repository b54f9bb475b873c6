
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A connection is opened before there is a request: TCP, TLS, and into the
 * pool, as one that has answered.
 */


#include "ngx_http_reuse_warm.h"


static ngx_http_reuse_warm_preconnect_t *reuse_create_preconnect(
    ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server);
static void reuse_set_peer(ngx_http_reuse_warm_preconnect_t *p);
static u_char *reuse_log_preconnect(ngx_log_t *log, u_char *buf, size_t len);
static void reuse_connect(ngx_http_reuse_warm_preconnect_t *p);
static void reuse_posted_handler(ngx_event_t *ev);
static void reuse_write_handler(ngx_event_t *ev);
static void reuse_read_handler(ngx_event_t *ev);
static ngx_int_t reuse_test_connect(ngx_connection_t *c);
static void reuse_connected(ngx_http_reuse_warm_preconnect_t *p);
#if (NGX_HTTP_SSL)
static void reuse_secured(ngx_http_reuse_warm_preconnect_t *p, ngx_int_t rc);
#endif

static void reuse_opened(ngx_http_reuse_warm_preconnect_t *p);
static void reuse_put(ngx_http_reuse_warm_preconnect_t *p);
static void reuse_begin_idle(ngx_http_reuse_warm_preconnect_t *p,
    ngx_http_upstream_reuse_conn_t *conn);
static void reuse_count_times(ngx_http_reuse_warm_preconnect_t *p,
    ngx_uint_t rtt);
static void reuse_give_up(ngx_http_reuse_warm_preconnect_t *p,
    ngx_http_upstream_reuse_close_e reason);
static void reuse_free_preconnect(ngx_http_reuse_warm_preconnect_t *p);

static void reuse_idle_handler(ngx_event_t *ev);


/* worker: all that are being opened */

static ngx_queue_t  reuse_preconnects;
static ngx_uint_t   reuse_npreconnects;


ngx_int_t
ngx_http_reuse_warm_preconnect(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_http_reuse_warm_preconnect_t  *p;

    if (!ngx_http_upstream_reuse_open_slot(server, 1)) {
        return NGX_ERROR;
    }

    p = reuse_create_preconnect(warm, profile, server);
    if (p == NULL) {
        ngx_http_upstream_reuse_uncount(server, OPENED);
        return NGX_ERROR;
    }

    reuse_connect(p);

    return NGX_OK;
}


static ngx_http_reuse_warm_preconnect_t *
reuse_create_preconnect(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_http_reuse_warm_preconnect_t  *p;

    p = ngx_calloc(sizeof(ngx_http_reuse_warm_preconnect_t), ngx_cycle->log);
    if (p == NULL) {
        return NULL;
    }

    p->warm = warm;
    p->profile = profile;
    p->server = server;
    p->attempts = ngx_http_reuse_warm_find_attempts(profile, server);

    p->name.data = p->text;
    p->name.len = ngx_sock_ntop((struct sockaddr *) server->node.str.data,
                                server->node.str.len, p->text,
                                NGX_SOCKADDR_STRLEN, 1);

    p->log = *ngx_cycle->log;
    p->log.connection = 0;
    p->log.handler = reuse_log_preconnect;
    p->log.data = p;
    p->log.action = "opening a connection ahead";

    /* one failure is told, and not each that comes with it or follows */

    if (!p->attempts->told && !p->attempts->telling) {
        p->attempts->telling = 1;
        p->telling = 1;

    } else if (!(p->log.log_level & NGX_LOG_DEBUG_ALL)) {
        p->log.log_level = ngx_min(p->log.log_level, NGX_LOG_ALERT);
    }

    p->event.handler = reuse_posted_handler;
    p->event.data = p;
    p->event.log = &p->log;

    reuse_set_peer(p);

    if (reuse_npreconnects == 0) {
        ngx_queue_init(&reuse_preconnects);
    }

    ngx_queue_insert_tail(&reuse_preconnects, &p->queue);
    reuse_npreconnects++;

    warm->connecting++;
    server->ahead.connecting++;
    server->tally->connecting++;
    profile->unused++;

    return p;
}


/* As core sets it for a request. */

static void
reuse_set_peer(ngx_http_reuse_warm_preconnect_t *p)
{
    ngx_peer_connection_t     *pc;
    ngx_http_upstream_conf_t  *conf;

    pc = &p->peer;
    conf = p->profile->conf;

    pc->sockaddr = (struct sockaddr *) p->server->node.str.data;
    pc->socklen = p->server->node.str.len;
    pc->name = &p->name;
    pc->get = ngx_event_get_peer;
    pc->log = &p->log;
    pc->log_error = NGX_ERROR_ERR;
    pc->local = p->profile->local.socklen ? &p->profile->local : NULL;
    pc->so_keepalive = conf->socket_keepalive;

#if (NGX_HTTP_MYPROXY_SOCKET_BUFFERS)
    pc->rcvbuf = (int) conf->socket_rcvbuf;
    pc->sndbuf = (int) conf->socket_sndbuf;
#endif
}


static u_char *
reuse_log_preconnect(ngx_log_t *log, u_char *buf, size_t len)
{
    u_char                            *last;
    ngx_http_reuse_warm_preconnect_t  *p = log->data;

    last = buf + len;

    buf = ngx_slprintf(buf, last, " while %s", log->action);

    return ngx_slprintf(buf, last, ", for \"reuse_warm\" of upstream: \"%V\", "
                        "server: %V", &p->warm->conf->name, &p->name);
}


static void
reuse_connect(ngx_http_reuse_warm_preconnect_t *p)
{
    ngx_int_t          rc;
    ngx_connection_t  *c;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, &p->log, 0,
                   "upstream reuse: opening a connection to %V", &p->name);

    ngx_http_upstream_reuse_count(p->server, AHEAD);

    p->start = ngx_current_msec;
    p->log.action = "connecting to upstream";

    rc = ngx_event_connect_peer(&p->peer);

    if (rc != NGX_OK && rc != NGX_AGAIN) {

        /* there is no connection then */

        ngx_post_event(&p->event, &ngx_posted_events);
        return;
    }

    c = p->peer.connection;

    p->log.connection = c->number;

    c->data = p;
    c->read->handler = reuse_read_handler;
    c->write->handler = reuse_write_handler;

    if (rc == NGX_OK) {

        /* the plan that has asked for it goes on first */

        ngx_post_event(&p->event, &ngx_posted_events);
        return;
    }

    ngx_add_timer(c->write, p->profile->conf->connect_timeout);
}


static void
reuse_posted_handler(ngx_event_t *ev)
{
    ngx_http_reuse_warm_preconnect_t  *p = ev->data;

    if (p->peer.connection == NULL) {
        reuse_give_up(p, NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONNECT_FAILED);
        return;
    }

    /* a handshake may follow */

    ngx_add_timer(p->peer.connection->write,
                  p->profile->conf->connect_timeout);

    reuse_connected(p);
}


static void
reuse_write_handler(ngx_event_t *ev)
{
    ngx_connection_t                  *c;
    ngx_http_reuse_warm_preconnect_t  *p;

    c = ev->data;
    p = c->data;

    if (ev->timedout) {
        ngx_log_error(NGX_LOG_ERR, &p->log, NGX_ETIMEDOUT,
                      "upstream timed out");
    }

    if (ev->timedout || reuse_test_connect(c) != NGX_OK) {
        reuse_give_up(p, NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONNECT_FAILED);
        return;
    }

    reuse_connected(p);
}



static void
reuse_read_handler(ngx_event_t *ev)
{
    ngx_connection_t                  *c;
    ngx_http_reuse_warm_preconnect_t  *p;

    c = ev->data;
    p = c->data;

    if (reuse_test_connect(c) != NGX_OK) {
        reuse_give_up(p, NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONNECT_FAILED);
    }
}


static ngx_int_t
reuse_test_connect(ngx_connection_t *c)
{
    int        err;
    socklen_t  len;

#if (NGX_HAVE_KQUEUE)

    if (ngx_event_flags & NGX_USE_KQUEUE_EVENT) {

        if (c->write->pending_eof || c->read->pending_eof) {

            err = c->write->pending_eof ? c->write->kq_errno
                                        : c->read->kq_errno;

            (void) ngx_connection_error(c, err,
                                    "kevent() reported that connect() failed");
            return NGX_ERROR;
        }

        return NGX_OK;
    }

#endif

    err = 0;
    len = sizeof(int);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len) == -1) {
        err = ngx_socket_errno;
    }

    if (err) {
        (void) ngx_connection_error(c, err, "connect() failed");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
reuse_connected(ngx_http_reuse_warm_preconnect_t *p)
{
    ngx_connection_t  *c;

    c = p->peer.connection;

    /* as large as core makes it */

    c->pool = ngx_create_pool(128, &p->log);
    if (c->pool == NULL) {
        reuse_give_up(p, NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR);
        return;
    }

    p->connected = ngx_current_msec;

#if (NGX_HTTP_SSL)

    if (p->profile->identity->ssl) {

        if (ngx_http_reuse_warm_handshake(p, reuse_secured) != NGX_OK) {
            reuse_give_up(p, NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONNECT_FAILED);
        }

        return;
    }

#endif

    /* with poll() and the like the socket would be ready to write for ever */

    if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
        reuse_give_up(p, NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR);
        return;
    }

    reuse_opened(p);
}


#if (NGX_HTTP_SSL)

static void
reuse_secured(ngx_http_reuse_warm_preconnect_t *p, ngx_int_t rc)
{
    if (rc != NGX_OK) {
        reuse_give_up(p, NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONNECT_FAILED);
        return;
    }

    reuse_opened(p);
}

#endif


/* The connection is open, and is kept if it is as it should be. */

static void
reuse_opened(ngx_http_reuse_warm_preconnect_t *p)
{
    ngx_int_t          rc;
#if (NGX_HTTP_SSL)
    ngx_connection_t  *c;
#endif

    rc = NGX_AGAIN;

#if (NGX_HTTP_SSL)

    c = p->peer.connection;

    if (c->ssl) {
        rc = ngx_http_upstream_reuse_read_non_data(c);
    }

#endif

    if (rc == NGX_AGAIN) {
        reuse_put(p);
        return;
    }

    reuse_count_times(p, 0);

    switch (rc) {

    case NGX_BUSY:

        /* a ticket that has come in part: there is nothing wrong with it */

        p->opened = 1;
        reuse_give_up(p, NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNREAD);
        return;

    case NGX_OK:
        reuse_give_up(p, NGX_HTTP_UPSTREAM_REUSE_CLOSE_CLOSED);
        return;

    case NGX_DECLINED:
        reuse_give_up(p, NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXCESS);
        return;

    default: /* NGX_ERROR */
        reuse_give_up(p, NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR);
        return;
    }
}


static void
reuse_put(ngx_http_reuse_warm_preconnect_t *p)
{
    ngx_int_t                        put;
    ngx_connection_t                *c;
    ngx_peer_connection_t           *pc;
    ngx_http_upstream_reuse_conn_t  *conn;
    ngx_http_upstream_reuse_peer_t  *rp;
    ngx_http_upstream_reuse_close_e  reason;

    rp = ngx_http_upstream_reuse_pool_create_peer(p->warm->conf,
                                                  p->profile->identity,
                                                  p->profile->conf,
                                                  &p->profile->ctx, &p->log);
    if (rp == NULL) {
        reuse_count_times(p, 0);
        reuse_give_up(p, NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR);
        return;
    }

    c = p->peer.connection;

    rp->server = p->server;
    rp->profile = p->profile;
    rp->hint.expected = 1;

    pc = &rp->upstream->peer;

    pc->connection = c;
    pc->sockaddr = p->peer.sockaddr;
    pc->socklen = p->peer.socklen;
    pc->name = &p->name;

    conn = ngx_http_upstream_reuse_keep(rp, pc);

    reuse_count_times(p, rp->account.rtt);

    if (conn == NULL) {
        reason = rp->account.explained;
        goto failed;
    }

    conn->warm = 1;

    if (conn->learned) {
        conn->learned = &p->server->record->unused_learned;
    }

#if (NGX_HTTP_SSL)

    if (c->ssl && c->ssl->save_session) {
        c->ssl->save_session = ngx_http_upstream_reuse_save_ticket;
    }

#endif

    /* it may be closed at once, as an idle one */

    ngx_http_upstream_reuse_count(p->server, IDLE);

    put = ngx_http_upstream_reuse_pool_put(rp, pc, 0);

    if (put == NGX_DECLINED) {
        ngx_http_upstream_reuse_uncount(p->server, IDLE);
        ngx_http_upstream_reuse_set_state(conn,
                                          NGX_HTTP_UPSTREAM_REUSE_CONN_USED);

        reason = ngx_http_upstream_reuse_why_closed(rp, c, 0);
        goto failed;
    }

    if (put == NGX_OK) {
        reuse_begin_idle(p, conn);
    }

    ngx_destroy_pool(rp->request->pool);

    p->peer.connection = NULL;
    reuse_free_preconnect(p);

    return;

failed:

    ngx_destroy_pool(rp->request->pool);
    reuse_give_up(p, reason);
}


/* It is in the pool: in TLS something may still come, and be no end. */

static void
reuse_begin_idle(ngx_http_reuse_warm_preconnect_t *p,
    ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_event_t  *rev;

    ngx_http_upstream_reuse_set_expiry(conn);

    p->warm->conf->listener->begin_idle(conn);

    rev = conn->connection->read;

    conn->handler = rev->handler;
    rev->handler = reuse_idle_handler;

    ngx_http_upstream_reuse_offer(conn);
    ngx_http_upstream_reuse_spare(conn);
    p->opened = 1;
}


static void
reuse_count_times(ngx_http_reuse_warm_preconnect_t *p, ngx_uint_t rtt)
{
    ngx_http_upstream_reuse_count_times(p->server, p->peer.connection,
                                        ngx_current_msec - p->start,
                                        p->connected - p->start, rtt);
}


static void
reuse_give_up(ngx_http_reuse_warm_preconnect_t *p,
    ngx_http_upstream_reuse_close_e reason)
{
    ngx_connection_t  *c;

    c = p->peer.connection;

    if (c && c->pool) {
        ngx_http_upstream_reuse_close(c);

    } else if (c) {
        ngx_close_connection(c);
    }

    ngx_http_upstream_reuse_count_closed(p->server, reason);

    p->failed = (reason == NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONNECT_FAILED);

    reuse_free_preconnect(p);
}


static void
reuse_free_preconnect(ngx_http_reuse_warm_preconnect_t *p)
{
    if (p->event.posted) {
        ngx_delete_posted_event(&p->event);
    }

    ngx_queue_remove(&p->queue);
    reuse_npreconnects--;

    p->warm->connecting--;
    p->server->ahead.connecting--;
    p->server->tally->connecting--;
    p->profile->unused--;

    if (p->telling) {
        p->attempts->telling = 0;
        p->attempts->told = p->failed;
    }

    ngx_http_reuse_warm_note_preconnect(p);

    ngx_free(p);
}


ngx_uint_t
ngx_http_reuse_warm_count_preconnects(ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_uint_t                         n;
    ngx_queue_t                       *q;
    ngx_http_reuse_warm_preconnect_t  *p;

    if (server->ahead.connecting == 0) {
        return 0;
    }

    n = 0;

    for (q = ngx_queue_head(&reuse_preconnects);
         q != ngx_queue_sentinel(&reuse_preconnects);
         q = ngx_queue_next(q))
    {
        p = ngx_queue_data(q, ngx_http_reuse_warm_preconnect_t, queue);

        if (p->profile == profile && p->server == server) {
            n++;
        }
    }

    return n;
}


ngx_uint_t
ngx_http_reuse_warm_count_all_preconnects(void)
{
    return reuse_npreconnects;
}


void
ngx_http_reuse_warm_abort_preconnects(
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_queue_t                       *q;
    ngx_http_reuse_warm_preconnect_t  *p;

    if (reuse_npreconnects == 0) {
        return;
    }

    q = ngx_queue_head(&reuse_preconnects);

    while (q != ngx_queue_sentinel(&reuse_preconnects)) {

        p = ngx_queue_data(q, ngx_http_reuse_warm_preconnect_t, queue);
        q = ngx_queue_next(q);

        if (server == NULL || p->server == server) {
            reuse_give_up(p, server ? NGX_HTTP_UPSTREAM_REUSE_CLOSE_STARVING
                                    : NGX_HTTP_UPSTREAM_REUSE_CLOSE_SHUTDOWN);
        }
    }
}


/* In TLS, what is there to be read may be tickets, or the end. */

static void
reuse_idle_handler(ngx_event_t *ev)
{
#if (NGX_HTTP_SSL)
    ngx_int_t                        rc;
#endif
    ngx_connection_t                *c;
    ngx_http_upstream_reuse_conn_t  *conn;

    c = ev->data;
    conn = ngx_http_upstream_reuse_find_conn(c);

#if (NGX_HTTP_SSL)

    if (c->ssl && !c->close && !ev->timedout) {

        rc = ngx_http_upstream_reuse_read_tickets(conn);

        if (rc == NGX_AGAIN || rc == NGX_BUSY) {

            if (ngx_handle_read_event(ev, 0) == NGX_OK) {
                return;
            }

            rc = NGX_ERROR;
        }

        conn->ended = rc;

        ngx_http_upstream_reuse_pool_remove(c);
        return;
    }

#endif

    conn->handler(ev);
}
