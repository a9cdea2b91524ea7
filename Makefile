# `make` lists all targets. Each slow step leaves a stamp in .venv, and is repeated only if its prerequisites have
# changed. Steps that need more than one line of shell are in scripts/setup.

VENV_PYTHON := .venv/bin/python
# Tests run in this many processes: twice the cores of a small machine, because many tests wait for a server. Idle
# processes take over tests from others.
TEST_PROCESSES := 4

.DEFAULT_GOAL := help
.PHONY: help install demo test mutate stress bench bench-compare lint format docs site screenshots constraints lowest clean

help:  ## List all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/.dev  ## Create .venv with all packages that yaptide and its tests import

demo: .venv/.runtime  ## Run a small simulation from input to depth-dose curve, in .demo/
	@YAPTIDE_DATA_DIR="$(CURDIR)/.demo" .venv/bin/yaptide demo

test: lint  ## Lint, then run all tests; installs the servers that they need
	@scripts/setup clients
	@scripts/setup postgresql
	@scripts/setup brokers
	@scripts/setup slurm
	@scripts/setup nginx
	@scripts/setup mcsquare
	@scripts/setup keycloak
	@scripts/setup s3proxy
	$(VENV_PYTHON) -m pytest -n $(TEST_PROCESSES) --dist worksteal

mutate: .venv/.dev  ## Insert small bugs one at a time, and count those that the unit tests find: make mutate [MODULE=yaptide/services/tasks.py]
	@scripts/setup mutation
	$(VENV_PYTHON) -m tests.mutation $(MODULE)

stress: .venv/.dev  ## What takes longer than `make test`: mixed load with killed processes, races, faults, floods, random requests, large data, two SLURM clusters (docs/reliability.md)
	$(VENV_PYTHON) -m tests.stress
	RACES=300 $(VENV_PYTHON) -m pytest -rA tests/acceptance/test_races.py
	KILLS=10 STOPPED=60 $(VENV_PYTHON) -m pytest -rA tests/acceptance/test_crash_recovery.py
	KILLS=10 $(VENV_PYTHON) -m pytest -rA -k killed tests/integration/test_adoption.py
	SITE_PROGRAMS=all $(VENV_PYTHON) -m pytest -rA tests/acceptance/test_site_programs.py
	FAULTS=10 $(VENV_PYTHON) -m pytest -rA tests/acceptance/test_production_faults.py
	FLOOD=20 SIEGES=20 $(VENV_PYTHON) -m pytest -rA tests/acceptance/test_sign_in_flood.py tests/acceptance/test_slow_clients.py
	REQUESTS=10000 $(VENV_PYTHON) -m pytest -rA -n 2 tests/integration/test_openapi.py
	EXAMPLES=20 $(VENV_PYTHON) -m pytest -rA -n 2 -k "whatever or model_says" tests/integration/test_store_model.py tests/integration/test_adoption.py tests/integration/test_backup.py
	EXAMPLES=20 $(VENV_PYTHON) -m pytest -rA -k random tests/unit/simulators/test_writers.py
	@scripts/setup geant4
	$(VENV_PYTHON) -m tests.stress.gdml
	$(VENV_PYTHON) -m tests.stress.errors
	$(VENV_PYTHON) -m tests.stress.pages
	$(VENV_PYTHON) -m tests.stress.large_ct
	$(VENV_PYTHON) -m tests.stress.adoption
	@scripts/setup slurm_accounts
	$(VENV_PYTHON) -m pytest -rA tests/stress/clusters.py
	$(VENV_PYTHON) -m benchmarks --quick --results "$$(mktemp -d)"

bench: .venv/.dev  ## Measure every workload against what the machine can do (docs/performance.md); 15 minutes
	@scripts/setup postgresql
	@scripts/setup mcsquare
	$(VENV_PYTHON) -m benchmarks $(BENCH)

bench-compare: .venv/.dev  ## Compare a revision with this checkout: make bench-compare REV=main [BENCH="--only reports"]
	@scripts/setup postgresql
	@scripts/setup mcsquare
	@scripts/bench-compare "$(REV)" $(BENCH)

lint: .venv/.dev  ## Check style and types
	$(VENV_PYTHON) -m ruff check
	$(VENV_PYTHON) -m ruff format --check
	$(VENV_PYTHON) -m mypy

format: .venv/.dev  ## Format the code and fix what ruff can fix
	$(VENV_PYTHON) -m ruff format
	$(VENV_PYTHON) -m ruff check --fix

docs: .venv/.runtime  ## Regenerate the generated documents
	$(VENV_PYTHON) -m scripts.generate_docs

screenshots: .venv/.dev  ## Take a picture of each page, light and dark, desktop and phone, in screenshots/
	@scripts/setup postgresql
	mkdir -p screenshots
	$(VENV_PYTHON) -m pytest tests/acceptance/test_*pages.py

site: .venv/.site  ## Build the documents as a web site in build/site, and check links between them
	$(VENV_PYTHON) -m sphinx --quiet --fail-on-warning --keep-going docs build/site

constraints:  ## Pin the newest versions of all dependencies in constraints.txt
	@scripts/setup constraints

lowest:  ## Run the unit tests with the lowest versions that pyproject.toml allows
	@scripts/setup lowest

clean:  ## Remove everything that make has created: .venv, .demo, caches
	rm -rf .venv .demo build dist *.egg-info client/build client/*.egg-info .*_cache .hypothesis
	find yaptide client tests -name __pycache__ -prune -exec rm -rf {} +

.venv/.runtime: pyproject.toml client/pyproject.toml constraints.txt
	@scripts/setup runtime
	@touch $@

.venv/.site: .venv/.dev
	@scripts/setup site
	@touch $@

# Separate from the test tools, so that a demo downloads only what it needs.
.venv/.dev: .venv/.runtime
	@scripts/setup dev
	@touch $@
