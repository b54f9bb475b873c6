"""Starting nginx with a configuration of which a test writes the point."""

import functools
import json
import os
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import typing

from . import settings
from .client import Client, H2Client

PLACEHOLDER = re.compile(r"%\{([a-z0-9_]+)((?:\.[a-z0-9_]+)*)\}")

#: What must not be in any log unless the test expects it.
FORBIDDEN = re.compile(
    r"AddressSanitizer|LeakSanitizer|runtime error:|ThreadSanitizer"
    r"|\[alert\]|\[emerg\]|exited on signal")

TEMP_PATHS = ("fastcgi", "uwsgi", "scgi")


class Relative(typing.NamedTuple):
    """What tells a relative of nginx from nginx."""

    #: The nginx that its core is like, if that is not the one it names.
    like: tuple = None
    #: The variable of the environment that tells it of inherited sockets.
    inherits: str = "NGINX"
    #: Directives whose names begin with "proxy_" and that nginx does not have,
    #: or not so.
    own: frozenset = frozenset()
    #: What its http{} needs to be without warnings.
    http: str = ""
    #: Does it answer 400 to an Upgrade in HTTP/2, whatever it is like?
    refuses_upgrade: bool = False
    #: Does it mark a request as sent before it looks at what has come?
    reads_late: bool = False


#: By the name that -V gives them, in lower case.
RELATIVES = {
    "angie": Relative(
        like=(1, 29, 5),
        inherits="ANGIE",
        own=frozenset({
            "proxy_http3_hq",
            "proxy_http3_max_concurrent_streams",
            "proxy_http3_max_table_capacity", "proxy_http3_stream_buffer_size",
            "proxy_quic_active_connection_id_limit", "proxy_quic_gso",
            "proxy_quic_host_key", "proxy_ssl_keylog_file",
            # may stand in "if" as well
            "proxy_http_version"}),
        refuses_upgrade=True,
        reads_late=True),
    "freenginx": Relative(like=(1, 25, 3)),
    "openresty": Relative(),
    "tengine": Relative(
        own=frozenset({"proxy_upstream_tries", "proxy_rcvbuf_size",
                       "proxy_sndbuf_size"}),
        http="variables_hash_max_size 2048;"),
}


class StartError(AssertionError):
    """nginx did not start."""


@functools.lru_cache()
def product():
    """What is under test: nginx, or one of its RELATIVES."""
    name = re.search(r" version: (\w+)/", build_info())[1].lower()
    return name if name in RELATIVES else "nginx"


def relative():
    """What tells it from nginx."""
    return RELATIVES.get(product(), Relative())


@functools.lru_cache()
def version():
    """The version of nginx under test: (1, 22, 1).

    Of a relative, that of the nginx which has what it has.
    """
    like = relative().like
    if like is not None:
        return like
    found = re.search(r"(?:nginx|openresty)/(\d+)\.(\d+)\.(\d+)",
                      build_info())
    return tuple(int(part) for part in found.groups())


def has(module):
    """Was nginx built with that module: http_addition, http_ssi ...?"""
    return f"--with-{module}_module" in build_info()


def loading(module):
    """What loads a filter that nginx has: nothing if it is compiled in.

    None if nginx was built without it, or its file is not installed.
    """
    if not has(module):
        return None
    if f"--with-{module}_module=dynamic" not in build_info():
        return ""
    where = re.search(r"--modules-path=(\S+)", build_info())[1]
    name = module.removesuffix("_filter")
    path = os.path.join(where, f"ngx_{name}_filter_module.so")
    return f"load_module {path};" if os.path.exists(path) else None


def third_party(module):
    """What loads a module that is not nginx's own; None if there is none."""
    where = re.search(r"--modules-path=(\S+)", build_info())
    path = os.path.join(where[1] if where else "", f"{module}_module.so")
    return f"load_module {path};" if os.path.exists(path) else None


@functools.lru_cache()
def build_info():
    return subprocess.run([settings.NGINX, "-V"], capture_output=True,
                          text=True, check=True).stderr


