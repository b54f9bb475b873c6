
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Connections are there before they are needed.  For each upstream a worker
 * makes a plan: when something has changed, when a connection comes near its
 * end, and once in a second.
 */


#include "ngx_http_upstream_reuse.h"


/* milliseconds */

#define NGX_HTTP_UPSTREAM_REUSE_SOON      10     /* after a change */
#define NGX_HTTP_UPSTREAM_REUSE_TOGETHER  50     /* closed at one time */
#define NGX_HTTP_UPSTREAM_REUSE_BACK_OFF  200    /* after a failure */
#define NGX_HTTP_UPSTREAM_REUSE_DOUBLED   7      /* times, at most */

static ngx_int_t reuse_check_warm(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf);

static void reuse_schedule(ngx_http_upstream_reuse_warm_t *warm,
    ngx_msec_t delay);
static void reuse_set_timer(ngx_msec_t delay);
static void reuse_warm_handler(ngx_event_t *ev);
static void reuse_back_off(ngx_http_upstream_reuse_server_t *server);


/* worker */

static ngx_http_upstream_reuse_main_conf_t  *reuse_main;
static ngx_event_t                           reuse_warm_event;
static ngx_connection_t                      reuse_warm_dummy;


ngx_int_t
ngx_http_upstream_reuse_init_warm(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    ngx_int_t                         rc;
    ngx_http_upstream_reuse_warm_t   *warm, **warmp;

    rc = reuse_check_warm(cf, uscf, rcf);

    if (rc != NGX_OK) {
        return (rc == NGX_DECLINED) ? NGX_OK : NGX_ERROR;
    }

    warm = ngx_pcalloc(cf->pool, sizeof(ngx_http_upstream_reuse_warm_t));
    if (warm == NULL) {
        return NGX_ERROR;
    }

    warm->uscf = uscf;
    warm->conf = rcf;
    ngx_queue_init(&warm->idle);

    if (ngx_array_init(&warm->servers, cf->pool, 4,
                       sizeof(ngx_http_upstream_reuse_server_t *))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    warmp = ngx_array_push(&rcf->main->warm);
    if (warmp == NULL) {
        return NGX_ERROR;
    }

    *warmp = warm;

    rcf->warmth = warm;

    return ngx_http_upstream_reuse_foresee_kinds(cf, warm);
}


/* NGX_DECLINED if the upstream cannot be kept warm. */

static ngx_int_t
reuse_check_warm(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    if (rcf->init_balancer == NULL) {

        ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "\"reuse_warm\" has no effect on upstream \"%V\": "
                            "what keeps its connections is not \"keepalive\" "
                            "behind what balances it", &uscf->host);

        return NGX_DECLINED;
    }

    if (!ngx_http_upstream_reuse_has_round_robin(uscf)) {

        if (uscf->file_name) {
            ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "\"reuse_warm\" has no effect on upstream \"%V\": "
                            "what balances it does not keep its servers in "
                            "the way of nginx's own modules",
                            &uscf->host);
        }

        return NGX_DECLINED;
    }

    if (rcf->warm > 0 && rcf->size && (ngx_uint_t) rcf->warm > rcf->size) {
        ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "upstream \"%V\" keeps no more than %ui "
                            "connections, and so is not kept warm with %i: "
                            "write \"keepalive %i\" or more",
                            &uscf->host, rcf->size, rcf->warm, rcf->warm);
    }

    return NGX_OK;
}


void
ngx_http_upstream_reuse_start_warming(
    ngx_http_upstream_reuse_main_conf_t *rmcf)
{
    ngx_uint_t                        i;
    ngx_http_upstream_reuse_warm_t  **warm;

    if (rmcf->warm.nelts == 0) {
        return;
    }

    reuse_main = rmcf;

    /* a debug log names the connection of a timer */

    reuse_warm_dummy.fd = (ngx_socket_t) -1;

    reuse_warm_event.handler = reuse_warm_handler;
    reuse_warm_event.data = &reuse_warm_dummy;
    reuse_warm_event.log = ngx_cycle->log;
    reuse_warm_event.cancelable = 1;

    warm = rmcf->warm.elts;

    for (i = 0; i < rmcf->warm.nelts; i++) {
        warm[i]->due = ngx_current_msec + 1;
    }

    reuse_set_timer(1);
}


