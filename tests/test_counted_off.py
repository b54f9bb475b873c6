"""What is tested of each directive, condition and form: counted off.

The lists are read from what was built and from its source; the tables below
say which test shows the effect of each item.  What is in a list and has no
test fails here, and so does a test that is gone or does not speak of its
item.  "cache::a_name[b]" is test_a_name in test_cache.py with the
parameters b, which may be cut short as in "cache::a_name[b-", or left out.
"""

import ast
import functools
import pathlib
import re
import subprocess
import sys

import pytest

from harness import http1, settings, tables
from harness.nginx import Nginx, version

TESTS = pathlib.Path(__file__).resolve().parent
PROXY = settings.ROOT / "src/proxy/ngx_http_myproxy_directives.c"
COOKIE = settings.ROOT / "src/proxy/ngx_http_myproxy_cookie.c"
COMPAT = settings.ROOT / "src/ngx_http_myproxy_compat.h"

PASS = "myproxy_pass http://%{origin};"

FOLLOWED = "counted_off::a_variable_is_followed[{}]"
NEXT = "failure::the_operator_says_when_to_go_to_the_next_server[{}]"
STALE = "cache::a_failure_may_be_hidden_by_what_is_stale[allowed-{}]"
FLAGS = "rewrite::flags_are_set_and_removed[{}-"


# the variables of each argument that may have some

#: The argument, the line with it, what is looked at, and for one request
#: after the other $arg_x and what is seen.  The origin's answer is ANSWER.
SCENARIOS = {
    "myproxy_method 1": (
        "myproxy_method $arg_x;", lambda request, _: request.method,
        [("PUT", "PUT"), ("DELETE", "DELETE")]),
    "myproxy_set_header 2": (
        "myproxy_set_header X-Own $arg_x;",
        lambda request, _: request.header("X-Own"),
        [("one", "one"), ("two", "two"), ("", None)]),
    "myproxy_set_body 1": (
        "myproxy_set_body <$arg_x>;", lambda request, _: request.body,
        [("one", b"<one>"), ("two", b"<two>")]),
    "myproxy_redirect 1": (
        "myproxy_redirect http://$arg_x/ http://own/;",
        lambda _, response: response.header("Location"),
        [("one", "http://own/p"), ("two", "http://one/p")]),
    "myproxy_redirect 2": (
        "myproxy_redirect http://one/ http://$arg_x/;",
        lambda _, response: response.header("Location"),
        [("two", "http://two/p"), ("six", "http://six/p")]),
    "myproxy_cookie_domain 1": (
        "myproxy_cookie_domain $arg_x own;",
        lambda _, response: response.header("Set-Cookie"),
        [("one", "a=b; Domain=own; Path=/one/"),
         ("two", "a=b; Domain=one; Path=/one/")]),
    "myproxy_cookie_domain 2": (
        "myproxy_cookie_domain one $arg_x;",
        lambda _, response: response.header("Set-Cookie"),
        [("two", "a=b; Domain=two; Path=/one/"),
         ("six", "a=b; Domain=six; Path=/one/")]),
    "myproxy_cookie_path 1": (
        "myproxy_cookie_path /$arg_x/ /own/;",
        lambda _, response: response.header("Set-Cookie"),
        [("one", "a=b; Domain=one; Path=/own/"),
         ("two", "a=b; Domain=one; Path=/one/")]),
    "myproxy_cookie_path 2": (
        "myproxy_cookie_path /one/ /$arg_x/;",
        lambda _, response: response.header("Set-Cookie"),
        [("two", "a=b; Domain=one; Path=/two/"),
         ("six", "a=b; Domain=one; Path=/six/")]),
    "myproxy_cookie_flags 1": (
        "myproxy_cookie_flags $arg_x secure;",
        lambda _, response: response.header("Set-Cookie"),
        [("a", "a=b; Domain=one; Path=/one/; Secure"),
         ("b", "a=b; Domain=one; Path=/one/")]),
    "myproxy_cookie_flags 2": (
        "myproxy_cookie_flags a $arg_x;",
        lambda _, response: response.header("Set-Cookie"),
        [("secure", "a=b; Domain=one; Path=/one/; Secure"),
         ("httponly", "a=b; Domain=one; Path=/one/; HttpOnly")]),
    "myproxy_cache_bypass 2": (
        "myproxy_cache_bypass $arg_none $arg_x; myproxy_cache zone;"
        "myproxy_cache_key fixed;",
        lambda _, response: response.header("X-Status"),
        [("0", "MISS"), ("0", "HIT"), ("1", "BYPASS"), ("0", "HIT")]),
    "myproxy_no_cache 2": (
        "myproxy_no_cache $arg_none $arg_x; myproxy_cache zone;"
        "myproxy_cache_key fixed;",
        lambda _, response: response.header("X-Status"),
        [("1", "MISS"), ("0", "MISS"), ("1", "HIT")]),
}

