
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The pool of idle connections, which is nginx's keepalive module.  How it
 * works is known here, in pool_conf and in selftest, and nowhere else.
 *
 * The module looks for an idle connection by the bytes of the peer's address.
 * Where it was added by us, we have functions on its either side: between them
 * the address has the identity behind it, so that connections of several
 * identities are kept side by side.
 */


#include "ngx_http_upstream_reuse_pool.h"


/* bytes, in which most of such a request has room */
#define NGX_HTTP_UPSTREAM_REUSE_PLACING  8192


/*
 * A request that never goes through core: what the module wants to see when a
 * connection is put into the pool that no request has opened.  The balancer
 * below it has one server, whose address is nobody's, so that the pool has no
 * connection to it.
 */

typedef struct {
    ngx_http_request_t               request;
    ngx_connection_t                 client;
    ngx_http_upstream_t              upstream;
    ngx_http_upstream_state_t        state;
    ngx_http_upstream_reuse_peer_t   peer;

    ngx_http_upstream_srv_conf_t     uscf;
    ngx_http_upstream_rr_peers_t     servers;
    ngx_http_upstream_rr_peer_t      server;
    struct sockaddr                  nowhere;
} reuse_placing_t;


static ngx_int_t reuse_init(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_srv_conf_t *us, ngx_http_upstream_init_peer_pt init);
static ngx_int_t reuse_balancer_get(ngx_peer_connection_t *pc, void *data);
static void reuse_balancer_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
#if !(NGX_HTTP_MYPROXY_TWO_STEPS)
static void reuse_balancer_notify(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t type);
#endif
static ngx_int_t reuse_init_placing(reuse_placing_t *placing);
static void reuse_make_pool_key(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);
static void reuse_set_key(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);
static void reuse_restore_address(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);


/*
 * worker: the connection that the module is being given.  It may close another
 * one meanwhile, whose cleanup has to know that this is why.
 */

static ngx_connection_t  *reuse_being_put;


ngx_int_t
ngx_http_upstream_reuse_pool_init(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_srv_conf_t *us)
{
    return reuse_init(rp, us, rp->conf->init_peer);
}


/*
 * The module calls init_balancer() with the request alone, so the peer stands
 * in the place of our context of the request meanwhile.
 */

static ngx_int_t
reuse_init(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_srv_conf_t *us, ngx_http_upstream_init_peer_pt init)
{
    void                *ctx;
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = rp->request;

    ctx = ngx_http_get_module_ctx(r, ngx_http_upstream_reuse_module);

    ngx_http_set_ctx(r, rp, ngx_http_upstream_reuse_module);

    rc = init(r, us);

    ngx_http_set_ctx(r, ctx, ngx_http_upstream_reuse_module);

    return rc;
}


ngx_int_t
ngx_http_upstream_reuse_pool_init_balancer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_peer_connection_t           *pc;
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = ngx_http_get_module_ctx(r, ngx_http_upstream_reuse_module);

#if (NGX_HTTP_MYPROXY_TWO_STEPS)

    if (r->upstream->peer.type == SOCK_DGRAM) {
        return rp->conf->init_balancer(r, us);
    }

#endif

    if (rp->placing) {

        /* the server has been chosen, and there is no client to look at */

        if (ngx_http_upstream_init_round_robin_peer(r, us) != NGX_OK) {
            return NGX_ERROR;
        }

    } else if (rp->conf->init_balancer(r, us) != NGX_OK) {
        return NGX_ERROR;
    }

    pc = &r->upstream->peer;

    ngx_http_upstream_reuse_save_hooks(&rp->balancer, pc);

    pc->get = reuse_balancer_get;
    pc->free = reuse_balancer_free;

#if !(NGX_HTTP_MYPROXY_TWO_STEPS)

    pc->data = rp;

    if (pc->notify) {
        pc->notify = reuse_balancer_notify;
    }

#endif

    return NGX_OK;
}


void
ngx_http_upstream_reuse_save_hooks(ngx_http_upstream_reuse_hooks_t *hooks,
    ngx_peer_connection_t *pc)
{
    hooks->data = pc->data;
    hooks->get = pc->get;
    hooks->free = pc->free;
    hooks->notify = pc->notify;
}


ngx_int_t
ngx_http_upstream_reuse_pool_take(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc)
{
    ngx_int_t  rc;

    rp->key.made_of = NULL;

    rc = rp->next.get(pc, rp->next.data);

#if (NGX_HTTP_MYPROXY_TWO_STEPS)

    if (rc == NGX_OK && rp->connect && !rp->placing) {

        if (rp->key.address == NULL) {
            reuse_make_pool_key(pc, rp);
            reuse_set_key(pc, rp);
        }

        if (rp->key.made_of) {
            rc = ngx_http_upstream_reuse_ask_pool(pc, rp->connect);
        }
    }

#endif

    reuse_restore_address(pc, rp);

    return rc;
}


