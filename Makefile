# `make demo` and `make test` need Python 3.11 or newer and nothing else; each sets itself up in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export JAX_PLATFORMS ?= cpu

.PHONY: demo test test-slow lint clean

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

lint: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo
