"""What was found, as a terminal shows it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from runner import tables
from runner.errors import printable
from runner.verifying.findings import Finding, Verified


def screen(found: Verified, where: Path) -> RenderableType:
    """Every finding, and how much is whole.

    Args:
        found: what was looked at.
        where: the working folder, from which paths are shown.
    """
    lines = [line for one in sorted(found.findings, key=lambda one: not one.is_damage) for line in _lines(one, where)]
    amount = (
        f"{_count(found.checkpoints, 'checkpoint')} ({found.size_bytes / 1e6:,.1f} MB), "
        f"{_count(found.verdict_files, 'verdict file')}"
    )
    place = printable(os.path.relpath(found.folder, where))
    if damages := len(found.damages):
        lines.append(Text(f"{place}: {damages} damaged; the rest is whole: of {amount}", style=tables.BAD))
    else:
        lines.append(Text(f"{place}: whole. {amount}", style=tables.GOOD))
    return Group(*lines)


def _lines(one: Finding, where: Path) -> Sequence[Text]:
    mark, style = ("✗", tables.BAD) if one.is_damage else ("·", tables.DIM)
    said = [Text(printable(f"{mark} {os.path.relpath(one.path, where)}: {one.found}"), style=style)]
    said += [Text(printable(f"    expected: {one.expected}"))] if one.expected else []
    said += [Text(printable(f"    hint: {one.hint}"))] if one.hint else []
    return said


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
