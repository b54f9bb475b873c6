
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What a worker has seen of an upstream's servers (drain.c).
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_LIVE_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_LIVE_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"


/* worker: the servers of an upstream that get requests, when last looked at */

typedef struct {
    uint32_t                        *hashes;  /* of their addresses, sorted */
    ngx_uint_t                       n;
    ngx_uint_t                       room;
    uint64_t                         sum;    /* of what was made of them */
    ngx_msec_t                       looked;
    unsigned                         known:1;  /* there was one, ever */
    unsigned                         changed:1;  /* connections to those that
                                                    are gone may be left */
} ngx_http_upstream_reuse_live_t;


#endif /* _NGX_HTTP_UPSTREAM_REUSE_LIVE_H_INCLUDED_ */
