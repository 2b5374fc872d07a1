# make run    trains contracts/model2.yaml and prints the scoreboard and the gates
# make test   runs the test suite
PYTHON   ?= python3
CONTRACT ?= contracts/model2.yaml
DEVICE   ?= auto
BIN      := .venv/bin
WORKERS  ?= auto
INSTALL  := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# nothing that a tool remembers goes into the work tree
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/cache/python
export RUFF_CACHE_DIR      := $(CURDIR)/.venv/cache/ruff
export MYPY_CACHE_DIR      := $(CURDIR)/.venv/cache/mypy

.PHONY: run gates test test-all lint format schemas clean

run: .venv/train.installed
	$(BIN)/sovereign run --contract $(CONTRACT) --device $(DEVICE)
	@$(BIN)/sovereign scoreboard; $(BIN)/sovereign gates

gates: .venv/train.installed
	@$(BIN)/sovereign gates

test: .venv/dev.installed
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not gpu"

test-all: .venv/dev.installed
	$(BIN)/python -m pytest -n $(WORKERS) --hypothesis-profile=anew

lint: .venv/dev.installed
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

format: .venv/dev.installed
	$(BIN)/ruff check --fix --quiet src tests benchmarks
	$(BIN)/ruff format --quiet src tests benchmarks

schemas: .venv/dev.installed
	$(BIN)/python -c "from pathlib import Path; from sovereign.published import write_schemas; write_schemas(Path('src/sovereign/schemas'))"

clean:
	rm -rf .venv artifacts

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/train.installed: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable ".[train,tune,bitsandbytes,llama-prebuilt]"
	@touch $@

.venv/dev.installed: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable ".[train,dev]"
	@touch $@ .venv/train.installed
