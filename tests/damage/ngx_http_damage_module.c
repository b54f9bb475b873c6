
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A module for tests: "damage NAME;" in front of http{} has nginx's keepalive
 * module work as another version of it might, in one respect.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


#define NGX_HTTP_DAMAGE_UPSTREAMS  16


/* Angie 1.8.0: what the pool does is apart from choosing a peer */

#if (defined angie_version && angie_version >= 1008000)
#define damage_asks   connect
#define damage_gives  close
#define NGX_HTTP_DAMAGE_FOUND  NGX_OK
#else
#define damage_asks   get
#define damage_gives  free
#define NGX_HTTP_DAMAGE_FOUND  NGX_DONE
#endif


typedef struct {
    ngx_http_upstream_srv_conf_t    *uscf;
    ngx_http_upstream_init_pt        init_upstream;
    ngx_http_upstream_init_peer_pt   init_peer;
} ngx_http_damage_upstream_t;


static char *ngx_http_damage(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *damage_keepalive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *damage_number(ngx_conf_t *cf, void *post, void *data);
static ngx_http_damage_upstream_t *damage_upstream(
    ngx_http_upstream_srv_conf_t *uscf);
static ngx_int_t damage_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static char *damage_init_main_conf(ngx_conf_t *cf, void *conf);
static void damage_stand_before(ngx_http_upstream_srv_conf_t *us);
static ngx_int_t damage_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t damage_get(ngx_peer_connection_t *pc, void *data);
static void damage_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static void damage_read(ngx_event_t *ev);
static void damage_close(ngx_event_t *ev);


static ngx_command_t  ngx_http_damage_commands[] = {

    { ngx_string("damage"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_TAKE1,
      ngx_http_damage,
      0,
      0,
      NULL },

      ngx_null_command
};


static ngx_core_module_t  ngx_http_damage_module_ctx = {
    ngx_string("damage"),
    NULL,
    NULL
};


ngx_module_t  ngx_http_damage_module = {
    NGX_MODULE_V1,
    &ngx_http_damage_module_ctx,           /* module context */
    ngx_http_damage_commands,              /* module directives */
    NGX_CORE_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


ngx_module_t  *ngx_modules[] = { &ngx_http_damage_module, NULL };
char          *ngx_module_names[] = { "ngx_http_damage_module", NULL };
char          *ngx_module_order[] = { NULL };


static u_char                      *damage;
static ngx_http_damage_upstream_t   upstreams[NGX_HTTP_DAMAGE_UPSTREAMS];
static ngx_uint_t                   nupstreams;

static char *(*set_keepalive)(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *(*init_main_conf)(ngx_conf_t *cf, void *conf);

static ngx_http_upstream_srv_conf_t  *damaged;
static ngx_http_upstream_t         *upstream;
static ngx_event_get_peer_pt        get_peer;
static ngx_event_free_peer_pt       free_peer;
static ngx_connection_t            *kept;  /* the first one */
static ngx_connection_t            *last;
static ngx_uint_t                   ngiven;

static ngx_conf_post_t              damage_post = { damage_number };


#define is(name)  (ngx_strcmp(damage, name) == 0)


static char *
ngx_http_damage(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t          *value;
    ngx_uint_t          m;
    ngx_module_t       *module;
    ngx_command_t      *command;
    ngx_http_module_t  *ctx;

    value = cf->args->elts;
    damage = value[1].data;

    if (is("version")) {
        ngx_core_module.version = 1099007;
        return NGX_CONF_OK;
    }

    module = NULL;

    for (m = 0; cf->cycle->modules[m]; m++) {
        if (ngx_strcmp(cf->cycle->modules[m]->name,
                       "ngx_http_upstream_keepalive_module")
            == 0)
        {
            module = cf->cycle->modules[m];
        }
    }

    if (module == NULL) {
        return "finds no module";
    }

    for (command = module->commands; command->name.len; command++) {

        if (ngx_strcmp(command->name.data, "keepalive") == 0) {
            set_keepalive = command->set;
            command->set = damage_keepalive;
        }

        if (is((char *) command->name.data)) {
            command->post = &damage_post;
        }
    }

    ctx = module->ctx;

    if (ctx->init_main_conf) {
        init_main_conf = ctx->init_main_conf;
        ctx->init_main_conf = damage_init_main_conf;
    }

    return NGX_CONF_OK;
}


static char *
damage_keepalive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                          *rv;
    ngx_http_upstream_srv_conf_t  *uscf;

    if (is("refuse")) {
        return "is not for everyone";
    }

    if (is("ignore")) {
        return NGX_CONF_OK;
    }

    rv = set_keepalive(cf, cmd, conf);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (is("layout")) {
        *(ngx_uint_t *) conf = 7;
    }

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);

    if (init_main_conf == NULL) {
        damage_upstream(uscf)->init_upstream = uscf->peer.init_upstream;
        uscf->peer.init_upstream = damage_init_upstream;
    }

    return NGX_CONF_OK;
}


static char *
damage_number(ngx_conf_t *cf, void *post, void *data)
{
    *(ngx_int_t *) data = 5;

    return NGX_CONF_OK;
}


/* Upstreams that are copies of others have their functions. */

static ngx_http_damage_upstream_t *
damage_upstream(ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_uint_t  i;

    for (i = 0; i < nupstreams; i++) {
        if (upstreams[i].uscf->srv_conf == uscf->srv_conf) {
            return &upstreams[i];
        }
    }

    if (nupstreams == NGX_HTTP_DAMAGE_UPSTREAMS) {
        ngx_abort();
    }

    upstreams[nupstreams].uscf = uscf;

    return &upstreams[nupstreams++];
}


static ngx_int_t
damage_init_upstream(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    if (damage_upstream(us)->init_upstream(cf, us) != NGX_OK) {
        return NGX_ERROR;
    }

    damage_stand_before(us);

    return NGX_OK;
}


static char *
damage_init_main_conf(ngx_conf_t *cf, void *conf)
{
    char                            *rv;
    ngx_uint_t                       i;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    rv = is("ignore") ? NGX_CONF_OK : init_main_conf(cf, conf);

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts && !is("ignore"); i++) {
        if (uscfp[i]->srv_conf) {
            damage_stand_before(uscfp[i]);
        }
    }

    return rv;
}


static void
damage_stand_before(ngx_http_upstream_srv_conf_t *us)
{
    damage_upstream(us)->init_peer = us->peer.init;
    us->peer.init = damage_init_peer;
}


static ngx_int_t
damage_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_peer_connection_t  *pc;

    if (damage_upstream(us)->init_peer(r, us) != NGX_OK) {
        return NGX_ERROR;
    }

    if (us != damaged) {
        damaged = us;
        kept = NULL;
        last = NULL;
        ngiven = 0;
    }

    upstream = r->upstream;
    pc = &upstream->peer;

    get_peer = pc->damage_asks;
    free_peer = pc->damage_gives;

    pc->damage_asks = damage_get;
    pc->damage_gives = damage_free;

    return NGX_OK;
}


