"""A prompt with its right completion and all of its wrong ones, as token ids: the rows of `contrast`;
a pair is one with one wrong completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.data.pairs import Pair
from runner.data.tokens import PairTokens


@dataclass(frozen=True, slots=True)
class Candidates:
    """A prompt's token ids and those of its completions; each ends in EOS unless it was cut off."""

    prompt_ids: Sequence[int]
    chosen_ids: Sequence[int]
    rejected_ids: tuple[Sequence[int], ...]
    """None, where every negative became equal to chosen when it was cut off."""
    truncated: bool = False
    """Whether the end of a text was cut off."""

    @property
    def completions(self) -> tuple[Sequence[int], ...]:
        """Chosen first."""
        return (self.chosen_ids, *self.rejected_ids)

    @property
    def prefers_nothing(self) -> bool:
        """Whether nothing but chosen is left of it."""
        return all(list(said) == list(self.chosen_ids) for said in self.rejected_ids)

    @property
    def supervised(self) -> int:
        """Tokens of all completions."""
        return sum(map(len, self.completions))

    @property
    def tokens(self) -> int:
        """Tokens that the model reads: the prompt once per completion."""
        return self.supervised + len(self.completions) * len(self.prompt_ids)


def key(pair: Pair) -> tuple[object, ...]:
    """What pairs of one prompt and one right completion have in common."""
    return pair.prompt, pair.messages, pair.chosen


def gather(pairs: Sequence[Pair], encoded: Sequence[PairTokens]) -> list[Candidates]:
    """The pairs of one prompt and one right completion together, wherever they stand; prompts in the order met."""
    found: dict[tuple[object, ...], list[PairTokens]] = {}
    for pair, tokens in zip(pairs, encoded, strict=True):
        found.setdefault(key(pair), []).append(tokens)
    return [_candidates(rows) for rows in found.values()]


def _candidates(rows: Sequence[PairTokens]) -> Candidates:
    chosen = tuple(rows[0].chosen_ids)
    wrong = dict.fromkeys(tuple(row.rejected_ids) for row in rows)
    return Candidates(
        tuple(rows[0].prompt_ids),
        chosen,
        tuple(said for said in wrong if said != chosen),
        any(row.truncated for row in rows),
    )


def wrong_tokens(chosen: Sequence[int], rejected: Sequence[int]) -> range:
    """Positions of the tokens of `rejected` that say what `chosen` does not.

    What remains when the longest beginning that they share is taken off, and then the longest end; where nothing
    remains, because something was left out, the one token after the shared beginning. The two are not equal.
    """
    shorter = min(len(chosen), len(rejected))
    start = next((at for at in range(shorter) if chosen[at] != rejected[at]), shorter)
    end = 0
    while end < shorter - start and chosen[len(chosen) - 1 - end] == rejected[len(rejected) - 1 - end]:
        end += 1
    if start == len(rejected):
        return range(start, start)  # cut off inside what they share: it says nothing else
    return range(start, max(len(rejected) - end, start + 1))
