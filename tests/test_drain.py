"""Servers that get no requests any more, and their connections."""

import time

import pytest

from harness import http1, settings
from harness.nginx import product, version
from harness.warming import wait_idle
from harness.workers import Workers, waiting_origin

RESOLVES = version() >= (1, 27, 3)
resolves = pytest.mark.skipif(not RESOLVES, reason="takes resolve")

FIRST, SECOND = "127.0.0.1", "127.0.0.2"

#: Servers at several addresses with one port, which tell where they are.
BACK = "".join(f"listen {host}:%{{port.back}};" for host in (FIRST, SECOND))
BACK = f"server {{ {BACK} return 200 $server_addr; }}"

PASS = "myproxy_pass http://app;"
TLS_PASS = "myproxy_pass https://app; myproxy_ssl_verify off;"

NAMED = """
    resolver %{dns} ipv6=off;
    myproxy_pass http://$arg_name:%{port.back};
"""


def resolved(text="", server="", valid="1s"):
    """An upstream whose one name is looked up again each second."""
    return f"""
        resolver %{{dns}} valid={valid} ipv6=off;
        upstream app {{
            zone app 64k;
            {text}
            server app.test:%{{port.back}} resolve {server};
        }}
    """


def closed(nginx):
    found = nginx.status()["total"]["connections"]["closed_by_reason"]
    return {name: count for name, count in found.items() if count}


def counts(nginx):
    found = nginx.status()["total"]["connections"]
    return {name: found[name] for name in ("open", "idle", "parked")}


def wait_drained(stage, nginx, count, since=None):
    """All of them, and within a second, if it is known from when on."""
    stage.wait_until(lambda: closed(nginx).get("drained") == count,
                     what=f"{count} drained")
    if since is not None and settings.SCALE == 1:
        assert time.monotonic() - since < 1.4


def repeat(stage, condition):
    """What actors have a part in is not waited for, but tried again."""
    end = time.monotonic() + settings.PATIENCE
    while not condition():
        assert time.monotonic() < end
        stage.let_pass(0.1)


def gone(stage, dns, name, addresses):
    """The name has other addresses; returns once they were asked for."""
    asked = len(dns.questions)
    dns.records[name] = addresses
    stage.wait_until(lambda: len(dns.questions) > asked)
    return time.monotonic()


# a reload

APP = "upstream app {{ {} }}"


def reloaded(stage, change, before="server %{origin};", pause=0):
    """Workers that had one parked connection before a reload, so long."""
    stage.origin()
    stage.origin(name="other")
    workers = Workers(stage, PASS, http=APP.format(before))
    assert workers.nginx.get().status == 200
    workers.wait_parked()
    stage.let_pass(pause)
    workers.nginx.reload(http=APP.format(change))
    return workers


@pytest.mark.parametrize("change", [
    "server %{other};",
    "server %{origin} down; server %{other};",
    "zone app 64k; server %{origin} down; server %{other};",
    "hash $uri; server %{origin} down; server %{other};",
    "hash $uri consistent; server %{origin} down; server %{other};",
    "ip_hash; server %{origin} down; server %{other};",
    "least_conn; server %{origin} down; server %{other};",
    "random; zone app 64k; server %{origin} down; server %{other};",
    "keepalive 3; server %{origin} down; server %{other};",
    "server %{origin} down backup; server %{other};",
    pytest.param("""sticky cookie name; server %{origin} drain;
                    server %{other};""",
                 marks=pytest.mark.skipif(version() < (1, 29, 6),
                                          reason="drain is newer"))])
def test_what_a_reload_takes_out_is_drained(stage, change):
    workers = reloaded(stage, change)
    wait_drained(stage, workers.nginx, 1, time.monotonic())
    assert closed(workers.nginx) == {"drained": 1}
    workers.wait_open(0)


def test_new_workers_look_though_an_old_one_has_just_done_so(stage):
    workers = reloaded(stage, "server %{origin} down; server %{other};",
                       pause=1.2)
    wait_drained(stage, workers.nginx, 1, time.monotonic())


@pytest.mark.parametrize("change", [
    "server %{origin} backup; server %{other};",
    "zone app 64k; server %{origin} backup; server %{other};",
    "server %{origin}; server %{origin} down;",
    "server %{origin} down; server %{origin} backup; server %{other};",
    "server %{origin} weight=3 max_conns=1; server %{other};"])
