
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Whom a connection may serve.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_IDENTITY_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_IDENTITY_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"


typedef struct ngx_http_upstream_reuse_peer_s  ngx_http_upstream_reuse_peer_t;


/*
 * What a connection was opened for: behind one address are many names, and
 * maybe more than one protocol.  It is one string of bytes, which begins with
 * these and goes on with an address, a name and the file of a certificate, of
 * the lengths said here: equal bytes, equal identity.  There is no padding.
 *
 * A setting in which connections must agree is added in all these places:
 *
 *     here, and to the hash in join_parts() (identity.c);
 *     find_identity(), and the condition there for "reuse_plain", which is
 *     the identity of all that have nothing special; foresee_identity();
 *     reuse_add_identity() (sessions.c), which makes the key of TLS sessions,
 *     unless these may be resumed across it;
 *     reuse_set_profile() and reuse_is_constant() (src/warm, profiles.c), so
 *     that connections opened ahead have it.
 *
 * A setting of an SSL_CTX is none of these.  Connections of different SSL_CTXs
 * are apart, by "ssl" below: a handler must not share an SSL_CTX between
 * locations whose settings differ (src/proxy: same_ssl()).  TLS sessions may
 * be resumed from one SSL_CTX by another: see add_ssl() (sessions.h).
 */

typedef struct {
    size_t                           len;    /* of all of it */
    size_t                           hash;   /* of all but this; 32 bits */

    /* stands for the protocol that is spoken; NULL: HTTP/1.1 */
    ngx_int_t                      (*create_request)(ngx_http_request_t *r);

    /* which location, if it shares with no other; NULL: it does */
    ngx_http_upstream_conf_t        *location;

    void                            *ssl;    /* ngx_ssl_t; NULL: no TLS */
    size_t                           checks;  /* ..._NAMED, ..._VERIFIED */
    size_t                           local_len;
    size_t                           name_len;
    size_t                           certificate_len;
} ngx_http_upstream_reuse_identity_t;


/* in its checks, which are of TLS alone: any of them adds the name */
#define NGX_HTTP_UPSTREAM_REUSE_NAMED     1
#define NGX_HTTP_UPSTREAM_REUSE_VERIFIED  2

#define ngx_http_upstream_reuse_identity_local(id)                            \
    ((id)->local_len ? (struct sockaddr *) ((id) + 1) : NULL)

#define ngx_http_upstream_reuse_identity_name(id)                             \
    ((u_char *) ((id) + 1) + (id)->local_len)


#define ngx_http_upstream_reuse_same_identity(a, b)                           \
    ((a) == (b)                                                               \
     || ((a)->len == (b)->len && ngx_memcmp(a, b, (a)->len) == 0))


#endif /* _NGX_HTTP_UPSTREAM_REUSE_IDENTITY_H_INCLUDED_ */
