
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The keepalive module has no interface for other modules.  What the reuse
 * layer expects of it is tried, each time that a configuration is read, on a
 * pool which no request will ever see.  Where the module works differently the
 * layer is off, since it would otherwise hand out wrong connections or write
 * where it must not.
 *
 * The connections of this test are none: they have no event that is known to
 * the kernel, and one socket which is not connected.
 */


#include "ngx_http_upstream_reuse_pool.h"


#define NGX_HTTP_UPSTREAM_REUSE_TEST_SIZE      2
#define NGX_HTTP_UPSTREAM_REUSE_TEST_REQUESTS  77777
#define NGX_HTTP_UPSTREAM_REUSE_TEST_TIME      1009  /* seconds */
#define NGX_HTTP_UPSTREAM_REUSE_TEST_TIMEOUT   997   /* seconds */
#define NGX_HTTP_UPSTREAM_REUSE_TEST_KEYS      3   /* more than its size */


/* while a configuration is read: a connection that is put into the pool */

typedef struct {
    ngx_connection_t                 connection;
    ngx_event_t                      read;
    ngx_event_t                      write;
    ngx_uint_t                       freed;  /* unsigned  freed:1; */
    ngx_uint_t                       open;   /* unsigned  open:1;  when it was
                                                freed */
} reuse_test_connection_t;


/* the same: the pool, and the request that asks it */

typedef struct {
    ngx_conf_t                      *cf;
    ngx_module_t                    *module;
    void                            *conf;  /* what the module has of uscf */

    ngx_http_upstream_srv_conf_t     uscf;

    ngx_http_request_t               request;
    ngx_connection_t                 client;
    ngx_http_upstream_t              upstream;
    ngx_http_upstream_conf_t         settings;

    /* they differ in the last byte that an address can have */

    ngx_sockaddr_t                   keys[NGX_HTTP_UPSTREAM_REUSE_TEST_KEYS];
    ngx_sockaddr_t                  *key;   /* what the balancer has chosen */
    ngx_uint_t                       given_back;
    ngx_msec_t                       timeout;  /* of idle connections */

    reuse_test_connection_t
                              connections[NGX_HTTP_UPSTREAM_REUSE_TEST_KEYS];
} reuse_test_t;


static const char *reuse_test_module(ngx_conf_t *cf);
static const char *reuse_test_directives(reuse_test_t *t);
static const char *reuse_test_set(reuse_test_t *t, const char *directive,
    ngx_uint_t value);
static const char *reuse_test_init(reuse_test_t *t);
static ngx_int_t reuse_test_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t reuse_test_init_module(reuse_test_t *t);
static const char *reuse_test_pool(reuse_test_t *t);
static ngx_int_t reuse_test_create(reuse_test_t *t, ngx_uint_t n,
    ngx_socket_t s);
static void reuse_test_cleanup(void *data);
static ngx_uint_t reuse_test_is_closed(reuse_test_t *t, ngx_uint_t n);
static ngx_uint_t reuse_test_is_timed(reuse_test_t *t, ngx_uint_t n);
static ngx_uint_t reuse_test_put(reuse_test_t *t, ngx_uint_t n);
static ngx_uint_t reuse_test_finds(reuse_test_t *t, ngx_uint_t n);
static ngx_uint_t reuse_test_lacks(reuse_test_t *t, ngx_uint_t n);
static ngx_int_t reuse_test_get(reuse_test_t *t, ngx_uint_t n);
static ngx_int_t reuse_test_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t reuse_test_get_peer(ngx_peer_connection_t *pc, void *data);
static void reuse_test_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);


static struct {
    const char  *directive;
    ngx_uint_t   value;
} reuse_test_settings[] = {
    { "keepalive", NGX_HTTP_UPSTREAM_REUSE_TEST_SIZE },
    { "keepalive_requests", NGX_HTTP_UPSTREAM_REUSE_TEST_REQUESTS },
    { "keepalive_time", NGX_HTTP_UPSTREAM_REUSE_TEST_TIME },
    { "keepalive_timeout", NGX_HTTP_UPSTREAM_REUSE_TEST_TIMEOUT },
    { NULL, 0 }
};


