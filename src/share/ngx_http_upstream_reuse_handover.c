
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What a worker uses all the time stays in its own pool and costs nothing.
 * A connection that has been idle there for a moment is parked; a worker whose
 * pool has none for a request looks there before it opens one.
 *
 * Where a moment has passed, the next one would most often pass as well: then
 * connections to that server are parked as soon as their requests are over,
 * until one turns out to be needed again within a moment.
 */


#include "ngx_http_upstream_reuse_share.h"


/* milliseconds: a connection is idle for so long before it is parked */
#define NGX_HTTP_UPSTREAM_REUSE_MOMENT  10


static void reuse_moment_handler(ngx_event_t *ev);


/* worker: connections that were idle, and maybe still are */

static ngx_queue_t       reuse_offered;

static ngx_event_t       reuse_moment_event;
static ngx_connection_t  reuse_dummy;


void
ngx_http_upstream_reuse_begin_handover(ngx_cycle_t *cycle)
{
    if (ngx_http_upstream_reuse_enter_places(cycle) == 0) {
        return;
    }

    ngx_queue_init(&reuse_offered);

    ngx_http_upstream_reuse_leave = ngx_http_upstream_reuse_park_conn;

    /* a debug log names the connection of a timer */

    reuse_dummy.fd = (ngx_socket_t) -1;

    reuse_moment_event.handler = reuse_moment_handler;
    reuse_moment_event.data = &reuse_dummy;
    reuse_moment_event.log = ngx_cycle->log;
    reuse_moment_event.cancelable = 1;

    /* also if none is parked any more: what was parked before is closed */

    ngx_http_upstream_reuse_begin_sweep();
}


void
ngx_http_upstream_reuse_offer(ngx_http_upstream_reuse_conn_t *conn)
{
    if (conn->offers) {

        /* one that has been used meanwhile is still there */

        return;
    }

    if (ngx_http_upstream_reuse_nplaces == 0) {
        return;
    }

#if (NGX_HTTP_SSL)
    if (conn->connection->ssl) {
        return;
    }
#endif

    /* where requests may wait, those are looked at first */

    if (conn->server->slow
        && !conn->warm
        && conn->conf->waiters == NULL
        && ngx_http_upstream_reuse_hand_over(conn) == NGX_OK)
    {
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
    ngx_msec_int_t                   left, soonest;
    ngx_http_upstream_reuse_conn_t  *conn;

    soonest = NGX_HTTP_UPSTREAM_REUSE_MOMENT;

    q = ngx_queue_head(&reuse_offered);

    while (q != ngx_queue_sentinel(&reuse_offered)) {

        conn = ngx_queue_data(q, ngx_http_upstream_reuse_conn_t, offered);
        q = ngx_queue_next(q);

        if (conn->state == NGX_HTTP_UPSTREAM_REUSE_CONN_IDLE) {

            left = conn->since + NGX_HTTP_UPSTREAM_REUSE_MOMENT
                   - ngx_current_msec;

            if (left > 0) {
                soonest = ngx_min(soonest, left);
                continue;
            }
        }

        ngx_queue_remove(&conn->offered);
        conn->offers = 0;

        if (conn->state == NGX_HTTP_UPSTREAM_REUSE_CONN_IDLE) {
            conn->server->slow = 1;
            (void) ngx_http_upstream_reuse_hand_over(conn);
        }
    }

    if (!ngx_queue_empty(&reuse_offered)) {
        ngx_add_timer(ev, soonest);
    }
}


/* What cannot be parked stays in the pool. */

ngx_int_t
ngx_http_upstream_reuse_hand_over(ngx_http_upstream_reuse_conn_t *conn)
{
    if (ngx_http_upstream_reuse_park_conn(conn) != NGX_OK) {
        return NGX_DECLINED;
    }

    ngx_http_upstream_reuse_set_state(conn,
                                      NGX_HTTP_UPSTREAM_REUSE_CONN_PARKED);

    if (conn->queued) {
        conn->conf->listener->end_idle(conn);
    }

    ngx_http_upstream_reuse_pool_remove(conn->connection);

    return NGX_OK;
}


void
ngx_http_upstream_reuse_note_pace(ngx_http_upstream_reuse_server_t *server,
    ngx_msec_t age)
{
    if (age < NGX_HTTP_UPSTREAM_REUSE_MOMENT) {
        server->slow = 0;
    }
}


ngx_int_t
ngx_http_upstream_reuse_take_over(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc)
{
    ngx_socket_t                      fd;
    ngx_http_upstream_reuse_conn_t   *conn;
    ngx_http_upstream_reuse_parcel_t  parcel;

    /* what is taken out and cannot be used would be closed */

    if (ngx_http_upstream_reuse_nplaces == 0
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
    parcel.stands = rp->server->stands;

    for ( ;; ) {

        fd = ngx_http_upstream_reuse_unpark(&parcel, rp->server);

        if (fd == (ngx_socket_t) -1) {
            return NGX_DECLINED;
        }

        conn = ngx_http_upstream_reuse_adopt(rp->conf, rp->server,
                                             pc->sockaddr, &parcel, fd,
                                             pc->log);

        if (conn == NULL) {
            return NGX_DECLINED;
        }

        if (ngx_http_upstream_reuse_is_quiet(fd)) {
            break;
        }

        rp->account.why_new = NGX_HTTP_UPSTREAM_REUSE_NEW_STALE;

        ngx_http_upstream_reuse_close_ended(conn, &parcel);

        parcel.cycle = ngx_http_upstream_reuse_cycle;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "upstream reuse: connection %p of socket %d is taken over",
                   conn->connection, fd);

    if (parcel.pid == ngx_pid) {
        ngx_http_upstream_reuse_note_pace(rp->server,
                                          ngx_current_msec - parcel.since);
    }

    ngx_http_upstream_reuse_uncount(rp->server, SWEPT);
    ngx_http_upstream_reuse_count(rp->server, TAKEN_OVER);

    pc->connection = conn->connection;
    pc->cached = 1;

    return NGX_DONE;
}


