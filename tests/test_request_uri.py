"""Which origin a request goes to, and with which target."""

import pytest

UNTOUCHED = [
    "/",
    "/a/b?c=d",
    "/a?",
    "/a??",
    "/a//b/./c/../d",
    "/a%2Fb",
    "/a%2fb",
    "/a%20b",
    "/%61",
    "/a%3Fb%23c%25d",
    "/%C3%A9",
    "/\xc3\xa9",
    "/a+b;c=1,2",
    "/?a=%20%2F+&&b",
]


@pytest.mark.parametrize("target", UNTOUCHED)
def test_without_uri_in_pass_the_target_stays_byte_for_byte(stage, target):
    origin = stage.origin()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    assert nginx.get(target).status == 200
    assert origin.request.target == target


@pytest.mark.parametrize("target", UNTOUCHED)
def test_without_uri_in_a_regex_location_the_target_stays(stage, target):
    origin = stage.origin()
    nginx = stage.nginx(
        server="location ~ ^/ { myproxy_pass http://%{origin}; }")
    assert nginx.get(target).status == 200
    assert origin.request.target == target


@pytest.mark.parametrize("target, passed", [
    ("/name/", "/remote/"),
    ("/name/x", "/remote/x"),
    ("/name/x?a=b", "/remote/x?a=b"),
    ("/name/?a=%20b", "/remote/?a=%20b"),
    ("/name/x?", "/remote/x"),
    ("/name/a%2Fb", "/remote/a/b"),
    ("/name/a%20b", "/remote/a%20b"),
    ("/name/%61", "/remote/a"),
    ("/name/a%3Fb", "/remote/a%3Fb"),
    ("/name/a%23b", "/remote/a%23b"),
    ("/name/a%25b", "/remote/a%25b"),
    ("/name/%C3%A9", "/remote/%C3%A9"),
    ("/name/a+b", "/remote/a+b"),
    ("/name//a//b", "/remote/a/b"),
    ("/name/a/../b", "/remote/b"),
    ("/%6eame/x", "/remote/x"),
])
def test_the_uri_in_pass_replaces_the_location(stage, target, passed):
    origin = stage.origin()
    nginx = stage.nginx(server="""
        location /name/ {
            myproxy_pass http://%{origin}/remote/;
        }
    """)
    assert nginx.get(target).status == 200
    assert origin.request.target == passed


@pytest.mark.parametrize("location, uri, target, passed", [
    ("/name", "/", "/name", "/"),
    ("/name", "/", "/name/x", "//x"),
    ("/name", "/", "/namex", "/x"),
    ("/name", "/other", "/name/x", "/other/x"),
    ("/name/", "/?fixed=1&x=", "/name/a", "/?fixed=1&x=a"),
    ("= /name", "/other", "/name?a=b", "/other?a=b"),
    ("^~ /name/", "/", "/name/x", "/x"),
])
def test_how_location_and_uri_fit_together(stage, location, uri, target,
                                           passed):
    origin = stage.origin()
    nginx = stage.nginx(server=f"""
        location {location} {{
            myproxy_pass http://%{{origin}}{uri};
        }}
    """)
    assert nginx.get(target).status == 200
    assert origin.request.target == passed


def test_a_proxied_location_without_its_slash_redirects(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        server="location /name/ { myproxy_pass http://%{origin}; }")
    response = nginx.get("/name")
    assert response.status == 301
    assert response.header("Location").endswith("/name/")
    assert origin.connections == 0


def test_an_absolute_form_target_becomes_origin_form(stage):
    origin = stage.origin()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    nginx.get("http://localhost/a%2Fb?c=d")
    assert origin.request.target == "/a%2Fb?c=d"


def test_an_absolute_form_target_without_path_asks_for_the_root(stage):
    origin = stage.origin()
    nginx = stage.nginx(location="myproxy_pass http://%{origin};")
    nginx.get("http://localhost?a=b")
    assert origin.request.target == "/?a=b"


# if, limit_except, named locations

def test_pass_inside_if(stage):
    origin = stage.origin()
    nginx = stage.nginx(location="""
        if ($arg_go) {
            myproxy_pass http://%{origin};
            break;
        }
        return 403;
    """)
    assert nginx.get("/a%2Fb").status == 403
    assert nginx.get("/a%2Fb?go=1").status == 200
    assert origin.request.target == "/a%2Fb?go=1"


