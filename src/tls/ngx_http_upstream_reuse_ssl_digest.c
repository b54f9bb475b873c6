
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What an SSL_CTX is, by value: which protocols and ciphers it takes, whom it
 * trusts, and which certificate it shows.  A session that was made with one is
 * taken up with another only if all that is the same.  Where it cannot be
 * known, the SSL_CTX and the configuration stand for it.
 */


#include "ngx_http_upstream_reuse_sessions.h"


#if (NGX_HTTP_SSL)


#if (NGX_HTTP_MYPROXY_SSL_BY_VALUE)

/* bytes of a SHA-256 */
#define NGX_HTTP_UPSTREAM_REUSE_DIGEST  32

/* bytes of a file of CAs; a larger one is not read */
#define NGX_HTTP_UPSTREAM_REUSE_CA_MAX  (1024 * 1024)


/* cycle: as data of the SSL_CTX */

typedef struct {
    u_char      digest[NGX_HTTP_UPSTREAM_REUSE_DIGEST];
    ngx_uint_t  whole;   /* unsigned  whole:1; with whom it trusts, and its
                            own certificate */
} reuse_ssl_t;


static reuse_ssl_t *reuse_describe_ctx(ngx_pool_t *pool, SSL_CTX *ctx);
static ngx_int_t reuse_add_settings(EVP_MD_CTX *md, SSL_CTX *ctx);
static ngx_int_t reuse_add_trust(EVP_MD_CTX *md, SSL_CTX *ctx);
static ngx_int_t reuse_add_object(EVP_MD_CTX *md, X509_OBJECT *object);
static ngx_int_t reuse_add_own(EVP_MD_CTX *md, SSL_CTX *ctx);
static ngx_int_t reuse_add_commands(EVP_MD_CTX *md, ngx_array_t *commands);
static ngx_uint_t reuse_is_seen(ngx_str_t *command);
static u_char *reuse_read_system(ngx_http_upstream_reuse_main_conf_t *rmcf,
    ngx_log_t *log);
static ngx_int_t reuse_read_directory(ngx_str_t *path, u_char *sum,
    ngx_log_t *log);
static ngx_int_t reuse_read_file(u_char *path, ngx_str_t *name, u_char *digest,
    ngx_log_t *log);
static ngx_uint_t reuse_is_hash(ngx_str_t *name);


static int  reuse_index = -1;


/*
 * Commands that change nothing but what reuse_add_settings() sees, or what has
 * no effect on whether a session that was made may be used.
 */

static const char  *reuse_harmless[] = {
    "CipherString", "Ciphersuites", "Curves", "Groups",
    "SignatureAlgorithms", "MinProtocol", "MaxProtocol", "Protocol",
    "Options", NULL
};


ngx_int_t
ngx_http_upstream_reuse_describe_ssl(ngx_conf_t *cf, ngx_ssl_t *ssl,
    ngx_uint_t system, ngx_array_t *commands)
{
    u_char                               *cas;
    ngx_int_t                             rc;
    EVP_MD_CTX                           *md;
    reuse_ssl_t                          *rs;
    ngx_http_upstream_reuse_main_conf_t  *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_upstream_reuse_module);

    rs = reuse_describe_ctx(cf->pool, ssl->ctx);
    if (rs == NULL) {
        return NGX_ERROR;
    }

    cas = NULL;

    if (system) {
        cas = reuse_read_system(rmcf, cf->log);

        if (cas == NULL) {
            return NGX_OK;
        }
    }

    md = EVP_MD_CTX_new();
    if (md == NULL) {
        return NGX_ERROR;
    }

    rc = NGX_ERROR;

    if (EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1
        && EVP_DigestUpdate(md, rs->digest, sizeof(rs->digest)) == 1
        && reuse_add_trust(md, ssl->ctx) == NGX_OK
        && reuse_add_own(md, ssl->ctx) == NGX_OK
        && (cas == NULL
            || EVP_DigestUpdate(md, cas, NGX_HTTP_UPSTREAM_REUSE_DIGEST) == 1))
    {
        rc = reuse_add_commands(md, commands);
    }

    if (rc == NGX_OK && EVP_DigestFinal_ex(md, rs->digest, NULL) == 1) {
        rs->whole = 1;
    }

    EVP_MD_CTX_free(md);

    ERR_clear_error();

    return NGX_OK;
}


