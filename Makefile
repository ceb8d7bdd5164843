# Every target but help works in .venv, which is made on the first use and renewed when the dependencies change
# (bench-agentdojo brings many libraries of others, and has an environment of its own):
# READY is what a user needs, READY_TO_WORK has the tools of the tests and the checks besides.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
READY_TO_WORK := .venv/.ready-to-work
AGENTDOJO := .venv-agentdojo
CONTRACT := .contract-rq
# Tests wait as well as they compute: one process more than there are cores.
TESTERS := $(shell echo $$(($$(nproc) + 1)))

# Many processes are started here: none of them should compile everything anew, as some containers want it.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo up test soak soak-tests attacks contract-rq check bench bench-agentdojo

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY_TO_WORK) ## install everything into .venv (PYTHON=python3.12 picks another interpreter)

demo: $(READY) ## watch forty support tickets go through, without an account or a key (ONCE=1: answer by a script, then end)
	@$(BIN)/eventwright demo $(if $(ONCE),--once)

up: $(READY) ## start the API and a worker
	@$(BIN)/eventwright up

test: $(READY_TO_WORK) ## run the tests on real servers (ARGS="-k approval" passes arguments to pytest)
	@$(BIN)/python -m pytest -n $(TESTERS) $(ARGS)

soak: $(READY_TO_WORK) ## half an hour of random faults over a real deployment, and a table (ARGS="--minutes 5 --store sqlite --seed 7")
	@$(BIN)/python -m tests.faults.storm $(ARGS)

soak-tests: $(READY_TO_WORK) ## run the long tests: hundreds of races, a death at every boundary on both databases
	@$(BIN)/python -m pytest -m soak --timeout 1200 $(ARGS)

attacks: $(READY_TO_WORK) ## play every attack on the guardrails with a model that always obeys, and print the tables
	@$(BIN)/python -m tests.attacks.report

contract-rq: $(CONTRACT)/.ready ## run the tests that RQ brings for its own workers against ours
	@$(BIN)/python tests/contract_rq/run.py $(CONTRACT) -q $(ARGS)

check: $(READY_TO_WORK) ## lint, format, types, the rules of the rooms
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo

bench: $(READY_TO_WORK) ## measure throughput and recovery
	@$(BIN)/python bench/run.py $(ARGS)

bench-agentdojo: $(AGENTDOJO)/.ready ## measure the guardrails on AgentDojo, against a model that obeys every injection
	@$(AGENTDOJO)/bin/python bench/agentdojo/run.py $(ARGS)

# A bare Debian has no ensurepip and marks its Python as managed: then an environment is made without a pip of its own,
# and the system's pip installs into it.
define environment
@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
"Eventwright needs Python 3.11 or later: make PYTHON=/path/to/python3.11")'
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(1)
endef

# $(call find-pip,ENVIRONMENT) sets the shell's $$pip
define find-pip
if $(1)/bin/python -m pip --version >/dev/null 2>&1; then pip="$(1)/bin/python -m pip"; \
else pip="$(PYTHON) -m pip --python $(1)/bin/python"; fi
endef

# $(call install,ENVIRONMENT,WHAT,CONSTRAINTS); most of what is installed is never imported, and need not be compiled
define install
@$(call find-pip,$(1)); \
echo installing $(2) into $(1); \
$$pip install -qq --disable-pip-version-check --no-compile --constraint $(3) --editable $(2)
endef

$(READY): pyproject.toml constraints.txt
	$(call environment,.venv)
	$(call install,.venv,'.',constraints.txt)
	@touch $@

$(READY_TO_WORK): pyproject.toml constraints.txt
	$(call environment,.venv)
	$(call install,.venv,'.[dev]',constraints.txt)
	@touch $(READY) $@

# Where AgentDojo needs another version than we do, its own pin stands in for ours.
$(AGENTDOJO)/.ready: pyproject.toml constraints.txt bench/agentdojo/constraints.txt
	$(call environment,$(AGENTDOJO))
	@awk -F '==' 'FNR == NR { own[$$1] } FNR == NR || !($$1 in own)' bench/agentdojo/constraints.txt constraints.txt \
	> $(AGENTDOJO)/constraints.txt
	$(call install,$(AGENTDOJO),'.' agentdojo,$(AGENTDOJO)/constraints.txt)
	@touch $@

# RQ's tests come with its sources alone; those of the version that is installed.
$(CONTRACT)/.ready: $(READY_TO_WORK)
	@rm -rf $(CONTRACT) && mkdir $(CONTRACT)
	@$(call find-pip,.venv); \
	rq=$$($(BIN)/python -c 'from importlib.metadata import version; print(version("rq"))'); \
	echo fetching the tests of rq $$rq into $(CONTRACT); \
	$$pip download -qq --disable-pip-version-check --no-binary rq --no-deps --dest $(CONTRACT) rq==$$rq && \
	tar -xzf $(CONTRACT)/rq-$$rq.tar.gz -C $(CONTRACT) --strip-components=1 rq-$$rq/tests
	@touch $@
