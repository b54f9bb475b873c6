
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * How many connections there are to be of each kind to each server, and what
 * is opened or closed for it.
 */


#include "ngx_http_upstream_reuse.h"


/*
 * Milliseconds before the end of a connection, without round trips: another
 * one is opened in its place, if there are few at a time; and it has to be.
 */

#define NGX_HTTP_UPSTREAM_REUSE_AHEAD_OF  250
#define NGX_HTTP_UPSTREAM_REUSE_AT_LAST   30

/* an unused connection that ends so soon is not opened */

#define NGX_HTTP_UPSTREAM_REUSE_HOPELESS  100

/* with "auto", so many more than were needed of late, at least */

#define NGX_HTTP_UPSTREAM_REUSE_SPARE     3

/*
 * So many at a time to a server, and in all: those that hang are not to keep
 * others from being opened.
 */

#define NGX_HTTP_UPSTREAM_REUSE_OPENINGS  8
#define NGX_HTTP_UPSTREAM_REUSE_ALL       64


static ngx_int_t reuse_collect_servers(ngx_http_upstream_reuse_warm_t *warm);
static ngx_int_t reuse_collect_server(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_rr_peer_t *peer);
static ngx_uint_t reuse_is_live(ngx_http_upstream_rr_peers_t *peers,
    ngx_http_upstream_rr_peer_t *peer);
static void reuse_lower_kinds(ngx_http_upstream_reuse_warm_t *warm);

static void reuse_warm_kind(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_kind_t *kind, ngx_uint_t before,
    ngx_uint_t share, ngx_uint_t all, ngx_msec_t *next);
static void reuse_count_ready(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_kind_t *kind, ngx_msec_t *next);
static ngx_msec_t reuse_ahead_of(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server);
static ngx_uint_t reuse_part(ngx_uint_t whole, ngx_uint_t before,
    ngx_uint_t share, ngx_uint_t all);
static ngx_uint_t reuse_wanted(ngx_http_upstream_reuse_server_t *server);
static void reuse_warm_server(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t wanted,
    ngx_msec_t *next);
static ngx_uint_t reuse_may_open(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t wanted,
    ngx_msec_t *next);
static ngx_uint_t reuse_is_hopeless(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server);
static ngx_uint_t reuse_retire(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t most);


ngx_msec_t
ngx_http_upstream_reuse_plan(ngx_http_upstream_reuse_warm_t *warm)
{
    ngx_msec_t                        next;
    ngx_uint_t                        i, all, before, share;
    ngx_http_upstream_reuse_kind_t  **kind;

    next = NGX_HTTP_UPSTREAM_REUSE_SELDOM;

    if (warm->nkinds == 0 || reuse_collect_servers(warm) != NGX_OK) {
        return next;
    }

    reuse_lower_kinds(warm);

    /* by how much they are used, and one for what is in the configuration */

    kind = warm->kinds;
    all = 0;

    for (i = 0; i < warm->nkinds; i++) {
        all += kind[i]->peak + !kind[i]->learned;
    }

    before = 0;

    for (i = 0; i < warm->nkinds; i++) {
        share = all ? kind[i]->peak + !kind[i]->learned : 1;

        reuse_warm_kind(warm, kind[i], before, share,
                        all ? all : warm->nkinds, &next);
        before += share;
    }

    return next;
}


static void
reuse_lower_kinds(ngx_http_upstream_reuse_warm_t *warm)
{
    ngx_uint_t                       i;
    ngx_http_upstream_reuse_kind_t  *kind;

    if (ngx_current_msec - warm->lowered
        < NGX_HTTP_UPSTREAM_REUSE_LOWER * 1000)
    {
        return;
    }

    warm->lowered = ngx_current_msec;

    for (i = 0; i < warm->nkinds; i++) {
        kind = warm->kinds[i];

        kind->peak = ngx_http_upstream_reuse_lower(kind->peak, kind->seen);
        kind->seen = kind->used;
    }
}


/* The servers that get requests now, as the balancer has them. */

static ngx_int_t
reuse_collect_servers(ngx_http_upstream_reuse_warm_t *warm)
{
    ngx_int_t                      rc;
    ngx_http_upstream_rr_peer_t   *peer;
    ngx_http_upstream_rr_peers_t  *peers;

    warm->servers.nelts = 0;
    warm->weight = 0;
    warm->round++;

    peers = warm->uscf->peer.data;
    rc = NGX_OK;

    ngx_http_upstream_rr_peers_rlock(peers);

    for (peer = peers->peer; peer && rc == NGX_OK; peer = peer->next) {

        if (reuse_is_live(peers, peer)) {
            rc = reuse_collect_server(warm, peer);
        }
    }

    ngx_http_upstream_rr_peers_unlock(peers);

    return rc;
}


