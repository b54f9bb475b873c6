
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * TLS sessions: only one of the same identity is taken up.  Those of
 * connections that are opened ahead are kept where core keeps those of the
 * same server, and come when no request is there.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_md5.h>
#include "ngx_http_upstream_reuse.h"
#include "ngx_http_upstream_reuse_steps.h"


#if (NGX_HTTP_SSL)


typedef void (*reuse_save_session_pt)(ngx_connection_t *c);


/* bytes of an MD5 */
#define NGX_HTTP_UPSTREAM_REUSE_DIGEST  16


static ngx_uint_t reuse_is_verified(ngx_connection_t *c, ngx_str_t *name);
static ngx_int_t reuse_name_session(ngx_peer_connection_t *pc,
    u_char *digest);
static ngx_int_t reuse_check_session(ngx_peer_connection_t *pc,
    u_char *digest);
static void reuse_digest(ngx_http_upstream_reuse_identity_t *id,
    u_char *digest);
static int reuse_peek(SSL *ssl);
static ngx_uint_t reuse_lock_peer(ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_rr_peer_data_t *rrp);


ngx_int_t
ngx_http_upstream_reuse_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_upstream_reuse_peer_t  *rp =
                                     ngx_http_upstream_reuse_peer_of(pc, data);

    u_char  digest[NGX_HTTP_UPSTREAM_REUSE_DIGEST];

    rp->account.connected = ngx_current_msec;

    reuse_digest(rp->identity, digest);

    if (reuse_name_session(pc, digest) != NGX_OK
        || rp->next.set_session(pc, rp->next.data) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return reuse_check_session(pc, digest);
}


/* A session that has failed the checks would fail them for ever. */

void
ngx_http_upstream_reuse_save_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_upstream_reuse_peer_t  *rp =
                                     ngx_http_upstream_reuse_peer_of(pc, data);

    ngx_http_upstream_t  *u;

    u = rp->request->upstream;

    if (!u->conf->ssl_verify
        || reuse_is_verified(pc->connection, &u->ssl_name))
    {
        rp->next.save_session(pc, rp->next.data);
    }
}


static ngx_uint_t
reuse_is_verified(ngx_connection_t *c, ngx_str_t *name)
{
    return SSL_get_verify_result(c->ssl->connection) == X509_V_OK
           && ngx_ssl_check_host(c, name) == NGX_OK;
}


/*
 * nginx has one TLS session for each peer, whatever it was made for.  A
 * resumed handshake verifies nothing anew and shows no certificate, so only a
 * session of the same identity is taken up.  A session carries its identity
 * as its session ID context, which OpenSSL would insist upon later.
 */

static ngx_int_t
reuse_name_session(ngx_peer_connection_t *pc, u_char *digest)
{
    SSL  *ssl;

    ssl = pc->connection->ssl->connection;

    if (SSL_set_session_id_context(ssl, digest,
                                   NGX_HTTP_UPSTREAM_REUSE_DIGEST)
        != 1)
    {
        ngx_ssl_error(NGX_LOG_ALERT, pc->log, 0,
                      "SSL_set_session_id_context() failed");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
reuse_check_session(ngx_peer_connection_t *pc, u_char *digest)
{
    SSL                  *ssl;
    SSL_SESSION          *session;
    unsigned int          len;
    const unsigned char  *context;

    ssl = pc->connection->ssl->connection;
    session = SSL_get_session(ssl);

    if (session == NULL) {
        return NGX_OK;
    }

    context = SSL_SESSION_get0_id_context(session, &len);

    if (len == NGX_HTTP_UPSTREAM_REUSE_DIGEST
        && ngx_memcmp(context, digest, len) == 0)
    {
        return NGX_OK;
    }

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "upstream reuse: session is not of this identity");

    if (SSL_set_session(ssl, NULL) != 1) {
        ngx_ssl_error(NGX_LOG_ALERT, pc->log, 0, "SSL_set_session() failed");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
reuse_digest(ngx_http_upstream_reuse_identity_t *id, u_char *digest)
{
    ngx_md5_t  md5;

    ngx_md5_init(&md5);
    ngx_md5_update(&md5, id, id->len);
    ngx_md5_final(digest, &md5);
}


ngx_int_t
ngx_http_upstream_reuse_read_tickets(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_int_t               rc;
    ngx_connection_t       *c;
    reuse_save_session_pt   save_session;

    c = conn->connection;

    /* what core does with a ticket takes a request */

    save_session = c->ssl->save_session;

    if (save_session) {
        c->ssl->save_session = ngx_http_upstream_reuse_save_ticket;
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


void
ngx_http_upstream_reuse_save_ticket(ngx_connection_t *c)
{
    ngx_http_upstream_reuse_conn_t  *conn;

    conn = ngx_http_upstream_reuse_find_conn(c);

    ngx_http_upstream_reuse_save_server_session(c, conn->identity,
                                                conn->conf->uscf,
                                                conn->server);
}


void
ngx_http_upstream_reuse_save_server_session(ngx_connection_t *c,
    ngx_http_upstream_reuse_identity_t *id,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_str_t                         name;
    ngx_peer_connection_t             pc;
    ngx_http_upstream_rr_peer_data_t  rrp;

    ngx_http_upstream_reuse_host_name(id, &name);

    /* a handshake that the origin has begun anew was not looked at */

    if ((id->checks & NGX_HTTP_UPSTREAM_REUSE_VERIFIED)
        && !reuse_is_verified(c, &name))
    {
        return;
    }

    ngx_memzero(&pc, sizeof(ngx_peer_connection_t));

    pc.connection = c;
    pc.log = c->log;

    if (reuse_lock_peer(uscf, server, &rrp)) {
        ngx_http_upstream_save_round_robin_peer_session(&pc, &rrp);
    }

    ngx_http_upstream_rr_peers_unlock(rrp.peers);
}


ngx_int_t
ngx_http_upstream_reuse_set_server_session(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_identity_t *id,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_server_t *server)
{
    u_char                            digest[NGX_HTTP_UPSTREAM_REUSE_DIGEST];
    ngx_int_t                         rc;
    ngx_http_upstream_rr_peer_data_t  rrp;

    reuse_digest(id, digest);

    if (reuse_name_session(pc, digest) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = NGX_OK;

    if (reuse_lock_peer(uscf, server, &rrp)) {
        rc = ngx_http_upstream_set_round_robin_peer_session(pc, &rrp);
    }

    ngx_http_upstream_rr_peers_unlock(rrp.peers);

    return (rc == NGX_OK) ? reuse_check_session(pc, digest) : rc;
}


/* As core does it: an IPv6 address stays in brackets. */

void
ngx_http_upstream_reuse_host_name(ngx_http_upstream_reuse_identity_t *id,
    ngx_str_t *name)
{
    u_char  *p, *last;

    name->len = id->name_len;
    name->data = ngx_http_upstream_reuse_identity_name(id);

    if (name->len == 0) {
        return;
    }

    p = name->data;
    last = p + name->len;

    if (*p == '[') {
        p = ngx_strlchr(p, last, ']');

        if (p == NULL) {
            p = name->data;
        }
    }

    p = ngx_strlchr(p, last, ':');

    if (p) {
        name->len = p - name->data;
    }
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
