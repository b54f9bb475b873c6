"""Which responses let their connection carry another request.

It goes back to the pool only if the response was framed, wholly read and
followed by nothing, the request wholly sent, and neither side wants to close.
"""

import _ssl
import ctypes
import socket

import pytest

from harness import http1

PASS = "myproxy_pass http://%{origin};"
ZONE = "myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;"
LARGE = b"0123456789abcdef" * 500000
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = http1.response(200, "X-Smuggled: 1", body=b"smuggled")

both = pytest.mark.parametrize(
    "location", [PASS, PASS + "myproxy_buffering off;"],
    ids=["buffered", "unbuffered"])

FRAMED = {
    "length": ("GET", http1.response()),
    "length-large": ("GET", http1.response(body=LARGE)),
    "chunked": ("GET", CHUNKED + http1.chunked(b"one", b"two")),
    "chunked-large": ("GET", CHUNKED + http1.chunked(LARGE)),
    "trailers": ("GET", CHUNKED + http1.chunked(b"one",
                                                trailers=["X-Own: 1"])),
    "empty": ("GET", http1.response(body=b"")),
    "empty-chunked": ("GET", CHUNKED + http1.chunked()),
    "204": ("GET", http1.response(204)),
    "204-empty": ("GET", http1.response(204, "Content-Length: 0")),
    "304": ("GET", http1.response(304)),
    "304-length": ("GET", http1.response(304, "Content-Length: 10")),
    "head": ("HEAD", http1.response()),
    "head-chunked": ("HEAD", CHUNKED),
    "head-unframed": ("HEAD", HEAD + b"\r\n"),
    "redirect": ("GET", http1.response(302, "Location: /x", body=b"")),
    "404": ("GET", http1.response(404)),
    "500": ("GET", http1.response(500)),
    "interim": ("GET", http1.response(103) + http1.response()),
    "post": ("POST", http1.response()),
    "keep-alive": ("GET", http1.response(200, "Connection: keep-alive")),
}


@pytest.mark.parametrize("method, data", FRAMED.values(), ids=FRAMED)
@both
def test_a_framed_response_keeps_the_connection(stage, location, method,
                                                data):
    origin = stage.origin(data)
    nginx = stage.nginx(location=location)
    client = nginx.connect()
    for _ in range(3):
        status = client.request(method, "/").status
        assert status == int(data.rpartition(b"HTTP/1.1 ")[2][:3])
    assert origin.carried == [3]


@both
def test_the_connection_serves_another_client(stage, location):
    origin = stage.origin()
    nginx = stage.nginx(location=location)
    for _ in range(3):
        assert nginx.get("/").status == 200
    assert origin.carried == [3]


@both
def test_the_connection_serves_a_client_that_wants_to_close(stage, location):
    origin = stage.origin()
    nginx = stage.nginx(location=location)
    for _ in range(3):
        assert nginx.get("/", "Connection: close").status == 200
        assert nginx.get("/", version="HTTP/1.0").status == 200
    assert origin.carried == [6]


# Connection: close

CLOSING = {
    "length": ("GET", lambda *lines: http1.response(200, *lines)),
    "chunked": ("GET", lambda *lines: http1.response(
        200, *lines, "Transfer-Encoding: chunked",
        body=http1.chunked(b"hello"))),
    "empty": ("GET", lambda *lines: http1.response(200, *lines, body=b"")),
    "204": ("GET", lambda *lines: http1.response(204, *lines)),
    "304": ("GET", lambda *lines: http1.response(304, *lines)),
    "head": ("HEAD", lambda *lines: http1.response(
        200, *lines, "Content-Length: 5", body=b"")),
}


def carries_one(stage, location, data, method="GET", status=None):
    """Each connection carries one request, though the origin waits."""
    origin = stage.origin([data])
    client = stage.nginx(location=location).connect()
    for _ in range(2):
        response = client.request(method, "/")
        assert response.status == (status or int(data.split()[1]))
    assert origin.carried == [1, 1]


