"""The configuration: what is wrong is named with its remedy, what is right
reaches the level that it is meant for."""

import re

import pytest

from harness.nginx import version
from harness.written import LEVELS, PASS, check


def place(stage, text):
    """The line of nginx.conf on which a text stands."""
    lines = stage.nginxes[-1].text.splitlines()
    found, = [number for number, line in enumerate(lines, 1) if text in line]
    return f"/nginx.conf:{found}\n"


# wrong lines, each found where it stands

WRONG = [
    # the pass
    ("myproxy_pass http://%{origin};",
     '"myproxy_pass" directive is duplicate'),
    ("myproxy_pass http://$host;",
     '"myproxy_pass" directive is duplicate'),
    # request
    ("myproxy_http_version 2;",
     '"myproxy_http_version 2" is not supported: this module speaks '
     'HTTP/1.1, for HTTP/2 to the origin use "proxy_pass" with '
     '"proxy_http_version 2"'),
    ("myproxy_http_version 3;",
     'invalid value "3" in "myproxy_http_version", it must be "1.1" or '
     '"1.0"'),
    ("myproxy_http_version 1;",
     'invalid value "1" in "myproxy_http_version", it must be'),
    ("myproxy_http_version HTTP/1.1;",
     'invalid value "HTTP/1.1" in "myproxy_http_version", it must be'),
    ("myproxy_upgrade off websocket;",
     'invalid protocol "off" in "myproxy_upgrade", write "off" alone, or '
     'names as in the Upgrade field, each as an argument'),
    ("myproxy_upgrade on;",
     '"on" in "myproxy_upgrade" is not a protocol: remove the directive, '
     'WebSocket passes without it, or write "myproxy_upgrade websocket"'),
    ("myproxy_upgrade websocket,foo;",
     'invalid protocol "websocket,foo" in "myproxy_upgrade"'),
    ('myproxy_upgrade "websocket foo";',
     'invalid protocol "websocket foo" in "myproxy_upgrade"'),
    ('myproxy_upgrade "";',
     'invalid protocol "" in "myproxy_upgrade"'),
    ('myproxy_set_header "" x;',
     'invalid name "" in "myproxy_set_header", a field name has letters, '
     'digits and hyphens, and no colon'),
    ("myproxy_set_header X-A: x;",
     'invalid name "X-A:" in "myproxy_set_header"'),
    ('myproxy_set_header "X A" x;',
     'invalid name "X A" in "myproxy_set_header"'),
    ("myproxy_set_header X(A) x;",
     'invalid name "X(A)" in "myproxy_set_header"'),
    ("myproxy_set_header X-\xc4 x;",
     'in "myproxy_set_header", a field name has letters'),
    ('myproxy_set_header Host "";',
     '"myproxy_set_header Host" cannot be empty: a request needs a Host; '
     "remove the line to send the client's own"),
    ('myproxy_set_header hOST "";',
     '"myproxy_set_header Host" cannot be empty'),
    ("myproxy_set_header X-A;",
     'invalid number of arguments in "myproxy_set_header" directive'),
    # rewriting
    ("myproxy_redirect http://a/;",
     'invalid parameter "http://a/" in "myproxy_redirect", write "off", '
     '"default" or two values'),
    ("myproxy_redirect ~( /;", "missing closing parenthesis"),
    ("myproxy_cookie_domain example.test;",
     'invalid parameter "example.test" in "myproxy_cookie_domain", write '
     '"off" or two values'),
    ("myproxy_cookie_path /;",
     'invalid parameter "/" in "myproxy_cookie_path", write "off" or two '
     'values'),
    ("myproxy_cookie_domain ~( x;", "missing closing parenthesis"),
    ("myproxy_cookie_path ~( x;", "missing closing parenthesis"),
    ("myproxy_cookie_flags secure;",
     'invalid parameter "secure" in "myproxy_cookie_flags", write "off", '
     'or a cookie and its flags'),
    ("myproxy_cookie_flags ~( secure;", "missing closing parenthesis"),
    ("myproxy_cookie_flags a secure httponly samesite nosecure;",
     'invalid number of arguments in "myproxy_cookie_flags" directive'),
    # values
    ("myproxy_read_timeout soon;",
     '"myproxy_read_timeout" directive invalid value'),
    ("myproxy_buffers 8;",
     'invalid number of arguments in "myproxy_buffers" directive'),
    ("myproxy_buffering perhaps;",
     'invalid value "perhaps" in "myproxy_buffering" directive, it must be '
     '"on" or "off"'),
    ("myproxy_next_upstream http_418;",
     'invalid value "http_418"'),
    ("myproxy_ignore_headers X-Nonsense;",
     'invalid value "X-Nonsense"'),
    ("myproxy_bind nonsense;", 'invalid address "nonsense"'),
    ("myproxy_nonsense on;", 'unknown directive "myproxy_nonsense"'),
    ("proxy_read_timeout soon;",
     '"proxy_read_timeout" directive invalid value'),
    # variables without a name
    ("myproxy_set_header X-A a$;", "invalid variable name"),
    ("myproxy_set_header X-A ${;", "invalid variable name"),
    ("myproxy_set_body a$;", "invalid variable name"),
    ("myproxy_set_body ${;", "invalid variable name"),
    ("myproxy_redirect $ /;", "invalid variable name"),
    ("myproxy_redirect / $;", "invalid variable name"),
    ("myproxy_cookie_flags $ secure;", "invalid variable name"),
    ("myproxy_cookie_flags a $;", "invalid variable name"),
    ("myproxy_store %{prefix}/$;", "invalid variable name"),
    ("myproxy_cache a$;", "invalid variable name"),
]


