"""What a log can have of a connection: how it was had, what became of it.

What is counted of it is looked at as well.
"""

import collections
import pathlib
import re

import pytest

from harness import http1, settings
from harness.crossing import Scene
from harness.nginx import version

NAME = "origin.test"
PASS = "myproxy_pass http://%{origin};"
UP = "upstream app {{ server %{{origin}}; {} }}"
APP = "myproxy_pass http://app;"
FORMAT = """
    log_format reuse "$reuse_connection|$reuse_reason|$reuse_requests"
                     "|$reuse_age|$reuse_idle|$reuse_fate";
"""
LOG = "access_log %{prefix}/reuse.log reuse;"
NONE = ("-", "-", "-", "-")

#: What was found to be unfit for the request, and closed.
UNFIT = {"stale": "closed", "identity": "identity",
         "unbuffered": "unbuffered"}
HEAD = b"HTTP/1.1 200 OK\r\n"


class Line:
    """A line of the log; "-" stands for what is not there."""

    def __init__(self, text):
        (self.connection, self.reason, self.requests, self.age, self.idle,
         self.fate) = text.split("|")

    @property
    def had(self):
        return self.connection, self.reason, self.requests, self.fate


def logged(stage, nginx, count, *, undelivered=0, connect_failed=0):
    """The lines of the log, once there are so many.

    They are of the last attempt each; of others, which are not in the log,
    that many were not delivered or got no connection.
    """
    path = pathlib.Path(nginx.prefix) / "reuse.log"

    def lines():
        found = path.read_text().splitlines() if path.exists() else []
        return found if len(found) >= count else None
    lines = stage.wait_until(lines)
    assert len(lines) == count
    lines = [Line(line) for line in lines]
    others = collections.Counter(undelivered=undelivered,
                                 connect_failed=connect_failed)
    check_counters(nginx, lines, others)
    return lines


def check_counters(nginx, lines, others):
    """Exactly what the log has was counted."""
    total = nginx.status()["total"]
    requests, connections = total["attempts"], total["connections"]
    had = collections.Counter(line.connection for line in lines)
    new = collections.Counter(line.reason for line in lines
                              if line.connection == "new")
    new["empty"] += others["connect_failed"]
    assert nonzero(requests["new_by_reason"]) == +new
    assert requests["new"] == sum(new.values())
    assert requests["reused"] == had["reused"] + others["undelivered"]
    assert requests["total"] == requests["reused"] + requests["new"]
    assert connections["opened"] == requests["new"]
    closed = collections.Counter(line.fate for line in lines) + others
    for fate in ("-", "kept"):
        del closed[fate]
    closed.update(UNFIT[line.reason] for line in lines
                  if line.reason in UNFIT)
    assert nonzero(connections["closed_by_reason"]) == closed
    assert connections["closed"] == sum(closed.values())
    assert connections["open"] == connections["opened"] - connections["closed"]


def nonzero(counts):
    return {name: count for name, count in counts.items() if count}


def start(stage, *, http="", location=PASS, **more):
    return stage.nginx(http=FORMAT + http, location=location + LOG, **more)


# a connection that is kept

def test_new_and_then_reused(stage):
    stage.origin()
    nginx = start(stage)
    for _ in range(3):
        assert nginx.get().status == 200
    assert [line.had for line in logged(stage, nginx, 3)] == [
        ("new", "empty", "1", "kept"), ("reused", "-", "2", "kept"),
        ("reused", "-", "3", "kept")]


def test_age_and_idle_time(stage):
    def answer(request):
        if request.target == "/slow":
            gate.wait()
        return http1.response()

    waiting = 0.3
    opened = stage.origin(lambda conn: conn.serve(answer))
    gate = opened.gate()
    nginx = start(stage)
    client = nginx.connect()
    assert client.get("/").status == 200
    stage.let_pass(waiting)
    client.send(http1.request("GET", "/slow"))
    stage.wait_until(lambda: len(opened.requests) == 2)
    stage.let_pass(waiting)
    gate.open()
    assert client.read_response().status == 200
    first, second = logged(stage, nginx, 2)
    assert re.fullmatch(r"\d+\.\d{3}", first.age)
    assert first.idle == "0.000"
    # nginx's clock is a little behind
    assert float(second.idle) > waiting - 0.1
    assert float(second.age) > float(second.idle) + waiting - 0.1
    assert float(second.age) < 100 * settings.SCALE


def test_they_are_empty_without_an_upstream(stage):
    stage.origin()
    nginx = start(stage, location="return 204;")
    assert nginx.get().status == 204
    line, = logged(stage, nginx, 1)
    assert line.had == NONE
    assert (line.age, line.idle) == ("-", "-")


