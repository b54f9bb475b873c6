"""Every connection is counted in, and counted out for one reason.

The reasons that a request knows of are in test_variables.py; here are those
for which an idle connection is closed, and what else is counted.
"""

import pathlib
import re
import signal
import subprocess
import time

import pytest

from harness import http1, pids, settings
from harness.clock import Clock
from harness.crossing import Scene
from harness.workers import waiting_origin

NAME = "origin.test"
PASS = "myproxy_pass http://%{origin};"
TLS_PASS = "myproxy_pass https://%{origin}; myproxy_ssl_verify off;"
UP = "upstream app {{ server %{{origin}}; {} }}"
APP = "myproxy_pass http://app;"


def nonzero(counts):
    return {name: count for name, count in counts.items() if count}


class Account:
    """What was counted of all servers."""

    def __init__(self, view):
        self.view = view
        requests, connections = view["attempts"], view["connections"]
        self.total = requests["total"]
        self.reused = requests["reused"]
        self.new = nonzero(requests["new_by_reason"])
        self.opened = connections["opened"]
        self.open = connections["open"]
        self.idle = connections["idle"]
        self.closed = nonzero(connections["closed_by_reason"])
        assert requests["new"] == sum(self.new.values())
        assert self.total == (self.reused + requests["warm"]
                              + requests["new"])
        assert connections["closed"] == sum(self.closed.values())
        assert self.opened == self.open + connections["closed"]
        assert self.idle <= self.open


def account(nginx):
    return Account(nginx.status()["total"])


def settled(stage, nginx, **wanted):
    """The account, once it has these values."""
    def reached():
        found = account(nginx)
        have = {name: getattr(found, name) for name in wanted}
        return found if have == wanted else None
    return stage.wait_until(reached, what=f"an account with {wanted}")


# requests, and what is there

def test_nothing_has_happened(stage):
    stage.origin()
    found = account(stage.nginx(location=PASS))
    assert (found.total, found.opened, found.closed) == (0, 0, {})


def test_requests_and_connections(stage):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(location=PASS)
    for _ in range(3):
        assert nginx.get().status == 200
    found = account(nginx)
    assert (found.reused, found.new) == (2, {"empty": 1})
    assert (found.opened, found.open, found.idle) == (1, 1, 1)
    clients = [nginx.connect() for _ in range(2)]
    for client in clients:
        client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: len(origin.requests) == 5)
    found = account(nginx)
    assert (found.reused, found.new) == (3, {"empty": 2})
    assert (found.opened, found.open, found.idle) == (2, 2, 0)
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    assert settled(stage, nginx, idle=2).open == 2


def test_each_server_has_its_own(stage):
    stage.origin(name="first")
    stage.origin(name="second", family="unix")
    nginx = stage.nginx(
        http="upstream app { server %{first}; server %{second}; }",
        server="""
            location / { myproxy_pass http://app; }
            location /alone/ { myproxy_pass http://%{first}; }
        """)
    for target in ["/"] * 4 + ["/alone/"] * 3:
        assert nginx.get(target).status == 200
    found = {
        (upstream["name"], server["address"]): Account(server)
        for upstream in nginx.status()["upstreams"]
        for server in upstream["servers"]}
    first, second = nginx.names["first"], nginx.names["second"]
    assert {key: (one.total, one.reused) for key, one in found.items()} == {
        (str(first), str(first)): (3, 2), ("app", str(first)): (2, 1),
        ("app", str(second)): (2, 1)}
    assert account(nginx).total == 7


def test_two_workers_are_added_up(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS, workers=2)
    first, second = nginx.workers()
    for paused in (first, second):
        nginx.pause_worker(paused)
        for _ in range(3):
            assert nginx.get().status == 200
        nginx.resume_worker(paused)
    found = settled(stage, nginx, idle=2)
    assert origin.connections == 2
    assert (found.total, found.reused) == (6, 4)
    assert nginx.status()["workers"] == 2


