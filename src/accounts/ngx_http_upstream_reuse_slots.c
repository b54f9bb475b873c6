
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * How many connections a server has, in all workers: those that were opened
 * less those that are no more.  One that is counted as closed is open until
 * its event is over, so it is counted as ended after that.
 */


#include "ngx_http_upstream_reuse_accounts.h"


static void reuse_end_closing(ngx_http_upstream_reuse_server_t *server);
static void reuse_closing_handler(ngx_event_t *ev);
static ngx_uint_t reuse_count_open(ngx_http_upstream_reuse_server_t *server);
static ngx_uint_t reuse_count_parked(ngx_http_upstream_reuse_server_t *server);
static ngx_uint_t reuse_is_server(ngx_http_upstream_server_t *server,
    ngx_str_t *address, ngx_str_t *name);
static ngx_str_t *reuse_find_name(ngx_http_upstream_srv_conf_t *uscf,
    ngx_str_t *address);


/* worker: servers of which connections are about to be closed */

static ngx_queue_t  reuse_closing;
static ngx_event_t  reuse_closing_event;


void (*ngx_http_upstream_reuse_freed)(
    ngx_http_upstream_reuse_server_t *server);


void
ngx_http_upstream_reuse_count_closed(ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_reuse_close_e reason)
{
    server->tally->counters[NGX_HTTP_UPSTREAM_REUSE_CLOSED + reason]++;

    if (server->limited == NULL) {
        server->tally->ended++;
        return;
    }

    if (server->closing++) {
        return;
    }

    if (reuse_closing_event.handler == NULL) {
        ngx_queue_init(&reuse_closing);
        reuse_closing_event.handler = reuse_closing_handler;
        reuse_closing_event.log = ngx_cycle->log;
    }

    ngx_queue_insert_tail(&reuse_closing, &server->queue);

    if (!reuse_closing_event.posted) {
        ngx_post_event(&reuse_closing_event, &ngx_posted_events);
    }
}


static void
reuse_closing_handler(ngx_event_t *ev)
{
    ngx_queue_t                       *q;
    ngx_http_upstream_reuse_server_t  *server;

    while (!ngx_queue_empty(&reuse_closing)) {

        q = ngx_queue_head(&reuse_closing);
        server = ngx_queue_data(q, ngx_http_upstream_reuse_server_t, queue);

        reuse_end_closing(server);
    }
}


static void
reuse_end_closing(ngx_http_upstream_reuse_server_t *server)
{
    if (server->closing == 0) {
        return;
    }

    ngx_queue_remove(&server->queue);

    server->tally->ended += server->closing;
    server->closing = 0;

    if (ngx_http_upstream_reuse_freed) {
        ngx_http_upstream_reuse_freed(server);
    }
}


ngx_uint_t
ngx_http_upstream_reuse_open_slot(ngx_http_upstream_reuse_server_t *server,
    ngx_uint_t ahead)
{
    ngx_uint_t                           room;
    ngx_slab_pool_t                     *shpool;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = server->limited;

    if (rcf == NULL) {
        ngx_http_upstream_reuse_count(server, OPENED);
        return 1;
    }

    if (ahead) {

        if (rcf->waiters->queue->waiting) {
            return 0;
        }

    } else {

        /* nothing that a request has been through is open any more */

        reuse_end_closing(server);
    }

    shpool = (ngx_slab_pool_t *) rcf->main->zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    room = (reuse_count_open(server) < server->most);

    if (room) {
        ngx_http_upstream_reuse_count(server, OPENED);
    }

    ngx_shmtx_unlock(&shpool->mutex);

    return room;
}


/*
 * Others may close connections meanwhile, so ends are read first: there may
 * seem to be one too many, and never too few.  Only a worker that is killed
 * just as it parks a connection leaves an end too many: from then on one more
 * may be open, but the server must not seem to be full for ever.
 */

static ngx_uint_t
reuse_count_open(ngx_http_upstream_reuse_server_t *server)
{
    ngx_atomic_uint_t                  opened, ended;
    ngx_http_upstream_reuse_tally_t   *tally;
    ngx_http_upstream_reuse_record_t  *record;

    record = server->record;

    ended = record->ended;

    for (tally = record->tallies; tally; tally = tally->next) {
        ended += (int32_t) *(volatile uint32_t *) &tally->ended;
    }

    ngx_memory_barrier();

    opened = record->counters[NGX_HTTP_UPSTREAM_REUSE_OPENED];

    for (tally = record->tallies; tally; tally = tally->next) {
        opened += (int32_t) *(volatile uint32_t *)
                      &tally->counters[NGX_HTTP_UPSTREAM_REUSE_OPENED];
    }

    opened -= ended;

    return ((ngx_atomic_int_t) opened < 0) ? 0 : opened;
}


