"""Connections that are opened ahead count for the whole server: for all of
its worker processes."""

import contextlib
import signal
import time

import pytest

from harness import http1, settings, tls
from harness.clock import Clock
from harness.warming import (
    PASS, TLS_PASS, UP, counts, live, pay, unused, wait_idle)

#: Longer than from one plan of a worker to its next one.
PLANNED = 1.3


def stays(stage, origin, count):
    """The origin has so many unused connections, and gets no more."""
    stage.wait_until(lambda: len(unused(origin)) == count,
                     what=f"{count} unused connections")
    made = origin.connections
    stage.let_pass(PLANNED)
    assert len(unused(origin)) == count
    assert origin.connections == made


def ask_workers(nginx, workers):
    """Clients that are connected at a time meet one worker or another."""
    clients = [nginx.connect() for _ in range(8 * workers)]
    for client in clients:
        assert client.get("/").status == 200
    for client in clients:
        client.close()


# a number

@pytest.mark.parametrize("count", [1, 2, 7])
def test_all_workers_have_the_number_together(stage, count):
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format(f"reuse_warm {count};"), location=PASS,
                        workers=3)
    wait_idle(stage, nginx, count)
    stays(stage, origin, count)


@pytest.mark.parametrize("count, workers", [(2, 4), (4, 2), (3, 2)])
def test_with_tls_each_worker_has_a_part_of_the_number(stage, count, workers):
    origin = stage.origin(tls="app")
    nginx = stage.nginx(http=UP.format(f"reuse_warm {count};"),
                        location=TLS_PASS, workers=workers)
    wait_idle(stage, nginx, count)
    stays(stage, origin, count)


def test_with_tls_each_server_has_its_part(stage):
    """Two workers, two servers, two connections: one to each server."""
    first = stage.origin(name="first", tls="app")
    second = stage.origin(name="second", tls="app")
    nginx = stage.nginx(
        http="upstream app { server %{first}; server %{second}; "
             "reuse_warm 2; }", location=TLS_PASS, workers=2)
    wait_idle(stage, nginx, 2)
    stays(stage, first, 1)
    stays(stage, second, 1)


def test_with_tls_a_number_bounds_all_workers(stage):
    """Whatever worker has the requests."""
    origin = stage.origin(tls="app")
    nginx = stage.nginx(http=UP.format("reuse_warm 4;"), location=TLS_PASS,
                        workers=4)
    wait_idle(stage, nginx, 4)
    ask_workers(nginx, 4)
    stage.let_pass(PLANNED)
    used = len([conn for conn in live(origin) if conn.requests])
    # those that were used are ready as well
    assert len(unused(origin)) <= 4
    assert len(live(origin)) <= max(4, used) + 1


def test_more_are_opened_as_they_are_taken(stage):
    """By one worker, whichever of them has taken some."""
    origin = stage.origin(lambda conn: conn.serve(answer))
    gate = origin.gate()

    def answer(request):
        gate.wait()
        return http1.response()

    nginx = stage.nginx(http=UP.format("reuse_warm 3;"), location=PASS,
                        workers=3)
    wait_idle(stage, nginx, 3)
    clients = [nginx.connect() for _ in range(4)]
    for client in clients:
        client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: len(origin.requests) == 4)
    stage.wait_until(lambda: len(unused(origin)) == 3)
    assert len(live(origin)) == 7
    gate.open()
    for client in clients:
        assert client.read_response().status == 200


# who plans

@pytest.mark.parametrize("what", ["2", "auto"])
def test_another_worker_takes_over(stage, what):
    """Any of them may have opened them."""
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format(f"reuse_warm {what};"), location=PASS,
                        workers=3)
    nginx.expect_kills()
    count = 2
    if what == "auto":
        pay(nginx, count=200)
        count = 4
    for worker in nginx.workers():
        nginx.kill_worker(worker, signal.SIGKILL)
        for conn in live(origin):
            with contextlib.suppress(OSError):
                # it has been closed meanwhile
                conn.half_close()
        stage.wait_until(lambda: len(unused(origin)) >= count,
                         timeout=4 * settings.SCALE)
    # one is being replaced, maybe
    stage.wait_until(lambda: count <= len(live(origin)) <= count + 1)


