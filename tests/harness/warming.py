"""What the tests of "reuse_warm" have in common."""


from .nginx import version

UP = "upstream app {{ server %{{origin}}; {} }}"
PASS = "myproxy_pass http://app;"
TLS_PASS = "myproxy_pass https://app; myproxy_ssl_verify off;"

#: Two identities of one upstream.
NAMES = """
    myproxy_ssl_trusted_certificate %{authority.path};
    location /a { myproxy_pass https://app; myproxy_ssl_name a.test; }
    location /b { myproxy_pass https://app; myproxy_ssl_name b.test; }
    """

#: From there on an upstream{} block keeps connections for every handler.
NATIVE = version() >= (1, 29, 7)


def live(origin):
    """The connections that neither side has closed."""
    return [conn for conn in list(origin.conns) if not conn.closed]


def unused(origin):
    return [conn for conn in live(origin) if not conn.requests]


def counts(nginx):
    return nginx.status()["total"]


def idle(nginx):
    return counts(nginx)["connections"]["idle"]


def wait_idle(stage, nginx, count):
    """Once so many are in the pool, and none is being opened."""
    def reached():
        found = counts(nginx)["connections"]
        return found["idle"] == count and found["open"] == count
    stage.wait_until(reached, what=f"{count} idle connections")


def requests(nginx):
    found = counts(nginx)["attempts"]
    return found["warm"], found["reused"], found["new"]


def pay(nginx, target="/", count=30):
    """Requests for connections that "auto" opens and that are not used."""
    client = nginx.connect()
    for _ in range(count):
        assert client.get(target).status == 200
    client.close()


def reached(stage, *wanted):
    """Each of the origins has so many connections, and gets no more."""
    def have():
        return all(origin.connections == count for origin, count in wanted)
    stage.wait_until(have, what=f"{wanted}")
    stage.let_pass(0.05)
    assert have()


def two(stage, first="", second="", more=""):
    return (stage.origin(name="first"), stage.origin(name="second"),
            f"upstream app {{ server %{{first}} {first}; "
            f"server %{{second}} {second}; {more} }}")
