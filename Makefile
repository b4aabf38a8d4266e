# The newcomer's verbs. Needs Python 3.11, make and a JDK 17 or newer; no root, no Docker.
# Own Python: make PYTHON=/path/to/python3.11 …   Own raw files: make demo DATA_DIR=/path
PYTHON ?= python3.11
DATA_DIR ?=
RUN := .venv/platform/bin/python
CLOUD := .venv/cloud/bin/python
.DEFAULT_GOAL := help
NEEDS_SETUP = [ -x $(RUN) ] || { echo "The platform environment is missing: run make setup" >&2; exit 1; }
.PHONY: help setup demo up down status rollback lineage clean clean-all test soak load setup-cloud rehearse cloud-report lint eda report bench benchmark \
  compose-check docs
# Without the bytecode cache every process would compile the libraries anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: ## install the environments from hash-checked locks, and Kafka
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is missing: install it, or call make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@$(PYTHON) -m infra.local.setup

demo: setup ## run the whole loop, from raw ratings to a list that a click changes
	@$(RUN) -m infra.local demo --data-dir "$(abspath $(DATA_DIR))"

up: setup ## start the platform and wait until it is healthy; WITH='dashboard monitoring' starts these too
	@$(RUN) -m infra.local up $(addprefix --with ,$(WITH))

down: ## stop the platform
	@[ ! -x $(RUN) ] || $(RUN) -m infra.local down

status: ## show every service: state, memory, health, address
	@$(NEEDS_SETUP)
	@$(RUN) -m infra.local status

rollback: ## serve the former model again, and make it champion: TO=VERSION WHY='…' are optional
	@$(NEEDS_SETUP)
	@$(RUN) -m infra.local rollback --to "$(TO)" --why "$(WHY)"

lineage: ## from ID=REQUEST|VERSION|CUT|PARTITION back to the raw partitions, and forward again
	@$(NEEDS_SETUP)
	@[ -n "$(ID)" ] || { echo "Say what to trace: make lineage ID=… (a request id, a model version, a data cut or a raw partition)" >&2; exit 1; }
	@$(RUN) -m infra.local lineage "$(ID)"

clean: down ## remove what the platform wrote
	@[ ! -x $(RUN) ] || $(RUN) -m infra.local clean

clean-all: clean ## the environments too
	rm -rf .venv

test: ## set up what the tests need, check the style and the layers, run the tests
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is missing: install it, or call make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@$(PYTHON) -m infra.local.setup --with-tests
	$(MAKE) --no-print-directory lint
	@# In each of two workers numeric libraries would take a thread a processor.
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --no-loadscope-reorder

soak: ## the long proofs: every task killed once, a Spark cluster, alerts, each on services of their own
	@$(PYTHON) -m infra.local.setup --with-tests --with-load
	$(RUN) -m pytest -m soak

load: ## let Locust's users loose on the API: HOST=http://127.0.0.1:18080 USERS=50 SECONDS=60 are the defaults
	@$(PYTHON) -m infra.local.setup --with-load
	.venv/load/bin/locust -f bench/locustfile.py --headless --host "$(or $(HOST),http://127.0.0.1:18080)" --users "$(or $(USERS),50)" \
	  --spawn-rate 10 --run-time "$(or $(SECONDS),60)s" $(if $(KEY),--key "$(KEY)")

setup-cloud: ## the clouds' SDKs too, in an environment of their own (1 GB)
	@$(PYTHON) -m infra.local.setup --with-tests --with-clouds

rehearse: setup-cloud ## roll releases out through the clouds' own SDKs, against emulators on this machine
	$(RUN) -m bench.rehearsal

cloud-report: ## measure the serving process at each cloud shape's limits, beside its price, into docs/results/
	@$(NEEDS_SETUP)
	$(RUN) -m bench.cloud_report

lint: ## style and layers only
	@$(NEEDS_SETUP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	.venv/platform/bin/lint-imports
	.venv/platform/bin/sqlfluff lint --disable-progress-bar dbt/models dbt/tests

eda: ## write an HTML page a domain about what the marts hold, into var/reports/eda
	@$(NEEDS_SETUP)
	@$(RUN) -m monitoring explore

report: ## write the final report, the slides and the models' page from docs/results and the warehouse, into var/reports/final; docs/results/models.md anew
	@$(NEEDS_SETUP)
	@$(RUN) -m bench.report

bench: ## measure the warm pipeline on DATA_DIR, into docs/results/
	@[ -d "$(DATA_DIR)" ] || { echo "Say on which data: make bench DATA_DIR=/path/to/ml-1m" >&2; exit 1; }
	@$(MAKE) --no-print-directory up
	$(RUN) -m bench.pipeline "$(abspath $(DATA_DIR))"

benchmark: ## train and judge on a public split: TRAIN=FILE TEST=FILE FORMAT=lightgcn|ncf|sequence MODEL=NAME|best OUT=FILE
	@$(NEEDS_SETUP)
	@[ -n "$(TRAIN)" ] && [ -n "$(FORMAT)" ] && [ -n "$(MODEL)" ] && [ -n "$(OUT)" ] || { \
	  echo "Say what on what: make benchmark TRAIN=FILE TEST=FILE FORMAT=lightgcn|ncf|sequence MODEL=NAME|best OUT=FILE (docs/benchmark.md)" >&2; exit 1; }
	@$(RUN) -m training.benchmark --train "$(TRAIN)" $(if $(TEST),--test "$(TEST)") --format "$(FORMAT)" --model "$(MODEL)" \
	  --budget-s "$(or $(BUDGET_S),600)" --seed "$(or $(SEED),1)" --threads "$(or $(THREADS),1)" --out "$(OUT)" \
	  $(if $(CONFIG),--config '$(CONFIG)') $(if $(PER_USER),--per-user "$(PER_USER)")

compose-check: ## validate docker-compose.yml without a daemon
	@$(NEEDS_SETUP)
	@$(RUN) -m infra.compose_check

docs: ## write the generated parts of the docs anew, and serve dbt's pages of the warehouse on loopback (PORT=8089)
	@$(NEEDS_SETUP)
	@$(RUN) -m tests.architecture.settings_table
	@$(RUN) -m bench.report.index
	@$(RUN) -m infra.local warehouse-docs --port "$(or $(PORT),8089)"
