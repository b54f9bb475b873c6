
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"


static u_char *end_of_authority(ngx_http_request_t *r);
static ngx_uint_t is_host(ngx_http_request_t *r, ngx_str_t *host);


/*
 * Letters, digits, "-", ".", "_", "~", "%", the sub-delims of RFC 3986, and
 * bytes over 127.  Each Host is looked at, so there is a place for each byte.
 */

static u_char  allowed[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1, 0, 0,
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1,
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
};


ngx_int_t
ngx_http_myproxy_find_host(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_fields_t *fields)
{
    ngx_http_request_t  *mr;
    static ngx_str_t     name = ngx_string("Host");

    if (NGX_HTTP_MYPROXY_CHECK_HOST
        && r->headers_in.host
        && !is_host(r, &r->headers_in.host->value))
    {
        /* whatever is sent: $http_host may be in other fields */
        return NGX_HTTP_BAD_REQUEST;
    }

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
               && (fields->host->lengths == NULL || is_host(r, &ctx->host))
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

        return (!NGX_HTTP_MYPROXY_CHECK_HOST || is_host(r, &ctx->host))
               ? NGX_OK : NGX_HTTP_BAD_REQUEST;
    }

    if (r->headers_in.host == NULL) {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                      "client sent a request without Host, which an HTTP/1.1 "
                      "request to the origin needs: to accept such clients "
                      "write \"myproxy_set_header Host ...\"");
        return NGX_HTTP_BAD_REQUEST;
    }

    ctx->host = r->headers_in.host->value;

    return NGX_OK;
}


/*
 * In an HTTP/1.x request line nginx has the host end before the port, and from
 * 1.29.4 on behind it.  A colon without a port is left out: an IPv6 address
 * ends with a bracket.
 */

static u_char *
end_of_authority(ngx_http_request_t *r)
{
    u_char  *p;

    p = r->host_end;

    if (r->http_version >= NGX_HTTP_VERSION_20) {
        return p;
    }

    if (*p == ':') {
        do {
            p++;
        } while (*p >= '0' && *p <= '9');
    }

    return (p > r->host_start && p[-1] == ':') ? p - 1 : p;
}


/*
 * Tells whether this is a host, and nothing behind it but a port (RFC 9110,
 * section 7.2).  Otherwise an origin may take another part of it for the host
 * than the one by which nginx has found the server: "good.com:@evil.com".
 * Bytes over 127 are left to the origin.
 */

static ngx_uint_t
is_host(ngx_http_request_t *r, ngx_str_t *host)
{
    u_char  *p, *last, text[NGX_HTTP_MYPROXY_QUOTED];

    p = host->data;
    last = p + host->len;

    if (p < last && *p == '[') {

        /* an IPv6 address */

        do {
            p++;
        } while (p < last && (*p == ':' || allowed[*p]));

        if (p == last || *p++ != ']') {
            goto invalid;
        }

    } else {
        while (p < last && allowed[*p]) {
            p++;
        }
    }

    if (p == last) {
        return 1;
    }

    if (*p != ':') {
        goto invalid;
    }

    do {
        p++;
    } while (p < last && *p >= '0' && *p <= '9');

    if (p == last) {
        return 1;
    }

invalid:

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "invalid Host \"%s\": after a host, only a colon and the "
                  "digits of a port may follow",
                  ngx_http_myproxy_quote(text, host));

    return 0;
}
