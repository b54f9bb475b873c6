"""What hostile clients and origins try, and what comes of it: nothing."""

import contextlib
import socket
import urllib.parse

import pytest

from harness import http1, settings, tls
from harness.nginx import has, relative, version
from harness.wire import Truncated

NAME = "origin.test"
PASS = "myproxy_pass http://%{origin};"
TLS_PASS = """
    myproxy_pass https://%{origin};
    myproxy_ssl_name origin.test;
    myproxy_ssl_trusted_certificate %{authority.path};
"""
ZONE = "myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;"
CACHED = """
    myproxy_cache zone;
    myproxy_cache_valid 1h;
    add_header X-Cache $upstream_cache_status;
"""
HEAD = b"HTTP/1.1 200 OK\r\n"
STRAY = http1.response(200, "X-Stray: 1", body=b"stray")
INJECTED = http1.response(body=b"injected")

WEBSOCKET = ["Upgrade: websocket", "Connection: Upgrade"]
SWITCHED = http1.response(101, *WEBSOCKET)
CUSTOMARY = """
    myproxy_set_header Upgrade $http_upgrade;
    myproxy_set_header Connection "upgrade";
"""
CONSTANT = """
    myproxy_set_header Upgrade websocket;
    myproxy_set_header Connection upgrade;
"""


def own(request):
    """The answer that shows whose it is."""
    return http1.response(body=request.target.encode())


def serve_own(conn):
    conn.serve(own)


# line breaks that the client has encoded and nginx decoded

SPLIT = "/a HTTP/1.1\r\nX-Evil: 1\r\nY:"


@pytest.mark.parametrize("lines", [
    "rewrite ^ /b?x=$uri break;", "set $args x=$uri;",
    "rewrite (?s)^(.*)$ /b?x=$1&y=$uri? break;", "set $args $arg_y$uri;",
], ids=["rewrite", "args", "both", "one"])
@pytest.mark.parametrize("target", ["http://%{origin}", "http://%{origin}/",
                                    "http://$where", "http://$where/c?$args"])
def test_decoded_arguments_are_encoded_again(stage, lines, target):
    origin = stage.origin()
    nginx = stage.nginx(location="set $where %{origin};" + lines
                        + f"myproxy_pass {target};")
    assert nginx.get(urllib.parse.quote(SPLIT)).status == 200
    assert origin.request.names.count("x-evil") == 0
    assert SPLIT in urllib.parse.unquote(origin.request.target)


def test_decoded_arguments_reach_an_http2_clients_origin_encoded(stage):
    origin = stage.origin()
    client = stage.nginx(listen="http2", location="set $args x=$uri;"
                         + PASS).connect_h2()
    assert client.get(urllib.parse.quote(SPLIT)).status == 200
    assert "x-evil" not in origin.request.names
    assert SPLIT in urllib.parse.unquote(origin.request.target)


@pytest.mark.parametrize("target", [
    "/in?a b", "/in?a\tb", "/in?a b HTTP/1.1", "/in?a\x7fb",
], ids=repr)
def test_blanks_in_the_arguments_of_a_redirect_are_encoded(stage, target):
    def answer(request):
        if request.target.startswith("/in"):
            return own(request)
        return http1.response(200, f"X-Accel-Redirect: {target}", body=b"")

    origin = stage.origin(lambda conn: conn.serve(answer))
    assert stage.nginx(location=PASS).get("/").status == 200
    assert urllib.parse.unquote(origin.requests[-1].target) == target