ANSWER = http1.response(200, "Location: http://one/p",
                        "Set-Cookie: a=b; Domain=one; Path=/one/")

VARIABLES = {
    **{argument: [FOLLOWED.format(argument)] for argument in SCENARIOS},
    "myproxy_pass 1": ["request_uri::a_variable_may_name_an_upstream"],
    "myproxy_bind 1": ["connection::bind_follows_the_variable"],
    "myproxy_limit_rate 1": ["connection::limit_rate_may_be_a_variable"],
    "myproxy_store 1": ["cache::the_store_follows_the_variable"],
    "myproxy_cache 1": ["cache::the_zone_may_be_a_variable"],
    "myproxy_cache_key 1": ["cache::the_key_is_what_the_operator_says"],
    "myproxy_cache_bypass 1": ["cache::a_bypass_asks_and_caches_anew"],
    "myproxy_no_cache 1": ["cache::no_cache_leaves_what_is_cached"],
    "myproxy_ssl_name 1": ["ssl_verification::a_name_with_a_variable"],
    "myproxy_ssl_certificate 1": ["ssl::certificates_with_variables"],
    "myproxy_ssl_certificate_key 1": ["ssl::certificates_with_variables"],
}


# each directive

DIRECTIVES = {
    "myproxy_pass": ["request_uri::without_uri_in_pass_the_target_stays_"
                     "byte_for_byte"],

    # the request
    "myproxy_http_version": ["hostile::http10_keeps_no_connection"],
    "myproxy_method": ["request_headers::method_replaces_the_clients"],
    "myproxy_set_header": ["request_headers::set_header_adds_and_replaces"],
    "myproxy_set_body": ["request_body::set_body_replaces_the_clients"],
    "myproxy_upgrade": ["websocket::a_listed_protocol_passes"],
    "myproxy_pass_request_headers": [
        "request_headers::pass_request_headers_off_leaves_host_alone"],
    "myproxy_pass_request_body": [
        "request_body::without_the_body_none_is_announced"],
    "myproxy_request_buffering": ["request_body::a_body_with_a_length_is_"
                                  "streamed"],
    "myproxy_headers_hash_max_size": ["configuration::no_warning"],
    "myproxy_headers_hash_bucket_size": [
        "configuration::the_hash_is_given_room"],

    # the connection
    "myproxy_bind": ["connection::bind_chooses_the_local_address"],
    "myproxy_socket_keepalive": ["connection::socket_keepalive"],
    "myproxy_socket_rcvbuf": ["connection::socket_buffers"],
    "myproxy_socket_sndbuf": ["connection::socket_buffers"],
    "myproxy_connect_timeout": ["failure::the_time_to_connect_is_limited"],
    "myproxy_send_timeout": ["failure::the_time_to_send_is_limited"],
    "myproxy_read_timeout": ["failure::the_time_to_answer_is_limited"],
    "myproxy_send_lowat": ["configuration::a_warning"],
    "myproxy_ignore_client_abort": [
        "failure::a_client_that_leaves_may_be_ignored"],
    "myproxy_next_upstream": [NEXT.format("error")],
    "myproxy_next_upstream_tries": [
        "failure::the_number_of_tries_is_limited"],
    "myproxy_next_upstream_timeout": [
        "failure::the_time_for_tries_is_limited"],

    # the response
    "myproxy_buffering": [
        "response_body::without_buffering_each_part_passes_at_once"],
    "myproxy_buffer_size": [
        "response_header::a_larger_buffer_takes_a_larger_header"],
    "myproxy_buffers": [
        "response_body::a_large_body_passes_whatever_the_buffers"],
    "myproxy_busy_buffers_size": [
        "response_body::a_large_body_passes_whatever_the_buffers"],
    "myproxy_temp_path": [
        "response_body::a_large_body_passes_whatever_the_buffers"],
    "myproxy_max_temp_file_size": [
        "response_body::there_may_be_no_temporary_file"],
    "myproxy_temp_file_write_size": [
        "response_body::a_small_temporary_file_is_used_again_and_again"],
    "myproxy_limit_rate": [
        "response_body::a_body_is_read_at_the_rate_that_is_allowed"],
    "myproxy_force_ranges": ["response_body::a_range_is_cut_by_force"],
    "myproxy_intercept_errors": [
        "response_header::an_intercepted_error_gets_the_operators_page"],
    "myproxy_pass_header": [
        "response_header::fields_for_nginx_are_passed_on_demand"],
    "myproxy_hide_header": ["response_header::a_field_is_hidden_on_demand"],
    "myproxy_ignore_headers": [
        "response_header::fields_that_forbid_to_cache_may_be_ignored"],
    "myproxy_pass_trailers": ["response_body::trailers_pass_on_demand"],

    # rewriting
    "myproxy_redirect": ["rewrite::a_prefix_is_replaced"],
    "myproxy_cookie_domain": ["rewrite::a_cookies_domain_is_replaced"],
    "myproxy_cookie_path": ["rewrite::a_cookies_path_is_replaced"],
    "myproxy_cookie_flags": ["rewrite::flags_are_set_and_removed"],

    # the store and the cache
    "myproxy_store": ["cache::a_response_is_stored"],
    "myproxy_store_access": [
        "cache::what_is_stored_has_the_mode_that_was_wanted"],
    "myproxy_cache": ["cache::what_was_cached_is_not_asked_for"],
    "myproxy_cache_path": ["cache::the_zone_may_be_a_variable"],
    "myproxy_cache_key": ["cache::the_key_is_what_the_operator_says"],
    "myproxy_cache_bypass": ["cache::a_bypass_asks_and_caches_anew"],
    "myproxy_no_cache": ["cache::no_cache_leaves_what_is_cached"],
    "myproxy_cache_valid": ["cache::statuses_are_cached_as_configured"],
    "myproxy_cache_min_uses": ["cache::the_cache_may_wait_for_some_uses"],
    "myproxy_cache_max_range_offset": [
        "cache::a_range_far_behind_goes_to_the_origin"],
    "myproxy_cache_use_stale": [STALE.format("error")],
    "myproxy_cache_methods": ["cache::post_is_cached_on_demand"],
    "myproxy_cache_lock": [
        "cache::the_lock_lets_one_request_fill_the_cache"],
    "myproxy_cache_lock_timeout": [
        "cache::the_lock_does_not_hold_for_ever[timeout]"],
    "myproxy_cache_lock_age": [
        "cache::the_lock_does_not_hold_for_ever[age]"],
    "myproxy_cache_revalidate": [
        "cache::what_has_expired_may_be_revalidated",
        "cache::nothing_is_revalidated_without_being_asked_to"],
    "myproxy_cache_convert_head": ["cache::head_may_stay_head",
                                   "cache::head_fills_the_cache_by_get"],
    "myproxy_cache_background_update": [
        "cache::what_is_stale_is_updated_in_the_background"],

    # TLS, each against an origin that checks it
    "myproxy_ssl_protocols": ["ssl::protocols",
                              "ssl::a_protocol_that_the_origin_does_not_"
                              "speak"],
    "myproxy_ssl_ciphers": ["ssl::ciphers"],
    "myproxy_ssl_name": [
        "ssl_verification::another_name",
        "ssl_verification::another_name_that_is_not_in_the_certificate"],
    "myproxy_ssl_server_name": [
        "ssl_verification::no_name_is_asked_for_when_switched_off",
        "ssl_verification::the_name_of_the_pass_is_asked_for"],
    "myproxy_ssl_verify": [
        "ssl_verification::without_verification_all_is_accepted",
        "ssl_verification::another_name_is_refused",
        "ssl_verification::an_expired_certificate_is_refused"],
    "myproxy_ssl_verify_depth": ["ssl_verification::the_depth_of_a_chain"],
    "myproxy_ssl_trusted_certificate": [
        "ssl_verification::the_trusted_certificate_is_trusted",
        "ssl_verification::"
        "the_trusted_certificate_replaces_the_systems_store"],
    "myproxy_ssl_crl": [
        "ssl_verification::a_revoked_certificate_is_refused",
        "ssl_verification::a_certificate_that_is_not_in_the_list_passes"],
    "myproxy_ssl_certificate": ["ssl::a_certificate"],
    "myproxy_ssl_certificate_key": ["ssl::a_certificate"],
    "myproxy_ssl_certificate_cache": [
        "ssl::a_certificate_with_variables_is_cached"],
    "myproxy_ssl_password_file": [
        "ssl::an_encrypted_key[constant]", "ssl::an_encrypted_key[variable]",
        "ssl_configuration::an_encrypted_key_with_a_wrong_password"],
    "myproxy_ssl_session_reuse": [
        "ssl_sessions::sessions_are_resumed",
        "ssl_sessions::sessions_are_not_resumed_when_switched_off"],
    "myproxy_ssl_conf_command": ["ssl::ciphers", "ssl::protocols"],
}


