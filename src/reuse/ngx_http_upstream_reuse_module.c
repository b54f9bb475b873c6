
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_upstream_reuse_layer.h"


/* bytes; a page is not taken from the system before it is needed */

#define NGX_HTTP_UPSTREAM_REUSE_SESSIONS  (8 * 1024 * 1024)


static ngx_int_t ngx_http_upstream_reuse_preconfiguration(ngx_conf_t *cf);
static void *ngx_http_upstream_reuse_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_upstream_reuse_init_main_conf(ngx_conf_t *cf,
    void *conf);
static void *ngx_http_upstream_reuse_create_srv_conf(ngx_conf_t *cf);
static ngx_int_t ngx_http_upstream_reuse_postconfiguration(ngx_conf_t *cf);

static void reuse_inherit_conf(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_srv_conf_t *http);
static ngx_int_t reuse_complete(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *http, ngx_uint_t wanted);
static ngx_int_t reuse_check_size(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_srv_conf_t *http);
static const char *reuse_needs_pool(ngx_http_upstream_reuse_srv_conf_t *rcf);
static ngx_int_t reuse_check_warm(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_srv_conf_t *http);
static ngx_uint_t reuse_wanted(ngx_http_upstream_reuse_main_conf_t *rmcf,
    ngx_http_upstream_srv_conf_t *uscf);
static ngx_int_t reuse_create_srv_conf(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);
static ngx_int_t reuse_add_port(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf, ngx_str_t *name);
#if (NGX_HTTP_SSL)
static ngx_int_t reuse_add_sessions(ngx_conf_t *cf,
    ngx_http_upstream_reuse_main_conf_t *rmcf);
#endif
static void reuse_note_version(ngx_conf_t *cf);


