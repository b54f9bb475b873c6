# make                    build/ngx_http_myproxy_module.so for the installed
#                         nginx (Debian: packages nginx and nginx-dev)
# make NGX_SRC=DIR        the same for any nginx source tree, as that tree
#                         was configured; the tree itself is left alone
# make static             build/static/nginx: a whole nginx with the module
#                         compiled in, from NGX_SRC, or from the source of
#                         the installed version, which it fetches
# make asan               build/asan/nginx: likewise, with AddressSanitizer
#                         and UBSan
# make asan-module        build/asan-module/ngx_http_myproxy_module.so: the
#                         module alone with these, for the installed nginx
# make coverage           build/coverage/nginx: likewise, with the module's lines
#                         and branches counted: tools/coverage
# make dynamic            build/dynamic/nginx: likewise, without the module,
#                         which is beside it to be loaded
# make deb                build/deb/*.deb: a Debian package for the installed
#                         nginx
# make dist               build/dist/*.tar.gz: the source, with checksums
# make link               build/link, a link with a round trip: tools/link
# make check-style
# make clean
#
# CC=clang, CFLAGS='-O0 -g' and BUILD=DIR (instead of build) are understood.

SHELL    := /bin/bash
BUILD    ?= build
CFLAGS   ?= -g -O2
WARNINGS := -Wall -Wextra -Werror -Wno-unused-parameter

ifeq ($(origin CC),default)
    CC := gcc
endif

# These are for configure alone; nginx's Makefile has its own.

unexport CFLAGS
MAKEOVERRIDES :=

MODULE   := ngx_http_myproxy_module.so
SOURCES  := config $(shell find src -name '*.[ch]' 2> /dev/null)
PAGE     := src/status/page.html
FETCHED  := build/source/installed/nginx
DEV_TREE := $(or $(NGX_SRC),/usr/share/nginx/src)
BIN_TREE := $(or $(NGX_SRC),$(FETCHED))


# What an nginx with the module compiled in has besides: all that tests use.

BIN_FLAGS = --with-debug --with-compat --with-threads --with-file-aio \
    --with-poll_module --with-select_module \
    --with-pcre-jit --with-stream --with-stream_ssl_module \
    $(patsubst %,--with-http_%_module,ssl v2 realip addition xslt sub dav \
      slice gunzip gzip_static random_index secure_link auth_request \
      stub_status) \
    $(shell grep -so -m 1 -e '--with-http_v3_module' $(BIN_TREE)/auto/options)

# NGX_DEBUG_PALLOC takes every allocation from malloc, or else the bounds and
# the end of what lies in a pool would stay unseen; NGX_HAVE_NONALIGNED=0 has
# nginx read integers byte by byte.  Its own code copies nothing from null
# pointers here and there, so that check is made in the module's files alone.

SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined \
    -fno-omit-frame-pointer

$(BUILD)/asan/%: CFLAGS  := -g -O1 -DNGX_DEBUG_PALLOC=1 \
    -DNGX_HAVE_NONALIGNED=0 $(SANITIZE)
$(BUILD)/asan/%: LD_OPT  := $(SANITIZE)
$(BUILD)/asan/%: CORE    := -fno-sanitize=nonnull-attribute
$(BUILD)/asan/%: ADDON   := -fsanitize=nonnull-attribute

# Counted is what is in the module's files alone.

$(BUILD)/coverage/%: CFLAGS := -g -O1
$(BUILD)/coverage/%: LD_OPT := --coverage
$(BUILD)/coverage/%: ADDON  := -O0 --coverage

# In the module alone all that is undefined is seen, and accesses beyond the
# stack, globals and whatever was not taken from a block of a pool: for that
# the tests make pools very small.

$(BUILD)/asan-module/%: CFLAGS := -g -O1 -DNGX_HAVE_NONALIGNED=0 $(SANITIZE)


all: $(BUILD)/$(MODULE)
static: $(BUILD)/static/nginx
asan: $(BUILD)/asan/nginx
coverage: $(BUILD)/coverage/nginx
asan-module: $(BUILD)/asan-module/$(MODULE)
dynamic: $(BUILD)/dynamic/nginx
link: $(BUILD)/link

deb dist:
	@BUILD='$(BUILD)' tools/package $@

check-style:
	tools/style

clean:
	rm -rf $(BUILD)

# A file that changes when the compiler, its flags or nginx do.

$(BUILD)/%/settings: FORCE
	@test -f $(TREE)/src/core/nginx.h || { echo "no nginx source in $(TREE):" \
	    "install nginx-dev, or say make NGX_SRC=DIR" >&2; exit 1; }
	@mkdir -p $(@D)
	@{ echo '$(CC) $(CFLAGS) $(TREE)'; $(CC) --version | head -n 1; \
	   cat $(TREE)/src/core/nginx.h; } > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(BUILD)/module/%: TREE := $(DEV_TREE)
$(BUILD)/asan-module/%: TREE := $(DEV_TREE)
$(BUILD)/static/%: TREE := $(BIN_TREE)
$(BUILD)/asan/%:   TREE := $(BIN_TREE)
$(BUILD)/coverage/%: TREE := $(BIN_TREE)
$(BUILD)/dynamic/%: TREE := $(BIN_TREE)

$(FETCHED)/configure:
	tools/fetch-nginx

$(BUILD)/static/settings $(BUILD)/asan/settings \
    $(BUILD)/coverage/settings $(BUILD)/dynamic/settings: | $(BIN_TREE)/configure

