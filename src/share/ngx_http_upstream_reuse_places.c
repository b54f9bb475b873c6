
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Connections of one label are a stack: the one that was parked last is taken
 * first, so that those which are not needed get old and end.
 *
 * The lock is that of the zone's slab pool, which the master process opens if
 * a worker dies with it.  Whatever that worker was doing is found by the next
 * one: the lists are made anew from the places then.
 */


#include "ngx_http_upstream_reuse_share.h"


#define NGX_HTTP_UPSTREAM_REUSE_STACKS    1024

#define NGX_HTTP_UPSTREAM_REUSE_NO_PLACE  ((uint32_t) -1)


typedef struct {
    uint32_t                             next;   /* in its stack, or free */
    uint32_t                             parked;  /* unsigned  parked:1; */
    ngx_uint_t                           serial;
    ngx_http_upstream_reuse_parcel_t     parcel;
} reuse_place_t;


/* cycle, in shared memory: places below "used" have been used */

typedef struct {
    ngx_atomic_t                         cycles;  /* number of the last one */
    ngx_atomic_t                         visited;  /* milliseconds */
    ngx_uint_t                           visitor;  /* its cycle */
    ngx_pid_t                            changing;  /* has the lock */
    ngx_uint_t                           serial;  /* of the last one parked */

    ngx_uint_t                           used;
    uint32_t                             free;
    uint32_t                             stacks[
                                             NGX_HTTP_UPSTREAM_REUSE_STACKS];
    reuse_place_t                        places[
                                             NGX_HTTP_UPSTREAM_REUSE_PLACES];
} reuse_places_t;


static ngx_int_t reuse_init_places(ngx_shm_zone_t *shm_zone, void *data);

static void reuse_copy(ngx_http_upstream_reuse_parcel_t *dst,
    ngx_http_upstream_reuse_parcel_t *src);
static void reuse_lock(void);
static void reuse_unlock(void);
static void reuse_restore(void);
static uint32_t reuse_find_free(void);
static void reuse_push(uint32_t *head, uint32_t i);
static void reuse_remove(uint32_t i);
static ngx_uint_t reuse_matches(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_parcel_t *wanted);
static void reuse_count_lost(ngx_http_upstream_reuse_parcel_t *parcel);


/* worker */

ngx_uint_t  ngx_http_upstream_reuse_nplaces;
ngx_uint_t  ngx_http_upstream_reuse_cycle;
ngx_uint_t  ngx_http_upstream_reuse_zone_cycle;

static ngx_slab_pool_t  *reuse_shpool;
static reuse_places_t   *reuse_places;


static ngx_str_t  reuse_places_name =
    ngx_string("ngx_http_upstream_reuse_places");


ngx_shm_zone_t *
ngx_http_upstream_reuse_add_places(ngx_conf_t *cf)
{
    size_t  size;

    /* what is not used of it, the system does not provide */

    size = sizeof(reuse_places_t) + sizeof(reuse_places_t) / 64
           + 8 * ngx_pagesize;

    return ngx_http_upstream_reuse_add_shared(cf, &reuse_places_name,
                                              ngx_align(size, ngx_pagesize),
                                              reuse_init_places);
}


static ngx_int_t
reuse_init_places(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_uint_t        i;
    reuse_places_t   *places;
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (data || shm_zone->shm.exists) {
        shm_zone->data = shpool->data;
        return NGX_OK;
    }

    places = ngx_slab_alloc(shpool, sizeof(reuse_places_t));
    if (places == NULL) {
        return NGX_ERROR;
    }

    places->cycles = 0;
    places->visited = 0;
    places->visitor = 0;
    places->changing = 0;
    places->serial = 0;
    places->used = 0;
    places->free = NGX_HTTP_UPSTREAM_REUSE_NO_PLACE;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_STACKS; i++) {
        places->stacks[i] = NGX_HTTP_UPSTREAM_REUSE_NO_PLACE;
    }

    shpool->data = places;
    shm_zone->data = places;

    return NGX_OK;
}


ngx_uint_t
ngx_http_upstream_reuse_number_cycle(ngx_shm_zone_t *shm_zone)
{
    reuse_places_t  *places;

    places = shm_zone->data;

    return ++places->cycles;
}


