"""tools/versions: the module on many versions of nginx, as a table."""

import importlib.machinery
import importlib.util
import shutil
import subprocess
import sys

import pytest

from harness import nginx, settings, tables

TOOL = settings.ROOT / "tools/versions"

#: What pytest writes for tests of each kind; one has failed at its end too.
REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_one"/>
<testcase classname="tests.test_b" name="test_one"/>
<testcase classname="tests.test_a" name="test_two[1]"><failure/></testcase>
<testcase classname="tests.test_a" name="test_two[1]"><error/></testcase>
<testcase classname="tests.test_a" name="test_two[2|3]"><error/></testcase>
<testcase classname="tests.test_a" name="test_new">
  <skipped message="no sticky"/></testcase>
<testcase classname="tests.test_a" name="test_long">
  <skipped message="only with TEST_SOAK"/></testcase>
</testsuite></testsuites>
"""


@pytest.fixture(scope="module")
def tool():
    """The tool as a Python module."""
    loader = importlib.machinery.SourceFileLoader("versions", str(TOOL))
    spec = importlib.util.spec_from_loader("versions", loader)
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


def add_tree(directory, name, configure):
    """A source tree that has no more than what is looked for."""
    tree = directory / name
    for path in "src/core/nginx.h", "auto/options", "configure":
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(configure if path == "configure" else "")
    (tree / "configure").chmod(0o755)
    return tree


def run(*arguments, status):
    done = subprocess.run([TOOL, *arguments], capture_output=True, text=True,
                          timeout=settings.PATIENCE * 6, check=False)
    assert done.returncode == status, done.stderr
    return done


def test_a_tree_that_does_not_build_is_a_row(tool, tmp_path):
    for name in "own-1.10.0", "own-1.9.2":
        add_tree(tmp_path, f"{tmp_path.name}-{name}",
                 "#!/bin/sh\necho broken: $0\nexit 1\n")
    (tmp_path / "no-tree").mkdir()
    rows = run(tmp_path, status=1).stdout.splitlines()
    assert rows[0] == "| version | builds | passed | failed | skipped | " \
                      "notes |"
    names = [row.split(" | ")[0][2:] for row in rows[2:]]
    assert names == [f"{tmp_path.name}-own-1.9.2",
                     f"{tmp_path.name}-own-1.10.0"]
    assert all(row.split(" | ")[1] == "no" for row in rows[2:])
    for name in names:
        subprocess.run(["rm", "-rf", tool.BUILT / name], check=True)


def test_where_there_is_no_tree(tmp_path):
    assert "no source tree" in run(tmp_path, status=1).stderr


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_tag_that_there_is_not(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    tag = f"none-{tmp_path.name}"
    assert f"no tag {tag}" in run("--clone", tmp_path, tag, status=1).stderr


def test_a_report_becomes_a_row(tool, tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    passed, failed, skipped, notes = tool.results(report)
    assert (passed, failed, skipped) == (2, 2, 2)
    assert notes == "2 failed: `test_two`; 1 skipped: no sticky"
    assert tool.line(("a|b", 1)) == r"| a\|b | 1 |"


def test_the_core_of_the_scenarios_is_there():
    core = (settings.ROOT / "tests/core").read_text().split()
    assert len(core) > 5
    assert all((settings.ROOT / name).is_file() for name in core)


# relatives of nginx, which bear its numbers

HEADER = settings.ROOT / "src/ngx_http_myproxy_compat.h"
TRAILERS = "NGX_HTTP_MYPROXY_TRAILERS"
NATIVE = "NGX_HTTP_UPSTREAM_REUSE_NATIVE"


@pytest.mark.parametrize("number, own, expected", [
    (1022001, {}, {TRAILERS: 0, NATIVE: 0}),
    (1027002, {}, {TRAILERS: 1, NATIVE: 0}),
    (1031004, {}, {TRAILERS: 1, NATIVE: 1}),
    (1027002, {"NGINX_NAME": 1}, {TRAILERS: 0, NATIVE: 0}),
    (1031004, {"NGINX_NAME": 1}, {TRAILERS: 0, NATIVE: 0}),
    (1031002, {"angie_version": 1013000}, {TRAILERS: 1, NATIVE: 0}),
    (1031003, {"tengine_version": 3002000}, {TRAILERS: 1, NATIVE: 1}),
], ids=["1.22.1", "1.27.2", "1.31.4", "freenginx 1.27.2", "freenginx 1.31.4",
        "Angie", "Tengine"])
def test_a_relative_is_known_by_its_own_macro(number, own, expected):
    found = tables.macros(HEADER.read_text(), number, **own)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("text, name, like", [
    ("nginx version: nginx/1.31.4", "nginx", (1, 31, 4)),
    ("nginx version: nginx/1.22.1 (Debian)", "nginx", (1, 22, 1)),
    ("nginx version: freenginx/1.27.2", "freenginx", (1, 25, 3)),
    ("Angie version: Angie/1.13.0\nnginx version: nginx/1.31.2",
     "angie", (1, 29, 5)),
    ("Tengine version: Tengine/3.2.0\nnginx version: nginx/1.31.3",
     "tengine", (1, 31, 3)),
    ("nginx version: openresty/1.31.3.1", "openresty", (1, 31, 3)),
], ids=lambda value: value if isinstance(value, str) else None)
def test_a_relative_is_known_by_its_name(monkeypatch, text, name, like):
    text += "\nconfigure arguments: --prefix=/opt/angie/1.0"
    monkeypatch.setattr(nginx, "build_info", lambda: text)
    assert nginx.product.__wrapped__() == name
    monkeypatch.setattr(nginx, "product", lambda: name)
    assert nginx.version.__wrapped__() == like
