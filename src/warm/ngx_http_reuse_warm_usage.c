
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What all workers together have of a server, how many connections they use at
 * a time, and how many may be opened ahead for it.
 *
 * Connections that any worker may take are opened by one of them, the planner
 * of the server.  Another one takes its place when it has died, when it has
 * made no plan for some time, and after a reload.
 */


#include "ngx_http_reuse_warm.h"


/* milliseconds after which another worker becomes the planner */
#define NGX_HTTP_REUSE_WARM_LAPSE  3000

/* milliseconds that a part of the last hour has */
#define NGX_HTTP_REUSE_WARM_PART                                              \
    (3600 * 1000 / NGX_HTTP_UPSTREAM_REUSE_PARTS)

/* so many that end unused are worth one request that need not wait */
#define NGX_HTTP_REUSE_WARM_PAID   2

/* with "auto", so many more than were needed of late, at least */
#define NGX_HTTP_REUSE_WARM_SPARE  3

/* milliseconds: other workers may soon have requests if they had some then */
#define NGX_HTTP_REUSE_WARM_BUSY   10000


/* what was counted of a server, by all workers */

typedef struct {
    ngx_http_upstream_reuse_paid_t    paid;
    ngx_uint_t                        idle;
    ngx_uint_t                        opening;
    ngx_uint_t                        unused;
    ngx_uint_t                        others;
} ngx_http_reuse_warm_stock_t;


static void reuse_lower(ngx_http_upstream_reuse_zone_t *zone);
static ngx_uint_t reuse_is_due(ngx_msec_t since, ngx_msec_t time);
static void reuse_begin_part(ngx_http_upstream_reuse_zone_t *zone);

static ngx_msec_t reuse_add_parked(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t ahead);
static void reuse_add_up(ngx_http_reuse_warm_stock_t *stock,
    ngx_http_upstream_reuse_record_t *record, ngx_msec_t configured);
static void reuse_add_counters(ngx_http_upstream_reuse_paid_t *paid,
    ngx_atomic_uint_t *counters);
static ngx_int_t reuse_find_credit(ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_record_t *record,
    ngx_http_reuse_warm_stock_t *stock);
static ngx_uint_t reuse_become_planner(
    ngx_http_upstream_reuse_record_t *record, ngx_msec_t configured);


ngx_uint_t
ngx_http_reuse_warm_count_workers(void)
{
    ngx_core_conf_t  *ccf;

    if (ngx_process != NGX_PROCESS_WORKER) {
        return 1;
    }

    ccf = (ngx_core_conf_t *) ngx_get_conf(ngx_cycle->conf_ctx,
                                           ngx_core_module);

    return ngx_max(ccf->worker_processes, 1);
}


ngx_uint_t
ngx_http_reuse_warm_begin_use(ngx_http_upstream_reuse_server_t *server)
{
    ngx_uint_t                         used, more;
    ngx_http_upstream_reuse_record_t  *record;

    more = 0;

    used = ++server->ahead.used;

    if (used > server->ahead.seen) {
        server->ahead.seen = used;

        if (used > server->ahead.peak) {
            server->ahead.peak = used;
            more = 1;
        }
    }

    record = server->record;

    server->tally->used++;
    used = ngx_atomic_fetch_add(&record->used, 1) + 1;

    if (used > record->seen && (ngx_atomic_int_t) used > 0) {
        record->seen = used;

        if (used > record->peak) {
            record->peak = used;
            more = 1;
        }
    }

    return more;
}


void
ngx_http_reuse_warm_end_use(ngx_http_upstream_reuse_server_t *server)
{
    server->ahead.used--;
    server->tally->used--;

    (void) ngx_atomic_fetch_add(&server->record->used, -1);
}


ngx_uint_t
ngx_http_reuse_warm_count_used(ngx_http_upstream_reuse_server_t *server)
{
    ngx_atomic_int_t  used;

    used = (ngx_atomic_int_t) server->record->used;

    return ngx_max(used, 0);
}


ngx_uint_t
ngx_http_reuse_warm_add_spare(ngx_uint_t peak)
{
    return peak ? peak + ngx_max(peak / 4, NGX_HTTP_REUSE_WARM_SPARE) : 0;
}


/* What workers remember together; any of them does it for all. */

