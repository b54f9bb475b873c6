
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Nobody watches a parked connection.  One worker after the other looks at all
 * of them, and closes those that have ended, are too old, or of no use for the
 * configuration.
 */


#include "ngx_http_upstream_reuse_share.h"


/*
 * So often parked connections are looked at, and by others if nobody does.  In
 * the middle of it those are looked for that nobody wants any more.
 */
#define NGX_HTTP_UPSTREAM_REUSE_VISIT   1000
#define NGX_HTTP_UPSTREAM_REUSE_LAPSE   3000


/* the server of which parked connections are closed */

typedef struct {
    ngx_http_upstream_reuse_srv_conf_t  *conf;
    ngx_http_upstream_reuse_server_t    *server;
    ngx_http_upstream_reuse_close_e      reason;
    ngx_msec_t                           most;   /* until its end */
} reuse_wanted_t;


/* What becomes of a parked connection that was taken out. */

typedef void (*reuse_end_pt)(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, void *data);


static void reuse_visit_handler(void);
static void reuse_take_out(ngx_http_upstream_reuse_visit_pt select,
    ngx_http_upstream_reuse_visit_pt visit, reuse_end_pt end, void *data);
static void reuse_end_visited(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, void *data);
static void reuse_end_wanted(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, void *data);
static void reuse_end_left(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, void *data);
static ngx_uint_t reuse_visit(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, void *data);
static ngx_uint_t reuse_is_to_server(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, void *data);
static ngx_uint_t reuse_ends_soon(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, void *data);
static ngx_uint_t reuse_is_left(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, void *data);
static ngx_uint_t reuse_is_over(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd, void *data);
static ngx_http_upstream_reuse_srv_conf_t *reuse_find_conf(
    ngx_http_upstream_reuse_parcel_t *parcel);
static ngx_uint_t reuse_is_old(ngx_http_upstream_reuse_parcel_t *parcel);
static ngx_int_t reuse_renew(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd);
static void reuse_sweep(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_socket_t fd);
static ngx_http_upstream_reuse_close_e reuse_why_unwanted(
    ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_srv_conf_t *rcf);


/* worker */

static ngx_uint_t  reuse_begun;

static ngx_http_upstream_reuse_task_t  reuse_visit_task =
    ngx_http_upstream_reuse_task(reuse_visit_handler);


void
ngx_http_upstream_reuse_begin_sweep(void)
{
    reuse_begun = 1;

    ngx_http_upstream_reuse_schedule(&reuse_visit_task,
                                     NGX_HTTP_UPSTREAM_REUSE_VISIT / 2);
}


/* Whoever was last goes on, and others do if it has stopped. */

static void
reuse_visit_handler(void)
{
    ngx_msec_t         pause;

    static ngx_uint_t  mine, middle;

    if (ngx_exiting || ngx_terminate
        || ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_upstream_reuse_module)
           == NULL)
    {
        return;
    }

    pause = mine ? NGX_HTTP_UPSTREAM_REUSE_VISIT / 4
                 : NGX_HTTP_UPSTREAM_REUSE_VISIT * 2;

    mine = ngx_http_upstream_reuse_is_time_to_visit(pause);

    ngx_http_upstream_reuse_schedule(&reuse_visit_task,
                                     mine ? NGX_HTTP_UPSTREAM_REUSE_VISIT / 2
                                          : NGX_HTTP_UPSTREAM_REUSE_LAPSE);

    if (!mine) {
        return;
    }

    /* upstreams have locks of their own, and so that comes first */

    ngx_http_upstream_reuse_look_at_servers();

    middle = !middle;

    reuse_take_out(middle ? reuse_is_over : NULL, reuse_visit,
                   reuse_end_visited, NULL);
}


/* Those that visit() does not want to stay are ended, of those selected. */

static void
reuse_take_out(ngx_http_upstream_reuse_visit_pt select,
    ngx_http_upstream_reuse_visit_pt visit, reuse_end_pt end, void *data)
{
    ngx_uint_t                        i;
    ngx_socket_t                      fd;
    ngx_http_upstream_reuse_parcel_t  parcel;

    i = 0;

    for ( ;; ) {

        fd = ngx_http_upstream_reuse_visit_places(&i, select, visit, data,
                                                  &parcel);

        if (fd == (ngx_socket_t) -1) {
            return;
        }

        end(&parcel, fd, data);
    }
}


static void
reuse_end_visited(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    void *data)
{
    if (reuse_renew(parcel, fd) != NGX_OK) {
        reuse_sweep(parcel, fd);
    }
}


ngx_uint_t
ngx_http_upstream_reuse_close_one_parked(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_reuse_close_e reason)
{
    ngx_socket_t                      fd;
    ngx_http_upstream_reuse_parcel_t  parcel;

    fd = ngx_http_upstream_reuse_unpark_any(&parcel, rcf, server);

    if (fd == (ngx_socket_t) -1) {
        return 0;
    }

    parcel.reason = reason;

    reuse_sweep(&parcel, fd);

    return 1;
}


