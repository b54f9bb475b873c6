
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Compares the short way through a response's header with nginx's own parsers,
 * line by line, on headers that are made and damaged at random:
 *
 *     differ-header SEED HEADERS
 *
 * Prints how many lines went which way; fails at the first that differs.
 */


#include "ngx_http_myproxy_module.h"


#define MODULES  2
#define HEADER_SIZE  4096

#define count(array)  (sizeof(array) / sizeof((array)[0]))


typedef struct {
    ngx_http_request_t        request;
    ngx_connection_t          connection;
    ngx_log_t                 log;
    ngx_http_myproxy_ctx_t    ctx;
    ngx_list_t                fields;
    ngx_list_part_t          *part;   /* of these, seen up to here */
    ngx_uint_t                taken;
} subject_t;


static ngx_pool_t *make_conf(void);
static size_t make_header(u_char *p);
static u_char *add(u_char *p, const char *text);
static u_char *add_value(u_char *p);
static void damage(u_char *p, size_t *len);
static void check_header(u_char *header, size_t len);
static ngx_uint_t check_status(subject_t *s, ngx_buf_t *b);
static ngx_uint_t check_lines(subject_t *s, ngx_buf_t *b);
static ngx_table_elt_t *next_field(subject_t *s);
static void check_field(subject_t *other, ngx_table_elt_t *h);
static ngx_int_t act(ngx_http_request_t *r, ngx_table_elt_t *h,
    ngx_uint_t offset);
static void begin(subject_t *s);
static void end(subject_t *s);
static unsigned any(unsigned n);
static void differs(const char *what);


/* what nginx has and its files that are linked need */

volatile ngx_cycle_t  *ngx_cycle;
ngx_module_t           ngx_http_myproxy_module = { .ctx_index = 0 };
ngx_module_t           ngx_http_upstream_module = { .ctx_index = 1 };

static ngx_http_myproxy_main_conf_t   mmcf;
static ngx_http_upstream_main_conf_t  umcf;
static void                          *main_conf[MODULES] = { &mmcf, &umcf };

static uint64_t               seed;
static u_char                *shown;
static size_t                 shown_len;
static ngx_uint_t             statuses, fields, acts, ended, left;
static ngx_uint_t             acted, expected;


static const char  *names[] = {
    "Server", "server", "Content-Type", "Content-Length", "content-length",
    "Date", "X-Own", "x_own", "X-A", "Set-Cookie", "ETag", "etag", "CACHE",
    "Cache-Control", "cache-Control", "Connection", "Keep-Alive", "Via",
    "X-A-Name-That-Is-Longer-Than-The-Thirty-Two-Bytes-For-It", "a", "Upgrade",
    "X-A-Name-That-Is-So-Long-That-No-Origin-Would-Ever-Come-To-Think-Of-It",
    "", " ", "X Own", "X.Own", "X(Own", "X\tOwn", "HTTP/1.1 200 OK", "HTTP",
    "\xc3\xa4", "X-\x7f", "Content-Type ", "0", "-", "_", "Transfer-Encoding"
};

static const char  *colons[] = {
    ": ", ": ", ": ", ": ", ": ", ":", ":  ", ":        ", ":\t", "", " :",
    "::", ";", ":\r\n ", "\r:"
};

static const char  *ends[] = {
    "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", " \r\n", "    \r\n",
    "\n", "\r", "\r\r\n", " \n", "\t\r\n", "\r \n", "\n\r", ""
};

static const char  *status_lines[] = {
    "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 404 Not Found\r\n",
    "HTTP/1.1 200\r\n", "HTTP/1.1 200 \r\n", "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 200 OK\n", "HTTP/1.1  200 OK\r\n", "HTTP/1.1 20 OK\r\n",
    "HTTP/1.1 099 No\r\n", "HTTP/1.1 2000 No\r\n", "HTTP/1.10 200 OK\r\n",
    "HTTP/1.1 200.1 OK\r\n", "HTTP/1.1 200OK\r\n", "HTTP/1.1 200\tOK\r\n",
    "HTTP/1.1 200 O\tK\r\n", "HTTP/1.1 200 OK\r\r\n",
    "HTTP/1.1 200 \xc3\xa4\r\n",
    "HTTP/2 200 OK\r\n", "ICY 200 OK\r\n", "HTTP/1.1 103 Early Hints\r\n"
};


