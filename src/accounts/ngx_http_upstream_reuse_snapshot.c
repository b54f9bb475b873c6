
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What all workers have counted is added up: for whoever shows it, and from
 * time to time for what is compared with earlier.
 */


#include "ngx_http_upstream_reuse_accounts.h"


/* milliseconds, longer than from one plan of src/warm to the next one */
#define NGX_HTTP_UPSTREAM_REUSE_PLANNED  3000


static ngx_int_t reuse_view_record(ngx_http_upstream_reuse_snapshot_t *shot,
    ngx_http_upstream_reuse_record_t *record, ngx_pool_t *pool);
static void reuse_set_marks(ngx_http_upstream_reuse_zone_t *zone);
static void reuse_view_warmth(ngx_http_upstream_reuse_view_t *view,
    ngx_http_upstream_reuse_record_t *record);
static void reuse_add_record(ngx_http_upstream_reuse_view_t *view,
    ngx_http_upstream_reuse_record_t *record);
static void reuse_add_tally(ngx_atomic_uint_t *sum,
    ngx_http_upstream_reuse_tally_t *tally);
static void reuse_add_counters(ngx_atomic_uint_t *sum,
    ngx_atomic_uint_t *counters);
static void reuse_complete_view(ngx_http_upstream_reuse_view_t *view);
static ngx_int_t reuse_group_servers(ngx_http_upstream_reuse_snapshot_t *shot,
    ngx_pool_t *pool);
static void reuse_view_queue(ngx_http_upstream_reuse_snapshot_t *shot,
    ngx_http_upstream_reuse_upstream_view_t *upstream);
static void reuse_view_limits(
    ngx_http_upstream_reuse_upstream_view_t *upstream);
static void reuse_add_view(ngx_http_upstream_reuse_view_t *view,
    ngx_http_upstream_reuse_view_t *server);
static uint64_t reuse_usual_time(ngx_atomic_uint_t *bucket,
    ngx_atomic_uint_t count);
static void reuse_add_up(ngx_http_upstream_reuse_view_t *view);
static ngx_int_t reuse_copy_samples(ngx_http_upstream_reuse_snapshot_t *shot,
    ngx_http_upstream_reuse_zone_t *zone, ngx_pool_t *pool);
static int ngx_libc_cdecl reuse_compare_views(const void *one,
    const void *two);


void
ngx_http_upstream_reuse_take_sample(ngx_http_upstream_reuse_zone_t *zone)
{
    volatile uint32_t                 *m;
    volatile ngx_atomic_uint_t        *n;
    ngx_http_upstream_reuse_tally_t   *tally;
    ngx_http_upstream_reuse_record_t  *record;
    ngx_http_upstream_reuse_sample_t   sum, *sample;

    /* the workers' timers are not in step, nor are their clocks */

    if ((ngx_msec_int_t) (ngx_current_msec - zone->sampled)
        < NGX_HTTP_UPSTREAM_REUSE_INTERVAL * 1000 - 100)
    {
        return;
    }

    zone->sampled = ngx_current_msec;

    ngx_memzero(&sum, sizeof(ngx_http_upstream_reuse_sample_t));

    for (record = ngx_http_upstream_reuse_next_record(zone, NULL);
         record;
         record = ngx_http_upstream_reuse_next_record(zone, record))
    {
        n = record->counters;

        sum.ready += n[NGX_HTTP_UPSTREAM_REUSE_REUSED]
                     + n[NGX_HTTP_UPSTREAM_REUSE_WARM];
        sum.requests += ngx_http_upstream_reuse_sum_requests(n);

        for (tally = record->tallies; tally; tally = tally->next) {

            m = tally->counters;

            /* in this order, so that none was ready which is not there */

            sum.ready += (int32_t) (m[NGX_HTTP_UPSTREAM_REUSE_REUSED]
                                    + m[NGX_HTTP_UPSTREAM_REUSE_WARM]);
            sum.requests += ngx_http_upstream_reuse_sum_tally(m);
        }
    }

    sample = &zone->samples[zone->nsamples++
                            % NGX_HTTP_UPSTREAM_REUSE_SAMPLES];

    sample->requests = sum.requests - zone->sum.requests;
    sample->ready = sum.ready - zone->sum.ready;

    zone->sum = sum;

    if (ngx_http_upstream_reuse_passed_since(zone->marked)
        >= NGX_HTTP_UPSTREAM_REUSE_LATE * 1000)
    {
        zone->marked = ngx_current_msec;
        reuse_set_marks(zone);
    }
}


