"""A connection is not used when the origin is about to close it.

These behaviours are made of time: what is waited for is an age, never that
something may have happened.
"""

import os
import re
import select
import socket
import threading
import time

import pytest

from harness import http1, settings
from harness.crossing import SENT_AGAIN, unacknowledged

PASS = "myproxy_pass http://%{origin};"
TLS_PASS = "myproxy_pass https://%{origin}; myproxy_ssl_verify off;"
UP = "upstream app {{ server %{{origin}}; {} }}"
APP = "myproxy_pass http://app;"

#: Seconds after which origins close here, where it is not announced.
LIMIT = 0.4 * settings.SCALE


def hinting(*values):
    return http1.response(200, *(f"Keep-Alive: {value}" for value in values))


# what the origin announces (RFC 2068, section 19.7.1.1)

@pytest.mark.parametrize("values", [
    ["timeout=0"], ["timeout=0, max=100"], ["max=1"], ["max=0"],
    ["timeout=5, max=1"], ["Timeout=0"], ["TIMEOUT=0"], ["max=5,timeout=0"],
    ["timeout=5", "max=1"], ["x=1,\ttimeout=0"], ["seconds=9, min=9, max=1"],
    ["timeout=0\t"]])
def test_a_connection_that_ends_now_is_not_kept(stage, values):
    origin = stage.origin(hinting(*values))
    nginx = stage.nginx(location=PASS)
    for _ in range(2):
        response = nginx.get()
        assert response.status == 200
        assert response.header("Keep-Alive") is None
    assert origin.carried == [1, 1]


@pytest.mark.parametrize("values", [
    ["timeout=5"], ["timeout=5, max=100"], ["timeout=99999999999999999999"],
    ["timeout=-1"], ["timeout="], ["timeout"], ["=0"], ["timeout=0x0"],
    ["max="], ["max=99999999999999999999"], [""], [","], ["timeout=4294967"],
    ["xtimeout=0"], ["timeout=5=0"], ["seconds=0, min=0"]])
def test_other_hints_leave_it_kept(stage, values):
    origin = stage.origin(hinting(*values))
    nginx = stage.nginx(location=PASS)
    for _ in range(3):
        assert nginx.get().status == 200
    assert origin.carried == [3]


@pytest.mark.parametrize("cached, fresh, carried", [
    ([], ["timeout=0"], [2, 1, 1]), (["timeout=5"], ["max=2"], [3, 1]),
    (["timeout=0"], [], [1, 3]), (["max=1"], ["max=9"], [1, 3])])
def test_the_hint_is_not_that_of_the_cached_response(stage, cached, fresh,
                                                     carried):
    """Which a revalidation puts in the place of the one that has come."""
    def hints(values):
        return [f"Keep-Alive: {value}" for value in values]

    def script(conn):
        for _ in conn.each_request():
            if len(conn.origin.requests) == 1:
                conn.send(http1.response(200, "X-Accel-Expires: @1",
                                         'ETag: "tag"', *hints(cached)))
            else:
                conn.send(http1.response(304, *hints(fresh)))

    origin = stage.origin(script)
    nginx = stage.nginx(
        http="myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;",
        location=PASS + "myproxy_cache zone; myproxy_cache_revalidate on;")
    for _ in range(4):
        assert nginx.get().body == b"hello\n"
    assert origin.carried == carried


def test_max_may_be_constant(stage):
    origin = stage.origin(hinting("timeout=60, max=3"))
    nginx = stage.nginx(location=PASS)
    for _ in range(5):
        assert nginx.get().status == 200
    assert origin.carried == [3, 2]


def test_max_may_count_down(stage):
    def script(conn):
        left = 3
        for _ in conn.each_request():
            left -= 1
            conn.send(hinting(f"max={left}"))

    origin = stage.origin(script)
    nginx = stage.nginx(location=PASS)
    for _ in range(5):
        assert nginx.get().status == 200
    assert max(origin.carried) <= 3


