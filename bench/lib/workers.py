"""What the worker processes of an nginx take: time, memory, descriptors."""

import os
import pathlib

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


def memory_kb(pid):
    """What of its memory is resident."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def sums(master):
    """(resident kilobytes, descriptors) of all that are there."""
    pids = of(master)
    return sum(map(memory_kb, pids)), sum(map(descriptors, pids))
