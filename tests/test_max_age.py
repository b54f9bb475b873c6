"""reuse_max_age: connections end at an age that each draws for itself."""

import re
import time

import pytest

from harness import http1, settings
from harness.clock import Clock
from harness.warming import live, wait_idle
from harness.workers import Workers, waiting_origin

PASS = "myproxy_pass http://%{origin};"
APP = "myproxy_pass http://app;"
TLS_APP = "myproxy_pass https://app; myproxy_ssl_verify off;"
MANY = "keepalive_requests 1000000;"
UP = "upstream app {{ server %{{origin}}; {} }}"


def closed(nginx):
    found = nginx.status()["total"]["connections"]["closed_by_reason"]
    return {name: count for name, count in found.items() if count}


def wait_ended(stage, nginx, count):
    stage.wait_until(lambda: closed(nginx) == {"age": count},
                     what=f"{count} of that age")


@pytest.mark.parametrize("share", ["on", "off"])
@pytest.mark.parametrize("where", ["http", "upstream"])
def test_an_idle_one_ends(stage, where, share):
    """In the pool of its worker, and where all workers find it."""
    stage.origin()
    line = "reuse_max_age 1s;"
    http = UP.format(line if where == "upstream" else "")
    http += (line if where == "http" else "") + f"reuse_share {share};"
    nginx = stage.nginx(http=http, location=APP, workers=2)
    begun = time.monotonic()
    assert nginx.get().status == 200
    wait_ended(stage, nginx, 1)
    took = time.monotonic() - begun
    assert took > 0.85
    if settings.SCALE == 1:
        assert took < 2.5
    assert nginx.status()["total"]["connections"]["open"] == 0


def test_in_a_pass_without_a_block(stage):
    stage.origin()
    nginx = stage.nginx(http="reuse_max_age 500ms;", location=PASS)
    assert nginx.get().status == 200
    wait_ended(stage, nginx, 1)


def test_without_it_none_ends(stage):
    stage.origin()
    nginx = stage.nginx(http="reuse_max_age 300ms;"
                        + UP.format("reuse_max_age off;"), location=APP)
    assert nginx.get().status == 200
    stage.let_pass(1)
    assert closed(nginx) == {}


def test_an_idle_one_over_tls_ends(stage):
    origin = stage.origin(tls="app.test")
    nginx = stage.nginx(http=UP.format("reuse_max_age 500ms;"),
                        location=TLS_APP, workers=2)
    assert nginx.get().status == 200
    wait_ended(stage, nginx, 1)
    stage.wait_until(lambda: not live(origin))


def test_one_in_use_ends_after_its_request(stage):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(http=UP.format("reuse_max_age 500ms;"), location=APP)
    client = nginx.connect()
    client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: origin.requests)
    stage.let_pass(1)
    assert live(origin)
    gate.open()
    assert client.read_response().status == 200
    wait_ended(stage, nginx, 1)


def test_one_that_is_used_all_the_time_ends(stage):
    """It never fails a request."""
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_max_age 400ms;"), location=APP,
                        server=MANY)
    client = nginx.connect()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert client.get().status == 200
    assert 3 <= origin.connections <= 8
    assert set(closed(nginx)) == {"age"}


def test_the_fate_is_told(stage):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(
        http=UP.format("reuse_max_age 300ms;")
        + 'log_format fate "fate=$reuse_fate";',
        location=APP + "access_log %{prefix}/fate.log fate;")
    client = nginx.connect()
    client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: origin.requests)
    stage.let_pass(0.5)
    gate.open()
    assert client.read_response().status == 200
    with open(f"{nginx.prefix}/fate.log", encoding="ascii") as file:
        stage.wait_until(lambda: "fate=age" in file.read())


@pytest.mark.parametrize("share", ["on", "off"])
def test_they_never_end_together(stage, share):
    """Thirty that are opened at once, and end over half of the age."""
    ends = []

    def script(conn):
        conn.serve(answer)
        ends.append(time.monotonic())

    def answer(_):
        gate.wait()
        return http1.response()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(
        http=UP.format("keepalive 40; reuse_max_age 4s jitter=50%;")
        + f"reuse_share {share};", location=APP, workers=2)
    clients = [nginx.connect() for _ in range(30)]
    begun = time.monotonic()
    for client in clients:
        client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: len(origin.requests) == 30)
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    stage.wait_until(lambda: len(ends) == 30)
    assert closed(nginx) == {"age": 30}
    ages = [end - begun for end in ends]
    assert min(ages) > 1.8
    # drawn from two seconds; parked ones are looked at each half of one
    assert max(ages) - min(ages) > 0.7