@pytest.mark.parametrize("values, carried, closed", [
    (["timeout=60, max=2"], [2, 1], 1), (["timeout=60"], [3], 0),
    (["TIMEOUT=0"], [1, 1, 1], 3)])
def test_the_hint_of_a_handler_that_knows_nothing_of_it(stage, values, carried,
                                                        closed):
    origin = stage.origin(hinting(*values))
    nginx = stage.nginx(
        http=UP.format("reuse on;"),
        location="proxy_pass http://app; proxy_http_version 1.1;"
                 'proxy_set_header Connection "";')
    for _ in range(3):
        assert nginx.get().header("Keep-Alive") is None
    assert origin.carried == carried
    reasons = nginx.status()["total"]["connections"]["closed_by_reason"]
    assert reasons["announced"] == closed


def test_a_hint_is_of_the_attempt_that_it_came_with(stage):
    first = stage.origin(http1.response(503, "Keep-Alive: timeout=0"),
                         name="first")
    second = stage.origin(name="second")
    nginx = stage.nginx(
        http="upstream app { server %{first} max_fails=0;"
             "server %{second} backup; }",
        location=APP + "myproxy_next_upstream http_503;")
    for _ in range(3):
        assert nginx.get().status == 200
    assert (first.carried, second.carried) == ([1, 1, 1], [3])


def idle_for(conn):
    """Answer once; how long it was then until the other side closed."""
    conn.read_request()
    conn.send(hinting("timeout=2"))
    answered = time.monotonic()
    conn.wait_for_close()
    conn.idle = time.monotonic() - answered
    conn.exchange.wake()


def test_it_is_closed_before_the_announced_time(stage):
    origin = stage.origin(idle_for)
    nginx = stage.nginx(location=PASS)
    assert nginx.get().status == 200
    conn = origin.conns[0]
    stage.wait_until(lambda: hasattr(conn, "idle"))
    assert 1 < conn.idle < 2


def test_it_is_closed_before_the_configured_time(stage):
    origin = stage.origin(idle_for)
    nginx = stage.nginx(http=UP.format("reuse_expiry 1s;"), location=APP)
    assert nginx.get().status == 200
    conn = origin.conns[0]
    stage.wait_until(lambda: hasattr(conn, "idle"))
    assert 0.5 < conn.idle < 1


def test_the_round_trip_is_taken_from_the_configured_time(stage):
    """The next request takes half of one to arrive, and the response before
    it took half of one to come."""
    link = stage.link(round_trip_ms=400)
    origin = stage.origin(link=link)
    nginx = stage.nginx(link=link, http=UP.format("reuse_expiry 2s;"),
                        location=APP)
    assert nginx.get().status == 200
    stage.let_pass(1.4)
    assert nginx.get().status == 200
    assert origin.carried == [1, 1]


def test_keepalive_timeout_may_be_shorter(stage):
    origin = stage.origin(idle_for)
    nginx = stage.nginx(
        http=UP.format("keepalive 4; keepalive_timeout 500ms;"
                       "reuse_expiry 100s;"), location=APP)
    assert nginx.get().status == 200
    conn = origin.conns[0]
    stage.wait_until(lambda: hasattr(conn, "idle"))
    assert 0.3 < conn.idle < 2


def test_a_limit_below_the_margin_keeps_nothing(stage):
    origin = stage.origin()
    nginx = stage.nginx(http="reuse_expiry 10ms;", location=PASS)
    for _ in range(2):
        assert nginx.get().status == 200
    assert origin.carried == [1, 1]
    reasons = nginx.status()["total"]["connections"]["closed_by_reason"]
    assert reasons["expired"] > 0 and reasons["announced"] == 0
    assert nginx.logged(r'\[warn\].*no connection is reused with '
                        '"reuse_expiry 10ms", as it is too near its end')


