"""tools/soak: everything at once for a while, and what makes it stop."""

import json
import re
import subprocess
import sys

import pytest

from harness import link, settings

LIB = str(settings.ROOT / "bench" / "lib")

sys.path.insert(0, LIB)

import ledger                                           # noqa: E402
import soak as soaked                                   # noqa: E402

sys.path.remove(LIB)

pytestmark = pytest.mark.skipif(
    settings.STOCK, reason="nginx's own proxy fails what ours does not")

#: Seconds of a run.
SECONDS = 30


def soak(*words):
    return subprocess.run(
        [settings.ROOT / "tools" / "soak", "--as-is", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=300 * settings.SCALE)


@pytest.mark.timeout(360 * settings.SCALE)
def test_everything_at_once(tmp_path):
    path = tmp_path / "soak.json"
    done = soak(str(SECONDS / 3600), "--json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No request was executed twice" in done.stdout
    found = json.loads(path.read_text())
    assert found["violation"] is None
    assert all(found["counts"][name] for name in ("kills", "reloads",
                                                  "restarts"))
    modes = found["modes"]
    assert all(row["answered"] > 0.5 * row["requests"] > 0
               for row in modes.values()), modes
    answered = sum(row["answered"] for row in modes.values())
    failed = sum(row["requests"] for row in modes.values()) - answered
    assert failed == sum(found["causes"].values()) > 0
    total = found["total"]
    assert total["connections"]["taken_over"] and total["attempts"]["warm"]
    if link.missing() is None:
        assert total["stale_requests"]["resent"] > 0


# what makes it stop

@pytest.fixture
def book(tmp_path):
    return ledger.Ledger(tmp_path / "ledger", create=True)


def one(tmp_path, **more):
    """A failure of the mode fin, and a Soak that has seen nothing else."""
    options = type("Options", (), {"seed": "1", "rtt": 10})
    made = soaked.Soak(options, tmp_path, None)
    failure = {"mode": "fin", "target": "/fin/7", "number": 7, "sent": 100.0,
               "got": 101.0, "client": ["127.4.0.1", 5000], "refused": False,
               "outcome": "502", "size": 200, **more}
    return made, failure


def test_a_failure_without_a_cause(tmp_path):
    made, failure = one(tmp_path)
    assert made.cause(failure) is None
    with pytest.raises(soaked.Violation, match="/fin/7 failed without a "
                                               "cause, executed 0 times"):
        made.account(failure)
    made, failure = one(tmp_path, outcome="timeout")
    made.restarted["fin"].append((99, 102))
    assert made.cause(failure) is None


def test_one_that_was_executed_and_answered(tmp_path):
    made, failure = one(tmp_path)
    made.restarted["fin"].append((99, 102))
    assert made.cause(failure) == "the origin restarted"
    made.book.execute(7)
    assert made.cause(failure) is None
    made.book.flag(7, ledger.DROPPED)
    assert made.cause(failure) == (
        "executed, and the origin ended the connection")


def test_restarts_of_another_time_or_origin(tmp_path):
    made, failure = one(tmp_path)
    made.restarted["fin"] += [(90, 99), (101.5, 102)]
    made.restarted["near"].append((99, 102))
    assert made.cause(failure) is None


def test_clients_whose_worker_was_killed(tmp_path):
    made, failure = one(tmp_path, outcome="closed")
    assert made.cause(failure) is None
    made.killed["127.4.0.1", 5000] = [(50.0, 50.1)]
    assert made.cause(failure) is None
    made.killed["127.4.0.1", 5001] = [(100.4, 100.5)]
    assert made.cause(failure) is None
    made.killed["127.4.0.1", 5000].append((99.0, 100.5))
    assert made.cause(failure) == "the worker was killed"


def test_requests_that_a_limit_refuses(tmp_path):
    made, failure = one(tmp_path, outcome="503", refused=True)
    assert made.cause(failure) == "refused by the limit"
    made.book.execute(7)
    assert made.cause(failure) is None


def test_a_request_that_the_origin_left_unread(tmp_path):
    made, failure = one(tmp_path)
    made.book.flag(7, ledger.UNREAD)
    assert made.cause(failure) == soaked.UNREAD


def test_a_body_whose_writing_met_the_end(tmp_path):
    made, failure = one(tmp_path, size=20000)
    said = ["... the request may have been received: ... while sending "
            "request to upstream ... POST /fin/7 HTTP/1.1"]
    made.nginx = type("Nginx", (), {"forget_log": lambda: said,
                                    "expected": []})
    assert "a write of the body" in made.cause(failure)
    assert made.cause({**failure, "size": 200}) is None
    assert made.cause({**failure, "target": "/fin/77"}) is None


def test_sums_that_do_not_hold():
    connections = {"opened": 3, "open": 1, "closed": 2,
                   "closed_by_reason": {"idle": 2}}
    requests = {"total": 9, "reused": 5, "warm": 1, "new": 3,
                "new_by_reason": {"empty": 3}}
    status = {"total": {"attempts": requests, "connections": connections},
              "upstreams": []}
    soaked.Soak.sums(status)
    requests["reused"] = 4
    with pytest.raises(soaked.Violation, match="all: requests are 9"):
        soaked.Soak.sums(status)


def test_an_execution_is_counted_once(book):
    assert [book.execute(5), book.execute(5), book.execute(6)] == [1, 2, 1]
    assert book.executions(4) == 0


def test_what_it_does_not_understand():
    for words in ((), ("0.1", "--posts", "5"), ("--posts", "many")):
        done = subprocess.run(
            [sys.executable, LIB + "/soak.py", *words], text=True,
            capture_output=True, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 2
        assert re.search("either hours or --posts|invalid int", done.stderr)
