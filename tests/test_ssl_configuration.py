"""The configuration of TLS to the origin, and its warnings."""

import datetime
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness import tls
from harness.secured import APP, Chain, NAME, PASS, TRUST, ask, encrypted, pem


@pytest.mark.parametrize("name", ["app", "localhose"])
@pytest.mark.parametrize("uri", ["", "/", "/uri"])
def test_a_name_without_a_dot_is_warned_of(stage, name, uri):
    stage.origin()
    code, text = stage.config_test(
        http=f"upstream {name} {{ server %{{origin}}; }}",
        location=f"myproxy_pass https://{name}{uri};")
    assert code == 0
    assert "[warn]" in text
    assert f'certificate of "https://{name}{uri}"' in text
    assert f'for the name "{name}"' in text
    assert 'write "myproxy_ssl_name"' in text


def test_the_warning_names_the_line_of_the_pass(stage):
    stage.origin()
    code, text = stage.config_test(
        http="upstream app { server %{origin}; }",
        location="""
            location /a { myproxy_pass https://app; }
            location /b {
                myproxy_pass https://app/b;
            }""")
    assert code == 0
    lines = dict(re.findall(r'certificate of "(\S+)" .* in \S+:(\d+)', text))
    assert int(lines["https://app/b"]) == int(lines["https://app"]) + 2


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


@pytest.mark.parametrize("target", ["https://up", "https://$host"])
@pytest.mark.parametrize("lines, names", [
    ("myproxy_ssl_trusted_certificate missing;",
     '"myproxy_ssl_trusted_certificate"'),
    ("myproxy_ssl_crl missing;", '"myproxy_ssl_crl"'),
    ("myproxy_ssl_certificate missing; myproxy_ssl_certificate_key missing;",
     '"myproxy_ssl_certificate" or "myproxy_ssl_certificate_key"'),
])
def test_a_missing_file_is_told_with_its_pass(stage, target, lines, names):
    stage.origin()
    code, text = stage.config_test(
        http="upstream up { server %{origin}; }" + lines,
        location=f"\nmyproxy_pass {target};\n")
    assert code == 1
    line, = [number for number, line in enumerate(
        stage.nginxes[-1].text.splitlines(), 1) if "myproxy_pass" in line]
    assert re.search(
        rf'{names} of the "myproxy_pass" in \S+/nginx\.conf:{line}, or of a '
        "block around it, cannot be used: see the line before; name a file "
        "in PEM that is there and that nginx may read\n", text)


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


@pytest.mark.parametrize("what, message", [
    ("key", "key values mismatch"),
    ("passwords", "cannot load certificate key")])
def test_the_key_of_each_location_is_looked_at(stage, authority, tmp_path,
                                               what, message):
    """Though another location has the same certificate."""
    stage.origin()
    own = authority.issue("client.test")
    other = authority.issue("other.test")
    encrypted(own, tmp_path / "client.key", b"open sesame")
    (tmp_path / "right").write_text("open sesame\n", encoding="ascii")
    (tmp_path / "wrong").write_text("wrong\n", encoding="ascii")
    lines = {"key": f"myproxy_ssl_certificate_key {other.key_path};",
             "passwords": f"myproxy_ssl_password_file {tmp_path}/wrong;"}
    code, text = stage.config_test(http=APP, server=f"""
        myproxy_ssl_certificate {own.cert_path};
        myproxy_ssl_certificate_key {tmp_path}/client.key;
        myproxy_ssl_password_file {tmp_path}/right;
        location /one {{ {PASS} }}
        location /two {{ {PASS} {lines[what]} }}
    """)
    assert code == 1
    assert message in text


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


def test_the_page_has_the_warning_of_a_certificate(stage):
    nginx = stage.nginx(
        http="upstream app { server 127.0.0.1:1; }",
        location="myproxy_pass https://app;")
    warning, = nginx.status()["warnings"]
    assert 'certificate of "https://app" must be issued' in warning
    assert re.search(r"nginx\.conf:\d+$", warning)
