"""Connections that are opened ahead and fail."""

import math
import ssl
import time

import pytest

from harness import settings, tls
from harness.warming import (
    NAMES, PASS, TLS_PASS, UP, counts, idle, live, pay, reached, requests,
    two, unused, wait_idle)
from test_warm_requests import TlsInMemory


def test_a_failure_is_logged_once_and_the_next_try_waits(stage):
    origin = stage.origin(listening=False)
    nginx = stage.nginx(http=UP.format("reuse_warm 4;"), location=PASS)
    pattern = (r'\[error\].*Connection refused.* for "reuse_warm" of upstream:'
               r' "app", server: 127.0.0.1')
    nginx.expect_log(pattern)
    nginx.wait_log(pattern)
    # that several fail at first counts once
    stage.wait_until(lambda: counts(nginx)["warm"]["opened"] >= 4 + 3,
                     timeout=3 * settings.SCALE)
    stage.let_pass(0.5)
    assert counts(nginx)["warm"]["opened"] <= 4 + 5
    assert len([line for line in nginx.lines
                if "Connection refused" in line]) == 1
    origin.listen()
    wait_idle(stage, nginx, 4)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)


def test_each_outage_is_logged(stage):
    """What is known of one is forgotten when it is over."""
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_warm 2;"), location=PASS)
    refused = r"\[error\].*Connection refused"
    nginx.expect_log(refused)

    def rested():
        found = counts(nginx)["connections"]
        return found["idle"] == found["open"] >= 2

    for _ in range(2):
        stage.wait_until(rested)
        # a server that answers wants connections, however young they end
        assert nginx.get().status == 200
        stage.wait_until(rested)
        told = len(nginx.logged(refused))
        origin.refuse()
        for conn in live(origin):
            conn.half_close()
        nginx.wait_log(refused, count=told + 1)
        origin.listen()


@pytest.mark.parametrize("wanted", [True, False],
                         ids=["refused", "unwanted"])
def test_each_attempt_waits_for_longer(stage, wanted):
    """Twice as long each time, from half of that to half as much again."""
    if wanted:
        stage.origin(listening=False)
    else:
        stage.origin(lambda conn: None)
    begun = time.monotonic()
    nginx = stage.nginx(http=UP.format("reuse_warm 1;"), location=PASS)
    nginx.expect_log("Connection refused")
    stage.let_pass(2.3)
    made = counts(nginx)["warm"]["opened"]
    # 0.1 s at least, then 0.2 s, then 0.4 s
    most = int(math.log2(10 * (time.monotonic() - begun) + 1))
    if not wanted:
        # it begins again if the first end is seen before the connection is
        # idle, and so is no sign yet that connections are unwanted
        most += 1
    assert made <= 1 + most


def test_failures_do_not_count_for_the_balancer(stage):
    """Both servers fail to be warmed, and requests are tried all the same."""
    first, second, http = two(stage, "max_fails=1 fail_timeout=100s",
                              "max_fails=1 fail_timeout=100s",
                              "reuse_warm 4;")
    first.refuse()
    second.refuse()
    nginx = stage.nginx(http=http, location=PASS)
    nginx.expect_log("Connection refused")
    stage.wait_until(lambda: counts(nginx)["warm"]["opened"] >= 4,
                     timeout=20)
    second.listen()
    assert nginx.get().status == 200


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("script", [
    lambda conn: None,
    lambda conn: conn.reset(),
    lambda conn: conn.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n"),
    lambda conn: time.sleep(0.15)],
    ids=["close", "reset", "408", "soon"])
def test_an_origin_that_does_not_want_them(stage, script, workers):
    """It takes only connections on which a request comes at once."""
    origin = stage.origin(script)
    nginx = stage.nginx(http=UP.format("reuse_warm 3;"), location=PASS,
                        workers=workers)
    stage.wait_until(lambda: origin.connections >= 4)
    stage.let_pass(1)
    assert origin.connections <= 16
    assert counts(nginx)["attempts"]["total"] == 0


def hang(conn):
    conn.wait_for_close()


def reset(conn):
    conn.reset()


