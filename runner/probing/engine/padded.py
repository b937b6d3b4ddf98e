"""Padded: a batch that any transformers model can run, rows padded on the left and the cache transformers' own.

Slower than `places`: nothing is shared, no row joins later, and every step copies the cache. It serves models whose
attention is not plain (sliding windows, state spaces), and rows that are asked alone: with one row it is computed as
`model.generate` does with a batch of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from transformers import DynamicCache

from runner.probing.engine.network import Network
from runner.probing.engine.rows import Row


class Padded:
    """Rows that begin together; B is the number of those that are left."""

    def __init__(self, network: Network, size: int) -> None:
        self.network, self.size = network, size
        self.rows: list[Row | None] = []
        self._cache = DynamicCache(config=network.config)

    @property
    def free(self) -> int:
        """Rows that can be admitted: once the batch has begun, none."""
        return 0 if self.rows else self.size

    def admit(self, rows: Sequence[Row]) -> tuple[range, torch.Tensor]:
        """Prefill the rows: their places and the logits (B, V) after their prompts."""
        self.rows = list(rows)
        width = max(len(row.ids) for row in rows)
        padding = [width - len(row.ids) for row in rows]
        # what stands in the padding does not matter: the mask hides it, and positions do not count it
        ids = torch.tensor([[0] * pad + row.ids for row, pad in zip(rows, padding, strict=True)])  # (B, T)
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding])
        self._mask = mask.to(self.network.device)  # (B, T)
        return range(len(rows)), self._forward(ids.to(self.network.device))

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) after each row's next token, `tokens` (B,)."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        return self._forward(tokens[:, None])

    def leave(self, places: Sequence[int]) -> None:
        """Rows are finished."""
        for place in places:
            self.rows[place] = None

    def close_up(self) -> list[int]:
        """Drop finished rows: by new place, the place it was."""
        order = [place for place, row in enumerate(self.rows) if row is not None]
        self.rows = [self.rows[place] for place in order]
        kept = torch.tensor(order, device=self.network.device)
        self._cache.reorder_cache(cast(torch.LongTensor, kept))
        self._mask = self._mask[kept]
        return order

    def _forward(self, ids: torch.Tensor) -> torch.Tensor:
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]  # (B, S)
        names = [row.adapter if row else "" for row in self.rows]
        return self.network.logits(ids, self._mask, self._cache, positions, names)[:, -1]