def test_processes_that_have_no_clients_are_no_workers(stage):
    """Those that look after a cache are in the master's group, too."""
    stage.origin()
    nginx = stage.nginx(
        http="myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;",
        location=PASS)

    def titles():
        """They name themselves once they have begun."""
        return [pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
                for pid in nginx.workers()]

    stage.wait_until(lambda: any(b"cache manager" in title
                                 for title in titles()))
    assert nginx.get().status == 200
    assert nginx.status()["workers"] == 1


# why idle connections are closed

def one_request(stage, nginx, target="/"):
    assert nginx.get(target).status == 200
    return settled(stage, nginx, idle=1)


def test_closed_since_it_was_idle_for_long(stage):
    stage.origin()
    nginx = stage.nginx(http=UP.format("keepalive 4; keepalive_timeout 50ms;"),
                        location=APP)
    assert nginx.get().status == 200
    assert settled(stage, nginx, open=0).closed == {"idle": 1}


def test_closed_since_the_pool_was_full(stage):
    def answer(_):
        gate.wait()
        return http1.response()

    origin = stage.origin(lambda conn: conn.serve(answer))
    gate = origin.gate()
    nginx = stage.nginx(http=UP.format("keepalive 1;"), location=APP)
    clients = [nginx.connect() for _ in range(2)]
    for client in clients:
        client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: len(origin.requests) == 2)
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    found = settled(stage, nginx, open=1)
    assert (found.idle, found.closed) == (1, {"full": 1})


@pytest.mark.parametrize("tls", [None, NAME])
def test_closed_by_the_origin(stage, tls):
    def script(conn):
        conn.read_request()
        conn.respond()
        gate.wait()

    origin = stage.origin(script, tls=tls)
    gate = origin.gate()
    nginx = stage.nginx(location=TLS_PASS if tls else PASS)
    one_request(stage, nginx)
    gate.open()
    assert settled(stage, nginx, open=0).closed == {"closed": 1}


def test_several_that_were_closed_by_the_origin(stage):
    """Of whichever was given to the pool last, nothing is to be left."""
    def script(conn):
        conn.read_request()
        arrived.append(conn)
        stage.wait_until(lambda: len(arrived) == 3)
        conn.respond()
        gate.wait()

    arrived = []
    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(location=PASS)
    clients = [nginx.connect() for _ in range(3)]
    for client in clients:
        client.send(http1.request("GET", "/"))
    for client in clients:
        assert client.read_response().status == 200
    settled(stage, nginx, idle=3)
    gate.open()
    assert settled(stage, nginx, open=0).closed == {"closed": 3}


@pytest.mark.parametrize("lines", ["", "myproxy_buffering off;"])
def test_closed_with_the_response(stage, lines):
    """It is in the pool for no longer than it takes to see that."""
    def script(conn):
        conn.read_request()
        arrived.open()
        gate.wait()
        conn.respond()
        conn.half_close()
        conn.wait_until_delivered()
        ended.open()
        conn.wait_for_close()

    origin = stage.origin(script)
    arrived, gate, ended = (origin.gate() for _ in range(3))
    nginx = stage.nginx(location=PASS + lines)
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    arrived.wait()
    worker, = nginx.workers()
    nginx.pause_worker(worker)
    gate.open()
    ended.wait()
    nginx.resume_worker(worker)
    assert client.read_response().status == 200
    assert settled(stage, nginx, open=0).closed == {"closed": 1}


def test_closed_since_the_origin_reset_it(stage):
    def script(conn):
        conn.read_request()
        conn.respond()
        gate.wait()
        conn.reset()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(location=PASS)
    one_request(stage, nginx)
    gate.open()
    assert settled(stage, nginx, open=0).closed == {"closed": 1}


def test_closed_since_the_origin_spoke_unasked(stage):
    def script(conn):
        conn.read_request()
        conn.respond()
        gate.wait()
        conn.send(http1.response())
        conn.wait_for_close()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(location=PASS)
    one_request(stage, nginx)
    gate.open()
    assert settled(stage, nginx, open=0).closed == {"excess": 1}


def test_closed_before_the_origin_does(stage):
    stage.origin(http1.response(200, "Keep-Alive: timeout=1"))
    nginx = stage.nginx(location=PASS)
    one_request(stage, nginx)
    assert settled(stage, nginx, open=0).closed == {"expired": 1}


