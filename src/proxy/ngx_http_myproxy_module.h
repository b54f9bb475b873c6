
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * myproxy_pass: speaks HTTP/1.1 to an origin over connections that are meant
 * to be used again.
 *
 * The files stand for the stages of a request's life:
 *
 *     module    variables, and the content handler
 *     directives  their table
 *     conf      create and merge the configuration of a location
 *     stock     directives of the stock proxy, which do nothing for ours
 *     nonempty  directives whose value cannot be empty: a row for each
 *     target    what to connect to and which URI to ask for
 *     resolve   a pool for what only variables name
 *     fields    header fields that the operator has written
 *     host      the Host that is sent
 *     connection_fields
 *               header fields that concern one connection only
 *     upload    reads the client's body, and looks whether it is whole
 *     request   the request as it goes to the origin
 *     send      how it is written to the connection
 *     response  status line and header of the response
 *     header    the lines of a response's header, the short way
 *     response_fields
 *               what these fields mean
 *     line      one of them as nginx's parser reads it; how the log quotes a
 *               bad one
 *     known_fields
 *               fields that are known beforehand, by their names
 *     body      body of the response
 *     chunked   chunked bodies, of both
 *     rewrite   Location and Refresh, and the rules for both and for cookies
 *     cookie    Set-Cookie
 *     ssl       TLS to the origin
 *     cache     file cache and store
 */


#ifndef _NGX_HTTP_MYPROXY_MODULE_H_INCLUDED_
#define _NGX_HTTP_MYPROXY_MODULE_H_INCLUDED_


#include "ngx_http_myproxy_compat.h"
#include "ngx_http_myproxy_stock.h"


/* places for names of fields that are known beforehand */
#define NGX_HTTP_MYPROXY_KNOWN_FIELDS  256


typedef struct ngx_http_myproxy_known_field_s  ngx_http_myproxy_known_field_t;


/* cycle */

typedef struct {
    ngx_array_t                      caches;  /* ngx_http_file_cache_t * */
    ngx_array_t                      stock;  /* ngx_http_myproxy_stock_t * */
    ngx_http_upstream_srv_conf_t    *targets;  /* of variables; NULL: none */
    ngx_uint_t                       connection_noted;
                                            /* unsigned  connection_noted:1; */

    ngx_http_myproxy_known_field_t  *names[NGX_HTTP_MYPROXY_KNOWN_FIELDS];

#if (NGX_HTTP_SSL)
    ngx_array_t                      ssl;
                                         /* ngx_http_myproxy_loc_conf_t * */
#endif
} ngx_http_myproxy_main_conf_t;


/*
 * What myproxy_pass names.  With "http://example.com:8080/a":
 */

typedef struct {
    ngx_str_t                        key;   /* http://example.com:8080 */
    ngx_str_t                        host;  /* example.com:8080 */
    ngx_str_t                        port;  /* 8080 */
    ngx_str_t                        uri;   /* /a */
} ngx_http_myproxy_target_t;


/* a header field as myproxy_set_header gives it */

typedef struct {
    ngx_str_t                        name;
    ngx_http_complex_value_t         value;
} ngx_http_myproxy_field_t;


/*
 * A piece of a request's header: constant lines, or a line whose value is
 * found when the request is made.
 */

typedef struct {
    ngx_str_t                        text;   /* whole lines, or "Name: " */
    ngx_http_complex_value_t        *value;  /* NULL if the text is all */
    ngx_int_t                        index;  /* variable that is the value */
} ngx_http_myproxy_piece_t;


/* what is sent besides the client's own fields */

typedef struct {
    ngx_array_t                      pieces;  /* ngx_http_myproxy_piece_t */
    ngx_hash_t                       drop;    /* client's that do not pass */
    uint64_t                         dropped; /* bits: their hashes mod 64 */
    ngx_http_complex_value_t        *host;    /* NULL: the client's */

    /* of constant values of Connection and Upgrade */

    ngx_str_t                        connection;  /* a line, or empty */
    ngx_str_t                        upgrading;   /* the lines instead of it
                                                     if the client upgrades,
                                                     up to the protocols */
    ngx_str_t                        protocols;  /* if set_upgrade */
    ngx_uint_t                       set_upgrade;
                                            /* unsigned  set_upgrade:1; */
    ngx_uint_t                       close;
                                            /* unsigned  close:1; */
} ngx_http_myproxy_fields_t;


