
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What is expected of nginx's types, as far as it can be checked without
 * running anything: with others this file does not compile.
 */


#include "ngx_http_upstream_reuse_pool.h"


ngx_http_myproxy_static_assert(
    sizeof(struct sockaddr_in6) + sizeof(uint32_t)
    <= sizeof(((ngx_http_upstream_reuse_peer_t *) 0)->key.space),
    "the key of an IP address has room in a peer");

#if (NGX_HAVE_UNIX_DOMAIN)
ngx_http_myproxy_static_assert(
    sizeof(struct sockaddr_un) <= sizeof(ngx_sockaddr_t),
    "an idle connection has room for every address, and so for every key");
#endif

ngx_http_myproxy_static_assert(
    sizeof(((ngx_http_upstream_conf_t *) 0)->next_upstream)
    == sizeof(ngx_uint_t),
    "conditions of next_upstream can be added");

ngx_http_myproxy_static_assert(
    (NGX_PEER_FAILED & NGX_PEER_NEXT) == 0,
    "the states of a peer are bits");

ngx_http_myproxy_static_assert(
    NGX_TCP_NODELAY_DISABLED < 4 && NGX_TCP_NOPUSH_DISABLED < 4,
    "what a connection has been set to fits in two bits of a parcel");

ngx_http_myproxy_static_assert(
    sizeof(((ngx_http_upstream_rr_peer_t *) 0)->down) == sizeof(ngx_uint_t)
    && sizeof(((ngx_http_upstream_rr_peer_t *) 0)->conns)
       == sizeof(ngx_uint_t),
    "a balancer's servers are counted in whole words");

ngx_http_myproxy_static_assert(
    offsetof(ngx_str_node_t, node) == 0
    && offsetof(ngx_http_upstream_reuse_server_t, node) == 0,
    "a server is found as a node of a tree of strings");
