"""A request that meets a connection which the origin is just closing.

What is on its way between nginx and the origin is held by a link, so that
each order of events is played exactly (see docs/safe-reuse.md).
"""

import contextlib
import socket
import ssl
import subprocess

import pytest

from harness import http1, settings
from harness.nginx import version
from harness.crossing import (SENT_AGAIN, Scene, answer_http,
                              unacknowledged)

NAME = "app.test"
UP = "upstream app { server %{origin}; }"
PASS = "myproxy_pass http://app;"
TLS_PASS = f"""
    myproxy_pass https://app;
    myproxy_ssl_name {NAME};
    myproxy_ssl_trusted_certificate %{{authority.path}};
"""

CLOSED = SENT_AGAIN + "the connection had been closed before it arrived"
UNPROVEN = (r"\[error\].*upstream closed a kept connection before it "
            "answered, the request may have been received")
RESET = SENT_AGAIN + "the connection had been reset before it could arrive"

EVERY = ["POST", "PATCH", "GET", "PUT", "DELETE"]


def play(stage, end, *, http=UP, location=None, tls=None, **more):
    return Scene(stage, end, http=http, tls=tls,
                 location=location or (TLS_PASS if tls else PASS), **more)


def close(conn):
    conn.close()


def say_close_notify(conn):
    conn.sock.setblocking(False)
    with contextlib.suppress(ssl.SSLWantReadError):
        conn.sock.unwrap()


def close_tls(conn):
    say_close_notify(conn)
    conn.close()


def reset(conn):
    conn.reset()


def half_close(conn):
    conn.half_close()


def read_and(end):
    """The request is read, and executed for all that nginx knows."""
    def script(conn):
        conn.read_request()
        end(conn)
    return script


plain_and_tls = pytest.mark.parametrize("tls", [None, NAME],
                                        ids=["plain", "tls"])


# the end of the connection and the request cross

@plain_and_tls
@pytest.mark.parametrize("method", EVERY)
def test_closed_before_the_request_arrived(stage, method, tls):
    scene = play(stage, close, tls=tls)
    scene.cross(method)
    scene.meet()
    assert scene.response().status == 200
    assert scene.received() == 1
    assert scene.nginx.logged(CLOSED)
    assert not scene.errors()
    request = scene.origin.requests[-1]
    assert (request.method, request.body) == (method, b"body")


@plain_and_tls
def test_reset_follows_before_nginx_looks(stage, tls):
    """The end is followed by the reset that the request has caused."""
    scene = play(stage, close, tls=tls)
    scene.cross()
    worker, = scene.nginx.workers()
    scene.nginx.pause_worker(worker)
    scene.link.release("a")
    # the end and the answer to the request
    stage.wait_until(lambda: scene.link.queued("b") > 1)
    scene.link.release("b")
    scene.settle()
    scene.nginx.resume_worker(worker)
    assert scene.response().status == 200
    assert scene.received() == 1
    assert scene.nginx.logged(CLOSED)
    assert not scene.errors()


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_reset_before_any_of_it_was_sent(stage, method):
    """The worker meets the client first, and then what came before it."""
    def script(conn):
        if conn.number > 1:
            conn.serve()
            return
        answer_http(conn)
        gate.wait()
        conn.reset()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(location=PASS, http=UP)
    client = nginx.connect()
    assert client.get("/").status == 200
    worker, = nginx.workers()
    nginx.pause_worker(worker)
    client.send(http1.request(method, "/x", body=b"body"))
    gate.open()
    stage.wait_until(lambda: origin.conns[0].closed)
    nginx.resume_worker(worker)
    assert client.read_response().status == 200
    assert nginx.logged(SENT_AGAIN + "none of it was sent")
    assert origin.requests[-1].body == b"body"
    assert nginx.status()["total"]["stale_requests"]["resent"] == 1


def test_a_body_on_disk_is_sent_again_whole(stage):
    body = bytes(range(256)) * 400
    scene = play(stage, close, server="client_body_in_file_only clean;")
    scene.cross(body=body)
    scene.meet()
    assert scene.response().status == 200
    assert scene.origin.requests[-1].body == body
    assert scene.received() == 1