/* location */

typedef struct {
    ngx_http_upstream_conf_t         upstream;
    ngx_http_myproxy_stock_t         stock;

    ngx_str_t                        url;       /* as in myproxy_pass */
    u_char                          *pass_file; /* where that stands */
    ngx_uint_t                       pass_line;
    ngx_str_t                        location;  /* replaced by target.uri */
    ngx_http_myproxy_target_t        target;
    ngx_http_complex_value_t        *pass;      /* if it has variables */

    ngx_http_complex_value_t        *method;
    ngx_http_complex_value_t        *body;
    ngx_array_t                     *set_headers;
                                             /* ngx_http_myproxy_field_t */
    ngx_http_myproxy_fields_t       *fields;
    ngx_http_myproxy_fields_t       *fields_cache;
    ngx_array_t                     *upgrade;   /* ngx_str_t */

    ngx_uint_t                       http_version;
    ngx_uint_t                       headers_hash_max_size;
    ngx_uint_t                       headers_hash_bucket_size;

    ngx_flag_t                       redirect;
    ngx_array_t                     *redirects;
                                              /* ngx_http_myproxy_rule_t */
    ngx_array_t                     *cookie_domains;
                                              /* ngx_http_myproxy_rule_t */
    ngx_array_t                     *cookie_paths;
                                              /* ngx_http_myproxy_rule_t */
    ngx_array_t                     *cookie_flags;

#if (NGX_HTTP_CACHE)
    ngx_http_complex_value_t        *cache_key;
#endif

#if (NGX_HTTP_SSL)
    ngx_uint_t                       ssl_protocols;
    ngx_str_t                        ssl_ciphers;
    ngx_uint_t                       ssl_verify_depth;
    ngx_str_t                        ssl_trusted_certificate;
    ngx_str_t                        ssl_crl;
    ngx_array_t                     *ssl_conf_commands;
    ngx_array_t                     *ssl_passwords;  /* as configured */
#endif

    unsigned                         ssl:1;
    unsigned                         closes:1;  /* after each response */
    unsigned                         repeats_body:1;  /* $request_body */

    /* fields of the origin that nginx would write itself, but must not */
    unsigned                         pass_server:1;
    unsigned                         pass_date:1;
} ngx_http_myproxy_loc_conf_t;


/* request */

typedef struct {
    ngx_http_myproxy_target_t       *target;    /* NULL: not known yet */
    ngx_http_upstream_resolved_t    *resolved;  /* NULL: core has it */
    ngx_http_upstream_conf_t        *lookup_conf;  /* with which core looks
                                                      into the cache; NULL */
    ngx_int_t                        resolver_error;  /* 0: none */
    ngx_uint_t                       target_name;  /* what note_answer() has
                                                      returned for it */
    ngx_msec_t                       body_timer;  /* to be set again; 0 */

    ngx_str_t                        uri;      /* what we ask the origin for */
    ngx_str_t                        host;     /* what we send as Host */
    ngx_str_t                        upgrade;  /* protocols to ask for */
    ngx_array_t                     *options;  /* ngx_str_t: Connection */
    ngx_array_t                     *response_options;
                                             /* ngx_str_t: the origin's */

    off_t                            body_length;  /* -1: no body */
    ngx_http_request_body_t          no_body;  /* for r->request_body */

    ngx_http_status_t                status;
    ngx_http_chunked_t               chunked;
    off_t                            interim;  /* bytes of 1xx responses */
    u_char                          *room;     /* for fields of the response */
    u_char                          *room_end;
    ngx_buf_t                       *trailers;

    ngx_chain_t                     *free;
    ngx_chain_t                     *busy;

    size_t                           limit_rate;  /* r's, before the body */

    unsigned                         head:1;
    unsigned                         chunked_body:1;
    unsigned                         without_body:1;  /* it is not whole */
    unsigned                         header_sent:1;
    unsigned                         upgrading:1;
    unsigned                         in_trailers:1;
    unsigned                         limit_rate_set:1;
    unsigned                         nodelay_unset:1;
    unsigned                         ended:1;   /* the client's response */
} ngx_http_myproxy_ctx_t;


