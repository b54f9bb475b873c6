
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Why a request has a new connection, and why one is not kept: the words for
 * it, which logs, metrics, the page and docs/status.md have in common, and how
 * it is found out.
 */


#include "ngx_http_upstream_reuse_accounts.h"


/* in the order of ngx_http_upstream_reuse_new_e */

ngx_http_upstream_reuse_reason_t  ngx_http_upstream_reuse_new_reasons[] = {
    { ngx_null_string, NULL, NULL, NULL },

    { ngx_string("empty"), NULL,
      "no idle connection to this server was in the pool of this worker, "
      "nor left to all workers",
      "normal at the start and in bursts, and with TLS after a reload; "
      "\"reuse_warm auto\" opens connections ahead of need" },

    { ngx_string("expired"), NULL,
      "the idle connection was too close to the age at which the origin "
      "closes it",
      "raise the keep-alive timeout of the origin above 60 seconds "
      "(nginx's \"keepalive_timeout\")" },

    { ngx_string("stale"), NULL,
      "the origin had closed the idle connection, or had sent "
      "unexpected bytes on it",
      "raise the keep-alive timeout of the origin above 60 seconds "
      "(nginx's \"keepalive_timeout\")" },

    { ngx_string("retry"), NULL,
      "the request was sent again, since the origin had closed the "
      "first connection before it received the request",
      "raise the keep-alive timeout of the origin above 60 seconds "
      "(nginx's \"keepalive_timeout\")" },

    { ngx_string("silent"), NULL,
      "nothing of the request was acknowledged on the idle connection, "
      "or it had been idle for as long as one of which that was so",
      "a device on the way forgets idle connections: lower \"idle=\" of "
      "\"reuse_probe\", or write the time after which it forgets in "
      "\"reuse_expiry\"" },

    { ngx_string("identity"), NULL,
      "the idle connections had been opened with another TLS name, "
      "client certificate, local address, protocol or other TLS "
      "settings",
      "normal where the pool keeps them side by side; else remove "
      "\"keepalive\" from the upstream" },

    { ngx_string("unbuffered"), NULL,
      "the request body is not buffered and could not be sent again, so "
      "only a connection whose limit is known is used",
      "write the keep-alive timeout of the origin in \"reuse_expiry\"" },

    { ngx_string("off"), NULL,
      "reuse is off for the request: \"reuse off\", \"keepalive 0\", or "
      "a handler other than \"myproxy_pass\" in an upstream without "
      "\"reuse on\"",
      "nothing if that is intended; else remove the directive, or write "
      "\"reuse on\"" }
};


/* in the order of ngx_http_upstream_reuse_close_e */

