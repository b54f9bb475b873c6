"""Balancing that came with nginx 1.29.6 and 1.31.0, with reuse on.

Sessions that stay with a server (cookie, route, learn), servers that only get
those (drain), and the choice by response times (least_time): each with
connections that are reused, opened ahead, and with requests that are sent
again.
"""

import time

import pytest

from harness import http1, settings
from harness.crossing import Scene
from harness.nginx import version

needs_sticky = pytest.mark.skipif(
    version() < (1, 29, 6), reason="this nginx has no sticky")


def needs_least_time(test):
    """Where there is one, and UBSan does not end nginx for what it shifts."""
    whole = settings.SANITIZED and settings.MODULE == "static"
    for condition, reason in [
            (version() < (1, 31), "this nginx has no least_time"),
            (whole, "UBSan ends nginx for its own least_time")]:
        test = pytest.mark.skipif(condition, reason=reason)(test)
    return test


PASS = "myproxy_pass http://app;"

#: What else may stand in the block: before the directive under test, behind.
AROUND = {
    "reuse": ("", ""),
    "keepalive-first": ("keepalive 8;", ""),
    "keepalive-last": ("", "keepalive 8;"),
    "warm": ("", "reuse_warm 2;"),
    "warm-keepalive-first": ("keepalive 8; reuse_warm 2;", ""),
    "warm-keepalive-last": ("", "keepalive 8; reuse_warm 2;"),
}
around = pytest.mark.parametrize("before, behind", AROUND.values(), ids=AROUND)


def named(name, *lines):
    """An origin that says who it is; in a path, so that it can be held."""
    return http1.response(200, f"X-Origin: {name}", *lines)


class Pair:
    """nginx before two origins that say who they are."""

    def __init__(self, stage, block, *, before="", behind="", two="", weight=2,
                 answers=(None, None), **config):
        self.stage = stage
        self.origins = [
            stage.origin(answer or named(name), name=name)
            for name, answer in zip(("one", "two"), answers)]
        servers = (f"zone app 128k; server %{{one}} weight={weight} route=1;"
                   f"server %{{two}} route=2 {two};")
        self.warm = "reuse_warm" in before + behind
        self.nginx = stage.nginx(
            http=f"upstream app {{ {servers} {before} {block} {behind} }}",
            location=PASS, **config)
        if self.warm:
            self.wait_warm()

    def wait_warm(self):
        self.stage.wait_until(
            lambda: self.nginx.status()["total"]["connections"]["idle"] >= 2,
            what="connections that are opened ahead")

    def ask(self, *lines, target="/"):
        response = self.nginx.get(target, *lines)
        assert response.status == 200
        return response

    def asked(self, *lines, count=6, target="/"):
        """Which of them answer so many requests."""
        return {self.ask(*lines, target=target).header("X-Origin")
                for _ in range(count)}

    def check_reuse(self):
        """All but the first request to each server were on a kept one."""
        found = self.nginx.status()["total"]["attempts"]
        assert found["new"] <= (0 if self.warm else 2), found
        assert found["reused"] + found["warm"] >= 4
        assert not self.nginx.logged(r"\[(warn|error|crit)\]")


def cookie_of(response):
    """The pair in the Set-Cookie of a response."""
    values = response.values("Set-Cookie")
    assert len(values) == 1, values
    return values[0].partition(";")[0]


# sticky cookie

@needs_sticky
@around
def test_a_cookie_leads_to_its_server(stage, before, behind):
    pair = Pair(stage, "sticky cookie to path=/;", before=before,
                behind=behind)
    seen = {}
    for _ in range(6):
        response = pair.ask()
        seen[cookie_of(response)] = response.header("X-Origin")
    assert seen == {"to=1": "one", "to=2": "two"}
    for cookie, name in seen.items():
        assert pair.asked(f"Cookie: {cookie}") == {name}
    pair.check_reuse()


@needs_sticky
def test_a_cookie_whose_server_fails_leads_to_another(stage):
    pair = Pair(stage, "sticky cookie to;", behind="reuse_warm 2;")
    assert pair.asked("Cookie: to=1") == {"one"}
    pair.origins[0].refuse()
    for conn in list(pair.origins[0].conns):
        conn.close()
    for _ in range(2):
        response = pair.ask("Cookie: to=1")
        assert response.header("X-Origin") == "two"
        assert cookie_of(response) == "to=2"


@needs_sticky
def test_a_cookie_of_each_attempt_is_that_of_the_last(stage):
    """The first server answers 503, the next one gets the request."""
    pair = Pair(stage, "sticky cookie to;",
                answers=(http1.response(503), None),
                server="myproxy_next_upstream http_503;")
    response = pair.ask("Cookie: to=1")
    assert response.header("X-Origin") == "two"
    assert cookie_of(response) == "to=2"


# sticky route

@needs_sticky
@around
def test_a_route_leads_to_its_server(stage, before, behind):
    pair = Pair(stage, "sticky route $arg_first $arg_then;", before=before,
                behind=behind)
    assert pair.asked(target="/?first=2&then=1") == {"two"}
    assert pair.asked(target="/?then=1") == {"one"}
    assert pair.asked(target="/?then=none") == {"one", "two"}
    pair.check_reuse()


@needs_sticky
def test_a_request_that_is_sent_again_stays_on_its_route(stage):
    link = stage.link()
    second = stage.origin(name="second", link=link)
    scene = Scene(stage, lambda conn: conn.close(), link=link, http="""
        upstream app {
            zone app 64k;
            server %{origin} route=1 weight=100;
            server %{second} route=2;
            sticky route $arg_r;
        }
    """, location=PASS)
    scene.cross(target="/x?r=1")
    scene.meet()
    assert scene.response().status == 200
    assert scene.received("/x?r=1") == 1
    assert second.requests == []
    assert not scene.errors()


