"""Connections to the origin are reused with no other line than the pass.

Sequential requests on client connections of their own show it: without a
pool, each of them opens a connection to the origin.
"""

import collections
import selectors
import signal
import socket

import pytest

from harness import http1, settings, tls
from harness.nginx import version

#: From there on an upstream{} block that says nothing keeps connections
#: for every handler, those of each location apart; ours are in one pool.
NATIVE = version() >= (1, 29, 7)

SEQUENTIAL = 10000
CONCURRENT = 10000
TLS_SEQUENTIAL = 2000
TLS_CONCURRENT = 2000
AT_A_TIME = 32

STOCK = """
    proxy_http_version 1.1;
    proxy_set_header Connection "";
"""

APP = "upstream app { server %{origin}; }"
PASS = "myproxy_pass http://app;"

#: A location for the module and one for nginx's own proxy, for TARGET.
BOTH = """
    location /my { myproxy_pass http://TARGET; }
    location /stock { proxy_pass http://TARGET; """ + STOCK + "}"


def ask(nginx, count=3, target="/", **more):
    for _ in range(count):
        assert nginx.get(target, **more).status == 200


def ask_in_turn(nginx, *targets):
    for target in targets:
        assert nginx.get(target).status == 200


# what the pass names

@pytest.mark.parametrize("family", ["ipv4", "unix"])
def test_an_address_alone(stage, family):
    origin = stage.origin(family=family)
    ask(stage.nginx(location="myproxy_pass http://%{origin};"))
    assert origin.carried == [3]


def test_an_ipv6_address_alone(stage, ipv6):
    origin = stage.origin(family="ipv6")
    ask(stage.nginx(location="myproxy_pass http://%{origin};"))
    assert origin.carried == [3]


def test_a_name_and_a_port(stage):
    origin = stage.origin()
    ask(stage.nginx(
        location="myproxy_pass http://localhost:%{origin.port};"))
    assert origin.carried == [3]


def test_a_name_without_a_port(stage):
    origin = stage.origin()
    ask(stage.nginx(http="upstream name.test { server %{origin}; }",
                    location="myproxy_pass http://name.test;"))
    assert origin.carried == [3]


def test_an_address_with_a_uri(stage):
    origin = stage.origin()
    ask(stage.nginx(location="myproxy_pass http://%{origin}/base/;"))
    assert origin.carried == [3]


def test_an_upstream_that_says_nothing(stage):
    origin = stage.origin()
    ask(stage.nginx(http=APP, location=PASS))
    assert origin.carried == [3]


def test_an_upstream_with_a_unix_socket(stage):
    origin = stage.origin(family="unix")
    ask(stage.nginx(http=APP, location=PASS))
    assert origin.carried == [3]


def test_an_upstream_that_is_defined_below(stage):
    origin = stage.origin()
    nginx = stage.nginx(http="""
        server {
            listen 127.0.0.1:%{port.other};
            location / { myproxy_pass http://app; }
        }
        upstream app { server %{origin}; }
    """)
    ask(nginx, port="other")
    assert origin.carried == [3]


def test_an_upstream_that_a_variable_names(stage):
    origin = stage.origin()
    ask(stage.nginx(http=APP, server="set $name app;",
                    location="myproxy_pass http://$name;"))
    assert origin.carried == [3]


def test_an_upstream_below_that_a_variable_names(stage):
    origin = stage.origin()
    nginx = stage.nginx(http="""
        server {
            listen 127.0.0.1:%{port.other};
            location / { myproxy_pass http://$arg_name; }
        }
        upstream app { server %{origin}; }
    """)
    ask(nginx, target="/?name=app", port="other")
    assert origin.carried == [3]


def test_an_address_that_a_variable_names_and_a_pass_as_well(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        server="""
            set $name %{origin};
            location /fixed { myproxy_pass http://%{origin}; }
            location /variable { myproxy_pass http://$name; }
        """)
    ask(nginx, target="/variable")
    assert origin.carried == [3]


