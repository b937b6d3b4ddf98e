"""What a run of the tiny project is doing at a moment, told by the files of its folder alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from runner import checkpoints

Phase = Literal[
    "data preparation",
    "start of a trainer",
    "training step",
    "publishing",
    "probing",
    "writing verdicts",
    "hand-over",
    "report",
]
PHASES: tuple[Phase, ...] = (
    "data preparation",
    "start of a trainer",
    "training step",
    "publishing",
    "probing",
    "writing verdicts",
    "hand-over",
    "report",
)
ENDED = "after its end"
"""Not a phase: everything is written, and the process leaves."""
_TAIL_BYTES = 2000


class Moment(NamedTuple):
    """A phase, and which one of several: the stage, or the checkpoint."""

    phase: str
    place: str = ""


def now(run: Path, stages: Sequence[str], asked: Sequence[str]) -> Moment:
    """What the first run into this folder is doing, or was doing when it was stopped.

    Args:
        run: its folder.
        stages: of its recipe, in their order.
        asked: those whose checkpoints are probed.
    """
    if not (run / "run.json").exists():
        return Moment("data preparation")
    for number, stage in enumerate(stages):
        state = _state(run / stage)
        if state != "done":
            return _in_stage(run, stage, begun=bool(state), is_first=number == 0, is_asked=stage in asked)
    return Moment(ENDED if (run / "report.html").exists() else "report")


def _in_stage(run: Path, stage: str, *, begun: bool, is_first: bool, is_asked: bool) -> Moment:
    last = _last_event(run / "events" / f"train-{stage}.jsonl") if begun else ""
    if not last:
        return Moment("start of a trainer") if is_first else Moment("hand-over", stage)
    if (step := _half_saved(run / stage)) is not None:
        return Moment("publishing", f"{stage}@{step}")
    published = [step for step, _ in checkpoints.published(run / stage)]
    if published and is_asked:
        probes = run / stage / "probes"
        name = f"ckpt-{published[-1]}.jsonl"
        label = f"{stage}@{published[-1]}"
        if any(probes.glob(f".{name}.*")):
            return Moment("writing verdicts", label)
        if not (probes / name).exists():
            return Moment("probing", label)
    return Moment("hand-over", stage) if last == "finished" else Moment("training step", stage)


def _state(stage: Path) -> str:
    """`running`, `done` or `stopped`; empty where the stage has not begun."""
    try:
        return str(json.loads((stage / "stage.json").read_text(encoding="utf-8"))["state"])
    except FileNotFoundError:
        return ""


def _half_saved(stage: Path) -> str | None:
    """The step of a state or a checkpoint that is being written."""
    for folder in (stage / "state").glob("checkpoint-*"):
        if not (folder / "complete.json").exists():
            return folder.name.removeprefix("checkpoint-")
    for folder in stage.glob(".ckpt-*"):
        return folder.name.split("-")[1].split(".")[0]
    return None


def _last_event(journal: Path) -> str:
    """The kind of the last whole line."""
    try:
        with journal.open("rb") as file:
            file.seek(max(file.seek(0, 2) - _TAIL_BYTES, 0))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return ""
    return str(json.loads(lines[-1])["event"]) if lines else ""
