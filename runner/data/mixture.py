"""Which rows of its data sets an epoch of a stage has: decided by seed and epoch alone, so that a resumed stage goes on
as if it had not ended.

Each source is a stream of passes. A pass has every row once, in an order of its own; an epoch takes the next so many
rows of the stream. So no row comes a second time before all others came once, whatever an epoch takes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runner import spec

Ints = NDArray[np.int64]


def permutation(length: int, key: str) -> Ints:
    """Numbers below `length` in an order that follows from `key`: (length,)."""
    words = np.frombuffer(hashlib.sha256(key.encode()).digest(), "<u4")
    # the legacy generator: numpy promises that its numbers stay the same from version to version (NEP 19)
    return np.random.RandomState(words).permutation(length)


@dataclass(frozen=True)
class Drawn:
    """Rows that an epoch has of a source, and how often each was drawn before; redrawn texts follow from both."""

    positions: Ints
    sights: Ints


class Stream(Protocol):
    """Endless passes over the rows of a source."""

    def __len__(self) -> int:
        """Rows of a pass."""
        ...

    def take(self, start: int, stop: int) -> Drawn:
        """The rows at these places of the stream."""
        ...


class Passes:
    """Every row once in each pass."""

    def __init__(self, rows: int, key: str) -> None:
        self._rows, self._key = rows, key

    def __len__(self) -> int:
        return self._rows

    def take(self, start: int, stop: int) -> Drawn:
        """See `Stream`."""
        return _joined([Drawn(self._order(number)[low:high], np.full(high - low, number, np.int64))
                        for number, low, high in _parts(start, stop, self._rows)])  # fmt: skip

    def _order(self, number: int) -> Ints:
        return permutation(self._rows, f"{self._key}:{number}")


class Balanced:
    """Passes in which each class has as many rows as the largest one: rows of the others come several times.

    Args:
        classes: of each row, what it is counted under.
    """

    def __init__(self, classes: Sequence[Hashable], key: str) -> None:
        members: dict[Hashable, list[int]] = {}
        for position, name in enumerate(classes):
            members.setdefault(name, []).append(position)
        self._largest, self._key = max(map(len, members.values())), key
        self._classes = [
            (np.array(rows, np.int64), Passes(len(rows), f"{key}:{number}"))
            for number, rows in enumerate(members.values())
        ]

    def __len__(self) -> int:
        return self._largest * len(self._classes)

    def take(self, start: int, stop: int) -> Drawn:
        """See `Stream`."""
        return _joined([self._pass(number, low, high) for number, low, high in _parts(start, stop, len(self))])

    def _pass(self, number: int, low: int, high: int) -> Drawn:
        found = []
        for rows, stream in self._classes:
            drawn = stream.take(number * self._largest, (number + 1) * self._largest)
            found.append(Drawn(rows[drawn.positions], drawn.sights))
        whole, order = _joined(found), permutation(len(self), f"{self._key}:pass:{number}")[low:high]
        return Drawn(whole.positions[order], whole.sights[order])


class Buffered:
    """Passes over a few rows that were chosen once."""

    def __init__(self, rows: int, buffer: int, key: str) -> None:
        self._chosen = permutation(rows, f"{key}:buffer")[:buffer]
        self._passes = Passes(len(self._chosen), key)

    def __len__(self) -> int:
        return len(self._chosen)

    def within(self, start: int, stop: int) -> int:
        """How many of the chosen rows are among these."""
        return int(((self._chosen >= start) & (self._chosen < stop)).sum())

    def take(self, start: int, stop: int) -> Drawn:
        """See `Stream`."""
        drawn = self._passes.take(start, stop)
        return Drawn(self._chosen[drawn.positions], drawn.sights)


def _parts(start: int, stop: int, length: int) -> list[tuple[int, int, int]]:
    """The passes that places of a stream lie in: (pass, first place in it, end in it)."""
    numbers = range(start // length, -(-stop // length))
    return [(n, max(start - n * length, 0), min(stop - n * length, length)) for n in numbers]


def _joined(drawn: Sequence[Drawn]) -> Drawn:
    if len(drawn) == 1:
        return drawn[0]
    none = np.zeros(0, np.int64)
    return Drawn(
        np.concatenate([none, *(part.positions for part in drawn)]),
        np.concatenate([none, *(part.sights for part in drawn)]),
    )


# --- how many ---


def rows_per_epoch(available: Mapping[str, int], mix: Mapping[str, spec.Part]) -> dict[str, int]:
    """How many rows of each data set an epoch has; at least one.

    Args:
        available: rows of one pass over each.
        mix: what a stage says of some of them; the others have each row once.
    """
    found = dict(available)
    weights = {name: part.weight for name, part in mix.items() if part.weight is not None}
    for name, part in mix.items():
        if part.rows is not None:
            found[name] = part.rows
        elif part.epochs is not None:
            found[name] = max(math.floor(part.epochs * available[name] + 0.5), 1)
    together = sum(available[name] for name in weights)
    share, before = 0.0, 0
    for name, weight in weights.items():
        share += weight / sum(weights.values())
        until = math.floor(share * together + 0.5)  # of the cumulated shares, so that all add up to `together`
        found[name] = max(until - before, 1)
        before = until
    return found


def replayed_per_epoch(own: int, replay: spec.Replay) -> int:
    """How many rows are replayed in an epoch that has `own` rows of the stage's data; at least one."""
    return max(math.floor(replay.ratio * own + 0.5), 1)
