
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What becomes of servers that are gone.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_FOLD_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_FOLD_H_INCLUDED_


#include "ngx_http_upstream_reuse.h"


/* milliseconds: so often it is asked whether a server is gone */
#define NGX_HTTP_UPSTREAM_REUSE_CHECK    5000

/* how many, at a time */
#define NGX_HTTP_UPSTREAM_REUSE_CHECKS   100


/* gone */

/* A worker begins: looks for servers that are gone from time to time. */
void ngx_http_upstream_reuse_begin_gone(ngx_cycle_t *cycle);

/* A worker has met a server. */
void ngx_http_upstream_reuse_note_server(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);

/*
 * Frees some servers of an unbounded upstream that were not used for longest;
 * returns how many places for others that makes.
 */
ngx_uint_t ngx_http_upstream_reuse_make_room(
    ngx_http_upstream_reuse_srv_conf_t *rcf);

/*
 * There was no room for a server, in the zone or among those of an unbounded
 * upstream; with the lock.
 */
#define ngx_http_upstream_reuse_want_room(zone, unbounded)                    \
    (zone)->wanted[unbounded] = ngx_max(ngx_current_msec, 1)

/* Tells whether there was no room of late. */
ngx_uint_t ngx_http_upstream_reuse_is_room_wanted(
    ngx_http_upstream_reuse_zone_t *zone, ngx_uint_t unbounded);

/*
 * Tells whether a server that has had no request for so many milliseconds is
 * gone; NULL: its upstream is not in the configuration.
 */
ngx_uint_t ngx_http_upstream_reuse_is_gone(
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_uint_t unbounded,
    u_char *sockaddr, size_t socklen, ngx_msec_t unused, ngx_uint_t room);


/* fold */

/* How many connections a worker has by its share. */
ngx_int_t ngx_http_upstream_reuse_count_open(
    ngx_http_upstream_reuse_share_t *share);

/*
 * With the lock: adds what a share has counted to the record, but for the
 * connections that are open or idle now.
 */
void ngx_http_upstream_reuse_fold_share(
    ngx_http_upstream_reuse_record_t *record,
    ngx_http_upstream_reuse_share_t *share);

/*
 * With the lock: frees the share of a worker that has no connection, and the
 * record, if nobody else has a share; returns 1 then.
 */
ngx_uint_t ngx_http_upstream_reuse_free_share(ngx_shm_zone_t *shm_zone,
    ngx_http_upstream_reuse_record_t *record,
    ngx_http_upstream_reuse_share_t *share);

/* With the lock: frees records and shares that are of no use any more. */
void ngx_http_upstream_reuse_fold(ngx_shm_zone_t *shm_zone);


/* zone */

extern ngx_str_t  ngx_http_upstream_reuse_zone_name;

/*
 * worker: number 0 and 1 of those that stand for several servers; NULL: it has
 * no share.
 */
ngx_http_upstream_reuse_server_t *ngx_http_upstream_reuse_common_server(
    ngx_uint_t i);

/* With the lock: the record of that key; NULL: there is none. */
ngx_http_upstream_reuse_record_t *ngx_http_upstream_reuse_lookup_record(
    ngx_http_upstream_reuse_zone_t *zone, ngx_str_t *key);


/* directives */

/* How many bytes are enough for the servers and workers of a configuration. */
size_t ngx_http_upstream_reuse_default_zone_size(ngx_conf_t *cf);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_FOLD_H_INCLUDED_ */
