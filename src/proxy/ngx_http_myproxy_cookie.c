
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"


/* cycle: one myproxy_cookie_flags */

typedef struct {
    ngx_http_complex_value_t         name;
#if (NGX_PCRE)
    ngx_http_regex_t                *regex;
#endif
    ngx_array_t                      flags;  /* ngx_http_complex_value_t */
} ngx_http_myproxy_cookie_flags_t;


/* request: one part of a Set-Cookie; the first is the cookie itself */

typedef struct {
    ngx_str_t                        name;
    ngx_str_t                        value;  /* data is NULL without "=" */
    ngx_uint_t                       dropped;  /* unsigned  dropped:1; */
} ngx_http_myproxy_attr_t;


/*
 * A flag names the attribute that it sets or removes; a second one for the
 * same attribute takes the place of the first.
 */

typedef struct {
    ngx_str_t                        flag;
    ngx_uint_t                       attr;   /* index in cookie_attrs[] */
    ngx_uint_t                       remove;  /* unsigned  remove:1; */
    ngx_str_t                        value;
} ngx_http_myproxy_flag_t;


static ngx_int_t parse(ngx_http_request_t *r, ngx_str_t *value,
    ngx_array_t *attrs);
static ngx_uint_t next_attr(ngx_str_t *rest, ngx_http_myproxy_attr_t *attr);
static void trim(ngx_str_t *s);
static ngx_int_t rewrite_attr(ngx_http_request_t *r, ngx_array_t *attrs,
    const char *name, ngx_array_t *rules);
static ngx_int_t rewrite_flags(ngx_http_request_t *r, ngx_array_t *attrs,
    ngx_array_t *rules);
static ngx_int_t match_cookie(ngx_http_request_t *r, ngx_str_t *name,
    ngx_http_myproxy_cookie_flags_t *rule);
static ngx_http_myproxy_flag_t *find_flag(ngx_str_t *name);
static ngx_int_t set_flag(ngx_array_t *attrs, ngx_http_myproxy_flag_t *flag);
static ngx_int_t join(ngx_http_request_t *r, ngx_array_t *attrs,
    ngx_str_t *value);
static ngx_uint_t equal(ngx_str_t *a, ngx_str_t *b);
static ngx_int_t compile_cookie(ngx_conf_t *cf,
    ngx_http_myproxy_cookie_flags_t *rule, ngx_str_t *value);
static ngx_int_t compile_flags(ngx_conf_t *cf,
    ngx_http_myproxy_cookie_flags_t *rule, ngx_str_t *value, ngx_uint_t n);


static ngx_str_t  cookie_attrs[] = {
    ngx_string("Secure"),
    ngx_string("HttpOnly"),
    ngx_string("SameSite")
};

#define NGX_HTTP_MYPROXY_COOKIE_ATTRS                                         \
    (sizeof(cookie_attrs) / sizeof(cookie_attrs[0]))


static ngx_http_myproxy_flag_t  cookie_flags[] = {
    { ngx_string("secure"), 0, 0, ngx_null_string },
    { ngx_string("nosecure"), 0, 1, ngx_null_string },
    { ngx_string("httponly"), 1, 0, ngx_null_string },
    { ngx_string("nohttponly"), 1, 1, ngx_null_string },
    { ngx_string("samesite=strict"), 2, 0, ngx_string("Strict") },
    { ngx_string("samesite=lax"), 2, 0, ngx_string("Lax") },
    { ngx_string("samesite=none"), 2, 0, ngx_string("None") },
    { ngx_string("nosamesite"), 2, 1, ngx_null_string },
    { ngx_null_string, 0, 0, ngx_null_string }
};


