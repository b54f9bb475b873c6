
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The lines of a response's header.  There is a short way for what nearly all
 * of them are: an HTTP/1.1 status line, and whole lines with nothing in them
 * that nginx's parsers look at closely.  Whatever is different is left to
 * these, and with it all that can be wrong.
 */


#include "ngx_http_myproxy_module.h"


/* bytes for fields that are allocated at a time */
#define NGX_HTTP_MYPROXY_ROOM_SIZE  256

#define NGX_HTTP_MYPROXY_STATUS_LEN  (sizeof("HTTP/1.1 200") - 1)

/* the byte eight times */
#define each(byte)  ((uint64_t) 0x0101010101010101 * (byte))


static ngx_inline u_char *read_name(u_char *p, u_char *last, ngx_str_t *key);
static ngx_inline ngx_http_myproxy_known_field_t *find_name(
    ngx_http_myproxy_known_field_t **names, ngx_str_t *key);
static ngx_inline ngx_uint_t same_bytes(u_char *a, u_char *b, size_t len);
static ngx_int_t copy_name(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    u_char *last, ngx_str_t key, ngx_table_elt_t *h);
static ngx_inline ngx_int_t copy_value(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, u_char **pos, u_char *last,
    ngx_str_t *value);
static ngx_int_t make_room(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    size_t size, size_t rest);
static ngx_inline ngx_table_elt_t *push_field(ngx_list_t *list);
static ngx_inline void set_name(ngx_table_elt_t *h,
    ngx_http_myproxy_known_field_t *name);

static ngx_inline uint64_t load(u_char *p);
static ngx_inline uint64_t below(uint64_t bytes, u_char n);
static ngx_inline size_t first(uint64_t found);
static ngx_inline u_char *find_colon(u_char *p, u_char *last);
static ngx_inline u_char *find_control(u_char *p, u_char *last);


ngx_int_t
ngx_http_myproxy_read_status(ngx_http_request_t *r, ngx_buf_t *b,
    ngx_http_status_t *status)
{
    u_char  *p, *end, *code;

    p = b->pos;

    if (r->state || status->count
        || (size_t) (b->last - p) < NGX_HTTP_MYPROXY_STATUS_LEN
        || ngx_memcmp(p, "HTTP/1.1 ", sizeof("HTTP/1.1 ") - 1) != 0)
    {
        return NGX_DECLINED;
    }

    code = p + sizeof("HTTP/1.1 ") - 1;
    p = code + 3;

    if (code[0] < '1' || code[0] > '9'
        || code[1] < '0' || code[1] > '9'
        || code[2] < '0' || code[2] > '9')
    {
        return NGX_DECLINED;
    }

    end = find_control(p, b->last);

    if (b->last - end < 2 || end[0] != CR || end[1] != LF
        || (end > p && *p != ' '))
    {
        return NGX_DECLINED;
    }

    r->http_major = 1;
    r->http_minor = 1;

    status->http_version = NGX_HTTP_VERSION_11;
    status->code = (code[0] - '0') * 100 + (code[1] - '0') * 10
                   + (code[2] - '0');
    status->count = 3;
    status->start = code;
    status->end = end;

    b->pos = end + 2;

    return NGX_OK;
}


ngx_int_t
ngx_http_myproxy_read_fields(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_buf_t *b, ngx_list_t *list)
{
    u_char                          *p, *last;
    ngx_int_t                        rc;
    ngx_str_t                        key, value;
    ngx_uint_t                       final;
    ngx_table_elt_t                 *h, other;
    ngx_http_myproxy_known_field_t  *name;
    ngx_http_myproxy_main_conf_t    *mmcf;

    if (r->state) {
        return NGX_DECLINED;
    }

    mmcf = ngx_http_get_module_main_conf(r, ngx_http_myproxy_module);
    ngx_memzero(&other, sizeof(ngx_table_elt_t));

    final = (ctx->status.code >= NGX_HTTP_OK);
    last = b->last;

    for ( ;; ) {

        p = b->pos;

        if (last - p < 2) {
            return NGX_DECLINED;
        }

        if (p[0] == CR && p[1] == LF) {
            b->pos = p + 2;
            return NGX_DONE;
        }

        if (p[0] <= ' ') {
            return NGX_DECLINED;
        }

        p = read_name(p, last, &key);
        if (p == NULL) {
            return NGX_DECLINED;
        }

        name = find_name(mmcf->names, &key);

        if (name == NULL) {
            rc = copy_name(r, ctx, last, key, &other);
            if (rc != NGX_OK) {
                return rc;
            }
        }

        rc = copy_value(r, ctx, &p, last, &value);
        if (rc != NGX_OK) {
            return rc;
        }

        h = push_field(list);
        if (h == NULL) {
            return NGX_ERROR;
        }

        if (name) {
            set_name(h, name);

        } else {
            *h = other;
        }

        /* not as a struct: that would wait until it is in memory */

        h->value.len = value.len;
        h->value.data = value.data;
        ngx_http_myproxy_unlink_header(h);

        b->pos = p;

        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                       "myproxy header: \"%V: %V\"", &h->key, &h->value);

        if (name && name->plain) {
            continue;
        }

        rc = (name && name->simple && final)
             ? name->header->handler(r, h, name->header->offset)
             : ngx_http_myproxy_process_field(r, ctx, h, name);

        if (rc != NGX_OK) {
            return rc;
        }
    }
}


