"""What becomes of a stage whose loss or gradients are no numbers: how far it goes back, what it leaves out, in words.

A batch that is left out takes its step, in the schedule and in the order of the data, and changes no weight. Which ones
are left out stands in `left_out.json` in the stage's folder before the stage goes back, so a run that is killed at any
moment goes on to the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.atomic import publish_text
from runner.errors import UserError
from runner.events import NotFinite

FORMAT_VERSION = 1
FILE = "left_out.json"
EXIT_AGAIN = 75
"""A trainer's exit code where it is to be started again from its newest state; EX_TEMPFAIL of sysexits.h."""
WINDOWS = (1, 10, 100)
"""Steps that are left out, up to the faulty one, the first, second and third time after one checkpoint. A batch that is
bad in itself is left out alone; where the weights had gone astray before, what led there has to be left out too: PaLM
was taken back about 100 steps before a spike, and 200 to 500 batches were skipped (Chowdhery et al. 2022,
arXiv:2204.02311, section 5.1)."""
SHOWN_ROWS = 8


@dataclass(frozen=True)
class Fault:
    """A step that came to no number, and what was left out for it."""

    step: int
    """From 1."""
    what: str
    """`the loss is nan`."""
    back_to: int
    """The step of the state that training went back to; 0 for the stage's start."""
    first: int
    """The batches of the steps `first` to `step` are left out."""


def decide(faults: Sequence[Fault], step: int, what: str, back_to: int) -> Fault | None:
    """What to leave out for a fault; None where that was tried often enough.

    Args:
        faults: those before, of the same stage.
        step: that came to no number, from 1.
        what: about it.
        back_to: the step of the newest saved state; 0 where there is none.
    """
    tries = sum(fault.back_to == back_to for fault in faults)
    if tries >= len(WINDOWS):
        return None
    return Fault(step, what, back_to, max(step - WINDOWS[tries] + 1, back_to + 1))


def left_out(faults: Sequence[Fault]) -> frozenset[int]:
    """The steps whose batches are left out, from 1."""
    return frozenset(step for fault in faults for step in range(fault.first, fault.step + 1))


def write(stage_folder: Path, faults: Sequence[Fault]) -> None:
    """Publish the record of a stage, whole or not at all."""
    row = {"format_version": FORMAT_VERSION, "faults": [asdict(fault) for fault in faults]}
    publish_text(stage_folder / FILE, json.dumps(row, ensure_ascii=False, indent=1) + "\n")


def read(stage_folder: Path) -> tuple[Fault, ...]:
    """The faults of a stage so far; none where it has no record.

    Raises:
        UserError: the record is damaged, or a newer version wrote it.
    """
    path = stage_folder / FILE
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (version := row["format_version"]) > FORMAT_VERSION:
            raise UserError(f"{path} has format {version}, this version reads up to {FORMAT_VERSION}")
        return tuple(Fault(**fault) for fault in row["faults"])
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error})",
            hint=f"move {stage_folder} away; the stage is then trained again",
        ) from error


def note(faults: Sequence[Fault]) -> tuple[str, ...]:
    """What a stage says when it goes on without some batches; nothing where it leaves none out."""
    if not (steps := sorted(left_out(faults))):
        return ()
    batches = "1 batch is" if len(steps) == 1 else f"{len(steps)} batches are"
    return (f"{batches} left out, of steps {spans(steps)} (on_nan: rollback)",)


def spans(steps: Sequence[int]) -> str:
    """Ascending numbers as `3, 7-12`."""
    found: list[list[int]] = []
    for step in steps:
        if found and found[-1][1] == step - 1:
            found[-1][1] = step
        else:
            found.append([step, step])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def rolled_back(event: NotFinite) -> str:
    """In a few words, for the line of a stage that goes back."""
    first, last = event.left_out
    without = f"the batch of step {last}" if first == last else f"the batches of steps {first}-{last}"
    back = f"step {event.back_to}" if event.back_to else "the stage's start"
    return f"{event.what} at step {event.step}: back to {back}, without {without}"


def words(event: NotFinite) -> str:
    """What a user is told of a stage that ended there: the step, the rows of its batch, what is left and what to do."""
    more = f", and {event.more_rows} more" if event.more_rows else ""
    began = f"; it started from {event.start}" if event.start else "; it started from a new model"
    tried = f"on_nan: rollback left batches out {len(WINDOWS)} times after step {event.back_to}: lower learning_rate"
    untried = "look at these rows; lower learning_rate, or go on without the batch: on_nan: rollback"
    lines = [
        f"stage {event.stage}: {event.what} at step {event.step}",
        f"its batch: {', '.join(event.rows)}{more}",
        f"last good checkpoint: {event.last_good or 'none of this stage' + began}",
        f"hint: {tried if event.tried else untried}",
    ]
    return "\n    ".join(lines)