def test_one_of_another_identity_is_not_closed(stage):
    """Our own pool keeps both."""
    origin = stage.origin(tls=NAME)
    nginx = stage.nginx(location=TLS_PASS
                        + "myproxy_ssl_name $arg_name;")
    for name in ("a.test", "b.test", "a.test"):
        assert nginx.get(f"/?name={name}").status == 200
    found = account(nginx)
    assert origin.connections == 2
    assert (found.reused, found.new, found.closed) == (
        1, {"empty": 1, "identity": 1}, {})
    assert found.idle == 2


def test_closed_at_a_reload(stage):
    stage.origin()
    nginx = stage.nginx(location=PASS)
    one_request(stage, nginx)
    nginx.reload()
    found = settled(stage, nginx, open=0)
    assert (found.closed, found.total) == ({"shutdown": 1}, 1)
    one_request(stage, nginx)
    assert account(nginx).total == 2


def wait_for_another(stage, nginx, old):
    stage.wait_until(lambda: nginx.workers() not in ([], old))


def test_closed_as_a_worker_is_stopped(stage):
    """At once, with a request on it and with another that is idle."""
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(location=PASS)
    client = nginx.connect()
    client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: origin.requests)
    one_request(stage, nginx)
    old = nginx.workers()
    nginx.kill_worker(old[0], signal.SIGTERM)
    wait_for_another(stage, nginx, old)
    found = settled(stage, nginx, open=0)
    assert (found.closed, found.idle) == ({"shutdown": 2}, 0)


def test_a_worker_that_dies_leaves_no_phantom(stage):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(location=PASS)
    nginx.expect_kills()
    client = nginx.connect()
    client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: origin.requests)
    one_request(stage, nginx)
    old = nginx.workers()
    nginx.kill_worker(old[0])
    wait_for_another(stage, nginx, old)
    found = account(nginx)
    assert (found.open, found.idle, found.closed) == (0, 0, {"crash": 2})
    assert (found.total, found.opened) == (2, 2)
    one_request(stage, nginx)
    assert account(nginx).opened == 3


own_numbers = pytest.mark.skipif(pids.missing() is not None,
                                 reason=str(pids.missing()))


@own_numbers
def test_a_worker_of_the_number_of_one_that_died(stage):
    """It does not take what the other had open for its own."""
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(location=PASS, **pids.config())
    nginx.expect_kills()
    client = nginx.connect()
    client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: origin.requests)
    one_request(stage, nginx)
    old, = pids.workers(nginx)
    used = pids.number(old)
    pids.choose_next(old, used)
    nginx.kill_worker(old)
    stage.wait_until(lambda: pids.workers(nginx) not in ([], [old]))
    new, = pids.workers(nginx)
    assert pids.number(new) == used
    found = account(nginx)
    assert (found.open, found.idle, found.closed) == (0, 0, {"crash": 2})
    one_request(stage, nginx)
    assert account(nginx).open == 1
    assert nginx.status()["workers"] == 1


