"""Warm connections must not starve an origin.

Many origins have a process or a thread for each connection, which waits for
a request on a connection that it has accepted: gunicorn's sync workers,
Apache's prefork, PHP-FPM.  The kernel accepts any number besides.
"""

import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest

from harness import http1, settings
from harness.clock import Clock
from harness.tls import Server
from harness.warming import pay

PASS = "myproxy_pass http://app;"
TLS_PASS = "myproxy_pass https://app; myproxy_ssl_verify off;"

#: What the log says once.
STOPPED = (r'\[warn\].*upstream "app" is not kept warm for 60 seconds: '
           r'server 127\.0\.0\.1:\d+ ')

#: What a worker imports.
APPLICATION = """
with open("started", "a") as file:
    file.write("one\\n")

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def up(warm, more=""):
    return f"upstream app {{ server %{{origin}}; reuse_warm {warm}; {more} }}"


class Processes:
    """An origin of so many processes, each with a connection at a time.

    All connections are accepted, as by a kernel.  A response ends its
    connection, and takes so many seconds as the request's target says.
    """

    def __init__(self, stage, count, tls=None):
        self.free = threading.Semaphore(count)
        self.tls = tls
        self.origin = stage.origin(self.play)

    def play(self, conn):
        with self.free:
            if self.tls:
                conn.sock = self.tls.wrap(conn)
            request = conn.read_request()
            if request is None:
                return
            # its work: the origin is slow, and no test waits for this
            time.sleep(float(request.target[1:] or 0))
            conn.send(http1.response(200, "Connection: close", body=b"ok"))


def closed(nginx):
    found = nginx.status()["total"]["connections"]
    return found["closed_by_reason"]["starving"]


def idle(nginx):
    return nginx.status()["total"]["connections"]["idle"]


def timed(nginx, target="/"):
    """(status, seconds)"""
    begun = time.monotonic()
    status = nginx.get(target).status
    return status, time.monotonic() - begun


def start(stage, warm, **more):
    """Requests have paid for what "auto" opens before it does."""
    if warm != "auto":
        return stage.nginx(http=up(warm), location=PASS, **more)
    nginx = stage.nginx(http=up("off"), location=PASS, **more)
    pay(nginx)
    nginx.reload(http=up(warm))
    assert nginx.get().status == 200
    return nginx


@contextlib.contextmanager
def gunicorn(stage, directory, workers):
    """Its address, once all of its workers are there."""
    (directory / "app.py").write_text(APPLICATION)
    started = directory / "started"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            ["gunicorn", "--workers", str(workers), "--bind",
             f"fd://{listener.fileno()}", "--timeout", "60",
             "--chdir", str(directory), "app"],
            pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            stage.wait_until(
                lambda: started.exists()
                and started.read_text().count("\n") == workers)
            yield "%s:%d" % listener.getsockname()
        finally:
            process.terminate()
            process.wait(settings.PATIENCE)


@pytest.mark.skipif(shutil.which("gunicorn") is None, reason="no gunicorn")
def test_gunicorn_with_two_sync_workers(stage, tmp_path):
    """Both workers accept a warm connection, and wait for a request on it."""
    with gunicorn(stage, tmp_path, 2) as address:
        stage.names["origin"] = address
        nginx = start(stage, "auto")
        nginx.expect_log(STOPPED)
        begin(stage, nginx)
        found = [timed(nginx) for _ in range(6)]
        assert [status for status, _ in found] == [200] * 6
        # one of them waited until it was noticed
        assert sum(seconds for _, seconds in found) < 3.5 * settings.SCALE
        assert idle(nginx) == 0
        assert len(nginx.logged(STOPPED)) == 1
        nginx.stop()


def begin(stage, nginx):
    """Once as many connections are warm as there will be."""
    stage.wait_until(lambda: idle(nginx) == 4)


@pytest.mark.parametrize("warm", ["auto", "4"])
@pytest.mark.parametrize("workers", [1, 2])
def test_it_is_noticed_and_stops(stage, warm, workers):
    origin = Processes(stage, 2).origin
    nginx = start(stage, warm, workers=workers)
    nginx.expect_log(STOPPED)
    begin(stage, nginx)
    found = [timed(nginx) for _ in range(6)]
    assert [status for status, _ in found] == [200] * 6
    assert sum(seconds for _, seconds in found) < 4 * settings.SCALE
    nginx.wait_log(STOPPED)
    assert closed(nginx) >= 3
    # for as long as it takes a worker to make its next plan
    stage.wait_until(lambda: idle(nginx) == 0)
    opened = origin.connections
    assert [nginx.get().status for _ in range(3)] == [200] * 3
    stage.let_pass(1.1)
    assert origin.connections == opened + 3
    assert len(nginx.logged(STOPPED)) == 1
    nginx.reload()
    assert nginx.get().status == 200
    assert idle(nginx) == 0


def test_it_stops_for_longer_each_time(stage):
    clock = Clock(stage)
    Processes(stage, 2)
    nginx = stage.nginx(http=up("4"), location=PASS, env=clock.env)
    nginx.expect_log("is not kept warm for")
    for seconds in 60, 120, 240:
        stage.wait_until(lambda: idle(nginx) == 4)
        assert [nginx.get().status for _ in range(6)] == [200] * 6
        nginx.wait_log(f"is not kept warm for {seconds} seconds")
        assert idle(nginx) == 0
        clock.forward(seconds)
    assert len(nginx.logged("is not kept warm for")) == 3


def test_a_slow_answer_is_forgotten(stage):
    """What is usual of late decides how soon it is noticed."""
    clock = Clock(stage)
    Processes(stage, 2)
    nginx = stage.nginx(http=up("4"), location=PASS, env=clock.env)
    nginx.expect_log("is not kept warm for")
    stage.wait_until(lambda: idle(nginx) == 4)
    assert [nginx.get().status for _ in range(6)] == [200] * 6
    nginx.wait_log(STOPPED)
    # less than what would show that they were not to blame
    assert nginx.get("/0.6").status == 200
    for _ in range(60):
        assert nginx.get().status == 200
    clock.forward(60)
    stage.wait_until(lambda: idle(nginx) == 4)
    assert [nginx.get().status for _ in range(6)] == [200] * 6
    line, = nginx.wait_log("is not kept warm for 120 seconds")
    waited = int(re.search(r"unanswered for (\d+) ms", line)[1])
    assert waited < 4 * 600


def test_connections_to_others_are_opened_all_the_same(stage):
    """Those to the server alone that does not answer are given up."""
    Processes(stage, 2)
    other = stage.origin(lambda conn: conn.wait_for_close(), name="other")
    nginx = stage.nginx(
        http=up("4") + "upstream hung { server %{other}; reuse_warm 2; }",
        server="location /hung { myproxy_pass https://hung; }",
        location=PASS)
    nginx.expect_log(STOPPED)
    stage.wait_until(lambda: idle(nginx) == 4 and other.connections == 2)
    assert [nginx.get().status for _ in range(6)] == [200] * 6
    nginx.wait_log(STOPPED)
    assert closed(nginx) >= 3
    hung, = (view for view in nginx.status()["upstreams"]
             if view["name"] == "hung")
    assert hung["connections"]["closed"] == 0
    assert not any(conn.closed for conn in other.conns)


def test_connections_to_other_servers_stay(stage):
    """Of one upstream, in which one server of two has a process for each."""
    Processes(stage, 1)
    other = stage.origin(name="other")
    nginx = stage.nginx(
        http="upstream app { server %{origin}; server %{other}; "
             "reuse_warm 4; }", location=PASS)
    nginx.expect_log(STOPPED)
    begin(stage, nginx)
    assert [nginx.get().status for _ in range(4)] == [200] * 4
    nginx.wait_log(STOPPED)
    assert closed(nginx) >= 1
    assert len(other.requests) == 2
    assert not any(conn.closed for conn in other.conns)


def test_when_requests_time_out(stage):
    """Sooner than their waiting would show it."""
    Processes(stage, 2)
    nginx = stage.nginx(http=up(4), location=PASS
                        + "myproxy_read_timeout 300ms;")
    nginx.expect_log(STOPPED)
    nginx.expect_log("timed out")
    begin(stage, nginx)
    found = [nginx.get().status for _ in range(6)]
    assert 1 <= found.count(504) <= 2
    nginx.wait_log(STOPPED)
    assert idle(nginx) == 0


def test_in_tls(stage):
    """A request waits for its handshake, as one that is opened ahead does."""
    tls = Server(stage.authority.issue("a.test", "b.test"))
    origin = Processes(stage, 1, tls).origin
    nginx = stage.nginx(http=up(2), server="""
        myproxy_ssl_verify off;
        location /a { myproxy_pass https://app/; myproxy_ssl_name a.test; }
        location /b { myproxy_pass https://app/; myproxy_ssl_name b.test; }
        """)
    nginx.expect_log(STOPPED)
    stage.wait_until(lambda: idle(nginx) == 1)
    stage.wait_until(
        lambda: any(conn.tls_version for conn in origin.conns))
    first, = [conn.sni for conn in origin.conns if conn.tls_version]
    assert nginx.get("/b" if first == "a.test" else "/a").status == 200
    nginx.wait_log(STOPPED)
    # one of the first name, and what was being opened
    stage.wait_until(lambda: closed(nginx) >= 2)


def test_while_others_are_answered(stage):
    """By processes that no connection without a request has reached."""
    def answer(request):
        if request.target == "/stuck":
            stage.wait_until(lambda: not [
                conn for conn in origin.conns
                if not conn.closed and not conn.requests])
        return http1.response()

    origin = stage.origin(lambda conn: conn.serve(answer))
    nginx = stage.nginx(http=up("4"), location=PASS)
    nginx.expect_log(STOPPED)
    begin(stage, nginx)
    client = nginx.connect()
    client.send(http1.request("GET", "/stuck"))
    while not nginx.logged(STOPPED):
        assert nginx.get("/other").status == 200
        stage.let_pass(0.05)
    assert client.read_response().status == 200


class Held:
    """An origin that answers a request at a gate of its own."""

    def __init__(self, stage):
        self.origin = stage.origin(lambda conn: conn.serve(self.answer))
        self.gates = {}

    def answer(self, request):
        if request.target in self.gates:
            self.gates[request.target].wait()
        return http1.response()

    def hold(self, nginx, target):
        """A client whose request waits at the gate of this name."""
        self.gates[target] = self.origin.gate()
        client = nginx.connect()
        client.send(http1.request("GET", target))
        return client

    def release(self, target, client):
        self.gates[target].open()
        assert client.read_response().status == 200
        client.close()


@pytest.mark.parametrize("warm", ["auto", "4"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_slow_answer_leaves_it_warm(stage, warm, workers):
    """It does not come when the others are closed, nor are they to blame."""
    held = Held(stage)
    nginx = start(stage, warm, workers=workers)
    begin(stage, nginx)
    client = held.hold(nginx, "/slow")
    # with "auto", what is in use is one of them
    unused = 4 - (warm == "auto")
    stage.wait_until(lambda: closed(nginx) >= 3)
    stage.wait_until(lambda: idle(nginx) == unused)
    held.release("/slow", client)
    assert nginx.logged("kept warm") == []
    # it has learned how long that may take
    client = held.hold(nginx, "/again")
    before = closed(nginx)
    stage.let_pass(1.5)
    assert closed(nginx) == before
    held.release("/again", client)


def test_an_answer_that_came_just_then(stage):
    """They seem to be to blame, until a request waits without them."""
    held = Held(stage)
    nginx = stage.nginx(http=up("4"), location=PASS)
    nginx.expect_log(STOPPED)
    begin(stage, nginx)
    client = held.hold(nginx, "/chance")
    stage.wait_until(lambda: closed(nginx) >= 3)
    held.release("/chance", client)
    nginx.wait_log(STOPPED)
    assert nginx.get().status == 200
    # which is the one that is kept
    assert idle(nginx) == 1
    client = held.hold(nginx, "/slow")
    nginx.wait_log(r'\[notice\].*upstream "app" is kept warm again')
    stage.wait_until(lambda: idle(nginx) >= 4)
    held.release("/slow", client)


def test_a_response_that_lasts_is_an_answer(stage):
    """The origin has not left the request unanswered."""
    def script(conn):
        for _ in conn.each_request():
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            gate.wait()
            conn.send(b" of it")

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(http=up("4"),
                        location=PASS + "myproxy_buffering off;")
    begin(stage, nginx)
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    assert client.read_until(b"half").endswith(b"half")
    stage.let_pass(1.5)
    assert closed(nginx) == 0
    gate.open()
    client.close()


def test_a_client_that_sends_slowly(stage):
    """It is not the origin that is waited for."""
    origin = stage.origin()
    nginx = stage.nginx(http=up("4", "reuse_expiry 100s;"), location=PASS
                        + "myproxy_request_buffering off;")
    begin(stage, nginx)
    client = nginx.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo")
    stage.wait_until(lambda: sum(bool(conn.requests)
                                 for conn in origin.conns) == 1)
    stage.let_pass(1.5)
    client.send(b"dy")
    assert client.read_response().status == 200
    assert closed(nginx) == 0


def test_others_are_answered_meanwhile(stage):
    """As long as they are, one that waits is no sign."""
    clock = Clock(stage)
    held = Held(stage)
    nginx = stage.nginx(http=up("4"), location=PASS, env=clock.env)
    begin(stage, nginx)
    client = held.hold(nginx, "/slow")
    stage.wait_until(lambda: len(held.origin.requests) == 1)
    # by then it has waited for more than a second, and less than four
    for _ in range(5):
        clock.forward(0.5)
        assert nginx.get("/quick").status == 200
        assert closed(nginx) == 0
    held.release("/slow", client)


def test_the_time_of_a_client_that_sends_slowly(stage):
    """The origin is waited for from when it has the request."""
    clock = Clock(stage)
    held = Held(stage)
    nginx = stage.nginx(
        http=up("4", "reuse_expiry 100s;"), env=clock.env,
        location=PASS + "myproxy_request_buffering off;")
    begin(stage, nginx)
    held.gates["/slow"] = held.origin.gate()
    client = nginx.connect()
    client.send(b"POST /slow HTTP/1.1\r\nHost: x\r\n"
                b"Content-Length: 4\r\n\r\nbo")
    stage.wait_until(lambda: idle(nginx) == 4
                     and any(conn.requests for conn in held.origin.conns))
    clock.forward(5)
    # a plan is made before there is a second answer
    assert (closed(nginx), closed(nginx)) == (0, 0)
    client.send(b"dy")
    stage.wait_until(lambda: held.origin.requests[0].body == b"body")
    opened = held.origin.connections
    other = held.hold(nginx, "/other")
    # another one is made, since a connection is missing
    stage.wait_until(lambda: held.origin.connections == opened + 1)
    assert closed(nginx) == 0
    held.release("/slow", client)
    held.release("/other", other)


def test_a_slow_request_beside_quick_ones(stage):
    """One request is slow of itself while all others are answered at once:
    connections without requests are not to blame."""
    held = Held(stage)
    nginx = stage.nginx(http=up("4"), location=PASS)
    begin(stage, nginx)
    client = held.hold(nginx, "/slow")
    end = time.monotonic() + 8
    while time.monotonic() < end and not closed(nginx):
        assert nginx.get("/quick").status == 200
        stage.let_pass(0.02)
    for _ in range(20):
        assert nginx.get("/quick").status == 200
        stage.let_pass(0.02)
    held.release("/slow", client)
    assert nginx.logged(STOPPED) == []


def test_a_slow_request_before_a_quick_one(stage):
    """With more workers an answer within a second looks prompt."""
    held = Held(stage)
    nginx = stage.nginx(http=up("4"), location=PASS, workers=2)
    begin(stage, nginx)
    client = held.hold(nginx, "/slow")
    stage.wait_until(lambda: closed(nginx) >= 3)
    for _ in range(30):
        assert nginx.get("/quick").status == 200
    assert nginx.logged(STOPPED) == []
    stage.wait_until(lambda: idle(nginx) >= 4)
    held.release("/slow", client)


def test_a_trial_that_nobody_waited_for_is_forgotten(stage):
    held = Held(stage)
    nginx = stage.nginx(http=up("1"),
                        location=PASS + "myproxy_read_timeout 500ms;")
    nginx.expect_log("upstream timed out")
    stage.wait_until(lambda: idle(nginx) == 1)
    client = held.hold(nginx, "/hang")
    stage.wait_until(lambda: idle(nginx) == 1)
    assert client.read_response().status == 504
    held.gates["/hang"].open()
    # as long as a trial takes
    stage.let_pass(12)
    stage.wait_until(lambda: idle(nginx) == 1)
    assert nginx.get().status == 200
    stage.let_pass(2)
    assert nginx.logged(STOPPED) == []


@pytest.mark.parametrize("size", [100, 20_000_000])
def test_an_upload_that_nobody_reads(stage, size):
    """The kernel has accepted the connection, and its buffers are full."""
    Processes(stage, 2)
    nginx = stage.nginx(
        http=up("4"),
        location=PASS + "client_max_body_size 0; myproxy_send_timeout %ds;"
        "myproxy_read_timeout %ds;" % (6 * settings.SCALE,
                                       6 * settings.SCALE))
    nginx.expect_log(STOPPED)
    stage.wait_until(lambda: idle(nginx) == 4)
    status, seconds = timed_post(nginx, b"x" * size)
    assert status == 200
    assert seconds < 4 * settings.SCALE


def timed_post(nginx, body):
    begun = time.monotonic()
    status = nginx.post("/", body).status
    return status, time.monotonic() - begun