def test_what_gets_requests_is_not(stage, change):
    workers = reloaded(stage, change)
    stage.let_pass(1.5)
    assert closed(workers.nginx) == {}
    workers.wait_parked()


def test_one_in_use_is_closed_after_its_request(stage):
    origin, gate = waiting_origin(stage)
    stage.origin(name="other")
    workers = Workers(stage, PASS, http=APP.format("server %{origin};"))
    client = workers.nginx.connect()
    client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: origin.requests)
    workers.nginx.reload(http=APP.format("server %{other};"))
    gate.open()
    assert client.read_response().status == 200
    wait_drained(stage, workers.nginx, 1)


# addresses that are resolved

BALANCERS = ["", "least_conn;", "hash $uri;", "hash $uri consistent;",
             "ip_hash;", "random;", "random two least_conn;"]


@resolves
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("balancer", BALANCERS)
def test_an_address_that_is_not_found_any_more(stage, balancer, workers):
    dns = stage.dns({"app.test": [FIRST]})
    nginx = stage.nginx(http=BACK + resolved(balancer), location=PASS,
                        workers=workers)
    repeat(stage, lambda: nginx.get().status == 200)
    for count in range(10):
        assert nginx.get(f"/{count}").body == FIRST.encode()
    count = counts(nginx)["open"]
    since = gone(stage, dns, "app.test", [SECOND])
    wait_drained(stage, nginx, count, since)
    assert closed(nginx) == {"drained": count}
    assert nginx.get().body == SECOND.encode()


@resolves
@pytest.mark.parametrize("share", ["on", "off"])
def test_idle_ones_wherever_they_are(stage, share):
    dns = stage.dns({"app.test": [FIRST]})
    nginx = stage.nginx(http=BACK + resolved() + f"reuse_share {share};",
                        location=PASS, workers=2)
    repeat(stage, lambda: nginx.get().status == 200)
    parked = 1 if share == "on" else 0
    stage.wait_until(lambda: counts(nginx)["parked"] == parked)
    count = counts(nginx)["open"]
    since = gone(stage, dns, "app.test", [SECOND])
    wait_drained(stage, nginx, count, since)
    assert counts(nginx) == {"open": 0, "idle": 0, "parked": 0}
    assert nginx.get().body == SECOND.encode()


def test_those_over_tls_end_with_their_worker(stage):
    """It does not know what the new configuration lacks."""
    stage.origin(tls="app.test")
    stage.origin(name="other", tls="app.test")
    nginx = stage.nginx(location=TLS_PASS,
                        http=APP.format("server %{origin};"))
    assert nginx.get().status == 200
    nginx.reload(http=APP.format("server %{other};"))
    stage.wait_until(lambda: closed(nginx) == {"shutdown": 1})
    assert nginx.status()["total"]["connections"]["open"] == 0


@resolves
def test_those_over_tls(stage):
    stage.origin(tls="app.test")
    dns = stage.dns({"app.test": [FIRST]})
    port = stage.names["origin"].port
    nginx = stage.nginx(
        http=resolved().replace("%{port.back}", str(port)),
        location=TLS_PASS, workers=2)
    repeat(stage, lambda: nginx.get().status == 200)
    stage.wait_until(lambda: counts(nginx)["idle"] == counts(nginx)["open"])
    count = counts(nginx)["idle"]
    assert count > 0
    since = gone(stage, dns, "app.test", [SECOND])
    wait_drained(stage, nginx, count, since)
    stage.wait_until(lambda: all(conn.closed for conn
                                 in stage.names["origin"].conns))


@resolves
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_one_in_use_whose_address_goes(stage, first):
    """Whether it has been kept before or not."""
    origin, gate = waiting_origin(stage)
    dns = stage.dns({"app.test": [FIRST]})
    nginx = stage.nginx(
        http=resolved().replace("%{port.back}", str(origin.port)),
        location=PASS)
    repeat(stage, lambda: nginx.get("/").status == 200)
    held = nginx.connect()
    held.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: origin.requests[-1].target == "/wait")
    fresh = nginx.connect()
    if first:
        fresh.send(http1.request("GET", "/wait"))
        stage.wait_until(lambda: origin.connections == 2)
    gone(stage, dns, "app.test", [SECOND])
    stage.let_pass(1)
    assert closed(nginx) == {}
    gate.open()
    assert held.read_response().status == 200
    if first:
        assert fresh.read_response().status == 200
    wait_drained(stage, nginx, origin.connections)
    assert counts(nginx)["open"] == 0


