"""The file cache and the store.

What expires at "@1" (X-Accel-Expires) is cached, and stale at once.
"""

import os
import signal

import pytest

from harness import http1
from harness.nginx import product

PASS = "myproxy_pass http://%{origin};"
ZONE = "myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;"
CACHE = PASS + """
    myproxy_cache zone;
    add_header X-Status $upstream_cache_status;
"""
VALID = CACHE + "myproxy_cache_valid 1h;"
STALE = "X-Accel-Expires: @1"


def numbered(*lines, **more):
    """Each response has a body of its own: 1, 2, 3 ..."""
    def script(conn):
        for request in conn.each_request():
            body = f"{len(conn.origin.requests)}".encode()
            if request.method == "HEAD":
                conn.send(http1.response(200, *lines, body=body)[:-1])
            else:
                conn.respond(200, *lines, body=body, **more)
    return script


def ask(nginx, target="/", *lines, **more):
    """(status in the cache, body) of a response."""
    response = nginx.get(target, *lines, **more)
    return response.header("X-Status"), response.body


def files(nginx, name="cache"):
    return [os.path.join(where, name)
            for where, _, names in os.walk(os.path.join(nginx.prefix, name))
            for name in names]


def test_the_zone_of_another_module_has_another_name(stage):
    stage.origin(numbered())
    nginx = stage.nginx(location=VALID, http="""
        limit_req_zone $host zone=once:1m rate=1000r/s;
    """ + ZONE)
    assert ask(nginx) == ("MISS", b"1")
    assert ask(nginx) == ("HIT", b"1")


# hit and miss

def test_what_was_cached_is_not_asked_for(stage):
    origin = stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx) == ("MISS", b"1")
    assert ask(nginx) == ("HIT", b"1")
    assert len(origin.requests) == 1


def test_the_header_is_cached_with_its_body(stage):
    stage.origin(http1.response(200, "X-Own: 1", "Content-Type: text/own",
                                'ETag: "tag"', "Server: own"))
    nginx = stage.nginx(http=ZONE, location=VALID)
    nginx.get("/")
    response = nginx.get("/")
    assert response.header("X-Status") == "HIT"
    assert response.header("X-Own") == "1"
    assert response.header("Content-Type") == "text/own"
    assert response.header("ETag") == '"tag"'
    assert response.header("Content-Length") == "6"
    assert response.header("Server").lower().startswith(product())


def test_nothing_is_cached_without_being_asked_to(stage):
    origin = stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=CACHE)
    assert ask(nginx) == ("MISS", b"1")
    assert ask(nginx) == ("MISS", b"2")
    assert len(origin.requests) == 2
    assert files(nginx) == []


@pytest.mark.parametrize("line", [
    "Cache-Control: max-age=100", "Cache-Control: s-maxage=100, max-age=0",
    "Expires: Thu, 31 Dec 2037 23:55:55 GMT", "X-Accel-Expires: 100"])
def test_the_origin_may_ask_to_cache(stage, line):
    stage.origin(numbered(line))
    nginx = stage.nginx(http=ZONE, location=CACHE)
    assert ask(nginx) == ("MISS", b"1")
    assert ask(nginx) == ("HIT", b"1")


@pytest.mark.parametrize("line", [
    "Cache-Control: no-store", "Cache-Control: private",
    "Cache-Control: no-cache", "Cache-Control: max-age=0", "Vary: *",
    "Set-Cookie: a=b", "X-Accel-Expires: 0"])
def test_the_origin_may_ask_not_to_cache(stage, line):
    stage.origin(numbered(line))
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx) == ("MISS", b"1")
    assert ask(nginx) == ("MISS", b"2")


@pytest.mark.parametrize("status, valid, cached", [
    (200, "1h", True), (301, "1h", True), (302, "1h", True),
    (404, "1h", False), (500, "1h", False), (404, "404 1h", True),
    (200, "404 1h", False), (500, "any 1h", True), (204, "any 1h", True)])
def test_statuses_are_cached_as_configured(stage, status, valid, cached):
    origin = stage.origin(http1.response(status))
    nginx = stage.nginx(http=ZONE,
                        location=CACHE + f"myproxy_cache_valid {valid};")
    for _ in range(2):
        response = nginx.get("/")
        assert response.status == status
    assert len(origin.requests) == (1 if cached else 2)


@pytest.mark.parametrize("size", [0, 1, 4000, 4096, 100000, 3000000])
@pytest.mark.parametrize("chunked", [False, True],
                         ids=["length", "chunked"])
