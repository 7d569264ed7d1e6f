# Every target builds the environment it needs; `make help` says what each is for.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
BASE   := $(VENV)/.base
FULL   := $(VENV)/.full
TORCH  ?= torch==2.13.0
REFERENCE ?= ../shared/reference
export NUMBA_CACHE_DIR ?= $(CURDIR)/.numba-cache

.PHONY: help setup demo test check bench validate traces notebooks docs warmup clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  \1\t\2/' | expand -t 14

$(BASE): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(FULL): $(BASE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[torch,dev]"
	touch $@

setup: $(FULL) ## build .venv with everything the other targets need

demo: $(BASE) ## replay and compare the sample trace; results and figures in demo-out/
	$(BIN)/sfpsim demo --out demo-out

test: $(FULL) ## run the tests
	$(BIN)/python -m pytest -q

check: $(FULL) ## lint and type-check (ruff, mypy strict)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(BASE) ## the benchmarks of the README, beside memcpy in the same run
	$(BIN)/sfpsim bench

validate: $(FULL) ## exact sizes against the reference tensors in REFERENCE=folder
	$(BIN)/python -m sfpsim.testing.validate $(REFERENCE)

traces: $(FULL) ## train the sample models again and rewrite the sample traces
	$(BIN)/python traces/make_samples.py

notebooks: $(FULL) ## execute the notebooks
	$(BIN)/jupytext --to ipynb --output notebooks/01_first_replay.ipynb notebooks/01_first_replay.py
	$(BIN)/python -m pytest -q --nbmake notebooks/*.ipynb

docs: $(FULL) ## rewrite the generated parts of docs/ (JSON Schema, figures of the README)
	$(BIN)/python docs/generate.py

warmup: $(BASE) ## compile and cache the kernels
	$(BIN)/sfpsim doctor --warmup

clean: ## remove the environment, caches and outputs
	rm -rf $(VENV) .numba-cache demo-out build dist simulator/*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
