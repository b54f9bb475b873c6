
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"
#include "ngx_http_upstream_reuse_module.h"


static void merge_connection(ngx_http_myproxy_loc_conf_t *prev,
    ngx_http_myproxy_loc_conf_t *conf);
static ngx_int_t merge_buffers(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *prev, ngx_http_myproxy_loc_conf_t *conf);
static ngx_int_t merge_temp_files(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *prev, ngx_http_myproxy_loc_conf_t *conf,
    size_t size);
static ngx_int_t merge_temp_path(ngx_conf_t *cf,
    ngx_http_upstream_conf_t *ucf, ngx_http_upstream_conf_t *pucf);
static ngx_int_t merge_request(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *prev, ngx_http_myproxy_loc_conf_t *conf);
static ngx_int_t merge_response(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *prev, ngx_http_myproxy_loc_conf_t *conf);
static void inherit_target(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *prev,
    ngx_http_myproxy_loc_conf_t *conf);


/*
 * Fields that belong to nginx, which writes its own or has acted on them, or
 * that concern the connection to the origin (RFC 9110, section 7.6.1).
 */

static ngx_str_t  ngx_http_myproxy_hide_headers[] = {
    ngx_string("Date"),
    ngx_string("Server"),
    ngx_string("X-Pad"),
    ngx_string("X-Accel-Expires"),
    ngx_string("X-Accel-Redirect"),
    ngx_string("X-Accel-Limit-Rate"),
    ngx_string("X-Accel-Buffering"),
    ngx_string("X-Accel-Charset"),
    ngx_string("Proxy-Connection"),
    ngx_string("TE"),
    ngx_null_string
};


/* the stock proxy's: names in it are unique among all modules */

static ngx_path_init_t  ngx_http_myproxy_temp_path = {
    ngx_string(NGX_HTTP_PROXY_TEMP_PATH), { 1, 2, 0 }
};


static ngx_str_t  ngx_http_myproxy_websocket = ngx_string("websocket");


void *
ngx_http_myproxy_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_myproxy_main_conf_t  *mmcf;

    mmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_myproxy_main_conf_t));
    if (mmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&mmcf->stock, cf->pool, 4,
                       sizeof(ngx_http_myproxy_stock_t *))
        != NGX_OK)
    {
        return NULL;
    }

#if (NGX_HTTP_CACHE)
    if (ngx_array_init(&mmcf->caches, cf->pool, 4,
                       sizeof(ngx_http_file_cache_t *))
        != NGX_OK)
    {
        return NULL;
    }
#endif

#if (NGX_HTTP_SSL)
    if (ngx_array_init(&mmcf->ssl, cf->pool, 4,
                       sizeof(ngx_http_myproxy_loc_conf_t *))
        != NGX_OK)
    {
        return NULL;
    }
#endif

    return mmcf;
}


void *
ngx_http_myproxy_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_upstream_conf_t     *ucf;
    ngx_http_myproxy_loc_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_myproxy_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * Left zero: ucf->bufs, ucf->ignore_headers, ucf->next_upstream,
     * ucf->temp_path, ucf->hide_headers_hash, ucf->cyclic_temp_file,
     * conf->redirects, conf->stock, and the string values.
     */

    ucf = &conf->upstream;

    ngx_str_set(&ucf->module, "myproxy");

    ucf->change_buffering = 1;

    ngx_http_myproxy_pass_early_hints(ucf);

    ucf->buffering = NGX_CONF_UNSET;
    ucf->request_buffering = NGX_CONF_UNSET;
    ucf->ignore_client_abort = NGX_CONF_UNSET;
    ucf->intercept_errors = NGX_CONF_UNSET;
    ucf->force_ranges = NGX_CONF_UNSET;
    ucf->socket_keepalive = NGX_CONF_UNSET;
    ucf->pass_request_headers = NGX_CONF_UNSET;
    ucf->pass_request_body = NGX_CONF_UNSET;

    ucf->local = NGX_CONF_UNSET_PTR;

#if (NGX_HTTP_MYPROXY_SOCKET_BUFFERS)
    ucf->socket_rcvbuf = NGX_CONF_UNSET_SIZE;
    ucf->socket_sndbuf = NGX_CONF_UNSET_SIZE;