$(BUILD)/%/objs/Makefile: $(BUILD)/%/settings config Makefile $(PAGE) \
        tools/configure-nginx
	@echo "configure $(TREE)"
	@CC='$(CC)' CC_OPT='$(CFLAGS) $(CORE)' LD_OPT='$(LD_OPT)' \
	    tools/configure-nginx $(TREE) $(BUILD)/$* \
	    --add-$(if $(filter static asan coverage,$*),,dynamic-)module=$(CURDIR) \
	    $(if $(filter module asan-module,$*),,$(BIN_FLAGS))
	@echo '$(abspath $(@D))/addon/%.o: CFLAGS += $(WARNINGS) $(ADDON)' \
	    >> $@

# nginx's Makefile knows the headers that config lists; here all of them count.

make_nginx = $(if $(filter %.h,$?),rm -f $(BUILD)/$(1)/objs/addon/*/*.o;) \
    $(MAKE) -s -C $(BUILD)/$(1)/tree -f ../objs/Makefile $(2)

$(BUILD)/$(MODULE): $(BUILD)/module/objs/Makefile $(SOURCES)
	@+$(call make_nginx,module,modules)
	cp $(BUILD)/module/objs/$(MODULE) $@.new
	mv $@.new $@

$(BUILD)/asan-module/$(MODULE): $(BUILD)/asan-module/objs/Makefile $(SOURCES)
	@+$(call make_nginx,asan-module,modules)
	cp $(BUILD)/asan-module/objs/$(MODULE) $@.new
	mv $@.new $@

$(BUILD)/%/nginx: $(BUILD)/%/objs/Makefile $(SOURCES)
	@+$(call make_nginx,$*,binary $(if $(filter dynamic,$*),modules))
	$(if $(filter dynamic,$*),cp $(BUILD)/$*/objs/$(MODULE) $(@D)/$(MODULE))
	cd $(BUILD)/$*/objs && cp "$$(ls nginx angie 2> /dev/null)" ../nginx.new
	mv $@.new $@

# A program of our own, without nginx.

$(BUILD)/link: tools/link/link.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(WARNINGS) -o $@.new $<
	mv $@.new $@

# A program that compares our parser with nginx's, of which it has the files.

DIFFER := http/ngx_http_parse core/ngx_array core/ngx_hash core/ngx_list \
    core/ngx_palloc core/ngx_string os/unix/ngx_alloc

$(BUILD)/differ-header: tests/differ/header.c \
        src/proxy/ngx_http_myproxy_header.c \
        src/proxy/ngx_http_myproxy_known_fields.c src/proxy/*.h \
        $(BUILD)/asan/objs/Makefile Makefile
	$(CC) $(CFLAGS) $(SANITIZE) -DNGX_DEBUG_PALLOC=1 \
	    -Wall -Wextra -Wno-unused-parameter \
	    -Isrc $(addprefix -I,$(wildcard src/*/)) -I$(BUILD)/asan/objs \
	    $(addprefix -I$(BIN_TREE)/src/,core event event/modules event/quic \
	      os/unix http http/modules http/v2 http/v3) \
	    -o $@.new $(filter %.c,$^) $(DIFFER:%=$(BIN_TREE)/src/%.c)
	mv $@.new $@

# libFuzzer targets, see tests/fuzz: all of the sanitized nginx, of which the
# files that a target is about are compiled anew to count what they execute.

FUZZ_header  := proxy/ngx_http_myproxy_header proxy/ngx_http_myproxy_line \
    proxy/ngx_http_myproxy_response proxy/ngx_http_myproxy_response_fields \
    proxy/ngx_http_myproxy_known_fields \
    proxy/ngx_http_myproxy_connection_fields proxy/ngx_http_myproxy_rewrite
FUZZ_chunked := proxy/ngx_http_myproxy_chunked proxy/ngx_http_myproxy_line
FUZZ_cookie  := proxy/ngx_http_myproxy_cookie proxy/ngx_http_myproxy_rewrite
FUZZ_host    := proxy/ngx_http_myproxy_host proxy/ngx_http_myproxy_fields
FUZZ_status  := status/ngx_http_reuse_status_text

FUZZ_CC      ?= clang

$(BUILD)/fuzz/%: tests/fuzz/%.c tests/fuzz/fuzz.c tests/fuzz/fuzz.h \
        $(BUILD)/asan/nginx
	@mkdir -p $(@D)
	objcopy --redefine-sym main=nginx_main \
	    $(BUILD)/asan/objs/src/core/nginx.o $@.main.o
	$(FUZZ_CC) -g -O1 -fsanitize=fuzzer $(SANITIZE) -DNGX_DEBUG_PALLOC=1 \
	    -DNGX_HAVE_NONALIGNED=0 -Wall -Wextra -Wno-unused-parameter \
	    -Isrc $(addprefix -I,$(wildcard src/*/)) -I$(BUILD)/asan/objs \
	    $(addprefix -I$(BIN_TREE)/src/,core event event/modules event/quic \
	      os/unix http http/modules http/v2 http/v3) \
	    -o $@.new tests/fuzz/$*.c tests/fuzz/fuzz.c \
	    $(FUZZ_$*:%=src/%.c) $(BIN_TREE)/src/http/ngx_http_parse.c \
	    $@.main.o $$(find $(BUILD)/asan/objs -name '*.o' \
	      ! -path '*/src/core/nginx.o' ! -name ngx_http_parse.o \
	      $(patsubst %,! -name '%.o',$(notdir $(FUZZ_$*)))) \
	    $$(grep -m 1 -o -e '-l[a-z].* -l[a-z]*' \
	      $(BUILD)/asan/objs/Makefile)
	mv $@.new $@

.PHONY: all static asan asan-module coverage dynamic link deb dist \
    check-style clean FORCE
.SECONDARY:
.DELETE_ON_ERROR:
