"""TLS sessions that all workers have together, also after a reload."""

import ctypes
import os
import re
import socket
import ssl
import subprocess
import threading

import pytest

from harness import http1, tls
from harness.secured import (
    APP, CLOSING, NAME, PASS, TRUST, revocation_list)
from harness.wire import Truncated

#: How the origin lets sessions be resumed.
MODES = {
    "TLS 1.2, session IDs": {"maximum": ssl.TLSVersion.TLSv1_2,
                             "tickets": False},
    "TLS 1.2, tickets": {"maximum": ssl.TLSVersion.TLSv1_2},
    "TLS 1.3, tickets": {"maximum": ssl.TLSVersion.TLSv1_3},
}

PID = "add_header X-Pid $pid;"


def modes(test):
    return pytest.mark.parametrize("mode", list(MODES.values()),
                                   ids=list(MODES))(test)


def closing_origin(stage, authority, mode=MODES["TLS 1.3, tickets"], **more):
    return stage.origin(ending, tls=tls.Server(authority.issue(NAME), **mode),
                        **more)


def ending(conn):
    """Without an end in TLS OpenSSL would forget the session's ID."""
    conn.serve(CLOSING)
    conn.sock.unwrap()


def resumed(origin):
    return [conn.session_reused for conn in origin.conns]


def ready(stage, nginx):
    """The workers, none of which holds the lock with which they begin."""
    wanted = nginx.config["workers"]

    def found():
        pids = nginx.workers()
        return pids if (len(pids) == wanted
                        and nginx.status()["workers"] == wanted) else None
    return stage.wait_until(found)


def get_from(nginx, worker, target="/"):
    """Have this worker answer, and no other."""
    others = [pid for pid in nginx.workers() if pid != worker]
    for pid in others:
        nginx.pause_worker(pid)
    response = nginx.get(target)
    for pid in others:
        nginx.resume_worker(pid)
    assert response.status == 200
    assert response.header("X-Pid") == str(worker)


# workers

@modes
def test_all_workers_resume_the_session_of_one(stage, authority, mode):
    origin = closing_origin(stage, authority, mode)
    nginx = stage.nginx(http=APP, location=PASS + TRUST + PID, workers=8)
    for worker in ready(stage, nginx) * 2:
        get_from(nginx, worker)
    assert resumed(origin) == [False] + [True] * 15


@modes
def test_many_connections_at_a_time_resume_one_session(stage, authority,
                                                       mode):
    origin = closing_origin(stage, authority, mode)
    nginx = stage.nginx(http=APP, location=PASS + TRUST + PID, workers=8)
    assert nginx.get().status == 200
    found = []

    def ask():
        for _ in range(5):
            response = nginx.get()
            found.append((response.status, response.header("X-Pid")))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _ in found} == {200}
    assert len({pid for _, pid in found}) > 1
    assert resumed(origin) == [False] + [True] * 80


@modes
def test_a_worker_that_is_killed_takes_no_session_along(stage, authority,
                                                        mode):
    origin = closing_origin(stage, authority, mode)
    nginx = stage.nginx(http=APP, location=PASS + TRUST + PID, workers=2)
    nginx.expect_kills()
    first, second = ready(stage, nginx)
    get_from(nginx, first)
    nginx.kill_worker(first)
    stage.wait_until(lambda: first not in nginx.workers())
    new, = set(ready(stage, nginx)) - {second}
    get_from(nginx, new)
    get_from(nginx, second)
    assert resumed(origin) == [False, True, True]


def test_workers_that_are_killed_at_any_moment(stage, authority):
    """Whatever one was about to do, the others go on."""
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, location=PASS + TRUST, workers=4)
    nginx.expect_kills()
    over = threading.Event()

    def ask():
        while not over.is_set():
            try:
                nginx.get()
            except (OSError, Truncated):
                pass

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        stage.wait_until(lambda: len(nginx.workers()) == 4)
        count = origin.connections
        stage.wait_until(lambda n=count: origin.connections > n + 2)
        nginx.kill_worker(nginx.workers()[0])
    stage.wait_until(lambda: len(nginx.workers()) == 4)
    over.set()
    for thread in threads:
        thread.join()
    before = origin.connections
    for _ in range(2):
        assert nginx.get().status == 200
    assert resumed(origin)[before:] == [True, True]


