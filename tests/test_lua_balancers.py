"""Balancers in Lua, which change a request while a server is chosen."""

import pytest

from harness import http1
from harness.nginx import third_party
from test_warm import idle

NDK, LUA = third_party("ndk_http"), third_party("ngx_http_lua")

pytestmark = pytest.mark.skipif(not (NDK and LUA), reason="no Lua module")

MAIN = f"{NDK} {LUA}"


def balanced(more=""):
    return f"""
        upstream app {{
            server %{{origin}};
            balancer_by_lua_block {{
                local balancer = require "ngx.balancer"
                assert(balancer.set_current_peer(
                    "127.0.0.1", %{{origin.port}}))
                {more}
            }}
            reuse_warm 2;
        }}
    """


CHANGED = balanced("""
    ngx.var.changed = "changed"
    assert(balancer.recreate_request())
""")

PASS = "myproxy_pass http://app;"

SET = """
    set $changed first;
    myproxy_set_header X-Set $changed;
"""


@pytest.mark.parametrize("http", [balanced(), CHANGED],
                         ids=["as it is", "made anew"])
def test_a_request_without_body(stage, http):
    origin = stage.origin()
    nginx = stage.nginx(main=MAIN, http=http, location=SET + PASS)
    for method in ("GET", "GET", "DELETE"):
        assert nginx.request(method, "/").status == 200
    found = {request.header("X-Set") for request in origin.requests}
    assert found == {"changed" if http is CHANGED else "first"}


@pytest.mark.parametrize("size", [0, 1, 2048, 2049, 300_000])
@pytest.mark.parametrize("lines", [(), ("Transfer-Encoding: chunked",)])
def test_a_body_is_sent_with_a_request_that_is_made_anew(stage, size, lines):
    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    origin = stage.origin()
    nginx = stage.nginx(main=MAIN, http=CHANGED, location=SET + PASS)
    client = nginx.connect()
    sent = http1.chunked(*[body] if body else []) if lines else body
    for _ in range(2):
        client.send(http1.request("POST", "/", *lines, body=sent))
        assert client.read_response().status == 200
    for request in origin.requests:
        assert request.header("X-Set") == "changed"
        assert request.body == body
    assert len(origin.requests) == 2


def test_timeouts_of_one_request_are_not_those_of_others(stage):
    def script(conn):
        for request in conn.each_request():
            if request.target == "/slow":
                gate.wait()
            conn.respond()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(main=MAIN, http=balanced("""
        if ngx.var.arg_short then
            assert(balancer.set_timeouts(1, 1, 1))
            assert(balancer.recreate_request())
            assert(balancer.set_timeouts(0.05, 0.05, 0.05))
        end
    """), location=PASS)
    assert nginx.get("/?short=1").status == 200
    client = nginx.connect()
    client.send(http1.request("GET", "/slow"))
    stage.wait_until(lambda: origin.requests[-1].target == "/slow")
    stage.let_pass(0.2)
    gate.open()
    assert client.read_response().status == 200


@pytest.mark.parametrize("location", [
    PASS, """proxy_pass http://app; proxy_http_version 1.1;
             proxy_set_header Connection "";"""],
    ids=["myproxy", "proxy"])
def test_settings_of_one_request_open_no_connections(stage, location):
    """The balancer has put a copy of them in their place, which ends with the
    request; what is warm was opened with the location's."""
    origin = stage.origin()
    nginx = stage.nginx(
        main=MAIN, location=location,
        http=balanced("assert(balancer.set_timeouts(1, 1, 1))"))
    for number in range(3):
        assert nginx.get(f"/{number}").status == 200
    stage.wait_until(lambda: idle(nginx) >= 2)
    first = list(origin.conns)
    for conn in first:
        conn.half_close()
    stage.wait_until(lambda: all(conn.closed for conn in first))
    stage.wait_until(lambda: idle(nginx) >= 2)
    assert nginx.get("/").status == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_servers_that_the_upstream_does_not_have_are_not_drained(
        stage, workers):
    """As with the usual "server 0.0.0.1; # just a place holder"."""
    origin = stage.origin()
    http = balanced().replace("%{origin};", "0.0.0.1;")
    http = http.replace("reuse_warm 2;", "")
    nginx = stage.nginx(main=MAIN, http=http, location=PASS, workers=workers)
    assert nginx.get().status == 200
    stage.let_pass(1.5)
    assert idle(nginx) == 1
    if workers == 2:
        nginx.reload()
        stage.let_pass(1.5)
    assert nginx.get().status == 200
    assert origin.connections == 1
