"""`matrix:`: each variant is the recipe with its overlay laid on, as `extends` lays a recipe on another, and is then a
recipe like any other: it is rendered, validated and checked as a whole, and its faults stand where its lines do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from runner.errors import Problem
from runner.recipe.layers import Layered, assign, dotted, lay
from runner.spec import NAME_PATTERN
from runner.yaml_marks import Path as ValuePath

KEY = "matrix"
_NOT_VARIED = {
    "recipe": "all variants are of one recipe, and its name is that of their folder",
    "extends": "only a recipe extends another",
    KEY: "a variant has no variants",
}


def variants_of(layered: Layered, sets: Sequence[str]) -> dict[str, Layered]:
    """The recipe's variants by name; one without a name where it has no `matrix:`.

    Args:
        layered: the recipe and what it extends, which this changes.
        sets: `a.b=VALUE` assignments. Those into `matrix.` change an overlay, all others every variant.
    """
    inside = [assignment for assignment in sets if _is_inside(assignment)]
    for assignment in inside:
        assign(layered, assignment)
    others = [assignment for assignment in sets if assignment not in inside]
    overlays = _overlays(layered)
    base = _without(layered, KEY)
    made = {}
    for name, path in overlays.items() if overlays else ():
        made[name] = _variant(base, _at(layered, path), others)
    if not overlays:
        for assignment in others:
            assign(base, assignment)
        return {"": base}
    return made


def merged(by_variant: dict[str, tuple[list[Problem], frozenset[tuple[str, int]]]]) -> list[Problem]:
    """The faults of all variants, each once. One that some of them have and others not names them, unless it stands
    in a line of an overlay, which says so itself.

    Args:
        by_variant: of each variant its faults, and the lines (file, number) of its overlay.
    """
    found: dict[Problem, list[str]] = {}
    for name, (problems, _) in by_variant.items():
        for problem in dict.fromkeys(problems):
            found.setdefault(problem, []).append(name)
    told = []
    for problem, names in found.items():
        where = problem.where
        own = any(where and (where.file, where.line) in by_variant[name][1] for name in names)
        if own or len(names) == len(by_variant):
            told.append(problem)
        else:
            word = "variant" if len(names) == 1 else "variants"
            told.append(replace(problem, message=f"{problem.message} (in {word} {', '.join(names)})"))
    return told


def lines_of(layered: Layered, name: str) -> frozenset[tuple[str, int]]:
    """The lines (file, number from 1) on which the overlay of a variant is written."""
    lines: set[tuple[str, int]] = set()
    for path, mark in layered.marks.items():
        if path[:2] == (KEY, name):
            first = mark.key[0] if mark.key else mark.start[0]
            lines |= {(mark.source.file, number + 1) for number in (first, mark.start[0])}
    return frozenset(lines)


def _is_inside(assignment: str) -> bool:
    return re.match(rf"\s*{KEY}\s*[.=]", assignment) is not None


def _overlays(layered: Layered) -> dict[str, ValuePath]:
    """Where the overlay of each variant stands; what is no overlay is reported and left out."""
    block = layered.values.get(KEY)
    if block is None:
        return {}
    expected = "a map of named variants, each a map of what it changes"
    if not isinstance(block, dict):
        _report(layered, "`matrix` is no map", (KEY,), expected, at_key=False)
        return {}
    found: dict[str, ValuePath] = {}
    for name, overlay in block.items():
        path = (KEY, name)
        if not isinstance(name, str) or not re.match(NAME_PATTERN, name):
            _report(layered, f"`{name}` is not a name", path, "a letter, then letters, digits, _ and -")
        elif not isinstance(overlay, dict):
            hint = f"one that changes nothing is written {name}: {{}}"
            _report(layered, f"`{dotted(path)}` is no map", path, "a map of what the variant changes", hint)
        elif same := next((other for other in found if other.lower() == name.lower()), None):
            hint = "their folders would be one where file names have no case"
            _report(layered, f"`{name}` and `{same}` differ only in case", path, None, hint)
        else:
            for key in [key for key in overlay if key in _NOT_VARIED]:
                _report(layered, f"a variant cannot change `{key}`", (*path, key), None, _NOT_VARIED[key])
                del overlay[key]
            found[name] = path
    return found


def _report(
    layered: Layered, message: str, path: ValuePath, expected: str | None, hint: str | None = None, at_key: bool = True
) -> None:
    mark = layered.mark(path)
    layered.problems.append(Problem(message, mark.at_key() if at_key else mark.at_value(), expected, hint))


def _without(layered: Layered, key: str) -> Layered:
    values = {name: value for name, value in layered.values.items() if name != key}
    marks = {path: mark for path, mark in layered.marks.items() if path[:1] != (key,)}
    return Layered(values, marks, layered.problems)


def _at(layered: Layered, path: ValuePath) -> Layered:
    """The block at `path` as a recipe of its own."""
    values: Any = layered.values
    for part in path:
        values = values[part]
    depth = len(path)
    return Layered(values, {at[depth:]: mark for at, mark in layered.marks.items() if at[:depth] == path})


def _variant(base: Layered, overlay: Layered, sets: Sequence[str]) -> Layered:
    made = Layered(deepcopy(base.values), dict(base.marks), list(base.problems))
    whole = made.marks[()]
    lay(made, Layered(deepcopy(overlay.values), overlay.marks), "the recipe")
    made.marks[()] = whole
    for assignment in sets:
        assign(made, assignment)
    return made
