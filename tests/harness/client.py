"""Clients that say exactly what the test wants, over HTTP/1 and HTTP/2."""

import h2.config
import h2.connection
import h2.events
import h2.settings

from . import http1
from .wire import Wire


class Client(Wire):
    """A raw HTTP/1 client on one connection, kept until it is closed."""

    def request(self, method, target, *lines, **more):
        """Send a request (see http1.request) and read the response."""
        self.send(http1.request(method, target, *lines, **more))
        return self.read_response(method)

    def get(self, target="/", *lines, **more):
        return self.request("GET", target, *lines, **more)

    def post(self, target, body, *lines, **more):
        return self.request("POST", target, *lines, body=body, **more)

    def read_response(self, method="GET"):
        """The next final response; interim ones are in its `interim`."""
        interim = []
        while True:
            response = self.read_response_head()
            if response.status >= 200 or response.status == 101:
                break
            interim.append(response)
        response.interim = interim
        if (method == "HEAD" or response.status in (101, 204, 304)):
            return response
        if (response.is_chunked() or response.content_length() is not None):
            http1.read_body(self, response)
        else:
            response.kept = False
            response.body = self.read_until_close()
        return response

    def read_response_head(self):
        return http1.Response(self.read_until(b"\r\n\r\n"))

    def read_chunk(self):
        """The data of the next chunk; b"" is the last."""
        size = http1.read_chunk_size(self)
        if size == 0:
            http1.read_trailers(self)
            return b""
        return http1.read_chunk_data(self, size)


class H2Response:

    def __init__(self):
        self.headers = []
        self.body = b""
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


class H2Client(Wire):
    """HTTP/2 with prior knowledge, or behind TLS."""

    def __init__(self, *args, scheme="http", **more):
        super().__init__(*args, **more)
        self.scheme = scheme
        self.streams = {}
        config = h2.config.H2Configuration(
            header_encoding=None, validate_outbound_headers=False,
            normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self._flush()

    def request(self, method, path="/", *headers, **more):
        return self.read_response(
            self.send_request(method, path, *headers, **more))

    def get(self, path="/", *headers, **more):
        return self.request("GET", path, *headers, **more)

    def send_request(self, method, path="/", *headers,
                     authority="localhost", body=None, end=True):
        """Send a request; headers are (name, value).  Returns the stream."""
        pseudo = [(":method", method), (":scheme", self.scheme),
                  (":path", path)]
        if authority is not None:
            pseudo.append((":authority", authority))
        stream = self.h2.get_next_available_stream_id()
        self.streams[stream] = H2Response()
        self.h2.send_headers(stream, pseudo + list(headers),
                             end_stream=end and body is None)
        self._flush()
        if body is not None:
            self.send_data(stream, body, end)
        return stream

    def send_data(self, stream, data, end=False):
        while True:
            room = min(self.h2.local_flow_control_window(stream),
                       self.h2.max_outbound_frame_size)
            if room == 0 and data:
                self._receive()
                continue
            part, data = data[:room], data[room:]
            self.h2.send_data(stream, part, end_stream=end and not data)
            self._flush()
            if not data:
                return

    def reset_stream(self, stream, code=8):
        self.h2.reset_stream(stream, code)
        self._flush()

    def read_response(self, stream):
        response = self.streams[stream]
        while not response.ended:
            self._receive()
        return response

    def read_data(self, stream, size):
        """Wait until that much of the body has come."""
        response = self.streams[stream]
        while len(response.body) < size and not response.ended:
            self._receive()
        return response.body

    def _flush(self):
        data = self.h2.data_to_send()
        if data:
            self.send(data)

    def _receive(self):
        data = self.recv()
        if not data:
            for response in self.streams.values():
                response.ended = True
            raise ConnectionError("nginx closed the HTTP/2 connection")
        for event in self.h2.receive_data(data):
            self._handle(event)
        self._flush()

    def _handle(self, event):
        response = self.streams.get(getattr(event, "stream_id", None))
        if response is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            response.headers = list(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            response.body += event.data
            self.h2.acknowledge_received_data(
                event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            response.trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            response.ended = True
        elif isinstance(event, h2.events.StreamReset):
            response.reset = event.error_code
            response.ended = True
