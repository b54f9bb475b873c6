"""How the client's body gets to the origin."""

import pytest

from harness import http1
from harness.wire import Truncated

PASS = "myproxy_pass http://%{origin};"
STREAMED = PASS + "myproxy_request_buffering off;"
LARGE = bytes(range(256)) * 2000


def framing(request):
    return [name for name in request.names
            if name in ("content-length", "transfer-encoding")]


@pytest.mark.parametrize("location", [PASS, STREAMED],
                         ids=["buffered", "streamed"])
@pytest.mark.parametrize("body", [b"x", b"a=b&c=d", b"\0\r\n\r\n",
                                  LARGE[:2048], LARGE[:2049], LARGE],
                         ids=["byte", "form", "binary", "copied", "appended",
                              "large"])
def test_a_body_with_a_length_keeps_it(stage, location, body):
    origin = stage.origin()
    nginx = stage.nginx(location=location)
    assert nginx.post("/", body).status == 200
    assert origin.request.body == body
    assert framing(origin.request) == ["content-length"]


@pytest.mark.parametrize("location", [PASS, STREAMED],
                         ids=["buffered", "streamed"])
def test_an_empty_body_is_said_to_be_empty(stage, location):
    origin = stage.origin()
    stage.nginx(location=location).post("/", b"")
    assert origin.request.header("Content-Length") == "0"
    assert framing(origin.request) == ["content-length"]


@pytest.mark.parametrize("location", [PASS, STREAMED],
                         ids=["buffered", "streamed"])
def test_a_request_without_body_is_not_framed(stage, location):
    origin = stage.origin()
    stage.nginx(location=location).get("/")
    assert framing(origin.request) == []


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "X-OWN"])
def test_any_method_may_have_a_body(stage, method):
    origin = stage.origin()
    stage.nginx(location=PASS).request(method, "/", body=b"body")
    assert origin.request.method == method
    assert origin.request.body == b"body"


# buffered

@pytest.mark.parametrize("more", [
    "client_body_buffer_size 1k;",
    "client_body_in_file_only on;",
    "client_body_in_file_only clean;",
    "client_body_in_single_buffer on;",
], ids=lambda more: more.split()[0])
@pytest.mark.parametrize("size", [1000, 2000, 4000, len(LARGE)])
def test_a_body_passes_wherever_it_is_buffered(stage, more, size):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + more)
    assert nginx.post("/", LARGE[:size]).status == 200
    assert origin.request.body == LARGE[:size]


def test_a_large_body_is_sent_from_disk(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + "client_body_buffer_size 1k;")
    nginx.post("/", LARGE)
    assert nginx.logged("body is buffered to a temporary file")
    assert origin.request.body == LARGE


def test_a_buffered_request_starts_when_the_body_is_complete(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    client = nginx.connect()
    client.send(http1.request("POST", "/", "Content-Length: 4"), b"bo")
    assert nginx.get("/other").status == 200
    assert [request.method for request in origin.requests] == ["GET"]
    client.send(b"dy")
    assert client.read_response().status == 200
    assert origin.requests[1].body == b"body"


@pytest.mark.parametrize("more", ["", "client_body_buffer_size 1k;"],
                         ids=["memory", "disk"])
def test_a_buffered_chunked_body_gets_a_length(stage, more):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + more)
    assert nginx.post("/", [LARGE[:10], LARGE[10:]]).status == 200
    assert framing(origin.request) == ["content-length"]
    assert origin.request.body == LARGE


def test_a_buffered_empty_chunked_body_is_said_to_be_empty(stage):
    origin = stage.origin()
    assert stage.nginx(location=PASS).post("/", []).status == 200
    assert origin.request.header("Content-Length") == "0"
    assert framing(origin.request) == ["content-length"]