@resolves
@pytest.mark.skipif(product() != "angie", reason="Angie has it")
def test_those_in_use_are_closed_if_so_configured(stage):
    origin, gate = waiting_origin(stage)
    dns = stage.dns({"app.test": [FIRST]})
    nginx = stage.nginx(
        http=resolved().replace("%{port.back}", str(origin.port)),
        location=PASS + "myproxy_connection_drop on;")
    repeat(stage, lambda: nginx.get("/").status == 200)
    held = nginx.connect()
    held.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: origin.requests[-1].target == "/wait")
    gone(stage, dns, "app.test", [SECOND])
    stage.let_pass(1)
    gate.open()
    assert held.read_response().status == 502
    stage.wait_until(lambda: counts(nginx)["open"] == 0)


@resolves
def test_one_that_comes_back_is_used_at_once(stage):
    origin, gate = waiting_origin(stage)
    dns = stage.dns({"app.test": [FIRST]})
    nginx = stage.nginx(
        http=resolved().replace("%{port.back}", str(origin.port)),
        location=PASS)
    repeat(stage, lambda: nginx.get().status == 200)
    client = nginx.connect()
    client.send(http1.request("GET", "/wait"))
    stage.wait_until(lambda: origin.requests[-1].target == "/wait")
    gone(stage, dns, "app.test", [SECOND])
    repeat(stage, lambda: nginx.get().status == 502)
    gone(stage, dns, "app.test", [FIRST])
    repeat(stage, lambda: nginx.get().status == 200)
    # a request may have met the address in the moment in which it went
    drained = closed(nginx).get("drained", 0)
    gate.open()
    assert client.read_response().status == 200
    assert closed(nginx).get("drained", 0) == drained
    assert counts(nginx)["idle"] == 2


@resolves
@pytest.mark.parametrize("how", ["silent", "backup"])
def test_one_that_stays(stage, how):
    """The name server says nothing, or it is a backup server's name."""
    origin = stage.origin()
    stage.origin(name="main")
    dns = stage.dns({"app.test": [FIRST]})
    more = ("", "") if how == "silent" else ("server %{main} max_fails=0;",
                                             "backup")
    nginx = stage.nginx(
        http=resolved(*more).replace("%{port.back}", str(origin.port)),
        location=PASS + "resolver_timeout 300ms;", workers=2)
    repeat(stage, lambda: nginx.get().status == 200)
    if how == "silent":
        dns.hold()
    stage.let_pass(2.5)
    assert closed(nginx) == {}
    assert counts(nginx)["open"] >= 1
    if how == "silent":
        dns.release()


@resolves
@pytest.mark.parametrize("share", ["on", "off"])
def test_none_is_warmed(stage, share):
    dns = stage.dns({"app.test": [FIRST, SECOND]})
    nginx = stage.nginx(
        http=BACK + resolved("reuse_warm 6;") + f"reuse_share {share};",
        location=PASS, workers=2)
    wait_idle(stage, nginx, 6)
    gone(stage, dns, "app.test", [SECOND])

    def address_counts():
        return {server["address"].partition(":")[0]:
                server["connections"]["open"]
                for upstream in nginx.status()["upstreams"]
                for server in upstream["servers"]}
    stage.wait_until(lambda: address_counts() == {FIRST: 0, SECOND: 6})
    stage.let_pass(1.2)
    assert address_counts() == {FIRST: 0, SECOND: 6}
    assert closed(nginx)["drained"] >= 3


# variable targets

@pytest.fixture
def dns(stage):
    return stage.dns({"a.test": [FIRST], "b.test": [FIRST]})


def ask(stage, nginx, name, where):
    """Until the name's answer is that address."""
    repeat(stage, lambda: nginx.get(f"/?name={name}").body == where.encode())


@pytest.mark.parametrize("share", ["on", "off"])
@pytest.mark.parametrize("workers", [1, 3])
def test_an_answer_that_lacks_an_address(stage, dns, workers, share):
    nginx = stage.nginx(http=BACK + f"reuse_share {share};", location=NAMED,
                        workers=workers)
    for _ in range(10):
        assert nginx.get("/?name=a.test").body == FIRST.encode()
    if share == "on":
        stage.wait_until(lambda: counts(nginx)["parked"] > 0)
    opened = counts(nginx)["open"]
    assert opened >= 1
    dns.records["a.test"] = [SECOND]
    ask(stage, nginx, "a.test", SECOND)

    def servers():
        return {server["address"].partition(":")[0]:
                server["connections"]["open"]
                for upstream in nginx.status()["upstreams"]
                for server in upstream["servers"]}
    stage.wait_until(lambda: servers()[FIRST] == 0)
    assert servers()[SECOND] >= 1
    assert set(closed(nginx)) == {"drained"}


