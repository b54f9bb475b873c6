#!/usr/bin/env python3
"""Sends a packet over the link and back every 2 ms; prints when as JSON.

Its two sockets are open already, one on each side of the link.  It stays on
one CPU, says "ready", and at the end of its input prints [[due, back], ...]:
when each packet was to be sent and when it was back, by time.monotonic().
A stall that keeps it from sending counts.  What never came back is back at
the end.
"""

import argparse
import gc
import json
import os
import select
import socket
import sys
import time

#: Seconds from one packet to the next.
EVERY = 0.002
#: Bytes; a packet is the number of its echo.
SIZE = 32


def run(near, far):
    echoes = []
    start = time.monotonic()
    while True:
        due = start + len(echoes) * EVERY
        left = due - time.monotonic()
        if left <= 0:
            near.send(str(len(echoes)).encode())
            echoes.append([due, None])
            continue
        readable, _, _ = select.select([near, far, sys.stdin], [], [], left)
        if far in readable:
            far.sendto(*far.recvfrom(SIZE))
        if near in readable:
            echoes[int(near.recv(SIZE))][1] = time.monotonic()
        if sys.stdin in readable:
            break
    end = time.monotonic()
    return [[due, back or end] for due, back in echoes]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--near", type=int, required=True, metavar="FD",
                        help="a UDP socket, connected to the other one")
    parser.add_argument("--far", type=int, required=True, metavar="FD")
    parser.add_argument("--cpu", type=int, required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, [options.cpu])
    near, far = (socket.socket(fileno=number)
                 for number in (options.near, options.far))
    gc.disable()
    print("ready", flush=True)
    json.dump(run(near, far), sys.stdout)


if __name__ == "__main__":
    main()
