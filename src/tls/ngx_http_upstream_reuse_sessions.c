
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * TLS sessions: all workers have them together, and only one that was made for
 * the same is taken up.  Those of connections that are opened ahead come when
 * no request is there.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_upstream_reuse_sessions.h"


#if (NGX_HTTP_SSL)


#define NGX_HTTP_UPSTREAM_REUSE_KEY  NGX_HTTP_UPSTREAM_REUSE_SESSION_KEY


typedef void (*reuse_save_session_pt)(ngx_connection_t *c);


static ngx_uint_t reuse_is_verified(ngx_connection_t *c, ngx_str_t *name);
static ngx_int_t reuse_make_session_key(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_identity_t *id, u_char *key);
static ngx_int_t reuse_add_identity(EVP_MD_CTX *md,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_identity_t *id);
static ngx_int_t reuse_set(SSL *ssl, size_t len, u_char *key);
static u_char *reuse_key_of(SSL_SESSION *session);
static void reuse_put(ngx_connection_t *c,
    ngx_http_upstream_reuse_srv_conf_t *rcf);
static time_t reuse_expire(SSL_SESSION *session);
static int reuse_peek(SSL *ssl);


/* worker: a session, while it is read or written */

static u_char  reuse_buffer[NGX_HTTP_UPSTREAM_REUSE_SESSION_MAX];


ngx_int_t
ngx_http_upstream_reuse_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_upstream_reuse_peer_t  *rp =
                                     ngx_http_upstream_reuse_peer_of(pc, data);

    rp->account.connected = ngx_current_msec;

    return ngx_http_upstream_reuse_resume_session(pc, rp->conf, rp->identity);
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
        reuse_put(pc->connection, rp->conf);
    }
}


void
ngx_http_upstream_reuse_keep_session(ngx_connection_t *c,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_identity_t *id)
{
    ngx_str_t  name;

    ngx_http_upstream_reuse_host_name(id, &name);

    /* a handshake that the origin has begun anew was not looked at */

    if (!(id->checks & NGX_HTTP_UPSTREAM_REUSE_VERIFIED)
        || reuse_is_verified(c, &name))
    {
        reuse_put(c, rcf);
    }
}


static ngx_uint_t
reuse_is_verified(ngx_connection_t *c, ngx_str_t *name)
{
    return SSL_get_verify_result(c->ssl->connection) == X509_V_OK
           && ngx_ssl_check_host(c, name) == NGX_OK;
}


/*
 * A resumed handshake verifies nothing anew and shows no certificate, so only
 * a session that was made for the same is taken up.  It carries its key as its
 * session ID context, which OpenSSL would insist upon later.
 */

ngx_int_t
ngx_http_upstream_reuse_resume_session(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_identity_t *id)
{
    SSL     *ssl;
    size_t   len;
    u_char   key[NGX_HTTP_UPSTREAM_REUSE_KEY];

    ssl = pc->connection->ssl->connection;

    if (reuse_make_session_key(pc, rcf, id, key) != NGX_OK
        || SSL_set_session_id_context(ssl, key, NGX_HTTP_UPSTREAM_REUSE_KEY)
           != 1)
    {
        ngx_ssl_error(NGX_LOG_ALERT, pc->log, 0,
                      "upstream reuse: no key of a session could be made");
        return NGX_ERROR;
    }

    len = ngx_http_upstream_reuse_get_session(rcf->main->sessions, key,
                                              reuse_buffer);
    if (len == 0) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "upstream reuse: there is no session to resume");
        return NGX_OK;
    }

    if (reuse_set(ssl, len, key) != NGX_OK) {

        ngx_log_error(NGX_LOG_ALERT, pc->log, 0,
                      "upstream reuse: a session of %uz bytes is broken, and "
                      "is not used", len);

        ngx_http_upstream_reuse_drop_sessions(rcf->main->sessions, key);

        ERR_clear_error();
        return NGX_OK;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "upstream reuse: offered a session of %uz bytes", len);

    return NGX_OK;
}


static ngx_int_t
reuse_set(SSL *ssl, size_t len, u_char *key)
{
    u_char        *own;
    ngx_int_t      rc;
    SSL_SESSION   *session;
    const u_char  *p;

    p = reuse_buffer;

    session = d2i_SSL_SESSION(NULL, &p, len);
    if (session == NULL) {
        return NGX_ERROR;
    }

    own = reuse_key_of(session);

    rc = (own && ngx_memcmp(own, key, NGX_HTTP_UPSTREAM_REUSE_KEY) == 0
          && SSL_set_session(ssl, session) == 1)
         ? NGX_OK : NGX_ERROR;

    SSL_SESSION_free(session);

    return rc;
}


