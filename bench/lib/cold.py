"""What `bench/cold` runs, see bench/README.md."""

import concurrent.futures
import os
import subprocess
import sys
import time

import scene
import watch
from scene import Failure

CONTENDERS = ("stock", "haproxy", "haproxy-always", "ours", "ours-auto",
              "ours-20")
QUICK = ("stock", "ours", "ours-auto", "ours-20")
MODES = ("plain", "tls")

#: Seconds in which a burst is over.
BURST = 0.2

#: {kind of burst: what it is}
KINDS = {
    "first": "the first burst",
    "later": "from the second on",
    "reload": "after a reload",
    "restart": "after the origin's restart",
}

#: The 99th percentile that is the goal, in round trips.
GOAL = 1.25
#: {contender: the bursts that it is the goal for}
GOALS = {"ours-auto": ("later", "reload", "restart"),
         "ours-20": ("first", "later", "reload", "restart")}

COLUMNS = {
    "contender": "label",
    "bursts": "about",
    "requests": "requests",
    "median, ms": "median_ms",
    "99 %, ms": "p99_ms",
    "median, round trips": "median_rtt",
    "99 %, round trips": "p99_rtt",
    "waited for a handshake": "waited",
    "failed": "failed",
}
CONNECTION_COLUMNS = {
    "contender": "label",
    "requests": "requests",
    "connections": "connections",
    "never used, at most": "never_used",
}


class Timeline:
    """One round: the bursts, and what happens between them."""

    def __init__(self, options, reloads):
        self.moments = []               #: [seconds, requests] of each burst
        self.kinds = []                 #: of each burst
        self.events = []                #: (seconds, "reload" or "restart")
        self._options = options
        self._add("first", options.settle)
        for _ in range(options.bursts):
            self._add("later", self._pause_over())
        for kind in ("reload", "restart"):
            if kind == "restart" or reloads:
                at = self._pause_over()
                self.events.append((at, kind))
                self._add(kind, at + options.settle)

    def _pause_over(self):
        return self.moments[-1][0] + BURST + self._options.pause

    def _add(self, kind, seconds):
        self.moments.append([seconds, self._options.burst])
        self.kinds.append(kind)


def play_round(contender, mode, timeline, options):
    """(what became of each request, what the origin says, how late)."""
    idle = options.idle * 1000
    words = ["--idle", idle, "--first", idle, "--journal", "--tls13"]
    certificates = options.certificates if mode == "tls" else None
    with scene.play(contender, options.rtt, words, certificates,
                    workers=options.workers, tls13=True) as played:
        start = time.monotonic()
        load = scene.Process(
            scene.load_command(played.link, "timed.py",
                               "--clients", options.burst), priority=1)
        load.start(start, timeline.moments)
        for seconds, event in timeline.events:
            scene.sleep_until(start + seconds)
            if event == "reload":
                played.proxy.reload()
            else:
                played.origin.tell("restart")
        found = load.finish(timeline.moments[-1][0] + 2 * scene.PATIENCE)
    late = watch.late_ms(found, start, timeline.moments)
    return found, played.report, late


def measure(contender, mode, options):
    """The rows of one contender: (one for each kind, one for all of it)."""
    timeline = Timeline(options, contender.reload is not None)
    by_kind = {kind: [] for kind in KINDS}
    total = {"contender": contender.name, "label": contender.label,
             "mode": mode, "requests": 0, "connections": 0, "never_used": 0,
             "protocols": [], "late_ms": 0}
    for _ in range(options.rounds):
        found, origin, late = play_round(contender, mode, timeline, options)
        journal = origin["journal"]
        for kind, exchanges in by_kind.items():
            exchanges.append(({
                target: exchange for target, exchange in found.items()
                if timeline.kinds[exchange[0]] == kind}, journal))
        total["requests"] += len(found)
        total["connections"] += origin["connections"]
        total["never_used"] = max(total["never_used"], watch.never_used(
            journal, options.rtt))
        total["protocols"] = sorted({*total["protocols"],
                                     *journal["protocols"]})
        total["late_ms"] = round(max(total["late_ms"], late), 2)
    return [row(contender, mode, kind, exchanges, options.rtt)
            for kind, exchanges in by_kind.items()
            if any(found for found, _ in exchanges)], total


def row(contender, mode, kind, exchanges, rtt):
    """Of one kind of bursts, in all rounds."""
    values = [value for found, _ in exchanges
              for value in watch.latencies_ms(found)]
    made = {
        "contender": contender.name,
        "label": contender.label,
        "mode": mode,
        "kind": kind,
        "about": KINDS[kind],
        "requests": sum(len(found) for found, _ in exchanges),
        "failed": sum(watch.failed(found) for found, _ in exchanges),
        "waited": sum(len(watch.waited(found, journal, rtt))
                      for found, journal in exchanges),
        "latencies_ms": [round(value, 2) for value in values],
    }
    watch.add_latency(made, values, rtt)
    return made


def compare(mode, taking_part, options):
    """All contenders in one mode: prints the tables.

    Returns their rows, those of the second table, and how many could not be
    measured.
    """
    rows, totals, notes = [], [], []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = [(contender, pool.submit(measure, contender, mode, options))
                   for contender in taking_part]
        for contender, future in running:
            try:
                found, total = future.result()
            except (Failure, subprocess.SubprocessError) as failure:
                notes.append(f"{contender.label}: {failure}")
                continue
            rows += found
            totals.append(total)
            if total["late_ms"] > scene.LATE * options.rtt:
                notes.append(f"{contender.label}: doubtful, the load was "
                             f"{total['late_ms']} ms late to send.")
    spoken = sorted({name for total in totals for name in total["protocols"]})
    print(f"\n## {mode}: {', '.join(spoken)}\n")
    print(*scene.table(COLUMNS, rows), "", sep="\n")
    print(*scene.table(CONNECTION_COLUMNS, totals), sep="\n")
    if notes:
        print("", *notes, sep="\n")
    sys.stdout.flush()
    return rows, totals, len(taking_part) - len(totals)


def misses(rows, modes):
    """What is not as good as the goal, one line each."""
    found = {(made["mode"], made["contender"], made["kind"]): made["p99_rtt"]
             for made in rows}
    for mode in modes:
        for contender, kinds in GOALS.items():
            for kind in kinds:
                value = found.get((mode, contender, kind))
                if value is None or value > GOAL:
                    was = "not measured" if value is None else value
                    yield (f"{mode}, {contender}, {KINDS[kind]}: 99 % "
                           f"should be at most {GOAL} round trips: {was}")


def parse():
    parser = scene.parser(
        "cold", "Latency of bursts when the origin has closed all idle "
        "connections", CONTENDERS)
    parser.add_argument("--modes", default=",".join(MODES),
                        help="some of %(default)s")
    parser.add_argument("--burst", type=int, default=20, metavar="N",
                        help="GETs that start together (%(default)s)")
    parser.add_argument("--bursts", type=int, metavar="N",
                        help="after the first one, in a round (6)")
    parser.add_argument("--rounds", type=int, metavar="N",
                        help="each with proxy and origin started anew (3)")
    parser.add_argument("--idle", type=float, default=2, metavar="S",
                        help="the origin's limit (%(default)s)")
    parser.add_argument("--pause", type=float, default=3, metavar="S",
                        help="between bursts (%(default)s)")
    parser.add_argument("--settle", type=float, default=1, metavar="S",
                        help="from the proxy's start, its reload or the "
                        "origin's restart to a burst (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, metavar="N",
                        help="processes of nginx, threads of HAProxy "
                        "(%(default)s)")
    parser.add_argument("--jobs", type=int, default=1,
                        help="contenders at a time (%(default)s)")
    parser.add_argument("--check", action="store_true",
                        help="fail if ours misses the goal: 99 % within "
                        f"{GOAL} round trips, by `auto` from the second "
                        "burst on, by `20` always".replace("%", "%%"))
    parser.add_argument("--quick", action="store_true",
                        help="one round of two bursts, without HAProxy")
    options = parser.parse_args()
    options.bursts = options.bursts or (1 if options.quick else 6)
    options.rounds = options.rounds or (1 if options.quick else 3)
    default = ",".join(QUICK if options.quick else CONTENDERS)
    options.contenders = scene.choose(
        parser, options.contenders or default, CONTENDERS)
    options.modes = scene.choose(parser, options.modes, MODES)
    return options


def main():
    options = parse()
    scene.hurry(0, 1)
    scene.need_link("cold")
    print(f"Round trip {options.rtt:g} ms, bursts of {options.burst} GETs "
          f"{options.pause:g} s apart, the origin closes after "
          f"{options.idle:g} s; {options.rounds} rounds, {options.workers} "
          f"workers, {options.jobs} contenders at a time on "
          f"{os.cpu_count()} cores.\n")
    taking_part, versions = scene.call_up(options.contenders)

    rows, totals, failures = [], [], 0
    with scene.proxies.scratch() as directory:
        options.certificates = scene.make_certificates(directory)
        for mode in options.modes:
            found, found_totals, lost = compare(mode, taking_part, options)
            rows += found
            totals += found_totals
            failures += lost
    missed = list(misses(rows, options.modes)) if options.check else []
    if missed:
        print("", *missed, sep="\n")
    if options.json:
        scene.write_json(options.json, {
            "rtt_ms": options.rtt, "burst": options.burst,
            "pause_s": options.pause, "idle_s": options.idle,
            "settle_s": options.settle, "workers": options.workers,
            "versions": versions, "rows": rows, "totals": totals,
            "missed": missed})
    sys.exit(failures > 0 or not rows or bool(missed))


if __name__ == "__main__":
    main()
