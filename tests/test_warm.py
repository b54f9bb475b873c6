"""Connections are there before they are needed."""

import time

import pytest

from harness import http1, settings, tls

UP = "upstream app {{ server %{{origin}}; {} }}"
PASS = "myproxy_pass http://app;"
TLS_PASS = "myproxy_pass https://app; myproxy_ssl_verify off;"


def live(origin):
    """The connections that nobody has closed."""
    return [conn for conn in origin.conns if not conn.closed]


def warm(stage, origin, count):
    """Once so many are open."""
    stage.wait_until(lambda: len(live(origin)) >= count,
                     what=f"{count} connections")


@pytest.mark.parametrize("secure", [None, "localhost"])
def test_so_many_are_there_before_a_request(stage, secure):
    origin = stage.origin(tls=secure)
    nginx = stage.nginx(http=UP.format("reuse_warm 5;"),
                        location=TLS_PASS if secure else PASS)
    warm(stage, origin, 5)
    assert nginx.get().status == 200
    assert sum(origin.carried) == 1
