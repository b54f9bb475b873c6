"""Empty values: each argument of each directive, one after the other.

nginx -t refuses it with the remedy, or it has a meaning and requests are
served.  What is accepted stands in a table: a directive that comes to accept
an empty value fails here until somebody has thought of what it means.
"""

import functools
import os

import pytest

from harness import http1, settings, tables, tls
from harness.nginx import version

HEADER = settings.ROOT / "src/ngx_http_myproxy_compat.h"
TABLES = [settings.ROOT / "src/proxy/ngx_http_myproxy_directives.c",
          settings.ROOT / "src/reuse/ngx_http_upstream_reuse_module.c"]

#: Arguments that are right, each of which is made empty in turn.
ARGUMENTS = {
    "myproxy_bind": ["127.0.0.1", "127.0.0.1 transparent"],
    "myproxy_buffers": ["8 4k"],
    "myproxy_cache_bypass": ["$arg_a", "$arg_a $arg_b"],
    "myproxy_cache_methods": ["GET", "GET POST"],
    "myproxy_cache_path": ["%{prefix}/c keys_zone=y:1m",
                           "%{prefix}/c levels=1 keys_zone=y:1m"],
    "myproxy_cache_use_stale": ["error", "error timeout"],
    "myproxy_cache_valid": ["1m", "200 1m"],
    "myproxy_cookie_domain": ["off", "a b", "~a b"],
    "myproxy_cookie_flags": ["off", "a secure", "a secure httponly",
                             "~a secure"],
    "myproxy_cookie_path": ["off", "/a /b", "~/a /b"],
    "myproxy_ignore_headers": ["Expires", "Expires Vary"],
    "myproxy_next_upstream": ["error", "error timeout"],
    "myproxy_no_cache": ["$arg_a", "$arg_a $arg_b"],
    "myproxy_redirect": ["off", "http://a/ /b", "~a /b"],
    "myproxy_set_header": ["X-A 1", "Host a", "Connection a", "Upgrade a",
                           "Content-Length 1"],
    "myproxy_ssl_certificate_cache": ["off", "max=1 valid=1s",
                                      "max=1 valid=1s inactive=1s"],
    "myproxy_ssl_conf_command": ["Options PrioritizeChaCha"],
    "myproxy_ssl_protocols": ["TLSv1.2", "TLSv1.2 TLSv1.3"],
    "myproxy_store_access": ["user:rw", "user:rw group:rw",
                             "user:rw group:rw all:rw"],
    "myproxy_temp_path": ["%{prefix}/t", "%{prefix}/t 1",
                          "%{prefix}/t 1 2", "%{prefix}/t 1 2 3"],
    "myproxy_upgrade": ["websocket", "websocket a"],
}

#: What is accepted, and what it means.
MEANINGS = {
    # an empty string is not true
    "myproxy_cache_bypass": ['""', '"" ""', '"" $arg_b', '$arg_a ""'],
    "myproxy_no_cache": ['""', '"" ""', '"" $arg_b', '$arg_a ""'],
    # the empty prefix begins every value; what is replaced may vanish
    "myproxy_cookie_domain": ['"" ""', '"" b', 'a ""', '~a ""'],
    "myproxy_cookie_path": ['"" ""', '"" /b', '/a ""', '~/a ""'],
    "myproxy_redirect": ['"" ""', '"" /b', 'http://a/ ""', '~a ""'],
    # a cookie may have no name (RFC 6265bis)
    "myproxy_cookie_flags": ['"" secure', '"" secure httponly'],
    # a body of no bytes; a field that is not sent
    "myproxy_set_body": ['""'],
    "myproxy_set_header": ['X-A ""', 'Connection ""', 'Upgrade ""',
                           'Content-Length ""'],
    # none, whatever an outer level has; the CAs are the system's then
    "myproxy_ssl_certificate": ['""'],
    "myproxy_ssl_certificate_key": ['""'],
    "myproxy_ssl_crl": ['""'],
    "myproxy_ssl_trusted_certificate": ['""'],
}

CANNOT = r'the value of "%s" cannot be empty: '

