"""TLS to the origin: whom it trusts, what it says, what it resumes."""

import datetime
import os
import shutil
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness import http1, settings, tls
from harness.nginx import version

NAME = "origin.test"
APP = "upstream origin.test { server %{origin}; }"
PASS = "myproxy_pass https://origin.test;"
TRUST = "myproxy_ssl_trusted_certificate %{authority.path};"
CLOSING = http1.response(200, "Connection: close")


def ask(stage, location=PASS + TRUST, http=APP, **more):
    """The status of a single request, and the log."""
    nginx = stage.nginx(http=http, location=location, **more)
    return nginx.get().status, nginx


def pem(path, *things):
    """Certificates, lists and keys in a file; returns its path."""
    path.write_bytes(b"".join(
        thing.public_bytes(serialization.Encoding.PEM) for thing in things))
    return str(path)


class Chain:
    """A root, so many CAs below it, and a certificate of the last."""

    def __init__(self, directory, below, name=NAME):
        root = tls.Authority(directory / "0", "Root")
        self.root = root.path
        issuer, between = root, []
        for number in range(1, below + 1):
            issuer = self._below(issuer, directory / str(number),
                                 f"CA {number}")
            between.insert(0, issuer.ca.cert)
        leaf = issuer.issue(name)
        self.certificate = tls.Certificate(
            leaf.cert, leaf.key,
            pem(directory / "chain.crt", leaf.cert, *between), leaf.key_path)
        self.first = between[-1] if between else None

    @staticmethod
    def _below(above, directory, name):
        """A CA whose own certificate another one has issued."""
        authority = tls.Authority(directory, name)
        own = authority.ca
        cert = (
            x509.CertificateBuilder().subject_name(own.cert.subject)
            .issuer_name(above.ca.cert.subject)
            .public_key(own.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(own.cert.not_valid_before)
            .not_valid_after(own.cert.not_valid_after)
            .add_extension(x509.BasicConstraints(True, None), True)
            .sign(above.ca.key, hashes.SHA256()))
        own.cert = cert
        return authority


# whom it trusts

def test_the_systems_store_is_trusted(stage, authority):
    stage.origin(tls=NAME)
    status, _ = ask(stage, PASS, env={"SSL_CERT_FILE": authority.path})
    assert status == 200


def test_the_systems_store_is_trusted_after_a_reload(stage, authority):
    origin = stage.origin(tls=NAME)
    status, nginx = ask(stage, PASS, env={"SSL_CERT_FILE": authority.path})
    nginx.reload()
    assert nginx.get().status == status == 200
    assert origin.connections == 2


def test_nothing_else_is_trusted(stage):
    origin = stage.origin(tls=NAME)
    status, nginx = ask(stage, PASS)
    assert status == 502
    assert nginx.logged(r"certificate verify error: \(\d+:unable to get "
                        r"local issuer certificate\)")
    assert origin.requests == []


def test_a_self_signed_certificate_is_refused(stage, tmp_path):
    own = tls.Authority(tmp_path, NAME).ca
    origin = stage.origin(tls=tls.Server(own))
    status, nginx = ask(stage, PASS)
    assert status == 502
    assert nginx.logged("certificate verify error: .*self.signed")
    assert origin.requests == []


def test_the_trusted_certificate_is_trusted(stage):
    stage.origin(tls=NAME)
    status, _ = ask(stage)
    assert status == 200


def test_the_trusted_certificate_replaces_the_systems_store(
        stage, authority, tmp_path):
    other = tls.Authority(tmp_path, "Other CA")
    origin = stage.origin(tls=NAME)
    status, nginx = ask(
        stage, PASS + f"myproxy_ssl_trusted_certificate {other.path};",
        env={"SSL_CERT_FILE": authority.path})
    assert status == 502
    assert nginx.logged("certificate verify error")
    assert origin.requests == []


def test_several_trusted_certificates(stage, authority, tmp_path):
    other = tls.Authority(tmp_path / "other", "Other CA")
    stage.origin(tls=NAME)
    path = pem(tmp_path / "both.crt", other.ca.cert, authority.ca.cert)
    status, _ = ask(
        stage, PASS + f"myproxy_ssl_trusted_certificate {path};")
    assert status == 200


@pytest.mark.parametrize("expired", [False, True],
                         ids=["untrusted", "expired"])
def test_without_verification_all_is_accepted(stage, authority, expired):
    stage.origin(tls=tls.Server(
        authority.issue("elsewhere.test", expired=expired)))
    status, _ = ask(stage, PASS + "myproxy_ssl_verify off;")
    assert status == 200


def test_another_name_is_refused(stage):
    origin = stage.origin(tls="elsewhere.test")
    status, nginx = ask(stage)
    assert status == 502
    assert nginx.logged('certificate does not match "origin.test"')
    assert origin.requests == []


def test_an_expired_certificate_is_refused(stage, authority):
    origin = stage.origin(
        tls=tls.Server(authority.issue(NAME, expired=True)))
    status, nginx = ask(stage)
    assert status == 502
    assert nginx.logged(r"certificate verify error: "
                        r"\(\d+:certificate has expired\)")
    assert origin.requests == []


def test_a_refused_certificate_leads_to_the_next_server(stage):
    first = stage.origin(name="first", tls="elsewhere.test")
    stage.origin(name="second", tls=NAME)
    nginx = stage.nginx(
        http="upstream origin.test { server %{first}; server %{second}; }",
        location=PASS + TRUST)
    assert nginx.get().status == 200
    assert first.connections == 1
    assert first.requests == []


def test_a_post_is_refused_as_well(stage):
    origin = stage.origin(tls="elsewhere.test")
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    assert nginx.post("/", b"secret").status == 502
    assert origin.requests == []


def test_a_wildcard_matches(stage):
    stage.origin(tls="*.example.test")
    status, _ = ask(
        stage, "myproxy_pass https://one.example.test;" + TRUST,
        http="upstream one.example.test { server %{origin}; }")
    assert status == 200


def test_a_wildcard_matches_one_label_only(stage):
    stage.origin(tls="*.example.test")
    status, nginx = ask(
        stage, "myproxy_pass https://a.b.example.test;" + TRUST,
        http="upstream a.b.example.test { server %{origin}; }")
    assert status == 502
    assert nginx.logged("does not match")


def test_the_address_is_the_name_where_there_is_no_other(stage):
    stage.origin(tls="127.0.0.1")
    status, _ = ask(stage, "myproxy_pass https://%{origin};" + TRUST)
    assert status == 200


def test_an_origin_without_tls(stage):
    origin = stage.origin(lambda conn: conn.wait_for_close())
    nginx = stage.nginx(http=APP, location=PASS + TRUST + """
        myproxy_connect_timeout 500ms;
    """)
    assert nginx.get().status == 504
    assert b"HTTP" not in origin.conns[0].received


# how deep

@pytest.mark.parametrize("below, depth, status", [
    (0, None, 200),
    (1, None, 200),
    (2, None, 200),
    (9, None, 200),
    (0, 0, 200),
    (1, 0, 502),
    (1, 1, 200),
    (2, 1, 502),
    (2, 2, 200),
])
def test_the_depth_of_a_chain(stage, tmp_path, below, depth, status):
    chain = Chain(tmp_path, below)
    stage.origin(tls=tls.Server(chain.certificate))
    depth = "" if depth is None else f"myproxy_ssl_verify_depth {depth};"
    got, nginx = ask(
        stage,
        PASS + f"myproxy_ssl_trusted_certificate {chain.root};" + depth)
    assert got == status
    assert bool(nginx.logged("certificate verify error")) == (status == 502)


def test_the_depth_with_the_systems_store(stage, tmp_path):
    chain = Chain(tmp_path, 2)
    stage.origin(tls=tls.Server(chain.certificate))
    status, _ = ask(stage, PASS + "myproxy_ssl_verify_depth 1;",
                    env={"SSL_CERT_FILE": chain.root})
    assert status == 502


def test_a_chain_with_a_link_missing(stage, tmp_path):
    chain = Chain(tmp_path, 1)
    leaf = tls.Certificate(
        chain.certificate.cert, chain.certificate.key,
        pem(tmp_path / "leaf.crt", chain.certificate.cert),
        chain.certificate.key_path)
    stage.origin(tls=tls.Server(leaf))
    status, nginx = ask(
        stage, PASS + f"myproxy_ssl_trusted_certificate {chain.root};")
    assert status == 502
    assert nginx.logged("certificate verify error")


# revoked

def revocation_list(authority, path, *certificates):
    now = datetime.datetime.utcnow()
    builder = (x509.CertificateRevocationListBuilder()
               .issuer_name(authority.ca.cert.subject)
               .last_update(now - tls.DAY).next_update(now + tls.DAY))
    for certificate in certificates:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(certificate.cert.serial_number)
            .revocation_date(now - tls.DAY).build())
    return pem(path, builder.sign(authority.ca.key, hashes.SHA256()))


