
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * How old connections become (reuse_max_age).  Each draws its age as it is
 * first kept, so that those which were opened together do not end together.
 * Behind an address that stands for many servers new connections go to those
 * that are new, too.
 */


#include "ngx_http_upstream_reuse.h"


#define NGX_HTTP_UPSTREAM_REUSE_JITTER  10           /* percent */

/* milliseconds: an age of less is hardly meant */
#define NGX_HTTP_UPSTREAM_REUSE_YOUNG   1000


static char *reuse_refuse_age(ngx_conf_t *cf, ngx_str_t *value);


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


ngx_msec_t
ngx_http_upstream_reuse_draw_lifetime(ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    ngx_msec_t  range;

    if (rcf->max_age == 0) {
        return 0;
    }

    range = rcf->max_age - ngx_http_upstream_reuse_least_age(rcf);

    return rcf->max_age - (ngx_msec_t) ngx_random() % (range + 1);
}


ngx_msec_t
ngx_http_upstream_reuse_least_age(ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    return rcf->max_age
           - (ngx_msec_t) ((uint64_t) rcf->max_age * rcf->jitter / 100);
}


ngx_msec_t
ngx_http_upstream_reuse_renew_lifetime(
    ngx_http_upstream_reuse_srv_conf_t *rcf, ngx_msec_t lifetime)
{
    if (rcf->max_age
        && lifetime >= ngx_http_upstream_reuse_least_age(rcf)
        && lifetime <= rcf->max_age)
    {
        return lifetime;
    }

    return ngx_http_upstream_reuse_draw_lifetime(rcf);
}


void
ngx_http_upstream_reuse_renew_age(ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_parcel_t *parcel)
{
    ngx_msec_t  end;

    if (parcel->lifetime) {
        parcel->end = parcel->unaged_end;

        if (parcel->reason == NGX_HTTP_UPSTREAM_REUSE_CLOSE_AGE) {
            parcel->reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED;
        }
    }

    parcel->lifetime = ngx_http_upstream_reuse_renew_lifetime(rcf,
                                                             parcel->lifetime);
    parcel->unaged_end = parcel->end;

    end = parcel->start + parcel->lifetime;

    if (parcel->lifetime && (ngx_msec_int_t) (end - parcel->end) < 0) {
        parcel->end = end;
        parcel->reason = NGX_HTTP_UPSTREAM_REUSE_CLOSE_AGE;
    }
}


ngx_msec_t
ngx_http_upstream_reuse_age_left(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_msec_t  age;

    age = ngx_current_msec - conn->connection->start_time;

    return (age < conn->lifetime) ? conn->lifetime - age : 0;
}
