"""A final response that comes before the whole request has been sent.

An origin that closes with the rest unread has its system reset the
connection: writing fails, and the response is there to be read all the same.
"""

import socket

import pytest

from harness import http1

NAME = "app.test"
PASS = "myproxy_pass http://%{origin};"
TLS_PASS = f"""
    myproxy_pass https://%{{origin}};
    myproxy_ssl_name {NAME};
    myproxy_ssl_trusted_certificate %{{authority.path}};
"""
STREAM = "myproxy_request_buffering off;"
ANY = "client_max_body_size 0;"

kinds = pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])


def origin_of(stage, kind, script):
    def play(conn):
        if kind != "unix":
            # what is small does not wait for an acknowledgement
            conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        script(conn)

    return stage.origin(play, family="unix" if kind == "unix" else "ipv4",
                        tls=NAME if kind == "tls" else None)


def location(kind, *lines):
    return (TLS_PASS if kind == "tls" else PASS) + "".join(lines)


def established(port):
    """Connections to that port, as far as the system knows."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        lines = [line.split() for line in file.readlines()[1:]]
    return sum(fields[2].endswith(f":{port:04X}") and fields[3] == "01"
               for fields in lines)


class Streamed:
    """An upload that is sent on as it comes.

    The origin does end(conn) when it has received a part and read less.
    nginx then learns first that there is more to send, and last that the
    connection is gone.
    """

    def __init__(self, stage, end, *, kind="tcp", chunked=False, before=0,
                 lines=""):
        self.chunked = chunked

        def script(conn):
            for _ in range(before):
                conn.read_request()
                conn.respond()
            conn.read_until(b"\r\n\r\n")
            arrived.open()
            gate.wait()
            end(conn)
            ended.open()

        self.origin = origin_of(stage, kind, script)
        arrived, gate, ended = (self.origin.gate() for _ in range(3))
        self.nginx = stage.nginx(http="reuse_expiry 1h;", server=ANY,
                                 location=location(kind, STREAM, lines))
        self.client = self.nginx.connect()
        for _ in range(before):
            assert self.client.get("/before").status == 200
        self.client.send(http1.request(
            "POST", "/x", "Transfer-Encoding: chunked" if chunked
            else "Content-Length: 300000"))
        self.send_more()
        arrived.wait()
        worker, = self.nginx.workers()
        self.nginx.pause_worker(worker)
        self.send_more()
        self.client.wait_until_delivered()
        gate.open()
        ended.wait()
        if kind != "unix":
            stage.wait_until(lambda: established(self.origin.port) == 0)
        self.nginx.resume_worker(worker)

    def send_more(self):
        data = b"x" * 20000
        self.client.send(http1.chunk(data) if self.chunked else data)

    def fates(self):
        closed = self.nginx.status()["total"]["connections"]
        return {reason: count for reason, count
                in closed["closed_by_reason"].items() if count}


def answer(status, *lines, body=b"too much"):
    def end(conn):
        conn.send(http1.response(status, "X-Early: yes", *lines, body=body))
        conn.close()
    return end


@kinds
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_writing_fails_and_the_response_is_passed(stage, kind, chunked):
    scene = Streamed(stage, answer(413), kind=kind, chunked=chunked)
    response = scene.client.read_response()
    assert (response.status, response.body) == (413, b"too much")
    assert response.header("X-Early") == "yes"
    if kind != "tls":
        # a session ticket may have had nginx look at that connection first
        assert scene.nginx.logged("its response is read")
    assert scene.origin.connections == 1
    assert scene.fates() == {"early": 1}


@pytest.mark.parametrize("status", [200, 401, 403, 404, 503])
def test_whatever_the_response_is(stage, status):
    scene = Streamed(stage, answer(status))
    response = scene.client.read_response()
    assert (response.status, response.body) == (status, b"too much")
    assert scene.fates() == {"early": 1}


@kinds
def test_on_a_kept_connection(stage, kind):
    """It was received in part: it is not sent again, and nobody's race."""
    scene = Streamed(stage, answer(413), kind=kind, before=1,
                     lines="myproxy_next_upstream error non_idempotent;")
    assert scene.client.read_response().status == 413
    assert [request.target for request in scene.origin.requests] == [
        "/before"]
    assert scene.origin.connections == 1
    assert not scene.nginx.logged("may have been received|is sent again")
    assert scene.nginx.status()["total"]["stale_requests"]["unproven"] == 0