def test_a_revoked_certificate_is_refused(stage, authority, tmp_path):
    certificate = authority.issue(NAME)
    path = revocation_list(authority, tmp_path / "crl", certificate)
    origin = stage.origin(tls=tls.Server(certificate))
    status, nginx = ask(stage, PASS + TRUST + f"myproxy_ssl_crl {path};")
    assert status == 502
    assert nginx.logged("certificate verify error: .*certificate revoked")
    assert origin.requests == []


def test_a_certificate_that_is_not_in_the_list_passes(stage, authority,
                                                      tmp_path):
    path = revocation_list(authority, tmp_path / "crl",
                           authority.issue("elsewhere.test"))
    stage.origin(tls=NAME)
    status, _ = ask(stage, PASS + TRUST + f"myproxy_ssl_crl {path};")
    assert status == 200


def test_the_list_goes_with_the_systems_store(stage, authority, tmp_path):
    certificate = authority.issue(NAME)
    path = revocation_list(authority, tmp_path / "crl", certificate)
    stage.origin(tls=tls.Server(certificate))
    status, nginx = ask(stage, PASS + f"myproxy_ssl_crl {path};",
                        env={"SSL_CERT_FILE": authority.path})
    assert status == 502
    assert nginx.logged("certificate revoked")


# the name

