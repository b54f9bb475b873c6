
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A request may come here when another handler has had it: by an error_page,
 * by X-Accel-Redirect, or as a subrequest.  nginx reads a body once, so what
 * that handler has left in r->request_body is all there is.  A handler that
 * does not buffer takes the bufs out of it as it sends them, and what the
 * client has not sent yet is not read any more.
 */


#include "ngx_http_myproxy_module.h"


static ngx_int_t check_body(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf);
static ngx_uint_t is_made_by_nginx(ngx_http_request_t *r);
static ngx_uint_t is_whole(ngx_http_request_t *r);
static ngx_uint_t was_discarded(ngx_http_request_t *r);


ngx_uint_t
ngx_http_myproxy_repeats_body(ngx_http_complex_value_t *body)
{
    u_char      *p, *last;
    ngx_str_t    name;
    ngx_uint_t   braced;

    p = body->value.data;
    last = p + body->value.len;

    while (p < last) {

        if (*p++ != '$') {
            continue;
        }

        braced = (p < last && *p == '{');

        if (braced) {
            p++;
        }

        name.data = p;

        while (p < last
               && ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')
                   || (*p >= '0' && *p <= '9') || *p == '_'))
        {
            p++;
        }

        name.len = p - name.data;

        if (name.len == sizeof("request_body") - 1
            && ngx_strncasecmp(name.data, (u_char *) "request_body", name.len)
               == 0)
        {
            return 1;
        }
    }

    return 0;
}


ngx_int_t
ngx_http_myproxy_read_body(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_http_myproxy_loc_conf_t *mlcf)
{
    ngx_int_t  rc;

    r->request_body_no_buffering = 0;

    if (r->request_body == NULL
        && r->headers_in.content_length_n < 0
        && !r->headers_in.chunked
        && r->headers_in.expect == NULL)
    {
        /* there is nothing to read, which core would find out at length */

        ctx->no_body.rest = -1;
        ctx->no_body.post_handler = ngx_http_myproxy_begin;

        r->request_body = &ctx->no_body;

        r->main->count++;

        ngx_http_myproxy_begin(r);

        return NGX_DONE;
    }

    if (r->request_body || was_discarded(r)) {
        rc = check_body(r, ctx, mlcf);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    /* a body of unknown length takes chunked, which HTTP/1.0 does not have */

    if (!mlcf->upstream.request_buffering
        && mlcf->upstream.pass_request_body
        && mlcf->body == NULL
        && (!r->headers_in.chunked
            || mlcf->http_version == NGX_HTTP_VERSION_11))
    {
        r->request_body_no_buffering = 1;
    }

    rc = ngx_http_read_client_request_body(r, ngx_http_myproxy_begin);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;
}


/*
 * A GET that nginx itself has made, for the URI of an error_page or of
 * X-Accel-Redirect or as a subrequest, needs no body: it goes without.
 */

static ngx_int_t
check_body(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_http_myproxy_loc_conf_t *mlcf)
{
    if (mlcf->body ? !mlcf->repeats_body : !mlcf->upstream.pass_request_body) {
        return NGX_OK;
    }

    if (is_whole(r)) {
        return NGX_OK;
    }

    if (is_made_by_nginx(r)) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                       "myproxy: GET without what is left of the body");

        ctx->without_body = 1;

        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "the request is not sent: its body is not complete, because "
                  "the location that handled it first did not buffer it, or "
                  "refused or discarded it; write "
                  "\"myproxy_request_buffering on\", or what does the same "
                  "for another handler, in that first location; for responses "
                  "such as 413 let its \"error_page\" name a URI in place of "
                  "a named location");

    return NGX_HTTP_BAD_GATEWAY;
}


/*
 * The linker may have made one of all strings "GET", so that the method of an
 * HTTP/2 client has the same address.  In a named location it is still that
 * of the client.
 */

static ngx_uint_t
is_made_by_nginx(ngx_http_request_t *r)
{
    ngx_http_core_loc_conf_t  *clcf;

    if (r->method_name.data != ngx_http_core_get_method.data) {
        return 0;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    return r != r->main
           || !clcf->named
           || ngx_strncmp(r->request_line.data, "GET ", 4) != 0;
}


static ngx_uint_t
is_whole(ngx_http_request_t *r)
{
    off_t                     size, length;
    ngx_chain_t              *cl;
    ngx_http_request_t       *mr;
    ngx_http_request_body_t  *rb;

    mr = r->main;
    rb = r->request_body;

    if (rb == NULL) {

        /* discarded */

        return 0;
    }

    if (r != mr && rb != mr->request_body) {

        /* what made the subrequest has given it a body of its own, or none */

        return 1;
    }

    if (rb->rest > 0 || rb->post_handler == NULL) {

        /* not read to its end, or only to discard its chunks */

        return 0;
    }

    if (rb->temp_file && rb->temp_file->file.fd == NGX_INVALID_FILE) {

        /* closed when the response to the main request began */

        return 0;
    }

    size = 0;

    for (cl = rb->bufs; cl; cl = cl->next) {
        size += ngx_buf_size(cl->buf);
    }

    length = mr->headers_in.content_length_n;

    if (length < 0) {

        /* HTTP/2 and HTTP/3 bodies of unknown length */

        length = rb->received;
    }

    return size == length;
}


/* A body can be discarded when no one has read it, and then leaves nothing. */

static ngx_uint_t
was_discarded(ngx_http_request_t *r)
{
    ngx_table_elt_t  *h;

    if (r != r->main) {
        return 0;
    }

#if (NGX_HTTP_V2)

    if (r->stream && r->stream->skip_data) {
        return r->headers_in.content_length_n != 0;
    }

#endif

    if (r->discard_body) {
        return 1;
    }

    if (r->headers_in.content_length_n != 0) {
        return 0;
    }

    /* nginx counts the length down to 0 as it discards */

    h = r->headers_in.content_length;

    return h && ngx_atoof(h->value.data, h->value.len) > 0;
}
