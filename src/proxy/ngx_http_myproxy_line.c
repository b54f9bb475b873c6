
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A line of a header or a trailer section, and what the log says of a bad one.
 */


#include "ngx_http_myproxy_module.h"


/* between a name and its colon */
#define NGX_HTTP_MYPROXY_MAX_BLANKS  64


static ngx_int_t remove_blanks(ngx_http_request_t *r, ngx_buf_t *b);


ngx_int_t
ngx_http_myproxy_parse_line(ngx_http_request_t *r, ngx_buf_t *b)
{
    ngx_int_t  rc;

    rc = ngx_http_parse_header_line(r, b, 1);

    if (rc != NGX_HTTP_PARSE_INVALID_HEADER) {
        return rc;
    }

    rc = remove_blanks(r, b);

    return rc == NGX_OK ? ngx_http_parse_header_line(r, b, 1) : rc;
}


/*
 * Blanks between a name and its colon are removed from a response (RFC 9112,
 * section 5.1): the colon changes places with them, so that what is stored
 * in a cache file keeps its length.  nginx's parser has moved neither b->pos
 * nor r->state when it refuses a line.
 */

static ngx_int_t
remove_blanks(ngx_http_request_t *r, ngx_buf_t *b)
{
    u_char  *p, *blank, *last;

    blank = r->header_end;

    if (blank <= r->header_name_start
        || blank >= b->last
        || (*blank != ' ' && *blank != '\t')
        || ngx_strlchr(r->header_name_start, blank, ':'))
    {
        return NGX_HTTP_PARSE_INVALID_HEADER;
    }

    last = ngx_min(b->last, blank + NGX_HTTP_MYPROXY_MAX_BLANKS + 1);

    for (p = blank; p < last && (*p == ' ' || *p == '\t'); p++) {
        /* void */
    }

    if (p == b->last && p - blank <= NGX_HTTP_MYPROXY_MAX_BLANKS) {
        return NGX_AGAIN;
    }

    if (p == last || *p != ':') {
        return NGX_HTTP_PARSE_INVALID_HEADER;
    }

    ngx_memset(blank, ' ', p - blank + 1);
    *blank = ':';

    return NGX_OK;
}


ngx_uint_t
ngx_http_myproxy_valid_value(ngx_http_request_t *r, ngx_str_t *name,
    ngx_str_t *value)
{
    u_char  *p, *last;

    last = value->data + value->len;

    for (p = value->data; p < last; p++) {

        if (*p == LF || *p == CR || *p == '\0') {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "the value for \"%V\" has a line break or NUL, "
                          "refused: use a variable that is not decoded, as "
                          "$request_uri", name);
            return 0;
        }
    }

    return 1;
}


ngx_int_t
ngx_http_myproxy_invalid(ngx_http_request_t *r, const char *reason)
{
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "upstream sent %s", reason);

    return NGX_HTTP_UPSTREAM_INVALID_HEADER;
}


ngx_int_t
ngx_http_myproxy_invalid_bytes(ngx_http_request_t *r, const char *reason,
    u_char *start, u_char *last)
{
    u_char     text[NGX_HTTP_MYPROXY_QUOTED];
    ngx_str_t  bytes;

    bytes.data = start;
    bytes.len = last - start;

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "upstream sent %s: \"%s\"", reason,
                  ngx_http_myproxy_quote(text, &bytes));

    return NGX_HTTP_UPSTREAM_INVALID_HEADER;
}


ngx_int_t
ngx_http_myproxy_invalid_line(ngx_http_request_t *r, const char *reason,
    u_char *start, u_char *last)
{
    u_char  *end;

    end = ngx_strlchr(start, last, LF);

    if (end == NULL) {
        end = last;

    } else if (end > start && end[-1] == CR) {
        end--;
    }

    return ngx_http_myproxy_invalid_bytes(r, reason, start, end);
}


ngx_int_t
ngx_http_myproxy_invalid_parsed(ngx_http_request_t *r, const char *reason,
    ngx_buf_t *b)
{
    u_char  *start;

    /* the parser stopped at header_end or soon behind it */

    start = ngx_max(r->header_name_start,
                    r->header_end - NGX_HTTP_MYPROXY_QUOTED_BYTES / 2);

    return ngx_http_myproxy_invalid_line(r, reason, start, b->last);
}


u_char *
ngx_http_myproxy_quote(u_char *text, ngx_str_t *bytes)
{
    u_char  *p, *src, *last;

    src = bytes->data;
    last = src + ngx_min(bytes->len, NGX_HTTP_MYPROXY_QUOTED_BYTES);

    for (p = text; src < last; src++) {

        if (*src < ' ' || *src >= 0x7f || *src == '"' || *src == '\\') {
            p = ngx_sprintf(p, "\\x%02xd", *src);

        } else {
            *p++ = *src;
        }
    }

    if (bytes->len > NGX_HTTP_MYPROXY_QUOTED_BYTES) {
        p = ngx_cpymem(p, "...", 3);
    }

    *p = '\0';

    return text;
}
