
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Names on the status page: whatever bytes they have, what is written is a
 * JSON string, text in HTML, or a label of Prometheus, and no more than that.
 * Read again, it is the same name, if that was UTF-8.
 */


#include "fuzz.h"
#include "ngx_http_reuse_status.h"


typedef void (*write_pt)(ngx_http_reuse_status_text_t *text, ngx_str_t *value);


static ngx_str_t written(fuzz_subject_t *s, write_pt write,
    ngx_str_t *value);
static ngx_uint_t is_utf8(ngx_str_t *s);
static ngx_str_t unquoted(ngx_str_t *s, ngx_uint_t json);
static ngx_str_t unescaped_html(ngx_str_t *s);
static u_char hex(u_char *p);


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


const char  *fuzz_locations[] = { "" };
ngx_uint_t   fuzz_nlocations = 1;


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ngx_str_t       value, text, again;
    ngx_uint_t      i;
    fuzz_subject_t  s;

    static const struct {
        write_pt    write;
        ngx_uint_t  json;
    } quoted[] = {
        { ngx_http_reuse_status_write_json, 1 },
        { ngx_http_reuse_status_write_label, 0 }
    };

    if (size > 4096) {
        return -1;
    }

    value = fuzz_copy(data, size);
    fuzz_begin(&s, 0);

    for (i = 0; i < fuzz_count(quoted); i++) {
        text = written(&s, quoted[i].write, &value);

        if (!is_utf8(&text)) {
            fuzz_fail("no UTF-8", &text);
        }

        again = unquoted(&text, quoted[i].json);

        if (is_utf8(&value) && !fuzz_same(&again, &value)) {
            fuzz_fail("another name when it is read", &text);
        }

        free(text.data);
        free(again.data);
    }

    text = written(&s, ngx_http_reuse_status_write_html, &value);
    again = unescaped_html(&text);

    if (!fuzz_same(&again, &value)) {
        fuzz_fail("another text when it is read", &text);
    }

    free(text.data);
    free(again.data);
    free(value.data);
    fuzz_end(&s);

    return 0;
}


/* It is written twice, the second time where little room is left. */

static ngx_str_t
written(fuzz_subject_t *s, write_pt write, ngx_str_t *value)
{
    size_t                        len;
    ngx_str_t                     first, second;
    ngx_http_reuse_status_text_t  text;

    ngx_memzero(&text, sizeof(ngx_http_reuse_status_text_t));
    text.pool = s->request.pool;

    write(&text, value);

    first = fuzz_copy(text.start, text.last - text.start);

    ngx_http_reuse_status_write(&text, "-");

    len = text.end - text.last;

    if (len > 7) {
        ngx_memset(text.last, '-', len - 7);
        text.last += len - 7;
    }

    len = text.last - text.start;
    write(&text, value);

    second.data = text.start + len;
    second.len = text.last - second.data;

    if (text.failed || !fuzz_same(&first, &second)) {
        fuzz_fail("another text where there is little room", value);
    }

    return first;
}


/* RFC 3629, section 4 */

static ngx_uint_t
is_utf8(ngx_str_t *s)
{
    u_char    *p, *last;
    size_t     n, i;
    uint32_t   ch;

    static const uint32_t  least[] = { 0, 0x80, 0x800, 0x10000 };

    last = s->data + s->len;

    for (p = s->data; p < last; p += n + 1) {

        n = *p < 0x80 ? 0 : *p < 0xc0 ? 4 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2
            : *p < 0xf8 ? 3 : 4;

        if (n == 4 || (size_t) (last - p) <= n) {
            return 0;
        }

        ch = n ? *p & (0x3f >> n) : *p;

        for (i = 1; i <= n; i++) {
            if ((p[i] & 0xc0) != 0x80) {
                return 0;
            }

            ch = ch << 6 | (p[i] & 0x3f);
        }

        if (ch < least[n] || ch > 0x10ffff || (ch >= 0xd800 && ch < 0xe000)) {
            return 0;
        }
    }

    return 1;
}


/* Reads a string between quotes, which may hold no line break nor a quote. */

static ngx_str_t
unquoted(ngx_str_t *s, ngx_uint_t json)
{
    u_char     *p, *last, *to;
    ngx_str_t   text;

    if (s->len < 2 || s->data[0] != '"' || s->data[s->len - 1] != '"') {
        fuzz_fail("not between quotes", s);
    }

    text = fuzz_copy(s->data, s->len);
    to = text.data;
    last = s->data + s->len - 1;

    for (p = s->data + 1; p < last; p++) {

        if (*p == '"' || *p == '\n' || (json && *p < ' ')) {
            fuzz_fail("a byte that is to be escaped", s);
        }

        if (*p != '\\') {
            *to++ = *p;
            continue;
        }

        if (++p == last) {
            fuzz_fail("a backslash at the end", s);
        }

        if (*p == '"' || *p == '\\') {
            *to++ = *p;

        } else if (*p == 'n') {
            *to++ = '\n';

        } else if (json && strchr("tbfr", *p)) {
            *to++ = *p == 't' ? '\t' : *p == 'b' ? '\b'
                    : *p == 'f' ? '\f' : '\r';

        } else if (json && *p == 'u' && last - p > 4
                   && p[1] == '0' && p[2] == '0')
        {
            *to++ = (u_char) (hex(p + 3) * 16 + hex(p + 4));
            p += 4;

        } else {
            fuzz_fail("an escape that is none", s);
        }
    }

    text.len = to - text.data;

    return text;
}


static ngx_str_t
unescaped_html(ngx_str_t *s)
{
    size_t      n;
    u_char     *p, *last, *to;
    ngx_str_t   text;
    ngx_uint_t  i;

    static const struct {
        const char  *name;
        u_char       ch;
    } entities[] = {
        { "&lt;", '<' }, { "&gt;", '>' }, { "&amp;", '&' }, { "&quot;", '"' }
    };

    text = fuzz_copy(s->data, s->len);
    to = text.data;
    last = s->data + s->len;

    for (p = s->data; p < last; /* void */ ) {

        if (*p == '<' || *p == '>' || *p == '"') {
            fuzz_fail("a byte that is to be escaped", s);
        }

        if (*p != '&') {
            *to++ = *p++;
            continue;
        }

        for (i = 0; i < fuzz_count(entities); i++) {
            n = strlen(entities[i].name);

            if ((size_t) (last - p) >= n
                && memcmp(p, entities[i].name, n) == 0)
            {
                *to++ = entities[i].ch;
                p += n;
                break;
            }
        }

        if (i == fuzz_count(entities)) {
            fuzz_fail("an entity that is none", s);
        }
    }

    text.len = to - text.data;

    return text;
}


static u_char
hex(u_char *p)
{
    return *p <= '9' ? *p - '0' : (*p | 0x20) - 'a' + 10;
}
