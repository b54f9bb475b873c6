"""What a worker does for a request, counted: the parts 2 and 3 of bench/run.

Instructions are those of the worker itself, without the kernel's.  What is
counted is the difference between two numbers of requests, by the number of
requests that they differ by: all that is not done for a request cancels out.
"""

import contextlib
import copy
import dataclasses
import pathlib
import re
import shutil
import signal
import subprocess
import time
import typing

import exchanges
import processes
import scene
from scene import proxies

CALLGRIND = ("--tool=callgrind", "--instr-atstart=no")
MASSIF = ("--tool=massif",)
#: How many times as many requests the second number is.
TIMES = 3
#: Requests before anything is counted.
WARM = 20
#: Seconds in which `auto` has opened what it will.
SETTLE = 1.5

#: {method: the bytes of its body}
METHODS = {"GET": 0, "POST": 1024}
#: [(name, label, what its upstream has)]
CONTENDERS = {
    "stock": "nginx proxy_pass, keepalive",
    "ours": "myproxy_pass",
    "ours-auto": "myproxy_pass, reuse_warm auto",
}
#: {what grows: (its sizes, what it is)}
GROWTH = {
    "peers": ((1, 10, 100, 1000), "servers in the upstream"),
    "idle": ((10, 100, 1000, 10000), "idle connections in the pool"),
    "lines": ((1, 4, 16, 64), "lines of `set_header`"),
    "fields": ((1, 10, 100), "fields in the response's header"),
}
#: Connections, or requests, that memory is divided by.
MANY = 1000


@dataclasses.dataclass
class Case:
    """What the worker has to do with."""
    peers: int = 1
    idle: int = 0
    lines: int = 0
    fields: typing.Optional[int] = None

    @property
    def clients(self):
        """As many connections as must be kept."""
        return max(32, self.idle, self.peers)


def contender(name, lines=0):
    """Ours or the stock proxy, with so many lines of set_header."""
    ours = name.startswith("ours")
    location = proxies.OURS if ours else proxies.STOCK
    directive = "myproxy_set_header" if ours else "proxy_set_header"
    for number in range(lines):
        location += (f"\n            {directive} X-Field-{number} "
                     f"value-{number};")
    return proxies.NginxContender(name, CONTENDERS[name], proxies.nginx(
        "reuse_warm auto;" if name == "ours-auto" else "", location,
        load=ours, keepalive="" if ours else "keepalive 64;"))


@dataclasses.dataclass
class Worker:
    """An nginx of one process."""
    proxy: scene.Proxy
    port: int
    directory: pathlib.Path
    origin: exchanges.Origin

    def client(self):
        return exchanges.Client(self.port)

    def fill(self, count, when_held=None):
        exchanges.fill(self.port, self.origin, count, when_held)

    def resident(self):
        """Bytes."""
        return 1024 * processes.takes(self.proxy.pid)[0]

    # under valgrind

    def tell_valgrind(self, *words):
        tell_valgrind(self.directory, self.proxy.pid, *words)

    def _dump(self, number):
        return dump(self.directory, self.proxy.pid, number)

    def counted(self, number):
        """Instructions between that dump and the one before."""
        return total(self._dump(number))

    def counted_of_malloc(self, number):
        """Those of malloc() and free(), and what they call in their file."""
        text = self._dump(number).read_text()
        names, inside, of_call, malloc = {}, False, False, 0
        for line in text.splitlines():
            if found := re.match(r"(fl|fi|fe|cfi|cfl)=\((\d+)\) ?(.*)", line):
                kind, key, name = found.groups()
                names.setdefault(key, name)
                if kind == "fl":
                    inside = names[key].endswith("/malloc.c")
            elif line.startswith("calls="):
                of_call = True          # what was called comes in a line
            elif re.match(r"[-+*\d]", line):
                if inside and not of_call:
                    malloc += int(line.split()[1])
                of_call = False
        if not malloc:
            raise scene.Failure("callgrind knows no malloc.c, which takes "
                                "the package libc6-dbg")
        return malloc

    def heap(self):
        """Bytes that it has from malloc."""
        path = self.directory / "snapshot"
        self.tell_valgrind("snapshot", str(path))
        return int(re.search(r"^mem_heap_B=(\d+)", path.read_text(),
                             re.MULTILINE)[1])


