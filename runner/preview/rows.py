"""What is shown of each stage: rows drawn with a seed, as the trainer will get them, token by token."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from runner import spec
from runner.data.datasets import Dataset
from runner.data.epochs import encoding_of
from runner.data.tokens import Encoding, Fast, Tokens, encode, encode_pairs
from runner.errors import UserError, nearest
from runner.preparation import Prepared

Mark = Literal["given", "learned", "preferred", "rejected"]
"""What becomes of a token: nothing, it is supervised, or it is of a pair's chosen or rejected answer."""

_MOST_PIECES = 6
"""Tokens that a character may be split into: byte-level tokenizers give up to four, some add one of their own."""
_BROKEN = "\ufffd"


@dataclass(frozen=True)
class Token:
    """One token as it is shown."""

    text: str
    mark: Mark
    special: bool = False
    count: int = 1
    """Tokens that are shown as this one, because each of them alone is no character."""


@dataclass(frozen=True)
class ShownRow:
    """One row that a trainer gets."""

    where: str
    """Its data set, and where it stands in the source."""
    tokens: tuple[Token, ...]
    notes: tuple[str, ...] = ()
    """What was cut off, and which chunk it is."""

    def marked(self, *marks: Mark) -> int:
        """How many of its tokens have one of these marks."""
        return sum(token.count for token in self.tokens if token.mark in marks)


@dataclass(frozen=True)
class StagePreview:
    """What is shown of a stage."""

    name: str
    kind: str
    refs: tuple[str, ...]
    of_rows: int
    rows: tuple[ShownRow, ...]
    notes: tuple[str, ...]
    """How its texts are written, cut and laid together."""


def preview(prepared: Prepared, stage: str | None, rows: int, seed: int | None = None) -> tuple[StagePreview, ...]:
    """Rows of one stage, or of each.

    Args:
        prepared: the recipe and its data; nothing is written.
        stage: its name.
        rows: of each stage.
        seed: of the draw; the recipe's by default.

    Raises:
        UserError: there is no such stage.
        BadData: a row cannot be written.
    """
    stages = prepared.recipe.stages
    if stage is not None and stage not in stages:
        near = nearest(stage, stages)
        raise UserError(
            f"the recipe has no stage {stage}",
            hint=f"did you mean {near}?" if near else f"there are: {', '.join(stages)}",
        )
    drawn_with = prepared.recipe.seed if seed is None else seed
    return tuple(_stage(prepared, name, rows, drawn_with) for name in stages if stage in (None, name))


def _stage(prepared: Prepared, name: str, rows: int, seed: int) -> StagePreview:
    stage = prepared.recipe.stages[name]
    refs = tuple(dict.fromkeys((*stage.data, *prepared.recipe.replayed(name))))
    sets = [prepared.data.get(ref) for ref in refs]
    fast = prepared.tokenizer_of(name)
    if isinstance(stage, spec.Causal):
        how = encoding_of(stage, prepared.chat)
        total = sum(map(len, sets))
        drawn = random.Random(f"{seed}:preview:{name}").sample(range(total), min(rows, total))
        shown = [row for place in sorted(drawn) for row in _rows(sets, place, fast, how)]
    else:
        total, shown = _pairs(prepared, sets, rows, seed, stage, fast)
    return StagePreview(name, stage.kind, refs, total, tuple(shown), tuple(_notes(prepared, stage)))


def _notes(prepared: Prepared, stage: spec.Stage) -> Iterator[str]:
    chat = prepared.chat
    if chat is not None:
        yield f"chat template {chat.origin}" + (", which ships" if chat.origin in spec.CHAT_TEMPLATES else "")
        if chat.dated:
            yield "the chat template writes today's date: what is trained depends on the day"
    else:
        yield "no chat template"
    if not isinstance(stage, spec.Causal):
        yield f"max_length {stage.max_length}"
        return
    overlap = f" with an overlap of {stage.chunk_overlap}" if stage.chunk_overlap else ""
    yield f"max_length {stage.max_length}, truncation {stage.truncation}{overlap}"
    if stage.packing:
        yield "packing wrapped" if stage.packing == "wrapped" else "packing"
    if isinstance(stage, spec.Sft) and stage.prompt_loss_weight:
        yield f"what is given weighs {stage.prompt_loss_weight:g}, what is learned 1"


