
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Requests on kept connections of which nothing is acknowledged.  The kernel
 * is asked only about those that have waited for a second, so that others
 * cost no more than a place in a queue.
 *
 * TCP_USER_TIMEOUT would be simpler, but it also ends connections whose window
 * has been closed for so long, as that of an origin that reads slowly.
 */


#include "ngx_http_upstream_reuse_retry.h"


/*
 * Milliseconds that a request waits at least.  If its client gets an error
 * then, it is twice as long, and the kernel has to send it again twice as
 * often.
 */

#define NGX_HTTP_UPSTREAM_REUSE_PATIENCE  1000

/* round trips that it waits at least */
#define NGX_HTTP_UPSTREAM_REUSE_TRIPS     4

/* milliseconds between two looks */
#define NGX_HTTP_UPSTREAM_REUSE_GLANCE      250

/* milliseconds: a look that is so late comes from a worker that was stopped */
#define NGX_HTTP_UPSTREAM_REUSE_LATE_LOOK   500


typedef enum {
    REUSE_ACKNOWLEDGED,                  /* or nothing is known of it */
    REUSE_UNSENT,
    REUSE_UNDECIDED,
    REUSE_SILENT
} reuse_look_e;


static void reuse_look_handler(void);
static void reuse_begin_anew(void);
static void reuse_forget(ngx_http_upstream_reuse_peer_t *rp);
static reuse_look_e reuse_look(ngx_http_upstream_reuse_peer_t *rp);
static void reuse_end_silent(ngx_http_upstream_reuse_peer_t *rp);
static ngx_uint_t reuse_may_go_again(ngx_http_upstream_reuse_peer_t *rp);
static void reuse_suspect_others(ngx_http_upstream_reuse_peer_t *rp);
static ssize_t reuse_recv_nothing(ngx_connection_t *c, u_char *buf,
    size_t size);


ngx_queue_t  ngx_http_upstream_reuse_waiting = {
    &ngx_http_upstream_reuse_waiting,
    &ngx_http_upstream_reuse_waiting
};

ngx_http_upstream_reuse_task_t  ngx_http_upstream_reuse_look_task =
    ngx_http_upstream_reuse_task(reuse_look_handler);


void
ngx_http_upstream_reuse_begin_looks(void)
{
    ngx_http_upstream_reuse_schedule(&ngx_http_upstream_reuse_look_task,
                                     NGX_HTTP_UPSTREAM_REUSE_PATIENCE);
}


/*
 * To end a request may end others, as those of its subrequests: the silent
 * ones are taken aside first, where each can still leave the queue.
 */

static void
reuse_look_handler(void)
{
    ngx_queue_t                     *q, *next, silent;
    ngx_msec_int_t                   left;
    ngx_http_upstream_reuse_peer_t  *rp;

    ngx_queue_init(&silent);

    if ((ngx_msec_int_t) (ngx_current_msec
                          - ngx_http_upstream_reuse_look_task.due)
        >= NGX_HTTP_UPSTREAM_REUSE_LATE_LOOK)
    {
        reuse_begin_anew();
    }

    for (q = ngx_queue_head(&ngx_http_upstream_reuse_waiting);
         q != ngx_queue_sentinel(&ngx_http_upstream_reuse_waiting);
         q = next)
    {
        next = ngx_queue_next(q);

        rp = ngx_queue_data(q, ngx_http_upstream_reuse_peer_t, watch.queue);

        if ((ngx_msec_int_t) (ngx_current_msec - rp->watch.begun)
            < NGX_HTTP_UPSTREAM_REUSE_PATIENCE)
        {
            break;
        }

        switch (reuse_look(rp)) {

        case REUSE_ACKNOWLEDGED:
            reuse_forget(rp);
            break;

        case REUSE_UNSENT:
            rp->watch.begun = ngx_current_msec;

            ngx_queue_remove(q);
            ngx_queue_insert_tail(&ngx_http_upstream_reuse_waiting, q);
            break;

        case REUSE_SILENT:
            ngx_queue_remove(q);
            ngx_queue_insert_tail(&silent, q);
            break;

        default: /* REUSE_UNDECIDED */
            break;
        }
    }

    while (!ngx_queue_empty(&silent)) {
        q = ngx_queue_head(&silent);

        rp = ngx_queue_data(q, ngx_http_upstream_reuse_peer_t, watch.queue);

        reuse_forget(rp);

        reuse_end_silent(rp);
    }

    if (ngx_queue_empty(&ngx_http_upstream_reuse_waiting)) {
        return;
    }

    q = ngx_queue_head(&ngx_http_upstream_reuse_waiting);
    rp = ngx_queue_data(q, ngx_http_upstream_reuse_peer_t, watch.queue);

    left = (ngx_msec_int_t) (rp->watch.begun + NGX_HTTP_UPSTREAM_REUSE_PATIENCE
                             - ngx_current_msec);

    ngx_http_upstream_reuse_schedule(&ngx_http_upstream_reuse_look_task,
                              ngx_max(left, NGX_HTTP_UPSTREAM_REUSE_GLANCE));
}


/*
 * The worker was stopped for a while, and maybe the whole machine: what was on
 * its way then may not have had the time that it seems to have had.
 */

