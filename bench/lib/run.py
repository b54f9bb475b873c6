"""What `bench/run` runs, see bench/README.md."""

import contextlib
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys

import counted
import exchanges
import goals
import loaded
import scene

CONTENDERS = ("ours", "ours-auto", "stock", "stock-defaults", "haproxy",
              "haproxy-always", "apache", "caddy", "lighttpd", "varnish",
              "trafficserver")
DEFAULT = ("ours", "stock", "stock-defaults", "haproxy", "apache", "caddy",
           "lighttpd", "varnish", "trafficserver")
QUICK = ("ours", "stock", "stock-defaults")
#: {part: what it takes}
TOOLS = {1: ("wrk", "taskset", "setpriv", "openssl"),
         2: ("valgrind", "vgdb", "strace", "setpriv"),
         3: ("valgrind", "vgdb", "setpriv")}

COUNT_COLUMNS = {
    "request": "method",
    "contender": "label",
    "instructions": "instructions",
    "of stock's": "of_stock",
    "system calls": "calls",
    "which": "which",
}
MEMORY_COLUMNS = {
    "contender": "label",
    "idle connection, heap": "idle_heap",
    "idle connection, RSS": "idle_rss",
    "request in flight, heap": "in_flight_heap",
    "request in flight, RSS": "in_flight_rss",
}
#: What may go wrong with one measurement.
ERRORS = (scene.Failure, OSError, subprocess.SubprocessError, TypeError)


class Tee:
    """Standard output, with a copy."""

    def __init__(self):
        self._output = sys.stdout
        self.copy = []

    def write(self, text):
        self.copy.append(text)
        return self._output.write(text)

    def flush(self):
        self._output.flush()


def attempt(notes, about, measure, *words):
    """What it returns, or None and a note."""
    print(f"bench/run: {about}", file=sys.stderr)
    try:
        return measure(*words)
    except ERRORS as error:
        notes.append(f"{about}: {error}")
        return None


# parts

def count(names, options, notes):
    """Part 2: (rows for requests, rows for memory)"""
    rows, memory = [], []
    for method in counted.METHODS:
        for name in names:
            label = counted.CONTENDERS[name]
            found = attempt(notes, f"instructions, {method}, {label}",
                            counted.instructions, name, method,
                            options.requests)
            calls = attempt(notes, f"system calls, {method}, {label}",
                            counted.calls, name, method, options.requests)
            made = {"method": method, "contender": name, "label": label}
            if found is not None:
                made["instructions"], made["of_malloc"] = map(round, found)
            if calls is not None:
                made["calls"] = round(sum(calls.values()), 2)
                made["by_name"] = calls
            rows.append(made)
    for name in names:
        label = counted.CONTENDERS[name]
        found = attempt(notes, f"memory, {label}", counted.memory, name,
                        counted.MANY)
        if found is not None:
            memory.append({"contender": name, "label": label, **found})
    return rows, memory


def print_counts(rows, memory):
    print("\n## 2. What a worker does for a request\n")
    shown = []
    for made in rows:
        stock = goals.numbered(
            [row for row in rows if "instructions" in row], "instructions",
            method=made["method"]).get("stock")
        found = made.get("instructions")
        shown.append({
            "instructions": "-", **made,
            "of_stock": f"{found / stock:.3f}" if found and stock else "-",
            "calls": f"{made['calls']:g}" if "calls" in made else "-",
            "which": ", ".join(f"{name} {number:g}" for name, number
                               in made.get("by_name", {}).items())})
    print(*scene.table(COUNT_COLUMNS, shown), sep="\n")
    print(f"\nBytes of the worker, by {counted.MANY} at a time:\n")
    print(*scene.table(MEMORY_COLUMNS, memory), sep="\n")


def grow(names, options, notes):
    """Part 3: a row for each contender and what grows."""
    largest = max(counted.GROWTH["idle"][0])
    limit = exchanges.raise_descriptors(2 * largest + exchanges.SPARE)
    most = (limit - exchanges.SPARE) // 2
    rows = []
    for what in options.grows:
        sizes, about = counted.GROWTH[what]
        if what == "idle" and sizes[-1] > most:
            notes.append(f"{sizes[-1]} idle connections: {limit} descriptors "
                         f"allow {most}.")
            sizes = [size for size in sizes if size < most] + [most]
        for name in names:
            label = counted.CONTENDERS[name]
            found, of_malloc = {}, {}
            for size in sizes:
                value = attempt(
                    notes, f"{size} {about}, {label}", counted.instructions,
                    name, "GET", options.requests,
                    counted.Case(**{what: size}))
                if value is not None:
                    found[size], of_malloc[size] = map(round, value)
            made = {"what": what, "about": about, "contender": name,
                    "label": label, "instructions": found,
                    "of_malloc": of_malloc}
            if len(found) == len(sizes):
                made["growth"] = found[sizes[-1]] - found[sizes[0]]
                made["growth_of_malloc"] = (of_malloc[sizes[-1]]
                                            - of_malloc[sizes[0]])
                made["factor"] = round(found[sizes[-1]] / found[sizes[0]], 3)
            rows.append(made)
    return rows


def print_growth(rows):
    print("\n## 3. How instructions for a GET grow")
    for what in dict.fromkeys(made["what"] for made in rows):
        about = counted.GROWTH[what][1]
        found = [made for made in rows if made["what"] == what]
        sizes = sorted({size for made in found
                        for size in made["instructions"]})
        columns = {"contender": "label", **{f"{size}": size
                                            for size in sizes},
                   "growth": "growth", "of it malloc": "growth_of_malloc",
                   "factor": "factor"}
        print(f"\nBy {about}:\n")
        print(*scene.table(columns, [
            {"growth": "-", "growth_of_malloc": "-", "factor": "-",
             **{size: "-" for size in sizes}, **made,
             **made["instructions"]} for made in found]), sep="\n")


