
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_compat.h"
#include "ngx_http_upstream_reuse_module.h"
#include <ngx_md5.h>


/*
 * Connection: what it was opened for.  The pool's key is the address alone,
 * but behind one address there may be many names and many trusts.
 */

typedef struct {
#if (NGX_HTTP_SSL)
    ngx_ssl_t                           *ssl;  /* NULL: no TLS */
    ngx_str_t                            name;
    ngx_str_t                            certificate;
#endif
    struct sockaddr                     *local;
    socklen_t                            local_len;
} ngx_http_upstream_reuse_identity_t;


/* request: the peer functions that we stand before */

typedef struct {
    ngx_http_request_t                  *request;
    ngx_http_upstream_reuse_srv_conf_t  *conf;
    ngx_http_upstream_reuse_identity_t   identity;

    void                                *data;
    ngx_event_get_peer_pt                get;
    ngx_event_free_peer_pt               free;
    ngx_event_notify_peer_pt             notify;
#if (NGX_HTTP_SSL)
    ngx_event_set_peer_session_pt        set_session;
    ngx_event_save_peer_session_pt       save_session;
#endif
} ngx_http_upstream_reuse_peer_t;


static ngx_int_t reuse_find_identity(ngx_http_request_t *r,
    ngx_http_upstream_reuse_identity_t *id);
static ngx_uint_t reuse_same_identity(ngx_http_upstream_reuse_identity_t *a,
    ngx_http_upstream_reuse_identity_t *b);
static ngx_uint_t reuse_same_bytes(const void *a, size_t a_len, const void *b,
    size_t b_len);
static ngx_http_upstream_reuse_identity_t *reuse_get_identity(
    ngx_connection_t *c);
static ngx_int_t reuse_set_identity(ngx_connection_t *c,
    ngx_http_upstream_reuse_identity_t *id);
static void reuse_forget_identity(void *data);

static ngx_int_t reuse_get(ngx_peer_connection_t *pc, void *data);
static ngx_uint_t reuse_is_silent(ngx_connection_t *c);
static void reuse_close(ngx_connection_t *c);
static void reuse_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static ngx_uint_t reuse_is_authenticated(ngx_http_request_t *r);
static ngx_uint_t reuse_is_scheme(ngx_str_t *value);
static void reuse_notify(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t type);
#if (NGX_HTTP_SSL)
static ngx_uint_t reuse_is_read(ngx_connection_t *c);
static ngx_int_t reuse_set_session(ngx_peer_connection_t *pc, void *data);
static void reuse_save_session(ngx_peer_connection_t *pc, void *data);
#endif


ngx_int_t
ngx_http_upstream_reuse_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_int_t                            rc;
    ngx_peer_connection_t               *pc;
    ngx_http_upstream_reuse_peer_t      *rp;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = ngx_http_conf_upstream_srv_conf(us, ngx_http_upstream_reuse_module);

    rp = ngx_palloc(r->pool, sizeof(ngx_http_upstream_reuse_peer_t));
    if (rp == NULL) {
        return NGX_ERROR;
    }

    if (rcf->added && rcf->reuse == NGX_CONF_UNSET
        && ngx_http_get_module_ctx(r, ngx_http_upstream_reuse_module) == NULL)
    {
        /*
         * the upstream keeps connections only because a handler asked for
         * it, and this is another one: go around the keepalive module
         */

        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                       "upstream reuse: not asked for");

        rc = rcf->init_balancer(r, us);

    } else {
        rc = rcf->init_peer(r, us);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (reuse_find_identity(r, &rp->identity) != NGX_OK) {
        return NGX_ERROR;
    }

    pc = &r->upstream->peer;

    rp->request = r;
    rp->conf = rcf;
    rp->data = pc->data;
    rp->get = pc->get;
    rp->free = pc->free;
    rp->notify = pc->notify;

    pc->data = rp;
    pc->get = reuse_get;
    pc->free = reuse_free;

    if (pc->notify) {
        pc->notify = reuse_notify;
    }

#if (NGX_HTTP_SSL)
    rp->set_session = pc->set_session;
    rp->save_session = pc->save_session;
    pc->set_session = reuse_set_session;
    pc->save_session = reuse_save_session;
#endif

    return NGX_OK;
}


/* What a connection for this request has to have been opened for. */

