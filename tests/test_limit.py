"""At most so many connections to a server: requests wait for their turn."""

import re
import resource
import socket
import threading
import time

import pytest

from harness import http1
from harness.workers import Workers, use_up_connections, waiting_origin
from test_other_handlers import HANDLERS, method_of

APP = "upstream app {{ server %{{origin}}; {} }}"
PASS = "myproxy_pass http://app;"
TCP_ESTABLISHED = 1


class Watch:
    """The most connections that an origin had at a time.

    One whose end is here is none any more, whether or not the origin has read
    it by now: the client had closed it before it opened another one.
    """

    def __init__(self):
        self.most = 0
        self._conns = []
        self._lock = threading.Lock()

    def enter(self, conn):
        with self._lock:
            self._conns = [one for one in self._conns if self._is_open(one)]
            self._conns.append(conn)
            self.most = max(self.most, len(self._conns))

    @staticmethod
    def _is_open(conn):
        try:
            info = conn.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        except OSError:
            return False
        return info == bytes([TCP_ESTABLISHED])


def watched_origin(stage, watch, delay=0.0, **more):
    def script(conn):
        watch.enter(conn)
        conn.serve(lambda request: time.sleep(delay) or http1.response())

    return stage.origin(script, **more)


def queue(nginx):
    return nginx.status()["total"]["queue"]


def wait_queued(stage, nginx, count):
    try:
        stage.wait_until(lambda: queue(nginx)["waiting"] == count)
    except AssertionError:
        raise AssertionError(f"there are {queue(nginx)}") from None


def send(nginx, target="/", method="GET"):
    client = nginx.connect()
    client.send(http1.request(method, target))
    return client


def limited(stage, limit, workers=1, location=PASS, **more):
    return Workers(stage, location, workers=workers,
                   http=APP.format(f"reuse_limit {limit};"), **more)


def busy(stage, limit, **more):
    """(origin, gate, nginx, client): one request has all that is allowed."""
    origin, gate = waiting_origin(stage)
    nginx = limited(stage, limit, **more).nginx
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    return origin, gate, nginx, first


# the limit