def test_the_name_of_the_pass_is_asked_for(stage):
    origin = stage.origin(tls=NAME)
    status, _ = ask(stage)
    assert status == 200
    assert origin.conns[0].sni == NAME


def test_the_name_is_asked_for_without_its_port(stage):
    origin = stage.origin(tls=NAME)
    stage.dns({NAME: ["127.0.0.1"]})
    nginx = stage.nginx(location="""
        resolver %{dns} ipv6=off;
        set $name origin.test;
        myproxy_pass https://$name:%{origin.port};
    """ + TRUST)
    assert nginx.get().status == 200
    assert origin.conns[0].sni == NAME


def test_the_clients_host_is_not_the_name(stage):
    origin = stage.origin(tls=NAME)
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    assert nginx.get("/", "Host: www.example.test").status == 200
    assert origin.conns[0].sni == NAME
    assert origin.request.header("Host") == "www.example.test"


def test_no_name_is_asked_for_when_switched_off(stage):
    origin = stage.origin(tls=NAME)
    status, _ = ask(stage, PASS + TRUST + "myproxy_ssl_server_name off;")
    assert status == 200
    assert origin.conns[0].sni is None


def test_the_name_is_checked_all_the_same(stage):
    stage.origin(tls="elsewhere.test")
    status, nginx = ask(stage,
                        PASS + TRUST + "myproxy_ssl_server_name off;")
    assert status == 502
    assert nginx.logged("does not match")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_no_address_is_asked_for(stage, host, request):
    if host == "::1":
        request.getfixturevalue("ipv6")
    origin = stage.origin(tls=NAME,
                          family="ipv6" if host == "::1" else "ipv4")
    nginx = stage.nginx(location="""
        myproxy_pass https://%{origin};
        myproxy_ssl_verify off;
    """)
    assert nginx.get().status == 200
    assert origin.conns[0].sni is None


