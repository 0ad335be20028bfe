# xrouter: `make run` and `make test` need nothing but git and make on Debian 12.

VERSION := 0.1.0
BUILD ?= build
PREFIX ?= /usr/local
OPT ?= -O2
WERROR ?=

WARNINGS := -Wall -Wextra -Wno-unused-parameter -Wshadow -Wconversion -Wno-sign-conversion -Wvla \
  -Wformat=2 -Wundef -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings
HARDEN := -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection
CFLAGS = -std=gnu11 -g $(OPT) $(WARNINGS) $(WERROR) $(HARDEN) -fPIE -fvisibility=hidden $(EXTRA_CFLAGS)
CPPFLAGS = -I. -I$(BUILD) -D_GNU_SOURCE -DXROUTER_VERSION=\"$(VERSION)\" -MMD -MP
LDFLAGS = -pie -Wl,-z,relro,-z,now,-z,noexecstack -pthread $(EXTRA_LDFLAGS)
LDLIBS := -lmicrohttpd -lcurl -lsqlite3 -lcjson -lssl -lcrypto -lm

# What both binaries and the unit tests are made of, in the order of the layers.
COMMON := $(sort $(wildcard common/*.c))
USAGE := $(sort $(wildcard usage/*.c))
PROVIDERS := $(sort $(wildcard providers/*.c))
ROUTER := $(sort $(wildcard router/*.c))
GATEWAY := $(sort $(filter-out gateway/main.c,$(wildcard gateway/*.c)))
CTL := $(sort $(wildcard gateway/ctl/*.c))
SIM := $(sort $(wildcard tests/sim/*.c))
UNIT := $(sort $(wildcard tests/unit/test_*.c))
FUZZ := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FAULTS := $(patsubst %.c,$(BUILD)/%.so,$(sort $(wildcard tests/faults/*.c)))
BENCH := $(sort $(wildcard tests/bench/*.c))
MIGRATIONS := $(sort $(wildcard sql/*.up.sql))

LIB_SRC := $(COMMON) $(USAGE) $(PROVIDERS) $(ROUTER) $(GATEWAY)
objects = $(patsubst %.c,$(BUILD)/%.o,$(1))
UNIT_BIN := $(patsubst %.c,$(BUILD)/%,$(UNIT))
BINARIES := $(BUILD)/xrouter $(BUILD)/xrouterctl $(BUILD)/llm-sim

.PHONY: all run test unit integration bench bench-ledger failover lint asan fuzz fuzz-targets clients tokens bench-tokens coverage \
  crash hooks docs install clean
.DELETE_ON_ERROR:
.SECONDARY:

# Short lines; V=1 shows the commands, -s nothing.
quiet := $(findstring s,$(firstword -$(MAKEFLAGS)))
Q := $(if $(V),,@)
say = $(if $(V)$(quiet),,@printf '  %-4s %s\n' $(1) $(2))

all: $(BINARIES)

# Debian packages: only the missing ones are installed, so a second run is offline.
build/.deps-%: etc/deps.sh
	@mkdir -p build
	@etc/deps.sh $*
	@touch $@

# One after the other: two apt-get at once would refuse each other.
build/.deps-test: | build/.deps-build
$(addprefix build/.deps-,lint fuzz bench clients coverage): | build/.deps-test

$(BUILD)/%.o: %.c | build/.deps-build
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/usage/migrations.inc: $(MIGRATIONS) sql/embed.sh
	@mkdir -p $(@D)
	$(call say,GEN,$@)
	$(Q)sh sql/embed.sh $(MIGRATIONS) >$@

$(BUILD)/usage/migrate.o: $(BUILD)/usage/migrations.inc

# The vocabularies: expanded into lookup tables by a tool of this machine, then bytes of the binary.
VOCABULARIES := o200k_base cl100k_base
VOCABULARY_TABLES := $(VOCABULARIES:%=$(BUILD)/usage/vocabularies/%.table)
HOSTCC ?= cc

$(BUILD)/usage/vocabularies/expand: usage/vocabularies/expand.c usage/vocabulary.h | build/.deps-build
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(HOSTCC) -std=gnu11 -O2 $(WARNINGS) $(WERROR) -I. -o $@ $<

$(BUILD)/usage/vocabularies/%.table: usage/vocabularies/%.tokens $(BUILD)/usage/vocabularies/expand
	$(call say,GEN,$@)
	$(Q)$(BUILD)/usage/vocabularies/expand $< $@

$(BUILD)/usage/vocabularies/embed.o: usage/vocabularies/embed.S usage/vocabularies/characters.bin \
  $(VOCABULARY_TABLES)
	$(call say,AS,$<)
	$(Q)$(CC) -c -Wa,-I$(@D),-I$(<D) -o $@ $<

$(BUILD)/libxrouter.a: $(call objects,$(LIB_SRC)) $(BUILD)/usage/vocabularies/embed.o
	@rm -f $@
	$(call say,AR,$@)
	$(Q)$(AR) rcs $@ $^

$(BUILD)/xrouter: $(BUILD)/gateway/main.o $(BUILD)/libxrouter.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/xrouterctl: $(call objects,$(CTL)) $(BUILD)/libxrouter.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/llm-sim: $(call objects,$(SIM)) $(BUILD)/libxrouter.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/tests/unit/test_%: $(BUILD)/tests/unit/test_%.o $(BUILD)/libxrouter.a | build/.deps-test
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

$(BUILD)/tests/unit/test_%.o: tests/unit/test_%.c | build/.deps-test

# The simulator's own rules are tested with its objects beside the library's.
$(BUILD)/tests/unit/test_sim_%: $(BUILD)/tests/unit/test_sim_%.o \
  $(filter-out $(BUILD)/tests/sim/main.o,$(call objects,$(SIM))) $(BUILD)/libxrouter.a | build/.deps-test
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

# What the fault tests preload: plain C, without the sanitizers of the program it is loaded into.
$(BUILD)/tests/faults/%.so: tests/faults/%.c | build/.deps-build
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -std=gnu11 -g -O2 $(WARNINGS) -Wno-missing-prototypes $(WERROR) -D_GNU_SOURCE -fPIC -shared -o $@ $<

.PHONY: faults
faults: $(FAULTS)

run: all
	@etc/demo.sh $(BUILD)

test: all faults $(UNIT_BIN) | build/.deps-test
	@tests/run.sh $(BUILD) unit integration

unit: $(UNIT_BIN)
	@tests/run.sh $(BUILD) unit

# The kill tests, many rounds each.
crash: all faults | build/.deps-test
	@XROUTER_CRASH_ROUNDS=$${ROUNDS:-20} XROUTER_WRITER_STOP_S=10 XROUTER_TESTS=tests/integration/test_crash.py \
	  tests/run.sh $(BUILD) integration

integration: all faults | build/.deps-test
	@tests/run.sh $(BUILD) integration

# Slower by its nature: the tests' deadlines stretch (XROUTER_SLOW), their assertions stay.
asan: | build/.deps-test
	@XROUTER_SLOW=3 $(MAKE) --no-print-directory BUILD=build/asan OPT=-O1 HARDEN= \
	  EXTRA_CFLAGS="-fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all" \
	  EXTRA_LDFLAGS="-fsanitize=address,undefined" test

coverage: | build/.deps-coverage
	@XROUTER_SLOW=3 $(MAKE) --no-print-directory BUILD=build/coverage OPT=-O0 HARDEN= EXTRA_CFLAGS=--coverage \
	  EXTRA_LDFLAGS=--coverage test
	@lcov --quiet --capture --directory build/coverage --output-file build/coverage/lcov.info
	@lcov --quiet --extract build/coverage/lcov.info "$(CURDIR)/common/*" "$(CURDIR)/usage/*" \
	  "$(CURDIR)/providers/*" "$(CURDIR)/router/*" "$(CURDIR)/gateway/*" -o build/coverage/lcov.info
	@genhtml --quiet --output-directory build/coverage/html build/coverage/lcov.info
	@lcov --summary build/coverage/lcov.info

lint: $(BUILD)/usage/migrations.inc | build/.deps-build build/.deps-test build/.deps-lint
	@tests/lint/run.sh

FUZZ_SECONDS ?= 20
fuzz: | build/.deps-build build/.deps-fuzz
	@$(MAKE) --no-print-directory BUILD=build/fuzz CC=clang-14 OPT=-O1 HARDEN= WARNINGS= WERROR= \
	  EXTRA_CFLAGS="-fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all" \
	  fuzz-targets
	@tests/fuzz/run.sh build/fuzz $(FUZZ_SECONDS)

FUZZ_BIN := $(patsubst %.c,$(BUILD)/%,$(FUZZ))
fuzz-targets: $(FUZZ_BIN)
$(BUILD)/tests/fuzz/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/libxrouter.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) -fsanitize=fuzzer,address,undefined -o $@ $^ $(LDLIBS) -pthread

BENCH_BIN := $(patsubst %.c,$(BUILD)/%,$(BENCH))
$(BENCH_BIN): $(BUILD)/%: $(BUILD)/%.o $(BUILD)/libxrouter.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

bench: all $(BENCH_BIN) | build/.deps-bench
	@tests/bench/run.sh $(BUILD)

# Every way in which the first of two providers can fail, and clients that read slowly: two minutes.
failover: all | build/.deps-test
	@/usr/bin/python3 tests/bench/failover.py $(BUILD)

# Reports over ten million requests and the writer's drain: some minutes, 3 GB of disk.
bench-ledger: all $(BENCH_BIN)
	@$(BUILD)/tests/bench/ledger $(BUILD)
	@/usr/bin/python3 tests/bench/backup.py $(BUILD) $(BUILD)

clients: all | build/.deps-clients
	@tests/clients/run.sh $(BUILD)

# Our tokenizer against the original: every token must be the same. TEXTS=some takes seconds.
TEXTS ?= all
TIKTOKEN := tests/tokens/node_modules/.package-lock.json
tokens: $(BUILD)/tests/tokens/driver $(TIKTOKEN)
	@tests/tokens/run.sh $(BUILD) $(TEXTS)

bench-tokens: $(BUILD)/tests/tokens/driver $(TIKTOKEN)
	@tests/bench/tokens.sh $(BUILD)

# The pinned package: installed once, so a second run is offline.
$(TIKTOKEN): tests/tokens/package-lock.json | build/.deps-clients
	$(call say,NPM,tests/tokens)
	@npm ci --prefix tests/tokens --loglevel=error --no-audit --no-fund >/dev/null
	@touch $@

$(BUILD)/tests/tokens/driver: $(BUILD)/tests/tokens/driver.o $(BUILD)/libxrouter.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

hooks:
	@install -D -m 755 tests/lint/hooks/pre-commit "$$(git rev-parse --git-path hooks)/pre-commit"
	@echo "pre-commit hook installed"

docs: $(BUILD)/xrouter
	@tests/lint/docs.sh $(BUILD)

install: all
	install -D -m 755 $(BUILD)/xrouter $(DESTDIR)$(PREFIX)/bin/xrouter
	install -D -m 755 $(BUILD)/xrouterctl $(DESTDIR)$(PREFIX)/bin/xrouterctl
	install -D -m 640 etc/xrouter.json $(DESTDIR)/etc/xrouter/xrouter.json
	install -D -m 644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/xrouter/LICENSE
	install -D -m 644 usage/vocabularies/LICENSES $(DESTDIR)$(PREFIX)/share/doc/xrouter/LICENSES.vocabularies
	install -D -m 755 etc/backup.sh $(DESTDIR)/usr/lib/xrouter/backup.sh
	install -D -m 644 -t $(DESTDIR)/lib/systemd/system etc/systemd/xrouter-backup.service \
	  etc/systemd/xrouter-backup.timer

clean:
	rm -rf build

-include $(patsubst %.c,$(BUILD)/%.d,$(LIB_SRC) gateway/main.c $(CTL) $(SIM) $(UNIT) $(BENCH) tests/tokens/driver.c)
