"""What it takes to pass a connection on: the part `cpu` of bench/workers.

Two workers have so many clients each, whose requests come together.  If the
workers take turns, their requests find connections with the one that had the
last ones.  Besides, requests come one at a time, each on a client connection
of its own, as in the other parts.
"""

import contextlib
import os
import shutil
import statistics
import subprocess
import time

import counted
import exchanges
import loaded
import processes
import scene
from scene import proxies

WORKERS = 2
#: Seconds between two batches, in which a connection is offered to others.
PAUSE = 0.025
#: Clients of a worker: fewer than the connections that it keeps.
BATCH = 16
#: Requests before anything is measured.
WARM = 2 * WORKERS * BATCH
#: Clients after which each worker must have as many.
TRIES = 40 * BATCH

#: Requests of which instructions are counted, and three times as many.
COUNTED = 10 * BATCH

#: [(name, contender, how many workers take turns, what it is, the name of
#: what it is compared with)]; 0: whichever worker accepts a client has it
KINDS = (
    ("kept", "ours-alone", 1, "one worker has all, reuse_share off", "kept"),
    ("same", "ours", 1, "one worker has all", "kept"),
    ("apart", "ours-alone", 2, "workers take turns, reuse_share off",
     "apart"),
    ("other", "ours", 2, "workers take turns", "apart"),
    ("single", "ours-alone", 0, "one at a time, reuse_share off", "single"),
    ("moved", "ours", 0, "one at a time", "single"),
)

COLUMNS = {
    "requests of two workers": "about",
    "requests": "requests",
    "passed on": "passed",
    "CPU, µs": "cpu_us",
    "±": "cpu_us_error",
    "of reuse_share off": "ratio",
    "instructions": "instructions",
    "of those": "instructions_ratio",
}