static ngx_int_t
damage_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_int_t  rc;

    rc = get_peer(pc, data);

    if (rc == NGX_HTTP_DAMAGE_FOUND && is("take")) {
        pc->connection = NULL;
        return NGX_OK;
    }

    if (pc->connection == NULL && is("key") && kept) {
        pc->connection = kept;
        pc->cached = 1;
        return NGX_HTTP_DAMAGE_FOUND;
    }

    return rc;
}


static void
damage_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_connection_t  *c;

    c = pc->connection;

    if (is("put")) {
        upstream->keepalive = 0;
    }

    if (is("short")) {

        /* no more of an address than one of IPv4 has */

        pc->socklen = ngx_min(pc->socklen, sizeof(struct sockaddr_in));
    }

    if (is("room") && c && ++ngiven == 4 && last && last->idle) {

        /* the one that was given last, in place of the oldest */

        last->read->timedout = 1;
        last->read->handler(last->read);
    }

    last = c;

    free_peer(pc, data, state);

    if (is("twice")) {
        free_peer(pc, data, state);
    }

    if (c && pc->connection == NULL) {

        if (is("key") && kept == NULL) {
            kept = c;
        }

        if (is("remove")) {
            c->read->handler = damage_read;
        }

        if (is("order")) {
            c->read->handler = damage_close;
        }

        if (is("timer") && c->read->timer_set) {
            ngx_del_timer(c->read);
        }
    }
}


static void
damage_read(ngx_event_t *ev)
{
}


/* As the module does it, but in another order. */

static void
damage_close(ngx_event_t *ev)
{
    ngx_pool_t        *pool;
    ngx_connection_t  *c;

    c = ev->data;
    pool = c->pool;

    ngx_close_connection(c);
    ngx_destroy_pool(pool);
}
