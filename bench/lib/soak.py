"""What `tools/soak` runs, see bench/README.md."""

import argparse
import collections
import contextlib
import http.client
import json
import os
import pathlib
import random
import re
import signal
import statistics
import sys
import tempfile
import time

import exchanges
import ledger
import processes
import scene
import soak_load
import soak_modes
from scene import Failure, links
from soak_notes import Reader

from harness import settings
from harness.dns import NameServer
from harness.exchange import Exchange
from harness.nginx import FORBIDDEN, Nginx

WORKERS = 8
#: Descriptors that a process may have.
DESCRIPTORS = 20000
CONNECTIONS = 4096
#: Seconds between two looks at what is counted, at memory and descriptors.
LOOK = 1
#: Seconds after which all is known of a request that has failed.
KNOWN = 1.5
#: Seconds that the end of a killed worker's connections may take to be seen.
LATE = 1
#: And those after which nobody asks for them.
FORGOTTEN = 300
#: Mean seconds between two of these.
KILL, RELOAD, RESTART = 4, 15, 3
#: By how much memory may have grown, of itself and bytes.
SHARE, SPARE = 0.2, 2 << 20
#: Samples without which memory tells nothing.
SAMPLES = 60
#: Where files are in memory, and how many bytes a ledger may take there.
SHARED, ROOM = "/dev/shm", 1 << 30
#: Seconds from one line about how far it is to the next.
TELL = 60
#: What nginx says when a write, not a read, has found a connection ended.
#: The write takes the socket's error, which the proof would need.
WRITING = re.compile("the request may have been received.* while sending")
UNREAD = "received, and closed by the origin unread"
#: Lines of the log that are shown of a run which stops.
SHOWN = 12


class Violation(Exception):
    """What must not be."""


