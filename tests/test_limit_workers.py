"""Workers that end, and what a limit on connections makes of it."""

import signal
import threading
import time

from harness import http1, settings
from harness.secured import NAME
from harness.workers import WHO, waiting_origin
from test_limit import (APP, PASS, Watch, ask_in_crowd, limited, queue, send,
                        wait_queued, watched_origin)

TLS = "myproxy_pass https://app; myproxy_ssl_verify off;"


def one_by_one(nginx, *workers):
    """Have only these workers accept what comes next."""
    for pid in nginx.workers():
        if pid not in workers:
            nginx.pause_worker(pid)


def resume(nginx):
    for pid in nginx.workers():
        nginx.resume_worker(pid)


def send_to(nginx, worker, target="/"):
    one_by_one(nginx, worker)
    return send(nginx, target)


# TLS

def test_idle_ones_over_tls_are_closed_elsewhere(stage):
    watch = Watch()
    origin = watched_origin(stage, watch, tls=NAME)
    workers = limited(stage, 1, workers=2, location=TLS)
    one, other = workers.nginx.workers()
    assert workers.how(one) == "new"
    assert workers.closed == {}
    client = send_to(workers.nginx, other)
    wait_queued(stage, workers.nginx, 1)
    wait_time = time.monotonic()
    resume(workers.nginx)
    assert client.read_response().status == 200
    assert time.monotonic() - wait_time < 0.9
    assert origin.connections == 2
    assert watch.most == 1
    workers.wait_closed(limit=1)


def test_there_are_never_more_over_tls(stage):
    watch = Watch()
    watched_origin(stage, watch, delay=0.002, tls=NAME)
    nginx = stage.nginx(
        location=TLS, workers=4, http=APP.format("reuse_limit 3 queue=500;"))
    results = ask_in_crowd(nginx, 16, 10)
    assert [status for status, _ in results] == [200] * 160
    assert watch.most <= 3


# who dies

def test_a_killed_worker_gives_its_connections_back(stage):
    origin, gate = waiting_origin(stage)
    workers = limited(stage, 2, workers=2)
    nginx = workers.nginx
    nginx.expect_kills()
    one, other = nginx.workers()
    dead = [send_to(nginx, one, "/wait") for _ in range(2)]
    stage.wait_until(lambda: len(origin.requests) == 2)
    resume(nginx)
    alive = [send_to(nginx, other) for _ in range(3)]
    wait_queued(stage, nginx, 3)
    nginx.kill_worker(one)
    for client in alive:
        assert client.read_response().status == 200
    workers.wait_new(one)
    gate.open()
    for client in dead:
        client.close()
    assert ask_in_crowd(nginx, 4, 5)
    found = nginx.status()["total"]["connections"]
    assert found["open"] <= 2
    assert found["closed_by_reason"]["crash"] == 2


