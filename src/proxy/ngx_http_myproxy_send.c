
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * How a request is written to the connection: output filters of u->output.
 *
 * An origin may answer before it has received the whole request, and close
 * the connection with the rest unread.  Its system resets the connection
 * then, and writing fails, but what it has said before is still there to be
 * read (RFC 9112, section 9.5).  The filters report that no more can be
 * written now, which has core read the response as it does any other that
 * comes early.  Nothing is written any more, and such a connection is not
 * kept, since the request on it was not sent to its end.
 */


#include "ngx_http_myproxy_module.h"
#include "ngx_http_upstream_reuse_module.h"


/* bytes at most, whatever sendfile_max_chunk is: SSL_write() takes an int */
#define NGX_HTTP_MYPROXY_SENT_AT_ONCE  ((off_t) 1 << 30)


#if (NGX_HTTP_MYPROXY_LATE_READING)
static ngx_uint_t is_early(ngx_http_upstream_t *u);
#endif
static ngx_int_t look_for_response(ngx_http_upstream_t *u);
static ngx_uint_t is_readable(ngx_connection_t *c);
static void discard(ngx_chain_t *cl);


ngx_int_t
ngx_http_myproxy_send_chain(void *data, ngx_chain_t *in)
{
    ngx_http_upstream_t  *u = data;

    ngx_int_t          rc;
    ngx_connection_t  *c;

#if (NGX_HTTP_MYPROXY_LATE_READING)

    if (is_early(u)) {
        return NGX_ERROR;
    }

#endif

    c = u->peer.connection;

    if (!c->write->error) {

        rc = ngx_chain_writer(&u->writer, in);

        if (rc != NGX_ERROR || !c->write->error) {
            return rc;
        }

        rc = look_for_response(u);

        if (rc != NGX_AGAIN) {
            return rc;
        }
    }

    if (!u->header_sent) {
        return NGX_AGAIN;
    }

    /*
     * The response is being sent, and the client may still send its body,
     * which core reads here.  Writing has no timeout any more.
     */

    discard(in);
    discard(u->writer.out);

    return NGX_OK;
}


/*
 * A request that is whole in one buf needs neither a chain nor its links, nor
 * the buffer of 16K into which the chain of a TLS connection is gathered; and
 * send() takes less of the kernel's time than writev().  What could not be
 * sent stays where it is, so TLS gets the same bytes again (SSL_write(3)).
 */

ngx_int_t
ngx_http_myproxy_send_whole(void *data, ngx_chain_t *in)
{
    ngx_http_upstream_t  *u = data;

    off_t              size, limit;
    ssize_t            n;
    ngx_buf_t         *b;
    ngx_connection_t  *c;

#if (NGX_HTTP_MYPROXY_LATE_READING)

    if (is_early(u)) {
        return NGX_ERROR;
    }

#endif

    b = u->request_bufs->buf;
    c = u->peer.connection;

    size = b->last - b->pos;

    if (size == 0) {
        return NGX_OK;
    }

    if (!c->write->ready || c->write->error) {
        return NGX_AGAIN;
    }

    limit = u->writer.limit;

    if (limit == 0 || limit > NGX_HTTP_MYPROXY_SENT_AT_ONCE) {
        limit = NGX_HTTP_MYPROXY_SENT_AT_ONCE;
    }

    n = c->send(c, b->pos, (size_t) ngx_min(size, limit));

#if (NGX_HTTP_SSL)

    /* behind a record that was sent in part TLS cannot be shut down */

    if (c->ssl && n == NGX_AGAIN) {
        c->buffered |= NGX_SSL_BUFFERED;

    } else {
        c->buffered &= ~NGX_SSL_BUFFERED;
    }

#endif

    if (n == NGX_ERROR) {
        return look_for_response(u);
    }

    if (n == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    b->pos += n;

    if (b->pos == b->last) {
        return NGX_OK;
    }

    if (c->write->ready) {

        /* others come first */

        ngx_post_event(c->write, &ngx_posted_next_events);
    }

    return NGX_AGAIN;
}


void
ngx_http_myproxy_end_sending(ngx_http_request_t *r)
{
    ngx_connection_t     *c;
    ngx_http_upstream_t  *u;

    u = r->upstream;
    c = u->peer.connection;

    if (!u->request_body_sent && c->write->timer_set) {

        /* core does not write behind the header of a response */

        ngx_del_timer(c->write);
    }

    if (u->headers_in.status_n == NGX_HTTP_REQUEST_ENTITY_TOO_LARGE
        && !u->headers_in.connection_close)
    {
        /*
         * Such an origin may have read none of the body, and be about to
         * close, whether it says so or not (RFC 9110, section 15.5.14).
         */

        u->headers_in.connection_close = 1;

        ngx_http_upstream_reuse_explain(r,
                                        NGX_HTTP_UPSTREAM_REUSE_CLOSE_EARLY);
    }
}


#if (NGX_HTTP_MYPROXY_LATE_READING)

/*
 * Tells whether something has come over a new connection on which nothing was
 * sent.  Core would take it for the response, where others have it refused
 * when it is read.  In TLS it may be session tickets.
 */

static ngx_uint_t
is_early(ngx_http_upstream_t *u)
{
    ngx_connection_t  *c;

    c = u->peer.connection;

#if (NGX_HTTP_SSL)
    if (c->ssl) {
        return 0;
    }
#endif

    if (c->sent || u->peer.cached || !c->read->ready || !is_readable(c)) {
        return 0;
    }

    ngx_log_error(NGX_LOG_ERR, c->log, 0,
                  "upstream sent data before the request");

    return 1;
}

#endif


/*
 * Writing has failed.  Returns NGX_AGAIN if a response can be read all the
 * same, otherwise NGX_ERROR.
 */

static ngx_int_t
look_for_response(ngx_http_upstream_t *u)
{
    ngx_connection_t  *c;

    c = u->peer.connection;

    if (!u->header_sent && !is_readable(c)) {
        return NGX_ERROR;
    }

    ngx_log_error(NGX_LOG_INFO, c->log, 0,
                  "upstream closed the connection before it had received the "
                  "whole request, its response is read");

    /* an event need not have told of it yet, nor of the end behind it */

    c->read->ready = 1;
    c->read->pending_eof = 1;

    return NGX_AGAIN;
}


static ngx_uint_t
is_readable(ngx_connection_t *c)
{
    char  buf[1];

#if (NGX_HTTP_SSL)
    if (c->ssl && ngx_http_myproxy_ssl_pending(c->ssl->connection)) {
        return 1;
    }
#endif

    return recv(c->fd, buf, 1, MSG_PEEK) > 0;
}


static void
discard(ngx_chain_t *cl)
{
    for ( /* void */ ; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;
        cl->buf->file_pos = cl->buf->file_last;
    }
}
