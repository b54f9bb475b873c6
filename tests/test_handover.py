"""Idle connections are every worker's: one opens them, and others use them."""

import os
import re
import resource
import select
import shutil
import signal
import subprocess
import time

import pytest

from harness import http1, settings
from harness.nginx import build_info, version
from harness.workers import (
    WHO, Workers, established, use_up_connections, waiting_origin)
from test_other_handlers import answer_grpc

PASS = "myproxy_pass http://%{origin};"
APP = "upstream app {{ server %{{origin}}; {} }}"


def first_and_second(workers):
    first, second = workers.nginx.workers()
    return first, second


# what is shared

@pytest.mark.parametrize("family", ["ipv4", "ipv6", "unix"])
def test_a_worker_takes_what_another_has_opened(stage, family):
    origin = stage.origin(family=family)
    workers = Workers(stage)
    first, second = first_and_second(workers)
    assert workers.how(first) == "new"
    for worker in (second, first, second, second):
        workers.wait_parked()
        assert workers.how(worker) == "shared"
    assert origin.connections == 1
    workers.wait_parked()
    found = workers.connections
    assert (found["opened"], found["open"], found["idle"]) == (1, 1, 1)
    assert (found["handed_over"], found["taken_over"]) == (5, 4)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_body_of_any_size_goes_over_it(stage, method):
    origin = stage.origin(lambda conn: conn.serve(
        lambda request: http1.response(body=request.body or b"none")))
    workers = Workers(stage)
    first, second = first_and_second(workers)
    body = bytes(range(256)) * 4000
    for worker in (first, second, first):
        response = workers.ask(worker, method=method, body=body)
        assert response.body == body
        workers.wait_parked()
    assert origin.connections == 1


def test_one_that_is_used_all_the_time_stays(stage):
    origin = stage.origin()
    workers = Workers(stage, location=PASS)
    client = workers.nginx.connect()
    # what was parked after a pause was used again too late; now it is not
    assert client.get().status == 200
    workers.wait_parked()
    started = time.monotonic()
    for _ in range(50):
        assert client.get().status == 200
    if time.monotonic() - started < 0.4:
        assert workers.connections["handed_over"] < 25
    assert origin.connections == 1


def test_with_one_worker_nothing_is_shared(stage):
    stage.origin()
    workers = Workers(stage, workers=1)
    worker, = workers.nginx.workers()
    assert workers.how(worker) == "new"
    stage.let_pass(0.1)
    assert workers.how(worker) == "reused"
    assert workers.connections["handed_over"] == 0


def test_unless_it_is_asked_for(stage):
    stage.origin()
    workers = Workers(stage, workers=1, http="reuse_share on;")
    worker, = workers.nginx.workers()
    assert workers.how(worker) == "new"
    workers.wait_parked()
    assert workers.how(worker) == "shared"


def test_off(stage):
    origin = stage.origin()
    workers = Workers(stage, http="reuse_share off;")
    for worker in workers.nginx.workers():
        assert workers.how(worker) == "new"
    stage.let_pass(0.1)
    assert workers.connections["handed_over"] == 0
    assert origin.connections == 2


def test_there_are_only_so_many_places(stage):
    """What finds none stays with its worker."""
    origin, gate = waiting_origin(stage)
    workers = Workers(stage, http="reuse_share 2;")
    workers.ask_at_once(5, origin, gate)
    workers.wait_parked(2)
    stage.let_pass(0.05)
    found = workers.connections
    assert (found["open"], found["idle"], found["parked"]) == (5, 5, 2)


def test_the_last_one_that_was_parked_is_taken_first(stage):
    gates = []

    def answer(request):
        gates[int(request.target[1:])].wait()
        return http1.response()

    origin = stage.origin(lambda conn: conn.serve(answer))
    gates.extend(origin.gate() for _ in range(3))
    workers = Workers(stage)
    clients = [workers.nginx.connect() for _ in range(3)]
    for number, client in enumerate(clients):
        client.send(http1.request("GET", f"/{number}"))
        stage.wait_until(lambda: len(origin.requests) == number + 1)
    for number in (1, 2, 0):
        gates[number].open()
        assert clients[number].read_response().status == 200
        workers.wait_parked(1 + (1, 2, 0).index(number))
    assert workers.nginx.get("/1").status == 200
    assert [len(conn.requests) for conn in origin.conns] == [2, 1, 1]


@pytest.mark.parametrize("handler", ["proxy", "memcached"])
def test_those_of_other_handlers(stage, handler):
    """Of one protocol apart from the other."""
    def memcached(conn):
        while conn.more():
            conn.read_until(b"\r\n")
            conn.send(b"VALUE /key 0 5\r\nvalue\r\nEND\r\n")

    origin = stage.origin(memcached if handler == "memcached" else None)
    passing = {
        "proxy": "proxy_pass http://app; proxy_http_version 1.1;"
                 'proxy_set_header Connection "";',
        "memcached": "set $memcached_key /key; memcached_pass app;",
    }[handler]
    workers = Workers(stage, passing,
                      http=APP.format("keepalive 8; reuse on;"))
    first, second = first_and_second(workers)
    assert workers.how(first) == "new"
    workers.wait_parked()
    assert workers.how(second) == "shared"
    assert origin.connections == 1


