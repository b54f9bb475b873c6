"""Connections are there before a request needs them.

A burst is held at the origin until it is complete, so that each request of it
takes a connection of its own.
"""

import itertools
import os
import re
import signal
import ssl
import time

import pytest

from harness import http1, settings, tls
from harness.nginx import has, version

UP = "upstream app {{ server %{{origin}}; {} }}"
PASS = "myproxy_pass http://app;"
TLS_PASS = "myproxy_pass https://app; myproxy_ssl_verify off;"

#: Two identities of one upstream.
NAMES = """
    myproxy_ssl_trusted_certificate %{authority.path};
    location /a { myproxy_pass https://app; myproxy_ssl_name a.test; }
    location /b { myproxy_pass https://app; myproxy_ssl_name b.test; }
    """

#: From there on an upstream{} block keeps connections for every handler.
NATIVE = version() >= (1, 29, 7)

#: So many connections in excess while one is being replaced.
REPLACED = 1


def live(origin):
    """The connections that neither side has closed."""
    return [conn for conn in list(origin.conns) if not conn.closed]


def unused(origin):
    return [conn for conn in live(origin) if not conn.requests]


def counts(nginx):
    return nginx.status()["total"]


def idle(nginx):
    return counts(nginx)["connections"]["idle"]


def wait_idle(stage, nginx, count):
    """Once so many are in the pool, and none is being opened."""
    def reached():
        found = counts(nginx)["connections"]
        return found["idle"] == count and found["open"] == count
    stage.wait_until(reached, what=f"{count} idle connections")


def let_pass(stage, seconds):
    end = time.monotonic() + seconds
    stage.wait_until(lambda: time.monotonic() >= end)


class Burst:
    """An origin that answers when all requests of a burst are there."""

    def __init__(self, stage, name="origin", **more):
        self.stage = stage
        self.gates = []
        self.origin = stage.origin(lambda conn: conn.serve(self.answer),
                                   name=name, **more)

    def answer(self, request):
        if request.target.startswith("/hold"):
            self.gates[int(request.target[5:])].wait()
        return http1.response()

    def play(self, nginx, size, target="", port="main"):
        """The connections' numbers of requests before and after."""
        self.gates.append(self.origin.gate())
        held = f"/hold{len(self.gates) - 1}"
        before = len(self.origin.requests)
        clients = [nginx.connect(port) for _ in range(size)]
        for client in clients:
            client.send(http1.request("GET", target + held))
        self.stage.wait_until(
            lambda: len(self.origin.requests) == before + size,
            what="the whole burst")
        self.gates[-1].open()
        for client in clients:
            assert client.read_response().status == 200
            client.close()


def requests(nginx):
    found = counts(nginx)["requests"]
    return found["warm"], found["reused"], found["new"]


# a number