def _rows(sets: Sequence[Dataset], place: int, fast: Fast, how: Encoding) -> Iterator[ShownRow]:
    """The rows that one row of the data becomes."""
    data, position = _found(sets, place)
    example = data.example(position, 0)
    where = _where(data, position)
    (made,) = encode(fast, [example], how)
    if not made:
        yield ShownRow(where, (), (f"left out: longer than {how.max_length} tokens",))
    for number, row in enumerate(made, start=1):
        notes = ["cut"] if row.truncated else []
        notes += [f"part {number} of {len(made)}"] if len(made) > 1 else []
        yield ShownRow(where, tuple(_shown(fast, row)), tuple(notes))


def _found(sets: Sequence[Dataset], place: int) -> tuple[Dataset, int]:
    for data in sets:
        if place < len(data):
            return data, place
        place -= len(data)
    raise IndexError(place)


def _where(data: Dataset, position: int) -> str:
    return f"{data.name}, {data.items[position].where}"


def _shown(fast: Fast, row: Tokens) -> Iterator[Token]:
    # nothing predicts a row's first token
    learned = {place for start, stop in row.spans for place in range(max(start, 1), stop)}
    marks: list[Mark] = ["learned" if place in learned else "given" for place in range(len(row.ids))]
    return tokens_of(fast, row.ids, marks)


def _pairs(
    prepared: Prepared, sets: Sequence[Dataset], rows: int, seed: int, stage: spec.Stage, fast: Fast
) -> tuple[int, list[ShownRow]]:
    """How many pairs there are, and some of them."""
    pairs = [(data, pair) for data in sets for pair in data.pairs()]
    drawn = random.Random(f"{seed}:preview").sample(range(len(pairs)), min(rows, len(pairs)))
    some = [pairs[place] for place in sorted(drawn)]
    shown = []
    for (data, pair), ids in zip(
        some, encode_pairs(fast, [pair for _, pair in some], stage.max_length, prepared.chat), strict=True
    ):
        sides: list[tuple[Sequence[int], Mark]] = [
            (ids.prompt_ids, "given"),
            (ids.chosen_ids, "preferred"),
            (ids.rejected_ids, "rejected"),
        ]
        tokens = [token for part, mark in sides for token in tokens_of(fast, part, [mark] * len(part))]
        where = f"{data.name}, row {pair.row + 1}"
        shown.append(ShownRow(where, tuple(tokens), ("cut",) if ids.truncated else ()))
    return len(pairs), shown


def tokens_of(fast: Fast, ids: Sequence[int], marks: Sequence[Mark]) -> Iterator[Token]:
    """Tokens with the text that each adds; those that are a part of a character are shown as one."""
    place = 0
    while place < len(ids):
        mark = marks[place]
        if ids[place] in fast.special_ids:
            yield Token(str(fast.tokenizer.id_to_token(ids[place])), mark, special=True)
            place += 1
            continue
        text, size = _text(fast, ids, marks, place)
        yield Token(text, mark, count=size)
        place += size


def _text(fast: Fast, ids: Sequence[int], marks: Sequence[Mark], place: int) -> tuple[str, int]:
    """The text of the token at `place`, and of how many tokens it took to be whole characters."""
    # some decoders drop the blank before a first word: what is before decides whether it is one
    before = list(ids[place - 1 : place]) if place and ids[place - 1] not in fast.special_ids else []
    head = _decoded(fast, before)
    first = ""
    for size in range(1, _MOST_PIECES + 1):
        some = list(ids[place : place + size])
        if len(some) < size or marks[place + size - 1] != marks[place] or some[-1] in fast.special_ids:
            break
        whole = _decoded(fast, before + some)
        text = whole[len(head) :] if whole.startswith(head) else _decoded(fast, some)
        first = first or text
        if _BROKEN not in text:
            return text, size
    return first, 1


def _decoded(fast: Fast, ids: list[int]) -> str:
    return str(fast.tokenizer.decode(ids, skip_special_tokens=False)) if ids else ""