static void
reuse_begin_anew(void)
{
    ngx_queue_t                     *q;
    ngx_http_upstream_reuse_peer_t  *rp;

    for (q = ngx_queue_head(&ngx_http_upstream_reuse_waiting);
         q != ngx_queue_sentinel(&ngx_http_upstream_reuse_waiting);
         q = ngx_queue_next(q))
    {
        rp = ngx_queue_data(q, ngx_http_upstream_reuse_peer_t, watch.queue);

        rp->watch.begun = ngx_current_msec;
    }
}


/* It will still be removed from a queue, when its wait ends. */

static void
reuse_forget(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_queue_remove(&rp->watch.queue);
    ngx_queue_init(&rp->watch.queue);
}


/*
 * An origin with a closed window acknowledges probes of it, and then nothing
 * is on its way; a silent path lets no segment through at all.
 */

static reuse_look_e
reuse_look(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_uint_t                      attempts;
    ngx_msec_t                      waited, patience, rtt;
    ngx_connection_t               *c;
    ngx_http_upstream_reuse_tcp_t   tcp;

    c = rp->conn->connection;

    if (ngx_http_upstream_reuse_read_tcp(c->fd, &tcp) == -1
        || tcp.closed
        || tcp.close_wait
        || tcp.acked != rp->watch.written + 1)
    {
        return REUSE_ACKNOWLEDGED;
    }

    if (tcp.unacked == 0) {
        rp->watch.unsent = 1;
        return REUSE_UNSENT;
    }

    if (rp->watch.unsent) {

        /* it may just have left */

        rp->watch.unsent = 0;
        return REUSE_UNSENT;
    }

    rtt = ngx_max(rp->conn->rtt, tcp.rtt / 1000);

    attempts = reuse_may_go_again(rp) ? 1 : 2;

    patience = ngx_max(attempts * NGX_HTTP_UPSTREAM_REUSE_PATIENCE,
                       rtt * NGX_HTTP_UPSTREAM_REUSE_TRIPS);

    waited = ngx_current_msec - rp->watch.begun;

    ngx_log_debug4(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "upstream reuse: nothing is acknowledged for %M ms of %M, "
                   "sent again %uD times, nothing came for %uD ms",
                   waited, patience, tcp.retransmits, tcp.silent);

    return (waited >= patience
            && tcp.silent >= patience
            && tcp.retransmits >= attempts)
           ? REUSE_SILENT : REUSE_UNDECIDED;
}


/*
 * Core is told what has it do the right thing: that the connection has failed,
 * after which the request goes again (see ..._send_again()), or that the time
 * is over.
 */

static void
reuse_end_silent(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_uint_t         again, level;
    ngx_connection_t  *c;

    c = rp->conn->connection;

    again = reuse_may_go_again(rp);
    level = again ? NGX_LOG_WARN : NGX_LOG_ERR;

    ngx_log_error(level, c->log, 0,
                  "the request is %s: upstream has acknowledged nothing of it "
                  "for %M ms, after the connection had been idle for %M ms "
                  "(see \"reuse_probe\")",
                  again ? "sent again on a new connection"
                        : "given up, as it may have been received",
                  ngx_current_msec - rp->watch.begun, rp->idle);

    reuse_suspect_others(rp);

    rp->watch.silent = 1;

    if (again) {

        /* Angie does not read what is not ready */

        c->recv = reuse_recv_nothing;
        c->read->ready = 1;

    } else {
        c->read->timedout = 1;
    }

    c->read->handler(c->read);
}


/*
 * That it was not received is not proved.  So it is left to what nginx's rules
 * say of a timeout, which it would have met else.
 */

static ngx_uint_t
reuse_may_go_again(ngx_http_upstream_reuse_peer_t *rp)
{
    return ngx_http_upstream_reuse_lets_go_again(rp,
                                                NGX_HTTP_UPSTREAM_FT_TIMEOUT)
           && !ngx_http_upstream_reuse_is_partial_http2(rp->upstream)
           && !ngx_http_upstream_reuse_gives_up(rp);
}


ngx_uint_t
ngx_http_upstream_reuse_gives_up(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_msec_t  timeout;

    timeout = rp->upstream->conf->next_upstream_timeout;

    return rp->request->connection->error
           || (timeout
               && ngx_current_msec - rp->upstream->peer.start_time
                  >= timeout);
}


/*
 * What has forgotten this connection has forgotten those that are idle for as
 * long.  No worker uses them any more.  It is no harm if two workers write at
 * a time.
 */

static void
reuse_suspect_others(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_msec_t                         before;
    ngx_http_upstream_reuse_record_t  *record;

    if (rp->server->learned == NULL) {

        /* it stands for many servers */

        return;
    }

    record = rp->server->record;
    before = ngx_current_msec - rp->idle;

    if (record->silent == 0
        || (ngx_msec_int_t) (before - record->silent) > 0)
    {
        record->silent = before;
    }
}


ngx_uint_t
ngx_http_upstream_reuse_is_suspect(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t age)
{
    return age >= ngx_http_upstream_reuse_passed_since(
                                                conn->server->record->silent);
}


/* Stands in for c->recv, so that core finds the connection broken. */

static ssize_t
reuse_recv_nothing(ngx_connection_t *c, u_char *buf, size_t size)
{
    c->read->error = 1;

    return NGX_ERROR;
}
