"""Servers that come and go: what was counted stays, and memory is bounded."""

import json
import os
import re
import socket

import pytest

from harness import settings
from harness.clock import Clock
from harness.nginx import version
from test_accounts import check
from test_memory import resident
from test_status import samples
from test_variable_targets import POOL

SOAK = os.environ.get("TEST_SOAK", "") not in ("", "0")
SANITIZED = os.environ.get("TEST_SANITIZED", "") not in ("", "0")

#: Addresses of a fleet that churns, each of which gets one request.
ADDRESSES = 100000 if SOAK else 2000 if SANITIZED else 20000
BATCH = ADDRESSES // 20

#: Any address of the loopback network is answered by one server.
ANY = """
    server {
        listen 0.0.0.0:%{any.back};
        keepalive_requests 100000;
        return 200 $server_addr;
    }
"""
TO_ANY = "myproxy_pass http://127.$arg_n:%{any.back};"

APP = "myproxy_pass http://app;"
WORKER = "add_header X-Worker $pid;"


def address(number):
    """The last three bytes of an address, none of which is 127.0.0.1."""
    return f"{1 + number // 60000}.{number // 240 % 250}.{1 + number % 240}"


def ask_all(nginx, targets):
    """One request for each, many at a time on one connection."""
    with socket.create_connection(("127.0.0.1", nginx.port()),
                                  timeout=settings.PATIENCE) as sock:
        for start in range(0, len(targets), 50):
            part = targets[start:start + 50]
            sock.sendall(b"".join(
                f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
                for target in part))
            data = b""
            while data.count(b"HTTP/1.1 200 ") < len(part):
                more = sock.recv(65536)
                assert more, data
                data += more


class Books:
    """What is counted, which holds at any time and never goes back."""

    def __init__(self, nginx):
        self.nginx = nginx
        self.seen = {}

    def look(self):
        status = self.nginx.status()
        views = {None: status["total"]}
        for upstream in status["upstreams"]:
            views[upstream["name"]] = upstream
            for server in upstream["servers"]:
                if server["address"] in ("removed", "others"):
                    views[upstream["name"], server["address"]] = server
                counted = server["connections"]
                assert counted["opened"] == (counted["open"]
                                             + counted["closed"]), server
            for key in ("opened", "open", "closed"):
                assert upstream["connections"][key] == sum(
                    server["connections"][key]
                    for server in upstream["servers"])
        for name, view in views.items():
            now = self._counters(view)
            for key, before in self.seen.get(name, {}).items():
                assert now[key] >= before, (name, key)
            self.seen[name] = now
        assert self.seen.keys() == views.keys()
        return status

    @staticmethod
    def _counters(view):
        requests, connections = view["attempts"], view["connections"]
        found = {"total": requests["total"], "reused": requests["reused"],
                 "opened": connections["opened"],
                 "closed": connections["closed"],
                 "connects": view["connect_duration_seconds"]["count"]}
        found.update(connections["closed_by_reason"])
        found.update(requests["new_by_reason"])
        return found


def servers(status, name="app"):
    return {server["address"]: server for upstream in status["upstreams"]
            if upstream["name"] == name for server in upstream["servers"]}


def forward(clock, nginx, seconds):
    """So much later; workers look at the clock as requests wake them."""
    clock.forward(seconds)
    for pid in nginx.workers():
        try:
            nginx.pause_worker(pid)
            nginx.resume_worker(pid)
        except (FileNotFoundError, ProcessLookupError):
            # it has ended
            continue
    nginx.status()


# variable targets

@pytest.mark.timeout((1800 if SOAK else 120) * settings.SCALE)
@pytest.mark.parametrize("share", ["on", "off"])
def test_addresses_that_change_take_no_more_memory(stage, share):
    """Those that were not used for longest are counted as removed."""
    nginx = stage.nginx(
        http=f"reuse_share {share};" + ANY, workers=2,
        location=TO_ANY + "keepalive_requests 100000;" + WORKER)
    books = Books(nginx)
    used, grown = [], []
    for start in range(0, ADDRESSES, BATCH):
        ask_all(nginx, [f"/?n={address(number)}"
                        for number in range(start, start + BATCH)])
        status = books.look()
        assert status["total"]["attempts"]["total"] == start + BATCH
        assert len(servers(status, POOL)) <= 130
        used.append(status["zone"]["size_bytes"]
                    - status["zone"]["free_bytes"])
        grown.append(max(resident(pid) for pid in nginx.workers()))
    assert not status["zone"]["full"]
    print(used, grown)
    half = len(used) // 2
    assert max(used[half:]) <= max(used[:half]) * 1.2 < 1024 * 1024
    if not SANITIZED:
        assert max(grown[half:]) <= max(grown[:half]) * 1.1
    if share == "off":
        removed = servers(status, POOL)["removed"]
        assert removed["attempts"]["total"] > ADDRESSES / 4
        assert removed["connections"]["open"] == 0


