
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A server that is down, or that is no server any more, gets no requests: its
 * connections are of no use.  Nobody tells us, so a worker that has any looks
 * at the servers of their upstreams from time to time, as the balancer has
 * them.  What it sees is kept as a set of hashes of addresses.  Two that
 * are alike may keep a connection open; none is closed for that.
 *
 * A request costs nothing of this.
 */


#include "ngx_http_upstream_reuse_connection.h"


/* memory is taken for so many servers at least */
#define NGX_HTTP_UPSTREAM_REUSE_FEW  16

/* 2^64 divided by the golden ratio, odd */
#define NGX_HTTP_UPSTREAM_REUSE_GOLDEN  0x9e3779b97f4a7c15ull


static void reuse_drain_handler(void);
static void reuse_drain(ngx_http_upstream_reuse_srv_conf_t *rcf);
static void reuse_leave(ngx_http_upstream_reuse_conn_t *conn);
static void reuse_read_servers(ngx_http_upstream_reuse_srv_conf_t *rcf);
static void reuse_update(ngx_http_upstream_reuse_srv_conf_t *rcf);
static ngx_uint_t reuse_is_due(ngx_http_upstream_reuse_srv_conf_t *rcf);
static ngx_int_t reuse_collect(ngx_http_upstream_rr_peers_t *peers);
static int ngx_libc_cdecl reuse_cmp_hashes(const void *one, const void *two);


/* worker: how many connections have a record, and when it looks */

static ngx_uint_t  reuse_nkept;

static ngx_http_upstream_reuse_task_t  reuse_look_task =
    ngx_http_upstream_reuse_task(reuse_drain_handler);

/* worker: answers that were looked at */

static ngx_atomic_uint_t  reuse_answers;

/* worker: the servers of the upstream that is looked at, in any order */

static uint32_t    *reuse_found;
static ngx_uint_t   reuse_nfound;
static ngx_uint_t   reuse_room;


void
ngx_http_upstream_reuse_register(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_queue_insert_tail(&conn->conf->kept, &conn->kept);
    reuse_nkept++;

    if (!reuse_look_task.scheduled) {
        ngx_http_upstream_reuse_schedule(&reuse_look_task,
                                         NGX_HTTP_UPSTREAM_REUSE_LOOK);
    }
}


void
ngx_http_upstream_reuse_unregister(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_queue_remove(&conn->kept);
    reuse_nkept--;
}


static void
reuse_drain_handler(void)
{
    ngx_uint_t                            i, answered;
    ngx_atomic_uint_t                     answers;
    ngx_http_upstream_main_conf_t        *umcf;
    ngx_http_upstream_reuse_srv_conf_t   *rcf;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    umcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_upstream_module);

    if (ngx_exiting || ngx_terminate || umcf == NULL || reuse_nkept == 0) {
        return;
    }

    rmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                              ngx_http_upstream_reuse_module);

    answered = 0;

    if (rmcf->answers) {
        answers = ngx_http_upstream_reuse_count_answers(rmcf->answers);
        answered = (answers != reuse_answers);
        reuse_answers = answers;
    }

    i = 0;

    while ((rcf = ngx_http_upstream_reuse_next_conf(umcf, &i))) {

        if (ngx_queue_empty(&rcf->kept)) {
            continue;
        }

        reuse_read_servers(rcf);

        /* whoever opens a connection may have looked before */

        if (rcf->unbounded ? answered : rcf->live.changed) {
            rcf->live.changed = 0;
            reuse_drain(rcf);
        }
    }

    ngx_http_upstream_reuse_schedule(&reuse_look_task,
                                     NGX_HTTP_UPSTREAM_REUSE_LOOK);
}


/* Those of servers that are gone are closed, or are not kept once more. */

static void
reuse_drain(ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    ngx_queue_t                     *q;
    ngx_http_upstream_reuse_conn_t  *conn;

    q = ngx_queue_head(&rcf->kept);

    while (q != ngx_queue_sentinel(&rcf->kept)) {

        conn = ngx_queue_data(q, ngx_http_upstream_reuse_conn_t, kept);
        q = ngx_queue_next(q);

        if (ngx_http_upstream_reuse_is_drained(conn)) {
            reuse_leave(conn);
        }
    }
}


static void
reuse_leave(ngx_http_upstream_reuse_conn_t *conn)
{
    switch (conn->state) {

    case NGX_HTTP_UPSTREAM_REUSE_CONN_USED:
        conn->leaving = 1;
        return;

    case NGX_HTTP_UPSTREAM_REUSE_CONN_IDLE:

        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, conn->connection->log, 0,
                       "upstream reuse: connection %p is drained",
                       conn->connection);

        conn->on_timeout = NGX_HTTP_UPSTREAM_REUSE_CLOSE_DRAINED;

        ngx_http_upstream_reuse_pool_remove(conn->connection);
        return;

    default:

        /* it is closed anyway */

        return;
    }
}


/* One that has gone since then, during its first request, was met before. */

ngx_uint_t
ngx_http_upstream_reuse_is_listed(ngx_http_upstream_reuse_conn_t *conn)
{
    uint32_t                             hash;
    ngx_uint_t                           listed;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = conn->conf;

    if (!rcf->round_robin) {
        return 0;
    }

    if (conn->server->listed) {
        return 1;
    }

    hash = ngx_crc32_short((u_char *) conn->sockaddr, conn->socklen);

    if (!rcf->live.known
        || !ngx_http_upstream_reuse_is_live(&rcf->live, hash))
    {
        reuse_read_servers(rcf);
    }

    listed = rcf->live.known
             && ngx_http_upstream_reuse_is_live(&rcf->live, hash);

    /* a server that stands for others has no address */

    if (conn->server->node.str.len) {
        conn->server->listed = listed;
    }

    return listed;
}