def test_another_name(stage):
    origin = stage.origin(tls="other.test")
    status, _ = ask(stage, PASS + TRUST + "myproxy_ssl_name other.test;")
    assert status == 200
    assert origin.conns[0].sni == "other.test"


def test_another_name_for_an_address(stage):
    origin = stage.origin(tls="other.test")
    status, _ = ask(stage, "myproxy_pass https://%{origin};" + TRUST
                    + "myproxy_ssl_name other.test;")
    assert status == 200
    assert origin.conns[0].sni == "other.test"


def test_another_name_for_a_unix_socket(stage):
    origin = stage.origin(tls="other.test", family="unix")
    status, _ = ask(stage, "myproxy_pass https://%{origin};" + TRUST
                    + "myproxy_ssl_name other.test;")
    assert status == 200
    assert origin.conns[0].sni == "other.test"


def test_another_name_that_is_not_in_the_certificate(stage):
    stage.origin(tls=NAME)
    status, nginx = ask(stage, PASS + TRUST + "myproxy_ssl_name other.test;")
    assert status == 502
    assert nginx.logged('does not match "other.test"')


def test_a_name_with_a_variable(stage):
    origin = stage.origin(CLOSING, tls="*.example.test")
    nginx = stage.nginx(
        http=APP,
        location=PASS + TRUST + "myproxy_ssl_name $arg_name.example.test;")
    for name in ("one", "two"):
        assert nginx.get(f"/?name={name}").status == 200
    assert [conn.sni for conn in origin.conns] == ["one.example.test",
                                                   "two.example.test"]


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

@pytest.fixture
def asking(stage, authority):
    """An origin that demands a certificate."""
    return stage.origin(CLOSING, tls=tls.Server(authority.issue(NAME),
                                                client_ca=authority.path))


def subject(conn):
    return dict(pair for part in conn.client_certificate["subject"]
                for pair in part)["commonName"]


def encrypted(certificate, path, password):
    path.write_bytes(certificate.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password)))
    return str(path)


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


# sessions

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


@versions
def test_a_certificate_that_is_renewed(stage, authority, maximum):
    server = tls.Server(authority.issue(NAME, expired=True), maximum=maximum)
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


# the configuration

@pytest.mark.parametrize("target", ["app", "app/", "app/uri"])
def test_a_name_without_a_dot_is_warned_of(stage, target):
    stage.origin()
    code, text = stage.config_test(
        http="upstream app { server %{origin}; }",
        location=f"myproxy_pass https://{target};")
    assert code == 0
    assert "[warn]" in text
    assert f'certificates of "https://{target}"' in text
    assert 'for the name "app"' in text
    assert 'write "myproxy_ssl_name"' in text


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_an_address_is_warned_of(stage, address):
    stage.origin()
    code, text = stage.config_test(
        location=f"myproxy_pass https://{address}:%{{origin.port}};")
    assert code == 0
    assert "[warn]" in text
    assert f'for the name "{address}"' in text


@pytest.mark.parametrize("http, location", [
    ("", "myproxy_pass https://app; myproxy_ssl_name origin.test;"),
    ("myproxy_ssl_name origin.test;", "myproxy_pass https://app;"),
    ("", "myproxy_pass https://app; myproxy_ssl_verify off;"),
    ("", "myproxy_pass http://app;"),
    ("", "myproxy_pass https://localhost:%{origin.port};"),
    ("", "set $name app; myproxy_pass https://$name;"),
])
def test_no_warning(stage, http, location):
    stage.origin()
    code, text = stage.config_test(
        http="upstream app { server %{origin}; }" + http, location=location)
    assert code == 0
    assert "[warn]" not in text


def test_the_remedy_of_the_warning(stage):
    origin = stage.origin(tls=NAME)
    nginx = stage.nginx(
        http="upstream app { server %{origin}; }",
        location="myproxy_pass https://app;" + TRUST
                 + "myproxy_ssl_name origin.test;")
    assert nginx.get().status == 200
    assert origin.conns[0].sni == NAME
    assert not nginx.logged(r"\[warn\]")


