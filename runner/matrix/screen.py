"""The matrix in the terminal, at 80 columns and more: its plan, and its table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from runner import console
from runner.gate import ALPHA
from runner.matrix.planning import MatrixPlan
from runner.matrix.records import Cell, Table
from runner.tables import BAD, DIM, GOOD, MARK, chance, interval, percent, points, said

_SIGNS = {"worse": "✗ worse", "better": "✓ better", "same": "· same", "not compared": "–", "first": ""}
_STYLES = {"worse": BAD, "better": GOOD, "same": DIM, "not compared": DIM, "first": DIM}


def plan_screen(made: MatrixPlan) -> RenderableType:
    """The plan of every variant; a stage that an earlier one trains is named and not shown again."""
    parts: list[RenderableType] = []
    for place, (variant, plan) in enumerate(made.plans):
        above = [other for _, other in made.plans[:place]]
        parts += [Text.assemble(("variant ", DIM), (variant, MARK)), console.plan_screen(plan, above), Text()]
    counted = f"{made.trained} stages are trained for {len(made.plans)} variants"
    return Group(*parts, Text(f"{counted}; the gates of every variant's result set the exit code"))


def table_screen(table: Table) -> RenderableType:
    """Each variant's result, then suite by suite its pass rate and how it differs from the first variant's."""
    heads = Grid(box=None, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
    for title in ("variant", "result", "gates"):
        heads.add_column(title, overflow="fold")
    for row in table.rows:
        gated = [cell for cell in row.cells if cell.green is not None]
        sign = Text("no gate", style=DIM) if not gated else Text("✓", style=GOOD)
        if row.red:
            sign = Text(f"✗ {', '.join(row.red)}", style=BAD)
        if row.stopped:
            sign = Text(f"✗ {said(row.stopped)}", style=BAD)
        heads.add_row(Text(row.variant, style=MARK), Text(row.result), sign)
    parts: list[RenderableType] = [
        Text.assemble(("matrix ", MARK), table.recipe),
        Text(),
        heads,
        Text(),
        _suites(table),
    ]
    parts.append(Text(_legend(table), style=DIM))
    red = [f"{row.variant}: {', '.join(row.red) or row.stopped}" for row in table.rows if row.exit_code]
    verdict = "green: exit code 0" if not red else f"red: exit code {table.exit_code} ({said('; '.join(red), 400)})"
    return Group(*parts, Text(), Text(verdict, style=f"bold {BAD if red else GOOD}"))


def _suites(table: Table) -> Grid:
    first = table.rows[0].variant
    grid = Grid(box=None, padding=(0, 1, 0, 0), header_style=DIM, pad_edge=False)
    grid.add_column("", overflow="fold")
    grid.add_column("pass rate", no_wrap=True)
    grid.add_column("", no_wrap=True)
    grid.add_column(Text(f"against {first}"), justify="right", overflow="fold")
    grid.add_column("p", justify="right", no_wrap=True)
    grid.add_column("", no_wrap=True)
    for suite in table.suites:
        grid.add_row(Text(suite, style=MARK))
        for row in table.rows:
            cell = next((cell for cell in row.cells if cell.suite == suite), None)
            if cell is None:
                grid.add_row(Text(f"  {row.variant}"), Text("not asked", style=DIM))
            else:
                grid.add_row(Text(f"  {row.variant}"), *_cells(cell))
    return grid


def _cells(cell: Cell) -> tuple[Text, ...]:
    tally, pair = cell.tally, cell.comparison
    if tally.rate is None:
        rate = Text("none asked", style=DIM)
    else:
        errors = f" {tally.errors}!" if tally.errors else ""
        rate = Text(f"{percent(tally.rate)}{errors} {interval(tally)}")
    gate = Text("" if cell.green is None else "✓" if cell.green else "✗", style=GOOD if cell.green else BAD)
    if pair is None or cell.p is None or not pair.common:
        return rate, gate, Text(""), Text(""), Text(_SIGNS[cell.outcome], style=_STYLES[cell.outcome])
    moved = Text(f"{points(pair.net / pair.common)}  −{len(pair.lost)} +{len(pair.gained)}")
    return rate, gate, moved, Text(chance(cell.p)), Text(_SIGNS[cell.outcome], style=_STYLES[cell.outcome])


def _legend(table: Table) -> str:
    if len(table.rows) < 2:
        return "pass rates with their 95 % Wilson intervals"
    return (
        f"pass rates with their 95 % Wilson intervals; against {table.rows[0].variant}: percentage points, cases lost "
        "and gained, and the paired p of so many in the direction that has more (one-sided, by fact); "
        f"better, worse: beyond chance at {ALPHA:.0%} after Holm over {table.compared} comparisons"
    )