@pytest.mark.parametrize("line, message", WRONG,
                         ids=[line for line, _ in WRONG])
def test_a_wrong_line(stage, line, message):
    code, text = check(stage, [PASS, line + " # wrong"])
    assert code == 1
    found, = re.findall(r"\[emerg\].*\n", text)
    assert message in found or message.lower() in found.lower()
    assert found.endswith(place(stage, "# wrong"))


@pytest.mark.parametrize("line", [
    "myproxy_set_header X-A $nonsense;",
    "myproxy_method $nonsense;",
    "myproxy_cookie_path / $nonsense;",
    "myproxy_cookie_flags a $nonsense;",
    "myproxy_ssl_name $nonsense;",
])
def test_an_unknown_variable(stage, line):
    code, text = check(stage, [PASS, line])
    assert code == 1
    assert 'unknown "nonsense" variable' in text


# as above, but lines that are only wrong together

TOGETHER = [
    (["myproxy_http_version 1.1;", "myproxy_http_version 1.1;"],
     '"myproxy_http_version" directive is duplicate'),
    (["myproxy_upgrade websocket;", "myproxy_upgrade foo;"],
     '"myproxy_upgrade" directive is duplicate'),
    (["myproxy_upgrade off;", "myproxy_upgrade foo;"],
     '"myproxy_upgrade" directive is duplicate'),
    (["myproxy_redirect off;", "myproxy_redirect off;"],
     '"myproxy_redirect" directive is duplicate'),
    (["myproxy_redirect off;", "myproxy_redirect / /a/;"],
     '"myproxy_redirect" directive is duplicate'),
    (["myproxy_redirect off;", "myproxy_redirect default;"],
     '"myproxy_redirect" directive is duplicate'),
    (["myproxy_redirect / /a/;", "myproxy_redirect off;"],
     '"myproxy_redirect" directive is duplicate'),
    (["myproxy_cookie_domain off;", "myproxy_cookie_domain off;"],
     '"myproxy_cookie_domain" directive is duplicate'),
    (["myproxy_cookie_domain off;", "myproxy_cookie_domain a b;"],
     '"myproxy_cookie_domain" directive is duplicate'),
    (["myproxy_cookie_domain a b;", "myproxy_cookie_domain off;"],
     '"myproxy_cookie_domain" directive is duplicate'),
    (["myproxy_cookie_path off;", "myproxy_cookie_path off;"],
     '"myproxy_cookie_path" directive is duplicate'),
    (["myproxy_cookie_path off;", "myproxy_cookie_path / /a/;"],
     '"myproxy_cookie_path" directive is duplicate'),
    (["myproxy_cookie_path / /a/;", "myproxy_cookie_path off;"],
     '"myproxy_cookie_path" directive is duplicate'),
    (["myproxy_cookie_flags off;", "myproxy_cookie_flags off;"],
     '"myproxy_cookie_flags" directive is duplicate'),
    (["myproxy_cookie_flags off;", "myproxy_cookie_flags a secure;"],
     '"myproxy_cookie_flags" directive is duplicate'),
    (["myproxy_cookie_flags a secure;", "myproxy_cookie_flags off;"],
     '"myproxy_cookie_flags" directive is duplicate'),
    (["myproxy_store on;", "myproxy_store on;"],
     '"myproxy_store" directive is duplicate'),
    (["myproxy_cache one;", "myproxy_cache off;"],
     '"myproxy_cache" directive is duplicate'),
    (["myproxy_cache one;", "myproxy_store on;"],
     '"myproxy_store" directive is incompatible with "myproxy_cache"'),
    (["myproxy_store on;", "myproxy_cache one;"],
     '"myproxy_cache" directive is incompatible with "myproxy_store"'),
    (["myproxy_method GET;", "myproxy_method HEAD;"],
     '"myproxy_method" directive is duplicate'),
    (["myproxy_set_body a;", "myproxy_set_body b;"],
     '"myproxy_set_body" directive is duplicate'),
    (["myproxy_read_timeout 1s;", "myproxy_read_timeout 2s;"],
     '"myproxy_read_timeout" directive is duplicate'),
]


