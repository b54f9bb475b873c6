
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What a worker has of each server that it has met: its record, and a tally of
 * its own in it.
 */


#include "ngx_http_upstream_reuse_accounts.h"


/* milliseconds: so often a zone that is full is asked again */
#define NGX_HTTP_UPSTREAM_REUSE_RETRY  1000

/* records of the unbounded upstream */
#define NGX_HTTP_UPSTREAM_REUSE_OPEN   128


static ngx_http_upstream_reuse_server_t *reuse_claim(
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_peer_connection_t *pc);
static ngx_http_upstream_reuse_record_t *reuse_find_record(
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_slab_pool_t *shpool,
    ngx_str_t *key);
static ngx_http_upstream_reuse_tally_t *reuse_claim_tally(
    ngx_slab_pool_t *shpool, ngx_http_upstream_reuse_record_t *record);
static ngx_http_upstream_reuse_server_t *reuse_find_overflow(
    ngx_http_upstream_reuse_main_conf_t *rmcf, ngx_log_t *log);
static void reuse_note_server(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);
static ngx_uint_t reuse_make_room(ngx_http_upstream_reuse_srv_conf_t *rcf);
static void reuse_cleanup_servers(void *data);


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

static ngx_http_upstream_reuse_tally_t   reuse_nowhere;


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

    if (server == &reuse_others && reuse_make_room(rcf)) {
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

        reuse_note_server(rcf, server);
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
    ngx_http_upstream_reuse_tally_t   *tally;
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
    tally = record ? reuse_claim_tally(shpool, record) : NULL;
    others = (key.len == rcf->name.len + 1);

    if (record && tally == NULL && record->active == 0) {

        /* one that is new, and of no use */

        zone->nunbounded -= record->unbounded;

        ngx_rbtree_delete(&zone->rbtree, &record->node.node);
        ngx_slab_free_locked(shpool, record);
    }

    if (tally && record->active == 0) {
        record->active = ngx_max(ngx_current_msec, 1);
    }

    if (tally == NULL || others) {
        ngx_http_upstream_reuse_want_room(zone, tally != NULL);
    }

    ngx_shmtx_unlock(&shpool->mutex);

    ngx_free(key.data);

    if (tally == NULL) {
        return NULL;
    }

    if (others) {
        reuse_others.record = record;
        reuse_others.tally = tally;

        return &reuse_others;
    }

    server = ngx_calloc(sizeof(ngx_http_upstream_reuse_server_t)
                        + pc->socklen, pc->log);
    if (server == NULL) {
        return NULL;
    }

    server->record = record;
    server->tally = tally;
    server->learned = &record->learned;
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


static ngx_http_upstream_reuse_tally_t *
reuse_claim_tally(ngx_slab_pool_t *shpool,
    ngx_http_upstream_reuse_record_t *record)
{
    ngx_http_upstream_reuse_tally_t  *tally, *unused;

    unused = NULL;

    for (tally = record->tallies; tally; tally = tally->next) {

        if (tally->pid == ngx_pid) {

            /* from an earlier cycle, without a master process */

            return tally;
        }

        if (tally->pid == 0) {
            unused = tally;
        }
    }

    if (unused == NULL) {
        unused = ngx_slab_calloc_locked(shpool,
                                     sizeof(ngx_http_upstream_reuse_tally_t));
        if (unused == NULL) {
            return NULL;
        }

        unused->next = record->tallies;
        record->tallies = unused;
    }

    unused->pid = ngx_pid;

    return unused;
}


static void
reuse_note_server(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_pool_cleanup_t  *cln;

    server->checked = ngx_current_msec;

    ngx_queue_insert_tail(&rcf->by_use, &server->by_use);

    if (!rcf->cleaned) {
        cln = ngx_pool_cleanup_add(rcf->main->pool, 0);

        if (cln) {
            cln->handler = reuse_cleanup_servers;
            cln->data = rcf;
            rcf->cleaned = 1;
        }
    }
}


static void
reuse_cleanup_servers(void *data)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf = data;

    ngx_queue_t                       *q;
    ngx_http_upstream_reuse_server_t  *server;

    while (!ngx_queue_empty(&rcf->by_use)) {

        q = ngx_queue_head(&rcf->by_use);
        ngx_queue_remove(q);

        server = ngx_queue_data(q, ngx_http_upstream_reuse_server_t, by_use);
        ngx_free(server);
    }
}


/*
 * Frees some servers of an unbounded upstream that were not used for longest;
 * returns how many places for others that makes.
 */

static ngx_uint_t
reuse_make_room(ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    ngx_uint_t                         freed;
    ngx_queue_t                       *q;
    ngx_http_upstream_reuse_server_t  *server;

    freed = 0;

    if (!ngx_http_upstream_reuse_may_free()) {
        return 0;
    }

    q = ngx_queue_head(&rcf->by_use);

    while (q != ngx_queue_sentinel(&rcf->by_use)
           && freed < NGX_HTTP_UPSTREAM_REUSE_FREED)
    {
        server = ngx_queue_data(q, ngx_http_upstream_reuse_server_t, by_use);
        q = ngx_queue_next(q);

        if (!ngx_http_upstream_reuse_is_used_server(server)) {
            freed += ngx_http_upstream_reuse_free_server(rcf, server);
        }
    }

    return freed;
}


void
ngx_http_upstream_reuse_claim_overflow(ngx_slab_pool_t *shpool,
    ngx_http_upstream_reuse_zone_t *zone)
{
    reuse_overflow.record = &zone->overflow;
    reuse_overflow.tally = reuse_claim_tally(shpool, &zone->overflow);

    if (reuse_overflow.tally == NULL) {
        reuse_overflow.tally = &reuse_nowhere;
        reuse_overflow.uncounted = &zone->uncounted;
    }
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


ngx_http_upstream_reuse_server_t *
ngx_http_upstream_reuse_common_server(ngx_uint_t i)
{
    ngx_http_upstream_reuse_server_t  *server;

    server = i ? &reuse_others : &reuse_overflow;

    return (server->tally == &reuse_nowhere || !server->tally) ? NULL : server;
}


ngx_uint_t
ngx_http_upstream_reuse_is_used_server(
    ngx_http_upstream_reuse_server_t *server)
{
    return server->holders
           || server->closing
           || server->ahead.used
           || server->ahead.connecting
           || server->ahead.nidle
           || ngx_http_upstream_reuse_count_open(server->tally) != 0;
}


ngx_uint_t
ngx_http_upstream_reuse_free_server(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_uint_t        freed;
    ngx_slab_pool_t  *shpool;

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                   "upstream reuse: server %p of \"%V\" is not used any more",
                   server, &rcf->name);

    if (rcf->listener) {
        rcf->listener->forget(rcf, server);
    }

    shpool = (ngx_slab_pool_t *) rcf->main->zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    if ((ngx_msec_int_t) (server->active - server->record->active) > 0) {
        server->record->active = server->active;
    }

    freed = ngx_http_upstream_reuse_free_tally(rcf->main->zone, server->record,
                                               server->tally);

    ngx_shmtx_unlock(&shpool->mutex);

    ngx_rbtree_delete(&rcf->servers, &server->node.node);
    ngx_queue_remove(&server->by_use);
    ngx_free(server);

    return freed;
}
