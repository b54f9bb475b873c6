
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The page's drawing of how reuse has gone over time.
 */


#include "ngx_http_reuse_status.h"


static void history_line(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);


void
ngx_http_reuse_status_history(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    ngx_uint_t                         i, from, height;
    ngx_atomic_uint_t                  most;
    ngx_http_upstream_reuse_sample_t  *sample;

    sample = shot->samples.elts;
    most = 0;

    for (i = 0; i < shot->samples.nelts; i++) {
        most = ngx_max(most, sample[i].requests);
    }

    ngx_http_reuse_status_write(text,
        "<h2>Reuse over time</h2><p class=\"key soft\">line: "
        "requests that found a connection ready, 0 to 100&nbsp;%%; bars: "
        "requests, up to %uA in %d&nbsp;s</p>"
        "<svg viewBox=\"0 0 %d 100\" preserveAspectRatio=\"none\" role="
        "\"img\" "
        "aria-label=\"share of requests that found a connection ready\">"
        "<path class=\"grid\" d=\"M0 1H%dM0 50H%dM0 99H%d\"/>",
        most, NGX_HTTP_UPSTREAM_REUSE_INTERVAL,
        NGX_HTTP_UPSTREAM_REUSE_SAMPLES, NGX_HTTP_UPSTREAM_REUSE_SAMPLES,
        NGX_HTTP_UPSTREAM_REUSE_SAMPLES, NGX_HTTP_UPSTREAM_REUSE_SAMPLES);

    from = NGX_HTTP_UPSTREAM_REUSE_SAMPLES - shot->samples.nelts;

    for (i = 0; i < shot->samples.nelts; i++) {

        if (sample[i].requests) {
            height = 1 + (ngx_uint_t) ((double) sample[i].requests * 39
                                       / most);

            ngx_http_reuse_status_write(text,
                "<rect class=\"load\" x=\"%ui\" y=\"%ui\" width=\"1\" "
                "height=\"%ui\"/>", from + i, 99 - height, height);
        }
    }

    history_line(text, shot);

    ngx_http_reuse_status_write(text,
        "</svg><p class=\"axis soft\"><span>%d minutes ago</span>"
        "<span>now</span></p>",
        NGX_HTTP_UPSTREAM_REUSE_SAMPLES * NGX_HTTP_UPSTREAM_REUSE_INTERVAL
        / 60);
}


/* Where there was no request there is no ratio. */

static void
history_line(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot)
{
    ngx_uint_t                         i, from, y, drawing;
    ngx_http_upstream_reuse_sample_t  *sample;

    sample = shot->samples.elts;
    from = NGX_HTTP_UPSTREAM_REUSE_SAMPLES - shot->samples.nelts;
    drawing = 0;

    ngx_http_reuse_status_write(text, "<path class=\"ratio\" d=\"");

    for (i = 0; i < shot->samples.nelts; i++) {

        if (sample[i].requests == 0) {
            drawing = 0;
            continue;
        }

        y = 99 - (ngx_uint_t) ((double) ngx_min(sample[i].ready,
                                                sample[i].requests)
                               * 98 / sample[i].requests);

        ngx_http_reuse_status_write(text, "%c%ui %uiH%ui",
                                    drawing ? 'L' : 'M', from + i, y,
                                    from + i + 1);
        drawing = 1;
    }

    ngx_http_reuse_status_write(text, "\"/>");
}
