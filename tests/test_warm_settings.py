"""What connections are opened with ahead of need, and for which handlers."""

import os
import ssl

import pytest

from harness import tls
from harness.clock import Clock
from harness.nginx import build_info, has, product, version
from harness.warming import (
    NAMES, NATIVE, PASS, TLS_PASS, UP, counts, live, requests, two,
    unused, wait_idle)
from test_other_handlers import HANDLERS, method_of

needs_sticky = pytest.mark.skipif(
    version() < (1, 29, 6) and product() != "angie",
    reason="this nginx has no sticky")


# what they are opened with

def test_names_share_the_number_and_do_not_mix(stage, authority):
    origin = stage.origin(tls=tls.Server(authority.issue("a.test", "b.test")))
    nginx = stage.nginx(http=UP.format("reuse_warm 4;"), server=NAMES)
    wait_idle(stage, nginx, 4)

    def names():
        return sorted(str(conn.sni) for conn in live(origin))
    stage.wait_until(lambda: names() == ["a.test"] * 2 + ["b.test"] * 2)
    for target in ["/a", "/b"] * 3:
        assert nginx.get(target).status == 200
    for conn in origin.conns:
        for request in conn.requests:
            assert conn.sni == request.target[1] + ".test"
    assert requests(nginx)[2] == 0


def test_a_name_with_a_port(stage, authority):
    """Neither is the port sent, nor is it looked for in the certificate."""
    origin = stage.origin(tls=tls.Server(authority.issue("a.test")))
    nginx = stage.nginx(
        http=UP.format("reuse_warm 2;"),
        location="myproxy_pass https://app; myproxy_ssl_name a.test:8443; "
                 "myproxy_ssl_trusted_certificate %{authority.path};")
    wait_idle(stage, nginx, 2)
    stage.wait_until(lambda: [conn.sni for conn in live(origin)]
                     == ["a.test"] * 2)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_no_address_is_a_name(stage, host, request):
    if host == "::1":
        request.getfixturevalue("ipv6")
    origin = stage.origin(tls="app",
                          family="ipv6" if host == "::1" else "ipv4")
    nginx = stage.nginx(
        http="reuse_warm 1;",
        location="myproxy_pass https://%{origin}; myproxy_ssl_verify off;")
    wait_idle(stage, nginx, 1)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)
    assert origin.conns[0].sni is None


def test_a_bracket_that_is_not_closed(stage):
    """As core has it, that is an address as well, up to a colon."""
    origin = stage.origin(tls="app")
    nginx = stage.nginx(http=UP.format("reuse_warm 1;"),
                        location=TLS_PASS + 'myproxy_ssl_name "[app:8443";')
    wait_idle(stage, nginx, 1)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)
    assert origin.conns[0].sni is None


def test_a_name_that_a_request_has_shown(stage, authority):
    origin = stage.origin(tls=tls.Server(authority.issue("a.test", "b.test")))
    nginx = stage.nginx(
        http=UP.format("reuse_warm 4;"),
        location="myproxy_pass https://app; myproxy_ssl_name $arg_name; "
                 "myproxy_ssl_trusted_certificate %{authority.path};")
    stage.let_pass(0.2)
    assert origin.connections == 0
    assert nginx.get("/?name=a.test").status == 200
    stage.wait_until(lambda: len(unused(origin)) >= 3)
    wait_idle(stage, nginx, 4)
    stage.wait_until(lambda: {conn.sni for conn in origin.conns}
                     == {"a.test"})
    assert nginx.get("/?name=b.test").status == 200
    stage.wait_until(lambda: "b.test" in {c.sni for c in unused(origin)})


def test_a_name_that_is_seldom_used(stage, authority):
    origin = stage.origin(tls=tls.Server(authority.issue("a.test", "b.test")))
    nginx = stage.nginx(http=UP.format("reuse_warm 6;"), server=NAMES)
    wait_idle(stage, nginx, 6)
    for _ in range(5):
        assert nginx.get("/a").status == 200
    for conn in live(origin):
        if conn.tls_version:
            conn.half_close()
    stage.wait_until(lambda: {conn.sni for conn in unused(origin)}
                     == {"a.test", "b.test"})


