
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What is known of a connection, from when it is first kept until it is
 * closed.
 */


#include "ngx_http_upstream_reuse_connection.h"


static ngx_http_upstream_reuse_conn_t *reuse_begin_conn(
    ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc);
static ngx_uint_t reuse_may_stay(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_conn_t *conn);
static void reuse_cleanup_conn(void *data);
static void reuse_list_spare(ngx_http_upstream_reuse_conn_t *conn,
    ngx_uint_t idle);
#if (NGX_HTTP_SSL)
static ngx_uint_t reuse_is_read(ngx_connection_t *c);
#endif


ngx_int_t (*ngx_http_upstream_reuse_leave)(
    ngx_http_upstream_reuse_conn_t *conn);


/*
 * The states that may follow on each one.  A connection is tested when a
 * request has left it, and is not used again; one that is parked is not used
 * again here.
 */

static ngx_uint_t
    reuse_next_states[NGX_HTTP_UPSTREAM_REUSE_CONN_LAST] = {

    /* USED */
    1 << NGX_HTTP_UPSTREAM_REUSE_CONN_IDLE
    |1 << NGX_HTTP_UPSTREAM_REUSE_CONN_PARKED
    |1 << NGX_HTTP_UPSTREAM_REUSE_CONN_TESTED,

    /* IDLE */
    1 << NGX_HTTP_UPSTREAM_REUSE_CONN_USED
    |1 << NGX_HTTP_UPSTREAM_REUSE_CONN_PARKED,

    /* PARKED */
    0,

    /* TESTED */
    0
};


ngx_http_upstream_reuse_conn_t *
ngx_http_upstream_reuse_keep(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc)
{
    ngx_connection_t                *c;
    ngx_http_upstream_reuse_conn_t  *conn;

    c = pc->connection;

    if (ngx_http_upstream_reuse_is_authenticated(rp->request)) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "upstream reuse: connection belongs to one client");
        rp->account.explained = NGX_HTTP_UPSTREAM_REUSE_CLOSE_AUTHENTICATED;
        return NULL;
    }

#if (NGX_HTTP_SSL)
    if (c->ssl && !reuse_is_read(c)) {
        rp->account.explained = NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXCESS;
        return NULL;
    }
#endif

    conn = rp->conn;

    if (conn == NULL) {
        conn = reuse_begin_conn(rp, pc);
        if (conn == NULL) {
            rp->account.explained = NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR;
            return NULL;
        }
    }

    /* nothing is looked for here: both are known by now, or are 0 */

    if ((conn->leaving || conn->lifetime) && !reuse_may_stay(rp, conn)) {
        return NULL;
    }

    conn->sent += c->sent - rp->watch.sent;

    conn->learned = rp->server->learned;

    if (!ngx_http_upstream_reuse_read_hint(rp, conn)) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "upstream reuse: the origin is about to close");

        /* or the operator has said so */

        rp->account.explained =
                      (rp->conf->expiry == NGX_HTTP_UPSTREAM_REUSE_EXPIRY_TIME)
                      ? NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED
                      : NGX_HTTP_UPSTREAM_REUSE_CLOSE_ANNOUNCED;
        return NULL;
    }

    if (rp->conn == NULL) {
        ngx_http_upstream_reuse_set_probe(conn, rp->upstream->conf);
    }

    if (rp->conf->listener && !rp->bypass) {
        rp->conf->listener->keep(rp, conn);
    }

    conn->peer = NULL;
    conn->location = rp->location;
    conn->since = ngx_current_msec;

    ngx_http_upstream_reuse_set_state(conn, NGX_HTTP_UPSTREAM_REUSE_CONN_IDLE);

    return conn;
}


/* It is to be kept for the first time. */

static ngx_http_upstream_reuse_conn_t *
reuse_begin_conn(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc)
{
    ngx_http_upstream_reuse_conn_t  *conn;

    conn = ngx_http_upstream_reuse_create_conn(rp->conf, rp->server,
                                               rp->identity, pc->sockaddr,
                                               pc->socklen, pc->connection);
    if (conn == NULL) {
        return NULL;
    }

    rp->account.rtt = ngx_http_upstream_reuse_measure(conn);

    conn->target = rp->target;
    conn->listed = ngx_http_upstream_reuse_is_listed(conn);
    conn->leaving = ngx_http_upstream_reuse_is_drained(conn);
    conn->lifetime = ngx_http_upstream_reuse_draw_lifetime(rp->conf);

    return conn;
}


