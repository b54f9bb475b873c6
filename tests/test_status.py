"""The status page, its JSON and Prometheus' text."""

import html.parser
import json
import re
import socket
import shutil
import subprocess
import urllib.parse

import pytest

from harness import http1, settings, tls
from harness.clock import Clock

jsonschema = pytest.importorskip("jsonschema")

SCHEMA = settings.ROOT / "docs/status.schema.json"
STATUS = "/status"
WIDTHS = {"phone": 390, "desktop": 1280}

HTML = "text/html; charset=utf-8"
JSON = "application/json; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"

#: What a real Prometheus and a real browser send.
PROMETHEUS = ("application/openmetrics-text;version=1.0.0;q=0.5,"
              "application/openmetrics-text;version=0.0.1;q=0.4,"
              "text/plain;version=0.0.4;q=0.3,*/*;q=0.2")
BROWSER = ("text/html,application/xhtml+xml,application/xml;q=0.9,"
           "image/avif,image/webp,*/*;q=0.8")

ODD = 'a"b<c>&\\d'


def start(stage, *, http="", server="", **more):
    """Two upstreams in the main server, and the page."""
    stage.origin(name="first")
    stage.origin(name="second", tls="origin.test")
    stage.origin([http1.response(200, "Connection: close")], name="closing")
    return stage.nginx(http=http, server=server + """
        location /first { myproxy_pass http://%{first}; }
        location /second { myproxy_pass https://%{second};
                           myproxy_ssl_verify off; }
        location /closing { myproxy_pass http://%{closing}; }
        location = /status { reuse_status; }
    """, **more)


def traffic(nginx, *targets):
    for target in targets or ["/first"] * 5 + ["/second"] * 3 + [
            "/closing"] * 2:
        assert nginx.get(target).status == 200


def status(nginx, form, *lines):
    response = nginx.get(f"{STATUS}?format={form}", *lines)
    assert response.status == 200
    return response.body.decode()


# which format

@pytest.mark.parametrize("accept, kind", [
    (None, HTML), ("*/*", HTML), (BROWSER, HTML), ("text/html", HTML),
    ("image/png", HTML), ("", HTML), ("text/*", HTML), (";q=1,,", HTML),
    ("application/json", JSON), ("APPLICATION/JSON", JSON),
    ("application/json, text/html;q=0.9", JSON),
    ("text/html;q=0.9,application/json", JSON),
    ("text/html; level=1; q=0.2 , application/json ; q=0.3", JSON),
    ("application/*", JSON), ("application/json;q=x, text/html;q=0.1", HTML),
    ("application/json;q=0", HTML), ("text/html;q=0, application/json", JSON),
    ("text/plain", TEXT), (PROMETHEUS, TEXT),
    ("application/openmetrics-text", TEXT), ("text/plain;q=0.5;x=1", TEXT),
])
def test_accept_chooses_the_format(stage, accept, kind):
    nginx = start(stage)
    lines = [] if accept is None else [f"Accept: {accept}"]
    response = nginx.get(STATUS, *lines)
    assert response.status == 200
    assert response.header("Content-Type") == kind
    assert response.header("Vary") == "Accept"
    assert response.header("Cache-Control") == "no-store"


@pytest.mark.parametrize("form, kind", [
    ("html", HTML), ("json", JSON), ("prometheus", TEXT)])
def test_the_argument_comes_first(stage, form, kind):
    nginx = start(stage)
    for method in ("GET", "HEAD"):
        response = nginx.request(method, f"{STATUS}?format={form}",
                                 "Accept: application/json, text/html")
        assert response.status == 200
        assert response.header("Content-Type") == kind
        assert int(response.header("Content-Length")) > 100


@pytest.mark.parametrize("form", ["", "xml", "JSON", "jsonx", "jso"])
def test_another_format_is_refused(stage, form):
    nginx = start(stage)
    assert nginx.get(f"{STATUS}?format={form}").status == 400
    assert nginx.logged('is "html", "json" or "prometheus"')


def test_other_methods_are_refused(stage):
    nginx = start(stage)
    for method in ("POST", "PUT", "DELETE"):
        assert nginx.request(method, STATUS).status == 405
    head = nginx.request("HEAD", STATUS)
    assert (head.status, head.body) == (200, b"")


