
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "fuzz.h"


static void start(const char *prefix);
static ngx_http_conf_ctx_t *server_conf(ngx_uint_t i);
static void check_log(ngx_log_t *log, ngx_uint_t level, u_char *buf,
    size_t len);


int LLVMFuzzerInitialize(int *argc, char ***argv);
const char *__lsan_default_suppressions(void);
const char *__lsan_default_options(void);


static const char  *temp_paths[] = {
    "client_body", "proxy", "fastcgi", "uwsgi", "scgi", "myproxy"
};

static ngx_cycle_t  *cycle;
static ngx_log_t     quiet = { .log_level = NGX_LOG_INFO,
                               .writer = check_log };


/* what nginx itself never frees: see tools/lsan.supp */

const char *
__lsan_default_suppressions(void)
{
    return "leak:ngx_regex_malloc\nleak:libcrypto.so\n";
}


const char *
__lsan_default_options(void)
{
    return "print_suppressions=0";
}


int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    FILE        *conf;
    char         prefix[] = "/tmp/fuzz.XXXXXX/", name[64], command[64];
    ngx_uint_t   i;

    prefix[sizeof(prefix) - 2] = '\0';

    if (mkdtemp(prefix) == NULL) {
        exit(2);
    }

    prefix[sizeof(prefix) - 2] = '/';

    (void) snprintf(name, sizeof(name), "%snginx.conf", prefix);

    conf = fopen(name, "w");
    if (conf == NULL) {
        exit(2);
    }

    fprintf(conf, "pid pid; lock_file lock; events { }\n"
                  "http { access_log off;\n");

    for (i = 0; i < fuzz_count(temp_paths); i++) {
        fprintf(conf, "%s_temp_path %s;\n", temp_paths[i], temp_paths[i]);
    }

    for (i = 0; i < fuzz_nlocations; i++) {
        fprintf(conf,
                "server { listen unix:%ssocket; server_name s%u;\n"
                "location / { myproxy_pass http://127.0.0.1:1; %s } }\n",
                prefix, (unsigned) i, fuzz_locations[i]);
    }

    fprintf(conf, "}\n");
    fclose(conf);

    ngx_os_argv = *argv;
    start(prefix);

    (void) snprintf(command, sizeof(command), "rm -rf %s", prefix);

    return system(command) ? 2 : 0;
}


/* what nginx's main() does, up to the configuration */

static void
start(const char *prefix)
{
    static ngx_cycle_t  init;

    if (ngx_strerror_init() != NGX_OK) {
        exit(2);
    }

    ngx_time_init();
#if (NGX_PCRE)
    ngx_regex_init();
#endif
    ngx_pid = ngx_getpid();

    init.log = ngx_log_init((u_char *) prefix, (u_char *) "error.log");
    init.pool = ngx_create_pool(1024, init.log);

    ngx_cycle = &init;

    init.prefix.data = (u_char *) prefix;
    init.prefix.len = ngx_strlen(prefix);
    init.conf_prefix = init.prefix;
    init.conf_file.data = ngx_pcalloc(init.pool, 64);
    init.conf_file.len = ngx_sprintf(init.conf_file.data, "%snginx.conf",
                                     prefix)
                         - init.conf_file.data;
    ngx_str_set(&init.error_log, "error.log");

#if (NGX_SSL)
    ngx_ssl_init(init.log);
#endif

    ngx_test_config = 1;

    if (ngx_os_init(init.log) != NGX_OK
        || ngx_crc32_table_init() != NGX_OK)
    {
        exit(2);
    }

    ngx_slab_sizes_init();

    if (ngx_preinit_modules() != NGX_OK) {
        exit(2);
    }

    cycle = ngx_init_cycle(&init);
    if (cycle == NULL) {
        exit(2);
    }

    ngx_cycle = cycle;
    ngx_use_stderr = 0;
}


