
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * The pool of idle connections, which is nginx's keepalive module: what
 * requests do with it, what it is told while a configuration is read, and its
 * self-test.
 */


#ifndef _NGX_HTTP_UPSTREAM_REUSE_POOL_H_INCLUDED_
#define _NGX_HTTP_UPSTREAM_REUSE_POOL_H_INCLUDED_


#include "ngx_http_upstream_reuse.h"
#include "ngx_http_upstream_reuse_steps.h"
#include "ngx_http_upstream_reuse_warnings.h"


/* pool */

/*
 * Has the functions of a request's peer put in place, those of the pool and
 * of the balancer below it.
 */
ngx_int_t ngx_http_upstream_reuse_pool_init(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_srv_conf_t *us);

/* Keeps the functions of a peer, in whose place others are put. */
void ngx_http_upstream_reuse_save_hooks(
    ngx_http_upstream_reuse_hooks_t *hooks, ngx_peer_connection_t *pc);

/*
 * Has the balancer choose a peer.  NGX_DONE: there is an idle connection to
 * it, which is pc->connection now; NGX_OK: there is none.  Otherwise what the
 * balancer returns: NGX_BUSY, NGX_ERROR.
 */
ngx_int_t ngx_http_upstream_reuse_pool_take(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc);

/*
 * Gives back a peer, and its connection, if u->keepalive is set.  NGX_OK: it
 * is idle now; NGX_DONE: it was taken and closed; NGX_DECLINED: it was not
 * taken, or there is none.
 */
ngx_int_t ngx_http_upstream_reuse_pool_put(ngx_http_upstream_reuse_peer_t *rp,
    ngx_peer_connection_t *pc, ngx_uint_t state);

/*
 * A peer for a connection that no request has opened, by which it can be given
 * to ngx_http_upstream_reuse_pool_put().  It is that of a request which serves
 * nothing else, and whose pool is to be destroyed then.  NULL: there is no
 * memory.
 */
ngx_http_upstream_reuse_peer_t *ngx_http_upstream_reuse_pool_create_peer(
    ngx_http_upstream_reuse_srv_conf_t *rcf,
    ngx_http_upstream_reuse_identity_t *id, ngx_http_upstream_conf_t *conf,
    ngx_http_conf_ctx_t *ctx, ngx_log_t *log);

/* Closes a connection that is not in the pool. */
void ngx_http_upstream_reuse_close(ngx_connection_t *c);

/*
 * Closes an idle connection as if its timer had expired: for the reason that
 * stands in conn->on_timeout.
 */
void ngx_http_upstream_reuse_pool_remove(ngx_connection_t *c);

/* Tells whether a connection is being closed in favour of another one. */
ngx_uint_t ngx_http_upstream_reuse_pool_evicts(ngx_connection_t *c);

/* Tells whether connections of several identities are kept side by side. */
#define ngx_http_upstream_reuse_pool_has_keys(rp)  ((rp)->balancer.get != NULL)

/* Stands between the keepalive module and the balancer, as its peer.init. */
ngx_int_t ngx_http_upstream_reuse_pool_init_balancer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);


/* pool_conf */

/* NULL if nginx is built without the module. */
ngx_module_t *ngx_http_upstream_reuse_find_keepalive(ngx_conf_t *cf);

/*
 * Finds a directive of the keepalive module, and what the module has of an
 * upstream; NULL, both, if nginx is built without it.
 */
ngx_command_t *ngx_http_upstream_reuse_find_directive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf, const char *directive, void **conf);

/*
 * Stands before the directive "keepalive" from the beginning to the end of the
 * file, so as to be below the module where the operator writes it.  From nginx
 * 1.29.7 on the module comes last anyway, and nothing is done.
 */
ngx_int_t ngx_http_upstream_reuse_hook_keepalive(ngx_conf_t *cf);
void ngx_http_upstream_reuse_unhook_keepalive(void);

/*
 * Has the keepalive module carry out a directive that is not in the file.
 * Returns what the directive returns: a text if it is there already.
 */
char *ngx_http_upstream_reuse_carry_out(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf, const char *directive,
    const char *argument);

/* The same for those that each upstream needs, unless others are written. */
ngx_int_t ngx_http_upstream_reuse_add_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);
ngx_int_t ngx_http_upstream_reuse_raise_requests(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);

/* Initialises a pool that is written and was not, once the upstream is. */
ngx_int_t ngx_http_upstream_reuse_restore_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);

/*
 * The size of the pool that the operator has written, before the upstream is
 * initialised; NGX_CONF_UNSET_UINT if none is, or if that is not known.
 */
ngx_uint_t ngx_http_upstream_reuse_written_size(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);

/* Warns of a pool, before the upstream is initialised. */
void ngx_http_upstream_reuse_check_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf);

/* milliseconds: its own timeout, where that directive is not known */
#define NGX_HTTP_UPSTREAM_REUSE_TIMEOUT  60000

/*
 * Reads its size and limits, once the upstream is initialised.  The module
 * itself obeys them.  One more is a field of rcf, read here, and a row and a
 * comparison in selftest.c; why_closed() (reasons.c) names it.  expiry.c obeys
 * a limit of time as well, so that no connection is kept beyond it; what is
 * counted for another goes along with a parked connection (parcel.c).
 */
void ngx_http_upstream_reuse_read_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf,
    ngx_http_upstream_reuse_srv_conf_t *rcf);

/*
 * Tells whether a balancer has its servers as core's round robin does; to be
 * called before they are copied to a zone.
 *
 * Besides pool_conf.c the structs of round robin are read in slots.c, drain.c
 * and warm's plan.c; pool.c makes one of its own, and assertions.c checks
 * their types.
 */
ngx_uint_t ngx_http_upstream_reuse_has_round_robin(
    ngx_http_upstream_srv_conf_t *uscf);

/* Tells whether an address is that of a server, now. */
ngx_uint_t ngx_http_upstream_reuse_has_server(
    ngx_http_upstream_srv_conf_t *uscf, u_char *sockaddr, size_t socklen);

/*
 * Has the balancer leave "max_conns" of its servers to us: what their lines
 * say stays in uscf->servers.
 */
void ngx_http_upstream_reuse_take_max_conns(
    ngx_http_upstream_srv_conf_t *uscf);

/* How many addresses get requests while all is well. */
ngx_uint_t ngx_http_upstream_reuse_count_servers(
    ngx_http_upstream_srv_conf_t *uscf);


/* selftest */

/*
 * Tries the keepalive module on a pool of its own.  Returns 0, and has logged
 * why, if connections must not be given to it.
 *
 * No struct of it is known: a field is read at the offset of its directive,
 * and has to be set and read back in reuse_test_directives() first, from a row
 * of reuse_test_settings[].
 */
ngx_uint_t ngx_http_upstream_reuse_is_sound(ngx_conf_t *cf);


#endif /* _NGX_HTTP_UPSTREAM_REUSE_POOL_H_INCLUDED_ */
