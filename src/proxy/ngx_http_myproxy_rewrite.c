
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"


static ngx_int_t match(ngx_http_request_t *r, ngx_http_myproxy_rule_t *rule,
    ngx_str_t *text, ngx_str_t *found);
static ngx_int_t replace(ngx_http_request_t *r, ngx_str_t *value,
    ngx_str_t *found, ngx_str_t *replacement);

static char *set_cookie_rule(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_array_t **rules, ngx_http_myproxy_rule_e type);
static char *set_rule(ngx_conf_t *cf, ngx_array_t **rules,
    ngx_http_myproxy_rule_e type);
static char *compile_rule(ngx_conf_t *cf, ngx_http_myproxy_rule_t *rule,
    ngx_http_myproxy_rule_e type);
static char *compile_pattern(ngx_conf_t *cf, ngx_http_myproxy_rule_t *rule,
    ngx_str_t *pattern, ngx_uint_t caseless);
static char *compile_value(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_complex_value_t *cv);


ngx_int_t
ngx_http_myproxy_rewrite_redirect(ngx_http_request_t *r, ngx_table_elt_t *h,
    size_t prefix)
{
    ngx_http_myproxy_loc_conf_t  *mlcf;

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_myproxy_module);

    return ngx_http_myproxy_apply_rules(r, mlcf->redirects, &h->value, prefix);
}


