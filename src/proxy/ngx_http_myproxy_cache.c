
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"


static ngx_uint_t avoids_cache(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf);
#if (NGX_HTTP_CACHE)
static ngx_uint_t is_foreign_zone(ngx_conf_t *cf, ngx_str_t *name);
#endif


char *
ngx_http_myproxy_set_store(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_myproxy_loc_conf_t  *mlcf = conf;

    ngx_str_t                  *value;
    ngx_http_script_compile_t   sc;

    if (mlcf->upstream.store != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        mlcf->upstream.store = 0;
        return NGX_CONF_OK;
    }

#if (NGX_HTTP_CACHE)
    if (mlcf->upstream.cache > 0) {
        return "is incompatible with \"myproxy_cache\"";
    }
#endif

    mlcf->upstream.store = 1;

    if (ngx_strcmp(value[1].data, "on") == 0) {
        return NGX_CONF_OK;
    }

    /* the path that comes of it ends with '\0' */

    value[1].len++;

    ngx_memzero(&sc, sizeof(ngx_http_script_compile_t));

    sc.cf = cf;
    sc.source = &value[1];
    sc.lengths = &mlcf->upstream.store_lengths;
    sc.values = &mlcf->upstream.store_values;
    sc.variables = ngx_http_script_variables_count(&value[1]);
    sc.complete_lengths = 1;
    sc.complete_values = 1;

    return ngx_http_script_compile(&sc) == NGX_OK ? NGX_CONF_OK
                                                  : NGX_CONF_ERROR;
}


ngx_int_t
ngx_http_myproxy_check_store(ngx_http_request_t *r)
{
    ngx_str_t             path;
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (ngx_http_script_run(r, &path, u->conf->store_lengths->elts, 0,
                            u->conf->store_values->elts)
        == NULL)
    {
        return NGX_ERROR;
    }

    if (path.len > 1) {
        return NGX_OK;
    }

    /* core would create the directories of a path that is only '\0' */

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "the response is not stored: the path that "
                  "\"myproxy_store\" has for it is empty");

    u->store = 0;

    return NGX_OK;
}


/*
 * Core looks for cache and store in u->conf before it calls create_request,
 * which puts the location's own back: from 1.29.7 on, core may tell by it what
 * a kept connection is for.
 */

ngx_int_t
ngx_http_myproxy_prepare_cache(ngx_http_request_t *r,
    ngx_http_myproxy_ctx_t *ctx, ngx_http_myproxy_loc_conf_t *mlcf)
{
    ngx_http_upstream_conf_t  *ucf;

    if (ngx_http_myproxy_caches(mlcf)
        && ngx_http_myproxy_create_pipe(r) != NGX_OK)
    {
        /* with a cache, core looks into it however the request ends */
        return NGX_ERROR;
    }

    if (!avoids_cache(r, ctx, mlcf)) {
        return NGX_OK;
    }

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "myproxy neither caches nor stores");

    ucf = ngx_palloc(r->pool, sizeof(ngx_http_upstream_conf_t));
    if (ucf == NULL) {
        return NGX_ERROR;
    }

    *ucf = *r->upstream->conf;
    ucf->store = 0;
#if (NGX_HTTP_CACHE)
    ucf->cache = 0;
#endif

    r->upstream->conf = ucf;
    ctx->lookup_conf = ucf;

    return NGX_OK;
}


/*
 * What the client has sent decides where a response is stored and found: it
 * is in the key, the variant, the path and the conditions.  The origin does
 * not see all of it if Connection names a field, and is asked for more than by
 * others if it may switch protocols.  Its response is none to their requests.
 */

static ngx_uint_t
avoids_cache(ngx_http_request_t *r, ngx_http_myproxy_ctx_t *ctx,
    ngx_http_myproxy_loc_conf_t *mlcf)
{
    ngx_list_part_t            *part;
    ngx_table_elt_t            *h, *end;
    ngx_http_myproxy_fields_t  *fields;

    if (ctx->upgrading) {
        return 1;
    }

    if (ctx->options == NULL || !mlcf->upstream.pass_request_headers) {
        return 0;
    }

    fields = mlcf->fields;

#if (NGX_HTTP_CACHE)
    if (mlcf->upstream.cache) {
        fields = mlcf->fields_cache;
    }
#endif

    for (part = &r->headers_in.headers.part; part; part = part->next) {

        h = part->elts;
        end = h + part->nelts;

        for ( /* void */ ; h < end; h++) {

            /* a field that no request passes does not matter */

            if (!ngx_http_myproxy_is_dropped(fields, h)
                && ngx_http_myproxy_is_option(r, ctx, h))
            {
                return 1;
            }
        }
    }

    return 0;
}


