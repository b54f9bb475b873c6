
/*
 * Copyright (C) 2026 The ngx_http_myproxy_module authors
 *
 * Set-Cookie: the cookie itself stays as it is, and its attributes are those
 * that the directives ask for.  The first byte of an input is the location.
 */


#include "fuzz.h"


typedef struct {
    const char  *name;
    const char  *value;  /* NULL: none of that name; "": whatever it is */
} wanted_t;


static ngx_int_t rewrite(ngx_uint_t location, ngx_str_t *value,
    ngx_str_t *copy);
static ngx_uint_t next_part(ngx_str_t *rest, ngx_str_t *part);
static void split(ngx_str_t *part, ngx_str_t *name, ngx_str_t *value);
static void strip(ngx_str_t *s);
static ngx_uint_t is(ngx_str_t *s, const char *text);
static void check_cookie(ngx_str_t *before, ngx_str_t *after);
static void check_attributes(const wanted_t *wanted, ngx_str_t *after);


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


const char  *fuzz_locations[] = {
    "myproxy_cookie_flags ~ secure httponly samesite=lax;",
    "myproxy_cookie_flags ~ nosecure nohttponly nosamesite;",
    "myproxy_cookie_domain good.test new.test;"
    "myproxy_cookie_path ~^/in/(.*)$ /out/$1;",
    "myproxy_cookie_flags a secure; myproxy_cookie_flags ~b samesite=none;"
    "myproxy_cookie_path / /x/;"
};

ngx_uint_t   fuzz_nlocations = fuzz_count(fuzz_locations);

static const wanted_t  wanted[][4] = {
    { { "secure", "" }, { "httponly", "" }, { "samesite", "lax" } },
    { { "secure", NULL }, { "httponly", NULL }, { "samesite", NULL } },
    { { NULL, NULL } },
    { { NULL, NULL } }
};


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ngx_int_t   rc;
    ngx_str_t   before, after, again;
    ngx_uint_t  location;

    if (size < 1 || size > 4096 || memchr(data, '\0', size)) {
        return -1;
    }

    location = data[0] % fuzz_nlocations;
    before = fuzz_copy(data + 1, size - 1);

    rc = rewrite(location, &before, &after);

    if (rc == NGX_DECLINED && !fuzz_same(&before, &after)) {
        fuzz_fail("changed, and not told of", &before);
    }

    if (rc == NGX_OK) {
        check_cookie(&before, &after);

        if (wanted[location][0].name) {
            check_attributes(wanted[location], &after);

            rc = rewrite(location, &after, &again);

            if (rc != NGX_OK || !fuzz_same(&after, &again)) {
                fuzz_fail("the second time changes it again", &after);
            }

            free(again.data);
        }
    }

    free(before.data);
    free(after.data);

    return 0;
}


static ngx_int_t
rewrite(ngx_uint_t location, ngx_str_t *value, ngx_str_t *copy)
{
    ngx_int_t        rc;
    ngx_str_t        text;
    ngx_table_elt_t  h;
    fuzz_subject_t   s;

    fuzz_begin(&s, location);
    ngx_memzero(&h, sizeof(ngx_table_elt_t));

    text = fuzz_copy(value->data, value->len);
    h.value = text;

    rc = ngx_http_myproxy_rewrite_cookie(&s.request, &h);

    if (rc != NGX_OK && rc != NGX_DECLINED) {
        fuzz_fail("an error", value);
    }

    if (h.value.data[h.value.len] != '\0') {
        fuzz_fail("no null behind it", value);
    }

    *copy = fuzz_copy(h.value.data, h.value.len);

    free(text.data);
    fuzz_end(&s);

    return rc;
}


static void
check_cookie(ngx_str_t *before, ngx_str_t *after)
{
    ngx_str_t  rest, other, part, name[2], value[2];

    rest = *before;
    other = *after;

    (void) next_part(&rest, &part);
    split(&part, &name[0], &value[0]);

    (void) next_part(&other, &part);
    split(&part, &name[1], &value[1]);

    if (!fuzz_same(&name[0], &name[1]) || !fuzz_same(&value[0], &value[1])) {
        fuzz_fail("another cookie", before);
    }
}


static void
check_attributes(const wanted_t *w, ngx_str_t *after)
{
    ngx_str_t   rest, part, name, value;
    ngx_uint_t  more, found;

    for ( /* void */ ; w->name; w++) {

        rest = *after;
        more = next_part(&rest, &part);
        found = 0;

        while (more) {
            more = next_part(&rest, &part);
            split(&part, &name, &value);

            if (is(&name, w->name)) {
                found = 1;

                if (w->value && *w->value && !is(&value, w->value)) {
                    fuzz_fail("another value of an attribute", after);
                }
            }
        }

        if (found != (w->value != NULL)) {
            fuzz_fail("the attributes are not those asked for", after);
        }
    }
}


/* the parts between semicolons; tells whether there is another */

static ngx_uint_t
next_part(ngx_str_t *rest, ngx_str_t *part)
{
    u_char  *end;

    *part = *rest;

    end = memchr(rest->data, ';', rest->len);
    if (end == NULL) {
        return 0;
    }

    part->len = end - rest->data;
    rest->data += part->len + 1;
    rest->len -= part->len + 1;

    return 1;
}


static void
split(ngx_str_t *part, ngx_str_t *name, ngx_str_t *value)
{
    u_char  *equal;

    *name = *part;
    value->len = 0;
    value->data = part->data;

    equal = memchr(part->data, '=', part->len);

    if (equal) {
        name->len = equal - part->data;
        value->data = equal + 1;
        value->len = part->len - name->len - 1;
    }

    strip(name);
    strip(value);
}


static void
strip(ngx_str_t *s)
{
    while (s->len && s->data[s->len - 1] == ' ') {
        s->len--;
    }

    while (s->len && *s->data == ' ') {
        s->data++;
        s->len--;
    }
}


static ngx_uint_t
is(ngx_str_t *s, const char *text)
{
    return s->len == strlen(text)
           && strncasecmp((char *) s->data, text, s->len) == 0;
}