ngx_uint_t
ngx_http_upstream_reuse_has_slot(ngx_http_upstream_reuse_server_t *server)
{
    return reuse_count_open(server) < server->most
           || reuse_count_parked(server);
}


static ngx_uint_t
reuse_count_parked(ngx_http_upstream_reuse_server_t *server)
{
    ngx_atomic_uint_t                  n;
    ngx_http_upstream_reuse_tally_t   *tally;
    ngx_http_upstream_reuse_record_t  *record;

    record = server->record;

    n = record->counters[NGX_HTTP_UPSTREAM_REUSE_HANDED_OVER]
        - record->counters[NGX_HTTP_UPSTREAM_REUSE_TAKEN_OVER]
        - record->counters[NGX_HTTP_UPSTREAM_REUSE_SWEPT];

    for (tally = record->tallies; tally; tally = tally->next) {
        n += (int32_t)
             (tally->counters[NGX_HTTP_UPSTREAM_REUSE_HANDED_OVER]
              - tally->counters[NGX_HTTP_UPSTREAM_REUSE_TAKEN_OVER]
              - tally->counters[NGX_HTTP_UPSTREAM_REUSE_SWEPT]);
    }

    return ((ngx_atomic_int_t) n < 0) ? 0 : n;
}


void
ngx_http_upstream_reuse_limit_server(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *known)
{
    if (rcf->waiters) {
        known->limited = rcf;
        known->most = ngx_http_upstream_reuse_find_most(rcf,
                                                        &known->node.str);
    }
}


ngx_uint_t
ngx_http_upstream_reuse_find_most(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_str_t *address)
{
    ngx_str_t                   *name;
    ngx_uint_t                   i;
    ngx_http_upstream_server_t  *server;

    if (rcf->uscf->servers == NULL || rcf->reuse != 1) {
        return rcf->limit;
    }

    server = rcf->uscf->servers->elts;

    for (i = 0; i < rcf->uscf->servers->nelts; i++) {
        if (server[i].max_conns) {
            break;
        }
    }

    if (i == rcf->uscf->servers->nelts) {
        return rcf->limit;
    }

    name = reuse_find_name(rcf->uscf, address);

    for ( /* void */ ; i < rcf->uscf->servers->nelts; i++) {

        if (server[i].max_conns
            && reuse_is_server(&server[i], address, name))
        {
            return server[i].max_conns;
        }
    }

    return rcf->limit;
}


static ngx_uint_t
reuse_is_server(ngx_http_upstream_server_t *server, ngx_str_t *address,
    ngx_str_t *name)
{
    ngx_uint_t  i;

    if (name) {
        return name->len == server->name.len
               && ngx_memcmp(name->data, server->name.data, name->len) == 0;
    }

    for (i = 0; i < server->naddrs; i++) {

        if (server->addrs[i].socklen == (socklen_t) address->len
            && ngx_memcmp(server->addrs[i].sockaddr, address->data,
                          address->len)
               == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* What stands in the line of a server, whose addresses may have changed. */

static ngx_str_t *
reuse_find_name(ngx_http_upstream_srv_conf_t *uscf, ngx_str_t *address)
{
    ngx_str_t                     *name;
    ngx_uint_t                     i;
    ngx_http_upstream_server_t    *server;
    ngx_http_upstream_rr_peer_t   *peer;
    ngx_http_upstream_rr_peers_t  *peers;

    if (!ngx_http_upstream_reuse_has_round_robin(uscf)) {
        return NULL;
    }

    name = NULL;
    server = uscf->servers->elts;
    peers = uscf->peer.data;

    for ( /* void */ ; peers && name == NULL; peers = peers->next) {

        /* backup servers have a lock of their own */

        ngx_http_upstream_rr_peers_rlock(peers);

        for (peer = peers->peer; peer && name == NULL; peer = peer->next) {

            if (peer->socklen != (socklen_t) address->len
                || ngx_memcmp(peer->sockaddr, address->data, peer->socklen)
                   != 0)
            {
                continue;
            }

            for (i = 0; i < uscf->servers->nelts; i++) {
                if (server[i].name.len
                    && server[i].name.len == peer->server.len
                    && ngx_memcmp(server[i].name.data, peer->server.data,
                                  peer->server.len)
                       == 0)
                {
                    name = &server[i].name;
                    break;
                }
            }
        }

        ngx_http_upstream_rr_peers_unlock(peers);
    }

    return name;
}