ngx_uint_t
ngx_http_upstream_reuse_is_sound(ngx_conf_t *cf)
{
    ngx_uint_t         nconnections;
    const char        *fault;
    ngx_connection_t  *connections;

    /* what is closed becomes a free connection of the cycle */

    connections = ngx_cycle->free_connections;
    nconnections = ngx_cycle->free_connection_n;

    fault = reuse_test_module(cf);

    ngx_cycle->free_connections = connections;
    ngx_cycle->free_connection_n = nconnections;

    if (fault == NULL) {
        return 1;
    }

    ngx_http_upstream_reuse_complain(cf,
        "no connection to an origin is kept, as with \"reuse off\": in this "
        "nginx ngx_http_upstream_keepalive_module %s, and the reuse layer "
        "would not be safe with it; use a version of nginx that "
        "docs/compatibility.md names", fault);

    return 0;
}


/* Returns what is wrong, or NULL. */

static const char *
reuse_test_module(ngx_conf_t *cf)
{
    ngx_uint_t      i;
    const char     *fault;
    ngx_socket_t    s;
    reuse_test_t   *t;

    t = ngx_pcalloc(cf->temp_pool, sizeof(reuse_test_t));
    if (t == NULL) {
        return "could not be tested for want of memory";
    }

    t->cf = cf;
    t->module = ngx_http_upstream_reuse_find_keepalive(cf);

    if (t->module == NULL) {

        /* there is a warning where it would be needed */

        return NULL;
    }

    fault = reuse_test_directives(t);

    if (fault == NULL) {
        fault = reuse_test_init(t);
    }

    if (fault) {
        return fault;
    }

    s = ngx_socket(AF_INET, SOCK_STREAM, 0);
    if (s == (ngx_socket_t) -1) {
        return "could not be tested for want of a socket";
    }

    fault = NULL;

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_TEST_KEYS; i++) {
        if (reuse_test_create(t, i, s) != NGX_OK) {
            fault = "could not be tested for want of memory";
            break;
        }
    }

    if (fault == NULL) {
        fault = reuse_test_pool(t);
    }

    while (i--) {

        /* whoever closes a connection frees its pool */

        if (!t->connections[i].freed) {
            if (t->connections[i].read.timer_set) {
                ngx_del_timer(&t->connections[i].read);
            }

            ngx_destroy_pool(t->connections[i].connection.pool);
        }
    }

    if (ngx_close_socket(s) == -1) {
        ngx_log_error(NGX_LOG_ALERT, cf->log, ngx_socket_errno,
                      ngx_close_socket_n " failed");
    }

    return fault;
}


/* Directives are carried out, and their values stand where they are read. */