static void
reuse_set_marks(ngx_http_upstream_reuse_zone_t *zone)
{
    ngx_http_upstream_reuse_view_t     view;
    ngx_http_upstream_reuse_record_t  *record;

    for (record = ngx_http_upstream_reuse_next_record(zone, NULL);
         record;
         record = ngx_http_upstream_reuse_next_record(zone, record))
    {
        ngx_memzero(&view, sizeof(ngx_http_upstream_reuse_view_t));

        reuse_add_record(&view, record);

        record->marks[0] = record->marks[1];

        record->marks[1].requests = view.requests;
        ngx_memcpy(record->marks[1].closed,
                   &view.counters[NGX_HTTP_UPSTREAM_REUSE_CLOSED],
                   sizeof(record->marks[1].closed));
    }
}


/* The view has to be zero at first. */

static void
reuse_add_record(ngx_http_upstream_reuse_view_t *view,
    ngx_http_upstream_reuse_record_t *record)
{
    ngx_http_upstream_reuse_tally_t  *tally;

    for (tally = record->tallies; tally; tally = tally->next) {
        reuse_add_tally(view->counters, tally);
    }

    reuse_add_counters(view->counters, record->counters);

    reuse_add_up(view);
}


ngx_http_upstream_reuse_snapshot_t *
ngx_http_upstream_reuse_take_snapshot(ngx_pool_t *pool)
{
    ngx_int_t                             rc;
    ngx_slab_pool_t                      *shpool;
    ngx_http_upstream_reuse_zone_t       *zone;
    ngx_http_upstream_reuse_record_t     *record;
    ngx_http_upstream_reuse_snapshot_t   *shot;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                              ngx_http_upstream_reuse_module);

    shot = ngx_pcalloc(pool, sizeof(ngx_http_upstream_reuse_snapshot_t));
    if (shot == NULL) {
        return NULL;
    }

    if (ngx_array_init(&shot->servers, pool, 8,
                       sizeof(ngx_http_upstream_reuse_view_t))
        != NGX_OK)
    {
        return NULL;
    }

    shpool = (ngx_slab_pool_t *) rmcf->zone->shm.addr;
    zone = rmcf->zone->data;

    ngx_shmtx_lock(&shpool->mutex);

    shot->workers = ngx_http_upstream_reuse_inherit_dead(zone);

    rc = reuse_copy_samples(shot, zone, pool);

    for (record = ngx_http_upstream_reuse_next_record(zone, NULL);
         record && rc == NGX_OK;
         record = ngx_http_upstream_reuse_next_record(zone, record))
    {
        if (record->node.str.len || zone->overflowed) {
            rc = reuse_view_record(shot, record, pool);
        }
    }

    shot->size = rmcf->zone->shm.size;
    shot->free = shpool->pfree * ngx_pagesize;
    shot->started = zone->started;
    shot->full = zone->full;
    shot->uncounted = zone->uncounted;
    shot->warnings = &rmcf->warnings;

    ngx_shmtx_unlock(&shpool->mutex);

    if (rc != NGX_OK) {
        return NULL;
    }

    ngx_qsort(shot->servers.elts, shot->servers.nelts,
              sizeof(ngx_http_upstream_reuse_view_t), reuse_compare_views);

    return (reuse_group_servers(shot, pool) == NGX_OK) ? shot : NULL;
}


/* Those of one upstream stand together by now. */

