"""An HTTP/3 client that says exactly what the test wants."""

import socket
import ssl
import time

import pytest

from . import http1, settings
from .nginx import has, version

try:
    from aioquic.h3.connection import H3Connection
    from aioquic.h3.events import DataReceived, HeadersReceived
    from aioquic.quic import events
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.connection import QuicConnection
except ImportError:
    QuicConnection = None


def missing():
    """Why HTTP/3 cannot be played here; None if it can."""
    if version() < (1, 25):
        return "nginx has no HTTP/3 before 1.25.0"
    if not has("http_v3"):
        return "nginx was built without HTTP/3"
    if QuicConnection is None:
        return "python3-aioquic is not installed"
    return None


def listen(authority, more=""):
    """What a server needs for HTTP/3 clients, on the port "h3"."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    certificate = authority.issue("localhost")
    return f"""
        listen 127.0.0.1:%{{udp.h3}} quic;
        ssl_certificate {certificate.cert_path};
        ssl_certificate_key {certificate.key_path};
        ssl_protocols TLSv1.3;
        {more}
    """


class H3Response:

    def __init__(self):
        self.headers = []
        self.body = b""
        self.interim = []
        self.trailers = []
        self.ended = False
        #: The error code if the stream was reset.
        self.reset = None

    @property
    def status(self):
        found = http1.values(self.headers, ":status")
        return int(found[0]) if found else None

    def values(self, name):
        return http1.values(self.headers, name)

    def header(self, name):
        found = self.values(name)
        assert len(found) <= 1, f"{name} stands {len(found)} times: {found}"
        return found[0] if found else None


class H3Client:
    """HTTP/3 on a QUIC connection of its own.

    With the `ticket` of an earlier client, in whose `tickets` it is, what is
    sent before `finish_handshake()` is early data.
    """

    def __init__(self, address, who, exchange, server_name="localhost",
                 ticket=None):
        self.who = who
        self.exchange = exchange
        self.streams = {}
        self.tickets = []
        #: Once the handshake has ended: whether nginx took early data.
        self.early = None
        self.closed = False
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect(address)
        self.address = address
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=["h3"], server_name=server_name,
            verify_mode=ssl.CERT_NONE, idle_timeout=3 * settings.PATIENCE,
            session_ticket=ticket)
        self.quic = QuicConnection(
            configuration=configuration,
            session_ticket_handler=self.tickets.append)
        self.quic.connect(address, now=time.monotonic())
        self.h3 = H3Connection(self.quic)
        if ticket is None:
            self.finish_handshake()

    # requests

    def request(self, method, path="/", *headers, **more):
        """Send a request and read the response."""
        return self.read_response(
            self.send_request(method, path, *headers, **more))

    def get(self, path="/", *headers, **more):
        return self.request("GET", path, *headers, **more)

    def send_request(self, method, path="/", *headers,
                     authority="localhost", body=None, end=True):
        """Send a request; headers are (name, value).  Returns the stream."""
        fields = [(":method", method), (":scheme", "https"), (":path", path)]
        if authority is not None:
            fields.append((":authority", authority))
        fields += headers
        stream = self.quic.get_next_available_stream_id()
        self.streams[stream] = H3Response()
        self.exchange.note(self.who, f"sends {method} {path} on {stream}",
                           repr(fields).encode())
        self.h3.send_headers(
            stream, [(name.encode(), value.encode())
                     for name, value in fields],
            end_stream=end and body is None)
        if body is not None:
            self.h3.send_data(stream, body, end)
        self._flush()
        return stream

    def send_data(self, stream, data, end=False):
        self.exchange.note(self.who, f"sends {len(data)} bytes on {stream}",
                           data)
        self.h3.send_data(stream, data, end)
        self._flush()

    def reset_stream(self, stream, code=0x10c):
        self.exchange.note(self.who, f"resets {stream}")
        self.quic.reset_stream(stream, code)
        self._flush()

    def read_response(self, stream):
        response = self.streams[stream]
        self._receive_until(lambda: response.ended)
        return response

    # the connection

    def finish_handshake(self):
        self._flush()
        self._receive_until(lambda: self.early is not None)

    def wait_for_ticket(self):
        self._receive_until(lambda: self.tickets)
        return self.tickets[0]

    def close(self):
        if not self.closed:
            self.closed = True
            self.exchange.note(self.who, "closes")
            self.quic.close()
            self._flush()
            self.sock.close()

    def _flush(self):
        for data, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            try:
                self.sock.send(data)
            except ConnectionRefusedError:
                # what an earlier datagram met: nginx is gone
                pass

    def _receive_until(self, condition):
        deadline = time.monotonic() + settings.PATIENCE
        while not condition():
            now = time.monotonic()
            assert now < deadline, f"{self.who}: nothing more came in time"
            timer = self.quic.get_timer()
            until = deadline if timer is None else min(deadline, timer)
            self.sock.settimeout(max(until - now, 0.001))
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                if timer is not None and time.monotonic() >= timer:
                    self.quic.handle_timer(now=time.monotonic())
            else:
                self.quic.receive_datagram(data, self.address,
                                           now=time.monotonic())
            event = self.quic.next_event()
            while event is not None:
                self._handle(event)
                event = self.quic.next_event()
            self._flush()

    def _handle(self, event):
        if isinstance(event, events.HandshakeCompleted):
            self.early = event.early_data_accepted
        elif isinstance(event, events.ConnectionTerminated):
            for response in self.streams.values():
                response.ended = True
            raise ConnectionError(
                f"the QUIC connection ended: {event.error_code:#x} "
                f"{event.reason_phrase}")
        elif isinstance(event, events.StreamReset):
            response = self.streams.get(event.stream_id)
            if response is not None:
                response.reset = event.error_code
                response.ended = True
        for part in self.h3.handle_event(event):
            self._take(part)

    def _take(self, part):
        response = self.streams.get(part.stream_id)
        if response is None:
            return
        if isinstance(part, HeadersReceived):
            fields = list(part.headers)
            self.exchange.note(self.who, f"receives on {part.stream_id}",
                               repr(fields).encode())
            if response.status is not None:
                response.trailers = fields
            elif http1.values(fields, ":status")[0].startswith("1"):
                response.interim.append(fields)
            else:
                response.headers = fields
        elif isinstance(part, DataReceived):
            response.body += part.data
        if part.stream_ended:
            self.exchange.note(self.who, f"sees the end of {part.stream_id}")
            response.ended = True
