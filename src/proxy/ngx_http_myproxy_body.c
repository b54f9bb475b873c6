
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Three ways for a body to reach the client: through the event pipe, which
 * buffers, directly, and at once if all of it has come with the header.  They
 * set u->keepalive only when they have seen the end of the response and
 * nothing behind it.
 *
 * A filter may put another response in the place of this one; core then takes
 * all contexts from the request (ngx_http_filter_finalize_request()).
 */


#include "ngx_http_myproxy_module.h"
#include "ngx_http_upstream_reuse_module.h"


/*
 * Bytes of a chunk up to which it is moved to the data before it: only framing
 * that has been read is between them.  An origin that sends tiny chunks would
 * otherwise have us make a buf for six bytes.
 */

#define NGX_HTTP_MYPROXY_MOVED_CHUNK  256


static ngx_int_t filter_init(void *data);
static ngx_uint_t is_at_hand(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx);
static ngx_int_t whole_init(void *data);
static ngx_int_t send_whole(void *data, ssize_t bytes);
static ngx_int_t pipe_copy(ngx_event_pipe_t *p, ngx_buf_t *buf);
static ngx_int_t pipe_chunked(ngx_event_pipe_t *p, ngx_buf_t *buf);
static ngx_buf_t *pipe_append(ngx_event_pipe_t *p, ngx_buf_t *raw,
    u_char *pos, u_char *last);
static ngx_int_t direct_copy(void *data, ssize_t bytes);
static ngx_int_t direct_chunked(void *data, ssize_t bytes);
static ngx_buf_t *direct_append(ngx_http_request_t *r, ngx_chain_t ***link,
    u_char *pos, u_char *last);
static void end_of_pipe(ngx_event_pipe_t *p, ngx_uint_t excess);
static void end_of_body(ngx_http_request_t *r, ngx_uint_t excess);
static ngx_int_t invalid_chunk(ngx_http_request_t *r);


ngx_int_t
ngx_http_myproxy_prepare_body(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (!u->buffering) {
        return NGX_OK;
    }

    if (!is_at_hand(r, ctx)) {
        return ngx_http_myproxy_create_pipe(r);
    }

    /* core lifts the limit from what it does not buffer */

    ctx->limit_rate = r->limit_rate;
    ctx->limit_rate_set = r->limit_rate_set;

    u->buffering = 0;
    u->input_filter_init = whole_init;
    u->input_filter = send_whole;

    return NGX_OK;
}


/*
 * Tells whether the response has come whole with its header, with nothing
 * behind it, and goes to nobody but the client.
 */

static ngx_uint_t
is_at_hand(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

#if (NGX_HTTP_CACHE)
    if (r->cache) {
        return 0;
    }
#endif

    return u->headers_in.content_length_n > 0
           && u->headers_in.content_length_n
              == (off_t) (u->buffer.last - u->buffer.pos)
           && !ngx_http_myproxy_bodiless(u, ctx)
           && !u->peer.connection->read->ready
           && !u->store
           && !r->subrequest_in_memory;
}


ngx_int_t
ngx_http_myproxy_create_pipe(ngx_http_request_t *r)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (u->pipe) {
        return NGX_OK;
    }

    u->pipe = ngx_pcalloc(r->pool, sizeof(ngx_event_pipe_t));
    if (u->pipe == NULL) {
        return NGX_ERROR;
    }

    u->pipe->input_ctx = r;

    return NGX_OK;
}


/*
 * Sets how much is to be read (RFC 9112, section 6.3): u->length and
 * pipe->length are the bytes left, or the least that is missing, or -1 for a
 * body that ends with the connection.
 */

