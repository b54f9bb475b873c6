"""nginx's clock, which a test puts forward: to play minutes in no time.

The kernel's own timers, those of the network among them, go on as before.
"""

import os
import struct
import subprocess

import pytest

from . import settings

#: Stands before the C library's function.
SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int
clock_gettime(clockid_t clock, struct timespec *now)
{
    int                    fd;
    void                  *map;
    static volatile long  *forward;

    if (syscall(SYS_clock_gettime, clock, now) == -1) {
        return -1;
    }

    if (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE) {
        return 0;
    }

    if (forward == NULL) {
        fd = open(getenv("TEST_CLOCK"), O_RDONLY);
        map = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
        close(fd);

        if (map == MAP_FAILED) {
            abort();
        }

        forward = map;
    }

    now->tv_sec += *forward / 1000;
    now->tv_nsec += *forward % 1000 * 1000000;

    if (now->tv_nsec >= 1000000000) {
        now->tv_sec++;
        now->tv_nsec -= 1000000000;
    }

    return 0;
}
"""


class Clock:
    """For the nginx that is started with this `env`.

    An event, such as a request, has to follow: a worker that sleeps looks at
    the clock as it wakes.
    """

    def __init__(self, stage):
        if settings.SANITIZED:
            pytest.skip("the sanitizers' library is to be first")
        self._path = stage.path("clock")
        self._forward = 0
        self.forward(0)
        library = stage.path("clock.so")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, "-xc", "-"],
                       input=SOURCE, text=True, check=True)
        self.env = {"LD_PRELOAD": library, "TEST_CLOCK": self._path}

    def forward(self, seconds):
        self._forward += round(seconds * 1000)
        with open(os.open(self._path, os.O_RDWR | os.O_CREAT), "r+b") as file:
            file.write(struct.pack("l", self._forward))
