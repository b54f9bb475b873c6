"""The reuse layer is off where nginx's keepalive module is another.

tests/damage has a module that changes it in one respect each; what would be
seen of the change otherwise is a wrong connection or a write to memory of
others.
"""

import pathlib
import re
import shutil
import subprocess

import pytest

from harness import settings
from harness.nginx import product, version

SOURCE = settings.ROOT / "tests/damage/ngx_http_damage_module.c"
COMPAT = settings.ROOT / "src/ngx_http_myproxy_compat.h"
ASSERTIONS = settings.ROOT / "src/pool/ngx_http_upstream_reuse_assertions.c"

INCLUDED = ("core event event/modules event/quic os/unix http http/modules "
            "http/v2 http/v3 proc").split()

FAULTS = {
    "refuse": "refuses its directives",
    "ignore": "makes no pool|has its size elsewhere",
    "layout": "has its size elsewhere",
    "keepalive_requests": "has its limits elsewhere",
    "keepalive_time": "has its limits elsewhere",
    "keepalive_timeout": "has its limits elsewhere",
    "put": "does not keep a connection",
    "key": "gives a connection to whom it does not belong",
    "take": "does not find a connection that it keeps",
    "short": "does not find a connection that it keeps",
    "room": "does not make room for a connection",
    "remove": "does not close a connection when it is told to",
    "timer": "does not end an idle connection when its time is over",
    "order": "closes the socket of a connection before its cleanups run",
}
if product() != "angie":
    # there it is the pool that is asked twice, and not the balancer
    FAULTS["twice"] = "does not keep a connection"


def objects():
    """Where the nginx under test, or its module, was configured."""
    built = pathlib.Path(settings.NGINX if settings.MODULE == "static"
                         else settings.MODULE).resolve().parent
    for directory in built, built / "module":
        if (directory / "objs/ngx_auto_config.h").is_file():
            return directory
    pytest.skip("the directory of the build is not there")


def compiler(directory, *first):
    """The command that compiles a file as nginx does."""
    found = shutil.which("gcc") or shutil.which("clang")
    tree = directory / "tree/src"
    return [found, "-fPIC", *first, f"-I{directory}/objs",
            *(f"-I{tree}/{name}" for name in INCLUDED),
            *(f"-I{path}" for path in (settings.ROOT / "src").glob("**/")),
            "-I/usr/include/libxml2"]


@pytest.fixture(scope="module")
def damage(tmp_path_factory):
    """The configuration that damages the keepalive module."""
    directory = objects()
    built = tmp_path_factory.mktemp("damage") / "damage.so"
    subprocess.run(
        [*compiler(directory), "-shared", "-Wall", "-Werror",
         "-o", built, SOURCE], check=True)
    return lambda what: f"load_module {built}; damage {what};"


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_damaged_is_noticed(stage, damage, what):
    origin = stage.origin()
    stage.origin(name="other")
    nginx = stage.nginx(
        main=damage(what),
        http="upstream app { server %{origin}; }"
             "upstream warm { server %{other}; reuse_warm 2; }",
        location="myproxy_pass http://app;",
        server="location /warm { myproxy_pass http://warm; }"
               "location /implicit { myproxy_pass http://%{other}; }")
    found = nginx.logged(r"\[error\].*no connection to an origin is kept")
    assert len(found) == 1 and re.search(FAULTS[what], found[0])
    for target in "/", "/", "/warm", "/implicit", "/":
        assert nginx.get(target).status == 200
    assert origin.carried == [1, 1, 1]
    status = nginx.status()
    assert status["total"]["attempts"]["reused"] == 0
    assert status["total"]["connections"]["idle"] == 0
    assert re.search(FAULTS[what], str(status["warnings"]))


@pytest.mark.parametrize("directive", ["keepalive 4;", "reuse on;"])
def test_what_is_written_keeps_nothing_either(stage, damage, directive):
    origin = stage.origin()
    nginx = stage.nginx(
        main=damage("key"),
        http="upstream app { server %%{origin}; %s }" % directive,
        location="myproxy_pass http://app;")
    for _ in range(3):
        assert nginx.get().status == 200
    assert origin.carried == [1, 1, 1]


def test_it_is_sound_as_it_is(stage):
    origin = stage.origin()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    for _ in range(3):
        nginx.get()
    nginx.reload()
    for _ in range(3):
        nginx.get()
    assert origin.carried == [3, 3]
    assert nginx.logged("no connection to an origin is kept") == []
    assert nginx.logged("was tested with nginx versions") == []


def newest():
    number = int(re.search(r"#define NGX_HTTP_MYPROXY_TESTED\s+(\d+)",
                           COMPAT.read_text())[1])
    return number // 1000000, number // 1000 % 1000, number % 1000


