
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Connections are there before they are needed.  For each upstream a worker
 * makes a plan: when something has changed, when a connection comes near its
 * end, and once in a second.
 */


#include "ngx_http_reuse_warm.h"


/* milliseconds */

#define NGX_HTTP_REUSE_WARM_SOON  10     /* after a change */


/* cycle */

typedef struct {
    ngx_array_t                      upstreams;  /* ngx_http_reuse_warm_t * */
} ngx_http_reuse_warm_main_conf_t;


static void *ngx_http_reuse_warm_create_main_conf(ngx_conf_t *cf);
static ngx_int_t ngx_http_reuse_warm_postconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_reuse_warm_init_process(ngx_cycle_t *cycle);

static ngx_int_t reuse_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf);
static ngx_int_t reuse_check_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf);

static void reuse_begin_use(ngx_http_upstream_reuse_peer_t *rp);
static void reuse_end_use(ngx_http_upstream_reuse_peer_t *rp);
static void reuse_keep(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_conn_t *conn);
static void reuse_begin_idle(ngx_http_upstream_reuse_conn_t *conn);
static void reuse_end_idle(ngx_http_upstream_reuse_conn_t *conn);
static void reuse_forget(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);

static void reuse_handler(ngx_event_t *ev);


/* worker */

static ngx_http_reuse_warm_main_conf_t  *reuse_main;


static ngx_http_upstream_reuse_listener_t  reuse_listener = {
    reuse_begin_use,
    reuse_end_use,
    reuse_keep,
    reuse_begin_idle,
    reuse_end_idle,
    ngx_http_reuse_warm_note_closed_idle,
    reuse_forget
};


static ngx_http_module_t  ngx_http_reuse_warm_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_reuse_warm_postconfiguration, /* postconfiguration */

    ngx_http_reuse_warm_create_main_conf,  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_reuse_warm_module = {
    NGX_MODULE_V1,
    &ngx_http_reuse_warm_module_ctx,       /* module context */
    NULL,                                  /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_reuse_warm_init_process,      /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_http_reuse_warm_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_reuse_warm_main_conf_t  *wmcf;

    wmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_reuse_warm_main_conf_t));
    if (wmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&wmcf->upstreams, cf->pool, 4,
                       sizeof(ngx_http_reuse_warm_t *))
        != NGX_OK)
    {
        return NULL;
    }

    return wmcf;
}


/* The reuse layer has completed every upstream: its module comes first. */

