"""Data sets whose files are not here: how many rows they have, from what the recipe says of them (`num_rows`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from runner import spec
from runner.data.datasets import Datasets
from runner.data.mixture import replayed_per_epoch, rows_per_epoch

Bound = Literal["", "≈", "≤", "≥", "?"]
"""What a number is of the right one: it, about it, no less, no more, or unknown."""


@dataclass(frozen=True)
class Rows:
    """How many rows there are, as far as it can be said without them."""

    count: int
    bound: Bound = ""


NOBODY_KNOWS = Rows(0, "?")


def rows(recipe: spec.Recipe, data: Datasets, ref: str) -> Rows:
    """Rows of a data set or split; one whose files are here is counted.

    Raises:
        BadData: files that are here cannot be read.
    """
    name, _, split = ref.partition(".")
    if data.missing(name) is None:
        return Rows(len(data.get(ref)))
    block = recipe.data[name]
    found = Rows(block.num_rows or 0) if block.rows is None else rows(recipe, data, block.rows)
    if block.take is not None:
        # of a part whose size is not known exactly, so many or fewer
        found = Rows(min(found.count, block.take), found.bound)
    if block.filter is not None or block.on_bad_row == "skip":
        found = Rows(found.count, _worse(found.bound, "≤"))
    if split:
        found = Rows(max(round(_share(recipe, name, split) * found.count), 1), _worse(found.bound, "≈"))
    return found


def pairs(recipe: spec.Recipe, data: Datasets, ref: str) -> Rows:
    """Pairs of a data set or split: as many of each row as its `rejected` makes; some may yet be dropped."""
    found = rows(recipe, data, ref)
    block = recipe.data[ref.partition(".")[0]]
    while block.rejected is None and block.rows is not None:
        block = recipe.data[block.rows.partition(".")[0]]
    ways = [how.samples if isinstance(how, spec.Sample) else 1 for how in block.rejected or ()]
    if any(isinstance(how, spec.FromFile) for how in block.rejected or ()):
        return NOBODY_KNOWS
    # without `rejected` the files say it, once in each row
    return Rows(found.count * (sum(ways) or 1), _worse(found.bound, "≤") if ways else found.bound)


def of_stage(recipe: spec.Recipe, data: Datasets, name: str) -> Rows:
    """Rows of an epoch of a stage, for dpo pairs and for contrast prompts."""
    stage = recipe.stages[name]
    if not isinstance(stage, spec.Causal):
        counted = rows if isinstance(stage, spec.Contrast) else pairs
        return _sum([counted(recipe, data, ref) for ref in stage.data])
    if stage.packing == "wrapped" or any(part.oversample is not None for part in stage.mix.values()):
        return NOBODY_KNOWS
    own = {ref: rows(recipe, data, ref) for ref in stage.data}
    together = _sum(own.values())
    per_epoch = sum(rows_per_epoch({ref: found.count for ref, found in own.items()}, stage.mix).values())
    if stage.replay is not None:
        per_epoch += replayed_per_epoch(per_epoch, stage.replay)
    bound: dict[str, Bound] = {"drop": "≤", "chunk": "≥"}
    return Rows(per_epoch, _worse(together.bound, bound.get(stage.truncation, "")))


def _share(recipe: spec.Recipe, name: str, split: str) -> float:
    """Of the rows, by the nearest block that divides them."""
    block = recipe.data[name]
    while block.split is None and block.rows is not None:
        block = recipe.data[block.rows.partition(".")[0]]
    return block.split.shares.get(split, 0.0) if block.split is not None else 0.0


def _sum(parts: Iterable[Rows]) -> Rows:
    found = Rows(0)
    for part in parts:
        found = Rows(found.count + part.count, _worse(found.bound, part.bound))
    return found


def _worse(one: Bound, other: Bound) -> Bound:
    """The bound of a number that two bounds go into."""
    if not one or not other or one == other:
        return one or other
    return "?" if "?" in (one, other) else "≈"
