# Every target sets itself up in .venv. CI calls the same targets (.ci/run).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := edge models/bedside_models sync firmware_scripts tests
# Real DICOM peers, a browser, a tracer, a software TPM and RAUC that some tests use; without them
# those tests skip and say so.
# RUNLEVEL=1 leaves the packages' own services stopped: tests start theirs on free ports.
DEBIAN_PACKAGES := dcmtk dicom3tools orthanc orthanc-dicomweb strace chromium fonts-wqy-microhei swtpm tpm2-tools rauc squashfs-tools dbus systemd
PEER_PROGRAMS := storescu storescp echoscu dciodvfy Orthanc strace chromium swtpm tpm2_create rauc \
  mksquashfs systemd-analyze
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=

.PHONY: help install demo test lint bench bench-flwr fmt types imports slow wheel lock docs cover peers train-env oracles-env clean

help: ## say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# ---- set-up -------------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"Bedside needs Python 3.11 or newer, {sys.executable} is {v.major}.{v.minor}; set PYTHON=...")'
	@$(PYTHON) -m venv $(VENV) || { echo 'venv failed; on Debian install the package python3-venv'; exit 1; }

$(STAMP): requirements.txt pyproject.toml | $(BIN)/python
	@echo 'installing the locked dependencies into $(VENV) (about a minute, 900 MB)'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(STAMP) ## create .venv with the locked dependencies and this project
	@$(BIN)/bedside-edge --version

train-env: $(STAMP) ## add the training side (torch, onnx, nncf) to .venv; not locked, see docs/development.md
	@sed -n 's/ *\\$$//; /^[a-z].*==/p' requirements.txt > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check -c $(VENV)/constraints.txt --no-build-isolation -e '.[train]'

oracles-env: $(STAMP) ## add the independent programs that tests compare with (OpenDP, pymerkle); not locked
	@sed -n 's/ *\\$$//; /^[a-z].*==/p' requirements.txt > $(VENV)/constraints.txt
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c $(VENV)/constraints.txt --no-build-isolation -e '.[oracles]'

peers: ## install the DICOM peers that tests talk to, when root; otherwise name them
	@missing=''; for program in $(PEER_PROGRAMS); do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	echo "peer programs not installed:$$missing (Debian packages: $(DEBIAN_PACKAGES))"; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -z "$${NO_APT:-}" ]; then \
	  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends $(DEBIAN_PACKAGES) >/dev/null; } \
	    || echo 'apt-get did not install them; the tests that need them skip and say so'; \
	else echo 'not installing them (needs root and apt-get); the tests that need them skip and say so'; fi

# ---- run ----------------------------------------------------------------------------------------

demo: $(STAMP) ## send real studies to a throw-away box and print the results
	@$(BIN)/python -m bedside_edge.demo

bench: $(STAMP) ## measure against raw engines, DCMTK and Orthanc, as ratios in one run
	@PYTHONPATH=tests $(BIN)/python -m bench.run

bench-flwr: $(STAMP) ## compare the secure sum with flwr's SecAgg+, which gets an environment of its own
	@test -x .venv-flwr/bin/flwr || { $(PYTHON) -m venv .venv-flwr && .venv-flwr/bin/python -m pip install -qq --disable-pip-version-check flwr==1.41.0 numpy; }
	@PYTHONPATH=tests $(BIN)/python -m bench.flwr_side .venv-flwr/bin/python

# ---- check --------------------------------------------------------------------------------------

test: $(STAMP) peers ## unit, contract, property, integration and architecture tests
	$(BIN)/python -m pytest -m 'not slow' -n $(PYTEST_WORKERS) --dist loadfile -rs $(PYTEST_ARGS)

slow: $(STAMP) peers ## the tests that take minutes
	$(BIN)/python -m pytest -m slow -n $(PYTEST_WORKERS) --dist loadfile -rs $(PYTEST_ARGS)

cover: $(STAMP) ## branch coverage of bedside_core by its own tests
	$(BIN)/coverage run -m pytest -q tests/core
	$(BIN)/coverage report

lint: $(STAMP) ## format and rule check, types, import contracts
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	@$(MAKE) --no-print-directory types imports

fmt: $(STAMP) ## rewrite the sources in the house format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix-only --quiet $(SOURCES)

types: $(STAMP) ## mypy, strict, on the five packages
	$(BIN)/mypy

imports: $(STAMP) ## the import contracts of pyproject.toml
	PYTHONPATH=edge:models:sync:firmware_scripts $(BIN)/lint-imports

# ---- make files ---------------------------------------------------------------------------------

docs: $(STAMP) ## rewrite the generated parts of docs/
	@PYTHONPATH=tests $(BIN)/python -m support.generated_docs

wheel: $(STAMP) ## build dist/bedside-*.whl without the network
	$(BIN)/python -m hatchling build -t wheel -d dist

lock: ## rewrite requirements.txt from pyproject.toml: hashes, no hosts, nothing younger than a week
	@$(PYTHON) -m venv .lock-venv && .lock-venv/bin/python -m pip install -qq --disable-pip-version-check uv
	.lock-venv/bin/uv export --quiet --format requirements-txt --extra dev --no-emit-project --no-header --no-annotate -o requirements.txt

clean: ## remove what the targets made, the virtual environment included
	rm -rf $(VENV) .lock-venv .coverage dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache demo-output bench-output
