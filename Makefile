PYTHON ?= python3

BIN := .venv/bin
# Two more than there are processors: a third of the tests' time goes by in waiting.
PYTEST_XDIST_AUTO_NUM_WORKERS := $(or $(PYTEST_XDIST_AUTO_NUM_WORKERS),$(shell expr $$(getconf _NPROCESSORS_ONLN) + 2))
export PYTEST_XDIST_AUTO_NUM_WORKERS

.NOTPARALLEL:
.PHONY: demo serve test test-api test-newest client lint bench bench-purge soak teeth clean

demo: .venv/.installed-demo  ## the whole cycle against a live server
	$(BIN)/python -m project.demo

serve: .venv/.installed-demo  ## the host product, kept running
	$(BIN)/python -m project.demo --serve

test: .venv/.installed-test
	$(BIN)/python -m pytest -n auto
	$(BIN)/python -m pytest --ds=tests.wagtail_host.settings tests/wagtail_host

# The same tests on the newest Django that is supported: make test-newest NEWEST=python3.13
NEWEST ?= python3.13
NEWEST_DJANGO ?= 6.1
TESTS ?=
test-newest:
	$(NEWEST) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	grep -vi '^django==' constraints.txt > .venv-newest/constraints.txt
	.venv-newest/bin/python -m pip install --quiet -c .venv-newest/constraints.txt \
		'django~=$(NEWEST_DJANGO).0' -e '.[factories,openapi]' --group test
	.venv-newest/bin/python -m pytest -n auto $(TESTS)

client: .venv/.installed-test  ## the client's plain half, made anew from the one for asyncio
	$(BIN)/python -m tests.client.generate

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive stagehand_testdata project
	$(BIN)/python manage.py makemigrations --check --dry-run

bench: .venv/.installed-test
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.middleware
	$(BIN)/python -m benchmarks.visibility

# The long runs want PostgreSQL: make soak DATABASE_URL=postgres:///stagehand
bench-purge: .venv/.installed-test  ## a million rows against raw DELETEs
	$(BIN)/python -m benchmarks.large_purge
	$(BIN)/python -m benchmarks.large_purge --rows 100000 --receiver --ways raw ours

CASES ?= 10000
test-api: .venv/.installed-test  ## schemathesis, all its checks, against a running server with and without keys
	$(BIN)/python -m benchmarks.api --cases $(CASES)

STEPS ?= 100000
PAYLOADS ?= 100000
KILLS ?= 5000
STOPS ?= 100
soak: .venv/.installed-test  ## the fuzz, property, crash and load runs at full length
	$(BIN)/python -m benchmarks.soak
	$(BIN)/python -m benchmarks.properties --steps $(STEPS) --processes 2
	$(BIN)/python -m benchmarks.payloads --payloads $(PAYLOADS) --processes 2
	$(BIN)/python -m benchmarks.crash --kills $(KILLS)
	$(BIN)/python -m benchmarks.crash --kills $(KILLS) --guards
	$(BIN)/python -m benchmarks.server_stop --stops $(STOPS)
	$(BIN)/python -m benchmarks.api --cases $(STEPS)
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.load --guards
	$(BIN)/python -m benchmarks.idempotency
	$(BIN)/python -m benchmarks.runners

teeth: .venv/.installed-test  ## each of the seeded bugs must make a test fail
	$(BIN)/python -m tests.teeth

clean:
	rm -rf .venv .venv-newest .demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each dependency group: `make demo` installs no more than the demo needs.
.venv/.installed-%: pyproject.toml constraints.txt | .venv/.pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[factories,openapi]' --group $*
	touch $@

# Dependency groups came with pip 25.1.
.venv/.pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	touch $@
