"""The proxies that are compared, each with a configuration of its own.

A contender's function writes what the proxy needs into a directory and
returns the command that runs it in the foreground.  All of them listen on
127.0.0.1 and keep connections to the origin as well as they can with
what their manuals say of keeping connections, and no more: nothing else is
tuned.
"""

import contextlib
import dataclasses
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import typing

from harness import settings

PORT = 8080
LOG = "access.log"
#: Requests on a connection where there should be no limit.
ENDLESS = 100000000
APACHE_MODULES = pathlib.Path("/usr/lib/apache2/modules")


@contextlib.contextmanager
def scratch():
    """A directory that is there for a while."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="myproxy-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@dataclasses.dataclass
class Setting:
    """What a contender's configuration is made from."""

    directory: pathlib.Path
    origin: str                         #: address:port
    authority: typing.Optional[str]     #: the CA's file if it speaks TLS
    #: worker processes, or threads; None for the proxy's default, or one
    workers: typing.Optional[int] = None
    tls13: bool = False                 #: speak this to the origin
    spread: bool = False                #: each worker has its own listener
    log: bool = False                   #: write LOG for each request
    port: int = PORT
    #: clients that it must be able to serve at a time, with as many kept
    #: connections, and without end; None for the proxy's defaults
    clients: typing.Optional[int] = None
    peers: tuple = ()                   #: other address:port of the origin
    zone: bool = False                  #: all workers take turns together
    status: bool = False                #: /reuse is ours's reuse_status
    single: bool = False                #: nginx is one process
    #: the most connections to the origin, and requests that may wait for one
    limit: typing.Optional[int] = None
    queue: int = 500

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        return str(path)

    @property
    def scheme(self):
        return "https" if self.authority else "http"


@dataclasses.dataclass
class Contender:
    name: str
    label: str
    binary: str
    version_command: tuple
    configure: typing.Callable
    tls: bool = True
    remark: str = ""
    #: What makes it read its configuration anew; None if nothing does.
    reload: typing.Optional[signal.Signals] = None

    def missing(self):
        """Why it cannot take part; None if it can."""
        if shutil.which(self.binary) is None:
            return f"{self.binary} is not installed"
        return None

    def version(self):
        done = subprocess.run([self.binary, *self.version_command],
                              capture_output=True, text=True, check=False)
        text = done.stdout + done.stderr
        found = re.search(r"\b\d+\.\d+(\.\d+)?[-+~\w]*", text)
        return found.group() if found else "unknown"


# nginx

def kept_by(default, clients):
    """The lines with which an upstream keeps that many connections.

    default is how many it keeps without being told, 0 for none.
    """
    if clients is None or clients <= default:
        return ""
    return f"keepalive {max(64, clients)}; keepalive_requests {ENDLESS};"


