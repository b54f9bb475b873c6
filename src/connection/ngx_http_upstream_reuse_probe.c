
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The kernel's keepalive probes on kept connections.
 */


#include "ngx_http_upstream_reuse_connection.h"


#if (NGX_HAVE_KEEPALIVE_TUNABLE)

static void reuse_set_option(ngx_connection_t *c, int level, int option,
    const char *name, int value);

#endif


/*
 * Of the devices that forget, few do so in less than a minute; those of clouds
 * take 240 or 350 seconds.
 */

ngx_http_upstream_reuse_probe_t  ngx_http_upstream_reuse_default_probe = {
    45, 15, 0
};


void
ngx_http_upstream_reuse_set_probe(ngx_http_upstream_reuse_conn_t *conn,
    ngx_http_upstream_conf_t *conf)
{
#if (NGX_HAVE_KEEPALIVE_TUNABLE)

    ngx_connection_t                 *c;
    ngx_http_upstream_reuse_probe_t  *probe;

    probe = conn->conf->probe;
    c = conn->connection;

    if (probe == NULL || conn->sockaddr->sa_family == AF_UNIX) {
        return;
    }

    reuse_set_option(c, IPPROTO_TCP, TCP_KEEPIDLE, "TCP_KEEPIDLE",
                     probe->idle);
    reuse_set_option(c, IPPROTO_TCP, TCP_KEEPINTVL, "TCP_KEEPINTVL",
                     probe->interval);

    if (probe->count) {
        reuse_set_option(c, IPPROTO_TCP, TCP_KEEPCNT, "TCP_KEEPCNT",
                         probe->count);
    }

    if (!conf->socket_keepalive) {
        reuse_set_option(c, SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE", 1);
    }

#endif
}


#if (NGX_HAVE_KEEPALIVE_TUNABLE)

static void
reuse_set_option(ngx_connection_t *c, int level, int option, const char *name,
    int value)
{
    if (setsockopt(c->fd, level, option, (const void *) &value, sizeof(int))
        == -1)
    {
        ngx_log_error(NGX_LOG_ALERT, c->log, ngx_socket_errno,
                      "setsockopt(%s) failed, ignored", name);
    }
}

#endif


/*
 * The kernel counts the probes since the last one that was answered, and a
 * probe that was answered with a reset is among them.
 */

ngx_uint_t
ngx_http_upstream_reuse_is_lost(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_http_upstream_reuse_tcp_t  tcp;

    return conn->sockaddr->sa_family != AF_UNIX
           && ngx_http_upstream_reuse_read_tcp(conn->connection->fd, &tcp)
              == 0
           && tcp.closed
           && tcp.probes;
}