static const char *
reuse_test_directives(reuse_test_t *t)
{
    void                                **srv_conf;
    ngx_uint_t                            i;
    const char                           *fault;
    ngx_conf_t                           *cf;
    ngx_http_module_t                    *module;
    ngx_http_upstream_reuse_srv_conf_t    rcf;

    cf = t->cf;
    module = t->module->ctx;

    srv_conf = ngx_pcalloc(cf->temp_pool,
                           sizeof(void *) * ngx_http_max_module);
    if (srv_conf == NULL) {
        return "could not be tested for want of memory";
    }

    if (module->create_srv_conf == NULL) {
        return "has nothing of its own in an upstream";
    }

    t->conf = module->create_srv_conf(cf);
    if (t->conf == NULL) {
        return "could not be tested for want of memory";
    }

    srv_conf[t->module->ctx_index] = t->conf;
    srv_conf[ngx_http_upstream_module.ctx_index] = &t->uscf;

    t->uscf.srv_conf = srv_conf;
    t->uscf.peer.init_upstream = reuse_test_init_upstream;
    ngx_str_set(&t->uscf.host, "self-test");

    for (i = 0; reuse_test_settings[i].directive; i++) {
        fault = reuse_test_set(t, reuse_test_settings[i].directive,
                               reuse_test_settings[i].value);
        if (fault) {
            return fault;
        }
    }

    ngx_memzero(&rcf, sizeof(ngx_http_upstream_reuse_srv_conf_t));

    ngx_http_upstream_reuse_read_keepalive(cf, &t->uscf, &rcf);

    if (rcf.size && rcf.size != NGX_HTTP_UPSTREAM_REUSE_TEST_SIZE) {
        return "has its size elsewhere";
    }

    if ((rcf.max_requests != NGX_CONF_UNSET_UINT
         && rcf.max_requests != NGX_HTTP_UPSTREAM_REUSE_TEST_REQUESTS)
        || (rcf.max_time != NGX_CONF_UNSET_MSEC
            && rcf.max_time != NGX_HTTP_UPSTREAM_REUSE_TEST_TIME * 1000)
        || (rcf.timeout != NGX_HTTP_UPSTREAM_REUSE_TIMEOUT
            && rcf.timeout != NGX_HTTP_UPSTREAM_REUSE_TEST_TIMEOUT * 1000))
    {
        return "has its limits elsewhere";
    }

    t->timeout = rcf.timeout;

    return NULL;
}


static const char *
reuse_test_set(reuse_test_t *t, const char *directive, ngx_uint_t value)
{
    void    *conf;
    u_char   text[NGX_INT_T_LEN + 1];

    if (ngx_http_upstream_reuse_find_directive(t->cf, &t->uscf, directive,
                                               &conf)
        == NULL)
    {
        /* nobody will rely on it */

        return NULL;
    }

    (void) ngx_sprintf(text, "%ui%Z", value);

    return ngx_http_upstream_reuse_carry_out(t->cf, &t->uscf, directive,
                                             (char *) text)
           == NGX_CONF_OK
           ? NULL : "refuses its directives";
}


/* The module stands before the balancer, as it does in any upstream. */

static const char *
reuse_test_init(reuse_test_t *t)
{
    if (t->uscf.peer.init_upstream(t->cf, &t->uscf) != NGX_OK
        || reuse_test_init_module(t) != NGX_OK)
    {
        return "does not initialise an upstream";
    }

    if (t->uscf.peer.init == reuse_test_init_peer) {
        return "makes no pool";
    }

    return NULL;
}


static ngx_int_t
reuse_test_init_upstream(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    us->peer.init = reuse_test_init_peer;

    return NGX_OK;
}


/*
 * From nginx 1.29.7 on the module goes through all upstreams at last: it gets
 * a list that has this one only.
 */

static ngx_int_t
reuse_test_init_module(reuse_test_t *t)
{
    char                            *rv;
    void                           **main_conf, *ctx;
    ngx_conf_t                      *cf;
    ngx_http_module_t               *module;
    ngx_http_conf_ctx_t              own;
    ngx_http_upstream_srv_conf_t    *uscf;
    ngx_http_upstream_main_conf_t   *umcf;

    cf = t->cf;
    module = t->module->ctx;

    if (module->init_main_conf == NULL) {
        return NGX_OK;
    }

    main_conf = ngx_palloc(cf->temp_pool,
                           sizeof(void *) * ngx_http_max_module);
    umcf = ngx_pcalloc(cf->temp_pool, sizeof(ngx_http_upstream_main_conf_t));

    if (main_conf == NULL || umcf == NULL) {
        return NGX_ERROR;
    }

    uscf = &t->uscf;

    umcf->upstreams.elts = &uscf;
    umcf->upstreams.nelts = 1;

    own = *(ngx_http_conf_ctx_t *) cf->ctx;

    ngx_memcpy(main_conf, own.main_conf, sizeof(void *) * ngx_http_max_module);
    main_conf[ngx_http_upstream_module.ctx_index] = umcf;
    own.main_conf = main_conf;

    ctx = cf->ctx;
    cf->ctx = &own;

    rv = module->init_main_conf(cf, main_conf[t->module->ctx_index]);

    cf->ctx = ctx;

    return (rv == NGX_CONF_OK) ? NGX_OK : NGX_ERROR;
}


