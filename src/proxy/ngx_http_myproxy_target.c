
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"
#include "ngx_http_upstream_reuse_module.h"


static void take_location(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_core_loc_conf_t *clcf);
static ngx_int_t parse_scheme(ngx_str_t *url, ngx_url_t *u, ngx_uint_t *ssl);
static void set_target(ngx_http_myproxy_target_t *target, ngx_str_t *url,
    ngx_url_t *u);
static char *set_variable_pass(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *mlcf, ngx_str_t *url);
static ngx_int_t set_resolved(ngx_http_request_t *r, ngx_url_t *u);


char *
ngx_http_myproxy_set_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_myproxy_loc_conf_t  *mlcf = conf;

    ngx_str_t                 *value, *url;
    ngx_url_t                  u;
    ngx_uint_t                 ssl;
    ngx_http_core_loc_conf_t  *clcf;

    if (ngx_http_myproxy_has_target(mlcf)) {
        return "is duplicate";
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    take_location(cf, cmd, clcf);

    mlcf->pass_file = cf->conf_file->file.name.data;
    mlcf->pass_line = cf->conf_file->line;

    value = cf->args->elts;
    url = &value[1];

    if (ngx_http_script_variables_count(url)) {
        return set_variable_pass(cf, mlcf, url);
    }

    ngx_memzero(&u, sizeof(ngx_url_t));

    if (parse_scheme(url, &u, &ssl) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid URL \"%V\" in \"%V\", it must begin with "
                           "\"http://\" or \"https://\"", url, &cmd->name);
        return NGX_CONF_ERROR;
    }

#if !(NGX_HTTP_SSL)
    if (ssl) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" needs nginx to be built with "
                           "--with-http_ssl_module", url);
        return NGX_CONF_ERROR;
    }
#endif

    mlcf->upstream.upstream = ngx_http_upstream_add(cf, &u, 0);
    if (mlcf->upstream.upstream == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_upstream_reuse_ask(cf, mlcf->upstream.upstream) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    mlcf->url = *url;
    mlcf->ssl = ssl;
    set_target(&mlcf->target, url, &u);

    mlcf->location = clcf->name;

    if (clcf->named
#if (NGX_PCRE)
        || clcf->regex
#endif
        || clcf->noname)
    {
        if (mlcf->target.uri.len) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" cannot have the URI part \"%V\" in a "
                               "named location, a location given by a regular "
                               "expression, \"if\" or \"limit_except\": there "
                               "is no prefix that it could replace",
                               &cmd->name, &mlcf->target.uri);
            return NGX_CONF_ERROR;
        }

        mlcf->location.len = 0;
    }

    return NGX_CONF_OK;
}


static void
take_location(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_core_loc_conf_t *clcf)
{
    if (clcf->handler) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"%V\" takes the place of what was to answer "
                           "requests in the same block, as \"proxy_pass\" "
                           "does: remove one of them", &cmd->name);
    }

    clcf->handler = ngx_http_myproxy_handler;

    if (clcf->name.len && clcf->name.data[clcf->name.len - 1] == '/') {
        clcf->auto_redirect = 1;
    }
}


