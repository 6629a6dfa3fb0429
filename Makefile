# Needs GNU make, a POSIX shell and Python 3.11, 3.12 or 3.13 (PYTHON=… names one).
# Everything is installed into .venv; settings are read from .env and the environment.

SHELL = /bin/sh
VENV = .venv
# For `make lock UPGRADE=--upgrade`, which takes newer versions instead of the pinned ones.
UPGRADE =
# For `make load`: whom, how many callers, and for how long.
HOST = http://127.0.0.1:8528
USERS = 20
TIME = 60s

.DEFAULT_GOAL = help
.PHONY: help run test coverage browser test-clients test-ops rehearse drill chaos chaos-short soak load test-load lint bench lock clean runtime dev

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: runtime ## install, prepare and run everything; Ctrl-C stops it
	@$(VENV)/bin/python -m scripts.run

test: dev ## all tests, on SQLite and on PostgreSQL and Redis
	@$(VENV)/bin/python -m tests.run $(ARGS)

coverage: dev ## how much of the code the tests on SQLite reach; the report is in reports/
	@$(VENV)/bin/python -m tests.run --coverage $(ARGS)

browser: dev ## the pages in a real Chromium, which Debian's package brings
	@sh scripts/venv.sh browser
	@$(VENV)/bin/python -m pytest -q -m browser tests/browser $(ARGS)

test-clients: dev ## litellm and langchain-openai as clients of the OpenAI protocol
	@sh scripts/venv.sh clients
	@$(VENV)/bin/python -m pytest -q -m clients tests/clients $(ARGS)

test-ops: dev ## a real Prometheus and Alertmanager watch the platform: rules, dashboards, drill
	@$(VENV)/bin/python -m pytest -q -m ops tests/ops $(ARGS)

rehearse: dev ## the whole installation from the shipped files: TLS, upgrades, restarts, backup
	@$(VENV)/bin/python -m pytest -q -s -m rehearsal tests/rehearsal $(ARGS)

drill: dev ## break one part after the other: does the right alert arrive, and end?
	@$(VENV)/bin/python -m pytest -q -s -m ops tests/ops/test_drill.py $(ARGS)

chaos: dev ## what only a clock and broken parts can show; CHAOS_ROUNDS=5 asks more often
	@$(VENV)/bin/python -m pytest -q -s -m chaos tests/chaos $(ARGS)

chaos-short: dev ## the minutes of it that CI runs: killed processes, servers gone or hung, exact usage
	@$(VENV)/bin/python -m pytest -q -s -m chaos tests/chaos/test_crash.py tests/chaos/test_dependencies.py \
		tests/chaos/test_usage.py::test_usage_is_exact_after_ten_thousand $(ARGS)

soak: dev ## an hour of ordinary use, in which nothing may grow; SOAK_MINUTES=15 is shorter
	@$(VENV)/bin/python -m pytest -q -s -m soak tests/chaos/test_soak.py $(ARGS)

load: dev ## USERS=20 callers on HOST=http://127.0.0.1:8528 for TIME=60s, by Locust
	@sh scripts/venv.sh load
	@$(VENV)/bin/locust -f tests/load/locustfile.py --headless --host $(HOST) --users $(USERS) \
		--spawn-rate 5 --run-time $(TIME) --stop-timeout 60 --only-summary $(ARGS)

test-load: dev ## a few of those callers for a few seconds: do they do what they say?
	@sh scripts/venv.sh load
	@$(VENV)/bin/python -m pytest -q -m load tests/load $(ARGS)

lint: dev ## every static check
	@sh scripts/lint.sh

bench: dev ## measure what the platform costs
	@$(VENV)/bin/python -m tests.bench $(ARGS)

lock: dev ## pin what the requirements*.in files ask for
	@for name in requirements requirements-engine requirements-dev requirements-browser requirements-clients requirements-load; do \
		$(VENV)/bin/uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes \
			$(UPGRADE) $$name.in -o $$name.txt || exit 1; \
	done

clean: ## remove what can be made again: .venv, caches, reports; never data or .env
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis htmlcov reports .coverage .coverage.*
	@find . -path ./data -prune -o -type d -name __pycache__ -exec rm -rf {} +

runtime:
	@sh scripts/venv.sh runtime

dev: runtime
	@sh scripts/venv.sh dev