@plain_and_tls
def test_a_body_in_memory_is_sent_again_whole(stage, tls):
    body = bytes(range(256)) * 40
    scene = play(stage, close, tls=tls,
                 server="client_body_buffer_size 64k;")
    scene.cross(body=body)
    scene.meet()
    assert scene.response().status == 200
    assert scene.origin.requests[-1].body == body


def test_a_body_of_which_only_a_part_was_sent(stage):
    """It does not fit the socket's buffer: the end comes while sending."""
    body = b"0123456789abcdef" * 500000
    scene = play(stage, close, server="client_max_body_size 0;"
                 "client_body_buffer_size 16m;")
    scene.cross(body=body)
    scene.meet()
    assert scene.response().status == 200
    assert scene.origin.requests[-1].body == body
    assert scene.received() == 1
    assert not scene.errors()


def test_a_half_closed_connection_gets_no_late_copy(stage):
    """What was lost on the way is not sent anew by the kernel."""
    scene = play(stage, half_close)
    scene.cross()
    scene.link.drop("a")
    scene.link.release("b")
    scene.nginx.wait_log(CLOSED)
    scene.link.release("a")
    assert scene.response().status == 200
    first = scene.origin.conns[0]
    stage.wait_until(lambda: first.closed)
    assert b"/x" not in first.received
    assert scene.received() == 1


@pytest.mark.parametrize("tls", [None, NAME], ids=["plain", "tls"])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_an_answer_without_a_question_before_the_end(stage, method, tls):
    """As of servers that say 408 before they close."""
    def end(conn):
        conn.respond(408)
        conn.close()

    scene = play(stage, end, tls=tls)
    scene.cross(method)
    worker, = scene.nginx.workers()
    scene.nginx.pause_worker(worker)
    # what is said, and the end
    stage.wait_until(lambda: scene.link.queued("b") > 1)
    scene.link.release("b")
    stage.wait_until(lambda: scene.link.queued("b") == 0)
    scene.nginx.resume_worker(worker)
    scene.nginx.wait_log(CLOSED)
    scene.link.release("a")
    assert scene.response().status == 200
    assert scene.received() == 1
    assert not scene.errors()


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_tls_says_the_end(stage, method):
    """close_notify and FIN, as OpenSSL's users send them."""
    scene = play(stage, close_tls, tls=NAME)
    scene.cross(method)
    scene.meet()
    assert scene.response().status == 200
    assert scene.received() == 1
    assert scene.nginx.logged(CLOSED)
    assert not scene.errors()


def test_tls_says_the_end_before_tcp_does(stage):
    """The record is here, FIN is not sent yet."""
    def end(conn):
        say_close_notify(conn)
        conn.exchange.wake()
        gate.wait()

    scene = play(stage, end, tls=NAME)
    gate = scene.origin.gate()
    scene.link.hold("a")
    scene.link.hold("b")
    scene.gate.open()
    stage.wait_until(lambda: scene.link.queued("b") > 0)
    scene.send()
    stage.wait_until(lambda: unacknowledged(scene.nginx, scene.origin))
    scene.meet()
    assert scene.response().status == 200
    assert scene.received() == 1
    assert scene.nginx.logged(CLOSED)
    gate.open()


def test_nothing_comes_at_all(stage):
    """A timeout proves nothing."""
    scene = play(stage, close, location=PASS + "myproxy_read_timeout 300ms;")
    scene.link.hold("a")
    scene.send()
    assert scene.response().status == 504
    scene.link.drop("a")
    scene.link.release("a")
    assert scene.received() == 0
    assert not scene.nginx.logged(SENT_AGAIN)
    # nor is it an end
    assert not scene.nginx.logged("broke off")
    stale = scene.nginx.status()["total"]["stale_requests"]
    assert not any(stale.values())


