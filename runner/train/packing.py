"""Packing: which rows of a step share a sequence, and how they are laid out so that little is padding. Pure numbers."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

_MOST_PADDING = 0.12
"""Of a group's longest row: a row that would need more gets a group of its own length. More groups are more calls of
attention, of which each has a price of its own."""
_ANY_PADDING = 16
"""Tokens that are padded in any case; very short rows would make too many groups."""


class Layout(Enum):
    """How rows lie in the tensors of a micro-batch; in all of them a row's positions begin at 0."""

    GROUPED = "grouped"
    """(1, N): rows of about one length beside each other, padded to it, so that attention takes each group as a plain
    causal batch; everything else sees one sequence without a gap."""
    FLAT = "flat"
    """(1, N): one row after the other, nothing is padding; attention finds the rows by their positions."""
    MASKED = "masked"
    """(S, L): sequences of one length, in each of which a mask keeps the rows apart."""


NOTHING = 2
"""Tokens of the sequence of a process for which no row is left: it must call the model as often as the others."""


@dataclass(frozen=True)
class Place:
    """Where a row lies in a sequence."""

    row: int
    """Which one of the rows that were given; -1 for padding."""
    length: int
    """Tokens, its padding included."""


def bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows by sequence, each of at most `capacity` tokens: the longest first, each into the sequence that it fills best
    (best-fit decreasing: at most 11/9 of the fewest possible, plus 4; Johnson 1973)."""
    found: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, sequence), ascending
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        place = bisect_left(room, (lengths[row], 0))
        if place < len(room):
            left, number = room.pop(place)
        else:
            left, number = capacity, len(found)
            found.append([])
        found[number].append(row)
        insort(room, (left - lengths[row], number))
    return found


def sequences(
    lengths: Sequence[int], layout: Layout, at_once: int, index: int = 0, of: int = 1
) -> Iterator[list[list[Place]]]:
    """The micro-batches of a step that one process has, each a list of sequences; all processes have as many.

    Args:
        lengths: tokens of each row of the whole step.
        layout: how they are to lie.
        at_once: sequences of a micro-batch, of which each has at most as many tokens as the longest row.
        index: of the process, from 0.
        of: processes.
    """
    longest = max(lengths)
    packed = bins(lengths, longest)
    for start in range(0, len(packed), at_once * of):
        for_all = packed[start : start + at_once * of]
        some = for_all[len(for_all) * index // of : len(for_all) * (index + 1) // of]
        if not some:
            yield [[Place(-1, NOTHING)]]
            continue
        if layout is Layout.MASKED:
            width = max(sum(lengths[row] for row in members) for members in some)
            yield [_filled([Place(row, lengths[row]) for row in members], width) for members in some]
            continue
        rows = sorted((row for members in some for row in members), key=lambda row: (-lengths[row], row))
        yield [_grouped(rows, lengths) if layout is Layout.GROUPED else [Place(row, lengths[row]) for row in rows]]


def _filled(places: list[Place], width: int) -> list[Place]:
    left = width - sum(place.length for place in places)
    return [*places, Place(-1, left)] if left else places


def _grouped(rows: Sequence[int], lengths: Sequence[int]) -> list[Place]:
    """Rows, the longest first, each padded to the length of its group's first."""
    places: list[Place] = []
    width = 0
    for row in rows:
        if lengths[row] < min(width * (1 - _MOST_PADDING), width - _ANY_PADDING) or not places:
            width = lengths[row]
        places.append(Place(row, width))
    return places