static ngx_int_t
reuse_group_servers(ngx_http_upstream_reuse_snapshot_t *shot,
    ngx_pool_t *pool)
{
    ngx_uint_t                                i;
    ngx_http_upstream_reuse_view_t           *view;
    ngx_http_upstream_reuse_upstream_view_t  *upstream;

    if (ngx_array_init(&shot->upstreams, pool, 4,
                       sizeof(ngx_http_upstream_reuse_upstream_view_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    view = shot->servers.elts;
    upstream = NULL;

    for (i = 0; i < shot->servers.nelts; i++) {

        if (upstream == NULL
            || !ngx_http_upstream_reuse_same_name(&upstream->sum.upstream,
                                                  &view[i].upstream))
        {
            upstream = ngx_array_push(&shot->upstreams);
            if (upstream == NULL) {
                return NGX_ERROR;
            }

            ngx_memzero(upstream,
                        sizeof(ngx_http_upstream_reuse_upstream_view_t));

            upstream->sum.upstream = view[i].upstream;
            upstream->sum.name = view[i].name;
            ngx_str_set(&upstream->sum.address, "all");
            upstream->servers = &view[i];
            upstream->configured =
                 ngx_http_upstream_reuse_find_conf(&view[i].name) != NULL;

            reuse_view_queue(shot, upstream);
        }

        upstream->nservers++;

        reuse_add_view(&upstream->sum, &view[i]);
        reuse_add_view(&shot->total, &view[i]);
    }

    upstream = shot->upstreams.elts;

    for (i = 0; i < shot->upstreams.nelts; i++) {
        reuse_view_limits(&upstream[i]);

        if (upstream[i].queue.bounded) {
            shot->queue.bounded = 1;
            shot->queue.most += upstream[i].queue.most;
        }
    }

    return NGX_OK;
}


/* Without the lock, as it may take some time. */

static void
reuse_view_limits(ngx_http_upstream_reuse_upstream_view_t *upstream)
{
    ngx_uint_t                           i;
    ngx_http_upstream_reuse_view_t      *view;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = ngx_http_upstream_reuse_find_conf(&upstream->sum.name);

    if (rcf == NULL || rcf->waiters == NULL) {
        return;
    }

    if (rcf->queue != NGX_MAX_INT32_VALUE) {
        upstream->queue.bounded = 1;
        upstream->queue.most = rcf->queue;
    }

    for (i = 0; i < upstream->nservers; i++) {
        view = &upstream->servers[i];

        if (view->sockaddr.len) {
            view->most = ngx_http_upstream_reuse_find_most(rcf,
                                                           &view->sockaddr);
        }
    }
}


/* Without the lock: queues are never removed. */

static void
reuse_view_queue(ngx_http_upstream_reuse_snapshot_t *shot,
    ngx_http_upstream_reuse_upstream_view_t *upstream)
{
    ngx_http_upstream_reuse_zone_t        *zone;
    ngx_http_upstream_reuse_queue_t       *queue;
    ngx_http_upstream_reuse_main_conf_t   *rmcf;
    ngx_http_upstream_reuse_queue_view_t  *view;

    rmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                              ngx_http_upstream_reuse_module);
    zone = rmcf->zone->data;
    view = &upstream->queue;

    for (queue = zone->queues; queue; queue = queue->next) {

        if (!ngx_http_upstream_reuse_same_name(&queue->name,
                                               &upstream->sum.name))
        {
            continue;
        }

        view->limited = 1;
        view->waiting = queue->waiting;
        view->waited = queue->waited;
        view->full = queue->full;
        view->timeout = queue->timeout;

        shot->queue.limited = 1;
        shot->queue.waiting += view->waiting;
        shot->queue.waited += view->waited;
        shot->queue.full += view->full;
        shot->queue.timeout += view->timeout;

        return;
    }
}


static ngx_int_t
reuse_view_record(ngx_http_upstream_reuse_snapshot_t *shot,
    ngx_http_upstream_reuse_record_t *record, ngx_pool_t *pool)
{
    size_t                            len;
    u_char                            text[NGX_SOCKADDR_STRLEN], *p;
    ngx_str_t                         name, *key;
    ngx_uint_t                        i;
    ngx_http_upstream_reuse_view_t   *view;

    view = ngx_array_push(&shot->servers);
    if (view == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(view, sizeof(ngx_http_upstream_reuse_view_t));

    ngx_http_upstream_reuse_name_record(record, &name, text, &len);

    /* the record may be freed before that is shown */

    key = &record->node.str;

    p = ngx_pnalloc(pool, sizeof("unix:") - 1 + key->len + len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    view->upstream.data = p;

    /* nginx takes the path alone for the name of such a target */

    if (name.len && name.data[0] == '/') {
        p = ngx_cpymem(p, "unix:", sizeof("unix:") - 1);
    }

    view->name.data = p;
    view->name.len = name.len;

    p = ngx_cpymem(p, name.data, name.len);

    view->upstream.len = p - view->upstream.data;
    view->address.len = len;
    view->address.data = p;

    view->sockaddr.data = ngx_cpymem(view->address.data, text, len);

    if (key->len == 0) {
        ngx_str_set(&view->upstream, NGX_HTTP_UPSTREAM_REUSE_OVERFLOW);
        ngx_str_set(&view->address, NGX_HTTP_UPSTREAM_REUSE_OVERFLOW);
    }

    if (key->len > name.len + 2) {
        view->sockaddr.len = key->len - name.len - 1;
        ngx_memcpy(view->sockaddr.data, key->data + name.len + 1,
                   view->sockaddr.len);
    }

    view->idle_limit = record->learned.idle;
    view->rtt = record->learned.rtt;

    reuse_view_warmth(view, record);

    reuse_add_record(view, record);
    reuse_complete_view(view);

    view->late.requests = view->requests - record->marks[0].requests;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST; i++) {
        view->late.closed[i] =
                        view->counters[NGX_HTTP_UPSTREAM_REUSE_CLOSED + i]
                        - record->marks[0].closed[i];
    }

    return NGX_OK;
}


static void
reuse_view_warmth(ngx_http_upstream_reuse_view_t *view,
    ngx_http_upstream_reuse_record_t *record)
{
    ngx_msec_t  until;

    until = record->starving.until;

    view->starving = until && (ngx_msec_int_t) (until - ngx_current_msec) > 0;

    view->unpaid = record->unpaid
                   && (ngx_msec_int_t) (ngx_current_msec - record->unpaid)
                      < NGX_HTTP_UPSTREAM_REUSE_PLANNED;
}


/*
 * The worker goes on counting meanwhile.  Whatever is counted at an end is
 * read before what is counted at the beginning, so that no end is without one.
 */

static void
reuse_add_tally(ngx_atomic_uint_t *sum, ngx_http_upstream_reuse_tally_t *tally)
{
    ngx_uint_t          i;
    volatile uint32_t  *n;

    n = tally->counters;

    for (i = NGX_HTTP_UPSTREAM_REUSE_TALLY; i > 0; i--) {
        sum[i - 1] += (int32_t) n[i - 1];
    }
}


static void
reuse_add_counters(ngx_atomic_uint_t *sum, ngx_atomic_uint_t *counters)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_COUNTERS; i++) {
        sum[i] += counters[i];
    }
}


static void
reuse_complete_view(ngx_http_upstream_reuse_view_t *view)
{
    ngx_atomic_uint_t  *n;

    n = view->counters;

    /* on processors that reorder what another one writes */

    if ((ngx_atomic_int_t) (n[NGX_HTTP_UPSTREAM_REUSE_OPENED] - view->closed)
        < 0)
    {
        n[NGX_HTTP_UPSTREAM_REUSE_OPENED] = view->closed;
        view->open = 0;
    }

    n[NGX_HTTP_UPSTREAM_REUSE_IDLE] += view->parked;

    if (n[NGX_HTTP_UPSTREAM_REUSE_IDLE] > view->open) {
        n[NGX_HTTP_UPSTREAM_REUSE_IDLE] = view->open;
    }

    if (view->connects) {
        view->saved = (reuse_usual_time(&n[NGX_HTTP_UPSTREAM_REUSE_CONNECT],
                                        view->connects)
                       + reuse_usual_time(&n[NGX_HTTP_UPSTREAM_REUSE_TLS],
                                          view->handshakes)
                         * view->handshakes / view->connects)
                      * (n[NGX_HTTP_UPSTREAM_REUSE_REUSED]
                         + n[NGX_HTTP_UPSTREAM_REUSE_WARM]);
    }
}


/*
 * Microseconds that an event of a histogram takes: the mean, unless a few that
 * took very long make it more than half of them took.
 */

static uint64_t
reuse_usual_time(ngx_atomic_uint_t *bucket, ngx_atomic_uint_t count)
{
    uint64_t           mean;
    ngx_uint_t         i;
    ngx_atomic_uint_t  sum;

    if (count == 0) {
        return 0;
    }

    mean = bucket[NGX_HTTP_UPSTREAM_REUSE_BUCKETS] / count;
    sum = 0;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_BUCKETS - 1; i++) {

        sum += bucket[i];

        if (sum >= (count + 1) / 2) {
            return ngx_min(mean, ngx_http_upstream_reuse_bounds[i]);
        }
    }

    return mean;
}


