"""What is promised of connections holds for those that were parked."""

import select

import pytest

from harness import http1, settings
from harness.crossing import SENT_AGAIN, Scene
from harness.nginx import version
from harness.workers import Workers, waiting_origin
from test_handover import APP, first_and_second
from test_undelivered import CLOSED, PASS, RESET, close, read_and, reset

TOLD = "myproxy_set_header X-Worker $pid;"


# sent again

class Handed(Scene):
    """The connection is parked, and the client is another worker's."""

    def __init__(self, stage, end, **more):
        super().__init__(
            stage, end, workers=2, location=PASS + TOLD, http=APP.format(""),
            server="location = /who { return 200; }", **more)
        stage.wait_until(lambda: self._connections()["parked"] == 1)
        self.opened_by = int(self.origin.conns[0].requests[0].header(
            "X-Worker"))
        self.nginx.pause_worker(self.opened_by)
        self.client = self.nginx.connect()
        assert self.client.get("/who").status == 200
        self.nginx.resume_worker(self.opened_by)

    def _connections(self):
        return self.nginx.status()["total"]["connections"]

    def check(self, received, proof=None):
        """It was taken over, and the request came that often."""
        assert self._connections()["taken_over"] == 1
        assert self.received() == received
        assert bool(self.nginx.logged(SENT_AGAIN)) == (proof is not None)
        if proof:
            assert self.nginx.logged(proof)
            assert not self.errors()
            again = self.origin.requests[-1]
            assert int(again.header("X-Worker")) != self.opened_by


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_closed_before_the_request_arrived(stage, method):
    scene = Handed(stage, close)
    scene.cross(method)
    scene.meet()
    assert scene.response().status == 200
    scene.check(1, CLOSED)


def test_reset_before_the_request_could_arrive(stage):
    half = 0.4 * min(settings.SCALE, 2)
    scene = Handed(stage, reset, round_trip_ms=2000 * half, acquainted=3)
    scene.end()
    stage.let_pass(half / 2)
    scene.send()
    assert scene.response().status == 200
    scene.check(1, RESET)


@pytest.mark.parametrize("end", [close, reset], ids=["close", "reset"])
def test_received_and_then_ended(stage, end):
    scene = Handed(stage, read_and(end))
    scene.gate.open()
    scene.send()
    assert scene.response().status == 502
    scene.check(1)


# what has arrived meanwhile

