# Every target works on a fresh clone: each makes the virtual environment it needs.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WHEELHOUSE ?= wheelhouse
# Those of the images that instances may be booted from.
PYTHON_VERSIONS ?= 3.10 3.11 3.12 3.13 3.14
PLATFORM ?= $(shell uname -m)
PROTO_DIR := proto
PROTOS := $(wildcard $(PROTO_DIR)/blockferry/v1/*.proto)

.DEFAULT_GOAL := help
.PHONY: help setup demo fleet-demo fleet-scale test check lint type proto proto-check lock wheelhouse e2e bench torture wheel clean

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything for running and developing

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@# As pip does with what it copies: or Python compiles all of it at the first start.
	$(BIN)/python -m compileall -q agent controller proto
	@touch $@

demo: $(READY) ## Move a volume with a real filesystem between two embedded clouds
	$(BIN)/python -m tests.demo

fleet-demo: $(READY) ## Move 60 volumes in three waves, with faults and a killed controller
	$(BIN)/python -m tests.fleet_demo

fleet-scale: $(READY) ## 10,000 volumes, agents simulated: VOLUMES=N AT_ONCE=N SEED=N DATABASE=sqlite
	$(BIN)/python -m tests.scale $(if $(VOLUMES),--volumes $(VOLUMES)) \
	  $(if $(AT_ONCE),--at-once $(AT_ONCE)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(DATABASE),--database $(DATABASE)) $(if $(MINUTES),--minutes $(MINUTES))

test: $(READY) ## Run all tests but those that need real clouds
	$(BIN)/python -m pytest -m 'not e2e' -n 2 --dist loadfile --no-loadscope-reorder

check: lint type proto-check test ## What CI runs

lint: $(READY) ## Style, formatting, who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(READY) ## Types, strictly
	$(BIN)/mypy

proto: $(READY) ## Generate the stubs from proto/**/*.proto
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I$(PROTO_DIR) \
	  --python_out=$(PROTO_DIR) --mypy_out=quiet:$(PROTO_DIR) \
	  --grpc_python_out=$(PROTO_DIR) --mypy_grpc_out=quiet:$(PROTO_DIR) $(PROTOS)

proto-check: proto ## Fail when the committed stubs are not what `make proto` makes
	git diff --exit-code -- $(PROTO_DIR)

lock: $(READY) ## Pin what instances install, with hashes
	$(BIN)/python agent/lock.py

wheelhouse: $(READY) ## Collect what instances install: WHEELHOUSE=DIR PYTHON_VERSIONS=3.12 PLATFORM=aarch64
	for version in $(PYTHON_VERSIONS); do \
	  $(BIN)/python agent/lock.py --for $$version | $(BIN)/python -m pip download --quiet \
	    --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
	    --implementation cp --python-version $$version \
	    $(foreach libc,_2_34 _2_31 _2_28 _2_17 2014,--platform manylinux$(libc)_$(PLATFORM)) \
	    --dest $(WHEELHOUSE) -r /dev/stdin || exit 1; \
	done

e2e: $(READY) ## The same checks on two real clouds, see tests/e2e/README.md; CLOUDS=embedded
	$(BIN)/python -m $(if $(filter embedded,$(CLOUDS)),tests.embedded,pytest -v -m e2e tests/e2e tests/contract)

bench: $(READY) ## Compare with the manual procedure on this machine
	$(BIN)/python -m tests.bench

torture: $(READY) ## Kills and faults at random, under 15 minutes: SEED=N BLOWS=N MINUTES=M
	$(BIN)/python -m tests.torture $(if $(SEED),--seed $(SEED)) $(if $(BLOWS),--blows $(BLOWS)) \
	  $(if $(MINUTES),--minutes $(MINUTES))

wheel: $(READY) ## Build the distribution into dist/
	$(BIN)/python -m build --wheel

clean: ## Remove what the other targets made
	rm -rf $(VENV) build dist .demo .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
