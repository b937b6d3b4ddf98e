"""A recipe file → `Recipe`, or every fault of it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from runner.errors import BadRecipe, Problem
from runner.recipe.file_names import problems_of_paths
from runner.recipe.layers import Layered, project_root, read_layers
from runner.recipe.references import check_references
from runner.recipe.rendering import is_row_template, render
from runner.recipe.scaling import Scaled, tiny
from runner.recipe.variants import lines_of, variants_of
from runner.recipe.wording import problems_of
from runner.spec import Data, Recipe
from runner.yaml_marks import Mark, Marks, typed
from runner.yaml_marks import Path as ValuePath


@dataclass(frozen=True)
class Loaded:
    """A recipe that can be trusted."""

    spec: Recipe
    path: Path
    root: Path
    """The folder that relative paths start at."""
    values: Mapping[str, Any]
    """What the recipe says after `extends`, `matrix`, `--set` and `vars`, as plain values."""
    marks: Marks
    variant: str = ""
    """Which variant of its `matrix:` it is; empty where it has none."""
    scaled: Scaled | None = None
    """How it was cut down for a rehearsal (`--scale`); None where it is as it is written, or was cut down before."""
    rehearsal: bool = False
    """Whether it was cut down, now or before."""

    def mark(self, *path: str | int) -> Mark:
        """Where a value is written, or the nearest block around it that is written down."""
        while path not in self.marks:
            path = path[:-1]
        return self.marks[path]


@dataclass(frozen=True)
class Draft:
    """A recipe as far as it can be understood, with everything that is wrong with it."""

    spec: Recipe | None
    path: Path
    root: Path
    values: Mapping[str, Any]
    marks: Marks
    data: Mapping[str, Data]
    """The data sets whose own block is right."""
    problems: tuple[Problem, ...]
    """In the order of their lines."""
    variant: str = ""
    """Which variant of its `matrix:` it is; empty where it has none."""
    overlay: frozenset[tuple[str, int]] = frozenset()
    """The lines, as file and number, on which the variant's own changes are written."""
    scaled: Scaled | None = None
    """How it was cut down for a rehearsal (`--scale`)."""

    def layered(self) -> Layered:
        """The values and marks, to find positions with."""
        return Layered(dict(self.values), self.marks)


def drafts(
    path: str | Path, sets: Sequence[str] = (), root: Path | None = None, files: bool = True, scale: str | None = None
) -> tuple[Draft, ...]:
    """Reads the recipe at `path` and collects every fault that can be found without looking at data files.

    `sets` are `a.b=VALUE` assignments of the command line; `root` is where relative paths start; `files` also looks
    whether the probe files and folders that the recipe names exist; `scale` cuts it down (see `scaling`).

    Returns:
        One draft; with `matrix:` one per variant, in the order written.
    """
    path = Path(path)
    root = root or project_root(path)
    try:
        layered = read_layers(path, root)
    except BadRecipe as error:
        return (Draft(None, path, root, {}, {}, {}, error.problems),)
    found = variants_of(layered, sets)
    return tuple(_draft(one, path, root, files, name, lines_of(layered, name), scale) for name, one in found.items())


def _draft(
    layered: Layered,
    path: Path,
    root: Path,
    files: bool,
    variant: str,
    overlay: frozenset[tuple[str, int]],
    scale: str | None,
) -> Draft:
    render(layered)
    if unusable := problems_of_paths(layered):  # whatever looks there would fail
        problems = _ordered([*layered.problems, *unusable], path)
        return Draft(None, path, root, layered.values, layered.marks, {}, problems, variant, overlay)
    recipe: Recipe | None = None
    scaled: Scaled | None = None
    try:
        recipe = Recipe.model_validate(layered.values)
        # only what is right is cut down: what is wrong with a recipe is wrong with it at any size
        if scale is not None and not layered.problems and not check_references(_anywhere(layered), root, files=False):
            scaled = tiny(layered, recipe, root)
            recipe = Recipe.model_validate(layered.values)
        data: dict[str, Data] = dict(recipe.data)
    except ValidationError as error:
        layered.problems += [
            problem for problem in problems_of(error, layered) if not _follows(problem, layered.problems)
        ]
        data = _valid_data(layered.values)
    layered.problems += check_references(layered, root, files)
    problems = _ordered(layered.problems, path)
    valid = None if problems else recipe
    return Draft(valid, path, root, layered.values, layered.marks, data, problems, variant, overlay, scaled)


