"""Checks of what stands around the stages: the suite that may end one, and the trackers that are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runner import trackers
from runner.errors import Problem
from runner.recipe.layers import Layered, blocks_of, did_you_mean, strings_of
from runner.yaml_marks import Path as ValuePath


@dataclass
class RunBlocks:
    """Checks the whole recipe; what is wrong is added to `problems`."""

    layered: Layered
    files: bool
    """Whether to look at what is installed."""
    problems: list[Problem]

    def check(self) -> None:
        """Reports a `stop_when` that watches what is not asked there, and trackers that cannot be used."""
        suites = blocks_of(self.layered.values, "probes")
        for name, block in blocks_of(self.layered.values, "stages").items():
            rule = block.get("stop_when")
            if isinstance(rule, dict) and isinstance(rule.get("suite"), str):
                self._watched(name, rule["suite"], suites, ("stages", name, "stop_when", "suite"))
        for name, path in strings_of(self.layered.values.get("report_to"), ("report_to",)):
            self._tracker(name, path)

    def _report(self, message: str, path: ValuePath, expected: str | None, hint: str | None) -> None:
        self.problems.append(Problem(message, self.layered.mark(path).at_value(), expected, hint))

    def _watched(self, stage: str, suite: str, suites: dict[str, dict[str, Any]], path: ValuePath) -> None:
        if suite not in suites:
            there = f"there are: {', '.join(suites)}" if suites else "the recipe has no `probes:`"
            self._report(f"no suite `{suite}`", path, "a name under `probes:`", did_you_mean(suite, suites) or there)
            return
        asked = suites[suite].get("stages")
        if asked is not None and stage not in [item for item, _ in strings_of(asked, ())]:
            hint = f"add {stage} to `probes.{suite}.stages`"
            self._report(f"`{suite}` is not asked at `{stage}`, so it cannot end it", path, None, hint)

    def _tracker(self, name: str, path: ValuePath) -> None:
        if name in ("all", "none"):
            self._report(f"`report_to` has no `{name}`", path, "names of trackers", "leave the key out to use none")
        elif name not in trackers.TRACKERS:
            there = f"transformers has: {', '.join(trackers.TRACKERS)}"
            self._report(f"no tracker `{name}`", path, None, did_you_mean(name, trackers.TRACKERS) or there)
        elif self.files and (line := trackers.missing(name)) is not None:
            self._report(f"the tracker `{name}` is not installed", path, None, line)
