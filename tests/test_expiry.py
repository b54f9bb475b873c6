"""A connection is not used when the origin is about to close it.

These behaviours are made of time: what is waited for is an age, never that
something may have happened.
"""

import select
import time

import pytest

from harness import http1, settings

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
    ["timeout=5", "max=1"], ["x=1,\ttimeout=0"]])
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
    ["xtimeout=0"], ["timeout=5=0"]])
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

    def __init__(self, stage, limit=LIMIT, *, tls=None, **config):
        self.stage = stage
        self.limit = limit
        #: What is said before a connection is closed.
        self.last_words = b""
        #: What was answered last.
        self.response = None
        self.origin = stage.origin(self._script, tls=tls)
        self.nginx = stage.nginx(
            **{"location": TLS_PASS if tls else PASS, **config})
        self.client = self.nginx.connect()

    def _script(self, conn):
        for _ in conn.each_request():
            conn.respond()
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
        self.limit = LIMIT
        for _ in range(20):
            before = self._closed()
            assert client.get("/").status == 200
            self.stage.wait_until(lambda: self._closed() > before, LIMIT + 10)
            # what has been closed is known to nginx before it answers again
            assert client.get("/").status == 200
            lines = self.nginx.logged(LEARNED)
            if lines:
                break
        self.limit = 60
        return int(lines[0].split(" idle for ")[1].split()[0]) / 1000

    def _closed(self):
        return sum(conn.closed for conn in self.origin.conns)

    def opens(self, age, client=None):
        """Does a request open a connection, on a worker whose own one has
        been idle for so long?"""
        client = client or self.client
        assert client.get("/").status == 200
        count = self.origin.connections
        end = time.monotonic() + age
        self.stage.wait_until(lambda: time.monotonic() >= end, age + 10)
        self.response = client.get("/")
        assert self.response.status == 200
        return self.origin.connections > count


def test_the_limit_is_learned(stage):
    closing = Closing(
        stage, location=PASS + "add_header X-Reason $reuse_reason;")
    limit = closing.teach()
    assert 0.9 * LIMIT < limit
    server, = closing.nginx.status()["upstreams"][0]["servers"]
    assert server["learned_idle_limit"] == pytest.approx(limit)
    assert not closing.opens(limit * 0.5)
    # about to be closed, for all that nginx knows
    assert closing.opens(limit * 1.05)
    assert closing.response.header("X-Reason") == "expired"

    # and as such it is counted, be it closed at once or when it has shown
    # whether the origin closes it
    def counted():
        total = closing.nginx.status()["total"]
        return (total["connections"]["closed_by_reason"]["expired"] == 1
                and total["requests"]["new_by_reason"]["expired"] == 1)
    stage.wait_until(counted)


def test_one_close_makes_no_limit(stage):
    closing = Closing(stage)
    assert closing.client.get("/").status == 200
    conn = closing.origin.conns[0]
    stage.wait_until(lambda: conn.closed)
    closing.limit = 60
    assert not closing.opens(LIMIT * 1.05)
    assert not closing.nginx.logged(LEARNED)


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
    for _ in range(4):
        closing.opens(limit * 0.97)
    closing.nginx.wait_log(FORGOTTEN)
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


def test_a_limit_that_has_become_shorter_is_learned(stage):
    closing = Closing(stage, 60)
    assert not closing.opens(LIMIT * 2)
    limit = closing.teach()
    assert closing.opens(limit * 1.05)


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
