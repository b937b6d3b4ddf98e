"""The table at the end of pytest: suites × checkpoints, each with its rate, its interval and what its gate says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from runner.console import BAD, DIM, GOOD, percent
from runner.gate import Decision, wilson
from runner.probing.planning import Sitting

Judged = tuple[Sitting, Decision]


def show(judged: Sequence[Judged], reporter: pytest.TerminalReporter) -> None:
    """Write the table below pytest's own output."""
    writer = reporter._tw  # pytest has no public way to ask whether its output has colour
    console = Console(width=max(writer.fullwidth, 60), force_terminal=writer.hasmarkup, no_color=not writer.hasmarkup)
    made = matrix(judged)
    if Measurement.get(console, console.options, made).maximum > console.width:
        made = listing(judged)
    with console.capture() as captured:
        console.print(made)
        console.print(Text("passed of asked [95 % Wilson interval] -lost +gained against the baseline", style=DIM))
    reporter.section("probes")
    reporter.write(captured.get())


def matrix(judged: Sequence[Judged]) -> Table:
    """A row per checkpoint, a column per suite."""
    suites = list(dict.fromkeys(sitting.suite for sitting, _ in judged))
    labels = list(dict.fromkeys(sitting.target.label for sitting, _ in judged))
    cells = {(sitting.target.label, sitting.suite): cell(decision) for sitting, decision in judged}
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column("checkpoint", no_wrap=True)
    for suite in suites:
        made.add_column(Text(suite), no_wrap=True)
    for label in labels:
        made.add_row(Text(label), *(cells.get((label, suite), Text("")) for suite in suites))
    return made


def listing(judged: Sequence[Judged]) -> Table:
    """A row per suite and checkpoint, where the matrix is too wide."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for sitting, decision in judged:
        made.add_row(Text(sitting.suite), Text(sitting.target.label), cell(decision))
    return made


def cell(decision: Decision) -> Text:
    """One suite at one checkpoint: `97.7 % of 300 [95.3–98.9] -3 +1 ✓`."""
    tally = decision.tally
    if tally.rate is None:
        return Text("none asked", style=BAD if decision.green is False else DIM)
    low, high = wilson(tally.passed, tally.asked)
    parts = Text(f"{percent(tally.rate)} of {tally.asked} [{100 * low:.1f}–{100 * high:.1f}]")
    if tally.not_asked:
        parts.append(f" {tally.not_asked} not asked", style=DIM)
    if tally.errors:
        parts.append(f" {tally.errors} errors", style=BAD)
    if decision.comparison is not None:
        parts.append(f" -{len(decision.lost)} +{len(decision.gained)}", style=DIM)
    if decision.green is not None:
        parts.append(" ✓" if decision.green else " ✗", style=GOOD if decision.green else BAD)
    return parts
