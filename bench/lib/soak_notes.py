"""What origins and loads of a soak tell soak.py while it runs: lines of JSON
in a file each.
"""

import json
import time


def number_of(target):
    """Of a POST; None for other requests, whose last part is no number."""
    last = target.partition("?")[0].rpartition("/")[2]
    return int(last) if last.isdigit() else None


class Notes:
    def __init__(self, path):
        self._file = open(path, "a", buffering=1, encoding="utf-8")

    def _write(self, **what):
        self._file.write(json.dumps(what) + "\n")

    def violation(self, text):
        self._write(kind="violation", text=text)

    def restart(self, name, begin, end):
        self._write(kind="restart", name=name, begin=begin, end=end)

    def swallowed(self, name):
        self._write(kind="swallowed", name=name, at=time.monotonic())

    def failure(self, **what):
        self._write(kind="failure", **what)


class Reader:
    """Gets what others have noted, as it comes."""

    def __init__(self, path):
        path.touch()
        self._file = path.open(encoding="utf-8")
        self._partial = ""

    def read(self):
        while line := self._file.readline():
            self._partial += line
            if not line.endswith("\n"):
                return
            line, self._partial = self._partial, ""
            yield json.loads(line)
