# `make run` ingests the sample documents (or PDF=…) and answers a question from them (or ASK=…); `make test` runs every
# test. Both make the machine ready first, and take seconds when nothing has changed.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
.NOTPARALLEL:

target := $(abspath $(or $(CARGO_TARGET_DIR),target))
share := $(or $(XDG_DATA_HOME),$(HOME)/.local/share)/weir
# What one language model has summarized is not there for another.
state = $(CURDIR)/.weir$(if $(LLM),/$(LLM))
weir := $(target)/debug/weir

# Where rustup puts Rust, and where deploy/setup puts what no package has.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(share)/tools/bin
export CARGO_TARGET_DIR := $(target)
# Where the tests look for the binary and for guests, hostile ones among them.
export WEIR_BIN := $(weir)
test bench: export WEIR_PATHS_COMPONENTS := $(target)/components
test bench: export WEIR_HOSTILE_COMPONENTS := $(target)/components
export WEIR_BENCH_VENV := $(target)/bench-venv

# A question belongs to its documents: the samples have one, a file of one's own needs ASK.
samples := $(target)/samples
PDF ?= $(samples)
ASK ?= $(if $(filter $(samples),$(PDF)),Which of the three roller gates is opened first?)
export PDF ASK

# LLM=local: with a language model in the process, which takes clang and some ten minutes more to build, once.
LLM ?=
$(if $(filter-out local,$(LLM)),$(error LLM is local or nothing; endpoints are named in weir.toml))
local := --features weir-cli/local-llm
features := $(if $(LLM),$(local))
assets := $(or $(WEIR_PATHS_ASSETS),$(share)/assets)
# Calls at once share the cores, and what one has begun is lost if it is late: few, with much time. Where the small model only
# repeats itself, sentences of the document stand in.
model := $(if $(LLM),--set llm.provider.small.kind=local \
	--set llm.provider.small.file='$(assets)/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf' \
	--set llm.provider.small.concurrency=2 --set llm.provider.small.timeout_seconds=900 \
	--set llm.provider.quotes.kind=extractive --set llm.provider.quotes.spare=true)

# Guests are a workspace of their own, with a target folder of its own.
guests := cd components && env -u CARGO_TARGET_DIR
defaults := batching routing chunking progress

.PHONY: help run test test-local setup components build samples examples lint bench bench-local clean

help:
	@echo 'make run [PDF=file-or-folder] [ASK="a question"]   ingest documents and answer a question from them'
	@echo 'make run LLM=local                                 the same, summarized by a small language model in the process'
	@echo 'make test                                          run every test'
	@echo 'make test-local                                    the tests of language models in the process'
	@echo 'make examples [LANGUAGES="rust js python"]         build the example components and compare their decisions'
	@echo 'make lint                                          formatting and clippy'
	@echo 'make bench                                         measure, and compare with peers (long)'
	@echo 'make setup | components | build | samples          the steps of these'
	@echo 'make clean                                         remove what was built and ingested here'

setup:
	@deploy/setup $(LLM)

components: setup
	@OUT='$(target)/components' components/build
	@mkdir -p '$(target)/debug/components'
	@cd '$(target)/components' && cp --update $(defaults:=.wasm) '$(target)/debug/components/'

build: setup
	@[[ -x '$(weir)' ]] || echo 'building the host: a quarter of an hour on two cores, the first time' >&2
	@cargo build --locked --workspace $(features) $(if $(wildcard $(weir)),--quiet)

samples: build
	@'$(target)/debug/samples' '$(samples)'

run: components build $(if $(filter $(samples),$(PDF)),samples)
	$(if $(LLM),@echo 'the small model shows that everything works; its summaries are hardly worth reading' >&2)
	@'$(weir)' run "$$PDF" --summarize $(model) --data '$(state)/data' --out '$(state)/out'
ifneq ($(ASK),)
	@printf '\n%s\n\n' "$$ASK"
	@'$(weir)' search "$$ASK" --data '$(state)/data' --top-k 3
endif

# nextest, where it is installed, runs the tests beside each other and shows the slow ones; documentation tests it leaves out.
test: components build
	$(if $(shell command -v cargo-nextest),cargo nextest run --locked --workspace,cargo test --locked --workspace --all-targets)
	cargo test --locked --workspace --doc --quiet
	$(guests) OUT='$(target)/components' cargo test --locked --workspace --quiet

# Not among the tests: compiling llama.cpp takes clang and some ten minutes, for what is off unless it is asked for.
test-local:
	@deploy/setup local
	cargo test --locked --workspace $(local) --lib --test llm --test local --test threads

# Not among the tests: it takes Node.js and npm, which nothing else here needs, and 24 s of CPU for each component in Python (10 to
# build it, 14 to compile it for the host). `make test` asks the Rust examples the same cases.
examples: components build samples
	@deploy/setup examples
	@WEIR='$(weir)' SAMPLES='$(samples)' components/examples/check $(LANGUAGES)

lint:
	@deploy/setup lint
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	$(guests) cargo fmt --all --check
	$(guests) cargo clippy --locked --workspace --all-targets -- --deny warnings

# The dev profile is what the tests and `make run` build; another one would build every dependency a second time.
bench: components build samples
	cargo build --locked --workspace --examples
	cargo bench --profile dev --locked --workspace --benches
	tests/bench/run ocr.py '$(target)/debug/examples/ocr_bench' '$(samples)/handbook.pdf' '$(samples)/survey.pdf'
	tests/bench/run whole.py '$(weir)' '$(assets)' '$(samples)/handbook.pdf' '$(samples)/letter-scan.pdf'
	tests/bench/run serve.py '$(weir)' '$(target)/debug/samples'

# Beside a bare loop around llama.cpp, in the same run.
bench-local:
	@deploy/setup local
	cargo bench --profile dev --locked --workspace $(local) --bench local

clean:
	cargo clean
	rm -rf components/target '$(CURDIR)/.weir'
