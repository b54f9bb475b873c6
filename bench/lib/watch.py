"""What a run of requests and an origin's journal tell together.

Their times are of one clock, time.monotonic().
"""

import scene

#: A load that begins later than this was stalled.
LATE_MS = 2


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


def bursts(found, start, moments, echoes):
    """What the machine did to each burst.

    {number of the moment: (ms that the control's slowest echo took, ms that
    the load was late to begin)}; the echoes are those that were on their way
    between the burst's moment and its last answer.  Requests after the first
    one do not tell how late the load was: the proxy is at work by then.
    """
    exchanges = {}
    for moment, *times, _ in found.values():
        exchanges.setdefault(moment, []).append(times)
    made = {}
    for moment, burst in exchanges.items():
        begin = start + moments[moment][0]
        end = max(answered or sent for sent, answered in burst)
        echo_ms = 1000 * max(back - due for due, back in echoes
                             if due < end and back > begin)
        late = 1000 * (min(sent for sent, _ in burst) - begin)
        made[moment] = round(echo_ms, 2), round(late, 2)
    return made


def disturbed(burst, rtt_ms):
    """Whether the machine stalled during what bursts() says of one."""
    echo_ms, late = burst
    return echo_ms > slow_ms(rtt_ms) or late > LATE_MS


def slow_ms(rtt_ms):
    """What the control takes longer than only if the machine stalls."""
    return 1.1 * rtt_ms + 1


def add_latency(row, values, rtt_ms):
    """Median and 99th percentile, in milliseconds and in round trips."""
    for name, percent in (("median", 50), ("p99", 99)):
        value = scene.percentile(values, percent)
        row[f"{name}_ms"] = value and round(value, 1)
        row[f"{name}_rtt"] = value and round(value / rtt_ms, 2)
