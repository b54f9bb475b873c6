"""The sums hold, whatever happens: many requests at random, with faults.

Origins restart, reset and truncate; clients leave; nginx is reloaded, and its
workers are killed.  TEST_SOAK=1 makes it 50,000 requests.
"""

import os
import socket

import pytest

from harness import http1, settings
from harness.crowd import Crowd
from harness.workers import established

SOAK = os.environ.get("TEST_SOAK", "") not in ("", "0")
REQUESTS = 50000 if SOAK else 4000
CLIENTS = 4
SEED = int(os.environ.get("TEST_SEED", "20261124"))

NAMES = ("first", "second", "secure")
OK = http1.response()

#: What an origin does, by the target's first part; False: and then closes.
ANSWERS = {
    b"/ok": (OK, True),
    b"/chunked": (http1.compose(
        "HTTP/1.1 200 OK", ["Transfer-Encoding: chunked"],
        http1.chunked(b"one", b"two" * 100)), True),
    b"/large": (http1.response(body=b"x" * 30000), True),
    b"/close": (http1.response(200, "Connection: close"), False),
    b"/silent-close": (OK, False),
    b"/unframed": (b"HTTP/1.1 200 OK\r\n\r\nto the end", False),
    b"/http10": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", True),
    b"/hint": (http1.response(200, "Keep-Alive: timeout=0"), True),
    b"/short": (http1.response(200, "Keep-Alive: timeout=1"), True),
    b"/excess": (OK + OK, True),
    b"/cut": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12", False),
    b"/nothing": (b"", False),
    b"/nonsense": (b"nonsense\r\n\r\n", True),
    b"/reset": (None, False),
    b"/slow": (None, True),
    b"/403": (http1.response(403), True),
}

#: How often each is asked for, compared with the others.
WEIGHTS = [60 if name in (b"/ok", b"/chunked", b"/large") else 3
           for name in ANSWERS]

HTTP = """
    upstream app {
        server %{first} max_fails=0;
        server %{second} max_fails=0;
    }
    upstream origin.test { server %{secure}; keepalive 2; }
    upstream short { server %{first}; keepalive 3; keepalive_timeout 30ms; }
"""

SERVER = """
    location / { myproxy_pass http://app; myproxy_read_timeout 2s; }
    location ~ ^/tls(?<rest>/.*) {
        myproxy_pass https://origin.test$rest;
        myproxy_ssl_trusted_certificate %{authority.path};
        myproxy_ssl_name $arg_name.test;
        myproxy_ssl_verify off;
    }
    location ~ ^/short(?<rest>/.*) { myproxy_pass http://short$rest; }
    location ~ ^/direct(?<rest>/.*) {
        myproxy_pass http://app$rest;
        myproxy_buffering off;
        myproxy_request_buffering off;
    }
"""


def serve(conn):
    """As its target says; as fast as it can, and without a record."""
    conn.sock.settimeout(None)
    with conn.sock.makefile("rb") as file:
        while True:
            head = []
            while not head or head[-1] not in (b"\r\n", b""):
                head.append(file.readline())
            if head[-1] == b"":
                return
            length = [line for line in head
                      if line.lower().startswith(b"content-length:")]
            if length:
                file.read(int(length[0].split(b":")[1]))
            target = head[0].split()[1].partition(b"?")[0]
            answer, stays = ANSWERS[target]
            if target == b"/reset":
                conn.reset()
                return
            if target == b"/slow":
                # in two parts, the second when nginx has the first
                conn.sock.sendall(OK[:20])
                conn.wait_until_delivered()
                answer = OK[20:]
            conn.sock.sendall(answer)
            if not stays:
                return