static ngx_uint_t
reuse_is_live(ngx_http_upstream_rr_peers_t *peers,
    ngx_http_upstream_rr_peer_t *peer)
{
    if (peer->down) {
        return 0;
    }

    if (peer->max_conns && peer->conns >= peer->max_conns) {
        return 0;
    }

    return peers->single
           || peer->max_fails == 0
           || peer->fails < peer->max_fails
           || ngx_time() - peer->checked > peer->fail_timeout;
}


static ngx_int_t
reuse_collect_server(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_rr_peer_t *peer)
{
    ngx_uint_t                          weight;
    ngx_peer_connection_t               pc;
    ngx_http_upstream_reuse_server_t   *server, **serverp;

    ngx_memzero(&pc, sizeof(ngx_peer_connection_t));

    pc.sockaddr = peer->sockaddr;
    pc.socklen = peer->socklen;
    pc.log = ngx_cycle->log;

    server = ngx_http_upstream_reuse_find_server(warm->conf, &pc);

    if (server->limit == NULL) {

        /* there is no room in the zone for what is known of it */

        return NGX_OK;
    }

    /* in implicit upstreams it is 0 */

    weight = ngx_max(peer->weight, 1);
    warm->weight += weight;

    if (server->round == warm->round) {

        /* an address that is listed twice */

        server->weight += weight;
        return NGX_OK;
    }

    server->round = warm->round;
    server->weight = weight;
    server->room = peer->max_conns ? peer->max_conns - peer->conns
                                   : NGX_MAX_INT_T_VALUE;

    serverp = ngx_array_push(&warm->servers);
    if (serverp == NULL) {
        return NGX_ERROR;
    }

    *serverp = server;

    return NGX_OK;
}


/* One kind gets its share of what there is to be of all kinds. */

static void
reuse_warm_kind(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_kind_t *kind, ngx_uint_t before,
    ngx_uint_t share, ngx_uint_t all, ngx_msec_t *next)
{
    ngx_uint_t                          i, n, wanted, used, weight;
    ngx_http_upstream_reuse_server_t   *server, **servers;

    reuse_count_ready(warm, kind, next);

    n = (warm->conf->warm > 0)
        ? reuse_part(warm->conf->warm, before, share, all) : 0;

    weight = 0;

    servers = warm->servers.elts;

    for (i = 0; i < warm->servers.nelts; i++) {

        server = servers[i];

        if (warm->conf->warm > 0) {

            /* so many ready, whatever is used besides */

            wanted = reuse_part(n, weight, server->weight, warm->weight);

        } else {

            /* so many in all */

            wanted = reuse_part(reuse_wanted(server), before, share, all);

            used = reuse_part(server->used, before, share, all);
            wanted -= ngx_min(wanted, used);
        }

        weight += server->weight;

        reuse_warm_server(warm, kind, server, wanted, next);
    }
}


/*
 * Of what is shared out in parts, the one that comes after others: all of
 * them together are the whole.
 */

static ngx_uint_t
reuse_part(ngx_uint_t whole, ngx_uint_t before, ngx_uint_t share,
    ngx_uint_t all)
{
    return whole * (before + share) / all - whole * before / all;
}


/*
 * With "auto", how many connections a worker has to a server, those in use
 * included: as many as it used at a time of late, and a few for when it is
 * more.
 */

static ngx_uint_t
reuse_wanted(ngx_http_upstream_reuse_server_t *server)
{
    ngx_uint_t  peak;

    peak = server->record->peak;

    return peak ? peak + ngx_max(peak / 4, NGX_HTTP_UPSTREAM_REUSE_SPARE) : 0;
}


/* Of the idle ones, those that are near their end are not ready. */

static void
reuse_count_ready(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_kind_t *kind, ngx_msec_t *next)
{
    ngx_uint_t                          i;
    ngx_msec_t                          age, left, ahead;
    ngx_queue_t                        *q;
    ngx_http_upstream_reuse_kept_t     *kept;
    ngx_http_upstream_reuse_server_t  **servers;

    servers = warm->servers.elts;

    for (i = 0; i < warm->servers.nelts; i++) {
        servers[i]->ready = 0;
        servers[i]->idle = 0;
    }

    for (q = ngx_queue_head(&warm->idle);
         q != ngx_queue_sentinel(&warm->idle);
         q = ngx_queue_next(q))
    {
        kept = ngx_queue_data(q, ngx_http_upstream_reuse_kept_t, queue);

        if (kept->kind != kind || kept->outlives) {
            continue;
        }

        age = ngx_current_msec - kept->since;

        if (kept->server->failures && age >= NGX_HTTP_UPSTREAM_REUSE_PROVED) {
            ngx_http_upstream_reuse_recover(kept->server);
        }

        left = ngx_http_upstream_reuse_left(kept);
        ahead = reuse_ahead_of(warm, kept->server) + kept->early;

        if (left > ahead) {
            kept->server->ready++;
            *next = ngx_min(*next, left - ahead);

        } else if (ngx_http_upstream_reuse_may_outlive(kept)) {
            kept->outlives = 1;
            continue;
        }

        kept->server->idle++;
    }
}


