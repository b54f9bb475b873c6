"""The harness itself: what the other scenarios rest on."""

import socket
import subprocess
import time

import pytest

from harness import http1, settings, tls
from harness.origin import CLOSE, RESET

SO_RCVBUFFORCE = 33     # which Python does not know


def test_a_request_passes_to_the_origin_and_back(stage):
    origin = stage.origin()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    response = nginx.get("/path?a=b")
    assert response.status == 200
    assert response.body == b"hello\n"
    assert origin.request.target == "/path?a=b"
    assert origin.connections == 1


def test_a_client_sends_several_requests_on_one_connection(stage):
    stage.origin()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    client = nginx.connect()
    for _ in range(3):
        response = client.get("/")
        assert response.status == 200
        assert response.kept


def test_an_origin_plays_its_steps_for_each_connection(stage):
    origin = stage.origin([http1.response(body=b"one"), CLOSE])
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    assert nginx.get().body == b"one"
    assert origin.carried == [1]


def test_an_origin_may_reset(stage):
    stage.origin([lambda conn: conn.read_request(), RESET])
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    assert nginx.get().status == 502
    assert nginx.logged("reset by peer")


def test_an_origin_that_does_not_listen_refuses(stage):
    origin = stage.origin(http1.response(200, "Connection: close"),
                          listening=False)
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    assert nginx.get().status == 502
    assert nginx.logged("Connection refused")
    origin.listen()
    assert nginx.get().status == 200
    origin.refuse()
    assert nginx.get().status == 502


def test_a_gate_holds_the_origin_back(stage):
    def script(conn):
        conn.read_request()
        gate.wait()
        conn.respond(body=b"late")

    origin = stage.origin(script)
    gate = origin.gate()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    client = nginx.connect()
    client.send(http1.request("GET", "/"))
    stage.wait_until(lambda: origin.requests)
    gate.open()
    assert client.read_response().body == b"late"


def test_a_chunked_response_is_decoded(stage):
    stage.origin(lambda conn: (
        conn.read_request(),
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                  + http1.chunked(b"one", b"two"))))
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    assert nginx.get().body == b"onetwo"


def test_http2(stage):
    stage.origin()
    nginx = stage.nginx(listen="http2",
                        location="myproxy_pass http://%{origin};")
    client = nginx.connect_h2()
    for _ in range(2):
        response = client.get("/")
        assert (response.status, response.body) == (200, b"hello\n")
    assert client.request("POST", "/", body=b"x" * 200000).status == 200


def test_tls_to_the_origin(stage):
    origin = stage.origin(tls="origin.test")
    nginx = stage.nginx(location="""
        myproxy_pass https://%{origin};
        myproxy_ssl_trusted_certificate %{authority.path};
        myproxy_ssl_verify on;
        myproxy_ssl_name origin.test;
        myproxy_ssl_server_name on;
    """)
    assert nginx.get().status == 200
    assert origin.conns[0].sni == "origin.test"


def test_tls_with_a_client_certificate(stage, authority):
    server = tls.Server(authority.issue("origin.test"),
                        client_ca=authority.path)
    origin = stage.origin(tls=server)
    certificate = authority.issue("client.test")
    nginx = stage.nginx(location=f"""
        myproxy_pass https://%{{origin}};
        myproxy_ssl_verify off;
        myproxy_ssl_certificate {certificate.cert_path};
        myproxy_ssl_certificate_key {certificate.key_path};
    """)
    assert nginx.get().status == 200
    subject = origin.conns[0].client_certificate["subject"]
    assert subject == ((("commonName", "client.test"),),)


def test_tls_from_the_client(stage, authority):
    stage.origin()
    certificate = authority.issue("localhost")
    nginx = stage.nginx(
        listen="ssl",
        server=f"""
            ssl_certificate {certificate.cert_path};
            ssl_certificate_key {certificate.key_path};
        """,
        location="myproxy_pass http://%{origin};")
    client = nginx.connect(tls=tls.client_context(authority.path))
    assert client.get().status == 200


def test_a_configuration_error_is_reported(stage):
    code, text = stage.config_test(location="myproxy_pass;")
    assert code == 1
    assert "invalid number of arguments" in text


