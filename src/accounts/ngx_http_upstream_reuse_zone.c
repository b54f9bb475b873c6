
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What workers know of servers together: for each address of each upstream a
 * record, with what was learned of it and with a share for each worker, in
 * which that worker counts.  It outlives reloads.  A lock is taken when a
 * worker meets a server for the first time, not for a request.
 */


#include "ngx_http_upstream_reuse.h"


/* milliseconds: so often a zone that is full is asked again */
#define NGX_HTTP_UPSTREAM_REUSE_RETRY  1000

/* records of the unbounded upstream */
#define NGX_HTTP_UPSTREAM_REUSE_OPEN   128

/* processes that are remembered while records are gone through */
#define NGX_HTTP_UPSTREAM_REUSE_PIDS   512


static ngx_int_t reuse_init_zone(ngx_shm_zone_t *shm_zone, void *data);
static ngx_http_upstream_reuse_server_t *reuse_claim(
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_peer_connection_t *pc);
static ngx_http_upstream_reuse_record_t *reuse_find_record(
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_slab_pool_t *shpool,
    ngx_str_t *key);
static ngx_http_upstream_reuse_share_t *reuse_claim_share(
    ngx_slab_pool_t *shpool, ngx_http_upstream_reuse_record_t *record);
static ngx_http_upstream_reuse_server_t *reuse_find_overflow(
    ngx_http_upstream_reuse_main_conf_t *rmcf, ngx_log_t *log);

static void reuse_inherit_own(ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_close_e reason);
static void reuse_inherit_share(ngx_http_upstream_reuse_record_t *record,
    ngx_http_upstream_reuse_share_t *share,
    ngx_http_upstream_reuse_close_e reason);


/* worker: what stands for all servers for which there was no room */

static ngx_http_upstream_reuse_server_t  reuse_overflow = {
    .stands = NGX_HTTP_UPSTREAM_REUSE_STANDS_OVERFLOW
};
static ngx_uint_t                        reuse_full;
static ngx_msec_t                        reuse_full_until;  /* not tried
                                                               before */

/* worker: the same for those of an unbounded upstream that are too many */

static ngx_http_upstream_reuse_server_t  reuse_others = {
    .stands = NGX_HTTP_UPSTREAM_REUSE_STANDS_OTHERS
};

/* worker: if there was no room even for that, its counts come to nothing */

static ngx_http_upstream_reuse_share_t   reuse_nowhere;


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


ngx_http_upstream_reuse_server_t *
ngx_http_upstream_reuse_find_server(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_peer_connection_t *pc)
{
    uint32_t                           hash;
    ngx_str_t                          key;
    ngx_http_upstream_reuse_server_t  *server;

    key.len = pc->socklen;
    key.data = (u_char *) pc->sockaddr;

    hash = ngx_crc32_short(key.data, key.len);

    server = (ngx_http_upstream_reuse_server_t *)
                 ngx_str_rbtree_lookup(&rcf->servers, &key, hash);

    if (server) {
        return server;
    }

    if (rcf->crowded
        && (ngx_msec_int_t) (rcf->crowded_until - ngx_current_msec) > 0)
    {
        return &reuse_others;
    }

    if (reuse_full
        && (ngx_msec_int_t) (reuse_full_until - ngx_current_msec) > 0)
    {
        return &reuse_overflow;
    }

    server = reuse_claim(rcf, pc);

    if (server == &reuse_others && ngx_http_upstream_reuse_make_room(rcf)) {
        server = reuse_claim(rcf, pc);
    }

    if (server == NULL) {
        return reuse_find_overflow(rcf->main, pc->log);
    }

    if (server == &reuse_others) {
        rcf->crowded = 1;
        rcf->crowded_until = ngx_current_msec + NGX_HTTP_UPSTREAM_REUSE_RETRY;

    } else {
        server->node.node.key = hash;
        ngx_rbtree_insert(&rcf->servers, &server->node.node);

        ngx_http_upstream_reuse_note_server(rcf, server);
    }

    return server;
}


/* NULL: there is no room in the zone. */