def test_a_body_comes_from_the_cache_whole(stage, chunked, size):
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    if chunked:
        parts = [body[at:at + 5000] for at in range(0, size, 5000)]
        data = http1.response(200, "Transfer-Encoding: chunked",
                              body=http1.chunked(*parts))
    else:
        data = http1.response(body=body)
    origin = stage.origin(data)
    nginx = stage.nginx(http=ZONE, location=VALID)
    for status in ("MISS", "HIT", "HIT"):
        assert ask(nginx) == (status, body)
    assert len(origin.requests) == 1


def test_a_body_until_close_is_cached(stage):
    origin = stage.origin([b"HTTP/1.0 200 OK\r\n\r\nhello", "close"])
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx) == ("MISS", b"hello")
    assert ask(nginx) == ("HIT", b"hello")
    assert len(origin.requests) == 1


def test_the_trailers_of_a_chunked_response_are_not_cached(stage):
    stage.origin(http1.response(
        200, "Transfer-Encoding: chunked",
        body=http1.chunked(b"one", b"two", trailers=["X-Own: 1"])))
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx) == ("MISS", b"onetwo")
    assert ask(nginx) == ("HIT", b"onetwo")


def test_an_http2_client_hits_what_another_has_cached(stage):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, listen="http2", location=VALID)
    client = nginx.connect_h2()
    assert client.get("/").body == b"1"
    response = client.get("/")
    assert response.header("x-status") == "HIT"
    assert response.body == b"1"


def test_the_cache_outlives_a_reload(stage):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx) == ("MISS", b"1")
    nginx.send_signal(signal.SIGHUP)
    nginx.wait_log("gracefully shutting down")
    assert ask(nginx) == ("HIT", b"1")


def test_a_hit_needs_no_origin(stage):
    origin = stage.origin([http1.response(), "close"])
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx) == ("MISS", b"hello\n")
    origin.refuse()
    assert ask(nginx) == ("HIT", b"hello\n")


# the key

@pytest.mark.parametrize("first, second", [
    ("/a", "/b"), ("/a", "/a?b"), ("/a?b", "/a?c"), ("/a", "/A"),
    ("/a", "/a/")])
def test_the_key_is_the_uri(stage, first, second):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx, first) == ("MISS", b"1")
    assert ask(nginx, second) == ("MISS", b"2")
    assert ask(nginx, first) == ("HIT", b"1")


def test_two_hosts_do_not_share_what_is_cached(stage):
    origin = stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx, host="a.example") == ("MISS", b"1")
    assert ask(nginx, host="b.example") == ("MISS", b"2")
    assert ask(nginx, host="a.example") == ("HIT", b"1")
    assert [request.header("Host") for request in origin.requests] == [
        "a.example", "b.example"]


def test_a_host_and_a_uri_cannot_be_taken_for_another(stage):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx, "/b/c", host="a") == ("MISS", b"1")
    assert ask(nginx, "/c", host="a") == ("MISS", b"2")


def test_the_key_tells_where_the_uri_begins(stage):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx, "/b?c", host="a.example:80") == ("MISS", b"1")
    stage.wait_until(lambda: files(nginx))
    with open(files(nginx)[0], "rb") as file:
        assert (f"\nKEY: http://{stage.names['origin']} a.example:80 /b?c\n"
                .encode() in file.read())


def test_hosts_that_are_sent_as_one_share_what_is_cached(stage):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID
                        + "myproxy_set_header Host one.example;")
    assert ask(nginx, host="a.example") == ("MISS", b"1")
    assert ask(nginx, host="b.example") == ("HIT", b"1")


def test_two_origins_do_not_share_what_is_cached(stage):
    stage.origin(http1.response(body=b"first"), name="first")
    stage.origin(http1.response(body=b"second"), name="second")
    nginx = stage.nginx(http=ZONE + "myproxy_cache_valid 1h;"
                        "myproxy_cache zone;", server="""
        location / { myproxy_pass http://%{first}; }
        location /second/ { myproxy_pass http://%{second}/; }
    """)
    assert nginx.get("/x").body == b"first"
    assert nginx.get("/second/x").body == b"second"


def test_the_key_is_what_the_operator_says(stage):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE,
                        location=VALID + "myproxy_cache_key k$arg_k;")
    assert ask(nginx, "/a?k=1", host="a.example") == ("MISS", b"1")
    assert ask(nginx, "/b?k=1", host="b.example") == ("HIT", b"1")
    assert ask(nginx, "/a?k=2") == ("MISS", b"2")


