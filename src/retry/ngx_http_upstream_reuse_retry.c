
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A request that fails on a kept connection is sent again, whatever its
 * method, if the kernel proves that the origin received none of it (RFC 9110,
 * section 9.2.2): docs/safe-reuse.md has the proofs.
 */


#include "ngx_http_upstream_reuse_retry.h"


/*
 * Microseconds: a round trip that is shorter consists of the machines' own
 * delays, and the least one that was measured is no bound.
 */

#define NGX_HTTP_UPSTREAM_REUSE_REMOTE  5000


static ssize_t reuse_recv(ngx_connection_t *c, u_char *buf, size_t size);
static ngx_chain_t *reuse_send_chain(ngx_connection_t *c, ngx_chain_t *in,
    off_t limit);
static ngx_int_t reuse_look_at_end(ngx_http_upstream_reuse_peer_t *rp,
    ngx_connection_t *c);
static void reuse_log_stray(ngx_http_upstream_reuse_peer_t *rp,
    ngx_connection_t *c);
static uint64_t reuse_time_taken(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_conn_t *conn);
static void reuse_end_batch(ngx_event_t *ev);
static void reuse_stop_watching(ngx_http_upstream_reuse_peer_t *rp,
    ngx_connection_t *c);

static uint64_t reuse_written(ngx_connection_t *c,
    ngx_http_upstream_reuse_conn_t *conn);
static ngx_http_upstream_reuse_proof_e reuse_judge(
    ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c, ngx_err_t *err);
static ngx_uint_t reuse_has_said_end(ngx_connection_t *c);

static ngx_uint_t reuse_body_is_lost(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);
static ngx_uint_t reuse_leave_silent(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp, ngx_uint_t *state);
static ngx_int_t reuse_hold_peer(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);
static void reuse_cleanup_peer(void *data);
static void reuse_restore_peer(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp);


/*
 * worker: counts the batches of events.  What is there to be read in the batch
 * in which a request was sent had arrived before.
 */

static ngx_uint_t    reuse_batch;
static ngx_event_t   reuse_batch_event;


static ngx_str_t  reuse_proofs[NGX_HTTP_UPSTREAM_REUSE_PROOF_LAST] = {
    ngx_null_string,
    ngx_string("none of it was sent"),
    ngx_string("the connection had been closed before it arrived"),
    ngx_string("the connection had been reset before it could arrive")
};


void
ngx_http_upstream_reuse_watch(ngx_http_upstream_reuse_peer_t *rp,
    ngx_connection_t *c)
{
    ngx_http_upstream_reuse_conn_t  *conn;

    conn = rp->conn;
    conn->peer = rp;

    rp->watch.taken = reuse_time_taken(rp, conn);

    rp->watch.sent = c->sent;
    rp->watch.written = reuse_written(c, conn);
    rp->watch.batch = rp->watch.peeked ? reuse_batch - 1 : reuse_batch;

    rp->watch.waiting = 1;
    rp->watch.judged = 0;
    rp->watch.stray = 0;
    rp->watch.silent = 0;
    rp->watch.unsent = 0;

    rp->watch.recv = c->recv;
    c->recv = reuse_recv;

    rp->watch.send_chain = c->send_chain;

    rp->watch.log_error = c->log_error;

    if (rp->conf->retry) {

        c->send_chain = reuse_send_chain;

        /* it may turn out to be nobody's fault */

        c->log_error = NGX_ERROR_INFO;

        ngx_http_upstream_reuse_begin_wait(rp);

    } else {
        ngx_queue_init(&rp->watch.queue);
    }

    /* an event from before (see ngx_posted_next_events) tells nothing now */

    if (c->read->posted) {
        ngx_delete_posted_event(c->read);
    }

    if (!reuse_batch_event.posted) {
        reuse_batch_event.handler = reuse_end_batch;
        reuse_batch_event.log = ngx_cycle->log;

        ngx_post_event(&reuse_batch_event, &ngx_posted_events);
    }
}


/*
 * nginx's own time is a little behind, which errs on the safe side.  Better is
 * what may prove that a reset came before the request: of a remote origin.
 */

static uint64_t
reuse_time_taken(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_conn_t *conn)
{
    if ((rp->request->method & NGX_HTTP_UPSTREAM_REUSE_NON_IDEMPOTENT)
        && (conn->rtt == 0
            || conn->rtt >= NGX_HTTP_UPSTREAM_REUSE_REMOTE / 1000))
    {
        return ngx_http_upstream_reuse_clock();
    }

    return (uint64_t) ngx_current_msec * 1000;
}


static void
reuse_end_batch(ngx_event_t *ev)
{
    reuse_batch++;
}


