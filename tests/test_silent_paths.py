"""Connections that a device on the way has forgotten, and told nobody.

Packets of such a connection vanish: the link of tools/link forgets it.  A
request that meets one is made to end soon, and probes keep connections from
being forgotten (see docs/safe-reuse.md).
"""

import re
import shutil
import subprocess
import time

import pytest

from harness import http1, settings
from harness.workers import Workers
from test_system_calls import traced

NAME = "app.test"
PASS = "myproxy_pass http://%{origin};"
APP = "myproxy_pass http://app;"
TLS_PASS = f"""
    myproxy_pass https://%{{origin}};
    myproxy_ssl_name {NAME};
    myproxy_ssl_trusted_certificate %{{authority.path}};
"""

AGAIN = (r"\[warn\].* the request is sent again on a new connection: upstream "
         r"has acknowledged nothing of it for [0-9]+ ms")
GIVEN_UP = (r"\[error\].* the request is given up, as it may have been "
            r"received: upstream has acknowledged nothing of it")

#: Seconds after which a request has met its end on such a path.
SOON = 3 * settings.SCALE

plain_and_tls = pytest.mark.parametrize("tls", [None, NAME],
                                        ids=["plain", "tls"])


def counts(nginx):
    return nginx.status()["total"]


def closed(nginx):
    reasons = counts(nginx)["connections"]["closed_by_reason"]
    return {name: count for name, count in reasons.items() if count}


def received(origin, target="/x"):
    return sum(request.target == target for request in origin.requests)


class Path:
    """nginx has a kept connection over a link; one client uses it."""

    def __init__(self, stage, *, tls=None, round_trip_ms=2, script=None,
                 location=None, **config):
        self.stage = stage
        self.link = stage.link(round_trip_ms)
        self.origin = stage.origin(script, link=self.link, tls=tls)
        self.nginx = stage.nginx(
            link=self.link,
            location=location or (TLS_PASS if tls else PASS), **config)
        self.client = self.nginx.connect()
        assert self.client.get("/").status == 200

    def ask(self, method="GET", target="/x", *lines, body=None):
        """The response's status, and how long it took."""
        if body is None and method != "GET":
            body = b"body"
        begun = time.monotonic()
        response = self.client.request(method, target, *lines, body=body)
        return response.status, time.monotonic() - begun

    def idle(self):
        return counts(self.nginx)["connections"]["idle"]


# a request of which nothing is acknowledged

@plain_and_tls
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_idempotent_request_goes_to_a_new_connection(stage, method, tls):
    path = Path(stage, tls=tls)
    path.link.forget()
    status, took = path.ask(method)
    assert status == 200
    assert 0.9 < took < SOON
    assert received(path.origin) == 1
    assert path.origin.carried == [1, 1]
    assert path.nginx.logged(AGAIN)
    assert not path.nginx.logged(r"\[error\]")
    total = counts(path.nginx)
    assert total["stale_requests"] == {
        "resent": 0, "unproven": 0, "not_resendable": 0, "resent_silent": 1}
    assert total["attempts"]["new_by_reason"]["silent"] == 1
    assert closed(path.nginx) == {"silent": 1}


@plain_and_tls
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_another_one_is_answered_504(stage, method, tls):
    path = Path(stage, tls=tls)
    path.link.forget()
    status, took = path.ask(method)
    assert status == 504
    assert 1.9 < took < SOON
    assert path.nginx.logged(GIVEN_UP)
    assert counts(path.nginx)["stale_requests"] == {
        "resent": 0, "unproven": 1, "not_resendable": 0, "resent_silent": 0}
    assert closed(path.nginx) == {"silent": 1}
    # the next one has a new connection
    status, took = path.ask(method, "/y")
    assert status == 200
    assert took < 0.9 * settings.SCALE
    assert received(path.origin) == 0
    assert received(path.origin, "/y") == 1


def test_what_was_answered_504_does_not_arrive_later(stage):
    """The kernel does not send it anew when the path is back."""
    path = Path(stage)
    path.link.drop("a")
    assert path.ask("POST")[0] == 504
    path.link.release("a")
    stage.let_pass(2)
    assert b"/x" not in path.origin.conns[0].received
    assert received(path.origin) == 0


