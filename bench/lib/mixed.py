"""What `bench/mixed` runs, see bench/README.md."""

import collections
import concurrent.futures
import os
import random
import subprocess
import sys
import time

import processes
import scene
import watch
from scene import Failure

CONTENDERS = ("stock", "ours", "ours-auto")
WORKERS = 4
CLIENTS = 64
#: Seconds by which contenders start one after another, so that what happens
#: to one does not fall together with what happens to the others.
STAGGER = 7
#: Requests of a burst.
BURST = 20

#: Seconds of the phases that make a cycle.
CYCLE = {"steady": 20, "bursts": 10, "pauses": 12}
#: What happens in the course of it all, and the seconds that are said to be
#: after it.  The load is that of the steady phase, and so is it at the start.
EVENTS = ("reload", "restart", "reload")
AFTER = 5
#: What all times are multiplied by with --quick.
QUICK = 0.2
PHASES = ("start", "steady", "bursts", "pauses", "reload", "restart")

#: Percent of the requests that may wait for a handshake.
GOAL = 0.1
CHECKED = "ours-auto"

COLUMNS = {
    "contender": "label",
    "phase": "phase",
    "requests": "requests",
    "failed": "failed",
    "waited, by the log": "waited_by_log",
    "%": "waited_percent",
    "waited, by the origin": "waited_by_origin",
    "median, ms": "median_ms",
    "99 %, ms": "p99_ms",
    "longest, ms": "longest_ms",
}
COST_COLUMNS = {
    "contender": "label",
    "connections": "connections",
    "never used, at most": "never_used",
    "CPU, s": "cpu_s",
    "CPU, steady, µs a request": "cpu_steady_us",
    "RSS, MB": "memory_mb",
    "at the end": "memory_end_mb",
    "descriptors": "descriptors",
    "in the end": "descriptors_end",
}


# the schedule

