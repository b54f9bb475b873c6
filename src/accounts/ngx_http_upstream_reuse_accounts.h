
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What all workers know of servers, and have counted, in shared memory.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_ACCOUNTS_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_ACCOUNTS_H_INCLUDED_


#include "ngx_http_upstream_reuse_pool.h"
#include "ngx_http_upstream_reuse_reasons.h"
#include "ngx_http_upstream_reuse_snapshot.h"
#include "ngx_http_upstream_reuse_tasks.h"


/* milliseconds: so often it is asked whether a server is gone */
#define NGX_HTTP_UPSTREAM_REUSE_CHECK    5000

/* how many, at a time */
#define NGX_HTTP_UPSTREAM_REUSE_CHECKS   100

/* servers of an upstream that a worker frees at a time */
#define NGX_HTTP_UPSTREAM_REUSE_FREED    32


/* zone */

/*
 * Adds shared memory of the layer, of which init() makes something.  NULL if
 * there is no memory.
 */
ngx_shm_zone_t *ngx_http_upstream_reuse_add_shared(ngx_conf_t *cf,
    ngx_str_t *name, size_t size, ngx_shm_zone_init_pt init);

/* Adds the zone; NULL if there is no memory. */
ngx_shm_zone_t *ngx_http_upstream_reuse_add_zone(ngx_conf_t *cf, size_t size);

/* Takes the lock in which limits change. */
void ngx_http_upstream_reuse_lock(ngx_http_upstream_reuse_conn_t *conn);
void ngx_http_upstream_reuse_unlock(ngx_http_upstream_reuse_conn_t *conn);

/*
 * A process begins, which may be a worker, and ends: returns how many workers
 * are left.
 */
void ngx_http_upstream_reuse_enter_zone(ngx_shm_zone_t *shm_zone,
    ngx_uint_t worker);
ngx_uint_t ngx_http_upstream_reuse_leave_zone(ngx_shm_zone_t *shm_zone);

extern ngx_str_t  ngx_http_upstream_reuse_zone_name;


/* servers */

/*
 * Finds or makes what is known of the server of the address in pc.  Never
 * NULL: if the zone is full, as the log says, all further servers are one,
 * and so are those of an unbounded upstream that has many.
 */
ngx_http_upstream_reuse_server_t *ngx_http_upstream_reuse_find_server(
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_peer_connection_t *pc);

/*
 * worker: number 0 and 1 of those that stand for several servers; NULL: it has
 * no share.
 */
ngx_http_upstream_reuse_server_t *ngx_http_upstream_reuse_common_server(
    ngx_uint_t i);

/* With the lock: a worker begins, while there is room. */
void ngx_http_upstream_reuse_claim_overflow(ngx_slab_pool_t *shpool,
    ngx_http_upstream_reuse_zone_t *zone);

/*
 * Tells whether a server is needed in this worker.  A request without a
 * connection points to none between two events.
 */
ngx_uint_t ngx_http_upstream_reuse_is_used_server(
    ngx_http_upstream_reuse_server_t *server);

/* Frees one that is not needed; returns 1 if its record was freed with it. */
ngx_uint_t ngx_http_upstream_reuse_free_server(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);

/*
 * Without a master process, servers of two cycles have one share, and the
 * earlier one may still need it.
 */
#define ngx_http_upstream_reuse_may_free()                                    \
    (ngx_process == NGX_PROCESS_WORKER)


/* gone */

/* A worker begins: looks for servers that are gone from time to time. */
void ngx_http_upstream_reuse_begin_gone(void);


/* fold */

/*
 * With the lock: frees the share of a worker that has no connection, and the
 * record, if nobody else has a share; returns 1 then.
 */
ngx_uint_t ngx_http_upstream_reuse_free_share(ngx_shm_zone_t *shm_zone,
    ngx_http_upstream_reuse_record_t *record,
    ngx_http_upstream_reuse_share_t *share);

/* With the lock: frees records and shares that are of no use any more. */
void ngx_http_upstream_reuse_fold(ngx_shm_zone_t *shm_zone);

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


/* records */

/* With the lock: the record of that key; NULL: there is none. */
ngx_http_upstream_reuse_record_t *ngx_http_upstream_reuse_lookup_record(
    ngx_http_upstream_reuse_zone_t *zone, ngx_str_t *key);

/*
 * With the lock: all records, beginning with NULL; the shares of workers that
 * are gone go to their records, and returns how many others have a share.
 */