def test_a_pass_in_if(stage):
    origin = stage.origin()
    ask(stage.nginx(location="if ($uri) { myproxy_pass http://%{origin}; }"))
    assert origin.carried == [3]


def test_a_pass_in_a_named_location(stage):
    origin = stage.origin()
    ask(stage.nginx(server="""
        location / { try_files /missing @app; }
        location @app { myproxy_pass http://%{origin}; }
    """))
    assert origin.carried == [3]


def test_requests_of_one_client_connection(stage):
    origin = stage.origin()
    client = stage.nginx(location="myproxy_pass http://%{origin};").connect()
    for _ in range(3):
        assert client.get("/").status == 200
    assert origin.carried == [3]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE",
                                    "OPTIONS", "PATCH"])
def test_every_method(stage, method):
    origin = stage.origin()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    body = b"body" if method in ("POST", "PUT", "PATCH") else None
    for _ in range(3):
        assert nginx.request(method, "/", body=body).status == 200
    assert origin.carried == [3]


# how a server is chosen

@pytest.mark.parametrize("method", [
    "", "least_conn;", "ip_hash;", "hash $request_uri;",
    "hash $request_uri consistent;", "random;", "random two;",
    "random two least_conn;",
], ids=lambda method: method.rstrip(";") or "round robin")
@pytest.mark.parametrize("zone", ["", "zone app 64k;"],
                         ids=["private", "zone"])
def test_balancing(stage, method, zone):
    origins = [stage.origin(name=name) for name in ("one", "two", "three")]
    nginx = stage.nginx(
        http=f"""
            upstream app {{
                {zone}
                {method}
                server %{{one}};
                server %{{two}};
                server %{{three}};
            }}
        """,
        location=PASS)
    for number in range(18):
        assert nginx.get(f"/{number}").status == 200
    assert sum(len(origin.requests) for origin in origins) == 18
    assert all(origin.connections == (1 if origin.requests else 0)
               for origin in origins)


def test_there_is_room_for_each_server(stage):
    """More of them than connections are kept otherwise."""
    origins = [stage.origin(name=f"o{number}") for number in range(40)]
    servers = " ".join(f"server %{{o{number}}};" for number in range(40))
    nginx = stage.nginx(http=f"upstream app {{ {servers} }}", location=PASS)
    client = nginx.connect()
    for _ in range(80):
        assert client.get("/").status == 200
    assert [origin.carried for origin in origins] == [[2]] * 40


def test_round_robin_stays_even(stage):
    origins = [stage.origin(name=name) for name in ("one", "two")]
    ask(stage.nginx(
        http="upstream app { server %{one}; server %{two}; }",
        location=PASS), 6)
    assert [origin.carried for origin in origins] == [[3], [3]]


def test_weights_are_kept(stage):
    origins = [stage.origin(name=name) for name in ("one", "two")]
    ask(stage.nginx(
        http="upstream app { server %{one} weight=3; server %{two}; }",
        location=PASS), 8)
    assert [origin.carried for origin in origins] == [[6], [2]]


def test_ip_hash_stays_with_one_server(stage):
    origins = [stage.origin(name=name) for name in ("one", "two")]
    ask(stage.nginx(
        http="upstream app { ip_hash; server %{one}; server %{two}; }",
        location=PASS), 4)
    assert sorted(origin.carried for origin in origins) == [[], [4]]


def test_a_backup_server(stage):
    stage.origin(name="first", listening=False)
    second = stage.origin(name="second")
    ask(stage.nginx(
        http="""
            upstream app { server %{first}; server %{second} backup; }
        """, location=PASS))
    assert second.carried == [3]


def test_a_server_that_comes_back(stage):
    first = stage.origin(name="first", listening=False)
    second = stage.origin(name="second")
    nginx = stage.nginx(
        http="""
            upstream app {
                server %{first} max_fails=0;
                server %{second} backup;
            }
        """, location=PASS)
    ask(nginx)
    first.listen()
    ask(nginx)
    assert (first.carried, second.carried) == ([3], [3])


