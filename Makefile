# `make chat` opens the chat, `make test` runs every check; both set up what they need, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: chat test format bench
.DELETE_ON_ERROR:

chat: $(VENV)/.installed
	@$(BIN)/python -m chatbot

test: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m chatbot models pull smollm2-135m-instruct
	$(BIN)/python -m chatbot models pull all-minilm-l6-v2
	$(BIN)/python -m chatbot models pull efficientnet-lite0
	$(BIN)/python -m pytest

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev
	$(BIN)/python -m tests.benchmarks

# Standard output belongs to the reply (`echo hello | make chat`): all set-up speaks on standard error.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "chatbot needs Python 3.11 or newer: make PYTHON=python3.12 chat" >&2; exit 2; }
	@echo "Setting up $(VENV); the libraries are some gigabytes, once." >&2
	@$(PYTHON) -m venv $(VENV) >&2
	@$(BIN)/python -m pip install --quiet --upgrade pip >&2
	@$(BIN)/python -m pip install --editable . >&2
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed pyproject.toml
	@$(BIN)/python -m pip install --quiet --group dev >&2
	@touch $@
