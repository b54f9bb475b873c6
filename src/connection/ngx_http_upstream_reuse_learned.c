
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * After which idle time each peer closes connections, and how near it is,
 * learned by all workers together.  A lock is taken when a connection is kept
 * for the first time, is closed by the origin, or has been idle for longer
 * than any before; not for a request.
 */


#include "ngx_http_upstream_reuse_connection.h"


/* milliseconds by which two ages may differ and still be the same */
#define NGX_HTTP_UPSTREAM_REUSE_OFF        5

/* milliseconds after which a restart should be over */
#define NGX_HTTP_UPSTREAM_REUSE_MOMENT     1000

/* so many closes of one age make a limit, as do resets; and either must have
   come at so many moments, as one restart closes many */
#define NGX_HTTP_UPSTREAM_REUSE_ENOUGH     3

/* the first trial comes after so many times the limit */
#define NGX_HTTP_UPSTREAM_REUSE_TRIALS     8

/* milliseconds: the longest time between two trials */
#define NGX_HTTP_UPSTREAM_REUSE_RARELY     3600000

/* so many connections that have met nearly the least round trip prove it */
#define NGX_HTTP_UPSTREAM_REUSE_SURE       3

/*
 * A reset shows such a limit if it comes within so many milliseconds, besides
 * two round trips, after the connection was taken.
 */
#define NGX_HTTP_UPSTREAM_REUSE_PROMPT     1000


static void reuse_note_reset(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t age);
static ngx_uint_t reuse_weigh_reset(ngx_http_upstream_reuse_learned_t *limit,
    ngx_msec_t age);
static ngx_uint_t reuse_is_evidence(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t age);
static ngx_uint_t reuse_weigh_close(ngx_http_upstream_reuse_learned_t *limit,
    ngx_msec_t age);
static ngx_uint_t reuse_is_same_age(ngx_msec_t age, ngx_msec_t known);
static ngx_uint_t reuse_is_near_rtt(ngx_uint_t a, ngx_uint_t b);
static void reuse_log_limit(ngx_http_upstream_reuse_conn_t *conn,
    const char *what, ngx_msec_t age);


/*
 * The origin counts from the time when it has sent the response, half a round
 * trip before we have it, and a request takes another half to arrive.  That is
 * taken twice, as a round trip may be longer than the one that was measured.
 * The rest is for timers that are not exact.
 */

ngx_msec_t
ngx_http_upstream_reuse_margin(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t limit)
{
    return 2 * conn->rtt + limit / 16 + NGX_HTTP_UPSTREAM_REUSE_LEAST_MARGIN;
}


void
ngx_http_upstream_reuse_note_alive(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t age)
{
    ngx_uint_t                          wrong;
    ngx_http_upstream_reuse_learned_t  *limit;

    limit = conn->learned;

    if (limit == NULL
        || conn->conf->expiry != NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO
        || (age <= limit->served
            && (limit->closes == 0 || age < limit->suspect)
            && (limit->resets == 0 || age < limit->refused)))
    {
        return;
    }

    ngx_http_upstream_reuse_lock(conn);

    limit->survived = ngx_max(limit->survived, age);
    limit->served = ngx_max(limit->served, age);

    wrong = (limit->idle && limit->idle <= age);

    if (wrong) {
        limit->idle = 0;
        limit->pause = 0;
    }

    if (limit->suspect <= age) {
        limit->closes = 0;
    }

    if (limit->refused <= age) {
        limit->resets = 0;
    }

    ngx_http_upstream_reuse_unlock(conn);

    if (wrong) {
        reuse_log_limit(conn, limit->silent ? "no longer resets"
                                            : "no longer closes", age);
    }
}


void
ngx_http_upstream_reuse_note_open(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t age)
{
    ngx_uint_t                          wrong;
    ngx_http_upstream_reuse_learned_t  *limit;

    limit = conn->learned;

    ngx_http_upstream_reuse_lock(conn);

    limit->survived = ngx_max(limit->survived, age);

    wrong = (limit->idle && limit->idle <= age && !limit->silent);

    if (wrong) {
        limit->idle = 0;
    }

    if (limit->suspect <= age) {
        limit->closes = 0;
    }

    ngx_http_upstream_reuse_unlock(conn);

    if (wrong) {
        reuse_log_limit(conn, "no longer closes", age);
    }
}


