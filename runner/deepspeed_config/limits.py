"""What does not go with DeepSpeed, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runner import spec
from runner.errors import Problem
from runner.yaml_marks import Mark
from runner.yaml_marks import Path as ValuePath

_ONE_BY_ONE = ("adamw", "adagrad", "ademamix", "lion", "paged_", "rmsprop", "sgd")
"""How optimizers begin, by transformers' names, that move each number by itself. The others look at whole matrices, of
which ZeRO leaves flat pieces."""


def refused(recipe: spec.Recipe, zero: int, mark: Callable[[ValuePath], Mark]) -> Iterator[Problem]:
    """Keys of the recipe that ask for what its DeepSpeed cannot do.

    Args:
        recipe: with `launch.deepspeed`.
        zero: its ZeRO stage.
        mark: of a path in the recipe, or of the nearest block around it.
    """
    for name, stage in recipe.stages.items():
        at: ValuePath = ("stages", name)
        optimizer = str(stage.trainer_args.get("optim", "adamw"))
        if not optimizer.startswith(_ONE_BY_ONE):
            what = f"`{optimizer}` does not go with DeepSpeed, which cuts the parameters into flat pieces"
            yield _problem(what, mark((*at, "trainer_args", "optim")), "an optimizer that looks at no whole matrices")
        if isinstance(stage, spec.Causal) and stage.ewc is not None and recipe.model.dtype not in ("auto", "float32"):
            what = f"`ewc` does not go with DeepSpeed in {recipe.model.dtype}: it would pull at what rounding moved"
            yield _problem(what, mark((*at, "ewc")), "model.dtype: float32, or training without DeepSpeed")
        if zero == 3:
            yield from _of_whole_weights(name, stage, mark)


def _of_whole_weights(name: str, stage: spec.AnyStage, mark: Callable[[ValuePath], Mark]) -> Iterator[Problem]:
    """What reads whole parameters while ZeRO-3 keeps a piece of each in every process."""
    asked: dict[ValuePath, object] = {}
    if isinstance(stage, spec.Causal):
        asked |= {("kl",): stage.kl, ("ewc",): stage.ewc}
    if stage.lora is not None:
        asked |= {("lora", "l2"): stage.lora.l2 or None, ("lora", "quantize"): stage.lora.quantize}
        asked |= {("lora", "use_dora"): stage.lora.use_dora or None}
    for keys, value in asked.items():
        if value is not None:
            what = f"`{'.'.join(map(str, keys))}` does not go with ZeRO-3"
            why = "it needs whole parameters, of which each process has a piece"
            yield _problem(f"{what}: {why}", mark(("stages", name, *keys)), "deepspeed: zero1 or zero2, or none")


def _problem(what: str, mark: Mark, expected: str) -> Problem:
    return Problem(what, mark.at_key(), expected)