ngx_uint_t
ngx_http_upstream_reuse_is_drained(ngx_http_upstream_reuse_conn_t *conn)
{
    uint32_t                             hash;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = conn->conf;

    if (rcf->unbounded) {
        return conn->target
               && ngx_http_upstream_reuse_is_unanswered(rcf->main->answers,
                                           conn->target, conn->sockaddr,
                                           conn->connection->start_time);
    }

    if (!conn->listed) {
        return 0;
    }

    hash = ngx_crc32_short((u_char *) conn->sockaddr, conn->socklen);

    if (reuse_is_due(rcf)) {
        reuse_read_servers(rcf);
    }

    if (ngx_http_upstream_reuse_is_live(&rcf->live, hash)) {
        return 0;
    }

    /* it may have come back since */

    if (rcf->live.looked != ngx_current_msec) {
        reuse_read_servers(rcf);
    }

    return !ngx_http_upstream_reuse_is_live(&rcf->live, hash);
}


void
ngx_http_upstream_reuse_look_at_servers(void)
{
    ngx_uint_t                            i;
    ngx_http_upstream_main_conf_t        *umcf;
    ngx_http_upstream_reuse_srv_conf_t   *rcf;

    umcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_upstream_module);

    i = 0;

    while ((rcf = ngx_http_upstream_reuse_next_conf(umcf, &i))) {

        if (ngx_http_upstream_reuse_has_layer(rcf) && reuse_is_due(rcf)) {
            reuse_read_servers(rcf);
        }
    }
}


static ngx_uint_t
reuse_is_due(ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    return rcf->live.looked == 0
           || ngx_current_msec - rcf->live.looked
              >= NGX_HTTP_UPSTREAM_REUSE_LOOK / 2;
}


static void
reuse_read_servers(ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    ngx_int_t                        rc;
    ngx_http_upstream_rr_peers_t    *peers;

    if (!rcf->round_robin) {
        return;
    }

    rcf->live.looked = ngx_current_msec;

    reuse_nfound = 0;
    rc = NGX_OK;

    for (peers = rcf->uscf->peer.data;
         peers && rc == NGX_OK;
         peers = peers->next)
    {
        /* backup servers have a lock of their own */

        ngx_http_upstream_rr_peers_rlock(peers);

        rc = reuse_collect(peers);

        ngx_http_upstream_rr_peers_unlock(peers);
    }

    if (rc == NGX_OK) {
        reuse_update(rcf);
    }
}


/* With what was found: the sum tells whether it is the same, in any order. */

static void
reuse_update(ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    uint32_t                        *hashes;
    uint64_t                         sum, mixed;
    ngx_uint_t                       i;
    ngx_http_upstream_reuse_live_t  *live;

    live = &rcf->live;
    sum = reuse_nfound;

    for (i = 0; i < reuse_nfound; i++) {
        mixed = (reuse_found[i] + 1) * NGX_HTTP_UPSTREAM_REUSE_GOLDEN;
        mixed ^= mixed >> 29;
        sum += mixed * NGX_HTTP_UPSTREAM_REUSE_GOLDEN;
    }

    if (sum == live->sum && reuse_nfound == live->n) {
        return;
    }

    if (reuse_nfound > live->room) {

        /* room is doubled, so that what is left behind is no more than that */

        hashes = ngx_palloc(rcf->main->pool, reuse_room * sizeof(uint32_t));
        if (hashes == NULL) {
            return;
        }

        if (live->hashes) {
            (void) ngx_pfree(rcf->main->pool, live->hashes);
        }

        live->hashes = hashes;
        live->room = reuse_room;
    }

    live->n = reuse_nfound;
    live->sum = sum;

    if (live->n) {
        ngx_memcpy(live->hashes, reuse_found, live->n * sizeof(uint32_t));
        qsort(live->hashes, live->n, sizeof(uint32_t), reuse_cmp_hashes);

        /* when a worker begins, names may still be being resolved */

        live->known = 1;
    }

    live->changed = 1;
}


static ngx_int_t
reuse_collect(ngx_http_upstream_rr_peers_t *peers)
{
    uint32_t                     *hashes;
    ngx_uint_t                    room;
    ngx_http_upstream_rr_peer_t  *peer;

    for (peer = peers->peer; peer; peer = peer->next) {

        if (peer->down) {
            continue;
        }

        if (reuse_nfound == reuse_room) {

            room = ngx_max(2 * reuse_room, NGX_HTTP_UPSTREAM_REUSE_FEW);

            hashes = ngx_alloc(room * sizeof(uint32_t), ngx_cycle->log);
            if (hashes == NULL) {
                return NGX_ERROR;
            }

            if (reuse_found) {
                ngx_memcpy(hashes, reuse_found,
                           reuse_nfound * sizeof(uint32_t));
                ngx_free(reuse_found);
            }

            reuse_found = hashes;
            reuse_room = room;
        }

        reuse_found[reuse_nfound++] = ngx_crc32_short((u_char *)
                                                      peer->sockaddr,
                                                      peer->socklen);
    }

    return NGX_OK;
}


/* Nothing is drained while nothing is known. */

ngx_uint_t
ngx_http_upstream_reuse_is_live(ngx_http_upstream_reuse_live_t *live,
    uint32_t hash)
{
    return !live->known
           || (live->n
               && bsearch(&hash, live->hashes, live->n, sizeof(uint32_t),
                          reuse_cmp_hashes));
}


static int ngx_libc_cdecl
reuse_cmp_hashes(const void *one, const void *two)
{
    uint32_t  a, b;

    a = *(const uint32_t *) one;
    b = *(const uint32_t *) two;

    return (a > b) - (a < b);
}