def test_other_names_of_the_address_keep_theirs(stage, dns):
    """One that was opened for a name stays, whoever has used it as well."""
    nginx = stage.nginx(http=BACK, location=NAMED)
    for name in ("b.test", "a.test", "b.test"):
        assert nginx.get(f"/?name={name}").body == FIRST.encode()
    assert counts(nginx)["open"] == 1
    dns.records["a.test"] = [SECOND]
    ask(stage, nginx, "a.test", SECOND)
    stage.let_pass(1)
    assert closed(nginx) == {}
    assert counts(nginx)["idle"] == 2
    dns.records["b.test"] = [SECOND]
    ask(stage, nginx, "b.test", SECOND)
    wait_drained(stage, nginx, 1)
    assert counts(nginx)["idle"] == 1


@pytest.mark.parametrize("before", [0, 1], ids=["first", "later"])
def test_it_is_closed_after_its_request(stage, dns, before):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(location=NAMED.replace("%{port.back}",
                                               f"{origin.port}$uri"))
    for _ in range(before):
        assert nginx.get("/?name=a.test").status == 200
    client = nginx.connect()
    client.send(http1.request("GET", "/wait?name=a.test"))
    stage.wait_until(lambda: origin.requests
                     and origin.requests[-1].target == "/wait")
    stage.let_pass(0.1)
    dns.records["a.test"] = [SECOND]
    repeat(stage, lambda: nginx.get("/?name=a.test").status == 502)
    stage.let_pass(1)
    gate.open()
    assert client.read_response().status == 200
    wait_drained(stage, nginx, origin.connections)


def test_it_stays_if_the_address_is_back_by_then(stage, dns):
    origin, gate = waiting_origin(stage)
    nginx = stage.nginx(location=NAMED.replace("%{port.back}",
                                               f"{origin.port}$uri"))
    client = nginx.connect()
    assert client.get("/?name=a.test").status == 200
    client.send(http1.request("GET", "/wait?name=a.test"))
    stage.wait_until(lambda: origin.requests[-1].target == "/wait")
    stage.let_pass(0.1)
    dns.records["a.test"] = [SECOND]
    repeat(stage, lambda: nginx.get("/?name=a.test").status == 502)
    stage.let_pass(1)
    dns.records["a.test"] = [FIRST]
    repeat(stage, lambda: nginx.get("/?name=a.test").status == 200)
    gate.open()
    assert client.read_response().status == 200
    assert not origin.conns[0].closed
    assert counts(nginx)["idle"] == 2


def test_a_name_server_that_fails_closes_nothing(stage, dns):
    nginx = stage.nginx(http=BACK, location=NAMED + """
        resolver_timeout 200ms; """)
    assert nginx.get("/?name=a.test").status == 200
    dns.hold()
    repeat(stage, lambda: nginx.get("/?name=a.test").status == 502)
    stage.let_pass(1)
    assert closed(nginx) == {}
    assert counts(nginx)["idle"] == 1
    dns.release()


def test_a_name_that_is_gone_closes_nothing(stage, dns):
    nginx = stage.nginx(http=BACK, location=NAMED)
    assert nginx.get("/?name=a.test").status == 200
    del dns.records["a.test"]
    repeat(stage, lambda: nginx.get("/?name=a.test").status == 502)
    stage.let_pass(1)
    assert closed(nginx) == {}


def test_an_address_itself_is_never_drained(stage, dns):
    nginx = stage.nginx(http=BACK, location=NAMED)
    assert nginx.get(f"/?name={FIRST}").body == FIRST.encode()
    assert nginx.get("/?name=a.test").body == FIRST.encode()
    dns.records["a.test"] = [SECOND]
    ask(stage, nginx, "a.test", SECOND)
    stage.let_pass(1)
    assert closed(nginx) == {}
    assert counts(nginx)["idle"] == 2


