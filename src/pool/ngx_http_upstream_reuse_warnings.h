
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What of the configuration defeats reuse.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_WARNINGS_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_WARNINGS_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"


/*
 * Notes a warning that something in the configuration defeats reuse: for the
 * log, and to be shown for as long as it is in force.  The text, which is to
 * be followed by the place in the file, says what and how to mend it.
 */
void ngx_cdecl ngx_http_upstream_reuse_warn(ngx_conf_t *cf, u_char *file,
    ngx_uint_t line, const char *fmt, ...);

/* As ngx_http_upstream_reuse_warn(), for an error without a line. */
void ngx_cdecl ngx_http_upstream_reuse_complain(ngx_conf_t *cf,
    const char *fmt, ...);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_WARNINGS_H_INCLUDED_ */
