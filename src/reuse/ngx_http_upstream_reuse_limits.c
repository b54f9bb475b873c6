
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * After which idle time each peer closes connections, and how near it is,
 * learned by all workers together.  A lock is taken when a connection is kept
 * for the first time, is closed by the origin, or has been idle for longer
 * than any before; not for a request.
 */


#include "ngx_http_upstream_reuse.h"


#define NGX_HTTP_UPSTREAM_REUSE_ZONE_SIZE  (1024 * 1024)

/* milliseconds by which two ages may differ and still be the same */
#define NGX_HTTP_UPSTREAM_REUSE_OFF        5

/* milliseconds after which a restart should be over */
#define NGX_HTTP_UPSTREAM_REUSE_MOMENT     1000

/* so many closes of one age make a limit */
#define NGX_HTTP_UPSTREAM_REUSE_ENOUGH     3


/* cycle, in shared memory */

typedef struct {
    ngx_rbtree_t                     rbtree;
    ngx_rbtree_node_t                sentinel;
} ngx_http_upstream_reuse_limits_t;


static ngx_int_t reuse_init_limits(ngx_shm_zone_t *shm_zone, void *data);
static ngx_http_upstream_reuse_limit_t *reuse_create_limit(
    ngx_slab_pool_t *shpool, ngx_http_upstream_reuse_limits_t *limits,
    ngx_str_t *key, uint32_t hash);
static ngx_uint_t reuse_weigh_close(ngx_http_upstream_reuse_limit_t *limit,
    ngx_msec_t age);
static void reuse_log_limit(ngx_http_upstream_reuse_kept_t *kept,
    const char *what, ngx_msec_t age);


/* worker: whether the log has it */

static ngx_uint_t  reuse_zone_full;


static ngx_str_t  reuse_zone_name = ngx_string("ngx_http_upstream_reuse");


ngx_shm_zone_t *
ngx_http_upstream_reuse_add_limits(ngx_conf_t *cf)
{
    ngx_shm_zone_t  *shm_zone;

    shm_zone = ngx_shared_memory_add(cf, &reuse_zone_name,
                                     NGX_HTTP_UPSTREAM_REUSE_ZONE_SIZE,
                                     &ngx_http_upstream_reuse_module);
    if (shm_zone == NULL) {
        return NULL;
    }

    shm_zone->init = reuse_init_limits;

    return shm_zone;
}


static ngx_int_t
reuse_init_limits(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_slab_pool_t                   *shpool;
    ngx_http_upstream_reuse_limits_t  *limits;

    if (data) {
        shm_zone->data = data;
        return NGX_OK;
    }

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shm_zone->shm.exists) {
        shm_zone->data = shpool->data;
        return NGX_OK;
    }

    limits = ngx_slab_alloc(shpool, sizeof(ngx_http_upstream_reuse_limits_t));
    if (limits == NULL) {
        return NGX_ERROR;
    }

    ngx_rbtree_init(&limits->rbtree, &limits->sentinel,
                    ngx_str_rbtree_insert_value);

    shpool->data = limits;
    shpool->log_nomem = 0;

    shm_zone->data = limits;

    return NGX_OK;
}


ngx_http_upstream_reuse_limit_t *
ngx_http_upstream_reuse_find_limit(ngx_shm_zone_t *zone, ngx_str_t *upstream,
    ngx_peer_connection_t *pc)
{
    u_char                            *p;
    uint32_t                           hash;
    ngx_str_t                          key;
    ngx_slab_pool_t                   *shpool;
    ngx_http_upstream_reuse_limit_t   *limit;
    ngx_http_upstream_reuse_limits_t  *limits;

    limits = zone->data;
    shpool = (ngx_slab_pool_t *) zone->shm.addr;

    key.len = upstream->len + 1 + pc->socklen;
    key.data = ngx_pnalloc(pc->connection->pool, key.len);
    if (key.data == NULL) {
        return NULL;
    }

    p = ngx_cpymem(key.data, upstream->data, upstream->len);
    *p++ = '\0';
    ngx_memcpy(p, pc->sockaddr, pc->socklen);

    hash = ngx_crc32_long(key.data, key.len);

    ngx_shmtx_lock(&shpool->mutex);

    limit = (ngx_http_upstream_reuse_limit_t *)
                ngx_str_rbtree_lookup(&limits->rbtree, &key, hash);

    if (limit == NULL) {
        limit = reuse_create_limit(shpool, limits, &key, hash);
    }

    ngx_shmtx_unlock(&shpool->mutex);

    if (limit == NULL && !reuse_zone_full) {
        reuse_zone_full = 1;

        ngx_log_error(NGX_LOG_WARN, pc->log, 0,
                      "zone \"%V\" is full: nothing is learned of further "
                      "upstream servers", &reuse_zone_name);
    }

    return limit;
}


static ngx_http_upstream_reuse_limit_t *
reuse_create_limit(ngx_slab_pool_t *shpool,
    ngx_http_upstream_reuse_limits_t *limits, ngx_str_t *key, uint32_t hash)
{
    ngx_http_upstream_reuse_limit_t  *limit;

    limit = ngx_slab_calloc_locked(shpool,
                        sizeof(ngx_http_upstream_reuse_limit_t) + key->len);
    if (limit == NULL) {
        return NULL;
    }

    limit->node.node.key = hash;
    limit->node.str.len = key->len;
    limit->node.str.data = (u_char *) (limit + 1);

    ngx_memcpy(limit->node.str.data, key->data, key->len);

    ngx_rbtree_insert(&limits->rbtree, &limit->node.node);

    return limit;
}


