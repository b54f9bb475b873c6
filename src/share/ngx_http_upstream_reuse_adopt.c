
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A connection that was parked becomes one of this worker.
 */


#include "ngx_http_upstream_reuse_share.h"


/* bytes: in the pool of a connection there is room for its record */
#define NGX_HTTP_UPSTREAM_REUSE_POOL                                          \
    (256 + sizeof(ngx_http_upstream_reuse_conn_t))


static ngx_connection_t *reuse_open_connection(ngx_socket_t fd,
    ngx_log_t *log);


ngx_http_upstream_reuse_conn_t *
ngx_http_upstream_reuse_adopt(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server, struct sockaddr *sockaddr,
    ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    ngx_log_t *log)
{
    ngx_connection_t                *c;
    ngx_http_upstream_reuse_conn_t  *conn;

    conn = NULL;

    c = reuse_open_connection(fd, log);

    if (c) {
        conn = ngx_http_upstream_reuse_create_conn(rcf, server,
                              ngx_http_upstream_reuse_parcel_identity(parcel),
                              sockaddr, parcel->socklen, c);
        if (conn == NULL) {
            ngx_http_upstream_reuse_close(c);
        }
    }

    if (conn == NULL) {
        ngx_http_upstream_reuse_count_closed(server,
                                         NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR);
        return NULL;
    }

    ngx_http_upstream_reuse_unpack(parcel, conn);

    conn->lifetime = ngx_http_upstream_reuse_renew_lifetime(rcf,
                                                            conn->lifetime);

    if (conn->warm && conn->learned) {
        conn->learned = &server->record->unused_learned;
    }

    ngx_http_upstream_reuse_set_state(conn, NGX_HTTP_UPSTREAM_REUSE_CONN_IDLE);
    ngx_http_upstream_reuse_count(server, IDLE);

    return conn;
}


/*
 * As ngx_event_connect_peer() makes one, but for the event of writing, which
 * would come at once: core asks for it when it is needed.
 */

static ngx_connection_t *
reuse_open_connection(ngx_socket_t fd, ngx_log_t *log)
{
    ngx_int_t          rc;
    ngx_event_t       *rev, *wev;
    ngx_connection_t  *c;

    c = ngx_get_connection(fd, log);

    if (c == NULL) {
        (void) ngx_close_socket(fd);
        return NULL;
    }

    c->pool = ngx_create_pool(NGX_HTTP_UPSTREAM_REUSE_POOL, log);

    if (c->pool == NULL) {
        ngx_close_connection(c);
        return NULL;
    }

    c->type = SOCK_STREAM;

    c->recv = ngx_recv;
    c->send = ngx_send;
    c->recv_chain = ngx_recv_chain;
    c->send_chain = ngx_send_chain;

    c->sendfile = 1;
    c->log_error = NGX_ERROR_ERR;

    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);

    rev = c->read;
    wev = c->write;

    rev->log = log;
    wev->log = log;
    wev->ready = 1;

    rc = ngx_add_event(rev, NGX_READ_EVENT,
                       (ngx_event_flags & NGX_USE_CLEAR_EVENT)
                       ? NGX_CLEAR_EVENT : NGX_LEVEL_EVENT);

    if (rc != NGX_OK) {
        ngx_http_upstream_reuse_close(c);
        return NULL;
    }

    return c;
}


/*
 * Closes a connection on which something has arrived.  Nobody has seen when:
 * the kernel knows of an end, and of all else only that it was alive before.
 */

void
ngx_http_upstream_reuse_close_ended(ngx_http_upstream_reuse_conn_t *conn,
    ngx_http_upstream_reuse_parcel_t *parcel)
{
    ngx_msec_t                     unseen;
    ngx_http_upstream_reuse_tcp_t  tcp;

    unseen = ngx_http_upstream_reuse_passed_since(parcel->seen);

    if (ngx_http_upstream_reuse_read_tcp(conn->connection->fd, &tcp) == 0
        && tcp.close_wait)
    {
        unseen = ngx_min(unseen, tcp.silent);
    }

    conn->since += unseen;

    ngx_http_upstream_reuse_close(conn->connection);
}


/*
 * An idle connection on which something has arrived is of no use: an end, or
 * bytes that would be taken for the answer to the next request.
 */

ngx_uint_t
ngx_http_upstream_reuse_is_quiet(ngx_socket_t fd)
{
    char     buf[1];
    ssize_t  n;

    n = recv(fd, buf, 1, MSG_PEEK);

    return n == -1 && ngx_socket_errno == NGX_EAGAIN;
}
