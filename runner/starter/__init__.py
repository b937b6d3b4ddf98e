"""`recipe new`: a first recipe with its data and its probe, which run as they are, and the suites that ship.

Beside a recipe lies its JSON Schema, `recipe.schema.json`, which the recipe's first line names: an editor with a YAML
language server completes and explains every field without a network. It is made, so one that is there is left alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from runner.errors import UserError
from runner.recipe import project_root, schema
from runner.spec import NAME_PATTERN
from runner.starter.looking import Look, below, look
from runner.starter.proposing import Proposal, propose
from runner.starter.screen import screen
from runner.starter.suites import SUITES, chosen, suite_texts
from runner.starter.wording import probe_text, recipe_text

__all__ = [
    "SUITES", "Look", "Proposal", "chosen", "found_screen", "look", "name_of", "propose", "recipe_lines", "schema_text",
    "write_from_data", "write_starter", "write_suites",
]  # fmt: skip

SCHEMA = "recipe.schema.json"
"""What the first line of a recipe names."""
_FIRST_LINE = f"# yaml-language-server: $schema={SCHEMA}\n"
_OTHER_NAME = "choose another name; nothing was written"
found_screen = screen


def write_starter(name: str, folder: Path, suites: tuple[str, ...] = ()) -> tuple[Path, ...]:
    """Write `NAME.yaml`, `data/NAME.tsv`, `probes/test_NAME.py` and suites into `folder`; the paths, the recipe first.

    Raises:
        UserError: the name will not do, or a file is there already; then nothing is written.
    """
    recipe, probe, root = _places(name, folder)
    data = folder / "data" / f"{name}.tsv"
    texts = {
        recipe: _FIRST_LINE
        + _template("recipe.yaml").format(
            name=name,
            file=recipe.name,
            data=os.path.relpath(data, root),
            probe=f"{os.path.relpath(probe, root)}::test_symbol",
        ),
        data: _template("elements.tsv"),
        probe: _template("probe.py.txt").format(cases=os.path.relpath(data, probe.parent)),
    }
    return _write_recipe(texts, suites, folder)


def write_from_data(
    name: str, found: Look, proposal: Proposal, folder: Path, suites: tuple[str, ...] = ()
) -> tuple[Path, ...]:
    """Write `NAME.yaml`, which trains on the file that was looked at, `probes/test_NAME.py` and suites; as above."""
    recipe, probe, root = _places(name, folder)
    data, asked = below(found.path, root), os.path.relpath(probe, root)
    texts = {
        recipe: _FIRST_LINE + recipe_text(found, proposal, name, recipe.name, data, asked),
        probe: probe_text(proposal),
    }
    return _write_recipe(texts, suites, folder)


def name_of(file: str) -> str:
    """What a recipe for a file is called that was given no name: `my_rows` for `my rows.jsonl.gz`.

    Raises:
        UserError: no name can be made of it.
    """
    stem = re.sub(r"(\.(gz|xz))?$", "", Path(file).name, flags=re.IGNORECASE).rpartition(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(
            f"no name of a recipe can be made of {Path(file).name}",
            expected="a letter, then letters, digits, _ and -",
            hint=f"give one: recipe new NAME --from-data {file}",
        )
    return name


def schema_text() -> str:
    """The JSON Schema of the language, as a file."""
    return json.dumps(schema(), ensure_ascii=False, indent=2) + "\n"


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


def _places(name: str, folder: Path) -> tuple[Path, Path, Path]:
    """Where a recipe and its probe go, and where the recipe's relative paths start."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(f"{name!r} cannot name a recipe", expected="a letter, then letters, digits, _ and -")
    recipe = folder / f"{name}.yaml"
    return recipe, folder / "probes" / f"test_{name.replace('-', '_')}.py", project_root(recipe)


def _write_recipe(texts: Mapping[Path, str], suites: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
    """A recipe and what belongs to it, and its schema where none is there yet."""
    copied = suite_texts(suites, folder)
    if twice := next((path for path in texts if path in copied), None):
        raise UserError(f"{twice} would be written twice", hint=_OTHER_NAME)
    beside = folder / SCHEMA
    return _write({**texts, **copied, **({} if beside.exists() else {beside: schema_text()})}, _OTHER_NAME)


def _write(texts: Mapping[Path, str], otherwise: str) -> tuple[Path, ...]:
    for path in texts:
        if os.path.lexists(path):  # a link that leads nowhere, too: it would be written through
            raise UserError(f"{path} is there already", hint=otherwise)
        if in_the_way := next((folder for folder in path.parents if folder.is_file()), None):
            raise UserError(f"{in_the_way} is a file, and {path} needs a folder there", hint=otherwise)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return tuple(texts)


def _template(name: str) -> str:
    return files("runner.starter").joinpath(name).read_text(encoding="utf-8")
