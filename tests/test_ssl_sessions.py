"""TLS sessions with the origin."""

import os
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from harness import http1, tls
from harness.secured import (
    APP, CLOSING, Chain, NAME, PASS, TRUST, asking, pem, revocation_list,
    subject)


def versions(test):
    return pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2,
                                               ssl.TLSVersion.TLSv1_3],
                                   ids=["TLS 1.2", "TLS 1.3"])(test)


def closing_origin(stage, authority, maximum=None, **more):
    return stage.origin(CLOSING, tls=tls.Server(
        authority.issue(NAME), maximum=maximum, **more))


def resumed(origin):
    return [conn.session_reused for conn in origin.conns]


@versions
def test_sessions_are_resumed(stage, authority, maximum):
    origin = closing_origin(stage, authority, maximum)
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    for _ in range(3):
        assert nginx.get().status == 200
    assert resumed(origin) == [False, True, True]


@versions
def test_sessions_are_resumed_for_an_address(stage, authority, maximum):
    origin = closing_origin(stage, authority, maximum)
    nginx = stage.nginx(location="myproxy_pass https://%{origin};" + TRUST
                        + "myproxy_ssl_name origin.test;")
    for _ in range(2):
        assert nginx.get().status == 200
    assert resumed(origin) == [False, True]


@versions
def test_sessions_are_resumed_in_an_upstream_with_a_zone(stage, authority,
                                                         maximum):
    origin = closing_origin(stage, authority, maximum)
    nginx = stage.nginx(
        http="upstream origin.test { zone app 64k; server %{origin}; }",
        location=PASS + TRUST)
    for _ in range(2):
        assert nginx.get().status == 200
    assert resumed(origin) == [False, True]


@versions
def test_sessions_are_not_resumed_when_switched_off(stage, authority,
                                                    maximum):
    origin = closing_origin(stage, authority, maximum)
    nginx = stage.nginx(
        http=APP,
        location=PASS + TRUST + "myproxy_ssl_session_reuse off;")
    for _ in range(2):
        assert nginx.get().status == 200
    assert resumed(origin) == [False, False]


def test_a_session_that_the_origin_has_forgotten(stage, authority):
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    assert nginx.get().status == 200
    origin.tls = tls.Server(authority.issue(NAME))
    assert nginx.get().status == 200
    assert resumed(origin) == [False, False]


def test_a_failed_verification_leaves_no_session(stage):
    origin = stage.origin(CLOSING, tls="elsewhere.test")
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    for _ in range(2):
        assert nginx.get().status == 502
    assert origin.requests == []


@pytest.mark.parametrize("wrong", ["time", "name"])
@versions
def test_a_certificate_that_is_renewed(stage, authority, maximum, wrong):
    server = tls.Server(authority.issue(NAME, expired=True) if wrong == "time"
                        else authority.issue("elsewhere.test"),
                        maximum=maximum)
    stage.origin(CLOSING, tls=server)
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    assert nginx.get().status == 502
    renewed = authority.issue(NAME)
    server.context.load_cert_chain(renewed.cert_path, renewed.key_path)
    assert nginx.get().status == 200


def test_sessions_of_the_stock_proxy_do_no_harm(stage, authority):
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, server=f"""
        location /stock {{
            proxy_pass https://origin.test;
            proxy_ssl_server_name on;
        }}
        location /my {{ {PASS} {TRUST} }}
    """)
    for target in ("/stock", "/my", "/stock", "/my"):
        assert nginx.get(target).status == 200
    assert origin.connections == 4


@versions
def test_locations_with_the_same_settings_share_sessions(stage, authority,
                                                         maximum):
    origin = closing_origin(stage, authority, maximum)
    nginx = stage.nginx(http=APP, server=f"""
        location /one {{ {PASS} {TRUST} }}
        location /two {{ {PASS} {TRUST} }}
    """)
    assert nginx.get("/one").status == 200
    assert nginx.get("/two").status == 200
    assert resumed(origin) == [False, True]


def test_locations_with_other_settings_do_not_break(stage, authority):
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, server=f"""
        location /one {{ {PASS} myproxy_ssl_verify off; }}
        location /two {{ {PASS} {TRUST} }}
    """)
    for target in ("/one", "/two", "/one", "/two"):
        assert nginx.get(target).status == 200
    assert origin.connections == 4


def test_a_location_is_verified_though_another_is_not(stage, authority):
    """Nothing else differs, and the CA is needed by one of them only."""
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, server=f"""
        {TRUST}
        location /one {{ {PASS} myproxy_ssl_verify off; }}
        location /two {{ {PASS} }}
    """)
    for target in ("/one", "/two"):
        assert nginx.get(target).status == 200
    assert origin.connections == 2


def test_a_session_does_not_stand_for_another_ca(stage, authority, tmp_path):
    origin = closing_origin(stage, authority)
    other = tls.Authority(tmp_path, "Other CA")
    nginx = stage.nginx(http=APP, server=f"""
        location /one {{ {PASS} {TRUST} }}
        location /two {{
            {PASS}
            myproxy_ssl_trusted_certificate {other.path};
        }}
    """)
    assert nginx.get("/one").status == 200
    assert nginx.get("/two").status == 502
    assert len(origin.requests) == 1


def test_a_session_does_not_stand_for_verification(stage, authority):
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, server=f"""
        location /one {{ {PASS} myproxy_ssl_verify off; }}
        location /two {{ {PASS} }}
    """)
    assert nginx.get("/one").status == 200
    assert nginx.get("/two").status == 502
    assert len(origin.requests) == 1


