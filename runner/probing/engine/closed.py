"""Closed questions: the log probability of every choice after its prompt, with one forward per distinct prompt.

All choices of a question stand behind its prompt in one row, each seeing the prompt and itself alone, at the positions
it would have if it were the only one. A choice's first token is read from the prompt's last logits, so choices of one
token cost nothing beyond the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from runner.probing.engine.network import Network
from runner.probing.engine.rows import Row

_LOGITS_BYTES = 256 * 2**20
"""Logits that one pass may make: with many choices and a large vocabulary they outgrow keys and values."""


def batches(network: Network, rows: Sequence[Row], budget: int) -> Iterator[tuple[list[Row], int]]:
    """Rows that are scored in one pass, and their padded tokens: those stay within `budget`, logits within memory."""
    batch: list[Row] = []
    width = columns = before = 0
    for row in sorted(rows, key=lambda row: (len(row.ids), _behind(row))):
        width, columns = max(width, len(row.ids) + _behind(row)), max(columns, 1 + _behind(row))
        logits_bytes = (len(batch) + 1) * columns * network.vocabulary * 4
        if batch and ((len(batch) + 1) * width > budget or logits_bytes > _LOGITS_BYTES):
            yield batch, len(batch) * before
            batch, width, columns = [], len(row.ids) + _behind(row), 1 + _behind(row)
        batch.append(row)
        before = width
    if batch:
        yield batch, len(batch) * width


def score(network: Network, rows: Sequence[Row], shared: int) -> None:
    """Score the choices of `rows`, whose prompts begin with the same `shared` tokens and which use one adapter."""
    cache = DynamicCache(config=network.config)
    if shared:
        ids = torch.tensor([rows[0].ids[:shared]], device=network.device)
        positions = torch.arange(shared, device=network.device)[None]
        network.logits(ids, torch.ones_like(ids), cache, positions, [rows[0].adapter])
        cache.batch_repeat_interleave(len(rows))
    before = max(len(row.ids) for row in rows) - shared
    behind = max(_behind(row) for row in rows)
    trees = [_tree(row, shared, before, behind) for row in rows]
    visible = torch.stack([tree.sees for tree in trees])[:, None].to(network.device)  # (B, 1, S, P + S)
    bias = torch.zeros(visible.shape, dtype=network.compute, device=network.device).masked_fill_(~visible, -math.inf)
    logits = network.logits(
        torch.tensor([tree.ids for tree in trees], device=network.device),
        bias,
        cache,
        torch.tensor([tree.positions for tree in trees], device=network.device),
        [row.adapter for row in rows],
        keep=1 + behind,
    )
    for row, of_row in zip(rows, logits, strict=True):
        starts = _starts(row)
        columns = [[0, *range(start + 1, start + len(ids))] for ids, start in zip(row.choices, starts, strict=True)]
        _settle(row, of_row, columns)


def score_alone(network: Network, row: Row) -> None:
    """Score each choice in a pass of its own, as any transformers model can."""
    ids_logits = []
    for choice in row.choices:
        ids = torch.tensor([row.ids + list(choice[:-1])], device=network.device)
        positions = torch.arange(ids.shape[1], device=network.device)[None]
        cache = DynamicCache(config=network.config)
        logits = network.logits(ids, torch.ones_like(ids), cache, positions, [row.adapter], keep=len(choice))
        ids_logits.append(logits[0])
    starts = [sum(map(len, row.choices[:number])) for number in range(len(row.choices))]
    columns = [list(range(start, start + len(choice))) for start, choice in zip(starts, row.choices, strict=True)]
    _settle(row, torch.cat(ids_logits), columns)


def _behind(row: Row) -> int:
    """Tokens behind the prompt: all of every choice but its last, which nothing follows."""
    return sum(len(choice) - 1 for choice in row.choices)


def _starts(row: Row) -> list[int]:
    """Where each choice begins behind the prompt."""
    starts = [0]
    for choice in row.choices[:-1]:
        starts.append(starts[-1] + len(choice) - 1)
    return starts


@dataclass(frozen=True)
class _Tree:
    """A prompt's own tokens and all choices behind it: S tokens, of which padding stands on either side."""

    ids: list[int]
    positions: list[int]
    sees: torch.Tensor
    """(S, P + S), which tokens each of them attends to."""


def _tree(row: Row, shared: int, before: int, behind: int) -> _Tree:
    """A row as `before` tokens, padded on the left, and `behind` tokens, padded on the right."""
    own = row.ids[shared:]
    pad = before - len(own)
    width = before + behind
    ids = [0] * pad + own + [token for choice in row.choices for token in choice[:-1]]
    positions = [0] * pad + list(range(shared, len(row.ids)))
    positions += [len(row.ids) + place for choice in row.choices for place in range(len(choice) - 1)]
    sees = torch.eye(width, dtype=torch.bool)
    sees[pad:before, pad:before] = torch.ones(len(own), len(own), dtype=torch.bool).tril()
    for start, choice in zip(_starts(row), row.choices, strict=True):
        first, length = before + start, len(choice) - 1
        sees[first : first + length, pad:before] = True
        sees[first : first + length, first : first + length] = torch.ones(length, length, dtype=torch.bool).tril()
    fill = width - len(ids)
    sees = torch.cat([torch.ones(width, shared, dtype=torch.bool), sees], dim=1)
    return _Tree(ids + [0] * fill, positions + [0] * fill, sees)


def _settle(row: Row, logits: torch.Tensor, columns: Sequence[Sequence[int]]) -> None:
    """The most likely choice, from `logits` (N, V) and, per choice, the columns its tokens are read from."""
    logits = logits.float()
    of_choice = [number for number, choice in enumerate(row.choices) for _ in choice]
    at = torch.tensor([column for choice in columns for column in choice], device=logits.device)
    tokens = torch.tensor([token for choice in row.choices for token in choice], device=logits.device)
    logprobs = (logits[at, tokens] - logits.logsumexp(dim=-1)[at]).double()
    totals = torch.zeros(len(row.choices), dtype=torch.float64, device=logits.device)
    totals.index_add_(0, torch.tensor(of_choice, device=logits.device), logprobs)
    row.choice_logprobs = tuple(totals.tolist())
    best = max(range(len(row.choices)), key=row.choice_logprobs.__getitem__)
    others = [logprob for number, logprob in enumerate(row.choice_logprobs) if number != best]
    row.text, row.new, row.logprob = row.question.choices[best], list(row.choices[best]), row.choice_logprobs[best]
    row.margin = row.logprob - max(others) if others else None
    row.stop_reason = "choice"