/* NULL: it was not made by a connection that has one. */

static u_char *
reuse_key_of(SSL_SESSION *session)
{
    unsigned int   len;
    const u_char  *context;

    context = SSL_SESSION_get0_id_context(session, &len);

    return (len == NGX_HTTP_UPSTREAM_REUSE_KEY) ? (u_char *) context : NULL;
}


static ngx_int_t
reuse_make_session_key(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_identity_t *id, u_char *key)
{
    size_t       len[2];
    ngx_int_t    rc;
    EVP_MD_CTX  *md;

    md = EVP_MD_CTX_new();
    if (md == NULL) {
        return NGX_ERROR;
    }

    len[0] = rcf->name.len;
    len[1] = pc->socklen;

    rc = NGX_ERROR;

    if (EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1
        && EVP_DigestUpdate(md, len, sizeof(len)) == 1
        && EVP_DigestUpdate(md, rcf->name.data, rcf->name.len) == 1
        && EVP_DigestUpdate(md, pc->sockaddr, pc->socklen) == 1
        && reuse_add_identity(md, rcf, id) == NGX_OK
        && EVP_DigestFinal_ex(md, key, NULL) == 1)
    {
        rc = NGX_OK;
    }

    EVP_MD_CTX_free(md);

    return rc;
}


/*
 * By value, as addresses in memory are others after a reload.  Which location
 * and which protocol it is for matters to connections, and not to sessions.
 */

static ngx_int_t
reuse_add_identity(EVP_MD_CTX *md, ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_identity_t *id)
{
    size_t      value[4];
    ngx_uint_t  verified;

    value[0] = id->checks;
    value[1] = id->local_len;
    value[2] = id->name_len;
    value[3] = id->certificate_len;

    verified = (id->checks & NGX_HTTP_UPSTREAM_REUSE_VERIFIED);

    if (EVP_DigestUpdate(md, value, sizeof(value)) != 1
        || EVP_DigestUpdate(md, id + 1, id->len - sizeof(*id)) != 1
        || ngx_http_upstream_reuse_add_ssl(md, rcf->main, id->ssl, verified)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* only the name of the file of a certificate is known here */

    return id->certificate_len
           ? ngx_http_upstream_reuse_add_generation(md, rcf->main, id->ssl)
           : NGX_OK;
}


/* The new session of a connection; its key was set before the handshake. */

static void
reuse_put(ngx_connection_t *c, ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    int                                 len;
    u_char                             *p;
    SSL_SESSION                        *session;
    ngx_http_upstream_reuse_session_t   kept;

    session = ngx_ssl_get0_session(c);

    if (session == NULL) {
        return;
    }

    kept.key = reuse_key_of(session);

    len = i2d_SSL_SESSION(session, NULL);

    if (kept.key == NULL
        || len <= 0
        || len > NGX_HTTP_UPSTREAM_REUSE_SESSION_MAX)
    {
        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                       "upstream reuse: session of %d bytes is not kept", len);
        return;
    }

    p = reuse_buffer;

    kept.len = i2d_SSL_SESSION(session, &p);
    kept.data = reuse_buffer;
    kept.expire = reuse_expire(session);
    kept.maker = c->number;
    kept.full = !SSL_session_reused(c->ssl->connection);

#ifdef TLS1_3_VERSION
    kept.several = (SSL_SESSION_get_protocol_version(session)
                    == TLS1_3_VERSION);
#else
    kept.several = 0;
#endif

    ngx_http_upstream_reuse_put_session(rcf->main->sessions, &kept);

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "upstream reuse: kept a session of %uz bytes", kept.len);
}


static time_t
reuse_expire(SSL_SESSION *session)
{
    long           timeout;
    unsigned long  hint;

    timeout = SSL_SESSION_get_timeout(session);
    hint = SSL_SESSION_get_ticket_lifetime_hint(session);

    if (hint && hint < (unsigned long) timeout) {
        timeout = hint;
    }

    return (time_t) SSL_SESSION_get_time(session) + timeout;
}


void
ngx_http_upstream_reuse_forget_session(ngx_connection_t *c,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    u_char       *key;
    SSL_SESSION  *session;

    session = c->ssl ? SSL_get_session(c->ssl->connection) : NULL;
    key = session ? reuse_key_of(session) : NULL;

    if (key) {
        ngx_http_upstream_reuse_drop_sessions(rcf->main->sessions, key);
    }
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

    rc = ngx_http_upstream_reuse_read_non_data(c);

    c->ssl->save_session = save_session;

    return rc;
}


ngx_int_t
ngx_http_upstream_reuse_read_non_data(ngx_connection_t *c)
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

    ngx_http_upstream_reuse_keep_session(c, conn->conf, conn->identity);
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

#endif
