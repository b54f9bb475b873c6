"""Location, Refresh and Set-Cookie as the client gets them."""

import pytest

from harness import http1

RELATIVE = "absolute_redirect off;"
PASS = "myproxy_pass http://%{origin};"


def location_of(nginx, target="/", *lines):
    return nginx.get(target, *lines).header("Location")


def echo(name):
    """The origin answers with the field that the request's X-Wanted has."""
    def answer(request):
        return http1.response(302, *[f"{name}: {value}" for value in
                                     request.values("X-Wanted")])
    return answer


def redirects(conn):
    conn.serve(echo("Location"))


def rewritten(stage, config, **more):
    """A function: what a Location becomes."""
    origin = stage.origin(redirects)
    more.setdefault("server", RELATIVE)
    nginx = stage.nginx(location=config, **more)
    return lambda value, target="/": location_of(
        nginx, target, "X-Wanted: " + value.replace("ORIGIN", str(origin)))


# myproxy_redirect default

def test_the_default_maps_the_pass_to_the_location(stage):
    rewrite = rewritten(stage, PASS)
    assert rewrite("http://ORIGIN/") == "/"
    assert rewrite("http://ORIGIN/a/b?c=d#e") == "/a/b?c=d#e"


def test_the_default_maps_the_uri_of_the_pass(stage):
    stage.origin(redirects)
    nginx = stage.nginx(server=RELATIVE + """
        location /front/ { myproxy_pass http://%{origin}/back/; }
    """)
    where = f"http://{stage.names['origin']}"
    for before, after in [
            (where + "/back/x", "/front/x"), (where + "/back/", "/front/"),
            (where + "/other", where + "/other")]:
        assert location_of(nginx, "/front/", f"X-Wanted: {before}") == after


@pytest.mark.parametrize("value", [
    "http://other.example/x", "https://ORIGIN/x", "//ORIGIN/x", "x",
    "http://ORIGIN"])
def test_the_default_leaves_other_urls_alone(stage, value):
    origin = stage.origin(redirects)
    nginx = stage.nginx(server=RELATIVE, location=PASS)
    value = value.replace("ORIGIN", str(origin))
    assert location_of(nginx, "/", f"X-Wanted: {value}") == value


def test_the_default_knows_the_upstreams_name(stage):
    rewrite = rewritten(stage, "myproxy_pass http://app;",
                        http="upstream app { server %{origin}; }")
    assert rewrite("http://app/x") == "/x"
    assert rewrite("http://application/x") == "http://application/x"


def test_the_default_is_made_absolute_by_nginx(stage):
    origin = stage.origin(redirects)
    nginx = stage.nginx(location=PASS)
    assert location_of(nginx, "/", f"X-Wanted: http://{origin}/x") == (
        f"http://localhost:{nginx.port()}/x")


def test_the_default_may_be_written(stage):
    rewrite = rewritten(stage, PASS + """
        myproxy_redirect default;
        myproxy_redirect http://other.example/ /other/;
    """)
    assert rewrite("http://ORIGIN/x") == "/x"
    assert rewrite("http://other.example/x") == "/other/x"


def test_there_is_no_default_with_variables(stage):
    origin = stage.origin(redirects)
    nginx = stage.nginx(server=RELATIVE, location="""
        set $where %{origin};
        myproxy_pass http://$where;
    """)
    value = f"http://{origin}/x"
    assert location_of(nginx, "/", f"X-Wanted: {value}") == value


@pytest.mark.parametrize("config, word", [
    ("myproxy_redirect default; myproxy_pass http://%{origin};",
     "redirect default\""),
    ("set $where x; myproxy_pass http://$where; myproxy_redirect default;",
     "redirect default\""),
    (PASS + "myproxy_redirect off; myproxy_redirect a b;", "duplicate"),
    (PASS + "myproxy_redirect a b; myproxy_redirect off;", "duplicate"),
    (PASS + "myproxy_redirect something;", "invalid parameter"),
    (PASS + "myproxy_redirect ~( /;", "pcre"),
])
def test_a_rule_that_makes_no_sense_is_an_error(stage, config, word):
    stage.origin()
    code, text = stage.config_test(location=config)
    assert code == 1
    assert word in text.lower()


