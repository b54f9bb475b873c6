"""What `bench/spread` runs, see bench/README.md."""

import os
import sys
import time

import scene
import watch

proxies = scene.proxies

MODES = ("least", "random")
CONTENDERS = ("stock", "stock-time", "ours", "ours-age", "ours-age-warm")
WORKERS = 4
SERVERS = 4
#: The new half has its share with so many of the requests,
SHARE = 0.45
#: of those that come within so many seconds.
WINDOW = 2

COLUMNS = {
    "contender": "label",
    "share after, s": "after",
    "share in the end, %": "share",
    "requests": "requests",
    "failed": "failed",
    "99 %, ms": "slow",
    "connections": "connections",
    "most ended in 0.5 s": "together",
}


def add_contenders(age):
    """Those whose configuration has the age."""
    proxies.ALL.extend([
        proxies.NginxContender(
            "stock-time", f"nginx proxy_pass, keepalive_time {age:g}s",
            proxies.nginx(f"keepalive_time {1000 * age:.0f}ms;",
                          proxies.STOCK, load=False,
                          keepalive="keepalive 64;")),
        proxies.NginxContender(
            "ours-age", f"myproxy_pass, reuse_max_age {age:g}s",
            proxies.nginx(f"reuse_max_age {1000 * age:.0f}ms;",
                          proxies.OURS)),
        proxies.NginxContender(
            "ours-age-warm",
            f"myproxy_pass, reuse_max_age {age:g}s, reuse_warm auto",
            proxies.nginx(f"reuse_max_age {1000 * age:.0f}ms; "
                          "reuse_warm auto;", proxies.OURS)),
    ])


def measure(contender, mode, schedule, options):
    """(what became of the requests, what the fleet says)"""
    link = scene.Loopback()
    with scene.held_port() as port, proxies.scratch() as directory:
        fleet = scene.Process(
            [sys.executable, str(scene.HERE / "fleet.py"),
             "--port", str(port), "--servers", str(SERVERS),
             "--balancer", mode, "--takes", str(options.takes),
             "--seed", options.seed])
        proxy = None
        try:
            proxy = scene.Proxy(link, contender, proxies.Setting(
                directory, f"127.0.0.1:{port}", None, workers=WORKERS,
                spread=True, clients=options.clients))
            load = scene.Process(scene.load_command(
                link, "timed.py", "--clients", options.clients), priority=1)
            start = time.monotonic() + 0.1
            load.start(start, schedule)
            scene.sleep_until(start + options.before)
            fleet.tell("double")
            scene.sleep_until(start + options.before + options.seconds)
            found = load.finish(scene.PATIENCE + options.seconds)
        finally:
            if proxy:
                proxy.stop()
            report = fleet.finish()
        proxy.check()
    return found, report


def shares(report, seconds):
    """[(seconds since it doubled, the new half's share)], each half second.

    The share is of the requests of the WINDOW up to then.
    """
    doubled = report["doubled"]
    found, due = [], 0.5
    while due <= seconds:
        servers = [server for moment, server in report["requests"]
                   if max(0, due - WINDOW) <= moment - doubled < due]
        if servers:
            new = sum(server >= SERVERS for server in servers)
            found.append((due, new / len(servers)))
        due += 0.5
    return found


def row(contender, mode, found, report, options):
    run = shares(report, options.seconds)
    reached = next((due for due, share in run
                    if due >= min(WINDOW, options.seconds)
                    and share >= SHARE), None)
    doubled = report["doubled"]
    # from then on until the load is over
    ends = [int(2 * (end - doubled)) for end in report["ends"]
            if 0 <= end - doubled < options.seconds]
    times = [1000 * (answered - sent)
             for _, sent, answered, _ in found.values() if answered]
    return {
        "contender": contender.name, "label": contender.label, "mode": mode,
        "after": "never" if reached is None else f"{reached:g}",
        "reached_s": reached,
        "share": f"{100 * run[-1][1]:.0f}" if run else "-",
        "shares": [[due, round(share, 3)] for due, share in run],
        "requests": len(found), "failed": watch.failed(found),
        "slow": f"{scene.percentile(times, 99):.0f}",
        "connections": report["connections"],
        "together": max((ends.count(slot) for slot in set(ends)), default=0),
    }


def misses(rows):
    """What is not as it should be, one line each."""
    for found in rows:
        about = f"{found['mode']}, {found['label']}"
        if found["failed"]:
            yield f"{about}: {found['failed']} requests failed"
        if found["contender"].startswith("ours-age"):
            if found["reached_s"] is None:
                yield f"{about}: the new half never had its share"
        elif found["contender"] == "ours" and found["reached_s"]:
            yield f"{about}: the new half had its share without an age"


def parse():
    parser = scene.parser(
        "spread", "How long new servers behind one address wait for their "
        "share", CONTENDERS, rtt=False)
    scene.add_seed(parser)
    parser.add_argument("--modes", default="least,random",
                        help="the balancer before the fleet, some of "
                        f"{','.join(MODES)}")
    parser.add_argument("--age", type=float, default=10, metavar="S",
                        help="of reuse_max_age (%(default)s)")
    parser.add_argument("--before", type=float, default=15, metavar="S",
                        help="until the fleet doubles (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30, metavar="S",
                        help="after that (%(default)s)")
    parser.add_argument("--rate", type=float, default=300, metavar="N",
                        help="requests a second (%(default)s)")
    parser.add_argument("--takes", type=float, default=100, metavar="MS",
                        help="until a server answers (%(default)s)")
    parser.add_argument("--clients", type=int, default=100, metavar="N",
                        help="client connections (%(default)s)")
    parser.add_argument("--quick", action="store_true",
                        help="an age of two seconds, least, two contenders")
    parser.add_argument("--check", action="store_true",
                        help="fail if reuse_max_age gives no share, or "
                        "requests failed")
    options = parser.parse_args()
    default = ",".join(CONTENDERS)
    if options.quick:
        options.age, options.before, options.seconds = 2, 3, 4
        options.modes, default = "least", "ours,ours-age"
    return scene.choose_all(parser, options, default, CONTENDERS, MODES)


def main():
    options = parse()
    add_contenders(options.age)
    schedule = scene.moments(f"spread {options.seed}",
                             options.before + options.seconds, options.rate)
    print(f"{SERVERS} servers become {2 * SERVERS}, "
          f"{options.rate:g} requests a second of {options.takes:g} ms, "
          f"{WORKERS} workers, seed {options.seed}, on {os.cpu_count()} "
          "cores.\n")
    taking_part, versions = scene.call_up(options.contenders)
    rows = []
    for mode in options.modes:
        of_mode = []
        for contender in taking_part:
            found, report = measure(contender, mode, schedule, options)
            of_mode.append(row(contender, mode, found, report, options))
        print(f"\n## {mode}\n")
        print(*scene.table(COLUMNS, of_mode), sep="\n")
        sys.stdout.flush()
        rows += of_mode
    missed = list(misses(rows)) or ([] if rows else ["nobody takes part"])
    if missed:
        print("", *missed, sep="\n")
    if options.json:
        scene.write_json(options.json, {
            "seed": options.seed, "age": options.age, "versions": versions,
            "rows": rows, "missed": missed})
    sys.exit(not rows or options.check and bool(missed))


if __name__ == "__main__":
    main()
