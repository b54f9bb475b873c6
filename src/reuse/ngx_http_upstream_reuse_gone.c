
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A worker frees what it has of a server that is gone, its share in the zone
 * included, once it has no connection to it.
 *
 * Gone is what round robin does not know any more.  Where variables or other
 * balancers choose addresses, what has had no request for long is taken for
 * gone, and earlier if there is no room for others.
 */


#include "ngx_http_upstream_reuse.h"


/* milliseconds between two looks of a worker at its servers */
#define NGX_HTTP_UPSTREAM_REUSE_TURN      1000

/* milliseconds without a request: of one that is gone, and may be */
#define NGX_HTTP_UPSTREAM_REUSE_GONE      (60 * 1000)
#define NGX_HTTP_UPSTREAM_REUSE_UNUSED    (60 * 60 * 1000)

/* for so many milliseconds after it was wanted, room is made */
#define NGX_HTTP_UPSTREAM_REUSE_WANTED    3000

/* servers of an upstream that are freed at a time */
#define NGX_HTTP_UPSTREAM_REUSE_FREED     32

/* looks that must find requests to one which its upstream does not have */
#define NGX_HTTP_UPSTREAM_REUSE_MISSED    3

/* far from where a word of a share wraps around */
#define NGX_HTTP_UPSTREAM_REUSE_MUCH      0x10000


static void reuse_handler(void);
static void reuse_look_at_servers(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_uint_t *checks);
static void reuse_look_at_share(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);
static ngx_uint_t reuse_fold_much(ngx_shm_zone_t *shm_zone,
    ngx_http_upstream_reuse_server_t *server);
static ngx_uint_t reuse_is_used(ngx_http_upstream_reuse_server_t *server);
static ngx_uint_t reuse_free_server(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);
static void reuse_cleanup_servers(void *data);


/* worker */

static ngx_uint_t  reuse_may_free;

static ngx_http_upstream_reuse_task_t  reuse_task =
    ngx_http_upstream_reuse_task(reuse_handler);


void
ngx_http_upstream_reuse_begin_gone(ngx_cycle_t *cycle)
{
    /*
     * Without a master process, servers of two cycles have one share, and the
     * earlier one may still need it.
     */

    reuse_may_free = (ngx_process == NGX_PROCESS_WORKER);

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
    ngx_http_upstream_srv_conf_t        **uscfp;
    ngx_http_upstream_main_conf_t        *umcf;
    ngx_http_upstream_reuse_zone_t       *zone;
    ngx_http_upstream_reuse_server_t     *server;
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

    uscfp = umcf->upstreams.elts;
    checks = 0;

    for (i = 0; i < umcf->upstreams.nelts; i++) {
        if (uscfp[i]->srv_conf) {
            reuse_look_at_servers(
                ngx_http_conf_upstream_srv_conf(uscfp[i],
                                              ngx_http_upstream_reuse_module),
                &checks);
        }
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

        reuse_look_at_share(rcf, server);

        unused = ngx_current_msec - server->active;

        if (reuse_may_free
            && unused >= NGX_HTTP_UPSTREAM_REUSE_TURN
            && (room || ngx_current_msec - server->checked
                        >= NGX_HTTP_UPSTREAM_REUSE_CHECK)
            && *checks < NGX_HTTP_UPSTREAM_REUSE_CHECKS
            && freed < NGX_HTTP_UPSTREAM_REUSE_FREED
            && !reuse_is_used(server))
        {
            (*checks)++;
            server->checked = ngx_current_msec;

            if (ngx_http_upstream_reuse_is_gone(rcf, rcf->unbounded,
                                                server->node.str.data,
                                                server->node.str.len,
                                                unused, room))
            {
                (void) reuse_free_server(rcf, server);
                freed++;
            }
        }

        if (q == NULL) {
            return;
        }
    }
}


static void
reuse_look_at_share(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server)
{
    uint32_t  requests;

    requests = ngx_http_upstream_reuse_sum_shared(server->share->counters);

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
                  ngx_http_upstream_reuse_sum_shared(server->share->counters);
    }
}


/* Returns 1 if its share has less now than it had counted. */

static ngx_uint_t
reuse_fold_much(ngx_shm_zone_t *shm_zone,
    ngx_http_upstream_reuse_server_t *server)
{
    uint32_t         *n;
    ngx_uint_t        i;
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    n = server->share->counters;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_SHARED; i++) {

        if ((int32_t) n[i] >= NGX_HTTP_UPSTREAM_REUSE_MUCH) {

            ngx_shmtx_lock(&shpool->mutex);
            ngx_http_upstream_reuse_fold_share(server->record, server->share);
            ngx_shmtx_unlock(&shpool->mutex);

            return 1;
        }
    }

    return 0;
}