def under_valgrind(contender, tool, directory):
    """That contender, run by a tool of valgrind."""
    made = copy.copy(contender)
    made.configure = lambda setting: [
        "valgrind", "-q", *tool, f"--vgdb-prefix={directory}/vgdb",
        f"--{tool[0].partition('=')[2]}-out-file={directory}/out.%p",
        *contender.configure(setting)]
    return made


def tell_valgrind(directory, pid, *words):
    subprocess.run(
        ["vgdb", f"--vgdb-prefix={directory}/vgdb", f"--pid={pid}", *words],
        check=True, capture_output=True, timeout=exchanges.PATIENCE)


def dump(directory, pid, number):
    """The file of a dump that a process was told to write."""
    return directory / f"out.{pid}.{number}"


def total(path):
    """All instructions in a dump."""
    return int(re.search(r"^totals: (\d+)", path.read_text(),
                         re.MULTILINE)[1])


@contextlib.contextmanager
def worker(name, case, tool=()):
    """A Worker, under that tool of valgrind if one is named."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(proxies.scratch())
        fields = exchanges.FIELDS
        if case.fields is not None:
            fields = exchanges.numbered(case.fields)
        origin = stack.enter_context(exchanges.Origin(case.peers, fields))
        setting = proxies.Setting(
            directory, origin.addresses[0], None,
            port=stack.enter_context(scene.held_port()),
            clients=case.clients, peers=tuple(origin.addresses[1:]),
            single=True)
        made = contender(name, case.lines)
        if tool:
            made = under_valgrind(made, tool, directory)
        proxy = scene.Proxy(scene.Loopback(), made, setting)
        # under valgrind it may take long to see a signal that it can catch
        stack.callback(proxy.stop, (signal.SIGKILL,))
        yield Worker(proxy, setting.port, directory, origin)
        proxy.check()


def warm_up(name, client, text, count):
    client.play(text, count)
    if name == "ours-auto":
        time.sleep(SETTLE)
        client.play(text, count)


def instructions(name, method, requests, case=Case()):
    """Of the worker for one request: (all, those of malloc)"""
    text = exchanges.request(method, METHODS[method])
    with worker(name, case, tool=CALLGRIND) as made:
        client = made.client()
        if case.idle:
            made.fill(case.idle)
        warm_up(name, client, text, case.peers + WARM)
        made.tell_valgrind("instrumentation", "on")
        for count in (requests, TIMES * requests):
            client.play(text, count)
            made.tell_valgrind("dump")
        client.close()
        return [(find(2) - find(1)) / ((TIMES - 1) * requests)
                for find in (made.counted, made.counted_of_malloc)]


def calls(name, method, requests):
    """{system call: how many of them the worker makes for one request}"""
    text = exchanges.request(method, METHODS[method])
    found = []
    with worker(name, Case()) as made:
        client = made.client()
        warm_up(name, client, text, WARM)
        for count in (requests, TIMES * requests):
            found.append(trace(made, lambda: client.play(text, count)))
        client.close()
    few, many = found
    made = {call: (many.get(call, 0) - few.get(call, 0))
            / ((TIMES - 1) * requests) for call in sorted({*few, *many})}
    return {call: round(number, 2) for call, number in made.items()
            if round(number, 2)}


def trace(made, body):
    """{system call: how many the worker makes while the body runs}"""
    path = made.directory / "strace"
    strace = subprocess.Popen(
        ["strace", "-c", "-o", path, "-p", str(made.proxy.pid)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True)
    try:
        said = strace.stderr.readline()
        if "attached" not in said:
            raise scene.Failure(f"strace: {said.strip()}")
        body()
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait()
        strace.stderr.close()
    lines = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$",
                       path.read_text(), re.MULTILINE)
    return {call: int(count) for count, call in lines if call != "total"}


def memory(name, count):
    """Bytes for an idle connection, and for a request in flight."""
    made = {}
    for what, tool in (("heap", MASSIF), ("rss", ())):
        with worker(name, Case(idle=count), tool) as played:
            taken = played.heap if tool else played.resident
            before, held, idle = grow(played, count, taken)
        made[f"idle_{what}"] = round((idle - before) / count)
        made[f"in_flight_{what}"] = round((held - before) / count)
    return made


def grow(played, count, taken):
    """What is taken before, during and after so many requests at a time."""
    def settle():
        # the ends of clients are seen before a request that comes later
        client = played.client()
        client.play(exchanges.request("GET"), WARM)
        client.close()
    settle()
    found = [taken()]
    played.fill(count, lambda: found.append(taken()))
    settle()
    found.append(taken())
    return found