#endif

    ucf->connect_timeout = NGX_CONF_UNSET_MSEC;
    ucf->send_timeout = NGX_CONF_UNSET_MSEC;
    ucf->read_timeout = NGX_CONF_UNSET_MSEC;
    ucf->next_upstream_timeout = NGX_CONF_UNSET_MSEC;
    ucf->next_upstream_tries = NGX_CONF_UNSET_UINT;
#if (NGX_HTTP_MYPROXY_CONNECTION_DROP)
    ucf->connection_drop = NGX_CONF_UNSET_MSEC;
#endif

    ucf->send_lowat = NGX_CONF_UNSET_SIZE;
    ucf->buffer_size = NGX_CONF_UNSET_SIZE;
    ucf->busy_buffers_size_conf = NGX_CONF_UNSET_SIZE;
    ucf->max_temp_file_size_conf = NGX_CONF_UNSET_SIZE;
    ucf->temp_file_write_size_conf = NGX_CONF_UNSET_SIZE;
    ucf->limit_rate = NGX_HTTP_MYPROXY_LIMIT_RATE_UNSET;

    ucf->hide_headers = NGX_CONF_UNSET_PTR;
    ucf->pass_headers = NGX_CONF_UNSET_PTR;

#if (NGX_HTTP_MYPROXY_TRAILERS)
    ucf->pass_trailers = NGX_CONF_UNSET;
#endif

    ucf->store = NGX_CONF_UNSET;
    ucf->store_access = NGX_CONF_UNSET_UINT;

    conf->method = NGX_CONF_UNSET_PTR;
    conf->body = NGX_CONF_UNSET_PTR;
    conf->set_headers = NGX_CONF_UNSET_PTR;
    conf->upgrade = NGX_CONF_UNSET_PTR;

    conf->http_version = NGX_CONF_UNSET_UINT;
    conf->headers_hash_max_size = NGX_CONF_UNSET_UINT;
    conf->headers_hash_bucket_size = NGX_CONF_UNSET_UINT;

    conf->redirect = NGX_CONF_UNSET;
    conf->cookie_domains = NGX_CONF_UNSET_PTR;
    conf->cookie_paths = NGX_CONF_UNSET_PTR;
    conf->cookie_flags = NGX_CONF_UNSET_PTR;

#if (NGX_HTTP_CACHE)
    ngx_http_myproxy_init_cache_conf(conf);
#endif

#if (NGX_HTTP_SSL)
    ngx_http_myproxy_init_ssl_conf(conf);
#endif

    return conf;
}