static void
reuse_add_up(ngx_http_upstream_reuse_view_t *view)
{
    ngx_uint_t          i;
    ngx_atomic_uint_t  *n, parked;

    n = view->counters;

    view->fresh = 0;
    view->closed = 0;
    view->connects = 0;
    view->handshakes = 0;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_NEW_LAST; i++) {
        view->fresh += n[NGX_HTTP_UPSTREAM_REUSE_NEW + i];
    }

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST; i++) {
        view->closed += n[NGX_HTTP_UPSTREAM_REUSE_CLOSED + i];
    }

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_BUCKETS; i++) {
        view->connects += n[NGX_HTTP_UPSTREAM_REUSE_CONNECT + i];
        view->handshakes += n[NGX_HTTP_UPSTREAM_REUSE_TLS + i];
    }

    view->requests = n[NGX_HTTP_UPSTREAM_REUSE_REUSED]
                     + n[NGX_HTTP_UPSTREAM_REUSE_WARM] + view->fresh;
    view->open = n[NGX_HTTP_UPSTREAM_REUSE_OPENED] - view->closed;

    /* another worker may have taken it over since it was counted */

    parked = n[NGX_HTTP_UPSTREAM_REUSE_HANDED_OVER]
             - n[NGX_HTTP_UPSTREAM_REUSE_TAKEN_OVER]
             - n[NGX_HTTP_UPSTREAM_REUSE_SWEPT];

    view->parked = ((ngx_atomic_int_t) parked < 0) ? 0 : parked;
}


