
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"
#include "ngx_http_upstream_reuse_module.h"


/* more than any client has a use for; each costs a look at every field */
#define NGX_HTTP_MYPROXY_MAX_OPTIONS  64


static ngx_int_t read_connection(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_str_t *value, ngx_uint_t *upgrade);
static ngx_int_t push_option(ngx_http_request_t *r, ngx_array_t **options,
    ngx_str_t *token);
static ngx_uint_t next_token(ngx_str_t *list, ngx_str_t *token);
static ngx_uint_t is_token(ngx_str_t *token, const char *text);
static ngx_uint_t is_protected(ngx_str_t *name);
static ngx_uint_t is_named(ngx_array_t *options, ngx_table_elt_t *h);
static ngx_uint_t names_no_field(ngx_str_t *value);
static ngx_uint_t is_for_all(ngx_str_t *name);
static ngx_uint_t is_received(ngx_http_request_t *r, ngx_str_t *value);
static ngx_int_t read_upgrade(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf);
static ngx_int_t choose_protocols(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_array_t *allowed);
static ngx_uint_t has_word(ngx_str_t *list, const char *word);
static ngx_int_t add_options(ngx_conf_t *cf, ngx_str_t *list,
    ngx_str_t *value);
static ngx_int_t write_text(ngx_conf_t *cf, ngx_str_t *text, const char *fmt,
    ngx_str_t *value);


