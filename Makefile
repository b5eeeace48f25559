# `make demo` shows it, `make up` serves it, `make test` checks it. Each does its own set-up.
.PHONY: help setup demo up down test chaos bench bench-dbos bench-restate bench-prefect bench-sandboxes check fix docs histories doctor clean

help:
	@echo 'make demo     run two real projects through Director and show the result'
	@echo 'make up       serve until Ctrl-C: API on 8000, Temporal UI on 8233'
	@echo 'make down     stop everything of ours'
	@echo 'make test     lint, types, import contracts, all tests (ARGS=… goes to pytest)'
	@echo 'make chaos    kill parts at random for SECONDS=600, with SEED=… the same ones again,'
	@echo '              with DATABASE=postgres on a Postgres'
	@echo 'make bench    what it costs, beside what does the same without it (ROWS=… ROUNDS=… QUICK=1)'
	@echo '              rivals first: make bench-dbos bench-restate bench-prefect bench-sandboxes'
	@echo 'make check    lint, types and import contracts only'
	@echo 'make fix      repair lint and format'
	@echo 'make docs     write the pages of docs/ that are made from the code'
	@echo 'make doctor   tell what is there and what is missing'
	@echo 'make clean    remove .venv and caches; data in .director stays'

setup:
	@scripts/setup

demo: setup
	@.venv/bin/director demo

up: setup
	@.venv/bin/director up

down: setup
	@.venv/bin/director down

doctor: setup
	@.venv/bin/director doctor

test: setup
	@.venv/bin/python scripts/test.py $(ARGS)

chaos: setup
	@PYTHONPATH=tests .venv/bin/python -m chaos --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED)) $(if $(DATABASE),--database $(DATABASE))

bench: setup
	@.venv/bin/python -m bench $(if $(ROWS),--rows $(ROWS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(QUICK),--quick)

# Rivals, each in an environment of its own below .bench; `make bench` shows their figures too.
bench-dbos bench-restate bench-prefect bench-sandboxes: bench-%: setup
	@.venv/bin/python -m bench.rivals $* $(ROUNDS)

check: setup
	@scripts/check

fix: setup
	@scripts/check fix

docs: setup
	@.venv/bin/python scripts/docs.py

# On purpose only: tests replay these with the workflow code of today.
histories: setup
	@.venv/bin/python tests/replay/record.py $(SHAPES)

clean:
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .bench
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
