"""What only variables name, and no upstream of the configuration.

A name that the resolver was not asked for before is resolved while the request
waits; "fresh" scenarios have such names, of one address.
"""

import contextlib
import time

import pytest

from harness import http1, settings
from harness.crossing import Scene
from harness.nginx import has
from harness.origin import CLOSE

POOL = "variable targets"

TO_ORIGIN = "set $to %{origin}; myproxy_pass http://$to;"

NAMED = """
    resolver %{dns} ipv6=off;
    myproxy_pass http://$arg_name:%{origin.port};
"""

A, B, NONE = "/?name=a.test", "/?name=b.test", "/?name=none.test"

ZONE = "myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;"

CACHED = NAMED + """
    myproxy_cache zone;
    myproxy_cache_key $arg_key;
    myproxy_cache_valid 1h;
    add_header X-Status $upstream_cache_status;
"""


def back(*hosts):
    """Answers with the address asked, the connection and its requests."""
    listen = "".join(f"listen {host}:%{{port.back}};" for host in hosts)
    return f"""
        server {{
            {listen}
            return 200 "$server_addr $connection $connection_requests";
        }}
    """


TO_BACK = """
    resolver %{dns} ipv6=off;
    myproxy_pass http://$arg_name:%{port.back};
"""


@pytest.fixture
def dns(stage):
    return stage.dns({"a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"]},
                     ttl=600)


def pool(nginx):
    """What is counted of variable targets, by address."""
    return {server["address"]: server
            for upstream in nginx.status()["upstreams"]
            if upstream["name"] == POOL for server in upstream["servers"]}


def idle(nginx):
    return sum(server["connections"]["idle"]
               for server in pool(nginx).values())


@contextlib.contextmanager
def waiting(stage, dns, nginx, request):
    """A client whose request waits for the name server."""
    dns.hold()
    asked = len(dns.questions)
    client = nginx.connect()
    client.send(request)
    stage.wait_until(lambda: len(dns.questions) > asked)
    yield client
    client.close()


# addresses

@pytest.mark.parametrize("family", ["ipv4", "ipv6", "unix"])
def test_an_address_keeps_its_connections(stage, family, request):
    if family == "ipv6":
        request.getfixturevalue("ipv6")
    origin = stage.origin(family=family)
    nginx = stage.nginx(location=TO_ORIGIN)
    for _ in range(3):
        assert nginx.get().status == 200
    assert origin.carried == [3]
    server, = pool(nginx).values()
    assert server["address"] == str(origin)
    assert server["attempts"] == {**server["attempts"],
                                  "total": 3, "reused": 2}


def test_addresses_have_connections_of_their_own(stage):
    origins = [stage.origin(name=name) for name in ("one", "two")]
    nginx = stage.nginx(location="myproxy_pass http://127.0.0.1:$arg_port;")
    for _ in range(3):
        for origin in origins:
            assert nginx.get(f"/?port={origin.port}").status == 200
    assert [origin.carried for origin in origins] == [[3], [3]]


def test_locations_share_connections(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=TO_ORIGIN, server="""
        location /if { set $to %{origin}; myproxy_pass http://$to;
                       if ($arg_a) { set $b 1; } }
    """)
    for target in ("/", "/if", "/if?a=1"):
        assert nginx.get(target).status == 200
    assert origin.carried == [3]


def test_an_upstream_that_is_named_has_its_own_pool(stage):
    origin = stage.origin()
    nginx = stage.nginx(http="upstream app { server %{origin}; }",
                        location="myproxy_pass http://$arg_to;")
    for _ in range(2):
        assert nginx.get("/?to=app").status == 200
        assert nginx.get(f"/?to={origin}").status == 200
    assert origin.carried == [2, 2]
    assert [upstream["name"] for upstream in nginx.status()["upstreams"]] == [
        "app", POOL]


