
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A record of which nobody has a tally, and no connection is open, is added to
 * the one record of all servers of that upstream which are gone, and freed.
 * So the sums of an upstream are exact for ever.
 *
 * Gone is what round robin does not know any more.  Where variables or other
 * balancers choose addresses, what has had no request for long is taken for
 * gone, and earlier if there is no room for others.
 */


#include "ngx_http_upstream_reuse_accounts.h"


/* milliseconds without a request: of one that is gone, and may be */
#define NGX_HTTP_UPSTREAM_REUSE_GONE    (60 * 1000)
#define NGX_HTTP_UPSTREAM_REUSE_UNUSED  (60 * 60 * 1000)

/* for so many milliseconds after it was wanted, room is made */
#define NGX_HTTP_UPSTREAM_REUSE_WANTED  3000


static ngx_uint_t reuse_free_tallies(ngx_slab_pool_t *shpool,
    ngx_http_upstream_reuse_record_t *record);
static ngx_uint_t reuse_is_record_gone(ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_record_t *record);
static ngx_uint_t reuse_has_open(ngx_http_upstream_reuse_record_t *record);
static void reuse_fold_record(ngx_slab_pool_t *shpool,
    ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_record_t *record);
static void reuse_add_record(ngx_http_upstream_reuse_record_t *sum,
    ngx_http_upstream_reuse_record_t *record);
static void reuse_forget(ngx_http_upstream_reuse_record_t *record);
static u_char *reuse_address(ngx_http_upstream_reuse_record_t *record,
    size_t *len);


ngx_uint_t
ngx_http_upstream_reuse_free_tally(ngx_shm_zone_t *shm_zone,
    ngx_http_upstream_reuse_record_t *record,
    ngx_http_upstream_reuse_tally_t *tally)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    ngx_http_upstream_reuse_fold_tally(record, tally);

    if (record->planner == tally->pid) {
        record->planner = 0;
    }

    tally->pid = 0;

    if (reuse_free_tallies(shpool, record) || reuse_has_open(record)) {
        return 0;
    }

    reuse_fold_record(shpool, shm_zone->data, record);

    return 1;
}


void
ngx_http_upstream_reuse_fold(ngx_shm_zone_t *shm_zone)
{
    ngx_uint_t                         checks;
    ngx_slab_pool_t                   *shpool;
    ngx_http_upstream_reuse_zone_t    *zone;
    ngx_http_upstream_reuse_record_t  *record, *next;

    zone = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    (void) ngx_http_upstream_reuse_inherit_dead(zone);

    checks = 0;

    for (record = ngx_http_upstream_reuse_next_record(zone, NULL);
         record;
         record = next)
    {
        next = ngx_http_upstream_reuse_next_record(zone, record);

        if (reuse_free_tallies(shpool, record)
            || reuse_has_open(record)
            || (!ngx_http_upstream_reuse_is_room_wanted(zone,
                                                        record->unbounded)
                && (ngx_msec_int_t) (ngx_current_msec - record->checked)
                   < NGX_HTTP_UPSTREAM_REUSE_CHECK)
            || checks == NGX_HTTP_UPSTREAM_REUSE_CHECKS)
        {
            continue;
        }

        checks++;
        record->checked = ngx_current_msec;

        if (reuse_is_record_gone(zone, record)) {
            reuse_fold_record(shpool, zone, record);
        }
    }

    if (!ngx_http_upstream_reuse_is_room_wanted(zone, 0)
        && shpool->pfree > shm_zone->shm.size / ngx_pagesize / 8)
    {
        zone->full = 0;
    }
}


/* Those of workers that are gone; tells whether there are others. */

static ngx_uint_t
reuse_free_tallies(ngx_slab_pool_t *shpool,
    ngx_http_upstream_reuse_record_t *record)
{
    ngx_http_upstream_reuse_tally_t  *tally, **link;

    link = &record->tallies;

    while (*link) {

        tally = *link;

        if (tally->pid) {
            link = &tally->next;
            continue;
        }

        *link = tally->next;
        ngx_slab_free_locked(shpool, tally);
    }

    return record->tallies != NULL;
}


/*
 * What stands for several servers is never gone.  Locks of the upstream are
 * taken with that of the zone, and never the other way round.
 */

static ngx_uint_t
reuse_is_record_gone(ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_record_t *record)
{
    size_t                               len;
    u_char                              *address;
    ngx_str_t                            name;
    ngx_uint_t                           room;
    ngx_msec_t                           unused;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    if (record == &zone->overflow) {
        return 0;
    }

    address = reuse_address(record, &len);

    if (len < 2) {
        return 0;
    }

    name.data = record->node.str.data;
    name.len = address - 1 - name.data;

    rcf = ngx_http_upstream_reuse_find_conf(&name);
    room = ngx_http_upstream_reuse_is_room_wanted(zone, record->unbounded);

    unused = ngx_http_upstream_reuse_passed_since(record->active);

    return ngx_http_upstream_reuse_is_gone(rcf, record->unbounded, address,
                                           len, unused, room);
}


