
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The version of the module, which is said nowhere else in src/;
 * docs/versions.md says what may change with which part of it.
 */


#ifndef _NGX_HTTP_MYPROXY_VERSION_H_INCLUDED_
#define _NGX_HTTP_MYPROXY_VERSION_H_INCLUDED_


#define NGX_HTTP_MYPROXY_VERSION  "1.0.0"


#endif /* _NGX_HTTP_MYPROXY_VERSION_H_INCLUDED_ */