@pytest.mark.parametrize("rule, line", [
    ("myproxy_redirect http://o/ /$uri/;", "Location: http://o/z"),
    ("myproxy_redirect ~^http://o/(.*) /$1$uri;", "Location: http://o/z"),
    ("myproxy_redirect http://o/ /$uri/;", "Refresh: 0; url=http://o/z"),
    ("myproxy_cookie_path / /$uri;", "Set-Cookie: a=b; Path=/"),
    ("myproxy_cookie_path ~^/(.*) /$uri$1;", "Set-Cookie: a=b; Path=/x"),
    ("myproxy_cookie_domain o.test x$uri;", "Set-Cookie: a=b; Domain=o.test"),
])
def test_decoded_line_breaks_split_no_response(stage, rule, line):
    stage.origin(http1.response(302, line, body=b""))
    nginx = stage.nginx(location=PASS + rule)
    response = nginx.get("/a%0d%0aX-Evil:1%0d%0aB:")
    assert response.status == 302
    assert response.header("X-Evil") is None
    assert "a%0D%0AX-Evil:1%0D%0AB:" in response.header(line.split(":")[0])


def test_attributes_behind_the_path_of_a_cookie(stage):
    stage.origin(http1.response(200, "Set-Cookie: a=b; Path=/x"))
    nginx = stage.nginx(
        location=PASS + 'myproxy_cookie_path / "/; secure; HttpOnly";')
    response = nginx.get()
    assert response.status == 200
    assert (response.header("Set-Cookie")
            == "a=b; Path=/; secure; HttpOnlyx")


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\nB: c", "a\rB", "\r\n",
                                   r"a\r\nB: c", r"a\n", "a\r\n$uri", "a\0B"],
                         ids=repr)
def test_a_line_break_in_the_configuration(stage, value):
    stage.origin()
    code, text = stage.config_test(
        location=PASS + f'myproxy_set_header X "{value}";')
    assert code != 0
    assert "line break" in text


# another protocol than the client can switch to

def tunnel(conn):
    """Switches for whoever asks, or does not ask."""
    conn.read_request()
    conn.send(SWITCHED + b"tunnelled")
    conn.wait_for_close()


@pytest.mark.parametrize("lines", ["", CUSTOMARY, CONSTANT],
                         ids=["default", "customary", "constant"])
@pytest.mark.parametrize("asked", [[], [(b"upgrade", b"websocket")]],
                         ids=["unasked", "asked"])
def test_an_http2_stream_becomes_no_tunnel(stage, lines, asked):
    origin = stage.origin(tunnel)
    client = stage.nginx(listen="http2", location=PASS + lines).connect_h2()
    response = client.get("/", *asked)
    if asked and (version() >= (1, 31, 0) or relative().refuses_upgrade):
        # nginx itself refuses such a request (RFC 9113, section 8.2.2)
        assert response.status == 400
        assert not origin.requests
        return
    assert response.status == 502
    assert "upgrade" not in origin.request.names
    assert b"tunnelled" not in client.received


@pytest.mark.skipif(not has("http_auth_request"),
                    reason="nginx has no auth_request")
@pytest.mark.parametrize("lines", ["", CUSTOMARY, CONSTANT],
                         ids=["default", "customary", "constant"])
def test_a_subrequest_becomes_no_tunnel(stage, lines):
    origin = stage.origin()
    auth = stage.origin(tunnel, name="auth")
    nginx = stage.nginx(server=f"""
        location / {{
            auth_request /auth;
            {PASS}
        }}
        location /auth {{
            myproxy_pass http://%{{auth}};
            {lines}
        }}
    """)
    client = nginx.connect()
    assert client.get("/", *WEBSOCKET).status == 500
    assert "upgrade" not in auth.request.names
    assert origin.connections == 0
    assert b"tunnelled" not in client.received


@pytest.mark.parametrize("lines", ["", CUSTOMARY, CONSTANT],
                         ids=["default", "customary", "constant"])
@pytest.mark.parametrize("asked, spoken", [
    ([], "HTTP/1.1"), (WEBSOCKET, "HTTP/1.0")], ids=["unasked", "HTTP/1.0"])
def test_a_client_that_cannot_switch_gets_no_tunnel(stage, lines, asked,
                                                    spoken):
    origin = stage.origin(tunnel)
    nginx = stage.nginx(location=PASS + lines)
    client = nginx.connect()
    assert client.get("/", *asked, version=spoken).status == 502
    assert "upgrade" not in origin.request.names
    assert b"tunnelled" not in client.received
    assert nginx.logged("101 without being asked")