def ask_in_crowd(nginx, threads, requests):
    """The statuses, and how long each took."""
    results = []

    def ask():
        client = nginx.connect()
        for _ in range(requests):
            started = time.monotonic()
            response = client.get()
            results.append((response.status, time.monotonic() - started))

    crowd = [threading.Thread(target=ask, daemon=True)
             for _ in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(120)
    return results


@pytest.mark.parametrize("share", ["on", "off"])
@pytest.mark.parametrize("passing", [
    PASS, "proxy_pass http://app; proxy_http_version 1.1;"
          'proxy_set_header Connection "";'], ids=["myproxy", "proxy"])
def test_there_are_never_more(stage, passing, share):
    watch = Watch()
    watched_origin(stage, watch, delay=0.002)
    nginx = stage.nginx(
        location=passing, workers=4,
        http=f"reuse_share {share};" + APP.format("reuse_limit 3 queue=500;"))
    results = ask_in_crowd(nginx, 24, 20)
    assert [status for status, _ in results] == [200] * 24 * 20
    assert watch.most <= 3
    found = queue(nginx)
    assert found["waited"] > 0
    assert found["waiting"] == 0
    assert found["refused"] == {"full": 0, "timeout": 0}


def test_nobody_waits_for_a_connection_that_is_idle_elsewhere(stage):
    origin = stage.origin()
    workers = limited(stage, 1, workers=2)
    first, second = workers.nginx.workers()
    assert workers.how(first) == "new"
    workers.wait_parked()
    assert workers.how(second) == "shared"
    assert origin.connections == 1


def test_one_that_waits_gets_the_connection_that_comes_free(stage):
    origin, gate, nginx, first = busy(stage, 1)
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    gate.open()
    assert first.read_response().status == 200
    assert second.read_response().status == 200
    assert origin.connections == 1
    assert nginx.logged("upstream timed out") == []
    assert nginx.logged("reset by peer") == []


@pytest.mark.parametrize("times", [1, 3], ids=["once", "again"])
def test_also_if_it_is_another_worker(stage, times):
    gate = None

    def answer(request):
        if request.target == "/wait":
            gate.wait()
        return http1.response()

    origin = stage.origin(lambda conn: conn.serve(answer))
    workers = limited(stage, 1, workers=2)
    nginx = workers.nginx
    one, other = nginx.workers()
    for _ in range(times):
        gate = origin.gate()
        seen = len(origin.requests)
        workers.wait_parked(min(seen, 1))
        nginx.pause_worker(other)
        first = send(nginx, "/wait")
        stage.wait_until(lambda: len(origin.requests) == seen + 1)
        nginx.resume_worker(other)
        nginx.pause_worker(one)
        second = send(nginx)
        wait_queued(stage, nginx, 1)
        nginx.resume_worker(one)
        started = time.monotonic()
        gate.open()
        assert first.read_response().header("X-Worker") == str(one)
        response = second.read_response()
        assert response.header("X-Worker") == str(other)
        assert response.header("X-Connection") == "shared"
        assert time.monotonic() - started < 0.5
        one, other = other, one
    assert origin.connections == 1


def test_they_are_served_in_order(stage):
    order = []
    gate = None

    def answer(request):
        order.append(request.target)
        gate.wait()
        return http1.response()

    origin = stage.origin(lambda conn: conn.serve(answer))
    gate = origin.gate()
    nginx = limited(stage, 1).nginx
    clients = []
    for number in range(10):
        clients.append(send(nginx, f"/{number}"))
        if number == 0:
            stage.wait_until(lambda: len(origin.requests) == 1)
        wait_queued(stage, nginx, number)
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    assert order == [f"/{number}" for number in range(10)]


def test_a_server_that_is_full_costs_no_try(stage):
    """One is left for each of the others, of which one refuses."""
    origin, gate = waiting_origin(stage)
    stage.origin(name="refuses", listening=False)
    stage.origin(name="answers")
    nginx = stage.nginx(
        location=PASS + "myproxy_next_upstream_tries 2;",
        http="upstream app { server %{origin} weight=9; reuse_limit 1;"
             " server %{refuses} max_fails=0; server %{answers}; }")
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    for _ in range(6):
        assert nginx.get().status == 200
    assert nginx.logged("Connection refused")
    gate.open()
    assert first.read_response().status == 200


def test_another_server_is_taken_first(stage):
    gates = []

    def answer(request):
        gates[0].wait()
        return http1.response()

    first = stage.origin(lambda conn: conn.serve(answer), name="first")
    second = stage.origin(lambda conn: conn.serve(answer), name="second")
    gates.append(first.gate())
    nginx = stage.nginx(
        location=PASS, http="upstream app { least_conn; server %{first}"
        " weight=100; server %{second}; reuse_limit 2; }")
    clients = [send(nginx) for _ in range(5)]
    wait_queued(stage, nginx, 1)
    stage.wait_until(
        lambda: (first.connections, second.connections) == (2, 2))
    gates[0].open()
    for client in clients:
        assert client.read_response().status == 200


def test_a_server_that_has_failed_is_not_waited_for(stage):
    """The balancer has no other one, and one that is full comes free."""
    origin, gate = waiting_origin(stage)
    stage.origin(name="refuses", listening=False)
    nginx = stage.nginx(
        location=PASS, http="upstream app { server %{origin}; reuse_limit 1;"
                            " server %{refuses} fail_timeout=1h; }")
    for _ in range(2):
        assert nginx.get().status == 200
    assert nginx.logged("Connection refused")
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 3)
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    gate.open()
    assert first.read_response().status == 200
    assert second.read_response().status == 200
    assert queue(nginx)["waited"] == 1
    assert not nginx.logged("no live upstreams")


# what is refused

def test_a_full_queue_refuses(stage):
    _, gate, nginx, first = busy(stage, "1 queue=1")
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    response = nginx.get()
    assert response.status == 503
    assert response.header("Retry-After") == "5"
    assert nginx.wait_log("request refused: all connections to upstream "
                          '"app" that "reuse_limit" allows are in use, and '
                          "its queue is full: 1 of 1 wait")
    gate.open()
    assert first.read_response().status == 200
    assert second.read_response().status == 200
    assert queue(nginx)["refused"] == {"full": 1, "timeout": 0}


