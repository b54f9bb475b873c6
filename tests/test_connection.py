"""How a connection to the origin is made."""

import os
import pathlib
import re
import subprocess
import time

import pytest

from harness import http1, settings
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
        http="" if settings.STOCK else "reuse_probe off;",
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


def buffers_of(local):
    """The sizes that the kernel has for a connection from a local port."""
    found = subprocess.run(["ss", "-tmnH", f"sport = :{local}"], text=True,
                           capture_output=True, check=True).stdout
    memory = re.search(r"skmem:\(r\d+,rb(\d+),t\d+,tb(\d+)", found)
    assert memory, found
    return int(memory[1]), int(memory[2])


@pytest.mark.skipif(version() < (1, 31, 3), reason="no buffers of sockets")
@pytest.mark.parametrize("number, directive", [
    (0, "myproxy_socket_rcvbuf"), (1, "myproxy_socket_sndbuf")])
def test_socket_buffers(stage, number, directive):
    """The kernel doubles what it is told, see socket(7)."""
    origins = [stage.origin(name=to) for to in ("outer", "own", "none")]
    nginx = stage.nginx(server=f"""
        {directive} 20k;
        location /outer {{ myproxy_pass http://%{{outer}}; }}
        location /own {{ myproxy_pass http://%{{own}};
                         {directive} 24k; }}
        location /none {{ myproxy_pass http://%{{none}};
                          {directive} 0; }}
        """)
    sizes = []
    for origin in origins:
        assert nginx.get(f"/{origin.name}").status == 200
        sizes.append(buffers_of(origin.conns[0].sock.getpeername()[1]))
    assert [size[number] for size in sizes[:2]] == [40960, 49152]
    assert sizes[2][number] not in (40960, 49152)
    assert all(size[1 - number] not in (40960, 49152) for size in sizes)


@pytest.mark.skipif(version() < (1, 31, 3), reason="no buffers of sockets")
def test_socket_buffers_of_a_connection_that_is_opened_ahead(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http="upstream app { server %{origin}; reuse_warm 1; }",
        location="myproxy_pass http://app;"
                 "myproxy_socket_rcvbuf 20k; myproxy_socket_sndbuf 24k;")
    stage.wait_until(lambda: origin.connections == 1)
    assert nginx.get().status == 200
    assert origin.conns[0].requests
    assert buffers_of(origin.conns[0].sock.getpeername()[1]) == (40960, 49152)


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