def test_protocols_are_not_mixed(stage):
    """The same server speaks HTTP here and memcached there."""
    def script(conn):
        if conn.read_until(b"\r\n").startswith(b"get"):
            conn.send(b"END\r\n")
            return
        conn.read_until(b"\r\n\r\n")
        conn.respond()
        conn.serve()

    origin = stage.origin(script)
    workers = Workers(
        stage, "myproxy_pass http://app;", http=APP.format("reuse on;"),
        server=f"location /m {{ {WHO} set $memcached_key /key;"
               "memcached_pass app; memcached_next_upstream off; }")
    first, second = first_and_second(workers)
    assert workers.how(first) == "new"
    workers.wait_parked()
    # what the origin makes of it does not matter
    client = workers.nginx.connect()
    client.send(http1.request("GET", "/m"))
    stage.wait_until(lambda: origin.connections == 2)
    assert workers.connections["taken_over"] == 0
    assert workers.how(second) == "shared"


def test_local_addresses_are_not_mixed(stage):
    origin = stage.origin()
    workers = Workers(
        stage, "myproxy_pass http://app; myproxy_bind 127.0.0.$arg_from;",
        http=APP.format(""))
    first, second = first_and_second(workers)
    assert workers.how(first, "/?from=2") == "new"
    workers.wait_parked()
    assert workers.how(second, "/?from=3") == "new"
    workers.wait_parked(2)
    assert workers.how(second, "/?from=2") == "shared"
    assert workers.how(first, "/?from=3") == "shared"
    assert origin.connections == 2


@pytest.mark.parametrize("other", ["other", "two"])
def test_upstreams_are_not_mixed(stage, other):
    origin = stage.origin()
    workers = Workers(
        stage, "myproxy_pass http://$arg_to;",
        http=APP.format("") + APP.format("").replace("app", other))
    first, second = first_and_second(workers)
    assert workers.how(first, "/?to=app") == "new"
    workers.wait_parked()
    assert workers.how(second, f"/?to={other}") == "new"
    assert origin.connections == 2


@pytest.mark.parametrize("length, shared", [(200, True), (400, False)])
def test_a_name_that_is_too_long_stays_in_its_worker(stage, length, shared):
    """A place has only so much room for what a connection is for."""
    origin = stage.origin()
    name = "a" * length
    workers = Workers(
        stage, f"myproxy_pass http://{name};",
        http=APP.format("").replace("app", name))
    first, second = first_and_second(workers)
    assert workers.how(first) == "new"
    if shared:
        workers.wait_parked()
    else:
        stage.let_pass(0.1)
        assert workers.connections["parked"] == 0
        assert workers.how(first) == "reused"
    assert workers.how(second) == ("shared" if shared else "new")
    assert origin.connections == (1 if shared else 2)


def test_tls_stays_in_its_worker(stage):
    origin = stage.origin(tls="origin.test")
    workers = Workers(stage, "myproxy_pass https://%{origin};"
                             "myproxy_ssl_verify off;")
    first, second = first_and_second(workers)
    assert workers.how(first) == "new"
    stage.let_pass(0.1)
    assert workers.how(first) == "reused"
    assert workers.how(second) == "new"
    assert workers.connections["handed_over"] == 0
    assert origin.connections == 2


@pytest.mark.parametrize("passing", [
    "grpc_pass grpc://app;",
    pytest.param(
        "proxy_pass http://app; proxy_http_version 2;",
        marks=pytest.mark.skipif(version() < (1, 29, 4), reason="is newer"))],
    ids=["grpc", "proxy"])
def test_http2_stays_in_its_worker(stage, passing):
    """What is compressed depends on what the connection has carried."""
    def script(conn):
        answer_grpc(conn)
        conn.more()

    stage.origin(script)
    workers = Workers(stage, passing,
                      http=APP.format("keepalive 8; reuse on;"))
    first, _ = first_and_second(workers)
    assert workers.how(first, method="POST", body=b"body") == "new"
    stage.let_pass(0.1)
    found = workers.connections
    assert (found["open"], found["handed_over"]) == (1, 0)


@pytest.mark.skipif(version() < (1, 29, 7), reason="\"local\" is newer")
def test_local_ones_stay_in_their_location(stage):
    origin = stage.origin()
    config = {
        "http": APP.format("keepalive 8 local; reuse on;"),
        "server": f"location /b {{ {WHO} myproxy_pass http://app; }}"}
    workers = Workers(stage, "myproxy_pass http://app;", **config)
    first, second = first_and_second(workers)
    assert workers.how(first, "/a") == "new"
    workers.wait_parked()
    assert workers.how(second, "/b") == "new"
    workers.wait_parked(2)
    assert workers.how(second, "/a") == "shared"
    workers.wait_parked(2)
    assert origin.connections == 2
    workers.nginx.reload()
    workers.wait_closed(identity=2)