static ngx_msec_t
reuse_ahead_of(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_msec_t  ahead, limit;

    ahead = NGX_HTTP_UPSTREAM_REUSE_AHEAD_OF + 8 * server->limit->rtt / 1000;
    limit = ngx_http_upstream_reuse_unused_limit(warm->conf, server);

    return ngx_min(ahead, limit / 4);
}


static void
reuse_warm_server(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t wanted,
    ngx_msec_t *next)
{
    ngx_msec_t  last;
    ngx_uint_t  opening;

    opening = ngx_http_upstream_reuse_count_openings(kind, server);

    if (server->ready >= wanted) {

        /* whatever replaces those that are near their end is there */

        while (server->idle > server->ready
               && server->idle > wanted
               && reuse_retire(warm, kind, server, NGX_MAX_INT32_VALUE))
        {
            server->idle--;
        }

        return;
    }

    while (server->ready + opening < wanted
           && reuse_may_open(warm, server, wanted, next))
    {
        /* an eighth more than there are to be, for as long as it takes */

        if (server->idle + opening >= wanted + ngx_max(wanted / 8, 1)
            || (warm->conf->size
                && warm->used + warm->nidle + warm->opening
                   >= warm->conf->size))
        {
            last = NGX_HTTP_UPSTREAM_REUSE_AT_LAST
                   + 2 * server->limit->rtt / 1000;

            if (server->idle <= server->ready
                || !reuse_retire(warm, kind, server, last))
            {
                *next = ngx_min(*next, NGX_HTTP_UPSTREAM_REUSE_AT_LAST);
                return;
            }

            server->idle--;
        }

        if (ngx_http_upstream_reuse_open(warm, kind, server) != NGX_OK) {
            return;
        }

        opening++;
    }
}


static ngx_uint_t
reuse_may_open(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t wanted,
    ngx_msec_t *next)
{
    ngx_msec_int_t  wait;

    if (server->opening >= NGX_HTTP_UPSTREAM_REUSE_OPENINGS) {

        /* the end of any of them is a change */

        return 0;
    }

    if (ngx_http_upstream_reuse_count_all_openings()
        >= NGX_HTTP_UPSTREAM_REUSE_ALL)
    {
        *next = ngx_min(*next, NGX_HTTP_UPSTREAM_REUSE_AT_LAST);
        return 0;
    }

    if (server->nidle + server->opening >= server->room) {
        return 0;
    }

    /* clients come first */

    if (ngx_cycle->free_connection_n < ngx_cycle->connection_n / 8) {
        return 0;
    }

    if (server->failures) {

        if (server->opening) {
            return 0;
        }

        wait = server->retry - ngx_current_msec;

        if (wait > 0) {
            *next = ngx_min(*next, (ngx_msec_t) wait);
            return 0;
        }
    }

    if (ngx_current_msec - server->second < 1000
        && server->wasted > wanted + 2)
    {
        *next = ngx_min(*next, server->second + 1000 - ngx_current_msec);
        return 0;
    }

    return !reuse_is_hopeless(warm, server);
}


/* What is closed as soon as it is there is not opened. */

static ngx_uint_t
reuse_is_hopeless(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_msec_t  limit;

    limit = ngx_http_upstream_reuse_unused_limit(warm->conf, server);

    if (limit > NGX_HTTP_UPSTREAM_REUSE_HOPELESS
                + 8 * server->limit->rtt / 1000)
    {
        server->hopeless = 0;
        return 0;
    }

    if (!server->hopeless) {
        server->hopeless = 1;

        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "upstream \"%V\" is not kept warm: a connection that "
                      "is not used lasts %M ms only",
                      &warm->conf->name, limit);
    }

    return 1;
}


/*
 * Has the keepalive module close the idle connection that ends first, if it
 * will within so many milliseconds.
 */

static ngx_uint_t
reuse_retire(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t most)
{
    ngx_msec_t                       left, least;
    ngx_queue_t                     *q;
    ngx_event_t                     *rev;
    ngx_http_upstream_reuse_kept_t  *kept, *found;

    found = NULL;
    least = 0;

    for (q = ngx_queue_head(&warm->idle);
         q != ngx_queue_sentinel(&warm->idle);
         q = ngx_queue_next(q))
    {
        kept = ngx_queue_data(q, ngx_http_upstream_reuse_kept_t, queue);

        if (kept->kind != kind || kept->server != server || kept->outlives) {
            continue;
        }

        left = ngx_http_upstream_reuse_left(kept);

        if (found == NULL || left < least) {
            found = kept;
            least = left;
        }
    }

    if (found == NULL || least > most) {
        return 0;
    }

    rev = found->connection->read;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, rev->log, 0,
                   "upstream reuse: connection %p is replaced",
                   found->connection);

    found->expiring = 1;

    rev->timedout = 1;
    rev->handler(rev);

    return 1;
}