def test_chunk_extensions_and_trailers_of_the_client_are_not_data(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    client = nginx.connect()
    client.send(
        http1.request("POST", "/", "Transfer-Encoding: chunked"),
        http1.chunk(b"body", extension=b";a=b"),
        b"0\r\nX-Trailer: 1\r\n\r\n")
    assert client.read_response().status == 200
    assert origin.request.body == b"body"
    assert "x-trailer" not in origin.request.names


def test_an_http2_body_of_unknown_length_is_buffered_to_a_length(stage):
    origin = stage.origin()
    nginx = stage.nginx(listen="http2", location=PASS)
    response = nginx.connect_h2().request("POST", "/", body=b"body")
    assert response.status == 200
    assert framing(origin.request) == ["content-length"]
    assert origin.request.body == b"body"


def test_a_client_that_leaves_before_its_body_is_sent_reaches_none(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    client = nginx.connect()
    client.send(http1.request("POST", "/", "Content-Length: 4"), b"bo")
    client.close()
    nginx.wait_log("client prematurely closed connection")
    assert origin.connections == 0


def test_a_body_over_the_limit_reaches_none(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + "client_max_body_size 3;")
    assert nginx.post("/", b"body").status == 413
    assert origin.connections == 0


# streamed

def note_chunks(parts):
    """A script that notes each chunk as it comes."""
    def script(conn):
        conn.read_head()
        while not parts or parts[-1]:
            parts.append(conn.read_chunk())
            conn.exchange.wake()
        conn.respond()
    return script


def test_a_body_with_a_length_is_streamed(stage):
    parts = []

    def script(conn):
        conn.read_head()
        for _ in range(2):
            parts.append(conn.read(2))
            conn.exchange.wake()
        conn.respond()

    origin = stage.origin(script)
    client = stage.nginx(location=STREAMED).connect()
    client.send(http1.request("POST", "/", "Content-Length: 4"), b"bo")
    stage.wait_until(lambda: parts == [b"bo"])
    client.send(b"dy")
    assert client.read_response().status == 200
    assert parts == [b"bo", b"dy"]
    assert framing(origin.request) == ["content-length"]


def test_a_chunked_body_is_streamed_as_chunked(stage):
    parts = []
    origin = stage.origin(note_chunks(parts))
    client = stage.nginx(location=STREAMED).connect()
    client.send(http1.request("POST", "/", "Transfer-Encoding: chunked"),
                http1.chunk(b"first"))
    stage.wait_until(lambda: parts == [b"first"])
    client.send(http1.chunk(b"second"))
    stage.wait_until(lambda: parts == [b"first", b"second"])
    client.send(b"0\r\n\r\n")
    assert client.read_response().status == 200
    assert parts == [b"first", b"second", b""]
    assert framing(origin.request) == ["transfer-encoding"]
    assert origin.request.header("Transfer-Encoding") == "chunked"


@pytest.mark.parametrize("body", [
    [], [b"x"], [LARGE], [b"one", b"two", LARGE, b"three"]],
    ids=["empty", "byte", "large", "several"])
def test_a_streamed_chunked_body_arrives_whole(stage, body):
    origin = stage.origin()
    nginx = stage.nginx(location=STREAMED)
    assert nginx.post("/", body).status == 200
    assert origin.request.body == b"".join(body)


def test_a_streamed_chunked_body_is_decoded_and_framed_anew(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=STREAMED)
    client = nginx.connect()
    client.send(
        http1.request("POST", "/", "Transfer-Encoding: chunked"),
        http1.chunk(b"bo", extension=b";a=b"), http1.chunk(b"dy"),
        b"0\r\nX-Trailer: 1\r\n\r\n")
    assert client.read_response().status == 200
    assert origin.request.body == b"body"
    assert b";a=b" not in origin.conns[0].received


def test_an_http2_body_of_unknown_length_is_streamed_as_chunked(stage):
    parts = []
    origin = stage.origin(note_chunks(parts))
    client = stage.nginx(listen="http2", location=STREAMED).connect_h2()
    stream = client.send_request("POST", "/", end=False)
    client.send_data(stream, b"first")
    stage.wait_until(lambda: b"".join(parts) == b"first")
    client.send_data(stream, b"second", end=True)
    assert client.read_response(stream).status == 200
    assert b"".join(parts) == b"firstsecond"
    assert framing(origin.request) == ["transfer-encoding"]


def test_an_http2_body_with_a_length_is_streamed_with_it(stage):
    origin = stage.origin()
    client = stage.nginx(listen="http2", location=STREAMED).connect_h2()
    response = client.request("POST", "/", ("content-length", "4"),
                              body=b"body")
    assert response.status == 200
    assert framing(origin.request) == ["content-length"]
    assert origin.request.body == b"body"


@pytest.mark.parametrize("line", ["Content-Length: 9",
                                  "Transfer-Encoding: chunked"])
def test_a_client_that_leaves_within_a_streamed_body_ends_it(stage, line):
    ends = []

    def script(conn):
        request = conn.read_head()
        try:
            conn.read_body(request)
        except (Truncated, ConnectionError) as error:
            ends.append(error)

    origin = stage.origin(script)
    client = stage.nginx(location=STREAMED).connect()
    client.send(http1.request("POST", "/", line))
    stage.wait_until(lambda: origin.requests)
    client.close()
    stage.wait_until(lambda: ends)


@pytest.mark.parametrize("location", [PASS, STREAMED],
                         ids=["buffered", "streamed"])
def test_an_answer_before_the_end_of_the_body_is_passed(stage, location):
    def script(conn):
        conn.read_head()
        conn.respond(413, "Connection: close", body=b"too large")
        conn.half_close()
        conn.wait_for_close()

    stage.origin(script)
    nginx = stage.nginx(location=location)
    response = nginx.post("/", LARGE)
    assert response.status == 413
    assert response.body == b"too large"


# Expect

@pytest.mark.parametrize("location", [PASS, STREAMED],
                         ids=["buffered", "streamed"])
def test_expect_is_answered_by_nginx(stage, location):
    origin = stage.origin()
    client = stage.nginx(location=location).connect()
    client.send(http1.request("POST", "/", "Content-Length: 4",
                              "Expect: 100-continue"))
    assert client.read_response_head().status == 100
    client.send(b"body")
    assert client.read_response().status == 200
    assert origin.request.body == b"body"
    assert "expect" not in origin.request.names


def test_expect_is_answered_where_no_body_follows(stage):
    stage.origin()
    client = stage.nginx(location=PASS).connect()
    for _ in range(2):
        client.send(http1.request("GET", "/", "Expect: 100-continue"))
        assert client.read_response_head().status == 100
        assert client.read_response().status == 200


# several requests

@pytest.mark.parametrize("location", [PASS, STREAMED],
                         ids=["buffered", "streamed"])
@pytest.mark.parametrize("body", [b"body", [b"bo", b"dy"], LARGE],
                         ids=["length", "chunked", "large"])
def test_bodies_are_kept_apart_on_one_connection(stage, location, body):
    origin = stage.origin()
    client = stage.nginx(location=location).connect()
    for _ in range(3):
        assert client.post("/", body).status == 200
        assert client.get("/").status == 200
    whole = body if isinstance(body, bytes) else b"".join(body)
    assert [request.body for request in origin.requests] == [
        whole, b""] * 3


# myproxy_set_body, myproxy_pass_request_body

@pytest.mark.parametrize("location", [PASS, STREAMED],
                         ids=["buffered", "streamed"])
@pytest.mark.parametrize("body", [None, b"client's", [b"client", b"'s"]],
                         ids=["none", "length", "chunked"])
def test_set_body_replaces_the_clients(stage, location, body):
    origin = stage.origin()
    nginx = stage.nginx(location=location
                        + 'myproxy_set_body "fixed $arg_a";')
    assert nginx.post("/?a=one", body).status == 200
    assert origin.request.body == b"fixed one"
    assert framing(origin.request) == ["content-length"]


def test_set_body_may_be_empty(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + 'myproxy_set_body "$arg_a";')
    assert nginx.post("/", b"client's").status == 200
    assert origin.request.body == b""
    assert origin.request.header("Content-Length") == "0"


def test_set_body_may_contain_the_clients(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS
                        + 'myproxy_set_body "<$request_body>";')
    nginx.post("/", b"client's")
    assert origin.request.body == b"<client's>"


def test_set_body_is_inherited(stage):
    origin = stage.origin()
    nginx = stage.nginx(http="myproxy_set_body http;",
                        server="myproxy_set_body server;", location=PASS)
    nginx.get("/")
    assert origin.request.body == b"server"


@pytest.mark.parametrize("body", [b"body", [b"bo", b"dy"], LARGE],
                         ids=["length", "chunked", "large"])
@pytest.mark.parametrize("more", [
    "", 'myproxy_set_header Content-Length "";',
    "myproxy_request_buffering off;"],
    ids=["alone", "with-set-header", "unbuffered"])
def test_without_the_body_none_is_announced(stage, body, more):
    origin = stage.origin()
    client = stage.nginx(location=PASS + """
        myproxy_pass_request_body off;
    """ + more).connect()
    for _ in range(2):
        assert client.post("/", body).status == 200
    for request in origin.requests:
        assert request.body == b""
        assert request.header("Content-Length") in (None, "0")
        assert not request.chunked


def test_a_chunked_body_is_buffered_for_an_http10_origin(stage):
    """There it can have nothing but a length."""
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + """
        myproxy_request_buffering off;
        myproxy_http_version 1.0;
    """)
    client = nginx.connect()
    client.send(http1.request("POST", "/", "Transfer-Encoding: chunked"),
                http1.chunk(b"bo"))
    client.wait_until_delivered()
    assert nginx.get("/behind").status == 200
    client.send(http1.chunk(b"dy"), b"0\r\n\r\n")
    assert client.read_response().status == 200
    assert [request.target for request in origin.requests] == ["/behind", "/"]
    request = origin.requests[1]
    assert request.body == b"body"
    assert request.header("Content-Length") == "4"
    assert not request.chunked


def test_without_the_body_it_may_still_be_set(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + """
        myproxy_pass_request_body off;
        myproxy_set_body fixed;
    """)
    assert nginx.post("/", b"client's").status == 200
    assert origin.request.body == b"fixed"