def test_max_conns_counts_requests_not_idle_connections(stage):
    origin = stage.origin()
    ask(stage.nginx(http="upstream app { server %{origin} max_conns=1; }",
                    location=PASS))
    assert origin.carried == [3]


# who shares the pool

@pytest.mark.parametrize("explicit", [True, False],
                         ids=["upstream", "address"])
def test_locations_and_servers_with_one_upstream(stage, explicit):
    origin = stage.origin()
    target = "app" if explicit else "%{origin}"
    nginx = stage.nginx(
        http=APP + f"""
            server {{
                listen 127.0.0.1:%{{port.other}};
                location / {{ myproxy_pass http://{target}; }}
            }}
        """,
        server=f"""
            location /one {{ myproxy_pass http://{target}; }}
            location /two {{ myproxy_pass http://{target}/base; }}
        """)
    for _ in range(3):
        ask(nginx, 1, "/one")
        ask(nginx, 1, "/two")
        ask(nginx, 1, "/", port="other")
    assert origin.carried == [9]


def test_each_of_two_workers_has_its_own(stage):
    origin = stage.origin()
    ask(stage.nginx(workers=2, location="myproxy_pass http://%{origin};"), 20)
    assert origin.connections <= 2
    assert sum(origin.carried) == 20


def test_two_workers_and_a_zone(stage):
    origin = stage.origin()
    ask(stage.nginx(workers=2,
                    http="upstream app { zone app 64k; server %{origin}; }",
                    location=PASS), 20)
    assert origin.connections <= 2
    assert sum(origin.carried) == 20


def test_upstreams_do_not_share(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http=APP,
        server="""
            location /name { myproxy_pass http://app; }
            location /address { myproxy_pass http://%{origin}; }
        """)
    ask_in_turn(nginx, "/name", "/address", "/name", "/address")
    assert origin.carried == [2, 2]


# what the operator has written

class Held:
    """An origin whose first answers wait until `count` requests are in."""

    def __init__(self, stage, count):
        self.stage = stage
        self.count = count
        self.origin = stage.origin(self.script)
        self.gate = self.origin.gate()

    def script(self, conn):
        for _ in conn.each_request():
            self.gate.wait()
            conn.respond()

    def ask(self, nginx):
        """So many requests at a time."""
        clients = [nginx.connect() for _ in range(self.count)]
        for client in clients:
            client.send(http1.request("GET", "/"))
        self.stage.wait_until(
            lambda: len(self.origin.requests) == self.count)
        self.gate.open()
        for client in clients:
            assert client.read_response().status == 200


def test_thirty_two_idle_connections_are_kept(stage):
    held = Held(stage, 40)
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    held.ask(nginx)
    stage.wait_until(
        lambda: sum(conn.closed for conn in held.origin.conns) == 8)
    ask(nginx)
    assert held.origin.connections == 40


@pytest.mark.parametrize("line", ["keepalive 2;", "keepalive 2; reuse on;"])
def test_the_number_of_idle_connections(stage, line):
    held = Held(stage, 5)
    nginx = stage.nginx(http=f"upstream app {{ server %{{origin}}; {line} }}",
                        location=PASS)
    held.ask(nginx)
    stage.wait_until(
        lambda: sum(conn.closed for conn in held.origin.conns) == 3)
    ask(nginx)
    assert held.origin.connections == 5


@pytest.mark.parametrize("keepalive", ["", "keepalive 4;"])
def test_the_idle_time(stage, keepalive):
    origin = stage.origin()
    nginx = stage.nginx(
        http=f"""
            upstream app {{
                server %{{origin}}; {keepalive} keepalive_timeout 500ms;
            }}
        """, location=PASS)
    ask(nginx)
    stage.wait_until(lambda: origin.conns[0].closed)
    ask(nginx, 1)
    assert origin.carried == [3, 1]


