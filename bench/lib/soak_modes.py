"""What is played at once in a soak: origins, and the loads on them."""

import dataclasses

LONG = 60000

#: A server of an upstream, and of which it is the only one.
UPSTREAM = "upstream {name} {{ {servers} {lines} }}"


@dataclasses.dataclass
class Mode:
    """Times are milliseconds.

    The next burst comes when the connections have been idle for about as long
    as the origin keeps them, unless there is a wait of its own.
    """

    name: str
    near: bool = False
    idle: float = 60
    first: float = 60000
    service: float = 0
    options: tuple = ()
    tls: bool = False
    servers: int = 1
    upstream: str = ""
    location: str = ""
    kind: str = "post"
    loads: int = 1
    burst: int = 30
    wait: float = None
    short: float = 30
    own: bool = False               #: it restarts by itself, near bursts

    def origin_words(self, rtt):
        words = ["--idle", self.idle, "--first", self.first,
                 "--service", self.service, "--down", 50, *self.options]
        if self.own:
            wait = self.wait - rtt / 2
            words += ["--restart-every", 10,
                      "--restart-after", self.service + rtt / 2 + wait,
                      "--restart-spread", 1.5 * rtt]
        return words

    def load_words(self, rtt):
        trip = 1 if self.near else rtt
        wait, spread, short = self.idle - trip / 2, trip, self.short
        if self.wait is not None:
            wait, spread, short = self.wait - trip / 2, trip, 0
        # of a part of a TLS record the origin could not tell whose it is
        small = ["--small"] if self.tls and self.idle < LONG else []
        return [*small, "--kind", self.kind, "--burst", self.burst,
                "--wait", wait, "--spread", spread, "--short", short]


MODES = (
    # as in bench/stale
    Mode("fin"),
    Mode("rst", options=("--rst",)),
    Mode("announced", idle=1000, options=("--announce", 1), burst=60),
    Mode("dropped", options=("--drop", 5)),
    Mode("restart", idle=LONG, service=5, wait=300, own=True),
    Mode("tls", tls=True),
    # as those, near by and besides
    Mode("near", near=True, idle=30),
    Mode("warm", tls=True, idle=400, first=20000, burst=20,
         upstream="reuse_warm 20;"),
    Mode("auto", idle=300, first=20000, burst=20, upstream="reuse_warm auto;"),
    Mode("steady", near=True, idle=LONG, servers=2, burst=30, wait=10),
    Mode("secure", near=True, tls=True, idle=LONG, burst=10, wait=20),
    Mode("trickle", near=True, idle=LONG, burst=2, wait=15),
    Mode("limited", near=True, idle=LONG, service=5, loads=2, burst=28,
         wait=20, upstream="reuse_limit 8 queue=40 timeout=1s;"),
    Mode("variable", near=True, idle=30, burst=10,
         location="set $name a; if ($uri ~ [02468]$) { set $name b; }"),
    Mode("stream", near=True, idle=LONG, burst=5, wait=20,
         location="myproxy_request_buffering off;"),
    Mode("cache", near=True, idle=200, kind="get", burst=10, wait=50,
         location="myproxy_cache soak; myproxy_cache_key $uri;"
                  "myproxy_cache_valid 200 1s; myproxy_cache_lock on;"
                  "myproxy_cache_use_stale updating;"),
    Mode("upgrade", near=True, idle=LONG, kind="upgrade", burst=5, wait=100),
)


def http(authority):
    upstreams = []
    for mode in MODES:
        names = [mode.name + (str(which + 1) if which else "")
                 for which in range(mode.servers)]
        servers = " ".join(f"server %{{{name}}} max_fails=0;"
                           for name in names)
        upstreams.append(UPSTREAM.format(name=mode.name, servers=servers,
                                         lines=mode.upstream))
    return "\n    ".join([
        "reuse_share 256;",
        "client_body_buffer_size 16k; client_max_body_size 1m;",
        "resolver %{dns} ipv6=off;",
        "myproxy_cache_path %{prefix}/cache keys_zone=soak:4m inactive=1h;",
        f"myproxy_ssl_trusted_certificate {authority};",
        "myproxy_ssl_name origin.test;",
        "add_header X-Fate \"$reuse_connection $reuse_reason $reuse_fate\""
        " always;", *upstreams])


def server():
    made = []
    for mode in MODES:
        scheme = "https" if mode.tls else "http"
        target = mode.name
        if mode.name == "variable":
            target = "$name.soak.test:%{variable_port}"
        made.append(f"location /{mode.name}/ {{ {mode.location} "
                    f"myproxy_pass {scheme}://{target}; }}")
    return "\n        ".join(made)
