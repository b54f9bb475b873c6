
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * How many connections there are to be.  Where any worker may use them, their
 * number is that of all workers.  Where each has its own, as with TLS, they
 * are planned by what it has used itself, and all workers together have no
 * more than they would have if they shared them.
 */


#include "ngx_http_reuse_warm.h"


static ngx_uint_t reuse_count_for_all(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_reuse_warm_part_t *part, ngx_http_reuse_warm_part_t *weight);
static ngx_uint_t reuse_count_own(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_reuse_warm_part_t *part, ngx_http_reuse_warm_part_t *weight);
static ngx_uint_t reuse_room(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_reuse_warm_part_t *weight);


ngx_uint_t
ngx_http_reuse_warm_part(ngx_uint_t whole, ngx_http_reuse_warm_part_t *part)
{
    return whole * (part->before + part->share) / part->all
           - whole * part->before / part->all;
}


ngx_uint_t
ngx_http_reuse_warm_is_shared(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile)
{
    return profile->identity->ssl == NULL
           && ngx_http_upstream_reuse_is_shared(warm->conf);
}


ngx_uint_t
ngx_http_reuse_warm_count_wanted(ngx_http_reuse_warm_t *warm,
    ngx_http_reuse_warm_profile_t *profile,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_reuse_warm_part_t *part, ngx_http_reuse_warm_part_t *weight)
{
    ngx_uint_t  wanted, most;

    if (ngx_http_reuse_warm_is_shared(warm, profile)
        || ngx_http_reuse_warm_count_workers() == 1)
    {
        return reuse_count_for_all(warm, server, part, weight);
    }

    wanted = reuse_count_own(warm, server, part, weight);

    most = server->ahead.ready
           + ngx_http_reuse_warm_count_preconnects(profile, server)
           + reuse_room(warm, server, weight);

    return ngx_min(wanted, most);
}


static ngx_uint_t
reuse_count_for_all(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_reuse_warm_part_t *part, ngx_http_reuse_warm_part_t *weight)
{
    ngx_uint_t  wanted, used;

    if (warm->conf->warm > 0) {

        /* so many ready, whatever is used besides */

        return ngx_http_reuse_warm_part(
                   ngx_http_reuse_warm_part(warm->conf->warm, part), weight);
    }

    /* so many in all */

    wanted = ngx_http_reuse_warm_add_spare(server->record->peak);
    wanted = ngx_http_reuse_warm_part(wanted, part);

    used = ngx_http_upstream_reuse_is_shared(warm->conf)
           ? ngx_http_reuse_warm_count_used(server) : server->ahead.used;
    used = ngx_http_reuse_warm_part(used, part);

    return wanted - ngx_min(wanted, used);
}


/*
 * With a number, each worker has an even part of it, or as many as it used at
 * a time of late, but no more than the number.
 */

static ngx_uint_t
reuse_count_own(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_reuse_warm_part_t *part, ngx_http_reuse_warm_part_t *weight)
{
    ngx_uint_t                  wanted, used;
    ngx_http_reuse_warm_part_t  worker;

    if (warm->conf->warm > 0) {
        wanted = ngx_http_reuse_warm_part(
                     ngx_http_reuse_warm_part(warm->conf->warm, part), weight);
        used = ngx_http_reuse_warm_part(server->ahead.peak, part);

        worker.before = ngx_worker;
        worker.share = 1;
        worker.all = ngx_http_reuse_warm_count_workers();

        return ngx_max(ngx_http_reuse_warm_part(wanted, &worker),
                       ngx_min(wanted, used));
    }

    wanted = ngx_http_reuse_warm_add_spare(server->ahead.peak);
    wanted = ngx_http_reuse_warm_part(wanted, part);
    used = ngx_http_reuse_warm_part(server->ahead.used, part);

    return wanted - ngx_min(wanted, used);
}


/* So many more may all workers together have. */

static ngx_uint_t
reuse_room(ngx_http_reuse_warm_t *warm,
    ngx_http_upstream_reuse_server_t *server,
    ngx_http_reuse_warm_part_t *weight)
{
    ngx_uint_t  most, have;

    most = ngx_http_reuse_warm_add_spare(server->record->peak);

    /* those that are near their end are replaced, and so are not counted */

    have = server->ahead.nidle - (server->ahead.idle - server->ahead.ready)
           + server->ahead.connecting + server->ahead.others;

    if (warm->conf->warm > 0) {
        most = ngx_max(most,
                       ngx_http_reuse_warm_part(warm->conf->warm, weight));

    } else {
        have += ngx_http_reuse_warm_count_used(server);
    }

    return most - ngx_min(most, have);
}