def test_what_arrived_is_not_executed_twice(stage):
    """Only the acknowledgements are lost."""
    path = Path(stage)
    path.link.drop("b")
    assert path.ask("POST")[0] == 504
    assert received(path.origin) == 1
    path.link.release("b")
    stage.let_pass(1)
    assert received(path.origin) == 1


@pytest.mark.parametrize("words, method, status", [
    ("timeout non_idempotent", "POST", 200), ("timeout", "GET", 200),
    ("error", "GET", 504), ("off", "GET", 504)])
def test_next_upstream_decides(stage, words, method, status):
    path = Path(stage, location=PASS + f"myproxy_next_upstream {words};")
    path.link.forget()
    assert path.ask(method)[0] == status
    assert received(path.origin) == (status == 200)


def test_a_body_that_is_not_buffered_is_gone(stage):
    path = Path(stage, location=PASS + "myproxy_request_buffering off;",
                http="reuse_expiry 1h;")
    path.link.forget()
    # what is read along with the header would be buffered
    assert path.ask("PUT", body=bytes(300000))[0] == 504
    assert received(path.origin) == 0


def test_a_body_goes_again_whole(stage):
    body = bytes(range(256)) * 2000
    path = Path(stage, server="client_body_in_file_only clean;")
    path.link.forget()
    status, took = path.ask("PUT", body=body)
    assert (status, path.origin.requests[-1].body) == (200, body)
    assert took < SOON


def test_the_server_is_not_to_blame(stage):
    """It takes no server out of the balancer, and needs no other one."""
    link = stage.link(2)
    origin = stage.origin(link=link)
    other = stage.origin(name="other", link=link)
    nginx = stage.nginx(link=link, location=APP, http="""
        upstream app {
            server %{origin} max_fails=1 fail_timeout=1h;
            server %{other} backup;
        }""")
    client = nginx.connect()
    assert client.get("/").status == 200
    link.forget()
    for method, status in ("GET", 200), ("POST", 504), ("GET", 200):
        assert client.request(method, "/x", body=b"x").status == status
        link.forget()
    assert other.connections == 0
    assert origin.connections == 3


def test_after_a_new_connection_nginxs_rules_hold(stage):
    """The server is gone: the second attempt fails as any other."""
    link = stage.link(2)
    origin = stage.origin(link=link)
    other = stage.origin(name="other", link=link)
    nginx = stage.nginx(link=link, http="""
        upstream app { server %{origin}; server %{other} backup; }""",
                        location=APP)
    client = nginx.connect()
    assert client.get("/").status == 200
    link.drop("a")
    origin.refuse()
    client.send(http1.request("GET", "/x"))
    nginx.wait_log(AGAIN)
    link.release("a")
    assert client.read_response().status == 200
    assert received(other) == 1


@pytest.mark.parametrize("share", ["on", "off"])
def test_idle_ones_are_not_tried_one_after_the_other(stage, share):
    """What has been idle as long is as dead."""
    link = stage.link(2)
    gates = []

    def answer(request):
        if request.target == "/wait":
            gates[0].wait()
        return http1.response()

    origin = stage.origin(lambda conn: conn.serve(answer), link=link)
    gates.append(origin.gate())
    nginx = stage.nginx(link=link, location=PASS,
                        http=f"reuse_share {share};")
    clients = [nginx.connect() for _ in range(20)]
    for client in clients:
        client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: len(origin.requests) == 20)
    gates[0].open()
    for client in clients:
        assert client.read_response().status == 200
    if share == "on":
        stage.wait_until(
            lambda: counts(nginx)["connections"]["parked"] == 20)
    stage.let_pass(0.5)
    link.forget()
    assert clients[0].get("/x").status == 200
    begun = time.monotonic()
    for client in clients:
        client.send(http1.request("POST", "/y", body=b"body"))
    for client in clients:
        assert client.read_response().status == 200
    assert time.monotonic() - begun < 0.9 * settings.SCALE
    assert received(origin, "/y") == 20
    assert set(closed(nginx)) == {"silent"}