@pytest.mark.parametrize("secure", [
    None, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_burst_after_the_start(stage, authority, secure):
    if secure:
        secure = tls.Server(authority.issue("app"), maximum=secure)
    burst = Burst(stage, tls=secure)
    nginx = stage.nginx(http=UP.format("reuse_warm 5;"),
                        location=TLS_PASS if secure else PASS)
    wait_idle(stage, nginx, 5)
    assert burst.origin.requests == []
    burst.play(nginx, 5)
    assert requests(nginx) == (5, 0, 0)
    assert sorted(burst.origin.carried)[-5:] == [1] * 5


def test_more_are_opened_as_they_are_taken(stage):
    burst = Burst(stage)
    nginx = stage.nginx(http=UP.format("reuse_warm 3;"), location=PASS)
    wait_idle(stage, nginx, 3)
    gate = burst.origin.gate()
    burst.gates.append(gate)
    clients = [nginx.connect() for _ in range(2)]
    for client in clients:
        client.send(http1.request("GET", "/hold0"))
    stage.wait_until(lambda: len(burst.origin.requests) == 2)
    stage.wait_until(lambda: len(unused(burst.origin)) == 3)
    assert len(live(burst.origin)) == 5
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    wait_idle(stage, nginx, 5)
    burst.play(nginx, 5)
    assert requests(nginx) == (5, 2, 0)


def test_no_more_than_the_number_at_steady_load(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_warm 4;"), location=PASS)
    wait_idle(stage, nginx, 4)
    client = nginx.connect()
    for _ in range(500):
        assert client.get("/").status == 200
    assert origin.connections <= 5
    assert len(unused(origin)) <= 4


def test_each_worker_has_its_own(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_warm 2;"), location=PASS,
                        workers=3)
    wait_idle(stage, nginx, 6)
    reached(stage, (origin, 6))


def test_of_an_implicit_upstream(stage):
    origin = stage.origin()
    nginx = stage.nginx(http="reuse_warm 2;",
                        location="myproxy_pass http://%{origin};")
    wait_idle(stage, nginx, 2)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)
    assert origin.connections <= 3


@pytest.mark.parametrize("value", ["off", "0"])
def test_off_in_an_upstream(stage, value):
    origin = stage.origin()
    other = stage.origin(name="other")
    nginx = stage.nginx(
        http="reuse_warm 2;" + UP.format(f"reuse_warm {value};"),
        location=PASS,
        server="location /other { myproxy_pass http://%{other}; }")
    wait_idle(stage, nginx, 2)
    reached(stage, (other, 2))
    assert nginx.get().status == 200
    assert requests(nginx) == (0, 0, 1)
    assert origin.connections == 1


def test_the_log_tells_them_apart(stage):
    stage.origin()
    nginx = stage.nginx(
        http="log_format reuse '$uri $reuse_connection $reuse_reason "
             "$reuse_requests';" + UP.format("keepalive 1; reuse_warm 1;"),
        server="access_log %{prefix}/access.log reuse;", location=PASS)
    wait_idle(stage, nginx, 1)
    client = nginx.connect()
    assert client.get("/1").status == 200
    assert client.get("/2").status == 200
    client.close()
    stage.wait_until(lambda: nginx.read("access.log").count(b"\n") == 2)
    assert nginx.read("access.log").splitlines() == [
        b"/1 warm - 1", b"/2 reused - 2"]


def test_they_are_nobodys_requests(stage):
    """No access log, no post_action, nothing in stub_status."""
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("reuse_warm 4;"),
        server="""access_log %{prefix}/all.log combined;
            location = /stub { access_log off; stub_status; }
            location = /after { return 200; }""",
        location=PASS + "post_action /after;")
    wait_idle(stage, nginx, 4)

    def stub():
        found = nginx.get("/stub").body.decode()
        assert "Reading: 0 Writing: 1" in found
        accepted, _, served = re.search(r" (\d+) (\d+) (\d+) \nReading",
                                        found).groups()
        assert accepted == served
        return int(served)

    first = stub()
    assert stub() == first + 1
    assert origin.requests == []
    assert nginx.read("all.log") == b""
    assert nginx.get().status == 200
    stage.wait_until(lambda: nginx.read("all.log").count(b"\n") == 1)


# auto

def wait_peak(stage, nginx, peak):
    """Once there are a few more than that; it may be that a request did not
    wait for one that was being opened, so that there is another one."""
    wanted = peak + max(peak // 4, 3)

    def reached():
        found = counts(nginx)["connections"]
        return found["idle"] == found["open"] >= wanted
    stage.wait_until(reached, what=f"{wanted} idle connections")
    assert idle(nginx) <= wanted + 2


def test_auto_follows_the_peak(stage):
    burst = Burst(stage)
    nginx = stage.nginx(http=UP.format("reuse_warm auto;"), location=PASS)
    assert nginx.get("/").status == 200
    burst.play(nginx, 6)
    wait_peak(stage, nginx, 6)
    first = live(burst.origin)
    for conn in first:
        conn.half_close()
    stage.wait_until(lambda: all(conn.closed for conn in first))
    wait_peak(stage, nginx, 6)
    before = requests(nginx)
    burst.play(nginx, 9)
    after = requests(nginx)
    assert after[2] == before[2]
    assert after[0] == before[0] + 9


def test_auto_opens_nothing_without_requests(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_warm auto;"), location=PASS)
    let_pass(stage, 0.3)
    assert idle(nginx) == 0
    assert origin.connections == 0


def test_auto_opens_none_while_there_are_enough(stage):
    burst = Burst(stage)
    nginx = stage.nginx(http=UP.format("reuse_warm auto;"), location=PASS)
    burst.play(nginx, 4)
    wait_peak(stage, nginx, 4)
    opened = counts(nginx)["connections"]["opened"]
    for _ in range(5):
        burst.play(nginx, 4)
    assert nginx.get("/").status == 200
    assert counts(nginx)["connections"]["opened"] == opened


# reload, and the end

@pytest.mark.parametrize("what", ["3", "auto"])
def test_a_reload_has_no_cold_start(stage, what):
    burst = Burst(stage)
    nginx = stage.nginx(http=UP.format(f"reuse_warm {what};"), location=PASS)
    burst.play(nginx, 3)
    stage.wait_until(lambda: idle(nginx) >= 3)
    nginx.reload()
    old = requests(nginx)
    stage.wait_until(lambda: len(unused(burst.origin)) >= 3)
    stage.wait_until(lambda: idle(nginx) >= 3)
    burst.play(nginx, 3)
    new = requests(nginx)
    assert (new[0] - old[0], new[2] - old[2]) == (3, 0)


def test_a_worker_that_shuts_down_opens_none(stage):
    burst = Burst(stage)
    nginx = stage.nginx(http=UP.format("reuse_warm 2;"), location=PASS)
    wait_idle(stage, nginx, 2)
    burst.gates.append(burst.origin.gate())
    client = nginx.connect()
    client.send(http1.request("GET", "/hold0"))
    stage.wait_until(lambda: len(burst.origin.requests) == 1)
    old = nginx.workers()
    nginx.reload(http=UP.format(""))
    stage.wait_until(lambda: len(live(burst.origin)) == 1)
    opened = burst.origin.connections
    let_pass(stage, 0.2)
    assert burst.origin.connections == opened
    burst.gates[0].open()
    assert client.read_response().status == 200
    stage.wait_until(lambda: not set(old) & set(nginx.workers()))
    assert burst.origin.connections == opened


def test_what_is_being_opened_does_not_hold_a_worker_back(stage):
    """The origin does not answer the handshake, and nginx waits a minute."""
    origin = stage.origin(lambda conn: conn.wait_for_close())
    nginx = stage.nginx(http=UP.format("reuse_warm 2;"), location=TLS_PASS)
    stage.wait_until(lambda: len(live(origin)) == 2)
    old = nginx.workers()
    nginx.reload(http=UP.format(""))
    gone = time.monotonic()
    stage.wait_until(lambda: not set(old) & set(nginx.workers()))
    # the tests' worker_shutdown_timeout
    assert time.monotonic() - gone < 2.5


# their end

@pytest.mark.parametrize("limit", [
    "reuse_expiry 1s;", "keepalive_timeout 1s;", "keepalive_time 1s;"])
def test_they_are_replaced_before_their_end(stage, limit):
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("keepalive 8; reuse_warm 3;" + limit), location=PASS)
    wait_idle(stage, nginx, 3)
    first = list(origin.conns)
    seen = []
    end = time.monotonic() + 3 * settings.SCALE
    while time.monotonic() < end:
        seen.append(idle(nginx))
    stage.wait_until(lambda: all(conn.closed for conn in first))
    assert min(seen) >= 1
    assert max(seen) <= 3 + REPLACED
    # for as long as it takes to open one
    assert sum(now > 3 for now in seen) < len(seen) / 4
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)
    found = counts(nginx)
    assert found["warm"]["opened"] == found["connections"]["opened"]
    assert found["warm"]["unused"] >= 3
    assert found["requests"]["new"] == 0


def test_a_used_one_is_as_old_as_it_is(stage):
    """keepalive_time counts from the beginning, not from the last request."""
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("keepalive 8; keepalive_time 2s; reuse_warm 1;"),
        location=PASS)
    wait_idle(stage, nginx, 1)
    opened = time.monotonic()
    let_pass(stage, 1)
    assert nginx.get().status == 200
    used, = [conn for conn in live(origin) if conn.requests]
    stage.wait_until(lambda: used.closed)
    assert time.monotonic() - opened < 2.6 * settings.SCALE


