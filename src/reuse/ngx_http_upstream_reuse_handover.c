
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What a worker uses all the time stays in its own pool and costs nothing.
 * A connection that has been idle there for a moment is parked; a worker whose
 * pool has none for a request looks there before it opens one.  One worker
 * after the other looks at all that are parked, and closes those that have
 * ended or are too old.
 */


#include "ngx_http_upstream_reuse.h"
#include "ngx_http_upstream_reuse_tcp.h"


/* milliseconds: a connection is idle for so long before it is parked */
#define NGX_HTTP_UPSTREAM_REUSE_MOMENT  10

/* so often parked connections are looked at, and by others if nobody does */
#define NGX_HTTP_UPSTREAM_REUSE_VISIT   1000
#define NGX_HTTP_UPSTREAM_REUSE_LAPSE   3000

/* bytes: in the pool of a connection there is room for its record */
#define NGX_HTTP_UPSTREAM_REUSE_POOL                                          \
    (256 + sizeof(ngx_http_upstream_reuse_conn_t))


/* the server of which all parked connections are closed */

typedef struct {
    ngx_http_upstream_reuse_srv_conf_t  *conf;
    ngx_http_upstream_reuse_server_t    *server;
} reuse_wanted_t;


static void reuse_moment_handler(ngx_event_t *ev);
static void reuse_hand_over(ngx_http_upstream_reuse_conn_t *conn);

static ngx_http_upstream_reuse_conn_t *reuse_adopt(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server, struct sockaddr *sockaddr,
    ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    ngx_log_t *log);
static ngx_connection_t *reuse_open_connection(ngx_socket_t fd,
    ngx_log_t *log);
static void reuse_close_ended(ngx_http_upstream_reuse_conn_t *conn,
    ngx_http_upstream_reuse_parcel_t *parcel);
static ngx_uint_t reuse_is_parked_silent(ngx_socket_t fd);

static void reuse_visit_handler(ngx_event_t *ev);
static ngx_uint_t reuse_visit(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, void *data);
static ngx_uint_t reuse_is_to_server(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, void *data);
static ngx_uint_t reuse_is_left(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, void *data);
static void reuse_sweep(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd);
static ngx_http_upstream_reuse_close_e reuse_why_unwanted(
    ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_srv_conf_t *rcf);


/* worker: idle connections, the oldest first */

static ngx_queue_t       reuse_offered;
static ngx_uint_t        reuse_begun;
static ngx_uint_t        reuse_shares;

static ngx_event_t       reuse_moment_event;
static ngx_event_t       reuse_visit_event;
static ngx_connection_t  reuse_dummy;


void
ngx_http_upstream_reuse_begin_handover(ngx_cycle_t *cycle)
{
    if (ngx_http_upstream_reuse_enter_places(cycle) == 0) {
        return;
    }

    reuse_begun = 1;
    reuse_shares = (ngx_http_upstream_reuse_nplaces != 0);

    if (reuse_offered.next == NULL) {

        /* without a master process it goes on after a reload */

        ngx_queue_init(&reuse_offered);
    }

    /* a debug log names the connection of a timer */

    reuse_dummy.fd = (ngx_socket_t) -1;

    reuse_moment_event.handler = reuse_moment_handler;
    reuse_moment_event.data = &reuse_dummy;
    reuse_moment_event.log = ngx_cycle->log;
    reuse_moment_event.cancelable = 1;

    /* also if none is parked any more: what was parked before is closed */

    reuse_visit_event.handler = reuse_visit_handler;
    reuse_visit_event.data = &reuse_dummy;
    reuse_visit_event.log = ngx_cycle->log;
    reuse_visit_event.cancelable = 1;

    ngx_add_timer(&reuse_visit_event, NGX_HTTP_UPSTREAM_REUSE_VISIT);
}