def test_an_address_without_a_request_for_an_hour(stage):
    clock = Clock(stage)
    nginx = stage.nginx(http=ANY, location=TO_ANY, env=clock.env, workers=2)
    books = Books(nginx)
    ask_all(nginx, [f"/?n={address(number)}" for number in range(20)])
    assert len(servers(books.look(), POOL)) == 20
    for _ in range(10):
        forward(clock, nginx, 300)
        assert nginx.get(f"/?n={address(0)}").status == 200
    assert len(servers(books.look(), POOL)) == 20
    forward(clock, nginx, 900)
    assert nginx.get(f"/?n={address(0)}").status == 200

    def folded():
        found = servers(books.look(), POOL)
        return len(found) == 2 and found
    found = stage.wait_until(folded)
    assert found["removed"]["attempts"]["total"] == 19
    kept = found[f"127.{address(0)}:{nginx.port('back')}"]
    assert kept["attempts"]["total"] == 12
    # and one that comes back begins anew
    assert nginx.get(f"/?n={address(1)}").status == 200
    assert len(servers(books.look(), POOL)) == 3


@pytest.mark.timeout(120 * settings.SCALE)
def test_workers_that_are_killed_while_addresses_change(stage):
    nginx = stage.nginx(http=ANY, workers=4, location=TO_ANY)
    nginx.expect_kills()
    books = Books(nginx)
    asked = 0
    for turn in range(6 if SANITIZED else 20):
        part = [f"/?n={address(asked + number)}" for number in range(200)]
        ask_all(nginx, part)
        asked += len(part)
        victim = nginx.workers()[turn % 4]
        nginx.kill_worker(victim)
        stage.wait_until(lambda: victim not in nginx.workers()
                         and len(nginx.workers()) == 4)
        status = books.look()
        assert status["total"]["attempts"]["total"] == asked
        check(status["total"])
    assert not status["zone"]["full"]


def test_an_address_with_a_connection_is_not_gone(stage):
    clock = Clock(stage)

    def script(conn):
        conn.read_request()
        gate.wait()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(env=clock.env, location="""
        set $to %{origin};
        myproxy_pass http://$to;
        myproxy_read_timeout 1d;
    """)
    books = Books(nginx)
    client = nginx.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stage.wait_until(lambda: origin.requests)
    for _ in range(3):
        forward(clock, nginx, 4000)
    stage.let_pass(3)
    found = servers(books.look(), POOL)
    assert found[str(origin)]["connections"]["open"] == 1
    assert "removed" not in found
    gate.open()
    assert client.read_response().status == 200
    forward(clock, nginx, 4000)
    stage.wait_until(
        lambda: set(servers(books.look(), POOL)) == {"removed"})


# what a reload takes out

def app(*lines, more=""):
    return f"upstream app {{ {' '.join(lines)} {more} }}"


@pytest.mark.timeout(60 * settings.SCALE)
def test_a_server_that_a_reload_takes_out(stage):
    """Its row goes a minute after its last request, and its counts stay."""
    clock = Clock(stage)
    stage.origin(name="first")
    stage.origin(name="second")
    one, two = "server %{first};", "server %{second};"
    nginx = stage.nginx(http=app(one, two), location=APP, workers=2,
                        env=clock.env)
    books = Books(nginx)
    for _ in range(10):
        assert nginx.get().status == 200
    before = servers(books.look())
    gone, stays = (str(stage.names[name]) for name in ("second", "first"))
    assert set(before) == {gone, stays}

    def all_closed(name):
        stage.wait_until(lambda: servers(books.look())[name]["connections"]
                         ["open"] == 0)
        # and those who had them have ended
        stage.wait_until(lambda: len(nginx.workers()) == 2)

    nginx.reload(http=app(one))
    for _ in range(4):
        assert nginx.get().status == 200
    all_closed(gone)
    forward(clock, nginx, 61)
    stage.wait_until(lambda: set(servers(books.look())) == {stays, "removed"})
    after = servers(books.look())
    assert (after["removed"]["attempts"]["total"]
            == before[gone]["attempts"]["total"])
    assert after["removed"]["connections"]["open"] == 0
    # what was measured of a server is not true of others
    assert before[gone]["round_trip_min_seconds"] is not None
    assert after["removed"]["round_trip_min_seconds"] is None
    text = samples(nginx.get("/reuse-status?format=prometheus",
                             port="probe").body.decode())
    shown = {dict(labels)["server"] for _, labels in text
             if "server" in dict(labels)}
    assert shown == {stays}
    page = nginx.get("/reuse-status?format=html", port="probe").body.decode()
    assert ">removed<" in page and gone not in page

    # a second one goes to the same row, and the first is new if it returns

    nginx.reload(http=app(two))
    for _ in range(4):
        assert nginx.get().status == 200
    all_closed(stays)
    forward(clock, nginx, 61)
    stage.wait_until(lambda: set(servers(books.look())) == {gone, "removed"})
    assert nginx.status()["total"]["attempts"]["total"] == 18