def test_of_a_server_that_stands_for_others_nothing_is_learned(stage):
    """There was no room for it in the zone: others are not suspected."""
    path = Path(stage, http="reuse_zone 64k; reuse_share off;" + "".join(
        f"upstream app{number} {{ server %{{origin}}; }}"
        for number in range(60)),
        server="".join(
            f"location /app{number}/ {{ myproxy_pass http://app{number}/; }}"
            for number in range(60)))
    for number in range(60):
        assert path.client.get(f"/app{number}/").status == 200
    assert path.nginx.status()["zone"]["full"]
    opened = path.origin.connections
    path.link.forget()
    # both are idle, and both are met
    for number in (59, 58):
        status, took = path.ask("GET", f"/app{number}/x")
        assert status == 200
        assert took > 0.9
    assert path.origin.connections == opened + 2
    assert len(path.nginx.logged(AGAIN)) == 2


def test_one_that_was_used_since_stays(stage):
    """Younger connections of that server are used as ever."""
    link = stage.link(2)
    gates = []

    def answer(request):
        if request.target == "/wait":
            gates[0].wait()
        return http1.response()

    origin = stage.origin(lambda conn: conn.serve(answer), link=link)
    gates.append(origin.gate())
    nginx = stage.nginx(link=link, location=PASS)
    first, second = nginx.connect(), nginx.connect()
    assert first.get("/").status == 200
    stage.let_pass(1)
    link.forget()
    first.send(http1.request("GET", "/x"))
    stage.let_pass(0.3)
    # a new one, as the other one is taken
    assert second.get("/").status == 200
    assert first.read_response().status == 200
    assert origin.connections in (2, 3)
    before = origin.connections
    assert second.get("/").status == 200
    assert first.get("/").status == 200
    assert origin.connections == before


def test_one_that_was_taken_over_by_another_worker(stage):
    link = stage.link(2)
    origin = stage.origin(link=link)
    play = Workers(stage, link=link)
    first, second = play.nginx.workers()
    assert play.how(first) == "new"
    for number, (method, status) in enumerate([("GET", 200), ("POST", 504)]):
        play.wait_parked()
        link.forget()
        play.nginx.pause_worker(first)
        begun = time.monotonic()
        response = play.nginx.request(method, "/x", body=b"x")
        took = time.monotonic() - begun
        play.nginx.resume_worker(first)
        assert (response.status, took < SOON) == (status, True)
        assert play.connections["taken_over"] == number + 1
    assert received(origin) == 1


def test_one_that_was_opened_ahead(stage):
    link = stage.link(2)
    origin = stage.origin(link=link)
    nginx = stage.nginx(link=link, location=APP, http="""
        upstream app { server %{origin}; reuse_warm 1; }""")
    stage.wait_until(lambda: counts(nginx)["connections"]["idle"] == 1)
    link.forget()
    begun = time.monotonic()
    assert nginx.get("/x").status == 200
    assert time.monotonic() - begun < SOON
    assert received(origin) == 1
    assert counts(nginx)["stale_requests"]["resent_silent"] == 1


@pytest.mark.parametrize("method, status", [("GET", 200), ("POST", 504)])
def test_it_is_not_taken_for_a_server_that_starves(stage, method, status):
    """A server with a process for each connection has the request."""
    link = stage.link(2)
    origin = stage.origin(link=link)
    nginx = stage.nginx(link=link, location=APP, http="""
        upstream app { server %{origin}; reuse_warm 4; }""")

    def is_warm():
        return counts(nginx)["connections"]["idle"] >= 4

    stage.wait_until(is_warm)
    for _ in range(2):
        link.forget()
        assert nginx.request(method, "/x", body=b"x").status == status
        for _ in range(20):
            assert nginx.get("/").status == 200
        stage.wait_until(is_warm)
    assert not nginx.logged("is not kept warm")
    assert "starving" not in closed(nginx)
    assert received(origin) == (2 if status == 200 else 0)