#if (NGX_HTTP_CACHE)


char *
ngx_http_myproxy_set_cache(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_myproxy_loc_conf_t  *mlcf = conf;

    ngx_str_t                         *value;
    ngx_http_complex_value_t           cv;
    ngx_http_upstream_conf_t          *ucf;
    ngx_http_compile_complex_value_t   ccv;

    ucf = &mlcf->upstream;

    if (ucf->cache != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        ucf->cache = 0;
        return NGX_CONF_OK;
    }

    if (ucf->store > 0) {
        return "is incompatible with \"myproxy_store\"";
    }

    ucf->cache = 1;

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = &value[1];
    ccv.complex_value = &cv;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (cv.lengths) {
        ucf->cache_value = ngx_palloc(cf->pool,
                                      sizeof(ngx_http_complex_value_t));
        if (ucf->cache_value == NULL) {
            return NGX_CONF_ERROR;
        }

        *ucf->cache_value = cv;

        return NGX_CONF_OK;
    }

    if (is_foreign_zone(cf, &value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the zone in \"%V %V\" is that of another module: "
                           "define one of another name, and with another "
                           "directory, with \"myproxy_cache_path\"",
                           &cmd->name, &value[1]);
        return NGX_CONF_ERROR;
    }

    ucf->cache_zone = ngx_shared_memory_add(cf, &value[1], 0,
                                            &ngx_http_myproxy_module);

    return ucf->cache_zone ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static ngx_uint_t
is_foreign_zone(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_uint_t        i;
    ngx_shm_zone_t   *zone;
    ngx_list_part_t  *part;

    for (part = &cf->cycle->shared_memory.part; part; part = part->next) {

        zone = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (zone[i].shm.name.len == name->len
                && ngx_strncmp(zone[i].shm.name.data, name->data, name->len)
                   == 0)
            {
                return zone[i].tag != &ngx_http_myproxy_module;
            }
        }
    }

    return 0;
}


void
ngx_http_myproxy_init_cache_conf(ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_http_upstream_conf_t  *ucf;

    ucf = &conf->upstream;

    ucf->cache = NGX_CONF_UNSET;
    ucf->cache_min_uses = NGX_CONF_UNSET_UINT;
    ucf->cache_max_range_offset = NGX_CONF_UNSET;
    ucf->cache_bypass = NGX_CONF_UNSET_PTR;
    ucf->no_cache = NGX_CONF_UNSET_PTR;
    ucf->cache_valid = NGX_CONF_UNSET_PTR;
    ucf->cache_lock = NGX_CONF_UNSET;
    ucf->cache_lock_timeout = NGX_CONF_UNSET_MSEC;
    ucf->cache_lock_age = NGX_CONF_UNSET_MSEC;
    ucf->cache_revalidate = NGX_CONF_UNSET;
    ucf->cache_convert_head = NGX_CONF_UNSET;
    ucf->cache_background_update = NGX_CONF_UNSET;

    conf->cache_key = NGX_CONF_UNSET_PTR;
}


