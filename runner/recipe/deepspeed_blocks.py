"""Check of `launch.deepspeed`: a name of a configuration, or a file that is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner import spec
from runner.errors import Problem
from runner.recipe.layers import Layered, did_you_mean, near_file


@dataclass
class DeepspeedBlocks:
    """Checks the recipe; what is wrong is added to `problems`. What a file says is looked at where the whole recipe is
    known (`runner.check`)."""

    layered: Layered
    root: Path
    files: bool
    """Whether to look for the file."""
    problems: list[Problem]

    def check(self) -> None:
        """Reports a name that is none, and a file that is not there."""
        launch = self.layered.values.get("launch")
        said = launch.get("deepspeed") if isinstance(launch, dict) else None
        if not isinstance(said, str) or said in spec.DEEPSPEED or not self.files or (self.root / said).is_file():
            return
        names = ", ".join(spec.DEEPSPEED)
        hint = did_you_mean(said, spec.DEEPSPEED) or near_file(self.root / said, said)
        where = self.layered.mark(("launch", "deepspeed")).at_value()
        looks = "/" in said or "." in said
        what = f"DeepSpeed configuration {said} does not exist" if looks else f"no DeepSpeed configuration `{said}`"
        self.problems.append(Problem(what, where, f"{names}, or a file, from the project root", hint))
