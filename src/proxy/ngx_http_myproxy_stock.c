
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"


static void stop_watching(void *data);
static char *stock_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t note_directive(ngx_conf_t *cf, ngx_command_t *cmd);


/* while the file is read: the stock proxy's directives, as they were */

typedef struct {
    ngx_command_t  *command;
    char         *(*set)(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
} ngx_http_myproxy_watched_t;

static ngx_http_myproxy_watched_t  *watched;
static ngx_uint_t                   nwatched;


ngx_int_t
ngx_http_myproxy_watch_stock(ngx_conf_t *cf)
{
    ngx_uint_t           i, n;
    ngx_module_t       **module;
    ngx_command_t       *cmd;
    ngx_pool_cleanup_t  *cln;

    for (module = cf->cycle->modules; *module; module++) {
        if (ngx_strcmp((*module)->name, "ngx_http_proxy_module") == 0) {
            break;
        }
    }

    if (*module == NULL) {
        return NGX_OK;
    }

    cmd = (*module)->commands;

    for (n = 0; cmd[n].name.len; n++) { /* void */ }

    watched = ngx_palloc(cf->pool, n * sizeof(ngx_http_myproxy_watched_t));
    if (watched == NULL) {
        return NGX_ERROR;
    }

    /* if the file is in error, nothing else gives them back */

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = stop_watching;

    for (i = 0; i < n; i++) {
        watched[i].command = &cmd[i];
        watched[i].set = cmd[i].set;
        cmd[i].set = stock_directive;
    }

    nwatched = n;

    return NGX_OK;
}


static void
stop_watching(void *data)
{
    ngx_uint_t  i;

    for (i = 0; i < nwatched; i++) {
        watched[i].command->set = watched[i].set;
    }

    nwatched = 0;
}


static char *
stock_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char        *rv;
    ngx_uint_t   i;

    for (i = 0; i < nwatched; i++) {
        if (cmd->name.data == watched[i].command->name.data) {
            break;
        }
    }

    if (i == nwatched) {
        return "is not known any more";
    }

    rv = watched[i].set(cf, cmd, conf);

    if (rv == NGX_CONF_OK && note_directive(cf, cmd) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return rv;
}


static ngx_int_t
note_directive(ngx_conf_t *cf, ngx_command_t *cmd)
{
    ngx_http_myproxy_stock_t      *stock, **place;
    ngx_http_myproxy_loc_conf_t   *mlcf;
    ngx_http_myproxy_main_conf_t  *mmcf;

    mlcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_myproxy_module);
    stock = &mlcf->stock;

    if (ngx_strcmp(cmd->name.data, "proxy_pass") == 0) {
        stock->proxy_pass = 1;

        if (ngx_http_myproxy_has_target(mlcf)) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "\"proxy_pass\" takes the place of the "
                               "\"myproxy_pass\" in the same block: remove "
                               "one of them");
        }

        return NGX_OK;
    }

    if (stock->name.len
        || ngx_strcmp(cmd->name.data, "proxy_temp_path") == 0)
    {
        /* the latter is heeded, see merge_temp_path() */
        return NGX_OK;
    }

    mmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_myproxy_module);

    place = ngx_array_push(&mmcf->stock);
    if (place == NULL) {
        return NGX_ERROR;
    }

    *place = stock;

    stock->name = cmd->name;
    stock->file = cf->conf_file->file.name.data;
    stock->line = cf->conf_file->line;

    return NGX_OK;
}


void
ngx_http_myproxy_check_variables(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_str_t *value)
{
    u_char     *p, *last;
    ngx_str_t   name;

    p = value->data;
    last = p + value->len;

    while (p < last) {

        if (*p++ != '$') {
            continue;
        }

        if (p < last && *p == '{') {
            p++;
        }

        name.data = p;

        while (p < last
               && (*p == '_' || (*p >= '0' && *p <= '9')
                   || ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'z')))
        {
            p++;
        }

        name.len = p - name.data;

        if (name.len == sizeof("proxy_host") - 1
            && (ngx_strncasecmp(name.data, (u_char *) "proxy_host", name.len)
                == 0
                || ngx_strncasecmp(name.data, (u_char *) "proxy_port",
                                   name.len)
                   == 0))
        {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "\"$%V\" in \"%V\" is empty, only "
                               "\"proxy_pass\" sets it: write \"$my%V\"",
                               &name, &cmd->name, &name);
        }
    }
}


void
ngx_http_myproxy_merge_stock(ngx_http_myproxy_stock_t *prev,
    ngx_http_myproxy_stock_t *conf, ngx_uint_t target)
{
    ngx_http_myproxy_stock_t  *stock;

    conf->outer = prev;
    conf->myproxy_pass = target;

    for (stock = prev; stock; stock = stock->outer) {
        stock->proxy_pass |= conf->proxy_pass;
        stock->myproxy_pass |= conf->myproxy_pass;
    }
}


/* cf->conf_file is at the end of http{} by now */

void
ngx_http_myproxy_check_stock(ngx_conf_t *cf)
{
    ngx_uint_t                      i;
    ngx_http_myproxy_stock_t      **stock;
    ngx_http_myproxy_main_conf_t   *mmcf;

    stop_watching(NULL);

    mmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_myproxy_module);
    stock = mmcf->stock.elts;

    for (i = 0; i < mmcf->stock.nelts; i++) {

        if (stock[i]->proxy_pass || !stock[i]->myproxy_pass) {
            continue;
        }

        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "\"%V\" does nothing for \"myproxy_pass\", and there is "
                      "no \"proxy_pass\" that it is for: write \"my%V\", and "
                      "the same for what else begins with \"proxy_\", in "
                      "%s:%ui", &stock[i]->name, &stock[i]->name,
                      stock[i]->file, stock[i]->line);
    }
}
