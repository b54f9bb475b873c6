
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * How many connections there are to be of each profile to each server, and
 * what is opened or closed for it.
 */


#include "ngx_http_reuse_warm.h"


/*
 * Milliseconds before the end of a connection, without round trips: another
 * one is opened in its place, if there are few at a time; and it has to be.
 */

#define NGX_HTTP_REUSE_WARM_AHEAD_OF  250
#define NGX_HTTP_REUSE_WARM_AT_LAST   30

/* an unused connection that ends so soon is not opened */

#define NGX_HTTP_REUSE_WARM_HOPELESS  100

/*
 * A worker opens at most so many at a time, to one server and in all.  Those
 * that hang are not to keep others from being opened.
 */

#define NGX_HTTP_REUSE_WARM_AT_A_TIME  8
#define NGX_HTTP_REUSE_WARM_ALL       64


static ngx_int_t reuse_collect_servers(ngx_http_reuse_warm_t *warm);
static ngx_int_t reuse_copy_peer(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_rr_peer_t *peer);
static ngx_int_t reuse_collect_server(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_peer_t *peer);
static ngx_uint_t reuse_is_live(ngx_http_upstream_rr_peers_t *peers,
    ngx_http_upstream_rr_peer_t *peer);
static void reuse_lower_profiles(ngx_http_reuse_warm_t *warm);

static void reuse_take_stock(ngx_http_reuse_warm_t *warm, ngx_msec_t *next);
static void reuse_warm_profile(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile, ngx_http_reuse_warm_part_t *part,
    ngx_msec_t *next);
static void reuse_count_elsewhere(ngx_http_upstream_reuse_server_t *server,
    ngx_http_reuse_warm_part_t *part);
static void reuse_count_ready(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile, ngx_msec_t *next);
static ngx_msec_t reuse_ahead_of(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server);
static void reuse_warm_server(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t wanted,
    ngx_msec_t *next);
static ngx_uint_t reuse_may_open(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t wanted,
    ngx_uint_t connecting, ngx_msec_t *next);
static ngx_uint_t reuse_is_hopeless(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server);
static ngx_uint_t reuse_retire(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t most);


ngx_msec_t
ngx_http_reuse_warm_plan(ngx_http_reuse_warm_t *warm)
{
    ngx_msec_t                       next;
    ngx_uint_t                       i, evenly;
    ngx_http_reuse_warm_part_t       part;
    ngx_http_reuse_warm_profile_t  **profile;

    next = NGX_HTTP_REUSE_WARM_SELDOM;

    if (warm->nprofiles == 0 || reuse_collect_servers(warm) != NGX_OK) {
        return next;
    }

    reuse_lower_profiles(warm);
    reuse_take_stock(warm, &next);

    ngx_http_reuse_warm_watch_waiting(warm, &next);

    /* by how much they are used, and one for what is in the configuration */

    profile = warm->profiles;
    part.all = 0;

    for (i = 0; i < warm->nprofiles; i++) {
        part.all += profile[i]->peak + !profile[i]->learned;
    }

    evenly = (part.all == 0);

    if (evenly) {
        part.all = warm->nprofiles;
    }

    part.before = 0;
    warm->wanted = 0;

    for (i = 0; i < warm->nprofiles; i++) {
        part.share = evenly ? 1 : profile[i]->peak + !profile[i]->learned;

        reuse_warm_profile(warm, profile[i], &part, &next);

        part.before += part.share;
    }

    return next;
}


static void
reuse_lower_profiles(ngx_http_reuse_warm_t *warm)
{
    ngx_uint_t                      i;
    ngx_http_reuse_warm_profile_t  *profile;

    if (ngx_current_msec - warm->lowered
        < NGX_HTTP_REUSE_WARM_LOWER * 1000)
    {
        return;
    }

    warm->lowered = ngx_current_msec;

    for (i = 0; i < warm->nprofiles; i++) {
        profile = warm->profiles[i];

        profile->peak = ngx_http_reuse_warm_lower(profile->peak,
                                                  profile->seen);
        profile->seen = profile->used;
    }
}


/* The servers that get requests now, as the balancer has them. */

