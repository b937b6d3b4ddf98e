"""References to checkpoints of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Ref:
    """A reference to a checkpoint of a stage: `qa@best`, `qa@last`, `qa@epoch=2` or `qa@1264`."""

    stage: str
    which: Literal["best", "last", "epoch", "step"]
    number: float = 0
    """The epoch or the step, where `which` is one of them."""


_REF = re.compile(
    r"^(?P<stage>[A-Za-z][A-Za-z0-9_-]*)@(?:(?P<word>best|last)|epoch=(?P<epoch>\d+(?:\.\d+)?)|(?P<step>\d+))$"
)


def parse_ref(text: str) -> Ref | None:
    """The checkpoint that `text` refers to, or None where it is a path."""
    match = _REF.match(text)
    if match is None:
        return None
    if match["word"]:
        return Ref(match["stage"], "best" if match["word"] == "best" else "last")
    if match["epoch"]:
        return Ref(match["stage"], "epoch", float(match["epoch"]))
    return Ref(match["stage"], "step", int(match["step"]))
