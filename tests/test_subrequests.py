"""Subrequests and internal redirects."""

import pytest

from harness import http1
from harness.nginx import has

HTML = "Content-Type: text/html"


def pages(**bodies):
    """A script that serves HTML pages by their path; others are 404."""
    def answer(request):
        name = request.target.partition("?")[0].strip("/")
        if name not in bodies:
            return http1.response(404, body=b"none")
        return http1.response(200, HTML, body=bodies[name])
    return lambda conn: conn.serve(answer)


# auth_request

AUTH = """
    location / {
        auth_request /auth;
        auth_request_set $user $upstream_http_x_user;
        myproxy_pass http://%{origin};
        myproxy_set_header X-User $user;
    }
    location = /auth {
        internal;
        myproxy_pass http://%{auth};
        myproxy_pass_request_body off;
        myproxy_set_header Content-Length "";
        myproxy_set_header X-Original $request_uri;
    }
"""

needs_auth_request = pytest.mark.skipif(
    not has("http_auth_request"), reason="nginx has no auth_request")


@needs_auth_request
def test_an_authorized_request_passes_with_its_body(stage):
    origin = stage.origin()
    auth = stage.origin(http1.response(204, "X-User: ann"), name="auth")
    nginx = stage.nginx(server=AUTH)
    assert nginx.post("/a%2Fb?c", b"body", "Cookie: a=b").status == 200
    assert auth.request.method == "GET"
    assert auth.request.target == "/auth"
    assert auth.request.header("Cookie") == "a=b"
    assert auth.request.header("X-Original") == "/a%2Fb?c"
    assert auth.request.header("Host") == "localhost"
    assert auth.request.body == b""
    assert origin.request.method == "POST"
    assert origin.request.target == "/a%2Fb?c"
    assert origin.request.body == b"body"
    assert origin.request.header("X-User") == "ann"


@needs_auth_request
@pytest.mark.parametrize("status", [401, 403])
def test_an_unauthorized_request_does_not_pass(stage, status):
    origin = stage.origin()
    stage.origin(http1.response(status, "WWW-Authenticate: Basic"),
                 name="auth")
    response = stage.nginx(server=AUTH).get("/")
    assert response.status == status
    if status == 401:
        assert response.header("WWW-Authenticate") == "Basic"
    assert origin.connections == 0


@needs_auth_request
def test_a_failing_authorization_is_an_error(stage):
    origin = stage.origin()
    stage.origin(name="auth", listening=False)
    assert stage.nginx(server=AUTH).get("/").status == 500
    assert origin.connections == 0


@needs_auth_request
@pytest.mark.parametrize("answer", [
    http1.response(200, body=b"some text"),
    http1.response(204),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + http1.chunked(b"some", b"text"),
], ids=["length", "none", "chunked"])
def test_the_authorizations_connection_is_used_again(stage, answer):
    origin = stage.origin()
    auth = stage.origin(answer, name="auth")
    client = stage.nginx(server=AUTH).connect()
    for _ in range(3):
        assert client.get("/").body == b"hello\n"
    assert auth.carried == [3]
    assert origin.carried == [3]


# SSI

SSI = """
    ssi on;
    myproxy_pass http://%{origin};
"""


def test_ssi_includes_other_pages(stage):
    origin = stage.origin(pages(
        page=b'<<!--# include virtual="/one" -->|'
             b'<!--# include virtual="/two?a=b" -->>',
        one=b"1", two=b"2"))
    assert stage.nginx(location=SSI).get("/page").body == b"<1|2>"
    assert sorted(request.target for request in origin.requests) == [
        "/one", "/page", "/two?a=b"]
    assert all(request.header("Host") == "localhost"
               for request in origin.requests)


def test_ssi_keeps_the_order_of_slow_pages(stage):
    def script(conn):
        for request in conn.each_request():
            if request.target == "/page":
                body = (b'<!--# include virtual="/slow" -->'
                        b'<!--# include virtual="/fast" -->')
            else:
                if request.target == "/slow":
                    gate.wait()
                body = request.target.encode()
            conn.respond(200, HTML, body=body)
            if request.target == "/fast":
                gate.open()

    origin = stage.origin(script)
    gate = origin.gate()
    assert stage.nginx(location=SSI).get("/page").body == b"/slow/fast"


