
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_murmurhash.h>
#include "ngx_http_upstream_reuse_connection.h"


/* what an identity is made of, before it is */

typedef struct {
    ngx_http_upstream_reuse_identity_t   fixed;
    u_char                              *local;
    u_char                              *name;
    u_char                              *certificate;
} reuse_parts_t;


static ngx_uint_t speaks_http1(ngx_http_upstream_reuse_peer_t *rp);
#if (NGX_HTTP_SSL)
static ngx_int_t add_tls(reuse_parts_t *parts, ngx_http_upstream_conf_t *conf,
    ngx_str_t *host, ngx_http_request_t *r);
static ngx_int_t get_value(ngx_http_request_t *r, ngx_http_complex_value_t *cv,
    ngx_str_t *value);
#endif
static ngx_http_upstream_reuse_identity_t *join_parts(reuse_parts_t *parts,
    ngx_pool_t *pool);
static ngx_uint_t is_scheme(ngx_str_t *value);


/* of most connections without TLS: all else is 0 */

static ngx_http_upstream_reuse_identity_t  ngx_http_upstream_reuse_plain = {
    .len = sizeof(ngx_http_upstream_reuse_identity_t)
};


ngx_http_upstream_reuse_identity_t *
ngx_http_upstream_reuse_find_identity(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_uint_t            http1, tls;
    reuse_parts_t         parts;
    ngx_http_upstream_t  *u;

    u = rp->upstream;
    http1 = speaks_http1(rp);

#if (NGX_HTTP_SSL)
    tls = u->ssl;
#else
    tls = 0;
#endif

    if (http1 && !tls && u->peer.local == NULL && !rp->apart) {
        return &ngx_http_upstream_reuse_plain;
    }

    ngx_memzero(&parts, sizeof(reuse_parts_t));

    if (!http1) {
        parts.fixed.create_request = u->create_request;
    }

    if (rp->apart) {
        parts.fixed.location = u->conf;
    }

    if (u->peer.local) {
        parts.local = (u_char *) u->peer.local->sockaddr;
        parts.fixed.local_len = u->peer.local->socklen;
    }

#if (NGX_HTTP_SSL)

    if (tls
        && add_tls(&parts, u->conf, &u->ssl_name, rp->request) != NGX_OK)
    {
        return NULL;
    }

#endif

    return join_parts(&parts, rp->request->pool);
}


ngx_int_t
ngx_http_upstream_reuse_foresee_identity(ngx_http_upstream_conf_t *conf,
    ngx_str_t *host, ngx_pool_t *pool,
    ngx_http_upstream_reuse_identity_t **id)
{
#if (NGX_HTTP_SSL)
    ngx_int_t      rc;
#endif
    reuse_parts_t  parts;

    ngx_memzero(&parts, sizeof(reuse_parts_t));

    if (conf->local) {

        if (conf->local->addr == NULL) {

            /* variables name it */

            return NGX_DECLINED;
        }

        parts.local = (u_char *) conf->local->addr->sockaddr;
        parts.fixed.local_len = conf->local->addr->socklen;
    }

#if (NGX_HTTP_SSL)

    if (conf->ssl) {
        rc = add_tls(&parts, conf, host, NULL);

        if (rc != NGX_OK) {
            return rc;
        }
    }

#endif

    *id = join_parts(&parts, pool);

    return *id ? NGX_OK : NGX_ERROR;
}


/*
 * The stock proxy speaks it like those who say so, unless it has begun to
 * speak HTTP/2 (RFC 9113, section 3.4); the request is made by now.
 */

static ngx_uint_t
speaks_http1(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_str_t            *module;
    ngx_buf_t            *b;
    ngx_http_upstream_t  *u;

    if (rp->hint.expected) {
        return 1;
    }

    u = rp->upstream;
    module = &u->conf->module;

    if (module->len != 5
        || ngx_memcmp(module->data, "proxy", 5) != 0
        || u->request_bufs == NULL)
    {
        return 0;
    }

    b = u->request_bufs->buf;

    return b->last - b->pos < 5 || ngx_memcmp(b->pos, "PRI *", 5) != 0;
}


#if (NGX_HTTP_SSL)

/*
 * A setting of the SSL_CTX needs nothing here: its handler must not share one
 * SSL_CTX between locations that differ in it (myproxy: same_ssl()).  Without
 * a request NGX_DECLINED if something depends on one.
 */

