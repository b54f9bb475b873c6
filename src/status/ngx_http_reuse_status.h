
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the files of the status page have in common:
 *
 *     module      the directive, which format is wanted, the response
 *     text        a text that grows, and what has to be escaped in it
 *     json        docs/status.schema.json
 *     prometheus  text format 0.0.4
 *     html        the sections of page.html
 *     history     one of them: how reuse has gone over time
 *     reasons     others: why connections are new, and are closed
 *
 * Each of the formats is a function that writes a snapshot.
 */


#ifndef _NGX_HTTP_REUSE_STATUS_H_INCLUDED_
#define _NGX_HTTP_REUSE_STATUS_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"
#include "ngx_http_myproxy_version.h"
#include "ngx_http_upstream_reuse_snapshot.h"


/* request: what has been written; failed: there was no memory */

typedef struct {
    ngx_pool_t                          *pool;
    u_char                              *start;
    u_char                              *last;
    u_char                              *end;
    ngx_uint_t                           failed;  /* unsigned  failed:1; */
    ngx_uint_t                           servers;  /* metrics are of each, if
                                                      there are no more */
} ngx_http_reuse_status_text_t;


typedef void (*ngx_http_reuse_status_format_pt)(
    ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);


/* text; fmt as in ngx_sprintf() */

void ngx_cdecl ngx_http_reuse_status_write(ngx_http_reuse_status_text_t *text,
    const char *fmt, ...);

/* A string, with what the format gives a meaning escaped. */
void ngx_http_reuse_status_write_json(ngx_http_reuse_status_text_t *text,
    ngx_str_t *value);
void ngx_http_reuse_status_write_html(ngx_http_reuse_status_text_t *text,
    ngx_str_t *value);
void ngx_http_reuse_status_write_label(ngx_http_reuse_status_text_t *text,
    ngx_str_t *value);

/* Microseconds, for HTML, in a unit that suits them. */
void ngx_http_reuse_status_write_time(ngx_http_reuse_status_text_t *text,
    uint64_t us);


/*
 * A number, for HTML, its digits in groups; as <data> with that class unless
 * name is NULL.
 */
void ngx_http_reuse_status_write_number(ngx_http_reuse_status_text_t *text,
    const char *name, ngx_atomic_uint_t number);


/* formats */

void ngx_http_reuse_status_json(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
void ngx_http_reuse_status_prometheus(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
void ngx_http_reuse_status_html(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);

/* history and reasons: sections of the page, which html writes with them */

void ngx_http_reuse_status_history(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
void ngx_http_reuse_status_new(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);
void ngx_http_reuse_status_closed(ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_snapshot_t *shot);

/* reasons: those of one upstream, in a few words that can be opened */
void ngx_http_reuse_status_upstream_reasons(
    ngx_http_reuse_status_text_t *text,
    ngx_http_upstream_reuse_view_t *upstream);


#endif /* _NGX_HTTP_REUSE_STATUS_H_INCLUDED_ */
