
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The Host that is sent: nothing but a host and a port, and refused only if
 * it is more than that.
 *
 * The first byte of an input says where the rest stands: in the client's
 * Host, in the request line, or in a variable of myproxy_set_header.
 */


#include "fuzz.h"


static ngx_int_t find_host(u_char where, ngx_str_t *text, ngx_str_t *host);
static void add_field(ngx_http_request_t *r, const char *name,
    const char *lowcase, ngx_str_t *value, ngx_table_elt_t **field);
static ngx_uint_t parse_request_line(ngx_http_request_t *r, ngx_str_t *text,
    ngx_buf_t *b);
static ngx_uint_t is_host(ngx_str_t *host);


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


const char  *fuzz_locations[] = {
    "",
    "myproxy_set_header Host $http_x_host;"
};

ngx_uint_t   fuzz_nlocations = fuzz_count(fuzz_locations);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ngx_int_t   rc;
    ngx_str_t   text, host;
    ngx_uint_t  where;

    if (size < 1 || size > 1024) {
        return -1;
    }

    where = data[0] % 3;
    text = fuzz_copy(data + 1, size - 1);

    rc = find_host(where, &text, &host);

    if (rc == NGX_OK && (NGX_HTTP_MYPROXY_CHECK_HOST || where == 2)
        && !is_host(&host))
    {
        fuzz_fail("passed", &host);
    }

    if (rc == NGX_HTTP_BAD_REQUEST && where != 1
        && is_host(&text) && (text.len || where == 0))
    {
        fuzz_fail("refused", &text);
    }

    if (rc == NGX_OK && where != 1 && !fuzz_same(&host, &text)) {
        fuzz_fail("another one", &host);
    }

    free(text.data);

    if (rc == NGX_OK) {
        free(host.data);
    }

    return 0;
}


static ngx_int_t
find_host(u_char where, ngx_str_t *text, ngx_str_t *host)
{
    ngx_buf_t                     b;
    ngx_int_t                     rc;
    ngx_table_elt_t              *h;
    fuzz_subject_t                s;
    ngx_http_request_t           *r;
    ngx_http_myproxy_loc_conf_t  *mlcf;

    fuzz_begin(&s, where == 2);

    r = &s.request;
    b.start = NULL;
    rc = NGX_DECLINED;

    switch (where) {

    case 0:
        add_field(r, "Host", "host", text, &h);
        r->headers_in.host = h;
        break;

    case 1:
        if (!parse_request_line(r, text, &b)) {
            goto done;
        }

        break;

    default:
        add_field(r, "X-Host", "x-host", text, &h);
        break;
    }

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_myproxy_module);

    rc = ngx_http_myproxy_find_host(r, &s.ctx, mlcf->fields);

    if (rc == NGX_OK) {
        *host = fuzz_copy(s.ctx.host.data, s.ctx.host.len);
    }

done:

    free(b.start);
    fuzz_end(&s);

    return rc;
}


static void
add_field(ngx_http_request_t *r, const char *name, const char *lowcase,
    ngx_str_t *value, ngx_table_elt_t **field)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_in.headers);
    if (h == NULL) {
        exit(2);
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));

    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->lowcase_key = (u_char *) lowcase;
    h->hash = ngx_hash_key(h->lowcase_key, h->key.len);
    h->value = *value;

    *field = h;
}


/* as nginx does; 0: it would not have come to us */

static ngx_uint_t
parse_request_line(ngx_http_request_t *r, ngx_str_t *text, ngx_buf_t *b)
{
    ngx_memzero(b, sizeof(ngx_buf_t));

    b->start = malloc(text->len + sizeof("GET http:// HTTP/1.1\r\n"));
    if (b->start == NULL) {
        exit(2);
    }

    b->pos = b->start;
    b->last = ngx_sprintf(b->pos, "GET http://%V HTTP/1.1\r\n", text);

    return ngx_http_parse_request_line(r, b) == NGX_OK
           && r->http_version == NGX_HTTP_VERSION_11;
}


/* "reg-name", an IP literal, a port: RFC 3986, sections 3.2.2 and 3.2.3 */

static ngx_uint_t
is_host(ngx_str_t *host)
{
    size_t       i;
    const char  *others;

    others = "-._~%!$&'()*+,;=";
    i = 0;

    if (host->len && host->data[0] == '[') {

        for (i = 1; i < host->len && host->data[i] != ']'; i++) {
            if (host->data[i] < 0x80 && !isalnum(host->data[i])
                && (host->data[i] == '\0'
                    || !strchr("-._~%!$&'()*+,;=:", host->data[i])))
            {
                return 0;
            }
        }

        if (i++ == host->len) {
            return 0;
        }

    } else {
        while (i < host->len
               && (host->data[i] >= 0x80 || isalnum(host->data[i])
                   || (host->data[i] && strchr(others, host->data[i]))))
        {
            i++;
        }
    }

    if (i == host->len) {
        return 1;
    }

    if (host->data[i++] != ':') {
        return 0;
    }

    while (i < host->len && isdigit(host->data[i])) {
        i++;
    }

    return i == host->len;
}
