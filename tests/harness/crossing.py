"""The end of a kept connection and a request that cross."""


from . import http1

SENT_AGAIN = r"\[info\].* is sent again: "


def answer_http(conn):
    """Read one request and answer it; tells whether there was one."""
    try:
        if conn.read_request() is None:
            return False
    except ConnectionError:
        return False
    conn.respond()
    return True


def unacknowledged(nginx, origin):
    """How many of nginx's connections to it have sent what is not there
    yet, as far as nginx's kernel knows."""
    worker = nginx.workers()[0]
    with open(f"/proc/{worker}/net/tcp", encoding="ascii") as file:
        lines = [line.split() for line in file.readlines()[1:]]
    port = f":{origin.port:04X}"
    return sum(fields[2].endswith(port) and int(fields[4].split(":")[0], 16)
               > 0 for fields in lines)


class Scene:
    """nginx has a kept connection to an origin at the far end of a link.

    `end(conn)` is what the origin does to that connection when told to; the
    connections behind it answer everything.  `answer` reads one request and
    answers it; it returns whether there was one.  `acquainted` connections
    have been open at a time, and only the first one still is.
    """

    def __init__(self, stage, end, *, answer=answer_http, tls=None,
                 round_trip_ms=0, link=None, acquainted=1, **more):
        self.stage = stage
        self.link = link or stage.link(round_trip_ms)
        self._end = end
        self._answer = answer
        self._acquainted = acquainted
        self.origin = stage.origin(self._script, link=self.link, tls=tls)
        self.gate = self.origin.gate()
        self._alone = self.origin.gate()
        self.answered = self.ended = False
        self.nginx = stage.nginx(link=self.link, **more)
        self.client = self.nginx.connect()
        others = [self.nginx.connect() for _ in range(acquainted - 1)]
        for client in (self.client, *others):
            client.send(http1.request("GET", "/warm"))
        for client in (self.client, *others):
            assert client.read_response().status == 200
        if others:
            stage.wait_until(lambda: self._idle() == acquainted)
            self._alone.open()
            stage.wait_until(lambda: self._idle() == 1)
        stage.wait_until(self._is_idle)
        self.settle()

    def settle(self):
        """Let everything arrive, acknowledgements too."""
        self.stage.wait_until(lambda: self.link.queued("a") == 0
                              and self.link.queued("b") == 0)

    def _idle(self):
        return self.nginx.status()["total"]["connections"]["idle"]

    def _is_idle(self):
        return self.answered and unacknowledged(self.nginx, self.origin) == 0

    def _script(self, conn):
        answer = self._answer
        if conn.number > self._acquainted:
            while answer(conn):
                pass
            return
        self.stage.wait_until(
            lambda: self.origin.connections >= self._acquainted)
        answer(conn)
        if conn.number > 1:
            self._alone.wait()
            conn.close()
            return
        self.answered = True
        conn.exchange.wake()
        self.gate.wait()
        self._end(conn)
        self.ended = True
        conn.exchange.wake()
        if not conn.closed:
            conn.wait_for_close()

    def end(self):
        """The origin ends the connection; wait until it has."""
        self.gate.open()
        self.stage.wait_until(lambda: self.ended)

    def send(self, method="POST", target="/x", body=b"body", *lines):
        self.client.send(http1.request(method, target, *lines, body=body))

    def cross(self, *args, **more):
        """The end and the request are on their way at the same time."""
        self.link.hold("a")
        self.link.hold("b")
        self.end()
        self.stage.wait_until(lambda: self.link.queued("b") > 0)
        self.send(*args, **more)
        self.stage.wait_until(
            lambda: unacknowledged(self.nginx, self.origin) > 0)

    def meet(self):
        """What was on its way arrives, the origin's end first."""
        self.link.release("b")
        self.nginx.wait_log(SENT_AGAIN)
        self.link.release("a")

    def response(self):
        return self.client.read_response()

    def received(self, target="/x"):
        """How many times the origin was given that request."""
        return sum(request.target == target
                   for request in self.origin.requests)

    def errors(self):
        return self.nginx.logged(r"\[(error|crit|warn)\]")
