"""A run while it goes on: its stages, what is under way, the matrix that fills in, and the latest flips.

What does not fit is chosen, never cut off: the latest checkpoints, the suites that are red, the stages around the one
that runs. A line that is too long ends in an ellipsis; none is wrapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runner.console.words import bytes_words, duration, left_words, sparkline, work_words
from runner.errors import printable
from runner.gate import Flip
from runner.tables import BAD, DIM, GOOD, MARK, CheckpointRow, flip_lines, matrix_that_fits, said
from runner.underway import Work

_SIGN = {
    "to do": " ",
    "waiting": "…",
    "running": "›",
    "sampling": "?",
    "probing": "?",
    "done": "✓",
    "skipped": "✓",
    "shared": "✓",
    "stopped": "✗",
    "failed": "✗",
}
_DONE = ("done", "skipped", "shared")
_LONGEST_NAME = 20
_LINES_OF_A_FLIP = 3
_LEAST_MATRIX = 6
"""Lines: the head, what was left out, and four checkpoints."""
_WORKS = 2
"""Pieces of work that are shown: a trainer's, and that of a prober beside it."""


@dataclass
class StageProgress:
    """How far a stage has come."""

    name: str
    total_steps: int
    state: str = "to do"
    step: int = 0
    losses: list[float] = field(default_factory=list)
    tokens_per_s: float = 0.0
    seconds_left: float | None = None
    note: str = ""
    memory_bytes: int = 0
    """The most that its trainer had so far; 0 where it has not said."""


@dataclass(frozen=True)
class Turned:
    """A case that changed."""

    kind: str
    """`lost` or `gained`."""
    where: str
    """`held_out at qa@192 against qa@64`."""
    flip: Flip


@dataclass(frozen=True)
class RunView:
    """All that the live view is made of."""

    title: str
    elapsed_s: float
    stages: Sequence[StageProgress] = ()
    works: Sequence[Work] = ()
    rows: Sequence[CheckpointRow] = ()
    suites: Sequence[str] = ()
    turned: Sequence[Turned] = ()
    """The latest first."""
    note: str = ""
    """What the user should know now: that the run is about to end."""


