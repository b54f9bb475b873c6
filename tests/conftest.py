"""Fixtures: the stage of each scenario."""

import ipaddress
import socket

import pytest

from harness import settings, tls
from harness.nginx import relative
from harness.stage import Stage

STAGE = pytest.StashKey()
TIMEOUT = 60


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """The CA of this test process (see harness/tls.py)."""
    return tls.Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def stage(request, authority):
    """What the scenario is played on (see harness/stage.py)."""
    stage = Stage(authority)
    request.node.stash[STAGE] = stage
    try:
        yield stage
    finally:
        stage.close()
    stage.check()


@pytest.fixture
def ipv6():
    """Skips the test where there is no IPv6 loopback."""
    loopback = str(ipaddress.IPv6Address(1))
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind((loopback, 0))
    except OSError:
        pytest.skip("no IPv6 here")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the exchange and the log of a scenario that failed."""
    report = (yield).get_result()
    stage = item.stash.get(STAGE, None)
    if report.failed and stage is not None:
        for title, text in stage.report():
            report.sections.append((title, text))


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT * settings.SCALE))
