
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"
#include "ngx_http_upstream_reuse_module.h"


/* of 1xx responses before the final one, for each attempt */
#define NGX_HTTP_MYPROXY_MAX_INTERIM  65536


static ngx_int_t process_header(ngx_http_request_t *r);
static ngx_int_t read_status_line(ngx_http_request_t *r);
static ngx_int_t invalid_status(ngx_http_request_t *r, const char *reason);
static ngx_int_t save_status_line(ngx_http_request_t *r,
    ngx_http_status_t *status);
static ngx_int_t read_header(ngx_http_request_t *r);
static ngx_int_t read_line(ngx_http_request_t *r, ngx_buf_t *b,
    ngx_table_elt_t **field);
static ngx_uint_t is_skipped(ngx_uint_t code);
static ngx_int_t end_interim(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx);
static u_char *response_start(ngx_http_request_t *r);
static ngx_int_t process_header_done(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx);
static void end_without_body(ngx_http_request_t *r);
static void hide_length(ngx_http_request_t *r);
static ngx_uint_t is_whole(ngx_http_request_t *r);
static ngx_int_t add_placeholder(ngx_http_request_t *r, const char *name,
    const char *lowcase);


ngx_int_t
ngx_http_myproxy_process_status_line(ngx_http_request_t *r)
{
    ngx_int_t  rc;

    do {
        rc = read_status_line(r);

        if (rc == NGX_OK) {
            r->upstream->process_header = process_header;
            rc = read_header(r);
        }

    } while (rc == NGX_DECLINED);

    return rc;
}


static ngx_int_t
process_header(ngx_http_request_t *r)
{
    ngx_int_t  rc;

    rc = read_header(r);

    if (rc == NGX_DECLINED) {
        return ngx_http_myproxy_process_status_line(r);
    }

    return rc;
}


static ngx_int_t
read_status_line(ngx_http_request_t *r)
{
    ngx_int_t                     rc;
    ngx_http_status_t            *status;
    ngx_http_upstream_t          *u;
    ngx_http_myproxy_ctx_t       *ctx;
    ngx_http_myproxy_loc_conf_t  *mlcf;

    u = r->upstream;
    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_myproxy_module);
    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);
    status = &ctx->status;

    /*
     * What comes before the request is no answer to it; before the handshake
     * it need not even be the origin's (CVE-2026-1642).  It is taken out of
     * the buffer: before nginx 1.28.2 and 1.29.5 core does not call
     * reinit_request behind an attempt whose request was not sent.
     */

    if (!u->request_sent && !ngx_http_myproxy_cached(r)) {
        u->buffer.last = u->buffer.pos;

        return ngx_http_myproxy_invalid(r, "data before the request");
    }

    rc = ngx_http_myproxy_read_status(r, &u->buffer, status);

    if (rc == NGX_DECLINED) {
        rc = ngx_http_parse_status_line(r, &u->buffer, status);
    }

    if (rc == NGX_AGAIN) {
        return rc;
    }

    if (rc != NGX_OK) {
        return invalid_status(r, "no HTTP/1.x status line");
    }

    if (status->http_version < NGX_HTTP_VERSION_10
        || status->http_version >= NGX_HTTP_VERSION_20)
    {
        return invalid_status(r,
                              "a status line of another version than "
                              "HTTP/1.x");
    }

    /* nginx's parser lets blanks pass between the digits */

    if (status->code < 100
        || status->start[0] != '0' + status->code / 100
        || status->start[1] != '0' + status->code / 10 % 10)
    {
        return invalid_status(r, "an invalid status code");
    }

    if (ngx_http_myproxy_is_interim(status->code)) {
        return NGX_OK;
    }

    if (u->state && u->state->status == 0) {
        u->state->status = status->code;
    }

    u->headers_in.status_n = status->code;

    if (save_status_line(r, status) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "myproxy status %ui \"%V\"",
                   u->headers_in.status_n, &u->headers_in.status_line);

    if (status->http_version < NGX_HTTP_VERSION_11 || mlcf->closes) {
        u->headers_in.connection_close = 1;

        ngx_http_upstream_reuse_explain(r,
                            mlcf->closes
                            ? NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONFIGURED
                            : NGX_HTTP_UPSTREAM_REUSE_CLOSE_HTTP10);
    }

    return NGX_OK;
}


static ngx_int_t
invalid_status(ngx_http_request_t *r, const char *reason)
{
    return ngx_http_myproxy_invalid_line(r, reason, response_start(r),
                                         r->upstream->buffer.last);
}


