
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the resolver has answered for names that variables bring.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_ANSWERS_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_ANSWERS_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"


/*
 * The resolver has answered with addresses for a name that a variable has
 * brought.  Connections that were opened for the name before, to an address
 * that is not among them, are closed: by each worker, once count_answers() has
 * changed (drain.c), and where they are parked (sweep.c).  Returns the number
 * of the name in all workers (conn->target); 0: there is none.
 *
 * A name is only resolved for a request, by src/proxy.  This worker remembers
 * for each name which resolver was asked and until when the answer holds.
 */
ngx_uint_t ngx_http_upstream_reuse_note_answer(ngx_resolver_ctx_t *rctx);

/*
 * A request of the unbounded upstream goes to that name.  To be called in its
 * peer.init.
 */
void ngx_http_upstream_reuse_set_target(ngx_http_request_t *r,
    ngx_uint_t target);

/* Adds the shared memory; NULL if there is no memory. */
ngx_shm_zone_t *ngx_http_upstream_reuse_add_answers(ngx_conf_t *cf);

/* A number that is another one when any worker has had an answer. */
ngx_atomic_uint_t ngx_http_upstream_reuse_count_answers(
    ngx_shm_zone_t *shm_zone);

/*
 * Tells whether the last answer for the name of a connection, which was opened
 * before, lacks its address.
 */
ngx_uint_t ngx_http_upstream_reuse_is_unanswered(ngx_shm_zone_t *shm_zone,
    ngx_uint_t target, struct sockaddr *sockaddr, ngx_msec_t start);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_ANSWERS_H_INCLUDED_ */
