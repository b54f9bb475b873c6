"""Fields that do not reach the origin decide nothing about its responses.

A client's Connection names fields that stay behind.  Where they are in the
cache's key, in Vary, or in a stored file's path, the response is neither
stored nor taken from the cache: it is not what the origin says to a client
whose field it sees.
"""

import os

import pytest

from harness import http1
from harness.nginx import third_party

PASS = "myproxy_pass http://%{origin};"
ZONE = "myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;"
CACHE = PASS + """
    myproxy_cache zone;
    myproxy_cache_valid any 1h;
    add_header X-Status $upstream_cache_status;
"""
NAMED = "Connection: keep-alive, "
MORE = third_party("ngx_http_headers_more_filter")
needs_more = pytest.mark.skipif(MORE is None, reason="no headers-more module")


def telling(name, *lines):
    """Answers with what the origin has seen of a field."""
    def script(conn):
        for request in conn.each_request():
            seen = request.header(name) or "nothing"
            conn.respond(200, *lines, body=seen.encode())
    return script


def ask(nginx, *lines, **more):
    response = nginx.get("/", *lines, **more)
    return response.header("X-Status"), response.body


def test_a_named_field_does_not_choose_the_variant(stage):
    stage.origin(telling("Accept", "Vary: Accept"))
    nginx = stage.nginx(http=ZONE, location=CACHE)
    json = "Accept: application/json"
    poison = (json, NAMED + "accept")
    assert ask(nginx, *poison) == (None, b"nothing")
    assert ask(nginx, json) == ("MISS", b"application/json")
    assert ask(nginx, *poison) == (None, b"nothing")
    assert ask(nginx, json) == ("HIT", b"application/json")


@pytest.mark.parametrize("key", [
    "$host$uri$http_x_tenant", "$host$uri$tenant", "$host$uri$mapped"])
def test_a_named_field_is_not_in_the_key(stage, key):
    stage.origin(telling("X-Tenant"))
    nginx = stage.nginx(
        http=ZONE + "map $http_x_tenant $mapped { default $http_x_tenant; }",
        location="set $tenant $http_x_tenant;" + CACHE
        + f"myproxy_cache_key {key};")
    poison = ("X-Tenant: a", NAMED + "X-Tenant")
    assert ask(nginx, *poison) == (None, b"nothing")
    assert ask(nginx, "X-Tenant: a") == ("MISS", b"a")
    assert ask(nginx, *poison) == (None, b"nothing")
    assert ask(nginx, "X-Tenant: a") == ("HIT", b"a")


@pytest.mark.parametrize("directive, status", [
    ("myproxy_cache_bypass", "BYPASS"), ("myproxy_no_cache", "MISS")])
def test_a_named_field_decides_no_condition(stage, directive, status):
    stage.origin(telling("X-Now"))
    nginx = stage.nginx(http=ZONE, location=CACHE
                        + f"{directive} $http_x_now;")
    assert ask(nginx, "X-Now: 1", NAMED + "X-Now") == (None, b"nothing")
    assert ask(nginx, "X-Now: 1") == (status, b"1")


def test_what_is_stale_stays_as_it_is(stage):
    """Neither the lock, nor an update in the background, nor a revalidation
    has to do with such a request."""
    seen = iter(["a", "b", "c"])

    def script(conn):
        for request in conn.each_request():
            if request.header("If-None-Match"):
                conn.send(b"HTTP/1.1 304 Not Modified\r\n\r\n")
            else:
                conn.respond(200, "X-Accel-Expires: @1", 'ETag: "e"',
                             body=next(seen).encode())

    origin = stage.origin(script)
    nginx = stage.nginx(http=ZONE, location=CACHE + """
        myproxy_cache_revalidate on;
        myproxy_cache_lock on;
        myproxy_cache_background_update on;
        myproxy_cache_use_stale updating;
    """)
    assert ask(nginx) == ("MISS", b"a")
    assert ask(nginx, "X-Gone: 1", NAMED + "X-Gone") == (None, b"b")
    assert origin.requests[1].header("If-None-Match") is None
    assert ask(nginx) == ("STALE", b"a")


def test_ranges_and_conditions_of_such_a_request_pass(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=ZONE, location=CACHE)
    nginx.get("/", "Range: bytes=0-1", 'If-None-Match: "x"', "X-Gone: 1",
              NAMED + "X-Gone, Range")
    assert sorted(origin.request.names) == ["host", "if-none-match"]