ngx_int_t
ngx_http_myproxy_rewrite_cookie(ngx_http_request_t *r, ngx_table_elt_t *h)
{
    ngx_int_t                     rc, changed;
    ngx_array_t                   attrs;
    ngx_http_myproxy_attr_t      *attr;
    ngx_http_myproxy_loc_conf_t  *mlcf;

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_myproxy_module);

    if (parse(r, &h->value, &attrs) != NGX_OK) {
        return NGX_ERROR;
    }

    attr = attrs.elts;

    if (attr[0].value.data == NULL) {
        /* no cookie */
        return NGX_DECLINED;
    }

    changed = NGX_DECLINED;

    if (mlcf->cookie_domains) {
        changed = rewrite_attr(r, &attrs, "domain", mlcf->cookie_domains);
        if (changed == NGX_ERROR) {
            return NGX_ERROR;
        }
    }

    if (mlcf->cookie_paths) {
        rc = rewrite_attr(r, &attrs, "path", mlcf->cookie_paths);
        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        changed = (rc == NGX_OK) ? NGX_OK : changed;
    }

    if (mlcf->cookie_flags) {
        rc = rewrite_flags(r, &attrs, mlcf->cookie_flags);
        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        changed = (rc == NGX_OK) ? NGX_OK : changed;
    }

    if (changed != NGX_OK) {
        return changed;
    }

    return join(r, &attrs, &h->value);
}


