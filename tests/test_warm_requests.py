"""Requests on connections that were opened ahead."""

import contextlib
import shutil
import signal
import ssl
import subprocess

import pytest

from harness import http1, settings, tls
from harness.warming import PASS, TLS_PASS, UP, counts, wait_idle


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


class LateTickets:
    """An origin whose session tickets come when the test says so."""

    def __init__(self, stage, context):
        self.context = context
        self.delivered = False
        self.origin = stage.origin(self.play)
        self.gate = self.origin.gate()

    def play(self, conn):
        self.sock = conn.sock
        self.received, self.sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(self.received, self.sent,
                                         server_side=True)
        self.until_there(self.tls.do_handshake)
        self.gate.wait()
        self.flush()
        conn.wait_until_delivered()
        self.delivered = True
        request = self.until_there(lambda: self.tls.read(65536))
        assert request.startswith(b"GET / ")
        self.tls.write(http1.response(200, body=b"ok"))
        self.flush()
        conn.wait_for_close()

    def until_there(self, read):
        """What it returns once enough has been received."""
        while True:
            try:
                return read()
            except ssl.SSLWantReadError:
                self.flush()
                self.received.write(self.sock.recv(65536))

    def flush(self):
        if self.sent.pending:
            self.sock.sendall(self.sent.read())


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace")
def test_tickets_that_come_with_the_request(stage, authority):
    """The response follows them before the worker looks for events again.

    It takes long to send, so that the response is there when what has come
    before the request is read.
    """
    late = LateTickets(stage, tls.Server(authority.issue("app")).context)
    nginx = stage.nginx(
        http=UP.format("reuse_warm 1; keepalive 1;"),
        server="location = /accepted { return 204; }",
        location=TLS_PASS + "myproxy_next_upstream off;")
    wait_idle(stage, nginx, 1)
    worker, = nginx.workers()
    client = nginx.connect()
    assert client.get("/accepted").status == 204
    nginx.pause_worker(worker)
    client.send(http1.request("GET", "/"))
    late.gate.open()
    stage.wait_until(lambda: late.delivered)
    with slow_writes(worker):
        nginx.resume_worker(worker)
        response = client.read_response()
    assert response.status == 200
    assert response.body == b"ok"
    found = counts(nginx)
    assert found["requests"]["warm"] == 1
    assert found["connections"]["closed_by_reason"]["excess"] == 0


@contextlib.contextmanager
def slow_writes(process):
    """write() returns half a second after it has written."""
    strace = subprocess.Popen(
        ["strace", "-o", "/dev/null", "-e", "inject=write:delay_exit=500000",
         "-p", str(process)], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        if "attached" not in strace.stderr.readline():
            pytest.skip("no process can be traced here")
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait()
        strace.stderr.close()
