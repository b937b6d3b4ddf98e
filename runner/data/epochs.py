"""The rows of each epoch as token ids: redrawn from (seed, row, epoch), shuffled from (seed, epoch), and counted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from runner.data.examples import Dataset, Example, Pair
from runner.data.tokens import Fast, PairTokens, Tokens, encode, encode_pairs


@dataclass(frozen=True)
class Counts:
    """What the tokenizer made of the rows of a stage, summed over all its steps."""

    rows: int
    """Pairs, for dpo."""
    tokens: int
    supervised: int
    """Tokens that the loss sees (with full weight)."""
    truncated: int
    """Rows that lost their end."""
    dropped: int
    """Rows without anything left to supervise. They keep their place in the batch and add nothing to the loss."""
    unknown: int
    """Tokens that are `<unk>`."""


class Epochs:
    """Data sets, shuffled together, as the epochs that a stage trains on: every row once in each."""

    def __init__(
        self, datasets: Sequence[Dataset], tokenizer: Fast, seed: int, max_length: int, *, whole: bool = False
    ) -> None:
        """Nothing is written or tokenised yet.

        Args:
            whole: prompts are supervised like completions, as `pretrain` does.
        """
        self._tokenizer, self._seed, self._max_length, self._whole = tokenizer, seed, max_length, whole
        self._parts = [_Part(dataset, self) for dataset in datasets]

    def __len__(self) -> int:
        return sum(len(part.dataset) for part in self._parts)

    def epoch(self, epoch: int) -> list[Tokens]:
        """The rows of an epoch (from 0), in the order they are trained on."""
        rows = [row for part in self._parts for row in part.rows(epoch)]
        return [rows[index] for index in epoch_order(len(rows), self._seed, epoch)]

    def counts(self, global_batch_size: int, total_steps: int) -> Counts:
        """Counts over so many steps, each of `global_batch_size` rows but the last of an epoch."""
        whole, rest = divmod(total_steps, -(-len(self) // global_batch_size))
        # without a pick every epoch has the same rows: one is counted for all
        redrawn = any(part.dataset.redrawn for part in self._parts)
        found = [self._count(self.epoch(epoch)) for epoch in range(whole if redrawn else min(whole, 1))]
        found *= 1 if redrawn else whole
        if rest:
            found.append(self._count(self.epoch(whole)[: rest * global_batch_size]))
        return _sum(found)

    def encode(self, examples: Sequence[Example]) -> list[Tokens]:
        """Token ids of examples."""
        return encode(self._tokenizer, examples, self._max_length, whole=self._whole)

    def _count(self, rows: Sequence[Tokens]) -> Counts:
        unknown_id = self._tokenizer.unknown_id
        supervised = [row.supervised for row in rows]
        return Counts(
            rows=len(rows),
            tokens=sum(len(row.ids) for row in rows),
            supervised=sum(supervised),
            truncated=sum(row.truncated for row in rows),
            dropped=supervised.count(0),
            unknown=0 if unknown_id is None else sum(row.ids.count(unknown_id) for row in rows),
        )


class _Part:
    """One of the data sets."""

    def __init__(self, dataset: Dataset, epochs: Epochs) -> None:
        self.dataset, self._epochs = dataset, epochs

    @cached_property
    def _variants(self) -> list[list[Tokens]]:
        """Every way to write each row, encoded once; not for documents of several texts, which have too many."""
        written = [self.dataset.variants(position) for position in range(len(self.dataset))]
        encoded = iter(self._epochs.encode([example for variants in written for example in variants]))
        return [[next(encoded) for _ in variants] for variants in written]

    def rows(self, epoch: int) -> list[Tokens]:
        if self.dataset.joined:
            return self._epochs.encode(self.dataset.examples(epoch))
        drawn = (self.dataset.drawn(position, epoch)[0] for position in range(len(self.dataset)))
        return [variants[index] for variants, index in zip(self._variants, drawn, strict=True)]


def epoch_order(length: int, seed: int, epoch: int) -> list[int]:
    """The order of the rows of an epoch, shuffled from (seed, epoch)."""
    order = list(range(length))
    random.Random(f"{seed}:shuffle:{epoch}").shuffle(order)
    return order


def count_pairs(
    tokenizer: Fast, pairs: Sequence[Pair], max_length: int, seed: int, global_batch_size: int, total_steps: int
) -> Counts:
    """Counts of a preference stage, as `Epochs.counts`; a prompt's tokens count twice, as the model reads it twice."""
    rows = encode_pairs(tokenizer, pairs, max_length)
    whole, rest = divmod(total_steps, -(-len(rows) // global_batch_size))
    last = epoch_order(len(rows), seed, whole)[: rest * global_batch_size]
    return _sum(
        [
            *[_count_pairs(rows, tokenizer.unknown_id)] * whole,
            _count_pairs([rows[index] for index in last], tokenizer.unknown_id),
        ]
    )


def _count_pairs(rows: Sequence[PairTokens], unknown_id: int | None) -> Counts:
    sides = [(row.prompt_ids, side) for row in rows for side in (row.chosen_ids, row.rejected_ids)]
    return Counts(
        rows=len(rows),
        tokens=sum(len(prompt) + len(said) for prompt, said in sides),
        supervised=sum(len(said) for _, said in sides),
        truncated=sum(row.truncated for row in rows),
        dropped=sum(row.chosen_ids == row.rejected_ids for row in rows),
        unknown=0 if unknown_id is None else sum(part.count(unknown_id) for side in sides for part in side),
    )


def _sum(counts: Sequence[Counts]) -> Counts:
    return Counts(
        rows=sum(count.rows for count in counts),
        tokens=sum(count.tokens for count in counts),
        supervised=sum(count.supervised for count in counts),
        truncated=sum(count.truncated for count in counts),
        dropped=sum(count.dropped for count in counts),
        unknown=sum(count.unknown for count in counts),
    )