static ngx_int_t
ngx_http_reuse_warm_postconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t                           i;
    ngx_http_upstream_srv_conf_t       **uscfp;
    ngx_http_upstream_main_conf_t       *umcf;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);

    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {

        if (uscfp[i]->srv_conf == NULL) {
            continue;
        }

        rcf = ngx_http_conf_upstream_srv_conf(uscfp[i],
                                              ngx_http_upstream_reuse_module);

        if (ngx_http_upstream_reuse_has_layer(rcf)
            && rcf->warm && rcf->reuse
            && reuse_init_upstream(cf, uscfp[i], rcf) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
reuse_init_upstream(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    ngx_int_t                         rc;
    ngx_http_reuse_warm_t            *warm, **warmp;
    ngx_http_reuse_warm_main_conf_t  *wmcf;

    rc = reuse_check_upstream(cf, uscf, rcf);

    if (rc != NGX_OK) {
        return (rc == NGX_DECLINED) ? NGX_OK : NGX_ERROR;
    }

    warm = ngx_pcalloc(cf->pool, sizeof(ngx_http_reuse_warm_t));
    if (warm == NULL) {
        return NGX_ERROR;
    }

    warm->conf = rcf;
    warm->configured = ngx_current_msec;
    ngx_queue_init(&warm->idle);
    ngx_queue_init(&warm->waiting);

    if (ngx_array_init(&warm->peers, cf->pool, 4,
                       sizeof(ngx_http_reuse_warm_peer_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_array_init(&warm->servers, cf->pool, 4,
                       sizeof(ngx_http_upstream_reuse_server_t *))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    wmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_reuse_warm_module);

    warmp = ngx_array_push(&wmcf->upstreams);
    if (warmp == NULL) {
        return NGX_ERROR;
    }

    *warmp = warm;

    rcf->warmth = warm;
    rcf->listener = &reuse_listener;

    return ngx_http_reuse_warm_foresee_profiles(cf, warm);
}


/* NGX_DECLINED if the upstream cannot be kept warm. */

static ngx_int_t
reuse_check_upstream(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    if (rcf->init_balancer == NULL) {

        ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "\"reuse_warm\" has no effect on upstream \"%V\": "
                            "another module keeps its connections, or stands "
                            "between \"keepalive\" and the load-balancing "
                            "method; remove \"reuse_warm\", or that module's "
                            "directives", &uscf->host);

        return NGX_DECLINED;
    }

    if (!ngx_http_upstream_reuse_has_round_robin(uscf)) {

        if (uscf->file_name) {
            ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "\"reuse_warm\" has no effect on upstream \"%V\": "
                            "its load-balancing method is not one of nginx's "
                            "own; remove \"reuse_warm\"", &uscf->host);
        }

        return NGX_DECLINED;
    }

    if (rcf->limit && rcf->warm > rcf->limit) {
        ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "upstream \"%V\" may have no more than %i "
                            "connections to a server, fewer than the %i of "
                            "its \"reuse_warm\": raise \"reuse_limit\", or "
                            "lower \"reuse_warm\"", &uscf->host,
                            rcf->limit, rcf->warm);
    }

    if (rcf->warm > 0 && rcf->size && (ngx_uint_t) rcf->warm > rcf->size) {
        ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "upstream \"%V\" keeps no more than %ui idle "
                            "connections in each worker process, fewer than "
                            "the %i of its \"reuse_warm\": write "
                            "\"keepalive %i\" or more",
                            &uscf->host, rcf->size, rcf->warm, rcf->warm);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_reuse_warm_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                        i;
    ngx_http_reuse_warm_t           **warm;
    ngx_http_reuse_warm_main_conf_t  *wmcf;

    wmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_reuse_warm_module);

    if (wmcf == NULL
        || wmcf->upstreams.nelts == 0
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE))
    {
        return NGX_OK;
    }

    reuse_main = wmcf;

    warm = wmcf->upstreams.elts;

    for (i = 0; i < wmcf->upstreams.nelts; i++) {
        warm[i]->due = ngx_current_msec + 1;
    }

    ngx_http_reuse_warm_start_timer(reuse_handler);

    return NGX_OK;
}


static void
reuse_begin_use(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_uint_t                      used, more;
    ngx_http_reuse_warm_t          *warm;
    ngx_http_reuse_warm_profile_t  *profile;

    warm = rp->conf->warmth;

    warm->used++;

    ngx_http_reuse_warm_begin_waiting(rp);

    more = ngx_http_reuse_warm_begin_use(rp->server);

    profile = ngx_http_reuse_warm_find_profile(rp);
    rp->profile = profile;

    if (profile) {
        used = ++profile->used;

        if (used > profile->seen) {
            profile->seen = used;
            profile->peak = ngx_max(profile->peak, used);
        }
    }

    /* while there are enough, nothing costs anything */

    if (rp->conf->warm > 0) {
        more = warm->nidle < warm->wanted
               && (rp->conf->size == 0
                   || warm->used + warm->nidle + warm->connecting
                      < rp->conf->size);
    }

    if (more) {
        ngx_http_reuse_warm_schedule(warm, NGX_HTTP_REUSE_WARM_SOON);
    }
}


static void
reuse_end_use(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_http_reuse_warm_end_waiting(rp);

    rp->conf->warmth->used--;

    ngx_http_reuse_warm_end_use(rp->server);

    if (rp->profile) {
        rp->profile->used--;
    }
}


