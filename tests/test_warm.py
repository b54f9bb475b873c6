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
from harness.clock import Clock
from harness.nginx import version
from harness.warming import (
    NATIVE, PASS, TLS_PASS, UP, counts, idle, live, pay, reached,
    requests, two, unused, wait_idle)

#: So many connections in excess while one is being replaced.
REPLACED = 1


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


@pytest.mark.parametrize("method", [
    "least_conn;", "ip_hash;", "hash $uri;", "hash $uri consistent;",
    "random;"])
def test_a_balancer_that_stands_behind_keepalive(stage, method):
    """The order is of no importance."""
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format(f"keepalive 8; {method} reuse_warm 2;"),
                        location=PASS)
    wait_idle(stage, nginx, 2)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)
    if NATIVE:
        assert not nginx.logged(r"\[warn\]")
    assert origin.carried[:2].count(1) == 1


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
        accepted, _, served = re.search(
            r" (\d+) (\d+) (\d+) (?:\d+)? ?\nReading", found).groups()
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
    pay(nginx)
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
    stage.let_pass(0.3)
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


def take_samples(stage, nginx, clock, count):
    """Those of the history: there is one each ten seconds."""
    def samples():
        return len(nginx.status()["history"]["samples"])
    for _ in range(count):
        before = samples()
        clock.forward(10.1)
        stage.wait_until(lambda: samples() == before + 1)


def test_a_peak_is_forgotten(stage):
    """By an eighth a minute, and one at least: 8, 6, 5."""
    clock = Clock(stage)
    burst = Burst(stage)
    nginx = stage.nginx(http=UP.format("keepalive 64; keepalive_timeout 20s; "
                                       "reuse_warm auto;"),
                        location=PASS, env=clock.env)
    pay(nginx, count=300)
    burst.play(nginx, 8)
    wait_peak(stage, nginx, 8)
    # three minutes, and the time in which those that are too many expire
    take_samples(stage, nginx, clock, 3 * 6 + 3)
    stage.wait_until(lambda: idle(nginx) == 5 + 3)


def test_what_a_name_was_used_is_forgotten(stage, authority):
    """Two names share the number by it."""
    clock = Clock(stage)
    burst = Burst(stage, tls=tls.Server(authority.issue("a.test", "b.test")))
    nginx = stage.nginx(
        http=UP.format("reuse_warm 8;"), env=clock.env, server="""
            myproxy_ssl_verify off;
            location /a/ {
                myproxy_pass https://app/; myproxy_ssl_name a.test;
            }
            location /b/ {
                myproxy_pass https://app/; myproxy_ssl_name b.test;
            }
            """)

    def names():
        return [sum(conn.sni == name for conn in unused(burst.origin))
                for name in ("a.test", "b.test")]
    stage.wait_until(lambda: names() == [4, 4])
    burst.play(nginx, 6, "/a")
    # the default keepalive_timeout has them all made anew
    clock.forward(61)
    stage.wait_until(lambda: idle(nginx) == 8 and names() == [7, 1])
    for _ in range(7):
        opened = counts(nginx)["warm"]["opened"]
        clock.forward(61)
        stage.wait_until(lambda: idle(nginx) == 8
                         and counts(nginx)["warm"]["opened"] > opened)
    stage.wait_until(lambda: names() == [4, 4])


# reload, and the end

@pytest.mark.parametrize("what", ["3", "auto"])
def test_a_reload_has_no_cold_start(stage, what):
    burst = Burst(stage)
    nginx = stage.nginx(http=UP.format(f"reuse_warm {what};"), location=PASS)
    pay(nginx)
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
    stage.let_pass(0.2)
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
    assert sum(now > 3 for now in seen) < len(seen) / 10
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)
    found = counts(nginx)
    assert found["warm"]["opened"] == found["connections"]["opened"]
    assert found["warm"]["unused"] >= 3
    assert found["attempts"]["new"] == 0


def test_another_is_there_before_the_last_one_ends(stage):
    """It takes two round trips to open one."""
    link = stage.link(100)
    origin = stage.origin(link=link, tls="app")
    nginx = stage.nginx(
        link=link, location=TLS_PASS,
        http=UP.format("keepalive 8; keepalive_timeout 3s; reuse_warm 1;"))
    wait_idle(stage, nginx, 1)
    seen = []

    def replaced():
        seen.append(idle(nginx))
        return origin.conns[0].closed
    stage.wait_until(replaced)
    seen.append(idle(nginx))
    assert set(seen) <= {1, 2}


def test_those_that_end_together_are_replaced_one_after_another(stage):
    """Each goes as soon as another is there, and not at the last moment."""
    link = stage.link(60)
    origin = stage.origin(link=link)
    nginx = stage.nginx(
        link=link, location=PASS,
        http=UP.format("keepalive 32; keepalive_timeout 3s; reuse_warm 16;"))
    wait_idle(stage, nginx, 16)
    first = list(origin.conns)
    seen = []
    while not all(conn.closed for conn in first):
        seen.append(idle(nginx))
    assert min(seen) >= 16
    assert max(seen) <= 16 + 2


