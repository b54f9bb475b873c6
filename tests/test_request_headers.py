"""The request line and the header fields that an origin receives."""

import pytest


PASS = "myproxy_pass http://%{origin};"


def test_the_simplest_request_has_nothing_but_its_host(stage):
    origin = stage.origin()
    stage.nginx(location=PASS).get("/")
    assert origin.request.head == (b"GET / HTTP/1.1\r\n"
                                   b"Host: localhost\r\n\r\n")


@pytest.mark.parametrize("method", [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND",
    "X-OWN"])
def test_the_method_is_passed(stage, method):
    origin = stage.origin()
    stage.nginx(location=PASS).request(method, "/")
    assert origin.request.method == method


def test_an_http10_client_is_served_by_http11(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    response = nginx.get("/", version="HTTP/1.0")
    assert response.body == b"hello\n"
    assert origin.request.version == "HTTP/1.1"
    assert origin.request.names == ["host"]


def test_an_http2_client_is_served_by_http11(stage):
    origin = stage.origin()
    nginx = stage.nginx(listen="http2", location=PASS)
    response = nginx.connect_h2().get("/a%2Fb?c", ("x-own", "1"))
    assert response.status == 200
    request = origin.request
    assert request.start_line == b"GET /a%2Fb?c HTTP/1.1"
    assert sorted(request.names) == ["host", "x-own"]


def test_fields_pass_in_order_and_byte_for_byte(stage):
    lines = [
        "User-Agent: a (b; c)  d",
        "ACCEPT: */*;q=0.1,  text/html",
        "x-LOWER-upper: MixedCase",
        "X-Twice: first",
        "X-Twice: second",
        "X-Empty:",
        b"X-Bytes: \xc3\xa9\xff",
        "X-Quoted: \"a\\\"b\"",
        "Range: bytes=0-1",
        "If-None-Match: \"tag\"",
        "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
        "Accept-Encoding: gzip, br",
        "Via: 1.0 before",
    ]
    origin = stage.origin()
    stage.nginx(location=PASS).get("/", *lines)
    sent = [line if isinstance(line, bytes) else line.encode()
            for line in lines]
    got = [name + b":" + (b" " if value else b"") + value
           for name, value in origin.request.headers if name != b"Host"]
    assert got == sent


def test_a_very_long_field_passes(stage):
    origin = stage.origin()
    nginx = stage.nginx(server="large_client_header_buffers 4 64k;",
                        location=PASS)
    nginx.get("/", "X-Long: " + "v" * 60000)
    assert origin.request.header("X-Long") == "v" * 60000


def test_many_fields_pass(stage):
    origin = stage.origin()
    stage.nginx(location=PASS).get(
        "/", *[f"X-Field-{number}: {number}" for number in range(100)])
    assert [f"x-field-{number}" for number in range(100)] == [
        name for name in origin.request.names if name != "host"]


# Host

@pytest.mark.parametrize("host", [
    "example.com", "example.com:8080", "Example.COM", "EXAMPLE.com:80",
    "127.0.0.1:81", "[::1]:82", "a_b.example", "example.com."])
def test_host_is_the_clients_own(stage, host):
    origin = stage.origin()
    stage.nginx(location=PASS).get("/", host=host)
    assert origin.request.header("Host") == host


@pytest.mark.parametrize("authority", [
    "example.com", "example.com:8080", "Example.COM:80"])
def test_host_is_the_authority_of_http2(stage, authority):
    origin = stage.origin()
    nginx = stage.nginx(listen="http2", location=PASS)
    nginx.connect_h2().get("/", authority=authority)
    assert origin.request.header("Host") == authority


def test_host_is_the_field_of_http2_without_an_authority(stage):
    origin = stage.origin()
    nginx = stage.nginx(listen="http2", location=PASS)
    nginx.connect_h2().get("/", ("host", "Example.com:1"), authority=None)
    assert origin.request.header("Host") == "Example.com:1"


@pytest.mark.parametrize("target", [
    "http://%{origin}", "http://app", "http://$where"])
def test_host_is_the_clients_own_whatever_is_passed_to(stage, target):
    origin = stage.origin()
    nginx = stage.nginx(
        http="upstream app { server %{origin}; }",
        location=f"set $where %{{origin}}; myproxy_pass {target};")
    nginx.get("/", host="example.com")
    assert origin.request.header("Host") == "example.com"


def test_a_request_without_host_is_refused_with_the_remedy(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    assert nginx.get("/", version="HTTP/1.0", host=None).status == 400
    assert nginx.logged(r"\[info\].*myproxy_set_header Host")
    assert origin.connections == 0


def test_a_refused_request_leaves_the_client_connection_usable(stage):
    origin = stage.origin()
    client = stage.nginx(location=PASS).connect()
    refused = client.get("/", "Connection: keep-alive", version="HTTP/1.0",
                         host=None)
    assert refused.status == 400
    if refused.kept:
        assert client.get("/").status == 200
        assert origin.connections == 1


@pytest.mark.parametrize("level", ["http", "server", "location"])
def test_a_configured_host_serves_a_request_without_one(stage, level):
    origin = stage.origin()
    config = {"location": PASS}
    config[level] = (config.get(level, "")
                     + "myproxy_set_header Host fixed.example;")
    nginx = stage.nginx(**config)
    assert nginx.get("/", version="HTTP/1.0", host=None).status == 200
    assert origin.request.header("Host") == "fixed.example"


def test_a_configured_host_replaces_the_clients(stage):
    origin = stage.origin()
    stage.nginx(location=PASS + "myproxy_set_header hOST $myproxy_host;"
                ).get("/", host="example.com")
    assert origin.request.values("Host") == [str(origin)]


def test_a_constant_host_is_the_operators_business(stage):
    """Only what may come from a client is looked at."""
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + "myproxy_set_header Host a/b@c;")
    assert nginx.get("/").status == 200
    assert origin.request.values("Host") == ["a/b@c"]


# hop-by-hop fields

@pytest.mark.parametrize("line", [
    "Connection: keep-alive",
    "Connection: close",
    "Connection:",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "TE: trailers",
    "Upgrade: h2c",
    "Upgrade: websocket",
    "Expect: 100-continue",
])
def test_a_hop_by_hop_field_stays_behind(stage, line):
    origin = stage.origin()
    stage.nginx(location=PASS).get("/", line)
    assert origin.request.names == ["host"]


def test_te_of_http2_stays_behind(stage):
    origin = stage.origin()
    nginx = stage.nginx(listen="http2", location=PASS)
    assert nginx.connect_h2().get("/", ("te", "trailers")).status == 200
    assert origin.request.names == ["host"]


def test_fields_for_the_origin_itself_pass(stage):
    origin = stage.origin()
    stage.nginx(location=PASS).get(
        "/", "Proxy-Authorization: Basic YTpi", "Authorization: Bearer x")
    assert origin.request.header("Proxy-Authorization") == "Basic YTpi"
    assert origin.request.header("Authorization") == "Bearer x"


@pytest.mark.parametrize("lines", [
    ["Connection: X-Named"],
    ["Connection: x-nAMED"],
    ["Connection: close, X-Named"],
    ["Connection: X-Named, keep-alive"],
    ["Connection: keep-alive,X-Named,Foo"],
    ["Connection: ,, \t X-Named\t ,"],
    ["Connection: keep-alive", "Connection: X-Named"],
    ["Connection: X-Named", "connection: keep-alive"],
], ids=repr)
def test_fields_that_connection_names_stay_behind(stage, lines):
    origin = stage.origin()
    stage.nginx(location=PASS).get(
        "/", "X-Named: 1", *lines, "X-Named-Not: 2", "X-Name: 3",
        "x-named: 4")
    assert sorted(origin.request.names) == ["host", "x-name", "x-named-not"]


def test_all_fields_that_connection_names_stay_behind(stage):
    origin = stage.origin()
    stage.nginx(location=PASS).get(
        "/", "Connection: X-A, X-B", "Connection: X-C", "X-A: 1", "X-B: 2",
        "X-C: 3", "X-D: 4", "User-Agent: me")
    assert sorted(origin.request.names) == ["host", "user-agent", "x-d"]


@pytest.mark.parametrize("named, status", [(64, 200), (65, 400)])
def test_no_client_has_more_to_name_than_64_fields(stage, named, status):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    options = ["close", "keep-alive", "cookie"] + [
        f"x-{number}" for number in range(named)]
    response = nginx.get("/", "Connection: " + ", ".join(options),
                         "X-0: 1", "X-63: 2", "X-64: 3")
    assert response.status == status
    if status == 200:
        assert sorted(origin.request.names) == ["host", "x-64"]
    else:
        assert origin.connections == 0
        assert nginx.logged(r"\[info\].*client sent more than 64 options in "
                            "Connection")


@pytest.mark.parametrize("line", [
    "Authorization: Bearer x",
    "Cookie: a=b",
    "Forwarded: for=192.0.2.1",
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Whatever: x",
    "X-Real-IP: 192.0.2.1",
])
@pytest.mark.parametrize("spelled", [str, str.lower], ids=["same", "lower"])
def test_connection_cannot_strip(stage, line, spelled):
    origin = stage.origin()
    name = line.partition(":")[0]
    stage.nginx(location=PASS).get(
        "/", line, f"Connection: close, {spelled(name)}, X-Gone",
        "X-Gone: 1")
    assert set(origin.request.names) == {"host", name.lower()}
    assert line in origin.request.head.decode()


def test_connection_cannot_strip_host(stage):
    origin = stage.origin()
    stage.nginx(location=PASS).get("/", "Connection: Host",
                                   host="example.com")
    assert origin.request.header("Host") == "example.com"


def test_connection_cannot_strip_content_length(stage):
    origin = stage.origin()
    stage.nginx(location=PASS).post(
        "/", b"body", "Connection: Content-Length")
    assert origin.request.body == b"body"


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_connection_cannot_strip_transfer_encoding(stage, buffering):
    origin = stage.origin()
    nginx = stage.nginx(
        location=PASS + f"myproxy_request_buffering {buffering};")
    nginx.post("/", [b"bo", b"dy"], "Connection: Transfer-Encoding")
    assert origin.request.body == b"body"


def test_connection_cannot_strip_what_the_operator_sets(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + """
        myproxy_set_header X-Set yes;
        myproxy_set_header X-User $http_x_other;
    """)
    nginx.get("/", "Connection: X-Set, X-User", "X-Set: no", "X-User: mine",
              "X-Other: theirs")
    assert origin.request.header("X-Set") == "yes"
    assert origin.request.header("X-User") == "theirs"


def test_connection_of_the_operator_is_sent(stage):
    origin = stage.origin()
    stage.nginx(location=PASS + "myproxy_set_header Connection close;"
                ).get("/")
    assert origin.request.values("Connection") == ["close"]


# myproxy_set_header

def test_set_header_adds_and_replaces(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + """
        myproxy_set_header X-New "new value";
        myproxy_set_header x-OLD other;
    """)
    nginx.get("/", "X-Old: mine", "X-Kept: 1")
    assert origin.request.values("X-New") == ["new value"]
    assert origin.request.values("X-Old") == ["other"]
    assert origin.request.header("X-Kept") == "1"
    assert origin.request.header("Host") == "localhost"


@pytest.mark.parametrize("value, passed", [
    ("$http_x_a1", "one"), ("${http_x_a1}", "one"), ("$HTTP_X_A1", "one"),
    ("$http_x_a1$http_x_b", "onetwo"), ("${http_x_a1}2", "one2"),
    ("${http_x_a1}${http_x_b}", "onetwo"), ("$http_x_a1}", "one}"),
    ("$http_x_none", None)])
def test_set_header_with_one_variable_or_more(stage, value, passed):
    origin = stage.origin()
    stage.nginx(location=PASS + f'myproxy_set_header X-New "{value}";').get(
        "/", "X-A1: one", "X-B: two")
    assert origin.request.header("X-New") == passed


def test_set_header_with_a_group_of_a_regex(stage):
    origin = stage.origin()
    stage.nginx(server=r"""
        location ~ ^/(\w+) { myproxy_pass http://%{origin};
                             myproxy_set_header X-New $1; }
    """).get("/a/b")
    assert origin.request.header("X-New") == "a"


def test_set_header_may_repeat_a_name(stage):
    origin = stage.origin()
    stage.nginx(location=PASS + """
        myproxy_set_header X-Twice first;
        myproxy_set_header X-Twice second;
    """).get("/")
    assert origin.request.values("X-Twice") == ["first", "second"]


def test_set_header_expands_variables(stage):
    origin = stage.origin()
    stage.nginx(location=PASS + """
        myproxy_set_header X-Args "a=$arg_a b=$arg_b";
        myproxy_set_header X-Real-IP $remote_addr;
    """).get("/?a=1&b=2")
    assert origin.request.header("X-Args") == "a=1 b=2"
    assert origin.request.header("X-Real-IP") == "127.0.0.1"


@pytest.mark.parametrize("value", ['""', "$arg_missing"])
def test_set_header_with_an_empty_value_removes(stage, value):
    origin = stage.origin()
    stage.nginx(location=PASS + f"myproxy_set_header X-Gone {value};"
                ).get("/", "X-Gone: 1", "X-Kept: 2")
    assert sorted(origin.request.names) == ["host", "x-kept"]


@pytest.mark.parametrize("level", ["http", "server"])
def test_set_header_is_inherited(stage, level):
    origin = stage.origin()
    config = {"location": PASS}
    config[level] = "myproxy_set_header X-Level yes;"
    stage.nginx(**config).get("/")
    assert origin.request.header("X-Level") == "yes"


def test_set_header_of_a_level_replaces_all_of_those_above(stage):
    origin = stage.origin()
    stage.nginx(http="myproxy_set_header X-Http http;",
                server="myproxy_set_header X-Server server;",
                location=PASS + "myproxy_set_header X-Location location;"
                ).get("/")
    assert sorted(origin.request.names) == ["host", "x-location"]


def test_set_header_for_host_above_is_lost_with_one_below(stage):
    origin = stage.origin()
    stage.nginx(http="myproxy_set_header Host fixed.example;",
                location=PASS + "myproxy_set_header X-Location 1;"
                ).get("/")
    assert origin.request.header("Host") == "localhost"


def test_set_header_in_one_location_does_not_touch_another(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http="myproxy_set_header X-Http 1;",
        server="""
            location /one {
                myproxy_pass http://%{origin};
                myproxy_set_header X-One 1;
            }
            location /two {
                myproxy_pass http://%{origin};
            }
        """)
    nginx.get("/one")
    nginx.get("/two")
    one, two = origin.requests
    assert sorted(one.names) == ["host", "x-one"]
    assert sorted(two.names) == ["host", "x-http"]


def test_set_header_is_inherited_by_if(stage):
    origin = stage.origin()
    stage.nginx(location=PASS + """
        myproxy_set_header X-Level yes;
        if ($arg_a) {
            set $b 1;
        }
    """).get("/?a=1")
    assert origin.request.header("X-Level") == "yes"


def test_add_x_forwarded_for(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + """
        myproxy_set_header X-Forwarded-For $myproxy_add_x_forwarded_for;
    """)
    nginx.get("/", "X-Forwarded-Foo: of the same length")
    nginx.get("/", "X-Forwarded-For: 192.0.2.1")
    nginx.get("/", "X-Forwarded-For: 192.0.2.1",
              "X-Forwarded-For: 192.0.2.2")
    assert [request.values("X-Forwarded-For")
            for request in origin.requests] == [
        ["127.0.0.1"],
        ["192.0.2.1, 127.0.0.1"],
        ["192.0.2.1, 192.0.2.2, 127.0.0.1"],
    ]


@pytest.mark.parametrize("target, host, port", [
    ("http://%{origin}", "%{origin}", "%{origin.port}"),
    ("http://app", "app", "80"),
    ("http://%{origin}/uri", "%{origin}", "%{origin.port}"),
])
def test_variables_tell_host_and_port_of_the_pass(stage, target, host, port):
    origin = stage.origin()
    stage.nginx(http="upstream app { server %{origin}; }",
                location=f"""
                    myproxy_pass {target};
                    myproxy_set_header X-Host "$myproxy_host {host}";
                    myproxy_set_header X-Port "$myproxy_port {port}";
                """).get("/")
    for name in ("X-Host", "X-Port"):
        told, wanted = origin.request.header(name).split()
        assert told == wanted


def test_there_is_no_host_of_a_pass_elsewhere(stage):
    nginx = stage.nginx(location='return 200 "<$myproxy_host$myproxy_port>";')
    assert nginx.get("/").body == b"<>"


def test_the_host_variable_leaves_out_the_standard_port(stage):
    dns = stage.dns({})
    nginx = stage.nginx(
        http="log_format told 'told=$myproxy_host:$myproxy_port';",
        server="access_log %{prefix}/told.log told;",
        location="""
            resolver %{dns} ipv6=off;
            set $where nowhere.test;
            myproxy_pass http://$where:80;
        """)
    assert nginx.get("/").status == 502
    assert dns.questions == ["nowhere.test"]
    stage.wait_until(
        lambda: nginx.read("told.log") == b"told=nowhere.test:80\n")


# myproxy_method, myproxy_pass_request_headers

@pytest.mark.parametrize("method, passed", [
    ("POST", "POST"), ("OPTIONS", "OPTIONS"), ("$arg_m", "PUT")])
def test_method_replaces_the_clients(stage, method, passed):
    origin = stage.origin()
    stage.nginx(location=PASS + f"myproxy_method {method};").get("/?m=PUT")
    assert origin.request.method == passed


def test_a_method_of_variables_that_is_empty(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + "myproxy_method $arg_m;")
    assert nginx.get("/").status == 500
    assert nginx.logged('invalid method "" from "myproxy_method .arg_m"')
    assert origin.connections == 0


#: The path as the client meant it, without the slash.
DECODED = 'map $uri $decoded { "~(?s)^/(?<text>.*)$" $text; }'


@pytest.mark.parametrize("byte", [
    "%0d", "%0a", "%20", "%09", "%7f", "%80", "%ff"])
@pytest.mark.parametrize("form", ["G{}T", "GET{}", "{}GET"])
def test_a_method_with_a_byte_that_no_method_has(stage, byte, form):
    origin = stage.origin()
    nginx = stage.nginx(http=DECODED,
                        location=PASS + "myproxy_method $decoded;")
    assert nginx.get("/" + form.format(byte)).status == 500
    assert origin.connections == 0


@pytest.mark.parametrize("byte", ["%0d", "%0a"])
@pytest.mark.parametrize("name, status", [("X-A", 500), ("Host", 400)])
@pytest.mark.parametrize("form", ["a{}b", "a{}", "{}b"])
def test_a_value_with_one_byte_of_a_line_break(stage, name, status, byte,
                                               form):
    """A lone CR, or LF, ends a line for some origins."""
    origin = stage.origin()
    nginx = stage.nginx(http=DECODED, location=PASS
                        + f"myproxy_set_header {name} $decoded;")
    assert nginx.get("/" + form.format(byte)).status == status
    assert nginx.logged("has a line break or NUL, refused")
    assert origin.connections == 0


@pytest.mark.parametrize("name, status", [("X-A", 500), ("Host", 400)])
@pytest.mark.parametrize("value", [
    "$binary_remote_addr", "a${binary_remote_addr}b"])
def test_a_value_with_nul(stage, name, status, value):
    """No path has it, but the bytes of the client's address, 127.0.0.1, do."""
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + f"myproxy_set_header {name} {value};")
    assert nginx.get("/").status == status
    assert nginx.logged("has a line break or NUL, refused")
    assert origin.connections == 0


