
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * All that differs between the versions of nginx, and the only file that
 * looks at nginx_version.  To be included before any header of ours, and after
 * those of others.
 */


#ifndef _NGX_HTTP_MYPROXY_COMPAT_H_INCLUDED_
#define _NGX_HTTP_MYPROXY_COMPAT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


#if (nginx_version < 1022000)
#error "ngx_http_myproxy_module needs nginx 1.22.0 or later"
#endif


/*
 * Relatives of nginx bear its numbers, but have not all that nginx has under
 * the same number; each is known by a macro that nginx itself does not have.
 * NGX_HTTP_MYPROXY_CORE is the version of nginx that the core is like.
 *
 * freenginx (NGINX_NAME) went its own way after 1.25.3.  Angie went the same
 * way as nginx, except where NGX_HTTP_MYPROXY_ANGIE says otherwise.
 */

#ifdef NGINX_NAME
#define NGX_HTTP_MYPROXY_CORE  1025003
#else
#define NGX_HTTP_MYPROXY_CORE  nginx_version
#endif

#ifdef angie_version
#define NGX_HTTP_MYPROXY_ANGIE  1
#else
#define NGX_HTTP_MYPROXY_ANGIE  0
#endif


/*
 * Angie 1.8.0: a peer is chosen and connected to in two steps, and given back
 * in two; the pool has a part in the second ones only.
 */

#if (NGX_HTTP_MYPROXY_ANGIE)
#define NGX_HTTP_MYPROXY_TWO_STEPS  (angie_version >= 1008000)
#else
#define NGX_HTTP_MYPROXY_TWO_STEPS  0
#endif


/*
 * The newest version that the tests have seen, which is said nowhere else in
 * the code.  A newer one is told of when a configuration is read.
 */

#define NGX_HTTP_MYPROXY_TESTED  1031004


/* C11 has it; an older compiler checks nothing. */

#if (__STDC_VERSION__ >= 201112L)
#define ngx_http_myproxy_static_assert(condition, text)                       \
    _Static_assert(condition, text)
#else
#define ngx_http_myproxy_static_assert(condition, text)                       \
    extern ngx_module_t  ngx_core_module
#endif


/*
 * 1.23.0: header lines of one name are linked
 */

#if (NGX_HTTP_MYPROXY_CORE >= 1023000)
#define ngx_http_myproxy_unlink_header(h)  (h)->next = NULL
#else
#define ngx_http_myproxy_unlink_header(h)
#endif


/*
 * 1.27.0: the rate to read a response with may contain variables
 */

#if (NGX_HTTP_MYPROXY_CORE >= 1027000)

#define NGX_HTTP_MYPROXY_LIMIT_RATE_UNSET  NGX_CONF_UNSET_PTR

#define ngx_http_myproxy_set_limit_rate_slot                                  \
    ngx_http_set_complex_value_size_slot

#define ngx_http_myproxy_merge_limit_rate(conf, prev)                         \
    ngx_conf_merge_ptr_value(conf, prev, NULL)

#else

#define NGX_HTTP_MYPROXY_LIMIT_RATE_UNSET  NGX_CONF_UNSET_SIZE

#define ngx_http_myproxy_set_limit_rate_slot  ngx_conf_set_size_slot

#define ngx_http_myproxy_merge_limit_rate(conf, prev)                         \
    ngx_conf_merge_size_value(conf, prev, 0)

#endif


/*
 * 1.27.2: the parser of chunked bodies can leave the trailers to the caller,
 * and whether they are passed on is a setting
 */

#if (NGX_HTTP_MYPROXY_CORE >= 1027002)

#define NGX_HTTP_MYPROXY_TRAILERS  1

#define ngx_http_myproxy_parse_chunked(r, b, ctx, keep_trailers)              \
    ngx_http_parse_chunked(r, b, ctx, keep_trailers)

#define ngx_http_myproxy_pass_trailers(mlcf)  (mlcf)->upstream.pass_trailers

#else

#define NGX_HTTP_MYPROXY_TRAILERS  0

#define ngx_http_myproxy_parse_chunked(r, b, ctx, keep_trailers)              \
    ngx_http_parse_chunked(r, b, ctx)

#define ngx_http_myproxy_pass_trailers(mlcf)  0

#endif


/*
 * 1.27.4: certificates that are loaded for a connection can be cached
 */

#if (NGX_HTTP_MYPROXY_CORE >= 1027004)
#define NGX_HTTP_MYPROXY_SSL_CERTIFICATE_CACHE  1
#else
#define NGX_HTTP_MYPROXY_SSL_CERTIFICATE_CACHE  0
#endif


/*
 * 1.29.8: 103 responses can be sent to the client.  Core of 1.29.0 to 1.29.7
 * takes the second one that it reads at a time for the final response.
 */

#if (NGX_HTTP_MYPROXY_CORE >= 1029008)

#define NGX_HTTP_MYPROXY_PASSED_INTERIM  NGX_HTTP_EARLY_HINTS
#define NGX_HTTP_MYPROXY_EARLY_HINTS     NGX_HTTP_UPSTREAM_EARLY_HINTS

#define ngx_http_myproxy_pass_early_hints(ucf)  (ucf)->pass_early_hints = 1

#else

