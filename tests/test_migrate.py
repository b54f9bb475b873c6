"""tools/migrate: what it changes, leaves, says, writes and takes back."""

import collections
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import stat
import subprocess
import sys

import pytest

from harness import http1, settings, tables, tls
from harness.nginx import version
from harness.whole import WholeNginx

TOOL = settings.ROOT / "tools/migrate"
DATA = pathlib.Path(__file__).parent / "data/migrate"


class Place:
    """A directory with a configuration, and the tool called on it."""

    def __init__(self, directory):
        self.directory = directory

    def write(self, name, text):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def read(self, name="nginx.conf"):
        return (self.directory / name).read_bytes().decode()

    def files(self):
        """All there is, but for the directories with old files."""
        return {str(path.relative_to(self.directory)): path.read_bytes()
                for path in sorted(self.directory.rglob("*"))
                if path.is_file() and ".migrate-orig" not in str(path)}

    def call(self, *args, conf="nginx.conf"):
        return subprocess.run(
            [sys.executable, TOOL, *args, str(self.directory / conf)],
            capture_output=True, text=True, timeout=settings.PATIENCE,
            check=False)

    def run(self, *args, **more):
        done = self.call(*args, **more)
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.split())

    def refuse(self, *args, **more):
        """The message of a call that must change nothing."""
        before = self.files()
        done = self.call(*args, **more)
        assert done.returncode == 1
        assert self.files() == before
        assert "Traceback" not in done.stderr
        return " ".join(done.stderr.split())

    def move(self, text, *args):
        """nginx.conf after the move of a text, and what was said."""
        self.write("nginx.conf", text)
        said = self.run("--apply", *args)
        return self.read(), said


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def in_http(text):
    return f"http {{ {text}\n}}\n"


@pytest.fixture(scope="module")
def tool():
    """The tool as a Python module."""
    loader = importlib.machinery.SourceFileLoader("migrate", str(TOOL))
    spec = importlib.util.spec_from_loader("migrate", loader)
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


def test_the_names_are_those_of_the_module(tool):
    source = settings.ROOT / "src/proxy/ngx_http_myproxy_directives.c"
    header = settings.ROOT / "src/ngx_http_myproxy_compat.h"
    names = tables.directives(source.read_text(),
                              tables.macros(header.read_text(), 9999999))
    assert tool.NAMES == {re.sub("^myproxy_", "", name) for name in names
                          if name != "myproxy_upgrade"}


@pytest.mark.parametrize("before, after", [
    ("proxy_pass http://a;", "myproxy_pass http://a;"),
    ("proxy_pass\n   # proxy_pass\n http://a\n;",
     "myproxy_pass\n   # proxy_pass\n http://a\n;"),
    ("proxy_buffers 8 4k;proxy_buffering off;",
     "myproxy_buffers 8 4k;myproxy_buffering off;"),
    ('proxy_set_header X "proxy_pass; { $proxy_host";',
     'myproxy_set_header X "proxy_pass; { $myproxy_host";'),
    ("proxy_set_header X 'a\\'b;proxy_pass';",
     "myproxy_set_header X 'a\\'b;proxy_pass';"),
    ("set $x $proxy_host:${proxy_port};",
     "set $x $myproxy_host:${myproxy_port};"),
    ("log_format a 'proxy_pass=$proxy_host' \"$proxy_add_x_forwarded_for\";",
     "log_format a 'proxy_pass=$myproxy_host' "
     '"$myproxy_add_x_forwarded_for";'),
    ("if ($proxy_host = a) { proxy_pass http://b; }",
     "if ($myproxy_host = a) { myproxy_pass http://b; }"),
    ("location /proxy_pass { proxy_store on; }",
     "location /proxy_pass { myproxy_store on; }"),
    ("location ~ ^/(a|b){ proxy_pass http://a$uri; }",
     "location ~ ^/(a|b){ myproxy_pass http://a$uri; }"),
    ('location ~ "^/[0-9]{3}/proxy_" { proxy_pass http://a; }',
     'location ~ "^/[0-9]{3}/proxy_" { myproxy_pass http://a; }'),
    ("map $proxy_host $x { proxy_pass 1; default $proxy_port; }",
     "map $myproxy_host $x { proxy_pass 1; default $myproxy_port; }"),
    ("upstream proxy_pass { server a; } proxy_cache_path /c keys_zone=a:1m;",
     "upstream proxy_pass { server a; } "
     "myproxy_cache_path /c keys_zone=a:1m;"),
    ("content_by_lua_block { local s = '}' -- proxy_pass {\n"
     " if s then return { [[ } ]] } end } proxy_pass http://a;",
     "content_by_lua_block { local s = '}' -- proxy_pass {\n"
     " if s then return { [[ } ]] } end } myproxy_pass http://a;"),
    ("proxy_pass http://${name}/a;", "myproxy_pass http://${name}/a;"),
    ("proxy_pass http://a;\r\n", "myproxy_pass http://a;\r\n"),
], ids=lambda text: text[:40])
def test_what_changes(place, before, after):
    assert place.move(in_http(before))[0] == in_http(after)


