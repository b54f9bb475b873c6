
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * How old connections become (reuse_max_age).  Each draws its age as it is
 * first kept, so that those which were opened together do not end together.
 * Behind an address that stands for many servers new connections go to those
 * that are new, too.
 */


#include "ngx_http_upstream_reuse_connection.h"


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


ngx_msec_t
ngx_http_upstream_reuse_age_left(ngx_http_upstream_reuse_conn_t *conn)
{
    ngx_msec_t  age;

    age = ngx_current_msec - conn->connection->start_time;

    return (age < conn->lifetime) ? conn->lifetime - age : 0;
}
