"""Where a text repeats itself, for a reader's eye. The measures that gates use are those of `runner.repetition`."""

from __future__ import annotations

from collections.abc import Iterator

LENGTH = 8
"""Characters that must have stood before, in the same order, to count as said again: shorter ones are grammar."""


def spans(text: str, length: int = LENGTH) -> Iterator[tuple[str, bool]]:
    """The text in parts that follow each other, each with whether it stood in the text before."""
    again = bytearray(len(text))
    seen: set[str] = set()
    for start in range(len(text) - length + 1):
        gram = text[start : start + length]
        if gram in seen:
            again[start : start + length] = b"\x01" * length
        seen.add(gram)
    start = 0
    for place in range(1, len(text) + 1):
        if place == len(text) or again[place] != again[start]:
            yield text[start:place], bool(again[start])
            start = place
