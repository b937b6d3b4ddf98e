"""The named formats of rows: which columns each has, and how it is recognised from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

FormatName = Literal["alpaca", "sharegpt", "messages", "preference", "text"]


@dataclass(frozen=True)
class RowFormat:
    """What the rows of a named format look like, and what is made of them."""

    needs: tuple[tuple[str, ...], ...]
    """Of each inner tuple the rows have one column; the first is the usual name."""
    may_have: tuple[str, ...]
    """Columns that are used where they are there."""
    writes: tuple[str, ...]
    """The fields that its rows have besides their columns."""


ROW_FORMATS: Mapping[FormatName, RowFormat] = {
    "preference": RowFormat((("chosen",), ("rejected",)), ("prompt", "messages", "conversations"), ("prompt",)),
    "messages": RowFormat((("messages",),), ("system",), ("messages", "prompt", "completion")),
    "sharegpt": RowFormat((("conversations", "conversation"),), ("system",), ("messages", "prompt", "completion")),
    "alpaca": RowFormat((("instruction",), ("output",)), ("input", "system", "history"), ("prompt", "completion")),
    "text": RowFormat((("text",),), (), ()),
}
"""In the order in which they are looked for: rows of a preference may have `messages` as well."""


def recognise(columns: Collection[str]) -> FormatName | None:
    """The format of rows with these columns; None where they are of none, or need none because they are named `prompt`
    and `completion`."""
    if {"prompt", "completion"} <= set(columns):
        return None
    return next((name for name in ROW_FORMATS if not missing(name, columns)), None)


def missing(name: FormatName, columns: Collection[str]) -> tuple[str, ...]:
    """The columns, by their usual names, that rows of a format have and these have not."""
    return tuple(choices[0] for choices in ROW_FORMATS[name].needs if not set(choices) & set(columns))
