
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the kernel knows of a TCP connection.  A file without nginx's headers,
 * since linux/tcp.h and the netinet/tcp.h that they include exclude each
 * other, and the latter lacks the fields in question.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_TCP_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_TCP_H_INCLUDED_


#include <stdint.h>


typedef struct {
    uint64_t   acked;     /* bytes that the peer has acknowledged, and SYN */
    uint32_t   rtt;       /* smoothed round trip, microseconds */
    uint32_t   min_rtt;   /* least of the last minutes, microseconds */

    uint32_t   silent;    /* the last segment came before so many
                             milliseconds */
    uint32_t   unacked;   /* segments that are on their way */
    uint32_t   retransmits;  /* so many times in a row nothing was answered */
    uint32_t   probes;    /* that have had no answer */

    /* the peer has ended its stream; the connection is no more */
    unsigned   close_wait:1;
    unsigned   closed:1;
} ngx_http_upstream_reuse_tcp_t;


/*
 * Reads TCP_INFO: one system call.  Returns 0, or -1 where it is not to be
 * had: other systems than Linux, Linux before 4.6, sockets of another kind.
 */
int ngx_http_upstream_reuse_read_tcp(int fd,
    ngx_http_upstream_reuse_tcp_t *tcp);

/*
 * Tells the end of a stream, which acknowledges all that had been received,
 * from a reset, which does not.  A reset behind the end leaves EPIPE, which is
 * taken from the socket, as it is by a write.
 */
int ngx_http_upstream_reuse_has_ended(int fd,
    ngx_http_upstream_reuse_tcp_t *tcp);

/*
 * Microseconds of the clock that nginx tells its own time by; 0 on systems
 * other than Linux.  As a rule it takes no system call.
 */
uint64_t ngx_http_upstream_reuse_clock(void);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_TCP_H_INCLUDED_ */
