# `make demo` and `make test` need Python 3.11 or newer and nothing else; each sets itself up in .venv.
PYTHON ?= python3
VENV ?= .venv
VENV_NEWEST ?= .venv-newest
# The first Python from 3.12 on that works: of these names, which may be there without working, then of pyenv's.
PYTHONS := python3.12 python3.13 python3.14 python3 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.1[2-9]*/bin/python3
WORKS := -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1
PYTHON_NEWEST ?= $(shell for python in $(PYTHONS); do if $$python $(WORKS); then command -v $$python; break; fi; done)
BIN := $(VENV)/bin
export JAX_PLATFORMS ?= cpu

.PHONY: demo box proof test test-slow test-newest bench-card lint clean

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

# A sound from the model in the box, a new word learnt on a mesh of 8, stopped and resumed, and a sound for it, in demo/.
demo: $(VENV)/installed
	$(BIN)/python tools/demo.py --out demo

# On the accelerator that jax finds: on a card, `.venv/bin/pip install '.[cuda]'` first.
box proof: export JAX_PLATFORMS =

# What `--model soundscript` opens, made again: for a card; docs/soundscript.md says what to ask for on two cores.
box: $(VENV)/installed
	$(BIN)/python tools/box.py --out box

# The paper's ablations on models of the box's size: for a card; docs/proof.md says what to ask for on two cores.
proof: $(VENV)/installed
	$(BIN)/python tools/proof.py --out proof --results docs/results
	$(BIN)/python tools/effects.py --out effects --results docs/results --parts 3 --prompts 64

test: $(VENV)/installed-test lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

# Full sizes and real sounds; an hour on two cores.
test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow

# Every compiled program with the newest jax, which needs a newer Python than the one the rest is tested with. Some
# three minutes on two cores, one of them to install; packages are compiled where they are imported, which is faster.
test-newest: newest := $(PYTHON_NEWEST)
test-newest:
	@if [ -n "$(newest)" ]; then $(MAKE) --no-print-directory run-newest PYTHON_NEWEST="$(newest)"; \
	else echo "test-newest is skipped: no Python from 3.12 on works here (PYTHON_NEWEST=PATH names one)"; fi

.PHONY: run-newest
run-newest: $(VENV_NEWEST)/installed
	$(VENV_NEWEST)/bin/python -m pytest -n 2 -W ignore tests/test_one_row.py

$(VENV_NEWEST)/installed: setup.py
	$(PYTHON_NEWEST) -m venv $(VENV_NEWEST)
	$(VENV_NEWEST)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --editable . \
		beartype hypothesis pytest pytest-xdist
	touch $@

# On a machine with a GPU: its figures in eight minutes, and tables and pictures of them, in card/.
bench-card: export JAX_PLATFORMS =
bench-card: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cuda]'
	-$(BIN)/ualm bench card --out card
	$(BIN)/python tools/card_report.py card

lint: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(VENV_NEWEST) demo card
