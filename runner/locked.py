"""`recipe run --locked`: whether recipe, data and installed versions are those that a run was made with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner import recipe
from runner.errors import BadRecipe, Problem, UserError
from runner.folder import RunRecord, read_run

_MOST = 12
"""Keys of a recipe that are named."""


def check(run: Path, now: RunRecord, values: Mapping[str, Any]) -> None:
    """Refuse what differs from what `run.json` records.

    Args:
        now: what it would say now.
        values: the resolved recipe.

    Raises:
        UserError: with everything that differs; nothing was written.
    """
    if not (run / "run.json").exists():
        raise UserError(
            f"{run} holds no run that could be locked to",
            expected="run.json and recipe.yaml of a run",
            hint="run once without --locked",
        )
    before = read_run(run)
    found = [*_recipe(run, before, now, values), *_data(before, now), *_versions(before, now)]
    if found:
        hint = "run without --locked to accept what is new; nothing was written"
        raise UserError([*found[:-1], Problem(found[-1].message, None, found[-1].expected, hint)])


def _versions(before: RunRecord, now: RunRecord) -> Iterator[Problem]:
    for name in sorted(before.versions.keys() | now.versions.keys()):
        was, found = before.versions.get(name), now.versions.get(name)
        if was != found:
            yield Problem(f"--locked: {name} is {found or 'not recorded'}", None, f"{was or 'none'}, as in run.json")


def _data(before: RunRecord, now: RunRecord) -> Iterator[Problem]:
    for name in sorted(before.data.keys() | now.data.keys()):
        was, found = before.data.get(name), now.data.get(name)
        if was == found:
            continue
        what = "the tokenizer" if name == "tokenizer" else f"data {name}"
        if was is None or found is None:
            yield Problem(f"--locked: {what} is {'new' if was is None else 'gone'}", None, "the data in run.json")
        else:
            yield Problem(f"--locked: {what} differs", None, f"digest {was[:12]}, as in run.json; it is {found[:12]}")


def _recipe(run: Path, before: RunRecord, now: RunRecord, values: Mapping[str, Any]) -> Iterator[Problem]:
    if before.recipe_sha256 == now.recipe_sha256:
        return
    expected = "the recipe of the run"
    try:
        was = recipe.load(run / "recipe.yaml", root=Path(now.project_root)).values
    except BadRecipe:
        yield Problem("--locked: the recipe differs", None, expected)
        return
    keys = [key for key in differing(was, values) if key.partition(".")[0] != "launch"]  # where it is trained
    if not keys:  # the same values in another order, or a file of an older format without a digest
        if before.recipe_sha256:
            yield Problem("--locked: the recipe's keys are in another order", None, expected)
        return
    more = f" and {len(keys) - _MOST} more" if len(keys) > _MOST else ""
    yield Problem(f"--locked: the recipe differs in {', '.join(keys[:_MOST])}{more}", None, expected)


def differing(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """The dotted paths at which two recipes differ, in the order of the first."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys(itertools.chain(before, now)):
            here = f"{path}.{key}" if path else str(key)
            if key in before and key in now:
                yield from differing(before[key], now[key], here)
            else:
                yield here
    elif before != now:
        yield path
