
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the layer does when the configuration is read, for a request, and for a
 * worker.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_LAYER_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_LAYER_H_INCLUDED_


#include "ngx_http_upstream_reuse_module.h"
#include "ngx_http_upstream_reuse_retry.h"
#include "ngx_http_upstream_reuse_sessions.h"


/* peer */

/* Stands before the peer functions of an upstream, as its peer.init. */
ngx_int_t ngx_http_upstream_reuse_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);

/* Stands in peer.get, by which find_peer() knows what is ours. */
ngx_int_t ngx_http_upstream_reuse_get_peer(ngx_peer_connection_t *pc,
    void *data);


/* handler */

/* What we have of a request's upstream; NULL if there is no layer. */
ngx_http_upstream_reuse_peer_t *ngx_http_upstream_reuse_find_peer(
    ngx_http_request_t *r);


/* directives */

extern ngx_conf_post_t  ngx_http_upstream_reuse_post;  /* of "reuse" */

char *ngx_http_upstream_reuse_set_expiry_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_probe_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_max_age_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_warm_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_limit_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_share_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_zone_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_upstream_reuse_set_sessions_slot(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);

/* How many bytes are enough for the servers and workers of a configuration. */
size_t ngx_http_upstream_reuse_default_zone_size(ngx_conf_t *cf);


/* worker: callbacks of the module */

ngx_int_t ngx_http_upstream_reuse_init_module(ngx_cycle_t *cycle);
ngx_int_t ngx_http_upstream_reuse_init_process(ngx_cycle_t *cycle);
void ngx_http_upstream_reuse_exit_process(ngx_cycle_t *cycle);


/* variables */

/*
 * $reuse_connection, $reuse_reason (..._new_e, ..._refused_e),
 * $reuse_requests, $reuse_age (since it was opened), $reuse_idle,
 * $reuse_fate (..._close_e), $reuse_queue_time
 *
 * They are read when the request is logged, and rp->server and rp->conn may be
 * gone by then: what is of them is copied to rp->account while the attempt
 * has its connection (peer.c).
 */

ngx_int_t ngx_http_upstream_reuse_add_variables(ngx_conf_t *cf);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_LAYER_H_INCLUDED_ */