static ngx_http_upstream_reuse_server_t *
reuse_claim(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_peer_connection_t *pc)
{
    u_char                            *p;
    ngx_str_t                          key;
    ngx_uint_t                         others;
    ngx_slab_pool_t                   *shpool;
    ngx_http_upstream_reuse_zone_t    *zone;
    ngx_http_upstream_reuse_share_t   *share;
    ngx_http_upstream_reuse_record_t  *record;
    ngx_http_upstream_reuse_server_t  *server;

    shpool = (ngx_slab_pool_t *) rcf->main->zone->shm.addr;

    key.len = rcf->name.len + 1 + pc->socklen;
    key.data = ngx_alloc(key.len, pc->log);
    if (key.data == NULL) {
        return NULL;
    }

    p = ngx_cpymem(key.data, rcf->name.data, rcf->name.len);
    *p++ = '\0';
    ngx_memcpy(p, pc->sockaddr, pc->socklen);

    zone = shpool->data;

    ngx_shmtx_lock(&shpool->mutex);

    record = reuse_find_record(rcf, shpool, &key);
    share = record ? reuse_claim_share(shpool, record) : NULL;
    others = (key.len == rcf->name.len + 1);

    if (record && share == NULL && record->active == 0) {

        /* one that is new, and of no use */

        zone->nunbounded -= record->unbounded;

        ngx_rbtree_delete(&zone->rbtree, &record->node.node);
        ngx_slab_free_locked(shpool, record);
    }

    if (share && record->active == 0) {
        record->active = ngx_max(ngx_current_msec, 1);
    }

    if (share == NULL || others) {
        ngx_http_upstream_reuse_want_room(zone, share != NULL);
    }

    ngx_shmtx_unlock(&shpool->mutex);

    ngx_free(key.data);

    if (share == NULL) {
        return NULL;
    }

    if (others) {
        reuse_others.record = record;
        reuse_others.share = share;

        return &reuse_others;
    }

    server = ngx_calloc(sizeof(ngx_http_upstream_reuse_server_t)
                        + pc->socklen, pc->log);
    if (server == NULL) {
        return NULL;
    }

    server->record = record;
    server->share = share;
    server->limit = &record->limit;
    server->active = record->active;
    server->node.str.len = pc->socklen;
    server->node.str.data = (u_char *) (server + 1);

    ngx_memcpy(server->node.str.data, pc->sockaddr, pc->socklen);

    ngx_http_upstream_reuse_limit_server(rcf, server);

    return server;
}


/* One more that is too many takes the key of all others: it has no address. */

static ngx_http_upstream_reuse_record_t *
reuse_find_record(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_slab_pool_t *shpool, ngx_str_t *key)
{
    uint32_t                           hash;
    ngx_http_upstream_reuse_zone_t    *zone;
    ngx_http_upstream_reuse_record_t  *record;

    zone = shpool->data;
    hash = ngx_crc32_long(key->data, key->len);

    record = ngx_http_upstream_reuse_lookup_record(zone, key);

    if (record) {
        return record;
    }

    if (rcf->unbounded && zone->nunbounded == NGX_HTTP_UPSTREAM_REUSE_OPEN
        && key->len != rcf->name.len + 1)
    {
        key->len = rcf->name.len + 1;
        return reuse_find_record(rcf, shpool, key);
    }

    record = ngx_slab_calloc_locked(shpool,
                        sizeof(ngx_http_upstream_reuse_record_t) + key->len);
    if (record == NULL) {
        return NULL;
    }

    record->unbounded = rcf->unbounded && key->len != rcf->name.len + 1;

    record->node.node.key = hash;
    record->node.str.len = key->len;
    record->node.str.data = (u_char *) (record + 1);

    ngx_memcpy(record->node.str.data, key->data, key->len);

    ngx_rbtree_insert(&zone->rbtree, &record->node.node);

    zone->nunbounded += record->unbounded;

    return record;
}


static ngx_http_upstream_reuse_share_t *
reuse_claim_share(ngx_slab_pool_t *shpool,
    ngx_http_upstream_reuse_record_t *record)
{
    ngx_http_upstream_reuse_share_t  *share, *unused;

    unused = NULL;

    for (share = record->shares; share; share = share->next) {

        if (share->pid == ngx_pid) {

            /* from an earlier cycle, without a master process */

            return share;
        }

        if (share->pid == 0) {
            unused = share;
        }
    }

    if (unused == NULL) {
        unused = ngx_slab_calloc_locked(shpool,
                                     sizeof(ngx_http_upstream_reuse_share_t));
        if (unused == NULL) {
            return NULL;
        }

        unused->next = record->shares;
        record->shares = unused;
    }

    unused->pid = ngx_pid;

    return unused;
}


