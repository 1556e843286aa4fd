# `make run` ingests the sample documents (or PDF=…) and searches them for a question (or ASK=…). `make test` runs all tests. Both first
# install what is missing, and take only seconds if nothing has changed.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
.NOTPARALLEL:

target := $(abspath $(or $(CARGO_TARGET_DIR),target))
share := $(or $(XDG_DATA_HOME),$(HOME)/.local/share)/weir
# Each language model has its own data folder, because summaries of one model are not replaced by another.
state = $(CURDIR)/.weir$(if $(LLM),/$(LLM))
weir := $(target)/debug/weir

# The folders in which rustup installs Rust and deploy/setup installs tools without a package.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(share)/tools/bin
export CARGO_TARGET_DIR := $(target)
# The binary and the components (with the hostile ones) for the tests.
export WEIR_BIN := $(weir)
test bench cluster cluster-test: export WEIR_PATHS_DEFAULT_COMPONENTS := $(target)/components
test bench cluster-test: export WEIR_HOSTILE_COMPONENTS := $(target)/components
export WEIR_BENCH_VENV := $(target)/bench-venv
export WEIR_SEAWEEDFS_VENV := $(target)/seaweedfs-venv
export WEIR_DEPLOY_CHECK_VENV := $(target)/deploy-check-venv

# There is a default question for the sample documents only; for other files, set ASK.
samples := $(target)/samples
PDF ?= $(samples)
ASK ?= $(if $(filter $(samples),$(PDF)),Which of the three roller gates is opened first?)
export PDF ASK

# LLM=local uses a language model in the process. Its first build needs clang and about ten more minutes.
LLM ?=
$(if $(filter-out local,$(LLM)),$(error LLM is local or nothing; endpoints are named in weir.toml))
local := --features weir-cli/local-llm
features := $(if $(LLM),$(local))
assets := $(or $(WEIR_PATHS_ASSETS),$(share)/assets)
# Concurrent calls share the cores, and the work of a call that times out is lost, so there are few calls with long timeouts. If the
# small model repeats itself, sentences of the document are used instead.
model := $(if $(LLM),--set llm.provider.small.kind=local \
	--set llm.provider.small.model_file='$(assets)/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf' \
	--set llm.provider.small.max_concurrent_requests=2 --set llm.provider.small.call_timeout_seconds=900 \
	--set llm.provider.quotes.kind=extractive --set llm.provider.quotes.fallback=true)

# The guests are a separate workspace with a separate target folder.
guests := cd components && env -u CARGO_TARGET_DIR
defaults := batching routing chunking progress

.PHONY: help run test test-local cluster cluster-test setup components build samples examples lint deploy-check bench bench-local clean

help:
	@echo 'make run [PDF=file-or-folder] [ASK="a question"]   ingest documents and search them for a question'
	@echo 'make run LLM=local                                 the same, summarized by a small language model in the process'
	@echo 'make test                                          run every test'
	@echo 'make test-local                                    the tests of language models in the process'
	@echo 'make cluster [STAY=1] [ASK="a question"]           three nodes with PostgreSQL, Redis and S3: ingest the samples, answer'
	@echo 'make cluster-test                                  kill nodes and stop stores while jobs run (half an hour)'
	@echo 'make examples [LANGUAGES="rust js python"]         build the example components and compare their decisions'
	@echo 'make lint                                          formatting and clippy'
	@echo 'make deploy-check                                  check the files for containers, Kubernetes and monitoring'
	@echo 'make bench                                         measure, and compare with peers (long)'
	@echo 'make setup | components | build | samples          single steps of the above'
	@echo 'make clean                                         remove what was built and ingested here'

setup:
	@deploy/setup $(LLM)

components: setup
	@OUT='$(target)/components' components/build
	@mkdir -p '$(target)/debug/components'
	@cd '$(target)/components' && cp --update $(defaults:=.wasm) '$(target)/debug/components/'

build: setup
	@[[ -x '$(weir)' ]] || echo 'building the host: the first build takes 15 minutes on two cores' >&2
	@cargo build --locked --workspace $(features) $(if $(wildcard $(weir)),--quiet)

samples: build
	@'$(target)/debug/samples' '$(samples)'

run: components build $(if $(filter $(samples),$(PDF)),samples)
	$(if $(LLM),@echo 'the small model only demonstrates the function; its summaries are of low quality' >&2)
	@'$(weir)' run "$$PDF" --summarize $(model) --data '$(state)/data' --out '$(state)/out'
ifneq ($(ASK),)
	@printf '\n%s\n\n' "$$ASK"
	@'$(weir)' search "$$ASK" --data '$(state)/data' --top-k 3
endif

# nextest, if installed, runs the tests in parallel and reports slow ones. It does not run documentation tests.
test: components build
	@deploy/setup test
	$(if $(shell command -v cargo-nextest),cargo nextest run --locked --workspace,cargo test --locked --workspace --all-targets)
	cargo test --locked --workspace --doc --quiet
	tests/seaweedfs/run
	$(guests) OUT='$(target)/components' cargo test --locked --workspace --quiet

# Not part of `make test`: compiling llama.cpp needs clang and about ten minutes, for an optional feature.
test-local:
	@deploy/setup local
	cargo test --locked --workspace $(local) --lib --test llm --test local --test openmp_variables

# Three nodes on loopback, with STAY=1 until Ctrl-C.
cluster: components build
	@deploy/setup test
	@tests/seaweedfs/install
	@'$(target)/debug/cluster' $(if $(STAY),--stay) "$$ASK"

# Not part of `make test`: the tests stop stores for a minute each. tests/cluster/settings.rs lists the variables for other sizes.
cluster-test: components build
	@deploy/setup cluster
	cargo test --locked --workspace --test cluster -- --ignored --nocapture --test-threads 1

# Not part of `make test`: it needs Node.js and npm, which nothing else needs, and 24 s of CPU for each component in Python (10 to build
# it, 14 to compile it for the host). `make test` runs the Rust examples on the same cases.
examples: components build samples
	@deploy/setup examples
	@WEIR='$(weir)' SAMPLES='$(samples)' components/examples/check $(LANGUAGES)

lint:
	@deploy/setup lint
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	$(guests) cargo fmt --all --check
	$(guests) cargo clippy --locked --workspace --all-targets -- --deny warnings

# Not part of `make test`: it needs promtool, kubectl and HAProxy, which nothing else needs, but no cluster and no daemon.
deploy-check:
	@deploy/setup deploy
	@deploy/check

# The tests and `make run` use the dev profile too; another profile would build every dependency again.
bench: components build samples
	cargo build --locked --workspace --examples
	cargo bench --profile dev --locked --workspace --benches
	tests/bench/run ocr.py '$(target)/debug/examples/ocr_bench' '$(samples)/handbook.pdf' '$(samples)/survey.pdf'
	$(target)/debug/samples --only book --pages 40 '$(target)/book.pdf'
	tests/bench/run embedding.py '$(target)/debug/examples/embedding_bench' '$(target)/book.pdf' --samples '$(samples)'
	tests/bench/run end_to_end.py '$(weir)' '$(assets)' '$(samples)/handbook.pdf' '$(samples)/letter-scan.pdf'
	tests/bench/run server_load.py '$(weir)' '$(target)/debug/samples'

# Compares with a plain loop around llama.cpp in the same run.
bench-local:
	@deploy/setup local
	cargo bench --profile dev --locked --workspace $(local) --bench local

clean:
	cargo clean
	rm -rf components/target '$(CURDIR)/.weir'