def test_the_zone_may_be_a_variable(stage):
    stage.origin(numbered())
    nginx = stage.nginx(
        http=ZONE + "myproxy_cache_path %{prefix}/other keys_zone=other:1m;",
        location=PASS + """
            myproxy_cache $arg_zone;
            myproxy_cache_key $uri;
            myproxy_cache_valid 1h;
            add_header X-Status $upstream_cache_status;
        """)
    assert ask(nginx, "/?zone=zone") == ("MISS", b"1")
    assert ask(nginx, "/?zone=other") == ("MISS", b"2")
    assert ask(nginx, "/?zone=zone") == ("HIT", b"1")
    assert ask(nginx, "/?zone=off") == (None, b"3")


# bypass, no_cache, min_uses, methods

def test_a_bypass_asks_and_caches_anew(stage):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID + """
        myproxy_cache_key $uri;
        myproxy_cache_bypass $arg_now;
    """)
    assert ask(nginx, "/") == ("MISS", b"1")
    assert ask(nginx, "/?now=1") == ("BYPASS", b"2")
    assert ask(nginx, "/?now=0") == ("HIT", b"2")


def test_no_cache_leaves_what_is_cached(stage):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID + """
        myproxy_cache_key $uri;
        myproxy_no_cache $arg_never;
    """)
    assert ask(nginx, "/?never=1") == ("MISS", b"1")
    assert ask(nginx, "/") == ("MISS", b"2")
    assert ask(nginx, "/?never=1") == ("HIT", b"2")


def test_bypass_and_no_cache_go_around_the_cache(stage):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID + """
        myproxy_cache_bypass $http_authorization;
        myproxy_no_cache $http_authorization;
    """)
    assert ask(nginx) == ("MISS", b"1")
    assert ask(nginx, "/", "Authorization: x") == ("BYPASS", b"2")
    assert ask(nginx) == ("HIT", b"1")


def test_the_cache_may_wait_for_some_uses(stage):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE,
                        location=VALID + "myproxy_cache_min_uses 3;")
    assert [ask(nginx) for _ in range(4)] == [
        ("MISS", b"1"), ("MISS", b"2"), ("MISS", b"3"), ("HIT", b"3")]


def test_post_is_not_cached(stage):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx) == ("MISS", b"1")
    response = nginx.post("/", b"body")
    assert response.header("X-Status") is None
    assert response.body == b"2"
    assert ask(nginx) == ("HIT", b"1")


def test_post_is_cached_on_demand(stage):
    origin = stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID
                        + "myproxy_cache_methods POST;")
    for status in ("MISS", "HIT"):
        response = nginx.post("/", b"body")
        assert response.header("X-Status") == status
        assert response.body == b"1"
    assert origin.request.method == "POST"
    assert origin.request.body == b"body"


def test_the_cache_may_be_off(stage):
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE + "myproxy_cache zone;"
                        "myproxy_cache_valid 1h;",
                        location=PASS + "myproxy_cache off;")
    assert nginx.get("/").body == b"1"
    assert nginx.get("/").body == b"2"


def test_the_cache_is_inherited(stage):
    stage.origin(numbered())
    nginx = stage.nginx(
        http=ZONE + "myproxy_cache zone; myproxy_cache_valid 1h;",
        location=PASS)
    assert nginx.get("/").body == b"1"
    assert nginx.get("/").body == b"1"


# HEAD

def test_head_fills_the_cache_by_get(stage):
    origin = stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID)
    client = nginx.connect()
    for status in ("MISS", "HIT"):
        response = client.request("HEAD", "/")
        assert response.header("X-Status") == status
        assert response.header("Content-Length") == "1"
    assert client.get("/").body == b"1"
    assert origin.request.method == "GET"


def test_head_without_caching_reads_the_body_of_get(stage):
    origin = stage.origin(numbered("Cache-Control: no-store"))
    client = stage.nginx(http=ZONE, location=VALID).connect()
    assert client.request("HEAD", "/").status == 200
    assert client.get("/").body == b"2"
    assert [request.method for request in origin.requests] == ["GET"] * 2


def test_an_answer_to_our_own_head_is_not_cached(stage):
    """It would be one without body to other locations with its key."""
    stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID, server="""
        myproxy_cache_key $arg_key;
        location /head { myproxy_method HEAD; %s }
    """ % VALID)
    assert ask(nginx, "/head?key=a") == ("MISS", b"")
    assert ask(nginx, "/?key=a") == ("MISS", b"2")
    assert ask(nginx, "/?key=a") == ("HIT", b"2")


