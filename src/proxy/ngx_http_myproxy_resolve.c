
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Where a pass has variables and they name no upstream of the configuration,
 * core would connect to the address or resolve the name on its own, without
 * an upstream and so without a pool.  There is one upstream for all these
 * requests, which takes the addresses from the request.
 *
 * The name is resolved before core begins, while the client is watched.  Where
 * core is going to look into the cache first, an answer from there must not
 * wait: the resolver is asked afterwards, and unless it knows the answer it is
 * left to core, which has no pool.
 */


#include "ngx_http_myproxy_module.h"
#include "ngx_http_upstream_reuse_module.h"


/* request: what the resolver is asked */

typedef struct {
    ngx_http_request_t             *request;
    ngx_resolver_ctx_t             *ctx;  /* NULL: it has answered */
    ngx_int_t                       rc;   /* as below */

    unsigned                        waits:1;  /* the request does */
} ngx_http_myproxy_question_t;


static ngx_int_t init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t get_peer(ngx_peer_connection_t *pc, void *data);

static ngx_uint_t may_be_cached(ngx_http_request_t *r);
static ngx_int_t find_addresses(ngx_http_request_t *r,
    ngx_http_myproxy_question_t *question);
static ngx_uint_t is_upstream(ngx_http_request_t *r,
    ngx_http_upstream_resolved_t *resolved);
static ngx_int_t ask(ngx_http_request_t *r,
    ngx_http_upstream_resolved_t *resolved,
    ngx_http_myproxy_question_t *question);
static void answer_handler(ngx_resolver_ctx_t *rctx);
static ngx_int_t copy_addresses(ngx_http_request_t *r,
    ngx_resolver_ctx_t *rctx);
static void question_cleanup(void *data);
static void watch_client(ngx_http_request_t *r);
static ngx_uint_t is_stream(ngx_http_request_t *r);
static void begin(ngx_http_request_t *r, ngx_int_t rc);


ngx_http_upstream_srv_conf_t *
ngx_http_myproxy_add_targets(ngx_conf_t *cf)
{
    ngx_http_myproxy_main_conf_t    *mmcf;
    ngx_http_upstream_srv_conf_t    *uscf, **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    mmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_myproxy_module);

    if (mmcf->targets) {
        return mmcf->targets;
    }

    uscf = ngx_pcalloc(cf->pool, sizeof(ngx_http_upstream_srv_conf_t));
    if (uscf == NULL) {
        return NULL;
    }

    ngx_str_set(&uscf->host, "variable targets");
    uscf->file_name = cf->conf_file->file.name.data;
    uscf->line = cf->conf_file->line;
    uscf->no_port = 1;
    uscf->peer.init_upstream = init_upstream;

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);

    uscfp = ngx_array_push(&umcf->upstreams);
    if (uscfp == NULL) {
        return NULL;
    }

    *uscfp = uscf;

    if (ngx_http_upstream_reuse_ask_unbounded(cf, uscf) != NGX_OK) {
        return NULL;
    }

    mmcf->targets = uscf;

    return uscf;
}


static ngx_int_t
init_upstream(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    /* no URL has an empty host, and so none can name this upstream */

    us->host.len = 0;

    us->peer.init = init_peer;

    return NGX_OK;
}


static ngx_int_t
init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_myproxy_ctx_t        *ctx;
    ngx_http_upstream_resolved_t  *resolved;

    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);
    resolved = ctx->resolved;

    if (ctx->resolver_error) {

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "%V could not be resolved (%i: %s)", &resolved->host,
                      ctx->resolver_error,
                      ngx_resolver_strerror(ctx->resolver_error));

        r->upstream->peer.get = get_peer;
        r->upstream->peer.name = &resolved->host;

        return NGX_OK;
    }

#if (NGX_HTTP_SSL)
    r->upstream->ssl_name = resolved->host;
#endif

    ngx_http_upstream_reuse_set_target(r, ctx->target_name);

    return ngx_http_upstream_create_round_robin_peer(r, resolved);
}


/* There is none, and there are no tries left. */

