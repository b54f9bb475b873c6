"""What the benches share: the processes on both sides of a link, the
contenders that take part, and tables.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

import contenders as proxies                            # noqa: E402
from harness import link as links                       # noqa: E402

ORIGIN_PORT = 8000
PATIENCE = 15
#: What is later than this part of the round trip is doubtful.
LATE = 0.25
#: CPUs that have a control, at most: each has its packets on the link.
CONTROLS = 8


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

    def __init__(self, command, priority=2, descriptors=()):
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, pass_fds=descriptors)
        hurry(self._process.pid, priority)
        if self._process.stdout.readline() != "ready\n":
            raise Failure(f"{command} did not start")

    @property
    def pid(self):
        return self._process.pid

    def tell(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def start(self, start, moments):
        """Tells lib/timed.py when to send."""
        self.tell(json.dumps({"start": start, "moments": moments}))

    def finish(self, patience=PATIENCE):
        """Its report."""
        text, _ = self._process.communicate(timeout=patience)
        if not text:
            raise Failure(f"{self._process.args} ended without a report")
        return json.loads(text)


class Proxy:
    """A contender that runs on side a of the link, and accepts."""

    def __init__(self, link, contender, setting):
        self._contender = contender
        self._expected = None
        self._log = setting.directory / "output"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [*link.enter("a"), "setpriv", "--pdeathsig", "TERM",
                 *contender.configure(setting)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            self._wait(link, setting.port)
        except Failure:
            self.stop()
            raise

    @property
    def pid(self):
        return self._process.pid

    def expect(self, pattern):
        """Alerts that match it are part of the play."""
        self._expected = pattern

    def _wait(self, link, port):
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                link.connect("a", ("127.0.0.1", port)).close()
                return
            except OSError:
                time.sleep(0.05)
        raise Failure(f"the proxy did not start:\n{self.output()}")

    def output(self):
        """The end of what it has printed."""
        return self._log.read_text(errors="replace").strip()[-1000:]

    def check(self):
        """Fails if one of its processes has crashed, or the like."""
        for found in re.finditer(r".*\[(alert|emerg)\].*",
                                 self._log.read_text(errors="replace")):
            if not self._expected or not re.search(self._expected,
                                                   found.group()):
                raise Failure(found.group())

    def reload(self):
        self._process.send_signal(self._contender.reload)

    def stop(self, signals=(signal.SIGTERM, signal.SIGKILL)):
        for number in signals:
            if self._process.poll() is None:
                self._process.send_signal(number)
            try:
                self._process.wait(PATIENCE)
                return
            except subprocess.TimeoutExpired:
                pass


class Loopback:
    """Takes a link's place where there is none."""

    def __init__(self, *before):
        self._before = before

    def enter(self, _):
        """The beginning of a command, as of Link.enter."""
        return list(self._before)

    @staticmethod
    def connect(_, address):
        return socket.create_connection(address, PATIENCE)


