"""Few steps instead of many: how long the stages of a rehearsal are, where they publish, and what refers to that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from runner import spec
from runner.spec import parse_ref

STEPS, CHECKPOINTS = 24, 10


@dataclass(frozen=True)
class Course:
    """The steps of a stage of a rehearsal."""

    steps: int | None
    """None: whole epochs, as many as in the recipe, of few rows."""
    saves: tuple[int, ...] = ()
    """Steps at which it publishes, but for the last one."""
    places: Mapping[int, int] = field(default_factory=dict)
    """Where the recipe publishes, in steps, or in epochs where it says so, and which of `saves` that is now."""


def course(recipe: spec.Recipe, name: str) -> Course:
    """How long a stage is, and where it publishes: as often as in the recipe, up to CHECKPOINTS, in the same order."""
    stage, total, points = recipe.stages[name], total_steps(recipe, name), published(recipe, name)
    if stage.save_strategy == "epoch":
        epochs = math.ceil(stage.num_train_epochs)
        if epochs <= CHECKPOINTS:
            return Course(None)
        points, total = tuple(range(1, epochs)), epochs
    kept = _spread(points, CHECKPOINTS - 1)
    steps = max(min(total or STEPS, STEPS), len(kept) + 1)
    # where the rows decide how long it is, the last step of a list is somewhere before the end
    end = total or max(kept, default=1) * (2.0 if isinstance(stage.save_steps, int) else steps / (steps - 1))
    saves: list[int] = []
    for index, point in enumerate(kept):
        earliest, latest = (saves[-1] if saves else 0) + 1, steps - (len(kept) - index)
        saves.append(min(max(round(point * steps / end), earliest), latest))
    return Course(steps, tuple(saves), dict(zip(kept, saves, strict=True)))


def total_steps(recipe: spec.Recipe, name: str) -> int | None:
    """Steps of a stage in the recipe; None where the rows decide, and it does not say how many they are."""
    stage = recipe.stages[name]
    each = _epoch_steps(recipe, name)
    return stage.max_steps or (None if each is None else math.ceil(stage.num_train_epochs * each))


def published(recipe: spec.Recipe, name: str) -> tuple[int, ...]:
    """The steps at which a stage publishes before its last one, as far as the recipe says them."""
    stage, total = recipe.stages[name], total_steps(recipe, name)
    if stage.save_strategy != "steps":
        return ()
    if not isinstance(stage.save_steps, int):
        return tuple(step for step in sorted(set(stage.save_steps)) if total is None or step < total)
    if total is None:
        return (stage.save_steps,) if "save_steps" in stage.model_fields_set else ()
    return tuple(range(stage.save_steps, total, stage.save_steps))


def checkpoints(recipe: spec.Recipe, name: str) -> int:
    """How many checkpoints a stage publishes, as far as the recipe says it."""
    stage = recipe.stages[name]
    return math.ceil(stage.num_train_epochs) if stage.save_strategy == "epoch" else len(published(recipe, name)) + 1


def moved(recipe: spec.Recipe, courses: Mapping[str, Course], text: str) -> str:
    """A reference to a checkpoint, as it is called in the rehearsal; a path stays."""
    ref = parse_ref(text)
    if ref is None or ref.stage not in courses or ref.which in ("best", "last"):
        return text
    now, stage = courses[ref.stage], recipe.stages[ref.stage]
    if now.steps is None:
        each = _epoch_steps(recipe, ref.stage)
        if ref.which == "epoch":
            return text
        whole = each is not None and ref.number % each == 0
        return f"{ref.stage}@epoch={ref.number / each:g}" if whole and each else f"{ref.stage}@last"
    if ref.number in now.places and (ref.which == "epoch") == (stage.save_strategy == "epoch"):
        return f"{ref.stage}@{now.places[int(ref.number)]}"
    end = stage.num_train_epochs if ref.which == "epoch" else total_steps(recipe, ref.stage)
    return f"{ref.stage}@last" if ref.number == end else text


def _spread(points: tuple[int, ...], most: int) -> tuple[int, ...]:
    """At most so many of them, evenly spread."""
    if len(points) <= most:
        return points
    return tuple(points[(index + 1) * len(points) // most - 1] for index in range(most))


def _epoch_steps(recipe: spec.Recipe, name: str) -> int | None:
    """Steps of an epoch of a stage, where the recipe says beforehand how many rows there are."""
    stage = recipe.stages[name]
    if isinstance(stage, spec.Causal) and (stage.mix or stage.replay is not None or stage.packing):
        return None
    blocks = [recipe.data.get(ref) for ref in stage.data]
    counts = [block.num_rows for block in blocks if block is not None and block.filter is None]
    known = [count for count in counts if count is not None]
    return math.ceil(sum(known) / stage.global_batch_size) if len(known) == len(stage.data) else None
