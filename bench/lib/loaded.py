"""What a request costs under load: part 1 of bench/run.

The proxy has a core of its own.  wrk is the load and an nginx the origin;
they share another core if there are no more than two.  Each round has new
processes: which memory one got makes some hundredths, and stays with it.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import scene
from scene import Failure, proxies

HERE = pathlib.Path(__file__).resolve().parent
#: Clients up to which the proxies are started as for that many.
FEW = 32


@dataclasses.dataclass
class Case:
    label: str
    target: str
    counts: tuple                       #: of clients
    method: str = "GET"
    body: int = 0
    tls: bool = False                   #: to the origin
    small: bool = False                 #: request and response


CASES = {
    "small": Case("GET, 6 bytes", "/small", (1, 8, 64, 512), small=True),
    "10k": Case("GET, 10 KB", "/10k", (8, 64)),
    "1m": Case("GET, 1 MB", "/1m", (1, 8)),
    "chunked": Case("GET, 10 KB, chunked", "/chunked", (8, 64)),
    "post-1k": Case("POST, 1 KB", "/post", (8, 64), "POST", 1024,
                    small=True),
    "post-1m": Case("POST, 1 MB", "/post", (8,), "POST", 1 << 20),
    "tls": Case("GET, 6 bytes, TLS", "/small", (1, 8, 64), tls=True,
                small=True),
}
QUICK = {"small": (8,), "post-1k": (8,)}

COLUMNS = {
    "clients": "clients",
    "contender": "label",
    "CPU, µs": "cpu_us",
    "±": "cpu_us_error",
    "of stock's": "cpu_of_stock",
    "requests/s": "rate",
    "median, ms": "p50_ms",
    "99 %, ms": "p99_ms",
    "busy, %": "busy_percent",
    "failed": "failed",
}


# the machine

def cores():
    """(the proxy's, the load's, the origin's)"""
    found = sorted(os.sched_getaffinity(0))
    return found[0], found[1 % len(found)], found[2 % len(found)
                                                  if len(found) > 2
                                                  else 1 % len(found)]


def tree(pid):
    """A process and all that come from it."""
    found = [pid]
    for process in found:
        for path in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, path.read_text().split())
    return found


def pin(pid, core):
    """Keeps all threads of a tree on a core: some choose for themselves."""
    for process in tree(pid):
        for path in pathlib.Path(f"/proc/{process}/task").glob("*"):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(path.name), {core})


def cpu_ns(pid):
    """What the processes of a tree have taken, to the nanosecond.

    The number is what clock_getcpuclockid(3) makes of a process's.
    """
    taken = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            taken += time.clock_gettime_ns(~process << 3 | 2)
    return taken


# origin and load

def origin_configuration(directory, port, tls_port, pair):
    temp_paths = "\n".join(
        f"{name}_temp_path {directory}/{name}_temp;"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    part = 3413 * "x"
    return f"""
user root;
daemon off;
pid {directory}/origin.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    {temp_paths}
    default_type text/plain;
    sendfile on;
    open_file_cache max=100;
    open_file_cache_valid 1h;
    keepalive_requests {proxies.ENDLESS};
    keepalive_timeout 1h;
    client_max_body_size 0;
    client_body_buffer_size 2m;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        listen 127.0.0.1:{tls_port} ssl backlog=4096;
        ssl_certificate {pair[0]};
        ssl_certificate_key {pair[1]};
        ssl_protocols TLSv1.2 TLSv1.3;
        root {directory}/files;
        # as if it were a file, in one write
        location = /small {{
            add_header Last-Modified "Mon, 01 Jun 2026 00:00:00 GMT";
            add_header ETag '"6a1b2c3d-6"';
            add_header Accept-Ranges bytes;
            return 200 "hello\n";
        }}
        # what something is added to has no length; three chunks
        location = /chunked {{
            addition_types text/plain;
            add_before_body /part;
            add_after_body /part;
            return 200 {part};
        }}
        location = /part {{ return 200 {part}; }}
        # to mirror a body it must be read; then a file is not for POST
        location = /post {{ mirror /read; error_page 405 =200 /small; }}
        location = /read {{ internal; return 204; }}
    }}
}}
"""


class Origin:
    """An nginx on the origin's core."""

    def __init__(self, directory, certificates):
        self.authority, pair = certificates
        files = directory / "files"
        files.mkdir()
        os.chmod(directory, 0o755)
        (files / "post").write_bytes(b"hello\n")
        for name, size in (("10k", 10), ("1m", 1024)):
            (files / name).write_bytes(64 * size * b"0123456789abcde\n")
        self._ports = contextlib.ExitStack()
        self.port, self.tls_port = (
            self._ports.enter_context(scene.held_port()) for _ in range(2))
        path = directory / "origin.conf"
        path.write_text(origin_configuration(
            directory, self.port, self.tls_port, pair))
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "taskset", "-c",
             str(cores()[2]), proxies.settings.NGINX, "-p", str(directory),
             "-c", str(path), "-e", "stderr"], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + scene.PATIENCE
        while True:
            try:
                scene.Loopback.connect("b", ("127.0.0.1", self.port)).close()
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise Failure("the origin did not start") from error
                time.sleep(0.05)

    def stop(self):
        self._process.terminate()
        self._process.wait()
        self._ports.close()