def test_head_may_stay_head(stage):
    origin = stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID + """
        myproxy_cache_convert_head off;
        myproxy_cache_key $request_method$uri;
    """)
    client = nginx.connect()
    for status in ("MISS", "HIT"):
        response = client.request("HEAD", "/")
        assert response.header("X-Status") == status
    assert client.get("/").body == b"2"
    assert [request.method for request in origin.requests] == ["HEAD", "GET"]
    assert origin.connections == 1


@pytest.mark.parametrize("methods", [
    ["HEAD", "GET"], ["GET", "HEAD"], ["HEAD", "HEAD"]])
def test_head_that_stays_head_has_a_key_of_its_own(stage, methods):
    """Without its own, a GET behind it would be answered without a body."""
    origin = stage.origin(numbered())
    client = stage.nginx(http=ZONE, location=VALID + """
        myproxy_cache_convert_head off;
    """).connect()
    for number, method in enumerate(methods, 1):
        response = client.request(method, "/")
        again = len(set(methods[:number])) < number
        assert response.header("X-Status") == ("HIT" if again else "MISS")
        assert response.header("Content-Length") == "1"
        if method == "GET":
            assert response.body == str(number).encode()
    assert [request.method for request in origin.requests] == list(
        dict.fromkeys(methods))


# conditional requests and ranges

CONDITIONS = ["If-None-Match: \"tag\"", "If-Match: \"tag\"",
              "If-Modified-Since: Thu, 01 Jan 2015 00:00:00 GMT",
              "If-Unmodified-Since: Thu, 01 Jan 2037 00:00:00 GMT",
              "Range: bytes=0-1", "If-Range: \"tag\""]


def test_conditions_of_the_client_do_not_reach_the_origin(stage):
    origin = stage.origin(http1.response(200, 'ETag: "tag"'))
    stage.nginx(http=ZONE, location=VALID).get("/", *CONDITIONS)
    names = {line.split(":")[0].lower() for line in CONDITIONS}
    assert not names & set(origin.request.names)


def test_a_condition_of_the_operator_replaces_nginxs(stage):
    origin = stage.origin(numbered(STALE, 'ETag: "tag"'))
    nginx = stage.nginx(http=ZONE, location=VALID + """
        myproxy_cache_revalidate on;
        myproxy_set_header if-none-match '"own"';
        myproxy_set_header X-If-None-Match 1;
    """)
    assert ask(nginx) == ("MISS", b"1")
    assert ask(nginx) == ("EXPIRED", b"2")
    for request in origin.requests:
        assert request.values("If-None-Match") == ['"own"']
        assert request.values("If-Modified-Since") == []


def test_what_connection_names_is_no_reason_if_it_is_not_there(stage):
    """Nor if no request passes it."""
    origin = stage.origin(numbered())
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx, "/", "Connection: X-Not-Here, TE, Range, Keep-Alive",
               "TE: trailers", "Keep-Alive: 5", "X-Other: 1"
               ) == ("MISS", b"1")
    assert ask(nginx) == ("HIT", b"1")
    assert len(origin.requests) == 1


def test_conditions_of_the_client_pass_without_a_cache(stage):
    origin = stage.origin()
    stage.nginx(location=PASS).get("/", *CONDITIONS)
    names = {line.split(":")[0].lower() for line in CONDITIONS}
    assert names <= set(origin.request.names)


def test_conditions_of_the_client_are_answered_by_nginx(stage):
    origin = stage.origin(http1.response(
        200, 'ETag: "tag"',
        "Last-Modified: Thu, 01 Jan 2015 00:00:00 GMT"))
    nginx = stage.nginx(http=ZONE, location=VALID)
    for _ in range(2):
        assert nginx.get("/", 'If-None-Match: "tag"').status == 304
        assert nginx.get("/", 'If-None-Match: "other"').status == 200
        assert nginx.get("/", 'If-Match: "other"').status == 412
        assert nginx.get("/", "If-Modified-Since: Thu, 01 Jan 2015 "
                         "00:00:00 GMT").status == 304
    assert len(origin.requests) == 1


