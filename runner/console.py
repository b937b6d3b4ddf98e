"""The terminal: records of a run to rich renderables. Nothing is decided here, and no file is read.

What is shown of a decision is in `tables`, which the end of pytest and `recipe compare` share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runner.errors import UserError
from runner.forgetting import Forgetting
from runner.gate import Decision, Flip
from runner.plan import Plan, StagePlan
from runner.tables import (
    BAD,
    DIM,
    GOOD,
    MARK,
    CheckpointRow,
    decision_lines,
    flip_lines,
    forgetting_lines,
    matrix,
    percent,
    said,
)

_SIGN = {"to do": " ", "running": "›", "probing": "?", "done": "✓", "skipped": "✓", "stopped": "✗", "failed": "✗"}
_BARS = "▁▂▃▄▅▆▇█"


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


@dataclass(frozen=True)
class Ending:
    """What a run has come to."""

    rows: Sequence[CheckpointRow]
    suites: Sequence[str]
    result_label: str
    """Empty where the run ended before there was one."""
    result_baseline: str
    result: Sequence[Decision]
    turned: Sequence[str]
    """Sentences that name the checkpoint where a suite turned."""
    line: Sequence[str]
    """The checkpoints that the result came through, the first stage's first, and itself."""
    forgetting: Forgetting | None
    """What was kept on that line; None where no suite was asked twice on it."""
    also_red: Sequence[str]
    """Red gates that do not set the exit code, with their reasons."""
    regressions: Sequence[tuple[str, Sequence[Flip]]]
    """Lost cases by (where: `held_out at qa@192 against qa@64`)."""
    seconds: Mapping[str, float]
    """`training`, `generating`, `all else`."""
    commands: Sequence[str]
    stopped: str
    """Why the run ended before its last stage, or empty."""
    exit_code: int