def test_any_status_may_have_a_location(stage):
    origin = stage.origin()
    origin.script = http1.response(201, f"Location: http://{origin}/new")
    nginx = stage.nginx(server=RELATIVE, location=PASS)
    assert location_of(nginx) == "/new"


# myproxy_redirect with rules

def test_off_leaves_all_as_it_is(stage):
    origin = stage.origin(redirects)
    nginx = stage.nginx(server=RELATIVE,
                        location=PASS + "myproxy_redirect off;")
    value = f"http://{origin}/x"
    assert location_of(nginx, "/", f"X-Wanted: {value}") == value


def test_a_prefix_is_replaced(stage):
    rewrite = rewritten(
        stage, PASS + "myproxy_redirect http://a.example/b/ /c/;")
    assert rewrite("http://a.example/b/x") == "/c/x"
    assert rewrite("http://a.example/B/x") == "http://a.example/B/x"
    assert rewrite("x/http://a.example/b/") == "x/http://a.example/b/"


def test_a_rule_takes_the_place_of_the_default(stage):
    origin = stage.origin(redirects)
    nginx = stage.nginx(server=RELATIVE, location=PASS
                        + "myproxy_redirect http://a.example/ /;")
    value = f"http://{origin}/x"
    assert location_of(nginx, "/", f"X-Wanted: {value}") == value


def test_a_prefix_may_become_another_host(stage):
    rewrite = rewritten(
        stage, PASS + "myproxy_redirect http://a.example/ https://b.test/;")
    assert rewrite("http://a.example/x") == "https://b.test/x"


def test_a_relative_location_may_be_replaced(stage):
    rewrite = rewritten(stage, PASS + "myproxy_redirect /a/ /b/;")
    assert rewrite("/a/x") == "/b/x"


def test_a_regex_replaces_the_whole(stage):
    rewrite = rewritten(
        stage, PASS + "myproxy_redirect ~^http://([^/]+)/(.*)$ /$2?h=$1;")
    assert rewrite("http://a.example/x/y") == "/x/y?h=a.example"
    assert rewrite("ftp://a.example/x") == "ftp://a.example/x"
    assert rewrite("HTTP://a.example/x") == "HTTP://a.example/x"


def test_a_regex_may_have_named_captures(stage):
    rewrite = rewritten(
        stage, PASS + "myproxy_redirect ~/(?<user>u[0-9]+)/ /users/$user;")
    assert rewrite("http://a.example/u12/x") == "/users/u12"


def test_a_regex_may_ignore_case(stage):
    rewrite = rewritten(
        stage, PASS + "myproxy_redirect ~*^http://A.example(.*)$ $1;")
    assert rewrite("HTTP://a.EXAMPLE/x") == "/x"


def test_a_rule_may_have_variables(stage):
    rewrite = rewritten(stage, """
        set $from http://a.example;
    """ + PASS + "myproxy_redirect $from/ $scheme://$http_host$uri/;")
    assert rewrite("http://a.example/x", "/here") == (
        "http://localhost/here/x")


def test_a_rule_may_name_the_origin_by_variables(stage):
    rewrite = rewritten(stage, PASS + """
        myproxy_redirect http://$myproxy_host/ /by-host/;
    """)
    assert rewrite("http://ORIGIN/x") == "/by-host/x"


def test_the_first_rule_that_matches_wins(stage):
    rewrite = rewritten(stage, PASS + """
        myproxy_redirect http://a.example/b/ /first/;
        myproxy_redirect ~^http://a /second/;
        myproxy_redirect http://a.example/ /third/;
        myproxy_redirect / /fourth/;
    """)
    assert rewrite("http://a.example/b/x") == "/first/x"
    assert rewrite("http://a.example/c/x") == "/second/"
    assert rewrite("/x") == "/fourth/x"


def test_what_was_rewritten_is_not_rewritten_again(stage):
    rewrite = rewritten(stage, PASS + """
        myproxy_redirect /a/ /b/;
        myproxy_redirect /b/ /c/;
    """)
    assert rewrite("/a/x") == "/b/x"


def test_rules_are_inherited(stage):
    rewrite = rewritten(
        stage, PASS, http="myproxy_redirect http://a.example/ /http/;")
    assert rewrite("http://a.example/x") == "/http/x"