void
ngx_http_upstream_reuse_offer(ngx_http_upstream_reuse_conn_t *conn)
{
    if (!reuse_shares || conn->connection->ssl) {
        return;
    }

    ngx_queue_insert_tail(&reuse_offered, &conn->offered);
    conn->offers = 1;

    if (!reuse_moment_event.timer_set) {
        ngx_add_timer(&reuse_moment_event, NGX_HTTP_UPSTREAM_REUSE_MOMENT);
    }
}


static void
reuse_moment_handler(ngx_event_t *ev)
{
    ngx_queue_t                     *q;
    ngx_msec_int_t                   left;
    ngx_http_upstream_reuse_conn_t  *conn;

    while (!ngx_queue_empty(&reuse_offered)) {

        q = ngx_queue_head(&reuse_offered);
        conn = ngx_queue_data(q, ngx_http_upstream_reuse_conn_t, offered);

        left = conn->since + NGX_HTTP_UPSTREAM_REUSE_MOMENT
               - ngx_current_msec;

        if (left > 0) {
            ngx_add_timer(ev, left);
            return;
        }

        ngx_queue_remove(q);
        conn->offers = 0;

        reuse_hand_over(conn);
    }
}


/* What cannot be parked stays in the pool. */

static void
reuse_hand_over(ngx_http_upstream_reuse_conn_t *conn)
{
    if (ngx_http_upstream_reuse_park_conn(conn) != NGX_OK) {
        return;
    }

    ngx_http_upstream_reuse_set_state(conn,
                                      NGX_HTTP_UPSTREAM_REUSE_CONN_PARKED);

    if (conn->queued) {
        conn->conf->listener->end_idle(conn);
    }

    ngx_http_upstream_reuse_pool_remove(conn->connection);
}


ngx_int_t
ngx_http_upstream_reuse_take_over(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc)
{
    ngx_socket_t                      fd;
    ngx_http_upstream_reuse_conn_t   *conn;
    ngx_http_upstream_reuse_parcel_t  parcel;

    /* what is taken out and cannot be used would be closed */

    if (!reuse_shares
        || rp->bypass
        || rp->conf->reuse == 0
        || rp->identity->ssl
        || ngx_cycle->free_connection_n == 0
        || ngx_http_upstream_reuse_label(&parcel, rp->identity, pc->sockaddr,
                                         pc->socklen, &rp->conf->name)
           != NGX_OK)
    {
        return NGX_DECLINED;
    }

    parcel.location = rp->conf->local ? rp->location : NULL;
    parcel.cycle = ngx_http_upstream_reuse_cycle;

    for ( ;; ) {

        fd = ngx_http_upstream_reuse_unpark(&parcel, rp->server);

        if (fd == (ngx_socket_t) -1) {
            return NGX_DECLINED;
        }

        conn = reuse_adopt(rp->conf, rp->server, pc->sockaddr, &parcel, fd,
                           pc->log);

        if (conn == NULL) {
            return NGX_DECLINED;
        }

        if (reuse_is_parked_silent(fd)) {
            break;
        }

        rp->account.why_new = NGX_HTTP_UPSTREAM_REUSE_NEW_STALE;

        reuse_close_ended(conn, &parcel);

        parcel.cycle = ngx_http_upstream_reuse_cycle;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "upstream reuse: connection %p of socket %d is taken over",
                   conn->connection, fd);

    ngx_http_upstream_reuse_uncount(rp->server, SWEPT);
    ngx_http_upstream_reuse_count(rp->server, TAKEN_OVER);

    pc->connection = conn->connection;
    pc->cached = 1;

    return NGX_DONE;
}


/*
 * Makes a connection of what was parked, idle as if it came from the pool.
 * NULL if that cannot be had: it is closed, and counted, then.
 */

