"""Answering: rows go into a batch, tokens come out, finished rows leave and waiting ones take their places."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from runner.probing.engine.choosing import Choosing
from runner.probing.engine.endings import Endings
from runner.probing.engine.network import Network
from runner.probing.engine.rows import Row

_ENOUGH = 192
"""Rows at a time from which on more of them are hardly cheaper each, measured on CPUs: above this, waiting rows are let
in only when half of the places are free, so that rows of one age stay together and attention is as wide as they are."""
_REFILL = 16
"""Below that, when a sixteenth is: prefilling few rows costs little less than many."""
_CLOSE_UP = 32
"""One in so many places may be free: moving a row costs a tenth of computing a free place once."""


class Batch(Protocol):
    """Where rows are computed: `places.Places` or `padded.Padded`."""

    size: int
    rows: list[Row | None]

    @property
    def free(self) -> int: ...  # noqa: D102

    def admit(self, rows: Sequence[Row]) -> tuple[range, torch.Tensor]: ...  # noqa: D102

    def step(self, tokens: torch.Tensor) -> torch.Tensor: ...  # noqa: D102

    def leave(self, places: Sequence[int]) -> None: ...  # noqa: D102

    def close_up(self) -> list[int]: ...  # noqa: D102


class Answering:
    """Rows on their way through a batch; what they have said lies in tensors, so that a step costs no work per row."""

    def __init__(
        self,
        batch: Batch,
        endings: Endings,
        rows: Sequence[Row],
        network: Network,
        tolerance: float = 0.0,
        told: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Make room for what the longest of `rows` may say.

        Args:
            tolerance: margins below this are close calls, and rows say where the last of theirs was.
            told: called with how many rows have come to their end, each time some have.
        """
        self._tolerance, self._told = tolerance, told
        self._batch, self._endings, self._rows, self._device = batch, endings, rows, network.device
        size, device = batch.size, network.device
        longest = max(row.limit for row in rows)
        self._choosing = Choosing(rows, size, network.vocabulary, device)
        self._numbers = torch.arange(size, device=device)
        self._tokens = torch.zeros(size, dtype=torch.long, device=device)
        self._count = torch.zeros(size, dtype=torch.long, device=device)
        self._limit = torch.zeros(size, dtype=torch.long, device=device)
        self._margin = torch.zeros(size, device=device)
        self._close = torch.zeros(size, dtype=torch.long, device=device)
        self._logprob = torch.zeros(size, dtype=torch.float64, device=device)
        # one column more: free places go on counting there
        self._said = torch.zeros(size, longest + 1, dtype=torch.long, device=device)
        self._is_eos = torch.zeros(network.vocabulary, dtype=torch.bool, device=device)
        self._is_eos[[id for id in endings.eos if id < network.vocabulary]] = True

    def run(self) -> None:
        """Answer all rows, the first ones first."""
        waiting = deque(self._rows)
        batch = self._batch
        while waiting or any(batch.rows):
            free = batch.free
            refill = waiting and free and (_worthwhile(free, batch.size) or free >= len(waiting))
            if None in batch.rows and (refill or batch.rows.count(None) * _CLOSE_UP >= len(batch.rows)):
                self._close_up()
            if refill:
                self._begin([waiting.popleft() for _ in range(min(free, len(waiting)))])
                continue
            used = len(batch.rows)
            self._take(slice(used), range(used), batch.step(self._tokens[:used]))

    def _begin(self, rows: list[Row]) -> None:
        places, logits = self._batch.admit(rows)
        self._choosing.begin(places, rows)
        at = slice(places.start, places.stop)
        self._limit[at] = torch.tensor([row.limit for row in rows], device=self._device)
        self._count[at] = 0
        self._margin[at] = torch.inf
        self._close[at] = 0
        self._logprob[at] = 0
        self._take(at, places, logits)

    def _close_up(self) -> None:
        order = torch.tensor(self._batch.close_up(), dtype=torch.long, device=self._device)
        self._choosing.reorder(order)
        state = (self._tokens, self._count, self._limit, self._margin, self._close, self._logprob, self._said)
        for tensor in state:
            tensor[: len(order)] = tensor[order]

    def _take(self, at: slice, places: range, logits: torch.Tensor) -> None:
        """Choose the next tokens of `places` from `logits` (B, V), and let those go that are finished."""
        count = self._count[at]
        chosen = self._choosing.choose(at, logits, count)
        self._said[self._numbers[at], count] = chosen.tokens
        self._tokens[at] = chosen.tokens
        self._margin[at] = torch.minimum(self._margin[at], chosen.margins)
        self._logprob[at] += chosen.logprobs
        count = (count + 1).clamp(max=self._said.shape[1] - 1)
        self._count[at] = count
        self._close[at] = torch.where(chosen.margins < self._tolerance, count, self._close[at])
        ended = self._is_eos[chosen.tokens] | (count >= self._limit[at])
        over = {places[number] for number in ended.nonzero()[:, 0].tolist()}
        stopped = self._stopped(places, chosen.tokens)
        done = [place for place in sorted(over | stopped) if self._batch.rows[place] is not None]
        if done:
            self._finish(done, stopped)

    def _stopped(self, places: range, tokens: torch.Tensor) -> set[int]:
        """The places whose newest token completed a stop string."""
        rows = ((number, place, self._batch.rows[place]) for number, place in enumerate(places))
        watched = [(number, place, row) for number, place, row in rows if row and row.question.decoding.stop]
        said = tokens.tolist() if watched else []
        stopped = set()
        for number, place, row in watched:
            row.new.append(said[number])
            if self._endings.stopped(row):
                stopped.add(place)
        return stopped

    def _finish(self, done: list[int], stopped: set[int]) -> None:
        at = torch.tensor(done, device=self._device)
        state = (self._said, self._count, self._margin, self._close, self._logprob)
        columns = (tensor[at].tolist() for tensor in state)
        for place, said, count, margin, close, logprob in zip(done, *columns, strict=True):
            row = self._batch.rows[place]
            assert row is not None
            row.new, row.close, row.logprob = said[:count], close, logprob
            row.margin = margin if math.isfinite(margin) else None
            ends = row.new[-1] in self._endings.eos
            row.stop_reason = "eos" if ends else "stop" if place in stopped else "length"
            row.text = self._endings.text(row)
        self._batch.leave(done)
        self._told(len(done))


def _worthwhile(free: int, size: int) -> bool:
    """Whether so many free places are worth a pass that fills them."""
    return free * _REFILL >= size and size - free <= max(_ENOUGH, size // 2)