def say(data):
    def script(conn):
        conn.send(data)
    return script


def say_and_hang(data):
    def script(conn):
        conn.send(data)
        conn.wait_for_close()
    return script


@pytest.mark.parametrize("reload", [False, True])
@pytest.mark.parametrize("secure", ["nobody", None, "app"],
                         ids=["no-tls", "plain", "tls"])
@pytest.mark.parametrize("script", [
    lambda conn: None, reset, hang, say(b"HTTP/1.1 400 Bad\r\n\r\n"),
    say_and_hang(b"\x16\x03\x01garbage" * 30),
    say_and_hang(b"x" * 40000)],
    ids=["close", "reset", "hang", "say", "garbage", "much"])
def test_whatever_it_does_is_accounted_for(stage, script, secure, reload):
    """At any stage: before, instead of and behind the handshake."""
    origin = stage.origin(script, tls="app" if secure == "app" else None)
    nginx = stage.nginx(
        http=UP.format("reuse_warm 12;"),
        location=(PASS if secure is None else TLS_PASS)
        + "myproxy_connect_timeout 200ms;")
    nginx.expect_log(r"\[(error|crit|warn|info)\]")
    stage.wait_until(lambda: origin.connections >= 3)
    stage.let_pass(0.3)
    if reload:
        nginx.reload()
        stage.let_pass(0.2)
    found = counts(nginx)
    connections = found["connections"]
    assert connections["opened"] == (connections["open"]
                                     + connections["closed"])
    assert found["attempts"]["total"] == 0
    assert origin.connections <= 60


def test_a_certificate_that_is_not_valid(stage):
    origin = stage.origin(tls="other.test")
    nginx = stage.nginx(
        http=UP.format("reuse_warm 3;"),
        location="myproxy_pass https://app; "
                 "myproxy_ssl_trusted_certificate %{authority.path};")
    pattern = r'does not match "app" .* for "reuse_warm" of upstream: "app"'
    nginx.expect_log("does not match")
    nginx.wait_log(pattern)
    stage.wait_until(lambda: counts(nginx)["warm"]["opened"] >= 5,
                     timeout=20)
    assert idle(nginx) == 0
    assert nginx.get().status == 502
    assert all(conn.closed for conn in origin.conns[:3])


@pytest.mark.parametrize("warm", ["4", "auto"])
def test_one_location_fails_and_another_does_not(stage, authority, warm):
    """The certificate is good for one name of two. Only connections for the
    other name wait for longer each time, whatever those of the first do."""
    origin = stage.origin(tls=tls.Server(authority.issue("a.test")))
    nginx = stage.nginx(http=UP.format(f"reuse_warm {warm};"), server=NAMES)
    pattern = 'does not match "b.test"'
    nginx.expect_log(pattern)
    pay(nginx, "/a")
    if warm == "4":
        nginx.wait_log(pattern + '.* for "reuse_warm"')
    begun = time.monotonic()
    before = origin.connections
    for _ in range(20):
        assert nginx.get("/a").status == 200
        stage.let_pass(0.05)
    stage.wait_until(
        lambda: len([conn for conn in unused(origin) if conn.sni == "a.test"])
        >= 1)
    # 0.1 s at least, then 0.2 s, then 0.4 s
    most = int(math.log2(10 * (time.monotonic() - begun) + 1))
    assert origin.connections - before <= 4 + 2 + most
    assert len([line for line in nginx.lines if pattern in line]) <= 1


def test_so_many_are_opened_at_a_time(stage):
    """For all servers, whatever their number, as if none answers."""
    origins = [stage.origin(hang, name=f"origin{number}")
               for number in range(10)]
    nginx = stage.nginx(
        http="upstream app { reuse_warm 100; " + "".join(
            f"server %{{{origin.name}}}; " for origin in origins) + "}",
        location=TLS_PASS)
    stage.wait_until(
        lambda: counts(nginx)["connections"]["opened"] >= 64)
    stage.let_pass(0.2)
    assert counts(nginx)["connections"]["opened"] == 64
    assert max(origin.connections for origin in origins) == 8