static ngx_command_t  ngx_http_upstream_reuse_commands[] = {

    { ngx_string("reuse"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_UPS_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_SRV_CONF_OFFSET,
      offsetof(ngx_http_upstream_reuse_srv_conf_t, reuse),
      &ngx_http_upstream_reuse_post },

    { ngx_string("reuse_retry"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_UPS_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_SRV_CONF_OFFSET,
      offsetof(ngx_http_upstream_reuse_srv_conf_t, retry),
      NULL },

    { ngx_string("reuse_expiry"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_UPS_CONF|NGX_CONF_TAKE1,
      ngx_http_upstream_reuse_set_expiry_slot,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("reuse_probe"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_UPS_CONF|NGX_CONF_TAKE123,
      ngx_http_upstream_reuse_set_probe_slot,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("reuse_max_age"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_UPS_CONF|NGX_CONF_TAKE12,
      ngx_http_upstream_reuse_set_max_age_slot,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("reuse_warm"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_UPS_CONF|NGX_CONF_TAKE1,
      ngx_http_upstream_reuse_set_warm_slot,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("reuse_limit"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_UPS_CONF|NGX_CONF_TAKE123,
      ngx_http_upstream_reuse_set_limit_slot,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("reuse_share"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_upstream_reuse_set_share_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("reuse_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_upstream_reuse_set_zone_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("reuse_sessions"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_upstream_reuse_set_sessions_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_upstream_reuse_module_ctx = {
    ngx_http_upstream_reuse_preconfiguration, /* preconfiguration */
    ngx_http_upstream_reuse_postconfiguration, /* postconfiguration */

    ngx_http_upstream_reuse_create_main_conf, /* create main configuration */
    ngx_http_upstream_reuse_init_main_conf, /* init main configuration */

    ngx_http_upstream_reuse_create_srv_conf, /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_upstream_reuse_module = {
    NGX_MODULE_V1,
    &ngx_http_upstream_reuse_module_ctx,   /* module context */
    ngx_http_upstream_reuse_commands,      /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_upstream_reuse_init_module,   /* init module */
    ngx_http_upstream_reuse_init_process,  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_upstream_reuse_exit_process,  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


ngx_int_t
ngx_http_upstream_reuse_ask(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_http_upstream_srv_conf_t         **uscfp;
    ngx_http_upstream_reuse_main_conf_t   *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_upstream_reuse_module);

    if (uscf == NULL) {
        rmcf->all = 1;
        return NGX_OK;
    }

    uscfp = ngx_array_push(&rmcf->asked);
    if (uscfp == NULL) {
        return NGX_ERROR;
    }

    *uscfp = uscf;

    return NGX_OK;
}


ngx_int_t
ngx_http_upstream_reuse_ask_unbounded(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_upstream_reuse_module);
    rmcf->unbounded = uscf;

    return ngx_http_upstream_reuse_ask(cf, uscf);
}


ngx_int_t
ngx_http_upstream_reuse_foresee(ngx_conf_t *cf,
    ngx_http_upstream_conf_t *conf)
{
    ngx_http_upstream_reuse_foreseen_t   *foreseen;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_upstream_reuse_module);

    foreseen = ngx_array_push(&rmcf->foreseen);
    if (foreseen == NULL) {
        return NGX_ERROR;
    }

    foreseen->ctx = *(ngx_http_conf_ctx_t *) cf->ctx;
    foreseen->conf = conf;

    return NGX_OK;
}


static ngx_int_t
ngx_http_upstream_reuse_preconfiguration(ngx_conf_t *cf)
{
    if (ngx_http_upstream_reuse_add_variables(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_upstream_reuse_hook_keepalive(cf);
}


static void *
ngx_http_upstream_reuse_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_upstream_reuse_main_conf_t));
    if (rmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&rmcf->asked, cf->pool, 4,
                       sizeof(ngx_http_upstream_srv_conf_t *))
        != NGX_OK
        || ngx_array_init(&rmcf->foreseen, cf->pool, 4,
                          sizeof(ngx_http_upstream_reuse_foreseen_t))
           != NGX_OK
        || ngx_array_init(&rmcf->warnings, cf->pool, 4, sizeof(ngx_str_t))
           != NGX_OK)
    {
        return NULL;
    }

    rmcf->pool = cf->pool;
    rmcf->share = NGX_CONF_UNSET;

    return rmcf;
}


/*
 * Runs before ngx_http_upstream_module initialises the upstreams, since the
 * keepalive module hooks into that initialisation.
 */

static char *
ngx_http_upstream_reuse_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_upstream_reuse_main_conf_t  *rmcf = conf;

    ngx_uint_t                            i;
    ngx_http_conf_ctx_t                  *ctx;
    ngx_http_upstream_srv_conf_t        **uscfp;
    ngx_http_upstream_main_conf_t        *umcf;
    ngx_http_upstream_reuse_srv_conf_t   *http;

    ngx_http_upstream_reuse_unhook_keepalive();

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);

    ctx = cf->ctx;
    http = ctx->srv_conf[ngx_http_upstream_reuse_module.ctx_index];

    ngx_conf_init_value(http->retry, 1);
    ngx_conf_init_ptr_value(http->probe,
                            &ngx_http_upstream_reuse_default_probe);
    ngx_conf_init_value(http->warm, 0);
    ngx_conf_init_msec_value(http->max_age, 0);
    ngx_conf_init_uint_value(http->expiry,
                             NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO);

    if (rmcf->zone_size == 0) {
        rmcf->zone_size = ngx_http_upstream_reuse_default_zone_size(cf);
    }

    rmcf->zone = ngx_http_upstream_reuse_add_zone(cf, rmcf->zone_size);
    if (rmcf->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    rmcf->places = ngx_http_upstream_reuse_add_places(cf);
    if (rmcf->places == NULL) {
        return NGX_CONF_ERROR;
    }

    if (rmcf->unbounded) {
        rmcf->answers = ngx_http_upstream_reuse_add_answers(cf);
        if (rmcf->answers == NULL) {
            return NGX_CONF_ERROR;
        }
    }

#if (NGX_HTTP_SSL)
    if (reuse_add_sessions(cf, rmcf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }
#endif

    reuse_note_version(cf);

    rmcf->unsound = !ngx_http_upstream_reuse_is_sound(cf);

    if (rmcf->unsound) {
        http->reuse = 0;
        http->warm = 0;
    }

    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {
        if (reuse_complete(cf, uscfp[i], http, reuse_wanted(rmcf, uscfp[i]))
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


/* Upstreams that are left alone have no reuse layer at all. */

static ngx_int_t
reuse_complete(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *http, ngx_uint_t wanted)
{
    ngx_str_t                            name;
    ngx_uint_t                           native;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    name = uscf->host;
    native = NGX_HTTP_UPSTREAM_REUSE_NATIVE;

    if (uscf->srv_conf == NULL) {

        /* an implicit upstream, which keeps nothing on any version */

        if (http->reuse == 0 || (http->reuse == NGX_CONF_UNSET && !wanted)) {
            return NGX_OK;
        }

        if (reuse_create_srv_conf(cf, uscf) != NGX_OK
            || reuse_add_port(cf, uscf, &name) != NGX_OK)
        {
            return NGX_ERROR;
        }

        native = 0;
    }

    rcf = ngx_http_conf_upstream_srv_conf(uscf,
                                          ngx_http_upstream_reuse_module);

    rcf->main = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_upstream_reuse_module);
    rcf->name = name;
    rcf->asked = wanted;
    rcf->unbounded = (uscf == rcf->main->unbounded);
    rcf->native = native;

    if (rcf->main->unsound) {
        rcf->reuse = 0;
        rcf->warm = 0;
    }

    if (reuse_check_size(cf, uscf, rcf, http) != NGX_OK
        || reuse_check_warm(cf, uscf, rcf, http) != NGX_OK)
    {
        return NGX_ERROR;
    }

    reuse_inherit_conf(rcf, http);

    if (rcf->reuse == 0 && rcf->limit) {

        if (wanted && !rcf->main->unsound) {
            ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "\"reuse_limit\" limits no connections to "
                            "upstream \"%V\", as none are kept: remove "
                            "\"reuse off\"", &uscf->host);
        }

        rcf->limit = 0;
    }

    if (rcf->unbounded) {

        /* nobody knows which servers will be needed */

        rcf->warm = 0;
    }

    if (wanted || rcf->reuse == 1) {
        ngx_http_upstream_reuse_check_keepalive(cf, uscf, rcf);
    }

    if (rcf->reuse == 0 || (rcf->reuse == NGX_CONF_UNSET && !wanted)) {
        return NGX_OK;
    }

    return ngx_http_upstream_reuse_add_keepalive(cf, uscf);
}


/* "keepalive 0" says as much as "reuse off", and older versions refuse it. */

static ngx_int_t
reuse_check_size(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_srv_conf_t *http)
{
    const char  *directive;

    if (ngx_http_upstream_reuse_written_size(cf, uscf) != 0) {
        return NGX_OK;
    }

    directive = reuse_needs_pool(rcf);

    if (directive) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"%s\" needs connections to be kept, and "
                      "\"keepalive 0\" keeps none for upstream \"%V\" in "
                      "%s:%ui: remove one of them", directive,
                      &uscf->host, uscf->file_name, uscf->line);
        return NGX_ERROR;
    }

    if (rcf->reuse == 0
        || (rcf->reuse == NGX_CONF_UNSET
            && (http->reuse == 0
                || (http->reuse == NGX_CONF_UNSET && !rcf->asked))))
    {
        return NGX_OK;
    }

    ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "connections to upstream \"%V\" are not reused: "
                            "remove \"keepalive 0\"%s", &uscf->host,
                            (rcf->reuse == 1) ? ", or \"reuse on\"" : "");

    rcf->reuse = 0;
    rcf->warm = 0;

    return NGX_OK;
}


/* The directive that is of no use without a pool; NULL: there is none. */

static const char *
reuse_needs_pool(ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    if (rcf->warm != NGX_CONF_UNSET && rcf->warm != 0) {
        return "reuse_warm";
    }

    return (rcf->limit != NGX_CONF_UNSET) ? "reuse_limit" : NULL;
}


/* Where one of these is written, connections are kept for every handler. */

static ngx_int_t
reuse_check_warm(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_srv_conf_t *http)
{
    const char  *directive;

    directive = reuse_needs_pool(rcf);

    if (directive == NULL) {
        return NGX_OK;
    }

    if (rcf->reuse == 0 || (rcf->reuse == NGX_CONF_UNSET && http->reuse == 0))
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "upstream \"%V\" has \"%s\", but \"reuse off\" "
                      "stands in it or in \"http\": remove one of the two, "
                      "in %s:%ui",
                      &uscf->host, directive, uscf->file_name, uscf->line);
        return NGX_ERROR;
    }

    rcf->reuse = 1;

    return NGX_OK;
}


/* An upstream{} block is not merged with http{} by core. */

static void
reuse_inherit_conf(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_srv_conf_t *http)
{
    if (rcf->reuse == NGX_CONF_UNSET) {
        rcf->reuse = http->reuse;
    }

    ngx_conf_merge_value(rcf->retry, http->retry, 1);
    ngx_conf_merge_ptr_value(rcf->probe, http->probe, NULL);
    ngx_conf_merge_value(rcf->warm, http->warm, 0);

    if (rcf->expiry == NGX_CONF_UNSET_UINT) {
        rcf->expiry = http->expiry;
        rcf->idle = http->idle;
    }

    if (rcf->max_age == NGX_CONF_UNSET_MSEC) {
        rcf->max_age = http->max_age;
        rcf->jitter = http->jitter;
    }

    if (rcf->limit == NGX_CONF_UNSET) {
        rcf->limit = ngx_max(http->limit, 0);
        rcf->queue = http->queue;
        rcf->queue_timeout = http->queue_timeout;
    }
}


static ngx_uint_t
reuse_wanted(ngx_http_upstream_reuse_main_conf_t *rmcf,
    ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_uint_t                      i;
    ngx_http_upstream_srv_conf_t  **uscfp;

    if (rmcf->all) {
        return 1;
    }

    uscfp = rmcf->asked.elts;

    for (i = 0; i < rmcf->asked.nelts; i++) {
        if (uscfp[i] == uscf) {
            return 1;
        }
    }

    return 0;
}


/*
 * An implicit upstream has no srv_conf, where the modules of an upstream{}
 * block have their state; it gets what ngx_http_upstream() gives a block.
 */

static ngx_int_t
reuse_create_srv_conf(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *uscf)
{
    void               **srv_conf;
    ngx_uint_t           m;
    ngx_module_t       **modules;
    ngx_http_module_t   *module;

    srv_conf = ngx_pcalloc(cf->pool, sizeof(void *) * ngx_http_max_module);
    if (srv_conf == NULL) {
        return NGX_ERROR;
    }

    modules = cf->cycle->modules;

    for (m = 0; modules[m]; m++) {

        if (modules[m]->type != NGX_HTTP_MODULE) {
            continue;
        }

        module = modules[m]->ctx;

        if (module->create_srv_conf == NULL) {
            continue;
        }

        srv_conf[modules[m]->ctx_index] = module->create_srv_conf(cf);
        if (srv_conf[modules[m]->ctx_index] == NULL) {
            return NGX_ERROR;
        }
    }

    srv_conf[ngx_http_upstream_module.ctx_index] = uscf;
    uscf->srv_conf = srv_conf;

    return NGX_OK;
}


/* Two of one host may differ in it. */

static ngx_int_t
reuse_add_port(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *uscf,
    ngx_str_t *name)
{
    if (uscf->port == 0) {
        return NGX_OK;
    }

    name->data = ngx_pnalloc(cf->pool,
                             uscf->host.len + sizeof(":65535") - 1);
    if (name->data == NULL) {
        return NGX_ERROR;
    }

    name->len = ngx_sprintf(name->data, "%V:%ui", &uscf->host,
                            (ngx_uint_t) uscf->port)
                - name->data;

    return NGX_OK;
}


static void *
ngx_http_upstream_reuse_create_srv_conf(ngx_conf_t *cf)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_upstream_reuse_srv_conf_t));
    if (rcf == NULL) {
        return NULL;
    }

    rcf->reuse = NGX_CONF_UNSET;
    rcf->retry = NGX_CONF_UNSET;
    rcf->probe = NGX_CONF_UNSET_PTR;
    rcf->warm = NGX_CONF_UNSET;
    rcf->limit = NGX_CONF_UNSET;
    rcf->expiry = NGX_CONF_UNSET_UINT;
    rcf->max_age = NGX_CONF_UNSET_MSEC;

    ngx_queue_init(&rcf->kept);

    ngx_queue_init(&rcf->by_use);
    ngx_rbtree_init(&rcf->servers, &rcf->sentinel,
                    ngx_str_rbtree_insert_value);

    return rcf;
}


