"""How the origin's body gets to the client, and when it does not."""

import array
import gzip
import os
import re
import socket
import termios
import time
import zlib
from fcntl import ioctl

import pytest

from harness import http1
from harness.nginx import version
from harness.wire import Truncated

PASS = "myproxy_pass http://%{origin};"
ZONE = "myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;"
WAYS = {
    "buffered": PASS,
    "unbuffered": PASS + "myproxy_buffering off;",
    "cached": PASS + "myproxy_cache zone; myproxy_cache_valid any 1h;"
    "add_header X-Status $upstream_cache_status;",
    "stored": PASS + "myproxy_store %{prefix}/stored; root %{prefix};",
}

pairs = pytest.mark.parametrize(
    "way", [WAYS["buffered"], WAYS["unbuffered"]],
    ids=["buffered", "unbuffered"])
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def pattern(size):
    """Bytes of which each part looks different."""
    return b"".join(b"%07d\n" % at for at in range(size // 8 + 1))[:size]


LARGE = pattern(8000000)
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def in_pieces(conn, *pieces):
    """Send each when nginx has read the one before, from a unix socket."""
    for piece in pieces:
        conn.sock.sendall(piece)
        conn.wait_until_delivered()


def chunks_of(body, size):
    return http1.chunked(*[body[at:at + size]
                           for at in range(0, len(body), size)])


def until_close(data):
    def script(conn):
        conn.read_request()
        conn.send(data)
    return script


# framing

FRAMINGS = {
    "length": lambda body: http1.response(body=body),
    "one-chunk": lambda body: CHUNKED + chunks_of(body, len(body)),
    "chunks": lambda body: CHUNKED + chunks_of(body, 1000),
    "close": lambda body: until_close(HEAD + b"\r\n" + body),
    "said-close": lambda body: until_close(
        HEAD + b"Connection: close\r\n\r\n" + body),
    "http10-length": lambda body: until_close(
        http1.response(body=body, version="HTTP/1.0")),
    "http10-close": lambda body: until_close(
        b"HTTP/1.0 200 OK\r\n\r\n" + body),
}


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
@pytest.mark.parametrize("size", [1, 5, 4096, 100000, 3000000])
@pairs
def test_a_body_arrives_whole(stage, way, size, framing):
    body = pattern(size)
    stage.origin(framing(body))
    client = stage.nginx(location=way).connect()
    for _ in range(2):
        response = client.get("/")
        assert response.status == 200
        assert response.body == body


@pytest.mark.parametrize("framing", [
    lambda body: http1.response(body=b""),
    lambda body: CHUNKED + b"0\r\n\r\n",
    lambda body: until_close(HEAD + b"\r\n"),
], ids=["length", "chunked", "close"])
@pairs
def test_an_empty_body_arrives(stage, way, framing):
    stage.origin(framing(b""))
    client = stage.nginx(location=way).connect()
    for _ in range(2):
        response = client.get("/")
        assert response.status == 200
        assert response.body == b""


@pairs
def test_a_length_is_passed(stage, way):
    stage.origin(http1.response(body=pattern(5000)))
    response = stage.nginx(location=way).get("/")
    assert response.header("Content-Length") == "5000"
    assert not response.chunked


@pairs
def test_a_body_of_unknown_length_is_chunked(stage, way):
    stage.origin(until_close(HEAD + b"\r\nhello"))
    response = stage.nginx(location=way).get("/")
    assert response.chunked
    assert response.kept


@pairs
def test_an_http10_client_gets_a_decoded_body(stage, way):
    stage.origin(CHUNKED + http1.chunked(b"one", b"two"))
    response = stage.nginx(location=way).get("/", version="HTTP/1.0")
    assert response.header("Transfer-Encoding") is None
    assert response.body == b"onetwo"


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
@pairs
def test_an_http2_client_gets_the_body(stage, way, framing):
    body = pattern(50000)
    stage.origin(framing(body))
    response = stage.nginx(listen="http2", location=way).connect_h2().get()
    assert response.status == 200
    assert response.body == body
    assert response.reset is None


# chunks

RICH = (CHUNKED + b"3\r\none\r\n" b"0003;a=b;c=\"d\"\r\ntwo\r\n"
        b"A\r\n0123456789\r\n" b"00;last\r\n"
        b"X-Trailer: 1\r\nX-Other: 2\r\n\r\n")
RICH_BODY = b"onetwo0123456789"


@pairs
def test_extensions_and_trailers_are_not_data(stage, way):
    origin = stage.origin(RICH)
    client = stage.nginx(location=way).connect()
    for _ in range(3):
        response = client.get("/")
        assert response.body == RICH_BODY
        assert "x-trailer" not in response.names
    assert origin.connections == 1


passed = pytest.mark.skipif(version() < (1, 27, 2),
                            reason="this nginx passes no trailers")
PASSED = "myproxy_pass_trailers on;"


@passed
@pairs
@pytest.mark.parametrize("switch", ["on", "off"])
def test_trailers_pass_on_demand(stage, way, switch):
    origin = stage.origin(RICH)
    client = stage.nginx(
        location=way + f"myproxy_pass_trailers {switch};").connect()
    for _ in range(3):
        response = client.get("/")
        assert response.body == RICH_BODY
        assert response.trailers == ([(b"X-Trailer", b"1"),
                                      (b"X-Other", b"2")]
                                     if switch == "on" else [])
    assert origin.connections == 1


@passed
@pairs
def test_trailers_pass_to_an_http2_client(stage, way):
    stage.origin(RICH)
    response = stage.nginx(listen="http2",
                           location=way + PASSED).connect_h2().get("/")
    assert response.body == RICH_BODY
    assert response.trailers == [(b"x-trailer", b"1"), (b"x-other", b"2")]


@passed
@pairs
def test_blanks_before_a_colon_are_removed_from_trailers(stage, way):
    def script(conn):
        for _ in conn.each_request():
            in_pieces(conn, CHUNKED + b"5\r\nhello\r\n0\r\nX-Trailer ",
                      b"\t: 1\r\nContent-Length : 7\r\n\r\n")

    origin = stage.origin(script)
    client = stage.nginx(location=way + PASSED).connect()
    for _ in range(2):
        response = client.get("/")
        assert response.body == b"hello"
        assert response.trailers == [(b"X-Trailer", b"1")]
    assert origin.connections == 1


@passed
def test_the_log_shows_an_invalid_trailer(stage):
    stage.origin(CHUNKED + b"5\r\nhello\r\n0\r\nX-\x1b: v\r\n\r\n")
    nginx = stage.nginx(location="myproxy_pass http://%{origin};" + PASSED)
    with pytest.raises(Truncated):
        nginx.get("/")
    assert nginx.logged(r'upstream sent an invalid trailer: "X-\\x1b: v"')


@passed
@pairs
@pytest.mark.parametrize("trailer", [
    b"X-Trailer 1\r\n\r\n", b"X-Trailer: " + b"x" * 10000 + b"\r\n\r\n"],
    ids=["malformed", "large"])
def test_a_trailer_that_cannot_be_passed_ends_the_response(stage, way,
                                                           trailer):
    stage.origin(CHUNKED + b"5\r\nhello\r\n0\r\n" + trailer)
    client = stage.nginx(location=way + PASSED).connect()
    with pytest.raises(Truncated):
        client.get("/")


@pairs
def test_chunks_may_come_byte_by_byte(stage, way):
    def script(conn):
        for _ in conn.each_request():
            in_pieces(conn, *[bytes([byte]) for byte in RICH])

    origin = stage.origin(script, family="unix")
    client = stage.nginx(location=way).connect()
    for _ in range(2):
        assert client.get("/").body == RICH_BODY
    assert origin.connections == 1


@pairs
def test_chunks_may_be_split_anywhere(stage, way):
    def script(conn):
        for request in conn.each_request():
            at = int(request.target[1:])
            in_pieces(conn, RICH[:at], RICH[at:])

    origin = stage.origin(script, family="unix")
    client = stage.nginx(location=way).connect()
    for at in range(len(HEAD), len(RICH)):
        assert client.get(f"/{at}").body == RICH_BODY
    assert origin.connections == 1


@pairs
def test_chunks_may_be_smaller_than_their_framing(stage, way):
    body = pattern(20000)
    stage.origin(CHUNKED + chunks_of(body, 1))
    assert stage.nginx(location=way).get("/").body == body


@pairs
def test_a_chunk_may_be_larger_than_all_buffers(stage, way):
    stage.origin(CHUNKED + chunks_of(LARGE, 3000000))
    assert stage.nginx(location=way).get("/").body == LARGE


@pairs
def test_long_trailers_are_left_out(stage, way):
    trailers = [f"X-Trailer-{number}: {'x' * 1000}" for number in range(20)]
    origin = stage.origin(CHUNKED + http1.chunked(b"one",
                                                  trailers=trailers))
    client = stage.nginx(location=way).connect()
    for _ in range(2):
        assert client.get("/").body == b"one"
    assert origin.connections == 1


# buffers

def waiting(stage, *parts):
    """An origin that sends each part when a gate of its own is open."""
    def script(conn):
        conn.read_request()
        for part, gate in zip(parts, gates):
            gate.wait()
            conn.send(part)
        conn.wait_for_close()

    origin = stage.origin(script)
    gates = [origin.gate() for _ in parts]
    return gates


@pytest.mark.parametrize("parts", [
    [HEAD + b"Content-Length: 6\r\n\r\n", b"one", b"two"],
    [CHUNKED, http1.chunk(b"one"), http1.chunk(b"two")],
    [HEAD + b"\r\n", b"one", b"two"]], ids=["length", "chunked", "close"])
def test_without_buffering_each_part_passes_at_once(stage, parts):
    gates = waiting(stage, *parts)
    client = stage.nginx(location=WAYS["unbuffered"]).connect()
    client.send(http1.request("GET", "/"))
    gates[0].open()
    head = client.read_response_head()
    read = client.read_chunk if head.is_chunked() else lambda: client.read(3)
    gates[1].open()
    assert read() == b"one"
    gates[2].open()
    assert read() == b"two"


@pytest.mark.parametrize("more", [
    "myproxy_buffer_size 1k; myproxy_buffers 4 1k;",
    "myproxy_buffer_size 1k; myproxy_buffers 2 1k;"
    "myproxy_busy_buffers_size 1k;",
    "myproxy_buffers 2 64k; myproxy_busy_buffers_size 64k;",
    "myproxy_buffer_size 64k; myproxy_buffers 4 64k;",
    "myproxy_buffer_size 8k; myproxy_buffers 8 4k;",
    "myproxy_max_temp_file_size 0;",
    "myproxy_max_temp_file_size 64k; myproxy_temp_file_write_size 16k;",
    "myproxy_temp_path %{prefix}/own_temp 1 2;",
    "sendfile on; tcp_nopush on;",
    "output_buffers 1 1k; postpone_output 0;",
], ids=lambda more: more.split(";")[0].replace(" ", "-"))
@pytest.mark.parametrize("framing", [
    lambda: http1.response(body=LARGE),
    lambda: CHUNKED + chunks_of(LARGE, 10000)], ids=["length", "chunked"])
def test_a_large_body_passes_whatever_the_buffers(stage, framing, more):
    stage.origin(framing())
    client = stage.nginx(location=PASS + more).connect()
    assert client.get("/").body == LARGE


def arrived(client):
    """How many bytes there are for a client that has not read them."""
    size = array.array("i", [0])
    ioctl(client.sock, termios.FIONREAD, size)
    return size[0]


@pytest.mark.parametrize("framing", [
    lambda: http1.response(body=LARGE),
    lambda: CHUNKED + chunks_of(LARGE, 10000),
    lambda: until_close(HEAD + b"\r\n" + LARGE)],
    ids=["length", "chunked", "close"])
def test_what_a_slow_client_has_not_read_is_in_a_file(stage, framing):
    stage.origin(framing())
    nginx = stage.nginx(listen="sndbuf=16k", location=PASS)
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    nginx.wait_log("upstream response is buffered to a temporary file")
    assert client.read_response().body == LARGE


def test_the_connection_is_free_before_a_slow_client_has_read_all(stage):
    origin = stage.origin(http1.response(body=LARGE))
    nginx = stage.nginx(listen="sndbuf=16k", location=PASS,
                        log_level="debug")
    slow = nginx.connect()
    slow.send(http1.request("GET", "/slow"))
    nginx.wait_log("keepalive peer: saving connection")
    assert nginx.get("/").body == LARGE
    assert origin.carried == [2]
    assert slow.read_response().body == LARGE


def test_there_may_be_no_temporary_file(stage):
    stage.origin(http1.response(body=LARGE))
    nginx = stage.nginx(listen="sndbuf=16k",
                        location=PASS + "myproxy_max_temp_file_size 0;")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: arrived(client) > 16384)
    assert client.read_response().body == LARGE
    assert not nginx.logged("buffered to a temporary file")


@pytest.mark.parametrize("more", [
    "myproxy_max_temp_file_size 64k; myproxy_temp_file_write_size 16k;",
    "myproxy_max_temp_file_size 1m;"], ids=["64k", "1m"])
def test_a_small_temporary_file_is_used_again_and_again(stage, more):
    stage.origin(http1.response(body=LARGE))
    nginx = stage.nginx(listen="sndbuf=16k", location=PASS + more)
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    nginx.wait_log("upstream response is buffered to a temporary file")
    body = client.read_response_head() and b""
    while len(body) < len(LARGE):
        body += client.read(min(50000, len(LARGE) - len(body)))
    assert body == LARGE


@pairs
def test_a_body_is_read_at_the_rate_that_is_allowed(stage, way):
    body = pattern(75000)
    stage.origin(http1.response(body=body))
    nginx = stage.nginx(location=way + "myproxy_limit_rate 30000;")
    started = time.monotonic()
    assert nginx.get("/").body == body
    if "off" not in way:
        assert time.monotonic() - started > 0.9


# ranges

@pytest.mark.parametrize("wanted, start, end", [
    ("0-99", 0, 100), ("5000-5999", 5000, 6000), ("9990-", 9990, 10000),
    ("-10", 9990, 10000), ("0-", 0, 10000)])
@pairs
def test_a_range_is_cut_by_force(stage, way, wanted, start, end):
    body = pattern(10000)
    stage.origin(http1.response(body=body))
    nginx = stage.nginx(location=way + "myproxy_force_ranges on;")
    client = nginx.connect()
    for _ in range(2):
        response = client.get("/", f"Range: bytes={wanted}")
        assert response.status == 206
        assert response.header("Content-Range") == (
            f"bytes {start}-{end - 1}/10000")
        assert response.body == body[start:end]


def test_a_range_outside_is_refused_by_force(stage):
    stage.origin(http1.response(body=pattern(100)))
    nginx = stage.nginx(location=PASS + "myproxy_force_ranges on;")
    assert nginx.get("/", "Range: bytes=100-").status == 416


@pairs
def test_ranges_are_the_origins_by_default(stage, way):
    origin = stage.origin(http1.response(
        206, "Content-Range: bytes 0-4/100", body=b"hello"))
    response = stage.nginx(location=way).get("/", "Range: bytes=0-4")
    assert origin.request.header("Range") == "bytes=0-4"
    assert response.status == 206
    assert response.header("Content-Range") == "bytes 0-4/100"
    assert response.body == b"hello"


def test_what_an_origin_without_ranges_sends_is_not_cut(stage):
    stage.origin(http1.response(body=pattern(100)))
    response = stage.nginx(location=PASS).get("/", "Range: bytes=0-4")
    assert response.status == 200
    assert response.body == pattern(100)


# filters behind

@pairs
def test_the_body_may_be_compressed_on_its_way(stage, way):
    stage.origin(http1.response(200, "Content-Type: text/html",
                                body=pattern(100000)))
    client = stage.nginx(location=way + "gzip on;").connect()
    for _ in range(2):
        response = client.get("/", "Accept-Encoding: gzip")
        assert response.header("Content-Encoding") == "gzip"
        assert response.chunked
        assert 0 < len(response.body) < 90000


FILTERS = {
    "gzip": "gzip on; gzip_min_length 1; gzip_types text/plain;",
    "gunzip": "gunzip on;",
    "sub": "sub_filter o 0; sub_filter_once off; sub_filter_types *;",
    "trailer": "add_trailer X-Trailer $upstream_status;",
    "ssi": "ssi on; ssi_types *;",
    "addition": "add_after_body /after; addition_types *;",
    "range": "myproxy_force_ranges on;",
    "limit_rate": "limit_rate 1m;",
}
ASKS = {"gzip": "Accept-Encoding: gzip", "range": "Range: bytes=1-3"}


@pytest.mark.parametrize("way", FILTERS)
def test_a_small_body_goes_through_filters_as_others_do(stage, way):
    """In one piece with its header it is another way through the module."""
    body, lines = b"hello body\n", ["Content-Type: text/plain"]
    if way == "gunzip":
        body, lines = gzip.compress(body), [*lines, "Content-Encoding: gzip"]
    head, _, _ = http1.response(200, *lines, body=body).partition(b"\r\n\r\n")
    head += b"\r\n\r\n"

    def script(conn):
        for number, _ in enumerate(conn.each_request()):
            if number % 2:
                in_pieces(conn, head + body[:3], body[3:])
            else:
                conn.send(head + body)

    origin = stage.origin(script, family="unix")
    client = stage.nginx(
        location=PASS + FILTERS[way],
        server="location /after { return 200 after; }").connect()
    found = []
    for _ in range(4):
        response = client.get("/", ASKS.get(way, "Accept: */*"))
        found.append((response.status, response.chunked,
                      decoded(response), response.trailers))
    assert origin.carried == [4]
    assert found[0] == found[1] == found[2] == found[3]
    status, chunked, text, trailers = found[0]
    assert (status, text) == {
        "gzip": (200, b"hello body\n"), "gunzip": (200, b"hello body\n"),
        "sub": (200, b"hell0 b0dy\n"), "addition": (200, b"hello body\nafter"),
        "range": (206, b"ell"),
    }.get(way, (200, b"hello body\n"))
    assert chunked == (way not in ("range", "limit_rate"))
    assert bool(trailers) == (way == "trailer")


@pytest.mark.parametrize("variable, wanted", [
    ("$upstream_response_time", rb"\d\.\d{3}"),
    ("$upstream_bytes_sent", rb"[1-9]\d*"),
    ("$upstream_response_length", b"6"), ("$reuse_fate", b"kept")])
def test_a_trailer_tells_of_the_whole_exchange(stage, variable, wanted):
    stage.origin()
    client = stage.nginx(location=PASS
                         + f"add_trailer X-Trailer {variable};").connect()
    for _ in range(2):
        (name, value), = client.get("/").trailers
        assert name == b"X-Trailer"
        assert re.fullmatch(wanted, value)


@pytest.mark.parametrize("way, lines", [
    ("limit_rate 1000;", []),
    ("set $limit_rate 1000;", []),
    ("", ["X-Accel-Limit-Rate: 1000"]),
], ids=["directive", "variable", "origin"])
def test_a_small_body_passes_at_the_rate_that_is_allowed(stage, way, lines):
    """Meanwhile the connection to the origin is another request's."""
    body = pattern(2500)

    def script(conn):
        for request in conn.each_request():
            conn.respond(200, *lines, body=body if request.target == "/"
                         else b"")

    origin = stage.origin(script)
    nginx = stage.nginx(location=PASS + way, log_level="debug")
    slow = nginx.connect()
    started = time.monotonic()
    slow.send(http1.request("GET", "/"))
    nginx.wait_log("keepalive peer: saving connection")
    assert nginx.get("/other").body == b""
    assert origin.carried == [2]
    assert slow.read_response().body == body
    assert time.monotonic() - started > 0.9


def test_a_small_body_and_its_end_pass_the_filters_at_once(stage):
    """Where they may: trailers follow, and tell of what is over."""
    stage.origin()
    nginx = stage.nginx(location=PASS, log_level="debug", server="""
        location /trailer {
            add_trailer X-Trailer 1;
            myproxy_pass http://%{origin};
        }""")

    def passes(target):
        assert nginx.get(target).body == b"hello\n"
        nginx.wait_log(f'http finalize request: 0, "{target}')
        return [line for line in nginx.lines
                if f'http output filter "{target}' in line]

    assert len(passes("/plain")) == 1
    assert len(passes("/trailer")) == 2
    assert not nginx.logged("pipe ")


def test_what_comes_after_a_small_failure_is_buffered(stage):
    stage.origin(http1.response(500), name="failing")
    stage.origin(http1.response(body=LARGE), name="large")
    nginx = stage.nginx(
        http="upstream app { server %{failing} max_fails=0; "
             "server %{large} backup; }",
        listen="sndbuf=16k",
        location="myproxy_pass http://app; myproxy_next_upstream http_500;")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    nginx.wait_log("upstream response is buffered to a temporary file")
    assert client.read_response().body == LARGE


def decoded(response):
    if response.header("Content-Encoding") == "gzip":
        return zlib.decompress(response.body, 16 + zlib.MAX_WBITS)
    return response.body


# truncated

TRUNCATED = {
    "length-nothing": HEAD + b"Content-Length: 10\r\n\r\n",
    "length-some": HEAD + b"Content-Length: 10\r\n\r\nhello",
    "length-but-one": HEAD + b"Content-Length: 6\r\n\r\nhello",
    "length-much": HEAD + b"Content-Length: 100001\r\n\r\n"
    + pattern(100000),
    "chunked-nothing": CHUNKED,
    "chunked-size": CHUNKED + b"5",
    "chunked-size-cr": CHUNKED + b"5\r",
    "chunked-size-crlf": CHUNKED + b"5\r\n",
    "chunked-extension": CHUNKED + b"5;a=",
    "chunked-data": CHUNKED + b"5\r\nhel",
    "chunked-data-end": CHUNKED + b"5\r\nhello",
    "chunked-data-cr": CHUNKED + b"5\r\nhello\r",
    "chunked-data-crlf": CHUNKED + b"5\r\nhello\r\n",
    "chunked-second": CHUNKED + b"5\r\nhello\r\n5\r\nhe",
    "chunked-last": CHUNKED + b"5\r\nhello\r\n0",
    "chunked-last-crlf": CHUNKED + b"5\r\nhello\r\n0\r\n",
    "chunked-last-cr": CHUNKED + b"5\r\nhello\r\n0\r\n\r",
    "chunked-trailer": CHUNKED + b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n",
    "chunked-much": CHUNKED + http1.chunk(pattern(100000)),
}


def read_truncated(nginx, client, target="/"):
    """The client sees that the response is not complete."""
    client.send(http1.request("GET", target))
    with pytest.raises((Truncated, ConnectionError)):
        response = client.read_response_head()
        assert response.status == 200
        http1.read_body(client, response)


def check_nothing_is_kept(nginx, origin):
    """It is neither in the cache nor stored: the origin is asked again."""
    assert not os.path.exists(os.path.join(nginx.prefix, "stored"))
    count = len(origin.requests)
    read_truncated(nginx, nginx.connect())
    assert len(origin.requests) == count + 1
    left = [name for _, _, names in os.walk(
        os.path.join(nginx.prefix, "cache")) for name in names]
    assert left == []


@pytest.mark.parametrize("data", TRUNCATED.values(), ids=TRUNCATED)
@ways
def test_a_truncated_body_is_not_passed_as_complete(stage, way, data):
    origin = stage.origin([data, "close"])
    nginx = stage.nginx(http=ZONE, location=way)
    read_truncated(nginx, nginx.connect())
    assert nginx.logged("upstream prematurely closed connection")
    check_nothing_is_kept(nginx, origin)


@pytest.mark.parametrize("data", [
    HEAD + b"Content-Length: 10\r\n\r\nhello",
    CHUNKED + b"5\r\nhello\r\n",
    HEAD + b"\r\nhello"], ids=["length", "chunked", "until-close"])
@ways
def test_a_reset_in_the_body_is_not_passed_as_the_end(stage, way, data):
    def script(conn):
        conn.read_request()
        conn.send(data)
        conn.wait_until_delivered()
        gate.wait()
        conn.reset()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(http=ZONE, location=way)
    client = nginx.connect()
    gate.open()
    read_truncated(nginx, client)
    check_nothing_is_kept(nginx, origin)


@pytest.mark.parametrize("data", TRUNCATED.values(), ids=TRUNCATED)
@pairs
def test_a_truncated_body_resets_an_http2_stream(stage, way, data):
    stage.origin([data, "close"])
    nginx = stage.nginx(listen="http2", location=way)
    response = nginx.connect_h2().get("/")
    assert response.status == 200
    assert response.reset is not None


@pytest.mark.parametrize("data", [
    HEAD + b"Content-Length: 10\r\n\r\nhello", CHUNKED + b"5\r\nhello\r\n"],
    ids=["length", "chunked"])
@pytest.mark.parametrize("way", [WAYS["cached"], WAYS["buffered"]],
                         ids=["cached", "buffered"])
def test_a_body_that_stops_is_not_passed_as_complete(stage, way, data):
    origin = stage.origin([data])
    nginx = stage.nginx(http=ZONE,
                        location=way + "myproxy_read_timeout 1s;")
    read_truncated(nginx, nginx.connect())
    assert nginx.logged("upstream timed out")
    check_nothing_is_kept(nginx, origin)


def test_a_complete_body_is_kept_where_a_truncated_was_not(stage):
    def script(conn):
        for request in conn.each_request():
            whole = http1.response()
            if conn.number == 1:
                conn.send(whole[:-1])
                return
            conn.send(whole)

    origin = stage.origin(script)
    nginx = stage.nginx(http=ZONE, location=WAYS["cached"])
    read_truncated(nginx, nginx.connect())
    for status in ("MISS", "HIT"):
        response = nginx.get("/")
        assert response.header("X-Status") == status
        assert response.body == b"hello\n"
    assert len(origin.requests) == 2


# malformed

MALFORMED = {
    "no-hex": b"g\r\nhello\r\n",
    "sign": b"-5\r\nhello\r\n",
    "plus": b"+5\r\nhello\r\n",
    "prefix": b"0x5\r\nhello\r\n",
    "junk-behind": b"5x\r\nhello\r\n",
    "empty-line": b"\r\n5\r\nhello\r\n",
    "data-too-long": b"5\r\nhello!\r\n",
    "data-without-end": b"5\r\nhello5\r\nhello\r\n",
    "overflow": b"10000000000000000\r\nhello",
    "negative": b"ffffffffffffffff\r\nhello",
    "least-negative": b"8000000000000000\r\nhello",
    "text": b"hello\r\n",
}


@pytest.mark.parametrize("chunk", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("before", [b"", http1.chunk(b"good")],
                         ids=["first", "second"])
@ways
def test_a_malformed_chunk_ends_the_response(stage, way, before, chunk):
    origin = stage.origin([CHUNKED + before + chunk + b"0\r\n\r\n"])
    nginx = stage.nginx(http=ZONE, location=way)
    read_truncated(nginx, nginx.connect())
    assert nginx.logged(r"\[error\].*upstream sent an invalid chunked body")
    check_nothing_is_kept(nginx, origin)
    assert origin.carried == [1, 1]


@pytest.mark.parametrize("chunk", [b"g\r\nx\r\n", b"5\r\nhello!\r\n"],
                         ids=["size", "end"])
@ways
def test_a_malformed_chunk_may_come_late(stage, way, chunk):
    def script(conn):
        conn.read_request()
        in_pieces(conn, CHUNKED, http1.chunk(pattern(20000)), chunk)
        conn.wait_for_close()

    origin = stage.origin(script, family="unix")
    nginx = stage.nginx(http=ZONE, location=way)
    read_truncated(nginx, nginx.connect())
    assert nginx.logged("upstream sent an invalid chunked body")
    check_nothing_is_kept(nginx, origin)


@pairs
def test_a_malformed_chunk_resets_an_http2_stream(stage, way):
    stage.origin([CHUNKED + b"4\r\ngood\r\n" b"g\r\n"])
    nginx = stage.nginx(listen="http2", location=way)
    response = nginx.connect_h2().get("/")
    assert response.reset is not None


# excess

SMUGGLED = http1.response(200, "X-Smuggled: 1", body=b"smuggled")

EXCESS = {
    "length": ("GET", http1.response(), b"hello\n"),
    "length-large": ("GET", http1.response(body=pattern(100000)),
                     pattern(100000)),
    "chunked": ("GET", CHUNKED + http1.chunked(b"one", b"two"), b"onetwo"),
    "chunked-trailers": ("GET", RICH, RICH_BODY),
    "chunked-large": ("GET", CHUNKED + chunks_of(pattern(100000), 999),
                      pattern(100000)),
    "empty": ("GET", http1.response(body=b""), b""),
    "empty-chunked": ("GET", CHUNKED + b"0\r\n\r\n", b""),
    "204": ("GET", http1.response(204), b""),
    "304": ("GET", http1.response(304, "Content-Length: 100"), b""),
    "head": ("HEAD", HEAD + b"Content-Length: 100\r\n\r\n", b""),
    "head-chunked": ("HEAD", CHUNKED, b""),
}

excess = pytest.mark.parametrize("method, data, body", EXCESS.values(),
                                 ids=EXCESS)


@pytest.mark.parametrize("more", [b"x", b"\r\n", SMUGGLED],
                         ids=["byte", "line", "response"])
@excess
@pairs
def test_data_behind_the_end_is_not_passed(stage, way, method, data, body,
                                           more):
    origin = stage.origin([data + more])
    nginx = stage.nginx(location=way)
    client = nginx.connect()
    for number in (1, 2):
        response = client.request(method, "/")
        assert response.status == int(data[9:12])
        assert response.header("X-Smuggled") is None
        assert response.body == body
        assert origin.carried == [1] * number
    if len(body) < 4096:
        assert len(nginx.logged(r"\[warn\].*upstream sent data after")) >= 2


@excess
@pairs
def test_data_that_follows_later_ends_the_connection(stage, way, method,
                                                     data, body):
    def script(conn):
        conn.read_request()
        conn.send(data)
        gates[conn.number - 1].wait()
        conn.send(SMUGGLED)
        conn.wait_for_close()

    origin = stage.origin(script)
    gates = [origin.gate(), origin.gate()]
    client = stage.nginx(location=way).connect()
    for gate in gates:
        assert client.request(method, "/").body == body
        gate.open()
        conn = origin.conns[-1]
        stage.wait_until(lambda: conn.closed, what="the end of the idle "
                         "connection with data on it")
    assert origin.carried == [1, 1]


@pytest.mark.parametrize("framing", ["length", "one-chunk"])
def test_data_behind_what_the_client_has_not_taken_yet(stage, framing):
    """Its last bytes wait for a window; the origin sends more meanwhile."""
    body = pattern(65535 + 100)

    def script(conn):
        conn.read_request()
        conn.send(FRAMINGS[framing](body))
        conn.wait_until_delivered()
        conn.send(SMUGGLED)
        conn.wait_until_delivered()
        taken.open()
        conn.wait_for_close()

    origin = stage.origin(script, family="unix")
    taken = origin.gate()
    nginx = stage.nginx(listen="http2", location=WAYS["unbuffered"])
    client = nginx.connect_h2()
    stream = client.send_request("GET")
    taken.wait()
    response = client.read_response(stream)
    assert (response.status, response.body) == (200, body)
    assert len(nginx.logged(r"\[warn\].*upstream sent data after")) == 1
    assert origin.connections == 1


@pairs
def test_data_behind_a_large_body_is_not_passed(stage, way):
    origin = stage.origin([http1.response(body=LARGE) + SMUGGLED])
    client = stage.nginx(location=way).connect()
    for _ in range(2):
        assert client.get("/").body == LARGE
    assert origin.carried == [1, 1]


def test_data_behind_the_end_is_not_cached(stage):
    origin = stage.origin([http1.response() + SMUGGLED])
    nginx = stage.nginx(http=ZONE, location=WAYS["cached"])
    for _ in range(2):
        assert nginx.get("/").body == b"hello\n"
    if len(origin.requests) == 1:
        assert nginx.get("/").header("X-Status") == "HIT"


# excess behind TLS, where it does not stay in the socket

TLS = """
    myproxy_pass https://%{origin};
    myproxy_ssl_verify off;
    myproxy_buffer_size 4k;
    myproxy_buffers 4 4k;
"""


def padded(method, status, lines, body, size):
    """A response of exactly that size."""
    bare = http1.response(status, *lines, "X-Padding: ", body=body)
    if method == "HEAD":
        bare = bare[:bare.index(b"\r\n\r\n") + 4]
    padding = b"x" * (size - len(bare))
    return bare.replace(b"X-Padding: ", b"X-Padding: " + padding)


IN_TLS = {
    "length": ("GET", 200, [], b"hello", 4096),
    "length-two-buffers": ("GET", 200, [], pattern(6000), 8192),
    "length-three-buffers": ("GET", 200, [], pattern(9000), 12288),
    "chunked": ("GET", 200, ["Transfer-Encoding: chunked"],
                http1.chunked(b"one", b"two"), 4096),
    "chunked-two-buffers": ("GET", 200, ["Transfer-Encoding: chunked"],
                            chunks_of(pattern(6000), 500), 8192),
    "empty": ("GET", 200, ["Content-Length: 0"], b"", 4096),
    "204": ("GET", 204, [], b"", 4096),
    "304": ("GET", 304, [], b"", 4096),
    "head": ("HEAD", 200, ["Content-Length: 5"], b"", 4096),
    "redirected": ("GET", 200, ["X-Accel-Redirect: /internal"], b"hello",
                   4096),
}


@pytest.mark.parametrize("method, status, lines, body, size",
                         IN_TLS.values(), ids=IN_TLS)
@pytest.mark.parametrize("buffering", ["on", "off"])
@pytest.mark.parametrize("records", [1, 2])
def test_data_left_in_tls_is_not_the_next_response(
        stage, records, buffering, method, status, lines, body, size):
    data = padded(method, status, lines, body, size)
    assert len(data) == size

    def script(conn):
        conn.read_request()
        if records == 1:
            conn.send(data + SMUGGLED)
        else:
            conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            conn.send(data)
            conn.send(SMUGGLED)
            conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        conn.wait_for_close()

    origin = stage.origin(script, tls="localhost")
    client = stage.nginx(
        location=TLS + f"myproxy_buffering {buffering};" + """
        }
        location /internal { return 200 internal;
    """).connect()
    first = client.request(method, "/")
    for _ in range(2):
        response = client.request(method, "/")
        assert response.status == status
        assert response.header("X-Smuggled") is None
        assert response.body == first.body
    assert origin.carried == [1, 1, 1]


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_a_response_that_fills_the_buffer_keeps_its_connection(stage,
                                                               buffering):
    origin = stage.origin(padded("GET", 200, [], b"hello", 4096),
                          tls="localhost")
    client = stage.nginx(
        location=TLS + f"myproxy_buffering {buffering};").connect()
    for _ in range(3):
        assert client.get("/").body == b"hello"
    assert origin.carried == [3]


# tiny chunks

def tiny_chunks(body):
    """A script that sends each byte in a chunk of its own, all at once."""
    data = CHUNKED + b"".join(
        b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"

    def script(conn):
        for _ in conn.each_request():
            conn.send(data)
    return script


def processor_seconds(nginx):
    """What nginx's worker has taken so far, kernel's time included."""
    worker, = nginx.workers()
    with open(f"/proc/{worker}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pairs
def test_the_cost_of_tiny_chunks_does_not_grow_with_the_buffers(stage, way):
    """An origin may choose the way, by X-Accel-Buffering."""
    body = pattern(800000)
    stage.origin(tiny_chunks(body))
    cost = {}
    for size in (4, 256):
        nginx = stage.nginx(location=way + f"""
            myproxy_buffer_size {size}k;
            myproxy_buffers 8 {size}k;
            myproxy_busy_buffers_size {2 * size}k;
        """)
        client = nginx.connect()
        before = processor_seconds(nginx)
        assert client.get().body == body
        cost[size] = processor_seconds(nginx) - before
    assert cost[256] <= 2 * cost[4] + 0.25, cost


@ways
@pytest.mark.parametrize("sizes", [
    [1] * 50, [256, 1, 257, 1, 256, 256, 1], [1000, 256, 1, 1, 1000, 255],
    [5000, 1, 5000, 1, 1], [257, 257, 1], list(range(250, 262)),
], ids=repr)
@pytest.mark.parametrize("step", [0, 3, 1000])
def test_small_and_large_chunks_in_turn(stage, way, sizes, step):
    """Small chunks are moved to the one before, whatever was read at once."""
    body = pattern(sum(sizes))
    parts, at = [], 0
    for size in sizes:
        parts.append(body[at:at + size])
        at += size
    data = CHUNKED + http1.chunked(*parts)

    def script(conn):
        for _ in conn.each_request():
            if step:
                in_pieces(conn, *[data[i:i + step]
                                  for i in range(0, len(data), step)])
            else:
                conn.send(data)

    stage.origin(script, family="unix")
    nginx = stage.nginx(http=ZONE, location=way + "myproxy_buffer_size 4k;"
                        "myproxy_buffers 4 4k;")
    client = nginx.connect()
    for _ in range(2):
        assert client.get().body == body
