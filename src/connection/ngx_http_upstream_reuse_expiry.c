
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * No connection is used that the origin is about to close.  When that is, the
 * operator knows (reuse_expiry TIME), the origin announces (Keep-Alive), or
 * it is learned.
 */


#include "ngx_http_upstream_reuse_connection.h"


#define NGX_HTTP_UPSTREAM_REUSE_LONGEST  86400     /* seconds */

/* so many times as long as a test, none follows */
#define NGX_HTTP_UPSTREAM_REUSE_PAUSE   8


static ngx_msec_t reuse_idle_limit(ngx_http_upstream_reuse_conn_t *conn);
static ngx_msec_t reuse_learned(ngx_http_upstream_reuse_conn_t *conn);
static ngx_msec_t reuse_tested(ngx_http_upstream_reuse_learned_t *limit);
static ngx_msec_t reuse_end_of_test(ngx_http_upstream_reuse_conn_t *conn);

static void reuse_expire_in(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t expiry, ngx_http_upstream_reuse_close_e reason);
static void reuse_parse_hint(ngx_str_t *value, ngx_int_t *timeout,
    ngx_int_t *max);
static void reuse_test_handler(ngx_event_t *ev);
static void reuse_test_dummy_handler(ngx_event_t *ev);
static ngx_int_t reuse_look_whether_closed(
    ngx_http_upstream_reuse_conn_t *conn);


ngx_uint_t
ngx_http_upstream_reuse_measure(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_http_upstream_reuse_tcp_t  tcp;

    if (conn->conf->expiry == NGX_HTTP_UPSTREAM_REUSE_EXPIRY_OFF
        && !conn->conf->retry)
    {
        return 0;
    }

    if (ngx_http_upstream_reuse_read_tcp(conn->connection->fd, &tcp) == -1) {
        return 0;
    }

    conn->rtt = (tcp.rtt + 999) / 1000;

    ngx_http_upstream_reuse_note_rtt(conn, tcp.min_rtt);

    return tcp.rtt;
}


ngx_uint_t
ngx_http_upstream_reuse_is_fresh(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t age)
{
    ngx_msec_t  limit;

    limit = reuse_idle_limit(conn);

    return limit == 0
           || age + ngx_http_upstream_reuse_margin(conn, limit) < limit;
}


/*
 * Whatever has forgotten a connection says nothing until a packet comes.  So
 * what was learned from resets is put to the test by a request that core
 * sends to the next server, or again, if the connection fails.
 */

ngx_uint_t
ngx_http_upstream_reuse_may_try(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_http_upstream_reuse_learned_t  *limit;

    limit = conn->learned;

    if (reuse_learned(conn) == 0
        || !limit->silent
        || rp->idle < limit->idle
        || (ngx_msec_int_t) (limit->testing - ngx_current_msec) > 0)
    {
        return 0;
    }

    if (conn->announced
        && rp->idle + ngx_http_upstream_reuse_margin(conn, conn->announced)
           >= conn->announced)
    {
        return 0;
    }

    if (!ngx_http_upstream_reuse_lets_go_again(rp,
                                               NGX_HTTP_UPSTREAM_FT_ERROR))
    {
        return 0;
    }

    ngx_http_upstream_reuse_defer_trial(limit);

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, conn->connection->log, 0,
                   "upstream reuse: connection %p is tried beyond its limit",
                   conn->connection);

    return 1;
}


ngx_msec_t
ngx_http_upstream_reuse_left(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_msec_t  left, age_left;

    left = ngx_http_upstream_reuse_idle_left(conn);

    if (conn->lifetime == 0) {
        return left;
    }

    age_left = ngx_http_upstream_reuse_age_left(conn);

    return ngx_min(left, age_left);
}


ngx_msec_t
ngx_http_upstream_reuse_idle_left(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_msec_t  age, limit, end, served;

    age = ngx_current_msec - conn->since;
    served = conn->since - conn->connection->start_time;

    end = conn->conf->max_time - ngx_min(conn->conf->max_time, served);
    end = ngx_min(end, conn->conf->timeout);

    limit = reuse_idle_limit(conn);

    if (limit) {
        limit -= ngx_min(limit, ngx_http_upstream_reuse_margin(conn, limit));
        end = ngx_min(end, limit);
    }

    return (age < end) ? end - age : 0;
}