def print_load(rows, cases):
    print("\n## 1. What a request costs under load")
    for name in cases:
        print(f"\n{loaded.CASES[name].label}:\n")
        print(*scene.table(loaded.COLUMNS, [
            made for made in rows if made["case"] == name]), sep="\n")


# options

def parse():
    parser = scene.parser(
        "run", "What a request costs: CPU time, instructions, system calls "
        "and memory", CONTENDERS, rtt=False)
    parser.add_argument("--parts", default="1,2,3",
                        help="1: under load, 2: counted, 3: how it grows "
                        "(%(default)s)")
    parser.add_argument("--cases", help="of part 1, some of "
                        + ",".join(loaded.CASES))
    parser.add_argument("--grows", default=",".join(counted.GROWTH),
                        help="of part 3, some of %(default)s")
    parser.add_argument("--rounds", type=int, metavar="N",
                        help="of part 1, of which the medians are (5)")
    parser.add_argument("--seconds", type=int, default=2, metavar="S",
                        help="that each contender takes in a round "
                        "(%(default)s)")
    parser.add_argument("--requests", type=int, metavar="N",
                        help="that are counted, and three times as many, in "
                        "parts 2 and 3 (500)")
    parser.add_argument("--markdown", metavar="FILE",
                        help="write what is printed there as well")
    parser.add_argument("--check", action="store_true",
                        help="fail if ours misses a goal")
    parser.add_argument("--quick", action="store_true",
                        help="parts 1 and 2 with two cases, one round of one "
                        "second and few requests")
    options = parser.parse_args()
    if options.quick:
        options.parts = "1,2" if options.parts == "1,2,3" else options.parts
        options.seconds = 1
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.requests = options.requests or (50 if options.quick else 500)
    options.parts = [int(part) for part in scene.choose(
        parser, options.parts, [str(part) for part in TOOLS])]
    if min(options.rounds, options.seconds, options.requests) < 1:
        parser.error("less than one of something cannot be measured")
    options.grows = scene.choose(parser, options.grows, counted.GROWTH)
    options.contenders = scene.choose(
        parser, options.contenders or ",".join(
            QUICK if options.quick else DEFAULT), CONTENDERS)
    cases = loaded.QUICK if options.quick else {
        name: case.counts for name, case in loaded.CASES.items()}
    options.cases = cases if options.cases is None else {
        name: cases.get(name, loaded.CASES[name].counts)
        for name in scene.choose(parser, options.cases, loaded.CASES)}
    return options


def machine():
    found = re.search(r"^model name\s*: (.*)", pathlib.Path(
        "/proc/cpuinfo").read_text(), re.MULTILINE)
    return (f"{found[1] if found else platform.machine()}, "
            f"{os.cpu_count()} cores, Linux {platform.release()}")


def play(options, notes):
    """What all parts have found."""
    print(f"{options.rounds} rounds of {options.seconds} s, "
          f"{options.requests} requests counted, on {machine()}.\n")
    taking_part, versions = scene.call_up(options.contenders)
    for part in list(options.parts):
        lacking = [tool for tool in TOOLS[part] if not shutil.which(tool)]
        if part == 1 and len(set(loaded.cores())) < 2:
            lacking.append("a second core")
        if lacking:
            notes.append(f"Part {part}: it takes {', '.join(lacking)}.")
            options.parts.remove(part)
    made = {"versions": versions}
    if 1 in options.parts:
        made["load"] = loaded.measure(taking_part, options, notes)
        print_load(made["load"], options.cases)
    names = able(options, notes)
    if 2 in options.parts:
        made["counts"], made["memory"] = count(names, options, notes)
        print_counts(made["counts"], made["memory"])
    if 3 in options.parts:
        made["growth"] = grow([name for name in names
                               if name != "ours-auto"], options, notes)
        print_growth(made["growth"])
    return made


def able(options, notes):
    """The contenders of parts 2 and 3 that nginx knows the directives of."""
    names = []
    for name in counted.CONTENDERS:
        if name == "ours-auto" and options.quick:
            continue
        reason = counted.contender(name).missing()
        if reason is None:
            names.append(name)
        else:
            notes.append(f"{counted.CONTENDERS[name]}: left out, {reason}")
    return names


def judge(made, options):
    """All goals of what was measured."""
    found = []
    if "load" in made:
        found += goals.of_load(made["load"], options.cases)
    if "counts" in made:
        found += goals.of_counts(made["counts"], options.requests)
    if "growth" in made:
        found += goals.of_growth(made["growth"], options.grows)
    return found


def main():
    options = parse()
    notes = []
    wanted = len(options.parts)
    tee = Tee()
    with contextlib.redirect_stdout(tee):
        made = play(options, notes)
        judged = judge(made, options)
        if notes:
            print("\nNot measured:\n", *(f"- {note}" for note in notes),
                  sep="\n")
        if judged:
            print("\nGoals:\n", *(f"- {line}" for line
                                  in goals.lines(judged)), sep="\n")
    if options.markdown:
        pathlib.Path(options.markdown).write_text("".join(tee.copy))
    if options.json:
        scene.write_json(options.json, {
            "machine": machine(), "rounds": options.rounds,
            "seconds": options.seconds, "requests": options.requests,
            **made, "not_measured": notes,
            "goals": [{"holds": holds, "about": about}
                      for holds, about in judged]})
    lost = len(options.parts) < wanted or not judged
    missed = not all(holds for holds, _ in judged)
    sys.exit(lost or options.check and missed)


if __name__ == "__main__":
    main()