def test_a_shorter_timeout_has_no_margin_of_a_limit(stage):
    """A sixteenth of the limit is longer than all of the timeout."""
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("keepalive 8; keepalive_timeout 3s; "
                       "reuse_expiry 100s; reuse_warm 2;"), location=PASS)
    wait_idle(stage, nginx, 2)
    let_pass(stage, 1)
    assert origin.connections == 2
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)


def test_the_time_is_learned_at_which_an_unused_one_is_closed(stage):
    """The origin closes connections on which no request has come."""
    limit = 1.5 * settings.SCALE

    def script(conn):
        conn.opened = time.monotonic()
        conn.sock.settimeout(limit)
        try:
            first = conn.sock.recv(1)
        except TimeoutError:
            conn.ended_itself = True
            return
        conn.ended_itself = False
        if first:
            conn._unread += first
            conn.serve()

    origin = stage.origin(script)
    nginx = stage.nginx(http=UP.format("reuse_warm 4;"), location=PASS)
    nginx.wait_log("closes connections that have been idle for")
    known = time.monotonic()
    end = known + 3 * limit
    stage.wait_until(lambda: time.monotonic() >= end,
                     timeout=4 * limit + settings.PATIENCE)
    later = [conn for conn in list(origin.conns)
             if hasattr(conn, "ended_itself") and conn.opened > known + 0.5]
    assert len(later) >= 4
    assert not any(conn.ended_itself for conn in later)
    # what holds for unused ones does not for others
    assert nginx.get().status == 200
    assert counts(nginx)["requests"]["warm"] == 1
    let_pass(stage, 2 * limit)
    used, = [conn for conn in list(origin.conns) if conn.requests]
    assert not used.closed


