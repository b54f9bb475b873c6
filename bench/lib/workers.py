"""What `bench/workers` runs, see bench/README.md."""

import concurrent.futures
import contextlib
import math
import os
import subprocess
import sys
import threading

import goals
import loaded
import paced
import passed
import scene
import upset

CONTENDERS = ("stock", "ours", "ours-auto", "haproxy-always")
PARTS = ("pace", "servers", "reload", "kill", "cpu")
ERRORS = (scene.Failure, OSError, ValueError, subprocess.SubprocessError)

#: [(TLS, requests a second, numbers of workers)]
PACE = (
    (False, 1, (16, 64)),
    (False, 4, (1, 16, 64)),
    (False, 40, (16, 64)),
    (False, 400, (16, 64)),
    (True, 4, (1, 16, 64)),
)
PACE_QUICK = ((False, 4, (1, 16)), (False, 40, (16,)), (True, 4, (16,)))
#: Seconds that a load takes at least, and at most: twice the idle limit, and
#: as many again.
SHORTEST, LONGEST = 10, 20

MANY = paced.Many(servers=1000, workers=64, rate=1000, settle=60, seconds=30)
MANY_QUICK = paced.Many(servers=100, workers=8, rate=100, settle=10,
                        seconds=5)

TIMES, TIMES_QUICK = 60, 5
#: (rounds, requests in each) of the part cpu
CPU, CPU_QUICK = (9, 100 * passed.BATCH), (2, 20 * passed.BATCH)


def measured(notes, about, function, *words):
    """Its row, or None and a note."""
    try:
        return function(*words)
    except ERRORS as error:
        notes.append(f"{about}: {error}")
        return None


def together(notes, function, tasks):
    """The rows of [(about, words)], in this order, all at a time."""
    with concurrent.futures.ThreadPoolExecutor(len(tasks)) as pool:
        running = [pool.submit(measured, notes, about, function, *words)
                   for about, words in tasks]
        found = [future.result() for future in running]
    return [made for made in found if made is not None]


def make_gate(count):
    """What waits for so many, but not for long; see paced.pace()."""
    barrier = threading.Barrier(count)

    def gate():
        with contextlib.suppress(threading.BrokenBarrierError):
            return barrier.wait(2 * scene.PATIENCE) / count
        return 0
    return gate


def print_table(heading, columns, rows):
    print(f"\n## {heading}\n")
    print(*scene.table(columns, rows), sep="\n")
    sys.stdout.flush()


def say(text):
    print(f"bench/workers: {text}", file=sys.stderr)


# parts

def cells(options):
    """What `pace` measures of each contender."""
    made = []
    for tls, rate, counts in PACE_QUICK if options.quick else PACE:
        seconds = options.requests / rate
        if rate > paced.AUTO_RATE:
            seconds = min(max(seconds, SHORTEST), LONGEST)
        if options.quick:
            seconds = min(seconds, SHORTEST)
        made += [paced.Cell(tls, rate, seconds, workers)
                 for workers in options.workers or counts]
    return made


def play_pace(able, options, notes):
    rows = []
    wanted = cells(options)
    groups = {}
    for cell in wanted:
        groups.setdefault(cell.rate, []).append(cell)
    for rate, group in groups.items():
        say(f"pace, {rate:g} a second")
        jobs = max(1, math.floor(paced.AT_ONCE / rate))
        tasks = [(contender, cell) for cell in group for contender in able]
        for first in range(0, len(tasks), jobs):
            batch = tasks[first:first + jobs]
            gate = make_gate(len(batch))
            rows += together(notes, paced.pace, [
                (f"{contender.label}, {cell.about}",
                 (contender, cell, options, gate))
                for contender, cell in batch])
    for tls in (False, True):
        shown = [made for made in rows if made["tls"] == tls]
        if shown:
            print_table(f"pace, {'TLS' if tls else 'TCP'}",
                        paced.PACE_COLUMNS, shown)
    notes += [f"{made['label']}, {made['about']}: doubtful, {doubt}."
              for made in rows for doubt in paced.doubts(made, options.rtt)]
    names = {contender.name for contender in able}
    if "haproxy-always" not in names:
        notes.append("pace: HAProxy takes no part, so the number of "
                     "connections is compared with nobody's; see --install.")
    return rows, list(paced.pace_goals(rows, wanted, names))


def play_servers(able, options, notes):
    many = MANY_QUICK if options.quick else MANY
    rows = []
    for contender in able:
        say(f"servers, {contender.label}")
        found = measured(notes, f"{contender.label}, many servers",
                         paced.servers, contender, many, options)
        rows += [found] if found else []
    if not rows:
        return [], []
    print_table(
        f"servers: {many.servers} servers, {many.workers} workers, "
        f"{many.rate:g} requests a second, after {many.settle:g} s",
        paced.SERVERS_COLUMNS, rows)
    notes += [f"{made['label']}, many servers: doubtful, the load was "
              f"{made['late_ms']:.1f} ms late to send." for made in rows
              if made["late_ms"] > scene.LATE * options.rtt]
    return rows, list(paced.servers_goals(rows))