ngx_int_t
ngx_http_upstream_reuse_add_ssl(EVP_MD_CTX *md,
    ngx_http_upstream_reuse_main_conf_t *rmcf, ngx_ssl_t *ssl,
    ngx_uint_t verified)
{
    SSL_CTX      *ctx;
    reuse_ssl_t  *rs;

    ctx = ssl->ctx;

    rs = (reuse_index == -1) ? NULL : SSL_CTX_get_ex_data(ctx, reuse_index);

    if (rs == NULL) {

        /* of a handler that has not described it */

        rs = reuse_describe_ctx(rmcf->pool, ctx);
        if (rs == NULL) {
            return NGX_ERROR;
        }
    }

    if (EVP_DigestUpdate(md, rs->digest, sizeof(rs->digest)) != 1) {
        return NGX_ERROR;
    }

    if (rs->whole
        || (!verified
            && SSL_CTX_get_verify_mode(ctx) == SSL_VERIFY_NONE
            && SSL_CTX_get0_certificate(ctx) == NULL))
    {
        return NGX_OK;
    }

    return ngx_http_upstream_reuse_add_generation(md, rmcf, ssl);
}


/* NULL: nothing can be known. */

static reuse_ssl_t *
reuse_describe_ctx(ngx_pool_t *pool, SSL_CTX *ctx)
{
    EVP_MD_CTX   *md;
    reuse_ssl_t  *rs;

    if (reuse_index == -1) {
        reuse_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);

        if (reuse_index == -1) {
            return NULL;
        }
    }

    rs = ngx_pcalloc(pool, sizeof(reuse_ssl_t));
    if (rs == NULL) {
        return NULL;
    }

    md = EVP_MD_CTX_new();
    if (md == NULL) {
        return NULL;
    }

    if (EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1
        || reuse_add_settings(md, ctx) != NGX_OK
        || EVP_DigestFinal_ex(md, rs->digest, NULL) != 1
        || SSL_CTX_set_ex_data(ctx, reuse_index, rs) != 1)
    {
        rs = NULL;
    }

    EVP_MD_CTX_free(md);

    return rs;
}


