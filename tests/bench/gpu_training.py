"""The training side of `gpu.py`: one stage of pretraining, by this project and by TRL, on the same sequences."""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import as_in_a_run
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from runner import model, recipe, spec
from runner.data.epochs import Epochs, stage_epochs
from runner.errors import first_line
from runner.folder import Superseded
from runner.jobs import Job
from runner.preparation import Prepared, write_data
from runner.train import causal, kernels
from runner.train.arguments import Setup

STAGE = "base"
PUBLISHED = 29_900
"""Tokens per second of the published run on each of its H800 devices."""
BAR = 70_000
PEAK = 989e12
"""Operations per second of an H100 or H200 in bfloat16, dense, by its data sheet."""


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    layers: int
    hidden: int
    heads: int
    keys: int
    feed_forward: int
    vocabulary: int
    length: int
    micro_batch: int
    accumulation: int
    steps: int
    """Of which a fifth is not counted."""
    prompts: int
    alone: int
    """Of them, asked one by one."""
    batches: tuple[int, ...]
    """Batch sizes that the harness is tried with."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    bar: str
    figure: str
    holds: bool | None = None
    """None where there is nothing to hold, or nothing was measured."""


@dataclass(frozen=True)
class Pace:
    """How a side trained."""

    tokens_per_s: float
    memory_gib: float
    utilisation: str


def training(folder: Path, size: Size, options: argparse.Namespace) -> list[Line]:
    """What was measured, a line for each side."""
    prepared = _project(folder / "project", size, options.seed)
    sides: dict[str, Callable[[], Pace]] = {"ours": lambda: _ours(prepared, size, spec.Launch())}
    if options.compile:
        sides["ours, compiled"] = lambda: _ours(prepared, size, spec.Launch(compile=True))
    sides["TRL"] = lambda: _trl(prepared, size, {})
    sides["TRL without checkpointing"] = lambda: _trl(prepared, size, {"gradient_checkpointing": False})
    paces: dict[str, Pace] = {}
    why: dict[str, str] = {}
    for name, train in sides.items():
        try:
            paces[name] = train()
            print(f"{name}: {_words(paces[name])}", flush=True)
        except (ImportError, torch.cuda.OutOfMemoryError) as error:
            why[name] = first_line(error)
            print(f"{name}: not measured: {why[name]}", flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return _lines(paces, why, _parameters(prepared), size, small=options.small)


def _lines(paces: dict[str, Pace], why: dict[str, str], parameters: int, size: Size, *, small: bool) -> list[Line]:
    what = (
        f"training {parameters / 1e6:,.1f} M parameters from nothing, length {size.length}, packed, batches of "
        f"{size.micro_batch} x {size.accumulation} (published: {PUBLISHED:,} tokens/s per H800)"
    )
    if "ours" in why:
        return [Line(what, f"≥ {BAR:,} tokens/s", f"not measured: {why['ours']}", holds=False)]
    ours = paces["ours"]
    used = "" if small else f"; {6 * parameters * ours.tokens_per_s / PEAK:.0%} of the peak, by 6 x parameters x tokens"
    holds = None if small else ours.tokens_per_s >= BAR
    lines = [Line(what, f"≥ {BAR:,} tokens/s", _words(ours) + used, holds)]
    for name in [name for name in (*paces, *why) if name != "ours"]:
        holds = None if small or name != "TRL" or name not in paces else _ratio(paces, name) >= 1.3
        figure = (
            f"{_ratio(paces, name):.2f} × ({_words(paces[name])})" if name in paces else f"not measured: {why[name]}"
        )
        lines.append(Line(f"ours against {name}", "≥ 1.3 ×" if name == "TRL" else "none", figure, holds))
    return lines


def _ratio(paces: dict[str, Pace], name: str) -> float:
    return paces["ours"].tokens_per_s / paces[name].tokens_per_s


def _words(pace: Pace) -> str:
    return f"{pace.tokens_per_s:,.0f} tokens/s, {pace.memory_gib:.1f} GiB, utilisation {pace.utilisation}"


def _project(root: Path, size: Size, seed: int) -> Prepared:
    """A recipe with one stage of pretraining, its documents, and a tokenizer that has a token for each word."""
    root.mkdir()
    (root / "pyproject.toml").touch()
    words = [f"w{number}" for number in range(size.vocabulary - 3)]
    vocabulary = {token: number for number, token in enumerate(["<unk>", "<pad>", "<eos>", *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    fast.save_pretrained(root / "tokenizer")
    draw = random.Random(seed)
    tokens = size.micro_batch * size.accumulation * size.length * max(size.steps // 3, 1)
    with (root / "docs.jsonl").open("w", encoding="utf-8") as file:
        while tokens > 0:
            count = draw.randint(size.length // 8, size.length)
            file.write(json.dumps({"text": " ".join(draw.choices(words, k=count))}) + "\n")
            tokens -= count + 1
    path = root / "gpu.yaml"
    path.write_text(
        f"""\
recipe: gpu
seed: {seed}
model:
  config: {{model_type: qwen2, hidden_size: {size.hidden}, num_hidden_layers: {size.layers},
           num_attention_heads: {size.heads}, num_key_value_heads: {size.keys},
           intermediate_size: {size.feed_forward}, max_position_embeddings: {size.length}, tie_word_embeddings: true}}
  tokenizer: tokenizer
data:
  docs: {{path: docs.jsonl, format: text}}
