# `make` lists the targets. Everything they make stays inside this checkout: .venv, .cache, data, models, reports, mlruns.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
DATA ?= digits

# No tool reports home; no bytecode switch of the shell slows every import.
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DVC_NO_ANALYTICS := 1
export PREFECT_HOME := $(CURDIR)/.prefect
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
# Three processes share out the test files, the slow ones first (tests/conftest.py): tests of servers mostly wait.
SHARED := -n 3 --dist loadfile --no-loadscope-reorder
READY := .venv/ready

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv from requirements.lock, hashes checked, bytecode compiled

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'setup: $(PYTHON) is older than 3.11; expected Python 3.11 or newer: make PYTHON=python3.12 …' >&2; exit 2; }
	@test -x $(BIN)/python || echo 'setup: making .venv (about 7 GB; the first time downloads 3 GB)' >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@awk '/^[a-z]/ { on = /^uv==/ } on' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install --quiet --require-hashes --disable-pip-version-check -r .venv/uv.lock
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## The whole line on DATA: digits (default), fashion-mnist, or a path of labelled images
	@$(BIN)/calotype demo "$(DATA)"

test: $(READY) ## All tests but those of pages: fast and slow tiers
	$(BIN)/python -m pytest $(SHARED) -m 'not browser'

test-fast: $(READY) ## The tests to run before each commit, in less than 3 minutes
	$(BIN)/python -m pytest $(SHARED) -m 'not slow and not browser'

test-browser: $(READY) ## Open the pages in headless Chromium
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m browser

screenshots: $(READY) ## Make the documents' pictures again: the real pages of a project in production
	CALOTYPE_PICTURES=docs/pictures $(BIN)/python -m pytest -m browser tests/browser/test_walk.py

check: $(READY) ## Format, lint, types, and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(READY) ## Renew requirements.lock from the ranges in pyproject.toml
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip compile --quiet pyproject.toml --group dev --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-annotate --no-header --output-file requirements.lock

PEERS := .cache/bench/peers

bench: $(READY) bench-peers ## All benchmarks in their short form; CIFAR10=/path PHOTOGRAPHS=/path (see bench/train.py)
	$(BIN)/python -m bench.all $(if $(CIFAR10),--data "$(CIFAR10)") $(if $(PHOTOGRAPHS),--photographs "$(PHOTOGRAPHS)")

bench-peers: $(PEERS)/ready ## Make .cache/bench/peers from bench/requirements.lock: timm, fastai, ultralytics, mlflow

$(PEERS)/ready: bench/requirements.lock | $(READY)
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv --without-pip $(PEERS)
	@VIRTUAL_ENV=$(CURDIR)/$(PEERS) $(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode bench/requirements.lock
	@touch $@

lock-bench: $(READY) ## Renew bench/requirements.lock, torch and mlflow as in requirements.lock
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip compile --quiet bench/requirements.in --universal --python-version 3.11 --upgrade \
		--constraint requirements.lock --generate-hashes --no-emit-index-url --no-annotate --no-header --output-file bench/requirements.lock

up: $(READY) ## Start Prefect's server, MLflow's server and a worker; deploy the flows
	@$(BIN)/calotype up

down: $(READY) ## End what `make up` started
	@$(BIN)/calotype down

status: $(READY) ## Say how the servers, the worker and the deployments are
	@$(BIN)/calotype status

doctor: $(READY) ## Check versions, servers, disk, git, DVC and state; say what to do
	@$(BIN)/calotype doctor

ui: $(READY) ## Open MLflow's pages on the runs under mlruns/
	@$(BIN)/calotype ui

clean: ## Remove caches and built files; data, models, runs and .venv stay
	rm -rf .cache build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.PHONY: help setup demo test test-fast test-browser screenshots check lock bench bench-peers lock-bench up down status doctor ui clean
