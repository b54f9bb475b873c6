
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Connections that a device on the way has forgotten, or whose server is gone,
 * without a packet that says so.  Probes keep idle ones known to the device,
 * and a request that meets a dead one does not wait for "read_timeout".
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_SILENCE_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_SILENCE_H_INCLUDED_


#include "ngx_http_upstream_reuse_limit.h"


/* silence */

/* worker: requests that have had no answer so far, the oldest first */
extern ngx_queue_t  ngx_http_upstream_reuse_waiting;

/* worker: these will be looked at, once that has begun */
extern ngx_http_upstream_reuse_task_t  ngx_http_upstream_reuse_look_task;
void ngx_http_upstream_reuse_begin_looks(void);

/*
 * A request is about to be sent on a kept connection.  If nothing of it is
 * acknowledged, it ends early, as after a timeout or as if the connection had
 * failed: rp->watch.silent is set then.  Each request pays for it, so that it
 * stands here.
 */
static ngx_inline void
ngx_http_upstream_reuse_begin_wait(ngx_http_upstream_reuse_peer_t *rp)
{
    rp->watch.begun = ngx_current_msec;

    ngx_queue_insert_tail(&ngx_http_upstream_reuse_waiting, &rp->watch.queue);

    if (!ngx_http_upstream_reuse_look_task.scheduled) {
        ngx_http_upstream_reuse_begin_looks();
    }
}

/*
 * The first byte of a response is there, or the attempt is over, while
 * rp->watch.waiting is set.
 */
#define ngx_http_upstream_reuse_end_wait(rp)                                  \
    ngx_queue_remove(&(rp)->watch.queue)

/*
 * Tells whether a request on a kept connection has no answer so far, and is
 * not known to have been received.
 */
#define ngx_http_upstream_reuse_may_be_lost(rp)                               \
    ((rp)->watch.waiting && !ngx_queue_empty(&(rp)->watch.queue))

/* Tells whether ngx_http_upstream_next() will not ask for a peer any more. */
ngx_uint_t ngx_http_upstream_reuse_gives_up(
    ngx_http_upstream_reuse_peer_t *rp);

/*
 * Tells whether a connection that was idle for so many milliseconds has been
 * idle since a request on another connection to its server met silence, or
 * since before.  To be asked if record->silent is not 0.
 */
ngx_uint_t ngx_http_upstream_reuse_is_suspect(
    ngx_http_upstream_reuse_conn_t *conn, ngx_msec_t age);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_SILENCE_H_INCLUDED_ */