@pytest.mark.usefixtures("ipv6")
def test_resolvers_for_other_families_are_kept_apart(stage):
    """What only one has asked for, the other's answer does not lack."""
    dns = stage.dns({"a.test": ["::1", FIRST]})
    back = (f"server {{ listen {FIRST}:%{{port.back}};"
            " listen [::1]:%{port.back}; return 200 $server_addr; }")
    both = NAMED.replace(" ipv6=off", "").replace("resolver %{dns}",
                                                  "resolver %{dns} valid=1s")
    nginx = stage.nginx(http=back, location=NAMED.replace(
        "resolver %{dns}", "resolver %{dns} valid=1s"),
        server=f"location /both {{ {both} }}")
    seen = set()
    for _ in range(20):
        for target in ("/both", "/"):
            seen.add(nginx.get(f"{target}?name=a.test").body)
        stage.let_pass(0.15)
    assert seen == {FIRST.encode(), b"::1"}
    assert len(dns.questions) > 4
    assert closed(nginx) == {}


def test_two_name_servers_are_kept_apart(stage, dns):
    stage.dns({"a.test": [SECOND]}, name="inside")
    nginx = stage.nginx(http=BACK, location=NAMED, server="location /in {"
                        + NAMED.replace("%{dns}", "%{inside}") + "}")
    for _ in range(6):
        assert nginx.get("/?name=a.test").body == FIRST.encode()
        assert nginx.get("/in?name=a.test").body == SECOND.encode()
        stage.let_pass(0.6)
    assert closed(nginx) == {}
    assert counts(nginx)["idle"] == 2


def test_an_answer_with_many_addresses_drains_nothing(stage, dns):
    dns.records["a.test"] = [f"127.0.0.{n}" for n in range(1, 19)]
    hosts = "".join(f"listen 127.0.0.{n}:%{{port.back}};"
                    for n in range(1, 30))
    nginx = stage.nginx(http=f"server {{ {hosts} return 200 $server_addr; }}",
                        location=NAMED)
    assert nginx.get("/?name=a.test").status == 200
    dns.records["a.test"] = [f"127.0.0.{n}" for n in range(12, 29)]
    before = len(dns.questions)
    repeat(stage, lambda: nginx.get("/?name=a.test").status == 200
           and len(dns.questions) > before)
    stage.let_pass(1)
    assert closed(nginx) == {}


def murmur(data):
    """ngx_murmur_hash2(), which says where an answer is remembered."""
    more, mask = 0x5bd1e995, 0xffffffff
    value = len(data)
    while len(data) >= 4:
        part = int.from_bytes(data[:4], "little") * more & mask
        part = (part ^ part >> 24) * more & mask
        value = value * more & mask ^ part
        data = data[4:]
    if data:
        value = (value ^ int.from_bytes(data, "little")) * more & mask
    value = (value ^ value >> 13) * more & mask
    return value ^ value >> 15


def test_more_names_than_have_room_where_they_are_remembered(stage, dns):
    """A name has 4 places of 1024, and the oldest answer gives way."""
    place = murmur(b"a.test") % 1024
    names = ["a.test"]
    number = 0
    while len(names) < 6:
        number += 1
        if murmur(b"%d.test" % number) % 1024 == place:
            names.append(f"{number}.test")
    # one connection to an address for each name
    dns.records.update({name: [f"127.0.0.{at}"]
                        for at, name in enumerate(names, 1)})
    hosts = "".join(f"listen 127.0.0.{at}:%{{port.back}};"
                    for at in range(1, 9))
    nginx = stage.nginx(http=f"server {{ {hosts} return 200 $server_addr; }}",
                        location=NAMED)
    for name in names:
        assert nginx.get(f"/?name={name}").status == 200
    dns.records["a.test"] = ["127.0.0.7"]
    ask(stage, nginx, "a.test", "127.0.0.7")
    wait_drained(stage, nginx, 1)
    for at, name in enumerate(names[1:], 2):
        assert nginx.get(f"/?name={name}").body == b"127.0.0.%d" % at
    assert closed(nginx) == {"drained": 1}


def test_over_a_reload(stage, dns):
    """New workers have asked for nothing, and connections are left."""
    origin = stage.origin()
    nginx = stage.nginx(
        location=NAMED.replace("%{port.back}", str(origin.port)), workers=2)
    assert nginx.get("/?name=a.test").status == 200
    stage.wait_until(lambda: counts(nginx)["parked"] == 1)
    nginx.reload()
    dns.records["a.test"] = [SECOND]
    repeat(stage, lambda: nginx.get("/?name=a.test").status == 502)
    wait_drained(stage, nginx, 1)
    assert origin.connections == 1
