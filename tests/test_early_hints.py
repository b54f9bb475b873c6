"""103 responses, which nginx can pass on soundly from 1.29.8."""

import pytest

from harness import http1
from harness.nginx import version

KNOWN = version() >= (1, 29)
PASSED = version() >= (1, 29, 8)

known = pytest.mark.skipif(not KNOWN, reason="nginx has no early_hints")
passed = pytest.mark.skipif(not PASSED, reason="nginx takes the second of two "
                            "for the final response")

HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nServer: x\r\n\r\n"
OTHER = b"HTTP/1.1 102 Processing\r\n\r\n"
FINAL = http1.response(200, "Cache-Control: max-age=60", body=b"body")

PASS = "myproxy_pass http://%{origin};"
CACHE = "myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;"
CACHED = PASS + """
    myproxy_cache zone;
    add_header X-Cache $upstream_cache_status;
"""


def at_once(conn):
    conn.read_request()
    conn.send(HINT + FINAL)


def twice(conn):
    conn.read_request()
    conn.send(HINT + HINT + FINAL)


def byte_by_byte(conn):
    conn.read_request()
    for i in HINT + OTHER + HINT + FINAL:
        conn.send(bytes([i]))


scripts = pytest.mark.parametrize("script", [at_once, twice, byte_by_byte])


@scripts
@passed
def test_hints_are_passed_on_where_wanted(stage, script):
    stage.origin(script)
    response = stage.nginx(location=PASS + "early_hints 1;").get()
    assert response.status == 200
    assert response.body == b"body"
    assert {r.status for r in response.interim} == {103}
    assert all(r.header("Link") == "</a.css>" for r in response.interim)
    assert all(r.header("Server") is None for r in response.interim)


@passed
def test_blanks_before_a_colon_are_removed_from_hints(stage):
    stage.origin([HINT.replace(b"Link:", b"Link :") + FINAL])
    response = stage.nginx(location=PASS + "early_hints 1;").get()
    assert response.body == b"body"
    assert [r.header("Link") for r in response.interim] == ["</a.css>"]


@scripts
def test_hints_are_skipped_where_not(stage, script):
    stage.origin(script)
    response = stage.nginx(location=PASS).get()
    assert response.status == 200
    assert response.body == b"body"
    assert response.interim == []
    assert response.header("Link") is None


@scripts
@pytest.mark.parametrize("hints", [
    "", pytest.param("early_hints 1;", marks=known)])
def test_a_response_behind_hints_is_cached_without_them(
        stage, script, hints):
    stage.origin(script)
    nginx = stage.nginx(http=CACHE, location=CACHED + hints)
    assert nginx.get().header("X-Cache") == "MISS"
    response = nginx.get()
    assert response.header("X-Cache") == "HIT"
    assert response.body == b"body"
    assert response.interim == []


@known
@pytest.mark.parametrize("count", [1, 2, 3, 20])
@pytest.mark.parametrize("lines", ["", "myproxy_buffering off;"],
                         ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("body", [
    http1.response(200, "X-Final: 1", body=b"body"),
    http1.response(200, "X-Final: 1", "Transfer-Encoding: chunked",
                   body=http1.chunked(b"bo", b"dy")),
    http1.compose("HTTP/1.1 200 OK", ["X-Final: 1"], b"body"),
], ids=["whole", "chunked", "until close"])
def test_a_response_behind_many_hints_is_the_final_one(
        stage, count, lines, body):
    """They come in one segment, with the response and without."""
    def script(conn):
        for _ in conn.each_request():
            conn.send(HINT * count + body)
            if b"Length" not in body and b"chunked" not in body:
                break

    stage.origin(script)
    nginx = stage.nginx(location=PASS + lines + "early_hints 1;")
    client = nginx.connect()
    for _ in range(2):
        response = client.get()
        assert response.status == 200
        assert response.header("X-Final") == "1"
        assert response.body == b"body"
        assert len(response.interim) == (count if PASSED else 0)


@known
@pytest.mark.parametrize("lines", ["", "myproxy_buffering off;"],
                         ids=["buffered", "unbuffered"])
def test_hints_without_a_response(stage, lines):
    origin = stage.origin([HINT + HINT, "close"])
    nginx = stage.nginx(location=PASS + lines + "early_hints 1;")
    assert nginx.get().status == 502
    assert origin.carried == [1]