@pytest.mark.skipif(version() < (1, 29, 7), reason="\"local\" is newer")
def test_local_ones_that_were_opened_ahead(stage):
    stage.origin()
    workers = Workers(
        stage, http=APP.format("keepalive 8 local; reuse_warm 2;"),
        location="myproxy_pass http://app;")
    workers.wait_parked(2)
    for worker in workers.nginx.workers() * 2:
        assert workers.how(worker) in ("warm", "shared", "reused")
        stage.wait_until(lambda: workers.connections["parked"] >= 2)
    assert workers.nginx.status()["total"]["attempts"]["new"] == 0


def test_variable_targets(stage):
    """Also more of them than are counted apart."""
    origin = stage.origin()
    workers = Workers(stage, "myproxy_pass http://$arg_to;")
    first, second = first_and_second(workers)
    target = f"/?to={origin}"
    assert workers.how(first, target) == "new"
    workers.wait_parked()
    assert workers.how(second, target) == "shared"
    assert origin.connections == 1


def test_servers_for_which_there_is_no_room_in_the_zone(stage):
    """They are counted as one, and their connections are still told apart.

    A worker takes those which it would count as they are counted.
    """
    origins = [stage.origin(name=f"server{number}") for number in range(40)]
    workers = Workers(stage, "myproxy_pass http://$arg_to;",
                      http="reuse_zone 64k; " + "".join(
                          f"upstream {origin.name} {{ server {origin}; }}"
                          for origin in origins))
    first, second = first_and_second(workers)
    for origin in origins:
        assert workers.how(first, f"/?to={origin.name}") == "new"
    workers.wait_parked(40)
    assert workers.nginx.status()["zone"]["full"]
    found = [workers.how(second, f"/?to={origin.name}") for origin in origins]
    assert set(found) == {"new", "shared"}
    assert [origin.connections for origin in origins] == [
        1 if how == "shared" else 2 for how in found]
    assert all(sum(origin.carried) == 2 for origin in origins)


# what ends while it is parked

def ends(stage, act):
    """Has an origin that does something when it is told to."""
    gates = []

    def script(conn):
        conn.read_request()
        conn.respond()
        gates[0].wait()
        act(conn)

    origin = stage.origin(script)
    gates.append(origin.gate())
    return origin, gates[0]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_request_is_sent_on_one_that_has_ended(stage, method):
    def script(conn):
        if conn.read_request() is not None:
            conn.respond()

    origin = stage.origin(script)
    workers = Workers(stage)
    for _ in range(6):
        for worker in workers.nginx.workers():
            response = workers.ask(worker, method=method, body=b"body")
            assert response.status == 200
            # it closes as soon as it can
            stage.wait_until(lambda: all(conn.closed for conn
                                         in origin.conns))
    assert len(origin.requests) == 12
    # those that end while a request is on its way
    assert set(workers.closed) <= {"closed", "error", "undelivered"}


def test_one_that_has_ended_is_not_taken(stage):
    """Though it is found only now, and a request could be sent again."""
    origin, gate = ends(stage, lambda conn: conn.close())
    workers = Workers(stage)
    first, second = first_and_second(workers)
    assert workers.how(first) == "new"
    workers.wait_parked()
    gate.open()
    stage.wait_until(lambda: origin.conns[0].closed)
    assert workers.how(second) == "new"
    assert workers.nginx.status()["total"]["stale_requests"]["resent"] == 0


@pytest.mark.parametrize("end", ["close", "reset"])
def test_an_end_is_found_and_counted(stage, end):
    _, gate = ends(stage, lambda conn: getattr(conn, end)())
    workers = Workers(stage)
    first, _ = first_and_second(workers)
    assert workers.how(first) == "new"
    workers.wait_parked()
    gate.open()
    workers.wait_closed(closed=1)
    found = workers.connections
    assert (found["open"], found["idle"], found["parked"]) == (0, 0, 0)


def test_bytes_that_nobody_asked_for(stage):
    gates = []

    def script(conn):
        conn.read_request()
        conn.respond()
        gates[0].wait()
        conn.send(http1.response(body=b"for someone else"))
        conn.wait_until_delivered()
        gates[1].wait()

    origin = stage.origin(script)
    gates.extend([origin.gate(), origin.gate()])
    workers = Workers(stage)
    first, second = first_and_second(workers)
    assert workers.how(first) == "new"
    workers.wait_parked()
    gates[0].open()
    workers.wait_closed(excess=1)
    gates[1].open()
    assert workers.how(second) == "new"


def test_the_timeout_of_the_pool_holds(stage):
    origin = stage.origin()
    workers = Workers(stage, "myproxy_pass http://app;",
                      http=APP.format("keepalive 4; keepalive_timeout 700ms;"))
    first, _ = first_and_second(workers)
    assert workers.how(first) == "new"
    workers.wait_parked()
    workers.wait_closed(idle=1)
    assert origin.connections == 1