def test_one_after_another_meets_it(stage):
    """Each of several connections was closed."""
    link = stage.link()

    def script(conn):
        if conn.number > 3:
            conn.serve()
            return
        conn.read_request()
        all_here.append(conn)
        conn.exchange.wake()
        answer.wait()
        conn.respond()
        gate.wait()
        conn.close()

    all_here = []
    origin = stage.origin(script, link=link)
    gate, answer = origin.gate(), origin.gate()
    nginx = stage.nginx(link=link, http=UP, location=PASS)
    clients = [nginx.connect() for _ in range(3)]
    for client in clients:
        client.send(http1.request("GET", "/warm"))
    stage.wait_until(lambda: len(all_here) == 3)
    answer.open()
    for client in clients:
        assert client.read_response().status == 200
    stage.wait_until(lambda: not link.queued("a") and not link.queued("b"))
    link.hold("a")
    link.hold("b")
    gate.open()
    stage.wait_until(lambda: link.queued("b") >= 3)
    for number, client in enumerate(clients):
        client.send(http1.request("POST", f"/{number}", body=b"x"))
    stage.wait_until(lambda: unacknowledged(nginx, origin) == 3)
    link.release("b")
    nginx.wait_log(CLOSED, count=3)
    link.release("a")
    for client in clients:
        assert client.read_response().status == 200
    assert sorted(request.target for request in origin.requests[3:]) == \
        ["/0", "/1", "/2"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("data", [b"", http1.response(200, body=b"stray")],
                         ids=["end", "response"])
def test_with_events_that_are_posted(stage, method, data):
    """With accept_mutex, events are handled after all have been taken."""
    def end(conn):
        if data:
            conn.send(data)
        conn.close()

    scene = play(stage, end, workers=2, events="accept_mutex on;")
    workers = scene.nginx.workers()
    for worker in workers:
        scene.nginx.pause_worker(worker)
    scene.send(method)
    scene.client.wait_until_delivered()
    scene.end()
    scene.settle()
    for worker in workers:
        scene.nginx.resume_worker(worker)
    response = scene.response()
    assert response.status == 200
    assert response.body == b"hello\n"
    assert scene.received() == 1


# a reset and the request cross

@plain_and_tls
def test_reset_before_the_request_could_arrive(stage, tls):
    """The reset comes sooner than an answer to the request could."""
    half = 0.4 * min(settings.SCALE, 2)
    scene = play(stage, reset, tls=tls, round_trip_ms=2000 * half,
                 acquainted=3)
    scene.end()
    # so long takes the reset, and nothing is proved later than that
    scene.stage.let_pass(half / 2)
    scene.send()
    assert scene.response().status == 200
    assert scene.received() == 1
    assert scene.nginx.logged(RESET)
    assert not scene.errors()


@pytest.mark.parametrize("acquainted", [1, 2])
def test_reset_before_round_trips_are_known(stage, acquainted):
    """The first ones may have taken longer than others do."""
    half = 0.4 * min(settings.SCALE, 2)
    scene = play(stage, reset, round_trip_ms=2000 * half,
                 acquainted=acquainted)
    scene.end()
    scene.stage.let_pass(half / 2)
    scene.send()
    assert scene.response().status == 502
    assert not scene.nginx.logged(SENT_AGAIN)


def test_reset_when_the_request_may_have_arrived(stage):
    """It comes later than the least round trip: nothing is proved."""
    scene = play(stage, reset)
    scene.cross()
    scene.stage.let_pass(0.5)
    scene.link.release("b")
    assert scene.response().status == 502
    scene.link.release("a")
    assert scene.received() == 0
    assert scene.nginx.logged(r"\[error\].*recv\(\) failed \(104")
    assert len(scene.nginx.logged(UNPROVEN)) == 1
    assert not scene.nginx.logged(SENT_AGAIN)


def test_reset_when_an_idempotent_request_may_have_arrived(stage):
    """nginx's own rule sends it again."""
    scene = play(stage, reset)
    scene.cross("GET")
    scene.stage.let_pass(0.5)
    scene.link.release("b")
    scene.nginx.wait_log(r"\[error\].*recv\(\) failed \(104")
    scene.link.release("a")
    assert scene.response().status == 200
    assert not scene.nginx.logged(SENT_AGAIN)


def serve(conn):
    while answer_http(conn):
        pass


def test_a_connection_that_nginxs_own_side_has_ended(stage):
    """By `ss -K`, say, while the request is on its way."""
    scene = play(stage, serve, round_trip_ms=400, acquainted=3)
    scene.gate.open()
    scene.send()
    stage.wait_until(lambda: unacknowledged(scene.nginx, scene.origin))
    subprocess.run(scene.link.enter("a") + ["ss", "-K", "dst", "10.77.0.2"],
                   check=False, capture_output=True)
    assert scene.response().status in (502, 200)
    scene.settle()
    scene.stage.let_pass(0.5)
    assert scene.received() == 1
    assert not scene.nginx.logged(SENT_AGAIN)
    scene.nginx.expect_log(r"\[alert\].*\(103: Software caused connection")


@pytest.mark.parametrize("method, status", [("POST", 502), ("GET", 200)])
def test_something_is_said_before_a_reset(stage, method, status):
    """What was said is no answer, and the server has not failed."""
    def end(conn):
        conn.respond(408)
        conn.reset()

    link = stage.link()
    other = stage.origin(name="other", link=link)
    scene = play(stage, end, link=link, http="""
        upstream app {
            server %{origin} max_fails=1 fail_timeout=1h;
            server %{other} backup;
        }
    """)
    scene.cross(method)
    worker, = scene.nginx.workers()
    scene.nginx.pause_worker(worker)
    # what is said, and the reset
    stage.wait_until(lambda: scene.link.queued("b") > 1)
    scene.link.release("b")
    stage.wait_until(lambda: scene.link.queued("b") == 0)
    scene.nginx.resume_worker(worker)
    scene.nginx.wait_log("sent data before the request")
    scene.link.release("a")
    assert scene.response().status == status
    assert not scene.nginx.logged(SENT_AGAIN)
    assert len(other.requests) == (method == "GET")
    assert scene.client.get("/y").status == 200
    assert scene.received("/y") == 1


def test_what_fails_behind_the_first_byte_is_an_error(stage):
    """Only what may have to be sent again is no reason for one."""
    def script(conn):
        conn.read_request()
        conn.respond()
        conn.read_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        gate.wait()
        conn.reset()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};"
                                 "myproxy_buffering off;")
    client = nginx.connect()
    assert client.get("/").status == 200
    client.send(http1.request("GET", "/x"))
    client.read_until(b"half")
    gate.open()
    nginx.wait_log(r"recv\(\) failed \(104")
    assert nginx.logged(r"\[error\].*recv\(\) failed \(104")
    assert origin.carried == [2]


