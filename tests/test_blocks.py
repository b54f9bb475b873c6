"""The blocks if and limit_except, and locations within others."""

import pytest

from harness import http1
from harness.written import PASS, check


def test_if_inherits_the_target(stage):
    origin = stage.origin()
    nginx = stage.nginx(server="""
        location /a/ {
            myproxy_pass http://%{origin}/b/;
            myproxy_set_header X-A 1;
            if ($arg_x) { add_header X-If 1; }
        }
    """)
    response = nginx.get("/a/c?x=1")
    assert (response.status, response.header("X-If")) == (200, "1")
    assert origin.request.target == "/b/c?x=1"
    assert origin.request.header("X-A") == "1"


def test_if_inherits_a_target_of_variables(stage):
    origin = stage.origin()
    nginx = stage.nginx(location="""
        set $target %{origin};
        myproxy_pass http://$target;
        if ($arg_x) { add_header X-If 1; }
    """)
    response = nginx.get("/a?x=1")
    assert (response.status, response.header("X-If")) == (200, "1")
    assert origin.request.target == "/a?x=1"


def test_if_inherits_a_target_with_tls(stage):
    origin = stage.origin(tls="origin.test")
    nginx = stage.nginx(
        http="upstream origin.test { server %{origin}; }",
        location="""
            myproxy_pass https://origin.test;
            myproxy_ssl_trusted_certificate %{authority.path};
            if ($arg_x) { add_header X-If 1; }
        """)
    response = nginx.get("/a?x=1")
    assert (response.status, response.header("X-If")) == (200, "1")
    assert origin.conns[0].sni == "origin.test"


def test_if_replaces_the_target(stage):
    one, two = stage.origin(name="one"), stage.origin(name="two")
    nginx = stage.nginx(location="""
        myproxy_pass http://%{one};
        if ($arg_x) { myproxy_pass http://%{two}; }
    """)
    assert nginx.get("/").status == 200
    assert nginx.get("/?x=1").status == 200
    assert [len(one.requests), len(two.requests)] == [1, 1]


def test_if_replaces_another_handler(stage):
    one, two = stage.origin(name="one"), stage.origin(name="two")
    nginx = stage.nginx(location="""
        proxy_pass http://%{one};
        if ($arg_x) { myproxy_pass http://%{two}; }
    """)
    assert nginx.get("/").status == 200
    assert nginx.get("/?x=1").status == 200
    assert [len(one.requests), len(two.requests)] == [1, 1]


def test_limit_except_inherits_the_target(stage):
    origin = stage.origin()
    nginx = stage.nginx(server="""
        location /a/ {
            myproxy_pass http://%{origin}/b/;
            myproxy_set_header X-A 1;
            limit_except GET { allow all; }
        }
    """)
    assert nginx.post("/a/c", b"body").status == 200
    assert (origin.request.target, origin.request.body) == ("/b/c", b"body")
    assert origin.request.header("X-A") == "1"


def test_limit_except_inherits_a_target_of_variables(stage):
    origin = stage.origin()
    nginx = stage.nginx(server="set $target %{origin};", location="""
        myproxy_pass http://$target;
        limit_except GET { allow all; }
    """)
    assert nginx.post("/a", b"body").status == 200
    assert origin.request.method == "POST"


def test_limit_except_denies(stage):
    origin = stage.origin()
    nginx = stage.nginx(location=PASS + "limit_except GET { deny all; }")
    assert nginx.get().status == 200
    assert nginx.post("/", b"body").status == 403
    assert len(origin.requests) == 1


def test_limit_except_replaces_the_target(stage):
    one, two = stage.origin(name="one"), stage.origin(name="two")
    nginx = stage.nginx(location="""
        myproxy_pass http://%{one};
        limit_except GET { myproxy_pass http://%{two}; }
    """)
    assert nginx.get().status == 200
    assert nginx.post("/", b"body").status == 200
    assert [len(one.requests), len(two.requests)] == [1, 1]


@pytest.mark.parametrize("location", [
    "if ($t) { myproxy_pass http://%{origin}; } if ($t) { set $x 1; }",
    "if ($t) { myproxy_pass http://%{origin}; } if ($t) { }",
    "if ($t) { myproxy_pass http://$a; } if ($t) { set $x 1; }",
    "if ($t) { myproxy_pass http://%{origin}; }"
    "if ($t) { add_header X-A $t; expires 1h; }",
    "proxy_pass http://%{origin};"
    "if ($t) { myproxy_pass http://%{origin}; } if ($t) { set $x 1; }",
    "limit_except POST { deny all; }"
    "if ($t) { myproxy_pass http://%{origin}; } if ($t) { set $x 1; }",
], ids=["set", "empty", "variables", "settings", "other", "limited"])
def test_an_if_without_a_target_behind_one_that_has_it(stage, location):
    """The handler of the one meets the configuration of the other."""
    origin = stage.origin()
    nginx = stage.nginx(
        server="set $t 1; set $a %{origin};",
        http="myproxy_cache_path %{prefix}/cache keys_zone=z:1m;"
             "myproxy_cache z;",
        location=location)
    for _ in range(2):
        assert nginx.post("/", b"body").status == 500
    assert len(nginx.logged(
        'no "myproxy_pass" for this request: the last "if" that was true in '
        'location "/" has none.*; write "myproxy_pass" in')) == 2
    assert origin.connections == 0


