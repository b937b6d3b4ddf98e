"""What dpo and contrast are trained on: the pairs as token ids, how many rows they are, and counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runner import spec, underway
from runner.data import candidates
from runner.data.candidates import Candidates
from runner.data.chat import ChatTemplate
from runner.data.counts import Counts
from runner.data.epochs import epoch_order
from runner.data.examples import Dataset
from runner.data.pairs import Pair, Preferences, Samples
from runner.data.tokenizer import Fast
from runner.data.tokens import PairTokens, encode_pairs

_BATCH_PAIRS = 1000
"""Encoded at a time."""


def of(sets: Sequence[Dataset], said: Samples) -> list[Preferences]:
    """The preferences of each data set, with what checkpoints said."""
    return [found.preferences(said) for found in sets]


def rows(stage: spec.Stage, found: Sequence[Preferences]) -> int:
    """Pairs, for contrast prompts; where a checkpoint has yet to be asked, at most so many."""
    pairs = [pair for one in found for pair in (*one.pairs, *one.pending_pairs)]
    return len({candidates.key(pair) for pair in pairs}) if isinstance(stage, spec.Contrast) else len(pairs)


def encoded(
    found: Sequence[Preferences], fast: Fast, max_length: int, chat: ChatTemplate | None
) -> tuple[list[Pair], list[PairTokens]]:
    """The pairs, and their token ids.

    Raises:
        BadData: see `encode_pairs`.
    """
    pairs, tokens = list[Pair](), list[PairTokens]()
    for one in found:
        pairs += one.pairs
        tokens += _encoded(one, one.pairs, fast, max_length, chat)
    return pairs, tokens


def _encoded(
    one: Preferences, pairs: Sequence[Pair], fast: Fast, max_length: int, chat: ChatTemplate | None
) -> list[PairTokens]:
    with one.placing(), underway.work("tokenizing pairs", len(pairs), "pairs") as encoding:
        made = list[PairTokens]()
        for start in range(0, len(pairs), _BATCH_PAIRS):
            made += encode_pairs(fast, pairs[start : start + _BATCH_PAIRS], max_length, chat)
            encoding.advance(len(made) - encoding.done)
        return made


def counts(
    stage: spec.Stage,
    found: Sequence[Preferences],
    fast: Fast,
    chat: ChatTemplate | None,
    seed: int,
    total_steps: int,
) -> Counts:
    """Counts of a stage over all its steps, as `Epochs.counts`; a prompt's tokens count once per completion, as the
    model reads them. Where a checkpoint has yet to be asked they are the most that there can be."""
    pairs, tokens = encoded(found, fast, stage.max_length, chat)
    for one in found:
        later = _encoded(one, one.pending_pairs, fast, stage.max_length, chat)
        for number, (pair, row, most) in enumerate(zip(one.pending_pairs, later, one.pending_tokens, strict=True)):
            room = max(stage.max_length - len(row.prompt_ids), 1)
            # ids that are no token's, so that no two of them are alike
            pairs.append(pair)
            tokens.append(replace(row, rejected_ids=[-1 - number] * min(most + 1, room)))
    if isinstance(stage, spec.Contrast):
        made = candidates.gather(pairs, tokens)
    else:
        made = [Candidates(row.prompt_ids, row.chosen_ids, (row.rejected_ids,), row.truncated) for row in tokens]
    return _counts(made, fast.unknown_id, seed, stage.global_batch_size, total_steps)


def _counts(rows: Sequence[Candidates], unknown_id: int | None, seed: int, batch: int, total_steps: int) -> Counts:
    whole, rest = divmod(total_steps, -(-len(rows) // batch))
    times = [whole] * len(rows)
    for index in epoch_order(len(rows), seed, whole)[: rest * batch]:
        times[index] += 1
    seen = list(zip(times, rows, strict=True))
    return Counts(
        rows=sum(times),
        tokens=sum(count * row.tokens for count, row in seen),
        supervised=sum(count * row.supervised for count, row in seen),
        truncated=sum(count for count, row in seen if row.truncated),
        dropped=sum(count for count, row in seen if row.prefers_nothing),
        unknown=0 if unknown_id is None else sum(count * _unknown(row, unknown_id) for count, row in seen),
    )


def _unknown(row: Candidates, unknown_id: int) -> int:
    said = [*row.completions, *[row.prompt_ids] * len(row.completions)]
    return sum(list(part).count(unknown_id) for part in said)
