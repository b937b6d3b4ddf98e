"""The cases of a probe: rows from a file or from Python, with ids that are found again at every checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from runner import spec
from runner.asking import Case, case_id
from runner.data import sources
from runner.errors import BadData, BadProbe


@cache
def from_file(folder: Path, name: str) -> tuple[Case, ...]:
    """The cases of a data file.

    Args:
        folder: where a relative name starts.
        name: a file or a glob.

    Raises:
        BadProbe: the file cannot be read, has no rows, or two of them have one id.
    """
    try:
        table = sources.read(spec.Data(path=name), "cases", folder)
    except BadData as error:
        # said of a data set of a recipe; here it is the file that a probe names
        problems = (replace(found, message=found.message.removeprefix("data.cases: ")) for found in error.problems)
        raise BadProbe([replace(found, message=f"cases: {found.message}") for found in problems]) from error
    return numbered([row.values for row in table.rows], os.path.normpath(folder / name))


def numbered(rows: Sequence[Mapping[str, Any]], source: str) -> tuple[Case, ...]:
    """Cases with their ids, which must differ: a case's verdicts are found again by its id.

    Args:
        source: the file that they come from, or that they stand in.

    Raises:
        BadProbe: there are none, or two have one id, or the id of one is no text and no number.
    """
    if not rows:
        raise BadProbe(
            f"{source}: there are no cases",
            expected="at least one row",
            hint="a generator gives its rows once: make it a list where two probes share it",
        )
    found: dict[str, int] = {}
    cases = []
    for number, row in enumerate(rows, 1):
        try:
            name = case_id(row)
        except BadProbe as error:
            raise BadProbe(
                [replace(one, message=f"{source}: row {number}: {one.message}") for one in error.problems]
            ) from None
        if name in found:
            same = "are the same" if dict(row) == dict(rows[found[name] - 1]) else f"share the id {name}"
            raise BadProbe(f"{source}: rows {found[name]} and {number} {same}", expected="distinct cases")
        found[name] = number
        cases.append(Case(name, row))
    return tuple(cases)
