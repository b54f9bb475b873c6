"""./run: the ports that it takes."""

import contextlib
import random
import re
import socket
import subprocess

import pytest

from harness import settings

RUN = settings.ROOT / "run"

pytestmark = [
    pytest.mark.timeout(300 * settings.SCALE),
    pytest.mark.skipif(
        settings.STOCK or settings.PRELOAD or settings.MODULE
        != str(settings.ROOT / "build/ngx_http_myproxy_module.so"),
        reason="./run builds the module for Debian's nginx"),
]


def run(*args):
    return subprocess.run(
        [RUN, "--once", "--requests", "40", *args], capture_output=True,
        text=True, stdin=subprocess.DEVNULL, check=False,
        timeout=240 * settings.SCALE)


@contextlib.contextmanager
def occupied(port, listens=True):
    """A port that someone has, who may not listen there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port))
        if listens:
            sock.listen()
        yield sock.getsockname()[1]


@pytest.mark.parametrize("listens", [True, False])
def test_the_next_free_ports_are_taken(listens):
    with contextlib.ExitStack() as stack:
        # another has it if we cannot have it
        with contextlib.suppress(OSError):
            stack.enter_context(occupied(8080, listens))
        done = run()
    assert done.returncode == 0, done.stderr
    first, last = re.search(r"Port 8080 or one behind it is in use: took "
                            r"(\d+) to (\d+)\.", done.stdout).groups()
    assert 8080 < int(first) == int(last) - 2
    assert f"http://127.0.0.1:{last}, by the same nginx" in done.stdout
    assert "requests that reused one" in done.stdout


def test_it_says_what_it_is_doing():
    done = run()
    assert done.returncode == 0, done.stderr
    said = [done.stdout.index(text) for text in (
        "Building the module", "by the same nginx",
        "proxy_pass is as it is without any setting", "one after another")]
    assert said[0] == 0
    assert said == sorted(said)


@pytest.mark.parametrize("listens", [True, False])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_port_that_was_chosen_must_be_free(which, listens):
    with occupied(0, listens) as port:
        done = run("--port", str(port - which))
    assert done.returncode == 1
    named, = re.findall(r"^run: port (\d+) is in use; choose another with "
                        r"--port\n$", done.stderr)
    # one before it may be in use as well
    assert port - which <= int(named) <= port


def test_the_ports_that_were_chosen_are_taken():
    for _ in range(5):
        # below those that the kernel gives to clients
        port = random.randrange(20000, 32000)
        done = run("--port", str(port))
        if "is in use" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    assert f"http://127.0.0.1:{port + 2}, by the same nginx" in done.stdout
    assert "took" not in done.stdout


def test_an_origin_whose_certificate_nobody_trusts(stage):
    origin = stage.origin(tls="localhost")
    done = run(f"https://localhost:{origin.port}")
    assert done.returncode == 1
    assert "myproxy_pass would not trust the certificate" in done.stderr
    assert "certificate" in done.stderr.partition("does not: ")[2]