void
fuzz_begin(fuzz_subject_t *s, ngx_uint_t location)
{
    ngx_http_request_t           *r;
    ngx_http_conf_ctx_t          *conf;
    ngx_http_core_loc_conf_t     *clcf;
    ngx_http_core_main_conf_t    *cmcf;
    ngx_http_myproxy_loc_conf_t  *mlcf;

    ngx_memzero(s, sizeof(fuzz_subject_t));

    r = &s->request;
    conf = server_conf(location);

    r->signature = NGX_HTTP_MODULE;
    r->main = r;
    r->connection = &s->client;
    r->upstream = &s->upstream;
    r->method = NGX_HTTP_GET;
    r->http_version = NGX_HTTP_VERSION_11;
    r->main_conf = conf->main_conf;
    r->srv_conf = conf->srv_conf;

    clcf = conf->loc_conf[ngx_http_core_module.ctx_index];
    r->loc_conf = clcf->static_locations->inclusive->loc_conf;

    s->client.log = &quiet;
    s->origin.log = &quiet;
    s->client.read = &s->read;
    s->client.write = &s->write;
    s->origin.read = &s->read;
    s->origin.write = &s->write;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);

    r->pool = ngx_create_pool(4096, &quiet);
    if (r->pool == NULL) {
        exit(2);
    }

    r->ctx = ngx_pcalloc(r->pool, sizeof(void *) * ngx_http_max_module);
    r->variables = ngx_pcalloc(r->pool, cmcf->variables.nelts
                                        * sizeof(ngx_http_variable_value_t));

    s->upstream.peer.connection = &s->origin;
    s->upstream.request_sent = 1;
    s->upstream.headers_in.content_length_n = -1;

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_myproxy_module);
    s->upstream.conf = &mlcf->upstream;

    if (r->ctx == NULL
        || r->variables == NULL
        || ngx_list_init(&r->headers_in.headers, r->pool, 8,
                         sizeof(ngx_table_elt_t)) != NGX_OK
        || ngx_list_init(&s->upstream.headers_in.headers, r->pool, 8,
                         sizeof(ngx_table_elt_t)) != NGX_OK
        || ngx_list_init(&s->upstream.headers_in.trailers, r->pool, 2,
                         sizeof(ngx_table_elt_t)) != NGX_OK)
    {
        exit(2);
    }

    ngx_http_set_ctx(r, &s->ctx, ngx_http_myproxy_module);
}


void
fuzz_end(fuzz_subject_t *s)
{
    ngx_destroy_pool(s->request.pool);
}


static ngx_http_conf_ctx_t *
server_conf(ngx_uint_t i)
{
    ngx_http_conf_ctx_t         *ctx;
    ngx_http_core_srv_conf_t   **server;
    ngx_http_core_main_conf_t   *cmcf;

    ctx = (ngx_http_conf_ctx_t *) cycle->conf_ctx[ngx_http_module.index];
    cmcf = ctx->main_conf[ngx_http_core_module.ctx_index];

    server = cmcf->servers.elts;

    return server[i]->ctx;
}


/* What an origin or a client has sent is quoted in the log. */

static void
check_log(ngx_log_t *log, ngx_uint_t level, u_char *buf, size_t len)
{
    size_t     i;
    ngx_str_t  line;

    line.data = buf;
    line.len = len;

    for (i = 0; i + 1 < len; i++) {
        if (buf[i] < ' ' || buf[i] >= 0x7f) {
            fuzz_fail("a byte in the log that should be quoted", &line);
        }
    }
}


u_char *
fuzz_piece(ngx_str_t *rest, uint32_t *seed, size_t *size)
{
    u_char  *p;
    size_t   n;

    *seed = *seed * 1664525 + 1013904223;

    /* many are short */

    n = 1 + (*seed >> 24) % ((*seed >> 16) % 4 ? 4 : 64);
    n = ngx_min(n, rest->len);

    p = malloc(n);
    if (p == NULL) {
        exit(2);
    }

    ngx_memcpy(p, rest->data, n);

    rest->data += n;
    rest->len -= n;
    *size = n;

    return p;
}


ngx_str_t
fuzz_copy(const uint8_t *data, size_t size)
{
    ngx_str_t  copy;

    copy.len = size;
    copy.data = malloc(size + 1);
    if (copy.data == NULL) {
        exit(2);
    }

    if (size) {
        ngx_memcpy(copy.data, data, size);
    }

    copy.data[size] = '\0';

    return copy;
}


ngx_uint_t
fuzz_same(ngx_str_t *a, ngx_str_t *b)
{
    return a->len == b->len
           && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}


void
fuzz_fail(const char *what, ngx_str_t *text)
{
    size_t  i;

    fprintf(stderr, "%s: \"", what);

    for (i = 0; i < text->len; i++) {
        fprintf(stderr, text->data[i] < 0x20 || text->data[i] >= 0x7f
                        ? "\\x%02x" : "%c", text->data[i]);
    }

    fprintf(stderr, "\"\n");

    abort();
}
