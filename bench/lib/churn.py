"""What `bench/churn` runs, see bench/README.md."""

import collections
import os
import statistics
import sys
import time

import processes
import scene
import watch

CONTENDERS = ("ours-churn", "ours", "stock")
WORKERS = 4
CLIENTS = 8
#: Milliseconds that the origin keeps idle connections.
IDLE = 60000

#: What memory may grow by: the larger of a part, and of kilobytes.
GROWTH = 0.02
GROWTH_KB = 1024
#: Descriptors by which a median may differ.
SPARE = 2

COLUMNS = {
    "worker": "worker",
    "RSS, kB, second fifth": "memory_before",
    "last fifth": "memory_after",
    "most": "memory_most",
    "descriptors, second fifth": "descriptors_before",
    "the last": "descriptors_after",
    "the most": "descriptors_most",
}


def measure(contender, schedule, options):
    """({worker: samples}, what became of the requests, the origin)."""
    words = ["--idle", IDLE, "--first", IDLE, "--tls13"]
    with scene.play(contender, options.rtt, words, options.certificates,
                    workers=WORKERS, tls13=True, spread=True) as played:
        load = scene.Process(
            scene.load_command(played.link, "timed.py",
                               "--clients", CLIENTS), priority=1)
        start = time.monotonic()
        load.start(start, schedule)
        samples = collections.defaultdict(list)
        due = start
        while due <= start + 60 * options.minutes:
            scene.sleep_until(due)
            for pid in processes.of(played.proxy.pid):
                samples[pid].append(processes.takes(pid))
            due += options.every
        cpu = processes.cpu_seconds(played.proxy.pid)
        found = load.finish()
    return samples, found, played.report, cpu


def row(number, samples):
    """Of one worker; medians, as connections come and go."""
    fifth = max(1, len(samples) // 5)
    made = {"worker": number, "samples": samples}
    for name, values in (("memory", [memory for memory, _ in samples]),
                         ("descriptors", [count for _, count in samples])):
        made[f"{name}_before"] = statistics.median(values[fifth:2 * fifth])
        made[f"{name}_after"] = statistics.median(values[-fifth:])
        made[f"{name}_most"] = max(values)
    return made


def misses(rows, failed):
    """What has grown, or gone wrong, one line each."""
    if failed:
        yield f"{failed} requests failed"
    if len(rows) != WORKERS:
        yield f"{len(rows)} workers have been there, not {WORKERS}"
    for made in rows:
        before, after = made["memory_before"], made["memory_after"]
        if after - before > max(GROWTH * before, GROWTH_KB):
            yield (f"worker {made['worker']} has grown from {before:g} to "
                   f"{after:g} kB")
        before, after = made["descriptors_before"], made["descriptors_after"]
        if after - before > SPARE:
            yield (f"worker {made['worker']} had {before:g} descriptors, "
                   f"then {after:g}")


def parse():
    parser = scene.parser(
        "churn", "Memory and descriptors while warm connections are replaced"
        " all the time", CONTENDERS)
    scene.add_seed(parser)
    parser.add_argument("--minutes", type=float, default=10, metavar="N",
                        help="that it takes (%(default)s)")
    parser.add_argument("--every", type=float, default=5, metavar="S",
                        help="a sample is taken (%(default)s)")
    parser.add_argument("--rate", type=float, default=5, metavar="N",
                        help="requests a second (%(default)s)")
    parser.add_argument("--quick", action="store_true",
                        help="ten seconds, a sample each half of one")
    parser.add_argument("--check", action="store_true",
                        help="fail if memory or descriptors have grown")
    options = parser.parse_args()
    if options.quick:
        options.minutes, options.every = 1 / 6, 0.5
    if 60 * options.minutes / options.every < 10:
        parser.error("less than ten samples tell nothing")
    options.contenders = scene.choose(
        parser, options.contenders or CONTENDERS[0], CONTENDERS)
    return options


def main():
    options = parse()
    scene.hurry(0, 1)
    scene.need_link("churn")
    schedule = scene.moments(f"churn {options.seed}", 60 * options.minutes,
                             options.rate)
    print(f"Round trip {options.rtt:g} ms, TLS, {WORKERS} workers, "
          f"{options.minutes:.1f} minutes, seed {options.seed}, on "
          f"{os.cpu_count()} cores.\n")
    taking_part, versions = scene.call_up(options.contenders)
    missed = [] if taking_part else ["nobody takes part"]

    results = []
    with scene.proxies.scratch() as directory:
        options.certificates = scene.make_certificates(directory)
        for contender in taking_part:
            samples, found, origin, cpu = measure(contender, schedule,
                                                  options)
            rows = [row(number, samples[pid])
                    for number, pid in enumerate(sorted(samples))]
            failed = watch.failed(found)
            missed += misses(rows, failed)
            print(f"\n## {contender.label}: {origin['connections']} "
                  f"connections, {len(found)} requests, {failed} failed, "
                  f"{cpu:.1f} s of CPU\n")
            print(*scene.table(COLUMNS, rows), sep="\n")
            results.append({
                "contender": contender.name, "failed": failed,
                "requests": len(found), "cpu_s": round(cpu, 2),
                "connections": origin["connections"], "workers": rows})
    if missed:
        print("", *missed, sep="\n")
    if options.json:
        scene.write_json(options.json, {
            "seed": options.seed, "minutes": options.minutes,
            "versions": versions, "results": results, "missed": missed})
    sys.exit(not results or options.check and bool(missed))


if __name__ == "__main__":
    main()
