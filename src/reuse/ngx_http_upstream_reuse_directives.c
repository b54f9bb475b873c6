
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The values of directives.
 */


#include "ngx_http_upstream_reuse_layer.h"


/* bytes of the zone, the least and by default; and what a server takes of it,
   and besides for each worker */

#define NGX_HTTP_UPSTREAM_REUSE_ZONE_LEAST  (64 * 1024)
#define NGX_HTTP_UPSTREAM_REUSE_ZONE        (8 * 1024 * 1024)
#define NGX_HTTP_UPSTREAM_REUSE_ZONE_MOST   (1024 * 1024 * 1024)
#define NGX_HTTP_UPSTREAM_REUSE_RECORD      2048
#define NGX_HTTP_UPSTREAM_REUSE_SHARE       256

#define NGX_HTTP_UPSTREAM_REUSE_SESSIONS_LEAST  (256 * 1024)
#define NGX_HTTP_UPSTREAM_REUSE_WARMEST     10000
#define NGX_HTTP_UPSTREAM_REUSE_QUEUE_TIMEOUT  60000  /* milliseconds */
#define NGX_HTTP_UPSTREAM_REUSE_JITTER      10       /* percent */

/* milliseconds: an age of less is hardly meant */
#define NGX_HTTP_UPSTREAM_REUSE_YOUNG       1000


/* seconds, and how many: Linux takes no more */
#define NGX_HTTP_UPSTREAM_REUSE_PROBE_TIME   32767
#define NGX_HTTP_UPSTREAM_REUSE_PROBE_COUNT  127


static char *reuse_note_off(ngx_conf_t *cf, void *post, void *data);
static ngx_uint_t reuse_parse_probe(ngx_str_t *value,
    ngx_http_upstream_reuse_probe_t *probe);
static char *reuse_refuse_age(ngx_conf_t *cf, ngx_str_t *value);
static size_t reuse_last_zone_size(ngx_conf_t *cf);


ngx_conf_post_t  ngx_http_upstream_reuse_post = { reuse_note_off };


/* It is what the operator wants, and so no warning. */

static char *
reuse_note_off(ngx_conf_t *cf, void *post, void *data)
{
    ngx_flag_t  *reuse = data;

    if (*reuse == 0) {
        ngx_conf_log_error(NGX_LOG_NOTICE, cf, 0,
                           "connections to origins are not reused, as "
                           "\"reuse off\" says");
    }

    return NGX_CONF_OK;
}


/* reuse_expiry auto | off | TIME; */

char *
ngx_http_upstream_reuse_set_expiry_slot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf = conf;

    ngx_str_t  *value;

    if (rcf->expiry != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "auto") == 0) {
        rcf->expiry = NGX_HTTP_UPSTREAM_REUSE_EXPIRY_AUTO;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        rcf->expiry = NGX_HTTP_UPSTREAM_REUSE_EXPIRY_OFF;
        return NGX_CONF_OK;
    }

    rcf->idle = ngx_parse_time(&value[1], 0);

    if (rcf->idle == (ngx_msec_t) NGX_ERROR || rcf->idle == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" of \"reuse_expiry\": it is "
                           "\"auto\", \"off\" or the time, such as \"5s\", "
                           "after which the origin closes idle connections",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    rcf->expiry = NGX_HTTP_UPSTREAM_REUSE_EXPIRY_TIME;

    if (rcf->idle <= NGX_HTTP_UPSTREAM_REUSE_LEAST_MARGIN) {
        ngx_http_upstream_reuse_warn(cf, NULL, 0,
                                     "no connection is reused with "
                                     "\"reuse_expiry %V\", as it is too near "
                                     "its end from the beginning: write the "
                                     "time after which the origin closes idle "
                                     "connections", &value[1]);
    }

    return NGX_CONF_OK;
}


/* reuse_probe on | off | [idle=TIME] [interval=TIME] [count=N]; */