@pytest.mark.parametrize("text", [
    "listen 80 proxy_protocol;",
    "real_ip_header proxy_protocol;",
    "log_format a '$proxy_protocol_addr proxy_pass';",
    "map $http_x $proxy_connection { default proxy_x; }",
    "add_header X $proxy_hosts;",
    "geo $x { proxy 10.0.0.0/8; proxy_recursive; default 0; }",
    "split_clients $x $y { 50% proxy_pass; * proxy_cache; }",
    "types { proxy_pass html; }",
    "# proxy_pass http://a;",
    "set $x 'proxy_pass http://a;';",
    "set $x a#proxy_pass;",
    "fastcgi_pass a;",
    "myproxy_pass http://$myproxy_host;",
], ids=lambda text: text[:40])
def test_what_stays(place, text):
    place.write("nginx.conf", in_http(text))
    assert "Nothing to move" in place.run("--apply")
    assert place.read() == in_http(text)
    assert list(place.files()) == ["nginx.conf"]


def test_stream_and_mail_stay(place):
    rest = ("stream { server { proxy_pass a:1; proxy_timeout 1s; } "
            "log_format x '$proxy_host'; }\n"
            "mail { server { proxy_pass_error_message on; } }\n")
    assert place.move(rest + in_http("proxy_pass http://a;"))[0] == (
        rest + in_http("myproxy_pass http://a;"))


@pytest.mark.parametrize("name", ["proxy_cache_purge PURGE from all",
                                  "proxy_connect", "proxy_upload_rate 1"])
def test_directives_of_other_modules_stay_with_a_note(place, name):
    text, said = place.move(in_http(f"{name}; proxy_pass http://a;"))
    assert text == in_http(f"{name}; myproxy_pass http://a;")
    assert "this module has no such directive nginx.conf:1" in said


def test_http_2_stays_with_a_note(place):
    text, said = place.move(in_http(
        "proxy_http_version 2; proxy_pass http://a;"))
    assert text == in_http("proxy_http_version 2; myproxy_pass http://a;")
    assert "an origin that needs HTTP/2 must stay" in said


# files

def test_included_files_are_moved(place):
    place.write("conf.d/a.conf", "server { include snippets/p.inc; }")
    place.write("conf.d/.hidden.conf", "proxy_pass http://a;")
    place.write("conf.d/b.txt", "proxy_pass http://a;")
    place.write("snippets/p.inc", "location / { proxy_pass http://a; }")
    place.write("absolute", "proxy_buffering off;")
    place.move(in_http(f"include conf.d/*.conf; include nothing/*;"
                       f'include "{place.directory}/absolute";'))
    assert place.read("snippets/p.inc") == (
        "location / { myproxy_pass http://a; }")
    assert place.read("absolute") == "myproxy_buffering off;"
    assert place.read("conf.d/.hidden.conf") == "proxy_pass http://a;"
    assert place.read("conf.d/b.txt") == "proxy_pass http://a;"


def test_http_may_be_in_an_included_file(place):
    place.write("http.conf", in_http("include site;"))
    place.write("site", "proxy_buffering off;")
    place.move("include http.conf;")
    assert place.read("site") == "myproxy_buffering off;"


def test_a_link_stays_a_link(place):
    target = place.write("available/site", "proxy_buffering off;")
    target.chmod(0o640)
    (place.directory / "enabled").mkdir()
    link = place.directory / "enabled/site"
    link.symlink_to("../available/site")
    place.move(in_http("include enabled/*; include available/site;"))
    assert link.is_symlink()
    assert target.read_text() == "myproxy_buffering off;"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_no_pattern_matches_the_old_files(place):
    place.write("conf.d/a", "proxy_buffering off;")
    place.move(in_http("include conf.d/*;"))
    assert [path.name for path in (place.directory / "conf.d").iterdir()] \
        == ["a"]
    assert place.directory.glob("*") and not [
        path for path in place.directory.iterdir()
        if not path.name.startswith(".")
        and path.name not in ("conf.d", "nginx.conf")]


def test_bytes_that_are_no_text_survive(place):
    text = b"http { # \xff\xfe\r\n proxy_buffering off; \x80 a; }"
    path = place.write("nginx.conf", text)
    place.run("--apply")
    assert path.read_bytes() == text.replace(b"proxy_", b"myproxy_")


@pytest.mark.parametrize("text, reason", [
    ("http { proxy_pass http://a;", "the file ends within a block"),
    ("http { proxy_pass http://a; } }", 'unexpected "}"'),
    ("http { proxy_pass http://a }", 'unexpected "}"'),
    ("http { proxy_pass http://a; ; }", 'unexpected ";"'),
    ("http { { proxy_pass http://a; } }", 'unexpected "{"'),
    ("http { }\nproxy_pass http://a", "nginx.conf:2: the file ends within a "
     "directive"),
    ("http { }\nproxy_pass 'http://a;", "nginx.conf:2: a quote or an escape"),
    ("http { content_by_lua_block { if { proxy_pass http://a; }",
     "a Lua block that does not end"),
    ("http { include missing; proxy_pass http://a; }",
     "/missing: No such file"),
    ("http { include nginx.conf; proxy_pass http://a; }", "includes itself"),
])
def test_what_cannot_be_read_is_refused(place, text, reason):
    place.write("nginx.conf", text)
    assert reason in place.refuse("--apply")
    assert reason in place.refuse()


def test_a_missing_configuration_is_refused(place):
    assert "No such file" in place.refuse("--apply")


def test_a_broken_included_file_stops_it_all(place):
    place.write("a", "proxy_buffering off;")
    place.write("b", "server {")
    place.write("nginx.conf", in_http("include a; include b;"))
    assert "b:1: the file ends within" in place.refuse("--apply")


