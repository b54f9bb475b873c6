"""A body that another location has begun to read without buffering it.

Only a part of it may be left for the location that the request falls back
to.  What is not the whole body is never sent as if it were.
"""

import pytest

from harness import http1
from harness.nginx import has

LENGTH = 200000
FIRST = b"x" * 5000
REFUSED = r"\[error\].* the request is not sent: its body is not complete"
REMEDY = (REFUSED + r', .* write "myproxy_request_buffering on", .* in that '
          r'first location; .* let its "error_page" name a URI')

#: How the origin that was asked first does not serve the request.
BUSY = http1.response(503, "Connection: close")


def early(answer):
    """A script that answers before it has read the body."""
    def script(conn):
        conn.read_head()
        conn.send(answer)
        conn.wait_for_close()
    return script


def late(answer):
    """A script that reads the body and answers then."""
    def script(conn):
        conn.read_request()
        conn.send(answer)
        conn.wait_for_close()
    return script


def play(stage, answer, first="""
        myproxy_pass http://%{first};
        myproxy_request_buffering off;
        myproxy_intercept_errors on;
        error_page 502 503 = @fallback;
""", fallback="", server="", **more):
    """(nginx, the second origin); the first one answers so or refuses."""
    stage.origin(answer, name="first", listening=answer is not None)
    second = stage.origin(name="second")
    nginx = stage.nginx(location=first, server=server + """
        location @fallback { myproxy_pass http://%{second}; """ + fallback
                        + "}", **more)
    return nginx, second


def send_part(client, framing):
    """Send a request of which the most of the body is not there yet."""
    if framing == "length":
        client.send(http1.request("POST", "/", f"Content-Length: {LENGTH}"),
                    FIRST)
    else:
        client.send(http1.request("POST", "/", "Transfer-Encoding: chunked"),
                    http1.chunk(FIRST))


each_framing = pytest.mark.parametrize("framing", ["length", "chunked"])
each_failure = pytest.mark.parametrize(
    "answer", [None, early(BUSY)], ids=["refused", "busy"])


@each_framing
@each_failure
def test_what_was_read_of_a_body_is_not_sent(stage, answer, framing):
    nginx, second = play(stage, answer)
    client = nginx.connect()
    send_part(client, framing)
    assert client.read_response().status == 502
    assert second.connections == 0
    assert len(nginx.logged(REMEDY)) == 1


@each_framing
@each_failure
def test_what_was_read_of_an_http2_body_is_not_sent(stage, answer, framing):
    nginx, second = play(stage, answer, listen="http2")
    client = nginx.connect_h2()
    lines = [("content-length", str(LENGTH))] if framing == "length" else []
    stream = client.send_request("POST", "/", *lines, body=FIRST, end=False)
    assert client.read_response(stream).status == 502
    assert second.connections == 0
    assert len(nginx.logged(REFUSED)) == 1


@pytest.mark.parametrize("body", [b"body", FIRST * 40, [FIRST] * 40],
                         ids=["small", "large", "chunked"])
def test_a_body_that_was_sent_and_is_gone_is_not_left_out(stage, body):
    nginx, second = play(stage, late(BUSY))
    client = nginx.connect()
    # nginx must not have it all before it asks, or else it buffers it
    if isinstance(body, list):
        head, rest = (http1.request("POST", "/", "Transfer-Encoding: chunked"),
                      b"".join(map(http1.chunk, body)) + b"0\r\n\r\n")
    else:
        head, rest = (http1.request("POST", "/",
                                    f"Content-Length: {len(body)}"), body)
    client.send(head)
    stage.wait_until(lambda: stage.names["first"].connections)
    client.send(rest)
    assert client.read_response().status == 502
    assert second.connections == 0
    assert nginx.logged(REFUSED)


def test_an_http2_body_that_was_sent_and_is_gone(stage):
    """Only what was received of it tells how long it was."""
    nginx, second = play(stage, late(BUSY), listen="http2")
    client = nginx.connect_h2()
    stream = client.send_request("POST", "/", body=FIRST, end=False)
    stage.wait_until(lambda: stage.names["first"].connections)
    client.send_data(stream, FIRST, end=True)
    assert client.read_response(stream).status == 502
    assert second.connections == 0
    assert nginx.logged(REFUSED)


