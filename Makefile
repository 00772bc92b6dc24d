# Every target works in a fresh clone; `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SA20 := .venv-sa20
CQRS := .venv-cqrs
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt hatch_build.py outbox_relay/_native.c

# Half of the time a test waits for a server. Two at once fill two cores, each with servers of its own.
TWO := -n 2 --dist worksteal

NO_SERVICE := not mariadb and not mysql and not postgresql and not kafka and not amqp and not redis

.DEFAULT_GOAL := help
.PHONY: help venv check lint test test-sa20 test-deploy runbook services chaos chaos-relays faults soak simulate simulate-wrong model coverage mutants demo newcomer bookstore bookstore-servers bookstore-chaos ws-handlers new-ws-handler bench bench-install bench-rivals image-lock screenshots docs wheel clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-17s %s\n' "$$name" "$$text"; done

venv: $(VENV)/.dev ## create .venv with everything a developer needs

check: $(VENV)/.dev lint ## lint, types and unit tests; needs no service
	$(BIN)/python -m pytest tests/unit -q

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(VENV)/.dev ## everything, on real MariaDB, MySQL, PostgreSQL, Kafka, RabbitMQ and Redis; installs what is missing
	$(MAKE) -j3 lint services $(SA20)/.installed
	$(CONTRACT_SA20)
	NO_SKIPS=1 $(BIN)/python -m pytest $(TWO) -m 'not alone and not long' --ignore=tests/deploy
	NO_SKIPS=1 $(BIN)/python -m pytest -m 'alone and not long' --ignore=tests/deploy

test-deploy: $(VENV)/.dev services ## the image, the deploy files, Prometheus and Debezium; installs buildah and more
	$(BIN)/python -m tests.deploy.install
	NO_SKIPS=1 $(BIN)/python -m pytest tests/deploy

runbook: $(VENV)/.dev services ## for each alert: plant its fault, see it fire, run its section's commands; prints a table
	$(BIN)/python -m tests.deploy.install prometheus
	NO_SKIPS=1 $(BIN)/python -m pytest tests/deploy/test_runbook.py

# What depends on SQLAlchemy: not the brokers. The store says the same SQL to MySQL as to MariaDB; what
# applications write with does not, since SQLAlchemy knows that only MariaDB can answer with RETURNING.
CONTRACT_SA20 = NO_SKIPS=1 $(SA20)/bin/python -m pytest $(TWO) tests/contract -q \
	--ignore=tests/contract/test_broker.py -k 'not mysql or write_side or inbox or repository or django'

test-sa20: $(SA20)/.installed services ## the contract suite on SQLAlchemy 2.0
	$(CONTRACT_SA20)

services: $(VENV)/.dev
	$(BIN)/python -m tests.services.install

# On the command line: make chaos KILLS=2000 DATABASE=postgresql MINUTES=30 SEED=7
KILLS ?= 2000
MINUTES ?= 600
SEED ?= 1
DATABASE ?= mariadb or postgresql
AWAY_SECONDS ?= 1,15,60,600
SECONDS ?= 3600

chaos: $(VENV)/.dev services ## kill -9 of relay, database and broker, KILLS=2000 times on each DATABASE; prints a table
	KILLS=$(KILLS) MINUTES=$(MINUTES) SEED=$(SEED) NO_SKIPS=1 \
		$(BIN)/python -m pytest tests/faults/test_kill_loop.py -q -k '$(DATABASE)'

chaos-relays: $(VENV)/.dev services ## relays that come and go under load, five minutes each on MariaDB and PostgreSQL
	CHAOS_SECONDS=300 NO_SKIPS=1 $(BIN)/python -m pytest tests/acceptance/test_several_relays.py -q --timeout 900

SEEDS ?= 1000
FIRST ?= 0

simulate: $(VENV)/.dev ## the relay in simulated worlds: make simulate SEEDS=100000 FIRST=0
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

simulate-wrong: $(VENV)/.dev ## wrong relays in the same worlds: each must be found out
	$(BIN)/python -m tests.simulation --wrong --until-caught --seeds $(SEEDS) --first $(FIRST)

faults: $(VENV)/.dev services ## network, disks, clocks, clusters, fail-overs, long outages; half an hour
	AWAY_SECONDS=$(AWAY_SECONDS) NO_SKIPS=1 $(BIN)/python -m pytest tests/faults -v

soak: $(VENV)/.dev services ## one relay under random faults, SECONDS=3600; memory, files, connections and lag stay flat
	$(BIN)/python -m tests.faults.soak $(SECONDS) $(SEED)

coverage: $(VENV)/.dev ## branches of kernel, relay core and settings that tests without a service reach
	OUTBOX_RELAY_PURE_PYTHON=1 $(BIN)/python -m pytest tests/unit -q --cov --cov-report=
	OUTBOX_RELAY_PURE_PYTHON=1 $(BIN)/python -m pytest tests/contract -q -k '$(NO_SERVICE)' --cov --cov-append --cov-report=term --cov-fail-under=100

