"""Calls of the module that fail, as for lack of memory, one after another.

The module's objects are linked once more, with something before those of
nginx's functions that fail if there is no memory, or if the kernel has nothing
to give.  What nginx calls itself does not fail.
"""

import mmap
import os
import pathlib
import struct
import subprocess

import pytest

from . import settings

#: {what they return: {function: its parameters}}; None is what fails.
CALLS = {
    "void *": {
        "ngx_alloc": "size_t, void *",
        "ngx_calloc": "size_t, void *",
        "ngx_palloc": "void *, size_t",
        "ngx_pnalloc": "void *, size_t",
        "ngx_pcalloc": "void *, size_t",
        "ngx_create_pool": "size_t, void *",
        "ngx_pool_cleanup_add": "void *, size_t",
        "ngx_http_cleanup_add": "void *, size_t",
        "ngx_array_create": "void *, size_t, size_t",
        "ngx_array_push": "void *",
        "ngx_array_push_n": "void *, size_t",
        "ngx_list_push": "void *",
        "ngx_alloc_chain_link": "void *",
        "ngx_chain_get_free_buf": "void *, void *",
        "ngx_slab_alloc": "void *, size_t",
        "ngx_slab_calloc": "void *, size_t",
        "ngx_slab_calloc_locked": "void *, size_t",
        "ngx_get_connection": "int, void *",
        "ngx_http_script_run":
            "void *, void *, void *, size_t, void *",
        "ngx_resolve_start": "void *, void *",
    },
    "long": {
        "ngx_event_connect_peer": "void *",
        "ngx_event_pipe_add_free_buf": "void *, void *",
        "ngx_handle_read_event": "void *, unsigned long",
        "ngx_handle_write_event": "void *, size_t",
        "ngx_http_complex_value": "void *, void *, void *",
        "ngx_http_output_filter": "void *, void *",
        "ngx_http_upstream_create": "void *",
        "ngx_http_upstream_create_round_robin_peer": "void *, void *",
        "ngx_http_upstream_init_round_robin_peer": "void *, void *",
        "ngx_resolve_name": "void *",
        "ngx_ssl_create_connection": "void *, void *, unsigned long",
    },
}

#: The one with which the number is down to 0 fails, and is noted.
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    long  left;
    long  calls;
    char  failed[96];
} control_t;

static int
fails(const char *name, char *from)
{
    int                fd;
    Dl_info            module;
    static control_t  *control;

    if (control == NULL) {
        fd = open(getenv("TEST_NO_MEMORY"), O_RDWR);
        control = mmap(NULL, sizeof(control_t), PROT_READ|PROT_WRITE,
                       MAP_SHARED, fd, 0);
        close(fd);

        if (control == MAP_FAILED) {
            abort();
        }
    }

    control->calls++;

    if (control->left == 0 || --control->left) {
        return 0;
    }

    dladdr(from, &module);
    snprintf(control->failed, sizeof(control->failed), "%s %#lx", name,
             (long) (from - (char *) module.dli_fbase - 1));
    return 1;
}
"""


def _wrapper(returned, name, parameters):
    types = parameters.split(", ")
    declared = ", ".join(f"{kind} a{n}" for n, kind in enumerate(types))
    passed = ", ".join(f"a{n}" for n in range(len(types)))
    failure = "NULL" if returned == "void *" else "-1"
    return (f"{returned} __real_{name}({declared});\n"
            f"{returned} __wrap_{name}({declared})\n"
            f'{{ return fails("{name}", __builtin_return_address(0))\n'
            f"? ({returned}) {failure} : __real_{name}({passed}); }}\n")


def _objects():
    """Those that the module was linked from."""
    module = pathlib.Path(settings.MODULE)
    for directory in (module.parent / "objs", module.parent / "module/objs"):
        found = [*directory.glob("addon/*/*.o"),
                 *directory.glob("ngx_http_myproxy_module_modules.o")]
        if found:
            return found
    pytest.skip("the module's objects are not there")
    return []


class NoMemory:
    """For the nginx that is started with these `module` and `env`."""

    def __init__(self, stage):
        self.module = stage.path("no-memory.so")
        path = stage.path("no-memory")
        pathlib.Path(path).write_bytes(bytes(mmap.PAGESIZE))
        with open(path, "r+b") as file:
            self._control = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.env = {"TEST_NO_MEMORY": path}
        names = [name for calls in CALLS.values() for name in calls]
        sanitize = ["-fsanitize=address,undefined"] if settings.PRELOAD else []
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-fno-builtin", *sanitize,
             "-o", self.module, *_objects(), "-xc", "-",
             *(f"-Wl,--wrap={name}" for name in names)],
            input=SOURCE + "".join(
                _wrapper(returned, name, parameters)
                for returned, calls in CALLS.items()
                for name, parameters in calls.items()),
            text=True, check=True)

    def arm(self, number):
        """The call of that number from now on fails, from 1; 0: none."""
        self._control[:16 + 96] = struct.pack("ll96x", number, 0)

    @property
    def calls(self):
        """So many have been made since arm()."""
        return struct.unpack("l", self._control[8:16])[0]

    @property
    def failed(self):
        """What has failed since arm(), with its place, or None."""
        noted = self._control[16:16 + 96].rstrip(b"\0").decode()
        if not noted:
            return None
        name, offset = noted.split()
        place = subprocess.run(
            ["addr2line", "-e", self.module, offset], capture_output=True,
            text=True, check=True).stdout.strip()
        return f"{name} of {os.path.basename(place)}"
