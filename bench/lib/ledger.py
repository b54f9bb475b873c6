"""What is known of each POST of a soak, in memory that all processes share.

A POST has a number, and a byte of the ledger: how often an origin has executed
it, and what the origin did to it.  In front of these is a page by which
soak.py rules the loads.
"""

import mmap
import struct

#: Numbers of POSTs; what is not used takes no memory.
POSTS = 1 << 32
PAGE = 4096

#: The number of executions, and then flags.
COUNT = 0x0f
#: The origin ended the connection after it had executed the request.
DROPPED = 0x10
#: The origin closed the connection, and found the request in its kernel.
UNREAD = 0x20

STOP, RELOADING = 0, 1
EPOCH, TALLIES = 8, 64


class Ledger:
    def __init__(self, path, create=False):
        with open(path, "w+b" if create else "r+b") as file:
            if create:
                file.truncate(PAGE + POSTS)
            self._memory = mmap.mmap(file.fileno(), PAGE + POSTS)

    # of a POST

    def execute(self, number):
        """How often it has been executed now."""
        at = PAGE + number
        if self._memory[at] & COUNT < COUNT:
            self._memory[at] += 1
        return self._memory[at] & COUNT

    def flag(self, number, flag):
        self._memory[PAGE + number] |= flag

    def executions(self, number):
        return self._memory[PAGE + number] & COUNT

    def has(self, number, flag):
        return bool(self._memory[PAGE + number] & flag)

    # of the loads

    @property
    def stopped(self):
        return bool(self._memory[STOP])

    def stop(self):
        self._memory[STOP] = 1

    @property
    def reloading(self):
        return bool(self._memory[RELOADING])

    @reloading.setter
    def reloading(self, value):
        self._memory[RELOADING] = bool(value)

    @property
    def epoch(self):
        """How many reloads there were."""
        return struct.unpack_from("Q", self._memory, EPOCH)[0]

    @epoch.setter
    def epoch(self, value):
        struct.pack_into("Q", self._memory, EPOCH, value)

    def tally(self, load):
        """How many requests of a load have ended."""
        return struct.unpack_from("Q", self._memory, TALLIES + 8 * load)[0]

    def set_tally(self, load, count):
        struct.pack_into("Q", self._memory, TALLIES + 8 * load, count)