@pytest.mark.parametrize("body", [b"", b"body", [b"bo", b"dy"], []],
                         ids=["empty", "length", "chunked", "empty chunked"])
@each_failure
def test_a_body_that_was_read_whole_is_sent(stage, answer, body):
    nginx, second = play(stage, answer)
    assert nginx.post("/", body).status == 200
    assert second.request.method == "POST"
    assert second.request.body == (b"".join(body) if isinstance(body, list)
                                   else body)
    assert second.request.header("Content-Length") == str(
        len(second.request.body))


@pytest.mark.parametrize("lines", [[("content-length", "4")], []],
                         ids=["length", "unknown"])
def test_an_http2_body_that_was_buffered_is_sent(stage, lines):
    nginx, second = play(stage, late(BUSY), first="""
        myproxy_pass http://%{first};
        myproxy_intercept_errors on;
        error_page 503 = @fallback;
    """, listen="http2")
    response = nginx.connect_h2().request("POST", "/", *lines, body=b"body")
    assert response.status == 200
    assert second.request.body == b"body"
    assert second.request.header("Content-Length") == "4"


@pytest.mark.parametrize("size", [4, 2049, 300000])
@pytest.mark.parametrize("more", ["", "client_body_in_file_only clean;"],
                         ids=["memory", "file"])
