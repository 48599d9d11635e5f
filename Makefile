# make demo   set up, train a small dynamic model on the embedded data set, score it, detect with it
# make test   set up, run all tests
# make lint   set up, style, types and vocabulary
# make docs   set up, build the documentation into site/ (warnings are errors)
# PYTHON=python3.12 make ... names the interpreter that makes the virtual environment
# JOBS=8 make test         runs the tests in that many processes

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test lint docs clean

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-docs.txt $(VENV)/.installed
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/.installed-docs: requirements-docs.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

demo: $(VENV)/.installed
	$(PY) -m tools.demo

test: $(VENV)/.installed-dev
	$(PY) -m pytest -n $(JOBS)

lint: $(VENV)/.installed-dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) tests/vocabulary.py

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

clean:
	rm -rf $(VENV) site runs data/digits .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
