
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * When the next plan is made, and for how long a server is left alone to which
 * connections fail, or which does not want them.
 */


#include "ngx_http_reuse_warm.h"


/* milliseconds */

#define NGX_HTTP_REUSE_WARM_TOGETHER  50     /* closed at one time */
#define NGX_HTTP_REUSE_WARM_BACK_OFF  200    /* after a failure */
#define NGX_HTTP_REUSE_WARM_DOUBLED   7      /* times, at most */


static void reuse_excuse_young(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server);
static void reuse_back_off(ngx_http_upstream_reuse_attempts_t *attempts);
static void reuse_recover(ngx_http_upstream_reuse_attempts_t *attempts);


/* worker */

static ngx_event_t       reuse_plan_event;
static ngx_connection_t  reuse_plan_dummy;


void
ngx_http_reuse_warm_start_timer(ngx_event_handler_pt handler)
{
    /* a debug log names the connection of a timer */

    reuse_plan_dummy.fd = (ngx_socket_t) -1;

    reuse_plan_event.handler = handler;
    reuse_plan_event.data = &reuse_plan_dummy;
    reuse_plan_event.log = ngx_cycle->log;
    reuse_plan_event.cancelable = 1;

    ngx_http_reuse_warm_set_timer(1);
}


void
ngx_http_reuse_warm_schedule(ngx_http_reuse_warm_t *warm, ngx_msec_t delay)
{
    if ((ngx_msec_int_t) (warm->due - ngx_current_msec - delay) > 0) {
        warm->due = ngx_current_msec + delay;
        ngx_http_reuse_warm_set_timer(delay);
    }
}


void
ngx_http_reuse_warm_set_timer(ngx_msec_t delay)
{
    if (reuse_plan_event.timer_set) {

        if ((ngx_msec_int_t) (reuse_plan_event.timer.key - ngx_current_msec
                              - delay)
            <= 0)
        {
            return;
        }

        ngx_del_timer(&reuse_plan_event);
    }

    ngx_add_timer(&reuse_plan_event, delay);
}


void
ngx_http_reuse_warm_note_preconnect(ngx_http_reuse_warm_preconnect_t *p)
{
    if (ngx_exiting || ngx_terminate) {
        return;
    }

    if (p->server->ahead.nwarm == 0 && p->server->ahead.connecting == 0) {
        p->server->ahead.bare_since = ngx_current_msec;
    }

    if (!p->opened) {
        reuse_back_off(p->attempts);

    } else if (p->attempts->unwanted) {

        /* it has still to show whether it wants this one */

        p->attempts->retry_at = ngx_current_msec;

    } else {
        reuse_recover(p->attempts);
    }

    ngx_http_reuse_warm_schedule(p->warm, 1);
}


void
ngx_http_reuse_warm_note_closed_idle(ngx_http_upstream_reuse_conn_t *conn,
    ngx_http_upstream_reuse_close_e reason)
{
    ngx_uint_t                           ended, young;
    ngx_http_upstream_reuse_server_t    *server;
    ngx_http_upstream_reuse_attempts_t  *attempts;

    server = conn->server;

    ended = (reason == NGX_HTTP_UPSTREAM_REUSE_CLOSE_CLOSED
             || reason == NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXCESS
             || reason == NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR);

    young = (ngx_current_msec - conn->since < NGX_HTTP_UPSTREAM_REUSE_PROVED);

    if (ended && !young) {
        server->ahead.old_closed = ngx_current_msec;
        reuse_excuse_young(conn->conf->warmth, server);
    }

    if (!conn->warm) {
        return;
    }

    ngx_http_upstream_reuse_count(server, UNUSED);

    if (ended && !young) {

        /* what a restart has closed is no waste */

        return;
    }

    if (conn->profile == NULL) {

        /* it was parked, and another worker may have opened it */

        if (ended) {
            (void) ngx_atomic_fetch_add(&server->record->unwanted, 1);
        }

        return;
    }

    attempts = ngx_http_reuse_warm_find_attempts(conn->profile, server);

    if (ngx_current_msec - attempts->wasted_since >= 1000) {
        attempts->wasted_since = ngx_current_msec;
        attempts->wasted = 0;
    }

    attempts->wasted++;

    if (ended && young
        && ngx_current_msec - server->ahead.old_closed
           >= NGX_HTTP_REUSE_WARM_TOGETHER)
    {
        /* it accepts connections, but does not want them */

        attempts->unwanted = 1;
        attempts->young_closed = ngx_current_msec;

        reuse_back_off(attempts);
    }
}


void
ngx_http_reuse_warm_note_parked(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t proved)
{
    ngx_uint_t                           i, unwanted;
    ngx_http_upstream_reuse_attempts_t  *attempts;

    unwanted = (server->ahead.unwanted != server->record->unwanted);
    server->ahead.unwanted = server->record->unwanted;

    for (i = 0; i < warm->nprofiles; i++) {

        if (warm->profiles[i]->identity->ssl) {
            continue;
        }

        attempts = ngx_http_reuse_warm_find_attempts(warm->profiles[i],
                                                     server);

        if (unwanted) {
            attempts->unwanted = 1;
            reuse_back_off(attempts);

        } else if (proved && attempts->unwanted) {
            reuse_recover(attempts);
        }
    }
}


/* With an old connection a server has closed others, of whatever age. */

static void
reuse_excuse_young(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_uint_t                           i;
    ngx_http_upstream_reuse_attempts_t  *attempts;

    for (i = 0; i < warm->nprofiles; i++) {

        attempts = ngx_http_reuse_warm_find_attempts(warm->profiles[i],
                                                     server);

        if (attempts->unwanted
            && ngx_current_msec - attempts->young_closed
               < NGX_HTTP_REUSE_WARM_TOGETHER)
        {
            reuse_recover(attempts);
        }
    }
}


static void
reuse_back_off(ngx_http_upstream_reuse_attempts_t *attempts)
{
    ngx_msec_t  delay;

    if (attempts->failures
        && (ngx_msec_int_t) (attempts->retry_at - ngx_current_msec) > 0)
    {
        /* several fail together, for one reason */

        return;
    }

    delay = NGX_HTTP_REUSE_WARM_BACK_OFF
            << ngx_min(attempts->failures, NGX_HTTP_REUSE_WARM_DOUBLED);

    attempts->failures++;
    attempts->retry_at = ngx_current_msec + delay / 2
                         + (ngx_msec_t) ngx_random() % delay;
}


void
ngx_http_reuse_warm_recover(ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server)
{
    if (profile) {
        reuse_recover(ngx_http_reuse_warm_find_attempts(profile, server));
    }
}


static void
reuse_recover(ngx_http_upstream_reuse_attempts_t *attempts)
{
    attempts->failures = 0;
    attempts->unwanted = 0;
    attempts->told = 0;
}


ngx_http_upstream_reuse_attempts_t *
ngx_http_reuse_warm_find_attempts(ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_http_upstream_reuse_attempts_t  *attempts;

    attempts = &server->ahead.attempts[profile->index];

    if (attempts->number != profile->number) {

        /* these were of a profile that is gone */

        ngx_memzero(attempts, sizeof(ngx_http_upstream_reuse_attempts_t));
        attempts->number = profile->number;
    }

    return attempts;
}
