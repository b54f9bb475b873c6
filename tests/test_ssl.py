"""TLS to the origin: whom it trusts, what it says, what it resumes."""

import os
import shutil
import socket
import ssl

import pytest

from harness import http1, settings, tls
from harness.nginx import version
from harness.secured import (
    APP, NAME, PASS, TRUST, ask, asking, encrypted, subject)


# https by variables

@pytest.mark.parametrize("location", [
    "set $name origin.test; myproxy_pass https://$name;",
    "set $scheme_of_it https; myproxy_pass $scheme_of_it://origin.test;",
    "set $url https://origin.test; myproxy_pass $url;",
])
def test_variables(stage, location):
    origin = stage.origin(tls=NAME)
    nginx = stage.nginx(http=APP, location=location + TRUST)
    for _ in range(2):
        assert nginx.get("/x").status == 200
    assert origin.conns[0].sni == NAME
    assert origin.carried == [2]


def test_variables_are_verified(stage):
    origin = stage.origin(tls="elsewhere.test")
    status, nginx = ask(
        stage, "set $name origin.test; myproxy_pass https://$name;" + TRUST)
    assert status == 502
    assert nginx.logged("does not match")
    assert origin.requests == []


def test_variables_are_verified_against_the_systems_store(stage):
    stage.origin(tls=NAME)
    status, nginx = ask(
        stage, "set $name origin.test; myproxy_pass https://$name;")
    assert status == 502
    assert nginx.logged("certificate verify error")


def test_variables_choose_between_http_and_https(stage):
    secure = stage.origin(name="secure", tls=NAME)
    plain = stage.origin(name="plain")
    nginx = stage.nginx(
        http="""
            upstream origin.test { server %{secure}; }
            upstream plain { server %{plain}; }
        """,
        location="myproxy_pass $arg_url;" + TRUST)
    for _ in range(2):
        assert nginx.get("/?url=https://origin.test").status == 200
        assert nginx.get("/?url=http://plain").status == 200
    assert (secure.carried, plain.carried) == ([2], [2])


def test_a_name_that_is_resolved_is_verified(stage):
    stage.dns({NAME: ["127.0.0.1"]})
    origin = stage.origin(tls="elsewhere.test")
    nginx = stage.nginx(location="""
        resolver %{dns} ipv6=off;
        set $name origin.test;
        myproxy_pass https://$name:%{origin.port};
    """ + TRUST)
    assert nginx.get().status == 502
    assert nginx.logged('does not match "origin.test"')
    assert origin.requests == []


# the client's own certificate

def test_a_certificate_is_demanded_and_there_is_none(stage, asking):
    status, nginx = ask(stage)
    assert status in (400, 502)
    assert asking.requests == []


def test_a_certificate(stage, authority, asking):
    own = authority.issue("client.test")
    status, _ = ask(stage, PASS + TRUST + f"""
        myproxy_ssl_certificate {own.cert_path};
        myproxy_ssl_certificate_key {own.key_path};
    """)
    assert status == 200
    assert subject(asking.conns[0]) == "client.test"


def test_a_certificate_and_key_in_one_file(stage, authority, asking,
                                           tmp_path):
    own = authority.issue("client.test")
    path = tmp_path / "both.pem"
    with open(own.cert_path, "rb") as cert, open(own.key_path, "rb") as key:
        path.write_bytes(cert.read() + key.read())
    status, _ = ask(stage, PASS + TRUST + f"""
        myproxy_ssl_certificate {path};
        myproxy_ssl_certificate_key {path};
    """)
    assert status == 200


def test_certificates_with_variables(stage, authority, asking, tmp_path):
    for name in ("one", "two"):
        own = authority.issue(f"{name}.test")
        os.symlink(own.cert_path, tmp_path / f"{name}.crt")
        os.symlink(own.key_path, tmp_path / f"{name}.key")
    nginx = stage.nginx(http=APP, location=PASS + TRUST + f"""
        myproxy_ssl_certificate {tmp_path}/$arg_name.crt;
        myproxy_ssl_certificate_key {tmp_path}/$arg_name.key;
        myproxy_ssl_session_reuse off;
    """)
    for name in ("one", "two"):
        assert nginx.get(f"/?name={name}").status == 200
    assert [subject(conn) for conn in asking.conns] == ["one.test",
                                                        "two.test"]


