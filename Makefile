# `make demo` and `make test` do all the set-up themselves; they need python3 (3.10 or newer) with its venv module.
# The demo installs what a user needs, some 470 MB on disk, and no PyTorch; the tests install what a developer needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0

# `make test CONSTRAINTS=constraints.txt` installs the very versions that it names, which were tested together.
CONSTRAINTS ?=

# One process of tests per core and two more: a quarter of the time a test waits, for a network, a clip or a server.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)
# Else each process that the tests start compiles PyTorch anew, where a container has this set.
export PYTHONDONTWRITEBYTECODE :=
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal

.PHONY: demo bench chain test test-all test-fast triton fuzz gpu-test gpu-day gpu-day-prepare gpu-day-stand-in docs lint wheel-test clean

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON); try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "segdeploy needs Python 3.10 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "the venv module is missing: apt-get install python3-venv"; exit 1; }

# A stamp is newer than pyproject.toml once what it stands for is installed. Python compiles what is imported: pip would
# compile all of PyTorch, which takes longer than the rest.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile "$(TORCH)" -e ".[dev]" $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
	@touch $@ $(VENV)/.usable

$(VENV)/.usable: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[cpu]"
	@touch $@

demo: $(VENV)/.usable
	$(BIN)/segdeploy demo -o demo-out

# What this machine can run of benchmarks/suites; the results and the report made of them are for committing.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/suites.py
	$(BIN)/python benchmarks/report.py

# From a checkpoint to a DeepStream folder in one run, with all that each step cost on one page: out/chain/report.html.
chain: $(VENV)/.installed
	$(BIN)/python benchmarks/chain.py -o out/chain
	$(BIN)/python benchmarks/report.py

test: $(VENV)/.installed
	$(PYTEST) -m 'not thorough'

# Before a release, and once a week: also what is one more of its kind (other sizes, networks and interfaces).
test-all: $(VENV)/.installed
	$(PYTEST)

# The inner loop: without what takes more than some 0.15 s of a processor.
test-fast: $(VENV)/.installed
	$(PYTEST) -m "not slow and not thorough" --numprocesses auto

# NVIDIA's Triton, of its wheel and under the system's own Python, for the tests that ask a real server.
triton: .venv-triton/.installed
.venv-triton/.installed:
	/usr/bin/python3 tests/triton_server.py .venv-triton

# Each reader for SECONDS, on every core; without Atheris, which has wheels for some Pythons only, by plain mutation.
SECONDS ?= 10
FUZZ ?= -max_total_time=$(SECONDS)
fuzz: $(VENV)/.installed
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[fuzz]"
	$(BIN)/python tests/fuzz/fuzz.py all $(FUZZ)

# On a machine with a GPU: a test that is skipped there fails.
gpu-test: $(VENV)/.installed
	SEGDEPLOY_GPU=1 $(BIN)/python -m pytest tests/gpu

# The documentation as a site, in site/index.html; a warning is an error.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Before the hour: graphs and wheels, without a GPU. In the hour: eight minutes on one GPU. Any time: the same on the CPU.
gpu-day-prepare: $(VENV)/.installed
	$(BIN)/python benchmarks/gpu_day.py prepare

gpu-day: $(VENV)/.installed
	-SEGDEPLOY_GPU=1 timeout 120 $(BIN)/python -m pytest -q tests/gpu
	$(BIN)/python benchmarks/gpu_day.py run --budget 330

gpu-day-stand-in: $(VENV)/.installed
	$(BIN)/python benchmarks/gpu_day.py prepare --stand-in
	$(BIN)/python benchmarks/gpu_day.py run --stand-in

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-triton demo-out site .mypy_cache .pytest_cache .ruff_cache dist