@pytest.mark.parametrize("level", ["http", "upstream"])
def test_expiry_off_believes_nothing(stage, level):
    origin = stage.origin(hinting("timeout=0, max=1"))
    http = UP.format("reuse_expiry off;" if level == "upstream" else "")
    if level == "http":
        http += "reuse_expiry off;"
    nginx = stage.nginx(http=http, location=APP)
    for _ in range(3):
        assert nginx.get().status == 200
    assert origin.carried == [3]


def test_without_retry_and_expiry_nothing_is_measured(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http="reuse_retry off;" + UP.format("reuse_expiry off;"),
        server="location /measured { myproxy_pass http://%{origin}; }",
        location=APP)
    for target in ("/", "/measured") * 2:
        assert nginx.get(target).status == 200
    assert origin.carried == [2, 2]
    rtts = [server["round_trip_min_seconds"] is not None
            for upstream in nginx.status()["upstreams"]
            for server in upstream["servers"]]
    assert sorted(rtts) == [False, True]


def test_the_upstream_says_otherwise_than_http(stage):
    origin = stage.origin(hinting("timeout=0"))
    nginx = stage.nginx(http="reuse_expiry off;"
                        + UP.format("reuse_expiry auto;"), location=APP)
    for _ in range(2):
        assert nginx.get().status == 200
    assert origin.carried == [1, 1]


# what is learned

LEARNED = r"\[info\].*server 127.0.0.1:\d+ of upstream .* closes connections"
FORGOTTEN = r"\[info\].*no longer closes connections .* idle for \d+ ms"


class Closing:
    """An origin that closes what has been idle for LIMIT, while it may."""

    def __init__(self, stage, limit=LIMIT, *, taught=LIMIT, tls=None,
                 **config):
        self.stage = stage
        self.limit = limit
        self.taught = taught
        #: What is said before a connection is closed.
        self.last_words = b""
        #: Lines of what the origin answers, and what is called before.
        self.lines = []
        self.before_answer = lambda: None
        #: What was answered last.
        self.response = None
        self.origin = stage.origin(self._script, tls=tls)
        self.nginx = stage.nginx(
            **{"location": TLS_PASS if tls else PASS, **config})
        self.client = self.nginx.connect()

    def _script(self, conn):
        for _ in conn.each_request():
            self.before_answer()
            conn.respond(200, *self.lines)
            ready, _, _ = select.select([conn.sock], [], [], self.limit)
            if not ready:
                if self.last_words:
                    conn.send(self.last_words)
                conn.close()
                return

    def teach(self, client=None):
        """Let connections of that client's worker be closed until it has
        learned; how long they were idle by then, in seconds."""
        client = client or self.client
        self.limit = self.taught
        # ages that differ too much, as on a busy machine, teach nothing
        for _ in range(60):
            self.close_one(client)
            # what has been closed is known to nginx before it answers again
            assert client.get("/").status == 200
            lines = self.nginx.logged(LEARNED)
            if lines:
                break
        self.limit = 60
        return int(lines[0].split(" idle for ")[1].split()[0]) / 1000

    def close_one(self, client=None):
        """Let a connection be closed that has been idle for the limit."""
        before = self._closed()
        assert (client or self.client).get("/").status == 200
        self.stage.wait_until(lambda: self._closed() > before,
                              self.limit + 10)

    def _closed(self):
        return sum(conn.closed for conn in self.origin.conns)

    def opens(self, age, client=None):
        """Does a request open a connection, on a worker whose own one has
        been idle for so long?"""
        client = client or self.client
        assert client.get("/").status == 200
        count = self.origin.connections
        self.stage.let_pass(age)
        self.response = client.get("/")
        assert self.response.status == 200
        return self.origin.connections > count