static ngx_int_t
reuse_balancer_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_int_t                        rc;
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = ngx_http_upstream_reuse_peer_of(pc, data);

    rc = rp->balancer.get(pc, rp->balancer.data);

    if (rc == NGX_OK) {
        reuse_make_pool_key(pc, rp);
        reuse_set_key(pc, rp);
    }

    return rc;
}


ngx_int_t
ngx_http_upstream_reuse_pool_put(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc, ngx_uint_t state)
{
    ngx_connection_t  *c;

    c = pc->connection;

    reuse_being_put = c;

#if (NGX_HTTP_MYPROXY_TWO_STEPS)

    rp->next.free(pc, rp->next.data, state);

    if (rp->close) {
        reuse_make_pool_key(pc, rp);
        reuse_set_key(pc, rp);

        if (rp->key.made_of) {
            rp->close(pc, rp->next.data, state);
        }
    }

#else

    if (rp->balancer.free) {

        if (rp->key.made_of != pc->sockaddr) {
            reuse_make_pool_key(pc, rp);
        }

        reuse_set_key(pc, rp);
    }

    rp->next.free(pc, rp->next.data, state);

#endif

    reuse_being_put = NULL;

    reuse_restore_address(pc, rp);

    if (c == NULL || pc->connection) {
        return NGX_DECLINED;
    }

    return (c->fd == (ngx_socket_t) -1) ? NGX_DONE : NGX_OK;
}


ngx_http_upstream_reuse_peer_t *
ngx_http_upstream_reuse_pool_create_peer(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_identity_t *id, ngx_http_upstream_conf_t *conf,
    ngx_http_conf_ctx_t *ctx, ngx_log_t *log)
{
    ngx_pool_t                      *pool;
    reuse_placing_t                 *placing;
    ngx_http_request_t              *r;
    ngx_http_upstream_t             *u;
    ngx_http_upstream_reuse_peer_t  *rp;

    pool = ngx_create_pool(NGX_HTTP_UPSTREAM_REUSE_PLACING, log);
    if (pool == NULL) {
        return NULL;
    }

    placing = ngx_pcalloc(pool, sizeof(reuse_placing_t));
    if (placing == NULL) {
        goto failed;
    }

    r = &placing->request;
    u = &placing->upstream;
    rp = &placing->peer;

    placing->client.log = log;

    r->connection = &placing->client;
    r->main = r;
    r->pool = pool;
    r->upstream = u;
    r->main_conf = ctx->main_conf;
    r->srv_conf = ctx->srv_conf;
    r->loc_conf = ctx->loc_conf;

    r->ctx = ngx_pcalloc(pool, sizeof(void *) * ngx_http_max_module);
    if (r->ctx == NULL) {
        goto failed;
    }

    /*
     * As after a response, with the settings by which pools are told apart;
     * but none whose time could be measured.
     */

    placing->state.connect_time = (ngx_msec_t) -1;
    placing->state.header_time = (ngx_msec_t) -1;
    placing->state.response_time = (ngx_msec_t) -1;

    u->conf = conf;
    u->upstream = rcf->uscf;
    u->state = &placing->state;
    u->keepalive = 1;
    u->request_sent = 1;
    u->request_body_sent = 1;
    u->peer.log = log;

    rp->request = r;
    rp->upstream = u;
    rp->conf = rcf;
    rp->identity = id;
    rp->location = conf;
    rp->key.hash = (uint32_t) id->hash;
    rp->placing = 1;

    if (reuse_init_placing(placing) != NGX_OK) {
        goto failed;
    }

    return rp;

failed:

    ngx_destroy_pool(pool);

    return NULL;
}


