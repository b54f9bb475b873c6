
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the keepalive module is told, by the operator and by us.
 */


#include "ngx_http_upstream_reuse_pool.h"


/*
 * Where nothing else is written: how many idle connections a worker keeps,
 * and how many requests one of them carries.  nginx's own limit of 1000
 * requests would have busy connections opened anew all the time.
 */

#define NGX_HTTP_UPSTREAM_REUSE_KEEPALIVE  32
#define NGX_HTTP_UPSTREAM_REUSE_WARM_SIZE  128    /* with "reuse_warm auto" */
#define NGX_HTTP_UPSTREAM_REUSE_REQUESTS   "100000"


static ngx_command_t *reuse_find_command(ngx_module_t *module,
    const char *directive);

static void reuse_cleanup_hook(void *data);
static char *reuse_keepalive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t reuse_init_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t reuse_init_nothing(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static void reuse_stand_below(ngx_http_upstream_srv_conf_t *uscf);
static ngx_int_t reuse_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);

static ngx_uint_t reuse_has_size(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf, void **conf);
static ngx_uint_t reuse_pool_size(ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf);


/* while the file is read: the directive, and what it was */

static ngx_command_t  *reuse_command;
static char         *(*reuse_set_keepalive)(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);


/* looked for by name, so as not to depend on the module */

ngx_command_t *
ngx_http_upstream_reuse_find_directive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf, const char *directive, void **conf)
{
    ngx_module_t  *module;

    *conf = NULL;

    module = ngx_http_upstream_reuse_find_keepalive(cf);

    if (module == NULL) {
        return NULL;
    }

    *conf = uscf->srv_conf[module->ctx_index];

    return reuse_find_command(module, directive);
}


ngx_module_t *
ngx_http_upstream_reuse_find_keepalive(ngx_conf_t *cf)
{
    ngx_uint_t      m;
    ngx_module_t  **modules;

    modules = cf->cycle->modules;

    for (m = 0; modules[m]; m++) {
        if (ngx_strcmp(modules[m]->name, "ngx_http_upstream_keepalive_module")
            == 0)
        {
            return modules[m];
        }
    }

    return NULL;
}


static ngx_command_t *
reuse_find_command(ngx_module_t *module, const char *directive)
{
    ngx_command_t  *cmd;

    for (cmd = module->commands; cmd->name.len; cmd++) {
        if (ngx_strcmp(cmd->name.data, directive) == 0) {
            return cmd;
        }
    }

    return NULL;
}


/*
 * Takes the place of the directive while the file is read: when it is carried
 * out, what it finds below it is the balancer.
 */

ngx_int_t
ngx_http_upstream_reuse_hook_keepalive(ngx_conf_t *cf)
{
    ngx_module_t        *module;
    ngx_pool_cleanup_t  *cln;

    module = ngx_http_upstream_reuse_find_keepalive(cf);

    reuse_command = module ? reuse_find_command(module, "keepalive") : NULL;

    if (reuse_command == NULL) {
        return NGX_OK;
    }

    /* if the file is in error, nothing else gives it back */

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = reuse_cleanup_hook;

    reuse_set_keepalive = reuse_command->set;
    reuse_command->set = reuse_keepalive;

    return NGX_OK;
}


static void
reuse_cleanup_hook(void *data)
{
    ngx_http_upstream_reuse_unhook_keepalive();
}


void
ngx_http_upstream_reuse_unhook_keepalive(void)
{
    if (reuse_command) {
        reuse_command->set = reuse_set_keepalive;
        reuse_command = NULL;
    }
}


/*
 * The one that the operator has written.  For connections that are opened
 * ahead there has to be a layer below it as well, and no other has.
 *
 * Where the module stands above every balancer, wherever it is written, so can
 * we, once the file is read: the directive of a balancer below would take us
 * for another one.
 */

static char *
reuse_keepalive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                                *rv;
    ngx_str_t                           *value;
    ngx_http_upstream_srv_conf_t        *uscf;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);
    rcf = ngx_http_conf_upstream_srv_conf(uscf,
                                          ngx_http_upstream_reuse_module);

    if (NGX_HTTP_UPSTREAM_REUSE_NATIVE) {

        value = cf->args->elts;

        rcf->local = (cf->args->nelts == 3
                      && ngx_strcmp(value[2].data, "local") == 0);

        return reuse_set_keepalive(cf, cmd, conf);
    }

    reuse_stand_below(uscf);

    rv = reuse_set_keepalive(cf, cmd, conf);

    if (rv == NGX_CONF_OK) {
        rcf->init_keepalive = uscf->peer.init_upstream;
        uscf->peer.init_upstream = reuse_init_keepalive;
    }

    return rv;
}