/* What is known of the connection's profile by now. */

static void
reuse_keep(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_conn_t *conn)
{
    if (rp->profile == NULL) {
        rp->profile = ngx_http_reuse_warm_learn_profile(rp);
    }

    conn->profile = rp->profile;
}


static void
reuse_begin_idle(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_msec_t              left;
    ngx_http_reuse_warm_t  *warm;

    warm = conn->conf->warmth;

    ngx_queue_insert_tail(&warm->idle, &conn->queue);
    conn->queued = 1;
    warm->nidle++;
    conn->server->ahead.nidle++;
    conn->server->ahead.nwarm += conn->warm;
    conn->server->tally->unused += conn->warm;

    if (conn->profile) {
        conn->profile->unused++;
    }

    /* those that were opened or used together are not to end together */

    conn->outlives = 0;

    left = ngx_http_upstream_reuse_left(conn);

    conn->early = (ngx_msec_t) ngx_random() % (left / 4 + 1);

    if (!conn->warm) {

        /* the server has answered a request */

        ngx_http_reuse_warm_recover(conn->profile, conn->server);
    }
}


static void
reuse_end_idle(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_http_reuse_warm_t  *warm;

    warm = conn->conf->warmth;

    ngx_queue_remove(&conn->queue);
    conn->queued = 0;
    warm->nidle--;
    conn->server->ahead.nidle--;
    conn->server->tally->unused -= conn->warm;

    if (conn->warm && --conn->server->ahead.nwarm == 0) {
        conn->server->ahead.bare_since = ngx_current_msec;
    }

    if (conn->profile) {
        conn->profile->unused--;
    }

    if (conn->warm
        && ngx_current_msec - conn->since >= NGX_HTTP_UPSTREAM_REUSE_PROVED)
    {
        ngx_http_reuse_warm_recover(conn->profile, conn->server);
    }

    if (conn->state != NGX_HTTP_UPSTREAM_REUSE_CONN_USED
        && conn->state != NGX_HTTP_UPSTREAM_REUSE_CONN_PARKED
        && !ngx_exiting)
    {

        /* it was closed, not taken */

        ngx_http_reuse_warm_schedule(warm, NGX_HTTP_REUSE_WARM_SOON);
    }
}


static void
reuse_forget(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_uint_t                          i;
    ngx_http_reuse_warm_t              *warm;
    ngx_http_upstream_reuse_server_t  **servers;

    warm = rcf->warmth;
    servers = warm->servers.elts;

    for (i = 0; i < warm->servers.nelts; i++) {
        if (servers[i] == server) {
            servers[i] = servers[--warm->servers.nelts];
            break;
        }
    }
}


static void
reuse_handler(ngx_event_t *ev)
{
    ngx_uint_t               i;
    ngx_msec_t               next;
    ngx_msec_int_t           left, soonest;
    ngx_http_reuse_warm_t  **warm;

    if (ngx_exiting || ngx_terminate) {
        ngx_http_reuse_warm_abort_preconnects(NULL);
        return;
    }

    ngx_http_reuse_warm_lower_peaks();

    warm = reuse_main->upstreams.elts;
    soonest = NGX_HTTP_REUSE_WARM_SELDOM;

    for (i = 0; i < reuse_main->upstreams.nelts; i++) {

        left = warm[i]->due - ngx_current_msec;

        if (left <= 0) {

            /* it may be made earlier by what the plan does */

            warm[i]->due = ngx_current_msec + NGX_HTTP_REUSE_WARM_SELDOM;

            next = ngx_http_reuse_warm_plan(warm[i]);
            ngx_http_reuse_warm_schedule(warm[i], ngx_max(next, 1));

            left = warm[i]->due - ngx_current_msec;
        }

        soonest = ngx_min(soonest, left);
    }

    ngx_http_reuse_warm_set_timer(ngx_max(soonest, 1));
}