def test_without_a_queue_it_refuses_at_once(stage):
    _, gate, nginx, first = busy(stage, "1 queue=0")
    assert nginx.get().status == 503
    gate.open()
    assert first.read_response().status == 200
    assert nginx.get().status == 200


def test_the_time_is_over(stage):
    _, gate, nginx, first = busy(stage, "1 timeout=300ms")
    started = time.monotonic()
    response = nginx.get()
    assert time.monotonic() - started >= 0.29
    assert response.status == 503
    assert response.header("Retry-After") == "5"
    assert nginx.wait_log('request refused: no connection to upstream "app" '
                          "was free within 300 ms")
    gate.open()
    assert first.read_response().status == 200
    found = queue(nginx)
    assert found["waiting"] == 0
    assert found["refused"] == {"full": 0, "timeout": 1}
    assert nginx.get().status == 200


def test_the_time_to_connect_is_not_used_up(stage):
    origin, gate = waiting_origin(stage)
    nginx = limited(
        stage, "1", location=PASS + "myproxy_connect_timeout 200ms;"
        "myproxy_next_upstream_timeout 200ms;").nginx
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    stage.let_pass(0.5)
    gate.open()
    assert first.read_response().status == 200
    assert second.read_response().status == 200


def test_one_that_can_not_even_wait_is_an_error(stage):
    """Where clients have all of "worker_connections", of which a wait takes
    one."""
    origin, gate, nginx, first = busy(stage, 1, connections=24)
    clients = use_up_connections(stage, nginx)
    clients[0].send(b"Host: localhost\r\n\r\n")
    assert clients[0].read_response().status == 500
    for client in clients:
        client.close()
    assert queue(nginx)["waiting"] == 0
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    gate.open()
    assert first.read_response().status == 200
    assert second.read_response().status == 200


def test_one_for_which_there_is_no_descriptor_is_an_error(stage):
    origin, gate, nginx, first = busy(
        stage, 1, server="location = /quick { return 204; }")
    nginx.expect_log(r"socketpair\(\) for a request that is to wait failed")
    second = nginx.connect()
    assert second.get("/quick").status == 204
    worker, = nginx.workers()
    limit = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, limit[1]))
    assert second.get().status == 500
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limit)
    assert nginx.logged("that is to wait failed")
    third = send(nginx)
    wait_queued(stage, nginx, 1)
    gate.open()
    assert first.read_response().status == 200
    assert third.read_response().status == 200


def test_a_limit_for_which_the_zone_has_no_room(stage):
    """Requests pass as if it were not written."""
    origin, gate = waiting_origin(stage)
    names = [f"app{number}" for number in range(20)]
    nginx = stage.nginx(
        http="reuse_zone 64k; reuse_limit 1 queue=0;" + "".join(
            "upstream %s { server %%{origin}; }" % name for name in names),
        server="".join(f"location /{name}/ {{ myproxy_pass http://{name}/; }}"
                       for name in names))
    told = r'"reuse_limit" of upstream "(app\d+)" is not in force, as there'
    nginx.expect_log(told)
    without = {re.search(told, line)[1] for line in nginx.wait_log(told)}
    assert 0 < len(without) < 20
    clients = []
    for name in sorted(without) * 2:
        clients.append(send(nginx, f"/{name}/wait"))
    stage.wait_until(lambda: len(origin.requests) == len(clients))
    gate.open()
    for client in clients:
        assert client.read_response().status == 200


@pytest.mark.parametrize("order", ["block-first", "block-last"])
def test_two_upstreams_of_one_name_have_one_queue(stage, order):
    """A block may be called like the host and port of another one."""
    origin, gate = waiting_origin(stage)
    block = "upstream %{origin} { server %{origin}; reuse on; }"
    server = ("server { listen 127.0.0.1:%{port.two};"
              "location / { myproxy_pass http://%{origin}; } }")
    nginx = stage.nginx(
        http="reuse_limit 1;" + (block + server if order == "block-first"
                                 else server + block))
    clients = []
    for _ in range(3):
        client = nginx.connect("two")
        client.send(http1.request("GET", "/wait"))
        clients.append(client)
    wait_queued(stage, nginx, 2)
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    assert origin.connections == 1