ngx_int_t
ngx_http_myproxy_read_connection_fields(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf)
{
    ngx_int_t         rc;
    ngx_uint_t        upgrade;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h, *end;

    rc = ngx_http_myproxy_find_host(r, ctx, mlcf->fields);
    if (rc != NGX_OK) {
        return rc;
    }

    if (r->main->http_version >= NGX_HTTP_VERSION_20) {

        /* these have no Connection (RFC 9113, section 8.2.2) */

        return NGX_OK;
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

    if (upgrade && ngx_http_myproxy_may_upgrade(r) && !mlcf->closes) {
        return read_upgrade(r, ctx, mlcf);
    }

    return NGX_OK;
}


/*
 * Connection lists fields that are meant for us only (RFC 9110, section
 * 7.6.1).  Those which others trust us to pass on cannot be removed so.
 */

static ngx_int_t
read_connection(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_str_t *value, ngx_uint_t *upgrade)
{
    ngx_int_t   rc;
    ngx_str_t   list, token;

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

        rc = push_option(r, &ctx->options, &token);

        if (rc == NGX_DECLINED) {
            ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                          "client sent more than %d options in Connection",
                          NGX_HTTP_MYPROXY_MAX_OPTIONS);
            return NGX_HTTP_BAD_REQUEST;
        }

        if (rc != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    return NGX_OK;
}


/* NGX_DECLINED: there are too many of them. */

static ngx_int_t
push_option(ngx_http_request_t *r, ngx_array_t **options, ngx_str_t *token)
{
    ngx_str_t  *option;

    if (*options == NULL) {
        *options = ngx_array_create(r->pool, 4, sizeof(ngx_str_t));
        if (*options == NULL) {
            return NGX_ERROR;
        }
    }

    if ((*options)->nelts == NGX_HTTP_MYPROXY_MAX_OPTIONS) {
        return NGX_DECLINED;
    }

    option = ngx_array_push(*options);
    if (option == NULL) {
        return NGX_ERROR;
    }

    *option = *token;

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
ngx_http_myproxy_is_option(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_table_elt_t *h)
{
    return is_named(ctx->options, h) && is_received(r, &h->value);
}


static ngx_uint_t
is_named(ngx_array_t *options, ngx_table_elt_t *h)
{
    ngx_str_t   *option;
    ngx_uint_t   i;

    option = options->elts;

    for (i = 0; i < options->nelts; i++) {
        if (option[i].len == h->key.len
            && ngx_strncasecmp(option[i].data, h->lowcase_key, h->key.len)
               == 0)
        {
            return 1;
        }
    }

    return 0;
}


/*
 * Tells whether the client has sent this value, which is then where it was
 * read into.  What other modules put among the client's fields (Lua, for
 * example) is the operator's, and no client can name it away.
 */

static ngx_uint_t
is_received(ngx_http_request_t *r, ngx_str_t *value)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    b = r->connection->buffer;

    if (b && value->data >= b->start && value->data < b->end) {
        return 1;
    }

    for (cl = r->main->http_connection->busy; cl; cl = cl->next) {
        b = cl->buf;

        if (value->data >= b->start && value->data < b->end) {
            return 1;
        }
    }

    return 0;
}


ngx_int_t
ngx_http_myproxy_read_options(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_str_t *value)
{
    ngx_int_t  rc;
    ngx_str_t  list, token;

    if (names_no_field(value)) {
        return NGX_OK;
    }

    list = *value;

    while (next_token(&list, &token)) {

        if (is_token(&token, "keep-alive")
            || is_token(&token, "close")
            || is_token(&token, "upgrade")
            || is_for_all(&token))
        {
            continue;
        }

        rc = push_option(r, &ctx->response_options, &token);

        if (rc == NGX_DECLINED) {
            return ngx_http_myproxy_invalid(r,
                                            "too many options in Connection");
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/*
 * Tells whether a response has what nearly all have in Connection, as they
 * write it.  There is no need then to take the list apart.
 */

static ngx_uint_t
names_no_field(ngx_str_t *value)
{
    switch (value->len) {

    case sizeof("keep-alive") - 1:
        return ngx_memcmp(value->data, "keep-alive", value->len) == 0
               || ngx_memcmp(value->data, "Keep-Alive", value->len) == 0;

    case sizeof("close") - 1:
        return ngx_memcmp(value->data, "close", value->len) == 0;

    default:
        return 0;
    }
}


/*
 * Fields that tell every recipient what the content is and how long it may be
 * kept are none of one connection (RFC 9110, section 7.6.1).
 */

static ngx_uint_t
is_for_all(ngx_str_t *name)
{
    if (name->len >= sizeof("content-") - 1
        && ngx_strncasecmp(name->data, (u_char *) "content-",
                           sizeof("content-") - 1)
           == 0)
    {
        return 1;
    }

    return is_token(name, "age")
           || is_token(name, "cache-control")
           || is_token(name, "date")
           || is_token(name, "expires")
           || is_token(name, "pragma")
           || is_token(name, "vary");
}


ngx_int_t
ngx_http_myproxy_leave_hop(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_table_elt_t *h)
{
    ngx_str_t  name;

    name.len = h->key.len;
    name.data = h->lowcase_key;

    switch (ngx_http_myproxy_find_field(&name)) {

    case NGX_HTTP_MYPROXY_CONNECTION:
        h->hash = 0;
        return ngx_http_myproxy_read_options(r, ctx, &h->value);

    case NGX_HTTP_MYPROXY_CONTENT_LENGTH:
    case NGX_HTTP_MYPROXY_KEEP_ALIVE:
    case NGX_HTTP_MYPROXY_TRANSFER_ENCODING:
    case NGX_HTTP_MYPROXY_UPGRADE:
        h->hash = 0;
        return NGX_OK;

    default:
        return NGX_OK;
    }
}


void
ngx_http_myproxy_drop_options(ngx_http_myproxy_ctx_t *ctx,
    ngx_list_t *list)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    for (part = &list->part; part; part = part->next) {

        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (is_named(ctx->response_options, &h[i])) {
                h[i].hash = 0;
            }
        }
    }
}


/*
 * The client asks to switch: the origin is asked for what the operator has
 * written, or else for those of the client's protocols that may pass.
 */

static ngx_int_t
read_upgrade(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_http_myproxy_loc_conf_t *mlcf)
{
    ngx_int_t  rc;

    if (mlcf->fields->set_upgrade) {
        ctx->upgrade = mlcf->fields->protocols;

    } else if (mlcf->upgrade && mlcf->upstream.pass_request_headers) {

        rc = choose_protocols(r, ctx, mlcf->upgrade);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    ctx->upgrading = ctx->upgrade.len ? 1 : 0;

    return NGX_OK;
}


static ngx_int_t
choose_protocols(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_array_t *allowed)
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

    protocol = allowed->elts;

    while (next_token(&list, &token)) {

        for (i = 0; i < allowed->nelts; i++) {

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
    return NGX_OK;
}


void
ngx_http_myproxy_check_hop(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_str_t *value)
{
    ngx_uint_t                     connection;
    ngx_http_myproxy_main_conf_t  *mmcf;

    connection = is_token(&value[1], "connection");

    if (!connection && !is_token(&value[1], "upgrade")) {
        return;
    }

    if (ngx_http_script_variables_count(&value[2]) == 0) {

        if (connection && has_word(&value[2], "close")) {
            ngx_http_upstream_reuse_warn(cf, NULL, 0,
                "no connection is reused with \"%V %V %V\": remove the line",
                &cmd->name, &value[1], &value[2]);
        }

        return;
    }

    mmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_myproxy_module);

    if (mmcf->connection_noted) {
        return;
    }

    mmcf->connection_noted = 1;

    ngx_conf_log_error(NGX_LOG_NOTICE, cf, 0,
                       "\"%V %V %V\" adds nothing to requests, nor do other "
                       "values of Connection and Upgrade that have variables: "
                       "myproxy_pass passes WebSocket and keeps connections "
                       "without them; such lines can be removed",
                       &cmd->name, &value[1], &value[2]);
}


/*
 * Which connection is kept and when it becomes another protocol is decided
 * here, and must not depend on what a variable holds: an origin that is told
 * to close does so without a word, and the next request would be lost.
 */

ngx_int_t
ngx_http_myproxy_compile_connection_fields(ngx_conf_t *cf,
    ngx_http_myproxy_fields_t *fields, ngx_array_t *set_headers)
{
    ngx_str_t                  options, *value;
    ngx_uint_t                 i;
    ngx_http_myproxy_field_t  *field;

    ngx_str_null(&options);

    field = set_headers ? set_headers->elts : NULL;

    for (i = 0; field && i < set_headers->nelts; i++) {

        value = &field[i].value.value;

        if (field[i].value.lengths) {
            continue;
        }

        if (is_token(&field[i].name, "connection")) {

            if (add_options(cf, &options, value) != NGX_OK) {
                return NGX_ERROR;
            }

            fields->close |= has_word(value, "close");

        } else if (is_token(&field[i].name, "upgrade")) {

            if (add_options(cf, &fields->protocols, value) != NGX_OK) {
                return NGX_ERROR;
            }

            fields->set_upgrade = 1;
        }
    }

    if (options.len == 0) {
        ngx_str_set(&fields->upgrading,
                    "Connection: upgrade" CRLF "Upgrade: ");
        return NGX_OK;
    }

    if (write_text(cf, &fields->connection, "Connection: %V" CRLF, &options)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return write_text(cf, &fields->upgrading,
                      has_word(&options, "upgrade")
                      ? "Connection: %V" CRLF "Upgrade: "
                      : "Connection: %V, upgrade" CRLF "Upgrade: ",
                      &options);
}


/*
 * Tells whether a list (RFC 9110, section 5.6.1) has that word.  The list ends
 * with a zero, as the words of a configuration do.
 */

static ngx_uint_t
has_word(ngx_str_t *list, const char *word)
{
    ngx_str_t  token;

    token.data = list->data;

    do {
        token.data += strspn((char *) token.data, ", \t");
        token.len = strcspn((char *) token.data, ", \t");

        if (is_token(&token, word)) {
            return 1;
        }

        token.data += token.len;

    } while (*token.data);

    return 0;
}


/* Appends a value to a list, if there is anything in it. */

static ngx_int_t
add_options(ngx_conf_t *cf, ngx_str_t *list, ngx_str_t *value)
{
    u_char     *p;
    ngx_str_t   rest, token;

    rest = *value;

    if (!next_token(&rest, &token)) {
        return NGX_OK;
    }

    p = ngx_pnalloc(cf->pool, list->len + sizeof(", ") - 1 + value->len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    list->len = ngx_sprintf(p, "%V%s%V%Z", list, list->len ? ", " : "", value)
                - p - 1;
    list->data = p;

    return NGX_OK;
}


static ngx_int_t
write_text(ngx_conf_t *cf, ngx_str_t *text, const char *fmt, ngx_str_t *value)
{
    text->data = ngx_pnalloc(cf->pool, ngx_strlen(fmt) + value->len);
    if (text->data == NULL) {
        return NGX_ERROR;
    }

    text->len = ngx_sprintf(text->data, fmt, value) - text->data;

    return NGX_OK;
}
