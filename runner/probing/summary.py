"""The table at the end of pytest: suites × checkpoints, each with its rate, its interval and what its gate says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from rich.console import Console
from rich.text import Text

from runner.gate import Decision
from runner.probing.planning import Sitting
from runner.tables import DIM, CheckpointRow, fitting, number_table, said

Judged = tuple[Sitting, Decision]


def show(judged: Sequence[Judged], reporter: pytest.TerminalReporter) -> None:
    """Write the tables below pytest's own output."""
    writer = reporter._tw  # pytest has no public way to ask whether its output has colour
    console = Console(width=max(writer.fullwidth, 60), force_terminal=writer.hasmarkup, no_color=not writer.hasmarkup)
    rows = checkpoint_rows(judged)
    made = fitting(rows, list(dict.fromkeys(sitting.suite for sitting, _ in judged)), console)
    with console.capture() as captured:
        console.print(made)
        console.print(Text(legend([decision for _, decision in judged]), style=DIM))
        for note in changes(judged):
            console.print(Text(note, style=DIM), soft_wrap=True)
        if (numbers := number_table(rows)) is not None:
            console.print()
            console.print(numbers)
    reporter.section("probes")
    reporter.write(captured.get())


def changes(judged: Sequence[Judged]) -> list[str]:
    """What changed since the baseline that is no work of the model, where no red gate has said it already."""
    return [
        said(f"{decision.suite} at {sitting.target.label}: {note}", 400)
        for sitting, decision in judged
        if decision.green is not False and decision.comparison is not None and decision.comparison.changed
        for note in decision.notes
    ]


def checkpoint_rows(judged: Sequence[Judged]) -> list[CheckpointRow]:
    """A row per checkpoint, in the order they were asked."""
    found: dict[str, dict[str, Decision]] = {}
    for sitting, decision in judged:
        found.setdefault(sitting.target.label, {})[sitting.suite] = decision
    return [CheckpointRow(label, None, decisions) for label, decisions in found.items()]


def legend(decisions: Sequence[Decision]) -> str:
    """What the cells hold."""
    words = "passed of asked [95 % Wilson interval]"
    if any(decision.comparison is not None for decision in decisions):
        words += " -lost +gained p (so many lost by chance)"
    return words
