"""Requests of HTTP/3 clients, which the origin gets as HTTP/1.1."""

import pytest

from harness import h3, http1

PASS = "myproxy_pass http://%{origin};"

CUSTOMARY = """
    myproxy_set_header Upgrade $http_upgrade;
    myproxy_set_header Connection upgrade;
"""


@pytest.fixture
def play(stage, authority):
    """Starts nginx for an HTTP/3 client; returns both."""
    def start(location=PASS, more="", **config):
        nginx = stage.nginx(server=h3.listen(authority, more),
                            location=location, **config)
        return nginx, nginx.connect_h3()
    return start


def test_a_request_and_its_response(stage, play):
    origin = stage.origin(http1.response(200, "X-Own: 1", body=b"all of it"))
    _, client = play()
    response = client.get("/a%20b?c=d", ("x-own", "2"), ("te", "trailers"))
    assert response.status == 200
    assert response.header("X-Own") == "1"
    assert response.body == b"all of it"
    request = origin.request
    assert (request.method, request.target, request.version) \
        == ("GET", "/a%20b?c=d", "HTTP/1.1")
    assert request.header("X-Own") == "2"
    assert request.header("TE") is None
    assert request.body == b""
    assert request.header("Content-Length") is None
    assert request.header("Transfer-Encoding") is None


# Host

@pytest.mark.parametrize("name, headers, host", [
    ("a.test", [], "a.test"),
    ("a.test:8443", [], "a.test:8443"),
    ("a.test", [("host", "a.test")], "a.test"),
    (None, [("host", "b.test")], "b.test"),
], ids=["authority", "port", "both", "Host alone"])
def test_the_authority_is_the_host(stage, play, name, headers, host):
    origin = stage.origin()
    _, client = play()
    response = client.request("GET", "/", *headers, authority=name)
    assert response.status == 200
    assert origin.request.values("Host") == [host]


def test_an_authority_that_differs_from_host_is_refused(stage, play):
    origin = stage.origin()
    _, client = play()
    response = client.get("/", ("host", "b.test"), authority="a.test")
    assert response.status == 400
    assert origin.requests == []


def test_host_can_be_set(stage, play):
    origin = stage.origin()
    _, client = play(PASS + "myproxy_set_header Host c.test;")
    assert client.get("/").status == 200
    assert origin.request.values("Host") == ["c.test"]


# bodies

@pytest.mark.parametrize("buffering", ["on", "off"])
@pytest.mark.parametrize("size", [0, 4, 300000])
def test_a_body_of_known_length(stage, play, size, buffering):
    origin = stage.origin()
    _, client = play(PASS + f"myproxy_request_buffering {buffering};")
    body = b"x" * size
    response = client.request("POST", "/", ("content-length", str(size)),
                              body=body)
    assert response.status == 200
    assert origin.request.body == body
    assert origin.request.header("Content-Length") == str(size)
    assert origin.request.header("Transfer-Encoding") is None


@pytest.mark.parametrize("size", [4, 300000])
def test_a_body_of_unknown_length_gets_its_length(stage, play, size):
    origin = stage.origin()
    _, client = play()
    stream = client.send_request("POST", "/", end=False)
    client.send_data(stream, b"x" * size, end=True)
    assert client.read_response(stream).status == 200
    assert origin.request.body == b"x" * size
    assert origin.request.header("Content-Length") == str(size)
    assert origin.request.header("Transfer-Encoding") is None


def test_a_body_of_unknown_length_is_chunked_while_it_comes(stage, play):
    origin = stage.origin()
    _, client = play(PASS + "myproxy_request_buffering off;")
    stream = client.send_request("POST", "/", body=b"first", end=False)
    client.send_data(stream, b"second", end=True)
    assert client.read_response(stream).status == 200
    assert origin.request.body == b"firstsecond"
    assert origin.request.header("Transfer-Encoding") == "chunked"
    assert origin.request.header("Content-Length") is None


def test_a_body_shorter_than_its_length_is_not_sent(stage, play):
    origin = stage.origin()
    _, client = play()
    response = client.request("POST", "/", ("content-length", "10"),
                              body=b"half")
    assert response.status == 400
    assert origin.requests == []