def test_warm_connections_resume_the_session_of_another_worker(
        stage, authority):
    origin = stage.origin(tls=tls.Server(authority.issue(NAME)))
    nginx = stage.nginx(
        http="upstream origin.test { server %{origin}; reuse_warm 2; }",
        location=PASS + TRUST, workers=2)
    stage.wait_until(lambda: origin.connections == 2)
    assert nginx.get().status == 200
    stage.wait_until(lambda: origin.connections >= 3)
    nginx.kill_worker(nginx.workers()[0])
    nginx.expect_kills()
    count = origin.connections
    stage.wait_until(lambda: origin.connections > count
                     and origin.conns[count].session_reused is not None)
    assert origin.conns[count].session_reused


# which session

def test_names_do_not_share_a_session(stage, authority):
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, location=PASS + PID + """
        myproxy_ssl_verify off;
        myproxy_ssl_name $arg_name;
    """, workers=2)
    first, second = ready(stage, nginx)
    for worker, name in [(first, "one"), (second, "two"), (second, "one"),
                         (first, "two")]:
        get_from(nginx, worker, f"/?name={name}.test")
    assert [conn.sni for conn in origin.conns] == [
        "one.test", "two.test", "one.test", "two.test"]
    assert resumed(origin) == [False, False, True, True]


def test_servers_do_not_share_a_session(stage, authority):
    context = tls.Server(authority.issue(NAME))
    first = stage.origin(CLOSING, name="first", tls=context)
    second = stage.origin(CLOSING, name="second", tls=context)
    nginx = stage.nginx(
        http="upstream origin.test { server %{first}; server %{second}; }",
        location=PASS + TRUST)
    for _ in range(4):
        assert nginx.get().status == 200
    assert resumed(first) == resumed(second) == [False, True]


def test_a_ticket_is_not_used_twice_if_there_is_another(stage, authority):
    """So are origins resumed that take each only once."""
    hellos = []

    class Peeking(tls.Server):
        def wrap(self, conn):
            hellos.append(hello(conn.sock))
            return super().wrap(conn)

    origin = stage.origin(CLOSING, tls=Peeking(authority.issue(NAME)))
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    for count in (2, 2, 2, 2, 0, 0, 0):
        origin.tls.context.num_tickets = count
        assert nginx.get().status == 200
    assert resumed(origin) == [False] + [True] * 6
    offered = [psk_identity(data) for data in hellos]
    assert offered[0] is None
    assert len(set(offered[:6])) == 6
    assert offered[6] in offered[4:6]


def hello(sock):
    """The ClientHello, left in the socket."""
    data = b""
    while len(data) < 5 or len(data) < 5 + int.from_bytes(data[3:5], "big"):
        data = sock.recv(16384, socket.MSG_PEEK)
    return data


def psk_identity(data):
    """The first ticket in a ClientHello; None if there is none."""
    at = 5 + 4 + 2 + 32
    at += 1 + data[at]
    at += 2 + int.from_bytes(data[at:at + 2], "big")
    at += 1 + data[at] + 2
    while at < len(data):
        kind, size = (int.from_bytes(data[at + i:at + i + 2], "big")
                      for i in (0, 2))
        if kind == 41:
            length = int.from_bytes(data[at + 6:at + 8], "big")
            return data[at + 8:at + 8 + length]
        at += 4 + size
    return None


def test_a_session_that_has_expired_is_not_offered(stage, authority):
    offered = []

    class Peeking(tls.Server):
        def wrap(self, conn):
            offered.append(hello(conn.sock)[43] != 0)
            return super().wrap(conn)

    server = Peeking(authority.issue(NAME), **MODES["TLS 1.2, tickets"])
    set_timeout(server.context, 2)
    stage.origin(CLOSING, tls=server)
    nginx = stage.nginx(http=APP, location=PASS + TRUST
                        + "myproxy_ssl_protocols TLSv1.2;")
    for _ in range(2):
        assert nginx.get().status == 200
    stage.let_pass(3)
    assert nginx.get().status == 200
    assert offered == [False, True, False]


