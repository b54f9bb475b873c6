
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"


/* bytes of a body up to which one more copy is cheaper than one more buf */
#define NGX_HTTP_MYPROXY_COPIED_BODY  2048


/* what create_request has found before it writes */

typedef struct {
    ngx_http_myproxy_ctx_t          *ctx;
    ngx_http_myproxy_loc_conf_t     *conf;
    ngx_http_myproxy_fields_t       *fields;

    ngx_str_t                        method;
    ngx_str_t                        body;    /* myproxy_set_body */
    ngx_chain_t                     *copied;  /* a body to be copied */
    ngx_chain_t                     *bufs;    /* a body to be appended */
    ngx_str_t                       *values;
    size_t                           size;
} ngx_http_myproxy_plan_t;


static ngx_chain_t *create_buf(ngx_http_request_t *r, size_t size);
static ngx_int_t plan_request(ngx_http_request_t *r,
    ngx_http_myproxy_plan_t *plan);
static ngx_int_t plan_method(ngx_http_request_t *r,
    ngx_http_myproxy_plan_t *plan);
static ngx_int_t plan_body(ngx_http_request_t *r,
    ngx_http_myproxy_plan_t *plan);
static void plan_client_fields(ngx_http_request_t *r,
    ngx_http_myproxy_plan_t *plan);
static u_char *write_header(ngx_http_request_t *r, u_char *p,
    ngx_http_myproxy_plan_t *plan);
static u_char *write_client_fields(ngx_http_request_t *r, u_char *p,
    ngx_http_myproxy_plan_t *plan);
static u_char *write_field(u_char *p, ngx_table_elt_t *h);
static ngx_int_t append_body(ngx_http_request_t *r, ngx_chain_t *header,
    ngx_http_myproxy_plan_t *plan);


ngx_int_t
ngx_http_myproxy_create_request(ngx_http_request_t *r)
{
    ngx_buf_t                *b;
    ngx_chain_t              *cl;
    ngx_http_upstream_t      *u;
    ngx_http_myproxy_ctx_t   *ctx;
    ngx_http_myproxy_plan_t   plan;

    u = r->upstream;
    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    if (ctx->body_timer) {
        ngx_http_myproxy_restore_timer(r, ctx);
    }

    ngx_memzero(&plan, sizeof(ngx_http_myproxy_plan_t));

    if (plan_request(r, &plan) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ctx->lookup_conf && u->conf == ctx->lookup_conf) {
        u->conf = &plan.conf->upstream;
    }

    cl = create_buf(r, plan.size);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    b = cl->buf;

    b->last = write_header(r, b->last, &plan);

    u->uri = plan.ctx->uri;

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "myproxy request:%N\"%*s\"",
                   (size_t) (b->last - b->pos), b->pos);

    if (plan.body.len) {
        b->last = ngx_cpymem(b->last, plan.body.data, plan.body.len);
    }

    for ( /* void */ ; plan.copied; plan.copied = plan.copied->next) {
        b->last = ngx_cpymem(b->last, plan.copied->buf->pos,
                             plan.copied->buf->last - plan.copied->buf->pos);
    }

    if (append_body(r, cl, &plan) != NGX_OK) {
        return NGX_ERROR;
    }

    if (plan.ctx->chunked_body) {
        u->output.output_filter = ngx_http_myproxy_write_chunks;
        u->output.filter_ctx = r;

    } else if (cl->next == NULL && !r->request_body_no_buffering) {
        u->output.output_filter = ngx_http_myproxy_send_whole;
        u->output.filter_ctx = u;

    } else {
        u->output.output_filter = ngx_http_myproxy_send_chain;
        u->output.filter_ctx = u;
    }

    if (u->resolved) {
        ngx_http_myproxy_use_pool(r);
    }

    return NGX_OK;
}


/* A link, its buf and the buf's memory, in one piece. */

