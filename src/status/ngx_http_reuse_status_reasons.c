
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The sections of the page which tell why requests got a new connection and
 * why connections were closed, and the same of one upstream in a few words.
 */


#include "ngx_http_reuse_status.h"


static void reasons_brief(ngx_http_reuse_status_text_t *text,
    const char *title, ngx_http_upstream_reuse_reason_t *reasons,
    ngx_atomic_uint_t *counters, ngx_uint_t n);
static void reasons_table(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_reason_t *reasons, ngx_atomic_uint_t *counters,
    ngx_uint_t n);
static ngx_uint_t reasons_next(ngx_atomic_uint_t *counters, ngx_uint_t n,
    ngx_uint_t last);


void
ngx_http_reuse_status_new(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    if (shot->total.fresh == 0) {
        return;
    }

    ngx_http_reuse_status_write(text,
                                "<h2>Why requests got a new connection</h2>"
                                "<p class=\"soft\">All upstreams together; "
                                "JSON has each server's.</p>");

    reasons_table(text, ngx_http_upstream_reuse_new_reasons,
                  &shot->total.counters[NGX_HTTP_UPSTREAM_REUSE_NEW],
                  NGX_HTTP_UPSTREAM_REUSE_NEW_LAST);
}


void
ngx_http_reuse_status_closed(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    if (shot->total.closed == 0) {
        return;
    }

    ngx_http_reuse_status_write(text,
                                "<h2>Why connections were closed</h2>"
                                "<p class=\"soft\">All upstreams together; "
                                "JSON has each server's.</p>");

    reasons_table(text, ngx_http_upstream_reuse_close_reasons,
                  &shot->total.counters[NGX_HTTP_UPSTREAM_REUSE_CLOSED],
                  NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST);
}


/* Those that there were, the most frequent first. */

static void
reasons_table(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_reason_t *reasons, ngx_atomic_uint_t *counters,
    ngx_uint_t n)
{
    ngx_uint_t         i;
    ngx_atomic_uint_t  sum;

    sum = 0;

    for (i = 0; i < n; i++) {
        sum += counters[i];
    }

    ngx_http_reuse_status_write(text,
        "<table class=\"reasons\"><thead><tr><th>reason</th><th></th>"
        "<th class=\"bar\"></th><th class=\"text\">meaning</th></tr></thead>"
        "<tbody>");

    for (i = reasons_next(counters, n, n);
         i < n;
         i = reasons_next(counters, n, i))
    {
        ngx_http_reuse_status_write(text,
            "<tr data-reason=\"%V\"><td><code>%V</code></td><td>",
            &reasons[i].name, &reasons[i].name);
        ngx_http_reuse_status_write_number(text, "count", counters[i]);
        ngx_http_reuse_status_write(text,
            "</td><td class=\"bar\"><span class=\"meter\"><i style=\"width:"
            "%ui%%\"></i></span></td><td class=\"text\">%s",
            (ngx_uint_t) ((double) counters[i] * 100 / sum),
            reasons[i].meaning ? reasons[i].meaning : "");

        if (reasons[i].advice) {
            ngx_http_reuse_status_write(text,
                                        "<br><span class=\"soft\">%s</span>",
                                        reasons[i].advice);
        }

        ngx_http_reuse_status_write(text, "</td></tr>");
    }

    ngx_http_reuse_status_write(text, "</tbody></table>");
}


/* The next one after last, or the first one if last is n; n: no more. */

static ngx_uint_t
reasons_next(ngx_atomic_uint_t *counters, ngx_uint_t n, ngx_uint_t last)
{
    ngx_uint_t  i, most;

    most = n;

    for (i = 0; i < n; i++) {

        if (counters[i] == 0) {
            continue;
        }

        /* those that are as frequent follow in the order of the table */

        if (last < n
            && (counters[i] > counters[last]
                || (counters[i] == counters[last] && i <= last)))
        {
            continue;
        }

        if (most == n || counters[i] > counters[most]) {
            most = i;
        }
    }

    return most;
}


/* Numbers alone, as there may be hundreds: the meanings stand below. */

void
ngx_http_reuse_status_upstream_reasons(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *upstream)
{
    ngx_atomic_uint_t  *n;

    if (upstream->fresh + upstream->closed == 0) {
        return;
    }

    n = upstream->counters;

    ngx_http_reuse_status_write(text, "<details data-upstream=\"");
    ngx_http_reuse_status_write_html(text, &upstream->upstream);
    ngx_http_reuse_status_write(text, "\"><summary>reasons</summary>");

    reasons_brief(text, "new connections", ngx_http_upstream_reuse_new_reasons,
                  &n[NGX_HTTP_UPSTREAM_REUSE_NEW],
                  NGX_HTTP_UPSTREAM_REUSE_NEW_LAST);
    reasons_brief(text, "closed", ngx_http_upstream_reuse_close_reasons,
                  &n[NGX_HTTP_UPSTREAM_REUSE_CLOSED],
                  NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST);

    ngx_http_reuse_status_write(text, "</details>");
}


static void
reasons_brief(ngx_http_reuse_status_text_t *text, const char *title,
    ngx_http_upstream_reuse_reason_t *reasons, ngx_atomic_uint_t *counters,
    ngx_uint_t n)
{
    ngx_uint_t  i, first;

    first = reasons_next(counters, n, n);

    if (first == n) {
        return;
    }

    ngx_http_reuse_status_write(text, "<p>%s: ", title);

    for (i = first; i < n; i = reasons_next(counters, n, i)) {
        ngx_http_reuse_status_write(text, "%s<code>%V</code> ",
                                    i == first ? "" : ", ", &reasons[i].name);
        ngx_http_reuse_status_write_number(text, NULL, counters[i]);
    }

    ngx_http_reuse_status_write(text, "</p>");
}
