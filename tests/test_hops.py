"""Connection and Upgrade in myproxy_set_header: what of them is sent.

A constant value is the operator's word and is sent; "close" among it is
obeyed.  A value with variables, as nginx's page on WebSocket has it, adds
nothing: what these fields are for is done without it.
"""

import http.server
import re
import threading

import pytest

from harness import http1

PASS = "myproxy_pass http://%{origin};"
HANDSHAKE = ["Upgrade: websocket", "Connection: Upgrade"]
SWITCHED = http1.response(101, *HANDSHAKE, reason="Switching Protocols")
MAP = "map $http_upgrade $connection_upgrade { default upgrade; '' close; }"
CUSTOMARY = """
    myproxy_set_header Upgrade $http_upgrade;
    myproxy_set_header Connection $connection_upgrade;
"""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what it was sent; ends the connection if told to."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Python's own HTTP server, which counts its connections."""

    connections = 0

    def process_request(self, request, client_address):
        self.connections += 1
        super().process_request(request, client_address)


@pytest.fixture
def python(stage):
    with Server(("127.0.0.1", 0), Handler) as server:
        stage.names["python"] = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def post(nginx, count):
    """The statuses of so many requests, one after another."""
    statuses = []
    client = nginx.connect()
    for number in range(count):
        body = b"%d" % number
        response = client.post("/", body=body)
        statuses.append(response.status)
        assert response.body == body or response.status != 200
    return statuses


def accept(conn):
    """Switches when it is asked to, and otherwise answers."""
    while conn.read_request().header("Upgrade") is None:
        conn.respond()
    conn.send(SWITCHED)
    while data := conn.recv():
        conn.send(data)


def switches(client):
    """Does the client get a tunnel?"""
    if client.get("/", *HANDSHAKE).status != 101:
        return False
    client.send(b"hello")
    return client.read(5) == b"hello"


def ends(nginx):
    """Reasons for which connections were closed."""
    counts = nginx.status()["total"]["connections"]["closed_by_reason"]
    return {reason: count for reason, count in counts.items() if count}


# values that have variables

def test_posts_behind_the_map_reuse_one_connection(stage, python):
    nginx = stage.nginx(
        http=MAP, location="myproxy_pass http://%{python};" + CUSTOMARY)
    assert post(nginx, 100) == 100 * [200]
    assert python.connections == 1
    assert ends(nginx) == {}


VARIABLE = [
    "Connection $connection_upgrade", "connection $connection_upgrade",
    "Connection ${connection_upgrade}", "Connection $http_connection",
    "Connection 'close, $connection_upgrade'", "Connection $arg_x",
    "Connection keep-alive$arg_none", "Upgrade $http_upgrade",
    "upgrade websocket$arg_none"]


@pytest.mark.parametrize("field", VARIABLE)
def test_a_value_with_variables_adds_nothing(stage, field):
    origin = stage.origin(accept)
    client = stage.nginx(
        http=MAP, location=PASS + f"myproxy_set_header {field};").connect()
    for _ in range(2):
        assert client.get("/?x=close", "Connection: keep-alive").status == 200
    assert switches(client)
    assert origin.carried == [3]
    for request in origin.requests[:2]:
        assert not {"connection", "upgrade"} & set(request.names)
    assert origin.requests[-1].values("Connection") == ["upgrade"]
    assert origin.requests[-1].values("Upgrade") == ["websocket"]


def test_an_upgrade_passes_as_without_variable_values(stage):
    origin = stage.origin()
    nginx = stage.nginx(http=MAP, server=f"""
        location /off {{ {PASS} {CUSTOMARY} myproxy_upgrade off; }}
        location /foo {{ {PASS} {CUSTOMARY} myproxy_upgrade foo; }}
    """)
    for path, asked, passed in (
            ("/off", "websocket", []), ("/foo", "websocket", []),
            ("/foo", "foo, h2c", ["foo"])):
        nginx.get(path, f"Upgrade: {asked}", "Connection: upgrade")
        assert origin.requests[-1].values("Upgrade") == passed
        assert len(origin.requests[-1].values("Connection")) == len(passed)


