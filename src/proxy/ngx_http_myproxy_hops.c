
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"


/* more than any client has a use for; each costs a look at every field */
#define NGX_HTTP_MYPROXY_MAX_OPTIONS  64


static ngx_int_t find_host(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_http_myproxy_fields_t *fields);
static u_char *end_of_authority(ngx_http_request_t *r);
static ngx_int_t read_connection(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_str_t *value, ngx_uint_t *upgrade);
static ngx_uint_t next_token(ngx_str_t *list, ngx_str_t *token);
static ngx_uint_t is_token(ngx_str_t *token, const char *text);
static ngx_uint_t is_protected(ngx_str_t *name);
static ngx_int_t read_upgrade(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf);


ngx_int_t
ngx_http_myproxy_read_hops(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf)
{
    ngx_int_t         rc;
    ngx_uint_t        upgrade;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h, *end;

    rc = find_host(r, ctx, mlcf->fields);
    if (rc != NGX_OK) {
        return rc;
    }

    upgrade = 0;

    for (part = &r->headers_in.headers.part; part; part = part->next) {

        h = part->elts;
        end = h + part->nelts;

        for ( /* void */ ; h < end; h++) {

            if (h->key.len != sizeof("connection") - 1
                || ngx_memcmp(h->lowcase_key, "connection",
                              sizeof("connection") - 1)
                   != 0)
            {
                continue;
            }

            rc = read_connection(r, ctx, &h->value, &upgrade);
            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    if (upgrade
        && ngx_http_myproxy_may_upgrade(r)
        && mlcf->upgrade
        && mlcf->upstream.pass_request_headers
        && !mlcf->fields->set_upgrade
        && mlcf->http_version == NGX_HTTP_VERSION_11)
    {
        return read_upgrade(r, ctx, mlcf);
    }

    return NGX_OK;
}


static ngx_int_t
find_host(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_http_myproxy_fields_t *fields)
{
    ngx_http_request_t  *mr;
    static ngx_str_t     name = ngx_string("Host");

    if (fields->host) {

        if (ngx_http_complex_value(r, fields->host, &ctx->host) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        if (ctx->host.len == 0) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "there is no Host for the origin: the value of "
                          "\"myproxy_set_header Host %V\" is empty",
                          &fields->host->value);
            return NGX_HTTP_BAD_REQUEST;
        }

        return ngx_http_myproxy_valid_value(r, &name, &ctx->host)
               ? NGX_OK : NGX_HTTP_BAD_REQUEST;
    }

    mr = r->main;

    if (mr->host_start && mr->host_end
        && (mr->http_version >= NGX_HTTP_VERSION_20
            ? r->headers_in.host == NULL
            : mr->schema_start != NULL))
    {
        /*
         * The :authority of HTTP/3; that of HTTP/2 is made a Host by nginx.
         * In "GET http://example.com:8080/ HTTP/1.1" the authority takes the
         * place of Host (RFC 9112, section 3.2.2).
         */

        ctx->host.data = mr->host_start;
        ctx->host.len = end_of_authority(mr) - mr->host_start;

        return NGX_OK;
    }

    if (r->headers_in.host == NULL) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "client sent a request without Host, which an HTTP/1.1 "
                      "request to the origin needs: to accept such clients "
                      "write \"myproxy_set_header Host ...\"");
        return NGX_HTTP_BAD_REQUEST;
    }

    ctx->host = r->headers_in.host->value;

    return NGX_OK;
}


/* In an HTTP/1.x request line nginx has the host end before the port. */

static u_char *
end_of_authority(ngx_http_request_t *r)
{
    u_char  *p;

    p = r->host_end;

    if (r->http_version >= NGX_HTTP_VERSION_20 || *p != ':') {
        return p;
    }

    do {
        p++;
    } while (*p >= '0' && *p <= '9');

    return (p == r->host_end + 1) ? r->host_end : p;
}


/*
 * Connection lists fields that are meant for us only (RFC 9110, section
 * 7.6.1).  Those which others trust us to pass on cannot be removed so.
 */

