
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * TLS sessions of connections that are opened ahead: they are kept where core
 * keeps those of the same server, and come when no request is there.
 */


#include "ngx_http_upstream_reuse.h"


#if (NGX_HTTP_SSL)


typedef void (*reuse_save_session_pt)(ngx_connection_t *c);


static int reuse_peek(SSL *ssl);
static void reuse_save_ticket(ngx_connection_t *c);
static ngx_uint_t reuse_lock_peer(ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_rr_peer_data_t *rrp);


ngx_int_t
ngx_http_upstream_reuse_read_tickets(ngx_http_upstream_reuse_kept_t *kept)
{
    ngx_int_t               rc;
    ngx_connection_t       *c;
    reuse_save_session_pt   save_session;

    c = kept->connection;

    /* what core does with a ticket takes a request */

    save_session = c->ssl->save_session;

    if (save_session) {
        c->ssl->save_session = reuse_save_ticket;
    }

    rc = ngx_http_upstream_reuse_drain(c);

    c->ssl->save_session = save_session;

    return rc;
}


ngx_int_t
ngx_http_upstream_reuse_drain(ngx_connection_t *c)
{
    int         n, err;
    SSL        *ssl;
    ngx_int_t   rc;

    ssl = c->ssl->connection;

    ERR_clear_error();

    n = reuse_peek(ssl);
    err = SSL_get_error(ssl, n);

    if (n > 0) {
        rc = NGX_DECLINED;

    } else if (err == SSL_ERROR_WANT_READ) {
        rc = ngx_http_myproxy_ssl_pending(ssl) ? NGX_BUSY : NGX_AGAIN;
        c->read->ready = 0;

    } else if (err == SSL_ERROR_ZERO_RETURN
               || (err == SSL_ERROR_SYSCALL && n == 0))
    {
        rc = NGX_OK;

    } else {
        rc = NGX_ERROR;
    }

    ERR_clear_error();

    return rc;
}


/*
 * Since OpenSSL 3.0 the end of TCP's stream without one of TLS's before it is
 * an error, after which a session is not resumed any more.  There is nothing
 * that could be cut off here, but for requests there is.
 */

static int
reuse_peek(SSL *ssl)
{
    int   n;
    char  buf[1];

#ifdef SSL_OP_IGNORE_UNEXPECTED_EOF

    uint64_t  options;

    options = SSL_get_options(ssl);

    SSL_set_options(ssl, SSL_OP_IGNORE_UNEXPECTED_EOF);

    n = SSL_peek(ssl, buf, 1);

    if (!(options & SSL_OP_IGNORE_UNEXPECTED_EOF)) {
        SSL_clear_options(ssl, SSL_OP_IGNORE_UNEXPECTED_EOF);
    }

#else

    n = SSL_peek(ssl, buf, 1);

#endif

    return n;
}


static void
reuse_save_ticket(ngx_connection_t *c)
{
    ngx_peer_connection_t            pc;
    ngx_http_upstream_reuse_kept_t  *kept;

    kept = ngx_http_upstream_reuse_find_kept(c);

    /* a handshake that the origin has begun anew was not looked at */

    if ((kept->identity.checks & 2)
        && (SSL_get_verify_result(c->ssl->connection) != X509_V_OK
            || ngx_ssl_check_host(c, &kept->identity.name) != NGX_OK))
    {
        return;
    }

    ngx_memzero(&pc, sizeof(ngx_peer_connection_t));

    pc.connection = c;
    pc.log = c->log;

    ngx_http_upstream_reuse_save_server_session(&pc,
                                                kept->conf->warmth->uscf,
                                                kept->server);
}


ngx_int_t
ngx_http_upstream_reuse_set_server_session(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_int_t                          rc;
    ngx_http_upstream_rr_peer_data_t   rrp;

    rc = NGX_OK;

    if (reuse_lock_peer(rp->uscf, rp->server, &rrp)) {
        rc = ngx_http_upstream_set_round_robin_peer_session(pc, &rrp);
    }

    ngx_http_upstream_rr_peers_unlock(rrp.peers);

    return rc;
}


void
ngx_http_upstream_reuse_save_server_session(ngx_peer_connection_t *pc,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_http_upstream_rr_peer_data_t  rrp;

    if (reuse_lock_peer(uscf, server, &rrp)) {
        ngx_http_upstream_save_round_robin_peer_session(pc, &rrp);
    }

    ngx_http_upstream_rr_peers_unlock(rrp.peers);
}


/*
 * Locks the peers of an upstream, and has a server be the one that was chosen.
 * Returns 0 if it is gone, as it may be when its name is resolved anew.
 */

static ngx_uint_t
reuse_lock_peer(ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_rr_peer_data_t *rrp)
{
    ngx_http_upstream_rr_peer_t  *peer;

    ngx_memzero(rrp, sizeof(ngx_http_upstream_rr_peer_data_t));

    rrp->peers = uscf->peer.data;

    ngx_http_upstream_rr_peers_rlock(rrp->peers);

    for (peer = rrp->peers->peer; peer; peer = peer->next) {

        if (ngx_memn2cmp((u_char *) peer->sockaddr, server->node.str.data,
                         peer->socklen, server->node.str.len)
            == 0)
        {
            rrp->current = peer;
            return 1;
        }
    }

    return 0;
}

#endif
