
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Directives of the stock proxy that are written where requests go by
 * myproxy_pass, for which they do nothing.
 */


#ifndef _NGX_HTTP_MYPROXY_STOCK_H_INCLUDED_
#define _NGX_HTTP_MYPROXY_STOCK_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"


/* location: what is written in it and in those below */

typedef struct ngx_http_myproxy_stock_s  ngx_http_myproxy_stock_t;

struct ngx_http_myproxy_stock_s {
    ngx_http_myproxy_stock_t        *outer;  /* NULL: http{} */
    ngx_str_t                        name;   /* of the first one in it; empty:
                                                there is none */
    u_char                          *file;
    ngx_uint_t                       line;

    unsigned                         proxy_pass:1;    /* here or below */
    unsigned                         myproxy_pass:1;  /* here or below */
};


/*
 * From now on notes the directives of the stock proxy, as they are read.  To
 * be called before http{} is read.
 *
 * Returns NGX_OK, or NGX_ERROR if there is no memory.
 */
ngx_int_t ngx_http_myproxy_watch_stock(ngx_conf_t *cf);

/* Warns of variables in a value that only the stock proxy sets. */
void ngx_http_myproxy_check_variables(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_str_t *value);

/*
 * To be called for each block, before those in it, when blocks are merged.
 *
 *     target  myproxy_pass is written in this block itself
 */
void ngx_http_myproxy_merge_stock(ngx_http_myproxy_stock_t *prev,
    ngx_http_myproxy_stock_t *conf, ngx_uint_t target);

/*
 * Warns of blocks whose directives do nothing, and notes no more of them.  To
 * be called when all is merged.
 */
void ngx_http_myproxy_check_stock(ngx_conf_t *cf);


#endif /* _NGX_HTTP_MYPROXY_STOCK_H_INCLUDED_ */