@pytest.mark.parametrize("lines", ["", CUSTOMARY, CONSTANT],
                         ids=["default", "customary", "constant"])
def test_a_client_that_asks_to_switch_gets_its_tunnel(stage, lines):
    origin = stage.origin(tunnel)
    client = stage.nginx(location=PASS + lines).connect()
    assert client.get("/", *WEBSOCKET).status == 101
    assert client.read(9) == b"tunnelled"
    assert origin.request.header("Upgrade") == "websocket"
    assert origin.request.tokens("Connection") == ["upgrade"]


def test_no_upgrade_without_the_clients_fields(stage):
    origin = stage.origin(tunnel)
    client = stage.nginx(
        location=PASS + "myproxy_pass_request_headers off;").connect()
    assert client.get("/", *WEBSOCKET).status == 502
    assert "upgrade" not in origin.request.names
    assert "upgrade" not in origin.request.tokens("Connection")


@pytest.mark.parametrize("status", [200, 404, 426])
@pytest.mark.parametrize("lines", ["", CUSTOMARY], ids=["default", "asking"])
def test_an_origins_offer_to_switch_is_not_passed_to_http2(
        stage, status, lines):
    stage.origin(http1.response(status, "Upgrade: h2c, websocket",
                                "Connection: Upgrade"))
    nginx = stage.nginx(listen="http2", location=PASS + lines)
    response = nginx.connect_h2().get("/")
    assert response.status == status
    assert response.header("upgrade") is None
    nginx = stage.nginx(location=PASS + lines)
    for asked in ([], WEBSOCKET):
        response = nginx.get("/", *asked)
        assert response.status == status
        assert response.header("Upgrade") == "h2c, websocket"
        assert "upgrade" not in response.tokens("Connection")


# stray bytes on an idle connection

def stray(data, then):
    """A script whose first connection says more once it is idle."""
    def script(conn):
        if conn.number > 1:
            conn.serve(own)
            return
        conn.send(own(conn.read_request()))
        script.gate.wait()
        if data:
            conn.send(data)
        if then == "end":
            with contextlib.suppress(OSError):  # nginx may have closed it
                conn.half_close()
        conn.wait_until_delivered()
        if then == "end":
            conn.close()
        script.strayed = True
        conn.exchange.wake()
        if not conn.closed:
            conn.wait_for_close()
    script.strayed = False
    return script


def stop(nginx):
    """Stop nginx's worker, once it waits for events; returns it."""
    worker, = nginx.workers()
    assert nginx.get(port="probe").status == 200
    nginx.pause_worker(worker)
    return worker


STRAYS = pytest.mark.parametrize("data, then", [
    (STRAY, "wait"), (STRAY, "end"), (STRAY[:20], "wait"),
    (b"\r\n", "wait"), (b"", "end"), (http1.response(100), "wait"),
], ids=["response", "response and end", "part of a response", "line",
        "end", "interim"])


@STRAYS
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("location", [PASS, TLS_PASS], ids=["plain", "tls"])
def test_what_strays_onto_an_idle_connection_answers_nothing(
        stage, location, method, data, then):
    """The bytes and the next request come in one batch of events."""
    script = stray(data, then)
    origin = stage.origin(script, tls=location == TLS_PASS and NAME or None)
    script.gate = origin.gate()
    nginx = stage.nginx(location=location)
    client = nginx.connect()
    assert client.get("/1").body == b"/1"
    worker = stop(nginx)
    try:
        client.send(http1.request(method, "/2", body=b"body"))
        client.wait_until_delivered()
        script.gate.open()
        stage.wait_until(lambda: script.strayed)
    finally:
        nginx.resume_worker(worker)
    response = client.read_response()
    assert response.status == 200
    assert response.body == b"/2"
    assert client.get("/3").body == b"/3"
    assert origin.carried == [1, 2]


