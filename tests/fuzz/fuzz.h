
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the targets have in common: an nginx that has read a configuration but
 * does not run, and a request in one of its locations.
 */


#ifndef _FUZZ_H_INCLUDED_
#define _FUZZ_H_INCLUDED_


#include "ngx_http_myproxy_module.h"


#define fuzz_count(array)  (sizeof(array) / sizeof((array)[0]))


/* one input: a request, its upstream, and what these refer to */

typedef struct {
    ngx_http_request_t       request;
    ngx_http_upstream_t      upstream;
    ngx_http_myproxy_ctx_t   ctx;
    ngx_connection_t         client;
    ngx_connection_t         origin;
    ngx_event_t              read;
    ngx_event_t              write;
} fuzz_subject_t;


/* The target's: what is written within the locations, one for each. */

extern const char  *fuzz_locations[];
extern ngx_uint_t   fuzz_nlocations;


/* Begins and ends a request in a location, given by its index. */
void fuzz_begin(fuzz_subject_t *s, ngx_uint_t location);
void fuzz_end(fuzz_subject_t *s);

/*
 * Takes the next piece off the input at a place that depends on the seed
 * alone, and copies it into memory of just its size.  To be freed.
 */
u_char *fuzz_piece(ngx_str_t *rest, uint32_t *seed, size_t *size);

/* A copy with a null behind it, as nginx's parser leaves one.  To be freed. */
ngx_str_t fuzz_copy(const uint8_t *data, size_t size);

ngx_uint_t fuzz_same(ngx_str_t *a, ngx_str_t *b);

/* Ends the process: the input has brought to light an error. */
void fuzz_fail(const char *what, ngx_str_t *text);


#endif /* _FUZZ_H_INCLUDED_ */
