
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What of the configuration defeats reuse.
 */


#include "ngx_http_upstream_reuse_pool.h"


static void reuse_note(ngx_conf_t *cf, ngx_uint_t level, u_char *file,
    ngx_uint_t line, const char *fmt, va_list args);


void ngx_cdecl
ngx_http_upstream_reuse_warn(ngx_conf_t *cf, u_char *file, ngx_uint_t line,
    const char *fmt, ...)
{
    va_list  args;

    if (file == NULL && cf->conf_file
        && cf->conf_file->file.fd != NGX_INVALID_FILE)
    {
        file = cf->conf_file->file.name.data;
        line = cf->conf_file->line;
    }

    va_start(args, fmt);
    reuse_note(cf, NGX_LOG_WARN, file, line, fmt, args);
    va_end(args);
}


void ngx_cdecl
ngx_http_upstream_reuse_complain(ngx_conf_t *cf, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    reuse_note(cf, NGX_LOG_ERR, NULL, 0, fmt, args);
    va_end(args);
}


/* Logs it, and has it shown by the status page. */

static void
reuse_note(ngx_conf_t *cf, ngx_uint_t level, u_char *file, ngx_uint_t line,
    const char *fmt, va_list args)
{
    u_char                               *p, *last, text[NGX_MAX_CONF_ERRSTR];
    ngx_str_t                            *warning;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    last = text + NGX_MAX_CONF_ERRSTR;

    p = ngx_vslprintf(text, last, fmt, args);

    if (file) {
        p = ngx_slprintf(p, last, " in %s:%ui", file, line);
    }

    ngx_log_error(level, cf->log, 0, "%*s", (size_t) (p - text), text);

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
