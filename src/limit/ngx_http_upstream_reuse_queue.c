
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Requests of all workers wait for a connection in order of arrival.  A worker
 * has its own requests in a list.  In shared memory there is only the number
 * of the first one, of each worker.  Whoever has something to give wakes the
 * worker of the least of these numbers, which takes it for itself.
 */


#include "ngx_http_upstream_reuse_limit.h"


/* milliseconds: so often a worker whose requests wait looks for dead ones */
#define NGX_HTTP_UPSTREAM_REUSE_RECHECK  1000


static ngx_int_t reuse_begin_queue(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_slab_pool_t *shpool, ngx_log_t *log);
static ngx_http_upstream_reuse_queue_t *reuse_find_queue(
    ngx_slab_pool_t *shpool, ngx_str_t *name);
static ngx_http_upstream_reuse_waiters_t *reuse_find_waiters(
    ngx_http_upstream_reuse_queue_t *queue, ngx_log_t *log);
static void reuse_call_waiting(ngx_http_upstream_reuse_zone_t *zone);

static void reuse_call_others(ngx_http_upstream_reuse_srv_conf_t *rcf);
static void reuse_heard(void);
static void reuse_freed(ngx_http_upstream_reuse_server_t *server);
static void reuse_hand_on_handler(ngx_event_t *ev);
static void reuse_hand_on(ngx_http_upstream_reuse_waiters_t *waiters,
    ngx_uint_t told);
static void reuse_give(ngx_http_upstream_reuse_waiters_t *waiters,
    ngx_uint_t bell);
static ngx_int_t reuse_find_first(ngx_http_upstream_reuse_queue_t *queue);
static ngx_uint_t reuse_has_any(ngx_http_upstream_reuse_waiters_t *waiters,
    ngx_uint_t nservers);
static void reuse_check_handler(void);


/* worker */

static ngx_http_upstream_reuse_waiters_t  *reuse_all_waiters;
static ngx_slab_pool_t                    *reuse_shpool;

static ngx_http_upstream_reuse_task_t      reuse_check_task =
    ngx_http_upstream_reuse_task(reuse_check_handler);


#define reuse_is_waited_for(queue)                                            \
    (ngx_atomic_fetch_add(&(queue)->waiting, 0) != 0)


void
ngx_http_upstream_reuse_begin_queues(ngx_cycle_t *cycle)
{
    ngx_int_t                              rc;
    ngx_uint_t                             i, n;
    ngx_http_upstream_main_conf_t         *umcf;
    ngx_http_upstream_reuse_zone_t        *zone;
    ngx_http_upstream_reuse_srv_conf_t    *rcf;
    ngx_http_upstream_reuse_main_conf_t   *rmcf;

    umcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_upstream_module);
    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_upstream_reuse_module);

    reuse_shpool = (ngx_slab_pool_t *) rmcf->zone->shm.addr;
    zone = rmcf->zone->data;
    i = 0;
    n = 0;

    ngx_shmtx_lock(&reuse_shpool->mutex);

    while ((rcf = ngx_http_upstream_reuse_next_conf(umcf, &i))) {

        if (rcf->limit > 0) {

            if (reuse_begin_queue(rcf, reuse_shpool, cycle->log) != NGX_OK) {
                ngx_log_error(NGX_LOG_ALERT, cycle->log, 0,
                              "\"reuse_limit\" of upstream \"%V\" is not in "
                              "force, as there is no memory: make "
                              "\"reuse_zone\" larger", &rcf->name);
                continue;
            }

            n++;
        }
    }

    rc = n ? ngx_http_upstream_reuse_take_bell(cycle, zone, reuse_heard)
           : NGX_OK;

    ngx_shmtx_unlock(&reuse_shpool->mutex);

    if (n == 0) {
        return;
    }

    if (rc != NGX_OK) {
        ngx_log_error(NGX_LOG_ALERT, cycle->log, 0,
                      "this worker process cannot have requests wait for "
                      "\"reuse_limit\" and refuses them: there are too many "
                      "worker processes");
    }

    ngx_http_upstream_reuse_freed = reuse_freed;

    reuse_call_waiting(zone);
}


void
ngx_http_upstream_reuse_end_queues(void)
{
    if (ngx_http_upstream_reuse_bell == NGX_ERROR) {
        return;
    }

    ngx_shmtx_lock(&reuse_shpool->mutex);

    ngx_http_upstream_reuse_leave_bell();

    ngx_shmtx_unlock(&reuse_shpool->mutex);
}