def test_an_upstream_of_another_port_is_another(stage):
    """A pass to an address makes an upstream of that address and port."""
    other = stage.origin(name="other")
    origin = stage.origin()
    nginx = stage.nginx(
        location="myproxy_pass http://127.0.0.1:$arg_port;",
        server="location /literal { myproxy_pass http://%{other}; }")
    for _ in range(2):
        assert nginx.get(f"/?port={origin.port}").status == 200
        assert nginx.get(f"/?port={other.port}").status == 200
        assert nginx.get("/literal").status == 200
    assert (origin.carried, other.carried) == ([2], [4])
    assert list(pool(nginx)) == [str(origin)]


def test_an_upstream_block_has_no_port(stage):
    """Where the pass names one, a name server is asked for the host."""
    other = stage.origin(name="other")
    origin = stage.origin()
    stage.dns({"app": ["127.0.0.1"]})
    nginx = stage.nginx(
        http="upstream app { server %{other}; }",
        location="resolver %{dns} ipv6=off; myproxy_pass http://$arg_to;")
    for _ in range(2):
        assert nginx.get(f"/?to=app:{origin.port}").status == 200
        assert nginx.get("/?to=app").status == 200
    assert (origin.carried, other.carried) == ([2], [2])


def test_no_url_names_the_pool_itself(stage):
    stage.dns({})
    nginx = stage.nginx(location="""
        resolver %{dns} ipv6=off;
        set $name "variable targets";
        myproxy_pass http://$name;
    """)
    assert nginx.get().status == 502
    assert nginx.logged("variable targets could not be resolved")


