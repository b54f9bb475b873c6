"""The reuse layer under nginx's own handlers: an upstream with `reuse on`."""

import struct

import h2.config
import h2.connection
import h2.events
import pytest

from harness.crossing import SENT_AGAIN, Scene, answer_http

UP = "upstream app { server %{origin}; reuse on; }"
EMPTY = b""


# what the origins speak: each reads one request and answers it

def answer_fastcgi(conn):
    """A responder that keeps connections (FastCGI 1.0, section 5)."""
    if not conn.more():
        return False
    while True:
        _, kind, number, size, padding = struct.unpack(
            ">BBHHBx", conn.read(8))
        conn.read(size + padding)
        if kind == 5 and size == 0:
            break
    conn.origin.requests.append(kind)
    conn.send(record(6, number, b"Status: 200 OK\r\n\r\nhello\n"),
              record(6, number, EMPTY), record(3, number, bytes(8)))
    return True


def record(kind, number, data):
    return struct.pack(">BBHHBx", 1, kind, number, len(data), 0) + data


def answer_memcached(conn):
    if not conn.more():
        return False
    key = conn.read_line().split()[1]
    conn.origin.requests.append(key)
    conn.send(b"VALUE " + key + b" 0 6\r\nhello\n\r\nEND\r\n")
    return True


def answer_grpc(conn, window=65535):
    """Answer a request, and see the settings acknowledged before another."""
    if not hasattr(conn, "h2"):
        conn.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False))
        conn.h2.local_settings.initial_window_size = window
        conn.h2.local_settings.acknowledge()
        conn.h2.initiate_connection()
        conn.open = {"answer", "acknowledgement"}
    conn.open.add("answer")
    while conn.open and conn.more():
        for event in conn.h2.receive_data(conn.recv()):
            if isinstance(event, h2.events.DataReceived):
                conn.h2.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                conn.origin.requests.append(event)
                conn.h2.send_headers(event.stream_id, [
                    (":status", "200"), ("content-type", "application/grpc")])
                conn.h2.send_data(event.stream_id, b"hello\n")
                conn.h2.send_headers(event.stream_id, [("grpc-status", "0")],
                                     end_stream=True)
                conn.open.discard("answer")
            elif isinstance(event, h2.events.SettingsAcknowledged):
                conn.open.discard("acknowledgement")
        data = conn.h2.data_to_send()
        if data:
            conn.send(data)
    return not conn.open


HANDLERS = {
    "proxy": (answer_http, """
        proxy_pass http://app;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
    """),
    "fastcgi": (answer_fastcgi, """
        fastcgi_pass app;
        fastcgi_keep_conn on;
        fastcgi_param REQUEST_METHOD $request_method;
        fastcgi_param CONTENT_LENGTH $content_length;
    """),
    "grpc": (answer_grpc, "grpc_pass grpc://app;"),
    "memcached": (answer_memcached, """
        set $memcached_key $uri;
        memcached_pass app;
    """),
}

each = pytest.mark.parametrize("name", HANDLERS)


def method_of(name):
    return "GET" if name == "memcached" else "POST"


def close(conn):
    conn.close()


@each
def test_an_undelivered_request_is_sent_again(stage, name):
    answer, location = HANDLERS[name]
    scene = Scene(stage, close, answer=answer, http=UP, location=location)
    scene.cross(method_of(name))
    scene.meet()
    assert scene.response().status == 200
    assert len(scene.origin.requests) == 2
    assert not scene.errors()


def test_a_body_that_waits_for_a_window_is_not_sent_again(stage):
    """nginx would begin the new connection with what is left of it, as it
    is: here that is a connection of its own, and a request."""
    inner = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True))
    inner.initiate_connection()
    inner.send_headers(1, [
        (":method", "POST"), (":path", "/inner"), (":scheme", "http"),
        (":authority", "x")], end_stream=True)
    scene = Scene(stage, close, http=UP, location="grpc_pass grpc://app;",
                  answer=lambda conn: answer_grpc(conn, window=10))
    scene.cross("POST", "/x", inner.data_to_send())
    scene.link.release("b")
    assert scene.response().status == 502
    scene.link.release("a")
    assert scene.nginx.logged("a part of its HTTP/2 body is still waiting")
    assert not scene.nginx.logged(SENT_AGAIN)
    assert scene.origin.connections == 1


@each
def test_connections_are_reused_and_checked(stage, name):
    answer, location = HANDLERS[name]

    def script(conn):
        while answer(conn):
            pass

    origin = stage.origin(script)
    nginx = stage.nginx(http=UP, location=location)
    for _ in range(3):
        assert nginx.request(method_of(name), "/").status == 200
    assert origin.connections == 1
    assert len(origin.requests) == 3


@each
def test_without_reuse_the_layer_is_not_there(stage, name):
    """What nginx does by itself: a POST that was not received is lost."""
    answer, location = HANDLERS[name]
    scene = Scene(stage, close, answer=answer, location=location,
                  http="upstream app { server %{origin}; keepalive 4; }")
    scene.cross(method_of(name))
    scene.link.release("b")
    scene.nginx.wait_log(r"\[error\].*prematurely closed")
    scene.link.release("a")
    status = scene.response().status
    assert status == (200 if method_of(name) == "GET" else 502)
    assert not scene.nginx.logged(SENT_AGAIN)


@each
def test_reuse_may_be_said_once_for_all(stage, name):
    """In http{}, also for a pass that names an address."""
    answer, location = HANDLERS[name]

    def script(conn):
        while answer(conn):
            pass

    origin = stage.origin(script)
    nginx = stage.nginx(http="reuse on;",
                        location=location.replace("app;", "%{origin};"))
    for _ in range(3):
        assert nginx.request(method_of(name), "/").status == 200
    assert origin.connections == 1


def test_reuse_off_for_all_but_one(stage):
    origins = [stage.origin(name=name) for name in ("one", "two", "three")]
    nginx = stage.nginx(
        http="""
            reuse off;
            upstream one { server %{one}; }
            upstream two { server %{two}; reuse on; }
        """,
        server="""
            location /one { myproxy_pass http://one; }
            location /two { myproxy_pass http://two; }
            location /three { myproxy_pass http://%{three}; }
        """)
    for target in ("/one", "/two", "/three") * 2:
        assert nginx.get(target).status == 200
    assert [origin.connections for origin in origins] == [2, 1, 2]


@pytest.mark.parametrize("first", ["/h1", "/h2"])
def test_two_protocols_at_one_address(stage, first):
    """A connection speaks the one that it has begun with."""
    def script(conn):
        answer = answer_grpc if conn.more() and \
            bytes(conn.unread[:3]) == b"PRI" else answer_http
        while answer(conn):
            pass

    origin = stage.origin(script)
    nginx = stage.nginx(http="reuse on;", server="""
        location /h1 {
            proxy_pass http://%{origin};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
        location /h2 { grpc_pass grpc://%{origin}; }
    """)
    other = {"/h1": "/h2", "/h2": "/h1"}[first]
    for target in (first, other) * 3:
        assert nginx.post(target, b"body").status == 200
    assert origin.connections == 2