/* A plan is made for the upstream after so many milliseconds, at most. */

static void
reuse_schedule(ngx_http_upstream_reuse_warm_t *warm, ngx_msec_t delay)
{
    if ((ngx_msec_int_t) (warm->due - ngx_current_msec - delay) > 0) {
        warm->due = ngx_current_msec + delay;
        reuse_set_timer(delay);
    }
}


static void
reuse_set_timer(ngx_msec_t delay)
{
    if (reuse_warm_event.timer_set) {

        if ((ngx_msec_int_t) (reuse_warm_event.timer.key - ngx_current_msec
                              - delay)
            <= 0)
        {
            return;
        }

        ngx_del_timer(&reuse_warm_event);
    }

    ngx_add_timer(&reuse_warm_event, delay);
}


void
ngx_http_upstream_reuse_begin_use(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_uint_t                         used, more;
    ngx_http_upstream_reuse_kind_t    *kind;
    ngx_http_upstream_reuse_warm_t    *warm;
    ngx_http_upstream_reuse_record_t  *record;

    warm = rp->conf->warmth;

    rp->uses = 1;
    warm->used++;

    record = rp->server->record;
    used = ++rp->server->used;
    more = 0;

    if (used > record->seen) {
        record->seen = used;

        if (used > record->peak) {
            record->peak = used;
            more = 1;
        }
    }

    kind = ngx_http_upstream_reuse_find_kind(rp);
    rp->kind = kind;

    if (kind) {
        used = ++kind->used;

        if (used > kind->seen) {
            kind->seen = used;
            kind->peak = ngx_max(kind->peak, used);
        }
    }

    /* while there are enough, nothing costs anything */

    if (rp->conf->warm > 0) {
        more = warm->nidle < (ngx_uint_t) rp->conf->warm
               && (rp->conf->size == 0
                   || warm->used + warm->nidle + warm->opening
                      < rp->conf->size);
    }

    if (more) {
        reuse_schedule(warm, NGX_HTTP_UPSTREAM_REUSE_SOON);
    }
}


void
ngx_http_upstream_reuse_end_use(ngx_http_upstream_reuse_peer_t *rp)
{
    rp->uses = 0;
    rp->conf->warmth->used--;

    rp->server->used--;

    if (rp->kind) {
        rp->kind->used--;
    }
}


void
ngx_http_upstream_reuse_begin_idle(ngx_http_upstream_reuse_kept_t *kept)
{
    ngx_msec_t                       left;
    ngx_http_upstream_reuse_warm_t  *warm;

    warm = kept->conf->warmth;

    ngx_queue_insert_tail(&warm->idle, &kept->queue);
    kept->queued = 1;
    warm->nidle++;
    kept->server->nidle++;

    if (kept->kind) {
        kept->kind->unused++;
    }

    /* those that were opened or used together are not to end together */

    kept->outlives = 0;

    left = ngx_http_upstream_reuse_left(kept);

    kept->early = (ngx_msec_t) ngx_random() % (left / 4 + 1);

    if (!kept->warm) {

        /* the server has answered a request */

        ngx_http_upstream_reuse_recover(kept->server);
    }
}


void
ngx_http_upstream_reuse_end_idle(ngx_http_upstream_reuse_kept_t *kept)
{
    ngx_http_upstream_reuse_warm_t  *warm;

    warm = kept->conf->warmth;

    ngx_queue_remove(&kept->queue);
    kept->queued = 0;
    warm->nidle--;
    kept->server->nidle--;

    if (kept->kind) {
        kept->kind->unused--;
    }

    if (kept->warm
        && ngx_current_msec - kept->since >= NGX_HTTP_UPSTREAM_REUSE_PROVED)
    {
        ngx_http_upstream_reuse_recover(kept->server);
    }

    if (kept->idle && !ngx_exiting) {

        /* it was closed, not taken */

        reuse_schedule(warm, NGX_HTTP_UPSTREAM_REUSE_SOON);
    }
}


void
ngx_http_upstream_reuse_note_opening(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t opened)
{
    if (ngx_exiting || ngx_terminate) {
        return;
    }

    if (!opened) {
        reuse_back_off(server);

    } else if (server->unwanted) {

        /* it has still to show whether it wants this one */

        server->retry = ngx_current_msec;

    } else {
        ngx_http_upstream_reuse_recover(server);
    }

    reuse_schedule(warm, 1);
}


