"""Pairs as dpo and contrast get them: prompt, chosen and rejected, also where a checkpoint has yet to say what is
rejected."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runner import spec
from runner.data.chat import ChatTemplate
from runner.data.examples import Dataset
from runner.data.pairs import Pair, Preferences
from runner.data.tokenizer import Fast
from runner.data.tokens import PairTokens, encode_pairs
from runner.preview.records import Part, ShownRow
from runner.preview.tokens import Mark, Token, tokens_of


@dataclass(frozen=True)
class PairsOf:
    """A data set with its pairs."""

    data: Dataset
    found: Preferences

    @property
    def asked(self) -> str:
        """The checkpoints that are to say what is rejected, as the recipe names them."""
        return " and ".join(dict.fromkeys(how.sample for how in self.data.rejected if isinstance(how, spec.Sample)))

    def all(self) -> Iterator[tuple[Pair, int | None]]:
        """Every pair; of one whose rejected text is yet to be sampled, how many tokens that can have."""
        yield from ((pair, None) for pair in self.found.pairs)
        yield from zip(self.found.pending_pairs, self.found.pending_tokens, strict=True)


def amount(sets: Sequence[PairsOf]) -> str:
    """How many there are, in words."""
    words = f"{sum(len(one.found.pairs) for one in sets):,} pairs"
    pending = sum(len(one.found.pending_pairs) for one in sets)
    asked = " and ".join(dict.fromkeys(one.asked for one in sets if one.found.pending_pairs))
    return f"{words}, and up to {pending:,} yet to be sampled from {asked}" if pending else words


def drawn(
    sets: Sequence[PairsOf], rows: int, seed: int, max_length: int, fast: Fast, chat: ChatTemplate | None
) -> Iterator[ShownRow]:
    """Some of them, in their order."""
    pairs = [(one, *pair) for one in sets for pair in one.all()]
    chosen = random.Random(f"{seed}:preview").sample(range(len(pairs)), min(rows, len(pairs)))
    for place in sorted(chosen):
        one, pair, later = pairs[place]
        with one.data.placing():
            (ids,) = encode_pairs(fast, [pair], max_length, chat)
        yield _shown(one, pair, later, ids, fast)


def _shown(one: PairsOf, pair: Pair, later: int | None, ids: PairTokens, fast: Fast) -> ShownRow:
    rejected = ids.rejected_ids if later is None else ()
    sides: list[tuple[Sequence[int], Mark]] = [
        (ids.prompt_ids, "given"), (ids.chosen_ids, "preferred"), (rejected, "rejected"),
    ]  # fmt: skip
    tokens: list[Token] = [token for part, mark in sides for token in tokens_of(fast, part, [mark] * len(part))]
    notes = ["cut"] if ids.truncated else []
    notes += [f"rejected yet to be sampled from {one.asked}, at most {later} tokens"] if later is not None else []
    return ShownRow(f"{one.data.name}, {one.data.where(pair.row)}", (Part(tuple(tokens)),), tuple(notes))
