"""Responses that a filter replaces by one of its own.

nginx's XSLT filter does that with a body that is no XML, when it has seen it,
and answers 500; the image filter answers 415 where there is no image.  A
client that gets it slowly keeps the request alive, in which nothing is left of
what the origin's response was about.
"""

import pytest

from harness import http1
from harness.nginx import loading

IMAGE = loading("http_image_filter")
XSLT = loading("http_xslt")
needs_xslt = pytest.mark.skipif(XSLT is None, reason="nginx has no XSLT")
SHEET = {"sheet": '''<?xml version="1.0"?>
    <xsl:stylesheet version="1.0"
        xmlns:xsl="http://www.w3.org/1999/XSL/Transform"/>'''}
REPLACED = """
    xslt_stylesheet %{prefix}/sheet;
    myproxy_pass http://%{origin};
"""
TYPE = "Content-Type: text/xml"
BODY = b"this is not XML\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

BODIES = {
    "whole": [http1.response(200, TYPE, body=BODY)],
    "chunked": [CHUNKED + http1.chunked(BODY)],
    "close": [HEAD + b"\r\n" + BODY],
    "late": [CHUNKED + http1.chunk(BODY), http1.chunk(BODY) + b"0\r\n\r\n"],
}


def replacing(stage, more="", **config):
    return stage.nginx(main=XSLT, files=SHEET, location=REPLACED + more,
                       **config)


@needs_xslt
@pytest.mark.parametrize("pace", ["", "limit_rate 200;"], ids=["fast", "slow"])
@pytest.mark.parametrize("buffering", ["on", "off"])
@pytest.mark.parametrize("parts", BODIES.values(), ids=BODIES)
def test_the_client_gets_the_other_response(stage, parts, buffering, pace):
    """But for its end, if it is slow and more comes from the origin."""
    def script(conn):
        conn.read_request()
        conn.send(parts[0])
        for part in parts[1:]:
            gate.wait()
            conn.send(part)

    gate = stage.origin(script).gate()
    nginx = replacing(stage, f"myproxy_buffering {buffering};" + pace)
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    head = client.read_response_head()
    assert head.status == 500
    gate.open()
    body = client.read_until_close()
    assert body.startswith(b"<html>\r\n<head><title>500 Internal Serv")
    if not pace or len(parts) == 1:
        assert len(body) == int(head.header("Content-Length"))


@needs_xslt
@pytest.mark.parametrize("parts", [BODIES["whole"], BODIES["chunked"],
                                   BODIES["close"]],
                         ids=["whole", "chunked", "close"])
@pytest.mark.parametrize("page", [
    "return 200 page;", "empty_gif;", "myproxy_pass http://%{other};"],
    ids=["return", "file", "origin"])
def test_the_other_response_may_be_a_page(stage, page, parts):
    """As with nginx's own proxy, the client's connection ends with it."""
    origin = stage.origin(lambda conn: (conn.read_request(),
                                        conn.send(parts[0])))
    other = stage.origin(name="other")
    nginx = replacing(stage, "error_page 500 = /page;",
                      server="location = /page { %s }" % page)
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    client.read_until_close()
    assert origin.connections == 1
    assert nginx.get("/page").status == 200
    assert len(other.requests) == (2 if "other" in page else 0)


@pytest.mark.skipif(IMAGE is None, reason="nginx has no image filter")
def test_the_connection_ends_with_the_page(stage):
    origin = stage.origin(http1.response(200, "Content-Type: image/png"))
    nginx = stage.nginx(main=IMAGE, location="""
        image_filter test;
        error_page 415 = /page;
        myproxy_pass http://%{origin};
    """, server="location = /page { empty_gif; }")
    client = nginx.connect()
    assert client.get("/").body.startswith(b"GIF89a")
    assert client.read_until_close() == b""
    assert origin.connections == 1


@needs_xslt
def test_what_a_client_sends_then_is_not_passed(stage):
    """The request is over, with half of its body on the way."""
    def script(conn):
        conn.read_until(b"hello\r\n")
        conn.send(BODIES["late"][0])
        conn.wait_for_close()

    origin = stage.origin(script)
    nginx = replacing(stage, "myproxy_request_buffering off; limit_rate 200;")
    client = nginx.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    assert client.read_response_head().status == 500
    client.send(b"5\r\nagain\r\n")
    client.read_until_close()
    assert b"again" not in bytes(origin.conns[0].received)


def test_a_precondition_that_fails_replaces_what_is_to_be_cached(stage):
    """nginx's proxy as well sends no more of it than fits at once."""
    stage.origin(http1.response(200, 'ETag: "a"', body=b"hello"))
    nginx = stage.nginx(
        http="myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;",
        location="myproxy_pass http://%{origin}; myproxy_cache zone; "
                 "myproxy_cache_valid 1h; limit_rate $rate;",
        server="set $rate $arg_rate;")
    client = nginx.connect()
    client.send(http1.request("GET", "/?rate=100", 'If-Match: "x"'))
    assert b" 412 Precondition Failed" in client.read_until_close()
    response = nginx.get("/", 'If-Match: "x"')
    assert response.status == 412
    assert b"412 Precondition Failed" in response.body