def test_the_limit_is_learned(stage):
    closing = Closing(
        stage, location=PASS + "add_header X-Reason $reuse_reason;"
                               "add_header X-Idle $reuse_idle;")
    limit = closing.teach()
    assert 0.9 * LIMIT < limit
    server, = closing.nginx.status()["upstreams"][0]["servers"]
    assert server["learned_idle_limit_seconds"] == pytest.approx(limit)
    text, page = (closing.nginx.get(f"/reuse-status?format={form}",
                                    port="probe").body.decode()
                  for form in ("prometheus", "html"))
    line, = re.findall(r"^nginx_reuse_learned_idle_limit_seconds\{.*", text,
                       re.MULTILINE)
    assert line.endswith(f'server="{server["address"]}"}} {limit:.3f}')
    shown, milli = re.search(
        r'<td data-name="idle limit">([\d.]+)&nbsp;(m?)s', page).groups()
    assert float(shown) == pytest.approx(limit * (1000 if milli else 1),
                                         abs=0.1)
    assert not closing.opens(limit * 0.5)
    # about to be closed, for all that nginx knows
    assert closing.opens(limit * 1.05)
    assert closing.response.header("X-Reason") == "expired"
    # the other one was, not the connection that it got
    assert closing.response.header("X-Idle") == "0.000"

    # and as such it is counted, be it closed at once or when it has shown
    # whether the origin closes it
    def counted():
        total = closing.nginx.status()["total"]
        return (total["connections"]["closed_by_reason"]["expired"] == 1
                and total["attempts"]["new_by_reason"]["expired"] == 1)
    stage.wait_until(counted)


# something between forgets connections, and answers what follows with a reset

RESETS = r"\[info\].*server 127.0.0.1:\d+ of upstream .* resets connections"
NO_LONGER = r"\[info\].* no longer resets connections .* idle for \d+ ms"

#: Has the system forget a connection that is closed, without a word to the
#: other end: what comes for it later is answered with a reset.
TCP_REPAIR = 19

takes_root = pytest.mark.skipif(os.geteuid() != 0,
                                reason="TCP_REPAIR takes root")


class Forgetting:
    """An origin behind something that forgets what was idle for LIMIT."""

    def __init__(self, stage, *, tls=None, **config):
        self.stage = stage
        self.limit = LIMIT
        #: Whether the end is told after all.
        self.closes = False
        self.origin = stage.origin(self._script, tls=tls)
        self.nginx = stage.nginx(
            **{"location": TLS_PASS if tls else PASS, **config})
        self.client = self.nginx.connect()

    def _script(self, conn):
        for _ in conn.each_request():
            conn.respond()
            if self.limit and not select.select([conn.sock], [], [],
                                                self.limit)[0]:
                if not self.closes:
                    conn.sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
                conn.close()
                return

    def after(self, age, method="POST"):
        """The status of a request, sent so many seconds after the last."""
        end = time.monotonic() + age
        self.stage.wait_until(
            lambda: time.monotonic() >= end
            and (not self.limit
                 or all(conn.closed for conn in self.origin.conns)),
            age + 10)
        if method == "POST":
            return self.client.post("/", b"body").status
        return self.client.get("/").status

    def teach(self, method="POST"):
        """The statuses until it has learned."""
        assert self.client.post("/", b"body").status == 200
        statuses = []
        for _ in range(12):
            statuses.append(self.after(LIMIT, method))
            if self.nginx.logged(RESETS):
                break
        return statuses

    def is_tried(self, count):
        """Do requests that may be repeated try the limit so many times?"""
        for _ in range(60):
            assert self.after(LIMIT * 1.2, "GET") == 200
            if len(self.nginx.logged("Connection reset by peer")) >= count:
                return True
        return False


@takes_root
@pytest.mark.parametrize("tls", [None, "app.test"], ids=["plain", "tls"])
def test_resets_teach_as_well(stage, tls):
    forgetting = Forgetting(stage, tls=tls)
    assert forgetting.teach().count(502) == 3
    # no connection says that it has been forgotten: what was learned stays,
    # and a request that must not be repeated never tries it
    for _ in range(14):
        assert forgetting.after(LIMIT * 1.6) == 200
    assert not forgetting.nginx.logged(NO_LONGER)
    total = forgetting.nginx.status()["total"]
    assert total["stale_requests"]["unproven"] == 3


