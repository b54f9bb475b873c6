"""A worker is as large after many requests as it was after some.

TEST_SOAK=1 makes it many more.
"""

import os
import socket
import subprocess

import pytest

from harness import http1, settings, tls

SOAK = os.environ.get("TEST_SOAK", "") not in ("", "0")

#: The worker is looked at after so many requests, and at the end.
SOME = 10000 if SOAK else 2000
MANY = 100000 if SOAK else 10000

#: By how much of itself, or how many pages, the worker may have grown.
SHARE = 0.05
PAGES = 64

LARGE = b"x" * 100000

ANSWERS = {
    b"/chunked": http1.compose(
        "HTTP/1.1 200 OK", ["Transfer-Encoding: chunked"],
        http1.chunked(b"one", b"two" * 1000, trailers=["X-Trailer: 1"])),
    b"/large": http1.response(body=LARGE),
    b"/fields": http1.response(
        200, *[f"X-Field-{number}: {number}" for number in range(30)],
        "Set-Cookie: a=b; path=/", "Location: http://origin.test/"),
    b"/missing": http1.response(404),
    b"/closing": http1.response(200, "Connection: close"),
    b"/interim": http1.response(103, "Link: </a>") + http1.response(),
}

DEFAULT = http1.response()

#: What clients ask for, by turns.
REQUESTS = [
    http1.request("GET", "/"),
    http1.request("GET", "/?a=b", *[f"X-Field-{number}: {number}"
                                    for number in range(30)]),
    http1.request("HEAD", "/"),
    http1.request("POST", "/", body=b"a body"),
    http1.request("POST", "/", body=[b"one", b"two" * 1000]),
    http1.request("POST", "/stream", body=b"a body" * 1000),
    http1.request("POST", "/stream", body=[b"one", b"two" * 1000]),
    http1.request("GET", "/chunked"),
    http1.request("GET", "/large"),
    http1.request("GET", "/fields"),
    http1.request("GET", "/missing"),
    http1.request("GET", "/interim"),
    http1.request("GET", "/direct/chunked"),
    http1.request("GET", "/direct/large"),
    http1.request("GET", "/variable"),
    http1.request("GET", "/tls"),
    http1.request("POST", "/tls", body=LARGE),
    http1.request("GET", "/tls/chunked"),
]

#: Each of these takes a connection, and over TLS a handshake.
CLOSING = [
    http1.request("GET", "/closing"),
    http1.request("GET", "/tls/closing"),
]

HTTP = """
    upstream app { server %{plain}; }
    upstream origin.test { server %{secure}; }
    keepalive_requests 10000000;
    client_max_body_size 0;
    myproxy_set_header X-Own $request_uri;
    myproxy_cookie_path / /app/;
"""

SERVER = """
    location / { myproxy_pass http://app; }
    location /direct/ {
        myproxy_pass http://app/;
        myproxy_buffering off;
    }
    location /stream {
        myproxy_pass http://app;
        myproxy_request_buffering off;
    }
    location /variable {
        set $name app;
        myproxy_pass http://$name;
    }
    location /tls {
        rewrite ^/tls/?(.*) /$1 break;
        myproxy_pass https://origin.test;
        myproxy_ssl_trusted_certificate %{authority.path};
    }
"""


def sanitized():
    info = subprocess.run([settings.NGINX, "-V"], capture_output=True,
                          text=True, check=True).stderr
    return "fsanitize" in info or settings.SANITIZED


def serve(conn):
    """Answers as fast as it can and notes nothing."""
    conn.sock.settimeout(None)
    with conn.sock.makefile("rb") as file:
        while True:
            line = file.readline()
            if not line:
                return
            method, target, _ = line.split()
            read_rest(file)
            answer = ANSWERS.get(target, DEFAULT)
            if method == b"HEAD":
                answer = answer[:answer.index(b"\r\n\r\n") + 4]
            conn.sock.sendall(answer)
            if target == b"/closing":
                return


def read_rest(file):
    """The fields of a request, and its body."""
    length = 0
    chunked = False
    while True:
        name, _, value = file.readline().rstrip().partition(b":")
        if not name:
            break
        if name.lower() == b"content-length":
            length = int(value)
        elif name.lower() == b"transfer-encoding":
            chunked = True
    file.read(length)
    while chunked:
        size = int(file.readline(), 16)
        file.read(size + 2)
        chunked = size > 0