def test_variable_values_are_noted_once(stage):
    lines = "myproxy_set_header Connection $connection_upgrade; # here\n"
    customary = "myproxy_pass http://127.0.0.1:1;" + CUSTOMARY
    code, text = stage.config_test(
        http=MAP + lines, server="location /a {" + customary + "}"
        "location /b {" + customary + "}")
    assert code == 0
    note, = re.findall(r"\[notice\].* adds nothing to requests.*\n", text)
    assert '"myproxy_set_header Connection $connection_upgrade"' in note
    assert "such lines can be removed" in note
    conf = stage.nginxes[-1].text.splitlines()
    where = [number for number, line in enumerate(conf, 1) if "# here" in line]
    assert note.endswith(f"nginx.conf:{where[0]}\n")
    assert "[warn]" not in text


@pytest.mark.parametrize("field", [
    "Connection close", "Connection ''", "Upgrade websocket", "X $host"])
def test_nothing_is_noted_of_other_values(stage, field):
    code, text = stage.config_test(
        location="myproxy_pass http://127.0.0.1:1;"
        f"myproxy_set_header {field};")
    assert code == 0
    assert "adds nothing" not in text


# "close"

@pytest.mark.parametrize("buffering", ["on", "off"])
def test_posts_with_close_each_have_a_connection(stage, python, buffering):
    nginx = stage.nginx(
        location="myproxy_pass http://%{python};"
        f"myproxy_buffering {buffering};"
        "myproxy_set_header Connection close;")
    assert post(nginx, 50) == 50 * [200]
    assert python.connections == 50
    assert ends(nginx) == {"configured": 50}


CLOSE = ["close", "Close", "'close , X-Foo'", "'X-Foo , CLOSE'",
         "'keep-alive,close'"]


