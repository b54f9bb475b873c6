
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The header of a response: whatever pieces it comes in, the same comes of it.
 *
 * An input is two bytes and the response.  The bits of the first byte are the
 * request (HEAD, HTTP/2, an upgrade, unbuffered), the second says where the
 * response is cut.
 */


#include "fuzz.h"

#include <sanitizer/asan_interface.h>


typedef struct {
    ngx_int_t                rc;
    size_t                   rest;      /* bytes behind the header */
    fuzz_subject_t           subject;
    ngx_buf_t                buffer;
} outcome_t;


static void read_response(outcome_t *o, u_char flags, ngx_str_t response,
    uint32_t seed);
static void compare(outcome_t *a, outcome_t *b, ngx_str_t *input);
static ngx_table_elt_t *next_field(ngx_list_part_t **part, ngx_uint_t *i);


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


const char  *fuzz_locations[] = {
    "",
    "myproxy_pass_header Server; myproxy_pass_header Date;"
    "myproxy_http_version 1.0;"
};

ngx_uint_t   fuzz_nlocations = fuzz_count(fuzz_locations);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outcome_t  whole, cut;
    ngx_str_t  response;

    if (size < 2 || size > 8192) {
        return -1;
    }

    response.data = (u_char *) data + 2;
    response.len = size - 2;

    read_response(&whole, data[0], response, 0);
    read_response(&cut, data[0], response, data[1] + 1);

    compare(&whole, &cut, &response);

    fuzz_end(&whole.subject);
    fuzz_end(&cut.subject);

    free(whole.buffer.start);
    free(cut.buffer.start);

    return 0;
}


/* seed is 0: all of it at once */

static void
read_response(outcome_t *o, u_char flags, ngx_str_t response, uint32_t seed)
{
    u_char               *piece;
    size_t                size;
    ngx_buf_t            *b;
    ngx_table_elt_t       upgrade;
    fuzz_subject_t       *s;
    ngx_http_upstream_t  *u;

    s = &o->subject;

    fuzz_begin(s, (flags >> 4) & 1 ? 0 : 1);

    u = &s->upstream;
    b = &u->buffer;

    if (flags & 1) {
        s->ctx.head = 1;
        s->request.method = NGX_HTTP_HEAD;
        s->request.header_only = 1;
    }

    if (flags & 2) {
        s->request.http_version = NGX_HTTP_VERSION_20;
    }

    if (flags & 4) {
        s->ctx.upgrading = 1;
        s->request.headers_in.upgrade = &upgrade;
    }

    u->buffering = !(flags & 8);
    u->process_header = ngx_http_myproxy_process_status_line;

    b->start = malloc(response.len + 1);
    if (b->start == NULL) {
        exit(2);
    }

    b->pos = b->start;
    b->last = b->start;
    b->end = b->start + response.len + 1;

    /* memory that nothing was read into yet is not to be looked at */

    ASAN_POISON_MEMORY_REGION(b->start, response.len + 1);

    o->rc = NGX_AGAIN;

    while (o->rc == NGX_AGAIN && response.len) {

        if (seed) {
            piece = fuzz_piece(&response, &seed, &size);

        } else {
            piece = fuzz_copy(response.data, response.len).data;
            size = response.len;
            response.len = 0;
        }

        ASAN_UNPOISON_MEMORY_REGION(b->last, size);
        b->last = ngx_cpymem(b->last, piece, size);
        free(piece);

        o->rc = u->process_header(&s->request);
    }

    o->rest = b->last - b->pos + response.len;

    ASAN_UNPOISON_MEMORY_REGION(b->start, b->end - b->start);

    o->buffer = *b;
}


static void
compare(outcome_t *a, outcome_t *b, ngx_str_t *input)
{
    ngx_uint_t                       i, k;
    ngx_list_part_t                 *part, *other;
    ngx_table_elt_t                 *h, *h2;
    ngx_http_upstream_headers_in_t  *in, *in2;

    if (a->rc != b->rc) {
        fuzz_fail("another outcome in pieces", input);
    }

    if (a->rc != NGX_OK) {
        return;
    }

    if (a->rest != b->rest) {
        fuzz_fail("another end in pieces", input);
    }

    in = &a->subject.upstream.headers_in;
    in2 = &b->subject.upstream.headers_in;

    if (in->status_n != in2->status_n
        || !fuzz_same(&in->status_line, &in2->status_line)
        || in->content_length_n != in2->content_length_n
        || in->chunked != in2->chunked
        || (a->rest == 0
            && in->connection_close != in2->connection_close))
    {
        /* what is behind a response without body ends its connection */

        fuzz_fail("another response in pieces", input);
    }

    if (in->chunked && in->content_length) {
        fuzz_fail("two lengths of one response", input);
    }

    part = &in->headers.part;
    other = &in2->headers.part;
    i = 0;
    k = 0;

    do {
        h = next_field(&part, &i);
        h2 = next_field(&other, &k);

        if (!h != !h2) {
            fuzz_fail("another number of fields in pieces", input);
        }

        if (h
            && (h->hash != h2->hash
                || !fuzz_same(&h->key, &h2->key)
                || !fuzz_same(&h->value, &h2->value)
                || memcmp(h->lowcase_key, h2->lowcase_key, h->key.len) != 0))
        {
            fuzz_fail("another field in pieces", input);
        }

        if (h
            && ((h->value.len
                 && (memchr(h->value.data, LF, h->value.len)
                     || memchr(h->value.data, '\0', h->value.len)))
                || memchr(h->key.data, ' ', h->key.len)
                || memchr(h->key.data, ':', h->key.len)))
        {
            fuzz_fail("a field that holds more than one", input);
        }

    } while (h);
}


static ngx_table_elt_t *
next_field(ngx_list_part_t **part, ngx_uint_t *i)
{
    while (*part && *i == (*part)->nelts) {
        *part = (*part)->next;
        *i = 0;
    }

    return *part ? (ngx_table_elt_t *) (*part)->elts + (*i)++ : NULL;
}