def test_own_rules_replace_inherited_ones(stage):
    rewrite = rewritten(
        stage, PASS + "myproxy_redirect http://b.example/ /own/;",
        http="myproxy_redirect http://a.example/ /http/;")
    assert rewrite("http://a.example/x") == "http://a.example/x"
    assert rewrite("http://b.example/x") == "/own/x"


def test_off_ends_inheritance(stage):
    rewrite = rewritten(
        stage, PASS + "myproxy_redirect off;",
        http="myproxy_redirect http://a.example/ /http/;")
    assert rewrite("http://a.example/x") == "http://a.example/x"


def test_off_is_inherited(stage):
    origin = stage.origin(redirects)
    nginx = stage.nginx(http="myproxy_redirect off;", server=RELATIVE,
                        location=PASS)
    value = f"http://{origin}/x"
    assert location_of(nginx, "/", f"X-Wanted: {value}") == value


def test_a_cached_redirect_is_rewritten_for_each_request(stage):
    origin = stage.origin(redirects)
    nginx = stage.nginx(
        http="myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;",
        server=RELATIVE, location=PASS + """
            myproxy_cache zone;
            myproxy_cache_valid 302 1h;
            myproxy_redirect http://a.example/ /$arg_a/$http_x_own/;
        """)
    for own in ("one", "two"):
        assert location_of(
            nginx, "/?a=b", "X-Wanted: http://a.example/x",
            f"X-Own: {own}") == f"/b/{own}/x"
    assert len(origin.requests) == 1


# Refresh

@pytest.mark.parametrize("before, after", [
    ("5; url=http://ORIGIN/x", "5; url=/x"),
    ("0;URL=http://ORIGIN/x", "0;URL=/x"),
    ("5; url=http://other.example/x", "5; url=http://other.example/x"),
    ("5", "5"),
    ("http://ORIGIN/x", "http://ORIGIN/x"),
])
def test_refresh_is_rewritten(stage, before, after):
    origin = stage.origin()
    origin.script = http1.response(
        200, "Refresh: " + before.replace("ORIGIN", str(origin)))
    response = stage.nginx(location=PASS).get("/")
    assert response.header("Refresh") == after.replace("ORIGIN", str(origin))


def test_refresh_is_rewritten_by_rules(stage):
    stage.origin(http1.response(200, "Refresh: 5; url=http://a.example/x"))
    nginx = stage.nginx(location=PASS
                        + "myproxy_redirect ~^http://(.*)$ /to/$1;")
    assert nginx.get("/").header("Refresh") == "5; url=/to/a.example/x"


# Set-Cookie

def cookies(stage, config, *values, target="/", lines=(), **more):
    """What becomes of the values of Set-Cookie."""
    stage.origin(http1.response(
        200, *[f"Set-Cookie: {value}" for value in values]))
    nginx = stage.nginx(location=PASS + config, **more)
    return nginx.get(target, *lines).values("Set-Cookie")


def cookie(stage, config, value, **more):
    found = cookies(stage, config, value, **more)
    assert len(found) == 1
    return found[0]


UNUSUAL = "a=\"b c\" ;Path=/;;Domain=example.org;  x; y=z=w;"


@pytest.mark.parametrize("config", [
    "", "myproxy_cookie_domain off;", "myproxy_cookie_path off;",
    "myproxy_cookie_flags off;", "myproxy_cookie_domain other.example x;",
    "myproxy_cookie_path /other x;", "myproxy_cookie_flags other secure;"])
def test_a_cookie_without_a_rule_passes_byte_for_byte(stage, config):
    assert cookie(stage, config, UNUSUAL) == UNUSUAL


@pytest.mark.parametrize("before, after", [
    ("a=b; Domain=example.org", "a=b; Domain=own.test"),
    ("a=b; domain=example.org", "a=b; domain=own.test"),
    ("a=b; Domain=EXAMPLE.org", "a=b; Domain=own.test"),
    ("a=b; Domain=.example.org; Path=/", "a=b; Domain=.own.test; Path=/"),
    ("a=b; Domain=www.example.org", "a=b; Domain=www.example.org"),
    ("a=b; Domain=example.org.test", "a=b; Domain=example.org.test"),
    ("a=example.org; Path=example.org", "a=example.org; Path=example.org"),
    ("domain=example.org; Path=/", "domain=example.org; Path=/"),
    ("a=b; Domain", "a=b; Domain"),
    ("a=b; Domain=", "a=b; Domain="),
    ("a=b; Domain=.", "a=b; Domain=."),
    ("a=b", "a=b"),
])
@pytest.mark.parametrize("dot", ["", "."])
@pytest.mark.parametrize("to", ["own.test", ".own.test"])
def test_a_cookies_domain_is_replaced(stage, dot, to, before, after):
    assert cookie(stage, f"myproxy_cookie_domain {dot}example.org {to};",
                  before) == after


