
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The keepalive module looks for an idle connection by the bytes of the
 * peer's address.  Where it was added by us, there is a layer on its either
 * side: between them the address has the identity behind it, so that
 * connections of several identities are kept side by side.
 */


#include "ngx_http_upstream_reuse.h"


static ngx_int_t reuse_balancer_get(ngx_peer_connection_t *pc, void *data);
static void reuse_balancer_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static void reuse_make_key(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);
static void reuse_set_key(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);
static void reuse_restore_address(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);


/*
 * worker: the peer whose get, free or init is being called.  The data of the
 * layer below cannot tell, since it is the balancer's.
 */

static ngx_http_upstream_reuse_peer_t  *reuse_current;

/* worker: the connection that the pool is being given */

static ngx_connection_t  *reuse_pooled;


ngx_int_t
ngx_http_upstream_reuse_init_pool(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us, ngx_http_upstream_reuse_peer_t *rp)
{
    reuse_current = rp;

    return rp->conf->init_peer(r, us);
}


ngx_int_t
ngx_http_upstream_reuse_init_balancer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_peer_connection_t           *pc;
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = reuse_current;

    if (rp->opening) {

        /* the server has been chosen, and there is no client to look at */

        if (ngx_http_upstream_init_round_robin_peer(r, us) != NGX_OK) {
            return NGX_ERROR;
        }

    } else if (rp->conf->init_balancer(r, us) != NGX_OK) {
        return NGX_ERROR;
    }

    pc = &r->upstream->peer;

    rp->balancer_get = pc->get;
    rp->balancer_free = pc->free;

    pc->get = reuse_balancer_get;
    pc->free = reuse_balancer_free;

    return NGX_OK;
}


ngx_int_t
ngx_http_upstream_reuse_get_from_pool(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_int_t  rc;

    reuse_current = rp;
    rp->keyed = NULL;

    rc = rp->get(pc, rp->data);

    reuse_restore_address(pc, rp);

    return rc;
}


static ngx_int_t
reuse_balancer_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_int_t                        rc;
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = reuse_current;

    rc = rp->balancer_get(pc, data);

    if (rc == NGX_OK) {
        reuse_make_key(pc, rp);
        reuse_set_key(pc, rp);
    }

    return rc;
}


void
ngx_http_upstream_reuse_free_to_pool(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp, ngx_uint_t state)
{
    reuse_current = rp;

    if (rp->balancer_free) {

        if (rp->keyed != pc->sockaddr) {
            reuse_make_key(pc, rp);
        }

        reuse_set_key(pc, rp);
    }

    reuse_pooled = pc->connection;

    rp->free(pc, rp->data, state);

    reuse_pooled = NULL;

    reuse_restore_address(pc, rp);
}


ngx_uint_t
ngx_http_upstream_reuse_is_pooling(ngx_connection_t *c)
{
    return reuse_pooled && reuse_pooled != c;
}


static void
reuse_balancer_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = reuse_current;

    reuse_restore_address(pc, rp);

    rp->balancer_free(pc, data, state);
}


/*
 * It need not be exact: a connection that is found is compared with care.  An
 * address of a unix socket leaves no room, so its end is overwritten.
 */

static void
reuse_make_key(ngx_peer_connection_t *pc, ngx_http_upstream_reuse_peer_t *rp)
{
    size_t     len;
    u_char    *key;
    uint32_t   hash;

    hash = rp->hash;

    if (pc->sockaddr == NULL
        || pc->socklen > (socklen_t) sizeof(ngx_sockaddr_t))
    {
        rp->keyed = NULL;
        return;
    }

    len = ngx_min(pc->socklen, sizeof(ngx_sockaddr_t) - sizeof(uint32_t));

    if (len + sizeof(uint32_t) <= sizeof(rp->space)) {
        rp->key = (struct sockaddr *) rp->space;

    } else if (rp->key == NULL || rp->key == (struct sockaddr *) rp->space) {

        rp->key = ngx_palloc(rp->request->pool, sizeof(ngx_sockaddr_t));
        if (rp->key == NULL) {
            rp->keyed = NULL;
            return;
        }
    }

    key = (u_char *) rp->key;

    if (len < pc->socklen) {
        hash ^= ngx_crc32_short((u_char *) pc->sockaddr, pc->socklen);
    }

    ngx_memcpy(key, pc->sockaddr, len);
    ngx_memcpy(key + len, &hash, sizeof(uint32_t));

    rp->keyed = pc->sockaddr;
    rp->key_len = len + sizeof(uint32_t);
}


/* The pool sees the key instead of the address. */

static void
reuse_set_key(ngx_peer_connection_t *pc, ngx_http_upstream_reuse_peer_t *rp)
{
    if (rp->keyed == NULL) {
        return;
    }

    rp->address = pc->sockaddr;
    rp->address_len = pc->socklen;

    pc->sockaddr = rp->key;
    pc->socklen = rp->key_len;
}


static void
reuse_restore_address(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp)
{
    if (rp->address) {
        pc->sockaddr = rp->address;
        pc->socklen = rp->address_len;
        rp->address = NULL;
    }
}
