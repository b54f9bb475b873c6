"""examples/minimal, the upstream module of docs/for-authors.md: built as it
is, and as what defeats reuse.
"""

import fcntl
import os
import pathlib
import subprocess

import pytest

from harness import settings

TREE = pathlib.Path("/usr/share/nginx/src")
EXAMPLE = settings.ROOT / "examples/minimal"
REQUESTS = 5

pytestmark = pytest.mark.skipif(
    settings.NGINX != "/usr/sbin/nginx" or not TREE.exists(),
    reason="takes the installed nginx, and its source")

LOCATION = "minimal_pass app;"


VARIANTS = {"allows": "", "defeats": "-DMINIMAL_CLOSE"}


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Builds a variant, once for all processes that play tests."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def make(variant):
        directory = base / variant
        module = directory / "objs/ngx_http_minimal_module.so"
        with open(base / f"{variant}.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not module.exists():
                compile_to(directory, VARIANTS[variant])
        return module
    return make


def compile_to(directory, option):
    flags = f"-O1 -Wall -Wextra -Werror -Wno-unused-parameter {option}"
    for command in (
            [settings.ROOT / "tools/configure-nginx", TREE, directory,
             f"--add-dynamic-module={EXAMPLE}"],
            ["make", "-s", "-C", directory / "tree", "-f",
             "../objs/Makefile", "modules"]):
        subprocess.run(command, check=True, timeout=60 * settings.SCALE,
                       env={**os.environ, "CC_OPT": flags})


@pytest.fixture
def alone(monkeypatch):
    """Without our own modules."""
    monkeypatch.setattr(settings, "STOCK", True)


def start(stage, module, server="server %{origin};"):
    return stage.nginx(main=f"load_module {module};", location=LOCATION,
                       http=f"upstream app {{ {server} keepalive 4; }}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_connections(stage, alone, build, variant):
    defeats = (variant == "defeats")
    origin = stage.origin()
    nginx = start(stage, build(variant))
    for number in range(REQUESTS):
        assert nginx.get(f"/a%20b?{number}").status == 200
    assert origin.connections == (REQUESTS if defeats else 1)
    assert [request.target for request in origin.requests] == [
        f"/a%20b?{number}" for number in range(REQUESTS)]
    for request in origin.requests:
        assert request.header("Host") == "localhost"
        assert request.tokens("Connection") == (["close"] if defeats else [])


@pytest.fixture
def allows(build):
    return build("allows")


@pytest.mark.parametrize("response, body, kept", [
    (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokSTRAY", b"ok", False),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nSTRAY", b"", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
     b"ok", False),
], ids=["no-content", "empty", "excess", "excess-of-nothing", "http10",
        "close"])
def test_a_connection_is_kept_where_that_is_safe(
        stage, alone, allows, response, body, kept):
    origin = stage.origin([response, response])
    nginx = start(stage, allows)
    for _ in range(2):
        assert nginx.get().body == body
    assert origin.connections == (1 if kept else 2)


def test_a_body_without_length_ends_with_the_connection(stage, alone, allows):
    origin = stage.origin([b"HTTP/1.1 200 OK\r\n\r\nall of it", "close"])
    nginx = start(stage, allows)
    for _ in range(2):
        assert nginx.get().body == b"all of it"
    assert origin.connections == 2


@pytest.mark.parametrize("response", [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"nonsense\r\n\r\n"])
def test_what_it_does_not_understand_is_refused(
        stage, alone, allows, response):
    stage.origin([response])
    assert start(stage, allows).get().status == 502


def test_the_next_server_is_asked(stage, alone, allows):
    """The second response is read from its beginning."""
    stage.origin([b"HTTP/1.1 200 O", "close"], name="broken")
    stage.origin(name="sound")
    nginx = start(stage, allows,
                  server="server %{broken}; server %{sound} backup;")
    assert nginx.get().status == 200
