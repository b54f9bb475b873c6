
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The chunked coding (RFC 9112, section 7.1): bodies of requests are written
 * in it, those of responses are read.
 */


#include "ngx_http_myproxy_module.h"


static ngx_int_t frame(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_chain_t **first, ngx_chain_t **ll, off_t size, ngx_uint_t last);
static ngx_chain_t *framing_buf(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, u_char *text, size_t len);
static ngx_chain_t *chunk_start(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, off_t size);
#if (NGX_HTTP_MYPROXY_TRAILERS)
static ngx_int_t parse_trailers(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_buf_t *buf);
#endif


ngx_int_t
ngx_http_myproxy_write_chunks(void *data, ngx_chain_t *in)
{
    ngx_http_request_t  *r = data;

    off_t                    size;
    ngx_int_t                rc;
    ngx_uint_t               last;
    ngx_chain_t             *out, *tl, **ll, **first;
    ngx_http_myproxy_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    if (ctx == NULL) {
        return NGX_ERROR;
    }

    out = NULL;
    ll = &out;
    first = NULL;
    size = 0;
    last = 0;

    for ( /* void */ ; in; in = in->next) {

        if (in->buf->last_buf) {
            in->buf->last_buf = 0;
            last = 1;
        }

        if (!ngx_buf_in_memory(in->buf) && !in->buf->in_file
            && !in->buf->flush && !in->buf->sync)
        {
            continue;
        }

        tl = ngx_alloc_chain_link(r->pool);
        if (tl == NULL) {
            return NGX_ERROR;
        }

        tl->buf = in->buf;
        tl->next = NULL;

        if (!ctx->header_sent) {
            ctx->header_sent = 1;

        } else {
            if (first == NULL) {
                first = ll;
            }

            size += ngx_buf_size(in->buf);
        }

        *ll = tl;
        ll = &tl->next;
    }

    if (frame(r, ctx, first, ll, size, last) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_myproxy_send_chain(r->upstream, out);

    ngx_chain_update_chains(r->pool, &ctx->free, &ctx->busy, &out,
                            (ngx_buf_tag_t) &ngx_http_myproxy_write_chunks);

    return rc;
}


/* first and ll: the links before and behind the data of the chunk */

static ngx_int_t
frame(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx, ngx_chain_t **first,
    ngx_chain_t **ll, off_t size, ngx_uint_t last)
{
    ngx_chain_t  *cl;

    if (size) {
        cl = chunk_start(r, ctx, size);
        if (cl == NULL) {
            return NGX_ERROR;
        }

        cl->next = *first;
        *first = cl;

        cl = framing_buf(r, ctx, (u_char *) CRLF, sizeof(CRLF) - 1);
        if (cl == NULL) {
            return NGX_ERROR;
        }

        *ll = cl;
        ll = &cl->next;
    }

    if (last) {
        cl = framing_buf(r, ctx, (u_char *) "0" CRLF CRLF,
                         sizeof("0" CRLF CRLF) - 1);
        if (cl == NULL) {
            return NGX_ERROR;
        }

        cl->buf->last_buf = 1;
        *ll = cl;
    }

    return NGX_OK;
}


/* a buf for constant text */

static ngx_chain_t *
framing_buf(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx, u_char *text,
    size_t len)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    cl = ngx_chain_get_free_buf(r->pool, &ctx->free);
    if (cl == NULL) {
        return NULL;
    }

    b = cl->buf;

    b->tag = (ngx_buf_tag_t) &ngx_http_myproxy_write_chunks;
    b->temporary = 0;
    b->memory = 1;
    b->last_buf = 0;
    b->pos = text;
    b->last = text + len;

    return cl;
}


/* a buf for a chunk's size; its memory stays with it when it is used again */

static ngx_chain_t *
chunk_start(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx, off_t size)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    cl = framing_buf(r, ctx, (u_char *) "", 0);
    if (cl == NULL) {
        return NULL;
    }

    b = cl->buf;

    if (b->start == NULL) {
        b->start = ngx_palloc(r->pool, sizeof("ffffffffffffffff" CRLF) - 1);
        if (b->start == NULL) {
            return NULL;
        }

        b->end = b->start + sizeof("ffffffffffffffff" CRLF) - 1;
    }

    b->memory = 0;
    b->temporary = 1;
    b->pos = b->start;
    b->last = ngx_sprintf(b->start, "%xO" CRLF, size);

    return cl;
}


ngx_int_t
ngx_http_myproxy_read_chunk(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_buf_t *buf)
{
#if (NGX_HTTP_MYPROXY_TRAILERS)

    ngx_int_t                     rc;
    ngx_http_myproxy_loc_conf_t  *mlcf;

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_myproxy_module);

    if (ngx_http_myproxy_pass_trailers(mlcf)) {

        if (!ctx->in_trailers) {
            rc = ngx_http_myproxy_parse_chunked(r, buf, &ctx->chunked, 1);

            if (rc != NGX_DONE) {
                return rc;
            }

            ctx->in_trailers = 1;
            r->state = 0;
        }

        return parse_trailers(r, ctx, buf);
    }

#endif

    return ngx_http_myproxy_parse_chunked(r, buf, &ctx->chunked, 0);
}


#if (NGX_HTTP_MYPROXY_TRAILERS)

/*
 * A trailer section (RFC 9112, section 7.1.2) is parsed as a header is, in
 * memory of its own: the bufs of the body are passed on.
 */

static ngx_int_t
parse_trailers(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_buf_t *buf)
{
    size_t            size;
    ngx_int_t         rc;
    ngx_buf_t        *b;
    ngx_table_elt_t  *h;

    if (ctx->trailers == NULL) {
        ctx->trailers = ngx_create_temp_buf(r->pool,
                                            r->upstream->conf->buffer_size);
        if (ctx->trailers == NULL) {
            return NGX_ERROR;
        }
    }

    b = ctx->trailers;

    size = ngx_min(buf->last - buf->pos, b->end - b->last);

    b->last = ngx_cpymem(b->last, buf->pos, size);
    buf->pos += size;

    for ( ;; ) {

        rc = ngx_http_myproxy_parse_line(r, b);

        if (rc == NGX_OK) {

            if (ngx_http_myproxy_add_field(r,
                                           &r->upstream->headers_in.trailers,
                                           &h)
                != NGX_OK)
            {
                return NGX_ERROR;
            }

            if (ngx_http_myproxy_leave_hop(r, ctx, h) != NGX_OK) {
                return NGX_ERROR;
            }

            continue;
        }

        if (rc == NGX_HTTP_PARSE_HEADER_DONE) {

            if (ctx->response_options) {
                ngx_http_myproxy_drop_options(ctx,
                                           &r->upstream->headers_in.trailers);
            }

            /* what follows is nobody's */

            buf->pos -= b->last - b->pos;

            return NGX_DONE;
        }

        if (rc == NGX_AGAIN && b->last < b->end) {
            return NGX_AGAIN;
        }

        if (rc == NGX_AGAIN) {
            (void) ngx_http_myproxy_invalid(r, "too big trailers");

        } else {
            (void) ngx_http_myproxy_invalid_parsed(r, "an invalid trailer", b);
        }

        return NGX_ERROR;
    }
}

#endif