static ngx_chain_t *
create_buf(ngx_http_request_t *r, size_t size)
{
    u_char       *p;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    p = ngx_palloc(r->pool, sizeof(ngx_chain_t) + sizeof(ngx_buf_t) + size);
    if (p == NULL) {
        return NULL;
    }

    cl = (ngx_chain_t *) p;
    p += sizeof(ngx_chain_t);

    b = (ngx_buf_t *) p;
    p += sizeof(ngx_buf_t);

    ngx_memzero(b, sizeof(ngx_buf_t));

    b->start = p;
    b->pos = p;
    b->last = p;
    b->end = p + size;
    b->temporary = 1;

    cl->buf = b;
    cl->next = NULL;

    return cl;
}


static ngx_int_t
plan_request(ngx_http_request_t *r, ngx_http_myproxy_plan_t *plan)
{
    ngx_http_myproxy_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    plan->ctx = ctx;
    plan->conf = ngx_http_get_module_loc_conf(r, ngx_http_myproxy_module);
    plan->fields = plan->conf->fields;

#if (NGX_HTTP_CACHE)
    if (r->upstream->cacheable) {
        plan->fields = plan->conf->fields_cache;
    }
#endif

    if (plan_method(r, plan) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_myproxy_make_uri(r, ctx, plan->conf) != NGX_OK) {
        return NGX_ERROR;
    }

    plan->size = plan->method.len + 1 + ctx->uri.len
                 + sizeof(" HTTP/1.1" CRLF "Host: " CRLF) - 1 + ctx->host.len
                 + sizeof(CRLF) - 1;

    if (ctx->upgrade.len) {
        plan->size += plan->fields->upgrading.len + ctx->upgrade.len
                      + sizeof(CRLF) - 1;

    } else {
        plan->size += plan->fields->connection.len;
    }

    if (plan->fields->pieces.nelts) {
        plan->values = ngx_palloc(r->pool, plan->fields->pieces.nelts
                                           * sizeof(ngx_str_t));
        if (plan->values == NULL) {
            return NGX_ERROR;
        }

        if (ngx_http_myproxy_eval_fields(r, plan->fields, plan->values,
                                         &plan->size)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (plan_body(r, plan) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ctx->chunked_body) {
        plan->size += sizeof("Transfer-Encoding: chunked" CRLF) - 1;

    } else if (ctx->body_length >= 0) {
        plan->size += sizeof("Content-Length: " CRLF) - 1 + NGX_OFF_T_LEN;
    }

    plan_client_fields(r, plan);

    return NGX_OK;
}


static ngx_int_t
plan_method(ngx_http_request_t *r, ngx_http_myproxy_plan_t *plan)
{
    u_char      *p, *last, text[NGX_HTTP_MYPROXY_QUOTED];
    ngx_str_t   *method;

    method = &plan->method;

    if (r->upstream->method.len
        && r->upstream->method.data != r->method_name.data)
    {
        /* a HEAD that became GET to fill the cache; Angie's is never empty */

        *method = r->upstream->method;

    } else if (plan->conf->method) {

        if (ngx_http_complex_value(r, plan->conf->method, method) != NGX_OK) {
            return NGX_ERROR;
        }

        last = method->data + method->len;

        for (p = method->data; p < last; p++) {
            if (*p <= ' ' || *p >= 0x7f) {
                break;
            }
        }

        if (method->len == sizeof("CONNECT") - 1
            && ngx_memcmp(method->data, "CONNECT", method->len) == 0)
        {
            p = method->data;  /* its target would be no authority */
        }

        if (method->len == 0 || p < last) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "invalid method \"%s\" from \"myproxy_method %V\"",
                          ngx_http_myproxy_quote(text, method),
                          &plan->conf->method->value);
            return NGX_ERROR;
        }

    } else {
        *method = r->method_name;
    }

    plan->ctx->head = method->len == 4
                      && ngx_memcmp(method->data, "HEAD", 4) == 0;

    return NGX_OK;
}