def test_names_on_a_pool_that_is_written(stage, authority):
    origin = stage.origin(tls=tls.Server(authority.issue("a.test", "b.test")))
    nginx = stage.nginx(http=UP.format("keepalive 20; reuse_warm 4;"),
                        server=NAMES)
    wait_idle(stage, nginx, 4)
    for target in ["/a", "/b"] * 10:
        assert nginx.get(target).status == 200
    assert requests(nginx)[2] == 0
    assert origin.connections <= 8


def test_names_and_max_conns(stage, authority):
    origin = stage.origin(tls=tls.Server(authority.issue("a.test", "b.test")))
    nginx = stage.nginx(
        http="upstream app { server %{origin} max_conns=4; reuse_warm 12; }",
        server=NAMES)
    wait_idle(stage, nginx, 4)
    stage.let_pass(0.1)
    assert origin.connections == 4


def test_any_number_of_names(stage, authority):
    """Those of which there is no connection make room for others."""
    names = [f"{letter}.test" for letter in "abcdefghij"]
    origin = stage.origin(tls=tls.Server(authority.issue(*names)))
    nginx = stage.nginx(
        http=UP.format("reuse_warm 2;"),
        location="myproxy_pass https://app; myproxy_ssl_name $arg_name; "
                 "myproxy_ssl_trusted_certificate %{authority.path};")
    for name in names:
        assert nginx.get(f"/?name={name}").status == 200
        assert nginx.get(f"/?name={name}").status == 200
    for conn in origin.conns:
        for request in conn.requests:
            assert request.target == f"/?name={conn.sni}"


EIGHT = [f"{letter}.test" for letter in "abcdefgh"]


def ask_for(stage, authority, *more, **config):
    """An origin of which eight names, as many as are remembered, were asked
    for, and a function that asks for one."""
    origin = stage.origin(tls=tls.Server(authority.issue(*EIGHT, *more)))
    nginx = stage.nginx(
        http=UP.format("reuse_warm 2;"),
        location="myproxy_pass https://app; myproxy_ssl_name $arg_name; "
                 "myproxy_ssl_trusted_certificate %{authority.path};",
        **config)

    def ask(name):
        assert nginx.get(f"/?name={name}").status == 200
    for name in EIGHT * 2:
        ask(name)
    return origin, nginx, ask


def rest(stage, nginx):
    """Until no connection is used, or being opened."""
    def rested():
        found = counts(nginx)["connections"]
        return found["idle"] == found["open"] >= 2
    stage.wait_until(rested)


def end_used(stage, nginx, origin):
    """Those that requests have opened."""
    rest(stage, nginx)
    used = [conn for conn in live(origin) if conn.requests]
    for conn in used:
        conn.half_close()
    stage.wait_until(lambda: all(conn.closed for conn in used))
    rest(stage, nginx)


def names_of(conns):
    return sorted(str(conn.sni) for conn in conns)


def test_a_further_name_takes_no_place_of_one_of_late(stage, authority):
    origin, nginx, ask = ask_for(stage, authority, "new.test")

    def planned():
        """The names, as long after a change as it takes to make a plan."""
        end_used(stage, nginx, origin)
        stage.let_pass(1.1)
        rest(stage, nginx)
        stage.wait_until(lambda: "None" not in names_of(unused(origin)))
        return names_of(unused(origin))
    before = planned()
    ask("new.test")
    assert planned() == before


def test_a_further_name_takes_the_place_of_a_forgotten_one(stage, authority):
    clock = Clock(stage)
    origin, nginx, ask = ask_for(stage, authority, "new.test", env=clock.env)
    end_used(stage, nginx, origin)
    for _ in range(3):
        opened = counts(nginx)["warm"]["opened"]
        # the default keepalive_timeout has them made anew
        clock.forward(61)
        stage.wait_until(lambda: counts(nginx)["warm"]["opened"] > opened)
        rest(stage, nginx)
    for _ in range(2):
        ask("new.test")
    end_used(stage, nginx, origin)
    stage.wait_until(lambda: "new.test" in names_of(unused(origin)))