@pytest.mark.parametrize("lines, message", TOGETHER,
                         ids=[" ".join(lines) for lines, _ in TOGETHER])
def test_lines_that_do_not_go_together(stage, lines, message):
    first, second = lines
    code, text = check(
        stage, [PASS, first, second + " # wrong"],
        http="myproxy_cache_path %{prefix}/cache keys_zone=one:1m;")
    assert code == 1
    assert message in text
    assert text.count("[emerg]") == 1
    assert place(stage, "# wrong") in text


@pytest.mark.parametrize("defined", [
    "proxy_cache_path %{prefix}/cache keys_zone=one:1m;",
    "limit_req_zone $host zone=one:1m rate=1r/s;"])
def test_a_zone_of_another_module(stage, defined):
    code, text = check(stage, [PASS, "myproxy_cache one; # wrong"],
                       http=defined)
    assert code == 1
    found, = re.findall(r"\[emerg\].*\n", text)
    assert ('the zone in "myproxy_cache one" is that of another module: '
            "define one of another name, and with another directory, with "
            '"myproxy_cache_path"') in found
    assert found.endswith(place(stage, "# wrong"))


# the stock proxy's directives and variables

def warned(text):
    return re.findall(r"\[warn\] .*\n", text)


OURS, STOCK = "myproxy_pass http://%{origin};", "proxy_pass http://%{origin};"


@pytest.mark.parametrize("block", [
    "location / { proxy_read_timeout 5s; # wrong\n" + OURS + "}",
    "location / { " + OURS + "\nproxy_set_header X a; # wrong\n"
    "proxy_hide_header X; proxy_temp_path %{prefix}/temp; }",
    "location / { " + OURS + "} proxy_buffering on; # wrong\n",
    "proxy_cache_valid any 1m; # wrong\n"
    "location / { if ($arg_a) { " + OURS + "} }",
    "location / { proxy_ssl_verify off; # wrong\n"
    "location /a/ { myproxy_pass http://$host; } } location /b { " + STOCK
    + "}",
])
def test_a_directive_of_the_stock_proxy_that_does_nothing(stage, block):
    code, text = check(stage, server=block)
    assert code == 0
    name, = re.findall(r"(proxy_\w+) [\w ]+; # wrong", block)
    found, = warned(text)
    assert (f'"{name}" does nothing for "myproxy_pass", and there is no '
            f'"proxy_pass" that it is for: write "my{name}", and the same '
            'for what else begins with "proxy_", in ') in found
    assert found.endswith(place(stage, "# wrong"))