def nginx(upstream, location, load=True, keepalive="", http=""):
    """A function that configures nginx with these lines.

    keepalive is what the upstream has unless Setting.clients says more.
    """
    def configure(setting):
        ours = location.startswith("my")
        kept, connections, endless = keepalive, 1024, ""
        if setting.clients is not None:
            # with few left, nginx closes connections that wait
            connections = max(connections, 3 * setting.clients)
            endless = f"keepalive_requests {ENDLESS};"
            if ours:
                kept = kept_by(OURS_KEEPS, setting.clients)
            elif keepalive:
                kept = kept_by(0, setting.clients)
        module = settings.MODULE
        needed = load and module != "static"
        tls = ""
        if setting.authority and location is not DEFAULTS:
            prefix = "myproxy" if ours else "proxy"
            tls = (f"{prefix}_ssl_trusted_certificate {setting.authority};"
                   f"\n{prefix}_ssl_verify on;")
            if setting.tls13:
                # before 1.23.4 it must be asked for
                tls += f"\n{prefix}_ssl_protocols TLSv1.3;"
        log = "off"
        if setting.log:
            log = f"{setting.directory}/{LOG} bench"
        connection = "$reuse_connection" if load else "-"
        spread = " reuseport" if setting.spread else ""
        zone = "zone app 8m;" if setting.zone else ""
        status = ""
        if setting.status and load:
            status = "location = /reuse { reuse_status; }"
        most, limit = "", ""
        if setting.limit and ours:
            limit = f"reuse_limit {setting.limit} queue={setting.queue};"
        elif setting.limit:
            most = f" max_conns={setting.limit}"
        servers = "\n        ".join(
            f"server {address} max_fails=0{most};"
            for address in (setting.origin, *setting.peers))
        temp_paths = "\n".join(
            f"{name}_temp_path {setting.directory}/{name}_temp;"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        path = setting.write("nginx.conf", f"""
{f"load_module {module};" if needed else ""}
user root;
daemon off;
master_process {"off" if setting.single else "on"};
worker_processes {setting.workers or 1};
pid {setting.directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
    log_format bench "$request_uri|$status|$upstream_connect_time|"
                     "{connection}|$pid";
    access_log {log};
    {http}
    {endless}
    {temp_paths}
    upstream app {{
        {zone}
        {servers}
        {kept}
        {limit}
        {upstream.replace("ORIGIN", setting.origin)}
    }}
    server {{
        listen 127.0.0.1:{setting.port}{spread};
        location / {{
            {location.replace("SCHEME", setting.scheme)}
            {tls}
        }}
        {status}
    }}
}}
""")
        return [settings.NGINX, "-p", str(setting.directory), "-c", path,
                "-e", "stderr"]
    return configure


class NginxContender(Contender):
    """Left out where nginx does not know its directives."""

    def __init__(self, name, label, configure):
        super().__init__(name, label, settings.NGINX, ("-v",), configure,
                         reload=signal.SIGHUP)

    def missing(self):
        if shutil.which(self.binary) is None:
            return f"{self.binary} is not installed"
        with scratch() as directory:
            command = self.configure(
                Setting(directory, "127.0.0.1:9", None))
            done = subprocess.run([*command, "-t"], capture_output=True,
                                  text=True, check=False)
        if done.returncode == 0:
            return None
        found = re.search(r'unknown directive "\w+"', done.stderr)
        return found.group() if found else done.stderr.strip()[-300:]


STOCK = """proxy_pass SCHEME://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;"""
DEFAULTS = "proxy_pass SCHEME://app;"
# a server is tried once a request, so it takes a second one
STOCK_RETRY = f"""{STOCK}
            proxy_next_upstream error timeout non_idempotent;"""
OURS = "myproxy_pass SCHEME://app;"
OURS_KEEPS = 32


# others

HAPROXY = """
{threads}
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    {options}
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    {servers}
"""


def haproxy(options=""):
    def configure(setting):
        threads = ""
        if setting.workers:
            threads = f"global\n    nbthread {setting.workers}"
        tls = ""
        if setting.authority:
            tls = f"ssl verify required ca-file {setting.authority}"
        if setting.limit:
            tls += f" maxconn {setting.limit} maxqueue {setting.queue}"
        servers = "\n    ".join(
            f"server origin{number} {address} {tls}" for number, address
            in enumerate((setting.origin, *setting.peers)))
        path = setting.write("haproxy.cfg", HAPROXY.format(
            threads=threads, options=options, port=setting.port,
            servers=servers))
        return ["haproxy", "-W", "-db", "-f", path]
    return configure


def varnish(setting):
    host, port = setting.origin.split(":")
    path = setting.write("default.vcl", f"""
vcl 4.1;
backend default {{
    .host = "{host}";
    .port = "{port}";
}}
sub vcl_recv {{
    return (pass);
}}
""")
    return ["varnishd", "-F", "-j", "none", "-f", path, "-s", "malloc,64m",
            "-a", f"127.0.0.1:{setting.port}",
            "-n", str(setting.directory / "run")]


def caddy(setting):
    port, lines = setting.port, []
    if setting.authority:
        lines += [f"tls_trusted_ca_certs {setting.authority}",
                  "tls_server_name app"]
    if setting.clients is not None:
        lines += [f"keepalive_idle_conns_per_host {max(32, setting.clients)}"]
    transport = ""
    if lines:
        transport = "\n        ".join(["", "transport http {", *lines, "}"])
    path = setting.write("Caddyfile", f"""
{{
    admin off
    auto_https off
    storage file_system {setting.directory}/caddy
    log {{
        level ERROR
    }}
}}
http://127.0.0.1:{port}, http://origin.test:{port} {{
    bind 127.0.0.1
    reverse_proxy {setting.scheme}://{setting.origin} {{{transport}
    }}
}}
""")
    return ["caddy", "run", "--config", path, "--adapter", "caddyfile"]


def apache(setting):
    tls = ""
    modules = ["mpm_event", "authz_core", "proxy", "proxy_http"]
    if setting.authority:
        modules += ["socache_shmcb", "ssl"]
        tls = f"""
SSLProxyEngine on
SSLProxyVerify require
SSLProxyCACertificateFile {setting.authority}
SSLProxyCheckPeerName off
"""
    threads, endless = 64, ""
    if setting.clients is not None:
        threads = max(threads, setting.clients)
        endless = "MaxKeepAliveRequests 0"
    load = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_"
                     f"{name}.so" for name in modules)
    path = setting.write("apache.conf", f"""
{load}
ServerName localhost
ServerRoot {setting.directory}
DefaultRuntimeDir {setting.directory}
PidFile {setting.directory}/apache.pid
ErrorLog /dev/stderr
LogLevel crit
Listen 127.0.0.1:{setting.port}
ServerLimit 1
StartServers 1
ThreadLimit {threads}
ThreadsPerChild {threads}
MaxRequestWorkers {threads}
{endless}
{tls}
ProxyPass / {setting.scheme}://{setting.origin}/
""")
    return ["apache2", "-DFOREGROUND", "-f", path]