@pytest.mark.parametrize("secure", [False, True])
def test_a_reload(stage, secure):
    """Those of the new configuration are there at once, and no more."""
    origin = stage.origin(tls="app" if secure else None)
    nginx = stage.nginx(http=UP.format("reuse_warm 4;"), workers=2,
                        location=TLS_PASS if secure else PASS)
    wait_idle(stage, nginx, 4)
    old = nginx.workers()
    before = list(origin.conns)
    nginx.reload()
    stage.wait_until(lambda: not set(old) & set(nginx.workers()))
    stage.wait_until(lambda: all(conn.closed for conn in before) == secure)
    wait_idle(stage, nginx, 4)
    stays(stage, origin, 4)


def test_what_a_dead_worker_used_is_used_no_more(stage):
    """Or else too few would be opened from then on."""
    origin = stage.origin(lambda conn: conn.serve(answer))
    gate = origin.gate()

    def answer(request):
        if request.target == "/held":
            gate.wait()
        return http1.response()

    nginx = stage.nginx(http=UP.format("reuse_warm auto;"), location=PASS,
                        workers=2)
    nginx.expect_kills()
    pay(nginx, count=100)
    clients = [nginx.connect() for _ in range(3)]
    for client in clients:
        client.send(http1.request("GET", "/held"))
    stage.wait_until(lambda: len(origin.requests) == 103)
    for worker in nginx.workers():
        nginx.kill_worker(worker, signal.SIGKILL)
    gate.open()
    # three at a time, and three more
    stage.wait_until(lambda: len(live(origin)) >= 6)
    stage.let_pass(PLANNED)
    assert 6 <= len(live(origin)) <= 7


# auto

@pytest.mark.parametrize("secure", [False, True])
def test_auto_counts_for_all_workers(stage, secure):
    """One at a time, and three more, whichever worker they are in."""
    origin = stage.origin(tls="app" if secure else None)
    nginx = stage.nginx(http=UP.format("reuse_warm auto;"), workers=4,
                        location=TLS_PASS if secure else PASS)
    pay(nginx)
    wait_idle(stage, nginx, 4)
    stage.let_pass(PLANNED)
    assert len(live(origin)) == 4
    ask_workers(nginx, 4)
    stage.let_pass(PLANNED)
    assert len(unused(origin)) <= 4


def test_with_tls_a_worker_without_requests_opens_none(stage):
    """All were served by one of them, which dies: the others have none."""
    origin = stage.origin(tls="app")
    nginx = stage.nginx(http=UP.format("reuse_warm auto;"), workers=2,
                        location=TLS_PASS + "add_header X-Worker $pid;")
    nginx.expect_kills()
    client = nginx.connect()
    for _ in range(30):
        response = client.get("/")
    wait_idle(stage, nginx, 4)
    worker = int(response.header("X-Worker"))
    nginx.kill_worker(worker, signal.SIGKILL)
    stage.wait_until(lambda: live(origin) == [])
    stage.let_pass(PLANNED)
    assert live(origin) == []


# what they cost

def cost(nginx):
    """Those that were opened ahead and not used, and the requests."""
    found = counts(nginx)
    return (found["warm"]["opened"] - found["attempts"]["warm"],
            found["attempts"]["total"])


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("workers", [1, 4])
def test_auto_opens_no_more_than_requests_pay_for(stage, workers, secure):
    """Connections last a second, and a request comes now and then."""
    origin = stage.origin(tls="app" if secure else None)
    nginx = stage.nginx(
        http=UP.format("reuse_warm auto; reuse_expiry 1s;"), workers=workers,
        location=TLS_PASS if secure else PASS)
    end = time.monotonic() + 6
    while time.monotonic() < end:
        assert nginx.get().status == 200
        opened, served = cost(nginx)
        # one in use at a time, and three more, are granted
        assert opened <= 2 * served + 4
        stage.let_pass(1)
    assert opened >= served + 4
    assert origin.connections <= 3 * served + 4
    stage.wait_until(
        lambda: counts(nginx)["warm"]["held_back"]["unpaid"] == 1)


