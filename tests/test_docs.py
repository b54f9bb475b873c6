"""The documentation says what the code does, as far as a test can tell."""

import functools
import re

import pytest

from harness import settings, tables

SOURCES = sorted((settings.ROOT / "src").glob("*/*.c"))
COMPAT = settings.ROOT / "src/ngx_http_myproxy_compat.h"
DIRECTIVES = settings.ROOT / "docs/directives.md"
RUNBOOK = settings.ROOT / "docs/runbook.md"
REASONS = settings.ROOT / "src/accounts/ngx_http_upstream_reuse_reasons.c"
VERSIONS = re.findall(r"^## \[([\d.]+)\]",
                      (settings.ROOT / "CHANGELOG.md").read_text(),
                      re.MULTILINE)
PAGES = sorted([*settings.ROOT.glob("*.md"), *settings.ROOT.glob("*/*.md")])

SECTION = re.compile(r"^### (\w+)\n\n```\n(.*?)^```\n(.*?)(?=^##|\Z)",
                     re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]\[]+\]\(([^)\s]+)\)")

ORDER = list(tables.CONTEXTS.values())

#: How a merged default reads in the documentation.
VALUES = {"0": ("off", "0"), "1": ("on", "1"), "60000": ("60s",),
          "5000": ("5s",)}

NEWEST = 9999999


@functools.lru_cache()
def offered():
    """All directives, also those for the newest nginx only."""
    found = {}
    for path in SOURCES:
        found.update(tables.directives(
            path.read_text(), tables.macros(COMPAT.read_text(), NEWEST)))
    return found


@functools.lru_cache()
def documented():
    """name -> (Syntax, Default, Context, Appeared in, text)."""
    found = {}
    for name, head, text in SECTION.findall(DIRECTIVES.read_text()):
        assert name not in found, f"{name} is documented twice"
        fields = re.split(r"^([A-Z][\w ]+):", head, flags=re.MULTILINE)[1:]
        assert fields[::2] == ["Syntax", "Default", "Context",
                               "Appeared in"], name
        found[name] = (*(" ".join(field.split()) for field in fields[1::2]),
                       text)
    return found


def test_each_directive_is_documented_and_nothing_else():
    assert sorted(documented()) == sorted(offered())


@pytest.mark.parametrize("name", sorted(offered()))
def test_a_directive_is_documented_as_it_is(name):
    contexts, flags = offered()[name]
    syntax, default, context, appeared, text = documented()[name]
    assert context == ", ".join(sorted(contexts, key=ORDER.index))
    assert all(form == name or form.startswith(f"{name} ")
               for form in syntax.rstrip(";").split("; "))
    assert default == "-" or re.fullmatch(rf"{name} [^;]+;", default)
    version, = re.fullmatch(r"([\d.]+)(?:, with nginx \d\.\d+\.\d or later)?",
                            appeared).groups()
    assert version in VERSIONS
    assert text.strip()
    if "NGX_CONF_FLAG" in flags:
        assert syntax == f"{name} on | off;"


def test_versions_of_nginx_are_named():
    header = COMPAT.read_text()
    for name, (_, _, _, appeared, _) in documented().items():
        wanted = re.search(r"(\d+)\.(\d+)\.(\d+) or later", appeared)
        since = tables.number(map(int, wanted.groups())) if wanted else 1022000
        for version in (since - 1, since):
            there = any(
                name in tables.directives(path.read_text(),
                                          tables.macros(header, version))
                for path in SOURCES)
            assert there == (version == since or not wanted), name


def merged_defaults():
    """name of a field of the configuration -> default, as C has it."""
    merge = re.compile(r"ngx_conf_merge_(?:value|msec_value|uint_value)\("
                       r"\s*[\w>.-]*?(\w+),\s*[\w>.-]+,\s*(\w+)\s*\)")
    return {field: value for path in SOURCES
            for field, value in merge.findall(path.read_text())}


def test_defaults_are_those_of_the_code():
    entry = re.compile(r'ngx_string\("(\w+)"\),[^}]*?'
                       r"offsetof\(\s*\w+,\s*(?:upstream\.)?(\w+)\)")
    defaults, checked = merged_defaults(), 0
    for path in SOURCES:
        for name, field in entry.findall(path.read_text()):
            value = defaults.get(field)
            if (value is None or name not in documented()
                    or field == "store_access"):
                continue
            default = documented()[name][1]
            if value.isdigit():
                wanted = [f"{name} {text};"
                          for text in VALUES.get(value, (value,))]
                assert default in wanted
                checked += 1
    assert checked > 20


def anchors(path):
    """What GitHub makes of the headings."""
    for heading in re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE):
        text = re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading).lower()
        yield re.sub(r"[^\w -]", "", text).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_authors_find_the_functions_that_are_named():
    page = settings.ROOT / "docs/for-authors.md"
    text = page.read_text()
    found = re.findall(r"`(\w+)\(\)`(?: and `(\w+)\(\)`)?\s+in\s+"
                       r"\[\w+\.c\]\((\S+)\)", text)
    assert len(found) > 8
    for first, second, path in found:
        code = (page.parent / path).read_text()
        for name in filter(None, (first, second)):
            assert re.search(rf"^{name}\(", code, re.MULTILINE), name
    minimal = (settings.ROOT / "examples/minimal/ngx_http_minimal_module.c"
               ).read_text()
    for name in re.findall(r"`(minimal_\w+)\(\)`", text):
        assert re.search(rf"^{name}\(", minimal, re.MULTILINE), name
    assert minimal.count("\n") <= 250