/* Finds a line's name; returns where the value begins, or NULL. */

static ngx_inline u_char *
read_name(u_char *p, u_char *last, ngx_str_t *key)
{
    u_char  *colon;

    colon = find_colon(p, last);

    if (colon == p || colon == last) {
        return NULL;
    }

    key->data = p;
    key->len = colon - p;

    for (p = colon + 1; p < last && *p == ' '; p++) { /* void */ }

    return p;
}


static ngx_inline ngx_http_myproxy_known_field_t *
find_name(ngx_http_myproxy_known_field_t **names, ngx_str_t *key)
{
    ngx_http_myproxy_known_field_t  *name;

    name = names[ngx_http_myproxy_name_place(key)];

    for ( /* void */ ; name; name = name->next) {

        if (name->key.len == key->len
            && same_bytes(name->key.data, key->data, key->len))
        {
            break;
        }
    }

    return name;
}


static ngx_inline ngx_uint_t
same_bytes(u_char *a, u_char *b, size_t len)
{
    size_t    i;
    uint32_t  x, y;

    if (len < 4) {

        for (i = 0; i < len; i++) {
            if (a[i] != b[i]) {
                return 0;
            }
        }

        return 1;
    }

    if (len < 8) {
        ngx_memcpy(&x, a, 4);
        ngx_memcpy(&y, b, 4);

        if (x != y) {
            return 0;
        }

        ngx_memcpy(&x, a + len - 4, 4);
        ngx_memcpy(&y, b + len - 4, 4);

        return x == y;
    }

    /* the last ones may overlap others */

    len -= 8;

    for (i = 0; i < len; i += 8) {
        if (load(a + i) != load(b + i)) {
            return 0;
        }
    }

    return load(a + len) == load(b + len);
}


/*
 * "nameName\0", the first in lower case.  NGX_DECLINED if there is anything in
 * the name that should not be.
 */