@pytest.mark.parametrize("block", [
    "location / { proxy_temp_path %{prefix}/temp; " + OURS + "}",
    "location / { proxy_read_timeout 5s; return 204; }",
    "location /a { proxy_read_timeout 5s; " + STOCK + "} location / { "
    + OURS + "}",
    "location / { proxy_read_timeout 5s; " + OURS
    + "if ($arg_a) { " + STOCK + "} }",
    "location / { proxy_read_timeout 5s; " + OURS
    + "limit_except GET { " + STOCK + "} }",
    "proxy_read_timeout 5s; location / { " + OURS + "location ~ a { location "
    "~ b { " + STOCK + "} } }",
])
def test_a_directive_of_the_stock_proxy_that_is_for_something(stage, block):
    code, text = check(stage, server=block)
    assert code == 0
    assert warned(text) == []


def test_directives_of_the_stock_proxy_are_as_they_were(stage):
    """After errors in them, and after a reload."""
    origin = stage.origin()
    nginx = stage.nginx(location=STOCK + "proxy_set_header X-A a;")
    nginx.expect_log("invalid number of arguments")
    nginx.config["location"] = STOCK + "proxy_set_header X-A;"
    nginx.apply_config()
    nginx.wait_log("invalid number of arguments")
    nginx.reload(location=STOCK + "proxy_set_header X-A b;")
    assert nginx.get().status == 200
    assert origin.request.values("X-A") == ["b"]


@pytest.mark.parametrize("lines, message", [
    ([STOCK, OURS], '"myproxy_pass" takes the place of what was to answer '
     'requests in the same block, as "proxy_pass" does: remove one of them'),
    (["stub_status;", OURS], '"myproxy_pass" takes the place of what was'),
    ([OURS, "reuse_status;"], '"reuse_status" takes the place of what was'),
    ([OURS, STOCK], '"proxy_pass" takes the place of the "myproxy_pass" in '
     "the same block: remove one of them"),
])
def test_two_that_answer_requests(stage, lines, message):
    code, text = check(stage, [lines[0], lines[1] + " # wrong"])
    assert code == 0
    found, = warned(text)
    assert message in found
    assert found.endswith(place(stage, "# wrong"))


@pytest.mark.parametrize("line, name", [
    ("myproxy_set_header Host $proxy_host;", "proxy_host"),
    ("myproxy_set_header X-A a${proxy_port}b;", "proxy_port"),
    ("myproxy_set_header X-A $http_a$PROXY_HOST;", "PROXY_HOST"),
    ("myproxy_ssl_name $proxy_host;", "proxy_host"),
    ("myproxy_cache_key $scheme$proxy_host$request_uri;", "proxy_host"),
])
def test_a_variable_of_the_stock_proxy(stage, line, name):
    code, text = check(stage, [PASS, line + " # wrong"])
    assert code == 0
    found, = warned(text)
    directive = line.split()[0]
    assert (f'"${name}" in "{directive}" is empty, only "proxy_pass" sets it: '
            f'write "$my{name}"') in found
    assert found.endswith(place(stage, "# wrong"))


@pytest.mark.parametrize("value", [
    "$myproxy_host", "$proxy_hosts", "proxy_host", "$http_proxy_host",
    "$proxy_add_x_forwarded_for", "$host"])
def test_a_variable_of_another_name(stage, value):
    code, text = check(stage, [PASS, f"myproxy_set_header X-A {value};"],
                       server="set $proxy_hosts a;")
    assert code == 0
    assert warned(text) == []


# URLs of the pass

URLS = [
    ("ftp://example.test/",
     'invalid URL "ftp://example.test/" in "myproxy_pass", it must begin '
     'with "http://" or "https://"'),
    ("example.test", 'invalid URL "example.test" in "myproxy_pass"'),
    ("/path", 'invalid URL "/path" in "myproxy_pass"'),
    ("http:/127.0.0.1", 'invalid URL "http:/127.0.0.1"'),
    ("http://", "no host in upstream"),
    ("https://", "no host in upstream"),
    ("unix:/tmp/socket", 'invalid URL "unix:/tmp/socket"'),
    ("http://:80/", "no host in upstream"),
    ("http://127.0.0.1:99999", "invalid port in upstream"),
    ("http://127.0.0.1:0/", "invalid port in upstream"),
    ("http://127.0.0.1:/", "invalid port in upstream"),
    ("http://unix:", "no path in the unix domain socket"),
    ("http://name.invalid", 'host not found in upstream "name.invalid"'),
    ("http://$", "invalid variable name"),
]