def test_more_names_than_are_remembered(stage, authority):
    """Requests are for ten, and connections are opened ahead for eight."""
    names = EIGHT + ["i.test", "j.test"]
    origin = stage.origin(tls=tls.Server(authority.issue(*names)))
    nginx = stage.nginx(
        http=UP.format("reuse_warm 12;"),
        server="myproxy_ssl_trusted_certificate %{authority.path};" + "".join(
            f"location /{name} {{ myproxy_pass https://app;"
            f"myproxy_ssl_name {name}; }}" for name in names))
    wait_idle(stage, nginx, 12)
    stage.wait_until(lambda: set(names_of(live(origin))) == set(EIGHT))
    for name in reversed(names):
        assert nginx.get(f"/{name}").status == 200
    assert {request.target[1:] == conn.sni for conn in origin.conns
            for request in conn.requests} == {True}
    assert requests(nginx) == (8, 0, 2)


def test_a_name_longer_than_most(stage, authority):
    """A client may bring it along where it is not sent to the origin."""
    origin = stage.origin(tls=tls.Server(authority.issue("*.app.test")))
    nginx = stage.nginx(
        http=UP.format("reuse_warm 4;"),
        location="myproxy_pass https://app; myproxy_ssl_name $http_host; "
                 "myproxy_ssl_trusted_certificate %{authority.path}; "
                 "myproxy_ssl_server_name off;")
    host = f"Host: {'a' * 700}.app.test"
    assert nginx.get("/", host).status == 200
    stage.wait_until(lambda: len(unused(origin)) == 3)
    wait_idle(stage, nginx, 4)
    for _ in range(2):
        assert nginx.get("/", host).status == 200
    assert requests(nginx)[2] == 1


def test_a_certificate_that_a_variable_names(stage, authority):
    """Which it is, no request has shown; and it is no name."""
    ours = authority.issue("client")
    origin = stage.origin(tls=tls.Server(
        authority.issue("app"), client_ca=authority.ca.cert_path))
    nginx = stage.nginx(
        http=UP.format("reuse_warm 2;"),
        location=TLS_PASS + f"""
            set $cert {ours.cert_path};
            myproxy_ssl_certificate $cert;
            myproxy_ssl_certificate_key {ours.key_path};""")
    for _ in range(2):
        assert nginx.get().status == 200
    stage.let_pass(0.2)
    assert counts(nginx)["warm"]["opened"] == 0
    assert origin.connections == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="transparent takes root")
def test_an_address_of_the_client(stage):
    """It is known only of the client that there is."""
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("reuse_warm 2;"),
        location=PASS + "myproxy_bind 127.0.0.2 transparent;")
    for _ in range(2):
        assert nginx.get().status == 200
    stage.let_pass(0.2)
    assert counts(nginx)["warm"]["opened"] == 0
    assert {conn.sock.getpeername()[0] for conn in origin.conns} == {
        "127.0.0.2"}


def test_an_upstream_that_variables_name(stage):
    stage.origin()
    nginx = stage.nginx(
        http=UP.format("reuse_warm 3;"),
        server="location /fixed { proxy_pass http://app; }",
        location="set $name app; myproxy_pass http://$name;")
    assert nginx.get().status == 200
    wait_idle(stage, nginx, 3)
    assert nginx.get().status == 200
    assert requests(nginx)[2] == 1


def test_a_local_address(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_warm 2;"),
                        location=PASS + "myproxy_bind 127.0.0.2;")
    wait_idle(stage, nginx, 2)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)
    assert {conn.sock.getpeername()[0] for conn in live(origin)} == {
        "127.0.0.2"}


def test_none_is_opened_from_an_address_that_variables_name(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("reuse_warm 2;"),
        server="location /fixed { myproxy_pass http://app; }",
        location=PASS + "myproxy_bind 127.0.0.$arg_from;")
    wait_idle(stage, nginx, 2)
    assert nginx.get("/?from=3").status == 200
    assert nginx.get("/fixed").status == 200
    assert requests(nginx) == (1, 0, 1)
    assert {conn.sock.getpeername()[0] for conn in list(origin.conns)
            if conn.requests} == {"127.0.0.3", "127.0.0.1"}


def test_they_last_as_long_as_the_pool_says_without_expiry(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("reuse_warm 2; reuse_expiry off;"
                       "keepalive_timeout 1s;"), location=PASS)
    wait_idle(stage, nginx, 2)
    # others are opened before these end
    stage.wait_until(lambda: origin.connections >= 4)
    assert len(live(origin)) >= 2
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)