ngx_uint_t
ngx_http_upstream_reuse_enter_places(ngx_cycle_t *cycle)
{
    struct rlimit                         rlmt;
    ngx_http_upstream_reuse_zone_t       *zone;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_upstream_reuse_module);

    reuse_shpool = (ngx_slab_pool_t *) rmcf->places->shm.addr;
    reuse_places = rmcf->places->data;

    ngx_http_upstream_reuse_nplaces = rmcf->nplaces;
    ngx_http_upstream_reuse_cycle = rmcf->cycle;

    zone = rmcf->zone->data;
    ngx_http_upstream_reuse_zone_cycle = zone->cycle;

    if (ngx_process != NGX_PROCESS_WORKER
        || getrlimit(RLIMIT_NOFILE, &rlmt) == -1
        || rlmt.rlim_cur == RLIM_INFINITY)
    {
        return ngx_http_upstream_reuse_nsockets;
    }

    /* what places take is not to be missing for connections */

    rlmt.rlim_cur += 2 * ngx_http_upstream_reuse_nsockets;
    rlmt.rlim_cur = ngx_min(rlmt.rlim_cur, rlmt.rlim_max);

    if (setrlimit(RLIMIT_NOFILE, &rlmt) == -1) {
        ngx_log_error(NGX_LOG_ALERT, cycle->log, ngx_errno,
                      "setrlimit(RLIMIT_NOFILE) failed");
    }

    return ngx_http_upstream_reuse_nsockets;
}


ngx_uint_t
ngx_http_upstream_reuse_is_last_cycle(void)
{
    return reuse_places->cycles == ngx_http_upstream_reuse_cycle;
}


ngx_int_t
ngx_http_upstream_reuse_park(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, ngx_http_upstream_reuse_server_t *server)
{
    uint32_t        i;
    reuse_place_t  *place;

    reuse_lock();

    i = reuse_find_free();

    if (i == NGX_HTTP_UPSTREAM_REUSE_NO_PLACE) {
        reuse_unlock();
        return NGX_DECLINED;
    }

    place = &reuse_places->places[i];
    place->serial = ++reuse_places->serial;

    if (ngx_http_upstream_reuse_send_fd(i, fd, place->serial) != NGX_OK) {
        reuse_push(&reuse_places->free, i);
        reuse_unlock();

        return NGX_DECLINED;
    }

    reuse_copy(&place->parcel, parcel);
    place->parked = 1;

    reuse_push(&reuse_places->stacks[parcel->hash
                                     % NGX_HTTP_UPSTREAM_REUSE_STACKS],
               i);

    /* a worker that dies later has nothing to do with it any more */

    if (server) {
        ngx_http_upstream_reuse_uncount(server, IDLE);
        ngx_http_upstream_reuse_count(server, HANDED_OVER);
    }

    reuse_unlock();

    return NGX_OK;
}


ngx_socket_t
ngx_http_upstream_reuse_unpark(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_server_t *server)
{
    uint32_t        i, next, *stack;
    ngx_socket_t    fd;
    reuse_place_t  *place;

    stack = &reuse_places->stacks[parcel->hash
                                  % NGX_HTTP_UPSTREAM_REUSE_STACKS];

    /* without the lock: one that is parked now is found by the next request */

    if (*(volatile uint32_t *) stack == NGX_HTTP_UPSTREAM_REUSE_NO_PLACE) {
        return -1;
    }

    reuse_lock();

    fd = -1;

    for (i = *stack; i != NGX_HTTP_UPSTREAM_REUSE_NO_PLACE; i = next) {

        place = &reuse_places->places[i];
        next = place->next;

        if (i >= ngx_http_upstream_reuse_nsockets
            || !reuse_matches(&place->parcel, parcel))
        {
            continue;
        }

        if (!ngx_http_upstream_reuse_may_recv_fd()) {
            break;
        }

        fd = ngx_http_upstream_reuse_recv_fd(i, place->serial);

        reuse_copy(parcel, &place->parcel);
        reuse_remove(i);

        if (fd != -1) {
            ngx_http_upstream_reuse_count(server, SWEPT);
            break;
        }

        reuse_count_lost(parcel);
    }

    reuse_unlock();

    return fd;
}


ngx_socket_t
ngx_http_upstream_reuse_unpark_any(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server)
{
    uint32_t        i;
    ngx_uint_t      n;
    ngx_socket_t    fd;
    reuse_place_t  *place;

    fd = -1;
    n = ngx_min(reuse_places->used, ngx_http_upstream_reuse_nsockets);

    for (i = 0; i < n && fd == (ngx_socket_t) -1; i++) {

        place = &reuse_places->places[i];

        if (!*(volatile uint32_t *) &place->parked
            || !ngx_http_upstream_reuse_is_of_server(&place->parcel, rcf,
                                                     server)
            || !ngx_http_upstream_reuse_may_recv_fd())
        {
            continue;
        }

        reuse_lock();

        if (place->parked
            && ngx_http_upstream_reuse_is_of_server(&place->parcel, rcf,
                                                    server))
        {
            fd = ngx_http_upstream_reuse_recv_fd(i, place->serial);

            reuse_copy(parcel, &place->parcel);
            reuse_remove(i);

            if (fd == (ngx_socket_t) -1) {
                reuse_count_lost(parcel);
            }
        }

        reuse_unlock();
    }

    return fd;
}