def test_a_stream_that_is_reset_ends_the_origins_connection(stage, play):
    def script(conn):
        conn.read_request()
        conn.wait_for_close()
        ended.append(conn.number)

    ended = []
    origin = stage.origin(script)
    _, client = play()
    stream = client.send_request("GET", "/")
    stage.wait_until(lambda: origin.requests)
    client.reset_stream(stream)
    client.quic.stop_stream(stream, 0x10c)
    client.send_request("GET", "/")
    stage.wait_until(lambda: ended)
    assert ended == [1]


# fields that HTTP/3 does not have, and what asks for another protocol

@pytest.mark.parametrize("lines", ["", CUSTOMARY], ids=["default", "asking"])
def test_upgrade_is_never_asked_for(stage, play, lines):
    origin = stage.origin()
    _, client = play(PASS + lines)
    assert client.get("/", ("upgrade", "websocket"),
                      ("connection", "upgrade")).status in (200, 400)
    assert client.get("/").status == 200
    for request in origin.requests:
        assert "upgrade" not in request.names


@pytest.mark.parametrize("field", [
    ("connection", "keep-alive, x-own"), ("keep-alive", "timeout=5"),
    ("proxy-connection", "close"), ("transfer-encoding", "chunked"),
    ("te", "gzip"),
], ids=lambda field: field[0])
def test_fields_of_the_clients_connection_stay_here(stage, play, field):
    origin = stage.origin()
    _, client = play()
    response = client.get("/", field, ("x-own", "1"))
    assert response.status in (200, 400)
    for request in origin.requests:
        assert field[0] not in request.names
        assert request.header("Content-Length") is None
    assert client.get("/again").status == 200
    assert origin.requests[-1].target == "/again"


@pytest.mark.parametrize("status", [200, 426])
def test_fields_of_the_origins_connection_stay_there(stage, play, status):
    stage.origin(http1.response(
        status, "Upgrade: h2c", "Connection: Upgrade, X-Own", "X-Own: 1",
        "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive"))
    _, client = play()
    response = client.get("/")
    assert response.status == status
    names = {name.decode().lower() for name, _ in response.headers}
    assert not names & {"upgrade", "connection", "keep-alive",
                        "proxy-connection", "transfer-encoding", "x-own"}


def test_a_chunked_response_has_no_transfer_encoding(stage, play):
    stage.origin(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                 b"3\r\nall\r\n6\r\n of it\r\n0\r\n\r\n")
    _, client = play()
    response = client.get("/")
    assert response.status == 200
    assert response.body == b"all of it"
    assert response.header("Transfer-Encoding") is None


def test_a_response_that_is_cut_resets_the_stream(stage, play):
    stage.origin(lambda conn: (
        conn.read_request(),
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        conn.close()))
    _, client = play()
    response = client.get("/")
    assert response.status == 200
    assert response.reset is not None


# connections to the origin

def test_streams_reuse_the_connection_to_the_origin(stage, play):
    origin = stage.origin()
    nginx, client = play()
    for number in range(3):
        assert client.get(f"/{number}").status == 200
    other = nginx.connect_h3()
    assert other.request("POST", "/3", body=b"body").status == 200
    assert origin.carried == [4]


def test_a_request_that_meets_a_closed_connection_is_sent_again(stage, play):
    def script(conn):
        if conn.number == 1:
            conn.send(http1.response(200, body=b"1")
                      if conn.read_request() else b"")
            conn.read_request()
            conn.reset()
        else:
            conn.serve(lambda request: http1.response(200, body=b"2"))

    origin = stage.origin(script)
    _, client = play()
    assert client.get("/").body == b"1"
    assert client.get("/").body == b"2"
    assert origin.connections == 2


def test_a_retry_sends_the_body_again(stage, play):
    def first(conn):
        conn.read_request()
        conn.reset()

    one = stage.origin(first, name="one")
    two = stage.origin(name="two")
    _, client = play(
        "myproxy_pass http://app;"
        "myproxy_next_upstream error non_idempotent;",
        http="upstream app { server %{one}; server %{two}; }")
    stream = client.send_request("POST", "/", end=False)
    client.send_data(stream, b"body", end=True)
    assert client.read_response(stream).status == 200
    assert (one.connections, two.connections) == (1, 1)
    assert two.request.body == b"body"
