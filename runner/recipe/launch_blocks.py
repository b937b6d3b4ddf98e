"""Checks of `launch:`: whether the processes can share every global batch, and whether Slurm is told anything twice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from runner import dividing
from runner.errors import Problem
from runner.recipe.layers import Layered, blocks_of
from runner.spec import Slurm, Stage
from runner.yaml_marks import Path as ValuePath

SCRIPT_WRITES = {
    "job-name": "the recipe's name",
    "chdir": "the folder in which recipe run was called",
    "output": "results/NAME/slurm",
    "error": "results/NAME/slurm",
    "open-mode": "results/NAME/slurm",
    "nodes": "launch.nodes",
    "ntasks": "one task of each node",
    "ntasks-per-node": "one task of each node",
    "signal": "launch.slurm.requeue",
    "no-requeue": "launch.slurm.requeue",
}
"""Options of sbatch that the script gets from elsewhere, and from where."""
_FIELDS = frozenset(name.replace("_", "-") for name in Slurm.model_fields) - {"options", "setup"}


@dataclass
class LaunchBlocks:
    """Checks the block; what is wrong is added to `problems`."""

    layered: Layered
    problems: list[Problem]

    def check(self) -> None:
        """Reports global batches that the processes cannot share, and options of sbatch that stand elsewhere."""
        block = self.layered.values.get("launch")
        if not isinstance(block, dict):
            return
        processes, nodes = block.get("processes"), block.get("nodes", 1)
        if type(processes) is int and type(nodes) is int and processes > 0 and nodes > 0:
            for name, stage in blocks_of(self.layered.values, "stages").items():
                self._shared(name, stage, processes * nodes)
        slurm = block.get("slurm")
        options = slurm.get("options") if isinstance(slurm, dict) else None
        for name in options if isinstance(options, dict) else ():
            self._option(str(name), ("launch", "slurm", "options", name))

    def _shared(self, name: str, stage: dict[str, Any], count: int) -> None:
        key = "global_batch_size"
        batch = stage.get(key, Stage.model_fields[key].default)
        if type(batch) is not int or batch < 1 or dividing.divides(batch, count):
            return
        mark = self.layered.mark(("stages", name, key) if key in stage else ("stages", name))
        message = f"stage {name}: {count} processes cannot share a global batch of {batch}"
        where = mark.at_value() if key in stage else mark.at_key()
        self.problems.append(Problem(message, where, dividing.which_can(batch, count)))

    def _option(self, name: str, path: ValuePath) -> None:
        where = self.layered.mark(path).at_key()
        plain = name.lstrip("-").replace("_", "-")
        if plain in SCRIPT_WRITES:
            hint = f"it comes from {SCRIPT_WRITES[plain]}"
            self.problems.append(Problem(f"`{name}` is written by the script itself", where, None, hint))
        elif plain in _FIELDS:
            key = plain.replace("-", "_")
            self.problems.append(Problem(f"`{name}` has a key of its own", where, None, f"write launch.slurm.{key}"))
        elif not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            expected = "the long name, in small letters and without dashes before it"
            self.problems.append(Problem(f"`{name}` is no name of an option of sbatch", where, expected))