static ngx_int_t
reuse_begin_queue(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_slab_pool_t *shpool, ngx_log_t *log)
{
    ngx_http_upstream_reuse_zone_t     *zone;
    ngx_http_upstream_reuse_queue_t    *queue;
    ngx_http_upstream_reuse_waiters_t  *waiters;

    zone = shpool->data;

    if (zone->bells == NULL) {
        zone->bells = ngx_slab_calloc_locked(shpool,
                                     NGX_HTTP_UPSTREAM_REUSE_BELLS
                                     * sizeof(ngx_http_upstream_reuse_bell_t));
        if (zone->bells == NULL) {
            return NGX_ERROR;
        }
    }

    queue = reuse_find_queue(shpool, &rcf->name);
    if (queue == NULL) {
        return NGX_ERROR;
    }

    waiters = reuse_find_waiters(queue, log);
    if (waiters == NULL) {
        return NGX_ERROR;
    }

    waiters->conf = rcf;
    rcf->waiters = waiters;

    return NGX_OK;
}


static ngx_http_upstream_reuse_queue_t *
reuse_find_queue(ngx_slab_pool_t *shpool, ngx_str_t *name)
{
    ngx_http_upstream_reuse_zone_t   *zone;
    ngx_http_upstream_reuse_queue_t  *queue;

    zone = shpool->data;

    for (queue = zone->queues; queue; queue = queue->next) {
        if (queue->name.len == name->len
            && ngx_memcmp(queue->name.data, name->data, name->len) == 0)
        {
            return queue;
        }
    }

    queue = ngx_slab_calloc_locked(shpool,
                                   sizeof(ngx_http_upstream_reuse_queue_t)
                                   + name->len);
    if (queue == NULL) {
        return NULL;
    }

    queue->name.len = name->len;
    queue->name.data = (u_char *) (queue + 1);
    ngx_memcpy(queue->name.data, name->data, name->len);

    queue->next = zone->queues;

    ngx_memory_barrier();

    zone->queues = queue;

    return queue;
}


/* A block may be called what another upstream is by its host and port. */

static ngx_http_upstream_reuse_waiters_t *
reuse_find_waiters(ngx_http_upstream_reuse_queue_t *queue, ngx_log_t *log)
{
    ngx_http_upstream_reuse_waiters_t  *waiters;

    for (waiters = reuse_all_waiters; waiters; waiters = waiters->next) {
        if (waiters->queue == queue) {
            return waiters;
        }
    }

    waiters = ngx_calloc(sizeof(ngx_http_upstream_reuse_waiters_t), log);
    if (waiters == NULL) {
        return NULL;
    }

    ngx_queue_init(&waiters->requests);
    ngx_queue_init(&waiters->spare);

    waiters->queue = queue;
    waiters->event.handler = reuse_hand_on_handler;
    waiters->event.data = waiters;
    waiters->event.log = log;

    waiters->next = reuse_all_waiters;
    reuse_all_waiters = waiters;

    return waiters;
}


/* One that has died may have had what others wait for. */

static void
reuse_call_waiting(ngx_http_upstream_reuse_zone_t *zone)
{
    ngx_uint_t                        i;
    ngx_http_upstream_reuse_queue_t  *queue;

    for (queue = zone->queues; queue; queue = queue->next) {
        for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_BELLS; i++) {
            if (queue->lines[i].count) {
                ngx_http_upstream_reuse_ring(i);
            }
        }
    }
}


ngx_int_t
ngx_http_upstream_reuse_enter_queue(ngx_http_upstream_reuse_queued_t *queued,
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_log_t *log)
{
    ngx_http_upstream_reuse_line_t   *line;
    ngx_http_upstream_reuse_queue_t  *queue;

    queued->waiters = rcf->waiters;
    queue = rcf->waiters->queue;

    ngx_shmtx_lock(&reuse_shpool->mutex);

    if (ngx_http_upstream_reuse_bell == NGX_ERROR
        || queue->waiting >= (ngx_atomic_uint_t) rcf->queue)
    {
        queue->full++;
        ngx_shmtx_unlock(&reuse_shpool->mutex);

        return NGX_DECLINED;
    }

    line = &queue->lines[ngx_http_upstream_reuse_bell];

    queued->number = ++queue->number;
    queue->waited++;

    line->count++;

    if (line->first == 0) {
        line->first = queued->number;
    }

    ngx_http_upstream_reuse_sum_queue(queue);

    ngx_shmtx_unlock(&reuse_shpool->mutex);

    ngx_queue_insert_tail(&rcf->waiters->requests, &queued->queue);
    queued->waits = 1;
    queued->since = ngx_current_msec;

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, log, 0,
                   "upstream reuse: request waits for a connection, as number "
                   "%uA of %uA to upstream \"%V\"", queued->number,
                   queue->waiting, &rcf->name);

    if (!reuse_check_task.scheduled) {
        ngx_http_upstream_reuse_schedule(&reuse_check_task,
                                         NGX_HTTP_UPSTREAM_REUSE_RECHECK);
    }

    reuse_call_others(rcf);

    return NGX_OK;
}


