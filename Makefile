# The front door. `make help` lists the targets; SUITE names a file in experiments/.

SUITE ?= quick
PYTHON ?= python3
PORT ?= 8000

BIN := .venv/bin
# A file's tests run in one process, which makes once what they share; the longest files first (tests/conftest.py).
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder
INSTALLED := .venv/installed
# The version of torch in .venv, as a constraint; fails where there is none.
TORCH := from importlib.metadata import version as v; print("torch==" + v("torch"))
export PATH := $(CURDIR)/$(BIN):$(PATH)
export SCHEDULER SPARSE_VAE_MIRROR

.PHONY: all help setup pip download train collect graphics check site preview update_web lab test test-fast test-slow lint bench clean distclean

all: setup ## everything: install, train a suite, draw its figures, build the report (SUITE=quick)
	sparse-vae all --suite $(SUITE)

help: ## list the targets
	@grep -hE '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z_-]+):.*## /\1|/' | awk -F'|' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## install the package and its tools into .venv; a torch that is there stays (TORCH_INDEX=address to take it from)

pip: setup ## the same as setup

$(INSTALLED): pyproject.toml constraints.txt constraints-torch.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "python's venv module is needed (Debian: python3-venv)" >&2; exit 1; }
	$(BIN)/pip install --quiet --upgrade pip
	@if $(BIN)/python -c '$(TORCH)' > .venv/torch.txt 2>/dev/null; then \
		echo "$$(cat .venv/torch.txt) is there and stays"; \
	else \
		cp constraints-torch.txt .venv/torch.txt; \
		test -z "$(TORCH_INDEX)" || $(BIN)/pip install --index-url "$(TORCH_INDEX)" $$(grep -E '^torch(vision)?==' .venv/torch.txt); \
	fi
	$(BIN)/pip install --constraint constraints.txt --constraint .venv/torch.txt --editable '.[test]'
	@command -v quarto >/dev/null || timeout 180 $(BIN)/pip install --quiet "quarto-cli>=1.7" 2>/dev/null || \
		echo "Quarto could not be installed: the site will be a plain preview made with pandoc."
	@touch $@

download: setup ## download and verify the real data sets (SPARSE_VAE_MIRROR=folder or address)
	sparse-vae download

train: setup ## train the runs of a suite that are not published or have changed, and publish them (SUITE=, SCHEDULER=tcp://host:8786)
	sparse-vae train --suite $(SUITE)

collect: setup ## publish the finished runs of a suite that is still training: runs/ -> results/ (SUITE=)
	sparse-vae collect --suite $(SUITE)

graphics: setup ## draw the figures of a suite that have changed, from what is published; trains nothing (SUITE=)
	sparse-vae graphics --suite $(SUITE)

check: setup ## check every reference of the pages, and every claim over the published results
	sparse-vae check

site: setup ## build the report of a suite into _site/ (SUITE=)
	sparse-vae site --suite $(SUITE)

preview: setup ## serve the built report at http://localhost:8000 (PORT=)
	@test -f _site/index.html || { echo "nothing to serve yet: make site" >&2; exit 1; }
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _site $(PORT)

update_web: setup ## build the published report and push it to the gh-pages branch of origin
	sparse-vae publish --suite report

lab: setup ## open JupyterLab on the notebooks
	jupyter lab --notebook-dir notebooks

test: setup ## run the tests
	$(PYTEST)

test-fast: setup ## run the tests that are quick one by one, without kernels, notebooks, figures, Quarto or a browser: a minute
	$(PYTEST) -m "not slow and not heavy"

test-slow: setup ## run the tests that take long, which `make test` leaves out
	$(PYTEST) -m slow

lint: setup ## check the code's style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup ## measure speed: training against a plain DataLoader loop and a former recipe (needs MNIST: make download), Gamma samples against torch, pursuits against a plain loop
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/cpu_to_bound.py
	$(BIN)/python benchmarks/gamma_sampler.py
	$(BIN)/python benchmarks/matching_pursuit.py

clean: ## remove built pages, unfinished runs, and the quick suite
	rm -rf build _site _variables.yml report/_cells report/executed results/quick runs/quick
	test ! -d runs || find runs -name '.*.partial' -type d -prune -exec rm -rf {} +

distclean: clean ## also remove the environment
	rm -rf .venv