/* The view has to be zero at first. */

static void
reuse_add_view(ngx_http_upstream_reuse_view_t *view,
    ngx_http_upstream_reuse_view_t *server)
{
    ngx_uint_t  i;

    reuse_add_counters(view->counters, server->counters);
    reuse_add_up(view);

    view->saved += server->saved;
    view->unpaid += server->unpaid;
    view->starving += server->starving;
    view->late.requests += server->late.requests;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST; i++) {
        view->late.closed[i] += server->late.closed[i];
    }
}


static ngx_int_t
reuse_copy_samples(ngx_http_upstream_reuse_snapshot_t *shot,
    ngx_http_upstream_reuse_zone_t *zone, ngx_pool_t *pool)
{
    ngx_uint_t                         i, n;
    ngx_http_upstream_reuse_sample_t  *sample;

    n = ngx_min(zone->nsamples, NGX_HTTP_UPSTREAM_REUSE_SAMPLES);

    if (ngx_array_init(&shot->samples, pool, NGX_HTTP_UPSTREAM_REUSE_SAMPLES,
                       sizeof(ngx_http_upstream_reuse_sample_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = zone->nsamples - n; i != zone->nsamples; i++) {

        sample = ngx_array_push(&shot->samples);
        if (sample == NULL) {
            return NGX_ERROR;
        }

        *sample = zone->samples[i % NGX_HTTP_UPSTREAM_REUSE_SAMPLES];
    }

    return NGX_OK;
}


static int ngx_libc_cdecl
reuse_compare_views(const void *one, const void *two)
{
    ngx_int_t                              rc;
    const ngx_http_upstream_reuse_view_t  *a = one;
    const ngx_http_upstream_reuse_view_t  *b = two;

    rc = ngx_memn2cmp(a->upstream.data, b->upstream.data, a->upstream.len,
                      b->upstream.len);

    if (rc == 0) {
        rc = ngx_memn2cmp(a->address.data, b->address.data, a->address.len,
                          b->address.len);
    }

    return (int) rc;
}