# each condition under which another server, or what is stale, is taken

BOTH = ["error", "timeout", "invalid_header", "http_403", "http_404",
        "http_429", "http_500", "http_502", "http_503", "http_504"]

NEXT_UPSTREAM = {
    **{condition: [NEXT.format(condition)] for condition in BOTH},
    "non_idempotent": ["failure::a_post_is_sent_again_on_demand",
                       "failure::a_post_that_was_sent_is_not_sent_again"],
    "off": ["failure::off_never_goes_to_the_next_server"],
}

USE_STALE = {
    **{condition: [STALE.format(condition)] for condition in BOTH},
    "updating": ["cache::what_is_stale_serves_while_it_is_updated"],
    "off": ["cache::a_failure_may_be_hidden_by_what_is_stale[forbidden-"],
}

#: Of the common list, what has a meaning for one of the two only.
ONLY_STALE = {"updating"}
ONLY_NEXT = {"non_idempotent"}


# each form of a rule

FORMS = {
    "myproxy_redirect": {
        "default": ["rewrite::the_default_may_be_written",
                    "rewrite::the_default_maps_the_pass_to_the_location",
                    "rewrite::there_is_no_default_with_variables"],
        "off": ["rewrite::off_leaves_all_as_it_is",
                "rewrite::off_ends_inheritance",
                "rewrite::off_is_inherited"],
        "a prefix": ["rewrite::a_prefix_is_replaced",
                     "rewrite::a_relative_location_may_be_replaced"],
        "~": ["rewrite::a_regex_replaces_the_whole",
              "rewrite::a_regex_may_have_named_captures"],
        "~*": ["rewrite::a_regex_may_ignore_case"],
        "variables": ["rewrite::a_rule_may_have_variables"],
        "several": ["rewrite::the_first_rule_that_matches_wins"],
        "inherited": ["rewrite::rules_are_inherited",
                      "rewrite::own_rules_replace_inherited_ones"],
        "Refresh": ["rewrite::refresh_is_rewritten",
                    "rewrite::refresh_is_rewritten_by_rules"],
    },
    "myproxy_cookie_domain": {
        "off": ["rewrite::off_ends_the_inheritance_for_cookies"],
        "a name": ["rewrite::a_cookies_domain_is_replaced"],
        "~": ["rewrite::a_cookies_domain_is_replaced_by_regex"],
        "variables": ["rewrite::a_cookies_domain_may_have_variables"],
        "several": ["rewrite::the_first_rule_for_a_domain_wins"],
        "inherited": ["rewrite::rules_for_cookies_are_inherited"],
    },
    "myproxy_cookie_path": {
        "off": ["rewrite::off_ends_the_inheritance_for_cookies"],
        "a prefix": ["rewrite::a_cookies_path_is_replaced"],
        "~": ["rewrite::a_cookies_path_is_replaced_by_regex[~^"],
        "~*": ["rewrite::a_cookies_path_is_replaced_by_regex[~*"],
        "variables": ["rewrite::a_cookies_path_may_have_variables"],
        "inherited": ["rewrite::rules_for_cookies_are_inherited"],
    },
    "myproxy_cookie_flags": {
        "off": ["rewrite::off_ends_the_inheritance_for_cookies"],
        "a name": ["rewrite::flags_are_for_cookies_of_that_name[a-"],
        "~": ["rewrite::flags_are_for_cookies_of_that_name[~^a-"],
        "variables": ["rewrite::flags_may_be_variables",
                      "rewrite::flags_are_for_cookies_of_that_name[$arg_"],
        "several": ["rewrite::the_first_rule_for_a_cookie_has_the_flags"],
        "inherited": ["rewrite::rules_for_cookies_are_inherited"],
    },
}


