"""Checks of `launch.probing: elsewhere`: nothing that a probe would decide while the run goes on can be left to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.errors import Problem
from runner.recipe.layers import Layered, blocks_of, strings_of
from runner.yaml_marks import Path as ValuePath

_HINT = "launch.probing: between or beside"


@dataclass
class ProbingBlocks:
    """Checks the whole recipe; what is wrong is added to `problems`."""

    layered: Layered
    problems: list[Problem]

    def check(self) -> None:
        """Reports what would wait for verdicts that the run does not make."""
        launch = self.layered.values.get("launch")
        if not isinstance(launch, dict) or launch.get("probing") != "elsewhere":
            return
        for name, suite in blocks_of(self.layered.values, "probes").items():
            gate = suite.get("gate")
            if isinstance(gate, dict) and gate.get("on_fail") in ("stop", "rollback"):
                self._report(f"`{name}` may end a stage", ("probes", name, "gate", "on_fail"), "on_fail: continue")
        for name, stage in blocks_of(self.layered.values, "stages").items():
            if stage.get("stop_when") is not None:
                self._report(f"`{name}` may be ended by a suite", ("stages", name, "stop_when"), None)
            if _is_best(stage.get("from")):
                self._report(f"`{name}` starts from the best checkpoint", ("stages", name, "from"), "@last or @STEP")
        for name, block in blocks_of(self.layered.values, "data").items():
            self._negatives(name, block)

    def _negatives(self, name: str, block: Mapping[str, Any]) -> None:
        rejected = block.get("rejected")
        entries = list(enumerate(rejected)) if isinstance(rejected, list) else [(None, rejected)]
        for index, entry in entries:
            if isinstance(entry, dict) and _is_best(entry.get("sample")):
                path: ValuePath = ("data", name, "rejected", *(() if index is None else (index,)), "sample")
                self._report(f"`{name}` asks the best checkpoint", path, "@last or @STEP")

    def _report(self, what: str, path: ValuePath, expected: str | None) -> None:
        message = f"{what}, and with `launch.probing: elsewhere` the run does not know what the probes say"
        self.problems.append(Problem(message, self.layered.mark(path).at_value(), expected, _HINT))


def _is_best(reference: Any) -> bool:
    return any(text.endswith("@best") for text, _ in strings_of(reference, ()))