ngx_socket_t
ngx_http_upstream_reuse_visit_places(ngx_uint_t *i,
    ngx_http_upstream_reuse_visit_pt select,
    ngx_http_upstream_reuse_visit_pt visit, void *data,
    ngx_http_upstream_reuse_parcel_t *parcel)
{
    ngx_uint_t      n;
    ngx_socket_t    fd;
    reuse_place_t  *place;

    for ( ;; ) {

        n = ngx_min(reuse_places->used, ngx_http_upstream_reuse_nsockets);

        while (*i < n && !reuse_places->places[*i].parked) {
            (*i)++;
        }

        if (*i >= n || !ngx_http_upstream_reuse_may_recv_fd()) {
            return -1;
        }

        place = &reuse_places->places[(*i)++];

        reuse_lock();

        if (!place->parked
            || (select
                && !select(&place->parcel, (ngx_socket_t) -1, data)))
        {
            reuse_unlock();
            continue;
        }

        fd = ngx_http_upstream_reuse_recv_fd(*i - 1, place->serial);

        if (fd != -1 && !visit(&place->parcel, fd, data)) {

            if (ngx_http_upstream_reuse_send_fd(*i - 1, fd, place->serial)
                == NGX_OK)
            {
                reuse_unlock();
                (void) ngx_close_socket(fd);
                continue;
            }

            place->parcel.reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR;
        }

        reuse_copy(parcel, &place->parcel);
        reuse_remove(*i - 1);

        reuse_unlock();

        if (fd != -1) {
            return fd;
        }

        reuse_count_lost(parcel);
    }
}


ngx_uint_t
ngx_http_upstream_reuse_is_of_server(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server)
{
    return !ngx_http_upstream_reuse_is_foreign(parcel)
           && parcel->name_len == rcf->name.len
           && parcel->socklen == server->node.str.len
           && ngx_memcmp(ngx_http_upstream_reuse_parcel_address(parcel),
                         server->node.str.data, parcel->socklen)
              == 0
           && ngx_memcmp(ngx_http_upstream_reuse_parcel_name(parcel),
                         rcf->name.data, parcel->name_len)
              == 0;
}


/* Without the lock: the next request changes it anyway. */

void
ngx_http_upstream_reuse_count_parked(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t ahead,
    ngx_http_upstream_reuse_parked_t *parked)
{
    ngx_uint_t                         i;
    reuse_place_t                     *place;
    ngx_msec_int_t                     left;
    ngx_http_upstream_reuse_parcel_t  *parcel;

    ngx_memzero(parked, sizeof(ngx_http_upstream_reuse_parked_t));

    parked->next = NGX_MAX_INT32_VALUE;

    if (ngx_http_upstream_reuse_nplaces == 0) {
        return;
    }

    for (i = 0; i < reuse_places->used; i++) {

        place = &reuse_places->places[i];
        parcel = &place->parcel;

        if (!*(volatile uint32_t *) &place->parked
            || !ngx_http_upstream_reuse_is_of_server(parcel, rcf, server))
        {
            continue;
        }

        parked->warm += parcel->warm;
        parked->proved += parcel->warm
                          && (ngx_msec_int_t) (parcel->seen - parcel->since)
                             >= NGX_HTTP_UPSTREAM_REUSE_PROVED;

        left = parcel->end - ngx_current_msec;

        if (left <= 0) {
            continue;
        }

        parked->idle++;

        if ((ngx_msec_t) left > ahead) {
            parked->lasting++;
            parked->next = ngx_min(parked->next, (ngx_msec_t) left - ahead);
        }
    }
}


ngx_uint_t
ngx_http_upstream_reuse_is_time_to_visit(ngx_msec_t pause)
{
    ngx_atomic_uint_t  visited;

    visited = reuse_places->visited;

    /*
     * A worker of a cycle before does not know what has changed.  Another
     * worker's time may be a little ahead of ours.
     */

    if (((ngx_int_t) (ngx_http_upstream_reuse_cycle - reuse_places->visitor)
         <= 0
         && (ngx_msec_int_t) (ngx_current_msec - visited)
            < (ngx_msec_int_t) pause)
        || !ngx_atomic_cmp_set(&reuse_places->visited, visited,
                               ngx_current_msec))
    {
        return 0;
    }

    reuse_places->visitor = ngx_http_upstream_reuse_cycle;

    return 1;
}


/* Most labels are short. */

