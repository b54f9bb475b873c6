
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
 * 1.23.0: header lines of one name are linked
 */

#if (nginx_version >= 1023000)
#define ngx_http_myproxy_unlink_header(h)  (h)->next = NULL
#else
#define ngx_http_myproxy_unlink_header(h)
#endif


/*
 * 1.27.0: the rate to read a response with may contain variables
 */

#if (nginx_version >= 1027000)

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

#if (nginx_version >= 1027002)

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

#if (nginx_version >= 1027004)
#define NGX_HTTP_MYPROXY_SSL_CERTIFICATE_CACHE  1
#else
#define NGX_HTTP_MYPROXY_SSL_CERTIFICATE_CACHE  0
#endif


/*
 * 1.29.0: 103 responses can be sent to the client
 */

#if (nginx_version >= 1029000)

#define NGX_HTTP_MYPROXY_PASSED_INTERIM  NGX_HTTP_EARLY_HINTS
#define NGX_HTTP_MYPROXY_EARLY_HINTS     NGX_HTTP_UPSTREAM_EARLY_HINTS

#define ngx_http_myproxy_pass_early_hints(ucf)  (ucf)->pass_early_hints = 1

#else

#define NGX_HTTP_MYPROXY_PASSED_INTERIM  0
#define NGX_HTTP_MYPROXY_EARLY_HINTS     NGX_ERROR

#define ngx_http_myproxy_pass_early_hints(ucf)

#endif


/*
 * 1.29.7: an upstream{} block keeps connections without being told to
 */

#if (nginx_version >= 1029007)
#define NGX_HTTP_UPSTREAM_REUSE_NATIVE  1
#else
#define NGX_HTTP_UPSTREAM_REUSE_NATIVE  0
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
 * Of what is declared from here on nothing is for others, so that calls within
 * the module need no table to find their way.
 */

#if (__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#endif /* _NGX_HTTP_MYPROXY_COMPAT_H_INCLUDED_ */