ngx_http_upstream_reuse_reason_t  ngx_http_upstream_reuse_close_reasons[] = {
    { ngx_null_string, NULL, NULL, NULL },

    { ngx_string("kept"), NULL,
      "it is not closed: it waits for another request",
      NULL },

    { ngx_string("off"), "nginx",
      "reuse is off for the request: \"reuse off\", \"keepalive 0\", or "
      "a handler other than \"myproxy_pass\" in an upstream without "
      "\"reuse on\"",
      NULL },

    { ngx_string("configured"), "nginx",
      "the location closes each connection: a constant \"Connection "
      "close\" in \"myproxy_set_header\", or \"myproxy_http_version "
      "1.0\"",
      "remove that line" },

    { ngx_string("close"), "origin",
      "the origin said \"Connection: close\"",
      "turn keep-alive on at the origin, and see that nothing tells it "
      "to close" },

    { ngx_string("announced"), "origin",
      "the \"Keep-Alive\" header of the origin allowed no further "
      "request",
      "raise the keep-alive timeout and the number of requests of the "
      "origin" },

    { ngx_string("http10"), "origin",
      "the origin answered with HTTP/1.0",
      "have the origin speak HTTP/1.1" },

    { ngx_string("unframed"), "origin",
      "the response had neither a length nor chunks, so it ended with "
      "the connection",
      "have the origin send \"Content-Length\" or chunks" },

    { ngx_string("excess"), "origin",
      "the origin sent data after the response or on an idle connection",
      "repair the origin; \"error_log\" with the level \"warn\" shows "
      "each case" },

    { ngx_string("unread"), "client",
      "the response was not read to its end, as when the client leaves",
      NULL },

    { ngx_string("early"), "origin",
      "the origin answered, or refused the body with 413, before it had "
      "read the whole request",
      "have the origin read requests to their end" },

    { ngx_string("unsent"), "client",
      "the request was not sent to its end, as when the client leaves",
      NULL },

    { ngx_string("upgraded"), "client",
      "it carried WebSocket or another protocol",
      NULL },

    { ngx_string("authenticated"), "client",
      "NTLM or Negotiate made it one client's own",
      "NTLM, and Negotiate in several steps, cannot complete through "
      "this proxy: have the origin accept Kerberos in one step or "
      "another scheme, or pass its port on in \"stream\"" },

    { ngx_string("requests"), "nginx",
      "it had carried as many requests as \"keepalive_requests\" allows",
      "raise \"keepalive_requests\"" },

    { ngx_string("time"), "nginx",
      "it was older than \"keepalive_time\" allows",
      "raise \"keepalive_time\"" },

    { ngx_string("age"), "nginx",
      "it had the age at which \"reuse_max_age\" ends it",
      NULL },

    { ngx_string("drained"), "nginx",
      "its server gets no requests any more: it is \"down\" or \"drain\", "
      "or a reload or a name server has removed it",
      NULL },

    { ngx_string("closed"), "origin",
      "the origin closed it, after a response or while it was idle",
      "raise the keep-alive timeout of the origin above 60 seconds "
      "(nginx's \"keepalive_timeout\")" },

    { ngx_string("undelivered"), "origin",
      "the origin closed it before it received a request, which was "
      "sent again",
      "raise the keep-alive timeout of the origin above 60 seconds "
      "(nginx's \"keepalive_timeout\")" },

    { ngx_string("silent"), "origin",
      "nothing of a request was acknowledged on it, nor a probe, or it "
      "had been idle for as long as one of which that was so",
      "a device on the way forgets idle connections: lower \"idle=\" of "
      "\"reuse_probe\", or write the time after which it forgets in "
      "\"reuse_expiry\"" },

    { ngx_string("connect_failed"), "origin",
      "it could not be opened: refused, timed out, or the TLS handshake "
      "failed",
      "see the error log" },

    { ngx_string("timeout"), "origin",
      "the origin did not read or answer in time",
      "see the error log" },

    { ngx_string("error"), "origin",
      "it broke, or the response was invalid",
      "see the error log" },

    { ngx_string("shutdown"), "nginx",
      "the worker process ended, as after a reload",
      NULL },

    { ngx_string("idle"), "nginx",
      "no request came within \"keepalive_timeout\"",
      NULL },

    { ngx_string("full"), "nginx",
      "more connections became idle than the pool keeps, or a reload has left "
      "fewer places for those that workers share (\"reuse_share\")",
      "write a larger \"keepalive\" in the upstream, and "
      "\"keepalive_requests 100000\" beside it" },

    { ngx_string("expired"), "nginx",
      "its idle time came close to the age at which the origin closes "
      "it",
      "raise the keep-alive timeout of the origin above 60 seconds "
      "(nginx's \"keepalive_timeout\"), unless requests come less often than "
      "that" },

    { ngx_string("identity"), "nginx",
      "a request with another TLS name, client certificate, local "
      "address or other TLS settings found it",
      "remove \"keepalive\" from the upstream" },

    { ngx_string("unbuffered"), "nginx",
      "a request whose body is not buffered found it, and its limit is "
      "not known",
      "write the keep-alive timeout of the origin in \"reuse_expiry\"" },

    { ngx_string("starving"), "nginx",
      "idle connections may have kept the server from answering",
      "remove \"reuse_warm\" if the server has one process or thread "
      "for each connection" },

    { ngx_string("limit"), "nginx",
      "it was idle, and a request that \"reuse_limit\" let open no other "
      "one could not use it",
      "normal with TLS or settings that differ; else raise "
      "\"reuse_limit\"" },

    { ngx_string("crash"), "nginx",
      "the worker process died",
      "see the error log" }
};


/* in the order of ngx_http_upstream_reuse_refused_e */

ngx_http_upstream_reuse_reason_t  ngx_http_upstream_reuse_refused_reasons[] = {
    { ngx_null_string, NULL, NULL, NULL },

    { ngx_string("full"), NULL,
      "all connections that \"reuse_limit\" allows were in use, and as many "
      "requests waited for one as may",
      "raise \"reuse_limit\" if the servers can take more; else add servers, "
      "or raise \"queue=\" for short bursts" },

    { ngx_string("timeout"), NULL,
      "it had waited for a connection for as long as \"reuse_limit\" lets it",
      "raise \"reuse_limit\" if the servers can take more; else add servers, "
      "or raise \"timeout=\" if clients wait that long" },

    { ngx_string("shutdown"), NULL,
      "it waited for a connection when its worker process had to end",
      "raise \"worker_shutdown_timeout\"" }
};


ngx_http_myproxy_static_assert(
    sizeof(ngx_http_upstream_reuse_refused_reasons)
    == NGX_HTTP_UPSTREAM_REUSE_REFUSED_LAST
       * sizeof(ngx_http_upstream_reuse_reason_t),
    "every reason for a refusal has its words");

ngx_http_myproxy_static_assert(
    sizeof(ngx_http_upstream_reuse_new_reasons)
    == NGX_HTTP_UPSTREAM_REUSE_NEW_LAST
       * sizeof(ngx_http_upstream_reuse_reason_t),
    "every reason for a new connection has its words");

ngx_http_myproxy_static_assert(
    sizeof(ngx_http_upstream_reuse_close_reasons)
    == NGX_HTTP_UPSTREAM_REUSE_CLOSE_LAST
       * sizeof(ngx_http_upstream_reuse_reason_t),
    "every reason for a close has its words");


