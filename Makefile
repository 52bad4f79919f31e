# Every target makes what it needs below this folder; `make clean` takes it away again.
# Needed beforehand: Python 3.11.5 to 3.13 with pip, make, and a C compiler (for the tests).

PYTHON ?= python3
# The real engine's lock is for 3.11.
VLLM_PYTHON ?= $(shell command -v python3.11 || echo $(PYTHON))
PYTEST_ARGS ?=
BENCH_ARGS ?=
TORTURE_ARGS ?=
CHAOS_ARGS ?=

BIN := .venv/bin
ENGINE := .vllm
LOCK := tests/real_vllm/requirements.txt
RIVALS := .rivals
RIVALS_LOCK := tests/bench/requirements.txt
SHIM := tests/real_vllm/shim/pyproject.toml

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A virtual environment, also where Debian's python3-venv is missing.
make_venv = $(1) -m venv $(2) 2>/dev/null || { \
	$(1) -m venv --without-pip $(2) && $(1) -m pip --python $(2)/bin/python install --quiet pip; }

.DEFAULT_GOAL := help
.PHONY: help demo test test-vllm test-gpu test-wheel compiled bench bench-rivals torture chaos lint format clean

help: ## show this list
	@echo "usage: make TARGET [PYTHON=python3.12]"
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/.run ## two simulated models behind one port, end to end
	$(BIN)/vllm-circus demo

test: .venv/.test ## the tests; PYTEST_ARGS="-k relay" runs some
	$(BIN)/pytest $(PYTEST_ARGS)

test-vllm: .venv/.test $(ENGINE)/.made ## the tests with a real vLLM on the CPU (2.5 GB to install)
	VLLM_CIRCUS_TEST_VLLM=$(ENGINE) $(BIN)/pytest tests/real_vllm $(PYTEST_ARGS)

test-gpu: .venv/.test ## the tests with a real NVIDIA GPU, of which they take nearly all the memory (2 minutes)
	VLLM_CIRCUS_TEST_GPU=1 $(BIN)/pytest -s tests/real_gpu $(PYTEST_ARGS)

test-wheel: .venv/.run ## build the wheel, install it elsewhere and use it there
	rm -rf build dist .venv-wheel
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	$(call make_venv,$(PYTHON),.venv-wheel)
	.venv-wheel/bin/pip install --quiet dist/*.whl
	tests/wheel.sh .venv-wheel/bin

compiled: .venv/.test ## a wheel with the relay compiled, and the tests of the proxy with it (5 minutes)
	rm -rf build dist .venv-compiled
	VLLM_CIRCUS_COMPILE=1 $(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	$(call make_venv,$(PYTHON),.venv-compiled)
	.venv-compiled/bin/pip install --quiet "$$(echo dist/*.whl)[test]"
	mkdir -p build/compiled
	cp -r pyproject.toml tests build/compiled/
	cd build/compiled && VLLM_CIRCUS_NEEDS_COMPILED=1 ../../.venv-compiled/bin/pytest tests/proxy $(PYTEST_ARGS)

bench: .venv/.run ## what the proxy costs, beside others where they are installed (10 minutes); BENCH_ARGS="--help"
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

bench-rivals: $(RIVALS)/.made ## install Python proxies to compare with, and matplotlib (600 MB)

torture: .venv/.test ## what the relay stands, with figures (15 minutes, 10 of them the soak)
	$(BIN)/python -m tests.torture $(TORTURE_ARGS)

chaos: .venv/.test ## kill -9 and SIGSTOP of every part in every situation, as a table (20 minutes); CHAOS_ARGS="--help"
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

lint: .venv/.lint ## ruff, mypy, import-linter, and the sizes of functions and modules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.lint.sizes vllm_circus plugins conf systemd

format: .venv/.lint ## lay out the code as `make lint` wants it
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove everything that was made here
	rm -rf .venv .venv-wheel .venv-compiled $(ENGINE) $(RIVALS) build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: each environment is made anew when what it is made from has changed.

.venv/.made: pyproject.toml setup.cfg
	$(call make_venv,$(PYTHON),.venv)
	touch $@

.venv/.run: .venv/.made
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/.test: .venv/.run
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

.venv/.lint: .venv/.test
	$(BIN)/pip install --quiet --editable '.[test,lint]'
	touch $@

# --no-deps: the lock is complete; vLLM's own metadata asks for much that a CPU does not need.
$(ENGINE)/.made: $(LOCK) $(SHIM)
	$(call make_venv,$(VLLM_PYTHON),$(ENGINE))
	$(ENGINE)/bin/pip install --quiet --no-deps --requirement $(LOCK)
	$(ENGINE)/bin/pip install --quiet --no-deps --no-build-isolation ./$(dir $(SHIM))
	rm -rf $(dir $(SHIM))build $(dir $(SHIM))*.egg-info
	touch $@

# --no-deps: as above.
$(RIVALS)/.made: $(RIVALS_LOCK)
	$(call make_venv,$(PYTHON),$(RIVALS))
	$(RIVALS)/bin/pip install --quiet --no-deps --requirement $(RIVALS_LOCK)
	touch $@
