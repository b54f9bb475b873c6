
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


#include "ngx_http_upstream_reuse.h"
#include "ngx_http_upstream_reuse_places.h"


#define NGX_HTTP_UPSTREAM_REUSE_STACKS    1024

#define NGX_HTTP_UPSTREAM_REUSE_NO_PLACE  ((uint32_t) -1)

/* of the descriptors that a process may have, places take this part */
#define NGX_HTTP_UPSTREAM_REUSE_PART      8

/* descriptors that a worker needs besides its connections */
#define NGX_HTTP_UPSTREAM_REUSE_BESIDES   32


typedef struct {
    uint32_t                             next;   /* in its stack, or free */
    uint32_t                             parked;  /* unsigned  parked:1; */
    ngx_http_upstream_reuse_parcel_t     parcel;
} reuse_place_t;


/* cycle, in shared memory: places below "used" have been used */

typedef struct {
    ngx_atomic_t                         cycles;  /* number of the last one */
    ngx_atomic_t                         visited;  /* milliseconds */
    ngx_pid_t                            changing;  /* has the lock */

    ngx_uint_t                           used;
    uint32_t                             free;
    uint32_t                             stacks[
                                             NGX_HTTP_UPSTREAM_REUSE_STACKS];
    reuse_place_t                        places[
                                             NGX_HTTP_UPSTREAM_REUSE_PLACES];
} reuse_places_t;


static ngx_int_t reuse_init_places(ngx_shm_zone_t *shm_zone, void *data);
static ngx_uint_t reuse_count_places(ngx_cycle_t *cycle);
static ngx_int_t reuse_open_place(ngx_socket_t *pair, ngx_log_t *log);
static void reuse_close_places(void *data);

static ngx_int_t reuse_park(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd);
static void reuse_lock(void);
static void reuse_unlock(void);
static void reuse_restore(void);
static uint32_t reuse_find_free(void);
static void reuse_push(uint32_t *head, uint32_t i);
static void reuse_remove(uint32_t i);
static ngx_uint_t reuse_matches(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_parcel_t *wanted);
static void reuse_count_lost(ngx_http_upstream_reuse_parcel_t *parcel);
static ngx_int_t reuse_send_fd(ngx_uint_t i, ngx_socket_t fd);
static ngx_socket_t reuse_recv_fd(ngx_uint_t i);


/*
 * master, and the workers, which inherit them: the places that were made, and
 * how many cycles have them
 */

static ngx_socket_t  reuse_sockets[NGX_HTTP_UPSTREAM_REUSE_PLACES][2];
static ngx_uint_t    reuse_nsockets;
static ngx_uint_t    reuse_ncycles;


/* worker */

ngx_uint_t  ngx_http_upstream_reuse_nplaces;
ngx_uint_t  ngx_http_upstream_reuse_cycle;

static ngx_slab_pool_t  *reuse_shpool;
static reuse_places_t   *reuse_places;


static ngx_str_t  reuse_places_name =
    ngx_string("ngx_http_upstream_reuse_places");


ngx_shm_zone_t *
ngx_http_upstream_reuse_add_places(ngx_conf_t *cf)
{
    size_t           size;
    ngx_shm_zone_t  *shm_zone;

    /* what is not used of it, the system does not provide */

    size = sizeof(reuse_places_t) + sizeof(reuse_places_t) / 64
           + 8 * ngx_pagesize;

    shm_zone = ngx_shared_memory_add(cf, &reuse_places_name,
                                     ngx_align(size, ngx_pagesize),
                                     &ngx_http_upstream_reuse_module);
    if (shm_zone == NULL) {
        return NULL;
    }

    shm_zone->init = reuse_init_places;

    return shm_zone;
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
    places->changing = 0;
    places->used = 0;
    places->free = NGX_HTTP_UPSTREAM_REUSE_NO_PLACE;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_STACKS; i++) {
        places->stacks[i] = NGX_HTTP_UPSTREAM_REUSE_NO_PLACE;
    }

    shpool->data = places;
    shm_zone->data = places;

    return NGX_OK;
}


/* An error here would end the master process. */

