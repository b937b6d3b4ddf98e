"""Pages of the documentation that are made from the code: the language out of the spec, the commands out of click.

The third, about pytest, is in `reference_pytest`.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import reference_pytest
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from runner import spec
from runner.cli import cli

REFERENCE = Path(__file__).parent / "reference"
"""Written anew with every build, and no part of the repository."""


def write() -> None:
    """The language out of the spec, the commands out of the command line, what pytest is given."""
    REFERENCE.mkdir(exist_ok=True)
    for name, lines in (("language", language()), ("commands", commands()), ("pytest", reference_pytest.page())):
        path, text = REFERENCE / f"{name}.md", "\n".join(lines) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def language() -> Iterator[str]:
    """Every block of the recipe language, the recipe's own first."""
    yield from ("# The recipe language", "", "Made from `runner/spec`, where each field is documented.", "")
    blocks = {name: found for name, found in vars(spec).items() if inspect.isclass(found)}
    blocks = {name: one for name, one in blocks.items() if issubclass(one, spec.Block) and one is not spec.Block}
    order = ["Recipe", "Model", "Data", "Stage", "Causal"]
    for name in [*order, *sorted(blocks.keys() - set(order))]:
        block = blocks[name]
        yield from (f"## {name}", "", *inspect.cleandoc(block.__doc__ or "").splitlines(), "")
        above = [base.__name__ for base in block.__mro__[1:] if base.__name__ in blocks]
        if above:
            yield from (
                f"It also takes every field of {', '.join(f'[{base}](#{base.lower()})' for base in above)}.",
                "",
            )
        inherited = {field for base in above for field in blocks[base].model_fields}
        for field, info in block.model_fields.items():
            if field not in inherited or field == "kind":
                yield from _field(info.alias or field, info)


def _field(name: str, info: FieldInfo) -> Iterator[str]:
    about = ", ".join(filter(None, (f"*{_type(info.annotation)}*", _limits(info), _default(info))))
    yield f"`{name}`"
    yield f": {about}. {' '.join((info.description or '').split())}"
    yield ""


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined and info.default_factory is None:
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, spec.Block):
        return "default: the defaults of its keys"
    return f"default `{_word(value)}`" if value not in ((), {}) else "default: none"


def _limits(info: FieldInfo) -> str:
    """Bounds of a number."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [(word, getattr(limit, name, None)) for limit in info.metadata for name, word in words.items()]
    return " and ".join(f"{word} {value:,}" for word, value in found if value is not None)


def _word(value: object) -> str:
    """As YAML writes it."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _type(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inside[0])
    if origin is Literal:
        return " or ".join(f"`{_word(value)}`" for value in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(one) for one in inside if one is not types.NoneType))
    if origin in (tuple, list):
        return f"list of {_type(inside[0])}"
    if origin is dict:
        return f"map of names to {_type(inside[1])}"
    words = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}
    if annotation in words:
        return words[annotation]
    name = getattr(annotation, "__name__", str(annotation))
    return f"[{name}](#{name.lower()})"


def commands() -> Iterator[str]:
    """Every command's help, as the command line prints it."""
    yield from ("# The command line", "")
    root = click.Context(cli, info_name="recipe")
    yield from ("```text", *cli.get_help(root).splitlines(), "```", "")
    for name, command in sorted(cli.commands.items()):
        text = command.get_help(click.Context(command, info_name=name, parent=root))
        yield from (f"## recipe {name}", "", "```text", *text.splitlines(), "```", "")