/* a rule of myproxy_redirect, myproxy_cookie_domain or myproxy_cookie_path */

typedef enum {
    NGX_HTTP_MYPROXY_RULE_PREFIX,
    NGX_HTTP_MYPROXY_RULE_DOMAIN,
    NGX_HTTP_MYPROXY_RULE_REGEX
} ngx_http_myproxy_rule_e;


typedef struct {
    ngx_http_myproxy_rule_e          type;
    ngx_http_complex_value_t         pattern;
#if (NGX_PCRE)
    ngx_http_regex_t                *regex;
#endif
    ngx_http_complex_value_t         replacement;
} ngx_http_myproxy_rule_t;


/*
 * The response comes from the cache, and so from no connection; a location
 * that has a cache.
 */
#if (NGX_HTTP_CACHE)
#define ngx_http_myproxy_cached(r)     (r)->cached
#define ngx_http_myproxy_caches(mlcf)  (mlcf)->upstream.cache
#else
#define ngx_http_myproxy_cached(r)     0
#define ngx_http_myproxy_caches(mlcf)  0
#endif


/* the client's connection can be switched to another protocol, and is to */
#define ngx_http_myproxy_may_upgrade(r)                                       \
    ((r) == (r)->main                                                         \
     && (r)->http_version == NGX_HTTP_VERSION_11                              \
     && (r)->headers_in.upgrade)


/* no field of this name passes, whoever has sent it */
#define ngx_http_myproxy_is_dropped(fields, h)                                \
    (((fields)->dropped >> (h)->hash % 64) & 1                                \
     && ngx_hash_find(&(fields)->drop, (h)->hash, (h)->lowcase_key,           \
                      (h)->key.len))


/* a location that has a target */
#define ngx_http_myproxy_has_target(conf)                                     \
    ((conf)->upstream.upstream != NULL)


/*
 * Every function below that returns ngx_int_t returns NGX_OK on success and
 * NGX_ERROR when there is no memory, unless it says otherwise; a function
 * for a directive returns NGX_CONF_OK, NGX_CONF_ERROR after it has logged, or
 * a text that nginx puts behind the directive's name.
 */


/* module */

ngx_int_t ngx_http_myproxy_handler(ngx_http_request_t *r);


/* conf */

void *ngx_http_myproxy_create_main_conf(ngx_conf_t *cf);
void *ngx_http_myproxy_create_loc_conf(ngx_conf_t *cf);
char *ngx_http_myproxy_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);


/* nonempty */

/*
 * Refuses an empty first argument with the remedy for that directive, and
 * leaves any other to the function that nginx or we have for it.
 */
char *ngx_http_myproxy_set_nonempty_slot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


/* target */