def play_reload(able, options, notes):
    say("reload")
    times = TIMES_QUICK if options.quick else TIMES
    rows = together(
        notes, upset.reload,
        [(f"{contender.label}, reloads", (contender, tls, times, options))
         for tls in (False, True) for contender in able])
    for tls in (False, True):
        print_table(f"reload, {'TLS' if tls else 'TCP'}: a reload a second, "
                    f"{upset.RELOAD_RATE} requests a second",
                    upset.RELOAD_COLUMNS,
                    [made for made in rows if made["tls"] == tls])
    notes += [f"{made['label']}, reloads: doubtful, {doubt}."
              for made in rows for doubt in upset.doubts(made)]
    return rows, list(upset.reload_goals(rows))


def play_kill(able, options, notes):
    say("kill")
    times = TIMES_QUICK if options.quick else TIMES
    nginx = [contender for contender in able
             if isinstance(contender, scene.proxies.NginxContender)]
    rows = together(notes, upset.kill,
                    [(f"{contender.label}, killed workers",
                      (contender, times, options)) for contender in nginx])
    print_table(f"kill: a worker a second, {upset.KILL_RATE} requests a "
                "second", upset.KILL_COLUMNS, rows)
    return rows, list(upset.kill_goals(rows))


def play_cpu(able, options, notes):
    say("cpu")
    if len(set(loaded.cores())) < 2:
        notes.append("cpu: it takes a second core.")
        return [], []
    names = {name for _, name, *_ in passed.KINDS}
    contenders = [contender for contender in scene.proxies.ALL
                  if contender.name in names and not contender.missing()]
    rows = measured(notes, "cpu", passed.measure, contenders,
                    *(CPU_QUICK if options.quick else CPU), notes) or []
    print_table(f"cpu: {passed.BATCH} requests at a time, with pauses of "
                f"{1000 * passed.PAUSE:g} ms", passed.COLUMNS, rows)
    return rows, []


PLAY = {"pace": play_pace, "servers": play_servers, "reload": play_reload,
        "kill": play_kill, "cpu": play_cpu}


# options

def parse():
    parser = scene.parser(
        "workers", "What many workers make of connections to origins",
        CONTENDERS)
    parser.add_argument("--parts", default=",".join(PARTS),
                        help="some of %(default)s")
    parser.add_argument("--requests", type=int, default=91, metavar="N",
                        help="of `pace`, at 1 and at 4 a second "
                        "(%(default)s)")
    parser.add_argument("--workers", metavar="N,...",
                        help="of `pace`, at all rates")
    parser.add_argument("--quick", action="store_true",
                        help="less of everything, three minutes")
    parser.add_argument("--check", action="store_true",
                        help="fail if ours misses a goal")
    options = parser.parse_args()
    options.parts = scene.choose(parser, options.parts, PARTS)
    options.contenders = scene.choose(
        parser, options.contenders or ",".join(CONTENDERS), CONTENDERS)
    if options.workers:
        try:
            options.workers = [int(word) for word
                               in options.workers.split(",")]
        except ValueError:
            parser.error(f"{options.workers}: not numbers")
    if options.requests < 1 or min(options.workers or [1]) < 1:
        parser.error("less than one of something cannot be measured")
    return options


def main():
    options = parse()
    scene.hurry(0, 1)
    scene.need_link("workers")
    print(f"Round trip {options.rtt:g} ms, the origin closes after "
          f"{paced.IDLE / 1000:g} s, on {os.cpu_count()} cores.\n")
    able, versions = scene.call_up(options.contenders)
    notes, made, judged = [], {}, []
    with scene.proxies.scratch() as directory:
        options.certificates = scene.make_certificates(directory)
        for part in PARTS:
            if part in options.parts:
                made[part], found = PLAY[part](able, options, notes)
                judged += found
    if notes:
        print("\nNotes:\n", *(f"- {note}" for note in notes), sep="\n")
    if judged:
        print("\nGoals:\n", *(f"- {line}" for line in goals.lines(judged)),
              sep="\n")
    if options.json:
        scene.write_json(options.json, {
            "rtt_ms": options.rtt, "versions": versions, **made,
            "notes": notes, "goals": [{"holds": holds, "about": about}
                                      for holds, about in judged]})
    lost = not able or not all(made.values())
    missed = not all(holds for holds, _ in judged) or "ours" not in versions
    sys.exit(lost or options.check and missed)


if __name__ == "__main__":
    main()
