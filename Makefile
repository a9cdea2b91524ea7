# `make` lists what there is. Each step that takes time leaves a stamp in .venv, so it is done again only if what it
# depends on has changed. What needs more than one line of shell is in scripts/setup.

VENV_PYTHON := .venv/bin/python
# Tests run in this many processes at once: twice as many as a small machine has cores, since many tests wait for a server.
# Whoever has nothing left to do takes tests from the others.
TEST_PROCESSES := 4

.DEFAULT_GOAL := help
.PHONY: help install demo test mutate stress bench bench-compare lint format docs site screenshots constraints lowest clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/.dev  ## Make .venv with everything that yaptide and its tests import

demo: .venv/.runtime  ## Run a small simulation from input to depth-dose curve, in .demo/
	@YAPTIDE_DATA_DIR="$(CURDIR)/.demo" .venv/bin/yaptide demo

test: lint  ## Lint, then run all tests; brings the servers that they start if they are missing
	@scripts/setup clients
	@scripts/setup postgresql
	@scripts/setup brokers
	@scripts/setup slurm
	@scripts/setup nginx
	@scripts/setup mcsquare
	@scripts/setup keycloak
	@scripts/setup s3proxy
	$(VENV_PYTHON) -m pytest -n $(TEST_PROCESSES) --dist worksteal

mutate: .venv/.dev  ## Plant small bugs, one at a time, and count those that the unit tests find: make mutate [MODULE=yaptide/services/tasks.py]
	@scripts/setup mutation
	$(VENV_PYTHON) -m tests.mutation $(MODULE)

stress: .venv/.dev  ## Ten minutes of everything at once, processes killed, then 300 rounds of each race, all faults, floods of strangers, 10,000 requests made from the API's description, and standard errors against MCsquare (docs/reliability.md)
	$(VENV_PYTHON) -m tests.stress
	RACES=300 $(VENV_PYTHON) -m pytest -rA tests/acceptance/test_races.py
	KILLS=10 STOPPED=60 $(VENV_PYTHON) -m pytest -rA tests/acceptance/test_crash_recovery.py
	FAULTS=10 $(VENV_PYTHON) -m pytest -rA tests/acceptance/test_production_faults.py
	FLOOD=20 SIEGES=20 $(VENV_PYTHON) -m pytest -rA tests/acceptance/test_sign_in_flood.py tests/acceptance/test_slow_clients.py
	REQUESTS=10000 $(VENV_PYTHON) -m pytest -rA -n 2 tests/integration/test_openapi.py
	$(VENV_PYTHON) -m tests.stress.errors
	$(VENV_PYTHON) -m benchmarks --quick --results "$$(mktemp -d)"

bench: .venv/.dev  ## Measure every workload beside what the machine can do (docs/performance.md); a quarter of an hour
	@scripts/setup postgresql
	@scripts/setup mcsquare
	$(VENV_PYTHON) -m benchmarks $(BENCH)

bench-compare: .venv/.dev  ## What a change did: make bench-compare REV=main [BENCH="--only reports"]
	@scripts/setup postgresql
	@scripts/setup mcsquare
	@scripts/bench-compare "$(REV)" $(BENCH)

lint: .venv/.dev  ## Check style and types
	$(VENV_PYTHON) -m ruff check
	$(VENV_PYTHON) -m ruff format --check
	$(VENV_PYTHON) -m mypy

format: .venv/.dev  ## Format the code and mend what ruff can mend
	$(VENV_PYTHON) -m ruff format
	$(VENV_PYTHON) -m ruff check --fix

docs: .venv/.runtime  ## Write the parts of docs/ again that are generated from the code
	$(VENV_PYTHON) -m scripts.generate_docs

screenshots: .venv/.dev  ## Leave a picture of each page, light and dark, on a desktop and a phone, in screenshots/
	@scripts/setup postgresql
	mkdir -p screenshots
	$(VENV_PYTHON) -m pytest tests/acceptance/test_pages*.py tests/acceptance/test_result_pages.py

site: .venv/.site  ## Build the documents as a web site in build/site; a broken link between them is an error
	$(VENV_PYTHON) -m sphinx --quiet --fail-on-warning --keep-going docs build/site

constraints:  ## Pin the newest versions of all dependencies in constraints.txt
	@scripts/setup constraints

lowest:  ## Run the unit tests with the lowest versions that pyproject.toml allows
	@scripts/setup lowest

clean:  ## Remove all that make has made: .venv, .demo, caches
	rm -rf .venv .demo build dist *.egg-info client/build client/*.egg-info .*_cache .hypothesis
	find yaptide client tests -name __pycache__ -prune -exec rm -rf {} +

.venv/.runtime: pyproject.toml client/pyproject.toml constraints.txt
	@scripts/setup runtime
	@touch $@

.venv/.site: .venv/.dev
	@scripts/setup site
	@touch $@

# The tests' tools are apart, so that a demo downloads only what it needs.
.venv/.dev: .venv/.runtime
	@scripts/setup dev
	@touch $@
