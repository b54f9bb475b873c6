
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Where a pass has variables and they name no upstream of the configuration,
 * core would connect to the address or resolve the name on its own, without
 * an upstream and so without a pool.  There is one upstream for all these
 * requests, which takes the addresses from the request.
 *
 * A name that the resolver does not know yet is left to core, which waits for
 * the answer and for the client.  With the answer the initialisation of the
 * request starts anew, this time in our upstream:
 *
 *     core                             here
 *
 *     looks into the cache
 *     create_request             ->    asks the resolver: it has to wait
 *     asks the resolver, too
 *                                      wait_handler takes core's place there
 *                                      answer_handler gets the answer
 *     ngx_http_upstream_init()   <-    and starts over
 *     create_request             ->    gives the same request
 *     the upstream's peer.init   ->    init_peer
 */


#include "ngx_http_myproxy_module.h"
#include "ngx_http_upstream_reuse_module.h"


/* the question that is asked before core asks it */

typedef struct {
    ngx_http_request_t             *request;
    ngx_int_t                       rc;  /* NGX_AGAIN: no answer so far */
} ngx_http_myproxy_question_t;


/* request: of one that waits for the resolver */

struct ngx_http_myproxy_wait_s {
    ngx_event_t                     event;    /* posted */
    ngx_http_request_t             *request;
    ngx_http_upstream_t            *upstream;
    ngx_resolver_handler_pt         handler;  /* core's */

    /* what is to be as it was, when core has started over */

    ngx_http_upstream_conf_t       *conf;
    ngx_http_upstream_conf_t        uncached;
    ngx_chain_t                    *request_bufs;
    ngx_msec_t                      timer;    /* of the client's connection */
    unsigned                        timer_set:1;
};


static ngx_int_t init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);

static ngx_uint_t is_upstream(ngx_http_request_t *r,
    ngx_http_upstream_resolved_t *resolved);
static ngx_int_t ask(ngx_http_request_t *r,
    ngx_http_upstream_resolved_t *resolved);
static void question_handler(ngx_resolver_ctx_t *rctx);
static ngx_int_t copy_addresses(ngx_http_request_t *r,
    ngx_resolver_ctx_t *rctx);

static ngx_int_t wait_for_answer(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx);
static void wait_cleanup(void *data);
static void wait_handler(ngx_event_t *ev);
static void answer_handler(ngx_resolver_ctx_t *rctx);
static void start_over(ngx_http_request_t *r, ngx_http_myproxy_wait_t *wait);


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

    if (ngx_http_upstream_reuse_ask_open(cf, uscf) != NGX_OK) {
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
    ngx_http_myproxy_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

#if (NGX_HTTP_SSL)
    r->upstream->ssl_name = ctx->resolved->host;
#endif

    return ngx_http_upstream_create_round_robin_peer(r, ctx->resolved);
}


