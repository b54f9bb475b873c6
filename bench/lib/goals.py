"""What `bench/run --check` holds `myproxy_pass` to.

Each goal is (whether it holds, None if it was not measured; what it is, with
the numbers).
"""

import counted
import loaded

#: {method: what of the stock proxy's instructions a request may take}
INSTRUCTIONS = {"GET": 0.85, "POST": 0.9}
#: {method: system calls that it may have more}; safe reuse looks at the
#: connection before a POST, see docs/safe-reuse.md
CALLS_MORE = {"GET": 0, "POST": 1}
#: System calls that the difference of two runs may be off by.
SLACK_CALLS = 3
#: Of the smallest case's instructions, what growth may be off by.
SLACK_GROWTH = 0.01
#: What of the stock proxy's CPU time a small request may take.
CPU_SMALL = 0.97
#: {TLS to the origin: requests a second, in those of the stock defaults}
RATE = {False: 2, True: 5}
#: With fewer clients no proxy is busy, and all wait for the machine to wake.
RATE_CLIENTS = 8
NGINX = ("ours", "stock", "stock-defaults")


def numbered(rows, key, **wanted):
    """{contender: row[key]} of the rows that are as wanted.

    A row has no key if that could not be measured.
    """
    return {made["contender"]: made[key] for made in rows if key in made
            and all(made[name] == value for name, value in wanted.items())}


def pair(values, other="stock"):
    """(ours, the other's); (None, None) if one was not measured."""
    if "ours" in values and other in values:
        return values["ours"], values[other]
    return None, None


def of_counts(rows, requests):
    slack = SLACK_CALLS / ((counted.TIMES - 1) * requests)
    for method, size in counted.METHODS.items():
        about = method if not size else f"{method} of {size} bytes"
        ours, stock = pair(numbered(rows, "instructions", method=method))
        if ours is None:
            yield None, f"instructions for a {about}"
        else:
            yield (ours <= INSTRUCTIONS[method] * stock,
                   f"instructions for a {about}: {ours:.0f}, at most "
                   f"{INSTRUCTIONS[method]} of stock's {stock:.0f}: "
                   f"{ours / stock:.3f}")
        ours, stock = pair(numbered(rows, "calls", method=method))
        if ours is None:
            yield None, f"system calls for a {about}"
            continue
        more = CALLS_MORE[method]
        yield (ours <= stock + more + slack,
               f"system calls for a {about}: {ours:g}, at most stock's "
               f"{stock:g}" + f" and {more} more" * bool(more))


def of_growth(rows, grows):
    for what in grows:
        about = counted.GROWTH[what][1]
        found = [made for made in rows if made["what"] == what
                 and "factor" in made]
        ours, stock = pair({made["contender"]: made["growth"]
                            - made["growth_of_malloc"] for made in found})
        if ours is None:
            yield None, f"growth with {about}"
            continue
        slack = SLACK_GROWTH * min(next(
            made["instructions"] for made in found
            if made["contender"] == "stock").values())
        yield (ours <= stock + slack,
               f"growth with {about}, without malloc's: {ours:+.0f}, at most "
               f"stock's {stock:+.0f}, within {slack:.0f}")


def of_load(rows, cases):
    for name, counts in cases.items():
        for clients in counts:
            found = [made for made in rows if made["case"] == name
                     and made["clients"] == clients]
            about = f"{loaded.CASES[name].label}, {clients} clients"
            yield of_cpu(found, loaded.CASES[name], about)
            if name in ("small", "tls") and clients >= RATE_CLIENTS:
                yield of_rate(found, loaded.CASES[name], about)
            if name == "small":
                yield from of_others(found, about)


def of_cpu(found, case, about):
    about = f"CPU time, {about}"
    mine = next((made for made in found if made["contender"] == "ours"), {})
    ratio = mine.get("cpu_of_stock", "-")
    if ratio == "-":
        return None, about
    if case.small:
        return (ratio <= CPU_SMALL,
                f"{about}: at most {CPU_SMALL} of stock's: {ratio:.3f}")
    error = mine["cpu_of_stock_error"]
    return (ratio <= 1 + error,
            f"{about}: at most stock's, but for the rounds' error of "
            f"{error:.3f}: {ratio:.3f}")


def of_rate(found, case, about):
    about = f"requests a second, {about}"
    ours, defaults = pair(numbered(found, "rate"), "stock-defaults")
    if ours is None:
        return None, about
    busy, _ = pair(numbered(found, "busy_percent"), "stock-defaults")
    wanted = RATE[case.tls]
    return (ours >= wanted * defaults,
            f"{about}: at least {wanted} times the stock defaults' "
            f"{defaults:.0f}: {ours:.0f}, {ours / defaults:.2f} times, "
            f"with the proxy busy for {busy:.0f} %")


def of_others(found, about):
    """CPU time against each proxy that is no nginx."""
    about = f"CPU time, {about}, less than"
    labels = numbered(found, "label")
    values = numbered(found, "cpu_us")
    for name, value in values.items():
        if name in NGINX or name == "none" or name.startswith("ours"):
            continue
        if "ours" in values:
            yield (values["ours"] < value,
                   f"{about} {labels[name]}'s {value:.2f} µs: "
                   f"{values['ours']:.2f} µs")


def lines(goals):
    """One for each goal."""
    for holds, about in goals:
        if holds is None:
            yield f"misses: {about}: not measured"
        else:
            yield f"{'holds' if holds else 'misses'}: {about}"
