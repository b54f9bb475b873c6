
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * docs/status.schema.json describes it.  Members are added to a version, but
 * none changes its meaning or goes away.
 */


#include "ngx_http_reuse_status.h"


#define NGX_HTTP_REUSE_STATUS_VERSION  1


static void json_upstreams(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
static void json_servers(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, ngx_uint_t n);
static void json_queue(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_queue_view_t *queue);
static void json_limit(ngx_http_reuse_status_text_t *text,
    ngx_uint_t limited, ngx_uint_t limit);
static void json_view(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view);
static void json_named(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_reason_t *reasons,
    ngx_atomic_uint_t *counters, ngx_uint_t first, ngx_uint_t last);
static void json_sides(ngx_http_reuse_status_text_t *text,
    ngx_atomic_uint_t *closed);
static void json_histogram(ngx_http_reuse_status_text_t *text,
    ngx_atomic_uint_t *bucket, ngx_atomic_uint_t count);
static void json_seconds(ngx_http_reuse_status_text_t *text, uint64_t us);


void
ngx_http_reuse_status_json(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    ngx_str_t                         *warning;
    ngx_uint_t                         i;
    ngx_http_upstream_reuse_sample_t  *sample;

    ngx_http_reuse_status_write(text,
        "{\"format_version\":%d,\"module_version\":\"%s\","
        "\"nginx_version\":\"%s\",\"time_seconds\":%T,"
        "\"start_time_seconds\":%T,\"workers\":%ui,"
        "\"zone\":{\"size_bytes\":%uz,\"free_bytes\":%uz,\"full\":%s,"
        "\"uncounted_requests\":%uA},",
        NGX_HTTP_REUSE_STATUS_VERSION, NGX_HTTP_MYPROXY_VERSION, NGINX_VERSION,
        ngx_time(), shot->started, shot->workers, shot->size, shot->free,
        shot->full ? "true" : "false", shot->uncounted);

    ngx_http_reuse_status_write(text, "\"warnings\":[");

    warning = shot->warnings->elts;

    for (i = 0; i < shot->warnings->nelts; i++) {
        ngx_http_reuse_status_write(text, i ? "," : "");
        ngx_http_reuse_status_write_json(text, &warning[i]);
    }

    ngx_http_reuse_status_write(text,
        "],\"history\":{\"interval_seconds\":%d,\"samples\":[",
        NGX_HTTP_UPSTREAM_REUSE_INTERVAL);

    sample = shot->samples.elts;

    for (i = 0; i < shot->samples.nelts; i++) {
        ngx_http_reuse_status_write(text, "%s{\"attempts\":%uA,\"ready\":%uA}",
                                    i ? "," : "", sample[i].requests,
                                    sample[i].ready);
    }

    ngx_http_reuse_status_write(text, "]},\"total\":{");
    json_queue(text, &shot->queue);
    json_view(text, &shot->total);
    ngx_http_reuse_status_write(text, "},\"upstreams\":[");
    json_upstreams(text, shot);
    ngx_http_reuse_status_write(text, "]}\n");
}


static void
json_upstreams(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    ngx_uint_t                                i;
    ngx_http_upstream_reuse_upstream_view_t  *upstream;

    upstream = shot->upstreams.elts;

    for (i = 0; i < shot->upstreams.nelts; i++) {
        ngx_http_reuse_status_write(text, "%s{\"name\":", i ? "," : "");
        ngx_http_reuse_status_write_json(text, &upstream[i].sum.upstream);
        ngx_http_reuse_status_write(text, ",");
        json_queue(text, &upstream[i].queue);
        json_view(text, &upstream[i].sum);
        ngx_http_reuse_status_write(text, ",\"servers\":[");
        json_servers(text, upstream[i].servers, upstream[i].nservers);
        ngx_http_reuse_status_write(text, "]}");
    }
}


static void
json_queue(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_queue_view_t *queue)
{
    ngx_http_reuse_status_write(text,
        "\"queue\":{\"waiting\":%uA,\"waited\":%uA,\"refused\":{"
        "\"full\":%uA,\"timeout\":%uA},\"limit\":",
        queue->waiting, queue->waited, queue->full, queue->timeout);
    json_limit(text, queue->bounded, queue->most);
    ngx_http_reuse_status_write(text, "},");
}


static void
json_limit(ngx_http_reuse_status_text_t *text, ngx_uint_t limited,
    ngx_uint_t limit)
{
    if (limited) {
        ngx_http_reuse_status_write(text, "%ui", limit);

    } else {
        ngx_http_reuse_status_write(text, "null");
    }
}


static void
json_servers(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {

        ngx_http_reuse_status_write(text, "%s{\"address\":", i ? "," : "");
        ngx_http_reuse_status_write_json(text, &view[i].address);
        ngx_http_reuse_status_write(text, ",\"connections_limit\":");
        json_limit(text, view[i].most, view[i].most);
        ngx_http_reuse_status_write(text, ",\"learned_idle_limit_seconds\":");

        if (view[i].idle_limit) {
            json_seconds(text, (uint64_t) view[i].idle_limit * 1000);

        } else {
            ngx_http_reuse_status_write(text, "null");
        }

        ngx_http_reuse_status_write(text, ",\"round_trip_min_seconds\":");

        if (view[i].rtt) {
            json_seconds(text, view[i].rtt);

        } else {
            ngx_http_reuse_status_write(text, "null");
        }

        ngx_http_reuse_status_write(text, ",");
        json_view(text, &view[i]);
        ngx_http_reuse_status_write(text, "}");
    }
}


static void
json_view(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view)
{
    ngx_atomic_uint_t  *n;

    n = view->counters;

    ngx_http_reuse_status_write(text,
        "\"attempts\":{\"total\":%uA,\"reused\":%uA,\"warm\":%uA,\"new\":%uA,"
        "\"new_by_reason\":{",
        view->requests, n[NGX_HTTP_UPSTREAM_REUSE_REUSED],
        n[NGX_HTTP_UPSTREAM_REUSE_WARM], view->fresh);

    json_named(text, ngx_http_upstream_reuse_new_reasons,
               &n[NGX_HTTP_UPSTREAM_REUSE_NEW],
               NGX_HTTP_UPSTREAM_REUSE_NEW_NONE + 1,
               NGX_HTTP_UPSTREAM_REUSE_NEW_LAST);

    ngx_http_reuse_status_write(text,
        "}},\"connections\":{\"opened\":%uA,\"open\":%uA,\"idle\":%uA,"
        "\"parked\":%uA,\"handed_over\":%uA,\"taken_over\":%uA,"
        "\"closed\":%uA,\"closed_by_reason\":{",
        n[NGX_HTTP_UPSTREAM_REUSE_OPENED], view->open,
        n[NGX_HTTP_UPSTREAM_REUSE_IDLE], view->parked,
        n[NGX_HTTP_UPSTREAM_REUSE_HANDED_OVER],
        n[NGX_HTTP_UPSTREAM_REUSE_TAKEN_OVER], view->closed);

    json_named(text, ngx_http_upstream_reuse_close_reasons,
               &n[NGX_HTTP_UPSTREAM_REUSE_CLOSED],
               NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT + 1,
               NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST);

    ngx_http_reuse_status_write(text, "},\"closed_by\":{");
    json_sides(text, &n[NGX_HTTP_UPSTREAM_REUSE_CLOSED]);

    ngx_http_reuse_status_write(text,
        "}},\"stale_requests\":{\"resent\":%uA,\"unproven\":%uA,"
        "\"not_resendable\":%uA,\"resent_silent\":%uA},"
        "\"warm\":{\"opened\":%uA,\"unused\":%uA,"
        "\"held_back\":{\"unpaid\":%ui,\"starving\":%ui}},"
        "\"tls_handshakes\":{\"full\":%uA,\"resumed\":%uA},"
        "\"connect_duration_seconds\":",
        n[NGX_HTTP_UPSTREAM_REUSE_PROVEN], n[NGX_HTTP_UPSTREAM_REUSE_UNPROVEN],
        n[NGX_HTTP_UPSTREAM_REUSE_LOST], n[NGX_HTTP_UPSTREAM_REUSE_RENEWED],
        n[NGX_HTTP_UPSTREAM_REUSE_AHEAD], n[NGX_HTTP_UPSTREAM_REUSE_UNUSED],
        view->unpaid, view->starving,
        n[NGX_HTTP_UPSTREAM_REUSE_HANDSHAKES_FULL],
        n[NGX_HTTP_UPSTREAM_REUSE_HANDSHAKES_RESUMED]);

    json_histogram(text, &n[NGX_HTTP_UPSTREAM_REUSE_CONNECT], view->connects);
    ngx_http_reuse_status_write(text,
                                ",\"tls_handshake_duration_seconds\":");
    json_histogram(text, &n[NGX_HTTP_UPSTREAM_REUSE_TLS], view->handshakes);
    ngx_http_reuse_status_write(text, ",\"estimated_saved_seconds\":");
    json_seconds(text, view->saved);
}


static void
json_named(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_reason_t *reasons,
    ngx_atomic_uint_t *counters, ngx_uint_t first, ngx_uint_t last)
{
    ngx_uint_t  i;

    for (i = first; i < last; i++) {
        ngx_http_reuse_status_write(text, "%s\"%V\":%uA",
                                    i == first ? "" : ",", &reasons[i].name,
                                    counters[i]);
    }
}


/* Connections that were closed, by whose side the cause is on. */

static void
json_sides(ngx_http_reuse_status_text_t *text, ngx_atomic_uint_t *closed)
{
    ngx_uint_t                         i, j;
    ngx_atomic_uint_t                  sum;
    ngx_http_upstream_reuse_reason_t  *reasons;

    static const char  *sides[] = { "origin", "nginx", "client" };

    reasons = ngx_http_upstream_reuse_close_reasons;

    for (i = 0; i < sizeof(sides) / sizeof(sides[0]); i++) {
        sum = 0;

        for (j = NGX_HTTP_UPSTREAM_REUSE_CLOSE_KEPT + 1;
             j < NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST;
             j++)
        {
            if (ngx_strcmp(reasons[j].by, sides[i]) == 0) {
                sum += closed[j];
            }
        }

        ngx_http_reuse_status_write(text, "%s\"%s\":%uA", i ? "," : "",
                                    sides[i], sum);
    }
}


/* Bounds are inclusive, in seconds; each bucket includes those before. */

static void
json_histogram(ngx_http_reuse_status_text_t *text, ngx_atomic_uint_t *bucket,
    ngx_atomic_uint_t count)
{
    ngx_uint_t         i;
    ngx_atomic_uint_t  below;

    below = 0;

    ngx_http_reuse_status_write(text, "{\"count\":%uA,\"sum\":", count);
    json_seconds(text, bucket[NGX_HTTP_UPSTREAM_REUSE_BUCKETS]);
    ngx_http_reuse_status_write(text, ",\"buckets\":[");

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_BUCKETS - 1; i++) {
        below += bucket[i];

        ngx_http_reuse_status_write(text, "{\"le\":");
        json_seconds(text, ngx_http_upstream_reuse_bounds[i]);
        ngx_http_reuse_status_write(text, ",\"count\":%uA},", below);
    }

    ngx_http_reuse_status_write(text, "{\"le\":null,\"count\":%uA}]}", count);
}


static void
json_seconds(ngx_http_reuse_status_text_t *text, uint64_t us)
{
    ngx_http_reuse_status_write(text, "%uL.%06uL", us / 1000000, us % 1000000);
}