@pytest.mark.parametrize("value", CLOSE)
@pytest.mark.parametrize("answer", [
    http1.response(200), http1.response(204),
    http1.response(200, "Connection: close"),
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"],
    ids=["200", "204", "close", "http10"])
def test_close_is_sent_and_obeyed(stage, value, answer):
    """Whatever the origin says: it was our wish."""
    origin = stage.origin(answer)
    nginx = stage.nginx(
        location=PASS + f"myproxy_set_header Connection {value};")
    for number in (1, 2):
        assert nginx.get("/").status in (200, 204)
        stage.wait_until(lambda: origin.conns[-1].closed)
        assert origin.requests[-1].values("Connection") == [value.strip("'")]
        assert origin.connections == number
    assert ends(nginx) == {"configured": 2}


def test_close_is_inherited_and_replaced(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http="myproxy_set_header Connection close;", server=f"""
        location /inherits {{ {PASS} }}
        location /empties {{ {PASS} myproxy_set_header Connection ""; }}
        location /replaces {{ {PASS} myproxy_set_header X-Own yes; }}
    """)
    for path, ended in (("/inherits", 1), ("/empties", 1), ("/replaces", 1),
                        ("/inherits", 2)):
        nginx.get(path)
        assert ends(nginx) == {"configured": ended}
        assert origin.requests[-1].tokens("Connection") == (
            ["close"] if path == "/inherits" else [])
    assert origin.carried == [1, 3]


@pytest.mark.parametrize("more", ["", "myproxy_set_header Upgrade websocket;",
                                  CUSTOMARY])
def test_nothing_is_switched_where_the_connection_closes(stage, more):
    origin = stage.origin()
    client = stage.nginx(
        http=MAP, location=PASS + "myproxy_set_header Connection close;"
        + more).connect()
    assert client.get("/", *HANDSHAKE).status == 200
    assert origin.requests[-1].values("Connection") == ["close"]
    assert "upgrade" not in origin.requests[-1].names


@pytest.mark.parametrize("field, sent", [
    ("Connection close", ["close"]), ("Connection $connection_upgrade", []),
    ("Connection keep-alive", ["keep-alive"])])
def test_http10_closes_with_any_connection_field(stage, field, sent):
    origin = stage.origin()
    nginx = stage.nginx(http=MAP, location=PASS + f"""
        myproxy_http_version 1.0;
        myproxy_set_header {field};
    """)
    for _ in range(2):
        assert nginx.get("/", *HANDSHAKE).status == 200
        assert origin.requests[-1].values("Connection") == sent
        assert "upgrade" not in origin.requests[-1].names
    assert ends(nginx) == {"configured": 2}


def test_close_is_obeyed_when_the_cache_is_filled_and_revalidated(stage):
    origin = stage.origin(
        lambda conn: [
            conn.respond(304 if request.header("If-None-Match") else 200,
                         'ETag: "v1"', "X-Accel-Expires: @1")
            for request in conn.each_request()])
    nginx = stage.nginx(
        http="myproxy_cache_path %{prefix}/cache keys_zone=one:1m;",
        location=PASS + """
        myproxy_cache one;
        myproxy_cache_revalidate on;
        myproxy_set_header Connection close;
        add_header X-Cache $upstream_cache_status;
    """)
    seen = [nginx.get("/").header("X-Cache") for _ in range(2)]
    assert seen == ["MISS", "REVALIDATED"]
    assert ends(nginx) == {"configured": 2}
    assert [request.values("Connection") for request in origin.requests] == [
        ["close"], ["close"]]


def test_the_status_page_calls_it_our_own_wish(stage):
    stage.origin()
    nginx = stage.nginx(
        location=PASS + "myproxy_set_header Connection close;")
    client = nginx.connect()
    for _ in range(120):
        assert client.get("/").status == 200
    text, page = [
        nginx.get(f"/reuse-status?format={form}", port="probe").body.decode()
        for form in ("prometheus", "html")]
    assert [line.split()[-1] for line in text.splitlines()
            if line.startswith("nginx_reuse_connections_closed_total")
            and 'reason="configured"' in line] == ["120"]
    assert ("connections ended in the last 15 to 30 minutes, each for this "
            "reason: the location closes each") in page
    assert 'constant "Connection close" in "myproxy_set_header", or' in page


# other constant values

@pytest.mark.parametrize("lines, plain, switching", [
    (["Connection upgrade", "Upgrade $http_upgrade"], ["upgrade"],
     ["upgrade"]),
    (["Connection upgrade"], ["upgrade"], ["upgrade"]),
    (["Connection 'Upgrade, te'"], ["Upgrade, te"], ["Upgrade, te"]),
    (["Connection keep-alive", "Upgrade $http_upgrade"], ["keep-alive"],
     ["keep-alive, upgrade"]),
    (["Connection te", "TE trailers"], ["te"], ["te, upgrade"]),
    (["Connection te", "Connection x-foo"], ["te, x-foo"],
     ["te, x-foo, upgrade"]),
    (["Connection x-close"], ["x-close"], ["x-close, upgrade"]),
    (["Connection ''"], [], ["upgrade"]),
    (["Connection ' , '"], [], ["upgrade"]),
    (["Upgrade websocket", "Connection upgrade"], ["upgrade"], ["upgrade"]),
    (["Upgrade websocket", "Connection $connection_upgrade"], [],
     ["upgrade"]),
    (["Upgrade websocket"], [], ["upgrade"]),
], ids=repr)
def test_constant_values_are_sent_beside_an_upgrade(
        stage, lines, plain, switching):
    origin = stage.origin(accept)
    client = stage.nginx(http=MAP, location=PASS + "".join(
        f"myproxy_set_header {line};" for line in lines)).connect()
    for _ in range(2):
        assert client.get("/").status == 200
        assert origin.requests[-1].values("Connection") == plain
        assert "upgrade" not in origin.requests[-1].names
    assert switches(client)
    assert origin.requests[-1].values("Connection") == switching
    assert origin.requests[-1].values("Upgrade") == ["websocket"]
    assert origin.carried == [3]


def test_an_empty_upgrade_keeps_clients_from_switching(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + 'myproxy_set_header Upgrade "";')
    assert nginx.get("/", *HANDSHAKE).status == 200
    assert not {"connection", "upgrade"} & set(origin.requests[-1].names)


@pytest.mark.parametrize("field", [
    "Keep-Alive 'timeout=0'", "Proxy-Connection close", "TE close",
    "Transfer-Encoding close", "X-Connection close"])
def test_close_in_another_field_closes_nothing(stage, field):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + f"myproxy_set_header {field};")
    for _ in range(2):
        assert nginx.get("/").status == 200
    assert origin.carried == [2]
    assert "connection" not in origin.requests[-1].names


