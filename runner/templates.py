"""The one template language of recipes and probes: sandboxed Jinja (`sandbox`) in which an undefined name is an error.

Two uses. Strings of a recipe are rendered once, at load, with its `vars` (`render_value`); the texts of a data set and
the prompts of probes are compiled once and rendered per row (`compile_template`). Nothing random is reachable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta, nodes

from runner.sandbox import COMPILING, FAILURES, Sandbox, reason

_ENVIRONMENT = Sandbox(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
_ENVIRONMENT.filters.pop("random")
_WHOLE = re.compile(r"^\s*\{\{(?P<expression>(?:(?!\}\}).)*)\}\}\s*$", re.DOTALL)


class TemplateProblem(ValueError):
    """A template that cannot be compiled or rendered; the message is one line for the user."""


@dataclass(frozen=True)
class Template:
    """A compiled template: the names it needs, and how to render it."""

    source: str
    names: frozenset[str]
    """Names it takes from its row, `other` included where it is used."""
    attributes: Mapping[str, frozenset[str]]
    """Attributes it takes of each name: `{"other": {"radical"}}`."""
    _compiled: jinja2.Template

    def render(self, values: Mapping[str, Any]) -> str:
        """The text for one row.

        Raises:
            TemplateProblem: a name is undefined, it takes more than a template may, or rendering fails in another way.
        """
        try:
            return _ENVIRONMENT.render(self._compiled, dict(values))
        except (jinja2.TemplateError, *FAILURES) as error:
            raise TemplateProblem(reason(error)) from error


@lru_cache(maxsize=4096)
def compile_template(source: str) -> Template:
    """Compile `source`.

    Raises:
        TemplateProblem: its syntax is wrong, or it is too long.
    """
    attributes: dict[str, set[str]] = {}
    try:
        tree = _ENVIRONMENT.parse(source)
        for node in tree.find_all(nodes.Getattr):
            if isinstance(node.node, nodes.Name):
                attributes.setdefault(node.node.name, set()).add(node.attr)
        names = frozenset(meta.find_undeclared_variables(tree))
        compiled = _ENVIRONMENT.compiled(tree)
    except (jinja2.TemplateError, *COMPILING) as error:
        raise TemplateProblem(reason(error)) from error
    return Template(source, names, {name: frozenset(found) for name, found in attributes.items()}, compiled)


def render_value(source: str, values: Mapping[str, Any]) -> object:
    """`source` rendered with `values`; where it is wholly one `{{ … }}`, the value itself, with its type.

    Raises:
        TemplateProblem: as above.
    """
    if "{" not in source:
        return source
    whole = _WHOLE.match(source)
    if whole is None:
        return compile_template(source).render(values)
    try:
        value = _ENVIRONMENT.evaluate(whole["expression"], values)
    except (jinja2.TemplateError, *COMPILING, *FAILURES) as error:
        raise TemplateProblem(reason(error)) from error
    if isinstance(value, jinja2.Undefined):
        raise TemplateProblem(f"'{whole['expression'].strip()}' is undefined")
    return value