def test_a_limit_that_was_wrong_is_forgotten(stage):
    """One connection is left to outlive it."""
    order = itertools.count()

    def script(conn):
        if next(order) < 3:
            conn.sock.settimeout(1.5 * settings.SCALE)
            try:
                conn.sock.recv(1)
            except TimeoutError:
                return
        conn.wait_for_close()

    stage.origin(script)
    nginx = stage.nginx(http=UP.format("reuse_warm 4;"), location=PASS)
    nginx.wait_log('" closes connections that have been idle')
    nginx.wait_log("no longer closes connections that have been idle")


def test_restarts_are_no_waste(stage):
    """Two, soon after each other, and what they have closed is back."""
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("reuse_expiry 100s; reuse_warm 12;"), location=PASS)
    for _ in range(3):
        wait_idle(stage, nginx, 12)
        stage.wait_until(lambda: len(live(origin)) == 12)
        let_pass(stage, 0.3)
        closed = live(origin)
        for conn in closed:
            conn.half_close()
        begun = time.monotonic()
        stage.wait_until(lambda: all(conn.closed for conn in closed)
                         and len(live(origin)) == 12)
        assert time.monotonic() - begun < 0.4 * settings.SCALE


def test_the_pool_bounds_them(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("keepalive 3; reuse_warm 5;"),
                        location=PASS)
    nginx.expect_log(r'upstream "app" keeps no more than 3 connections')
    wait_idle(stage, nginx, 3)
    client = nginx.connect()
    for _ in range(300):
        assert client.get("/").status == 200
    assert origin.connections <= 4
    assert counts(nginx)["connections"]["closed_by_reason"]["full"] == 0


