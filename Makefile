# `make run` on a fresh machine needs python3 (3.11 or newer) with venv, and nothing else.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# So many tests at once where most of them wait for processes and servers.
WORKERS ?= 3
# How many random moments, how many steps of the matrix (nothing: all), and where the draw begins.
SEEDS ?= 100
DRAW ?=
LOT ?= 0

# Tests start thousands of programs: their modules are compiled once, also where the environment says otherwise.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help run prod cloud install develop azurite airflow dbt test lint format check faults bench

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile

run: .venv/installed ## run the sample pipeline; again: nothing new
	@$(BIN)/ingestkit run opendata

prod: .venv/developed ## the same from SFTP into PostgreSQL, on servers of its own on loopback
	@$(BIN)/python -m tests.prod prod

cloud: .venv/developed .azurite/installed ## the same from SFTP through Azure's storage into Snowflake, or what stands for them here
	@$(BIN)/python -m tests.prod cloud

install: .venv/installed ## make .venv with ingestkit in it

develop: .venv/developed ## add the tools of development to it

azurite: .azurite/installed ## add the Azure storage account that tests speak to; needs node and npm

airflow: .airflow/2/installed .airflow/3/installed ## add the Airflows that run the DAGs of tests

dbt: .dbt/installed ## add the dbt that tests build with

test: .venv/developed ## the quick tests, under a minute
	$(PYTEST) -q -n 2 -m "not slow" $(wildcard tests/unit tests/contracts tests/cli)

lint: .venv/developed ## style, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src tests
	$(BIN)/lint-imports --no-cache

format: .venv/developed ## let ruff write the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint ## lint, all tests, each named step killed once
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -q -n $(WORKERS) --durations=25 -m "not matrix" tests --ignore tests/faults --ignore tests/benchmarks
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report
	$(PYTEST) -q -n $(WORKERS) tests/faults -m "not matrix"

faults: .venv/developed ## the whole fault matrix, and more seeds of other tests; SEEDS=n, DRAW=n and LOT=n do a part of it
	INGESTKIT_FAULT_SEEDS=$(SEEDS) INGESTKIT_FAULT_DRAW=$(DRAW) INGESTKIT_FAULT_LOT=$(LOT) $(PYTEST) -q -n $(WORKERS) -m "faults or matrix" tests --ignore tests/benchmarks

bench: .venv/developed bench/peers/installed bench/accelerator/installed ## speed beside limits and other tools; QUICK=1 takes fewer rows
	$(PYTEST) -q -s -p no:xdist tests/benchmarks $(if $(QUICK),--quick)

# The markers are written last: an install that was cut short is done again.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("ingestkit needs Python 3.11 or newer; name one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "making .venv with $$($(PYTHON) --version)" >&2
	@$(PYTHON) -m venv .venv
	@$(PIP_INSTALL) --editable .
	@touch $@

.venv/developed: .venv/installed
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

# At one version, as the tools of development are.
.azurite/installed: Makefile
	@npm install --silent --no-save --no-audit --no-fund --prefix .azurite azurite@3.35.0
	@touch $@

# Each Airflow has pins of its own, and nothing of ours beside it.
.airflow/%/installed: tests/airflow%.txt
	@$(PYTHON) -m venv .airflow/$*
	@.airflow/$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/airflow$*.txt
	@touch $@

# So has dbt; pipelines call it by its path.
.dbt/installed: tests/dbt.txt
	@$(PYTHON) -m venv .dbt
	@.dbt/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/dbt.txt
	@touch $@

# What we are measured beside lives apart, so that its pins and ours need not agree.
bench/%/installed: tests/benchmarks/%.txt
	@$(PYTHON) -m venv bench/$*
	@bench/$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/benchmarks/$*.txt
	@touch $@