ngx_uint_t
ngx_http_upstream_reuse_may_outlive(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_msec_t                          age, end;
    ngx_http_upstream_reuse_learned_t  *limit;

    limit = conn->learned;

    if (reuse_learned(conn) == 0
        || limit->silent
        || (ngx_msec_int_t) (limit->testing - ngx_current_msec) > 0)
    {
        return 0;
    }

    age = ngx_current_msec - conn->since;
    end = reuse_end_of_test(conn);

    limit->testing = ngx_current_msec + end * NGX_HTTP_UPSTREAM_REUSE_PAUSE;

    /* it may be older than what has been learned */

    reuse_expire_in(conn, end - ngx_min(end, age),
                    NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED);

    return 1;
}


ngx_msec_t
ngx_http_upstream_reuse_unused_limit(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_msec_t  end, limit;

    end = ngx_min(rcf->timeout, rcf->max_time);

    if (rcf->max_age) {
        end = ngx_min(end, ngx_http_upstream_reuse_least_age(rcf));
    }

    switch (rcf->expiry) {

    case NGX_HTTP_UPSTREAM_REUSE_EXPIRY_TIME:
        return ngx_min(rcf->idle, end);

    case NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO:
        limit = server->record->unused_learned.idle;

        return limit ? ngx_min(limit, end) : end;

    default: /* NGX_HTTP_UPSTREAM_REUSE_EXPIRY_OFF */
        return end;
    }
}


ngx_uint_t
ngx_http_upstream_reuse_knows_end(ngx_http_upstream_reuse_conn_t *conn)
{
    return reuse_idle_limit(conn) != 0;
}


/* Milliseconds after which an idle connection is closed; 0: not known. */

static ngx_msec_t
reuse_idle_limit(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_msec_t  limit;

    switch (conn->conf->expiry) {

    case NGX_HTTP_UPSTREAM_REUSE_EXPIRY_TIME:
        return conn->conf->idle;

    case NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO:

        limit = reuse_learned(conn);

        if (conn->announced && (limit == 0 || conn->announced < limit)) {
            limit = conn->announced;
        }

        return limit;

    default: /* NGX_HTTP_UPSTREAM_REUSE_EXPIRY_OFF */
        return 0;
    }
}


static ngx_msec_t
reuse_learned(ngx_http_upstream_reuse_conn_t *conn)
{
    return (conn->learned
            && conn->conf->expiry == NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO)
           ? conn->learned->idle : 0;
}


/*
 * The age at which an idle connection that is alive disproves what was
 * learned: origins' timers are not exact, and an end may be on its way.
 */

static ngx_msec_t
reuse_tested(ngx_http_upstream_reuse_learned_t *limit)
{
    ngx_msec_t  age;

    age = limit->closes ? ngx_max(limit->idle, limit->suspect) : limit->idle;

    return age + age / 4;
}


static ngx_msec_t
reuse_end_of_test(ngx_http_upstream_reuse_conn_t *conn)
{
    return reuse_tested(conn->learned)
           + ngx_http_upstream_reuse_margin(conn, conn->learned->idle);
}


ngx_uint_t
ngx_http_upstream_reuse_read_hint(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_int_t         timeout, max;
    ngx_msec_t        limit;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h, *end;

    timeout = NGX_ERROR;
    max = NGX_ERROR;

    if (conn->conf->expiry != NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO) {

        /* the operator knows better */

    } else if (rp->hint.told) {
        timeout = rp->hint.timeout;
        max = rp->hint.max;

    } else if (!rp->hint.expected) {
        part = &rp->upstream->headers_in.headers.part;

        for ( /* void */ ; part; part = part->next) {

            h = part->elts;
            end = h + part->nelts;

            for ( /* void */ ; h < end; h++) {

                if (h->key.len == sizeof("Keep-Alive") - 1
                    && ngx_tolower(h->key.data[0]) == 'k'
                    && ngx_strncasecmp(h->key.data, (u_char *) "Keep-Alive",
                                       h->key.len)
                       == 0)
                {
                    reuse_parse_hint(&h->value, &timeout, &max);
                }
            }
        }
    }

    if (timeout != NGX_ERROR) {
        conn->announced = (ngx_msec_t) ngx_min(timeout,
                              NGX_HTTP_UPSTREAM_REUSE_LONGEST) * 1000;

        if (timeout == 0) {
            return 0;
        }
    }

    /*
     * Some origins count down, and others always say how many there are in
     * all: what the first response says is taken for all requests, that one
     * included.
     */

    if (max != NGX_ERROR) {

        if (max == 0) {
            return 0;
        }

        if (conn->max == 0) {
            conn->max = max + conn->connection->requests - 1;
        }
    }

    if (conn->max && conn->connection->requests >= conn->max) {
        return 0;
    }

    /* one that is only learned may be wrong: let us see how it goes */

    limit = (conn->conf->expiry == NGX_HTTP_UPSTREAM_REUSE_EXPIRY_TIME)
            ? conn->conf->idle : conn->announced;

    return limit == 0
           || ngx_http_upstream_reuse_margin(conn, limit) < limit;
}


