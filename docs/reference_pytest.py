"""The page about pytest, made from the code: options, fixtures, the decorator, replies, verdicts, the environment."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest

from runner import Case, Reply, probe, verdicts
from runner.asking import Decoding
from runner.probing import fixtures, plugin, refusals, store


def page() -> Iterator[str]:
    """All of it."""
    yield from ("# pytest", "", "Made from the code. How to use it: [writing probes](../probes.md).", "")
    yield from ("## Options", "", "`pytest … --ckpt PATH`, and", "")
    yield from options()
    yield from ("## The decorator", "", "`@probe(…)`, with `from runner import probe`; every argument by its name.", "")
    yield from arguments()
    yield from ("## Fixtures", "", "Beside all those of pytest, a probe takes by name", "")
    yield from fixtures_of_probes()
    yield from (
        "The plugin registers no marker: `-m` selects by your own, and `skip`, `xfail`, `parametrize` and",
        "`usefixtures` work on probes as on any test.",
        "",
    )
    for title, record in (
        ("A case", Case),
        ("A reply", Reply),
        ("Decoding", Decoding),
        ("A verdict", verdicts.Verdict),
        ("A suite in a verdict file", verdicts.SuiteAsked),
    ):
        yield from (f"## {title}", "", *inspect.cleandoc(record.__doc__ or "").splitlines(), "")
        yield from attributes(record)
    yield from ("A verdict file is JSON lines: what it is, then a row per suite, then a row per verdict.", "")
    yield from environment()


def options() -> Iterator[str]:
    """Every option of the plugin, as it registers them."""
    found = _Registered()
    plugin.pytest_addoption(cast(pytest.Parser, found))
    for name, settings in found.options:
        choices = "|".join(settings.get("choices", ()))
        shown = " ".join(filter(None, (name, settings.get("metavar") or choices)))
        default = settings.get("default")
        notes = [settings["help"]]
        if settings.get("action") == "append" and "repeatable" not in settings["help"]:
            notes.append("repeatable")
        if default not in (None, [], False) and "default" not in settings["help"]:
            notes.append(f"default: `{default}`")
        yield from entry(shown, _sentence("; ".join(notes)))


class _Registered:
    """Stands where the plugin expects pytest's parser, and keeps what is registered."""

    def __init__(self) -> None:
        self.options: list[tuple[str, dict[str, Any]]] = []

    def getgroup(self, name: str, description: str = "") -> _Registered:
        """The one group that there is."""
        return self

    def addoption(self, name: str, **settings: Any) -> None:
        """Keep it."""
        self.options.append((name, settings))


def arguments() -> Iterator[str]:
    """Of the decorator: each with its default and what its docstring says."""
    text = inspect.getdoc(probe) or ""
    said = text.partition("Args:\n")[2].partition("\n\n")[0]
    described = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", said, re.MULTILINE))
    for name, parameter in inspect.signature(probe).parameters.items():
        yield from entry(f"{name}={parameter.default!r}", _sentence(described[name]))


def fixtures_of_probes() -> Iterator[str]:
    """Name and docstring of each."""
    for node in ast.walk(ast.parse(inspect.getsource(fixtures.Fixtures))):
        if not isinstance(node, ast.FunctionDef):
            continue
        names = [
            word.value.value
            for mark in node.decorator_list
            if isinstance(mark, ast.Call)
            for word in mark.keywords
            if word.arg == "name" and isinstance(word.value, ast.Constant)
        ]
        yield from (line for name in names for line in entry(str(name), ast.get_docstring(node) or ""))


def attributes(record: type) -> Iterator[str]:
    """Of a class: each documented attribute with its type and default."""
    (definition,) = ast.parse(inspect.getsource(record)).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            is_plain = field.value is not None and not isinstance(field.value, ast.Call)
            default = f", default `{ast.unparse(field.value)}`" if field.value is not None and is_plain else ""
            about = f"*{ast.unparse(field.annotation)}*{default}. {_sentence(str(below.value.value))}"
            yield from entry(ast.unparse(field.target), about)


def environment() -> Iterator[str]:
    """The variables that probing reads."""
    yield from ("## Environment", "")
    yield from entry(f"${store.PLACE}", "File of the [reply store](../store.md), or `off`.")
    yield from entry(f"${store.BOUND}", f"How many MiB it may grow to, default `{store.DEFAULT_BOUND_MIB}`.")
    yield from entry(f"${refusals.KEY}", "The key for the server of `--probe-endpoint`; it is read from nowhere else.")


def entry(name: str, text: str) -> tuple[str, str, str]:
    """One of a list of definitions."""
    return (f"`{name}`", f": {' '.join(text.split())}", "")


def _sentence(text: str) -> str:
    """Its first letter large, unless it is code; a full stop at its end."""
    text = " ".join(text.split())
    return text[0].upper() + text[1:].rstrip(".") + "."