def duration(seconds: float) -> str:
    """`4:12`, `1:02:33` or `8.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve of block characters, `width` cells at most; each is the mean of its share of the values, `!` where that
    is not a number."""
    if not values:
        return ""
    width = min(width, len(values))
    chunks = [values[index * len(values) // width : (index + 1) * len(values) // width] for index in range(width)]
    means = [sum(chunk) / len(chunk) for chunk in chunks]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(_BARS) - 1) / max(high - low, 1e-12)
    return "".join(_BARS[round((mean - low) * scale)] if math.isfinite(mean) else "!" for mean in means)


# --- the plan ---


def plan_screen(plan: Plan) -> RenderableType:
    """The whole plan, at 80 columns and more."""
    head = Table.grid(padding=(0, 2))
    for name, value in (("recipe", plan.path), ("writes", plan.out), ("model", plan.model), ("runs on", plan.device)):
        head.add_row(Text(name, style=DIM), Text(value))
    stages = Table(box=None, padding=(0, 1), header_style=DIM, pad_edge=False)
    for title in ("stage", "kind", "from"):
        stages.add_column(title, no_wrap=True)
    for title in ("rows", "batch", "steps", "tokens", "seen by loss"):
        stages.add_column(title, justify="right")
    stages.add_column("state", overflow="fold")
    for stage in plan.stages:
        stages.add_row(
            Text(stage.name, style=MARK), stage.kind, stage.start, f"{stage.arithmetic.rows:,}",
            _batch(stage), f"{stage.arithmetic.total_steps:,}", _tokens(stage.counts.tokens),
            percent(stage.counts.supervised / max(stage.counts.tokens, 1)), stage.state.partition(":")[0],
        )  # fmt: skip
    return Group(head, Text(), stages, Text(), *_plan_notes(plan))


def _batch(stage: StagePlan) -> str:
    numbers = stage.arithmetic
    if numbers.accumulation_steps == 1:
        return str(stage.global_batch_size)
    return f"{numbers.per_device_batch_size}×{numbers.accumulation_steps}={stage.global_batch_size}"


def _tokens(count: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return str(count)


def _plan_notes(plan: Plan) -> list[RenderableType]:
    notes: list[RenderableType] = []
    for stage in plan.stages:
        steps = stage.arithmetic.publish_steps
        at = ", ".join(f"{step:,}" for step in steps) if len(steps) <= 8 else f"{len(steps)} steps to {steps[-1]:,}"
        asked = ", ".join(stage.suites) if stage.suites else "no suite"
        notes.append(Text.assemble((f"{stage.name}: ", MARK), f"checkpoints at {at}; asked: {asked}"))
        if ":" in stage.state:
            notes.append(Text(f"  {stage.state}"))
        counts = stage.counts
        for count, what in ((counts.truncated, "rows truncated to max_length"), (counts.dropped, "rows dropped"),
                            (counts.unknown, "tokens are <unk>")):  # fmt: skip
            if count:
                notes.append(Text(f"  {count:,} {what}", style=BAD))
    notes += [Text(f"warning: {warning}", style=BAD) for warning in plan.warnings]
    notes.append(Text.assemble(("result: ", MARK), plan.result))
    return notes


# --- while it runs ---


def run_screen(
    title: str,
    elapsed_s: float,
    stages: Sequence[StageProgress],
    rows: Sequence[CheckpointRow],
    suites: Sequence[str],
    flips: Sequence[Text],
    height: int,
) -> RenderableType:
    """The live view: where it is, the matrix filling in, and the latest flips in the model's words."""
    table = Table.grid(padding=(0, 1))
    for stage in stages:
        table.add_row(*_stage_row(stage))
    room = max(height - len(stages) - 2 * len(flips) - 8, 3)
    parts: list[RenderableType] = [
        Text.assemble((title, MARK), ("  " + duration(elapsed_s), DIM)),
        Padding(table, (0, 0, 1, 0)),
    ]
    if rows:
        parts.append(matrix(rows, suites, last=room))
    return Group(*parts, *flips)


def _stage_row(stage: StageProgress) -> list[RenderableType]:
    sign = _SIGN.get(stage.state, " ")
    style = GOOD if sign == "✓" else BAD if sign == "✗" else MARK if sign in "›?" else DIM
    cells: list[RenderableType] = [
        Text(sign, style=style),
        Text(stage.name, style=style),
        ProgressBar(total=stage.total_steps, completed=stage.step, width=12, complete_style=GOOD, finished_style=GOOD),
        Text(f"{stage.step}/{stage.total_steps}"),
    ]
    if stage.losses:
        cells.append(Text(f"loss {stage.losses[-1]:.4f} {sparkline(stage.losses, 10)}"))
    else:
        cells.append(Text(stage.note or stage.state, style=DIM))
    if stage.state == "running" and stage.tokens_per_s:
        left = f", {duration(stage.seconds_left)} left" if stage.seconds_left is not None else ""
        cells.append(Text(f"{stage.tokens_per_s:,.0f} tok/s{left}", style=DIM))
    elif stage.state == "probing":
        cells.append(Text("probing", style=DIM))
    return cells


# --- the end ---


def ending_screen(ending: Ending) -> RenderableType:
    """The last screen: matrix, gates, what regressed where, where the time went, what to look at next."""
    parts: list[RenderableType] = [matrix(ending.rows, ending.suites), Text()]
    against = f" against {ending.result_baseline}" if ending.result_baseline else ""
    parts.append(Text.assemble(("result ", MARK), f"{ending.result_label}{against}"))
    for decision in ending.result:
        parts += decision_lines(decision)
    parts += [Text(f"  {sentence}", style=BAD) for sentence in ending.turned]
    if ending.forgetting is not None:
        parts += [Text(), Text(" → ".join(ending.line), style=DIM), *forgetting_lines(ending.forgetting)]
    for where, flips in ending.regressions:
        parts += [Text(), Text(f"{len(flips)} lost: {where}", style=MARK), *flip_lines("", flips, 3)]
    if ending.also_red:
        parts += [Text(), Text("also red, without a say in the exit code:", style=DIM)]
        parts += [Text(f"  ✗ {said(sentence, 400)}", style=BAD) for sentence in ending.also_red]
    times = ", ".join(f"{duration(seconds)} {name}" for name, seconds in ending.seconds.items())
    parts += [Text(), Text(f"time: {times}", style=DIM)]
    if ending.commands:
        parts += [Text("look further:", style=DIM), *(Text(f"  {command}") for command in ending.commands)]
    if ending.stopped:
        parts += [Text(), Text(ending.stopped, style=BAD)]
    verdict = ("green: exit code 0", GOOD) if ending.exit_code == 0 else (f"red: exit code {ending.exit_code}", BAD)
    parts += [Text(), Text(verdict[0], style=f"bold {verdict[1]}")]
    return Group(*parts)


def print_error(console: Console, error: UserError) -> None:
    """A user's error, its text untouched by markup or wrapping."""
    for index, problem in enumerate(error.problems):
        if index:
            console.print()
        # a source line, or a log of a child, may hold what a terminal would obey
        first, *rest = (said(line, 2000) for line in problem.screen().split("\n"))
        console.print(Text(first, style="bold"), soft_wrap=True)
        for line in rest:
            caret = line.lstrip(" |").startswith("^")
            console.print(Text(line, style=BAD if caret else ""), soft_wrap=True)
