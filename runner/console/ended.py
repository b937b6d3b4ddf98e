"""The end of a run: what it came to, what regressed where, where the time went, what to look at next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from runner.console.words import duration
from runner.forgetting import Forgetting
from runner.gate import Decision, Flip
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
    said,
)


@dataclass(frozen=True)
class Ending:
    """What a run has come to."""

    rows: Sequence[CheckpointRow]
    suites: Sequence[str]
    result_label: str
    """Empty where the run ended before there was one."""
    result_baseline: str
    result: Sequence[Decision]
    ended: Sequence[str]
    """Sentences about stages that their probes ended early or took back."""
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
    rehearsal: str = ""
    """Of a run that judges no model (`--scale`): how it went; else empty."""


def ending_screen(ending: Ending) -> RenderableType:
    """The last screen: matrix, gates, what regressed where, where the time went, what to look at next."""
    parts: list[RenderableType] = [matrix(ending.rows, ending.suites), Text()]
    against = f" against {ending.result_baseline}" if ending.result_baseline else ""
    parts.append(Text.assemble(("result ", MARK), f"{ending.result_label}{against}"))
    for decision in ending.result:
        parts += decision_lines(decision)
    parts += [Text(f"  {sentence}", style=DIM) for sentence in ending.ended]
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
    if ending.rehearsal:
        parts += [Text(), Text(ending.rehearsal, style=BAD if ending.exit_code else MARK)]
    verdict = ("green: exit code 0", GOOD) if ending.exit_code == 0 else (f"red: exit code {ending.exit_code}", BAD)
    parts += [Text(), Text(verdict[0], style=f"bold {verdict[1]}")]
    return Group(*parts)