static ngx_int_t
parse(ngx_http_request_t *r, ngx_str_t *value, ngx_array_t *attrs)
{
    ngx_str_t                 rest;
    ngx_uint_t                more;
    ngx_http_myproxy_attr_t  *attr;

    if (ngx_array_init(attrs, r->pool, 8, sizeof(ngx_http_myproxy_attr_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    rest = *value;

    do {
        attr = ngx_array_push(attrs);
        if (attr == NULL) {
            return NGX_ERROR;
        }

        more = next_attr(&rest, attr);

    } while (more);

    return NGX_OK;
}


/* Takes one part off rest and tells whether there is another. */

static ngx_uint_t
next_attr(ngx_str_t *rest, ngx_http_myproxy_attr_t *attr)
{
    u_char  *p, *last, *end;

    last = rest->data + rest->len;

    end = ngx_strlchr(rest->data, last, ';');

    if (end == NULL) {
        end = last;
    }

    p = ngx_strlchr(rest->data, end, '=');

    attr->dropped = 0;
    attr->name.data = rest->data;

    if (p) {
        attr->name.len = p - rest->data;
        attr->value.data = p + 1;
        attr->value.len = end - p - 1;
        trim(&attr->value);

    } else {
        attr->name.len = end - rest->data;
        ngx_str_null(&attr->value);
    }

    trim(&attr->name);

    if (end == last) {
        return 0;
    }

    rest->data = end + 1;
    rest->len = last - rest->data;

    return 1;
}


static void
trim(ngx_str_t *s)
{
    while (s->len && s->data[0] == ' ') {
        s->data++;
        s->len--;
    }

    while (s->len && s->data[s->len - 1] == ' ') {
        s->len--;
    }
}


static ngx_int_t
rewrite_attr(ngx_http_request_t *r, ngx_array_t *attrs, const char *name,
    ngx_array_t *rules)
{
    ngx_int_t                 rc, changed;
    ngx_str_t                 s;
    ngx_uint_t                i;
    ngx_http_myproxy_attr_t  *attr;

    s.data = (u_char *) name;
    s.len = ngx_strlen(name);

    changed = NGX_DECLINED;
    attr = attrs->elts;

    for (i = 1; i < attrs->nelts; i++) {

        if (attr[i].value.data == NULL || !equal(&attr[i].name, &s)) {
            continue;
        }

        rc = ngx_http_myproxy_apply_rules(r, rules, &attr[i].value, 0);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_OK) {
            changed = NGX_OK;
        }
    }

    return changed;
}


static ngx_int_t
rewrite_flags(ngx_http_request_t *r, ngx_array_t *attrs, ngx_array_t *rules)
{
    u_char                            text[NGX_HTTP_MYPROXY_QUOTED];
    ngx_int_t                         rc;
    ngx_str_t                         value;
    ngx_uint_t                        i, k;
    ngx_http_myproxy_attr_t          *attr;
    ngx_http_myproxy_flag_t          *flag, *flags[3];
    ngx_http_complex_value_t         *cv;
    ngx_http_myproxy_cookie_flags_t  *rule;

    attr = attrs->elts;
    rule = rules->elts;

    rc = NGX_DECLINED;

    for (i = 0; i < rules->nelts; i++) {
        rc = match_cookie(r, &attr[0].name, &rule[i]);

        if (rc != NGX_DECLINED) {
            break;
        }
    }

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_memzero(flags, sizeof(flags));

    cv = rule[i].flags.elts;

    for (k = 0; k < rule[i].flags.nelts; k++) {

        if (ngx_http_complex_value(r, &cv[k], &value) != NGX_OK) {
            return NGX_ERROR;
        }

        flag = find_flag(&value);

        if (flag) {
            flags[flag->attr] = flag;

        } else if (value.len) {
            ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                          "unknown flag \"%s\" in \"myproxy_cookie_flags\" "
                          "ignored", ngx_http_myproxy_quote(text, &value));
        }
    }

    rc = NGX_DECLINED;

    for (k = 0; k < NGX_HTTP_MYPROXY_COOKIE_ATTRS; k++) {

        if (flags[k] == NULL) {
            continue;
        }

        if (set_flag(attrs, flags[k]) != NGX_OK) {
            return NGX_ERROR;
        }

        rc = NGX_OK;
    }

    return rc;
}


static ngx_int_t
match_cookie(ngx_http_request_t *r, ngx_str_t *name,
    ngx_http_myproxy_cookie_flags_t *rule)
{
    ngx_str_t  value;

#if (NGX_PCRE)
    if (rule->regex) {
        return ngx_http_regex_exec(r, rule->regex, name);
    }
#endif

    if (ngx_http_complex_value(r, &rule->name, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    return equal(&value, name) ? NGX_OK : NGX_DECLINED;
}


static ngx_http_myproxy_flag_t *
find_flag(ngx_str_t *name)
{
    ngx_http_myproxy_flag_t  *flag;

    for (flag = cookie_flags; flag->flag.len; flag++) {
        if (equal(&flag->flag, name)) {
            return flag;
        }
    }

    return NULL;
}


static ngx_int_t
set_flag(ngx_array_t *attrs, ngx_http_myproxy_flag_t *flag)
{
    ngx_str_t                *name;
    ngx_uint_t                i, found;
    ngx_http_myproxy_attr_t  *attr;

    name = &cookie_attrs[flag->attr];
    found = 0;

    attr = attrs->elts;

    for (i = 1; i < attrs->nelts; i++) {

        if (!equal(&attr[i].name, name)) {
            continue;
        }

        found = 1;

        if (flag->remove) {
            attr[i].dropped = 1;

        } else if (flag->value.len && !equal(&attr[i].value, &flag->value)) {
            attr[i].name = *name;
            attr[i].value = flag->value;
        }
    }

    if (found || flag->remove) {
        return NGX_OK;
    }

    attr = ngx_array_push(attrs);
    if (attr == NULL) {
        return NGX_ERROR;
    }

    attr->name = *name;
    attr->value = flag->value;
    attr->dropped = 0;

    return NGX_OK;
}


static ngx_int_t
join(ngx_http_request_t *r, ngx_array_t *attrs, ngx_str_t *value)
{
    u_char                   *p;
    size_t                    len;
    ngx_uint_t                i;
    ngx_http_myproxy_attr_t  *attr;

    attr = attrs->elts;
    len = 0;

    for (i = 0; i < attrs->nelts; i++) {
        len += sizeof("; =") - 1 + attr[i].name.len + attr[i].value.len;
    }

    p = ngx_pnalloc(r->pool, len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value->data = p;

    for (i = 0; i < attrs->nelts; i++) {

        if (attr[i].dropped) {
            continue;
        }

        if (i) {
            *p++ = ';'; *p++ = ' ';
        }

        p = ngx_cpymem(p, attr[i].name.data, attr[i].name.len);

        if (attr[i].value.data) {
            *p++ = '=';
            p = ngx_cpymem(p, attr[i].value.data, attr[i].value.len);
        }
    }

    *p = '\0';
    value->len = p - value->data;

    return NGX_OK;
}


static ngx_uint_t
equal(ngx_str_t *a, ngx_str_t *b)
{
    return a->len == b->len
           && ngx_strncasecmp(a->data, b->data, a->len) == 0;
}


char *
ngx_http_myproxy_set_cookie_flags(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_myproxy_loc_conf_t  *mlcf = conf;

    ngx_str_t                        *value;
    ngx_http_myproxy_cookie_flags_t  *rule;

    if (mlcf->cookie_flags == NULL) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2) {

        if (ngx_strcmp(value[1].data, "off") != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" in \"%V\", write "
                               "\"off\", or a cookie and its flags",
                               &value[1], &cmd->name);
            return NGX_CONF_ERROR;
        }

        if (mlcf->cookie_flags != NGX_CONF_UNSET_PTR) {
            return "is duplicate";
        }

        mlcf->cookie_flags = NULL;

        return NGX_CONF_OK;
    }

    if (mlcf->cookie_flags == NGX_CONF_UNSET_PTR) {
        mlcf->cookie_flags = ngx_array_create(cf->pool, 1,
                                    sizeof(ngx_http_myproxy_cookie_flags_t));
        if (mlcf->cookie_flags == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    rule = ngx_array_push(mlcf->cookie_flags);
    if (rule == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(rule, sizeof(ngx_http_myproxy_cookie_flags_t));

    if (compile_cookie(cf, rule, &value[1]) != NGX_OK
        || compile_flags(cf, rule, &value[2], cf->args->nelts - 2) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
compile_cookie(ngx_conf_t *cf, ngx_http_myproxy_cookie_flags_t *rule,
    ngx_str_t *value)
{
    ngx_str_t                         name;
    ngx_http_compile_complex_value_t  ccv;
#if (NGX_PCRE)
    u_char                            errstr[NGX_MAX_CONF_ERRSTR];
    ngx_regex_compile_t               rc;
#endif

    name = *value;

    if (name.len == 0 || name.data[0] != '~') {

        ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

        ccv.cf = cf;
        ccv.value = &name;
        ccv.complex_value = &rule->name;

        return ngx_http_compile_complex_value(&ccv);
    }

    name.data++;
    name.len--;

#if (NGX_PCRE)
    ngx_memzero(&rc, sizeof(ngx_regex_compile_t));

    rc.pattern = name;
    rc.options = NGX_REGEX_CASELESS;
    rc.err.len = NGX_MAX_CONF_ERRSTR;
    rc.err.data = errstr;

    rule->regex = ngx_http_regex_compile(cf, &rc);

    return rule->regex ? NGX_OK : NGX_ERROR;
#else
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "the regular expression \"%V\" needs nginx to be built "
                       "with the PCRE library", &name);
    return NGX_ERROR;
#endif
}


static ngx_int_t
compile_flags(ngx_conf_t *cf, ngx_http_myproxy_cookie_flags_t *rule,
    ngx_str_t *value, ngx_uint_t n)
{
    ngx_uint_t                         i;
    ngx_http_complex_value_t          *cv;
    ngx_http_compile_complex_value_t   ccv;

    if (ngx_array_init(&rule->flags, cf->pool, n,
                       sizeof(ngx_http_complex_value_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {

        cv = ngx_array_push(&rule->flags);
        if (cv == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

        ccv.cf = cf;
        ccv.value = &value[i];
        ccv.complex_value = cv;

        if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
            return NGX_ERROR;
        }

        if (value[i].len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "a flag of \"myproxy_cookie_flags\" cannot be "
                               "empty: remove it");
            return NGX_ERROR;
        }

        if (cv->lengths == NULL && find_flag(&value[i]) == NULL) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "unknown flag \"%V\" in "
                               "\"myproxy_cookie_flags\" ignored", &value[i]);
        }
    }

    return NGX_OK;
}