def test_a_client_that_goes_on_sending(stage):
    """The response is long, and the rest of the request is thrown away."""
    body = bytes(range(256)) * 256
    scene = Streamed(stage, answer(413, body=body),
                     lines="myproxy_buffering off;")
    for _ in range(3):
        scene.send_more()
    response = scene.client.read_response()
    assert (response.status, response.body) == (413, body)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_origin_that_reads_no_more_while_it_answers(stage, chunked):
    """Writing fails behind the header: the client goes on, for nobody."""
    def script(conn):
        conn.read_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nslow")
        begun.wait()
        conn.sock.shutdown(socket.SHUT_RD)
        deaf.open()
        uploaded.wait()
        conn.send(b"ness")

    origin = stage.origin(script, family="unix")
    begun, deaf, uploaded = (origin.gate() for _ in range(3))
    nginx = stage.nginx(server=ANY,
                        location=PASS + STREAM + "myproxy_buffering off;")
    data = b"x" * 20000
    client = nginx.connect()
    client.send(http1.request(
        "POST", "/x", "Transfer-Encoding: chunked" if chunked
        else "Content-Length: 20000000"))
    client.read_until(b"slow")
    begun.open()
    deaf.wait()
    for _ in range(999):
        # far more than fits between us and nginx: it is read
        client.send(http1.chunk(data) if chunked else data)
    uploaded.open()
    assert client.read(4) == b"ness"
    assert len(nginx.logged("its response is read")) == 1
    assert origin.connections == 1
    closed = nginx.status()["total"]["connections"]["closed_by_reason"]
    assert closed["early"] == 1


@kinds
def test_there_is_no_response(stage, kind):
    scene = Streamed(stage, lambda conn: conn.close(), kind=kind)
    assert scene.client.read_response().status == 502
    if kind != "tls":
        # session tickets may be there to be read, and then no response
        assert scene.nginx.logged(r"\[error\].* while sending request")
        assert not scene.nginx.logged("its response is read")
    assert scene.fates() == {"error": 1}


@kinds
def test_there_is_a_part_of_a_header(stage, kind):
    def end(conn):
        conn.send(b"HTTP/1.1 413 Content Too Lar")
        conn.close()

    scene = Streamed(stage, end, kind=kind)
    assert scene.client.read_response().status == 502
    assert scene.fates() == {"error": 1}


def test_there_is_a_part_of_a_body(stage):
    def end(conn):
        conn.send(b"HTTP/1.1 413 Content Too Large\r\n"
                  b"Content-Length: 100\r\n\r\ntoo")
        conn.close()

    scene = Streamed(stage, end)
    head = scene.client.read_until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert scene.client.wait_for_close() == b"too"


@kinds
def test_a_body_that_was_buffered(stage, kind):
    """When writing fails is left to chance here: many times."""
    def script(conn):
        conn.read_until(b"\r\n\r\n")
        answer(413, "Connection: close")(conn)

    origin = origin_of(stage, kind, script)
    nginx = stage.nginx(server=ANY + "client_body_buffer_size 64k;",
                        location=location(kind))
    for _ in range(30):
        response = nginx.post("/x", b"x" * 100000)
        assert (response.status, response.body) == (413, b"too much")
    assert len(origin.requests) == 0


def test_413_does_not_keep_the_connection(stage):
    """What the origin has not read is not known; it may be about to close."""
    origin = stage.origin([http1.response(413), http1.response(413)])
    nginx = stage.nginx(location=PASS)
    for _ in range(2):
        assert nginx.post("/x", b"body").status == 413
    assert origin.carried == [1, 1]
    closed = nginx.status()["total"]["connections"]["closed_by_reason"]
    assert closed["early"] == 2


def test_a_response_that_lasts_longer_than_sending_may(stage):
    """The origin reads no more of the body, and takes its time."""
    def script(conn):
        conn.read_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nslow")
        gate.wait()
        conn.send(b"ness")
        conn.wait_for_close()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(server=ANY + "client_body_buffer_size 16m;",
                        location=PASS + "myproxy_send_timeout 300ms;"
                        "myproxy_buffering off;")
    client = nginx.connect()
    client.send(http1.request("POST", "/x", body=b"x" * 9000000))
    client.read_until(b"slow")
    stage.let_pass(0.8)
    gate.open()
    assert client.read(4) == b"ness"