void
ngx_http_upstream_reuse_note_alive(ngx_http_upstream_reuse_kept_t *kept,
    ngx_msec_t age)
{
    ngx_uint_t                        wrong;
    ngx_slab_pool_t                  *shpool;
    ngx_http_upstream_reuse_limit_t  *limit;

    limit = kept->limit;

    if (limit == NULL
        || kept->conf->expiry != NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO
        || (age <= limit->survived
            && (limit->closes == 0 || age < limit->suspect)))
    {
        return;
    }

    shpool = (ngx_slab_pool_t *) kept->conf->limits->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    limit->survived = ngx_max(limit->survived, age);

    wrong = (limit->idle && limit->idle <= age);

    if (wrong) {
        limit->idle = 0;
    }

    if (limit->suspect <= age) {
        limit->closes = 0;
    }

    ngx_shmtx_unlock(&shpool->mutex);

    if (wrong) {
        reuse_log_limit(kept, "no longer closes", age);
    }
}


void
ngx_http_upstream_reuse_note_closed(ngx_http_upstream_reuse_kept_t *kept,
    ngx_msec_t age)
{
    ngx_uint_t                        learned;
    ngx_slab_pool_t                  *shpool;
    ngx_http_upstream_reuse_limit_t  *limit;

    limit = kept->limit;

    if (limit == NULL
        || kept->conf->expiry != NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO)
    {
        return;
    }

    /* so young a connection was not closed for being idle */

    if (age <= ngx_http_upstream_reuse_margin(kept, age)) {
        return;
    }

    shpool = (ngx_slab_pool_t *) kept->conf->limits->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    learned = (limit->idle == 0 || age < limit->idle)
              && reuse_weigh_close(limit, age);

    if (learned) {
        age = limit->idle;
    }

    ngx_shmtx_unlock(&shpool->mutex);

    if (learned) {
        reuse_log_limit(kept, "closes", age);
    }
}


ngx_uint_t
ngx_http_upstream_reuse_note_rtt(ngx_http_upstream_reuse_kept_t *kept,
    ngx_uint_t rtt)
{
    ngx_slab_pool_t                  *shpool;
    ngx_http_upstream_reuse_limit_t  *limit;

    limit = kept->limit;

    if (limit == NULL) {
        return 0;
    }

    if (rtt && (limit->rtt == 0 || rtt < limit->rtt)) {

        shpool = (ngx_slab_pool_t *) kept->conf->limits->shm.addr;

        ngx_shmtx_lock(&shpool->mutex);

        if (limit->rtt == 0 || rtt < limit->rtt) {
            limit->rtt = rtt;
        }

        ngx_shmtx_unlock(&shpool->mutex);
    }

    return rtt ? limit->rtt : 0;
}


/*
 * A restart of the origin closes connections of any age, and all at once.  So
 * it takes some of one age; and if another connection has been older than
 * that, it takes so many moments at which they closed.
 * Tells whether that has now become the limit.
 */

static ngx_uint_t
reuse_weigh_close(ngx_http_upstream_reuse_limit_t *limit, ngx_msec_t age)
{
    ngx_msec_t  off;

    off = (age > limit->suspect) ? age - limit->suspect : limit->suspect - age;

    if (limit->closes == 0
        || off > limit->suspect / 8 + NGX_HTTP_UPSTREAM_REUSE_OFF)
    {
        limit->suspect = age;
        limit->closes = 1;
        limit->moments = 1;
        limit->noted = ngx_current_msec;

        return 0;
    }

    limit->suspect = ngx_min(limit->suspect, age);
    limit->closes++;

    /* another worker's time may be a little ahead of ours */

    if ((ngx_msec_int_t) (ngx_current_msec - limit->noted)
        >= (ngx_msec_int_t) ngx_max(limit->suspect / 2,
                                    NGX_HTTP_UPSTREAM_REUSE_MOMENT))
    {
        limit->moments++;
        limit->noted = ngx_current_msec;
    }

    if (limit->suspect > limit->survived) {

        if (limit->closes < NGX_HTTP_UPSTREAM_REUSE_ENOUGH) {
            return 0;
        }

    } else {

        if (limit->moments < NGX_HTTP_UPSTREAM_REUSE_ENOUGH) {
            return 0;
        }

        limit->survived = 0;
    }

    limit->idle = limit->suspect;
    limit->closes = 0;

    return 1;
}


static void
reuse_log_limit(ngx_http_upstream_reuse_kept_t *kept, const char *what,
    ngx_msec_t age)
{
    size_t      len;
    u_char      text[NGX_SOCKADDR_STRLEN], *p;
    ngx_str_t  *key;

    /* name, zero, address: what follows the name need not be aligned */

    union {
        struct sockaddr  sockaddr;
        u_char           data[sizeof(ngx_sockaddr_t)];
    } addr;

    key = &kept->limit->node.str;

    p = ngx_strlchr(key->data, key->data + key->len, '\0');
    len = key->data + key->len - (p + 1);

    ngx_memzero(&addr, sizeof(addr));
    ngx_memcpy(addr.data, p + 1, ngx_min(len, sizeof(addr)));

    len = ngx_sock_ntop(&addr.sockaddr, len, text, NGX_SOCKADDR_STRLEN, 1);

    ngx_log_error(NGX_LOG_INFO, kept->connection->log, 0,
                  "server %*s of upstream \"%*s\" %s connections that have "
                  "been idle for %M ms",
                  len, text, (size_t) (p - key->data), key->data, what, age);
}
