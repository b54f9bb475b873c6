
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A worker parks an idle connection, so that any worker can take it.
 */


#include "ngx_http_upstream_reuse_share.h"


static void reuse_pack_age(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_conn_t *conn);
static void reuse_forget_events(ngx_connection_t *c);


ngx_int_t
ngx_http_upstream_reuse_park_conn(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_msec_t                        end;
    ngx_event_t                      *rev;
    ngx_connection_t                 *c;
    ngx_pool_cleanup_t               *cln;
    ngx_http_upstream_reuse_parcel_t  parcel;

    c = conn->connection;
    rev = c->read;
    cln = c->pool->cleanup;

    /*
     * A second cleanup is that of a state which cannot leave the worker.  As
     * a worker ends, TLS may have been shut down before this is called.
     */

    if (ngx_http_upstream_reuse_nplaces == 0
        || conn->conf->reuse == 0
        || conn->identity->ssl
        || rev->eof || rev->error || rev->timedout || rev->ready
        || c->write->error
        || cln == NULL || cln->next
        || conn->outlives)
    {
        return NGX_DECLINED;
    }

    if (ngx_http_upstream_reuse_label(&parcel, conn->identity, conn->sockaddr,
                                      conn->socklen, &conn->conf->name)
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    end = ngx_http_upstream_reuse_left(conn);

    parcel.reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED;

    if (c->idle && rev->timer_set) {

        /* maybe later: it shows whether what was learned is wrong */

        end = rev->timer.key - ngx_current_msec;
        parcel.reason = conn->on_timeout;
    }

    if ((ngx_msec_int_t) end <= 0) {
        return NGX_DECLINED;
    }

    parcel.end = ngx_current_msec + end;

    if (conn->lifetime) {
        reuse_pack_age(&parcel, conn);
    }

    ngx_http_upstream_reuse_pack(&parcel, conn);

    if (ngx_http_upstream_reuse_park(&parcel, c->fd, conn->server) != NGX_OK) {
        return NGX_DECLINED;
    }

    reuse_forget_events(c);

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "upstream reuse: connection %p of socket %d is parked "
                   "for %M", c, c->fd, end);

    return NGX_OK;
}


/*
 * A reload may change the age while nobody uses the connection.  A timer that
 * is not for the age may be later than what is left, and holds.
 */

static void
reuse_pack_age(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_conn_t *conn)
{
    if (parcel->end != conn->connection->start_time + conn->lifetime) {
        parcel->unaged_end = parcel->end;
        return;
    }

    parcel->reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_AGE;
    parcel->unaged_end = ngx_current_msec
                         + ngx_http_upstream_reuse_idle_left(conn);
}


/* The system goes on telling of a descriptor that is open elsewhere. */

static void
reuse_forget_events(ngx_connection_t *c)
{
    if (ngx_del_conn) {
        (void) ngx_del_conn(c, 0);
        return;
    }

    if (c->read->active || c->read->disabled) {
        (void) ngx_del_event(c->read, NGX_READ_EVENT, 0);
    }

    if (c->write->active || c->write->disabled) {
        (void) ngx_del_event(c->write, NGX_WRITE_EVENT, 0);
    }
}