# what else the cache can do

CACHE = {
    "MISS": ["cache::what_was_cached_is_not_asked_for"],
    "HIT": ["cache::what_was_cached_is_not_asked_for"],
    "EXPIRED": ["cache::what_has_expired_is_asked_for_again"],
    "STALE": ["cache::an_origin_that_is_gone_is_hidden_by_what_is_stale"],
    "UPDATING": ["cache::what_is_stale_serves_while_it_is_updated"],
    "REVALIDATED": ["cache::what_has_expired_may_be_revalidated",
                    "cache::a_revalidation_makes_it_valid_again"],
    "BYPASS": ["cache::a_bypass_asks_and_caches_anew"],
    "Vary": ["cache::variants_are_cached_apart",
             "cache::what_does_not_vary_is_one"],
    "Range": ["cache::a_range_is_cut_from_what_is_cached",
              "cache::several_ranges_come_from_the_cache"],
    "If-None-Match": ["cache::conditions_of_the_client_are_answered_by_"
                      "nginx"],
    "HEAD": ["cache::head_fills_the_cache_by_get"],
    "POST": ["cache::post_is_cached_on_demand"],
    "SIGHUP": ["cache::the_cache_outlives_a_reload"],
    "stale-while-revalidate": [
        "cache::the_origin_may_allow_what_is_stale[stale-while"],
    "stale-if-error": ["cache::the_origin_may_allow_what_is_stale[stale-if"],
    "Cache-Control: max-age": ["cache::the_origin_may_ask_to_cache["],
    "Cache-Control: no-store": ["cache::the_origin_may_ask_not_to_cache["],
}