def test_method_is_inherited(stage):
    origin = stage.origin()
    stage.nginx(http="myproxy_method PUT;", location=PASS).get("/")
    assert origin.request.method == "PUT"


def test_pass_request_headers_off_leaves_host_alone(stage):
    origin = stage.origin()
    stage.nginx(location=PASS + "myproxy_pass_request_headers off;"
                ).get("/", "X-Gone: 1", "Cookie: a=b", host="example.com")
    assert origin.request.head == (b"GET / HTTP/1.1\r\n"
                                   b"Host: example.com\r\n\r\n")


def test_pass_request_headers_off_keeps_framing_and_what_is_set(stage):
    origin = stage.origin()
    stage.nginx(location=PASS + """
        myproxy_pass_request_headers off;
        myproxy_set_header X-Set 1;
    """).post("/", b"body", "X-Gone: 1")
    assert sorted(origin.request.names) == ["content-length", "host",
                                            "x-set"]
    assert origin.request.body == b"body"


# an authority in the request line

@pytest.mark.parametrize("authority", [
    "example.com", "example.com:8080", "Example.COM:1", "[::1]:80",
    "192.0.2.1:8080"])
def test_the_authority_of_an_absolute_form_takes_the_place_of_host(
        stage, authority):
    origin = stage.origin()
    stage.nginx(location=PASS).get(f"http://{authority}/x",
                                   host="other.example")
    assert origin.request.values("Host") == [authority]
    assert origin.request.target == "/x"


