"""A call fails in the middle of a request: for want of memory, of a
descriptor, or whatever the kernel may refuse.

Each call of the module that can fail so does it once, in a request of its
own.  That request may fail; the worker, its descriptors, the accounts and the
requests behind it do not notice.
"""

import os
import socket

import pytest

from harness import http1, settings
from harness.no_memory import NoMemory
from harness.wire import Truncated

pytestmark = pytest.mark.skipif(settings.MODULE == "static" or settings.STOCK,
                                reason="links the module's objects")

LARGE = bytes(range(256)) * 512
CHUNKED = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
           + http1.chunked(LARGE))
FIELDS = ("Set-Cookie: a=b; Domain=app; Path=/x; Secure",
          "Location: http://app/x", "Refresh: 1; url=http://app/x",
          "Keep-Alive: timeout=60, max=100", "Link: <a>, <b>",
          "X-Accel-Limit-Rate: 0", "X-Own: 1")
GET = b"GET /%s HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"
POST = (b"POST / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n"
        b"Content-Length: 20000\r\n\r\n" + b"x" * 20000)
UPSTREAM = "upstream app { server %%{origin}; %s }"
PASS = "myproxy_pass http://app;"

OK = http1.response(200)
TO_ORIGIN = "myproxy_pass http://%{origin};"


def scene(location, target=b"", answer=OK, request=None, **more):
    """Configuration, the origin's answer, and the request."""
    return {"location": location, **more}, answer, request or GET % target


SCENES = {
    "small": scene(TO_ORIGIN),
    "fields": scene("""
        myproxy_pass http://%{origin}/y;
        myproxy_cookie_domain app $1.test; myproxy_cookie_domain ~(.*) $1;
        myproxy_cookie_path ~^/(.*) /$1; myproxy_cookie_flags ~ samesite=lax;
        myproxy_redirect http://app/ /; myproxy_redirect ~^(.*)$ $1;
        myproxy_set_header X-Own $arg_a; myproxy_set_header Connection $arg_a;
        myproxy_pass_header Server; add_trailer X-Trailer 1;
        """, b"a%20b?a=b", http1.response(200, *FIELDS)),
    "rewritten": scene("""
        rewrite ^/(.*) /%20/$1 break; myproxy_method PUT;
        myproxy_set_body "<$arg_a>"; myproxy_pass http://%{origin}/;
        """, b"x?a=b"),
    "chunked": scene(TO_ORIGIN, answer=CHUNKED),
    "chunked-unbuffered": scene("myproxy_buffering off;" + TO_ORIGIN,
                                answer=CHUNKED),
    "large": scene("myproxy_buffers 4 4k;" + TO_ORIGIN,
                   answer=http1.response(200, body=LARGE)),
    "posted": scene(TO_ORIGIN, request=POST),
    "posted-unbuffered": scene(
        "myproxy_request_buffering off;" + TO_ORIGIN,
        request=POST.replace(b"Content-Length: 20000\r\n\r\n",
                             b"Transfer-Encoding: chunked\r\n\r\n4e20\r\n")
        + b"\r\n0\r\n\r\n"),
    "hints": scene(TO_ORIGIN, answer=(
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + OK)),
    "cached": scene(
        """
        myproxy_cache zone; myproxy_cache_key $uri$arg_a;
        myproxy_cache_revalidate on; myproxy_cache_bypass $arg_new;
        myproxy_pass http://%{origin};
        """, b"?new=1",
        http1.response(200, "Vary: X-A", 'ETag: "a"',
                       "Cache-Control: max-age=60", body=LARGE),
        http="myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;"),
    "stored": scene("myproxy_store %{prefix}/stored;" + TO_ORIGIN,
                    answer=http1.response(200, body=LARGE)),
    "named": scene("""
        resolver %{dns} ipv6=off; set $to http://app.test:%{origin.port};
        myproxy_pass $to/x;
        """),
    "numeric": scene("set $to %{origin}; myproxy_pass http://$to;", b"x"),
    "listed": scene("set $to app; myproxy_pass http://$to;",
                    http=UPSTREAM % "zone z 64k; reuse on;"),
    "limited": scene(PASS, http=UPSTREAM
                     % "reuse_limit 1 queue=10 timeout=5s;"),
    "aged": scene(PASS, http=UPSTREAM % "reuse_max_age 60s; reuse_probe on;"),
    "secure": scene("""
        myproxy_ssl_verify off; myproxy_ssl_server_name on;
        myproxy_ssl_name $host; myproxy_pass https://app;
        """, http=UPSTREAM % ""),
    "secure-warm": scene("myproxy_ssl_verify off; myproxy_pass https://app;",
                         http=UPSTREAM % "reuse_warm 2;"),
    "warm": scene(PASS, http=UPSTREAM % "reuse_warm 2;"),
    "stock": scene("""
        proxy_http_version 1.1; proxy_set_header Connection "";
        proxy_pass http://app;
        """, http=UPSTREAM % "reuse on;"),
    "json": scene("reuse_status;", b"?format=json"),
    "html": scene("reuse_status;", b"?format=html"),
    "prometheus": scene("reuse_status;", b"?format=prometheus"),
    "variables": scene("""
        add_header X-Own "$reuse_connection $reuse_reason $reuse_requests
            $reuse_age $reuse_idle $reuse_fate $myproxy_host";
        myproxy_pass http://%{origin};
        """),
}