def test_a_file_that_is_in_http_and_in_stream_is_refused(place):
    place.write("both", "proxy_connect_timeout 1s;")
    place.write("nginx.conf",
                "http { include both; } stream { include both; }")
    assert "both in http{} and elsewhere" in place.refuse("--apply")


@pytest.mark.parametrize("function, failing", [
    ("rename", 1), ("rename", 2), ("fsync", 1), ("fsync", 2), ("mkdir", 1)])
def test_all_or_nothing(place, tool, monkeypatch, function, failing):
    """Whatever fails first, the files are as before."""
    place.write("a", "proxy_buffering off;")
    main = place.write("nginx.conf", in_http("include a; proxy_store on;"))
    before = place.files()
    calls, real = [], getattr(os, function)

    def fail(*args):
        calls.append(args)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(tool.Trouble, match="No space left"):
        tool.apply(tool.Migration(str(main)))
    assert place.files() == before
    assert not list(place.directory.glob(".migrate*"))


# what it does and says

def test_nothing_is_written_unasked(place):
    place.write("nginx.conf", in_http("proxy_pass http://a;"))
    before = place.files()
    said = place.run()
    assert "-http { proxy_pass http://a; +http { myproxy_pass" in said
    assert "Nothing was written" in said
    assert place.files() == before


def test_the_module_is_loaded_when_asked(place):
    text = "# first\n\nuser root;\n" + in_http("proxy_pass http://a;")
    module = place.write("m/ngx_http_myproxy_module.so", "")
    text, said = place.move(text, "--module", str(module))
    assert text.startswith(f"# first\n\nload_module {module};\nuser root;\n")
    assert "Nothing loads" not in said


def test_a_module_that_is_not_there_is_refused(place):
    module = str(place.directory / "nope.so")
    place.write("nginx.conf", in_http("proxy_pass http://a;"))
    assert (f"Must be changed first: - --module {module}: there is no such "
            "file" in place.run("--module", module))
    assert "nothing was written" in place.refuse("--apply", "--module",
                                                 module)


@pytest.mark.parametrize("name, refused", [("there.so", False),
                                           ("nope.so", True)])
def test_a_module_is_looked_for_where_nginx_does(place, monkeypatch, name,
                                                 refused):
    place.write("prefix/modules/there.so", "")
    place.write("bin/nginx", "#!/bin/sh\necho configure arguments: "
                f"--prefix={place.directory}/prefix --with-x >&2\n"
                ).chmod(0o755)
    monkeypatch.setenv("PATH", str(place.directory / "bin"), prepend=":")
    place.write("nginx.conf", in_http("proxy_pass http://a;"))
    said = place.run("--module", f"modules/{name}")
    assert ("there is no such file below "
            f"{place.directory}/prefix, the prefix of nginx" in said
            ) == refused


def test_the_module_is_loaded_once(place):
    place.write("modules/50.conf",
                "load_module modules/ngx_http_myproxy_module.so;")
    text = "include modules/*; " + in_http("proxy_pass http://a;")
    text, said = place.move(text, "--module", "x.so")
    assert "x.so" not in text
    assert "Nothing loads" not in said


def test_that_nothing_loads_the_module_is_said_last(place):
    said = place.move(in_http("proxy_pass http://a;"))[1]
    assert said.endswith(
        "Next: nginx -t, then nginx -s reload. Nothing loads "
        "ngx_http_myproxy_module.so: --module PATH adds the line. Without it "
        "nginx cannot start, unless the module is built in.")


def test_a_second_time_changes_nothing(place):
    module = str(place.write("m/ngx_http_myproxy_module.so", ""))
    text, _ = place.move(in_http("proxy_pass http://$proxy_host;"),
                         "--module", module)
    assert "Nothing to move" in place.run("--apply", "--module", module)
    assert place.read() == text


HOST = "Host is the client's own, no longer $proxy_host"
VERIFIED = "the origin's certificate is verified now"
SNI = "the name is sent in SNI"
KEY = "the default key has the request's Host in it"
REUSE = "connections are kept for further requests"
CLOSE = "close is sent with each request, so that no connection is reused"
NOTHING = "a value with variables adds nothing"
NO_HOST = "the key has no Host in it, and Host is the client's own now"
STAYS = "the line must stay all the same"
CAN_GO = "the line can go"


