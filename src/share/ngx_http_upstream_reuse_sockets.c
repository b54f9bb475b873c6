
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The sockets in which parked connections lie.  The master process opens them,
 * and its workers inherit them.
 */


#include "ngx_http_upstream_reuse_share.h"


/* of the descriptors that a process may have, places take this part */
#define NGX_HTTP_UPSTREAM_REUSE_PART     8

/* descriptors that a worker needs besides its connections */
#define NGX_HTTP_UPSTREAM_REUSE_BESIDES  32


/* a descriptor on its way, with the number of what is parked */

typedef struct {
    struct msghdr        msg;
    struct iovec         iov;

    union {
        struct cmsghdr   cm;
        char             space[CMSG_SPACE(sizeof(int))];
    } control;
} reuse_message_t;


static ngx_uint_t reuse_count_places(ngx_cycle_t *cycle);
static ngx_int_t reuse_open_place(ngx_socket_t *pair, ngx_log_t *log);
static void reuse_close_places(void *data);
static void reuse_prepare_message(reuse_message_t *m, ngx_uint_t *serial);
static ngx_int_t reuse_recv_message(ngx_uint_t i, ngx_uint_t *serial,
    ngx_socket_t *fd);


/* master and worker: how many there are, and how many cycles have them */

ngx_uint_t  ngx_http_upstream_reuse_nsockets;

static ngx_socket_t  reuse_sockets[NGX_HTTP_UPSTREAM_REUSE_PLACES][2];
static ngx_uint_t    reuse_ncycles;


/* worker: a connection was lost, and no descriptor has been free since then */

static ngx_uint_t    reuse_starves;


void
ngx_http_upstream_reuse_open_places(ngx_cycle_t *cycle)
{
    ngx_uint_t                            n;
    ngx_socket_t                         *pair;
    ngx_pool_cleanup_t                   *cln;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_upstream_reuse_module);

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (cln == NULL) {
        return;
    }

    cln->handler = reuse_close_places;
    reuse_ncycles++;

    n = reuse_count_places(cycle);

    while (ngx_http_upstream_reuse_nsockets < n) {

        pair = reuse_sockets[ngx_http_upstream_reuse_nsockets];

        if (reuse_open_place(pair, cycle->log) != NGX_OK) {
            break;
        }

        ngx_http_upstream_reuse_nsockets++;
    }

    rmcf->nplaces = ngx_min(n, ngx_http_upstream_reuse_nsockets);

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, cycle->log, 0,
                   "upstream reuse: %ui places of %ui", rmcf->nplaces,
                   ngx_http_upstream_reuse_nsockets);
}


/*
 * The master process needs two descriptors for each, and so does a worker,
 * which may raise its limit by as many, if that is not the most it may have.
 */

static ngx_uint_t
reuse_count_places(ngx_cycle_t *cycle)
{
    ngx_int_t                             most, n;
    struct rlimit                         rlmt;
    ngx_core_conf_t                      *ccf;
    ngx_event_conf_t                     *ecf;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_upstream_reuse_module);

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);
    ecf = ngx_event_get_conf(cycle->conf_ctx, ngx_event_core_module);

    /* select() has no room for the numbers that descriptors would have */

    if (rmcf->share == 0
        || ngx_strcmp(ecf->name, "select") == 0
        || (rmcf->share == NGX_CONF_UNSET && ccf->worker_processes < 2)
        || getrlimit(RLIMIT_NOFILE, &rlmt) == -1)
    {
        return 0;
    }

    most = (rmcf->share > 1) ? rmcf->share
                             : NGX_HTTP_UPSTREAM_REUSE_DEFAULT_PLACES;

    n = ngx_min(rlmt.rlim_cur, NGX_MAX_INT32_VALUE)
        / NGX_HTTP_UPSTREAM_REUSE_PART / 2;
    n = ngx_min(n, most);

    if (ccf->rlimit_nofile != NGX_CONF_UNSET) {
        rlmt.rlim_max = ccf->rlimit_nofile;
    }

    rlmt.rlim_max = ngx_min(rlmt.rlim_max, NGX_MAX_INT32_VALUE);

    most = ((ngx_int_t) rlmt.rlim_max - (ngx_int_t) ecf->connections
            - NGX_HTTP_UPSTREAM_REUSE_BESIDES - 2 * ccf->worker_processes)
           / 2;

    n = ngx_max(ngx_min(n, most), 0);

    if (rmcf->share != NGX_CONF_UNSET && (n == 0 || n < rmcf->share)) {
        ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                      "\"reuse_share\" has %i places, as the limit on open "
                      "files allows no more: raise that limit, and "
                      "\"worker_rlimit_nofile\"", n);
    }

    return n;
}