static void
reuse_copy(ngx_http_upstream_reuse_parcel_t *dst,
    ngx_http_upstream_reuse_parcel_t *src)
{
    ngx_memcpy(dst, src, offsetof(ngx_http_upstream_reuse_parcel_t, label)
                         + src->label_len);
}


static void
reuse_lock(void)
{
    ngx_shmtx_lock(&reuse_shpool->mutex);

    if (reuse_places->changing) {
        reuse_restore();
    }

    reuse_places->changing = ngx_pid;

    /* whoever dies after that leaves the mark */

    ngx_memory_barrier();
}


static void
reuse_unlock(void)
{
    ngx_memory_barrier();

    reuse_places->changing = 0;

    ngx_shmtx_unlock(&reuse_shpool->mutex);
}


/*
 * A worker has died while it had the lock.  What lies in a place that is not
 * known as parked is closed, at the latest when that place is used again, as
 * this worker may have fewer of them; one that is known and is not there any
 * more is found when it is to be taken.
 */

static void
reuse_restore(void)
{
    uint32_t        i, *stack;
    reuse_place_t  *place;

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "process %P died while it shared a connection: the lists "
                  "of shared connections are made anew",
                  reuse_places->changing);

    reuse_places->free = NGX_HTTP_UPSTREAM_REUSE_NO_PLACE;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_STACKS; i++) {
        reuse_places->stacks[i] = NGX_HTTP_UPSTREAM_REUSE_NO_PLACE;
    }

    for (i = 0; i < reuse_places->used; i++) {

        place = &reuse_places->places[i];

        if (place->parked) {
            stack = &reuse_places->stacks[place->parcel.hash
                                          % NGX_HTTP_UPSTREAM_REUSE_STACKS];
            reuse_push(stack, i);
            continue;
        }

        if (i < ngx_http_upstream_reuse_nsockets) {
            (void) ngx_http_upstream_reuse_recv_fd(i, 0);
        }

        reuse_push(&reuse_places->free, i);
    }
}


/* Of a configuration before, there may be more than this one allows. */

static uint32_t
reuse_find_free(void)
{
    uint32_t  i, *link;

    for (link = &reuse_places->free;
         *link != NGX_HTTP_UPSTREAM_REUSE_NO_PLACE;
         link = &reuse_places->places[*link].next)
    {
        i = *link;

        if (i < ngx_http_upstream_reuse_nplaces) {
            *link = reuse_places->places[i].next;
            return i;
        }
    }

    if (reuse_places->used < ngx_http_upstream_reuse_nplaces) {

        i = (uint32_t) reuse_places->used++;
        reuse_places->places[i].parked = 0;

        return i;
    }

    return NGX_HTTP_UPSTREAM_REUSE_NO_PLACE;
}


static void
reuse_push(uint32_t *head, uint32_t i)
{
    reuse_places->places[i].next = *head;
    *head = i;
}


/* Takes a place off its stack: it is free then. */

static void
reuse_remove(uint32_t i)
{
    uint32_t       *link;
    reuse_place_t  *place;

    place = &reuse_places->places[i];

    link = &reuse_places->stacks[place->parcel.hash
                                 % NGX_HTTP_UPSTREAM_REUSE_STACKS];

    while (*link != i) {
        link = &reuse_places->places[*link].next;
    }

    *link = place->next;

    place->parked = 0;
    reuse_push(&reuse_places->free, i);
}


/*
 * What an address in memory stands for, is true of one cycle only.  A
 * connection is counted with one server for as long as it lasts.
 */

static ngx_uint_t
reuse_matches(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_parcel_t *wanted)
{
    if (parcel->hash != wanted->hash
        || parcel->label_len != wanted->label_len
        || parcel->socklen != wanted->socklen
        || parcel->name_len != wanted->name_len
        || parcel->location != wanted->location
        || parcel->zone != wanted->zone
        || parcel->stands != wanted->stands
        || ngx_memcmp(parcel->label, wanted->label, wanted->label_len) != 0)
    {
        return 0;
    }

    return parcel->cycle == wanted->cycle
           || (parcel->location == NULL
               && ngx_http_upstream_reuse_parcel_identity(parcel)->location
                  == NULL);
}


/*
 * The worker that was taking it out, or parking it, has died; or this one has
 * no descriptor for it.
 */

static void
reuse_count_lost(ngx_http_upstream_reuse_parcel_t *parcel)
{
    ngx_http_upstream_reuse_close_e  reason;

    reason = ngx_http_upstream_reuse_may_recv_fd()
             ? NGX_HTTP_UPSTREAM_REUSE_CLOSE_CRASH
             : NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR;

    ngx_http_upstream_reuse_count_swept(parcel, reason);
}