static void
reuse_stop_watching(ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c)
{
    ngx_http_upstream_reuse_end_wait(rp);

    rp->watch.waiting = 0;

    if (c) {
        c->recv = rp->watch.recv;
        c->send_chain = rp->watch.send_chain;
        c->log_error = rp->watch.log_error;
    }
}


/* Stands in for c->recv until the first byte of a response is there. */

static ssize_t
reuse_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    ssize_t                          n;
    ngx_err_t                        err;
    ngx_http_upstream_reuse_conn_t  *conn;
    ngx_http_upstream_reuse_peer_t  *rp;

    conn = ngx_http_upstream_reuse_find_conn(c);
    rp = conn->peer;

    if (c->read->pending_eof && rp->conf->retry
        && reuse_look_at_end(rp, c) != NGX_OK)
    {
        goto failed;
    }

    n = rp->watch.recv(c, buf, size);

    if (n == NGX_AGAIN) {
        if (rp->watch.judged) {
            rp->watch.judged = 0;
            c->log_error = NGX_ERROR_INFO;
        }

        return NGX_AGAIN;
    }

    if (n == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (n > 0) {

        if (rp->watch.batch == reuse_batch) {
            reuse_log_stray(rp, c);
            goto failed;
        }

        reuse_stop_watching(rp, c);

        ngx_http_upstream_reuse_note_alive(conn, rp->idle);

        return n;
    }

    /* not a second time: what there was to be known may have been consumed */

    if (!rp->watch.judged && rp->conf->retry) {

        rp->watch.judged = 1;
        rp->watch.proof = reuse_judge(rp, c, &err);

        if (rp->watch.proof != NGX_HTTP_UPSTREAM_REUSE_PROOF_UNKNOWN) {
            goto failed;
        }
    }

    return 0;

failed:

    c->read->error = 1;

    return NGX_ERROR;
}


/*
 * Stands in for c->send_chain meanwhile.  A write that meets the end takes the
 * socket's error, and with it the proof, so each one but the first looks.
 */

static ngx_chain_t *
reuse_send_chain(ngx_connection_t *c, ngx_chain_t *in, off_t limit)
{
    ngx_err_t                        err;
    ngx_http_upstream_reuse_peer_t  *rp;

    rp = ngx_http_upstream_reuse_find_conn(c)->peer;

    if (c->sent != rp->watch.sent && !rp->watch.judged) {

        rp->watch.proof = reuse_judge(rp, c, &err);

        if (rp->watch.proof != NGX_HTTP_UPSTREAM_REUSE_PROOF_UNKNOWN) {
            rp->watch.judged = 1;
            c->write->error = 1;

            return NGX_CHAIN_ERROR;
        }

        /* what has come is for whoever reads it to judge */

        rp->watch.stray = 0;
    }

    return rp->watch.send_chain(c, in, limit);
}


/*
 * The end of a stream is there, maybe with bytes before it.  It is looked at
 * first, since to read it may write to the error log.  Returns NGX_ERROR if
 * nothing of it is to be read.
 */

