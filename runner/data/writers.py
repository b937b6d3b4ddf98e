"""One template of a data set, rendered for a row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from runner.data.sources import Row
from runner.errors import BadData, Where, nearest
from runner.templates import Template, TemplateProblem, compile_template

_BARE = re.compile(r"\{\{-?\s*(?:other\.)?(\w+)\s*-?\}\}")

_LONE = re.compile(r"\{\{ *([A-Za-z_]\w*) *\}\}")
_PLAIN = (str, int, float)
"""Types that a template writes as `str` does, and that are never a mistake."""


def _parts(source: str) -> tuple[list[str], list[str]] | None:
    """The texts of a template around its lone names, and the names; None where there is more to it.

    Most templates are such, and joining them is thirty times faster than rendering.
    """
    pieces = _LONE.split(source)
    texts, names = pieces[::2], pieces[1::2]
    if any(mark in text for text in texts for mark in ("{{", "{%", "{#", "}}")) or "other" in names:
        return None
    return (texts, names) if not set(names) & _CONSTANTS else None


_CONSTANTS = {"true", "false", "none", "True", "False", "None", "self", "super"}


class Writer:
    """One template of a data set."""

    def __init__(self, source: str, label: str) -> None:
        self.source, self._label = source, label
        try:
            self._template: Template = compile_template(source)
        except TemplateProblem as problem:
            raise BadData(f"{label}: {problem}") from problem
        self.draws_other = "other" in self._template.names
        self._bare = [(match[0], match[1], "other." in match[0]) for match in _BARE.finditer(source)]
        self._parts = _parts(source)

    def text(self, values: Mapping[str, Any], row: Row) -> str:
        """The text for `row`, as `write` gives it."""
        found = self._joined(values)
        return self.write(values, row.where) if found is None else found

    def _joined(self, values: Mapping[str, Any]) -> str | None:
        """The text for a row, where that takes no more than joining; None where `write` is to be asked."""
        if self._parts is None:
            return None
        texts, names = self._parts
        if len(names) == 1 and type(value := values.get(names[0])) is str:
            return f"{texts[0]}{value}{texts[1]}"
        found = [texts[0]]
        for name, text in zip(names, texts[1:], strict=True):
            value = values.get(name)
            if type(value) not in _PLAIN:
                return None
            found.append(str(value))
            found.append(text)
        return "".join(found)

    def write(self, values: Mapping[str, Any], where: Where, other: Mapping[str, Any] | None = None) -> str:
        """The text for a row.

        Raises:
            BadData: the template cannot be rendered for this row, or would print an empty value, a list or an object.
        """
        for expression, name, of_other in self._bare:
            seen = other if of_other else values
            value = seen.get(name, "") if seen is not None else ""
            if value is None or isinstance(value, (list, tuple, dict)):
                found = "nothing (null)" if value is None else f"a {type(value).__name__}"
                raise BadData(f"{self._label}: {expression} is {found} in this row", where=where, expected="text")
        if other is not None:
            # a namespace, because a column may be named like a method of dict
            values = {**values, "other": SimpleNamespace(**other)}
        try:
            return self._template.render(values)
        except TemplateProblem as problem:
            raise BadData(f"{self._label}: {problem}", where=where, hint=_hint(str(problem), values)) from problem


def _hint(problem: str, values: Mapping[str, Any]) -> str | None:
    """What a row has, where the problem is that it does not have a name."""
    undefined = re.fullmatch(r"'(\w+)' is undefined", problem)
    if undefined is None:
        return None
    close = nearest(undefined[1], values)
    return f"did you mean {close}?" if close else f"the row has {', '.join(name for name in values if name != 'other')}"
