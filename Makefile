# make quickstart: install, search, report.   make test: install, lint, types, tests.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: quickstart test lint clean

quickstart: $(READY)
	$(BIN)/python -m search run search/studies/quickstart.yaml
	$(BIN)/python -m analysis report results/quickstart

test: $(READY) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.txt
	touch $(READY)

clean:
	rm -rf $(VENV)