def test_a_range_is_cut_from_what_is_cached(stage):
    origin = stage.origin(http1.response(200, "Accept-Ranges: bytes",
                                         body=b"0123456789"))
    client = stage.nginx(http=ZONE, location=VALID).connect()
    for wanted in ("2-4", "2-4", "7-", "-1"):
        response = client.get("/", f"Range: bytes={wanted}")
        assert response.status == 206
        start, _, end = wanted.partition("-")
        found = b"0123456789"[int(start or -1):]
        assert response.body == found[:int(end) - int(start) + 1
                                      if start and end else None]
    assert client.get("/").body == b"0123456789"
    assert len(origin.requests) == 1


def test_several_ranges_come_from_the_cache(stage):
    stage.origin(http1.response(200, "Accept-Ranges: bytes",
                                body=b"0123456789"))
    nginx = stage.nginx(http=ZONE, location=VALID)
    nginx.get("/")
    response = nginx.get("/", "Range: bytes=0-1,5-6")
    assert response.status == 206
    assert response.header("Content-Type").startswith("multipart/byteranges")
    assert b"01\r\n" in response.body and b"56\r\n" in response.body


def test_a_range_far_behind_goes_to_the_origin(stage):
    origin = stage.origin(http1.response(
        206, "Content-Range: bytes 5-5/10", body=b"5"))
    nginx = stage.nginx(http=ZONE, location=VALID
                        + "myproxy_cache_max_range_offset 4;")
    response = nginx.get("/", "Range: bytes=5-5")
    assert response.status == 206
    assert response.body == b"5"
    assert origin.request.header("Range") == "bytes=5-5"
    assert files(nginx) == []


# Vary

def test_variants_are_cached_apart(stage):
    origin = stage.origin(numbered("Vary: Accept-Language"))
    nginx = stage.nginx(http=ZONE, location=VALID)
    for status in ("MISS", "HIT"):
        assert ask(nginx, "/", "Accept-Language: en") == (status, b"1")
        assert ask(nginx, "/", "Accept-Language: de") == (status, b"2")
        assert ask(nginx, "/") == (status, b"3")
    assert len(origin.requests) == 3


def test_what_does_not_vary_is_one(stage):
    stage.origin(numbered("Vary: Accept-Language"))
    nginx = stage.nginx(http=ZONE, location=VALID)
    assert ask(nginx, "/", "X-Own: 1") == ("MISS", b"1")
    assert ask(nginx, "/", "X-Own: 2") == ("HIT", b"1")


# expired and stale

def test_what_has_expired_is_asked_for_again(stage):
    stage.origin(numbered(STALE))
    nginx = stage.nginx(http=ZONE, location=CACHE)
    assert ask(nginx) == ("MISS", b"1")
    assert ask(nginx) == ("EXPIRED", b"2")
    assert ask(nginx) == ("EXPIRED", b"3")


def then(first, second):
    """One response, then another for all that follow."""
    def script(conn):
        for _ in conn.each_request():
            if len(conn.origin.requests) == 1:
                conn.send(first)
            elif callable(second):
                second(conn)
            else:
                conn.send(second)
    return script