/*
 * The framing follows from what is sent, not from what the client has
 * announced: a subrequest has its parent's header but not its body.
 */

static ngx_int_t
plan_body(ngx_http_request_t *r, ngx_http_myproxy_plan_t *plan)
{
    off_t                    size;
    ngx_uint_t               in_memory;
    ngx_chain_t             *cl, *body;
    ngx_http_myproxy_ctx_t  *ctx;

    ctx = plan->ctx;
    ctx->body_length = -1;

    if (ctx->without_body) {
        return NGX_OK;
    }

    if (plan->conf->body) {

        if (plan->conf->repeats_body
            && r->request_body && r->request_body->temp_file)
        {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "the body is in a temporary file, so $request_body "
                          "in \"myproxy_set_body\" would be empty: write a "
                          "\"client_body_buffer_size\" that is as large as "
                          "\"client_max_body_size\"");
            return NGX_ERROR;
        }

        if (ngx_http_complex_value(r, plan->conf->body, &plan->body)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        ctx->body_length = plan->body.len;
        plan->size += plan->body.len;

        return NGX_OK;
    }

    if (!plan->conf->upstream.pass_request_body) {
        return NGX_OK;
    }

    if (r->request_body_no_buffering) {

        if (r->headers_in.chunked && r->reading_body) {
            ctx->chunked_body = 1;

        } else {
            ctx->body_length = r->headers_in.content_length_n;
        }

        return NGX_OK;
    }

    /* u->request_bufs may be a request that was made before */

    body = r->request_body ? r->request_body->bufs : NULL;

    size = 0;
    in_memory = 1;

    for (cl = body; cl; cl = cl->next) {
        size += ngx_buf_size(cl->buf);

        if (!ngx_buf_in_memory_only(cl->buf)) {
            in_memory = 0;
        }
    }

    if (size || r->headers_in.content_length_n == 0) {
        ctx->body_length = size;
    }

    if (in_memory && size <= NGX_HTTP_MYPROXY_COPIED_BODY) {
        plan->copied = body;
        plan->size += (size_t) size;

    } else {
        plan->bufs = body;
    }

    return NGX_OK;
}


/* an upper bound: some of the fields will be left out */

static void
plan_client_fields(ngx_http_request_t *r, ngx_http_myproxy_plan_t *plan)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    if (!plan->conf->upstream.pass_request_headers) {
        return;
    }

    for (part = &r->headers_in.headers.part; part; part = part->next) {

        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            plan->size += h[i].key.len + sizeof(": ") - 1
                          + h[i].value.len + sizeof(CRLF) - 1;
        }
    }
}


static u_char *
write_header(ngx_http_request_t *r, u_char *p, ngx_http_myproxy_plan_t *plan)
{
    ngx_http_myproxy_ctx_t  *ctx;

    ctx = plan->ctx;

    p = ngx_cpymem(p, plan->method.data, plan->method.len);
    *p++ = ' ';

    p = ngx_cpymem(p, ctx->uri.data, ctx->uri.len);

    if (plan->conf->http_version == NGX_HTTP_VERSION_11) {
        p = ngx_cpymem(p, " HTTP/1.1" CRLF "Host: ",
                       sizeof(" HTTP/1.1" CRLF "Host: ") - 1);

    } else {
        p = ngx_cpymem(p, " HTTP/1.0" CRLF "Host: ",
                       sizeof(" HTTP/1.0" CRLF "Host: ") - 1);
    }

    p = ngx_cpymem(p, ctx->host.data, ctx->host.len);
    *p++ = CR; *p++ = LF;

    p = ngx_http_myproxy_copy_fields(p, plan->fields, plan->values);

    if (ctx->upgrade.len) {
        p = ngx_cpymem(p, plan->fields->upgrading.data,
                       plan->fields->upgrading.len);
        p = ngx_cpymem(p, ctx->upgrade.data, ctx->upgrade.len);
        *p++ = CR; *p++ = LF;

    } else if (plan->fields->connection.len) {
        p = ngx_cpymem(p, plan->fields->connection.data,
                       plan->fields->connection.len);
    }

    if (ctx->chunked_body) {
        p = ngx_cpymem(p, "Transfer-Encoding: chunked" CRLF,
                       sizeof("Transfer-Encoding: chunked" CRLF) - 1);

    } else if (ctx->body_length >= 0) {
        p = ngx_cpymem(p, "Content-Length: ", sizeof("Content-Length: ") - 1);
        p = ngx_sprintf(p, "%O", ctx->body_length);
        *p++ = CR; *p++ = LF;
    }

    if (plan->conf->upstream.pass_request_headers) {
        p = write_client_fields(r, p, plan);
    }

    *p++ = CR; *p++ = LF;

    return p;
}