static ngx_int_t
filter_init(void *data)
{
    ngx_http_request_t  *r = data;

    ngx_http_upstream_t     *u;
    ngx_http_myproxy_ctx_t  *ctx;

    u = r->upstream;
    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    if (ctx == NULL) {
        return NGX_ERROR;
    }

    ngx_log_debug4(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "myproxy filter init status:%ui head:%d chunked:%d "
                   "length:%O",
                   u->headers_in.status_n, ctx->head, u->headers_in.chunked,
                   u->headers_in.content_length_n);

    if (ngx_http_myproxy_bodiless(u, ctx)) {
        u->length = 0;

    } else if (u->headers_in.chunked) {

        if (u->buffering) {
            u->pipe->input_filter = pipe_chunked;
            u->pipe->length = 3;  /* "0" LF LF */
        }

        u->input_filter = direct_chunked;
        u->length = 1;

        return NGX_OK;

    } else {
        u->length = u->headers_in.content_length_n;
    }

    if (u->buffering) {
        u->pipe->input_filter = pipe_copy;
        u->pipe->length = u->length;
    }

    return NGX_OK;
}


void
ngx_http_myproxy_reset_body(ngx_http_upstream_t *u)
{
    if (u->input_filter_init == whole_init) {
        u->buffering = 1;
    }

    u->input_filter_init = filter_init;
    u->input_filter = direct_copy;
}


/* Undoes what core does about a client that it does not buffer for. */

static ngx_int_t
whole_init(void *data)
{
    ngx_http_request_t  *r = data;

    ngx_http_myproxy_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    if (ctx == NULL) {
        return NGX_ERROR;
    }

    r->limit_rate = ctx->limit_rate;
    r->limit_rate_set = ctx->limit_rate_set;

    /* a system call is going to be made unless it seems useless */

    if (r->connection->tcp_nodelay == NGX_TCP_NODELAY_UNSET) {
        r->connection->tcp_nodelay = NGX_TCP_NODELAY_DISABLED;
        ctx->nodelay_unset = 1;
    }

    return NGX_OK;
}


/*
 * The body goes to the client's filters in the buffer where it is, and with
 * it the end of the response, but for trailers: they may tell of what is known
 * when core has finished.  Whatever the client does not take yet waits there;
 * the connection to the origin is free.
 */

static ngx_int_t
send_whole(void *data, ssize_t bytes)
{
    ngx_http_request_t  *r = data;

    ngx_uint_t               last;
    ngx_chain_t             *out;
    ngx_http_upstream_t     *u;
    ngx_http_myproxy_ctx_t  *ctx;

    u = r->upstream;
    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);
    last = !r->expect_trailers;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "myproxy whole response of %z", bytes);

    if (ctx->nodelay_unset) {
        r->connection->tcp_nodelay = NGX_TCP_NODELAY_UNSET;
    }

    out = ngx_alloc_chain_link(r->pool);
    if (out == NULL) {
        return NGX_ERROR;
    }

    out->buf = &u->buffer;
    out->next = NULL;

    u->buffer.last += bytes;
    u->buffer.last_buf = (last && r == r->main);
    u->buffer.last_in_chain = last;

    u->length = 0;
    end_of_body(r, 0);

    r->connection->log->action = "sending to client";

    if (ngx_http_output_filter(r, out) == NGX_ERROR) {

        if (u->cleanup == NULL) {

            /* a redirect has been there already; core counts it out again */

            r->main->count++;
        }

        return NGX_ERROR;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    if (ctx) {
        ctx->ended = last;
    }

    return NGX_OK;
}


static ngx_int_t
pipe_copy(ngx_event_pipe_t *p, ngx_buf_t *buf)
{
    off_t        size;
    ngx_buf_t   *b;
    ngx_uint_t   excess;

    size = buf->last - buf->pos;

    if (size == 0 || p->upstream_done) {
        return NGX_OK;
    }

    if (p->length == 0) {
        end_of_pipe(p, 1);
        return NGX_OK;
    }

    excess = (p->length != -1 && size > p->length);

    if (excess) {
        size = p->length;
    }

    b = pipe_append(p, buf, buf->pos, buf->pos + size);
    if (b == NULL) {
        return NGX_ERROR;
    }

    buf->shadow = b;
    b->shadow = buf;
    b->last_shadow = 1;

    if (p->length == -1) {
        return NGX_OK;
    }

    p->length -= size;

    if (p->length == 0) {
        end_of_pipe(p, excess);
    }

    return NGX_OK;
}


