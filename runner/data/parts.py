"""The data sets of a stage as stores of token ids: each text is encoded once, whatever epochs draw from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from runner import underway
from runner.data.examples import Dataset, Example
from runner.data.mixture import Drawn, Ints
from runner.data.token_store import Kept, TokenStore
from runner.data.tokenizer import Fast
from runner.data.tokens import Encoding, encode

_BATCH_EXAMPLES, _BATCH_CHARS = 1000, 2**22
"""Examples are encoded so many at a time, fewer where they are long."""


@dataclass(frozen=True)
class Shelf:
    """How texts become stores, and where those are kept."""

    tokenizer: Fast
    how: Encoding
    kept: Kept | None = None

    def key(self, ref: str, drawn: str = "") -> str:
        """Under which a store is kept; empty where none is."""
        return self.kept.key(ref, self.tokenizer, self.how, drawn) if self.kept is not None else ""

    def opened(self, key: str) -> TokenStore | None:
        """The store that is kept under a key, if it is."""
        return self.kept.open(key, self.tokenizer.unknown_id) if self.kept is not None else None

    def begun(self, key: str) -> TokenStore:
        """An empty store, which `finished` keeps where stores are written."""
        if self.kept is not None and self.kept.writes:
            return self.kept.begin(key, self.tokenizer.unknown_id)
        return TokenStore.empty(self.tokenizer.unknown_id)

    def finished(self, key: str, store: TokenStore) -> None:
        """Keep a store that was begun."""
        if self.kept is not None and self.kept.writes:
            self.kept.publish(key, store)

    def fill(self, store: TokenStore, dataset: Dataset, examples: Iterable[Example], number: int) -> None:
        """Encode examples of a data set into a store.

        Args:
            number: how many they are.

        Raises:
            BadData: one cannot be written by the chat template.
        """
        for batch in _batches(underway.each(examples, f"tokenizing {dataset.name}", number, "texts")):
            with dataset.placing():
                store.append(encode(self.tokenizer, batch, self.how))


@dataclass(frozen=True)
class Expanded:
    """The rows that drawn examples became."""

    rows: Ints
    """Numbers of rows of the store, in the order of the examples."""
    left_out: int
    """Examples that became none."""
    pieces: int
    """Examples that became several."""


class WholePart:
    """A data set whose every text is in its store: each row as it is, or in all the ways it can be written."""

    def __init__(self, dataset: Dataset, shelf: Shelf) -> None:
        self._dataset, self._shelf = dataset, shelf
        self._ways = len(dataset.variants(0)) if dataset.redrawn else 1
        self._store: TokenStore | None = None
        self.key = shelf.key(dataset.name)

    def store_of(self, epoch: int, drawn: Drawn) -> TokenStore:
        """The store that `rows` refers to."""
        if self._store is None:
            self._store = self._shelf.opened(self.key)
        if self._store is None:
            store = self._shelf.begun(self.key)
            self._shelf.fill(store, self._dataset, self._examples(), len(self._dataset) * self._ways)
            self._shelf.finished(self.key, store)
            self._store = store
        return self._store

    def rows(self, epoch: int, drawn: Drawn) -> Expanded:
        """The rows of what an epoch drew."""
        store = self.store_of(epoch, drawn)
        if not self._dataset.redrawn:
            return expanded(store, drawn.positions)
        choose = self._dataset.drawn
        pairs = zip(drawn.positions.tolist(), drawn.sights.tolist(), strict=True)
        ways = np.fromiter((choose(*pair)[0] for pair in pairs), np.int64, len(drawn.positions))
        return expanded(store, drawn.positions * self._ways + ways)

    def finish(self) -> None:
        """Nothing: what it has was kept when it was made."""

    def _examples(self) -> Iterator[Example]:
        for position in range(len(self._dataset)):
            yield from self._dataset.variants(position)


class JoinedPart:
    """A data set whose documents are joined of several texts: there are too many ways, so what each epoch draws is
    encoded by itself.

    Args:
        drawing: says how epochs draw from it, for the key of its store.
        per_epoch: examples of an epoch; None where that differs, and nothing is kept.
    """

    def __init__(self, dataset: Dataset, shelf: Shelf, drawing: str, per_epoch: int | None) -> None:
        self._dataset, self._per_epoch = dataset, per_epoch
        self._shelf = shelf if per_epoch is not None else Shelf(shelf.tokenizer, shelf.how)
        self.key = self._shelf.key(dataset.name, drawing)
        self._kept = self._shelf.opened(self.key)
        """Epochs from the first on, one after the other."""
        self._made: TokenStore | None = None
        self._first: dict[int, int] = {}
        """Epoch → its first group in the store that was made."""

    def store_of(self, epoch: int, drawn: Drawn) -> TokenStore:
        """The store that `rows` of this epoch refers to."""
        wanted = (epoch + 1) * (self._per_epoch or 0)
        if self._kept is not None and wanted < len(self._kept.groups):
            return self._kept
        if self._made is None:
            lasting = self._kept is None  # what is kept already is not written a second time
            self._made = self._shelf.begun(self.key) if lasting else TokenStore.empty(self._shelf.tokenizer.unknown_id)
        if epoch not in self._first:
            self._first[epoch] = len(self._made.groups) - 1
            pairs = zip(drawn.positions.tolist(), drawn.sights.tolist(), strict=True)
            examples = (self._dataset.example(*pair) for pair in pairs)
            self._shelf.fill(self._made, self._dataset, examples, len(drawn.positions))
        return self._made

    def rows(self, epoch: int, drawn: Drawn) -> Expanded:
        """The rows of what an epoch drew."""
        store = self.store_of(epoch, drawn)
        first = self._first[epoch] if store is self._made else epoch * len(drawn.positions)
        return expanded(store, np.arange(first, first + len(drawn.positions), dtype=np.int64))

    def finish(self) -> None:
        """Keep the epochs that were made, where they are the first ones and nothing is kept yet."""
        in_order = list(self._first) == list(range(len(self._first)))
        writes = self._shelf.kept is not None and self._shelf.kept.writes
        if writes and self._kept is None and self._made is not None and in_order:
            self._shelf.finished(self.key, self._made)
            # from now on it is read only: later epochs go elsewhere
            self._kept, self._made, self._first = self._shelf.opened(self.key), None, {}


def expanded(store: TokenStore, groups: Ints) -> Expanded:
    """The rows of groups of a store, one after the other."""
    first = store.groups[groups]
    counts = store.groups[groups + 1] - first
    if (counts == 1).all():
        return Expanded(first, 0, 0)
    before = np.cumsum(counts) - counts
    rows = np.repeat(first - before, counts) + np.arange(int(counts.sum()))
    return Expanded(rows, int((counts == 0).sum()), int((counts > 1).sum()))


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    batch: list[Example] = []
    chars = 0
    for example in examples:
        batch.append(example)
        chars += len(example.prompt) + len(example.completion) + sum(len(turn.content) for turn in example.messages)
        if len(batch) == _BATCH_EXAMPLES or chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