def load(port, case, clients, seconds, scheme="http"):
    """What wrk says."""
    done = subprocess.run(
        ["taskset", "-c", str(cores()[1]), "wrk", "--threads", "1",
         "--connections", str(clients), "--duration", f"{seconds}s",
         "--timeout", f"{scene.PATIENCE}s", "--script", HERE / "load.lua",
         f"{scheme}://127.0.0.1:{port}{case.target}", "--", case.method,
         str(case.body)], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stderr.startswith("{"):
        raise Failure(f"wrk: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stderr)


# rounds

class Lane:
    """A contender that runs, and what has been measured of it."""

    def __init__(self, contender, origin, tls, clients, stack):
        self.contender = contender
        self.port = stack.enter_context(scene.held_port())
        port = origin.tls_port if tls else origin.port
        self.proxy = scene.Proxy(
            scene.Loopback("taskset", "-c", str(cores()[0])), contender,
            proxies.Setting(
                stack.enter_context(proxies.scratch()), f"127.0.0.1:{port}",
                origin.authority if tls else None, workers=1, tls13=tls,
                port=self.port, clients=clients))
        stack.callback(self.proxy.stop)

    def play(self, case, clients, seconds):
        """One round."""
        pin(self.proxy.pid, cores()[0])
        before = cpu_ns(self.proxy.pid)
        said = load(self.port, case, clients, seconds)
        taken = cpu_ns(self.proxy.pid) - before
        self.proxy.check()
        return {"cpu_us": taken / 1000 / said["requests"],
                "busy_percent": taken / said["us"] / 10, **served(said)}


def served(said):
    """What the clients see."""
    good = said["requests"] - said["not_2xx"]
    if good <= 0:
        raise Failure(f"no request was answered with 2xx: {said}")
    return {
        "rate": good / said["us"] * 10 ** 6,
        "p50_ms": said["p50_us"] / 1000,
        "p99_ms": said["p99_us"] / 1000,
        "failed": said["not_2xx"] + said["refused"] + said["broken"]
        + said["late"],
    }


def limit(name, clients, origin, options):
    """A row: what load and origin can do without a proxy."""
    case = CASES[name]
    port, scheme = origin.port, "http"
    if case.tls:
        port, scheme = origin.tls_port, "https"
    found = served(load(port, case, clients, options.seconds, scheme))
    found["rate"] = round(found["rate"])
    return {**dict.fromkeys(COLUMNS.values(), "-"), "case": name,
            "clients": clients, "contender": "none", "label": "no proxy",
            **found}


def error_of(values):
    """The standard error of their mean; 0 of one."""
    if len(values) < 2:
        return 0
    return statistics.stdev(values) / len(values) ** 0.5


def summary(name, clients, contender, rounds):
    """A row: medians of the rounds."""
    made = {"case": name, "clients": clients,
            "contender": contender.name, "label": contender.label,
            "rounds": len(rounds)}
    for key, digits in (("cpu_us", 2), ("rate", 0), ("p50_ms", 3),
                        ("p99_ms", 3), ("busy_percent", 0)):
        made[key] = round(statistics.median(
            found[key] for found in rounds), digits or None)
    made["failed"] = sum(found["failed"] for found in rounds)
    made["cpu_us_rounds"] = [round(found["cpu_us"], 3) for found in rounds]
    made["cpu_us_error"] = round(error_of(made["cpu_us_rounds"]), 2)
    return made


def against_stock(rows):
    """Adds how the CPU time compares, by the median of the rounds' ratios."""
    stock = next((made["cpu_us_rounds"] for made in rows
                  if made["contender"] == "stock"), None)
    for made in rows:
        made["cpu_of_stock"], made["cpu_of_stock_error"] = "-", None
        if stock and len(stock) == len(made["cpu_us_rounds"]):
            ratios = [mine / other for mine, other
                      in zip(made["cpu_us_rounds"], stock)]
            made["cpu_of_stock"] = round(statistics.median(ratios), 3)
            made["cpu_of_stock_error"] = round(error_of(ratios), 3)


def groups(cases):
    """{(TLS, clients that proxies are started for): [(case, clients)]}"""
    made = {}
    for name, counts in cases.items():
        for clients in counts:
            key = CASES[name].tls, max(FEW, clients)
            made.setdefault(key, []).append((name, clients))
    return made


class Group:
    """Cases that the same processes are measured in, and what was found."""

    def __init__(self, contenders, cells, origin, notes):
        self._left = list(contenders)
        self._cells = cells
        self._origin = origin
        self._notes = notes
        self._found = {cell: {one.name: [] for one in contenders}
                       for cell in cells}

    def play(self, number, tls, started_for, seconds):
        """One round of all cases, with new processes."""
        with contextlib.ExitStack() as running:
            lanes = []
            for contender in list(self._left):
                try:
                    lane = Lane(contender, self._origin, tls, started_for,
                                running)
                    self._warm_up(lane)
                    lanes.append(lane)
                except (Failure, OSError) as failure:
                    self._leave_out(contender, tls, failure)
            for cell in self._cells:
                for lane in lanes if number % 2 == 0 else reversed(lanes):
                    self._play_cell(cell, lane, seconds)

    def _warm_up(self, lane):
        """With as many clients as there will be."""
        name, clients = max(self._cells, key=lambda cell: cell[1])
        lane.play(CASES[name], clients, 1)

    def _leave_out(self, contender, tls, failure):
        note(self._notes,
             f"{contender.label}{' to TLS' * tls}: {failure}")
        self._left.remove(contender)
        for found in self._found.values():
            found.pop(contender.name, None)

    def _play_cell(self, cell, lane, seconds):
        name, clients = cell
        rounds = self._found[cell].get(lane.contender.name)
        if rounds is None:
            return
        try:
            rounds.append(lane.play(CASES[name], clients, seconds))
        except Failure as failure:
            note(self._notes, f"{lane.contender.label}, {CASES[name].label}, "
                              f"{clients} clients: {failure}")
            del self._found[cell][lane.contender.name]

    def rows(self, options):
        for (name, clients), found in self._found.items():
            made = [summary(name, clients, contender, found[contender.name])
                    for contender in self._left if contender.name in found]
            against_stock(made)
            yield from made
            yield limit(name, clients, self._origin, options)


def measure(contenders, options, notes):
    """The rows of all cases; adds what could not be measured to the notes."""
    rows = []
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(proxies.scratch())
        origin = Origin(directory, scene.make_certificates(directory))
        stack.callback(origin.stop)
        for (tls, started_for), cells in groups(options.cases).items():
            for contender in contenders:
                if tls and not contender.tls:
                    note(notes, f"{contender.label} to TLS: it speaks none "
                                "to origins.")
            group = Group([one for one in contenders if one.tls or not tls],
                          cells, origin, notes)
            for number in range(options.rounds):
                print(f"bench/run: {'TLS' if tls else 'TCP'}, up to "
                      f"{max(clients for _, clients in cells)} clients, "
                      f"round {number + 1}", file=sys.stderr)
                group.play(number, tls, started_for, options.seconds)
            rows += group.rows(options)
    order = list(CASES)
    return sorted(rows, key=lambda made: (order.index(made["case"]),
                                          made["clients"]))


def note(notes, text):
    """Says it once."""
    if text not in notes:
        notes.append(text)