def test_ssi_includes_nest(stage):
    stage.origin(pages(
        page=b'(<!--# include virtual="/one" -->)',
        one=b'[<!--# include virtual="/two" -->]', two=b"2"))
    assert stage.nginx(location=SSI).get("/page").body == b"([2])"


@pytest.mark.parametrize("lines, body", [
    (["Content-Length: 4"], b"part"),
    (["Transfer-Encoding: chunked"], http1.chunked(b"pa", b"rt")),
    (["Connection: close"], b"part"),
], ids=["length", "chunked", "close"])
def test_ssi_takes_a_page_into_a_variable(stage, lines, body):
    def script(conn):
        for request in conn.each_request():
            if request.target == "/page":
                conn.respond(200, HTML, body=(
                    b'<!--# include virtual="/part" set="part" -->'
                    b'<<!--# echo var="part" encoding="none" -->>'))
                continue
            conn.send(http1.compose("HTTP/1.1 200 OK", [HTML] + lines, body))
            if lines == ["Connection: close"]:
                return

    stage.origin(script)
    assert stage.nginx(location=SSI).get("/page").body == b"<part>"


def test_ssi_includes_a_stub_for_a_page_that_fails(stage):
    stage.origin(pages(page=b"""<!--# block name="stub" -->stub"""
                            b"""<!--# endblock -->"""
                            b"""<<!--# include virtual="/gone/" """
                            b"""stub="stub" -->>"""))
    stage.origin(name="gone", listening=False)
    nginx = stage.nginx(server="""
        location /gone/ { ssi on; myproxy_pass http://%{gone}; }
    """, location=SSI)
    assert nginx.get("/page").body == b"<stub>"


def test_ssi_uses_the_same_connections_again(stage):
    origin = stage.origin(pages(
        page=b'<!--# include virtual="/one" -->'
             b'<!--# include virtual="/two" wait="yes" -->',
        one=b"1", two=b"2"))
    client = stage.nginx(location=SSI).connect()
    for _ in range(5):
        assert client.get("/page").body == b"12"
    assert len(origin.requests) == 15
    assert origin.connections <= 3


# mirror

def mirror(body):
    return f"""
        location / {{
            mirror /mirror;
            mirror_request_body {body};
            myproxy_pass http://%{{origin}};
        }}
        location = /mirror {{
            internal;
            myproxy_pass http://%{{shadow}}$request_uri;
            myproxy_pass_request_body {body};
            myproxy_set_header X-Mirrored yes;
        }}
    """


@pytest.mark.parametrize("body", [b"body", b"body" * 2500],
                         ids=["short", "long"])
def test_a_mirror_gets_the_same_request(stage, body):
    origin = stage.origin()
    shadow = stage.origin(name="shadow")
    nginx = stage.nginx(server=mirror("on"))
    response = nginx.post("/a%2Fb?c=d", body, "X-Own: 1")
    assert (response.status, response.body) == (200, b"hello\n")
    stage.wait_until(lambda: shadow.requests and shadow.request.body)
    for request in (origin.request, shadow.request):
        assert request.start_line == b"POST /a%2Fb?c=d HTTP/1.1"
        assert request.header("X-Own") == "1"
        assert request.body == body
    assert shadow.request.header("X-Mirrored") == "yes"


def test_a_mirror_may_go_without_the_body(stage):
    origin = stage.origin()
    shadow = stage.origin(name="shadow")
    nginx = stage.nginx(server=mirror("off"))
    assert nginx.post("/", b"body").status == 200
    stage.wait_until(lambda: shadow.requests)
    assert origin.request.body == b"body"
    assert shadow.request.method == "POST"
    assert shadow.request.header("Content-Length") in (None, "0")


@pytest.mark.parametrize("answer", [
    http1.response(500), b"nonsense\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"],
    ids=["500", "nonsense", "short"])