class Nginx:
    """One nginx with a directory, sockets and a log of its own.

    `names` are what %{name} and %{name.attribute} stand for in the
    configuration.  Besides, %{prefix} is nginx's directory and
    %{port.NAME} a free port of 127.0.0.1, %{any.NAME} one of all
    addresses; nginx inherits the sockets of
    all ports mentioned, so that no one else can take them.  `env` in the
    configuration are variables of nginx's environment, `before` the words
    in front of the command that starts it.  With a link, nginx
    runs on the link's side a: it connects from there, while clients reach
    its inherited sockets on the loopback interface out here.
    """

    def __init__(self, exchange, names, config, link=None):
        self.exchange = exchange
        self.names = names
        self.link = link
        self.config = dict(config)
        self.env = {**os.environ, **self.config.pop("env", {})}
        self.before = self.config.pop("before", [])
        if settings.PRELOAD:
            own = self.env.get("LD_PRELOAD", "")
            self.env["LD_PRELOAD"] = f"{settings.PRELOAD}:{own}".strip(":")
        self.text = None
        self.expected = []
        self.prefix = tempfile.mkdtemp(prefix="myproxy-")
        self._sockets = {}
        self._ports = {}
        self._log = []
        self._partial = b""
        self._log_lock = threading.Lock()
        self._ended = False
        self._process = None
        self._reader = None
        self.clients = []

    # the configuration

    def _expand(self, text):
        def value(match):
            name, path = match.group(1), match.group(2).split(".")[1:]
            if name == "prefix":
                return self.prefix
            if name == "port":
                return str(self._reserve(path[0]))
            if name == "any":
                return str(self._reserve(path[0], host="0.0.0.0"))
            if name == "udp":
                return str(self._reserve(path[0], socket.SOCK_DGRAM))
            thing = self.names[name]
            for attribute in path:
                thing = getattr(thing, attribute)
            return str(thing)
        text = PLACEHOLDER.sub(value, text)
        return text.replace("myproxy_", "proxy_") if settings.STOCK else text

    def _reserve(self, name, kind=socket.SOCK_STREAM, host="127.0.0.1"):
        if name not in self._ports:
            sock = socket.socket(socket.AF_INET, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, 0))
            if kind == socket.SOCK_STREAM:
                sock.listen(511)
            sock.setblocking(False)
            self._sockets[name] = sock
            self._ports[name] = sock.getsockname()[1]
        return self._ports[name]

    def _write_config(self):
        self.text = self._expand(compose(self.prefix, **self.config))
        path = os.path.join(self.prefix, "nginx.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.text)
        return path

    def write(self, name, content):
        """A file in nginx's directory; returns its path."""
        path = os.path.join(self.prefix, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        mode = "wb" if isinstance(content, bytes) else "w"
        with open(path, mode) as file:
            file.write(content)
        return path

    def read(self, name):
        """What is in a file of nginx's directory.

        nginx writes its access log after it has answered: wait for it.
        """
        with open(os.path.join(self.prefix, name), "rb") as file:
            return file.read()

    def test_config(self):
        """What `nginx -t` says: (exit code, standard error)."""
        command = [settings.NGINX, "-t", "-p", self.prefix,
                   "-c", self._write_config(), "-e", "stderr"]
        self._close_sockets()
        done = subprocess.run(command, capture_output=True, text=True,
                              timeout=3 * settings.PATIENCE, check=False,
                              env=self.env)
        self._log = done.stderr.splitlines()
        return done.returncode, done.stderr

    # starting and stopping

    def start(self):
        path = self._write_config()
        numbers = [sock.fileno() for sock in self._sockets.values()]
        command = [*self.before, settings.NGINX, "-p", self.prefix,
                   "-c", path, "-e", "stderr"]
        if shutil.which("setpriv"):
            # nginx goes when the tests are killed
            command = ["setpriv", "--pdeathsig", "TERM", *command]
        if self.link is not None:
            command = self.link.enter("a") + command
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, bufsize=0, pass_fds=numbers,
            env={**self.env, relative().inherits: "".join(
                f"{number};" for number in numbers)})
        os.set_blocking(self._process.stdout.fileno(), False)
        self._close_sockets()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        if self._probe() is None:
            self._reader.join(settings.PATIENCE)
            self.expect_log("")
            raise StartError("nginx did not start:\n" + self.log)
        if self.config.get("workers", 1) > 1:
            # one has answered; the others may not even be there
            self.exchange.wait_until(
                lambda: len(self.workers()) >= self.config["workers"])

    def _close_sockets(self):
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def _probe(self):
        """The process id of the worker that answers; None if none does."""
        try:
            address = ("127.0.0.1", self._ports["probe"])
            with socket.create_connection(
                    address, timeout=settings.PATIENCE) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b""
                while True:
                    data = sock.recv(4096)
                    if not data:
                        break
                    answer += data
            return int(answer.rpartition(b"\r\n\r\n")[2])
        except (OSError, ValueError):
            return None

    def _read_log(self):
        while not self._ended:
            select.select([self._process.stdout], [], [])
            self._drain_log()
            self.exchange.wake()

    def _drain_log(self):
        """Take what has been written to the log up to this moment."""
        with self._log_lock:
            while self._process is not None and not self._ended:
                data = self._process.stdout.read(65536)
                if data is None:
                    return
                self._ended = not data
                *lines, self._partial = (self._partial + data).split(b"\n")
                if self._ended and self._partial:
                    lines.append(self._partial)
                self._log.extend(line.decode("utf-8", "backslashreplace")
                                 for line in lines)

    def send_signal(self, number):
        self._process.send_signal(number)

    def reload(self, **config):
        """Change parts of the configuration.

        When it returns, no worker with the old one accepts any more.
        """
        old = self.workers()
        self.config.update(config)
        self.apply_config()
        for pid in old:
            self.wait_log(rf" {pid}#\d+: gracefully shutting down")

    def apply_config(self):
        """Have self.config read, which may have an error."""
        self._write_config()
        assert not self._sockets, "a reload cannot inherit further ports"
        self.send_signal(signal.SIGHUP)

    def stop(self):
        """Shut down gracefully, so that connections left over show up."""
        if self._process is None:
            return
        for number in (signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL):
            if self._ended:
                break
            self.send_signal(number)
            try:
                self.exchange.wait_until(lambda: self._ended)
            except AssertionError:
                self._log.append(f"[alert] nginx outlived {number.name}")
        self._process.wait()
        self._reader.join()
        with self._log_lock:
            self._process.stdout.close()
            self._process = None

    def close(self):
        for client in self.clients:
            client.close()
        self.stop()
        self._close_sockets()
        shutil.rmtree(self.prefix, ignore_errors=True)

    # the log

    @property
    def lines(self):
        """All that nginx has logged before this moment."""
        self._drain_log()
        return list(self._log)

    @property
    def log(self):
        return "\n".join(self.lines)

    def wait_log(self, pattern, count=1, timeout=None):
        """Wait for a line of the log; returns the lines that match."""
        matches = re.compile(pattern).search

        def found():
            lines = [line for line in self.lines if matches(line)]
            return lines if len(lines) >= count else None
        return self.exchange.wait_until(
            found, timeout, what=f"a log line with {pattern!r}")

    def forget_log(self):
        """All that was logged so far, of which nothing is kept."""
        self._drain_log()
        with self._log_lock:
            lines = list(self._log)
            self._log.clear()
        return lines

    def logged(self, pattern):
        """The lines of the log up to now that match."""
        return [line for line in self.lines if re.search(pattern, line)]

    def expect_log(self, pattern):
        """Lines that match are no reason to fail, whatever they say."""
        self.expected.append(pattern)

    def expect_kills(self):
        """Workers are killed, each wherever it is at that moment.

        One that holds a lock makes nginx unlock it, and our own code put
        in order what that worker had begun; both say so in the log.
        """
        self.expect_log("exited on signal 9|could not be forcibly unlocked"
                        "|was locked by|died while it shared"
                        "|lists of shared connections")

    def complaints(self):
        """Lines of the log that no nginx should write."""
        return [line for line in self.lines if FORBIDDEN.search(line)
                and not any(re.search(pattern, line)
                            for pattern in self.expected)]

    # processes

    @property
    def master(self):
        """The process id of master."""
        return self._process.pid

    def workers(self):
        """The process ids of master's children."""
        pid = self._process.pid
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]

    def kill_worker(self, pid, number=signal.SIGKILL):
        assert pid in self.workers()
        os.kill(pid, number)

    def pause_worker(self, pid):
        """Stop it for a while; returns when it does nothing any more.

        A worker that the signal wakes may still take what events there
        are, so what it is to see at once must come after this.
        """
        self.kill_worker(pid, signal.SIGSTOP)

        def has_stopped():
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                return file.read().rpartition(")")[2].split()[0] == "T"
        self.exchange.wait_until(has_stopped)

    def resume_worker(self, pid):
        self.kill_worker(pid, signal.SIGCONT)

    # clients

    def port(self, name="main"):
        return self._ports[name]

    def _open(self, port, tls, server_name):
        sock = socket.create_connection(
            ("127.0.0.1", self._ports[port]), timeout=settings.PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(tls, ssl.SSLContext):
            sock = tls.wrap_socket(sock, server_hostname=server_name)
        return sock, f"client#{len(self.clients) + 1}"

    def connect(self, port="main", tls=None, server_name="localhost"):
        """A client with a connection of its own."""
        sock, who = self._open(port, tls, server_name)
        client = Client(sock, who, self.exchange)
        self.clients.append(client)
        return client

    def connect_h2(self, port="main", tls=None, server_name="localhost"):
        """An HTTP/2 client."""
        sock, who = self._open(port, tls, server_name)
        client = H2Client(sock, who, self.exchange,
                          scheme="https" if tls else "http")
        self.clients.append(client)
        return client

    def connect_h3(self, port="h3", **more):
        """An HTTP/3 client (see h3.H3Client), for h3.listen()."""
        from . import h3    # it asks this module what nginx can do
        client = h3.H3Client(("127.0.0.1", self._ports[port]),
                             f"client#{len(self.clients) + 1}",
                             self.exchange, **more)
        self.clients.append(client)
        return client

    def request(self, method, target, *lines, port="main", **more):
        """A single request on a connection of its own."""
        client = self.connect(port)
        response = client.request(method, target, *lines, **more)
        client.close()
        return response

    def status(self):
        """What `reuse_status` has counted, as JSON."""
        response = self.get("/reuse-status?format=json", port="probe")
        assert response.status == 200
        return json.loads(response.body)

    def get(self, target="/", *lines, **more):
        return self.request("GET", target, *lines, **more)

    def post(self, target, body, *lines, **more):
        return self.request("POST", target, *lines, body=body, **more)


def compose(prefix, main="", events="", http="", server="", location=None,
            listen="", workers=1, master=True, log_level=None,
            server_name="localhost", connections=512, shutdown="3s",
            module=settings.MODULE):
    """The whole nginx.conf around what the test has written."""
    load = ""
    if module != "static" and not settings.STOCK:
        load = f"load_module {module};"
    user = "user root;" if os.geteuid() == 0 else ""
    pools = ""
    if settings.PRELOAD:
        # Too small for anything over 32 bytes, which then is allocated
        # by itself and has bounds that AddressSanitizer knows.
        pools = "request_pool_size 112; connection_pool_size 112;"
    status = "" if settings.STOCK else (
        "location = /reuse-status { reuse_status; }")
    temp_paths = "\n".join(
        f"    {name}_temp_path {prefix}/{name}_temp;" for name in TEMP_PATHS
        if f"--without-http_{name}_module" not in build_info())
    if location is not None:
        server += f"\nlocation / {{\n{location}\n}}\n"
    main_server = f"""
    server {{
        listen 127.0.0.1:%{{port.main}} {listen};
        server_name {server_name};
        {server}
    }}""" if server else ""
    return f"""
{load}
{user}
daemon off;
master_process {"on" if master else "off"};
worker_processes {workers};
pid {prefix}/nginx.pid;
error_log stderr {log_level or settings.LOG_LEVEL};
worker_shutdown_timeout {shutdown};
{main}
events {{
    worker_connections {connections};
    {events}
}}
http {{
    access_log off; {pools} {relative().http}
    client_body_temp_path {prefix}/client_body_temp;
    proxy_temp_path {prefix}/proxy_temp;
{temp_paths}
    {http}
    {main_server}
    server {{
        listen 127.0.0.1:%{{port.probe}};
        location / {{ return 200 $pid; }}
        {status}
    }}
}}
"""