def test_servers_that_hang_keep_no_others_cold(stage):
    """None answers a handshake but one."""
    for name in ("first", "second"):
        stage.origin(lambda conn: conn.wait_for_close(), name=name)
    good = stage.origin(name="good", tls="app")
    nginx = stage.nginx(
        http="upstream hung { server %{first}; server %{second}; "
             "reuse_warm 60; } upstream app { server %{first}; "
             "server %{good}; reuse_warm 6; }",
        server="location /hung { myproxy_pass https://hung; "
               "myproxy_ssl_verify off; }",
        location=TLS_PASS)
    stage.wait_until(lambda: idle(nginx) == 3)
    reached(stage, (good, 3))


def test_a_server_that_hangs_costs_requests_nothing(stage):
    """TLS is never answered by one of two; requests go to the other."""
    stage.origin(lambda conn: conn.wait_for_close(), name="first")
    second = stage.origin(name="second", tls="app")
    nginx = stage.nginx(
        http="upstream app { server %{first} backup; server %{second}; "
             "reuse_warm 2; } upstream hung { server %{first}; "
             "reuse_warm 50; }",
        server="location /hung { myproxy_pass https://hung; }",
        location=TLS_PASS)
    stage.wait_until(lambda: idle(nginx) == 2)
    started = time.monotonic()
    for _ in range(50):
        assert nginx.get().status == 200
    assert time.monotonic() - started < 5 * settings.SCALE
    assert len(second.requests) == 50


def test_a_server_for_which_the_zone_has_no_room(stage):
    """A server without a record of its own: no worker dies of it."""
    stage.origin()
    names = "".join(f"upstream app{n} {{ server %{{origin}}; }}"
                    for n in range(60))
    nginx = stage.nginx(
        http="reuse_zone 64k;" + names
        + "upstream app60 { server %{origin}; reuse_warm 2; }",
        location="myproxy_pass http://app$arg_n;")
    nginx.expect_log(r"zone .* is full")
    workers = nginx.workers()
    for n in range(61):
        assert nginx.get(f"/?n={n}").status == 200
    stage.let_pass(2.5)
    assert nginx.get("/?n=60").status == 200
    assert nginx.workers() == workers


def test_the_way_into_a_unix_socket(stage):
    """There a connection is refused, or made, at once."""
    origin = stage.origin(family="unix", listening=False)
    nginx = stage.nginx(http=UP.format("reuse_warm 3;"), location=PASS)
    pattern = r'connect\(\) .*failed .* for "reuse_warm" of upstream: "app"'
    nginx.expect_log(pattern)
    nginx.wait_log(pattern)
    stage.wait_until(lambda: counts(nginx)["warm"]["opened"] >= 3 + 2)
    found = counts(nginx)["connections"]
    assert found["closed_by_reason"]["connect_failed"] == found["closed"]
    assert len(nginx.logged(pattern)) == 1
    origin.listen()
    wait_idle(stage, nginx, 3)
    stage.wait_until(lambda: origin.connections == 3)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)


def test_what_nobody_answers_times_out(stage):
    link = stage.link()
    stage.origin(link=link)
    link.hold("a")
    nginx = stage.nginx(http=UP.format("reuse_warm 2;"), link=link,
                        location=PASS + "myproxy_connect_timeout 100ms;")
    pattern = ('upstream timed out .* while connecting to upstream, for '
               '"reuse_warm" of upstream: "app"')
    nginx.expect_log("upstream timed out")
    nginx.wait_log(pattern)
    stage.wait_until(lambda: counts(nginx)["warm"]["opened"] >= 2 + 1)
    assert len(nginx.logged(pattern)) == 1
    link.release("a")
    wait_idle(stage, nginx, 2)


def test_a_ca_that_is_not_trusted(stage, tmp_path):
    origin = stage.origin(tls="app")
    stranger = tls.Authority(tmp_path, "Another CA")
    nginx = stage.nginx(
        http=UP.format("reuse_warm 2;"),
        location="myproxy_pass https://app; "
                 f"myproxy_ssl_trusted_certificate {stranger.path};")
    pattern = 'certificate verify error: .* for "reuse_warm" of upstream:'
    nginx.expect_log("certificate verify error")
    nginx.wait_log(pattern)
    stage.wait_until(lambda: counts(nginx)["warm"]["opened"] >= 3)
    stage.wait_until(lambda: all(conn.closed for conn in origin.conns[:2]))
    assert idle(nginx) == 0
    assert len(nginx.logged(pattern)) == 1


