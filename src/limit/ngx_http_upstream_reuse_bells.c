
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A worker that has requests waiting for a connection is woken by others: each
 * has one of the sockets that the master process has opened for this, and all
 * workers have in common.
 */


#include "ngx_http_upstream_reuse_limit.h"


/* besides two for each worker: while a reload lasts, old ones go on */
#define NGX_HTTP_UPSTREAM_REUSE_MORE_BELLS  8

/*
 * milliseconds after which a worker that does not hear hangs: longer than
 * from one look of a worker whose requests wait to the next one
 */
#define NGX_HTTP_UPSTREAM_REUSE_HANGS       2000


static void reuse_part_zones(ngx_cycle_t *cycle);
static ngx_uint_t reuse_is_any_limited(ngx_cycle_t *cycle);
static ngx_int_t reuse_open_bell(ngx_socket_t *pair, ngx_log_t *log);
static void reuse_close_bells(void *data);
static ngx_int_t reuse_listen(ngx_cycle_t *cycle);
static void reuse_bell_handler(ngx_event_t *ev);


/* master and worker: how many there are, and how many cycles have them */

static ngx_socket_t  reuse_bells[NGX_HTTP_UPSTREAM_REUSE_BELLS][2];
static ngx_uint_t    reuse_nbells;
static ngx_uint_t    reuse_ncycles;


/* worker */

ngx_int_t  ngx_http_upstream_reuse_bell = NGX_ERROR;

static ngx_http_upstream_reuse_zone_t  *reuse_zone;
static ngx_connection_t                *reuse_bell_connection;
static void                           (*reuse_heard)(void);


void
ngx_http_upstream_reuse_open_bells(ngx_cycle_t *cycle)
{
    ngx_uint_t           n;
    ngx_core_conf_t     *ccf;
    ngx_pool_cleanup_t  *cln;

    if (!reuse_is_any_limited(cycle) && reuse_nbells == 0) {
        return;
    }

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (cln == NULL) {
        return;
    }

    cln->handler = reuse_close_bells;
    reuse_ncycles++;

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    n = 2 * ccf->worker_processes + NGX_HTTP_UPSTREAM_REUSE_MORE_BELLS;
    n = ngx_min(n, NGX_HTTP_UPSTREAM_REUSE_BELLS);

    while (reuse_nbells < n
           && reuse_open_bell(reuse_bells[reuse_nbells], cycle->log) == NGX_OK)
    {
        reuse_nbells++;
    }

    reuse_part_zones(cycle);
}


/*
 * After a reload with another size of "reuse_zone", workers of two zones have
 * the same sockets, and one would read what is to wake another.  So each of
 * them begins with another half.
 */

static void
reuse_part_zones(ngx_cycle_t *cycle)
{
    ngx_http_upstream_reuse_zone_t       *zone, *before;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    /* the cycle before; at the start there is none */

    if (ngx_cycle == NULL || ngx_cycle->conf_ctx == NULL) {
        return;
    }

    rmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                              ngx_http_upstream_reuse_module);

    if (rmcf == NULL || rmcf->zone == NULL) {
        return;
    }

    before = rmcf->zone->data;

    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_upstream_reuse_module);
    zone = rmcf->zone->data;

    if (before && zone != before) {
        zone->upper = !before->upper;
    }
}


