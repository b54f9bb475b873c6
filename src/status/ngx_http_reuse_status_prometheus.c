
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Prometheus' text format, version 0.0.4.  docs/status.md lists the metrics.
 */


#include "ngx_http_reuse_status.h"


/* a metric of each server: what is written by values, or else a counter */

typedef struct {
    const char  *name;
    const char  *type;
    const char  *help;
    void       (*values)(ngx_http_reuse_status_text_t *text,
                         ngx_http_upstream_reuse_view_t *view,
                         const char *name);
    ngx_uint_t   counter;
} prometheus_metric_t;


static ngx_uint_t prometheus_is_removed(
    ngx_http_upstream_reuse_view_t *view);
static void prometheus_metric(ngx_http_reuse_status_text_t *text,
    prometheus_metric_t *metric, ngx_http_upstream_reuse_view_t *view);
static void prometheus_zone(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
static void prometheus_queues(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
static void prometheus_queue(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_upstream_view_t *upstream, const char *name,
    const char *reason, ngx_atomic_uint_t number);
static void prometheus_head(ngx_http_reuse_status_text_t *text,
    const char *name, const char *type, const char *help);
static void prometheus_labels(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);

static void prometheus_line(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name, const char *label,
    const char *value, ngx_atomic_uint_t number);

static void prometheus_attempts(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_attempt(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name,
    const char *connection, const char *reason, ngx_atomic_uint_t number);
static void prometheus_closed(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_open(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_most(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_parked(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_stale(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_held_back(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_handshakes(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_connect_time(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_handshake_time(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_saved(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_limit(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_round_trip(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name);
static void prometheus_histogram(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name,
    ngx_atomic_uint_t *bucket);


static prometheus_metric_t  prometheus_metrics[] = {

    { "nginx_reuse_attempts_total", "counter",
      "Attempts to pass a request to a server, by how it got its connection; "
      "a request that is tried twice counts twice.",
      prometheus_attempts, 0 },

    { "nginx_reuse_connections_opened_total", "counter",
      "Connections opened, including attempts that failed, which are closed "
      "with the reason connect_failed.",
      NULL, NGX_HTTP_UPSTREAM_REUSE_OPENED },

    { "nginx_reuse_connections_closed_total", "counter",
      "Connections closed, by reason, and by whose side the cause is on.",
      prometheus_closed, 0 },

    { "nginx_reuse_connections_open", "gauge",
      "Connections that are open, idle ones included.",
      prometheus_open, 0 },

    { "nginx_reuse_connections_limit", "gauge",
      "Connections that may be open, by reuse_limit or max_conns.",
      prometheus_most, 0 },

    { "nginx_reuse_connections_idle", "gauge",
      "Connections that wait for a request.",
      NULL, NGX_HTTP_UPSTREAM_REUSE_IDLE },

    { "nginx_reuse_connections_parked", "gauge",
      "Idle connections that any worker process may take.",
      prometheus_parked, 0 },

    { "nginx_reuse_connections_handed_over_total", "counter",
      "Times that a worker process left an idle connection to all of them.",
      NULL, NGX_HTTP_UPSTREAM_REUSE_HANDED_OVER },

    { "nginx_reuse_connections_taken_over_total", "counter",
      "Times that a worker process took such a connection for a request.",
      NULL, NGX_HTTP_UPSTREAM_REUSE_TAKEN_OVER },

    { "nginx_reuse_stale_requests_total", "counter",
      "Requests that failed on a kept connection before any byte of a "
      "response, by what became of them.",
      prometheus_stale, 0 },

    { "nginx_reuse_warm_opened_total", "counter",
      "Connections opened before they were needed, including attempts that "
      "failed; those used are attempts with the connection warm.",
      NULL, NGX_HTTP_UPSTREAM_REUSE_AHEAD },

    { "nginx_reuse_warm_unused_total", "counter",
      "Connections opened before they were needed, and closed without having "
      "served a request.",
      NULL, NGX_HTTP_UPSTREAM_REUSE_UNUSED },

    { "nginx_reuse_warm_held_back", "gauge",
      "Servers to which fewer connections are opened before they are needed "
      "than wanted, by reason; 0 or 1 for one server.",
      prometheus_held_back, 0 },

    { "nginx_reuse_tls_handshakes_total", "counter",
      "TLS handshakes, full ones and resumed sessions.",
      prometheus_handshakes, 0 },

    { "nginx_reuse_connect_duration_seconds", "histogram",
      "Time to open a TCP connection; below 2 ms the kernel's round trip "
      "time is taken.",
      prometheus_connect_time, 0 },

    { "nginx_reuse_tls_handshake_duration_seconds", "histogram",
      "Time for a TLS handshake.",
      prometheus_handshake_time, 0 },

    { "nginx_reuse_estimated_saved_seconds", "gauge",
      "Estimate of the time that attempts, reused and warm, did not wait for "
      "a connection; may decrease.",
      prometheus_saved, 0 },

    { "nginx_reuse_learned_idle_limit_seconds", "gauge",
      "Idle time after which the server closes connections; absent if "
      "nothing was learned.",
      prometheus_limit, 0 },

    { "nginx_reuse_round_trip_min_seconds", "gauge",
      "Smallest TCP round trip time that was measured; absent if none was.",
      prometheus_round_trip, 0 },

    { NULL, NULL, NULL, NULL, 0 }
};


void
ngx_http_reuse_status_prometheus(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    ngx_uint_t                                i;
    prometheus_metric_t                      *metric;
    ngx_http_upstream_reuse_view_t           *view;
    ngx_http_upstream_reuse_upstream_view_t  *upstream;

    prometheus_zone(text, shot);

    view = shot->servers.elts;
    upstream = shot->upstreams.elts;

    for (metric = prometheus_metrics; metric->name; metric++) {
        prometheus_head(text, metric->name, metric->type, metric->help);

        if (shot->servers.nelts > text->servers) {

            for (i = 0; i < shot->upstreams.nelts; i++) {
                prometheus_metric(text, metric, &upstream[i].sum);
            }

            continue;
        }

        for (i = 0; i < shot->servers.nelts; i++) {
            if (!prometheus_is_removed(&view[i])) {
                prometheus_metric(text, metric, &view[i]);
            }
        }
    }

    prometheus_queues(text, shot);
}


/* What it gets all at once when a server goes, would be taken for a rate. */

static ngx_uint_t
prometheus_is_removed(ngx_http_upstream_reuse_view_t *view)
{
    return view->address.len
           == sizeof(NGX_HTTP_UPSTREAM_REUSE_REMOVED) - 1
           && ngx_strncmp(view->address.data, NGX_HTTP_UPSTREAM_REUSE_REMOVED,
                          view->address.len)
              == 0;
}


/* Requests wait for any server of an upstream. */

static void
prometheus_queues(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    ngx_uint_t                                i;
    ngx_http_upstream_reuse_upstream_view_t  *upstream;

    upstream = shot->upstreams.elts;

    prometheus_head(text, "nginx_reuse_queue_waiting", "gauge",
                    "Requests that wait for a connection.");

    for (i = 0; i < shot->upstreams.nelts; i++) {
        prometheus_queue(text, &upstream[i], "nginx_reuse_queue_waiting", NULL,
                         upstream[i].queue.waiting);
    }

    prometheus_head(text, "nginx_reuse_queue_limit", "gauge",
                    "Requests that may wait for a connection.");

    for (i = 0; i < shot->upstreams.nelts; i++) {
        if (upstream[i].queue.bounded) {
            prometheus_queue(text, &upstream[i], "nginx_reuse_queue_limit",
                             NULL, upstream[i].queue.most);
        }
    }

    prometheus_head(text, "nginx_reuse_queue_waited_total", "counter",
                    "Requests that had to wait for a connection.");

    for (i = 0; i < shot->upstreams.nelts; i++) {
        prometheus_queue(text, &upstream[i], "nginx_reuse_queue_waited_total",
                         NULL, upstream[i].queue.waited);
    }

    prometheus_head(text, "nginx_reuse_queue_refused_total", "counter",
                    "Requests answered 503 because no connection was free, by "
                    "reason.");

    for (i = 0; i < shot->upstreams.nelts; i++) {
        prometheus_queue(text, &upstream[i], "nginx_reuse_queue_refused_total",
                         "full", upstream[i].queue.full);
        prometheus_queue(text, &upstream[i], "nginx_reuse_queue_refused_total",
                         "timeout", upstream[i].queue.timeout);
    }
}


static void
prometheus_queue(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_upstream_view_t *upstream, const char *name,
    const char *reason, ngx_atomic_uint_t number)
{
    if (!upstream->queue.limited) {
        return;
    }

    ngx_http_reuse_status_write(text, "%s{upstream=", name);
    ngx_http_reuse_status_write_label(text, &upstream->sum.upstream);

    if (reason) {
        ngx_http_reuse_status_write(text, ",reason=\"%s\"", reason);
    }

    ngx_http_reuse_status_write(text, "} %uA\n", number);
}


static void
prometheus_metric(ngx_http_reuse_status_text_t *text,
    prometheus_metric_t *metric, ngx_http_upstream_reuse_view_t *view)
{
    if (metric->values) {
        metric->values(text, view, metric->name);
        return;
    }

    prometheus_line(text, view, metric->name, NULL, NULL,
                    view->counters[metric->counter]);
}


static void
prometheus_zone(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    prometheus_head(text, "nginx_reuse_build_info", "gauge",
                    "Always 1: the versions of the module and of nginx.");
    ngx_http_reuse_status_write(text,
        "nginx_reuse_build_info{version=\"%s\",nginx_version=\"%s\"} 1\n",
        NGX_HTTP_MYPROXY_VERSION, NGINX_VERSION);

    prometheus_head(text, "nginx_reuse_start_time_seconds", "gauge",
                    "Time since which is counted, in seconds since 1970.");
    ngx_http_reuse_status_write(text, "nginx_reuse_start_time_seconds %T\n",
                                shot->started);

    prometheus_head(text, "nginx_reuse_zone_size_bytes", "gauge",
                    "Size of reuse_zone, in which counters are kept.");
    ngx_http_reuse_status_write(text, "nginx_reuse_zone_size_bytes %uz\n",
                                shot->size);

    prometheus_head(text, "nginx_reuse_zone_free_bytes", "gauge",
                    "Free memory of reuse_zone; counted in whole pages.");
    ngx_http_reuse_status_write(text, "nginx_reuse_zone_free_bytes %uz\n",
                                shot->free);

    prometheus_head(text, "nginx_reuse_zone_full", "gauge",
                    "1 if reuse_zone has no room for further servers.");
    ngx_http_reuse_status_write(text, "nginx_reuse_zone_full %ui\n",
                                shot->full);

    prometheus_head(text, "nginx_reuse_uncounted_requests_total", "counter",
                    "Requests not counted because reuse_zone is full.");
    ngx_http_reuse_status_write(text,
                                "nginx_reuse_uncounted_requests_total %uA\n",
                                shot->uncounted);

    prometheus_head(text, "nginx_reuse_servers", "gauge",
                    "Servers that are known, each of which has metrics of its "
                    "own unless there are too many.");
    ngx_http_reuse_status_write(text, "nginx_reuse_servers %ui\n",
                                shot->servers.nelts);

    prometheus_head(text, "nginx_reuse_workers", "gauge",
                    "Worker processes alive, old ones after a reload "
                    "included.");
    ngx_http_reuse_status_write(text, "nginx_reuse_workers %ui\n",
                                shot->workers);

    prometheus_head(text, "nginx_reuse_config_warnings", "gauge",
                    "Settings in force that defeat reuse; reuse off is none.");
    ngx_http_reuse_status_write(text, "nginx_reuse_config_warnings %ui\n",
                                shot->warnings->nelts);
}


static void
prometheus_head(ngx_http_reuse_status_text_t *text, const char *name,
    const char *type, const char *help)
{
    ngx_http_reuse_status_write(text, "# HELP %s %s\n# TYPE %s %s\n",
                                name, help, name, type);
}


/* The labels of a server; the braces are left open. */

static void
prometheus_labels(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    ngx_http_reuse_status_write(text, "%s{upstream=", name);
    ngx_http_reuse_status_write_label(text, &view->upstream);
    ngx_http_reuse_status_write(text, ",server=");
    ngx_http_reuse_status_write_label(text, &view->address);
}


/* A line with a further label, if its name is not NULL. */

static void
prometheus_line(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name, const char *label,
    const char *value, ngx_atomic_uint_t number)
{
    prometheus_labels(text, view, name);

    if (label) {
        ngx_http_reuse_status_write(text, ",%s=\"%s\"", label, value);
    }

    ngx_http_reuse_status_write(text, "} %uA\n", number);
}


static void
prometheus_attempts(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    ngx_uint_t                         i;
    ngx_atomic_uint_t                 *n;
    ngx_http_upstream_reuse_reason_t  *reason;

    n = view->counters;

    prometheus_attempt(text, view, name, "reused", "",
                       n[NGX_HTTP_UPSTREAM_REUSE_REUSED]);
    prometheus_attempt(text, view, name, "warm", "",
                       n[NGX_HTTP_UPSTREAM_REUSE_WARM]);

    for (i = NGX_HTTP_UPSTREAM_REUSE_NEW_NONE + 1;
         i < NGX_HTTP_UPSTREAM_REUSE_NEW_LAST;
         i++)
    {
        reason = &ngx_http_upstream_reuse_new_reasons[i];

        prometheus_attempt(text, view, name, "new", (char *) reason->name.data,
                           n[NGX_HTTP_UPSTREAM_REUSE_NEW + i]);
    }
}


static void
prometheus_attempt(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name,
    const char *connection, const char *reason, ngx_atomic_uint_t number)
{
    prometheus_labels(text, view, name);
    ngx_http_reuse_status_write(text,
                                ",connection=\"%s\",reason=\"%s\"} %uA\n",
                                connection, reason, number);
}


static void
prometheus_closed(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    ngx_uint_t                         i;
    ngx_atomic_uint_t                 *closed;
    ngx_http_upstream_reuse_reason_t  *reason;

    closed = &view->counters[NGX_HTTP_UPSTREAM_REUSE_CLOSED];

    for (i = NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT + 1;
         i < NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST;
         i++)
    {
        reason = &ngx_http_upstream_reuse_close_reasons[i];

        prometheus_labels(text, view, name);
        ngx_http_reuse_status_write(text, ",reason=\"%V\",by=\"%s\"} %uA\n",
                                    &reason->name, reason->by, closed[i]);
    }
}


static void
prometheus_open(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    prometheus_line(text, view, name, NULL, NULL, view->open);
}


static void
prometheus_most(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    if (view->most) {
        prometheus_line(text, view, name, NULL, NULL, view->most);
    }
}


static void
prometheus_parked(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    prometheus_line(text, view, name, NULL, NULL, view->parked);
}


static void
prometheus_stale(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    ngx_atomic_uint_t  *n;

    n = view->counters;

    prometheus_line(text, view, name, "outcome", "resent",
                    n[NGX_HTTP_UPSTREAM_REUSE_PROVEN]);
    prometheus_line(text, view, name, "outcome", "unproven",
                    n[NGX_HTTP_UPSTREAM_REUSE_UNPROVEN]);
    prometheus_line(text, view, name, "outcome", "not_resendable",
                    n[NGX_HTTP_UPSTREAM_REUSE_LOST]);
    prometheus_line(text, view, name, "outcome", "resent_silent",
                    n[NGX_HTTP_UPSTREAM_REUSE_RENEWED]);
}


static void
prometheus_held_back(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    prometheus_line(text, view, name, "reason", "unpaid", view->unpaid);
    prometheus_line(text, view, name, "reason", "starving", view->starving);
}


static void
prometheus_handshakes(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    ngx_atomic_uint_t  *n;

    n = view->counters;

    prometheus_line(text, view, name, "kind", "full",
                    n[NGX_HTTP_UPSTREAM_REUSE_HANDSHAKES_FULL]);
    prometheus_line(text, view, name, "kind", "resumed",
                    n[NGX_HTTP_UPSTREAM_REUSE_HANDSHAKES_RESUMED]);
}


static void
prometheus_connect_time(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    prometheus_histogram(text, view, name,
                         &view->counters[NGX_HTTP_UPSTREAM_REUSE_CONNECT]);
}


static void
prometheus_handshake_time(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    prometheus_histogram(text, view, name,
                         &view->counters[NGX_HTTP_UPSTREAM_REUSE_TLS]);
}


static void
prometheus_saved(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    prometheus_labels(text, view, name);
    ngx_http_reuse_status_write(text, "} %uL.%06uL\n", view->saved / 1000000,
                                view->saved % 1000000);
}


/* What is not known is left out. */

static void
prometheus_limit(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    if (view->idle_limit) {
        prometheus_labels(text, view, name);
        ngx_http_reuse_status_write(text, "} %M.%03M\n",
                                    view->idle_limit / 1000,
                                    view->idle_limit % 1000);
    }
}


static void
prometheus_round_trip(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name)
{
    if (view->rtt) {
        prometheus_labels(text, view, name);
        ngx_http_reuse_status_write(text, "} %ui.%06ui\n",
                                    view->rtt / 1000000, view->rtt % 1000000);
    }
}


/* Here each bucket includes those before. */

static void
prometheus_histogram(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, const char *name,
    ngx_atomic_uint_t *bucket)
{
    char                full[NGX_MAX_CONF_ERRSTR];
    uint64_t            us;
    ngx_uint_t          i;
    ngx_atomic_uint_t   count;

    count = 0;

    (void) ngx_sprintf((u_char *) full, "%s_bucket%Z", name);

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_BUCKETS; i++) {
        count += bucket[i];

        prometheus_labels(text, view, full);

        if (i == NGX_HTTP_UPSTREAM_REUSE_BUCKETS - 1) {
            ngx_http_reuse_status_write(text, ",le=\"+Inf\"} %uA\n", count);
            break;
        }

        us = ngx_http_upstream_reuse_bounds[i];

        ngx_http_reuse_status_write(text, ",le=\"%uL.%04uL\"} %uA\n",
                                    us / 1000000, us % 1000000 / 100, count);
    }

    us = bucket[NGX_HTTP_UPSTREAM_REUSE_BUCKETS];

    (void) ngx_sprintf((u_char *) full, "%s_sum%Z", name);
    prometheus_labels(text, view, full);
    ngx_http_reuse_status_write(text, "} %uL.%06uL\n", us / 1000000,
                                us % 1000000);

    (void) ngx_sprintf((u_char *) full, "%s_count%Z", name);
    prometheus_labels(text, view, full);
    ngx_http_reuse_status_write(text, "} %uA\n", count);
}
