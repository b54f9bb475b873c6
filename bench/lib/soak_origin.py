#!/usr/bin/env python3
"""An origin of a soak: as lib/origin.py, and besides

- its answer is the request's target;
- POSTs are counted in the ledger; one that is executed twice is told at once;
- a connection is closed in such a way that a request which was in the kernel
  by then is known: the receiving side is shut too, so that what comes later is
  answered with a reset, and what came before can still be read;
- it is down for a while when it restarts, if told to;
- it echoes what is sent on an upgraded connection.
"""

import contextlib
import gc
import json
import re
import socket
import sys
import time

import ledger
import origin
from soak_notes import Notes, number_of

#: OpenSSL has read a request behind its own close_notify, and dropped it.
SWALLOWED = "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"
POST = re.compile(rb"POST (\S+) ")


class Origin(origin.Origin):
    def __init__(self, options):
        super().__init__(options)
        self.ledger = ledger.Ledger(options.ledger)
        self.notes = Notes(options.notes)
        self.served = 0
        self.most = 0

    def _accept(self):
        super()._accept()
        self.most = max(self.most, len(self.conns))

    def _read(self, conn):
        if getattr(conn, "upgraded", False):
            self._echo(conn)
            return
        super()._read(conn)

    def _echo(self, conn):
        try:
            data = conn.sock.recv(65536)
            if data:
                conn.sock.sendall(data)
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close(conn)

    # requests

    def _execute(self, conn, target):
        self.served += 1
        conn.target = target
        self._count_bursts()
        number = number_of(target)
        if number is not None:
            if self.ledger.execute(number) > 1:
                self.notes.violation(
                    f"{target} was executed twice, the second time by the "
                    f"origin {self.options.name}")
            if self._is_dropped(number):
                self.ledger.flag(number, ledger.DROPPED)
                self.close(conn)
                return
            conn.posted = number
        if self.options.service:
            self.at(time.monotonic() + self.options.service / 1000,
                    self._answer, conn)
        else:
            self._answer(0, conn)

    def _is_dropped(self, number):
        # numbers of one load are far apart
        return number * 2654435761 // 256 % 1000 < 10 * self.options.drop

    def _answer(self, _, conn):
        if conn not in self.conns:
            return
        if conn.target.startswith("/upgrade/"):
            conn.upgraded = True
            answer = (b"HTTP/1.1 101 Switching Protocols\r\n"
                      b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        else:
            body = conn.target.partition("?")[0].encode()
            answer = (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n"
                      % (len(body), self._field)) + body
        try:
            conn.sock.send(answer)
        except OSError:
            self.close(conn)
            return
        conn.posted = None
        conn.due = time.monotonic() + self.idle
        self.at(conn.due, self._close_idle, conn)

    def _compose(self):
        self._field = b""
        if self.options.announce:
            self._field = b"Keep-Alive: timeout=%d\r\n" % self.options.announce

    # connections

    def _close_idle(self, due, conn):
        if conn in self.conns and conn.due == due and not (
                getattr(conn, "upgraded", False)):
            if origin.has_come(conn):
                self._read(conn)
            else:
                self.close(conn, reset=self.options.rst)

    def close(self, conn, reset=False):
        if reset:
            super().close(conn, reset)
            return
        self.conns.discard(conn)
        self.selector.unregister(conn)
        if self.tls and not conn.handshaking:
            try:
                conn.sock.unwrap()
            except (OSError, ValueError) as error:
                if getattr(error, "reason", None) == SWALLOWED:
                    self.notes.swallowed(self.options.name)
        # without SSLSocket's own shutdown, which forgets the session
        with contextlib.suppress(OSError):
            socket.socket.shutdown(conn.sock, socket.SHUT_RDWR)
        with contextlib.suppress(OSError, ValueError):
            while data := conn.sock.recv(65536):
                conn.received += data
        found = POST.match(conn.received)
        if found and (number := number_of(found[1].decode())) is not None:
            self.ledger.flag(number, ledger.UNREAD)
        conn.sock.close()

    # restarts

    def _restart(self, _):
        if self.listener is None:
            return
        self.restarts += 1
        self._down = time.monotonic()
        self.selector.unregister(self.listener)
        self.listener.close()
        self.listener = None
        for conn in list(self.conns):
            number = getattr(conn, "posted", None)
            if number is not None:
                # it is executed and will have no answer
                self.ledger.flag(number, ledger.DROPPED)
            self.close(conn)
        self.at(time.monotonic() + self.options.down / 1000, self._return)

    def _return(self, _):
        self.listen()
        self.notes.restart(self.options.name, self._down, time.monotonic())

    def report(self):
        return {"served": self.served, "connections": self.opened,
                "most": self.most, "restarts": self.restarts}


def main():
    parser = origin.make_parser(__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--notes", required=True)
    parser.add_argument("--down", type=float, default=0, metavar="MS",
                        help="that a restart takes")
    made = Origin(parser.parse_args())
    gc.disable()
    made.run()
    json.dump(made.report(), sys.stdout)


if __name__ == "__main__":
    main()
