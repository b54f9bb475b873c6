"""What was said during a scenario, in order, and waiting for it."""

import threading
import time

from . import settings

SHOWN_BYTES = 1500
SHOWN_EVENTS = 300


class Exchange:
    """The record of one scenario.

    Origins, clients and nginx's log note here what happens.  Whoever waits
    for something is woken by each note.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._events = []
        self._start = time.monotonic()

    def note(self, who, what, data=b""):
        with self._changed:
            at = time.monotonic() - self._start
            self._events.append((at, who, what, bytes(data)))
            self._changed.notify_all()

    def wake(self):
        """Let those who wait look again, with nothing to be shown."""
        with self._changed:
            self._changed.notify_all()

    def wait_until(self, condition, timeout=None, what=None):
        """Wait until condition() is true; return what it returned.

        Conditions are looked at after each event, and now and then for
        what makes no event (a process that has gone, say).  One that looks
        at a connection or a request that is not there yet is not true yet.
        """
        if timeout is None:
            timeout = settings.PATIENCE
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                try:
                    result = condition()
                except IndexError:
                    result = None
                if result:
                    return result
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(
                        f"{what or 'the condition'} did not come true "
                        f"within {timeout:g} s")
                self._changed.wait(min(left, 0.02))

    def render(self):
        with self._changed:
            events = list(self._events)
        lines = []
        if len(events) > SHOWN_EVENTS:
            lines.append(f"({len(events) - SHOWN_EVENTS} events left out)")
            events = events[-SHOWN_EVENTS:]
        for at, who, what, data in events:
            lines.append(f"{at:8.3f}  {who} {what}")
            lines.extend("          | " + line for line in show(data))
        return "\n".join(lines)


def show(data):
    """The lines of what was sent, with each byte visible."""
    left_out = len(data) - SHOWN_BYTES
    if left_out > 0:
        data = data[:SHOWN_BYTES]
    lines = [repr(line)[2:-1] for line in data.splitlines(keepends=True)]
    if left_out > 0:
        lines.append(f"... and {left_out} bytes more")
    return lines
