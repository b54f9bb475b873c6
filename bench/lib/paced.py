"""Even load on many workers: the parts `pace` and `servers` of bench/workers.

Each request has a client connection of its own, so that any worker may get
it.
"""

import collections
import dataclasses
import statistics
import time

import processes
import scene
import watch

#: Milliseconds that the origin keeps idle connections.
IDLE = 5000
#: Seconds from the load's start to the first request.
LEAD = 0.5
#: Requests a second of all loads that run at a time.
AT_ONCE = 400
#: The part of the time between two requests that one may be late.
LATE = 0.5
#: The part of the workers that should have had requests, by chance, without
#: which the load was not spread.
SPREAD = 0.7

#: What of HAProxy's connections ours may open, and how many besides.
OF_HAPROXY = 1.2
MORE = 8
#: What `auto` may open: for each request over TLS, and of what it opens with
#: one worker over TCP; both with so many workers and requests a second.
AUTO_TLS = 2
AUTO_OF_ONE = 1.5
AUTO_WORKERS = 64
AUTO_RATE = 4

#: Percent of the requests with many servers.
REUSE = 95

PACE_COLUMNS = {
    "contender": "label",
    "workers": "workers",
    "requests/s": "rate",
    "requests": "requests",
    "failed": "failed",
    "connections": "connections",
    "reuse, %": "reuse_percent",
    "connections a request": "a_request",
    "waited for a handshake": "waited",
    "workers with requests": "served",
}
SERVERS_COLUMNS = {
    "contender": "label",
    "requests": "requests",
    "failed": "failed",
    "connections": "connections",
    "reuse, %": "reuse_percent",
    "waited for a handshake": "waited",
    "RSS of a worker, MB": "memory_mb",
    "at most": "memory_most_mb",
    "of its own": "memory_own_mb",
    "own before": "memory_before_mb",
    "descriptors of a worker": "descriptors",
    "the most": "descriptors_most",
    "CPU, µs a request": "cpu_us",
}


# load

def evenly(rate, seconds, phase=0):
    """[[seconds, 1]] for the load, after LEAD.

    phase is the part of the time between two that it begins later.
    """
    return [[round(LEAD + (number + phase) / rate, 6), 1]
            for number in range(round(rate * seconds))]


def origin_words(tls):
    words = ["--idle", IDLE, "--first", IDLE, "--journal", "--many"]
    return [*words, "--tls13"] if tls else words


def make_load(played):
    return scene.Process(scene.load_command(played.link, "timed.py",
                                            "--fresh"), priority=1)


def start_load(load, schedule):
    """When it starts."""
    start = time.monotonic()
    load.start(start, schedule)
    return start


def finish_load(load, start, schedule):
    """What became of each request."""
    left = start + schedule[-1][0] - time.monotonic()
    return load.finish(max(0, left) + 3 * scene.PATIENCE)


def reuse(requests, connections):
    """Percent of the requests that needed no connection of their own."""
    return round(100 * (1 - connections / requests), 1) if requests else None


def served_by(path):
    """{worker: the requests that it had}, by the log."""
    made = collections.Counter()
    if path.exists():
        for line in path.read_text().splitlines():
            made[line.rpartition("|")[2]] += 1
    return made


def by_chance(workers, requests):
    """Workers that have a request if each goes to any of them."""
    return workers * (1 - (1 - 1 / workers) ** requests)


# pace

@dataclasses.dataclass(frozen=True)
class Cell:
    tls: bool
    rate: float                         #: requests a second
    seconds: float
    workers: int

    @property
    def about(self):
        return (f"{'TLS' if self.tls else 'TCP'}, {self.workers} "
                f"worker{'s' * (self.workers > 1)}, "
                f"{self.rate:g} request{'s' * (self.rate > 1)} a second")


def pace(contender, cell, options, gate):
    """A row.

    gate() waits until all are there that are measured at a time, and says
    which part of an interval this one's requests come later.  Nobody leaves
    before all have finished, since to stop many workers takes a while.
    """
    with scene.play(contender, options.rtt, origin_words(cell.tls),
                    options.certificates if cell.tls else None,
                    workers=cell.workers, tls13=cell.tls, spread=True,
                    log=True) as played:
        load = make_load(played)
        schedule = evenly(cell.rate, cell.seconds, gate())
        start = start_load(load, schedule)
        found = finish_load(load, start, schedule)
        gate()
        played.proxy.stop()
        workers = served_by(played.directory / scene.proxies.LOG)
    report = played.report
    return {
        "contender": contender.name, "label": contender.label,
        "about": cell.about, "tls": cell.tls, "workers": cell.workers,
        "rate": cell.rate,
        "requests": len(found), "failed": watch.failed(found),
        "connections": report["connections"],
        "reuse_percent": reuse(len(found), report["connections"]),
        "a_request": round(report["connections"] / len(found), 2),
        "waited": len(watch.waited(found, report["journal"], options.rtt)),
        "served": len(workers) or "-",
        "served_most": max(workers.values(), default=None),
        "late_ms": watch.late_ms(found, start, schedule),
    }


