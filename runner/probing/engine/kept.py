"""Kept: one layer's keys and values, in one buffer that is written in place; transformers' own cache copies all of it
at every token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin

Receive = Callable[["Kept", torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""What is done with a layer's new keys and values; gives those that attention reads."""


class Kept(CacheLayerMixin):
    """One layer's keys and values of all places, (places, heads, width, D), and those of the shared beginning."""

    def __init__(self, receive: Receive, size: int, width: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._receive, self.size, self.width = receive, size, width
        self.prefix: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._both: tuple[torch.Tensor, ...] = ()
        self._rows = self._columns = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make room, of the shape that the model's first keys and values have."""
        self._both = tuple(
            new.new_empty(self.size, new.shape[1], self.width, new.shape[3]) for new in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by the model's attention."""
        return self._receive(self, key_states, value_states)

    def fill(self, at: slice, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write prompts (k, heads, S, D) at the k places `at`."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self._reach(at.stop, keys.shape[2])
        for kept, new in zip(self._both, (keys, values), strict=True):
            kept[at, :, : new.shape[2]] = new

    def append(self, at: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, width: int) -> list[torch.Tensor]:
        """Write a token (B, heads, 1, D) per row, at `at` (B * heads,) counted flat; all there is, (B, heads, W, D)."""
        self._reach(len(keys), width)
        for kept, new in zip(self._both, (keys, values), strict=True):
            kept.view(-1, new.shape[3]).index_copy_(0, at, new.flatten(0, 2))
        return [kept[: len(keys), :, :width] for kept in self._both]

    def move(self, to: torch.Tensor, of: torch.Tensor, width: int) -> None:
        """Copy the first `width` tokens from places to places."""
        for kept in self._both:
            kept[to, :, :width] = kept[of, :, :width]

    def _reach(self, rows: int, columns: int) -> None:
        """What comes into sight holds numbers: a weight of zero does not hide what is not a number."""
        for kept in self._both:
            if columns > self._columns:
                kept[: self._rows, :, self._columns : columns] = 0
            if rows > self._rows:
                kept[self._rows : rows, :, : max(columns, self._columns)] = 0
        self._rows, self._columns = max(rows, self._rows), max(columns, self._columns)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """What transformers would make a mask of; places give their own."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Rows differ in length: their positions are given to the model."""
        return 0

    def get_max_length(self) -> int:
        """Own tokens a place has room for."""
        return self.width