def test_reset_after_a_long_round_trip(stage):
    scene = play(stage, reset, round_trip_ms=100, acquainted=3)
    scene.cross()
    scene.stage.let_pass(0.3)
    scene.link.release("b")
    assert scene.response().status == 502
    scene.link.release("a")
    assert not scene.nginx.logged(SENT_AGAIN)


def test_reset_where_a_round_trip_is_short(stage):
    """As soon as it comes, it may be an answer."""
    scene = play(stage, reset, round_trip_ms=2, acquainted=3)
    scene.cross()
    scene.link.release("b")
    assert scene.response().status == 502
    scene.link.release("a")
    assert not scene.nginx.logged(SENT_AGAIN)


# the request was received

@plain_and_tls
@pytest.mark.parametrize("end", [close, reset, half_close],
                         ids=["close", "reset", "half-close"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_received_and_then_closed(stage, method, end, tls):
    scene = play(stage, read_and(end), tls=tls)
    scene.gate.open()
    scene.send(method)
    assert scene.response().status == 502
    assert scene.received() == 1
    assert not scene.nginx.logged(SENT_AGAIN)
    assert len(scene.nginx.logged(UNPROVEN)) == 1


@plain_and_tls
@pytest.mark.parametrize("round_trip_ms", [100, 400])
def test_received_and_then_reset_far_away(stage, round_trip_ms, tls):
    """The reset takes just a round trip, and comes without the
    acknowledgement that would show the request was there."""
    def end(conn):
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        conn.read_request()
        conn.reset()

    scene = play(stage, end, tls=tls, round_trip_ms=round_trip_ms,
                 acquainted=3)
    scene.gate.open()
    scene.send()
    assert scene.response().status == 502
    assert scene.received() == 1
    assert not scene.nginx.logged(SENT_AGAIN)


@pytest.mark.parametrize("first_ms, acquainted", [(20, 1), (100, 1), (3, 3)])
def test_received_and_then_reset_after_a_slow_beginning(stage, first_ms,
                                                        acquainted):
    """The first packets wait, as for the address of the origin, or a little
    and on each connection; what follows is faster."""
    scene = play(stage, read_and(reset), round_trip_ms=first_ms,
                 acquainted=acquainted)
    scene.link.delay(0)
    scene.gate.open()
    scene.send()
    assert scene.response().status == 502
    assert scene.received() == 1
    assert not scene.nginx.logged(SENT_AGAIN)


@pytest.mark.parametrize("before, then, now", [
    (100, 400, 100), (400, 100, 40)], ids=["as-before", "at-last"])
def test_received_and_then_reset_on_a_path_that_has_become_shorter(
        stage, before, then, now):
    """The connection has only met longer round trips.  What decides is the
    least one of all connections to the server, if several have met it."""
    def script(conn):
        conn.read_request()
        if conn.number <= near:
            stage.wait_until(lambda: origin.connections == near)
            conn.respond()
            gate.wait()
            conn.close()
            return
        conn.respond()
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        if conn.read_request():
            conn.reset()

    near = 3
    link = stage.link(round_trip_ms=before)
    origin = stage.origin(script, link=link)
    gate = origin.gate()
    nginx = stage.nginx(link=link, http=UP, location=PASS)

    def idle():
        return nginx.status()["total"]["connections"]["idle"]

    def settle():
        stage.wait_until(lambda: unacknowledged(nginx, origin) == 0)
        stage.wait_until(lambda: link.queued("a") + link.queued("b") == 0)

    clients = [nginx.connect() for _ in range(near)]
    for client in clients:
        client.send(http1.request("GET", "/near"))
    for client in clients:
        assert client.read_response().status == 200
    stage.wait_until(lambda: idle() == near)
    gate.open()
    stage.wait_until(lambda: idle() == 0)
    link.delay(then / 2)
    assert nginx.get("/far").status == 200
    settle()
    link.delay(now / 2)
    assert nginx.post("/x", b"body").status == 502
    assert [request.target for request in origin.requests] == [
        *["/near"] * near, "/far", "/x"]
    assert not nginx.logged(SENT_AGAIN)


def test_received_and_then_reset_on_a_path_that_becomes_ever_shorter(stage):
    """What this connection has met last is not what others have."""
    def end(conn):
        answer_http(conn)
        read_and(reset)(conn)

    scene = play(stage, end, round_trip_ms=400, acquainted=3)
    scene.gate.open()
    scene.link.delay(100)
    assert scene.client.get("/").status == 200
    stage.wait_until(lambda: unacknowledged(scene.nginx, scene.origin) == 0)
    scene.settle()
    scene.link.delay(0)
    scene.send()
    assert scene.response().status == 502
    assert scene.received() == 1
    assert not scene.nginx.logged(SENT_AGAIN)


COUNTER_THAT_STANDS = r"""
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/tcp.h>

int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    int rc = syscall(SYS_getsockopt, fd, level, name, value, len);

    if (rc == 0 && level == IPPROTO_TCP && name == TCP_INFO
        && *len > offsetof(struct tcp_info, tcpi_bytes_acked))
    {
        ((struct tcp_info *) value)->tcpi_bytes_acked = ACKED;
    }

    return rc;
}
"""


@pytest.mark.skipif(settings.SANITIZED, reason="its library is to be first")
@pytest.mark.parametrize("acked", [0, 1])
def test_received_where_the_system_does_not_count(stage, tmp_path, acked):
    library = tmp_path / "shim.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", f"-DACKED={acked}", "-o", library, "-xc",
         "-"], input=COUNTER_THAT_STANDS, text=True, check=True)
    scene = play(stage, read_and(close), env={"LD_PRELOAD": str(library)})
    scene.gate.open()
    scene.send()
    assert scene.response().status == 502
    assert scene.received() == 1
    assert not scene.nginx.logged(SENT_AGAIN)


