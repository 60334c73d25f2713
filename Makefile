# Every target creates or reuses the virtual environment $(VENV), says what it installs before it does, and repeats
# nothing the second time. `make` alone lists the targets.

VENV ?= .venv
PYTHON ?= $(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,python3)
DEMO_OUT ?= outputs/demo
DEMO_ARGS ?=
PYTEST_ARGS ?=
PYTEST_WORKERS ?= 2
SPACE_ARGS ?=

# Threads wait briefly for each other before they sleep, unless somebody has said how they wait: where another program
# has a core, those that spin keep it from the one that they wait for (fmri_models/process_threads.py).
ifeq ($(origin OMP_WAIT_POLICY) $(origin GOMP_SPINCOUNT) $(origin KMP_BLOCKTIME),undefined undefined undefined)
export GOMP_SPINCOUNT := 3000
export KMP_BLOCKTIME := 1
endif

BIN := $(VENV)/bin
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("fmri_models needs Python 3.11 or \
newer, but %s is Python %s; name another one with PYTHON=..." % (sys.executable, sys.version.split()[0]))'
INSTALL = $(CHECK_PYTHON) && $(PYTHON) scripts/setup_environment.py --venv $(VENV)
# One thread a worker: the workers share the cores. Tests never ask a server for anything.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
# A file's tests go to one worker, so that what they share is made once.
PARALLEL := -n $(PYTEST_WORKERS) --dist loadfile
PYTEST = $(TEST_ENVIRONMENT) $(BIN)/python -m pytest $(PYTEST_ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-newest suites quality results docs space smoke-minimum wheel-demo clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=python3.12 VENV=folder DEMO_OUT=folder DEMO_ARGS=--quick PYTEST_ARGS=... SPACE_ARGS=..."

demo: ## simulate, fit, reconstruct and evaluate into outputs/demo
	@$(INSTALL) demo
	$(BIN)/fmri-models demo --out $(DEMO_OUT) $(DEMO_ARGS)

test: ## run the tests, without the slow ones
	@$(INSTALL) demo space data dev docs
	$(PYTEST) -m "not slow" $(PARALLEL)

test-slow: ## run the slow tests
	@$(INSTALL) demo space data dev
	$(PYTEST) -m slow $(PARALLEL) || [ $$? -eq 5 ]  # 5: there are none

suites: ## fetch transformers' own tests, which `make test` then runs on our models
	@$(INSTALL) demo space data dev
	$(BIN)/python scripts/fetch_transformers_tests.py

quality: ## check style, types and the direction of imports
	@$(INSTALL) demo space data dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

results: ## write results/*.csv and the tables of figures in the documentation from the reports
	@$(INSTALL) demo space dev
	$(BIN)/python scripts/write_results.py

docs: ## build the documentation into site/
	@$(INSTALL) docs
	$(BIN)/mkdocs build --strict

space: ## open the demo's decoder in the browser (without `make demo`: the example)
	@$(INSTALL) demo space
	$(BIN)/fmri-models space $(SPACE_ARGS)

smoke-minimum: ## run tests and the short demo with the oldest supported versions, in .venv-minimum
	@$(CHECK_PYTHON) && $(PYTHON) scripts/setup_environment.py --venv .venv-minimum --constraints constraints-minimum.txt demo space data dev
	$(TEST_ENVIRONMENT) .venv-minimum/bin/python -m pytest -m "not slow" $(PARALLEL) $(PYTEST_ARGS)
	smoke=$$(mktemp -d) && .venv-minimum/bin/fmri-models demo --quick --out $$smoke/demo; status=$$?; rm -rf $$smoke; exit $$status

test-newest: ## run the tests with the newest versions that pyproject.toml allows, in .venv-newest
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --upgrade --editable ".[demo,space,data,dev]"
	$(TEST_ENVIRONMENT) .venv-newest/bin/python -m pytest -m "not slow" $(PARALLEL) $(PYTEST_ARGS)

wheel-demo: ## build the wheel into dist/, install it into an empty folder and run the short demo there
	@$(INSTALL) demo space data dev
	rm -rf dist
	$(BIN)/python -m build --wheel
	wheel=$$(realpath dist/*.whl) && versions=$$(realpath constraints.txt) && empty=$$(mktemp -d) && cd $$empty && \
	$(abspath $(BIN))/python -m venv env && \
	env/bin/python -m pip install --quiet --constraint $$versions "$$wheel[demo]" && \
	env/bin/fmri-models demo --quick --out demo; status=$$?; rm -rf $$empty; exit $$status

clean: ## remove builds and caches; environments and outputs stay
	rm -rf build dist site .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find fmri_models tests dataset_scripts evaluate_metrics scripts space benchmarks experiments -name __pycache__ -type d -prune -exec rm -rf {} +