# configurations as they are deployed

MASTODON = MAP + """
    upstream backend { server %{python} fail_timeout=0; }
    upstream streaming { least_conn; server %{origin} fail_timeout=0; }
    myproxy_cache_path %{prefix}/cache levels=1:2 keys_zone=CACHE:10m
                       inactive=7d max_size=1g;
"""

MASTODON_SERVER = """
    root %{prefix};
    location / { try_files $uri @proxy; }
    location ^~ /api/v1/streaming {
        myproxy_set_header Host $host;
        myproxy_set_header X-Real-IP $remote_addr;
        myproxy_set_header X-Forwarded-For $myproxy_add_x_forwarded_for;
        myproxy_set_header Proxy "";
        myproxy_pass http://streaming;
        myproxy_buffering off;
        myproxy_redirect off;
        myproxy_http_version 1.1;
        myproxy_set_header Upgrade $http_upgrade;
        myproxy_set_header Connection $connection_upgrade;
        tcp_nodelay on;
    }
    location @proxy {
        myproxy_set_header Host $host;
        myproxy_set_header X-Forwarded-Proto $scheme;
        myproxy_set_header Proxy "";
        myproxy_pass_header Server;
        myproxy_pass http://backend;
        myproxy_buffering on;
        myproxy_redirect off;
        myproxy_http_version 1.1;
        myproxy_set_header Upgrade $http_upgrade;
        myproxy_set_header Connection $connection_upgrade;
        myproxy_cache CACHE;
        myproxy_cache_valid 200 7d;
        myproxy_cache_use_stale error timeout updating http_500 http_502;
        tcp_nodelay on;
    }
"""


def test_a_server_like_mastodons_reuses_and_switches(stage, python):
    origin = stage.origin(accept)
    nginx = stage.nginx(http=MASTODON, server=MASTODON_SERVER)
    assert post(nginx, 50) == 50 * [200]
    assert python.connections == 1
    client = nginx.connect()
    for _ in range(3):
        assert client.get("/api/v1/streaming/health").status == 200
    assert client.get("/api/v1/streaming", *HANDSHAKE).status == 101
    client.send(b"event")
    assert client.read(5) == b"event"
    assert origin.carried == [4]


def test_a_server_like_synapses_reuses(stage, python):
    """Of a home server with workers: a shared map, and lines for all."""
    nginx = stage.nginx(http=MAP + "upstream generic { server %{python}; }",
                        server="""
        myproxy_set_header X-Forwarded-For $remote_addr;
        myproxy_set_header X-Forwarded-Proto $scheme;
        myproxy_set_header Host $host:$server_port;
        myproxy_set_header Upgrade $http_upgrade;
        myproxy_set_header Connection $connection_upgrade;
        location ~ ^/(_matrix|_synapse/client) {
            myproxy_pass http://generic$request_uri;
            client_max_body_size 50M;
            myproxy_http_version 1.1;
        }
        location / { myproxy_pass http://generic; }
    """)
    assert post(nginx, 50) == 50 * [200]
    client = nginx.connect()
    for _ in range(5):
        assert client.post("/_matrix/client/r0/sync", body=b"{}").body == b"{}"
    assert python.connections == 1
