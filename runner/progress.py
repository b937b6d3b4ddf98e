"""What a run shows while it goes on: a live screen in a terminal, plain lines in a pipe or a log. It only shows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from rich.console import Console, RenderableType
from rich.text import Text

from runner import console as show
from runner import spec, tables, underway
from runner.console import Ending, LiveView, LogLines, RunView, StageProgress, Turned
from runner.errors import EXIT_GATE_FAILED, printable
from runner.events import Logged, Published, Started
from runner.plan import Plan
from runner.tables import CheckpointRow

LEAVING = "interrupted: state is being saved; Ctrl-C again leaves at once"
_TURNED = 24
"""Flips that are kept for the live screen: more than any terminal shows."""
_OF_A_SUITE = 3
"""Flips of one suite at one checkpoint, of each kind: the others want a place too."""


class Screen:
    """A context manager; leaving it ends the live view and keeps what it last showed out of the way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_live = show.is_live(console)
        self._shown: LiveView | LogLines | None = None
        self._began = time.monotonic()
        self._title = ""
        self._note = show.Note(is_live=self._is_live)
        self._stages: dict[str, StageProgress] = {}
        self._suites: Sequence[str] = ()
        self._rows: dict[str, CheckpointRow] = {}
        self._turned: list[Turned] = []

    def __enter__(self) -> Screen:
        self._shown = show.shown(self._console, self._render)
        self._shown.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._shown is not None:
            self._shown.stop()
            self._shown = None

    def _render(self) -> RenderableType:
        if not self._title:
            return show.works_screen(underway.now(), self._console.width)
        view = RunView(
            self._title,
            time.monotonic() - self._began,
            list(self._stages.values()),
            underway.now(),
            list(self._rows.values()),
            self._suites,
            tuple(self._turned),
            self._note.words,
        )
        return show.run_screen(view, self._console.width, self._console.height)

    def _line(self, text: str, *, also_live: bool = False) -> None:
        """A line for a log. A live screen shows the same in its own way, but for what it has no place for, which stays
        above it."""
        if not self._is_live or also_live:
            self._console.print(Text(printable(text), style=tables.DIM if also_live else ""), soft_wrap=True)

    # --- what happens, in the order it does ---

    def planned(self, plan: Plan) -> None:
        """The plan is known and the run begins."""
        self._console.print(show.plan_screen(plan))
        self._console.print()
        self._suites = tuple(dict.fromkeys(suite for stage in plan.stages for suite in stage.suites))
        self._stages = {name: StageProgress(name, 1) for name in plan.trained_in}
        self._stages |= {stage.name: StageProgress(stage.name, stage.arithmetic.total_steps) for stage in plan.stages}
        self._title = plan.recipe

    def nothing_to_train(self, recipe: spec.Recipe) -> None:
        """Every stage is done; what is left is to judge, and to ask the suites that changed."""
        self._suites = tuple(recipe.probes)
        self._stages = {name: StageProgress(name, 1) for name in recipe.stages}
        self._title = recipe.recipe

    def leaving(self) -> None:
        """The user wants to leave; a handler of signals calls this."""
        self._note.say(LEAVING)

    def waiting(self) -> AbstractContextManager[show.Note]:
        """Show what is under way before the run has its screen."""
        return show.waiting(self._console)

    def stage(self, name: str, state: str, why: str = "") -> None:
        """A stage entered a state."""
        progress = self._stages[name]
        progress.state, progress.note = state, why
        if state in ("done", "skipped", "shared"):
            progress.step = progress.total_steps
        self._line(f"stage {name}: {state}" + (f" ({why})" if why else ""), also_live=bool(why))

    def started(self, event: Started) -> None:
        """A trainer takes its first step."""
        progress = self._stages[event.stage]
        progress.state, progress.step, progress.total_steps = "running", event.step, event.total_steps
        trained = "" if event.trained is None else f", {event.trained:,} of them trained"
        self._line(
            f"stage {event.stage}: {event.parameters:,} parameters{trained}, {event.dtype} on {event.device}, "
            f"attention {event.attention}",
            also_live=True,
        )
        for note in event.notes:
            self._line(f"stage {event.stage}: {note}", also_live=True)

    def logged(self, event: Logged) -> None:
        """A loss was recorded."""
        progress = self._stages[event.stage]
        progress.state, progress.step = "running", event.step
        progress.losses.append(event.loss)
        progress.tokens_per_s, progress.memory_bytes = event.tokens_per_s, event.memory_bytes
        if event.step and event.tokens_per_s:
            progress.seconds_left = (progress.total_steps - event.step) * event.tokens / event.step / event.tokens_per_s
        if not self._is_live and _worth_a_line(event.step, progress.total_steps):
            memory = f" {show.bytes_words(event.memory_bytes)}" if event.memory_bytes else ""
            self._line(
                f"{event.stage} {event.step}/{progress.total_steps} epoch {event.epoch:.2f} loss {event.loss:.4f} "
                f"lr {event.learning_rate:.2e} {event.tokens_per_s:,.0f} tokens/s{memory}"
            )

    def published(self, event: Published) -> None:
        """A checkpoint is complete and is about to be probed."""
        progress = self._stages[event.stage]
        progress.state, progress.step = "probing", event.step

    def judged(self, row: CheckpointRow, *, again: bool) -> None:
        """The verdicts of a checkpoint are in; `again` where they were so already, from an earlier invocation."""
        self._rows[row.label] = row
        stage = self._stages[row.label.split("@")[0]]
        if stage.state == "probing":
            stage.state = "running"
        for decision in row.decisions.values():
            if not again:
                self._line(tables.decision_line(row.label, decision))
        self._turned = [*_turned(row), *self._turned][:_TURNED]

    def unasked(self, labels: Sequence[str], run: Path) -> None:
        """Everything is trained, and somebody else has to ask these checkpoints before the result can be judged."""
        self._stop()
        first = ", ".join(labels[:3]) + (", …" if len(labels) > 3 else "")
        self._console.print(Text(f"trained, and not judged: {len(labels)} not asked yet ({first})"), soft_wrap=True)
        self._console.print(Text(f"  recipe watch {os.path.relpath(run)}    asks; then the same command judges"))
        self._console.print(Text(f"not judged: exit code {EXIT_GATE_FAILED}", style=f"bold {tables.BAD}"))

    def ended(self, ending: Ending) -> None:
        """The last screen."""
        self._stop()
        self._console.print(show.ending_screen(ending))


def _turned(row: CheckpointRow) -> Iterator[Turned]:
    """What changed at a checkpoint since its baseline: of every suite some that it lost, then some that it gained."""
    compared = [(one.suite, one.comparison) for one in row.decisions.values() if one.comparison is not None]
    for kind in ("lost", "gained"):
        for suite, found in compared:
            where = f"{suite} at {row.label} against {found.baseline}"
            flips = found.lost if kind == "lost" else found.gained
            yield from (Turned(kind, where, flip) for flip in flips[:_OF_A_SUITE])


def _worth_a_line(step: int, total: int) -> bool:
    """A log gets about twenty lines of losses per stage."""
    return step == total or total <= 20 or step % max(total // 20 // 10 * 10, 10) == 0
