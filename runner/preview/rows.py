"""What is shown of each stage: rows drawn with a seed, as the trainer will get them, token by token."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from runner import spec
from runner.data.epochs import encoding_of
from runner.data.examples import Dataset
from runner.data.tokenizer import Fast
from runner.data.tokens import Encoding, Tokens, encode
from runner.errors import UserError, nearest
from runner.preparation import Prepared
from runner.preview import pairs, sequences
from runner.preview.pairs import PairsOf
from runner.preview.records import Part, ShownRow, StagePreview
from runner.preview.tokens import learned


def preview(prepared: Prepared, stage: str | None, rows: int, seed: int | None = None) -> tuple[StagePreview, ...]:
    """Rows of one stage, or of each.

    Args:
        prepared: the recipe and its data; nothing is written.
        stage: its name.
        rows: of each stage; where rows share sequences, so many sequences.
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
        amount = f"{sum(map(len, sets)):,} rows"
        shown = tuple(_causal(prepared, name, stage, sets, rows, seed))
    else:
        found = zip(stage.data, prepared.preferences(name), strict=True)
        several = [PairsOf(prepared.data.get(ref), one) for ref, one in found]
        amount = pairs.amount(several)
        shown = tuple(pairs.drawn(several, rows, seed, stage.max_length, fast, prepared.chat))
    return StagePreview(name, stage.kind, refs, amount, shown, tuple(_notes(prepared, stage)))


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
    if stage.packing == "wrapped":
        yield f"max_length {stage.max_length}"
        yield "packing wrapped: documents run on, and see each other"
        return
    overlap = f" with an overlap of {stage.chunk_overlap}" if stage.chunk_overlap else ""
    yield f"max_length {stage.max_length}, truncation {stage.truncation}{overlap}"
    if stage.packing:
        yield "packing: rows of a step share sequences, and do not see each other"
    if isinstance(stage, spec.Sft) and stage.prompt_loss_weight:
        yield f"what is given weighs {stage.prompt_loss_weight:g}, what is learned 1"


def _causal(
    prepared: Prepared, name: str, stage: spec.Causal, sets: Sequence[Dataset], rows: int, seed: int
) -> Iterator[ShownRow]:
    fast, how, total = prepared.tokenizer_of(name), encoding_of(stage, prepared.chat), sum(map(len, sets))
    draw = f"{seed}:preview:{name}"
    if stage.packing == "wrapped":
        yield from sequences.wrapped(prepared.epochs(name), rows, draw, fast)
        return
    if stage.packing:
        places = _drawn(draw, total, stage.global_batch_size)
        step = [(_where(*_found(sets, place)), row) for place in places for row in _encoded(sets, place, fast, how)]
        shown = tuple(sequences.packed(step, rows, fast))
        if any(len(row.parts) > 1 for row in shown):
            yield from shown
            return
    for place in _drawn(draw, total, rows):
        yield from _rows(_where(*_found(sets, place)), _encoded(sets, place, fast, how), fast, how)


def _drawn(draw: str, total: int, wanted: int) -> list[int]:
    return sorted(random.Random(draw).sample(range(total), min(wanted, total)))


def _encoded(sets: Sequence[Dataset], place: int, fast: Fast, how: Encoding) -> tuple[Tokens, ...]:
    """The rows that one row of the data becomes."""
    data, position = _found(sets, place)
    with data.placing():
        (made,) = encode(fast, [data.example(position, 0)], how)
    return made


def _rows(where: str, made: Sequence[Tokens], fast: Fast, how: Encoding) -> Iterator[ShownRow]:
    if not made:
        yield ShownRow(where, (), (f"left out: longer than {how.max_length} tokens",))
    for number, row in enumerate(made, start=1):
        notes = ["cut"] if row.truncated else []
        notes += [f"part {number} of {len(made)}"] if len(made) > 1 else []
        yield ShownRow(where, (Part(tuple(learned(fast, row))),), tuple(notes))


def _found(sets: Sequence[Dataset], place: int) -> tuple[Dataset, int]:
    for data in sets:
        if place < len(data):
            return data, place
        place -= len(data)
    raise IndexError(place)


def _where(data: Dataset, position: int) -> str:
    return f"{data.name}, {data.items[position].where}"