class Soak:
    def __init__(self, options, directory, stack):
        self.options = options
        self.directory = directory
        self.stack = stack
        self.chance = random.Random(f"soak {options.seed}")
        self.modes = soak_modes.MODES
        self.book = ledger.Ledger(directory / "ledger", create=True)
        self.readers, self.loads = [], []
        self.origins = {}
        self.restarted = collections.defaultdict(list)
        self.swallowed = collections.defaultdict(list)
        self.killed = {}
        self.events = collections.deque(maxlen=SHOWN)
        self.failures = collections.deque()
        self.causes = collections.Counter()
        self.counts = collections.Counter()
        self.samples = []
        self.log = collections.deque(maxlen=300000)
        self.link = None
        self.nginx = None
        self.loads_ended = []
        self.status = None
        self.descriptors = None
        self.most_descriptors = 0
        self.started = time.monotonic()
        self.tell = self.started + TELL

    # the actors

    def _note_file(self, name):
        path = self.directory / f"{name}.notes"
        self.readers.append(Reader(path))
        return ["--ledger", str(self.directory / "ledger"),
                "--notes", str(path)]

    def start(self):
        self.link = scene.Loopback()
        if links.missing() is None:
            self.link = links.Link(self.options.rtt / 2)
            self.stack.callback(self.link.close)
            scene.hurry(self.link.pid, 3)
        authority, pair = scene.make_certificates(self.directory)
        names = {}
        for number, mode in enumerate(self.modes):
            for which in range(mode.servers):
                name = mode.name + (f"{which + 1}" if which else "")
                names[name] = self._start_origin(
                    name, mode, 8000 + 10 * number + which, pair)
        names["dns"] = self._start_dns()
        names["variable_port"] = names["variable"].rpartition(":")[2]
        self._start_nginx(names, authority)
        self._start_loads()
        self.started = time.monotonic()

    @property
    def is_far(self):
        return isinstance(self.link, links.Link)

    def _start_origin(self, name, mode, port, pair):
        far = self.is_far and not mode.near
        address = self.link.b_address if far else "127.0.0.1"
        words = [*self.link.enter("b" if far else "a"), sys.executable,
                 str(scene.HERE / "soak_origin.py"), "--many",
                 "--address", address, "--port", str(port),
                 "--name", name, "--seed", f"{self.options.seed} {name}",
                 *map(str, mode.origin_words(self.options.rtt)),
                 *self._note_file(f"origin-{name}")]
        if mode.tls:
            words += ["--tls", *pair]
        self.origins[name] = scene.Process(words, priority=0)
        self.stack.callback(self._end, self.origins[name])
        return f"{address}:{port}"

    def _start_dns(self):
        made = []

        def start():
            made.append(NameServer(Exchange(), {
                f"{name}.soak.test": ["127.0.0.1"] for name in "ab"}, ttl=2))

        def near(function):
            if self.is_far:
                links.run_in(self.link.namespace("a"), function)
            else:
                function()
        near(start)
        self.stack.callback(near, made[0].close)
        return made[0]

    def _start_nginx(self, names, authority):
        self.nginx = Nginx(
            Exchange(), names, {
                "http": soak_modes.http(authority),
                "server": soak_modes.server(), "workers": WORKERS,
                "log_level": "info", "connections": CONNECTIONS,
                # old workers are to end by themselves
                "shutdown": "10m"},
            self.link if self.is_far else None)
        self.stack.callback(self.nginx.close)
        self.nginx.expect_kills()
        self.nginx.expect_log("epoll_wait|ignore long locked inactive cache")
        self.nginx.start()
        self._wait(lambda: len(self.workers(True)) == WORKERS,
                   "nginx's workers do not start")
        self.most_descriptors = self._most_descriptors()
        self.descriptors = (self._descriptors(self.nginx.master),
                            self.most_descriptors)

    def _start_loads(self):
        words = []
        for mode in self.modes:
            words += [(mode, mode.load_words(self.options.rtt))] * mode.loads
        for number, (mode, more) in enumerate(words):
            load = scene.Process(
                [sys.executable, str(scene.HERE / "soak_load.py"),
                 "--port", str(self.nginx.port()), "--mode", mode.name,
                 "--number", str(number), "--loads", str(len(words)),
                 "--seed", self.options.seed, *map(str, more),
                 *self._note_file(f"load-{number}")], priority=0)
            self.stack.callback(self._end, load)
            self.loads.append((mode, load))

    @staticmethod
    def _end(process):
        with contextlib.suppress(OSError):
            process.kill()

    # what happens

    def run(self):
        due = {}
        turns = {self.kill: KILL, self.reload: RELOAD, self.restart: RESTART,
                 self.look: None}
        now = time.monotonic()
        for number, turn in enumerate(turns):
            due[turn] = now + 1 + number / 4
        while not self.is_over():
            turn = min(due, key=due.get)
            left = due[turn] - time.monotonic()
            if left > 0:
                time.sleep(min(left, 0.1))
                self.read_notes()
                continue
            turn()
            mean = turns[turn]
            due[turn] = time.monotonic() + (
                LOOK if mean is None
                else self.chance.uniform(0.2, 1.8) * mean)

    def is_over(self):
        if self.options.posts:
            return self.posts() >= self.options.posts
        return (time.monotonic() - self.started
                >= 3600 * self.options.hours)

    def posts(self):
        return sum(self.book.tally(number)
                   for number, (mode, _) in enumerate(self.loads)
                   if mode.kind == "post")

    def kill(self):
        """A worker is stopped, so that what it has in hand is known."""
        victim = self.chance.choice(self.workers())
        try:
            self.nginx.pause_worker(victim)
        except (AssertionError, OSError):
            return                      # it has just ended
        begin = time.monotonic()
        clients = processes.peers(victim, self.nginx.port())
        with contextlib.suppress(AssertionError, OSError):
            self.nginx.kill_worker(victim)
        for other, times in list(self.killed.items()):
            if times[-1][1] < begin - FORGOTTEN:
                del self.killed[other]
        for other in clients:
            self.killed.setdefault(other, []).append(
                (begin, time.monotonic()))
        self.counts["kills"] += 1
        self.events.append((f"kill of {victim}", begin, time.monotonic()))
        self._wait(lambda: victim not in self.workers()
                   and len(self.workers(True)) == WORKERS,
                   "a worker that was killed is not replaced")

    def workers(self, new=False):
        """Without those of the cache; only those that accept, if new."""
        made = []
        for pid in self.nginx.workers():
            with contextlib.suppress(OSError):
                title = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"worker process" in title and not (
                        new and b"shutting down" in title):
                    made.append(pid)
        return made

    def reload(self):
        """Clients give up their kept connections before."""
        self.book.reloading = True
        time.sleep(0.3 * settings.SCALE)
        begin = time.monotonic()
        old = set(self.workers(True))
        self.nginx.apply_config()
        self._wait(lambda: not old & set(self.workers(True))
                   and len(self.workers(True)) == WORKERS,
                   "a reload does not replace the workers")
        self.book.epoch += 1
        self.book.reloading = False
        self.counts["reloads"] += 1
        self.events.append(("reload", begin, time.monotonic()))

    def restart(self):
        self.origins[self.chance.choice(list(self.origins))].tell("restart")

    def _wait(self, condition, what, seconds=None):
        deadline = time.monotonic() + (seconds or settings.PATIENCE)
        while not condition():
            if time.monotonic() > deadline:
                raise Violation(what)
            time.sleep(0.05)
            self.read_notes()

    # what is looked at

    def read_notes(self):
        for reader in self.readers:
            for note in reader.read():
                kind = note.pop("kind")
                if kind == "violation":
                    raise Violation(note["text"])
                if kind == "restart":
                    self.restarted[note["name"]].append(
                        (note["begin"], note["end"]))
                    self.counts["restarts"] += 1
                elif kind == "swallowed":
                    self.swallowed[note["name"]].append(note["at"])
                else:
                    self.failures.append((time.monotonic() + KNOWN, note))
        while self.failures and self.failures[0][0] <= time.monotonic():
            self.account(self.failures.popleft()[1])

    def account(self, failure):
        cause = self.cause(failure)
        if cause is None:
            number = failure["number"]
            executed = ("" if number is None else ", executed "
                        f"{self.book.executions(number)} times")
            raise Violation(
                f"{failure['target']} failed without a cause{executed}: "
                f"{failure}")
        self.causes[failure["mode"], cause] += 1

    def cause(self, failure):
        """Why a request has failed, if it may have for that; or None."""
        number, mode = failure["number"], failure["mode"]
        if failure["outcome"] == "closed":
            if self._was_killed(failure):
                return "the worker was killed"
            if mode == "upgrade" and self._was_down(failure):
                return "the origin restarted"
            return None
        executed = number is not None and self.book.executions(number)
        if failure["outcome"] == "503" and failure["refused"]:
            return None if executed else "refused by the limit"
        if failure["outcome"] not in ("502", "504"):
            return None
        if number is not None:
            if self.book.has(number, ledger.DROPPED):
                return "executed, and the origin ended the connection"
            if executed:
                return None
            if self.book.has(number, ledger.UNREAD):
                return UNREAD
            if self._was_swallowed(failure):
                return UNREAD
        if self._was_down(failure):
            return "the origin restarted"
        if mode == "rst":
            return "reset by the origin, and nothing was proven"
        if failure["size"] > soak_load.LEAST and self._met_end(failure):
            return "a write of the body met the end, and nothing was proven"
        return None

    def _met_end(self, failure):
        self.read_log()
        return any(WRITING.search(line) and f"{failure['target']} " in line
                   for line in self.log)

    def _was_killed(self, failure):
        # its connection was not opened yet if it has no name
        times = self.killed.get(tuple(failure["client"] or ()), ())
        return any(begin <= failure["got"] and end + LATE >= failure["sent"]
                   for begin, end in times)

    def _was_swallowed(self, failure):
        """Each time is good for one request."""
        moments = self.swallowed[failure["mode"]]
        for moment in moments:
            if failure["sent"] <= moment <= failure["got"]:
                moments.remove(moment)
                return True
        return False

    def _was_down(self, failure):
        begin, end = failure["sent"], failure["got"]
        late = self.options.rtt / 1000
        return any(down <= end and up + late >= begin
                   for name, times in self.restarted.items()
                   if name.rstrip("2") == failure["mode"]
                   for down, up in times)

    def look(self):
        self.read_log()
        self.sums(self.fetch())
        now = time.monotonic()
        own = []
        for pid in self.workers():
            count = self._descriptors(pid)
            self.most_descriptors = max(self.most_descriptors, count)
            own.append(processes.own_memory(pid))
            if count > self.descriptors[1] + CONNECTIONS:
                raise Violation(f"worker {pid} has {count} descriptors")
        if now >= self.tell:
            self.tell = now + TELL
            print(f"{now - self.started:.0f} s: {self.posts()} POSTs, "
                  f"{sum(self.causes.values())} failed; "
                  + ", ".join(f"{count} {name}" for name, count
                              in self.counts.items()), flush=True)
        zone = self.status["zone"]
        self.samples.append({
            "at": round(now - self.started, 1),
            "worker_kb": statistics.median(own or [0]),
            "worker_most_kb": max(own or [0]),
            "master_kb": processes.own_memory(self.nginx.master),
            "master_descriptors": self._descriptors(self.nginx.master),
            "zone": zone["size_bytes"] - zone["free_bytes"]})
        if zone["full"] or zone["uncounted_requests"]:
            raise Violation(f"the zone is full: {zone}")
        for mode, load in self.loads:
            if load.ended():
                raise Violation(f"a load of {mode.name} has ended")
        for name, origin in self.origins.items():
            if origin.ended():
                raise Violation(f"the origin {name} has ended")

    def read_log(self):
        lines = self.nginx.forget_log()
        self.log.extend(lines)
        for line in lines:
            if FORBIDDEN.search(line) and not any(
                    re.search(pattern, line)
                    for pattern in self.nginx.expected):
                raise Violation(f"in nginx's log: {line}")

    def fetch(self):
        """What reuse_status says."""
        deadline = time.monotonic() + settings.PATIENCE
        while True:
            try:
                connection = http.client.HTTPConnection(
                    "127.0.0.1", self.nginx.port("probe"),
                    timeout=settings.PATIENCE)
                connection.request("GET", "/reuse-status?format=json")
                self.status = json.load(connection.getresponse())
                connection.close()
                return self.status
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    raise Violation(f"reuse_status: {error!r}") from None

    @staticmethod
    def sums(status):
        """Those that hold in every answer."""
        views = [("all", status["total"])]
        for upstream in status["upstreams"]:
            views.append((upstream["name"], upstream))
            views += [(f"{upstream['name']} {server['address']}", server)
                      for server in upstream["servers"]]
        for name, view in views:
            requests, connections = view["attempts"], view["connections"]
            for what, found, wanted in (
                    ("requests", requests["total"], requests["reused"]
                     + requests["warm"] + requests["new"]),
                    ("new requests", requests["new"],
                     sum(requests["new_by_reason"].values())),
                    ("opened", connections["opened"],
                     connections["open"] + connections["closed"]),
                    ("closed", connections["closed"],
                     sum(connections["closed_by_reason"].values()))):
                if found != wanted:
                    raise Violation(f"{name}: {what} are {found}, and the "
                                    f"sum is {wanted}: {view}")

    @staticmethod
    def _descriptors(pid):
        try:
            return len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            return 0

    def _most_descriptors(self):
        return max(map(self._descriptors, self.workers()))

    # the end

    def finish(self):
        """All ends by itself, and what is left is accounted for."""
        self.book.stop()
        for mode, load in self.loads:
            self.loads_ended.append(
                (mode, load.finish(8 * settings.PATIENCE)))
        deadline = time.monotonic() + KNOWN + 0.5
        while time.monotonic() < deadline or self.failures:
            time.sleep(0.1)
            self.read_notes()
        self._wait(self._is_settled, "it does not come to rest",
                   6 * settings.PATIENCE)
        self.sums(self.status)
        total = self.status["total"]
        opened = total["attempts"]["new"] + total["warm"]["opened"]
        if total["connections"]["opened"] != opened:
            raise Violation(f"opened for requests and ahead are {opened} "
                            f"connections: {total}")
        self._check_memory()
        self.nginx.stop()
        self.read_log()
        self.read_notes()

    def _is_settled(self):
        """Connections are those that are there; so are descriptors."""
        total = self.fetch()["total"]["connections"]
        ports = {8000 + 10 * number + which
                 for number, mode in enumerate(self.modes)
                 for which in range(mode.servers)}
        there = sum(other[1] in ports and end[1] not in ports
                    and state in (1, 8) for end, other, state, _
                    in processes.connections(self.nginx.master))
        master, worker = self.descriptors
        self.left = {
            "open": total["open"], "idle": total["idle"], "there": there,
            "master": self._descriptors(self.nginx.master) - master,
            "workers": self._most_descriptors() - worker}
        return (total["open"] == total["idle"] == there
                and len(self.workers()) == WORKERS
                and self.left["master"] <= 1
                and self.left["workers"] <= there + 2)

    def memory(self):
        """{what: (first, last)}, of the second fifth and of the last one."""
        fifth = max(1, len(self.samples) // 5)
        first, last = self.samples[fifth:2 * fifth], self.samples[-fifth:]
        return {key: tuple(statistics.median(sample[key] for sample in part)
                           if part else 0 for part in (first, last))
                for key in ("worker_kb", "worker_most_kb", "master_kb",
                            "master_descriptors", "zone")}

    def _check_memory(self):
        if len(self.samples) < SAMPLES:
            return
        found = self.memory()
        keys = ["zone", "master_descriptors"]
        if not settings.SANITIZED:
            # a sanitizer keeps what was freed
            keys += ["worker_kb", "master_kb"]
        for key in keys:
            first, last = found[key]
            spare = {"zone": SPARE, "master_descriptors": 2}.get(
                key, SPARE / 1024)
            if last > first * (1 + SHARE) + spare:
                raise Violation(f"{key} has grown from {first} to {last}")

    def report(self):
        modes = {}
        for mode, said in self.loads_ended:
            row = modes.setdefault(mode.name, collections.Counter())
            row["requests"] += said["requests"]
            for outcome, count in said["outcomes"].items():
                row["answered" if outcome.startswith("2")
                    else "failed"] += count
        causes = collections.Counter()
        for (_, cause), count in self.causes.items():
            causes[cause] += count
        total = self.status["total"] if self.status else None
        return {
            "seconds": round(time.monotonic() - self.started, 1),
            "seed": self.options.seed, "sanitized": settings.SANITIZED,
            "rtt_ms": self.options.rtt if self.is_far else 0,
            "posts": self.posts(), "modes": modes,
            "causes": causes, "by_mode": [
                [mode, cause, count] for (mode, cause), count
                in sorted(self.causes.items())],
            "counts": dict(self.counts), "memory": self.memory(),
            "descriptors_most": self.most_descriptors,
            "left": getattr(self, "left", None),
            "total": total, "samples": self.samples,
        }


def show(found):
    """The lines of a report."""
    def table(heads, rows):
        return scene.table({head: head for head in heads},
                           [dict(zip(heads, row)) for row in rows])
    yield (f"{found['posts']} POSTs in {found['seconds']:.0f} s, seed "
           f"{found['seed']}, round trip {found['rtt_ms']:g} ms"
           + (", sanitized" if found["sanitized"] else "") + "\n")
    yield from table(
        ("mode", "requests", "answered", "failed"),
        [(name, row["requests"], row["answered"], row["failed"])
         for name, row in found["modes"].items()])
    yield ""
    yield from table(("failed because", "in mode", "requests"),
                     [(cause, mode, count)
                      for mode, cause, count in found["by_mode"]])
    yield ""
    counts = found["counts"]
    yield (f"{counts.get('kills', 0)} workers killed, "
           f"{counts.get('reloads', 0)} reloads, "
           f"{counts.get('restarts', 0)} restarts of origins")
    total = found["total"]
    if total:
        requests, connections = total["attempts"], total["connections"]
        passed = max(1, requests["total"])
        yield (f"{requests['total']} attempts: {requests['reused']} reused, "
               f"{requests['warm']} warm, {requests['new']} new: "
               f"{100 * (passed - requests['new']) / passed:.1f} % found a "
               "connection ready")
        yield (f"{connections['opened']} connections opened, "
               f"{connections['closed']} closed, "
               f"{connections['taken_over']} taken over from other workers")
        yield "stale requests: " + ", ".join(
            f"{name} {count}"
            for name, count in total["stale_requests"].items())
    memory = found["memory"]
    for key, about in (("worker_kb", "a worker's own memory, kB"),
                       ("worker_most_kb", "the largest worker's, kB"),
                       ("master_kb", "the master's, kB"),
                       ("master_descriptors", "the master's descriptors"),
                       ("zone", "used of the shared zone, bytes")):
        first, last = memory[key]
        yield f"{about}: {first:g} in the second fifth, {last:g} in the last"
    yield f"descriptors of a worker, at most: {found['descriptors_most']}"


def parse():
    parser = argparse.ArgumentParser(
        prog="tools/soak", description="Everything at once against one "
        "nginx; see bench/README.md.")
    parser.add_argument("hours", type=float, nargs="?")
    parser.add_argument("--posts", type=int, metavar="N",
                        help="end after so many POSTs instead")
    parser.add_argument("--json", metavar="FILE",
                        help="write all numbers there as well")
    parser.add_argument("--rtt", type=float, default=10, metavar="MS",
                        help="the round trip to origins that are far "
                        "(%(default)s)")
    scene.add_seed(parser)
    options = parser.parse_args()
    if (options.hours is None) == (options.posts is None):
        parser.error("either hours or --posts")
    return options


def play(options, directory):
    """(report, the violation or None)"""
    violation = None
    with contextlib.ExitStack() as stack:
        soak = Soak(options, directory, stack)
        try:
            soak.start()
            soak.run()
            soak.finish()
        except (Violation, Failure) as error:
            violation = str(error)
            soak.book.stop()
            with contextlib.suppress(Violation):
                soak.read_log()
            with tempfile.NamedTemporaryFile(
                    "w", prefix="soak-", suffix=".log",
                    delete=False) as file:
                file.writelines(f"{line}\n" for line in soak.log)
            print(f"nginx's log: {file.name}")
            target = violation.split()[0]
            lines = [line for line in soak.log if f"{target} " in line]
            print(f"VIOLATION: {violation}\n", *lines[-SHOWN:],
                  "\nthe end of nginx's log:",
                  *list(soak.log)[-SHOWN:], sep="\n")
            print("\nthe last events:", *soak.events,
                  getattr(soak, "left", ""), sep="\n")
        report = soak.report()
    report["violation"] = violation
    return report


def roomy_memory():
    """Where files are in memory, if there is much of it."""
    try:
        found = os.statvfs(SHARED)
    except OSError:
        return None
    return SHARED if found.f_bavail * found.f_frsize >= ROOM else None


def main():
    options = parse()
    # all that was started is to end
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    exchanges.raise_descriptors(DESCRIPTORS)
    with tempfile.TemporaryDirectory(prefix="myproxy-soak-",
                                     dir=roomy_memory()) as directory:
        found = play(options, pathlib.Path(directory))
    print(*show(found), sep="\n")
    if found["violation"] is None:
        print("No request was executed twice, and none failed without a "
              "cause.")
    if options.json:
        scene.write_json(options.json, found)
    sys.exit(found["violation"] is not None)


if __name__ == "__main__":
    main()
