
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Every request and every connection is counted once at its beginning and
 * once at its end.  A worker counts in memory of its own, so that nothing is
 * waited for; only the time that a connection took is counted by all together.
 */


#include "ngx_http_upstream_reuse_accounts.h"


/* milliseconds: from then on nginx's own clock is exact enough */
#define NGX_HTTP_UPSTREAM_REUSE_COARSE  2


static void reuse_count_time(ngx_atomic_t *bucket, uint64_t us);


ngx_uint_t  ngx_http_upstream_reuse_bounds[] = {
    500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000,
    1000000
};


void
ngx_http_upstream_reuse_count_request(ngx_http_upstream_reuse_peer_t *rp)
{
    uint32_t  *n;

    n = rp->server->tally->counters;

    if (rp->account.why_new == NGX_HTTP_UPSTREAM_REUSE_NEW_NONE) {
        n[rp->account.warm ? NGX_HTTP_UPSTREAM_REUSE_WARM
                   : NGX_HTTP_UPSTREAM_REUSE_REUSED]++;
        n[NGX_HTTP_UPSTREAM_REUSE_IDLE]--;

    } else {
        n[NGX_HTTP_UPSTREAM_REUSE_NEW + rp->account.why_new]++;
        n[NGX_HTTP_UPSTREAM_REUSE_OPENED] += !rp->account.opened;
    }

    if (rp->server->uncounted) {
        (void) ngx_atomic_fetch_add(rp->server->uncounted, 1);
    }

    rp->account.holds = 1;
}


/*
 * Where the time is too short for nginx's clock, or not known, the kernel's
 * round trip stands for it.
 */

void
ngx_http_upstream_reuse_count_times(ngx_http_upstream_reuse_server_t *server,
    ngx_connection_t *c, ngx_msec_t all, ngx_msec_t tcp, ngx_uint_t rtt)
{
    uint64_t       us;
    ngx_atomic_t  *n;
#if (NGX_HTTP_SSL)
    ngx_uint_t     i;
#endif

    if (server->uncounted) {
        return;
    }

    n = (ngx_atomic_t *) server->record->counters;

    us = (uint64_t) tcp * 1000;

    if (tcp < NGX_HTTP_UPSTREAM_REUSE_COARSE && rtt) {
        us = rtt;
    }

    reuse_count_time(&n[NGX_HTTP_UPSTREAM_REUSE_CONNECT], us);

#if (NGX_HTTP_SSL)

    if (c->ssl) {
        reuse_count_time(&n[NGX_HTTP_UPSTREAM_REUSE_TLS],
                         (uint64_t) all * 1000 > us
                         ? (uint64_t) all * 1000 - us : 0);

        if (SSL_session_reused(c->ssl->connection)) {
            i = NGX_HTTP_UPSTREAM_REUSE_HANDSHAKES_RESUMED;

        } else {
            i = NGX_HTTP_UPSTREAM_REUSE_HANDSHAKES_FULL;
        }

        (void) ngx_atomic_fetch_add(&n[i], 1);
    }

#endif
}


/*
 * Core measures in milliseconds, from the beginning to the end of TLS, if
 * there is any.  When TCP was there is known from when the TLS session was
 * asked for.
 */

void
ngx_http_upstream_reuse_count_peer_times(ngx_http_upstream_reuse_peer_t *rp,
    ngx_connection_t *c)
{
    ngx_msec_t  all, tcp;

    all = rp->upstream->state->connect_time;

    if (all == (ngx_msec_t) -1) {
        return;
    }

    tcp = all;

#if (NGX_HTTP_SSL)

    if (c->ssl) {
        tcp = rp->account.connected
              ? rp->account.connected - rp->account.start : 0;
    }

#endif

    ngx_http_upstream_reuse_count_times(rp->server, c, all, tcp,
                                        rp->account.rtt);
}


/* A connection takes long enough to open that this may be locked. */

static void
reuse_count_time(ngx_atomic_t *bucket, uint64_t us)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_BUCKETS - 1; i++) {
        if (us <= ngx_http_upstream_reuse_bounds[i]) {
            break;
        }
    }

    (void) ngx_atomic_fetch_add(&bucket[i], 1);
    (void) ngx_atomic_fetch_add(&bucket[NGX_HTTP_UPSTREAM_REUSE_BUCKETS],
                                (ngx_atomic_int_t) us);
}


/* All ways of having a connection stand side by side. */

ngx_atomic_uint_t
ngx_http_upstream_reuse_sum_requests(volatile ngx_atomic_uint_t *counters)
{
    ngx_uint_t         i;
    ngx_atomic_uint_t  sum;

    sum = 0;

    for (i = NGX_HTTP_UPSTREAM_REUSE_REUSED;
         i < NGX_HTTP_UPSTREAM_REUSE_OPENED;
         i++)
    {
        sum += counters[i];
    }

    return sum;
}


int32_t
ngx_http_upstream_reuse_sum_tally(volatile uint32_t *counters)
{
    uint32_t    sum;
    ngx_uint_t  i;

    sum = 0;

    for (i = NGX_HTTP_UPSTREAM_REUSE_REUSED;
         i < NGX_HTTP_UPSTREAM_REUSE_OPENED;
         i++)
    {
        sum += counters[i];
    }

    return (int32_t) sum;
}
