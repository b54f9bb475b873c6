
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The page, which is page.html with its sections filled in.  The script there
 * gets the page anew, so that everything is written here only.
 */


#include "ngx_http_reuse_status.h"


/* of the requests of an upstream: from that on a reason gets advice */
#define NGX_HTTP_REUSE_STATUS_SHARE     5          /* percent */
#define NGX_HTTP_REUSE_STATUS_ENOUGH    100        /* requests */


typedef struct {
    ngx_str_t                            name;
    ngx_http_reuse_status_format_pt      write;
} html_section_t;


static void html_summary(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
static void html_warnings(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
static void html_advice(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *upstream);
static void html_servers(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
static void html_server(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view);
static void html_stale(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
static void html_shared(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
static void html_warm(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
static void html_queue(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
static void html_footer(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);

static void html_percent(ngx_http_reuse_status_text_t *text,
    ngx_atomic_uint_t part, ngx_atomic_uint_t whole);


static u_char  html_page[] =
#include <ngx_http_reuse_status_page.h>
;


static html_section_t  html_sections[] = {
    { ngx_string("summary"), html_summary },
    { ngx_string("history"), ngx_http_reuse_status_history },
    { ngx_string("warnings"), html_warnings },
    { ngx_string("servers"), html_servers },
    { ngx_string("new"), ngx_http_reuse_status_new },
    { ngx_string("closed"), ngx_http_reuse_status_closed },
    { ngx_string("stale"), html_stale },
    { ngx_string("shared"), html_shared },
    { ngx_string("warm"), html_warm },
    { ngx_string("queue"), html_queue },
    { ngx_string("footer"), html_footer },
    { ngx_null_string, NULL }
};


void
ngx_http_reuse_status_html(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    u_char          *p, *mark;
    html_section_t  *section;

    for (p = html_page; *p; /* void */ ) {

        mark = (u_char *) ngx_strstr(p, "<!--[");

        if (mark == NULL) {
            ngx_http_reuse_status_write(text, "%s", p);
            return;
        }

        ngx_http_reuse_status_write(text, "%*s", (size_t) (mark - p), p);

        p = mark + sizeof("<!--[") - 1;

        for (section = html_sections; section->write; section++) {
            if (ngx_strncmp(p, section->name.data, section->name.len) == 0) {
                section->write(text, shot);
                p += section->name.len;
                break;
            }
        }

        p += sizeof("]-->") - 1;
    }
}


static void
html_summary(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    ngx_atomic_uint_t                 *n;
    ngx_http_upstream_reuse_view_t    *total;
    ngx_http_upstream_reuse_sample_t  *last;

    total = &shot->total;
    n = total->counters;

    ngx_http_reuse_status_write(text,
        "<div>found ready<b class=\"good\" id=\"ratio\">");
    html_percent(text, n[NGX_HTTP_UPSTREAM_REUSE_REUSED]
                       + n[NGX_HTTP_UPSTREAM_REUSE_WARM], total->requests);
    ngx_http_reuse_status_write(text, "</b><span class=\"soft\">");

    if (shot->samples.nelts) {
        last = shot->samples.elts;
        last += shot->samples.nelts - 1;

        html_percent(text, last->ready, last->requests);
        ngx_http_reuse_status_write(text, " in the last %d&nbsp;s",
                                    NGX_HTTP_UPSTREAM_REUSE_INTERVAL);

    } else {
        ngx_http_reuse_status_write(text, "of all requests");
    }

    ngx_http_reuse_status_write(text, "</span></div><div>requests<b>");
    ngx_http_reuse_status_write_number(text, "requests", total->requests);
    ngx_http_reuse_status_write(text, "</b><span class=\"soft\">");
    ngx_http_reuse_status_write_number(text, "fresh", total->fresh);
    ngx_http_reuse_status_write(text,
                                " waited for a new connection</span></div>"
                                "<div>connections open<b>");
    ngx_http_reuse_status_write_number(text, "open", total->open);
    ngx_http_reuse_status_write(text, "</b><span class=\"soft\">");
    ngx_http_reuse_status_write_number(text, "idle",
                                       n[NGX_HTTP_UPSTREAM_REUSE_IDLE]);
    ngx_http_reuse_status_write(text, " idle, ");
    ngx_http_reuse_status_write_number(text, "opened",
                                       n[NGX_HTTP_UPSTREAM_REUSE_OPENED]);
    ngx_http_reuse_status_write(text,
                                " opened in all</span></div>"
                                "<div>handshake time saved<b>");
    ngx_http_reuse_status_write_time(text, total->saved);
    ngx_http_reuse_status_write(text,
                                "</b><span class=\"soft\">TLS: ");
    ngx_http_reuse_status_write_number(text, "full",
                                   n[NGX_HTTP_UPSTREAM_REUSE_HANDSHAKES_FULL]);
    ngx_http_reuse_status_write(text, " full, ");
    ngx_http_reuse_status_write_number(text, "resumed",
                                n[NGX_HTTP_UPSTREAM_REUSE_HANDSHAKES_RESUMED]);
    ngx_http_reuse_status_write(text, " resumed</span></div>");
}


static void
html_warnings(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    size_t                                    begin, title;
    ngx_str_t                                *warning;
    ngx_uint_t                                i;
    ngx_http_upstream_reuse_upstream_view_t  *upstream;

    begin = text->last - text->start;

    ngx_http_reuse_status_write(text, "<h2>Warnings and advice</h2><ul>");

    title = text->last - text->start;

    warning = shot->warnings->elts;

    for (i = 0; i < shot->warnings->nelts; i++) {
        ngx_http_reuse_status_write(text, "<li>");
        ngx_http_reuse_status_write_html(text, &warning[i]);
        ngx_http_reuse_status_write(text, "</li>");
    }

    if (shot->full) {
        ngx_http_reuse_status_write(text,
            "<li>There is no room for further servers, which are counted as "
            "one: make <code>reuse_zone</code> larger than %uzk.</li>",
            shot->size / 1024);

    } else if (shot->free < shot->size / 16) {
        ngx_http_reuse_status_write(text,
            "<li>There is little room for further servers: make "
            "<code>reuse_zone</code> larger than %uzk.</li>",
            shot->size / 1024);
    }

    upstream = shot->upstreams.elts;

    for (i = 0; i < shot->upstreams.nelts; i++) {
        if (upstream[i].configured) {
            html_advice(text, &upstream[i].sum);
        }
    }

    if ((size_t) (text->last - text->start) == title) {

        /* nothing does, and an empty section does not show */

        text->last = text->start + begin;
        return;
    }

    ngx_http_reuse_status_write(text, "</ul>");
}


/* What has closed many connections of late, as compared to the requests. */

static void
html_advice(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *upstream)
{
    ngx_uint_t                         i;
    ngx_atomic_uint_t                  count;
    ngx_http_upstream_reuse_reason_t  *reason;

    if (upstream->late.requests < NGX_HTTP_REUSE_STATUS_ENOUGH) {
        return;
    }

    for (i = 0; i < NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST; i++) {

        reason = &ngx_http_upstream_reuse_close_reasons[i];
        count = upstream->late.closed[i];

        if (reason->advice == NULL
            || (double) count * 100 / upstream->late.requests
               < NGX_HTTP_REUSE_STATUS_SHARE)
        {
            continue;
        }

        ngx_http_reuse_status_write(text, "<li><b>");
        ngx_http_reuse_status_write_html(text, &upstream->upstream);
        ngx_http_reuse_status_write(text, "</b>: ");
        ngx_http_reuse_status_write_number(text, NULL, count);
        ngx_http_reuse_status_write(text,
                                    " connections ended in the last 15 to 30 "
                                    "minutes, each for this reason: %s. What "
                                    "to do: %s.</li>",
                                    reason->meaning, reason->advice);
    }
}


static void
html_servers(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    ngx_uint_t                                i, j;
    ngx_http_upstream_reuse_upstream_view_t  *upstream;

    ngx_http_reuse_status_write(text, "<h2>Servers</h2>");

    if (shot->upstreams.nelts == 0) {
        ngx_http_reuse_status_write(text,
            "<p class=\"soft\">No request has been passed to an upstream "
            "yet.</p>");
        return;
    }

    ngx_http_reuse_status_write(text,
        "<table class=\"wide\"><thead><tr><th>server</th><th></th>"
        "<th>found ready</th><th>requests</th><th>open</th><th>idle</th>"
        "<th>opened in all</th><th>mean TCP</th><th>mean TLS</th>"
        "<th>learned idle limit</th><th>time saved, estimated</th></tr>"
        "</thead><tbody>");

    upstream = shot->upstreams.elts;

    for (i = 0; i < shot->upstreams.nelts; i++) {
        ngx_http_reuse_status_write(text,
            "<tr class=\"upstream\"><td class=\"all\" colspan=\"11\">");
        ngx_http_reuse_status_write_html(text, &upstream[i].sum.upstream);

        if (shot->upstreams.nelts > 1) {
            ngx_http_reuse_status_upstream_reasons(text, &upstream[i].sum);
        }

        ngx_http_reuse_status_write(text, "</td></tr>");

        for (j = 0; j < upstream[i].nservers; j++) {
            html_server(text, &upstream[i].servers[j]);
        }
    }

    ngx_http_reuse_status_write(text, "</tbody></table>");
}


static void
html_server(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *view)
{
    ngx_atomic_uint_t  *n, ready;

    n = view->counters;
    ready = n[NGX_HTTP_UPSTREAM_REUSE_REUSED]
            + n[NGX_HTTP_UPSTREAM_REUSE_WARM];

    ngx_http_reuse_status_write(text, "<tr data-server=\"");
    ngx_http_reuse_status_write_html(text, &view->address);
    ngx_http_reuse_status_write(text, "\"><td>");
    ngx_http_reuse_status_write_html(text, &view->address);
    ngx_http_reuse_status_write(text,
        "</td><td class=\"bar\"><span class=\"meter\"><i class=\"ready\" "
        "style=\"width:%ui%%\"></i></span></td><td data-name=\"ready\">",
        view->requests ? (ngx_uint_t) ((double) ready * 100 / view->requests)
                       : 0);
    html_percent(text, ready, view->requests);
    ngx_http_reuse_status_write(text, "</td><td data-name=\"requests\">");
    ngx_http_reuse_status_write_number(text, "requests", view->requests);
    ngx_http_reuse_status_write(text, "</td><td data-name=\"open\">");
    ngx_http_reuse_status_write_number(text, "open", view->open);

    if (view->most) {
        ngx_http_reuse_status_write(text, " of ");
        ngx_http_reuse_status_write_number(text, "limit", view->most);
    }

    ngx_http_reuse_status_write(text, "</td><td data-name=\"idle\">");
    ngx_http_reuse_status_write_number(text, "idle",
                                       n[NGX_HTTP_UPSTREAM_REUSE_IDLE]);
    ngx_http_reuse_status_write(text, "</td><td data-name=\"opened\">");
    ngx_http_reuse_status_write_number(text, "opened",
                                       n[NGX_HTTP_UPSTREAM_REUSE_OPENED]);

    ngx_http_reuse_status_write(text, "</td><td data-name=\"TCP\">");

    if (view->connects) {
        ngx_http_reuse_status_write_time(text,
                                   n[NGX_HTTP_UPSTREAM_REUSE_CONNECT_TIME]
                                   / view->connects);
    }

    ngx_http_reuse_status_write(text, "</td><td data-name=\"TLS\">");

    if (view->handshakes) {
        ngx_http_reuse_status_write_time(text,
                                   n[NGX_HTTP_UPSTREAM_REUSE_TLS_TIME]
                                   / view->handshakes);
    }

    ngx_http_reuse_status_write(text, "</td><td data-name=\"idle limit\">");

    if (view->idle_limit) {
        ngx_http_reuse_status_write_time(text,
                                         (uint64_t) view->idle_limit * 1000);
    }

    ngx_http_reuse_status_write(text, "</td><td data-name=\"saved\">");
    ngx_http_reuse_status_write_time(text, view->saved);
    ngx_http_reuse_status_write(text, "</td></tr>");
}


static void
html_stale(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    ngx_atomic_uint_t  *n;

    n = shot->total.counters;

    if (n[NGX_HTTP_UPSTREAM_REUSE_PROVEN] == 0
        && n[NGX_HTTP_UPSTREAM_REUSE_UNPROVEN] == 0
        && n[NGX_HTTP_UPSTREAM_REUSE_LOST] == 0
        && n[NGX_HTTP_UPSTREAM_REUSE_RENEWED] == 0)
    {
        return;
    }

    ngx_http_reuse_status_write(text,
        "<h2>Requests that met a closing or dead connection</h2><p>");
    ngx_http_reuse_status_write_number(text, "resent",
                                       n[NGX_HTTP_UPSTREAM_REUSE_PROVEN]);
    ngx_http_reuse_status_write(text,
        " were provably not received, and sent again.</p><p>");
    ngx_http_reuse_status_write_number(text, "unproven",
                                       n[NGX_HTTP_UPSTREAM_REUSE_UNPROVEN]);
    ngx_http_reuse_status_write(text,
        " may have been received: \"myproxy_next_upstream\", or that of "
        "another handler, decided whether they were sent again.</p><p>");
    ngx_http_reuse_status_write_number(text, "not-resendable",
                                       n[NGX_HTTP_UPSTREAM_REUSE_LOST]);
    ngx_http_reuse_status_write(text,
        " were not received, but could not be sent again.</p><p>");
    ngx_http_reuse_status_write_number(text, "resent-silent",
                                       n[NGX_HTTP_UPSTREAM_REUSE_RENEWED]);
    ngx_http_reuse_status_write(text,
        " met a connection on which nothing came through, and were sent again "
        "on a new one by nginx's own rules.</p>");
}


static void
html_shared(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    ngx_atomic_uint_t  *n;

    n = shot->total.counters;

    if (n[NGX_HTTP_UPSTREAM_REUSE_HANDED_OVER] == 0) {
        return;
    }

    ngx_http_reuse_status_write(text,
                                "<h2>Shared by worker processes</h2><p>");
    ngx_http_reuse_status_write_number(text, "handed over",
                                       n[NGX_HTTP_UPSTREAM_REUSE_HANDED_OVER]);
    ngx_http_reuse_status_write(text,
        " times an idle connection was left to all worker processes, ");
    ngx_http_reuse_status_write_number(text, "taken over",
                                       n[NGX_HTTP_UPSTREAM_REUSE_TAKEN_OVER]);
    ngx_http_reuse_status_write(text, " times one was taken for a request; ");
    ngx_http_reuse_status_write_number(text, "parked", shot->total.parked);
    ngx_http_reuse_status_write(text, " wait there now.</p>");
}


static void
html_warm(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    ngx_atomic_uint_t  *n;

    n = shot->total.counters;

    if (n[NGX_HTTP_UPSTREAM_REUSE_AHEAD] == 0) {
        return;
    }

    ngx_http_reuse_status_write(text,
                                "<h2>Connections opened ahead</h2><p>");
    ngx_http_reuse_status_write_number(text, "ahead",
                                       n[NGX_HTTP_UPSTREAM_REUSE_AHEAD]);
    ngx_http_reuse_status_write(text,
                                " were opened before they were needed; ");
    ngx_http_reuse_status_write_number(text, "warm",
                                       n[NGX_HTTP_UPSTREAM_REUSE_WARM]);
    ngx_http_reuse_status_write(text, " have served requests, ");
    ngx_http_reuse_status_write_number(text, "unused",
                                       n[NGX_HTTP_UPSTREAM_REUSE_UNUSED]);
    ngx_http_reuse_status_write(text,
                                " were closed without having served any.</p>");

    if (shot->total.unpaid) {
        ngx_http_reuse_status_write(text,
            "<p>\"reuse_warm auto\" holds back at %ui server%s: within the "
            "last hour more connections opened ahead stayed unused than "
            "twice the number of requests plus the number that is to be "
            "ready.</p>", shot->total.unpaid,
            shot->total.unpaid == 1 ? "" : "s");
    }

    if (shot->total.starving) {
        ngx_http_reuse_status_write(text,
            "<p>%ui server%s not kept warm now: idle connections may have "
            "kept requests from being answered.</p>", shot->total.starving,
            shot->total.starving == 1 ? " is" : "s are");
    }
}


static void
html_queue(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    if (!shot->queue.limited) {
        return;
    }

    ngx_http_reuse_status_write(text, "<h2>Limited connections</h2><p>");
    ngx_http_reuse_status_write_number(text, "waiting", shot->queue.waiting);
    ngx_http_reuse_status_write(text, " requests wait for a connection now");

    if (shot->queue.bounded) {
        ngx_http_reuse_status_write(text, ", of ");
        ngx_http_reuse_status_write_number(text, "queue-limit",
                                           shot->queue.most);
        ngx_http_reuse_status_write(text, " that may");
    }

    ngx_http_reuse_status_write(text, "; ");
    ngx_http_reuse_status_write_number(text, "waited", shot->queue.waited);
    ngx_http_reuse_status_write(text, " had to wait. ");
    ngx_http_reuse_status_write_number(text, "queue-full", shot->queue.full);
    ngx_http_reuse_status_write(text,
                                " were refused because the queue was full, ");
    ngx_http_reuse_status_write_number(text, "queue-timeout",
                                       shot->queue.timeout);
    ngx_http_reuse_status_write(text,
                                " because they had waited too long.</p>");

    if (shot->queue.full + shot->queue.timeout) {
        ngx_http_reuse_status_write(text,
            "<p>If servers can take more, raise \"reuse_limit\"; else add "
            "servers, or raise \"queue=\" and \"timeout=\" for short "
            "bursts.</p>");
    }
}


static void
html_footer(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    u_char  since[sizeof("Mon, 28 Sep 1970 06:00:00 GMT")];

    ngx_http_reuse_status_write(text,
        "<p>ngx_http_myproxy_module %s, nginx %s, %V. Counted since "
        "%*s, by %ui worker process%s now; %uzk of %uzk "
        "of <code>reuse_zone</code> are free.</p>"
        "<p>The same as <a href=\"?format=json\">JSON</a>, and for "
        "<a href=\"?format=prometheus\">Prometheus</a>.</p>",
        NGX_HTTP_MYPROXY_VERSION, NGINX_VERSION, &ngx_cached_http_time,
        (size_t) (ngx_http_time(since, shot->started) - since), since,
        shot->workers, shot->workers == 1 ? "" : "es", shot->free / 1024,
        shot->size / 1024);

    if (shot->uncounted) {
        ngx_http_reuse_status_write(text, "<p>");
        ngx_http_reuse_status_write_number(text, "uncounted", shot->uncounted);
        ngx_http_reuse_status_write(text,
            " requests were not counted, as <code>reuse_zone</code> was full."
            "</p>");
    }
}


/* It is never rounded up, so that 100 means all. */

static void
html_percent(ngx_http_reuse_status_text_t *text, ngx_atomic_uint_t part,
    ngx_atomic_uint_t whole)
{
    ngx_uint_t  n;

    part = ngx_min(part, whole);

    if (whole == 0) {
        ngx_http_reuse_status_write(text, "\xe2\x80\x93");
        return;
    }

    n = (part == whole) ? 10000 : (ngx_uint_t) ((double) part * 10000 / whole);

    if (n == 10000) {
        n -= (part != whole);
    }

    ngx_http_reuse_status_write(text, "%ui.%02ui\xe2\x80\xaf%%", n / 100,
                                n % 100);
}