#: The remedy, where nginx says no more than that the value is wrong.
REMEDIES = {
    'myproxy_cache "";': '"myproxy_cache" zone "" is unknown: define it with',
    'myproxy_cookie_flags a "";':
        'a flag of "myproxy_cookie_flags" cannot be empty: remove it',
    "myproxy_method": CANNOT + "remove the line to send the client's method",
    "myproxy_temp_path": CANNOT + "name a directory that is for temporary",
    "myproxy_pass_header": CANNOT + "write the name of a field",
    "myproxy_hide_header": CANNOT + "write the name of a field",
    "myproxy_store": CANNOT + 'write "off" to store nothing',
    "myproxy_cache_key": CANNOT + "all requests would have the same response",
    "myproxy_cache_path": CANNOT + "name a directory that is for the cache",
    "myproxy_ssl_ciphers": CANNOT + 'write "DEFAULT"',
    "myproxy_ssl_name": CANNOT + "no certificate has an empty name; write",
    "myproxy_ssl_password_file": CANNOT + "name a file; to use no passwords",
}


@functools.lru_cache()
def directives():
    defined = tables.macros(HEADER.read_text(), tables.number(version()))
    found = {}
    for path in TABLES:
        found.update(tables.directives(path.read_text(), defined))
    return found


def empty_lines(name):
    """The directive with one argument empty, and with all of them."""
    if "NGX_CONF_NOARGS" in directives()[name][1]:
        return []
    lines = set()
    for words in (line.split() for line in ARGUMENTS.get(name, ["x"])):
        lines.add(" ".join(['""'] * len(words)))
        lines.update(" ".join(words[:i] + ['""'] + words[i + 1:])
                     for i in range(len(words)))
    return sorted(lines)


EVERY = [(name, words) for name in sorted(directives())
         for words in empty_lines(name)]

#: Two locations, of which one speaks TLS, with that line in both.
HTTP = """
    myproxy_cache_path %{{prefix}}/cache keys_zone=z:1m;
    upstream origin.test {{ server %{{secure}}; }}
    {}
"""
SERVER = """
    location / {{ myproxy_pass http://%{{origin}}; {0} }}
    location /tls {{
        myproxy_pass https://origin.test;
        myproxy_ssl_trusted_certificate %{{authority.path}};
        {0}
    }}
"""


def place(name, words):
    """The configuration with that line where it is allowed."""
    line = f"{name} {words};"
    if name == "myproxy_pass":
        return {"http": HTTP.format(""), "location": line}
    if "location" not in directives()[name][0]:
        return {"http": HTTP.format(line), "server": SERVER.format("")}
    if name.startswith("myproxy_cache_"):
        line += "myproxy_cache z; myproxy_cache_valid 1m;"
    if name == "myproxy_cache_valid":
        line = line.replace("myproxy_cache_valid 1m;", "")
    server = SERVER.format(line)
    if name == "myproxy_ssl_trusted_certificate":
        server = server.replace("myproxy_ssl_trusted_certificate %{", "#%{")
        return {"http": HTTP.format("myproxy_ssl_trusted_certificate "
                                    "%{authority.path};"), "server": server}
    return {"http": HTTP.format(""), "server": server}


def test_the_tables_name_what_there_is():
    known = set(directives())
    assert set(ARGUMENTS) <= known | {"myproxy_ssl_certificate_cache"}
    assert set(MEANINGS) <= known
    assert len(EVERY) > 150


@pytest.mark.parametrize("name, words", [
    (name, words) for name, words in EVERY
    if words not in MEANINGS.get(name, ())])
def test_an_empty_value_is_refused(stage, name, words):
    stage.origin()
    stage.origin(name="secure", tls="origin.test")
    code, text = stage.config_test(**place(name, words))
    assert code == 1
    assert "[emerg]" in text
    line = f"{name} {words};"
    if line in REMEDIES:
        assert REMEDIES[line] in text
    elif words.startswith('""') and name in REMEDIES:
        assert REMEDIES[name].replace("%s", name) in text
        assert "nginx.conf:" in text


@pytest.mark.parametrize("name, words", [
    (name, words) for name, words in EVERY
    if words in MEANINGS.get(name, ())])
def test_an_empty_value_serves_requests(stage, name, words):
    stage.origin(http1.response(
        200, "Set-Cookie: a=b; Domain=a; Path=/a/b", "Location: http://a/b",
        "Cache-Control: max-age=60", body=b"hello"))
    stage.origin(name="secure", tls="origin.test")
    nginx = stage.nginx(**place(name, words))
    # against the system's CAs, which do not know ours
    secure = 502 if name == "myproxy_ssl_trusted_certificate" else 200
    for _ in range(2):
        for path, status in (("/", 200), ("/tls", secure)):
            client = nginx.connect()
            assert client.get(path).status == status
            assert client.post(path, b"body").status == status
            assert client.request("HEAD", path).status == status


