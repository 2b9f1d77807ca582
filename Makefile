# Thin front door: `make book` and `make test` do everything from nothing; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help env book html lab chapter record train bench lint test serve lock clean

# size of the run: smoke, book or full
PROFILE ?= book
# chapters at a time
JOBS ?= 2
# interpreter for a new environment (python3 where it is absent)
PYTHON ?= python3.11
# address of PyTorch's wheels for this machine, see https://pytorch.org/get-started/locally/ (empty: pip decides)
TORCH_INDEX ?=
# folder whose `_build` takes what is made: another one where the checkout cannot be written
OUT ?= .
# site that `make serve` shows
SITE ?= $(OUT)/_build/html

export PYTHON TORCH_INDEX
# one thread per process: work is spread over chapters and test files
export OMP_NUM_THREADS := 1
export MPLBACKEND := Agg

BIN := .venv/bin
READY := .venv/.ready
BENCH := .venv-bench
# -W and -n: a warning or a dead reference fails the build; --keep-going: all of them are told at once
RENDER := $(BIN)/jupyter-book build -q -W -n --keep-going
BUILD := $(OUT)/_build
PYTEST := $(BIN)/pytest -q -n 2 --dist loadfile

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10
	@echo "variables: PROFILE=$(PROFILE) (smoke, book, full)  JOBS=$(JOBS)  PYTHON=$(PYTHON)  TORCH_INDEX=$(TORCH_INDEX)  OUT=$(OUT)  SITE=$(SITE)"

env: $(READY)  ## make .venv and install what this machine lacks

# the stamp: nothing is reinstalled until one of these files changes
$(READY): pyproject.toml constraints.txt .ci/system .ci/env
	@bash .ci/system
	@bash .ci/env
	@touch $@

book: env  ## execute every chapter afresh, judge the claims, render the site from what was executed
	$(BIN)/hjbridge run --profile $(PROFILE) --jobs $(JOBS) --stage "$(BUILD)/stage"
	rm -rf "$(BUILD)/book" "$(BUILD)/html"
	$(RENDER) --path-output "$(BUILD)/book" "$(BUILD)/stage"
	mv "$(BUILD)/book/_build/html" "$(BUILD)/html"
	@echo "open $(abspath $(BUILD))/html/index.html, or: make serve OUT=$(OUT)"

# from clean: an incremental build forgets the errors of pages that it skips
html: env  ## render the committed record
	rm -rf "$(BUILD)/html" "$(BUILD)/.doctrees"
	$(RENDER) --path-output "$(OUT)" .
	@echo "open $(abspath $(BUILD))/html/index.html, or: make serve OUT=$(OUT)"

# without MPLBACKEND: kernels draw into the notebook
lab: env  ## open the chapters in JupyterLab, as copies with their numbers written out
	$(BIN)/hjbridge reading "$(BUILD)/reading"
	env -u MPLBACKEND $(BIN)/jupyter lab --ServerApp.root_dir="$(abspath $(BUILD))/reading"

chapter: env  ## execute one chapter afresh in the staging folder: make chapter CH=05
	$(if $(CH),,$(error CH must name a chapter, as in: make chapter CH=05))
	$(BIN)/hjbridge run --chapter $(CH) --profile $(PROFILE) --stage "$(BUILD)/stage"

record: env  ## execute one chapter and make the outcome the committed record: make record CH=05
	$(if $(CH),,$(error CH must name a chapter, as in: make record CH=05))
	$(BIN)/hjbridge run --chapter $(CH) --profile $(PROFILE) --record

train: env  ## train a committed checkpoint by its recipe, resuming: make train NAME=mnist
	$(if $(NAME),,$(error NAME must name a recipe, as in: make train NAME=mnist))
	$(BIN)/hjbridge train $(NAME)

bench: $(BENCH)/.ready  ## compare with peers, paired in one run; in an environment of its own on top of .venv
	$(BENCH)/bin/python -m pytest -q -m bench tests
	$(BENCH)/bin/python benchmarks/run.py

# sees the packages of .venv and adds only the peers, so that .venv stays as it is
$(BENCH)/.ready: $(READY)
	$(BIN)/python -m venv --without-pip $(BENCH)
	$(BIN)/python -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" \
	  > "$$($(BENCH)/bin/python -c 'import site; print(site.getsitepackages()[0])')/base.pth"
	$(BENCH)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

lint: env  ## ruff on code and notebooks, mypy, spelling, the fixed form of the notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/hjbridge normalise --check notebooks/*.ipynb

# quick checks first; nbval last, since it runs every chapter at full length; then its numbers against the record
test: env lint  ## everything that CI runs: lint, library, record, site in a browser, notebooks against their outputs
	$(PYTEST) tests
	$(PYTEST) --nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg notebooks
	$(BIN)/hjbridge check --again _build/results

serve:  ## show the rendered site on http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory "$(SITE)" 8000

lock: env  ## resolve constraints.txt afresh for Python 3.11 to 3.13
	bash .ci/lock

clean:  ## remove what was built; the environments stay
	rm -rf _build dist build .pytest_cache .ruff_cache .mypy_cache
