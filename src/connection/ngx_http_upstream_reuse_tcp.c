
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_upstream_reuse_tcp.h"


#if defined(__linux__)

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <linux/tcp.h>


/* the kernel's states of a connection, which linux/tcp.h does not name */

#define REUSE_TCP_CLOSE       7
#define REUSE_TCP_CLOSE_WAIT  8


int
ngx_http_upstream_reuse_read_tcp(int fd, ngx_http_upstream_reuse_tcp_t *tcp)
{
    socklen_t        len;
    struct tcp_info  info;

    memset(&info, 0, sizeof(info));
    len = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == -1) {
        return -1;
    }

    if (len < offsetof(struct tcp_info, tcpi_min_rtt)
              + sizeof(info.tcpi_min_rtt))
    {
        return -1;
    }

    tcp->acked = info.tcpi_bytes_acked;
    tcp->rtt = info.tcpi_rtt;
    tcp->silent = info.tcpi_last_ack_recv;
    tcp->unacked = info.tcpi_unacked;
    tcp->retransmits = info.tcpi_retransmits;
    tcp->probes = info.tcpi_probes;

    /* all bits are set before there is a measurement */

    tcp->min_rtt = (info.tcpi_min_rtt == UINT32_MAX) ? 0 : info.tcpi_min_rtt;

    tcp->close_wait = (info.tcpi_state == REUSE_TCP_CLOSE_WAIT);
    tcp->closed = (info.tcpi_state == REUSE_TCP_CLOSE);

    return 0;
}


int
ngx_http_upstream_reuse_has_ended(int fd, ngx_http_upstream_reuse_tcp_t *tcp)
{
    int        err;
    socklen_t  len;

    if (tcp->close_wait) {
        return 1;
    }

    err = 0;
    len = sizeof(int);

    return tcp->closed
           && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0
           && err == EPIPE;
}


uint64_t
ngx_http_upstream_reuse_clock(void)
{
    struct timespec  ts;

    if (clock_gettime(CLOCK_MONOTONIC, &ts) == -1) {
        return 0;
    }

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

#else

int
ngx_http_upstream_reuse_read_tcp(int fd, ngx_http_upstream_reuse_tcp_t *tcp)
{
    return -1;
}


int
ngx_http_upstream_reuse_has_ended(int fd, ngx_http_upstream_reuse_tcp_t *tcp)
{
    return 0;
}


uint64_t
ngx_http_upstream_reuse_clock(void)
{
    return 0;
}

#endif
