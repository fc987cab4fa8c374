# Every target works from a fresh clone: it makes .venv first, once, and again when the requirements change.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.complete
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all test-rare lint house format docs docs-serve audit package bench clean

help:
	@echo 'make quickstart   render a small set of action clips, train on it, show what was learnt'
	@echo 'make test         run the tests on all cores, without the slow ones (PYTEST_ARGS="-n 0 tests/model" to choose)'
	@echo 'make test-all     run the slow tests too, as CI does'
	@echo 'make test-rare    run their siblings, which CI leaves out: every public weight file through the command line'
	@echo 'make lint         ruff, mypy, import-linter, the bounds of the house and the Dockerfile, changing nothing'
	@echo 'make house        lines of each room of src/peakzoom, and what is over its bound'
	@echo 'make format       let ruff sort imports and lay out the code'
	@echo 'make docs         build the site of docs/ into site/, strictly (Python 3.11 or newer)'
	@echo 'make docs-serve   show it at http://localhost:8000 and build it again when a page changes'
	@echo 'make audit        look for known holes in the dependencies'
	@echo 'make package      build wheel and sdist into dist/, check both, and predict by the wheel in an empty environment'
	@echo 'make bench        measure benchmarks/performance.md again, about forty minutes (BENCH_ARGS="--only growth" for a part)'
	@echo 'make clean        remove .venv, caches and built packages; runs/ and quickstart/ stay'
	@echo 'PYTHON=python3.12 chooses the Python (3.10 to 3.13) that .venv is made with.'

# The stamp comes last, so that an interrupted installation is started anew. Torch goes first and by itself: pip
# then keeps the build it found (CPU or CUDA) while it resolves what depends on torch.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else \
	"Python %d.%d came, peakzoom needs 3.10 to 3.13: name one by make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv --clear .venv
	$(PIP) torch
	$(PIP) --quiet --editable '.[all,ray,dev,docs]'
	@touch $@

quickstart: $(STAMP)
	$(BIN)/peakzoom quickstart $(ARGS)

# One process a core, one thread each: teams of threads of several processes would wait for one another. Tests start
# many processes, so that what one has compiled is kept for the others.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder

# Without those marked slow: clusters, whole conversions, large files.
test: $(STAMP)
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-all: $(STAMP)
	$(PYTEST) -m "not rare" $(PYTEST_ARGS)

test-rare: $(STAMP)
	$(PYTEST) -m rare $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python .ci/house.py
	@if test -x $(BIN)/hadolint; then $(BIN)/hadolint Dockerfile; else echo "Dockerfile not linted: no hadolint here"; fi

house: $(STAMP)
	$(BIN)/python .ci/house.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What the pages need beyond plain Markdown lies in docs/make.
docs: $(STAMP)
	@test -x $(BIN)/zensical || { echo "the site needs Python 3.11 or newer: make clean, make docs PYTHON=python3.11"; exit 1; }
	PYTHONPATH=docs/make $(BIN)/zensical build --clean --strict

docs-serve: $(STAMP)
	PYTHONPATH=docs/make $(BIN)/zensical serve

audit: $(STAMP)
	$(BIN)/python .ci/audit.py

# Build makes the wheel from the sdist, so that both are known to be whole.
package: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/python .ci/wheel.py dist/*.whl

bench: $(STAMP)
	$(BIN)/python benchmarks/performance.py $(BENCH_ARGS)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .cache build dist site
	find . -type d -name __pycache__ -prune -exec rm -rf {} +