static ngx_int_t
pipe_chunked(ngx_event_pipe_t *p, ngx_buf_t *buf)
{
    size_t                   size;
    ngx_int_t                rc;
    ngx_buf_t               *b, **link;
    ngx_http_request_t      *r;
    ngx_http_myproxy_ctx_t  *ctx;

    if (buf->pos == buf->last || p->upstream_done) {
        return NGX_OK;
    }

    r = p->input_ctx;
    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    if (ctx == NULL) {
        return NGX_ERROR;
    }

    if (p->length == 0) {
        end_of_pipe(p, 1);
        return NGX_OK;
    }

    /* the raw buf is shadowed by all that is found in it, in a ring */

    b = NULL;
    link = &buf->shadow;

    for ( ;; ) {

        rc = ngx_http_myproxy_read_chunk(r, ctx, buf);

        if (rc != NGX_OK) {
            break;
        }

        size = ngx_min((off_t) (buf->last - buf->pos), ctx->chunked.size);

        if (b && size <= NGX_HTTP_MYPROXY_MOVED_CHUNK) {
            b->last = ngx_movemem(b->last, buf->pos, size);

        } else {
            b = pipe_append(p, buf, buf->pos, buf->pos + size);
            if (b == NULL) {
                return NGX_ERROR;
            }

            *link = b;
            link = &b->shadow;
        }

        buf->pos += size;
        ctx->chunked.size -= size;
    }

    switch (rc) {

    case NGX_AGAIN:
        p->length = ctx->in_trailers ? 1 : ctx->chunked.length;
        break;

    case NGX_DONE:
        p->length = 0;
        end_of_pipe(p, buf->pos != buf->last);
        break;

    default:
        return invalid_chunk(r);
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, p->log, 0,
                   "myproxy chunked state %ui, length %O",
                   ctx->chunked.state, p->length);

    if (b == NULL) {
        return ngx_event_pipe_add_free_buf(p, buf);
    }

    b->shadow = buf;
    b->last_shadow = 1;

    return NGX_OK;
}


/* Appends to p->in a buf that stands for a part of the raw one. */

static ngx_buf_t *
pipe_append(ngx_event_pipe_t *p, ngx_buf_t *raw, u_char *pos, u_char *last)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    cl = ngx_chain_get_free_buf(p->pool, &p->free);
    if (cl == NULL) {
        return NULL;
    }

    b = cl->buf;

    ngx_memzero(b, sizeof(ngx_buf_t));

    b->pos = pos;
    b->last = last;
    b->start = raw->start;
    b->end = raw->end;
    b->tag = p->tag;
    b->temporary = 1;
    b->recycled = 1;
    b->num = raw->num;

    if (p->in) {
        *p->last_in = cl;

    } else {
        p->in = cl;
    }

    p->last_in = &cl->next;

    ngx_log_debug2(NGX_LOG_DEBUG_EVENT, p->log, 0,
                   "myproxy input buf #%d, %z", b->num, last - pos);

    return b;
}


static ngx_int_t
direct_copy(void *data, ssize_t bytes)
{
    ngx_http_request_t  *r = data;

    u_char                *pos;
    ngx_uint_t             excess;
    ngx_chain_t          **link;
    ngx_http_upstream_t   *u;

    u = r->upstream;

    if (u->length == 0) {
        end_of_body(r, 1);
        return NGX_OK;
    }

    /* all of it is taken, also what is not passed on */

    pos = u->buffer.last;
    u->buffer.last += bytes;

    excess = (u->length != -1 && bytes > u->length);

    if (excess) {
        bytes = (ssize_t) u->length;
    }

    for (link = &u->out_bufs; *link; link = &(*link)->next) { /* void */ }

    if (direct_append(r, &link, pos, pos + bytes) == NULL) {
        return NGX_ERROR;
    }

    if (u->length == -1) {
        return NGX_OK;
    }

    u->length -= bytes;

    if (u->length == 0) {
        end_of_body(r, excess);
    }

    return NGX_OK;
}