# who leaves

def test_a_client_that_goes_away_leaves_the_queue(stage):
    origin, gate, nginx, first = busy(stage, 1)
    second = send(nginx, "/gone")
    wait_queued(stage, nginx, 1)
    third = send(nginx, "/third")
    wait_queued(stage, nginx, 2)
    second.close()
    wait_queued(stage, nginx, 1)
    gate.open()
    assert first.read_response().status == 200
    assert third.read_response().status == 200
    assert [request.target for request in origin.requests] \
        == ["/wait", "/third"]


@pytest.mark.parametrize("limit", ["1", "1 timeout=300ms"],
                         ids=["its-turn", "timeout"])
def test_a_response_for_the_cache_whose_client_has_gone(stage, limit):
    """Core would let it go on, but there is nobody to wait for it."""
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(
        http="myproxy_cache_path %{prefix}/cache keys_zone=one:1m;"
        "log_format status '$status';" + APP.format(f"reuse_limit {limit};"),
        location=PASS + "myproxy_cache one; myproxy_cache_valid 1h;"
        "access_log %{prefix}/log status;")
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    second = send(nginx, "/gone")
    wait_queued(stage, nginx, 1)
    second.close()
    nginx.wait_log("client prematurely closed connection while")
    if limit == "1":
        gate.open()
        assert first.read_response().status == 200
    wait_queued(stage, nginx, 0)
    stage.wait_until(lambda: b"499" in nginx.read("log"))
    gate.open()
    assert nginx.get("/other").status == 200
    assert "/gone" not in [request.target for request in origin.requests]


def test_a_client_that_goes_away_lets_the_next_one_in(stage):
    """Its connection is closed, and nobody but the queue needs another."""
    origin, gate, nginx, first = busy(stage, 1)
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    first.close()
    assert second.read_response().status == 200
    assert origin.connections == 2
    gate.open()


# what counts

def test_an_upgraded_connection_counts(stage):
    def script(conn):
        for request in conn.each_request():
            if request.header("Upgrade"):
                conn.send(http1.response(
                    101, "Upgrade: x", "Connection: Upgrade"))
                conn.wait_for_close()
                return
            conn.respond()

    origin = stage.origin(script)
    nginx = limited(stage, 1).nginx
    client = nginx.connect()
    response = client.get(
        "/chat", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13")
    assert response.status == 101
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    client.close()
    assert second.read_response().status == 200
    assert origin.connections == 2


def test_a_retry_counts(stage):
    """The server closes what it has, and those that wait stand in line."""
    watch = Watch()

    def script(conn):
        watch.enter(conn)
        for number, request in enumerate(conn.each_request()):
            if number == 1 and conn.number % 3 == 0:
                conn.close()
                return
            time.sleep(0.001)
            conn.respond(body=request.target.encode())

    stage.origin(script)
    nginx = stage.nginx(
        location=PASS + "myproxy_next_upstream_tries 5;", workers=2,
        http=APP.format("reuse_limit 2; server %{origin} backup;"
                        "server %{origin} backup;"))
    results = ask_in_crowd(nginx, 8, 20)
    assert {status for status, _ in results} == {200}
    assert watch.most <= 2


@pytest.mark.parametrize("zone", ["", "zone app 128k;"])
def test_max_conns_is_the_limit_of_a_server(stage, zone):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(
        location=PASS, http="upstream app { server %{origin} max_conns=2;"
        + zone + " reuse_limit 10; }")
    clients = [send(nginx, "/wait") for _ in range(3)]
    wait_queued(stage, nginx, 1)
    stage.wait_until(lambda: origin.connections == 2)
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    assert origin.connections == 2


def test_an_idle_one_that_is_of_no_use_is_closed(stage):
    origin = stage.origin()
    nginx = limited(stage, 1,
                    location=PASS + "myproxy_bind 127.0.0.$arg_from;").nginx
    for number in (2, 3, 2):
        assert nginx.get(f"/?from={number}").status == 200
    assert origin.connections == 3
    found = nginx.status()["total"]["connections"]
    assert found["closed_by_reason"]["limit"] == 2
    assert queue(nginx)["waited"] == 0


def test_also_if_it_is_parked(stage):
    origin = stage.origin()
    workers = limited(stage, 1, workers=2,
                      location=PASS + "myproxy_bind 127.0.0.$arg_from;")
    one, other = workers.nginx.workers()
    assert workers.how(one, "/?from=2") == "new"
    workers.wait_parked()
    assert workers.how(other, "/?from=3") == "new"
    assert origin.connections == 2
    workers.wait_closed(limit=1)


def test_warming_stays_under_it(stage):
    origin, gate = waiting_origin(stage)
    nginx = limited(stage, "2; reuse_warm 8", location=PASS).nginx
    stage.wait_until(lambda: origin.connections == 2)
    stage.let_pass(0.3)
    assert origin.connections == 2
    clients = [send(nginx, "/wait") for _ in range(4)]
    wait_queued(stage, nginx, 2)
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    assert nginx.status()["total"]["connections"]["open"] <= 2


# what waits

def test_an_answer_from_the_cache_does_not_wait(stage):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(
        http="myproxy_cache_path %{prefix}/cache keys_zone=one:1m;"
        + APP.format("reuse_limit 1 queue=0;"),
        location=PASS + "myproxy_cache one; myproxy_cache_valid 1h;")
    assert nginx.get("/kept").status == 200
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 2)
    assert nginx.get("/kept").status == 200
    assert nginx.get("/other").status == 503
    gate.open()
    assert first.read_response().status == 200


