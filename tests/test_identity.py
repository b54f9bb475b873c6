"""Whom a kept connection may serve."""

import os

import pytest

from harness import http1, tls
from harness.nginx import version

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
    assert len(origin.conns[0].requests) == 2


# identities side by side: each has connections of its own

TLS_PASS = """
    myproxy_pass https://%{origin};
    myproxy_ssl_trusted_certificate %{authority.path};
"""


def turns(nginx, *targets, count=3):
    for _ in range(count):
        for target in targets:
            assert nginx.get(target).status == 200


def test_two_local_addresses_in_turn(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + "myproxy_bind 127.0.0.$arg_n;")
    turns(nginx, "/?n=2", "/?n=3")
    assert origin.carried == [3, 3]


@pytest.mark.skipif(version() >= (1, 29, 7), reason="nginx has its own pool")
@pytest.mark.parametrize("zone", ["", "zone app 64k;"])
def test_local_addresses_and_several_servers(stage, zone):
    origins = [stage.origin(name=name) for name in ("one", "two")]
    nginx = stage.nginx(
        http=f"upstream app {{ {zone} server %{{one}}; server %{{two}}; }}",
        location="myproxy_pass http://app; myproxy_bind 127.0.0.$arg_n;")
    for number in (2, 2, 3, 3) * 4:
        assert nginx.get(f"/?n={number}").status == 200
    assert [origin.carried for origin in origins] == [[4, 4], [4, 4]]


@pytest.mark.parametrize("family", ["ipv4", "unix"])
def test_two_names_of_one_address_in_turn(stage, authority, family):
    certificate = authority.issue("one.test", "two.test")
    origin = stage.origin(tls=tls.Server(certificate), family=family)
    nginx = stage.nginx(location=TLS_PASS + "myproxy_ssl_name $arg_name;")
    turns(nginx, "/?name=one.test", "/?name=two.test")
    assert origin.carried == [3, 3]
    assert [conn.sni for conn in origin.conns] == ["one.test", "two.test"]


def test_two_client_certificates_in_turn(stage, authority, tmp_path):
    for name in ("one", "two"):
        own = authority.issue(f"{name}.test")
        os.symlink(own.cert_path, tmp_path / f"{name}.crt")
        os.symlink(own.key_path, tmp_path / f"{name}.key")
    origin = stage.origin(tls=tls.Server(authority.issue("localhost"),
                                         client_ca=authority.path))
    nginx = stage.nginx(location=TLS_PASS + f"""
        myproxy_ssl_name localhost;
        myproxy_ssl_certificate {tmp_path}/$arg_name.crt;
        myproxy_ssl_certificate_key {tmp_path}/$arg_name.key;
    """)
    turns(nginx, "/?name=one", "/?name=two")
    assert origin.carried == [3, 3]
    names = [dict(pair for part in conn.client_certificate["subject"]
                  for pair in part)["commonName"] for conn in origin.conns]
    assert names == ["one.test", "two.test"]


@pytest.mark.parametrize("block", [False, True], ids=["address", "upstream"])
def test_verified_and_not_verified_in_turn(stage, authority, block):
    """The second location may use none that the first has not verified."""
    origin = stage.origin(tls="other.test")
    target = "app" if block else "%{origin}"
    nginx = stage.nginx(
        http="upstream app { server %{origin}; }",
        server=f"""
            myproxy_ssl_trusted_certificate %{{authority.path}};
            location /open {{
                myproxy_pass https://{target};
                myproxy_ssl_verify off;
            }}
            location /other {{
                myproxy_pass https://{target};
                myproxy_ssl_name other.test;
            }}
            location /wrong {{
                myproxy_pass https://{target};
                myproxy_ssl_name wrong.test;
            }}
        """)
    for _ in range(3):
        assert nginx.get("/open").status == 200
        assert nginx.get("/wrong").status == 502
        assert nginx.get("/other").status == 200
    assert [count for count in origin.carried if count] == [3, 3]


def test_plain_and_tls_side_by_side(stage, authority):
    """In one upstream, whose server speaks both."""
    server = tls.Server(authority.issue("app.test"))

    def script(conn):
        conn.sock.settimeout(10)
        if conn.sock.recv(1, 2) == b"\x16":   # peek
            conn.sock = server.wrap(conn)
        conn.serve()

    origin = stage.origin(script)
    nginx = stage.nginx(
        http="upstream app { server %{origin}; }",
        server="""
            location /plain { myproxy_pass http://app; }
            location /tls {
                myproxy_pass https://app;
                myproxy_ssl_verify off;
            }
        """)
    turns(nginx, "/plain", "/tls")
    assert origin.carried == [3, 3]


def test_with_the_operators_own_keepalive(stage, authority):
    """nginx's pool is then looked into by address alone: one that does not
    fit is closed."""
    certificate = authority.issue("one.test", "two.test")
    origin = stage.origin(tls=tls.Server(certificate))
    nginx = stage.nginx(
        http="upstream app { server %{origin}; keepalive 8; }",
        location="""
            myproxy_pass https://app;
            myproxy_ssl_trusted_certificate %{authority.path};
            myproxy_ssl_name $arg_name;
        """)
    turns(nginx, "/?name=one.test", "/?name=two.test", count=2)
    assert [conn.sni for conn in origin.conns] == ["one.test", "two.test"] * 2
    assert origin.carried == [1] * 4