class Clients(Crowd):
    """Each thread keeps its connection for as long as it lasts."""

    def begin(self, choice):
        socks = []

        def ask(_):
            try:
                if not socks:
                    socks.append(socket.create_connection(
                        ("127.0.0.1", self.nginx.port()), timeout=10))
                status = self._ask(socks[0], choice)
            except (OSError, ValueError):
                status = 0
            if status == 0:
                for sock in socks:
                    sock.close()
                socks.clear()
            return status
        return ask

    @staticmethod
    def _ask(sock, choice):
        """One request; its status, or 0 if the connection is over."""
        target = choice.choices(list(ANSWERS), WEIGHTS)[0].decode()
        prefix = choice.choices(["", "/tls", "/short", "/direct"],
                                [60, 15, 15, 10])[0]
        method = choice.choice(["GET", "GET", "GET", "POST", "PUT"])
        body = b"body" if method != "GET" else b""
        sock.sendall(http1.request(
            method, f"{prefix}{target}?name={choice.choice('ab')}",
            body=body))
        if choice.random() < 0.02:
            return 0
        data = b""
        while b"\r\n\r\n" not in data:
            data += received(sock)
        head, _, data = data.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        lines = head.lower().split(b"\r\n")
        length = [line for line in lines
                  if line.startswith(b"content-length:")]
        if length:
            while len(data) < int(length[0].split(b":")[1]):
                data += received(sock)
        elif b"transfer-encoding: chunked" in lines:
            while not data.endswith(b"0\r\n\r\n"):
                data += received(sock)
        else:
            return 0
        return 0 if b"connection: close" in lines else status


def received(sock):
    data = sock.recv(65536)
    if not data:
        raise ValueError("nginx has closed the connection")
    return data


def restart(origin, clients):
    """All its connections end, and it refuses those of some requests."""
    origin.refuse()
    origin.cut()
    clients.wait_for(3)
    origin.listen()


def check(view):
    requests, connections = view["attempts"], view["connections"]
    assert requests["new"] == sum(requests["new_by_reason"].values())
    assert requests["total"] == (requests["reused"] + requests["warm"]
                                 + requests["new"])
    assert connections["closed"] == sum(
        connections["closed_by_reason"].values())
    assert connections["opened"] == (connections["open"]
                                     + connections["closed"])
    assert connections["opened"] == requests["new"]
    assert connections["idle"] <= connections["open"]
    assert all(0 <= count < 10 * REQUESTS for part in (
        requests["new_by_reason"], connections["closed_by_reason"],
        connections["closed_by"], view["stale_requests"],
        view["tls_handshakes"]) for count in part.values())
    assert connections["closed"] == sum(connections["closed_by"].values())
    for key in ("connect_duration_seconds", "tls_handshake_duration_seconds"):
        below = [bucket["count"] for bucket in view[key]["buckets"]]
        assert below == sorted(below) and below[-1] == view[key]["count"]
        assert view[key]["count"] <= connections["opened"]
    assert view["tls_handshake_duration_seconds"]["count"] == sum(
        view["tls_handshakes"].values())


@pytest.mark.timeout((600 if SOAK else 120) * settings.SCALE)
def test_the_sums_hold(stage):
    origins = [stage.origin(serve, name=name, tls="origin.test"
                            if name == "secure" else None) for name in NAMES]
    nginx = stage.nginx(http=HTTP, server=SERVER, workers=2)
    nginx.expect_kills()
    nginx.expect_log("epoll_wait")
    clients = Clients(nginx, REQUESTS, CLIENTS, SEED)
    clients.start()
    clients.disturb(60, 7, 11, lambda choice: restart(
        choice.choice(origins), clients))

    # what was closed by a killed worker or an origin shows a little later

    def settled():
        total = nginx.status()["total"]["connections"]
        return total["open"] == total["idle"] == established(origins)
    stage.wait_until(settled, timeout=3 * settings.PATIENCE)

    status = nginx.status()
    check(status["total"])
    for upstream in status["upstreams"]:
        for server in upstream["servers"]:
            check(server)
    total = status["total"]
    assert len(status["upstreams"]) == 3
    assert total["attempts"]["total"] >= sum(
        count for code, count in clients.statuses.items() if code == 200)
    closed = {name for name, count
              in total["connections"]["closed_by_reason"].items() if count}
    print(dict(clients.statuses), total["attempts"], total["connections"],
          total["stale_requests"])
    assert {"close", "http10", "unframed", "excess", "announced", "closed",
            "error", "crash", "shutdown", "full", "identity"} <= closed
    for pid in nginx.workers():
        assert pid > 0