/* One whose server has come back meanwhile is kept. */

static ngx_uint_t
reuse_may_stay(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_conn_t *conn)
{
    if (conn->leaving) {
        conn->leaving = ngx_http_upstream_reuse_is_drained(conn);
    }

    if (conn->leaving) {
        rp->account.explained = NGX_HTTP_UPSTREAM_REUSE_CLOSE_DRAINED;

    } else if (conn->lifetime
               && ngx_http_upstream_reuse_age_left(conn) == 0)
    {
        rp->account.explained = NGX_HTTP_UPSTREAM_REUSE_CLOSE_AGE;

    } else {
        return 1;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, conn->connection->log, 0,
                   "upstream reuse: connection %p is %s", conn->connection,
                   conn->leaving ? "drained" : "too old");

    return 0;
}


ngx_http_upstream_reuse_conn_t *
ngx_http_upstream_reuse_create_conn(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_reuse_identity_t *id, struct sockaddr *sockaddr,
    socklen_t socklen, ngx_connection_t *c)
{
    ngx_pool_cleanup_t              *cln;
    ngx_http_upstream_reuse_conn_t  *conn;

    cln = ngx_pool_cleanup_add(c->pool,
                               sizeof(ngx_http_upstream_reuse_conn_t));
    if (cln == NULL) {
        return NULL;
    }

    conn = cln->data;
    ngx_memzero(conn, sizeof(ngx_http_upstream_reuse_conn_t));

    conn->identity = ngx_http_upstream_reuse_copy_identity(id, c->pool);
    if (conn->identity == NULL) {
        return NULL;
    }

    conn->socklen = socklen;
    conn->sockaddr = (struct sockaddr *) server->node.str.data;

    if (server->node.str.len == 0) {

        /* one that stands for others */

        conn->sockaddr = ngx_palloc(c->pool, socklen);
        if (conn->sockaddr == NULL) {
            return NULL;
        }

        ngx_memcpy(conn->sockaddr, sockaddr, socklen);
    }

    cln->handler = reuse_cleanup_conn;

    conn->connection = c;
    conn->conf = rcf;
    conn->ended = NGX_AGAIN;

    conn->server = server;
    conn->learned = server->learned;

    ngx_http_upstream_reuse_register(conn);
    server->holders++;

    return conn;
}


ngx_http_upstream_reuse_conn_t *
ngx_http_upstream_reuse_find_conn(ngx_connection_t *c)
{
    ngx_pool_cleanup_t  *cln;

    for (cln = c->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == reuse_cleanup_conn) {
            return cln->data;
        }
    }

    return NULL;
}


