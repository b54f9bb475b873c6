"""Mutated responses on connections that are kept for others.

Whatever an origin sends, the next request on the proxy gets its own answer,
or 502, and the client's connection stays in step.  A seed stands for the same
mutations each time; TEST_SOAK=1 tries many more of them.
"""

import os
import random
import re
import socket
import threading

import pytest

from harness import http1, settings
from harness.wire import Truncated

SOAK = os.environ.get("TEST_SOAK", "") not in ("", "0")
SEEDS = 100 if SOAK else 4
EXAMPLES = 250 if SOAK else 50

NAME = "origin.test"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
CACHEABLE = b"Cache-Control: max-age=60\r\n"

RESPONSES = [
    http1.response(),
    CHUNKED + b"\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n",
    http1.response(100, "A: b") + http1.response(103, "Link: </a>")
    + http1.response(body=b"ok"),
    http1.response(204, "X: y"),
    http1.response(304, 'ETag: "x"', "Content-Length: 10"),
    b"HTTP/1.0 200 OK\r\n\r\nuntil close",
    OK + CACHEABLE + b"Vary: Accept\r\nContent-Length: 6000\r\n\r\n"
    + b"a" * 6000,
    CHUNKED + CACHEABLE + b"\r\n1000\r\n" + b"b" * 4096 + b"\r\n800\r\n"
    + b"c" * 2048 + b"\r\n0\r\n\r\n",
    http1.response(
        302, "Location: http://o/x", "Refresh: 0; url=http://o/y",
        "Set-Cookie: a=b; Path=/; Domain=o.test; Secure; SameSite=Lax",
        "Set-Cookie: c=; HttpOnly", body=b""),
    http1.response(
        200, "X-Accel-Redirect: /found", "X-Accel-Buffering: no",
        "X-Accel-Charset: utf-8", "X-Accel-Expires: @9", body=b"abc"),
    http1.response(206, "Content-Range: bytes 0-4/10", body=b"hello"),
    http1.response(500, "Connection: close", body=b"err"),
    http1.response(503, "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    http1.response(101, "Upgrade: websocket", "Connection: upgrade"),
]

#: Those that end where their length says, and thus may be interrupted.
FRAMED = [
    http1.response(),
    http1.response(404, body=b"none"),
    http1.response(204),
    CHUNKED + b"\r\n" + http1.chunked(b"hello", b"abc", trailers=["T: 1"]),
    http1.response(200, "X-Accel-Redirect: /found", body=b"abc"),
    http1.response(200, "Cache-Control: max-age=60", body=b"a" * 6000),
    http1.response(100) + http1.response(500, body=b"wrong"),
]

WORDS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b"=", b",", b"0",
    b"-1", b"f" * 16, b"9223372036854775807", b"\r\n\r\n", b"0\r\n\r\n",
    b"HTTP/", OK + b"\r\n", b"101", b"100", b"\xff" * 40, b"A" * 40, b"_",
    b"!",
]

LINES = [
    b"Content-Length: 3", b"Content-Length: 0", b"Connection: close",
    b"Transfer-Encoding: chunked", b"Upgrade: websocket", b"Vary: *",
    b"Set-Cookie: ;;=;=", b"Location: http://o", b"Refresh: url=", b"ETag: ",
    b"X-Accel-Redirect: ", b"X-Accel-Redirect: @named", b"X-Accel-Expires: ",
    b"Cache-Control: max-age=9, =", b"Expires: x", b"Content-Range: bytes *",
    b"HTTP/1.1 200 OK", b"HTTP/1.1 100 Continue", b"HTTP/1.0 200", b"", b" x",
]

#: nginx takes what IIS has been seen to send: "HTTP/1.1 403.1 Forbidden".
DOTTED = re.compile(rb"HTTP/1\.1 [0-9]{3}\.")

