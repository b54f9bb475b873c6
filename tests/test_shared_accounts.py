"""Many workers, servers and identities: nothing is mixed up, lost or left.

Requests at random while nginx is reloaded, its workers are killed, and origins
restart, reset and close.  TEST_SOAK=1 makes it 200,000 requests.
"""

import collections
import os
import socket
import threading

import pytest

from harness import http1, settings
from harness.crowd import Crowd
from harness.workers import established
from test_accounts import check

SOAK = os.environ.get("TEST_SOAK", "") not in ("", "0")
REQUESTS = 200000 if SOAK else 4000
SERVERS = 20
IDENTITIES = 3
WORKERS = 8
CLIENTS = 6
SEED = int(os.environ.get("TEST_SEED", "20261128"))

#: What an origin does after the request, and how often.
ENDS = {"stay": 90, "close": 4, "silent-close": 3, "reset": 1, "late-reset": 2}

#: So many clients in a hundred let connections be parked before they go on.
PAUSES = 20

HTTP = "".join(f"""
    upstream s{number} {{
        server %{{s{number}}} max_fails=0;
        keepalive_timeout 3s;
    }}""" for number in range(SERVERS))

SERVER = """
    location / {
        myproxy_pass http://$arg_to;
        myproxy_bind 127.0.1.$arg_from;
        myproxy_read_timeout 5s;
    }
"""


class Served:
    """What the origins have seen."""

    def __init__(self):
        self.wrong = []
        self.executed = collections.Counter()
        self._lock = threading.Lock()

    def origin(self, name):
        """The script of the server of that name."""
        def script(conn):
            conn.sock.settimeout(None)
            try:
                peer = conn.sock.getpeername()[0].rpartition(".")[2]
            except OSError:
                # it was reset before
                return
            with conn.sock.makefile("rb") as file:
                while self._one(conn, file, name, peer):
                    pass
        return script

    def _one(self, conn, file, name, peer):
        line = file.readline()
        if not line:
            return False
        length = 0
        while True:
            field = file.readline()
            if field in (b"\r\n", b""):
                break
            if field.lower().startswith(b"content-length:"):
                length = int(field.split(b":")[1])
        if len(file.read(length)) < length:
            return False
        method, target = line.decode().split()[:2]
        asked = dict(part.split("=") for part
                     in target.partition("?")[2].split("&"))
        if (asked["to"], asked["from"]) != (name, peer):
            self.wrong.append((name, peer, target))
        if method == "POST":
            with self._lock:
                self.executed[asked["id"]] += 1
        end = asked["end"]
        if end == "reset":
            conn.reset()
            return False
        conn.sock.sendall(http1.response(
            200, *(["Connection: close"] if end == "close" else []),
            body=asked["id"].encode()))
        if end == "late-reset":
            conn.reset()
        return end == "stay"


class Clients(Crowd):
    """Each request comes on a connection of its own."""

    def __init__(self, nginx):
        super().__init__(nginx, REQUESTS, CLIENTS, SEED)
        self.wrong = []

    def begin(self, choice):
        pause = threading.Event()

        def ask(number):
            if choice.randrange(100) < PAUSES:
                pause.wait(choice.random() / 20)
            return self._ask(choice, number)
        return ask

    def _ask(self, choice, number):
        method = choice.choice(["GET", "GET", "POST"])
        end, = choice.choices(list(ENDS), list(ENDS.values()))
        target = (f"/?to=s{choice.randrange(SERVERS)}"
                  f"&from={1 + choice.randrange(IDENTITIES)}"
                  f"&id={number}&end={end}")
        # of many addresses, as ports are not free at once
        with socket.create_connection(
                ("127.0.0.1", self.nginx.port()), timeout=20,
                source_address=(f"127.2.0.{1 + number % 200}", 0)) as sock:
            sock.sendall(http1.request(
                method, target, "Connection: close",
                body=b"body" if method == "POST" else b""))
            data = b""
            while True:
                part = sock.recv(65536)
                if not part:
                    break
                data += part
        if not data:
            raise ValueError("the worker has died")
        head, _, body = data.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status == 200 and body != str(number).encode():
            self.wrong.append((target, body))
        return status


@pytest.mark.timeout((3600 if SOAK else 120) * settings.SCALE)
def test_nothing_is_mixed_up(stage):
    served = Served()
    origins = [stage.origin(served.origin(f"s{number}"), name=f"s{number}")
               for number in range(SERVERS)]
    nginx = stage.nginx(http=HTTP, server=SERVER, workers=WORKERS)
    nginx.expect_kills()
    nginx.expect_log("epoll_wait")
    before = len(os.listdir(f"/proc/{nginx.master}/fd"))
    clients = Clients(nginx)
    clients.start()
    clients.disturb(150, 5, 7, lambda choice: choice.choice(origins).cut())
    assert served.wrong == []
    assert clients.wrong == []
    twice = {number for number, count in served.executed.items() if count > 1}
    assert not twice

    # and then all that is left ends

    def settled():
        total = nginx.status()["total"]["connections"]
        return (total["open"] == total["idle"] == total["parked"]
                == established(origins) == 0)
    stage.wait_until(settled, timeout=4 * settings.PATIENCE)
    stage.wait_until(lambda: len(nginx.workers()) == WORKERS)
    # those of the places, and what the log and workers need
    stage.wait_until(
        lambda: len(os.listdir(f"/proc/{nginx.master}/fd")) <= before + 1)

    status = nginx.status()
    check(status["total"])
    for upstream in status["upstreams"]:
        for server in upstream["servers"]:
            check(server)
    total = status["total"]
    print(dict(clients.statuses), total["attempts"], total["connections"],
          total["stale_requests"])
    assert clients.statuses[200] > REQUESTS * 0.9
    assert total["connections"]["taken_over"] > REQUESTS / 50
    closed = total["connections"]["closed_by_reason"]
    assert all(closed[name] for name in ("close", "closed", "idle"))
