"""What `bench/limit` runs, see bench/README.md."""

import os
import selectors
import sys
import time

import clients
import goals
import scene

CONTENDERS = ("stock", "ours", "haproxy-always")
REQUESTS, QUICK = 20000, 2000
COLUMNS = {
    "": "label", "requests": "requests", "failed": "failed",
    "connections, most": "most", "seconds": "seconds",
    "mean ms": "mean", "99th ms": "late", "longest ms": "longest",
    "longest to mean": "ratio",
}


def ask(address, count, requests, patience):
    """[(status, seconds)] of so many, from so many clients at a time.

    What is not answered within patience seconds is "none", and nothing is
    asked after that.
    """
    deadline = time.monotonic() + patience
    selector = selectors.DefaultSelector()
    results, sent, left = [], {}, requests

    def send(client):
        client.open()
        client.send("GET", "/")
        sent[client] = time.monotonic()
        selector.register(client, selectors.EVENT_READ)

    for _ in range(min(count, requests)):
        send(clients.Client(address))
        left -= 1
    while sent:
        found = selector.select(max(0, deadline - time.monotonic()))
        if not found:
            return results + [("none", time.monotonic() - moment)
                              for moment in sent.values()]
        for key, _ in found:
            client = key.fileobj
            descriptor = key.fd
            outcome = client.read()
            if outcome is None:
                continue
            selector.unregister(descriptor if client.sock is None
                                else client)
            results.append((outcome, time.monotonic() - sent.pop(client)))
            if left:
                left -= 1
                send(client)
            else:
                client.close()
    return results


def measure(contender, options):
    link = scene.Loopback()
    with scene.proxies.scratch() as directory, \
            scene.held_port() as port, scene.held_port() as front:
        origin = scene.Process(
            [sys.executable, str(scene.HERE / "prefork.py"), "--port",
             str(port), "--slots", str(options.limit), "--delay",
             str(options.delay)], priority=1)
        proxy = None
        try:
            proxy = scene.Proxy(link, contender, scene.proxies.Setting(
                directory, f"127.0.0.1:{port}", None,
                workers=options.workers, spread=True, zone=True, port=front,
                limit=options.limit, queue=options.queue))
            started = time.monotonic()
            results = ask(("127.0.0.1", front), options.clients,
                          options.requests, options.patience)
            seconds = time.monotonic() - started
        finally:
            if proxy:
                proxy.stop()
            report = origin.finish()
        proxy.check()
    return row(contender, results, seconds, report)


def row(contender, results, seconds, report):
    times = [1000 * took for status, took in results if status == "200"]
    mean = sum(times) / len(times) if times else 0
    longest = max(times, default=0)
    return {
        "name": contender.name, "label": contender.label,
        "requests": len(results), "failed": len(results) - len(times),
        "most": report["most"], "seconds": round(seconds, 1),
        "mean": round(mean), "longest": round(longest),
        "late": round(scene.percentile(times, 99) or 0),
        "ratio": round(longest / mean, 2) if mean else 0,
    }


def judge(rows, options):
    for made in rows:
        if made["name"] == "ours":
            yield made["most"] <= options.limit, (
                f"at most {options.limit} connections: {made['most']}")
            yield made["failed"] == 0, f"none failed: {made['failed']}"
            yield made["ratio"] <= 2, (
                "the longest wait is at most twice the mean: "
                f"{made['ratio']}")


def parse():
    parser = scene.parser(
        "limit", "What becomes of requests where connections to an origin "
        "are limited", CONTENDERS, rtt=False)
    parser.add_argument("--limit", type=int, default=30, metavar="N",
                        help="connections, and processes of the origin "
                        "(%(default)s)")
    parser.add_argument("--queue", type=int, default=500, metavar="N",
                        help="requests that may wait (%(default)s)")
    parser.add_argument("--workers", type=int, default=16, metavar="N",
                        help="(%(default)s)")
    parser.add_argument("--clients", type=int, default=200, metavar="N",
                        help="(%(default)s)")
    parser.add_argument("--requests", type=int, metavar="N",
                        help=f"({REQUESTS}, or {QUICK} with --quick)")
    parser.add_argument("--quick", action="store_true",
                        help="fewer requests, one minute")
    parser.add_argument("--delay", type=float, default=20, metavar="MS",
                        help="that a request takes (%(default)s)")
    parser.add_argument("--patience", type=float, default=90, metavar="S",
                        help="for all that one proxy is asked (%(default)s)")
    parser.add_argument("--check", action="store_true",
                        help="fail if ours misses a goal")
    options = parser.parse_args()
    options.requests = options.requests or (QUICK if options.quick
                                            else REQUESTS)
    options.contenders = scene.choose(
        parser, options.contenders or ",".join(CONTENDERS), CONTENDERS)
    return options


def main():
    options = parse()
    scene.hurry(0, 1)
    print(f"An origin of {options.limit} processes, {options.delay:g} ms a "
          f"request; {options.workers} workers, {options.clients} clients, "
          f"on {os.cpu_count()} cores.\n")
    able, versions = scene.call_up(options.contenders)
    rows = [measure(contender, options) for contender in able]
    print("", *scene.table(COLUMNS, rows), sep="\n")
    judged = list(judge(rows, options))
    if judged:
        print("\nGoals:\n", *(f"- {line}" for line in goals.lines(judged)),
              sep="\n")
    if options.json:
        scene.write_json(options.json, {
            "versions": versions, "rows": rows,
            "goals": [{"holds": holds, "about": about}
                      for holds, about in judged]})
    sys.exit(bool(options.check
                  and not all(holds for holds, _ in judged)))


if __name__ == "__main__":
    main()