def internals():
    """The rows of the tables: (what, where, guard, without)."""
    text = (settings.ROOT / "docs/internals.md").read_text()
    rows = [re.split(r" \| ", line[2:-2]) for line in text.splitlines()
            if line.startswith("| ")]
    return [row for row in rows if row[0] != "What nginx does"]


@pytest.mark.parametrize("row", internals(), ids=lambda row: row[0])
def test_what_stands_in_a_row_of_internals_is_there(row):
    _, where, guard, _ = row
    assert re.search("^(static|self-test|tests? )", guard)
    path, found = None, 0
    for name in re.findall(r"`(\w+\.c|\w+\(\))`", where):
        if name.endswith(".c"):
            (path,) = [path for path in SOURCES if path.name == name
                       or re.fullmatch(rf"ngx_http_[a-z]+(_reuse|_warm)?_"
                                       rf"{name}", path.name)]
        elif not name.startswith("ngx_event_"):
            assert re.search(rf"^{name[:-2]}\(", path.read_text(),
                             re.MULTILINE), name
            found += 1
    assert found
    selftest, layout = (
        (settings.ROOT / f"src/pool/ngx_http_upstream_reuse_{name}"
         ).read_text() for name in ("selftest.c", "assertions.c"))
    for name in re.findall(r"`(reuse_test_\w+)\(\)`", guard):
        assert re.search(rf"^{name}\(", selftest, re.MULTILINE), name
    for text in re.findall('static assertion "([^"]+)"', guard):
        assert text in layout
    for name in re.findall(r"`(test_\w+)`", guard):
        assert any(f"def {name}(" in path.read_text() for path in
                   (settings.ROOT / "tests").glob("test_*.py")), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_directives_that_a_page_mentions_exist(page):
    known = {re.sub("^my", "", name) for name in offered()}
    variables = {"myproxy_host", "myproxy_port",
                 "myproxy_add_x_forwarded_for"}
    text = re.sub(r"[\w/.*{},]*ngx_http_\w+[\w.{},*/]*", "",
                  page.read_text())
    for name in set(re.findall(r"\bmyproxy_[a-z_]+[a-z]", text)):
        assert name in offered() or name in variables or name in ANGIES, name
    for name in set(re.findall(r"(?<![$\w])proxy_[a-z_]+[a-z]", text)):
        assert name in known or name in FOREIGN or "my" + name in ANGIES, name


#: Directives that are there with Angie alone, which has their stock ones.
ANGIES = {"myproxy_connection_drop"}

#: Stock names in the pages that have no counterpart.
FOREIGN = {"proxy_host", "proxy_temp", "proxy_protocol", "proxy_cache_purge",
           "proxy_bypass"}


STRING = r'"(?:[^"\\]|\\.)*"'

#: A call that writes to the error log, up to the format, a literal of C.
LOGGED = re.compile(
    rf"""\b(?:ngx_(?:conf_log|log|ssl)_error\(\s*
             (?:NGX_LOG_(?:EMERG|ALERT|CRIT|ERR|WARN|NOTICE|INFO)|level)\b
           | ngx_http_upstream_reuse_(?:warn|complain)\()
         [^;"]*? ((?:{STRING}\s*)+)""", re.VERBOSE)


def log_texts():
    """What is logged but for debugging, "..." for what differs."""
    for path in SOURCES:
        for literal in LOGGED.findall(path.read_text()):
            text = "".join(part[1:-1] for part in re.findall(STRING, literal))
            if text in (" failed", "%*s"):
                continue  # after a system call's name, as in core; no text
            text = text.replace('\\"', '"')
            yield re.sub(r"%\*?[a-zA-Z]+(\.%[a-zA-Z]+)*", "...",
                         text).replace("%%", "%")


def in_code(page):
    return set(re.findall(r"`([^`]+)`", page.read_text()))


def test_log_texts_are_found():
    texts = set(log_texts())
    assert len(texts) > 90
    assert "upstream sent data after the end of the response" in texts
    assert not any(re.search(r"%[a-zA-Z]|\\", text) for text in texts)


@pytest.mark.parametrize("text", sorted(set(log_texts())))
def test_a_log_text_is_in_the_runbook(text):
    assert text in in_code(RUNBOOK)


def test_the_runbook_has_no_log_text_that_there_is_not():
    rows = re.findall(r"^\| (`.*?`) \| ",
                      RUNBOOK.read_text().partition("## Error log")[2],
                      re.MULTILINE)
    assert set(re.findall("`([^`]+)`", "".join(rows))) == set(log_texts())


@pytest.mark.parametrize("table", ["new", "close", "refused"])
def test_each_reason_is_in_the_runbook(table):
    source = REASONS.read_text()
    source = source[source.index(f"reuse_{table}_reasons[] ="):]
    reasons = re.findall(r'{ ngx_string\("(\w+)"\)',
                         source[:source.index("\n};")])
    title = {"new": "new connection", "close": "close",
             "refused": "refusal"}[table]
    section = re.search(rf"^## Reasons for a {title}\n(.*?)^## ",
                        RUNBOOK.read_text(), re.DOTALL | re.MULTILINE)
    assert reasons == re.findall(r"^\| `(\w+)` \|", section.group(1),
                                 re.MULTILINE)