IGNORED = {
    "X-Accel-Redirect": ["response_header::accel_redirect_may_be_ignored"],
    "X-Accel-Expires": [
        "response_header::accel_expires_tells_how_long_to_cache"],
    "X-Accel-Limit-Rate": ["response_header::accel_limit_rate"],
    "X-Accel-Buffering": ["response_header::accel_buffering_may_be_ignored"],
    "X-Accel-Charset": ["response_header::accel_charset"],
    "Expires": [
        "response_header::fields_that_forbid_to_cache_may_be_ignored[True-"],
    "Cache-Control": [
        "response_header::fields_that_forbid_to_cache_may_be_ignored[True-"],
    "Set-Cookie": [
        "response_header::fields_that_forbid_to_cache_may_be_ignored[True-"],
    "Vary": [
        "response_header::fields_that_forbid_to_cache_may_be_ignored[True-"],
}


# how the tables are checked

@functools.lru_cache()
def collected():
    """All tests as pytest finds them, named as in the tables."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q",
         "-p", "no:cacheprovider", "-p", "no:xdist", str(TESTS)],
        cwd=settings.ROOT, capture_output=True, text=True, check=False,
        timeout=5 * settings.PATIENCE)
    found = re.findall(r"^\S*test_(\w+)\.py::test_(.*)$", done.stdout,
                       re.MULTILINE)
    assert found, done.stdout + done.stderr
    return [f"{file}::{name}" for file, name in found]


@functools.lru_cache()
def sources(file):
    """name -> (its source, names in it), of what a file has on top."""
    text = (TESTS / f"test_{file}.py").read_text(encoding="utf-8")
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets
                     if isinstance(target, ast.Name)]
        else:
            continue
        parts = [node, *getattr(node, "decorator_list", [])]
        source = "\n".join(ast.get_source_segment(text, part)
                           for part in parts)
        used = {inner.id if isinstance(inner, ast.Name) else inner.arg
                for inner in ast.walk(node)
                if isinstance(inner, (ast.Name, ast.arg))}
        found.update((name, (source, used)) for name in names)
    return found


@functools.lru_cache()
def spoken(file, name):
    """The source of a test and of all that it uses in its file."""
    known, seen, ahead = sources(file), set(), [f"test_{name}"]
    while ahead:
        name = ahead.pop()
        if name in known and name not in seen:
            seen.add(name)
            ahead.extend(known[name][1])
    return "\n".join(known[name][0] for name in sorted(seen))


def word(item):
    return rf"\b{re.escape(item)}\b"


def check(table, pattern=word):
    """Each item has tests, one of which speaks of it."""
    wrong = list(unshown(table, pattern))
    assert not wrong, "\n".join(wrong)


def unshown(table, pattern):
    """What is wrong with a table, a line each.

    `pattern` tells from an item what to look for in its tests.
    """
    for item, tests in table.items():
        speaks = False
        for test in tests:
            cut = test.endswith(("-", "[")) or "[" in test and "]" not in test
            if not any(node == test or node.startswith(test + "[")
                       or cut and node.startswith(test)
                       for node in collected()):
                yield f"{item}: there is no {test}"
                continue
            file, _, name = test.partition("::")
            text = test + spoken(file, name.partition("[")[0])
            speaks |= bool(re.search(pattern(item), text))
        if not speaks:
            yield f"{item}: none of {tests} speaks of it"


def names(path, table):
    """The names in a table of strings in C."""
    text = tables.preprocess(path.read_text(), {})
    body = re.search(rf"\b{table}\[\] = \{{(.*?)^\}};", text,
                     re.DOTALL | re.MULTILINE)[1]
    found = re.findall(r'\{ ngx_string\("([^"]+)"\),', body)
    assert len(found) > 5, f"{table} was not read"
    return set(found)


@functools.lru_cache()
def directives():
    """Those of the version under test: name -> flags for arguments."""
    number = tables.number(version())
    found = tables.directives(PROXY.read_text(),
                              tables.macros(COMPAT.read_text(), number))
    return {name: flags for name, (_, flags) in found.items()}


def without_variables():
    """Directives that nginx's core sets, to which variables are unknown."""
    return set(re.findall(
        r'ngx_string\("(\w+)"\),[^,]+,\s+ngx_conf_set_\w+_slot,',
        PROXY.read_text()))