def test_every_handler_has_it(stage):
    link = stage.link(2)
    origin = stage.origin(link=link)
    nginx = stage.nginx(link=link, http="""
        upstream app { server %{origin}; reuse on; }""", location="""
        proxy_pass http://app; proxy_http_version 1.1;
        proxy_set_header Connection "";""")
    client = nginx.connect()
    assert client.get("/").status == 200
    link.forget()
    assert client.get("/x").status == 200
    assert received(origin) == 1
    link.forget()
    assert client.post("/y", b"x").status == 504


# what is left alone

@plain_and_tls
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_answer_that_takes_long(stage, method, tls):
    """What was acknowledged is being worked on."""
    def answer(request):
        if request.target == "/x":
            time.sleep(SOON + 2)
        return http1.response()

    path = Path(stage, tls=tls, script=lambda conn: conn.serve(answer))
    status, took = path.ask(method)
    assert status == 200
    assert took > SOON
    assert path.origin.carried == [2]
    assert not path.nginx.logged("acknowledged nothing")


@plain_and_tls
def test_a_window_that_is_closed_for_long(stage, tls):
    """An origin reads a large body late, as after work of its own."""
    body = bytes(range(256)) * 40000

    def script(conn):
        assert conn.read_request().target == "/"
        conn.respond()
        conn.more()
        time.sleep(SOON + 2)
        request = conn.read_request()
        assert request.body == body
        conn.respond()
        conn.wait_for_close()

    path = Path(stage, tls=tls, script=script,
                server="client_max_body_size 0;")
    status, took = path.ask("POST", body=body)
    assert status == 200
    assert took > SOON
    assert path.origin.carried == [2]
    assert not path.nginx.logged("acknowledged nothing")


def test_what_the_machine_itself_cannot_send_has_its_time(stage):
    """It counts from when a packet leaves, not from when nginx wrote it."""
    path = Path(stage)

    def rule(what):
        subprocess.run(
            path.link.enter("a") + ["ip", "rule", what, "pref", "1", "to",
                                    path.link.b_address, "blackhole"],
            check=True, capture_output=True)

    rule("add")
    path.client.send(http1.request("GET", "/x"))
    stage.let_pass(1.3)
    path.link.hold("a")
    rule("del")
    stage.wait_until(lambda: path.link.queued("a") > 0)
    # sent twice, and looked at once more
    stage.wait_until(lambda: path.link.queued("a") > 1)
    stage.let_pass(1.1)
    path.link.release("a")
    assert path.client.read_response().status == 200
    assert received(path.origin) == 1
    assert path.origin.carried == [2]
    assert not path.nginx.logged("acknowledged nothing")


@pytest.mark.parametrize("round_trip_ms, held", [(2, 0.8), (600, 1.8)],
                         ids=["short", "long"])
def test_a_packet_that_is_late(stage, round_trip_ms, held):
    """Never is it less than a second, nor than some round trips."""
    path = Path(stage, round_trip_ms=round_trip_ms)
    path.link.hold("a")
    path.client.send(http1.request("GET", "/x"))
    stage.let_pass(held)
    path.link.release("a")
    assert path.client.read_response().status == 200
    assert path.origin.carried == [2]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_worker_that_was_stopped_looks_again(stage, method):
    """As with the machine: the path has its time from then on."""
    path = Path(stage)
    worker, = path.nginx.workers()
    # or the origin goes on sending what has had no acknowledgement
    stage.let_pass(0.3)
    path.link.hold("a")
    path.client.send(http1.request(method, "/x", body=b"body"))
    stage.wait_until(lambda: path.link.queued("a") > 0)
    path.nginx.pause_worker(worker)
    # long enough for the kernel to have sent it again and again
    stage.wait_until(lambda: path.link.queued("a") > 3)
    stage.let_pass(1.5)
    path.nginx.resume_worker(worker)
    stage.let_pass(0.4)
    path.link.release("a")
    assert path.client.read_response().status == 200
    assert path.origin.carried == [2]
    assert not path.nginx.logged("acknowledged nothing")