@pytest.mark.parametrize("keepalive", ["", "keepalive 4;"])
def test_the_number_of_requests(stage, keepalive):
    origin = stage.origin()
    nginx = stage.nginx(
        http=f"""
            upstream app {{
                server %{{origin}}; {keepalive} keepalive_requests 3;
            }}
        """, location=PASS)
    ask(nginx, 7)
    assert origin.carried == [3, 3, 1]


@pytest.mark.parametrize("keepalive", ["", "keepalive 4;"])
def test_the_age(stage, keepalive):
    origin = stage.origin()
    nginx = stage.nginx(
        http=f"""
            upstream app {{
                server %{{origin}}; {keepalive}
                keepalive_time 50ms; keepalive_requests 1000000;
            }}
            keepalive_requests 1000000;
        """, location=PASS)
    client = nginx.connect()
    for _ in range(20000):
        assert client.get("/").status == 200
        if origin.connections > 1:
            break
    assert origin.connections == 2
    assert origin.carried[0] > 1


@pytest.mark.parametrize("keepalive", ["", "keepalive 4;"])
@pytest.mark.parametrize("zone", ["", "zone app 64k;"],
                         ids=["private", "zone"])
def test_reuse_off(stage, keepalive, zone):
    origin = stage.origin()
    ask(stage.nginx(
        http=f"""
            upstream app {{
                {zone} server %{{origin}}; {keepalive} reuse off;
            }}
        """, location=PASS))
    assert origin.carried == [1, 1, 1]


def test_reuse_off_holds_for_variables(stage):
    origin = stage.origin()
    ask(stage.nginx(http="upstream app { server %{origin}; reuse off; }",
                    location="set $name app; myproxy_pass http://$name;"))
    assert origin.carried == [1, 1, 1]


def test_reuse_off_holds_for_this_upstream_only(stage):
    stage.origin(name="off")
    on = stage.origin(name="on")
    nginx = stage.nginx(
        http="""
            upstream off { server %{off}; reuse off; }
            upstream on { server %{on}; }
        """,
        server="""
            location /off { myproxy_pass http://off; }
            location /on { myproxy_pass http://on; }
        """)
    ask_in_turn(nginx, "/off", "/on", "/off", "/on")
    assert on.carried == [2]


def test_reuse_off_still_retries(stage):
    stage.origin(name="first", listening=False)
    second = stage.origin(name="second")
    ask(stage.nginx(
        http="""
            upstream app { server %{first}; server %{second}; reuse off; }
        """, location=PASS))
    assert second.carried == [1, 1, 1]


def test_reuse_off_still_resumes_tls_sessions(stage):
    origin = stage.origin(tls="origin.test")
    nginx = stage.nginx(
        http="upstream origin.test { server %{origin}; reuse off; }",
        location="""
            myproxy_pass https://origin.test;
            myproxy_ssl_trusted_certificate %{authority.path};
        """)
    ask(nginx, 2)
    assert origin.carried == [1, 1]
    assert origin.conns[1].session_reused


def test_reuse_off_holds_for_the_stock_proxy(stage):
    origin = stage.origin()
    ask(stage.nginx(
        http="upstream app { server %{origin}; keepalive 4; reuse off; }",
        location="proxy_pass http://app;" + STOCK))
    assert origin.carried == [1, 1, 1]


def test_reuse_on(stage):
    origin = stage.origin()
    ask(stage.nginx(http="upstream app { server %{origin}; reuse on; }",
                    location=PASS))
    assert origin.carried == [3]


def test_reuse_on_holds_for_the_stock_proxy(stage):
    origin = stage.origin()
    ask(stage.nginx(http="upstream app { server %{origin}; reuse on; }",
                    location="proxy_pass http://app;" + STOCK))
    assert origin.carried == [3]


def test_reuse_on_makes_one_pool(stage):
    origin = stage.origin()
    nginx = stage.nginx(http="upstream app { server %{origin}; reuse on; }",
                        server=BOTH.replace("TARGET", "app"))
    ask_in_turn(nginx, "/my", "/stock", "/my", "/stock")
    assert origin.carried == [4]


