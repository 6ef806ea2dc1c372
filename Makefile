# Hostler. `make help` lists the targets; everything they need is put below this folder (.tools, .venv, .lab*) and into
# the cache of the lab, but for Debian packages, which `make setup` installs through apt-get.

UV_VERSION := 0.13.8
SUITABLE   := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))
ifndef PYTHON
PYTHON     := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$python -c '$(SUITABLE)' 2>/dev/null; then command -v $$python; break; fi; done)
endif
UV         := .tools/uv-$(UV_VERSION)/bin/uv
VENV       := .venv/.synced
BIN        := .venv/bin
ARGS       ?=

export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo demo-down check format test faults faults-long faults-real soak bench generate clean \
	packages check-format check-lint check-types check-contracts check-generated check-reconcilers check-units

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV) ## Install what is missing: Debian packages (root or sudo), uv, the Python environment
	@echo "setup: ready"

demo: setup ## Bring up a Kubernetes API and three KVM hosts on this machine, run Hostler and the quick start
	@$(BIN)/python tools/demo.py up

demo-down: ## End the demo: no process, namespace, mount, bridge or loop device stays
	@if [ -x $(BIN)/python ]; then $(BIN)/python tools/demo.py down; else echo "demo: nothing was set up"; fi

check: $(VENV) ## Format, lint, types, contracts, generated files and unit tests; changes nothing
	@$(MAKE) --no-print-directory --keep-going --jobs=$$(nproc) --output-sync=target \
		check-reconcilers check-units check-types check-lint check-format check-contracts check-generated
	@echo "check: all good"

format: $(VENV) ## Format the code and repair what the linter can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup ## Unit and integration tests in three labs of their own (ARGS="-k word" selects, KEEP_LAB=1 keeps the lab)
	@sh tools/test.sh $(ARGS)

faults: $(VENV) ## Kill the controller at every call, and more that can go wrong (FAULTS_SEEDS=50); again goes on
	@$(BIN)/pytest tests/faults $(ARGS)

faults-long: $(VENV) ## The same with 1000 seeds, a hundred times the generated input, and no bound in time
	@FAULTS_SEEDS=1000 FAULTS_STRIDE=1 FAULTS_SECONDS=1000000 FUZZ_EXAMPLES=100 $(BIN)/pytest tests/faults $(ARGS)

soak: $(VENV) ## Crash points under ever new seeds until it is stopped, with the command that shows a failure again
	@$(BIN)/python -m simulator soak $(ARGS)

faults-real: setup ## Faults on the lab's real parts (SLICE=1/3 runs a part; what has passed for this code is not run again)
	@sh tools/faults_real.sh $(ARGS)

bench: setup ## Measure in a lab of its own: speed and cost of VMs beside libvirt alone (ARGS="documents" selects)
	@sh tools/bench.sh $(ARGS)

generate: $(VENV) ## Write the generated files again (CRDs from the models)
	$(BIN)/python -m crds.generate

clean: ## Remove the tools and the Python environment (the lab's cache in ~/.cache/hostler-lab stays)
	rm -rf .tools .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Below: what the targets above are made of.

packages:
	@if [ -z "$(PYTHON)" ]; then echo "make: Python 3.11 to 3.14 is needed (name one: make PYTHON=/path/to/python3)" >&2; exit 1; fi
	@$(PYTHON) lab/setup.py

$(UV): | packages
	@echo "setup: uv $(UV_VERSION)"
	@$(PYTHON) -m venv .tools/uv-$(UV_VERSION)
	@.tools/uv-$(UV_VERSION)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV): pyproject.toml uv.lock | $(UV)
	@echo "setup: Python environment"
	@$(UV) sync --locked --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')"
	@touch $@

check-format:
	@$(BIN)/ruff format --check .

check-lint:
	@$(BIN)/ruff check --quiet .

check-types:
	@$(BIN)/mypy

check-contracts:
	@$(BIN)/lint-imports

check-generated:
	@$(BIN)/python -m crds.generate --check

# Half of the unit tests each, side by side.
check-reconcilers:
	@$(BIN)/pytest --quiet tests/unit/reconcilers

check-units:
	@$(BIN)/pytest --quiet $(filter-out tests/unit/reconcilers tests/unit/__pycache__, $(wildcard tests/unit/*))
