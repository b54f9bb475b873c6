
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
#define NGX_HTTP_MYPROXY_ROOM_SIZE  512

#define NGX_HTTP_MYPROXY_STATUS_LEN  (sizeof("HTTP/1.1 200") - 1)

/* the byte eight times */
#define each(byte)  ((uint64_t) 0x0101010101010101 * (byte))

#define find_colon(p, last)    find(p, last, ':', 1)
#define find_control(p, last)  find(p, last, 0, 0x20)

/* few of the names below share a place */
#define name_place(key)                                                       \
    ((2 * (key)->data[0] + 7 * (key)->data[(key)->len - 1] + 5 * (key)->len)  \
     % NGX_HTTP_MYPROXY_NAMES)


static ngx_int_t add_name(ngx_conf_t *cf, ngx_http_myproxy_main_conf_t *mmcf,
    ngx_str_t *key);

static ngx_inline ngx_int_t read_line(u_char **pos, u_char *last,
    ngx_table_elt_t *h);
static ngx_inline ngx_int_t copy_line(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_name_t *name,
    ngx_table_elt_t *h);
static ngx_inline ngx_http_myproxy_name_t *find_name(ngx_http_request_t *r,
    ngx_str_t *key);
static ngx_int_t read_name(u_char *low, ngx_str_t *name, ngx_uint_t *hash);
static u_char *make_room(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    size_t size);
static ngx_inline u_char *find(u_char *p, u_char *last, u_char flipped,
    u_char below);


/* as origins write them; besides, all of them in lower case */

static ngx_str_t  common[] = {
    ngx_string("Accept-Ranges"),
    ngx_string("Access-Control-Allow-Credentials"),
    ngx_string("Access-Control-Allow-Headers"),
    ngx_string("Access-Control-Allow-Methods"),
    ngx_string("Access-Control-Allow-Origin"),
    ngx_string("Access-Control-Expose-Headers"),
    ngx_string("Age"),
    ngx_string("Allow"),
    ngx_string("Alt-Svc"),
    ngx_string("Cache-Control"),
    ngx_string("Connection"),
    ngx_string("Content-Disposition"),
    ngx_string("Content-Encoding"),
    ngx_string("Content-Language"),
    ngx_string("Content-Length"),
    ngx_string("Content-Range"),
    ngx_string("Content-Security-Policy"),
    ngx_string("Content-Type"),
    ngx_string("Date"),
    ngx_string("ETag"),
    ngx_string("Etag"),
    ngx_string("Expires"),
    ngx_string("Keep-Alive"),
    ngx_string("Last-Modified"),
    ngx_string("Link"),
    ngx_string("Location"),
    ngx_string("Permissions-Policy"),
    ngx_string("Pragma"),
    ngx_string("Referrer-Policy"),
    ngx_string("Refresh"),
    ngx_string("Retry-After"),
    ngx_string("Server"),
    ngx_string("Server-Timing"),
    ngx_string("Set-Cookie"),
    ngx_string("Strict-Transport-Security"),
    ngx_string("Trailer"),
    ngx_string("Transfer-Encoding"),
    ngx_string("Upgrade"),
    ngx_string("Vary"),
    ngx_string("Via"),
    ngx_string("WWW-Authenticate"),
    ngx_string("X-Accel-Buffering"),
    ngx_string("X-Accel-Expires"),
    ngx_string("X-Accel-Redirect"),
    ngx_string("X-Cache"),
    ngx_string("X-Content-Type-Options"),
    ngx_string("X-Frame-Options"),
    ngx_string("X-Powered-By"),
    ngx_string("X-Request-ID"),
    ngx_string("X-Request-Id"),
    ngx_string("X-Runtime"),
    ngx_string("X-XSS-Protection"),
    ngx_null_string
};


/* of the names that nginx's parser takes as they are; 0: not in these */

