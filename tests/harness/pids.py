"""A namespace of process numbers, in which the next one can be chosen."""

import os
import shutil
import subprocess

from . import settings

#: nginx's master stays outside.  Workers are inside, and so is the process
#: number 1 there, without which no other could be made.
ENTER = """
    setpriv --pdeathsig KILL sleep infinity > /dev/null 2>&1 &
    exec "$@"
"""

LAST = "/proc/sys/kernel/ns_last_pid"


def missing():
    """What the machine lacks for it; None if it has everything."""
    if os.geteuid() != 0:
        return "a namespace takes root"
    for program in ("unshare", "nsenter", "setpriv"):
        if not shutil.which(program):
            return f"a namespace takes {program}"
    if not os.access(LAST, os.W_OK):
        return f"{LAST} cannot be written"
    return None


def config():
    """For stage.nginx: its workers have numbers of their own."""
    env = {}
    if settings.SANITIZED:
        # leaks are looked for in /proc, where the numbers are other ones
        env["ASAN_OPTIONS"] = (os.environ.get("ASAN_OPTIONS", "")
                               + ":detect_leaks=0")
    return {"before": ["unshare", "--pid", "sh", "-c", ENTER, "sh"],
            "env": env}


def workers(nginx):
    """The workers, as nginx.workers(), without the first process."""
    return [pid for pid in nginx.workers() if number(pid) not in (1, None)]


def number(pid):
    """The number that a process has inside; None if it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            line, = (line for line in file if line.startswith("NSpid:"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(line.split()[-1])


def choose_next(pid, wanted):
    """Have the next process beside `pid` get that number, if it is free."""
    subprocess.run(
        enter(pid) + ["sh", "-c", f"echo {wanted - 1} > {LAST}"], check=True)


def enter(pid):
    """The words before a command that is to be a process beside `pid`."""
    return ["nsenter", f"--pid=/proc/{pid}/ns/pid"]