def test_what_came_while_the_worker_was_stopped(stage):
    origin = []

    def answer(request):
        if request.target == "/x":
            origin[0].wait()
        return http1.response()

    path = Path(stage, script=lambda conn: conn.serve(answer))
    origin.append(path.origin.gate())
    worker, = path.nginx.workers()
    path.client.send(http1.request("POST", "/x", body=b"body"))
    stage.wait_until(lambda: received(path.origin) == 1)
    path.nginx.pause_worker(worker)
    origin[0].open()
    stage.let_pass(2.5)
    path.nginx.resume_worker(worker)
    assert path.client.read_response().status == 200
    assert path.origin.carried == [2]


def test_a_stopped_worker_finds_a_silent_path_all_the_same(stage):
    path = Path(stage)
    worker, = path.nginx.workers()
    path.link.forget()
    path.client.send(http1.request("POST", "/x", body=b"body"))
    stage.wait_until(lambda: counts(path.nginx)["connections"]["idle"] == 0)
    path.nginx.pause_worker(worker)
    stage.let_pass(2.5)
    path.nginx.resume_worker(worker)
    assert path.client.read_response().status == 504
    assert path.nginx.logged(GIVEN_UP)


def test_a_path_that_is_long_and_forgotten(stage):
    path = Path(stage, round_trip_ms=400)
    path.link.forget()
    status, took = path.ask()
    assert status == 200
    assert took > 1.6
    assert path.nginx.logged(AGAIN)


def test_a_new_connection(stage):
    """What was never kept has nginx's time."""
    link = stage.link(2)
    origin = stage.origin(link=link)
    nginx = stage.nginx(link=link, location=PASS
                        + "myproxy_send_timeout 1h; myproxy_read_timeout 1h;")
    client = nginx.connect()
    client.send(http1.request("POST", "/x", "Content-Length: 4"))
    stage.let_pass(0.2)
    assert origin.connections == 0
    link.hold("a")
    client.send(b"body")
    stage.wait_until(lambda: link.queued("a") > 0)
    stage.let_pass(SOON)
    link.release("a")
    assert client.read_response().status == 200
    assert not nginx.logged("acknowledged nothing")


def test_a_websocket_is_left_alone(stage):
    def script(conn):
        while True:
            request = conn.read_request()
            if request.header("Upgrade"):
                break
            conn.respond()
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\n"
                  b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        conn.send(conn.read(4))
        conn.wait_for_close()

    path = Path(stage, script=script)
    path.client.send(http1.request("GET", "/x", "Connection: upgrade",
                                   "Upgrade: websocket"))
    assert path.client.read_response().status == 101
    path.link.hold("a")
    path.client.send(b"ping")
    stage.let_pass(SOON)
    path.link.release("a")
    assert path.client.read(4) == b"ping"


def test_reuse_retry_off_leaves_all_to_nginx(stage):
    path = Path(stage, http="reuse_retry off;",
                location=PASS + "myproxy_read_timeout 3s;")
    path.link.forget()
    status, took = path.ask("POST")
    assert status == 504
    assert took > 2.9
    assert not path.nginx.logged("acknowledged nothing")
    assert closed(path.nginx) == {"timeout": 1}


# probes

def probing(path):
    """What the kernel has of the timers of nginx's connections."""
    lines = subprocess.run(
        path.link.enter("a") + ["ss", "-tnoH", "dst", "10.77.0.2"],
        check=True, capture_output=True, text=True).stdout.splitlines()
    return [re.search(r"timer:\((\w+),", line)[1]
            for line in lines if "timer:" in line]


def test_a_probe_keeps_a_connection_known(stage):
    path = Path(stage, http="reuse_probe idle=1s interval=1s;")
    path.link.expire(2)
    before = path.link.count("b")
    stage.let_pass(5)
    assert path.link.count("b") - before >= 3
    status, took = path.ask("POST")
    assert status == 200
    assert took < 0.9 * settings.SCALE
    assert path.origin.carried == [2]
    assert probing(path) == ["keepalive"]


@pytest.mark.parametrize("directive", ["reuse_probe off;", ""])
def test_without_one_it_is_forgotten(stage, directive):
    """By default the first probe comes after 45 seconds."""
    path = Path(stage, http=directive)
    path.link.expire(2)
    before = path.link.count("a")
    stage.let_pass(3)
    assert path.link.count("a") == before
    assert path.ask()[0] == 200
    assert path.nginx.logged(AGAIN)
    assert path.origin.carried == [1, 1]