def test_by_default_a_tenth_is_taken_off_at_most(stage):
    """Ages that were drawn, as the worker sets its timers."""
    origin, gate = waiting_origin(stage)
    clock = Clock(stage)
    workers = Workers(stage, APP, workers=1, env=clock.env, http=UP.format(
        "keepalive 100; keepalive_timeout 1h; reuse_max_age 1000s;"))
    workers.ask_at_once(60, origin, gate)
    workers.wait_open(60)
    clock.forward(890)
    workers.nginx.get(port="probe")
    stage.let_pass(0.2)
    assert closed(workers.nginx) == {}
    clock.forward(60)
    stage.wait_until(lambda: 0 < closed(workers.nginx).get("age", 0) < 60)
    clock.forward(60)
    stage.wait_until(lambda: closed(workers.nginx) == {"age": 60})


def test_the_age_goes_with_a_connection(stage):
    """From worker to worker it is the same one."""
    origin = stage.origin()
    workers = Workers(stage, APP, http=UP.format("reuse_max_age 2s;"))
    begun = time.monotonic()
    first, second = workers.nginx.workers()
    assert workers.how(first) == "new"
    for worker in (second, first, second):
        workers.wait_parked()
        assert workers.how(worker) == "shared"
    workers.wait_closed(age=1)
    assert time.monotonic() - begun > 1.7
    if settings.SCALE == 1:
        assert time.monotonic() - begun < 3.5
    assert origin.connections == 1


@pytest.mark.parametrize("before, after", [
    ("", "reuse_max_age 1s;"),
    ("reuse_max_age 1h;", "reuse_max_age 1s;"),
    ("reuse_max_age 2s;", "reuse_max_age 2s jitter=20%;")])
def test_a_reload_changes_it(stage, before, after):
    stage.origin()
    workers = Workers(stage, APP, http=UP.format(before))
    assert workers.nginx.get().status == 200
    workers.wait_parked()
    workers.nginx.reload(http=UP.format(after))
    workers.wait_closed(age=1)


@pytest.mark.parametrize("after", ["", "reuse_max_age 1h;"])
def test_a_reload_takes_it_away_from_what_nobody_uses(stage, after):
    origin = stage.origin()
    workers = Workers(stage, APP, http=UP.format("reuse_max_age 3s;"))
    assert workers.nginx.get().status == 200
    workers.wait_parked()
    workers.nginx.reload(http=UP.format(after))
    stage.let_pass(3.5)
    assert closed(workers.nginx) == {}
    assert workers.nginx.get().header("X-Connection") == "shared"
    assert origin.connections == 1


def test_then_it_ends_for_being_idle(stage):
    stage.origin()
    idle = "keepalive 4; keepalive_timeout 5s;"
    workers = Workers(stage, APP, http=UP.format(
        f"{idle} reuse_max_age 3s;"))
    begun = time.monotonic()
    assert workers.nginx.get().status == 200
    workers.wait_parked()
    workers.nginx.reload(http=UP.format(idle))
    workers.wait_closed(expired=1)
    assert time.monotonic() - begun > 4.5


def test_a_reload_takes_it_away(stage):
    origin = stage.origin()
    workers = Workers(stage, APP, http=UP.format("reuse_max_age 3s;"))
    assert workers.nginx.get().status == 200
    workers.wait_parked()
    workers.nginx.reload(http=UP.format(""))
    assert workers.nginx.get().header("X-Connection") == "shared"
    stage.let_pass(3.5)
    assert workers.nginx.get().header("X-Connection") == "shared"
    assert origin.connections == 1


@pytest.mark.parametrize("share", ["on", "off"])
@pytest.mark.parametrize("location, tls", [(APP, None), (TLS_APP, "app.test")],
                         ids=["plain", "tls"])