WAYS = {
    "/buffered/": "",
    "/unbuffered/": "myproxy_buffering off; myproxy_buffer_size 1k;",
    "/small/": """
        myproxy_buffer_size 512;
        myproxy_buffers 3 512;
        myproxy_busy_buffers_size 1k;
        myproxy_max_temp_file_size 0;
    """,
    "/files/": """
        myproxy_buffer_size 1k;
        myproxy_buffers 2 1k;
        myproxy_busy_buffers_size 1k;
        myproxy_temp_file_write_size 1k;
    """,
    "/cached/": """
        myproxy_cache zone;
        myproxy_cache_valid any 60s;
        myproxy_cache_revalidate on;
        myproxy_cache_use_stale error timeout invalid_header http_500;
        myproxy_force_ranges on;
    """,
    "/intercepted/": """
        myproxy_intercept_errors on;
        error_page 302 404 500 503 /found;
    """,
}

FIELDS = [
    [], [], ["Range: bytes=0-1"], ['If-None-Match: "x"'],
    ["Upgrade: websocket", "Connection: upgrade"], ["Connection: close"],
]


def mutate(rng):
    """A response with some mistakes, many of them in the header."""
    data = bytearray(rng.choice(RESPONSES))
    if rng.random() < 0.15:
        data += rng.choice(RESPONSES)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        head = data.find(b"\r\n\r\n") + 8
        size = len(data) if rng.random() < 0.5 else min(head, len(data))
        at = rng.randrange(max(size, 1))
        rng.choice(MUTATIONS)(rng, data, at)
    return bytes(data) or b"H"


def insert_word(rng, data, at):
    data[at:at] = rng.choice(WORDS)


def change_byte(rng, data, at):
    data[at:at + 1] = bytes([rng.randrange(256)])


def delete(rng, data, at):
    del data[at:at + rng.choice([1, 2, 5, 20])]


def insert_line(rng, data, _):
    lines = bytes(data).split(b"\r\n")
    line = rng.choice(LINES if rng.random() < 0.8 else lines)
    lines.insert(rng.randrange(1, len(lines) + 1), line)
    data[:] = b"\r\n".join(lines)


def repeat_bytes(rng, data, at):
    start = rng.randrange(len(data) + 1)
    data[at:at] = data[start:start + 30]


def cut(_, data, at):
    del data[at:]


MUTATIONS = [insert_word, insert_word, change_byte, change_byte, delete,
             delete, insert_line, insert_line, insert_line, repeat_bytes, cut]


def interrupt(rng):
    """A good response in two parts, the second to come too late."""
    data = rng.choice(FRAMED)
    at = rng.choice([rng.randrange(1, len(data)), -rng.randrange(1, 5)])
    return data[:at], data[at:]


def follow(rng):
    """A response that fills a buffer, and another behind it."""
    head, _, body = rng.choice(FRAMED[:3]).partition(b"\r\n\r\n")
    head += b"\r\nX-Fill: "
    size = rng.choice([512, 1024, 4096]) - len(head) - 4 - len(body)
    return (head + b"x" * size + b"\r\n\r\n" + body
            + http1.response(body=b"behind"))


class Mutator:
    """The script of an origin: /own/N is answered well, others are not."""

    def __init__(self, seed):
        self.seed = seed
        self.lock = threading.Lock()
        self.sending = 0

    def example(self, target):
        """How that target is answered: the pieces, what the connection does
        then, and what comes if it is asked again nevertheless."""
        rng = random.Random(f"{self.seed} {target}")
        kind = rng.random()
        if kind < 0.1:
            data, late = interrupt(rng)
            return [data], "wait", late
        data = follow(rng) if kind < 0.2 else mutate(rng)
        marks = sorted(rng.randrange(len(data) + 1)
                       for _ in range(rng.choice([0, 0, 1, 3])))
        pieces = [data[start:end] for start, end in
                  zip([0, *marks], [*marks, len(data)]) if start < end]
        return pieces, rng.choice(["wait"] * 3 + ["close", "reset"]), b""

    def __call__(self, conn):
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        late = b""
        try:
            while not conn.closed:
                request = conn.read_request()
                if request is None:
                    return
                if late:
                    conn.send(late)
                    late = b""
                if request.target.startswith("/own/"):
                    conn.send(own(request.target))
                else:
                    late = self.answer(conn, request)
        except (ConnectionError, Truncated):
            return

    def answer(self, conn, request):
        with self.lock:
            self.sending += 1
        try:
            pieces, then, late = self.example(request.target)
            for piece in pieces:
                conn.send(piece)
            if then != "wait":
                getattr(conn, then)()
        finally:
            with self.lock:
                self.sending -= 1
            conn.exchange.wake()
        whole = request.method == "HEAD" and b"\r\n\r\n" in pieces[0]
        return b"" if whole else late


