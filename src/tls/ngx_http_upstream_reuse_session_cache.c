
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * TLS sessions in shared memory.  They stand in slots of one size, and a key
 * has a few slots in which its sessions may be.  There are no pointers from
 * one to another: a worker that is killed while it writes leaves one slot
 * empty, and nothing else that is wrong.
 */


#include "ngx_http_upstream_reuse_sessions.h"


#if (NGX_HTTP_SSL)


/* slots in which a session of a key may be */
#define NGX_HTTP_UPSTREAM_REUSE_SLOTS    16

/* sessions of one key */
#define NGX_HTTP_UPSTREAM_REUSE_TICKETS  4


/* cycle, in shared memory; under the lock of the zone */

typedef struct {
    u_char                key[NGX_HTTP_UPSTREAM_REUSE_SESSION_KEY];
    time_t                expire;
    ngx_atomic_uint_t     stamp;   /* greater than that of all slots that
                                      were used or written before */
    ngx_atomic_uint_t     maker;
    uint32_t              len;     /* 0: empty */
    uint32_t              taken;   /* unsigned  taken:1; */
} reuse_slot_t;


typedef struct {
    ngx_uint_t            nsets;
    ngx_atomic_uint_t     stamp;   /* the last one */
    reuse_slot_t         *slots;
    u_char               *data;    /* ..._SESSION_MAX for each */
} reuse_cache_t;


static ngx_int_t reuse_init_cache(ngx_shm_zone_t *shm_zone, void *data);
static reuse_cache_t *reuse_lock(ngx_shm_zone_t *shm_zone);
static void reuse_unlock(ngx_shm_zone_t *shm_zone);
static reuse_slot_t *reuse_find_set(reuse_cache_t *cache, u_char *key);
static ngx_uint_t reuse_is_of_key(reuse_slot_t *slot, u_char *key);
static reuse_slot_t *reuse_find_victim(reuse_slot_t *set, u_char *key);
static ngx_uint_t reuse_rank(reuse_slot_t *slot, u_char *key, ngx_uint_t n);
static u_char *reuse_data(reuse_cache_t *cache, reuse_slot_t *slot);


static ngx_str_t  reuse_cache_name =
    ngx_string("ngx_http_upstream_reuse_sessions");


ngx_shm_zone_t *
ngx_http_upstream_reuse_add_session_zone(ngx_conf_t *cf, size_t size)
{
    return ngx_http_upstream_reuse_add_shared(cf, &reuse_cache_name, size,
                                              reuse_init_cache);
}


/* What is in the slots is not touched: the system provides it when needed. */

static ngx_int_t
reuse_init_cache(ngx_shm_zone_t *shm_zone, void *data)
{
    size_t            room;
    ngx_uint_t        n;
    reuse_cache_t    *cache;
    ngx_slab_pool_t  *shpool;

    if (data) {
        shm_zone->data = data;
        return NGX_OK;
    }

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shm_zone->shm.exists) {
        shm_zone->data = shpool->data;
        return NGX_OK;
    }

    cache = ngx_slab_calloc(shpool, sizeof(reuse_cache_t));
    if (cache == NULL) {
        return NGX_ERROR;
    }

    /* a page may be lost behind the slots */

    room = (shpool->pfree - 1) * ngx_pagesize;

    cache->nsets = room / (NGX_HTTP_UPSTREAM_REUSE_SLOTS
                           * (sizeof(reuse_slot_t)
                              + NGX_HTTP_UPSTREAM_REUSE_SESSION_MAX));

    n = cache->nsets * NGX_HTTP_UPSTREAM_REUSE_SLOTS;

    cache->slots = ngx_slab_calloc(shpool, n * sizeof(reuse_slot_t));
    cache->data = ngx_slab_alloc(shpool,
                                 n * NGX_HTTP_UPSTREAM_REUSE_SESSION_MAX);

    if (n == 0 || cache->slots == NULL || cache->data == NULL) {
        return NGX_ERROR;
    }

    shpool->data = cache;
    shm_zone->data = cache;

    return NGX_OK;
}


