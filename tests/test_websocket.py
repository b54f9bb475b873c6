"""Upgrades: WebSocket by default, others when they are configured."""

import pytest

from harness import http1

PASS = "myproxy_pass http://%{origin};"
HANDSHAKE = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
]
SWITCHED = http1.response(
    101, "Upgrade: websocket", "Connection: Upgrade",
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")


def upgrade_to(protocol):
    return [f"Upgrade: {protocol}", "Connection: Upgrade"]


def accept(conn):
    """An origin that accepts any upgrade and then echoes."""
    conn.read_request()
    conn.send(SWITCHED)
    while True:
        data = conn.recv()
        if not data:
            return
        conn.send(data)


def test_a_websocket_handshake_passes_unconfigured(stage):
    origin = stage.origin(accept)
    client = stage.nginx(location=PASS).connect()
    response = client.get("/chat", *HANDSHAKE)
    assert response.status == 101
    assert response.header("Upgrade") == "websocket"
    assert response.tokens("Connection") == ["upgrade"]
    assert (response.header("Sec-WebSocket-Accept")
            == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    request = origin.request
    assert request.target == "/chat"
    assert request.values("Upgrade") == ["websocket"]
    assert request.tokens("Connection") == ["upgrade"]
    assert (request.header("Sec-WebSocket-Key")
            == "dGhlIHNhbXBsZSBub25jZQ==")


@pytest.mark.parametrize("lines", [
    ["Upgrade: WebSocket", "Connection: upgrade"],
    ["Upgrade: WEBSOCKET", "Connection: UPGRADE"],
    ["Upgrade: websocket", "Connection: keep-alive, Upgrade"],
    ["Upgrade: websocket", "Connection: keep-alive",
     "Connection: Upgrade"],
], ids=repr)
def test_spellings_of_the_handshake(stage, lines):
    origin = stage.origin(accept)
    client = stage.nginx(location=PASS).connect()
    assert client.get("/", *lines).status == 101
    assert origin.request.tokens("Upgrade") == ["websocket"]
    assert origin.request.tokens("Connection") == ["upgrade"]


def test_bytes_go_both_ways_after_the_handshake(stage):
    stage.origin(accept)
    client = stage.nginx(location=PASS).connect()
    client.get("/", *HANDSHAKE)
    for data in (b"\x81\x05hello", b"\0\xff", b"GET / HTTP/1.1\r\n\r\n"):
        client.send(data)
        assert client.read(len(data)) == data


def test_many_bytes_go_both_ways_after_the_handshake(stage):
    def script(conn):
        conn.read_request()
        conn.send(SWITCHED)
        conn.send(b"o" * 500000)
        assert conn.read(300000) == b"c" * 300000
        conn.send(b"done")
        conn.wait_for_close()

    stage.origin(script)
    client = stage.nginx(location=PASS).connect()
    client.get("/", *HANDSHAKE)
    client.send(b"c" * 300000)
    assert client.read(500004) == b"o" * 500000 + b"done"


def test_the_origin_may_speak_right_behind_its_101(stage):
    def script(conn):
        conn.read_request()
        conn.send(SWITCHED + b"at once")
        conn.send(conn.read(3))

    stage.origin(script)
    client = stage.nginx(location=PASS).connect()
    assert client.get("/", *HANDSHAKE).status == 101
    assert client.read(7) == b"at once"
    client.send(b"yes")
    assert client.read(3) == b"yes"


def test_the_client_may_speak_right_behind_its_handshake(stage):
    stage.origin(accept)
    client = stage.nginx(location=PASS).connect()
    client.send(http1.request("GET", "/", *HANDSHAKE), b"early")
    assert client.read_response().status == 101
    assert client.read(5) == b"early"


def test_interim_responses_before_the_101_are_skipped(stage):
    def script(conn):
        conn.read_request()
        conn.send(http1.response(103, "Link: </a>"), SWITCHED)
        conn.wait_for_close()

    stage.origin(script)
    client = stage.nginx(location=PASS).connect()
    assert client.get("/", *HANDSHAKE).status == 101


def test_the_client_closes_the_tunnel(stage):
    def script(conn):
        conn.read_request()
        conn.send(SWITCHED)
        ends.append(conn.wait_for_close())

    ends = []
    stage.origin(script)
    client = stage.nginx(location=PASS).connect()
    client.get("/", *HANDSHAKE)
    client.send(b"bye")
    client.close()
    stage.wait_until(lambda: ends == [b"bye"])


def test_the_origin_closes_the_tunnel(stage):
    def script(conn):
        conn.read_request()
        conn.send(SWITCHED + b"bye")

    stage.origin(script)
    client = stage.nginx(location=PASS).connect()
    client.get("/", *HANDSHAKE)
    assert client.read_until_close() == b"bye"


def test_a_silent_tunnel_ends_with_the_read_timeout(stage):
    stage.origin(accept)
    client = stage.nginx(location=PASS + "myproxy_read_timeout 200ms;"
                         ).connect()
    client.get("/", *HANDSHAKE)
    assert client.read_until_close() == b""


def test_a_tunnels_connection_is_not_used_again(stage):
    def script(conn):
        if conn.number == 1:
            conn.read_request()
            conn.send(SWITCHED)
            conn.wait_for_close()
        else:
            conn.serve()

    origin = stage.origin(script)
    nginx = stage.nginx(location=PASS)
    client = nginx.connect()
    client.get("/", *HANDSHAKE)
    client.close()
    stage.wait_until(lambda: origin.conns[0].closed)
    assert nginx.get("/").status == 200
    assert origin.carried == [1, 1]


def test_a_tunnel_may_start_on_a_reused_connection(stage):
    def script(conn):
        conn.read_request()
        conn.respond()
        accept(conn)

    origin = stage.origin(script)
    nginx = stage.nginx(location=PASS)
    assert nginx.get("/").status == 200
    client = nginx.connect()
    assert client.get("/", *HANDSHAKE).status == 101
    client.send(b"hello")
    assert client.read(5) == b"hello"
    assert origin.carried == [2]


@pytest.mark.parametrize("status", [200, 400, 404, 426])
def test_an_origin_that_does_not_upgrade_answers_as_usual(stage, status):
    origin = stage.origin(http1.response(status, body=b"no"))
    client = stage.nginx(location=PASS).connect()
    for _ in range(2):
        response = client.get("/", *HANDSHAKE)
        assert (response.status, response.body) == (status, b"no")
    assert origin.carried == [2]


def test_a_websocket_over_tls_to_the_origin(stage):
    stage.origin(accept, tls="origin.test")
    client = stage.nginx(location="""
        myproxy_pass https://%{origin};
        myproxy_ssl_verify off;
    """).connect()
    assert client.get("/", *HANDSHAKE).status == 101
    client.send(b"hello")
    assert client.read(5) == b"hello"


# what does not pass

@pytest.mark.parametrize("lines", [
    upgrade_to("h2c") + ["HTTP2-Settings: AAMAAABkAAQAAP__"],
    upgrade_to("TLS/1.0"),
    upgrade_to("foo"),
    upgrade_to("websockets"),
    ["Upgrade: websocket"],
    ["Upgrade: websocket", "Connection: keep-alive"],
    ["Connection: Upgrade"],
], ids=repr)
def test_no_upgrade_is_asked_for(stage, lines):
    origin = stage.origin()
    client = stage.nginx(location=PASS).connect()
    assert client.get("/", *lines).status == 200
    assert "upgrade" not in origin.request.names
    assert "connection" not in origin.request.names


def test_http10_cannot_upgrade(stage):
    origin = stage.origin()
    client = stage.nginx(location=PASS).connect()
    assert client.get("/", *HANDSHAKE, version="HTTP/1.0").status == 200
    assert "upgrade" not in origin.request.names


@pytest.mark.parametrize("lines", [[], upgrade_to("h2c")],
                         ids=["no upgrade", "h2c"])
def test_a_101_that_was_not_asked_for_opens_no_tunnel(stage, lines):
    stage.origin(accept)
    client = stage.nginx(location=PASS).connect()
    assert client.get("/", *lines).status == 502


def test_fields_named_beside_upgrade_stay_behind(stage):
    origin = stage.origin(accept)
    client = stage.nginx(location=PASS).connect()
    client.get("/", "Upgrade: websocket", "X-Foo: 1", "Keep-Alive: 5",
               "Connection: keep-alive, X-Foo, Upgrade")
    assert "x-foo" not in origin.request.names
    assert "keep-alive" not in origin.request.names
    assert origin.request.tokens("Connection") == ["upgrade"]


# configured

@pytest.mark.parametrize("listed", ["foo", "websocket foo", "bar foo"])
def test_a_listed_protocol_passes(stage, listed):
    origin = stage.origin(accept)
    client = stage.nginx(location=PASS + f"myproxy_upgrade {listed};"
                         ).connect()
    assert client.get("/", *upgrade_to("foo")).status == 101
    assert origin.request.values("Upgrade") == ["foo"]
    assert origin.request.tokens("Connection") == ["upgrade"]


def test_all_listed_protocols_pass(stage):
    origin = stage.origin(accept)
    client = stage.nginx(location=PASS + "myproxy_upgrade foo bar websocket;"
                         ).connect()
    assert client.get("/", *upgrade_to("Bar, other/1.0 ,foo, foo/2, foobar")
                      ).status == 101
    assert origin.request.values("Upgrade") == ["Bar, foo"]
    assert origin.request.tokens("Connection") == ["upgrade"]


@pytest.mark.parametrize("listed", ["foo", "off"])
def test_websocket_does_not_pass_unless_it_is_listed(stage, listed):
    origin = stage.origin()
    client = stage.nginx(location=PASS + f"myproxy_upgrade {listed};"
                         ).connect()
    assert client.get("/", *HANDSHAKE).status == 200
    assert "upgrade" not in origin.request.names
    assert "connection" not in origin.request.names


def test_the_list_is_inherited_and_replaced(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http="myproxy_upgrade foo;",
        server="""
            location /inherits { myproxy_pass http://%{origin}; }
            location /replaces {
                myproxy_pass http://%{origin};
                myproxy_upgrade bar;
            }
        """)
    asked = []
    for path in ("/inherits", "/replaces"):
        for protocol in ("foo", "bar"):
            nginx.get(path, *upgrade_to(protocol))
            asked.append(origin.requests[-1].header("Upgrade"))
    assert asked == ["foo", None, None, "bar"]


def test_the_customary_configuration_does_no_harm(stage):
    origin = stage.origin(accept)
    client = stage.nginx(location=PASS + """
        myproxy_set_header Upgrade $http_upgrade;
        myproxy_set_header Connection upgrade;
    """).connect()
    assert client.get("/", *HANDSHAKE).status == 101
    assert origin.request.values("Upgrade") == ["websocket"]
    assert origin.request.values("Connection") == ["upgrade"]
    client.send(b"hello")
    assert client.read(5) == b"hello"


def test_no_upgrade_passes_where_no_field_does(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + "myproxy_pass_request_headers off;")
    assert nginx.get("/", *HANDSHAKE).status == 200
    assert not {"connection", "upgrade"} & set(origin.request.names)