static ngx_int_t
save_status_line(ngx_http_request_t *r, ngx_http_status_t *status)
{
    size_t            len;
    ngx_str_t        *line;
    static ngx_str_t  ok = ngx_string("200 OK");

    line = &r->upstream->headers_in.status_line;
    len = status->end - status->start;

    if (len == ok.len && ngx_memcmp(status->start, ok.data, len) == 0) {
        *line = ok;
        return NGX_OK;
    }

    line->len = len;
    line->data = ngx_pnalloc(r->pool, len);
    if (line->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(line->data, status->start, len);

    return NGX_OK;
}


/* NGX_DECLINED: another status line follows an interim response */

static ngx_int_t
read_header(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    ngx_uint_t               skipped;
    ngx_table_elt_t         *h;
    ngx_http_upstream_t     *u;
    ngx_http_myproxy_ctx_t  *ctx;

    u = r->upstream;
    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    skipped = is_skipped(ctx->status.code);

    for ( ;; ) {

        rc = skipped ? NGX_DECLINED
                     : ngx_http_myproxy_read_fields(r, ctx, &u->buffer,
                                                    &u->headers_in.headers);

        if (rc == NGX_DECLINED) {
            h = NULL;
            rc = read_line(r, &u->buffer, skipped ? NULL : &h);

            if (rc == NGX_OK && h) {
                rc = ngx_http_myproxy_process_field(r, ctx, h, NULL);
            }
        }

        if (rc == NGX_OK) {
            continue;
        }

        if (rc != NGX_DONE) {
            return rc;
        }

        if (ctx->response_options) {
            ngx_http_myproxy_drop_options(ctx, &u->headers_in.headers);
        }

        return ngx_http_myproxy_is_interim(ctx->status.code)
               ? end_interim(r, ctx) : process_header_done(r, ctx);
    }
}


/*
 * Any line; field is NULL if its content is of no interest.  NGX_DONE: the
 * header is over.
 */

static ngx_int_t
read_line(ngx_http_request_t *r, ngx_buf_t *b, ngx_table_elt_t **field)
{
    u_char     *line;
    ngx_int_t   rc;

    /* nginx's parser leaves out a line that looks like a status line */

    line = r->state ? r->header_name_start : b->pos;

    if (b->last - line >= 5 && ngx_strncmp(line, "HTTP/", 5) == 0) {
        return ngx_http_myproxy_invalid_line(r,
                                        "a second status line in the header",
                                        line, b->last);
    }

    rc = ngx_http_myproxy_parse_line(r, b);

    switch (rc) {

    case NGX_OK:
        return field ? ngx_http_myproxy_add_field(r,
                                          &r->upstream->headers_in.headers,
                                          field)
                     : ngx_http_myproxy_check_name(r);

    case NGX_HTTP_PARSE_HEADER_DONE:
        return NGX_DONE;

    case NGX_AGAIN:
        return NGX_AGAIN;

    default:
        return ngx_http_myproxy_invalid_parsed(r, "invalid header", b);
    }
}


/* An interim response that nginx has no use for. */

static ngx_uint_t
is_skipped(ngx_uint_t code)
{
    return ngx_http_myproxy_is_interim(code)
           && code != NGX_HTTP_MYPROXY_PASSED_INTERIM;
}


/*
 * A 1xx response is taken out of the buffer, where a cache file expects the
 * final one to begin.  nginx does so itself with the one that it passes on.
 */

static ngx_int_t
end_interim(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx)
{
    u_char      *start;
    size_t       rest;
    ngx_buf_t   *b;
    ngx_uint_t   skipped;

    b = &r->upstream->buffer;
    start = response_start(r);
    skipped = is_skipped(ctx->status.code);

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "myproxy %s interim response %ui",
                   skipped ? "skipped" : "passed", ctx->status.code);

    ctx->response_options = NULL;

    ngx_memzero(&ctx->status, sizeof(ngx_http_status_t));
    r->state = 0;

    r->upstream->process_header = ngx_http_myproxy_process_status_line;

    ctx->interim += b->pos - start;

    if (ctx->interim > NGX_HTTP_MYPROXY_MAX_INTERIM) {
        return ngx_http_myproxy_invalid(r, "too many interim responses");
    }

    if (!skipped) {
        return NGX_HTTP_MYPROXY_EARLY_HINTS;
    }

    rest = b->last - b->pos;

    ngx_memmove(start, b->pos, rest);

    b->pos = start;
    b->last = start + rest;

    return rest ? NGX_DECLINED : NGX_AGAIN;
}


/* where in the buffer the status line of the current response begins */

static u_char *
response_start(ngx_http_request_t *r)
{
    u_char  *start;

    start = r->upstream->buffer.start;

#if (NGX_HTTP_CACHE)
    if (r->cache) {
        start += r->cache->header_start;
    }
#endif

    return start;
}