void
ngx_http_upstream_reuse_close_parked(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_upstream_reuse_close_e reason)
{
    reuse_wanted_t  wanted;

    if (!ngx_http_upstream_reuse_nplaces) {
        return;
    }

    wanted.conf = rcf;
    wanted.server = server;
    wanted.reason = reason;

    reuse_take_out(reuse_is_to_server, reuse_is_to_server, reuse_end_wanted,
                   &wanted);
}


static void
reuse_end_wanted(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    void *data)
{
    reuse_wanted_t  *wanted = data;

    parcel->reason = wanted->reason;

    reuse_sweep(parcel, fd);
}


void
ngx_http_upstream_reuse_end_sweep(void)
{
    if (reuse_begun && ngx_http_upstream_reuse_is_last_cycle()) {
        reuse_take_out(NULL, reuse_is_left, reuse_end_left, NULL);
    }
}


static void
reuse_end_left(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    void *data)
{
    (void) ngx_close_socket(fd);

    ngx_http_upstream_reuse_count_swept(parcel,
                                       NGX_HTTP_UPSTREAM_REUSE_CLOSE_SHUTDOWN);
}


static ngx_uint_t
reuse_is_left(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    void *data)
{
    return 1;
}


static ngx_uint_t
reuse_is_to_server(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    void *data)
{
    reuse_wanted_t  *wanted = data;

    return ngx_http_upstream_reuse_is_of_server(parcel, wanted->conf,
                                                wanted->server);
}


ngx_uint_t
ngx_http_upstream_reuse_retire_parked(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_server_t *server, ngx_msec_t most)
{
    ngx_uint_t                        i;
    ngx_socket_t                      fd;
    reuse_wanted_t                    wanted;
    ngx_http_upstream_reuse_parcel_t  parcel;

    if (!ngx_http_upstream_reuse_nplaces) {
        return 0;
    }

    wanted.conf = rcf;
    wanted.server = server;
    wanted.most = most;

    i = 0;

    fd = ngx_http_upstream_reuse_visit_places(&i, reuse_ends_soon,
                                              reuse_ends_soon, &wanted,
                                              &parcel);
    if (fd == (ngx_socket_t) -1) {
        return 0;
    }

    if (parcel.reason != NGX_HTTP_UPSTREAM_REUSE_CLOSE_AGE) {
        parcel.reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED;
    }

    reuse_sweep(&parcel, fd);

    return 1;
}


static ngx_uint_t
reuse_ends_soon(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    void *data)
{
    reuse_wanted_t  *wanted = data;

    return (ngx_msec_int_t) (parcel->end - ngx_current_msec - wanted->most)
               <= 0
           && reuse_is_to_server(parcel, fd, data);
}


static ngx_uint_t
reuse_visit(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    void *data)
{
    if (!ngx_http_upstream_reuse_is_foreign(parcel)) {

        if (!ngx_http_upstream_reuse_is_quiet(fd)) {
            return 1;
        }

        parcel->seen = ngx_current_msec;
    }

    return reuse_is_over(parcel, fd, data);
}


/*
 * By what is known of it, nobody wants it.  What is of a configuration before
 * is taken out as well: whoever does it finds out.
 */

static ngx_uint_t
reuse_is_over(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd,
    void *data)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    if (reuse_is_old(parcel)) {
        return 1;
    }

    if (ngx_http_upstream_reuse_is_foreign(parcel)) {

        /* one of a later cycle is looked at there */

        return 0;
    }

    if ((ngx_msec_int_t) (parcel->end - ngx_current_msec) <= 0) {
        return 1;
    }

    rcf = reuse_find_conf(parcel);

    if (rcf && ngx_http_upstream_reuse_is_parcel_drained(parcel, rcf)) {
        parcel->reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_DRAINED;
        return 1;
    }

    return 0;
}


/* Of one upstream are many, and so the last one that was found is likely. */

static ngx_http_upstream_reuse_srv_conf_t *
reuse_find_conf(ngx_http_upstream_reuse_parcel_t *parcel)
{
    ngx_str_t                                   name;

    static ngx_cycle_t                         *cycle;
    static ngx_http_upstream_reuse_srv_conf_t  *last;

    name.data = ngx_http_upstream_reuse_parcel_name(parcel);
    name.len = parcel->name_len;

    if (last == NULL
        || cycle != ngx_cycle
        || last->name.len != name.len
        || ngx_memcmp(last->name.data, name.data, name.len) != 0)
    {
        cycle = (ngx_cycle_t *) ngx_cycle;
        last = ngx_http_upstream_reuse_find_conf(&name);
    }

    return last;
}