/* every upstream is initialised by now: what stands here is outermost */

static ngx_int_t
ngx_http_upstream_reuse_postconfiguration(ngx_conf_t *cf)
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

        if (rcf->reuse != 0
            && ngx_http_upstream_reuse_has_layer(rcf)
            && ngx_http_upstream_reuse_restore_keepalive(cf, uscfp[i])
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        rcf->uscf = uscfp[i];
        rcf->round_robin = ngx_http_upstream_reuse_has_round_robin(uscfp[i]);
        rcf->init_peer = uscfp[i]->peer.init;

        if (rcf->init_pool == NULL) {
            rcf->init_pool = rcf->init_peer;
        }

        if (rcf->main == NULL || !rcf->main->unsound) {
            ngx_http_upstream_reuse_read_keepalive(cf, uscfp[i], rcf);
        }

        if (!ngx_http_upstream_reuse_has_layer(rcf)) {
            rcf->limit = 0;
            continue;
        }

        if (rcf->limit > 0 && rcf->reuse == 1) {

            /* no request goes by the balancer alone */

            ngx_http_upstream_reuse_take_max_conns(uscfp[i]);
        }

        uscfp[i]->peer.init = ngx_http_upstream_reuse_init_peer;
    }

    return NGX_OK;
}


#if (NGX_HTTP_SSL)

