PYTHON ?= python3
INSTALLER ?= uv
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?= --numprocesses auto --dist loadgroup
CAMPAIGN := bench_newcomer bench_start bench_train bench_resume bench_quality bench_api bench_client bench_scheduler bench_batch bench_attack bench_busy bench_chaos

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint check all-tests docs campaign clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## Create .venv and install everything with the pinned versions.

$(STAMP): pyproject.toml constraints.txt deploy/install.sh
	@echo "Installing into $(VENV); this takes one or two minutes."
	@PYTHON='$(PYTHON)' INSTALLER='$(INSTALLER)' sh deploy/install.sh $(VENV) all,dev --editable
	@touch $@
	@echo "Installed. To use it: . $(VENV)/bin/activate && influencerai --help"

demo: setup ## Start a server, train sample characters for two tenants; draw before and after.
	@$(BIN)/influencerai demo

test: setup ## Run all but the slow tests (at most 3 minutes).
	$(BIN)/python -m pytest -m "not slow and not campaign" $(PYTEST_ARGS)

lint: setup ## Check style, types and import contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	nice $(BIN)/mypy
	$(BIN)/lint-imports

check: setup ## Run everything that CI runs: lint and all tests, side by side.
	@$(MAKE) --no-print-directory --jobs 2 lint all-tests

all-tests: setup
	$(BIN)/python -m pytest -m "not campaign" $(PYTEST_ARGS) --durations 40 --nbmake tests notebooks/01_first_lora.ipynb

docs: setup ## Build the documentation site into build/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

campaign: setup ## Run the benchmarks and the kill campaign (hours); write benchmarks/results/.
	$(BIN)/python -m pytest -m campaign $(PYTEST_ARGS)
	$(BIN)/python -m pytest --nbmake notebooks $(PYTEST_ARGS)
	@for name in $(CAMPAIGN); do \
		echo "== $$name"; $(BIN)/python -m benchmarks.$$name --out benchmarks/results/ || exit 1; \
	done

clean: ## Remove .venv, caches and builds; leave results alone.
	rm -rf $(VENV) build dist sdk/typescript/dist sdk/typescript/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find influencerai tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