@pytest.mark.parametrize("host", ["example.com", "Example.COM", "[::1]",
                                  "192.0.2.1"])
@pytest.mark.parametrize("behind,target", [
    ("/x", "/x"), ("?a=b", "/?a=b"), ("", "/")])
def test_a_colon_without_a_port_stays_behind(stage, host, behind, target):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    for port, sent in ("", ""), (":", ""), (":0", ":0"), (":080", ":080"):
        nginx.get(f"http://{host}{port}{behind}", host="other.example")
        request = origin.conns[0].requests[-1]
        assert request.values("Host") == [host + sent]
        assert request.target == target


@pytest.mark.parametrize("authority", [
    "user@example.com", "user:1@example.com", ":@example.com", ":80", ":", "",
    "example.com:1:2", "example.com::", "[::1", "[::1]x"])
def test_an_authority_that_is_none(stage, authority):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    assert nginx.get(f"http://{authority}/x").status == 400
    assert origin.connections == 0


def test_an_absolute_form_needs_no_host_field(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    nginx.get("http://example.com:81/", host=None, version="HTTP/1.0")
    assert origin.request.values("Host") == ["example.com:81"]


def test_a_subrequest_of_an_absolute_form_has_its_authority(stage):
    origin = stage.origin()
    nginx = stage.nginx(location="auth_request /auth;" + PASS,
                        server="location = /auth {" + PASS + "}")
    nginx.get("http://example.com:81/", host="other.example")
    assert [r.values("Host") for c in origin.conns for r in c.requests] == [
        ["example.com:81"], ["example.com:81"]]


# a host, and nothing behind it but a port

HOST = "myproxy_set_header Host"


@pytest.mark.parametrize("host", [
    "good.example:@evil.example", "good.example:80@evil.example",
    "good.example:80:81", "good.example:http", "good.example:8 0",
    "good.example:-1", "good.example::80", "user@good.example",
    "good.example#evil.example", "evil.example?good.example",
    "evil.example\\good.example", "good.example,evil.example:x", "[::1]x",
    "[::1]:80x", "[::1]@evil.example", "[::1", "[::1@:80",
    "[@evil.example]:80",
    "<evil.example>", "\"evil.example\""])
@pytest.mark.parametrize("config", ["", f"{HOST} fixed.example;"],
                         ids=["sent", "set"])
def test_a_host_with_more_than_a_port_is_refused(stage, host, config):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + config)
    assert nginx.get("/", host=host).status == 400
    assert nginx.logged(r"\[info\].*invalid (Host|host)")
    assert origin.connections == 0