@takes_root
def test_a_trial_that_is_reset_confirms_the_limit(stage):
    """It costs the request nothing, and it does not come every time."""
    forgetting = Forgetting(stage)
    assert forgetting.teach().count(502) == 3
    count = len(forgetting.nginx.logged("Connection reset by peer"))
    assert forgetting.is_tried(count + 1)
    assert not forgetting.nginx.logged(NO_LONGER)
    for _ in range(4):
        assert forgetting.after(LIMIT, "GET") == 200
    assert len(forgetting.nginx.logged("Connection reset by peer")) \
        == count + 1
    assert forgetting.after(LIMIT) == 200


@takes_root
@pytest.mark.parametrize("location, method", [
    ("", "GET"), ("myproxy_next_upstream error non_idempotent;", "POST")])
def test_a_limit_from_resets_that_was_wrong_is_forgotten(stage, location,
                                                         method):
    forgetting = Forgetting(stage, location=PASS + location)
    forgetting.teach()
    forgetting.limit = None
    for _ in range(30):
        assert forgetting.after(LIMIT * 1.3, method) == 200
        if forgetting.nginx.logged(NO_LONGER):
            break
    assert forgetting.nginx.logged(NO_LONGER)
    count = forgetting.origin.connections
    assert forgetting.after(LIMIT * 1.2) == 200
    assert forgetting.origin.connections == count


@takes_root
@pytest.mark.parametrize("location, method", [
    ("", "POST"), ("myproxy_next_upstream off;", "GET"),
    ("myproxy_next_upstream timeout;", "GET")])
def test_a_request_that_cannot_be_repeated_tries_no_limit(stage, location,
                                                          method):
    forgetting = Forgetting(stage, location=PASS + location)
    assert forgetting.teach(method).count(502) == 3
    for _ in range(12):
        assert forgetting.after(LIMIT, method) == 200


@takes_root
def test_a_lower_reset_lowers_the_limit_at_once(stage):
    forgetting = Forgetting(stage)
    assert forgetting.client.post("/", b"body").status == 200
    ages = [2.4] * 8 + [1.3] * 6
    statuses = [forgetting.after(LIMIT * age) for age in ages]
    assert statuses.count(502) == 4
    assert statuses[6:8] == [200, 200]
    assert statuses[-4:] == [200] * 4


@takes_root
def test_closes_at_the_age_of_resets_tell_more(stage):
    """Some requests were too quick for an origin that closes all the same:
    the limit is as one that was learned from closes alone."""
    forgetting = Forgetting(stage)
    assert forgetting.teach().count(502) == 3
    forgetting.closes = True
    for _ in range(60):
        assert forgetting.after(LIMIT) == 200
        if forgetting.nginx.logged(LEARNED):
            break
    assert forgetting.nginx.logged(LEARNED)
    forgetting.limit = None
    assert forgetting.after(LIMIT) == 200
    forgetting.nginx.wait_log(FORGOTTEN)


@takes_root
def test_closes_much_later_than_resets_tell_nothing_more(stage):
    forgetting = Forgetting(stage)
    assert forgetting.teach().count(502) == 3
    forgetting.closes = True
    forgetting.limit = LIMIT * 1.4
    for _ in range(5):
        assert forgetting.after(LIMIT * 1.4) == 200
    assert not forgetting.nginx.logged(LEARNED)


@takes_root
def test_resets_below_what_is_answered_teach_nothing(stage):
    """They have another reason, such as the request."""
    def script(conn):
        for request in conn.each_request():
            if request.target == "/bad":
                conn.reset()
                return
            conn.respond()

    stage.origin(script)
    nginx = stage.nginx(location=PASS)
    client = nginx.connect()

    def after(age, target):
        stage.let_pass(age)
        return client.post(target, b"body").status

    assert client.post("/", b"body").status == 200
    for _ in range(4):
        assert after(0.2, "/bad") == 502
        assert client.post("/", b"body").status == 200
        assert after(0.3, "/") == 200
    assert not nginx.logged(RESETS)