static ngx_int_t
reuse_find_identity(ngx_http_request_t *r,
    ngx_http_upstream_reuse_identity_t *id)
{
    ngx_http_upstream_t       *u;
#if (NGX_HTTP_SSL)
    ngx_http_upstream_conf_t  *ucf;
#endif

    u = r->upstream;

    ngx_memzero(id, sizeof(ngx_http_upstream_reuse_identity_t));

    if (u->peer.local) {
        id->local = u->peer.local->sockaddr;
        id->local_len = u->peer.local->socklen;
    }

#if (NGX_HTTP_SSL)

    if (!u->ssl) {
        return NGX_OK;
    }

    ucf = u->conf;

    id->ssl = ucf->ssl;

    if (ucf->ssl_server_name || ucf->ssl_verify) {

        id->name = u->ssl_name;

        if (ucf->ssl_name
            && ngx_http_complex_value(r, ucf->ssl_name, &id->name) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ucf->ssl_certificate && ucf->ssl_certificate->lengths) {
        return ngx_http_complex_value(r, ucf->ssl_certificate,
                                      &id->certificate);
    }

#endif

    return NGX_OK;
}


static ngx_uint_t
reuse_same_identity(ngx_http_upstream_reuse_identity_t *a,
    ngx_http_upstream_reuse_identity_t *b)
{
#if (NGX_HTTP_SSL)

    if (a->ssl != b->ssl
        || !reuse_same_bytes(a->name.data, a->name.len,
                             b->name.data, b->name.len)
        || !reuse_same_bytes(a->certificate.data, a->certificate.len,
                             b->certificate.data, b->certificate.len))
    {
        return 0;
    }

#endif

    return reuse_same_bytes(a->local, a->local_len, b->local, b->local_len);
}


static ngx_uint_t
reuse_same_bytes(const void *a, size_t a_len, const void *b, size_t b_len)
{
    return a_len == b_len && (a_len == 0 || ngx_memcmp(a, b, a_len) == 0);
}


/* The identity is kept in a cleanup of the connection's own pool. */

static ngx_http_upstream_reuse_identity_t *
reuse_get_identity(ngx_connection_t *c)
{
    ngx_pool_cleanup_t  *cln;

    for (cln = c->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == reuse_forget_identity) {
            return cln->data;
        }
    }

    return NULL;
}


static ngx_int_t
reuse_set_identity(ngx_connection_t *c, ngx_http_upstream_reuse_identity_t *id)
{
    u_char                              *p;
    size_t                               len;
    ngx_pool_cleanup_t                  *cln;
    ngx_http_upstream_reuse_identity_t  *own;

    len = id->local_len;

#if (NGX_HTTP_SSL)
    len += id->name.len + id->certificate.len;
#endif

    cln = ngx_pool_cleanup_add(c->pool,
                       sizeof(ngx_http_upstream_reuse_identity_t) + len);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = reuse_forget_identity;

    own = cln->data;
    *own = *id;

    p = (u_char *) (own + 1);

    if (id->local_len) {
        own->local = (struct sockaddr *) p;
        p = ngx_cpymem(p, id->local, id->local_len);
    }

#if (NGX_HTTP_SSL)

    if (id->name.len) {
        own->name.data = p;
        p = ngx_cpymem(p, id->name.data, id->name.len);
    }

    if (id->certificate.len) {
        own->certificate.data = p;
        ngx_memcpy(p, id->certificate.data, id->certificate.len);
    }

#endif

    return NGX_OK;
}


static void
reuse_forget_identity(void *data)
{
    /* it goes with the pool */
}


static ngx_int_t
reuse_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_upstream_reuse_peer_t  *rp = data;

    ngx_int_t                            rc;
    ngx_http_upstream_reuse_identity_t  *id;

    rc = rp->get(pc, rp->data);

    if (rc != NGX_DONE || pc->connection == NULL) {
        return rc;
    }

    id = reuse_get_identity(pc->connection);

    if (id == NULL || !reuse_same_identity(id, &rp->identity)) {
        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "upstream reuse: connection %p is of another identity",
                       pc->connection);

    } else if (!reuse_is_silent(pc->connection)) {
        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "upstream reuse: connection %p is closing or has data",
                       pc->connection);

    } else {
        return NGX_DONE;
    }

    reuse_close(pc->connection);

    /* the peer stays, and is connected to afresh */

    pc->connection = NULL;
    pc->cached = 0;

    return NGX_OK;
}


/*
 * An idle connection on which something has arrived is of no use: an end, or
 * bytes that would be taken for the answer to the next request.  The event
 * may wait behind the client's that we are in.
 */

static ngx_uint_t
reuse_is_silent(ngx_connection_t *c)
{
    char     buf[1];
    ssize_t  n;

    n = recv(c->fd, buf, 1, MSG_PEEK);

    return n == -1 && ngx_socket_errno == NGX_EAGAIN;
}