def test_received_in_part_and_then_closed(stage):
    """Some of a long body is acknowledged."""
    def end(conn):
        conn.read_head()
        conn.close()

    scene = play(stage, end, server="client_max_body_size 0;")
    scene.gate.open()
    scene.send(body=b"0123456789abcdef" * 500000)
    assert scene.response().status == 502
    assert scene.received() == 1
    assert not scene.nginx.logged(SENT_AGAIN)


#: Delays what is read from a file with pread() until another one is gone.
SLOW_FILES = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

static ssize_t
wait_and_read(const char *name, int fd, void *buf, size_t size, off_t offset)
{
    ssize_t  (*next)(int, void *, size_t, off_t);

    while (access(HELD, F_OK) == 0) {
        close(open(READS, O_CREAT|O_WRONLY, 0600));
        usleep(1000);
    }

    next = dlsym(RTLD_NEXT, name);

    return next(fd, buf, size, offset);
}

ssize_t
pread(int fd, void *buf, size_t size, off_t offset)
{
    return wait_and_read("pread", fd, buf, size, offset);
}

ssize_t
pread64(int fd, void *buf, size_t size, off_t offset)
{
    return wait_and_read("pread64", fd, buf, size, offset);
}
"""


@pytest.mark.skipif(settings.SANITIZED,
                    reason="the sanitizers' library is to be first")
def test_a_write_of_a_long_body_meets_the_end(stage, tmp_path):
    """The first write is answered with a reset, which the second one meets."""
    library, held, reads = (tmp_path / name for name in (
        "slow.so", "held", "reads"))
    subprocess.run(
        ["gcc", "-shared", "-fPIC", f'-DHELD="{held}"', f'-DREADS="{reads}"',
         "-o", library, "-xc", "-", "-ldl"],
        input=SLOW_FILES, text=True, check=True)

    def script(conn):
        answer_http(conn)
        if conn.number == 1:
            gate.wait()
            conn.close()
            return
        while answer_http(conn):
            pass

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(
        http=UP, location=PASS,
        server="client_max_body_size 0; client_body_buffer_size 1k;",
        env={"LD_PRELOAD": str(library)})
    assert nginx.get().status == 200
    held.touch()
    client = nginx.connect()
    body = b"0123456789abcdef" * 10000
    client.send(http1.request("POST", "/x", body=body))
    # the connection has been chosen, and the first part is read for it
    stage.wait_until(reads.exists)
    gate.open()
    stage.wait_until(lambda: origin.conns[0].closed)
    held.unlink()
    assert client.read_response().status == 200
    nginx.wait_log(CLOSED)
    assert [request.body for request in origin.requests
            if request.target == "/x"] == [body]


def test_closed_with_the_request_unread(stage):
    """The kernel has it, and so it is acknowledged, but nobody reads it."""
    def end(conn):
        arrived.wait()
        conn.close()

    scene = play(stage, end)
    arrived = scene.origin.gate()
    scene.gate.open()
    scene.send()
    sock = scene.origin.conns[0].sock
    sock.settimeout(settings.PATIENCE)
    assert sock.recv(1, socket.MSG_PEEK)
    arrived.open()
    assert scene.response().status == 502
    assert not scene.nginx.logged(SENT_AGAIN)


def test_closed_by_an_origin_that_lingers(stage):
    """It ends its stream, reads what comes and throws it away."""
    def end(conn):
        conn.half_close()
        conn.wait_for_close()

    scene = play(stage, end)
    scene.link.hold("b")
    scene.gate.open()
    stage.wait_until(lambda: scene.link.queued("b") > 0)
    before = scene.link.queued("b")
    scene.send()
    # its acknowledgement is behind the end
    stage.wait_until(lambda: scene.link.queued("b") > before)
    worker, = scene.nginx.workers()
    scene.nginx.pause_worker(worker)
    scene.link.release("b")
    scene.settle()
    scene.nginx.resume_worker(worker)
    assert scene.response().status == 502
    assert not scene.nginx.logged(SENT_AGAIN)


def test_a_new_connection_proves_nothing(stage):
    """There was no earlier request on it: nginx's own rules stand."""
    origin = stage.origin(read_and(close))
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    assert nginx.post("/x", b"body").status == 502
    assert origin.connections == 1