static ngx_int_t
reuse_collect_servers(ngx_http_reuse_warm_t *warm)
{
    ngx_int_t                      rc;
    ngx_uint_t                     i;
    ngx_http_reuse_warm_peer_t    *copy;
    ngx_http_upstream_rr_peer_t   *peer;
    ngx_http_upstream_rr_peers_t  *peers;

    warm->peers.nelts = 0;
    warm->servers.nelts = 0;
    warm->weight = 0;
    warm->round++;

    peers = warm->conf->uscf->peer.data;
    rc = NGX_OK;

    ngx_http_upstream_rr_peers_rlock(peers);

    for (peer = peers->peer; peer && rc == NGX_OK; peer = peer->next) {

        if (reuse_is_live(peers, peer)) {
            rc = reuse_copy_peer(warm, peer);
        }
    }

    ngx_http_upstream_rr_peers_unlock(peers);

    /*
     * Servers are looked for without that lock: it takes the zone's, with
     * which locks of upstreams are taken elsewhere.
     */

    copy = warm->peers.elts;

    for (i = 0; i < warm->peers.nelts && rc == NGX_OK; i++) {
        rc = reuse_collect_server(warm, &copy[i]);
    }

    return rc;
}


static ngx_int_t
reuse_copy_peer(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_rr_peer_t *peer)
{
    ngx_http_reuse_warm_peer_t  *copy;

    if (peer->socklen > (socklen_t) sizeof(ngx_sockaddr_t)) {
        return NGX_OK;
    }

    copy = ngx_array_push(&warm->peers);
    if (copy == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(&copy->addr, peer->sockaddr, peer->socklen);
    copy->socklen = peer->socklen;

    /* in implicit upstreams it is 0 */

    copy->weight = ngx_max(peer->weight, 1);

    copy->room = peer->max_conns ? peer->max_conns - peer->conns
                                 : NGX_MAX_INT_T_VALUE;

    return NGX_OK;
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
reuse_collect_server(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_peer_t *peer)
{
    ngx_peer_connection_t               pc;
    ngx_http_upstream_reuse_server_t   *server, **serverp;

    ngx_memzero(&pc, sizeof(ngx_peer_connection_t));

    pc.sockaddr = &peer->addr.sockaddr;
    pc.socklen = peer->socklen;
    pc.log = ngx_cycle->log;

    server = ngx_http_upstream_reuse_find_server(warm->conf, &pc);

    if (server->learned == NULL) {

        /* there is no room in the zone for what is known of it */

        return NGX_OK;
    }

    warm->weight += peer->weight;

    if (server->ahead.round == warm->round) {

        /* an address that is listed twice */

        server->ahead.weight += peer->weight;
        return NGX_OK;
    }

    server->ahead.round = warm->round;
    server->ahead.weight = peer->weight;
    server->ahead.room = peer->room;

    serverp = ngx_array_push(&warm->servers);
    if (serverp == NULL) {
        return NGX_ERROR;
    }

    *serverp = server;

    return NGX_OK;
}


static void
reuse_take_stock(ngx_http_reuse_warm_t *warm, ngx_msec_t *next)
{
    ngx_uint_t                          i;
    ngx_msec_t                          again;
    ngx_http_upstream_reuse_server_t  **servers;

    servers = warm->servers.elts;

    for (i = 0; i < warm->servers.nelts; i++) {

        ngx_http_reuse_warm_lower_own(servers[i]);

        again = ngx_http_reuse_warm_take_stock(warm, servers[i],
                                               reuse_ahead_of(warm,
                                                              servers[i]));
        *next = ngx_min(*next, again);
    }
}


/* One profile gets its part of what there is to be of all profiles. */

static void
reuse_warm_profile(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile, ngx_http_reuse_warm_part_t *part,
    ngx_msec_t *next)
{
    ngx_uint_t                          i, shared, wanted;
    ngx_http_reuse_warm_part_t          weight;
    ngx_http_upstream_reuse_server_t   *server, **servers;

    reuse_count_ready(warm, profile, next);

    shared = ngx_http_reuse_warm_is_shared(warm, profile);

    weight.before = 0;
    weight.all = warm->weight;

    servers = warm->servers.elts;

    for (i = 0; i < warm->servers.nelts; i++) {

        server = servers[i];

        weight.share = server->ahead.weight;

        if (!shared || server->ahead.planner) {

            wanted = ngx_http_reuse_warm_count_wanted(warm, profile, server,
                                                      part, &weight);
            warm->wanted += wanted;

            if (shared) {
                reuse_count_elsewhere(server, part);
            }

            reuse_warm_server(warm, profile, server, wanted, next);
        }

        weight.before += weight.share;
    }
}


/*
 * Which profiles they are of is known only by those that have them: they are
 * taken for parts like those of what there is to be.
 */

static void
reuse_count_elsewhere(ngx_http_upstream_reuse_server_t *server,
    ngx_http_reuse_warm_part_t *part)
{
    ngx_uint_t  n;

    n = ngx_http_reuse_warm_part(server->ahead.elsewhere
                                 + server->ahead.opening, part);

    server->ahead.ready += n;
    server->ahead.idle += n + ngx_http_reuse_warm_part(server->ahead.ending,
                                                       part);
}


/* Of the idle ones, those that are near their end are not ready. */

static void
reuse_count_ready(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile, ngx_msec_t *next)
{
    ngx_uint_t                          i;
    ngx_msec_t                          age, left, ahead;
    ngx_queue_t                        *q;
    ngx_http_upstream_reuse_conn_t     *conn;
    ngx_http_upstream_reuse_server_t  **servers;

    servers = warm->servers.elts;

    for (i = 0; i < warm->servers.nelts; i++) {
        servers[i]->ahead.ready = 0;
        servers[i]->ahead.idle = 0;
    }

    for (q = ngx_queue_head(&warm->idle);
         q != ngx_queue_sentinel(&warm->idle);
         q = ngx_queue_next(q))
    {
        conn = ngx_queue_data(q, ngx_http_upstream_reuse_conn_t, queue);

        if (conn->profile != profile
            || conn->outlives
            || conn->server->learned == NULL)
        {
            continue;
        }

        age = ngx_current_msec - conn->since;

        if (age >= NGX_HTTP_UPSTREAM_REUSE_PROVED) {
            ngx_http_reuse_warm_recover(profile, conn->server);
        }

        left = ngx_http_upstream_reuse_left(conn);
        ahead = reuse_ahead_of(warm, conn->server) + conn->early;

        if (left > ahead) {
            conn->server->ahead.ready++;
            *next = ngx_min(*next, left - ahead);

        } else if (ngx_http_upstream_reuse_may_outlive(conn)) {
            conn->outlives = 1;
            continue;
        }

        conn->server->ahead.idle++;
    }
}


static ngx_msec_t
reuse_ahead_of(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_msec_t  ahead, limit;

    ahead = NGX_HTTP_REUSE_WARM_AHEAD_OF + 8 * server->learned->rtt / 1000;
    limit = ngx_http_upstream_reuse_unused_limit(warm->conf, server);

    return ngx_min(ahead, limit / 4);
}


static void
reuse_warm_server(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t wanted,
    ngx_msec_t *next)
{
    ngx_msec_t  last;
    ngx_uint_t  connecting;

    if (ngx_http_reuse_warm_is_cold(server)) {
        return;
    }

    connecting = ngx_http_reuse_warm_count_preconnects(profile, server);

    if (server->ahead.ready >= wanted) {

        /* whatever replaces those that are near their end is there */

        while (server->ahead.idle > server->ahead.ready
               && server->ahead.idle > wanted
               && reuse_retire(warm, profile, server, NGX_MAX_INT32_VALUE))
        {
            server->ahead.idle--;
        }

        return;
    }

    while (server->ahead.ready + connecting < wanted
           && reuse_may_open(warm, profile, server, wanted, connecting, next))
    {
        /* an eighth more than there are to be, for as long as it takes */

        if (server->ahead.idle + connecting >= wanted + ngx_max(wanted / 8, 1)
            || (warm->conf->size
                && warm->used + warm->nidle + warm->connecting
                   >= warm->conf->size))
        {
            /* one of those that are more than wanted is not missed */

            last = (server->ahead.idle > wanted)
                   ? NGX_MAX_INT32_VALUE
                   : NGX_HTTP_REUSE_WARM_AT_LAST
                     + 2 * server->learned->rtt / 1000;

            if (server->ahead.idle <= server->ahead.ready
                || !reuse_retire(warm, profile, server, last))
            {
                *next = ngx_min(*next, NGX_HTTP_REUSE_WARM_AT_LAST);
                return;
            }

            server->ahead.idle--;
        }

        if (ngx_http_reuse_warm_preconnect(warm, profile, server) != NGX_OK) {
            return;
        }

        connecting++;
        server->ahead.credit--;
    }
}


static ngx_uint_t
reuse_may_open(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t wanted,
    ngx_uint_t connecting, ngx_msec_t *next)
{
    ngx_uint_t                           idle;
    ngx_msec_int_t                       wait;
    ngx_http_upstream_reuse_attempts_t  *attempts;

    if (server->ahead.connecting >= NGX_HTTP_REUSE_WARM_AT_A_TIME) {

        /* the end of any of them is a change */

        return 0;
    }

    if (ngx_http_reuse_warm_count_all_preconnects()
        >= NGX_HTTP_REUSE_WARM_ALL)
    {
        *next = ngx_min(*next, NGX_HTTP_REUSE_WARM_AT_LAST);
        return 0;
    }

    idle = server->ahead.nidle;

    if (server->ahead.planner) {
        idle += server->ahead.elsewhere + server->ahead.ending
                + server->ahead.opening;
    }

    if (idle + server->ahead.connecting >= server->ahead.room) {
        return 0;
    }

    /* clients come first */

    if (ngx_cycle->free_connection_n < ngx_cycle->connection_n / 8) {
        return 0;
    }

    attempts = ngx_http_reuse_warm_find_attempts(profile, server);

    if (attempts->failures) {

        if (connecting) {
            return 0;
        }

        wait = attempts->retry_at - ngx_current_msec;

        if (wait > 0) {
            *next = ngx_min(*next, (ngx_msec_t) wait);
            return 0;
        }
    }

    if (ngx_current_msec - attempts->wasted_since < 1000
        && attempts->wasted > wanted + 2)
    {
        *next = ngx_min(*next, attempts->wasted_since + 1000
                               - ngx_current_msec);
        return 0;
    }

    if (reuse_is_hopeless(warm, server)) {
        return 0;
    }

    if (warm->conf->warm == NGX_HTTP_UPSTREAM_REUSE_WARM_AUTO
        && server->ahead.credit <= 0)
    {
        server->record->unpaid = ngx_current_msec;
        return 0;
    }

    return 1;
}


/* What is closed as soon as it is there is not opened. */

static ngx_uint_t
reuse_is_hopeless(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server)
{
    size_t      len;
    u_char      text[NGX_SOCKADDR_STRLEN];
    ngx_str_t   upstream;
    ngx_msec_t  limit;

    limit = ngx_http_upstream_reuse_unused_limit(warm->conf, server);

    if (limit > NGX_HTTP_REUSE_WARM_HOPELESS
                + 8 * server->learned->rtt / 1000)
    {
        server->ahead.hopeless = 0;
        return 0;
    }

    if (!server->ahead.hopeless) {
        server->ahead.hopeless = 1;

        ngx_http_upstream_reuse_name_record(server->record, &upstream, text,
                                            &len);

        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "server %*s of upstream \"%V\" is not kept warm: "
                      "connections to it that carry no request last only "
                      "%M ms", len, text, &upstream, limit);
    }

    return 1;
}


/*
 * Has the keepalive module close the idle connection that ends first, if it
 * will within so many milliseconds; or else one that is parked.  Those that
 * are ready stay.
 */

static ngx_uint_t
reuse_retire(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t most)
{
    ngx_msec_t                       ahead, left, least;
    ngx_queue_t                     *q;
    ngx_http_upstream_reuse_conn_t  *conn, *found;

    found = NULL;
    least = 0;
    ahead = reuse_ahead_of(warm, server);

    for (q = ngx_queue_head(&warm->idle);
         q != ngx_queue_sentinel(&warm->idle);
         q = ngx_queue_next(q))
    {
        conn = ngx_queue_data(q, ngx_http_upstream_reuse_conn_t, queue);

        if (conn->profile != profile
            || conn->server != server
            || conn->outlives)
        {
            continue;
        }

        left = ngx_http_upstream_reuse_left(conn);

        if (left > ahead + conn->early) {
            continue;
        }

        if (found == NULL || left < least) {
            found = conn;
            least = left;
        }
    }

    if (found == NULL || least > most) {
        return server->ahead.planner
               && server->ahead.ending
               && ngx_http_upstream_reuse_retire_parked(warm->conf, server,
                                                        ngx_min(most, ahead));
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, found->connection->log, 0,
                   "upstream reuse: connection %p is replaced",
                   found->connection);

    if (found->on_timeout != NGX_HTTP_UPSTREAM_REUSE_CLOSE_AGE) {
        found->on_timeout = NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED;
    }

    ngx_http_upstream_reuse_pool_remove(found->connection);

    return 1;
}
