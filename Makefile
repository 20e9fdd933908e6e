# Everything starts from a plain Python ≥ 3.11: the first target that needs it makes the virtual environment.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.ready
# uv trusts its own list of authorities; where a proxy has one of its own, the second try asks the system.
# Compiled at once, or the first start of every program would take seconds longer.
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
# Reference MCP servers that the tests start; in an environment of their own, as they may want other versions than we do.
SERVERS := .servers
SERVERS_READY := $(SERVERS)/.ready
SERVERS_LOCKS := tests/servers/package.json tests/servers/package-lock.json tests/servers/requirements.lock
SERVERS_INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(SERVERS)/python/bin/python
# Workers of the test run; two cores gain little from more.
JOBS ?= 2

.PHONY: help dev temporal servers demo test check fmt lint types contracts docs bench chaos lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "perstack needs Python 3.11 or newer; name one with make PYTHON=/path/to/python" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "making the virtual environment .venv …" >&2; $(PYTHON) -m venv .venv; }
	@echo "installing the locked dependencies …" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(INSTALL) --require-hashes -r requirements.lock 2>/dev/null || \
		$(INSTALL) --system-certs --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $(READY)

dev: $(READY) ## set up for development
	@test -e typings/perstack || ln -sfn .. typings/perstack
	@$(MAKE) --no-print-directory temporal

temporal: $(READY) ## find or get the temporal program
	@$(BIN)/python -P -m perstack.client.binary >/dev/null

servers: $(SERVERS_READY) ## get the reference MCP servers that the tests start

$(SERVERS_READY): $(SERVERS_LOCKS) tests/servers/.npmrc | $(READY)
	@command -v node >/dev/null && command -v npm >/dev/null || \
		{ echo "the tests start MCP servers that need Node.js 20 or newer: install node and npm" >&2; exit 1; }
	@echo "installing the reference MCP servers into $(SERVERS) …" >&2
	@mkdir -p $(SERVERS)
	@cp tests/servers/package.json tests/servers/package-lock.json tests/servers/.npmrc $(SERVERS)/
	@cd $(SERVERS) && npm ci --omit=dev --loglevel=error >/dev/null
	@test -x $(SERVERS)/python/bin/python || $(BIN)/python -m venv --without-pip $(SERVERS)/python
	@$(SERVERS_INSTALL) --require-hashes -r tests/servers/requirements.lock 2>/dev/null || \
		$(SERVERS_INSTALL) --system-certs --require-hashes -r tests/servers/requirements.lock
	@touch $@

demo: temporal ## run the built-in create-expert team from a recording, on a real Temporal server
	@$(BIN)/python -P examples/create-expert/demo.py

# Screens are tested in a real terminal.
.PHONY: tmux
tmux:
	@command -v tmux >/dev/null || \
		{ echo "the tests of the screens run in a real terminal: install tmux" >&2; exit 1; }

test: temporal servers tmux ## set up and run all tests
	$(BIN)/pytest -n $(JOBS) --dist loadgroup

check: fmt-check lint types contracts words test ## everything CI looks at

fmt: $(READY) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: fmt-check words
fmt-check: $(READY)
	$(BIN)/ruff format --check .

lint: $(READY) ## ruff
	$(BIN)/ruff check .

types: $(READY) ## pyright, strict
	$(BIN)/pyright

contracts: $(READY) ## import contracts
	$(BIN)/lint-imports

words: $(READY)
	$(BIN)/codespell

docs: $(READY) ## write the generated parts of the documentation
	$(BIN)/python -P tests/requirements.py --write
	$(BIN)/python -P docs/generate.py

bench: temporal ## measure; see bench/README.md
	$(BIN)/python -P bench/bench.py

chaos: temporal ## the drills at random points; SEED=7 DRILL=cancel POINT=3 plays one again
	@$(BIN)/python -P tests/chaos/run.py $(if $(SEED),--seed $(SEED)) $(if $(DRILL),--drill $(DRILL)) \
		$(if $(POINT),--point $(POINT)) $(if $(POINTS),--points $(POINTS))

lock: $(READY) ## resolve the dependencies anew
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --upgrade --quiet -o requirements.lock
	$(BIN)/uv pip compile tests/servers/requirements.in --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --upgrade --quiet -o tests/servers/requirements.lock
	cd tests/servers && npm update --package-lock-only

clean: ## remove what set-up made here
	rm -rf .venv $(SERVERS) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