@pytest.mark.parametrize("method, compose", CLOSING.values(), ids=CLOSING)
@both
def test_close_ends_the_connection(stage, location, method, compose):
    carries_one(stage, location, compose("Connection: close"), method)


@pytest.mark.parametrize("lines", [
    ["Connection: Close"], ["CONNECTION: CLOSE"],
    ["Connection: keep-alive, close"], ["Connection: close, x-own"],
    ["Connection: x-own,close"], ["Connection:close"],
    ["Connection: keep-alive", "Connection: close"],
    ["Connection: close", "Connection: keep-alive"]], ids=repr)
@both
def test_close_may_be_written_in_many_ways(stage, location, lines):
    carries_one(stage, location, http1.response(200, *lines))


def test_close_is_not_told_to_the_client(stage):
    stage.origin(http1.response(200, "Connection: close"))
    client = stage.nginx(location=PASS).connect()
    for _ in range(2):
        assert client.get("/").kept


# HTTP/1.0

@pytest.mark.parametrize("lines", [
    [], ["Connection: keep-alive"], ["Connection: Keep-Alive",
                                     "Keep-Alive: timeout=5"]], ids=repr)
@both
def test_http10_ends_the_connection(stage, location, lines):
    carries_one(stage, location,
                http1.response(200, *lines, version="HTTP/1.0"))


@pytest.mark.parametrize("status", [204, 304])
@both
def test_http10_without_body_ends_the_connection(stage, location, status):
    carries_one(stage, location, http1.response(
        status, "Connection: keep-alive", version="HTTP/1.0"))


@both
def test_http10_head_ends_the_connection(stage, location):
    carries_one(stage, location,
                b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"
                b"Content-Length: 5\r\n\r\n", "HEAD")


# no framing

@both
def test_a_body_until_close_ends_the_connection(stage, location):
    def script(conn):
        conn.read_request()
        conn.send(HEAD + b"\r\nhello")
        conn.half_close()
        conn.wait_for_close()

    origin = stage.origin(script)
    client = stage.nginx(location=location).connect()
    for _ in range(2):
        assert client.get("/").body == b"hello"
    assert origin.carried == [1, 1]


def test_another_protocol_ends_the_connection(stage):
    def script(conn):
        request = conn.read_request()
        if request.target == "/other":
            conn.respond()
        else:
            conn.send(http1.response(101, "Connection: upgrade",
                                     "Upgrade: websocket"))
            conn.send(conn.read(4))
        conn.wait_for_close()

    origin = stage.origin(script)
    nginx = stage.nginx(location=PASS)
    client = nginx.connect()
    assert client.get("/", "Connection: upgrade",
                      "Upgrade: websocket").status == 101
    client.send(b"ping")
    assert client.read(4) == b"ping"
    client.close()
    stage.wait_until(lambda: origin.conns[0].closed)
    assert nginx.get("/other").status == 200
    assert origin.carried == [1, 1]


def test_another_protocol_that_nobody_wanted_ends_the_connection(stage):
    carries_one(stage, PASS, http1.response(
        101, "Connection: upgrade", "Upgrade: websocket"), status=502)


# excess

@pytest.mark.parametrize("method, data", FRAMED.values(), ids=FRAMED)
@both
def test_data_behind_the_response_ends_the_connection(stage, location,
                                                      method, data):
    if method == "HEAD":
        data = data[:data.index(b"\r\n\r\n") + 4]
    origin = stage.origin([data + SMUGGLED])
    client = stage.nginx(location=location).connect()
    for _ in range(2):
        response = client.request(method, "/")
        assert response.header("X-Smuggled") is None
    assert origin.carried == [1, 1]


def of_4096_bytes():
    head = http1.response(body=b"x" * 4000)
    data = http1.response(body=b"x" * (4000 + 4096 - len(head)))
    assert len(data) == 4096
    return data


def test_data_behind_a_response_that_fills_the_buffer_are_noticed(stage):
    data = of_4096_bytes()
    origin = stage.origin([data + SMUGGLED])
    nginx = stage.nginx(location=PASS + "myproxy_buffer_size 4k;")
    client = nginx.connect()
    for _ in range(2):
        assert client.get("/").header("X-Smuggled") is None
    assert origin.carried == [1, 1]
    nginx.wait_log("upstream sent data after the end of the response")


