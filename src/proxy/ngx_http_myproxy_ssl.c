
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"
#include "ngx_http_upstream_reuse_module.h"


#if (NGX_HTTP_SSL)


/*
 * Chains with two intermediate certificates are common; the depth is no
 * defence against anything.
 */

#define NGX_HTTP_MYPROXY_SSL_VERIFY_DEPTH  9


#ifdef NGX_SSL_DEFAULT_PROTOCOLS
#define NGX_HTTP_MYPROXY_SSL_PROTOCOLS  NGX_SSL_DEFAULT_PROTOCOLS
#else
#define NGX_HTTP_MYPROXY_SSL_PROTOCOLS                                        \
    (NGX_SSL_TLSv1|NGX_SSL_TLSv1_1|NGX_SSL_TLSv1_2|NGX_SSL_TLSv1_3)
#endif


static ngx_int_t share_ssl(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *conf);
static ngx_uint_t same_ssl(ngx_http_myproxy_loc_conf_t *a,
    ngx_http_myproxy_loc_conf_t *b);
static ngx_uint_t same_str(ngx_str_t *a, ngx_str_t *b);
static ngx_uint_t same_value(ngx_http_complex_value_t *a,
    ngx_http_complex_value_t *b);
static ngx_int_t create_ssl(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *conf);
static ngx_int_t set_certificate(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *conf);
static void explain_file(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *conf,
    const char *directive);
static ngx_int_t set_verify(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *conf);
static char *check_conf_command(ngx_conf_t *cf, void *post, void *data);


ngx_conf_bitmask_t  ngx_http_myproxy_ssl_protocols[] = {
    { ngx_string("SSLv2"), NGX_SSL_SSLv2 },
    { ngx_string("SSLv3"), NGX_SSL_SSLv3 },
    { ngx_string("TLSv1"), NGX_SSL_TLSv1 },
    { ngx_string("TLSv1.1"), NGX_SSL_TLSv1_1 },
    { ngx_string("TLSv1.2"), NGX_SSL_TLSv1_2 },
    { ngx_string("TLSv1.3"), NGX_SSL_TLSv1_3 },
    { ngx_null_string, 0 }
};


ngx_conf_post_t  ngx_http_myproxy_ssl_conf_command_post =
    { check_conf_command };


void
ngx_http_myproxy_init_ssl_conf(ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_http_upstream_conf_t  *ucf;

    ucf = &conf->upstream;

    ucf->ssl_session_reuse = NGX_CONF_UNSET;
    ucf->ssl_server_name = NGX_CONF_UNSET;
    ucf->ssl_verify = NGX_CONF_UNSET;

    ucf->ssl_name = NGX_CONF_UNSET_PTR;
    ucf->ssl_certificate = NGX_CONF_UNSET_PTR;
    ucf->ssl_certificate_key = NGX_CONF_UNSET_PTR;
    ucf->ssl_passwords = NGX_CONF_UNSET_PTR;

#if (NGX_HTTP_MYPROXY_SSL_CERTIFICATE_CACHE)
    ucf->ssl_certificate_cache = NGX_CONF_UNSET_PTR;
#endif

    conf->ssl_verify_depth = NGX_CONF_UNSET_UINT;
    conf->ssl_conf_commands = NGX_CONF_UNSET_PTR;
}


