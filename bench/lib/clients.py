"""A client's connection to the proxy, kept as long as the proxy keeps it."""

import socket

#: Seconds that a burst may take.
PATIENCE = 15


class Client:
    def __init__(self, address, source=None):
        self.address = address
        self.source = source
        self.sock = None
        self.received = b""

    def fileno(self):
        return self.sock.fileno()

    def open(self):
        """A connection, if the proxy did not keep the last one."""
        if self.sock is not None:
            try:
                if self.sock.recv(1, socket.MSG_PEEK):
                    raise AssertionError("more than the response came")
            except BlockingIOError:
                return
            except OSError:
                pass
            self.close()
        self.sock = socket.create_connection(self.address, PATIENCE,
                                             self.source)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)

    def close(self):
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def send(self, method, target, body=b""):
        self.received = b""
        head = f"{method} {target} HTTP/1.1\r\nHost: origin.test\r\n"
        if body:
            head += f"Content-Length: {len(body)}\r\n"
        self.sock.sendall(head.encode() + b"\r\n" + body)

    def read(self):
        """The outcome: a status, "closed", or None if more is to come."""
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b""
        self.received += data
        head, _, body = self.received.partition(b"\r\n\r\n")
        whole = is_whole(head.lower(), body, at_end=not data)
        if not data or whole and b"\r\nconnection: close" in head.lower():
            self.close()
        if whole:
            return head.split(b" ")[1].decode()
        return None if data else "closed"


def is_whole(head, body, at_end):
    """Is this all of the response that the connection brings?"""
    if b"\r\ncontent-length:" in head:
        length = head.partition(b"\r\ncontent-length:")[2]
        return len(body) >= int(length.partition(b"\r\n")[0])
    if b"\r\ntransfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    return at_end and head.startswith(b"http/")