def only(table):
    """Without the directives that this version of nginx has not."""
    return {item: tests for item, tests in table.items()
            if item.split()[0] in directives()}


def variable_at(stage, line):
    """Whether nginx looks for the variable in a line."""
    nginx = Nginx(stage.exchange, stage.names, {"location": line})
    _, text = nginx.test_config()
    nginx.close()
    return 'unknown "nonesuch" variable' in text


def test_every_argument_that_takes_variables_follows_them(stage):
    """nginx tells which they are: it complains of a variable it lacks."""
    found = set()
    for name, flags in directives().items():
        if name in without_variables():
            continue
        lines = {1: [f"{name} $nonesuch;", f"{name} $nonesuch own;"]}
        if "NGX_CONF_TAKE1" in flags:
            lines[1].pop()
        else:
            lines[2] = [f"{name} own $nonesuch;"]
        for position, some in lines.items():
            if any(variable_at(stage, line) for line in some):
                found.add(f"{name} {position}")
    wanted = {item for item in only(VARIABLES)
              if item != "myproxy_limit_rate 1" or version() >= (1, 27)}
    assert found == wanted
    check(only(VARIABLES),
          lambda item: rf"\b{item.split()[0]} [^;]*\$")


@pytest.mark.parametrize("argument", SCENARIOS)
def test_a_variable_is_followed(stage, argument):
    line, see, expected = SCENARIOS[argument]
    origin = stage.origin(ANSWER)
    nginx = stage.nginx(
        http="myproxy_cache_path %{prefix}/cache keys_zone=zone:1m;",
        location=PASS + line + """
            myproxy_cache_valid 1h;
            myproxy_ignore_headers Set-Cookie;
            add_header X-Status $upstream_cache_status;
        """)
    for value, seen in expected:
        response = nginx.get(f"/?x={value}")
        assert see(origin.requests[-1], response) == seen


def test_every_directive_has_its_effect():
    """For those of TLS: at an origin that checks it."""
    assert set(directives()) - set(DIRECTIVES) == set()
    check(DIRECTIVES)


def test_every_condition_leads_to_the_next_server():
    conditions = names(PROXY, "ngx_http_myproxy_next_upstream_masks")
    assert set(NEXT_UPSTREAM) == conditions - ONLY_STALE
    check(NEXT_UPSTREAM)


def test_every_condition_lets_what_is_stale_serve():
    conditions = names(PROXY, "ngx_http_myproxy_next_upstream_masks")
    assert set(USE_STALE) == conditions - ONLY_NEXT
    check(USE_STALE)


def test_every_form_of_a_rule_is_understood():
    for directive, forms in FORMS.items():
        assert directive in DIRECTIVES
        check(forms, lambda _: directive)


def test_every_flag_of_a_cookie_is_set():
    flags = names(COOKIE, "cookie_flags")
    check({flag: [FLAGS.format(flag)] for flag in flags})


def test_everything_the_cache_can_do():
    check(CACHE)


def test_every_field_may_be_ignored():
    check(IGNORED)
