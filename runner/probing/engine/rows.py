"""Rows: questions while they are answered, and which of them are answered together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from runner.probing.questions import EndReason, Question

SHARED_TOKENS = 16
"""A shorter common beginning is not worth a pass of its own."""
_GROUP_ROWS = 32
"""Fewer rows than this stay with their neighbours: a group of its own runs half empty while its last rows end."""


@dataclass(eq=False)
class Row:
    """One question: what goes in, and what has come of it so far."""

    number: int
    """Its place among the questions."""
    question: Question
    prompt: str
    ids: list[int] = field(default_factory=list)
    limit: int = 0
    """Tokens that may be generated."""
    choices: list[tuple[int, ...]] = field(default_factory=list)
    """Of a closed question: the token ids of each choice."""
    stop_ids: frozenset[int] = frozenset()
    """Tokens that are one of its stop strings: special tokens are not part of any text."""
    adapter: str = ""
    new: list[int] = field(default_factory=list)
    margin: float | None = None
    close: int = 0
    """Tokens up to and with the last that hung by less than rounding; 0 where none did."""
    logprob: float = 0.0
    text: str = ""
    stop_reason: EndReason | None = None
    choice_logprobs: tuple[float, ...] = ()
    seconds: float = 0.0
    again: bool = False
    error: str = ""

    @property
    def open(self) -> bool:
        """Whether it is still to be answered."""
        return self.stop_reason is None and not self.error

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.question.decoding.temperature == 0

    def lacks_memory(self) -> None:
        """It cannot be answered, even alone."""
        self.error = f"memory does not suffice for the prompt's {len(self.ids)} tokens and the reply"

    def restart(self) -> None:
        """Forget what has come so far."""
        self.new, self.margin, self.logprob, self.text, self.stop_reason = [], None, 0.0, "", None
        self.choice_logprobs, self.close = (), 0


@dataclass(frozen=True)
class Group:
    """Rows that begin with the same tokens, by adapter where there are several."""

    rows: list[Row]
    shared: int
    """Tokens of the common beginning, at least one less than any row has."""


def groups(rows: Sequence[Row]) -> list[Group]:
    """Rows that share enough of their beginning for it to be prefilled once; those that share nothing are one group."""
    return list(_split(sorted(rows, key=lambda row: row.ids), 0)) if rows else []


def _split(rows: list[Row], known: int) -> Iterator[Group]:
    """Groups of sorted `rows`, which share at least `known` tokens."""
    shared = common(rows, known)
    rest: list[Row] = []
    for child in _children(rows, shared):
        if len(child) >= _GROUP_ROWS and len(child) < len(rows) and common(child, shared) >= shared + SHARED_TOKENS:
            yield from _split(child, shared)
        else:
            rest += child
    if rest:
        shared = common(rest, shared)
        yield Group(rest, shared if shared >= SHARED_TOKENS and len(rest) > 1 else 0)


def _children(rows: list[Row], shared: int) -> Iterator[list[Row]]:
    """Runs of sorted rows whose next token is the same."""
    start = 0
    for place in range(1, len(rows) + 1):
        if place == len(rows) or rows[place].ids[shared : shared + 1] != rows[start].ids[shared : shared + 1]:
            yield rows[start:place]
            start = place


def common(rows: Sequence[Row], known: int = 0) -> int:
    """Tokens that all of sorted `rows` begin with, leaving every row at least one of its own."""
    most = min(len(row.ids) for row in rows) - 1
    first, last = rows[0].ids, rows[-1].ids
    return next((place for place in range(min(known, most), most) if first[place] != last[place]), most)


def batches(rows: Sequence[Row], shared: int, budget: int) -> Iterator[tuple[list[Row], int, int]]:
    """Rows that are answered through the same places, the number of places, and the own tokens each must hold.

    Places times their width stays within `budget`. Rows of very different length do not share places: one long row
    would leave room for few short ones.
    """
    waiting = sorted(rows, key=lambda row: (-_size(row, shared), -row.limit, row.ids))
    while waiting:
        several = waiting
        if len(waiting) * _width(waiting, shared) > budget:
            several = [row for row in waiting if 2 * _size(row, shared) > _size(waiting[0], shared)]
        waiting = waiting[len(several) :]
        width = _width(several, shared)
        yield several, min(max(budget // width, 1), len(several)), width


def _size(row: Row, shared: int) -> int:
    return len(row.ids) - shared + row.limit


def _width(rows: Sequence[Row], shared: int) -> int:
    """Own tokens of the widest row that can arise: a short prompt that is prefilled beside a long one is padded."""
    return max(len(row.ids) for row in rows) - shared + max(row.limit for row in rows)
