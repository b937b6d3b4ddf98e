"""`recipe new`: a first recipe with its data and its probe, which run as they are, and the suites that ship."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from runner.errors import UserError
from runner.recipe import project_root
from runner.spec import NAME_PATTERN
from runner.starter.suites import SUITES, chosen, suite_texts

__all__ = ["SUITES", "chosen", "recipe_lines", "write_starter", "write_suites"]


def write_starter(name: str, folder: Path, suites: tuple[str, ...] = ()) -> tuple[Path, ...]:
    """Write `NAME.yaml`, `data/NAME.tsv`, `probes/test_NAME.py` and suites into `folder`; the paths, the recipe first.

    Raises:
        UserError: the name will not do, or a file is there already; then nothing is written.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(f"{name!r} cannot name a recipe", expected="a letter, then letters, digits, _ and -")
    recipe = folder / f"{name}.yaml"
    data = folder / "data" / f"{name}.tsv"
    probe = folder / "probes" / f"test_{name.replace('-', '_')}.py"
    root = project_root(recipe)
    texts = {
        recipe: _template("recipe.yaml").format(
            name=name,
            file=recipe.name,
            data=os.path.relpath(data, root),
            probe=f"{os.path.relpath(probe, root)}::test_symbol",
        ),
        data: _template("elements.tsv"),
        probe: _template("probe.py.txt").format(cases=os.path.relpath(data, probe.parent)),
    }
    copied = suite_texts(suites, folder)
    if probe in copied:
        raise UserError(f"{probe} would be written twice", hint="choose another name; nothing was written")
    return _write({**texts, **copied}, "choose another name; nothing was written")


def write_suites(suites: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
    """Copy these suites with their data into `folder/probes`; the paths, the probes first.

    Raises:
        UserError: a file is there already; then nothing is written.
    """
    return _write(suite_texts(suites, folder), "move it away, or choose other suites; nothing was written")


def recipe_lines(suites: tuple[str, ...], folder: Path) -> list[str]:
    """The entries under `probes:` with which a recipe in `folder` asks these suites."""
    root = project_root(folder / "recipe.yaml")
    return [
        f'{entry}: {{file: "{os.path.relpath(folder / "probes" / probe, root)}"}}'
        for name in suites
        for entry, probe in SUITES[name].entries
    ]


def _write(texts: Mapping[Path, str], otherwise: str) -> tuple[Path, ...]:
    for path in texts:
        if path.exists():
            raise UserError(f"{path} is there already", hint=otherwise)
        if in_the_way := next((folder for folder in path.parents if folder.is_file()), None):
            raise UserError(f"{in_the_way} is a file, and {path} needs a folder there", hint=otherwise)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return tuple(texts)


def _template(name: str) -> str:
    return files("runner.starter").joinpath(name).read_text(encoding="utf-8")
