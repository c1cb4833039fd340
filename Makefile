# Everything on a fresh machine with Python 3.10 or newer: `make demo`, `make test`. See `make help`.

PYTHON ?= python3
VENV := .venv
INTEROP := .venv-interop
PIP_FLAGS := --quiet --disable-pip-version-check
TORCH := torch==2.13.0
READY := $(VENV)/.ready
INTEROP_READY := $(INTEROP)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check test-interop clean

help: ## show these lines
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

demo: $(READY) ## a federation of three hospitals on this machine, results in demo-output/
	$(VENV)/bin/dafne-dante demo --out demo-output

test: $(READY) ## the test suite
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(READY) ## formatting, lint, types and the rules of the house
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy -p dafne_dante
	$(VENV)/bin/python -m pytest tests/test_style.py

test-interop: $(INTEROP_READY) ## our models and server against the stock programs of Dafne
	$(INTEROP)/bin/python -m pytest tests/interop --numprocesses 2 --dist loadfile --no-loadscope-reorder -p no:cacheprovider -o norecursedirs=".*"

clean: ## remove both environments and the demonstration's output
	rm -rf $(VENV) $(INTEROP) demo-output

# torch goes first and alone: pip then has nothing to weigh against it.
$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install $(PIP_FLAGS) $(TORCH)
	$(VENV)/bin/pip install $(PIP_FLAGS) -c constraints.txt -e ".[dev]"
	touch $@

# The stock programs bring their own versions of many packages, so our constraints do not apply here.
$(INTEROP_READY): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/pip install $(PIP_FLAGS) $(TORCH)
	$(INTEROP)/bin/pip install $(PIP_FLAGS) dafne-dl dafne-monai-inference dante-trainer -e ".[test]"
	touch $@