def test_if_takes_over_the_pass_around_it(stage):
    origin = stage.origin()
    nginx = stage.nginx(server="""
        location /name/ {
            myproxy_pass http://%{origin}/remote/;
            if ($arg_mark) {
                set $mark 1;
            }
        }
    """)
    assert nginx.get("/name/x?mark=1").status == 200
    assert origin.request.target == "/remote/x?mark=1"


def test_if_replaces_the_pass_around_it(stage):
    first = stage.origin(name="first")
    second = stage.origin(name="second")
    nginx = stage.nginx(location="""
        myproxy_pass http://%{first};
        if ($arg_second) {
            myproxy_pass http://%{second};
        }
    """)
    nginx.get("/one")
    nginx.get("/two?second=1")
    assert first.request.target == "/one"
    assert second.request.target == "/two?second=1"


def test_pass_inside_limit_except(stage):
    first = stage.origin(name="first")
    second = stage.origin(name="second")
    nginx = stage.nginx(location="""
        myproxy_pass http://%{first};
        limit_except GET {
            myproxy_pass http://%{second};
        }
    """)
    nginx.get("/")
    nginx.request("DELETE", "/")
    assert first.request.method == "GET"
    assert second.request.method == "DELETE"


@pytest.mark.parametrize("target", ["/a%2Fb%20c?d=e", "/a//b/../c"])
def test_a_named_location_passes_the_target_untouched(stage, target):
    origin = stage.origin()
    nginx = stage.nginx(server="""
        location / { error_page 418 = @app; return 418; }
        location @app { myproxy_pass http://%{origin}; }
    """)
    assert nginx.get(target).status == 200
    assert origin.request.target == target


@pytest.mark.parametrize("server", [
    "location ~ ^/a { myproxy_pass http://127.0.0.1:1/uri; }",
    "location @app { myproxy_pass http://127.0.0.1:1/uri; }",
    "location / { if ($arg_a) { myproxy_pass http://127.0.0.1:1/uri; } }",
    "location / { limit_except GET { myproxy_pass http://127.0.0.1:1/; } }",
], ids=["regex", "named", "if", "limit_except"])
def test_a_uri_in_pass_needs_a_prefix_location(stage, server):
    code, text = stage.config_test(server=server)
    assert code != 0
    assert "cannot have the URI part" in text


# rewrite

@pytest.mark.parametrize("target, passed", [
    ("/a/x", "/b/x"),
    ("/a/x?c=d", "/b/x?c=d"),
    ("/a/x%20y", "/b/x%20y"),
    ("/a/x%2Fy", "/b/x/y"),
    ("/a/x%3Fy", "/b/x%3Fy"),
    ("/a/x%25y", "/b/x%25y"),
    ("/a/%C3%A9", "/b/%C3%A9"),
    ("/other%2Fx", "/other%2Fx"),
])
def test_after_rewrite_the_new_uri_is_passed(stage, target, passed):
    origin = stage.origin()
    nginx = stage.nginx(location="""
        rewrite ^/a/(.*)$ /b/$1 break;
        myproxy_pass http://%{origin};
    """)
    assert nginx.get(target).status == 200
    assert origin.request.target == passed


def test_after_rewrite_the_uri_in_pass_is_ignored(stage):
    origin = stage.origin()
    nginx = stage.nginx(server="""
        location /name/ {
            rewrite ^/name/(.*)$ /new/$1 break;
            myproxy_pass http://%{origin}/remote/;
        }
    """)
    nginx.get("/name/x")
    assert origin.request.target == "/new/x"


def test_rewrite_into_another_location_uses_its_pass(stage):
    origin = stage.origin()
    nginx = stage.nginx(server="""
        location /old/ {
            rewrite ^/old/(.*)$ /new/$1 last;
        }
        location /new/ {
            myproxy_pass http://%{origin}/remote/;
        }
    """)
    nginx.get("/old/x%20y")
    assert origin.request.target == "/remote/x%20y"


@pytest.mark.parametrize("replacement, passed", [
    ("/b", "/b?old=1"),
    ("/b?new=2", "/b?new=2&old=1"),
    ("/b?new=2?", "/b?new=2"),
    ("/b?", "/b"),
])
def test_rewrite_decides_about_the_arguments(stage, replacement, passed):
    origin = stage.origin()
    nginx = stage.nginx(location=f"""
        rewrite ^ {replacement} break;
        myproxy_pass http://%{{origin}};
    """)
    nginx.get("/a?old=1")
    assert origin.request.target == passed


