
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A worker frees what it has of a server that is gone, its tally in the zone
 * included, once it has no connection to it.
 */


#include "ngx_http_upstream_reuse_accounts.h"


/* milliseconds between two looks of a worker at its servers */
#define NGX_HTTP_UPSTREAM_REUSE_TURN      1000

/* looks that must find requests to one which its upstream does not have */
#define NGX_HTTP_UPSTREAM_REUSE_MISSED    3

/* far from where a word of a tally wraps around */
#define NGX_HTTP_UPSTREAM_REUSE_MUCH      0x10000


static void reuse_handler(void);
static void reuse_look_at_servers(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_uint_t *checks);
static void reuse_look_at_tally(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);
static ngx_uint_t reuse_fold_much(ngx_shm_zone_t *shm_zone,
    ngx_http_upstream_reuse_server_t *server);


/* worker */

static ngx_http_upstream_reuse_task_t  reuse_task =
    ngx_http_upstream_reuse_task(reuse_handler);


void
ngx_http_upstream_reuse_begin_gone(void)
{
    ngx_http_upstream_reuse_schedule(&reuse_task,
                                     NGX_HTTP_UPSTREAM_REUSE_TURN);
}


/* What a worker leaves that ends, others find. */

static void
reuse_handler(void)
{
    ngx_uint_t                            i, checks;
    ngx_msec_t                            pause;
    ngx_slab_pool_t                      *shpool;
    ngx_http_upstream_main_conf_t        *umcf;
    ngx_http_upstream_reuse_zone_t       *zone;
    ngx_http_upstream_reuse_server_t     *server;
    ngx_http_upstream_reuse_srv_conf_t   *rcf;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    if (ngx_exiting || ngx_terminate) {
        return;
    }

    ngx_http_upstream_reuse_schedule(&reuse_task,
                                     NGX_HTTP_UPSTREAM_REUSE_TURN);

    rmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                              ngx_http_upstream_reuse_module);
    if (rmcf == NULL) {
        return;
    }

    umcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_upstream_module);

    i = 0;
    checks = 0;

    while ((rcf = ngx_http_upstream_reuse_next_conf(umcf, &i))) {
        reuse_look_at_servers(rcf, &checks);
    }

    for (i = 0; i < 2; i++) {
        server = ngx_http_upstream_reuse_common_server(i);

        if (server) {
            (void) reuse_fold_much(rmcf->zone, server);
        }
    }

    zone = rmcf->zone->data;
    shpool = (ngx_slab_pool_t *) rmcf->zone->shm.addr;

    pause = ngx_http_upstream_reuse_is_room_wanted(zone, 1)
            ? NGX_HTTP_UPSTREAM_REUSE_TURN : NGX_HTTP_UPSTREAM_REUSE_CHECK;

    if ((ngx_msec_int_t) (ngx_current_msec - zone->folded)
        < (ngx_msec_int_t) pause)
    {
        return;
    }

    ngx_shmtx_lock(&shpool->mutex);

    zone->folded = ngx_current_msec;

    ngx_http_upstream_reuse_fold(rmcf->zone);

    ngx_shmtx_unlock(&shpool->mutex);
}


/* The one that was not used for longest comes first. */

static void
reuse_look_at_servers(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_uint_t *checks)
{
    ngx_uint_t                         room, freed;
    ngx_msec_t                         unused;
    ngx_queue_t                       *q, *last;
    ngx_http_upstream_reuse_server_t  *server;

    if (ngx_queue_empty(&rcf->by_use)) {
        return;
    }

    room = ngx_http_upstream_reuse_is_room_wanted(rcf->main->zone->data,
                                                  rcf->unbounded);
    freed = 0;

    q = ngx_queue_head(&rcf->by_use);
    last = ngx_queue_last(&rcf->by_use);

    for ( ;; ) {

        server = ngx_queue_data(q, ngx_http_upstream_reuse_server_t, by_use);

        /* it may be moved behind the last, or freed */

        q = (q == last) ? NULL : ngx_queue_next(q);

        reuse_look_at_tally(rcf, server);

        unused = ngx_http_upstream_reuse_passed_since(server->active);

        if (ngx_http_upstream_reuse_may_free()
            && unused >= NGX_HTTP_UPSTREAM_REUSE_TURN
            && (room || ngx_current_msec - server->checked
                        >= NGX_HTTP_UPSTREAM_REUSE_CHECK)
            && *checks < NGX_HTTP_UPSTREAM_REUSE_CHECKS
            && freed < NGX_HTTP_UPSTREAM_REUSE_FREED
            && !ngx_http_upstream_reuse_is_used_server(server))
        {
            (*checks)++;
            server->checked = ngx_current_msec;

            if (ngx_http_upstream_reuse_is_gone(rcf, rcf->unbounded,
                                                server->node.str.data,
                                                server->node.str.len,
                                                unused, room))
            {
                (void) ngx_http_upstream_reuse_free_server(rcf, server);
                freed++;
            }
        }

        if (q == NULL) {
            return;
        }
    }
}


static void
reuse_look_at_tally(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server)
{
    uint32_t  requests;

    requests = ngx_http_upstream_reuse_sum_tally(server->tally->counters);

    if (requests == server->requests) {
        return;
    }

    if (!rcf->unbounded && !server->asked) {

        if (ngx_http_upstream_reuse_has_server(rcf->uscf,
                                               server->node.str.data,
                                               server->node.str.len))
        {
            server->asked = 1;

        } else if (++server->missed == NGX_HTTP_UPSTREAM_REUSE_MISSED) {

            /* one that has gone meanwhile would get no request any more */

            rcf->foreign = 1;
            server->asked = 1;
        }
    }

    server->requests = requests;
    server->active = ngx_current_msec;

    ngx_queue_remove(&server->by_use);
    ngx_queue_insert_tail(&rcf->by_use, &server->by_use);

    if (reuse_fold_much(rcf->main->zone, server)) {
        server->requests =
                  ngx_http_upstream_reuse_sum_tally(server->tally->counters);
    }
}


/* Returns 1 if its tally has less now than it had counted. */

static ngx_uint_t
reuse_fold_much(ngx_shm_zone_t *shm_zone,
    ngx_http_upstream_reuse_server_t *server)
{
    uint32_t         *n;
    ngx_uint_t        i;
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    n = server->tally->counters;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_TALLY; i++) {

        if ((int32_t) n[i] >= NGX_HTTP_UPSTREAM_REUSE_MUCH) {

            ngx_shmtx_lock(&shpool->mutex);
            ngx_http_upstream_reuse_fold_tally(server->record, server->tally);
            ngx_shmtx_unlock(&shpool->mutex);

            return 1;
        }
    }

    return 0;
}