class Libssl:
    """What the ssl module does not have, of the library that it uses."""

    #: Where the object of a TLS socket has its SSL: behind its head and a
    #: reference to the socket.
    SSL = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)

    def __init__(self):
        self.library = ctypes.CDLL(_ssl.__file__)

    def update_keys(self, sock):
        """Send a KeyUpdate (RFC 8446, section 4.6.3)."""
        pointer = ctypes.c_void_p.from_address(id(sock._sslobj) + self.SSL)
        assert self.library.SSL_key_update(pointer, 0) == 1
        assert self.library.SSL_do_handshake(pointer) == 1


@pytest.mark.parametrize("says, carried", [
    (lambda conn: Libssl().update_keys(conn.sock), [2]),
    (lambda conn: socket.socket.send(conn.sock, b"\x17\x03\x03\x00\x40..."),
     [1, 1])], ids=["keys", "part-of-a-record"])
def test_what_tls_says_right_behind_a_response(stage, says, carried):
    """It is read with a response that fills the buffer, and the socket has
    nothing of it."""
    def script(conn):
        for number, _ in enumerate(conn.each_request()):
            if number == 0 and conn.number == 1:
                gate.wait()
                conn.send(of_4096_bytes())
                says(conn)
                said.open()
            else:
                conn.respond()

    origin = stage.origin(script, tls="app.test")
    gate, said = origin.gate(), origin.gate()
    nginx = stage.nginx(
        location="myproxy_pass https://%{origin}; myproxy_ssl_verify off;"
                 "myproxy_buffer_size 4k; myproxy_buffering off;")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: origin.requests)
    worker, = nginx.workers()
    nginx.pause_worker(worker)
    gate.open()
    said.wait()
    nginx.resume_worker(worker)
    assert client.read_response().status == 200
    assert client.get("/").status == 200
    assert origin.carried == carried
    assert not nginx.logged("upstream sent data")


def test_an_end_right_behind_a_response_displaces_nothing(stage):
    """The pool has one place, and a connection that lives is in it."""
    def ending(conn):
        conn.read_request()
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        conn.send(http1.response())
        conn.half_close()
        conn.wait_for_close()

    lasting = stage.origin(name="lasting")
    stage.origin(ending, name="ending")
    client = stage.nginx(
        http="upstream app { server %{lasting}; server %{ending};"
             " keepalive 1; }",
        location="myproxy_pass http://app;").connect()
    for _ in range(8):
        assert client.get("/").status == 200
    assert lasting.carried == [4]


@both
def test_a_body_for_head_ends_the_connection(stage, location):
    carries_one(stage, location, http1.response(), "HEAD")


@pytest.mark.parametrize("way, line", [
    ("/copied", b""), ("/redirected", b"X-Accel-Redirect: /else\r\n")])
@pytest.mark.parametrize("framed", [
    b"Content-Length: 4\r\n\r\nbody",
    b"Transfer-Encoding: chunked\r\n\r\n"
    + http1.chunked(b"bo", b"dy", trailers=["X-Own: 1"])],
    ids=["length", "chunked"])
@pytest.mark.parametrize("buffering", ["on", "off"])
def test_a_body_that_nobody_reads(stage, way, line, framed, buffering):
    """The connection is kept if the whole body is there, and nothing else."""
    stage.origin(name="first")
    whole = HEAD + line + framed
    for data, carried in ((whole, [2]), (whole + SMUGGLED, [1, 1]),
                          (whole[:-1], [1, 1]),
                          (whole[:whole.index(b"dy") + 1], [1, 1])):
        origin = stage.origin(data)
        client = stage.nginx(server=f"""
            myproxy_buffering {buffering};
            location /redirected {{ {PASS} }}
            location /else {{ return 204; }}
            location /copied {{
                mirror /copy;
                myproxy_pass http://%{{first}};
            }}
            location /copy {{ {PASS} }}
        """).connect()
        for _ in range(2):
            assert client.get(way).header("X-Smuggled") is None
        stage.wait_until(lambda: len(origin.requests) == 2)
        assert origin.carried == carried