ngx_int_t
ngx_http_myproxy_use_pool(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx)
{
    ngx_int_t                      rc;
    ngx_http_upstream_t           *u;
    ngx_http_upstream_resolved_t  *resolved;

    u = r->upstream;
    resolved = u->resolved;

    if (u->conf->upstream->srv_conf == NULL) {

        /* "reuse off" */

        return NGX_OK;
    }

    if (is_upstream(r, resolved)) {
        return NGX_OK;
    }

    if (resolved->sockaddr == NULL) {

        rc = ask(r, resolved);

        if (rc == NGX_AGAIN) {
            return wait_for_answer(r, ctx);
        }

        if (rc != NGX_OK) {

            /* core will say what is wrong */

            return NGX_OK;
        }

    } else if (resolved->port == 0
               && resolved->sockaddr->sa_family != AF_UNIX)
    {
        return NGX_OK;
    }

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


/*
 * Takes the addresses if the resolver has them.  NGX_AGAIN: it has begun to
 * ask.  The question stays, so that core's joins it and is not sent, too; it
 * ends by itself and refers to the request no more.  NGX_DECLINED: there is
 * no resolver, no such name or no memory.
 */

static ngx_int_t
ask(ngx_http_request_t *r, ngx_http_upstream_resolved_t *resolved)
{
    ngx_resolver_ctx_t           *rctx, temp;
    ngx_http_core_loc_conf_t     *clcf;
    ngx_http_myproxy_question_t   question;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    temp.name = resolved->host;

    rctx = ngx_resolve_start(clcf->resolver, &temp);

    if (rctx == NULL || rctx == NGX_NO_RESOLVER) {
        return NGX_DECLINED;
    }

    question.request = r;
    question.rc = NGX_AGAIN;

    rctx->name = resolved->host;
    rctx->handler = question_handler;
    rctx->data = &question;
    rctx->timeout = clcf->resolver_timeout;
    rctx->cancelable = 1;

    if (ngx_resolve_name(rctx) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (question.rc == NGX_AGAIN) {
        rctx->data = NULL;
    }

    return question.rc;
}


static void
question_handler(ngx_resolver_ctx_t *rctx)
{
    ngx_http_myproxy_question_t  *question = rctx->data;

    if (question) {
        question->rc = rctx->state ? NGX_DECLINED
                                   : copy_addresses(question->request, rctx);
    }

    ngx_resolve_name_done(rctx);
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


static ngx_int_t
wait_for_answer(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx)
{
    ngx_http_cleanup_t       *cln;
    ngx_http_myproxy_wait_t  *wait;

    cln = ngx_http_cleanup_add(r, sizeof(ngx_http_myproxy_wait_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    wait = cln->data;

    ngx_memzero(wait, sizeof(ngx_http_myproxy_wait_t));

    wait->request = r;
    wait->upstream = r->upstream;

    wait->event.handler = wait_handler;
    wait->event.data = wait;
    wait->event.log = r->connection->log;

    cln->handler = wait_cleanup;

    ctx->wait = wait;

    /* core's question is not there before we return */

    ngx_post_event(&wait->event, &ngx_posted_events);

    return NGX_OK;
}


static void
wait_cleanup(void *data)
{
    ngx_http_myproxy_wait_t  *wait = data;

    if (wait->event.posted) {
        ngx_delete_posted_event(&wait->event);
    }
}


static void
wait_handler(ngx_event_t *ev)
{
    ngx_http_myproxy_wait_t  *wait = ev->data;

    ngx_resolver_ctx_t            *rctx;
    ngx_http_upstream_resolved_t  *resolved;

    resolved = wait->upstream->resolved;
    rctx = resolved ? resolved->ctx : NULL;

    if (rctx == NULL) {

        /* it was answered at once, or given up */

        return;
    }

    wait->handler = rctx->handler;

    rctx->handler = answer_handler;
    rctx->data = wait;
}


static void
answer_handler(ngx_resolver_ctx_t *rctx)
{
    ngx_http_myproxy_wait_t  *wait = rctx->data;

    ngx_connection_t        *c;
    ngx_http_request_t      *r;
    ngx_http_upstream_t     *u;
    ngx_http_myproxy_ctx_t  *ctx;

    r = wait->request;
    u = wait->upstream;

    rctx->handler = wait->handler;
    rctx->data = r;

    if (rctx->state || copy_addresses(r, rctx) != NGX_OK) {
        rctx->handler(rctx);
        return;
    }

    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "myproxy: \"%V\" has %ui addresses", &rctx->name,
                   rctx->naddrs);

    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    ngx_resolve_name_done(rctx);
    u->resolved->ctx = NULL;

    ctx->resolved = u->resolved;
    u->resolved = NULL;

    start_over(r, wait);

    ngx_http_run_posted_requests(c);
}


/*
 * Of what core has done before it asked the resolver, only that is taken back
 * which must not be there twice.  It would look into the cache again: the
 * answer from there is known, and what was found stays in r->cache.
 */

static void
start_over(ngx_http_request_t *r, ngx_http_myproxy_wait_t *wait)
{
    ngx_event_t          *rev;
    ngx_http_upstream_t  *u;

    u = r->upstream;

    *u->cleanup = NULL;
    u->cleanup = NULL;

    if (u->state) {
        r->upstream_states->nelts--;
        u->state = NULL;

    } else {
        r->upstream_states = NULL;
    }

    wait->request_bufs = u->request_bufs;
    wait->conf = u->conf;

    wait->uncached = *u->conf;
    wait->uncached.store = u->store;
#if (NGX_HTTP_CACHE)
    wait->uncached.cache = 0;
#endif

    u->conf = &wait->uncached;

    /* not of this request, whose own ended when it came here first */

    rev = r->connection->read;

    wait->timer_set = rev->timer_set;
    wait->timer = rev->timer.key;

    ngx_http_upstream_init(r);
}


void
ngx_http_myproxy_resume(ngx_http_request_t *r, ngx_http_myproxy_wait_t *wait)
{
    ngx_event_t          *rev;
    ngx_msec_int_t        timer;
    ngx_http_upstream_t  *u;

    u = r->upstream;

    u->conf = wait->conf;
    u->request_bufs = wait->request_bufs;

    if (wait->timer_set) {
        rev = r->connection->read;
        timer = (ngx_msec_int_t) (wait->timer - ngx_current_msec);

        ngx_add_timer(rev, ngx_max(timer, 1));
    }
}
