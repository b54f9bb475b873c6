
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The upstreams of the configuration in force.
 */


#include "ngx_http_upstream_reuse_accounts.h"


ngx_http_upstream_reuse_srv_conf_t *
ngx_http_upstream_reuse_next_conf(ngx_http_upstream_main_conf_t *umcf,
    ngx_uint_t *i)
{
    ngx_http_upstream_srv_conf_t  *uscf, **uscfp;

    uscfp = umcf->upstreams.elts;

    while (*i < umcf->upstreams.nelts) {
        uscf = uscfp[(*i)++];

        if (uscf->srv_conf) {
            return ngx_http_conf_upstream_srv_conf(uscf,
                                              ngx_http_upstream_reuse_module);
        }
    }

    return NULL;
}


ngx_http_upstream_reuse_srv_conf_t *
ngx_http_upstream_reuse_find_conf(ngx_str_t *upstream)
{
    ngx_uint_t                            i;
    ngx_http_upstream_main_conf_t        *umcf;
    ngx_http_upstream_reuse_srv_conf_t   *rcf;

    umcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_upstream_module);

    i = 0;

    while ((rcf = ngx_http_upstream_reuse_next_conf(umcf, &i))) {

        if (ngx_http_upstream_reuse_same_name(&rcf->name, upstream)) {
            return rcf;
        }
    }

    return NULL;
}


ngx_uint_t
ngx_http_upstream_reuse_same_name(ngx_str_t *a, ngx_str_t *b)
{
    return a->len == b->len
           && (a->len == 0 || ngx_memcmp(a->data, b->data, a->len) == 0);
}
