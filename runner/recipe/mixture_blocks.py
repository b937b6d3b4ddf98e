"""Checks of what a stage says about its mixture, `mix:` and `replay:`: are these data sets its own, or earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runner.errors import Problem
from runner.recipe.layers import Layered, did_you_mean, strings_of
from runner.recipe.shapes import Blocks, shape_of
from runner.yaml_marks import Path as ValuePath


@dataclass
class MixtureBlocks:
    """Checks the blocks of one stage after the other; what is wrong is added to `problems`."""

    layered: Layered
    sources: Blocks
    stages: Blocks
    problems: list[Problem]
    known: Callable[[str, ValuePath], bool]
    """Whether a reference names a data set; reports where it does not."""

    def check(self, stage: str, block: dict[str, Any], above: Sequence[str]) -> None:
        """Reports amounts of data that the stage does not have, and replay of what cannot be replayed.

        Args:
            stage: its name.
            block: as it is written.
            above: the stages before it.
        """
        own = [ref for ref, _ in strings_of(block.get("data"), ())]
        if isinstance(block.get("mix"), dict):
            self._mix(stage, block["mix"], own)
        replay = block.get("replay")
        if isinstance(replay, dict):
            for name, path in strings_of(replay.get("of"), ("stages", stage, "replay", "of")):
                self._replayed(stage, name, path, own, above)

    # mix -------------------------------------------------------------------------------------------------------------

    def _mix(self, stage: str, mix: dict[str, Any], own: Sequence[str]) -> None:
        path: ValuePath = ("stages", stage, "mix")
        for name in mix:
            if name not in own:
                where = self.layered.mark((*path, name)).at_key()
                hint = did_you_mean(name, own) or f"its data: {', '.join(own)}"
                expected = "a name as it stands in the stage's data"
                self.problems.append(Problem(f"`{stage}` does not train on `{name}`", where, expected, hint))
        for name in (name for name in mix if own.count(name) > 1):
            where, count = self.layered.mark((*path, name)).at_key(), own.count(name)
            times = "twice" if count == 2 else f"{count} times"
            what = f"`{name}` stands {times} in the data of `{stage}`, and `mix` says how often it is seen"
            hint = f"name it once there; mix: {{{name}: {{epochs: {count}}}}} shows each row {times}"
            self.problems.append(Problem(what, where, "each data set of a mix once", hint))
        weighted = [name for name, part in mix.items() if isinstance(part, dict) and part.get("weight") is not None]
        if len(weighted) == 1:
            where = self.layered.mark((*path, weighted[0], "weight")).at_key()
            what = f"`{weighted[0]}` is the only data set with a weight, and so keeps all its rows"
            hint = "give others a weight too, or say epochs or rows"
            self.problems.append(Problem(what, where, "two weights or more", hint))

    # replay ----------------------------------------------------------------------------------------------------------

    def _replayed(self, stage: str, name: str, path: ValuePath, own: Sequence[str], above: Sequence[str]) -> None:
        where = self.layered.mark(path).at_value()
        if name in self.stages and name in self.sources:
            hint = "rename one of them"
            self.problems.append(Problem(f"`{name}` is both a stage and a data set", where, None, hint))
        elif name in self.stages and name not in above:
            hint = f"stages above are: {', '.join(above)}" if above else "nothing was trained before the first stage"
            self.problems.append(Problem(f"`{name}` is no earlier stage than `{stage}`", where, None, hint))
        elif name in self.stages:
            refs = [ref for ref, _ in strings_of(self.stages[name].get("data"), ())]
            self._takes(name, refs, path, own)
        elif self._is_known(name, path, above):
            self._takes(name, [name], path, own)

    def _is_known(self, name: str, path: ValuePath, above: Sequence[str]) -> bool:
        near = did_you_mean(name, [*self.sources, *above])
        if name.partition(".")[0] in self.sources or near is None or not did_you_mean(name, above):
            return self.known(name, path)
        where = self.layered.mark(path).at_value()
        self.problems.append(Problem(f"no data set and no earlier stage `{name}`", where, None, near))
        return False

    def _takes(self, name: str, refs: Sequence[str], path: ValuePath, own: Sequence[str]) -> None:
        where = self.layered.mark(path).at_value()
        for ref in refs:
            shown = f"`{ref}`" if ref == name else f"`{ref}`, the data of `{name}`,"
            if ref in own:
                hint = f"to see it more often, write mix: {{{ref}: {{epochs: 2}}}}"
                what = f"{shown} is data of this stage anyway"
                self.problems.append(Problem(what, where, "data of before", hint))
            elif shape_of(self.sources, ref.partition(".")[0]) == "pairs":
                rows = self.sources[ref.partition(".")[0]].get("rows")
                made_of = f"the rows that the pairs are made of: {rows}" if isinstance(rows, str) else None
                what = f"{shown} holds pairs of `chosen` and `rejected`, and cannot be replayed"
                expected = "documents (`text`), or `prompt` with `completion`"
                self.problems.append(Problem(what, where, expected, made_of))