/* A request without a connection points to no server between two events. */

static ngx_uint_t
reuse_is_used(ngx_http_upstream_reuse_server_t *server)
{
    return server->holders
           || server->closing
           || server->ahead.used
           || server->ahead.connecting
           || server->ahead.nidle
           || ngx_http_upstream_reuse_count_open(server->share) != 0;
}


ngx_uint_t
ngx_http_upstream_reuse_is_room_wanted(
    ngx_http_upstream_reuse_zone_t *zone, ngx_uint_t unbounded)
{
    ngx_uint_t  i;

    for (i = 0; i <= unbounded; i++) {
        if (zone->wanted[i]
            && (ngx_msec_int_t) (ngx_current_msec - zone->wanted[i])
               < NGX_HTTP_UPSTREAM_REUSE_WANTED)
        {
            return 1;
        }
    }

    return 0;
}


/* The upstream is NULL if it is not in the configuration. */

ngx_uint_t
ngx_http_upstream_reuse_is_gone(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_uint_t unbounded, u_char *sockaddr, size_t socklen, ngx_msec_t unused,
    ngx_uint_t room)
{
    /* the clock of whoever used it last may be a little ahead of ours */

    if ((ngx_msec_int_t) unused < 0
        || (unused < NGX_HTTP_UPSTREAM_REUSE_GONE && !room))
    {
        return 0;
    }

    if (unbounded
        || (rcf && (rcf->foreign
                    || !ngx_http_upstream_reuse_has_round_robin(rcf->uscf))))
    {
        return room || unused >= NGX_HTTP_UPSTREAM_REUSE_UNUSED;
    }

    return rcf == NULL
           || !ngx_http_upstream_reuse_has_server(rcf->uscf, sockaddr,
                                                  socklen);
}


void
ngx_http_upstream_reuse_note_server(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_pool_cleanup_t  *cln;

    server->checked = ngx_current_msec;

    ngx_queue_insert_tail(&rcf->by_use, &server->by_use);

    if (!rcf->cleaned) {
        cln = ngx_pool_cleanup_add(rcf->main->pool, 0);

        if (cln) {
            cln->handler = reuse_cleanup_servers;
            cln->data = rcf;
            rcf->cleaned = 1;
        }
    }
}


static void
reuse_cleanup_servers(void *data)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf = data;

    ngx_queue_t                       *q;
    ngx_http_upstream_reuse_server_t  *server;

    while (!ngx_queue_empty(&rcf->by_use)) {

        q = ngx_queue_head(&rcf->by_use);
        ngx_queue_remove(q);

        server = ngx_queue_data(q, ngx_http_upstream_reuse_server_t, by_use);
        ngx_free(server);
    }
}


ngx_uint_t
ngx_http_upstream_reuse_make_room(ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    ngx_uint_t                         freed;
    ngx_queue_t                       *q;
    ngx_http_upstream_reuse_server_t  *server;

    freed = 0;

    if (!reuse_may_free) {
        return 0;
    }

    q = ngx_queue_head(&rcf->by_use);

    while (q != ngx_queue_sentinel(&rcf->by_use)
           && freed < NGX_HTTP_UPSTREAM_REUSE_FREED)
    {
        server = ngx_queue_data(q, ngx_http_upstream_reuse_server_t, by_use);
        q = ngx_queue_next(q);

        if (!reuse_is_used(server)) {
            freed += reuse_free_server(rcf, server);
        }
    }

    return freed;
}


/* Returns 1 if its record was freed with it. */

static ngx_uint_t
reuse_free_server(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_uint_t        freed;
    ngx_slab_pool_t  *shpool;

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                   "upstream reuse: server %p of \"%V\" is not used any more",
                   server, &rcf->name);

    if (rcf->listener) {
        rcf->listener->forget(rcf, server);
    }

    shpool = (ngx_slab_pool_t *) rcf->main->zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    if ((ngx_msec_int_t) (server->active - server->record->active) > 0) {
        server->record->active = server->active;
    }

    freed = ngx_http_upstream_reuse_free_share(rcf->main->zone, server->record,
                                               server->share);

    ngx_shmtx_unlock(&shpool->mutex);

    ngx_rbtree_delete(&rcf->servers, &server->node.node);
    ngx_queue_remove(&server->by_use);
    ngx_free(server);

    return freed;
}