def test_the_number_of_requests_counts_on(stage):
    origin = stage.origin()
    workers = Workers(stage, "myproxy_pass http://app;",
                      http=APP.format("keepalive 4; keepalive_requests 3;"))
    first, second = first_and_second(workers)
    for worker in (first, second):
        workers.how(worker)
        workers.wait_parked()
    workers.how(first)
    workers.wait_closed(requests=1)
    assert [len(conn.requests) for conn in origin.conns] == [3]


def test_what_an_origin_announces_counts_on(stage):
    origin = stage.origin(lambda conn: conn.serve(
        http1.response(200, "Keep-Alive: timeout=1")))
    workers = Workers(stage)
    first, second = first_and_second(workers)
    assert workers.how(first) == "new"
    workers.wait_parked()
    workers.wait_closed(expired=1)
    assert workers.how(second) == "new"
    assert origin.connections == 2


def test_when_the_origin_closes_is_learned_exactly(stage):
    """Though parked connections are looked at once a second only."""
    def script(conn):
        for _ in conn.each_request():
            conn.respond()
            if not select.select([conn.sock], [], [], 0.4)[0]:
                return

    stage.origin(script)
    workers = Workers(stage)
    first, _ = first_and_second(workers)
    # ages that differ too much, as on a busy machine, teach nothing
    for _ in range(20):
        assert workers.how(first) == "new"
        workers.wait_open(0)
        if workers.learned:
            break
    assert 0.35 < workers.learned < 0.6


def test_when_the_origin_closes_is_learned_by_the_second(stage):
    """Of Unix-domain sockets the kernel does not tell when the end came, and
    so the age is that at which a connection was last seen without it."""
    def script(conn):
        for _ in conn.each_request():
            conn.respond()
            if not select.select([conn.sock], [], [], 1.3)[0]:
                return

    stage.origin(script, family="unix")
    workers = Workers(stage)
    first, _ = first_and_second(workers)
    for _ in range(8):
        assert workers.how(first) == "new"
        workers.wait_open(0)
        if workers.learned:
            break
    assert 0.8 < workers.learned < 1.4


def test_a_body_that_cannot_be_sent_again(stage):
    """Such a request takes one whose limit is known, or none."""
    origin = stage.origin()
    workers = Workers(stage, PASS + "myproxy_request_buffering off;")
    first, _ = first_and_second(workers)
    assert workers.how(first) == "new"
    workers.wait_parked()
    client = workers.nginx.connect()
    client.send(http1.compose("POST / HTTP/1.1", [
        "Host: localhost", "Content-Length: 4"]))
    stage.wait_until(lambda: origin.connections == 2)
    client.send(b"body")
    assert client.read_response().status == 200
    workers.wait_closed(unbuffered=1)


# reloads

def test_a_reload_keeps_connections(stage):
    origin = stage.origin()
    workers = Workers(stage)
    assert workers.nginx.get().status == 200
    for _ in range(3):
        workers.nginx.reload()
        assert workers.nginx.get().header("X-Connection") == "shared"
    assert origin.connections == 1
    assert workers.closed == {}


def test_one_that_is_in_use_is_left_to_the_new_workers(stage):
    origin, gate = waiting_origin(stage)
    workers = Workers(stage)
    old = workers.nginx.workers()
    client = workers.nginx.connect()
    client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: origin.requests)
    workers.nginx.reload()
    gate.open()
    assert client.read_response().status == 200
    stage.wait_until(lambda: not set(old) & set(workers.nginx.workers()))
    assert workers.nginx.get().header("X-Connection") == "shared"
    assert origin.connections == 1
    assert workers.closed == {}


@pytest.mark.parametrize("change, reason", [
    ({"http": "upstream other { server %{origin}; }",
      "location": "myproxy_pass http://other;"}, "drained"),
    ({"http": "upstream app { server %{other}; }"}, "drained"),
    ({"http": APP.format("reuse off;")}, "off"),
    ({"http": APP.format("") + "reuse_share off;"}, "off")],
    ids=["upstream", "server", "reuse", "share"])
def test_what_the_new_configuration_does_not_want_is_closed(
        stage, change, reason):
    stage.origin()
    stage.origin(name="other")
    workers = Workers(stage, "myproxy_pass http://app;",
                      http=APP.format(""))
    first, _ = first_and_second(workers)
    assert workers.how(first) == "new"
    workers.wait_parked()
    workers.nginx.reload(**change)
    workers.wait_closed(**{reason: 1})
    found = workers.connections
    assert (found["open"], found["idle"], found["parked"]) == (0, 0, 0)


def test_more_places_and_fewer(stage):
    origin = stage.origin()
    workers = Workers(stage, http="reuse_share 2;")
    assert workers.nginx.get().status == 200
    for places in (10, 3, 4096):
        workers.wait_parked()
        workers.nginx.reload(http=f"reuse_share {places};")
        assert workers.nginx.get().header("X-Connection") == "shared"
    workers.wait_parked()
    workers.nginx.reload(http="reuse_share off;")
    workers.wait_closed(off=1)
    workers.nginx.reload(http="reuse_share 5;")
    assert workers.nginx.get().header("X-Connection") == "new"
    workers.wait_parked()
    assert origin.connections == 2