class Hostile:
    """An origin that resets when a client asks for it."""

    def __init__(self, stage, **config):
        def script(conn):
            for request in conn.each_request():
                if request.target == "/bad":
                    conn.reset()
                    return
                conn.respond()

        self.stage = stage
        self.origin = stage.origin(script)
        self.nginx = stage.nginx(location=PASS, **config)
        self.client = self.nginx.connect()

    def after(self, age, target, method="POST"):
        self.stage.let_pass(age)
        if method == "POST":
            return self.client.post(target, b"body").status
        return self.client.get(target).status


def test_single_resets_put_off_no_trial(stage):
    """A client that can provoke resets: a few requests are enough to have
    connections not reused after some milliseconds, and for long."""
    hostile = Hostile(stage)
    ages = [0.9] * 3 + [0.8, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2]
    for age in ages:
        assert hostile.client.get("/").status == 200
        hostile.after(age, "/bad")
    # the attack is over.  8 times the limit, which is 0.2 s, is 1.6 s
    for _ in range(30):
        assert hostile.after(0.4, "/", "GET") == 200
        if hostile.nginx.logged(NO_LONGER):
            break
    assert hostile.nginx.logged(NO_LONGER)


def test_a_new_limit_is_tried_as_soon_as_the_first_one(stage):
    """A limit that was disproved does not put off the next one's trial."""
    hostile = Hostile(stage)
    for turn in range(3):
        for _ in range(4):
            # moments that are a second apart
            assert hostile.after(0.8, "/", "GET") == 200
            hostile.after(0.3, "/bad")
        assert len(hostile.nginx.logged(RESETS)) > turn
        begun = time.monotonic()
        for _ in range(60):
            assert hostile.after(0.4, "/", "GET") == 200
            if len(hostile.nginx.logged(NO_LONGER)) > turn:
                break
        # the limit is less than 0.4 s
        assert time.monotonic() - begun < (8 * 0.4 + 2) * settings.SCALE


def test_one_close_makes_no_limit(stage):
    closing = Closing(stage)
    assert closing.client.get("/").status == 200
    conn = closing.origin.conns[0]
    stage.wait_until(lambda: conn.closed)
    closing.limit = 60
    assert not closing.opens(LIMIT * 1.05)
    assert not closing.nginx.logged(LEARNED)


def test_closes_at_different_ages_make_no_limit(stage):
    closing = Closing(stage)
    for age in (LIMIT, LIMIT / 2, LIMIT / 4, LIMIT / 8):
        closing.limit = age
        closing.close_one()
    closing.limit = 60
    assert closing.client.get("/").status == 200
    assert not closing.nginx.logged(LEARNED)


def test_closes_before_one_that_was_older_do_not_count(stage):
    """An older connection has shown that they had another reason."""
    limit = max(LIMIT, 1.05)
    closing = Closing(stage, limit)
    closing.close_one()
    closing.close_one()
    closing.limit = 60
    assert not closing.opens(limit * 1.2)
    assert not closing.nginx.logged(LEARNED)
    closing.limit = limit
    closing.close_one()
    assert closing.client.get("/").status == 200
    assert not closing.nginx.logged(LEARNED)


