# `make demo` and `make test` are all the set-up there is: each makes .venv and installs the pinned set where needed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check format docs bench bench-probes bench-training bench-gpu faults test-deepspeed clean

demo: .venv/.installed
	$(BIN)/recipe run recipes/zhdict_dpo.yaml

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.installed-dev
	$(BIN)/sphinx-build -W --keep-going docs build/docs

# Figures to quote; nothing else should run meanwhile.
bench: demo
	$(BIN)/python tests/bench/commands.py results/zhdict_dpo
	$(BIN)/python tests/bench/training_speed.py --stage base
	$(BIN)/python tests/bench/training_speed.py --stage qa
	$(BIN)/python tests/bench/training_speed.py --stage base --layers 8 --hidden 512 --steps 20 --rounds 3

# Training against TRL's own trainers, packing against padding, what keeps old facts; then a source of 5 GB, which takes long.
bench-training: .venv/.installed-dev
	$(BIN)/python tests/bench/sft_speed.py
	$(BIN)/python tests/bench/dpo_speed.py
	$(BIN)/python tests/bench/packing.py
	$(BIN)/python tests/bench/forgetting.py --seeds 1 2 3
	$(BIN)/python tests/bench/large_source.py --gb 5

# The same for probes. The simulations of gates take minutes; lm-evaluation-harness is of the extra `bench`.
bench-probes: .venv/.installed-dev
	$(PIP) -e '.[bench]'
	$(BIN)/python tests/bench/generation.py
	$(BIN)/python tests/bench/pytest_cost.py --cases 10000
	$(BIN)/python tests/bench/rescoring.py
	$(BIN)/python tests/bench/latency.py
	$(BIN)/python tests/bench/foreign.py
	$(BIN)/python tests/bench/gates.py --runs 2000

# On a machine with a GPU: training and asking a model of one billion parameters. `GPU=--small` runs it on a CPU.
bench-gpu: .venv/.installed-dev
	$(BIN)/python tests/bench/gpu.py $(GPU)

# Runs of the demo killed at random moments and run again: about two hours; `FAULTS="--kills 4 --set …"` for fewer, smaller.
faults: .venv/.installed-dev
	$(BIN)/python tests/faults/kills.py recipes/zhdict_dpo.yaml --kills 20 $(FAULTS)

# Training with DeepSpeed, and probing what another trainer wrote with it, whose first use compiles an operator.
test-deepspeed: .venv/.installed-dev
	$(PIP) -e '.[distributed]'
	$(BIN)/python -m pytest tests/test_deepspeed.py
	$(BIN)/python -m pytest tests/test_foreign_checkpoints.py -k zero_2

clean:
	rm -rf .venv build results .pytest_cache .mypy_cache .ruff_cache

# A changed pyproject.toml or constraints.txt installs again; nothing else does.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e '.[dev]'
	touch .venv/.installed $@