@pytest.mark.parametrize("url, message", URLS, ids=[url for url, _ in URLS])
def test_a_wrong_url(stage, url, message):
    code, text = check(stage, [f"myproxy_pass {url};"])
    assert code == 1
    assert message in text
    assert place(stage, f"myproxy_pass {url};") in text


@pytest.mark.parametrize("location", [
    "location ~ ^/a { %s }",
    "location @name { %s }",
    "location / { if ($arg_a) { %s } }",
    "location / { limit_except GET { %s } }",
    "location /a/ { location ~ b { %s } }",
])
def test_a_uri_where_there_is_no_prefix(stage, location):
    line = "myproxy_pass http://%{origin}/uri;"
    code, text = check(stage, server=location % line)
    assert code == 1
    assert ('"myproxy_pass" cannot have the URI part "/uri" in a named '
            'location, a location given by a regular expression, "if" or '
            '"limit_except": there is no prefix that it could replace'
            ) in text
    assert place(stage, "/uri;") in text


@pytest.mark.parametrize("level", ["http", "server"])
def test_a_pass_outside_of_locations(stage, level):
    code, text = check(stage, **{"server": "set $x y;", level: PASS})
    assert code == 1
    assert '"myproxy_pass" directive is not allowed here' in text


@pytest.mark.parametrize("url", ["ftp://origin", "origin", ""])
def test_a_wrong_url_of_variables(stage, url):
    origin = stage.origin()
    nginx = stage.nginx(location="""
        myproxy_pass $arg_url;
        add_header X-Target "<$myproxy_host$myproxy_port>" always;
    """)
    response = nginx.get(f"/?url={url}")
    assert response.status == 500
    assert response.header("X-Target") == "<>"
    assert nginx.logged(f'invalid URL "{url}" in "myproxy_pass", it must '
                        'begin with "http://" or "https://"')
    assert origin.connections == 0


@pytest.mark.parametrize("url, message", [
    ("http://:80", "no host"),
    ("http://127.0.0.1:99999", "invalid port"),
    ("http://127.0.0.1:0", "invalid port"),
    ("http://[::1]:0", "invalid port"),
])
def test_a_wrong_address_of_variables(stage, url, message):
    nginx = stage.nginx(location="myproxy_pass $arg_url;")
    assert nginx.get(f"/?url={url}").status == 500
    assert nginx.logged(f'{message} in "myproxy_pass" "{re.escape(url)}"')


# redirects

@pytest.mark.parametrize("lines, message", [
    (["myproxy_redirect default;", PASS],
     '"myproxy_redirect default" must stand below the "myproxy_pass" of '
     'its location'),
    (["set $name app; myproxy_pass http://$name;",
      "myproxy_redirect default;"],
     '"myproxy_redirect default" cannot be used with variables in '
     '"myproxy_pass"'),
], ids=["above", "variables"])
def test_the_default_redirect_out_of_place(stage, lines, message):
    code, text = check(stage, lines)
    assert code == 1
    assert message in text
    assert place(stage, "myproxy_redirect default;") in text


@pytest.mark.parametrize("level", ["http", "server"])
def test_the_default_redirect_outside_of_locations(stage, level):
    code, text = check(stage, **{"server": "set $x y;",
                                 level: "myproxy_redirect default;"})
    assert code == 1
    assert "must stand below the" in text


# sizes: known when a level is complete

