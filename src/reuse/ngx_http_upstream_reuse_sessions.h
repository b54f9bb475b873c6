
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Which TLS session a connection may take up, and what becomes of those that
 * come.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_SESSIONS_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_SESSIONS_H_INCLUDED_


#include "ngx_http_upstream_reuse.h"


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
ngx_int_t ngx_http_upstream_reuse_drain(ngx_connection_t *c);

/*
 * Has a connection that is being opened take up the session of the server, if
 * that is of the same identity.
 */
ngx_int_t ngx_http_upstream_reuse_set_server_session(
    ngx_peer_connection_t *pc, ngx_http_upstream_reuse_identity_t *id,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_server_t *server);

/* Saves the session of a connection that was verified as its identity says. */
void ngx_http_upstream_reuse_save_server_session(ngx_connection_t *c,
    ngx_http_upstream_reuse_identity_t *id,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_server_t *server);

/* c->ssl->save_session of a connection that is kept: a ticket has come. */
void ngx_http_upstream_reuse_save_ticket(ngx_connection_t *c);

/* What TLS calls the server: the name of an identity without the port. */
void ngx_http_upstream_reuse_host_name(ngx_http_upstream_reuse_identity_t *id,
    ngx_str_t *name);

/* Drains a connection that is kept, and may have no request. */
ngx_int_t ngx_http_upstream_reuse_read_tickets(
    ngx_http_upstream_reuse_conn_t *conn);

#endif


#endif /* _NGX_HTTP_UPSTREAM_REUSE_SESSIONS_H_INCLUDED_ */
