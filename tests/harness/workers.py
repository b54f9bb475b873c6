"""A server with several workers, which are asked one by one."""

from . import http1

ESTABLISHED, CLOSE_WAIT = "01", "08"

WHO = "add_header X-Worker $pid; add_header X-Connection $reuse_connection;"


def established(origins):
    """How many connections to them nginx has, as the kernel knows."""
    ports = {f"{origin.port:04X}" for origin in origins}
    with open("/proc/net/tcp", encoding="ascii") as file:
        lines = [line.split() for line in file.readlines()[1:]]
    return sum(fields[2].partition(":")[2] in ports
               and fields[3] in (ESTABLISHED, CLOSE_WAIT)
               for fields in lines)


def waiting_origin(stage):
    """It answers /wait when its gate is opened, and all else at once."""
    def answer(request):
        if request.target == "/wait":
            gate.wait()
        return http1.response()

    origin = stage.origin(lambda conn: conn.serve(answer))
    gate = origin.gate()
    return origin, gate


class Workers:
    """Idle connections are parked after a moment, where all find them."""

    def __init__(self, stage, location="myproxy_pass http://%{origin};",
                 workers=2, **config):
        self.stage = stage
        self.nginx = stage.nginx(location=WHO + location, workers=workers,
                                 **config)
        self.count = workers
        self.wait_new()

    def ask(self, worker, target="/", method="GET", **more):
        """The response to a request that this worker serves."""
        others = [pid for pid in self.nginx.workers() if pid != worker]
        for pid in others:
            self.nginx.pause_worker(pid)
        try:
            response = self.nginx.request(method, target, **more)
        finally:
            for pid in others:
                self.nginx.resume_worker(pid)
        assert response.header("X-Worker") == str(worker)
        return response

    def how(self, worker, *args, **more):
        """How the connection was had for such a request."""
        response = self.ask(worker, *args, **more)
        assert response.status == 200
        return response.header("X-Connection")

    def ask_at_once(self, count, origin, gate):
        """So many requests, of which each needs a connection of its own.

        The origin is a waiting_origin(), with that gate.
        """
        before = len(origin.requests)
        clients = [self.nginx.connect() for _ in range(count)]
        for client in clients:
            client.send(http1.request("GET", "/wait"))
        self.stage.wait_until(
            lambda: len(origin.requests) == before + count)
        gate.open()
        for client in clients:
            assert client.read_response().status == 200

    @property
    def connections(self):
        return self.nginx.status()["total"]["connections"]

    @property
    def learned(self):
        """The idle limit of the only server, in seconds; None."""
        server, = self.nginx.status()["upstreams"][0]["servers"]
        return server["learned_idle_limit_seconds"]

    @property
    def closed(self):
        """Reasons for which connections were closed, and how many."""
        return {name: count for name, count
                in self.connections["closed_by_reason"].items() if count}

    def wait_new(self, *old):
        """Until all workers are there, and none of those; one that is stopped
        while it begins may hold a lock."""
        self.stage.wait_until(
            lambda: not set(old) & set(self.nginx.workers())
            and len(self.nginx.workers()) == self.count
            and self.nginx.status()["workers"] == self.count)

    def wait_parked(self, count=1):
        self._wait(lambda: self.connections["parked"] == count)

    def wait_open(self, count):
        self._wait(lambda: self.connections["open"] == count)

    def wait_closed(self, **reasons):
        self._wait(lambda: self.closed == reasons)

    def _wait(self, condition):
        try:
            self.stage.wait_until(condition)
        except AssertionError:
            raise AssertionError(f"there are {self.connections}") from None


def use_up_connections(stage, nginx):
    """Clients that have begun a request each, until the worker has no more
    "worker_connections"."""
    said = "worker_connections are not enough"
    nginx.expect_log(said)
    clients = []
    while not nginx.logged(said):
        clients.append(nginx.connect())
        clients[-1].send(b"GET / HTTP/1.1\r\n")
        stage.let_pass(0.01)
    return clients