/* myproxy_pass URL; */
char *ngx_http_myproxy_set_pass(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/*
 * Evaluates a myproxy_pass that has variables into ctx->target and
 * u->resolved.  NGX_ERROR also when the outcome is no URL; it is logged.
 */
ngx_int_t ngx_http_myproxy_eval_target(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf);

/*
 * Percent-encodes the bytes up to the one given, and DEL.  Variables such as
 * $uri hold decoded text, which could end a request line (RFC 9112, section
 * 3; up to a blank) or a field (RFC 9110, section 5.5; up to 0x1f).
 */
ngx_int_t ngx_http_myproxy_encode(ngx_http_request_t *r, ngx_str_t *s,
    u_char upto);

/*
 * Sets ctx->uri to the origin form of the request target (RFC 9112, section
 * 3.2.1), unless that was done before.
 */
ngx_int_t ngx_http_myproxy_make_uri(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf);


/* resolve */

/*
 * The upstream of what variables name and the configuration does not; NULL if
 * there is no memory.  Without "reuse off" it keeps connections.
 */
ngx_http_upstream_srv_conf_t *ngx_http_myproxy_add_targets(ngx_conf_t *cf);

/*
 * Calls ngx_http_upstream_init(), as soon as the name is resolved if variables
 * name one: core connects by that upstream then, instead of u->resolved.
 */
void ngx_http_myproxy_begin(ngx_http_request_t *r);

/*
 * The same where an answer from the cache was looked for first, if the
 * resolver knows the addresses.  To be called in create_request.
 */
void ngx_http_myproxy_use_pool(ngx_http_request_t *r);

/* Sets the timer that core has deleted.  To be called in create_request. */
void ngx_http_myproxy_restore_timer(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx);


/* fields */

/* myproxy_set_header NAME VALUE; */
char *ngx_http_myproxy_set_header(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/*
 * Compiles what is sent besides the client's own fields, or takes over what
 * the outer level has compiled from the same directives.  NGX_ERROR also for
 * a hash that does not fit; it is logged.
 */
ngx_int_t ngx_http_myproxy_compile_fields(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *conf, ngx_http_myproxy_loc_conf_t *prev);

/*
 * Evaluates the pieces into values[], one for each piece.  *size is increased
 * by the bytes that ngx_http_myproxy_copy_fields() will write.  NGX_ERROR also
 * for a value that may not be sent.
 */
ngx_int_t ngx_http_myproxy_eval_fields(ngx_http_request_t *r,
    ngx_http_myproxy_fields_t *fields, ngx_str_t *values, size_t *size);

/* Writes the lines to p and returns the end. */
u_char *ngx_http_myproxy_copy_fields(u_char *p,
    ngx_http_myproxy_fields_t *fields, ngx_str_t *values);


/* host */

/*
 * Sets ctx->host to the Host to send.  To be called when ctx->target is known,
 * since $myproxy_host may be used.  Returns NGX_OK, NGX_HTTP_BAD_REQUEST if
 * there is none, or more than a host and a port, which is logged, or
 * NGX_HTTP_INTERNAL_SERVER_ERROR.
 */
ngx_int_t ngx_http_myproxy_find_host(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_fields_t *fields);


/* connection_fields */

/*
 * Says what myproxy_set_header makes of a Connection or an Upgrade; value: the
 * words of the directive.
 */
void ngx_http_myproxy_check_hop(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_str_t *value);

/*
 * Compiles the values of Connection and Upgrade; set_headers may be NULL.
 * Those that have variables add nothing.
 */
ngx_int_t ngx_http_myproxy_compile_connection_fields(ngx_conf_t *cf,
    ngx_http_myproxy_fields_t *fields, ngx_array_t *set_headers);

/*
 * Finds the Host to send and what the client's Connection and Upgrade say.
 * To be called when ctx->target is known, since $myproxy_host may be used.
 * Returns NGX_OK, NGX_HTTP_BAD_REQUEST for a request that cannot be passed
 * on, which is logged, or NGX_HTTP_INTERNAL_SERVER_ERROR.
 */
ngx_int_t ngx_http_myproxy_read_connection_fields(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf);

/*
 * Tells whether this is a field of the client, and its Connection names it.
 * To be asked only if ctx->options is there.
 */
ngx_uint_t ngx_http_myproxy_is_option(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_table_elt_t *h);

/*
 * Remembers what a Connection of the origin names.
 * NGX_HTTP_UPSTREAM_INVALID_HEADER, logged, if that is too much.
 */
ngx_int_t ngx_http_myproxy_read_options(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_str_t *value);

/*
 * Leaves out a field of a 1xx response or of a trailer section that concerns
 * only the connection to the origin, or the length of the body.
 */
ngx_int_t ngx_http_myproxy_leave_hop(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_table_elt_t *h);

/*
 * Leaves out of a list what the origin's Connection has named, if
 * ctx->response_options has anything.
 */
void ngx_http_myproxy_drop_options(ngx_http_myproxy_ctx_t *ctx,
    ngx_list_t *list);


/* upload */

/* Tells whether the body of myproxy_set_body has $request_body in it. */
ngx_uint_t ngx_http_myproxy_repeats_body(ngx_http_complex_value_t *body);

/*
 * Reads the client's body, unless another handler has, and goes on with
 * ngx_http_myproxy_begin().  Returns NGX_DONE; NGX_HTTP_BAD_GATEWAY, logged,
 * if the body is to be sent and a part of it is gone; or an HTTP status.
 */
ngx_int_t ngx_http_myproxy_read_body(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf);


/* request: callbacks of ngx_http_upstream_t */

ngx_int_t ngx_http_myproxy_create_request(ngx_http_request_t *r);
ngx_int_t ngx_http_myproxy_reinit_request(ngx_http_request_t *r);


/* send: output filters of u->output, whose data is u */

/* For a request that is whole in one buf. */
ngx_int_t ngx_http_myproxy_send_whole(void *data, ngx_chain_t *in);

ngx_int_t ngx_http_myproxy_send_chain(void *data, ngx_chain_t *in);

/* The header of the final response is there; more may wait to be sent. */
void ngx_http_myproxy_end_sending(ngx_http_request_t *r);


/* line */

/*
 * Tells whether a value may be sent: it must not hold what would end the line
 * or the header (RFC 9110, section 5.5).  One that may not is logged.
 */
ngx_uint_t ngx_http_myproxy_valid_value(ngx_http_request_t *r,
    ngx_str_t *name, ngx_str_t *value);

/*
 * Logs what is wrong with a response; returns
 * NGX_HTTP_UPSTREAM_INVALID_HEADER.
 */
ngx_int_t ngx_http_myproxy_invalid(ngx_http_request_t *r, const char *reason);

/* As above, with the bytes from start up to last, quoted. */
ngx_int_t ngx_http_myproxy_invalid_bytes(ngx_http_request_t *r,
    const char *reason, u_char *start, u_char *last);

/* As above, with the bytes up to the end of the line, or up to last. */
ngx_int_t ngx_http_myproxy_invalid_line(ngx_http_request_t *r,
    const char *reason, u_char *start, u_char *last);

/*
 * As above, with the place in the line where nginx's parser has stopped.  The
 * reason is the caller's: read_line() (response.c) for a header, chunked.c for
 * a trailer section.
 */
ngx_int_t ngx_http_myproxy_invalid_parsed(ngx_http_request_t *r,
    const char *reason, ngx_buf_t *b);

/* of what a client or an origin has sent, in a line of the log */
#define NGX_HTTP_MYPROXY_QUOTED_BYTES  64
#define NGX_HTTP_MYPROXY_QUOTED                                               \
    (NGX_HTTP_MYPROXY_QUOTED_BYTES * 4 + sizeof("..."))

/*
 * Writes bytes of a client or an origin for the log: at most
 * NGX_HTTP_MYPROXY_QUOTED_BYTES, then "...", and "\xHH" for a byte that is no
 * printable ASCII, a quote or a backslash.  text has room for
 * NGX_HTTP_MYPROXY_QUOTED bytes; returns it, ended by a null.
 */
u_char *ngx_http_myproxy_quote(u_char *text, ngx_str_t *bytes);

/*
 * As ngx_http_parse_header_line(), with underscores allowed; blanks between a
 * name and its colon are removed (RFC 9112, section 5.1).
 */
ngx_int_t ngx_http_myproxy_parse_line(ngx_http_request_t *r, ngx_buf_t *b);


/* response */

/*
 * The callback u->process_header: reads a status line, then the header behind
 * it.  NGX_AGAIN for more bytes,
 * NGX_HTTP_UPSTREAM_INVALID_HEADER, with a reason in the log, for a response
 * that RFC 9112 does not allow.
 */
ngx_int_t ngx_http_myproxy_process_status_line(ngx_http_request_t *r);

/* whatever it announces (RFC 9112, section 6.3) */
#define ngx_http_myproxy_bodiless(u, ctx)                                     \
    ((ctx)->head                                                              \
     || (u)->headers_in.status_n == NGX_HTTP_NO_CONTENT                       \
     || (u)->headers_in.status_n == NGX_HTTP_NOT_MODIFIED)

/*
 * The response is over, and followed by nothing that was read: the
 * connection may carry another request unless either side has refused.
 */
#define ngx_http_myproxy_keep(u)                                              \
    (u)->keepalive = !(u)->headers_in.connection_close


/* body */

/* Before each attempt: leaves the choice of a way to the response. */
void ngx_http_myproxy_reset_body(ngx_http_upstream_t *u);

/* The header has been read: chooses the way that a body is going to take. */
ngx_int_t ngx_http_myproxy_prepare_body(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx);

/* Sets u->pipe, unless that was done before. */
ngx_int_t ngx_http_myproxy_create_pipe(ngx_http_request_t *r);

/* callbacks of ngx_http_upstream_t */
void ngx_http_myproxy_abort_request(ngx_http_request_t *r);
void ngx_http_myproxy_finalize_request(ngx_http_request_t *r, ngx_int_t rc);


/* rewrite */

/* myproxy_redirect off | default | FROM TO; */
char *ngx_http_myproxy_set_redirect(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
/* myproxy_cookie_domain off | FROM TO; */
char *ngx_http_myproxy_set_cookie_domain(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
/* myproxy_cookie_path off | FROM TO; */
char *ngx_http_myproxy_set_cookie_path(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* Adds the rule that maps the URL in myproxy_pass back to the location. */
ngx_int_t ngx_http_myproxy_default_redirect(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *conf);

/*
 * Applies the first rule that matches the value from an offset on.
 * NGX_DECLINED if none does.
 */
ngx_int_t ngx_http_myproxy_apply_rules(ngx_http_request_t *r,
    ngx_array_t *rules, ngx_str_t *value, size_t offset);

/* callback of ngx_http_upstream_t; prefix: where in the value the URL is */
ngx_int_t ngx_http_myproxy_rewrite_redirect(ngx_http_request_t *r,
    ngx_table_elt_t *h, size_t prefix);


/* cookie */

/* myproxy_cookie_flags off | COOKIE FLAG ...; */
char *ngx_http_myproxy_set_cookie_flags(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
/* callback of ngx_http_upstream_t */
ngx_int_t ngx_http_myproxy_rewrite_cookie(ngx_http_request_t *r,
    ngx_table_elt_t *h);


/* ssl */

#if (NGX_HTTP_SSL)

extern ngx_conf_bitmask_t  ngx_http_myproxy_ssl_protocols[];
extern ngx_conf_post_t     ngx_http_myproxy_ssl_conf_command_post;

/* myproxy_ssl_password_file FILE; */
char *ngx_http_myproxy_set_ssl_password_file(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);

#if (NGX_HTTP_MYPROXY_SSL_CERTIFICATE_CACHE)
/* myproxy_ssl_certificate_cache off | max=N [inactive=TIME] [valid=TIME]; */
char *ngx_http_myproxy_set_ssl_certificate_cache(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
#endif

void ngx_http_myproxy_init_ssl_conf(ngx_http_myproxy_loc_conf_t *conf);

/* Merges, and makes or shares the SSL_CTX.  NGX_ERROR after it has logged. */
ngx_int_t ngx_http_myproxy_merge_ssl_conf(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *prev, ngx_http_myproxy_loc_conf_t *conf);

/* Warns of a certificate that can never match the name it is checked for. */
void ngx_http_myproxy_check_ssl_name(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *conf);

#endif


/* cache */

/* myproxy_store on | off | PATH; */
char *ngx_http_myproxy_set_store(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* The header has been read: stores nothing if the path comes out empty. */
ngx_int_t ngx_http_myproxy_check_store(ngx_http_request_t *r);

/*
 * Makes what core needs for cache or store, or keeps it from both.  To be
 * called if the location has one of them, after
 * ngx_http_myproxy_read_connection_fields() and before core begins.
 */
ngx_int_t ngx_http_myproxy_prepare_cache(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf);

#if (NGX_HTTP_CACHE)

/* myproxy_cache ZONE | off; */
char *ngx_http_myproxy_set_cache(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

void ngx_http_myproxy_init_cache_conf(ngx_http_myproxy_loc_conf_t *conf);
ngx_int_t ngx_http_myproxy_merge_cache_conf(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *prev, ngx_http_myproxy_loc_conf_t *conf);

/* callback of ngx_http_upstream_t */
ngx_int_t ngx_http_myproxy_create_key(ngx_http_request_t *r);

#endif


#include "ngx_http_myproxy_parse.h"


extern ngx_module_t        ngx_http_myproxy_module;
extern ngx_command_t       ngx_http_myproxy_commands[];
extern ngx_conf_bitmask_t  ngx_http_myproxy_next_upstream_masks[];


#endif /* _NGX_HTTP_MYPROXY_MODULE_H_INCLUDED_ */
