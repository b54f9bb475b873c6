"""What is in examples/ works as it stands."""

import json
import re
import shutil
import subprocess

import pytest

from harness import settings

EXAMPLES = settings.ROOT / "examples"
METRIC = re.compile(r"\bnginx_reuse_\w+")

promtool = pytest.mark.skipif(shutil.which("promtool") is None,
                              reason="takes Debian's package prometheus")


def run(*command, **more):
    done = subprocess.run(command, text=True, check=False,
                          capture_output=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metrics(stage):
    """The names that nginx offers."""
    stage.origin()
    nginx = stage.nginx(server="""
        location / { myproxy_pass http://%{origin}; }
        location = /status { reuse_status; }
    """)
    assert nginx.get().status == 200
    text = nginx.get("/status?format=prometheus").body.decode()
    names = set(METRIC.findall(text))
    # what is left out while not known
    return names | {"nginx_reuse_learned_idle_limit_seconds"}


def test_the_configuration(stage):
    """With directories of its own, and ports that are free."""
    text = (EXAMPLES / "nginx.conf").read_text()
    body = re.search(r"^http \{\n(.*)^\}", text, re.DOTALL | re.MULTILINE)[1]
    log = (EXAMPLES / "reuse-log.conf").read_text()
    origins = [stage.origin(name=name) for name in ("first", "second")]
    for old, new in (
            ("    include mime.types;\n", ""),
            ("    include reuse-log.conf;\n", log),
            # the harness turns it off in http
            ("    access_log /var/log/nginx/reuse.log reuse;\n", ""),
            ("        location / {\n            myproxy_",
             "        access_log %{prefix}/reuse.log reuse;\n"
             "        location / {\n            myproxy_"),
            ("127.0.0.1:3000", "%{first}"), ("127.0.0.1:3001", "%{second}"),
            ("listen 80 default_server", "listen 127.0.0.1:%{port.main}"),
            ("127.0.0.1:8081", "127.0.0.1:%{port.status}")):
        assert old in body
        body = body.replace(old, new)
    nginx = stage.nginx(http=body)
    assert [nginx.get("/x").status for _ in range(6)] == [200] * 6
    assert [origin.carried for origin in origins] == [[3], [3]]
    assert {(request.header("X-Forwarded-For"),
             request.header("X-Forwarded-Proto"))
            for origin in origins for request in origin.requests} == {
                ("127.0.0.1", "http")}
    page = nginx.get("/", "Accept: application/json", port="status")
    assert json.loads(page.body)["total"]["attempts"]["reused"] == 4

    def lines():
        found = nginx.read("reuse.log").decode().splitlines()
        return found if len(found) == 6 else None
    entries = [json.loads(line) for line in stage.wait_until(lines)]
    assert [entry["reuse_connection"] for entry in entries] == (
        ["new"] * 2 + ["reused"] * 4)
    assert {entry["reuse_fate"] for entry in entries} == {"kept"}


@promtool
def test_the_alert_rules():
    for command, file in (("rules", "alerts.yml"), ("config", "scrape.yml")):
        run("promtool", "check", command, file, cwd=EXAMPLES)
    run("promtool", "test", "rules", "alerts-test.yml", cwd=EXAMPLES)


def test_the_alert_rules_are_of_metrics_that_there_are(stage):
    text = (EXAMPLES / "alerts.yml").read_text()
    used = set(METRIC.findall(re.sub(r"\w+:nginx_reuse_\w+:", "", text)))
    assert used and used <= metrics(stage)


def queries():
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_the_dashboard_is_of_metrics_that_there_are(stage):
    dashboard = (EXAMPLES / "grafana-dashboard.json").read_text()
    used = set(METRIC.findall(dashboard))
    assert used <= metrics(stage)
    assert all(METRIC.search(query) for _, query in queries())


@promtool
def test_the_dashboard_asks_for_what_prometheus_understands(tmp_path):
    rules = [{"record": f"query{number}",
              "expr": query.replace("$__rate_interval", "5m")}
             for number, (_, query) in enumerate(queries())]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [
        {"name": "dashboard", "rules": rules}]}))
    run("promtool", "check", "rules", str(path))


def test_the_dashboard_has_room_for_each_panel():
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24
        taken |= cells
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
