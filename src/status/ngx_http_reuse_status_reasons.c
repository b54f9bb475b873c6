
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * What the names that are counted mean, and what an operator may do about
 * them; docs/status.md has more.
 */


#include "ngx_http_reuse_status.h"


/* in the order of ngx_http_upstream_reuse_new_e */

ngx_http_reuse_status_reason_t  ngx_http_reuse_status_new[] = {

    { NULL, NULL },

    /* empty */
    { "no connection was idle", NULL },

    /* expired */
    { "the idle one was too near its end",
      "raise the origin's keep-alive timeout" },

    /* stale */
    { "the origin had closed the idle one",
      "raise the origin's keep-alive timeout" },

    /* retry */
    { "sent again: the origin was just closing the first",
      "raise the origin's keep-alive timeout" },

    /* identity */
    { "idle ones were for another TLS name, certificate or address",
      "if \"keepalive\" is written in the upstream, remove it: the pool keeps "
      "them apart then" },

    /* unbuffered */
    { "a body that streams was not risked on an old one",
      "write the origin's keep-alive timeout in \"reuse_expiry\"" },

    /* off */
    { "reuse was off for the request",
      "remove \"reuse off\"; for other handlers write \"reuse on\"" }
};


/* in the order of ngx_http_upstream_reuse_fate_e */

ngx_http_reuse_status_reason_t  ngx_http_reuse_status_fates[] = {

    { NULL, NULL },
    { NULL, NULL },

    /* off */
    { "reuse was off for the request",
      "remove \"reuse off\"; for other handlers write \"reuse on\"" },

    /* close */
    { "the origin said \"Connection: close\"",
      "turn keep-alive on at the origin, and see that nothing tells it to "
      "close" },

    /* announced */
    { "by the origin's \"Keep-Alive\" it was the last request",
      "raise the keep-alive timeout and request limit of the origin" },

    /* http10 */
    { "the origin spoke HTTP/1.0",
      "have the origin speak HTTP/1.1" },

    /* unframed */
    { "the end of the response was the end of the connection",
      "have the origin send Content-Length, or chunks" },

    /* excess */
    { "the origin sent more than it should",
      "mend the origin; the error log says what it was" },

    /* unread */
    { "the response was not read to its end, as when a client leaves", NULL },

    /* unsent */
    { "the request was not sent to its end", NULL },

    /* upgraded */
    { "it was used for WebSocket or another protocol", NULL },

    /* authenticated */
    { "NTLM or Negotiate made it one client's own", NULL },

    /* requests */
    { "it had carried as many requests as \"keepalive_requests\" says",
      "raise \"keepalive_requests\"" },

    /* time */
    { "it was as old as \"keepalive_time\" says",
      "raise \"keepalive_time\"" },

    /* closed */
    { "the origin closed it while it was idle",
      "raise the origin's keep-alive timeout" },

    /* undelivered */
    { "the origin closed it as a request came, which was sent again",
      "raise the origin's keep-alive timeout" },

    /* unconnected */
    { "it could not be made: refused, timed out, or TLS failed",
      "see the error log" },

    /* timeout */
    { "the origin did not read or answer in time",
      "see the error log" },

    /* error */
    { "it broke, or the response was malformed",
      "see the error log" },

    /* shutdown */
    { "the worker process ended, as after a reload", NULL },

    /* idle */
    { "no request came within \"keepalive_timeout\"", NULL },

    /* full */
    { "the pool was full of others",
      "raise \"keepalive\" in the upstream" },

    /* expired */
    { "its idle time came near the origin's limit", NULL },

    /* identity */
    { "a request with another TLS name, certificate or address came",
      "remove \"keepalive\" from the upstream: the pool keeps them apart "
      "then" },

    /* unbuffered */
    { "a body that streams was not risked on it",
      "write the origin's keep-alive timeout in \"reuse_expiry\"" },

    /* crash */
    { "the worker process died",
      "see the error log" }
};
