
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the resolver has said last of names that variables bring along, in
 * shared memory: workers ask it at different times, and whoever has idle
 * connections for a name may have no request for it.
 *
 * A name is known by a hash of it and of the name server that was asked.  It
 * is one of few places where it may be found; the one that has had no answer
 * for the longest time gives way, and nothing is known of it any more.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_murmurhash.h>
#include "ngx_http_upstream_reuse_connection.h"


#define NGX_HTTP_UPSTREAM_REUSE_ANSWERS    1024
#define NGX_HTTP_UPSTREAM_REUSE_CHOICES    4      /* places of a name */

/* what has more addresses may have any */
#define NGX_HTTP_UPSTREAM_REUSE_ADDRESSES  16

/* names whose last answer a worker knows */
#define NGX_HTTP_UPSTREAM_REUSE_SEEN       256


/* cycle, in shared memory */

typedef struct {
    ngx_uint_t                       target;  /* 0: none */
    ngx_msec_t                       noted;   /* the last answer */
    ngx_uint_t                       n;       /* 0: too many */
    uint32_t                         hashes[NGX_HTTP_UPSTREAM_REUSE_ADDRESSES];
} reuse_answer_t;


typedef struct {
    ngx_atomic_t                     count;   /* of answers, ever */
    reuse_answer_t                   answers[NGX_HTTP_UPSTREAM_REUSE_ANSWERS];
} reuse_answers_t;


/* worker */

typedef struct {
    uint32_t                         hash;    /* of the name */
    ngx_resolver_t                  *resolver;
    time_t                           valid;   /* the answer is, until then */
    ngx_uint_t                       target;
} reuse_seen_t;


static ngx_int_t reuse_init_answers(ngx_shm_zone_t *shm_zone, void *data);
static ngx_uint_t reuse_find_target(ngx_resolver_t *r, uint32_t hash);
static void reuse_note(ngx_shm_zone_t *shm_zone, ngx_uint_t target,
    ngx_resolver_ctx_t *rctx);
static reuse_answer_t *reuse_find_answer(reuse_answers_t *answers,
    ngx_uint_t target, ngx_uint_t add);
static uint32_t reuse_hash_address(struct sockaddr *sockaddr);


static reuse_seen_t  reuse_seen[NGX_HTTP_UPSTREAM_REUSE_SEEN];


static ngx_str_t  reuse_answers_name =
    ngx_string("ngx_http_upstream_reuse_answers");


ngx_shm_zone_t *
ngx_http_upstream_reuse_add_answers(ngx_conf_t *cf)
{
    size_t  size;

    size = sizeof(reuse_answers_t) + 8 * ngx_pagesize;

    return ngx_http_upstream_reuse_add_shared(cf, &reuse_answers_name,
                                              ngx_align(size, ngx_pagesize),
                                              reuse_init_answers);
}


static ngx_int_t
reuse_init_answers(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (data == NULL && !shm_zone->shm.exists) {

        shpool->data = ngx_slab_calloc(shpool, sizeof(reuse_answers_t));
        if (shpool->data == NULL) {
            return NGX_ERROR;
        }
    }

    shm_zone->data = shpool->data;

    return NGX_OK;
}


ngx_uint_t
ngx_http_upstream_reuse_note_answer(ngx_resolver_ctx_t *rctx)
{
    uint32_t                              hash;
    reuse_seen_t                         *seen;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    hash = ngx_murmur_hash2(rctx->name.data, rctx->name.len);
    seen = &reuse_seen[hash % NGX_HTTP_UPSTREAM_REUSE_SEEN];

    /* most are answers that the resolver has had for some time */

    if (seen->hash == hash
        && seen->valid == rctx->valid
        && seen->resolver == rctx->resolver)
    {
        return seen->target;
    }

    rmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                              ngx_http_upstream_reuse_module);

    if (rmcf->answers == NULL) {
        return 0;
    }

    seen->hash = hash;
    seen->valid = rctx->valid;
    seen->resolver = rctx->resolver;
    seen->target = reuse_find_target(rctx->resolver, hash);

    reuse_note(rmcf->answers, seen->target, rctx);

    return seen->target;
}


/* Others may say something else of the name. */