char *
ngx_http_upstream_reuse_set_probe_slot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf = conf;

    ngx_str_t                        *value;
    ngx_uint_t                        i;
    ngx_http_upstream_reuse_probe_t  *probe;

    if (rcf->probe != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        rcf->probe = NULL;
        return NGX_CONF_OK;
    }

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "on") == 0) {
        rcf->probe = &ngx_http_upstream_reuse_default_probe;
        return NGX_CONF_OK;
    }

    probe = ngx_pcalloc(cf->pool, sizeof(ngx_http_upstream_reuse_probe_t));
    if (probe == NULL) {
        return NGX_CONF_ERROR;
    }

    rcf->probe = probe;

    for (i = 1; i < cf->args->nelts; i++) {

        if (!reuse_parse_probe(&value[i], probe)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%V\" of \"reuse_probe\": it "
                               "is \"on\", \"off\", or any of \"idle=45s\" "
                               "and \"interval=15s\", in whole seconds up to "
                               "%d, and \"count=4\", up to %d, each once",
                               &value[i], NGX_HTTP_UPSTREAM_REUSE_PROBE_TIME,
                               NGX_HTTP_UPSTREAM_REUSE_PROBE_COUNT);
            return NGX_CONF_ERROR;
        }
    }

    if (probe->idle == 0) {
        probe->idle = ngx_http_upstream_reuse_default_probe.idle;
    }

    if (probe->interval == 0) {
        probe->interval = ngx_http_upstream_reuse_default_probe.interval;
    }

    return NGX_CONF_OK;
}


/* One parameter; 0 if it is none, or is not the first of its name. */

static ngx_uint_t
reuse_parse_probe(ngx_str_t *value, ngx_http_upstream_reuse_probe_t *probe)
{
    int        *field;
    ngx_int_t   n, most;
    ngx_str_t   s;

    s.data = (u_char *) ngx_strchr(value->data, '=');

    if (s.data == NULL) {
        return 0;
    }

    s.data++;
    s.len = value->data + value->len - s.data;

    most = NGX_HTTP_UPSTREAM_REUSE_PROBE_TIME;

    if (ngx_strncmp(value->data, "idle=", 5) == 0) {
        field = &probe->idle;
        n = ngx_parse_time(&s, 1);

    } else if (ngx_strncmp(value->data, "interval=", 9) == 0) {
        field = &probe->interval;
        n = ngx_parse_time(&s, 1);

    } else if (ngx_strncmp(value->data, "count=", 6) == 0) {
        field = &probe->count;
        n = ngx_atoi(s.data, s.len);
        most = NGX_HTTP_UPSTREAM_REUSE_PROBE_COUNT;

    } else {
        return 0;
    }

    if (*field || n <= 0 || n > most) {
        return 0;
    }

    *field = (int) n;

    return 1;
}


/* reuse_max_age TIME [jitter=P%] | off; */

char *
ngx_http_upstream_reuse_set_max_age_slot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf = conf;

    u_char     *p;
    size_t      len;
    ngx_int_t   jitter;
    ngx_str_t  *value;

    if (rcf->max_age != NGX_CONF_UNSET_MSEC) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        rcf->max_age = 0;
        return (cf->args->nelts == 2) ? NGX_CONF_OK
                                      : reuse_refuse_age(cf, &value[2]);
    }

    rcf->max_age = ngx_parse_time(&value[1], 0);

    if (rcf->max_age == (ngx_msec_t) NGX_ERROR || rcf->max_age == 0) {
        return reuse_refuse_age(cf, &value[1]);
    }

    if (rcf->max_age < NGX_HTTP_UPSTREAM_REUSE_YOUNG) {
        ngx_http_upstream_reuse_warn(cf, NULL, 0,
                   "\"reuse_max_age %V\" ends connections within a second, so "
                   "that few are reused: write minutes, as in "
                   "\"reuse_max_age 10m\"", &value[1]);
    }

    rcf->jitter = NGX_HTTP_UPSTREAM_REUSE_JITTER;

    if (cf->args->nelts == 2) {
        return NGX_CONF_OK;
    }

    p = value[2].data + sizeof("jitter=") - 1;
    len = value[2].len - (sizeof("jitter=") - 1);

    if (value[2].len < sizeof("jitter=1%") - 1
        || ngx_strncmp(value[2].data, "jitter=", sizeof("jitter=") - 1) != 0
        || p[len - 1] != '%')
    {
        return reuse_refuse_age(cf, &value[2]);
    }

    jitter = ngx_atoi(p, len - 1);

    if (jitter < 1 || jitter > 99) {
        return reuse_refuse_age(cf, &value[2]);
    }

    rcf->jitter = jitter;

    return NGX_CONF_OK;
}