@pytest.mark.parametrize("before, after", [
    ("a=b; Domain=www.example.org", "a=b; Domain=www.own.test"),
    ("a=b; Domain=WWW.EXAMPLE.ORG", "a=b; Domain=WWW.own.test"),
    ("a=b; Domain=.www.example.org", "a=b; Domain=.www.example.org"),
])
def test_a_cookies_domain_is_replaced_by_regex(stage, before, after):
    assert cookie(stage, "myproxy_cookie_domain "
                  r"~^([a-z]+)\.example\.org$ $1.own.test;", before) == after


def test_a_cookies_domain_may_have_variables(stage):
    assert cookie(stage, "myproxy_cookie_domain $arg_from $host;",
                  "a=b; Domain=example.org",
                  target="/?from=example.org") == "a=b; Domain=localhost"


def test_the_first_rule_for_a_domain_wins(stage):
    config = """
        myproxy_cookie_domain a.example first.test;
        myproxy_cookie_domain ~example second.test;
        myproxy_cookie_domain b.example third.test;
    """
    assert cookies(stage, config, "a=1; Domain=a.example",
                   "b=2; Domain=b.example", "c=3; Domain=c.org") == [
        "a=1; Domain=first.test", "b=2; Domain=second.test",
        "c=3; Domain=c.org"]


@pytest.mark.parametrize("before, after", [
    ("a=b; Path=/back/x", "a=b; Path=/front/x"),
    ("a=b; path=/back/", "a=b; path=/front/"),
    ("a=b; Path=/back", "a=b; Path=/back"),
    ("a=b; Path=/Back/", "a=b; Path=/Back/"),
    ("a=b; Path=/other/back/", "a=b; Path=/other/back/"),
    ("Path=/back/; HttpOnly", "Path=/back/; HttpOnly"),
    ("a=/back/; Domain=/back/", "a=/back/; Domain=/back/"),
    ("a=b; Max-Age=5; Path=/back/; Secure",
     "a=b; Max-Age=5; Path=/front/; Secure"),
])
def test_a_cookies_path_is_replaced(stage, before, after):
    assert cookie(stage, "myproxy_cookie_path /back/ /front/;",
                  before) == after


@pytest.mark.parametrize("pattern, before, after", [
    ("~^/back/(.*)$", "a=b; Path=/back/x", "a=b; Path=/front/x"),
    ("~^/back/(.*)$", "a=b; Path=/BACK/x", "a=b; Path=/BACK/x"),
    ("~*^/back/(.*)$", "a=b; Path=/BACK/x", "a=b; Path=/front/x")])
def test_a_cookies_path_is_replaced_by_regex(stage, pattern, before, after):
    assert cookie(stage, f"myproxy_cookie_path {pattern} /front/$1;",
                  before) == after


def test_a_cookies_path_may_have_variables(stage):
    assert cookie(stage, 'myproxy_cookie_path / "$uri/";',
                  "a=b; Path=/x", target="/here") == "a=b; Path=/here/x"


def test_a_cookies_path_may_add_attributes(stage):
    assert cookie(stage, 'myproxy_cookie_path / "/; secure; HttpOnly";',
                  "a=b; Path=/") == "a=b; Path=/; secure; HttpOnly"


def test_domain_and_path_are_replaced_together(stage):
    config = """
        myproxy_cookie_domain example.org own.test;
        myproxy_cookie_path / /own/;
    """
    assert cookie(stage, config, "a=b; Path=/; Domain=example.org") == (
        "a=b; Path=/own/; Domain=own.test")


def test_each_cookie_is_rewritten(stage):
    assert cookies(stage, "myproxy_cookie_path / /own/;", "a=1; Path=/x",
                   "b=2; Path=/", "c=3") == [
        "a=1; Path=/own/x", "b=2; Path=/own/", "c=3"]