ngx_http_upstream_reuse_record_t *ngx_http_upstream_reuse_next_record(
    ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_record_t *record);
ngx_uint_t ngx_http_upstream_reuse_sweep(ngx_http_upstream_reuse_zone_t *zone);

/* Parts a record's key: the upstream's name, and the address as text. */
void ngx_http_upstream_reuse_name_record(
    ngx_http_upstream_reuse_record_t *record, ngx_str_t *upstream,
    u_char *text, size_t *len);

/* Tells whether there is no worker of that process number any more. */
ngx_uint_t ngx_http_upstream_reuse_has_died(ngx_pid_t pid);

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
 * With the lock: all shares of this process number go to their records, and
 * connections that are left in them are closed for that reason.
 */
void ngx_http_upstream_reuse_inherit_own(ngx_http_upstream_reuse_zone_t *zone,
    ngx_http_upstream_reuse_close_e reason);


/* counters */

#define ngx_http_upstream_reuse_count(server, counter)                        \
    (server)->share->counters[NGX_HTTP_UPSTREAM_REUSE_##counter]++

#define ngx_http_upstream_reuse_uncount(server, counter)                      \
    (server)->share->counters[NGX_HTTP_UPSTREAM_REUSE_##counter]--

/* A request has been given a connection, a kept one or a new one. */
void ngx_http_upstream_reuse_count_request(ngx_http_upstream_reuse_peer_t *rp);

/*
 * A new connection was opened, in so many milliseconds, of which TCP took so
 * many; rtt is in microseconds, 0 if it is not known.
 */
void ngx_http_upstream_reuse_count_times(
    ngx_http_upstream_reuse_server_t *server, ngx_connection_t *c,
    ngx_msec_t all, ngx_msec_t tcp, ngx_uint_t rtt);

/* The same for one that core has opened for a request. */
void ngx_http_upstream_reuse_count_peer_times(
    ngx_http_upstream_reuse_peer_t *rp, ngx_connection_t *c);

/* How many requests a record has counted, and a share. */
ngx_atomic_uint_t ngx_http_upstream_reuse_sum_requests(
    volatile ngx_atomic_uint_t *counters);
int32_t ngx_http_upstream_reuse_sum_shared(volatile uint32_t *counters);


/* snapshot */

/* With the zone's lock: takes the ratio, if it is time. */
void ngx_http_upstream_reuse_take_sample(ngx_http_upstream_reuse_zone_t *zone);


/* slots */

/*
 * A connection is closed, or will be before the event that is being handled is
 * over; each has one reason.
 */
void ngx_http_upstream_reuse_count_closed(
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_reuse_close_e reason);

/*
 * Counts a connection as opened, which it is to be at once, unless its server
 * has as many as it may have: returns 0 then.  One that is opened ahead is not
 * opened either while a request waits.
 */
ngx_uint_t ngx_http_upstream_reuse_open_slot(
    ngx_http_upstream_reuse_server_t *server, ngx_uint_t ahead);

/* With the lock: whether a server may have one more, or one is parked. */
ngx_uint_t ngx_http_upstream_reuse_has_slot(
    ngx_http_upstream_reuse_server_t *server);

/* Finds what limits the connections to a server that is new to this worker. */
void ngx_http_upstream_reuse_limit_server(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);

/*
 * How many connections a server may have, by the configuration of an upstream
 * with a limit.  Takes locks of the upstream.
 */
ngx_uint_t ngx_http_upstream_reuse_find_most(
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_str_t *address);

/* What is called when connections to a limited server have been closed. */
extern void (*ngx_http_upstream_reuse_freed)(
    ngx_http_upstream_reuse_server_t *server);


/* upstreams */

/*
 * The settings of an upstream that can have some, from number *i of all on,
 * which is raised; NULL: there is no other one.
 */
ngx_http_upstream_reuse_srv_conf_t *ngx_http_upstream_reuse_next_conf(
    ngx_http_upstream_main_conf_t *umcf, ngx_uint_t *i);

/* The upstream of that name in the configuration; NULL: there is none. */
ngx_http_upstream_reuse_srv_conf_t *ngx_http_upstream_reuse_find_conf(
    ngx_str_t *upstream);

ngx_uint_t ngx_http_upstream_reuse_same_name(ngx_str_t *a, ngx_str_t *b);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_ACCOUNTS_H_INCLUDED_ */