#define NGX_HTTP_MYPROXY_PASSED_INTERIM  0
#define NGX_HTTP_MYPROXY_EARLY_HINTS     NGX_ERROR

#define ngx_http_myproxy_pass_early_hints(ucf)

#endif


/*
 * 1.27.3: servers whose addresses are resolved stand in a list of their own
 */

#if (NGX_HTTP_MYPROXY_CORE >= 1027003 && NGX_HTTP_UPSTREAM_ZONE)
#define ngx_http_myproxy_resolved_peers(peers)  (peers)->resolve
#else
#define ngx_http_myproxy_resolved_peers(peers)  NULL
#endif


/*
 * 1.29.6: a peer has an ID, by which "sticky" finds it again.  That of Angie
 * is another, which a request keeps until it has another peer.
 */

#if (NGX_HTTP_MYPROXY_CORE >= 1029006 && !NGX_HTTP_MYPROXY_ANGIE              \
     && (NGX_HTTP_UPSTREAM_SID || NGX_COMPAT))

#define ngx_http_myproxy_peer_sid(pc)           (pc)->sid
#define ngx_http_myproxy_set_peer_sid(pc, str)  (pc)->sid = str

#else

#define ngx_http_myproxy_peer_sid(pc)           NULL
#define ngx_http_myproxy_set_peer_sid(pc, str)

#endif


/* 1.23.1: which addresses a resolver asks for; as a number here */

#if !(NGX_HAVE_INET6)
#define ngx_http_myproxy_resolver_families(r)  0
#elif (nginx_version >= 1023001)
#define ngx_http_myproxy_resolver_families(r)  (2 * (r)->ipv4 + (r)->ipv6)
#else
#define ngx_http_myproxy_resolver_families(r)  ((r)->ipv6)
#endif


/*
 * Angie 1.7.0: connections in use can be closed when their server goes.  It
 * does so at once if it is not told otherwise.
 */

#if (defined angie_version && angie_version >= 1007000)
#define NGX_HTTP_MYPROXY_CONNECTION_DROP  1
#else
#define NGX_HTTP_MYPROXY_CONNECTION_DROP  0
#endif


/* Angie 1.12.0: the servers of a resolver are a list, and no array */

#if (defined angie_version && angie_version >= 1012000)

#define ngx_http_myproxy_first_resolver(r)  ((r)->connections)
#define ngx_http_myproxy_next_resolver(r, rec)  ((rec)->next)

#else

#define ngx_http_myproxy_first_resolver(r)                                    \
    ((r)->connections.nelts                                                   \
     ? (ngx_resolver_connection_t *) (r)->connections.elts : NULL)
#define ngx_http_myproxy_next_resolver(r, rec)                                \
    ((rec) + 1 - (ngx_resolver_connection_t *) (r)->connections.elts          \
     < (ngx_int_t) (r)->connections.nelts ? (rec) + 1 : NULL)

#endif


/*
 * 1.29.4: a Host or :authority with more than a host and a port is refused
 */

#if (nginx_version >= 1029004)
#define NGX_HTTP_MYPROXY_CHECK_HOST  0
#else
#define NGX_HTTP_MYPROXY_CHECK_HOST  1
#endif


/*
 * 1.29.7: an upstream{} block keeps connections without being told to
 */

#if (NGX_HTTP_MYPROXY_CORE >= 1029007 && !NGX_HTTP_MYPROXY_ANGIE)
#define NGX_HTTP_UPSTREAM_REUSE_NATIVE  1
#else
#define NGX_HTTP_UPSTREAM_REUSE_NATIVE  0
#endif


/*
 * Angie: nothing is read before the request is sent
 */

#define NGX_HTTP_MYPROXY_LATE_READING  NGX_HTTP_MYPROXY_ANGIE


/*
 * 1.31.3: the kernel's buffers of a connection can be given a size
 */

#if (NGX_HTTP_MYPROXY_CORE >= 1031003)
#define NGX_HTTP_MYPROXY_SOCKET_BUFFERS  1
#else
#define NGX_HTTP_MYPROXY_SOCKET_BUFFERS  0
#endif


/*
 * OpenSSL 1.1.0: whether there are bytes that it has read, decrypted or not
 */

#if (NGX_HTTP_SSL)
#if (OPENSSL_VERSION_NUMBER >= 0x10100000L)
#define ngx_http_myproxy_ssl_pending(ssl)  SSL_has_pending(ssl)
#else
#define ngx_http_myproxy_ssl_pending(ssl)  SSL_pending(ssl)
#endif
#endif


/*
 * OpenSSL 1.1.1: all that decides what an SSL_CTX accepts can be read.  Others
 * with its interface are not tested for it.
 */

#if (NGX_HTTP_SSL && OPENSSL_VERSION_NUMBER >= 0x10101000L                    \
     && !defined(LIBRESSL_VERSION_NUMBER) && !defined(OPENSSL_IS_BORINGSSL)   \
     && !defined(OPENSSL_IS_AWSLC))
#define NGX_HTTP_MYPROXY_SSL_BY_VALUE  1
#else
#define NGX_HTTP_MYPROXY_SSL_BY_VALUE  0
#endif


/*
 * Of what is declared from here on nothing is for others, so that calls within
 * the module need no table to find their way.
 */

#if (__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#endif /* _NGX_HTTP_MYPROXY_COMPAT_H_INCLUDED_ */
