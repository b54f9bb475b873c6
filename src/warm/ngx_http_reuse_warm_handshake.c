
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * TLS on a connection that is opened ahead, as core does it for a request.
 */


#include "ngx_http_reuse_warm.h"


#if (NGX_HTTP_SSL)


static ngx_int_t reuse_init_tls(ngx_http_reuse_warm_preconnect_t *p,
    ngx_connection_t *c);
static ngx_int_t reuse_send_name(ngx_http_reuse_warm_preconnect_t *p,
    ngx_connection_t *c);
static void reuse_handshake_handler(ngx_connection_t *c);
static ngx_int_t reuse_verify(ngx_http_reuse_warm_preconnect_t *p,
    ngx_connection_t *c);
static void reuse_save_session(ngx_connection_t *c);


ngx_int_t
ngx_http_reuse_warm_handshake(ngx_http_reuse_warm_preconnect_t *p,
    ngx_http_reuse_warm_handshake_pt handler)
{
    ngx_connection_t  *c;

    c = p->peer.connection;

    if (reuse_init_tls(p, c) != NGX_OK) {
        return NGX_ERROR;
    }

    p->handler = handler;
    p->log.action = "SSL handshaking to upstream";

    if (ngx_ssl_handshake(c) == NGX_AGAIN) {
        c->ssl->handler = reuse_handshake_handler;
        return NGX_OK;
    }

    reuse_handshake_handler(c);

    return NGX_OK;
}


static ngx_int_t
reuse_init_tls(ngx_http_reuse_warm_preconnect_t *p, ngx_connection_t *c)
{
    ngx_http_upstream_conf_t  *conf;
    ngx_http_core_loc_conf_t  *clcf;

    conf = p->profile->conf;

    if (ngx_ssl_create_connection(p->profile->identity->ssl, c,
                                  NGX_SSL_BUFFER|NGX_SSL_CLIENT)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if ((p->profile->identity->checks & NGX_HTTP_UPSTREAM_REUSE_NAMED)
        && reuse_send_name(p, c) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!conf->ssl_session_reuse) {
        return NGX_OK;
    }

    c->ssl->save_session = reuse_save_session;

    if (ngx_http_upstream_reuse_resume_session(&p->peer, p->warm->conf,
                                               p->profile->identity)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* a handshake that resumes a session waits for Nagle's algorithm */

    clcf = p->profile->ctx.loc_conf[ngx_http_core_module.ctx_index];

    return clcf->tcp_nodelay ? ngx_tcp_nodelay(c) : NGX_OK;
}


/* An address is no name for SNI (RFC 6066, section 3). */

static ngx_int_t
reuse_send_name(ngx_http_reuse_warm_preconnect_t *p, ngx_connection_t *c)
{
    u_char     *text;
    ngx_str_t   name;

    ngx_http_upstream_reuse_host_name(p->profile->identity, &name);

    if (name.len == 0
        || name.data[0] == '['
        || ngx_inet_addr(name.data, name.len) != INADDR_NONE)
    {
        return NGX_OK;
    }

    text = ngx_pnalloc(c->pool, name.len + 1);
    if (text == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_cpystrn(text, name.data, name.len + 1);

    if (SSL_set_tlsext_host_name(c->ssl->connection, (char *) text) == 0) {
        ngx_ssl_error(NGX_LOG_ERR, &p->log, 0,
                      "SSL_set_tlsext_host_name(\"%s\") failed", text);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
reuse_handshake_handler(ngx_connection_t *c)
{
    ngx_http_reuse_warm_preconnect_t  *p;

    p = c->data;

    if (!c->ssl->handshaked) {

        if (c->write->timedout) {
            ngx_log_error(NGX_LOG_ERR, &p->log, NGX_ETIMEDOUT,
                          "upstream timed out");
        }

        ngx_http_upstream_reuse_forget_session(c, p->warm->conf);

        p->handler(p, NGX_ERROR);
        return;
    }

    if ((p->profile->identity->checks & NGX_HTTP_UPSTREAM_REUSE_VERIFIED)
        && reuse_verify(p, c) != NGX_OK)
    {
        ngx_http_upstream_reuse_forget_session(c, p->warm->conf);

        p->handler(p, NGX_ERROR);
        return;
    }

    if (!c->ssl->sendfile) {
        c->sendfile = 0;
    }

    p->handler(p, NGX_OK);
}


static ngx_int_t
reuse_verify(ngx_http_reuse_warm_preconnect_t *p, ngx_connection_t *c)
{
    long       rc;
    ngx_str_t  name;

    rc = SSL_get_verify_result(c->ssl->connection);

    if (rc != X509_V_OK) {
        ngx_log_error(NGX_LOG_ERR, &p->log, 0,
                      "upstream SSL certificate verify error: (%l:%s)",
                      rc, X509_verify_cert_error_string(rc));
        return NGX_ERROR;
    }

    ngx_http_upstream_reuse_host_name(p->profile->identity, &name);

    if (ngx_ssl_check_host(c, &name) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, &p->log, 0,
                      "upstream SSL certificate does not match \"%V\"", &name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* A session has come before the connection was in the pool. */

static void
reuse_save_session(ngx_connection_t *c)
{
    ngx_http_reuse_warm_preconnect_t  *p;

    p = c->data;

    ngx_http_upstream_reuse_keep_session(c, p->warm->conf,
                                         p->profile->identity);
}

#endif
