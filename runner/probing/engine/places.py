"""Places: rows under way, each with room of its own for keys and values, written in place; a shared beginning once.

A place that is free again is filled with a waiting row, so the batch stays full while rows wait. The beginning that all
prompts share is prefilled once and never copied: its keys serve every row in one matrix product (Juravsky et al. 2024,
arXiv:2402.05099). Attention therefore is this module's own, put in through transformers' attention interface, and
`agreement.measure` compares it with the model's own before it is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from runner.probing.engine.kept import Kept
from runner.probing.engine.network import Network
from runner.probing.engine.rows import Row

ATTENTION = "recipe_places"
_CHANGES_ATTENTION = ("softcap", "s_aux", "position_bias", "sliding_window")
"""Arguments of an attention function that ask for more than a plain one does."""
_NOWHERE = -(1 << 60)
_PREFILL_TOKENS = {"cpu": 512, "cuda": 8192}
"""One pass over more tokens gains nothing; on a CPU its intermediate results then lie in fresh pages, which cost more
than is saved."""
_AT_WORK: ContextVar[Places] = ContextVar("places that are computing")


class NotPlain(Exception):
    """The model's attention is not the plain one that places have."""


class Places:
    """Up to `size` rows that are answered together; those in use are the first `len(rows)`, some of them perhaps free.

    B is the number of places in use, P the length of the shared beginning, W the own tokens of the longest row so far.
    """

    def __init__(self, network: Network, prefixes: dict[str, list[int]], size: int, width: int) -> None:
        """Prefill the shared beginning.

        Args:
            prefixes: by adapter, the tokens that all its rows begin with; all of one length.
            width: own tokens, prompt and reply, that a place has room for.
        """
        self.network, self.size = network, size
        self.rows: list[Row | None] = []
        self.shared = len(next(iter(prefixes.values())))
        self._device = network.device
        self._prefill_tokens = _PREFILL_TOKENS.get(network.device.type, _PREFILL_TOKENS["cuda"])
        self._layers = [Kept(self.put, size, width) for _ in range(network.layers)]
        self._cache = Cache(layers=list(self._layers))
        self._starts = torch.zeros(size, dtype=torch.long, device=self._device)  # (size,) own tokens before are padding
        self._ends = torch.zeros(size, dtype=torch.long, device=self._device)  # (size,) own tokens so far
        self._in_use = torch.zeros(size, dtype=torch.long, device=self._device)
        self._columns = torch.arange(width, device=self._device)
        self._steps = 0
        self._ahead: list[int] = []
        """Per place, its own tokens less the steps taken: the widest row is known without asking the device."""
        self._older = 0
        """Places that were in use when rows were last admitted: those behind are shorter, and attended to apart."""
        self._adapters = list(prefixes)
        self._of_adapter: list[tuple[int, torch.Tensor | slice]] = [(0, slice(None))]
        self._mode = "prefix"
        self._mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self._device)
        self._plain = True
        if self.shared:
            positions = torch.arange(self.shared, device=self._device)[None]
            for name, ids in prefixes.items():
                self._forward(torch.tensor([ids], device=self._device), positions, [name])

    @property
    def free(self) -> int:
        """Rows that can be admitted."""
        return self.size - sum(row is not None for row in self.rows)

    def admit(self, rows: Sequence[Row]) -> tuple[range, torch.Tensor]:
        """Prefill rows behind those in use, none of which may be free: their places and logits (rows, V)."""
        self._older = len(self.rows)
        logits = []
        longest = max(len(row.ids) for row in rows) - self.shared
        at_once = max(self._prefill_tokens // longest, 1)
        for start in range(0, len(rows), at_once):
            logits.append(self._prefill(rows[start : start + at_once]))
        self._sort_by_adapter(self.rows)
        return range(self._older, len(self.rows)), torch.cat(logits) if len(logits) > 1 else logits[0]

    def _prefill(self, rows: Sequence[Row]) -> torch.Tensor:
        own = [row.ids[self.shared :] for row in rows]
        width = max(map(len, own))  # S
        padding = [width - len(ids) for ids in own]
        ids = torch.tensor([[0] * pad + ids for pad, ids in zip(padding, own, strict=True)]).to(self._device)  # (k, S)
        starts = torch.tensor(padding, device=self._device)
        columns = self._columns[:width]
        self._plain = not self.shared and not any(padding)
        if not self._plain:
            causal = columns[None, :] <= columns[:, None]  # (S, S)
            # padding sees itself: attention to nothing would be no number, and spread
            itself = columns[None, :] == columns[:, None]
            mask = causal & ((columns >= starts[:, None])[:, None] | itself)  # (k, S, S)
            self._mask = torch.cat([mask.new_ones(len(rows), width, self.shared), mask], dim=2)[:, None]
        first = len(self.rows)
        self._filled = slice(first, first + len(rows))
        self.rows += rows
        self._ahead += [width - self._steps] * len(rows)
        self._starts[self._filled], self._ends[self._filled], self._in_use[self._filled] = starts, width, 1
        self._mode = "prefill"
        self._sort_by_adapter(rows)
        positions = (self.shared + columns - starts[:, None]).clamp(min=0)  # (k, S)
        return self._forward(ids, positions, [row.adapter for row in rows])

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) after each place's next token, `tokens` (B,); those of free places mean nothing."""
        used = len(self.rows)
        bounds = [bound for bound in (0, self._older) if bound < used] + [used]
        self._ranges = [
            (slice(start, end), max(self._steps + max(self._ahead[start:end]), 0) + 1)
            for start, end in pairwise(bounds)
            if start < end
        ]
        width = max(width for _, width in self._ranges)  # W
        starts, ends = self._starts[:used, None], self._ends[:used, None]
        columns = self._columns[:width]
        hidden = (columns < starts) | (columns > ends)  # (B, W)
        mask = torch.zeros(hidden.shape, dtype=self.network.compute, device=self._device)
        self._mask = mask.masked_fill_(hidden, -math.inf)[:, None, None]  # (B, 1, 1, W)
        self._at: torch.Tensor | None = None
        self._mode = "step"
        names = [row.adapter if row else self._adapters[0] for row in self.rows] if len(self._adapters) > 1 else []
        logits = self._forward(tokens[:, None], self.shared + ends - starts, names or self._adapters * used)
        self._ends += self._in_use
        self._steps += 1
        return logits

    def leave(self, places: Sequence[int]) -> None:
        """Free the places of rows that are finished."""
        for place in places:
            self.rows[place] = None
            self._ahead[place] = _NOWHERE
        gone = torch.tensor(places, device=self._device)
        self._starts[gone] = self._ends[gone] = self._in_use[gone] = 0

    def close_up(self) -> list[int]:
        """Fill free places from the end, so that those in use are all occupied: by new place, the place it was."""
        kept = [place for place, row in enumerate(self.rows) if row is not None]
        order = list(range(len(kept)))
        behind = [place for place in kept if place >= len(kept)]
        moved = [(new, behind.pop()) for new in order if self.rows[new] is None]
        for new, old in moved:
            order[new] = old
        self.rows, self._ahead = [self.rows[old] for old in order], [self._ahead[old] for old in order]
        self._older = min(self._older, len(kept))
        if moved:
            to, of = (torch.tensor(places, device=self._device) for places in zip(*moved, strict=True))
            for tensor in (self._starts, self._ends, self._in_use):
                tensor[to] = tensor[of]
            for layer in self._layers:
                layer.move(to, of, self._steps + max(self._ahead))
        self._sort_by_adapter(self.rows)
        return order

    def _sort_by_adapter(self, rows: Sequence[Row | None]) -> None:
        if len(self._adapters) == 1:
            return
        names = [row.adapter if row else self._adapters[0] for row in rows]
        self._of_adapter = [
            (number, torch.tensor([place for place, is_ in enumerate(names) if is_ == name], device=self._device))
            for number, name in enumerate(self._adapters)
            if name in names
        ]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, adapters: list[str]) -> torch.Tensor:
        token = _AT_WORK.set(self)
        try:
            return self.network.logits(ids, self._mask, self._cache, positions, adapters, attention=ATTENTION)[:, -1]
        finally:
            _AT_WORK.reset(token)

    def put(self, layer: Kept, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values (B, heads, S, D) and return those the rows' own tokens attend to."""
        self._layer = layer
        if self._mode == "prefix":
            layer.prefix.append((keys[0], values[0]))
            return keys, values
        if self._mode == "prefill":
            layer.fill(self._filled, keys, values)
            return keys, values
        if self._at is None:
            used, heads = keys.shape[:2]
            place = torch.arange(used * heads, device=self._device).view(used, heads)
            self._at = (place * layer.width + self._ends[:used, None]).flatten()  # (B * heads,)
        kept_keys, kept_values = layer.append(self._at, keys, values, self._mask.shape[-1])
        return kept_keys, kept_values

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention (B, S, heads, D) of `query` (B, heads, S, D) over the shared beginning and the rows' own tokens."""
        groups = query.shape[1] // key.shape[1]
        if self._mode == "step":
            grouped = (query * scale).reshape(key.shape[0], key.shape[1], groups, -1)  # (B, h, G, D)
            return self._attend_step(grouped, key, value).reshape(key.shape[0], 1, query.shape[1], -1)
        plain = self._mode == "prefix" or self._plain
        if not plain and self.shared:
            before_key, before_value = self._beginnings(len(query))
            key, value = torch.cat([before_key, key], dim=2), torch.cat([before_value, value], dim=2)
        if groups > 1:
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        mask = None if plain else self._mask
        attended = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, is_causal=plain)
        return attended.transpose(1, 2).contiguous()

    def _beginnings(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The shared beginning's keys and values (k, h, P, D) of the k rows that are prefilled."""
        prefix = self._layer.prefix
        if len(prefix) == 1:
            keys, values = prefix[0]
            return keys.expand(rows, *keys.shape), values.expand(rows, *values.shape)
        numbers = torch.zeros(rows, dtype=torch.long, device=self._device)
        for number, those in self._of_adapter:
            numbers[those] = number
        return torch.stack([keys for keys, _ in prefix])[numbers], torch.stack([values for _, values in prefix])[
            numbers
        ]

    def _attend_step(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attention (B, h, G, D) of scaled `query` (B, h, G, D): one token per row, G queries for each of h keys."""
        rows, heads, groups = query.shape[:3]
        shared = self.shared
        before = query.new_empty(heads, rows, groups, shared)  # scores, then weights, of the shared beginning
        for number, those in self._of_adapter if shared else ():
            flat = query[those].transpose(0, 1).flatten(1, 2)  # (h, B * G, D)
            before[:, those] = (flat @ self._layer.prefix[number][0].transpose(1, 2)).view(heads, -1, groups, shared)
        parts = []
        for those, width in self._ranges:
            scores = query.new_empty(those.stop - those.start, heads, groups, shared + width)
            scores[..., :shared] = before[:, those].transpose(0, 1)
            own = query[those] @ key[those, :, :width].transpose(2, 3)
            torch.add(own, self._mask[those, ..., :width], out=scores[..., shared:])
            weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
            before[:, those] = weights[..., :shared].transpose(0, 1)
            parts.append(weights[..., shared:] @ value[those, :, :width])
        attended = torch.cat(parts) if len(parts) > 1 else parts[0]  # (B, h, G, D)
        for number, those in self._of_adapter if shared else ():
            found = before[:, those].flatten(1, 2) @ self._layer.prefix[number][1]  # (h, B * G, D)
            found = found.view(heads, -1, groups, value.shape[3]).transpose(0, 1)
            if isinstance(those, slice):
                attended += found
            else:
                attended[those] += found
        return attended


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls."""
    if any(options.get(name) is not None for name in _CHANGES_ATTENTION):
        raise NotPlain
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _AT_WORK.get().attend(query, key, value, scale), None


AttentionInterface.register(ATTENTION, _attend)
