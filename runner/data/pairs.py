"""Preferences: for each row its right text with a wrong one; and what was left out on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from runner.data.negatives import REASONS, Reason
from runner.data.texts import Message
from runner.errors import Where, printable

Samples = Mapping[tuple[str, int], Mapping[int, Sequence[str]]]
"""What checkpoints said: by (data set or split, number of the entry in `rejected`), then by the row's index."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: after `prompt`, `chosen` rather than `rejected`."""

    prompt: str
    chosen: str
    rejected: str
    row: int
    messages: tuple[Message, ...] = ()
    """The conversation before the answer, where there is one; `prompt` is "" then."""


@dataclass(frozen=True)
class Dropped:
    """A text that is no negative."""

    reason: Reason
    text: str
    where: Where


@dataclass(frozen=True)
class Preferences:
    """The pairs of a data set, and what was left out on the way."""

    pairs: tuple[Pair, ...]
    dropped: Mapping[Reason, int]
    """Negatives that are none, by reason."""
    first: tuple[Dropped, ...] = ()
    """The first ones of them."""
    without: int = 0
    """Rows that are left out because no negative is left for them."""
    unmatched: int = 0
    """Prompts of `{file: …}` that are no row's."""
    pending_pairs: tuple[Pair, ...] = ()
    """Pairs that may come to it when a checkpoint has been asked (`{sample: …}`); `rejected` is yet empty."""
    pending_tokens: tuple[int, ...] = ()
    """How long the reply of each can be."""
    placing: Callable[[], AbstractContextManager[None]] = field(default=nullcontext, repr=False, compare=False)
    """What gives errors about a pair the name of its data set, and the file and line of its row."""

    def lines(self) -> tuple[str, ...]:
        """What is worth saying, one sentence each; nothing where every negative was one."""
        found = []
        if self.dropped:
            what = ", ".join(f"{count:,} {REASONS[reason]}" for reason, count in self.dropped.items())
            shown = "; ".join(f"{drop.where}: {printable(drop.text)[:60]}" for drop in self.first)
            found.append(f"{sum(self.dropped.values()):,} negatives left out ({what}): {shown}")
        if self.without:
            found.append(f"{self.without:,} rows left out: no negative is left for them")
        if self.unmatched:
            found.append(f"{self.unmatched:,} prompts of the file of negatives are no row's")
        if self.pending_pairs:
            found.append(f"up to {len(self.pending_pairs):,} of its pairs are known when the checkpoint has been asked")
        return tuple(found)

    def record(self) -> dict[str, Any]:
        """The counts, for the files of a run."""
        return {
            "pairs": len(self.pairs),
            "dropped": dict(self.dropped),
            "rows_without": self.without,
            "unmatched_prompts": self.unmatched,
            "pending": len(self.pending_pairs),
        }