static char *
set_variable_pass(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *mlcf,
    ngx_str_t *url)
{
    ngx_http_compile_complex_value_t  ccv;

    mlcf->pass = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (mlcf->pass == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = url;
    ccv.complex_value = mlcf->pass;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

#if (NGX_HTTP_SSL)
    mlcf->ssl = 1;
#endif

    mlcf->upstream.upstream = ngx_http_myproxy_add_targets(cf);
    if (mlcf->upstream.upstream == NULL) {
        return NGX_CONF_ERROR;
    }

    /* the variables may name any other upstream */

    if (ngx_http_upstream_reuse_ask(cf, NULL) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* NGX_DECLINED if the URL has none of our schemes */

static ngx_int_t
parse_scheme(ngx_str_t *url, ngx_url_t *u, ngx_uint_t *ssl)
{
    size_t  len;

    if (url->len >= 7
        && ngx_strncasecmp(url->data, (u_char *) "http://", 7) == 0)
    {
        *ssl = 0;
        len = 7;
        u->default_port = 80;

    } else if (url->len >= 8
               && ngx_strncasecmp(url->data, (u_char *) "https://", 8) == 0)
    {
        *ssl = 1;
        len = 8;
        u->default_port = 443;

    } else {
        return NGX_DECLINED;
    }

    u->url.data = url->data + len;
    u->url.len = url->len - len;
    u->uri_part = 1;
    u->no_resolve = 1;

    return NGX_OK;
}


static void
set_target(ngx_http_myproxy_target_t *target, ngx_str_t *url, ngx_url_t *u)
{
    target->uri = u->uri;

    /* the scheme, up to where the authority begins */

    target->key.data = url->data;
    target->key.len = u->url.data - url->data;

    if (u->family == AF_UNIX) {
        ngx_str_set(&target->host, "localhost");
        ngx_str_null(&target->port);

        /* with the colon before the URI, which "unix:/path" need not have */

        target->key.len += sizeof("unix:") - 1 + u->host.len + 1;
        target->key.len = ngx_min(target->key.len, url->len);

        return;
    }

    target->host = u->host;

    if (u->no_port || u->port == u->default_port) {

        if (u->default_port == 80) {
            ngx_str_set(&target->port, "80");

        } else {
            ngx_str_set(&target->port, "443");
        }

    } else {
        target->port = u->port_text;
        target->host.len += 1 + u->port_text.len;
    }

    target->key.len += target->host.len;
}


ngx_int_t
ngx_http_myproxy_eval_target(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf)
{
    u_char                     *p, text[NGX_HTTP_MYPROXY_QUOTED];
    ngx_str_t                   url;
    ngx_url_t                   u;
    ngx_uint_t                  ssl;
    ngx_http_myproxy_target_t  *target;

    if (ngx_http_complex_value(r, mlcf->pass, &url) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_memzero(&u, sizeof(ngx_url_t));

    if (parse_scheme(&url, &u, &ssl) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "invalid URL \"%s\" in \"myproxy_pass\", it must begin "
                      "with \"http://\" or \"https://\"",
                      ngx_http_myproxy_quote(text, &url));
        return NGX_ERROR;
    }

    if (ssl && !mlcf->ssl) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "\"%s\" needs nginx to be built with "
                      "--with-http_ssl_module",
                      ngx_http_myproxy_quote(text, &url));
        return NGX_ERROR;
    }

    if (ngx_parse_url(r->pool, &u) != NGX_OK) {
        if (u.err) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "%s in \"myproxy_pass\" \"%s\"", u.err,
                          ngx_http_myproxy_quote(text, &url));
        }

        return NGX_ERROR;
    }

    target = ngx_palloc(r->pool, sizeof(ngx_http_myproxy_target_t));
    if (target == NULL) {
        return NGX_ERROR;
    }

    ctx->target = target;

    set_target(target, &url, &u);

    if (u.uri.len && u.uri.data[0] == '?') {

        /* "http://example.com?a": an empty path is sent as "/" */

        p = ngx_pnalloc(r->pool, u.uri.len + 1);
        if (p == NULL) {
            return NGX_ERROR;
        }

        *p = '/';
        ngx_memcpy(p + 1, u.uri.data, u.uri.len);

        target->uri.data = p;
        target->uri.len = u.uri.len + 1;
    }

    if (ngx_http_myproxy_encode(r, &target->uri, ' ') != NGX_OK) {
        return NGX_ERROR;
    }

    r->upstream->ssl = ssl;
    r->upstream->schema.data = url.data;
    r->upstream->schema.len = u.url.data - url.data;

    return set_resolved(r, &u);
}


/* what is then looked for among the upstreams, or else resolved */

