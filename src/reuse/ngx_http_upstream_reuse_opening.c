
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * A connection is opened by a request of our own that has no client and sends
 * nothing.  Core connects for it and does all of TLS; where it would send the
 * request, the connection goes to the pool, as one that has answered.
 */


#include "ngx_http_upstream_reuse.h"


/* worker: lives until its request is freed */

struct ngx_http_upstream_reuse_opening_s {
    ngx_queue_t                          queue;

    ngx_http_upstream_reuse_warm_t      *warm;
    ngx_http_upstream_reuse_kind_t      *kind;
    ngx_http_upstream_reuse_server_t    *server;

    ngx_http_request_t                  *request;
    ngx_event_t                          end;

    /* a client's connection that there is not */

    ngx_connection_t                     connection;
    ngx_event_t                          read;
    ngx_event_t                          write;
    ngx_http_connection_t                http;
    ngx_http_log_ctx_t                   log_ctx;
    ngx_log_t                            log;
    struct sockaddr_un                   sockaddr;

    /* an upstream of one server, for the balancer to choose from */

    ngx_http_upstream_srv_conf_t         uscf;
    ngx_http_upstream_rr_peers_t         peers;
    ngx_http_upstream_rr_peer_t          peer;
    struct sockaddr                      nowhere;

    ngx_str_t                            name;
    u_char                               text[NGX_SOCKADDR_STRLEN];

    unsigned                             telling:1;
    unsigned                             connected:1;
    unsigned                             opened:1;
};


static ngx_http_upstream_reuse_opening_t *reuse_create_opening(
    ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_reuse_server_t *server);
static ngx_int_t reuse_create_upstream(ngx_http_upstream_reuse_opening_t *o);
static u_char *reuse_log_opening(ngx_log_t *log, u_char *buf, size_t len);

static ngx_int_t reuse_create_request(ngx_http_request_t *r);
static ngx_int_t reuse_process_header(ngx_http_request_t *r);
static void reuse_abort_request(ngx_http_request_t *r);
static void reuse_finalize_request(ngx_http_request_t *r, ngx_int_t rc);
static ngx_int_t reuse_connected(void *data, ngx_chain_t *in);

static void reuse_end_handler(ngx_event_t *ev);
static void reuse_conclude(ngx_http_upstream_reuse_opening_t *o,
    ngx_http_upstream_t *u);
static void reuse_free_opening(ngx_http_upstream_reuse_opening_t *o);

static void reuse_read_idle(ngx_event_t *ev);


/* worker: all that are being opened */

static ngx_queue_t  reuse_openings;
static ngx_uint_t   reuse_nopenings;


ngx_int_t
ngx_http_upstream_reuse_open(ngx_http_upstream_reuse_warm_t *warm,
    ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_http_request_t                 *r;
    ngx_http_upstream_reuse_opening_t  *o;

    o = reuse_create_opening(kind, server);
    if (o == NULL) {
        return NGX_ERROR;
    }

    o->warm = warm;

    r = ngx_http_create_request(&o->connection);
    if (r == NULL) {
        ngx_free(o);
        return NGX_ERROR;
    }

    o->request = r;
    o->connection.data = r;

#if (NGX_STAT_STUB)

    /* it is nobody's request */

    (void) ngx_atomic_fetch_add(ngx_stat_reading, -1);
    (void) ngx_atomic_fetch_add(ngx_stat_requests, -1);
    r->stat_reading = 0;

#endif

    /* one failure is told, and not each that comes with it or follows */

    if (!server->told && !server->telling) {
        server->telling = 1;
        o->telling = 1;

    } else if (!(o->log.log_level & NGX_LOG_DEBUG_ALL)) {
        o->log.log_level = ngx_min(o->log.log_level, NGX_LOG_ALERT);
    }

    /* core must neither look at a client, nor log, nor close the connection */

    r->method = NGX_HTTP_GET;
    r->post_action = 1;
    r->uri_changes = 0;
    r->logged = 1;
    r->count = 8;

    if (reuse_nopenings == 0) {
        ngx_queue_init(&reuse_openings);
    }

    ngx_queue_insert_tail(&reuse_openings, &o->queue);
    reuse_nopenings++;

    warm->opening++;
    server->opening++;
    kind->unused++;

    if (reuse_create_upstream(o) != NGX_OK) {
        ngx_post_event(&o->end, &ngx_posted_events);
        return NGX_OK;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, o->connection.log, 0,
                   "upstream reuse: opening a connection to %V", &o->name);

    ngx_http_upstream_init(r);

    if (r->upstream->cleanup == NULL) {

        /* core had no memory to begin with, or has given up already */

        ngx_post_event(&o->end, &ngx_posted_events);
    }

    return NGX_OK;
}