def test_a_body_that_was_buffered_is_sent_each_time(stage, size, more):
    """Three locations, one after the other, send all of it."""
    body = (b"0123456789" * (size // 10 + 1))[:size]
    first = stage.origin(late(BUSY), name="first")
    nginx, second = play(
        stage, late(BUSY), fallback="", server="""
        recursive_error_pages on;
        location @again {
            myproxy_pass http://%{first};
            myproxy_intercept_errors on;
            error_page 503 = @fallback;
        }""", first=more + """
            myproxy_pass http://%{first};
            myproxy_intercept_errors on;
            error_page 503 = @again;
        """)
    assert nginx.post("/", body).status == 200
    assert second.request.body == body
    first = stage.names["first"]
    assert [request.body for request in first.requests] == [body, body]


@each_framing
def test_without_the_body_its_rest_is_not_missed(stage, framing):
    nginx, second = play(stage, None,
                         fallback="myproxy_pass_request_body off;")
    client = nginx.connect()
    send_part(client, framing)
    assert client.read_response().status == 200
    assert second.request.method == "POST"
    assert second.request.header("Content-Length") is None
    assert second.request.header("Transfer-Encoding") is None


@pytest.mark.parametrize("body, status", [
    ("$request_body", 502), ("a=${request_body}&b", 502),
    ("$uri:$REQUEST_BODY:", 502), ("$request_body[0]", 502),
    ("$request_body~", 502), ("$request_time/$1$request_body", 502),
    ("$request_body_file", 200), ("$request_time", 200),
    ("constant", 200), ("$uri", 200)])
def test_set_body_with_what_was_read_of_a_body(stage, body, status):
    nginx, second = play(stage, None, fallback=f'myproxy_set_body "{body}";')
    client = nginx.connect()
    send_part(client, "length")
    assert client.read_response().status == status
    assert second.connections == (status == 200)
    assert len(nginx.logged(REFUSED)) == (status == 502)


@pytest.mark.parametrize("size, status", [(100, 200), (300000, 500)])
def test_set_body_with_a_body_that_is_in_a_file(stage, size, status):
    """$request_body is empty then, which is not what the client sent."""
    origin = stage.origin()
    nginx = stage.nginx(location="""
        myproxy_pass http://%{origin};
        myproxy_set_body "<$request_body>";
    """)
    body = b"x" * size
    assert nginx.post("/", body).status == status
    if status == 200:
        assert origin.request.body == b"<" + body + b">"
    else:
        assert origin.connections == 0
        assert nginx.logged(r"\[error\].* the body is in a temporary file, "
                            r".*: write a \"client_body_buffer_size\"")


def test_accel_redirect_to_a_named_location_sends_no_part(stage):
    nginx, second = play(stage, early(
        http1.response(200, "X-Accel-Redirect: @fallback",
                       "Connection: close")))
    client = nginx.connect()
    send_part(client, "length")
    assert client.read_response().status == 502
    assert second.connections == 0


@pytest.mark.parametrize("answer", [
    None, early(BUSY), early(http1.response(
        200, "X-Accel-Redirect: /sorry", "Connection: close"))],
    ids=["refused", "busy", "accel"])
def test_a_uri_is_asked_for_without_the_rest_of_a_body(stage, answer):
    """nginx makes a GET of it, which needs no body."""
    nginx, second = play(stage, answer, first="""
        myproxy_pass http://%{first};
        myproxy_request_buffering off;
        myproxy_intercept_errors on;
        error_page 502 503 = /sorry;
    """, server="location = /sorry { myproxy_pass http://%{second}; }")
    client = nginx.connect()
    send_part(client, "length")
    assert client.read_response().status == 200
    assert (second.request.method, second.request.target) == ("GET", "/sorry")
    assert second.request.header("Content-Length") is None
    assert second.request.body == b""


def test_a_get_of_nginx_in_place_of_one_of_the_client(stage):
    """It is another request, for an address of its own."""
    nginx, second = play(stage, None, first="""
        myproxy_pass http://%{first};
        myproxy_request_buffering off;
        error_page 502 = /sorry;
    """, server="location = /sorry { myproxy_pass http://%{second}; }")
    client = nginx.connect()
    client.send(http1.request("GET", "/", f"Content-Length: {LENGTH}"), FIRST)
    assert client.read_response().status == 200
    assert second.request.target == "/sorry"
    assert second.request.header("Content-Length") is None


def test_a_clients_own_get_is_not_sent_without_its_body(stage):
    nginx, second = play(stage, None)
    client = nginx.connect()
    client.send(http1.request("GET", "/", f"Content-Length: {LENGTH}"), FIRST)
    assert client.read_response().status == 502
    assert second.connections == 0


OTHERS = {
    "proxy": "proxy_pass http://%{first}; proxy_request_buffering off;"
             "proxy_http_version 1.1; proxy_intercept_errors on;",
    "fastcgi": "fastcgi_pass %{first}; fastcgi_request_buffering off;",
    "uwsgi": "uwsgi_pass %{first}; uwsgi_request_buffering off;",
    "scgi": "scgi_pass %{first}; scgi_request_buffering off;",
    "grpc": "grpc_pass grpc://%{first};",
}


@pytest.mark.parametrize("name, framing", [
    (name, framing) for name in OTHERS for framing in ("length", "chunked")
    if (name, framing) not in (("uwsgi", "chunked"), ("scgi", "chunked"))])
def test_other_handlers_that_do_not_buffer(stage, name, framing):
    """uwsgi and scgi buffer bodies of unknown length all the same."""
    nginx, second = play(stage, None, first=OTHERS[name]
                         + "error_page 502 = @fallback;")
    client = nginx.connect()
    send_part(client, framing)
    assert client.read_response().status == 502
    assert second.connections == 0
    assert nginx.logged(REFUSED)


@pytest.mark.parametrize("name", OTHERS)
def test_other_handlers_that_had_the_whole_body(stage, name):
    nginx, second = play(stage, None, first=OTHERS[name]
                         + "error_page 502 = @fallback;")
    assert nginx.post("/", b"body").status == 200
    assert second.request.body == b"body"


def test_another_handler_that_has_sent_the_whole_body(stage):
    nginx, second = play(stage, late(BUSY), first=OTHERS["proxy"]
                         + "error_page 503 = @fallback;")
    client = nginx.connect()
    client.send(http1.request("POST", "/", "Content-Length: 4"))
    stage.wait_until(lambda: stage.names["first"].connections)
    client.send(b"body")
    assert client.read_response().status == 502
    assert second.connections == 0
    assert nginx.logged(REFUSED)


#: How a request comes with a body that has arrived whole.
WHOLE = {
    "length": lambda nginx, method: nginx.request(method, "/", body=FIRST),
    "chunked": lambda nginx, method: nginx.request(method, "/", body=[FIRST]),
    "http2-length": lambda nginx, method: nginx.connect_h2().request(
        method, "/", ("content-length", str(len(FIRST))), body=FIRST),
    "http2": lambda nginx, method: nginx.connect_h2().request(
        method, "/", body=FIRST),
}


@pytest.mark.parametrize("how", WHOLE)
def test_a_handler_that_has_discarded_the_body(stage, how):
    """memcached takes none, and its fallback must not do without."""
    nginx, second = play(stage, None, first="""
        set $memcached_key $uri;
        memcached_pass %{first};
        error_page 502 = @fallback;
    """, listen="http2" if "http2" in how else "")
    if "http2" in how:
        assert nginx.connect_h2().get().status == 200
    else:
        assert nginx.get().status == 200
    assert len(second.requests) == 1
    assert WHOLE[how](nginx, "GET").status == 502
    assert len(second.requests) == 1
    assert len(nginx.logged(REFUSED)) == 1


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_handler_that_is_discarding_the_body(stage, framing):
    """The fallback is asked while the client still sends."""
    nginx, second = play(stage, None, first="""
        set $memcached_key $uri;
        memcached_pass %{first};
        error_page 502 = @fallback;
    """)
    client = nginx.connect()
    if framing == "chunked":
        client.send(http1.request("GET", "/", "Transfer-Encoding: chunked"),
                    http1.chunk(FIRST))
    else:
        client.send(http1.request("GET", "/", f"Content-Length: {LENGTH}"),
                    FIRST)
    assert client.read_response().status == 502
    assert second.connections == 0
    assert len(nginx.logged(REFUSED)) == 1


@pytest.mark.parametrize("how", WHOLE)
def test_a_body_that_is_too_large_for_the_first_location(stage, how):
    nginx, second = play(stage, None, first="""
        client_max_body_size 10;
        error_page 413 = @fallback;
        myproxy_pass http://%{first};
    """, listen="http2" if "http2" in how else "")
    assert WHOLE[how](nginx, "POST").status == 502
    assert second.connections == 0
    assert len(nginx.logged(REMEDY)) == 1


def test_a_page_that_is_included_behind_a_discarded_body(stage):
    origin = stage.origin()
    nginx = stage.nginx(listen="http2", location="ssi on; root %{prefix};",
                        server="location = /in {"
                               " myproxy_pass http://%{origin}; }")
    nginx.write("page.html", b'a <!--#include virtual="/in" --> b')
    response = nginx.connect_h2().request("GET", "/page.html", body=FIRST)
    assert (response.status, response.body) == (200, b"a hello\n b")
    assert origin.request.method == "GET"
    assert origin.request.body == b""


@pytest.mark.skipif(not has("http_auth_request"),
                    reason="nginx has no auth_request")
def test_a_subrequest_before_the_body_is_read(stage):
    """It has the header of a request with a body, but none of its own."""
    nginx, second = play(stage, None, first="""
        auth_request /auth;
        myproxy_pass http://%{second};
        myproxy_request_buffering off;
    """, server="location = /auth { myproxy_pass http://%{second}; }")
    assert nginx.post("/", FIRST).status == 200
    assert [(request.method, request.body) for request in second.requests
            ] == [("GET", b""), ("POST", FIRST)]


def test_a_page_that_is_included_while_the_body_is_read(stage):
    page = http1.response(200, "Content-Type: text/html", "Connection: close",
                          body=b'a <!--#include virtual="/in" --> b')
    nginx, second = play(stage, early(page), first="""
        ssi on;
        myproxy_pass http://%{first};
        myproxy_request_buffering off;
    """, server="location = /in { myproxy_pass http://%{second}; }")
    client = nginx.connect()
    send_part(client, "length")
    response = client.read_response()
    assert (response.status, response.body) == (200, b"a hello\n b")
    assert second.request.method == "GET"
    assert second.request.body == b""


def test_a_file_that_was_closed_is_not_sent(stage):
    """nginx closes it when the response begins, and goes on behind that."""
    first = stage.origin(name="first")
    second = stage.origin(name="second")
    nginx = stage.nginx(location="""
        myproxy_pass http://%{first};
        post_action @after;
    """, server="location @after { myproxy_pass http://%{second}; }")
    assert nginx.post("/", FIRST * 40).status == 200
    nginx.wait_log(REFUSED)
    assert second.connections == 0
    assert nginx.post("/", b"body").status == 200
    stage.wait_until(lambda: second.requests)
    assert second.request.body == b"body"
    assert len(first.requests) == 2