def test_a_newer_nginx_is_told_of_once(stage, damage):
    stage.origin()
    code, text = stage.config_test(
        main=damage("version"), location="myproxy_pass http://%{origin};")
    assert code == 0
    name = ".".join(map(str, newest()))
    assert re.findall(r"\[notice\].* tested with nginx versions up to (\S+); "
                      r"this is 1\.99\.7\n", text) == [name]


def test_the_tests_have_seen_no_newer_one():
    """Where this fails, the number in the header is to be raised."""
    assert version() <= newest()


def test_the_documentation_names_the_newest_one():
    major, minor, _ = newest()
    readme = " ".join((settings.ROOT / "README.md").read_text().split())
    assert f"Tested on nginx 1.22 to {major}.{minor}, and" in readme
    table = (settings.ROOT / "docs/compatibility.md").read_text()
    assert "| nginx " + ".".join(map(str, newest())) + " | yes |" in table


@pytest.mark.parametrize("header, was, becomes, fault", [
    ("core/ngx_inet.h", "} ngx_sockaddr_t;",
     "} ngx_any_sockaddr_t;\ntypedef union { struct sockaddr sockaddr; "
     "struct sockaddr_in sockaddr_in; struct sockaddr_in6 sockaddr_in6; "
     "struct sockaddr_in sockaddr_un; } ngx_sockaddr_t;",
     "has room for every address"),
    ("http/ngx_http_upstream_round_robin.h",
     re.compile(r"ngx_uint_t( +)down;"), r"u_char\1down;",
     "counted in whole words"),
    ("core/ngx_string.h",
     re.compile(r"(ngx_rbtree_node_t +node;)(\s+)(ngx_str_t +str;)"),
     r"\3\2\1", "node of a tree of strings"),
    ("event/ngx_event_connect.h", re.compile(r"NGX_PEER_FAILED +4"),
     "NGX_PEER_FAILED 6", "states of a peer are bits"),
    ("core/ngx_connection.h", re.compile(r"NGX_TCP_NOPUSH_DISABLED"),
     "NGX_TCP_NOPUSH_DISABLED = 4", "fits in two bits of a parcel"),
])
def test_another_layout_does_not_compile(tmp_path, header, was, becomes,
                                         fault):
    directory = objects()
    text = (directory / "tree/src" / header).read_text()
    changed = re.sub(was if isinstance(was, re.Pattern) else re.escape(was),
                     becomes, text, count=1)
    assert changed != text
    (tmp_path / pathlib.Path(header).name).write_text(changed)
    compiled = [subprocess.run(
        [*compiler(directory, *first), "-fsyntax-only", ASSERTIONS],
        capture_output=True, text=True, check=False)
        for first in ([], [f"-I{tmp_path}"])]
    assert compiled[0].returncode == 0, compiled[0].stderr
    assert compiled[1].returncode != 0
    assert fault in compiled[1].stderr


def function(path, name):
    """What stands in a function of the nginx under test."""
    source = objects() / "tree/src" / path
    if not source.exists():
        pytest.skip("of this nginx there are only the headers")
    found = re.search(rf"^{name}\(\w[^;]*?\)\n{{.*?^}}", source.read_text(),
                      re.DOTALL | re.MULTILINE)
    return found[0]


def test_core_makes_a_connection_as_we_do():
    """What is new here has to be set in adopt.c and in wait.c as well."""
    name = ("ngx_event_connect" if product() == "angie"
            else "ngx_event_connect_peer")
    found = re.findall(r"\b(c|rev|wev)->(\w+) = ", function(
        "event/ngx_event_connect.c", name))
    ours = {"c": {"type", "recv", "send", "recv_chain", "send_chain",
                  "sendfile", "log_error", "number", "start_time",
                  # of unix sockets
                  "tcp_nopush", "tcp_nodelay"},
            "rev": {"log", "ready"},  # the latter for IOCP
            "wev": {"log", "ready"}}
    assert ("c", "start_time") in found
    new = {(of, name) for of, name in found if name not in ours[of]}
    assert new <= {("c", "need_flush_buf")}  # of datagrams


def test_core_ends_no_response_whose_header_it_has_not_sent():
    """That is all it asks the flag for when a request is over."""
    text = function("http/ngx_http_upstream.c",
                    "ngx_http_upstream_finalize_request")
    over = text[text.index("u->finalize_request(r, rc)"):]
    before, after = re.split(r"if \(!u->header_sent\s*\|\|", over)
    # Angie and freenginx ask for it where a response has failed
    asked = re.sub(r"if \(rc == NGX_HTTP_BAD_GATEWAY.*?"
                   r"(NGX_API|if \(u->cacheable\))", "", before,
                   flags=re.DOTALL)
    assert "header_sent" not in asked + after
    assert "ngx_http_send_special" not in before
    assert re.match(r"[^{}]*\{\s*ngx_http_finalize_request\(r, rc\);"
                    r"\s*return;\s*\}", after)
    assert "ngx_http_send_special(r, NGX_HTTP_LAST)" in after