static ngx_int_t
set_resolved(ngx_http_request_t *r, ngx_url_t *u)
{
    ngx_http_upstream_resolved_t  *resolved;

    resolved = ngx_pcalloc(r->pool, sizeof(ngx_http_upstream_resolved_t));
    if (resolved == NULL) {
        return NGX_ERROR;
    }

    if (u->addrs) {
        resolved->sockaddr = u->addrs[0].sockaddr;
        resolved->socklen = u->addrs[0].socklen;
        resolved->name = u->addrs[0].name;
        resolved->naddrs = 1;
    }

    resolved->host = u->host;
    resolved->port = u->no_port ? u->default_port : u->port;
    resolved->no_port = u->no_port;

    r->upstream->resolved = resolved;

    return NGX_OK;
}


ngx_int_t
ngx_http_myproxy_encode(ngx_http_request_t *r, ngx_str_t *s, u_char upto)
{
    u_char         *p, *dst, *last;
    size_t          n;
    static u_char   hex[] = "0123456789ABCDEF";

    last = s->data + s->len;
    n = 0;

    for (p = s->data; p < last; p++) {
        if (*p <= upto || *p == 0x7f) {
            n++;
        }
    }

    if (n == 0) {
        return NGX_OK;
    }

    dst = ngx_pnalloc(r->pool, s->len + 2 * n);
    if (dst == NULL) {
        return NGX_ERROR;
    }

    p = s->data;

    s->data = dst;
    s->len += 2 * n;

    for ( /* void */ ; p < last; p++) {

        if (*p > upto && *p != 0x7f) {
            *dst++ = *p;
            continue;
        }

        *dst++ = '%';
        *dst++ = hex[*p >> 4];
        *dst++ = hex[*p & 0xf];
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_myproxy_make_uri(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_http_myproxy_loc_conf_t *mlcf)
{
    u_char      *p;
    size_t       len, prefix;
    uintptr_t    escape;
    ngx_str_t   *uri;
    ngx_uint_t   mapped;

    if (ctx->uri.len) {
        return NGX_OK;
    }

    uri = &ctx->target->uri;

    if (mlcf->pass && uri->len) {
        ctx->uri = *uri;
        return NGX_OK;
    }

    if (uri->len == 0 && r->valid_unparsed_uri) {
        ctx->uri = r->unparsed_uri;
        return NGX_OK;
    }

    /*
     * The URI in the pass stands for the location's name, unless the URI was
     * changed since the location was found; try_files does so silently.
     */

    mapped = r->valid_location && uri->len
             && r->uri.len >= mlcf->location.len
             && ngx_filename_cmp(r->uri.data, mlcf->location.data,
                                 mlcf->location.len)
                == 0;

    prefix = mapped ? mlcf->location.len : 0;
    len = mapped ? uri->len : 0;

    escape = 0;

    if (r->quoted_uri || r->internal) {
        escape = 2 * ngx_escape_uri(NULL, r->uri.data + prefix,
                                    r->uri.len - prefix, NGX_ESCAPE_URI);
    }

    len += r->uri.len - prefix + escape + sizeof("?") - 1 + r->args.len;

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ctx->uri.data = p;

    if (mapped) {
        p = ngx_cpymem(p, uri->data, uri->len);
    }

    if (escape) {
        p = (u_char *) ngx_escape_uri(p, r->uri.data + prefix,
                                      r->uri.len - prefix, NGX_ESCAPE_URI);

    } else {
        p = ngx_cpymem(p, r->uri.data + prefix, r->uri.len - prefix);
    }

    if (r->args.len) {
        *p++ = '?';
        p = ngx_cpymem(p, r->args.data, r->args.len);
    }

    ctx->uri.len = p - ctx->uri.data;

    if (ctx->uri.len == 0) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "there is no URI to ask the origin for");
        return NGX_ERROR;
    }

    return ngx_http_myproxy_encode(r, &ctx->uri, ' ');
}
