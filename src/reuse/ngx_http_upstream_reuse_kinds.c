
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What connections are opened with before there is a request: the settings of
 * a location that has foreseen them, or those that a request has shown.
 */


#include "ngx_http_upstream_reuse.h"


/* bytes that the identity of a kind takes at first */
#define NGX_HTTP_UPSTREAM_REUSE_ROOM  512


static ngx_int_t reuse_foreseen_identity(
    ngx_http_upstream_reuse_foreseen_t *foreseen,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_identity_t *id);
static ngx_uint_t reuse_is_constant(ngx_http_upstream_conf_t *conf);
static ngx_uint_t reuse_may_be_silent(ngx_http_upstream_conf_t *conf,
    ngx_http_upstream_reuse_identity_t *id);
static ngx_http_upstream_reuse_kind_t *reuse_look_up(
    ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_identity_t *id, ngx_http_upstream_conf_t *conf);
static ngx_http_upstream_reuse_kind_t *reuse_add_kind(
    ngx_http_upstream_reuse_warm_t *warm, ngx_pool_t *pool);
static ngx_http_upstream_reuse_kind_t *reuse_find_idle_kind(
    ngx_http_upstream_reuse_warm_t *warm);
static ngx_int_t reuse_set_kind(ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_reuse_identity_t *id, ngx_http_upstream_conf_t *conf,
    ngx_http_conf_ctx_t *ctx, ngx_pool_t *pool);
static void reuse_set_opening(ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_srv_conf_t *uscf);


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


ngx_int_t
ngx_http_upstream_reuse_foresee_kinds(ngx_conf_t *cf,
    ngx_http_upstream_reuse_warm_t *warm)
{
    ngx_uint_t                            i;
    ngx_http_upstream_reuse_kind_t       *kind;
    ngx_http_upstream_reuse_identity_t    id;
    ngx_http_upstream_reuse_foreseen_t   *foreseen;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_upstream_reuse_module);

    foreseen = rmcf->foreseen.elts;

    for (i = 0; i < rmcf->foreseen.nelts; i++) {

        if (foreseen[i].conf->upstream != warm->uscf
            || reuse_foreseen_identity(&foreseen[i], warm->uscf, &id)
               != NGX_OK
            || reuse_look_up(warm, &id, foreseen[i].conf)
            || warm->nkinds == NGX_HTTP_UPSTREAM_REUSE_KINDS)
        {
            continue;
        }

        kind = reuse_add_kind(warm, cf->pool);

        if (kind == NULL
            || reuse_set_kind(kind, &id, foreseen[i].conf, &foreseen[i].ctx,
                              cf->pool)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        reuse_set_opening(kind, warm->uscf);
    }

    return NGX_OK;
}


/* NGX_DECLINED if it depends on the request. */

static ngx_int_t
reuse_foreseen_identity(ngx_http_upstream_reuse_foreseen_t *foreseen,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_identity_t *id)
{
    ngx_addr_t                *addr;
    ngx_http_upstream_conf_t  *conf;

    conf = foreseen->conf;

    ngx_memzero(id, sizeof(ngx_http_upstream_reuse_identity_t));

    if (!reuse_is_constant(conf)) {
        return NGX_DECLINED;
    }

    if (conf->local) {

        if (conf->local->value || conf->local->addr == NULL) {
            return NGX_DECLINED;
        }

        addr = conf->local->addr;

        id->local = addr->sockaddr;
        id->local_len = addr->socklen;
    }

#if (NGX_HTTP_SSL)

    if (conf->ssl == NULL) {
        return NGX_OK;
    }

    id->ssl = conf->ssl;
    id->checks = ngx_http_upstream_reuse_checks(conf);

    if (id->checks) {

        if (conf->ssl_name && conf->ssl_name->lengths) {
            return NGX_DECLINED;
        }

        id->name = conf->ssl_name ? conf->ssl_name->value : uscf->host;
    }

#endif

    return NGX_OK;
}


/* Tells whether what matters is known without a request, or by identity. */

static ngx_uint_t
reuse_is_constant(ngx_http_upstream_conf_t *conf)
{
#if (NGX_HAVE_TRANSPARENT_PROXY)

    if (conf->local && conf->local->transparent) {
        return 0;
    }

#endif

#if (NGX_HTTP_SSL)

    if (conf->ssl_certificate
        && (conf->ssl_certificate->lengths
            || (conf->ssl_certificate_key
                && conf->ssl_certificate_key->lengths)))
    {
        return 0;
    }

#endif

    return 1;
}


/*
 * Tells whether a connection may have nothing sent on it at first.  In HTTP/2
 * that is different, and of a protocol that we do not know it may be.
 */

static ngx_uint_t
reuse_may_be_silent(ngx_http_upstream_conf_t *conf,
    ngx_http_upstream_reuse_identity_t *id)
{
    ngx_str_t  *module;

    module = &conf->module;

    return id->create_request == NULL
           || (module->len == 7
               && ngx_strncmp(module->data, "fastcgi", 7) == 0)
           || (module->len == 9
               && ngx_strncmp(module->data, "memcached", 9) == 0);
}


ngx_http_upstream_reuse_kind_t *
ngx_http_upstream_reuse_find_kind(ngx_http_upstream_reuse_peer_t *rp)
{
    return reuse_look_up(rp->conf->warmth, rp->identity, rp->upstream->conf);
}