def test_a_body_that_is_not_read_has_to_be_one(stage):
    nginx = start(stage)
    client = nginx.connect()
    client.send(http1.request("GET", STATUS, "Transfer-Encoding: chunked")
                + b"no size\r\n")
    assert client.read_response().status == 400


def test_it_may_be_denied(stage):
    stage.origin()
    nginx = stage.nginx(server="location = /status {"
                               "    reuse_status; deny all; }")
    assert nginx.get(STATUS).status == 403


def test_it_may_be_included(stage):
    """In a subrequest it is a part of another response."""
    nginx = start(stage, server="""
        location /page { ssi on; ssi_types *; root %{prefix}/html; }
        location = /part { reuse_status; }
    """, files={"html/page": '<!--#include virtual="/part?format=json" -->'})
    traffic(nginx)
    found = nginx.get("/page")
    assert json.loads(found.body)["total"]["attempts"]["total"] == 10


@pytest.mark.parametrize("lines, why", [
    ("reuse_status a b;", 'number of arguments in "reuse_status"'),
    ("reuse_status servers=off; reuse_status;",
     '"reuse_status" directive is duplicate'),
    ("if ($arg_a) { reuse_status; }", '"reuse_status" directive is not '
                                      "allowed here"),
])
def test_wrong_directives(stage, lines, why):
    code, text = stage.config_test(location=lines)
    assert code == 1
    assert why in text


# JSON

def test_json_is_as_documented(stage):
    nginx = start(stage, http="upstream old { server %{first}; }",
                  server="location /off { myproxy_http_version 1.0;"
                         "myproxy_pass http://old; }")
    nginx.get("/off")
    traffic(nginx)
    found = json.loads(status(nginx, "json"))
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(found)
    assert [upstream["name"] for upstream in found["upstreams"]] == sorted(
        upstream["name"] for upstream in found["upstreams"])
    assert len(found["upstreams"]) == 4
    warning, = found["warnings"]
    assert re.fullmatch('no connection is reused with "myproxy_http_version '
                        '1.0": remove the directive to speak HTTP/1.1 in '
                        r".*nginx\.conf:\d+", warning)


def test_json_before_there_is_anything(stage):
    nginx = stage.nginx(location="reuse_status;")
    found = json.loads(nginx.get("/?format=json").body)
    jsonschema.Draft202012Validator(
        json.loads(SCHEMA.read_text())).validate(found)
    assert found["upstreams"] == []


REASON = re.compile(
    r'\{ ngx_string\("(\w+)"\), (NULL|"\w+"),'
    r'\s+((?:"(?:[^"\\]|\\.)*"\s*)+),'
    r'\s+(NULL|(?:"(?:[^"\\]|\\.)*"\s*)+) \}')


def joined(literal):
    """What the pieces of a literal of C say."""
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literal)) \
        .replace('\\"', '"')


def test_each_reason_has_the_same_words_in_the_documentation():
    page = (settings.ROOT / "docs/status.md").read_text()
    source = (settings.ROOT / "src/accounts"
              / "ngx_http_upstream_reuse_reasons.c").read_text()
    for title, table in (("new connection", "new"), ("closed", "close"),
                         ("refused", "refused")):
        text = source[source.index(f"reuse_{table}_reasons[] ="):]
        words = [(name, joined(by), joined(meaning), joined(advice)) for
                 name, by, meaning, advice in REASON.findall(
                     text[:text.index("\n};")])]
        assert len(words) > 2
        section = re.search(rf"^## [^\n]*{title}[^\n]*$(.*?)^## ", page,
                            re.DOTALL | re.MULTILINE).group(1)
        side = r" ?(\w*) \|" if table == "close" else "()"
        documented = re.findall(
            rf"^\| (`\w+`) \|{side} (.*?) \|(?: (.*?))? \|$",
            section, re.MULTILINE)
        assert [(name.strip("`"), by, meaning.replace("`", '"'),
                 advice.replace("`", '"'))
                for name, by, meaning, advice in documented] == words


