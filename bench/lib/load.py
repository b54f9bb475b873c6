#!/usr/bin/env python3
"""Sends bursts of POSTs that start together; prints what came back as JSON.

Each of the connections to the proxy is kept as long as the proxy keeps it.
A request is sent once: what is not answered, or not with 2xx, has failed.
"""

import argparse
import collections
import gc
import json
import random
import selectors
import sys
import time

from clients import PATIENCE, Client

BODY = b"x" * 200
#: Bursts that a proxy may take to learn.
FIRST_BURSTS = 5


def burst(clients, targets):
    """{target: outcome} of requests that are sent at once."""
    outcomes = {}
    with selectors.DefaultSelector() as selector:
        for client in clients:
            client.open()
        for client, target in zip(clients, targets):
            try:
                client.send("POST", target, BODY)
            except OSError:
                outcomes[target] = "closed"
                client.close()
                continue
            selector.register(client, selectors.EVENT_READ, target)
        deadline = time.monotonic() + PATIENCE
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            for key, _ in selector.select(left):
                outcome = key.fileobj.read()
                if outcome is not None:
                    outcomes[key.data] = outcome
                    selector.unregister(key.fd)
        for key in list(selector.get_map().values()):
            outcomes[key.data] = "timeout"
            selector.unregister(key.fd)
            key.fileobj.close()
    return outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--burst", type=int, default=30)
    parser.add_argument("--wait", type=float, required=True, metavar="MS",
                        help="from the end of a burst to the next one")
    parser.add_argument("--spread", type=float, required=True, metavar="MS",
                        help="that it is longer or shorter, at random")
    parser.add_argument("--short", type=float, default=0, metavar="PERCENT",
                        help="of the bursts come after a third of the wait")
    parser.add_argument("--seed", default="1")
    options = parser.parse_args()

    chance = random.Random(f"load {options.seed}")
    short = random.Random(f"short {options.seed}")
    clients = [Client((options.address, options.port))
               for _ in range(options.burst)]
    outcomes = collections.Counter()
    failed, failed_later, sent, bursts = [], 0, 0, 0
    gc.disable()

    while sent < options.requests:
        count = min(options.burst, options.requests - sent)
        targets = [f"/r/{sent + number}" for number in range(count)]
        found = burst(clients, targets)
        for target, outcome in found.items():
            outcomes[outcome] += 1
            if not outcome.startswith("2"):
                failed.append(target)
                failed_later += bursts >= FIRST_BURSTS
        sent += count
        bursts += 1
        wait = options.wait + chance.uniform(-1, 1) * options.spread
        if short.random() < options.short / 100:
            wait = options.wait / 3
        time.sleep(wait / 1000)

    json.dump({"requests": sent, "outcomes": outcomes, "failed": failed,
               "failed_later": failed_later}, sys.stdout)


if __name__ == "__main__":
    main()
