
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What is known of a connection, as far as another worker has to know it.
 */


#include "ngx_http_upstream_reuse.h"
#include "ngx_http_upstream_reuse_places.h"


/* 2^64 divided by the golden ratio, odd: spreads words that are alike */
#define NGX_HTTP_UPSTREAM_REUSE_GOLDEN  0x9e3779b97f4a7c15ull


static void reuse_pack_age(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_conn_t *conn);
static void reuse_pack(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_conn_t *conn);
static void reuse_forget_events(ngx_connection_t *c);


ngx_int_t
ngx_http_upstream_reuse_label(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_identity_t *id, struct sockaddr *sockaddr,
    socklen_t socklen, ngx_str_t *name)
{
    size_t    len;
    u_char   *p;
    uint64_t  hash, *word;

    len = id->len + socklen + name->len;

    if (len >= NGX_HTTP_UPSTREAM_REUSE_LABEL) {
        return NGX_DECLINED;
    }

    parcel->label[len / sizeof(uint64_t)] = 0;

    p = ngx_cpymem(parcel->label, id, id->len);
    p = ngx_cpymem(p, sockaddr, socklen);
    ngx_memcpy(p, name->data, name->len);

    parcel->label_len = (uint32_t) len;
    parcel->socklen = socklen;
    parcel->name_len = name->len;
    parcel->zone = ngx_http_upstream_reuse_zone_cycle;

    hash = 0;

    for (word = parcel->label;
         word <= &parcel->label[len / sizeof(uint64_t)];
         word++)
    {
        hash = (hash ^ *word) * NGX_HTTP_UPSTREAM_REUSE_GOLDEN;
        hash ^= hash >> 32;
    }

    parcel->hash = (uint32_t) hash;

    return NGX_OK;
}


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

    reuse_pack(&parcel, conn);

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


static void
reuse_pack(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_connection_t  *c;

    c = conn->connection;

    parcel->location = conn->conf->local ? conn->location : NULL;
    parcel->cycle = ngx_http_upstream_reuse_cycle;

    parcel->pid = ngx_pid;
    parcel->start = c->start_time;
    parcel->lifetime = conn->lifetime;
    parcel->target = conn->target;
    parcel->since = conn->since;
    parcel->seen = ngx_current_msec;

    parcel->rtt = conn->rtt;
    parcel->announced = conn->announced;
    parcel->max = conn->max;
    parcel->requests = c->requests;
    parcel->sent = conn->sent;

    parcel->stands = conn->server->stands;
    parcel->warm = conn->warm;
    parcel->listed = conn->listed;
    parcel->nodelay = c->tcp_nodelay;
    parcel->nopush = c->tcp_nopush;
}


void
ngx_http_upstream_reuse_unpack(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_connection_t  *c;

    c = conn->connection;

    c->start_time = parcel->start;
    conn->lifetime = parcel->lifetime;
    conn->target = parcel->target;
    conn->since = parcel->since;

    conn->rtt = parcel->rtt;
    conn->announced = parcel->announced;
    conn->max = parcel->max;
    c->requests = parcel->requests;
    conn->sent = parcel->sent;

    conn->warm = parcel->warm;
    conn->listed = parcel->listed;
    c->tcp_nodelay = parcel->nodelay;
    c->tcp_nopush = parcel->nopush;
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