@pytest.mark.parametrize("host", [
    "good.example:", "good.example:0", "good.example:65535", "good.example",
    "good.example.:80", "a-b_c~d.example:1", "a%20b.example", "!$&'()*+,;=",
    "[2001:db8::1]", "[2001:db8::1]:", "[::ffff:192.0.2.1]:8080", "1"])
def test_a_host_with_no_more_than_a_port_passes(stage, host):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    assert nginx.get("/", host=host).status == 200
    assert origin.request.header("Host") == host


@pytest.mark.parametrize("authority", [
    "good.example:@evil.example", "good.example:80@evil.example",
    "user@good.example", "[::1]x"])
def test_an_authority_of_http2_with_more_than_a_port_is_refused(
        stage, authority):
    origin = stage.origin()
    nginx = stage.nginx(listen="http2", location=PASS)
    assert nginx.connect_h2().get("/", authority=authority).status == 400
    assert origin.connections == 0


@pytest.mark.parametrize("target", [
    "http://good.example:@evil.example/", "http://user@good.example/",
    "http://good.example:80@evil.example/"])
def test_an_absolute_form_with_more_than_a_port_is_refused(stage, target):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS)
    assert nginx.get(target, host="good.example").status == 400
    assert origin.connections == 0


def test_a_host_beside_an_absolute_form_is_looked_at(stage):
    """It is not sent, but $http_host may be."""
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + """
        myproxy_set_header X-Forwarded-Host $http_host;
    """)
    response = nginx.get("http://good.example/",
                         host="good.example:@evil.example")
    assert response.status == 400
    assert origin.connections == 0