void
ngx_http_upstream_reuse_note_closed_idle(ngx_http_upstream_reuse_kept_t *kept,
    ngx_http_upstream_reuse_fate_e fate)
{
    ngx_uint_t                         ended, young;
    ngx_http_upstream_reuse_server_t  *server;

    server = kept->server;

    ended = (fate == NGX_HTTP_UPSTREAM_REUSE_FATE_CLOSED
             || fate == NGX_HTTP_UPSTREAM_REUSE_FATE_EXCESS
             || fate == NGX_HTTP_UPSTREAM_REUSE_FATE_ERROR);

    young = (ngx_current_msec - kept->since < NGX_HTTP_UPSTREAM_REUSE_PROVED);

    if (ended && !young) {

        /* with this one it has closed others, of whatever age */

        server->restarted = ngx_current_msec;

        if (server->unwanted
            && ngx_current_msec - server->closed
               < NGX_HTTP_UPSTREAM_REUSE_TOGETHER)
        {
            ngx_http_upstream_reuse_recover(server);
        }
    }

    if (!kept->warm) {
        return;
    }

    ngx_http_upstream_reuse_count(server, UNUSED);

    if (ended && !young) {

        /* what a restart has closed is no waste */

        return;
    }

    if (ngx_current_msec - server->second >= 1000) {
        server->second = ngx_current_msec;
        server->wasted = 0;
    }

    server->wasted++;

    if (ended && young
        && ngx_current_msec - server->restarted
           >= NGX_HTTP_UPSTREAM_REUSE_TOGETHER)
    {
        /* it accepts connections, but does not want them */

        server->unwanted = 1;
        server->closed = ngx_current_msec;

        reuse_back_off(server);
    }
}


static void
reuse_back_off(ngx_http_upstream_reuse_server_t *server)
{
    ngx_msec_t  delay;

    if (server->failures
        && (ngx_msec_int_t) (server->retry - ngx_current_msec) > 0)
    {
        /* several fail together, for one reason */

        return;
    }

    delay = NGX_HTTP_UPSTREAM_REUSE_BACK_OFF
            << ngx_min(server->failures, NGX_HTTP_UPSTREAM_REUSE_DOUBLED);

    server->failures++;
    server->retry = ngx_current_msec + delay / 2
                    + (ngx_msec_t) ngx_random() % delay;
}


void
ngx_http_upstream_reuse_recover(ngx_http_upstream_reuse_server_t *server)
{
    server->failures = 0;
    server->unwanted = 0;
    server->told = 0;
}


void
ngx_http_upstream_reuse_lower_peaks(ngx_http_upstream_reuse_zone_t *zone)
{
    ngx_uint_t                         peak, seen;
    ngx_http_upstream_reuse_record_t  *record;

    for (record = ngx_http_upstream_reuse_next_record(zone, NULL);
         record;
         record = ngx_http_upstream_reuse_next_record(zone, record))
    {
        peak = record->peak;
        seen = record->seen;

        record->peak = ngx_http_upstream_reuse_lower(peak, seen);
        record->seen = 0;
    }
}


static void
reuse_warm_handler(ngx_event_t *ev)
{
    ngx_uint_t                        i;
    ngx_msec_t                        next;
    ngx_msec_int_t                    left, soonest;
    ngx_http_upstream_reuse_warm_t  **warm;

    if (ngx_exiting || ngx_terminate) {
        ngx_http_upstream_reuse_abort_openings();
        return;
    }

    warm = reuse_main->warm.elts;
    soonest = NGX_HTTP_UPSTREAM_REUSE_SELDOM;

    for (i = 0; i < reuse_main->warm.nelts; i++) {

        left = warm[i]->due - ngx_current_msec;

        if (left <= 0) {

            /* it may be made earlier by what the plan does */

            warm[i]->due = ngx_current_msec + NGX_HTTP_UPSTREAM_REUSE_SELDOM;

            next = ngx_http_upstream_reuse_plan(warm[i]);
            reuse_schedule(warm[i], ngx_max(next, 1));

            left = warm[i]->due - ngx_current_msec;
        }

        soonest = ngx_min(soonest, left);
    }

    reuse_set_timer(ngx_max(soonest, 1));
}
