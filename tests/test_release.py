"""The version of the module stands in one place, and is shown in others."""

import json
import re

from harness import settings

HEADER = settings.ROOT / "src/ngx_http_myproxy_version.h"
CHANGELOG = settings.ROOT / "CHANGELOG.md"
DEBIAN = settings.ROOT / "debian/changelog"

VERSION = re.search(r'NGX_HTTP_MYPROXY_VERSION +"(.*)"',
                    HEADER.read_text())[1]
LINE = re.escape(f"ngx_http_myproxy_module/{VERSION}") + "$"


def test_it_is_a_semantic_version():
    assert re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(-[0-9A-Za-z.]+)?",
                        VERSION)


def test_nothing_else_in_the_sources_says_it():
    assert [path for path in (settings.ROOT / "src").rglob("*.[ch]")
            if f'"{VERSION}' in path.read_text()] == [HEADER]


def test_changelogs_have_it():
    newest = re.search(r"^## \[(\S+)\]", CHANGELOG.read_text(), re.MULTILINE)
    assert newest[1] == VERSION
    # a version before a release, as 1.0.0-rc1, is 1.0.0~rc1 there
    package = re.match(r"libnginx-mod-http-myproxy \((\S+)-0upstream\d+\) ",
                       DEBIAN.read_text())
    assert package[1] == VERSION.replace("-", "~")


def test_the_status_page_shows_it(stage):
    nginx = stage.nginx(location="reuse_status;")
    found = json.loads(nginx.get("/?format=json").body)
    assert found["module_version"] == VERSION
    metrics = nginx.get("/?format=prometheus").body.decode()
    assert (f'nginx_reuse_build_info{{version="{VERSION}",'
            f'nginx_version="{found["nginx_version"]}"}} 1\n') in metrics
    page = nginx.get("/?format=html").body.decode()
    assert f"<p>ngx_http_myproxy_module {VERSION}, nginx " in page


def test_the_log_tells_it_at_each_start_and_reload(stage):
    nginx = stage.nginx(location="return 204;")
    line, = nginx.wait_log(LINE)
    assert "[notice]" in line
    nginx.reload()
    assert len(nginx.wait_log(LINE, count=2)) == 2


def test_a_test_of_a_configuration_does_not_tell_it(stage):
    code, text = stage.config_test(location="return 204;")
    assert code == 0
    assert "ngx_http_myproxy_module/" not in text
