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
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from runner.probing.engine.network import Network
from runner.probing.engine.rows import Row

ATTENTION = "recipe_places"
_CHANGES_ATTENTION = ("softcap", "s_aux", "position_bias", "sliding_window")
"""Arguments of an attention function that ask for more than a plain one does."""
_NOWHERE = -(1 << 60)
_AT_WORK: ContextVar[Places] = ContextVar("places that are computing")


class NotPlain(Exception):
    """The model's attention is not the plain one that places have."""


class Places:
    """Up to `size` rows that are answered together; those in use are the first `len(rows)`, some of them perhaps free.

    B is the number of places in use, P the length of the shared beginning, W the longest row's own tokens so far.
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
        self._layers = [_Layer(self, size, width) for _ in range(network.layers)]
        self._cache = Cache(layers=list(self._layers))
        self._starts = torch.zeros(size, dtype=torch.long, device=self._device)  # (size,) own tokens before are padding
        self._ends = torch.zeros(size, dtype=torch.long, device=self._device)  # (size,) own tokens so far
        self._in_use = torch.zeros(size, dtype=torch.long, device=self._device)
        self._columns = torch.arange(width, device=self._device)
        self._steps = 0
        self._ahead: list[int] = []
        """Per place, its own tokens less the steps taken: the widest row is known without asking the device."""
        self._adapters = list(prefixes)
        self._of_adapter: list[tuple[int, torch.Tensor | slice]] = [(0, slice(None))]
        self._mode = "prefix"
        self._causal = True
        self._mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self._device)
        if self.shared:
            positions = torch.arange(self.shared, device=self._device)[None]
            for name, ids in prefixes.items():
                self._forward(torch.tensor([ids], device=self._device), positions, [name])

    @property
    def free(self) -> int:
        """Rows that can be admitted."""
        return self.size - sum(row is not None for row in self.rows)

    def admit(self, rows: Sequence[Row]) -> tuple[list[int], torch.Tensor]:
        """Prefill rows in free places: their places and the logits (rows, V) after their prompts."""
        places = [place for place, row in enumerate(self.rows) if row is None][: len(rows)]
        places += range(len(self.rows), len(self.rows) + len(rows) - len(places))
        own = [row.ids[self.shared :] for row in rows]
        width = max(map(len, own))  # S
        padding = [width - len(ids) for ids in own]
        for place, row in zip(places, rows, strict=True):
            if place == len(self.rows):
                self.rows.append(None)
                self._ahead.append(_NOWHERE)
            self.rows[place] = row
            self._ahead[place] = width - self._steps
        ids = torch.tensor([[0] * pad + ids for pad, ids in zip(padding, own, strict=True)]).to(self._device)  # (k, S)
        starts = torch.tensor(padding, device=self._device)
        columns = self._columns[:width]
        causal = columns[None, :] <= columns[:, None]  # (S, S)
        # padding sees itself: attention to nothing would be no number, and spread
        itself = columns[None, :] == columns[:, None]
        own_mask = causal & ((columns >= starts[:, None])[:, None] | itself)  # (k, S, S)
        self._causal = not self.shared and not any(padding)
        self._mask = torch.cat([own_mask.new_ones(len(rows), width, self.shared), own_mask], dim=2)[:, None]
        positions = (self.shared + columns - starts[:, None]).clamp(min=0)  # (k, S)
        self._chosen = torch.tensor(places, device=self._device)
        self._starts[self._chosen] = starts
        self._ends[self._chosen] = width
        self._in_use[self._chosen] = 1
        self._mode = "admit"
        self._sort_by_adapter(rows)
        logits = self._forward(ids, positions, [row.adapter for row in rows])
        self._sort_by_adapter(self.rows)
        return places, logits

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) after each place's next token, `tokens` (B,); those of free places mean nothing."""
        used = len(self.rows)
        self._width = self._steps + max(self._ahead) + 1  # W
        starts, ends = self._starts[:used, None], self._ends[:used, None]
        columns = self._columns[: self._width]
        hidden = (columns < starts) | (columns > ends)  # (B, W)
        self._mask = torch.zeros(hidden.shape, dtype=self.network.compute, device=self._device)
        self._mask.masked_fill_(hidden, -math.inf)
        self._mask = self._mask[:, None, None]  # (B, 1, 1, W)
        self._at: torch.Tensor | None = None
        self._mode = "step"
        positions = self.shared + ends - starts
        names = [row.adapter if row else self._adapters[0] for row in self.rows]
        logits = self._forward(tokens[:, None], positions, names)
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
        order = list(range(len(self.rows)))
        target = 0
        while target < len(order):
            while self.rows and self.rows[-1] is None:
                self.rows.pop()
                order.pop()
            if target >= len(order):
                break
            if self.rows[target] is None:
                order[target] = order.pop()
                self.rows[target] = self.rows.pop()
            target += 1
        self._ahead = [self._ahead[place] for place in order]
        moved = [(new, old) for new, old in enumerate(order) if new != old]
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

    def put(self, layer: _Layer, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values (B, heads, S, D) and return those the rows' own tokens attend to."""
        self._layer = layer
        if self._mode == "prefix":
            layer.prefix.append((keys[0], values[0]))
            return keys, values
        if self._mode == "admit":
            layer.fill(self._chosen, len(self.rows), keys, values)
            return keys, values
        if self._at is None:
            used, heads = keys.shape[:2]
            place = torch.arange(used * heads, device=self._device).view(used, heads)
            self._at = (place * layer.width + self._ends[:used, None]).flatten()  # (B * heads,)
        kept_keys, kept_values = layer.append(self._at, keys, values, self._width)
        return kept_keys, kept_values

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention (B, S, heads, D) of `query` (B, heads, S, D) over the shared beginning and the rows' own tokens."""
        groups = query.shape[1] // key.shape[1]
        if self._mode == "step":
            return self._attend_step(query, key, value, scale, groups)
        if self._mode == "admit" and self.shared:
            size = (query.shape[0], key.shape[1], self.shared)
            before = key.new_empty(*size, key.shape[3]), value.new_empty(*size, value.shape[3])
            for number, rows in self._of_adapter:
                before[0][rows], before[1][rows] = self._layer.prefix[number]
            key, value = torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)
        if groups > 1:
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        mask = None if self._causal else self._mask
        attended = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, is_causal=self._causal)
        return attended.transpose(1, 2).contiguous()

    def _attend_step(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, groups: int
    ) -> torch.Tensor:
        rows, heads, own = key.shape[:3]
        grouped = (query * scale).reshape(rows, heads, groups, -1)  # (B, h, G, D)
        scores = grouped.new_empty(rows, heads, groups, self.shared + own)
        torch.add(grouped @ key.transpose(2, 3), self._mask, out=scores[..., self.shared :])
        if self.shared:
            for number, those in self._of_adapter:
                flat = grouped[those].transpose(0, 1).flatten(1, 2)  # (h, B * G, D)
                found = flat @ self._layer.prefix[number][0].transpose(1, 2)  # (h, B * G, P)
                scores[those, ..., : self.shared] = found.view(heads, -1, groups, found.shape[-1]).transpose(0, 1)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
        attended = weights[..., self.shared :] @ value  # (B, h, G, D)
        if self.shared:
            for number, those in self._of_adapter:
                flat = weights[those, ..., : self.shared].transpose(0, 1).flatten(1, 2)  # (h, B * G, P)
                found = flat @ self._layer.prefix[number][1]  # (h, B * G, D)
                attended[those] += found.view(heads, -1, groups, found.shape[-1]).transpose(0, 1)
        return attended.reshape(rows, 1, heads * groups, -1)


class _Layer(CacheLayerMixin):
    """One layer's keys and values of all places, (places, heads, width, D), and those of the shared beginning."""

    def __init__(self, places: Places, size: int, width: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places, self.size, self.width = places, size, width
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
        return self.places.put(self, key_states, value_states)

    def fill(self, at: torch.Tensor, used: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write prompts (k, heads, S, D) at places `at` (k,), all among the first `used`."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self._reach(used, keys.shape[2])
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
