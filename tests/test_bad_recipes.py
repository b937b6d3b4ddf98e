"""Sixty and more bad recipes, each beside the exact screen it gives.

`# <-- here` marks the guilty lines of a recipe. Where none can stand (a block scalar, a data file, a `--set`, something
missing from the whole file) the last line names the place: `# here: data/broken.jsonl:2`. `# set: a.b=c` in the first
lines are `--set` arguments. After a change of wording, `REGENERATE=1 pytest tests/test_bad_recipes.py` writes the
screens anew: read every one of them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from runner.check import load_checked
from runner.errors import BadRecipe, Where

FOLDER = Path(__file__).parent / "bad_recipes"
RECIPES = sorted(FOLDER.glob("[0-9]*.yaml"))


def refused(path: Path) -> BadRecipe:
    """The error that the recipe gives, seen from its own folder."""
    sets = re.findall(r"^# set: (.*)$", path.read_text("utf-8"), re.MULTILINE)
    with pytest.raises(BadRecipe) as caught:
        load_checked(path.name, sets, root=FOLDER)
    return caught.value


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_bad_recipe_gives_exactly_its_screen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    screen = refused(path).screen().replace(str(FOLDER), "ROOT") + "\n"
    beside = path.with_suffix(".txt")
    if os.environ.get("REGENERATE"):
        beside.write_text(screen, "utf-8")
    assert screen == beside.read_text("utf-8")


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_every_guilty_line_is_named_and_no_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    lines = path.read_text("utf-8").splitlines()
    guilty = {f"{path.name}:{number}" for number, line in enumerate(lines, 1) if line.endswith("# <-- here")}
    guilty |= {line.removeprefix("# here: ") for line in lines if line.startswith("# here: ")}
    places = [problem.where for problem in refused(path).problems]
    assert {str(Where(place.file, place.line)) for place in places if place} == guilty
    assert None not in places


def test_there_are_enough_of_them() -> None:
    assert len(RECIPES) >= 65
    assert not {path.stem for path in FOLDER.glob("[0-9]*.txt")} - {path.stem for path in RECIPES}
