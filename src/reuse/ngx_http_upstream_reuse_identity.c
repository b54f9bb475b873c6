
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_murmurhash.h>
#include "ngx_http_upstream_reuse.h"


static ngx_uint_t speaks_http1(ngx_http_upstream_t *u);
static ngx_uint_t same_bytes(const void *a, size_t a_len, const void *b,
    size_t b_len);
static ngx_uint_t is_scheme(ngx_str_t *value);


ngx_http_upstream_reuse_identity_t *
ngx_http_upstream_reuse_find_identity(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_uint_t                           http1, tls;
    ngx_http_upstream_t                 *u;
    ngx_http_upstream_conf_t            *location;
#if (NGX_HTTP_SSL)
    ngx_http_request_t                  *r;
    ngx_http_upstream_conf_t            *ucf;
#endif
    ngx_http_upstream_reuse_identity_t  *id;

    /* of most connections without TLS */

    static ngx_http_upstream_reuse_identity_t  plain;

    u = rp->upstream;
    http1 = speaks_http1(u);
    location = rp->apart ? u->conf : NULL;

#if (NGX_HTTP_SSL)
    tls = u->ssl;
#else
    tls = 0;
#endif

    if (http1 && !tls && u->peer.local == NULL && location == NULL) {
        return &plain;
    }

    id = ngx_pcalloc(rp->request->pool,
                     sizeof(ngx_http_upstream_reuse_identity_t));
    if (id == NULL) {
        return NULL;
    }

    id->create_request = http1 ? NULL : u->create_request;
    id->location = location;

    if (u->peer.local) {
        id->local = u->peer.local->sockaddr;
        id->local_len = u->peer.local->socklen;
    }

#if (NGX_HTTP_SSL)

    if (!tls) {
        return id;
    }

    r = rp->request;
    ucf = u->conf;

    id->ssl = ucf->ssl;
    id->checks = ngx_http_upstream_reuse_checks(ucf);

    if (id->checks) {

        id->name = u->ssl_name;

        if (ucf->ssl_name
            && ngx_http_complex_value(r, ucf->ssl_name, &id->name) != NGX_OK)
        {
            return NULL;
        }
    }

    if (ucf->ssl_certificate && ucf->ssl_certificate->lengths
        && ngx_http_complex_value(r, ucf->ssl_certificate, &id->certificate)
           != NGX_OK)
    {
        return NULL;
    }

#endif

    return id;
}


/*
 * The stock proxy and ours speak the same, unless it has begun to speak
 * HTTP/2 (RFC 9113, section 3.4); the request is made by now.
 */

static ngx_uint_t
speaks_http1(ngx_http_upstream_t *u)
{
    ngx_str_t  *module;
    ngx_buf_t  *b;

    module = &u->conf->module;

    if (!(module->len == 7 && ngx_memcmp(module->data, "myproxy", 7) == 0)
        && !(module->len == 5 && ngx_memcmp(module->data, "proxy", 5) == 0))
    {
        return 0;
    }

    if (u->request_bufs == NULL) {
        return 0;
    }

    b = u->request_bufs->buf;

    return b->last - b->pos < 5 || ngx_memcmp(b->pos, "PRI *", 5) != 0;
}


ngx_uint_t
ngx_http_upstream_reuse_same_identity(ngx_http_upstream_reuse_identity_t *a,
    ngx_http_upstream_reuse_identity_t *b)
{
    if (a->create_request != b->create_request
        || a->location != b->location)
    {
        return 0;
    }

#if (NGX_HTTP_SSL)

    if (a->ssl != b->ssl
        || a->checks != b->checks
        || !same_bytes(a->name.data, a->name.len,
                       b->name.data, b->name.len)
        || !same_bytes(a->certificate.data, a->certificate.len,
                       b->certificate.data, b->certificate.len))
    {
        return 0;
    }

#endif

    return same_bytes(a->local, a->local_len, b->local, b->local_len);
}


static ngx_uint_t
same_bytes(const void *a, size_t a_len, const void *b, size_t b_len)
{
    return a_len == b_len && (a_len == 0 || ngx_memcmp(a, b, a_len) == 0);
}


uint32_t
ngx_http_upstream_reuse_hash_identity(ngx_http_upstream_reuse_identity_t *id)
{
    uint64_t  hash;

    hash = (uintptr_t) id->create_request * 31 + (uintptr_t) id->location;

#if (NGX_HTTP_SSL)

    if (id->ssl) {
        hash = hash * 31 + (uintptr_t) id->ssl;
        hash = hash * 31 + id->checks;
        hash = hash * 31 + ngx_murmur_hash2(id->name.data, id->name.len);
        hash = hash * 31 + ngx_murmur_hash2(id->certificate.data,
                                            id->certificate.len);
    }

#endif

    if (id->local) {
        hash = hash * 31 + ngx_murmur_hash2((u_char *) id->local,
                                            id->local_len);
    }

    return (uint32_t) (hash ^ hash >> 32);
}


size_t
ngx_http_upstream_reuse_identity_size(ngx_http_upstream_reuse_identity_t *id)
{
    size_t  len;

    len = id->local_len;

#if (NGX_HTTP_SSL)
    len += id->name.len + id->certificate.len;
#endif

    return len;
}


void
ngx_http_upstream_reuse_copy_identity(
    ngx_http_upstream_reuse_identity_t *copy,
    ngx_http_upstream_reuse_identity_t *id, u_char *p)
{
    *copy = *id;

    if (id->local_len) {
        copy->local = (struct sockaddr *) p;
        p = ngx_cpymem(p, id->local, id->local_len);
    }

#if (NGX_HTTP_SSL)

    if (id->name.len) {
        copy->name.data = p;
        p = ngx_cpymem(p, id->name.data, id->name.len);
    }

    if (id->certificate.len) {
        copy->certificate.data = p;
        ngx_memcpy(p, id->certificate.data, id->certificate.len);
    }

#endif
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