stages:
  {STAGE}: {{kind: pretrain, data: docs, packing: wrapped, max_length: {size.length}, max_steps: {size.steps},
    learning_rate: 1.0e-4, global_batch_size: {size.micro_batch * size.accumulation},
    micro_batch_size: {size.micro_batch}, logging_steps: 10, save_strategy: "no"}}
""",
        encoding="utf-8",
    )
    prepared = Prepared(recipe.load(path), root / "run")
    write_data(prepared, Superseded(prepared.run))
    return prepared


def _parameters(prepared: Prepared) -> int:
    with torch.device("meta"):
        config = dict(prepared.recipe.model.config or {})
        made = transformers.AutoConfig.for_model(config.pop("model_type"), **config, vocab_size=_vocabulary(prepared))
        network = transformers.AutoModelForCausalLM.from_config(made)
    return sum(parameter.numel() for parameter in network.parameters())


def _vocabulary(prepared: Prepared) -> int:
    return len(model.load_tokenizer(str(prepared.loaded.root / "tokenizer")))


def _start(prepared: Prepared, size: Size) -> tuple[spec.Pretrain, Epochs, Setup, Any, Any]:
    stage = prepared.recipe.stages[STAGE]
    assert isinstance(stage, spec.Pretrain)
    first = prepared.recipe.model
    dtype = model.choose_dtype(first.dtype).value
    attention = model.choose_attention(first.attn_implementation, dtype).value
    tokenizer = model.load_tokenizer(str(prepared.loaded.root / "tokenizer"))
    network = model.build(first.config or {}, tokenizer, prepared.recipe.seed, attention)
    epochs = stage_epochs(prepared.recipe, STAGE, prepared.data, prepared.tokenizer, prepared.chat)
    steps = prepared.arithmetic[STAGE].steps_per_epoch
    job = Job(STAGE, "bench", {}, None, steps, size.steps, (), size.micro_batch, size.accumulation)
    return stage, epochs, Setup(job, prepared.run / "state", prepared.recipe.seed, dtype), tokenizer, network


def _ours(prepared: Prepared, size: Size, launch: spec.Launch) -> Pace:
    stage, epochs, setup, tokenizer, network = _start(prepared, size)
    chosen = kernels.choose(launch, stage, network.config.model_type)
    chosen.patch(network, stage)
    setup = Setup(setup.job, setup.state_folder, setup.seed, setup.dtype, kernels=chosen)
    print(f"ours: {setup.dtype}, attention {network.config._attn_implementation}; {chosen.words}", flush=True)
    trainer = causal.build(stage, setup, network, tokenizer, epochs)
    clock = _Clock(size.steps)
    with clock:
        as_in_a_run.train(prepared.run, stage, setup.job, trainer, clock)
    return clock.pace(sum(trainer.tokens_in_step(step)[0] for step in range(clock.warm, size.steps)))


def _trl(prepared: Prepared, size: Size, own: dict[str, Any]) -> Pace:
    import datasets
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    stage, epochs, setup, tokenizer, network = _start(prepared, size)
    batch = stage.global_batch_size
    rows = [list(row.ids) for row in itertools.islice(_endless(epochs), size.steps * batch)]
    arguments = SFTConfig(
        output_dir=str(setup.state_folder), max_steps=size.steps, per_device_train_batch_size=size.micro_batch,
        gradient_accumulation_steps=size.accumulation, learning_rate=stage.learning_rate, max_length=size.length,
        logging_steps=stage.logging_steps, seed=setup.seed, save_strategy="no", report_to="none", disable_tqdm=True,
        train_sampling_strategy="sequential", **({"use_cpu": True} if not torch.cuda.is_available() else {}), **own,
    )  # fmt: skip
    clock = _Clock(size.steps)
    table = datasets.Dataset.from_dict({"input_ids": rows})
    trainer = SFTTrainer(
        model=network, args=arguments, train_dataset=table, processing_class=tokenizer, callbacks=[clock]
    )
    trainer.remove_callback(transformers.PrinterCallback)
    with clock:
        trainer.train()
    return clock.pace(sum(len(row) for row in rows[clock.warm * batch :]))


def _endless(epochs: Epochs) -> Iterator[Any]:
    for epoch in itertools.count():
        yield from epochs.epoch(epoch)


class _Clock(transformers.TrainerCallback):
    """The time from the end of the first fifth of the steps to the end of the last, and how busy the device was."""

    def __init__(self, steps: int) -> None:
        self.warm, self._steps = max(steps // 5, 1), steps
        self._began = self._ended = 0.0
        self._busy: list[float] = []
        self._over = Event()

    def __enter__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            Thread(target=self._watch, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def on_step_end(self, args: Any, state: transformers.TrainerState, control: Any, **other: Any) -> None:
        if state.global_step not in (self.warm, self._steps):
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self._began, self._ended = (now, 0.0) if state.global_step == self.warm else (self._began, now)

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            if self._began and not self._ended:
                self._busy.append(_utilisation())

    def pace(self, tokens: int) -> Pace:
        """Of so many tokens in the steps that count."""
        memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
        busy = f"{statistics.mean(self._busy):.0f} %" if self._busy else "not known"
        return Pace(tokens / (self._ended - self._began), memory, busy)


def _utilisation() -> float:
    """Percent of the last moment in which the device computed something, as nvidia-smi says it."""
    device = f"GPU-{torch.cuda.get_device_properties().uuid}"
    command = ["nvidia-smi", "-i", device, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(asked.stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return float("nan")