@own_numbers
def test_a_program_of_the_number_of_a_worker_that_died(stage):
    """Which was ending, so that no other has come in its place."""
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(location=PASS, **pids.config())
    nginx.expect_kills()
    client = nginx.connect()
    client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: origin.requests)
    old, = pids.workers(nginx)
    used = pids.number(old)
    nginx.send_signal(signal.SIGHUP)
    nginx.wait_log(rf" {used}#\d+: gracefully shutting down")
    new, = set(pids.workers(nginx)) - {old}
    nginx.kill_worker(old)
    nginx.wait_log(r"exited on signal 9")
    stage.wait_until(lambda: pids.workers(nginx) == [new])
    pids.choose_next(new, used)
    program = subprocess.Popen(
        pids.enter(new) + ["setsid", "sh", "-c", "echo $$; read line"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert int(program.stdout.readline()) == used
        found = account(nginx)
        assert (found.open, found.closed) == (0, {"crash": 1})
        assert nginx.status()["workers"] == 1
    finally:
        program.communicate()


def test_refused_where_reuse_is_off(stage):
    """Which is no reason for that, however late it shows."""
    link = stage.link(round_trip_ms=10)
    stage.origin(link=link, listening=False)
    nginx = stage.nginx(link=link, http=UP.format("reuse off;"),
                        location=APP)
    assert nginx.get().status == 502
    found = account(nginx)
    assert (found.new, found.closed) == ({"off": 1}, {"connect_failed": 1})


# requests that met an end

def test_a_retry_is_counted(stage):
    scene = Scene(stage, lambda conn: conn.close(), location=PASS)
    scene.cross()
    scene.meet()
    assert scene.response().status == 200
    found = account(scene.nginx)
    assert found.view["stale_requests"] == {
        "resent": 1, "unproven": 0, "not_resendable": 0, "resent_silent": 0}
    assert (found.reused, found.new) == (1, {"empty": 1, "retry": 1})
    assert (found.opened, found.closed) == (2, {"undelivered": 1})


def test_a_retry_that_is_refused_is_counted(stage):
    """The request has been read before the end."""
    def script(conn):
        conn.read_request()
        conn.respond()
        conn.read_request()

    stage.origin(script)
    nginx = stage.nginx(location=PASS)
    one_request(stage, nginx)
    assert nginx.post("/", b"body").status == 502
    found = account(nginx)
    assert found.view["stale_requests"] == {
        "resent": 0, "unproven": 1, "not_resendable": 0, "resent_silent": 0}
    assert (found.reused, found.closed) == (1, {"error": 1})


def test_a_request_that_is_gone_is_counted(stage):
    scene = Scene(stage, lambda conn: conn.close(), http="""
        upstream app { server %{origin}; reuse_expiry 100s; }
    """, location=APP + "myproxy_request_buffering off;")
    scene.cross(body=b"0123456789" * 30000)
    scene.link.release("b")
    assert scene.response().status == 502
    scene.link.release("a")
    found = account(scene.nginx)
    assert found.view["stale_requests"] == {
        "resent": 0, "unproven": 0, "not_resendable": 1, "resent_silent": 0}


# how long it took

def test_one_that_took_long_does_not_count_for_all(stage):
    """The time saved is made of what connections take as a rule."""
    link = stage.link(round_trip_ms=2)
    stage.origin(link=link, tls=NAME)
    nginx = stage.nginx(link=link, location=TLS_PASS)

    def ask(count):
        clients = [nginx.connect() for _ in range(count)]
        for client in clients:
            client.send(http1.request("GET", "/"))
        for client in clients:
            assert client.read_response().status == 200

    ask(5)
    link.delay(400)
    ask(6)
    link.delay(1)
    for _ in range(4):
        ask(6)
    view = settled(stage, nginx, idle=6).view
    assert view["connect_duration_seconds"]["sum"] > 0.7
    assert view["tls_handshake_duration_seconds"]["sum"] > 0.7
    assert 0 < view["estimated_saved_seconds"] < 24 * 0.1 * settings.SCALE


def test_times_of_connections(stage):
    """Both histograms count the round trips of a link."""
    link = stage.link(round_trip_ms=30)
    stage.origin(link=link, tls=NAME)
    nginx = stage.nginx(link=link, location=TLS_PASS)
    begun = time.monotonic()
    for _ in range(3):
        assert nginx.get().status == 200
    took = time.monotonic() - begun
    view = account(nginx).view
    tcp = view["connect_duration_seconds"]
    tls = view["tls_handshake_duration_seconds"]
    assert (tcp["count"], tls["count"]) == (1, 1)
    assert 0.029 <= tcp["sum"]
    assert 0.029 <= tls["sum"]
    # three requests have a round trip each besides
    assert tcp["sum"] + tls["sum"] < took - 3 * 0.029
    assert view["estimated_saved_seconds"] == pytest.approx(
        2 * (tcp["sum"] + tls["sum"]), abs=1e-5)
    for histogram in (tcp, tls):
        bound = next(bucket["le"] for bucket in histogram["buckets"]
                     if bucket["count"])
        assert bound is None or bound >= histogram["sum"]


def test_a_slow_beginning_is_of_tcp(stage):
    """Not the round trip, which is much shorter later."""
    link = stage.link()
    stage.origin(link=link, tls=NAME)
    nginx = stage.nginx(link=link, location=TLS_PASS)
    client = nginx.connect()
    link.hold("b")
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: link.queued("b") > 0)
    stage.let_pass(0.5)
    link.release("b")
    assert client.read_response().status == 200
    assert account(nginx).view["connect_duration_seconds"]["sum"] >= 0.45


def test_times_where_sessions_are_not_kept(stage):
    link = stage.link(round_trip_ms=30)
    stage.origin(link=link, tls=NAME)
    nginx = stage.nginx(link=link, location=TLS_PASS
                        + "myproxy_ssl_session_reuse off;")
    begun = time.monotonic()
    assert nginx.get().status == 200
    took = time.monotonic() - begun
    view = account(nginx).view
    tcp = view["connect_duration_seconds"]["sum"]
    tls = view["tls_handshake_duration_seconds"]["sum"]
    # where one ends and the other begins is the kernel's round trip, which
    # a busy machine makes longer; their sum is measured
    assert 0.029 <= tcp
    assert 0 < tls
    assert 0.058 <= tcp + tls < took - 0.029


def test_handshakes_full_and_resumed(stage):
    stage.origin(tls=NAME)
    nginx = stage.nginx(http=UP.format("reuse off;"), location="""
        myproxy_pass https://app;
        myproxy_ssl_verify off;
    """)
    for _ in range(3):
        assert nginx.get().status == 200
    view = account(nginx).view
    assert view["tls_handshakes"] == {"full": 1, "resumed": 2}
    assert view["tls_handshake_duration_seconds"]["count"] == 3


def test_a_connection_that_was_not_made_has_no_time(stage):
    stage.origin(listening=False)
    nginx = stage.nginx(location=PASS)
    assert nginx.get().status == 502
    view = account(nginx).view
    assert view["connect_duration_seconds"]["count"] == 0
    assert view["connections"]["closed_by_reason"]["connect_failed"] == 1


def test_more_requests_than_a_worker_counts_by_itself(stage):
    """From 65536 on they are the record's, and none is lost on the way."""
    clock = Clock(stage)
    nginx = stage.nginx(
        env=clock.env, location=APP, http="""
            keepalive_requests 100000;
            upstream app { server 127.0.0.1:%{port.other};
                           keepalive_requests 100000; }
            server { listen 127.0.0.1:%{port.other}; return 204; }
        """)
    client = nginx.connect()
    batch, count = 500, 1
    # they differ in their dates alone
    client.send(http1.request("GET", "/"))
    size = len(client.read_until(b"\r\n\r\n"))

    def ask(batches):
        for _ in range(batches):
            client.send(http1.request("GET", "/") * batch)
            client.read(batch * size)
        return batches * batch

    for batches in (135, 1):
        count += ask(batches)
        # as often as it looks at what it has counted
        clock.forward(1.1)
        count += ask(1)
        found = account(nginx)
        assert found.total == count
        assert (found.opened, found.idle, found.new) == (1, 1, {"empty": 1})
    client.close()
    nginx.reload()
    nginx.wait_log("exited with code 0")
    assert account(nginx).total == count


# the zone

MANY = 60

NAMES = "".join(f"upstream app{number} {{ server %{{origin}}; }}"
                for number in range(MANY))


def test_a_zone_that_is_full_says_so(stage):
    """What is beyond it is counted as one."""
    stage.origin()
    nginx = stage.nginx(http="reuse_zone 64k;" + NAMES,
                        location="myproxy_pass http://app$arg_n;")
    for _ in range(2):
        for number in range(MANY):
            assert nginx.get(f"/?n={number}").status == 200
    lines = nginx.wait_log(r'zone "ngx_http_upstream_reuse" is full: .* '
                           r'make "reuse_zone" larger')
    assert len(lines) == 1
    status = nginx.status()
    assert status["zone"]["full"] is True
    last = min(status["upstreams"], key=lambda upstream: upstream["name"])
    assert last["name"] == "(zone full)"
    assert last["servers"][0]["address"] == "(zone full)"
    left = Account(last["servers"][0])
    found = Account(status["total"])
    assert 0 < left.total < 2 * MANY
    assert left.reused == left.opened == left.idle
    assert (found.total, found.opened, found.idle) == (2 * MANY, MANY, MANY)
    # idle ones are another server's, and say nothing of identities
    assert found.new == {"empty": MANY}
    assert status["zone"]["uncounted_requests"] == 0


def test_workers_for_which_there_is_no_room(stage):
    """Their requests are uncounted, each of them."""
    stage.origin()
    nginx = stage.nginx(http="reuse_zone 64k;" + NAMES,
                        events="accept_mutex off;",
                        location="myproxy_pass http://app$arg_n;"
                        "add_header X-Worker $pid;")
    for number in range(MANY):
        assert nginx.get(f"/?n={number}").status == 200
    nginx.reload(workers=64)
    count = 300
    client = nginx.connect()
    workers = {nginx.get("/?n=1").header("X-Worker") for _ in range(count)}
    # on one connection all are of one worker
    for _ in range(count):
        assert client.get("/?n=1").status == 200
    client.close()
    status = nginx.status()
    found = Account(status["total"])
    uncounted = status["zone"]["uncounted_requests"]
    assert found.total + uncounted == 2 * count + MANY
    assert len(workers) > 1
    assert status["workers"] < 64
    assert uncounted == 0 or status["zone"]["full"]


def test_a_zone_that_is_large_enough(stage):
    stage.origin()
    nginx = stage.nginx(http=NAMES, location="myproxy_pass http://app$arg_n;")
    for number in range(MANY):
        assert nginx.get(f"/?n={number}").status == 200
    status = nginx.status()
    assert len(status["upstreams"]) == MANY
    assert not status["zone"]["full"]
    assert 0 < status["zone"]["free_bytes"] < status["zone"]["size_bytes"]


def test_reloads_take_no_more_of_the_zone(stage):
    """A worker counts where one has counted that is gone."""
    stage.origin()
    nginx = stage.nginx(location=PASS)

    def reload():
        nginx.reload()
        stage.wait_until(lambda: len(nginx.workers()) == 1)
        one_request(stage, nginx)

    one_request(stage, nginx)
    reload()
    free = nginx.status()["zone"]["free_bytes"]
    for _ in range(12):
        reload()
    assert nginx.status()["zone"]["free_bytes"] == free


def test_reuse_zone_has_a_size(stage):
    stage.origin()
    nginx = stage.nginx(http="reuse_zone 100k;", location=PASS)
    assert nginx.status()["zone"]["size_bytes"] == 100 * 1024


@pytest.mark.parametrize("lines, why", [
    ("reuse_zone 63k;", '"63k" of "reuse_zone": .* at least "64k"'),
    ("reuse_zone x;", '"x" of "reuse_zone"'),
    ("reuse_zone -1;", '"-1" of "reuse_zone"'),
    ("reuse_zone;", 'number of arguments in "reuse_zone"'),
    ("reuse_zone 1m; reuse_zone 1m;", '"reuse_zone" directive is duplicate'),
])
def test_reuse_zone_refuses(stage, lines, why):
    code, text = stage.config_test(http=lines, location="return 200;")
    assert code == 1
    assert re.search(why + r".* in .*nginx.conf:\d+", text)


def test_another_size_begins_anew(stage):
    stage.origin()
    nginx = stage.nginx(http="reuse_zone 100k;", location=PASS)
    one_request(stage, nginx)
    nginx.reload(http="reuse_zone 200k;")
    assert account(nginx).total == 0
    one_request(stage, nginx)


# the ratio over time

@pytest.mark.timeout(60 * settings.SCALE)
def test_the_ratio_is_kept(stage):
    stage.origin()
    clock = Clock(stage)
    nginx = stage.nginx(location=PASS, workers=2, env=clock.env)
    nginx.pause_worker(nginx.workers()[0])
    for _ in range(4):
        assert nginx.get().status == 200
    nginx.resume_worker(nginx.workers()[0])
    clock.forward(10.1)

    def samples():
        return nginx.status()["history"]["samples"]
    stage.wait_until(samples)
    history = nginx.status()["history"]
    assert history["interval_seconds"] == 10
    assert history["samples"] == [{"attempts": 4, "ready": 3}]
