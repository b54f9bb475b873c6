
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Chunked bodies.  A response is read whole and in pieces, with the same
 * outcome, which is that of a plain reading of RFC 9112, section 7.1, if it
 * is valid by that.  The same bytes as the body of a request are written as
 * chunks, and read again.
 *
 * An input is a byte that says where it is cut, and the rest.
 */


#include "fuzz.h"


#define AGAIN    0
#define DONE     1
#define INVALID  2

/* in front of a chunk and behind it: sizes of 16 digits, and the last one */
#define FRAMING  64


typedef struct {
    ngx_uint_t   how;
    u_char      *text;
    size_t       len;
    size_t       rest;
} body_t;


static void read_body(body_t *body, ngx_str_t in, uint32_t seed);
static void read_plainly(body_t *body, ngx_str_t in);
static u_char *line_end(u_char *p, u_char *last);
static void write_body(ngx_str_t in, uint32_t seed);
static void write_header(fuzz_subject_t *s);
static ngx_chain_t *capture(ngx_connection_t *c, ngx_chain_t *in,
    off_t limit);


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


const char  *fuzz_locations[] = {
#if (NGX_HTTP_MYPROXY_TRAILERS)
    "myproxy_pass_trailers on;",
#endif
    ""
};

ngx_uint_t   fuzz_nlocations = fuzz_count(fuzz_locations);

static body_t  sent;


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    body_t     whole, cut, plain;
    ngx_str_t  in;

    if (size < 1 || size > 8192) {
        return -1;
    }

    in.data = (u_char *) data + 1;
    in.len = size - 1;

    read_body(&whole, in, 0);
    read_body(&cut, in, data[0] + 1);
    read_plainly(&plain, in);

    if (whole.how != cut.how
        || (whole.how != INVALID
            && (whole.len != cut.len
                || memcmp(whole.text, cut.text, whole.len) != 0))
        || (whole.how == DONE && whole.rest != cut.rest))
    {
        fuzz_fail("another body in pieces", &in);
    }

    if (plain.how == DONE
        && (whole.how != DONE
            || whole.rest != plain.rest
            || whole.len != plain.len
            || memcmp(whole.text, plain.text, plain.len) != 0))
    {
        fuzz_fail("another body than was sent", &in);
    }

    free(whole.text);
    free(cut.text);
    free(plain.text);

    write_body(in, data[0] + 1);

    return 0;
}


static void
read_body(body_t *body, ngx_str_t in, uint32_t seed)
{
    size_t          size;
    ngx_int_t       rc;
    ngx_buf_t       b;
    fuzz_subject_t  s;

    fuzz_begin(&s, 0);
    ngx_memzero(&b, sizeof(ngx_buf_t));

    body->text = malloc(in.len + 1);
    if (body->text == NULL) {
        exit(2);
    }

    body->len = 0;
    body->rest = 0;
    rc = NGX_AGAIN;

    while (in.len && rc == NGX_AGAIN) {

        if (seed) {
            b.start = fuzz_piece(&in, &seed, &size);

        } else {
            b.start = fuzz_copy(in.data, in.len).data;
            size = in.len;
            in.len = 0;
        }

        b.pos = b.start;
        b.last = b.start + size;
        b.end = b.last;

        for ( ;; ) {
            rc = ngx_http_myproxy_read_chunk(&s.request, &s.ctx, &b);

            if (rc != NGX_OK) {
                break;
            }

            size = ngx_min(b.last - b.pos, s.ctx.chunked.size);
            ngx_memcpy(body->text + body->len, b.pos, size);
            body->len += size;
            b.pos += size;
            s.ctx.chunked.size -= size;

            if (size == 0) {
                fuzz_fail("data of no size", &in);
            }
        }

        body->rest = b.last - b.pos + in.len;
        free(b.start);
    }

    body->how = rc == NGX_DONE ? DONE : rc == NGX_AGAIN ? AGAIN : INVALID;

    fuzz_end(&s);
}


/* Takes what is valid beyond doubt: CR LF, tokens, nothing left out. */