static ngx_int_t
copy_name(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx, u_char *last,
    ngx_str_t key, ngx_table_elt_t *h)
{
    u_char     *p;
    size_t      len;
    ngx_int_t   rc;

    len = key.len;

    if ((size_t) (ctx->room_end - ctx->room) <= len + len + 1
        && make_room(r, ctx, len + len + 1 + 1, last - key.data)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    p = ctx->room;

    rc = ngx_http_myproxy_lower_name(p, &key, &h->hash);
    if (rc != NGX_OK) {
        return rc;
    }

    h->lowcase_key = p;
    p += len;

    ngx_memcpy(p, key.data, len);
    h->key.len = len;
    h->key.data = p;
    p += len;
    *p++ = '\0';

    ctx->room = p;

    return NGX_OK;
}


/*
 * "Value\0", copied while its end is looked for as long as there is room.
 * NGX_DECLINED if that is no CR LF.
 */

static ngx_inline ngx_int_t
copy_value(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx, u_char **pos,
    u_char *last, ngx_str_t *value)
{
    u_char    *p, *to, *start;
    ssize_t    n;
    uint64_t   bytes, found;

    start = *pos;
    found = 0;

    p = start;
    to = ctx->room;

    for (n = ngx_min(last - p, ctx->room_end - to); n >= 8; n -= 8) {

        bytes = load(p);
        ngx_memcpy(to, p, 8);

        found = below(bytes, 0x20);

        if (found) {
            p += first(found);
            break;
        }

        p += 8;
        to += 8;
    }

    if (!found) {
        p = find_control(p, last);
    }

    if (last - p < 2 || p[0] != CR || p[1] != LF) {
        return NGX_DECLINED;
    }

    *pos = p + 2;

    while (p > start && p[-1] == ' ') {
        p--;
    }

    value->len = p - start;

    if (!found) {

        if (ctx->room_end - ctx->room <= (ssize_t) value->len
            && make_room(r, ctx, value->len + 1, last - start) != NGX_OK)
        {
            return NGX_ERROR;
        }

        ngx_memcpy(ctx->room, start, value->len);
    }

    value->data = ctx->room;
    value->data[value->len] = '\0';

    ctx->room += value->len + 1;

    return NGX_OK;
}


/*
 * Fields are allocated many at a time: this size or more, and no more for
 * others than the rest of what was read may need.
 */

static ngx_int_t
make_room(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx, size_t size,
    size_t rest)
{
    size = ngx_max(size, ngx_min(rest, NGX_HTTP_MYPROXY_ROOM_SIZE));

    ctx->room = ngx_pnalloc(r->pool, size);
    if (ctx->room == NULL) {
        ctx->room_end = NULL;
        return NGX_ERROR;
    }

    ctx->room_end = ctx->room + size;

    return NGX_OK;
}


/* ngx_list_push(), which is only called when there is no more place */

static ngx_inline ngx_table_elt_t *
push_field(ngx_list_t *list)
{
    ngx_list_part_t  *part;

    part = list->last;

    if (part->nelts == list->nalloc) {
        return ngx_list_push(list);
    }

    return (ngx_table_elt_t *) part->elts + part->nelts++;
}


static ngx_inline void
set_name(ngx_table_elt_t *h, ngx_http_myproxy_known_field_t *name)
{
    h->hash = name->hash;
    h->key = name->key;
    h->lowcase_key = name->lowcase;
}


/*
 * Bytes are looked at by eight.  The first of them in memory is the lowest.
 */

static ngx_inline uint64_t
load(u_char *p)
{
    uint64_t  bytes;

#if (NGX_HAVE_LITTLE_ENDIAN)

    ngx_memcpy(&bytes, p, sizeof(uint64_t));

#else

    ngx_uint_t  i;

    bytes = 0;

    for (i = 8; i; i--) {
        bytes = bytes << 8 | p[i - 1];
    }

#endif

    return bytes;
}


/*
 * Taking n from a byte that is less borrows, which shows in its highest bit if
 * that was not set before.  Bytes behind the first such may show as well.
 */

static ngx_inline uint64_t
below(uint64_t bytes, u_char n)
{
    return (bytes - each(n)) & ~bytes & each(0x80);
}


static ngx_inline size_t
first(uint64_t found)
{
#if (__GNUC__)

    return __builtin_ctzll(found) / 8;

#else

    size_t  n;

    for (n = 0; (found & 0x80) == 0; n++) {
        found >>= 8;
    }

    return n;

#endif
}


/* The first colon, or last. */

static ngx_inline u_char *
find_colon(u_char *p, u_char *last)
{
    uint64_t  found;

    for ( /* void */ ; last - p >= 8; p += 8) {

        found = below(load(p) ^ each(':'), 1);

        if (found) {
            return p + first(found);
        }
    }

    while (p < last && *p != ':') {
        p++;
    }

    return p;
}


/* The first byte below 0x20, or last. */

static ngx_inline u_char *
find_control(u_char *p, u_char *last)
{
    uint64_t  found;

    for ( /* void */ ; last - p >= 8; p += 8) {

        found = below(load(p), 0x20);

        if (found) {
            return p + first(found);
        }
    }

    while (p < last && *p >= 0x20) {
        p++;
    }

    return p;
}


ngx_int_t
ngx_http_myproxy_add_field(ngx_http_request_t *r, ngx_list_t *list,
    ngx_table_elt_t **field)
{
    u_char           *p;
    size_t            key, value;
    ngx_table_elt_t  *h;

    if (ngx_http_myproxy_check_name(r) != NGX_OK) {
        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    h = ngx_list_push(list);
    if (h == NULL) {
        return NGX_ERROR;
    }

    key = r->header_name_end - r->header_name_start;
    value = r->header_end - r->header_start;

    /* "Name\0value\0name" */

    p = ngx_pnalloc(r->pool, key + 1 + value + 1 + key);
    if (p == NULL) {
        h->hash = 0;
        return NGX_ERROR;
    }

    h->hash = r->header_hash;
    ngx_http_myproxy_unlink_header(h);

    h->key.data = p;
    h->key.len = key;
    p = ngx_cpymem(p, r->header_name_start, key);
    *p++ = '\0';

    h->value.data = p;
    h->value.len = value;
    p = ngx_cpymem(p, r->header_start, value);
    *p++ = '\0';

    h->lowcase_key = p;

    if (key == r->lowcase_index) {
        ngx_memcpy(p, r->lowcase_header, key);

    } else {
        ngx_strlow(p, h->key.data, key);
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "myproxy header: \"%V: %V\"", &h->key, &h->value);

    *field = h;

    return NGX_OK;
}


/*
 * nginx's parser lets pass a line without a colon and names that are no
 * tokens (RFC 9110, section 5.6.2).
 */

ngx_int_t
ngx_http_myproxy_check_name(ngx_http_request_t *r)
{
    u_char  *p, ch;

    if (*r->header_name_end != ':') {
        return ngx_http_myproxy_invalid_bytes(r,
                                              "a header line without a colon",
                                              r->header_name_start,
                                              r->header_name_end);
    }

    if (!r->invalid_header) {
        return NGX_OK;
    }

    for (p = r->header_name_start; p < r->header_name_end; p++) {

        ch = *p;

        if (ch <= ' ' || ch >= 0x7f
            || ngx_strchr("\"(),/:;<=>?@[\\]{}", ch))
        {
            return ngx_http_myproxy_invalid_bytes(r,
                                        "a header line with an invalid name",
                                        r->header_name_start,
                                        r->header_name_end);
        }
    }

    return NGX_OK;
}