def set_timeout(context, seconds):
    """What the origin says of the life of its tickets."""
    library = re.search(r"\S+/libssl\.so\S*", open("/proc/self/maps",
                                                   encoding="ascii").read())
    ctx = ctypes.c_void_p.from_address(id(context) + 16)
    ctypes.CDLL(library.group()).SSL_CTX_set_timeout(ctx,
                                                     ctypes.c_long(seconds))


@modes
def test_a_session_that_breaks_handshakes_is_forgotten(stage, authority,
                                                       mode):
    class Broken(tls.Server):
        """It closes connections without a word."""

        def wrap(self, conn):
            hello(conn.sock)
            raise ConnectionError("as was wanted")

    origin = closing_origin(stage, authority, mode)
    sound = origin.tls
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    nginx.expect_log(r"\[error\]")
    assert nginx.get().status == 200
    origin.tls = Broken(authority.issue(NAME))
    assert nginx.get().status == 502
    origin.tls = sound
    for _ in range(2):
        assert nginx.get().status == 200
    assert resumed(origin) == [False, None, False, True]


def test_a_full_handshake_outdates_what_was_there(stage, authority):
    """An origin that has new keys does not know any older ticket."""
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    for _ in range(3):
        assert nginx.get().status == 200
    origin.tls = tls.Server(authority.issue(NAME))
    for count in (2, 0, 0, 0):
        origin.tls.context.num_tickets = count
        assert nginx.get().status == 200
    assert resumed(origin) == [False, True, True, False, True, True, True]


@pytest.mark.parametrize("damage", [b"\x31", b"\x30\x03\x02\x01\x07"],
                         ids=["no sequence", "another"])
def test_a_broken_session_is_not_used(stage, authority, damage):
    origin = closing_origin(stage, authority, MODES["TLS 1.2, tickets"])
    nginx = stage.nginx(http="reuse_sessions 304k;" + APP,
                        location=PASS + TRUST)
    nginx.expect_log(r"a session of \d+ bytes is broken")
    assert nginx.get().status == 200
    spoil(nginx.workers()[0], 304 * 1024, damage)
    for _ in range(2):
        assert nginx.get().status == 200
    assert resumed(origin) == [False, False, True]
    assert nginx.logged(r"a session of \d+ bytes is broken")