def phases(seconds, scale):
    """[(name, begin, end)], in whole cycles, about as long as that."""
    made = []
    seconds /= scale

    def add(name, length):
        begin = made[-1][2] if made else 0
        made.append((name, begin, begin + scale * length))

    cycles = max(1, round((seconds - AFTER * (1 + len(EVENTS)))
                          / sum(CYCLE.values())))
    add("start", AFTER)
    for cycle in range(cycles):
        events = [name for number, name in enumerate(EVENTS, 1)
                  if number * cycles // (len(EVENTS) + 1) == cycle]
        piece = CYCLE["steady"] / (len(events) + 1)
        for name in events:
            add("steady", piece)
            add(name, AFTER)
        add("steady", piece)
        add("bursts", CYCLE["bursts"])
        add("pauses", CYCLE["pauses"])
    return made


def moments(timeline, options):
    """[[seconds, requests]] for the load."""
    chance = random.Random(f"mixed {options.seed}")
    scale = options.scale
    made = []
    for name, begin, end in timeline:
        if name == "pauses":
            made += repeated(begin, end, BURST,
                             lambda: scale * chance.uniform(2.5, 4))
            continue
        usual = options.rate
        if name == "bursts":
            made += repeated(begin, end, BURST,
                             lambda: scale * chance.uniform(0.5, 1.5))
            usual = options.rate / 4
        made += repeated(begin, end, 1,
                         lambda usual=usual: chance.expovariate(usual))
    return sorted(made)


def repeated(begin, end, count, wait):
    """So many requests each time, with waits between them."""
    due = begin + wait()
    while due < end:
        yield [round(due, 6), count]
        due += wait()


# one contender

def measure(contender, timeline, schedule, delay, options):
    """(what became of each request, what the log says of it, the rest)."""
    idle = options.idle * options.scale * 1000
    time.sleep(delay)
    words = ["--idle", idle, "--first", idle, "--journal", "--tls13"]
    with scene.play(contender, options.rtt, words, options.certificates,
                    workers=WORKERS, tls13=True, spread=True,
                    log=True) as played:
        load = scene.Process(
            scene.load_command(played.link, "timed.py",
                               "--clients", CLIENTS), priority=1)
        master = played.proxy.pid
        begin = processes.sums(master)
        start = time.monotonic()
        load.start(start, schedule)
        cpu = follow(played, timeline, start)
        end = processes.sums(master)
        found = load.finish()
        played.proxy.stop()
        log = read_log(played.directory / scene.proxies.LOG)
    late = watch.late_ms(found, start, schedule)
    cost = {
        "cpu_s": round(sum(cpu.values()), 2),
        "cpu_by_phase_s": {name: round(took, 3)
                           for name, took in cpu.items()},
        "memory_mb": round(begin[0] / 1024, 1),
        "memory_end_mb": round(end[0] / 1024, 1),
        "descriptors": begin[1],
        "descriptors_end": end[1],
        "connections": played.report["connections"],
        "never_used": watch.never_used(played.report["journal"],
                                       options.rtt),
        "late_ms": round(late, 2),
    }
    return found, log, played.report["journal"], cost


def follow(played, timeline, start):
    """Does what a phase begins with; {phase: CPU seconds of the workers}."""
    master = played.proxy.pid
    taken = collections.Counter()
    before = processes.cpu_seconds(master)
    for name, begin, end in timeline:
        scene.sleep_until(start + begin)
        if name == "reload":
            played.proxy.reload()
        elif name == "restart":
            played.origin.tell("restart")
        scene.sleep_until(start + end)
        now = processes.cpu_seconds(master)
        taken[name] += now - before
        before = now
    return taken


def read_log(path):
    """{target: (did it wait for a connection, what ours says of that)}."""
    made = {}
    for line in path.read_text().splitlines():
        target, _, times, connection, _ = line.split("|")
        waits = [word for word in times.replace(":", ",").split(",")
                 if word.strip() not in ("-", "")]
        made[target] = any(float(word) > 0 for word in waits), connection
    return made


def rows_of(contender, timeline, schedule, result, rtt):
    """One for each phase, and one for all of them."""
    found, log, journal, _ = result
    names = []
    passed = iter(timeline)
    name, _, end = next(passed)
    for seconds, _ in schedule:
        while seconds >= end:
            name, _, end = next(passed)
        names.append(name)
    made = [row(contender, phase,
                {target: exchange for target, exchange in found.items()
                 if names[exchange[0]] == phase}, log, journal, rtt)
            for phase in PHASES]
    return [*made, row(contender, "all", found, log, journal, rtt)]


def row(contender, phase, found, log, journal, rtt):
    values = watch.latencies_ms(found)
    by_log = [target for target in found if log.get(target, (False,))[0]]
    kinds = collections.Counter(log[target][1] for target in found
                                if target in log)
    made = {
        "contender": contender.name,
        "label": contender.label,
        "phase": phase,
        "requests": len(found),
        "failed": watch.failed(found),
        "waited_by_log": len(by_log),
        "waited_percent": round(100 * len(by_log) / max(1, len(found)), 3),
        "waited_by_origin": len(watch.waited(found, journal, rtt)),
        "connection": kinds,
        "longest_ms": round(max(values, default=0), 1),
    }
    watch.add_latency(made, values, rtt)
    return made


# all of them

def compare(taking_part, timeline, schedule, options):
    """(rows, costs, notes) of contenders that run at the same time."""
    rows, costs, notes = [], [], []
    with concurrent.futures.ThreadPoolExecutor(len(taking_part)) as pool:
        running = [(contender, pool.submit(
                       measure, contender, timeline, schedule,
                       number * STAGGER * options.scale, options))
                   for number, contender in enumerate(taking_part)]
        for contender, future in running:
            try:
                result = future.result()
            except (Failure, subprocess.SubprocessError) as failure:
                notes.append(f"{contender.label}: {failure}")
                continue
            found = rows_of(contender, timeline, schedule, result,
                            options.rtt)
            cost = {"contender": contender.name, "label": contender.label,
                    **result[3]}
            steady, = (made["requests"] for made in found
                       if made["phase"] == "steady")
            cost["cpu_steady_us"] = round(
                cost["cpu_by_phase_s"]["steady"] / steady * 10 ** 6, 1)
            rows += found
            costs.append(cost)
            if cost["late_ms"] > scene.LATE * options.rtt:
                notes.append(f"{contender.label}: doubtful, the load was "
                             f"{cost['late_ms']} ms late to send.")
    return rows, costs, notes


def misses(rows):
    """Why the goal is missed, one line each."""
    found = [made for made in rows
             if made["contender"] == CHECKED and made["phase"] == "all"]
    if not found:
        yield f"{CHECKED}: not measured"
    for made in found:
        waited = max(made["waited_by_log"], made["waited_by_origin"])
        if waited >= made["requests"] * GOAL / 100:
            yield (f"{CHECKED}: {waited} of {made['requests']} requests "
                   f"waited, {GOAL} % would be too many")
        if made["failed"]:
            yield f"{CHECKED}: {made['failed']} requests failed"


def parse():
    parser = scene.parser(
        "mixed", "The share of requests that wait for a handshake in an "
        "hour's mixed load, made short", CONTENDERS)
    scene.add_seed(parser)
    parser.add_argument("--minutes", type=float, default=6, metavar="N",
                        help="that it takes, in whole cycles of "
                        f"{sum(CYCLE.values())} s (%(default)s)")
    parser.add_argument("--rate", type=float, default=300, metavar="N",
                        help="requests a second in the steady phase "
                        "(%(default)s)")
    parser.add_argument("--idle", type=float, default=2, metavar="S",
                        help="the origin's limit (%(default)s); pauses are of "
                        "2.5 to 4 s")
    parser.add_argument("--quick", action="store_const", const=QUICK,
                        default=1, dest="scale", help="one cycle, in a "
                        "fifth of the time")
    parser.add_argument("--check", action="store_true",
                        help=f"fail if {GOAL} % of the requests waited with "
                        "`auto`, or any failed".replace("%", "%%"))
    options = parser.parse_args()
    if options.scale == QUICK:
        options.minutes = 0
    options.contenders = scene.choose(
        parser, options.contenders or ",".join(CONTENDERS), CONTENDERS)
    return options


def main():
    options = parse()
    scene.hurry(0, 1)
    scene.need_link("mixed")
    timeline = phases(60 * options.minutes, options.scale)
    schedule = moments(timeline, options)
    print(f"Round trip {options.rtt:g} ms, TLS, {WORKERS} workers, "
          f"{timeline[-1][2] / 60:.1f} minutes, the origin closes after "
          f"{options.idle * options.scale:g} s; seed {options.seed}, all "
          f"contenders at once on {os.cpu_count()} cores.\n")
    taking_part, versions = scene.call_up(options.contenders)
    if not taking_part:
        sys.exit("bench/mixed: nobody takes part")

    with scene.proxies.scratch() as directory:
        options.certificates = scene.make_certificates(directory)
        rows, costs, notes = compare(taking_part, timeline, schedule, options)
    print("", *scene.table(COLUMNS, rows), "", sep="\n")
    print(*scene.table(COST_COLUMNS, costs), sep="\n")
    missed = list(misses(rows)) if options.check else []
    if notes or missed:
        print("", *notes, *missed, sep="\n")
    if options.json:
        scene.write_json(options.json, {
            "seed": options.seed, "rtt_ms": options.rtt,
            "rate": options.rate, "idle_s": options.idle,
            "phases": timeline, "versions": versions,
            "rows": rows, "costs": costs, "missed": missed})
    sys.exit(len(costs) < len(taking_part) or bool(missed))


if __name__ == "__main__":
    main()
