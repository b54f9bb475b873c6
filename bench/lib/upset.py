"""Reloads, and workers that are killed: parts of bench/workers."""

import http.client
import json
import os
import pathlib
import signal
import time

import paced
import processes
import scene
import watch

WORKERS = 4
#: Seconds of load before the first one, and after the last.
BEFORE = 3
AFTER = 3
#: Requests a second.
RELOAD_RATE = 20
KILL_RATE = 100
#: Seconds in which what was left behind must be gone, after the idle limit.
GONE = 8
#: What nginx says of a worker that was killed.
KILLED = r"exited on signal 9|was locked by"

#: Connections that reloads may cost over TCP.
NEW = 2

RELOAD_COLUMNS = {
    "contender": "label",
    "reloads": "times",
    "processes": "generations",
    "requests": "requests",
    "failed": "failed",
    "new connections": "connections",
    "full handshakes": "full",
    "waited for a handshake": "waited",
    "99 %, ms": "p99_ms",
    "longest": "longest_ms",
}
KILL_COLUMNS = {
    "contender": "label",
    "killed": "times",
    "requests": "requests",
    "failed": "failed",
    "in the hands of the killed": "in_hands",
    "failed, others": "failed_others",
    "connections": "connections",
    "open at the origin": "left_origin",
    "at the proxy": "left_proxy",
    "more descriptors": "descriptors_more",
    "opened": "opened",
    "open": "open",
    "closed": "closed",
}


def latencies(found):
    values = watch.latencies_ms(found)
    return {"p99_ms": round(scene.percentile(values, 99) or 0, 1),
            "longest_ms": round(max(values, default=0), 1)}


# reload

def reload(contender, tls, times, options):
    """A row: of what comes from the first reload on."""
    schedule = paced.evenly(RELOAD_RATE, BEFORE + times + AFTER)
    with scene.play(contender, options.rtt, paced.origin_words(tls),
                    options.certificates if tls else None, workers=WORKERS,
                    tls13=tls, spread=True) as played:
        load = paced.make_load(played)
        start = paced.start_load(load, schedule)
        seen = set(processes.of(played.proxy.pid))
        mark = start + paced.LEAD + BEFORE
        for number in range(times):
            scene.sleep_until(mark + number)
            played.proxy.reload()
            scene.sleep_until(mark + number + 0.9)
            seen.update(processes.of(played.proxy.pid))
        found = paced.finish_load(load, start, schedule)
    journal = played.report["journal"]
    later = {target: exchange for target, exchange in found.items()
             if exchange[1] >= mark}
    return {
        "contender": contender.name, "label": contender.label, "tls": tls,
        "times": times, "generations": len(seen), "requests": len(later),
        "failed": watch.failed(found),
        "connections": paced.opened_since(journal, mark),
        "full": sum(moment >= mark for moment in journal["full_handshakes"])
        if tls else "-",
        "waited": len(watch.waited(later, journal, options.rtt)),
        "late_ms": watch.late_ms(found, start, schedule),
        **latencies(later),
    }


def doubts(row):
    """What makes a row of reload() doubtful, one line each."""
    wanted = WORKERS * (row["times"] + 1)
    if row["contender"] != "haproxy-always" and row["generations"] < wanted:
        yield f"{row['generations']} workers were seen, not {wanted}"


def reload_goals(rows):
    for name in ("ours", "ours-auto"):
        for made in rows:
            if made["contender"] != name:
                continue
            about = (f"{name}, {'TLS' if made['tls'] else 'TCP'}, "
                     f"{made['times']} reloads: ")
            yield (made["failed"] == 0,
                   f"{about}{made['failed']} requests failed")
            if made["tls"]:
                yield (made["full"] == 0,
                       f"{about}{made['full']} of {made['connections']} "
                       "handshakes resumed nothing")
            elif name == "ours":
                yield (made["connections"] <= NEW,
                       f"{about}{made['connections']} new connections, at "
                       f"most {NEW}")
                yield (made["waited"] == 0,
                       f"{about}{made['waited']} requests waited for a "
                       "handshake")


# kill