static void
reuse_close(ngx_connection_t *c)
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
reuse_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_http_upstream_reuse_peer_t  *rp = data;

    ngx_connection_t     *c;
    ngx_http_upstream_t  *u;

    u = rp->request->upstream;
    c = pc->connection;

    if (rp->conf->reuse == 0) {

        /* whatever would keep the connection, by directive or by default */

        u->keepalive = 0;
    }

    if (u->keepalive && reuse_is_authenticated(rp->request)) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "upstream reuse: connection belongs to one client");

        u->keepalive = 0;
    }

    if (u->keepalive && c
        && reuse_get_identity(c) == NULL
        && reuse_set_identity(c, &rp->identity) != NGX_OK)
    {
        u->keepalive = 0;
    }

#if (NGX_HTTP_SSL)
    if (u->keepalive && c && c->ssl && !reuse_is_read(c)) {
        u->keepalive = 0;
    }
#endif

    rp->free(pc, rp->data, state);
}


/*
 * NTLM and Negotiate authenticate the connection, not the request (RFC 4559,
 * section 6): one on which they appeared belongs to that client.
 */

static ngx_uint_t
reuse_is_authenticated(ngx_http_request_t *r)
{
    ngx_uint_t                       i;
    ngx_list_part_t                 *part;
    ngx_table_elt_t                 *h;
    ngx_http_upstream_headers_in_t  *in;

    if (r->headers_in.authorization
        && reuse_is_scheme(&r->headers_in.authorization->value))
    {
        return 1;
    }

    in = &r->upstream->headers_in;

    if (in->www_authenticate == NULL) {
        return 0;
    }

    for (part = &in->headers.part; part; part = part->next) {

        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len == sizeof("WWW-Authenticate") - 1
                && ngx_strncasecmp(h[i].key.data,
                                   (u_char *) "WWW-Authenticate",
                                   h[i].key.len)
                   == 0
                && reuse_is_scheme(&h[i].value))
            {
                return 1;
            }
        }
    }

    return 0;
}


static ngx_uint_t
reuse_is_scheme(ngx_str_t *value)
{
    return (value->len >= 4
            && ngx_strncasecmp(value->data, (u_char *) "NTLM", 4) == 0)
           || (value->len >= 9
               && ngx_strncasecmp(value->data, (u_char *) "Negotiate", 9)
                  == 0);
}


static void
reuse_notify(ngx_peer_connection_t *pc, void *data, ngx_uint_t type)
{
    ngx_http_upstream_reuse_peer_t  *rp = data;

    rp->notify(pc, rp->data, type);
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


/*
 * nginx has one TLS session for each peer, whatever it was made for.  A
 * resumed handshake verifies nothing anew and shows no certificate, so only a
 * session of the same identity is taken up.  A session carries its identity
 * as its session ID context, which OpenSSL would insist upon later.
 */

static ngx_int_t
reuse_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_upstream_reuse_peer_t  *rp = data;

    SSL                  *ssl;
    u_char                digest[16];
    ngx_md5_t             md5;
    SSL_SESSION          *session;
    unsigned int          len;
    const unsigned char  *context;

    ssl = pc->connection->ssl->connection;

    ngx_md5_init(&md5);
    ngx_md5_update(&md5, &rp->identity.ssl, sizeof(ngx_ssl_t *));
    ngx_md5_update(&md5, &rp->identity.name.len, sizeof(size_t));

    if (rp->identity.name.len) {
        ngx_md5_update(&md5, rp->identity.name.data, rp->identity.name.len);
    }

    if (rp->identity.certificate.len) {
        ngx_md5_update(&md5, rp->identity.certificate.data,
                       rp->identity.certificate.len);
    }

    ngx_md5_final(digest, &md5);

    if (SSL_set_session_id_context(ssl, digest, sizeof(digest)) != 1) {
        ngx_ssl_error(NGX_LOG_ALERT, pc->log, 0,
                      "SSL_set_session_id_context() failed");
        return NGX_ERROR;
    }

    if (rp->set_session(pc, rp->data) != NGX_OK) {
        return NGX_ERROR;
    }

    session = SSL_get_session(ssl);

    if (session == NULL) {
        return NGX_OK;
    }

    context = SSL_SESSION_get0_id_context(session, &len);

    if (len == sizeof(digest) && ngx_memcmp(context, digest, len) == 0) {
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


/* A session that has failed the checks would fail them for ever. */

static void
reuse_save_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_upstream_reuse_peer_t  *rp = data;

    ngx_connection_t     *c;
    ngx_http_upstream_t  *u;

    u = rp->request->upstream;
    c = pc->connection;

    if (u->conf->ssl_verify
        && (SSL_get_verify_result(c->ssl->connection) != X509_V_OK
            || ngx_ssl_check_host(c, &u->ssl_name) != NGX_OK))
    {
        return;
    }

    rp->save_session(pc, rp->data);
}

#endif
