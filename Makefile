ifeq ($(OS),Windows_NT)
SHELL := bash.exe
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif
DEMO := demo/$(shell date +%Y%m%d-%H%M%S)

.PHONY: demo test docs env format lists

demo: env
	$(BIN)/lung-nodule-seg demo -o $(DEMO)

test: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

docs: env
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -d build/doctrees docs build/docs
	@echo Open build/docs/index.html in a browser.

env: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,docs,test]'
	touch $@

lists: env
	$(BIN)/python Testing/extension_files.py

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