@pytest.mark.parametrize("value, status", [
    ("good.example:8080", 200), ("good.example:@evil.example", 400),
    ("good.example/evil.example", 400), ("good.example%20", 200),
    ("[::1]:1", 200)])
@pytest.mark.parametrize("variable", ["$http_x_host", "${arg_h}"])
def test_a_host_of_variables_is_looked_at(stage, value, status, variable):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + f"{HOST} {variable};")
    response = nginx.get(f"/?h={value}", f"X-Host: {value}")
    assert response.status == status
    assert origin.connections == (status == 200)
    if status == 400:
        assert nginx.logged(r"\[info\].*invalid Host \"good\.example")


def test_a_host_of_variables_that_is_empty(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + f"{HOST} $http_x_host;")
    assert nginx.get("/").status == 400
    assert nginx.logged('there is no Host for the origin: the value of '
                        '"myproxy_set_header Host .http_x_host" is empty')
    assert origin.connections == 0
    assert nginx.get("/", "X-Host: good.example").status == 200
    assert origin.request.header("Host") == "good.example"


@pytest.mark.parametrize("value", [
    "$host", "$http_host", "$host:$server_port", "$myproxy_host",
    "$server_name"])
@pytest.mark.parametrize("target", ["http://%{origin}", "http://app"])
def test_a_host_of_usual_variables_passes(stage, value, target):
    stage.origin()
    nginx = stage.nginx(http="upstream app { server %{origin}; }",
                        location=f"myproxy_pass {target}; {HOST} {value};")
    assert nginx.get("/", host="good.example").status == 200
