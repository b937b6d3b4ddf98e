"""What stands under `launch.deepspeed`: a name, with the way of dividing that it means, or a file of the user's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import BadRecipe, Where
from runner.yaml_marks import Marks, read
from runner.yaml_marks import Path as ValuePath

GATHERS = "stage3_gather_16bit_weights_on_model_save"
"""Without it a checkpoint of ZeRO-3 has no weights that can be loaded."""
_ZERO: Mapping[str, dict[str, Any]] = {
    "zero1": {"stage": 1},
    "zero2": {"stage": 2, "overlap_comm": True, "contiguous_gradients": True},
    # transformers makes numbers of "auto" from the width of the model
    "zero3": {
        "stage": 3,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        GATHERS: True,
    },
}
_ON_HOST = {"device": "cpu", "pin_memory": True}
_OFFLOAD = {**_ZERO["zero3"], "offload_param": _ON_HOST, "offload_optimizer": _ON_HOST}


@dataclass(frozen=True)
class Written:
    """A DeepSpeed configuration in a file of the user's."""

    values: Mapping[str, Any]
    marks: Marks

    def get(self, path: ValuePath) -> Any:
        """What stands at a path; None where nothing does."""
        found: Any = self.values
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def at(self, path: ValuePath) -> Where:
        """Where it stands, or the nearest block around it that is written down."""
        while path not in self.marks:
            path = path[:-1]
        return self.marks[path].at_value()


def named(name: str) -> dict[str, Any]:
    """`zero_optimization` of one of `spec.DEEPSPEED`."""
    return dict(_OFFLOAD if name == "offload" else _ZERO[name])


def read_file(path: Path, shown: str) -> Written:
    """A DeepSpeed configuration.

    Args:
        path: of the file.
        shown: as the recipe names it.

    Raises:
        BadRecipe: it cannot be read, or is not a JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRecipe(f"the DeepSpeed configuration {shown} cannot be read: {error}", where=Where(shown)) from error
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1] if text else None
        where = Where(shown, error.lineno, error.colno, 1, line)
        raise BadRecipe(f"{shown} is not JSON: {error.msg}", where=where) from error
    if not isinstance(values, dict):
        raise BadRecipe(
            f"{shown} is not a DeepSpeed configuration", where=Where(shown), expected='an object: {"zero_optimization"…'
        )
    return Written(values, _marks(text, shown))


def _marks(text: str, shown: str) -> Marks:
    """JSON is read as YAML to find lines; where it is indented by tabs, which YAML does not know, by one space each."""
    return read(text.replace("\t", " "), shown).marks