def test_a_failing_mirror_is_not_noticed(stage, answer):
    stage.origin()
    shadow = stage.origin(lambda conn: (conn.read_request(),
                                        conn.send(answer)), name="shadow")
    client = stage.nginx(server=mirror("on")).connect()
    for _ in range(3):
        assert client.get("/").body == b"hello\n"
    assert shadow.requests


@pytest.mark.parametrize("status", [204, 304])
def test_bytes_behind_a_response_without_body_are_not_included(stage, status):
    page = b'<<!--#include virtual="/empty"-->>'
    origin = stage.origin(pages(page=page))
    empty = stage.origin(b"HTTP/1.1 %d Empty\r\nContent-Type: text/html\r\n"
                         b"Content-Length: 5\r\n\r\nstray" % status,
                         name="empty")
    nginx = stage.nginx(location="ssi on; myproxy_pass http://%{origin};",
                        server="location /empty "
                               "{ myproxy_pass http://%{empty}; }")
    for _ in range(2):
        assert nginx.get("/page").body == b"<>"
    assert origin.carried == [2]
    assert empty.carried == [1, 1]


# addition

@pytest.mark.skipif(not has("http_addition"),
                    reason="nginx has no addition filter")
def test_pages_are_added_before_and_after(stage):
    stage.origin(pages(page=b"page", before=b"<", after=b">"))
    nginx = stage.nginx(location="""
        myproxy_pass http://%{origin};
        add_before_body /before;
        add_after_body /after;
    """)
    assert nginx.get("/page").body == b"<page>"


# X-Accel-Redirect

def redirect_to(uri, *lines):
    return http1.response(200, f"X-Accel-Redirect: {uri}", *lines,
                          body=b"not this")


def test_accel_redirect_to_another_origin(stage):
    origin = stage.origin(redirect_to("/inside/a%20b?c=d"))
    second = stage.origin(http1.response(body=b"inside"), name="second")
    nginx = stage.nginx(server="""
        location /inside/ {
            internal;
            myproxy_pass http://%{second}/remote/;
        }
    """, location="myproxy_pass http://%{origin};")
    client = nginx.connect()
    for _ in range(2):
        assert client.get("/x").body == b"inside"
    assert second.requests[0].target == "/remote/a%20b?c=d"
    assert origin.carried == [2]
    assert second.carried == [2]


def test_accel_redirect_to_a_file(stage):
    stage.origin(redirect_to("/files/a.txt", "X-Own: 1",
                             "Set-Cookie: a=b", "Content-Type: text/x-own"))
    nginx = stage.nginx(
        files={"html/files/a.txt": "from the file"},
        server="location /files/ { internal; root %{prefix}/html; }",
        location="myproxy_pass http://%{origin};")
    response = nginx.get("/x")
    assert response.body == b"from the file"
    assert response.header("Set-Cookie") == "a=b"
    assert response.header("Content-Type") == "text/x-own"
    assert response.header("X-Accel-Redirect") is None


def test_accel_redirect_turns_a_post_into_a_get(stage):
    stage.origin(redirect_to("/inside"))
    second = stage.origin(name="second")
    nginx = stage.nginx(
        server="location /inside { myproxy_pass http://%{second}; }",
        location="myproxy_pass http://%{origin};")
    assert nginx.post("/x", b"body").status == 200
    assert second.request.method == "GET"
    assert second.request.target == "/inside"


def test_accel_redirect_to_a_named_location(stage):
    stage.origin(redirect_to("@inside"))
    second = stage.origin(name="second")
    nginx = stage.nginx(
        server="location @inside { myproxy_pass http://%{second}; }",
        location="myproxy_pass http://%{origin};")
    assert nginx.post("/x%2Fy?z", b"body").status == 200
    assert second.request.method == "POST"
    assert second.request.target == "/x%2Fy?z"
    assert second.request.body == b"body"


def test_accel_redirect_may_be_ignored(stage):
    stage.origin(redirect_to("/inside"))
    nginx = stage.nginx(location="""
        myproxy_pass http://%{origin};
        myproxy_ignore_headers X-Accel-Redirect;
    """)
    assert nginx.get("/x").body == b"not this"


# error_page