def test_they_are_empty_for_a_hit_in_the_cache(stage):
    stage.origin()
    nginx = start(
        stage, http="myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;",
        location=PASS + "myproxy_cache zone; myproxy_cache_valid 1h;")
    for _ in range(2):
        assert nginx.get().status == 200
    first, second = logged(stage, nginx, 2)
    assert first.had == ("new", "empty", "1", "kept")
    assert second.had == NONE


def test_they_are_empty_for_handlers_without_the_layer(stage):
    stage.origin()
    nginx = start(stage, location="proxy_pass http://%{origin};")
    assert nginx.get().status == 200
    assert logged(stage, nginx, 1)[0].had == NONE


def test_what_is_not_over_yet_is_not_told(stage):
    stage.origin()
    nginx = stage.nginx(location=PASS + """
        add_header X-Had "$reuse_connection,$reuse_requests,$reuse_fate";
    """)
    assert nginx.get().header("X-Had") == "new,1,"
    assert nginx.get().header("X-Had") == "reused,2,"


# why a connection was new

def test_reason_off(stage):
    stage.origin()
    nginx = start(stage, http=UP.format("reuse off; keepalive 4;"),
                  location=APP)
    for _ in range(2):
        assert nginx.get().status == 200
    assert {line.had for line in logged(stage, nginx, 2)} == {
        ("new", "off", "1", "off")}


@pytest.mark.skipif(version() >= (1, 29, 7), reason="nginx has its own pool")
def test_reason_off_for_a_handler_that_does_not_ask(stage):
    stage.origin()
    nginx = stage.nginx(http=FORMAT + UP.format(""), server=f"""
        location /ours {{ {APP} {LOG} }}
        location /theirs {{ proxy_pass http://app; {LOG} }}
    """)
    for target in ("/ours", "/theirs", "/theirs"):
        assert nginx.get(target).status == 200
    assert {line.had for line in logged(stage, nginx, 3)[1:]} == {
        ("new", "off", "1", "off")}


@pytest.mark.skipif(version() < (1, 29, 7),
                    reason="\"keepalive\" has no such pools")
@pytest.mark.parametrize("lines, handlers", [
    ("keepalive 8 local;", ("myproxy_pass", "myproxy_pass")),
    ("keepalive 8 local;", ("proxy_pass", "myproxy_pass")),
    ("", ("myproxy_pass", "proxy_pass", "proxy_pass")),
], ids=["ours", "mixed", "theirs"])
def test_reason_empty_where_each_location_has_its_own(stage, lines, handlers):
    """There are idle ones, of the same identity."""
    origin = stage.origin()
    nginx = stage.nginx(http=FORMAT + UP.format(lines), server="".join(
        f"location /{n} {{ {handler} http://app; {LOG} }}\n"
        for n, handler in enumerate(handlers)))
    for _ in range(2):
        for number, _ in enumerate(handlers):
            assert nginx.get(f"/{number}").status == 200
    found = logged(stage, nginx, 2 * len(handlers))
    assert [(line.connection, line.reason) for line in found] == (
        len(handlers) * [("new", "empty")]
        + len(handlers) * [("reused", "-")])
    assert origin.carried == [2] * len(handlers)


@pytest.mark.skipif(version() < (1, 29, 7),
                    reason="nginx refuses \"keepalive 0\"")
@pytest.mark.parametrize("lines", ["", "reuse on;"])
def test_reason_off_where_the_pool_has_no_room(stage, lines):
    origin = stage.origin()
    nginx = stage.nginx(
        http=FORMAT + UP.format("keepalive 0;" + lines),
        server=f"""
            location /ours {{ {APP} {LOG} }}
            location /theirs {{ proxy_pass http://app; {LOG} }}
        """)
    for target in ("/ours", "/ours", "/theirs"):
        assert nginx.get(target).status == 200
    assert {line.had for line in logged(stage, nginx, 3)} == {
        ("new", "off", "1", "off")}
    assert origin.carried == [1, 1, 1]


def test_reason_stale(stage):
    """The end and the request come in one batch of events."""
    def script(conn):
        if conn.number > 1:
            conn.serve()
            return
        conn.read_request()
        conn.respond()
        gate.wait()
        conn.half_close()
        conn.wait_until_delivered()
        ended.append(conn)
        conn.exchange.wake()
        conn.wait_for_close()

    ended = []
    origin = stage.origin(script)
    gate = origin.gate()
    nginx = start(stage)
    client = nginx.connect()
    assert client.get("/").status == 200
    worker, = nginx.workers()
    nginx.pause_worker(worker)
    client.send(http1.request("POST", "/", body=b"x"))
    client.wait_until_delivered()
    gate.open()
    stage.wait_until(lambda: ended)
    nginx.resume_worker(worker)
    assert client.read_response().status == 200
    assert logged(stage, nginx, 2)[1].had == ("new", "stale", "1", "kept")


