"""Whom a kept connection may serve."""

import pytest

from harness import http1

PASS = "myproxy_pass http://%{origin};"

SCHEMES = ["NTLM TlRMTVNTUA==", "ntlm", "Negotiate YII=", "NEGOTIATE"]
OTHERS = ["Basic YTpi", "Bearer x", "Digest a=b"]


@pytest.mark.parametrize("value", SCHEMES)
def test_a_connection_that_was_authenticated_is_not_kept(stage, value):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    nginx.get("/", f"Authorization: {value}")
    nginx.get()
    assert origin.carried == [1, 1]


@pytest.mark.parametrize("value", OTHERS)
def test_other_schemes_are_of_the_request(stage, value):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    nginx.get("/", f"Authorization: {value}")
    nginx.get()
    assert origin.carried == [2]


@pytest.mark.parametrize("values", [
    [value] for value in SCHEMES
] + [["Basic realm=x", "NTLM"], ["Negotiate", "Basic realm=x"]])
def test_a_connection_that_is_to_be_authenticated_is_not_kept(stage, values):
    origin = stage.origin(http1.response(
        401, *(f"WWW-Authenticate: {value}" for value in values)))
    nginx = stage.nginx(location=PASS)
    assert nginx.get().values("WWW-Authenticate") == values
    nginx.get()
    assert origin.carried == [1, 1]


def test_a_request_for_basic_authentication_keeps_its_connection(stage):
    origin = stage.origin(http1.response(401, "WWW-Authenticate: Basic"))
    nginx = stage.nginx(location=PASS)
    nginx.get()
    nginx.get()
    assert origin.carried == [2]


@pytest.mark.parametrize("first, second", [
    ("bind 127.0.0.2", "bind 127.0.0.3"), ("bind 127.0.0.2", "bind off")])
def test_a_connection_has_one_local_address(stage, first, second):
    origin = stage.origin()
    nginx = stage.nginx(server=f"""
        location /first {{ {PASS} myproxy_{first}; }}
        location /second {{ {PASS} myproxy_{second}; }}
    """, location="return 404;")
    nginx.get("/first")
    nginx.get("/second")
    assert origin.carried == [1, 1]


def test_plain_and_tls_are_not_the_same(stage):
    """A connection in the clear is not the beginning of one in TLS."""
    def script(conn):
        if conn.number == 2:
            assert conn.recv()[:1] == b"\x16"
        else:
            for request in conn.each_request():
                assert request.method == "GET"
                conn.respond()

    origin = stage.origin(script)
    nginx = stage.nginx(server=f"""
        location /plain {{ {PASS} }}
        location /tls {{ myproxy_pass https://%{{origin}};
                         myproxy_ssl_verify off; }}
    """, location="return 404;")
    assert nginx.get("/plain").status == 200
    assert nginx.get("/tls").status == 502
    assert nginx.get("/plain").status == 200
    assert len(origin.conns[0].requests) == 1