void
ngx_http_upstream_reuse_leave_queue(ngx_http_upstream_reuse_queued_t *queued)
{
    ngx_queue_t                        *q;
    ngx_http_upstream_reuse_line_t     *line;
    ngx_http_upstream_reuse_queue_t    *queue;
    ngx_http_upstream_reuse_queued_t   *first;
    ngx_http_upstream_reuse_waiters_t  *waiters;

    if (!queued->waits) {
        return;
    }

    queued->waits = 0;
    queued->waited += ngx_current_msec - queued->since;

    ngx_queue_remove(&queued->queue);

    waiters = queued->waiters;
    queue = waiters->queue;
    line = &queue->lines[ngx_http_upstream_reuse_bell];

    ngx_shmtx_lock(&reuse_shpool->mutex);

    line->count--;
    line->first = 0;

    if (!ngx_queue_empty(&waiters->requests)) {
        q = ngx_queue_head(&waiters->requests);
        first = ngx_queue_data(q, ngx_http_upstream_reuse_queued_t, queue);
        line->first = first->number;
    }

    ngx_http_upstream_reuse_sum_queue(queue);

    ngx_shmtx_unlock(&reuse_shpool->mutex);

    if (queue->waiting && !waiters->event.posted) {

        /* what it did not take is the next one's */

        ngx_post_event(&waiters->event, &ngx_posted_events);
    }
}


/*
 * Whatever has become free before the others could know that a request waits
 * is found here, and by the workers that have idle connections.
 */

static void
reuse_call_others(ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    ngx_rbtree_node_t                 *node;
    ngx_http_upstream_reuse_tally_t   *share;
    ngx_http_upstream_reuse_server_t  *server;

    (void) reuse_is_waited_for(rcf->waiters->queue);

    if (!rcf->waiters->event.posted) {
        ngx_post_event(&rcf->waiters->event, &ngx_posted_events);
    }

    if (rcf->servers.root == &rcf->sentinel) {
        return;
    }

    ngx_shmtx_lock(&reuse_shpool->mutex);

    for (node = ngx_rbtree_min(rcf->servers.root, &rcf->sentinel);
         node;
         node = ngx_rbtree_next(&rcf->servers, node))
    {
        server = (ngx_http_upstream_reuse_server_t *) node;

        for (share = server->record->tallies; share; share = share->next) {

            if (share->pid && share->pid != ngx_pid
                && share->counters[NGX_HTTP_UPSTREAM_REUSE_IDLE])
            {
                ngx_http_upstream_reuse_ring_worker(share->pid);
            }
        }
    }

    ngx_shmtx_unlock(&reuse_shpool->mutex);
}


void
ngx_http_upstream_reuse_spare(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_http_upstream_reuse_waiters_t  *waiters;

    waiters = conn->conf->waiters;

    if (waiters && reuse_is_waited_for(waiters->queue)
        && !waiters->event.posted)
    {
        ngx_post_event(&waiters->event, &ngx_posted_events);
    }
}


static void
reuse_freed(ngx_http_upstream_reuse_server_t *server)
{
    ngx_http_upstream_reuse_waiters_t  *waiters;

    waiters = server->limited->waiters;

    if (reuse_is_waited_for(waiters->queue) && !waiters->event.posted) {
        ngx_post_event(&waiters->event, &ngx_posted_events);
    }
}


/* Another worker has something to give, or wants something. */

static void
reuse_heard(void)
{
    ngx_http_upstream_reuse_waiters_t  *waiters;

    for (waiters = reuse_all_waiters; waiters; waiters = waiters->next) {
        reuse_hand_on(waiters, 1);
    }
}


static void
reuse_hand_on_handler(ngx_event_t *ev)
{
    reuse_hand_on(ev->data, 0);
}


/*
 * As long as the first of all requests is one of this worker, it gets what is
 * free; then it is another worker's turn.  Another one that tells of something
 * free may know of servers that this one has not met.
 */

static void
reuse_hand_on(ngx_http_upstream_reuse_waiters_t *waiters, ngx_uint_t told)
{
    ngx_int_t                          first;
    ngx_queue_t                       *q;
    ngx_atomic_uint_t                  number;
    ngx_http_upstream_reuse_queued_t  *queued;

    number = 0;

    for ( ;; ) {

        first = reuse_find_first(waiters->queue);

        if (first == NGX_ERROR) {
            return;
        }

        if (first != ngx_http_upstream_reuse_bell
            || ngx_queue_empty(&waiters->requests))
        {
            break;
        }

        q = ngx_queue_head(&waiters->requests);
        queued = ngx_queue_data(q, ngx_http_upstream_reuse_queued_t, queue);

        if (queued->number == number) {

            /* it has found nothing */

            return;
        }

        if (!told && !reuse_has_any(waiters, queued->nservers)) {
            return;
        }

        told = 0;
        number = queued->number;

        queued->turn(queued);
    }

    reuse_give(waiters, first);
}


