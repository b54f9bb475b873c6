"""Status lines and header fields of the origin's response."""

import re

import pytest

from harness import http1
from harness.nginx import product, version

PASS = "myproxy_pass http://%{origin};"
CACHED = PASS + "myproxy_cache zone; myproxy_cache_valid 1h;"
ZONE = "myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;"
HINTS = http1.response(103, "Link: </a.css>; rel=preload")


def slowly(conn, data):
    """Send byte by byte, each when nginx has read the one before.

    The connection is one of a unix socket, which tells what is unread.
    """
    for number in range(len(data)):
        conn.sock.sendall(data[number:number + 1])
        conn.wait_until_delivered()


def answered_slowly(data):
    def script(conn):
        for _ in conn.each_request():
            slowly(conn, data)
    return script


def refused(stage, data, reason, location=PASS):
    """The response is 502, the log says why, the connection ends."""
    origin = stage.origin([data])
    nginx = stage.nginx(location=location)
    client = nginx.connect()
    for _ in range(2):
        assert client.get("/").status == 502
    assert len(nginx.logged(r"\[error\].*upstream sent " + reason)) == 2
    assert origin.carried == [1, 1]
    return nginx


# interim responses

INTERIM = {
    "100": http1.response(100),
    "102": http1.response(102),
    "103": HINTS,
    "199": http1.response(199),
    "several": http1.response(100) + HINTS + HINTS + http1.response(102),
    "framed": http1.response(103, "Content-Length: 5"),
    "chunked": http1.response(103, "Transfer-Encoding: chunked"),
    "close": http1.response(103, "Connection: close"),
    "redirect": http1.response(103, "X-Accel-Redirect: /elsewhere"),
    "without-reason": b"HTTP/1.1 103\r\n\r\n",
}


@pytest.mark.parametrize("interim", INTERIM.values(), ids=INTERIM)
@pytest.mark.parametrize("location", [PASS, CACHED],
                         ids=["plain", "cached"])
def test_interim_responses_are_skipped(stage, location, interim):
    origin = stage.origin(interim + http1.response(200, "X-Own: 1"))
    nginx = stage.nginx(http=ZONE, location=location)
    client = nginx.connect()
    for target in ("/a", "/b", "/a"):
        response = client.get(target)
        assert response.status == 200
        assert response.interim == []
        assert response.header("X-Own") == "1"
        assert response.header("Link") is None
        assert response.body == b"hello\n"
    assert origin.connections == 1


@pytest.mark.parametrize("location", [PASS, CACHED],
                         ids=["plain", "cached"])
def test_interim_responses_may_come_alone(stage, location):
    def script(conn):
        conn.read_request()
        conn.send(HINTS)
        gate.wait()
        conn.send(HINTS)
        conn.respond()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(http=ZONE, location=location, log_level="debug")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    nginx.wait_log("interim response 103")
    gate.open()
    response = client.read_response()
    assert response.status == 200
    assert response.body == b"hello\n"


@pytest.mark.parametrize("location", [PASS, CACHED],
                         ids=["plain", "cached"])
def test_interim_responses_may_come_byte_by_byte(stage, location):
    data = HINTS + http1.response(100) + http1.response(200, "X-Own: 1")
    origin = stage.origin(answered_slowly(data), family="unix")
    nginx = stage.nginx(http=ZONE, location=location)
    client = nginx.connect()
    for target in ("/a", "/b", "/a"):
        response = client.get(target)
        assert response.header("X-Own") == "1"
        assert response.body == b"hello\n"
    assert origin.connections == 1


def test_interim_responses_are_not_in_the_cache(stage):
    origin = stage.origin(HINTS + http1.response(200, "X-Own: 1"))
    nginx = stage.nginx(
        http=ZONE, location=CACHED
        + "add_header X-Status $upstream_cache_status;")
    for status in ("MISS", "HIT"):
        response = nginx.get("/")
        assert response.header("X-Status") == status
        assert response.header("X-Own") == "1"
        assert response.body == b"hello\n"
    assert len(origin.requests) == 1


def test_interim_responses_larger_than_the_buffer_pass(stage):
    link = http1.response(103, "Link: " + "x" * 2500)
    stage.origin(link * 10 + http1.response())
    assert stage.nginx(location=PASS).get("/").status == 200


def test_interim_responses_without_end_are_refused(stage):
    link = http1.response(103, "Link: " + "x" * 2500)
    origin = stage.origin([link * 50 + http1.response()])
    nginx = stage.nginx(location=PASS)
    assert nginx.get("/").status == 502
    assert nginx.logged("upstream sent too many interim responses")
    assert origin.carried == [1]


def test_empty_interim_responses_without_end_are_refused(stage):
    def script(conn):
        conn.read_request()
        try:
            while True:
                conn.sock.sendall(http1.response(100) * 100)
        except ConnectionError:
            pass

    stage.origin(script)
    nginx = stage.nginx(location=PASS)
    assert nginx.get("/").status == 502
    assert nginx.logged("upstream sent too many interim responses")


def test_the_limit_of_interim_responses_is_for_each_attempt(stage):
    link = http1.response(103, "Link: " + "x" * 2500)
    stage.origin([link * 20, "reset"], name="first")
    stage.origin(link * 20 + http1.response(), name="second")
    nginx = stage.nginx(
        http="upstream app { server %{first}; server %{second} backup; }",
        location="myproxy_pass http://app;")
    assert nginx.get("/").status == 200


@pytest.mark.parametrize("line", ["NoColon", "X Name: v", "X(: v"])
def test_a_malformed_interim_response_is_refused(stage, line):
    refused(stage, http1.response(103, line) + http1.response(), "")


def test_an_oversized_interim_response_is_refused(stage):
    stage.origin(http1.response(103, "Link: " + "x" * 5000)
                 + http1.response())
    nginx = stage.nginx(location=PASS + "myproxy_buffer_size 4k;")
    assert nginx.get("/").status == 502
    assert nginx.logged("upstream sent too big header")


# responses without body