@pytest.mark.timeout(90 * settings.SCALE)
def test_reloads_with_ever_new_servers_do_not_fill_the_zone(stage):
    """Where there is no room, those that are gone go at once."""
    hosts = 20
    nginx = stage.nginx(http="reuse_zone 100k;" + ANY
                        + app("server 127.1.0.1:%{any.back};"),
                        location=APP, workers=2)
    books = Books(nginx)
    asked = 0
    for turn in range(8):
        upstream = app(*(f"server 127.1.{turn}.{1 + number}:%{{port.back}};"
                         for number in range(hosts)))
        nginx.reload(http="reuse_zone 100k;" + ANY + upstream)
        stage.wait_until(lambda: len(nginx.workers()) == 2)

        def all_known(turn=turn):
            nonlocal asked
            for _ in range(hosts):
                assert nginx.get().status == 200
            asked += hosts
            found = servers(books.look())
            return sum(name.startswith(f"127.1.{turn}.")
                       for name in found) == hosts
        stage.wait_until(all_known)
        assert books.look()["total"]["attempts"]["total"] == asked
    assert nginx.logged("is full")
    assert servers(books.look())["removed"]["attempts"]["total"] > 2 * hosts
    stage.wait_until(lambda: not nginx.status()["zone"]["full"])


@pytest.mark.skipif(version() < (1, 27, 3), reason="takes resolve")
@pytest.mark.timeout(60 * settings.SCALE)
@pytest.mark.parametrize("more", ["", "reuse_warm 4;"])
def test_an_address_that_a_name_does_not_have_any_more(stage, more):
    clock = Clock(stage)
    dns = stage.dns({"app.test": ["127.0.3.1", "127.0.3.2"]}, ttl=1)
    nginx = stage.nginx(
        http="resolver %{dns} valid=1s ipv6=off;" + ANY + app(
            "zone app 64k;", "server app.test:%{any.back} resolve;",
            more=more),
        location=APP, workers=2, env=clock.env)
    books = Books(nginx)
    back = nginx.port("back")

    def asked(*hosts):
        wanted = {f"{host}:{back}" for host in hosts}
        response = nginx.get()
        assert response.status in (200, 502)
        return wanted <= set(servers(books.look()))
    stage.wait_until(lambda: asked("127.0.3.1", "127.0.3.2"))
    dns.records["app.test"] = ["127.0.3.2", "127.0.3.3"]
    stage.wait_until(lambda: asked("127.0.3.3"))
    before = servers(books.look())[f"127.0.3.1:{back}"]
    # a worker looks each second whether there were requests
    stage.let_pass(2)
    forward(clock, nginx, 70)
    stage.wait_until(lambda: asked("127.0.3.3")
                     and "removed" in servers(books.look()))
    found = servers(books.look())
    assert f"127.0.3.1:{back}" not in found
    assert found["removed"]["attempts"]["total"] == (
        before["attempts"]["total"])


# room

def test_a_share_of_a_worker_is_small(stage):
    """64 workers and 2,000 servers fit, as 8 workers with 500 show."""
    count, workers = (100, 4) if SANITIZED else (500, 8)
    fleet = app(*(f"server 127.4.{number // 250}.{1 + number % 250}"
                  ":%{any.back} max_fails=0;" for number in range(count)),
                more="keepalive_timeout 1h;")
    closing = ANY.replace("return", "keepalive_timeout 0; return")
    nginx = stage.nginx(http=closing + fleet, workers=workers,
                        location=APP + WORKER, events="accept_mutex off;")
    empty = nginx.status()["zone"]
    met, tried = {}, 0
    while len(met) < workers:
        tried += 1
        client = nginx.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        pid = client.read_response().header("X-Worker")
        if pid not in met:
            met[pid] = client
    for client in met.values():
        for _ in range(count - 1):
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.read_response().status == 200
    status = nginx.status()
    assert len(servers(status)) == count
    assert status["total"]["attempts"]["total"] == (
        tried + (count - 1) * workers)
    assert not status["zone"]["full"]
    took = (empty["free_bytes"] - status["zone"]["free_bytes"]) / count
    print(f"{took} bytes for a server and {workers} workers")
    # a slab has pages for each size
    assert took <= 2048 + 256 * workers + 100