@pytest.mark.parametrize("lines", [
    ["Content-Length: 5"], ["Transfer-Encoding: chunked"]], ids=repr)
@both
def test_a_204_with_a_body_ends_the_connection(stage, location, lines):
    carries_one(stage, location, http1.response(204, *lines))


# what was not read

def test_a_client_that_leaves_in_mid_response_ends_the_connection(stage):
    def script(conn):
        conn.read_request()
        conn.send(http1.response(body=LARGE)[:-1])
        conn.wait_for_close()

    origin = stage.origin(script)
    nginx = stage.nginx(location=PASS + "myproxy_buffering off;")
    for number in (1, 2):
        client = nginx.connect()
        client.send(http1.request("GET", "/"))
        client.read(100)
        client.close()
        stage.wait_until(lambda: len(origin.conns) == number
                         and origin.conns[-1].closed)
    assert origin.carried == [1, 1]


@pytest.mark.parametrize("more", [
    "myproxy_ignore_client_abort on;",
    "myproxy_cache zone; myproxy_cache_valid 1h;",
    "myproxy_store %{prefix}/stored;"], ids=["ignored", "cached", "stored"])
def test_a_response_that_is_wanted_without_its_client_is_read(stage, more):
    def script(conn):
        for request in conn.each_request():
            data = http1.response(body=b"first second")
            if request.target == "/":
                conn.send(data[:-7])
                gate.wait()
                conn.send(data[-7:])
            else:
                conn.send(data)

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(http=ZONE, log_level="debug",
                        location=PASS + more + "postpone_output 0;")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    assert client.read_response_head().status == 200
    client.close()
    gate.open()
    nginx.wait_log("keepalive peer: saving connection")
    assert nginx.get("/other").body == b"first second"
    assert origin.carried == [2]


def test_a_stopped_client_leaves_an_http2_stream_without_reuse(stage):
    def script(conn):
        conn.read_request()
        conn.send(http1.response(body=LARGE)[:-1])
        conn.wait_for_close()

    origin = stage.origin(script)
    nginx = stage.nginx(listen="http2", location=PASS)
    client = nginx.connect_h2()
    stream = client.send_request("GET", "/")
    client.read_data(stream, 100)
    client.reset_stream(stream)
    stage.wait_until(lambda: origin.conns[0].closed)


# what was not sent

@pytest.mark.parametrize("status", [200, 204, 413])
@both
def test_a_request_body_that_stops_ends_the_connection(stage, location,
                                                       status):
    def script(conn):
        conn.read_head()
        conn.respond(status)
        conn.wait_for_close()

    origin = stage.origin(script)
    nginx = stage.nginx(location=location + "myproxy_request_buffering off;")
    for _ in range(2):
        client = nginx.connect()
        client.send(http1.request("POST", "/", "Content-Length: 100"),
                    b"some")
        assert client.read_response().status == status
        client.close()
    assert origin.carried == [1, 1]


@both
def test_a_request_body_that_is_not_taken_ends_the_connection(stage,
                                                              location):
    def script(conn):
        conn.read_head()
        conn.respond(413)
        gates[conn.number - 1].wait()
        conn.wait_for_close()

    origin = stage.origin(script)
    gates = [origin.gate(), origin.gate()]
    nginx = stage.nginx(location=location + "client_max_body_size 0;")
    for gate in gates:
        assert nginx.post("/", LARGE).status == 413
        gate.open()
    assert origin.carried == [1, 1]


@both
def test_a_request_body_that_was_sent_keeps_the_connection(stage, location):
    origin = stage.origin()
    nginx = stage.nginx(location=location + "client_max_body_size 0;"
                        "myproxy_request_buffering off;")
    assert nginx.post("/", LARGE).status == 200
    assert nginx.get("/").status == 200
    assert origin.carried == [2]


# behind the cache; what expires at "@1" is stale at once

