"""Requests in TLS early data, which somebody else may have sent again.

The proxy treats them as nginx's own does: as all others.  Whoever wants them
marked or refused says so with $ssl_early_data (RFC 8470).
"""

import contextlib
import re
import socket
import subprocess
import threading

import pytest

from harness import h3, http1, settings

PASS = "myproxy_pass http://%{origin};"
MARK = PASS + "myproxy_set_header Early-Data $ssl_early_data;"


LOG = "access_log %{prefix}/access.log;"


def has_come(nginx):
    """Whether nginx has answered the early request."""
    return b"/early" in nginx.read("access.log")


def relay(stage, nginx):
    """A port whose clients get nothing until nginx has answered them early.

    Without an answer a client cannot end its handshake.
    """
    def serve():
        with listener, listener.accept()[0] as client, \
                socket.create_connection(("127.0.0.1", nginx.port())) as peer:
            there = threading.Thread(target=copy, args=(client, peer))
            there.start()
            stage.wait_until(lambda: has_come(nginx))
            copy(peer, client)
            there.join()

    def copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


class OverTcp:
    """Requests by `openssl s_client`; answers are statuses."""

    def __init__(self, stage, location):
        self.stage = stage
        certificate = stage.authority.issue("localhost")
        self.nginx = stage.nginx(listen="ssl", location=location, server=f"""
            {LOG}
            ssl_certificate {certificate.cert_path};
            ssl_certificate_key {certificate.key_path};
            ssl_protocols TLSv1.3;
            ssl_early_data on;
        """)
        self.run(self.nginx.port(), ["-sess_out", stage.path("session")],
                 http1.request("GET", "/first", "Connection: close"))

    def early_and_late(self):
        with open(self.stage.path("early"), "wb") as file:
            file.write(http1.request("GET", "/early"))
        said = self.run(
            relay(self.stage, self.nginx),
            ["-sess_in", self.stage.path("session"),
             "-early_data", self.stage.path("early")],
            http1.request("GET", "/late", "Connection: close"))
        if b"Early data was accepted" not in said:
            pytest.skip("nginx's TLS library takes no early data")
        return [int(status)
                for status in re.findall(rb"HTTP/1\.1 (\d+)", said)]

    def run(self, port, arguments, data):
        return subprocess.run(
            ["openssl", "s_client", "-tls1_3", "-ign_eof", "-connect",
             f"127.0.0.1:{port}", *arguments],
            input=data, check=False, timeout=3 * settings.PATIENCE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout


class OverQuic:
    """Requests over HTTP/3; answers are statuses."""

    def __init__(self, stage, location):
        self.stage = stage
        self.nginx = stage.nginx(
            server=h3.listen(stage.authority, "ssl_early_data on;" + LOG),
            location=location)
        client = self.nginx.connect_h3()
        client.get("/first")
        self.ticket = client.wait_for_ticket()
        client.close()

    def early_and_late(self):
        if self.ticket.max_early_data_size is None:
            pytest.skip("nginx's TLS library takes no early data over QUIC")
        client = self.nginx.connect_h3(ticket=self.ticket)
        early = client.send_request("GET", "/early")
        self.stage.wait_until(lambda: has_come(self.nginx))
        client.finish_handshake()
        assert client.early
        return [client.read_response(early).status,
                client.get("/late").status]


each_transport = pytest.mark.parametrize("play", [OverTcp, OverQuic])


@each_transport
def test_early_data_can_be_marked(stage, play):
    origin = stage.origin()
    assert play(stage, MARK).early_and_late() == [200, 200]
    assert [(request.target, request.header("Early-Data"))
            for request in origin.requests] \
        == [("/first", None), ("/early", "1"), ("/late", None)]


@each_transport
def test_what_the_origin_says_of_early_data_is_passed(stage, play):
    stage.origin(lambda conn: conn.serve(
        lambda request: http1.response(
            425 if request.header("Early-Data") else 200, body=b"")))
    assert play(stage, MARK).early_and_late() == [425, 200]


@each_transport
def test_early_data_can_be_refused(stage, play):
    origin = stage.origin()
    asked = play(stage, "if ($ssl_early_data) { return 425; }" + PASS)
    assert asked.early_and_late() == [425, 200]
    assert [request.target for request in origin.requests] \
        == ["/first", "/late"]
