# `make run` ingests the sample documents (or PDF=…) and answers a question from them (or ASK=…); `make test` runs every
# test. Both make the machine ready first, and take seconds when nothing has changed.

SHELL := /bin/bash
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
target := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
weir := $(target)/debug/weir
samples := $(target)/samples
state := $(CURDIR)/.weir

PDF ?= $(samples)
ASK ?= Which of the three roller gates is opened first?

# Where the tests and the binary look for guests.
export WEIR_HOSTILE_COMPONENTS := $(target)/components
export WEIR_BIN := $(weir)

.PHONY: help run test setup components build samples bench lint clean

help:
	@echo "make run [PDF=file-or-folder] [ASK=question]   ingest documents and answer a question from them"
	@echo "make test                                      run every test"
	@echo "make lint                                      formatting and clippy, as CI runs them"
	@echo "make bench                                     measure, and compare with peers (long)"
	@echo "make setup | components | build | samples      the steps of these"
	@echo "make clean                                     remove what was built and ingested here"

setup:
	@deploy/setup

components: setup
	@OUT=$(target)/components components/build
	@mkdir -p $(target)/debug/components
	@for role in batching routing chunking progress; do \
		cmp --silent $(target)/components/$$role.wasm $(target)/debug/components/$$role.wasm || \
		cp $(target)/components/$$role.wasm $(target)/debug/components/; done

build: setup
	@echo "building the host (the first time takes a quarter of an hour on two cores)" >&2
	@cargo build --quiet --locked --workspace

samples: build
	@$(target)/debug/samples $(samples)

run: components samples
	$(weir) run "$(PDF)" --data $(state)/data --out $(state)/out
	$(weir) search "$(ASK)" --data $(state)/data --top-k 3

test: components
	cargo test --locked --workspace
	cd components && env -u CARGO_TARGET_DIR cargo test --locked --workspace

lint: setup
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	cd components && cargo fmt --all --check
	cd components && env -u CARGO_TARGET_DIR cargo clippy --locked --workspace --all-targets -- --deny warnings

bench: components samples
	cargo bench --locked --package weir-engine --bench makespan
	cargo bench --locked --package weir-policy
	cargo bench --locked --package weir-raster
	tests/bench/compare

clean:
	cargo clean
	rm -rf $(state) components/target