def test_a_client_certificate(stage, authority):
    ours = authority.issue("client")
    origin = stage.origin(tls=tls.Server(
        authority.issue("app"), client_ca=authority.ca.cert_path))
    nginx = stage.nginx(
        http=UP.format("reuse_warm 2;"),
        location=TLS_PASS + f"""
            myproxy_ssl_certificate {ours.cert_path};
            myproxy_ssl_certificate_key {ours.key_path};""")
    wait_idle(stage, nginx, 2)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)
    stage.wait_until(lambda: all(conn.client_certificate
                                 for conn in live(origin)))


@pytest.mark.parametrize("name", ["fastcgi", "memcached", "grpc"])
def test_for_other_handlers(stage, name):
    """But none that begin with what only a request brings along."""
    answer, passing = HANDLERS[name]

    def script(conn):
        while answer(conn):
            pass

    origin = stage.origin(script)
    nginx = stage.nginx(
        http=UP.format("keepalive 8; reuse on; reuse_warm 3;"),
        location=passing)

    def ask():
        assert nginx.request(method_of(name), "/key").status == 200
    ask()
    if name == "grpc":
        stage.let_pass(1.1)
    else:
        stage.wait_until(lambda: origin.connections == 3)
    wait_idle(stage, nginx, 1 if name == "grpc" else 3)
    ask()
    assert requests(nginx)[2] == 1