def test_each_location_has_its_own_certificate(stage, authority, asking,
                                               tmp_path):
    def using(path):
        return f"""
            myproxy_ssl_certificate {tmp_path}/{path}.crt;
            myproxy_ssl_certificate_key {tmp_path}/{path}.key;
        """

    for name in ("one", "two"):
        own = authority.issue(f"{name}.test")
        os.symlink(own.cert_path, tmp_path / f"{name}.crt")
        os.symlink(own.key_path, tmp_path / f"{name}.key")
    nginx = stage.nginx(http=APP, server=TRUST + f"""
        location /a {{ {PASS} {using("one")} }}
        location /b {{ {PASS} {using("$arg_name")} }}
        location /c {{ {PASS} }}
        location /d {{ {PASS} {using("two")} }}
        location /e {{ {PASS} {using("$arg_name")} }}
        location /f {{ {PASS} {using("one")} }}
    """)
    for target in ("/a", "/b?name=two", "/d", "/e?name=one", "/f"):
        assert nginx.get(target).status == 200
    assert [subject(conn)[:3] for conn in asking.conns] == [
        "one", "two", "two", "one", "one"]
    assert nginx.get("/c").status in (400, 502)
    assert len(asking.requests) == 5


@pytest.mark.skipif(version() < (1, 27, 4),
                    reason="this nginx caches no certificates")
@pytest.mark.parametrize("lines, second", [
    ("", "two.test"),
    ("myproxy_ssl_certificate_cache off;", "two.test"),
    ("myproxy_ssl_certificate_cache max=10 valid=1h;", "one.test")],
    ids=["default", "off", "on"])
def test_a_certificate_with_variables_is_cached(stage, authority, asking,
                                                tmp_path, lines, second):
    nginx = stage.nginx(http=APP, location=PASS + TRUST + lines + f"""
        myproxy_ssl_certificate {tmp_path}/$arg_name.crt;
        myproxy_ssl_certificate_key {tmp_path}/$arg_name.key;
        myproxy_ssl_session_reuse off;
    """)
    for name in ("one", "two"):
        own = authority.issue(f"{name}.test")
        shutil.copy(own.cert_path, tmp_path / "client.crt")
        shutil.copy(own.key_path, tmp_path / "client.key")
        assert nginx.get("/?name=client").status == 200
    assert [subject(conn) for conn in asking.conns] == ["one.test", second]


def test_a_certificate_that_is_not_there_at_run_time(stage, asking,
                                                     tmp_path):
    status, nginx = ask(stage, PASS + TRUST + f"""
        myproxy_ssl_certificate {tmp_path}/$arg_name.crt;
        myproxy_ssl_certificate_key {tmp_path}/$arg_name.key;
    """)
    assert status in (500, 502)
    assert nginx.logged("cannot load certificate")


def test_an_empty_variable_is_no_certificate(stage, authority):
    origin = stage.origin(tls=tls.Server(
        authority.issue(NAME), client_ca=authority.path, optional=True))
    status, _ = ask(stage, PASS + TRUST + """
        myproxy_ssl_certificate $arg_name;
        myproxy_ssl_certificate_key $arg_name;
    """)
    assert status == 200
    assert origin.conns[0].client_certificate is None


@pytest.mark.parametrize("variable", [False, True],
                         ids=["constant", "variable"])
def test_an_encrypted_key(stage, authority, asking, tmp_path, variable):
    own = authority.issue("client.test")
    encrypted(own, tmp_path / "client.key", b"open sesame")
    passwords = tmp_path / "passwords"
    passwords.write_text("wrong\nopen sesame\n", encoding="ascii")
    name = "$arg_name" if variable else "client"
    nginx = stage.nginx(http=APP, location=PASS + TRUST + f"""
        myproxy_ssl_certificate {own.cert_path};
        myproxy_ssl_certificate_key {tmp_path}/{name}.key;
        myproxy_ssl_password_file {passwords};
    """)
    assert nginx.get("/?name=client").status == 200
    assert subject(asking.conns[0]) == "client.test"


def test_two_locations_with_one_encrypted_key(stage, authority, asking,
                                              tmp_path):
    own = authority.issue("client.test")
    encrypted(own, tmp_path / "client.key", b"open sesame")
    passwords = tmp_path / "passwords"
    passwords.write_text("open sesame\n", encoding="ascii")
    nginx = stage.nginx(http=APP, server=f"""
        myproxy_ssl_certificate {own.cert_path};
        myproxy_ssl_certificate_key {tmp_path}/$arg_name.key;
        myproxy_ssl_password_file {passwords};
        {TRUST}
        location /one {{ {PASS} }}
        location /two {{ {PASS} }}
    """)
    assert nginx.get("/one?name=client").status == 200
    assert nginx.get("/two?name=client").status == 200


# protocols and ciphers

