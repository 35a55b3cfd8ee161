# Everything runs in .venv, which is made on first use. `make ablation` and `make test` need Python 3.11+, make and a registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?= tables
RUNS ?= runs
INSTALLED := $(VENV)/.installed
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false

.PHONY: help setup ablation report test check bench chaos ui clean

help:  ## This list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

ablation: $(INSTALLED)  ## Train Tables 1 and 2 (quick preset) and print them; STUDY=controls, RUNS=dir, ARGS="--seeds 3"
	@status=0; $(BIN)/python -m sweeps.ablation $(STUDY) --runs $(RUNS) $(ARGS) || status=$$?; \
	if [ $$status -le 1 ]; then $(BIN)/python -m analysis report --study $(STUDY) --runs $(RUNS) || status=$$?; fi; \
	exit $$status

setup: $(INSTALLED)  ## Only make the environment, .venv

report: $(INSTALLED)  ## Print the tables of the last sweep and write them to RUNS/report
	$(BIN)/python -m analysis report --study $(STUDY) --runs $(RUNS)

ui: $(INSTALLED)  ## MLflow's pages on http://127.0.0.1:5000
	@test -f $(RUNS)/mlflow.db || { echo "error: RUNS must be a folder with a tracking store (make ablation), got $(RUNS)"; exit 2; }
	MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///$(RUNS)/mlflow.db

test: $(INSTALLED)  ## The whole test suite
	$(BIN)/python -m pytest

check: $(INSTALLED)  ## ruff, mypy (strict), import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## Speed and overhead beside the usual ways, as ratios
	$(BIN)/python -m benchmarks

chaos: $(INSTALLED)  ## Kill a sweep's processes at random, 20 times, and check that nothing is lost
	OMP_NUM_THREADS=1 $(BIN)/python tests/sweeps/chaos.py --kills 20 --seed 0

clean:  ## Remove the environment (runs/ stays)
	rm -rf $(VENV)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (about 7 GB, mostly PyTorch's CUDA build; a few minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
