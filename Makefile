# The short list of things to do here; `make` alone prints it.
.DEFAULT_GOAL := help
.PHONY: help demo test install check bench fuzz format clean

python := .venv/bin/python

help: ## print this list
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1\t/p' Makefile

demo: install ## serve a few sample mails and show how to look at them
	@$(python) -m pop3.tools.demo

install: ## make .venv and install the project into it
	@share/setup/venv.sh

# PYTEST="-k wire -n 0" chooses tests
test: install ## run all tests
	@share/setup/debian-packages.sh
	$(python) -m pytest -n 2 --dist loadfile -rfEs $(PYTEST)

check: install ## all that CI runs: format, lint, types, tests
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m mypy
	@$(MAKE) --no-print-directory test

# BENCH="--quick --only login" measures less
bench: install ## measure the server beside Dovecot
	$(python) tests/bench/bench.py $(BENCH)

# FUZZ="session --runs 10000" takes one target, and fewer inputs
FUZZ ?= all
fuzz: install ## throw a million inputs at each parser (hours)
	$(python) -m tests.fuzz $(FUZZ)

format: install ## put the code into its form
	$(python) -m ruff format .
	$(python) -m ruff check --fix .

clean: ## remove .venv and everything made
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