static u_char *
write_client_fields(ngx_http_request_t *r, u_char *p,
    ngx_http_myproxy_plan_t *plan)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    for (part = &r->headers_in.headers.part; part; part = part->next) {

        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (ngx_http_myproxy_is_dropped(plan->fields, &h[i])) {
                continue;
            }

            if (plan->ctx->options
                && ngx_http_myproxy_is_option(r, plan->ctx, &h[i]))
            {
                continue;
            }

            p = write_field(p, &h[i]);
        }
    }

    return p;
}


static u_char *
write_field(u_char *p, ngx_table_elt_t *h)
{
    u_char  *name;
    size_t   len;

    name = p;
    len = h->key.len + sizeof(": ") - 1;

    if (h->value.data == h->key.data + len) {

        /* as it was received, but for zeroes that nginx has put in it */

        p = ngx_cpymem(p, h->key.data, len + h->value.len);

    } else {
        p = ngx_cpymem(p, h->key.data, h->key.len) + sizeof(": ") - 1;
        p = ngx_cpymem(p, h->value.data, h->value.len);
    }

    name[h->key.len] = ':';
    name[h->key.len + 1] = ' ';

    *p++ = CR; *p++ = LF;

    return p;
}


/*
 * A buffered body that is not copied is appended with bufs of its own, since
 * they are rewound for another attempt; the bufs of r->request_body may serve
 * a subrequest.  An unbuffered one is appended by nginx as it arrives.
 */

static ngx_int_t
append_body(ngx_http_request_t *r, ngx_chain_t *header,
    ngx_http_myproxy_plan_t *plan)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl, *body, **ll;

    r->upstream->request_bufs = header;

    b = header->buf;
    ll = &header->next;

    for (body = plan->bufs; body; body = body->next) {

        cl = ngx_alloc_chain_link(r->pool);
        if (cl == NULL) {
            return NGX_ERROR;
        }

        b = ngx_alloc_buf(r->pool);
        if (b == NULL) {
            return NGX_ERROR;
        }

        *b = *body->buf;

        cl->buf = b;
        *ll = cl;
        ll = &cl->next;
    }

    *ll = NULL;
    b->flush = 1;

    return NGX_OK;
}


ngx_int_t
ngx_http_myproxy_reinit_request(ngx_http_request_t *r)
{
    ngx_http_upstream_t     *u;
    ngx_http_myproxy_ctx_t  *ctx;

    u = r->upstream;
    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    ngx_memzero(&ctx->status, sizeof(ngx_http_status_t));
    ngx_memzero(&ctx->chunked, sizeof(ngx_http_chunked_t));
    ctx->interim = 0;
    ctx->response_options = NULL;
    ctx->trailers = NULL;
    ctx->in_trailers = 0;
    ctx->header_sent = 0;

    ngx_http_myproxy_reset_body(u);

    u->process_header = ngx_http_myproxy_process_status_line;
    r->state = 0;

    return NGX_OK;
}