static ngx_int_t
reuse_add_sessions(ngx_conf_t *cf, ngx_http_upstream_reuse_main_conf_t *rmcf)
{
    if (RAND_bytes(rmcf->generation, sizeof(rmcf->generation)) != 1) {
        ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0, "RAND_bytes() failed");
        return NGX_ERROR;
    }

    if (rmcf->sessions_size == 0) {
        rmcf->sessions_size = NGX_HTTP_UPSTREAM_REUSE_SESSIONS;
    }

    rmcf->sessions = ngx_http_upstream_reuse_add_session_zone(cf,
                                                         rmcf->sessions_size);

    return rmcf->sessions ? NGX_OK : NGX_ERROR;
}

#endif


/* Logs a notice if this nginx is newer than those that were tested. */

static void
reuse_note_version(ngx_conf_t *cf)
{
    ngx_uint_t  running, tested;

    running = ngx_core_module.version;
    tested = NGX_HTTP_MYPROXY_TESTED;

    if (running <= tested) {
        return;
    }

    ngx_log_error(NGX_LOG_NOTICE, cf->log, 0,
                  "ngx_http_myproxy_module was tested with nginx versions up "
                  "to %ui.%ui.%ui; this is %ui.%ui.%ui",
                  tested / 1000000, tested / 1000 % 1000, tested % 1000,
                  running / 1000000, running / 1000 % 1000, running % 1000);
}
