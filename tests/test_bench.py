"""The benches: that they run, and that what they print is right."""

import json
import subprocess

import pytest

from harness import link, settings


@pytest.fixture(autouse=True)
def needed():
    """Skips where a bench cannot run."""
    if settings.STOCK:
        pytest.skip("compares the module with nginx's own")
    if settings.SANITIZED:
        pytest.skip("a sanitizer's module does not fit the bench's nginx")
    if link.missing() is not None:
        pytest.skip(link.missing())


def stale(tmp_path, *options):
    """bench/stale with few requests: (what it prints, what it writes)."""
    path = tmp_path / "stale.json"
    done = subprocess.run(
        [settings.ROOT / "bench" / "stale", "--as-is", "--quick",
         "--seed", "1", "--json", path, *options],
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=5 * settings.PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(path.read_text())


def test_stale_counts_what_becomes_of_each_request(tmp_path):
    text, found = stale(tmp_path, "--modes", "fin", "--requests", "240")

    assert "seed 1," in text
    assert "\n## fin: " in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in lines] == [
        "| contender", "|---" + 9 * "|---:" + "|", "| nginx proxy_pass",
        "| myproxy_pass"]
    assert len({line.count("|") for line in lines}) == 1

    assert found["seed"] == "1"
    assert [row["contender"] for row in found["rows"]] == ["stock", "ours"]
    for row in found["rows"]:
        assert row["mode"] == "fin"
        assert row["requests"] == 240
        assert row["answered"] + row["failed"] == 240
        assert row["failed_later"] <= row["failed"]
        assert row["answered"] <= row["executed"] <= 240
        assert row["executed"] + row["failed_unexecuted"] == 240
        assert row["executed_twice"] == 0
        assert row["connections"] >= 30
        assert sum(row["outcomes"].values()) == 240


def test_stale_sees_what_is_executed_twice(tmp_path):
    _, found = stale(tmp_path, "--modes", "dropped", "--requests", "150",
                     "--contenders", "stock-retry")
    row, = found["rows"]
    assert row["executed_twice"] > 0


def test_stale_says_which_contender_it_does_not_know(tmp_path):
    done = subprocess.run(
        [settings.ROOT / "bench" / "stale", "--as-is", "--contenders",
         "stock,other"], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False)
    assert done.returncode == 2
    assert "other: not one of stock,stock-retry," in done.stderr