SIZES = [
    ("myproxy_buffers 1 4k;",
     'there must be at least 2 "myproxy_buffers"'),
    ("myproxy_buffers 1 4k; myproxy_buffering off;",
     'there must be at least 2 "myproxy_buffers"'),
    ("myproxy_buffers 4 4k; myproxy_busy_buffers_size 3k;",
     '"myproxy_busy_buffers_size" must be at least 4096, as large as '
     '"myproxy_buffer_size" and one of the "myproxy_buffers"'),
    ("myproxy_buffer_size 16k; myproxy_busy_buffers_size 8k;",
     '"myproxy_busy_buffers_size" must be at least 16384'),
    ("myproxy_buffers 4 4k; myproxy_busy_buffers_size 16k;",
     '"myproxy_busy_buffers_size" must be at most 12288, all '
     '"myproxy_buffers" less one'),
    ("myproxy_buffers 2 4k;",
     '"myproxy_busy_buffers_size" must be at most 4096'),
    ("myproxy_buffer_size 32k;",
     '"myproxy_busy_buffers_size" must be at most 28672'),
    ("myproxy_temp_file_write_size 1k;",
     '"myproxy_temp_file_write_size" must be at least 4096, as large as '
     '"myproxy_buffer_size" and one of the "myproxy_buffers"'),
    ("myproxy_max_temp_file_size 1k;",
     '"myproxy_max_temp_file_size" must be 0, to use no temporary files, '
     'or at least 4096, as large as "myproxy_buffer_size" and one of the '
     '"myproxy_buffers"'),
]


@pytest.mark.parametrize("lines, message", SIZES,
                         ids=[lines for lines, _ in SIZES])
@pytest.mark.parametrize("level", LEVELS)
def test_sizes_that_do_not_fit(stage, level, lines, message):
    # one block size everywhere, whatever the page size is
    config = {"http": "", "location": PASS}
    config[level] = config.get(level, "") + lines
    if "myproxy_buffers" not in lines.replace("myproxy_buffers_size", ""):
        config["http"] += " myproxy_buffers 8 4k;"
    if "myproxy_buffer_size" not in lines:
        config["http"] += " myproxy_buffer_size 4k;"
    code, text = check(stage, **config)
    assert code == 1
    assert message in text
    assert re.search(r"nginx\.conf:\d+\n", text)


@pytest.mark.parametrize("lines", [
    "myproxy_max_temp_file_size 0;",
    "myproxy_buffers 2 8k; myproxy_busy_buffers_size 8k;",
    "myproxy_buffer_size 16k; myproxy_buffers 4 16k;",
])
def test_sizes_that_fit(stage, lines):
    stage.origin()
    nginx = stage.nginx(location=PASS + lines)
    assert nginx.get().status == 200


# caches

def test_an_unknown_cache_zone(stage):
    code, text = check(stage, [PASS, "myproxy_cache nowhere;"])
    assert code == 1
    assert ('"myproxy_cache" zone "nowhere" is unknown: define it with '
            '"myproxy_cache_path"') in text
    assert re.search(r"nginx\.conf:\d+\n", text)


def test_a_cache_zone_that_is_defined_below(stage):
    code, _ = check(
        stage,
        http="""
            server {
                listen 127.0.0.1:%{port.other};
                location / {
                    myproxy_pass http://127.0.0.1;
                    myproxy_cache one;
                }
            }
            myproxy_cache_path %{prefix}/cache keys_zone=one:1m;
        """, server="set $x y;")
    assert code == 0


def test_a_cache_path_that_stands_twice(stage):
    code, text = check(stage, [PASS], http="""
        myproxy_cache_path %{prefix}/one keys_zone=one:1m;
        myproxy_cache_path %{prefix}/two keys_zone=one:1m;
    """)
    assert code == 1
    assert 'duplicate zone "one"' in text


@pytest.mark.parametrize("outer, inner", [
    ("myproxy_store on;", "myproxy_cache one;"),
    ("myproxy_cache one;", "myproxy_store on;"),
])
def test_store_and_cache_on_different_levels(stage, outer, inner):
    code, _ = check(
        stage, [PASS, inner],
        http="myproxy_cache_path %{prefix}/cache keys_zone=one:1m;" + outer)
    assert code == 0


# warnings