/* What of them is parked, nobody has in a tally. */

static ngx_uint_t
reuse_has_open(ngx_http_upstream_reuse_record_t *record)
{
    ngx_uint_t          i;
    ngx_atomic_uint_t  *n, open;

    n = record->counters;
    open = n[NGX_HTTP_UPSTREAM_REUSE_OPENED];

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST; i++) {
        open -= n[NGX_HTTP_UPSTREAM_REUSE_CLOSED + i];
    }

    return (ngx_atomic_int_t) open > 0;
}


/*
 * The first record of an upstream that is to be freed stands for those that
 * follow, so that no memory is needed for it.
 */

static void
reuse_fold_record(ngx_slab_pool_t *shpool,
    ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_record_t *record)
{
    size_t                             len;
    u_char                            *address;
    ngx_str_t                         *key;
    ngx_http_upstream_reuse_record_t  *removed;

    ngx_rbtree_delete(&zone->rbtree, &record->node.node);

    zone->nunbounded -= record->unbounded;
    record->unbounded = 0;

    key = &record->node.str;

    address = reuse_address(record, &len);
    *address = '\0';

    key->len = address + 1 - key->data;

    removed = ngx_http_upstream_reuse_lookup_record(zone, key);

    if (removed) {
        reuse_add_record(removed, record);
        ngx_slab_free_locked(shpool, record);

        return;
    }

    reuse_forget(record);

    record->node.node.key = ngx_crc32_long(key->data, key->len);

    ngx_rbtree_insert(&zone->rbtree, &record->node.node);
}


static void
reuse_add_record(ngx_http_upstream_reuse_record_t *sum,
    ngx_http_upstream_reuse_record_t *record)
{
    ngx_uint_t  i, j;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_COUNTERS; i++) {
        sum->counters[i] += record->counters[i];
    }

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_PARTS; i++) {
        sum->paid[i].requests += record->paid[i].requests;
        sum->paid[i].unused += record->paid[i].unused;
    }

    for (i = 0; i < 2; i++) {

        sum->marks[i].requests += record->marks[i].requests;

        for (j = 0; j < NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST; j++) {
            sum->marks[i].closed[j] += record->marks[i].closed[j];
        }
    }
}


/* What was learned of one server is not true of others. */

static void
reuse_forget(ngx_http_upstream_reuse_record_t *record)
{
    ngx_memzero(&record->learned, sizeof(ngx_http_upstream_reuse_learned_t));
    ngx_memzero(&record->unused_learned,
                sizeof(ngx_http_upstream_reuse_learned_t));
    ngx_memzero(&record->starving,
                sizeof(ngx_http_upstream_reuse_starving_t));

    record->used = 0;
    record->peak = 0;
    record->seen = 0;
    record->planner = 0;
    record->unpaid = 0;
    record->unwanted = 0;
}


static u_char *
reuse_address(ngx_http_upstream_reuse_record_t *record, size_t *len)
{
    u_char     *p, *last;
    ngx_str_t  *key;

    key = &record->node.str;
    last = key->data + key->len;

    p = ngx_strlchr(key->data, last, '\0') + 1;

    *len = last - p;

    return p;
}


ngx_uint_t
ngx_http_upstream_reuse_is_room_wanted(
    ngx_http_upstream_reuse_zone_t *zone, ngx_uint_t unbounded)
{
    ngx_uint_t  i;

    for (i = 0; i <= unbounded; i++) {
        if (zone->wanted[i]
            && (ngx_msec_int_t) (ngx_current_msec - zone->wanted[i])
               < NGX_HTTP_UPSTREAM_REUSE_WANTED)
        {
            return 1;
        }
    }

    return 0;
}


/* The upstream is NULL if it is not in the configuration. */

ngx_uint_t
ngx_http_upstream_reuse_is_gone(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_uint_t unbounded, u_char *sockaddr, size_t socklen, ngx_msec_t unused,
    ngx_uint_t room)
{
    /* the clock of whoever used it last may be a little ahead of ours */

    if ((ngx_msec_int_t) unused < 0
        || (unused < NGX_HTTP_UPSTREAM_REUSE_GONE && !room))
    {
        return 0;
    }

    if (unbounded
        || (rcf && (rcf->foreign
                    || !ngx_http_upstream_reuse_has_round_robin(rcf->uscf))))
    {
        return room || unused >= NGX_HTTP_UPSTREAM_REUSE_UNUSED;
    }

    return rcf == NULL
           || !ngx_http_upstream_reuse_has_server(rcf->uscf, sockaddr,
                                                  socklen);
}