static ngx_http_upstream_reuse_server_t *
reuse_find_overflow(ngx_http_upstream_reuse_main_conf_t *rmcf, ngx_log_t *log)
{
    ngx_http_upstream_reuse_zone_t  *zone;

    zone = rmcf->zone->data;
    zone->full = 1;

    reuse_full_until = ngx_current_msec + NGX_HTTP_UPSTREAM_REUSE_RETRY;

    if (!reuse_full) {
        reuse_full = 1;

        zone->overflowed = 1;

        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "zone \"%V\" is full: nothing is learned of further "
                      "upstream servers, and %s; make \"reuse_zone\" larger",
                      &ngx_http_upstream_reuse_zone_name,
                      reuse_overflow.uncounted ? "they are not counted"
                                               : "they are counted as one");
    }

    return &reuse_overflow;
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
ngx_http_upstream_reuse_name_record(ngx_http_upstream_reuse_record_t *record,
    ngx_str_t *upstream, u_char *text, size_t *len)
{
    u_char     *p;
    size_t      size;
    ngx_str_t  *key;

    /* what follows the name need not be aligned */

    union {
        struct sockaddr  sockaddr;
        u_char           data[sizeof(ngx_sockaddr_t)];
    } addr;

    key = &record->node.str;

    if (key->len == 0) {

        /* the one that stands for all */

        ngx_str_set(upstream, "");
        *len = 0;
        return;
    }

    p = ngx_strlchr(key->data, key->data + key->len, '\0');
    size = key->data + key->len - (p + 1);

    ngx_memzero(&addr, sizeof(addr));
    ngx_memcpy(addr.data, p + 1, ngx_min(size, sizeof(addr)));

    upstream->data = key->data;
    upstream->len = p - key->data;

    if (size < 2) {

        /* not an address: those that are too many, or gone */

        *len = ngx_sprintf(text, "%s", size ? NGX_HTTP_UPSTREAM_REUSE_REMOVED
                                            : "others")
               - text;
        return;
    }

    *len = ngx_sock_ntop(&addr.sockaddr, size, text, NGX_SOCKADDR_STRLEN, 1);
}