static ngx_http_upstream_reuse_opening_t *
reuse_create_opening(ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_connection_t                   *c;
    ngx_http_upstream_reuse_opening_t  *o;

    o = ngx_calloc(sizeof(ngx_http_upstream_reuse_opening_t), ngx_cycle->log);
    if (o == NULL) {
        return NULL;
    }

    o->kind = kind;
    o->server = server;

    o->name.data = o->text;
    o->name.len = ngx_sock_ntop((struct sockaddr *) server->node.str.data,
                                server->node.str.len, o->text,
                                NGX_SOCKADDR_STRLEN, 1);

    o->end.handler = reuse_end_handler;
    o->end.data = o;
    o->end.log = ngx_cycle->log;

    c = &o->connection;

    c->fd = (ngx_socket_t) -1;
    c->read = &o->read;
    c->write = &o->write;
    c->data = &o->http;
    c->log = &o->log;
    c->log_error = NGX_ERROR_ERR;
    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    c->sendfile = 1;

    o->read.data = c;
    o->read.log = &o->log;
    o->write.data = c;
    o->write.log = &o->log;
    o->write.write = 1;
    o->write.active = 1;

    /* for what may ask who the client is */

    o->sockaddr.sun_family = AF_UNIX;
    c->sockaddr = (struct sockaddr *) &o->sockaddr;
    c->socklen = sizeof(struct sockaddr_un);
    c->local_sockaddr = (struct sockaddr *) &o->sockaddr;
    c->local_socklen = sizeof(struct sockaddr_un);
    ngx_str_set(&c->addr_text, "unix:");

    o->log = *ngx_cycle->log;
    o->log.connection = c->number;
    o->log.handler = reuse_log_opening;
    o->log.data = &o->log_ctx;
    o->log.action = "opening a connection ahead";
    o->log_ctx.connection = c;

    o->http.conf_ctx = &kind->ctx;

    /* once it has failed, core is to give up; no other server is tried */

    c->error = 1;

    return o;
}


static u_char *
reuse_log_opening(ngx_log_t *log, u_char *buf, size_t len)
{
    u_char                             *p;
    ngx_http_log_ctx_t                 *ctx;
    ngx_http_upstream_reuse_opening_t  *o;

    ctx = log->data;

    o = (ngx_http_upstream_reuse_opening_t *)
            ((u_char *) ctx
             - offsetof(ngx_http_upstream_reuse_opening_t, log_ctx));

    p = ngx_snprintf(buf, len, " while %s", log->action);
    len -= p - buf;

    return ngx_snprintf(p, len, ", for \"reuse_warm\" of upstream: \"%V\", "
                        "server: %V", &o->warm->conf->name, &o->name);
}


static ngx_int_t
reuse_create_upstream(ngx_http_upstream_reuse_opening_t *o)
{
    ngx_http_request_t   *r;
    ngx_http_upstream_t  *u;

    r = o->request;

    ngx_http_set_ctx(r, o, ngx_http_upstream_reuse_module);

    if (ngx_http_upstream_create(r) != NGX_OK) {
        return NGX_ERROR;
    }

    u = r->upstream;

    u->conf = &o->kind->opening;

#if (NGX_HTTP_SSL)
    u->ssl = (o->kind->identity.ssl != NULL);
#endif

    u->output.tag = (ngx_buf_tag_t) &ngx_http_upstream_reuse_module;
    u->output.output_filter = reuse_connected;
    u->output.filter_ctx = o;

    u->create_request = reuse_create_request;
    u->reinit_request = reuse_create_request;
    u->process_header = reuse_process_header;
    u->abort_request = reuse_abort_request;
    u->finalize_request = reuse_finalize_request;

    return NGX_OK;
}


ngx_http_upstream_reuse_opening_t *
ngx_http_upstream_reuse_find_opening(ngx_http_request_t *r)
{
    return (r->upstream->create_request == reuse_create_request)
           ? ngx_http_get_module_ctx(r, ngx_http_upstream_reuse_module)
           : NULL;
}


