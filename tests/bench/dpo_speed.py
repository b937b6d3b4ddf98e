"""Seconds per optimizer step of a dpo stage against TRL's DPOTrainer alone on the same pairs, in one process.

    python tests/bench/dpo_speed.py                              # the demo's model and pairs
    python tests/bench/dpo_speed.py --layers 8 --hidden 512 --steps 20 --micro 8

The stage's side is what a trainer process runs: `runner.train.preference.build` with `Publishing` added, as
`runner.train.worker` puts them together, so with its events, counts and order of pairs. The other side is TRL's own
trainer with the same texts, which it tokenises beforehand, the same arguments, and no callback but the clock. They take
turns, `--rounds` times, the first one changing; the ratio of each round and their median are printed. Bar: 1.05. Of a
machine with other work the seconds of wall time say little: the ratio of seconds of computing is printed beside.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import as_in_a_run
import datasets
import torch
import transformers
from trl import DPOConfig, DPOTrainer

from runner import model, recipe, spec
from runner.data import preferred
from runner.folder import Superseded
from runner.jobs import Job
from runner.preparation import Prepared, write_data
from runner.train import preference
from runner.train.arguments import Setup, trainer_arguments

RECIPE = Path(__file__).parents[2] / "recipes" / "zhdict_dpo.yaml"
STAGE = "prefer"
BAR = 1.05


class Clock(transformers.TrainerCallback):
    """When each step ended, by the wall clock and in seconds of computing; publishing is no part of it."""

    def __init__(self) -> None:
        self.ended: list[tuple[float, float]] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ended.append((time.perf_counter(), time.process_time()))

    def seconds_per_step(self) -> tuple[float, float]:
        """The medians over the steps after the first fifth."""
        kept = self.ended[len(self.ended) // 5 :]
        steps = [(wall - wall_before, cpu - cpu_before) for (wall_before, cpu_before), (wall, cpu) in pairwise(kept)]
        return statistics.median(wall for wall, _ in steps), statistics.median(cpu for _, cpu in steps)


def main() -> None:
    options = _options()
    warnings.simplefilter("ignore", FutureWarning)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    config = {"hidden_size": options.hidden, "num_hidden_layers": options.layers,
              "intermediate_size": 3 * options.hidden, "num_attention_heads": options.hidden // 32,
              "num_key_value_heads": options.hidden // 32}  # fmt: skip
    sets = [f"model.config.{name}={value}" for name, value in config.items()]
    if options.micro:
        sets.append(f"stages.{STAGE}.micro_batch_size={options.micro}")
    loaded = recipe.load(RECIPE, sets)
    size = f"{options.layers} layers x {options.hidden}"
    print(f"{STAGE}: {size}, {options.steps} steps, {torch.get_num_threads()} threads")
    ratios = []
    for turn in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            prepared = Prepared(loaded, Path(folder))
            write_data(prepared, Superseded(Path(folder)))
            sides = [_ours, _alone] if turn % 2 else [_alone, _ours]
            found = {side: side(prepared, options.steps) for side in sides}
        (ours, ours_cpu), (alone, alone_cpu) = found[_ours], found[_alone]
        ratios.append((ours / alone, ours_cpu / alone_cpu))
        print(
            f"round {turn + 1}: stage {1e3 * ours:.1f} ms a step, TRL alone {1e3 * alone:.1f} ms, "
            f"ratio {ratios[-1][0]:.3f}, of computing {ratios[-1][1]:.3f}",
            flush=True,
        )
    median, computing = (statistics.median(column) for column in zip(*ratios, strict=True))
    met = "met" if median <= BAR else "missed"
    print(f"median ratio {median:.3f}, of computing {computing:.3f}; bar {BAR}: {met}")


def _network(prepared: Prepared) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    tokenizer = model.load_tokenizer(str(prepared.run / "data" / "tokenizer"))
    return model.build(prepared.recipe.model.config or {}, tokenizer, prepared.recipe.seed, "sdpa"), tokenizer


def _setup(prepared: Prepared, steps: int) -> tuple[spec.Dpo, Setup]:
    stage, numbers = prepared.recipe.stages[STAGE], prepared.arithmetic[STAGE]
    assert isinstance(stage, spec.Dpo)
    job = Job(STAGE, "bench", {}, None, numbers.steps_per_epoch, steps, (steps,), numbers.per_device_batch_size,
              numbers.accumulation_steps)  # fmt: skip
    return stage, Setup(job, prepared.run / STAGE / "state", prepared.recipe.seed, "float32")


def _ours(prepared: Prepared, steps: int) -> tuple[float, float]:
    stage, setup = _setup(prepared, steps)
    (network, tokenizer), (reference, _) = _network(prepared), _network(prepared)
    _, rows = preferred.encoded(prepared.preferences(STAGE), prepared.tokenizer, stage.max_length, None)
    trainer = preference.build(stage, setup, network, reference, tokenizer, rows)
    clock = Clock()
    as_in_a_run.train(prepared.run, stage, setup.job, trainer, clock)
    return clock.seconds_per_step()


def _alone(prepared: Prepared, steps: int) -> tuple[float, float]:
    stage, setup = _setup(prepared, steps)
    (network, tokenizer), (reference, _) = _network(prepared), _network(prepared)
    pairs = [pair for found in prepared.preferences(STAGE) for pair in found.pairs]
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]
    arguments = {**trainer_arguments(stage, setup), "remove_unused_columns": True, "train_sampling_strategy": "random"}
    clock = Clock()
    trainer = DPOTrainer(
        model=network,
        ref_model=reference,
        args=DPOConfig(**arguments, beta=stage.beta, max_length=stage.max_length, activation_checkpointing=False),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return clock.seconds_per_step()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--micro", type=int, default=None, help="pairs at a time; the rest of the batch is accumulated")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=6)
    return parser.parse_args()


if __name__ == "__main__":
    main()