ngx_int_t
ngx_http_upstream_reuse_open_places(ngx_cycle_t *cycle)
{
    ngx_uint_t                            n;
    reuse_places_t                       *places;
    ngx_pool_cleanup_t                   *cln;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_upstream_reuse_module);

    if (rmcf == NULL || ngx_test_config) {
        return NGX_OK;
    }

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (cln == NULL) {
        return NGX_OK;
    }

    cln->handler = reuse_close_places;
    reuse_ncycles++;

    places = rmcf->places->data;

    rmcf->cycle = ++places->cycles;

    n = reuse_count_places(cycle);

    while (reuse_nsockets < n) {

        if (reuse_open_place(reuse_sockets[reuse_nsockets], cycle->log)
            != NGX_OK)
        {
            break;
        }

        reuse_nsockets++;
    }

    rmcf->nplaces = ngx_min(n, reuse_nsockets);

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, cycle->log, 0,
                   "upstream reuse: %ui places of %ui", rmcf->nplaces,
                   reuse_nsockets);

    return NGX_OK;
}


/*
 * The master process needs two descriptors for each, and so does a worker,
 * which may raise its limit by as many, if that is not the most it may have.
 */

static ngx_uint_t
reuse_count_places(ngx_cycle_t *cycle)
{
    ngx_int_t                             most, n;
    struct rlimit                         rlmt;
    ngx_core_conf_t                      *ccf;
    ngx_event_conf_t                     *ecf;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_upstream_reuse_module);

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);
    ecf = ngx_event_get_conf(cycle->conf_ctx, ngx_event_core_module);

    if (rmcf->share == 0
        || (rmcf->share == NGX_CONF_UNSET && ccf->worker_processes < 2)
        || getrlimit(RLIMIT_NOFILE, &rlmt) == -1)
    {
        return 0;
    }

    most = (rmcf->share > 1) ? rmcf->share
                             : NGX_HTTP_UPSTREAM_REUSE_DEFAULT_PLACES;

    n = ngx_min(rlmt.rlim_cur, NGX_MAX_INT32_VALUE)
        / NGX_HTTP_UPSTREAM_REUSE_PART / 2;
    n = ngx_min(n, most);

    if (ccf->rlimit_nofile != NGX_CONF_UNSET) {
        rlmt.rlim_max = ccf->rlimit_nofile;
    }

    rlmt.rlim_max = ngx_min(rlmt.rlim_max, NGX_MAX_INT32_VALUE);

    most = ((ngx_int_t) rlmt.rlim_max - (ngx_int_t) ecf->connections
            - NGX_HTTP_UPSTREAM_REUSE_BESIDES - 2 * ccf->worker_processes)
           / 2;

    n = ngx_max(ngx_min(n, most), 0);

    if (rmcf->share != NGX_CONF_UNSET && (n == 0 || n < rmcf->share)) {
        ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                      "\"reuse_share\" has %i places, as the limit on open "
                      "files allows no more: raise that limit, and "
                      "\"worker_rlimit_nofile\"", n);
    }

    return n;
}