BODILESS = {
    "204": ("GET", http1.response(204)),
    "304": ("GET", http1.response(304)),
    "304-length": ("GET", http1.response(304, "Content-Length: 100")),
    "304-chunked": ("GET", http1.response(304,
                                          "Transfer-Encoding: chunked")),
    "head": ("HEAD", http1.response(200, "Content-Length: 100")),
    "head-unframed": ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
    "head-chunked": ("HEAD", http1.response(200,
                                            "Transfer-Encoding: chunked")),
    "head-404": ("HEAD", http1.response(404, "Content-Length: 100")),
}


@pytest.mark.parametrize("method, data", BODILESS.values(), ids=BODILESS)
@pytest.mark.parametrize("buffering", ["on", "off"])
def test_a_response_without_body_ends_with_its_header(stage, buffering,
                                                      method, data):
    def script(conn):
        for request in conn.each_request():
            if request.target == "/other":
                conn.respond(body=b"other")
            else:
                head = data.partition(b"\r\n\r\n")[0]
                conn.send(http1.compose(head, ["X-Own: 1"]))

    origin = stage.origin(script)
    client = stage.nginx(
        location=PASS + f"myproxy_buffering {buffering};").connect()
    for _ in range(2):
        response = client.request(method, "/")
        assert response.status == int(data[9:12])
        assert response.header("X-Own") == "1"
        assert response.kept
        assert client.get("/other").body == b"other"
    assert origin.carried == [4]


def test_a_204_that_announces_a_body_and_sends_it_is_told_of_twice(stage):
    origin = stage.origin(
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello")
    nginx = stage.nginx(location=PASS)
    for _ in range(2):
        assert nginx.get("/").status == 204
    assert len(nginx.logged("upstream announced a body for 204")) == 2
    assert len(nginx.logged("data after a response without body")) == 2
    assert origin.connections == 2


def test_the_length_of_what_head_leaves_out_is_passed(stage):
    stage.origin(http1.response(200, "Content-Length: 100"))
    response = stage.nginx(location=PASS).request("HEAD", "/")
    assert response.header("Content-Length") == "100"


def test_head_by_the_operators_wish_has_no_body(stage):
    origin = stage.origin(http1.response(200, "Content-Length: 0"))
    client = stage.nginx(location=PASS + "myproxy_method HEAD;").connect()
    for _ in range(2):
        assert client.get("/").status == 200
    assert [request.method for request in origin.requests] == ["HEAD"] * 2
    assert origin.connections == 1


# status lines

@pytest.mark.parametrize("status", [
    "200 OK", "200 ", "200", "201 Created", "203 Own Words", "299 x",
    "404 Not Found", "418 I'm a teapot", "599 x", "999 x"])
def test_the_status_is_passed(stage, status):
    stage.origin(http1.compose(f"HTTP/1.1 {status}", ["Content-Length: 2"],
                               b"ok"))
    response = stage.nginx(location=PASS).get("/")
    assert response.status == int(status[:3])
    assert response.start_line == f"HTTP/1.1 {status}".encode()
    assert response.body == b"ok"


@pytest.mark.parametrize("line", [
    b"hello",
    b"<html><body>hello</body></html>",
    b"HTTP/2.0 200 OK",
    b"HTTP/2 200",
    b"HTTP/0.9 200 OK",
    b"HTTP/3.1 200 OK",
    b"http/1.1 200 OK",
    b"ICY 200 OK",
    b"HTTP/1.1 20 OK",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 200OK",
    b"HTTP/1.1 2x0 OK",
    b"HTTP/1.1 -20 OK",
    b"HTTP/1.1 2 00 OK",
    b"HTTP/1.1 22 2 OK",
    b"HTTP/1.1 099 OK",
    b"HTTP/1.1 000 OK",
    b"HTTP/1.1200 OK",
    b"HTTP/1.1",
    b"HTTP/1.1 ",
    b"HTTP/x.1 200 OK",
    b"HTTP/1 200 OK",
    b"\0\1\2\3\xff",
    b" HTTP/1.1 200 OK",
    b"\r\nHTTP/1.1 200 OK",
    b"\nHTTP/1.1 200 OK",
    b"garbage\nHTTP/1.1 200 OK",
    b"XHTTP/1.1 200 OK",
], ids=repr)
def test_a_malformed_status_line_is_refused(stage, line):
    refused(stage, line + b"\r\nContent-Length: 5\r\n\r\nhello",
            "(no HTTP/1.x status line|a status line of another version"
            "|an invalid status code)")


def test_another_version_is_named_in_the_log(stage):
    refused(stage, b"HTTP/2.0 200 OK\r\n\r\n", "a status line of another "
            "version than HTTP/1.x")


def test_what_comes_of_a_body_behind_the_end_is_not_a_response(stage):
    stage.origin([b"garbage without an end", "close"])
    nginx = stage.nginx(location=PASS)
    assert nginx.get("/").status == 502
    assert nginx.logged("upstream sent no HTTP/1.x status line")


# header lines

def with_line(line):
    return b"".join([b"HTTP/1.1 200 OK\r\nX-First: 1\r\n", line,
                     b"\r\nContent-Length: 5\r\n\r\nhello"])


@pytest.mark.parametrize("line, reason", [
    (b"NoColon", "a header line without a colon"),
    (b"X-Own", "a header line without a colon"),
    (b"X Name: v", "(invalid header|a header line)"),
    (b"X\tName: v", "(invalid header|a header line)"),
    (b" folded", "(invalid header|a header line)"),
    (b"\tfolded: v", "(invalid header|a header line)"),
    (b": no name", "(invalid header|a header line)"),
    (b"X-Nul: a\0b", "(invalid header|a header line)"),
    (b"X\0Nul: v", "(invalid header|a header line)"),
    (b"X-Bare: a\rb", "(invalid header|a header line)"),
    (b"X-Bare\r: a", "(invalid header|a header line)"),
    (b"X-Bare:\rX-Own: a", "(invalid header|a header line)"),
    (b"X(Own: v", "a header line with an invalid name"),
    (b"X@Own: v", "a header line with an invalid name"),
    (b"X/Own: v", "a header line with an invalid name"),
    (b"X[Own]: v", "a header line with an invalid name"),
    (b"X{Own}: v", "a header line with an invalid name"),
    (b'"X": v', "a header line with an invalid name"),
    (b"X,Own: v", "a header line with an invalid name"),
    (b"X;Own: v", "a header line with an invalid name"),
    (b"X=Own: v", "a header line with an invalid name"),
    (b"X\\Own: v", "a header line with an invalid name"),
    (b"X\xe4: v", "a header line with an invalid name"),
    (b"X\x7f: v", "(invalid header|a header line)"),
], ids=repr)
def test_a_malformed_header_line_is_refused(stage, line, reason):
    refused(stage, with_line(line), reason)


@pytest.mark.parametrize("data, text", [
    (b"garbage\x1b[31m\"\\\r\n", r'no HTTP/1.x status line: '
     r'"garbage\x1b[31m\x22\x5c"'),
    (b"x" * 70 + b"\r\n", f'no HTTP/1.x status line: "{"x" * 64}..."'),
    (b"HTTP/2.0 200 \x1b\r\n", 'a status line of another version than '
     r'HTTP/1.x: "HTTP/2.0 200 \x1b"'),
    (b"HTTP/1.1 099 OK\r\n", 'an invalid status code: "HTTP/1.1 099 OK"'),
    (with_line(b"HTTP/1.1 200 \x1b"), 'a second status line in the header: '
     r'"HTTP/1.1 200 \x1b"'),
    (with_line(b"X-\xe4(: v"), 'a header line with an invalid name: '
     r'"X-\xe4("'),
    (with_line(b"X-\xe4"), 'a header line without a colon: '
     r'"X-\xe4"'),
    (with_line(b"X-\x7f: v"), r'invalid header: "X-\x7f: v"'),
    (with_line(b"X-Nul: " + b"a" * 100 + b"\0b"), 'invalid header: '
     f'"{"a" * 32}' r'\x00b"'),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\x1b\r\n\r\n",
     r'invalid Content-Length: "5\x1b"'),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x1b\r\n\r\n",
     r'unknown Transfer-Encoding: "\x1b"'),
])
def test_the_log_shows_what_was_wrong(stage, data, text):
    refused(stage, data + b"\r\n", re.escape(text))