static ngx_uint_t
reuse_is_any_limited(ngx_cycle_t *cycle)
{
    ngx_uint_t                            i;
    ngx_http_upstream_main_conf_t        *umcf;
    ngx_http_upstream_reuse_srv_conf_t   *rcf;

    umcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_upstream_module);

    i = 0;

    while ((rcf = ngx_http_upstream_reuse_next_conf(umcf, &i))) {

        if (rcf->limit > 0) {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
reuse_open_bell(ngx_socket_t *pair, ngx_log_t *log)
{
    ngx_uint_t  i;

    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == -1) {
        ngx_log_error(NGX_LOG_ALERT, log, ngx_errno,
                      "socketpair() for \"reuse_limit\" failed");
        return NGX_ERROR;
    }

    for (i = 0; i < 2; i++) {

        if (ngx_nonblocking(pair[i]) == -1
            || fcntl(pair[i], F_SETFD, FD_CLOEXEC) == -1)
        {
            ngx_log_error(NGX_LOG_ALERT, log, ngx_errno,
                          "a socket for \"reuse_limit\" could not be "
                          "prepared");

            (void) ngx_close_socket(pair[0]);
            (void) ngx_close_socket(pair[1]);

            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* The cycle before has them in common with the next one. */

static void
reuse_close_bells(void *data)
{
    ngx_socket_t  *pair;

    if (--reuse_ncycles) {
        return;
    }

    while (reuse_nbells) {
        pair = reuse_bells[--reuse_nbells];

        (void) ngx_close_socket(pair[0]);
        (void) ngx_close_socket(pair[1]);
    }
}


/*
 * What a dead worker had is taken first; the caller has the lock.
 *
 * If many workers of two zones are there, some may have the same socket all
 * the same.  Then one is woken for nothing, and the other one sleeps until it
 * looks by itself, as it does each second while requests wait
 * (reuse_check_handler() in queue.c): who is rung stands in the zone.
 */

ngx_int_t
ngx_http_upstream_reuse_take_bell(ngx_cycle_t *cycle,
    ngx_http_upstream_reuse_zone_t *zone, void (*heard)(void))
{
    ngx_uint_t                        i, n;
    ngx_http_upstream_reuse_queue_t  *queue;

    reuse_zone = zone;
    reuse_heard = heard;

    ngx_http_upstream_reuse_forget_bells(zone);

    i = zone->upper ? reuse_nbells / 2 : 0;

    for (n = 0; n < reuse_nbells; n++) {

        if (zone->bells[i].pid == 0) {
            break;
        }

        i = (i + 1) % reuse_nbells;
    }

    if (n == reuse_nbells) {
        return NGX_DECLINED;
    }

    for (queue = zone->queues; queue; queue = queue->next) {
        ngx_memzero(&queue->lines[i], sizeof(ngx_http_upstream_reuse_line_t));
    }

    zone->bells[i].rung = 0;
    zone->bells[i].unheard = 0;
    zone->bells[i].pid = ngx_pid;

    ngx_http_upstream_reuse_bell = i;

    if (reuse_listen(cycle) != NGX_OK) {
        zone->bells[i].pid = 0;
        ngx_http_upstream_reuse_bell = NGX_ERROR;

        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
reuse_listen(ngx_cycle_t *cycle)
{
    ngx_event_t       *rev;
    ngx_connection_t  *c;

    c = ngx_get_connection(reuse_bells[ngx_http_upstream_reuse_bell][1],
                           cycle->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    rev = c->read;
    rev->log = cycle->log;
    rev->handler = reuse_bell_handler;

    if (ngx_add_event(rev, NGX_READ_EVENT,
                      (ngx_event_flags & NGX_USE_CLEAR_EVENT)
                      ? NGX_CLEAR_EVENT : NGX_LEVEL_EVENT)
        != NGX_OK)
    {
        ngx_free_connection(c);
        return NGX_ERROR;
    }

    reuse_bell_connection = c;

    return NGX_OK;
}


/* Core would tell of a socket that is open at the end. */

void
ngx_http_upstream_reuse_leave_bell(void)
{
    ngx_http_upstream_reuse_queue_t  *queue;

    if (reuse_bell_connection) {
        ngx_close_connection(reuse_bell_connection);
        reuse_bell_connection = NULL;
    }

    for (queue = reuse_zone->queues; queue; queue = queue->next) {

        /* requests that still wait end with the process */

        ngx_memzero(&queue->lines[ngx_http_upstream_reuse_bell],
                    sizeof(ngx_http_upstream_reuse_line_t));
        ngx_http_upstream_reuse_sum_queue(queue);
    }

    reuse_zone->bells[ngx_http_upstream_reuse_bell].pid = 0;
    ngx_http_upstream_reuse_bell = NGX_ERROR;
}


static void
reuse_bell_handler(ngx_event_t *ev)
{
    char               buf[8];
    ngx_connection_t  *c;

    c = ev->data;

    while (recv(c->fd, buf, sizeof(buf), 0) >= 0) { /* void */ }

    if (c->close) {

        /*
         * Nobody has rung: "worker_shutdown_timeout" is over, and requests
         * that wait are refused by their own connections.
         */

        return;
    }

    /* whatever is free is looked for after this */

    reuse_zone->bells[ngx_http_upstream_reuse_bell].unheard = 0;

    (void) ngx_atomic_cmp_set(
                 &reuse_zone->bells[ngx_http_upstream_reuse_bell].rung, 1, 0);

    reuse_heard();
}


/* A worker of a cycle before may have fewer sockets. */

void
ngx_http_upstream_reuse_ring(ngx_uint_t i)
{
    if (i >= reuse_nbells
        || !ngx_atomic_cmp_set(&reuse_zone->bells[i].rung, 0, 1))
    {
        return;
    }

    if (reuse_zone->bells[i].unheard == 0) {
        reuse_zone->bells[i].unheard = ngx_max(ngx_current_msec, 1);
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                   "upstream reuse: process %P is woken",
                   reuse_zone->bells[i].pid);

    if (send(reuse_bells[i][0], "", 1, 0) == -1) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, ngx_socket_errno,
                       "upstream reuse: send() failed");
    }
}


void
ngx_http_upstream_reuse_reset_bells(void)
{
    ngx_uint_t  i;

    for (i = 0; i < reuse_nbells; i++) {
        reuse_zone->bells[i].rung = 0;
    }

    if (ngx_http_upstream_reuse_bell != NGX_ERROR) {

        /* another worker may have the same socket */

        reuse_zone->bells[ngx_http_upstream_reuse_bell].unheard = 0;
    }
}


/* The clock of whoever has rung may be a little ahead of ours. */

ngx_uint_t
ngx_http_upstream_reuse_hangs(ngx_uint_t i)
{
    ngx_msec_t  unheard;

    unheard = reuse_zone->bells[i].unheard;

    return unheard
           && (ngx_int_t) i != ngx_http_upstream_reuse_bell
           && (ngx_msec_int_t) (ngx_current_msec - unheard)
              >= NGX_HTTP_UPSTREAM_REUSE_HANGS;
}


void
ngx_http_upstream_reuse_ring_worker(ngx_pid_t pid)
{
    ngx_uint_t  i;

    for (i = 0; i < reuse_nbells; i++) {
        if (reuse_zone->bells[i].pid == pid) {
            ngx_http_upstream_reuse_ring(i);
            return;
        }
    }
}


void
ngx_http_upstream_reuse_forget_bells(ngx_http_upstream_reuse_zone_t *zone)
{
    ngx_uint_t                        i;
    ngx_http_upstream_reuse_queue_t  *queue;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_BELLS; i++) {

        if (zone->bells[i].pid == 0
            || (zone->bells[i].pid == ngx_pid
                && (ngx_int_t) i == ngx_http_upstream_reuse_bell)
            || (zone->bells[i].pid != ngx_pid
                && !ngx_http_upstream_reuse_has_died(zone->bells[i].pid)))
        {
            continue;
        }

        zone->bells[i].pid = 0;

        for (queue = zone->queues; queue; queue = queue->next) {
            ngx_memzero(&queue->lines[i],
                        sizeof(ngx_http_upstream_reuse_line_t));
        }
    }

    for (queue = zone->queues; queue; queue = queue->next) {
        ngx_http_upstream_reuse_sum_queue(queue);
    }
}


void
ngx_http_upstream_reuse_sum_queue(ngx_http_upstream_reuse_queue_t *queue)
{
    ngx_uint_t         i;
    ngx_atomic_uint_t  sum;

    sum = 0;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_BELLS; i++) {
        sum += queue->lines[i].count;
    }

    queue->waiting = sum;
}
