"""What the worker processes of an nginx take: time, memory, descriptors; and
which connections they have.
"""

import contextlib
import ctypes
import os
import pathlib
import re
import socket

LIBC = ctypes.CDLL(None, use_errno=True)
PIDFD_GETFD = 438
TICKS = os.sysconf("SC_CLK_TCK")


def of(master):
    """The processes of its workers."""
    text = pathlib.Path(f"/proc/{master}/task/{master}/children").read_text()
    return [int(word) for word in text.split()]


def _times(pid):
    """(its own seconds, those of its children that have ended)."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0, 0
    fields = text.rpartition(")")[2].split()
    user, system, gone_user, gone_system = map(int, fields[11:15])
    return (user + system) / TICKS, (gone_user + gone_system) / TICKS


def cpu_seconds(master):
    """Of all workers that it has had."""
    return _times(master)[1] + sum(_times(pid)[0] for pid in of(master))


def takes(pid):
    """(resident kilobytes, descriptors); both are 0 if it has just ended."""
    try:
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0, 0
    resident = _kilobytes(pid, "VmRSS")
    return (resident, descriptors) if resident else (0, 0)


def own_memory(pid):
    """Resident kilobytes without files and shared memory."""
    return _kilobytes(pid, "RssAnon")


def _kilobytes(pid, name):
    """0 if it has just ended."""
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    return int(found[1]) if found else 0


def sums(master):
    """(resident kilobytes, descriptors) of all that are there."""
    taken = [takes(pid) for pid in of(master)]
    return sum(kilobytes for kilobytes, _ in taken), sum(
        descriptors for _, descriptors in taken)


# connections

TIME_WAIT = 6


def connections(pid):
    """[(its end, the other one, state, inode)] where that process is.

    These are those over IPv4 of its network namespace, whoever has them, and
    sockets that listen.  An end is (address, port).
    """
    text = pathlib.Path(f"/proc/{pid}/net/tcp").read_text()
    made = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        made.append((_end(fields[1]), _end(fields[2]), int(fields[3], 16),
                     int(fields[9])))
    return made


def _end(text):
    address, port = text.split(":")
    return socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)


def inodes(pid):
    """Those of the sockets that a process has."""
    made = set()
    for path in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(path))
            if found:
                made.add(int(found[1]))
    return made


def peers(pid, port):
    """The (address, port) of clients that a process has accepted on that port.

    Its descriptors are looked at, however many sockets there are besides.
    """
    made = set()
    handle = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            found = LIBC.syscall(PIDFD_GETFD, handle, int(name), 0)
            if found < 0:
                continue
            try:
                sock = socket.socket(fileno=found)
            except OSError:
                os.close(found)         # it is none
                continue
            with sock, contextlib.suppress(OSError):
                if (sock.family == socket.AF_INET
                        and sock.getsockname()[1] == port):
                    made.add(sock.getpeername())
    finally:
        os.close(handle)
    return made


def clients(pid, port):
    """The ports of the clients that a process has accepted on that port."""
    own = inodes(pid)
    return {other[1] for end, other, _, inode in connections(pid)
            if end[1] == port and other[1] and inode in own}


def connected(pid, address):
    """How many connections to it are where that process is.

    Those that only wait for late packets do not count; those that no process
    has a descriptor of, but a message on its way, do.
    """
    return sum(other == address and state != TIME_WAIT
               for _, other, state, _ in connections(pid))