static ngx_http_upstream_reuse_kind_t *
reuse_look_up(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_identity_t *id, ngx_http_upstream_conf_t *conf)
{
    ngx_uint_t  i;

    for (i = 0; i < warm->nkinds; i++) {

        /* a pool of nginx 1.29.7 may be one for each location */

        if (NGX_HTTP_UPSTREAM_REUSE_NATIVE && !warm->conf->added
            && warm->kinds[i]->conf != conf)
        {
            continue;
        }

        if (ngx_http_upstream_reuse_same_identity(&warm->kinds[i]->identity,
                                                  id))
        {
            return warm->kinds[i];
        }
    }

    return NULL;
}


ngx_http_upstream_reuse_kind_t *
ngx_http_upstream_reuse_learn_kind(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_http_request_t              *r;
    ngx_http_conf_ctx_t              ctx;
    ngx_http_upstream_conf_t        *conf;
    ngx_http_upstream_reuse_kind_t  *kind;
    ngx_http_upstream_reuse_warm_t  *warm;

    r = rp->request;
    conf = rp->upstream->conf;
    warm = rp->conf->warmth;

    /* another request may have shown it meanwhile */

    kind = reuse_look_up(warm, rp->identity, conf);

    if (kind
        || !reuse_is_constant(conf)
        || !reuse_may_be_silent(conf, rp->identity))
    {
        return kind;
    }

    kind = reuse_find_idle_kind(warm);

    if (kind == NULL) {

        if (warm->nkinds == NGX_HTTP_UPSTREAM_REUSE_KINDS) {
            return NULL;
        }

        kind = reuse_add_kind(warm, rp->conf->main->pool);
        if (kind == NULL) {
            return NULL;
        }
    }

    ctx.main_conf = r->main_conf;
    ctx.srv_conf = r->srv_conf;
    ctx.loc_conf = r->loc_conf;

    kind->learned = 1;

    if (reuse_set_kind(kind, rp->identity, conf, &ctx,
                       rp->conf->main->pool)
        != NGX_OK)
    {
        return NULL;
    }

    reuse_set_opening(kind, warm->uscf);

    return kind;
}


/* Of a kind that is not known yet, nothing is opened and no request is. */

static ngx_http_upstream_reuse_kind_t *
reuse_add_kind(ngx_http_upstream_reuse_warm_t *warm, ngx_pool_t *pool)
{
    ngx_http_upstream_reuse_kind_t  *kind;

    kind = ngx_pcalloc(pool, sizeof(ngx_http_upstream_reuse_kind_t));
    if (kind == NULL) {
        return NULL;
    }

    kind->room = NGX_HTTP_UPSTREAM_REUSE_ROOM;

    kind->bytes = ngx_palloc(pool, kind->room);
    if (kind->bytes == NULL) {
        return NULL;
    }

    warm->kinds[warm->nkinds++] = kind;

    return kind;
}


/*
 * When all have been used up, the place of one that no connection is of and
 * none was of late: clients may bring along any number of names.
 */

static ngx_http_upstream_reuse_kind_t *
reuse_find_idle_kind(ngx_http_upstream_reuse_warm_t *warm)
{
    ngx_uint_t                       i;
    ngx_http_upstream_reuse_kind_t  *kind;

    if (warm->nkinds < NGX_HTTP_UPSTREAM_REUSE_KINDS) {
        return NULL;
    }

    for (i = 0; i < warm->nkinds; i++) {
        kind = warm->kinds[i];

        if (kind->learned && kind->unused == 0 && kind->used == 0
            && kind->peak == 0)
        {
            return kind;
        }
    }

    return NULL;
}


static ngx_int_t
reuse_set_kind(ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_reuse_identity_t *id, ngx_http_upstream_conf_t *conf,
    ngx_http_conf_ctx_t *ctx, ngx_pool_t *pool)
{
    size_t   size;
    u_char  *p, *text;

    size = ngx_http_upstream_reuse_identity_size(id);

    if (size + NGX_SOCKADDR_STRLEN > kind->room) {

        p = ngx_palloc(pool, size + NGX_SOCKADDR_STRLEN);
        if (p == NULL) {
            return NGX_ERROR;
        }

        kind->bytes = p;
        kind->room = size + NGX_SOCKADDR_STRLEN;
    }

    /* an address comes first, and has to be aligned */

    ngx_http_upstream_reuse_copy_identity(&kind->identity, id, kind->bytes);

    text = kind->bytes + size;

    kind->ctx = *ctx;
    kind->conf = conf;
    kind->seen = 0;
    kind->peak = 0;

    if (kind->identity.local) {
        kind->local.sockaddr = kind->identity.local;
        kind->local.socklen = kind->identity.local_len;
        kind->local.name.data = text;
        kind->local.name.len = ngx_sock_ntop(kind->identity.local,
                                             kind->identity.local_len, text,
                                             NGX_SOCKADDR_STRLEN, 1);
    }

    return NGX_OK;
}


/*
 * The settings without what is evaluated for a request, or is for one that
 * has a client; what the identity has stands for it.  The upstream may have
 * been found by variables.
 */

static void
reuse_set_opening(ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_http_upstream_conf_t  *conf;

    conf = &kind->opening;

    *conf = *kind->conf;

    conf->upstream = uscf;
    conf->local = NULL;
    conf->store = 0;
    conf->buffering = 0;
    conf->next_upstream = 0;
    conf->ignore_client_abort = 1;

#if (NGX_HTTP_CACHE)
    conf->cache = 0;
    conf->cache_zone = NULL;
    conf->cache_value = NULL;
#endif

#if (NGX_HTTP_SSL)
    conf->ssl_name = NULL;
#endif
}
