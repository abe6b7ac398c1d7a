# The jobs of this repository, one line each in `make help`. Arguments go through: make test ARGS="-k drain".
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Tests of clusters wait a third of their time, so three side by side keep two cores busy. Where nobody waits for the
# result, two leave more room to what is timed by Kubernetes.
WORKERS ?= $(if $(CI),2,3)

.PHONY: help setup demo image test check bench bench-routing soak crds lock wheel-compiled clean clean-node

BIN := .venv/bin
INSTALLED := .venv/.installed
CRD := crds/inference.tailrace.dev_inferenceservers.yaml
UV := $(shell command -v uv || echo python3 -m uv)
LOCK := $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header
ARGS ?=

# Go's own installer puts it there and leaves PATH to the reader.
export PATH := $(PATH):/usr/local/go/bin

help: ## List the jobs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup: $(INSTALLED) ## Make .venv from the locked requirements; the other jobs do it when it is needed

$(INSTALLED): requirements/dev.txt
	@requirements/install

demo: setup ## Start a cluster, roll out under load, and show that no request is lost
	$(BIN)/python -m tests.cluster.demo $(ARGS)

image: ## Build the image with docker; ARGS="-t registry.example/tailrace:0.1.0" names it
	docker build $(or $(ARGS),-t tailrace:dev) .

test: setup ## Run every test, the cluster suites included; builds the cluster's binaries first
	$(BIN)/python -m tests.cluster build
	$(BIN)/python -m tests.node build
	$(BIN)/pytest -n $(WORKERS) --no-loadscope-reorder $(ARGS)

check: setup ## Check format, lint, types, layers and the core's coverage; print the code's statistics
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/coverage run -m pytest -q tests/core
	$(BIN)/coverage report --fail-under=100
	$(BIN)/python -m tests.repo.function_stats operator/tailrace

bench: setup ## Run the benchmarks and write bench/results; ARGS="pick doors" runs these
	$(BIN)/python -m bench $(ARGS)

bench-routing: setup ## Compare real routers on the same requests, peers installed by it; ARGS="--trace FILE --budget 200"
	$(BIN)/python -m bench routing $(ARGS)

soak: setup ## Break and roll out under load for 3 minutes, and find what is lost or grows; ARGS="--minutes 60"
	$(BIN)/python -m bench soak $(ARGS)

crds: setup ## Write the CustomResourceDefinition from the models, its chart included
	$(BIN)/tailrace crds > $(CRD).new
	mv $(CRD).new $(CRD)
	$(BIN)/python -m tests.charts.written

lock: ## Lock the requirements again; ARGS=--upgrade takes newer versions
	$(LOCK) $(ARGS) -o requirements/runtime.txt
	$(LOCK) $(ARGS) --extra dev -o requirements/dev.txt
	echo 'hatchling>=1.27' | $(subst pyproject.toml,- -c requirements/dev.txt,$(LOCK)) $(ARGS) -o requirements/build.txt
	echo 'xllamacpp>=2026.10' | $(subst pyproject.toml,- -c requirements/dev.txt,$(LOCK)) $(ARGS) -o requirements/llama.txt

wheel-compiled: setup ## Build a wheel whose core is compiled (a C compiler is needed), and run the core's tests and bench pick on it
	requirements/compiled

clean: ## Remove what the jobs have made here; the cluster's binaries stay in the user's cache
	rm -rf .venv .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find operator tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

clean-node: setup ## Remove what a test on a real node has left after it was killed
	$(BIN)/python -m tests.node clean
