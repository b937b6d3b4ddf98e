"""`recipe new`: a first recipe with its data and its probe, which run as they are."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path

from runner.errors import UserError
from runner.recipe import project_root
from runner.spec import NAME_PATTERN


def write_starter(name: str, folder: Path) -> tuple[Path, ...]:
    """Write `NAME.yaml`, `data/NAME.tsv` and `probes/test_NAME.py` into `folder`; the paths, the recipe first.

    Raises:
        UserError: the name will not do, or a file is there already; then nothing is written.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(f"{name!r} cannot name a recipe", expected="a letter, then letters, digits, _ and -")
    recipe = folder / f"{name}.yaml"
    data = folder / "data" / f"{name}.tsv"
    probe = folder / "probes" / f"test_{name.replace('-', '_')}.py"
    for path in (recipe, data, probe):
        if path.exists():
            raise UserError(f"{path} is there already", hint="choose another name; nothing was written")
    here = files("runner.starter")
    root = project_root(recipe)
    texts = {
        recipe: _template("recipe.yaml").format(
            name=name,
            file=recipe.name,
            data=os.path.relpath(data, root),
            probe=f"{os.path.relpath(probe, root)}::test_symbol",
        ),
        data: here.joinpath("elements.tsv").read_text(encoding="utf-8"),
        probe: _template("probe.py.txt").format(cases=os.path.relpath(data, probe.parent)),
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return recipe, data, probe


def _template(name: str) -> str:
    return files("runner.starter").joinpath(name).read_text(encoding="utf-8")
