"""HTTP/1.1 messages: composed freely, parsed strictly."""

import re

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([^\x00-\x20\x7f]+) "
                          rb"(HTTP/[0-9]\.[0-9])")
STATUS_LINE = re.compile(rb"(HTTP/[0-9]\.[0-9]) ([0-9]{3})(?: (.*))?")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([^\x00\r\n]*?)[ \t]*")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]+)(?:;.*)?")


class ProtocolError(Exception):
    """The peer sent what RFC 9112 does not allow."""


class Message:
    """Start line, fields in order as raw bytes, body."""

    def __init__(self, head):
        self.head = head
        first, *lines = head[:-4].split(b"\r\n")
        self.start_line = first
        self.headers = [parse_field(line) for line in lines]
        self.body = b""
        self.chunks = None
        self.trailers = []

    def values(self, name):
        """The values of all fields of that name, in order."""
        return values(self.headers, name)

    def header(self, name):
        """The value of a field that may stand once only, or None."""
        found = self.values(name)
        assert len(found) <= 1, f"{name} stands {len(found)} times: {found}"
        return found[0] if found else None

    @property
    def names(self):
        """Names of the fields in order, in lower case."""
        return [name.decode("latin-1").lower() for name, _ in self.headers]

    def tokens(self, name):
        """The members of a comma-separated list, in lower case."""
        return [token.strip().lower() for value in self.values(name)
                for token in value.split(",") if token.strip()]

    @property
    def chunked(self):
        return self.chunks is not None

    def content_length(self):
        found = self.values("Content-Length")
        if not found:
            return None
        if len(found) > 1 or not re.fullmatch("[0-9]+", found[0]):
            raise ProtocolError(f"Content-Length: {found}")
        return int(found[0])

    def is_chunked(self):
        found = self.values("Transfer-Encoding")
        if not found:
            return False
        if [value.lower() for value in found] != ["chunked"]:
            raise ProtocolError(f"Transfer-Encoding: {found}")
        if self.values("Content-Length"):
            raise ProtocolError("Transfer-Encoding with Content-Length")
        return True

    def __repr__(self):
        return f"<{self.start_line.decode('latin-1')!r}>"


class Request(Message):

    def __init__(self, head):
        super().__init__(head)
        match = REQUEST_LINE.fullmatch(self.start_line)
        if match is None:
            raise ProtocolError(f"request line {self.start_line!r}")
        method, target, version = match.groups()
        self.method = method.decode()
        self.target = target.decode("latin-1")
        self.version = version.decode()

    @property
    def wants_close(self):
        if "close" in self.tokens("Connection"):
            return True
        return (self.version == "HTTP/1.0"
                and "keep-alive" not in self.tokens("Connection"))


class Response(Message):

    def __init__(self, head):
        super().__init__(head)
        match = STATUS_LINE.fullmatch(self.start_line)
        if match is None:
            raise ProtocolError(f"status line {self.start_line!r}")
        version, status, reason = match.groups()
        self.version = version.decode()
        self.status = int(status)
        self.reason = (reason or b"").decode("latin-1")
        self.interim = []
        #: Whether the server keeps the connection, as far as it says.
        self.kept = ("close" not in self.tokens("Connection")
                     and (self.version != "HTTP/1.0"
                          or "keep-alive" in self.tokens("Connection")))


def values(fields, name):
    wanted = name.lower().encode("latin-1")
    return [value.decode("latin-1") for key, value in fields
            if key.lower() == wanted]


def parse_field(line):
    match = FIELD.fullmatch(line)
    if match is None:
        raise ProtocolError(f"header line {line!r}")
    return match.groups()


def read_chunks(wire):
    """The chunks of a body, and its trailers."""
    chunks = []
    while True:
        size = read_chunk_size(wire)
        if size == 0:
            return chunks, read_trailers(wire)
        chunks.append(read_chunk_data(wire, size))


def read_chunk_size(wire):
    line = wire.read_line()
    match = CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise ProtocolError(f"chunk size {line!r}")
    return int(match.group(1), 16)


def read_chunk_data(wire, size):
    data = wire.read(size)
    if wire.read(2) != b"\r\n":
        raise ProtocolError("no CRLF behind a chunk")
    return data


def read_trailers(wire):
    trailers = []
    while True:
        line = wire.read_line()
        if not line:
            return trailers
        trailers.append(parse_field(line))


def read_body(wire, message):
    """Read the body that Content-Length or chunked frames, if any."""
    if message.is_chunked():
        message.chunks, message.trailers = read_chunks(wire)
        message.body = b"".join(message.chunks)
        return
    length = message.content_length()
    if length:
        message.body = wire.read(length)


# composing

def to_bytes(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


def compose(start_line, lines, body=b""):
    head = [to_bytes(line) for line in (start_line, *lines)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunk(data, extension=b""):
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)


def chunked(*parts, trailers=()):
    """A whole chunked body, one chunk per part."""
    lines = b"".join(to_bytes(line) + b"\r\n" for line in trailers)
    return (b"".join(chunk(part) for part in parts)
            + b"0\r\n" + lines + b"\r\n")


def has_line(lines, *names):
    wanted = tuple(name.lower().encode() + b":" for name in names)
    return any(to_bytes(line).lower().startswith(wanted) for line in lines)


def response(status=200, *lines, body=b"hello\n", reason=None,
             version="HTTP/1.1"):
    """The bytes of a response; Content-Length is added if not framed."""
    if reason is None:
        reason = REASONS.get(status, "Whatever")
    lines = list(lines)
    if (status >= 200 and status not in (204, 304)
            and not has_line(lines, "Content-Length", "Transfer-Encoding")):
        lines.append(f"Content-Length: {len(body)}")
    if status < 200 or status in (204, 304):
        body = b""
    return compose(f"{version} {status} {reason}", lines, to_bytes(body))


def request(method, target, *lines, body=None, host="localhost",
            version="HTTP/1.1"):
    """The bytes of a request.

    A Host line is put first unless `lines` has one or host is None.  A body
    of bytes is framed by Content-Length, a list of bytes is sent in chunks.
    """
    lines = list(lines)
    if host is not None and not has_line(lines, "Host"):
        lines.insert(0, f"Host: {host}")
    framed = has_line(lines, "Content-Length", "Transfer-Encoding")
    if isinstance(body, (list, tuple)):
        if not framed:
            lines.append("Transfer-Encoding: chunked")
        body = chunked(*body)
    elif body is not None and not framed:
        lines.append(f"Content-Length: {len(body)}")
    return compose(to_bytes(method) + b" " + to_bytes(target) + b" "
                   + to_bytes(version), lines, to_bytes(body or b""))


REASONS = {
    100: "Continue", 101: "Switching Protocols", 103: "Early Hints",
    200: "OK", 204: "No Content", 206: "Partial Content",
    301: "Moved Permanently", 302: "Found", 304: "Not Modified",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout",
}