def test_reason_retry(stage):
    scene = Scene(stage, lambda conn: conn.close(), http=FORMAT
                  + UP.format(""), location=APP + LOG)
    scene.cross()
    scene.meet()
    assert scene.response().status == 200
    assert logged(stage, scene.nginx, 2, undelivered=1)[1].had == (
        "new", "retry", "1", "kept")


def test_reason_identity(stage):
    """Where the pool is the operator's, it does not know of names."""
    stage.origin(tls=NAME)
    nginx = start(
        stage, http=UP.format("keepalive 4;"),
        location="myproxy_pass https://app; myproxy_ssl_verify off;"
        "myproxy_ssl_name $arg_name;")
    for name in ("a.test", "b.test"):
        assert nginx.get(f"/?name={name}").status == 200
    assert logged(stage, nginx, 2)[1].had == ("new", "identity", "1", "kept")


def test_reason_unbuffered(stage):
    origin = stage.origin()
    nginx = start(stage, location=PASS + "myproxy_request_buffering off;")
    client = nginx.connect()
    assert client.get("/").status == 200
    head, _, body = http1.request("POST", "/", body=b"body").partition(b"body")
    assert not body
    client.send(head)
    stage.wait_until(lambda: origin.connections == 2)
    total = nginx.status()["total"]["connections"]
    assert (total["idle"], total["open"]) == (0, 1)
    client.send(b"body")
    assert client.read_response().status == 200
    assert logged(stage, nginx, 2)[1].had == (
        "new", "unbuffered", "1", "kept")


# what became of it

FATES = {
    "close": http1.response(200, "Connection: close"),
    "announced": http1.response(200, "Keep-Alive: timeout=0"),
    "http10": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "excess": http1.response(200, body=b"ok") + b"more",
}


@pytest.mark.parametrize("buffering", ["on", "off"])
@pytest.mark.parametrize("fate", FATES)
def test_fate_by_what_the_origin_says(stage, fate, buffering):
    stage.origin([FATES[fate]])
    nginx = start(stage, location=PASS + f"myproxy_buffering {buffering};")
    assert nginx.get().status == 200
    assert logged(stage, nginx, 1)[0].had == ("new", "empty", "1", fate)


@pytest.mark.parametrize("data", [
    http1.response(204, "Content-Length: 3"), http1.response(304) + b"more"])
def test_fate_excess_without_a_body(stage, data):
    stage.origin([data])
    nginx = start(stage)
    assert nginx.get().status in (204, 304)
    assert logged(stage, nginx, 1)[0].fate == "excess"


@pytest.mark.parametrize("line", ["myproxy_http_version 1.0;",
                                  "myproxy_set_header Connection close;"])
@pytest.mark.parametrize("fate", ["kept", *FATES])
def test_fate_configured(stage, line, fate):
    stage.origin([FATES.get(fate, http1.response())])
    nginx = start(stage, location=PASS + line)
    assert nginx.get().status == 200
    assert logged(stage, nginx, 1)[0].fate == "configured"


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_fate_unframed(stage, buffering):
    stage.origin([HEAD + b"\r\nto the end", "close"])
    nginx = start(stage, location=PASS + f"myproxy_buffering {buffering};")
    assert nginx.get().body == b"to the end"
    assert logged(stage, nginx, 1)[0].fate == "unframed"


def test_fate_upgraded(stage):
    def script(conn):
        conn.read_head()
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\n"
                  b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n")

    stage.origin(script)
    nginx = start(stage)
    client = nginx.connect()
    assert client.get("/", "Upgrade: websocket",
                      "Connection: upgrade").status == 101
    client.read_until_close()
    assert logged(stage, nginx, 1)[0].fate == "upgraded"


def test_fate_authenticated(stage):
    stage.origin()
    nginx = start(stage)
    assert nginx.get("/", "Authorization: NTLM x").status == 200
    assert logged(stage, nginx, 1)[0].fate == "authenticated"


def test_fate_requests(stage):
    stage.origin()
    nginx = start(stage, http=UP.format("keepalive 4; keepalive_requests 2;"),
                  location=APP)
    for _ in range(2):
        assert nginx.get().status == 200
    assert [line.fate for line in logged(stage, nginx, 2)] == [
        "kept", "requests"]


def test_fate_time(stage):
    def answer(_):
        stage.let_pass(0.1)
        return http1.response()

    stage.origin(lambda conn: conn.serve(answer))
    nginx = start(stage, http=UP.format("keepalive 4; keepalive_time 10ms;"),
                  location=APP)
    assert nginx.get().status == 200
    assert logged(stage, nginx, 1)[0].fate == "time"