static ngx_int_t
reuse_open_place(ngx_socket_t *pair, ngx_log_t *log)
{
    ngx_uint_t  i;

    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == -1) {
        ngx_log_error(NGX_LOG_WARN, log, ngx_errno,
                      "socketpair() failed: fewer connections are shared by "
                      "worker processes");
        return NGX_ERROR;
    }

    for (i = 0; i < 2; i++) {

        if (ngx_nonblocking(pair[i]) == -1
            || fcntl(pair[i], F_SETFD, FD_CLOEXEC) == -1)
        {
            ngx_log_error(NGX_LOG_WARN, log, ngx_errno,
                          "a socket for connections that worker processes "
                          "share could not be prepared");

            (void) ngx_close_socket(pair[0]);
            (void) ngx_close_socket(pair[1]);

            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* The cycle before has them in common with the next one. */

static void
reuse_close_places(void *data)
{
    if (--reuse_ncycles) {
        return;
    }

    while (reuse_nsockets) {
        reuse_nsockets--;

        (void) ngx_close_socket(reuse_sockets[reuse_nsockets][0]);
        (void) ngx_close_socket(reuse_sockets[reuse_nsockets][1]);
    }
}


ngx_uint_t
ngx_http_upstream_reuse_enter_places(ngx_cycle_t *cycle)
{
    struct rlimit                         rlmt;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_upstream_reuse_module);

    reuse_shpool = (ngx_slab_pool_t *) rmcf->places->shm.addr;
    reuse_places = rmcf->places->data;

    ngx_http_upstream_reuse_nplaces = rmcf->nplaces;
    ngx_http_upstream_reuse_cycle = rmcf->cycle;

    if (ngx_process != NGX_PROCESS_WORKER
        || getrlimit(RLIMIT_NOFILE, &rlmt) == -1
        || rlmt.rlim_cur == RLIM_INFINITY)
    {
        return reuse_nsockets;
    }

    /* what places take is not to be missing for connections */

    rlmt.rlim_cur = ngx_min(rlmt.rlim_cur + 2 * reuse_nsockets,
                            rlmt.rlim_max);

    if (setrlimit(RLIMIT_NOFILE, &rlmt) == -1) {
        ngx_log_error(NGX_LOG_ALERT, cycle->log, ngx_errno,
                      "setrlimit(RLIMIT_NOFILE) failed");
    }

    return reuse_nsockets;
}


ngx_int_t
ngx_http_upstream_reuse_label(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_identity_t *id, struct sockaddr *sockaddr,
    socklen_t socklen, ngx_str_t *name)
{
    u_char  *p;

    if (id->len + socklen + name->len > NGX_HTTP_UPSTREAM_REUSE_LABEL) {
        return NGX_DECLINED;
    }

    p = ngx_cpymem(parcel->label, id, id->len);
    p = ngx_cpymem(p, sockaddr, socklen);
    p = ngx_cpymem(p, name->data, name->len);

    parcel->label_len = p - (u_char *) parcel->label;
    parcel->socklen = socklen;
    parcel->name_len = name->len;

    parcel->hash = ngx_crc32_long((u_char *) parcel->label,
                                  parcel->label_len);

    return NGX_OK;
}


ngx_int_t
ngx_http_upstream_reuse_park_conn(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_msec_t                        end;
    ngx_event_t                      *rev;
    ngx_connection_t                 *c;
    ngx_pool_cleanup_t               *cln;
    ngx_http_upstream_reuse_parcel_t  parcel;

    c = conn->connection;
    rev = c->read;
    cln = c->pool->cleanup;

    /* a second cleanup is that of a state which cannot leave the worker */

    if (ngx_http_upstream_reuse_nplaces == 0
        || conn->conf->reuse == 0
        || c->ssl
        || rev->eof || rev->error || rev->timedout || rev->ready
        || c->write->error
        || cln == NULL || cln->next
        || conn->outlives)
    {
        return NGX_DECLINED;
    }

    if (ngx_http_upstream_reuse_label(&parcel, conn->identity, conn->sockaddr,
                                      conn->socklen, &conn->conf->name)
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    end = ngx_http_upstream_reuse_left(conn);

    parcel.reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED;

    if (c->idle && rev->timer_set) {

        /* maybe later: it shows whether what was learned is wrong */

        end = rev->timer.key - ngx_current_msec;
        parcel.reason = conn->on_timeout;
    }

    if ((ngx_msec_int_t) end <= 0) {
        return NGX_DECLINED;
    }

    parcel.location = conn->conf->local ? conn->location : NULL;
    parcel.cycle = ngx_http_upstream_reuse_cycle;

    parcel.start = c->start_time;
    parcel.since = conn->since;
    parcel.seen = ngx_current_msec;
    parcel.end = ngx_current_msec + end;

    parcel.rtt = conn->rtt;
    parcel.announced = conn->announced;
    parcel.max = conn->max;
    parcel.requests = c->requests;
    parcel.sent = conn->sent;

    parcel.warm = conn->warm;
    parcel.nodelay = c->tcp_nodelay;
    parcel.nopush = c->tcp_nopush;

    if (reuse_park(&parcel, c->fd) != NGX_OK) {
        return NGX_DECLINED;
    }

    /* the system goes on telling of a descriptor that is open elsewhere */

    if (ngx_del_conn) {
        (void) ngx_del_conn(c, 0);

    } else {

        if (rev->active || rev->disabled) {
            (void) ngx_del_event(rev, NGX_READ_EVENT, 0);
        }

        if (c->write->active || c->write->disabled) {
            (void) ngx_del_event(c->write, NGX_WRITE_EVENT, 0);
        }
    }

    ngx_http_upstream_reuse_uncount(conn->server, IDLE);
    ngx_http_upstream_reuse_count(conn->server, HANDED_OVER);

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "upstream reuse: connection %p of socket %d is parked "
                   "for %M", c, c->fd, end);

    return NGX_OK;
}


/* NGX_DECLINED: no place is free. */

static ngx_int_t
reuse_park(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd)
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

    if (reuse_send_fd(i, fd) != NGX_OK) {
        reuse_push(&reuse_places->free, i);
        reuse_unlock();

        return NGX_DECLINED;
    }

    place->parcel = *parcel;
    place->parked = 1;

    reuse_push(&reuse_places->stacks[parcel->hash
                                     % NGX_HTTP_UPSTREAM_REUSE_STACKS],
               i);

    reuse_unlock();

    return NGX_OK;
}