# sticky learn

def beginning(name):
    """Answers begin a session that is named for the origin."""
    return named(name, f"Set-Cookie: session={name}")


@needs_sticky
@around
@pytest.mark.parametrize("when", ["", "header"], ids=["end", "header"])
def test_a_session_is_learned(stage, before, behind, when):
    pair = Pair(stage, f"""
        sticky learn zone=sessions:128k {when} timeout=1h
               create=$upstream_cookie_session lookup=$cookie_session;
        """, before=before, behind=behind,
                answers=(beginning("one"), beginning("two")))
    assert pair.asked() == {"one", "two"}
    for name in "one", "two":
        assert pair.asked(f"Cookie: session={name}") == {name}
    pair.check_reuse()


@needs_sticky
def test_a_session_is_learned_while_the_body_is_on_its_way(stage):
    def script(conn):
        name = conn.origin.name
        for request in conn.each_request():
            if request.target != "/held":
                conn.send(named(name))
                continue
            conn.send(f"HTTP/1.1 200 OK\r\nX-Origin: {name}\r\n"
                      "X-Session: s\r\nContent-Length: 2\r\n\r\n1".encode())
            gate.wait()
            conn.send(b"2")

    pair = Pair(stage, """
        sticky learn zone=sessions:128k header
               create=$upstream_http_x_session lookup=$http_x_session;
        """, answers=(script, script), server="myproxy_buffering off;")
    gate = pair.origins[0].gate()
    pair.asked()
    client = pair.nginx.connect()
    client.send(http1.request("GET", "/held"))
    name = client.read_response_head().header("X-Origin")
    assert pair.asked("X-Session: s") == {name}
    gate.open()
    assert client.read(2) == b"12"


# drain

@needs_sticky
@around
def test_a_server_that_drains_keeps_its_sessions(stage, before, behind):
    pair = Pair(stage, "sticky route $arg_r;", before=before, behind=behind,
                two="drain")
    assert pair.asked() == {"one"}
    assert pair.origins[1].connections == 0
    assert pair.asked(target="/?r=2") == {"two"}
    assert pair.asked() == {"one"}
    # for few requests connections are not opened ahead, but kept
    assert pair.origins[1].carried == [6]
    assert not pair.nginx.logged(r"\[(warn|error|crit)\]")


@needs_sticky
def test_a_server_that_begins_to_drain(stage):
    """From the reload on nothing is opened ahead to it."""
    pair = Pair(stage, "sticky cookie to;", behind="reuse_warm 2;")
    origin = pair.origins[1]
    stage.wait_until(lambda: origin.connections, what="a warm connection")
    assert pair.asked("Cookie: to=2") == {"two"}
    pair.nginx.reload(http=pair.nginx.config["http"].replace(
        "route=2 ;", "route=2 drain;"))
    before = origin.connections
    pair.wait_warm()
    assert pair.asked() == {"one"}
    assert origin.connections == before
    assert pair.asked("Cookie: to=2") == {"two"}
    assert origin.connections == before + 1
    assert not pair.nginx.logged(r"\[(warn|error|crit)\]")


@needs_sticky
def test_a_request_that_is_sent_again_to_a_server_that_drains(stage):
    scene = Scene(stage, lambda conn: conn.close(), http="""
        upstream app {
            zone app 64k;
            server %{origin} route=1 drain max_conns=1;
            sticky route $to;
        }
    """, location=PASS, server="set $to 1;")
    scene.cross()
    scene.meet()
    assert scene.response().status == 200
    assert scene.received() == 1
    assert scene.client.get("/y").status == 200
    assert not scene.errors()


# least_time

TIMES = ["header", "last_byte", "header inflight", "last_byte inflight"]


@needs_least_time
@around
@pytest.mark.parametrize("what", TIMES)
def test_least_time(stage, what, before, behind):
    pair = Pair(stage, f"least_time {what};", weight=1, before=before,
                behind=behind)
    assert pair.asked() == {"one", "two"}
    pair.check_reuse()


@needs_least_time
@pytest.mark.parametrize("behind", ["", "reuse_warm 2;"], ids=["", "warm"])
@pytest.mark.parametrize("what", TIMES)
def test_least_time_leaves_out_a_slow_server(stage, what, behind):
    def script(conn):
        for _ in conn.each_request():
            time.sleep(1)       # its work, which is what least_time measures
            conn.send(named("one"))

    pair = Pair(stage, f"least_time {what};", weight=1, behind=behind,
                answers=(script, None))
    assert pair.asked(count=2) == {"one", "two"}
    assert pair.asked() == {"two"}


@needs_least_time
@pytest.mark.parametrize("what", TIMES)
def test_least_time_where_a_request_is_sent_again(stage, what):
    """It is one request to the server, which is given back once."""
    scene = Scene(stage, lambda conn: conn.close(), http=f"""
        upstream app {{
            zone app 64k;
            least_time {what};
            server %{{origin}} max_conns=1 max_fails=1;
            server 127.0.0.1:1 backup;
        }}
    """, location=PASS)
    scene.cross()
    scene.meet()
    assert scene.response().status == 200
    assert scene.received() == 1
    for _ in range(4):
        assert scene.client.get("/y").status == 200
    assert not scene.errors()