FAILURES = {
    "error": (lambda conn: conn.reset(), 502),
    "invalid_header": (b"garbage\r\n\r\n", 502),
    "timeout": (lambda conn: conn.wait_for_close(), 504),
    "http_500": (http1.response(500, body=b"failed"), 500),
    "http_502": (http1.response(502, body=b"failed"), 502),
    "http_503": (http1.response(503, body=b"failed"), 503),
    "http_504": (http1.response(504, body=b"failed"), 504),
    "http_404": (http1.response(404, body=b"failed"), 404),
    "http_403": (http1.response(403, body=b"failed"), 403),
    "http_429": (http1.response(429, body=b"failed"), 429),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("allowed", [True, False],
                         ids=["allowed", "forbidden"])
def test_a_failure_may_be_hidden_by_what_is_stale(stage, allowed, failure):
    second, status = FAILURES[failure]
    origin = stage.origin(then(http1.response(200, STALE), second))
    more = "myproxy_cache_use_stale " + (failure if allowed else "off") + ";"
    nginx = stage.nginx(http=ZONE, location=CACHE + more
                        + "myproxy_read_timeout 300ms;")
    assert ask(nginx) == ("MISS", b"hello\n")
    response = nginx.get("/")
    if allowed:
        assert response.status == 200
        assert response.header("X-Status") == "STALE"
        assert response.body == b"hello\n"
    else:
        assert response.status == status
    assert len(origin.requests) >= 2


def test_an_origin_that_is_gone_is_hidden_by_what_is_stale(stage):
    origin = stage.origin([http1.response(200, STALE), "close"])
    nginx = stage.nginx(http=ZONE, location=CACHE
                        + "myproxy_cache_use_stale error;")
    assert ask(nginx) == ("MISS", b"hello\n")
    origin.refuse()
    assert ask(nginx) == ("STALE", b"hello\n")
    assert ask(nginx, "/other")[0] is None


@pytest.mark.parametrize("line", [
    "stale-while-revalidate=1000", "stale-if-error=1000"])
def test_the_origin_may_allow_what_is_stale(stage, line):
    stage.origin(then(http1.response(
        200, f"Cache-Control: max-age=100, {line}", STALE),
        http1.response(500)))
    nginx = stage.nginx(http=ZONE, location=CACHE)
    assert ask(nginx) == ("MISS", b"hello\n")
    assert ask(nginx)[1] == b"hello\n"


def held(gates, *lines):
    """The second and further requests are held back, each by a gate."""
    def script(conn):
        for _ in conn.each_request():
            number = len(conn.origin.requests)
            if number > 1:
                gates[number - 2].wait()
            conn.respond(200, *lines, body=f"{number}".encode())
    return script


def test_what_is_stale_serves_while_it_is_updated(stage):
    gates = []
    origin = stage.origin(held(gates, STALE))
    gates.append(origin.gate())
    nginx = stage.nginx(http=ZONE, location=CACHE
                        + "myproxy_cache_use_stale updating;")
    assert ask(nginx) == ("MISS", b"1")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: len(origin.requests) == 2)
    assert ask(nginx) == ("UPDATING", b"1")
    gates[0].open()
    response = client.read_response()
    assert response.header("X-Status") == "EXPIRED"
    assert response.body == b"2"


def test_what_is_stale_is_updated_in_the_background(stage):
    gates = []
    origin = stage.origin(held(gates, STALE))
    gates.append(origin.gate())
    nginx = stage.nginx(http=ZONE, location=CACHE + """
        myproxy_cache_use_stale updating;
        myproxy_cache_background_update on;
    """, log_level="debug")
    assert ask(nginx) == ("MISS", b"1")
    assert ask(nginx) == ("STALE", b"1")
    stage.wait_until(lambda: len(origin.requests) == 2)
    gates[0].open()
    nginx.wait_log("keepalive peer: saving connection", 2)
    gates.append(origin.gate())
    assert ask(nginx) == ("STALE", b"2")
    assert origin.connections == 1


def test_a_background_update_reads_the_whole_response(stage):
    body = b"x" * 300000
    origin = stage.origin(then(http1.response(200, STALE),
                               http1.response(200, "X-Accel-Expires: 100",
                                              body=body)))
    nginx = stage.nginx(http=ZONE, location=CACHE + """
        myproxy_cache_use_stale updating;
        myproxy_cache_background_update on;
    """, log_level="debug")
    assert ask(nginx) == ("MISS", b"hello\n")
    assert ask(nginx) == ("STALE", b"hello\n")
    nginx.wait_log("keepalive peer: saving connection", 2)
    assert ask(nginx) == ("HIT", body)
    assert origin.carried == [2]


# revalidation

@pytest.mark.parametrize("line, condition", [
    ('ETag: "tag"', 'If-None-Match: "tag"'),
    ("Last-Modified: Thu, 01 Jan 2015 00:00:00 GMT",
     "If-Modified-Since: Thu, 01 Jan 2015 00:00:00 GMT")])
def test_what_has_expired_may_be_revalidated(stage, line, condition):
    origin = stage.origin(then(http1.response(200, STALE, line),
                               http1.response(304)))
    nginx = stage.nginx(http=ZONE, location=CACHE
                        + "myproxy_cache_revalidate on;")
    assert ask(nginx) == ("MISS", b"hello\n")
    assert ask(nginx) == ("REVALIDATED", b"hello\n")
    name, value = condition.split(": ", 1)
    assert origin.requests[0].header(name) is None
    assert origin.requests[1].header(name) == value


def test_a_revalidation_may_bring_a_new_response(stage):
    stage.origin(then(http1.response(200, STALE, 'ETag: "tag"'),
                      http1.response(200, "X-Accel-Expires: 100",
                                     body=b"new")))
    nginx = stage.nginx(http=ZONE, location=CACHE
                        + "myproxy_cache_revalidate on;")
    assert ask(nginx) == ("MISS", b"hello\n")
    assert ask(nginx) == ("EXPIRED", b"new")
    assert ask(nginx) == ("HIT", b"new")


