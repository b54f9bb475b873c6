
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What is known of a connection, as far as another worker has to know it.
 */


#include "ngx_http_upstream_reuse_share.h"


/* 2^64 divided by the golden ratio, odd: spreads words that are alike */
#define NGX_HTTP_UPSTREAM_REUSE_GOLDEN  0x9e3779b97f4a7c15ull


static ngx_msec_t reuse_not_later(ngx_msec_t time);


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


void
ngx_http_upstream_reuse_pack(ngx_http_upstream_reuse_parcel_t *parcel,
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

    c->start_time = reuse_not_later(parcel->start);
    conn->lifetime = parcel->lifetime;
    conn->target = parcel->target;
    conn->since = reuse_not_later(parcel->since);

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


/*
 * Each worker looks at the clock when its events begin, so that another one
 * may have parked a connection later than it is here.
 */

static ngx_msec_t
reuse_not_later(ngx_msec_t time)
{
    return ngx_current_msec - ngx_http_upstream_reuse_passed_since(time);
}


ngx_uint_t
ngx_http_upstream_reuse_is_parcel_drained(
    ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    union {
        struct sockaddr  sockaddr;
        u_char           data[sizeof(ngx_sockaddr_t)];
    } addr;

    if (parcel->socklen > sizeof(ngx_sockaddr_t)) {
        return 0;
    }

    ngx_memcpy(addr.data, ngx_http_upstream_reuse_parcel_address(parcel),
               parcel->socklen);

    if (rcf->unbounded) {
        return parcel->target && rcf->main->answers
               && ngx_http_upstream_reuse_is_unanswered(rcf->main->answers,
                                             parcel->target, &addr.sockaddr,
                                             parcel->start);
    }

    return parcel->listed
           && rcf->round_robin
           && !ngx_http_upstream_reuse_is_live(&rcf->live,
                             ngx_crc32_short(addr.data, parcel->socklen));
}


void
ngx_http_upstream_reuse_renew_age(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_parcel_t *parcel)
{
    ngx_msec_t  end;

    if (parcel->lifetime) {
        parcel->end = parcel->unaged_end;

        if (parcel->reason == NGX_HTTP_UPSTREAM_REUSE_CLOSE_AGE) {
            parcel->reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED;
        }
    }

    parcel->lifetime = ngx_http_upstream_reuse_renew_lifetime(rcf,
                                                             parcel->lifetime);
    parcel->unaged_end = parcel->end;

    end = parcel->start + parcel->lifetime;

    if (parcel->lifetime && (ngx_msec_int_t) (end - parcel->end) < 0) {
        parcel->end = end;
        parcel->reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_AGE;
    }
}


void
ngx_http_upstream_reuse_count_swept(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_close_e reason)
{
    u_char                               *p;
    ngx_str_t                             key;
    ngx_slab_pool_t                      *shpool;
    ngx_http_upstream_reuse_zone_t       *zone;
    ngx_http_upstream_reuse_record_t     *record;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                              ngx_http_upstream_reuse_module);

    shpool = (ngx_slab_pool_t *) rmcf->zone->shm.addr;
    zone = rmcf->zone->data;

    if (ngx_http_upstream_reuse_is_foreign(parcel)) {
        return;
    }

    key.len = parcel->name_len + 1 + parcel->socklen;
    key.data = ngx_alloc(key.len, ngx_cycle->log);
    if (key.data == NULL) {
        return;
    }

    p = ngx_cpymem(key.data, ngx_http_upstream_reuse_parcel_name(parcel),
                   parcel->name_len);
    *p++ = '\0';
    ngx_memcpy(p, ngx_http_upstream_reuse_parcel_address(parcel),
               parcel->socklen);

    ngx_shmtx_lock(&shpool->mutex);

    if (parcel->stands == NGX_HTTP_UPSTREAM_REUSE_STANDS_OTHERS) {
        key.len = parcel->name_len + 1;
    }

    record = (parcel->stands == NGX_HTTP_UPSTREAM_REUSE_STANDS_OVERFLOW)
             ? NULL : ngx_http_upstream_reuse_lookup_record(zone, &key);

    if (record == NULL) {
        record = &zone->overflow;
    }

    record->counters[NGX_HTTP_UPSTREAM_REUSE_SWEPT]++;
    record->counters[NGX_HTTP_UPSTREAM_REUSE_CLOSED + reason]++;
    record->ended++;

    ngx_shmtx_unlock(&shpool->mutex);

    ngx_free(key.data);
}
