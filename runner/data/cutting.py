"""Cutting: a document that is too long loses an end, is left out, or becomes several rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

Truncation = Literal["keep_start", "keep_end", "drop", "chunk"]
Spans = tuple[tuple[int, int], ...]
"""Ranges [start, stop) of ids, ascending and disjoint."""


def cut(
    ids: list[int], spans: Spans, longest: int, how: Truncation, overlap: int, prefix: int
) -> Iterator[tuple[list[int], Spans, bool]]:
    """The rows that a document becomes: ids, what of them is supervised, and whether a part was cut off.

    Args:
        ids: of the document.
        spans: what of it is supervised.
        longest: tokens of a row.
        how: what becomes of more.
        overlap: of a chunk with the one before it; what is repeated is not supervised again.
        prefix: ids at the beginning that stay where the beginning is cut off, such as a BOS.
    """
    if len(ids) <= longest:
        yield ids, spans, False
    elif how == "keep_start":
        yield ids[:longest], _within(spans, 0, longest), True
    elif how == "keep_end":
        start = len(ids) - longest + prefix
        yield ids[:prefix] + ids[start:], _moved(_within(spans, start, len(ids)), prefix), True
    elif how == "chunk":
        for start in range(0, len(ids), longest - overlap):
            again = overlap if start else 0
            kept = _moved(_within(spans, start + again, start + longest), again)
            if kept:  # a chunk of the prompt alone would teach nothing, as one that only repeats
                yield ids[start : start + longest], kept, False


def _within(spans: Sequence[tuple[int, int]], start: int, stop: int) -> Spans:
    """The parts of ranges that lie in [start, stop), counted from `start`."""
    parts = ((max(first, start) - start, min(last, stop) - start) for first, last in spans)
    return tuple((first, last) for first, last in parts if first < last)


def _moved(spans: Spans, by: int) -> Spans:
    return tuple((first + by, last + by) for first, last in spans)
