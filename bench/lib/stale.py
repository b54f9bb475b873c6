"""What `bench/stale` runs, see bench/README.md."""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

import contenders as proxies                            # noqa: E402
from harness import link as links                       # noqa: E402

ORIGIN_PORT = 8000
PATIENCE = 15
#: Closes later than this part of the round trip are doubtful.
LATE = 0.25


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


class Failure(Exception):
    """A proxy or an origin did not do its part."""


def hurry(pid, priority):
    """Real time: what else runs on this machine should not be measured.

    Link and origin come before proxies and load.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(priority))


class Process:
    """A program that says "ready", then at its input's end a report."""

    def __init__(self, command):
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True)
        hurry(self._process.pid, 2)
        if self._process.stdout.readline() != "ready\n":
            raise Failure(f"{command} did not start")

    def finish(self):
        text, _ = self._process.communicate(timeout=PATIENCE)
        return json.loads(text) if text else None


def origin_command(link, mode, options):
    wait = 300 - options.rtt / 2
    command = [*link.enter("b"), sys.executable, str(HERE / "origin.py"),
               "--address", link.b_address, "--port", str(ORIGIN_PORT),
               "--seed", f"{options.seed} {options.mode}",
               "--service", str(mode.service), *mode.options]
    if mode.restart:
        command += ["--idle", "60000", "--restart-every", "10",
                    "--restart-after",
                    str(mode.service + options.rtt / 2 + wait),
                    "--restart-spread", str(1.5 * options.rtt)]
    else:
        command += ["--idle", str(mode.idle)]
    if mode.tls:
        command += ["--tls", *options.certificate]
    return command


def load_command(link, mode, options):
    return [*link.enter("a"), sys.executable, str(HERE / "load.py"),
            "--port", str(proxies.PORT), "--requests", str(options.requests),
            "--wait", str(mode.idle - options.rtt / 2),
            "--spread", str(options.rtt), "--short", str(options.short),
            "--seed", f"{options.seed} {options.mode}"]


def wait_for(link, process):
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            link.connect("a", ("127.0.0.1", proxies.PORT)).close()
            return
        except OSError:
            time.sleep(0.05)
    raise Failure("the proxy did not start")


def stop(process):
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(PATIENCE)
            return
        except subprocess.TimeoutExpired:
            pass


def measure(contender, mode, options):
    """One contender in one mode: (what the load says, the origin says)."""
    link = links.Link(options.rtt / 2)
    hurry(link.pid, 3)
    try:
        with proxies.scratch() as directory:
            origin = Process(origin_command(link, mode, options))
            setting = proxies.Setting(
                directory, f"{link.b_address}:{ORIGIN_PORT}",
                options.authority if mode.tls else None)
            log = directory / "output"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [*link.enter("a"), "setpriv", "--pdeathsig", "TERM",
                     *contender.configure(setting)],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            try:
                wait_for(link, process)
                done = subprocess.run(load_command(link, mode, options),
                                      stdout=subprocess.PIPE, check=True)
            except Failure as failure:
                text = log.read_text(errors="replace").strip()
                raise Failure(f"{failure}:\n{text[-1000:]}") from None
            finally:
                stop(process)
                report = origin.finish()
            return json.loads(done.stdout), report
    finally:
        link.close()


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


def make_certificates(directory):
    """(the CA's file, (certificate, key)) for the origin."""
    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, cwd=directory,
                       capture_output=True)
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
           "-nodes")
    openssl(*new, "-x509", "-days", "30", "-subj", "/CN=Bench CA",
            "-keyout", "ca.key", "-out", "ca.crt")
    openssl(*new, "-subj", "/CN=app", "-keyout", "app.key",
            "-out", "app.csr")
    (directory / "names").write_text(
        f"subjectAltName=DNS:app,DNS:origin.test,IP:{links.Link.b_address}\n")
    openssl("x509", "-req", "-days", "30", "-in", "app.csr", "-CA", "ca.crt",
            "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names",
            "-out", "app.crt")
    return (str(directory / "ca.crt"),
            (str(directory / "app.crt"), str(directory / "app.key")))


# what is printed