def test_a_name_that_is_too_long_for_tls(stage):
    """It is refused before anything is sent, and that is told once."""
    stage.origin(tls="app")
    nginx = stage.nginx(
        http=UP.format("reuse_warm 2;"),
        location=TLS_PASS + f"myproxy_ssl_name {'a' * 300};")
    pattern = r'SSL_set_tlsext_host_name\("aaa.*for "reuse_warm" of upstream:'
    nginx.expect_log("SSL_set_tlsext_host_name")
    nginx.wait_log(pattern)
    stage.wait_until(lambda: counts(nginx)["warm"]["opened"] >= 2 + 2)
    stage.let_pass(0.5)
    found = counts(nginx)
    assert found["warm"]["opened"] <= 2 + 4
    assert found["connections"]["closed"] == found["warm"]["opened"]
    assert len(nginx.logged(pattern)) == 1


def test_a_record_that_has_begun_with_the_handshake(stage, authority):
    """What it will be is not known, so that it cannot be kept."""
    server = tls.Server(authority.issue("app"),
                        maximum=ssl.TLSVersion.TLSv1_2)

    def script(conn):
        if conn.number > 1:
            conn.sock = server.wrap(conn)
            conn.serve()
            return
        ours = TlsInMemory(conn.sock, server.context)
        ours.until_there(ours.tls.do_handshake)
        conn.sock.sendall(ours.sent.read() + b"\x17\x03\x03\x01\x00part")
        conn.wait_for_close()

    stage.origin(script)
    nginx = stage.nginx(http=UP.format("reuse_warm 1;"), location=TLS_PASS)
    wait_idle(stage, nginx, 1)
    found = counts(nginx)
    assert found["warm"]["opened"] == 2
    assert found["connections"]["closed_by_reason"]["unread"] == 1
    assert found["tls_handshake_duration_seconds"]["count"] == 2
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_no_time_to_connect(stage, secure):
    """What is connected at once needs none, but a handshake does."""
    origin = stage.origin(hang if secure else None, family="unix")
    nginx = stage.nginx(
        http=UP.format("reuse_warm 2;"),
        location=(TLS_PASS if secure else PASS)
        + "myproxy_connect_timeout 0;")
    if secure:
        nginx.expect_log("upstream timed out")
        nginx.wait_log("upstream timed out .*while SSL handshaking")
        stage.wait_until(lambda: counts(nginx)["warm"]["opened"] >= 2 + 1)
    else:
        wait_idle(stage, nginx, 2)
        assert nginx.get().status == 200
        assert requests(nginx) == (1, 0, 0)
        assert origin.connections == 2


def test_a_young_one_that_ends_just_before_an_old_one(stage):
    """The server has ended, and it does not mean those that are young."""
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("reuse_expiry 100s; reuse_warm 2;"), location=PASS)

    def end(*conns):
        """How long it takes until enough are there again."""
        begun = time.monotonic()
        for conn in conns:
            conn.half_close()
        stage.wait_until(lambda: all(conn.closed for conn in conns)
                         and len(live(origin)) >= 2)
        return time.monotonic() - begun

    def rested():
        found = counts(nginx)["connections"]
        return found["idle"] == found["open"] >= 2

    waited = []
    for _ in range(5):
        stage.wait_until(rested)
        assert nginx.get().status == 200
        stage.wait_until(rested)
        stage.let_pass(0.3)
        used = [conn for conn in live(origin) if conn.requests]
        end(unused(origin)[0])
        stage.wait_until(rested)
        # or else it would have ended together with the first
        stage.let_pass(0.06)
        waited.append(end(origin.conns[-1], *used))
    # after a sign that it wants none, 0.1 s at least
    assert min(waited) < 0.1
