
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the client of a request is told that has waited for nothing.
 */


#include "ngx_http_upstream_reuse_limit.h"


#define NGX_HTTP_UPSTREAM_REUSE_RETRY_AFTER  "5"  /* seconds */


static ngx_uint_t reuse_stays_refused(ngx_http_request_t *r);


/* Without memory the client gets no advice. */

void
ngx_http_upstream_reuse_add_retry_after(ngx_http_request_t *r)
{
    ngx_table_elt_t  *h;

    if (!reuse_stays_refused(r)) {
        return;
    }

    h = ngx_list_push(&r->headers_out.headers);

    if (h) {
        h->hash = 1;
        ngx_str_set(&h->key, "Retry-After");
        ngx_str_set(&h->value, NGX_HTTP_UPSTREAM_REUSE_RETRY_AFTER);
        ngx_http_myproxy_unlink_header(h);
    }
}


/* Its "error_page" may have another answer, for which it is no advice. */

static ngx_uint_t
reuse_stays_refused(ngx_http_request_t *r)
{
    ngx_uint_t                 i;
    ngx_http_err_page_t       *page;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->error_pages == NULL
        || (r->error_page && !clcf->recursive_error_pages))
    {
        return 1;
    }

    page = clcf->error_pages->elts;

    for (i = 0; i < clcf->error_pages->nelts; i++) {
        if (page[i].status == NGX_HTTP_SERVICE_UNAVAILABLE) {
            return page[i].overwrite == -1
                   || page[i].overwrite == NGX_HTTP_SERVICE_UNAVAILABLE;
        }
    }

    return 1;
}
