# Everything on a fresh machine with Python 3.10 or newer: `make demo`, `make test`. See `make help`.

PYTHON ?= python3
VENV := .venv
INTEROP := .venv-interop
FLOWER := .venv-flower
DAFNE := .venv-dafne
PIP_FLAGS := --quiet --disable-pip-version-check
TORCH := torch==2.13.0
READY := $(VENV)/.ready
INTEROP_READY := $(INTEROP)/.ready
FLOWER_READY := $(FLOWER)/.ready
DAFNE_READY := $(DAFNE)/.ready
FLOWER_QUIET := FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help demo test check test-interop test-dafne flower-demo test-flower clean

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

test-dafne: $(DAFNE_READY) ## the plugin in the real Dafne client, without a screen; its pictures in dafne-pictures/
	DAFNE_PICTURES=dafne-pictures OMP_NUM_THREADS=1 $(DAFNE)/bin/python -m pytest tests/dafne_client -p no:cacheprovider -o norecursedirs=".*"

flower-demo: $(FLOWER_READY) ## a hundred simulated sites on Flower's engine, results in flower-demo-output/
	$(FLOWER_QUIET) $(FLOWER)/bin/python -m dafne_dante.demo.flower_demo

test-flower: $(FLOWER_READY) ## our round on Flower's engine
	$(FLOWER_QUIET) $(FLOWER)/bin/python -m pytest tests/flower -p no:cacheprovider -o norecursedirs=".*" -W ignore::DeprecationWarning

clean: ## remove all environments and the demonstrations' output
	rm -rf $(VENV) $(INTEROP) $(FLOWER) $(DAFNE) demo-output flower-demo-output dafne-pictures

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

# Flower pins other versions of the server's packages than ours.
$(FLOWER_READY): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(FLOWER)
	$(FLOWER)/bin/pip install $(PIP_FLAGS) $(TORCH)
	$(FLOWER)/bin/pip install $(PIP_FLAGS) -e ".[flower,test]"
	touch $@

# Dafne asks for any torchvision; only this one belongs to our torch, and another would bring another torch.
# SimpleElastix is what Dafne would fetch by itself, with a question, at its first start.
$(DAFNE_READY): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(DAFNE)
	$(DAFNE)/bin/pip install $(PIP_FLAGS) $(TORCH)
	$(DAFNE)/bin/pip install $(PIP_FLAGS) torchvision==0.28.0 SimpleITK-SimpleElastix dafne==2.1.0a0 dafne-monai-inference -e ".[test]"
	touch $@
