# Needs GNU make 3.81 or newer, and Python 3.11 or newer. `make` alone lists what there is.
.DEFAULT_GOAL := help
BIN := .venv/bin
# Anything more for pytest, as in: make test ARGS="-k dequeue"
ARGS ?=
PYTEST := $(BIN)/python -m pytest -n auto $(ARGS)

# The parts of `check` share the machine badly, and their order is meant.
.NOTPARALLEL:

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## make .venv with everything in it (again only when pyproject.toml changed)
	@sh scripts/setup.sh dev

.PHONY: setup-run
setup-run:
	@sh scripts/setup.sh run

.PHONY: demo
demo: setup-run ## analyse the standard library in a few hundred real runs
	@$(BIN)/python examples/stdlib_analysis/demo.py

.PHONY: dev
dev: setup-run ## keep server and worker running on the demo's project, with its tasks reloaded on save
	@cd examples/stdlib_analysis && ../../$(BIN)/runwell dev

.PHONY: test
test: setup ## run every test
	@$(PYTEST)

.PHONY: check
check: setup format-check lint types imports tests docs ## all that must hold before a commit

.PHONY: format
format: setup ## format the code and mend what can be mended
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

# The parts of `check`, in its order.
.PHONY: format-check lint types imports tests docs
format-check: setup
	@echo "== format" && $(BIN)/ruff format --check
lint: setup
	@echo "== lint" && $(BIN)/ruff check
types: setup
	@echo "== types" && $(BIN)/pyright
imports: setup
	@echo "== imports" && $(BIN)/lint-imports
tests: setup
	@echo "== tests" && $(PYTEST) --ignore=tests/docs
	@echo "== branches of core" && $(BIN)/python -m pytest -q -p no:randomly tests/core \
		--cov=runwell.core --cov-branch --cov-report=term --cov-fail-under=100
docs: setup
	@echo "== docs" && $(PYTEST) tests/docs

.PHONY: bare
bare: ## check that the package installs and imports without its extras
	@sh scripts/check_bare_install.sh

.PHONY: bench
bench: setup ## measure speed and memory, and write bench/RESULTS.md (some minutes)
	@$(BIN)/python -m bench

.PHONY: chaos
chaos: setup ## restart PostgreSQL at random under 2,000 runs (some minutes; ARGS="--seed N")
	@$(BIN)/python -m tests.support.chaos $(ARGS)

.PHONY: crash-matrix
crash-matrix: setup ## all cases of the crash matrix, of which `make test` has a quarter (some minutes)
	@$(PYTEST) -m "" tests/acceptance/test_crash_matrix.py

.PHONY: crashes
crashes: setup ## kill processes and lose answers at random failpoints (ARGS="--minutes 10 --seed N")
	@$(BIN)/python -m tests.support.crashes $(ARGS)

.PHONY: walks
walks: setup ## walk the engine beside its model with 300 new seeds (RUNWELL_WALK_SEED=FIRST:COUNT for others)
	@RUNWELL_WALK_SEED=$${RUNWELL_WALK_SEED:-$$(date +%s):300} $(PYTEST) tests/engine/test_model.py

.PHONY: clean
clean: ## remove .venv, caches and the data of local servers in this folder
	rm -rf .venv .venv-bare .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.* dist
	rm -rf .runwell examples/*/.runwell
	find src tests bench docs examples -name __pycache__ -type d -prune -exec rm -rf {} +