/*
 * The balancer and the keepalive module get an upstream of one server, whose
 * address is nobody's, so that the pool has no connection to it.  Which
 * server it really is has been decided.
 */

ngx_int_t
ngx_http_upstream_reuse_init_opening(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us, ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_int_t                           rc;
    ngx_http_upstream_t                *u;
    ngx_http_upstream_reuse_opening_t  *o;

    o = rp->opening;
    u = rp->upstream;

    o->nowhere.sa_family = AF_UNSPEC;

    o->peer.sockaddr = &o->nowhere;
    o->peer.socklen = sizeof(struct sockaddr);
    o->peer.name = o->name;
    o->peer.weight = 1;
    o->peer.effective_weight = 1;

    o->peers.number = 1;
    o->peers.single = 1;
    o->peers.total_weight = 1;
    o->peers.tries = 1;
    o->peers.name = &o->name;
    o->peers.peer = &o->peer;

    o->uscf = *us;
    o->uscf.peer.data = &o->peers;

    rc = ngx_http_upstream_reuse_init_pool(r, &o->uscf, rp);

    if (rc != NGX_OK) {
        return rc;
    }

    rp->kind = o->kind;
    rp->identity = &o->kind->identity;

    u->peer.local = o->kind->identity.local ? &o->kind->local : NULL;

#if (NGX_HTTP_SSL)
    u->ssl_name = o->kind->identity.name;
#endif

    return NGX_OK;
}


ngx_int_t
ngx_http_upstream_reuse_get_opening(ngx_peer_connection_t *pc,
    ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_int_t                           rc;
    ngx_http_upstream_reuse_opening_t  *o;

    o = rp->opening;

    rc = ngx_http_upstream_reuse_get_from_pool(pc, rp);

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    pc->sockaddr = (struct sockaddr *) o->server->node.str.data;
    pc->socklen = o->server->node.str.len;
    pc->name = &o->name;

    rp->server = o->server;
    rp->start = ngx_current_msec;
    rp->why_new = NGX_HTTP_UPSTREAM_REUSE_NEW_EMPTY;
    rp->holds = 1;

    ngx_http_upstream_reuse_count(rp->server, OPENED);
    ngx_http_upstream_reuse_count(rp->server, AHEAD);

    return NGX_OK;
}


static ngx_int_t
reuse_create_request(ngx_http_request_t *r)
{
    return NGX_OK;
}


/* not called: the request is over before anything is read */

static ngx_int_t
reuse_process_header(ngx_http_request_t *r)
{
    return NGX_HTTP_UPSTREAM_INVALID_HEADER;
}


static void
reuse_abort_request(ngx_http_request_t *r)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "upstream reuse: opening aborted");
}


/* However it has ended, core is done with the request. */

static void
reuse_finalize_request(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_http_upstream_reuse_opening_t  *o;

    o = ngx_http_get_module_ctx(r, ngx_http_upstream_reuse_module);

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "upstream reuse: opening finalized: %i", rc);

    ngx_post_event(&o->end, &ngx_posted_events);
}


/* Core would send the request now: the connection is open. */

static ngx_int_t
reuse_connected(void *data, ngx_chain_t *in)
{
    ngx_http_upstream_reuse_opening_t  *o = data;

    o->connected = 1;

    ngx_post_event(&o->end, &ngx_posted_events);

    return NGX_AGAIN;
}


static void
reuse_end_handler(ngx_event_t *ev)
{
    ngx_http_upstream_reuse_opening_t  *o = ev->data;

    ngx_http_upstream_t  *u;

    u = o->request->upstream;

    if (o->connected && u->peer.connection) {
        reuse_conclude(o, u);
    }

    reuse_free_opening(o);
}


/* The connection is open, and is kept if it is as it should be. */

