
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A worker process begins, does what is to be done from time to time, and
 * ends.
 */


#include "ngx_http_upstream_reuse_layer.h"
#include "ngx_http_myproxy_version.h"


static ngx_shm_zone_t *reuse_find_zone(ngx_cycle_t *cycle);
static void reuse_sample_handler(ngx_event_t *ev);


/* worker */

static ngx_event_t       reuse_sample_event;
static ngx_connection_t  reuse_sample_dummy;


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
    ngx_http_upstream_reuse_begin_gone(cycle);

    /* a debug log names the connection of a timer */

    reuse_sample_dummy.fd = (ngx_socket_t) -1;

    reuse_sample_event.handler = reuse_sample_handler;
    reuse_sample_event.data = &reuse_sample_dummy;
    reuse_sample_event.log = ngx_cycle->log;
    reuse_sample_event.cancelable = 1;

    ngx_add_timer(&reuse_sample_event,
                  NGX_HTTP_UPSTREAM_REUSE_INTERVAL * 1000);

    return NGX_OK;
}


/* Whatever is open now is closed by the system. */

void
ngx_http_upstream_reuse_exit_process(ngx_cycle_t *cycle)
{
    ngx_shm_zone_t  *shm_zone;

    shm_zone = reuse_find_zone(cycle);

    ngx_http_upstream_reuse_leave_bell();

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
reuse_sample_handler(ngx_event_t *ev)
{
    ngx_shm_zone_t                  *shm_zone;
    ngx_slab_pool_t                 *shpool;
    ngx_http_upstream_reuse_zone_t  *zone;

    if (ngx_exiting || ngx_terminate) {
        return;
    }

    ngx_add_timer(ev, NGX_HTTP_UPSTREAM_REUSE_INTERVAL * 1000);

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