ngx_http_upstream_reuse_new_e
ngx_http_upstream_reuse_why_new(ngx_http_upstream_reuse_peer_t *rp)
{
    ngx_http_upstream_reuse_server_t  *server;

    if (rp->bypass || rp->conf->reuse == 0) {
        return NGX_HTTP_UPSTREAM_REUSE_NEW_OFF;
    }

    /*
     * Those that there are, it does not give to this request.  Where it knows
     * no identity, or one of each location, they are another location's.
     */

    if (!ngx_http_upstream_reuse_pool_has_keys(rp) || rp->apart) {
        return NGX_HTTP_UPSTREAM_REUSE_NEW_EMPTY;
    }

    server = rp->server;

    return (server->learned
            && server->tally->counters[NGX_HTTP_UPSTREAM_REUSE_IDLE])
           ? NGX_HTTP_UPSTREAM_REUSE_NEW_IDENTITY
           : NGX_HTTP_UPSTREAM_REUSE_NEW_EMPTY;
}


ngx_http_upstream_reuse_close_e
ngx_http_upstream_reuse_why_unfit(ngx_http_upstream_reuse_peer_t *rp)
{
    switch (rp->account.why_new) {

    case NGX_HTTP_UPSTREAM_REUSE_NEW_EXPIRED:
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED;

    case NGX_HTTP_UPSTREAM_REUSE_NEW_STALE:
        return rp->account.excess ? NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXCESS
                          : NGX_HTTP_UPSTREAM_REUSE_CLOSE_CLOSED;

    case NGX_HTTP_UPSTREAM_REUSE_NEW_SILENT:
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_SILENT;

    case NGX_HTTP_UPSTREAM_REUSE_NEW_UNBUFFERED:
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNBUFFERED;

    default: /* NGX_HTTP_UPSTREAM_REUSE_NEW_IDENTITY */
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_IDENTITY;
    }
}


ngx_http_upstream_reuse_close_e
ngx_http_upstream_reuse_why_closed(ngx_http_upstream_reuse_peer_t *rp,
    ngx_connection_t *c, ngx_uint_t state)
{
    ngx_uint_t                       early;
    ngx_http_upstream_t             *u;
    ngx_http_upstream_headers_in_t  *in;

    u = rp->upstream;
    in = &u->headers_in;

    if ((state & NGX_PEER_FAILED) && rp->conn == NULL && !u->request_sent) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_CONNECT_FAILED;
    }

    if (rp->conn && rp->watch.silent) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_SILENT;
    }

    if (c->read->timedout || c->write->timedout) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_TIMEOUT;
    }

    if (u->upgrade) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_UPGRADED;
    }

    if (rp->conn && rp->watch.stray) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXCESS;
    }

    early = !(state & NGX_PEER_FAILED)
            && in->status_n
            && (!u->request_body_sent || c->write->error);

    if ((state & NGX_PEER_FAILED)
        || ((c->read->error || c->write->error) && !early))
    {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR;
    }

    if (rp->bypass || rp->conf->reuse == 0) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_OFF;
    }

    if (early) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_EARLY;
    }

    if (!u->request_body_sent) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNSENT;
    }

    if (rp->account.explained != NGX_HTTP_UPSTREAM_REUSE_CLOSE_PENDING) {
        return rp->account.explained;
    }

    if (in->connection_close) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_CLOSE;
    }

    if (!u->keepalive) {
        return (c->read->eof && !in->chunked && in->content_length_n == -1)
               ? NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNFRAMED
               : NGX_HTTP_UPSTREAM_REUSE_CLOSE_UNREAD;
    }

    if (c->read->eof) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_CLOSED;
    }

    if (c->requests >= rp->conf->max_requests) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_REQUESTS;
    }

    if (ngx_current_msec - c->start_time > rp->conf->max_time) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_TIME;
    }

    return (ngx_exiting || ngx_terminate)
           ? NGX_HTTP_UPSTREAM_REUSE_CLOSE_SHUTDOWN
           : NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR;
}


ngx_http_upstream_reuse_close_e
ngx_http_upstream_reuse_why_idle_closed(ngx_http_upstream_reuse_conn_t *conn,
    ngx_int_t ended)
{
    ngx_connection_t  *c;

    c = conn->connection;

    if (c->close || ngx_exiting || ngx_terminate) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_SHUTDOWN;
    }

    if (conn->state == NGX_HTTP_UPSTREAM_REUSE_CONN_TESTED) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXPIRED;
    }

    if (c->read->timedout && conn->ended == NGX_AGAIN) {
        return conn->on_timeout;
    }

    if (ngx_http_upstream_reuse_pool_evicts(c)) {
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_FULL;
    }

    switch (ended) {

    case NGX_OK:
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_CLOSED;

    case NGX_DECLINED:
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_EXCESS;

    case NGX_ABORT:
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_SILENT;

    default:
        return NGX_HTTP_UPSTREAM_REUSE_CLOSE_ERROR;
    }
}
