
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the fields of a response mean.
 */


#include "ngx_http_myproxy_module.h"
#include "ngx_http_upstream_reuse_module.h"


static ngx_int_t check_length(ngx_http_request_t *r, ngx_str_t *value);
static ngx_int_t check_coding(ngx_http_request_t *r, ngx_str_t *value);


ngx_int_t
ngx_http_myproxy_process_field(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_table_elt_t *h,
    ngx_http_myproxy_known_field_t *name)
{
    ngx_int_t                       rc;
    ngx_str_t                       low;
    ngx_http_myproxy_field_e        field;
    ngx_http_upstream_header_t     *hh;
    ngx_http_upstream_main_conf_t  *umcf;

    if (ngx_http_myproxy_is_interim(ctx->status.code)) {

        /* to be sent on at most, not to be acted on */

        return ngx_http_myproxy_leave_hop(r, ctx, h);
    }

    if (name && name->simple) {
        return name->header->handler(r, h, name->header->offset);
    }

    if (name) {
        field = name->field;
        hh = name->header;

    } else {
        low.len = h->key.len;
        low.data = h->lowcase_key;

        field = ngx_http_myproxy_find_field(&low);

        umcf = ngx_http_get_module_main_conf(r, ngx_http_upstream_module);

        hh = ngx_hash_find(&umcf->headers_in_hash, h->hash, low.data, low.len);
    }

    rc = NGX_OK;

    switch (field) {

    case NGX_HTTP_MYPROXY_CONNECTION:
        rc = ngx_http_myproxy_read_options(r, ctx, &h->value);
        break;

    case NGX_HTTP_MYPROXY_CONTENT_LENGTH:
        rc = check_length(r, &h->value);
        break;

    case NGX_HTTP_MYPROXY_KEEP_ALIVE:
        if (!ngx_http_myproxy_cached(r)) {
            ngx_http_upstream_reuse_hint(r, &h->value);
        }

        break;

    case NGX_HTTP_MYPROXY_TRANSFER_ENCODING:
        rc = check_coding(r, &h->value);
        break;

    case NGX_HTTP_MYPROXY_UPGRADE:

        if (ctx->status.code == NGX_HTTP_SWITCHING_PROTOCOLS) {
            break;
        }

        /* HTTP/2 and later have no such field (RFC 9113, section 8.2.2) */

        if (r->http_version >= NGX_HTTP_VERSION_20) {
            h->hash = 0;
        }

        return NGX_OK;

    case NGX_HTTP_MYPROXY_OTHER_FIELD:
        break;
    }

    if (rc != NGX_OK || hh == NULL) {
        return rc;
    }

    return hh->handler(r, h, hh->offset);
}


/*
 * How long the response is must be beyond doubt, or what follows it on the
 * connection belongs to nobody (RFC 9112, section 6.3).
 */

static ngx_int_t
check_length(ngx_http_request_t *r, ngx_str_t *value)
{
    ngx_http_upstream_headers_in_t  *in;

    in = &r->upstream->headers_in;

    if (in->content_length) {
        return ngx_http_myproxy_invalid(r, "more than one Content-Length");
    }

    if (in->transfer_encoding) {
        return ngx_http_myproxy_invalid(r, "both Transfer-Encoding and "
                                           "Content-Length");
    }

    if (ngx_atoof(value->data, value->len) == NGX_ERROR) {
        return ngx_http_myproxy_invalid_bytes(r, "invalid Content-Length",
                                              value->data,
                                              value->data + value->len);
    }

    return NGX_OK;
}


static ngx_int_t
check_coding(ngx_http_request_t *r, ngx_str_t *value)
{
    ngx_http_upstream_headers_in_t  *in;

    in = &r->upstream->headers_in;

    if (in->transfer_encoding) {
        return ngx_http_myproxy_invalid(r, "more than one Transfer-Encoding");
    }

    if (in->content_length) {
        return ngx_http_myproxy_invalid(r, "both Content-Length and "
                                           "Transfer-Encoding");
    }

    if (value->len != sizeof("chunked") - 1
        || ngx_strncasecmp(value->data, (u_char *) "chunked",
                           sizeof("chunked") - 1)
           != 0)
    {
        return ngx_http_myproxy_invalid_bytes(r, "unknown Transfer-Encoding",
                                              value->data,
                                              value->data + value->len);
    }

    return NGX_OK;
}