def test_connections_that_were_opened_ahead_are_probed(stage):
    link = stage.link(2)
    origin = stage.origin(link=link)
    nginx = stage.nginx(link=link, location=APP, http="""
        reuse_probe idle=1s interval=1s;
        upstream app { server %{origin}; reuse_warm 1; }""")
    stage.wait_until(lambda: counts(nginx)["connections"]["idle"] == 1)
    link.expire(2)
    stage.let_pass(5)
    assert nginx.post("/x", b"x").status == 200
    # another one may have been opened since
    assert [request.target for request in origin.conns[0].requests] == ["/x"]


@pytest.mark.parametrize("tls, share", [(None, "on"), (None, "off"),
                                        (NAME, "off")],
                         ids=["parked", "pool", "tls"])
def test_a_probe_that_is_not_answered_ends_a_connection(stage, tls, share):
    """That teaches no idle limit, as no origin has closed it."""
    path = Path(stage, tls=tls, http=f"reuse_share {share};"
                "reuse_probe idle=1s interval=1s count=1;")
    for number in range(1, 5):
        path.link.drop("b")
        stage.wait_until(lambda: closed(path.nginx) == {"silent": number},
                         10 * settings.SCALE)
        path.link.release("b")
        assert path.ask()[0] == 200
    assert path.origin.carried[:4] == [1] * 4
    assert not path.nginx.logged("connections that have been idle")


def test_a_request_meets_one_that_a_probe_has_just_ended(stage):
    """The worker has the request first, and looks before it sends it."""
    path = Path(stage, http="reuse_share off;"
                "reuse_probe idle=1s interval=1s count=1;")
    stage.wait_until(lambda: path.idle() == 1)
    worker, = path.nginx.workers()
    path.link.drop("b")
    path.nginx.pause_worker(worker)
    path.client.send(http1.request("POST", "/x", body=b"body"))

    def established():
        with open(f"/proc/{worker}/net/tcp", encoding="ascii") as file:
            return [line for line in file
                    if f":{path.origin.port:04X} 01 " in line]
    stage.wait_until(lambda: not established(), 10 * settings.SCALE)
    path.link.release("b")
    path.nginx.resume_worker(worker)
    assert path.client.read_response().status == 200
    assert received(path.origin) == 1
    assert closed(path.nginx) == {"silent": 1}
    assert counts(path.nginx)["attempts"]["new_by_reason"]["silent"] == 1
    assert not path.nginx.logged("connections that have been idle")


def test_one_over_tls_that_was_opened_ahead_and_is_not_answered(stage):
    link = stage.link()
    stage.origin(link=link, tls=NAME)
    nginx = stage.nginx(
        link=link, location=TLS_PASS.replace("%{origin}", "app"),
        http="upstream app { server %{origin}; reuse_warm 1; }"
             "reuse_probe idle=1s interval=1s count=1;")
    stage.wait_until(lambda: counts(nginx)["connections"]["idle"] == 1)
    stage.wait_until(lambda: link.is_acknowledged("a"))
    link.drop("b")
    stage.wait_until(lambda: closed(nginx).get("silent") == 1,
                     10 * settings.SCALE)
    link.release("b")
    assert not nginx.logged("connections that have been idle")
    assert nginx.get().status == 200


def test_a_probe_that_is_answered_with_a_reset_teaches_nothing(stage):
    """As by an origin whose machine has started anew."""
    path = Path(stage, http="reuse_probe idle=1s interval=1s count=9;")
    for number in range(1, 5):
        path.link.drop("b")
        killed = subprocess.run(
            path.link.enter("b") + ["ss", "-K", "dst", "10.77.0.1"],
            capture_output=True, text=True, check=False)
        if killed.returncode or "10.77.0.1" not in killed.stdout:
            pytest.skip("no ss -K here")
        stage.wait_until(lambda: path.link.queued("b") == 0)
        path.link.release("b")
        stage.wait_until(lambda: closed(path.nginx) == {"silent": number},
                         10 * settings.SCALE)
        assert path.ask()[0] == 200
    assert not path.nginx.logged("connections that have been idle")


