"""What a run of requests and an origin's journal tell together.

Their times are of one clock, time.monotonic().
"""

import scene


def latencies_ms(found):
    """Of the requests that were answered with 2xx."""
    return [1000 * (answered - sent) for _, sent, answered, outcome
            in found.values() if outcome.startswith("2")]


def failed(found):
    return sum(not outcome.startswith("2")
               for _, _, _, outcome in found.values())


def waited(found, journal, rtt_ms):
    """The targets of the requests that waited for a handshake.

    Those that had been sent when the proxy did not have the connection yet
    that would bring them to the origin: half a round trip before the origin
    could read from it.  Whatever the proxy does behind its back, and
    whatever it says of itself, this is the same for all.
    """
    tolerance = rtt_ms / 1000 * scene.LATE
    travel = rtt_ms / 1000 / 2
    ready = journal["requests"]
    return [target for target, (_, sent, _, _) in found.items()
            if target in ready and sent + tolerance < ready[target] - travel]


def never_used(journal, rtt_ms):
    """How many connections were open and without a request at a time.

    What is on its way to a new connection arrives within a round trip from
    when that was ready, so that much does not count.
    """
    changes = []
    for ready, used, closed in journal["connections"]:
        begin, end = ready + rtt_ms / 1000, used or closed
        if begin < end:
            changes += [(begin, 1), (end, -1)]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def late_ms(found, start, moments):
    """How late the load was to send, in one of a hundred cases."""
    return scene.percentile(
        [1000 * (sent - start - moments[moment][0])
         for moment, sent, _, _ in found.values()], 99)


def add_latency(row, values, rtt_ms):
    """Median and 99th percentile, in milliseconds and in round trips."""
    for name, percent in (("median", 50), ("p99", 99)):
        value = scene.percentile(values, percent)
        row[f"{name}_ms"] = value and round(value, 1)
        row[f"{name}_rtt"] = value and round(value / rtt_ms, 2)