@pytest.mark.parametrize("lines, message", [
    ("reuse maybe;", 'invalid value "maybe" in "reuse" directive'),
    ("reuse on; reuse off;", '"reuse" directive is duplicate'),
    ("reuse;", 'invalid number of arguments in "reuse" directive'),
    ("reuse on off;", 'invalid number of arguments in "reuse" directive'),
    ("reuse_retry 1;", 'invalid value "1" in "reuse_retry" directive'),
    ("reuse_expiry soon;", 'invalid value "soon" of "reuse_expiry"'),
    ("reuse_expiry 0;", 'invalid value "0" of "reuse_expiry"'),
    ("reuse_expiry -1s;", 'invalid value "-1s" of "reuse_expiry"'),
    ("reuse_expiry auto; reuse_expiry off;",
     '"reuse_expiry" directive is duplicate'),
])
def test_reuse_wrongly_written(stage, lines, message):
    stage.origin()
    code, text = stage.config_test(
        http=f"upstream app {{ server %{{origin}}; {lines} }}", location=PASS)
    assert code == 1
    assert message in text


@pytest.mark.parametrize("level", ["server", "location"])
@pytest.mark.parametrize("name, value", [
    ("reuse", "on"), ("reuse_retry", "off"), ("reuse_expiry", "5s")])
def test_reuse_where_it_does_not_belong(stage, level, name, value):
    code, text = stage.config_test(**{"server": "set $x y;",
                                      level: f"{name} {value};"})
    assert code == 1
    assert f'"{name}" directive is not allowed here' in text


# nginx's own handlers on the same upstream

def test_the_stock_proxy_on_an_upstream_of_ours(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=APP, server=BOTH.replace("TARGET", "app"))
    ask_in_turn(nginx, "/my", "/stock", "/my", "/stock")
    assert origin.carried == ([2, 2] if NATIVE else [2, 1, 1])


def test_the_stock_proxy_on_an_address_of_ours(stage):
    origin = stage.origin()
    nginx = stage.nginx(server=BOTH.replace("TARGET", "%{origin}"))
    ask_in_turn(nginx, "/my", "/stock", "/my", "/stock")
    assert origin.carried == [2, 1, 1]


def test_the_stock_proxy_where_a_variable_may_name_any_upstream(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http=APP,
        server="""
            location /my { myproxy_pass http://$arg_name; }
            location /stock { proxy_pass http://app;""" + STOCK + "}")
    ask_in_turn(nginx, "/my?name=app", "/stock", "/my?name=app", "/stock")
    assert origin.carried == ([2, 2] if NATIVE else [2, 1, 1])


def test_the_stock_proxy_with_the_operators_keepalive(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http="upstream app { server %{origin}; keepalive 4; }",
        server=BOTH.replace("TARGET", "app"))
    ask_in_turn(nginx, "/stock", "/stock", "/my", "/my")
    assert origin.carried == [4]


def test_the_stock_proxy_by_default(stage):
    origin = stage.origin()
    nginx = stage.nginx(server="""
        location /my { myproxy_pass http://%{origin}; }
        location /stock { proxy_pass http://%{origin}; }
    """)
    ask_in_turn(nginx, "/my", "/stock")
    ours, stock = origin.requests
    assert (ours.version, ours.values("Connection")) == ("HTTP/1.1", [])
    assert stock.version == ("HTTP/1.1" if NATIVE else "HTTP/1.0")
    assert origin.carried == [1, 1]


def test_the_stock_proxy_with_nothing_of_ours(stage):
    origin = stage.origin()
    ask(stage.nginx(location="proxy_pass http://%{origin};" + STOCK))
    assert origin.carried == [1, 1, 1]


def test_balancing_counts_stock_requests_as_well(stage):
    origins = [stage.origin(name=name) for name in ("one", "two")]
    nginx = stage.nginx(
        http="upstream app { server %{one}; server %{two}; }",
        server=BOTH.replace("TARGET", "app"))
    ask_in_turn(nginx, "/my", "/stock", "/my", "/stock")
    assert [request.target for request in origins[0].requests] == ["/my"] * 2
    assert [request.target
            for request in origins[1].requests] == ["/stock"] * 2


