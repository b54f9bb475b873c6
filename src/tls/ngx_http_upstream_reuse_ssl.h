
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What a handler tells of its TLS settings.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_SSL_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_SSL_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"


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


#endif /* _NGX_HTTP_UPSTREAM_REUSE_SSL_H_INCLUDED_ */