STALE = PASS + """
    myproxy_cache zone;
    myproxy_cache_use_stale http_500;
    myproxy_cache_revalidate on;
    add_header X-Status $upstream_cache_status;
"""


def then(first, *others):
    """A connection's responses; the last one is for all that follow."""
    def script(conn):
        for _ in conn.each_request():
            number = len(conn.origin.requests)
            conn.send((first, *others)[min(number - 1, len(others))])
    return script


@pytest.mark.parametrize("stale", [
    http1.response(301, "Location: /x", "X-Accel-Expires: @1", body=b""),
    http1.response(200, "X-Accel-Expires: @1", body=b""),
    http1.response(200, "X-Accel-Expires: @1"),
    http1.response(200, "X-Accel-Expires: @1", "Transfer-Encoding: chunked",
                   body=http1.chunked(b"hello"))],
    ids=["301", "empty", "body", "chunked"])
@pytest.mark.parametrize("failed", [
    http1.response(500, body=SMUGGLED),
    http1.response(500, body=SMUGGLED * 500)[:-100],
    http1.response(500, "Content-Length: 10000", body=SMUGGLED),
    http1.response(500, "Transfer-Encoding: chunked",
                   body=http1.chunked(SMUGGLED)),
    http1.response(500, body=b"") + SMUGGLED],
    ids=["whole", "large", "short", "chunked", "excess"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_failure_behind_a_stale_response_ends_the_connection(
        stage, method, failed, stale):
    origin = stage.origin(then(stale, failed, http1.response(
        200, "X-Own: 1", body=b"other")))
    client = stage.nginx(http=ZONE, location=STALE).connect()
    assert client.request(method, "/a").header("X-Status") == "MISS"
    response = client.request(method, "/a")
    assert response.header("X-Status") == "STALE"
    assert response.status == int(stale.split()[1])
    response = client.request(method, "/b")
    assert response.header("X-Own") == "1"
    assert response.header("X-Smuggled") is None
    assert response.body == (b"other" if method == "GET" else b"")
    if method == "GET":
        assert origin.carried == [2, 1]


REVALIDATED = http1.response(200, "X-Accel-Expires: @1", 'ETag: "tag"')


def test_a_revalidation_keeps_the_connection(stage):
    origin = stage.origin(then(REVALIDATED, http1.response(304)))
    client = stage.nginx(http=ZONE, location=STALE).connect()
    assert client.get("/").header("X-Status") == "MISS"
    for _ in range(3):
        response = client.get("/")
        assert response.header("X-Status") == "REVALIDATED"
        assert response.body == b"hello\n"
    assert origin.carried == [4]


@pytest.mark.parametrize("data", [
    http1.response(304, "Connection: close"),
    http1.response(304) + SMUGGLED,
    http1.response(304, version="HTTP/1.0")],
    ids=["close", "excess", "http10"])
def test_a_revalidation_may_end_the_connection(stage, data):
    origin = stage.origin(then(REVALIDATED, data))
    client = stage.nginx(http=ZONE, location=STALE).connect()
    assert client.get("/").header("X-Status") == "MISS"
    for _ in range(2):
        response = client.get("/")
        assert response.header("X-Status") == "REVALIDATED"
        assert response.body == b"hello\n"
    assert origin.carried == [2, 1]


def test_a_hit_needs_no_connection(stage):
    origin = stage.origin(http1.response(200, "X-Accel-Expires: 100"))
    client = stage.nginx(http=ZONE, location=STALE).connect()
    for status in ("MISS", "HIT", "HIT"):
        assert client.get("/").header("X-Status") == status
    assert client.get("/other").header("X-Status") == "MISS"
    assert origin.carried == [2]


def test_a_head_that_became_get_keeps_the_connection(stage):
    origin = stage.origin(http1.response(200, "X-Accel-Expires: 100",
                                         body=LARGE))
    nginx = stage.nginx(http=ZONE, location=STALE, log_level="debug")
    client = nginx.connect()
    for number in (1, 2):
        assert client.request("HEAD", f"/{number}").body == b""
        nginx.wait_log("keepalive peer: saving connection", number)
    assert origin.carried == [2]