def test_a_pool_of_just_that_size_is_not_churned(stage):
    burst = Burst(stage)
    nginx = stage.nginx(http=UP.format("keepalive 4; reuse_warm 4;"),
                        location=PASS)
    wait_idle(stage, nginx, 4)
    for _ in range(20):
        burst.play(nginx, 2)
    assert burst.origin.connections == 4


def test_few_connections_of_the_worker_are_left(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_warm 600;"), location=PASS,
                        main="worker_rlimit_nofile 4096;")
    stage.wait_until(lambda: origin.connections >= 400)
    let_pass(stage, 0.3)
    assert 512 - origin.connections >= 512 // 8 - 1
    assert nginx.get().status == 200


# servers

def reached(stage, *wanted):
    """Each of the origins has so many connections, and gets no more."""
    def have():
        return all(origin.connections == count for origin, count in wanted)
    stage.wait_until(have, what=f"{wanted}")
    let_pass(stage, 0.05)
    assert have()


def two(stage, first="", second="", more=""):
    return (stage.origin(name="first"), stage.origin(name="second"),
            f"upstream app {{ server %{{first}} {first}; "
            f"server %{{second}} {second}; {more} }}")


def test_by_weight(stage):
    first, second, http = two(stage, "weight=3", "", "reuse_warm 8;")
    nginx = stage.nginx(http=http, location=PASS)
    wait_idle(stage, nginx, 8)
    reached(stage, (first, 6), (second, 2))


@pytest.mark.parametrize("state", ["down", "backup"])
def test_none_to_a_server_that_gets_no_requests(stage, state):
    first, second, http = two(stage, "", state, "reuse_warm 4;")
    nginx = stage.nginx(http=http, location=PASS)
    wait_idle(stage, nginx, 4)
    reached(stage, (first, 4), (second, 0))


def test_none_to_a_server_that_has_failed(stage):
    """A request finds out, and the other server has them all."""
    first, second, http = two(
        stage, "", "", "reuse_warm auto;")
    first.refuse()
    nginx = stage.nginx(http=http, location=PASS, server="""
        location /slow { myproxy_pass http://app; }""")
    for _ in range(4):
        assert nginx.get().status == 200
    stage.wait_until(lambda: idle(nginx) >= 2)
    assert first.connections == 0
    found = counts(nginx)
    assert found["warm"]["opened"] <= 3


def test_no_more_than_max_conns(stage):
    first, second, http = two(stage, "max_conns=2", "", "reuse_warm 8;")
    nginx = stage.nginx(http=http, location=PASS)
    stage.wait_until(lambda: idle(nginx) == 6)
    reached(stage, (first, 2), (second, 4))


def test_an_address_that_is_listed_twice(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http="upstream app { server %{origin}; server %{origin}; "
             "reuse_warm 4; }", location=PASS)
    wait_idle(stage, nginx, 4)
    reached(stage, (origin, 4))


BALANCERS = {
    "round_robin": "",
    "hash": "hash $binary_remote_addr$uri$http_x;",
    "consistent": "hash $request_uri consistent;",
    "ip_hash": "ip_hash;",
    "least_conn": "least_conn;",
    "random": "random;",
    "random_two": "random two least_conn;",
}


@pytest.mark.parametrize("pool", ["", "keepalive 20;"])
@pytest.mark.parametrize("zone", ["", "zone app 64k;"])
@pytest.mark.parametrize("name", BALANCERS)
def test_with_each_balancer(stage, name, zone, pool):
    first, second, http = two(
        stage, "", "", f"{zone} {BALANCERS[name]} {pool} reuse_warm 6;")
    nginx = stage.nginx(http=http, location=PASS)
    wait_idle(stage, nginx, 6)
    reached(stage, (first, 3), (second, 3))
    for count in range(6):
        assert nginx.get(f"/{count}").status == 200
    assert requests(nginx)[2] == 0
    for conn in live(first) + live(second):
        conn.half_close()
    stage.wait_until(lambda: len(unused(first)) == len(unused(second)) == 3)


