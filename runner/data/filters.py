"""Which rows of a data set are left out, and why: what `filter:` and `on_bad_row: skip` do, counted."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner import spec, underway
from runner.data.conversations import as_messages
from runner.data.sources import SHOWN_BAD, BadRow, bad_row
from runner.data.texts import BadExample, Example
from runner.errors import BadData

if TYPE_CHECKING:
    from runner.data.layers import Item, Layer


class EmptyText(BadData):
    """A row one of whose texts is empty, or white space only."""


@dataclass(frozen=True)
class Kept:
    """The rows that are left."""

    chosen: Sequence[int]
    """Their positions in the source, ascending."""
    left_out: Mapping[str, int]
    """Rows by the reason why they were left out; reasons without a row are not here."""
    first_bad: tuple[BadRow, ...] = ()
    """What is wrong with the first bad ones."""


def keep(layer: Layer, before: Sequence[int]) -> Kept:
    """The rows of `before` that `layer` uses; it is read once where anything can be left out.

    Raises:
        BadData: a row cannot be written, and `on_bad_row` is `fail`.
    """
    block = layer.block
    writes = layer.shape != "rows"
    if not writes or (block.filter is None and block.on_bad_row == "fail"):
        return Kept(before, {})
    return _Sieve(layer, block.filter or spec.Filter.model_construct()).keep(before)


class _Sieve:
    def __init__(self, layer: Layer, rules: spec.Filter) -> None:
        self._layer, self._rules = layer, rules
        self._count: dict[str, int] = {}
        self._first_bad: list[BadRow] = []
        skips = layer.block.on_bad_row == "skip" and layer.shape != "text"
        self._writing = layer.writing() if skips else None

    def keep(self, before: Sequence[int]) -> Kept:
        chosen, marks = array("Q"), array("Q")
        for position in underway.each(before, f"filtering data.{self._layer.name}"):
            ways = self._ways(self._layer.rows[position])
            if ways is None:
                continue
            chosen.append(position)
            if self._rules.duplicates:
                marks.append(mark(ways))
        if self._rules.duplicates:
            first = first_of_each(marks)
            self._left("duplicate", len(chosen) - len(first))
            chosen = array("Q", (chosen[at] for at in first))
        return Kept(chosen, {why: rows for why, rows in self._count.items() if rows}, tuple(self._first_bad))

    def _ways(self, item: Item) -> Sequence[Example] | None:
        """How a row is written; None where it is left out."""
        try:
            ways = self._layer.variants(item)
            self._check_template(ways, item)
        except EmptyText as error:
            if self._rules.empty:
                self._left("empty", 1)
            else:
                self._bad(error)
            return None
        except BadData as error:
            self._bad(error)
            return None
        least, most = lengths(ways, self._layer.joins)
        if self._rules.min_chars is not None and least < self._rules.min_chars:
            self._left(f"shorter than {self._rules.min_chars:,} characters", 1)
            return None
        if self._rules.max_chars is not None and most > self._rules.max_chars:
            self._left(f"longer than {self._rules.max_chars:,} characters", 1)
            return None
        return ways

    def _check_template(self, ways: Sequence[Example], item: Item) -> None:
        """Whether the chat template can write a row, where bad rows are skipped: what it cannot write is found when
        rows are encoded, too late to leave one out."""
        if self._writing is None:
            return
        try:
            for way in ways:
                if way.messages or way.prompt:
                    self._writing.documents(way.messages or as_messages(way.prompt, way.completion), "all", way.row)
        except BadExample as error:
            raise error.at(self._layer.name, item.where) from error

    def _bad(self, error: BadData) -> None:
        if self._layer.block.on_bad_row == "fail":
            raise error
        self._left("bad", 1)
        if len(self._first_bad) < SHOWN_BAD:
            self._first_bad.append(bad_row(error))

    def _left(self, why: str, rows: int) -> None:
        self._count[why] = self._count.get(why, 0) + rows


def lengths(ways: Sequence[Example], joined: int) -> tuple[int, int]:
    """Characters of a row in its shortest and in its longest way.

    Args:
        joined: how many of the ways are joined by a newline into one document.
    """
    found = sorted(sum(map(len, way.texts)) for way in ways)
    return sum(found[:joined]) + joined - 1, sum(found[-joined:]) + joined - 1


def empty_text(way: Example, *, asks: bool) -> str | None:
    """Which of its texts says nothing but white space, in words; None where none does.

    Args:
        asks: whether the prompt is one of the texts that must say something.
    """
    if way.messages:
        said = enumerate(way.messages, start=1)
        silent = (number for number, turn in said if turn.role in ("user", "assistant") and not turn.content.strip())
        number = next(silent, None)
        return None if number is None else f"turn {number}, the {way.messages[number - 1].role}'s,"
    if asks and not way.prompt.strip():
        return "the prompt"
    if not way.completion.strip():
        return "what is to be said" if asks else "the text"
    return None


def mark(ways: Sequence[Example]) -> int:
    """64 bits that stand for how a row is written."""
    digest = hashlib.blake2b(digest_size=8)
    for way in ways:
        for text in way.texts:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        digest.update(b"\1")
    return int.from_bytes(digest.digest(), "little")


def first_of_each(marks: array[int]) -> array[int]:
    """Where each mark stands for the first time, ascending."""
    import numpy as np

    _, first = np.unique(np.asarray(marks), return_index=True)
    first.sort()
    return array("q", first.astype(np.int64).tobytes())
