# Every target builds the environment it needs; `make help` says what each is for.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
BASE   := $(VENV)/.base
FULL   := $(VENV)/.full
TORCH  ?= torch==2.13.0
PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input
# numba does not notice a changed helper in another file: one cache for each state of the kernels.
KERNELS := $(shell cat $$(grep -rl '^from numba' simulator/sfpsim | sort) | cksum | cut -d' ' -f1)
export NUMBA_CACHE_DIR ?= $(CURDIR)/.numba-cache/$(KERNELS)
export PIP_ROOT_USER_ACTION := ignore
export JUPYTER_PLATFORM_DIRS := 1

.PHONY: help setup demo test check bench validate data traces notebooks docs warmup clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
	  | sed -E 's/^([a-z]+):.*## (.*)/  \1\t\2/' | expand -t 14

$(BASE): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) \
	  and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(FULL): $(BASE)
	$(PIP) "$(TORCH)"
	$(PIP) -e ".[torch,baselines,dev]"
	@touch $@

setup: $(FULL) ## build .venv with everything the other targets need

demo: $(BASE) ## replay and compare the sample trace; results and figures in demo-out/
	$(BIN)/sfpsim demo --out demo-out

test: $(FULL) ## run the tests
	$(BIN)/python -m pytest -q

check: $(FULL) ## lint and type-check (ruff, mypy strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(FULL) ## the benchmarks, beside memcpy and other compressors in the same run
	$(BIN)/sfpsim bench

validate: $(FULL) ## against reference tensors or DRAM runs: make validate REFERENCE=folder
	@test -n "$(REFERENCE)" || { echo "make validate REFERENCE=folder: name the folder with \
	expected.json and its .safetensors files, or with results*.csv of DRAM runs and devices/" \
	>&2; exit 2; }
	if test -d "$(REFERENCE)/devices"; then kind=_dram; fi; \
	$(BIN)/python -m sfpsim.testing.validate$$kind "$(REFERENCE)"

data: $(FULL) ## fetch what models/ trains on into .data/ (SFPSIM_DATA), say what else is needed
	$(BIN)/python models/sample_data.py

traces: $(FULL) ## train the sample models again and rewrite the sample traces
	$(BIN)/python traces/make_samples.py

notebooks: $(FULL) ## make the notebooks from their .py files and execute them
	$(BIN)/jupytext --quiet --to ipynb notebooks/*.py
	$(BIN)/python -m pytest -q --nbmake notebooks

docs: $(BASE) ## rewrite the generated parts of the docs (schemas, numbers and pictures)
	$(BIN)/sfpsim demo --out demo-out > /dev/null
	$(BIN)/python -m sfpsim.containers.table > docs/zoo.md
	$(BIN)/sfpsim compare simulator/sfpsim/sample/resnet8 --out demo-out/zoo > /dev/null \
	  -c "$$($(BIN)/python -c 'from sfpsim.containers.table import SPECS; print(",".join(SPECS))')"
	$(BIN)/python docs/generate.py demo-out demo-out/zoo

warmup: $(BASE) ## compile and cache the kernels
	$(BIN)/sfpsim doctor --warmup

clean: ## remove the environment, caches and outputs
	rm -rf $(VENV) .numba-cache demo-out build dist simulator/*.egg-info notebooks/*.ipynb
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +
