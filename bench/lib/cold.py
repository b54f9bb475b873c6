"""What `bench/cold` runs, see bench/README.md."""

import concurrent.futures
import dataclasses
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

#: Rounds, in multiples of those that are wanted, after which bursts that were
#: disturbed are not played again.
ROUNDS_MOST = 2
#: The part of the wanted bursts without which nothing is said of a kind.
ENOUGH = 0.5

#: The 99th percentile that is the goal, in round trips.
GOAL = 1.25
#: {contender: the bursts that it is the goal for}
GOALS = {"ours-auto": ("later", "reload", "restart"),
         "ours-20": ("first", "later", "reload", "restart")}

COLUMNS = {
    "contender": "label",
    "bursts": "about",
    "counted": "counted",
    "left out": "disturbed",
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
    """One round: the bursts, and what happens between them.

    later is how many bursts follow the first one, events what is done then,
    some of "reload" and "restart".
    """

    def __init__(self, options, later, events):
        self.moments = []               #: [seconds, requests] of each burst
        self.kinds = []                 #: of each burst
        self.events = []                #: (seconds, "reload" or "restart")
        self._options = options
        self._add("first", options.settle)
        for _ in range(later):
            self._add("later", self._pause_over())
        for kind in events:
            at = self._pause_over()
            self.events.append((at, kind))
            self._add(kind, at + options.settle)

    def _pause_over(self):
        return self.moments[-1][0] + BURST + self._options.pause

    def _add(self, kind, seconds):
        self.moments.append([seconds, self._options.burst])
        self.kinds.append(kind)


@dataclasses.dataclass
class Round:
    """What came of one."""
    kinds: list             #: of each burst
    found: dict             #: what became of each request
    origin: dict            #: what the origin says
    late_ms: float
    bursts: dict            #: what the machine did to each, of lib/watch.py
    disturbed: set          #: the numbers of the bursts that it spoilt

    def numbers(self, kind):
        """The bursts of that kind."""
        return {number for number, found in enumerate(self.kinds)
                if found == kind}

    def requests(self, numbers):
        """What became of those of some bursts."""
        return {target: exchange for target, exchange in self.found.items()
                if exchange[0] in numbers}


class Wanted:
    """The bursts that are to be counted, and the rounds that yield them."""

    def __init__(self, options, reloads):
        self._options = options
        self._events = ("reload", "restart") if reloads else ("restart",)
        self.counts = {kind: options.rounds * count for kind, count in
                       (("first", 1), ("later", options.bursts),
                        *((event, 1) for event in self._events))
                       if count}

    def next(self, rounds):
        """A Timeline to be played after those, None if there is no more.

        Once all rounds have been played, those bursts that were disturbed
        are played again, behind whatever has to precede them.
        """
        later, events = self._options.bursts, self._events
        if len(rounds) >= self._options.rounds:
            lacking = self._lacking(rounds)
            if not lacking or len(rounds) >= (ROUNDS_MOST
                                              * self._options.rounds):
                return None
            if not lacking & set(events):
                events = ()
            if lacking == {"first"}:
                later = 0
        return Timeline(self._options, later, events)

    def _lacking(self, rounds):
        """The kinds of which too few bursts can be counted."""
        return {kind for kind, count in self.counts.items()
                if count > sum(len(played.numbers(kind) - played.disturbed)
                               for played in rounds)}


def play_round(contender, mode, timeline, options):
    idle = options.idle * 1000
    words = ["--idle", idle, "--first", idle, "--journal", "--tls13"]
    certificates = options.certificates if mode == "tls" else None
    with scene.play(contender, options.rtt, words, certificates,
                    workers=options.workers, tls13=True) as played:
        controls = scene.start_controls(played.link)
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
        echoes = scene.finish_controls(controls)
    bursts = watch.bursts(found, start, timeline.moments, echoes)
    return Round(
        timeline.kinds, found, played.report,
        watch.late_ms(found, start, timeline.moments), bursts,
        {number for number, burst in bursts.items()
         if watch.disturbed(burst, options.rtt)})


def measure(contender, mode, options):
    """The rows of one contender: (one for each kind, one for all of it)."""
    wanted = Wanted(options, contender.reload is not None)
    rounds = []
    while timeline := wanted.next(rounds):
        rounds.append(play_round(contender, mode, timeline, options))
    named = {"contender": contender.name, "label": contender.label,
             "mode": mode}
    return [{**named, "kind": kind, "about": KINDS[kind], "wanted": count,
             **row(kind, rounds, options.rtt)}
            for kind, count in wanted.counts.items()], {
                **named, **total(rounds, options.rtt)}


def row(kind, rounds, rtt):
    """Of one kind of bursts, in all rounds.

    Latencies are of those that were not disturbed, all else is of all.
    """
    made = {"counted": 0, "disturbed": 0, "requests": 0, "failed": 0,
            "waited": 0}
    values, left_out, machine = [], [], []
    for played in rounds:
        numbers = played.numbers(kind)
        disturbed = numbers & played.disturbed
        found = played.requests(numbers)
        made["counted"] += len(numbers - disturbed)
        made["disturbed"] += len(disturbed)
        made["requests"] += len(found)
        made["failed"] += watch.failed(found)
        made["waited"] += len(watch.waited(found, played.origin["journal"],
                                           rtt))
        values += watch.latencies_ms(played.requests(numbers - disturbed))
        left_out += watch.latencies_ms(played.requests(disturbed))
        machine += [played.bursts[number] for number in sorted(numbers)]
    watch.add_latency(made, values, rtt)
    made["latencies_ms"] = [round(value, 2) for value in values]
    made["left_out_ms"] = [round(value, 2) for value in left_out]
    made["echo_and_late_ms"] = machine
    return made


def total(rounds, rtt):
    """Of all bursts, disturbed or not."""
    origins = [played.origin for played in rounds]
    return {
        "rounds": len(rounds),
        "requests": sum(len(played.found) for played in rounds),
        "connections": sum(origin["connections"] for origin in origins),
        "never_used": max(watch.never_used(origin["journal"], rtt)
                          for origin in origins),
        "protocols": sorted({name for origin in origins
                             for name in origin["journal"]["protocols"]}),
        "late_ms": round(max(played.late_ms for played in rounds), 2),
    }


def too_few(made):
    """Whether so many bursts were disturbed that the rest says nothing."""
    return made["counted"] < ENOUGH * made["wanted"]


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
                found, summary = future.result()
            except (Failure, subprocess.SubprocessError) as failure:
                notes.append(f"{contender.label}: {failure}")
                continue
            rows += found
            totals.append(summary)
            notes += [f"{contender.label}, {made['about']}: doubtful, the "
                      f"machine left {made['counted']} of {made['wanted']} "
                      "bursts undisturbed." for made in found
                      if too_few(made)]
    spoken = sorted({name for summary in totals
                     for name in summary["protocols"]})
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
             for made in rows if not too_few(made)}
    for mode in modes:
        for contender, kinds in GOALS.items():
            for kind in kinds:
                value = found.get((mode, contender, kind))
                if value is None or value > GOAL:
                    was = value or "not measured, or too often disturbed"
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
    return scene.choose_all(parser, options, default, CONTENDERS, MODES)


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
            "echo_ms_most": watch.slow_ms(options.rtt),
            "late_ms_most": watch.LATE_MS,
            "versions": versions, "rows": rows, "totals": totals,
            "missed": missed})
    sys.exit(failures > 0 or not rows or bool(missed))


if __name__ == "__main__":
    main()
