
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_reuse_status.h"


#define NGX_HTTP_REUSE_STATUS_TEXT  32768


static ngx_int_t status_copy_utf8(ngx_http_reuse_status_text_t *text,
    ngx_str_t *copy, ngx_str_t *value);
static ngx_int_t status_reserve(ngx_http_reuse_status_text_t *text,
    size_t need);
static ngx_int_t status_grow(ngx_http_reuse_status_text_t *text, size_t need);


void ngx_cdecl
ngx_http_reuse_status_write(ngx_http_reuse_status_text_t *text,
    const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    for ( ;; ) {

        if (text->last < text->end) {
            va_start(args, fmt);
            p = ngx_vslprintf(text->last, text->end, fmt, args);
            va_end(args);

            /* if that is the end, something may have been left out */

            if (p < text->end) {
                text->last = p;
                return;
            }
        }

        if (status_grow(text, 0) != NGX_OK) {
            return;
        }
    }
}


void
ngx_http_reuse_status_write_json(ngx_http_reuse_status_text_t *text,
    ngx_str_t *value)
{
    size_t     len;
    ngx_str_t  copy;

    if (status_copy_utf8(text, &copy, value) != NGX_OK) {
        return;
    }

    len = copy.len + ngx_escape_json(NULL, copy.data, copy.len);

    if (status_reserve(text, len + 2) != NGX_OK) {
        return;
    }

    *text->last++ = '"';
    text->last = (u_char *) ngx_escape_json(text->last, copy.data, copy.len);
    *text->last++ = '"';
}


void
ngx_http_reuse_status_write_html(ngx_http_reuse_status_text_t *text,
    ngx_str_t *value)
{
    size_t  len;

    len = value->len + ngx_escape_html(NULL, value->data, value->len);

    if (status_reserve(text, len) != NGX_OK) {
        return;
    }

    text->last = (u_char *) ngx_escape_html(text->last, value->data,
                                            value->len);
}


void
ngx_http_reuse_status_write_label(ngx_http_reuse_status_text_t *text,
    ngx_str_t *value)
{
    u_char      ch, *p;
    ngx_str_t   copy;
    ngx_uint_t  i;

    if (status_copy_utf8(text, &copy, value) != NGX_OK
        || status_reserve(text, copy.len * 2 + 2) != NGX_OK)
    {
        return;
    }

    p = text->last;
    *p++ = '"';

    for (i = 0; i < copy.len; i++) {
        ch = copy.data[i];

        if (ch == '"' || ch == '\\' || ch == '\n') {
            *p++ = '\\';
        }

        *p++ = (ch == '\n') ? 'n' : ch;
    }

    *p++ = '"';
    text->last = p;
}


/*
 * A name in the configuration may have any bytes.  Those that are no UTF-8
 * (RFC 3629) become U+FFFD, each by itself.
 */

static ngx_int_t
status_copy_utf8(ngx_http_reuse_status_text_t *text, ngx_str_t *copy,
    ngx_str_t *value)
{
    u_char    *p, *q, *dst, *last, *next;
    uint32_t   ch;

    dst = ngx_pnalloc(text->pool, value->len * 3 + 1);
    if (dst == NULL) {
        text->failed = 1;
        return NGX_ERROR;
    }

    copy->data = dst;

    p = value->data;
    last = p + value->len;

    while (p < last) {

        if (*p < 0x80) {
            *dst++ = *p++;
            continue;
        }

        next = p;
        ch = ngx_utf8_decode(&next, last - p);

        /* nginx 1.22 takes what begins with 0xf8 or more, too */

        if (*p >= 0xf8) {
            ch = 0xffffffff;
        }

        /* it takes more than continuation bytes for such */

        for (q = p + 1; q < next; q++) {
            if ((*q & 0xc0) != 0x80) {
                ch = 0xffffffff;
            }
        }

        if (ch > 0x10ffff || (ch >= 0xd800 && ch <= 0xdfff)) {
            dst = ngx_cpymem(dst, "\xef\xbf\xbd", 3);
            p++;
            continue;
        }

        dst = ngx_cpymem(dst, p, next - p);
        p = next;
    }

    copy->len = dst - copy->data;

    return NGX_OK;
}


static ngx_int_t
status_reserve(ngx_http_reuse_status_text_t *text, size_t need)
{
    return ((size_t) (text->end - text->last) >= need)
           ? NGX_OK : status_grow(text, need);
}


/* Makes it twice as large, and by what is needed. */

static ngx_int_t
status_grow(ngx_http_reuse_status_text_t *text, size_t need)
{
    size_t   len, size;
    u_char  *p;

    len = text->last - text->start;
    size = ngx_max(2 * (size_t) (text->end - text->start),
                   NGX_HTTP_REUSE_STATUS_TEXT)
           + need;

    p = text->failed ? NULL : ngx_pnalloc(text->pool, size);

    if (p == NULL) {

        /* what is written from now on comes to nothing */

        text->failed = 1;
        return NGX_ERROR;
    }

    text->end = p + size;
    text->last = p;

    if (text->start) {
        text->last = ngx_cpymem(p, text->start, len);
        (void) ngx_pfree(text->pool, text->start);
    }

    text->start = p;

    return NGX_OK;
}


void
ngx_http_reuse_status_write_time(ngx_http_reuse_status_text_t *text,
    uint64_t us)
{
    if (us < 1000) {
        ngx_http_reuse_status_write(text, "%uL&nbsp;\xc2\xb5s", us);

    } else if (us < 1000000) {
        ngx_http_reuse_status_write(text, "%uL.%uL&nbsp;ms", us / 1000,
                                    us % 1000 / 100);

    } else if (us < 600000000) {
        ngx_http_reuse_status_write(text, "%uL.%uL&nbsp;s", us / 1000000,
                                    us % 1000000 / 100000);

    } else if (us < (uint64_t) 600 * 60000000) {
        ngx_http_reuse_status_write(text, "%uL&nbsp;min", us / 60000000);

    } else {
        ngx_http_reuse_status_write(text, "%uL&nbsp;h",
                                    us / ((uint64_t) 60 * 60000000));
    }
}


/* The digits in groups, with narrow spaces. */

void
ngx_http_reuse_status_write_number(ngx_http_reuse_status_text_t *text,
    const char *name, ngx_atomic_uint_t number)
{
    u_char       digits[NGX_INT64_LEN], *p, *last;

    if (name) {
        ngx_http_reuse_status_write(text,
                                    "<data class=\"%s\" value=\"%uA\">", name,
                                    number);
    }

    last = ngx_sprintf(digits, "%uA", number);

    for (p = digits; p < last; p++) {

        if (p > digits && (last - p) % 3 == 0) {
            ngx_http_reuse_status_write(text, "\xe2\x80\xaf");
        }

        ngx_http_reuse_status_write(text, "%c", *p);
    }

    if (name) {
        ngx_http_reuse_status_write(text, "</data>");
    }
}