def table(rows):
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|---" + "|---:" * (len(COLUMNS) - 1) + "|"
    for found in rows:
        yield "| " + " | ".join(str(found[key])
                                for key in COLUMNS.values()) + " |"


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
            if found["origin_late_ms"] > LATE * options.rtt:
                notes.append(f"{contender.label}: doubtful, the origin was "
                             f"{found['origin_late_ms']} ms late to close.")
    print(f"\n## {name}: the origin {mode.about}\n")
    print(*table(rows), sep="\n")
    if notes:
        print()
        print(*notes, sep="\n")
    sys.stdout.flush()
    return rows, len(able) - len(rows)


def parse():
    names = ",".join(contender.name for contender in proxies.ALL)
    parser = argparse.ArgumentParser(
        prog="bench/stale", description="What becomes of POSTs when an "
        "origin closes idle connections just as they are sent; see "
        "bench/README.md.")
    parser.add_argument("--requests", type=int, metavar="N",
                        help="per mode and contender (10000)")
    parser.add_argument("--modes", default=",".join(MODES),
                        help="some of %(default)s")
    parser.add_argument("--contenders", help=f"some of {names}")
    parser.add_argument("--rtt", type=float, default=20, metavar="MS",
                        help="the round trip to the origin (%(default)s)")
    parser.add_argument("--short", type=float, default=0, metavar="PERCENT",
                        help="of the bursts come long before the idle limit,"
                        " which tells who keeps connections (%(default)s)")
    parser.add_argument("--seed", default=str(random.randrange(10 ** 6)),
                        help="of all that is random; printed")
    parser.add_argument("--jobs", type=int, default=3,
                        help="contenders at a time (%(default)s)")
    parser.add_argument("--sequential", action="store_const", const=1,
                        dest="jobs", help="the same as --jobs 1")
    parser.add_argument("--json", metavar="FILE",
                        help="write all numbers there as well")
    parser.add_argument("--quick", action="store_true",
                        help="600 requests, stock and ours only")
    parser.add_argument("--install", action="store_true",
                        help="get the other proxies from Debian; none of "
                        "them is started as a service")
    parser.add_argument("--as-is", action="store_true",
                        help="neither install nor build anything")
    options = parser.parse_args()
    options.requests = options.requests or (600 if options.quick else 10000)
    options.contenders = choose(
        parser, options.contenders or ("stock,ours" if options.quick
                                       else names), names)
    options.modes = choose(parser, options.modes, ",".join(MODES))
    return options


def choose(parser, wanted, known):
    wanted = wanted.split(",")
    unknown = set(wanted) - set(known.split(","))
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: not one of {known}")
    return wanted


def main():
    options = parse()
    hurry(0, 1)
    reason = links.missing()
    if reason is not None:
        sys.exit(f"bench/stale: {reason}")
    print(f"Round trip {options.rtt:g} ms, {options.requests} POSTs a mode "
          f"in bursts of 30 ({options.short:g} % after a third of the idle "
          f"limit), seed {options.seed}, {options.jobs} contenders at a time"
          f" on {os.cpu_count()} cores.\n")
    taking_part, versions = [], {}
    for contender in proxies.ALL:
        if contender.name not in options.contenders:
            continue
        reason = contender.missing()
        if reason is None:
            taking_part.append(contender)
            versions[contender.name] = contender.version()
        remark = reason and f"left out, {reason}" or (
            versions[contender.name] + (contender.remark and
                                        f", {contender.remark}"))
        print(f"- {contender.label}: {remark}")
    sys.stdout.flush()

    rows, failures = [], 0
    with proxies.scratch() as directory:
        if "tls" in options.modes:
            os.chmod(directory, 0o755)
            options.authority, options.certificate = make_certificates(
                directory)
        for name in options.modes:
            found, lost = play(name, taking_part, options)
            rows += found
            failures += lost
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"seed": options.seed, "rtt_ms": options.rtt,
                       "short_percent": options.short,
                       "requests": options.requests, "versions": versions,
                       "rows": rows}, file, indent=1)
            file.write("\n")
    sys.exit(failures > 0 or not rows)


if __name__ == "__main__":
    main()
