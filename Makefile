# `make demo` and `make test` need Python 3.11 or newer and nothing else; each sets itself up in .venv.
PYTHON ?= python3
PYTHON312 ?= python3.12
VENV ?= .venv
VENV_NEWEST ?= .venv-newest
BIN := $(VENV)/bin
export JAX_PLATFORMS ?= cpu

.PHONY: demo test test-slow test-newest lint clean

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

# Captioned sound -> shards -> sharded training, stopped and resumed -> a wav and two pictures in demo/.
demo: $(VENV)/installed
	$(BIN)/python tools/demo.py --out demo

test: $(VENV)/installed-test lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

# Full sizes and real sounds; an hour on two cores.
test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow

# Every compiled program with the newest jax, which needs a newer Python than the one the rest is tested with.
test-newest:
	@if $(PYTHON312) --version >/dev/null 2>&1; then $(MAKE) --no-print-directory run-newest; \
	else echo "test-newest is skipped: there is no $(PYTHON312) here (PYTHON312=PATH names one)"; fi

.PHONY: run-newest
run-newest: $(VENV_NEWEST)/installed
	$(VENV_NEWEST)/bin/python -m pytest -n 2 -W ignore tests/test_one_row.py

$(VENV_NEWEST)/installed: setup.py
	$(PYTHON312) -m venv $(VENV_NEWEST)
	$(VENV_NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable . beartype hypothesis pytest pytest-xdist
	touch $@

lint: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(VENV_NEWEST) demo