WARNINGS = [
    ("myproxy_http_version 1.0;",
     'no connection is reused with "myproxy_http_version 1.0": remove the '
     'directive to speak HTTP/1.1'),
    ("myproxy_set_header Content-Length $content_length;",
     '"myproxy_set_header Content-Length" is ignored: it is computed from '
     'the body that is sent; remove the line'),
    ("myproxy_set_header Transfer-Encoding chunked;",
     '"myproxy_set_header Transfer-Encoding" is ignored'),
    ("myproxy_set_header Connection close;",
     'no connection is reused with "myproxy_set_header Connection close": '
     'remove the line'),
    ("myproxy_set_header connection 'te, Close';",
     'no connection is reused with "myproxy_set_header connection te, Close"'),
    ("myproxy_cookie_flags a secure nonsense;",
     'unknown flag "nonsense" in "myproxy_cookie_flags" ignored'),
    ("myproxy_send_lowat 1k;",
     '"myproxy_send_lowat" is not supported, ignored'),
]


@pytest.mark.parametrize("line, message", WARNINGS,
                         ids=[line for line, _ in WARNINGS])
def test_a_warning(stage, line, message):
    code, text = check(stage, [PASS, line + " # wrong"])
    assert code == 0
    found, = re.findall(r"\[warn\].*\n", text)
    assert message in found
    assert found.endswith(place(stage, "# wrong"))


TWO = "server 127.0.0.1:1; server 127.0.0.1:2;"

UPSTREAM_WARNINGS = [
    ("reuse_expiry 5s; keepalive 4; keepalive_timeout 6s; " + TWO,
     '"keepalive_timeout" of upstream "app" has no effect, as its '
     '"reuse_expiry" is shorter: remove "keepalive_timeout"'),
    ("keepalive 1; " + TWO,
     '"keepalive 1" of upstream "app" is less than the number of its servers, '
     '2: some of them have no idle connection; write "keepalive 2" or more'),
]


@pytest.mark.parametrize("lines, message", UPSTREAM_WARNINGS,
                         ids=["timeout", "size"])
def test_a_warning_of_an_upstream(stage, lines, message):
    code, text = stage.config_test(
        http="upstream app { # here\n" + lines + "}",
        location="myproxy_pass http://app;")
    assert code == 0
    found, = re.findall(r"\[warn\].*\n", text)
    assert message in found
    assert found.endswith(place(stage, "# here"))


CLOSING = pytest.mark.skipif(version() < (1, 29, 7),
                             reason="nginx refuses \"keepalive 0\"")


@CLOSING
@pytest.mark.parametrize("lines, remedy", [
    ("", ""), ("reuse on;", ', or "reuse on"')])
def test_a_warning_of_a_pool_without_room(stage, lines, remedy):
    code, text = stage.config_test(
        http="upstream app { # here\nserver 127.0.0.1:1; keepalive 0; "
             + lines + "}",
        location="myproxy_pass http://app;")
    assert code == 0
    found, = re.findall(r"\[warn\].*\n", text)
    assert ('connections to upstream "app" are not reused: '
            f'remove "keepalive 0"{remedy} in ') in found
    assert found.endswith(place(stage, "# here"))


@CLOSING
def test_nothing_can_be_warm_in_a_pool_without_room(stage):
    code, text = stage.config_test(
        http="upstream app { # here\nserver 127.0.0.1:1; keepalive 0;"
             "reuse_warm 2; }",
        location="myproxy_pass http://app;")
    assert code == 1
    found, = re.findall(r"\[emerg\].*\n", text)
    assert '"keepalive 0" keeps none for upstream "app" in ' in found
    assert found.endswith(place(stage, "# here").strip()
                          + ": remove one of them\n")


@CLOSING
def test_no_warning_of_a_pool_that_is_not_ours(stage):
    code, text = stage.config_test(
        http="upstream app { server 127.0.0.1:1; keepalive 0; }",
        location="proxy_pass http://app;")
    assert code == 0
    assert "[warn]" not in text


@pytest.mark.skipif(version() < (1, 29, 7),
                    reason="\"keepalive\" is a balancing method for nginx")
@pytest.mark.parametrize("method", [
    "least_conn", "ip_hash", "random", "hash $uri"])
