"""The rows of an epoch as the data set that transformers' Trainer asks for, and which of them each process has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import TrainingArguments

from runner.data.epochs import Epochs
from runner.data.tokens import Tokens
from runner.train import processes


class EpochRows(Dataset[Tokens]):
    """The rows of the current epoch, in the order they are trained on."""

    def __init__(self, epochs: Epochs) -> None:
        self._epochs = epochs
        self._rows = epochs.epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Redraw and reshuffle; called by `Dealt` at the start of each epoch."""
        self._rows = self._epochs.epoch(epoch)

    def __len__(self) -> int:
        return len(self._epochs)

    def __getitem__(self, index: int) -> Tokens:
        return self._rows[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Tokens]:
        """A whole batch, for torch's data loader."""
        return self._rows.take(indices)

    def tokens_in(self, epoch: int, start: int, stop: int) -> tuple[int, int]:
        """Tokens of rows start to stop of an epoch, and how many of them the loss sees with full weight."""
        return self._epochs.epoch(epoch).tokens_in(start, stop)


def part_of(rows: range, index: int, of: int) -> range:
    """One of `of` parts of consecutive rows, whose sizes differ by one at most."""
    return rows[len(rows) * index // of : len(rows) * (index + 1) // of]


class Dealt(Sampler[list[int]]):
    """The places of the rows of each micro-batch of this process, one epoch after the other.

    Step s of an epoch trains its rows s * batch to (s + 1) * batch, on however many processes. Each micro-batch of the
    step is the next `at_once` rows for each process. Of the last one of an epoch some may have a row less, or none: the
    micro-batches of all processes are as many.

    Args:
        rows: of an epoch, which must know the epoch: a data set with `set_epoch`.
        batch: rows of a step.
        at_once: rows of a micro-batch of one process.
        alone: whether this process gets the rows of all of them.
    """

    def __init__(self, rows: Any, batch: int, at_once: int, alone: bool = False) -> None:
        self._rows, self._batch, self._at_once = rows, batch, at_once
        self._index, self._of = (0, 1) if alone else (processes.rank(), processes.count())

    def set_epoch(self, epoch: int) -> None:
        """Called by transformers' Trainer at the start of each epoch."""
        self._rows.set_epoch(epoch)

    def __len__(self) -> int:
        whole, rest = divmod(len(self._rows), self._batch)
        size = self._at_once * self._of
        return whole * -(-self._batch // size) + -(-rest // size)

    def __iter__(self) -> Iterator[Any]:
        epoch, size = range(len(self._rows)), self._at_once * self._of
        for start in range(0, len(epoch), self._batch):
            step = epoch[start : start + self._batch]
            for first in range(0, len(step), size):
                yield self.deal(step[first : first + size], self._index, self._of)

    def deal(self, rows: range, index: int, of: int) -> Any:
        """What the data set is asked for: the part of a micro-batch's rows that one of the processes has."""
        return list(part_of(rows, index, of))


class StepLoader(DataLoader[Any]):
    """torch's data loader, which tells the batches what epoch it is.

    transformers' Trainer would have accelerate deal the rows: that repeats rows of an epoch's last step until every
    process has as many. When it resumes inside an epoch it skips batches itself, by what is in `batch_sampler`.
    """

    def set_epoch(self, epoch: int) -> None:
        """Called by transformers' Trainer at the start of each epoch."""
        sampler: Any = self.batch_sampler
        sampler.set_epoch(epoch)


def loader(arguments: TrainingArguments, rows: Any, dealt: Dealt, collate: Callable[[Any], Any]) -> StepLoader:
    """The data loader of a stage.

    Args:
        arguments: how many workers read rows, and how they hand them over.
        rows: the data set.
        dealt: which of them are in each micro-batch.
        collate: what makes tensors of them.
    """
    return StepLoader(
        rows,
        batch_sampler=dealt,
        collate_fn=collate,
        num_workers=arguments.dataloader_num_workers,
        pin_memory=arguments.dataloader_pin_memory,
        prefetch_factor=arguments.dataloader_prefetch_factor,
        multiprocessing_context=arguments.dataloader_multiprocessing_context,
    )