void
ngx_http_reuse_warm_lower_peaks(void)
{
    ngx_shm_zone_t                       *shm_zone;
    ngx_slab_pool_t                      *shpool;
    ngx_http_upstream_reuse_zone_t       *zone;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                              ngx_http_upstream_reuse_module);

    shm_zone = rmcf->zone;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    zone = shm_zone->data;

    if (!reuse_is_due(zone->lowered, NGX_HTTP_REUSE_WARM_LOWER * 1000)) {
        return;
    }

    ngx_shmtx_lock(&shpool->mutex);

    if (reuse_is_due(zone->lowered, NGX_HTTP_REUSE_WARM_LOWER * 1000)) {
        zone->lowered = ngx_current_msec;
        reuse_lower(zone);
    }

    if (reuse_is_due(zone->parted, NGX_HTTP_REUSE_WARM_PART)) {
        zone->parted = ngx_current_msec;
        reuse_begin_part(zone);
    }

    ngx_shmtx_unlock(&shpool->mutex);
}


static void
reuse_lower(ngx_http_upstream_reuse_zone_t *zone)
{
    ngx_http_upstream_reuse_record_t  *record;

    for (record = ngx_http_upstream_reuse_next_record(zone, NULL);
         record;
         record = ngx_http_upstream_reuse_next_record(zone, record))
    {
        record->peak = ngx_http_reuse_warm_lower(record->peak, record->seen);
        record->seen = 0;
    }
}


/* Another worker's time may be a little ahead of ours. */

static ngx_uint_t
reuse_is_due(ngx_msec_t since, ngx_msec_t time)
{
    return (ngx_msec_int_t) (ngx_current_msec - since)
           >= (ngx_msec_int_t) time;
}


/* What was counted before the oldest part of the hour matters no longer. */

static void
reuse_begin_part(ngx_http_upstream_reuse_zone_t *zone)
{
    ngx_http_reuse_warm_stock_t        stock;
    ngx_http_upstream_reuse_record_t  *record;

    for (record = ngx_http_upstream_reuse_next_record(zone, NULL);
         record;
         record = ngx_http_upstream_reuse_next_record(zone, record))
    {
        ngx_memzero(&stock, sizeof(ngx_http_reuse_warm_stock_t));

        reuse_add_up(&stock, record, 0);

        record->paid[zone->part] = stock.paid;
    }

    zone->part = (zone->part + 1) % NGX_HTTP_UPSTREAM_REUSE_PARTS;
}


void
ngx_http_reuse_warm_lower_own(ngx_http_upstream_reuse_server_t *server)
{
    if (server->ahead.lowered == 0) {

        /* of what workers remember, the part of one of them */

        server->ahead.lowered = ngx_current_msec;
        server->ahead.unwanted = server->record->unwanted;
        server->ahead.peak = ngx_max(server->ahead.peak,
                                     server->record->peak
                                     / ngx_http_reuse_warm_count_workers());
        return;
    }

    if (!reuse_is_due(server->ahead.lowered,
                      NGX_HTTP_REUSE_WARM_LOWER * 1000))
    {
        return;
    }

    server->ahead.lowered = ngx_current_msec;

    server->ahead.peak = ngx_http_reuse_warm_lower(server->ahead.peak,
                                                   server->ahead.seen);
    server->ahead.seen = server->ahead.used;
}


ngx_msec_t
ngx_http_reuse_warm_take_stock(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t ahead)
{
    ngx_uint_t                         shared, unused;
    ngx_msec_t                         next;
    ngx_slab_pool_t                   *shpool;
    ngx_http_reuse_warm_stock_t        stock;
    ngx_http_upstream_reuse_zone_t    *zone;
    ngx_http_upstream_reuse_record_t  *record;

    shpool = (ngx_slab_pool_t *) warm->conf->main->zone->shm.addr;
    zone = warm->conf->main->zone->data;
    record = server->record;

    shared = ngx_http_upstream_reuse_is_shared(warm->conf);
    unused = server->ahead.unused;

    ngx_memzero(&stock, sizeof(ngx_http_reuse_warm_stock_t));

    ngx_shmtx_lock(&shpool->mutex);

    server->tally->configured = warm->configured;

    reuse_add_up(&stock, record, warm->configured);

    server->ahead.elsewhere = stock.idle;
    server->ahead.opening = stock.opening;
    server->ahead.unused = stock.unused;
    server->ahead.others = stock.others;
    server->ahead.credit = reuse_find_credit(zone, record, &stock);

    server->ahead.planner = shared
                            && reuse_become_planner(record, warm->configured);

    ngx_shmtx_unlock(&shpool->mutex);

    next = reuse_add_parked(warm, server, ahead);

    if (unused && !server->ahead.unused && !server->ahead.nwarm
        && !server->ahead.connecting)
    {
        server->ahead.bare_since = ngx_current_msec;
    }

    if (stock.paid.requests != server->ahead.requests) {
        server->ahead.requests = stock.paid.requests;
        server->ahead.busy = ngx_current_msec;
    }

    /* nobody tells the planner what other workers take and close */

    if (server->ahead.planner
        && ngx_current_msec - server->ahead.busy < NGX_HTTP_REUSE_WARM_BUSY)
    {
        return ngx_min(next, NGX_HTTP_REUSE_WARM_OFTEN);
    }

    return next;
}