void
ngx_http_upstream_reuse_note_failure(ngx_http_upstream_reuse_peer_t *rp,
    ngx_connection_t *c)
{
    ngx_msec_int_t  took;

    if (rp->watch.stray) {
        return;
    }

    if (rp->watch.proof == NGX_HTTP_UPSTREAM_REUSE_PROOF_CLOSED) {
        ngx_http_upstream_reuse_note_closed(rp->conn, rp->idle);
        return;
    }

    /* one that comes later than a packet is answered tells of the request */

    took = (ngx_msec_int_t) (ngx_current_msec
                             - (ngx_msec_t) (rp->watch.taken / 1000));

    if (!c->read->eof
        && took <= (ngx_msec_int_t) (NGX_HTTP_UPSTREAM_REUSE_PROMPT
                                     + 2 * rp->conn->rtt))
    {
        reuse_note_reset(rp->conn, rp->idle);
    }
}


static void
reuse_note_reset(ngx_http_upstream_reuse_conn_t *conn, ngx_msec_t age)
{
    ngx_uint_t                          learned, lowered;
    ngx_http_upstream_reuse_tcp_t       tcp;
    ngx_http_upstream_reuse_learned_t  *limit;

    if (!reuse_is_evidence(conn, age)) {
        return;
    }

    limit = conn->learned;

    ngx_http_upstream_reuse_lock(conn);

    lowered = (limit->idle && limit->silent);

    learned = (limit->idle == 0 || age < limit->idle)
              && reuse_weigh_reset(limit, age);

    if (learned) {
        age = limit->idle;

        /* what closes a unix socket shows at once: nothing is between */

        limit->silent = (ngx_http_upstream_reuse_read_tcp(
                             conn->connection->fd, &tcp)
                         == 0);

        if (!lowered) {

            /* otherwise no trial has failed, and the next one is due */

            limit->pause = 0;
            ngx_http_upstream_reuse_defer_trial(limit);
        }
    }

    ngx_http_upstream_reuse_unlock(conn);

    if (learned) {
        reuse_log_limit(conn, "resets", age);
    }
}


/*
 * A connection of any age that is beyond the limit is reset, so the least age
 * is the limit, as far as it is known.
 */

static ngx_uint_t
reuse_weigh_reset(ngx_http_upstream_reuse_learned_t *limit, ngx_msec_t age)
{
    if (limit->resets == 0) {
        limit->refused = age;
        limit->reset_moments = 1;
        limit->reset_noted = ngx_current_msec;

    } else {
        limit->refused = ngx_min(limit->refused, age);

        if ((ngx_msec_int_t) (ngx_current_msec - limit->reset_noted)
            >= (ngx_msec_int_t) ngx_max(limit->refused / 2,
                                        NGX_HTTP_UPSTREAM_REUSE_MOMENT))
        {
            limit->reset_moments++;
            limit->reset_noted = ngx_current_msec;
        }
    }

    limit->resets++;

    if (limit->refused <= limit->served) {

        /* it has been otherwise: it may have changed */

        if (limit->reset_moments < NGX_HTTP_UPSTREAM_REUSE_ENOUGH) {
            return 0;
        }

        limit->served = 0;

    } else if (limit->resets < NGX_HTTP_UPSTREAM_REUSE_ENOUGH
               && !(limit->idle && limit->silent))
    {
        return 0;
    }

    limit->idle = limit->refused;
    limit->resets = 0;

    return 1;
}


void
ngx_http_upstream_reuse_defer_trial(ngx_http_upstream_reuse_learned_t *limit)
{
    ngx_msec_t  pause;

    pause = ngx_max(limit->pause * 2,
                    limit->idle * NGX_HTTP_UPSTREAM_REUSE_TRIALS);

    limit->pause = ngx_min(pause, NGX_HTTP_UPSTREAM_REUSE_RARELY);
    limit->testing = ngx_current_msec + limit->pause;
}


static ngx_uint_t
reuse_is_evidence(ngx_http_upstream_reuse_conn_t *conn, ngx_msec_t age)
{
    ngx_http_upstream_reuse_learned_t  *limit;

    limit = conn->learned;

    if (limit == NULL
        || conn->conf->expiry != NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO)
    {
        return 0;
    }

    /* so young a connection was not closed for being idle */

    if (age <= ngx_http_upstream_reuse_margin(conn, age)) {
        return 0;
    }

    /* nor one that was opened ahead: it was not wanted */

    return limit == conn->server->learned
           || age >= NGX_HTTP_UPSTREAM_REUSE_PROVED;
}


void
ngx_http_upstream_reuse_note_closed(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t age)
{
    ngx_uint_t                          learned;
    ngx_http_upstream_reuse_learned_t  *limit;

    if (!reuse_is_evidence(conn, age)) {
        return;
    }

    limit = conn->learned;

    ngx_http_upstream_reuse_lock(conn);

    /*
     * Whoever closes at the age after which resets came says so after all: a
     * few requests were too quick for it.
     */

    learned = (limit->idle == 0
               || age < limit->idle
               || (limit->silent && reuse_is_same_age(age, limit->idle)))
              && reuse_weigh_close(limit, age);

    if (learned) {
        age = limit->idle;
    }

    ngx_http_upstream_reuse_unlock(conn);

    if (learned) {
        reuse_log_limit(conn, "closes", age);
    }
}


