
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The records of servers in shared memory: how they are found, and how what a
 * worker has counted goes to them.
 */


#include "ngx_http_upstream_reuse_accounts.h"


/* processes that are remembered while records are gone through */
#define NGX_HTTP_UPSTREAM_REUSE_PIDS   512


static void reuse_inherit_tally(ngx_http_upstream_reuse_record_t *record,
    ngx_http_upstream_reuse_tally_t *tally,
    ngx_http_upstream_reuse_close_e reason);


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
ngx_http_upstream_reuse_inherit_own(ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_close_e reason)
{
    ngx_http_upstream_reuse_tally_t   *tally;
    ngx_http_upstream_reuse_record_t  *record;

    for (record = ngx_http_upstream_reuse_next_record(zone, NULL);
         record;
         record = ngx_http_upstream_reuse_next_record(zone, record))
    {
        for (tally = record->tallies; tally; tally = tally->next) {
            if (tally->pid == ngx_pid) {
                reuse_inherit_tally(record, tally, reason);
            }
        }
    }
}


ngx_uint_t
ngx_http_upstream_reuse_inherit_dead(ngx_http_upstream_reuse_zone_t *zone)
{
    u_char                             gone[NGX_HTTP_UPSTREAM_REUSE_PIDS];
    ngx_pid_t                          pids[NGX_HTTP_UPSTREAM_REUSE_PIDS];
    ngx_uint_t                         i, n, alive;
    ngx_http_upstream_reuse_tally_t   *tally;
    ngx_http_upstream_reuse_record_t  *record;

    n = 0;
    alive = 0;

    for (record = ngx_http_upstream_reuse_next_record(zone, NULL);
         record;
         record = ngx_http_upstream_reuse_next_record(zone, record))
    {
        for (tally = record->tallies; tally; tally = tally->next) {

            if (tally->pid == 0) {
                continue;
            }

            /* the system is asked once for each, as a rule */

            for (i = 0; i < n && pids[i] != tally->pid; i++) { /* void */ }

            if (i == n) {

                if (n < NGX_HTTP_UPSTREAM_REUSE_PIDS) {
                    n++;

                } else {
                    i = 0;
                }

                pids[i] = tally->pid;
                gone[i] = ngx_http_upstream_reuse_has_died(tally->pid);
            }

            if (gone[i]) {
                reuse_inherit_tally(record, tally,
                                    NGX_HTTP_UPSTREAM_REUSE_CLOSE_CRASH);

            } else if (record == &zone->overflow) {

                /* every worker has one there, if there is room at all */

                alive++;
            }
        }
    }

    return alive;
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
reuse_inherit_tally(ngx_http_upstream_reuse_record_t *record,
    ngx_http_upstream_reuse_tally_t *tally,
    ngx_http_upstream_reuse_close_e reason)
{
    uint32_t  *n;

    n = tally->counters;

    n[NGX_HTTP_UPSTREAM_REUSE_CLOSED + reason] +=
                                     ngx_http_upstream_reuse_count_open(tally);
    n[NGX_HTTP_UPSTREAM_REUSE_IDLE] = 0;

    ngx_http_upstream_reuse_fold_tally(record, tally);

    tally->ended = 0;

    record->active = ngx_max(ngx_current_msec, 1);

    if (tally->used) {
        (void) ngx_atomic_fetch_add(&record->used,
                                    -(ngx_atomic_int_t) tally->used);
    }

    tally->used = 0;
    tally->connecting = 0;
    tally->unused = 0;

    if (record->planner == tally->pid) {
        record->planner = 0;
    }

    tally->pid = 0;
}


ngx_int_t
ngx_http_upstream_reuse_count_open(ngx_http_upstream_reuse_tally_t *tally)
{
    uint32_t    *n, open;
    ngx_uint_t   i;

    n = tally->counters;

    open = n[NGX_HTTP_UPSTREAM_REUSE_OPENED]
           + n[NGX_HTTP_UPSTREAM_REUSE_TAKEN_OVER]
           + n[NGX_HTTP_UPSTREAM_REUSE_SWEPT]
           - n[NGX_HTTP_UPSTREAM_REUSE_HANDED_OVER];

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST; i++) {
        open -= n[NGX_HTTP_UPSTREAM_REUSE_CLOSED + i];
    }

    return (int32_t) open;
}


void
ngx_http_upstream_reuse_fold_tally(ngx_http_upstream_reuse_record_t *record,
    ngx_http_upstream_reuse_tally_t *tally)
{
    uint32_t    *n, closed;
    ngx_int_t    open;
    ngx_uint_t   i;

    n = tally->counters;
    open = ngx_http_upstream_reuse_count_open(tally);

    /* those that are about to be closed are less than none then */

    closed = 0;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST; i++) {
        closed += n[NGX_HTTP_UPSTREAM_REUSE_CLOSED + i];
    }

    record->ended += closed;
    tally->ended -= closed;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_TALLY; i++) {

        if (i != NGX_HTTP_UPSTREAM_REUSE_IDLE) {
            record->counters[i] += (int32_t) n[i];
            n[i] = 0;
        }
    }

    record->counters[NGX_HTTP_UPSTREAM_REUSE_OPENED] -= open;
    n[NGX_HTTP_UPSTREAM_REUSE_OPENED] = (uint32_t) open;
}