# what it costs, and what is asked of the kernel

strace = pytest.mark.skipif(not shutil.which("strace"), reason="no strace")

OPTION = re.compile(r"setsockopt\(\d+, \w+, ((?:SO|TCP)_KEEP\w+), \[(\d+)\]")


def options(stage, nginx, *targets, ask=None):
    """The options of keepalive probes that are set meanwhile."""
    worker, = nginx.workers()
    trace = stage.path("strace")
    client = nginx.connect()
    with traced(worker, trace):
        # once more, as a connection is kept after the response was sent
        for target in (*targets, targets[-1]):
            assert client.get(target).status == 200
    client.close()
    with open(trace, encoding="utf-8", errors="replace") as file:
        return [(name, int(value))
                for name, value in OPTION.findall(file.read())]


@strace
@pytest.mark.parametrize("directive, location, wanted", [
    ("", "", {"TCP_KEEPIDLE": 45, "TCP_KEEPINTVL": 15, "SO_KEEPALIVE": 1}),
    ("reuse_probe on;", "",
     {"TCP_KEEPIDLE": 45, "TCP_KEEPINTVL": 15, "SO_KEEPALIVE": 1}),
    ("reuse_probe idle=2m;", "",
     {"TCP_KEEPIDLE": 120, "TCP_KEEPINTVL": 15, "SO_KEEPALIVE": 1}),
    ("reuse_probe count=3 interval=7;", "",
     {"TCP_KEEPIDLE": 45, "TCP_KEEPINTVL": 7, "TCP_KEEPCNT": 3,
      "SO_KEEPALIVE": 1}),
    ("reuse_probe off;", "", {}),
    ("reuse_probe off;", "myproxy_socket_keepalive on;",
     {"SO_KEEPALIVE": 1}),
    ("", "myproxy_socket_keepalive on;",
     {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 45, "TCP_KEEPINTVL": 15}),
])
def test_options_are_set_once_in_the_life_of_a_connection(
        stage, directive, location, wanted):
    stage.origin()
    nginx = stage.nginx(http=directive, location=PASS + location)
    found = options(stage, nginx, "/", "/", "/")
    assert dict(found) == wanted
    assert len(found) == len(wanted)


@strace
def test_none_is_set_on_a_connection_that_is_not_kept(stage):
    stage.origin(http1.response(200, "Connection: close"))
    nginx = stage.nginx(location=PASS)
    assert not options(stage, nginx, "/", "/")


@strace
def test_none_is_set_on_a_unix_socket(stage):
    stage.origin(family="unix")
    nginx = stage.nginx(location=PASS)
    assert not options(stage, nginx, "/", "/")


@strace
def test_an_upstream_may_have_its_own(stage):
    stage.origin()
    stage.origin(name="other")
    nginx = stage.nginx(http="""
        reuse_probe idle=20s;
        upstream app { server %{origin}; reuse_probe idle=30s; }
        upstream without { server %{other}; reuse_probe off; }
    """, server="""
        location /app { myproxy_pass http://app; }
        location /without { myproxy_pass http://without; }
    """, location="myproxy_pass http://%{origin};")
    found = options(stage, nginx, "/app", "/without", "/")
    assert [value for name, value in found if name == "TCP_KEEPIDLE"] == [
        30, 20]


@pytest.mark.parametrize("value", [
    "0", "45s", "idle=", "idle=0", "idle=0s", "idle=500ms", "idle=10h",
    "interval=x", "interval=-1", "count=0", "count=128", "count=1s", "on off",
    "idle=1s off", "idle=1s idle=2s", "times=3", "off count=1"])
def test_what_is_no_probe_is_refused(stage, value):
    stage.origin()
    code, text = stage.config_test(http=f"reuse_probe {value};",
                                   location=PASS)
    assert code != 0
    assert re.search(r'invalid value ".*" of "reuse_probe": it is "on", "off"',
                     text), text


def test_a_second_one_is_refused(stage):
    stage.origin()
    code, text = stage.config_test(http="reuse_probe on; reuse_probe off;",
                                   location=PASS)
    assert code != 0
    assert '"reuse_probe" directive is duplicate' in text