static ngx_int_t
add_tls(reuse_parts_t *parts, ngx_http_upstream_conf_t *conf, ngx_str_t *host,
    ngx_http_request_t *r)
{
    ngx_int_t   rc;
    ngx_str_t   value;

    parts->fixed.ssl = conf->ssl;
    if (conf->ssl_server_name) {
        parts->fixed.checks |= NGX_HTTP_UPSTREAM_REUSE_NAMED;
    }

    if (conf->ssl_verify) {
        parts->fixed.checks |= NGX_HTTP_UPSTREAM_REUSE_VERIFIED;
    }

    if (parts->fixed.checks) {
        value = *host;

        rc = get_value(r, conf->ssl_name, &value);

        if (rc != NGX_OK) {
            return rc;
        }

        parts->name = value.data;
        parts->fixed.name_len = value.len;
    }

    if (conf->ssl_certificate && conf->ssl_certificate->lengths) {

        rc = get_value(r, conf->ssl_certificate, &value);

        if (rc != NGX_OK) {
            return rc;
        }

        parts->certificate = value.data;
        parts->fixed.certificate_len = value.len;
    }

    return NGX_OK;
}


static ngx_int_t
get_value(ngx_http_request_t *r, ngx_http_complex_value_t *cv,
    ngx_str_t *value)
{
    if (cv == NULL) {
        return NGX_OK;
    }

    if (r) {
        return ngx_http_complex_value(r, cv, value);
    }

    if (cv->lengths) {
        return NGX_DECLINED;
    }

    *value = cv->value;

    return NGX_OK;
}

#endif


static ngx_http_upstream_reuse_identity_t *
join_parts(reuse_parts_t *parts, ngx_pool_t *pool)
{
    u_char                              *p;
    uint64_t                             hash;
    ngx_http_upstream_reuse_identity_t  *id;

    parts->fixed.len = sizeof(ngx_http_upstream_reuse_identity_t)
                       + parts->fixed.local_len
                       + parts->fixed.name_len
                       + parts->fixed.certificate_len;

    if (ngx_http_upstream_reuse_same_identity(&parts->fixed,
                                              &ngx_http_upstream_reuse_plain))
    {
        return &ngx_http_upstream_reuse_plain;
    }

    id = ngx_palloc(pool, parts->fixed.len);
    if (id == NULL) {
        return NULL;
    }

    *id = parts->fixed;

    p = (u_char *) (id + 1);

    if (id->local_len) {
        p = ngx_cpymem(p, parts->local, id->local_len);
    }

    if (id->name_len) {
        p = ngx_cpymem(p, parts->name, id->name_len);
    }

    if (id->certificate_len) {
        ngx_memcpy(p, parts->certificate, id->certificate_len);
    }

    /* apart, so that addresses in memory do not decide which names collide */

    hash = (uintptr_t) id->create_request;
    hash = hash * 31 + (uintptr_t) id->location;
    hash = hash * 31 + (uintptr_t) id->ssl;
    hash = hash * 31 + id->checks;
    hash ^= hash >> 32;

    id->hash = (uint32_t) hash
               ^ ngx_murmur_hash2((u_char *) (id + 1), id->len - sizeof(*id));

    return id;
}


ngx_http_upstream_reuse_identity_t *
ngx_http_upstream_reuse_copy_identity(ngx_http_upstream_reuse_identity_t *id,
    ngx_pool_t *pool)
{
    ngx_http_upstream_reuse_identity_t  *copy;

    if (id == &ngx_http_upstream_reuse_plain) {
        return id;
    }

    copy = ngx_palloc(pool, id->len);

    if (copy) {
        ngx_memcpy(copy, id, id->len);
    }

    return copy;
}


ngx_uint_t
ngx_http_upstream_reuse_is_authenticated(ngx_http_request_t *r)
{
    ngx_uint_t                       i;
    ngx_list_part_t                 *part;
    ngx_table_elt_t                 *h;
    ngx_http_upstream_headers_in_t  *in;

    if (r->headers_in.authorization
        && is_scheme(&r->headers_in.authorization->value))
    {
        return 1;
    }

    in = &r->upstream->headers_in;

    if (in->www_authenticate == NULL) {
        return 0;
    }

    for (part = &in->headers.part; part; part = part->next) {

        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len == sizeof("WWW-Authenticate") - 1
                && ngx_strncasecmp(h[i].key.data,
                                   (u_char *) "WWW-Authenticate",
                                   h[i].key.len)
                   == 0
                && is_scheme(&h[i].value))
            {
                return 1;
            }
        }
    }

    return 0;
}


static ngx_uint_t
is_scheme(ngx_str_t *value)
{
    return (value->len >= 4
            && ngx_strncasecmp(value->data, (u_char *) "NTLM", 4) == 0)
           || (value->len >= 9
               && ngx_strncasecmp(value->data, (u_char *) "Negotiate", 9)
                  == 0);
}