void
ngx_http_upstream_reuse_note_hint(ngx_http_upstream_reuse_peer_t *rp,
    ngx_str_t *value)
{
    if (!rp->hint.told) {
        rp->hint.told = 1;
        rp->hint.timeout = NGX_ERROR;
        rp->hint.max = NGX_ERROR;
    }

    reuse_parse_hint(value, &rp->hint.timeout, &rp->hint.max);
}


/* "timeout=5, max=100"; what is not understood is no hint */

static void
reuse_parse_hint(ngx_str_t *value, ngx_int_t *timeout, ngx_int_t *max)
{
    u_char     *p, *last, *name, *equals;
    ngx_int_t   n;

    p = value->data;
    last = p + value->len;

    while (p < last) {

        while (p < last && (*p == ' ' || *p == '\t' || *p == ',')) {
            p++;
        }

        name = p;
        equals = NULL;

        while (p < last && *p != ' ' && *p != '\t' && *p != ',') {
            if (*p == '=' && equals == NULL) {
                equals = p;
            }
            p++;
        }

        if (equals == NULL) {
            continue;
        }

        n = ngx_atoi(equals + 1, p - equals - 1);

        if (n == NGX_ERROR) {
            continue;
        }

        if (equals - name == sizeof("timeout") - 1
            && ngx_strncasecmp(name, (u_char *) "timeout", equals - name) == 0)
        {
            *timeout = n;

        } else if (equals - name == sizeof("max") - 1
                   && ngx_strncasecmp(name, (u_char *) "max", equals - name)
                      == 0)
        {
            *max = n;
        }
    }
}


void
ngx_http_upstream_reuse_set_expiry(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_msec_t  limit, expiry, learned;

    expiry = 0;

    if (conn->conf->expiry == NGX_HTTP_UPSTREAM_REUSE_EXPIRY_TIME) {
        limit = conn->conf->idle;

    } else {
        limit = conn->announced;
    }

    if (limit) {
        expiry = limit - ngx_http_upstream_reuse_margin(conn, limit);
    }

    /*
     * A limit that was learned is put to the test: there is no further use
     * for the connection, but if it is alive then, the limit is wrong.  One
     * that was learned from resets shows only when something is sent: the
     * connection stays, for a request that may try it.
     */

    limit = reuse_learned(conn);

    if (limit && !conn->learned->silent) {
        learned = reuse_end_of_test(conn);

        if (expiry == 0 || learned < expiry) {
            expiry = learned;
        }
    }

    conn->on_timeout = NGX_HTTP_UPSTREAM_REUSE_CLOSE_IDLE;

    if (expiry) {
        reuse_expire_in(conn, expiry, NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED);
    }

    if (conn->lifetime) {
        reuse_expire_in(conn, ngx_http_upstream_reuse_age_left(conn),
                        NGX_HTTP_UPSTREAM_REUSE_CLOSE_AGE);
    }
}


/* The keepalive module has set a timer, of which ours must not be later. */

static void
reuse_expire_in(ngx_http_upstream_reuse_conn_t *conn, ngx_msec_t expiry,
    ngx_http_upstream_reuse_close_e reason)
{
    ngx_event_t  *rev;

    rev = conn->connection->read;

    if (rev->timer_set
        && (ngx_msec_int_t) (rev->timer.key - ngx_current_msec - expiry) <= 0)
    {
        return;
    }

    if (rev->timer_set) {
        ngx_del_timer(rev);
    }

    ngx_add_timer(rev, expiry);

    conn->on_timeout = reason;
}


