"""An origin and a client in this process, for requests one after another.

They do the same each time, so that what the proxy does for a request can be
counted.  The origin can hold requests until so many are there.
"""

import re
import resource
import selectors
import socket
import threading
import time

PATIENCE = 60
BODY = b"hello\n"
#: Sockets of this process besides those of the requests.
SPARE = 200
#: Requests that are on their way to the origin at a time.
BATCH = 200

#: What an nginx says of a small file.
FIELDS = (
    ("Server", "nginx"), ("Date", "Thu, 26 Nov 2026 05:00:00 GMT"),
    ("Content-Type", "text/plain"), ("Content-Length", str(len(BODY))),
    ("Connection", "keep-alive"),
    ("Last-Modified", "Mon, 01 Jun 2026 00:00:00 GMT"),
    ("ETag", '"6a1b2c3d-6"'), ("Accept-Ranges", "bytes"))


def numbered(count):
    """So many response header fields, with the one that must be there."""
    return (("Content-Length", str(len(BODY))),
            *((f"X-Field-{number}", f"value-{number}")
              for number in range(1, count)))


def raise_descriptors(wanted):
    """How many this process may have, at most as many as wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        for limit in ((wanted, max(hard, wanted)), (hard, hard)):
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, limit)
                break
            except (OSError, ValueError):
                continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def request(method, size=0):
    head = (f"{method} /some/path HTTP/1.1\r\nHost: example.com\r\n"
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n"
            "Accept-Encoding: gzip, deflate\r\n")
    if size:
        head += f"Content-Length: {size}\r\n"
    return head.encode() + b"\r\n" + size * b"x"


class Origin:
    """Listens on so many ports; addresses is where."""

    def __init__(self, listeners=1, fields=FIELDS):
        self._response = "\r\n".join(
            ["HTTP/1.1 200 OK", *map(": ".join, fields), "", ""]
        ).encode() + BODY
        self._selector = selectors.DefaultSelector()
        self._received = {}
        self._held = []
        self._hold = False
        #: The descriptor of the connection that each request came on.
        self.carriers = []
        self._orders, self._ordered = socket.socketpair()
        self._selector.register(self._ordered, selectors.EVENT_READ)
        self._listeners = [socket.create_server(("127.0.0.1", 0),
                                                backlog=1024)
                           for _ in range(listeners)]
        self.addresses = []
        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ)
            self.addresses.append(
                "{}:{}".format(*listener.getsockname()))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._orders.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    # holding

    def hold(self):
        self._hold = True

    def wait_for(self, count):
        """Until so many requests are held."""
        deadline = time.monotonic() + PATIENCE
        while len(self._held) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._held)} of {count} requests "
                                   "came to the origin")
            time.sleep(0.001)

    def release(self):
        """Answers all that is held."""
        self._hold = False
        self._orders.send(b"r")

    # the thread

    def _serve(self):
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._ordered:
                    if not self._ordered.recv(100):
                        return
                    held, self._held = self._held, []
                    for sock in held:
                        sock.sendall(self._response)
                elif key.fileobj in self._received:
                    self._read(key.fileobj)
                else:
                    sock, _ = key.fileobj.accept()
                    self._received[sock] = b""
                    self._selector.register(sock, selectors.EVENT_READ)

    def _read(self, sock):
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(sock)
            del self._received[sock]
            sock.close()
            return
        received = self._received[sock] + data
        head, end, body = received.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: (\d+)", head)
        if not end or found and len(body) < int(found[1]):
            self._received[sock] = received
            return
        self._received[sock] = b""
        self.carriers.append(sock.fileno())
        if self._hold:
            self._held.append(sock)
        else:
            sock.sendall(self._response)


class Client:
    """A connection to the proxy."""

    def __init__(self, port):
        self._sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def own_port(self):
        return self._sock.getsockname()[1]

    def send(self, text):
        self._sock.sendall(text)

    def read(self):
        """Until the response has come."""
        received = b""
        while not received.endswith(BODY):
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionError(f"the proxy closed after {received}")
            received += data
        if not received.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(f"the proxy said {received}")

    def play(self, text, count):
        """So many requests, one after another."""
        for _ in range(count):
            self.send(text)
            self.read()

    def close(self):
        self._sock.close()


def fill(port, origin, count, when_held=None):
    """Has the proxy hold so many requests at a time, then answers them.

    That is how it comes to as many idle connections.  when_held is called
    while all of them are held.
    """
    clients = []
    origin.hold()
    text = request("GET")
    try:
        while len(clients) < count:
            for _ in range(min(BATCH, count - len(clients))):
                clients.append(Client(port))
                clients[-1].send(text)
            origin.wait_for(len(clients))
        if when_held:
            when_held()
        origin.release()
        for client in clients:
            client.read()
    finally:
        for client in clients:
            client.close()
