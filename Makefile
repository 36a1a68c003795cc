# make quickstart: install, search, report.   make extras: install what only some need.   make test: that, lint, types, tests.
# make docs: the pages of docs/ as a site in build/docs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
READY := $(VENV)/.installed
EXTRAS := $(VENV)/extras.txt

.PHONY: quickstart extras test lint docs clean

quickstart: $(READY)
	$(BIN)/python -m search run search/studies/quickstart.yaml
	$(BIN)/python -m analysis report results/quickstart

extras: $(EXTRAS)

test: $(EXTRAS) lint
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(EXTRAS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(EXTRAS)
	$(BIN)/mkdocs build --strict --quiet

$(READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	$(PIP) --no-deps -e .
	touch $(READY)

# All extras of pyproject.toml.
$(EXTRAS): $(READY) pyproject.toml
	$(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print(*sum(extras.values(), []), sep="\n")' > $(EXTRAS).new
	$(PIP) -r requirements.txt -r $(EXTRAS).new
	mv $(EXTRAS).new $(EXTRAS)

clean:
	rm -rf $(VENV)
