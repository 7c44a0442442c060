# Two commands: `make demo` shows it, `make test` proves it. Everything else is listed by plain `make`.
# Needs python3.11 (or newer) and make; the two environments are made from nothing and kept until their pins change.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
RUNTIME := .runtime

# uv does not read pip's variables: hand on what pip would use.
comma := ,
empty :=
space := $(empty) $(empty)
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))
endif
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_EXTRA_INDEX_URL
export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
endif
ifdef PIP_CERT
export SSL_CERT_FILE ?= $(PIP_CERT)
endif
export UV_LINK_MODE ?= hardlink
# uv compiles nothing: with this set, as containers like to, each process would compile torch, vLLM and Ray anew.
unexport PYTHONDONTWRITEBYTECODE

TYPED := modelium tests bench scripts
SOURCES := $(TYPED) repository_templates triton
PYTEST_FLAGS ?=
MINUTES ?= 2
CYCLES ?= 10

.PHONY: help setup demo run test test-fast lint format types check generate clients clients-matrix clients-lm-eval bench gpu-check clean

help: ## this list
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.made $(RUNTIME)/.made ## make both environments: .venv (Modelium) and .runtime (Triton, torch, transformers, vLLM, Ray)

.venv/.made: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11: give PYTHON=…" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]' --constraint constraints.txt
	@touch $@