def doubts(row, rtt):
    """What makes a row of pace() doubtful, one line each."""
    if row["late_ms"] > max(scene.LATE * rtt, LATE * 1000 / row["rate"]):
        yield f"the load was {row['late_ms']:.1f} ms late to send"
    if row["served"] != "-":
        wanted = by_chance(row["workers"], row["requests"])
        if row["served"] < SPREAD * wanted:
            yield (f"{row['served']} workers had requests, not about "
                   f"{wanted:.0f}")


def pace_goals(rows, cells, names):
    """(whether it holds, None if it was not measured; what it is)

    names are the contenders that take part.
    """
    found = {(made["contender"], made["tls"], made["rate"],
              made["workers"]): made for made in rows}

    def get(name, cell):
        return found.get((name, cell.tls, cell.rate, cell.workers))

    for cell in cells:
        if {"ours", "haproxy-always"} <= names:
            if not cell.tls and cell.workers > 1:
                yield of_haproxy(get("ours", cell),
                                 get("haproxy-always", cell), cell)
        auto = get("ours-auto", cell)
        if "ours-auto" in names and (cell.workers, cell.rate) == (
                AUTO_WORKERS, AUTO_RATE):
            if cell.tls:
                yield of_auto(auto, cell)
            else:
                yield of_auto_alone(auto, get(
                    "ours-auto", dataclasses.replace(cell, workers=1)), cell)
    for name in ("ours", "ours-auto"):
        failed = [made["failed"] for made in rows
                  if made["contender"] == name]
        if failed:
            yield sum(failed) == 0, f"{name}: {sum(failed)} requests failed"


def of_haproxy(ours, other, cell):
    about = f"connections of ours, {cell.about}"
    if ours is None or other is None:
        return None, about
    most = OF_HAPROXY * other["connections"] + MORE
    return (ours["connections"] <= most,
            f"{about}: {ours['connections']}, at most {OF_HAPROXY} times "
            f"HAProxy's {other['connections']} and {MORE} more")


def of_auto(auto, cell):
    about = f"connections of `auto`, {cell.about}"
    if auto is None:
        return None, about
    return (auto["connections"] <= AUTO_TLS * auto["requests"],
            f"{about}: {auto['connections']}, at most {AUTO_TLS} for each of "
            f"{auto['requests']} requests")


def of_auto_alone(auto, alone, cell):
    about = f"connections of `auto`, {cell.about}"
    if auto is None or alone is None:
        return None, about
    return (auto["connections"] <= AUTO_OF_ONE * alone["connections"],
            f"{about}: {auto['connections']}, at most {AUTO_OF_ONE} times "
            f"the {alone['connections']} with one worker")


# servers

@dataclasses.dataclass(frozen=True)
class Many:
    servers: int
    workers: int
    rate: float
    settle: float                       #: seconds that do not count
    seconds: float                      #: that do


def addresses(count):
    """So many of 127.0.0.0/8."""
    return [f"127.1.{number // 250}.{number % 250 + 1}"
            for number in range(count)]


def servers(contender, many, options):
    """A row: of what comes after the time to settle."""
    schedule = evenly(many.rate, many.settle + many.seconds)
    with scene.play(contender, options.rtt, origin_words(False),
                    beside=addresses(many.servers), workers=many.workers,
                    spread=True, zone=True) as played:
        master = played.proxy.pid
        before = taken(master)
        load = make_load(played)
        start = start_load(load, schedule)
        mark = start + LEAD + many.settle
        scene.sleep_until(mark)
        cpu = processes.cpu_seconds(master)
        scene.sleep_until(mark + many.seconds)
        cpu = processes.cpu_seconds(master) - cpu
        after = taken(master)
        found = finish_load(load, start, schedule)
    journal = played.report["journal"]
    later = {target: exchange for target, exchange in found.items()
             if exchange[1] >= mark}
    opened = opened_since(journal, mark)
    return {
        "contender": contender.name, "label": contender.label,
        **dataclasses.asdict(many), "requests": len(later),
        "failed": watch.failed(found), "connections": opened,
        "reuse_percent": reuse(len(later), opened),
        "waited": len(watch.waited(later, journal, 0)),
        "memory_before_mb": before["memory_own_mb"], **after,
        "cpu_us": round(10 ** 6 * cpu / max(1, len(later))),
        "late_ms": watch.late_ms(found, start, schedule),
    }


def taken(master):
    """Medians and the most of the workers."""
    workers = processes.of(master)
    found = [processes.takes(pid) for pid in workers]
    own = [processes.own_memory(pid) / 1024 for pid in workers]
    memory = [kilobytes / 1024 for kilobytes, _ in found]
    descriptors = [count for _, count in found]
    return {
        "memory_mb": round(statistics.median(memory), 1),
        "memory_most_mb": round(max(memory), 1),
        "memory_own_mb": round(statistics.median(own), 1),
        "descriptors": round(statistics.median(descriptors)),
        "descriptors_most": max(descriptors),
    }


def opened_since(journal, moment):
    """Connections that were ready after that."""
    return sum(ready >= moment for ready, _, _ in journal["connections"])


def servers_goals(rows):
    ours = next((made for made in rows if made["contender"] == "ours"), None)
    if ours is None:
        return
    yield (ours["reuse_percent"] >= REUSE,
           f"reuse with {ours['servers']} servers and {ours['workers']} "
           f"workers: {ours['reuse_percent']} %, at least {REUSE} %")
    yield (ours["failed"] == 0,
           f"requests that failed with many servers: {ours['failed']}")