def test_a_close_that_a_request_has_met_is_learned_from(stage):
    """The request is sent again, and the limit known in the end."""
    link = stage.link()
    gates = []

    def script(conn):
        gate = gates[conn.number - 1]
        conn.read_request()
        conn.respond()
        gate.wait()
        conn.close()

    origin = stage.origin(script, link=link)
    gates += [origin.gate() for _ in range(21)]
    nginx = stage.nginx(link=link, location=PASS)
    client = nginx.connect()
    assert client.get("/").status == 200
    for number, gate in enumerate(gates[:20], 1):
        end = time.monotonic() + LIMIT
        stage.wait_until(lambda: unacknowledged(nginx, origin) == 0)
        stage.wait_until(lambda: time.monotonic() >= end, LIMIT + 10)
        link.hold("a")
        link.hold("b")
        gate.open()
        stage.wait_until(lambda: link.queued("b") > 0)
        client.send(http1.request("POST", "/", body=b"x"))
        stage.wait_until(lambda: unacknowledged(nginx, origin) > 0)
        link.release("b")
        nginx.wait_log(SENT_AGAIN, count=number)
        link.release("a")
        assert client.read_response().status == 200
        if nginx.logged("closes connections"):
            break
    assert nginx.logged("closes connections")


def test_what_is_closed_at_once_makes_no_limit(stage):
    """A request could not have arrived in time."""
    link = stage.link(round_trip_ms=300)

    def script(conn):
        conn.read_request()
        conn.respond()
        conn.wait_until_delivered()

    origin = stage.origin(script, link=link)
    nginx = stage.nginx(link=link, location=PASS)
    for _ in range(4):
        assert nginx.get().status == 200
        stage.wait_until(lambda: nginx.status()["total"]["connections"]
                         ["open"] == 0)
    assert origin.carried == [1] * 4
    assert not nginx.logged("closes connections")


def test_a_limit_that_was_wrong_is_forgotten(stage):
    closing = Closing(stage)
    limit = closing.teach()
    assert closing.client.get("/").status == 200
    conn = closing.origin.conns[-1]
    # it outlives the limit, and is then closed by nginx
    closing.nginx.wait_log(FORGOTTEN)
    stage.wait_until(lambda: conn.closed)
    assert not closing.opens(limit * 1.05)


def test_a_limit_that_was_wrong_under_steady_traffic(stage):
    """No connection gets so old as to disprove it by itself."""
    closing = Closing(stage)
    limit = closing.teach()
    for _ in range(10):
        # the last one is not left to get older
        closing.opens(limit * 0.97)
        if closing.nginx.logged(FORGOTTEN):
            break
    assert closing.nginx.logged(FORGOTTEN)
    assert not closing.opens(limit * 0.97)


def test_a_connection_that_is_tested_does_not_outlive_its_worker(stage):
    closing = Closing(stage)
    limit = closing.teach()
    assert closing.opens(limit * 0.97)
    conn = closing.origin.conns[-2]
    closing.client.close()
    closing.nginx.stop()
    stage.wait_until(lambda: conn.closed)
    assert not closing.nginx.logged(FORGOTTEN)


def test_a_limit_is_not_exact(stage):
    """A connection that is a little older and alive does not disprove it."""
    closing = Closing(stage)
    limit = closing.teach()
    closing.limit = LIMIT * 1.15
    for _ in range(3):
        assert closing.opens(limit * 1.1)
    assert not closing.nginx.logged(FORGOTTEN)


@pytest.mark.parametrize("tls", [None, "app.test"], ids=["plain", "tls"])
def test_an_origin_that_has_a_last_word(stage, tls):
    """As those that say 408 before they close: it closes all the same."""
    closing = Closing(stage, tls=tls)
    closing.teach()
    closing.last_words = http1.response(408)
    closing.limit = LIMIT
    assert closing.client.get("/").status == 200
    conn = closing.origin.conns[-1]
    stage.wait_until(lambda: conn.closed)
    assert closing.client.get("/").status == 200
    assert not closing.nginx.logged(FORGOTTEN)


def test_what_one_worker_learns_the_others_know(stage):
    closing = Closing(stage, workers=2, events="accept_mutex off;",
                      location=PASS + "add_header X-Worker $pid;")
    clients = {}
    for _ in range(1000):
        client = closing.nginx.connect()
        clients[client.get("/").header("X-Worker")] = client
        if len(clients) == 2:
            break
    first, second = clients.values()
    limit = closing.teach(first)
    assert closing.opens(limit * 1.05, second)


