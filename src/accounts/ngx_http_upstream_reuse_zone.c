
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What workers know of servers together: for each address of each upstream a
 * record, with what was learned of it and with a tally for each worker, in
 * which that worker counts.  It outlives reloads.  A lock is taken when a
 * worker meets a server for the first time, not for a request.
 */


#include "ngx_http_upstream_reuse_accounts.h"


static ngx_int_t reuse_init_zone(ngx_shm_zone_t *shm_zone, void *data);


ngx_str_t  ngx_http_upstream_reuse_zone_name =
    ngx_string("ngx_http_upstream_reuse");


ngx_shm_zone_t *
ngx_http_upstream_reuse_add_shared(ngx_conf_t *cf, ngx_str_t *name,
    size_t size, ngx_shm_zone_init_pt init)
{
    ngx_shm_zone_t  *shm_zone;

    shm_zone = ngx_shared_memory_add(cf, name, size,
                                     &ngx_http_upstream_reuse_module);
    if (shm_zone == NULL) {
        return NULL;
    }

    shm_zone->init = init;

    return shm_zone;
}


ngx_shm_zone_t *
ngx_http_upstream_reuse_add_zone(ngx_conf_t *cf, size_t size)
{
    return ngx_http_upstream_reuse_add_shared(cf,
                                            &ngx_http_upstream_reuse_zone_name,
                                            size, reuse_init_zone);
}


static ngx_int_t
reuse_init_zone(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_slab_pool_t                 *shpool;
    ngx_http_upstream_reuse_zone_t  *zone;

    if (data) {
        shm_zone->data = data;
        return NGX_OK;
    }

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shm_zone->shm.exists) {
        shm_zone->data = shpool->data;
        return NGX_OK;
    }

    zone = ngx_slab_calloc(shpool, sizeof(ngx_http_upstream_reuse_zone_t));
    if (zone == NULL) {
        return NGX_ERROR;
    }

    ngx_rbtree_init(&zone->rbtree, &zone->sentinel,
                    ngx_str_rbtree_insert_value);

    zone->started = ngx_time();
    zone->folded = ngx_current_msec;
    zone->lowered = ngx_current_msec;
    zone->parted = ngx_current_msec;
    zone->sampled = ngx_current_msec;
    zone->marked = ngx_current_msec;

    shpool->data = zone;
    shpool->log_nomem = 0;

    shm_zone->data = zone;

    return NGX_OK;
}


void
ngx_http_upstream_reuse_lock(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) conn->conf->main->zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);
}


void
ngx_http_upstream_reuse_unlock(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) conn->conf->main->zone->shm.addr;

    ngx_shmtx_unlock(&shpool->mutex);
}


void
ngx_http_upstream_reuse_enter_zone(ngx_shm_zone_t *shm_zone, ngx_uint_t worker)
{
    ngx_slab_pool_t                 *shpool;
    ngx_http_upstream_reuse_zone_t  *zone;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    zone = shm_zone->data;

    ngx_shmtx_lock(&shpool->mutex);

    (void) ngx_http_upstream_reuse_inherit_dead(zone);

    if (worker) {

        /* of one that died, and whose number is used again */

        ngx_http_upstream_reuse_inherit_own(zone,
                                          NGX_HTTP_UPSTREAM_REUSE_CLOSE_CRASH);

        /* while there is room */

        ngx_http_upstream_reuse_claim_overflow(shpool, zone);
    }

    ngx_shmtx_unlock(&shpool->mutex);
}


ngx_uint_t
ngx_http_upstream_reuse_leave_zone(ngx_shm_zone_t *shm_zone)
{
    ngx_uint_t        others;
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    ngx_http_upstream_reuse_inherit_own(shm_zone->data,
                                       NGX_HTTP_UPSTREAM_REUSE_CLOSE_SHUTDOWN);

    others = ngx_http_upstream_reuse_inherit_dead(shm_zone->data);

    ngx_shmtx_unlock(&shpool->mutex);

    return others;
}
