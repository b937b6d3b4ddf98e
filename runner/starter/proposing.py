"""What a first recipe for a file of rows is to be: split, model, stages and suite, each with its reason. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from runner.errors import BadData
from runner.starter.looking import Column, Look

LEAST_ROWS = 5
"""Fewer cannot be divided into rows to learn and rows to ask about."""
HELD_OUT = 100
"""Rows that are held out, of many; of few it is a fifth."""
ASKED = 20
"""Cases of a suite whose replies are long."""
SHORT = 40
"""Characters: an answer that is not longer is compared to the letter."""
BATCH, PAIRS = 16, 8
"""Rows, and pairs, of a step."""
_TOKENS = 400_000
"""That a first run learns from: about half a minute on two cores."""
_MOST_EPOCHS, _MOST_PAIR_STEPS = 30, 24
_LONGEST_ROW = 512
"""Tokens of a row: what is longer takes long on a processor."""
_CHARACTERS = 4000
"""A vocabulary of so many characters is still small beside its texts."""
_CHARS_PER_TOKEN = 2.5
"""About, of a small byte-level vocabulary."""
_ID_CHARS = 32

What = Literal["documents", "answers", "pairs"]


@dataclass(frozen=True)
class Key:
    """What the split goes by."""

    name: str
    is_column: bool
    """Whether it is a column of the file; else it is what is asked, as the rows are read."""
    why: str


@dataclass(frozen=True)
class Training:
    """How long a stage trains."""

    epochs: int
    """0 where not even all rows are seen once."""
    steps: int
    """Of the whole stage."""
    save_every: int


@dataclass(frozen=True)
class Proposal:
    """A first recipe, without its words."""

    what: What
    key: Key
    held_out: float
    """Share of the keys."""
    asks: bool
    """Whether something is asked before it is said; pairs of texts alone have no question."""
    converses: bool
    """Whether conversations are learned, which a chat template writes."""
    last_round: bool
    """Whether some rows hold a conversation and some do not, so that of all only the last question is learned."""
    parted: bool
    """Whether a line end is put between what is asked and what is said, as neither has white space there."""
    is_exact: bool
    """Whether answers are short enough to be compared to the letter."""
    tokenizer: Literal["char", "bpe"]
    max_length: int
    """Tokens of a row; longer ones are cut, documents go on in another row."""
    training: Training
    preferring: Training | None
    """Of the stage that learns from pairs."""
    max_new_tokens: int
    """Of a reply."""


def propose(look: Look) -> Proposal:
    """What goes with these rows.

    Raises:
        BadData: there are too few of them, or nothing tells them apart.
    """
    if look.rows < LEAST_ROWS:
        raise BadData(
            f"{look.path} has {look.rows} row{'s' if look.rows != 1 else ''} that can be used",
            expected=f"at least {LEAST_ROWS}: some are learned, and some are held out to ask about",
        )
    what: What = "documents" if look.field("text") else "pairs" if look.field("chosen") else "answers"
    key, keys = _key(look)
    held_out = max(1 / keys, min(0.2, HELD_OUT / keys))
    said = look.field("text") or look.field("chosen") or look.field("completion")
    asked = look.field("prompt")
    assert said is not None
    chars = said.lengths.most + (asked.lengths.most if asked is not None else 0)
    median = said.lengths.median + (asked.lengths.median if asked is not None else 0)
    asks = what != "documents" and asked is not None and asked.filled > 0
    is_exact = asks and said.lengths.most <= SHORT
    by_characters = chars <= _LONGEST_ROW and look.characters <= _CHARACTERS
    per_token = 1.0 if by_characters else _CHARS_PER_TOKEN
    longest = min(_LONGEST_ROW, 32 * math.ceil((chars / per_token + 32) / 32))
    row = min(longest, median / per_token + 2)
    rows = max(1, round(look.rows * (1 - held_out)))
    training = _training(rows, row, BATCH)
    return Proposal(
        what=what,
        key=key,
        held_out=held_out,
        asks=asks,
        converses=look.converses,
        last_round=look.converses and look.format == "alpaca",
        parted=asks and not look.converses and not look.several_rejected and look.format in (None, "preference"),
        is_exact=is_exact,
        tokenizer="char" if by_characters else "bpe",
        max_length=longest,
        training=training,
        preferring=_pair_training(rows) if what == "pairs" else None,
        max_new_tokens=min(256, 8 * math.ceil((said.lengths.most / per_token * 1.25 + 8) / 8)),
    )


def _key(look: Look) -> tuple[Key, int]:
    """What the split goes by, and how many different values it has.

    What is asked about comes first: rows that ask the same must not stand on two sides. A short column that is
    different in every row does the same where none asks twice, and gives the cases better names.
    """
    asked = next((field for name in ("prompt", "text", "chosen") if (field := look.field(name)) and field.filled), None)
    assert asked is not None
    twice = look.rows - asked.distinct if asked.filled == 1 else look.rows
    short = [column for column in look.columns if _names_rows(column, look)]
    if short and (not twice or asked.distinct < LEAST_ROWS):
        best = next((column for column in short if column.name.casefold() == "id"), short[0])
        return Key(best.name, True, f"different in every row, and short: {best.name} names the cases"), best.distinct
    source = look.guess.fields.get(asked.name, asked.name)
    in_file = any(column.name == source and column.is_scalar for column in look.columns) and look.format != "alpaca"
    if asked.filled == 1 and asked.distinct >= LEAST_ROWS:
        what = "text" if asked.name == "text" else "question"
        share = f"{asked.distinct:,} different ones in {look.rows:,} rows"
        why = f"{share}: the same {what} never stands on two sides"
        return Key(asked.name, in_file, why), asked.distinct
    varied = sorted((one for one in look.columns if one.is_scalar and one.filled == 1), key=lambda one: -one.distinct)
    if not varied or varied[0].distinct < LEAST_ROWS:
        raise BadData(
            f"{look.path}: nothing tells its rows apart: what is asked is empty somewhere, or nearly always the same",
            expected=f"a column with at least {LEAST_ROWS} different values, in every row",
        )
    return Key(varied[0].name, True, "what is asked does not tell rows apart; this does"), varied[0].distinct


def _names_rows(column: Column, look: Look) -> bool:
    unique = column.is_scalar and column.filled == 1 and column.distinct == look.rows
    return unique and column.lengths.longest <= _ID_CHARS


def _training(rows: int, row_tokens: float, batch: int) -> Training:
    epochs = min(_MOST_EPOCHS, int(_TOKENS / (rows * row_tokens)))
    steps = math.ceil(rows / batch) * epochs or max(1, int(_TOKENS / (batch * row_tokens)))
    return Training(epochs, steps, math.ceil(steps / 3))


def _pair_training(rows: int) -> Training:
    once = math.ceil(rows / PAIRS)
    return Training(int(once <= _MOST_PAIR_STEPS), steps := min(once, _MOST_PAIR_STEPS), steps)
