"""The terminal: records of a run to rich renderables. Nothing is decided here, and no file is read.

Colours are a second signal only: every state also has a sign (`✓`, `✗`, `·`), so that nothing is lost without colour.
What a model said is shown through `said`, which makes control characters visible.
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

from runner.errors import UserError, printable
from runner.gate import Decision, Flip, wilson
from runner.plan import Plan, StagePlan

GOOD, BAD, DIM, MARK = "blue", "dark_orange3", "bright_black", "bold"
"""Blue and orange are told apart by every common kind of colour blindness."""
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
class CheckpointRow:
    """One line of the matrix: a checkpoint, its loss, and what was decided about each suite."""

    label: str
    loss: float | None
    decisions: Mapping[str, Decision]


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


def said(text: str, limit: int = 200) -> str:
    """What a model or a data file said, safe for a terminal, and not longer than `limit` characters."""
    shown = printable(text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def percent(share: float) -> str:
    """`97.7 %`, with 100 and 0 only where that is exact."""
    if 0.9995 <= share < 1:
        return "99.9 %"
    if 0 < share < 0.0005:
        return "0.1 %"
    return f"{share * 100:.1f} %" if share not in (0, 1) else f"{share * 100:.0f} %"


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


# --- the matrix ---


def matrix(rows: Sequence[CheckpointRow], suites: Sequence[str], *, last: int | None = None) -> Table:
    """Checkpoints down, suites across: pass rate, and `✓` or `✗` where a gate judged it."""
    table = Table(box=None, padding=(0, 1), header_style=DIM, pad_edge=False)
    table.add_column("checkpoint", no_wrap=True)
    table.add_column("loss", justify="right", no_wrap=True)
    for suite in suites:
        table.add_column(suite, justify="right", overflow="fold")  # of many suites each is narrow, and none is lost
    shown = rows if last is None else rows[-last:]
    if len(shown) < len(rows):
        table.add_row(Text(f"… {len(rows) - len(shown)} above", style=DIM))
    for row in shown:
        loss = f"{row.loss:.4f}" if row.loss is not None else ""
        table.add_row(Text(row.label), loss, *(_cell(row.decisions.get(suite)) for suite in suites))
    return table


def _cell(decision: Decision | None) -> Text:
    if decision is None:
        return Text("", style=DIM)
    tally = decision.tally
    shown = "–" if tally.rate is None else percent(tally.rate)
    if tally.errors:
        shown += f" {tally.errors}!"
    if decision.green is None:
        return Text(f"{shown}  ")
    return Text(f"{shown} {'✓' if decision.green else '✗'}", style=GOOD if decision.green else BAD)


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


def flip_lines(where: str, flips: Sequence[Flip], most: int) -> list[Text]:
    """Cases that changed, each with its reply before and after."""
    lines = []
    for flip in flips[:most]:
        lines.append(Text.assemble((f"  {flip.case_id} ", MARK), (where, DIM)))
        lines.append(Text.assemble(("    before: ", DIM), said(flip.before.reply, 120)))
        lines.append(Text.assemble(("    after:  ", DIM), said(flip.after.reply, 120)))
    if len(flips) > most:
        lines.append(Text(f"  … and {len(flips) - most} more", style=DIM))
    return lines


# --- the end ---


def ending_screen(ending: Ending) -> RenderableType:
    """The last screen: matrix, gates, what regressed where, where the time went, what to look at next."""
    parts: list[RenderableType] = [matrix(ending.rows, ending.suites), Text()]
    against = f" against {ending.result_baseline}" if ending.result_baseline else ""
    parts.append(Text.assemble(("result ", MARK), f"{ending.result_label}{against}"))
    for decision in ending.result:
        parts += _decision_lines(decision)
    parts += [Text(f"  {sentence}", style=BAD) for sentence in ending.turned]
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


def _decision_lines(decision: Decision) -> list[Text]:
    tally = decision.tally
    low, high = wilson(tally.passed, tally.asked)
    sign, style = ("✓", GOOD) if decision.green else ("✗", BAD) if decision.green is False else ("·", DIM)
    rate = (
        "not asked"
        if tally.rate is None
        else f"{percent(tally.rate)} of {tally.asked} [{percent(low)} – {percent(high)}]"
    )
    lines = [Text.assemble((f"  {sign} {decision.suite} ", style), rate)]
    # a reason may quote what the model said
    lines += [Text(f"      {said(reason, 400)}", style=style) for reason in decision.reasons]
    lines += [Text(f"      {said(note, 400)}", style=DIM) for note in decision.notes]
    return lines


def decision_line(label: str, decision: Decision) -> str:
    """One plain line for a log: `qa@96 held_out 97.7 % of 300 green`."""
    tally = decision.tally
    state = {True: "green", False: "red", None: "recorded"}[decision.green]
    rate = "none asked" if tally.rate is None else f"{percent(tally.rate)} of {tally.asked}"
    why = "; ".join(said(reason, 400) for reason in decision.reasons) if decision.green is False else ""
    return f"{label} {decision.suite}: {rate} {state}" + (f" ({why})" if why else "")


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
