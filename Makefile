# Every target but help works in .venv, which is made on the first use and again when the dependencies change.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo up test check bench

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## install everything into .venv (PYTHON=python3.12 picks another interpreter)

demo: $(READY) ## play the story of one ticket, without an account or a key (ONCE=1: end when it is told)
	@$(BIN)/eventwright demo $(if $(ONCE),--once)

up: $(READY) ## start the API, the inbox, a worker and the scheduler
	@$(BIN)/eventwright up

test: $(READY) ## run the tests on real servers (ARGS="-k approval" passes arguments to pytest)
	@$(BIN)/python -m pytest $(ARGS)

check: $(READY) ## lint, format, types, the rules of the rooms
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo

bench: $(READY) ## measure throughput and recovery
	@$(BIN)/python bench/run.py $(ARGS)

# A bare Debian has no ensurepip and marks its Python as managed: then .venv is made without a pip of its own,
# and the system's pip installs into it.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Eventwright needs Python 3.11 or later; try make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip .venv
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then pip="$(BIN)/python -m pip"; \
	else pip="$(PYTHON) -m pip --python $(BIN)/python"; fi; \
	$$pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