def test_more_are_parked_than_the_new_configuration_has_places(stage):
    origin, gate = waiting_origin(stage)
    workers = Workers(stage, http="reuse_share 10;")
    workers.ask_at_once(5, origin, gate)
    workers.wait_parked(5)
    workers.nginx.reload(http="reuse_share 2;")
    workers.wait_parked(2)
    workers.wait_closed(full=3)
    assert workers.nginx.get().header("X-Connection") == "shared"
    assert origin.connections == 5


# processes

def test_without_workers_nothing_stays_parked(stage):
    """As in a master process that a binary upgrade has left behind."""
    origin = stage.origin()
    workers = Workers(stage)
    first, second = first_and_second(workers)
    assert workers.how(first) == "new"
    workers.wait_parked()
    client = workers.nginx.connect()
    assert client.get().header("X-Connection") == "shared"
    workers.nginx.send_signal(signal.SIGWINCH)
    stage.wait_until(lambda: not workers.nginx.workers())
    assert established([origin]) == 0
    workers.nginx.send_signal(signal.SIGHUP)
    stage.wait_until(lambda: len(workers.nginx.workers()) == 2)
    workers.wait_closed(shutdown=1)
    found = workers.connections
    assert (found["open"], found["idle"], found["parked"]) == (0, 0, 0)


def test_what_a_dead_worker_has_parked_stays(stage):
    origin = stage.origin()
    workers = Workers(stage)
    workers.nginx.expect_kills()
    first, second = first_and_second(workers)
    assert workers.how(first) == "new"
    workers.wait_parked()
    workers.nginx.kill_worker(first)
    workers.wait_new(first)
    assert workers.how(second) == "shared"
    assert origin.connections == 1
    workers.wait_parked()
    found = workers.connections
    assert (found["opened"], found["open"], found["idle"]) == (1, 1, 1)


def test_others_look_at_parked_ones_if_a_worker_has_died(stage):
    _, gate = ends(stage, lambda conn: conn.close())
    workers = Workers(stage)
    workers.nginx.expect_kills()
    first, _ = first_and_second(workers)
    assert workers.how(first) == "new"
    workers.wait_parked()
    # one of them looks once a second
    stage.let_pass(1.5)
    for worker in workers.nginx.workers():
        workers.nginx.kill_worker(worker)
    stage.wait_until(lambda: len(workers.nginx.workers()) == 2)
    gate.open()
    workers.wait_closed(closed=1)


#: Ends the process that parks or takes a connection, if a file is there: it
#: says before or after what the system call does.
DYING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void
maybe_die(const char *when)
{
    const char  *path = getenv(when);

    if (path && unlink(path) == 0) {
        kill(getpid(), SIGKILL);
    }
}

ssize_t
sendmsg(int fd, const struct msghdr *msg, int flags)
{
    ssize_t  n;
    ssize_t  (*next)(int, const struct msghdr *, int);

    next = dlsym(RTLD_NEXT, "sendmsg");

    if (msg->msg_controllen == 0 || msg->msg_iov->iov_len != sizeof(long)) {
        return next(fd, msg, flags);
    }

    maybe_die("DIE_BEFORE_PARKING");
    n = next(fd, msg, flags);
    maybe_die("DIE_AFTER_PARKING");

    return n;
}

int
epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    int  (*next)(int, int, int, struct epoll_event *);

    next = dlsym(RTLD_NEXT, "epoll_ctl");

    maybe_die(op == EPOLL_CTL_DEL ? "DIE_PARKED" : "DIE_TAKEN");

    return next(epfd, op, fd, event);
}