static ngx_int_t
read_connection(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_str_t *value, ngx_uint_t *upgrade)
{
    ngx_str_t   list, token, *option;

    list = *value;

    while (next_token(&list, &token)) {

        if (is_token(&token, "keep-alive") || is_token(&token, "close")) {
            continue;
        }

        if (is_token(&token, "upgrade")) {
            *upgrade = 1;
            continue;
        }

        if (is_protected(&token)) {
            continue;
        }

        if (ctx->options == NULL) {
            ctx->options = ngx_array_create(r->pool, 4, sizeof(ngx_str_t));
            if (ctx->options == NULL) {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }
        }

        if (ctx->options->nelts == NGX_HTTP_MYPROXY_MAX_OPTIONS) {
            ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                          "client sent more than %d options in Connection",
                          NGX_HTTP_MYPROXY_MAX_OPTIONS);
            return NGX_HTTP_BAD_REQUEST;
        }

        option = ngx_array_push(ctx->options);
        if (option == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        *option = token;
    }

    return NGX_OK;
}


/* Takes the next element off a list (RFC 9110, section 5.6.1). */

static ngx_uint_t
next_token(ngx_str_t *list, ngx_str_t *token)
{
    u_char  *p, *last, *end;

    p = list->data;
    last = list->data + list->len;

    while (p < last && (*p == ',' || *p == ' ' || *p == '\t')) {
        p++;
    }

    if (p == last) {
        return 0;
    }

    token->data = p;

    while (p < last && *p != ',') {
        p++;
    }

    list->data = p;
    list->len = last - p;

    for (end = p; end[-1] == ' ' || end[-1] == '\t'; end--) { /* void */ }

    token->len = end - token->data;

    return 1;
}


static ngx_uint_t
is_token(ngx_str_t *token, const char *text)
{
    return token->len == ngx_strlen(text)
           && ngx_strncasecmp(token->data, (u_char *) text, token->len) == 0;
}


static ngx_uint_t
is_protected(ngx_str_t *name)
{
    if (name->len >= sizeof("x-forwarded") - 1
        && ngx_strncasecmp(name->data, (u_char *) "x-forwarded",
                           sizeof("x-forwarded") - 1)
           == 0)
    {
        return 1;
    }

    return is_token(name, "host")
           || is_token(name, "content-length")
           || is_token(name, "transfer-encoding")
           || is_token(name, "authorization")
           || is_token(name, "cookie")
           || is_token(name, "forwarded")
           || is_token(name, "x-real-ip");
}


ngx_uint_t
ngx_http_myproxy_is_option(ngx_http_myproxy_ctx_t *ctx, ngx_table_elt_t *h)
{
    ngx_str_t   *option;
    ngx_uint_t   i;

    option = ctx->options->elts;

    for (i = 0; i < ctx->options->nelts; i++) {
        if (option[i].len == h->key.len
            && ngx_strncasecmp(option[i].data, h->lowcase_key, h->key.len)
               == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* Asks the origin for those of the client's protocols that may pass. */

static ngx_int_t
read_upgrade(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_http_myproxy_loc_conf_t *mlcf)
{
    u_char      *p;
    ngx_str_t    list, token, *protocol;
    ngx_uint_t   i;

    list = r->headers_in.upgrade->value;

    p = ngx_pnalloc(r->pool, 2 * list.len + 1);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->upgrade.data = p;

    protocol = mlcf->upgrade->elts;

    while (next_token(&list, &token)) {

        for (i = 0; i < mlcf->upgrade->nelts; i++) {

            if (protocol[i].len != token.len
                || ngx_strncasecmp(protocol[i].data, token.data, token.len)
                   != 0)
            {
                continue;
            }

            if (p != ctx->upgrade.data) {
                *p++ = ',';
                *p++ = ' ';
            }

            p = ngx_cpymem(p, token.data, token.len);
            break;
        }
    }

    ctx->upgrade.len = p - ctx->upgrade.data;
    ctx->upgrading = ctx->upgrade.len ? 1 : 0;

    return NGX_OK;
}
