
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * TLS sessions that all workers have together, in shared memory.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_SESSION_CACHE_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_SESSION_CACHE_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"


#if (NGX_HTTP_SSL)

/* bytes of a key: a SHA-256 of all that a session must have been made for */
#define NGX_HTTP_UPSTREAM_REUSE_SESSION_KEY  32

/* bytes of a session; a larger one is not kept */
#define NGX_HTTP_UPSTREAM_REUSE_SESSION_MAX  8192


/* what is to be kept */

typedef struct {
    u_char              *key;
    u_char              *data;
    size_t               len;        /* at most ..._SESSION_MAX */
    time_t               expire;     /* not used from then on */
    ngx_atomic_uint_t    maker;      /* number of its connection */
    unsigned             several:1;  /* there may be more of this key: the
                                        protocol would have each used once */
    unsigned             full:1;     /* of a full handshake: what others have
                                        made for this key is outdated */
} ngx_http_upstream_reuse_session_t;


/* Adds the zone; NULL if there is no memory. */
ngx_shm_zone_t *ngx_http_upstream_reuse_add_session_zone(ngx_conf_t *cf,
    size_t size);

/*
 * Copies a session to data, which has room for ..._SESSION_MAX bytes: the
 * newest one that was not used before, otherwise the one that was used last.
 * Returns its length, 0 if there is none.
 */
size_t ngx_http_upstream_reuse_get_session(ngx_shm_zone_t *shm_zone,
    u_char *key, u_char *data);

/* Keeps a session, if need be instead of the one not used for longest. */
void ngx_http_upstream_reuse_put_session(ngx_shm_zone_t *shm_zone,
    ngx_http_upstream_reuse_session_t *session);

/* Forgets all sessions of a key. */
void ngx_http_upstream_reuse_drop_sessions(ngx_shm_zone_t *shm_zone,
    u_char *key);

#endif


#endif /* _NGX_HTTP_UPSTREAM_REUSE_SESSION_CACHE_H_INCLUDED_ */
