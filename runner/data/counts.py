"""What the rows of a stage come to: counted over all its steps, as the plan shows it and the run then does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Source:
    """What one data set is of a stage."""

    name: str
    replayed: bool
    available: int
    """Rows that it is drawn from; of a replayed one, no more than the buffer has."""
    per_epoch: float
    """Of its rows; the mean over the epochs, where they differ."""
    passes: float
    """How often the whole stage goes through it."""
    rows: float
    """Share of all rows of the stage; of tokens, where documents are wrapped."""
    supervised: float
    """Share of all supervised tokens."""


@dataclass(frozen=True)
class Counts:
    """What the tokenizer made of the rows of a stage, summed over all its steps."""

    rows: int
    """Pairs, for dpo."""
    tokens: int
    supervised: int
    """Tokens that the loss sees (with full weight)."""
    truncated: int
    """Rows that lost a part."""
    dropped: int
    """Rows without anything left to supervise. They keep their place in the batch and add nothing to the loss."""
    unknown: int
    """Tokens that are `<unk>`."""
    left_out: int = 0
    """Examples of all epochs that were too long and became no row (`truncation: drop`)."""
    pieces: int = 0
    """Examples of all epochs that were too long and became several rows (`truncation: chunk`)."""
    sources: tuple[Source, ...] = ()
    """The data sets, where rows come from more than one or not each once in an epoch."""


class Total:
    """Sums over epochs: of all rows, and of each part."""

    def __init__(self, parts: int) -> None:
        self.rows = np.zeros(6, np.int64)  # as in Tally
        self.cut = np.zeros(2, np.int64)
        self.examples = np.zeros(parts)
        self.of_parts = np.zeros((parts, 3), np.int64)

    def counts(self, sources: tuple[Source, ...]) -> Counts:
        """The sums as the plan has them."""
        rows, tokens, supervised, truncated, dropped, unknown = self.rows.tolist()
        left_out, pieces = self.cut.tolist()
        return Counts(rows, tokens, supervised, truncated, dropped, unknown, left_out, pieces, sources)