def spoil(pid, size, damage):
    """Write over the sessions in the shared memory of that size."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as file:
        areas = [[int(end, 16) for end in line.split()[0].split("-")]
                 for line in file if " rw-s " in line]
    (start, end), = [area for area in areas if area[1] - area[0] == size]
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        data = memory.read(end - start)
        found = [match.start() for match
                 in re.finditer(rb"\x30\x82..\x02\x01\x01\x02", data, re.S)]
        assert found
        for offset in found:
            memory.seek(start + offset)
            memory.write(damage)


# room

def test_the_session_that_was_not_used_for_longest_goes(stage, authority):
    origin = closing_origin(stage, authority, MODES["TLS 1.2, tickets"])
    nginx = stage.nginx(http="reuse_sessions 256k;" + APP, location=PASS + """
        myproxy_ssl_verify off;
        myproxy_ssl_name $arg_name;
    """)

    def ask(number):
        assert nginx.get(f"/?name=n{number}.test").status == 200
        return resumed(origin)[-1]

    assert not any(ask(number) for number in range(16))
    assert ask(0)
    assert not ask(16)
    assert ask(0)
    assert ask(2)
    assert not ask(1)


@pytest.mark.parametrize("lines, why", [
    ("reuse_sessions 255k;", '"255k" of "reuse_sessions": .* at least "256k"'),
    ("reuse_sessions x;", '"x" of "reuse_sessions"'),
    ("reuse_sessions;", 'number of arguments in "reuse_sessions"'),
    ("reuse_sessions 1m; reuse_sessions 1m;",
     '"reuse_sessions" directive is duplicate'),
])
def test_reuse_sessions_refuses(stage, lines, why):
    stage.origin()
    code, log = stage.config_test(http=lines, location=PASS)
    assert code == 1
    assert re.search(why, log)


# reloads

@modes
def test_sessions_outlive_reloads(stage, authority, mode):
    origin = closing_origin(stage, authority, mode)
    nginx = stage.nginx(http=APP, location=PASS + TRUST + PID, workers=2)
    for _ in range(4):
        for worker in ready(stage, nginx):
            get_from(nginx, worker)
        nginx.reload()
    assert resumed(origin) == [False] + [True] * 7


def test_kept_connections_are_replaced_by_resumed_ones_at_a_reload(
        stage, authority):
    """Without a new connection to the origin in the old workers."""
    origin = stage.origin(tls=tls.Server(authority.issue(NAME)))
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    for _ in range(3):
        for _ in range(3):
            assert nginx.get().status == 200
        nginx.reload()
    assert origin.carried == [3, 3, 3]
    assert resumed(origin) == [False, True, True]


def other_ca(stage, authority, tmp_path):
    bundle = tmp_path / "both.crt"
    other = tls.Authority(tmp_path, "Other CA")
    bundle.write_bytes(open(authority.path, "rb").read()
                       + open(other.path, "rb").read())
    return f"myproxy_ssl_trusted_certificate {bundle};", 200


def wrong_ca(stage, authority, tmp_path):
    other = tls.Authority(tmp_path, "Other CA")
    return f"myproxy_ssl_trusted_certificate {other.path};", 502


def empty_crl(stage, authority, tmp_path):
    path = revocation_list(authority, tmp_path / "crl")
    return TRUST + f"myproxy_ssl_crl {path};", 200


def crl(stage, authority, tmp_path):
    path = revocation_list(authority, tmp_path / "crl", authority.issue(NAME))
    return TRUST + f"myproxy_ssl_crl {path};", 502


def own(stage, authority, tmp_path):
    certificate = authority.issue("client.test")
    return TRUST + f"""
        myproxy_ssl_certificate {certificate.cert_path};
        myproxy_ssl_certificate_key {certificate.key_path};
    """, 200


CHANGES = {
    "one more CA": other_ca,
    "another CA": wrong_ca,
    "a CRL": empty_crl,
    "the certificate is revoked": crl,
    "a certificate": own,
    "depth": lambda *_: (TRUST + "myproxy_ssl_verify_depth 3;", 200),
    "no verification": lambda *_: ("myproxy_ssl_verify off;", 200),
    "ciphers": lambda *_: (
        TRUST + "myproxy_ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;", 200),
    "protocols": lambda *_: (
        TRUST + "myproxy_ssl_protocols TLSv1.2 TLSv1.3 TLSv1.1;", 200),
    "a command": lambda *_: (
        TRUST + "myproxy_ssl_conf_command Ciphersuites "
        "TLS_AES_128_GCM_SHA256;", 200),
    "a command for certificates": lambda *_: (
        TRUST + "myproxy_ssl_conf_command SignatureAlgorithms "
        "ECDSA+SHA256;", 200),
    "no SNI": lambda *_: (TRUST + "myproxy_ssl_server_name off;", 200),
}


@modes
@pytest.mark.parametrize("change", list(CHANGES))
def test_no_session_outlives_a_change_of(stage, authority, tmp_path, mode,
                                         change):
    origin = closing_origin(stage, authority, mode)
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    for _ in range(2):
        assert nginx.get().status == 200
    lines, status = CHANGES[change](stage, authority, tmp_path)
    nginx.expect_log(r"\[error\]")
    nginx.reload(location=PASS + lines)
    for _ in range(2):
        assert nginx.get().status == status
    assert resumed(origin)[:3] != [False, True, True]
    assert len(origin.requests) == (4 if status == 200 else 2)
    nginx.reload(location=PASS + TRUST)
    assert nginx.get().status == 200
    assert resumed(origin)[-1] is True


def test_a_session_without_verification_does_not_stand_for_one_after_a_reload(
        stage):
    origin = stage.origin(CLOSING, tls=NAME)
    nginx = stage.nginx(http=APP, location=PASS + "myproxy_ssl_verify off;")
    assert nginx.get().status == 200
    nginx.expect_log(r"\[error\]")
    other = tls.Authority(stage.path("other"), "Other CA")
    nginx.reload(location=PASS
                 + f"myproxy_ssl_trusted_certificate {other.path};")
    assert nginx.get().status == 502
    assert len(origin.requests) == 1


def test_the_file_of_a_ca_has_changed(stage, authority, tmp_path):
    """The configuration has not."""
    bundle = tmp_path / "trusted.crt"
    bundle.write_bytes(open(authority.path, "rb").read())
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(
        http=APP, location=PASS + f"myproxy_ssl_trusted_certificate {bundle};")
    assert nginx.get().status == 200
    other = tls.Authority(tmp_path / "other", "Other CA")
    # another file: nginx may take one of the same second for the same
    os.unlink(bundle)
    os.symlink(other.path, bundle)
    nginx.expect_log(r"\[error\]")
    nginx.reload()
    assert nginx.get().status == 502
    assert len(origin.requests) == 1


def test_the_ca_of_the_system(stage, authority):
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, location=PASS,
                        env={"SSL_CERT_FILE": authority.path})
    for _ in range(2):
        assert nginx.get().status == 200
        nginx.reload()
    assert resumed(origin) == [False, True]


def hashed(authority, directory):
    """The CA as OpenSSL looks for it in a directory."""
    name = subprocess.run(
        ["openssl", "x509", "-noout", "-hash", "-in", authority.path],
        check=True, capture_output=True, text=True).stdout.strip()
    path = os.path.join(directory, f"{name}.0")
    os.symlink(authority.path, path)
    return path


def test_the_directory_of_the_systems_cas(stage, authority, tmp_path):
    origin = closing_origin(stage, authority)
    hashed(authority, tmp_path)
    os.symlink(tmp_path / "nowhere", tmp_path / "00000000.0")
    nginx = stage.nginx(http=APP, location=PASS,
                        env={"SSL_CERT_FILE": "/dev/null",
                             "SSL_CERT_DIR": f"/nowhere:{tmp_path}"})
    for _ in range(2):
        assert nginx.get().status == 200
        nginx.reload()
    other = tls.Authority(tmp_path / "other", "Other CA")
    hashed(other, tmp_path)
    nginx.reload()
    assert nginx.get().status == 200
    assert resumed(origin) == [False, True, False]


def test_a_ca_that_is_gone_from_the_directory(stage, authority, tmp_path):
    origin = closing_origin(stage, authority)
    path = hashed(authority, tmp_path)
    nginx = stage.nginx(http=APP, location=PASS,
                        env={"SSL_CERT_FILE": "/dev/null",
                             "SSL_CERT_DIR": str(tmp_path)})
    assert nginx.get().status == 200
    os.unlink(path)
    nginx.expect_log(r"\[error\]")
    nginx.reload()
    assert nginx.get().status == 502
    assert len(origin.requests) == 1


def test_the_directory_that_openssl_has_by_itself(stage, authority,
                                                  monkeypatch):
    """It is read for all locations, however else they differ."""
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(
        http=APP, location=PASS, env={"SSL_CERT_FILE": authority.path},
        server=f"location /older {{ {PASS} myproxy_ssl_protocols TLSv1.2; }}")
    for _ in range(2):
        for target in ("/", "/older"):
            assert nginx.get(target).status == 200
        nginx.reload()
    assert resumed(origin) == [False, False, True, True]


def no_directory(path):
    path.write_text("")


def a_directory(path):
    path.mkdir()
    (path / "00000000.0").mkdir()


def a_circle(path):
    path.mkdir()
    os.symlink("00000000.0", path / "00000000.0")


def too_large(path):
    path.mkdir()
    with open(path / "00000000.0", "wb") as file:
        file.truncate(1024 * 1024 + 1)


@pytest.mark.parametrize("make", [no_directory, a_directory, a_circle,
                                  too_large])
def test_a_directory_that_cannot_be_read(stage, authority, tmp_path, make):
    """What OpenSSL trusts is not known: only workers share sessions then."""
    origin = closing_origin(stage, authority)
    make(tmp_path / "certs")
    nginx = stage.nginx(http=APP, location=PASS + PID, workers=2,
                        env={"SSL_CERT_FILE": authority.path,
                             "SSL_CERT_DIR": str(tmp_path / "certs")})
    for worker in ready(stage, nginx):
        get_from(nginx, worker)
    nginx.reload()
    assert nginx.get().status == 200
    assert resumed(origin) == [False, True, False]


def test_a_session_that_is_too_large(stage, authority):
    """It holds the certificate, which is as large as an origin likes."""
    names = [f"name-{number:04}.of-many.test" for number in range(400)]
    origin = stage.origin(ending, tls=tls.Server(
        authority.issue(NAME, *names)))
    nginx = stage.nginx(http=APP, location=PASS + TRUST)
    for _ in range(2):
        assert nginx.get().status == 200
    assert resumed(origin) == [False, False]


def test_a_command_that_is_not_known(stage, authority, tmp_path):
    """It may have to do with trust: only workers share sessions then."""
    hashed(authority, tmp_path)
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, location=PASS + PID + TRUST + f"""
        myproxy_ssl_conf_command VerifyCAPath {tmp_path};
    """, workers=2)
    for worker in ready(stage, nginx):
        get_from(nginx, worker)
    nginx.reload()
    for worker in ready(stage, nginx):
        get_from(nginx, worker)
    assert resumed(origin) == [False, True, False, True]


def test_a_certificate_by_variable_is_only_known_by_name(stage, authority):
    certificate = authority.issue("client.test")
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(http=APP, location=PASS + PID + TRUST + f"""
        set $name {certificate.cert_path};
        myproxy_ssl_certificate $name;
        myproxy_ssl_certificate_key {certificate.key_path};
    """, workers=2)
    for worker in ready(stage, nginx):
        get_from(nginx, worker)
    nginx.reload()
    for worker in ready(stage, nginx):
        get_from(nginx, worker)
    assert resumed(origin) == [False, True, False, True]


@pytest.mark.parametrize("lines, after", [
    ("", True),
    ("proxy_ssl_verify on; proxy_ssl_trusted_certificate %{authority.path};",
     False)], ids=["without", "with"])
def test_other_handlers_with_verification(stage, authority, lines, after):
    """Of theirs it is not known whom they trust."""
    origin = closing_origin(stage, authority)
    nginx = stage.nginx(
        http="upstream origin.test { server %{origin}; reuse on; }",
        location="proxy_pass https://origin.test; proxy_ssl_server_name on;"
        + PID + lines, workers=2)
    for _ in range(2):
        for worker in ready(stage, nginx):
            get_from(nginx, worker)
        nginx.reload()
    assert resumed(origin) == [False, True, after, True]


def test_a_failed_verification_leaves_no_session_for_anybody(stage):
    """Not for the location that would be content with it either."""
    origin = stage.origin(CLOSING, tls="elsewhere.test")
    nginx = stage.nginx(http=APP, workers=2, server=f"""
        {TRUST} {PID}
        location /one {{ {PASS} }}
        location /two {{ {PASS} myproxy_ssl_verify off; }}
    """)
    nginx.expect_log(r"\[error\]")
    for _ in range(3):
        assert nginx.get("/one").status == 502
    for _ in range(2):
        assert nginx.get("/two").status == 200
    nginx.reload()
    assert nginx.get("/one").status == 502
    assert len(origin.requests) == 2
    assert not any(conn.session_reused for conn in origin.conns[:4])