def test_there_is_no_proof_on_a_unix_socket(stage):
    def script(conn):
        if conn.number > 1:
            conn.serve()
            return
        conn.read_request()
        conn.respond()
        conn.read_request()

    origin = stage.origin(script, family="unix")
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    assert nginx.get("/").status == 200
    assert nginx.post("/x", b"body").status == 502
    assert origin.connections == 1


# nobody's fault

def two(end, **more):
    http = """
        upstream app {
            server %{origin} max_fails=1 fail_timeout=1h;
            server 10.77.0.2:1 backup;
        }
    """
    return lambda stage: play(stage, end, http=http, **more)


def test_the_same_peer_first_and_no_failure_counted(stage):
    scene = two(close)(stage)
    scene.cross()
    scene.meet()
    assert scene.response().status == 200
    assert scene.client.get("/y").status == 200
    assert scene.origin.carried == [1, 2]
    assert not scene.errors()


def test_a_peer_that_does_not_answer_then_counts(stage):
    """Sent again on a new connection, which is refused: nginx's rules."""
    scene = two(close)(stage)
    scene.cross()
    scene.origin.refuse()
    scene.meet()
    assert scene.response().status == 502
    assert scene.nginx.logged("Connection refused")
    assert scene.received() == 0


@pytest.mark.parametrize("lines", [
    "myproxy_next_upstream off;", "myproxy_next_upstream http_503;",
    "myproxy_next_upstream_tries 1;", "myproxy_next_upstream error;",
    "myproxy_next_upstream_tries 1; myproxy_next_upstream off;"])
