"""tools/migrate on whole configurations, shaped as well-known software's."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from harness import http1, settings, tls
from harness.nginx import build_info
from harness.whole import WholeNginx

TOOL = settings.ROOT / "tools/migrate"
DATA = pathlib.Path(__file__).parent / "data/deployed"
DEPLOYED = sorted(path.name for path in DATA.iterdir())

pytestmark = pytest.mark.skipif(settings.STOCK,
                                reason="compares the two itself")

DECISIVE = "What will differ, and may need a decision:"
BESIDES = "What will differ besides:"
SPARE = "Lines that can go:"


def built_in():
    """The stock proxy's directory of temporary files."""
    found = re.search(r"--http-proxy-temp-path=(\S+)", build_info())
    return found[1] if found else "proxy_temp"


class Deployed:
    """One of the configurations, in an nginx's directory."""

    def __init__(self, stage, name, script=None):
        path = built_in()
        if os.path.isabs(path) and os.geteuid():
            pytest.skip(f"only root may use {path}")
        own = stage.authority.issue("origin.test")
        self.origin = stage.origin(script)
        stage.names.update(own=own, builtin=path)
        self.nginx = WholeNginx(stage.exchange, stage.names, DATA / name)
        stage.nginxes.append(self.nginx)
        self.conf = pathlib.Path(self.nginx.path).parent

    def texts(self):
        return {path: path.read_text() for path in self.conf.rglob("*.conf")}

    def call(self, *args):
        return subprocess.run(
            [sys.executable, TOOL, *args, self.nginx.path], check=True,
            capture_output=True, text=True).stdout

    def move(self):
        module = [] if settings.MODULE == "static" \
            else ["--module", settings.MODULE]
        return self.call("--apply", *module)

    def check(self):
        code, text = self.nginx.test_config()
        assert code == 0, text
        assert "[emerg]" not in text
        return text


@pytest.mark.parametrize("name", DEPLOYED)
def test_what_is_moved_starts(stage, name):
    deployed = Deployed(stage, name)
    before = deployed.texts()
    deployed.check()
    said = deployed.move()
    deployed.check()
    moved = deployed.texts()
    for path, text in moved.items():
        left = re.findall(r"^ *(proxy_\w+)", text, re.MULTILINE)
        assert set(left) <= {"proxy_temp_path"}, path
    changed = [path for path in before if moved[path] != before[path]]
    assert f"{len(changed)} file{'s' * (len(changed) != 1)} written" in said
    assert "Nothing to move." in deployed.call("--apply")
    assert "as " in deployed.call("--undo")
    assert deployed.texts() == before
    deployed.check()


@pytest.mark.parametrize("name", DEPLOYED)
def test_names_of_files_stay_whole(stage, name):
    deployed = Deployed(stage, name)
    said = deployed.call()
    names = {str(path.relative_to(deployed.conf))
             for path in deployed.texts()}
    notes = said[said.index(DECISIVE if DECISIVE in said else BESIDES):]
    places = re.findall(r"(\S+):(\d+)\b", notes)
    assert places
    assert {place for place, _ in places} <= names
    titles = [title for title in (DECISIVE, BESIDES, SPARE) if title in said]
    assert [said.index(title) for title in titles] == sorted(
        said.index(title) for title in titles)


def test_the_temporary_files_of_both_modules_agree(stage):
    deployed = Deployed(stage, "harbor")
    said = " ".join(deployed.move().split())
    text = deployed.texts()[deployed.conf / "nginx.conf"]
    line = f"proxy_temp_path {built_in()};\n"
    assert f"    my{line}    {line}" in text
    assert "proxy_temp_path stays beside the new line" in said


def test_avatars_are_asked_for_by_the_name_of_their_site(stage):
    def script(conn):
        conn.serve(lambda request: http1.response(
            body=request.header("Host").encode()))

    deployed = Deployed(stage, "discourse", script)
    deployed.origin.tls = tls.Server(
        stage.authority.issue("avatars.example.org"))
    said = deployed.move()
    assert "Host is the client's own" not in said
    deployed.nginx.start()
    response = deployed.nginx.get("/letter_avatar_proxy/a.png",
                                  "Host: forum.test")
    assert (response.status, response.body) == (200, b"avatars.example.org")
    assert deployed.origin.conns[0].sni == "avatars.example.org"


def test_a_name_with_inherited_lines_keeps_these(stage):
    deployed = Deployed(stage, "cloud")
    said = " ".join(deployed.move().split())
    text = deployed.texts()[deployed.conf / "nginx.conf"]
    assert """
        location ^~ /apps/weather/ {
            myproxy_set_header Host $myproxy_host;
            myproxy_set_header X-Real-IP $remote_addr;
            myproxy_set_header X-Forwarded-For $myproxy_add_x_forwarded_for;
            myproxy_set_header X-Forwarded-Proto $scheme;
            myproxy_set_header X-Forwarded-Host $host;
            myproxy_set_header Accept-Encoding "";
            myproxy_pass https://weather.example.org/v1/;
""" in text
    assert "is added, with the lines that were inherited nginx.conf:" in said


def test_close_and_the_map_are_told_apart(stage):
    deployed = Deployed(stage, "home")
    said = deployed.move()
    text = deployed.conf.joinpath("nginx.conf").read_text().splitlines()
    place = 1 + [number for number, line in enumerate(text)
                 if 'Connection "close"' in line][0]
    decisive = said[said.index(DECISIVE):said.index(BESIDES)]
    spare = said[said.index(SPARE):]
    assert "close is sent with each request" in decisive
    # added above it: load_module, if there is one, and the temporary files
    added = 1 if settings.MODULE == "static" else 2
    assert f"nginx.conf:{place - added}\n" in decisive
    assert "a value with variables adds nothing" in spare
    assert "proxy.conf:5, proxy.conf:6\n" in spare
    warnings = re.findall(r"\[warn\] .*", deployed.check())
    assert len(warnings) == 1
    assert 'no connection is reused with "myproxy_set_header Conn' in \
        warnings[0]


@pytest.mark.parametrize("name, paths", [
    ("mastodon", ["/api/v1/timelines", "/api/v1/streaming/health"]),
    ("cloud", ["/index.php"]), ("home", ["/", "/api/hassio_ingress/x"])])
def test_connections_are_reused_after_the_move(stage, name, paths):
    """Though the origin closes when it is told to, without a word."""
    deployed = Deployed(stage, name)
    deployed.move()
    deployed.nginx.start()
    client = deployed.nginx.connect()
    for _ in range(10):
        for path in paths:
            assert client.get(path).status == 200
    assert deployed.origin.connections <= len(paths)