size_t
ngx_http_upstream_reuse_get_session(ngx_shm_zone_t *shm_zone, u_char *key,
    u_char *data)
{
    size_t          len;
    ngx_uint_t      i;
    reuse_slot_t   *set, *slot, *best;
    reuse_cache_t  *cache;

    cache = reuse_lock(shm_zone);

    set = reuse_find_set(cache, key);
    best = NULL;
    len = 0;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_SLOTS; i++) {
        slot = &set[i];

        if (!reuse_is_of_key(slot, key)) {
            continue;
        }

        if (slot->expire <= ngx_time()) {
            slot->len = 0;
            continue;
        }

        if (best == NULL
            || slot->taken < best->taken
            || (slot->taken == best->taken && slot->stamp > best->stamp))
        {
            best = slot;
        }
    }

    if (best) {
        best->taken = 1;
        best->stamp = ++cache->stamp;

        len = best->len;
        ngx_memcpy(data, reuse_data(cache, best), len);
    }

    reuse_unlock(shm_zone);

    return len;
}


void
ngx_http_upstream_reuse_put_session(ngx_shm_zone_t *shm_zone,
    ngx_http_upstream_reuse_session_t *session)
{
    ngx_uint_t      i;
    reuse_slot_t   *set, *slot;
    reuse_cache_t  *cache;

    cache = reuse_lock(shm_zone);

    set = reuse_find_set(cache, session->key);

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_SLOTS; i++) {
        slot = &set[i];

        if (reuse_is_of_key(slot, session->key)
            && (!session->several
                || (session->full && slot->maker != session->maker)))
        {
            slot->len = 0;
        }
    }

    slot = reuse_find_victim(set, session->key);

    slot->len = 0;

    ngx_memory_barrier();

    ngx_memcpy(reuse_data(cache, slot), session->data, session->len);
    ngx_memcpy(slot->key, session->key, NGX_HTTP_UPSTREAM_REUSE_SESSION_KEY);

    slot->expire = session->expire;
    slot->maker = session->maker;
    slot->taken = 0;
    slot->stamp = ++cache->stamp;

    ngx_memory_barrier();

    slot->len = session->len;

    reuse_unlock(shm_zone);
}


void
ngx_http_upstream_reuse_drop_sessions(ngx_shm_zone_t *shm_zone, u_char *key)
{
    ngx_uint_t      i;
    reuse_slot_t   *set;
    reuse_cache_t  *cache;

    cache = reuse_lock(shm_zone);

    set = reuse_find_set(cache, key);

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_SLOTS; i++) {
        if (reuse_is_of_key(&set[i], key)) {
            set[i].len = 0;
        }
    }

    reuse_unlock(shm_zone);
}


/* Core unlocks the mutex of a worker that has died. */

static reuse_cache_t *
reuse_lock(ngx_shm_zone_t *shm_zone)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    return shm_zone->data;
}


static void
reuse_unlock(ngx_shm_zone_t *shm_zone)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    ngx_shmtx_unlock(&shpool->mutex);
}


static reuse_slot_t *
reuse_find_set(reuse_cache_t *cache, u_char *key)
{
    uint32_t  hash;

    /* all bytes of a digest are as good */

    ngx_memcpy(&hash, key, sizeof(uint32_t));

    return &cache->slots[hash % cache->nsets * NGX_HTTP_UPSTREAM_REUSE_SLOTS];
}


static ngx_uint_t
reuse_is_of_key(reuse_slot_t *slot, u_char *key)
{
    return slot->len
           && ngx_memcmp(slot->key, key, NGX_HTTP_UPSTREAM_REUSE_SESSION_KEY)
              == 0;
}


/* The oldest one of those that can best be spared. */

static reuse_slot_t *
reuse_find_victim(reuse_slot_t *set, u_char *key)
{
    ngx_uint_t     i, n, rank, least;
    reuse_slot_t  *victim;

    n = 0;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_SLOTS; i++) {
        n += reuse_is_of_key(&set[i], key);
    }

    victim = &set[0];
    least = reuse_rank(victim, key, n);

    for (i = 1; i < NGX_HTTP_UPSTREAM_REUSE_SLOTS; i++) {
        rank = reuse_rank(&set[i], key, n);

        if (rank < least
            || (rank == least && set[i].stamp < victim->stamp))
        {
            victim = &set[i];
            least = rank;
        }
    }

    return victim;
}


static ngx_uint_t
reuse_rank(reuse_slot_t *slot, u_char *key, ngx_uint_t n)
{
    if (reuse_is_of_key(slot, key)) {

        if (slot->taken) {
            return 0;
        }

        return (n >= NGX_HTTP_UPSTREAM_REUSE_TICKETS) ? 1 : 3;
    }

    return (slot->len == 0 || slot->expire <= ngx_time()) ? 2 : 3;
}


static u_char *
reuse_data(reuse_cache_t *cache, reuse_slot_t *slot)
{
    return cache->data + (slot - cache->slots)
                         * NGX_HTTP_UPSTREAM_REUSE_SESSION_MAX;
}

#endif