def test_a_revalidation_makes_it_valid_again(stage):
    stage.origin(then(http1.response(200, STALE, 'ETag: "tag"'),
                      http1.response(304, "X-Accel-Expires: 100")))
    nginx = stage.nginx(http=ZONE, location=CACHE
                        + "myproxy_cache_revalidate on;")
    assert ask(nginx)[0] == "MISS"
    assert ask(nginx)[0] == "REVALIDATED"
    assert ask(nginx) == ("HIT", b"hello\n")


def test_nothing_is_revalidated_without_being_asked_to(stage):
    origin = stage.origin(numbered(STALE, 'ETag: "tag"'))
    nginx = stage.nginx(http=ZONE, location=CACHE)
    assert ask(nginx) == ("MISS", b"1")
    assert ask(nginx) == ("EXPIRED", b"2")
    assert origin.requests[1].header("If-None-Match") is None


# the lock

@pytest.mark.parametrize("lock", ["on", "off"])
def test_the_lock_lets_one_request_fill_the_cache(stage, lock):
    def script(conn):
        for _ in conn.each_request():
            gate.wait()
            conn.respond()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(http=ZONE, log_level="debug",
                        location=VALID + f"myproxy_cache_lock {lock};")
    clients = [nginx.connect() for _ in range(4)]
    for client in clients:
        client.send(http1.request("GET", "/"))
    if lock == "on":
        nginx.wait_log("http file cache lock u:", 4)
    else:
        stage.wait_until(lambda: len(origin.requests) == 4)
    gate.open()
    for client in clients:
        assert client.read_response().body == b"hello\n"
    assert len(origin.requests) == (1 if lock == "on" else 4)


@pytest.mark.parametrize("more", [
    "myproxy_cache_lock_timeout 100ms;", "myproxy_cache_lock_age 100ms;"],
    ids=["timeout", "age"])
def test_the_lock_does_not_hold_for_ever(stage, more):
    origin = stage.origin(lambda conn: (
        conn.read_request(), gate.wait(), conn.respond()))
    gate = origin.gate()
    nginx = stage.nginx(http=ZONE,
                        location=VALID + "myproxy_cache_lock on;" + more)
    clients = [nginx.connect() for _ in range(2)]
    for client in clients:
        client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: len(origin.requests) == 2)
    gate.open()
    for client in clients:
        assert client.read_response().body == b"hello\n"


@pytest.mark.parametrize("answer", [
    lambda: http1.response(200, body=b"other"),
    lambda: http1.response(200, "Transfer-Encoding: chunked",
                           body=http1.chunked(b"other")),
    lambda: http1.response(204, body=None), lambda: b"none\r\n\r\n"],
    ids=["length", "chunked", "empty", "invalid"])
def test_the_page_of_an_error_need_not_be_cached(stage, answer):
    """Of its request there is a cache entry, though its location has none."""
    stage.origin(http1.response(404, body=b"missing"))
    other = stage.origin(answer(), name="other")
    nginx = stage.nginx(http=ZONE, location=VALID + """
        myproxy_intercept_errors on;
        error_page 404 = @other;
    """, server="location @other { myproxy_pass http://%{other}; }")
    for _ in range(2):
        response = nginx.get("/")
        assert response.status in (200, 204, 502)
        assert response.status != 200 or response.body == b"other"
    assert len(other.requests) == 2


# the store

def stored(stage, nginx, name="stored"):
    """What is in a file that is there soon after the response."""
    path = os.path.join(nginx.prefix, name)
    stage.wait_until(lambda: os.path.exists(path), what=path)
    return nginx.read(name)


def is_stored_never(nginx):
    """To be asked when a further response was read."""
    return not os.path.exists(os.path.join(nginx.prefix, "stored"))


@pytest.mark.parametrize("more, where", [
    ("root %{prefix}/root; myproxy_store on;", "root/a/b.txt"),
    ("myproxy_store %{prefix}/stored/$arg_name;", "stored/own"),
    ("alias %{prefix}/alias/; myproxy_store on;", "alias/a/b.txt")],
    ids=["root", "path", "alias"])
def test_a_response_is_stored(stage, more, where):
    stage.origin(http1.response(body=b"body"))
    nginx = stage.nginx(location=PASS + more)
    assert nginx.get("/a/b.txt?name=own").body == b"body"
    assert stored(stage, nginx, where) == b"body"