def _anywhere(layered: Layered) -> Layered:
    """A recipe without what it says of the machines that train it."""
    return Layered({key: value for key, value in layered.values.items() if key != "launch"}, layered.marks)


def load(path: str | Path, sets: Sequence[str] = (), root: Path | None = None) -> Loaded:
    """The recipe at `path`, judged by itself: whether the files it names exist is asked by `runner.check`. Of one with
    `matrix:` it is the first variant; a run's own recipe has none.

    Raises:
        BadRecipe: with every fault of the file.
    """
    found = drafts(path, sets, root, files=False)[0]
    if found.spec is None:
        raise BadRecipe(found.problems)
    return loaded(found, found.spec)


def loaded(found: Draft, made: Recipe) -> Loaded:
    """A draft without faults as a recipe that can be trusted; `made` is its spec."""
    return Loaded(
        made, found.path, found.root, found.values, found.marks, found.variant, found.scaled, found.scaled is not None
    )


def dump(loaded: Loaded) -> str:
    """The resolved recipe as YAML; loading it gives an equal spec."""
    return yaml.dump(_unrendered(dict(loaded.values)), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10**9)


class _Dumper(yaml.SafeDumper):
    """Writes what `yaml_marks` reads: text that would be read as another type, `2e-5`, is quoted."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """A string, quoted where it would be read as something else or PyYAML wants it."""
        node = super().represent_str(data)
        if node.style is None and (not data or data.isascii()) and typed(data) != data:
            node.style = "'"
        return node

    def ignore_aliases(self, _data: object) -> bool:
        """A value that stands twice is written twice."""
        return True


_Dumper.add_representer(str, _Dumper.represent_str)


def _unrendered(value: Any, path: ValuePath = ()) -> Any:
    """A copy in which what a template gave is not taken for a template when it is read again."""
    if isinstance(value, dict):
        return {key: _unrendered(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_unrendered(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, str) and not is_row_template(path) and any(mark in value for mark in ("{{", "{%", "{#")):
        return "{% raw %}" + value + "{% endraw %}"
    return value


def _valid_data(values: Mapping[str, Any]) -> dict[str, Data]:
    blocks = values.get("data")
    valid: dict[str, Data] = {}
    for name, block in blocks.items() if isinstance(blocks, dict) else ():
        try:
            valid[name] = Data.model_validate(block)
        except ValidationError:
            continue  # reported with the whole recipe
    return valid


def _follows(problem: Problem, earlier: Sequence[Problem]) -> bool:
    """Whether an earlier fault lies inside this one's place: what could not be rendered is no number either."""
    here = problem.where
    return here is not None and any(
        (there.file, there.line) == (here.file, here.line)
        and (here.column or 0) <= (there.column or 0) < (here.column or 0) + here.length
        for there in (other.where for other in earlier)
        if there is not None and there.line is not None
    )


def _ordered(problems: Sequence[Problem], path: Path) -> tuple[Problem, ...]:
    """Once each, in the order of their places: this file, then what it extends, then `--set`."""

    def place(problem: Problem) -> tuple[int, str, int, int]:
        where = problem.where
        if where is None:
            return (0, "", 0, 0)
        rank = 0 if where.file == str(path) else 2 if where.file.startswith("--set ") else 1
        return (rank, where.file, where.line or 0, where.column or 0)

    return tuple(sorted(dict.fromkeys(problems), key=place))
