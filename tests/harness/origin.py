"""A scripted origin: real sockets, its behaviour given by the test."""

import os
import socket
import ssl
import threading

from . import http1, settings
from .wire import Wire

#: Steps that a list of steps may have besides bytes and callables.
CLOSE = "close"
RESET = "reset"
HALF_CLOSE = "half_close"


class Gate:
    """Holds a script back until the test opens it."""

    def __init__(self, exchange):
        self._exchange = exchange
        self._open = threading.Event()

    def open(self):
        self._open.set()
        self._exchange.wake()

    def wait(self):
        if not self._open.wait(settings.PATIENCE):
            raise AssertionError("nobody opened the gate")


class Connection(Wire):
    """The origin's end of one connection, handed to the script."""

    def __init__(self, sock, number, origin):
        super().__init__(sock, f"{origin.name}#{number}", origin.exchange,
                         patience=None)
        self.number = number
        self.origin = origin
        #: The requests carried so far.
        self.requests = []
        #: With TLS: the name asked for, whether the session was resumed,
        #: the client's certificate (a dict or None), and what went wrong.
        self.sni = None
        self.session_reused = None
        self.client_certificate = None
        self.tls_version = None
        self.handshake_error = None

    def read_head(self):
        """The next request without its body; None if none comes."""
        if not self.more():
            return None
        request = http1.Request(self.read_until(b"\r\n\r\n"))
        self.requests.append(request)
        self.origin.requests.append(request)
        self.exchange.wake()
        return request

    def read_body(self, request):
        """The body of a request whose head was read."""
        http1.read_body(self, request)
        self.exchange.wake()
        return request.body

    def read_chunk(self):
        """The data of the next chunk; b"" is the last."""
        size = http1.read_chunk_size(self)
        if size == 0:
            http1.read_trailers(self)
            return b""
        return http1.read_chunk_data(self, size)

    def read_request(self):
        """The next request with its body; None if none comes."""
        request = self.read_head()
        if request is not None:
            self.read_body(request)
        return request

    def each_request(self):
        """All requests until the peer closes."""
        while True:
            try:
                request = self.read_request()
            except ConnectionError:
                return
            if request is None:
                return
            yield request

    def respond(self, status=200, *lines, body=b"hello\n", **more):
        self.send(http1.response(status, *lines, body=body, **more))

    def serve(self, answer=None):
        """Answer each request with the same bytes, as its wants_close says.

        A callable gets the request and returns the bytes.
        """
        for request in self.each_request():
            if callable(answer):
                data = answer(request)
            elif answer is not None:
                data = answer
            else:
                data = http1.response()
            if request.method == "HEAD":
                data = data[:data.index(b"\r\n\r\n") + 4]
            self.send(data)
            if request.wants_close:
                return