def http_and_memcached(spoken):
    def script(conn):
        while conn.more():
            line = conn.read_line()
            if line.startswith(b"get "):
                spoken.append((conn.number, "memcached"))
                conn.send(b"VALUE %s 0 5\r\nhello\r\nEND\r\n" % line[4:])
            else:
                conn.read_until(b"\r\n\r\n")
                spoken.append((conn.number, "http"))
                conn.respond()
    return script


@pytest.mark.parametrize("explicit", [True, False],
                         ids=["upstream", "address"])
def test_memcached_on_the_same_upstream(stage, explicit):
    spoken = []
    stage.origin(http_and_memcached(spoken))
    target = "app" if explicit else "%{origin}"
    nginx = stage.nginx(
        http=APP,
        server=f"""
            location /my {{ myproxy_pass http://{target}; }}
            location /cached {{
                set $memcached_key $uri;
                memcached_pass {target};
            }}
        """)
    ask_in_turn(nginx, "/my", "/cached", "/my", "/cached")
    last = 2 if explicit and NATIVE else 3
    assert spoken == [(1, "http"), (2, "memcached"), (1, "http"),
                      (last, "memcached")]


# reading the configuration

@pytest.mark.parametrize("http, target", [
    ("", "%{origin}"),
    (APP, "app"),
    (APP, "$arg_name"),
    ("upstream app { zone app 64k; server %{origin}; }", "app"),
    ("upstream app { server %{origin}; keepalive 4; }", "app"),
    ("upstream app { keepalive_timeout 5s; server %{origin}; }", "app"),
    ("upstream app { reuse on; ip_hash; server %{origin}; }", "app"),
])
def test_the_configuration_test_is_content(stage, http, target):
    stage.origin()
    code, text = stage.config_test(http=http,
                                   location=f"myproxy_pass http://{target};")
    assert code == 0
    assert "[warn]" not in text


@pytest.mark.parametrize("http, target", [
    ("", "%{origin}"),
    (APP, "app"),
    ("upstream app { zone app 64k; server %{origin}; }", "app"),
], ids=["address", "upstream", "zone"])
def test_a_reload(stage, http, target):
    origin = stage.origin()
    nginx = stage.nginx(http=http, location=f"myproxy_pass http://{target};")
    ask(nginx)
    nginx.reload()
    stage.wait_until(lambda: origin.conns[0].closed)
    ask(nginx)
    assert origin.carried == [3, 3]


def test_a_reload_turns_reuse_off_and_on(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=APP, location=PASS)
    ask(nginx)
    nginx.reload(http="upstream app { server %{origin}; reuse off; }")
    ask(nginx, 2)
    nginx.reload(http=APP)
    ask(nginx)
    assert origin.carried == [3, 1, 1, 3]


def test_a_broken_configuration_changes_nothing(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=APP, location=PASS)
    nginx.expect_log("invalid value")
    ask(nginx)
    nginx.write("nginx.conf", nginx.text.replace(
        "upstream app {", "upstream app { reuse maybe;"))
    nginx.send_signal(signal.SIGHUP)
    nginx.wait_log("invalid value")
    ask(nginx)
    assert origin.carried == [6]


# how many connections many requests take

REQUEST = http1.request("GET", "/")


class Quick:
    """An origin that answers as fast as it can and notes nothing."""

    def __init__(self, stage, tls=None):
        #: Requests on each connection, by its number.
        self.served = collections.Counter()
        self.origin = stage.origin(self.script, tls=tls)

    def script(self, conn):
        answer = http1.response()
        sock = conn.sock
        sock.settimeout(None)
        while True:
            data = sock.recv(65536)
            if not data:
                return
            assert data.endswith(b"\r\n\r\n")
            self.served[conn.number] += 1
            sock.sendall(answer)


