
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What is known of a connection, from when it is first kept until it is
 * closed.
 */


#include "ngx_http_upstream_reuse.h"


static ngx_http_upstream_reuse_kept_t *reuse_create_kept(
    ngx_http_upstream_reuse_peer_t *rp, ngx_peer_connection_t *pc);
static void reuse_cleanup_kept(void *data);
#if (NGX_HTTP_SSL)
static ngx_uint_t reuse_is_read(ngx_connection_t *c);
#endif


ngx_http_upstream_reuse_kept_t *
ngx_http_upstream_reuse_keep(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc)
{
    ngx_connection_t                *c;
    ngx_http_upstream_reuse_kept_t  *kept;

    c = pc->connection;

    if (ngx_http_upstream_reuse_is_authenticated(rp->request)) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "upstream reuse: connection belongs to one client");
        rp->explained = NGX_HTTP_UPSTREAM_REUSE_FATE_AUTHENTICATED;
        return NULL;
    }

#if (NGX_HTTP_SSL)
    if (c->ssl && !reuse_is_read(c)) {
        rp->explained = NGX_HTTP_UPSTREAM_REUSE_FATE_EXCESS;
        return NULL;
    }
#endif

    kept = rp->kept;

    if (kept == NULL) {
        kept = reuse_create_kept(rp, pc);
        if (kept == NULL) {
            rp->explained = NGX_HTTP_UPSTREAM_REUSE_FATE_ERROR;
            return NULL;
        }
    }

    kept->sent += c->sent - rp->sent;

    kept->limit = rp->server->limit;

    if (!ngx_http_upstream_reuse_read_hint(rp, kept)) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "upstream reuse: the origin is about to close");
        rp->explained = NGX_HTTP_UPSTREAM_REUSE_FATE_ANNOUNCED;
        return NULL;
    }

    if (rp->conf->warmth && !rp->around) {

        if (rp->kind == NULL) {
            rp->kind = ngx_http_upstream_reuse_learn_kind(rp);
        }

        kept->kind = rp->kind;
    }

    kept->peer = NULL;
    kept->since = ngx_current_msec;
    kept->idle = 1;

    return kept;
}


static ngx_http_upstream_reuse_kept_t *
reuse_create_kept(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc)
{
    size_t                           len;
    ngx_connection_t                *c;
    ngx_pool_cleanup_t              *cln;
    ngx_http_upstream_reuse_kept_t  *kept;

    c = pc->connection;

    len = ngx_http_upstream_reuse_identity_size(rp->identity);

    cln = ngx_pool_cleanup_add(c->pool,
                               sizeof(ngx_http_upstream_reuse_kept_t) + len);
    if (cln == NULL) {
        return NULL;
    }

    kept = cln->data;
    ngx_memzero(kept, sizeof(ngx_http_upstream_reuse_kept_t));

    cln->handler = reuse_cleanup_kept;

    kept->connection = c;
    kept->conf = rp->conf;

    ngx_http_upstream_reuse_copy_identity(&kept->identity, rp->identity,
                                          (u_char *) (kept + 1));

    kept->server = rp->server;
    kept->limit = rp->server->limit;

    rp->rtt = ngx_http_upstream_reuse_measure(kept);

    return kept;
}


ngx_http_upstream_reuse_kept_t *
ngx_http_upstream_reuse_find_kept(ngx_connection_t *c)
{
    ngx_pool_cleanup_t  *cln;

    for (cln = c->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == reuse_cleanup_kept) {
            return cln->data;
        }
    }

    return NULL;
}


static void
reuse_cleanup_kept(void *data)
{
    ngx_http_upstream_reuse_kept_t  *kept = data;

    ngx_int_t          ended;
    ngx_msec_t         age;
    ngx_connection_t  *c;

    if (kept->queued) {
        ngx_http_upstream_reuse_end_idle(kept);
    }

    if (!kept->idle) {
        return;
    }

    c = kept->connection;

    age = ngx_current_msec - kept->since;

    if (c->close || ngx_exiting || ngx_terminate) {
        ended = NGX_AGAIN;

    } else if (kept->heard) {
        ended = kept->ended;

        if (ended == NGX_OK) {
            ngx_http_upstream_reuse_note_closed(kept, age);
        }

    } else {
        ended = ngx_http_upstream_reuse_note_end(kept, age);
    }

    ngx_http_upstream_reuse_count_idle_closed(kept, ended);
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


#if (NGX_HTTP_SSL)

/*
 * The keepalive module looks at the socket, not at what OpenSSL has read from
 * it.  That may be session tickets, which are no harm, or more of a response.
 */

static ngx_uint_t
reuse_is_read(ngx_connection_t *c)
{
    int    n;
    char   buf[1];
    SSL   *ssl;

    ssl = c->ssl->connection;

    if (!ngx_http_myproxy_ssl_pending(ssl)) {
        return 1;
    }

    ERR_clear_error();

    n = SSL_peek(ssl, buf, 1);

    if (n <= 0 && SSL_get_error(ssl, n) == SSL_ERROR_WANT_READ
        && !ngx_http_myproxy_ssl_pending(ssl))
    {
        return 1;
    }

    ERR_clear_error();

    if (n > 0) {
        ngx_log_error(NGX_LOG_WARN, c->log, 0,
                      "upstream sent data after the end of the response");
    }

    return 0;
}

#endif