@pytest.mark.parametrize("limit, says, use", [
    ("1 queue=0", "", "myproxy_cache_use_stale error;"),
    ("1 timeout=100ms", "", "myproxy_cache_use_stale error;"),
    ("1 queue=0", "max-age=1, stale-if-error=60", "")])
def test_what_is_stale_is_served_instead_of_503(stage, limit, says, use):
    def answer(request):
        if request.target == "/wait":
            gate.wait()
        return http1.response(200, *[f"Cache-Control: {says}"] * bool(says))

    origin = stage.origin(lambda conn: conn.serve(answer))
    gate = origin.gate()
    nginx = stage.nginx(
        http="myproxy_cache_path %{prefix}/cache keys_zone=one:1m;"
        + APP.format(f"reuse_limit {limit};"),
        location=PASS + "myproxy_cache one; myproxy_cache_valid 1s;"
        f"{use} add_header X-Cache $upstream_cache_status;")
    assert nginx.get("/kept").header("X-Cache") == "MISS"
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 2)
    stage.wait_until(
        lambda: nginx.get("/kept").header("X-Cache") == "STALE")
    assert nginx.logged("request refused")
    gate.open()
    assert first.read_response().status == 200


def test_a_subrequest_waits(stage):
    def script(conn):
        for request in conn.each_request():
            if request.target == "/wait":
                gate.wait()
            conn.respond(200, "Content-Type: text/html",
                         body=request.target.encode())

    origin = stage.origin(script)
    gate = origin.gate()
    page = stage.origin(http1.response(
        200, "Content-Type: text/html",
        body=b'<<!--# include virtual="/a" -->'
             b'<!--# include virtual="/b" -->>'), name="page")
    nginx = stage.nginx(
        location=PASS, http=APP.format("reuse_limit 1 timeout=30s;"),
        server="location /page { ssi on; myproxy_pass http://%{page}; }")
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    second = send(nginx, "/page")
    wait_queued(stage, nginx, 2)
    gate.open()
    assert first.read_response().status == 200
    assert second.read_response().body == b"</a/b>"
    assert page.connections == 1


def test_a_subrequest_is_refused(stage):
    origin, gate = waiting_origin(stage)
    page = stage.origin(http1.response(
        200, "Content-Type: text/html",
        body=b'<<!--# include virtual="/a" -->>'), name="page")
    nginx = stage.nginx(
        location=PASS, http=APP.format("reuse_limit 1 queue=0;"),
        server="location /page { ssi on; myproxy_pass http://%{page}; }")
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    response = nginx.get("/page")
    assert response.status == 200
    assert b"503" in response.body
    gate.open()
    assert first.read_response().status == 200
    assert page.connections == 1


