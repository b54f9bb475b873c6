
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What a log may have: how the last attempt got its connection, and what
 * became of it.
 */


#include "ngx_http_upstream_reuse_layer.h"


typedef enum {
    REUSE_VARIABLE_CONNECTION,
    REUSE_VARIABLE_REASON,
    REUSE_VARIABLE_REQUESTS,
    REUSE_VARIABLE_AGE,
    REUSE_VARIABLE_IDLE,
    REUSE_VARIABLE_FATE,
    REUSE_VARIABLE_QUEUE_TIME
} reuse_variable_e;


static ngx_int_t reuse_get_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static void reuse_set_text(ngx_http_variable_value_t *v, ngx_str_t *text);
static ngx_int_t reuse_set_number(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, const char *format, ngx_uint_t number,
    ngx_uint_t fraction);


static ngx_str_t  reuse_new = ngx_string("new");
static ngx_str_t  reuse_reused = ngx_string("reused");
static ngx_str_t  reuse_shared = ngx_string("shared");
static ngx_str_t  reuse_warm = ngx_string("warm");


static ngx_http_variable_t  reuse_variables[] = {

    { ngx_string("reuse_connection"), NULL, reuse_get_variable,
      REUSE_VARIABLE_CONNECTION, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("reuse_reason"), NULL, reuse_get_variable,
      REUSE_VARIABLE_REASON, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("reuse_requests"), NULL, reuse_get_variable,
      REUSE_VARIABLE_REQUESTS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("reuse_age"), NULL, reuse_get_variable,
      REUSE_VARIABLE_AGE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("reuse_idle"), NULL, reuse_get_variable,
      REUSE_VARIABLE_IDLE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("reuse_fate"), NULL, reuse_get_variable,
      REUSE_VARIABLE_FATE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("reuse_queue_time"), NULL, reuse_get_variable,
      REUSE_VARIABLE_QUEUE_TIME, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_http_upstream_reuse_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = reuse_variables; v->name.len; v++) {

        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static ngx_int_t
reuse_get_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_msec_t                          ms;
    ngx_msec_int_t                      queued;
    ngx_http_upstream_reuse_peer_t     *rp;
    ngx_http_upstream_reuse_refused_e   refused;
    ngx_http_upstream_reuse_account_t  *account;

    rp = ngx_http_upstream_reuse_find_peer(r);

    if (rp && data == REUSE_VARIABLE_QUEUE_TIME) {

        /* also of one that was refused */

        queued = ngx_http_upstream_reuse_queue_time(rp);

        if (queued >= 0) {
            return reuse_set_number(r, v, "%ui.%03ui", queued / 1000,
                                    queued % 1000);
        }
    }

    if (rp && data == REUSE_VARIABLE_REASON) {

        refused = ngx_http_upstream_reuse_why_refused(rp);

        if (refused) {
            reuse_set_text(v, &ngx_http_upstream_reuse_refused_reasons
                                  [refused].name);
            return NGX_OK;
        }
    }

    if (rp == NULL || rp->account.requests == 0
        || data == REUSE_VARIABLE_QUEUE_TIME)
    {
        v->not_found = 1;
        return NGX_OK;
    }

    account = &rp->account;

    switch (data) {

    case REUSE_VARIABLE_CONNECTION:
        reuse_set_text(v, account->why_new ? &reuse_new
                          : account->warm ? &reuse_warm
                          : account->shared ? &reuse_shared : &reuse_reused);
        return NGX_OK;

    case REUSE_VARIABLE_REASON:
        reuse_set_text(v, &ngx_http_upstream_reuse_new_reasons
                              [account->why_new].name);
        return NGX_OK;

    case REUSE_VARIABLE_FATE:
        reuse_set_text(v, &ngx_http_upstream_reuse_close_reasons
                              [account->reason].name);
        return NGX_OK;

    case REUSE_VARIABLE_REQUESTS:
        return reuse_set_number(r, v, "%ui", account->requests, 0);

    case REUSE_VARIABLE_IDLE:
        ms = rp->idle;
        break;

    default: /* REUSE_VARIABLE_AGE */
        ms = (account->reason ? account->end : ngx_current_msec)
             - account->start;
        break;
    }

    return reuse_set_number(r, v, "%ui.%03ui", ms / 1000, ms % 1000);
}


static void
reuse_set_text(ngx_http_variable_value_t *v, ngx_str_t *text)
{
    v->len = text->len;
    v->data = text->data;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = (text->len == 0);
}


static ngx_int_t
reuse_set_number(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    const char *format, ngx_uint_t number, ngx_uint_t fraction)
{
    u_char  *p;

    p = ngx_pnalloc(r->pool, NGX_INT_T_LEN + sizeof(".000"));
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->len = ngx_sprintf(p, format, number, fraction) - p;
    v->data = p;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