def many(nginx, count, at_a_time):
    """So many requests, each client sending one when it has an answer."""
    left = count
    busy = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(at_a_time):
            sock = socket.create_connection(("127.0.0.1", nginx.port()),
                                            timeout=settings.PATIENCE)
            selector.register(sock, selectors.EVENT_READ, bytearray())
        for key in list(selector.get_map().values()):
            key.fileobj.sendall(REQUEST)
            left -= 1
            busy += 1
        while busy:
            ready = selector.select(settings.PATIENCE)
            assert ready, f"{busy} answers do not come"
            for key, _ in ready:
                data = key.fileobj.recv(65536)
                assert data, "nginx has closed the connection"
                key.data.extend(data)
                if not key.data.endswith(b"\r\n\r\nhello\n"):
                    continue
                assert key.data.startswith(b"HTTP/1.1 200 OK\r\n")
                key.data.clear()
                if left:
                    key.fileobj.sendall(REQUEST)
                    left -= 1
                else:
                    busy -= 1
        for key in list(selector.get_map().values()):
            selector.unregister(key.fileobj)
            key.fileobj.close()


CLIENT_SIDE = "keepalive_requests 1000000;"


def test_many_requests_one_after_another(stage):
    quick = Quick(stage)
    nginx = stage.nginx(http=CLIENT_SIDE,
                        location="myproxy_pass http://%{origin};")
    many(nginx, SEQUENTIAL, 1)
    assert quick.served == {1: SEQUENTIAL}


def test_many_requests_at_a_time(stage):
    quick = Quick(stage)
    nginx = stage.nginx(http=CLIENT_SIDE,
                        location="myproxy_pass http://%{origin};")
    many(nginx, CONCURRENT, AT_A_TIME)
    assert sum(quick.served.values()) == CONCURRENT
    assert quick.origin.connections <= AT_A_TIME


METHODS = ["least_conn;", "ip_hash;", "hash $uri;", "hash $uri consistent;",
           "random;", "random two;"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("own", ["{} keepalive 4;", "keepalive 4; {}"])
def test_a_balancing_method_before_or_behind_keepalive(stage, own, method):
    """Behind it, nginx before 1.29.7 forgets "keepalive", and says so."""
    origin = stage.origin()
    nginx = stage.nginx(
        http=f"upstream app {{ server %{{origin}}; {own.format(method)} }}",
        location="myproxy_pass http://app;")
    for _ in range(5):
        assert nginx.get().status == 200
    nginx.reload()
    for _ in range(5):
        assert nginx.get().status == 200
    assert origin.carried == [5, 5]


@pytest.mark.parametrize("reuse", ["reuse on;", "reuse off;", ""])
def test_stock_behind_a_balancing_method(stage, reuse):
    """What has no layer is as nginx has it."""
    origin = stage.origin()
    nginx = stage.nginx(
        http=f"upstream app {{ server %{{origin}}; keepalive 4; least_conn;"
             f" {reuse} }}", location="proxy_pass http://app;" + STOCK)
    for _ in range(3):
        assert nginx.get().status == 200
    kept = reuse == "reuse on;" or (NATIVE and not reuse)
    assert origin.connections == (1 if kept else 3)


TLS = """
    myproxy_pass https://origin.test;
    myproxy_ssl_trusted_certificate %{authority.path};
"""
TLS_APP = "upstream origin.test { server %{origin}; }" + CLIENT_SIDE


@pytest.fixture
def quick_tls(stage, authority):
    return Quick(stage, tls.Server(authority.issue("origin.test")))


def test_many_requests_one_after_another_over_tls(stage, quick_tls):
    nginx = stage.nginx(http=TLS_APP, location=TLS)
    many(nginx, TLS_SEQUENTIAL, 1)
    assert quick_tls.served == {1: TLS_SEQUENTIAL}


def test_many_requests_at_a_time_over_tls(stage, quick_tls):
    nginx = stage.nginx(http=TLS_APP, location=TLS)
    many(nginx, TLS_CONCURRENT, AT_A_TIME)
    assert sum(quick_tls.served.values()) == TLS_CONCURRENT
    assert quick_tls.origin.connections <= AT_A_TIME
