"""Tokens per second of the demo's pretrain and sft stages against TRL's SFTTrainer on the same rows, in one process.

    python tests/bench/sft_speed.py                    # both stages, 5 rounds
    python tests/bench/sft_speed.py --stage qa --steps 100

Both start from the same weights and are given the same token ids in the same order, in batches of the same size, with
the same optimizer, schedule and clipping; TRL's own defaults stay, but for gradient checkpointing, which is off on both
sides. Our side is what a trainer process runs, with its events and counts. The two take turns. A side's pace is the
mean of a step's tokens by the median of its time, from one step's end to the next one's, after a fifth of the steps:
saving and start-up are left out. The bar is a median ratio of 1.3 on each stage.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import as_in_a_run
import datasets
import torch
import transformers
from trl import SFTConfig, SFTTrainer

from runner import model, recipe, spec
from runner.data.epochs import Epochs, stage_epochs
from runner.data.tokens import Tokens
from runner.folder import Superseded
from runner.jobs import Job
from runner.preparation import Prepared, write_data
from runner.train import causal
from runner.train.arguments import Setup, trainer_arguments

RECIPE = Path(__file__).parents[2] / "recipes" / "zhdict_dpo.yaml"
BAR = 1.3
LOGGING_STEPS = 10


def main() -> None:
    """Print each round's two paces, and the median of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=["base", "qa"], help="one of them; both by default")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # TRL's of transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    met = True
    for name in [options.stage] if options.stage else ["base", "qa"]:
        ratios = []
        for turn in range(options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                prepared = Prepared(recipe.load(RECIPE), Path(folder))
                write_data(prepared, Superseded(Path(folder)))
                sides = [_ours, _trl] if turn % 2 == 0 else [_trl, _ours]
                paces = {side: side(prepared, name, options.steps) for side in sides}
            ratios.append(paces[_ours] / paces[_trl])
            print(f"{name}: ours {paces[_ours]:,.0f} tokens/s, TRL {paces[_trl]:,.0f}, ratio {ratios[-1]:.2f}")
        median = statistics.median(ratios)
        met = met and median >= BAR
        print(f"{name}: median ratio {median:.2f}, bar {BAR}: {'met' if median >= BAR else 'MISSED'}")
    sys.exit(0 if met else 1)


class _Clock(transformers.TrainerCallback):
    """When each step ended, after the first fifth of them."""

    def __init__(self, steps: int) -> None:
        self.warm = steps // 5
        self._times: list[float] = []

    def on_step_end(self, args: Any, state: transformers.TrainerState, control: Any, **other: Any) -> None:
        if state.global_step >= self.warm:
            self._times.append(time.perf_counter())

    def pace(self, tokens: int) -> float:
        """Tokens per second, of so many tokens in all steps after the first ones."""
        took = [after - before for before, after in pairwise(self._times)]
        return tokens / len(took) / statistics.median(took)


def _start(prepared: Prepared) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    tokenizer = model.load_tokenizer(str(prepared.run / "data" / "tokenizer"))
    transformers.set_seed(prepared.recipe.seed)
    return model.build(prepared.recipe.model.config or {}, tokenizer, prepared.recipe.seed, "sdpa"), tokenizer


def _setup(prepared: Prepared, name: str, steps: int) -> tuple[spec.Causal, Epochs, Setup]:
    stage, numbers = prepared.recipe.stages[name], prepared.arithmetic[name]
    assert isinstance(stage, spec.Causal)
    job = Job(name, "bench", {}, None, numbers.steps_per_epoch, steps, (), numbers.per_device_batch_size, 1)
    epochs = stage_epochs(prepared.recipe, name, prepared.data, prepared.tokenizer, prepared.chat)
    stage = stage.model_copy(update={"logging_steps": LOGGING_STEPS})
    return stage, epochs, Setup(job, prepared.run / name / "state", prepared.recipe.seed, "float32")


def _ours(prepared: Prepared, name: str, steps: int) -> float:
    stage, epochs, setup = _setup(prepared, name, steps)
    assert isinstance(stage, (spec.Pretrain, spec.Sft))
    network, tokenizer = _start(prepared)
    trainer = causal.build(stage, setup, network, tokenizer, epochs)
    clock = _Clock(steps)
    as_in_a_run.train(prepared.run, stage, setup.job, trainer, clock)
    return clock.pace(sum(trainer.tokens_in_step(step)[0] for step in range(clock.warm, steps)))


def _trl(prepared: Prepared, name: str, steps: int) -> float:
    stage, epochs, setup = _setup(prepared, name, steps)
    network, tokenizer = _start(prepared)
    size = stage.global_batch_size
    rows = [row for _, row in zip(range(steps * size), _endless(epochs), strict=False)]
    table: dict[str, list[Any]] = {"input_ids": [list(row.ids) for row in rows]}
    if isinstance(stage, spec.Sft):  # without it, TRL supervises every token, as pretrain does
        table["completion_mask"] = [_mask(row) for row in rows]
    own = {"gradient_checkpointing": False, "max_length": stage.max_length}
    clock = _Clock(steps)
    trainer = SFTTrainer(
        model=network,
        args=SFTConfig(**own, **trainer_arguments(stage, setup)),
        train_dataset=datasets.Dataset.from_dict(table),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    torch.manual_seed(prepared.recipe.seed)
    trainer.train()
    return clock.pace(sum(len(row.ids) for row in rows[clock.warm * size :]))


def _endless(epochs: Epochs) -> Iterator[Tokens]:
    epoch = 0
    while True:
        yield from epochs.epoch(epoch)
        epoch += 1


def _mask(row: Tokens) -> list[int]:
    mask = [0] * len(row.ids)
    for start, stop in row.spans:
        mask[start:stop] = [1] * (stop - start)
    return mask


if __name__ == "__main__":
    main()