static char *
reuse_refuse_age(ngx_conf_t *cf, ngx_str_t *value)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" of \"reuse_max_age\": it is "
                       "\"off\" or the age, such as \"10m\", at which "
                       "connections end, and \"jitter=\" may follow, from "
                       "\"jitter=1%%\" to \"jitter=99%%\": up to so much of "
                       "the age is taken off at random", value);

    return NGX_CONF_ERROR;
}


/* reuse_warm N | auto | off; */

char *
ngx_http_upstream_reuse_set_warm_slot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf = conf;

    ngx_str_t  *value;

    if (rcf->warm != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "auto") == 0) {
        rcf->warm = NGX_HTTP_UPSTREAM_REUSE_WARM_AUTO;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        rcf->warm = 0;
        return NGX_CONF_OK;
    }

    rcf->warm = ngx_atoi(value[1].data, value[1].len);

    if (rcf->warm == NGX_ERROR || rcf->warm > NGX_HTTP_UPSTREAM_REUSE_WARMEST)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" of \"reuse_warm\": it is "
                           "how many connections are kept ready, up "
                           "to %d, or \"auto\", or \"off\"", &value[1],
                           NGX_HTTP_UPSTREAM_REUSE_WARMEST);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* reuse_limit N [queue=M] [timeout=T]; */

char *
ngx_http_upstream_reuse_set_limit_slot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_upstream_reuse_srv_conf_t  *rcf = conf;

    ngx_str_t   *value, s;
    ngx_uint_t   i;

    if (rcf->limit != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;

    rcf->limit = ngx_atoi(value[1].data, value[1].len);
    rcf->queue = NGX_CONF_UNSET;
    rcf->queue_timeout = NGX_CONF_UNSET_MSEC;

    i = 1;

    if (rcf->limit == NGX_ERROR || rcf->limit == 0) {
        goto invalid;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "queue=", 6) == 0
            && rcf->queue == NGX_CONF_UNSET)
        {

            rcf->queue = ngx_atoi(value[i].data + 6, value[i].len - 6);

            if (rcf->queue == NGX_ERROR) {
                goto invalid;
            }

            continue;
        }

        if (ngx_strncmp(value[i].data, "timeout=", 8) == 0
            && rcf->queue_timeout == NGX_CONF_UNSET_MSEC)
        {
            s.data = value[i].data + 8;
            s.len = value[i].len - 8;

            rcf->queue_timeout = ngx_parse_time(&s, 0);

            if (rcf->queue_timeout == (ngx_msec_t) NGX_ERROR
                || rcf->queue_timeout == 0)
            {
                goto invalid;
            }

            continue;
        }

        goto invalid;
    }

    ngx_conf_init_value(rcf->queue, NGX_MAX_INT32_VALUE);
    ngx_conf_init_msec_value(rcf->queue_timeout,
                             NGX_HTTP_UPSTREAM_REUSE_QUEUE_TIMEOUT);

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" of \"reuse_limit\": it is how "
                       "many connections a server may have, from 1 on; "
                       "\"queue=\" and how many requests may wait, and "
                       "\"timeout=\" and how long, may follow, each once, "
                       "as in \"reuse_limit 30 queue=500 timeout=10s\"",
                       &value[i]);

    return NGX_CONF_ERROR;
}


/* reuse_share on | off | N; */

char *
ngx_http_upstream_reuse_set_share_slot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_upstream_reuse_main_conf_t  *rmcf = conf;

    ngx_str_t  *value;

    if (rmcf->share != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "on") == 0) {
        rmcf->share = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        rmcf->share = 0;
        return NGX_CONF_OK;
    }

    rmcf->share = ngx_atoi(value[1].data, value[1].len);

    if (rmcf->share < 2 || rmcf->share > NGX_HTTP_UPSTREAM_REUSE_PLACES) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" of \"reuse_share\": it is "
                           "\"on\", \"off\" or how many idle connections "
                           "worker processes share at most, from 2 to %d",
                           &value[1], NGX_HTTP_UPSTREAM_REUSE_PLACES);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* reuse_zone SIZE; */

