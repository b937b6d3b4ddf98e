# `make demo` and `make test` are all the set-up there is: each makes .venv and installs the pinned set where needed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow check audit format docs screenshots bench bench-probes bench-training bench-gpu faults test-deepspeed coverage fuzz mutation properties soak clean

demo: .venv/.installed
	$(BIN)/recipe run recipes/zhdict_dpo.yaml

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# The rest of the tests, some of which take a minute: a compiled stage, a large source, a rehearsal.
test-slow: .venv/.installed-dev
	$(BIN)/python -m pytest -m slow

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/audit/licences.py
	$(BIN)/python tests/audit/vulnerabilities.py

# The same two alone. It fails where a vulnerability is known or nobody can be asked, both of which `make check` only says.
audit: .venv/.installed-dev
	$(BIN)/python tests/audit/licences.py
	$(BIN)/python tests/audit/vulnerabilities.py --strict

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.installed-dev
	$(BIN)/sphinx-build -W --keep-going docs build/docs

# The pictures in docs/images, from a run that ends red on purpose (exit code 1); about ten minutes, and Chromium must be there.
screenshots: .venv/.installed-dev
	$(BIN)/recipe run recipes/zhdict_naive.yaml || test $$? -eq 1
	$(BIN)/python docs/screenshots.py results/zhdict_naive

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

# Runs of a small project disturbed at random moments of every phase and run again, about half an hour; then disks that
# are full, which need root. `FAULTS="--kills 20 --seed 2"` for other or fewer kills, `FAULTS=--resume` goes on. The table
# comes into build/faults/table.md; `python -m tests.faults.campaign --docs docs/faults.md` puts it into the page.
faults: .venv/.installed-dev
	$(BIN)/python -m tests.faults.campaign --folder build/faults --kills 112 $(FAULTS)
	$(BIN)/python -m tests.faults.full_disk --folder build/full --times 3

# Training with DeepSpeed, and probing what another trainer wrote with it, whose first use compiles an operator.
test-deepspeed: .venv/.installed-dev
	$(PIP) -e '.[distributed]'
	$(BIN)/python -m pytest tests/test_deepspeed.py
	$(BIN)/python -m pytest tests/test_foreign_checkpoints.py -k zero_2

# Random recipes and data files: `make fuzz MINUTES=15 SEED=1`, so many minutes each. What breaks is kept in build/fuzz.
MINUTES ?= 15
SEED ?= 1
fuzz: .venv/.installed-dev
	$(BIN)/python -m tests.fuzz.campaign recipe --minutes $(MINUTES) --seed $(SEED)
	$(BIN)/python -m tests.fuzz.campaign readers --minutes $(MINUTES) --seed $(SEED)

# The properties, with a hundred times as many examples as the tests draw.
properties: .venv/.installed-dev
	$(BIN)/python -m pytest --hypothesis-profile=many tests/test_properties.py tests/test_repetition.py tests/test_packing.py

# Every line of gates, measures, masks and negatives changed in turn: does a test notice? About half an hour.
mutation: .venv/.installed-dev
	$(PIP) -e '.[mutation]'
	rm -rf mutants
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/mutmut run
	$(BIN)/python tests/mutation/score.py --survivors

# 200 checkpoints probed in one run: memory and open files of its processes.
soak: .venv/.installed-dev
	$(BIN)/python tests/soak/checkpoints.py

# Branch coverage of runner, with the processes that the tests start; about twice as long as `make test`. What times itself
# or bounds the files of a process may fail while it is measured: whether it passes, `make test` says.
coverage: .venv/.installed-dev
	rm -rf build/coverage && mkdir -p build/coverage
	-$(BIN)/coverage run -m pytest -n 2 --dist loadfile
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=90

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
