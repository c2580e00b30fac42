# Needs Python 3.11 or newer, make, git and a package index that pip can reach. Everything else is fetched.
# "make" alone lists the targets, by the comments that stand beside them.

SHELL  := /bin/sh
VENV   ?= .venv
PYTHON ?=
ARGS   ?=

# What the tests of the NeMo engine run on. For a build without CUDA, which is much smaller on Linux:
#   make test TORCH="--extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu"
TORCH  ?= torch==2.13.0

# The build of ONNX Runtime for GPUs, in the version that the extra gpu names.
ONNXRUNTIME_GPU := onnxruntime-gpu==1.26.0

venv_python := $(VENV)/bin/python
install     := $(venv_python) -m pip install --quiet -c constraints.txt

.PHONY: help run setup setup-gpu lint format test-fast test test-nemo test-gpu accuracy bench deploy-check docs settings diagram lock dist clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

run: setup ## set up, then serve (settings: .env, see .env.example)
	@exec $(venv_python) -m diarist serve

setup: $(VENV)/.models ## the virtual environment and the models, nothing more

# faster-whisper requires onnxruntime, whose files onnxruntime-gpu overwrites: it has to be the only one, and intact.
setup-gpu: setup ## the libraries for an NVIDIA GPU (3 GB, without PyTorch): Linux on x86-64
	@$(install) -e '.[gpu]'
	@$(venv_python) -m pip uninstall --quiet --yes onnxruntime
	@$(install) --no-deps --force-reinstall $(ONNXRUNTIME_GPU)
	@$(venv_python) -m diarist doctor

lint: $(VENV)/.dev ## what has to be clean before a commit: ruff, mypy, import-linter
	$(venv_python) -m ruff check .
	$(venv_python) -m ruff format --check .
	$(venv_python) -m mypy
	$(venv_python) -m mypy --platform win32 --cache-dir .mypy_cache/win32 src
	$(venv_python) -m mypy --platform darwin --cache-dir .mypy_cache/darwin src
	$(VENV)/bin/lint-imports

format: $(VENV)/.dev ## let ruff rewrite what it can
	$(venv_python) -m ruff check --fix .
	$(venv_python) -m ruff format .

# About 90 seconds on 2 cores. What is missing on this machine is skipped, even where CI is set.
FAST := not (models or gpu or nemo or bench or servers or shared or slow or timing)

test-fast: $(VENV)/.dev ## the tests that need no models, PyTorch, NeMo or servers: under two minutes
	CI= $(venv_python) -m pytest -m "$(FAST)" --hypothesis-profile fast $(ARGS)

test: $(VENV)/.test ## set up for tests, then the whole suite; ARGS="-k words" narrows it
	@sh .ci/servers
	@$(venv_python) -m diarist models pull
	@$(venv_python) tests/support/recordings.py
	$(venv_python) -m pytest $(ARGS)

test-nemo: $(VENV)/.test ## the same, but only what runs on NeMo
	@$(venv_python) tests/support/recordings.py
	$(venv_python) -m pytest -m nemo $(ARGS)

test-gpu: $(VENV)/.dev setup-gpu ## Whisper and the diarizer on an NVIDIA GPU, compared with the CPU
	@$(venv_python) tests/support/recordings.py
	$(venv_python) -m pytest -m gpu -s $(ARGS)

accuracy: $(VENV)/.test ## score the engine anew on what the tests fetch, and record the figures that it is held to
	@$(venv_python) -m diarist models pull
	@$(venv_python) tests/support/recordings.py
	RECORD_ACCURACY=1 $(venv_python) -m pytest -q tests/e2e/test_accuracy_gate.py

# Each system has an environment of its own, and so has what compares them: $(VENV) is left as it is.
FOLDER ?=
BENCH  := .cache/bench

bench: $(BENCH)/diarist/.ready ## Diarist and its peers side by side: make bench FOLDER=recordings ARGS="--growth 1,10"
	@test -n "$(FOLDER)" || { echo 'Name the folder of recordings and references: make bench FOLDER=path/to/recordings' >&2; exit 2; }
	@$(BENCH)/diarist/bin/python -m diarist models pull
	@$(BENCH)/diarist/bin/python benchmarks/compare.py "$(FOLDER)" --environments $(BENCH) --torch "$(TORCH)" $(ARGS)

$(BENCH)/diarist/.ready: $(VENV)/.venv pyproject.toml constraints.txt benchmarks/peers/diarist.txt
	@mkdir -p $(BENCH)
	@$(venv_python) -m venv $(BENCH)/diarist
	@$(BENCH)/diarist/bin/python -m pip install --quiet -c constraints.txt -e '.[bench]' -r benchmarks/peers/diarist.txt
	@touch $@

# 330 MB of tools, in an environment of their own. Helm's package asks for Python 3.12, and works with 3.11 as well.
CHECKS := .cache/deploy

deploy-check: $(CHECKS)/.ready ## Dockerfiles, compose files, Helm chart and dashboard, without Docker
	@$(CHECKS)/bin/python deploy/check.py

$(CHECKS)/.ready: $(VENV)/.venv deploy/requirements.txt
	@mkdir -p $(CHECKS)
	@$(venv_python) -m venv $(CHECKS)
	@$(CHECKS)/bin/python -m pip install --quiet --ignore-requires-python -r deploy/requirements.txt
	@touch $@

docs: $(VENV)/.docs ## build the documentation into build/site, and check its links
	$(venv_python) docs/build_site.py build/site

settings: $(VENV)/.base ## write .env.example and docs/settings.md anew from settings.py
	$(venv_python) docs/describe_settings.py

diagram: $(VENV)/.base ## draw docs/architecture.svg anew
	$(venv_python) docs/draw_architecture.py

# The stamps: made last, so that a set-up that was broken off is done again.

$(VENV)/.venv:
	@set -e; \
	if $(venv_python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then touch $@; exit; fi; \
	for candidate in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
		if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			if ! $$candidate -c 'import ensurepip, venv' 2>/dev/null; then \
				echo "$$candidate cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; \
			fi; \
			echo "Setting up $(VENV) with $$($$candidate --version)"; \
			$$candidate -m venv --clear $(VENV); \
			$(venv_python) -m pip install --quiet --upgrade pip; \
			touch $@; exit; \
		fi; \
	done; \
	echo "Diarist needs Python 3.11 or newer, and found none. Install one, or name yours: make PYTHON=/path/to/python3" >&2; exit 1

$(VENV)/.base: $(VENV)/.venv pyproject.toml constraints.txt
	@echo "Installing Diarist"
	@$(install) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "Installing what linting and the fast tests need"
	@$(install) -e '.[dev]'
	@touch $@

$(VENV)/.test: $(VENV)/.dev
	@echo "Installing PyTorch, NeMo and what else the whole suite needs"
	@$(install) $(TORCH)
	@$(install) -e '.[dev,docs,nemo,bench]'
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	@echo "Installing what builds the documentation"
	@$(install) -e '.[docs]'
	@touch $@

$(VENV)/.models: $(VENV)/.base src/diarist/models/catalog.toml
	@$(venv_python) -m diarist models pull
	@touch $@

lock: $(VENV)/.venv ## choose the versions in constraints.txt anew
	sh .ci/lock $(venv_python)

dist: $(VENV)/.venv ## build what a release consists of into dist/: sdist, wheel, SBOM, hashes
	@sh .ci/dist $(venv_python)

clean: ## remove what make made; never recordings, results, logs or models
	rm -rf $(VENV) .cache build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