/* Only the planner has to know, and whoever has requests without an answer. */

static ngx_msec_t
reuse_add_parked(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t ahead)
{
    ngx_http_upstream_reuse_parked_t  parked;

    server->ahead.ending = 0;

    if (!server->ahead.planner && ngx_queue_empty(&warm->waiting)) {
        return NGX_HTTP_REUSE_WARM_SELDOM;
    }

    ngx_http_upstream_reuse_count_parked(warm->conf, server, ahead, &parked);

    server->ahead.elsewhere += parked.lasting;
    server->ahead.ending = parked.idle - parked.lasting;
    server->ahead.unused += parked.warm;

    if (server->ahead.planner) {
        ngx_http_reuse_warm_note_parked(warm, server, parked.proved);
    }

    return ngx_min(parked.next, NGX_HTTP_REUSE_WARM_SELDOM);
}


/*
 * Idle connections of workers with another configuration are handed over, or
 * are about to be closed.
 */

static void
reuse_add_up(ngx_http_reuse_warm_stock_t *stock,
    ngx_http_upstream_reuse_record_t *record, ngx_msec_t configured)
{
    ngx_http_upstream_reuse_tally_t  *tally;

    reuse_add_counters(&stock->paid, record->counters);

    for (tally = record->tallies; tally; tally = tally->next) {

        stock->paid.requests +=
                          ngx_http_upstream_reuse_sum_tally(tally->counters);
        stock->paid.unused +=
                   (int32_t) (tally->counters[NGX_HTTP_UPSTREAM_REUSE_AHEAD]
                              - tally->counters[NGX_HTTP_UPSTREAM_REUSE_WARM]);

        if (tally->pid == 0 || tally->pid == ngx_pid) {
            continue;
        }

        stock->idle += tally->counters[NGX_HTTP_UPSTREAM_REUSE_IDLE];
        stock->opening += tally->connecting;
        stock->unused += tally->unused + tally->connecting;

        if (tally->configured == configured) {
            stock->others += tally->counters[NGX_HTTP_UPSTREAM_REUSE_IDLE]
                             + tally->connecting;
        }
    }
}


static void
reuse_add_counters(ngx_http_upstream_reuse_paid_t *paid,
    ngx_atomic_uint_t *counters)
{
    volatile ngx_atomic_uint_t  *n;

    n = counters;

    paid->requests += ngx_http_upstream_reuse_sum_requests(n);

    paid->unused += n[NGX_HTTP_UPSTREAM_REUSE_AHEAD]
                    - n[NGX_HTTP_UPSTREAM_REUSE_WARM];
}


/*
 * The requests of the last hour pay for connections that were opened in it and
 * not used; those that still may be are among these.  So many as are to be
 * ready are granted besides, or the first requests could not have them.
 */

static ngx_int_t
reuse_find_credit(ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_record_t *record,
    ngx_http_reuse_warm_stock_t *stock)
{
    ngx_http_upstream_reuse_paid_t  *before;

    before = &record->paid[zone->part];

    return (ngx_int_t) (NGX_HTTP_REUSE_WARM_PAID
                        * (stock->paid.requests - before->requests)
                        - (stock->paid.unused - before->unused)
                        + ngx_http_reuse_warm_add_spare(record->peak));
}


/* With the lock: tells whether this worker is the planner from now on. */

static ngx_uint_t
reuse_become_planner(ngx_http_upstream_reuse_record_t *record,
    ngx_msec_t configured)
{
    ngx_msec_int_t  newer;

    newer = (ngx_msec_int_t) (configured - record->configured);

    if (record->planner != ngx_pid) {

        if (record->planner
            && newer <= 0
            && !reuse_is_due(record->planned, NGX_HTTP_REUSE_WARM_LAPSE))
        {
            return 0;
        }

        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                       "upstream reuse: opens connections ahead for all "
                       "workers, after %P, %M ms old", record->planner,
                       ngx_http_upstream_reuse_passed_since(record->planned));

        record->planner = ngx_pid;
    }

    record->planned = ngx_current_msec;
    record->configured = configured;

    return 1;
}
