"""Each directive and variable of the stock proxy has its counterpart.

The stock ones are taken from nginx's sources: of the tree NGINX_SOURCE, or
all that tools/fetch-nginx has left in build/source.  For the nginx under test
the tables are read, besides, from what was built, so that one whose source is
not at hand is checked too.
"""

import functools
import os
import pathlib
import re
import subprocess

import pytest

from harness import binary, settings, tables
from harness.nginx import relative, version

PROXY = [settings.ROOT / "src/proxy" / f"ngx_http_myproxy_{name}.c"
         for name in ("directives", "module")]
COMPAT = settings.ROOT / "src/ngx_http_myproxy_compat.h"
DIFFERENCES = settings.ROOT / "docs/differences.md"

#: Strings in the binary that name something else.
FOREIGN = re.compile(r"proxy_(protocol|recursive|headers_hash$)")


def source_trees():
    wanted = os.environ.get("NGINX_SOURCE")
    if wanted:
        return [pathlib.Path(path) for path in wanted.split(os.pathsep)]
    return sorted(path for path in settings.ROOT.glob("build/source/*/nginx")
                  if (path / "src/core/nginx.h").is_file())


def tree_version(tree):
    header = (tree / "src/core/nginx.h").read_text()
    return int(re.search(r"define nginx_version\s+(\d+)", header)[1])


def stock(tree):
    """(directives, variables) of the stock proxy in a source tree."""
    defined = {**tables.BUILT_WITH, "nginx_version": tree_version(tree)}
    names, variables = {}, set()
    for path in sorted(tree.glob("src/http/modules/ngx_http_proxy*.c")):
        text = path.read_text(encoding="utf-8", errors="replace")
        names.update(tables.directives(text, defined))
        variables |= tables.variables(text, defined)
    return names, variables


def ours(number, tree=None):
    """(directives, variables) of this module on a version of nginx.

    With a source tree, which may be that of Angie, on that.
    """
    angie = tree / "src/core/angie.h" if tree else pathlib.Path("/none")
    more = {"angie_version": int(found) for found in re.findall(
        r"define angie_version\s+(\d+)",
        angie.read_text() if angie.is_file() else "")}
    defined = tables.macros(COMPAT.read_text(), number, **more)
    text = "\n".join(path.read_text() for path in PROXY)
    return (tables.directives(text, defined),
            tables.variables(text, defined))


@functools.lru_cache()
def exceptions():
    """What docs/differences.md says has no counterpart.

    The name, and the first and the last version of nginx that have it.
    """
    section = DIFFERENCES.read_text().partition(
        "## Directives and variables without a counterpart")[2]
    section = section.partition("\n## ")[0]
    return {name: (number_of(first), number_of(last or "9.9.9"))
            for name, first, last in re.findall(
                r"^\| `(\$?proxy_\w+)` \| ([\d.]+)(?: to ([\d.]+))? \|",
                section, re.MULTILINE)}


def number_of(text):
    """1022000 for "1.22"."""
    return tables.number([*map(int, text.split(".")), 0][:3])


def compare(tree):
    """What is wrong, a line each."""
    theirs, their_variables = stock(tree)
    mine, my_variables = ours(tree_version(tree), tree)
    for name, (contexts, arguments) in sorted(theirs.items()):
        if name in exceptions() or name in relative().own:
            continue
        if "my" + name not in mine:
            yield f"{name} has no counterpart"
            continue
        if contexts != mine["my" + name][0]:
            yield f"{name}: contexts {contexts}, not {mine['my' + name][0]}"
        if arguments != mine["my" + name][1]:
            yield f"{name}: {arguments}, not {mine['my' + name][1]}"
    for name in sorted(their_variables):
        if f"${name}" not in exceptions() and f"my{name}" not in my_variables:
            yield f"${name} has no counterpart"


@pytest.mark.parametrize("tree", [
    pytest.param(tree, id=f"{tree.parent.name}-{tree_version(tree)}")
    for tree in source_trees()])
def test_the_source_has_nothing_that_we_lack(tree):
    theirs, variables = stock(tree)
    assert len(theirs) > 60 and len(variables) > 3, "the tables were not read"
    assert list(compare(tree)) == []