def test_the_zone_is_as_large_as_the_configuration_needs(stage):
    fleet = app(*(f"server 127.4.{number // 250}.{1 + number % 250}:80;"
                  for number in range(2000)))
    nginx = stage.nginx(http=fleet, workers=64, location="return 200;",
                        main="worker_rlimit_nofile 8192;")
    zone = nginx.status()["zone"]
    assert not zone["full"]
    assert zone["size_bytes"] == 128 * 1024 * 1024
    assert zone["free_bytes"] > 2000 * (2048 + 64 * 256)


def test_a_reload_does_not_make_the_zone_smaller(stage):
    stage.origin()
    fleet = app(*(f"server 127.4.{number // 250}.{1 + number % 250}:80 backup;"
                  for number in range(5000)), more="server %{origin};")
    nginx = stage.nginx(http=fleet, location=APP)
    assert nginx.get().status == 200
    size = nginx.status()["zone"]["size_bytes"]
    assert size == 16 * 1024 * 1024
    nginx.reload(http=app("server %{origin};"))
    status = nginx.status()
    assert status["zone"]["size_bytes"] == size
    assert status["total"]["attempts"]["total"] == 1


@pytest.mark.timeout(120 * settings.SCALE)
def test_many_requests_to_one_server(stage):
    """Words of a share are added to the record before they wrap around."""
    if SANITIZED:
        pytest.skip("takes 70,000 requests")
    count = 70000
    nginx = stage.nginx(http=ANY + app("server 127.0.0.1:%{any.back};"),
                        location=APP + "keepalive_requests 100000;")
    books = Books(nginx)
    for _ in range(count // 10000):
        ask_all(nginx, ["/"] * 10000)
        books.look()
    total = books.look()["total"]["attempts"]
    assert total["total"] == count
    assert total["new"] < 10


# metrics

def shown(nginx, target="/reuse"):
    text = nginx.get(target + "?format=prometheus").body.decode()
    return samples(text)


def by_label(found):
    return {dict(labels)["server"] for _, labels in found
            if "server" in dict(labels)}


@pytest.mark.parametrize("parameter, kept", [
    ("", True), ("servers=2", True), ("servers=1", False),
    ("servers=off", False), ("servers=0", False)])
def test_metrics_of_upstreams_alone(stage, parameter, kept):
    first, second = stage.origin(name="first"), stage.origin(name="second")
    nginx = stage.nginx(
        http=app("server %{first};", "server %{second};"),
        server=f"location = /reuse {{ reuse_status {parameter}; }}",
        location=APP)
    for _ in range(5):
        assert nginx.get().status == 200
    found = shown(nginx)
    assert by_label(found) == ({str(first), str(second)} if kept else {"all"})
    for name, key in (("attempts_total", "attempts"),
                      ("connections_opened_total", "connections")):
        whole = nginx.status()["total"][key]
        assert sum(value for (metric, _), value in found.items()
                   if metric == f"nginx_reuse_{name}") == (
                       whole.get("total", whole.get("opened")))
    assert found["nginx_reuse_servers", ()] == 2
    # other formats have them all
    body = json.loads(nginx.get("/reuse?format=json").body)
    assert len(servers(body)) == 2


def test_more_servers_than_metrics(stage):
    fleet = app(*(f"server 127.4.{number // 250}.{1 + number % 250}"
                  ":%{any.back};" for number in range(1001)))
    nginx = stage.nginx(
        http=ANY + fleet, location=APP + "keepalive_requests 2000;",
        server="location = /reuse { reuse_status; }")
    ask_all(nginx, ["/"] * 1000)
    assert len(by_label(shown(nginx))) == 1000
    ask_all(nginx, ["/"])
    assert by_label(shown(nginx)) == {"all"}


@pytest.mark.parametrize("parameter", ["servers=", "servers=x", "servers=-1",
                                       "server=off", "off"])
def test_wrong_parameters(stage, parameter):
    code, text = stage.config_test(location=f"reuse_status {parameter};")
    assert code == 1
    assert re.search(rf'invalid parameter "{parameter}" of "reuse_status": '
                     r'.* in .*nginx.conf:\d+', text)
