
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"


/* cycle: while the fields of one location are compiled */

typedef struct {
    ngx_conf_t                      *cf;
    ngx_http_myproxy_fields_t       *fields;
    ngx_array_t                      drop;    /* ngx_hash_key_t */
} ngx_http_myproxy_compile_t;


static void warn_of_field(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_str_t *value);
static ngx_uint_t is_name(ngx_str_t *name, const char *text);
static ngx_http_myproxy_fields_t *compile(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *conf, ngx_uint_t cache);
static ngx_int_t compile_field(ngx_http_myproxy_compile_t *mc,
    ngx_http_myproxy_field_t *field);
static ngx_int_t drop_names(ngx_http_myproxy_compile_t *mc, ngx_str_t *names);
static ngx_int_t drop_name(ngx_http_myproxy_compile_t *mc, ngx_str_t *name);
static ngx_int_t add_constant(ngx_http_myproxy_compile_t *mc,
    ngx_str_t *name, ngx_str_t *value);
static ngx_int_t add_value(ngx_http_myproxy_compile_t *mc, ngx_str_t *name,
    ngx_http_complex_value_t *value);
static ngx_int_t find_index(ngx_conf_t *cf, ngx_str_t *value);
#if (NGX_HTTP_CACHE)
static ngx_int_t add_validators(ngx_http_myproxy_compile_t *mc,
    ngx_http_myproxy_loc_conf_t *conf);
#endif


/*
 * The client's fields that end here: Host and the framing are written anew,
 * Expect is answered by nginx, the others concern the client's connection
 * (RFC 9110, section 7.6.1) or the trailers, which are not passed on.
 */

static ngx_str_t  ngx_http_myproxy_drop[] = {
    ngx_string("Host"),
    ngx_string("Content-Length"),
    ngx_string("Transfer-Encoding"),
    ngx_string("Connection"),
    ngx_string("Keep-Alive"),
    ngx_string("Proxy-Connection"),
    ngx_string("TE"),
    ngx_string("Trailer"),
    ngx_string("Upgrade"),
    ngx_string("HTTP2-Settings"),
    ngx_string("Expect"),
    ngx_null_string
};


#if (NGX_HTTP_CACHE)

/* what asks for less than the whole response, which is to be cached */

static ngx_str_t  ngx_http_myproxy_cache_drop[] = {
    ngx_string("If-Modified-Since"),
    ngx_string("If-Unmodified-Since"),
    ngx_string("If-None-Match"),
    ngx_string("If-Match"),
    ngx_string("Range"),
    ngx_string("If-Range"),
    ngx_null_string
};


/* conditions of our own, when a cached response is to be revalidated */

static ngx_keyval_t  ngx_http_myproxy_validators[] = {
    { ngx_string("If-Modified-Since"),
      ngx_string("$upstream_cache_last_modified") },
    { ngx_string("If-None-Match"), ngx_string("$upstream_cache_etag") },
    { ngx_null_string, ngx_null_string }
};

#endif


