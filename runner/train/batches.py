"""Batches: rows of token ids as tensors with their labels and loss weights, padded or packed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runner.data.tokens import Tokens
from runner.train.packing import NOTHING, Layout, Place, sequences

IGNORED = -100
"""The label that torch's cross-entropy leaves out."""
PACKED = "packed"
"""Key of the one thing that `Pack` returns: the micro-batches of a step."""


def micro_batches(batches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The micro-batches of what a data loader gave, packed or not."""
    return [micro for batch in batches for micro in batch.get(PACKED, [batch])]


class _Filling:
    """Tensors (B, T) that are filled row by row."""

    def __init__(self, rows: int, width: int, pad_id: int, prompt_weight: float) -> None:
        self._prompt_weight = prompt_weight
        self._ids = np.full((rows, width), pad_id, np.int64)
        self._labels = np.full((rows, width), IGNORED, np.int64)
        self._weights = np.zeros((rows, width), np.float32) if prompt_weight > 0 else None

    def put(self, row: Tokens, line: int, start: int = 0, first: int = 0) -> None:
        """Write a row into a line, from column `start` on.

        Args:
            row: its ids and what of them is supervised.
            line: of the tensors.
            start: the column.
            first: tokens of the row that have no label, because nothing before them is of the same row.
        """
        ids: NDArray[np.int64] = np.asarray(row.ids, np.int64)
        stop = start + len(ids)
        self._ids[line, start:stop] = ids
        if self._weights is not None:
            self._labels[line, start + first : stop] = ids[first:]
            self._weights[line, start + first : stop] = self._prompt_weight
        for begin, end in row.spans:
            begin = max(begin, first)
            self._labels[line, start + begin : start + end] = ids[begin:end]
            if self._weights is not None:
                self._weights[line, start + begin : start + end] = 1.0

    def tensors(self) -> dict[str, torch.Tensor]:
        """input_ids, labels, and loss_weights where prompts weigh something."""
        made = {"input_ids": torch.from_numpy(self._ids), "labels": torch.from_numpy(self._labels)}
        return made if self._weights is None else {**made, "loss_weights": torch.from_numpy(self._weights)}


class Collate:
    """Pads rows to the longest of the batch.

    Returns input_ids, attention_mask and labels of shape (B, T); with a prompt weight also loss_weights (B, T), the
    weight of each position's own token: 0 for padding, `prompt_loss_weight` for prompt tokens, 1 for the rest. Of no
    rows it makes one of padding: a process for which none is left calls the model as often as the others.
    """

    def __init__(self, pad_id: int, prompt_loss_weight: float) -> None:
        self.pad_id, self.prompt_loss_weight = pad_id, prompt_loss_weight

    def __call__(self, rows: Sequence[Tokens]) -> dict[str, torch.Tensor]:  # noqa: D102 - see the class
        lengths = torch.tensor([len(row.ids) for row in rows] or [NOTHING])
        longest = int(lengths.max())
        filling = _Filling(len(lengths), longest, self.pad_id, self.prompt_loss_weight)
        for line, row in enumerate(rows):
            filling.put(row, line)
        mask = (torch.arange(longest) < lengths[:, None]).long()  # (B, T)
        return {**filling.tensors(), "attention_mask": mask}


class Pack:
    """Lets the rows of a step share sequences (see `packing`), which leaves the loss what it is.

    Returns the micro-batches of the step under `PACKED`, each with input_ids, position_ids and labels of shape (S, L),
    and with a prompt weight loss_weights (S, L). A row's first token has no label: nothing before it is of its row.

    Args:
        layout: how rows lie in a sequence.
        at_once: sequences of a micro-batch; each has at most as many tokens as the longest row of the step.
        process: which one this is, and of how many: it gets the rows of all of them, and makes its own micro-batches.
    """

    def __init__(
        self, pad_id: int, prompt_loss_weight: float, layout: Layout, at_once: int, process: tuple[int, int] = (0, 1)
    ) -> None:
        self._pad_id, self._prompt_loss_weight = pad_id, prompt_loss_weight
        self._layout, self._at_once, self._process = layout, at_once, process

    def __call__(self, rows: Sequence[Tokens]) -> dict[str, list[dict[str, torch.Tensor]]]:  # noqa: D102 - see the class
        made = sequences([len(row.ids) for row in rows], self._layout, self._at_once, *self._process)
        return {PACKED: [self._batch(rows, lines) for lines in made]}

    def places(self, lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """Where rows of these lengths lie in the first micro-batch: sequence, column, row."""
        for line, places in enumerate(next(sequences(lengths, self._layout, self._at_once))):
            yield from ((line, start, place.row) for start, place in _starts(places) if place.row >= 0)

    def _batch(self, rows: Sequence[Tokens], lines: Sequence[Sequence[Place]]) -> dict[str, torch.Tensor]:
        width = sum(place.length for place in lines[0])
        filling = _Filling(len(lines), width, self._pad_id, self._prompt_loss_weight)
        positions = [np.concatenate([np.arange(place.length) for place in places]) for places in lines]
        for line, places in enumerate(lines):
            for start, place in _starts(places):
                if place.row >= 0:
                    filling.put(rows[place.row], line, start, first=1)
        return {**filling.tensors(), "position_ids": torch.from_numpy(np.stack(positions))}


def _starts(places: Sequence[Place]) -> Iterator[tuple[int, Place]]:
    start = 0
    for place in places:
        yield start, place
        start += place.length
