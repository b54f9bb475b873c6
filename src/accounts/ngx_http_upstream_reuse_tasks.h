
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What a worker does from time to time.  All of it has one timer of nginx, as
 * each timer makes those of every request a little dearer.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_TASKS_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_TASKS_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"


typedef struct {
    void                           (*handler)(void);
    ngx_msec_t                       due;
    ngx_queue_t                      queue;
    ngx_uint_t                       scheduled;  /* unsigned  scheduled:1; */
} ngx_http_upstream_reuse_task_t;

/* of the worker, to be scheduled */
#define ngx_http_upstream_reuse_task(handler)                                 \
    { handler, 0, { NULL, NULL }, 0 }


/*
 * Has handler() called once, in so many milliseconds, whenever it would have
 * been called before.  A worker that is to end does not wait for it.
 */
void ngx_http_upstream_reuse_schedule(ngx_http_upstream_reuse_task_t *task,
    ngx_msec_t delay);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_TASKS_H_INCLUDED_ */