ngx_int_t
ngx_http_myproxy_merge_cache_conf(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *prev, ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_http_upstream_conf_t  *ucf, *pucf;

    ucf = &conf->upstream;
    pucf = &prev->upstream;

    /* of store and cache, the one on the inner level is meant */

    if (ucf->store > 0) {
        ucf->cache = 0;
    }

    if (ucf->cache > 0) {
        ucf->store = 0;
    }

    if (ucf->cache == NGX_CONF_UNSET) {
        ngx_conf_merge_value(ucf->cache, pucf->cache, 0);

        ucf->cache_zone = pucf->cache_zone;
        ucf->cache_value = pucf->cache_value;
    }

    if (ucf->cache_zone && ucf->cache_zone->data == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"myproxy_cache\" zone \"%V\" is unknown: define "
                           "it with \"myproxy_cache_path\"",
                           &ucf->cache_zone->shm.name);
        return NGX_ERROR;
    }

    ngx_conf_merge_uint_value(ucf->cache_min_uses, pucf->cache_min_uses, 1);

    ngx_conf_merge_off_value(ucf->cache_max_range_offset,
                             pucf->cache_max_range_offset,
                             NGX_MAX_OFF_T_VALUE);

    ngx_conf_merge_bitmask_value(ucf->cache_use_stale, pucf->cache_use_stale,
                                 (NGX_CONF_BITMASK_SET
                                  |NGX_HTTP_UPSTREAM_FT_OFF));

    if (ucf->cache_use_stale & NGX_HTTP_UPSTREAM_FT_OFF) {
        ucf->cache_use_stale = NGX_CONF_BITMASK_SET|NGX_HTTP_UPSTREAM_FT_OFF;
    }

    if (ucf->cache_use_stale & NGX_HTTP_UPSTREAM_FT_ERROR) {
        ucf->cache_use_stale |= NGX_HTTP_UPSTREAM_FT_NOLIVE;
    }

    if (ucf->cache_methods == 0) {
        ucf->cache_methods = pucf->cache_methods;
    }

    ucf->cache_methods |= NGX_HTTP_GET|NGX_HTTP_HEAD;

    ngx_conf_merge_ptr_value(ucf->cache_bypass, pucf->cache_bypass, NULL);
    ngx_conf_merge_ptr_value(ucf->no_cache, pucf->no_cache, NULL);
    ngx_conf_merge_ptr_value(ucf->cache_valid, pucf->cache_valid, NULL);

    ngx_conf_merge_value(ucf->cache_lock, pucf->cache_lock, 0);
    ngx_conf_merge_msec_value(ucf->cache_lock_timeout,
                              pucf->cache_lock_timeout, 5000);
    ngx_conf_merge_msec_value(ucf->cache_lock_age, pucf->cache_lock_age,
                              5000);

    ngx_conf_merge_value(ucf->cache_revalidate, pucf->cache_revalidate, 0);
    ngx_conf_merge_value(ucf->cache_convert_head, pucf->cache_convert_head, 1);
    ngx_conf_merge_value(ucf->cache_background_update,
                         pucf->cache_background_update, 0);

    ngx_conf_merge_ptr_value(conf->cache_key, prev->cache_key, NULL);

    return NGX_OK;
}


/*
 * The default key is where we ask (scheme and authority of the pass), whom we
 * ask for (Host), and what we ask for.  Without Host two sites that share a
 * location would be given each other's responses.  Since no URI has a blank in
 * it, the last blank always tells where the URI begins.
 */

ngx_int_t
ngx_http_myproxy_create_key(ngx_http_request_t *r)
{
    ngx_str_t                    *key;
    ngx_http_myproxy_ctx_t       *ctx;
    ngx_http_myproxy_loc_conf_t  *mlcf;

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_myproxy_module);
    ctx = ngx_http_get_module_ctx(r, ngx_http_myproxy_module);

    if (mlcf->cache_key) {

        key = ngx_array_push(&r->cache->keys);
        if (key == NULL) {
            return NGX_ERROR;
        }

        return ngx_http_complex_value(r, mlcf->cache_key, key);
    }

    if (ngx_http_myproxy_make_uri(r, ctx, mlcf) != NGX_OK) {
        return NGX_ERROR;
    }

    key = ngx_array_push_n(&r->cache->keys, 5);
    if (key == NULL) {
        return NGX_ERROR;
    }

    key[0] = ctx->target->key;
    ngx_str_set(&key[1], " ");

    if (r->method == NGX_HTTP_HEAD && !mlcf->upstream.cache_convert_head) {

        /* a response without body is none to GET */

        ngx_str_set(&key[1], " HEAD ");
    }

    key[2] = ctx->host;
    ngx_str_set(&key[3], " ");
    key[4] = ctx->uri;

    r->upstream->uri = ctx->uri;

    return NGX_OK;
}


#endif