# variables

@pytest.mark.parametrize("target", UNTOUCHED)
def test_variables_without_uri_leave_the_target(stage, target):
    origin = stage.origin()
    nginx = stage.nginx(location="""
        set $where %{origin};
        myproxy_pass http://$where;
    """)
    assert nginx.get(target).status == 200
    assert origin.request.target == target


@pytest.mark.parametrize("uri, target, passed", [
    ("/fixed", "/a?b=c", "/fixed"),
    ("$request_uri", "/a%2Fb?c=%20", "/a%2Fb?c=%20"),
    ("$uri", "/a%2Fb?c=d", "/a/b"),
    ("$uri$is_args$args", "/a?c=d", "/a?c=d"),
    ("/p?q=$arg_c", "/a?c=d", "/p?q=d"),
    ("?q=$arg_c", "/a?c=d", "/?q=d"),
])
def test_variables_with_uri_replace_the_target(stage, uri, target, passed):
    origin = stage.origin()
    nginx = stage.nginx(location=f"""
        set $where %{{origin}};
        myproxy_pass http://$where{uri};
    """)
    assert nginx.get(target).status == 200
    assert origin.request.target == passed


def test_captures_of_the_location_may_stand_in_pass(stage):
    origin = stage.origin()
    nginx = stage.nginx(server="""
        location ~ ^/(?<user>[a-z]+)/(.*)$ {
            myproxy_pass http://%{origin}/users/$user?file=$2;
        }
    """)
    nginx.get("/ann/photo")
    assert origin.request.target == "/users/ann?file=photo"


def test_the_whole_url_may_be_a_variable(stage):
    origin = stage.origin()
    nginx = stage.nginx(location="""
        set $url http://%{origin}/whole;
        myproxy_pass $url;
    """)
    nginx.get("/a")
    assert origin.request.target == "/whole"


def test_a_variable_may_name_an_upstream(stage):
    first = stage.origin(name="first")
    second = stage.origin(name="second")
    nginx = stage.nginx(
        http="""
            upstream one { server %{first}; }
            upstream two { server %{second}; }
        """,
        location="myproxy_pass http://$arg_to;")
    nginx.get("/?to=one")
    nginx.get("/?to=two")
    assert first.request.target == "/?to=one"
    assert second.request.target == "/?to=two"


def test_a_variable_may_hold_a_scheme_over_tls(stage):
    origin = stage.origin(tls="origin.test")
    nginx = stage.nginx(location="""
        set $scheme_wanted https;
        myproxy_ssl_verify off;
        myproxy_pass $scheme_wanted://%{origin};
    """)
    assert nginx.get("/a").status == 200
    assert origin.request.target == "/a"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1", "http:/x"])
def test_a_variable_without_a_known_scheme_is_an_error(stage, url):
    nginx = stage.nginx(location=f"""
        set $url {url};
        myproxy_pass $url;
    """)
    assert nginx.get("/").status == 500
    assert nginx.logged("must begin with")


# unix sockets and IPv6

@pytest.mark.parametrize("uri, target, passed", [
    ("", "/name/a%2Fb?c=d", "/name/a%2Fb?c=d"),
    (":/remote/", "/name/a%20b?c=d", "/remote/a%20b?c=d"),
])
def test_a_unix_socket(stage, uri, target, passed):
    origin = stage.origin(family="unix")
    nginx = stage.nginx(server=f"""
        location /name/ {{
            myproxy_pass http://%{{origin}}{uri};
        }}
    """)
    assert nginx.get(target).status == 200
    assert origin.request.target == passed


@pytest.mark.parametrize("uri, passed", [
    ("", "/a?b=c"), (":/x$uri", "/x/a")])
def test_a_unix_socket_in_a_variable(stage, uri, passed):
    origin = stage.origin(family="unix")
    nginx = stage.nginx(location=f"""
        set $where %{{origin}};
        myproxy_pass http://$where{uri};
    """)
    assert nginx.get("/a?b=c").status == 200
    assert origin.request.target == passed


