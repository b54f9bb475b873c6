"""Whom the proxy trusts, and by which name."""

import pytest

from harness import tls
from harness.secured import (
    APP, CLOSING, Chain, NAME, PASS, TRUST, ask, pem, revocation_list)


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