#: What the requests are sent on.
ENDINGS = ("kept", "new")


def play(nginx, request):
    """Sends it, and returns all that comes until the connection ends."""
    received = b""
    with socket.create_connection(("127.0.0.1", nginx.port()),
                                  settings.PATIENCE) as sock:
        try:
            sock.sendall(request)
            while data := sock.recv(65536):
                received += data
        except (ConnectionResetError, BrokenPipeError):
            pass
    return received


def is_good(response):
    """It is complete."""
    if not response.startswith(b"HTTP/1.1 200 OK"):
        return False
    head, body = response.split(b"\r\n\r\n", 1)
    if b"Transfer-Encoding: chunked" in head:
        return b"\r\n0\r\n" in body and body.endswith(b"\r\n\r\n")
    return b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"


def sums_hold(nginx):
    found = nginx.status()["total"]["connections"]
    return (found["opened"] == found["open"] + found["closed"]
            and found["open"] == found["idle"])


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", SCENES)
@pytest.mark.timeout(240)
def test_each_call_fails_once(stage, name, ending):
    config, answer, request = SCENES[name]
    if ending == "new":
        answer = answer.replace(
            b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n")

    def script(conn):
        try:
            for _ in conn.each_request():
                conn.send(answer)
                if ending == "new":
                    return
        except (ConnectionError, Truncated):
            pass    # half a request

    memory = NoMemory(stage)
    stage.origin(script, tls="app" if "secure" in name else None)
    stage.dns({"app.test": ["127.0.0.1"]})
    nginx = stage.nginx(module=memory.module, env=memory.env, **config)
    worker = int(nginx.get("/", port="probe").body)
    assert is_good(play(nginx, request))
    play(nginx, request)
    memory.arm(0)
    play(nginx, request)
    calls = memory.calls
    assert calls
    held = descriptors(worker)
    failed = 0
    for number in range(1, calls + 20):
        memory.arm(number)
        play(nginx, request)
        failed += bool(memory.failed)
        memory.arm(0)
        assert is_good(play(nginx, request)), memory.failed
    assert failed
    assert int(nginx.get("/", port="probe").body) == worker
    stage.wait_until(lambda: sums_hold(nginx))
    stage.wait_until(lambda: descriptors(worker) <= held + 8)


CONFIG = {
    "main": "env A;",
    "http": """
        upstream app {
            server 127.0.0.1:1; server 127.0.0.2:1 backup;
            zone app 64k; least_conn; keepalive 8;
            reuse_limit 3 queue=10 timeout=5s; reuse_warm auto;
            reuse_max_age 60s; reuse_probe on; reuse_expiry 5s;
        }
        upstream other { server 127.0.0.1:2; reuse_warm 2; }
        log_format a "$reuse_connection $reuse_fate $myproxy_host";
        myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;
        myproxy_set_header X-All 1; myproxy_hide_header X-Hidden;
        reuse_zone 1m; reuse_sessions 256k; reuse_retry on;
    """,
    "server": """
        location /a/ {
            myproxy_pass https://app/; myproxy_ssl_name a;
            myproxy_ssl_trusted_certificate %{authority.path};
            myproxy_ssl_verify off; myproxy_ssl_protocols TLSv1.2;
            myproxy_cookie_domain a b; myproxy_cookie_domain ~a $arg_a;
            myproxy_cookie_path /a /b; myproxy_cookie_flags a secure;
            myproxy_redirect default; myproxy_redirect ~a $arg_a;
        }
        location /b/ {
            myproxy_pass http://$arg_a; myproxy_set_body $arg_a;
            myproxy_method GET; myproxy_bind $arg_a;
            myproxy_set_header X-Own $arg_a; myproxy_upgrade websocket foo;
            myproxy_pass_header X-A; myproxy_ignore_headers Expires;
            myproxy_cache zone; myproxy_cache_key $arg_a;
            myproxy_cache_valid 1m; myproxy_cache_bypass $arg_a;
            myproxy_no_cache $arg_a;
        }
        location ~ /c { myproxy_pass http://127.0.0.1:3;
                        myproxy_store %{prefix}/$arg_a; }
        location /d/ { myproxy_pass http://other;
                       if ($arg_a) { myproxy_pass http://app; }
                       limit_except GET { deny all; } }
        location /reuse { reuse_status servers=10; }
    """,
}


@pytest.mark.timeout(240)
def test_each_call_fails_once_while_the_configuration_is_read(stage):
    """nginx -t says that, and does not crash."""
    memory = NoMemory(stage)

    def read():
        return stage.config_test(module=memory.module, env=memory.env,
                                 **CONFIG)

    code, said = read()
    assert code == 0, said
    unnoticed = set()
    for number in range(1, memory.calls + 1):
        memory.arm(number)
        code, said = read()
        assert code in (0, 1), f"{memory.failed}: {said}"
        # certificates that cannot be read are those of nobody else
        if code == 0 and "ssl_digest.c" not in memory.failed:
            unnoticed.add(memory.failed)
    assert unnoticed == set()