def test_with_reuse_off_nothing_is_kept(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(http="reuse off;", location=NAMED, server="""
        location /address { set $to %{origin}; myproxy_pass http://$to; }
    """)
    for target in (A, A, B, "/address", "/address"):
        assert nginx.get(target).status == 200
    assert origin.carried == [1] * 5
    assert pool(nginx) == {}


def test_a_request_says_how_it_got_its_connection(stage, dns):
    stage.origin()
    nginx = stage.nginx(location=NAMED + """
        add_header X-How "$reuse_connection $reuse_reason $reuse_requests";
        add_header X-Where "$upstream_addr $myproxy_host $myproxy_port";
        add_header X-Count "$upstream_status $upstream_connect_time";
    """)
    found = [nginx.get(target) for target in (A, B, B)]
    assert [response.header("X-How") for response in found] == [
        "new empty 1", "reused  2", "reused  3"]
    port = stage.names["origin"].port
    assert [response.header("X-Where") for response in found] == [
        f"127.0.0.1:{port} {name}.test:{port} {port}" for name in "abb"]
    for response in found:
        status, time = response.header("X-Count").split()
        assert status == "200"
        assert float(time) < 60


def test_there_is_no_warning_of_variables(stage):
    code, text = stage.config_test(location="myproxy_pass http://$arg_a;")
    assert code == 0
    assert "[warn]" not in text


# names

def test_a_name_that_is_known_keeps_its_connections(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(location=NAMED)
    for _ in range(3):
        assert nginx.get(A).status == 200
    assert origin.carried == [3]
    assert dns.questions == ["a.test"]


def test_a_fresh_name_uses_connections_and_leaves_one(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(location=NAMED)
    for target in (A, B):
        assert nginx.get(target).status == 200
    assert origin.carried == [2]
    assert dns.questions == ["a.test", "b.test"]


def test_the_host_is_sent_as_it_was_written(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(location=NAMED
                        + "myproxy_set_header Host $myproxy_host;")
    for target in ("/?name=A.Test", "/?name=A.Test"):
        assert nginx.get(target).status == 200
    assert [request.header("Host") for request in origin.requests] == [
        f"A.Test:{origin.port}"] * 2
    assert origin.carried == [2]


def test_requests_that_wait_for_one_name(stage, dns):
    """It is asked for once, and all are answered."""
    gate = None

    def script(conn):
        for _ in conn.each_request():
            gate.wait()
            conn.respond()

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(location=NAMED)
    dns.hold()
    clients = [nginx.connect() for _ in range(5)]
    for client in clients:
        client.send(http1.request("GET", A))
    nginx.get("/?name=127.0.0.2")   # it has read the others by then
    dns.release()
    stage.wait_until(lambda: origin.connections == 5)
    gate.open()
    for client in clients:
        assert client.read_response().status == 200
    assert dns.questions == ["a.test"]
    for _ in range(5):
        assert nginx.get(A).status == 200
    assert sum(origin.carried) == 10
    assert origin.connections == 5


def test_each_address_of_a_name_has_connections(stage):
    stage.dns({"a.test": ["127.0.0.1", "127.0.0.2"]}, ttl=600)
    nginx = stage.nginx(http=back("127.0.0.1", "127.0.0.2"),
                        location=TO_BACK)
    found = [nginx.get(A).body.decode().split() for _ in range(20)]
    assert {address for address, *_ in found} == {"127.0.0.1", "127.0.0.2"}
    assert len({connection for _, connection, _ in found}) == 2


@pytest.mark.parametrize("fresh", [True, False])
def test_the_next_address_is_tried(stage, fresh):
    dead = [f"127.0.0.{number}" for number in range(2, 9)]
    names = [f"n{number}.test" for number in range(12)]
    stage.dns({name: dead + ["127.0.0.1"] for name in names}, ttl=600)
    origin = stage.origin()
    nginx = stage.nginx(location=NAMED
                        + "add_header X-Where $upstream_addr;")
    found = []
    for name in names:
        response = nginx.get(f"/?name={name if fresh else names[0]}")
        assert response.status == 200
        found.append(response.header("X-Where").split(", "))
    assert max(map(len, found)) > 1
    for where in found:
        assert where[-1] == str(origin)
        assert len(set(where)) == len(where)
    assert origin.carried == [12]


def test_no_address_is_left(stage):
    stage.dns({"a.test": ["127.0.0.2", "127.0.0.3"]})
    stage.origin()
    nginx = stage.nginx(location=NAMED
                        + "add_header X-Where $upstream_addr always;")
    response = nginx.get(A)
    assert response.status == 502
    assert len(response.header("X-Where").split(", ")) == 2
    assert len(nginx.logged("connect.. failed .*Connection refused")) == 2


def test_a_name_that_moves_is_followed(stage):
    dns = stage.dns({"a.test": ["127.0.0.1"]})
    nginx = stage.nginx(http=back("127.0.0.1", "127.0.0.2"),
                        location=TO_BACK)
    assert nginx.get(A).body.startswith(b"127.0.0.1 ")
    dns.records["a.test"] = ["127.0.0.2"]
    end = time.monotonic() + settings.PATIENCE
    while not nginx.get(A).body.startswith(b"127.0.0.2 "):
        assert time.monotonic() < end
    for _ in range(3):
        assert nginx.get(A).body.startswith(b"127.0.0.2 ")
    kept = {address.partition(":")[0]: server["connections"]["idle"]
            for address, server in pool(nginx).items()}
    assert kept == {"127.0.0.1": 1, "127.0.0.2": 1}


def test_a_dot_at_the_end_of_a_name_makes_no_other(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(location=NAMED)
    for target in (A, "/?name=a.test."):
        assert nginx.get(target).status == 200
    assert origin.carried == [2]
    assert dns.questions == ["a.test"]


# names that are not resolved

def test_a_name_that_does_not_exist(stage, dns):
    stage.origin()
    nginx = stage.nginx(location=NAMED)
    for _ in range(2):
        assert nginx.get(NONE).status == 502
    assert len(nginx.logged(
        r"none\.test could not be resolved \(3: Host not found\)")) == 2


def test_a_name_server_that_is_silent(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(location=NAMED + "resolver_timeout 300ms;")
    dns.hold()
    assert nginx.get(A).status == 502
    assert nginx.logged(r"a\.test could not be resolved \(110: ")
    dns.release()
    assert nginx.get(A).status == 200
    assert nginx.get(B).status == 200
    assert origin.connections == 1


@pytest.mark.parametrize("lines", [
    "", "myproxy_ignore_client_abort on;",
    "myproxy_store %{prefix}/stored$uri$args;"])
def test_a_client_that_does_not_wait(stage, dns, lines):
    origin = stage.origin()
    nginx = stage.nginx(location=NAMED + lines)
    with waiting(stage, dns, nginx, http1.request("GET", A)):
        pass
    if lines:
        dns.release()
        stage.wait_until(lambda: idle(nginx) == 1)
    else:
        nginx.wait_log("client prematurely closed connection")
        dns.release()
    assert nginx.get(A).status == 200
    assert nginx.get(B).status == 200
    assert sum(origin.carried) == (3 if lines else 2)
    assert origin.connections == 1


def test_a_client_that_has_its_response_already(stage, dns):
    """What is asked for after it waits for a name, and not for the client."""
    stage.origin()
    nginx = stage.nginx(location="""
        post_action /after;
        return 200 done;
    """, server="""
        location /after {
            resolver %{dns} ipv6=off;
            set $name a;
            myproxy_pass http://$name.test:%{origin.port};
        }
    """)
    with waiting(stage, dns, nginx, http1.request("GET", "/")) as client:
        assert client.read_response().body == b"done"
    dns.release()
    stage.wait_until(lambda: idle(nginx) == 1)
    assert stage.names["origin"].request.target == "/after"


def test_nginx_ends_while_it_waits(stage, dns):
    stage.origin()
    nginx = stage.nginx(location=NAMED)
    with waiting(stage, dns, nginx, http1.request("GET", A)) as client:
        nginx.reload()
        dns.release()
        assert client.read_response().status == 200
    dns.hold()
    with waiting(stage, dns, nginx, http1.request("GET", B)):
        nginx.stop()


def test_what_nobody_waits_for_any_more_keeps_no_worker(stage, dns):
    """With a cache the resolver goes on without the request."""
    stage.origin()
    nginx = stage.nginx(http=ZONE, location=CACHED)
    with waiting(stage, dns, nginx,
                 http1.request("GET", A + "&key=1")) as client:
        client.close()
        nginx.wait_log("client prematurely closed connection")
        begun = time.monotonic()
        nginx.stop()
    # and not the default resolver_timeout
    assert time.monotonic() - begun < settings.PATIENCE / 2


# the cache

def ask(nginx, target, key):
    response = nginx.get(f"{target}&key={key}")
    return response.header("X-Status"), response.status


def test_a_hit_does_not_wait_for_a_name(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(http=ZONE, location=CACHED)
    assert ask(nginx, A, 1) == ("MISS", 200)
    dns.hold()
    assert ask(nginx, B, 1) == ("HIT", 200)
    assert dns.questions == ["a.test"]
    assert len(origin.requests) == 1


def test_a_miss_waits_and_is_cached(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(http=ZONE, location=CACHED)
    with waiting(stage, dns, nginx,
                 http1.request("GET", A + "&key=1")) as client:
        dns.release()
        response = client.read_response()
        assert (response.status, response.body) == (200, b"hello\n")
        assert response.header("X-Status") == "MISS"
    assert ask(nginx, A, 1) == ("HIT", 200)
    assert ask(nginx, A, 2) == ("MISS", 200)
    assert ask(nginx, B, 3) == ("MISS", 200)
    assert ask(nginx, B, 3) == ("HIT", 200)
    # those that have waited for names were left to core
    assert origin.carried == [1, 1, 1]
    assert ask(nginx, A, 4) == ("MISS", 200)
    assert ask(nginx, B, 5) == ("MISS", 200)
    assert origin.carried == [1, 3, 1]


def test_a_request_waits_for_one_that_waits_for_a_name(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(http=ZONE, location=CACHED + "myproxy_cache_lock on;")
    with waiting(stage, dns, nginx,
                 http1.request("GET", A + "&key=1")) as client:
        other = nginx.connect()
        other.send(http1.request("GET", B + "&key=1"))
        assert nginx.get("/?name=127.0.0.1&key=2").status == 200
        dns.release()
        assert client.read_response().status == 200
        assert other.read_response().header("X-Status") == "HIT"
    assert dns.questions == ["a.test"]
    assert sum(origin.carried) == 2


STALE = http1.response(200, "X-Accel-Expires: @1")


@pytest.mark.parametrize("name", ["none.test", "none..test"])
def test_what_is_stale_does_not_stand_for_a_name(stage, dns, name):
    """As with the stock proxy: a name that is not found is no bad origin.

    Of the second one the resolver says so at once, and asks no server.
    """
    stage.origin(STALE)
    nginx = stage.nginx(http=ZONE, location=CACHED
                        + "myproxy_cache_use_stale error timeout;")
    assert ask(nginx, A, 1) == ("MISS", 200)
    assert ask(nginx, f"/?name={name}", 1)[1] == 502
    assert len(nginx.logged(
        rf"{name} could not be resolved \(3: Host not found\)")) == 1
    assert ask(nginx, B, 1) == ("EXPIRED", 200)


def test_who_updates_what_is_stale_does_not_wait_for_itself(stage, dns):
    """The cache is looked into once: it would say that someone updates."""
    origin = stage.origin(STALE)
    nginx = stage.nginx(http=ZONE, location=CACHED
                        + "myproxy_cache_use_stale updating;")
    assert ask(nginx, A, 1) == ("MISS", 200)
    assert ask(nginx, B, 1) == ("EXPIRED", 200)
    assert sum(origin.carried) == 2


def test_an_update_in_the_background_waits_alone(stage, dns):
    origin = stage.origin(STALE)
    nginx = stage.nginx(http=ZONE, location=CACHED + """
        myproxy_cache_use_stale updating;
        myproxy_cache_background_update on;
    """)
    assert ask(nginx, A, 1) == ("MISS", 200)
    dns.hold()
    assert ask(nginx, B, 1) == ("STALE", 200)
    stage.wait_until(lambda: dns.questions == ["a.test", "b.test"])
    dns.release()
    stage.wait_until(lambda: len(origin.requests) == 2)
    assert sum(origin.carried) == 2


def test_what_is_not_cached_waits_and_is_kept(stage, dns):
    """By its method, in a location that has a cache."""
    origin = stage.origin()
    nginx = stage.nginx(http=ZONE, location=CACHED)
    with waiting(stage, dns, nginx, http1.request(
            "POST", A + "&key=1", body=b"body")) as client:
        dns.release()
        assert client.read_response().status == 200
    assert nginx.post(B + "&key=1", b"body").status == 200
    assert nginx.post(NONE + "&key=1", b"body").status == 502
    assert nginx.logged(r"none\.test could not be resolved \(3: ")
    assert origin.carried == [2]


def test_a_hit_needs_no_name_server(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(http=ZONE, location=CACHED)
    assert ask(nginx, A, 1) == ("MISS", 200)
    assert ask(nginx, NONE, 1) == ("HIT", 200)
    assert not nginx.logged("could not be resolved")
    assert len(origin.requests) == 1


# the body

BODY = bytes(range(256)) * 400


def test_a_body_arrives_once_and_whole(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(location=NAMED + "client_body_buffer_size 8k;")
    for target in (A, B, B):
        assert nginx.post(target, BODY).status == 200
    assert [request.body for request in origin.requests] == [BODY] * 3
    assert origin.carried == [3]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_not_buffered(stage, dns, chunked):
    """Part of it comes with the header, part while the name is resolved."""
    origin = stage.origin()
    nginx = stage.nginx(location=NAMED + """
        myproxy_request_buffering off;
        client_body_buffer_size 8k;
    """)
    thirds = [BODY[:1000], BODY[1000:2000], BODY[2000:]]
    if chunked:
        parts = [http1.chunk(third) for third in thirds]
        parts[2] += b"0\r\n\r\n"
        length = "Transfer-Encoding: chunked"
    else:
        parts = thirds
        length = f"Content-Length: {len(BODY)}"
    head = f"POST {A} HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n".encode()
    with waiting(stage, dns, nginx, head + parts[0]) as client:
        client.send(parts[1])
        client.wait_until_delivered()
        dns.release()
        client.send(parts[2])
        assert client.read_response().status == 200
        assert origin.request.body == BODY
    assert nginx.get(A).status == 200
    assert origin.carried == [2]


def test_a_body_of_our_own(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(location=NAMED + "myproxy_set_body $arg_name;")
    for target in (A, B):
        assert nginx.post(target, b"body").status == 200
    assert [request.body for request in origin.requests] == [
        b"a.test", b"b.test"]


def test_a_client_that_speaks_http2(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(location=NAMED, listen="http2")
    client = nginx.connect_h2()
    for target in (A, B):
        response = client.request("POST", target, body=BODY)
        assert response.status == 200
    client.close()
    assert [request.body for request in origin.requests] == [BODY] * 2
    assert origin.carried == [2]


def test_a_stream_that_is_reset_while_it_waits(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(location=NAMED, listen="http2")
    client = nginx.connect_h2()
    dns.hold()
    stream = client.send_request("GET", A)
    stage.wait_until(lambda: dns.questions == ["a.test"])
    client.reset_stream(stream)
    assert client.get("/?name=127.0.0.1").status == 200
    dns.release()
    assert client.get(A).status == 200
    assert client.get(B).status == 200
    client.close()
    assert origin.carried == [3]


# a connection that the origin is closing

@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_was_not_delivered_is_sent_again(stage, method):
    scene = Scene(stage, lambda conn: conn.close(), location=TO_ORIGIN)
    scene.cross(method)
    scene.meet()
    assert scene.response().status == 200
    assert scene.received() == 1
    assert scene.origin.carried == [1, 1]


def test_a_connection_that_was_closed_is_not_used(stage, dns):
    origin = stage.origin([http1.response(), CLOSE])
    nginx = stage.nginx(location=NAMED)
    for count, target in enumerate((A, B, A, B), 1):
        assert nginx.post(target, b"body").status == 200
        stage.wait_until(lambda: idle(nginx) == 0)
        server, = pool(nginx).values()
        assert server["attempts"]["total"] == count
    assert origin.carried == [1] * 4


# TLS

TLS = "myproxy_ssl_verify off;"


def in_turn(nginx, *targets, count=3):
    for _ in range(count):
        for target in targets:
            assert nginx.get(target).status == 200


def test_two_tls_names_of_one_address(stage, dns):
    origin = stage.origin(tls="a.test")
    nginx = stage.nginx(location=NAMED.replace("http:", "https:") + TLS)
    in_turn(nginx, A, B)
    assert sorted(conn.sni for conn in origin.conns) == ["a.test", "b.test"]
    assert origin.carried == [3, 3]


def test_two_names_that_are_verified(stage, authority, dns):
    """What was verified for one name does not serve the other."""
    stage.origin(tls="a.test")
    nginx = stage.nginx(location=NAMED.replace("http:", "https:") + """
        myproxy_ssl_server_name off;
        myproxy_ssl_trusted_certificate %{authority.path};
    """)
    for _ in range(2):
        assert nginx.get(A).status == 200
        assert nginx.get(B).status == 502
    assert len(nginx.logged('does not match "b.test"')) == 2


@pytest.mark.parametrize("where", ["to %{origin}", "to name"])
def test_a_tls_name_in_a_variable(stage, where):
    origin = stage.origin(tls="a.test")
    stage.dns({"name": ["127.0.0.1"]}, ttl=600)
    where = where.replace("name", "name:%{origin.port}")
    nginx = stage.nginx(location="resolver %{dns} ipv6=off;" + f"""
        set ${where};
        myproxy_pass https://$to;
        myproxy_ssl_name $arg_name;
    """ + TLS)
    in_turn(nginx, A, B)
    assert [conn.sni for conn in origin.conns] == ["a.test", "b.test"]
    assert origin.carried == [3, 3]


def test_plain_and_tls_to_one_address(stage):
    def script(conn):
        if conn.number == 2:
            assert conn.recv()[:1] == b"\x16"
        else:
            conn.serve()

    origin = stage.origin(script)
    nginx = stage.nginx(location=TLS + """
        set $to %{origin};
        myproxy_pass $arg_scheme://$to;
    """)
    for scheme, status in (("http", 200), ("https", 502), ("http", 200)):
        assert nginx.get(f"/?scheme={scheme}").status == status
    assert len(origin.conns[0].requests) == 2


def test_an_authenticated_connection_is_not_kept(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=TO_ORIGIN)
    nginx.get("/", "Authorization: NTLM TlRMTVNTUA==")
    nginx.get()
    assert origin.carried == [1, 1]


# subrequests and internal redirects

def test_a_name_after_another_upstream(stage, dns):
    """What was tried before stands in the log before it."""
    stage.origin()
    stage.origin(http1.response(404), name="first")
    nginx = stage.nginx(location="""
        myproxy_pass http://%{first};
        myproxy_intercept_errors on;
        error_page 404 = @second;
    """, server="location @second {" + NAMED + """
        add_header X-Where "$upstream_addr|$upstream_status";
    }""")
    first, port = stage.names["first"], stage.names["origin"].port
    for target in (A, A, B):
        assert nginx.get(target).header("X-Where") == (
            f"{first} : 127.0.0.1:{port}|404 : 200")


@pytest.mark.skipif(not has("http_auth_request"), reason="no auth_request")
def test_subrequests_that_wait_for_names(stage, dns):
    origin = stage.origin()
    nginx = stage.nginx(server="""
        location = /auth {
            internal;
            resolver %{dns} ipv6=off;
            set $first a;
            myproxy_pass http://$first.test:%{origin.port};
            myproxy_pass_request_body off;
            myproxy_set_header Content-Length "";
        }
        location / {
            auth_request /auth;
            resolver %{dns} ipv6=off;
            set $other b;
            myproxy_pass http://$other.test:%{origin.port};
        }
    """)
    for _ in range(2):
        assert nginx.post("/", b"body").status == 200
    assert [request.body for request in origin.requests] == [
        b"", b"body"] * 2
    assert origin.carried == [4]


@pytest.mark.skipif(not has("http_addition"), reason="no addition")
def test_parts_of_a_page_that_wait_for_names(stage, dns):
    def answer(request):
        return http1.response(200, "Content-Type: text/html",
                              body=request.target.encode())

    stage.origin(lambda conn: conn.serve(answer))
    dns.records["c.test"] = ["127.0.0.1"]
    part = """
        resolver %{{dns}} ipv6=off;
        set ${0} {0}.test;
        myproxy_pass http://${0}:%{{origin.port}};
    """
    nginx = stage.nginx(
        location=part.format("a") + "add_before_body /b; add_after_body /c;",
        server="".join(f"location = /{name} {{ {part.format(name)} }}"
                       for name in "bc"))
    for _ in range(2):
        assert nginx.get().body == b"/b//c"
    assert sorted(dns.questions) == ["a.test", "b.test", "c.test"]


def test_a_copy_that_waits_for_a_name_leaves_the_original_alone(stage, dns):
    """The timeout of the client's body stays."""
    stage.origin()
    original = stage.origin(lambda conn: conn.wait_for_close(),
                            name="original")
    nginx = stage.nginx(location="""
        mirror /copy;
        mirror_request_body off;
        myproxy_request_buffering off;
        client_body_timeout 500ms;
        myproxy_pass http://%{original};
    """, server="""
        location /copy {
            resolver %{dns} ipv6=off;
            set $name a;
            myproxy_pass http://$name.test:%{origin.port};
        }
    """)
    copy = stage.names["origin"]
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
    with waiting(stage, dns, nginx, head + b"abc") as client:
        client.send(b"def")
        stage.wait_until(lambda: bytes(original.conns[0].received)
                         .endswith(b"abcdef"))
        dns.release()
        stage.wait_until(lambda: len(copy.requests) == 1)
        assert client.read_until_close() == b""


def test_a_copy_leaves_the_original_of_an_http2_client_alone(stage, dns):
    stage.origin()
    original = stage.origin(lambda conn: conn.wait_for_close(),
                            name="original")
    nginx = stage.nginx(listen="http2", location="""
        mirror /copy;
        mirror_request_body off;
        myproxy_request_buffering off;
        client_body_timeout 500ms;
        myproxy_pass http://%{original};
    """, server="""
        location /copy {
            resolver %{dns} ipv6=off;
            set $name a;
            myproxy_pass http://$name.test:%{origin.port};
        }
    """)
    copy = stage.names["origin"]
    dns.hold()
    client = nginx.connect_h2()
    stream = client.send_request("POST", "/", ("content-length", "9"),
                                 body=b"abc", end=False)
    stage.wait_until(lambda: dns.questions == ["a.test"])
    client.send_data(stream, b"def")
    stage.wait_until(lambda: original.conns and bytes(
        original.conns[0].received).endswith(b"abcdef"))
    dns.release()
    stage.wait_until(lambda: len(copy.requests) == 1)
    assert client.read_response(stream).reset is not None
    client.close()


# how many

def test_the_pool_is_bounded(stage):
    """One address more than it keeps connections of."""
    hosts = [f"127.0.0.{number}" for number in range(1, 34)]
    nginx = stage.nginx(http=back(*hosts), location="""
        myproxy_pass http://127.0.0.$arg_n:%{port.back};
    """)
    for number in range(1, 34):
        assert nginx.get(f"/?n={number}").status == 200
    assert idle(nginx) == 32
    servers = pool(nginx).values()
    assert sum(server["connections"]["closed_by_reason"]["full"]
               for server in servers) == 1


def test_what_is_known_of_addresses_is_bounded(stage):
    """All further ones are counted as one, by every worker."""
    hosts = [f"127.0.0.{number}" for number in range(1, 140)]
    nginx = stage.nginx(http=back(*hosts), workers=2, location="""
        myproxy_pass http://127.0.0.$arg_n:%{port.back};
    """)

    def ask_all():
        for number in range(1, 140):
            for _ in range(2):
                assert nginx.get(f"/?n={number}").status == 200

    ask_all()
    servers = pool(nginx)
    assert len(servers) == 129
    others = servers.pop("others")
    assert others["attempts"]["total"] == 2 * 11
    assert {server["attempts"]["total"] for server in servers.values()} == {2}
    nginx.reload()
    ask_all()
    servers = pool(nginx)
    # one that is not used for some seconds makes room for another
    assert len(servers.keys() - {"others", "removed"}) <= 128
    assert servers["others"]["attempts"]["total"] >= 2 * 11
    # nginx is its own origin, whose old workers may end as a request arrives
    again = sum(server["connections"]["closed_by_reason"]["error"]
                for server in servers.values())
    assert sum(server["attempts"]["total"]
               for server in servers.values()) == 4 * 139 + again
    assert not nginx.logged("is full")
    assert nginx.status()["zone"]["full"] is False
