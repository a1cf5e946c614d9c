# Everything a newcomer or CI needs: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
# Networks and their tests; the index for processors saves gigabytes: make TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: help demo test chaos bench-peers lint lock clean
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(STAMP) ## Remove the backgrounds of the sample photos through the whole system
	@$(BIN)/mattemill demo

test: $(DEV) ## Run every test against real servers
	$(BIN)/pytest -n 2 --dist loadfile

chaos: $(DEV) ## Kill, cut, fill and starve everything for 25 minutes, and count what is lost
	$(BIN)/python -m tests.chaos --json bench/results/chaos.json

PEERS := $(patsubst bench/peers/%.txt,.venv-peers/%/.installed,$(wildcard bench/peers/*.txt))
bench-peers: $(DEV) $(PEERS) ## Measure against what other libraries make of the same job
	$(BIN)/python -m bench.against_peers > bench/results/against_peers.json.part
	mv bench/results/against_peers.json.part bench/results/against_peers.json

# The libraries that both have are of the same version as ours. What cannot be installed is left out, and said.
.venv-peers/%/.installed: bench/peers/%.txt requirements.lock | $(DEV)
	-$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D) && \
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python -c requirements.lock -r $< && touch $@

lint: $(DEV) ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(STAMP) ## Pin every dependency again (maintainers)
	$(PIP) uv
	$(LOCK) --extra embedded -o requirements.lock
	$(LOCK) --extra embedded --extra gpu --extra heic --extra dev -c requirements.lock -o requirements-dev.lock
LOCK = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url pyproject.toml

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.lock
	$(PIP) --no-deps -e .
	@touch $(STAMP)

$(DEV): $(STAMP) requirements-dev.lock
	$(PIP) -r requirements-dev.lock
	$(PIP) $(TORCH)
	@touch $(DEV)

clean: ## Remove what the targets above made
	rm -rf $(VENV) .venv-peers build *.egg-info .mypy_cache .ruff_cache .pytest_cache mattemill-demo
