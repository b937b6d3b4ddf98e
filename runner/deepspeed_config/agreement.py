"""Whether a DeepSpeed configuration of the user's says what the recipe says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import spec
from runner.deepspeed_config.limits import refused
from runner.deepspeed_config.sharing_out import Shares, shared
from runner.deepspeed_config.written import GATHERS, Written, named, read_file
from runner.errors import BadRecipe, Problem
from runner.yaml_marks import Mark
from runner.yaml_marks import Path as ValuePath

_SCHEDULES = {"WarmupLR": "constant_with_warmup", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}
"""DeepSpeed's schedules, and the `lr_scheduler_type` that is the same."""
_CHANGES = {
    "amp": "precision is `model.dtype`",
    "autotuning": "batch sizes are the recipe's",
    "compression_training": "it changes the weights",
    "curriculum_learning": "rows are the recipe's to choose",
    "data_efficiency": "rows are the recipe's to choose",
    "data_types": "precision is `model.dtype`",
    "elasticity": "batch sizes are the recipe's",
    "hybrid_engine": "probes generate",
    "progressive_layer_drop": "it leaves layers out",
    "quantize_training": "it changes the weights",
    "sequence_parallel_size": "every process reads rows of its own",
    "sparse_attention": "attention is `model.attn_implementation`",
    "tensor_parallel": "every process has the whole of each layer",
    "torch_autocast": "precision is `model.dtype`",
}
"""Blocks of DeepSpeed that change what is learned, or what the recipe says elsewhere; and why they cannot be."""


@dataclass(frozen=True)
class _Said:
    """A number that the recipe and DeepSpeed both have."""

    at: ValuePath
    """In DeepSpeed's configuration."""
    value: Any
    of: ValuePath
    """In the recipe."""


def problems(
    recipe: spec.Recipe, root: Path, mark: Callable[[ValuePath], Mark], shares: Mapping[str, Shares] | None = None
) -> list[Problem]:
    """What does not go with the DeepSpeed of a recipe, and where a file of the user's says something else than the
    recipe.

    Args:
        recipe: the recipe.
        root: where its paths start.
        mark: of a path in the recipe, or of the nearest block around it.
        shares: of every stage, where the processes are known; else what depends on them is not looked at.
    """
    how = recipe.launch.deepspeed
    if how is None:
        return []
    if how in spec.DEEPSPEED:
        return list(refused(recipe, named(how)["stage"], mark))
    try:
        file = read_file(root / how, how)
    except BadRecipe as error:
        return list(error.problems)
    found = list(_impossible(file))
    if not found:
        found += refused(recipe, file.get(("zero_optimization", "stage")), mark)
    for name, stage in recipe.stages.items():
        for said in _numbers(recipe, name, stage, shares[name] if shares else None):
            there = file.get(said.at)
            if there is not None and there != "auto" and not _same(there, said.value):
                found.append(_differs(file, said, there, mark(said.of)))
        found += _other_schedule(file, name, stage, mark)
    return list(dict.fromkeys(found))


def _differs(file: Written, said: _Said, there: Any, mark: Mark) -> Problem:
    place = mark.at_value()
    key, own = ".".join(map(str, said.at)), ".".join(map(str, said.of))
    return Problem(
        f"`{key}` is {json.dumps(there)}, and `{own}` makes it {json.dumps(said.value)} ({place.file}:{place.line})",
        file.at(said.at),
        f'{json.dumps(said.value)} or "auto"',
        '"auto" takes what the recipe says, of every stage',
    )


def _numbers(recipe: spec.Recipe, name: str, stage: spec.Stage, shares: Shares | None) -> Iterator[_Said]:
    of: ValuePath = ("stages", name)
    yield _Said(("train_batch_size",), stage.global_batch_size, (*of, "global_batch_size"))
    if shares is not None:
        micro, accumulation = shared(stage, shares)
        yield _Said(("train_micro_batch_size_per_gpu",), micro, (*of, "micro_batch_size"))
        yield _Said(("gradient_accumulation_steps",), accumulation, (*of, "micro_batch_size"))
    yield _Said(("gradient_clipping",), stage.max_grad_norm, (*of, "max_grad_norm"))
    if recipe.model.dtype != "auto":
        yield _Said(("bf16", "enabled"), recipe.model.dtype == "bfloat16", ("model", "dtype"))
        yield _Said(("fp16", "enabled"), recipe.model.dtype == "float16", ("model", "dtype"))
    params: ValuePath = ("optimizer", "params")
    yield _Said((*params, "lr"), stage.learning_rate, (*of, "learning_rate"))
    yield _Said((*params, "betas"), [stage.adam_beta1, stage.adam_beta2], (*of, "adam_beta1"))
    yield _Said((*params, "eps"), stage.trainer_args.get("adam_epsilon", 1e-8), (*of, "trainer_args", "adam_epsilon"))
    yield _Said((*params, "weight_decay"), stage.weight_decay, (*of, "weight_decay"))
    params = ("scheduler", "params")
    yield _Said((*params, "warmup_max_lr"), stage.learning_rate, (*of, "learning_rate"))
    if stage.warmup_steps >= 1 or stage.warmup_steps == 0:
        yield _Said((*params, "warmup_num_steps"), stage.warmup_steps, (*of, "warmup_steps"))
    if stage.max_steps is not None:
        yield _Said((*params, "total_num_steps"), stage.max_steps, (*of, "max_steps"))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _impossible(file: Written) -> Iterator[Problem]:
    """What no recipe can have."""
    stage = file.get(("zero_optimization", "stage"))
    if stage not in (1, 2, 3):
        what = "`zero_optimization.stage` is missing" if stage is None else f"`zero_optimization.stage` is {stage}"
        hint = "without ZeRO, leave launch.deepspeed out: plain data parallel training needs no DeepSpeed"
        yield Problem(what, file.at(("zero_optimization", "stage")), "1, 2 or 3", hint)
    if stage == 3 and file.get(("zero_optimization", GATHERS)) is False:
        place = file.at(("zero_optimization", GATHERS))
        yield Problem(f"`{GATHERS}` is false: checkpoints would have no weights", place, "true", "remove it")
    for key, why in _CHANGES.items():
        block = file.get((key,))
        if block and not (isinstance(block, dict) and block.get("enabled") is False):
            mark = file.marks[key,]
            yield Problem(f"`{key}` cannot be: {why}", mark.at_key(), None, "remove it")
    kind = file.get(("optimizer", "type"))
    plain = file.get(("optimizer", "params", "adam_w_mode")) is not False
    if kind is not None and str(kind).lower() not in (("adamw", "adam") if plain else ("adamw",)):
        hint = "remove `optimizer`; another one is trainer_args: {optim: …}"
        yield Problem(f"the optimizer is {kind}", file.at(("optimizer", "type")), "AdamW, as the recipe has it", hint)


def _other_schedule(
    file: Written, name: str, stage: spec.Stage, mark: Callable[[ValuePath], Mark]
) -> Iterator[Problem]:
    kind = file.get(("scheduler", "type"))
    if kind is None or _SCHEDULES.get(str(kind)) == stage.lr_scheduler_type:
        return
    place = mark(("stages", name, "lr_scheduler_type")).at_value()
    own = f"`stages.{name}.lr_scheduler_type` is {stage.lr_scheduler_type} ({place.file}:{place.line})"
    hint = "remove `scheduler`: the recipe decides"
    yield Problem(f"the schedule is {kind}, and {own}", file.at(("scheduler", "type")), None, hint)
