# Needs Python >= 3.11, git and make; everything else is installed into .venv from requirements.lock.
.DEFAULT_GOAL := help
.PHONY: help setup retrain test test-line test-parts bench bench-objectives lint soak bench-serving bench-families

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
WORKERS ?= 2

help:
	@echo "make retrain   train, judge, export, publish and promote; prints the decision and where to look"
	@echo "make test      all tests"
	@echo "make bench     measurements, as JSON under benchmarks/results"
	@echo "make bench-objectives   TwinFlow against its rivals: hours on a CPU, goes on where it was stopped"
	@echo "make soak      kills, races, faults, full disks in full counts: hours; goes on where it was stopped"
	@echo "make bench-serving   images a second and p95: torch against ONNX Runtime; then hot swap under load"
	@echo "make bench-families   every model family's package against torch, from noise to pixels"
	@echo "make lint      ruff, mypy and the import arrows"

setup: $(STAMP)

# A candidate counts only if it runs: version managers leave launchers of versions that are not active.
$(STAMP): requirements.lock pyproject.toml
	@set -e; chosen=""; \
	for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			chosen="$$candidate"; break; \
		fi; \
	done; \
	if [ -z "$$chosen" ]; then \
		echo "No Python >= 3.11 was found. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; \
		exit 2; \
	fi; \
	if ! command -v git >/dev/null 2>&1; then \
		echo "git was not found. Install git: every run is recorded as a commit." >&2; exit 2; \
	fi; \
	echo "Installing into $(VENV) with $$($$chosen --version); the first time takes some minutes."; \
	"$$chosen" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

retrain: $(STAMP)
	@$(BIN)/twinflow retrain

# The end-to-end tests build on each other in one clone, so they run in order; the others run beside them. Files stay
# whole, for tests of one file may build on each other too (pytest-xdist 3.8 ignores its groups under pytest 9.2).
test: $(STAMP)
	@$(MAKE) --no-print-directory -j 2 test-line test-parts

test-line: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/flows --durations 10

test-parts: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --ignore tests/flows

bench: $(STAMP)
	@$(BIN)/python -m benchmarks

bench-objectives: $(STAMP)
	@$(BIN)/python -m benchmarks.objectives.step_time
	@$(BIN)/python -m benchmarks.objectives

# SOAK names some of them and a count, e.g. SOAK="races --count 10".
soak: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.soak $(SOAK)

bench-serving: $(STAMP)
	@$(BIN)/python -m benchmarks.serving_speed
	@$(BIN)/python -m benchmarks.hot_swap

bench-families: $(STAMP)
	@$(BIN)/python -m benchmarks.family_parity

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