static ngx_int_t
process_header_done(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx)
{
    ngx_uint_t                       status;
    ngx_http_upstream_t             *u;
    ngx_http_myproxy_loc_conf_t     *mlcf;
    ngx_http_upstream_headers_in_t  *in;

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "myproxy header done");

    u = r->upstream;
    in = &u->headers_in;
    status = in->status_n;

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_myproxy_module);

    if (mlcf->pass_server && in->server == NULL
        && add_placeholder(r, "Server", "server") != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (mlcf->pass_date && in->date == NULL
        && add_placeholder(r, "Date", "date") != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* from the cache: there is no connection that this could tell about */

    if (ngx_http_myproxy_cached(r)) {
        return NGX_OK;
    }

    if (status == NGX_HTTP_SWITCHING_PROTOCOLS) {

        if (!ctx->upgrading || !ngx_http_myproxy_may_upgrade(r)) {
            return ngx_http_myproxy_invalid(r,
                                            "101 without being asked to "
                                            "switch protocols");
        }

        u->upgrade = 1;

        return NGX_OK;
    }

    ngx_http_myproxy_end_sending(r);

    if (ctx->head && r->method != NGX_HTTP_HEAD) {
        hide_length(r);
    }

    /* the path may be made of a field that is hidden now */

    if (u->store
        && u->conf->store_lengths
        && ngx_http_myproxy_check_store(r) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_myproxy_bodiless(u, ctx)
        || (!in->chunked && in->content_length_n == 0))
    {
        end_without_body(r);

    } else if ((r->header_only || in->x_accel_redirect) && is_whole(r)) {

        /* the body may be left unread: keep the connection if it is here */

        ngx_http_myproxy_keep(u);
    }

    return ngx_http_myproxy_prepare_body(r, ctx);
}


/*
 * Nothing is read behind the header of a response without body, as to HEAD:
 * what has come with it is looked at here.
 */

static void
end_without_body(ngx_http_request_t *r)
{
    ngx_uint_t                       excess;
    ngx_http_upstream_t             *u;
    ngx_http_upstream_headers_in_t  *in;

    u = r->upstream;
    in = &u->headers_in;
    excess = 0;

    if (u->buffer.pos != u->buffer.last) {
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "upstream sent data after a response without body");
        excess = 1;
    }

    if (in->status_n == NGX_HTTP_NO_CONTENT
        && (in->chunked || in->content_length_n > 0))
    {
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "upstream announced a body for 204, which has none");
        excess = 1;
    }

    if (excess) {
        in->connection_close = 1;

        ngx_http_upstream_reuse_explain(r,
                                        NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXCESS);
    }

    ngx_http_myproxy_keep(u);
}


/*
 * "myproxy_method HEAD" where the client has asked for a body: there will be
 * none, whatever length it would have.
 */

static void
hide_length(ngx_http_request_t *r)
{
    ngx_http_upstream_headers_in_t  *in;

    in = &r->upstream->headers_in;

    if (in->content_length) {
        in->content_length->hash = 0;
    }

    in->content_length_n = 0;
    r->upstream->cacheable = 0;
}


/* Tells whether the buffer holds the response's body and nothing else. */

static ngx_uint_t
is_whole(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_buf_t             b;
    ngx_http_chunked_t    chunked;
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (!u->headers_in.chunked) {
        return u->headers_in.content_length_n
               == (off_t) (u->buffer.last - u->buffer.pos);
    }

    b = u->buffer;
    ngx_memzero(&chunked, sizeof(ngx_http_chunked_t));

    for ( ;; ) {

        rc = ngx_http_myproxy_parse_chunked(r, &b, &chunked, 0);

        if (rc != NGX_OK) {
            return rc == NGX_DONE && b.pos == b.last;
        }

        if (chunked.size > b.last - b.pos) {
            return 0;
        }

        b.pos += (size_t) chunked.size;
        chunked.size = 0;
    }
}


/*
 * Keeps nginx from writing its own Server or Date where the operator wants
 * the origin's and it has sent none.
 */

static ngx_int_t
add_placeholder(ngx_http_request_t *r, const char *name, const char *lowcase)
{
    size_t            len;
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->upstream->headers_in.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    len = ngx_strlen(name);

    h->key.data = (u_char *) name;
    h->key.len = len;
    ngx_str_null(&h->value);
    h->lowcase_key = (u_char *) lowcase;
    h->hash = ngx_hash_key(h->lowcase_key, len);
    ngx_http_myproxy_unlink_header(h);

    return NGX_OK;
}