def test_whatever_next_upstream_says(stage, lines):
    scene = play(stage, close, location=PASS + lines)
    scene.cross()
    scene.meet()
    assert scene.response().status == 200
    assert scene.received() == 1


def with_backup(stage, then, lines):
    """A request that is sent again, to a server that then does as told,
    beside one that is fine: the scene, and the second server."""
    link = stage.link()
    second = stage.origin(name="second", link=link)
    scene = play(stage, close, link=link, answer=then, http="""
        upstream app { server %{origin}; server %{second} backup; }
    """, location=PASS + lines)
    scene.cross()
    return scene, second


def answer_once(conn):
    """The first connection answers, the others read and close."""
    if conn.read_request() is None:
        return False
    if conn.number == 1:
        conn.respond()
    return False


@pytest.mark.parametrize("lines", ["", "myproxy_next_upstream error;"])
def test_next_upstream_holds_again_for_what_follows(stage, lines):
    """The second attempt is an ordinary one: executed, it is no more sent."""
    scene, second = with_backup(stage, answer_once, lines)
    scene.meet()
    assert scene.response().status == 502
    assert scene.received() == 1
    assert second.requests == []


@pytest.mark.parametrize("tries, asked", [(1, 0), (2, 1)])
def test_an_attempt_that_was_not_delivered_is_no_try(stage, tries, asked):
    scene, second = with_backup(
        stage, answer_http, f"myproxy_next_upstream_tries {tries};")
    scene.origin.refuse()
    scene.meet()
    assert scene.response().status == (200 if asked else 502)
    assert len(second.requests) == asked


@pytest.mark.parametrize("zone", ["", "zone app 64k;"])
@pytest.mark.parametrize("method", [
    "", "least_conn;", "ip_hash;", "hash $request_uri;",
    "hash $request_uri consistent;", "random;", "random two least_conn;"])
def test_with_every_balancer(stage, method, zone):
    if method.startswith("random two") and not zone:
        pytest.skip("takes a zone")
    http = f"""
        upstream app {{
            {zone} {method}
            server %{{origin}} max_conns=1 max_fails=1;
        }}
    """
    scene = play(stage, close, http=http)
    scene.cross()
    scene.meet()
    assert scene.response().status == 200
    for _ in range(3):
        # the peer was given back: it takes one at a time
        assert scene.client.get("/y").status == 200
    assert not scene.errors()


def begin_session(conn):
    """Answer one request; the answer begins the session "one"."""
    try:
        if conn.read_request() is None:
            return False
    except ConnectionError:
        return False
    conn.send(http1.response(200, "X-Session: one", body=b"hello"))
    return True


@pytest.mark.skipif(version() < (1, 29, 6), reason="no sticky sessions")
@pytest.mark.parametrize("when", ["", "header"], ids=["end", "header"])
@pytest.mark.parametrize("method", ["", "least_conn;"],
                         ids=["round-robin", "least-conn"])
def test_a_session_is_learned_from_the_second_attempt(stage, method, when):
    link = stage.link()
    second = stage.origin(name="second", link=link)
    scene = play(stage, close, link=link, answer=begin_session, http=f"""
        upstream app {{
            zone app 64k;
            {method}
            server %{{origin}} weight=3;
            server %{{second}};
            sticky learn zone=sessions:64k {when}
                   create=$upstream_http_x_session lookup=$http_x_session;
        }}
    """)
    scene.cross()
    scene.meet()
    assert scene.response().status == 200
    assert scene.received() == 1
    assert not scene.errors()
    # one in four of them would go to the other server
    for _ in range(8):
        scene.client.get("/y", "X-Session: one")
    assert scene.received("/y") == 8
    assert second.requests == []


