"""How a connection to the origin is made."""

import os
import pathlib
import time

import pytest

from harness import http1
from harness.nginx import version

PASS = "myproxy_pass http://%{origin};"

KEEPALIVE_TIMER = "02"


def noting(conn):
    conn.address = conn.sock.getpeername()[0]
    conn.serve()


def addresses(origin):
    return [conn.address for conn in origin.conns]


@pytest.mark.parametrize("bind", [
    "127.0.0.2", "$arg_from", "127.0.0.${arg_last}"])
def test_bind_chooses_the_local_address(stage, bind):
    origin = stage.origin(noting)
    nginx = stage.nginx(location=PASS + f"myproxy_bind {bind};")
    assert nginx.get("/?from=127.0.0.2&last=2").status == 200
    assert addresses(origin) == ["127.0.0.2"]


def test_bind_to_a_variable_that_is_empty_binds_nothing(stage):
    origin = stage.origin(noting)
    nginx = stage.nginx(location=PASS + "myproxy_bind $arg_from;")
    assert nginx.get().status == 200
    assert addresses(origin) == ["127.0.0.1"]


def test_bind_off_ends_what_the_outer_level_binds(stage):
    origin = stage.origin(noting)
    nginx = stage.nginx(http="myproxy_bind 127.0.0.2;",
                        location=PASS + "myproxy_bind off;")
    assert nginx.get().status == 200
    assert addresses(origin) == ["127.0.0.1"]


def test_bind_follows_the_variable(stage):
    origin = stage.origin(noting)
    nginx = stage.nginx(location=PASS + "myproxy_bind $arg_from;")
    for last in 2, 3, 3:
        nginx.get(f"/?from=127.0.0.{last}")
    assert addresses(origin) == ["127.0.0.2", "127.0.0.3"]
    assert origin.carried == [1, 2]


@pytest.mark.skipif(os.geteuid() != 0, reason="transparent takes root")
def test_bind_may_be_transparent(stage):
    """An address that is not the machine's, as on a router."""
    stage.origin()
    code, text = stage.config_test(
        location=PASS + "myproxy_bind $remote_addr transparent;")
    assert code == 0, text
    nginx = stage.nginx(
        location=PASS + "myproxy_bind $remote_addr transparent;")
    assert nginx.get().status == 200


@pytest.mark.parametrize("switch, timer", [("on", True), ("off", False)])
def test_socket_keepalive(stage, switch, timer):
    origin = stage.origin()
    nginx = stage.nginx(
        location=PASS + f"myproxy_socket_keepalive {switch};")
    assert nginx.get().status == 200
    theirs = origin.conns[0].sock.getpeername()[1]
    assert (timer_of(theirs, origin.port) == KEEPALIVE_TIMER) is timer


def timer_of(local, remote):
    """What the kernel has set on a connection between two ports."""
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(f.partition(":")[2], 16) for f in fields[1:3]]
        if ports == [local, remote]:
            return fields[5].partition(":")[0]
    raise AssertionError(f"no connection from {local} to {remote}")


@pytest.mark.skipif(version() < (1, 27), reason="no variables in limit_rate")
def test_limit_rate_may_be_a_variable(stage):
    origin = stage.origin(http1.response(body=b"x" * 30000))
    nginx = stage.nginx(location=PASS + "myproxy_limit_rate $arg_rate;"
                        "myproxy_buffers 4 4k;")
    began = time.monotonic()
    assert len(nginx.get("/?rate=20k").body) == 30000
    assert time.monotonic() - began > 0.4
    assert len(nginx.get("/").body) == 30000
    assert origin.carried == [2]