@contextlib.contextmanager
def held_port():
    """A port that nobody else gets, for as long as the body takes.

    It is bound and does not listen: with SO_REUSEADDR, which all servers set,
    another socket may be bound to it and listen.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def origin_command(link, side, address, *words):
    return [*link.enter(side), sys.executable, str(HERE / "origin.py"),
            "--address", address, "--port", str(ORIGIN_PORT),
            *map(str, words)]


def load_command(link, program, *words):
    return [*link.enter("a"), sys.executable, str(HERE / program),
            "--port", str(proxies.PORT), *map(str, words)]


def start_controls(link):
    """lib/control.py on each CPU.

    They come as early as the link, so no proxy or origin can hold them up.
    """
    return [start_control(link, cpu)
            for cpu in sorted(os.sched_getaffinity(0))[:CONTROLS]]


def start_control(link, cpu):
    with link.socket_in("a", kind=socket.SOCK_DGRAM) as near, \
            link.socket_in("b", kind=socket.SOCK_DGRAM) as far:
        far.bind((link.b_address, 0))
        near.connect(far.getsockname())
        descriptors = near.fileno(), far.fileno()
        return Process(
            [sys.executable, str(HERE / "control.py"),
             "--near", str(descriptors[0]), "--far", str(descriptors[1]),
             "--cpu", str(cpu)], priority=3, descriptors=descriptors)


def finish_controls(controls):
    """The echoes of all."""
    return [echo for control in controls for echo in control.finish()]


def sleep_until(due):
    time.sleep(max(0, due - time.monotonic()))


@dataclasses.dataclass
class Scene:
    link: links.Link
    origin: Process
    proxy: Proxy
    directory: pathlib.Path
    #: What the origin says in the end.
    report: dict = None


def moments(seed, seconds, rate):
    """[[seconds, 1]] for the load: steady, at random."""
    chance = random.Random(seed)
    due, made = 0, []
    while True:
        due += chance.expovariate(rate)
        if due >= seconds:
            return made
        made.append([round(due, 6), 1])


@contextlib.contextmanager
def play(contender, rtt, origin_words, certificates=None, beside=(),
         **setting):
    """A Scene, for as long as the body takes.

    beside are the addresses of an origin that is on the proxy's own side, in
    127.0.0.0/8; without them it is on the other one.
    """
    link = links.Link(rtt / 2)
    hurry(link.pid, 3)
    try:
        with proxies.scratch() as directory:
            authority = None
            if certificates:
                authority, pair = certificates
                origin_words = [*origin_words, "--tls", *pair]
            side, bound, addresses = "b", link.b_address, [link.b_address]
            if beside:
                side, bound, addresses = "a", "0.0.0.0", beside
            origin = Process(origin_command(link, side, bound,
                                            *origin_words))
            servers = [f"{address}:{ORIGIN_PORT}" for address in addresses]
            scene = Scene(link, origin, None, directory)
            try:
                scene.proxy = Proxy(link, contender, proxies.Setting(
                    directory, servers[0], authority,
                    peers=tuple(servers[1:]), **setting))
                yield scene
            finally:
                if scene.proxy:
                    scene.proxy.stop()
                scene.report = origin.finish()
            scene.proxy.check()
    finally:
        link.close()


def make_certificates(directory):
    """(the CA's file, (certificate, key)) for the origin."""
    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, cwd=directory,
                       capture_output=True)
    os.chmod(directory, 0o755)
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


# options

def add_seed(made):
    made.add_argument("--seed", default=str(random.randrange(10 ** 6)),
                      help="of all that is random; printed")


def parser(bench, about, contenders, rtt=True):
    """An ArgumentParser with what all benches understand."""
    made = argparse.ArgumentParser(
        prog=f"bench/{bench}", description=f"{about}; see bench/README.md.")
    made.add_argument("--contenders",
                      help=f"some of {','.join(contenders)}")
    if rtt:
        made.add_argument("--rtt", type=float, default=20, metavar="MS",
                          help="the round trip to the origin (%(default)s)")
    made.add_argument("--json", metavar="FILE",
                      help="write all numbers there as well")
    made.add_argument("--install", action="store_true",
                      help="get the other proxies from Debian; none of "
                      "them is started as a service")
    made.add_argument("--as-is", action="store_true",
                      help="neither install nor build anything")
    return made


def choose(made, wanted, known):
    """The names in a list with commas; all of them must be known."""
    wanted = wanted.split(",")
    unknown = set(wanted) - set(known)
    if unknown:
        made.error(f"{', '.join(sorted(unknown))}: not one of "
                   + ",".join(known))
    return wanted


def choose_all(parser, options, default, contenders, modes):
    """The options, with the contenders and the modes that they name."""
    options.contenders = choose(parser, options.contenders or default,
                                contenders)
    options.modes = choose(parser, options.modes, modes)
    return options


def call_up(names):
    """([contenders that can take part], {name: version}); prints both."""
    able, versions = [], {}
    for contender in proxies.ALL:
        if contender.name not in names:
            continue
        reason = contender.missing()
        if reason is None:
            able.append(contender)
            versions[contender.name] = contender.version()
        remark = reason and f"left out, {reason}" or (
            versions[contender.name] + (contender.remark and
                                        f", {contender.remark}"))
        print(f"- {contender.label}: {remark}")
    sys.stdout.flush()
    return able, versions


def need_link(bench):
    reason = links.missing()
    if reason is not None:
        sys.exit(f"bench/{bench}: {reason}")


# what is printed

def table(columns, rows):
    """The lines of a table; columns is {heading: key in a row}."""
    yield "| " + " | ".join(columns) + " |"
    yield "|---" + "|---:" * (len(columns) - 1) + "|"
    for found in rows:
        yield "| " + " | ".join(str(found[key])
                                for key in columns.values()) + " |"


def percentile(values, percent):
    """The least value that so many of them do not exceed; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def write_json(path, found):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
        file.write("\n")