@pytest.mark.parametrize("blanks", [b" ", b"\t", b" \t  ", b" " * 64])
@pytest.mark.parametrize("pieces", [False, True])
def test_blanks_before_a_colon_are_removed(stage, blanks, pieces):
    data = with_line(b"x-correlation-id" + blanks + b": v")
    origin = stage.origin(answered_slowly(data) if pieces else data,
                          family="unix")
    nginx = stage.nginx(location=PASS)
    client = nginx.connect()
    for _ in range(2):
        response = client.get("/")
        assert response.status == 200
        assert (b"x-correlation-id", b"v") in response.headers
        assert response.body == b"hello"
    assert origin.connections == 1


def test_what_is_cached_has_no_blanks_before_a_colon(stage):
    origin = stage.origin([with_line(
        b"X-Blank\t : v\r\nCache-Control : max-age=60")])
    nginx = stage.nginx(
        http="myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;",
        location=PASS + "myproxy_cache zone;")
    for _ in range(2):
        response = nginx.get("/")
        assert (b"X-Blank", b"v") in response.headers
        assert response.body == b"hello"
    assert origin.carried == [1]


@pytest.mark.parametrize("field, body", [
    (b"Content-Length : 5", b"hello"),
    (b"Transfer-Encoding\t: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
])
def test_framing_with_a_blank_before_the_colon_counts(stage, field, body):
    origin = stage.origin([b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n"
                           + body] * 2)
    client = stage.nginx(location=PASS).connect()
    for _ in range(2):
        assert client.get("/").body == b"hello"
    assert origin.connections == 1


def test_close_with_a_blank_before_the_colon_counts(stage):
    origin = stage.origin([with_line(b"Connection : close")])
    client = stage.nginx(location=PASS).connect()
    for _ in range(2):
        response = client.get("/")
        assert response.body == b"hello"
        assert response.header("Connection") != "close"
    assert origin.carried == [1, 1]


@pytest.mark.parametrize("line, reason", [
    (b"Content-Length : 5", "more than one Content-Length"),
    (b"Content-Length : 6", "more than one Content-Length"),
    (b"Transfer-Encoding : chunked",
     "both Transfer-Encoding and Content-Length"),
    (b"X-Long" + b" " * 65 + b": v", "invalid header"),
    (b"X-Own : a\0b", "invalid header"),
    (b"X-Own: a \rb", "invalid header"),
    (b"X-Own : a \r:", "invalid header"),
    (b"X Own : v", "invalid header"),
    (b"X-Own ", "invalid header"),
    (b"X-Own \r: v", "invalid header"),
    (b" : v", "invalid header"),
    (b" X-Own : v", "invalid header"),
    (b"X(Own) : v", "a header line with an invalid name"),
], ids=repr)
def test_a_blank_before_a_colon_hides_nothing(stage, line, reason):
    refused(stage, with_line(line), reason)


def test_a_colon_that_does_not_come_is_not_waited_for(stage):
    stage.origin(lambda conn: (
        conn.read_request(),
        conn.send(b"HTTP/1.1 200 OK\r\nX-Long" + b" " * 65),
        conn.wait_for_close()))
    nginx = stage.nginx(location=PASS)
    assert nginx.get("/").status == 502
    assert nginx.logged("upstream sent invalid header")


def test_a_first_header_line_that_is_folded_is_refused(stage):
    refused(stage, b"HTTP/1.1 200 OK\r\n X-Own: 1\r\n"
            b"Content-Length: 5\r\n\r\nhello", "invalid header")


@pytest.mark.parametrize("name", [
    "X.Foo!", "X_Under", "_", "1", "X#$%&'*+-.^_`|~9", "x-lower", "X--Y"])
def test_a_name_that_is_a_token_passes(stage, name):
    stage.origin(with_line(f"{name}: value".encode()))
    response = stage.nginx(location=PASS).get("/")
    assert response.status == 200
    assert (name.encode(), b"value") in response.headers


def test_fields_pass_in_order_and_byte_for_byte(stage):
    lines = [b"X-Second: a", b"X-First: b", b"X-Second: c", b"x-lower: d",
             b"X-Empty:", b"X-Quoted: \"a\\\"b\"", b"X-Bytes: \xc3\xa9\xff",
             b"Via: 1.1 other", b"ETag: \"tag\"", b"X-Tab: a\tb"]
    stage.origin(http1.response(200, *lines))
    response = stage.nginx(location=PASS).get("/")
    wanted = [http1.parse_field(line) for line in lines]
    assert [field for field in response.headers if field in wanted] == wanted


@pytest.mark.parametrize("end", [" ", "   ", "        ", " " * 40])
@pytest.mark.parametrize("name", ["Server-Timing", "X-Own", "ETag"])
def test_blanks_behind_a_value_are_no_part_of_it(stage, name, end):
    stage.origin(http1.response(200, f"{name}: a b{end}", body=b"all"))
    client = stage.nginx(location=PASS).connect()
    client.send(http1.request("GET", "/"))
    seen = client.read_until(b"all")
    assert f"\r\n{name}: a b\r\n".encode() in seen


@pytest.mark.parametrize("name", ["Connection", "Keep-Alive"])
def test_fields_of_the_origins_connection_stay_behind(stage, name):
    stage.origin(http1.response(200, f"{name}: timeout=5"))
    response = stage.nginx(location=PASS).get("/")
    assert "timeout=5" not in response.values(name)


# framing

CONFLICTS = {
    "length-first": (["Content-Length: 5", "Transfer-Encoding: chunked"],
                     "both Content-Length and Transfer-Encoding"),
    "chunked-first": (["Transfer-Encoding: chunked", "Content-Length: 5"],
                      "both Transfer-Encoding and Content-Length"),
    "apart": (["Content-Length: 5", "X-Own: 1",
               "Transfer-Encoding: chunked"],
              "both Content-Length and Transfer-Encoding"),
    "any-case": (["CONTENT-LENGTH: 5", "transfer-encoding: Chunked"],
                 "both Content-Length and Transfer-Encoding"),
    "zero-length": (["Content-Length: 0", "Transfer-Encoding: chunked"],
                    "both Content-Length and Transfer-Encoding"),
    "same-length-twice": (["Content-Length: 5", "Content-Length: 5"],
                          "more than one Content-Length"),
    "two-lengths": (["Content-Length: 5", "Content-Length: 6"],
                    "more than one Content-Length"),
    "chunked-twice": (["Transfer-Encoding: chunked",
                       "Transfer-Encoding: chunked"],
                      "more than one Transfer-Encoding"),
    "two-codings": (["Transfer-Encoding: gzip",
                     "Transfer-Encoding: chunked"],
                    "unknown Transfer-Encoding: \"gzip\""),
}


@pytest.mark.parametrize("lines, reason", CONFLICTS.values(), ids=CONFLICTS)
def test_an_ambiguous_framing_is_refused(stage, lines, reason):
    refused(stage, http1.response(200, *lines, body=b"5\r\nhello\r\n0\r\n"
                                  b"\r\n"), reason)


@pytest.mark.parametrize("value", [
    "-1", "+5", "5x", "x", "", "99999999999999999999", "5, 5", "5,6", "0x5",
    "5 5", "5.0", "1e1", "5;", "9223372036854775808"])
@pytest.mark.parametrize("status", [200, 304])
def test_a_malformed_content_length_is_refused(stage, status, value):
    head = http1.response(status, f"Content-Length: {value}", body=b"hello")
    refused(stage, head, "invalid Content-Length")


@pytest.mark.parametrize("value", [
    "gzip, chunked", "gzip", "identity", "chunked, chunked", "chunked, gzip",
    "xchunked", "chunkedx", "chunked;a=b", "", "chunked,", "\"chunked\""])
def test_an_unknown_transfer_coding_is_refused(stage, value):
    refused(stage, http1.response(200, f"Transfer-Encoding: {value}",
                                  body=http1.chunked(b"hello")),
            "unknown Transfer-Encoding")


@pytest.mark.parametrize("value", ["Chunked", "CHUNKED", "  chunked  "])
def test_chunked_has_no_case(stage, value):
    origin = stage.origin(http1.response(200, f"Transfer-Encoding: {value}",
                                         body=http1.chunked(b"hello")))
    client = stage.nginx(location=PASS).connect()
    for _ in range(2):
        assert client.get("/").body == b"hello"
    assert origin.connections == 1


def test_an_invalid_response_may_go_to_the_next_server(stage):
    stage.origin([http1.response(200, "Content-Length: 5",
                                 "Transfer-Encoding: chunked")],
                 name="first")
    second = stage.origin(name="second")
    nginx = stage.nginx(
        http="upstream app { server %{first}; server %{second} backup; }",
        location="myproxy_pass http://app;"
        "myproxy_next_upstream invalid_header;")
    assert nginx.get("/").status == 200
    assert len(second.requests) == 1


def test_nothing_of_an_invalid_response_is_passed(stage):
    stage.origin([http1.response(200, "X-Own: 1", "Content-Length: 5",
                                 "Content-Length: 6", body=b"hello!")])
    response = stage.nginx(location=PASS).get("/")
    assert response.header("X-Own") is None
    assert b"hello" not in response.body


# size

def test_an_oversized_header_is_refused(stage):
    origin = stage.origin(http1.response(200, "X-Long: " + "x" * 5000))
    nginx = stage.nginx(location=PASS + "myproxy_buffer_size 4k;")
    assert nginx.get("/").status == 502
    assert nginx.logged("upstream sent too big header")
    nginx.get("/")
    assert origin.carried == [1, 1]


def test_an_oversized_status_line_is_refused(stage):
    stage.origin(http1.response(200, reason="x" * 5000))
    nginx = stage.nginx(location=PASS + "myproxy_buffer_size 4k;")
    assert nginx.get("/").status == 502
    assert nginx.logged("upstream sent too big header")


def test_a_larger_buffer_takes_a_larger_header(stage):
    stage.origin(http1.response(200, "X-Long: " + "x" * 5000))
    nginx = stage.nginx(location=PASS + "myproxy_buffer_size 8k;"
                        "myproxy_buffers 8 8k;")
    assert nginx.get("/").header("X-Long") == "x" * 5000


@pytest.mark.parametrize("location", [PASS, CACHED],
                         ids=["plain", "cached"])
def test_a_header_may_come_byte_by_byte(stage, location):
    data = http1.response(200, "X-Own: 1", "Set-Cookie: a=b; Path=/")
    stage.origin(answered_slowly(data), family="unix")
    response = stage.nginx(http=ZONE, location=location).get("/")
    assert response.header("X-Own") == "1"
    assert response.header("Set-Cookie") == "a=b; Path=/"
    assert response.body == b"hello\n"


def test_many_fields_pass(stage):
    lines = [f"X-Field-{number}: {number}" for number in range(100)]
    stage.origin(http1.response(200, *lines))
    response = stage.nginx(location=PASS).get("/")
    assert [name for name in response.names if name.startswith("x-")] == [
        f"x-field-{number}" for number in range(100)]


# hidden, passed and ignored fields

@pytest.mark.parametrize("line", [
    "X-Pad: avoid", "X-Accel-Expires: 5", "X-Accel-Limit-Rate: 1000000",
    "X-Accel-Buffering: no", "X-Accel-Charset: utf-8",
    "Proxy-Connection: keep-alive", "TE: gzip"])
def test_fields_for_nginx_are_hidden(stage, line):
    stage.origin(http1.response(200, line, "X-Own: 1"))
    response = stage.nginx(location=PASS).get("/")
    assert response.header("X-Own") == "1"
    assert line.split(":")[0].lower() not in response.names


@pytest.mark.parametrize("line", [
    "X-Pad: avoid", "X-Accel-Expires: 5", "X-Accel-Limit-Rate: 1000000",
    "X-Accel-Buffering: no", "X-Accel-Charset: utf-8",
    "Proxy-Connection: keep-alive", "TE: gzip"])
def test_fields_for_nginx_are_passed_on_demand(stage, line):
    name, value = line.split(": ")
    stage.origin(http1.response(200, line))
    nginx = stage.nginx(location=PASS + f"myproxy_pass_header {name};")
    assert nginx.get("/").header(name) == value


def test_server_and_date_are_nginxs_own(stage):
    stage.origin(http1.response(200, "Server: own", "Date: yesterday"))
    response = stage.nginx(location=PASS).get("/")
    assert response.header("Server").lower().startswith(product())
    assert response.header("Date").endswith(" GMT")


@pytest.mark.parametrize("name", ["Server", "Date"])
def test_server_and_date_are_the_origins_on_demand(stage, name):
    stage.origin(http1.response(200, f"{name}: own"))
    nginx = stage.nginx(location=PASS + f"myproxy_pass_header {name};")
    assert nginx.get("/").header(name) == "own"


@pytest.mark.parametrize("name", ["Server", "Date"])
def test_nginx_does_not_stand_in_for_the_origins(stage, name):
    stage.origin(http1.response(200))
    nginx = stage.nginx(location=PASS + f"myproxy_pass_header {name};")
    assert nginx.get("/").header(name) in (None, "")


def test_a_field_is_hidden_on_demand(stage):
    stage.origin(http1.response(200, "X-Own: 1", "x-own: 2", "X-Other: 3"))
    response = stage.nginx(
        location=PASS + "myproxy_hide_header X-OWN;").get("/")
    assert response.values("X-Own") == []
    assert response.header("X-Other") == "3"


def test_several_fields_are_hidden_on_demand(stage):
    stage.origin(http1.response(200, "X-A: 1", "X-B: 2", "X-C: 3"))
    response = stage.nginx(location=PASS + """
        myproxy_hide_header X-A;
        myproxy_hide_header X-C;
    """).get("/")
    assert [name for name in response.names if name[:2] == "x-"] == ["x-b"]


def test_hidden_fields_are_inherited_until_others_are(stage):
    stage.origin(http1.response(200, "X-A: 1", "X-B: 2"))
    nginx = stage.nginx(http="myproxy_hide_header X-A;", server="""
        location /inherits { myproxy_pass http://%{origin}; }
        location /own {
            myproxy_pass http://%{origin};
            myproxy_hide_header X-B;
        }
    """)
    assert nginx.get("/inherits").values("X-A") == []
    assert nginx.get("/inherits").values("X-B") == ["2"]
    assert nginx.get("/own").values("X-A") == ["1"]
    assert nginx.get("/own").values("X-B") == []


def test_a_hidden_field_is_still_a_variable(stage):
    stage.origin(http1.response(200, "X-Own: 1"))
    nginx = stage.nginx(location=PASS + """
        myproxy_hide_header X-Own;
        add_header X-Seen $upstream_http_x_own;
    """)
    response = nginx.get("/")
    assert response.header("X-Own") is None
    assert response.header("X-Seen") == "1"


def test_the_operator_may_add_fields(stage):
    stage.origin(http1.response(404, "X-Own: 1"))
    response = stage.nginx(
        location=PASS + "add_header X-Own 2 always;").get("/")
    assert response.values("X-Own") == ["1", "2"]


def test_expires_of_the_location_replaces_the_origins(stage):
    stage.origin(http1.response(200, "Expires: never",
                                "Cache-Control: no-store"))
    response = stage.nginx(location=PASS + "expires 1h;").get("/")
    assert response.header("Expires").endswith(" GMT")
    assert response.header("Cache-Control") == "max-age=3600"


# X-Accel-*

ACCEL = PASS + """
    }
    location /internal/ {
        internal;
        return 200 "internal $uri $args $request_method";
"""


def test_accel_redirect_goes_to_an_internal_location(stage):
    stage.origin(http1.response(
        200, "X-Accel-Redirect: /internal/a?b=c", "Content-Length: 0"))
    response = stage.nginx(location=ACCEL).get("/")
    assert response.status == 200
    assert response.body == b"internal /internal/a b=c GET"
    assert response.header("X-Accel-Redirect") is None


def test_accel_redirect_turns_a_post_into_a_get(stage):
    stage.origin(http1.response(
        200, "X-Accel-Redirect: /internal/a", "Content-Length: 0"))
    response = stage.nginx(location=ACCEL).post("/", b"body")
    assert response.body == b"internal /internal/a  GET"


def test_accel_redirect_goes_to_a_named_location(stage):
    stage.origin(http1.response(200, "X-Accel-Redirect: @named",
                                "Content-Length: 0"))
    nginx = stage.nginx(location=PASS + """
        }
        location @named { return 200 "named $uri";
    """)
    assert nginx.get("/a").body == b"named /a"


def test_accel_redirect_takes_some_fields_along(stage):
    stage.origin(http1.response(
        200, "X-Accel-Redirect: /internal/a", "Content-Type: text/own",
        "Set-Cookie: a=b", "Content-Disposition: attachment", "X-Own: 1",
        "Cache-Control: max-age=5", "Content-Length: 0"))
    response = stage.nginx(location=ACCEL).get("/")
    assert response.header("Set-Cookie") == "a=b"
    assert response.header("Content-Disposition") == "attachment"
    assert response.header("Cache-Control") == "max-age=5"
    assert response.header("X-Own") is None


def test_accel_redirect_may_lead_to_another_origin(stage):
    stage.origin(http1.response(200, "X-Accel-Redirect: /second",
                                "Content-Length: 0"))
    second = stage.origin(name="second")
    nginx = stage.nginx(location=PASS + """
        }
        location /second { internal; myproxy_pass http://%{second};
    """)
    assert nginx.get("/").body == b"hello\n"
    assert second.request.target == "/second"


@pytest.mark.parametrize("body, end", [
    (b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n", 1),
    (b"x" * 100000, 50000)], ids=["little", "much"])
def test_accel_redirect_leaves_an_unread_body_behind(stage, body, end):
    def script(conn):
        conn.read_request()
        data = http1.response(200, "X-Accel-Redirect: /internal/a",
                              body=body)
        conn.send(data[:-end])
        gate.wait()
        conn.send(data[-end:])
        conn.wait_for_close()

    origin = stage.origin(script)
    gate = origin.gate()
    client = stage.nginx(location=ACCEL).connect()
    for _ in range(2):
        assert client.get("/").body == b"internal /internal/a  GET"
        gate.open()
    assert origin.carried == [1, 1]


@pytest.mark.parametrize("lines, body", [
    ((), b"body"),
    (["Transfer-Encoding: chunked"], http1.chunked(b"bo", b"dy"))],
    ids=["length", "chunked"])
def test_accel_redirect_keeps_the_connection_if_all_was_read(stage, lines,
                                                             body):
    origin = stage.origin(http1.response(
        200, "X-Accel-Redirect: /internal/a", *lines, body=body))
    client = stage.nginx(location=ACCEL).connect()
    for _ in range(2):
        assert client.get("/").body == b"internal /internal/a  GET"
    assert origin.carried == [2]


@pytest.mark.parametrize("lines, body", [
    (["Content-Length: 4"], b"bodyx"),
    (["Transfer-Encoding: chunked"], http1.chunked(b"body") + b"x"),
    (["Transfer-Encoding: chunked"], http1.chunked(b"body")[:-1]),
    (["Transfer-Encoding: chunked"], b"5\r\nbody"),
    (["Content-Length: 4", "Connection: close"], b"body")],
    ids=["length", "chunked", "chunked-short", "chunk-short", "close"])
def test_accel_redirect_keeps_no_connection_without_reason(stage, lines,
                                                           body):
    origin = stage.origin(http1.response(
        200, "X-Accel-Redirect: /internal/a", *lines, body=body))
    client = stage.nginx(location=ACCEL).connect()
    for _ in range(2):
        assert client.get("/").body == b"internal /internal/a  GET"
    assert origin.carried == [1, 1]


def test_accel_redirect_without_a_body_keeps_the_connection(stage):
    origin = stage.origin(http1.response(
        200, "X-Accel-Redirect: /internal/a", "Content-Length: 0", body=b""))
    client = stage.nginx(location=ACCEL).connect()
    for _ in range(2):
        assert client.get("/").body == b"internal /internal/a  GET"
    assert origin.carried == [2]


def test_accel_redirect_may_be_ignored(stage):
    stage.origin(http1.response(200, "X-Accel-Redirect: /internal/a"))
    nginx = stage.nginx(location="myproxy_ignore_headers X-Accel-Redirect;"
                        + ACCEL)
    response = nginx.get("/")
    assert response.body == b"hello\n"
    assert response.header("X-Accel-Redirect") is None


@pytest.mark.parametrize("more, rate", [
    ("", "1234"),
    ("myproxy_ignore_headers X-Accel-Limit-Rate;", "0")],
    ids=["heeded", "ignored"])
def test_accel_limit_rate(stage, more, rate):
    stage.origin(http1.response(200, "X-Accel-Limit-Rate: 1234"))
    nginx = stage.nginx(location=PASS + more
                        + "add_header X-Rate $limit_rate;")
    assert nginx.get("/").header("X-Rate") == rate


def in_two_parts(gate_of, *lines):
    """A script whose response stops in the middle."""
    def script(conn):
        for _ in conn.each_request():
            conn.send(http1.response(200, *lines, "Content-Length: 6",
                                     body=b"one"))
            gate_of[0].wait()
            conn.send(b"two")
    return script


def test_accel_buffering_no_passes_at_once_what_comes(stage):
    gates = []
    origin = stage.origin(in_two_parts(gates, "X-Accel-Buffering: no"))
    gates.append(origin.gate())
    client = stage.nginx(location=PASS).connect()
    client.send(http1.request("GET", "/"))
    assert client.read_response_head().status == 200
    assert client.read(3) == b"one"
    gates[0].open()
    assert client.read(3) == b"two"
    assert client.get("/").body == b"onetwo"
    assert origin.connections == 1


LARGE = b"0123456789abcdef" * 65536 * 8


def read_late(nginx, client):
    """The body that a client gets which reads when nginx has it all."""
    client.send(http1.request("GET", "/"))
    nginx.wait_log("response is buffered to a temporary file")
    return client.read_response().body


def test_accel_buffering_yes_buffers_where_it_is_off(stage):
    stage.origin(http1.response(200, "X-Accel-Buffering: yes", body=LARGE))
    nginx = stage.nginx(location=PASS + "myproxy_buffering off;")
    assert read_late(nginx, nginx.connect()) == LARGE


def test_accel_buffering_may_be_ignored(stage):
    stage.origin(http1.response(200, "X-Accel-Buffering: no", body=LARGE))
    nginx = stage.nginx(
        location=PASS + "myproxy_ignore_headers X-Accel-Buffering;")
    assert read_late(nginx, nginx.connect()) == LARGE


@pytest.mark.parametrize("more, wanted", [
    ("", "text/html; charset=koi8-r"),
    ("myproxy_ignore_headers X-Accel-Charset;", "text/html; charset=utf-8")],
    ids=["heeded", "ignored"])
def test_accel_charset(stage, more, wanted):
    stage.origin(http1.response(200, "Content-Type: text/html",
                                "X-Accel-Charset: koi8-r"))
    nginx = stage.nginx(location=PASS + more + """
        charset utf-8;
        }
        location /known { charset koi8-r;
    """)
    assert nginx.get("/").header("Content-Type") == wanted


STATUS = "add_header X-Status $upstream_cache_status;"


@pytest.mark.parametrize("value, more, status", [
    ("100", "", "HIT"),
    ("0", "", "MISS"),
    ("@4102444800", "", "HIT"),
    ("@0", "", "MISS"),
    ("0", "myproxy_cache_valid 1h;", "MISS"),
    ("0", "myproxy_cache_valid 1h;"
          "myproxy_ignore_headers X-Accel-Expires;", "HIT"),
    ("100", "myproxy_ignore_headers X-Accel-Expires;", "MISS"),
])
def test_accel_expires_tells_how_long_to_cache(stage, value, more, status):
    stage.origin(http1.response(200, f"X-Accel-Expires: {value}"))
    nginx = stage.nginx(http=ZONE, location=PASS + "myproxy_cache zone;"
                        + STATUS + more)
    assert nginx.get("/").header("X-Status") == "MISS"
    assert nginx.get("/").header("X-Status") == status


@pytest.mark.parametrize("line", [
    "Cache-Control: no-store", "Cache-Control: private",
    "Cache-Control: no-cache", "Cache-Control: max-age=0",
    "Expires: Thu, 01 Jan 1970 00:00:01 GMT", "Set-Cookie: a=b",
    "Vary: *"])
@pytest.mark.parametrize("ignored", [False, True])
def test_fields_that_forbid_to_cache_may_be_ignored(stage, line, ignored):
    stage.origin(http1.response(200, line))
    more = f"myproxy_ignore_headers {line.split(':')[0]};"
    nginx = stage.nginx(http=ZONE, location=CACHED + STATUS
                        + (more if ignored else ""))
    assert nginx.get("/").header("X-Status") == "MISS"
    response = nginx.get("/")
    assert response.header("X-Status") == ("HIT" if ignored else "MISS")
    name, value = line.split(": ", 1)
    assert response.values(name) == [value]


# intercepted errors

INTERCEPTED = """
    error_page 404 500 /own;
    }
    location /own { internal; return 200 own;
"""


@pytest.mark.parametrize("status", [404, 500])
def test_an_intercepted_error_gets_the_operators_page(stage, status):
    stage.origin(http1.response(status, "X-Own: 1", body=b"origin's"))
    nginx = stage.nginx(location=PASS + "myproxy_intercept_errors on;"
                        + INTERCEPTED)
    response = nginx.get("/")
    assert response.status == status
    assert response.body == b"own"
    assert response.header("X-Own") is None


def test_errors_are_not_intercepted_by_default(stage):
    stage.origin(http1.response(404, body=b"origin's"))
    response = stage.nginx(location=PASS + INTERCEPTED).get("/")
    assert response.status == 404
    assert response.body == b"origin's"


def test_an_error_without_a_page_is_not_intercepted(stage):
    stage.origin(http1.response(403, body=b"origin's"))
    nginx = stage.nginx(location=PASS + "myproxy_intercept_errors on;"
                        + INTERCEPTED)
    response = nginx.get("/")
    assert response.status == 403
    assert response.body == b"origin's"


def test_an_intercepted_error_may_go_to_another_origin(stage):
    stage.origin(http1.response(404))
    second = stage.origin(name="second")
    nginx = stage.nginx(location=PASS + """
        myproxy_intercept_errors on;
        error_page 404 = @second;
        }
        location @second { myproxy_pass http://%{second};
    """)
    assert nginx.get("/a").body == b"hello\n"
    assert second.request.target == "/a"


def test_an_intercepted_401_says_how_to_authenticate(stage):
    stage.origin(http1.response(401, 'WWW-Authenticate: Basic realm="x"'))
    nginx = stage.nginx(location=PASS + """
        myproxy_intercept_errors on;
        error_page 401 /own;
        }
        location /own { internal; return 200 own;
    """)
    response = nginx.get("/")
    assert response.status == 401
    assert response.header("WWW-Authenticate") == 'Basic realm="x"'


def test_an_intercepted_error_leaves_an_unread_body_behind(stage):
    def script(conn):
        conn.read_request()
        conn.send(http1.response(404, body=b"one two")[:-4])
        gate.wait()
        conn.send(b" two")
        conn.wait_for_close()

    origin = stage.origin(script)
    gate = origin.gate()
    client = stage.nginx(location=PASS + "myproxy_intercept_errors on;"
                         + INTERCEPTED).connect()
    for _ in range(2):
        assert client.get("/").status == 404
        gate.open()
    assert origin.carried == [1, 1]


def test_an_intercepted_error_without_body_keeps_the_connection(stage):
    origin = stage.origin(http1.response(404, body=b""))
    client = stage.nginx(location=PASS + "myproxy_intercept_errors on;"
                         + INTERCEPTED).connect()
    for _ in range(2):
        assert client.get("/").status == 404
    assert origin.carried == [2]


def test_an_error_of_the_proxy_itself_gets_the_operators_page(stage):
    stage.origin([b"garbage\r\n\r\n"])
    nginx = stage.nginx(location=PASS + """
        error_page 502 /own;
        }
        location /own { internal; return 200 own;
    """)
    response = nginx.get("/")
    assert response.status == 502
    assert response.body == b"own"


# fields that concern the connection to the origin only

HOPS = ["Connection: keep-alive, X-Hop", "Keep-Alive: timeout=60",
        "Proxy-Connection: keep-alive", "TE: trailers",
        "Transfer-Encoding: chunked", "Content-Length: 7", "Upgrade: h2c",
        "x-hop: 1", "X-Kept: 1"]
HIDDEN = ["keep-alive", "proxy-connection", "te", "transfer-encoding",
          "content-length", "upgrade", "x-hop", "connection"]


@pytest.mark.skipif(version() < (1, 29, 8), reason="103 is not passed on")
@pytest.mark.parametrize("lines", [HOPS, HOPS[::-1]],
                         ids=["before", "behind"])
def test_hints_hold_no_field_of_the_connection(stage, lines):
    stage.origin(http1.response(103, *lines)
                 + http1.response(200, "X-Hop: own"))
    response = stage.nginx(
        location="myproxy_pass http://%{origin}; early_hints 1;").get()
    hint, = response.interim
    assert hint.header("X-Kept") == "1"
    assert not set(hint.names) & set(HIDDEN)
    assert response.header("X-Hop") == "own"
    client = stage.nginx(
        listen="http2",
        location="myproxy_pass http://%{origin}; early_hints 1;").connect_h2()
    assert client.get().status == 200


@pytest.mark.skipif(version() < (1, 27, 2), reason="no trailers are passed")
@pytest.mark.parametrize("lines", [HOPS, HOPS[::-1]],
                         ids=["before", "behind"])
@pytest.mark.parametrize("way", ["on", "off"])
def test_trailers_hold_no_field_of_the_connection(stage, way, lines):
    body = http1.chunked(b"body", trailers=[
        *lines, "X-Named: 1"])
    origin = stage.origin(http1.response(
        200, "Transfer-Encoding: chunked", "Connection: x-named", body=body))
    nginx = stage.nginx(location=f"""
        myproxy_pass http://%{{origin}};
        myproxy_buffering {way};
        myproxy_pass_trailers on;
    """)
    client = nginx.connect()
    for _ in range(2):
        response = client.get("/", "TE: trailers")
        assert response.body == b"body"
        names = [name.decode().lower() if isinstance(name, bytes)
                 else name.lower() for name, _ in response.trailers]
        assert names == ["x-kept"]
    assert origin.carried == [2]


@pytest.mark.parametrize("cache", ["", "myproxy_cache zone;"],
                         ids=["passed", "cached"])
def test_http2_clients_get_no_field_of_the_connection(stage, cache):
    stage.origin(http1.response(200, *HOPS[:4], *HOPS[6:],
                                "Cache-Control: max-age=60"))
    client = stage.nginx(
        listen="http2",
        http="myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;",
        location="myproxy_pass http://%{origin};" + cache).connect_h2()
    for _ in range(2):
        response = client.get()
        assert (response.status, response.body) == (200, b"hello\n")
        assert response.header("x-kept") == "1"
        names = {name.decode() for name, _ in response.headers}
        assert not names & {*HIDDEN} - {"content-length"}


@pytest.mark.parametrize("lines", [HOPS[:3] + HOPS[7:],
                                   HOPS[7:] + HOPS[:3]],
                         ids=["before", "behind"])
@pytest.mark.parametrize("cache", ["", "myproxy_cache zone;"
                                   "myproxy_cache_valid 1h;"],
                         ids=["passed", "cached"])
def test_what_the_origins_connection_names_stays_behind(stage, lines, cache):
    stage.origin(http1.response(
        200, *lines, "CONNECTION: Vary, Cache-Control, ETag,Content-Type",
        "Cache-Control: max-age=60", "ETag: \"x\"", "Content-Type: a/b",
        "Connection: Link", "Link: <x>"))
    nginx = stage.nginx(
        http="myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;",
        location="myproxy_pass http://%{origin};" + cache)
    for _ in range(2):
        response = nginx.get()
        assert response.status == 200
        assert response.body == b"hello\n"
        assert response.header("X-Kept") == "1"
        assert response.header("X-Hop") is None
        assert response.header("Link") is None
        assert response.header("ETag") is None
        assert response.header("Cache-Control") == "max-age=60"
        assert response.header("Content-Type") == "a/b"


@pytest.mark.parametrize("name, value", [
    ("Age", "1"), ("Cache-Control", "private"),
    ("Content-Language", "en"), ("Date", "Thu, 31 Dec 2037 23:55:55 GMT"),
    ("Expires", "Thu, 31 Dec 2037 23:55:55 GMT"), ("Pragma", "x"),
    ("Vary", "Accept")])
def test_a_field_for_all_cannot_be_named_away(stage, name, value):
    stage.origin(http1.response(200, f"Connection: {name}, x",
                                f"{name}: {value}", "X: 1"))
    response = stage.nginx(location="""
        myproxy_pass http://%{origin};
        myproxy_pass_header Date;
    """).get()
    assert response.header(name) == value
    assert response.header("X") is None


def test_too_many_options_in_the_origins_connection(stage):
    names = ", ".join(f"x{number}" for number in range(65))
    stage.origin(http1.response(200, f"Connection: {names}"))
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    assert nginx.get().status == 502
    assert nginx.logged("upstream sent too many options in Connection")


# CONNECT

@pytest.mark.skipif(version() < (1, 31), reason="nginx has no tunnel_pass")
def test_connect_where_another_location_has_a_tunnel(stage):
    origin = stage.origin()
    nginx = stage.nginx(server="""
        location / { myproxy_pass http://%{origin}; }
        location /tunnel { tunnel_pass; }
    """)
    client = nginx.connect()
    client.send(b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n")
    assert client.read_response().status == 405
    assert origin.connections == 0


def test_connect_as_a_method_of_the_configuration(stage):
    origin = stage.origin()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};"
                        "myproxy_method $arg_m;")
    assert nginx.get("/?m=CONNECT").status == 500
    assert origin.connections == 0
    assert nginx.get("/?m=CONNECTS").status == 200