def test_what_was_learned_outlives_a_reload(stage):
    closing = Closing(stage)
    limit = closing.teach()
    closing.nginx.reload()
    assert closing.opens(limit * 1.05, closing.nginx.connect())


def test_a_restart_teaches_nothing(stage):
    """Connections are closed that are younger than one that was used."""
    closing = Closing(stage, 60)
    assert not closing.opens(LIMIT * 1.5)
    closing.limit = 0.05
    clients = [closing.nginx.connect() for _ in range(9)]
    for client in clients:
        client.send(http1.request("GET", "/"))
    for client in clients:
        assert client.read_response().status == 200
    stage.wait_until(lambda: all(conn.closed for conn
                                 in closing.origin.conns[1:]))
    closing.limit = 60
    assert not closing.opens(LIMIT)
    assert not closing.nginx.logged(LEARNED)


def test_a_death_teaches_nothing(stage):
    """All connections are of one age, and none was ever older."""
    closing = Closing(stage, 60)
    clients = [closing.nginx.connect() for _ in range(9)]
    for client in clients:
        client.send(http1.request("GET", "/"))
    for client in clients:
        assert client.read_response().status == 200
    stage.let_pass(LIMIT)
    for conn in closing.origin.conns:
        conn.sock.shutdown(socket.SHUT_RDWR)
    stage.wait_until(
        lambda: closing.nginx.status()["total"]["connections"]["open"] == 0)
    assert not closing.nginx.logged(LEARNED)


def test_a_limit_that_has_become_shorter_is_learned(stage):
    closing = Closing(stage, 60)
    assert not closing.opens(LIMIT * 2)
    limit = closing.teach()
    assert closing.opens(limit * 1.05)
    # and forgotten, though none need get as old as those at first
    closing.nginx.wait_log(FORGOTTEN)


def test_a_learned_limit_holds_where_more_is_announced(stage):
    closing = Closing(stage)
    closing.lines = ["Keep-Alive: timeout=600"]
    limit = closing.teach()
    assert closing.opens(limit * 1.05)


def test_an_announced_limit_holds_where_more_was_learned(stage):
    closing = Closing(stage, taught=2)
    assert closing.teach() > 1.8
    closing.lines = ["Keep-Alive: timeout=1"]
    assert closing.opens(1.3)


def test_one_is_put_to_the_test_at_a_time(stage):
    """An origin may have a process for each connection."""
    closing = Closing(stage)
    limit = closing.teach()
    together = threading.Barrier(4)
    closing.before_answer = lambda: together.wait(settings.PATIENCE)
    clients = [closing.nginx.connect() for _ in range(4)]
    for age in (limit * 0.97, 0):
        for client in clients:
            client.send(http1.request("GET", "/"))
        for client in clients:
            assert client.read_response().status == 200
        stage.let_pass(age)
    # those of the second time, and one of the first
    connections = closing.nginx.status()["total"]["connections"]
    assert connections["open"] <= 4 + 1


def test_a_limit_is_learned_of_tls_origins(stage):
    """Which say the end in TLS before they end the connection."""
    def script(conn):
        for _ in conn.each_request():
            conn.respond()
            ready, _, _ = select.select([conn.sock], [], [], LIMIT)
            if not ready:
                conn.sock.unwrap()
                return

    origin = stage.origin(script, tls="app.test")
    nginx = stage.nginx(location=TLS_PASS)
    client = nginx.connect()
    for _ in range(20):
        assert client.get("/").status == 200
        conn = origin.conns[-1]
        stage.wait_until(lambda: conn.closed, LIMIT + 10)
        assert client.get("/").status == 200
        if nginx.logged(LEARNED):
            break
    assert nginx.logged(LEARNED)
