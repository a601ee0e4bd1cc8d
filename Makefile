PYTHON ?= python3
BIN := .venv/bin
DEMO := demo/$(shell date +%Y%m%d-%H%M%S)

.PHONY: demo test env format

demo: env
	$(BIN)/lung-nodule-seg demo -o $(DEMO)

test: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

env: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[host,test]'
	touch $@

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