def test_fate_unread(stage):
    """The client goes while the response is on its way."""
    def script(conn):
        conn.read_request()
        conn.send(HEAD + b"Content-Length: 10\r\n\r\n12345")
        conn.wait_for_close()

    stage.origin(script)
    nginx = start(stage, location=PASS + "myproxy_buffering off;")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    client.read_until(b"12345")
    client.close()
    line, = logged(stage, nginx, 1)
    assert line.fate == "unread"


def test_fate_early(stage):
    """The answer comes before the whole request has gone."""
    def script(conn):
        conn.read_head()
        conn.respond(413)
        conn.wait_for_close()

    stage.origin(script)
    nginx = start(stage, server="client_max_body_size 0;",
                  location=PASS + "myproxy_request_buffering off;")
    client = nginx.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1")
    assert client.read_response().status == 413
    client.close()
    assert logged(stage, nginx, 1)[0].fate == "early"


def test_fate_unsent(stage):
    """The client goes before the whole request has."""
    def script(conn):
        conn.read_head()
        gate.open()
        conn.wait_for_close()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = start(stage, location=PASS + "myproxy_request_buffering off;")
    client = nginx.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1")
    gate.wait()
    client.close()
    assert logged(stage, nginx, 1)[0].fate == "unsent"


def test_fate_closed(stage):
    """The origin ends the connection right behind its response."""
    def script(conn):
        conn.read_request()
        gate.wait()
        conn.respond()
        conn.half_close()
        conn.wait_until_delivered()
        ended.append(conn)
        conn.exchange.wake()
        conn.wait_for_close()

    ended = []
    origin = stage.origin(script)
    gate = origin.gate()
    nginx = start(stage)
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: origin.requests)
    worker, = nginx.workers()
    nginx.pause_worker(worker)
    gate.open()
    stage.wait_until(lambda: ended)
    nginx.resume_worker(worker)
    assert client.read_response().status == 200
    assert logged(stage, nginx, 1)[0].fate == "closed"


def test_fate_timeout(stage):
    stage.origin(lambda conn: conn.wait_for_close())
    nginx = start(stage, location=PASS + "myproxy_read_timeout 50ms;")
    assert nginx.get().status == 504
    assert logged(stage, nginx, 1)[0].fate == "timeout"


@pytest.mark.parametrize("data", [b"", b"nonsense\r\n\r\n"],
                         ids=["end", "invalid"])
def test_fate_error(stage, data):
    stage.origin([data, "close"])
    nginx = start(stage)
    assert nginx.get().status == 502
    assert logged(stage, nginx, 1)[0].fate == "error"


def test_fate_connect_failed(stage):
    stage.origin(listening=False)
    nginx = start(stage)
    assert nginx.get().status == 502
    assert logged(stage, nginx, 1)[0].had == (
        "new", "empty", "1", "connect_failed")


def test_fate_connect_failed_without_a_handshake(stage):
    stage.origin(lambda conn: conn.close())
    nginx = start(stage, location="myproxy_pass https://%{origin};"
                  "myproxy_ssl_verify off;")
    assert nginx.get().status == 502
    assert logged(stage, nginx, 1)[0].fate == "connect_failed"


def test_fate_of_the_last_of_two(stage):
    """The first server has refused, the second has answered."""
    stage.origin(name="first", listening=False)
    stage.origin(name="second")
    nginx = start(
        stage, location=APP,
        http="upstream app { server %{first}; server %{second} backup; }")
    assert nginx.get().status == 200
    assert logged(stage, nginx, 1, connect_failed=1)[0].had == (
        "new", "empty", "1", "kept")


def test_fate_is_not_explained_by_an_attempt_before(stage):
    stage.origin(b"HTTP/1.0 503 No\r\nContent-Length: 0\r\n\r\n", "first")
    stage.origin(http1.response(200, "Connection: close"), "second")
    nginx = start(
        stage, location=APP + "myproxy_next_upstream http_503;",
        http="upstream app { server %{first}; server %{second} backup; }")
    assert nginx.get().status == 200
    line, = stage.wait_until(lambda: nginx.read("reuse.log").splitlines())
    assert line.decode().rsplit("|")[-1] == "close"


def test_fate_shutdown(stage):
    def script(conn):
        conn.read_request()
        gate.wait()
        conn.respond()
        conn.wait_for_close()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = start(stage)
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: origin.requests)
    nginx.reload()
    gate.open()
    assert client.read_response().status == 200
    assert logged(stage, nginx, 1)[0].fate == "shutdown"
