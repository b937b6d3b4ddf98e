# `make demo` and `make test` are all the set-up there is: each makes .venv and installs the pinned set where needed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check format bench bench-probes test-deepspeed clean

demo: .venv/.installed
	$(BIN)/recipe run recipes/zhdict_dpo.yaml

test: .venv/.installed-dev
	$(BIN)/python -m pytest

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Figures to quote; nothing else should run meanwhile.
bench: demo
	$(BIN)/python tests/bench/commands.py results/zhdict_dpo
	$(BIN)/python tests/bench/training_speed.py --stage base
	$(BIN)/python tests/bench/training_speed.py --stage qa
	$(BIN)/python tests/bench/training_speed.py --stage base --layers 8 --hidden 512 --steps 20 --rounds 3

# The same for probes. The simulations of gates take minutes; lm-evaluation-harness is of the extra `bench`.
bench-probes: .venv/.installed-dev
	$(PIP) -e '.[bench]'
	$(BIN)/python tests/bench/generation.py
	$(BIN)/python tests/bench/pytest_cost.py --cases 10000
	$(BIN)/python tests/bench/rescoring.py
	$(BIN)/python tests/bench/latency.py
	$(BIN)/python tests/bench/foreign.py
	$(BIN)/python tests/bench/gates.py --runs 2000

# Probing what DeepSpeed ZeRO-2 wrote: two processes, and an operator that its first use compiles for some minutes.
test-deepspeed: .venv/.installed-dev
	$(PIP) -e '.[distributed]'
	$(BIN)/python -m pytest tests/test_foreign_checkpoints.py -k zero_2

clean:
	rm -rf .venv results .pytest_cache .mypy_cache .ruff_cache

# A changed pyproject.toml or constraints.txt installs again; nothing else does.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e '.[dev]'
	touch .venv/.installed $@