@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("end", ["bytes", "end"])
def test_no_request_is_sent_where_something_has_arrived(stage, method, end):
    """Sooner, most times, than a worker looks at all that are parked."""
    gates, acted = [], []

    def script(conn):
        conn.read_request()
        conn.respond()
        if conn.number % 2 == 0:
            # one that ends by itself, so that each turn begins with none
            return
        gates[conn.number // 2].wait()
        if end == "bytes":
            conn.send(http1.response(body=b"for someone else"))
        else:
            conn.half_close()
        conn.wait_until_delivered()
        acted.append(conn)
        stage.exchange.wake()
        conn.serve(http1.response(body=b"late"))

    origin = stage.origin(script)
    gates.extend(origin.gate() for _ in range(4))
    workers = Workers(stage)
    first, second = first_and_second(workers)
    for turn, gate in enumerate(gates):
        assert workers.how(first) == "new"
        workers.wait_parked()
        gate.open()
        stage.wait_until(lambda: len(acted) == turn + 1)
        response = workers.ask(second, method=method, body=b"body")
        assert response.header("X-Connection") == "new"
        assert response.body == b"hello\n"
        workers.wait_open(0)
    assert origin.carried == [1] * 8
    total = workers.nginx.status()["total"]
    assert set(total["stale_requests"].values()) == {0}
    why = total["attempts"]["new_by_reason"]
    assert why["stale"] > 0
    assert why["stale"] + why["empty"] == 8


# limits

def test_the_time_of_a_connection_counts_on(stage):
    """It is used all the time, by one worker and the other."""
    origin = stage.origin()
    workers = Workers(stage, "myproxy_pass http://app;", http=APP.format(
        "keepalive 4; keepalive_time 2s; keepalive_requests 100000;"))
    turn = 0

    def is_left_alone():
        found = workers.connections
        return found["open"] == found["parked"]

    while origin.connections < 2:
        workers.how(workers.nginx.workers()[turn % 2])
        stage.wait_until(is_left_alone)
        turn += 1
    assert origin.carried[0] > 2
    assert workers.closed == {"time": 1}


def test_the_requests_that_an_origin_announces_count_on(stage):
    origin = stage.origin(lambda conn: conn.serve(
        http1.response(200, "Keep-Alive: max=3")))
    workers = Workers(stage)
    first, second = first_and_second(workers)
    for worker, how in ((first, "new"), (second, "shared"),
                        (first, "shared")):
        workers.wait_parked(how == "shared")
        assert workers.how(worker) == how
    workers.wait_closed(announced=1)
    assert workers.how(second) == "new"
    assert origin.carried == [3, 1]


def test_the_time_that_an_origin_has_announced_once(stage):
    def script(conn):
        for _ in conn.each_request():
            conn.respond(200, *(["Keep-Alive: timeout=1"]
                                if len(conn.requests) == 1 else []))

    origin = stage.origin(script)
    workers = Workers(stage)
    first, second = first_and_second(workers)
    for worker, how in ((first, "new"), (second, "shared")):
        workers.wait_parked(how == "shared")
        assert workers.how(worker) == how
    workers.wait_parked()
    workers.wait_closed(expired=1)
    assert origin.carried == [2]


def test_the_round_trip_that_was_measured(stage):
    """Twice as much is left of the limit, also by those who take it over."""
    link = stage.link(round_trip_ms=400)
    origin = stage.origin(link=link)
    workers = Workers(stage, http="reuse_expiry 3s;", link=link)
    first, second = first_and_second(workers)
    for worker, how in ((first, "new"), (second, "shared")):
        workers.wait_parked(how == "shared")
        assert workers.how(worker) == how
    workers.wait_parked()
    stage.let_pass(2.2)
    assert workers.how(first) == "new"
    assert origin.carried == [2, 1]


@pytest.mark.timeout(120 * settings.SCALE)
def test_a_limit_that_was_learned(stage):
    """One that is parked is not used near it, by whomever."""
    limit = 0.4 * settings.SCALE
    closes = [True]

    def script(conn):
        for _ in conn.each_request():
            conn.respond()
            if closes and not select.select([conn.sock], [], [], limit)[0]:
                return

    origin = stage.origin(script)
    workers = Workers(stage)
    first, second = first_and_second(workers)
    for _ in range(20):
        workers.how(first)
        workers.wait_open(0)
        if workers.learned:
            break
    closes.clear()
    before = origin.connections
    assert workers.how(first) == "new"
    workers.wait_parked()
    assert workers.how(second) == "shared"
    workers.wait_parked()
    stage.let_pass(workers.learned * 0.95)
    assert workers.how(first) == "new"
    assert origin.connections == before + 2


# what is counted

def test_what_was_taken_over_is_not_idle(stage):
    origin, gate = waiting_origin(stage)
    workers = Workers(stage)
    first, second = first_and_second(workers)
    for worker in (first, second, first):
        workers.how(worker)
        workers.wait_parked()
    client = workers.nginx.connect()
    client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: len(origin.requests) == 4)
    found = workers.connections
    assert (found["open"], found["idle"], found["parked"]) == (1, 0, 0)
    gate.open()
    assert client.read_response().status == 200
    workers.wait_parked()
    found = workers.connections
    assert (found["handed_over"], found["taken_over"]) == (4, 3)
    assert origin.connections == 1


# what was opened ahead

def test_the_first_request_on_one_that_was_opened_ahead(stage):
    stage.origin()
    workers = Workers(stage, "myproxy_pass http://app;",
                      http=APP.format("reuse_warm 1;"))
    workers.wait_parked()
    assert workers.nginx.get().header("X-Connection") == "warm"
    requests = workers.nginx.status()["total"]["attempts"]
    assert (requests["warm"], requests["total"]) == (1, 1)


def test_the_end_of_one_that_has_carried_no_request(stage):
    """It teaches nothing of those that have."""
    def script(conn):
        if not select.select([conn.sock], [], [], 0.3)[0]:
            return
        conn.serve()

    origin = stage.origin(script)
    workers = Workers(stage, "myproxy_pass http://app;",
                      http=APP.format("reuse_warm 1;"))
    stage.wait_until(lambda: origin.connections > 5)
    assert workers.connections["handed_over"] > 3
    assert workers.learned is None


# what is not kept, or not by others

@pytest.mark.parametrize("says", ["client", "origin"])
def test_those_of_one_client_are_not_parked(stage, says):
    """NTLM authenticates a connection, not a request."""
    origin = stage.origin(lambda conn: conn.serve(
        http1.response(401, "WWW-Authenticate: NTLM") if says == "origin"
        else http1.response()))
    workers = Workers(stage)
    lines = ["Authorization: NTLM first"] if says == "client" else []
    for _ in range(4):
        assert workers.nginx.get("/", *lines).status in (200, 401)
        stage.let_pass(0.03)
    assert workers.closed == {"authenticated": 4}
    assert workers.connections["handed_over"] == 0
    assert origin.carried == [1] * 4


@pytest.mark.parametrize("said_by, reason", [
    ("nginx", "configured"), ("origin", "close")])
