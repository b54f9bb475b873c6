
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Where connections are limited, an idle one that a request cannot use is
 * closed for one that it opens.  What is idle in other workers is asked for
 * once the request waits.
 */


#include "ngx_http_upstream_reuse_limit.h"


/* so many are closed for one that is to be opened, at most */
#define NGX_HTTP_UPSTREAM_REUSE_EVICTED  8


static ngx_uint_t reuse_evict_own(ngx_http_upstream_reuse_peer_t *rp);


ngx_uint_t
ngx_http_upstream_reuse_evict(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_uint_t                         i;
    ngx_http_upstream_reuse_server_t  *server;

    server = rp->server;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_EVICTED; i++) {

        if (!reuse_evict_own(rp)
            && !ngx_http_upstream_reuse_close_one_parked(rp->conf, server,
                                     NGX_HTTP_UPSTREAM_REUSE_CLOSE_LIMIT))
        {
            return 0;
        }

        if (ngx_http_upstream_reuse_open_slot(server, 0)) {
            return 1;
        }
    }

    return 0;
}


static ngx_uint_t
reuse_evict_own(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_queue_t                        *q;
    ngx_http_upstream_reuse_conn_t     *conn;
    ngx_http_upstream_reuse_waiters_t  *waiters;

    waiters = rp->conf->waiters;

    for (q = ngx_queue_head(&waiters->spare);
         q != ngx_queue_sentinel(&waiters->spare);
         q = ngx_queue_next(q))
    {
        conn = ngx_queue_data(q, ngx_http_upstream_reuse_conn_t, spare);

        if (conn->server->record == rp->server->record) {
            conn->on_timeout = NGX_HTTP_UPSTREAM_REUSE_CLOSE_LIMIT;
            ngx_http_upstream_reuse_pool_remove(conn->connection);

            return 1;
        }
    }

    return 0;
}
