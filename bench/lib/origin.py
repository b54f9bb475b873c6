#!/usr/bin/env python3
"""An origin that is exact about when it closes, and counts what it executes.

It says "ready" once it listens, and at the end of its standard input prints
what happened as JSON.  A request /r/ID is executed when all of it has been
received; that alone makes it count, whether its answer arrives or not.  A line
"restart" there restarts it.
"""

import argparse
import collections
import gc
import heapq
import itertools
import json
import os
import random
import select
import selectors
import socket
import ssl
import struct
import sys
import time

import exchanges

#: Descriptors with --many.
MANY = 20000
#: A request that comes so long after the last one begins a new burst.
GAP = 0.1
INFINITE = float("inf")


class Connection:
    def __init__(self, sock, first):
        self.sock = sock
        self.received = b""
        self.handshaking = isinstance(sock, ssl.SSLSocket)
        #: When a request could be read from it.
        self.ready = None if self.handshaking else time.monotonic()
        #: "TCP", or that of TLS once the handshake is over.
        self.protocol = None if self.handshaking else "TCP"
        #: When the first one came.
        self.used = None
        #: When it is closed as idle.
        self.due = time.monotonic() + first

    def fileno(self):
        return self.sock.fileno()


class Origin:
    def __init__(self, options):
        self.options = options
        self.idle = options.idle / 1000
        self.random = random.Random(f"origin {options.seed}")
        # epoll would round the time up to a millisecond
        self.selector = selectors.SelectSelector()
        if options.many:
            exchanges.raise_descriptors(MANY)
            self.selector = selectors.EpollSelector()
        self.conns = set()
        self.opened = 0
        self.executed = collections.Counter()
        self.late = []
        self.bursts = 0
        self.restarts = 0
        self.last_request = 0
        self.listener = None
        self._timers = []
        self._order = itertools.count()
        self.journal = Journal() if options.journal else None
        self.tls = None
        if options.tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*options.tls)
            if options.tls13:
                self.tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self.answer = self._compose()

    def _compose(self):
        lines = ["HTTP/1.1 200 OK", "Content-Length: 6"]
        if self.options.announce:
            lines.append(f"Keep-Alive: timeout={self.options.announce}")
        return ("\r\n".join(lines) + "\r\n\r\nhello\n").encode()

    # the loop

    def listen(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.options.address, self.options.port))
        self.listener.listen(1024)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)

    def run(self):
        self.listen()
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            timeout = None
            if self._timers:
                timeout = max(0, self._timers[0][0] - time.monotonic())
            for key, _ in self.selector.select(timeout):
                if key.fileobj == sys.stdin.fileno():
                    if not os.read(key.fd, 100):
                        return
                    self._restart(0)
                elif key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj in self.conns:
                    self._read(key.fileobj)
                self._expire()
            self._expire()

    def at(self, due, function, *args):
        heapq.heappush(self._timers,
                       (due, next(self._order), function, args))

    def _expire(self):
        while self._timers and self._timers[0][0] <= time.monotonic():
            due, _, function, args = heapq.heappop(self._timers)
            function(due, *args)

    # connections

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            self.opened += 1
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True,
                                            do_handshake_on_connect=False)
            conn = Connection(sock, self.options.first / 1000)
            self.conns.add(conn)
            self.selector.register(conn, selectors.EVENT_READ)
            self.at(conn.due, self._close_idle, conn)

    def _close_idle(self, due, conn):
        """If it is idle still; each answer sets a timer of its own.

        As in any event loop, a request that has come is read before a timer
        is looked at.
        """
        if conn in self.conns and conn.due == due:
            self.late.append(time.monotonic() - due)
            if has_come(conn):
                self._read(conn)
            else:
                self.close(conn, reset=self.options.rst)

    def close(self, conn, reset=False):
        self.conns.discard(conn)
        self.selector.unregister(conn)
        if self.journal:
            self.journal.closed(conn)
        if reset:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                 struct.pack("ii", 1, 0))
        elif self.tls and not conn.handshaking:
            try:
                conn.sock.unwrap()      # sends close_notify; waits for none
            except (OSError, ValueError):
                pass
        conn.sock.close()

    def _read(self, conn):
        try:
            if conn.handshaking:
                conn.sock.do_handshake()
                conn.handshaking = False
                conn.ready = time.monotonic()
                # it is not known any more when the connection has ended
                conn.protocol = conn.sock.version()
                if self.journal and not conn.sock.session_reused:
                    self.journal.full_handshakes.append(conn.ready)
            data = conn.sock.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            data = b""
        if not data:
            self.close(conn)
            return
        conn.due = INFINITE             # no longer idle
        conn.received += data
        target = take_request(conn)
        if target is not None:
            self._execute(conn, target)

    # requests

    def _execute(self, conn, target):
        first = target not in self.executed
        self.executed[target] += 1
        conn.used = conn.used or time.monotonic()
        if self.journal:
            self.journal.executed(conn, target)
        self._count_bursts()
        if first and self._is_dropped(target):
            self.close(conn)
        elif self.options.service:
            self.at(time.monotonic() + self.options.service / 1000,
                    self._answer, conn)
        else:
            self._answer(0, conn)

    def _is_dropped(self, target):
        """The same requests whoever sends them, in whatever order."""
        if not self.options.drop:
            return False
        chosen = random.Random(f"{self.options.seed} {target}").random()
        return chosen < self.options.drop / 100

    def _answer(self, _, conn):
        if conn not in self.conns:
            return
        try:
            conn.sock.send(self.answer)
        except OSError:
            self.close(conn)
            return
        conn.due = time.monotonic() + self.idle
        self.at(conn.due, self._close_idle, conn)

    # restarts

    def _count_bursts(self):
        now = time.monotonic()
        begins = now - self.last_request > GAP
        self.last_request = now
        every = self.options.restart_every
        if not begins or not every:
            return
        self.bursts += 1
        if self.bursts % every == 0:
            # when the next burst is about to be sent, or on its way
            after = (self.options.restart_after
                     + self.random.uniform(-1, 1)
                     * self.options.restart_spread)
            self.at(now + after / 1000, self._restart)

    def _restart(self, _):
        self.restarts += 1
        self.selector.unregister(self.listener)
        self.listener.close()
        for conn in list(self.conns):
            self.close(conn)
        self.listen()

    def report(self):
        late = sorted(self.late)
        if self.journal:
            for conn in self.conns:
                self.journal.closed(conn)
        return {
            "executed": sorted(self.executed),
            "executed_twice": sorted(target for target, count
                                     in self.executed.items() if count > 1),
            "connections": self.opened,
            "closed_idle": len(late),
            "restarts": self.restarts,
            "late_ms": round(late[len(late) * 99 // 100] * 1000, 3)
            if late else 0,
            "journal": self.journal and vars(self.journal),
        }


class Journal:
    """When connections were ready, and which of them carried a request.

    The times are those of time.monotonic(), which is one clock for all that
    runs on a machine.
    """

    def __init__(self):
        #: {target: when the connection that it came on was ready}
        self.requests = {}
        #: [ready, first request or None, closed] of each that was ready
        self.connections = []
        #: When handshakes ended that resumed no session.
        self.full_handshakes = []
        self.protocols = {}

    def executed(self, conn, target):
        self.requests[target] = conn.ready

    def closed(self, conn):
        if conn.ready is None:
            return
        self.connections.append([conn.ready, conn.used, time.monotonic()])
        self.protocols[conn.protocol] = (
            self.protocols.get(conn.protocol, 0) + 1)


def has_come(conn):
    """Whether there is something to be read from it."""
    poll = select.poll()
    poll.register(conn, select.POLLIN)
    return bool(poll.poll(0))


def take_request(conn):
    """The target of the request that has come whole; or else None."""
    head, end, body = conn.received.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.split(b"\r\n")
    fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip().lower()
    if fields.get(b"transfer-encoding") == b"chunked":
        if not body.endswith(b"0\r\n\r\n"):
            return None
    elif len(body) < int(fields.get(b"content-length", 0)):
        return None
    conn.received = b""
    return first.split(b" ")[1].decode()


def make_parser(about):
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--idle", type=float, metavar="MS", required=True)
    parser.add_argument("--first", type=float, default=60000, metavar="MS",
                        help="how long a connection that carried no request"
                        " may be idle")
    parser.add_argument("--rst", action="store_true",
                        help="close idle connections with RST")
    parser.add_argument("--announce", type=int, default=0, metavar="S",
                        help="send Keep-Alive: timeout=S")
    parser.add_argument("--drop", type=float, default=0, metavar="PERCENT",
                        help="of the requests: executed, never answered")
    parser.add_argument("--service", type=float, default=0, metavar="MS",
                        help="from a request's end to its answer")
    parser.add_argument("--restart-every", type=int, default=0,
                        metavar="BURSTS")
    parser.add_argument("--restart-after", type=float, metavar="MS",
                        help="from the beginning of that burst")
    parser.add_argument("--restart-spread", type=float, metavar="MS")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    parser.add_argument("--tls13", action="store_true",
                        help="speak nothing older")
    parser.add_argument("--many", action="store_true",
                        help="serve more connections than select() can, and"
                        " be exact to a millisecond only")
    parser.add_argument("--journal", action="store_true",
                        help="report the times of connections")
    return parser


def main():
    origin = Origin(make_parser(__doc__).parse_args())
    gc.disable()
    origin.run()
    json.dump(origin.report(), sys.stdout)


if __name__ == "__main__":
    main()