def test_those_that_are_to_be_closed_are_not_parked(stage, said_by, reason):
    lines = ["Connection: close"] if said_by == "origin" else []
    origin = stage.origin(lambda conn: conn.serve(http1.response(200, *lines)))
    workers = Workers(stage, "myproxy_pass http://%{origin};" + (
        "myproxy_set_header Connection close;" if said_by == "nginx" else ""))
    for worker in 2 * first_and_second(workers):
        assert workers.how(worker) == "new"
    stage.let_pass(0.1)
    assert workers.closed == {reason: 4}
    assert workers.connections["handed_over"] == 0
    assert origin.carried == [1] * 4


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_those_that_became_something_else_are_not_parked(stage, method):
    """After 101 they are not HTTP any more."""
    def script(conn):
        conn.read_request()
        conn.send(http1.compose("HTTP/1.1 101 Switching Protocols", [
            "Connection: Upgrade", "Upgrade: websocket"]))
        conn.wait_for_close()

    stage.origin(script)
    workers = Workers(stage)
    client = workers.nginx.connect()
    client.send(http1.request("GET", "/", "Connection: Upgrade",
                              "Upgrade: websocket"))
    assert client.read_response_head().status == 101
    stage.let_pass(0.1)
    client.close()
    workers.wait_closed(upgraded=1)
    assert workers.connections["handed_over"] == 0


@pytest.mark.skipif(version() >= (1, 29, 7), reason="nginx asks by itself")
def test_a_handler_that_does_not_ask_takes_none(stage):
    origin = stage.origin()
    workers = Workers(stage, "myproxy_pass http://app;", http=APP.format(""),
                      server="location /stock { proxy_pass http://app; }")
    assert workers.nginx.get().status == 200
    workers.wait_parked()
    assert workers.nginx.get("/stock").status == 200
    assert origin.carried == [1, 1]
    assert workers.connections["taken_over"] == 0


# reloads

def test_where_reuse_was_turned_off_none_is_taken(stage):
    """Not even as long as they are not closed yet."""
    origin = stage.origin()
    workers = Workers(stage, "myproxy_pass http://app;", http=APP.format(""))
    assert workers.nginx.get().status == 200
    workers.nginx.reload(http=APP.format("reuse off;"))
    assert workers.nginx.get().header("X-Connection") == "new"
    assert origin.carried == [1, 1]


def test_another_zone_counts_none_that_it_has_not_seen(stage):
    """They are closed, as the old counters are gone."""
    origin = stage.origin()
    workers = Workers(stage, http="reuse_zone 100k;")
    assert workers.nginx.get().status == 200
    workers.wait_parked()
    workers.nginx.reload(http="reuse_zone 200k;")
    stage.wait_until(lambda: origin.conns[0].closed)
    assert workers.nginx.get().header("X-Connection") == "new"
    workers.wait_parked()
    found = workers.connections
    assert (found["opened"], found["open"], found["idle"]) == (1, 1, 1)
    assert found["handed_over"] == 1
    assert workers.closed == {}
    workers.nginx.reload(http="reuse_zone 200k; reuse_share 3;")
    assert workers.nginx.get().header("X-Connection") == "shared"


def test_an_old_worker_counts_none_of_another_zone(stage):
    """It takes none that later ones have parked, and they none of its own."""
    gates = []

    def answer(request):
        if request.target == "/wait":
            gates[0].wait()
        return http1.response()

    origin = stage.origin(lambda conn: conn.serve(answer))
    gates.append(origin.gate())
    workers = Workers(stage, http="reuse_zone 100k;")
    old = workers.nginx.workers()
    client = workers.nginx.connect()
    client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: origin.requests)
    workers.nginx.reload(http="reuse_zone 200k;")
    assert workers.nginx.get().header("X-Connection") == "new"
    workers.wait_parked()
    gates[0].open()
    assert client.read_response().status == 200
    stage.wait_until(lambda: not set(old) & set(workers.nginx.workers()))
    assert workers.nginx.get().header("X-Connection") == "shared"
    stage.wait_until(lambda: origin.conns[0].closed)
    workers.wait_parked()
    found = workers.connections
    assert (found["opened"], found["open"], found["idle"]) == (1, 1, 1)
    assert workers.closed == {}


LOCAL = pytest.mark.skipif(version() < (1, 29, 7),
                           reason="\"local\" is newer")


@LOCAL
@pytest.mark.parametrize("passing, lines", [
    ("myproxy_pass http://app;", "keepalive 8 local; reuse on;"),
    # as nginx does it, in an upstream of ours
    ("proxy_pass http://app;", "")], ids=["local", "unasked"])
def test_what_is_one_locations_stays_its_own_after_reloads(stage, passing,
                                                           lines):
    """Another location may stand where an earlier one stood in memory."""
    origin = stage.origin()
    workers = Workers(stage, passing, http=APP.format(lines),
                      server="location /my { myproxy_pass http://app; }")
    for _ in range(4):
        assert workers.nginx.get().header("X-Connection") == "new"
        workers.nginx.reload()
        workers.nginx.reload()
    assert origin.carried == [1] * 4
    workers.wait_closed(identity=4)


@LOCAL
def test_what_was_everybodys_has_no_location(stage):
    stage.origin()
    workers = Workers(stage, "myproxy_pass http://app;",
                      http=APP.format("keepalive 8; reuse on;"))
    assert workers.nginx.get().status == 200
    workers.nginx.reload(http=APP.format("keepalive 8 local; reuse on;"))
    workers.wait_closed(identity=1)