class Load:
    """A client that sends requests by turns, on one connection."""

    def __init__(self, nginx, requests):
        self.requests = requests
        self.sock = socket.create_connection(("127.0.0.1", nginx.port()),
                                             timeout=settings.PATIENCE)
        self.sizes = [self._size(nginx, request) for request in requests]

    @staticmethod
    def _size(nginx, request):
        """How long the answer is, which is always the same."""
        client = nginx.connect()
        client.send(request)
        response = client.read_response(request.split()[0].decode())
        assert response.status in (200, 404)
        client.close()
        return len(client.received)

    def run(self, count):
        for number in range(count):
            which = number % len(self.requests)
            self.sock.sendall(self.requests[which])
            left = self.sizes[which]
            while left:
                data = self.sock.recv(min(left, 65536))
                assert data, "nginx has closed the connection"
                left -= len(data)

    def close(self):
        self.sock.close()


@pytest.fixture
def nginx(stage, authority):
    stage.origin(serve, name="plain")
    stage.origin(serve, name="secure",
                 tls=tls.Server(authority.issue("origin.test")))
    return stage.nginx(http=HTTP, server=SERVER)


@pytest.fixture
def load(nginx):
    running = []

    def start(requests):
        running.append(Load(nginx, requests))
        return running[-1]

    yield start
    for each in running:
        each.close()


def resident(pid):
    """The resident memory of a process, in bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        line, = [line for line in file if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def grown(before, after):
    """By how much it has, if it is more than it may."""
    allowed = max(before * SHARE, PAGES * os.sysconf("SC_PAGESIZE"))
    return max(0, after - before - allowed)


@pytest.mark.timeout(1200 if SOAK else 120)
def test_a_worker_does_not_grow(nginx, load):
    if sanitized():
        pytest.skip("a sanitizer keeps freed memory in quarantine")
    worker, = nginx.workers()
    client = load(REQUESTS)
    client.run(SOME)
    before = resident(worker)
    client.run(MANY - SOME)
    after = resident(worker)
    print(f"{before // 1024} kB after {SOME} requests, "
          f"{after // 1024} kB after {MANY}")
    assert not grown(before, after)


@pytest.mark.timeout(1200 if SOAK else 120)
def test_a_worker_that_connects_each_time_does_not_grow(nginx, load):
    if sanitized():
        pytest.skip("a sanitizer keeps freed memory in quarantine")
    worker, = nginx.workers()
    client = load(CLOSING)
    client.run(SOME // 4)
    before = resident(worker)
    client.run((MANY - SOME) // 4)
    after = resident(worker)
    print(f"{before // 1024} kB after {SOME // 4} requests, "
          f"{after // 1024} kB after {MANY // 4}")
    assert not grown(before, after)


def test_no_descriptors_are_left_open(nginx, load):
    worker, = nginx.workers()
    client = load(REQUESTS)
    client.run(len(REQUESTS))
    before = descriptors(worker)
    client.run(20 * len(REQUESTS))
    assert descriptors(worker) == before


def test_closed_connections_leave_no_descriptors(nginx, load):
    worker, = nginx.workers()
    client = load(CLOSING)
    client.run(len(CLOSING))
    before = descriptors(worker)
    client.run(100 * len(CLOSING))
    assert descriptors(worker) == before


def test_clients_that_leave_take_no_descriptors_along(stage):
    origin = stage.origin(lambda conn: (conn.read_request(),
                                        conn.wait_for_close()))
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    worker, = nginx.workers()
    before = descriptors(worker)
    for number in range(1, 21):
        client = nginx.connect()
        client.send(http1.request("GET", "/"))
        stage.wait_until(lambda: len(origin.requests) == number)
        client.close()
    stage.wait_until(lambda: all(conn.closed for conn in origin.conns))
    stage.wait_until(lambda: descriptors(worker) == before)


def test_refused_certificates_leave_no_descriptors(stage):
    origin = stage.origin(tls="elsewhere.test")
    nginx = stage.nginx(http="upstream origin.test { server %{origin}; }",
                        location="myproxy_pass https://origin.test;")
    worker, = nginx.workers()
    client = nginx.connect()
    assert client.get().status == 502
    before = descriptors(worker)
    for _ in range(20):
        assert client.get().status == 502
    assert descriptors(worker) == before
    assert origin.connections == 21


def test_idle_connections_are_all_that_stays(stage):
    origin = stage.origin()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    worker, = nginx.workers()
    before = descriptors(worker)
    for _ in range(20):
        assert nginx.get().status == 200
    stage.wait_until(lambda: descriptors(worker) == before + 1)
    assert origin.connections == 1