char *
ngx_http_myproxy_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_myproxy_loc_conf_t  *prev = parent;
    ngx_http_myproxy_loc_conf_t  *conf = child;

    ngx_http_core_loc_conf_t     *clcf;

    ngx_http_myproxy_merge_stock(&prev->stock, &conf->stock,
                                 ngx_http_myproxy_has_target(conf));

    inherit_target(cf, prev, conf);

    merge_connection(prev, conf);

    if (merge_buffers(cf, prev, conf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

#if (NGX_HTTP_CACHE)
    if (ngx_http_myproxy_merge_cache_conf(cf, prev, conf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }
#endif

    if (conf->upstream.store == NGX_CONF_UNSET) {
        ngx_conf_merge_value(conf->upstream.store, prev->upstream.store, 0);

        conf->upstream.store_lengths = prev->upstream.store_lengths;
        conf->upstream.store_values = prev->upstream.store_values;
    }

    ngx_conf_merge_uint_value(conf->upstream.store_access,
                              prev->upstream.store_access, 0600);

#if (NGX_HTTP_SSL)
    if (ngx_http_myproxy_merge_ssl_conf(cf, prev, conf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }
#endif

    if (merge_request(cf, prev, conf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (merge_response(cf, prev, conf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->lmt_excpt && clcf->handler == NULL
        && ngx_http_myproxy_has_target(conf))
    {
        clcf->handler = ngx_http_myproxy_handler;
    }

    /* a pass with variables names its upstream when there is a request */

    if (conf->upstream.upstream && conf->pass == NULL
        && conf->http_version == NGX_HTTP_VERSION_11
        && ngx_http_upstream_reuse_foresee(cf, &conf->upstream)
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* "if" and "limit_except" blocks go where their location goes */

static void
inherit_target(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *prev,
    ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (!clcf->noname || ngx_http_myproxy_has_target(conf)) {
        return;
    }

    conf->upstream.upstream = prev->upstream.upstream;
    conf->url = prev->url;
    conf->pass_file = prev->pass_file;
    conf->pass_line = prev->pass_line;
    conf->location = prev->location;
    conf->target = prev->target;
    conf->pass = prev->pass;
    conf->ssl = prev->ssl;
}


static void
merge_connection(ngx_http_myproxy_loc_conf_t *prev,
    ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_http_upstream_conf_t  *ucf, *pucf;

    ucf = &conf->upstream;
    pucf = &prev->upstream;

    ngx_conf_merge_ptr_value(ucf->local, pucf->local, NULL);
    ngx_conf_merge_value(ucf->socket_keepalive, pucf->socket_keepalive, 0);

#if (NGX_HTTP_MYPROXY_SOCKET_BUFFERS)
    ngx_conf_merge_size_value(ucf->socket_rcvbuf, pucf->socket_rcvbuf, 0);
    ngx_conf_merge_size_value(ucf->socket_sndbuf, pucf->socket_sndbuf, 0);
#endif

    ngx_conf_merge_value(ucf->ignore_client_abort, pucf->ignore_client_abort,
                         0);

    ngx_conf_merge_msec_value(ucf->connect_timeout, pucf->connect_timeout,
                              60000);
    ngx_conf_merge_msec_value(ucf->send_timeout, pucf->send_timeout, 60000);
    ngx_conf_merge_msec_value(ucf->read_timeout, pucf->read_timeout, 60000);

    ngx_conf_merge_size_value(ucf->send_lowat, pucf->send_lowat, 0);

    ngx_conf_merge_bitmask_value(ucf->next_upstream, pucf->next_upstream,
                                 (NGX_CONF_BITMASK_SET
                                  |NGX_HTTP_UPSTREAM_FT_ERROR
                                  |NGX_HTTP_UPSTREAM_FT_TIMEOUT));

    if (ucf->next_upstream & NGX_HTTP_UPSTREAM_FT_OFF) {
        ucf->next_upstream = NGX_CONF_BITMASK_SET|NGX_HTTP_UPSTREAM_FT_OFF;
    }

    ngx_conf_merge_uint_value(ucf->next_upstream_tries,
                              pucf->next_upstream_tries, 0);
    ngx_conf_merge_msec_value(ucf->next_upstream_timeout,
                              pucf->next_upstream_timeout, 0);

#if (NGX_HTTP_MYPROXY_CONNECTION_DROP)
    ngx_conf_merge_msec_value(ucf->connection_drop, pucf->connection_drop,
                              NGX_HTTP_UPSTREAM_CONNECTION_DROP_OFF);
#endif
}


static ngx_int_t
merge_buffers(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *prev,
    ngx_http_myproxy_loc_conf_t *conf)
{
    size_t                     size;
    ngx_http_upstream_conf_t  *ucf, *pucf;

    ucf = &conf->upstream;
    pucf = &prev->upstream;

    ngx_conf_merge_value(ucf->buffering, pucf->buffering, 1);
    ngx_conf_merge_value(ucf->request_buffering, pucf->request_buffering, 1);

    ngx_conf_merge_size_value(ucf->buffer_size, pucf->buffer_size,
                              (size_t) ngx_pagesize);

    ngx_conf_merge_bufs_value(ucf->bufs, pucf->bufs, 8, ngx_pagesize);

    if (ucf->bufs.num < 2) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "there must be at least 2 \"myproxy_buffers\"");
        return NGX_ERROR;
    }

    size = ngx_max(ucf->buffer_size, ucf->bufs.size);

    ngx_conf_merge_size_value(ucf->busy_buffers_size_conf,
                              pucf->busy_buffers_size_conf,
                              NGX_CONF_UNSET_SIZE);

    ucf->busy_buffers_size = ucf->busy_buffers_size_conf;

    if (ucf->busy_buffers_size == NGX_CONF_UNSET_SIZE) {
        ucf->busy_buffers_size = 2 * size;
    }

    if (ucf->busy_buffers_size < size) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"myproxy_busy_buffers_size\" must be at least "
                           "%uz, as large as \"myproxy_buffer_size\" and one "
                           "of the \"myproxy_buffers\"", size);
        return NGX_ERROR;
    }

    if (ucf->busy_buffers_size > (ucf->bufs.num - 1) * ucf->bufs.size) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"myproxy_busy_buffers_size\" must be at most "
                           "%uz, all \"myproxy_buffers\" less one",
                           (ucf->bufs.num - 1) * ucf->bufs.size);
        return NGX_ERROR;
    }

    return merge_temp_files(cf, prev, conf, size);
}


/* size: of the largest single buffer */

static ngx_int_t
merge_temp_files(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *prev,
    ngx_http_myproxy_loc_conf_t *conf, size_t size)
{
    ngx_http_upstream_conf_t  *ucf, *pucf;

    ucf = &conf->upstream;
    pucf = &prev->upstream;

    ngx_conf_merge_size_value(ucf->temp_file_write_size_conf,
                              pucf->temp_file_write_size_conf,
                              NGX_CONF_UNSET_SIZE);

    ucf->temp_file_write_size = ucf->temp_file_write_size_conf;

    if (ucf->temp_file_write_size == NGX_CONF_UNSET_SIZE) {
        ucf->temp_file_write_size = 2 * size;
    }

    if (ucf->temp_file_write_size < size) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"myproxy_temp_file_write_size\" must be at least "
                           "%uz, as large as \"myproxy_buffer_size\" and one "
                           "of the \"myproxy_buffers\"", size);
        return NGX_ERROR;
    }

    ngx_conf_merge_size_value(ucf->max_temp_file_size_conf,
                              pucf->max_temp_file_size_conf,
                              NGX_CONF_UNSET_SIZE);

    ucf->max_temp_file_size = ucf->max_temp_file_size_conf;

    if (ucf->max_temp_file_size == NGX_CONF_UNSET_SIZE) {
        ucf->max_temp_file_size = 1024 * 1024 * 1024;
    }

    if (ucf->max_temp_file_size != 0 && ucf->max_temp_file_size < size) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"myproxy_max_temp_file_size\" must be 0, to use "
                           "no temporary files, or at least %uz, as large as "
                           "\"myproxy_buffer_size\" and one of the "
                           "\"myproxy_buffers\"", size);
        return NGX_ERROR;
    }

    return merge_temp_path(cf, ucf, pucf);
}


