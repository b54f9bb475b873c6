"""What the worker processes of an nginx take: time, memory, descriptors."""

import os
import pathlib
import re

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
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0, 0
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return (int(found[1]), descriptors) if found else (0, 0)


def sums(master):
    """(resident kilobytes, descriptors) of all that are there."""
    taken = [takes(pid) for pid in of(master)]
    return sum(kilobytes for kilobytes, _ in taken), sum(
        descriptors for _, descriptors in taken)
