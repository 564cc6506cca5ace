# Every task of the project; CI calls these and nothing else. Each installs what it needs from Debian
# and crates.io and says so. Settings: KEEP=1 (demo), FUZZ_SECONDS, PROFILE, OUTRIDER_REQUIRE_NETNS=1.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# What make test and make demo build is not optimised across crates: minutes less, the same code otherwise.
default := release
test demo: default := quick
profile = $(or $(PROFILE),$(default))
FUZZ_SECONDS ?= 60
BINARIES := outrider-init outrider-proxy outrider-agent-bridge outrider-cli
FUZZ_ROOMS := proxy/wire proxy/dpi proxy/packet agent-bridge/api
TEST := cargo test --locked --workspace # whichever run: with other crates left out, the same are built with other features
named = $(sort $(patsubst %.rs,--test=%,$(notdir $(wildcard $(1)))))
# These need the built binaries.
NETNS := $(patsubst tests/cases/%.rs,--test=%,$(wildcard tests/cases/netns_*.rs tests/cases/load.rs))
CASES := $(filter-out $(NETNS),$(patsubst tests/cases/%.rs,--test=%,$(wildcard tests/cases/*.rs)))
# Namespaces and rules need root: by sudo where it is there, otherwise those tests say SKIPPED.
SUDO := $(shell test "$$(id -u)" = 0 || ! command -v sudo >/dev/null || echo sudo -E)
TRIPLE := $(shell rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
AS_ROOT := $(if $(SUDO),CARGO_TARGET_$(TRIPLE)_RUNNER='$(SUDO)')

target := $(abspath $(or $(CARGO_TARGET_DIR),target))
export OUTRIDER_BIN_DIR ?= $(target)/$(profile:dev=debug)

say = @printf '\n== %s\n' '$(1)'
crate_tool = @command -v $(1) >/dev/null || { echo 'installing $(1) from crates.io'; \
	cargo install --locked $(1); }

.PHONY: help setup build demo test apiserver unit netns bench e2e fuzz lint deny

help: ## this list
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

setup: ## install what demo and tests drive: iptables, nginx, redis, ... (Debian, by name)
	@$(SUDO) tests/setup.sh

build: ## the four binaries, optimised as they are shipped; PROFILE=quick or dev for less of it
	$(call say,building $(BINARIES) ($(profile)))
	cargo build --locked --profile $(profile) $(addprefix --package=,$(BINARIES))

demo: setup build ## the tour: real pods, learned, then enforced; KEEP=1 leaves it running
	cargo build --locked --profile $(profile) --package outrider-tests --bin demo
	@$(SUDO) env KEEP=$(KEEP) OUTRIDER_BIN_DIR=$(OUTRIDER_BIN_DIR) $(OUTRIDER_BIN_DIR)/demo

test: setup lint apiserver unit build netns ## everything: lints, unit, golden, architecture, namespaces, fuzz
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=5
	$(call say,all tests passed)

apiserver: ## Kubernetes' API server, for the tests of webhook and controller (by Go modules)
	$(call say,API server of Kubernetes)
	@e2e/cluster/apiserver.sh || echo 'SKIPPED: no API server; the tests that ask it will not run' >&2

unit: ## what needs neither root nor the network
	$(call say,unit and golden and architecture tests)
	$(TEST) --lib --bins $(call named,init/tests/*.rs agent-bridge/tests/*.rs agent-bridge/*/tests/*.rs)
	$(TEST) --doc
	$(TEST) $(CASES) -- --nocapture

netns: ## the real world: namespaces, iptables, nginx, redis, curl, openssl (root)
	$(call say,tests in network namespaces)
	env $(AS_ROOT) $(TEST) --test=netns -- --test-threads=4
	env $(AS_ROOT) $(TEST) $(call named,proxy/capture/tests/*.rs) -- --test-threads=1
	env $(AS_ROOT) $(TEST) $(NETNS) -- --test-threads=1

bench: build ## figures beside direct, a copy loop, HAProxy and Envoy (docs/performance.md)
	@$(SUDO) e2e/setup.sh
	cargo build --locked --release --package outrider-e2e
	cargo build --locked --release --package outrider-capture --example reader
	env $(AS_ROOT) cargo bench --locked --package outrider-init
	cargo bench --locked --package outrider-packet --features test-util
	@$(SUDO) target/release/outrider-bench run \
	    --envoy target/bench-tools/lib/python3*/site-packages/envoy/_bin/envoy $(BENCH)
	@$(SUDO) target/release/outrider-bench packets $(PACKETS)
	cargo build --locked --release --package outrider-tests --bin bridge-load
	target/release/bridge-load $(LOAD)

e2e: ## a real cluster of its own making, or the one of KUBECONFIG; KEEP=1 leaves it (docs/e2e.md)
	e2e/cluster/run.sh

fuzz: ## every fuzz target for FUZZ_SECONDS (60) seconds
	$(call crate_tool,cargo-fuzz)
	@for room in $(FUZZ_ROOMS); do for target in $$(cd $$room && cargo fuzz list); do \
	    printf '\n== fuzzing %s %s for %s s\n' $$room $$target $(FUZZ_SECONDS); \
	    (cd $$room && mkdir -p fuzz/corpus/$$target && RUSTC_BOOTSTRAP=1 cargo fuzz run \
	        --target-dir $(target)/fuzz --sanitizer none $$target fuzz/corpus/$$target \
	        $$(! test -d fuzz/seeds/$$target || echo fuzz/seeds/$$target) -- \
	        -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=2048 -verbosity=0); \
	done; done

lint: deny ## formatting, clippy, dependency rules; warnings are errors
	$(call say,formatting and clippy)
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

deny: ## licences, sources and duplicate crates (deny.toml)
	$(call say,dependency rules: licences and bans and sources; advisories need git and are left out)
	$(call crate_tool,cargo-deny)
	cargo deny --locked check licenses bans sources