void
ngx_http_upstream_reuse_enter_zone(ngx_shm_zone_t *shm_zone, ngx_uint_t worker)
{
    ngx_slab_pool_t                 *shpool;
    ngx_http_upstream_reuse_zone_t  *zone;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    zone = shm_zone->data;

    ngx_shmtx_lock(&shpool->mutex);

    (void) ngx_http_upstream_reuse_sweep(zone);

    if (worker) {

        /* of one that died, and whose number is used again */

        reuse_inherit_own(zone, NGX_HTTP_UPSTREAM_REUSE_CLOSE_CRASH);

        /* while there is room */

        reuse_overflow.record = &zone->overflow;
        reuse_overflow.share = reuse_claim_share(shpool, &zone->overflow);

        if (reuse_overflow.share == NULL) {
            reuse_overflow.share = &reuse_nowhere;
            reuse_overflow.uncounted = &zone->uncounted;
        }
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

    reuse_inherit_own(shm_zone->data, NGX_HTTP_UPSTREAM_REUSE_CLOSE_SHUTDOWN);

    others = ngx_http_upstream_reuse_sweep(shm_zone->data);

    ngx_shmtx_unlock(&shpool->mutex);

    return others;
}


/* All shares of this process number. */

static void
reuse_inherit_own(ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_close_e reason)
{
    ngx_http_upstream_reuse_share_t   *share;
    ngx_http_upstream_reuse_record_t  *record;

    for (record = ngx_http_upstream_reuse_next_record(zone, NULL);
         record;
         record = ngx_http_upstream_reuse_next_record(zone, record))
    {
        for (share = record->shares; share; share = share->next) {
            if (share->pid == ngx_pid) {
                reuse_inherit_share(record, share, reason);
            }
        }
    }
}


ngx_uint_t
ngx_http_upstream_reuse_sweep(ngx_http_upstream_reuse_zone_t *zone)
{
    u_char                             gone[NGX_HTTP_UPSTREAM_REUSE_PIDS];
    ngx_pid_t                          pids[NGX_HTTP_UPSTREAM_REUSE_PIDS];
    ngx_uint_t                         i, n, alive;
    ngx_http_upstream_reuse_share_t   *share;
    ngx_http_upstream_reuse_record_t  *record;

    n = 0;
    alive = 0;

    for (record = ngx_http_upstream_reuse_next_record(zone, NULL);
         record;
         record = ngx_http_upstream_reuse_next_record(zone, record))
    {
        for (share = record->shares; share; share = share->next) {

            if (share->pid == 0) {
                continue;
            }

            /* the system is asked once for each, as a rule */

            for (i = 0; i < n && pids[i] != share->pid; i++) { /* void */ }

            if (i == n) {

                if (n < NGX_HTTP_UPSTREAM_REUSE_PIDS) {
                    n++;

                } else {
                    i = 0;
                }

                pids[i] = share->pid;
                gone[i] = ngx_http_upstream_reuse_has_died(share->pid);
            }

            if (gone[i]) {
                reuse_inherit_share(record, share,
                                    NGX_HTTP_UPSTREAM_REUSE_CLOSE_CRASH);

            } else if (record == &zone->overflow) {

                /* every worker has one there, if there is room at all */

                alive++;
            }
        }
    }

    return alive;
}


ngx_http_upstream_reuse_server_t *
ngx_http_upstream_reuse_common_server(ngx_uint_t i)
{
    ngx_http_upstream_reuse_server_t  *server;

    server = i ? &reuse_others : &reuse_overflow;

    return (server->share == &reuse_nowhere || !server->share) ? NULL : server;
}

/*
 * Workers are in the master's process group.  A process of the same number
 * that is not in it is another one.
 */

ngx_uint_t
ngx_http_upstream_reuse_has_died(ngx_pid_t pid)
{
    pid_t  group;

    if (pid == ngx_pid) {
        return 0;
    }

    group = getpgid(pid);

    return (group == -1) ? ngx_errno == NGX_ESRCH : group != getpgrp();
}


/* What a worker has left goes to the record. */

static void
reuse_inherit_share(ngx_http_upstream_reuse_record_t *record,
    ngx_http_upstream_reuse_share_t *share,
    ngx_http_upstream_reuse_close_e reason)
{
    uint32_t  *n;

    n = share->counters;

    n[NGX_HTTP_UPSTREAM_REUSE_CLOSED + reason] +=
                                     ngx_http_upstream_reuse_count_open(share);
    n[NGX_HTTP_UPSTREAM_REUSE_IDLE] = 0;

    ngx_http_upstream_reuse_fold_share(record, share);

    share->ended = 0;

    record->active = ngx_max(ngx_current_msec, 1);

    if (share->used) {
        (void) ngx_atomic_fetch_add(&record->used,
                                    -(ngx_atomic_int_t) share->used);
    }

    share->used = 0;
    share->connecting = 0;
    share->unused = 0;

    if (record->planner == share->pid) {
        record->planner = 0;
    }

    share->pid = 0;
}


ngx_http_upstream_reuse_record_t *
ngx_http_upstream_reuse_lookup_record(ngx_http_upstream_reuse_zone_t *zone,
    ngx_str_t *key)
{
    return (ngx_http_upstream_reuse_record_t *)
               ngx_str_rbtree_lookup(&zone->rbtree, key,
                                     ngx_crc32_long(key->data, key->len));
}


ngx_http_upstream_reuse_record_t *
ngx_http_upstream_reuse_next_record(ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_record_t *record)
{
    ngx_rbtree_node_t  *node;

    if (record == NULL) {
        return &zone->overflow;
    }

    if (record != &zone->overflow) {
        node = ngx_rbtree_next(&zone->rbtree, &record->node.node);

    } else if (zone->rbtree.root != &zone->sentinel) {
        node = ngx_rbtree_min(zone->rbtree.root, &zone->sentinel);

    } else {
        node = NULL;
    }

    return (ngx_http_upstream_reuse_record_t *) node;
}