static void
reuse_cleanup_conn(void *data)
{
    ngx_http_upstream_reuse_conn_t  *conn = data;

    ngx_int_t                        ended;
    ngx_msec_t                       age;
    ngx_connection_t                *c;
    ngx_http_upstream_reuse_close_e  reason;

    c = conn->connection;

    ngx_http_upstream_reuse_unregister(conn);
    conn->server->holders--;

    if (conn->offers) {
        ngx_queue_remove(&conn->offered);
        conn->offers = 0;
    }

    if (conn->is_spare) {
        reuse_list_spare(conn, 0);
    }

    if (conn->state == NGX_HTTP_UPSTREAM_REUSE_CONN_IDLE
        && c->close
        && ngx_exiting
        && ngx_http_upstream_reuse_leave
        && ngx_http_upstream_reuse_leave(conn) == NGX_OK)
    {
        ngx_http_upstream_reuse_set_state(conn,
                                         NGX_HTTP_UPSTREAM_REUSE_CONN_PARKED);
    }

    if (conn->queued) {
        conn->conf->listener->end_idle(conn);
    }

    if (conn->state == NGX_HTTP_UPSTREAM_REUSE_CONN_USED
        || conn->state == NGX_HTTP_UPSTREAM_REUSE_CONN_PARKED)
    {
        return;
    }

    age = ngx_current_msec - conn->since;

    if (c->close || ngx_exiting || ngx_terminate) {
        ended = NGX_AGAIN;

    } else if (conn->ended != NGX_AGAIN) {
        ended = conn->ended;

        if (ended != NGX_DECLINED && ngx_http_upstream_reuse_is_lost(conn)) {
            ended = NGX_ABORT;

        } else if (ended == NGX_OK) {
            ngx_http_upstream_reuse_note_closed(conn, age);
        }

    } else {
        ended = ngx_http_upstream_reuse_note_end(conn, age);
    }

    reason = ngx_http_upstream_reuse_why_idle_closed(conn, ended);

    if (conn->state == NGX_HTTP_UPSTREAM_REUSE_CONN_IDLE) {
        ngx_http_upstream_reuse_uncount(conn->server, IDLE);
    }

    ngx_http_upstream_reuse_end_conn(conn, reason);
}


void
ngx_http_upstream_reuse_set_state(ngx_http_upstream_reuse_conn_t *conn,
    ngx_http_upstream_reuse_conn_state_e state)
{
    ngx_http_upstream_reuse_conn_state_e  before;

    before = conn->state;
    conn->state = state;

    if (conn->conf->waiters) {
        reuse_list_spare(conn, state == NGX_HTTP_UPSTREAM_REUSE_CONN_IDLE);
    }

    if (!((reuse_next_states[before] >> state) & 1)) {
        ngx_log_error(NGX_LOG_ALERT, conn->connection->log, 0,
                      "upstream reuse: state %d of connection %p follows "
                      "on %d", state, conn->connection, before);
    }
}


/* Where connections are limited, those that are idle can be given away. */

static void
reuse_list_spare(ngx_http_upstream_reuse_conn_t *conn, ngx_uint_t idle)
{
    if (idle == conn->is_spare) {
        return;
    }

    if (idle) {
        ngx_queue_insert_tail(&conn->conf->waiters->spare, &conn->spare);

    } else {
        ngx_queue_remove(&conn->spare);
    }

    conn->is_spare = idle;
}


void
ngx_http_upstream_reuse_end_conn(ngx_http_upstream_reuse_conn_t *conn,
    ngx_http_upstream_reuse_close_e reason)
{
    ngx_http_upstream_reuse_count_closed(conn->server, reason);

    if (conn->conf->listener) {
        conn->conf->listener->closed(conn, reason);
    }
}


void
ngx_http_upstream_reuse_abort(ngx_connection_t *c)
{
    struct linger  linger;

    linger.l_onoff = 1;
    linger.l_linger = 0;

    if (setsockopt(c->fd, SOL_SOCKET, SO_LINGER, (const void *) &linger,
                   sizeof(struct linger))
        == -1)
    {
        ngx_log_error(NGX_LOG_ALERT, c->log, ngx_socket_errno,
                      "setsockopt(SO_LINGER) failed");
    }
}


#if (NGX_HTTP_SSL)

/*
 * The keepalive module looks at the socket, not at what OpenSSL has read from
 * it.  That may be session tickets, which are no harm, or more of a response.
 */

static ngx_uint_t
reuse_is_read(ngx_connection_t *c)
{
    int    n;
    char   buf[1];
    SSL   *ssl;

    ssl = c->ssl->connection;

    if (!ngx_http_myproxy_ssl_pending(ssl)) {
        return 1;
    }

    ERR_clear_error();

    n = SSL_peek(ssl, buf, 1);

    if (n <= 0 && SSL_get_error(ssl, n) == SSL_ERROR_WANT_READ
        && !ngx_http_myproxy_ssl_pending(ssl))
    {
        return 1;
    }

    ERR_clear_error();

    if (n > 0) {
        ngx_log_error(NGX_LOG_WARN, c->log, 0,
                      "upstream sent data after the end of the response");
    }

    return 0;
}

#endif
