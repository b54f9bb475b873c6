"""tools/scenarios: what failed is played once more, alone."""

import subprocess

import pytest

from harness import settings

TESTS = """
import pathlib
import pytest

HERE = pathlib.Path(__file__).parent


def test_that_is_steady():
    pass


@pytest.mark.parametrize("number", range({unsteady}))
def test_that_is_not(number):
    mark = HERE / str(number)
    failed = mark.exists()
    mark.touch()
    assert failed


@pytest.mark.skipif({bad!r} == 0, reason="not this time")
def test_that_fails():
    assert False


@pytest.fixture
def ends():
    yield
    mark = HERE / "end"
    ended = mark.exists()
    mark.touch()
    assert ended or not {error!r}, {error!r}


def test_that_ends(ends):
    pass
"""


@pytest.mark.parametrize("unsteady, bad, error, status, told", [
    (0, 0, "", 0, 0),
    (1, 0, "", 0, 1),
    (5, 0, "", 0, 5),
    (6, 0, "", 1, 0),
    (1, 1, "", 1, 0),
    (0, 1, "", 1, 0),
    (0, 0, "the origin", 0, 1),
    (1, 0, "in nginx's log", 1, 0),
    (0, 0, "in nginx's log", 1, 0),
])
def test_what_is_final(tmp_path, unsteady, bad, error, status, told):
    file = tmp_path / "test_these.py"
    file.write_text(TESTS.format(unsteady=unsteady, bad=bad, error=error))
    found = subprocess.run(
        [settings.ROOT / "tools/scenarios", "-q", file], text=True,
        capture_output=True, cwd=tmp_path)
    assert found.returncode == status, found.stdout + found.stderr
    assert found.stdout.count("unsteady, passed alone") == told