static void
reuse_conclude(ngx_http_upstream_reuse_opening_t *o, ngx_http_upstream_t *u)
{
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = u->peer.connection;

    /* what it was opened by was no request */

    c->requests = 0;
    u->request_body_sent = 1;

    rc = NGX_AGAIN;

#if (NGX_HTTP_SSL)

    if (c->ssl) {
        rc = ngx_http_upstream_reuse_drain(c);
    }

#endif

    switch (rc) {

    case NGX_AGAIN:
        u->keepalive = 1;
        break;

    case NGX_BUSY:

        /* a ticket that has come in part: there is nothing wrong with it */

        o->opened = 1;
        break;

    case NGX_OK:
        ngx_http_upstream_reuse_explain(o->request,
                                        NGX_HTTP_UPSTREAM_REUSE_FATE_CLOSED);
        break;

    case NGX_DECLINED:
        ngx_http_upstream_reuse_explain(o->request,
                                        NGX_HTTP_UPSTREAM_REUSE_FATE_EXCESS);
        break;
    }
}


/* Freeing the request gives the connection back, or closes it. */

static void
reuse_free_opening(ngx_http_upstream_reuse_opening_t *o)
{
    ngx_http_upstream_reuse_warm_t    *warm;
    ngx_http_upstream_reuse_server_t  *server;

    warm = o->warm;
    server = o->server;

    ngx_http_free_request(o->request, 0);

    if (o->end.posted) {
        ngx_delete_posted_event(&o->end);
    }

    ngx_queue_remove(&o->queue);
    reuse_nopenings--;

    warm->opening--;
    server->opening--;
    o->kind->unused--;

    if (o->telling) {
        server->telling = 0;
        server->told = !o->opened;
    }

    ngx_http_upstream_reuse_note_opening(warm, server, o->opened);

    ngx_free(o);
}


ngx_uint_t
ngx_http_upstream_reuse_count_openings(ngx_http_upstream_reuse_kind_t *kind,
    ngx_http_upstream_reuse_server_t *server)
{
    ngx_uint_t                          n;
    ngx_queue_t                        *q;
    ngx_http_upstream_reuse_opening_t  *o;

    if (server->opening == 0) {
        return 0;
    }

    n = 0;

    for (q = ngx_queue_head(&reuse_openings);
         q != ngx_queue_sentinel(&reuse_openings);
         q = ngx_queue_next(q))
    {
        o = ngx_queue_data(q, ngx_http_upstream_reuse_opening_t, queue);

        if (o->kind == kind && o->server == server) {
            n++;
        }
    }

    return n;
}


ngx_uint_t
ngx_http_upstream_reuse_count_all_openings(void)
{
    return reuse_nopenings;
}


void
ngx_http_upstream_reuse_abort_openings(void)
{
    ngx_http_upstream_reuse_opening_t  *o;

    while (reuse_nopenings) {

        o = ngx_queue_data(ngx_queue_head(&reuse_openings),
                           ngx_http_upstream_reuse_opening_t, queue);

        if (o->request->upstream) {
            ngx_http_upstream_reuse_explain(o->request,
                                       NGX_HTTP_UPSTREAM_REUSE_FATE_SHUTDOWN);
        }

        reuse_free_opening(o);
    }
}


void
ngx_http_upstream_reuse_keep_opening(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_kept_t *kept)
{
    kept->warm = 1;

    if (kept->limit) {
        kept->limit = &rp->server->record->unused;
    }

    /* by which the keepalive module of nginx 1.29.7 tells locations apart */

    rp->upstream->conf = rp->kind->conf;
}


/* It is in the pool now, or else there is nothing. */

void
ngx_http_upstream_reuse_end_opening(ngx_http_upstream_reuse_peer_t *rp,
    ngx_http_upstream_reuse_kept_t *kept)
{
    ngx_event_t  *rev;

    if (kept == NULL) {
        return;
    }

    rp->opening->opened = 1;

    rev = kept->connection->read;

    kept->handler = rev->handler;
    rev->handler = reuse_read_idle;
}


static void
reuse_read_idle(ngx_event_t *ev)
{
    ngx_connection_t                *c;
    ngx_http_upstream_reuse_kept_t  *kept;

    c = ev->data;
    kept = ngx_http_upstream_reuse_find_kept(c);

#if (NGX_HTTP_SSL)

    if (c->ssl && !c->close && !ev->timedout) {

        kept->ended = ngx_http_upstream_reuse_read_tickets(kept);

        if ((kept->ended == NGX_AGAIN || kept->ended == NGX_BUSY)
            && ngx_handle_read_event(ev, 0) == NGX_OK)
        {
            return;
        }

        /* the module would look at the socket, from which it is read */

        kept->heard = 1;
        ev->timedout = 1;
    }

#endif

    kept->handler(ev);
}