mutants: $(VENV)/.mutation ## changes in the functions that decide: each must be noticed by a test, or be explained
	$(BIN)/python -m tests.mutation --max-children 2

model: $(VENV)/.dev services ## every state of the lease protocol's model, and what each mistake in it breaks; needs 3 GB
	$(BIN)/python -m tests.model

demo: $(VENV)/.demo ## a shop, a relay and a broker on this machine; no service and no root needed
	$(BIN)/outbox-relay demo

newcomer: $(VENV)/.dev services ## the first pages, each command as printed, in a fresh clone; how long each takes
	$(BIN)/python -m tests.newcomer

bookstore: $(VENV)/.dev ## the example application with its relay and a second service; no service needed
	$(BIN)/python -m examples.bookstore

bookstore-servers: $(VENV)/.dev services ## the same on a MariaDB and a Kafka that it starts
	$(BIN)/python -m tests.bookstore.servers

bookstore-chaos: $(VENV)/.dev services ## 1,000 sales while relay and consumer are killed: one invoice each
	BOOKSTORE_SALES=1000 BOOKSTORE_KILLS=20 NO_SKIPS=1 $(BIN)/python -m pytest tests/bookstore/test_end_to_end.py -q

ws-handlers: $(VENV)/.dev ## the example's WebSocket packages, with their roles
	@$(MAKE) -s -C examples/bookstore ws-handlers

new-ws-handler: $(VENV)/.dev ## a WebSocket handler from the template: NAME=rate_book ROLES="rate-book admin"
	@$(MAKE) -s -C examples/bookstore new-ws-handler

bench: services bench-install ## us beside python-cqrs, on real servers; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks all

bench-install: $(VENV)/.dev $(CQRS)/.installed services

bench-rivals: $(VENV)/.dev services ## the relay beside Debezium and watermill's forwarder; installs them
	$(BIN)/python -m benchmarks.rivals.install
	$(BIN)/python -m benchmarks rivals
	$(BIN)/python -m benchmarks page

# What the image installs, with the hashes of every file of each release; no registry is named.
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -c constraints.txt

image-lock: $(VENV)/.dev ## write deploy/image/*.txt anew, when pyproject.toml or constraints.txt changed
	$(PIP) uv
	$(BIN)/uv pip compile $(LOCK) pyproject.toml --extra relay --extra admin --extra postgresql --extra amqp --extra redis \
		-o deploy/image/requirements.txt
	printf '%s\n' hatchling setuptools cyclonedx-bom | $(BIN)/uv pip compile $(LOCK) - -o deploy/image/build-requirements.txt

screenshots: $(VENV)/.dev services ## the pictures of the dashboard in docs/images
	$(BIN)/python -m tests.dashboard.screenshots

docs: $(VENV)/.docs ## the pages of docs/ as a site, into build/docs; a broken link is an error
	$(BIN)/python -m sphinx -q -W --keep-going -E -d build/docs-read docs build/docs

wheel: $(VENV)/.dev ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## remove what the targets made; the jars in .cache stay
	rm -rf $(VENV) $(SA20) $(CQRS) dist build mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# The demo and the site need no test tools: a new user waits for less. What developers install includes both.
$(VENV)/.dev: $(INPUTS) | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $(VENV)/.demo $(VENV)/.docs $@

$(VENV)/.demo: $(INPUTS) | $(BIN)/python
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.docs: $(INPUTS) | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@

$(VENV)/.mutation: $(VENV)/.dev
	$(PIP) -e '.[mutation]'
	@touch $@

# SQLAlchemy 2.0, and of all else what the contract suite needs, at the versions of the other tests.
$(SA20)/.installed: $(INPUTS) | $(BIN)/python
	$(BIN)/python -m venv $(SA20)
	sed '/^SQLAlchemy==/d' constraints.txt > $(SA20)/constraints.txt
	$(SA20)/bin/python -m pip install --quiet --disable-pip-version-check -c $(SA20)/constraints.txt \
		-e '.[relay,sqlite,postgresql,amqp,redis]' 'sqlalchemy==2.0.58' confluent-kafka django psutil 'psycopg[binary]' pymysql pytest pytest-asyncio pytest-timeout pytest-xdist
	@touch $@

# The package that we are compared with, apart: it needs older versions of what we use.
$(CQRS)/.installed: benchmarks/cqrs-constraints.txt | $(BIN)/python
	$(BIN)/python -m venv $(CQRS)
	$(CQRS)/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/cqrs-constraints.txt \
		'python-cqrs[kafka,sqlalchemy]' asyncmy cryptography
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo '$(PYTHON) was not found: install Python 3.11 or later, or run: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$($(PYTHON) --version) is too old: outbox-relay needs 3.11 or later; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo '$(PYTHON) cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
