"""Checks of a stage's terms against forgetting, `kl:` and `ewc:`: is there a start to keep to, and data to keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runner.errors import Problem
from runner.recipe.layers import Layered, strings_of
from runner.recipe.shapes import Blocks, shape_of
from runner.yaml_marks import Path as ValuePath

PENALTIES = ("kl", "ewc")
"""The keys of a stage that name such a term; their `data` is rows with tokens that are supervised."""


@dataclass
class PenaltyBlocks:
    """Checks the blocks of one stage after the other; what is wrong is added to `problems`."""

    layered: Layered
    sources: Blocks
    problems: list[Problem]
    known: Callable[[str, ValuePath], bool]
    """Whether a reference names a data set; reports where it does not."""

    def check(self, stage: str, block: dict[str, Any], first: bool) -> None:
        """Reports a term where there is nothing to keep to, and data that it cannot read."""
        for penalty in PENALTIES:
            asked = block.get(penalty)
            if not isinstance(asked, dict):
                continue
            if first and self._starts_from_nothing():
                self._no_start(stage, penalty)
            for ref, path in strings_of(asked.get("data"), ("stages", stage, penalty, "data")):
                if self.known(ref, path) and shape_of(self.sources, ref.partition(".")[0]) == "pairs":
                    self._pairs(penalty, ref, path)

    def _starts_from_nothing(self) -> bool:
        model = self.layered.values.get("model")
        return isinstance(model, dict) and "path" not in model

    def _no_start(self, stage: str, penalty: str) -> None:
        where = self.layered.mark(("stages", stage, penalty)).at_key()
        what = f"`{penalty}` keeps to the start of `{stage}`, a new model that knows nothing"
        hint = "remove it, or start from weights: model: {path: …}"
        self.problems.append(Problem(what, where, "a stage that starts from a checkpoint", hint))

    def _pairs(self, penalty: str, ref: str, path: ValuePath) -> None:
        rows = self.sources[ref.partition(".")[0]].get("rows")
        hint = f"the rows that the pairs are made of: {rows}" if isinstance(rows, str) else None
        what = f"`{penalty}` cannot read `{ref}`, which holds pairs of `chosen` and `rejected`"
        expected = "documents (`text`), or `prompt` with `completion`"
        self.problems.append(Problem(what, self.layered.mark(path).at_value(), expected, hint))
