"""What a level takes over from the one above it."""

import re

import pytest

from harness import http1
from harness.written import LEVELS, PASS


def silent(conn):
    conn.read_request()
    conn.wait_for_close()


def request_field(name):
    return lambda origin, response: origin.requests[-1].header(name)


def response_field(name):
    return lambda origin, response: response.header(name)


def status(origin, response):
    return response.status


#: A line, another that an inner level has instead, what the origin says,
#: what to look at, and what is seen with each of the two and with none.
SAMPLES = {
    "set_header": (
        "myproxy_set_header X-A outer;", "myproxy_set_header X-A inner;",
        None, request_field("X-A"), "outer", "inner", None),
    "method": (
        "myproxy_method PUT;", "myproxy_method POST;", None,
        lambda origin, response: origin.requests[-1].method,
        "PUT", "POST", "GET"),
    "set_body": (
        "myproxy_set_body outer;", "myproxy_set_body inner;", None,
        lambda origin, response: origin.requests[-1].body,
        b"outer", b"inner", b""),
    "upgrade": (
        "myproxy_upgrade foo;", "myproxy_upgrade off;", None,
        request_field("Upgrade"), "foo", None, None),
    "pass_request_headers": (
        "myproxy_pass_request_headers off;",
        "myproxy_pass_request_headers on;", None,
        request_field("X-Client"), None, "1", "1"),
    "hide_header": (
        "myproxy_hide_header X-One;", "myproxy_hide_header X-Two;",
        http1.response(200, "X-One: 1", "X-Two: 2"),
        lambda origin, response: (response.header("X-One"),
                                  response.header("X-Two")),
        (None, "2"), ("1", None), ("1", "2")),
    "pass_header": (
        "myproxy_pass_header X-Pad;", "myproxy_pass_header X-Other;",
        http1.response(200, "X-Pad: 1"), response_field("X-Pad"),
        "1", None, None),
    "ignore_headers": (
        "myproxy_ignore_headers X-Accel-Redirect;",
        "myproxy_ignore_headers X-Accel-Expires;",
        http1.response(200, "X-Accel-Redirect: /else"), status,
        200, 204, 204),
    "redirect": (
        "myproxy_redirect http://a/ /outer/;",
        "myproxy_redirect http://a/ /inner/;",
        http1.response(302, "Location: http://a/x"),
        lambda origin, response: re.sub(
            r"^http://[^/]*/(?=inner|outer)", "/",
            response.header("Location")),
        "/outer/x", "/inner/x", "http://a/x"),
    "cookie_path": (
        "myproxy_cookie_path / /outer/;", "myproxy_cookie_path off;",
        http1.response(200, "Set-Cookie: a=b; path=/"),
        response_field("Set-Cookie"),
        "a=b; path=/outer/", "a=b; path=/", "a=b; path=/"),
    "cookie_domain": (
        "myproxy_cookie_domain a.test b.test;",
        "myproxy_cookie_domain a.test c.test;",
        http1.response(200, "Set-Cookie: a=b; domain=a.test"),
        response_field("Set-Cookie"),
        "a=b; domain=b.test", "a=b; domain=c.test", "a=b; domain=a.test"),
    "cookie_flags": (
        "myproxy_cookie_flags a secure;", "myproxy_cookie_flags off;",
        http1.response(200, "Set-Cookie: a=b"),
        response_field("Set-Cookie"), "a=b; Secure", "a=b", "a=b"),
    "intercept_errors": (
        "myproxy_intercept_errors on;", "myproxy_intercept_errors off;",
        http1.response(503), status, 204, 503, 503),
    "force_ranges": (
        "myproxy_force_ranges on;", "myproxy_force_ranges off;",
        http1.response(200, body=b"0123456789"), status, 206, 200, 200),
    "next_upstream": (
        "myproxy_next_upstream http_503;", "myproxy_next_upstream off;",
        http1.response(503), status, 200, 503, 503),
    "bind": (
        "myproxy_bind 127.0.0.2;", "myproxy_bind off;", None,
        lambda origin, response: origin.conns[-1].peer, "127.0.0.2",
        "127.0.0.1", "127.0.0.1"),
}


def played(answer):
    """An origin's script that also notes where the connection is from."""
    def script(conn):
        conn.peer = conn.sock.getpeername()[0]
        conn.serve(answer)
    return script


