
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Places, in which idle connections are parked so that any worker can take
 * them.  A place is a pair of unix sockets that all workers have from the
 * master process, of this cycle and of those before; the descriptor of the
 * connection lies in it as a message.  What is known of the connection is in
 * shared memory.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_PLACES_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_PLACES_H_INCLUDED_


#include "ngx_http_upstream_reuse_connection.h"


/* at most, and of these by default */
#define NGX_HTTP_UPSTREAM_REUSE_PLACES          4096
#define NGX_HTTP_UPSTREAM_REUSE_DEFAULT_PLACES  2048

/* bytes of an identity, an address and an upstream's name together */
#define NGX_HTTP_UPSTREAM_REUSE_LABEL           384


/*
 * cycle, in shared memory: what is known of a parked connection.  Times are
 * those of ngx_current_msec, which all processes have in common.  Its label
 * consists of the identity, the address and the name of the upstream.
 *
 * What it says of the connection is packed and unpacked in parcel.c.  A field
 * that is added stands before the label, which is copied only as far as it
 * goes.
 */

typedef struct {
    uint32_t                             hash;   /* of the label */
    uint32_t                             label_len;
    size_t                               socklen;
    size_t                               name_len;

    /* the only location that may use it, in that cycle; NULL: all may */
    ngx_http_upstream_conf_t            *location;
    ngx_uint_t                           cycle;

    /* what has counted it: the zone that began with that cycle */
    ngx_uint_t                           zone;

    ngx_pid_t                            pid;    /* who has parked it */
    ngx_msec_t                           start;  /* it was opened */
    ngx_msec_t                           lifetime;  /* as in its record, */
    ngx_uint_t                           target;    /* and this */
    ngx_msec_t                           since;  /* it has been idle */
    ngx_msec_t                           seen;   /* alive, the last time */
    ngx_msec_t                           end;    /* it is closed, */
    ngx_http_upstream_reuse_close_e      reason;  /* and why */
    ngx_msec_t                           unaged_end;  /* without its lifetime,
                                                         if it has one */

    ngx_msec_t                           rtt;
    ngx_msec_t                           announced;
    ngx_uint_t                           max;
    ngx_uint_t                           requests;
    off_t                                sent;

    ngx_http_upstream_reuse_stands_e     stands;  /* as the server with which
                                                     it is counted */

    unsigned                             warm:1;
    unsigned                             listed:1;
    unsigned                             nodelay:2;  /* c->tcp_nodelay */
    unsigned                             nopush:2;   /* c->tcp_nopush */

    uint64_t               label[NGX_HTTP_UPSTREAM_REUSE_LABEL / 8];
} ngx_http_upstream_reuse_parcel_t;


#define ngx_http_upstream_reuse_parcel_identity(parcel)                       \
    ((ngx_http_upstream_reuse_identity_t *) (parcel)->label)

#define ngx_http_upstream_reuse_parcel_address(parcel)                        \
    ((u_char *) (parcel)->label + (parcel)->label_len                         \
     - (parcel)->name_len - (parcel)->socklen)

#define ngx_http_upstream_reuse_parcel_name(parcel)                           \
    ((u_char *) (parcel)->label + (parcel)->label_len - (parcel)->name_len)


/* Tells whether a parked connection is to be taken out. */

typedef ngx_uint_t (*ngx_http_upstream_reuse_visit_pt)(
    ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd, void *data);


/* sockets */

/*
 * master: makes places, as many as the configuration says, and as there can
 * be without taking descriptors from "worker_connections".  They are closed
 * with the last cycle that has them.
 */
void ngx_http_upstream_reuse_open_places(ngx_cycle_t *cycle);

/* How many there are: maybe more than the configuration allows now. */
extern ngx_uint_t  ngx_http_upstream_reuse_nsockets;

/*
 * Puts a descriptor into a place, and takes it out: NGX_OK, and not -1.  What
 * has another number is closed, so that none is had for another one; no
 * number is 0.
 */
ngx_int_t ngx_http_upstream_reuse_send_fd(ngx_uint_t i, ngx_socket_t fd,
    ngx_uint_t serial);
ngx_socket_t ngx_http_upstream_reuse_recv_fd(ngx_uint_t i, ngx_uint_t serial);

/*
 * 0: the limit on open files has been reached, and what is taken out would be
 * lost.  That is found out by losing one.
 */
ngx_uint_t ngx_http_upstream_reuse_may_recv_fd(void);


/* places */

/* Adds the shared memory; NULL if there is no memory. */
ngx_shm_zone_t *ngx_http_upstream_reuse_add_places(ngx_conf_t *cf);

/* master: the number of the next cycle */
ngx_uint_t ngx_http_upstream_reuse_number_cycle(ngx_shm_zone_t *shm_zone);