ngx_int_t
ngx_http_upstream_reuse_note_end(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t age)
{
    ngx_int_t  ended;

    ended = reuse_look_whether_closed(conn);

    if (conn->learned == NULL
        || conn->conf->expiry != NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO)
    {
        return ended;
    }

    if (ended == NGX_OK) {
        ngx_http_upstream_reuse_note_closed(conn, age);

    } else if (ended == NGX_AGAIN && age >= reuse_tested(conn->learned)) {

        /* an end may be on its way, and no limit is exact */

        ngx_http_upstream_reuse_note_open(conn, age);
    }

    return ended;
}


/*
 * With steady traffic no connection would get as old as the limit, and a wrong
 * one would never show.
 */

ngx_uint_t
ngx_http_upstream_reuse_put_to_test(ngx_http_upstream_reuse_conn_t *conn,
    ngx_msec_t age)
{
    ngx_msec_t                          end;
    ngx_connection_t                   *c;
    ngx_http_upstream_reuse_learned_t  *limit;

    if (reuse_learned(conn) == 0
        || conn->learned->silent
        || ngx_exiting
        || ngx_terminate)
    {
        return 0;
    }

    limit = conn->learned;
    c = conn->connection;

    end = reuse_end_of_test(conn);

    if (age >= end
        || (ngx_msec_int_t) (limit->testing - ngx_current_msec) > 0
        || reuse_look_whether_closed(conn) != NGX_AGAIN)
    {
        return 0;
    }

    c->read->ready = 0;

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        return 0;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "upstream reuse: connection %p is put to the test", c);

    /*
     * One at a time, and not often: an origin that has a process for each
     * connection has one less as long as that.  It is no harm if two workers
     * begin one.
     */

    limit->testing = ngx_current_msec + (end - age)
                     + end * NGX_HTTP_UPSTREAM_REUSE_PAUSE;


    c->data = conn;
    c->idle = 1;
    c->read->delayed = 0;
    c->read->handler = reuse_test_handler;
    c->write->handler = reuse_test_dummy_handler;

    c->log = ngx_cycle->log;
    c->read->log = ngx_cycle->log;
    c->write->log = ngx_cycle->log;
    c->pool->log = ngx_cycle->log;

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    ngx_add_timer(c->read, end - age);

    return 1;
}


static void
reuse_test_handler(ngx_event_t *ev)
{
    ngx_connection_t                *c;
    ngx_http_upstream_reuse_conn_t  *conn;

    c = ev->data;
    conn = c->data;

    if (!c->close && !ev->timedout
        && reuse_look_whether_closed(conn) == NGX_AGAIN)
    {
        ev->ready = 0;

        if (ngx_handle_read_event(ev, 0) == NGX_OK) {
            return;
        }
    }

    /* what it has shown is noted as it goes */

    ngx_http_upstream_reuse_close(c);
}


static void
reuse_test_dummy_handler(ngx_event_t *ev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ev->log, 0,
                   "upstream reuse: nothing to write");
}


/*
 * Finds out whether the origin has closed an idle connection: NGX_OK if so,
 * NGX_AGAIN if not, NGX_ABORT if the kernel has after a probe, NGX_DECLINED if
 * that cannot be told.  In TLS the origin says so in an alert (RFC 8446,
 * section 6.1): a record of type 21, or since TLS 1.3 one of type 23 that has
 * room for two bytes only.  Session tickets, which come as well, are much
 * longer.
 */

static ngx_int_t
reuse_look_whether_closed(ngx_http_upstream_reuse_conn_t *conn)
{
    u_char                         head[5];
    ssize_t                        n;
    ngx_socket_t                   fd;
    ngx_http_upstream_reuse_tcp_t  tcp;

    fd = conn->connection->fd;

    n = recv(fd, (char *) head, sizeof(head), MSG_PEEK);

    if (n == -1 && ngx_socket_errno == NGX_EAGAIN) {
        return NGX_AGAIN;
    }

    if (n <= 0) {
        return ngx_http_upstream_reuse_is_lost(conn) ? NGX_ABORT : NGX_OK;
    }

#if (NGX_HTTP_SSL)

    /* what nginx had of TLS is gone by now */

    if (conn->identity->ssl
        && n == sizeof(head)
        && (head[0] == 21
            || (head[0] == 23 && head[3] == 0 && head[4] <= 2 + 1 + 16)))
    {
        return NGX_OK;
    }

#endif

    /* some say 408 before they close */

    return (ngx_http_upstream_reuse_read_tcp(fd, &tcp) == 0
            && tcp.close_wait)
           ? NGX_OK : NGX_DECLINED;
}