@pytest.mark.parametrize("zone", ["", "zone app 64k;"])
def test_a_balancer_counts_none_of_them(stage, zone):
    """least_conn goes on as if there were no warm connections."""
    first, second, http = two(
        stage, "", "", f"{zone} least_conn; reuse_warm 2;")
    nginx = stage.nginx(http=http, location=PASS)
    wait_idle(stage, nginx, 2)
    for _ in range(10):
        assert nginx.get().status == 200
    assert len(first.requests) == len(second.requests) == 5


@pytest.mark.skipif(version() < (1, 27, 3), reason="takes resolve")
def test_with_servers_that_are_resolved(stage):
    origin = stage.origin()
    stage.dns({"app.test": ["127.0.0.1"]})
    nginx = stage.nginx(
        http=f"""resolver %{{dns}} valid=1s ipv6=off;
            upstream app {{ zone app 64k;
                server app.test:{origin.port} resolve; reuse_warm 3; }}""",
        location=PASS)
    wait_idle(stage, nginx, 3)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)


# failures

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
    let_pass(stage, 0.5)
    assert counts(nginx)["warm"]["opened"] <= 4 + 5
    assert len([line for line in nginx.lines
                if "Connection refused" in line]) == 1
    origin.listen()
    wait_idle(stage, nginx, 4)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)


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


@pytest.mark.parametrize("script", [
    lambda conn: None,
    lambda conn: conn.reset(),
    lambda conn: conn.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")],
    ids=["close", "reset", "408"])
def test_an_origin_that_does_not_want_them(stage, script):
    """It takes only connections on which a request comes at once."""
    origin = stage.origin(script)
    nginx = stage.nginx(http=UP.format("reuse_warm 3;"), location=PASS)
    stage.wait_until(lambda: origin.connections >= 4)
    let_pass(stage, 1)
    assert origin.connections <= 16
    assert counts(nginx)["requests"]["total"] == 0


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
    let_pass(stage, 0.3)
    if reload:
        nginx.reload()
        let_pass(stage, 0.2)
    found = counts(nginx)
    connections = found["connections"]
    assert connections["opened"] == (connections["open"]
                                     + connections["closed"])
    assert found["requests"]["total"] == 0
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


def test_a_name_that_a_request_has_shown(stage, authority):
    origin = stage.origin(tls=tls.Server(authority.issue("a.test", "b.test")))
    nginx = stage.nginx(
        http=UP.format("reuse_warm 4;"),
        location="myproxy_pass https://app; myproxy_ssl_name $arg_name; "
                 "myproxy_ssl_trusted_certificate %{authority.path};")
    let_pass(stage, 0.2)
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
    let_pass(stage, 0.1)
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
    assert all(conn.client_certificate for conn in live(origin))


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
    assert found["tls"]["full"] >= 1
    assert found["requests"]["warm"] == 2


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
    let_pass(stage, 0.2)
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
    let_pass(stage, 0.1)
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
    let_pass(stage, 0.1)
    assert origin.connections == 1


def test_other_handlers_on_an_inherited_one_are_left_alone(stage):
    origin = stage.origin()
    nginx = stage.nginx(http="reuse_warm 3;" + UP.format(""),
                        location="proxy_pass http://app;")
    for _ in range(2):
        assert nginx.get().status == 200
    let_pass(stage, 0.1)
    assert origin.connections == (1 if NATIVE else 2)


# requests on them

@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_origin_closes_as_a_request_comes(stage, method):
    """nginx is not told before: the worker does not run meanwhile."""
    def script(conn):
        if conn.number > 1:
            conn.serve()
            return
        gate.wait()
        conn.half_close()
        conn.wait_until_delivered()
        conn.ended = True

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(http=UP.format("keepalive 1; reuse_warm 1;"),
                        location=PASS)
    wait_idle(stage, nginx, 1)
    worker = nginx.workers()[0]
    client = nginx.connect()
    nginx.pause_worker(worker)
    client.send(http1.request(method, "/", body=b"x"))
    gate.open()
    stage.wait_until(lambda: origin.conns
                     and hasattr(origin.conns[0], "ended"))
    nginx.resume_worker(worker)
    assert client.read_response().status == 200
    assert origin.request.method == method


def test_hold_back_a_body_that_is_not_buffered(stage):
    """One whose end is not known is not risked for it."""
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_warm 1;"),
                        location=PASS + "myproxy_request_buffering off;")
    wait_idle(stage, nginx, 1)
    client = nginx.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
    stage.wait_until(lambda: origin.requests)
    client.send(b"body")
    assert client.read_response().status == 200
    found = counts(nginx)["requests"]
    assert found["new_by_reason"]["unbuffered"] == 1