ssize_t
recvmsg(int fd, struct msghdr *msg, int flags)
{
    ssize_t  n;
    ssize_t  (*next)(int, struct msghdr *, int);

    next = dlsym(RTLD_NEXT, "recvmsg");

    if (msg->msg_controllen == 0 || msg->msg_iov->iov_len != sizeof(long)) {
        return next(fd, msg, flags);
    }

    maybe_die("DIE_BEFORE_TAKING");
    n = next(fd, msg, flags);

    if (n > 0) {
        maybe_die("DIE_AFTER_TAKING");
    }

    return n;
}
"""


def preload_dying(stage):
    """A library that ends a process while it shares a connection."""
    source, library = stage.path("dying.c"), stage.path("dying.so")
    with open(source, "w", encoding="ascii") as file:
        file.write(DYING)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"],
                   check=True)
    return library


@pytest.mark.skipif(settings.SCALE > 1, reason="sanitizers come first")
@pytest.mark.parametrize("when", [
    "DIE_BEFORE_PARKING", "DIE_AFTER_PARKING", "DIE_BEFORE_TAKING",
    "DIE_AFTER_TAKING"])
def test_a_worker_dies_with_a_place_in_its_hands(stage, when):
    """It loses that connection, and nothing else comes to harm."""
    mark = stage.path("die")
    origin = stage.origin()
    workers = Workers(stage, env={"LD_PRELOAD": preload_dying(stage),
                                  when: mark},
                      main=f"env LD_PRELOAD; env {when};")
    workers.nginx.expect_kills()
    assert workers.nginx.get().status == 200
    workers.wait_parked()
    old = workers.nginx.workers()
    with open(mark, "w", encoding="ascii"):
        pass
    client = workers.nginx.connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: not os.path.exists(mark))
    stage.wait_until(lambda: set(workers.nginx.workers()) != set(old))
    workers.wait_new()
    for _ in range(5):
        for worker in workers.nginx.workers():
            assert workers.ask(worker).status == 200
    stage.wait_until(lambda: workers.connections["open"]
                     == workers.connections["parked"]
                     == established([origin]))
    assert origin.connections <= 3


@pytest.mark.skipif(settings.SCALE > 1, reason="sanitizers come first")
def test_what_a_dead_worker_has_left_in_a_place_is_nobody_elses(stage):
    """A worker finds it dead that is older than that place."""
    gates = []

    def answer(name):
        def say(request):
            gates[int(request.target[1])].wait()
            return http1.response(body=name)
        return say

    one = stage.origin(lambda conn: conn.serve(answer(b"one")), name="one")
    two = stage.origin(lambda conn: conn.serve(answer(b"two")), name="two")
    gates.extend(one.gate() for _ in range(4))
    gates[1].open()
    upstreams = ("upstream one { server %{one}; }"
                 "upstream two { server %{two}; }")
    mark, when = stage.path("die"), "DIE_AFTER_PARKING"
    workers = Workers(
        stage, "myproxy_pass http://$arg_to;", workers=1,
        http="reuse_share 2;" + upstreams, main=f"env LD_PRELOAD; env {when};",
        env={"LD_PRELOAD": preload_dying(stage), when: mark})
    nginx = workers.nginx
    nginx.expect_kills()

    def send(*targets):
        origins = {"one": one, "two": two}
        clients = []
        for target in targets:
            origin = origins[target[-3:]]
            before = len(origin.requests)
            clients.append(nginx.connect())
            clients[-1].send(http1.request("GET", target))
            stage.wait_until(lambda: len(origin.requests) > before)
        return clients

    old, = nginx.workers()
    client, = send("/0?to=one")
    nginx.reload(http="reuse_share 10;" + upstreams)
    both = send("/2?to=two", "/2?to=two")
    gates[2].open()
    for each in both:
        assert each.read_response().body == b"two"
    workers.wait_parked(2)
    with open(mark, "w", encoding="ascii"):
        pass
    assert nginx.get("/1?to=one").body == b"one"
    stage.wait_until(lambda: not os.path.exists(mark))
    gates[0].open()
    assert client.read_response().body == b"one"
    stage.wait_until(lambda: old not in nginx.workers()
                     and len(nginx.workers()) == 1)
    three = send(*["/3?to=two"] * 3)
    gates[3].open()
    for each in three:
        assert each.read_response().body == b"two"
    workers.wait_parked(3)
    before = len(one.requests)
    assert nginx.get("/1?to=two").body == b"two"
    assert len(one.requests) == before


@pytest.mark.skipif(settings.SCALE > 1, reason="sanitizers come first")
@pytest.mark.parametrize("when", ["DIE_PARKED", "DIE_TAKEN"])
def test_what_a_worker_has_counted_when_it_dies(stage, when):
    """Just after it has parked a connection, or taken one."""
    mark = stage.path("die")
    origin = stage.origin()
    workers = Workers(stage, env={"LD_PRELOAD": preload_dying(stage),
                                  when: mark},
                      main=f"env LD_PRELOAD; env {when};")
    nginx = workers.nginx
    nginx.expect_kills()
    client = nginx.connect()
    for _ in range(3):
        assert client.get().status == 200
        workers.wait_parked()
    first, second = first_and_second(workers)
    with open(mark, "w", encoding="ascii"):
        pass
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: not os.path.exists(mark))
    stage.wait_until(lambda: len(nginx.workers()) == 2
                     and set(nginx.workers()) != {first, second})
    stage.wait_until(lambda: workers.connections["open"]
                     == workers.connections["idle"]
                     == workers.connections["parked"]
                     == established([origin])
                     == (1 if when == "DIE_PARKED" else 0))


def descriptors(pid):
    """What each descriptor of a process is, and whether exec closes it."""
    found = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            with open(f"/proc/{pid}/fdinfo/{number}",
                      encoding="ascii") as file:
                flags = int(re.search(r"flags:\s+(\d+)", file.read())[1], 8)
        except OSError:
            continue
        found[int(number)] = (target, bool(flags & os.O_CLOEXEC))
    return found


def watched(pid):
    """(descriptor, inode) of what epoll watches for a process."""
    found = []
    for number, (target, _) in descriptors(pid).items():
        if target == "anon_inode:[eventpoll]":
            with open(f"/proc/{pid}/fdinfo/{number}",
                      encoding="ascii") as file:
                found += re.findall(r"^tfd:\s+(\d+).* ino:([0-9a-f]+)",
                                    file.read(), re.MULTILINE)
    return [(int(number), int(inode, 16)) for number, inode in found]


def test_epoll_watches_nothing_that_is_parked(stage):
    """It would go on, since the connection is open in its place."""
    stage.origin()
    workers = Workers(stage)
    first, second = first_and_second(workers)
    if not watched(first):
        pytest.skip("the system does not say what epoll watches")
    for worker in (first, second, first):
        workers.how(worker)
        workers.wait_parked()
        own = descriptors(worker)
        for number, inode in watched(worker):
            target = own[number][0] if number in own else "nothing"
            assert (target.startswith("anon_inode:")
                    or target == f"socket:[{inode}]")


def test_no_descriptor_is_left(stage):
    origin = stage.origin()
    workers = Workers(stage)
    master = workers.nginx.master
    first, second = first_and_second(workers)
    for worker in (first, second):
        workers.how(worker)
        workers.wait_parked()

    def count():
        return {pid: len(descriptors(pid)) for pid in (master, first, second)}

    before = count()
    for _ in range(10):
        for worker in (first, second):
            workers.how(worker)
            workers.wait_parked()
    stage.wait_until(lambda: count() == before)
    workers.nginx.reload()
    stage.wait_until(lambda: not {first, second}
                     & set(workers.nginx.workers()))
    stage.wait_until(
        lambda: len(descriptors(master)) == before[master])
    assert origin.connections == 1


def test_exec_closes_the_places(stage):
    stage.origin()
    nginx = stage.nginx(location=PASS, workers=2, http="reuse_share 7;")
    sockets = [number for number, (target, closed)
               in descriptors(nginx.master).items()
               if target.startswith("socket:") and closed]
    assert len(sockets) >= 14


# the limit on open files

def test_a_worker_without_descriptors_leaves_places_alone(stage):
    """It has to lose one connection before it knows."""
    origin, gate = waiting_origin(stage)
    workers = Workers(stage)
    nginx = workers.nginx
    nginx.expect_log("shared connection was lost|Too many open files")
    workers.ask_at_once(10, origin, gate)
    workers.wait_parked(10)
    first, second = first_and_second(workers)
    nginx.pause_worker(second)
    clients = [nginx.connect() for _ in range(3)]
    for client in clients:
        assert client.get().header("X-Worker") == str(first)
    nginx.resume_worker(second)
    workers.wait_parked(10)
    nginx.pause_worker(second)
    limit, most = resource.prlimit(first, resource.RLIMIT_NOFILE)
    resource.prlimit(first, resource.RLIMIT_NOFILE, (3, most))
    nginx.wait_log("shared connection was lost")
    for client in clients:
        assert client.get().status == 500
    resource.prlimit(first, resource.RLIMIT_NOFILE, (limit, most))
    nginx.resume_worker(second)
    assert workers.how(first) == "shared"
    workers.wait_parked(9)
    assert workers.closed == {"error": 1, "connect_failed": 3}
    assert origin.connections == 10


@pytest.mark.parametrize("limit, written, found", [
    (256, "", 16), (256, "reuse_share 20;", 16), (256, "reuse_share 9;", 9),
    (20000, "", 1250), (20000, "reuse_share 4000;", 1250)])
def test_places_follow_the_limit_on_open_files(stage, limit, written, found):
    stage.origin()
    nginx = stage.nginx(
        location=PASS, workers=2, http=written, connections=64,
        before=["prlimit", f"--nofile={limit}:{limit}"])
    pairs = sum(target.startswith("socket:") and closed for target, closed
                in descriptors(nginx.master).values()) // 2
    assert found <= pairs <= found + 8
    warned = nginx.logged("\"reuse_share\" has .* places")
    assert bool(warned) == (written not in ("", "reuse_share 9;"))


def test_a_worker_without_connections_leaves_places_alone(stage):
    stage.origin()
    workers = Workers(stage, workers=1, connections=24,
                      http="reuse_share on;")
    nginx = workers.nginx
    assert nginx.get().header("X-Connection") == "new"
    workers.wait_parked()
    clients = use_up_connections(stage, nginx)
    clients[0].send(b"Host: localhost\r\n\r\n")
    assert clients[0].read_response().status == 500
    for client in clients:
        client.close()
    workers.wait_parked()
    assert nginx.get().header("X-Connection") == "shared"
    assert workers.closed == {"connect_failed": 1}


def test_one_that_is_over_where_there_are_no_connections(stage):
    """To close it as what it is takes one for a moment."""
    origin = stage.origin()
    workers = Workers(stage, workers=1, connections=24,
                      http="reuse_share on; reuse_expiry 500ms;")
    nginx = workers.nginx
    assert nginx.get().header("X-Connection") == "new"
    workers.wait_parked()
    clients = use_up_connections(stage, nginx)
    stage.wait_until(lambda: origin.conns[0].closed)
    for client in clients:
        client.close()
    workers.wait_closed(error=1)
    assert workers.connections["open"] == 0
    assert nginx.get().header("X-Connection") == "new"


@pytest.mark.skipif("--with-select_module" not in build_info(),
                    reason="select is built in if it is asked for")
def test_select_has_no_places(stage):
    """It allows no descriptor above 1023."""
    stage.origin()
    workers = Workers(stage, events="use select;")
    for worker in workers.nginx.workers():
        assert workers.how(worker) == "new"
    assert workers.connections["handed_over"] == 0


@pytest.mark.skipif("--with-poll_module" not in build_info(),
                    reason="poll is built in if it is asked for")
def test_poll_forgets_what_is_parked(stage):
    """It has no function for both events of a connection."""
    origin, gate = waiting_origin(stage)
    workers = Workers(stage, events="use poll;")
    first, second = first_and_second(workers)
    workers.ask_at_once(3, origin, gate)
    workers.wait_parked(3)
    for worker in (first, second) * 3:
        assert workers.how(worker) == "shared"
        workers.wait_parked(3)
    assert origin.connections == 3
    origin.cut()
    workers.wait_closed(closed=3)


def test_connections_come_first(stage):
    """Where no descriptor is left over, there is no place."""
    stage.origin()
    workers = Workers(
        stage, http="reuse_share on;", connections=250,
        before=["prlimit", "--nofile=256:256"])
    assert workers.nginx.get().status == 200
    assert workers.nginx.logged(
        "\"reuse_share\" has 0 places, as the limit on open files allows no "
        "more: raise that limit")
    stage.let_pass(0.1)
    assert workers.connections["handed_over"] == 0


@pytest.mark.parametrize("value", ["1", "4097", "-1", "x", "2k"])
def test_a_number_that_is_none(stage, value):
    code, said = stage.config_test(http=f"reuse_share {value};")
    assert code == 1
    assert (f'invalid value "{value}" of "reuse_share": it is "on", "off" or '
            "how many idle connections worker processes share at most, from "
            "2 to 4096 in ") in said


def test_it_stands_once(stage):
    code, said = stage.config_test(http="reuse_share on; reuse_share 3;")
    assert code == 1
    assert '"reuse_share" directive is duplicate in ' in said


def test_the_clock_of_a_worker_is_behind(stage):
    """That of whoever has parked it may be later: it was idle for no time."""
    stage.origin()
    workers = Workers(
        stage, main="timer_resolution 1s;", http=APP.format(""),
        location="add_header X-Idle $reuse_idle; myproxy_pass http://app;")
    first, second = first_and_second(workers)
    # from now on one is parked as soon as it is idle
    assert workers.how(first) == "new"
    workers.wait_parked()
    # a worker that goes on looks at the time, and others a second later
    workers.nginx.pause_worker(first)
    stage.let_pass(1.1)
    workers.nginx.resume_worker(first)
    assert workers.how(first) == "shared"
    workers.wait_parked()
    response = workers.ask(second)
    assert response.header("X-Connection") == "shared"
    assert 0 <= float(response.header("X-Idle")) < 60 * settings.SCALE


@pytest.mark.skipif(not shutil.which("gdb"), reason="no gdb")
def test_a_worker_that_is_killed_while_it_parks_takes_no_slot(stage):
    """The place has the connection, and its counters have it as well: an end
    too many must not close the server for ever."""
    origin = stage.origin()
    workers = Workers(
        stage, http=APP.format("reuse_limit 1;"),
        location="myproxy_pass http://app;")
    first, second = first_and_second(workers)
    source = settings.ROOT / "src/share/ngx_http_upstream_reuse_places.c"
    line, = [number for number, text
             in enumerate(source.read_text().splitlines(), 1)
             if "a worker that dies later has nothing to do with it" in text]
    workers.nginx.expect_kills()
    workers.nginx.pause_worker(second)
    gdb = subprocess.Popen(
        ["gdb", "-p", str(first), "-batch", "-nx",
         "-ex", f"tbreak {source.name}:{line}", "-ex", "continue",
         "-ex", "kill"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True)

    def goes_on():
        with open(f"/proc/{first}/status", encoding="ascii") as file:
            status = file.read()
        return re.search(r"State:\s+S[^t]*TracerPid:\s+[1-9]", status)
    stage.wait_until(goes_on)
    assert workers.nginx.get().status == 200
    said, _ = gdb.communicate()
    assert "Temporary breakpoint 1," in said, said
    workers.nginx.resume_worker(second)
    workers.wait_new(first)
    # it is parked, though it was lost with its worker, and ends once more
    workers.nginx.wait_log("lists of shared connections are made anew")
    assert workers.closed == {"crash": 1}
    origin.conns[0].close()
    for _ in range(2):
        assert workers.nginx.get().status == 200
