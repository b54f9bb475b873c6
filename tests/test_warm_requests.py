"""Requests on connections that were opened ahead."""

import contextlib
import shutil
import signal
import ssl
import subprocess

import pytest

from harness import http1, settings, tls
from harness.warming import PASS, TLS_PASS, UP, counts, wait_idle
from harness.wire import Truncated


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
    found = counts(nginx)["attempts"]
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
    # or else the request may open a further one
    wait_idle(stage, nginx, 1)
    assert nginx.request(method, "/", body=b"x").status == 200
    assert origin.connections == 2


@VERSIONS
def test_the_end_of_tcp_alone_does_not_end_a_response(stage, authority,
                                                      maximum):
    """While it is idle that is an end like any other; in a response what is
    missing may have been cut off."""
    def script(conn):
        if conn.number == 1:
            conn.read_request()
            conn.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        else:
            conn.serve()

    origin = stage.origin(script, tls=tls.Server(authority.issue("app"),
                                                 maximum=maximum))
    nginx = stage.nginx(http=UP.format("keepalive 1; reuse_warm 1;"),
                        location=TLS_PASS)
    wait_idle(stage, nginx, 1)
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    with pytest.raises(Truncated):
        client.read_response()
    assert counts(nginx)["attempts"]["warm"] == 1
    assert origin.carried[0] == 1


@VERSIONS
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_part_of_a_record_is_no_ticket(stage, authority, maximum, method):
    """What it says cannot be known before the rest is there."""
    server = tls.Server(authority.issue("app"), maximum=maximum)

    def script(conn):
        if conn.number > 1:
            conn.sock = server.wrap(conn)
            conn.serve()
            return
        stray = TlsInMemory(conn.sock, server.context)
        stray.until_there(stray.tls.do_handshake)
        stray.flush()
        gate.wait()
        stray.tls.write(http1.response(200, body=b"stray"))
        record = stray.sent.read()
        conn.sock.sendall(record[:-1])
        conn.wait_until_delivered()
        conn.said = True
        if conn.sock.recv(1):
            conn.sock.sendall(record[-1:])
            conn.wait_for_close()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(http=UP.format("keepalive 1; reuse_warm 1;"),
                        location=TLS_PASS)
    wait_idle(stage, nginx, 1)
    gate.open()
    stage.wait_until(lambda: hasattr(origin.conns[0], "said"))
    response = nginx.request(method, "/", body=b"x")
    assert (response.status, response.body) == (200, b"hello\n")
    assert counts(nginx)["attempts"]["new_by_reason"]["stale"] == 1


class TlsInMemory:
    """An origin's end of TLS, which sends what it has when it is told to."""

    def __init__(self, sock, context):
        self.sock = sock
        self.received, self.sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.received, self.sent,
                                    server_side=True)

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


class LateTickets:
    """An origin whose session tickets come when the test says so."""

    def __init__(self, stage, context):
        self.context = context
        self.delivered = False
        self.origin = stage.origin(self.play)
        self.gate = self.origin.gate()

    def play(self, conn):
        ours = TlsInMemory(conn.sock, self.context)
        ours.until_there(ours.tls.do_handshake)
        self.gate.wait()
        ours.flush()
        conn.wait_until_delivered()
        self.delivered = True
        request = ours.until_there(lambda: ours.tls.read(65536))
        assert request.startswith(b"GET / ")
        ours.tls.write(http1.response(200, body=b"ok"))
        ours.flush()
        conn.wait_for_close()


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
    assert found["attempts"]["warm"] == 1
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
