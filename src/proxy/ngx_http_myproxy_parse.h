
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What reads and writes HTTP/1.1 as it is on a connection: lines of a header,
 * the names in them, and chunked bodies.
 */


#ifndef _NGX_HTTP_MYPROXY_PARSE_H_INCLUDED_
#define _NGX_HTTP_MYPROXY_PARSE_H_INCLUDED_


#include "ngx_http_myproxy_module.h"


/*
 * Fields of responses that we look at ourselves.  Those that are left out of
 * 1xx responses and of trailer sections are named in
 * ngx_http_myproxy_leave_hop(); one that is added here passes there.
 */

typedef enum {
    NGX_HTTP_MYPROXY_OTHER_FIELD = 0,
    NGX_HTTP_MYPROXY_CONNECTION,
    NGX_HTTP_MYPROXY_CONTENT_LENGTH,
    NGX_HTTP_MYPROXY_KEEP_ALIVE,
    NGX_HTTP_MYPROXY_TRANSFER_ENCODING,
    NGX_HTTP_MYPROXY_UPGRADE
} ngx_http_myproxy_field_e;


/* cycle: the name of a field of responses, as it is written */

struct ngx_http_myproxy_known_field_s {
    ngx_str_t                        key;
    u_char                          *lowcase;
    ngx_uint_t                       hash;
    ngx_http_upstream_header_t      *header;  /* NULL: core does nothing */
    ngx_http_myproxy_field_e         field;
    ngx_http_myproxy_known_field_t  *next;
    unsigned                         plain:1;   /* nor do we */
    unsigned                         simple:1;  /* only core does */
};


/* header */

/*
 * Reads a status line as ngx_http_parse_status_line() would have: NGX_OK, or
 * NGX_DECLINED if that has to look at it, and nothing was done.
 */
ngx_int_t ngx_http_myproxy_read_status(ngx_http_request_t *r, ngx_buf_t *b,
    ngx_http_status_t *status);

/*
 * Reads lines as ngx_http_parse_header_line(), with underscores allowed, and
 * ngx_http_myproxy_add_field() would have, and has each field processed.
 * NGX_DONE at the end of the header; NGX_DECLINED: those have to look at the
 * next line; NGX_ERROR; or what ngx_http_myproxy_process_field() returns.
 */
ngx_int_t ngx_http_myproxy_read_fields(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_buf_t *b, ngx_list_t *list);

/*
 * Adds to a list the field that ngx_http_parse_header_line() has found.
 * NGX_HTTP_UPSTREAM_INVALID_HEADER, logged, if its name is none.
 */
ngx_int_t ngx_http_myproxy_add_field(ngx_http_request_t *r, ngx_list_t *list,
    ngx_table_elt_t **field);

/*
 * Looks at the name that ngx_http_parse_header_line() has found.
 * NGX_HTTP_UPSTREAM_INVALID_HEADER, logged, if it is none.
 */
ngx_int_t ngx_http_myproxy_check_name(ngx_http_request_t *r);


/* response_fields */

/* A 1xx response but 101 is followed by another (RFC 9110, section 15.2). */
#define ngx_http_myproxy_is_interim(code)                                     \
    ((code) < 200 && (code) != NGX_HTTP_SWITCHING_PROTOCOLS)

/*
 * Acts on a field that was read; name is NULL if it is not among those that
 * are known beforehand.  NGX_HTTP_UPSTREAM_INVALID_HEADER, logged, if it makes
 * the response ambiguous.
 */
ngx_int_t ngx_http_myproxy_process_field(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_table_elt_t *h,
    ngx_http_myproxy_known_field_t *name);


/* known_fields */

/* where in the table a name is; few of those that are there share a place */
#define ngx_http_myproxy_name_place(key)                                      \
    ((2 * (key)->data[0] + 7 * (key)->data[(key)->len - 1] + 5 * (key)->len)  \
     % NGX_HTTP_MYPROXY_KNOWN_FIELDS)

/* postconfiguration: makes the table */
ngx_int_t ngx_http_myproxy_init_known_fields(ngx_conf_t *cf);

/* which of the fields that we look at has that name, in lower case */
ngx_http_myproxy_field_e ngx_http_myproxy_find_field(ngx_str_t *low);

/*
 * Writes a name in lower case, with its hash.  NGX_DECLINED if it is not one
 * that nginx's parser takes as it is.
 */
ngx_int_t ngx_http_myproxy_lower_name(u_char *low, ngx_str_t *name,
    ngx_uint_t *hash);


/* chunked */

/*
 * Sends what follows the header of a request as chunks; all that one call
 * brings becomes one.  An output filter of u->output, whose data is r.
 */
ngx_int_t ngx_http_myproxy_write_chunks(void *data, ngx_chain_t *in);

/*
 * NGX_OK: ctx->chunked.size bytes of data follow, NGX_DONE: the response is
 * over, NGX_AGAIN: all of buf is used up, NGX_ERROR: this is not chunked.
 */
ngx_int_t ngx_http_myproxy_read_chunk(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_buf_t *buf);


#endif /* _NGX_HTTP_MYPROXY_PARSE_H_INCLUDED_ */
