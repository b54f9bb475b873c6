
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the log and the client are told of a request that has waited for
 * nothing.
 */


#include "ngx_http_upstream_reuse_limit.h"


#define NGX_HTTP_UPSTREAM_REUSE_RETRY_AFTER  "5"  /* seconds */


static ngx_uint_t reuse_stays_refused(ngx_http_request_t *r);


void
ngx_http_upstream_reuse_log_refused(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_refused_e reason)
{
    ngx_log_t                           *log;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    log = rp->request->connection->log;
    rcf = rp->conf;

    switch (reason) {

    case NGX_HTTP_UPSTREAM_REUSE_REFUSED_TIMEOUT:
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "request refused: no connection to upstream \"%V\" was "
                      "free within %M ms (\"timeout=\" of \"reuse_limit\")",
                      &rcf->name, rcf->queue_timeout);
        return;

    case NGX_HTTP_UPSTREAM_REUSE_REFUSED_FULL:

        if (ngx_http_upstream_reuse_bell == NGX_ERROR) {
            ngx_log_error(NGX_LOG_ERR, log, 0,
                          "request refused: all connections to upstream "
                          "\"%V\" that \"reuse_limit\" allows are in use, and "
                          "this worker process cannot have requests wait",
                          &rcf->name);
            return;
        }

        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "request refused: all connections to upstream \"%V\" "
                      "that \"reuse_limit\" allows are in use, and its queue "
                      "is full: %uA of %i wait", &rcf->name,
                      rcf->waiters->queue->waiting, rcf->queue);
        return;

    default: /* NGX_HTTP_UPSTREAM_REUSE_REFUSED_SHUTDOWN */
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "request refused: the worker process ends, and no "
                      "connection to upstream \"%V\" was free",
                      &rcf->name);
    }
}


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