static ngx_int_t
direct_chunked(void *data, ssize_t bytes)
{
    ngx_http_request_t  *r = data;

    size_t                    size;
    ngx_int_t                 rc;
    ngx_buf_t                *b, *buf;
    ngx_chain_t             **link;
    ngx_http_upstream_t      *u;
    ngx_http_myproxy_ctx_t   *ctx;

    u = r->upstream;
    buf = &u->buffer;
    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    if (ctx == NULL) {
        return NGX_ERROR;
    }

    buf->pos = buf->last;
    buf->last += bytes;

    if (u->length == 0) {
        end_of_body(r, 1);
        return NGX_OK;
    }

    b = NULL;
    for (link = &u->out_bufs; *link; link = &(*link)->next) { /* void */ }

    for ( ;; ) {

        rc = ngx_http_myproxy_read_chunk(r, ctx, buf);

        if (rc != NGX_OK) {
            break;
        }

        size = ngx_min((off_t) (buf->last - buf->pos), ctx->chunked.size);

        if (b && size <= NGX_HTTP_MYPROXY_MOVED_CHUNK) {
            b->last = ngx_movemem(b->last, buf->pos, size);

        } else {
            b = direct_append(r, &link, buf->pos, buf->pos + size);
            if (b == NULL) {
                return NGX_ERROR;
            }
        }

        buf->pos += size;
        ctx->chunked.size -= size;
    }

    switch (rc) {

    case NGX_AGAIN:
        return NGX_OK;

    case NGX_DONE:
        u->length = 0;
        end_of_body(r, buf->pos != buf->last);
        return NGX_OK;

    default:
        return invalid_chunk(r);
    }
}


/*
 * Puts a buf that stands for a part of u->buffer behind the last link of
 * u->out_bufs, and sets *link to the new end.
 */

static ngx_buf_t *
direct_append(ngx_http_request_t *r, ngx_chain_t ***link, u_char *pos,
    u_char *last)
{
    ngx_buf_t            *b;
    ngx_chain_t          *cl;
    ngx_http_upstream_t  *u;

    u = r->upstream;

    cl = ngx_chain_get_free_buf(r->pool, &u->free_bufs);
    if (cl == NULL) {
        return NULL;
    }

    **link = cl;
    *link = &cl->next;

    b = cl->buf;

    b->flush = 1;
    b->memory = 1;
    b->pos = pos;
    b->last = last;
    b->tag = u->output.tag;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "myproxy out buf %z", last - pos);

    return b;
}


/* Behind an early response nothing is read: a reset may follow. */

static void
end_of_pipe(ngx_event_pipe_t *p, ngx_uint_t excess)
{
    ngx_http_request_t  *r = p->input_ctx;

    end_of_body(r, excess);
    p->upstream_done = excess || !r->upstream->request_body_sent;
}


static void
end_of_body(ngx_http_request_t *r, ngx_uint_t excess)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (excess && !u->headers_in.connection_close) {
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "upstream sent data after the end of the response");

        u->headers_in.connection_close = 1;

        ngx_http_upstream_reuse_explain(r,
                                        NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXCESS);
    }

    ngx_http_myproxy_keep(u);
}


static ngx_int_t
invalid_chunk(ngx_http_request_t *r)
{
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "upstream sent an invalid chunked body");

    return NGX_ERROR;
}


void
ngx_http_myproxy_abort_request(ngx_http_request_t *r)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "myproxy abort request");
}


void
ngx_http_myproxy_finalize_request(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_http_myproxy_ctx_t  *ctx;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "myproxy finalize request: %i", rc);

    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    if (ctx && ctx->ended && rc == NGX_OK) {

        /* core ends no response whose header it has not sent */

        r->upstream->header_sent = 0;
    }
}