def test_what_an_origin_says_first_is_not_an_answer(stage):
    def script(conn):
        if conn.number == 1:
            gate.wait()
            conn.send(http1.response(200, body=b"stray"))
            conn.wait_for_close()
        else:
            conn.serve()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(http=UP.format("reuse_warm 1;"), location=PASS)
    wait_idle(stage, nginx, 1)
    gate.open()
    stage.wait_until(lambda: origin.conns and origin.conns[0].closed)
    response = nginx.get()
    assert (response.status, response.body) == (200, b"hello\n")
    assert counts(nginx)["connections"]["closed_by_reason"]["excess"] == 1


VERSIONS = pytest.mark.parametrize("maximum", [
    ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("paused", [False, True])
def test_what_it_says_first_over_tls_is_not_either(stage, authority, maximum,
                                                   method, paused):
    """It is read from the socket before a request could see it there."""
    def script(conn):
        if conn.number == 1:
            gate.wait()
            conn.send(http1.response(200, body=b"stray"))
            conn.wait_until_delivered()
            conn.said = True
        conn.serve()

    origin = stage.origin(script, tls=tls.Server(authority.issue("app"),
                                                 maximum=maximum))
    gate = origin.gate()
    nginx = stage.nginx(http=UP.format("keepalive 1; reuse_warm 1;"),
                        server="location = /accepted { return 204; }",
                        location=TLS_PASS)
    wait_idle(stage, nginx, 1)
    stage.wait_until(lambda: origin.conns
                     and origin.conns[0].tls_version)
    client = nginx.connect()
    assert client.get("/accepted").status == 204
    if paused:
        nginx.pause_worker(nginx.workers()[0])
        client.send(http1.request(method, "/", body=b"x"))
    gate.open()
    stage.wait_until(lambda: origin.conns
                     and hasattr(origin.conns[0], "said"))
    if paused:
        nginx.resume_worker(nginx.workers()[0])
    else:
        stage.wait_until(lambda: counts(nginx)["connections"]["closed"] >= 1)
        client.send(http1.request(method, "/", body=b"x"))
    response = client.read_response()
    if paused and method == "GET":
        # sent before it was seen, and then not passed on
        assert response.status in (200, 502)
    else:
        assert response.status == 200
    assert response.body != b"stray"
    closed = counts(nginx)["connections"]["closed_by_reason"]
    assert closed["excess"] == 1


@VERSIONS
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_end_in_tls_is_an_end(stage, authority, maximum, method):
    """close_notify comes, and TCP stays open."""
    def script(conn):
        if conn.number == 1:
            gate.wait()
            conn.sock.settimeout(settings.PATIENCE)
            try:
                conn.sock.unwrap()
            except (OSError, ValueError):
                pass
            return
        conn.serve()

    origin = stage.origin(script, tls=tls.Server(authority.issue("app"),
                                                 maximum=maximum))
    gate = origin.gate()
    nginx = stage.nginx(http=UP.format("keepalive 1; reuse_warm 1;"),
                        location=TLS_PASS)
    wait_idle(stage, nginx, 1)
    gate.open()
    stage.wait_until(lambda: counts(nginx)["connections"]["closed"] >= 1)
    closed = counts(nginx)["connections"]["closed_by_reason"]
    assert closed["closed"] == 1
    assert nginx.request(method, "/", body=b"x").status == 200
    assert origin.connections == 2


# accounts

def test_they_are_shown(stage):
    stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_warm 3;"), location=PASS)
    wait_idle(stage, nginx, 3)
    assert nginx.get().status == 200

    def show(form):
        return nginx.get(f"/reuse-status?format={form}",
                         port="probe").body.decode()
    found = counts(nginx)
    assert found["warm"]["used"] == 1
    for form, pattern in [
            ("prometheus", r'nginx_reuse_warm_opened_total{[^}]*} (\d+)'),
            ("html", r'<data class="ahead" value="(\d+)">')]:
        shown = int(re.search(pattern, show(form)).group(1))
        assert shown >= found["warm"]["opened"] >= 3
    assert "nginx_reuse_warm_unused_total" in show("prometheus")
    assert 'connection="warm",reason=""} 1' in show("prometheus")


def test_the_sums_hold(stage):
    burst = Burst(stage)
    nginx = stage.nginx(
        http=UP.format("reuse_warm 4; reuse_expiry 1s;"), location=PASS)
    for _ in range(4):
        burst.play(nginx, 3)
        let_pass(stage, 0.5)

    def hold():
        found = counts(nginx)
        closed = found["connections"]["closed"]
        assert found["connections"]["opened"] == (
            found["connections"]["open"] + closed)
        assert found["requests"]["total"] == 12
        assert found["warm"]["used"] == found["requests"]["warm"] > 0
        assert found["warm"]["unused"] <= closed
        return found["warm"]["opened"] == (
            found["warm"]["used"] + found["warm"]["unused"]
            + len(unused(burst.origin)))
    stage.wait_until(hold, what="the sum of what was opened ahead")


def test_nothing_leaks_as_they_are_replaced(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("reuse_warm 8; reuse_expiry 500ms;"), location=PASS)
    wait_idle(stage, nginx, 8)
    worker = nginx.workers()[0]

    def descriptors():
        return len(os.listdir(f"/proc/{worker}/fd"))

    before = descriptors()
    stage.wait_until(lambda: origin.connections >= 60, timeout=60)
    stage.wait_until(lambda: descriptors() <= before + REPLACED)


# configuration

@pytest.mark.parametrize("value", ["-1", "x", "1.5", "10001", "auto1", '""'])
def test_a_value_that_is_none(stage, value):
    code, found = stage.config_test(
        http="upstream app { server 127.0.0.1:1;\nreuse_warm " + value
             + "; }")
    assert code != 0
    assert 'of "reuse_warm": it is how many connections' in found
    assert "nginx.conf:" in found


def test_twice(stage):
    code, found = stage.config_test(
        http="upstream app { server 127.0.0.1:1; reuse_warm 1; "
             "reuse_warm auto; }")
    assert code != 0
    assert '"reuse_warm" directive is duplicate' in found


@pytest.mark.parametrize("place", ["upstream", "http"])
def test_without_reuse(stage, place):
    off = {"upstream": ("", "reuse off;"), "http": ("reuse off;", "")}[place]
    code, found = stage.config_test(
        http=f"{off[0]} upstream app {{ server 127.0.0.1:1; reuse_warm 1; "
             f"{off[1]} }}", location=PASS)
    assert code != 0
    assert '"reuse_warm" needs "reuse on"' in found
    assert "nginx.conf:" in found


def test_a_worker_that_dies_is_followed_by_a_warm_one(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_warm 3;"), location=PASS)
    nginx.expect_log("exited on signal 9")
    wait_idle(stage, nginx, 3)
    nginx.kill_worker(nginx.workers()[0], signal.SIGKILL)
    stage.wait_until(lambda: len(live(origin)) == 3
                     and origin.connections == 6)
    wait_idle(stage, nginx, 3)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)
