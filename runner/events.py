"""Events: what happened during a run, one append-only JSON-lines file per writing process, and how they are followed.

A reader beside a writer is always safe: it takes whole lines only and leaves a last line that has no newline for later.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TextIO

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Started:
    """A trainer is about to take its first step (or the first one after `step`, when it resumes)."""

    kind: ClassVar[str] = "started"
    stage: str
    step: int
    total_steps: int
    device: str
    dtype: str
    attention: str
    parameters: int
    trained: int | None = None
    """How many of the parameters are trained, where that is not all of them."""
    notes: tuple[str, ...] = ()
    """What is worth a word about them."""


@dataclass(frozen=True)
class Logged:
    """Losses since the last such event, and the pace."""

    kind: ClassVar[str] = "logged"
    stage: str
    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    """Real tokens (no padding) trained on since the stage began."""
    tokens_per_s: float
    """Pace since the last such event, data loading included."""
    more: dict[str, float]
    """What else the trainer reports: DPO's margins and accuracies."""
    memory_bytes: int = 0
    """The most that the trainer had so far: of its device, on a CPU of this machine's memory. 0 in older files."""


@dataclass(frozen=True)
class Published:
    """A checkpoint is complete: `STAGE/ckpt-STEP` can be loaded."""

    kind: ClassVar[str] = "published"
    stage: str
    step: int
    epoch: float
    training_s: float
    """Seconds spent inside optimizer steps since the stage (or its resumption) began."""
    waits: bool
    """The trainer waits for a decision before it goes on."""


@dataclass(frozen=True)
class Finished:
    """A trainer took its last step and leaves."""

    kind: ClassVar[str] = "finished"
    stage: str
    step: int
    training_s: float
    tokens: int
    supervised_tokens: int
    interrupted: bool


@dataclass(frozen=True)
class Probed:
    """The verdicts of a checkpoint are complete."""

    kind: ClassVar[str] = "probed"
    stage: str
    step: int
    suites: tuple[str, ...]
    generation_s: float
    wall_s: float


@dataclass(frozen=True)
class StageState:
    """The parent's view of a stage: started, skipped, resumed, superseded, done, failed."""

    kind: ClassVar[str] = "stage"
    stage: str
    state: str
    why: str = ""


@dataclass(frozen=True)
class GateJudged:
    """A gate was evaluated."""

    kind: ClassVar[str] = "gate"
    suite: str
    ckpt: str
    green: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class NotFinite:
    """A loss or its gradients were no numbers: the trainer leaves, to begin again without the batch or for good."""

    kind: ClassVar[str] = "not_finite"
    stage: str
    step: int
    """From 1; it changed no weight that is saved."""
    what: str
    """`the loss is nan`."""
    rows: tuple[str, ...]
    """The first rows of its batch: data set, file and line."""
    more_rows: int
    """How many more they are."""
    last_good: str
    """The newest checkpoint of the stage, `qa@20`; empty where there is none."""
    start: str
    """What the stage started from; empty for a new model."""
    back_to: int
    """The step of the newest saved state, from which it goes on; 0 for the stage's start."""
    left_out: tuple[int, ...] = ()
    """The first and the last step whose batches are left out from now on; empty where the stage ends."""
    tried: bool = False
    """Whether going back was tried as often as it may be."""


Event = Started | Logged | Published | Finished | Probed | StageState | GateJudged | NotFinite
_KINDS: dict[str, type[Event]] = {
    event.kind: event for event in (Started, Logged, Published, Finished, Probed, StageState, GateJudged, NotFinite)
}


class Journal:
    """Appends events to one file; each line is flushed, so that a reader sees it at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _end_with_newline(path)
        # a lone surrogate, out of a broken tokenizer, becomes JSON's own escape of it
        self._file: TextIO = path.open("a", encoding="utf-8", errors="backslashreplace")

    def write(self, event: Event) -> None:
        """Append an event, stamped with the time."""
        row = {"format_version": FORMAT_VERSION, "time": round(time.time(), 3), "event": event.kind, **asdict(event)}
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _end_with_newline(path: Path) -> None:
    """A writer that was killed in mid-line leaves half a row; the next one starts on a line of its own."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")


@dataclass(frozen=True)
class Stamped:
    """An event and when it was written (seconds since the epoch)."""

    time: float
    event: Event


def parse(line: str) -> Stamped | None:
    """The event on a line, or None for half a line or a kind this version does not know."""
    try:
        row: dict[str, Any] = json.loads(line)
        kind = _KINDS[row["event"]]
        known = {field.name for field in fields(kind)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in row.items() if name in known
        }
        return Stamped(row["time"], kind(**values))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class Follower:
    """Reads the events that were appended since the last look."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self._path = path
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def new(self) -> Iterator[Stamped]:
        """Events on complete lines that have not been returned before."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                block = file.read()
        except FileNotFoundError:
            return
        whole = block[: block.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode("utf-8", errors="replace").split("\n"):
            stamped = parse(line)
            if stamped is not None:
                yield stamped
