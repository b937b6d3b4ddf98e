"""Choosing: from logits to the next token of every row, its margin and its log probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from runner.probing.engine.rows import Row


@dataclass(frozen=True)
class Chosen:
    """The next token of B rows."""

    tokens: torch.Tensor
    """(B,)"""
    margins: torch.Tensor
    """(B,) Difference between the two best logits, after penalties; infinite where the token was drawn."""
    logprobs: torch.Tensor
    """(B,) Natural log probability of the token, before temperature and penalties."""


class Choosing:
    """How each place of a batch chooses: greedy, or drawn with numbers that its row's own seed gave beforehand."""

    def __init__(self, rows: Sequence[Row], size: int, vocabulary: int, device: torch.device) -> None:
        """Make room for `size` places, for what any of `rows` needs."""
        self._device = device
        longest = max(row.limit for row in rows)
        self._draws = any(not row.greedy for row in rows)
        self._penalizes = any(row.question.decoding.repetition_penalty != 1 for row in rows)
        self._numbers = torch.arange(size, device=device)
        self._temperature = torch.zeros(size, device=device)
        self._top_p = torch.ones(size, device=device)
        self._penalty = torch.ones(size, device=device)
        # a row's draws are made before it begins: what shares its batch cannot change them
        self._uniform = torch.zeros(size, longest if self._draws else 0, dtype=torch.float64, device=device)
        self._seen = torch.zeros(size, vocabulary if self._penalizes else 0, dtype=torch.bool, device=device)

    def begin(self, places: range, rows: Sequence[Row]) -> None:
        """Rows enter at `places`."""
        if not (self._draws or self._penalizes):
            return
        for place, row in zip(places, rows, strict=True):
            decoding = row.question.decoding
            self._temperature[place], self._top_p[place] = decoding.temperature, decoding.top_p
            self._penalty[place] = decoding.repetition_penalty
            if self._draws and not row.greedy:
                generator = torch.Generator().manual_seed(row.question.seed)
                self._uniform[place, : row.limit] = torch.rand(row.limit, generator=generator, dtype=torch.float64)
            if self._penalizes:
                self._seen[place] = False
                self._seen[place, torch.tensor(row.ids, device=self._device)] = True

    def reorder(self, order: torch.Tensor) -> None:
        """Places were moved: by new place, the place it was."""
        if self._draws or self._penalizes:
            for tensor in (self._temperature, self._top_p, self._penalty, self._uniform, self._seen):
                tensor[: len(order)] = tensor[order]

    def choose(self, at: slice, logits: torch.Tensor, count: torch.Tensor) -> Chosen:
        """The next tokens of the places `at`, from `logits` (B, V), which are used up.

        Args:
            count: (B,) tokens that each has said.
        """
        logits = logits.float()
        if not (self._draws or self._penalizes):
            return _best(logits)
        logprobs = logits.log_softmax(dim=-1)
        if self._penalizes:
            logits = self._penalized(at, logits)
        temperature = self._temperature[at]
        drawn = temperature > 0
        tokens = self._drawn(at, logits, temperature, count) if self._draws else None
        best = _best(logits)
        tokens = best.tokens if tokens is None else torch.where(drawn, tokens, best.tokens)
        if self._penalizes:
            self._seen[self._numbers[at], tokens] = True
        return Chosen(tokens, best.margins.masked_fill(drawn, math.inf), logprobs.gather(1, tokens[:, None])[:, 0])

    def _penalized(self, at: slice, logits: torch.Tensor) -> torch.Tensor:
        """Keskar et al. 2019 (arXiv:1909.05858), over the prompt too, as transformers does."""
        penalty = self._penalty[at][:, None]  # (B, 1)
        changed = torch.where(logits > 0, logits / penalty, logits * penalty)
        return torch.where(self._seen[at], changed, logits)

    def _drawn(self, at: slice, logits: torch.Tensor, temperature: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """Tokens drawn from the nucleus (Holtzman et al. 2020, arXiv:1904.09751), by inverting its distribution."""
        scaled = logits / temperature.masked_fill(temperature == 0, 1)[:, None]
        ordered = scaled.double().softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        cumulative = ordered.values.cumsum(dim=-1)  # (B, V)
        kept = (cumulative - ordered.values < self._top_p[at][:, None]).sum(dim=-1, keepdim=True)  # (B, 1)
        last = (kept - 1).clamp(min=0)
        uniform = self._uniform[self._numbers[at], count.clamp(max=self._uniform.shape[1] - 1)][:, None]
        place = (cumulative <= uniform * cumulative.gather(1, last)).sum(dim=-1, keepdim=True)
        return ordered.indices.gather(1, torch.minimum(place, last))[:, 0]


def _best(logits: torch.Tensor) -> Chosen:
    """The most likely tokens of `logits` (B, V), of equal ones the first; uses them up."""
    best = logits.max(dim=-1)
    rest = logits.scatter_(1, best.indices[:, None], -math.inf)
    margins = best.values - rest.amax(dim=-1)
    # the logarithm of the sum of all exponentials, without another copy of the logits
    totals = rest.sub_(best.values[:, None]).exp_().sum(dim=-1).log1p()
    return Chosen(best.indices, margins, -totals)
