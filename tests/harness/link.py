"""Two network namespaces and a link with a real round trip between them."""

import ctypes
import functools
import itertools
import os
import re
import shutil
import socket
import subprocess
import threading

from . import settings

PROGRAM = settings.ROOT / "build" / "link"
NAMESPACES = "/run/netns"
CLONE_NEWNET = 0x40000000

#: The process that made a namespace is in its name.
NAME = re.compile(r"myproxy-(\d+)-\d+-[ab]")

_numbers = itertools.count(1)


@functools.lru_cache()
def missing():
    """What the machine lacks for a link; None if it has everything."""
    if os.geteuid() != 0:
        return "a link takes root"
    if not shutil.which("ip") or not shutil.which("nsenter"):
        return "a link takes ip and nsenter (iproute2, util-linux)"
    if not PROGRAM.exists():
        return "no build/link: make link"
    try:
        sweep()
        Link().close()
    except (OSError, subprocess.CalledProcessError, LinkError) as error:
        return f"no link can be made here: {error}"
    return None


def available():
    return missing() is None


def sweep():
    """Remove the namespaces of test processes that were killed."""
    if not os.path.isdir(NAMESPACES):
        return
    for name in os.listdir(NAMESPACES):
        found = NAME.fullmatch(name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            delete(name)


def delete(name):
    subprocess.run(["ip", "netns", "delete", name], check=False,
                   stdin=subprocess.DEVNULL, capture_output=True)


class LinkError(Exception):
    """The link did not start, or did not obey."""


class Link:
    """Side a, where the proxy is, and side b, where the origin is.

    Each packet travels for half the round trip.  What `hold` keeps and
    `drop` loses are the packets that travel from the named side; `forget`
    and `expire` make it a firewall that forgets, and says nothing; see
    tools/link/link.c.
    """

    a_address = "10.77.0.1"
    b_address = "10.77.0.2"

    def __init__(self, delay_ms=0):
        stem = f"myproxy-{os.getpid()}-{next(_numbers)}"
        self.namespace_a, self.namespace_b = f"{stem}-a", f"{stem}-b"
        self._made = []
        self._process = None
        self._lock = threading.Lock()
        try:
            for name in (self.namespace_a, self.namespace_b):
                subprocess.run(["ip", "netns", "add", name], check=True,
                               stdin=subprocess.DEVNULL, capture_output=True)
                self._made.append(name)
            self._process = subprocess.Popen(
                [PROGRAM, self.namespace_a, self.namespace_b],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True)
            if self._process.stdout.readline() != "ready\n":
                raise LinkError(self._process.stderr.read().strip())
            self.delay(delay_ms)
        except BaseException:
            self.close()
            raise

    # the link

    @property
    def pid(self):
        """The process that carries the packets."""
        return self._process.pid

    def delay(self, ms):
        """How long each packet travels from now on, each way."""
        self._order(f"delay {round(ms * 1000)}")

    def hold(self, side):
        """Keep what travels from that side ("a" or "b")."""
        self._order(f"hold {side.upper()}")

    def release(self, side):
        """Deliver what was kept, and go on."""
        self._order(f"release {side.upper()}")

    def drop(self, side):
        """Lose what is on its way from that side, and what follows."""
        self._order(f"drop {side.upper()}")

    def forget(self):
        """Lose what belongs to TCP connections that were there before."""
        self._order("forget")

    def expire(self, seconds):
        """Forget each connection that has no packet for so long; 0: none."""
        self._order(f"expire {round(seconds * 1000000)}")

    def count(self, side):
        """How many packets have come from that side."""
        return self._counts(side)[0]

    def queued(self, side):
        """How many packets from that side are on their way, or held."""
        return self._counts(side)[1]

    def is_acknowledged(self, side):
        """Whether all that connections of that side have sent has arrived.

        The kernel does not probe a connection before.
        """
        done = subprocess.run(self.enter(side) + ["ss", "-tinH"], check=True,
                              stdin=subprocess.DEVNULL, capture_output=True)
        return b"unacked:" not in done.stdout

    def _counts(self, side):
        answer = self._order(f"count {side.upper()}")
        return [int(number) for number in answer.split()[1:]]

    def _order(self, line):
        with self._lock:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer.startswith("ok"):
            raise LinkError(f"{line}: {answer or 'the link has gone'}")
        return answer

    # its ends

    def namespace(self, side):
        return {"a": self.namespace_a, "b": self.namespace_b}[side]

    def enter(self, side):
        """The words before a command that is to run on that side."""
        return ["nsenter", f"--net={NAMESPACES}/{self.namespace(side)}"]

    def socket_in(self, side, family=socket.AF_INET, kind=socket.SOCK_STREAM):
        """A socket on that side; it stays there whoever uses it."""
        return run_in(self.namespace(side),
                      lambda: socket.socket(family, kind))

    def listen_socket(self, side="b", port=0, backlog=256):
        """A listening socket at that side's address."""
        sock = self.socket_in(side)
        address = {"a": self.a_address, "b": self.b_address}[side]
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(backlog)
        return sock

    def connect(self, side, address, timeout=settings.PATIENCE):
        """A connection from that side to the address."""
        sock = self.socket_in(side)
        sock.settimeout(timeout)
        sock.connect(address)
        return sock

    def close(self):
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
            self._process.stderr.close()
            self._process = None
        for name in self._made:
            delete(name)
        self._made.clear()


def run_in(namespace, function):
    """What function() returns in a thread inside that namespace."""
    result = []

    def enter_and_run():
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"{NAMESPACES}/{namespace}", "rb") as file:
                if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
            result.append(function())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=enter_and_run)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]
