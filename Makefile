# Every target but help works in .venv, which is made on the first use and renewed when the dependencies change:
# READY is what a user needs, READY_TO_WORK has the tools of the tests and the checks besides.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
READY_TO_WORK := .venv/.ready-to-work

.DEFAULT_GOAL := help
.PHONY: help setup demo up test soak check bench

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY_TO_WORK) ## install everything into .venv (PYTHON=python3.12 picks another interpreter)

demo: $(READY) ## watch forty support tickets go through, without an account or a key (ONCE=1: answer by a script, then end)
	@$(BIN)/eventwright demo $(if $(ONCE),--once)

up: $(READY) ## start the API and a worker
	@$(BIN)/eventwright up

test: $(READY_TO_WORK) ## run the tests on real servers (ARGS="-k approval" passes arguments to pytest)
	@$(BIN)/python -m pytest $(ARGS)

soak: $(READY_TO_WORK) ## run the long tests: hundreds of races, storms of kill -9
	@$(BIN)/python -m pytest -m soak --timeout 1200 $(ARGS)

check: $(READY_TO_WORK) ## lint, format, types, the rules of the rooms
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo

bench: $(READY_TO_WORK) ## measure throughput and recovery
	@$(BIN)/python bench/run.py $(ARGS)

# A bare Debian has no ensurepip and marks its Python as managed: then .venv is made without a pip of its own,
# and the system's pip installs into it.
define install
@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
"Eventwright needs Python 3.11 or later: make PYTHON=/path/to/python3.11")'
@test -x $(BIN)/python || $(PYTHON) -m venv .venv >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip .venv
@if $(BIN)/python -m pip --version >/dev/null 2>&1; then pip="$(BIN)/python -m pip"; \
else pip="$(PYTHON) -m pip --python $(BIN)/python"; fi; \
echo "installing $(1) into .venv"; \
$$pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '$(1)'
endef

$(READY): pyproject.toml constraints.txt
	$(call install,.)
	@touch $@

$(READY_TO_WORK): pyproject.toml constraints.txt
	$(call install,.[dev])
	@touch $(READY) $@