@pytest.mark.skipif(version() < (1, 29, 6), reason="no sticky sessions")
def test_a_sticky_cookie_names_the_server_of_the_second_attempt(stage):
    scene = play(stage, close, http="""
        upstream app {
            zone app 64k;
            server %{origin} route=first;
            sticky cookie to;
        }
    """)
    scene.cross()
    scene.meet()
    response = scene.response()
    assert response.status == 200
    assert response.values("Set-Cookie") == ["to=first"]
    assert not scene.errors()


def test_the_client_has_gone_meanwhile(stage):
    """The peer that was held is given back all the same."""
    scene = play(stage, close, http="""
        upstream app { server %{origin} max_conns=1; }
    """, location=PASS + "myproxy_ignore_client_abort on;")
    scene.cross()
    scene.client.close()
    scene.link.release("b")
    scene.nginx.wait_log(SENT_AGAIN)
    scene.link.release("a")
    stage.wait_until(lambda: scene.received() and scene.origin.conns[1].sent)
    scene.settle()
    # nginx has seen it once it has answered another request
    assert scene.nginx.get(port="probe").status == 200
    assert scene.nginx.get("/y").status == 200


def test_next_upstream_timeout_has_passed(stage):
    """nginx gives up then; the peer that was held is given back."""
    scene = play(stage, close, http="""
        upstream app { server %{origin} max_conns=1; }
    """, location=PASS + "myproxy_next_upstream_timeout 1ms;"
                 "error_page 502 = /slow;", server="""
        location /slow { limit_rate 1; return 502; }
        location /other { myproxy_pass http://app; }
    """)
    scene.cross()
    scene.stage.let_pass(0.1)
    scene.link.release("b")
    scene.link.release("a")
    assert scene.client.read(1) == b"H"
    # though the request is not over, nothing is held
    assert scene.nginx.get("/other").status == 200
    assert not scene.nginx.logged(SENT_AGAIN)


# settings

def test_retry_off(stage):
    scene = play(stage, close, http="""
        upstream app { server %{origin}; reuse_retry off; }
    """)
    scene.cross()
    scene.link.release("b")
    assert scene.response().status == 502
    scene.link.release("a")
    assert scene.received() == 0
    assert scene.nginx.logged(r"\[error\].*prematurely closed")
    assert len(scene.nginx.logged(UNPROVEN)) == 1
    assert scene.nginx.status()["total"]["stale_requests"] == {
        "resent": 0, "unproven": 1, "not_resendable": 0, "resent_silent": 0}


@pytest.mark.parametrize("level, works", [
    ("reuse_retry off;", False), ("reuse_retry on;", True)])
def test_retry_is_inherited_from_http(stage, level, works):
    scene = play(stage, close, http=level + UP)
    scene.cross()
    scene.link.release("b")
    if works:
        scene.nginx.wait_log(SENT_AGAIN)
    else:
        scene.nginx.wait_log("prematurely closed")
    scene.link.release("a")
    assert scene.response().status == (200 if works else 502)


def test_a_body_that_was_not_buffered_is_gone(stage):
    """It is on a risky connection only if the limit is known."""
    scene = play(stage, close, http="""
        upstream app {
            server %{origin} max_fails=1 fail_timeout=1h;
            server 10.77.0.2:1 backup;
            reuse_expiry 1h;
        }
    """, location=PASS + "myproxy_request_buffering off;")
    scene.cross(body=b"0123456789" * 30000)
    scene.link.release("b")
    assert scene.response().status == 502
    scene.link.release("a")
    assert scene.received() == 0
    assert scene.nginx.logged(r"\[error\].*its body was not buffered")
    # the server has not failed
    assert scene.nginx.get("/y").status == 200


def test_a_body_that_is_not_buffered_gets_a_new_connection(stage):
    origin = stage.origin()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};"
                                 "myproxy_request_buffering off;")
    assert nginx.get("/").status == 200
    assert nginx.post("/", b"0123456789" * 30000).status == 200
    assert origin.carried == [1, 1]
    assert nginx.get("/").status == 200
    assert origin.connections == 2


def test_a_body_that_is_not_buffered_and_a_known_limit(stage):
    origin = stage.origin()
    nginx = stage.nginx(http="reuse_expiry 1h;",
                        location="myproxy_pass http://%{origin};"
                                 "myproxy_request_buffering off;")
    assert nginx.get("/").status == 200
    assert nginx.post("/", b"0123456789" * 30000).status == 200
    assert origin.carried == [2]
