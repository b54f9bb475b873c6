"""The benches: that they run, and that what they print is right."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from harness import link, settings

LIB = str(settings.ROOT / "bench" / "lib")
sys.path.insert(0, LIB)

import goals                                            # noqa: E402
import paced                                            # noqa: E402
import scene                                            # noqa: E402
import upset                                            # noqa: E402

sys.path.remove(LIB)


@pytest.fixture(autouse=True)
def needed():
    """Skips where a bench cannot run."""
    if settings.STOCK:
        pytest.skip("compares the module with nginx's own")
    if settings.SANITIZED:
        pytest.skip("a sanitizer's module does not fit the bench's nginx")
    if link.missing() is not None:
        pytest.skip(link.missing())


def run(bench, tmp_path, *options):
    """A bench with few requests: (what it prints, what it writes)."""
    path = tmp_path / f"{bench}.json"
    done = subprocess.run(
        [settings.ROOT / "bench" / bench, "--as-is", "--quick",
         "--json", path, *options],
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=12 * settings.PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(path.read_text())


def test_stale_counts_what_becomes_of_each_request(tmp_path):
    text, found = run("stale", tmp_path, "--seed", "1", "--modes", "fin",
                      "--requests", "240")

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
    _, found = run("stale", tmp_path, "--seed", "1", "--modes", "dropped",
                   "--requests", "150", "--contenders", "stock-retry")
    row, = found["rows"]
    assert row["executed_twice"] > 0


def test_stale_with_many_workers(tmp_path):
    text, found = run("stale", tmp_path, "--seed", "1", "--modes", "fin",
                      "--short", "100", "--requests", "120",
                      "--contenders", "stock", "--workers", "8")
    assert ", 8 workers each." in text
    assert found["workers"] == 8
    row, = found["rows"]
    assert row["answered"] == 120


def test_stale_says_which_contender_it_does_not_know(tmp_path):
    done = subprocess.run(
        [settings.ROOT / "bench" / "stale", "--as-is", "--contenders",
         "stock,other"], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False)
    assert done.returncode == 2
    assert "other: not one of stock,stock-retry," in done.stderr


def test_spread_tells_when_the_new_half_has_its_share(tmp_path):
    text, found = run("spread", tmp_path, "--seed", "1")
    assert "\n## least\n" in text
    rows = {row["contender"]: row for row in found["rows"]}
    assert list(rows) == ["ours", "ours-age"]
    assert rows["ours"]["after"] == "never"
    assert rows["ours"]["reached_s"] is None
    assert 2 <= rows["ours-age"]["reached_s"] <= 4
    assert rows["ours-age"]["connections"] > rows["ours"]["connections"]
    for row in rows.values():
        assert row["failed"] == 0
        assert row["requests"] > 1500
        assert row["shares"][-1][0] == 4


def test_cold_tells_who_waited_for_a_handshake(tmp_path):
    text, found = run("cold", tmp_path, "--modes", "plain", "--burst", "8",
                      "--contenders", "stock,ours", "--idle", "0.3",
                      "--pause", "0.5")

    assert "\n## plain: TCP\n" in text
    tables = [block.splitlines() for block in text.split("\n\n")
              if block.startswith("|")]
    assert [len(table) for table in tables] == [2 + 8, 2 + 2]
    for table in tables:
        assert len({line.count("|") for line in table}) == 1

    assert [(row["contender"], row["kind"]) for row in found["rows"]] == [
        (contender, kind) for contender in ("stock", "ours")
        for kind in ("first", "later", "reload", "restart")]
    for row in found["rows"]:
        assert row["mode"] == "plain"
        bursts = row["counted"] + row["disturbed"]
        assert row["wanted"] == 1
        assert 1 <= bursts <= 2
        assert row["requests"] == 8 * bursts
        # a stall may put the restart where the burst is
        assert row["failed"] == 0 or row["disturbed"], row
        # with neither warm connections nor idle ones, all must wait
        assert row["waited"] == 8 * bursts or row["failed"]
        assert len(row["latencies_ms"]) == 8 * row["counted"]
        if row["counted"]:
            assert 40 <= row["median_ms"] <= row["p99_ms"]
    for total in found["totals"]:
        assert 1 <= total["rounds"] <= 2
        own = [row for row in found["rows"]
               if row["contender"] == total["contender"]]
        assert total["requests"] == sum(row["requests"] for row in own)
        assert (total["connections"] == total["requests"]
                or any(row["failed"] for row in own))
        assert total["never_used"] == 0
        assert total["protocols"] == ["TCP"]


def test_cold_sees_connections_that_were_there(tmp_path):
    _, found = run("cold", tmp_path, "--modes", "tls", "--burst", "8",
                   "--contenders", "stock", "--idle", "60", "--pause", "0.1")
    waited = {row["kind"]: row["waited"] / row["requests"]
              for row in found["rows"]}
    # what was kept was closed by the reload, and by the restart
    assert waited == {"first": 1, "later": 0, "reload": 1, "restart": 1}
    assert found["totals"][0]["protocols"] == ["TLSv1.3"]


def test_cold_leaves_out_bursts_that_the_machine_disturbed(tmp_path):
    _, found = run("cold", tmp_path, "--modes", "plain", "--burst", "8",
                   "--contenders", "stock", "--idle", "0.3", "--pause", "0.5")

    for row in found["rows"]:
        disturbed = [echo > found["echo_ms_most"] or late
                     > found["late_ms_most"]
                     for echo, late in row["echo_and_late_ms"]]
        assert len(disturbed) == row["counted"] + row["disturbed"]
        assert sum(disturbed) == row["disturbed"]
        assert len(row["left_out_ms"]) == 8 * row["disturbed"]
        # an echo that was on its way takes no less than the link
        assert all(echo >= 20 for echo, _ in row["echo_and_late_ms"])
    assert found["echo_ms_most"] == 23


def test_cold_fails_where_the_goal_is_missed(tmp_path):
    done = subprocess.run(
        [settings.ROOT / "bench" / "cold", "--as-is", "--quick", "--check",
         "--modes", "plain", "--burst", "2", "--idle", "0.3", "--pause",
         "0.5", "--contenders", "stock"], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "plain, ours-auto, from the second on" in done.stdout


def test_mixed_counts_who_waited_in_two_ways(tmp_path):
    text, found = run("mixed", tmp_path, "--seed", "1", "--rate", "100",
                      "--contenders", "stock,ours")

    tables = [block.splitlines() for block in text.split("\n\n")
              if block.startswith("|")]
    assert [len(table) for table in tables] == [2 + 14, 2 + 2]
    phases = ["start", "steady", "bursts", "pauses", "reload", "restart",
              "all"]
    assert [(row["contender"], row["phase"]) for row in found["rows"]] == [
        (contender, phase) for contender in ("stock", "ours")
        for phase in phases]

    for first in (0, 7):
        *parts, whole = found["rows"][first:first + 7]
        for key in ("requests", "failed", "waited_by_log",
                    "waited_by_origin"):
            assert sum(part[key] for part in parts) == whole[key]
        # the restart may take requests with it that are on their way
        assert whole["failed"] <= whole["requests"] / 100
        assert 0 < whole["waited_by_log"] < whole["requests"]
    assert ([row["requests"] for row in found["rows"][:7]]
            == [row["requests"] for row in found["rows"][7:]])
    # a connection that the restart cut off while it was made has no time
    kinds = found["rows"][-1]["connection"]
    assert set(kinds) == {"new", "reused"}
    assert kinds["new"] > 0
    for cost in found["costs"]:
        assert 0 < cost["cpu_s"] < 10
        assert cost["connections"] >= 1
        assert cost["memory_end_mb"] >= cost["memory_mb"] > 1
        assert cost["descriptors"] > 4


def test_churn_looks_at_each_worker(tmp_path):
    """How much a worker has grown takes longer than this to tell."""
    text, found = run("churn", tmp_path)
    assert "| worker | RSS, kB, second fifth |" in text
    result, = found["results"]
    assert result["failed"] == 0
    assert [worker["worker"] for worker in result["workers"]] == [0, 1, 2, 3]
    for worker in result["workers"]:
        assert len(worker["samples"]) == 21
        assert worker["memory_before"] <= worker["memory_most"]
        # 20 connections, and they are replaced
        assert worker["descriptors_most"] > 20
    assert result["connections"] > 4 * 20 + 100


def test_workers_counts_connections_at_each_number_of_workers(tmp_path):
    text, found = run("workers", tmp_path, "--parts", "pace", "--workers",
                      "1,8", "--requests", "12", "--contenders", "stock")

    tables = [block.splitlines() for block in text.split("\n\n")
              if block.startswith("|")]
    assert [len(table) for table in tables] == [2 + 4, 2 + 2]
    rows = {(row["tls"], row["rate"], row["workers"]): row
            for row in found["pace"]}
    assert list(rows) == [(False, 4, 1), (False, 4, 8), (True, 4, 1),
                          (True, 4, 8), (False, 40, 1), (False, 40, 8)]
    for (_, rate, workers), row in rows.items():
        assert row["requests"] == (12 if rate == 4 else 400)
        assert row["failed"] == 0
        assert row["reuse_percent"] == round(
            100 - 100 * row["connections"] / row["requests"], 1)
        # spread over all of them, each of which has connections of its own
        assert row["served"] > 0.5 * paced.by_chance(workers,
                                                     row["requests"])
        assert row["connections"] >= row["served"]
    assert rows[False, 4, 1]["connections"] < 6
    assert "HAProxy takes no part" in text


def test_workers_sees_what_a_reload_costs(tmp_path):
    _, found = run("workers", tmp_path, "--parts", "reload", "--contenders",
                   "stock")
    for row in found["reload"]:
        assert row["failed"] == 0
        # new workers have none of what the old ones had
        assert row["generations"] >= 4 * row["times"]
        assert row["connections"] >= row["times"]
        assert row["waited"] >= row["times"]
    tcp, tls = found["reload"]
    assert not tcp["tls"] and tcp["full"] == "-"
    assert tls["tls"]
    assert tls["times"] <= tls["full"] <= tls["connections"]


def test_workers_accounts_for_those_that_are_killed(tmp_path):
    _, found = run("workers", tmp_path, "--parts", "kill", "--check",
                   "--contenders", "ours")
    row, = found["kill"]
    assert row["failed"] <= row["in_hands"]
    assert row["failed_others"] == 0
    assert row["times"] == 5
    assert row["opened"] == row["open"] + row["closed"] > 0
    assert row["opened"] <= row["connections"]
    assert {goal["holds"] for goal in found["goals"]} == {True}


def test_workers_with_many_servers(tmp_path):
    _, found = run("workers", tmp_path, "--parts", "servers", "--contenders",
                   "stock")
    row, = found["servers"]
    assert row["failed"] == 0
    assert row["requests"] == 500
    # each server is asked once a second, by any of eight workers
    assert 100 < row["connections"] < 500
    assert row["memory_most_mb"] >= row["memory_mb"]
    assert row["memory_mb"] > row["memory_own_mb"] > 0.1
    assert row["descriptors_most"] >= row["descriptors"] > 4


@pytest.mark.timeout(150 * settings.SCALE)
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2,
                    reason="no second core")
def test_workers_compares_a_connection_that_is_passed_on(tmp_path):
    _, found = run("workers", tmp_path, "--parts", "cpu", "--contenders",
                   "ours")
    *rows, single, moved = found["cpu"]
    assert [row["name"] for row in found["cpu"]] == [
        "kept", "same", "apart", "other", "single", "moved"]
    for row in rows:
        assert 1 < row["cpu_us"] < 5000
        assert row["requests"] == 2 * 320
        if shutil.which("valgrind"):
            assert 10000 < row["instructions"] < 200000
    for row in single, moved:
        assert 1 < row["cpu_us"] < 5000
        assert row["requests"] == 2 * 20
    assert [row["passed"] for row in found["cpu"][:3]] == [0, 0, 0]


def paced_row(contender, workers, connections, tls=False):
    return {"contender": contender, "tls": tls, "rate": 4,
            "workers": workers, "requests": 91, "failed": 0,
            "connections": connections}


def test_the_goals_of_many_workers():
    cells = [paced.Cell(tls, 4, 22, workers) for tls, workers
             in ((False, 1), (False, 64), (True, 64))]
    names = {"ours", "ours-auto", "haproxy-always"}

    def judged(ours, auto, auto_tls):
        found = [paced_row("haproxy-always", 64, 10),
                 paced_row("ours", 64, ours),
                 paced_row("ours-auto", 1, 20),
                 paced_row("ours-auto", 64, auto),
                 paced_row("ours-auto", 64, auto_tls, tls=True)]
        return [holds for holds, _ in paced.pace_goals(found, cells, names)]
    assert judged(20, 30, 182) == [True, True, True, True, True]
    assert judged(21, 31, 183) == [False, False, False, True, True]

    # what takes no part is not missed, what could not be measured is
    assert not list(paced.pace_goals([], cells, {"ours"}))
    assert [holds for holds, _ in paced.pace_goals([], cells, names)] == [
        None, None, None]


def test_the_goals_of_reloads():
    row = {"contender": "ours", "tls": False, "times": 60, "failed": 0,
           "connections": 2, "waited": 0, "full": "-"}
    assert all(holds for holds, _ in upset.reload_goals([row]))
    for key, value in (("failed", 1), ("connections", 3), ("waited", 1)):
        assert not all(holds for holds, _ in
                       upset.reload_goals([{**row, key: value}]))
    tls = {**row, "tls": True, "connections": 99, "waited": 99, "full": 0}
    assert all(holds for holds, _ in upset.reload_goals([tls]))
    assert not all(holds for holds, _ in
                   upset.reload_goals([{**tls, "full": 1}]))


def test_what_killed_workers_leave_behind():
    row = {"left_origin": 3, "left_proxy": 3, "descriptors_more": 3,
           "opened": 9, "open": 3, "closed": 6}
    assert not list(upset.leaks(row))
    for key, value in (("left_origin", 4), ("left_proxy", 4),
                       ("descriptors_more", 4), ("opened", 10),
                       ("open", 4)):
        assert list(upset.leaks({**row, key: value})), key


def test_a_port_that_is_held_is_nobody_elses():
    with scene.held_port() as port:
        with pytest.raises(OSError), socket.socket() as other:
            other.bind(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)) as server:
            client = socket.create_connection(("127.0.0.1", port))
            server.accept()[0].close()
            client.close()


@pytest.mark.parametrize("lost", ["ours", "stock"])
def test_a_goal_of_what_could_not_be_measured(lost):
    """The row is there, without the numbers."""
    row = {"what": "lines", "instructions": {1: 9, 2: 9}, "calls": 9,
           "factor": 1, "growth": 1, "growth_of_malloc": 0}
    rows = []
    for name in ("ours", "stock"):
        for method in ("GET", "POST"):
            made = {"contender": name, "method": method, "what": "lines"}
            rows.append(made if name == lost else {**row, **made})
    found = [*goals.of_counts(rows, 50), *goals.of_growth(rows, ["lines"]),
             *goals.of_load([], {"small": (8,)})]
    assert len(found) == 4 + 1 + 2
    assert all(holds is None for holds, _ in found)
    assert all(line.endswith(": not measured") for line in goals.lines(found))


def test_a_process_without_a_report():
    process = scene.Process(["echo", "ready"])
    with pytest.raises(scene.Failure, match="ended without a report"):
        process.finish()


needs_run = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("wrk", "valgrind", "strace"))
    or len(os.sched_getaffinity(0)) < 2,
    reason="no wrk, valgrind or strace, or no second core")


@needs_run
def test_run_tells_what_a_request_costs(tmp_path):
    copy = tmp_path / "run.md"
    text, found = run("run", tmp_path, "--markdown", copy)

    assert copy.read_text() == text
    tables = [block.splitlines() for block in text.split("\n\n")
              if block.startswith("|")]
    assert [len(table) for table in tables] == [2 + 4, 2 + 4, 2 + 4, 2 + 2]
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert not found["not_measured"]

    assert [(row["case"], row["contender"]) for row in found["load"]] == [
        (case, contender) for case in ("small", "post-1k")
        for contender in ("stock", "stock-defaults", "ours", "none")]
    for row in found["load"]:
        assert row["failed"] == 0
        assert row["rate"] > 100
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        if row["contender"] != "none":
            assert 1 < row["cpu_us"] < 1000
            assert 0 < row["busy_percent"] <= 110

    for row in found["counts"]:
        assert 10000 < row["instructions"] < 100000
        assert 5 < row["calls"] < 15
        assert abs(row["by_name"]["writev"]
                   + row["by_name"].get("sendto", 0) - 2) < 0.1
    for row in found["memory"]:
        assert 0 < row["idle_heap"] < row["in_flight_heap"] < 30000
        assert 0 < row["idle_rss"] < 30000

    # system calls are what time and instructions are not: the same each time
    judged = {goal["about"]: goal["holds"] for goal in found["goals"]}
    assert None not in judged.values()
    calls = [about for about in judged if about.startswith("system calls")]
    assert len(calls) == 2
    assert all(judged[about] for about in calls)
    for goal in found["goals"]:
        word = "holds" if goal["holds"] else "misses"
        assert f"- {word}: {goal['about']}" in text


@needs_run
def test_run_counts_the_same_twice(tmp_path):
    counts = []
    for _ in range(2):
        _, found = run("run", tmp_path, "--parts", "2")
        counts.append([row["instructions"] for row in found["counts"]])
    for first, second in zip(*counts):
        assert abs(first - second) < first / 50


@needs_run
def test_run_sees_what_grows(tmp_path):
    _, found = run("run", tmp_path, "--parts", "3", "--grows", "lines")
    stock, ours = found["growth"]
    assert stock["contender"] == "stock"
    assert list(stock["instructions"]) == ["1", "4", "16", "64"]
    assert list(ours["instructions"]) == ["1", "4", "16", "64"]
    # each line is sent, so each takes something
    assert stock["growth"] > 63 * 50
    assert stock["factor"] > 1.1
    assert 0.9 < ours["factor"]
    for row in (stock, ours):
        for size, count in row["instructions"].items():
            assert 100 < row["of_malloc"][size] < count / 2


def test_limit_counts_connections(tmp_path):
    _, found = run("limit", tmp_path, "--contenders", "ours", "--requests",
                   "400", "--workers", "2", "--clients", "20", "--limit", "4",
                   "--delay", "2")
    row, = found["rows"]
    assert (row["requests"], row["failed"]) == (400, 0)
    assert 1 <= row["most"] <= 4