def test_an_ipv6_address(stage, ipv6):
    origin = stage.origin(family="ipv6")
    nginx = stage.nginx(server="""
        location /name/ {
            myproxy_pass http://%{origin}/remote/;
        }
    """)
    assert nginx.get("/name/x").status == 200
    assert origin.request.target == "/remote/x"


def test_an_ipv6_address_in_a_variable(stage, ipv6):
    origin = stage.origin(family="ipv6")
    nginx = stage.nginx(location="""
        set $where %{origin};
        myproxy_pass http://$where;
    """)
    assert nginx.get("/x").status == 200
    assert origin.request.target == "/x"


def test_an_upstream_block(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        http="upstream app { server %{origin}; }",
        server="location /name/ { myproxy_pass http://app/remote/; }")
    assert nginx.get("/name/x").status == 200
    assert origin.request.target == "/remote/x"


# names

def test_a_name_in_a_variable_is_resolved(stage):
    dns = stage.dns({"origin.test": ["127.0.0.1"]})
    origin = stage.origin()
    nginx = stage.nginx(location="""
        resolver %{dns} ipv6=off;
        set $where origin.test;
        myproxy_pass http://$where:%{origin.port};
    """)
    assert nginx.get("/a%2Fb").status == 200
    assert origin.request.target == "/a%2Fb"
    assert dns.questions == ["origin.test"]


def test_a_name_may_resolve_to_ipv6(stage, ipv6):
    stage.dns({"origin.test": ["::1"]})
    origin = stage.origin(family="ipv6")
    nginx = stage.nginx(location="""
        resolver %{dns};
        set $where origin.test;
        myproxy_pass http://$where:%{origin.port};
    """)
    assert nginx.get("/").status == 200
    assert origin.connections == 1


def test_a_resolved_name_is_remembered(stage):
    dns = stage.dns({"origin.test": ["127.0.0.1"]}, ttl=600)
    stage.origin()
    nginx = stage.nginx(location="""
        resolver %{dns} ipv6=off;
        set $where origin.test;
        myproxy_pass http://$where:%{origin.port};
    """)
    assert nginx.get("/").status == 200
    assert nginx.get("/").status == 200
    assert dns.questions == ["origin.test"]


def test_a_name_that_does_not_exist_gives_502(stage):
    stage.dns({})
    nginx = stage.nginx(location="""
        resolver %{dns} ipv6=off;
        set $where nowhere.test;
        myproxy_pass http://$where;
    """)
    assert nginx.get("/").status == 502
    assert nginx.logged("nowhere.test could not be resolved")


def test_a_name_without_a_resolver_gives_502(stage):
    nginx = stage.nginx(location="""
        set $where nowhere.test;
        myproxy_pass http://$where;
    """)
    assert nginx.get("/").status == 502
    assert nginx.logged("no resolver defined to resolve nowhere.test")


def test_each_address_of_a_name_is_tried(stage):
    stage.dns({"origin.test": ["127.0.0.2", "127.0.0.1"]})
    origin = stage.origin()
    nginx = stage.nginx(location="""
        resolver %{dns} ipv6=off;
        set $where origin.test;
        myproxy_pass http://$where:%{origin.port};
    """)
    for _ in range(2):
        assert nginx.get("/").status == 200
    assert len(origin.requests) == 2


# configuration errors

@pytest.mark.parametrize("location, message", [
    ("myproxy_pass ftp://127.0.0.1;", "must begin with"),
    ("myproxy_pass 127.0.0.1;", "must begin with"),
    ("myproxy_pass http://;", "no host"),
    ("myproxy_pass http://127.0.0.1:0;", "invalid port"),
    ("myproxy_pass http://127.0.0.1:1; myproxy_pass http://127.0.0.1:2;",
     "is duplicate"),
    ("myproxy_pass;", "invalid number of arguments"),
    ("myproxy_pass http://127.0.0.1 http://127.0.0.1;",
     "invalid number of arguments"),
    ("myproxy_pass http://name.invalid;",
     'host not found in upstream "name.invalid"'),
])
def test_a_wrong_pass_is_refused(stage, location, message):
    code, text = stage.config_test(location=location)
    assert code != 0
    assert message in text


@pytest.mark.parametrize("level", ["http", "server"])
def test_pass_outside_a_location_is_refused(stage, level):
    code, text = stage.config_test(
        **{level: "myproxy_pass http://127.0.0.1;"})
    assert code != 0
    assert "directive is not allowed here" in text
