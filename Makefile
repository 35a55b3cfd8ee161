# Everything runs in .venv, which is made on first use. `make ablation` and `make test` need Python 3.11+, make and a registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help ablation report test check ui clean

help:  ## This list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

ablation: $(INSTALLED)  ## Train the quick preset of Tables 1 and 2 and print them (ARGS="..." for other options)
	$(BIN)/python -m sweeps.ablation $(ARGS)
	$(BIN)/python -m analysis report

report: $(INSTALLED)  ## Print the tables of the last sweep and write them to runs/report
	$(BIN)/python -m analysis report

ui: $(INSTALLED)  ## MLflow's pages on http://127.0.0.1:5000
	$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///runs/mlflow.db

test: $(INSTALLED)  ## The whole test suite
	$(BIN)/python -m pytest

check: $(INSTALLED)  ## ruff, mypy (strict), import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:  ## Remove the environment (runs/ stays)
	rm -rf $(VENV)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (about 8 GB, mostly PyTorch's CUDA build; a few minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