@pytest.mark.parametrize("lines, spoken", [
    ("", "TLSv1.3"),
    ("myproxy_ssl_protocols TLSv1.2;", "TLSv1.2"),
    ("myproxy_ssl_protocols TLSv1.3;", "TLSv1.3"),
    ("myproxy_ssl_protocols TLSv1.2 TLSv1.3;", "TLSv1.3"),
    ("myproxy_ssl_conf_command MaxProtocol TLSv1.2;", "TLSv1.2"),
])
def test_protocols(stage, lines, spoken):
    origin = stage.origin(tls=NAME)
    status, _ = ask(stage, PASS + TRUST + lines)
    assert status == 200
    assert origin.conns[0].tls_version == spoken


def test_a_protocol_that_the_origin_does_not_speak(stage, authority):
    stage.origin(tls=tls.Server(authority.issue(NAME),
                                maximum=ssl.TLSVersion.TLSv1_2))
    status, nginx = ask(stage,
                        PASS + TRUST + "myproxy_ssl_protocols TLSv1.3;")
    assert status == 502
    assert nginx.logged(r"SSL_do_handshake\(\) failed")


@pytest.mark.parametrize("lines, cipher", [
    ("myproxy_ssl_protocols TLSv1.2;"
     "myproxy_ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;",
     "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ("myproxy_ssl_protocols TLSv1.2;"
     "myproxy_ssl_ciphers ECDHE-ECDSA-CHACHA20-POLY1305;",
     "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ("myproxy_ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256;",
     "TLS_CHACHA20_POLY1305_SHA256"),
    ("myproxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;",
     "TLS_AES_128_GCM_SHA256"),
])
def test_ciphers(stage, lines, cipher):
    ciphers = []

    def script(conn):
        ciphers.append(conn.sock.cipher()[0])
        conn.serve()

    stage.origin(script, tls=NAME)
    status, _ = ask(stage, PASS + TRUST + lines)
    assert status == 200
    assert ciphers == [cipher]


# connections

def test_many_requests_take_one_handshake(stage):
    origin = stage.origin(tls=NAME)
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    for _ in range(10):
        assert nginx.get().status == 200
    assert origin.carried == [10]


def test_large_bodies_over_tls(stage):
    body = os.urandom(1000000)
    origin = stage.origin(http1.response(body=body), tls=NAME)
    client = stage.nginx(http=APP, server="client_max_body_size 0;",
                         location=PASS + TRUST).connect()
    for _ in range(2):
        assert client.post("/", body).body == body
    assert [request.body == body for request in origin.requests] == [True] * 2
    assert origin.carried == [2]


def test_an_origin_that_has_closed_its_tls_connection(stage):
    origin = stage.origin(
        lambda conn: (conn.read_request(), conn.respond()), tls=NAME)
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    assert nginx.get().status == 200
    stage.wait_until(lambda: origin.conns[0].closed)
    assert nginx.get().status == 200
    assert origin.carried == [1, 1]


def test_an_origin_that_shuts_tls_down_in_the_response(stage):
    def script(conn):
        conn.read_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    stage.origin(script, tls=NAME)
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    response = client.read_response_head()
    assert response.header("Content-Length") == "10"
    assert client.read_until_close() == b"half"


# an attacker on the way speaks first, in clear

INJECTED = http1.response(body=b"injected")


def test_a_response_in_clear_upon_accept(stage):
    stage.origin(lambda conn: (conn.send(INJECTED), conn.wait_for_close()))
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    response = nginx.get()
    assert response.status == 502
    assert b"injected" not in response.body


@pytest.mark.parametrize("lines", [TRUST, "myproxy_ssl_verify off;"],
                         ids=["verified", "not verified"])
def test_a_response_in_clear_before_nginx_sees_the_connection(stage, lines):
    """The connection is there and so is the response, both at once.

    The queue of the origin is full, so that nginx's connection is not
    made before nginx has been stopped.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        listener.settimeout(settings.PATIENCE)
        host, port = listener.getsockname()
        plug = socket.create_connection((host, port))
        nginx = stage.nginx(
            http=f"upstream origin.test {{ server {host}:{port}; }}",
            location=PASS + lines)
        worker, = nginx.workers()
        client = nginx.connect()
        client.send(http1.request("GET", "/"))
        stage.wait_until(lambda: connecting(port))
        nginx.pause_worker(worker)
        try:
            plug.close()
            listener.accept()[0].close()
            wire, _ = listener.accept()
            wire.sendall(INJECTED)
        finally:
            nginx.resume_worker(worker)
        with wire:
            response = client.read_response()
    assert response.status == 502
    assert b"injected" not in response.body


def connecting(port):
    """Has a connection to that port been asked for and not been made?"""
    with open("/proc/net/tcp", encoding="ascii") as file:
        return any(line.split()[2:4] == [f"0100007F:{port:04X}", "02"]
                   for line in file)