/* What is written behind "keepalive" may stand above it, as "sticky" does. */

static ngx_int_t
reuse_init_keepalive(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = ngx_http_conf_upstream_srv_conf(us, ngx_http_upstream_reuse_module);

    if (rcf->init_keepalive(cf, us) != NGX_OK) {
        return NGX_ERROR;
    }

    rcf->init_pool = us->peer.init;

    return NGX_OK;
}


/*
 * Before nginx 1.29.7 the directive of a balancer that is written behind
 * "keepalive" puts its function in place of the module's.  Both find what they
 * need if the module is initialised last.
 */

ngx_int_t
ngx_http_upstream_reuse_restore_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = ngx_http_conf_upstream_srv_conf(uscf,
                                          ngx_http_upstream_reuse_module);

    if (rcf->init_keepalive == NULL || rcf->init_pool) {
        return NGX_OK;
    }

    rcf->init_upstream = reuse_init_nothing;

    return reuse_init_keepalive(cf, uscf);
}


static ngx_int_t
reuse_init_nothing(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    return NGX_OK;
}


/* Our init_upstream runs within that of the keepalive module. */

static void
reuse_stand_below(ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = ngx_http_conf_upstream_srv_conf(uscf,
                                          ngx_http_upstream_reuse_module);

    if (uscf->peer.init_upstream == reuse_init_upstream) {
        return;
    }

    rcf->init_upstream = uscf->peer.init_upstream
                         ? uscf->peer.init_upstream
                         : ngx_http_upstream_init_round_robin;

    uscf->peer.init_upstream = reuse_init_upstream;
}