def test_requests_of_a_killed_worker_leave_the_queue(stage):
    origin, gate = waiting_origin(stage)
    workers = limited(stage, 1, workers=2)
    nginx = workers.nginx
    nginx.expect_kills()
    one, other = nginx.workers()
    first = send_to(nginx, other, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    resume(nginx)
    dead = [send_to(nginx, one) for _ in range(3)]
    wait_queued(stage, nginx, 3)
    resume(nginx)
    alive = [send_to(nginx, other) for _ in range(2)]
    wait_queued(stage, nginx, 5)
    nginx.kill_worker(one)
    resume_if_alive(nginx)
    workers.wait_new(one)
    wait_queued(stage, nginx, 2)
    gate.open()
    assert first.read_response().status == 200
    for client in alive:
        assert client.read_response().status == 200
    for client in dead:
        client.close()
    assert origin.connections == 1


def test_requests_of_a_terminated_worker_leave_the_queue(stage):
    """It was to end after a reload, and was told to end at once."""
    origin, gate = waiting_origin(stage)
    workers = limited(stage, 1, workers=1)
    nginx = workers.nginx
    nginx.expect_log("open socket|aborting")
    old, = nginx.workers()
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    nginx.reload()
    stage.wait_until(lambda: len(nginx.workers()) == 2)
    nginx.kill_worker(old, signal.SIGTERM)
    stage.wait_until(lambda: old not in nginx.workers())
    gate.open()
    assert nginx.get().status == 200
    assert queue(nginx)["waiting"] == 0
    first.close()
    second.close()


def test_a_request_that_waits_does_not_outlive_the_shutdown_timeout(stage):
    """Core ends all connections then, that of the wait among them."""
    origin, gate = waiting_origin(stage)
    workers = limited(stage, 1, workers=1)
    nginx = workers.nginx
    old, = nginx.workers()
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    second = send(nginx)
    wait_queued(stage, nginx, 1)
    nginx.reload()
    stage.wait_until(lambda: old not in nginx.workers())
    gate.open()
    assert nginx.get().status == 200
    assert len(origin.requests) == 2
    assert queue(nginx)["waiting"] == 0
    first.close()
    second.close()


def test_a_client_is_told_of_the_shutdown_timeout(stage):
    """If core meets the connection of the wait before the client's."""
    origin, gate = waiting_origin(stage)
    nginx = limited(stage, 1, workers=1, shutdown="300ms",
                    server="location = /quick { return 204; }").nginx
    old, = nginx.workers()
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    before, second = nginx.connect(), nginx.connect()
    assert before.get("/quick").status == 204
    assert second.get("/quick").status == 204
    before.close()
    nginx.wait_log("closed keepalive connection")
    # core gives the wait what the other client has left
    second.send(http1.request("GET", "/"))
    wait_queued(stage, nginx, 1)
    nginx.reload()
    response = second.read_response()
    assert response.status == 503
    assert response.header("Retry-After") == "5"
    assert nginx.logged("request refused: the worker process ends, and no "
                        'connection to upstream "app" was free')
    stage.wait_until(lambda: old not in nginx.workers())
    gate.open()
    assert queue(nginx)["waiting"] == 0
    first.close()


def test_too_many_old_workers_leave_one_that_refuses(stage):
    """Each has something that wakes it, and there are 10 for one worker."""
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(
        shutdown="60s", http=APP.format("reuse_limit 20;"),
        location=WHO + PASS, server="location = /other { %s }" % (
            "myproxy_pass http://%{origin};"))
    told = "cannot have requests wait for \"reuse_limit\" and refuses them"
    nginx.expect_log(told)
    clients = []
    for number in range(1, 11):
        clients.append(send(nginx, "/wait"))
        stage.wait_until(lambda: len(origin.requests) == number)
        assert not nginx.logged(told)
        nginx.reload(http=APP.format("reuse_limit %d;" % (
            10 if number == 10 else 20)))
    newest = max(nginx.workers())
    assert f" {newest}#" in nginx.wait_log(told)[0]
    assert nginx.get().status == 503
    assert nginx.logged("request refused: .* cannot have requests wait")
    assert nginx.status()["total"]["queue"]["refused"] == {
        "full": 1, "timeout": 0}
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    stage.wait_until(lambda: nginx.workers() == [newest])
    assert nginx.get().status == 200


def test_a_configuration_without_http_in_between(stage):
    origin = stage.origin()
    workers = limited(stage, 1, workers=2)
    nginx = workers.nginx
    assert nginx.get().status == 200
    workers.wait_parked()
    old = nginx.workers()
    nginx.write("nginx.conf", nginx.text[:nginx.text.index("http {")])
    nginx.send_signal(signal.SIGHUP)
    stage.wait_until(lambda: len(nginx.workers()) == 2
                     and not set(old) & set(nginx.workers()))
    # nobody looks after what was parked
    stage.wait_until(lambda: origin.conns[0].closed)
    between = nginx.workers()
    nginx.apply_config()
    stage.wait_until(lambda: not set(between) & set(nginx.workers()))
    workers.wait_new(*between)
    first, second = nginx.workers()
    assert workers.how(first) == "new"
    workers.wait_parked()
    assert workers.how(second) == "shared"
    assert origin.connections == 2


def resume_if_alive(nginx):
    for pid in nginx.workers():
        try:
            nginx.resume_worker(pid)
        except ProcessLookupError:
            pass


def test_a_worker_that_hangs_does_not_hold_up_the_others(stage):
    """The first of all who wait is one of its requests."""
    origin, gate = waiting_origin(stage)
    workers = limited(stage, 1, workers=2)
    nginx = workers.nginx
    one, other = nginx.workers()
    first = send_to(nginx, other, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    resume(nginx)
    late = send_to(nginx, one, "/late")
    wait_queued(stage, nginx, 1)
    resume(nginx)
    nginx.pause_worker(one)
    others = [send(nginx, "/1")]
    wait_queued(stage, nginx, 2)
    gate.open()
    assert first.read_response().status == 200
    others.append(send(nginx, "/2"))
    for client in others:
        assert client.read_response().status == 200
    nginx.resume_worker(one)
    assert late.read_response().status == 200
    assert [request.target for request in origin.requests] == [
        "/wait", "/1", "/2", "/late"]
    assert queue(nginx)["waiting"] == 0


def test_workers_are_killed_all_the_time(stage):
    """None of the connections, and nobody who waits, is lost."""
    watch = Watch()
    watched_origin(stage, watch, delay=0.002)
    workers = limited(stage, "3 queue=500", workers=3)
    nginx = workers.nginx
    nginx.expect_kills()
    statuses = []

    def ask():
        for _ in range(60):
            try:
                statuses.append(nginx.get().status)
            except Exception:  # pylint: disable=broad-except
                statuses.append(0)

    crowd = [threading.Thread(target=ask, daemon=True) for _ in range(12)]
    for thread in crowd:
        thread.start()
    for _ in range(6):
        before = len(statuses)
        stage.wait_until(lambda: len(statuses) > before + 30
                         or not any(one.is_alive() for one in crowd))
        victim = nginx.workers()[0]
        nginx.kill_worker(victim)
        stage.wait_until(lambda: victim not in nginx.workers())
    for thread in crowd:
        thread.join(60 * settings.SCALE)
        assert not thread.is_alive()
    assert set(statuses) <= {200, 0}
    assert watch.most <= 3
    workers.wait_new()
    results = ask_in_crowd(nginx, 8, 10)
    assert {status for status, _ in results} == {200}
    assert watch.most <= 3
    assert queue(nginx)["waiting"] == 0
    assert nginx.status()["total"]["connections"]["open"] <= 3


# who is replaced

def test_a_reload_loses_nobody(stage):
    origin, gate = waiting_origin(stage)
    workers = limited(stage, 1, workers=2)
    nginx = workers.nginx
    old = nginx.workers()
    first = send(nginx, "/wait")
    stage.wait_until(lambda: len(origin.requests) == 1)
    before = [send(nginx, f"/{number}") for number in range(3)]
    wait_queued(stage, nginx, 3)
    nginx.reload()
    stage.wait_until(lambda: len(set(nginx.workers()) - set(old)) == 2)
    after = [send(nginx, f"/{number}") for number in range(3, 6)]
    wait_queued(stage, nginx, 6)
    gate.open()
    assert first.read_response().status == 200
    for client in before + after:
        assert client.read_response().status == 200
    assert origin.connections == 1
    assert queue(nginx)["waiting"] == 0


def test_old_workers_serve_many(stage):
    """One after the other, and not one a second."""
    origin, gate = waiting_origin(stage)
    nginx = limited(stage, 1, workers=2).nginx
    clients = [send(nginx, "/wait")]
    stage.wait_until(lambda: len(origin.requests) == 1)
    clients += [send(nginx) for _ in range(6)]
    wait_queued(stage, nginx, 6)
    nginx.reload()
    begun = time.monotonic()
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    if settings.SCALE == 1:
        assert time.monotonic() - begun < 0.9


def test_two_zones_have_the_same_sockets(stage):
    """After a reload with another size, requests wait in both of them."""
    origin, gate = waiting_origin(stage)
    limit = APP.format("reuse_limit 1;")
    nginx = stage.nginx(location=PASS, workers=2,
                        http="reuse_zone 1m;" + limit)
    clients = []
    for number, size in enumerate(["1m", "2m"]):
        if number:
            nginx.reload(http=f"reuse_zone {size};" + limit)
        clients.append(send(nginx, "/wait"))
        stage.wait_until(lambda: len(origin.requests) == number + 1)
        clients += [send(nginx) for _ in range(6)]
        wait_queued(stage, nginx, 6)
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    assert queue(nginx)["waiting"] == 0


def test_reloads_all_the_time(stage):
    watch = Watch()
    watched_origin(stage, watch, delay=0.002)
    workers = limited(stage, "3 queue=500", workers=2)
    nginx = workers.nginx
    results = []
    crowd = threading.Thread(
        target=lambda: results.extend(ask_once(nginx, 10, 60)), daemon=True)
    crowd.start()
    for _ in range(4):
        old = nginx.workers()
        nginx.reload()
        stage.wait_until(lambda: not set(old) & set(nginx.workers()))
    crowd.join(60 * settings.SCALE)
    assert results == [200] * 600
    assert watch.most <= 3
    assert queue(nginx)["waiting"] == 0


def ask_once(nginx, threads, requests):
    statuses = []

    def ask():
        for _ in range(requests):
            statuses.append(nginx.get().status)

    crowd = [threading.Thread(target=ask, daemon=True)
             for _ in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    return statuses


# who is fair

def test_nobody_starves(stage):
    watch = Watch()
    watched_origin(stage, watch, delay=0.01)
    nginx = stage.nginx(location=PASS, workers=4,
                        http=APP.format("reuse_limit 4;"))
    results = ask_in_crowd(nginx, 40, 10)
    assert {status for status, _ in results} == {200}
    times = sorted(seconds for _, seconds in results)
    mean = sum(times) / len(times)
    assert watch.most <= 4
    assert times[-1] < 3 * mean + 0.2 * settings.SCALE


def test_who_waits_costs_no_polling(stage):
    """A worker sleeps, but for a look once a second."""
    origin, gate = waiting_origin(stage)
    nginx = limited(stage, 1).nginx
    worker, = nginx.workers()

    def wakes():
        with open(f"/proc/{worker}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file
                        if line.startswith("voluntary_ctxt_switches"))

    clients = [send(nginx, "/wait")]
    stage.wait_until(lambda: len(origin.requests) == 1)
    clients += [send(nginx) for _ in range(20)]
    wait_queued(stage, nginx, 20)
    stage.let_pass(0.2)
    before = wakes()
    stage.let_pass(2)
    assert wakes() - before <= 8
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
