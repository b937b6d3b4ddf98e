"""Where the rows of a step come from: data set, file and line, for those who look for the row that spoiled it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runner.data.candidates import key
from runner.data.epochs import Epochs, epoch_order
from runner.data.examples import Dataset
from runner.data.pairs import Pair, Preferences

Origins = Callable[[int], Sequence[str]]
"""Of a step, from 0, its rows in words, in the order that they are trained on."""


def of_epochs(epochs: Epochs, batch: int) -> Origins:
    """Of rows that are drawn anew for each epoch.

    Args:
        epochs: the rows.
        batch: of a step.
    """

    def named(step: int) -> list[str]:
        epoch, index = divmod(step, -(-len(epochs) // batch))
        return [_named(data, row) for data, row in epochs.origins(epoch, index * batch, (index + 1) * batch)]

    return named


def of_pairs(sets: Sequence[Dataset], found: Sequence[Preferences], seed: int, batch: int) -> Origins:
    """Of pairs, in the order of `preferred.encoded`.

    Args:
        sets: the data sets.
        found: the pairs of each.
        seed: of their order.
        batch: of a step.
    """
    pairs = [(data, pair) for data, one in zip(sets, found, strict=True) for pair in one.pairs]
    return _ordered(pairs, seed, batch)


def of_prompts(sets: Sequence[Dataset], found: Sequence[Preferences], seed: int, batch: int) -> Origins:
    """Of prompts with all their negatives, in the order of `candidates.gather`; the row of the first is named."""
    first: dict[tuple[object, ...], tuple[Dataset, Pair]] = {}
    for data, one in zip(sets, found, strict=True):
        for pair in one.pairs:
            first.setdefault(key(pair), (data, pair))
    return _ordered(list(first.values()), seed, batch)


def _ordered(rows: Sequence[tuple[Dataset, Pair]], seed: int, batch: int) -> Origins:
    def named(step: int) -> list[str]:
        epoch, index = divmod(step, -(-len(rows) // batch))
        places = epoch_order(len(rows), seed, epoch)[index * batch : (index + 1) * batch]
        return [_named(rows[place][0], rows[place][1].row) for place in places]

    return named


def _named(data: Dataset, row: int) -> str:
    return f"{data.name} {data.where(row)}"