class Lane:
    """An nginx with two workers, and clients of each."""

    def __init__(self, contender, stack, tool=()):
        self.directory = stack.enter_context(proxies.scratch())
        if tool:
            contender = counted.under_valgrind(contender, tool,
                                               self.directory)
        self.origin = stack.enter_context(exchanges.Origin())
        port = stack.enter_context(scene.held_port())
        self.proxy = scene.Proxy(
            scene.Loopback("taskset", "-c", str(loaded.cores()[0])),
            contender, proxies.Setting(
                self.directory, self.origin.addresses[0], None,
                workers=WORKERS, port=port, spread=True, clients=BATCH))
        stack.callback(self.proxy.stop)
        self._port = port
        self._clients = {}              #: {worker: its clients}
        self._find_clients(port, stack)

    def _find_clients(self, port, stack):
        for _ in range(TRIES):
            client = exchanges.Client(port)
            stack.callback(client.close)
            client.play(exchanges.request("GET"), 1)
            for pid in processes.of(self.proxy.pid):
                own = self._clients.setdefault(pid, [])
                if (len(own) < BATCH
                        and client.own_port in processes.clients(pid, port)):
                    own.append(client)
            if all(len(own) == BATCH for own in self._clients.values()):
                return
        raise scene.Failure("one worker has nearly all clients")

    @property
    def workers(self):
        return list(self._clients)

    def play(self, count, turns):
        """(CPU time for a request in µs, requests on connections that another
        worker had just used)
        """
        if not turns:
            return self._play_single(count), None
        clients = list(self._clients.values())[:turns]
        text = exchanges.request("GET")
        first = len(self.origin.carriers)
        before = loaded.cpu_ns(self.proxy.pid)
        for number in range(count // BATCH):
            for client in clients[number % turns]:
                client.send(text)
            for client in clients[number % turns]:
                client.read()
            time.sleep(PAUSE)
        taken = loaded.cpu_ns(self.proxy.pid) - before
        self.proxy.check()
        passed = 0
        if turns > 1:
            passed = repeated(self.origin.carriers[first:])
        return taken / 1000 / count, passed

    def _play_single(self, count):
        text = exchanges.request("GET")
        before = loaded.cpu_ns(self.proxy.pid)
        for _ in range(count):
            client = exchanges.Client(self._port)
            client.play(text, 1)
            client.close()
            time.sleep(PAUSE)
        taken = loaded.cpu_ns(self.proxy.pid) - before
        self.proxy.check()
        return taken / 1000 / count


def repeated(carriers):
    """Of the requests, those on a connection of the batch before."""
    batches = [carriers[begin:begin + BATCH]
               for begin in range(0, len(carriers), BATCH)]
    return sum(carrier in before for before, batch
               in zip(batches, batches[1:]) for carrier in batch)


def measure(contenders, rounds, count, notes):
    """The rows; contenders are those that nginx knows all directives of."""
    able = {contender.name: contender for contender in contenders}
    if "ours-alone" not in able:
        notes.append("cpu: this build has no reuse_share, so connections are "
                     "kept by their workers in all rows.")
    cpus = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        lanes = {name: Lane(contender, stack)
                 for name, contender in able.items()}
        # what measures stays away from the proxy's core
        os.sched_setaffinity(0, {loaded.cores()[1]})
        stack.callback(os.sched_setaffinity, 0, cpus)
        found = {name: [] for name, *_ in KINDS}
        for number in range(rounds):
            for name, contender, turns, *_ in (KINDS if number % 2 == 0
                                               else KINDS[::-1]):
                lane = lanes.get(contender) or lanes["ours"]
                lane.play(WARM, turns)
                found[name].append(lane.play(
                    count if turns else count // BATCH, turns))
    instructions = dict.fromkeys(found)
    if shutil.which("valgrind") is None:
        notes.append("cpu: instructions take valgrind.")
    else:
        for name, contender, turns, *_ in KINDS:
            if not turns:
                continue
            try:
                instructions[name] = count_instructions(
                    able.get(contender) or able["ours"], turns, COUNTED)
            except (scene.Failure, OSError,
                    subprocess.SubprocessError) as error:
                notes.append(f"cpu, instructions, {name}: {error}")
    return [row(kind, found,
                rounds * (count if kind[2] else count // BATCH), instructions)
            for kind in KINDS]


def count_instructions(contender, turns, count):
    """Of both workers, for a request, without the kernel's."""
    with contextlib.ExitStack() as stack:
        # only then can workers be told what to do
        lane = Lane(contender, stack,
                    (*counted.CALLGRIND, "--trace-children=yes"))
        lane.play(WARM, turns)
        for pid in lane.workers:
            counted.tell_valgrind(lane.directory, pid, "instrumentation",
                                  "on")
        for requests in (count, counted.TIMES * count):
            lane.play(requests, turns)
            for pid in lane.workers:
                counted.tell_valgrind(lane.directory, pid, "dump")
        few, many = (
            sum(counted.total(counted.dump(lane.directory, pid, number))
                for pid in lane.workers) for number in (1, 2))
        return (many - few) / ((counted.TIMES - 1) * count)


def row(kind, found, requests, instructions):
    """Medians of the rounds, and of their ratios to the other kind's."""
    name, _, turns, about, other = kind
    costs = [cost for cost, _ in found[name]]
    ratios = [cost / base for cost, (base, _) in zip(costs, found[other])]
    return {
        "name": name, "about": about, "requests": requests,
        "passed": (sum(passed for _, passed in found[name]) if turns
                   else "-"),
        "cpu_us": round(statistics.median(costs), 1),
        "cpu_us_error": round(loaded.error_of(costs), 1),
        "cpu_us_rounds": [round(cost, 2) for cost in costs],
        "ratio": round(statistics.median(ratios), 3),
        **of_instructions(instructions[name], instructions[other]),
    }


def of_instructions(value, other):
    if value is None or other is None:
        return {"instructions": "-", "instructions_ratio": "-"}
    return {"instructions": round(value),
            "instructions_ratio": round(value / other, 3)}
