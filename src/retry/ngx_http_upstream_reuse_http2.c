
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Requests in HTTP/2, as ngx_http_grpc_module makes them, that are to be sent
 * again.
 */


#include "ngx_http_upstream_reuse_retry.h"


static ngx_uint_t reuse_is_http2(ngx_http_upstream_t *u);


/* RFC 9113, section 3.4 */

static const u_char  reuse_preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";


/*
 * ngx_http_grpc_module does not forget what waits for a window (RFC 9113,
 * section 5.2) when a request begins anew: it would come first on the new
 * connection, with no frames around it.
 */

ngx_uint_t
ngx_http_upstream_reuse_is_partial_http2(ngx_http_upstream_t *u)
{
    return u->request_sent && !u->request_body_sent && reuse_is_http2(u);
}


/*
 * A request in HTTP/2 that was made for a kept connection has the number of
 * its next stream.  ngx_http_grpc_module (1.22) puts in the number of another
 * kept connection, but not that of a new one: the first stream is 1 (RFC 9113,
 * sections 3.4 and 5.1.1).
 */

void
ngx_http_upstream_reuse_renumber_http2(ngx_http_upstream_t *u)
{
    u_char     *p, *last;
    size_t      len;
    ngx_buf_t  *b;

    if (!reuse_is_http2(u)) {
        return;
    }

    /* frames: length, type, flags, stream (RFC 9113, section 4.1) */

    b = u->request_bufs->buf;
    p = b->start + sizeof(reuse_preface) - 1;
    last = b->last;

    while (last - p >= 9) {

        if (p[5] | p[6] | p[7] | p[8]) {
            p[5] = 0;
            p[6] = 0;
            p[7] = 0;
            p[8] = 1;
        }

        len = (p[0] << 16) + (p[1] << 8) + p[2];

        if ((size_t) (last - p - 9) < len) {
            return;
        }

        p += 9 + len;
    }
}


/* Tells whether a request begins a connection as HTTP/2 does. */

static ngx_uint_t
reuse_is_http2(ngx_http_upstream_t *u)
{
    size_t      len;
    ngx_buf_t  *b;

    if (u->request_bufs == NULL) {
        return 0;
    }

    b = u->request_bufs->buf;
    len = sizeof(reuse_preface) - 1;

    return ngx_buf_in_memory(b)
           && b->last - b->start >= (ssize_t) len
           && ngx_memcmp(b->start, reuse_preface, len) == 0;
}
