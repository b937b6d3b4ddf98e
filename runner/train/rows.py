"""The rows of an epoch as the data set that transformers' Trainer asks for."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import Dataset

from runner.data.epochs import Epochs
from runner.data.tokens import Tokens


class EpochRows(Dataset[Tokens]):
    """The rows of the current epoch, in the order they are trained on."""

    def __init__(self, epochs: Epochs) -> None:
        self._epochs = epochs
        self._rows = epochs.epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Redraw and reshuffle; called by accelerate's data loader at the start of each epoch."""
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
