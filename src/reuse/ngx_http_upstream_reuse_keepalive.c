
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the operator has told the keepalive module, as far as it concerns us.
 */


#include "ngx_http_upstream_reuse.h"


/* milliseconds: nginx's own, where its directive is not known */
#define NGX_HTTP_UPSTREAM_REUSE_TIMEOUT  60000


/* looked for by name, so as not to depend on the module */

ngx_command_t *
ngx_http_upstream_reuse_find_directive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf, const char *directive, void **conf)
{
    ngx_uint_t      m;
    ngx_module_t  **modules;
    ngx_command_t  *cmd;

    *conf = NULL;

    modules = cf->cycle->modules;

    for (m = 0; modules[m]; m++) {
        if (ngx_strcmp(modules[m]->name, "ngx_http_upstream_keepalive_module")
            == 0)
        {
            break;
        }
    }

    if (modules[m] == NULL) {
        return NULL;
    }

    *conf = uscf->srv_conf[modules[m]->ctx_index];

    for (cmd = modules[m]->commands; cmd->name.len; cmd++) {
        if (ngx_strcmp(cmd->name.data, directive) == 0) {
            return cmd;
        }
    }

    return NULL;
}


/* The limits of the keepalive module stand where its directives put them. */

void
ngx_http_upstream_reuse_read_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf)
{
    void           *conf;
    ngx_command_t  *cmd;

    cmd = ngx_http_upstream_reuse_find_directive(cf, uscf,
                                                 "keepalive_requests", &conf);

    /* the size is the first that it has, right before that limit */

    rcf->size = (cmd && cmd->offset == sizeof(ngx_uint_t))
                ? *(ngx_uint_t *) conf : 0;

    rcf->max_requests = (cmd && cmd->set == ngx_conf_set_num_slot)
                        ? *(ngx_uint_t *) ((char *) conf + cmd->offset)
                        : NGX_CONF_UNSET_UINT;

    cmd = ngx_http_upstream_reuse_find_directive(cf, uscf, "keepalive_time",
                                                 &conf);

    rcf->max_time = (cmd && cmd->set == ngx_conf_set_msec_slot)
                    ? *(ngx_msec_t *) ((char *) conf + cmd->offset)
                    : NGX_CONF_UNSET_MSEC;

    cmd = ngx_http_upstream_reuse_find_directive(cf, uscf,
                                                 "keepalive_timeout", &conf);

    rcf->timeout = (cmd && cmd->set == ngx_conf_set_msec_slot)
                   ? *(ngx_msec_t *) ((char *) conf + cmd->offset)
                   : NGX_HTTP_UPSTREAM_REUSE_TIMEOUT;
}


ngx_uint_t
ngx_http_upstream_reuse_has_round_robin(ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_http_upstream_rr_peers_t  *peers;

    peers = uscf->peer.data;

    return peers && peers->name == &uscf->host;
}


ngx_uint_t
ngx_http_upstream_reuse_count_servers(ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_uint_t                   i, n;
    ngx_http_upstream_server_t  *server;

    if (uscf->servers == NULL) {
        return 0;
    }

    server = uscf->servers->elts;
    n = 0;

    for (i = 0; i < uscf->servers->nelts; i++) {
        if (!server[i].down && !server[i].backup) {
            n += server[i].naddrs;
        }
    }

    return n;
}