static ngx_http_upstream_reuse_conn_t *
reuse_adopt(ngx_http_upstream_reuse_srv_conf_t *rcf,
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

    if (conn->warm && conn->limit) {
        conn->limit = &server->record->unused_limit;
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

static void
reuse_close_ended(ngx_http_upstream_reuse_conn_t *conn,
    ngx_http_upstream_reuse_parcel_t *parcel)
{
    ngx_msec_t                     unseen;
    ngx_http_upstream_reuse_tcp_t  tcp;

    unseen = ngx_current_msec - parcel->seen;

    if (ngx_http_upstream_reuse_read_tcp(conn->connection->fd, &tcp) == 0
        && tcp.close_wait)
    {
        unseen = ngx_min(unseen, tcp.silent);
    }

    conn->since += unseen;

    ngx_http_upstream_reuse_close(conn->connection);
}


static ngx_uint_t
reuse_is_parked_silent(ngx_socket_t fd)
{
    char     buf[1];
    ssize_t  n;

    n = recv(fd, buf, 1, MSG_PEEK);

    return n == -1 && ngx_socket_errno == NGX_EAGAIN;
}


/* Whoever was last goes on, and others do if it has stopped. */

static void
reuse_visit_handler(ngx_event_t *ev)
{
    ngx_uint_t                        i;
    ngx_msec_t                        pause;
    ngx_socket_t                      fd;
    ngx_http_upstream_reuse_parcel_t  parcel;

    static ngx_uint_t                 mine;

    if (ngx_exiting || ngx_terminate) {
        return;
    }

    pause = mine ? NGX_HTTP_UPSTREAM_REUSE_VISIT / 2
                 : NGX_HTTP_UPSTREAM_REUSE_VISIT * 2;

    mine = ngx_http_upstream_reuse_is_time_to_visit(pause);

    ngx_add_timer(ev, mine ? NGX_HTTP_UPSTREAM_REUSE_VISIT
                           : NGX_HTTP_UPSTREAM_REUSE_LAPSE);

    if (!mine) {
        return;
    }

    i = 0;

    for ( ;; ) {

        fd = ngx_http_upstream_reuse_visit_places(&i, reuse_visit, NULL,
                                                  &parcel);

        if (fd == (ngx_socket_t) -1) {
            return;
        }

        reuse_sweep(&parcel, fd);
    }
}


void
ngx_http_upstream_reuse_close_parked(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_reuse_close_e reason)
{
    ngx_uint_t                        i;
    ngx_socket_t                      fd;
    reuse_wanted_t                    wanted;
    ngx_http_upstream_reuse_parcel_t  parcel;

    if (!reuse_shares) {
        return;
    }

    wanted.conf = rcf;
    wanted.server = server;

    i = 0;

    for ( ;; ) {

        fd = ngx_http_upstream_reuse_visit_places(&i, reuse_is_to_server,
                                                  &wanted, &parcel);

        if (fd == (ngx_socket_t) -1) {
            return;
        }

        parcel.reason = reason;

        reuse_sweep(&parcel, fd);
    }
}


void
ngx_http_upstream_reuse_end_handover(void)
{
    ngx_str_t                         name, address;
    ngx_uint_t                        i;
    ngx_socket_t                      fd;
    ngx_http_upstream_reuse_parcel_t  parcel;

    if (!reuse_begun || !ngx_http_upstream_reuse_is_last_cycle()) {
        return;
    }

    i = 0;

    for ( ;; ) {

        fd = ngx_http_upstream_reuse_visit_places(&i, reuse_is_left, NULL,
                                                  &parcel);

        if (fd == (ngx_socket_t) -1) {
            return;
        }

        (void) ngx_close_socket(fd);

        name.data = ngx_http_upstream_reuse_parcel_name(&parcel);
        name.len = parcel.name_len;
        address.data = ngx_http_upstream_reuse_parcel_address(&parcel);
        address.len = parcel.socklen;

        ngx_http_upstream_reuse_count_swept(&name, &address,
                                       NGX_HTTP_UPSTREAM_REUSE_CLOSE_SHUTDOWN);
    }
}


static ngx_uint_t
reuse_is_left(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    void *data)
{
    return 1;
}


static ngx_uint_t
reuse_is_to_server(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    void *data)
{
    reuse_wanted_t  *wanted = data;

    return ngx_http_upstream_reuse_is_of_server(parcel, wanted->conf,
                                                wanted->server);
}


static ngx_uint_t
reuse_visit(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    void *data)
{
    ngx_str_t                            name;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    if (!reuse_is_parked_silent(fd)
        || (ngx_msec_int_t) (parcel->end - ngx_current_msec) <= 0)
    {
        return 1;
    }

    parcel->seen = ngx_current_msec;

    if ((ngx_int_t) (parcel->cycle - ngx_http_upstream_reuse_cycle) >= 0) {
        return 0;
    }

    name.data = ngx_http_upstream_reuse_parcel_name(parcel);
    name.len = parcel->name_len;

    rcf = ngx_http_upstream_reuse_find_conf(&name);

    if (reuse_why_unwanted(parcel, rcf)
        != NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT)
    {
        return 1;
    }

    parcel->cycle = ngx_http_upstream_reuse_cycle;

    return 0;
}


/* Closes a connection that was parked. */

static void
reuse_sweep(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd)
{
    ngx_str_t                            name, address;
    ngx_peer_connection_t                pc;
    ngx_http_upstream_reuse_conn_t      *conn;
    ngx_http_upstream_reuse_close_e      reason;
    ngx_http_upstream_reuse_server_t    *server;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    union {
        struct sockaddr  sockaddr;
        u_char           data[sizeof(ngx_sockaddr_t)];
    } addr;

    name.data = ngx_http_upstream_reuse_parcel_name(parcel);
    name.len = parcel->name_len;

    address.data = ngx_http_upstream_reuse_parcel_address(parcel);
    address.len = parcel->socklen;

    rcf = ngx_http_upstream_reuse_find_conf(&name);

    reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT;

    if ((ngx_int_t) (parcel->cycle - ngx_http_upstream_reuse_cycle) < 0) {
        reason = reuse_why_unwanted(parcel, rcf);
    }

    if (rcf == NULL || !ngx_http_upstream_reuse_has_layer(rcf)) {

        (void) ngx_close_socket(fd);
        ngx_http_upstream_reuse_count_swept(&name, &address, reason);

        return;
    }

    ngx_memzero(&pc, sizeof(ngx_peer_connection_t));
    ngx_memcpy(addr.data, address.data, address.len);

    pc.log = ngx_cycle->log;
    pc.sockaddr = &addr.sockaddr;
    pc.socklen = address.len;

    server = ngx_http_upstream_reuse_find_server(rcf, &pc);

    ngx_http_upstream_reuse_count(server, SWEPT);

    conn = reuse_adopt(rcf, server, &addr.sockaddr, parcel, fd,
                       ngx_cycle->log);

    if (conn == NULL) {
        return;
    }

    if (!reuse_is_parked_silent(fd)) {
        reuse_close_ended(conn, parcel);
        return;
    }

    conn->on_timeout = (reason == NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT)
                       ? parcel->reason : reason;
    conn->connection->read->timedout = 1;

    ngx_http_upstream_reuse_close(conn->connection);
}


/* Of a configuration that is not in force any more: whether it fits this. */

static ngx_http_upstream_reuse_close_e
reuse_why_unwanted(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    if (rcf == NULL) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_REMOVED;
    }

    if (!reuse_shares
        || rcf->reuse == 0
        || !ngx_http_upstream_reuse_has_layer(rcf))
    {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_OFF;
    }

    if (parcel->location
        || ngx_http_upstream_reuse_parcel_identity(parcel)->location
        || rcf->local)
    {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_IDENTITY;
    }

    if (!ngx_http_upstream_reuse_has_server(rcf->uscf,
                              ngx_http_upstream_reuse_parcel_address(parcel),
                              parcel->socklen))
    {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_REMOVED;
    }

    return NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT;
}