ngx_int_t
ngx_http_myproxy_merge_ssl_conf(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *prev, ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_http_upstream_conf_t  *ucf, *pucf;

    ucf = &conf->upstream;
    pucf = &prev->upstream;

    ngx_conf_merge_value(ucf->ssl_session_reuse, pucf->ssl_session_reuse, 1);
    ngx_conf_merge_value(ucf->ssl_server_name, pucf->ssl_server_name, 1);
    ngx_conf_merge_value(ucf->ssl_verify, pucf->ssl_verify, 1);

    ngx_conf_merge_ptr_value(ucf->ssl_name, pucf->ssl_name, NULL);
    ngx_conf_merge_ptr_value(ucf->ssl_certificate, pucf->ssl_certificate,
                             NULL);
    ngx_conf_merge_ptr_value(ucf->ssl_certificate_key,
                             pucf->ssl_certificate_key, NULL);
    ngx_conf_merge_ptr_value(ucf->ssl_passwords, pucf->ssl_passwords, NULL);

    /* an empty one cancels that of an outer level */

    if (ucf->ssl_certificate && ucf->ssl_certificate->value.len == 0) {
        ucf->ssl_certificate = NULL;
    }

    if (ucf->ssl_certificate_key
        && ucf->ssl_certificate_key->value.len == 0)
    {
        ucf->ssl_certificate_key = NULL;
    }

#if (NGX_HTTP_MYPROXY_SSL_CERTIFICATE_CACHE)
    ngx_conf_merge_ptr_value(ucf->ssl_certificate_cache,
                             pucf->ssl_certificate_cache, NULL);
#endif

    ngx_conf_merge_bitmask_value(conf->ssl_protocols, prev->ssl_protocols,
                                 (NGX_CONF_BITMASK_SET
                                  |NGX_HTTP_MYPROXY_SSL_PROTOCOLS));

    ngx_conf_merge_str_value(conf->ssl_ciphers, prev->ssl_ciphers, "DEFAULT");

    ngx_conf_merge_uint_value(conf->ssl_verify_depth, prev->ssl_verify_depth,
                              NGX_HTTP_MYPROXY_SSL_VERIFY_DEPTH);
    ngx_conf_merge_str_value(conf->ssl_trusted_certificate,
                             prev->ssl_trusted_certificate, "");
    ngx_conf_merge_str_value(conf->ssl_crl, prev->ssl_crl, "");

    ngx_conf_merge_ptr_value(conf->ssl_conf_commands, prev->ssl_conf_commands,
                             NULL);

    if (!conf->ssl || !ngx_http_myproxy_has_target(conf)) {
        return NGX_OK;
    }

    ngx_http_myproxy_check_ssl_name(cf, conf);

    return share_ssl(cf, conf);
}


/*
 * Locations with the same settings have one SSL_CTX: it takes memory, and a
 * session can be resumed only with the one that it was made with.
 */

static ngx_int_t
share_ssl(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_uint_t                      i;
    ngx_http_myproxy_loc_conf_t   **other;
    ngx_http_myproxy_main_conf_t   *mmcf;

    mmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_myproxy_module);

    conf->ssl_passwords = conf->upstream.ssl_passwords;

    other = mmcf->ssl.elts;

    for (i = 0; i < mmcf->ssl.nelts; i++) {
        if (same_ssl(other[i], conf)) {
            conf->upstream.ssl = other[i]->upstream.ssl;
            conf->upstream.ssl_passwords = other[i]->upstream.ssl_passwords;
            return NGX_OK;
        }
    }

    other = ngx_array_push(&mmcf->ssl);
    if (other == NULL) {
        return NGX_ERROR;
    }

    *other = conf;

    return create_ssl(cf, conf);
}


static ngx_uint_t
same_ssl(ngx_http_myproxy_loc_conf_t *a, ngx_http_myproxy_loc_conf_t *b)
{
    return a->ssl_protocols == b->ssl_protocols
           && a->ssl_verify_depth == b->ssl_verify_depth
           && a->ssl_conf_commands == b->ssl_conf_commands
           && same_str(&a->ssl_ciphers, &b->ssl_ciphers)
           && same_str(&a->ssl_trusted_certificate,
                       &b->ssl_trusted_certificate)
           && same_str(&a->ssl_crl, &b->ssl_crl)
           && a->upstream.ssl_verify == b->upstream.ssl_verify
           && a->upstream.ssl_session_reuse == b->upstream.ssl_session_reuse
           && a->ssl_passwords == b->ssl_passwords
           && same_value(a->upstream.ssl_certificate,
                         b->upstream.ssl_certificate)
           && same_value(a->upstream.ssl_certificate_key,
                         b->upstream.ssl_certificate_key);
}


static ngx_uint_t
same_str(ngx_str_t *a, ngx_str_t *b)
{
    return a->len == b->len && ngx_strncmp(a->data, b->data, a->len) == 0;
}


static ngx_uint_t
same_value(ngx_http_complex_value_t *a, ngx_http_complex_value_t *b)
{
    if (a == b) {
        return 1;
    }

    return a && b && !a->lengths && !b->lengths
           && same_str(&a->value, &b->value);
}


