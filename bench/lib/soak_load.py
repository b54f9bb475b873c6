#!/usr/bin/env python3
"""A load of a soak: bursts of requests that start together, each request once.

It says "ready" and begins, stops when the ledger says so, and prints what came
back as JSON.  What failed is noted while it runs.  A response of success must
be that to the request, which has then been executed once.
"""

import argparse
import collections
import gc
import itertools
import json
import random
import socket
import struct
import sys
import time

import clients
import ledger
import load
from soak_notes import Notes

#: How many requests a client sends on one connection, at most.
KEPT = 20
#: Seconds without an answer.
PATIENCE = 60
#: Bytes of a body, and how often.
LEAST = 200
BODIES = {LEAST: 94, 20000: 5, 100000: 1}
SMALL = {LEAST: 1}
ECHO = b"some bytes that come back"


class Client(clients.Client):
    """Its connections are kept for a while, but not over a reload."""

    method = "POST"

    def __init__(self, address, source, book, chance):
        super().__init__(address, source)
        self._book = book
        self._chance = chance
        self._left = 0
        self._epoch = None
        self.bodies = BODIES
        self.size = 0
        self.name = None

    def open(self):
        if (self._left <= 0 or self._book.reloading
                or self._epoch != self._book.epoch):
            self.close()
        had = self.sock
        epoch = self._book.epoch
        super().open()
        if self.sock is not had:
            self._epoch = epoch
            self._left = self._chance.randrange(1, KEPT + 1)
            self.name = list(self.sock.getsockname())
            # no port is to wait after its end
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                 struct.pack("ii", 1, 0))
        self._left -= 1

    def send(self, method, target, body=b""):
        if self.method == "POST":
            self.size, = self._chance.choices(list(self.bodies),
                                              self.bodies.values())
        super().send(self.method, target, self.size * b"x")

    @property
    def head(self):
        return self.received.partition(b"\r\n\r\n")[0].decode("latin-1")

    def field(self, name):
        for line in self.head.splitlines():
            if line.lower().startswith(name + ":"):
                return line.partition(":")[2].strip()
        return None

    def is_answer_to(self, target):
        body = self.received.partition(b"\r\n\r\n")[2]
        return body == target.partition("?")[0].encode()


class Getter(Client):
    method = "GET"


class Upgrader(Client):
    """Sends some bytes on an upgraded connection and gets them back."""

    def open(self):
        self.close()
        super().open()

    def send(self, method, target, body=b""):
        self.received = b""
        self.sock.sendall(
            f"GET {target} HTTP/1.1\r\nHost: origin.test\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())

    def read(self):
        before = self.received
        if not before.startswith(b"HTTP/1.1 101"):
            outcome = super().read()
            if outcome is None and self._is_upgraded() and not (
                    self._is_upgraded(before)):
                self.sock.sendall(ECHO)
            return outcome
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b""
        self.received += data
        if self.received.endswith(ECHO):
            self.close()
            return "200"
        if not data:
            self.close()
            return "closed"
        return None

    def _is_upgraded(self, data=None):
        data = self.received if data is None else data
        return data.startswith(b"HTTP/1.1 101") and b"\r\n\r\n" in data

    def is_answer_to(self, _):
        return True


KINDS = {"post": Client, "get": Getter, "upgrade": Upgrader}


class Load:
    def __init__(self, options):
        self._options = options
        self._book = ledger.Ledger(options.ledger)
        self._notes = Notes(options.notes)
        self._chance = random.Random(f"{options.seed} {options.number}")
        self._outcomes = collections.Counter()
        self._numbers = itertools.count(options.number, options.loads)
        self._clients = [
            KINDS[options.kind](
                ("127.0.0.1", options.port),
                (f"127.4.{options.number}.{1 + which}", 0), self._book,
                self._chance)
            for which in range(options.burst)]
        if options.small:
            for client in self._clients:
                client.bodies = SMALL

    def _target(self):
        number = next(self._numbers)
        if self._options.kind == "post":
            return f"/{self._options.mode}/{number}"
        some = self._chance.randrange(200)
        return f"/{self._options.mode}/k{some}?{number}"

    def run(self):
        total = 0
        while not self._book.stopped:
            targets = [self._target() for _ in self._clients]
            sent = time.monotonic()
            found = load.burst(self._clients, targets)
            got = time.monotonic()
            for client, target in zip(self._clients, targets):
                self._account(client, target, found[target], sent, got)
            total += len(targets)
            self._book.set_tally(self._options.number, total)
            wait = self._options.wait + (self._chance.uniform(-1, 1)
                                         * self._options.spread)
            if self._chance.random() < self._options.short / 100:
                wait /= 3
            if wait > 0:
                time.sleep(wait / 1000)
        return {"requests": total, "outcomes": self._outcomes}

    def _account(self, client, target, outcome, sent, got):
        self._outcomes[outcome] += 1
        number = None
        if self._options.kind == "post":
            number = int(target.rpartition("/")[2])
        if not outcome.startswith("2"):
            self._notes.failure(
                mode=self._options.mode, target=target, number=number,
                outcome=outcome, sent=sent, got=got, client=client.name,
                size=client.size,
                refused=client.field("retry-after") is not None,
                fate=client.field("x-fate"), head=client.head)
            return
        if not client.is_answer_to(target):
            self._notes.violation(
                f"{target} was answered with {client.received[:500]}")
        if number is not None and self._book.executions(number) != 1:
            self._notes.violation(
                f"{target} was answered {outcome}, and has been executed "
                f"{self._book.executions(number)} times: {client.head}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--kind", choices=KINDS, default="post")
    parser.add_argument("--number", type=int, required=True,
                        help="of this load")
    parser.add_argument("--loads", type=int, required=True)
    parser.add_argument("--burst", type=int, required=True)
    parser.add_argument("--wait", type=float, required=True, metavar="MS")
    parser.add_argument("--spread", type=float, default=0, metavar="MS")
    parser.add_argument("--short", type=float, default=0, metavar="PERCENT",
                        help="of the bursts come after a third of the wait")
    parser.add_argument("--small", action="store_true",
                        help="send nothing that takes more than a packet")
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--notes", required=True)
    parser.add_argument("--seed", required=True)
    options = parser.parse_args()
    load.PATIENCE = PATIENCE
    made = Load(options)
    gc.disable()
    print("ready", flush=True)
    json.dump(made.run(), sys.stdout)


if __name__ == "__main__":
    main()