def test_a_field_that_is_no_cookie_passes(stage):
    assert cookie(stage, "myproxy_cookie_path / /own/;"
                  "myproxy_cookie_flags ~ secure;",
                  "nonsense; Path=/") == "nonsense; Path=/"


# flags

@pytest.mark.parametrize("flags, before, after", [
    ("secure", "a=b", "a=b; Secure"),
    ("httponly", "a=b", "a=b; HttpOnly"),
    ("samesite=strict", "a=b", "a=b; SameSite=Strict"),
    ("samesite=lax", "a=b", "a=b; SameSite=Lax"),
    ("samesite=none", "a=b", "a=b; SameSite=None"),
    ("secure httponly samesite=lax", "a=b; Path=/",
     "a=b; Path=/; Secure; HttpOnly; SameSite=Lax"),
    ("secure", "a=b; Secure; Path=/", "a=b; Secure; Path=/"),
    ("httponly", "a=b; HttpOnly", "a=b; HttpOnly"),
    ("samesite=strict", "a=b; SameSite=Lax; Path=/",
     "a=b; SameSite=Strict; Path=/"),
    ("samesite=strict", "a=b; SameSite=Strict", "a=b; SameSite=Strict"),
    ("nosecure", "a=b; Secure; Path=/", "a=b; Path=/"),
    ("nosecure", "a=b; secure", "a=b"),
    ("nohttponly", "a=b; Path=/; HttpOnly", "a=b; Path=/"),
    ("nosamesite", "a=b; SameSite=None; Secure", "a=b; Secure"),
    ("nosecure nohttponly nosamesite",
     "a=b; Secure; HttpOnly; SameSite=Lax; Path=/", "a=b; Path=/"),
    ("nosecure httponly", "a=b; Secure", "a=b; HttpOnly"),
    ("nosecure", "a=b; Path=/", "a=b; Path=/"),
    ("SECURE", "a=b", "a=b; Secure"),
])
def test_flags_are_set_and_removed(stage, flags, before, after):
    assert cookie(stage, f"myproxy_cookie_flags a {flags};", before) == after


@pytest.mark.parametrize("flags, before, after", [
    ("secure", "secure=1", "secure=1; Secure"),
    ("secure", "Secure=1; Secure", "Secure=1; Secure"),
    ("httponly", "HttpOnly=1; Path=/", "HttpOnly=1; Path=/; HttpOnly"),
    ("samesite=lax", "SameSite=1", "SameSite=1; SameSite=Lax"),
    ("samesite=lax", "SameSite=None; SameSite=None",
     "SameSite=None; SameSite=Lax"),
    ("nosecure", "secure=1; Secure", "secure=1"),
    ("nosecure", "secure=1", "secure=1"),
    ("nohttponly", "httponly=1; HttpOnly; Path=/", "httponly=1; Path=/"),
    ("nosamesite", "SameSite=Lax; SameSite=Lax", "SameSite=Lax"),
])
def test_a_cookies_own_name_is_no_flag(stage, flags, before, after):
    assert cookie(stage, f"myproxy_cookie_flags ~. {flags};", before) == after


@pytest.mark.parametrize("config, before, after", [
    ("myproxy_cookie_path /a /b;", "Path=/a; Path=/a", "Path=/a; Path=/b"),
    ("myproxy_cookie_domain a.example b.example;",
     "domain=a.example; Domain=a.example", "domain=a.example; "
     "Domain=b.example")])
def test_a_cookies_own_name_is_no_domain_or_path(stage, config, before,
                                                 after):
    assert cookie(stage, config, before) == after


@pytest.mark.parametrize("name, after", [
    ("a", "a=b; Secure"), ("b", "a=b"), ("A", "a=b; Secure"),
    ("ab", "a=b"), ("~^a", "a=b; Secure"), ("~b", "a=b"),
    ("~^A$", "a=b; Secure"), ("$arg_name", "a=b; Secure")])
def test_flags_are_for_cookies_of_that_name(stage, name, after):
    assert cookie(stage, f"myproxy_cookie_flags {name} secure;", "a=b",
                  target="/?name=a") == after