/*
 * The default is the stock proxy's, and so is what the operator has made of
 * it with "proxy_temp_path": nginx wants a path to have one set of levels.
 */

static ngx_int_t
merge_temp_path(ngx_conf_t *cf, ngx_http_upstream_conf_t *ucf,
    ngx_http_upstream_conf_t *pucf)
{
    ngx_str_t     name;
    ngx_uint_t    i;
    ngx_path_t  **path;

    if (ucf->temp_path == NULL && pucf->temp_path == NULL) {

        name = ngx_http_myproxy_temp_path.name;

        if (ngx_conf_full_name(cf->cycle, &name, 0) != NGX_OK) {
            return NGX_ERROR;
        }

        path = cf->cycle->paths.elts;

        for (i = 0; i < cf->cycle->paths.nelts; i++) {
            if (path[i]->name.len == name.len
                && ngx_strcmp(path[i]->name.data, name.data) == 0)
            {
                ucf->temp_path = path[i];
                return NGX_OK;
            }
        }
    }

    if (ngx_conf_merge_path_value(cf, &ucf->temp_path, pucf->temp_path,
                                  &ngx_http_myproxy_temp_path)
        != NGX_CONF_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
merge_request(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *prev,
    ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_str_t                 *protocol;
    ngx_http_upstream_conf_t  *ucf, *pucf;

    ucf = &conf->upstream;
    pucf = &prev->upstream;

    ngx_conf_merge_value(ucf->pass_request_headers,
                         pucf->pass_request_headers, 1);
    ngx_conf_merge_value(ucf->pass_request_body, pucf->pass_request_body, 1);

    ngx_conf_merge_ptr_value(conf->method, prev->method, NULL);
    ngx_conf_merge_ptr_value(conf->body, prev->body, NULL);

    conf->repeats_body = conf->body
                         && ngx_http_myproxy_repeats_body(conf->body);

    ngx_conf_merge_uint_value(conf->http_version, prev->http_version,
                              NGX_HTTP_VERSION_11);

    ngx_conf_merge_uint_value(conf->headers_hash_max_size,
                              prev->headers_hash_max_size, 512);
    ngx_conf_merge_uint_value(conf->headers_hash_bucket_size,
                              prev->headers_hash_bucket_size, 64);

    conf->headers_hash_bucket_size = ngx_align(conf->headers_hash_bucket_size,
                                               ngx_cacheline_size);

    if (conf->upgrade == NGX_CONF_UNSET_PTR
        && prev->upgrade == NGX_CONF_UNSET_PTR)
    {
        /* made once, at the outermost level */

        prev->upgrade = ngx_array_create(cf->pool, 1, sizeof(ngx_str_t));
        if (prev->upgrade == NULL) {
            return NGX_ERROR;
        }

        protocol = ngx_array_push(prev->upgrade);
        if (protocol == NULL) {
            return NGX_ERROR;
        }

        *protocol = ngx_http_myproxy_websocket;
    }

    ngx_conf_merge_ptr_value(conf->upgrade, prev->upgrade, NULL);

    ngx_conf_merge_ptr_value(conf->set_headers, prev->set_headers, NULL);

    if (!ngx_http_myproxy_has_target(conf)) {
        return NGX_OK;
    }

    if (ngx_http_myproxy_compile_fields(cf, conf, prev) != NGX_OK) {
        return NGX_ERROR;
    }

    /* HTTP/1.0, on either side, has no reuse that could be relied on */

    conf->closes = (conf->http_version < NGX_HTTP_VERSION_11
                    || conf->fields->close);

    return NGX_OK;
}


static ngx_int_t
merge_response(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *prev,
    ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_hash_init_t            hash;
    ngx_http_upstream_conf_t  *ucf, *pucf;

    ucf = &conf->upstream;
    pucf = &prev->upstream;

    ngx_http_myproxy_merge_limit_rate(ucf->limit_rate, pucf->limit_rate);

    ngx_conf_merge_value(ucf->force_ranges, pucf->force_ranges, 0);
#if (NGX_HTTP_MYPROXY_TRAILERS)
    ngx_conf_merge_value(ucf->pass_trailers, pucf->pass_trailers, 0);
#endif
    ngx_conf_merge_value(ucf->intercept_errors, pucf->intercept_errors, 0);

    ngx_conf_merge_bitmask_value(ucf->ignore_headers, pucf->ignore_headers,
                                 NGX_CONF_BITMASK_SET);

    ngx_conf_merge_value(conf->redirect, prev->redirect, 1);

    if (conf->redirect) {

        if (conf->redirects == NULL) {
            conf->redirects = prev->redirects;
        }

        if (conf->redirects == NULL && conf->url.len
            && ngx_http_myproxy_default_redirect(cf, conf) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    ngx_conf_merge_ptr_value(conf->cookie_domains, prev->cookie_domains,
                             NULL);
    ngx_conf_merge_ptr_value(conf->cookie_paths, prev->cookie_paths, NULL);
    ngx_conf_merge_ptr_value(conf->cookie_flags, prev->cookie_flags, NULL);

    hash.max_size = conf->headers_hash_max_size;
    hash.bucket_size = conf->headers_hash_bucket_size;
    hash.name = "myproxy_headers_hash";

    if (ngx_http_upstream_hide_headers_hash(cf, ucf, pucf,
                                            ngx_http_myproxy_hide_headers,
                                            &hash)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    conf->pass_server = ngx_hash_find(&ucf->hide_headers_hash,
                                      ngx_hash_key((u_char *) "server", 6),
                                      (u_char *) "server", 6)
                        == NULL;

    conf->pass_date = ngx_hash_find(&ucf->hide_headers_hash,
                                    ngx_hash_key((u_char *) "date", 4),
                                    (u_char *) "date", 4)
                      == NULL;

    return NGX_OK;
}
