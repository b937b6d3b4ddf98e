"""Decisions as rich tables and lines: what the run's screens, the end of pytest and `recipe compare` have in common.

Colours are a second signal only: every state also has a sign (`✓`, `✗`, `·`), so that nothing is lost without colour.
What a model said is shown through `said`, which makes control characters visible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from runner.errors import printable
from runner.forgetting import Forgetting
from runner.gate import Decision, Flip, Number, Tally, wilson

GOOD, BAD, DIM, MARK = "blue", "dark_orange3", "bright_black", "bold"
"""Blue and orange are told apart by every common kind of colour blindness."""


@dataclass(frozen=True)
class CheckpointRow:
    """One line of the matrix: a checkpoint, its loss, and what was decided about each suite."""

    label: str
    loss: float | None
    decisions: Mapping[str, Decision]


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


def points(share: float) -> str:
    """A difference of two rates with its sign, in percentage points: `−3.2`."""
    return f"{100 * share:+.1f}".replace("-", "−")


def chance(p: float) -> str:
    """A p of two digits: `0.031`, `1.8e-05`; `1` where it is all but certain."""
    return "1" if p > 0.995 else f"{p:.2g}"


def interval(tally: Tally) -> str:
    """The 95 % Wilson interval of a rate: `[95.3–98.9]`, in percent."""
    low, high = wilson(tally.passed, tally.asked)
    return f"[{100 * low:.1f}–{100 * high:.1f}]"


# --- checkpoints × suites ---

Cell = Callable[[Decision], Text]


def short_cell(decision: Decision) -> Text:
    """One suite at one checkpoint, beside many: `97.7 % ✓`."""
    tally = decision.tally
    shown = "–" if tally.rate is None or tally.errors == tally.asked else percent(tally.rate)
    if tally.errors:
        shown += f" {tally.errors}!"
    if decision.green is None:
        return Text(f"{shown}  ")
    return Text(f"{shown} {'✓' if decision.green else '✗'}", style=GOOD if decision.green else BAD)


def full_cell(decision: Decision) -> Text:
    """One suite at one checkpoint: `97.7 % of 300 [95.3–98.9] -3 +1 p 0.31 ✓`."""
    tally = decision.tally
    if tally.rate is None:
        return Text("none asked ✗", style=BAD) if decision.green is False else Text("none asked", style=DIM)
    answered = tally.errors < tally.asked
    parts = Text(f"{percent(tally.rate)} of {tally.asked} {interval(tally)}" if answered else "not one answered")
    if tally.not_asked:
        parts.append(f" {tally.not_asked} not asked", style=DIM)
    if tally.errors:
        parts.append(f" {tally.errors} error{'s' if tally.errors > 1 else ''}", style=BAD)
    if decision.comparison is not None:
        parts.append(f" -{len(decision.lost)} +{len(decision.gained)} p {chance(decision.comparison.p)}", style=DIM)
    if decision.broken_off:
        parts.append(" broken off", style=BAD)
    if decision.green is not None:
        parts.append(" ✓" if decision.green else " ✗", style=GOOD if decision.green else BAD)
    return parts


def matrix(rows: Sequence[CheckpointRow], suites: Sequence[str], *, cell: Cell = short_cell) -> Table:
    """Checkpoints down, suites across, and the losses where there are any. Of many suites each is narrow, none is lost.

    Args:
        cell: how a decision is shown.
    """
    table = _headed(rows)
    for suite in suites:
        table.add_column(Text(said(suite)), justify="right", overflow="fold")
    for row in rows:
        cells = (cell(row.decisions[suite]) if suite in row.decisions else Text("") for suite in suites)
        table.add_row(*_begun(row, rows), *cells)
    return table


def matrix_that_fits(rows: Sequence[CheckpointRow], suites: Sequence[str], width: int, lines: int) -> Table:
    """As much of the matrix as there is room for: the latest checkpoints; of the suites those that are red now and then
    the first ones, each on one line, and a column that says how many others there are and how many of them are red.

    Args:
        width: cells.
        lines: with the head; 3 at least.
    """
    latest = rows if len(rows) < lines else rows[-max(lines - 2, 1) :]
    shown = _suites_that_fit(rows, latest, suites, width)
    others = [suite for suite in suites if suite not in shown]
    table = _headed(rows)
    for suite in shown:
        table.add_column(Text(said(suite)), justify="right", no_wrap=True, overflow="ellipsis", max_width=_SUITE_CELLS)
    if others:
        table.add_column(Text(f"+{len(others)} more"), justify="right", no_wrap=True)
    if len(latest) < len(rows):
        table.add_row(Text(f"… {len(rows) - len(latest)} above", style=DIM))
    for row in latest:
        cells = [short_cell(row.decisions[suite]) if suite in row.decisions else Text("") for suite in shown]
        table.add_row(*_begun(row, rows), *cells, *([_folded_cell(row, others)] if others else []))
    return table


_SUITE_CELLS = 18
"""Of the name of a suite, beside others."""


def _headed(rows: Sequence[CheckpointRow]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style=DIM, pad_edge=False)
    table.add_column("checkpoint", no_wrap=True, overflow="ellipsis")
    if any(row.loss is not None for row in rows):
        table.add_column("loss", justify="right", no_wrap=True)
    return table


def _begun(row: CheckpointRow, rows: Sequence[CheckpointRow]) -> list[Text]:
    """The cells of a row before those of its suites."""
    if all(one.loss is None for one in rows):
        return [Text(said(row.label))]
    return [Text(said(row.label)), Text(f"{row.loss:.4f}" if row.loss is not None else "")]


def _suites_that_fit(
    rows: Sequence[CheckpointRow], latest: Sequence[CheckpointRow], suites: Sequence[str], width: int
) -> list[str]:
    """In the order of the recipe."""
    red = {name for row in latest[-1:] for name, one in row.decisions.items() if one.green is False}
    names = max([len("checkpoint"), *(cell_len(said(row.label)) for row in latest)])
    losses = max((2 + len(f"{row.loss:.4f}") for row in latest if row.loss is not None), default=0)
    room, chosen = width - names - losses, list[str]()
    more = 2 + len(f"+{len(suites)} more")
    for suite in sorted(suites, key=lambda name: name not in red):
        cells = (short_cell(row.decisions[suite]).cell_len for row in latest if suite in row.decisions)
        room -= 2 + max([min(cell_len(said(suite)), _SUITE_CELLS), *cells])
        if room < (more if len(chosen) + 1 < len(suites) else 0):
            break
        chosen.append(suite)
    return [suite for suite in suites if suite in chosen]


def _folded_cell(row: CheckpointRow, suites: Sequence[str]) -> Text:
    judged = [row.decisions[suite].green for suite in suites if suite in row.decisions]
    if red := judged.count(False):
        return Text(f"{red} ✗", style=BAD)
    return Text("✓", style=GOOD) if True in judged else Text("·" if judged else "", style=DIM)


def listing(rows: Sequence[CheckpointRow]) -> Table:
    """A line per suite and checkpoint, where the matrix is too wide."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        for suite, decision in row.decisions.items():
            made.add_row(Text(said(suite)), Text(said(row.label)), full_cell(decision))
    return made


