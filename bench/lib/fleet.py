#!/usr/bin/env python3
"""A fleet of servers behind one address, as behind a balancer of TCP.

Each connection is given to one server, by --balancer, and stays with it.  All
servers are this process: what counts is which of them a connection belongs
to.  It says "ready"; the line "double" at its input has as many servers again
stand behind the address.  At the end of the input it prints what happened as
JSON: the time at which it doubled, for each request when it came and to which
server, and when connections ended.
"""

import argparse
import asyncio
import json
import random
import sys
import time

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Fleet:
    def __init__(self, options):
        self._options = options
        self._chance = random.Random(options.seed)
        self._open = [0] * options.servers
        self.doubled = None
        self.requests = []
        self.connections = 0
        self.ends = []

    def double(self):
        self.doubled = time.monotonic()
        self._open += [0] * len(self._open)

    def _choose(self):
        servers = range(len(self._open))
        if self._options.balancer == "least":
            least = min(self._open)
            servers = [number for number in servers
                       if self._open[number] == least]
        return self._chance.choice(servers)

    async def serve(self, reader, writer):
        server = self._choose()
        self._open[server] += 1
        self.connections += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests.append([time.monotonic(), server])
                await asyncio.sleep(self._options.takes / 1000)
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open[server] -= 1
            self.ends.append(time.monotonic())
            writer.close()


async def play(options):
    fleet = Fleet(options)
    server = await asyncio.start_server(fleet.serve, options.address,
                                        options.port, backlog=1024)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        fleet.double()
    server.close()
    json.dump({"doubled": fleet.doubled, "requests": fleet.requests,
               "connections": fleet.connections, "ends": fleet.ends},
              sys.stdout)
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--balancer", choices=("least", "random"),
                        default="least")
    parser.add_argument("--takes", type=float, default=100, metavar="MS")
    parser.add_argument("--seed", default="0")
    asyncio.run(play(parser.parse_args()))


if __name__ == "__main__":
    main()
