"""What a data set holds: documents, prompts with completions, or pairs; and its splits. The rules are those of
`runner.data.layers`, on plain blocks, so that they also serve a recipe with other faults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from runner.spec.row_formats import ROW_FORMATS, FormatName, recognise

Shape = Literal["text", "prompt", "messages", "pairs", "rows"]
Blocks = Mapping[str, Mapping[str, Any]]

WRITTEN = ("text", "prompt", "completion", "chosen", "system")
"""Templates that write a field of a row, which data sets made from it can use."""


def chain(blocks: Blocks, name: str) -> list[str]:
    """The data set and those that its `rows` lead to, nearest first; it ends where a name is unknown or comes again."""
    found: list[str] = []
    while name in blocks and name not in found:
        found.append(name)
        name = str(blocks[name].get("rows", "")).partition(".")[0]
    return found


def splits_of(blocks: Blocks, name: str) -> tuple[str, ...] | None:
    """The splits of a data set, its own or those of the rows it is made from; None where its rows lead nowhere."""
    source = name
    for source in chain(blocks, name):
        split = blocks[source].get("split")
        if isinstance(split, dict):
            return tuple(key for key in split if key != "by")
    return () if "path" in blocks.get(source, {}) else None


def written_by(block: Mapping[str, Any]) -> frozenset[str]:
    """The fields that a block's own templates and `columns` give to its rows."""
    columns = block.get("columns")
    named = columns if isinstance(columns, dict) else {}
    turns = {"messages", "prompt", "completion"} if block.get("messages") is not None else set()
    return frozenset({key for key in WRITTEN if block.get(key) is not None} | turns | set(named))


def writes(block: Mapping[str, Any]) -> bool:
    """Whether a block's own templates say what is asked and said."""
    return any(block.get(key) is not None for key in ("text", "prompt", "completion", "messages", "pick"))


def fields_of(blocks: Blocks, names: Iterable[str], columns: Iterable[str] | None = None) -> frozenset[str]:
    """The fields that the templates of these data sets, and the format of their files, give to the rows.

    Args:
        columns: those of the files, where they are known.
    """
    found: set[str] = set()
    for name in names:
        found |= written_by(blocks[name])
        if (format_name := format_of(blocks[name], columns)) is not None:
            found |= set(ROW_FORMATS[format_name].writes)
    return frozenset(found)


def format_of(block: Mapping[str, Any], columns: Iterable[str] | None = None) -> FormatName | None:
    """The named format that a block's own files are read as: declared, or recognised from `columns`."""
    if "path" not in block:
        return None
    declared = block.get("format")
    if declared is not None or columns is None or writes(block):
        return next((name for name in ROW_FORMATS if name == declared), None)
    return recognise(set(columns) | written_by(block))


def shape_of(blocks: Blocks, name: str, columns: Iterable[str] | None = None) -> Shape | None:
    """What `name` holds; None where that depends on `columns` of its file which are not known."""
    names = chain(blocks, name)
    if not names:
        return None
    block = blocks[name]
    pick = block.get("pick")
    if isinstance(pick, dict):
        choices = pick.get("of")
        first = choices[0] if isinstance(choices, list) and choices else None
        return None if not isinstance(first, dict) else "text" if "text" in first else "prompt"
    if block.get("text") is not None:
        return "text"
    if not writes(block) and not {"chosen", "rejected", "columns"} & block.keys() and len(names) > 1:
        return shape_of(blocks, names[1], columns)
    if any("rejected" in blocks[source] for source in names):
        return "pairs"
    if block.get("messages") is not None:
        return "messages"
    if (format_name := format_of(block, columns)) is not None:
        return _SHAPES[format_name]
    fields = fields_of(blocks, names, columns) | set(columns or ())
    if "rejected" in fields:
        return "pairs"
    if {"prompt", "completion"} <= fields:
        return "prompt"
    return "text" if "text" in fields else "rows" if columns is not None else None


_SHAPES: Mapping[FormatName, Shape] = {
    "alpaca": "prompt", "sharegpt": "messages", "messages": "messages", "preference": "pairs", "text": "text",
}  # fmt: skip