def fitting(rows: Sequence[CheckpointRow], suites: Sequence[str], console: Console) -> Table:
    """The matrix with full cells where the console is wide enough for it, else the listing."""
    made = matrix(rows, suites, cell=full_cell)
    # a table is never measured wider than it may be
    needed = Measurement.get(console, console.options.update(max_width=10_000), made).maximum
    return made if needed <= console.width else listing(rows)


def number_table(rows: Sequence[CheckpointRow]) -> Table | None:
    """A line per suite and checkpoint with its numbers, each a mean or one of the whole suite, and in brackets how it
    moved since the baseline; None where nothing was recorded."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for row in rows:
        for suite, decision in row.decisions.items():
            if decision.numbers:
                numbers = Text("  ".join(map(number_words, decision.numbers)))
                made.add_row(Text(said(suite)), Text(said(row.label)), numbers)
    return made if made.row_count else None


def number_words(number: Number) -> str:
    """`seq_rep_4 0.034 (+0.012)`."""
    value = "not a number" if math.isnan(number.mean) else f"{number.mean:.4g}"
    moved = f" ({number.rise:+.2g})" if number.rise is not None and math.isfinite(number.rise) else ""
    return said(f"{number.name} {value}{moved}")


# --- one decision, and its cases ---


def decision_lines(decision: Decision) -> list[Text]:
    """A suite with its rate, and below it why it is red and what else is to be known."""
    tally = decision.tally
    low, high = wilson(tally.passed, tally.asked)
    sign, style = ("✓", GOOD) if decision.green else ("✗", BAD) if decision.green is False else ("·", DIM)
    rate = (
        "not asked"
        if tally.rate is None
        else f"{percent(tally.rate)} of {tally.asked} [{percent(low)} – {percent(high)}]"
    )
    lines = [Text.assemble((f"  {sign} {said(decision.suite)} ", style), rate)]
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
    return f"{said(label)} {said(decision.suite)}: {rate} {state}" + (f" ({why})" if why else "")


def forgetting_lines(kept: Forgetting) -> list[Text]:
    """Both measures over a line of stages, in percentage points, and the suite that forgot most."""
    over = f"over {len(kept.suites)} suite{'s' if len(kept.suites) > 1 else ''}"
    both = f"backward transfer {points(kept.backward_transfer)}, forgetting {points(kept.forgetting)} points"
    lines = [Text(f"  {both} {over}")]
    if kept.worst.forgotten > 0:
        worst = kept.worst
        lines.append(Text(f"  most forgotten: {worst.suite}, {percent(worst.best)} once and {percent(worst.last)} now"))
    return lines


def flip_lines(where: str, flips: Sequence[Flip], most: int | None, *, prompts: bool = False) -> list[Text]:
    """Cases that changed, each with its reply before and after.

    Args:
        where: said behind each case's id.
        most: how many are shown; None shows all.
        prompts: show what was asked, too.
    """
    lines = []
    for flip in flips[:most]:
        fragile = "  by a hair" if flip.fragile else ""
        lines.append(Text.assemble((f"  {said(flip.case_id)} ", MARK), (where + fragile, DIM)))
        if prompts:
            lines.append(Text.assemble(("    asked:  ", DIM), said(flip.after.prompt)))
        lines.append(Text.assemble(("    before: ", DIM), said(flip.before.reply, 120)))
        lines.append(Text.assemble(("    after:  ", DIM), said(flip.after.reply, 120)))
    if most is not None and len(flips) > most:
        lines.append(Text(f"  … and {len(flips) - most} more", style=DIM))
    return lines