static void
read_plainly(body_t *body, ngx_str_t in)
{
    u_char    *p, *last, *end;
    uint64_t   size;

    body->how = INVALID;
    body->len = 0;
    body->text = malloc(in.len + 1);
    if (body->text == NULL) {
        exit(2);
    }

    p = in.data;
    last = p + in.len;

    for ( ;; ) {

        end = p;
        size = 0;

        while (end < last && end - p < 8 && isxdigit(*end)) {
            size = size * 16 + (*end <= '9' ? *end - '0'
                                            : (*end | 0x20) - 'a' + 10);
            end++;
        }

        if (end == p || end == last || (*end != CR && *end != ';')) {
            return;
        }

        p = line_end(end, last);
        if (p == NULL) {
            return;
        }

        if (size == 0) {
            break;
        }

        if ((uint64_t) (last - p) < size + 2
            || p[size] != CR || p[size + 1] != LF)
        {
            return;
        }

        ngx_memcpy(body->text + body->len, p, size);
        body->len += size;
        p += size + 2;
    }

    /* fields of trailers have a name of letters, and text */

    while (p < last && *p != CR) {

        if (!isalpha(*p)) {
            return;
        }

        while (p < last && isalpha(*p)) {
            p++;
        }

        if (p == last || *p != ':') {
            return;
        }

        p = line_end(p, last);
        if (p == NULL) {
            return;
        }
    }

    if (last - p < 2 || p[1] != LF) {
        return;
    }

    body->rest = last - p - 2;

    if (in.len - body->rest < 2048) {
        body->how = DONE;
    }
}


/* behind the line, if what is left of it is printable */

static u_char *
line_end(u_char *p, u_char *last)
{
    while (p < last && *p >= ' ' && *p < 0x7f) {
        p++;
    }

    return (last - p >= 2 && p[0] == CR && p[1] == LF) ? p + 2 : NULL;
}


static void
write_body(ngx_str_t in, uint32_t seed)
{
    body_t           got;
    size_t           size;
    ngx_buf_t        b, end;
    ngx_uint_t       more;
    ngx_chain_t      link, last;
    ngx_str_t        all;
    fuzz_subject_t   s;

    fuzz_begin(&s, 0);

    all = in;

    sent.len = 0;
    sent.text = malloc(2 * FRAMING * (in.len + 2));
    if (sent.text == NULL) {
        exit(2);
    }

    write_header(&s);

    sent.len = 0;

    do {
        ngx_memzero(&b, sizeof(ngx_buf_t));
        ngx_memzero(&end, sizeof(ngx_buf_t));

        if (in.len) {
            b.start = fuzz_piece(&in, &seed, &size);

        } else {
            b.start = malloc(1);
            size = 0;
        }

        b.pos = b.start;
        b.last = b.start + size;
        b.memory = (size != 0);

        /* the end comes with the last piece or by itself */

        more = in.len || ((seed & 1) && size);

        end.last_buf = 1;
        b.last_buf = !more && (seed & 2);

        last.buf = &end;
        last.next = NULL;
        link.buf = &b;
        link.next = (more || b.last_buf) ? NULL : &last;

        if (ngx_http_myproxy_write_chunks(&s.request, &link) != NGX_OK) {
            fuzz_fail("a body that was not written", &all);
        }

        free(b.start);

    } while (more);

    read_plainly(&got, (ngx_str_t) { sent.len, sent.text });

    if (got.len != all.len
        || memcmp(got.text, all.data, all.len) != 0
        || sent.len < 5
        || memcmp(sent.text + sent.len - 5, "0\r\n\r\n", 5) != 0)
    {
        fuzz_fail("another body was written", &all);
    }

    free(got.text);
    free(sent.text);
    fuzz_end(&s);
}


/* It is no part of the body. */

static void
write_header(fuzz_subject_t *s)
{
    ngx_buf_t    b;
    ngx_chain_t  link;

    s->origin.send_chain = capture;
    s->write.ready = 1;
    s->upstream.writer.last = &s->upstream.writer.out;
    s->upstream.writer.connection = &s->origin;
    s->upstream.writer.pool = s->request.pool;

    ngx_memzero(&b, sizeof(ngx_buf_t));
    b.pos = (u_char *) "POST / HTTP/1.1\r\n\r\n";
    b.last = b.pos + sizeof("POST / HTTP/1.1\r\n\r\n") - 1;
    b.memory = 1;

    link.buf = &b;
    link.next = NULL;

    if (ngx_http_myproxy_write_chunks(&s->request, &link) != NGX_OK) {
        abort();
    }
}


static ngx_chain_t *
capture(ngx_connection_t *c, ngx_chain_t *in, off_t limit)
{
    for ( /* void */ ; in; in = in->next) {
        ngx_memcpy(sent.text + sent.len, in->buf->pos,
                   in->buf->last - in->buf->pos);
        sent.len += in->buf->last - in->buf->pos;
        in->buf->pos = in->buf->last;
    }

    return NULL;
}