static ngx_int_t
get_peer(ngx_peer_connection_t *pc, void *data)
{
    return NGX_DECLINED;
}


void
ngx_http_myproxy_begin(ngx_http_request_t *r)
{
    ngx_int_t                     rc;
    ngx_http_cleanup_t           *cln;
    ngx_http_myproxy_question_t  *question;

    if (r->upstream->resolved == NULL || may_be_cached(r)) {
        ngx_http_upstream_init(r);
        return;
    }

    cln = ngx_http_cleanup_add(r, sizeof(ngx_http_myproxy_question_t));
    if (cln == NULL) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    question = cln->data;
    cln->handler = question_cleanup;

    rc = find_addresses(r, question);

    if (rc == NGX_AGAIN) {
        question->waits = 1;
        watch_client(r);
        return;
    }

    begin(r, rc);
}


void
ngx_http_myproxy_use_pool(ngx_http_request_t *r)
{
    ngx_http_myproxy_question_t  question;

    if (may_be_cached(r) && find_addresses(r, &question) == NGX_AGAIN) {

        /* core's question joins it; it ends without the request */

        question.ctx->data = NULL;
    }
}


/* as core decides whether it looks into the cache */

static ngx_uint_t
may_be_cached(ngx_http_request_t *r)
{
#if (NGX_HTTP_CACHE)

    return r->upstream->conf->cache
           && (r->method & r->upstream->conf->cache_methods);

#else

    return 0;

#endif
}


/*
 * Has core take the upstream of this file in place of u->resolved, if
 * that names no other.  NGX_OK: it has the addresses, or the resolver's error;
 * NGX_AGAIN: the resolver has to be waited for; NGX_DECLINED: core will say
 * what is wrong, or has to do it as it is used to.
 */

