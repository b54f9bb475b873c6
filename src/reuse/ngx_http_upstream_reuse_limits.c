
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * After which idle time each peer closes connections, and how near it is,
 * learned by all workers together.  A lock is taken when a connection is kept
 * for the first time, is closed by the origin, or has been idle for longer
 * than any before; not for a request.
 */


#include "ngx_http_upstream_reuse.h"


/* milliseconds by which two ages may differ and still be the same */
#define NGX_HTTP_UPSTREAM_REUSE_OFF        5

/* milliseconds after which a restart should be over */
#define NGX_HTTP_UPSTREAM_REUSE_MOMENT     1000

/* so many closes of one age make a limit */
#define NGX_HTTP_UPSTREAM_REUSE_ENOUGH     3


static ngx_uint_t reuse_weigh_close(ngx_http_upstream_reuse_limit_t *limit,
    ngx_msec_t age);
static void reuse_log_limit(ngx_http_upstream_reuse_kept_t *kept,
    const char *what, ngx_msec_t age);


void
ngx_http_upstream_reuse_note_alive(ngx_http_upstream_reuse_kept_t *kept,
    ngx_msec_t age)
{
    ngx_uint_t                        wrong;
    ngx_http_upstream_reuse_limit_t  *limit;

    limit = kept->limit;

    if (limit == NULL
        || kept->conf->expiry != NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO
        || (age <= limit->survived
            && (limit->closes == 0 || age < limit->suspect)))
    {
        return;
    }

    ngx_http_upstream_reuse_lock(kept);

    limit->survived = ngx_max(limit->survived, age);

    wrong = (limit->idle && limit->idle <= age);

    if (wrong) {
        limit->idle = 0;
    }

    if (limit->suspect <= age) {
        limit->closes = 0;
    }

    ngx_http_upstream_reuse_unlock(kept);

    if (wrong) {
        reuse_log_limit(kept, "no longer closes", age);
    }
}


void
ngx_http_upstream_reuse_note_closed(ngx_http_upstream_reuse_kept_t *kept,
    ngx_msec_t age)
{
    ngx_uint_t                        learned;
    ngx_http_upstream_reuse_limit_t  *limit;

    limit = kept->limit;

    if (limit == NULL
        || kept->conf->expiry != NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO)
    {
        return;
    }

    /* so young a connection was not closed for being idle */

    if (age <= ngx_http_upstream_reuse_margin(kept, age)) {
        return;
    }

    /* nor one that was opened ahead: it was not wanted */

    if (limit != kept->server->limit && age < NGX_HTTP_UPSTREAM_REUSE_PROVED) {
        return;
    }

    ngx_http_upstream_reuse_lock(kept);

    learned = (limit->idle == 0 || age < limit->idle)
              && reuse_weigh_close(limit, age);

    if (learned) {
        age = limit->idle;
    }

    ngx_http_upstream_reuse_unlock(kept);

    if (learned) {
        reuse_log_limit(kept, "closes", age);
    }
}


ngx_uint_t
ngx_http_upstream_reuse_note_rtt(ngx_http_upstream_reuse_kept_t *kept,
    ngx_uint_t rtt)
{
    ngx_http_upstream_reuse_limit_t  *limit;

    limit = kept->server->limit;

    if (limit == NULL) {
        return 0;
    }

    if (rtt && (limit->rtt == 0 || rtt < limit->rtt)) {

        ngx_http_upstream_reuse_lock(kept);

        if (limit->rtt == 0 || rtt < limit->rtt) {
            limit->rtt = rtt;
        }

        ngx_http_upstream_reuse_unlock(kept);
    }

    return rtt ? limit->rtt : 0;
}


/*
 * A restart of the origin closes connections of any age, and all at once.  So
 * it takes some of one age; and if another connection has been older than
 * that, it takes so many moments at which they closed.
 * Tells whether that has now become the limit.
 */

static ngx_uint_t
reuse_weigh_close(ngx_http_upstream_reuse_limit_t *limit, ngx_msec_t age)
{
    ngx_msec_t  off;

    off = (age > limit->suspect) ? age - limit->suspect : limit->suspect - age;

    if (limit->closes == 0
        || off > limit->suspect / 8 + NGX_HTTP_UPSTREAM_REUSE_OFF)
    {
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

        if (limit->closes < NGX_HTTP_UPSTREAM_REUSE_ENOUGH) {
            return 0;
        }

    } else {

        if (limit->moments < NGX_HTTP_UPSTREAM_REUSE_ENOUGH) {
            return 0;
        }

        limit->survived = 0;
    }

    limit->idle = limit->suspect;
    limit->closes = 0;

    return 1;
}


static void
reuse_log_limit(ngx_http_upstream_reuse_kept_t *kept, const char *what,
    ngx_msec_t age)
{
    size_t     len;
    u_char     text[NGX_SOCKADDR_STRLEN];
    ngx_str_t  upstream;

    ngx_http_upstream_reuse_name_record(kept->server->record, &upstream, text,
                                        &len);

    ngx_log_error(NGX_LOG_INFO, kept->connection->log, 0,
                  "server %*s of upstream \"%V\" %s connections that have "
                  "been idle for %M ms", len, text, &upstream, what, age);
}
