
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 */


#include "ngx_http_myproxy_module.h"


typedef struct {
    ngx_str_t    directive;
    const char  *remedy;
    char      *(*set)(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
} ngx_http_myproxy_nonempty_t;


static ngx_http_myproxy_nonempty_t  ngx_http_myproxy_nonempty[] = {

    { ngx_string("myproxy_method"),
      "remove the line to send the client's method",
      ngx_http_set_complex_value_slot },

    /* the empty path is that of nginx's own directory */

    { ngx_string("myproxy_temp_path"),
      "name a directory that is for temporary files only",
      ngx_conf_set_path_slot },

    { ngx_string("myproxy_pass_header"),
      "write the name of a field",
      ngx_conf_set_str_array_slot },

    { ngx_string("myproxy_hide_header"),
      "write the name of a field",
      ngx_conf_set_str_array_slot },

    { ngx_string("myproxy_store"),
      "write \"off\" to store nothing",
      ngx_http_myproxy_set_store },

#if (NGX_HTTP_CACHE)

    { ngx_string("myproxy_cache_key"),
      "all requests would have the same response; remove the line for the "
      "default key",
      ngx_http_set_complex_value_slot },

    /* nginx removes what is in that directory and is no cached response */

    { ngx_string("myproxy_cache_path"),
      "name a directory that is for the cache only",
      ngx_http_file_cache_set_slot },

#endif

#if (NGX_HTTP_SSL)

    { ngx_string("myproxy_ssl_ciphers"),
      "write \"DEFAULT\" for those of the TLS library",
      ngx_conf_set_str_slot },

    { ngx_string("myproxy_ssl_name"),
      "no certificate has an empty name; write \"myproxy_ssl_server_name "
      "off\" to send none",
      ngx_http_set_complex_value_slot },

    { ngx_string("myproxy_ssl_password_file"),
      "name a file; to use no passwords of an outer level, an empty one",
      ngx_http_myproxy_set_ssl_password_file },

#endif

    { ngx_null_string, NULL, NULL }
};


char *
ngx_http_myproxy_set_nonempty_slot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_str_t                    *value;
    ngx_http_myproxy_nonempty_t  *known;

    value = cf->args->elts;

    for (known = ngx_http_myproxy_nonempty; known->set; known++) {

        if (known->directive.len != cmd->name.len
            || ngx_strcmp(known->directive.data, cmd->name.data) != 0)
        {
            continue;
        }

        if (value[1].len) {
            ngx_http_myproxy_check_variables(cf, cmd, &value[1]);
            return known->set(cf, cmd, conf);
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the value of \"%V\" cannot be empty: %s",
                           &cmd->name, known->remedy);
        return NGX_CONF_ERROR;
    }

    return "is not known";
}