@versions
def test_a_session_does_not_stand_for_a_name_of_the_same_hash(
        stage, authority, maximum):
    """What is known of a connection has a hash, which is not relied upon."""
    origin = closing_origin(stage, authority, maximum)
    nginx = stage.nginx(http=APP, location=PASS + """
        myproxy_ssl_verify off;
        myproxy_ssl_name $arg_name;
        myproxy_ssl_server_name on;
    """)
    names = ["afchda.test", "ajehad.test", "ajehad.test"]
    for name in names:
        assert nginx.get(f"/?name={name}").status == 200
    assert [conn.sni for conn in origin.conns] == names
    assert resumed(origin) == [False, False, True]


def test_a_session_does_not_stand_for_another_certificate(
        stage, authority, asking, tmp_path):
    for name in ("one", "two"):
        own = authority.issue(f"{name}.test")
        os.symlink(own.cert_path, tmp_path / f"{name}.crt")
        os.symlink(own.key_path, tmp_path / f"{name}.key")
    nginx = stage.nginx(http=APP, location=PASS + TRUST + f"""
        myproxy_ssl_certificate {tmp_path}/$arg_name.crt;
        myproxy_ssl_certificate_key {tmp_path}/$arg_name.key;
    """)
    for name in ("one", "two", "one"):
        assert nginx.get(f"/?name={name}").status == 200
    assert [subject(conn) for conn in asking.conns] == [
        "one.test", "two.test", "one.test"]


def test_a_location_has_its_own_revocation_list(stage, authority, tmp_path):
    certificate = authority.issue(NAME)
    path = revocation_list(authority, tmp_path / "crl", certificate)
    stage.origin(CLOSING, tls=tls.Server(certificate))
    nginx = stage.nginx(http=APP, server=f"""
        {TRUST}
        location /one {{ {PASS} }}
        location /two {{ {PASS} myproxy_ssl_crl {path}; }}
    """)
    assert nginx.get("/one").status == 200
    assert nginx.get("/two").status == 502


def test_a_location_has_its_own_depth(stage, tmp_path):
    chain = Chain(tmp_path, 2)
    stage.origin(CLOSING, tls=tls.Server(chain.certificate))
    nginx = stage.nginx(http=APP, server=f"""
        myproxy_ssl_trusted_certificate {chain.root};
        location /one {{ {PASS} }}
        location /two {{ {PASS} myproxy_ssl_verify_depth 1; }}
    """)
    assert nginx.get("/one").status == 200
    assert nginx.get("/two").status == 502


@pytest.mark.parametrize("lines", [
    "myproxy_ssl_ciphers ECDHE-ECDSA-{};",
    "myproxy_ssl_conf_command CipherString ECDHE-ECDSA-{};"])
def test_a_location_has_its_own_ciphers(stage, lines):
    def script(conn):
        cipher = conn.sock.cipher()[0]
        conn.serve(lambda _: http1.response(200, "Connection: close",
                                            body=cipher.encode()))

    stage.origin(script, tls=NAME)
    ciphers = ["AES256-GCM-SHA384", "CHACHA20-POLY1305"]
    nginx = stage.nginx(
        http=APP, server=TRUST + "myproxy_ssl_protocols TLSv1.2;" + "".join(
            f"location /{cipher} {{ {PASS} {lines.format(cipher)} }}"
            for cipher in ciphers))
    for cipher in ciphers:
        assert nginx.get(f"/{cipher}").body == f"ECDHE-ECDSA-{cipher}".encode()


def test_a_location_has_its_own_certificate(stage, authority, asking,
                                            tmp_path):
    """Also where two are of one key, as after a renewal."""
    own = authority.issue("client.test")
    renewed = pem(tmp_path / "renewed.crt", (
        x509.CertificateBuilder()
        .subject_name(x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, "renewed.test")]))
        .issuer_name(authority.ca.cert.subject)
        .public_key(own.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(own.cert.not_valid_before)
        .not_valid_after(own.cert.not_valid_after)
        .sign(authority.ca.key, hashes.SHA256())))
    nginx = stage.nginx(http=APP, server=f"""
        {TRUST}
        myproxy_ssl_certificate_key {own.key_path};
        location /one {{ {PASS} myproxy_ssl_certificate {own.cert_path}; }}
        location /two {{ {PASS} myproxy_ssl_certificate {renewed}; }}
    """)
    assert nginx.get("/one").status == 200
    assert nginx.get("/two").status == 200
    assert [subject(conn) for conn in asking.conns] == ["client.test",
                                                        "renewed.test"]


def test_a_location_resumes_sessions_though_another_does_not(stage,
                                                             authority):
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, server=f"""
        {TRUST}
        location /one {{ {PASS} myproxy_ssl_session_reuse off; }}
        location /two {{ {PASS} }}
    """)
    for target in ("/one", "/two", "/one", "/two"):
        assert nginx.get(target).status == 200
    assert resumed(origin) == [False, False, False, True]


def test_locations_with_other_protocols_do_not_break(stage, authority):
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, server=f"""
        {TRUST}
        location /one {{ {PASS} myproxy_ssl_protocols TLSv1.2; }}
        location /two {{ {PASS} myproxy_ssl_protocols TLSv1.3; }}
    """)
    for target in ("/one", "/two", "/one", "/two"):
        assert nginx.get(target).status == 200
    assert [conn.tls_version
            for conn in origin.conns] == ["TLSv1.2", "TLSv1.3"] * 2
