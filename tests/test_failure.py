"""Origins that refuse, are slow, fail, or go away; clients that leave."""

import errno
import socket

import pytest

from harness import http1, settings
from harness.wire import Truncated

PASS = "myproxy_pass http://%{origin};"
APP = "myproxy_pass http://app;"
PAIR = "upstream app { server %{first}; server %{second} backup; }"
LARGE = b"0123456789abcdef" * 1000000


def pair(stage, first, **more):
    """Two origins, of which the second one answers if the first does not."""
    return (stage.origin(first, name="first", **more),
            stage.origin(name="second"))


def silent(conn):
    """Reads a request and never answers."""
    conn.read_request()
    conn.wait_for_close()


def full(stage, name="full"):
    """The address of a socket that takes no connection any more."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(0)
    address = sock.getsockname()
    held = [sock]
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        assert filler.connect_ex(address) in (0, errno.EINPROGRESS)
        held.append(filler)
    stage.names[name] = "%s:%d" % address
    return held


@pytest.fixture
def blocked(stage):
    """%{full} takes no connections."""
    held = full(stage)
    yield
    for sock in held:
        sock.close()


# connecting

@pytest.mark.parametrize("families", [
    ["ipv4", "unix", "unix"], ["unix", "ipv4", "unix"],
    ["unix", "unix", "ipv4"]], ids="-".join)
def test_servers_of_several_families_in_turn(stage, families):
    """What stands for an address in the pool differs in its length."""
    names = ["first", "second", "third"]
    origins = [stage.origin(name=name, family=family, listening=False)
               for name, family in zip(names, families)]
    origins[2].listen()
    nginx = stage.nginx(location=APP, http="upstream app { %s }" % "".join(
        f"server %{{{name}}} max_fails=0;" for name in names))
    for _ in range(4):
        assert nginx.get().status == 200
    assert origins[2].carried == [4]
    for origin in origins[:2]:
        origin.listen()
    for _ in range(9):
        assert nginx.get().status == 200
    assert [origin.carried for origin in origins[:2]] == [[3], [3]]


def test_a_refused_connection_is_502(stage):
    stage.origin(listening=False)
    nginx = stage.nginx(location=PASS)
    assert nginx.get("/").status == 502
    assert nginx.logged(r"\[error\].*connect\(\) failed \(111: Connection "
                        r"refused\) while connecting to upstream")


def test_a_refused_connection_goes_to_the_next_server(stage):
    first, second = pair(stage, None, listening=False)
    nginx = stage.nginx(http=PAIR, location=APP)
    assert nginx.get("/x").status == 200
    assert second.request.target == "/x"


@pytest.mark.parametrize("method", ["POST", "PATCH", "LOCK"])
def test_what_was_not_sent_goes_to_the_next_server(stage, method):
    first, second = pair(stage, None, listening=False)
    nginx = stage.nginx(http=PAIR, location=APP)
    assert nginx.request(method, "/", body=b"body").status == 200
    assert second.request.method == method
    assert second.request.body == b"body"


def test_all_refused_is_502(stage):
    stage.origin(name="first", listening=False)
    stage.origin(name="second", listening=False)
    nginx = stage.nginx(
        http="upstream app { server %{first}; server %{second}; }",
        location=APP)
    assert nginx.get("/").status == 502
    assert len(nginx.logged("Connection refused")) == 2
    assert nginx.get("/").status == 502
    assert nginx.logged("no live upstreams while connecting to upstream")


def test_a_unix_socket_that_is_not_there_is_502(stage):
    nginx = stage.nginx(location="myproxy_pass http://unix:"
                        "%{prefix}/none.sock;")
    assert nginx.get("/").status == 502
    assert nginx.logged("No such file or directory")


def test_an_origin_that_comes_back_is_used(stage):
    origin = stage.origin(listening=False)
    nginx = stage.nginx(location=PASS)
    assert nginx.get("/").status == 502
    origin.listen()
    assert nginx.get("/").status == 200


def test_the_time_to_connect_is_limited(stage, blocked):
    nginx = stage.nginx(location="myproxy_pass http://%{full};"
                        "myproxy_connect_timeout 200ms;")
    assert nginx.get("/").status == 504
    assert nginx.logged("upstream timed out .* while connecting to upstream")


def test_a_connection_that_takes_too_long_goes_to_the_next(stage, blocked):
    second = stage.origin(name="second")
    nginx = stage.nginx(
        http="upstream app { server %{full}; server %{second} backup; }",
        location=APP + "myproxy_connect_timeout 200ms;")
    assert nginx.post("/", b"body").status == 200
    assert second.request.body == b"body"


# sending

def test_the_time_to_send_is_limited(stage):
    def script(conn):
        conn.read_head()
        gate.wait()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(location=PASS + "myproxy_send_timeout 300ms;"
                        "client_max_body_size 0;")
    assert nginx.post("/", LARGE).status == 504
    assert nginx.logged("upstream timed out .* while sending request to "
                        "upstream")


# reading

def test_the_time_to_answer_is_limited(stage):
    origin = stage.origin(silent)
    nginx = stage.nginx(location=PASS + "myproxy_read_timeout 200ms;")
    assert nginx.get("/").status == 504
    assert nginx.logged("upstream timed out .* while reading response "
                        "header from upstream")
    stage.wait_until(lambda: origin.conns[0].closed)


@pytest.mark.parametrize("part", [
    b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX-Own: 1\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n"], ids=repr)
def test_a_header_that_stops_is_504(stage, part):
    stage.origin([part])
    nginx = stage.nginx(location=PASS + "myproxy_read_timeout 200ms;")
    assert nginx.get("/").status == 504


def test_the_time_to_answer_starts_anew_on_a_kept_connection(stage):
    def script(conn):
        conn.read_request()
        conn.respond()
        silent(conn)

    origin = stage.origin(script)
    nginx = stage.nginx(location=PASS + "myproxy_read_timeout 200ms;")
    assert nginx.get("/").status == 200
    assert nginx.get("/").status == 504
    assert origin.carried == [2]


# going away

def test_a_connection_that_is_closed_without_answer_is_502(stage):
    stage.origin([lambda conn: conn.read_request(), "close"])
    nginx = stage.nginx(location=PASS)
    assert nginx.get("/").status == 502
    assert nginx.logged("upstream prematurely closed connection while "
                        "reading response header")


def test_a_connection_that_is_reset_without_answer_is_502(stage):
    stage.origin([lambda conn: conn.read_request(), "reset"])
    nginx = stage.nginx(location=PASS)
    assert nginx.get("/").status == 502
    assert nginx.logged("Connection reset by peer")


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("part", [
    b"H", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r",
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n"], ids=repr)
def test_a_header_that_is_cut_is_502(stage, part, end):
    stage.origin([part, end])
    assert stage.nginx(location=PASS).get("/").status == 502


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("part", [
    b"", b"H", b"HTTP/1.1 200 OK\r\nX-Own: 1\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n"], ids=repr)
def test_a_header_that_is_cut_goes_to_the_next_server(stage, part, end):
    first, second = pair(stage, [part, end])
    nginx = stage.nginx(http=PAIR, location=APP)
    response = nginx.get("/")
    assert response.status == 200
    assert response.body == b"hello\n"
    assert response.header("X-Own") is None
    assert len(second.requests) == 1


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_a_body_that_is_reset_goes_nowhere_else(stage, buffering):
    def script(conn):
        conn.read_request()
        conn.send(http1.response(body=LARGE)[:500000])
        gate.wait()
        conn.reset()

    first, second = pair(stage, script)
    gate = first.gate()
    client = stage.nginx(http=PAIR, location=APP
                         + f"myproxy_buffering {buffering};").connect()
    client.send(http1.request("GET", "/"))
    head = client.read_response_head()
    assert head.status == 200
    gate.open()
    with pytest.raises((Truncated, ConnectionError)):
        http1.read_body(client, head)
    assert second.connections == 0


# the next server

CONDITIONS = {
    "error": ["reset"],
    "timeout": silent,
    "invalid_header": [b"garbage\r\n\r\n"],
    "http_500": http1.response(500),
    "http_502": http1.response(502),
    "http_503": http1.response(503),
    "http_504": http1.response(504),
    "http_403": http1.response(403),
    "http_404": http1.response(404),
    "http_429": http1.response(429),
}
STATUS = {"error": 502, "timeout": 504, "invalid_header": 502}

conditions = pytest.mark.parametrize("condition", CONDITIONS)


def patience(condition):
    """Only a timeout is to be waited for."""
    if condition != "timeout":
        return ""
    return f"myproxy_read_timeout {int(200 * settings.SCALE)}ms;"


def failing(condition):
    script = CONDITIONS[condition]
    if script == ["reset"]:
        return [lambda conn: conn.read_request(), "reset"]
    return script


@conditions
def test_the_operator_says_when_to_go_to_the_next_server(stage, condition):
    first, second = pair(stage, failing(condition))
    nginx = stage.nginx(
        http=PAIR, location=APP + f"myproxy_next_upstream {condition};"
        + patience(condition))
    response = nginx.get("/x", "X-Own: 1")
    assert response.status == 200
    assert len(first.requests) == 1
    assert second.request.target == "/x"
    assert second.request.header("X-Own") == "1"


@conditions
def test_off_never_goes_to_the_next_server(stage, condition):
    first, second = pair(stage, failing(condition))
    nginx = stage.nginx(
        http=PAIR, location=APP + "myproxy_next_upstream off;"
        + patience(condition))
    wanted = STATUS.get(condition) or int(condition[5:])
    assert nginx.get("/").status == wanted
    assert second.connections == 0


@conditions
def test_errors_and_timeouts_go_to_the_next_server_by_default(stage,
                                                              condition):
    first, second = pair(stage, failing(condition))
    nginx = stage.nginx(http=PAIR,
                        location=APP + patience(condition))
    nginx.get("/")
    assert len(second.requests) == (condition in ("error", "timeout"))


@conditions
def test_a_post_that_was_sent_is_not_sent_again(stage, condition):
    first, second = pair(stage, failing(condition))
    nginx = stage.nginx(
        http=PAIR, location=APP + f"myproxy_next_upstream {condition};"
        + patience(condition))
    wanted = STATUS.get(condition) or int(condition[5:])
    assert nginx.post("/", b"body").status == wanted
    assert first.request.body == b"body"
    assert second.connections == 0


@conditions
def test_a_post_is_sent_again_on_demand(stage, condition):
    first, second = pair(stage, failing(condition))
    nginx = stage.nginx(
        http=PAIR, location=APP
        + f"myproxy_next_upstream {condition} non_idempotent;"
        + patience(condition))
    assert nginx.post("/", b"body").status == 200
    assert first.request.body == b"body"
    assert second.request.body == b"body"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD"])
def test_an_idempotent_request_is_sent_again(stage, method):
    first, second = pair(stage, failing("error"))
    nginx = stage.nginx(http=PAIR, location=APP)
    body = None if method == "HEAD" else b"body"
    assert nginx.request(method, "/", body=body).status == 200
    assert second.request.method == method
    assert second.request.body == (body or b"")


@pytest.mark.parametrize("more", ["", "client_body_buffer_size 1k;"],
                         ids=["memory", "disk"])
def test_a_large_body_is_sent_again_whole(stage, more):
    first, second = pair(stage, failing("error"))
    nginx = stage.nginx(http=PAIR, location=APP + more
                        + "client_max_body_size 0;")
    assert nginx.request("PUT", "/", body=LARGE).status == 200
    assert second.request.body == LARGE


def test_a_streamed_body_cannot_be_sent_again(stage):
    parts = []

    def script(conn):
        conn.read_head()
        for _ in range(2):
            parts.append(conn.read(2))
            conn.exchange.wake()
        conn.reset()

    first, second = pair(stage, script)
    client = stage.nginx(http=PAIR, location=APP
                         + "myproxy_request_buffering off;").connect()
    client.send(http1.request("PUT", "/", "Content-Length: 4"), b"bo")
    stage.wait_until(lambda: parts == [b"bo"])
    client.send(b"dy")
    assert client.read_response().status == 502
    assert second.connections == 0


def test_a_streamed_body_that_was_not_sent_goes_to_the_next(stage):
    first, second = pair(stage, None, listening=False)
    nginx = stage.nginx(http=PAIR, location=APP
                        + "myproxy_request_buffering off;")
    assert nginx.post("/", [b"bo", b"dy"]).status == 200
    assert second.request.body == b"body"


def three(stage, script):
    return [stage.origin(script, name=f"origin{number}")
            for number in (1, 2, 3)]


THREE = """upstream app {
    server %{origin1}; server %{origin2}; server %{origin3};
}"""


@pytest.mark.parametrize("tries, asked", [(0, 3), (1, 1), (2, 2), (5, 3)])
def test_the_number_of_tries_is_limited(stage, tries, asked):
    origins = three(stage, failing("error"))
    nginx = stage.nginx(http=THREE, location=APP
                        + f"myproxy_next_upstream_tries {tries};")
    assert nginx.get("/").status == 502
    assert sum(len(origin.requests) for origin in origins) == asked


@pytest.mark.parametrize("timeout, asked", [("0", 3), ("100ms", 1)])
def test_the_time_for_tries_is_limited(stage, timeout, asked):
    origins = three(stage, silent)
    nginx = stage.nginx(http=THREE, location=APP
                        + f"myproxy_next_upstream_timeout {timeout};"
                        + patience("timeout"))
    assert nginx.get("/").status == 504
    assert sum(len(origin.requests) for origin in origins) == asked


def test_the_last_failure_is_passed_on(stage):
    three(stage, http1.response(503, body=b"origin's"))
    nginx = stage.nginx(http=THREE,
                        location=APP + "myproxy_next_upstream http_503;")
    response = nginx.get("/")
    assert response.status == 503
    assert response.body == b"origin's"


# groups of servers

def test_a_backup_server_serves_only_when_others_fail(stage):
    first, second = pair(stage, None)
    nginx = stage.nginx(http=PAIR, location=APP)
    for _ in range(3):
        nginx.get("/")
    assert second.connections == 0


def test_a_server_that_failed_is_not_asked_for_a_while(stage):
    first, second = pair(stage, failing("error"))
    nginx = stage.nginx(http="""upstream app {
        server %{first} max_fails=2 fail_timeout=1h;
        server %{second} backup;
    }""", location=APP)
    for _ in range(4):
        assert nginx.get("/").status == 200
    assert len(first.requests) == 2
    assert len(second.requests) == 4


def test_a_server_may_fail_for_ever(stage):
    first, second = pair(stage, failing("error"))
    nginx = stage.nginx(http="""upstream app {
        server %{first} max_fails=0;
        server %{second} backup;
    }""", location=APP)
    for _ in range(4):
        assert nginx.get("/").status == 200
    assert len(first.requests) == 4


@pytest.mark.parametrize("condition, counts", [
    ("http_500", True), ("http_503", True), ("http_403", False),
    ("http_404", False)])
def test_some_statuses_count_as_a_failure_of_the_server(stage, condition,
                                                        counts):
    first, second = pair(stage, failing(condition))
    nginx = stage.nginx(http="""upstream app {
        server %{first} max_fails=1 fail_timeout=1h;
        server %{second} backup;
    }""", location=APP + f"myproxy_next_upstream {condition};")
    for _ in range(3):
        assert nginx.get("/").status == 200
    assert len(first.requests) == (1 if counts else 3)


def test_a_server_that_is_down_is_not_asked(stage):
    first, second = pair(stage, None)
    nginx = stage.nginx(
        http="upstream app { server %{first} down; server %{second}; }",
        location=APP)
    for _ in range(3):
        assert nginx.get("/").status == 200
    assert first.connections == 0


def test_the_addresses_that_were_tried_are_variables(stage):
    first, second = pair(stage, failing("http_503"))
    nginx = stage.nginx(http=PAIR, location=APP + """
        myproxy_next_upstream http_503;
        add_header X-Addr $upstream_addr;
        add_header X-Statuses $upstream_status;
    """)
    response = nginx.get("/")
    assert response.header("X-Addr") == f"{first}, {second}"
    assert response.header("X-Statuses") == "503, 200"


# clients that leave

def test_a_client_that_leaves_ends_the_connection_to_the_origin(stage):
    origin = stage.origin(silent)
    nginx = stage.nginx(location=PASS)
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: origin.requests)
    client.close()
    stage.wait_until(lambda: origin.conns[0].closed)
    assert nginx.logged("client prematurely closed connection, so upstream "
                        "connection is closed too")


def test_a_client_that_leaves_is_logged_as_499(stage):
    origin = stage.origin(silent)
    nginx = stage.nginx(http="log_format own '$status';",
                        location=PASS + "access_log access.log own;")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: origin.requests)
    client.close()
    stage.wait_until(lambda: nginx.read("access.log") == b"499\n")


def test_a_client_that_leaves_while_connecting_ends_that(stage, blocked):
    nginx = stage.nginx(location="myproxy_pass http://%{full};",
                        log_level="debug")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    nginx.wait_log("http upstream connect: -2")
    client.close()
    nginx.wait_log("client prematurely closed connection, so upstream "
                   "connection is closed too .*while connecting")


def test_a_client_that_leaves_in_the_body_ends_the_connection(stage):
    def script(conn):
        conn.read_request()
        conn.send(http1.response(body=b"hello world")[:-6])
        conn.wait_for_close()

    origin = stage.origin(script)
    nginx = stage.nginx(location=PASS + "myproxy_buffering off;")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    client.read_response_head()
    client.close()
    stage.wait_until(lambda: origin.conns[0].closed)


def test_an_http2_stream_that_is_reset_ends_the_connection(stage):
    origin = stage.origin(silent)
    client = stage.nginx(listen="http2", location=PASS).connect_h2()
    stream = client.send_request("GET", "/")
    stage.wait_until(lambda: origin.requests)
    client.reset_stream(stream)
    stage.wait_until(lambda: origin.conns[0].closed)


def test_a_client_that_leaves_may_be_ignored(stage):
    def script(conn):
        for _ in conn.each_request():
            gate.wait()
            conn.respond()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(location=PASS + "myproxy_ignore_client_abort on;",
                        log_level="debug")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: origin.requests)
    client.close()
    assert nginx.request("GET", "/nothing", port="probe").status == 200
    assert not origin.conns[0].closed
    gate.open()
    nginx.wait_log("keepalive peer: saving connection")
    assert nginx.get("/").status == 200
    assert origin.carried == [2]


@pytest.mark.parametrize("body", [b"x" * 3000, b"x" * 50000],
                         ids=["whole", "more"])
def test_the_log_blames_the_client_that_has_left(stage, body):
    def script(conn):
        for _ in conn.each_request():
            gate.wait()
            conn.send(http1.response(body=body))

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(location=PASS + "myproxy_ignore_client_abort on;")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: origin.requests)
    client.reset()
    assert nginx.request("GET", "/nothing", port="probe").status == 200
    gate.open()
    nginx.wait_log(r"\(104: Connection reset by peer\) while sending to "
                   "client")


def test_a_client_that_half_closes_counts_as_gone(stage):
    origin = stage.origin(silent)
    client = stage.nginx(location=PASS).connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: origin.requests)
    client.half_close()
    stage.wait_until(lambda: origin.conns[0].closed)