static const u_char  lowcase[256] = {
    ['-'] = '-', ['_'] = '_',
    ['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4',
    ['5'] = '5', ['6'] = '6', ['7'] = '7', ['8'] = '8', ['9'] = '9',
    ['A'] = 'a', ['B'] = 'b', ['C'] = 'c', ['D'] = 'd', ['E'] = 'e',
    ['F'] = 'f', ['G'] = 'g', ['H'] = 'h', ['I'] = 'i', ['J'] = 'j',
    ['K'] = 'k', ['L'] = 'l', ['M'] = 'm', ['N'] = 'n', ['O'] = 'o',
    ['P'] = 'p', ['Q'] = 'q', ['R'] = 'r', ['S'] = 's', ['T'] = 't',
    ['U'] = 'u', ['V'] = 'v', ['W'] = 'w', ['X'] = 'x', ['Y'] = 'y',
    ['Z'] = 'z',
    ['a'] = 'a', ['b'] = 'b', ['c'] = 'c', ['d'] = 'd', ['e'] = 'e',
    ['f'] = 'f', ['g'] = 'g', ['h'] = 'h', ['i'] = 'i', ['j'] = 'j',
    ['k'] = 'k', ['l'] = 'l', ['m'] = 'm', ['n'] = 'n', ['o'] = 'o',
    ['p'] = 'p', ['q'] = 'q', ['r'] = 'r', ['s'] = 's', ['t'] = 't',
    ['u'] = 'u', ['v'] = 'v', ['w'] = 'w', ['x'] = 'x', ['y'] = 'y',
    ['z'] = 'z'
};


ngx_int_t
ngx_http_myproxy_init_names(ngx_conf_t *cf)
{
    ngx_str_t                     *key, low;
    ngx_http_myproxy_main_conf_t  *mmcf;

    mmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_myproxy_module);

    for (key = common; key->len; key++) {

        if (add_name(cf, mmcf, key) != NGX_OK) {
            return NGX_ERROR;
        }

        low.len = key->len;
        low.data = ngx_pnalloc(cf->pool, key->len);
        if (low.data == NULL) {
            return NGX_ERROR;
        }

        ngx_strlow(low.data, key->data, key->len);

        if (add_name(cf, mmcf, &low) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
add_name(ngx_conf_t *cf, ngx_http_myproxy_main_conf_t *mmcf, ngx_str_t *key)
{
    u_char                         *p;
    ngx_http_myproxy_name_t        *name, **place;
    ngx_http_upstream_main_conf_t  *umcf;

    place = &mmcf->names[name_place(key)];

    for (name = *place; name; name = name->next) {

        if (name->key.len == key->len
            && ngx_memcmp(name->key.data, key->data, key->len) == 0)
        {
            return NGX_OK;
        }
    }

    name = ngx_palloc(cf->pool, sizeof(ngx_http_myproxy_name_t));
    if (name == NULL) {
        return NGX_ERROR;
    }

    /* as fields have them: "name" and "Name\0", to be written to as these */

    p = ngx_pnalloc(cf->pool, key->len + key->len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    name->lowcase = p;

    if (read_name(p, key, &name->hash) != NGX_OK) {
        return NGX_ERROR;
    }

    name->key.len = key->len;
    name->key.data = p + key->len;
    ngx_cpystrn(name->key.data, key->data, key->len + 1);

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);

    name->header = ngx_hash_find(&umcf->headers_in_hash, name->hash,
                                 name->lowcase, key->len);
    name->next = *place;
    *place = name;

    return NGX_OK;
}


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
ngx_http_myproxy_read_field(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_buf_t *b, ngx_list_t *list,
    ngx_table_elt_t **field, ngx_http_myproxy_name_t **known)
{
    u_char                   *p;
    ngx_int_t                 rc;
    ngx_table_elt_t           found, *h;
    ngx_http_myproxy_name_t  *name;

    if (r->state) {
        return NGX_DECLINED;
    }

    p = b->pos;

    rc = read_line(&p, b->last, &found);

    if (rc == NGX_OK) {
        name = find_name(r, &found.key);
        *known = name;

        rc = copy_line(r, ctx, name, &found);
    }

    if (rc == NGX_OK) {
        h = ngx_list_push(list);
        if (h == NULL) {
            return NGX_ERROR;
        }

        *h = found;
        *field = h;

        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                       "myproxy header: \"%V: %V\"", &h->key, &h->value);
    }

    if (rc == NGX_OK || rc == NGX_DONE) {
        b->pos = p;
    }

    return rc;
}


/*
 * Finds a line's name and value, and its end.  NGX_DONE: the line is empty.
 */

static ngx_inline ngx_int_t
read_line(u_char **pos, u_char *last, ngx_table_elt_t *h)
{
    u_char  *p, *end;

    p = *pos;

    if (last - p < 2) {
        return NGX_DECLINED;
    }

    if (p[0] == CR && p[1] == LF) {
        *pos = p + 2;
        return NGX_DONE;
    }

    end = find_colon(p, last);

    if (end == p || end == last) {
        return NGX_DECLINED;
    }

    h->key.data = p;
    h->key.len = end - p;

    for (p = end + 1; p < last && *p == ' '; p++) { /* void */ }

    end = find_control(p, last);

    if (last - end < 2 || end[0] != CR || end[1] != LF) {
        return NGX_DECLINED;
    }

    *pos = end + 2;

    while (end > p && end[-1] == ' ') {
        end--;
    }

    h->value.data = p;
    h->value.len = end - p;

    return NGX_OK;
}


/*
 * Puts a field that lies in the buffer into memory of its own: "Value\0", and
 * before it "nameName\0" unless the name is there already.  NGX_DECLINED if
 * there is anything in the name that should not be.
 */

static ngx_inline ngx_int_t
copy_line(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_http_myproxy_name_t *name, ngx_table_elt_t *h)
{
    u_char  *p;
    size_t   len;

    len = h->value.len + 1;

    if (name == NULL) {
        len += h->key.len + h->key.len + 1;
    }

    p = ctx->room;

    if ((size_t) (ctx->room_end - p) < len) {
        p = make_room(r, ctx, len);
        if (p == NULL) {
            return NGX_ERROR;
        }
    }

    if (name) {
        h->hash = name->hash;
        h->key = name->key;
        h->lowcase_key = name->lowcase;

    } else {
        if (read_name(p, &h->key, &h->hash) != NGX_OK) {
            return NGX_DECLINED;
        }

        h->lowcase_key = p;
        p += h->key.len;

        ngx_memcpy(p, h->key.data, h->key.len);
        h->key.data = p;
        p += h->key.len;
        *p++ = '\0';
    }

    ngx_memcpy(p, h->value.data, h->value.len);
    h->value.data = p;
    p += h->value.len;
    *p++ = '\0';

    ngx_http_myproxy_unlink_header(h);

    ctx->room = p;

    return NGX_OK;
}


static ngx_inline ngx_http_myproxy_name_t *
find_name(ngx_http_request_t *r, ngx_str_t *key)
{
    ngx_http_myproxy_name_t       *name;
    ngx_http_myproxy_main_conf_t  *mmcf;

    mmcf = ngx_http_get_module_main_conf(r, ngx_http_myproxy_module);

    for (name = mmcf->names[name_place(key)]; name; name = name->next) {

        if (name->key.len == key->len
            && ngx_memcmp(name->key.data, key->data, key->len) == 0)
        {
            break;
        }
    }

    return name;
}


/*
 * Writes a name in lower case, with its hash.  NGX_DECLINED if it has anything
 * in it that it should not.
 */

static ngx_int_t
read_name(u_char *low, ngx_str_t *name, ngx_uint_t *hash)
{
    u_char      ch;
    size_t      i;
    ngx_uint_t  key;

    key = 0;

    for (i = 0; i < name->len; i++) {

        ch = lowcase[name->data[i]];

        if (ch == 0) {
            return NGX_DECLINED;
        }

        key = ngx_hash(key, ch);
        low[i] = ch;
    }

    *hash = key;

    return NGX_OK;
}


/* Fields are allocated many at a time. */

static u_char *
make_room(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx, size_t size)
{
    size = ngx_max(size, NGX_HTTP_MYPROXY_ROOM_SIZE);

    ctx->room = ngx_pnalloc(r->pool, size);
    if (ctx->room == NULL) {
        ctx->room_end = NULL;
        return NULL;
    }

    ctx->room_end = ctx->room + size;

    return ctx->room;
}


/*
 * The first byte that is below another after its bits were flipped, or last.
 * Eight are looked at in one: taking more from a byte than it has borrows,
 * which shows in its highest bit if that was not set before.  Bytes behind the
 * first such may show as well.
 */

static ngx_inline u_char *
find(u_char *p, u_char *last, u_char flipped, u_char below)
{
    uint64_t  bytes, found;

    while (last - p >= (ssize_t) sizeof(uint64_t)) {

        ngx_memcpy(&bytes, p, sizeof(uint64_t));

        bytes ^= each(flipped);
        found = (bytes - each(below)) & ~bytes & each(0x80);

        if (found) {
#if (NGX_HAVE_LITTLE_ENDIAN && __GNUC__)
            return p + __builtin_ctzll(found) / 8;
#else
            break;
#endif
        }

        p += sizeof(uint64_t);
    }

    while (p < last && (*p ^ flipped) >= below) {
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
        return ngx_http_myproxy_invalid(r, "a header line without a colon");
    }

    if (!r->invalid_header) {
        return NGX_OK;
    }

    for (p = r->header_name_start; p < r->header_name_end; p++) {

        ch = *p;

        if (ch <= ' ' || ch >= 0x7f
            || ngx_strchr("\"(),/:;<=>?@[\\]{}", ch))
        {
            return ngx_http_myproxy_invalid(r,
                                            "a header line with an invalid "
                                            "name");
        }
    }

    return NGX_OK;
}
