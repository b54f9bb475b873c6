"""Whom a kept connection may serve."""

import os
import socket

import pytest

from harness import http1, tls
from harness.client import Client

PASS = "myproxy_pass http://%{origin};"

#: Of the name of a unix socket (unix(7)).
LONGEST = 107

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


def test_unix_sockets_that_differ_at_the_end(stage):
    """Their names are as long as can be, so that the pool's keys have no
    room for more."""
    origins, servers = [], ""
    for name in "ab":
        origins.append(stage.origin(name=name, family="unix"))
        path = stage.path("")
        path += (LONGEST - len(path) - 1) * "x" + name
        os.symlink(origins[-1].path, path)
        servers += f"server unix:{path};"
    nginx = stage.nginx(http=f"upstream app {{ {servers} }}",
                        location="myproxy_pass http://app;")
    for _ in range(4):
        assert nginx.get().status == 200
    assert [origin.carried for origin in origins] == [[2], [2]]


OWN = pytest.mark.parametrize("own", ["", "keepalive 8;"],
                              ids=["added", "written"])


@OWN
def test_each_request_has_its_own_local_address(stage, own):
    def script(conn):
        address = conn.sock.getpeername()[0].encode()
        conn.serve(lambda _: http1.response(body=address))

    stage.origin(script)
    nginx = stage.nginx(
        http=f"upstream app {{ server %{{origin}}; {own} }}",
        location="myproxy_pass http://app; myproxy_bind 127.0.0.$arg_n;")
    for number in (2, 3) * 3:
        assert nginx.get(f"/?n={number}").body == b"127.0.0.%d" % number


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


def test_two_names_of_an_upstream_in_turn(stage):
    """A block that says nothing, as which nginx has a pool of its own from
    1.29.7 on, which tells locations apart and no names."""
    origin = stage.origin(tls="app.test")
    nginx = stage.nginx(
        http="upstream app { server %{origin}; }",
        location="myproxy_pass https://app; myproxy_ssl_verify off;"
                 "myproxy_ssl_name $arg_name;")
    turns(nginx, "/?name=one.test", "/?name=two.test", count=10)
    assert origin.carried == [10, 10]
    assert [conn.sni for conn in origin.conns] == ["one.test", "two.test"]


@OWN
def test_two_names_of_one_hash(stage, own):
    """The pool finds connections by a hash, murmur_hash2, which may be the
    same; it is not relied upon."""
    origin = stage.origin(tls="app.test")
    nginx = stage.nginx(
        http=f"upstream app {{ server %{{origin}}; {own} }}",
        location="myproxy_pass https://app; myproxy_ssl_verify off;"
                 "myproxy_ssl_name $arg_name; myproxy_ssl_server_name on;")
    names = ["afchda.test", "ajehad.test"] * 3
    turns(nginx, *(f"/?name={name}" for name in names), count=1)
    assert origin.carried == [1] * 6
    assert [conn.sni for conn in origin.conns] == names


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


@OWN
def test_each_location_shows_its_own_certificate(stage, authority, own):
    """They are read with the configuration, and so are in the TLS context
    of each location, which differ in nothing else."""
    def script(conn):
        name, = (value for part in conn.client_certificate["subject"]
                 for key, value in part if key == "commonName")
        conn.serve(lambda _: http1.response(body=name.encode()))

    one, two = (authority.issue(name) for name in ("one.test", "two.test"))
    origin = stage.origin(script, tls=tls.Server(authority.issue("app.test"),
                                                 client_ca=authority.path))
    nginx = stage.nginx(
        http=f"upstream app {{ server %{{origin}}; {own} }}",
        server="myproxy_ssl_verify off;" + "".join(f"""
            location {target} {{
                myproxy_pass https://app;
                myproxy_ssl_certificate {certificate.cert_path};
                myproxy_ssl_certificate_key {certificate.key_path};
            }}
        """ for target, certificate in (("/one", one), ("/two", two))))
    for _ in range(3):
        assert nginx.get("/one").body == b"one.test"
        assert nginx.get("/two").body == b"two.test"
    if not own:
        assert origin.carried == [3, 3]


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


def ntlm(conn):
    """Takes three steps on one connection, and then knows the client."""
    challenged = known = False
    for request in conn.each_request():
        step = request.header("Authorization")
        known = known or challenged and step == "NTLM third"
        challenged = step == "NTLM first"
        if known:
            conn.respond(200)
        else:
            conn.respond(401, "WWW-Authenticate: NTLM"
                         + (" challenge" if challenged else ""))


STEPS = [[], ["Authorization: NTLM first"], ["Authorization: NTLM third"], []]


def test_ntlm_completes_without_a_proxy(stage):
    """The origin of the next test is one that can be satisfied."""
    origin = stage.origin(ntlm)
    with socket.create_connection(("127.0.0.1", origin.port)) as sock:
        client = Client(sock, "client", stage.exchange)
        assert [client.get("/", *step).status for step in STEPS] == [
            401, 401, 200, 200]


@pytest.mark.parametrize("lines", ["", "keepalive 4;"])
def test_ntlm_cannot_complete(stage, lines):
    """Each step finds itself on a connection that knows of none before."""
    origin = stage.origin(ntlm)
    nginx = stage.nginx(
        http="upstream app { server %{origin}; " + lines + "}",
        location="myproxy_pass http://app;")
    client = nginx.connect()
    responses = [client.get("/", *step) for step in 2 * STEPS]
    assert {response.status for response in responses} == {401}
    assert [response.header("WWW-Authenticate") for response in responses] == (
        2 * ["NTLM", "NTLM challenge", "NTLM", "NTLM"])
    assert set(origin.carried) == {1}


def test_negotiate_in_one_step_passes(stage):
    def script(conn):
        for request in conn.each_request():
            token = request.header("Authorization") == "Negotiate ticket"
            conn.respond(200 if token else 401, "WWW-Authenticate: Negotiate"
                         + (" answer" if token else ""))

    origin = stage.origin(script)
    client = stage.nginx(location="myproxy_pass http://%{origin};").connect()
    assert client.get("/").status == 401
    for _ in range(3):
        response = client.get("/", "Authorization: Negotiate ticket")
        assert response.status == 200
        assert response.header("WWW-Authenticate") == "Negotiate answer"
    assert origin.carried == [1, 1, 1, 1]


def test_the_page_says_that_ntlm_cannot_complete(stage):
    stage.origin(ntlm)
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    client = nginx.connect()
    for _ in range(100):
        assert client.get("/").status == 401
    page = nginx.get("/reuse-status?format=html", port="probe").body.decode()
    assert "cannot complete through this proxy" in page