@pytest.mark.parametrize("text, said, unsaid", [
    ("proxy_pass http://a;", [HOST, REUSE], [VERIFIED, SNI, KEY]),
    ("proxy_set_header Host $host; location / { proxy_pass http://a; }",
     [], [HOST]),
    ("location / { proxy_pass http://a; proxy_set_header host x; }",
     [], [HOST]),
    ("proxy_set_header Host $host; location / { proxy_set_header X y;"
     " proxy_pass http://a; }", [HOST], []),
    ("proxy_pass https://a;",
     [VERIFIED, "must be for a, and by a CA of the system", SNI], []),
    ("proxy_pass https://10.0.0.1:8443;",
     [VERIFIED, "must be for 10.0.0.1,", "write myproxy_ssl_name with"],
     [SNI]),
    ("proxy_pass https://[::1]:8443;",
     [VERIFIED, "must be for [::1],", "write myproxy_ssl_name with"],
     [SNI]),
    ("proxy_ssl_name a; proxy_pass https://10.0.0.1;",
     ["must be for a,", SNI], ["write myproxy_ssl_name"]),
    ("proxy_ssl_trusted_certificate c; proxy_ssl_name b;"
     " proxy_pass https://a;",
     [VERIFIED, "must be for b,", "the CA that is named"], ["of the system"]),
    ("server { proxy_pass https://a; proxy_ssl_verify off;"
     " proxy_ssl_server_name on; }", ["SNI is the default"],
     [VERIFIED, SNI]),
    ("proxy_pass $scheme://a;", ["if it is https", "percent-encoded"], []),
    ("proxy_ssl_verify on;", ["to a depth of 9"], []),
    ("proxy_ssl_verify on; proxy_ssl_verify_depth 2;", [], ["to a depth"]),
    ('proxy_set_header Connection "";',
     ["no Connection is the default: the line can go"], ["WebSocket"]),
    ("proxy_set_header Connection $x;", [NOTHING], [CLOSE]),
    ("proxy_set_header connection 'close, ${x}';", [NOTHING], [CLOSE]),
    ("proxy_set_header Upgrade $http_upgrade;", [NOTHING], []),
    ("proxy_set_header Connection close;", [CLOSE], [NOTHING]),
    ("proxy_set_header connection 'X-Own,Close';", [CLOSE], [NOTHING]),
    ("proxy_set_header Connection x-close;", ["sent as it is"],
     [CLOSE, NOTHING]),
    ("proxy_set_header Connection upgrade;",
     ["is sent as it is with each request; WebSocket"], [CLOSE, NOTHING]),
    ("proxy_set_header Upgrade websocket;", ["Upgrade is sent as it is, when"],
     [NOTHING]),
    ("proxy_set_header Upgrade '';", ["Upgrade keeps clients from switching"],
     [NOTHING]),
    ("proxy_set_header Content-Length '';", ["ignored: the framing"], []),
    ("proxy_set_header Host $http_host;", ["Host is the default"], []),
    ("proxy_set_header X $uri;", ["has the request refused"], []),
    ("proxy_http_version 1.1;", ["HTTP/1.1 is the default"], []),
    ("proxy_http_version 1.0; proxy_pass http://a;",
     ["with HTTP/1.0 nothing is reused"], [REUSE]),
    ("proxy_cache z;", [KEY], []),
    ("proxy_cache_key k; server { proxy_cache z; }", [], [KEY]),
    ("proxy_cache_key $scheme$proxy_host$request_uri; proxy_cache z;"
     " server { location / { proxy_pass http://a; } }",
     [NO_HOST, HOST], [KEY]),
    ("location / { proxy_cache z; proxy_cache_key $uri$is_args$args;"
     " proxy_pass http://a; }", [NO_HOST], []),
    ("proxy_cache z; proxy_cache_key $scheme${host}$request_uri;"
     " proxy_pass http://a;", [], [NO_HOST]),
    ("proxy_cache z; proxy_cache_key $http_host$uri; proxy_pass http://a;",
     [], [NO_HOST]),
    ("proxy_cache z; proxy_cache_key $hostname$uri; proxy_pass http://a;",
     [NO_HOST], []),
    ("proxy_cache z; proxy_cache_key $proxy_host$uri; proxy_pass http://a;"
     " proxy_set_header Host a;", [], [NO_HOST]),
    ("location / { proxy_cache z; proxy_cache_key $proxy_host$uri;"
     " proxy_pass https://a.example; }", [], [NO_HOST]),
    ("proxy_cache_key $proxy_host$uri; location / { proxy_cache off;"
     " proxy_pass http://a; }", [], [NO_HOST]),
    ("proxy_set_header X a; location / { proxy_pass http://a;"
     " proxy_set_header Connection ''; proxy_set_header Upgrade $x; }",
     ["is the default: " + STAYS, "whatever a map says; " + STAYS],
     [CAN_GO]),
    ("proxy_set_header X a; location / { proxy_pass http://a;"
     " proxy_set_header Connection ''; proxy_set_header X b; }",
     ["is the default: " + CAN_GO], [STAYS]),
    ("proxy_set_header Upgrade $x; location / { proxy_pass http://a;"
     " proxy_set_header Connection ''; }",
     ["is the default: " + CAN_GO], [STAYS]),
    ("proxy_set_header X a; location / { proxy_pass https://a.example;"
     " proxy_set_header Connection ''; }",
     ["is the default: " + CAN_GO], [STAYS]),
    ("proxy_http_version 1.0; location / { proxy_http_version 1.1; }",
     [], [CAN_GO]),
    ("proxy_cache off;", ["1 other line: nothing differs"], [KEY]),
    ("proxy_cache_path /c keys_zone=z:1m;", ["the zone belongs"], []),
    ("proxy_pass_request_body off;", ["no Content-Length any more"], []),
    ("set $x $proxy_internal_chunked; proxy_store on;",
     ["this variable has no counterpart"], []),
], ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_what_will_differ_is_said(place, text, said, unsaid):
    _, output = place.move(in_http(text))
    for part in said:
        assert part in output
    for part in unsaid:
        assert part not in output


ADDED = "myproxy_set_header Host $myproxy_host"


@pytest.mark.parametrize("before, after", [
    ("location / { proxy_pass https://a.example.org/; }",
     f"location / {{ {ADDED}; myproxy_pass https://a.example.org/; }}"),
    ("location / {\n\tproxy_pass HTTPS://a.example.org:8443$request_uri;\n}",
     f"location / {{\n\t{ADDED};\n"
     "\tmyproxy_pass HTTPS://a.example.org:8443$request_uri;\n}"),
    ("proxy_set_header X-A $proxy_host;\nproxy_set_header 'X-B' \"b;\";"
     " location / {\r\n proxy_pass https://a.example.org; }",
     "myproxy_set_header X-A $myproxy_host;\nmyproxy_set_header 'X-B' \"b;\";"
     f" location / {{\r\n {ADDED};\r\n myproxy_set_header X-A $myproxy_host;"
     "\r\n myproxy_set_header 'X-B' \"b;\";\r\n"
     " myproxy_pass https://a.example.org; }"),
    ("proxy_set_header X-A a; location / { proxy_set_header X-B b;"
     " proxy_pass https://a.example.org; }",
     "myproxy_set_header X-A a; location / { myproxy_set_header X-B b; "
     f"{ADDED}; myproxy_pass https://a.example.org; }}"),
    ("proxy_ssl_name a.example.org; location / {"
     " proxy_pass https://a.example.org; }",
     "myproxy_ssl_name a.example.org; location / {"
     f" {ADDED}; myproxy_pass https://a.example.org; }}"),
], ids=lambda text: text[:60])
def test_a_host_that_sni_has_too_is_kept(place, before, after):
    text, said = place.move(in_http(before))
    assert text == in_http(after)
    assert "Host stays the name in the pass" in said
    assert HOST not in said
    assert ("with the lines that were inherited" in said) == (
        text.count("X-A") == 2)
    assert "Nothing to move" in place.run("--apply")


@pytest.mark.parametrize("text", [
    "location / { proxy_pass http://a.example.org; }",
    "location / { proxy_pass https://backend; }",
    "location / { proxy_pass https://app.local/; }",
    "location / { proxy_pass https://app.svc.cluster.local.; }",
    "location / { proxy_pass https://db.Internal; }",
    "location / { proxy_pass https://192.0.2.1:8443/; }",
    "location / { proxy_pass https://[2001:db8::1]; }",
    "location / { proxy_pass https://$host.example.org; }",
    "location / { proxy_pass https://a.example.org$port; }",
    "location / { proxy_set_header HOST x; proxy_pass https://a.example; }",
    "proxy_set_header Host $host; location / { proxy_pass https://a.b; }",
    "proxy_ssl_name b.org; location / { proxy_pass https://a.example; }",
    "proxy_ssl_server_name off; location / { proxy_pass https://a.example; }",
    "location / { if ($x) { proxy_pass https://a.example; } }",
    "location / { limit_except GET { proxy_pass https://a.example; } }",
], ids=lambda text: text[:60])
def test_no_other_host_is_added(place, text):
    moved, _ = place.move(in_http(text))
    assert moved == in_http(text.replace("proxy_", "myproxy_"))


def test_a_host_is_kept_only_where_all_includes_need_it(place):
    place.write("pass", "proxy_pass https://a.example.org;")
    _, said = place.move(in_http(
        "location /a { include pass; }"
        " location /b { proxy_set_header Host b; include pass; }"))
    assert place.read("pass") == "myproxy_pass https://a.example.org;"
    assert HOST in said
    assert ADDED in said


@pytest.mark.parametrize("text, moved", [
    ("proxy_temp_path /t;", "myproxy_temp_path /t; proxy_temp_path /t;"),
    ("server {\n    proxy_temp_path '/t' 1 2;\n}",
     "server {\n    myproxy_temp_path '/t' 1 2;\n"
     "    proxy_temp_path '/t' 1 2;\n}"),
    ("proxy_temp_path /t; myproxy_temp_path /u; proxy_buffering on;",
     "proxy_temp_path /t; myproxy_temp_path /u; myproxy_buffering on;"),
])
def test_the_temporary_files_of_the_stock_module_stay(place, text, moved):
    assert place.move(in_http(text))[0] == in_http(moved)
    assert "Nothing to move" in place.run("--apply")


@pytest.mark.parametrize("line, reason", [
    ("proxy_set_header X-A: b;", '"X-A:" is no name of a field'),
    ("proxy_set_header 'X A' b;", '"X A" is no name of a field'),
    ("proxy_set_header X-A 'b\n c';", "the value of X-A has a line break"),
    (r"proxy_set_header X-A 'b\r\nX: c';", "of X-A has a line break"),
    (r"proxy_set_header X-A b\\\n;", "the value of X-A has a line break"),
    ("proxy_set_header host '';", "Host cannot be empty"),
])
def test_what_would_not_start_is_refused(place, line, reason):
    place.write("nginx.conf", in_http("\n" + line + "proxy_pass http://a;"))
    said = place.run()
    assert "Must be changed first: - nginx.conf:2: " in said
    assert reason in said
    assert said.index("Must be changed first") < said.index("What will differ")
    assert "nothing was written" in place.refuse("--apply")


@pytest.mark.parametrize("line", [
    r"proxy_set_header X-A 'b\\n';", "proxy_set_header X_a.~! b;",
    "proxy_set_header X-A '';"])
def test_what_would_start_is_not_refused(place, line):
    assert "Must be changed first" not in place.move(in_http(line))[1]


def test_notes_come_by_their_weight(place):
    _, said = place.move(in_http(
        "proxy_http_version 1.1; proxy_pass_request_body off;\n"
        "proxy_pass http://a;"))
    order = [said.index(text) for text in (
        "What will differ, and may need a decision:", HOST,
        "What will differ besides:", "no Content-Length any more", REUSE,
        "Lines that can go:", "HTTP/1.1 is the default")]
    assert order == sorted(order)


def test_names_are_not_broken_and_numbers_agree(place):
    name = "conf.d/" + "-".join(["a-long-name"] * 9) + ".conf"
    place.write(name, "proxy_pass http://a;\n" * 3)
    place.write("nginx.conf", in_http(f"include {name};"))
    lines = place.call("--apply").stdout.splitlines()
    for number in (1, 2, 3):
        assert any(f"{name}:{number}" in line for line in lines)
    assert any(line.startswith("1 file written; the old one is in ")
               for line in lines)
    assert "1 file is as it was before." in place.run("--undo")


def test_places_are_named(place):
    place.write("site", "\n\nproxy_pass http://a;\nproxy_pass http://b;\n")
    _, said = place.move(in_http("include site;"))
    assert "myproxy_host site:3, site:4" in said


def test_a_zone_of_both_modules_is_refused(place):
    place.write("nginx.conf", in_http(
        "proxy_cache_path /a keys_zone=z:1m;"
        "myproxy_cache_path /b keys_zone=z:1m;"))
    assert 'zone "z" is defined for both modules' in place.run()
    place.refuse("--apply")


def test_a_zone_that_something_else_needs_is_refused(place):
    place.write("nginx.conf", in_http(
        "proxy_cache_path /a keys_zone=z:1m;\nproxy_cache_purge z $uri;"))
    assert 'nginx.conf:2: proxy_cache_purge needs zone "z"' in place.run()
    place.refuse("--apply")


# the way back

def test_undo_brings_all_back(place):
    place.write("a", "proxy_buffering off;")
    place.write("nginx.conf", in_http("include a; proxy_pass http://a;"))
    before = place.files()
    place.run("--apply")
    assert place.files() != before
    place.run("--undo")
    assert place.files() == before
    assert not list(place.directory.glob(".migrate*"))
    assert "nothing was moved" in place.refuse("--undo")


def test_undo_takes_back_the_last_move_first(place):
    place.move(in_http("proxy_pass http://a;"))
    first = place.read()
    place.write("nginx.conf", first + "# changed\n"
                + in_http("proxy_pass http://b;"))
    second = place.read()
    place.run("--apply")
    place.run("--undo")
    assert place.read() == second
    assert "was changed since" in place.refuse("--undo")


def test_undo_finishes_what_was_interrupted(place):
    """Some of the files were written, others not."""
    place.write("a", "proxy_buffering off;")
    place.write("nginx.conf", in_http("include a; proxy_pass http://a;"))
    before = place.files()
    place.run("--apply")
    place.write("a", "proxy_buffering off;")
    place.run("--undo")
    assert place.files() == before


@pytest.mark.parametrize("damage", [
    lambda path: path.write_text("["),
    lambda path: path.unlink(),
    lambda path: (path.parent / "1-nginx.conf.orig").unlink(),
])
def test_undo_refuses_a_damaged_list(place, damage):
    place.move(in_http("proxy_pass http://a;"))
    manifest = place.directory / ".migrate-orig-1/manifest.json"
    assert [entry["path"] for entry in json.loads(manifest.read_text())] \
        == [str(place.directory / "nginx.conf")]
    damage(manifest)
    place.refuse("--undo")


# a whole configuration: the same answers before and after

def shop_script(counts):
    """The application: answers by the path, counts what it was asked."""
    def answer(request):
        path, _, query = request.target.partition("?")
        counts[request.target] += 1
        count = counts[request.target]
        body = f"{path} #{count}\n".encode()
        if "/redirect" in path:
            return http1.response(302, f"Location: {query}", "Refresh: 5; "
                                  f"url={query}", body=body)
        if "/cookies" in path:
            return http1.response(
                200, "Set-Cookie: session=1; Domain=app.internal; "
                "Path=/second/x; SameSite=None",
                "Set-Cookie: tmp1=2; Secure; Path=/other", body=body)
        if "/static" in path:
            return http1.response(200, "Set-Cookie: a=b", "Vary: Cookie",
                                  "Cache-Control: max-age=60", body=body)
        if "/revalidated" in path:
            if request.header("If-None-Match") == '"v1"':
                return http1.response(304, 'ETag: "v1"')
            return http1.response(200, 'ETag: "v1"',
                                  "X-Accel-Expires: @1", body=body)
        if "/errors" in path or "/teapot" in path:
            return http1.response(503, "X-Reason: tired", body=body)
        if "/headers" in path:
            return http1.response(
                200, "X-Powered-By: steam", "Server: engine",
                "X-Accel-Expires: 3", "X-Own: 1", "X-Own: 2",
                "X-Accel-Limit-Rate: 100000", body=body)
        if "/accel" in path and "from-" not in path:
            return http1.response(200, "X-Accel-Redirect: /internal/x?y=z",
                                  body=body)
        if "/check" in path:
            allowed = request.values("Cookie") == ["member=yes"]
            return http1.response(200 if allowed else 403, "X-User: ann",
                                  body=b"")
        if "/chunked" in path:
            return http1.compose("HTTP/1.1 200 OK",
                                 ["Transfer-Encoding: chunked"],
                                 http1.chunked(body, b"more\n"))
        if "/until-close" in path:
            return http1.compose("HTTP/1.1 200 OK", ["Connection: close"],
                                 body * 50)
        if "/empty" in path:
            return http1.response(204, "X-Empty: yes")
        if "/large" in path:
            return http1.response(200, body=body * 40000)
        if "/ranges" in path or "/max" in path:
            return http1.response(200, "Last-Modified: Mon, 02 Jan 2023 "
                                  "03:04:05 GMT", body=b"0123456789" * 10)
        return http1.response(200, body=body)

    def script(conn):
        for request in conn.each_request():
            if request.values("Upgrade"):
                conn.respond(101, "Upgrade: websocket",
                             "Connection: upgrade", reason="Switching")
                while data := conn.recv():
                    conn.send(data)
                return
            head, _, body = answer(request).partition(b"\r\n\r\n")
            if request.wants_close and b"Connection: close" not in head:
                head += b"\r\nConnection: close"
            if request.method == "HEAD":
                body = b""
            conn.send(head + b"\r\n\r\n" + body)
            if b"Connection: close" in head:
                return
    return script


WEBSOCKET = ["Upgrade: websocket", "Connection: Upgrade",
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
             "Sec-WebSocket-Version: 13"]


def recorded():
    """The requests: (host, method, target, lines, body)."""
    def get(host, target, *lines, method="GET", body=None):
        return host, method, target, lines, body

    return [
        get("shop.test", "/"),
        get("shop.test", "/a%20b/../c?x=%2F&y", "X-Own: 1", "Cookie: a=b"),
        get("shop.test", "/chunked"),
        get("shop.test", "/until-close"),
        get("shop.test", "/empty"),
        get("shop.test", "/large", method="HEAD"),
        get("shop.test", "/large"),
        get("shop.test", "/teapot"),
        get("shop.test", "/two/redirect?http://127.0.0.1:1/x"),
        get("shop.test", "/two/redirect?%{app}/second/there"),
        get("shop.test", "/two/redirect?http://old.test/a/b"),
        get("shop.test", "/two/redirect?http://quoted.test/a"),
        get("shop.test", "/two/cookies"),
        get("shop.test", "/two/a%2Fb/%7Ec?q=1"),
        get("shop.test", "/two"),
        get("shop.test", "/pattern/42/rest?and=more"),
        get("shop.test", "/plain/redirect?%{app}/there"),
        get("shop.test", "/plain/cookies"),
        get("shop.test", "/static/a.css"),
        get("shop.test", "/static/a.css"),
        get("shop.test", "/static/a.css", method="HEAD"),
        get("shop.test", "/static/a.css", "Range: bytes=1-3"),
        get("shop.test", "/static/a.css", "X-Bypass: yes"),
        get("shop.test", "/static/b.css?nostore=1"),
        get("shop.test", "/static/b.css?nostore=1"),
        get("shop.test", "/revalidated/c"),
        get("shop.test", "/revalidated/c"),
        get("shop.test", "/revalidated/c"),
        get("shop.test", "/revalidated/c", 'If-None-Match: "v1"'),
        get("shop.test", "/revalidated/d", method="POST", body=b"key"),
        get("shop.test", "/flavour/x?flavour=proxy_pass"),
        get("shop.test", "/flavour/x?flavour=vanilla&user=bob",
            "X-Forwarded-For: 192.0.2.1"),
        get("shop.test", "/errors/x"),
        get("shop.test", "/headers/x"),
        get("shop.test", "/accel/x"),
        get("shop.test", "/internal/x"),
        get("shop.test", "/members/x"),
        get("shop.test", "/members/x", "Cookie: member=yes"),
        get("shop.test", "/members/x", "Cookie: member=yes", method="POST",
            body=b"posted"),
        get("shop.test", "/files/none?x=1"),
        get("shop.test", "/rewritten/x?y=1"),
        get("shop.test", "/chosen/x"),
        get("shop.test", "/chosen/x%20y?to=media"),
        get("shop.test", "/conditional/x"),
        get("shop.test", "/conditional/x", method="POST", body=b"x"),
        get("shop.test", "/conditional/x", method="DELETE"),
        get("api.test", "/fails-over"),
        get("api.test", "/fails-over", method="POST", body=b"x=1"),
        get("api.test", "/upload", method="POST", body=b"x" * 70000),
        get("api.test", "/upload", method="PUT", body=[b"one", b"two"]),
        get("api.test", "/stored", method="POST", body=b"y" * 70000),
        get("api.test", "/stored", method="POST", body=[b"one", b"two"]),
        get("api.test", "/fixed?user=ann", method="POST", body=b"no"),
        get("api.test", "/bare", "X-Own: 1", "Cookie: a=b"),
        get("api.test", "/ranges", "Range: bytes=0-4,10-14"),
        get("api.test", "/ranges", "Range: bytes=-5"),
        get("api.test", "/bound/large"),
        get("media.test", "/film"),
        get("media.test", "/film"),
        get("media.test", "/film", method="HEAD"),
        get("media.test", "/live/film"),
        get("media.test", "/kept/film"),
        get("media.test", "/max/film", "Range: bytes=5-6"),
        get("media.test", "/max/film", "Range: bytes=50-51"),
        get("chat.test", "/room"),
        get("chat.test", "/room", *WEBSOCKET),
        get("secure.test", "/"),
        get("secure.test", "/named/x"),
        get("secure.test", "/wrong-name/x"),
        get("secure.test", "/unverified/x"),
        get("secure.test", "/certified/x"),
        get("legacy.test", "/"),
        get("legacy.test", "/old/chunked"),
        get("legacy.test", "/old/x", method="POST", body=b"old"),
    ]


#: Fields whose values differ by the time or the connection.
VOLATILE = {"date"}


def of_legacy(request):
    """Is it the one that is sent with the default Host?"""
    return request.values("X-Site") == ["legacy"]


class Play:
    """One run of all recorded requests: answers, and what origins saw."""

    def __init__(self, stage, origins, moved):
        self.origins = origins
        seen = {name: len(origin.requests)
                for name, origin in origins.items()}
        known = {name: len(origin.conns) for name, origin in origins.items()}
        nginx = WholeNginx(stage.exchange, stage.names, DATA)
        stage.nginxes.append(nginx)
        self.said = self._move(nginx) if moved else ""
        nginx.expect_log("SSL certificate does not match|Connection refused")
        nginx.start()
        self.nginx = nginx
        self.answers = [self._play(*entry) for entry in recorded()]
        stage.wait_until(lambda: nginx.read("access.log").count(b"\n")
                         >= len(self.answers))
        self.access = [self._plain(line) for line in
                       nginx.read("access.log").decode().splitlines()]
        self.stored = nginx.read("store/kept/film")
        self.seen = {name: origin.requests[seen[name]:]
                     for name, origin in origins.items()}
        self.conns = {name: origin.conns[known[name]:]
                      for name, origin in origins.items()}
        nginx.stop()

    @staticmethod
    def _move(nginx):
        module = [] if settings.MODULE == "static" \
            else ["--module", settings.MODULE]
        done = subprocess.run(
            [sys.executable, TOOL, "--apply", *module, nginx.path],
            capture_output=True, text=True, check=True)
        return done.stdout

    def _plain(self, text):
        """Ports and directories are not the same in two runs."""
        for name, origin in self.origins.items():
            text = text.replace(str(origin), f"<{name}>")
        text = text.replace(f":{self.nginx.port()}", ":<nginx>")
        return text.replace(self.nginx.prefix, "<prefix>")

    def _play(self, host, method, target, lines, body):
        target = target.replace("%{app}", f"http://{self.origins['app']}")
        client = self.nginx.connect()
        response = client.request(method, target, f"Host: {host}", *lines,
                                  body=body)
        echoed = b""
        if response.status == 101:
            client.send(b"are you there?")
            echoed = client.read(len(b"are you there?"))
        client.close()
        headers = [(name.decode().lower(), self._plain(value.decode()))
                   for name, value in response.headers]
        return (f"{host} {method} {target}", response.status, echoed,
                re.sub(rb"--\d{20}", b"--boundary", response.body),
                [(name, re.sub(r"\d{20}", "boundary", value))
                 for name, value in headers if name not in VOLATILE])

    def names(self):
        """The TLS names that were asked for."""
        return {conn.sni for name in ("secure", "strict")
                for conn in self.conns[name]}

    def requests(self, name):
        """What an origin saw, apart from the differences listed."""
        return [(request.method, request.target, request.body,
                 request.chunked,
                 sorted((field.decode().lower(), self._plain(value.decode()))
                        for field, value in request.headers
                        if field != b"Connection"
                        and (field != b"Host" or not of_legacy(request))))
                for request in self.seen[name]]


@pytest.mark.skipif(settings.STOCK, reason="compares the two itself")
@pytest.mark.timeout(120 * settings.SCALE)
def test_a_moved_configuration_gives_the_same_answers(stage, authority):
    counts = collections.Counter()
    script = shop_script(counts)
    origins = {name: stage.origin(script, name=name)
               for name in ("app", "media", "chat")}
    origins["gone"] = stage.origin(name="gone", listening=False)
    origins["secure"] = stage.origin(script, name="secure",
                                     tls="partner.example")
    origins["strict"] = stage.origin(script, name="strict", tls=tls.Server(
        authority.issue("strict.example"), client_ca=authority.path))
    stage.names["ours"] = authority.issue("client.example")

    before = Play(stage, origins, moved=False)
    counts.clear()
    after = Play(stage, origins, moved=True)

    assert sum(1 for _ in DATA.rglob("*.conf")) > 8
    assert "Nothing loads" not in after.said or settings.MODULE == "static"
    for old, new in zip(before.answers, after.answers):
        assert new == old
    assert after.access == before.access
    assert after.stored == before.stored
    assert {answer[1] for answer in after.answers} >= {
        101, 200, 204, 206, 301, 302, 304, 403, 502, 503}
    for name in origins:
        assert after.requests(name) == before.requests(name)
    check_differences(before, after)


def check_differences(before, after):
    """The differences that are listed are there, and only where due."""
    for play, host in (before, "app"), (after, "legacy.test"):
        assert [request.header("Host") for request in play.seen["app"]
                if of_legacy(request)] == [host]
    # /wrong-name/ has no proxy_ssl_server_name
    assert before.names() == {"partner.example", None}
    assert after.names() == {"partner.example", "another.example", None}
    if version() < (1, 29, 7):
        assert len(after.conns["media"]) == 1 < len(before.conns["media"])
    for request in after.seen["app"]:
        assert request.version == ("HTTP/1.0" if "/old/" in request.target
                                   else "HTTP/1.1")
    assert not any("close" in request.tokens("Connection")
                   for name in ("app", "media", "secure")
                   for request in after.seen[name])


def test_it_goes_on_where_nobody_reads(place):
    """As behind "head"."""
    conf = place.write("nginx.conf", in_http("proxy_pass http://a;"))
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        done = subprocess.run(
            [sys.executable, TOOL, "--apply", conf], stdout=gone,
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "myproxy_pass" in place.read()