int
main(int argc, char **argv)
{
    u_char       text[HEADER_SIZE], *header;
    size_t       len;
    long         n;
    ngx_pool_t  *pool;

    if (argc != 3) {
        fprintf(stderr, "differ-header SEED HEADERS\n");
        return 2;
    }

    seed = strtoull(argv[1], NULL, 10) * 2 + 1;

    ngx_pagesize = 4096;
    ngx_cacheline_size = 64;

    pool = make_conf();

    for (n = strtol(argv[2], NULL, 10); n > 0; n--) {

        len = make_header(text);

        /* nothing is behind it, so that a look beyond is seen */

        header = malloc(len ? len : 1);
        if (header == NULL) {
            return 2;
        }

        memcpy(header, text, len);

        check_header(header, len);

        free(header);
    }

    ngx_destroy_pool(pool);

    printf("%lu status lines, %lu fields, %lu of them acted upon, %lu ends, "
           "%lu left to nginx\n", statuses, fields, acts, ended, left);

    return 0;
}


/* what the module is configured with, and a few names that nginx acts upon */

static ngx_pool_t *
make_conf(void)
{
    ngx_conf_t           cf;
    ngx_uint_t           i;
    ngx_hash_key_t       keys[3];
    ngx_hash_init_t      hash;
    ngx_http_conf_ctx_t  ctx;

    static ngx_log_t                   log;
    static ngx_http_upstream_header_t  headers[3];
    static ngx_str_t  acted_upon[] = {
        ngx_string("content-length"), ngx_string("server"),
        ngx_string("x-accel-redirect")
    };

    ngx_memzero(&cf, sizeof(ngx_conf_t));
    ngx_memzero(&ctx, sizeof(ngx_http_conf_ctx_t));

    cf.ctx = &ctx;
    cf.pool = ngx_create_pool(16384, &log);
    ctx.main_conf = main_conf;

    for (i = 0; i < 3; i++) {
        keys[i].key = acted_upon[i];
        keys[i].key_hash = ngx_hash_key(acted_upon[i].data,
                                        acted_upon[i].len);
        keys[i].value = &headers[i];

        headers[i].handler = act;
        headers[i].offset = acted_upon[i].len;
    }

    hash.hash = &umcf.headers_in_hash;
    hash.key = ngx_hash_key_lc;
    hash.max_size = 512;
    hash.bucket_size = 64;
    hash.name = "headers";
    hash.pool = cf.pool;
    hash.temp_pool = NULL;

    if (ngx_hash_init(&hash, keys, 3) != NGX_OK
        || ngx_http_myproxy_init_known_fields(&cf) != NGX_OK)
    {
        exit(2);
    }

    return cf.pool;
}


static size_t
make_header(u_char *text)
{
    u_char  *p;
    size_t   len;

    p = add(text, status_lines[any(any(2) ? 3 : count(status_lines))]);

    while (any(6) && p - text < HEADER_SIZE / 2) {
        p = add(p, names[any(any(2) ? 22 : count(names))]);
        p = add(p, colons[any(any(2) ? 5 : count(colons))]);
        p = add_value(p);
        p = add(p, ends[any(any(3) ? 6 : count(ends))]);
    }

    p = add(p, any(8) ? "\r\n" : ends[any(count(ends))]);

    while (any(4)) {
        *p++ = (u_char) any(256);
    }

    len = p - text;

    if (any(2)) {
        damage(text, &len);
    }

    return len;
}


static u_char *
add(u_char *p, const char *text)
{
    return ngx_cpymem(p, text, strlen(text));
}