def test_an_if_without_a_target_behind_one_that_was_false(stage):
    origin = stage.origin()
    nginx = stage.nginx(files={"html/a.txt": "file"}, location="""
        root %{prefix}/html;
        if ($arg_a) { myproxy_pass http://%{origin}; }
        if ($arg_b) { add_header X-If 1; }
    """)
    assert nginx.get("/a.txt?b=1").body == b"file"
    assert nginx.get("/a.txt?a=1").body == b"hello\n"
    assert nginx.get("/a.txt?a=1&b=1").status == 500


def test_a_location_without_a_target_behind_an_if_that_has_it(stage):
    """A location that is found anew takes no handler from the one before."""
    origin = stage.origin(http1.response(503))
    nginx = stage.nginx(files={"html/a.txt": "file"}, server="""
        root %{prefix}/html;
        location / {
            set $t 1;
            if ($t) { myproxy_pass http://%{origin}; }
            myproxy_intercept_errors on;
            error_page 503 = @named;
        }
        location @named { if ($t) { set $x 1; } }
    """)
    assert nginx.get("/a.txt").body == b"file"
    assert len(origin.requests) == 1


def test_a_nested_location_does_not_inherit_the_target(stage):
    origin = stage.origin()
    nginx = stage.nginx(
        files={"html/a/b/c.txt": "file"},
        server="""
            root %{prefix}/html;
            location /a/ {
                myproxy_pass http://%{origin};
                location /a/b/ { }
            }
        """)
    assert nginx.get("/a/c.txt").body == b"hello\n"
    assert nginx.get("/a/b/c.txt").body == b"file"
    assert origin.request.target == "/a/c.txt"


def test_a_nested_location_inherits_the_rest(stage):
    origin = stage.origin()
    nginx = stage.nginx(server="""
        location /a/ {
            myproxy_pass http://%{origin};
            myproxy_set_header X-A 1;
            location /a/b/ { myproxy_pass http://%{origin}/nested/; }
        }
    """)
    assert nginx.get("/a/b/c").status == 200
    assert origin.request.target == "/nested/c"
    assert origin.request.header("X-A") == "1"


def test_a_reload_takes_what_has_changed(stage):
    origin = stage.origin()
    nginx = stage.nginx(http="myproxy_set_header X-A 1;", location=PASS)
    assert nginx.get().status == 200
    nginx.reload(http="myproxy_set_header X-A 2;")
    assert nginx.get().status == 200
    assert [request.header("X-A") for request in origin.requests] == ["1",
                                                                      "2"]


def test_every_stock_directive_has_its_like(stage):
    """Each line of the stock proxy's, with another name, is understood."""
    code, text = check(
        stage,
        http="""
            myproxy_cache_path %{prefix}/cache keys_zone=one:1m;
            myproxy_headers_hash_max_size 512;
            myproxy_headers_hash_bucket_size 64;
        """,
        location="""
            myproxy_pass http://%{origin};
            myproxy_bind 127.0.0.1;
            myproxy_buffer_size 4k;
            myproxy_buffering on;
            myproxy_buffers 8 4k;
            myproxy_busy_buffers_size 8k;
            myproxy_cache one;
            myproxy_cache_background_update on;
            myproxy_cache_bypass $arg_bypass;
            myproxy_cache_convert_head off;
            myproxy_cache_key $uri;
            myproxy_cache_lock on;
            myproxy_cache_lock_age 5s;
            myproxy_cache_lock_timeout 5s;
            myproxy_cache_max_range_offset 1m;
            myproxy_cache_methods GET HEAD POST;
            myproxy_cache_min_uses 2;
            myproxy_cache_revalidate on;
            myproxy_cache_use_stale error timeout updating http_500;
            myproxy_cache_valid 200 1m;
            myproxy_connect_timeout 1s;
            myproxy_cookie_domain a b;
            myproxy_cookie_flags a secure;
            myproxy_cookie_path / /a/;
            myproxy_force_ranges on;
            myproxy_hide_header X-A;
            myproxy_http_version 1.1;
            myproxy_ignore_client_abort on;
            myproxy_ignore_headers Expires;
            myproxy_intercept_errors on;
            myproxy_limit_rate 1m;
            myproxy_max_temp_file_size 1m;
            myproxy_method GET;
            myproxy_next_upstream error timeout non_idempotent;
            myproxy_next_upstream_timeout 1s;
            myproxy_next_upstream_tries 2;
            myproxy_no_cache $arg_no;
            myproxy_pass_header Server;
            myproxy_pass_request_body on;
            myproxy_pass_request_headers on;
            myproxy_read_timeout 1s;
            myproxy_redirect default;
            myproxy_request_buffering on;
            myproxy_send_lowat 0;
            myproxy_send_timeout 1s;
            myproxy_set_body x;
            myproxy_set_header X-A 1;
            myproxy_socket_keepalive on;
            myproxy_ssl_ciphers DEFAULT;
            myproxy_ssl_conf_command Options PrioritizeChaCha;
            myproxy_ssl_name origin.test;
            myproxy_ssl_protocols TLSv1.2 TLSv1.3;
            myproxy_ssl_server_name on;
            myproxy_ssl_session_reuse on;
            myproxy_ssl_trusted_certificate %{authority.path};
            myproxy_ssl_verify on;
            myproxy_ssl_verify_depth 2;
            myproxy_store_access user:rw;
            myproxy_temp_file_write_size 8k;
            myproxy_temp_path %{prefix}/temp;
        """)
    assert (code, "[emerg]" in text) == (0, False)