static ngx_int_t
reuse_init_upstream(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    rcf = ngx_http_conf_upstream_srv_conf(us, ngx_http_upstream_reuse_module);

    if (rcf->init_upstream(cf, us) != NGX_OK) {
        return NGX_ERROR;
    }

    if (rcf->added
        || (rcf->warm && rcf->reuse && ngx_http_upstream_reuse_has_layer(rcf)))
    {
        rcf->init_balancer = us->peer.init;
        us->peer.init = ngx_http_upstream_reuse_pool_init_balancer;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_upstream_reuse_add_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf)
{
    char                                *rv;
    u_char                               size[NGX_INT_T_LEN + 1];
    ngx_http_upstream_init_pt            init_upstream;
    ngx_http_upstream_reuse_srv_conf_t   saved, *rcf;

    rcf = ngx_http_conf_upstream_srv_conf(uscf,
                                          ngx_http_upstream_reuse_module);

    init_upstream = uscf->peer.init_upstream;
    saved = *rcf;

    reuse_stand_below(uscf);

    if (NGX_HTTP_UPSTREAM_REUSE_NATIVE
        && ngx_http_upstream_reuse_written_size(cf, uscf)
           != NGX_CONF_UNSET_UINT)
    {
        /* the operator has chosen, and what the layer is for comes later */

        return (rcf->reuse == NGX_CONF_UNSET)
               ? ngx_http_upstream_reuse_raise_requests(cf, uscf) : NGX_OK;
    }

    (void) ngx_sprintf(size, "%ui%Z", reuse_pool_size(uscf, rcf));

    rv = ngx_http_upstream_reuse_carry_out(cf, uscf, "keepalive",
                                           (char *) size);

    if (rv != NGX_CONF_OK) {

        /* "is duplicate": the operator has chosen */

        if (!NGX_HTTP_UPSTREAM_REUSE_NATIVE) {
            uscf->peer.init_upstream = init_upstream;
            rcf->init_upstream = saved.init_upstream;
        }

        return (rv == NGX_CONF_ERROR) ? NGX_ERROR : NGX_OK;
    }

    rcf->added = 1;

    return ngx_http_upstream_reuse_raise_requests(cf, uscf);
}


/* One for each server at least, and some besides those that are to be warm. */

static ngx_uint_t
reuse_pool_size(ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    ngx_uint_t  size;

    size = NGX_HTTP_UPSTREAM_REUSE_KEEPALIVE;

    if (rcf->warm == NGX_HTTP_UPSTREAM_REUSE_WARM_AUTO) {
        size = NGX_HTTP_UPSTREAM_REUSE_WARM_SIZE;

    } else if (rcf->warm > 0) {
        size += rcf->warm;
    }

    return ngx_max(ngx_http_upstream_reuse_count_servers(uscf), size);
}


ngx_int_t
ngx_http_upstream_reuse_raise_requests(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf)
{
    char  *rv;

    rv = ngx_http_upstream_reuse_carry_out(cf, uscf, "keepalive_requests",
                                           NGX_HTTP_UPSTREAM_REUSE_REQUESTS);

    return (rv == NGX_CONF_ERROR) ? NGX_ERROR : NGX_OK;
}


char *
ngx_http_upstream_reuse_carry_out(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf, const char *directive,
    const char *argument)
{
    char                 *rv;
    void                 *conf;
    ngx_str_t            *value;
    ngx_conf_t            save;
    ngx_array_t           args;
    ngx_command_t        *cmd;
    ngx_http_conf_ctx_t   ctx;

    cmd = ngx_http_upstream_reuse_find_directive(cf, uscf, directive, &conf);

    if (conf == NULL) {
        ngx_http_upstream_reuse_warn(cf, NULL, 0,
                                     "connections to upstream \"%V\" are not "
                                     "reused: this nginx is built without "
                                     "ngx_http_upstream_keepalive_module",
                                     &uscf->host);
    }

    if (cmd == NULL) {
        return "is unknown";
    }

    if (ngx_array_init(&args, cf->pool, 2, sizeof(ngx_str_t)) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    value = ngx_array_push_n(&args, 2);
    if (value == NULL) {
        return NGX_CONF_ERROR;
    }

    value[0] = cmd->name;
    value[1].data = (u_char *) argument;
    value[1].len = ngx_strlen(argument);

    ctx = *(ngx_http_conf_ctx_t *) cf->ctx;
    ctx.srv_conf = uscf->srv_conf;

    save = *cf;
    cf->ctx = &ctx;
    cf->args = &args;
    cf->cmd_type = NGX_HTTP_UPS_CONF;

    rv = cmd->set(cf, cmd, conf);

    *cf = save;

    return rv;
}


ngx_uint_t
ngx_http_upstream_reuse_written_size(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf)
{
    void        *conf;
    ngx_uint_t   size;

    if (!reuse_has_size(cf, uscf, &conf)) {
        return NGX_CONF_UNSET_UINT;
    }

    size = *(ngx_uint_t *) conf;

    /* before 1.29.7 there is no other sign that none is written */

    return (size == 0 && !NGX_HTTP_UPSTREAM_REUSE_NATIVE)
           ? NGX_CONF_UNSET_UINT : size;
}


/* The size is the first that the module has, right before a known limit. */

static ngx_uint_t
reuse_has_size(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *uscf,
    void **conf)
{
    ngx_command_t  *cmd;

    cmd = ngx_http_upstream_reuse_find_directive(cf, uscf,
                                                 "keepalive_requests", conf);

    return cmd && cmd->offset == sizeof(ngx_uint_t);
}


/* The limits of the keepalive module stand where its directives put them. */

void
ngx_http_upstream_reuse_read_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    void           *conf;
    ngx_command_t  *cmd;

    rcf->size = reuse_has_size(cf, uscf, &conf) ? *(ngx_uint_t *) conf : 0;

    cmd = ngx_http_upstream_reuse_find_directive(cf, uscf,
                                                 "keepalive_requests", &conf);

    rcf->max_requests = (cmd && cmd->set == ngx_conf_set_num_slot)
                        ? *(ngx_uint_t *) ((char *) conf + cmd->offset)
                        : NGX_CONF_UNSET_UINT;

    cmd = ngx_http_upstream_reuse_find_directive(cf, uscf, "keepalive_time",
                                                 &conf);

    rcf->max_time = (cmd && cmd->set == ngx_conf_set_msec_slot)
                    ? *(ngx_msec_t *) ((char *) conf + cmd->offset)
                    : NGX_CONF_UNSET_MSEC;

    cmd = ngx_http_upstream_reuse_find_directive(cf, uscf,
                                                 "keepalive_timeout", &conf);

    rcf->timeout = (cmd && cmd->set == ngx_conf_set_msec_slot)
                   ? *(ngx_msec_t *) ((char *) conf + cmd->offset)
                   : NGX_HTTP_UPSTREAM_REUSE_TIMEOUT;
}


ngx_uint_t
ngx_http_upstream_reuse_has_round_robin(ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_http_upstream_rr_peers_t        *peers;
#if (NGX_HTTP_UPSTREAM_ZONE)
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    if (uscf->shm_zone) {

        /* the name is a copy there, as are the servers */

        rcf = ngx_http_conf_upstream_srv_conf(uscf,
                                              ngx_http_upstream_reuse_module);
        if (rcf->round_robin) {
            return uscf->peer.data != NULL;
        }
    }

#endif

    peers = uscf->peer.data;

    return peers && peers->name == &uscf->host;
}


/* The zone of an upstream is filled from these later. */

void
ngx_http_upstream_reuse_take_max_conns(ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_http_upstream_rr_peer_t   *peer;
    ngx_http_upstream_rr_peers_t  *peers;

    if (!ngx_http_upstream_reuse_has_round_robin(uscf)) {
        return;
    }

    for (peers = uscf->peer.data; peers; peers = peers->next) {

        for (peer = peers->peer; peer; peer = peer->next) {
            peer->max_conns = 0;
        }

        for (peer = ngx_http_myproxy_resolved_peers(peers);
             peer;
             peer = peer->next)
        {
            peer->max_conns = 0;
        }
    }
}


/* Those of other balancers are not known, and are taken for granted. */

ngx_uint_t
ngx_http_upstream_reuse_has_server(ngx_http_upstream_srv_conf_t *uscf,
    u_char *sockaddr, size_t socklen)
{
    ngx_uint_t                     found;
    ngx_http_upstream_rr_peer_t   *peer;
    ngx_http_upstream_rr_peers_t  *peers;

    if (!ngx_http_upstream_reuse_has_round_robin(uscf)) {
        return 1;
    }

    found = 0;

    for (peers = uscf->peer.data; peers && !found; peers = peers->next) {

        ngx_http_upstream_rr_peers_rlock(peers);

        for (peer = peers->peer; peer && !found; peer = peer->next) {
            found = (peer->socklen == (socklen_t) socklen
                     && ngx_memcmp(peer->sockaddr, sockaddr, socklen) == 0);
        }

        ngx_http_upstream_rr_peers_unlock(peers);
    }

    return found;
}


ngx_uint_t
ngx_http_upstream_reuse_count_servers(ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_uint_t                   i, n;
    ngx_http_upstream_server_t  *server;

    if (uscf->servers == NULL) {
        return 0;
    }

    server = uscf->servers->elts;
    n = 0;

    for (i = 0; i < uscf->servers->nelts; i++) {
        if (!server[i].down && !server[i].backup) {
            n += server[i].naddrs;
        }
    }

    return n;
}


void
ngx_http_upstream_reuse_check_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    void           *conf;
    ngx_uint_t      size, servers;
    ngx_msec_t      timeout;
    ngx_command_t  *cmd;

    if (rcf->reuse == 0 || uscf->file_name == NULL) {
        return;
    }

    cmd = ngx_http_upstream_reuse_find_directive(cf, uscf,
                                                 "keepalive_timeout", &conf);
    if (cmd == NULL || cmd->set != ngx_conf_set_msec_slot) {
        return;
    }

    timeout = *(ngx_msec_t *) ((char *) conf + cmd->offset);

    if (rcf->expiry == NGX_HTTP_UPSTREAM_REUSE_EXPIRY_TIME
        && timeout != NGX_CONF_UNSET_MSEC
        && timeout > rcf->idle)
    {
        ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "\"keepalive_timeout\" of upstream \"%V\" has "
                            "no effect, as its \"reuse_expiry\" is shorter: "
                            "remove \"keepalive_timeout\"", &uscf->host);
    }

    size = ngx_http_upstream_reuse_written_size(cf, uscf);
    servers = ngx_http_upstream_reuse_count_servers(uscf);

    if (size < servers) {
        ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "\"keepalive %ui\" of upstream \"%V\" is less "
                            "than the number of its servers, %ui: some of "
                            "them have no idle connection; write "
                            "\"keepalive %ui\" or more",
                            size, &uscf->host, servers, servers);
    }
}