static ngx_int_t
reuse_look_at_end(ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c)
{
    ngx_err_t  err;

    rp->watch.judged = 1;
    rp->watch.proof = reuse_judge(rp, c, &err);

    if (rp->watch.proof != NGX_HTTP_UPSTREAM_REUSE_PROOF_UNKNOWN) {
        return NGX_ERROR;
    }

    c->log_error = rp->watch.log_error;

    if (rp->watch.stray) {
        reuse_log_stray(rp, c);
        return NGX_ERROR;
    }

    if (err) {
        (void) ngx_connection_error(c, err, "recv() failed");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
reuse_log_stray(ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c)
{
    rp->watch.stray = 1;

    ngx_log_error(NGX_LOG_WARN, c->log, 0,
                  "upstream sent data before the request on a kept "
                  "connection: it is not taken for the response");
}


/* How many bytes were given to the socket since the connection was opened. */

static uint64_t
reuse_written(ngx_connection_t *c, ngx_http_upstream_reuse_conn_t *conn)
{
#if (NGX_HTTP_SSL)

    /* with kernel TLS too few are counted, and nothing is proved then */

    if (c->ssl) {
        return BIO_number_written(SSL_get_wbio(c->ssl->connection));
    }

#endif

    return conn->sent;
}


/*
 * Finds out what is known of a request that has failed.  The kernel is asked,
 * without anything being consumed but a pending error, which goes to *err.
 */

static ngx_http_upstream_reuse_proof_e
reuse_judge(ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c,
    ngx_err_t *err)
{
    char                           buf[1];
    ssize_t                        n;
    ngx_uint_t                     rtt;
    ngx_http_upstream_reuse_tcp_t  tcp;

    *err = 0;

    if (c->sent == rp->watch.sent
        && reuse_written(c, rp->conn) == rp->watch.written)
    {
        return NGX_HTTP_UPSTREAM_REUSE_PROOF_UNSENT;
    }

    n = recv(c->fd, buf, 1, MSG_PEEK);

    *err = (n == -1) ? ngx_socket_errno : 0;

    if (*err == NGX_EAGAIN) {
        *err = 0;

        if (!reuse_has_said_end(c)) {
            return NGX_HTTP_UPSTREAM_REUSE_PROOF_UNKNOWN;
        }
    }

    if (ngx_http_upstream_reuse_read_tcp(c->fd, &tcp) == -1) {
        return NGX_HTTP_UPSTREAM_REUSE_PROOF_UNKNOWN;
    }

    ngx_log_debug4(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "upstream reuse: %uL bytes acknowledged, %uL of others, "
                   "peek: %z, close wait: %d", tcp.acked,
                   rp->watch.written + 1, n, tcp.close_wait);

    /*
     * Earlier requests and SYN are acknowledged, and no byte of this one.
     * Any other number is one that we do not understand, or that the system
     * does not count.
     */

    if (tcp.acked != rp->watch.written + 1) {
        return NGX_HTTP_UPSTREAM_REUSE_PROOF_UNKNOWN;
    }

    if (reuse_has_said_end(c)
        || (n >= 0 && ngx_http_upstream_reuse_has_ended(c->fd, &tcp)))
    {
        return NGX_HTTP_UPSTREAM_REUSE_PROOF_CLOSED;
    }

    /*
     * Any other error is of our own end.  What several connections have met
     * may be too much for a round trip, but hardly twice as much.
     */

    rtt = ngx_http_upstream_reuse_least_rtt(rp->conn, tcp.min_rtt);

    if (*err == NGX_ECONNRESET
        && tcp.closed
        && rp->watch.taken
        && rtt >= NGX_HTTP_UPSTREAM_REUSE_REMOTE
        && ngx_http_upstream_reuse_clock() - rp->watch.taken < rtt / 2)
    {
        return NGX_HTTP_UPSTREAM_REUSE_PROOF_RESET;
    }

    /* bytes that left before a byte of the request was received */

    if (n > 0) {
        rp->watch.stray = 1;
    }

    return NGX_HTTP_UPSTREAM_REUSE_PROOF_UNKNOWN;
}


/* The end of a TLS stream comes in a record, ahead of that of TCP's. */

static ngx_uint_t
reuse_has_said_end(ngx_connection_t *c)
{
#if (NGX_HTTP_SSL)

    return c->ssl
           && SSL_get_shutdown(c->ssl->connection) & SSL_RECEIVED_SHUTDOWN;

#else

    return 0;

#endif
}


ngx_uint_t
ngx_http_upstream_reuse_send_again(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp, ngx_uint_t *state)
{
    ngx_err_t          err;
    ngx_connection_t  *c;

    c = pc->connection;

    reuse_stop_watching(rp, c);

    if (rp->watch.silent) {
        return reuse_leave_silent(pc, rp, state);
    }

    if (c == NULL
        || !(*state & NGX_PEER_FAILED)
        || c->read->timedout
        || c->write->timedout)
    {
        return 0;
    }

    if (rp->conf->retry && !rp->watch.judged && !rp->watch.stray) {
        rp->watch.proof = reuse_judge(rp, c, &err);
    }

    ngx_http_upstream_reuse_note_failure(rp, c);

    if (!rp->watch.stray
        && rp->watch.proof == NGX_HTTP_UPSTREAM_REUSE_PROOF_UNKNOWN)
    {
        ngx_log_error(NGX_LOG_ERR, pc->log, 0,
                      "upstream closed a kept connection before it answered, "
                      "the request may have been received: the "
                      "\"next_upstream\" rules decide whether it is sent "
                      "again");

        ngx_http_upstream_reuse_count(rp->server, UNPROVEN);
    }

    if (rp->watch.stray) {
        *state = NGX_PEER_NEXT;
        return 0;
    }

    if (!rp->conf->retry
        || rp->watch.proof == NGX_HTTP_UPSTREAM_REUSE_PROOF_UNKNOWN)
    {
        return 0;
    }

    *state = NGX_PEER_NEXT;

    if (reuse_body_is_lost(pc, rp)
        || ngx_http_upstream_reuse_gives_up(rp)
        || reuse_hold_peer(pc, rp) != NGX_OK)
    {
        ngx_http_upstream_reuse_count(rp->server, LOST);
        return 0;
    }

    ngx_http_upstream_reuse_count(rp->server, PROVEN);

    ngx_log_error(NGX_LOG_INFO, pc->log, 0,
                  "the request was not received by upstream and is sent "
                  "again: %V", &reuse_proofs[rp->watch.proof]);

    ngx_http_upstream_reuse_abort(c);

    return 1;
}


/* Tells whether there is not all of the request any more, and logs it. */

static ngx_uint_t
reuse_body_is_lost(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_http_upstream_t  *u;

    u = rp->upstream;

    if (u->request_sent && ngx_http_upstream_reuse_body_is_gone(rp)) {
        ngx_log_error(NGX_LOG_ERR, pc->log, 0,
                      "the request was not received by upstream (%V), but "
                      "its body was not buffered and is gone: turn "
                      "request buffering on, or write a shorter "
                      "\"reuse_expiry\"",
                      &reuse_proofs[rp->watch.proof]);

        return 1;
    }

    if (ngx_http_upstream_reuse_is_partial_http2(u)) {
        ngx_log_error(NGX_LOG_ERR, pc->log, 0,
                      "the request was not received by upstream (%V), but "
                      "a part of its HTTP/2 body is still waiting to be "
                      "sent",
                      &reuse_proofs[rp->watch.proof]);

        return 1;
    }

    return 0;
}


/* The path has lost the connection: the server is not to blame. */

static ngx_uint_t
reuse_leave_silent(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp, ngx_uint_t *state)
{
    if (!(*state & NGX_PEER_FAILED)) {
        return 0;
    }

    *state = NGX_PEER_NEXT;

    ngx_http_upstream_reuse_abort(pc->connection);

    if (rp->uses) {

        /* it has waited for nothing, and begins anew */

        rp->uses = 0;
        rp->conf->listener->end_use(rp);
    }

    if (pc->connection->read->timedout || reuse_hold_peer(pc, rp) != NGX_OK) {
        ngx_http_upstream_reuse_count(rp->server, UNPROVEN);
        return 0;
    }

    ngx_http_upstream_reuse_count(rp->server, RENEWED);

    return 1;
}


/*
 * Has ngx_http_upstream_next() ask for another peer, whatever its conditions
 * are, and keeps the one that it gives up.
 */

static ngx_int_t
reuse_hold_peer(ngx_peer_connection_t *pc, ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_http_upstream_t             *u;
    ngx_pool_cleanup_t              *cln;
    ngx_http_upstream_reuse_held_t  *held;

    u = rp->upstream;

    held = ngx_palloc(rp->request->pool,
                      sizeof(ngx_http_upstream_reuse_held_t));
    if (held == NULL) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(rp->request->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = reuse_cleanup_peer;
    cln->data = rp;

    held->conf = *u->conf;
    held->conf.next_upstream |= NGX_HTTP_UPSTREAM_FT_ERROR
                                |NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT;

    held->saved_conf = u->conf;
    u->conf = &held->conf;

    held->sockaddr = pc->sockaddr;
    held->socklen = pc->socklen;
    held->name = pc->name;
    held->sid = ngx_http_myproxy_peer_sid(pc);
    held->tries = pc->tries;

    rp->held = held;
    rp->again = 1;

    return NGX_OK;
}


/* If the request ended otherwise, the peer that was held is given back. */

static void
reuse_cleanup_peer(void *data)
{
    ngx_http_upstream_reuse_peer_t  *rp = data;

    ngx_peer_connection_t  *pc;

    if (!rp->again) {
        return;
    }

    pc = &rp->upstream->peer;

    reuse_restore_peer(pc, rp);

    if (rp->uses) {
        rp->uses = 0;
        rp->conf->listener->end_use(rp);
    }

    (void) ngx_http_upstream_reuse_pool_put(rp, pc, NGX_PEER_NEXT);

    pc->sockaddr = NULL;
}


/* Core has cleared what it had of the peer that is held. */

static void
reuse_restore_peer(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp)
{
    rp->again = 0;
    rp->upstream->conf = rp->held->saved_conf;

    pc->sockaddr = rp->held->sockaddr;
    pc->socklen = rp->held->socklen;
    pc->name = rp->held->name;
    pc->connection = NULL;
    pc->cached = 0;

    ngx_http_myproxy_set_peer_sid(pc, rp->held->sid);
}


void
ngx_http_upstream_reuse_get_again(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp)
{
    reuse_restore_peer(pc, rp);

    /* core has counted the attempt out, or in */

    pc->tries = rp->held->tries;

    ngx_http_upstream_reuse_renumber_http2(rp->upstream);
}