def own(target):
    return http1.response(body=target.encode())


def configuration(scheme):
    ways = "".join(
        f"location {path} {{ myproxy_pass {scheme}://app; {lines} }}"
        for path, lines in WAYS.items())
    patience = 30 * settings.SCALE
    return {
        "http": f"""
            myproxy_cache_path %{{prefix}}/cache keys_zone=zone:1m;
            upstream app {{ server %{{origin}}; }}
            keepalive_requests 100000;
            lingering_close off;
        """,
        "server": f"""
            myproxy_ssl_name {NAME};
            myproxy_ssl_trusted_certificate %{{authority.path}};
            myproxy_redirect http://o/ http://n/;
            myproxy_redirect ~^(.)(.*)$ $2$1;
            myproxy_cookie_path / /x;
            myproxy_cookie_domain ~(.*) d.$1;
            myproxy_cookie_flags ~. secure samesite=none;
            location / {{
                myproxy_read_timeout {patience:.0f}ms;
                {ways}
            }}
            location /own/ {{ myproxy_pass {scheme}://app; }}
            location /found {{ return 200 found; }}
            location @named {{ return 204; }}
        """,
    }


@pytest.mark.timeout((600 if SOAK else 60) * settings.SCALE)
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_next_request_gets_its_own_answer(stage, scheme, seed):
    mutator = Mutator(seed)
    origin = stage.origin(mutator, tls=NAME if scheme == "https" else None)
    nginx = stage.nginx(log_level="crit", **configuration(scheme))
    rng = random.Random(seed)
    client, good = None, 0
    for number in range(EXAMPLES):
        client = client or nginx.connect()
        target = f"{rng.choice(list(WAYS))}{number}"
        method = rng.choice(["GET"] * 6 + ["HEAD", "POST"])
        fields = rng.choice(FIELDS)
        wrong = f"{method} {target} {fields}, {mutator.example(target)}"
        for _ in range(2 if "cached" in target else 1):
            client = client or nginx.connect()
            if not ask(client, method, target, fields, wrong):
                client = None
            # what has been sent late is not to be told from an answer
            stage.wait_until(lambda: mutator.sending == 0)
        for step in range(2):
            client = client or nginx.connect()
            mine = f"/own/{number}/{step}"
            response = client.request(
                rng.choice(["GET", "GET", "POST"]), mine, body=b"")
            assert response.status in (200, 502), wrong
            if response.status == 200:
                assert response.body == mine.encode(), wrong
                good += 1
    assert good > EXAMPLES
    assert max(origin.carried) > 2


def ask(client, method, target, fields, wrong):
    """A request for a mutated response; is the client's connection kept?"""
    try:
        response = client.request(method, target, *fields, body=b"body"
                                  if method == "POST" else None)
    except (ConnectionError, Truncated):
        client.close()
        return False
    except http1.ProtocolError as error:
        assert DOTTED.search(client.received), f"{error}: {wrong}"
        client.close()
        return False
    if response.status == 101:
        client.wait_for_close()
    elif response.kept:
        return True
    client.close()
    return False