def test_no_warning_of_a_method_behind_keepalive(stage, method):
    code, text = stage.config_test(
        http="upstream app { keepalive 8; server 127.0.0.1:1; "
             + method + "; }",
        location="myproxy_pass http://app;")
    assert code == 0
    assert "[warn]" not in text


def test_reuse_off_is_told_and_no_warning(stage):
    code, text = stage.config_test(
        http="upstream app { server 127.0.0.1:1;\nreuse off; # wrong\n}",
        location="myproxy_pass http://app;")
    assert code == 0
    assert "[warn]" not in text
    found, = re.findall(r"\[notice\].*reuse.*\n", text)
    assert 'connections to origins are not reused, as "reuse off" ' in found
    assert found.endswith(place(stage, "# wrong"))


@pytest.mark.parametrize("lines", [
    "reuse_expiry 5s; keepalive 4; keepalive_timeout 5s; " + TWO,
    "reuse_expiry 5s; keepalive 4; " + TWO,
    "reuse_expiry 5s; " + TWO,
    "reuse_expiry auto; keepalive 4; keepalive_timeout 90s; " + TWO,
    "keepalive 2; " + TWO,
    "keepalive 1; server 127.0.0.1:1; server 127.0.0.1:2 down;"
    "server 127.0.0.1:3 backup;",
    "reuse on; keepalive 8; " + TWO,
])
def test_no_warning_of_an_upstream(stage, lines):
    code, text = stage.config_test(
        http="upstream app {" + lines + "}",
        location="myproxy_pass http://app;")
    assert code == 0
    assert "[warn]" not in text


def test_no_warning_of_an_upstream_that_is_left_alone(stage):
    code, text = stage.config_test(
        http="upstream app { keepalive 1; " + TWO + "}",
        location="proxy_pass http://app;")
    assert code == 0
    assert "[warn]" not in text


@pytest.mark.parametrize("line", [
    "myproxy_http_version 1.1;",
    "myproxy_set_header Connection keep-alive;",
    "myproxy_set_header Connection $arg_close;",
    "myproxy_set_header Connection 'x-close, closed';",
    'myproxy_set_header Content-Length "";',
    'myproxy_set_header Transfer-Encoding "";',
    'myproxy_set_header Connection "";',
    "myproxy_set_header Host $host;",
    "myproxy_set_header X_Under-score.and!more 1;",
    "myproxy_cookie_flags ~ secure nohttponly samesite=strict;",
    "myproxy_cookie_flags a $arg_flag;",
    "myproxy_upgrade websocket foo/1.0;",
    "myproxy_redirect default;",
    "myproxy_redirect ~^http://a(.*)$ http://b$1;",
    "myproxy_redirect ~ /;",
    "myproxy_redirect ~* /;",
    "myproxy_set_header X-Id $request_id;",
    "myproxy_set_body $request_time;",
    "myproxy_redirect ~*^http://a(.*)$ http://b$1;",
    "myproxy_temp_path %{prefix}/temp 1 2;",
    "myproxy_store %{prefix}/store$uri; myproxy_store_access group:r;",
    "myproxy_limit_rate 10k;",
    "myproxy_headers_hash_max_size 1024;"
    "myproxy_headers_hash_bucket_size 128;",
])
def test_no_warning(stage, line):
    code, text = check(stage, [PASS, line])
    assert code == 0
    assert "[warn]" not in text


@pytest.mark.parametrize("line", [
    f"myproxy_set_header X-{'a' * 100} 1;",
    f"myproxy_hide_header X-{'a' * 100};",
])
def test_a_name_that_the_hash_has_no_room_for(stage, line):
    code, text = check(stage, [PASS, line])
    assert code == 1
    assert ("could not build myproxy_headers_hash, you should increase "
            "myproxy_headers_hash_bucket_size: 64") in text


def test_the_hash_is_given_room(stage):
    origin = stage.origin()
    name = "X-" + "a" * 100
    nginx = stage.nginx(location=PASS + f"""
        myproxy_set_header {name} 1;
        myproxy_headers_hash_bucket_size 256;
    """)
    assert nginx.get("/", f"{name}: 2").status == 200
    assert origin.request.values(name) == ["1"]