@STRAYS
@pytest.mark.parametrize("location", [PASS, TLS_PASS], ids=["plain", "tls"])
def test_what_strays_before_the_next_request_answers_nothing(
        stage, location, data, then):
    """The worker has had time to see it."""
    script = stray(data, then)
    origin = stage.origin(script, tls=location == TLS_PASS and NAME or None)
    script.gate = origin.gate()
    nginx = stage.nginx(location=location)
    client = nginx.connect()
    assert client.get("/1").body == b"/1"
    script.gate.open()
    stage.wait_until(lambda: origin.conns[0].closed)
    assert client.get("/2").body == b"/2"
    assert origin.carried == [1, 1]


@pytest.mark.parametrize("status", [403, 404])
def test_what_follows_a_retried_response_in_its_tls_record(stage, status):
    """It does not fit the buffer, and so stays with OpenSSL."""
    def script(conn):
        conn.read_request()
        size = len(http1.response(status, "X-Fill: ", body=b""))
        fill = "x" * (4096 - size)
        data = http1.response(status, f"X-Fill: {fill}", body=b"")
        conn.send(data + STRAY)
        conn.wait_for_close()

    first = stage.origin(script, name="first", tls=NAME)
    second = stage.origin(serve_own, name="second", tls=NAME)
    nginx = stage.nginx(
        http="upstream app { server %{first}; server %{second}; }",
        location=f"""
            myproxy_pass https://app;
            myproxy_ssl_name {NAME};
            myproxy_ssl_trusted_certificate %{{authority.path}};
            myproxy_buffer_size 4k;
            myproxy_next_upstream http_{status};
        """)
    client = nginx.connect()
    for number in range(6):
        response = client.get(f"/{number}")
        assert response.status == 200
        assert response.body == f"/{number}".encode()
    assert first.connections > 1
    assert set(first.carried) == {1}
    assert second.carried == [6]


# an origin that speaks before it is asked

