
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Which TLS session a connection may take up, and what becomes of those that
 * come.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_SESSIONS_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_SESSIONS_H_INCLUDED_


#include "ngx_http_upstream_reuse_connection.h"
#include "ngx_http_upstream_reuse_session_cache.h"
#include "ngx_http_upstream_reuse_ssl.h"


#if (NGX_HTTP_SSL)

/* callbacks of ngx_peer_connection_t */
ngx_int_t ngx_http_upstream_reuse_set_session(ngx_peer_connection_t *pc,
    void *data);
void ngx_http_upstream_reuse_save_session(ngx_peer_connection_t *pc,
    void *data);

/*
 * Reads what is no data, such as session tickets.  Returns NGX_AGAIN if that
 * was all, NGX_BUSY if a part of more is there, NGX_DECLINED if there are
 * data, NGX_OK if it is the end, and NGX_ERROR.
 */
ngx_int_t ngx_http_upstream_reuse_read_non_data(ngx_connection_t *c);

/*
 * Has a connection that is being opened take up a session that was made for
 * the same: upstream, address, identity and TLS settings.  NGX_ERROR: the
 * connection is of no use.
 */
ngx_int_t ngx_http_upstream_reuse_resume_session(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_identity_t *id);

/* Keeps the new session of a connection, if it is as its identity says. */
void ngx_http_upstream_reuse_keep_session(ngx_connection_t *c,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_identity_t *id);

/* A handshake has failed, maybe because of the session that it took up. */
void ngx_http_upstream_reuse_forget_session(ngx_connection_t *c,
    ngx_http_upstream_reuse_srv_conf_t *rcf);

/* c->ssl->save_session of a connection that is kept: a ticket has come. */
void ngx_http_upstream_reuse_save_ticket(ngx_connection_t *c);

/* What TLS calls the server: the name of an identity without the port. */
void ngx_http_upstream_reuse_host_name(ngx_http_upstream_reuse_identity_t *id,
    ngx_str_t *name);

/* Drains a connection that is kept, and may have no request. */
ngx_int_t ngx_http_upstream_reuse_read_tickets(
    ngx_http_upstream_reuse_conn_t *conn);


/* ssl_digest */

/*
 * Adds what an SSL_CTX is, by value.  If connections are verified and it is
 * not known whom it trusts, no other SSL_CTX has the same value, nor has this
 * one after a reload.  NGX_OK, or NGX_ERROR if there is no memory.
 *
 * A setting that the SSL_CTX shows is added in reuse_add_settings()
 * (ssl_digest.c); what it does not show, its handler tells by one more
 * parameter of ngx_http_upstream_reuse_describe_ssl().  Where a handler has
 * locations share an SSL_CTX, it compares it there, as same_ssl() does in
 * src/proxy.
 */
ngx_int_t ngx_http_upstream_reuse_add_ssl(EVP_MD_CTX *md,
    ngx_http_upstream_reuse_main_conf_t *rmcf, ngx_ssl_t *ssl,
    ngx_uint_t verified);

/* Adds what is the same in all workers of one configuration only. */
ngx_int_t ngx_http_upstream_reuse_add_generation(EVP_MD_CTX *md,
    ngx_http_upstream_reuse_main_conf_t *rmcf, ngx_ssl_t *ssl);

#endif


#endif /* _NGX_HTTP_UPSTREAM_REUSE_SESSIONS_H_INCLUDED_ */
