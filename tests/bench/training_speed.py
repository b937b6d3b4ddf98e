"""Tokens per second of a stage against a bare PyTorch loop over the same batches, in one run.

    python tests/bench/training_speed.py               # the demo's model
    python tests/bench/training_speed.py --layers 8 --hidden 512 --steps 30

The bare loop is given its batches as finished tensors: forward, cross-entropy, backward, clip, fused AdamW, the stage's
own schedule, and nothing else. The stage's side is what a trainer process runs: `runner.train.causal.build` with
`Publishing` added, as `runner.train.worker` puts them together, so with its events, counts and data loading. They take
turns, `--rounds` times; the ratio of each round and their median are printed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import as_in_a_run
import torch
import transformers

from runner import model, recipe
from runner.data.epochs import Epochs, stage_epochs
from runner.events import Follower, Logged
from runner.folder import Superseded
from runner.jobs import Job
from runner.preparation import Prepared, write_data
from runner.train import batches, causal
from runner.train.arguments import Setup

RECIPE = Path(__file__).parents[2] / "recipes" / "zhdict_dpo.yaml"


def main() -> None:
    options = _options()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    heads = options.hidden // 32
    config = {
        "hidden_size": options.hidden,
        "num_hidden_layers": options.layers,
        "intermediate_size": 3 * options.hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
    }
    sets = [f"model.config.{name}={value}" for name, value in config.items()]
    loaded = recipe.load(RECIPE, [*sets, f"seed={options.seed}"])
    size = f"{options.layers} layers x {options.hidden}"
    print(f"{options.stage}: {size}, {options.steps} steps, {torch.get_num_threads()} threads")
    ratios = []
    for turn in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            prepared = Prepared(loaded, Path(folder))
            write_data(prepared, Superseded(Path(folder)))
            ours = _stage_speed(prepared, options.stage, options.steps)
            bare = _bare_speed(prepared, options.stage, options.steps)
        ratios.append(ours / bare)
        print(f"round {turn + 1}: stage {ours:,.0f} tokens/s, bare loop {bare:,.0f} tokens/s, ratio {ratios[-1]:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f}")


def _start(prepared: Prepared) -> tuple[torch.nn.Module, transformers.PreTrainedTokenizerBase]:
    tokenizer = model.load_tokenizer(str(prepared.run / "data" / "tokenizer"))
    return model.build(prepared.recipe.model.config or {}, tokenizer, prepared.recipe.seed, "sdpa"), tokenizer


def _epochs(prepared: Prepared, name: str) -> Epochs:
    return stage_epochs(prepared.recipe, name, prepared.data, prepared.tokenizer, prepared.chat)


def _stage_speed(prepared: Prepared, name: str, steps: int) -> float:
    network, tokenizer = _start(prepared)
    stage, numbers = prepared.recipe.stages[name], prepared.arithmetic[name]
    job = Job(name, "bench", {}, None, numbers.steps_per_epoch, steps, (steps,), numbers.per_device_batch_size,
              numbers.accumulation_steps)  # fmt: skip
    stage = stage.model_copy(update={"logging_steps": steps // 5})
    setup = Setup(job, prepared.run / name / "state", 1, "float32")
    trainer = causal.build(stage, setup, network, tokenizer, _epochs(prepared, name))
    path = as_in_a_run.train(prepared.run, stage, job, trainer)
    logged = [found for found in Follower(path).new() if isinstance(found.event, Logged)]
    first, last = logged[0], logged[-1]
    return (last.event.tokens - first.event.tokens) / (last.time - first.time)


def _bare_speed(prepared: Prepared, name: str, steps: int) -> float:
    network, tokenizer = _start(prepared)
    stage, epochs = prepared.recipe.stages[name], _epochs(prepared, name)
    collate = batches.Collate(tokenizer.pad_token_id, 0.0)
    made, counts = [], []
    epoch = 0
    while len(made) < steps:
        rows = epochs.epoch(epoch)
        for start in range(0, len(rows), stage.global_batch_size):
            batch = rows[start : start + stage.global_batch_size]
            made.append(collate(batch))
            counts.append(sum(len(row.ids) for row in batch))
        epoch += 1
    optimizer = torch.optim.AdamW(network.parameters(), lr=stage.learning_rate, weight_decay=0.0, fused=True)
    warmup = stage.warmup_steps if stage.warmup_steps >= 1 else math.ceil(stage.warmup_steps * steps)
    schedule = transformers.get_scheduler(stage.lr_scheduler_type, optimizer, int(warmup), steps)
    network.train()
    warm = steps // 5
    for step in range(steps):
        if step == warm:
            began = time.perf_counter()
        batch = made[step]
        loss = network(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return sum(counts[warm:steps]) / (time.perf_counter() - began)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", default="base", choices=["base", "qa"])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=36)
    return parser.parse_args()


if __name__ == "__main__":
    main()
