
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A layer over the peers of any upstream.  Idle connections live in nginx's
 * own ngx_http_upstream_keepalive_module; this module decides which upstreams
 * have it, which requests may use which connection, and what becomes of a
 * request that has met one which the origin was just closing.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_MODULE_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_MODULE_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"


/*
 * What becomes of a connection, when its request is over or later.  The names,
 * meanings and advice are in ngx_http_upstream_reuse_reasons.c and in
 * docs/status.md.  There each row stands at the place of its reason here: the
 * compiler checks only how many rows there are.
 */

typedef enum {
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_PENDING = 0,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT,

    /* it is closed, and why */

    NGX_HTTP_UPSTREAM_REUSE_CLOSE_OFF,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONFIGURED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_ASKED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_ANNOUNCED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_HTTP10,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNFRAMED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXCESS,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNREAD,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_EARLY,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNSENT,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UPGRADED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_AUTHENTICATED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_REQUESTS,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_TIME,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_AGE,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_DRAINED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_FOUND,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNDELIVERED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_SILENT,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNCONNECTED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_TIMEOUT,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_SHUTDOWN,

    /* it was kept, and is closed with no request on it */

    NGX_HTTP_UPSTREAM_REUSE_CLOSE_IDLE,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_FULL,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_IDENTITY,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNBUFFERED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_STARVING,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_LIMITED,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_CRASH,
    NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST
} ngx_http_upstream_reuse_close_e;


/* module */

/*
 * Asks for idle connections to be kept in an upstream, unless the operator
 * has written "keepalive" or "reuse off" there.  Only requests that
 * ngx_http_upstream_reuse_accept() was called for will use them, so that
 * other handlers on the same upstream behave as before.
 *
 *     cf    within http{}, before ngx_http_upstream_module is initialised
 *     uscf  the upstream, explicit or implicit; NULL asks for all of them,
 *           as a handler must that learns the upstream's name from variables
 *
 * Returns NGX_OK, or NGX_ERROR if there is no memory.
 */
ngx_int_t ngx_http_upstream_reuse_ask(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);

/*
 * Asks for an upstream that has no servers: its addresses come with the
 * requests, and may be any number.  There can be one of this kind.
 */
ngx_int_t ngx_http_upstream_reuse_ask_unbounded(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);

/*
 * Tells that a handler will need connections for HTTP/1.1 with these settings,
 * so that some can be opened before there is a request.  To be called while
 * the configuration is merged, for a location with an upstream that is known.
 *
 *     conf  the location's, which stays, once it is merged; with conf->ssl
 *           if its connections are over TLS, and only then
 *
 * Returns NGX_OK, or NGX_ERROR if there is no memory.
 */
ngx_int_t ngx_http_upstream_reuse_foresee(ngx_conf_t *cf,
    ngx_http_upstream_conf_t *conf);


/* ssl_digest */

#if (NGX_HTTP_SSL)

/*
 * Tells that an SSL_CTX is complete, and what of it cannot be seen there.  Its
 * TLS sessions are resumed after a reload as well then, if it is the same by
 * value.  Without this, those with verification or with an own certificate are
 * resumed as long as the configuration is in force.
 *
 *     system    whether it trusts the system's CAs, as by
 *               SSL_CTX_set_default_verify_paths()
 *     commands  ngx_keyval_t; of SSL_CONF_cmd(); NULL: none
 *
 * Returns NGX_OK, or NGX_ERROR if there is no memory.
 */
ngx_int_t ngx_http_upstream_reuse_describe_ssl(ngx_conf_t *cf, ngx_ssl_t *ssl,
    ngx_uint_t system, ngx_array_t *commands);

#endif


/* handler */

/*
 * Tells that the handler of this request speaks HTTP/1.1, sets u->keepalive as
 * it should be, and will call ngx_http_upstream_reuse_hint().  To be called
 * before ngx_http_upstream_init().
 */
void ngx_http_upstream_reuse_accept(ngx_http_request_t *r);

/*
 * Tells the value of a Keep-Alive in the header of a response that has come
 * over the connection.  Where the handler does not, u->headers_in is searched,
 * which after a revalidation has the fields of the cache, not the origin's.
 */
void ngx_http_upstream_reuse_hint(ngx_http_request_t *r, ngx_str_t *value);

/*
 * Tells why the connection of this request will not be kept, where core only
 * knows that it will not.  Of several calls the first one counts.
 */
void ngx_http_upstream_reuse_explain(ngx_http_request_t *r,
    ngx_http_upstream_reuse_close_e reason);


/* answers */

/*
 * The resolver has answered with addresses for a name that a variable has
 * brought.  Connections that were opened for the name before, to an address
 * that is not among them, are closed.  Returns what the name is known by.
 */
ngx_uint_t ngx_http_upstream_reuse_note_answer(ngx_resolver_ctx_t *rctx);

/*
 * A request of the unbounded upstream goes to that name.  To be called in its
 * peer.init.
 */
void ngx_http_upstream_reuse_set_target(ngx_http_request_t *r,
    ngx_uint_t target);


/* warnings */

/*
 * Notes a warning that something in the configuration defeats reuse: for the
 * log, and to be shown for as long as it is in force.  The text, which is to
 * be followed by the place in the file, says what and how to mend it.
 */
void ngx_cdecl ngx_http_upstream_reuse_warn(ngx_conf_t *cf, u_char *file,
    ngx_uint_t line, const char *fmt, ...);


extern ngx_module_t  ngx_http_upstream_reuse_module;


#endif /* _NGX_HTTP_UPSTREAM_REUSE_MODULE_H_INCLUDED_ */