$(RUNTIME)/.made: .venv/.made $(wildcard triton/requirements/*.txt) $(wildcard triton/*.txt)
	@$(BIN)/modelium runtime install --directory $(RUNTIME) --with vllm --with ray --with test
	@touch $@

demo: setup ## serve, drop a real model, ask it; stays up until Ctrl-C (EXIT=1: ends after the answer)
	@$(BIN)/python scripts/demo.py $(if $(EXIT),--exit)

run: setup ## serve models/incoming
	@$(BIN)/modelium serve

# Triton takes a process for dead that is silent for a second while it starts: nothing waits for the disk then. What setup wrote
# is written out first, and the libraries are read.
test: setup ## the whole test suite, against the real Triton
	@sync
	@find -L $(RUNTIME) -type f -name '*.so*' -size +256k -exec cat {} + >/dev/null
	@HF_HUB_OFFLINE=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

test-fast: .venv/.made ## the tests that need no server and are no long ones, with few examples of each: half a minute
	@HF_HUB_OFFLINE=1 HYPOTHESIS_PROFILE=fast $(BIN)/pytest -n 2 -m 'not thorough' tests/unit $(PYTEST_FLAGS)

lint: .venv/.made ## ruff (rules and format) and the layers of imports
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/lint-imports

format: .venv/.made ## put the code into ruff's format
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

# The last of these run in the model runtime; three of their modules are called `model`, and `1` is no name of a package.
types: .venv/.made ## mypy, strict
	@$(BIN)/mypy $(TYPED)
	@rm -rf build/types && mkdir -p build/types
	@ln -s $(CURDIR)/repository_templates/python/1 build/types/modelium_tasks
	@ln -s $(CURDIR)/repository_templates/ray/1/model.py build/types/ray_model.py
	@ln -s $(CURDIR)/triton/backends/vllm/model.py build/types/vllm_model.py
	@ln -s $(CURDIR)/triton/backends/vllm/instance.py build/types/vllm_instance.py
	@ln -s $(CURDIR)/triton/backends/vllm/warm.py build/types/vllm_warm.py
	@ln -s $(CURDIR)/triton/backends/onnxruntime/model.py build/types/onnxruntime_model.py
	@ln -s $(CURDIR)/triton/backends/onnxruntime/instance.py build/types/onnxruntime_instance.py
	@MYPYPATH=build/types:triton/nursery:repository_templates/ray/1:triton/backends/vllm:triton/backends/onnxruntime $(BIN)/mypy \
		-p modelium_tasks -p modelium_ray -p vllm_backend -m onnx_session -m private_pages \
		-p modelium_nursery -m ray_model -m vllm_model -m vllm_instance -m vllm_warm -m onnxruntime_model -m onnxruntime_instance

check: lint types test ## what CI runs: lint, types and the whole test suite (which holds docs and code together)

generate: setup ## record what the installed vLLM serves and takes; write the dashboards, and Prometheus' rules for Kubernetes
	@$(BIN)/python scripts/record_vllm_architectures.py
	@$(BIN)/python scripts/record_engine_args.py
	@$(BIN)/python scripts/write_dashboards.py
	@$(BIN)/python scripts/write_prometheus_rules.py

# An environment of its own: these libraries' pins are not Modelium's. node's are left out where there is no npm.
CLIENTS := .clients
CLIENTS_FLAGS ?=

clients: $(CLIENTS)/.made ## make the environment of the client libraries that `clients-matrix` asks with (600 MB)

$(CLIENTS)/.made: .venv/.made tests/clients/requirements.txt $(wildcard tests/clients/node/*)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(CLIENTS)
	@$(BIN)/uv pip install --quiet --python $(CLIENTS)/bin/python --requirement tests/clients/requirements.txt
	@if command -v npm >/dev/null; then mkdir -p $(CLIENTS)/node && cp tests/clients/node/* $(CLIENTS)/node/ \
		&& npm ci --prefix $(CLIENTS)/node --no-audit --no-fund --silent; fi
	@touch $@

clients-matrix: setup clients ## each client of docs/clients.md asks a model that is loaded, is not, is being unloaded and fails to load: a table (CLIENTS_FLAGS="--only litellm --json FILE")
	@$(BIN)/python -m tests.clients $(CLIENTS_FLAGS)

LM_EVAL := .clients-lm-eval

$(LM_EVAL)/.made: .venv/.made tests/clients/lm_eval_requirements.txt
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(LM_EVAL)
	@$(BIN)/uv pip install --quiet --python $(LM_EVAL)/bin/python --requirement tests/clients/lm_eval_requirements.txt
	@touch $@

clients-lm-eval: setup $(LM_EVAL)/.made ## a small task of lm-eval through the gateway: is it told transformers' own log-likelihoods? (an environment of 670 MB)
	@HF_HUB_OFFLINE=1 $(BIN)/pytest tests/clients/likelihoods.py

bench: setup ## how soon unloaded models answer, what many that are alike take, the loop's overhead, that of streaming, the gateway beside Triton and other fronts, 2,000 folders, 2,000 hostile ones, what a plan costs, who waits when memory is short (in virtual time, and three times MINUTES live), 20,000 malformed requests, bodies and connections made to hurt, an endurance run of MINUTES=2 with kills, each fault by itself, 20 kills of all at once, and CYCLES=10 loads and unloads
	@$(BIN)/python bench/blink.py
	@$(BIN)/python bench/many_alike.py
	@$(BIN)/python bench/loop.py
	@$(BIN)/python bench/streaming.py --litellm
	@$(BIN)/python bench/fronts.py --others --picture build/fronts.png
	@$(BIN)/python bench/scale.py
	@$(BIN)/python bench/hostile_folders.py
	@$(BIN)/python bench/planning.py
	@$(BIN)/python bench/fitting.py
	@$(BIN)/python bench/policies.py
	@$(BIN)/python bench/taking_turns.py --minutes $(MINUTES)
	@$(BIN)/python bench/predicted.py --minutes $(MINUTES)
	@$(BIN)/python bench/fuzz.py
	@$(BIN)/python bench/hostile_bodies.py
	@$(BIN)/python bench/endurance.py --minutes $(MINUTES)
	@$(BIN)/python bench/faults.py
	@$(BIN)/python bench/kill_nine.py
	@$(BIN)/python bench/storm.py --minutes $(MINUTES)
	@$(BIN)/python bench/cycles.py --cycles $(CYCLES)

gpu-check: setup ## on a machine with an NVIDIA GPU that nobody else uses: estimated and measured memory by NVML, and what 20 loads and unloads leave there
	@$(BIN)/python bench/cycles.py --cycles 20 --gpu

clean: ## remove the environments and everything that was built (models/ stays)
	rm -rf .venv .runtime .clients .clients-lm-eval build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