def test_an_upstream_is_the_sum_of_its_servers(stage):
    nginx = start(stage, http="""
        upstream app { server %{first}; server %{closing}; }
    """, server="location /app { myproxy_pass http://app; }")
    traffic(nginx)
    traffic(nginx, *["/app"] * 6)
    found = json.loads(status(nginx, "json"))
    app, = [one for one in found["upstreams"] if one["name"] == "app"]
    assert app["attempts"]["total"] == 6
    assert [one["attempts"]["total"] for one in app["servers"]] == [3, 3]
    for whole, parts in [(found["total"], found["upstreams"]),
                         (app, app["servers"])]:
        for part in ("attempts", "connections"):
            for name, count in whole[part].items():
                if isinstance(count, int):
                    assert count == sum(one[part][name] for one in parts)


# Prometheus

def samples(text):
    """{(name, labels): value} of Prometheus' text."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = re.fullmatch(
            r"([a-z_]+)(?:\{(.*)\})? (\S+)", line).groups()
        key = name, tuple(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"',
                                     labels or ""))
        assert key not in found
        found[key] = float(value)
    return found


@pytest.mark.skipif(shutil.which("promtool") is None,
                    reason="takes Debian's package prometheus")
def test_promtool_is_content(stage):
    nginx = start(stage)
    for _ in range(2):
        done = subprocess.run(
            ["promtool", "check", "metrics"], text=True, check=False,
            input=status(nginx, "prometheus"), capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        traffic(nginx)


def test_prometheus_says_what_json_does(stage):
    nginx = start(stage)
    traffic(nginx)
    text = samples(status(nginx, "prometheus"))
    total = json.loads(status(nginx, "json"))["total"]

    def sum_of(name, **labels):
        return sum(value for (found, pairs), value in text.items()
                   if found == f"nginx_reuse_{name}"
                   and labels.items() <= dict(pairs).items())

    requests, connections = total["attempts"], total["connections"]
    assert sum_of("attempts_total") == requests["total"] == 10
    assert sum_of("attempts_total", connection="reused") == (
        requests["reused"])
    for reason, count in requests["new_by_reason"].items():
        assert sum_of("attempts_total", connection="new",
                      reason=reason) == count
    assert sum_of("connections_opened_total") == connections["opened"]
    assert sum_of("connections_open") == connections["open"]
    assert sum_of("connections_idle") == connections["idle"] == 2
    for reason, count in connections["closed_by_reason"].items():
        assert sum_of("connections_closed_total", reason=reason) == count
    assert connections["closed_by"]["origin"] == 2
    for side, count in connections["closed_by"].items():
        assert sum_of("connections_closed_total", by=side) == count
    for outcome, count in total["stale_requests"].items():
        assert sum_of("stale_requests_total", outcome=outcome) == count
    for kind, count in total["tls_handshakes"].items():
        assert sum_of("tls_handshakes_total", kind=kind) == count
    for metric in ("connect_duration_seconds",
                   "tls_handshake_duration_seconds"):
        histogram = total[metric]
        assert sum_of(f"{metric}_count") == histogram["count"] > 0
        assert sum_of(f"{metric}_sum") == pytest.approx(histogram["sum"])
        for bucket in histogram["buckets"]:
            le = "+Inf" if bucket["le"] is None else f"{bucket['le']:.4f}"
            assert sum_of(f"{metric}_bucket", le=le) == bucket["count"]
    assert sum_of("estimated_saved_seconds") == pytest.approx(
        total["estimated_saved_seconds"])


def test_the_time_since_which_is_counted(stage):
    """A reload, or a second later, it is the same."""
    nginx = start(stage)

    def times():
        found = json.loads(status(nginx, "json"))
        shown = samples(status(nginx, "prometheus"))
        begun = found["start_time_seconds"]
        assert shown["nginx_reuse_start_time_seconds", ()] == begun
        return begun, found["time_seconds"]

    begun, now = times()
    assert begun <= now < begun + 60
    stage.wait_until(lambda: times()[1] > begun)
    nginx.reload()
    assert times()[0] == begun


def test_a_unix_socket_has_one_form(stage):
    origin = stage.origin(family="unix")
    nginx = stage.nginx(server="""
        location / { myproxy_pass http://%{origin}; }
        location = /status { reuse_status; }
    """)
    traffic(nginx, "/")
    upstream, = json.loads(status(nginx, "json"))["upstreams"]
    server, = upstream["servers"]
    assert upstream["name"] == server["address"] == str(origin)
    labels = [dict(pairs) for (name, pairs) in samples(
        status(nginx, "prometheus")) if name == "nginx_reuse_connections_open"]
    assert labels == [{"upstream": str(origin), "server": str(origin)}]


# names

@pytest.mark.parametrize("odd", [ODD, "two\nlines"], ids=["odd", "lines"])
def test_odd_names_are_escaped(stage, odd):
    quoted = odd.replace("\\", "\\\\").replace('"', '\\"')
    nginx = start(stage, http=f'upstream "{quoted}" {{ server %{{first}}; }}',
                  server=f'set $odd "{quoted}";'
                  "location /odd { myproxy_pass http://$odd; }")
    traffic(nginx, "/odd")
    found = json.loads(status(nginx, "json"))
    assert [one["name"] for one in found["upstreams"]] == [odd]
    labels = {dict(pairs)["upstream"] for (_, pairs) in samples(
        status(nginx, "prometheus")) if dict(pairs).get("upstream")}
    assert labels == {quoted.replace("\n", "\\n")}
    page = Page(status(nginx, "html"))
    assert odd in page.text
    assert "<c>" not in page.source


def test_a_name_that_is_no_utf8(stage):
    """Nor is it a reason to lose what is counted of others."""
    origin = stage.origin()
    name = (b"caf\xe9\xed\xa0\x80\xf4\x90\x80\x80\xfb\x82\x9d\xac"
            b"\xc3\xa9\xe2\x82")
    nginx = stage.nginx(
        http="include %{prefix}/upstream.conf;",
        server="""
            include %{prefix}/name.conf;
            location / { myproxy_pass http://$name; }
            location = /status { reuse_status; }
        """, files={
            "upstream.conf": b'upstream "%s" { server %s; }' % (
                name, str(origin).encode()),
            "name.conf": b'set $name "%s";' % name})
    traffic(nginx, "/")
    shown = name.decode("utf-8", "replace")
    found = json.loads(nginx.get(f"{STATUS}?format=json").body)
    assert [one["name"].replace("\ufffd", "") for one
            in found["upstreams"]] == [shown.replace("\ufffd", "")]
    text = nginx.get(f"{STATUS}?format=prometheus").body.decode()
    assert len(samples(text)) > 50


def test_each_format_may_be_compressed(stage):
    nginx = start(stage, server="""
        gzip on;
        gzip_min_length 1;
        gzip_types text/plain application/json;
    """)
    for form in ("html", "json", "prometheus"):
        response = nginx.get(f"{STATUS}?format={form}",
                             "Accept-Encoding: gzip")
        assert response.header("Content-Encoding") == "gzip"


# the page

class Page(html.parser.HTMLParser):
    """The text of the page, its numbers, and whether its tags match."""

    VOID = {"meta", "link", "br", "path", "rect"}

    def __init__(self, source):
        super().__init__()
        self.source = source
        self.text = ""
        self.numbers = []
        self.outside = []
        self._open = []
        self.feed(source)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "data":
            self.numbers.append((values["class"], int(values["value"])))
        for name in ("src", "href", "action", "xlink:href"):
            if name in values:
                self.outside.append(values[name])
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        if tag not in self.VOID:
            self.handle_starttag(tag, attrs)
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def summary(found):
    """What the page shows first, from JSON."""
    total = found["total"]
    return [("requests", total["attempts"]["total"]),
            ("fresh", total["attempts"]["new"]),
            ("open", total["connections"]["open"]),
            ("idle", total["connections"]["idle"]),
            ("opened", total["connections"]["opened"]),
            ("full", total["tls_handshakes"]["full"]),
            ("resumed", total["tls_handshakes"]["resumed"])]


def by_server(found):
    return [(name, value) for upstream in found["upstreams"]
            for server in upstream["servers"]
            for name, value in (
                ("requests", server["attempts"]["total"]),
                ("open", server["connections"]["open"]),
                ("idle", server["connections"]["idle"]),
                ("opened", server["connections"]["opened"]))]


def counts(found):
    """Of the reasons that there were, the most frequent first."""
    for part, key in (("attempts", "new_by_reason"),
                      ("connections", "closed_by_reason")):
        yield from (("count", count) for count in sorted(filter(
            None, found["total"][part][key].values()), reverse=True))


def test_the_page_says_what_json_does(stage):
    nginx = start(stage)
    traffic(nginx)
    page = Page(status(nginx, "html"))
    found = json.loads(status(nginx, "json"))
    assert page.numbers == [*summary(found), *by_server(found),
                            *counts(found)]
    ratio = re.search(r'id="ratio">([\d.]+)', page.source).group(1)
    requests = found["total"]["attempts"]
    assert float(ratio) == pytest.approx(
        100 * requests["reused"] / requests["total"], abs=0.01)


def test_each_upstream_has_its_reasons(stage):
    """In a few words, which are not on a page of one upstream."""
    nginx = start(stage)
    traffic(nginx, "/closing")
    assert "<details" not in status(nginx, "html")
    traffic(nginx, *["/first"] * 3, *["/closing"] * 4)
    source = status(nginx, "html")
    found = dict(re.findall(
        r'<details data-upstream="([^"]+)">(.*?)</details>', source))
    closed = {upstream["name"]: upstream["connections"]["closed"]
              for upstream in nginx.status()["upstreams"]}
    assert sorted(closed.values()) == [0, 5]
    assert {name: " ".join(re.sub("<.*?>", " ", text).split())
            for name, text in found.items()} == {
        name: "reasons new connections: empty 5 closed: close 5" if count
        else "reasons new connections: empty 1"
        for name, count in closed.items()}


def test_an_upstream_without_reasons(stage):
    """No connection was opened for a request, and none was closed."""
    nginx = start(stage, http="""
        upstream app { server %{first}; reuse_warm 1; }
    """, server="location /app { myproxy_pass http://app; }")
    stage.wait_until(lambda: nginx.status()["total"]["connections"]["idle"])
    traffic(nginx, "/app", "/closing")
    source = status(nginx, "html")
    assert "app" in Page(source).text
    name, = re.findall(r'<details data-upstream="([^"]+)">', source)
    assert name != "app"


def test_the_page_needs_nothing_from_outside(stage):
    nginx = start(stage)
    traffic(nginx)
    page = Page(status(nginx, "html"))
    assert {urllib.parse.urlsplit(link).netloc
            for link in page.outside} == {""}
    assert "url(" not in page.source and "@import" not in page.source
    policy = nginx.get(STATUS).header("Content-Security-Policy")
    assert policy.startswith("default-src 'none';")


def test_the_page_warns_and_advises(stage):
    nginx = start(
        stage, http="upstream app { server %{first}; }",
        server="location /app { myproxy_http_version 1.0;"
               "myproxy_pass http://app; }")
    assert "Warnings and advice" in Page(status(nginx, "html")).text
    traffic(nginx, *["/closing"] * 150)
    text = Page(status(nginx, "html")).text
    assert 'no connection is reused with "myproxy_http_version 1.0"' in text
    assert ("150 connections ended in the last 15 to 30 minutes, each for "
            "this reason: the origin said") in text
    assert "turn keep-alive on at the origin" in text


def test_no_advice_about_what_is_not_configured_any_more(stage):
    stage.origin([http1.response(200, "Connection: close")])
    server = """
        location /app { myproxy_pass http://app; }
        location = /status { reuse_status; }
    """
    nginx = stage.nginx(http="upstream app { server %{origin}; }",
                        server=server)
    traffic(nginx, *["/app"] * 100)
    assert "100 connections ended in the last" in Page(
        status(nginx, "html")).text
    nginx.reload(http="", server="location = /status { reuse_status; }")
    page = Page(status(nginx, "html"))
    assert "connections ended in the last" not in page.text
    assert ("requests", 100) in page.numbers


def test_the_history_ends_now(stage):
    """What was before nginx began is left blank, on the left."""
    clock = Clock(stage)
    nginx = start(stage, env=clock.env)
    traffic(nginx)

    def samples():
        return json.loads(status(nginx, "json"))["history"]["samples"]

    clock.forward(61)
    stage.wait_until(samples)
    page = status(nginx, "html")
    width, = re.findall(r'viewBox="0 0 (\d+) 100"', page)
    bars = re.findall(r'<rect class="load" x="(\d+)"', page)
    line, = re.findall(r'<path class="ratio" d="[^"]*H(\d+)"', page)
    assert int(bars[-1]) >= int(width) - len(samples()) - 1
    assert int(line) == int(bars[-1]) + 1


def test_advice_is_about_what_happens_of_late(stage):
    """What was mended, or has ended, is said no more, but still counted."""
    stage.origin([http1.response(200, "Connection: close")])
    clock = Clock(stage)
    nginx = stage.nginx(
        http="upstream app { server %{origin}; }", env=clock.env,
        server="""location /app { myproxy_pass http://app; }
                  location = /status { reuse_status; }""")

    def advice():
        return re.search(r"(\d+) connections ended in the last 15",
                         Page(status(nginx, "html")).text)

    def samples():
        return len(json.loads(status(nginx, "json"))["history"]["samples"])

    def pass_a_quarter():
        taken = samples()
        clock.forward(901)
        stage.wait_until(lambda: samples() > taken)

    traffic(nginx, *["/app"] * 100)
    assert advice()[1] == "100"
    pass_a_quarter()
    traffic(nginx, *["/app"] * 120)
    assert advice()[1] == "220"
    pass_a_quarter()
    assert advice()[1] == "120"
    traffic(nginx, *["/app"] * 120)
    assert advice()[1] == "240"
    pass_a_quarter()
    assert advice()[1] == "120"
    pass_a_quarter()
    assert advice() is None
    assert ("requests", 340) in Page(status(nginx, "html")).numbers


def test_a_page_without_warnings(stage):
    nginx = start(stage)
    traffic(nginx)
    source = status(nginx, "html")
    assert '<section class="warnings" id="warnings"></section>' in source


def test_a_large_page(stage):
    """More than a buffer, and than a guess of its size."""
    stage.origin(name="first")
    many = 300
    nginx = stage.nginx(
        http="".join(f"upstream app{number} {{ server %{{first}}; }}"
                     for number in range(many)),
        server="""
            location / { myproxy_pass http://app$arg_n; }
            location = /status { reuse_status; }
        """)
    traffic(nginx, *(f"/?n={number}" for number in range(many)))
    found = json.loads(status(nginx, "json"))
    assert len(found["upstreams"]) == many
    page = Page(status(nginx, "html"))
    assert page.numbers == [*summary(found), *by_server(found),
                            *counts(found)]
    assert len(samples(status(nginx, "prometheus"))) > 50 * many


def test_the_page_groups_digits(stage):
    stage.origin()
    nginx = stage.nginx(
        http="upstream app { server %{origin}; reuse_limit 1234567; }",
        server="location /app { myproxy_pass http://app; }"
               "location = /status { reuse_status; }")
    traffic(nginx, "/app")
    page = Page(status(nginx, "html"))
    assert ("limit", 1234567) in page.numbers
    assert "1 of 1\u202f234\u202f567" in page.text


def test_the_page_tells_of_requests_that_failed(stage):
    """Of those that may have been received; and there were no others."""
    def script(conn):
        conn.read_request()
        conn.respond()
        conn.read_request()

    stage.origin(script)
    nginx = stage.nginx(server="""
        location /app { myproxy_pass http://%{origin}; }
        location = /status { reuse_status; }
    """)
    traffic(nginx, "/app")
    assert "met a closing" not in Page(status(nginx, "html")).text
    assert nginx.post("/app", b"body").status == 502
    page = Page(status(nginx, "html"))
    assert "1 may have been received" in page.text
    assert [pair for pair in page.numbers if pair[0] in (
        "resent", "unproven", "not-resendable", "resent-silent")] == [
            ("resent", 0), ("unproven", 1), ("not-resendable", 0),
            ("resent-silent", 0)]


@pytest.mark.parametrize("seconds, shown", [
    (1.25, r"1\.\d\xa0s"), (150, r"15\d\.\d\xa0s"), (1500, r"25\xa0min"),
    (90000, r"25\xa0h")])
def test_the_page_has_times_of_all_sizes(stage, seconds, shown):
    """A handshake that lasts as long, once it is saved."""
    clock = Clock(stage)
    server = tls.Server(stage.authority.issue("origin.test"))

    def serve_tls(conn):
        conn.sock.recv(1, socket.MSG_PEEK)
        begun.open()
        gate.wait()
        conn.sock = server.wrap(conn)
        conn.serve()

    origin = stage.origin(serve_tls)
    begun, gate = origin.gate(), origin.gate()

    nginx = stage.nginx(env=clock.env, http="""
        upstream app { server %{origin}; keepalive_time 10d; }
    """, server="""
        location /app { myproxy_pass https://app;
                        myproxy_ssl_verify off;
                        myproxy_connect_timeout 10d; }
        location = /status { reuse_status; }
    """)
    client = nginx.connect()
    client.send(http1.request("GET", "/app"))
    begun.wait()
    # a worker that answers waits for the other side of the handshake
    assert nginx.get(port="probe").status == 200
    clock.forward(seconds)
    gate.open()
    assert client.read_response().status == 200
    traffic(nginx, "/app")
    found = nginx.status()["total"]
    # where TCP ends and TLS begins is not known so exactly
    assert found["estimated_saved_seconds"] == pytest.approx(sum(
        found[f"{what}_duration_seconds"]["sum"]
        for what in ("connect", "tls_handshake")), abs=0.01)
    assert re.search(shown, Page(status(nginx, "html")).text)


def test_the_page_tells_of_a_full_zone(stage):
    """In time, and when it is too late."""
    stage.origin()
    many = 60
    nginx = stage.nginx(
        http="reuse_zone 64k;" + "".join(
            f"upstream app{number} {{ server %{{origin}}; }}"
            for number in range(many)),
        server="""
            location /app { myproxy_pass http://app$arg_n; }
            location = /status { reuse_status; }
        """)
    nginx.expect_log("is full")
    told = []
    for number in range(many):
        traffic(nginx, f"/app?n={number}")
        text = Page(status(nginx, "html")).text
        found = re.search("There is (little|no) room for further servers",
                          text)
        told.append(found and found[1])
        assert not found or "make reuse_zone larger than 64k" in text
    assert list(dict.fromkeys(told)) == [None, "little", "no"]


def test_the_page_tells_of_requests_that_are_not_counted(stage):
    """Of workers that find no room for anything."""
    stage.origin()
    many = 60
    nginx = stage.nginx(
        http="reuse_zone 64k;" + "".join(
            f"upstream app{number} {{ server %{{origin}}; }}"
            for number in range(many)),
        server="""
            location /app { myproxy_pass http://app$arg_n; }
            location = /status { reuse_status; }
        """)
    nginx.expect_log("is full")
    traffic(nginx, *(f"/app?n={number}" for number in range(many)))
    nginx.reload(workers=64)
    for _ in range(1000):
        traffic(nginx, "/app?n=1")
        uncounted = nginx.status()["zone"]["uncounted_requests"]
        if uncounted:
            break
    assert (f"{uncounted} requests were not counted, as reuse_zone was full"
            in Page(status(nginx, "html")).text)


def test_the_page_tells_of_refused_requests(stage):
    origin = stage.origin(lambda conn: conn.serve(
        lambda _: gate.wait() or http1.response()))
    gate = origin.gate()
    nginx = stage.nginx(
        http="upstream app { server %{origin}; reuse_limit 1 queue=0; }",
        server="""
            location /app { myproxy_pass http://app; }
            location = /status { reuse_status; }
        """)
    client = nginx.connect()
    client.send(http1.request("GET", "/app"))
    stage.wait_until(lambda: origin.requests)
    advice = "If servers can take more, raise"
    assert advice not in Page(status(nginx, "html")).text
    assert nginx.get("/app").status == 503
    page = Page(status(nginx, "html"))
    assert ("queue-full", 1) in page.numbers
    assert advice in page.text
    gate.open()
    assert client.read_response().status == 200


# in a browser

@pytest.fixture
def browser():
    """Chromium without a window, which tells what scripts complain of."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("takes Debian's packages chromium and chromium-driver")
    service = pytest.importorskip("selenium.webdriver.chrome.service")
    options = webdriver.ChromeOptions()
    # it is to ask nobody but nginx
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu",
                   "--disable-dev-shm-usage", "--hide-scrollbars",
                   "--no-proxy-server", "--no-first-run", "--disable-sync",
                   "--disable-background-networking",
                   "--disable-component-update", "--disable-default-apps",
                   "--host-resolver-rules=MAP * ~NOTFOUND, "
                   "EXCLUDE 127.0.0.1"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(
        service=service.Service(shutil.which("chromedriver")),
        options=options)
    try:
        yield driver
    finally:
        driver.quit()


def shown(driver):
    return [(one[0], int(one[1])) for one in driver.execute_script(
        "return Array.from(document.querySelectorAll('data'),"
        "    d => [d.className, d.value])")]


def look(driver, scheme, width):
    """As it looks there: wide enough for all that it has."""
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
        {"name": "prefers-color-scheme", "value": scheme}]})
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": 900, "deviceScaleFactor": 1,
        "mobile": width < 500})
    return driver.execute_script(
        "var e = document.documentElement; return [e.clientWidth,"
        "e.scrollWidth, e.scrollHeight,"
        "getComputedStyle(document.body).backgroundColor]")


@pytest.mark.timeout(120 * settings.SCALE)
def test_in_a_browser(stage, browser):
    nginx = start(stage, http="""
        upstream app { server %{first}; server %{closing}; keepalive 1; }
    """, server="location /app { myproxy_pass http://app; }")
    traffic(nginx)
    traffic(nginx, *["/closing"] * 100, *["/app"] * 6)
    browser.get(f"http://127.0.0.1:{nginx.port()}{STATUS}")
    found = nginx.status()
    assert shown(browser)[:7] == summary(found)

    # it is live
    traffic(nginx, *["/first"] * 7)
    later = nginx.status()
    assert summary(later) != summary(found)
    stage.wait_until(lambda: shown(browser)[:7] == summary(later))
    assert shown(browser)[7:7 + len(by_server(later))] == by_server(later)
    assert browser.find_element("id", "live").text == "live"

    # what was opened stays open, and keeps the focus
    def opened():
        return browser.execute_script(
            "return Array.from(document.querySelectorAll('details[open]'),"
            "    d => d.dataset.upstream)")

    summaries = browser.find_elements("css selector", "details summary")
    assert len(summaries) == 4 and opened() == []
    summaries[0].click()
    name, = opened()
    traffic(nginx, *["/first"] * 3)
    later = nginx.status()
    stage.wait_until(lambda: shown(browser)[:7] == summary(later))
    assert opened() == [name]
    assert browser.execute_script(
        "return document.activeElement.parentNode.dataset.upstream") == name

    # how it looks
    grounds = {}
    pictures = settings.ROOT / "build/screenshots"
    pictures.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        for name, width in WIDTHS.items():
            client, scroll, height, ground = look(browser, scheme, width)
            assert client == width and scroll <= client
            grounds[scheme] = ground
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
                "width": width, "height": height, "deviceScaleFactor": 1,
                "mobile": width < 500})
            browser.save_screenshot(str(pictures / f"{scheme}-{name}.png"))
    assert grounds["light"] != grounds["dark"]
    assert browser.get_log("browser") == []

    # and it says so when nginx has gone
    nginx.stop()
    stage.wait_until(lambda: browser.find_element("id", "live").text
                     == "no answer from nginx")
    assert shown(browser)[0] == summary(later)[0]


@pytest.mark.timeout(120 * settings.SCALE)
def test_in_a_browser_without_scripts(stage, browser):
    nginx = start(stage)
    traffic(nginx)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled",
                            {"value": True})
    browser.get(f"http://127.0.0.1:{nginx.port()}{STATUS}")
    text = browser.find_element("tag name", "body").text
    assert "Why connections were closed" in text
    assert "live" not in text.split()