void
ngx_http_upstream_reuse_note_rtt(ngx_http_upstream_reuse_conn_t *conn,
    ngx_uint_t rtt)
{
    ngx_http_upstream_reuse_learned_t  *limit;

    limit = conn->server->learned;

    if (limit == NULL
        || rtt == 0
        || (rtt >= limit->rtt
            && limit->rtt
            && (limit->near_rtt == NGX_HTTP_UPSTREAM_REUSE_SURE
                || !reuse_is_near_rtt(limit->rtt, rtt))))
    {
        return;
    }

    ngx_http_upstream_reuse_lock(conn);

    if (limit->rtt == 0 || !reuse_is_near_rtt(limit->rtt, rtt)) {
        limit->near_rtt = 0;
    }

    if (limit->near_rtt < NGX_HTTP_UPSTREAM_REUSE_SURE) {
        limit->near_rtt++;
    }

    if (limit->rtt == 0 || rtt < limit->rtt) {
        limit->rtt = rtt;
    }

    ngx_http_upstream_reuse_unlock(conn);
}


ngx_uint_t
ngx_http_upstream_reuse_least_rtt(ngx_http_upstream_reuse_conn_t *conn,
    ngx_uint_t rtt)
{
    ngx_http_upstream_reuse_learned_t  *limit;

    limit = conn->server->learned;

    if (limit == NULL
        || limit->near_rtt < NGX_HTTP_UPSTREAM_REUSE_SURE
        || (rtt < limit->rtt && !reuse_is_near_rtt(limit->rtt, rtt)))
    {
        return 0;
    }

    return ngx_min(rtt, limit->rtt);
}


/* Tells whether one is by no more than a quarter above the other. */

static ngx_uint_t
reuse_is_near_rtt(ngx_uint_t a, ngx_uint_t b)
{
    return ngx_max(a, b) - ngx_min(a, b) <= ngx_min(a, b) / 4;
}


/*
 * A restart of the origin closes connections of any age, and all at once.  So
 * it takes some of one age that were not closed together; and if another
 * connection has been older than that, it takes so many moments at which they
 * closed.  Tells whether that has now become the limit.
 */

static ngx_uint_t
reuse_weigh_close(ngx_http_upstream_reuse_learned_t *limit, ngx_msec_t age)
{
    if (limit->closes == 0 || !reuse_is_same_age(age, limit->suspect)) {
        limit->suspect = age;
        limit->closes = 1;
        limit->moments = 1;
        limit->noted = ngx_current_msec;

        return 0;
    }

    limit->suspect = ngx_min(limit->suspect, age);
    limit->closes++;

    /* another worker's time may be a little ahead of ours */

    if ((ngx_msec_int_t) (ngx_current_msec - limit->noted)
        >= (ngx_msec_int_t) ngx_max(limit->suspect / 2,
                                    NGX_HTTP_UPSTREAM_REUSE_MOMENT))
    {
        limit->moments++;
        limit->noted = ngx_current_msec;
    }

    if (limit->suspect > limit->survived) {

        if (limit->closes < NGX_HTTP_UPSTREAM_REUSE_ENOUGH
            || (limit->moments == 1
                && (ngx_msec_int_t) (ngx_current_msec - limit->noted)
                   < (ngx_msec_int_t) (limit->suspect / 2)))
        {
            return 0;
        }

    } else {

        if (limit->moments < NGX_HTTP_UPSTREAM_REUSE_ENOUGH) {
            return 0;
        }

        limit->survived = 0;
        limit->served = 0;
    }

    limit->idle = limit->suspect;
    limit->silent = 0;
    limit->closes = 0;

    return 1;
}


static ngx_uint_t
reuse_is_same_age(ngx_msec_t age, ngx_msec_t known)
{
    ngx_msec_t  off;

    off = (age > known) ? age - known : known - age;

    return off <= known / 8 + NGX_HTTP_UPSTREAM_REUSE_OFF;
}


static void
reuse_log_limit(ngx_http_upstream_reuse_conn_t *conn, const char *what,
    ngx_msec_t age)
{
    size_t     len;
    u_char     text[NGX_SOCKADDR_STRLEN];
    ngx_str_t  upstream;

    ngx_http_upstream_reuse_name_record(conn->server->record, &upstream, text,
                                        &len);

    ngx_log_error(NGX_LOG_INFO, conn->connection->log, 0,
                  "learned: server %*s of upstream \"%V\" %s connections that "
                  "have been idle for %M ms%s", len, text, &upstream, what,
                  age, (conn->learned == conn->server->learned)
                       ? "" : " and have carried no request");
}