char *
ngx_http_myproxy_set_header(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_myproxy_loc_conf_t  *mlcf = conf;

    u_char                            ch;
    size_t                            i;
    ngx_str_t                        *value;
    ngx_http_myproxy_field_t         *field;
    ngx_http_compile_complex_value_t  ccv;

    value = cf->args->elts;

    for (i = 0; i < value[1].len; i++) {
        ch = value[1].data[i];

        if (ch <= ' ' || ch >= 0x7f || ngx_strchr("\"(),/:;<=>?@[\\]{}", ch)) {
            break;
        }
    }

    if (i == 0 || i < value[1].len) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid name \"%V\" in \"%V\", a field name has "
                           "letters, digits and hyphens, and no colon",
                           &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    for (i = 0; i < value[2].len; i++) {
        ch = value[2].data[i];

        if (ch == CR || ch == LF || ch == '\0') {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "the value in \"%V %V\" has a line break or "
                               "NUL: write a directive for each field",
                               &cmd->name, &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    if (is_name(&value[1], "host") && value[2].len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V Host\" cannot be empty: a request needs a "
                           "Host; remove the line to send the client's own",
                           &cmd->name);
        return NGX_CONF_ERROR;
    }

    warn_of_field(cf, cmd, value);
    ngx_http_myproxy_check_hop(cf, cmd, value);
    ngx_http_myproxy_check_variables(cf, cmd, &value[2]);

    if (mlcf->set_headers == NGX_CONF_UNSET_PTR) {
        mlcf->set_headers = ngx_array_create(cf->pool, 4,
                                            sizeof(ngx_http_myproxy_field_t));
        if (mlcf->set_headers == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    field = ngx_array_push(mlcf->set_headers);
    if (field == NULL) {
        return NGX_CONF_ERROR;
    }

    field->name = value[1];

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = &value[2];
    ccv.complex_value = &field->value;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* value: the directive's words */

static void
warn_of_field(ngx_conf_t *cf, ngx_command_t *cmd, ngx_str_t *value)
{
    if ((is_name(&value[1], "content-length")
         || is_name(&value[1], "transfer-encoding"))
        && value[2].len)
    {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"%V %V\" is ignored: it is computed from the "
                           "body that is sent; remove the line",
                           &cmd->name, &value[1]);
    }
}


/* text is in lower case */

static ngx_uint_t
is_name(ngx_str_t *name, const char *text)
{
    return name->len == ngx_strlen(text)
           && ngx_strncasecmp(name->data, (u_char *) text, name->len) == 0;
}


ngx_int_t
ngx_http_myproxy_compile_fields(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *conf, ngx_http_myproxy_loc_conf_t *prev)
{
    ngx_uint_t  same;

    /* the outermost level is not merged itself */

    same = (conf->set_headers == prev->set_headers)
           || (conf->set_headers == NULL
               && prev->set_headers == NGX_CONF_UNSET_PTR);

    if (same) {
        conf->fields = prev->fields;
        conf->fields_cache = prev->fields_cache;
    }

    if (conf->fields == NULL) {
        conf->fields = compile(cf, conf, 0);
        if (conf->fields == NULL) {
            return NGX_ERROR;
        }
    }

#if (NGX_HTTP_CACHE)

    if (conf->upstream.cache && conf->fields_cache == NULL) {
        conf->fields_cache = compile(cf, conf, 1);
        if (conf->fields_cache == NULL) {
            return NGX_ERROR;
        }
    }

#endif

    if (same) {
        /* for the locations to come */
        prev->fields = conf->fields;
        prev->fields_cache = conf->fields_cache;
    }

    return NGX_OK;
}


static ngx_http_myproxy_fields_t *
compile(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *conf, ngx_uint_t cache)
{
    ngx_uint_t                   i;
    ngx_hash_init_t              hash;
    ngx_http_myproxy_field_t    *field;
    ngx_http_myproxy_compile_t   mc;

    mc.cf = cf;

    mc.fields = ngx_pcalloc(cf->pool, sizeof(ngx_http_myproxy_fields_t));
    if (mc.fields == NULL) {
        return NULL;
    }

    if (ngx_array_init(&mc.fields->pieces, cf->pool, 4,
                       sizeof(ngx_http_myproxy_piece_t))
        != NGX_OK)
    {
        return NULL;
    }

    if (ngx_array_init(&mc.drop, cf->temp_pool, 32, sizeof(ngx_hash_key_t))
        != NGX_OK)
    {
        return NULL;
    }

    if (conf->set_headers) {
        field = conf->set_headers->elts;

        for (i = 0; i < conf->set_headers->nelts; i++) {
            if (compile_field(&mc, &field[i]) != NGX_OK) {
                return NULL;
            }
        }
    }

    if (ngx_http_myproxy_compile_connection_fields(cf, mc.fields,
                                                   conf->set_headers)
        != NGX_OK)
    {
        return NULL;
    }

#if (NGX_HTTP_CACHE)
    if (cache && add_validators(&mc, conf) != NGX_OK) {
        return NULL;
    }
#endif

    if (drop_names(&mc, ngx_http_myproxy_drop) != NGX_OK) {
        return NULL;
    }

    hash.hash = &mc.fields->drop;
    hash.key = ngx_hash_key_lc;
    hash.max_size = conf->headers_hash_max_size;
    hash.bucket_size = conf->headers_hash_bucket_size;
    hash.name = "myproxy_headers_hash";
    hash.pool = cf->pool;
    hash.temp_pool = NULL;

    if (ngx_hash_init(&hash, mc.drop.elts, mc.drop.nelts) != NGX_OK) {
        return NULL;
    }

    return mc.fields;
}


static ngx_int_t
compile_field(ngx_http_myproxy_compile_t *mc, ngx_http_myproxy_field_t *field)
{
    if (is_name(&field->name, "content-length")
        || is_name(&field->name, "transfer-encoding")
        || is_name(&field->name, "connection")
        || is_name(&field->name, "upgrade"))
    {
        return NGX_OK;
    }

    if (is_name(&field->name, "host")) {
        mc->fields->host = &field->value;
        return NGX_OK;
    }

    if (drop_name(mc, &field->name) != NGX_OK) {
        return NGX_ERROR;
    }

    if (field->value.lengths) {
        return add_value(mc, &field->name, &field->value);
    }

    if (field->value.value.len == 0) {
        return NGX_OK;
    }

    return add_constant(mc, &field->name, &field->value.value);
}


static ngx_int_t
drop_names(ngx_http_myproxy_compile_t *mc, ngx_str_t *names)
{
    for ( /* void */ ; names->len; names++) {
        if (drop_name(mc, names) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
drop_name(ngx_http_myproxy_compile_t *mc, ngx_str_t *name)
{
    ngx_uint_t       i;
    ngx_hash_key_t  *hk;

    hk = mc->drop.elts;

    for (i = 0; i < mc->drop.nelts; i++) {
        if (hk[i].key.len == name->len
            && ngx_strncasecmp(hk[i].key.data, name->data, name->len) == 0)
        {
            return NGX_OK;
        }
    }

    hk = ngx_array_push(&mc->drop);
    if (hk == NULL) {
        return NGX_ERROR;
    }

    hk->key = *name;
    hk->key_hash = ngx_hash_key_lc(name->data, name->len);
    hk->value = (void *) 1;

    mc->fields->dropped |= (uint64_t) 1 << hk->key_hash % 64;

    return NGX_OK;
}


/* constant lines that follow each other become one piece */

static ngx_int_t
add_constant(ngx_http_myproxy_compile_t *mc, ngx_str_t *name,
    ngx_str_t *value)
{
    u_char                    *p;
    size_t                     len;
    ngx_http_myproxy_piece_t  *piece;

    piece = mc->fields->pieces.elts;

    if (mc->fields->pieces.nelts
        && piece[mc->fields->pieces.nelts - 1].value == NULL)
    {
        piece += mc->fields->pieces.nelts - 1;

    } else {
        piece = ngx_array_push(&mc->fields->pieces);
        if (piece == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(piece, sizeof(ngx_http_myproxy_piece_t));
    }

    len = piece->text.len + name->len + sizeof(": ") - 1 + value->len
          + sizeof(CRLF) - 1;

    p = ngx_pnalloc(mc->cf->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(p, "%V%V: %V" CRLF, &piece->text, name, value);

    piece->text.data = p;
    piece->text.len = len;

    return NGX_OK;
}


static ngx_int_t
add_value(ngx_http_myproxy_compile_t *mc, ngx_str_t *name,
    ngx_http_complex_value_t *value)
{
    ngx_http_myproxy_piece_t  *piece;

    piece = ngx_array_push(&mc->fields->pieces);
    if (piece == NULL) {
        return NGX_ERROR;
    }

    piece->text.len = name->len + sizeof(": ") - 1;

    piece->text.data = ngx_pnalloc(mc->cf->pool, piece->text.len);
    if (piece->text.data == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(piece->text.data, "%V: ", name);

    piece->value = value;
    piece->index = find_index(mc->cf, &value->value);

    return NGX_OK;
}


/*
 * The index of the variable that is the whole value, or NGX_ERROR: such a
 * value need not be copied on its way.
 */

static ngx_int_t
find_index(ngx_conf_t *cf, ngx_str_t *value)
{
    u_char      ch;
    size_t      i;
    ngx_str_t   name;

    if (value->len < 2 || value->data[0] != '$') {
        return NGX_ERROR;
    }

    name.data = value->data + 1;
    name.len = value->len - 1;

    if (name.len > 2 && name.data[0] == '{'
        && name.data[name.len - 1] == '}')
    {
        name.data++;
        name.len -= 2;
    }

    for (i = 0; i < name.len; i++) {
        ch = name.data[i];

        if ((ch >= '0' && ch <= '9' && i > 0)
            || (ch >= 'a' && ch <= 'z')
            || (ch >= 'A' && ch <= 'Z')
            || ch == '_')
        {
            continue;
        }

        return NGX_ERROR;
    }

    return ngx_http_get_variable_index(cf, &name);
}


#if (NGX_HTTP_CACHE)

static ngx_int_t
add_validators(ngx_http_myproxy_compile_t *mc,
    ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_uint_t                         i;
    ngx_keyval_t                      *kv;
    ngx_http_complex_value_t          *cv;
    ngx_http_myproxy_field_t          *field;
    ngx_http_compile_complex_value_t   ccv;

    for (kv = ngx_http_myproxy_validators; kv->key.len; kv++) {

        field = conf->set_headers ? conf->set_headers->elts : NULL;

        for (i = 0; field && i < conf->set_headers->nelts; i++) {
            if (field[i].name.len == kv->key.len
                && ngx_strncasecmp(field[i].name.data, kv->key.data,
                                   kv->key.len)
                   == 0)
            {
                break;
            }
        }

        if (field && i < conf->set_headers->nelts) {
            continue;
        }

        cv = ngx_palloc(mc->cf->pool, sizeof(ngx_http_complex_value_t));
        if (cv == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

        ccv.cf = mc->cf;
        ccv.value = &kv->value;
        ccv.complex_value = cv;

        if (ngx_http_compile_complex_value(&ccv) != NGX_OK
            || add_value(mc, &kv->key, cv) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return drop_names(mc, ngx_http_myproxy_cache_drop);
}

#endif


ngx_int_t
ngx_http_myproxy_eval_fields(ngx_http_request_t *r,
    ngx_http_myproxy_fields_t *fields, ngx_str_t *values, size_t *size)
{
    ngx_str_t                  name;
    ngx_uint_t                 i;
    ngx_http_variable_value_t *vv;
    ngx_http_myproxy_piece_t  *piece;

    piece = fields->pieces.elts;

    for (i = 0; i < fields->pieces.nelts; i++) {

        if (piece[i].value == NULL) {
            values[i] = piece[i].text;
            *size += piece[i].text.len;
            continue;
        }

        if (piece[i].index != NGX_ERROR) {
            vv = ngx_http_get_flushed_variable(r, piece[i].index);

            if (vv == NULL || vv->not_found) {
                values[i].len = 0;
                continue;
            }

            values[i].data = vv->data;
            values[i].len = vv->len;

        } else if (ngx_http_complex_value(r, piece[i].value, &values[i])
                   != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (values[i].len == 0) {
            continue;
        }

        name.data = piece[i].text.data;
        name.len = piece[i].text.len - (sizeof(": ") - 1);

        if (!ngx_http_myproxy_valid_value(r, &name, &values[i])) {
            return NGX_ERROR;
        }

        *size += piece[i].text.len + values[i].len + sizeof(CRLF) - 1;
    }

    return NGX_OK;
}


u_char *
ngx_http_myproxy_copy_fields(u_char *p, ngx_http_myproxy_fields_t *fields,
    ngx_str_t *values)
{
    ngx_uint_t                 i;
    ngx_http_myproxy_piece_t  *piece;

    piece = fields->pieces.elts;

    for (i = 0; i < fields->pieces.nelts; i++) {

        if (values[i].len == 0) {
            continue;
        }

        p = ngx_cpymem(p, piece[i].text.data, piece[i].text.len);

        if (piece[i].value == NULL) {
            continue;
        }

        p = ngx_cpymem(p, values[i].data, values[i].len);
        *p++ = CR; *p++ = LF;
    }

    return p;
}