@pytest.mark.parametrize("line", ["reuse_max_age 2s;", "reuse_expiry 2s;"])
def test_warm_ones_are_replaced_before(stage, line, location, tls, share):
    """There is one for a request at any time, wherever they are."""
    origin = stage.origin(tls=tls)
    nginx = stage.nginx(
        http=UP.format("reuse_warm 4; " + line)
        + f"reuse_share {share};", location=location, workers=2)
    wait_idle(stage, nginx, 4)
    end = time.monotonic() + 6
    fewest = 4
    while time.monotonic() < end:
        found = nginx.status()["total"]["connections"]
        fewest = min(fewest, found["idle"])
        stage.let_pass(0.05)
    assert origin.connections >= 10
    reason = "age" if "age" in line else "expired"
    assert set(closed(nginx)) == {reason}
    # none is opened only to be closed at once
    assert 6 <= closed(nginx)[reason] <= 24
    if settings.SCALE == 1:
        assert fewest >= 3
    assert nginx.get().status == 200
    assert nginx.status()["total"]["attempts"]["warm"] == 1


def test_it_holds_beside_keepalive_time(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format(
        "keepalive 4; keepalive_time 300ms; keepalive_requests 1000000;"
        "reuse_max_age 1h;"), location=APP,
        server=MANY)
    client = nginx.connect()
    end = time.monotonic() + 1
    while time.monotonic() < end:
        assert client.get().status == 200
    assert origin.connections >= 2
    assert set(closed(nginx)) == {"time"}


@pytest.mark.parametrize("form", ["html", "prometheus"])
def test_it_is_shown(stage, form):
    stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_max_age 300ms;"), location=APP)
    assert nginx.get().status == 200
    wait_ended(stage, nginx, 1)
    text = nginx.get(f"/reuse-status?format={form}",
                     port="probe").body.decode()
    assert {"html": "it had the age at which",
            "prometheus": 'reason="age",by="nginx"} 1'}[form] in text


INVALID = 'it is "off" or the age, such as "10m"'


@pytest.mark.parametrize("line, error", [
    ("reuse_max_age 0;", 'invalid value "0" of "reuse_max_age": ' + INVALID),
    ("reuse_max_age soon;", 'invalid value "soon" of "reuse_max_age"'),
    ("reuse_max_age -1s;", 'invalid value "-1s" of "reuse_max_age"'),
    ("reuse_max_age 1m jitter=0%;", 'invalid value "jitter=0%"'),
    ("reuse_max_age 1m jitter=100%;", 'from "jitter=1%" to "jitter=99%"'),
    ("reuse_max_age 1m jitter=x;", 'invalid value "jitter=x"'),
    ("reuse_max_age 1m jitter=x%;", 'invalid value "jitter=x%"'),
    ("reuse_max_age 1m jitter=10;", 'invalid value "jitter=10"'),
    ("reuse_max_age 1m jitter=%;", 'invalid value "jitter=%"'),
    ("reuse_max_age 1m jitter=;", 'invalid value "jitter="'),
    ("reuse_max_age 1m 10%;", 'invalid value "10%"'),
    ("reuse_max_age off jitter=10%;", 'invalid value "jitter=10%"'),
    ("reuse_max_age 1m jitter=5% off;", "invalid number of arguments"),
    ("reuse_max_age;", "invalid number of arguments"),
    ("reuse_max_age 1m; reuse_max_age off;",
     '"reuse_max_age" directive is duplicate')])
@pytest.mark.parametrize("where", ["http", "upstream"])
def test_values_that_are_refused(stage, line, error, where):
    stage.origin()
    http = (line + UP.format("") if where == "http" else UP.format(line))
    code, told = stage.config_test(http=http, location=APP)
    assert code != 0
    assert error in told


@pytest.mark.parametrize("value, warned", [
    ("999ms", True), ("1ms jitter=50%", True), ("1s", False), ("1", False)])
@pytest.mark.parametrize("where", ["http", "upstream"])
def test_less_than_a_second_has_a_warning(stage, value, warned, where):
    stage.origin()
    line = f"reuse_max_age {value};"
    nginx = stage.nginx(location=APP, http=(
        line + UP.format("") if where == "http" else UP.format(line)))
    age = value.split()[0]
    text = (f'"reuse_max_age {age}" ends connections within a second, so that '
            'few are reused: write minutes, as in "reuse_max_age 10m"')
    assert len(nginx.logged(re.escape(text))) == warned
    shown = [one for one in nginx.status()["warnings"] if one.startswith(text)]
    assert len(shown) == warned


def test_the_least_age_works(stage):
    """Each request has a connection of its own, and none fails."""
    origin = stage.origin()
    nginx = stage.nginx(http=UP.format("reuse_max_age 1ms;"), location=APP)
    for number in range(1, 4):
        assert nginx.get().status == 200
        wait_ended(stage, nginx, number)
    assert origin.connections == 3
