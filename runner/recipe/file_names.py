"""Texts where a recipe names files, and that no file system has as a name: refused before anything looks there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from runner.errors import Problem

if TYPE_CHECKING:
    from runner.recipe.layers import Layered

_NAMES_FILES = frozenset(
    {"path", "file", "from", "tokenizer", "chat_template", "deepspeed", "checkpoint", "baseline", "sample"}
)
"""Keys whose texts are looked for as files or folders, some of them only where they are no reference to a stage."""
_LONGEST_NAME, _LONGEST_PATH = 255, 4096  # bytes: NAME_MAX and PATH_MAX of limits.h
NAMES = f"names of at most {_LONGEST_NAME} bytes, {_LONGEST_PATH} with all folders, without a null character"
"""What can be one."""


def cannot_be_a_path(text: str) -> bool:
    """Whether the system refuses to look for it."""
    written = text.encode("utf-8", "surrogatepass")
    too_long = len(written) >= _LONGEST_PATH or max(map(len, written.split(b"/"))) > _LONGEST_NAME
    return too_long or b"\0" in written


def problems_of_paths(layered: Layered) -> list[Problem]:
    """One for every such text in the values of a recipe."""
    return [
        Problem("no file can have this name", layered.mark(path).at_value(), NAMES)
        for path, text in _texts(layered.values, ())
        if cannot_be_a_path(text)
    ]


def _texts(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What names files, with where it stands."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _texts(below, (*path, key))
    elif isinstance(value, list):
        for place, below in enumerate(value):
            yield from _texts(below, (*path, place))
    elif isinstance(value, str) and any(key in _NAMES_FILES for key in path):
        yield path, value
