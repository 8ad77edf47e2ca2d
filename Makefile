# Everything from a fresh clone: `make demo`, `make test-unit`. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help test-unit test test-slow install demo lint types docs clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

test-unit: install  ## run the tests of the library: no Ray, one process a core
	OMP_NUM_THREADS=1 $(PYTEST) -m "not slow" -n auto tests/promoter

test: install  ## run the tests of library and jobs but the slow ones; print the slowest
	@echo "what needs no Ray, two processes:"
	OMP_NUM_THREADS=1 $(PYTEST) -m "not slow and not ray" -n 2 -rs --durations=20
	@echo "what uses Ray, two processes, each with a cluster:"
	$(PYTEST) -m "ray and not slow" -n 2 --dist loadfile -rs --durations=20 tests/jobs

test-slow: install  ## run the slow tests (kill-and-resume, multi-node, submitted jobs, real data)
	$(PYTEST) -m slow -n 2 --dist loadfile -rs --durations=20

install: $(VENV)/installed  ## make the virtual environment (.venv) and install into it

demo: install  ## train and explain a model on a simulated genome, in demo/
	$(BIN)/python -m jobs.demo

lint: install  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## check types
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: install  ## build the documentation in site/; a broken link or reference is an error
	$(BIN)/mkdocs build --strict

clean:  ## remove the virtual environment, the demo's results and the built documentation
	rm -rf $(VENV) demo site

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# for docs/examples: without what it needs for training alone (macs3, bam2bw), which has to be compiled
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps bpnet-lite
	touch $@