static const char *
reuse_test_pool(reuse_test_t *t)
{
    if (!reuse_test_put(t, 0)) {
        return "does not keep a connection";
    }

    if (!reuse_test_is_timed(t, 0)) {
        return "does not end an idle connection when its time is over";
    }

    if (!reuse_test_lacks(t, 1)) {
        return "gives a connection to whom it does not belong";
    }

    if (!reuse_test_put(t, 1)
        || !reuse_test_finds(t, 0)
        || !reuse_test_put(t, 0))
    {
        return "does not find a connection that it keeps";
    }

    /* it is full, and the other one is older */

    if (!reuse_test_put(t, 2)
        || !reuse_test_is_closed(t, 1)
        || reuse_test_is_closed(t, 0))
    {
        return "does not make room for a connection";
    }

    ngx_http_upstream_reuse_pool_remove(&t->connections[0].connection);

    if (!reuse_test_is_closed(t, 0)) {
        return "does not close a connection when it is told to";
    }

    /* while its cleanups run, its socket can still be asked and given away */

    if (!t->connections[0].open || !t->connections[1].open) {
        return "closes the socket of a connection before its cleanups run";
    }

    if (!reuse_test_lacks(t, 0)) {
        return "gives away a connection that it has closed";
    }

    if (!reuse_test_finds(t, 2)) {
        return "loses a connection when it closes another";
    }

    return NULL;
}


static ngx_int_t
reuse_test_create(reuse_test_t *t, ngx_uint_t n, ngx_socket_t s)
{
    u_char                   *key;
    ngx_connection_t         *c;
    ngx_pool_cleanup_t       *cln;
    reuse_test_connection_t  *tc;

    if (ngx_event_timer_rbtree.sentinel == NULL) {

        /* idle connections have timers; in a worker it is done again */

        (void) ngx_event_timer_init(t->cf->log);
    }

    key = (u_char *) &t->keys[n];

#if !(NGX_HTTP_MYPROXY_TWO_STEPS)
    t->keys[n].sockaddr.sa_family = AF_INET;
#endif

    key[sizeof(ngx_sockaddr_t) - 1] = (u_char) (n + 1);

    tc = &t->connections[n];
    c = &tc->connection;

    c->pool = ngx_create_pool(NGX_MIN_POOL_SIZE, t->cf->log);
    if (c->pool == NULL) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(c->pool, 0);
    if (cln == NULL) {
        ngx_destroy_pool(c->pool);
        return NGX_ERROR;
    }

    cln->handler = reuse_test_cleanup;
    cln->data = tc;

    c->fd = s;
    c->shared = 1;  /* nobody may close the socket, or ask for its events */
    c->log = t->cf->log;
    c->read = &tc->read;
    c->write = &tc->write;
    c->requests = 1;
    c->start_time = ngx_current_msec;

    tc->read.data = c;
    tc->read.log = c->log;
    tc->read.active = 1;
    tc->write.data = c;
    tc->write.log = c->log;
    tc->write.active = 1;
    tc->write.write = 1;

    return NGX_OK;
}


static void
reuse_test_cleanup(void *data)
{
    reuse_test_connection_t  *tc = data;

    tc->freed = 1;
    tc->open = (tc->connection.fd != (ngx_socket_t) -1);
}


static ngx_uint_t
reuse_test_is_closed(reuse_test_t *t, ngx_uint_t n)
{
    return t->connections[n].freed
           && t->connections[n].connection.fd == (ngx_socket_t) -1;
}


/* The timer is that of reading, where the layer may have it end earlier. */

static ngx_uint_t
reuse_test_is_timed(reuse_test_t *t, ngx_uint_t n)
{
    ngx_event_t  *rev;

    rev = &t->connections[n].read;

    return rev->timer_set
           && rev->timer.key - ngx_current_msec == t->timeout;
}


/*
 * A request finds no connection, has one opened, or has the one that it was
 * given before, and gives it to the pool.
 */

static ngx_uint_t
reuse_test_put(reuse_test_t *t, ngx_uint_t n)
{
    ngx_connection_t       *c;
    ngx_peer_connection_t  *pc;

    c = &t->connections[n].connection;
    pc = &t->upstream.peer;

    if (pc->connection != c) {
        if (reuse_test_get(t, n) != NGX_OK || pc->connection) {
            return 0;
        }

        pc->connection = c;
    }

    t->upstream.keepalive = 1;
    t->upstream.request_body_sent = 1;
    t->given_back = 0;

    pc->free(pc, pc->data, 0);

#if (NGX_HTTP_MYPROXY_TWO_STEPS)
    pc->close(pc, pc->data, 0);
#endif

    return pc->connection == NULL
           && t->given_back == 1
           && c->idle
           && c->read->handler
           && !t->connections[n].freed;
}


static ngx_uint_t
reuse_test_finds(reuse_test_t *t, ngx_uint_t n)
{
    ngx_connection_t       *c;
    ngx_peer_connection_t  *pc;

    c = &t->connections[n].connection;
    pc = &t->upstream.peer;

    return reuse_test_get(t, n) == NGX_DONE
           && pc->connection == c
           && pc->cached
           && !c->idle
           && !c->read->timer_set
           && !t->connections[n].freed;
}


static ngx_uint_t
reuse_test_lacks(reuse_test_t *t, ngx_uint_t n)
{
    ngx_int_t               rc;
    ngx_peer_connection_t  *pc;

    pc = &t->upstream.peer;

    rc = reuse_test_get(t, n);

    return rc == NGX_OK && pc->connection == NULL;
}


/* A new request asks for a connection with that key. */

static ngx_int_t
reuse_test_get(reuse_test_t *t, ngx_uint_t n)
{
    ngx_http_request_t     *r;
    ngx_peer_connection_t  *pc;

    r = &t->request;
    pc = &t->upstream.peer;

    ngx_memzero(r, sizeof(ngx_http_request_t));
    ngx_memzero(&t->upstream, sizeof(ngx_http_upstream_t));

    t->client.log = t->cf->log;
    t->client.pool = t->cf->temp_pool;

    r->connection = &t->client;
    r->pool = t->cf->temp_pool;
    r->main = r;
    r->upstream = &t->upstream;

    t->upstream.conf = &t->settings;
    t->upstream.upstream = &t->uscf;

    pc->log = t->cf->log;
    pc->data = t;
#if (NGX_HTTP_MYPROXY_TWO_STEPS)
    pc->ctx = r;
#endif

    t->key = &t->keys[n];

    if (t->uscf.peer.init(r, &t->uscf) != NGX_OK) {
        return NGX_ERROR;
    }

#if (NGX_HTTP_MYPROXY_TWO_STEPS)

    if (pc->connect == NULL
        || pc->close == NULL
        || pc->get(pc, pc->data) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_upstream_reuse_ask_pool(pc, pc->connect);

#else

    if (pc->get == reuse_test_get_peer) {
        return NGX_ERROR;
    }

    return pc->get(pc, pc->data);

#endif
}


/* The balancer below the module. */

static ngx_int_t
reuse_test_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_peer_connection_t  *pc;

    pc = &r->upstream->peer;

    pc->get = reuse_test_get_peer;
    pc->free = reuse_test_free_peer;

    return NGX_OK;
}


static ngx_int_t
reuse_test_get_peer(ngx_peer_connection_t *pc, void *data)
{
    reuse_test_t  *t = data;

    pc->sockaddr = &t->key->sockaddr;
    pc->socklen = sizeof(ngx_sockaddr_t);
    pc->connection = NULL;
    pc->cached = 0;

    return NGX_OK;
}


static void
reuse_test_free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    reuse_test_t  *t = data;

    t->given_back++;
}