static ngx_uint_t
reuse_find_target(ngx_resolver_t *r, uint32_t hash)
{
    ngx_uint_t                  target;
    ngx_resolver_connection_t  *rec;

    target = hash + ngx_http_myproxy_resolver_families(r);

    for (rec = ngx_http_myproxy_first_resolver(r);
         rec;
         rec = ngx_http_myproxy_next_resolver(r, rec))
    {
        target = target * 31 + ngx_murmur_hash2(rec->server.data,
                                                rec->server.len);
    }

    return target ? target : 1;
}


static void
reuse_note(ngx_shm_zone_t *shm_zone, ngx_uint_t target,
    ngx_resolver_ctx_t *rctx)
{
    ngx_uint_t        i;
    reuse_answer_t   *answer;
    reuse_answers_t  *answers;
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    answers = shm_zone->data;

    ngx_shmtx_lock(&shpool->mutex);

    answer = reuse_find_answer(answers, target, 1);

    answer->n = 0;
    answer->target = target;
    answer->noted = ngx_current_msec;

    if (rctx->naddrs <= NGX_HTTP_UPSTREAM_REUSE_ADDRESSES) {

        for (i = 0; i < rctx->naddrs; i++) {
            answer->hashes[i] = reuse_hash_address(rctx->addrs[i].sockaddr);
        }

        answer->n = rctx->naddrs;
    }

    answers->count++;

    ngx_shmtx_unlock(&shpool->mutex);
}


ngx_atomic_uint_t
ngx_http_upstream_reuse_count_answers(ngx_shm_zone_t *shm_zone)
{
    reuse_answers_t  *answers;

    answers = shm_zone->data;

    return answers->count;
}


ngx_uint_t
ngx_http_upstream_reuse_is_unanswered(ngx_shm_zone_t *shm_zone,
    ngx_uint_t target, struct sockaddr *sockaddr, ngx_msec_t start)
{
    uint32_t          hash;
    ngx_uint_t        i, lacks;
    reuse_answer_t   *answer;
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    hash = reuse_hash_address(sockaddr);

    ngx_shmtx_lock(&shpool->mutex);

    answer = reuse_find_answer(shm_zone->data, target, 0);

    /*
     * A worker whose resolver knows an older answer goes on opening
     * connections by it: they end with the next one.
     */

    lacks = answer
            && answer->n
            && (ngx_msec_int_t) (answer->noted - start) > 0;

    for (i = 0; lacks && i < answer->n; i++) {
        lacks = (answer->hashes[i] != hash);
    }

    ngx_shmtx_unlock(&shpool->mutex);

    return lacks;
}


/* NULL: there is none, if none is to be added. */

static reuse_answer_t *
reuse_find_answer(reuse_answers_t *answers, ngx_uint_t target, ngx_uint_t add)
{
    ngx_uint_t       i;
    reuse_answer_t  *answer, *oldest;

    oldest = NULL;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_CHOICES; i++) {

        answer = &answers->answers[(target + i)
                                   % NGX_HTTP_UPSTREAM_REUSE_ANSWERS];

        if (answer->target == target) {
            return answer;
        }

        if (oldest == NULL
            || (oldest->target
                && (answer->target == 0
                    || (ngx_msec_int_t) (answer->noted - oldest->noted) < 0)))
        {
            oldest = answer;
        }
    }

    return add ? oldest : NULL;
}


/* The port is that of the pass, not of the answer. */

static uint32_t
reuse_hash_address(struct sockaddr *sockaddr)
{
    struct sockaddr_in   *sin;
#if (NGX_HAVE_INET6)
    struct sockaddr_in6  *sin6;
#endif

    switch (sockaddr->sa_family) {

#if (NGX_HAVE_INET6)
    case AF_INET6:
        sin6 = (struct sockaddr_in6 *) sockaddr;
        return ngx_crc32_short(sin6->sin6_addr.s6_addr, 16);
#endif

    case AF_INET:
        sin = (struct sockaddr_in *) sockaddr;
        return ngx_crc32_short((u_char *) &sin->sin_addr, 4);

    default:
        return 0;
    }
}


void
ngx_http_upstream_reuse_set_target(ngx_http_request_t *r, ngx_uint_t target)
{
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = ngx_http_get_module_ctx(r, ngx_http_upstream_reuse_module);

    /* it is a mark, and no peer, where the pool is not used */

    if (rp && (void *) rp != (void *) &ngx_http_upstream_reuse_module) {
        rp->target = target;
    }
}