ngx_int_t
ngx_http_myproxy_apply_rules(ngx_http_request_t *r, ngx_array_t *rules,
    ngx_str_t *value, size_t offset)
{
    ngx_int_t                 rc;
    ngx_str_t                 text, found, replacement;
    ngx_uint_t                i;
    ngx_http_myproxy_rule_t  *rule;

    text.data = value->data + offset;
    text.len = value->len - offset;

    rule = rules->elts;

    for (i = 0; i < rules->nelts; i++) {

        rc = match(r, &rule[i], &text, &found);

        if (rc == NGX_DECLINED) {
            continue;
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }

        if (ngx_http_complex_value(r, &rule[i].replacement, &replacement)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (ngx_http_myproxy_encode(r, &replacement, 0x1f) != NGX_OK) {
            return NGX_ERROR;
        }

        return replace(r, value, &found, &replacement);
    }

    return NGX_DECLINED;
}


/* found: what the rule replaces, within text */

static ngx_int_t
match(ngx_http_request_t *r, ngx_http_myproxy_rule_t *rule, ngx_str_t *text,
    ngx_str_t *found)
{
    ngx_str_t  pattern;

    *found = *text;

#if (NGX_PCRE)
    if (rule->type == NGX_HTTP_MYPROXY_RULE_REGEX) {
        return ngx_http_regex_exec(r, rule->regex, text);
    }
#endif

    if (ngx_http_complex_value(r, &rule->pattern, &pattern) != NGX_OK) {
        return NGX_ERROR;
    }

    if (rule->type == NGX_HTTP_MYPROXY_RULE_DOMAIN) {

        /* ".example.com" is "example.com" (RFC 6265, section 5.2.3) */

        if (found->len && found->data[0] == '.') {
            found->data++;
            found->len--;
        }

        return pattern.len == found->len
               && ngx_strncasecmp(found->data, pattern.data, pattern.len) == 0
               ? NGX_OK : NGX_DECLINED;
    }

    if (pattern.len > found->len
        || ngx_strncmp(found->data, pattern.data, pattern.len) != 0)
    {
        return NGX_DECLINED;
    }

    found->len = pattern.len;

    return NGX_OK;
}


static ngx_int_t
replace(ngx_http_request_t *r, ngx_str_t *value, ngx_str_t *found,
    ngx_str_t *replacement)
{
    u_char  *p, *data, *tail;
    size_t   len;

    len = value->len - found->len + replacement->len;

    data = ngx_pnalloc(r->pool, len + 1);
    if (data == NULL) {
        return NGX_ERROR;
    }

    tail = found->data + found->len;

    p = ngx_cpymem(data, value->data, found->data - value->data);
    p = ngx_cpymem(p, replacement->data, replacement->len);
    p = ngx_cpymem(p, tail, value->data + value->len - tail);
    *p = '\0';

    value->data = data;
    value->len = len;

    return NGX_OK;
}


char *
ngx_http_myproxy_set_redirect(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_myproxy_loc_conf_t  *mlcf = conf;

    ngx_str_t  *value;

    if (mlcf->redirect == 0) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 3) {
        mlcf->redirect = 1;

        return set_rule(cf, &mlcf->redirects, NGX_HTTP_MYPROXY_RULE_PREFIX);
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {

        if (mlcf->redirects) {
            return "is duplicate";
        }

        mlcf->redirect = 0;

        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "default") != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" in \"%V\", write "
                           "\"off\", \"default\" or two values",
                           &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    if (mlcf->pass) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V default\" cannot be used with variables in "
                           "\"myproxy_pass\"", &cmd->name);
        return NGX_CONF_ERROR;
    }

    if (mlcf->url.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V default\" must stand below the "
                           "\"myproxy_pass\" of its location", &cmd->name);
        return NGX_CONF_ERROR;
    }

    mlcf->redirect = 1;

    if (ngx_http_myproxy_default_redirect(cf, mlcf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_myproxy_default_redirect(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *conf)
{
    u_char                   *p;
    ngx_http_myproxy_rule_t  *rule;

    if (conf->redirects == NULL) {
        conf->redirects = ngx_array_create(cf->pool, 1,
                                           sizeof(ngx_http_myproxy_rule_t));
        if (conf->redirects == NULL) {
            return NGX_ERROR;
        }
    }

    rule = ngx_array_push(conf->redirects);
    if (rule == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(rule, sizeof(ngx_http_myproxy_rule_t));

    rule->type = NGX_HTTP_MYPROXY_RULE_PREFIX;

    if (conf->target.uri.len) {
        rule->pattern.value = conf->url;
        rule->replacement.value = conf->location;

        return NGX_OK;
    }

    p = ngx_pnalloc(cf->pool, conf->url.len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    rule->pattern.value.data = p;
    rule->pattern.value.len = conf->url.len + 1;

    p = ngx_cpymem(p, conf->url.data, conf->url.len);
    *p = '/';

    ngx_str_set(&rule->replacement.value, "/");

    return NGX_OK;
}


/* off | FROM TO, for an array that is NGX_CONF_UNSET_PTR at first */

static char *
set_cookie_rule(ngx_conf_t *cf, ngx_command_t *cmd, ngx_array_t **rules,
    ngx_http_myproxy_rule_e type)
{
    ngx_str_t  *value;

    if (*rules == NULL) {
        return "is duplicate";
    }

    if (cf->args->nelts == 3) {
        if (*rules == NGX_CONF_UNSET_PTR) {
            *rules = NULL;
        }

        return set_rule(cf, rules, type);
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" in \"%V\", write \"off\" "
                           "or two values", &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    if (*rules != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    *rules = NULL;

    return NGX_CONF_OK;
}


char *
ngx_http_myproxy_set_cookie_domain(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_myproxy_loc_conf_t  *mlcf = conf;

    return set_cookie_rule(cf, cmd, &mlcf->cookie_domains,
                           NGX_HTTP_MYPROXY_RULE_DOMAIN);
}


char *
ngx_http_myproxy_set_cookie_path(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_myproxy_loc_conf_t  *mlcf = conf;

    return set_cookie_rule(cf, cmd, &mlcf->cookie_paths,
                           NGX_HTTP_MYPROXY_RULE_PREFIX);
}


static char *
set_rule(ngx_conf_t *cf, ngx_array_t **rules, ngx_http_myproxy_rule_e type)
{
    ngx_http_myproxy_rule_t  *rule;

    if (*rules == NULL) {
        *rules = ngx_array_create(cf->pool, 1,
                                  sizeof(ngx_http_myproxy_rule_t));
        if (*rules == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    rule = ngx_array_push(*rules);
    if (rule == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(rule, sizeof(ngx_http_myproxy_rule_t));

    return compile_rule(cf, rule, type);
}


static char *
compile_rule(ngx_conf_t *cf, ngx_http_myproxy_rule_t *rule,
    ngx_http_myproxy_rule_e type)
{
    char        *rv;
    ngx_str_t   *value, from, to;
    ngx_uint_t   caseless;

    value = cf->args->elts;
    from = value[1];
    to = value[2];

    rule->type = type;

    if (from.len && from.data[0] == '~') {

        from.data++;
        from.len--;

        /* a domain has no case, and no "~*" */

        caseless = (type == NGX_HTTP_MYPROXY_RULE_DOMAIN);

        if (!caseless && from.len && from.data[0] == '*') {
            from.data++;
            from.len--;
            caseless = 1;
        }

        rv = compile_pattern(cf, rule, &from, caseless);

    } else {

        if (type == NGX_HTTP_MYPROXY_RULE_DOMAIN) {

            if (from.len && from.data[0] == '.') {
                from.data++;
                from.len--;
            }

            if (to.len && to.data[0] == '.') {
                to.data++;
                to.len--;
            }
        }

        rv = compile_value(cf, &from, &rule->pattern);
    }

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    return compile_value(cf, &to, &rule->replacement);
}


static char *
compile_pattern(ngx_conf_t *cf, ngx_http_myproxy_rule_t *rule,
    ngx_str_t *pattern, ngx_uint_t caseless)
{
#if (NGX_PCRE)
    u_char               errstr[NGX_MAX_CONF_ERRSTR];
    ngx_regex_compile_t  rc;

    ngx_memzero(&rc, sizeof(ngx_regex_compile_t));

    rc.pattern = *pattern;
    rc.options = caseless ? NGX_REGEX_CASELESS : 0;
    rc.err.len = NGX_MAX_CONF_ERRSTR;
    rc.err.data = errstr;

    rule->type = NGX_HTTP_MYPROXY_RULE_REGEX;

    rule->regex = ngx_http_regex_compile(cf, &rc);

    return rule->regex ? NGX_CONF_OK : NGX_CONF_ERROR;
#else
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "the regular expression \"%V\" needs nginx to be built "
                       "with the PCRE library", pattern);
    return NGX_CONF_ERROR;
#endif
}


static char *
compile_value(ngx_conf_t *cf, ngx_str_t *value, ngx_http_complex_value_t *cv)
{
    ngx_http_compile_complex_value_t  ccv;

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = value;
    ccv.complex_value = cv;

    return ngx_http_compile_complex_value(&ccv) == NGX_OK ? NGX_CONF_OK
                                                          : NGX_CONF_ERROR;
}