def run_screen(view: RunView, width: int, height: int) -> RenderableType:
    """The live view, in at most `height` - 1 lines of `width` cells."""
    head = Text.assemble((said(view.title), MARK), ("  " + duration(view.elapsed_s), DIM))
    if view.note:
        head.append(f"  {said(view.note)}", style=BAD)
    works = view.works[:_WORKS]
    stages = _around_the_running(view.stages, max(height // 3, 3))
    room = height - 2 - len(works) - len(stages)
    parts: list[RenderableType] = [_one_line(head)]
    if stages:
        parts.append(_stage_table(stages, width))
    parts += [_work_line(work, width) for work in works]
    if view.rows:
        wanted = min(len(view.rows) + 1, max(_LEAST_MATRIX, room // 2))
        turned = view.turned[: max((room - wanted - 2) // _LINES_OF_A_FLIP, 0)]
        lines = room - 1 - (1 + _LINES_OF_A_FLIP * len(turned) if turned else 0)
        parts += [Text(), matrix_that_fits(view.rows, view.suites, width, lines)]
        if turned:
            parts += [Text(), *(line for one in turned for line in _turned_lines(one))]
    return Group(*parts)


def works_screen(works: Sequence[Work], width: int) -> RenderableType:
    """What is under way, where there is nothing else to show."""
    return Group(*(_work_line(work, width) for work in works[:_WORKS]))


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


# --- stages ---


def _around_the_running(stages: Sequence[StageProgress], most: int) -> list[StageProgress | str]:
    """The stages, or those around the one that runs, with a line for what is left out above and below."""
    if len(stages) <= most:
        return list(stages)
    at = next((place for place, stage in enumerate(stages) if stage.state not in _DONE), len(stages) - 1)
    first = min(max(at - 1, 0), len(stages) - most)
    last = first + most
    # the lines that say so take the places of stages
    above = first + 1 if first > 0 else 0
    below = len(stages) - last + 1 if last < len(stages) else 0
    shown: list[StageProgress | str] = list(stages[above : len(stages) - below])
    if above:
        done = all(stage.state in _DONE for stage in stages[:above])
        shown.insert(0, f"{above} stages {'done' if done else 'above'}")
    if below:
        shown.append(f"{below} stages to come")
    return shown


@dataclass(frozen=True)
class _Detail:
    """How much of a stage is shown: cells of its bar and of its curve, and whether its pace is."""

    bar: int = 12
    curve: int = 10
    memory: bool = True
    pace: bool = True


_DETAILS = (_Detail(), _Detail(8, 8), _Detail(6, 5), _Detail(0, 5), _Detail(0, 5, memory=False),
            _Detail(0, 0, memory=False, pace=False))  # fmt: skip


def _stage_table(stages: Sequence[StageProgress | str], width: int) -> Table:
    """As much of each stage as all of them have room for."""
    made = [[_stage_row(stage, detail) for stage in stages] for detail in _DETAILS]
    rows = next((rows for rows in made if _needed(rows) <= width), made[-1])
    table = Table.grid(padding=(0, 1))
    for _ in rows[0]:
        table.add_column(no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(cell[1] for cell in row))
    return table


_Cell = tuple[int, RenderableType]
"""How wide it is, and what it is."""


def _needed(rows: Sequence[Sequence[_Cell]]) -> int:
    columns = [max(width for width, _ in column) for column in zip(*rows, strict=True)]
    return int(sum(columns)) + len(columns) - 1


def _stage_row(stage: StageProgress | str, detail: _Detail) -> list[_Cell]:
    if isinstance(stage, str):
        return [_text("…", DIM), _text(stage, DIM), *[_text("")] * 4]
    sign = _SIGN.get(stage.state, " ")
    style = GOOD if sign == "✓" else BAD if sign == "✗" else MARK if sign in "›?" else DIM
    bar: _Cell = _text("")
    if detail.bar:
        shown = ProgressBar(
            total=max(stage.total_steps, 1), completed=stage.step, width=detail.bar, complete_style=GOOD,
            finished_style=GOOD,
        )  # fmt: skip
        bar = detail.bar, shown
    return [
        _text(sign, style), _text(said(stage.name, _LONGEST_NAME), style), bar,
        _text(f"{stage.step:,}/{stage.total_steps:,}"), _loss(stage, detail), _pace(stage, detail),
    ]  # fmt: skip


def _text(words: str, style: str = "") -> _Cell:
    return cell_len(words), _one_line(Text(words, style=style))


def _loss(stage: StageProgress, detail: _Detail) -> _Cell:
    if not stage.losses:
        return _text(said(stage.note or stage.state, 60), DIM)
    curve = f" {sparkline(stage.losses, detail.curve)}" if detail.curve else ""
    return _text(f"loss {stage.losses[-1]:.4f}{curve}")


def _pace(stage: StageProgress, detail: _Detail) -> _Cell:
    if stage.state == "probing":
        return _text("probing", DIM)
    if stage.state != "running" or not stage.tokens_per_s:
        return _text("")
    memory = bytes_words(stage.memory_bytes) if detail.memory and stage.memory_bytes else ""
    pace = f"{stage.tokens_per_s:,.0f} tok/s" if detail.pace else ""
    return _text("  ".join(filter(None, (pace, memory, left_words(stage.seconds_left)))), DIM)


# --- what is under way ---


def _work_line(work: Work, width: int) -> RenderableType:
    """`  tokenizing entries: 1,200 of 10,000 texts ━━━━━ 0:40 left`."""
    words = Text(f"  {printable(work_words(work))}", style=DIM)
    left = left_words(work.seconds_left) or f"for {duration(work.elapsed_s)}"
    room = width - cell_len(left) - 2
    bar_cells = min(12, room - words.cell_len - 1) if work.total else 0
    words.truncate(max(room, 1), overflow="ellipsis")
    line = Table.grid(padding=(0, 1))
    cells: list[RenderableType] = [_one_line(words)]
    if bar_cells >= 6 and work.total:
        cells.append(ProgressBar(total=work.total, completed=work.done, width=bar_cells, complete_style=GOOD))
    line.add_row(*cells, Text(left, style=DIM, no_wrap=True))
    return line


# --- flips ---


def _turned_lines(one: Turned) -> list[Text]:
    """A case that was lost or gained, with what it said before and says now."""
    head, *replies = flip_lines(one.where, [one.flip], 1)
    sign, style = ("✗", BAD) if one.kind == "lost" else ("✓", GOOD)
    return [_one_line(line) for line in (Text.assemble((f"{sign} {one.kind}", style), head), *replies)]