def test_it_is_shown_and_ends(stage):
    stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_warm auto; reuse_expiry 1s;"),
                        location=PASS)

    def show(form):
        return nginx.get(f"/reuse-status?format={form}",
                         port="probe").body.decode()

    def held():
        return counts(nginx)["warm"]["held_back"] == {"unpaid": 1,
                                                      "starving": 0}
    assert nginx.get().status == 200
    stage.wait_until(held)
    assert "holds back at 1 server:" in show("html")
    assert ('nginx_reuse_warm_held_back{upstream="app",server='
            in show("prometheus"))
    assert ',reason="unpaid"} 1' in show("prometheus")
    pay(nginx)
    stage.wait_until(lambda: not held())
    assert "holds back" not in show("html")
    wait_idle(stage, nginx, 4)


def test_a_number_is_kept_at_any_price(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_warm 2; reuse_expiry 500ms;"),
                        location=PASS)
    stage.wait_until(lambda: origin.connections >= 12)
    assert counts(nginx)["warm"]["held_back"] == {"unpaid": 0, "starving": 0}
    assert "holds back" not in nginx.get("/reuse-status?format=html",
                                         port="probe").body.decode()


def test_requests_pay_within_an_hour(stage):
    clock = Clock(stage)
    stage.origin()
    nginx = stage.nginx(
        http=UP.format("reuse_warm auto; keepalive_timeout 5s;"),
        location=PASS, env=clock.env)
    pay(nginx, count=100)

    def sleep():
        return counts(nginx)["connections"]["open"] == 0
    # the peak of use is forgotten long before that
    for _ in range(7):
        clock.forward(601)
        stage.let_pass(PLANNED)
        assert nginx.status()
    for _ in range(3):
        clock.forward(61)
        stage.let_pass(PLANNED)
    stage.wait_until(sleep)
    before, _ = cost(nginx)
    # of each request two, and those that are to be ready
    for most in (6, 8):
        assert nginx.get().status == 200
        for _ in range(3):
            clock.forward(5)
            stage.let_pass(PLANNED)
            assert nginx.status()
        assert cost(nginx)[0] - before == most
        assert counts(nginx)["warm"]["held_back"]["unpaid"] == 1


def test_a_server_that_starves_is_shown(stage):
    """One process for each connection, as in tests/test_starving.py."""
    origin = stage.origin(lambda conn: conn.serve(answer))

    def answer(request):
        # its process is free when there are none that are unused
        stage.wait_until(lambda: not unused(origin))
        return http1.response()

    nginx = stage.nginx(http=UP.format("reuse_warm 4;"), location=PASS)
    nginx.expect_log("is not kept warm for")
    wait_idle(stage, nginx, 4)
    assert nginx.get().status == 200
    nginx.wait_log("is not kept warm for")
    assert counts(nginx)["warm"]["held_back"] == {"unpaid": 0, "starving": 1}
    assert "1 server is not kept warm now" in nginx.get(
        "/reuse-status?format=html", port="probe").body.decode()


@pytest.mark.parametrize("workers", [1, 3])
def test_names_have_their_parts(stage, authority, workers):
    origin = stage.origin(tls=tls.Server(authority.issue("a.test", "b.test")))
    nginx = stage.nginx(
        http=UP.format("reuse_warm 6;"), workers=workers, server="""
            myproxy_ssl_verify off;
            location /a { myproxy_pass https://app; myproxy_ssl_name a.test; }
            location /b { myproxy_pass https://app; myproxy_ssl_name b.test; }
            """)
    wait_idle(stage, nginx, 6)
    stays(stage, origin, 6)
    assert sorted(conn.sni for conn in unused(origin)) == (
        ["a.test"] * 3 + ["b.test"] * 3)