@pytest.mark.parametrize("level", ["http", "server"])
def test_an_empty_certificate_cancels_that_of_an_outer_level(stage, level):
    server = tls.Server(stage.authority.issue("origin.test"),
                        client_ca=stage.authority.path, optional=True)
    origin = stage.origin(name="secure", tls=server)
    certificate = stage.authority.issue("client.test")
    outer = (f"myproxy_ssl_certificate {certificate.cert_path};"
             f"myproxy_ssl_certificate_key {certificate.key_path};"
             "myproxy_ssl_trusted_certificate %{authority.path};")
    config = {"http": "upstream origin.test { server %{secure}; }",
              "server": """
        location /with { myproxy_pass https://origin.test; }
        location /without {
            myproxy_pass https://origin.test;
            myproxy_ssl_certificate "";
            if ($arg_a) { add_header X-A 1; }
        }
        location /neither {
            myproxy_pass https://origin.test;
            myproxy_ssl_certificate "";
            myproxy_ssl_certificate_key "";
        }
    """}
    config[level] += outer
    nginx = stage.nginx(**config)
    for path in ("/with", "/without", "/without?a=1", "/neither", "/with"):
        assert nginx.get(path).status == 200
    assert [bool(conn.client_certificate) for conn in origin.conns] == [
        True, False, *[False] * (len(origin.conns) - 2)]


def test_a_certificate_with_an_empty_key_is_refused(stage):
    stage.origin(name="secure", tls="origin.test")
    certificate = stage.authority.issue("client.test")
    code, text = stage.config_test(location=f"""
        myproxy_pass https://localhost:%{{secure.port}};
        myproxy_ssl_certificate {certificate.cert_path};
        myproxy_ssl_certificate_key "";
    """)
    assert code == 1
    assert 'no "myproxy_ssl_certificate_key" is defined' in text


def test_a_store_whose_path_comes_out_empty(stage):
    stage.origin(http1.response(200, "X-Name: a.txt", body=b"hello"))
    nginx = stage.nginx(location="""
        myproxy_pass http://%{origin};
        myproxy_store $arg_path$arg_name;
    """)
    for _ in range(2):
        assert nginx.get("/").body == b"hello"
    assert len(nginx.logged(r"\[error\].* the response is not stored: the "
                            'path that "myproxy_store" has for it is empty'
                            )) == 2
    before = set(os.listdir(nginx.prefix))
    path = os.path.join(nginx.prefix, "stored", "a.txt")
    assert nginx.get(f"/?path={nginx.prefix}/stored/&name=a.txt"
                     ).body == b"hello"
    stage.wait_until(lambda: os.path.exists(path))
    assert set(os.listdir(nginx.prefix)) - before == {"stored"}


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_a_store_whose_path_comes_of_a_field_that_is_left_out(
        stage, buffering):
    """A GET that is sent as HEAD has no length when it is stored."""
    stage.origin(http1.response(200, "Content-Length: 5", body=b""))
    nginx = stage.nginx(location=f"""
        myproxy_pass http://%{{origin}};
        myproxy_method HEAD;
        myproxy_buffering {buffering};
        myproxy_store $upstream_http_content_length;
    """)
    assert nginx.get("/").status == 200
    assert nginx.logged(r"\[error\].* the response is not stored: the path ")
    assert not nginx.logged(r"\[crit\]")


@pytest.mark.parametrize("line", [
    "myproxy_ssl_certificate $none; myproxy_ssl_certificate_key $none;",
    "myproxy_bind $none;", "myproxy_cache $none;", "myproxy_ssl_crl '';",
    "myproxy_set_body $none;", "myproxy_set_header X-A $none;",
    "myproxy_cookie_domain $none $none;", "myproxy_cookie_path $none $none;",
    "myproxy_cookie_flags a $none;", "myproxy_redirect $none $none;"])
def test_values_that_come_out_empty(stage, line):
    stage.origin(http1.response(
        200, "Set-Cookie: a=b; Domain=a; Path=/a/b", "Location: http://a/b",
        body=b"hello"))
    stage.origin(name="secure", tls="origin.test")
    nginx = stage.nginx(
        http=HTTP.format("map $uri $none { default ''; }"),
        server=SERVER.format(line))
    for path in ("/", "/tls"):
        assert nginx.get(path).status == 200
        assert nginx.post(path, b"body").status == 200