static ngx_int_t
reuse_init_placing(reuse_placing_t *placing)
{
    ngx_peer_connection_t           *pc;
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = &placing->peer;
    pc = &placing->upstream.peer;

    placing->nowhere.sa_family = AF_UNSPEC;

    placing->server.sockaddr = &placing->nowhere;
    placing->server.socklen = sizeof(struct sockaddr);
    placing->server.name = rp->conf->name;
    placing->server.weight = 1;
    placing->server.effective_weight = 1;

    placing->servers.number = 1;
    placing->servers.single = 1;
    placing->servers.total_weight = 1;
    placing->servers.tries = 1;
    placing->servers.name = &rp->conf->name;
    placing->servers.peer = &placing->server;

    placing->uscf = *rp->conf->uscf;
    placing->uscf.peer.data = &placing->servers;

#if (NGX_HTTP_MYPROXY_TWO_STEPS)

    pc->ctx = &placing->request;

    if (ngx_http_upstream_reuse_mark_peer(rp) != NGX_OK) {
        return NGX_ERROR;
    }

#endif

    /* what stands above the module may look at a client */

    if (reuse_init(rp, &placing->uscf, rp->conf->init_pool) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_upstream_reuse_save_hooks(&rp->next, pc);

#if (NGX_HTTP_MYPROXY_TWO_STEPS)
    rp->close = pc->close;
#endif

    return ngx_http_upstream_reuse_pool_take(rp, pc);
}


ngx_uint_t
ngx_http_upstream_reuse_pool_evicts(ngx_connection_t *c)
{
    return reuse_being_put && reuse_being_put != c;
}


/* The module closes a connection whose time is over without looking at it. */

void
ngx_http_upstream_reuse_pool_remove(ngx_connection_t *c)
{
    ngx_event_t  *rev;

    rev = c->read;

    rev->timedout = 1;
    rev->handler(rev);
}


void
ngx_http_upstream_reuse_close(ngx_connection_t *c)
{
#if (NGX_HTTP_SSL)

    if (c->ssl) {
        c->ssl->no_wait_shutdown = 1;
        c->ssl->no_send_shutdown = 1;

        (void) ngx_ssl_shutdown(c);
    }

#endif

    ngx_destroy_pool(c->pool);
    ngx_close_connection(c);
}


static void
reuse_balancer_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = ngx_http_upstream_reuse_peer_of(pc, data);

    reuse_restore_address(pc, rp);

    rp->balancer.free(pc, rp->balancer.data, state);
}


#if !(NGX_HTTP_MYPROXY_TWO_STEPS)

static void
reuse_balancer_notify(ngx_peer_connection_t *pc, void *data, ngx_uint_t type)
{
    ngx_http_upstream_reuse_peer_t  *rp = data;

    rp->balancer.notify(pc, rp->balancer.data, type);
}

#endif


/*
 * It need not be exact: a connection that is found is compared with care.  An
 * address of a unix socket leaves no room, so its end is overwritten.
 */

static void
reuse_make_pool_key(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp)
{
    size_t                          len;
    u_char                         *p;
    uint32_t                        hash;
    ngx_http_upstream_reuse_key_t  *key;

    key = &rp->key;
    hash = key->hash;

    if (pc->sockaddr == NULL
        || pc->socklen > (socklen_t) sizeof(ngx_sockaddr_t))
    {
        key->made_of = NULL;
        return;
    }

    len = ngx_min(pc->socklen, sizeof(ngx_sockaddr_t) - sizeof(uint32_t));

    if (len + sizeof(uint32_t) <= sizeof(key->space)) {
        key->sockaddr = (struct sockaddr *) key->space;

    } else if (key->sockaddr == NULL
               || key->sockaddr == (struct sockaddr *) key->space)
    {
        key->sockaddr = ngx_palloc(rp->request->pool, sizeof(ngx_sockaddr_t));
        if (key->sockaddr == NULL) {
            key->made_of = NULL;
            return;
        }
    }

    p = (u_char *) key->sockaddr;

    if (len < pc->socklen) {
        hash ^= ngx_crc32_short((u_char *) pc->sockaddr, pc->socklen);
    }

    ngx_memcpy(p, pc->sockaddr, len);

#if (NGX_HTTP_MYPROXY_TWO_STEPS)
    key->sockaddr->sa_family = AF_UNSPEC;
#endif

    ngx_memcpy(p + len, &hash, sizeof(uint32_t));

    key->made_of = pc->sockaddr;
    key->len = len + sizeof(uint32_t);
}


/* The pool sees the key instead of the address. */

static void
reuse_set_key(ngx_peer_connection_t *pc, ngx_http_upstream_reuse_peer_t *rp)
{
    if (rp->key.made_of == NULL) {
        return;
    }

    rp->key.address = pc->sockaddr;
    rp->key.address_len = pc->socklen;

    pc->sockaddr = rp->key.sockaddr;
    pc->socklen = rp->key.len;
}


static void
reuse_restore_address(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp)
{
    if (rp->key.address) {
        pc->sockaddr = rp->key.address;
        pc->socklen = rp->key.address_len;
        rp->key.address = NULL;
    }
}
