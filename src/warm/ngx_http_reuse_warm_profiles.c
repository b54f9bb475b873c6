
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What connections are opened with before there is a request: the settings of
 * a location that has foreseen them, or those that a request has shown.
 */


#include "ngx_http_reuse_warm.h"


/* bytes that the identity of a profile takes at first */
#define NGX_HTTP_REUSE_WARM_ROOM  512


static ngx_uint_t reuse_is_constant(ngx_http_upstream_conf_t *conf);
static ngx_uint_t reuse_may_be_silent(ngx_http_upstream_reuse_peer_t *rp);
static ngx_http_reuse_warm_profile_t *reuse_look_up(
    ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_identity_t *id, ngx_http_upstream_conf_t *conf);
static ngx_http_reuse_warm_profile_t *reuse_add_profile(
    ngx_http_reuse_warm_t *warm, ngx_pool_t *pool);
static ngx_http_reuse_warm_profile_t *reuse_find_idle_profile(
    ngx_http_reuse_warm_t *warm);
static ngx_int_t reuse_set_profile(ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_identity_t *id, ngx_http_upstream_conf_t *conf,
    ngx_http_conf_ctx_t *ctx, ngx_pool_t *pool);


ngx_int_t
ngx_http_reuse_warm_foresee_profiles(ngx_conf_t *cf,
    ngx_http_reuse_warm_t *warm)
{
    ngx_int_t                             rc;
    ngx_uint_t                            i;
    ngx_http_upstream_conf_t             *conf;
    ngx_http_reuse_warm_profile_t        *profile;
    ngx_http_upstream_reuse_identity_t   *id;
    ngx_http_upstream_reuse_foreseen_t   *foreseen;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_upstream_reuse_module);

    foreseen = rmcf->foreseen.elts;

    for (i = 0; i < rmcf->foreseen.nelts; i++) {

        conf = foreseen[i].conf;

        if (conf->upstream != warm->conf->uscf || !reuse_is_constant(conf)) {
            continue;
        }

        rc = ngx_http_upstream_reuse_foresee_identity(conf,
                                                      &conf->upstream->host,
                                                      cf->pool, &id);
        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_DECLINED
            || reuse_look_up(warm, id, conf)
            || warm->nprofiles == NGX_HTTP_REUSE_WARM_PROFILES)
        {
            continue;
        }

        profile = reuse_add_profile(warm, cf->pool);

        if (profile == NULL
            || reuse_set_profile(profile, id, conf, &foreseen[i].ctx, cf->pool)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

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
reuse_may_be_silent(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_str_t  *schema;

    /* core's memcached module names itself nowhere else */

    schema = &rp->upstream->schema;

    return rp->identity->create_request == NULL
           || (schema->len == 10
               && ngx_strncmp(schema->data, "fastcgi://", 10) == 0)
           || (schema->len == 12
               && ngx_strncmp(schema->data, "memcached://", 12) == 0);
}


ngx_http_reuse_warm_profile_t *
ngx_http_reuse_warm_find_profile(ngx_http_upstream_reuse_peer_t *rp)
{
    return reuse_look_up(rp->conf->warmth, rp->identity, rp->location);
}


static ngx_http_reuse_warm_profile_t *
reuse_look_up(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_identity_t *id, ngx_http_upstream_conf_t *conf)
{
    ngx_uint_t  i;

    for (i = 0; i < warm->nprofiles; i++) {

        /* "keepalive" of nginx 1.29.7 may say that it is for each location */

        if (NGX_HTTP_UPSTREAM_REUSE_NATIVE && !warm->conf->added
            && warm->profiles[i]->conf != conf)
        {
            continue;
        }

        if (ngx_http_upstream_reuse_same_identity(warm->profiles[i]->identity,
                                                  id))
        {
            return warm->profiles[i];
        }
    }

    return NULL;
}


ngx_http_reuse_warm_profile_t *
ngx_http_reuse_warm_learn_profile(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_http_request_t              *r;
    ngx_http_conf_ctx_t              ctx;
    ngx_http_upstream_conf_t        *conf;
    ngx_http_reuse_warm_profile_t   *profile;
    ngx_http_reuse_warm_t           *warm;

    r = rp->request;
    conf = rp->location;
    warm = rp->conf->warmth;

    /* another request may have shown it meanwhile */

    profile = reuse_look_up(warm, rp->identity, conf);

    if (profile
        || !reuse_is_constant(conf)
        || !reuse_may_be_silent(rp))
    {
        return profile;
    }

    profile = reuse_find_idle_profile(warm);

    if (profile == NULL) {

        if (warm->nprofiles == NGX_HTTP_REUSE_WARM_PROFILES) {
            return NULL;
        }

        profile = reuse_add_profile(warm, rp->conf->main->pool);
        if (profile == NULL) {
            return NULL;
        }
    }

    ctx.main_conf = r->main_conf;
    ctx.srv_conf = r->srv_conf;
    ctx.loc_conf = r->loc_conf;

    profile->learned = 1;

    if (reuse_set_profile(profile, rp->identity, conf, &ctx,
                       rp->conf->main->pool)
        != NGX_OK)
    {
        return NULL;
    }

    return profile;
}


/* Of a profile that is not known yet, nothing is opened and no request is. */

static ngx_http_reuse_warm_profile_t *
reuse_add_profile(ngx_http_reuse_warm_t *warm, ngx_pool_t *pool)
{
    ngx_http_reuse_warm_profile_t  *profile;

    profile = ngx_pcalloc(pool, sizeof(ngx_http_reuse_warm_profile_t));
    if (profile == NULL) {
        return NULL;
    }

    profile->room = NGX_HTTP_REUSE_WARM_ROOM;

    profile->identity = ngx_palloc(pool, profile->room);
    if (profile->identity == NULL) {
        return NULL;
    }

    profile->identity->len = 0;

    profile->index = warm->nprofiles;
    warm->profiles[warm->nprofiles++] = profile;

    return profile;
}


/*
 * When all have been used up, the place of one that no connection is of and
 * none was of late: clients may bring along any number of names.
 */

static ngx_http_reuse_warm_profile_t *
reuse_find_idle_profile(ngx_http_reuse_warm_t *warm)
{
    ngx_uint_t                      i;
    ngx_http_reuse_warm_profile_t  *profile;

    if (warm->nprofiles < NGX_HTTP_REUSE_WARM_PROFILES) {
        return NULL;
    }

    for (i = 0; i < warm->nprofiles; i++) {
        profile = warm->profiles[i];

        if (profile->learned && profile->unused == 0 && profile->used == 0
            && profile->peak == 0)
        {
            return profile;
        }
    }

    return NULL;
}


static ngx_int_t
reuse_set_profile(ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_identity_t *id, ngx_http_upstream_conf_t *conf,
    ngx_http_conf_ctx_t *ctx, ngx_pool_t *pool)
{
    void        *p;
    size_t       size;
    ngx_addr_t  *local;

    size = id->len + NGX_SOCKADDR_STRLEN;

    if (size > profile->room) {

        p = ngx_palloc(pool, size);
        if (p == NULL) {
            return NGX_ERROR;
        }

        profile->identity = p;
        profile->room = size;
    }

    ngx_memcpy(profile->identity, id, id->len);

    profile->ctx = *ctx;
    profile->conf = conf;
    profile->number++;
    profile->seen = 0;
    profile->peak = 0;

    local = &profile->local;

    id = profile->identity;

    local->sockaddr = ngx_http_upstream_reuse_identity_local(id);
    local->socklen = id->local_len;

    if (local->sockaddr) {
        local->name.data = (u_char *) id + id->len;
        local->name.len = ngx_sock_ntop(local->sockaddr, local->socklen,
                                        local->name.data, NGX_SOCKADDR_STRLEN,
                                        1);
    }

    return NGX_OK;
}
