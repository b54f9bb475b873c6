"""What `bench/stale` runs, see bench/README.md."""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import subprocess
import sys

import scene
from scene import Failure

CONTENDERS = ("stock", "stock-retry", "stock-reuse", "ours",
              "ours-no-expiry", "haproxy", "haproxy-retry", "varnish",
              "caddy", "apache", "lighttpd", "trafficserver")


@dataclasses.dataclass
class Mode:
    """An origin's ways; times are milliseconds."""

    about: str
    idle: float = 300
    options: tuple = ()
    service: float = 0
    restart: bool = False
    tls: bool = False


MODES = {
    "fin": Mode("closes connections that are idle for 300 ms"),
    "rst": Mode("resets connections that are idle for 300 ms",
                options=("--rst",)),
    "announced": Mode("says Keep-Alive: timeout=1, and does it", idle=1000,
                      options=("--announce", "1")),
    "dropped": Mode("as fin, and 5 % of the requests are executed, but not"
                    " answered: the connection ends", options=("--drop",
                                                               "5")),
    "restart": Mode("restarts at every tenth burst, and closes everything",
                    service=5, restart=True),
    "tls": Mode("as fin, over TLS", tls=True),
}

COLUMNS = {
    "contender": "label",
    "requests": "requests",
    "answered": "answered",
    "failed": "failed",
    "%": "failed_percent",
    "failed later": "failed_later",
    "failed, not executed": "failed_unexecuted",
    "executed": "executed",
    "executed twice": "executed_twice",
    "connections": "connections",
}


def origin_words(mode, options):
    wait = 300 - options.rtt / 2
    words = ["--seed", f"{options.seed} {options.mode}",
             "--service", mode.service, *mode.options]
    if mode.restart:
        words += ["--idle", 60000, "--restart-every", 10,
                  "--restart-after", mode.service + options.rtt / 2 + wait,
                  "--restart-spread", 1.5 * options.rtt]
    else:
        words += ["--idle", mode.idle]
    return words


def load_words(mode, options):
    return ["--requests", options.requests,
            "--wait", mode.idle - options.rtt / 2, "--spread", options.rtt,
            "--short", options.short,
            "--seed", f"{options.seed} {options.mode}"]


def measure(contender, mode, options):
    """One contender in one mode: (what the load says, the origin says)."""
    with scene.play(contender, options.rtt, origin_words(mode, options),
                    options.certificates if mode.tls else None,
                    workers=options.workers,
                    spread=options.workers is not None) as played:
        done = subprocess.run(
            scene.load_command(played.link, "load.py",
                               *load_words(mode, options)),
            stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout), played.report


def row(contender, mode_name, load, origin):
    executed = set(origin["executed"])
    requests, failed = load["requests"], len(load["failed"])
    return {
        "mode": mode_name,
        "contender": contender.name,
        "label": contender.label,
        "requests": requests,
        "answered": requests - failed,
        "failed": failed,
        "failed_percent": round(100 * failed / requests, 2),
        "failed_later": load["failed_later"],
        "failed_unexecuted": len(set(load["failed"]) - executed),
        "executed": len(executed),
        "executed_twice": len(origin["executed_twice"]),
        "connections": origin["connections"],
        "outcomes": load["outcomes"],
        "origin_late_ms": origin["late_ms"],
        "origin_restarts": origin["restarts"],
    }


# what is printed

def play(name, taking_part, options):
    """All contenders in one mode: prints the table.

    Returns its rows, and how many contenders could not be measured.
    """
    mode = MODES[name]
    options = argparse.Namespace(**vars(options), mode=name)
    rows, notes, able = [], [], []
    for contender in taking_part:
        if mode.tls and not contender.tls:
            notes.append(f"{contender.label}: speaks no TLS to origins.")
        else:
            able.append(contender)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = [(contender, pool.submit(measure, contender, mode, options))
                   for contender in able]
        for contender, future in running:
            try:
                found = row(contender, name, *future.result())
            except (Failure, subprocess.SubprocessError) as failure:
                notes.append(f"{contender.label}: {failure}")
                continue
            rows.append(found)
            if found["origin_late_ms"] > scene.LATE * options.rtt:
                notes.append(f"{contender.label}: doubtful, the origin was "
                             f"{found['origin_late_ms']} ms late to close.")
    print(f"\n## {name}: the origin {mode.about}\n")
    print(*scene.table(COLUMNS, rows), sep="\n")
    if notes:
        print()
        print(*notes, sep="\n")
    sys.stdout.flush()
    return rows, len(able) - len(rows)


def parse():
    parser = scene.parser(
        "stale", "What becomes of POSTs when an origin closes idle "
        "connections just as they are sent", CONTENDERS)
    scene.add_seed(parser)
    parser.add_argument("--requests", type=int, metavar="N",
                        help="per mode and contender (10000)")
    parser.add_argument("--modes", default=",".join(MODES),
                        help="some of %(default)s")
    parser.add_argument("--short", type=float, default=0, metavar="PERCENT",
                        help="of the bursts come long before the idle limit,"
                        " which tells who keeps connections (%(default)s)")
    parser.add_argument("--workers", type=int, metavar="N",
                        help="processes, or threads, of each proxy; nginx "
                        "listens with `reuseport` then (one process, or the "
                        "proxy's default)")
    parser.add_argument("--jobs", type=int, default=3,
                        help="contenders at a time (%(default)s)")
    parser.add_argument("--sequential", action="store_const", const=1,
                        dest="jobs", help="the same as --jobs 1")
    parser.add_argument("--quick", action="store_true",
                        help="600 requests, stock and ours only")
    options = parser.parse_args()
    options.requests = options.requests or (600 if options.quick else 10000)
    if options.workers is not None and options.workers < 1:
        parser.error("nobody works with less than one worker")
    default = "stock,ours" if options.quick else ",".join(CONTENDERS)
    return scene.choose_all(parser, options, default, CONTENDERS, MODES)


def of_workers(count):
    return "" if count is None else f", {count} workers each"


def main():
    options = parse()
    scene.hurry(0, 1)
    scene.need_link("stale")
    print(f"Round trip {options.rtt:g} ms, {options.requests} POSTs a mode "
          f"in bursts of 30 ({options.short:g} % after a third of the idle "
          f"limit), seed {options.seed}, {options.jobs} contenders at a time"
          f" on {os.cpu_count()} cores"
          f"{of_workers(options.workers)}.\n")
    taking_part, versions = scene.call_up(options.contenders)

    rows, failures = [], 0
    with scene.proxies.scratch() as directory:
        if "tls" in options.modes:
            options.certificates = scene.make_certificates(directory)
        for name in options.modes:
            found, lost = play(name, taking_part, options)
            rows += found
            failures += lost
    if options.json:
        scene.write_json(options.json, {
            "seed": options.seed, "rtt_ms": options.rtt,
            "short_percent": options.short, "requests": options.requests,
            "workers": options.workers,
            "versions": versions, "rows": rows})
    sys.exit(failures > 0 or not rows)


if __name__ == "__main__":
    main()