@pytest.mark.parametrize("lines", [
    ["Connection: keep-alive", "Keep-Alive: timeout=5"],
    ["Connection: close"],
    ["Connection: TE, close", "TE: trailers"],
    ["Connection: Keep-Alive, Proxy-Connection", "Keep-Alive: 5",
     "Proxy-Connection: keep-alive"],
    ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
     "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"],
    ["Connection: Trailer, X-Not-Sent", "Trailer: X-Sum"],
    ["Connection: If-None-Match, Range", 'If-None-Match: "x"',
     "Range: bytes=0-"],
    ["Connection: Cookie, Authorization, X-Real-IP", "Cookie: a=b",
     "X-Real-IP: 192.0.2.1"],
    ["Upgrade: websocket"],
], ids=repr)
def test_what_ordinary_clients_send_keeps_the_cache_working(stage, lines):
    origin = stage.origin()
    nginx = stage.nginx(http=ZONE, location=CACHE)
    assert nginx.get("/", *lines).header("X-Status") == "MISS"
    assert nginx.get("/", *lines).header("X-Status") == "HIT"
    assert nginx.get("/").header("X-Status") == "HIT"
    assert len(origin.requests) == 1


def test_what_the_operator_sets_is_seen_and_cached(stage):
    stage.origin(telling("X-Tenant"))
    nginx = stage.nginx(http=ZONE, location=CACHE + """
        myproxy_set_header X-Tenant $http_x_tenant;
        myproxy_cache_key $uri$http_x_tenant;
    """)
    lines = ("X-Tenant: a", NAMED + "X-Tenant")
    assert ask(nginx, *lines) == ("MISS", b"a")
    assert ask(nginx, "X-Tenant: a") == ("HIT", b"a")


def test_nothing_is_withheld_where_no_field_passes(stage):
    stage.origin(telling("X-Tenant"))
    nginx = stage.nginx(http=ZONE, location=CACHE
                        + "myproxy_pass_request_headers off;")
    assert ask(nginx, "X-Gone: 1", NAMED + "X-Gone")[0] == "MISS"
    assert ask(nginx, "X-Gone: 1", NAMED + "X-Gone")[0] == "HIT"


HANDSHAKE = ("Upgrade: websocket", "Connection: Upgrade")


@pytest.mark.parametrize("more", [
    "", "myproxy_set_header Upgrade websocket;"], ids=["ours", "set"])
def test_a_request_to_switch_has_nothing_to_do_with_the_cache(stage, more):
    stage.origin(telling("Upgrade", "Vary: Upgrade"))
    nginx = stage.nginx(http=ZONE, location=CACHE + more)
    assert ask(nginx, *HANDSHAKE) == (None, b"websocket")
    assert ask(nginx, HANDSHAKE[0]) == ("MISS", b"nothing")
    assert ask(nginx, *HANDSHAKE) == (None, b"websocket")
    assert ask(nginx, HANDSHAKE[0]) == ("HIT", b"nothing")


