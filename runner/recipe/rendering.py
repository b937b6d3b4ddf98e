"""`vars` into the strings of a recipe: everything but the templates of data rows is rendered once, at load."""

from __future__ import annotations

import re
from typing import Any

from runner.errors import Problem, Where
from runner.recipe.layers import Layered, did_you_mean
from runner.spec import ROW_TEMPLATES
from runner.templates import TemplateProblem, compile_template, render_value
from runner.yaml_marks import Mark, Path


def render(layered: Layered) -> None:
    """Renders the strings of `layered` in place; what cannot be rendered stays, and is reported in its problems."""
    variables: dict[str, Any] = {}
    declared = layered.values.get("vars")
    if isinstance(declared, dict):
        for name in declared:  # one by one: a variable may use those above it
            declared[name] = _render(layered, declared[name], ("vars", name), variables)
            variables[name] = declared[name]
    for key, value in layered.values.items():
        if key != "vars":
            layered.values[key] = _render(layered, value, (key,), variables)


def _render(layered: Layered, value: Any, path: Path, variables: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        for key in value:
            value[key] = _render(layered, value[key], (*path, key), variables)
    elif isinstance(value, list):
        for index in range(len(value)):
            value[index] = _render(layered, value[index], (*path, index), variables)
    elif isinstance(value, str) and "{" in value:
        if is_row_template(path):
            _check_syntax(layered, value, path)
        else:
            return _render_string(layered, value, path, variables)
    return value


def is_row_template(path: Path) -> bool:
    """Whether the string at `path` is rendered once per row."""
    names = [part for part in path if isinstance(part, str)]
    if len(names) < 3 or names[0] != "data":
        return False
    if names[2:] in (["messages", "content"], ["rejected", "repeat"]):
        return True
    if names[-1] not in ROW_TEMPLATES:
        return False
    return len(names) == 3 or (len(names) == 4 and names[2] == "pick") or names[2:4] == ["pick", "of"]


def _check_syntax(layered: Layered, source: str, path: Path) -> None:
    try:
        compile_template(source)
    except TemplateProblem as error:
        where = _fault(layered.mark(path), str(error))
        message = f"not a template: {str(error).rstrip('.')}"
        layered.problems.append(Problem(message, where, "Jinja, for example {{ char }}"))


def _fault(mark: Mark, message: str) -> Where:
    """What the message quotes, where it is a word of the template; else the template."""
    quoted = re.search(r"'(\w+)'", message)
    return mark.within(quoted[1]) if quoted else mark.at_value()


def _render_string(layered: Layered, source: str, path: Path, variables: dict[str, Any]) -> Any:
    try:
        return render_value(source, variables)
    except TemplateProblem as error:
        unknown = re.match(r"'(\w+)' is undefined", str(error))
        mark = layered.mark(path)
        if unknown is None:
            problem = Problem(
                f"not a template: {error}",
                _fault(mark, str(error)),
                "Jinja, for example {{ name }} with `vars: {name: …}`",
            )
        else:
            name = unknown[1]
            known = f"there are: {', '.join(variables)}" if variables else "the recipe has no `vars:`"
            hint = did_you_mean(name, variables) or known
            problem = Problem(f"`{name}` is not in `vars`", mark.within(name), "the name of a variable", hint)
        layered.problems.append(problem)
        return source