def look(stage, sample, **config):
    """What is seen with a configuration."""
    _, _, answer, see, *_ = sample
    origin = stage.origin(played(answer))
    stage.origin(name="second")
    config["http"] = """
        upstream app { server %{origin}; server %{second} backup; }
        error_page 503 =204 /else;
    """ + config.get("http", "")
    config["server"] = """
        location = /else { return 204; }
    """ + config.get("server", "")
    config["location"] = """
        myproxy_pass http://app;
    """ + config.get("location", "")
    nginx = stage.nginx(**config)
    response = nginx.get("/", "X-Client: 1", "Upgrade: foo",
                         "Connection: Upgrade", "Range: bytes=0-1")
    return see(origin, response)


def samples(test):
    return pytest.mark.parametrize("sample", SAMPLES.values(),
                                   ids=SAMPLES)(test)


@samples
def test_nothing_to_inherit(stage, sample):
    assert look(stage, sample) == sample[6]


@samples
@pytest.mark.parametrize("level", LEVELS)
def test_a_line_is_inherited(stage, level, sample):
    assert look(stage, sample, **{level: sample[0]}) == sample[4]


@samples
@pytest.mark.parametrize("outer, inner", [
    ("http", "server"), ("http", "location"), ("server", "location")])
def test_a_line_is_replaced(stage, outer, inner, sample):
    seen = look(stage, sample, **{outer: sample[0], inner: sample[1]})
    assert seen == sample[5]


@pytest.mark.parametrize("level", LEVELS)
def test_a_timeout_is_inherited(stage, level):
    stage.origin(silent)
    config = {"location": PASS}
    config[level] = config.get(level, "") + "myproxy_read_timeout 50ms;"
    assert stage.nginx(**config).get().status == 504


def test_a_timeout_is_replaced(stage):
    def script(conn):
        conn.read_request()
        gate.wait()
        conn.respond()

    origin = stage.origin(script, name="late")
    gate = origin.gate()
    stage.origin(silent, name="silent")
    nginx = stage.nginx(
        http="myproxy_read_timeout 100ms;",
        server="""
            location /late {
                myproxy_pass http://%{late};
                myproxy_read_timeout 60s;
            }
            location /silent { myproxy_pass http://%{silent}; }
        """)
    client = nginx.connect()
    client.send(http1.request("GET", "/late"))
    stage.wait_until(lambda: origin.requests)
    assert nginx.get("/silent").status == 504
    gate.open()
    assert client.read_response().status == 200


@pytest.mark.parametrize("level", LEVELS)
def test_verification_is_inherited(stage, level):
    stage.origin(tls="origin.test")
    config = {"http": "upstream origin.test { server %{origin}; }",
              "location": "myproxy_pass https://origin.test;"}
    config[level] = config.get(level, "") + "myproxy_ssl_verify off;"
    assert stage.nginx(**config).get().status == 200


def test_verification_is_replaced(stage):
    stage.origin(tls="origin.test")
    nginx = stage.nginx(
        http="""
            upstream origin.test { server %{origin}; }
            myproxy_ssl_verify off;
        """,
        location="""
            myproxy_pass https://origin.test;
            myproxy_ssl_verify on;
        """)
    assert nginx.get().status == 502


def test_header_lines_are_inherited_all_or_none(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http="myproxy_set_header X-A 1; myproxy_set_header X-B 2;",
        server="""
            location /all { myproxy_pass http://%{origin}; }
            location /none {
                myproxy_pass http://%{origin};
                myproxy_set_header X-C 3;
            }
        """)
    assert nginx.get("/all").status == 200
    assert nginx.get("/none").status == 200
    assert [[request.header(f"X-{name}") for name in "ABC"]
            for request in origin.requests] == [["1", "2", None],
                                                [None, None, "3"]]


def test_servers_do_not_inherit_from_each_other(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http="""
            server {
                listen 127.0.0.1:%{port.other};
                myproxy_set_header X-A 1;
                myproxy_method PUT;
                location / { myproxy_pass http://%{origin}; }
            }
        """, location=PASS)
    assert nginx.get(port="other").status == 200
    assert nginx.get().status == 200
    assert [(request.method, request.header("X-A"))
            for request in origin.requests] == [("PUT", "1"), ("GET", None)]


def test_the_stock_directives_are_not_ours(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http="proxy_set_header X-A 1; proxy_method PUT;", location=PASS)
    assert nginx.get().status == 200
    assert origin.request.method == "GET"
    assert origin.request.header("X-A") is None


def test_our_directives_are_not_the_stock_ones(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http="myproxy_set_header X-A 1; myproxy_method PUT;",
        location="proxy_pass http://%{origin};")
    assert nginx.get().status == 200
    assert origin.request.method == "GET"
    assert origin.request.header("X-A") is None