def test_a_reload_starts_a_new_worker(stage):
    nginx = stage.nginx(location="return 200 one;")
    assert nginx.get().body == b"one"
    nginx.reload(location="return 200 two;")
    assert nginx.get().body == b"two"


def test_what_a_script_raises_is_found(stage):
    def script(conn):
        raise ValueError("wrong")

    origin = stage.origin(script)
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    nginx.get()
    stage.wait_until(lambda: origin.errors)
    with pytest.raises(ValueError, match="wrong"):
        stage.check()
    origin.errors.clear()


def test_an_alert_in_the_log_is_found(stage):
    nginx = stage.nginx(master=True, location="return 204;")
    worker, = nginx.workers()
    nginx.kill_worker(worker)
    nginx.wait_log("exited on signal 9")
    with pytest.raises(AssertionError, match="exited on signal"):
        stage.check()
    nginx.expect_log("exited on signal")


def test_a_link_has_a_round_trip(stage):
    link = stage.link(round_trip_ms=30)
    origin = stage.origin(link=link)
    started = time.monotonic()
    link.connect("a", (link.b_address, origin.port)).close()
    assert 0.03 <= time.monotonic() - started
    link.delay(0)
    took = []
    for _ in range(5):
        started = time.monotonic()
        link.connect("a", (link.b_address, origin.port)).close()
        took.append(time.monotonic() - started)
    # the machine may be busy with other things now and then
    assert min(took) < 0.03


def test_nginx_and_the_origin_are_at_the_ends_of_a_link(stage):
    link = stage.link(round_trip_ms=10)
    origin = stage.origin(link=link)
    nginx = stage.nginx(link=link, location="myproxy_pass http://%{origin};")
    before = link.count("a"), link.count("b")
    started = time.monotonic()
    assert nginx.get().body == b"hello\n"
    # one round trip to connect, one for request and response
    assert time.monotonic() - started >= 0.02
    assert link.count("a") >= before[0] + 3
    assert link.count("b") >= before[1] + 2


def test_a_link_holds_what_one_side_sends(stage):
    link = stage.link()
    listener = link.listen_socket()
    near = link.connect("a", listener.getsockname())
    far, _ = listener.accept()
    far.settimeout(settings.PATIENCE)
    stage.wait_until(lambda: link.queued("a") == 0)

    # the end of the far side's stream is held, but not what goes there
    link.hold("b")
    far.shutdown(socket.SHUT_WR)
    near.sendall(b"goes through")
    assert far.recv(100) == b"goes through"
    assert link.queued("b") >= 1
    near.setblocking(False)
    with pytest.raises(BlockingIOError):
        near.recv(100)

    link.release("b")
    near.settimeout(settings.PATIENCE)
    assert near.recv(100) == b""
    for sock in (near, far, listener):
        sock.close()


def test_a_link_loses_what_one_side_sends(stage):
    link = stage.link()
    listener = link.listen_socket()
    near = link.connect("a", listener.getsockname())
    far, _ = listener.accept()
    link.hold("a")
    near.sendall(b"one")
    stage.wait_until(lambda: link.queued("a") > 0)
    link.drop("a")
    assert link.queued("a") == 0
    link.release("a")
    far.settimeout(settings.PATIENCE)
    assert far.recv(100) == b"one"      # sent again by TCP
    for sock in (near, far, listener):
        sock.close()


def test_a_link_keeps_the_order_and_loses_nothing(stage):
    link = stage.link(round_trip_ms=2)
    near, far = (link.socket_in(side, kind=socket.SOCK_DGRAM)
                 for side in "ab")
    far.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
    far.bind((link.b_address, 0))
    far.settimeout(settings.PATIENCE)
    link.hold("a")
    for number in range(5000):
        near.sendto(b"%d" % number, far.getsockname())
    assert link.queued("a") == 5000
    link.release("a")
    assert [int(far.recv(100)) for _ in range(5000)] == list(range(5000))
    near.close()
    far.close()


def test_errors_that_scenarios_notice_still_apply():
    done = subprocess.run(
        [settings.ROOT / "tools/mutants", "--check"], text=True,
        capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