def kill(contender, times, options):
    """A row."""
    schedule = paced.evenly(KILL_RATE, BEFORE + times + AFTER)
    port = scene.proxies.PORT
    with scene.play(contender, options.rtt, paced.origin_words(False),
                    workers=WORKERS, spread=True, status=True) as played:
        played.proxy.expect(KILLED)
        ours = contender.name.startswith("ours")
        before = Left(played, ours)
        load = paced.make_load(played)
        start = paced.start_load(load, schedule)
        hands, killed = {}, 0
        for number in range(times):
            scene.sleep_until(start + paced.LEAD + BEFORE + number)
            workers = sorted(processes.of(played.proxy.pid))
            if workers:
                hands.update(dict.fromkeys(kill_worker(workers[0], port),
                                           time.monotonic()))
                killed += 1
        found = paced.finish_load(load, start, schedule)
        left = settle(played, before, ours)
    failed = [target for target, exchange in found.items()
              if not exchange[3].startswith("2")]
    others = [target for target in failed
              if hands.get(int(target.rpartition("/")[2]), 0)
              < found[target][1]]
    return {
        "contender": contender.name, "label": contender.label,
        "times": killed, "requests": len(found), "failed": len(failed),
        "in_hands": len(hands), "failed_others": len(others),
        "outcomes_others": sorted(found[target][3] for target in others),
        "connections": played.report["connections"],
        "late_ms": watch.late_ms(found, start, schedule),
        **left.row(before), **latencies(found),
    }


def kill_worker(pid, port):
    """The ports of the clients whose requests it had.

    It is stopped while they are looked for, so that it gets no others.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + scene.PATIENCE
        stat = pathlib.Path(f"/proc/{pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            if time.monotonic() > deadline:
                raise scene.Failure(f"{pid} does not stop")
        return processes.clients(pid, port)
    finally:
        os.kill(pid, signal.SIGKILL)


class Left:
    """What connections and descriptors there are at a moment."""

    def __init__(self, played, ours):
        master = played.proxy.pid
        workers = processes.of(master)
        self.workers = len(workers)
        #: Of the origin's sockets one listens, see row().
        self.origin = len(processes.inodes(played.origin.pid))
        self.proxy = processes.connected(
            master, (played.link.b_address, scene.ORIGIN_PORT))
        self.descriptors = sum(processes.takes(pid)[1]
                               for pid in (master, *workers))
        self.counts = status(played) if ours else None

    def row(self, before):
        counts = self.counts or dict.fromkeys(("opened", "open", "closed"),
                                              "-")
        return {
            "left_origin": self.origin - before.origin,
            "left_proxy": self.proxy,
            "descriptors_more": self.descriptors - before.descriptors,
            **{name: counts[name] for name in ("opened", "open", "closed")},
        }

    def is_clean(self, before):
        """Whether all that is there is accounted for."""
        return (self.workers == before.workers
                and not any(leaks(self.row(before))))


def leaks(row):
    """What was left behind, one line each."""
    if row["left_origin"] != row["left_proxy"]:
        yield (f"{row['left_origin']} connections are open at the origin, "
               f"{row['left_proxy']} at the proxy")
    more = row["descriptors_more"] - row["left_proxy"]
    if more > 0:
        yield f"{more} more descriptors in master and workers"
    if row["opened"] == "-":
        return
    if row["opened"] != row["open"] + row["closed"]:
        yield (f"{row['opened']} were opened, {row['open']} are open and "
               f"{row['closed']} closed")
    if row["open"] != row["left_proxy"]:
        yield (f"{row['open']} are open, it is said, and "
               f"{row['left_proxy']} are there")


def settle(played, before, ours):
    """A Left when all is accounted for, or the time for that is over.

    Connections that wait for a request are closed by the idle limit, unless
    they are meant to be there.
    """
    time.sleep(paced.IDLE / 1000)
    deadline = time.monotonic() + GONE
    while True:
        left = Left(played, ours)
        if left.is_clean(before) or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def status(played):
    """What reuse_status says of all connections."""
    with played.link.connect("a", ("127.0.0.1", scene.proxies.PORT)) as sock:
        connection = http.client.HTTPConnection("127.0.0.1")
        connection.sock = sock
        connection.request("GET", "/reuse?format=json")
        return json.load(connection.getresponse())["total"]["connections"]


def kill_goals(rows):
    for made in rows:
        if made["contender"] not in ("ours", "ours-auto"):
            continue
        about = f"{made['contender']}, {made['times']} workers killed: "
        yield (made["failed_others"] == 0,
               f"{about}{made['failed_others']} requests failed that no "
               "killed worker had")
        found = list(leaks(made))
        yield (not found,
               about + ("; ".join(found) or "nothing was left behind"))