class Origin:
    """Listens, and runs the script for each connection in a thread.

    The script is one of
      None      each request is answered with 200 "hello",
      bytes     each request is answered with these,
      a list    steps of a connection: bytes are sent after a request has
                been read; CLOSE, RESET, HALF_CLOSE; a callable gets the
                connection.  Behind the last step the origin waits for the
                peer to close,
      callable  gets the connection; when it returns the connection is
                closed.  `connection.number` counts from 1.

    With a link it listens on the link's far side, b.

    What a script raises fails the test, but for the peer's aborts.
    """

    def __init__(self, exchange, directory, name="origin", script=None, *,
                 family="ipv4", tls=None, listening=True, link=None):
        self.exchange = exchange
        self.name = name
        self.script = script
        self.tls = tls
        #: All connections and requests, in the order of their arrival.
        self.conns = []
        self.requests = []
        self.errors = []
        self._directory = directory
        self._family = family
        self._link = link
        self._threads = []
        self._gates = []
        self._closing = False
        self._listener = None
        self._reserved = None
        self._address = self._reserve()
        if listening:
            self.listen()

    # what a test looks at

    @property
    def connections(self):
        """How many connections were opened."""
        return len(self.conns)

    @property
    def carried(self):
        """How many requests each connection carried."""
        return [len(conn.requests) for conn in self.conns]

    @property
    def request(self):
        """The only request there was."""
        assert len(self.requests) == 1, f"requests: {self.requests}"
        return self.requests[0]

    @property
    def port(self):
        return self._address[1]

    @property
    def path(self):
        return self._address

    def __str__(self):
        """As it stands behind http:// in nginx's configuration."""
        if self._family == "unix":
            return f"unix:{self._address}"
        host = self._address[0]
        return f"[{host}]:{self.port}" if ":" in host \
            else f"{host}:{self.port}"

    def gate(self):
        gate = Gate(self.exchange)
        self._gates.append(gate)
        return gate

    # listening

    def _reserve(self):
        """Choose the address; a TCP port stays ours while not listening."""
        if self._family == "unix":
            return os.path.join(self._directory, f"{self.name}.sock")
        host = "::1" if self._family == "ipv6" else "127.0.0.1"
        if self._link is not None:
            host = self._link.b_address
        self._reserved = self._bind((host, 0))
        return self._reserved.getsockname()[:2]

    def _bind(self, address):
        kind = {"unix": socket.AF_UNIX, "ipv4": socket.AF_INET,
                "ipv6": socket.AF_INET6}[self._family]
        if self._link is not None:
            sock = self._link.socket_in("b", kind)
        else:
            sock = socket.socket(kind, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return sock

    def listen(self):
        assert self._listener is None
        self._listener = self._bind(self._address)
        self._listener.listen(256)
        self._start(self._accept, self._listener)

    def refuse(self):
        """Stop listening; open connections go on, new ones are refused."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            if self._family == "unix":
                os.unlink(self._address)

    def cut(self):
        """All connections end."""
        for conn in list(self.conns):
            try:
                # of TCP alone: TLS may be in use by another thread
                socket.socket.shutdown(conn.sock, socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            if self._closing:
                sock.close()
                return
            conn = Connection(sock, len(self.conns) + 1, self)
            self.conns.append(conn)
            self.exchange.note(conn.who, "is accepted")
            self._start(self._run, conn)

    # running scripts

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, conn):
        try:
            if self.tls is None or self._handshake(conn):
                self._play(conn)
        except (ConnectionError, ssl.SSLError) as error:
            self.exchange.note(conn.who, f"gives up: {error}")
        except BaseException as error:
            if not self._closing and not conn.closed:
                self.errors.append(error)
                self.exchange.note(conn.who, f"fails: {error!r}")
        finally:
            conn.close()

    def _handshake(self, conn):
        try:
            conn.sock.settimeout(settings.PATIENCE)
            conn.sock = self.tls.wrap(conn)
        except OSError as error:
            conn.handshake_error = error
            self.exchange.note(conn.who, f"TLS handshake: {error}")
            return False
        self.exchange.note(conn.who, f"TLS: SNI {conn.sni}, "
                           f"resumed {conn.session_reused}")
        return True

    def _play(self, conn):
        script = self.script
        if callable(script):
            script(conn)
        elif isinstance(script, (list, tuple)):
            self._play_steps(conn, script)
        else:
            conn.serve(script)

    def _play_steps(self, conn, steps):
        for step in steps:
            if callable(step):
                step(conn)
            elif isinstance(step, bytes):
                if conn.read_request() is None:
                    return
                conn.send(step)
            else:
                getattr(conn, step)()
            if conn.closed:
                return
        conn.wait_for_close()

    # the end

    def close(self):
        """End everything; raises what a script raised."""
        self._closing = True
        for gate in self._gates:
            gate.open()
        self.refuse()
        self.cut()
        for thread in self._threads:
            thread.join(settings.PATIENCE)
        if self._reserved is not None:
            self._reserved.close()

    def check(self):
        """Raise what a script raised."""
        if self.errors:
            raise self.errors[0]