def test_websocket_passes_where_there_is_a_cache(stage):
    def script(conn):
        if conn.read_request().header("Upgrade"):
            conn.send(b"HTTP/1.1 101 Switching Protocols\r\n"
                      b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi")
        else:
            conn.respond(200, body=b"page")

    stage.origin(script)
    nginx = stage.nginx(http=ZONE, location=CACHE)
    assert ask(nginx) == ("MISS", b"page")
    client = nginx.connect()
    client.send(http1.request("GET", "/", *HANDSHAKE))
    assert client.read_response_head().status == 101
    assert client.read(2) == b"hi"


@pytest.mark.parametrize("path", ["$http_x_tenant", "page"])
@pytest.mark.parametrize("target", [
    PASS, "resolver %{dns} ipv6=off;"
          "set $name a.test; myproxy_pass http://$name:%{origin.port};",
], ids=["address", "resolved"])
def test_what_misses_a_named_field_is_not_stored(stage, target, path):
    """Core starts over when a name is resolved."""
    stage.dns({"a.test": ["127.0.0.1"]}, ttl=600)
    stage.origin(telling("X-Tenant"))
    nginx = stage.nginx(location=target
                        + f"myproxy_store %{{prefix}}/store/{path};")

    def stored():
        return [open(os.path.join(where, name), "rb").read()
                for where, _, names in os.walk(
                    os.path.join(nginx.prefix, "store"))
                for name in names]

    poison = ("X-Tenant: b", NAMED + "X-Tenant")
    assert nginx.get("/", *poison).body == b"nothing"
    assert nginx.get("/", "X-Tenant: a").body == b"a"
    stage.wait_until(lambda: stored() == [b"a"])
    assert nginx.get("/", *poison).body == b"nothing"
    assert stored() == [b"a"]


def test_such_a_request_uses_kept_connections(stage):
    origin = stage.origin(telling("Accept"))
    nginx = stage.nginx(http=ZONE + "upstream app { server %{origin}; }",
                        location=CACHE.replace("%{origin}", "app"))
    nginx.get("/1")
    nginx.get("/2", "Accept: x", NAMED + "Accept")
    nginx.get("/3")
    assert origin.carried == [3]


@pytest.mark.parametrize("named", [True, False])
def test_such_a_request_finds_a_target_by_its_name(stage, named):
    """Core starts over when the name is known."""
    stage.origin(telling("Accept", "Vary: Accept"))
    nginx = stage.nginx(
        http=ZONE + "upstream app { server %{origin}; }",
        location=CACHE.replace("http://%{origin}", "http://$arg_to"))
    target = "/?to=app" if named else f"/?to={stage.names['origin']}"
    poison = ("Accept: x", NAMED + "Accept")
    for lines, expected in [(poison, (None, b"nothing")),
                            (["Accept: x"], ("MISS", b"x")),
                            (poison, (None, b"nothing")),
                            (["Accept: x"], ("HIT", b"x"))]:
        response = nginx.get(target, *lines)
        assert (response.header("X-Status"), response.body) == expected


# Connection says nothing in HTTP/2

def test_connection_of_http2_names_nothing(stage):
    """nginx refuses it from 1.31 on."""
    origin = stage.origin(telling("X-Tenant"))
    nginx = stage.nginx(listen="http2", http=ZONE, location=CACHE)
    response = nginx.connect_h2().get("/", ("connection", "x-tenant"),
                                      ("x-tenant", "a"))
    if response.status == 200:
        assert response.body == b"a"
        assert sorted(origin.request.names) == ["host", "x-tenant"]
    else:
        assert response.status == 400


# fields that other modules put among the client's

@needs_more
@pytest.mark.parametrize("lines", [
    ["Connection: X-User"],
    ["Connection: X-User", "X-User: root"],
    ["Connection: X-User", "X-Long: " + 2000 * "x", "X-User: root"],
], ids=["missing", "sent", "large"])
def test_a_field_of_another_module_cannot_be_named_away(stage, lines):
    origin = stage.origin()
    nginx = stage.nginx(main=MORE, location="""
        more_set_input_headers "X-User: $arg_user";
    """ + PASS)
    nginx.get("/?user=me", *lines)
    assert origin.request.values("X-User") == ["me"]


@needs_more
def test_a_field_of_another_module_may_be_in_the_key(stage):
    stage.origin(telling("X-User"))
    nginx = stage.nginx(main=MORE, http=ZONE, location="""
        more_set_input_headers "X-User: $arg_user";
    """ + CACHE + "myproxy_cache_key $uri$http_x_user;")
    for status in "MISS", "HIT":
        response = nginx.get("/?user=me", "X-User: root",
                             "Connection: X-User")
        assert response.header("X-Status") == status
        assert response.body == b"me"


@pytest.mark.parametrize("size", ["1k", "64"])
def test_named_fields_stay_behind_in_whichever_buffer_they_are(stage, size):
    """Those of a long request and those behind another on a connection."""
    origin = stage.origin()
    nginx = stage.nginx(server=f"""
        client_header_buffer_size {size};
        large_client_header_buffers 8 2k;
    """, location=PASS)
    filler = [f"X-Fill-{n}: " + 700 * "x" for n in range(8)]
    lines = ["X-First: 1", *filler, "X-Last: 1",
             "Connection: X-First, X-Last, X-Fill-3"]
    client = nginx.connect()
    client.send(http1.request("GET", "/1", *lines)
                + http1.request("GET", "/2", *lines))
    for _ in range(2):
        assert client.read_response().status == 200
    left = {"host"} | {f"x-fill-{n}" for n in range(8) if n != 3}
    assert [set(request.names) for request in origin.requests] == [left, left]