def lighttpd(setting):
    host, port = setting.origin.split(":")
    path = setting.write("lighttpd.conf", f"""
server.modules = ("mod_proxy")
server.document-root = "{setting.directory}"
server.bind = "127.0.0.1"
server.port = {setting.port}
proxy.server = ("" => (("host" => "{host}", "port" => {port})))
""")
    return ["lighttpd", "-D", "-f", path]


def traffic_server(setting):
    run = setting.directory
    for name in ("etc", "cache", "run", "log"):
        (run / name).mkdir()
    setting.write("runroot.yaml", f"""
prefix: /usr
exec_prefix: /usr
bindir: /usr/bin
sbindir: /usr/sbin
libdir: /usr/lib/trafficserver
libexecdir: /usr/lib/trafficserver/modules
sysconfdir: {run}/etc
datadir: {run}/cache
cachedir: {run}/cache
localstatedir: {run}
runtimedir: {run}/run
logdir: {run}/log
""")
    threads = ""
    if setting.workers:
        threads = f"""CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT {setting.workers}"""
    setting.write("etc/records.config", f"""
{threads}
CONFIG proxy.config.http.server_ports STRING {setting.port}:ip-in=127.0.0.1
CONFIG proxy.config.admin.user_id STRING trafficserver
CONFIG proxy.config.http.cache.http INT 0
CONFIG proxy.config.ssl.client.verify.server.policy STRING DISABLED
CONFIG proxy.config.log.logging_enabled INT 0
""")
    setting.write("etc/remap.config",
                  f"map / {setting.scheme}://{setting.origin}/\n")
    setting.write("etc/ip_allow.yaml", """
ip_allow:
  - apply: in
    ip_addrs: 127.0.0.1
    action: allow
    methods: ALL
""")
    setting.write("etc/storage.config", "")
    # as root it refuses to serve, so all of this must be its user's
    user = pwd.getpwnam("trafficserver").pw_name
    shutil.chown(run, user)
    for path in run.rglob("*"):
        shutil.chown(path, user)
    return ["env", f"TS_RUNROOT={run}", "traffic_server"]


ALL = [
    NginxContender(
        "stock", "nginx proxy_pass", nginx(
            "", STOCK, load=False, keepalive="keepalive 64;")),
    NginxContender(
        "stock-defaults", "nginx proxy_pass as it comes",
        nginx("", DEFAULTS, load=False)),
    NginxContender(
        "stock-retry", "nginx proxy_pass told to retry",
        nginx("server ORIGIN max_fails=0; keepalive 64;", STOCK_RETRY,
              load=False)),
    NginxContender(
        "stock-reuse", "nginx proxy_pass, reuse on",
        nginx("keepalive 64; reuse on;", STOCK)),
    NginxContender("ours", "myproxy_pass", nginx("", OURS)),
    NginxContender(
        "ours-alone", "myproxy_pass, reuse_share off",
        nginx("", OURS, http="reuse_share off;")),
    NginxContender(
        "ours-no-expiry", "myproxy_pass, reuse_expiry off",
        nginx("reuse_expiry off;", OURS)),
    NginxContender(
        "ours-auto", "myproxy_pass, reuse_warm auto",
        nginx("reuse_warm auto;", OURS)),
    NginxContender(
        "ours-20", "myproxy_pass, reuse_warm 20",
        nginx("reuse_warm 20;", OURS)),
    NginxContender(
        "ours-churn", "myproxy_pass, reuse_warm 20, reuse_expiry 1s",
        nginx("reuse_warm 20; reuse_expiry 1s;", OURS)),
    Contender("haproxy", "HAProxy", "haproxy", ("-v",), haproxy(),
              reload=signal.SIGUSR2),
    Contender(
        "haproxy-retry", "HAProxy told to retry", "haproxy", ("-v",),
        haproxy("retries 3\n    retry-on all-retryable-errors\n"
                "    option redispatch"), reload=signal.SIGUSR2),
    Contender(
        "haproxy-always", "HAProxy, http-reuse always", "haproxy", ("-v",),
        haproxy("http-reuse always"), reload=signal.SIGUSR2),
    Contender("varnish", "Varnish", "varnishd", ("-V",), varnish, tls=False),
    Contender("caddy", "Caddy", "caddy", ("version",), caddy),
    Contender("apache", "Apache httpd", "apache2", ("-v",), apache),
    Contender("lighttpd", "lighttpd", "lighttpd", ("-v",), lighttpd,
              tls=False, remark="keeps no connections to origins"),
    Contender("trafficserver", "Traffic Server", "traffic_server", ("-V",),
              traffic_server),
]

#: What `bench/stale --install` gets.
PACKAGES = ("haproxy", "varnish", "caddy", "apache2-bin", "lighttpd",
            "trafficserver")
