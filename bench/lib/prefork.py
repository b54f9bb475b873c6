#!/usr/bin/env python3
"""An origin with one process for each connection, and so many of them.

It says "ready" once it listens, and at the end of its standard input prints
how many requests it has served, and the most connections that there were at a
time.  Those that no process has accepted so far are among them.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time

ESTABLISHED = "01"
#: Seconds from one look at the connections to the next.
LOOK = 0.002
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"


def serve(listener, delay, served):
    """One connection after the other, for ever."""
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock, contextlib.suppress(OSError):
            received = b""
            while True:
                data = sock.recv(65536)
                if not data:
                    break
                received += data
                while b"\r\n\r\n" in received:
                    received = received.partition(b"\r\n\r\n")[2]
                    time.sleep(delay)
                    os.write(served, b"1")
                    sock.sendall(ANSWER)


class Watch:
    """How many connections to a port there are, as the kernel knows."""

    def __init__(self, port):
        self.most = 0
        self.over = False
        self._suffix = f":{port:04X}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self.over:
            self.most = max(self.most, self._count())
            time.sleep(LOOK)

    def _count(self):
        with open("/proc/net/tcp", encoding="ascii") as file:
            lines = [line.split() for line in file.readlines()[1:]]
        return sum(fields[1].endswith(self._suffix)
                   and fields[3] == ESTABLISHED for fields in lines)

    def stop(self):
        self.over = True
        self._thread.join()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--delay", type=float, required=True,
                        help="milliseconds that a request takes")
    options = parser.parse_args()

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    listener.listen(1024)
    read, write = os.pipe()
    children = []
    for _ in range(options.slots):
        child = os.fork()
        if child == 0:
            os.close(read)
            serve(listener, options.delay / 1000, write)
        children.append(child)
    os.close(write)
    served = []
    counter = threading.Thread(target=lambda: served.extend(
        len(data) for data in iter(lambda: os.read(read, 65536), b"")))
    counter.start()
    watch = Watch(options.port)
    print("ready", flush=True)
    sys.stdin.read()
    watch.stop()
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    counter.join()
    print(json.dumps({"served": sum(served), "most": watch.most}))


if __name__ == "__main__":
    main()