@contextlib.contextmanager
def speaks_first(data):
    """An origin whose connection and bytes come in one batch of events.

    Its queue is full, so that nginx's connection is not made before nginx has
    been stopped.  Yields the address, and what to call when nginx connects;
    that returns the connection.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(
            socket.create_server(("127.0.0.1", 0), backlog=0))
        listener.settimeout(settings.PATIENCE)
        host, port = listener.getsockname()
        plug = stack.enter_context(socket.create_connection((host, port)))

        def speak(stage, nginx):
            worker, = nginx.workers()
            stage.wait_until(lambda: connecting(port))
            nginx.pause_worker(worker)
            try:
                plug.close()
                listener.accept()[0].close()
                wire = stack.enter_context(listener.accept()[0])
                wire.sendall(data)
                wire.shutdown(socket.SHUT_WR)
            finally:
                nginx.resume_worker(worker)
            return wire

        yield f"{host}:{port}", speak


@pytest.mark.parametrize("data", [INJECTED, INJECTED[:20]],
                         ids=["response", "part"])
@pytest.mark.parametrize("location", ["http://app", "https://app"])
def test_an_answer_that_is_there_before_the_request(stage, location, data):
    with speaks_first(data) as (address, speak):
        nginx = stage.nginx(
            http=f"upstream app {{ server {address}; }}",
            location=f"myproxy_pass {location}; myproxy_ssl_verify off;")
        client = nginx.connect()
        client.send(http1.request("GET", "/"))
        speak(stage, nginx)
        response = client.read_response()
    assert response.status == 502
    assert b"injected" not in response.body


@pytest.mark.parametrize("data", [INJECTED, INJECTED[:20], b"x" * 4096],
                         ids=["response", "part", "a buffer full"])
@pytest.mark.parametrize("location", [PASS, TLS_PASS], ids=["plain", "tls"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_one_server_says_too_early_is_not_the_next_ones_answer(
        stage, method, location, data):
    """On the way to a TLS origin anybody may have said it in clear."""
    second = stage.origin(serve_own, name="second",
                          tls=location == TLS_PASS and NAME or None)
    with speaks_first(data) as (address, speak):
        nginx = stage.nginx(
            http=f"""
                upstream app {{
                    server {address};
                    server %{{second}} backup;
                }}
            """,
            location=location.replace("%{origin}", "app") + """
                myproxy_buffer_size 4k;
                myproxy_next_upstream error invalid_header;
                add_header X-Served-By $upstream_addr;
            """)
        client = nginx.connect()
        client.send(http1.request(method, "/own", body=b"body"))
        speak(stage, nginx)
        response = client.read_response()
    if method == "POST" and relative().reads_late and "http:" in location:
        # it may have been received, for all that core knows
        assert response.status == 502
        assert b"injected" not in response.body
        assert not second.requests
        return
    assert response.status == 200
    assert response.body == b"/own"
    assert response.header("X-Served-By").startswith(f"{address}, ")
    assert second.carried == [1]
    assert second.request.body == b"body"


def connecting(port):
    """Has a connection to that port been asked for and not been made?"""
    with open("/proc/net/tcp", encoding="ascii") as file:
        return any(fields[2].endswith(f":{port:04X}") and fields[3] == "02"
                   for fields in map(str.split, file))


@pytest.mark.parametrize("listened", [False, True],
                         ids=["at once", "after ClientHello"])
@pytest.mark.parametrize("then", ["wait", "end"])
def test_an_answer_in_clear_where_tls_is_spoken(stage, listened, then):
    def script(conn):
        if listened:
            conn.recv()
        conn.send(INJECTED)
        if then == "end":
            conn.half_close()
        conn.wait_for_close()

    stage.origin(script)
    response = stage.nginx(location=TLS_PASS).get("/")
    assert response.status == 502
    assert b"injected" not in response.body


# HEAD that the client has not asked for

def answer_long(request):
    return http1.response(200, f"X-Target: {request.target}",
                          body=b"0123456789")


def answer_chunked(request):
    return HEAD + (f"X-Target: {request.target}\r\n"
                   "Transfer-Encoding: chunked\r\n\r\n").encode()


def answer_not_found(request):
    return http1.response(404, f"X-Target: {request.target}")


@pytest.mark.parametrize("answer", [answer_long, answer_chunked,
                                    answer_not_found])
@pytest.mark.parametrize("lines", ["", "myproxy_buffering off;", CACHED],
                         ids=["buffered", "unbuffered", "cached"])
def test_head_for_a_client_that_gets(stage, lines, answer):
    origin = stage.origin(lambda conn: conn.serve(answer))
    nginx = stage.nginx(http=ZONE,
                        location=PASS + lines + "myproxy_method HEAD;")
    client = nginx.connect()
    client.send(http1.request("GET", "/1"), http1.request("GET", "/2"),
                http1.request("POST", "/3", body=b"body"))
    for target in ("/1", "/2", "/3"):
        response = client.read_response()
        assert response.header("X-Target") == target
        assert response.chunked or response.content_length() == 0
        assert response.body == b""
        assert response.kept
    assert [request.method for request in origin.requests] == ["HEAD"] * 3
    assert origin.carried == [3]


def test_head_for_an_http2_client_that_gets(stage):
    stage.origin(lambda conn: conn.serve(answer_long))
    client = stage.nginx(listen="http2", location=PASS
                         + "myproxy_method HEAD;").connect_h2()
    for target in ("/1", "/2"):
        response = client.get(target)
        assert response.reset is None
        assert response.header("x-target") == target
        assert response.header("content-length") in (None, "0")
        assert response.body == b""


def test_head_for_a_client_that_asks_for_it(stage):
    stage.origin(lambda conn: conn.serve(answer_long))
    client = stage.nginx(location=PASS + "myproxy_method HEAD;").connect()
    for target in ("/1", "/2"):
        response = client.request("HEAD", target)
        assert response.header("X-Target") == target
        assert response.header("Content-Length") == "10"


@pytest.mark.parametrize("method", ["head", "Head", "HEADS"])
def test_a_method_like_head_is_another(stage, method):
    origin = stage.origin(lambda conn: conn.serve(answer_long))
    client = stage.nginx(location=PASS
                         + f"myproxy_method {method};").connect()
    for target in ("/1", "/2"):
        response = client.get(target)
        assert response.header("X-Target") == target
        assert response.body == b"0123456789"
    assert {request.method for request in origin.requests} == {method}
    assert origin.carried == [2]


# status lines and header lines that are none

def byte_by_byte(data):
    def script(conn):
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn.read_request()
        for byte in data:
            conn.send(bytes([byte]))
        conn.wait_for_close()
    return script


deliveries = pytest.mark.parametrize(
    "deliver", [lambda data: [data], byte_by_byte], ids=["whole", "bytes"])


@pytest.mark.parametrize("line", [
    "HTTP/1.1 20 0", "HTTP/1.1 2 00 OK", "HTTP/1.1 2 0 0", "HTTP/1.1 1 00",
    "HTTP/1.1 10 1 Switching", "HTTP/1.1 099 OK", "HTTP/1.1 000 OK",
    "HTTP/1.1 0200 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 -20 OK",
    "HTTP/1.1 20", "HTTP/1.1 ",
])
@deliveries
def test_a_status_of_other_than_three_digits(stage, line, deliver):
    stage.origin(deliver(http1.compose(line, ["Content-Length: 0"])))
    nginx = stage.nginx(location=PASS)
    assert nginx.get().status == 502
    assert nginx.logged(r"upstream sent .*status")


@pytest.mark.parametrize("lines", [
    ["HTTP/ any\x01thing: at all", "Content-Length: 2"],
    ["HTTP/1.1 200 OK", "Content-Length: 2"],
    ["Content-Length: 2", "HTTP/1.1 404 Not Found"],
    ["X-Own: 1", "HTTP/x: y", "Content-Length: 2"],
    ["Content-Length: 2", "HTTP/"],
], ids=repr)
@pytest.mark.parametrize("first", ["HTTP/1.1 200 OK", "HTTP/1.1 103 Hints"])
@deliveries
def test_a_status_line_in_the_header(stage, first, lines, deliver):
    data = http1.compose(first, lines, b"ok")
    if "103" in first:
        data = data[:-2] + http1.response()
    stage.origin(deliver(data))
    nginx = stage.nginx(location=PASS)
    assert nginx.get().status == 502
    assert nginx.logged("upstream sent a second status line")


@deliveries
def test_fields_whose_names_begin_like_a_status_line(stage, deliver):
    stage.origin(deliver(http1.response(200, "HTTP: 1", "HTTP-X: HTTP/1.1",
                                        "http2: HTTP/")))
    response = stage.nginx(location=PASS).get()
    assert response.status == 200
    assert response.header("HTTP") == "1"
    assert response.header("HTTP-X") == "HTTP/1.1"
    assert response.header("http2") == "HTTP/"


# interim responses

ACTING = [
    "Set-Cookie: interim=1", "Location: http://interim.test/",
    "Refresh: 0; url=/interim", "Content-Type: text/interim",
    "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "ETag: \"interim\"",
    "Cache-Control: max-age=60", "Expires: Thu, 31 Dec 2037 23:55:55 GMT",
    "Vary: Interim", "X-Accel-Expires: 60", "X-Accel-Redirect: /interim",
    "X-Accel-Limit-Rate: 1", "X-Accel-Buffering: no",
    "X-Accel-Charset: utf-8", "Content-Encoding: gzip",
    "WWW-Authenticate: Basic", "Connection: close", "Upgrade: websocket",
]


@pytest.mark.parametrize("status", [100, 102, 103, 199])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("lines", ["", pytest.param(
    "early_hints 1;", marks=pytest.mark.skipif(
        version() < (1, 29), reason="nginx has no early_hints"))],
    ids=["skipped", "passed"])
def test_nothing_in_an_interim_response_is_acted_on(stage, lines, count,
                                                    status):
    final = http1.response(200, "X-Final: 1", body=b"final")
    origin = stage.origin(http1.response(status, *ACTING) * count + final)
    nginx = stage.nginx(http=ZONE, server=f"""
        location = / {{
            {PASS}
            myproxy_cache zone;
            add_header X-Cache $upstream_cache_status;
            {lines}
        }}
        location /interim {{ return 418; }}
    """)
    client = nginx.connect()
    for _ in range(2):
        response = client.get()
        assert response.status == 200
        assert response.body == b"final"
        assert response.header("X-Cache") == "MISS"
        assert response.header("X-Final") == "1"
        assert not any(b"interim" in value.lower()
                       for _, value in response.headers)
        for line in ACTING:
            name, _, value = line.partition(": ")
            assert value not in response.values(name)
    assert origin.carried == [2]


@pytest.mark.parametrize("lines", [
    [], ["Content-Length: 3"], ["Transfer-Encoding: chunked"],
], ids=repr)
@pytest.mark.parametrize("status", [100, 103])
def test_an_interim_responses_framing_does_not_count(stage, status, lines):
    stage.origin(http1.response(status, *lines) + STRAY)
    nginx = stage.nginx(location=PASS)
    response = nginx.get()
    assert response.status in (200, 502)
    if response.status == 200:
        assert response.body == b"stray"


@pytest.mark.parametrize("tiny", [
    b"HTTP/1.1 100\n\n", b"HTTP/1.1 103\r\n\r\n", b"HTTP/1.1 199\nA:\n\n",
], ids=repr)
@pytest.mark.parametrize("lines", [
    "", "myproxy_buffer_size 256k; myproxy_buffers 4 256k;"
    "myproxy_busy_buffers_size 512k;",
], ids=["small buffer", "large buffer"])
@pytest.mark.parametrize("count", [2000, 20000])
def test_very_many_interim_responses(stage, tiny, lines, count):
    stage.origin(tiny * count + http1.response())
    nginx = stage.nginx(location=PASS + lines)
    statuses = {nginx.get().status for _ in range(2)}
    assert statuses < {200, 502}
    if statuses == {502}:
        assert nginx.logged("too many interim responses")


# how an until-close response over TLS ends

UNTIL_CLOSE = HEAD + b"\r\nhalf of it"


def ends(data, notify):
    """A TLS connection that closes behind the data."""
    def script(conn):
        conn.read_request()
        conn.send(data)
        if notify:
            conn.exchange.note(conn.who, "sends close_notify")
            conn.sock.unwrap()
    return script


WAYS = pytest.mark.parametrize(
    "lines", ["", "myproxy_buffering off;", CACHED],
    ids=["buffered", "unbuffered", "cached"])


@WAYS
@pytest.mark.parametrize("body", [b"half of it", b"x" * 100000, b""],
                         ids=["small", "large", "empty"])
def test_a_body_cut_without_close_notify_is_not_whole(stage, lines, body):
    origin = stage.origin(ends(HEAD + b"\r\n" + body, False), tls=NAME)
    nginx = stage.nginx(http=ZONE, location=TLS_PASS + lines)
    for number in (1, 2):
        client = nginx.connect()
        client.send(http1.request("GET", "/"))
        with pytest.raises(Truncated):
            client.read_response()
        assert origin.connections == number


def test_a_body_cut_without_close_notify_resets_an_http2_stream(stage):
    stage.origin(ends(UNTIL_CLOSE, False), tls=NAME)
    client = stage.nginx(listen="http2", location=TLS_PASS).connect_h2()
    assert client.get().reset is not None


@WAYS
@pytest.mark.parametrize("maximum", ["TLSv1_2", "TLSv1_3"])
def test_a_body_that_close_notify_ends_is_whole(stage, authority, lines,
                                                maximum):
    origin = stage.origin(ends(UNTIL_CLOSE, True), tls=tls.Server(
        authority.issue(NAME),
        maximum=getattr(tls.ssl.TLSVersion, maximum)))
    nginx = stage.nginx(http=ZONE, location=TLS_PASS + lines)
    client = nginx.connect()
    for number in (1, 2):
        response = client.get()
        assert response.status == 200
        assert response.body == b"half of it"
    assert origin.connections == (1 if lines == CACHED else 2)


@WAYS
@pytest.mark.parametrize("data", [
    http1.response(body=b"all of it"),
    http1.response(200, "Connection: close", body=b"all of it"),
    http1.response(body=b"all of it", version="HTTP/1.0"),
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    + http1.chunked(b"all", b" of it"),
    HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    + http1.chunked(b"all of it"),
], ids=["length", "length, close", "HTTP/1.0", "chunked", "chunked, close"])
def test_a_framed_body_needs_no_close_notify(stage, lines, data):
    origin = stage.origin(ends(data, False), tls=NAME)
    nginx = stage.nginx(http=ZONE, location=TLS_PASS + lines)
    client = nginx.connect()
    for _ in range(2):
        response = client.get()
        assert response.status == 200
        assert response.body == b"all of it"
        assert response.kept
    assert origin.connections == (1 if lines == CACHED else 2)


# the rest

def test_a_cached_response_of_a_socket_that_a_variable_names(stage):
    origin = stage.origin(family="unix")
    nginx = stage.nginx(
        http=ZONE, location="set $s %{origin.path};"
        "myproxy_pass http://unix:$s;" + CACHED)
    for path in ("/x", "/y", "/x?z"):
        response = nginx.get(path)
        assert response.status == 200
        assert response.header("X-Cache") == "MISS"
    for path in ("/x", "/y", "/x?z"):
        response = nginx.get(path)
        assert response.body == b"hello\n"
        assert response.header("X-Cache") == "HIT"
    assert [request.target for request in origin.requests] == [
        "/x", "/y", "/x?z"]


def test_sockets_that_a_variable_names_share_no_cache(stage):
    stage.origin(http1.response(body=b"a"), name="a", family="unix")
    stage.origin(http1.response(body=b"b"), name="b", family="unix")
    nginx = stage.nginx(
        http=ZONE + "map $arg_o $s { a %{a.path}; b %{b.path}; }",
        location="myproxy_pass http://unix:$s;" + CACHED)
    for _ in range(2):
        for name in "ab":
            assert nginx.get(f"/?o={name}").body == name.encode()


def test_a_get_behind_a_cached_head(stage):
    origin = stage.origin(serve_own)
    nginx = stage.nginx(http=ZONE, location=PASS + CACHED
                        + "myproxy_cache_convert_head off;")
    seen = []
    client = nginx.connect()
    for method in ("HEAD", "GET", "HEAD", "GET"):
        response = client.request(method, "/x")
        assert response.status == 200
        assert response.body == (b"/x" if method == "GET" else b"")
        seen.append(response.header("X-Cache"))
    assert seen == ["MISS", "MISS", "HIT", "HIT"]
    assert [request.method for request in origin.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize("lines", ["", "myproxy_buffering off;"],
                         ids=["buffered", "unbuffered"])
def test_http10_keeps_no_connection(stage, lines):
    """Whatever version the origin answers with, it may be closing."""
    origin = stage.origin([http1.response()])
    nginx = stage.nginx(location=PASS + "myproxy_http_version 1.0;" + lines)
    client = nginx.connect()
    for number in (1, 2):
        assert client.get().status == 200
        assert origin.requests[-1].version == "HTTP/1.0"
        stage.wait_until(lambda: origin.conns[-1].closed)
        assert origin.connections == number
    assert origin.carried == [1, 1]
