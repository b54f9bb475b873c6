
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Angie chooses a peer in one step and connects to it in the next, and gives
 * both back likewise.  The pool has a part in the second steps only, and
 * pc->data is the balancer's for whoever reads it.
 */


#include "ngx_http_upstream_reuse_pool.h"


#if (NGX_HTTP_MYPROXY_TWO_STEPS)


static void reuse_mark(void *data);
static ngx_int_t reuse_connect(ngx_peer_connection_t *pc, void *data);
static void reuse_close(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);


ngx_int_t
ngx_http_upstream_reuse_mark_peer(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(rp->request->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = reuse_mark;
    cln->data = rp;

    return NGX_OK;
}


/* By this we find what is ours; there is nothing to be cleaned up. */

static void
reuse_mark(void *data)
{
}


/* Subrequests have the pool in common. */

ngx_http_upstream_reuse_peer_t *
ngx_http_upstream_reuse_find_marked(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t              *cln;
    ngx_http_upstream_reuse_peer_t  *rp;

    for (cln = r->pool->cleanup; cln; cln = cln->next) {

        if (cln->handler != reuse_mark) {
            continue;
        }

        rp = cln->data;

        if (rp->upstream == r->upstream) {
            return rp;
        }
    }

    return NULL;
}


void
ngx_http_upstream_reuse_stand_between(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc)
{
    rp->connect = pc->connect;
    rp->close = pc->close;

    pc->connect = reuse_connect;
    pc->close = reuse_close;

    /* Angie's balancers set it, and others may not */

    pc->ctx = rp->request;
}


/* The pool has been asked when the peer was chosen. */

static ngx_int_t
reuse_connect(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = ngx_http_upstream_reuse_find_marked(pc->ctx);

    if (!rp->chosen) {

        /* core has closed the connection, and opens another to the peer */

        rp->begin_anew(rp);
    }

    rp->chosen = 0;

    return pc->connection ? NGX_OK : ngx_event_connect(pc, data);
}


/* What the pool keeps was given to it when the peer was given back. */

static void
reuse_close(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
}


/*
 * Of itself, the pool opens a connection if it has none.  It cannot, as the
 * key is of no family, and this is not worth a line in the log.
 */

ngx_int_t
ngx_http_upstream_reuse_ask_pool(ngx_peer_connection_t *pc,
    ngx_event_connect_peer_pt connect)
{
    ngx_int_t          rc;
    ngx_log_t         *log;
    ngx_connection_t  *c;

    static ngx_log_t   silent;

    log = pc->log;

    pc->log = &silent;
    pc->connection = NULL;
    pc->cached = 0;

    rc = connect(pc, pc->data);

    pc->log = log;

    c = pc->connection;

    if (rc != NGX_OK || c == NULL) {
        return NGX_OK;
    }

    c->log = log;
    c->read->log = log;
    c->write->log = log;
    c->pool->log = log;

    return NGX_DONE;
}


#endif
