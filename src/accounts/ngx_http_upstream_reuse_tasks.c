
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The few tasks of a worker are in a queue without order, and nginx's timer
 * is set for the one that is due first.
 */


#include "ngx_http_upstream_reuse_tasks.h"


static void reuse_set_timer(ngx_http_upstream_reuse_task_t *task);
static void reuse_timer_handler(ngx_event_t *ev);


/* worker */

static ngx_queue_t       reuse_tasks = { &reuse_tasks, &reuse_tasks };
static ngx_event_t       reuse_timer;
static ngx_connection_t  reuse_dummy;


void
ngx_http_upstream_reuse_schedule(ngx_http_upstream_reuse_task_t *task,
    ngx_msec_t delay)
{
    task->due = ngx_current_msec + delay;

    if (!task->scheduled) {
        ngx_queue_insert_tail(&reuse_tasks, &task->queue);
        task->scheduled = 1;
    }

    reuse_set_timer(task);
}


/* The timer must not be late; one that is early does no harm. */

static void
reuse_set_timer(ngx_http_upstream_reuse_task_t *task)
{
    ngx_msec_int_t  left;

    if (reuse_timer.timer_set) {

        if ((ngx_msec_int_t) (task->due - reuse_timer.timer.key) >= 0) {
            return;
        }

        /* otherwise nginx might leave it where it is */

        ngx_del_timer(&reuse_timer);
    }

    /* a debug log names the connection of a timer */

    reuse_dummy.fd = (ngx_socket_t) -1;

    reuse_timer.handler = reuse_timer_handler;
    reuse_timer.data = &reuse_dummy;
    reuse_timer.log = ngx_cycle->log;
    reuse_timer.cancelable = 1;

    left = (ngx_msec_int_t) (task->due - ngx_current_msec);

    ngx_add_timer(&reuse_timer, (ngx_msec_t) ngx_max(left, 0));
}


/* A handler may schedule tasks, and takes none away. */

static void
reuse_timer_handler(ngx_event_t *ev)
{
    ngx_queue_t                     *q;
    ngx_http_upstream_reuse_task_t  *task;

    q = ngx_queue_head(&reuse_tasks);

    while (q != ngx_queue_sentinel(&reuse_tasks)) {

        task = ngx_queue_data(q, ngx_http_upstream_reuse_task_t, queue);
        q = ngx_queue_next(q);

        if ((ngx_msec_int_t) (task->due - ngx_current_msec) > 0) {
            continue;
        }

        ngx_queue_remove(&task->queue);
        task->scheduled = 0;

        task->handler();
    }

    for (q = ngx_queue_head(&reuse_tasks);
         q != ngx_queue_sentinel(&reuse_tasks);
         q = ngx_queue_next(q))
    {
        reuse_set_timer(ngx_queue_data(q, ngx_http_upstream_reuse_task_t,
                                       queue));
    }
}