static ngx_int_t
find_addresses(ngx_http_request_t *r, ngx_http_myproxy_question_t *question)
{
    ngx_int_t                      rc;
    ngx_http_upstream_t           *u;
    ngx_http_myproxy_ctx_t        *ctx;
    ngx_http_upstream_resolved_t  *resolved;

    ngx_memzero(question, sizeof(ngx_http_myproxy_question_t));

    u = r->upstream;
    resolved = u->resolved;

    /* "reuse off" has no pool */

    if (u->conf->upstream->srv_conf == NULL || is_upstream(r, resolved)) {
        return NGX_DECLINED;
    }

    if (resolved->sockaddr == NULL) {

        rc = ask(r, resolved, question);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    ctx->resolved = resolved;
    u->resolved = NULL;

    return NGX_OK;
}


/* as core looks for it */

static ngx_uint_t
is_upstream(ngx_http_request_t *r, ngx_http_upstream_resolved_t *resolved)
{
    ngx_str_t                       *host;
    ngx_uint_t                       i;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    umcf = ngx_http_get_module_main_conf(r, ngx_http_upstream_module);

    uscfp = umcf->upstreams.elts;
    host = &resolved->host;

    for (i = 0; i < umcf->upstreams.nelts; i++) {

        if (uscfp[i]->host.len == host->len
            && (uscfp[i]->port == resolved->port
                || (uscfp[i]->port == 0 && resolved->no_port))
            && ngx_strncasecmp(uscfp[i]->host.data, host->data, host->len)
               == 0)
        {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ask(ngx_http_request_t *r, ngx_http_upstream_resolved_t *resolved,
    ngx_http_myproxy_question_t *question)
{
    ngx_resolver_ctx_t        *rctx, temp;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    temp.name = resolved->host;

    rctx = ngx_resolve_start(clcf->resolver, &temp);

    if (rctx == NULL || rctx == NGX_NO_RESOLVER) {
        return NGX_DECLINED;
    }

    question->request = r;
    question->ctx = rctx;
    question->rc = NGX_AGAIN;

    rctx->name = resolved->host;
    rctx->handler = answer_handler;
    rctx->data = question;
    rctx->timeout = clcf->resolver_timeout;

    /* no worker that ends waits for an answer that goes to core, too */

    rctx->cancelable = may_be_cached(r);

    if (ngx_resolve_name(rctx) != NGX_OK) {
        question->ctx = NULL;
        return NGX_DECLINED;
    }

    return question->rc;
}


static void
answer_handler(ngx_resolver_ctx_t *rctx)
{
    ngx_http_myproxy_question_t  *question = rctx->data;

    ngx_int_t                rc;
    ngx_connection_t        *c;
    ngx_http_request_t      *r;
    ngx_http_upstream_t     *u;
    ngx_http_myproxy_ctx_t  *ctx;

    if (question == NULL) {
        ngx_resolve_name_done(rctx);
        return;
    }

    r = question->request;
    c = r->connection;
    u = r->upstream;
    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    rc = NGX_OK;

    if (rctx->state == 0) {
        ctx->target_name = ngx_http_upstream_reuse_note_answer(rctx);
        rc = copy_addresses(r, rctx);

    } else if (may_be_cached(r)) {

        /* core asks the same, and says what is wrong */

        rc = NGX_DECLINED;

    } else {
        ctx->resolver_error = rctx->state;
    }

    ngx_resolve_name_done(rctx);

    question->ctx = NULL;
    question->rc = rc;

    if (!question->waits) {
        return;
    }

    ngx_http_set_log_request(c->log, r);

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "myproxy: \"%V\" is resolved", &u->resolved->host);

    if (rc == NGX_OK) {
        ctx->resolved = u->resolved;
        u->resolved = NULL;
    }

    if (c->read->timer_set && !is_stream(r)) {

        /* set while it has waited: another request reads the client's body */

        ctx->body_timer = c->read->timer.key;
    }

    begin(r, rc);

    ngx_http_run_posted_requests(c);
}


static ngx_int_t
copy_addresses(ngx_http_request_t *r, ngx_resolver_ctx_t *rctx)
{
    ngx_uint_t                     i;
    ngx_resolver_addr_t           *addrs;
    ngx_http_upstream_resolved_t  *resolved;

    addrs = ngx_pcalloc(r->pool, rctx->naddrs * sizeof(ngx_resolver_addr_t));
    if (addrs == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < rctx->naddrs; i++) {

        addrs[i].socklen = rctx->addrs[i].socklen;

        addrs[i].sockaddr = ngx_palloc(r->pool, addrs[i].socklen);
        if (addrs[i].sockaddr == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(addrs[i].sockaddr, rctx->addrs[i].sockaddr,
                   addrs[i].socklen);
    }

    resolved = r->upstream->resolved;

    resolved->naddrs = rctx->naddrs;
    resolved->addrs = addrs;

    return NGX_OK;
}


static void
question_cleanup(void *data)
{
    ngx_http_myproxy_question_t  *question = data;

    if (question->ctx) {
        ngx_resolve_name_done(question->ctx);
        question->ctx = NULL;
    }
}


/* As core does it while it has a request. */

static void
watch_client(ngx_http_request_t *r)
{
    ngx_event_t          *rev;
    ngx_http_upstream_t  *u;

    u = r->upstream;
    rev = r->connection->read;

    if (rev->timer_set && !is_stream(r)) {
        ngx_del_timer(rev);
    }

    if (u->conf->store || r->post_action || u->conf->ignore_client_abort) {
        return;
    }

    r->read_event_handler = ngx_http_test_reading;
}


/* In HTTP/2 and HTTP/3 the timer is that of all streams. */

static ngx_uint_t
is_stream(ngx_http_request_t *r)
{
#if (NGX_HTTP_V2)

    if (r->stream) {
        return 1;
    }

#endif

#if (NGX_HTTP_V3)

    if (r->connection->quic) {
        return 1;
    }

#endif

    return 0;
}


void
ngx_http_myproxy_restore_timer(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx)
{
    ngx_msec_int_t  timer;

    timer = (ngx_msec_int_t) (ctx->body_timer - ngx_current_msec);

    ngx_add_timer(r->connection->read, ngx_max(timer, 1));

    ctx->body_timer = 0;
}


static void
begin(ngx_http_request_t *r, ngx_int_t rc)
{
    if (rc == NGX_ERROR) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    ngx_http_upstream_init(r);
}