static ngx_int_t
create_ssl(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_ssl_t                 *ssl;
    ngx_uint_t                 system;
    ngx_pool_cleanup_t        *cln;
    ngx_http_upstream_conf_t  *ucf;

    ucf = &conf->upstream;

    ssl = ngx_pcalloc(cf->pool, sizeof(ngx_ssl_t));
    if (ssl == NULL) {
        return NGX_ERROR;
    }

    ucf->ssl = ssl;
    ssl->log = cf->log;

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    if (ngx_ssl_create(ssl, conf->ssl_protocols, NULL) != NGX_OK) {
        return NGX_ERROR;
    }

    cln->handler = ngx_ssl_cleanup_ctx;
    cln->data = ssl;

#ifdef SSL_OP_IGNORE_UNEXPECTED_EOF

    /*
     * A body that ends with the connection is whole only if the origin says
     * that it is closing (RFC 9112, section 9.8).
     */

    SSL_CTX_clear_options(ssl->ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);

#endif

    if (ngx_ssl_ciphers(cf, ssl, &conf->ssl_ciphers, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    if (set_certificate(cf, conf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ucf->ssl_verify && set_verify(cf, conf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_ssl_client_session_cache(cf, ssl, ucf->ssl_session_reuse)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_ssl_conf_commands(cf, ssl, conf->ssl_conf_commands) != NGX_OK) {
        return NGX_ERROR;
    }

    if (!ucf->ssl_session_reuse) {
        return NGX_OK;
    }

    system = ucf->ssl_verify && conf->ssl_trusted_certificate.len == 0;

    return ngx_http_upstream_reuse_describe_ssl(cf, ssl, system,
                                                conf->ssl_conf_commands);
}


static ngx_int_t
set_certificate(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_http_upstream_conf_t  *ucf;

    ucf = &conf->upstream;

    if (ucf->ssl_certificate == NULL) {
        return NGX_OK;
    }

    if (ucf->ssl_certificate_key == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no \"myproxy_ssl_certificate_key\" is defined "
                           "for \"myproxy_ssl_certificate %V\"",
                           &ucf->ssl_certificate->value);
        return NGX_ERROR;
    }

    if (ucf->ssl_certificate->lengths || ucf->ssl_certificate_key->lengths) {

        /* loaded for each connection, when the passwords file is long gone */

        ucf->ssl_passwords = ngx_ssl_preserve_passwords(cf,
                                                        ucf->ssl_passwords);

        return ucf->ssl_passwords ? NGX_OK : NGX_ERROR;
    }

    if (ngx_ssl_certificate(cf, ucf->ssl, &ucf->ssl_certificate->value,
                            &ucf->ssl_certificate_key->value,
                            ucf->ssl_passwords)
        != NGX_OK)
    {
        explain_file(cf, conf, "myproxy_ssl_certificate\" or "
                     "\"myproxy_ssl_certificate_key");
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* nginx has said what is wrong with it, but not where it is written */

static void
explain_file(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *conf,
    const char *directive)
{
    /* cf->conf_file is at the end of http{} by now */

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"%s\" of the \"myproxy_pass\" in %s:%ui, or of a block "
                  "around it, cannot be used: see the line before; name a "
                  "file in PEM that is there and that nginx may read",
                  directive, conf->pass_file, conf->pass_line);
}


static ngx_int_t
set_verify(ngx_conf_t *cf, ngx_http_myproxy_loc_conf_t *conf)
{
    ngx_ssl_t  *ssl;

    ssl = conf->upstream.ssl;

    if (conf->ssl_trusted_certificate.len) {

        if (ngx_ssl_trusted_certificate(cf, ssl,
                                        &conf->ssl_trusted_certificate,
                                        conf->ssl_verify_depth)
            != NGX_OK)
        {
            explain_file(cf, conf, "myproxy_ssl_trusted_certificate");
            return NGX_ERROR;
        }

    } else {

        /* the CA store of the system, or SSL_CERT_FILE and SSL_CERT_DIR */

        if (SSL_CTX_set_default_verify_paths(ssl->ctx) != 1) {
            ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                          "SSL_CTX_set_default_verify_paths() failed: name "
                          "the CAs in \"myproxy_ssl_trusted_certificate\"");
            return NGX_ERROR;
        }

        SSL_CTX_set_verify_depth(ssl->ctx, conf->ssl_verify_depth);
    }

    if (ngx_ssl_crl(cf, ssl, &conf->ssl_crl) != NGX_OK) {
        explain_file(cf, conf, "myproxy_ssl_crl");
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
ngx_http_myproxy_check_ssl_name(ngx_conf_t *cf,
    ngx_http_myproxy_loc_conf_t *conf)
{
    u_char                        *last;
    ngx_str_t                     *host;
    ngx_http_upstream_srv_conf_t  *uscf;

    uscf = conf->upstream.upstream;

    if (uscf == NULL
        || conf->pass
        || !conf->upstream.ssl_verify
        || conf->upstream.ssl_name)
    {
        return;
    }

    host = &uscf->host;
    last = host->data + host->len;

    if (host->data[0] != '[' && ngx_inet_addr(host->data, host->len)
                                == INADDR_NONE
        && (ngx_strlchr(host->data, last, '.')
            || (host->len == sizeof("localhost") - 1
                && ngx_strncmp(host->data, "localhost", host->len) == 0)))
    {
        return;
    }

    /* cf->conf_file is at the end of http{} by now */

    ngx_http_upstream_reuse_warn(cf, conf->pass_file, conf->pass_line,
                                 "the certificate of \"%V\" must be issued "
                                 "for the name \"%V\", or requests are "
                                 "answered 502: write \"myproxy_ssl_name\" "
                                 "with the name in the certificate",
                                 &conf->url, host);
}


char *
ngx_http_myproxy_set_ssl_password_file(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_myproxy_loc_conf_t  *mlcf = conf;

    ngx_str_t  *value;

    if (mlcf->upstream.ssl_passwords != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    mlcf->upstream.ssl_passwords = ngx_ssl_read_password_file(cf, &value[1]);

    return mlcf->upstream.ssl_passwords ? NGX_CONF_OK : NGX_CONF_ERROR;
}


#if (NGX_HTTP_MYPROXY_SSL_CERTIFICATE_CACHE)

char *
ngx_http_myproxy_set_ssl_certificate_cache(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_myproxy_loc_conf_t  *mlcf = conf;

    time_t       inactive, valid;
    ngx_int_t    max;
    ngx_str_t   *value, s;
    ngx_uint_t   i;

    if (mlcf->upstream.ssl_certificate_cache != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        mlcf->upstream.ssl_certificate_cache = NULL;
        return NGX_CONF_OK;
    }

    max = 0;
    inactive = 10;
    valid = 60;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "max=", 4) == 0) {
            max = ngx_atoi(value[i].data + 4, value[i].len - 4);

            if (max <= 0) {
                goto invalid;
            }

        } else if (ngx_strncmp(value[i].data, "inactive=", 9) == 0) {
            s.data = value[i].data + 9;
            s.len = value[i].len - 9;

            inactive = ngx_parse_time(&s, 1);

            if (inactive == (time_t) NGX_ERROR) {
                goto invalid;
            }

        } else if (ngx_strncmp(value[i].data, "valid=", 6) == 0) {
            s.data = value[i].data + 6;
            s.len = value[i].len - 6;

            valid = ngx_parse_time(&s, 1);

            if (valid == (time_t) NGX_ERROR) {
                goto invalid;
            }

        } else {
            goto invalid;
        }
    }

    if (max == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" needs the \"max=\" parameter, or \"off\"",
                           &cmd->name);
        return NGX_CONF_ERROR;
    }

    mlcf->upstream.ssl_certificate_cache = ngx_ssl_cache_init(cf->pool, max,
                                                              valid, inactive);
    if (mlcf->upstream.ssl_certificate_cache == NULL) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" in \"%V\", write \"off\", or "
                       "\"max=NUMBER\" with \"inactive=TIME\" and "
                       "\"valid=TIME\"", &value[i], &cmd->name);

    return NGX_CONF_ERROR;
}

#endif


static char *
check_conf_command(ngx_conf_t *cf, void *post, void *data)
{
#ifndef SSL_CONF_FLAG_FILE
    return "is not supported on this platform";
#else
    return NGX_CONF_OK;
#endif
}


#endif