char *
ngx_http_upstream_reuse_set_zone_slot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_upstream_reuse_main_conf_t  *rmcf = conf;

    ssize_t     size, least;
    ngx_str_t  *value;

    if (rmcf->zone_size) {
        return "is duplicate";
    }

    value = cf->args->elts;

    size = ngx_parse_size(&value[1]);

    least = ngx_max(NGX_HTTP_UPSTREAM_REUSE_ZONE_LEAST,
                    (ssize_t) (8 * ngx_pagesize));

    if (size < least) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" of \"reuse_zone\": it is "
                           "the size of the shared memory, such as \"8m\", "
                           "at least \"%zk\"", &value[1], least / 1024);
        return NGX_CONF_ERROR;
    }

    rmcf->zone_size = size;

    return NGX_CONF_OK;
}


/*
 * What is learned and counted is lost with a change of the size, so there are
 * few sizes, and a reload chooses none that is smaller.  Workers of the
 * configuration before need room while they last.
 */

size_t
ngx_http_upstream_reuse_default_zone_size(ngx_conf_t *cf)
{
    size_t                           size, need;
    ngx_int_t                        workers;
    ngx_uint_t                       i, j;
    ngx_core_conf_t                 *ccf;
    ngx_http_upstream_server_t      *server;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    ccf = (ngx_core_conf_t *) ngx_get_conf(cf->cycle->conf_ctx,
                                           ngx_core_module);

    /* it may be written behind http{} */

    workers = (ccf->worker_processes == NGX_CONF_UNSET)
              ? ngx_max(ngx_ncpu, 1) : ccf->worker_processes;

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    uscfp = umcf->upstreams.elts;
    need = 0;

    for (i = 0; i < umcf->upstreams.nelts; i++) {

        if (uscfp[i]->servers == NULL) {
            continue;
        }

        server = uscfp[i]->servers->elts;

        for (j = 0; j < uscfp[i]->servers->nelts; j++) {
            need += ngx_max(server[j].naddrs, 1);
        }
    }

    need *= NGX_HTTP_UPSTREAM_REUSE_RECORD
            + 2 * workers * NGX_HTTP_UPSTREAM_REUSE_SHARE;
    need += need / 8;

    size = NGX_HTTP_UPSTREAM_REUSE_ZONE;

    while (size < need && size < NGX_HTTP_UPSTREAM_REUSE_ZONE_MOST) {
        size *= 2;
    }

    return ngx_max(size, reuse_last_zone_size(cf));
}


/* 0: there was none. */

static size_t
reuse_last_zone_size(ngx_conf_t *cf)
{
    ngx_uint_t        i;
    ngx_shm_zone_t   *zone;
    ngx_list_part_t  *part;

    part = &cf->cycle->old_cycle->shared_memory.part;

    for ( /* void */ ; part; part = part->next) {

        zone = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (zone[i].tag == &ngx_http_upstream_reuse_module
                && zone[i].shm.name.len
                   == ngx_http_upstream_reuse_zone_name.len
                && ngx_strncmp(zone[i].shm.name.data,
                               ngx_http_upstream_reuse_zone_name.data,
                               zone[i].shm.name.len)
                   == 0)
            {
                return zone[i].shm.size;
            }
        }
    }

    return 0;
}


/* reuse_sessions SIZE; */

char *
ngx_http_upstream_reuse_set_sessions_slot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_upstream_reuse_main_conf_t  *rmcf = conf;

    ssize_t     size, least;
    ngx_str_t  *value;

    if (rmcf->sessions_size) {
        return "is duplicate";
    }

    value = cf->args->elts;

    size = ngx_parse_size(&value[1]);

    least = ngx_max(NGX_HTTP_UPSTREAM_REUSE_SESSIONS_LEAST,
                    (ssize_t) (8 * ngx_pagesize));

    if (size < least) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" of \"reuse_sessions\": it is "
                           "the size of the shared memory for TLS sessions, "
                           "such as \"8m\", at least \"%zk\"", &value[1],
                           least / 1024);
        return NGX_CONF_ERROR;
    }

    rmcf->sessions_size = size;

    return NGX_CONF_OK;
}