ngx_socket_t
ngx_http_upstream_reuse_unpark(ngx_http_upstream_reuse_parcel_t *parcel)
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

        if (i >= reuse_nsockets || !reuse_matches(&place->parcel, parcel)) {
            continue;
        }

        fd = reuse_recv_fd(i);

        *parcel = place->parcel;
        reuse_remove(i);

        if (fd != -1) {
            break;
        }

        reuse_count_lost(parcel);
    }

    reuse_unlock();

    return fd;
}


ngx_socket_t
ngx_http_upstream_reuse_visit_places(ngx_uint_t *i,
    ngx_http_upstream_reuse_visit_pt visit, void *data,
    ngx_http_upstream_reuse_parcel_t *parcel)
{
    ngx_uint_t      n;
    ngx_socket_t    fd;
    reuse_place_t  *place;

    for ( ;; ) {

        n = ngx_min(reuse_places->used, reuse_nsockets);

        while (*i < n && !reuse_places->places[*i].parked) {
            (*i)++;
        }

        if (*i >= n) {
            return -1;
        }

        place = &reuse_places->places[(*i)++];

        reuse_lock();

        if (!place->parked) {
            reuse_unlock();
            continue;
        }

        fd = reuse_recv_fd(*i - 1);

        if (fd != -1
            && !visit(&place->parcel, fd, data)
            && reuse_send_fd(*i - 1, fd) == NGX_OK)
        {
            reuse_unlock();
            (void) ngx_close_socket(fd);
            continue;
        }

        *parcel = place->parcel;
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
    return parcel->name_len == rcf->name.len
           && parcel->socklen == server->node.str.len
           && ngx_memcmp(ngx_http_upstream_reuse_parcel_address(parcel),
                         server->node.str.data, parcel->socklen)
              == 0
           && ngx_memcmp(ngx_http_upstream_reuse_parcel_name(parcel),
                         rcf->name.data, parcel->name_len)
              == 0;
}


/* Without the lock: the next request changes it anyway. */

ngx_uint_t
ngx_http_upstream_reuse_count_parked(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t *warm)
{
    ngx_uint_t      i, n;
    reuse_place_t  *place;

    n = 0;
    *warm = 0;

    if (ngx_http_upstream_reuse_nplaces == 0) {
        return 0;
    }

    for (i = 0; i < reuse_places->used; i++) {

        place = &reuse_places->places[i];

        if (*(volatile uint32_t *) &place->parked
            && ngx_http_upstream_reuse_is_of_server(&place->parcel, rcf,
                                                    server))
        {
            n++;
            *warm += place->parcel.warm;
        }
    }

    return n;
}


ngx_uint_t
ngx_http_upstream_reuse_is_time_to_visit(ngx_msec_t pause)
{
    ngx_atomic_uint_t  visited;

    visited = reuse_places->visited;

    /* another worker's time may be a little ahead of ours */

    return (ngx_msec_int_t) (ngx_current_msec - visited)
               >= (ngx_msec_int_t) pause
           && ngx_atomic_cmp_set(&reuse_places->visited, visited,
                                 ngx_current_msec);
}


static void
reuse_lock(void)
{
    ngx_shmtx_lock(&reuse_shpool->mutex);

    if (reuse_places->changing) {
        reuse_restore();
    }

    reuse_places->changing = ngx_pid;
}


static void
reuse_unlock(void)
{
    reuse_places->changing = 0;

    ngx_shmtx_unlock(&reuse_shpool->mutex);
}


/*
 * A worker has died while it had the lock.  What lies in a place that is not
 * known as parked is closed; one that is known and is not there any more is
 * found when it is to be taken.
 */

static void
reuse_restore(void)
{
    uint32_t        i, *stack;
    ngx_socket_t    fd;
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

        while (i < reuse_nsockets) {
            fd = reuse_recv_fd(i);

            if (fd == -1) {
                break;
            }

            (void) ngx_close_socket(fd);
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


/* What an address in memory stands for, is true of one cycle only. */

static ngx_uint_t
reuse_matches(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_parcel_t *wanted)
{
    if (parcel->hash != wanted->hash
        || parcel->label_len != wanted->label_len
        || parcel->socklen != wanted->socklen
        || parcel->name_len != wanted->name_len
        || parcel->location != wanted->location
        || ngx_memcmp(parcel->label, wanted->label, wanted->label_len) != 0)
    {
        return 0;
    }

    return parcel->cycle == wanted->cycle
           || (parcel->location == NULL
               && ngx_http_upstream_reuse_parcel_identity(parcel)->location
                  == NULL);
}


/* The worker that was taking it out, or parking it, has died. */

static void
reuse_count_lost(ngx_http_upstream_reuse_parcel_t *parcel)
{
    ngx_str_t  address, name;

    address.data = ngx_http_upstream_reuse_parcel_address(parcel);
    address.len = parcel->socklen;
    name.data = ngx_http_upstream_reuse_parcel_name(parcel);
    name.len = parcel->name_len;

    ngx_http_upstream_reuse_count_swept(&name, &address,
                                        NGX_HTTP_UPSTREAM_REUSE_CLOSE_CRASH);
}


static ngx_int_t
reuse_send_fd(ngx_uint_t i, ngx_socket_t fd)
{
    u_char          byte;
    struct iovec    iov;
    struct msghdr   msg;

    union {
        struct cmsghdr  cm;
        char            space[CMSG_SPACE(sizeof(int))];
    } cmsg;

    ngx_memzero(&msg, sizeof(msg));
    ngx_memzero(&cmsg, sizeof(cmsg));

    byte = 0;

    iov.iov_base = &byte;
    iov.iov_len = 1;

    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = &cmsg;
    msg.msg_controllen = sizeof(cmsg);

    cmsg.cm.cmsg_len = CMSG_LEN(sizeof(int));
    cmsg.cm.cmsg_level = SOL_SOCKET;
    cmsg.cm.cmsg_type = SCM_RIGHTS;

    ngx_memcpy(CMSG_DATA(&cmsg.cm), &fd, sizeof(int));

    /* the system allows only so many descriptors in messages */

    if (sendmsg(reuse_sockets[i][0], &msg, 0) != 1) {
        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, ngx_socket_errno,
                       "upstream reuse: place %ui takes no connection", i);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* -1: there is none. */

static ngx_socket_t
reuse_recv_fd(ngx_uint_t i)
{
    int             fd, flags;
    u_char          byte;
    struct iovec    iov;
    struct msghdr   msg;

    union {
        struct cmsghdr  cm;
        char            space[CMSG_SPACE(sizeof(int))];
    } cmsg;

    ngx_memzero(&msg, sizeof(msg));

    iov.iov_base = &byte;
    iov.iov_len = 1;

    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = &cmsg;
    msg.msg_controllen = sizeof(cmsg);

    /* so that it is closed on exec, as a socket of nginx's own is not */

#if defined(MSG_CMSG_CLOEXEC)
    flags = MSG_CMSG_CLOEXEC;
#else
    flags = 0;
#endif

    if (recvmsg(reuse_sockets[i][1], &msg, flags) != 1) {
        return -1;
    }

    if (msg.msg_controllen < CMSG_LEN(sizeof(int))
        || cmsg.cm.cmsg_type != SCM_RIGHTS)
    {
        /* the process has no descriptor left */

        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                      "a shared connection was lost: the limit on open files "
                      "is too low");
        return -1;
    }

    ngx_memcpy(&fd, CMSG_DATA(&cmsg.cm), sizeof(int));

    return fd;
}