def test_the_store_follows_the_variable(stage):
    stage.origin(http1.response(body=b"body"))
    nginx = stage.nginx(location=PASS
                        + "myproxy_store %{prefix}/stored/$arg_name;")
    for name in ("one", "two"):
        nginx.get(f"/?name={name}")
        assert stored(stage, nginx, f"stored/{name}") == b"body"
        assert len(files(nginx, "stored")) == (1 if name == "one" else 2)


def test_what_was_stored_may_be_served(stage):
    origin = stage.origin(http1.response(body=b"body"))
    nginx = stage.nginx(server="""
        root %{prefix}/root;
        location / { error_page 404 = @fetch; log_not_found off; }
        location @fetch {
            myproxy_pass http://%{origin};
            myproxy_store on;
        }
    """)
    for _ in range(3):
        assert nginx.get("/a.txt").body == b"body"
        stored(stage, nginx, "root/a.txt")
    assert len(origin.requests) == 1


@pytest.mark.parametrize("size", [0, 5000, 3000000])
@pytest.mark.parametrize("chunked", [False, True],
                         ids=["length", "chunked"])
def test_a_body_is_stored_whole(stage, chunked, size):
    body = b"x" * size
    stage.origin(http1.response(
        200, *(["Transfer-Encoding: chunked"] if chunked else []),
        body=http1.chunked(*([body] if body else []))
        if chunked else body))
    nginx = stage.nginx(location=PASS + "myproxy_store %{prefix}/stored;")
    assert nginx.get("/").body == body
    assert stored(stage, nginx) == body


@pytest.mark.parametrize("access, mode", [
    ("", 0o600), ("myproxy_store_access user:rw group:r all:r;", 0o644)])
def test_what_is_stored_has_the_mode_that_was_wanted(stage, access, mode):
    stage.origin()
    nginx = stage.nginx(location=PASS + "myproxy_store %{prefix}/stored;"
                        + access)
    assert nginx.get("/").body == stored(stage, nginx)
    path = os.path.join(nginx.prefix, "stored")
    assert os.stat(path).st_mode & 0o777 == mode


@pytest.mark.parametrize("status", [404, 500, 206, 302])
def test_only_success_is_stored(stage, status):
    stage.origin(http1.response(status))
    nginx = stage.nginx(location=PASS + "myproxy_store %{prefix}/stored;")
    for _ in range(2):
        assert nginx.get("/").status == status
    assert is_stored_never(nginx)


def test_the_store_may_be_off(stage):
    stage.origin()
    nginx = stage.nginx(http="myproxy_store %{prefix}/stored;",
                        location=PASS + "myproxy_store off;")
    for _ in range(2):
        assert nginx.get("/").status == 200
    assert is_stored_never(nginx)


# configuration

@pytest.mark.parametrize("http, location, word", [
    ("", "myproxy_cache zone;", '"zone" is unknown'),
    (ZONE, "myproxy_cache zone; myproxy_cache zone;", "is duplicate"),
    (ZONE, "myproxy_cache zone; myproxy_store on;", "is incompatible"),
    (ZONE, "myproxy_store on; myproxy_cache zone;", "is incompatible"),
    (ZONE, "myproxy_store on; myproxy_store off;", "is duplicate"),
    (ZONE, "myproxy_cache_use_stale http_600;", "invalid value"),
    (ZONE, "myproxy_cache_key a; myproxy_cache_key b;", "is duplicate"),
    ("myproxy_cache_path %{prefix}/c;", "", "invalid number of arguments"),
    (ZONE + ZONE.replace("/cache", "/other"), "", "duplicate zone"),
])
def test_a_cache_that_makes_no_sense_is_an_error(stage, http, location,
                                                 word):
    stage.origin()
    code, text = stage.config_test(http=http, location=PASS + location)
    assert code == 1
    assert word in text


@pytest.mark.parametrize("outer, inner, asked", [
    ("myproxy_cache zone;", "myproxy_store %{prefix}/stored;", 2),
    ("myproxy_store %{prefix}/stored;", "myproxy_cache zone;", 1)])
def test_of_store_and_cache_the_inner_one_counts(stage, outer, inner, asked):
    origin = stage.origin()
    nginx = stage.nginx(http=ZONE + "myproxy_cache_valid 1h;" + outer,
                        location=PASS + inner)
    for _ in range(2):
        assert nginx.get("/").status == 200
    assert len(origin.requests) == asked
    assert is_stored_never(nginx) == (asked == 1)