/* Of a configuration before this one. */

static ngx_uint_t
reuse_is_old(ngx_http_upstream_reuse_parcel_t *parcel)
{
    return (ngx_int_t) (parcel->cycle - ngx_http_upstream_reuse_cycle) < 0;
}


/*
 * Without the lock of the places, as upstreams have locks of their own: parks
 * it again if this configuration has a use for it.
 */

static ngx_int_t
reuse_renew(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    if (!reuse_is_old(parcel)
        || (ngx_msec_int_t) (parcel->end - ngx_current_msec) <= 0
        || !ngx_http_upstream_reuse_is_quiet(fd))
    {
        return NGX_DECLINED;
    }

    rcf = reuse_find_conf(parcel);

    if (reuse_why_unwanted(parcel, rcf)
        != NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT)
    {
        return NGX_DECLINED;
    }

    ngx_http_upstream_reuse_renew_age(rcf, parcel);

    parcel->cycle = ngx_http_upstream_reuse_cycle;

    if (ngx_http_upstream_reuse_park(parcel, fd, NULL) != NGX_OK) {

        /* there are fewer places now */

        parcel->reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_FULL;
        return NGX_DECLINED;
    }

    (void) ngx_close_socket(fd);

    return NGX_OK;
}


/* Closes a connection that was parked. */

static void
reuse_sweep(ngx_http_upstream_reuse_parcel_t *parcel, ngx_socket_t fd)
{
    ngx_peer_connection_t                pc;
    ngx_http_upstream_reuse_conn_t      *conn;
    ngx_http_upstream_reuse_close_e      reason;
    ngx_http_upstream_reuse_server_t    *server;
    ngx_http_upstream_reuse_srv_conf_t  *rcf;

    union {
        struct sockaddr  sockaddr;
        u_char           data[sizeof(ngx_sockaddr_t)];
    } addr;

    rcf = reuse_find_conf(parcel);

    reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT;

    if (reuse_is_old(parcel)) {
        reason = reuse_why_unwanted(parcel, rcf);
    }

    if (rcf == NULL
        || !ngx_http_upstream_reuse_has_layer(rcf)
        || ngx_http_upstream_reuse_is_foreign(parcel))
    {
        (void) ngx_close_socket(fd);
        ngx_http_upstream_reuse_count_swept(parcel, reason);

        return;
    }

    ngx_memzero(&pc, sizeof(ngx_peer_connection_t));
    ngx_memcpy(addr.data, ngx_http_upstream_reuse_parcel_address(parcel),
               parcel->socklen);

    pc.log = ngx_cycle->log;
    pc.sockaddr = &addr.sockaddr;
    pc.socklen = parcel->socklen;

    server = (parcel->stands == NGX_HTTP_UPSTREAM_REUSE_STANDS_ALONE)
             ? ngx_http_upstream_reuse_find_server(rcf, &pc) : NULL;

    if (server == NULL
        || server->stands != NGX_HTTP_UPSTREAM_REUSE_STANDS_ALONE)
    {
        /* it is counted with another server than a new one would be */

        if (reason == NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT) {
            reason = ngx_http_upstream_reuse_is_quiet(fd)
                     ? parcel->reason : NGX_HTTP_UPSTREAM_REUSE_CLOSE_CLOSED;
        }

        (void) ngx_close_socket(fd);
        ngx_http_upstream_reuse_count_swept(parcel, reason);

        return;
    }

    ngx_http_upstream_reuse_count(server, SWEPT);

    conn = ngx_http_upstream_reuse_adopt(rcf, server, &addr.sockaddr, parcel,
                                         fd, ngx_cycle->log);

    if (conn == NULL) {
        return;
    }

    if (!ngx_http_upstream_reuse_is_quiet(fd)) {
        ngx_http_upstream_reuse_close_ended(conn, parcel);
        return;
    }

    conn->on_timeout = (reason == NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT)
                       ? parcel->reason : reason;
    conn->connection->read->timedout = 1;

    ngx_http_upstream_reuse_close(conn->connection);
}


/* Of a configuration that is not in force any more: whether it fits this. */

static ngx_http_upstream_reuse_close_e
reuse_why_unwanted(ngx_http_upstream_reuse_parcel_t *parcel,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    if (rcf == NULL || ngx_http_upstream_reuse_is_foreign(parcel)) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_DRAINED;
    }

    if (!ngx_http_upstream_reuse_nplaces
        || rcf->reuse == 0
        || !ngx_http_upstream_reuse_has_layer(rcf))
    {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_OFF;
    }

    if (parcel->location
        || ngx_http_upstream_reuse_parcel_identity(parcel)->location
        || rcf->local)
    {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_IDENTITY;
    }

    if (ngx_http_upstream_reuse_is_parcel_drained(parcel, rcf)) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_DRAINED;
    }

    return NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT;
}
