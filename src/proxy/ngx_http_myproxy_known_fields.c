
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Names of fields that origins commonly send.  What there is to know of them
 * is found when the configuration is read.
 */


#include "ngx_http_myproxy_module.h"


static ngx_int_t add_name(ngx_conf_t *cf, ngx_http_myproxy_main_conf_t *mmcf,
    ngx_str_t *key);


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
ngx_http_myproxy_init_known_fields(ngx_conf_t *cf)
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
    u_char                          *p;
    ngx_str_t                        low;
    ngx_http_myproxy_known_field_t  *name, **place;
    ngx_http_upstream_main_conf_t   *umcf;

    place = &mmcf->names[ngx_http_myproxy_name_place(key)];

    for (name = *place; name; name = name->next) {

        if (name->key.len == key->len
            && ngx_memcmp(name->key.data, key->data, key->len) == 0)
        {
            return NGX_OK;
        }
    }

    /*
     * All in one or two lines of the processor's cache.  The texts are as
     * fields have them, "Name\0" and "name", to be written to as these.
     */

    p = ngx_palloc(cf->pool, sizeof(ngx_http_myproxy_known_field_t)
                             + key->len + 1 + key->len + ngx_cacheline_size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    name = (ngx_http_myproxy_known_field_t *)
               ngx_align_ptr(p, ngx_cacheline_size);

    name->key.len = key->len;
    name->key.data = (u_char *) (name + 1);

    p = ngx_cpystrn(name->key.data, key->data, key->len + 1) + 1;

    name->lowcase = p;

    if (ngx_http_myproxy_lower_name(p, key, &name->hash) != NGX_OK) {
        return NGX_ERROR;
    }

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);

    name->header = ngx_hash_find(&umcf->headers_in_hash, name->hash,
                                 name->lowcase, key->len);

    low.len = key->len;
    low.data = name->lowcase;

    name->field = ngx_http_myproxy_find_field(&low);

    if (name->field == NGX_HTTP_MYPROXY_OTHER_FIELD) {
        name->plain = (name->header == NULL);
        name->simple = (name->header != NULL);

    } else {
        name->plain = 0;
        name->simple = 0;
    }

    name->next = *place;
    *place = name;

    return NGX_OK;
}


ngx_http_myproxy_field_e
ngx_http_myproxy_find_field(ngx_str_t *low)
{
    switch (low->len) {

    case sizeof("upgrade") - 1:
        if (ngx_memcmp(low->data, "upgrade", low->len) == 0) {
            return NGX_HTTP_MYPROXY_UPGRADE;
        }

        break;

    case sizeof("connection") - 1:  /* and of "keep-alive" */
        if (ngx_memcmp(low->data, "connection", low->len) == 0) {
            return NGX_HTTP_MYPROXY_CONNECTION;
        }

        if (ngx_memcmp(low->data, "keep-alive", low->len) == 0) {
            return NGX_HTTP_MYPROXY_KEEP_ALIVE;
        }

        break;

    case sizeof("content-length") - 1:
        if (ngx_memcmp(low->data, "content-length", low->len) == 0) {
            return NGX_HTTP_MYPROXY_CONTENT_LENGTH;
        }

        break;

    case sizeof("transfer-encoding") - 1:
        if (ngx_memcmp(low->data, "transfer-encoding", low->len) == 0) {
            return NGX_HTTP_MYPROXY_TRANSFER_ENCODING;
        }

        break;
    }

    return NGX_HTTP_MYPROXY_OTHER_FIELD;
}


ngx_int_t
ngx_http_myproxy_lower_name(u_char *low, ngx_str_t *name, ngx_uint_t *hash)
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
