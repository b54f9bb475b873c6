#!/usr/bin/env python3
"""Sends GETs at given moments; prints what became of each as JSON.

It opens its connections to the proxy, says "ready", reads the schedule as one
line of JSON, and prints {target: [moment, sent, answered, outcome]}: the
number of the moment in the schedule, two times of time.monotonic(), and a
status or what happened instead.

Connections that the proxy closes are opened again at once, so that a moment
finds all of them open; if none is idle, there will be one more.  A GET whose
connection ended before any of the response is sent once more, as browsers
do; its time goes on.

With --fresh each GET has a connection of its own, whose port is in the target,
and is sent once.
"""

import argparse
import collections
import gc
import json
import selectors
import sys
import time

from clients import PATIENCE, Client

#: Seconds after which the proxy is asked for a connection again.
AGAIN = 0.01


class Load:
    def __init__(self, address, count):
        self.address = address
        self.selector = selectors.DefaultSelector()
        #: Open ones; the one that was idle for longest comes first.
        self.idle = collections.OrderedDict()
        self.refused = []
        #: {client: its request}
        self.busy = {}
        self.found = {}
        for _ in range(count):
            self._open(Client(address))

    def _open(self, client):
        try:
            client.open()
        except OSError:
            self.refused.append(client)
            return
        self.selector.register(client, selectors.EVENT_READ)
        self.idle[client] = None

    def run(self, start, moments):
        for number, (seconds, count) in enumerate(moments):
            self._watch(start + seconds)
            for _ in range(count):
                self._request(number)
        self._watch(time.monotonic() + PATIENCE, until_quiet=True)
        for client in list(self.busy):
            self._end(client, "timeout")
        return self.found

    # requests

    def _request(self, moment):
        if not self.idle:
            self._open(Client(self.address))
        target = f"/r/{len(self.found)}"
        exchange = [moment, time.monotonic(), None, "refused"]
        self.found[target] = exchange
        if self.idle:
            client, _ = self.idle.popitem(last=False)
            self._send(client, target)

    def _send(self, client, target):
        self.busy[client] = target
        try:
            client.send("GET", target)
        except OSError:
            pass                    # reading will find out

    def _end(self, client, outcome):
        target = self.busy.pop(client)
        self.found[target][2:] = time.monotonic(), outcome

    # events

    def _watch(self, due, until_quiet=False):
        """Reads and opens until then."""
        while not until_quiet or self.busy:
            left = due - time.monotonic()
            if left <= 0:
                return
            if self.refused:
                left = min(left, AGAIN)
            for key, _ in self.selector.select(left):
                self._read(key.fileobj, key.fd)
            again, self.refused = self.refused, []
            for client in again:
                self._open(client)

    def _read(self, client, number):
        outcome = client.read()
        if client not in self.busy:             # it was idle
            outcome = outcome or "more than the response"
            self.idle.pop(client, None)
        elif outcome is None:
            return
        elif outcome == "closed" and not client.received:
            self._repeat(client, number)
            return
        else:
            self._end(client, outcome)
        if client.sock is None:
            self.selector.unregister(number)
            self._open(client)
        else:
            self.idle[client] = None

    def _repeat(self, client, number):
        """Sends the request on another connection, if it was the first."""
        target = self.busy.pop(client)
        exchange = self.found[target]
        self.selector.unregister(number)
        self._open(client)
        if exchange[3] == "repeated" or client not in self.idle:
            exchange[2:] = time.monotonic(), "closed"
            return
        exchange[3] = "repeated"
        del self.idle[client]
        self._send(client, target)


class FreshLoad(Load):
    def __init__(self, address):
        super().__init__(address, 0)

    def _request(self, moment):
        client, port = Client(self.address), 0
        exchange = [moment, time.monotonic(), None, "refused"]
        try:
            client.open()
            port = client.sock.getsockname()[1]
        except OSError:
            pass
        target = f"/r/{len(self.found)}/{port}"
        self.found[target] = exchange
        if port:
            self.selector.register(client, selectors.EVENT_READ)
            self._send(client, target)

    def _read(self, client, number):
        outcome = client.read()
        if outcome is not None:
            self._end(client, outcome)
            self.selector.unregister(number)
            client.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--clients", type=int)
    chosen.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    address = options.address, options.port
    load = (FreshLoad(address) if options.fresh
            else Load(address, options.clients))
    gc.disable()
    print("ready", flush=True)
    schedule = json.loads(sys.stdin.readline())
    json.dump(load.run(**schedule), sys.stdout)


if __name__ == "__main__":
    main()