def test_there_is_a_source_to_compare_with():
    if not source_trees():
        if (os.environ.get("CI")
                and not os.environ.get("TEST_NO_SOURCE")):
            pytest.fail("no nginx source: run tools/fetch-nginx")
        pytest.skip("no nginx source: run tools/fetch-nginx")


@pytest.mark.skipif(not source_trees(), reason="no nginx source")
def test_the_exceptions_are_needed():
    known, mine = set(), set()
    for tree in source_trees():
        theirs, variables = stock(tree)
        known |= set(theirs) | {f"${name}" for name in variables}
        names, variables = ours(tree_version(tree), tree)
        mine |= set(names) | {f"$my{name}" for name in variables}
    versions = [tree_version(tree) for tree in source_trees()]
    for name, (first, last) in exceptions().items():
        assert name in known \
            or not any(first <= number <= last for number in versions)
        assert ("$my" + name[1:] if name[0] == "$" else "my" + name) \
            not in mine


def test_the_built_tables_agree():
    """As compiled: names, contexts and argument counts, without a source."""
    nginx = binary.Binary(settings.NGINX)
    theirs = nginx.commands("ngx_http_proxy_module")
    module = (nginx if settings.MODULE == "static"
              else binary.Binary(settings.MODULE))
    mine = module.commands("ngx_http_myproxy_module")
    assert len(theirs) > 60
    for name, kind in theirs.items():
        if name not in exceptions() and name not in relative().own:
            assert mine.get("my" + name) == kind, name


def names_in_binary():
    """Candidates; a name may be stored as the end of a longer string."""
    with open(settings.NGINX, "rb") as file:
        strings = re.findall(rb"[A-Za-z0-9_$]*proxy_[a-z0-9_]+(?=\0)",
                             file.read())
    return {re.search(r"proxy_\w+$", string.decode())[0]
            for string in strings if b"ngx_" not in string}


def is_directive(directory, name):
    """Whether http{} or a location in it may have such a directive."""
    return any("unknown directive" not in text and "not allowed" not in text
               for text in (complaint(directory, location=f"{name};"),
                            complaint(directory, http=f"{name};")))


def complaint(directory, http="", location=""):
    """What nginx says of a configuration, without this module."""
    path = directory / "nginx.conf"
    path.write_text(f"""
        daemon off; pid {directory}/nginx.pid; error_log stderr;
        events {{ }}
        http {{ {http} server {{ listen unix:{directory}/socket;
                                 location / {{ {location} }} }} }}
        """)
    return subprocess.run(
        [settings.NGINX, "-t", "-e", "stderr", "-p", str(directory),
         "-c", str(path)], capture_output=True, text=True,
        timeout=settings.PATIENCE, check=False).stderr


def test_the_binary_has_nothing_that_we_lack(tmp_path):
    names = {name for name in names_in_binary() if not FOREIGN.match(name)}
    mine, my_variables = ours(tables.number(version()))
    if settings.MODULE != "static":
        # some are there for a relative of nginx only
        mine = binary.Binary(settings.MODULE).commands(
            "ngx_http_myproxy_module")
    lacking, checked = [], 0

    for name in sorted(names):
        if f"my{name}" in mine:
            checked += 1
            continue
        if f"my{name}" in my_variables or name in exceptions() \
                or f"${name}" in exceptions() or name in relative().own:
            continue
        # is it one at all, and not of the stream or mail module?
        if is_directive(tmp_path, name):
            lacking.append(name)
        if 'unknown "' not in complaint(tmp_path,
                                        location=f"return 200 ${name};"):
            lacking.append(f"${name}")

    assert lacking == []
    assert checked > 60, "the names were not found in the binary"


def test_what_the_binary_lacks_is_not_offered(tmp_path):
    """A directive for newer versions of nginx is left out on older ones."""
    mine, _ = ours(tables.number(version()))
    every, _ = ours(9999999)
    assert set(mine) <= set(every)
    for name in set(every) - set(mine):
        assert not is_directive(tmp_path, name[2:])
