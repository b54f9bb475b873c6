
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A worker process begins, does what is to be done from time to time, and
 * ends.
 */


#include "ngx_http_upstream_reuse_layer.h"
#include "ngx_http_myproxy_version.h"


static ngx_shm_zone_t *reuse_find_zone(ngx_cycle_t *cycle);
static void reuse_sample_handler(void);


/* worker */

static ngx_http_upstream_reuse_task_t  reuse_sample_task =
    ngx_http_upstream_reuse_task(reuse_sample_handler);


/* An error here would end the master process. */

ngx_int_t
ngx_http_upstream_reuse_init_module(ngx_cycle_t *cycle)
{
    ngx_http_upstream_reuse_zone_t       *zone;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_upstream_reuse_module);

    if (rmcf && !ngx_test_config) {
        rmcf->cycle = ngx_http_upstream_reuse_number_cycle(rmcf->places);

        zone = rmcf->zone->data;

        if (zone->cycle == 0) {
            zone->cycle = rmcf->cycle;
        }

        ngx_http_upstream_reuse_open_places(cycle);
        ngx_http_upstream_reuse_open_bells(cycle);

        ngx_log_error(NGX_LOG_NOTICE, cycle->log, 0,
                      "ngx_http_myproxy_module/" NGX_HTTP_MYPROXY_VERSION);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_upstream_reuse_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t       worker;
    ngx_shm_zone_t  *shm_zone;

    shm_zone = reuse_find_zone(cycle);

    if (shm_zone == NULL) {
        return NGX_OK;
    }

    worker = (ngx_process == NGX_PROCESS_WORKER
              || ngx_process == NGX_PROCESS_SINGLE);

    ngx_http_upstream_reuse_enter_zone(shm_zone, worker);

    if (!worker) {
        return NGX_OK;
    }

    ngx_http_upstream_reuse_begin_handover(cycle);
    ngx_http_upstream_reuse_begin_queues(cycle);
    ngx_http_upstream_reuse_begin_gone();

    ngx_http_upstream_reuse_schedule(&reuse_sample_task,
                                     NGX_HTTP_UPSTREAM_REUSE_INTERVAL * 1000);

    return NGX_OK;
}


/* Whatever is open now is closed by the system. */

void
ngx_http_upstream_reuse_exit_process(ngx_cycle_t *cycle)
{
    ngx_shm_zone_t  *shm_zone;

    shm_zone = reuse_find_zone(cycle);

    ngx_http_upstream_reuse_end_queues();

    if (shm_zone
        && ngx_http_upstream_reuse_leave_zone(shm_zone) == 0)
    {
        ngx_http_upstream_reuse_end_sweep();
    }
}


/* NULL: there is no http{}. */

static ngx_shm_zone_t *
reuse_find_zone(ngx_cycle_t *cycle)
{
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_upstream_reuse_module);

    return rmcf ? rmcf->zone : NULL;
}


/* Of all workers, the first that gets here takes the sample. */

static void
reuse_sample_handler(void)
{
    ngx_shm_zone_t                  *shm_zone;
    ngx_slab_pool_t                 *shpool;
    ngx_http_upstream_reuse_zone_t  *zone;

    if (ngx_exiting || ngx_terminate) {
        return;
    }

    ngx_http_upstream_reuse_schedule(&reuse_sample_task,
                                     NGX_HTTP_UPSTREAM_REUSE_INTERVAL * 1000);

    shm_zone = reuse_find_zone((ngx_cycle_t *) ngx_cycle);

    if (shm_zone == NULL) {
        return;
    }

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    zone = shm_zone->data;

    ngx_shmtx_lock(&shpool->mutex);

    ngx_http_upstream_reuse_take_sample(zone);

    ngx_shmtx_unlock(&shpool->mutex);
}