@pytest.mark.parametrize("maximum", [
    ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("zone", ["", "zone app 64k;"])
def test_sessions_are_taken_up(stage, authority, zone, maximum):
    """Tickets are read from idle connections, and serve those that follow."""
    origin = stage.origin(tls=tls.Server(authority.issue("app"),
                                         maximum=maximum))
    nginx = stage.nginx(http=UP.format(zone + "reuse_warm 1;"),
                        location=TLS_PASS)
    wait_idle(stage, nginx, 1)
    assert nginx.get().status == 200
    ended = [conn for conn in live(origin) if conn.tls_version]
    for conn in ended:
        conn.half_close()
    stage.wait_until(lambda: all(conn.closed for conn in ended)
                     and any(conn.session_reused for conn in live(origin)))
    wait_idle(stage, nginx, 1)
    assert nginx.get().status == 200
    found = counts(nginx)
    assert found["tls_handshakes"]["full"] >= 1
    assert found["attempts"]["warm"] == 2


@pytest.mark.parametrize("maximum", [
    ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_left_when_switched_off(stage, authority, maximum):
    origin = stage.origin(tls=tls.Server(authority.issue("app"),
                                         maximum=maximum))
    nginx = stage.nginx(
        http=UP.format("reuse_warm 1;"),
        location=TLS_PASS + "myproxy_ssl_session_reuse off;")
    wait_idle(stage, nginx, 1)
    assert nginx.get().status == 200
    ended = [conn for conn in live(origin) if conn.tls_version]
    for conn in ended:
        conn.half_close()
    stage.wait_until(lambda: all(conn.closed for conn in ended)
                     and any(conn.tls_version for conn in live(origin)))
    wait_idle(stage, nginx, 1)
    assert nginx.get().status == 200
    assert not any(conn.session_reused for conn in origin.conns)
    assert counts(nginx)["tls_handshakes"]["resumed"] == 0


def test_each_server_has_sessions_of_its_own(stage, authority):
    """That of one is of no use to the other."""
    first, second, http = two(stage, more="reuse_warm 2;")
    for origin in first, second:
        origin.tls = tls.Server(authority.issue("app"),
                                maximum=ssl.TLSVersion.TLSv1_2)
    nginx = stage.nginx(http=http, location=TLS_PASS)
    for origin in first, second, first, second:
        wait_idle(stage, nginx, 2)
        ended, = live(origin)
        stage.wait_until(lambda: ended.tls_version)
        ended.half_close()
        stage.wait_until(lambda: ended.closed and live(origin))
    wait_idle(stage, nginx, 2)
    for origin in first, second:
        stage.wait_until(lambda: origin.conns[-1].tls_version)
        assert [conn.session_reused for conn in origin.conns] == [
            False, True, True]


def test_a_session_that_comes_while_it_is_idle(stage, authority):
    """A round trip behind the handshake, and without any request."""
    link = stage.link(20)
    origin = stage.origin(link=link,
                          tls=tls.Server(authority.issue("app")))
    nginx = stage.nginx(
        link=link, location=TLS_PASS,
        http=UP.format("keepalive 8; keepalive_timeout 1s; reuse_warm 1;"))
    wait_idle(stage, nginx, 1)
    # it takes its place
    stage.wait_until(lambda: len(origin.conns) > 1
                     and origin.conns[1].tls_version)
    assert origin.conns[1].session_reused
    assert origin.requests == []


def test_tickets_leave_them_open(stage, authority):
    origin = stage.origin(tls=tls.Server(authority.issue("app")))
    nginx = stage.nginx(http=UP.format("reuse_warm 3;"), location=TLS_PASS)
    wait_idle(stage, nginx, 3)
    stage.let_pass(0.2)
    assert origin.connections == 3
    for _ in range(3):
        assert nginx.post("/", b"x").status == 200
    assert requests(nginx)[2] == 0


# other handlers

def test_the_stock_proxy_once_a_request_has_shown_it(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("reuse_warm 3;"),
        location='proxy_pass http://app; proxy_http_version 1.1; '
                 'proxy_set_header Connection "";')
    stage.let_pass(0.1)
    assert origin.connections == 0
    assert nginx.get().status == 200
    wait_idle(stage, nginx, 3)
    burst = [nginx.get().status for _ in range(3)]
    assert burst == [200] * 3
    assert requests(nginx)[2] == 1
    assert origin.connections <= 4


@pytest.mark.skipif(not has("http_fastcgi_module"), reason="no FastCGI")
def test_fastcgi_once_a_request_has_shown_it(stage):
    from test_other_handlers import HANDLERS
    answer, location = HANDLERS["fastcgi"]

    def script(conn):
        while answer(conn):
            conn.requests.append(None)

    origin = stage.origin(script)
    nginx = stage.nginx(http=UP.format("reuse_warm 3;"), location=location)
    assert nginx.get().status == 200
    wait_idle(stage, nginx, 3)
    assert len(unused(origin)) == 2
    for conn in live(origin):
        if conn.requests:
            conn.half_close()
    stage.wait_until(lambda: len(unused(origin)) == 3)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 1)


def test_grpc_is_left_alone(stage):
    from test_other_handlers import HANDLERS
    answer, location = HANDLERS["grpc"]

    def script(conn):
        while answer(conn):
            pass

    origin = stage.origin(script)
    nginx = stage.nginx(http=UP.format("reuse_warm 3;"), location=location)
    for _ in range(3):
        assert nginx.post("/", b"").status == 200
    stage.let_pass(0.1)
    assert origin.connections == 1


def test_other_handlers_on_an_inherited_one_are_left_alone(stage):
    origin = stage.origin()
    nginx = stage.nginx(http="reuse_warm 3;" + UP.format(""),
                        location="proxy_pass http://app;")
    for _ in range(2):
        assert nginx.get().status == 200
    stage.let_pass(0.1)
    assert origin.connections == (1 if NATIVE else 2)


@pytest.mark.parametrize("method", ["epoll", "poll", "select"])
@pytest.mark.parametrize("location", [PASS, TLS_PASS], ids=["plain", "tls"])
def test_idle_connections_keep_no_worker_busy(stage, method, location):
    """With poll() a socket is ready to be written to at any time."""
    if method != "epoll" and f"--with-{method}_module" not in build_info():
        pytest.skip("not in this nginx")
    stage.origin(tls="app" if location == TLS_PASS else None)
    nginx = stage.nginx(events=f"use {method};",
                        http=UP.format("reuse_warm 3;"), location=location)
    wait_idle(stage, nginx, 3)
    worker, = nginx.workers()
    before = ticks(worker)
    stage.let_pass(1)
    # of 100; each second a plan is made
    assert ticks(worker) - before < 15


def ticks(process):
    """Hundredths of a second for which it has run."""
    with open(f"/proc/{process}/stat") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:13]))


@pytest.mark.parametrize("order", [
    "sticky cookie id; keepalive 8;", "keepalive 8; sticky cookie id;"])
@needs_sticky
def test_sticky_on_either_side_of_keepalive(stage, order):
    """Above it, it looks at the client's request, and here is none."""
    stage.origin()
    nginx = stage.nginx(http=UP.format(order + "reuse_warm 2;"),
                        location=PASS)
    wait_idle(stage, nginx, 2)
    workers = nginx.workers()
    assert nginx.get().status == 200
    assert counts(nginx)["attempts"]["warm"] == 1
    assert nginx.workers() == workers
