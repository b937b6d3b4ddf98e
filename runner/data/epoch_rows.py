"""The rows of one epoch, in the order they are trained on: read when they are asked for, counted without being read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from runner.data.mixture import Ints
from runner.data.token_store import TokenStore
from runner.data.tokens import Tokens

_STORE_BITS = 40
"""A row's number in its store takes the lower bits of a reference, the number of the store the others."""
_BLOCK = 2**20
"""Rows that are counted at a time."""


def references(store: int, rows: Ints) -> Ints:
    """Rows of a store as numbers that say which store they are in: (rows,)."""
    return rows | (store << _STORE_BITS)


@dataclass(frozen=True)
class Tally:
    """What rows hold, summed."""

    rows: int
    tokens: int
    supervised: int
    truncated: int
    dropped: int
    """Rows without anything to supervise."""
    unknown: int
    by_store: NDArray[Any]
    """Rows (wrapped: documents), tokens and supervised tokens of each store: (stores, 3)."""


class Rows(Sequence[Tokens], ABC):
    """What an epoch is to those who train on it: a sequence that can be counted without being read."""

    @overload
    def __getitem__(self, index: int) -> Tokens: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tokens]: ...
    def __getitem__(self, index: int | slice) -> Tokens | list[Tokens]:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.take([index % len(self)])[0]

    @abstractmethod
    def take(self, places: Sequence[int]) -> list[Tokens]:
        """The rows at these places; cheaper than one after the other."""

    @abstractmethod
    def tokens_in(self, start: int, stop: int) -> tuple[int, int]:
        """Tokens of rows start to stop, and how many of them are supervised."""

    @abstractmethod
    def origins(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The store, and the row of its source, of all that rows start to stop are made of, in their order."""

    @abstractmethod
    def tally(self, start: int, stop: int) -> Tally:
        """Everything of rows start to stop."""


class StoredRows(Rows):
    """Rows as the stores hold them."""

    def __init__(self, stores: Sequence[TokenStore], refs: Ints) -> None:
        self._stores, self._refs = stores, refs

    def __len__(self) -> int:
        return len(self._refs)

    def take(self, places: Sequence[int]) -> list[Tokens]:
        """See `Rows`."""
        refs = self._refs[np.asarray(places, np.int64)]
        found: list[Tokens | None] = [None] * len(refs)
        numbers = refs >> _STORE_BITS
        for number, store in enumerate(self._stores):
            mine = np.flatnonzero(numbers == number)
            rows = store.take(refs[mine] & (1 << _STORE_BITS) - 1) if len(mine) else ()
            for place, row in zip(mine.tolist(), rows, strict=True):
                found[place] = row
        return [row for row in found if row is not None]

    def tokens_in(self, start: int, stop: int) -> tuple[int, int]:
        """See `Rows`."""
        tokens = supervised = 0
        for _, store, rows in _by_store(self._stores, self._refs[start:stop]):
            tokens += int((store.offsets[rows + 1] - store.offsets[rows]).sum())
            supervised += int(store.measured("supervised")[rows].sum())
        return tokens, supervised

    def origins(self, start: int, stop: int) -> list[tuple[int, int]]:
        """See `Rows`."""
        found = [divmod(ref, 1 << _STORE_BITS) for ref in self._refs[start:stop].tolist()]
        return [(store, int(self._stores[store].measured("rows")[row])) for store, row in found]

    def tally(self, start: int, stop: int) -> Tally:
        """See `Rows`."""
        found = np.zeros((len(self._stores), 6), np.int64)
        for low in range(start, stop, _BLOCK):
            for number, store, rows in _by_store(self._stores, self._refs[low : min(low + _BLOCK, stop)]):
                supervised = store.measured("supervised")[rows]
                found[number] += (
                    len(rows),
                    (store.offsets[rows + 1] - store.offsets[rows]).sum(),
                    supervised.sum(),
                    store.measured("truncated")[rows].sum(),
                    (supervised == 0).sum(),
                    store.measured("unknown")[rows].sum(),
                )
        rows, tokens, supervised, truncated, dropped, unknown = found.sum(axis=0).tolist()
        return Tally(rows, tokens, supervised, truncated, dropped, unknown, found[:, :3])


@dataclass(frozen=True)
class Segment:
    """What a document is of a row that documents run through."""

    store: int
    """The number of its store."""
    row: int
    """Of its source."""
    start: int
    """Where its ids begin in the store."""
    tokens: int
    begins: bool
    """Whether the document begins here; else it goes on from the row before."""
    ends: bool


class WrappedRows(Rows):
    """Rows of exactly `length` tokens, through which the documents of an epoch run on; every token is supervised.

    What is left at the end and fills no row is left out, each epoch something else. An epoch that has fewer rows than
    it is to have begins again at its first one.

    Args:
        refs: the documents, in the order they follow each other.
        rows: how many rows the epoch is to have; as many as it fills, where that is not given.
    """

    def __init__(self, stores: Sequence[TokenStore], refs: Ints, length: int, rows: int | None = None) -> None:
        self._stores, self._refs, self._length = stores, refs, length
        lengths = np.zeros(len(refs), np.int64)
        for number, store in enumerate(stores):
            mine = refs >> _STORE_BITS == number
            rows_of = refs[mine] & (1 << _STORE_BITS) - 1
            lengths[mine] = store.offsets[rows_of + 1] - store.offsets[rows_of]
        self._ends = np.cumsum(lengths)  # (documents,)
        self._filled = int(self._ends[-1]) // length if len(refs) else 0
        self._rows = self._filled if rows is None or not self._filled else rows

    def __len__(self) -> int:
        return self._rows

    def take(self, places: Sequence[int]) -> list[Tokens]:
        """See `Rows`."""
        return [self._row(place) for place in places]

    def _row(self, place: int) -> Tokens:
        segments, ids = self.segments(place), list[int]()
        for segment in segments:
            ids += self._stores[segment.store].ids(segment.start, segment.start + segment.tokens).tolist()
        return Tokens(ids, ((0, self._length),), segments[0].row)

    def segments(self, place: int) -> list[Segment]:
        """The documents, or the parts of them, that the row at this place is made of."""
        found, at = list[Segment](), place % self._filled * self._length
        end_of_row, document = at + self._length, int(np.searchsorted(self._ends, at, "right"))
        while at < end_of_row:
            store, begin, row = self._document(document)
            end = int(self._ends[document])
            stop, before = min(end, end_of_row), end - self._size(document)
            found.append(Segment(store, row, begin + at - before, stop - at, at == before, stop == end))
            at, document = stop, document + 1
        return found

    def tokens_in(self, start: int, stop: int) -> tuple[int, int]:
        """See `Rows`."""
        rows = max(min(stop, len(self)) - start, 0)
        return rows * self._length, rows * (self._length - 1)

    def origins(self, start: int, stop: int) -> list[tuple[int, int]]:
        """See `Rows`."""
        places = range(start, min(stop, len(self)))
        return [(part.store, part.row) for place in places for part in self.segments(place)]

    def tally(self, start: int, stop: int) -> Tally:
        """See `Rows`."""
        found, unknown = np.zeros((len(self._stores), 3), np.int64), 0
        place = start
        while place < stop:  # once around the documents at a time
            low = place % self._filled
            high = min(low + stop - place, self._filled)
            after, before = self._before(high * self._length), self._before(low * self._length)
            found += after[0] - before[0]
            unknown += after[1] - before[1]
            place += high - low
        tokens, supervised = self.tokens_in(start, stop)
        return Tally(stop - start, tokens, supervised, 0, 0, unknown, found)

    def _before(self, place: int) -> tuple[Ints, int]:
        """Documents, tokens and tokens again of each store before a place, and how many are unknown."""
        whole = int(np.searchsorted(self._ends, place, "right"))
        found, unknown = np.zeros((len(self._stores), 3), np.int64), 0
        for number, store, rows in _by_store(self._stores, self._refs[:whole]):
            tokens = (store.offsets[rows + 1] - store.offsets[rows]).sum()
            found[number] += (len(rows), tokens, tokens)
            unknown += int(store.measured("unknown")[rows].sum())
        inside = place - int(self._ends[whole - 1] if whole else 0)
        if inside:
            number, begin, _ = self._document(whole)
            found[number] += (1, inside, inside)
            unknown += self._stores[number].unknown_in(begin, begin + inside)
        return found, unknown

    def _document(self, number: int) -> tuple[int, int, int]:
        """The number of its store, where its ids begin there, and the row of its source."""
        ref = int(self._refs[number])
        store, row = self._stores[ref >> _STORE_BITS], ref & (1 << _STORE_BITS) - 1
        return ref >> _STORE_BITS, int(store.offsets[row]), int(store.measured("rows")[row])

    def _size(self, number: int) -> int:
        return int(self._ends[number]) - int(self._ends[number - 1] if number else 0)


def _by_store(stores: Sequence[TokenStore], refs: Ints) -> Iterator[tuple[int, TokenStore, Ints]]:
    """The references of each store that has some, as numbers of its rows."""
    if len(stores) == 1:
        yield 0, stores[0], refs
        return
    numbers = refs >> _STORE_BITS
    for number, store in enumerate(stores):
        mine = refs[numbers == number] & (1 << _STORE_BITS) - 1
        if len(mine):
            yield number, store, mine