@pytest.mark.parametrize("lines, message", [
    ("myproxy_ssl_certificate %{own.cert_path};",
     'no "myproxy_ssl_certificate_key" is defined for '
     '"myproxy_ssl_certificate %{own.cert_path}"'),
    ("myproxy_ssl_certificate %{own.cert_path};"
     "myproxy_ssl_certificate_key %{other.key_path};",
     "key values mismatch"),
    ("myproxy_ssl_certificate missing.crt;"
     "myproxy_ssl_certificate_key missing.key;",
     "cannot load certificate"),
    ("myproxy_ssl_trusted_certificate missing.crt;", "missing.crt"),
    ("myproxy_ssl_trusted_certificate %{own.key_path};",
     "%{own.key_path}"),
    ("myproxy_ssl_crl missing.crl;", "missing.crl"),
    ("myproxy_ssl_password_file missing;", "missing"),
    ("myproxy_ssl_password_file %{own.key_path};"
     "myproxy_ssl_password_file %{own.key_path};",
     '"myproxy_ssl_password_file" directive is duplicate'),
    ("myproxy_ssl_protocols TLSv9;",
     'invalid value "TLSv9"'),
    ("myproxy_ssl_ciphers NONSENSE;",
     "NONSENSE"),
    ("myproxy_ssl_verify_depth deep;", "invalid number"),
    ("myproxy_ssl_verify maybe;", 'invalid value "maybe"'),
    ("myproxy_ssl_conf_command Nonsense 1;", "Nonsense"),
])
def test_wrong_settings(stage, authority, lines, message):
    stage.origin()
    stage.names["own"] = authority.issue("client.test")
    stage.names["other"] = authority.issue("other.test")
    code, text = stage.config_test(http=APP, location=PASS + lines)
    for name in ("own", "other"):
        for attribute in ("cert_path", "key_path"):
            message = message.replace(
                f"%{{{name}.{attribute}}}",
                getattr(stage.names[name], attribute))
    assert code == 1
    assert "[emerg]" in text
    assert message in text


def test_an_encrypted_key_with_a_wrong_password(stage, authority, tmp_path):
    stage.origin()
    own = authority.issue("client.test")
    encrypted(own, tmp_path / "client.key", b"open sesame")
    passwords = tmp_path / "passwords"
    passwords.write_text("wrong\n", encoding="ascii")
    code, text = stage.config_test(http=APP, location=PASS + f"""
        myproxy_ssl_certificate {own.cert_path};
        myproxy_ssl_certificate_key {tmp_path}/client.key;
        myproxy_ssl_password_file {passwords};
    """)
    assert code == 1
    assert "cannot load certificate key" in text


def test_settings_that_are_not_used_are_not_looked_at(stage):
    stage.origin()
    code, _ = stage.config_test(
        http="myproxy_ssl_trusted_certificate missing.crt;",
        location="myproxy_pass http://%{origin};")
    assert code == 0


def test_a_root_is_not_an_intermediate(stage, tmp_path):
    """What is trusted need not be self-signed to be found untrusted."""
    chain = Chain(tmp_path, 1)
    stage.origin(tls=tls.Server(chain.certificate))
    path = pem(tmp_path / "first.crt", chain.first)
    status, nginx = ask(
        stage, PASS + f"myproxy_ssl_trusted_certificate {path};")
    assert status == 502
    assert nginx.logged("certificate verify error")


def test_keys_of_other_kinds(stage, authority, tmp_path):
    key = ec.generate_private_key(ec.SECP384R1())
    now = datetime.datetime.utcnow()
    cert = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, NAME)]))
        .issuer_name(authority.ca.cert.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - tls.DAY).not_valid_after(now + tls.DAY)
        .sign(authority.ca.key, hashes.SHA384()))
    key_path = tmp_path / "origin.key"
    key_path.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption()))
    certificate = tls.Certificate(
        cert, key, pem(tmp_path / "origin.crt", cert), key_path)
    stage.origin(tls=tls.Server(certificate))
    status, _ = ask(stage)
    assert status == 200
