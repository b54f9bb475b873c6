"""Requests that are whole in one buf, which are sent without a chain."""

import os
import re
import ssl

import pytest

from harness import http1
from harness.tls import Server

NAME = "localhost"

#: More than the buffers of a connection hold, with no two parts alike.
LARGE = os.urandom(16 << 20)

#: The body is in a variable, and so behind the header in the same buf.
WHOLE = """
    myproxy_ssl_verify off;
    client_max_body_size 32m;
    client_body_buffer_size 32m;
    myproxy_set_body $request_body;
"""

SCHEMES = pytest.mark.parametrize("scheme", ["http", "https"])


def tls(scheme):
    return NAME if scheme == "https" else None


def start(stage, scheme, more=""):
    return stage.nginx(
        location=WHOLE + more + f"myproxy_pass {scheme}://%{{origin}};",
        log_level="debug")


def is_large(request):
    """Not as a comparison that pytest would explain at length."""
    return bool(request.body == LARGE)


def ended_at_once(nginx):
    """TLS cannot be shut down behind a record of which a part is missing.

    nginx would wait for that, and nobody then frees what TLS holds.
    """
    return not nginx.logged("SSL_shutdown: -1")


@SCHEMES
@pytest.mark.parametrize("method, body", [
    ("GET", None), ("POST", b"body"), ("POST", 1024 * b"x")],
    ids=["get", "small", "larger"])
def test_a_small_request_takes_no_chain(stage, scheme, method, body):
    origin = stage.origin(tls=tls(scheme))
    nginx = stage.nginx(
        location=f"myproxy_pass {scheme}://%{{origin}};"
                 "myproxy_ssl_verify off;", log_level="debug")
    client = nginx.connect()
    for _ in range(2):
        assert client.request(method, "/", body=body).status == 200
        assert origin.requests[-1].body == (body or b"")
    nginx.wait_log("http upstream send request", 2)
    assert not nginx.logged("chain writer")


@SCHEMES
@pytest.mark.parametrize("size", [0, 64 << 10], ids=["all", "chunks"])
def test_what_no_buffer_holds_is_sent_in_parts(stage, scheme, size):
    origin = stage.origin(tls=tls(scheme))
    nginx = start(stage, scheme, f"sendfile_max_chunk {size};")
    client = nginx.connect()
    for _ in range(2):
        assert client.post("/", LARGE).status == 200
        assert is_large(origin.requests[-1])
        assert client.get("/").status == 200
    assert origin.carried == [4]
    nginx.wait_log("http upstream send request handler", 2)
    assert not nginx.logged("chain writer")
    given = {"http": r"send: fd:\d+ -?\d+ of (\d+)",
             "https": r"SSL to write: (\d+)"}[scheme]
    largest = max(int(found) for found in re.findall(given, nginx.log))
    assert largest == size or size == 0 and largest > len(LARGE)


@SCHEMES
def test_the_time_between_two_parts_is_limited(stage, scheme):
    def script(conn):
        conn.read_head()
        gate.wait()

    origin = stage.origin(script, tls=tls(scheme))
    gate = origin.gate()
    nginx = start(stage, scheme, "myproxy_send_timeout 300ms;")
    assert nginx.post("/", LARGE).status == 504
    assert origin.connections == 1
    assert ended_at_once(nginx)


@SCHEMES
def test_what_was_sent_in_part_is_sent_again_whole(stage, scheme):
    def script(conn):
        conn.read_head()
        conn.reset()

    stage.origin(script, name="first", tls=tls(scheme))
    second = stage.origin(name="second", tls=tls(scheme))
    nginx = stage.nginx(
        http="upstream app { server %{first}; server %{second}; }",
        location=WHOLE + f"myproxy_pass {scheme}://app;")
    assert nginx.request("PUT", "/", body=LARGE).status == 200
    assert is_large(second.request)


@SCHEMES
def test_what_was_sent_in_part_is_executed_once(stage, scheme):
    """On a kept connection as well, where what was not sent is repeated."""
    received = []

    def script(conn):
        conn.read_request()
        conn.respond()
        received.append(conn.read_head())
        conn.reset()

    origin = stage.origin(script, tls=tls(scheme))
    client = start(stage, scheme, "sendfile_max_chunk 0;").connect()
    assert client.get("/").status == 200
    assert client.post("/", LARGE).status == 502
    assert origin.connections == 1
    assert len(received) == 1


def test_the_end_of_tls_is_told_behind_parts(stage):
    """As it is where no record was ever sent in part."""
    ends = []

    def script(conn):
        request = conn.read_head()
        gate.wait()
        conn.read_body(request)
        conn.respond(200, "Connection: close")
        conn.sock.unwrap()
        ends.append("close_notify")

    server = Server(stage.authority.issue(NAME))
    # or else Python takes any end for that of TLS
    server.context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    origin = stage.origin(script, tls=server)
    gate = origin.gate()
    nginx = start(stage, "https", "sendfile_max_chunk 0;")
    client = nginx.connect()
    client.send(http1.request("POST", "/", body=LARGE))
    # the socket takes no more of a record
    nginx.wait_log("SSL_write: -1")
    gate.open()
    assert client.read_response().status == 200
    stage.wait_until(lambda: ends)


@SCHEMES
def test_an_answer_to_a_part_is_passed(stage, scheme):
    """And the connection, on which a rest is missing, is not kept."""
    def script(conn):
        conn.read_head()
        conn.respond(413, body=b"too large")
        gate.wait()

    origin = stage.origin(script, tls=tls(scheme))
    gate = origin.gate()
    nginx = start(stage, scheme, "sendfile_max_chunk 0;")
    response = nginx.post("/", LARGE)
    assert response.status == 413
    assert response.body == b"too large"
    closed = nginx.status()["total"]["connections"]["closed_by_reason"]
    assert closed["early"] == 1
    assert ended_at_once(nginx)


@SCHEMES
def test_a_client_that_leaves_within_a_part_ends_it(stage, scheme):
    def script(conn):
        conn.read_head()
        gate.wait()
        conn.wait_for_close()

    origin = stage.origin(script, tls=tls(scheme))
    gate = origin.gate()
    nginx = start(stage, scheme, "sendfile_max_chunk 0;")
    client = nginx.connect()
    client.send(http1.request("POST", "/", body=LARGE))
    nginx.wait_log("send: fd|SSL to write: 16")
    client.close()
    nginx.wait_log("close http upstream connection")
    gate.open()
    assert ended_at_once(nginx)
