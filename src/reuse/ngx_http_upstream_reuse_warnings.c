
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What of the configuration defeats reuse.
 */


#include "ngx_http_upstream_reuse.h"


static ngx_uint_t reuse_pool_size(void *conf);


void ngx_cdecl
ngx_http_upstream_reuse_warn(ngx_conf_t *cf, u_char *file, ngx_uint_t line,
    const char *fmt, ...)
{
    u_char                               *p, *last, text[NGX_MAX_CONF_ERRSTR];
    va_list                               args;
    ngx_str_t                            *warning;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    last = text + NGX_MAX_CONF_ERRSTR;

    va_start(args, fmt);
    p = ngx_vslprintf(text, last, fmt, args);
    va_end(args);

    if (file == NULL && cf->conf_file
        && cf->conf_file->file.fd != NGX_INVALID_FILE)
    {
        file = cf->conf_file->file.name.data;
        line = cf->conf_file->line;
    }

    if (file) {
        p = ngx_slprintf(p, last, " in %s:%ui", file, line);
    }

    ngx_log_error(NGX_LOG_WARN, cf->log, 0, "%*s", (size_t) (p - text), text);

    rmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_upstream_reuse_module);

    warning = ngx_array_push(&rmcf->warnings);
    if (warning == NULL) {
        return;
    }

    warning->data = ngx_pnalloc(cf->pool, p - text);
    if (warning->data == NULL) {
        rmcf->warnings.nelts--;
        return;
    }

    warning->len = p - text;
    ngx_memcpy(warning->data, text, warning->len);
}


void
ngx_http_upstream_reuse_check_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    void           *conf;
    ngx_uint_t      size, servers;
    ngx_msec_t      timeout;
    ngx_command_t  *cmd;

    if (rcf->reuse == 0 || uscf->file_name == NULL) {
        return;
    }

    cmd = ngx_http_upstream_reuse_find_directive(cf, uscf,
                                                 "keepalive_timeout", &conf);
    if (cmd == NULL || cmd->set != ngx_conf_set_msec_slot) {
        return;
    }

    timeout = *(ngx_msec_t *) ((char *) conf + cmd->offset);

    if (rcf->expiry == NGX_HTTP_UPSTREAM_REUSE_EXPIRY_TIME
        && timeout != NGX_CONF_UNSET_MSEC
        && timeout > rcf->idle)
    {
        ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "\"keepalive_timeout\" of upstream \"%V\" is "
                            "longer than its \"reuse_expiry\", which holds: "
                            "remove one of them", &uscf->host);
    }

    size = reuse_pool_size(conf);
    servers = ngx_http_upstream_reuse_count_servers(uscf);

    if (size && size < servers) {
        ngx_http_upstream_reuse_warn(cf, uscf->file_name, uscf->line,
                            "\"keepalive %ui\" of upstream \"%V\" keeps no "
                            "connection for each of its %ui servers: write "
                            "\"keepalive %ui\" or more",
                            size, &uscf->host, servers, servers);
    }
}


/*
 * The size of a pool is the first that the keepalive module has of an
 * upstream; 0 if none is written, or where that may be different.
 */

static ngx_uint_t
reuse_pool_size(void *conf)
{
    return NGX_HTTP_UPSTREAM_REUSE_NATIVE ? 0 : *(ngx_uint_t *) conf;
}
