"""Files of negatives, `{file: …}`: jsonl with `prompt` and `rejected`, which is a text or a list of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.data.texts import Message
from runner.errors import BadData, Where


@dataclass(frozen=True)
class NegativeFile:
    """What a file says against each prompt."""

    path: str
    rejected: Mapping[str, tuple[str, ...]]
    """By `key`; texts in the order of the lines."""


def key(prompt: str, messages: Sequence[Message]) -> str:
    """How a row is found: by its prompt; a conversation by what was asked last. Blanks at the ends do not count."""
    return (messages[-1].content if messages else prompt).strip()


def digest(path: str, root: Path) -> str:
    """sha256 of a file of negatives. Raises BadData where it is not there."""
    return hashlib.sha256(_find(path, root).read_bytes()).hexdigest()


def read(path: str, root: Path) -> NegativeFile:
    """The negatives of a file.

    Raises:
        BadData: it is not there, or a line is not an object with `prompt` and `rejected`.
    """
    file = _find(path, root)
    found: dict[str, list[str]] = {}
    with file.open(encoding="utf-8") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    prompt, rejected = _row(line, Where(path, number))
                    found.setdefault(key(prompt, ()), []).extend(rejected)
        except UnicodeDecodeError as error:
            raise BadData(f"{path} is not UTF-8: {error.reason}", where=Where(path)) from error
    return NegativeFile(path, {prompt: tuple(texts) for prompt, texts in found.items()})


def _row(line: str, where: Where) -> tuple[str, list[str]]:
    expected = '{"prompt": "…", "rejected": "…"}, or a list of texts as rejected'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadData(f"this line is not JSON: {error}", where=where, expected=expected) from error
    prompt, rejected = (row.get("prompt"), row.get("rejected")) if isinstance(row, dict) else (None, None)
    if not isinstance(prompt, str):
        raise BadData("this line has no prompt", where=where, expected=expected)
    if rejected is None or not isinstance(rejected, (str, list)):
        raise BadData("this line has no rejected", where=where, expected=expected)
    # what is no text becomes one, and is dropped as such: `None`, a list in a list
    return prompt, [str(text) for text in (rejected if isinstance(rejected, list) else [rejected])]


def _find(path: str, root: Path) -> Path:
    file = root / path
    if not file.is_file():
        raise BadData(f"there is no file {path}", expected="a jsonl file, from the project's root")
    return file