/* What is idle here is parked, where the other worker finds it, or closed. */

static void
reuse_give(ngx_http_upstream_reuse_waiters_t *waiters, ngx_uint_t bell)
{
    ngx_uint_t                       n;
    ngx_queue_t                     *q;
    ngx_http_upstream_reuse_conn_t  *conn;

    for (n = waiters->queue->waiting;
         n && !ngx_queue_empty(&waiters->spare);
         n--)
    {
        q = ngx_queue_head(&waiters->spare);
        conn = ngx_queue_data(q, ngx_http_upstream_reuse_conn_t, spare);

        if (ngx_http_upstream_reuse_hand_over(conn) != NGX_OK) {
            conn->on_timeout = NGX_HTTP_UPSTREAM_REUSE_CLOSE_LIMIT;
            ngx_http_upstream_reuse_pool_remove(conn->connection);
        }
    }

    if (bell != (ngx_uint_t) NGX_ERROR && reuse_has_any(waiters, 0)) {
        ngx_http_upstream_reuse_ring(bell);
    }
}


/*
 * The number of the bell of the worker that has the first request of all.  One
 * that hangs would hold up all others: it comes after them.
 */

static ngx_int_t
reuse_find_first(ngx_http_upstream_reuse_queue_t *queue)
{
    ngx_int_t          first;
    ngx_uint_t         i, hangs, late;
    ngx_atomic_uint_t  number, least;

    first = NGX_ERROR;
    least = 0;
    late = 0;

    if (queue->waiting == 0) {
        return NGX_ERROR;
    }

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_BELLS; i++) {

        number = *(volatile ngx_atomic_uint_t *) &queue->lines[i].first;

        if (number == 0) {
            continue;
        }

        hangs = ngx_http_upstream_reuse_hangs(i);

        if (first == NGX_ERROR
            || hangs < late
            || (hangs == late && number < least))
        {
            first = i;
            least = number;
            late = hangs;
        }
    }

    return first;
}


/*
 * Whether there is a connection that a request could have: of those servers
 * that this worker knows, if these are as many as that.
 */

static ngx_uint_t
reuse_has_any(ngx_http_upstream_reuse_waiters_t *waiters, ngx_uint_t nservers)
{
    ngx_uint_t                           n, found;
    ngx_rbtree_node_t                   *node;
    ngx_http_upstream_reuse_server_t    *server;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = waiters->conf;

    if (!ngx_queue_empty(&waiters->spare)) {
        return 1;
    }

    if (rcf->servers.root == &rcf->sentinel) {
        return nservers;
    }

    n = 0;
    found = 0;

    ngx_shmtx_lock(&reuse_shpool->mutex);

    for (node = ngx_rbtree_min(rcf->servers.root, &rcf->sentinel);
         node && !found;
         node = ngx_rbtree_next(&rcf->servers, node))
    {
        server = (ngx_http_upstream_reuse_server_t *) node;

        found = (server->limited
                 && ngx_http_upstream_reuse_has_slot(server));
        n++;
    }

    ngx_shmtx_unlock(&reuse_shpool->mutex);

    return found || n < nservers;
}


/*
 * Whatever a worker had that has died is free.  It may have been about to wake
 * this one, too.
 */

static void
reuse_check_handler(void)
{
    ngx_uint_t                           waits;
    ngx_http_upstream_reuse_zone_t      *zone;
    ngx_http_upstream_reuse_waiters_t   *waiters;

    waits = 0;

    for (waiters = reuse_all_waiters; waiters; waiters = waiters->next) {
        waits |= !ngx_queue_empty(&waiters->requests);
    }

    if (!waits) {
        return;
    }

    ngx_http_upstream_reuse_schedule(&reuse_check_task,
                                     NGX_HTTP_UPSTREAM_REUSE_RECHECK);

    zone = reuse_shpool->data;

    ngx_shmtx_lock(&reuse_shpool->mutex);

    (void) ngx_http_upstream_reuse_inherit_dead(zone);

    ngx_http_upstream_reuse_forget_bells(zone);

    ngx_shmtx_unlock(&reuse_shpool->mutex);

    /* a worker may have been killed, or busy, as it was about to ring */

    ngx_http_upstream_reuse_reset_bells();

    for (waiters = reuse_all_waiters; waiters; waiters = waiters->next) {

        if (!ngx_queue_empty(&waiters->requests)) {
            reuse_call_others(waiters->conf);
        }

        reuse_hand_on(waiters, 0);
    }
}