static ngx_int_t
reuse_open_place(ngx_socket_t *pair, ngx_log_t *log)
{
    ngx_uint_t  i;

    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == -1) {
        ngx_log_error(NGX_LOG_WARN, log, ngx_errno,
                      "socketpair() failed: fewer connections are shared by "
                      "worker processes");
        return NGX_ERROR;
    }

    for (i = 0; i < 2; i++) {

        if (ngx_nonblocking(pair[i]) == -1
            || fcntl(pair[i], F_SETFD, FD_CLOEXEC) == -1)
        {
            ngx_log_error(NGX_LOG_WARN, log, ngx_errno,
                          "a socket for connections that worker processes "
                          "share could not be prepared");

            (void) ngx_close_socket(pair[0]);
            (void) ngx_close_socket(pair[1]);

            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* The cycle before has them in common with the next one. */

static void
reuse_close_places(void *data)
{
    ngx_socket_t  *pair;

    if (--reuse_ncycles) {
        return;
    }

    while (ngx_http_upstream_reuse_nsockets) {
        pair = reuse_sockets[--ngx_http_upstream_reuse_nsockets];

        (void) ngx_close_socket(pair[0]);
        (void) ngx_close_socket(pair[1]);
    }
}


/* Its data are the number, and beside them there is room for a descriptor. */

static void
reuse_prepare_message(reuse_message_t *m, ngx_uint_t *serial)
{
    ngx_memzero(m, sizeof(reuse_message_t));

    m->iov.iov_base = serial;
    m->iov.iov_len = sizeof(ngx_uint_t);

    m->msg.msg_iov = &m->iov;
    m->msg.msg_iovlen = 1;
    m->msg.msg_control = &m->control;
    m->msg.msg_controllen = sizeof(m->control);
}


ngx_int_t
ngx_http_upstream_reuse_send_fd(ngx_uint_t i, ngx_socket_t fd,
    ngx_uint_t serial)
{
    reuse_message_t  m;

    reuse_prepare_message(&m, &serial);

    m.control.cm.cmsg_len = CMSG_LEN(sizeof(int));
    m.control.cm.cmsg_level = SOL_SOCKET;
    m.control.cm.cmsg_type = SCM_RIGHTS;

    ngx_memcpy(CMSG_DATA(&m.control.cm), &fd, sizeof(int));

    /* the system allows only so many descriptors in messages */

    if (sendmsg(reuse_sockets[i][0], &m.msg, 0) != sizeof(ngx_uint_t)) {
        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, ngx_socket_errno,
                       "upstream reuse: place %ui takes no connection", i);
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_uint_t
ngx_http_upstream_reuse_may_recv_fd(void)
{
    int  fd;

    if (!reuse_starves) {
        return 1;
    }

    fd = dup(reuse_sockets[0][0]);

    if (fd == -1) {
        return 0;
    }

    (void) close(fd);

    reuse_starves = 0;

    return 1;
}


ngx_socket_t
ngx_http_upstream_reuse_recv_fd(ngx_uint_t i, ngx_uint_t serial)
{
    ngx_uint_t    found;
    ngx_socket_t  fd;

    for ( ;; ) {

        if (reuse_recv_message(i, &found, &fd) != NGX_OK) {
            return -1;
        }

        if (found == serial) {
            return fd;
        }

        if (fd != (ngx_socket_t) -1) {
            (void) ngx_close_socket(fd);
        }
    }
}


/* NGX_DECLINED: there is none.  The descriptor is -1 if it was lost. */

static ngx_int_t
reuse_recv_message(ngx_uint_t i, ngx_uint_t *serial, ngx_socket_t *fd)
{
    int              flags;
    reuse_message_t  m;

    reuse_prepare_message(&m, serial);

    /* so that it is closed on exec, as a socket of nginx's own is not */

#if defined(MSG_CMSG_CLOEXEC)
    flags = MSG_CMSG_CLOEXEC;
#else
    flags = 0;
#endif

    if (recvmsg(reuse_sockets[i][1], &m.msg, flags) != sizeof(ngx_uint_t)) {
        return NGX_DECLINED;
    }

    *fd = -1;

    if (m.msg.msg_controllen < CMSG_LEN(sizeof(int))
        || m.control.cm.cmsg_type != SCM_RIGHTS)
    {
        /* the process has no descriptor left */

        reuse_starves = 1;

        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                      "a shared connection was lost: the limit on open files "
                      "is too low");
        return NGX_OK;
    }

    ngx_memcpy(fd, CMSG_DATA(&m.control.cm), sizeof(int));

    return NGX_OK;
}