def test_a_used_one_is_as_old_as_it_is(stage):
    """keepalive_time counts from the beginning, not from the last request."""
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("keepalive 8; keepalive_time 2s; reuse_warm 1;"),
        location=PASS)
    wait_idle(stage, nginx, 1)
    opened = time.monotonic()
    stage.let_pass(1)
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
    stage.let_pass(1)
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
    nginx.wait_log(r"\[info\].*learned: server .* closes connections that "
                   r"have been idle for \d+ ms and have carried no request")
    known = time.monotonic()
    stage.let_pass(3 * limit)
    later = [conn for conn in list(origin.conns)
             if hasattr(conn, "ended_itself") and conn.opened > known + 0.5]
    assert len(later) >= 4
    assert not any(conn.ended_itself for conn in later)
    # what holds for unused ones does not for others
    assert nginx.get().status == 200
    assert counts(nginx)["attempts"]["warm"] == 1
    stage.let_pass(2 * limit)
    used, = [conn for conn in list(origin.conns) if conn.requests]
    assert not used.closed


def test_a_limit_that_was_wrong_is_forgotten(stage):
    """One connection is left to outlive it."""
    order = itertools.count()

    def script(conn):
        # three of four, and those in their place: what is closed at one
        # moment only may be a restart
        if next(order) in (0, 1, 2, 4, 5, 6):
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


def test_connections_that_last_too_short_are_not_opened(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("reuse_warm 2; reuse_expiry 90ms;"), location=PASS)
    nginx.expect_log(
        rf'\[warn\].*server 127.0.0.1:{origin.port} of upstream "app" is not '
        "kept warm: connections to it that carry no request last only 90 ms")
    assert nginx.get().status == 200
    assert origin.connections == 1
    assert counts(nginx)["attempts"]["new"] == 1


def test_restarts_are_no_waste(stage):
    """Two, soon after each other, and what they have closed is back."""
    origin = stage.origin()
    nginx = stage.nginx(
        http=UP.format("reuse_expiry 100s; reuse_warm 12;"), location=PASS)
    for _ in range(3):
        wait_idle(stage, nginx, 12)
        stage.wait_until(lambda: len(live(origin)) == 12)
        stage.let_pass(0.3)
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
    nginx.expect_log(r'upstream "app" keeps no more than 3 idle connections')
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
    stage.let_pass(0.3)
    assert 512 - origin.connections >= 512 // 8 - 1
    assert nginx.get().status == 200


# servers

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


def test_none_to_a_server_whose_requests_are_all_it_may_have(stage):
    """The other one has its share for so long."""
    first = stage.origin(lambda conn: gate.wait() or conn.serve(),
                         name="first")
    second = stage.origin(name="second")
    gate = first.gate()
    nginx = stage.nginx(
        http="upstream app { server %{first} max_conns=1 weight=3; "
             "server %{second}; reuse_warm 4; }", location=PASS)
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: len(unused(second)) == 4)
    reached(stage, (first, 1), (second, 4))
    gate.open()
    assert client.read_response().status == 200


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
    assert found["attempts"]["warm"] == 1
    for form, pattern in [
            ("prometheus", r'nginx_reuse_warm_opened_total{[^}]*} (\d+)'),
            ("html", r'<data class="ahead" value="(\d+)">')]:
        shown = int(re.search(pattern, show(form)).group(1))
        assert shown >= found["warm"]["opened"] >= 3
    assert "nginx_reuse_warm_unused_total" in show("prometheus")
    assert 'connection="warm",reason=""} 1' in show("prometheus")


def test_the_history_has_them(stage):
    clock = Clock(stage)
    burst = Burst(stage)
    nginx = stage.nginx(http=UP.format("reuse_warm 3;"), location=PASS,
                        env=clock.env)
    wait_idle(stage, nginx, 3)
    burst.play(nginx, 3)
    assert requests(nginx) == (3, 0, 0)
    clock.forward(10.1)
    stage.wait_until(lambda: nginx.status()["history"]["samples"])
    assert nginx.status()["history"]["samples"] == [
        {"attempts": 3, "ready": 3}]


def test_the_sums_hold(stage):
    burst = Burst(stage)
    nginx = stage.nginx(
        http=UP.format("reuse_warm 4; reuse_expiry 1s;"), location=PASS)
    for _ in range(4):
        burst.play(nginx, 3)
        stage.let_pass(0.5)

    def hold():
        found = counts(nginx)
        closed = found["connections"]["closed"]
        assert found["connections"]["opened"] == (
            found["connections"]["open"] + closed)
        assert found["attempts"]["total"] == 12
        assert found["attempts"]["warm"] == found["attempts"]["warm"] > 0
        assert found["warm"]["unused"] <= closed
        return found["warm"]["opened"] == (
            found["attempts"]["warm"] + found["warm"]["unused"]
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
    assert 'has "reuse_warm", but "reuse off" stands in it or in' in found
    assert "nginx.conf:" in found


def test_a_worker_that_dies_is_followed_by_a_warm_one(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_warm 3;"), location=PASS)
    nginx.expect_kills()
    wait_idle(stage, nginx, 3)
    nginx.kill_worker(nginx.workers()[0], signal.SIGKILL)
    stage.wait_until(lambda: len(live(origin)) == 3
                     and origin.connections == 6)
    wait_idle(stage, nginx, 3)
    assert nginx.get().status == 200
    assert requests(nginx) == (1, 0, 0)