def test_requests_of_one_http2_client_wait(stage):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(
        location=PASS, http=APP.format("reuse_limit 1 queue=1;"),
        listen="http2")
    client = nginx.connect_h2()
    first = client.send_request("GET", "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    second = client.send_request("GET", "/second")
    wait_queued(stage, nginx, 1)
    refused = client.read_response(client.send_request("GET", "/third"))
    assert refused.status == 503
    assert refused.header("retry-after") == "5"
    client.reset_stream(second)
    wait_queued(stage, nginx, 0)
    fourth = client.send_request("GET", "/fourth")
    wait_queued(stage, nginx, 1)
    gate.open()
    assert client.read_response(first).status == 200
    assert client.read_response(fourth).status == 200


@pytest.mark.parametrize("status", ["=", "=200"])
def test_an_error_page_is_served_instead(stage, status):
    origin, gate = waiting_origin(stage)
    other = stage.origin(http1.response(body=b"busy"), name="other")
    nginx = stage.nginx(
        location=PASS + "error_page 503 %s @busy;" % status,
        http=APP.format("reuse_limit 1 queue=0;"),
        server="location @busy { myproxy_pass http://%{other}; }")
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    response = nginx.get()
    assert (response.status, response.body) == (200, b"busy")
    assert response.header("Retry-After") is None
    gate.open()
    assert first.read_response().status == 200
    assert other.connections == 1


def test_an_error_page_that_stays_a_refusal_says_when_to_come_again(stage):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(
        location=PASS + "error_page 503 /busy;",
        http=APP.format("reuse_limit 1 queue=0;"),
        server="location = /busy { return 200 busy; }")
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    response = nginx.get()
    assert (response.status, response.body) == (503, b"busy")
    assert response.header("Retry-After") == "5"
    gate.open()
    assert first.read_response().status == 200


@pytest.mark.parametrize("where, pages", [
    ("", "error_page 502 504 =200 /other;"),
    ("location = /page { %s error_page 503 =200 /other; }" % PASS,
     "error_page 404 /page;")], ids=["of-others", "within-another"])
def test_an_error_page_that_does_not_hold_here(stage, where, pages):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(
        http=APP.format("reuse_limit 1 queue=0;"),
        server=f"location /wait {{ {PASS} }} {where}"
               "location / { %s }" % (
                   f"{pages} return 404;" if where else PASS + pages))
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    response = nginx.get()
    assert response.status == 503
    assert response.header("Retry-After") == "5"
    gate.open()
    assert first.read_response().status == 200


@pytest.mark.parametrize("name", ["fastcgi", "grpc", "memcached"])
def test_requests_of_other_handlers_wait(stage, name):
    answer, passing = HANDLERS[name]

    def script(conn):
        if conn.number == 1:
            gate.wait()
        while conn.more():
            answer(conn)

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(
        location=passing,
        http=APP.format("keepalive 4; reuse on; reuse_limit 1;"))
    clients = [send(nginx, "/key", method_of(name)) for _ in range(3)]
    wait_queued(stage, nginx, 2)
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    assert origin.connections == 1


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_a_body_is_sent_after_the_wait(stage, buffering):
    origin = stage.origin(lambda conn: conn.serve(
        lambda request: (gate.wait() if request.target == "/wait" else None)
        or http1.response(body=request.body or b"none")))
    gate = origin.gate()
    nginx = limited(
        stage, 1,
        location=PASS + f"myproxy_request_buffering {buffering};").nginx
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    body = bytes(range(256)) * 4000
    client = nginx.connect()
    client.send(http1.request("POST", "/post", body=body))
    wait_queued(stage, nginx, 1)
    gate.open()
    assert first.read_response().status == 200
    assert client.read_response("POST").body == body


# what is shown

def test_the_log_tells_how_long_it_waited(stage):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(
        location=PASS + "access_log %{prefix}/access.log waits;",
        http="log_format waits '$status $reuse_queue_time $upstream_addr "
        "$upstream_connect_time $reuse_connection';"
        + APP.format("reuse_limit 1 queue=1;"))
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    assert nginx.get().status == 503
    stage.let_pass(0.25)
    gate.open()
    assert first.read_response().status == 200
    assert second.read_response().status == 200

    def lines():
        return sorted(line.split() for line in
                      nginx.read("access.log").decode().splitlines())

    stage.wait_until(lambda: len(lines()) == 3)
    fresh, waited, refused = lines()
    assert fresh == ["200", "-", str(origin), fresh[3], "new"]
    assert waited == ["200", waited[1], str(origin), waited[3], "reused"]
    assert 0.2 < float(waited[1]) < 10
    assert float(waited[3]) < 0.1
    assert refused == ["503", "0.000", "-", "-", "-"]


def test_a_log_tells_why_one_was_refused(stage):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(
        location=PASS + "access_log %{prefix}/access.log why;",
        http="log_format why '$status $reuse_reason';"
        + APP.format("reuse_limit 1 queue=1 timeout=1s;"))
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    assert nginx.get().status == 503
    assert second.read_response().status == 503
    gate.open()
    assert first.read_response().status == 200

    def lines():
        return nginx.read("access.log").decode().splitlines()

    stage.wait_until(lambda: len(lines()) == 3)
    assert lines() == ["503 full", "503 timeout", "200 empty"]


@pytest.mark.parametrize("line, text", [
    ("reuse_limit 0;", 'invalid value "0" of "reuse_limit"'),
    ("reuse_limit many;", 'invalid value "many" of "reuse_limit"'),
    ("reuse_limit 3 queue=;", 'invalid value "queue=" of "reuse_limit"'),
    ("reuse_limit 3 queue=x;", 'invalid value "queue=x" of "reuse_limit"'),
    ("reuse_limit 3 queue=3 queue=4;",
     'invalid value "queue=4" of "reuse_limit"'),
    ("reuse_limit 3 timeout=0;",
     'invalid value "timeout=0" of "reuse_limit"'),
    ("reuse_limit 3 timeout=;", 'invalid value "timeout=" of "reuse_limit"'),
    ("reuse_limit 3 wait=1;", 'invalid value "wait=1" of "reuse_limit"'),
    ("reuse_limit 3; reuse_limit 4;", '"reuse_limit" directive is duplicate'),
    ("reuse_limit 3; reuse off;",
     'upstream "app" has "reuse_limit", but "reuse off"'),
])
def test_what_is_not_understood_is_refused(stage, line, text):
    code, output = stage.config_test(
        location="myproxy_pass http://app;",
        http=f"upstream app {{ server 127.0.0.1:1; {line} }}")
    assert code != 0
    assert text in output


def test_it_may_stand_in_http(stage):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(location="myproxy_pass http://%{origin};",
                        http="reuse_limit 1;")
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    gate.open()
    assert first.read_response().status == 200
    assert second.read_response().status == 200
    assert origin.connections == 1


def test_the_queue_is_shown(stage):
    _, gate, nginx, first = busy(stage, "1 queue=1")
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    assert nginx.get().status == 503
    upstream, = nginx.status()["upstreams"]
    assert upstream["queue"] == {
        "waiting": 1, "waited": 1, "refused": {"full": 1, "timeout": 0},
        "limit": 1}
    assert nginx.status()["total"]["queue"] == upstream["queue"]
    text = nginx.get("/reuse-status?format=prometheus",
                     port="probe").body.decode()
    assert 'nginx_reuse_queue_waiting{upstream="app"} 1' in text
    assert 'nginx_reuse_queue_limit{upstream="app"} 1' in text
    assert 'nginx_reuse_queue_waited_total{upstream="app"} 1' in text
    assert ('nginx_reuse_queue_refused_total{upstream="app",reason="full"} 1'
            in text)
    gate.open()
    assert first.read_response().status == 200
    assert second.read_response().status == 200


LIMITS = """
    upstream app {{ server %{{one}}; server %{{two}} max_conns=7;
                    {} }}
    upstream free {{ server %{{one}}; }}
"""


def test_limits_are_shown_beside_what_is_open(stage):
    one = stage.origin(name="one")
    two = stage.origin(name="two")
    nginx = stage.nginx(
        http=LIMITS.format("reuse_limit 5 queue=20;"),
        server="location /app { myproxy_pass http://app; }"
               "location /free { myproxy_pass http://free; }")
    for target in ("/app", "/app", "/free"):
        assert nginx.get(target).status == 200

    found = nginx.status()
    assert found["total"]["queue"]["limit"] == 20
    limits = {(upstream["name"], server["address"]):
              server["connections_limit"]
              for upstream in found["upstreams"]
              for server in upstream["servers"]}
    first, second = (f"127.0.0.1:{origin.port}" for origin in (one, two))
    assert limits == {("app", first): 5, ("app", second): 7,
                      ("free", first): None}
    app, free = found["upstreams"]
    assert (app["queue"]["limit"], free["queue"]["limit"]) == (20, None)

    text = nginx.get("/reuse-status?format=prometheus",
                     port="probe").body.decode()
    lines = [line for line in text.splitlines()
             if line.startswith("nginx_reuse_connections_limit")]
    name = 'nginx_reuse_connections_limit{upstream="app",server='
    assert sorted(lines) == sorted(
        [f'{name}"{first}"}} 5', f'{name}"{second}"}} 7'])
    page = nginx.get("/reuse-status?format=html", port="probe").body.decode()
    for limit in (5, 7):
        assert f' of <data class="limit" value="{limit}">' in page
    assert ', of <data class="queue-limit" value="20">' in page

    nginx.reload(http=LIMITS.format("reuse_limit 5;"))
    found = nginx.status()
    assert found["total"]["queue"]["limit"] is None
    assert {server["connections_limit"]
            for server in found["upstreams"][0]["servers"]} == {5, 7}

    nginx.reload(http=LIMITS.format(""))
    for target in ("/app", "/app"):
        assert nginx.get(target).status == 200
    app = nginx.status()["upstreams"][0]
    assert app["queue"]["limit"] is None
    assert [server["connections_limit"] for server in app["servers"]] == [
        None, None]


def test_the_limit_of_a_server_that_is_gone_is_shown(stage):
    """Its own went with its line, and there is that of the upstream."""
    one = stage.origin(name="one")
    stage.origin(name="two")
    lines = "upstream app {{ {} server %{{two}} max_conns=7; reuse_limit 5; }}"
    nginx = stage.nginx(http=lines.format("server %{one} max_conns=3;"),
                        location=PASS)
    for _ in range(2):
        assert nginx.get().status == 200

    def limits():
        upstream, = nginx.status()["upstreams"]
        return {server["address"].endswith(f":{one.port}"):
                server["connections_limit"] for server in upstream["servers"]}

    assert limits() == {True: 3, False: 7}
    nginx.reload(http=lines.format(""))
    assert limits() == {True: 5, False: 7}


# what is of no use

@pytest.mark.parametrize("http, upstream, warned", [
    ("reuse_limit 2; reuse off;", "", True),
    ("reuse_limit 2;", "reuse off;", True),
    ("reuse_limit 2;", "", False),
    ("reuse off;", "", False),
])
def test_a_limit_without_reuse_has_a_warning(stage, http, upstream, warned):
    stage.origin()
    code, text = stage.config_test(
        http=http + "upstream app { server %{origin}; " + upstream + " }",
        location="myproxy_pass http://app;")
    assert code == 0
    assert warned == ('"reuse_limit" limits no connections to upstream "app", '
                      'as none are kept: remove "reuse off"' in text)


@pytest.mark.parametrize("warm, warned", [(5, True), (4, False)])
def test_more_warm_ones_than_the_limit_have_a_warning(stage, warm, warned):
    stage.origin()
    code, text = stage.config_test(
        http="upstream app { server %%{origin}; reuse_limit 4; "
             "reuse_warm %d; }" % warm,
        location="myproxy_pass http://app;")
    assert code == 0
    assert warned == ("no more than 4 connections to a server, fewer than "
                      'the 5 of its "reuse_warm"' in text)
