"""What the reuse layer costs, in system calls and in timers."""

import contextlib
import functools
import re
import shutil
import signal
import subprocess

import pytest

from harness import http1, settings
from harness.nginx import product

REQUESTS = 200

pytestmark = pytest.mark.skipif(
    not shutil.which("strace") or settings.SCALE > 1,
    reason="no strace, or a build that has calls of its own")

SERVER = """
    location /my { myproxy_pass http://mine; }
    location /stock {
        proxy_pass http://stock;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
    }
"""


def count_calls(stage, nginx, target, method, body, lines=()):
    """name -> number of system calls, for REQUESTS requests."""
    worker, = nginx.workers()
    connected = nginx.connect()
    client = nginx if lines else connected
    for _ in range(3):
        assert client.request(method, target, *lines,
                              body=body).status == 200
    path = stage.path("strace")
    with traced(worker, path):
        for _ in range(REQUESTS):
            assert client.request(method, target, *lines,
                                  body=body).status == 200
    connected.close()
    return read_counts(path)


@contextlib.contextmanager
def traced(worker, path):
    """A worker's system calls are written to a file meanwhile."""
    strace = subprocess.Popen(
        ["strace", "-o", path, "-p", str(worker)], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        if "attached" not in strace.stderr.readline():
            pytest.skip("no process can be traced here")
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait()
        strace.stderr.close()


def read_counts(path):
    """name -> number of system calls in such a file."""
    counts = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for name in re.findall(r"^(\w+)\(", file.read(), re.MULTILINE):
            counts[name] = counts.get(name, 0) + 1
    return counts


@pytest.mark.parametrize("method, body, more", [
    ("GET", None, 0), ("PUT", b"body", 0), ("DELETE", None, 0),
    ("POST", b"body", 1), ("PATCH", b"body", 1)])
def test_system_calls_of_a_request(stage, method, body, more):
    """As many as with nginx's own proxy and keepalive, or one more."""
    origin = stage.origin()
    nginx = stage.nginx(http="""
        upstream mine { server %{origin}; }
        upstream stock { server %{origin}; keepalive 32; }
    """, server=SERVER)
    stock = count_calls(stage, nginx, "/stock", method, body)
    mine = count_calls(stage, nginx, "/my", method, body)
    assert origin.connections == 2
    slack = 4  # of events that come together or one by one
    assert sum(mine.values()) <= sum(stock.values()) + more * REQUESTS + \
        slack, (mine, stock)
    assert mine.get("getsockopt", 0) <= stock.get("getsockopt", 0) + slack


def test_system_calls_for_clients_with_one_request(stage):
    """None is made for a connection that will not be kept."""
    stage.origin()
    nginx = stage.nginx(http="""
        upstream mine { server %{origin}; }
        upstream stock { server %{origin}; keepalive 32; }
    """, server=SERVER)
    lines = ["Connection: close"]
    stock = count_calls(stage, nginx, "/stock", "GET", None, lines)
    mine = count_calls(stage, nginx, "/my", "GET", None, lines)
    for name in ("setsockopt", "getsockopt", "recvfrom", "writev", "close"):
        assert mine.get(name, 0) <= stock.get(name, 0) + 4, (mine, stock)


def ask_unbuffered(stage, origin, client):
    """A request whose head is there before its body comes."""
    count = len(origin.requests)
    client.send(http1.compose("PUT / HTTP/1.1", [
        "Host: localhost", "Content-Length: 4"]))
    stage.wait_until(lambda: len(origin.requests) > count)
    client.send(b"body")
    return client.read_response()


@pytest.mark.parametrize("lines", ["", "myproxy_request_buffering off;"],
                         ids=["buffered", "unbuffered"])
def test_system_calls_of_a_connection_that_is_taken_over(stage, lines):
    """What it takes to leave one to other workers, and to take it."""
    origin = stage.origin()
    counts, taken = {}, {}
    for share in ("off", "on"):
        nginx = stage.nginx(http=f"reuse_share {share}; reuse_expiry 1h;",
                            location="myproxy_pass http://%{origin};" + lines)
        worker, = nginx.workers()
        client = nginx.connect()
        ask = (functools.partial(ask_unbuffered, stage, origin, client)
               if lines else client.get)
        assert ask().status == 200
        path = stage.path("strace")
        with traced(worker, path):
            for _ in range(20):
                # more than the moment after which it is parked
                stage.let_pass(0.03)
                assert ask().status == 200
        counts[share] = read_counts(path)
        taken[share] = nginx.status()["total"]["connections"]["taken_over"]
    assert taken["off"] == 0
    assert taken["on"] > 10
    more = {name: counts["on"].get(name, 0) - counts["off"].get(name, 0)
            for name in set(counts["on"]) | set(counts["off"])}
    each = {"sendmsg": 1, "recvmsg": 1, "epoll_ctl": 2, "close": 1,
            "recvfrom": 1}
    if product() == "angie":
        # its pool is asked by a call that opens a connection, and cannot
        each["socket"] = 1
    for name, count in each.items():
        assert abs(more[name] - count * taken["on"]) <= 4, (name, more, taken)
    # no timer ends the wait for events, as the last one was not used in time
    assert more["epoll_wait"] <= taken["on"] / 2, more
    for name in set(more) - set(each) - {"epoll_wait"}:
        assert more[name] <= 4, (name, more)


def test_what_a_worker_does_from_time_to_time_has_one_timer(stage):
    """Each one makes the timers of all requests a little dearer."""
    stage.origin()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};",
                        log_level="debug")
    client = nginx.connect()
    for _ in range(3):
        assert client.get("/").status == 200
    looked = r"event timer del: -1: "
    nginx.wait_log(looked, len(nginx.logged(looked)) + 2)
    most = timers = 0
    for change in re.findall(r"event timer (add|del): -1: ", nginx.log):
        timers += 1 if change == "add" else -1
        most = max(most, timers)
    assert most == 1