static ngx_int_t
reuse_add_settings(EVP_MD_CTX *md, SSL_CTX *ctx)
{
    int                         i;
    uint32_t                    id;
    uint64_t                    value[5];
    STACK_OF(SSL_CIPHER)       *ciphers;

    value[0] = SSL_CTX_get_options(ctx);
    value[1] = SSL_CTX_get_min_proto_version(ctx);
    value[2] = SSL_CTX_get_max_proto_version(ctx);
    value[3] = SSL_CTX_get_security_level(ctx);

    ciphers = SSL_CTX_get_ciphers(ctx);

    value[4] = sk_SSL_CIPHER_num(ciphers);

    if (EVP_DigestUpdate(md, value, sizeof(value)) != 1) {
        return NGX_ERROR;
    }

    for (i = 0; i < sk_SSL_CIPHER_num(ciphers); i++) {
        id = SSL_CIPHER_get_id(sk_SSL_CIPHER_value(ciphers, i));

        if (EVP_DigestUpdate(md, &id, sizeof(id)) != 1) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
reuse_add_trust(EVP_MD_CTX *md, SSL_CTX *ctx)
{
    int                     i;
    uint64_t                value[6];
    X509_STORE             *store;
    X509_VERIFY_PARAM      *param, *stored;
    STACK_OF(X509_OBJECT)  *objects;

    store = SSL_CTX_get_cert_store(ctx);
    param = SSL_CTX_get0_param(ctx);
    stored = X509_STORE_get0_param(store);
    objects = X509_STORE_get0_objects(store);

    value[0] = SSL_CTX_get_verify_mode(ctx);
    value[1] = SSL_CTX_get_verify_depth(ctx);
    value[2] = X509_VERIFY_PARAM_get_flags(param);
    value[3] = X509_VERIFY_PARAM_get_flags(stored);
    value[4] = X509_VERIFY_PARAM_get_auth_level(param);
    value[5] = sk_X509_OBJECT_num(objects);

    if (EVP_DigestUpdate(md, value, sizeof(value)) != 1) {
        return NGX_ERROR;
    }

    for (i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        if (reuse_add_object(md, sk_X509_OBJECT_value(objects, i)) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* With what is said of a certificate's trust beside it, if anything is. */

static ngx_int_t
reuse_add_object(EVP_MD_CTX *md, X509_OBJECT *object)
{
    int         len, ok;
    u_char     *der;
    uint64_t    value[2];

    der = NULL;
    value[0] = X509_OBJECT_get_type(object);

    switch (value[0]) {

    case X509_LU_X509:
        len = i2d_X509_AUX(X509_OBJECT_get0_X509(object), &der);
        break;

    case X509_LU_CRL:
        len = i2d_X509_CRL(X509_OBJECT_get0_X509_CRL(object), &der);
        break;

    default:
        return NGX_ERROR;
    }

    if (len <= 0) {
        return NGX_ERROR;
    }

    value[1] = len;

    ok = EVP_DigestUpdate(md, value, sizeof(value)) == 1
         && EVP_DigestUpdate(md, der, len) == 1;

    OPENSSL_free(der);

    return ok ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
reuse_add_own(EVP_MD_CTX *md, SSL_CTX *ctx)
{
    X509          *x509;
    u_char         digest[EVP_MAX_MD_SIZE];
    unsigned int   len;

    x509 = SSL_CTX_get0_certificate(ctx);

    ngx_memzero(digest, sizeof(digest));

    if (x509 && X509_digest(x509, EVP_sha256(), digest, &len) != 1) {
        return NGX_ERROR;
    }

    return (EVP_DigestUpdate(md, digest, NGX_HTTP_UPSTREAM_REUSE_DIGEST) == 1)
           ? NGX_OK : NGX_ERROR;
}


/* NGX_DECLINED: one of them sets what is not seen. */

static ngx_int_t
reuse_add_commands(EVP_MD_CTX *md, ngx_array_t *commands)
{
    uint64_t       len[2];
    ngx_uint_t     i;
    ngx_keyval_t  *command;

    if (commands == NULL) {
        return NGX_OK;
    }

    command = commands->elts;

    for (i = 0; i < commands->nelts; i++) {

        if (!reuse_is_seen(&command[i].key)) {
            return NGX_DECLINED;
        }

        len[0] = command[i].key.len;
        len[1] = command[i].value.len;

        if (EVP_DigestUpdate(md, len, sizeof(len)) != 1
            || EVP_DigestUpdate(md, command[i].key.data, len[0]) != 1
            || EVP_DigestUpdate(md, command[i].value.data, len[1]) != 1)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_uint_t
reuse_is_seen(ngx_str_t *command)
{
    ngx_uint_t  i;

    for (i = 0; reuse_harmless[i]; i++) {

        if (ngx_strlen(reuse_harmless[i]) == command->len
            && ngx_strncasecmp((u_char *) reuse_harmless[i], command->data,
                               command->len)
               == 0)
        {
            return 1;
        }
    }

    return 0;
}


/*
 * OpenSSL reads the system's CAs from these directories when it needs one.
 * Read once for a configuration; NULL if they cannot be read.
 */

static u_char *
reuse_read_system(ngx_http_upstream_reuse_main_conf_t *rmcf, ngx_log_t *log)
{
    char       *dirs;
    u_char     *p, *end, *sum;
    ngx_str_t   path;

    if (rmcf->system_cas) {
        return rmcf->system_cas;
    }

    dirs = getenv(X509_get_default_cert_dir_env());

    if (dirs == NULL) {
        dirs = (char *) X509_get_default_cert_dir();
    }

    sum = ngx_pcalloc(rmcf->pool, NGX_HTTP_UPSTREAM_REUSE_DIGEST);
    if (sum == NULL) {
        return NULL;
    }

    p = (u_char *) dirs;

    for ( ;; ) {
        end = (u_char *) ngx_strchr(p, ':');

        path.len = end ? (size_t) (end - p) : ngx_strlen(p);

        path.data = ngx_pnalloc(rmcf->pool, path.len + 1);
        if (path.data == NULL) {
            return NULL;
        }

        (void) ngx_cpystrn(path.data, p, path.len + 1);

        if (path.len && reuse_read_directory(&path, sum, log) != NGX_OK) {
            return NULL;
        }

        if (end == NULL) {
            break;
        }

        p = end + 1;
    }

    rmcf->system_cas = sum;

    return sum;
}


/* Adds the digests of files up, so that their order does not matter. */

static ngx_int_t
reuse_read_directory(ngx_str_t *path, u_char *sum, ngx_log_t *log)
{
    u_char      *file, digest[EVP_MAX_MD_SIZE];
    ngx_int_t    rc;
    ngx_str_t    name;
    ngx_dir_t    dir;
    ngx_uint_t   i;

    if (ngx_open_dir(path, &dir) == NGX_ERROR) {
        return (ngx_errno == NGX_ENOENT) ? NGX_OK : NGX_ERROR;
    }

    rc = NGX_OK;

    while (rc == NGX_OK) {
        ngx_set_errno(0);

        if (ngx_read_dir(&dir) == NGX_ERROR) {

            if (ngx_errno != 0 && ngx_errno != NGX_ENOMOREFILES) {
                rc = NGX_ERROR;
            }

            break;
        }

        name.data = ngx_de_name(&dir);
        name.len = ngx_de_namelen(&dir);

        if (!reuse_is_hash(&name)) {
            continue;
        }

        file = ngx_alloc(path->len + 1 + name.len + 1, log);
        if (file == NULL) {
            rc = NGX_ERROR;
            break;
        }

        (void) ngx_sprintf(file, "%V/%V%Z", path, &name);

        rc = reuse_read_file(file, &name, digest, log);

        ngx_free(file);

        for (i = 0; rc == NGX_OK && i < NGX_HTTP_UPSTREAM_REUSE_DIGEST; i++) {
            sum[i] += digest[i];
        }
    }

    (void) ngx_close_dir(&dir);

    return rc;
}


/* The name says in which order OpenSSL would read it. */

static ngx_int_t
reuse_read_file(u_char *path, ngx_str_t *name, u_char *digest, ngx_log_t *log)
{
    size_t            size;
    u_char           *buf;
    ssize_t           n;
    ngx_fd_t          fd;
    ngx_int_t         rc;
    ngx_file_info_t   fi;

    fd = ngx_open_file(path, NGX_FILE_RDONLY|NGX_FILE_NONBLOCK,
                       NGX_FILE_OPEN, 0);
    if (fd == NGX_INVALID_FILE) {

        /* a link that leads nowhere is nothing to OpenSSL */

        ngx_memzero(digest, NGX_HTTP_UPSTREAM_REUSE_DIGEST);

        return (ngx_errno == NGX_ENOENT) ? NGX_OK : NGX_ERROR;
    }

    rc = NGX_ERROR;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR
        || !ngx_is_file(&fi)
        || ngx_file_size(&fi) > NGX_HTTP_UPSTREAM_REUSE_CA_MAX)
    {
        goto done;
    }

    size = ngx_file_size(&fi);

    buf = ngx_alloc(name->len + 1 + size, log);
    if (buf == NULL) {
        goto done;
    }

    ngx_memcpy(buf, name->data, name->len);
    buf[name->len] = '\0';

    n = ngx_read_fd(fd, buf + name->len + 1, size);

    if (n == (ssize_t) size
        && EVP_Digest(buf, name->len + 1 + size, digest, NULL, EVP_sha256(),
                      NULL)
           == 1)
    {
        rc = NGX_OK;
    }

    ngx_free(buf);

done:

    (void) ngx_close_file(fd);

    return rc;
}


/* OpenSSL looks for such names only: the hash of a CA's name. */

static ngx_uint_t
reuse_is_hash(ngx_str_t *name)
{
    return name->len > 9
           && name->data[8] == '.'
           && ngx_hextoi(name->data, 8) != NGX_ERROR;
}


#else

ngx_int_t
ngx_http_upstream_reuse_describe_ssl(ngx_conf_t *cf, ngx_ssl_t *ssl,
    ngx_uint_t system, ngx_array_t *commands)
{
    return NGX_OK;
}


ngx_int_t
ngx_http_upstream_reuse_add_ssl(EVP_MD_CTX *md,
    ngx_http_upstream_reuse_main_conf_t *rmcf, ngx_ssl_t *ssl,
    ngx_uint_t verified)
{
    return ngx_http_upstream_reuse_add_generation(md, rmcf, ssl);
}

#endif


ngx_int_t
ngx_http_upstream_reuse_add_generation(EVP_MD_CTX *md,
    ngx_http_upstream_reuse_main_conf_t *rmcf, ngx_ssl_t *ssl)
{
    return (EVP_DigestUpdate(md, rmcf->generation, sizeof(rmcf->generation))
            == 1
            && EVP_DigestUpdate(md, &ssl, sizeof(ngx_ssl_t *)) == 1)
           ? NGX_OK : NGX_ERROR;
}

#endif