/* worker: begins to use them; returns how many there are. */
ngx_uint_t ngx_http_upstream_reuse_enter_places(ngx_cycle_t *cycle);

/* worker: how many places its configuration allows; 0: none is shared. */
extern ngx_uint_t  ngx_http_upstream_reuse_nplaces;

/*
 * worker: the number of its cycle, which is not 0, and of the first one that
 * has its zone.
 */
extern ngx_uint_t  ngx_http_upstream_reuse_cycle;
extern ngx_uint_t  ngx_http_upstream_reuse_zone_cycle;

/* Another zone, with counters of its own, has counted a connection. */
#define ngx_http_upstream_reuse_is_foreign(parcel)                            \
    ((parcel)->zone != ngx_http_upstream_reuse_zone_cycle)

/* worker: whether there is no later cycle, whose workers begin soon. */
ngx_uint_t ngx_http_upstream_reuse_is_last_cycle(void);

/*
 * Parks a connection, and counts it as handed over, and not idle here; NULL
 * for the server: it was parked before.  NGX_DECLINED: no place is free.
 */
ngx_int_t ngx_http_upstream_reuse_park(
    ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    ngx_http_upstream_reuse_server_t *server);

/*
 * Takes the connection of this label that was parked last, for the location
 * in the parcel, in which it is described then, and counts it as swept until
 * the caller knows that it is of use.  -1: there is none that is counted with
 * this server.
 */
ngx_socket_t ngx_http_upstream_reuse_unpark(
    ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_server_t *server);

/* Takes any connection to a server.  -1: there is none. */
ngx_socket_t ngx_http_upstream_reuse_unpark_any(
    ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);

/*
 * Has all parked connections looked at by visit(), which is given data and
 * may change parcels, beginning with place number *i.  Returns the first that
 * is to be taken out, with *i after it; -1: there is no other one.  Those that
 * select() does not want, if it is not NULL, are left alone; it is given no
 * descriptor.  Both are called with the lock.
 */
ngx_socket_t ngx_http_upstream_reuse_visit_places(ngx_uint_t *i,
    ngx_http_upstream_reuse_visit_pt select,
    ngx_http_upstream_reuse_visit_pt visit, void *data,
    ngx_http_upstream_reuse_parcel_t *parcel);

/* the parked connections to a server */

typedef struct {
    ngx_uint_t                           warm;   /* carried no request */
    ngx_uint_t                           proved;  /* of these, for as long as
                                                     shows they are wanted */
    ngx_uint_t                           idle;   /* their time is not over */
    ngx_uint_t                           lasting;  /* for some time */
    ngx_msec_t                           next;   /* milliseconds until there
                                                    are fewer of these */
} ngx_http_upstream_reuse_parked_t;

/* Counts them, and those that last for more than so many milliseconds. */
void ngx_http_upstream_reuse_count_parked(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t ahead,
    ngx_http_upstream_reuse_parked_t *parked);

/* Tells whether a parcel is of a server, which stands for no others. */
ngx_uint_t ngx_http_upstream_reuse_is_of_server(
    ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server);

/*
 * Tells whether so many milliseconds have passed since this was last true, in
 * any worker of this cycle.
 */
ngx_uint_t ngx_http_upstream_reuse_is_time_to_visit(ngx_msec_t pause);


/* park */

/*
 * Parks an idle connection, of which the caller closes what is left in this
 * worker, without a trace in the counters.  NGX_DECLINED: it cannot be parked.
 */
ngx_int_t ngx_http_upstream_reuse_park_conn(
    ngx_http_upstream_reuse_conn_t *conn);


/* parcel */

/* Has a parcel say what is known of a connection, but for its end. */
void ngx_http_upstream_reuse_pack(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_conn_t *conn);

/*
 * Has a connection that was taken over, and its record, hold what the parcel
 * says of them.
 */
void ngx_http_upstream_reuse_unpack(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_conn_t *conn);

/*
 * Labels a parcel.  NGX_DECLINED: there is not room enough, as for names that
 * are very long.
 */
ngx_int_t ngx_http_upstream_reuse_label(
    ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_identity_t *id, struct sockaddr *sockaddr,
    socklen_t socklen, ngx_str_t *name);

/*
 * Counts a parked connection that ends without a worker having it, unless it
 * is foreign.  Takes the lock of the zone.
 */
void ngx_http_upstream_reuse_count_swept(
    ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_close_e reason);

/*
 * Tells whether the server of a parked connection gets no requests any more,
 * by what this worker has seen last.  It takes no lock of an upstream.
 */
ngx_uint_t ngx_http_upstream_reuse_is_parcel_drained(
    ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_srv_conf_t *rcf);

/* Has a parked connection end in time by the configuration in force. */
void ngx_http_upstream_reuse_renew_age(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_parcel_t *parcel);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_PLACES_H_INCLUDED_ */