def test_the_first_rule_for_a_cookie_has_the_flags(stage):
    config = """
        myproxy_cookie_flags a httponly;
        myproxy_cookie_flags ~ secure;
    """
    assert cookies(stage, config, "a=1", "b=2") == ["a=1; HttpOnly",
                                                    "b=2; Secure"]


@pytest.mark.parametrize("value, after", [
    ("secure", "a=b; Secure"), ("samesite=lax", "a=b; SameSite=Lax"),
    ("nosamesite", "a=b"), ("", "a=b")])
def test_flags_may_be_variables(stage, value, after):
    assert cookie(stage, "myproxy_cookie_flags a $arg_flag;", "a=b",
                  target=f"/?flag={value}") == after


def test_an_unknown_flag_is_warned_about(stage):
    stage.origin()
    code, text = stage.config_test(
        location=PASS + "myproxy_cookie_flags a scure;")
    assert code == 0
    assert "[warn]" in text
    assert 'unknown flag "scure"' in text


def test_an_unknown_flag_of_a_variable_is_warned_about(stage):
    stage.origin(http1.response(200, "Set-Cookie: a=b"))
    nginx = stage.nginx(location=PASS
                        + "myproxy_cookie_flags a $arg_flag httponly;")
    response = nginx.get("/?flag=scure")
    assert response.header("Set-Cookie") == "a=b; HttpOnly"
    assert nginx.logged('unknown flag "scure"')


def test_flags_go_with_domain_and_path(stage):
    config = """
        myproxy_cookie_domain example.org own.test;
        myproxy_cookie_path / /own/;
        myproxy_cookie_flags a secure;
    """
    assert cookie(stage, config, "a=b; Path=/; Domain=example.org") == (
        "a=b; Path=/own/; Domain=own.test; Secure")


RULES = """
    myproxy_cookie_domain example.org own.test;
    myproxy_cookie_path / /own/;
    myproxy_cookie_flags a secure;
"""


def test_rules_for_cookies_are_inherited(stage):
    assert cookie(stage, "", "a=b; Path=/; Domain=example.org",
                  http=RULES) == (
        "a=b; Path=/own/; Domain=own.test; Secure")


def test_off_ends_the_inheritance_for_cookies(stage):
    assert cookie(stage, """
        myproxy_cookie_domain off;
        myproxy_cookie_path off;
        myproxy_cookie_flags off;
    """, "a=b; Path=/; Domain=example.org", http=RULES) == (
        "a=b; Path=/; Domain=example.org")


@pytest.mark.parametrize("name", [
    "myproxy_cookie_domain", "myproxy_cookie_path", "myproxy_cookie_flags"])
@pytest.mark.parametrize("text, word", [
    ("{} off; {} off;", "duplicate"), ("{} off; {} a b;", "duplicate"),
    ("{} a b; {} off;", "duplicate"), ("{} on;", "invalid parameter"),
    ("{} ~( b;", "pcre")])
def test_a_rule_for_cookies_that_makes_no_sense_is_an_error(stage, name,
                                                            text, word):
    stage.origin()
    code, said = stage.config_test(
        location=PASS + text.replace("{}", name))
    assert code == 1
    assert word in said.lower()


# what is too much for a regex

@pytest.mark.parametrize("config, line", [
    ("myproxy_redirect ~^(a+)+$ b;", "Location: "),
    ("myproxy_cookie_path ~^(a+)+$ b;", "Set-Cookie: a=b; Path="),
    ("myproxy_cookie_domain ~^(a+)+$ b;", "Set-Cookie: a=b; Domain="),
    ("myproxy_cookie_flags ~^(a+)+$ secure;", "Set-Cookie: "),
])
def test_a_regex_that_gives_up_replaces_nothing_half(stage, config, line):
    """PCRE has a limit to its attempts; the worker's time has one, too."""
    origin = stage.origin(http1.response(
        200, line + "a" * 40 + "!" + ("=1" if line.endswith(": ") else "")))
    nginx = stage.nginx(location=PASS + config)
    nginx.expect_log(r"\[alert\].*(ngx_regex_exec|pcre_exec|pcre2_match)\(\) "
                     "failed")
    assert nginx.get("/").status == 500
    assert nginx.get("/none").status == 500
    assert len(origin.requests) == 2