static u_char *
add_value(u_char *p)
{
    unsigned  n;

    for (n = any(any(2) ? 12 : 80); n; n--) {
        *p++ = any(4) ? 'a' + any(26)
                      : any(8) ? ' ' + any(0x5f) : (u_char) any(256);
    }

    return p;
}


static void
damage(u_char *p, size_t *len)
{
    unsigned  n;

    for (n = any(4); n; n--) {
        p[any(*len)] = any(2) ? (u_char) any(256)
                              : (u_char) "\r\n: \0\t/"[any(7)];
    }

    if (any(2)) {
        *len = any(*len + 1);
    }
}


static void
check_header(u_char *header, size_t len)
{
    ngx_buf_t  b;
    subject_t  s;

    shown = header;
    shown_len = len;

    ngx_memzero(&b, sizeof(ngx_buf_t));

    b.start = header;
    b.pos = header;
    b.last = header + len;
    b.end = b.last;

    begin(&s);

    if (check_status(&s, &b)) {
        while (check_lines(&s, &b)) { /* void */ }
    }

    end(&s);
}


/* Both read a status line; tells whether a header follows it. */

static ngx_uint_t
check_status(subject_t *s, ngx_buf_t *b)
{
    ngx_int_t          rc, other_rc;
    ngx_buf_t          other_b, before;
    subject_t          other;
    ngx_uint_t         follows;
    ngx_http_status_t  status, other_status;

    before = *b;
    other_b = *b;
    begin(&other);

    ngx_memzero(&status, sizeof(ngx_http_status_t));
    ngx_memzero(&other_status, sizeof(ngx_http_status_t));

    rc = ngx_http_myproxy_read_status(&s->request, b, &status);
    other_rc = ngx_http_parse_status_line(&other.request, &other_b,
                                          &other_status);
    follows = (other_rc == NGX_OK);

    if (rc == NGX_OK) {
        statuses++;

        if (other_rc != NGX_OK || b->pos != other_b.pos
            || memcmp(&status, &other_status, sizeof(ngx_http_status_t)) != 0
            || s->request.state != other.request.state
            || s->request.http_major != other.request.http_major
            || s->request.http_minor != other.request.http_minor)
        {
            differs("a status line");
        }

    } else if (rc == NGX_DECLINED) {
        left++;

        if (memcmp(b, &before, sizeof(ngx_buf_t)) != 0
            || status.count || status.code || status.start
            || s->request.state)
        {
            differs("what a status line has left behind");
        }

        b->pos = other_b.pos;

    } else {
        differs("the outcome of a status line");
    }

    end(&other);

    return follows;
}


/* Both read lines; tells whether others follow them. */

static ngx_uint_t
check_lines(subject_t *s, ngx_buf_t *b)
{
    ngx_int_t         rc, other_rc;
    ngx_buf_t         rest;
    subject_t         other;
    ngx_table_elt_t  *h;

    rest = *b;
    acted = 0;
    expected = 0;

    s->ctx.status.code = any(2) ? 200 : 103;

    rc = ngx_http_myproxy_read_fields(&s->request, &s->ctx, b, &s->fields);

    begin(&other);

    for (h = next_field(s); h; h = next_field(s)) {
        fields++;

        if (ngx_http_parse_header_line(&other.request, &rest, 1) != NGX_OK
            || other.request.invalid_header
            || *other.request.header_name_end != ':')
        {
            differs("the outcome of a line");
        }

        check_field(&other, h);
    }

    if (b->pos != rest.pos && rc != NGX_DONE) {
        differs("where a line ends");
    }

    acts += acted;

    if (acted != expected) {
        differs("what was done with the fields");
    }

    other_rc = ngx_http_parse_header_line(&other.request, &rest, 1);

    if (rc == NGX_DONE) {
        ended++;

        if (other_rc != NGX_HTTP_PARSE_HEADER_DONE || b->pos != rest.pos) {
            differs("the end of a header");
        }

    } else if (rc == NGX_DECLINED) {
        left++;

        if (s->request.state) {
            differs("what a line has left behind");
        }

    } else {
        differs("the outcome of lines");
    }

    b->pos = rest.pos;

    end(&other);

    return other_rc == NGX_OK;
}


