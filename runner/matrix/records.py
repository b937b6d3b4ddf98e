"""The one table of a matrix: what the suites say about the result of each variant, and how it differs from the first.

Pure but for `write` and `read`, which keep it as `matrix.json` in the folder above the variants' own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runner import gate
from runner.atomic import publish_text
from runner.errors import EXIT_GATE_FAILED, UserError
from runner.gate import ALPHA, Comparison, Decision, Tally, wilson
from runner.verdicts import Verdict

FORMAT_VERSION = 1
NAME = "matrix.json"
Outcome = Literal["worse", "better", "same", "not compared", "first"]


@dataclass(frozen=True)
class Found:
    """A variant that ran to its end: what was asked of its result, and what is decided."""

    variant: str
    result: str
    """Its result checkpoint, as the screen names it: `qa@best = qa@96`."""
    stopped: str
    """Why it ended before its last stage, or empty."""
    exit_code: int
    decisions: Sequence[Decision]
    verdicts: Mapping[str, Sequence[Verdict]]
    """Of each suite."""


@dataclass(frozen=True)
class Cell:
    """One suite at the result of one variant."""

    suite: str
    tally: Tally
    green: bool | None
    reasons: tuple[str, ...]
    comparison: Comparison | None
    """With the first variant, case by case; None for the first itself, and for a suite that it was not asked."""
    p: float | None
    """Of so many flips in the direction in which there were more, one-sided; None without a comparison."""
    adjusted: float | None
    """Holm's, over all comparisons of the table; each direction is a family of its own, and has its own 5 %."""
    outcome: Outcome
    """`same`: no difference beyond chance; `not compared`: no case was answered in both variants."""


@dataclass(frozen=True)
class Row:
    """One variant."""

    variant: str
    result: str
    stopped: str
    exit_code: int
    cells: tuple[Cell, ...]

    @property
    def red(self) -> tuple[str, ...]:
        """Suites whose gate is red at its result."""
        return tuple(cell.suite for cell in self.cells if cell.green is False)


@dataclass(frozen=True)
class Table:
    """All variants, the first one first."""

    recipe: str
    rows: tuple[Row, ...]

    @property
    def suites(self) -> tuple[str, ...]:
        """Every suite that some variant's result was asked."""
        return tuple(dict.fromkeys(cell.suite for row in self.rows for cell in row.cells))

    @property
    def compared(self) -> int:
        """How many comparisons with the first variant there are."""
        return sum(cell.p is not None for row in self.rows for cell in row.cells)

    @property
    def exit_code(self) -> int:
        """1 where a gate of the result of any variant is red, else 0."""
        return EXIT_GATE_FAILED if any(row.exit_code for row in self.rows) else 0


def compare(recipe: str, found: Sequence[Found]) -> Table:
    """The table: every variant beside the first, each suite case by case."""
    first = found[0].verdicts
    pairs = {
        (one.variant, decision.suite): gate.compare(one.verdicts[decision.suite], first[decision.suite])
        for one in found[1:]
        for decision in one.decisions
        if decision.suite in first
    }
    tested = {place: pair for place, pair in pairs.items() if pair.common}
    worse, better = _adjusted(tested, lambda pair: pair.p), _adjusted(tested, lambda pair: pair.p_better)
    rows = []
    for one in found:
        cells = []
        for decision in one.decisions:
            place = (one.variant, decision.suite)
            adjusted = (worse[place], better[place]) if place in tested else None
            cells.append(_cell(decision, pairs.get(place), adjusted, first=one is found[0]))
        rows.append(Row(one.variant, one.result, one.stopped, one.exit_code, tuple(cells)))
    return Table(recipe, tuple(rows))


Place = tuple[str, str]


def _adjusted(tested: Mapping[Place, Comparison], p_of: Callable[[Comparison], float]) -> dict[Place, float]:
    return dict(zip(tested, gate.holm([p_of(pair) for pair in tested.values()]), strict=True))


def _cell(decision: Decision, pair: Comparison | None, adjusted: tuple[float, float] | None, *, first: bool) -> Cell:
    shared = decision.suite, decision.tally, decision.green, decision.reasons
    if pair is None or adjusted is None:
        return Cell(*shared, pair, None, None, "first" if first else "not compared")
    worse, better = adjusted
    lost, gained = pair.facts
    outcome: Outcome = "worse" if worse < ALPHA else "better" if better < ALPHA else "same"
    towards_worse = lost >= gained
    return Cell(*shared, pair, pair.p if towards_worse else pair.p_better, worse if towards_worse else better, outcome)


# --- the file ---


def write(folder: Path, recipe: str, recipe_path: str, table: Table | None) -> None:
    """Publish `matrix.json`: whose folder it is, and the table once there is one."""
    rows = [_as_row(row) for row in table.rows] if table else []
    text = {"format_version": FORMAT_VERSION, "recipe": recipe, "recipe_path": recipe_path, "variants": rows}
    publish_text(folder / NAME, json.dumps(text, ensure_ascii=False, indent=1) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """What `matrix.json` says.

    Raises:
        UserError: it is damaged, or a newer version wrote it.
    """
    path = folder / NAME
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if row["format_version"] > FORMAT_VERSION:
            raise UserError(f"{path} has format {row['format_version']}, this version reads up to {FORMAT_VERSION}")
        row["recipe"], row["recipe_path"], row["variants"]
        return row
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error})", hint="remove it and run again"
        ) from error


def _as_row(row: Row) -> dict[str, Any]:
    return {
        "variant": row.variant,
        "result": row.result,
        "stopped": row.stopped,
        "exit_code": row.exit_code,
        "suites": [_as_cell(cell) for cell in row.cells],
    }


def _as_cell(cell: Cell) -> dict[str, Any]:
    tally, pair = cell.tally, cell.comparison
    low, high = wilson(tally.passed, tally.asked)
    made: dict[str, Any] = {
        "suite": cell.suite,
        "passed": tally.passed,
        "asked": tally.asked,
        "errors": tally.errors,
        "not_asked": tally.not_asked,
        "rate": tally.rate,
        "interval_95": [low, high],
        "green": cell.green,
        "reasons": list(cell.reasons),
        "outcome": cell.outcome,
    }
    if pair is not None:
        made |= {"common": pair.common, "lost": len(pair.lost), "gained": len(pair.gained)}
        made |= {"difference": pair.net / pair.common if pair.common else None, "p": cell.p, "p_holm": cell.adjusted}
    return made