def test_error_page_asks_another_origin(stage):
    stage.origin(http1.response(404, body=b"not this"))
    second = stage.origin(name="second")
    nginx = stage.nginx(
        server="""
            location = /fallback {
                internal;
                myproxy_pass http://%{second}/other;
            }
        """,
        location="""
            myproxy_pass http://%{origin};
            myproxy_intercept_errors on;
            error_page 404 =200 /fallback;
        """)
    response = nginx.post("/x?a=b", b"body")
    assert (response.status, response.body) == (200, b"hello\n")
    assert second.request.start_line == b"GET /other HTTP/1.1"


@pytest.mark.parametrize("target", ["/x%2Fy?z", "/x//y"])
@pytest.mark.parametrize("script", [
    None, http1.response(503), b"nonsense\r\n\r\n"],
    ids=["refused", "503", "nonsense"])
def test_a_failing_origin_is_replaced_by_a_named_one(stage, target, script):
    stage.origin(script, listening=script is not None)
    second = stage.origin(name="second")
    nginx = stage.nginx(
        server="location @second { myproxy_pass http://%{second}; }",
        location="""
            myproxy_pass http://%{origin};
            myproxy_intercept_errors on;
            error_page 502 503 = @second;
        """)
    response = nginx.post(target, b"body")
    assert (response.status, response.body) == (200, b"hello\n")
    assert second.request.method == "POST"
    assert second.request.target == target
    assert second.request.body == b"body"


def test_errors_may_be_followed_recursively(stage):
    stage.origin(http1.response(404))
    stage.origin(http1.response(404), name="second")
    stage.origin(http1.response(body=b"third"), name="third")
    more = "myproxy_intercept_errors on;"
    nginx = stage.nginx(
        server=f"""
            recursive_error_pages on;
            location @second {{
                myproxy_pass http://%{{second}}; {more}
                error_page 404 = @third;
            }}
            location @third {{ myproxy_pass http://%{{third}}; }}
        """,
        location=f"""
            myproxy_pass http://%{{origin}}; {more}
            error_page 404 = @second;
        """)
    assert nginx.get("/").body == b"third"


# try_files

def test_try_files_falls_back_to_a_named_location(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        files={"html/a.txt": "from the file"},
        server="""
            root %{prefix}/html;
            location / { try_files $uri @app; }
            location @app { myproxy_pass http://%{origin}; }
        """)
    assert nginx.get("/a.txt").body == b"from the file"
    assert origin.connections == 0
    assert nginx.post("/b%2Fc?d", b"body").body == b"hello\n"
    assert origin.request.target == "/b%2Fc?d"
    assert origin.request.body == b"body"


@pytest.mark.parametrize("uri, passed", [("", "/a"), ("/", "/a.txt")])
def test_the_uri_that_try_files_found_is_mapped(stage, uri, passed):
    origin = stage.origin()
    nginx = stage.nginx(
        files={"html/a.txt": ""},
        server=f"""
            root %{{prefix}}/html;
            location / {{
                try_files $uri.txt =404;
                myproxy_pass http://%{{origin}}{uri};
            }}
        """)
    assert nginx.get("/a").status == 200
    assert origin.request.target == passed
    assert nginx.get("/none").status == 404


@pytest.mark.parametrize("cache", ["", "myproxy_cache zone;"])
def test_try_files_may_find_no_uri_at_all(stage, cache):
    origin = stage.origin()
    nginx = stage.nginx(
        http="myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;",
        server="""
            location / { try_files /none $arg_none; }
            location ~ ^$ { myproxy_pass http://%{origin}; """ + cache + "}")
    assert nginx.get("/a").status == 500
    assert nginx.logged("there is no URI to ask the origin for")
    assert origin.connections == 0


@pytest.mark.parametrize("file", ["a", "locations", "lacation.txt"])
def test_the_uri_that_try_files_found_may_be_in_another_location(stage, file):
    origin = stage.origin()
    nginx = stage.nginx(
        files={f"html/{file}": ""},
        server=f"""
            root %{{prefix}}/html;
            location /location/ {{ try_files /{file} =404;
                                   myproxy_pass http://%{{origin}}/uri/; }}
        """)
    assert nginx.get("/location/b?c").status == 200
    assert origin.request.target == f"/{file}?c"
