# Everything from a fresh clone: `make demo`, `make test`. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint types docs clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(VENV)/installed  ## make the virtual environment (.venv) and install into it

demo: install  ## train and explain a model on a simulated genome, in demo/
	$(BIN)/python -m jobs.demo

test: install  ## run the tests but the slow ones
	$(BIN)/python -m pytest -m "not slow"

test-slow: install  ## run the slow tests: what is killed and goes on, several nodes, submitted jobs, real data
	$(BIN)/python -m pytest -m slow

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
	touch $@
