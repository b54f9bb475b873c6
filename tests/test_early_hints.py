"""103 responses, which nginx can pass on from 1.29.0."""

import pytest

from harness import http1
from harness.nginx import version

pytestmark = pytest.mark.skipif(version() < (1, 29),
                                reason="nginx has no early_hints")

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
def test_hints_are_passed_on_where_wanted(stage, script):
    stage.origin(script)
    response = stage.nginx(location=PASS + "early_hints 1;").get()
    assert response.status == 200
    assert response.body == b"body"
    assert {r.status for r in response.interim} == {103}
    assert all(r.header("Link") == "</a.css>" for r in response.interim)
    assert all(r.header("Server") is None for r in response.interim)


@scripts
def test_hints_are_skipped_where_not(stage, script):
    stage.origin(script)
    response = stage.nginx(location=PASS).get()
    assert response.status == 200
    assert response.body == b"body"
    assert response.interim == []
    assert response.header("Link") is None


@scripts
@pytest.mark.parametrize("hints", ["", "early_hints 1;"])
def test_a_response_behind_hints_is_cached_without_them(
        stage, script, hints):
    stage.origin(script)
    nginx = stage.nginx(http=CACHE, location=CACHED + hints)
    assert nginx.get().header("X-Cache") == "MISS"
    response = nginx.get()
    assert response.header("X-Cache") == "HIT"
    assert response.body == b"body"
    assert response.interim == []