/* One field after the other as they are added to the list. */

static ngx_table_elt_t *
next_field(subject_t *s)
{
    ngx_table_elt_t  *h;

    if (s->part == NULL) {
        s->part = &s->fields.part;
    }

    if (s->taken == s->part->nelts) {

        if (s->part->next == NULL) {
            return NULL;
        }

        s->part = s->part->next;
        s->taken = 0;
    }

    h = s->part->elts;

    return &h[s->taken++];
}


/* The field is what nginx's parser has found. */

static void
check_field(subject_t *other, ngx_table_elt_t *h)
{
    u_char               low[HEADER_SIZE];
    size_t               len;
    ngx_http_request_t  *r;

    r = &other->request;

    len = r->header_name_end - r->header_name_start;
    ngx_strlow(low, r->header_name_start, len);

    if (h->key.len != len
        || memcmp(h->key.data, r->header_name_start, len) != 0
        || h->key.data[len] != '\0'
        || memcmp(h->lowcase_key, low, len) != 0
        || h->hash != r->header_hash)
    {
        differs("a name");
    }

    len = r->header_end - r->header_start;

    if (h->value.len != len
        || memcmp(h->value.data, r->header_start, len) != 0
        || h->value.data[len] != '\0')
    {
        differs("a value");
    }

    if (ngx_hash_find(&umcf.headers_in_hash, h->hash, h->lowcase_key,
                      h->key.len))
    {
        expected++;
    }
}


/* a field that the module looks at itself */

ngx_int_t
ngx_http_myproxy_process_field(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_table_elt_t *h,
    ngx_http_myproxy_known_field_t *name)
{
    ngx_http_upstream_header_t  *header;

    header = name ? name->header
                  : ngx_hash_find(&umcf.headers_in_hash, h->hash,
                                  h->lowcase_key, h->key.len);

    return header ? act(r, h, header->offset) : NGX_OK;
}


/* what core does with a field */

static ngx_int_t
act(ngx_http_request_t *r, ngx_table_elt_t *h, ngx_uint_t offset)
{
    acted++;

    if (offset != h->key.len) {
        differs("what is done with a field");
    }

    return NGX_OK;
}


static void
begin(subject_t *s)
{
    ngx_memzero(s, sizeof(subject_t));

    s->connection.log = &s->log;

    s->request.connection = &s->connection;
    s->request.main_conf = main_conf;
    s->request.pool = ngx_create_pool(4096, &s->log);

    /* all that nginx's parser asks of it is whether it is there */

    s->request.upstream = (ngx_http_upstream_t *) s;

    if (s->request.pool == NULL
        || ngx_list_init(&s->fields, s->request.pool, 3,
                         sizeof(ngx_table_elt_t))
           != NGX_OK)
    {
        exit(2);
    }
}


static void
end(subject_t *s)
{
    ngx_destroy_pool(s->request.pool);
}


/* xorshift64*, by S. Vigna: the same on every machine */

static unsigned
any(unsigned n)
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;

    return (unsigned) ((seed * 0x2545f4914f6cdd1d >> 33) % n);
}


static void
differs(const char *what)
{
    size_t  i;

    printf("%s differs: \"", what);

    for (i = 0; i < shown_len; i++) {
        printf(shown[i] < 0x20 || shown[i] >= 0x7f ? "\\x%02x" : "%c",
               shown[i]);
    }

    printf("\"\n");

    exit(1);
}


ngx_int_t
ngx_http_myproxy_invalid_bytes(ngx_http_request_t *r, const char *reason,
    u_char *start, u_char *last)
{
    return NGX_HTTP_UPSTREAM_INVALID_HEADER;
}


void
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
    /* nothing is logged */
}
