"""Sequences that several rows share: those that `packing: true` lays out for a step, and those of `packing: wrapped`,
through which the documents of an epoch run on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from runner.data.epoch_rows import Segment, WrappedRows
from runner.data.epochs import Epochs
from runner.data.tokenizer import Fast
from runner.data.tokens import Tokens
from runner.preview.records import Part, ShownRow
from runner.preview.tokens import learned, tokens_of
from runner.train.packing import bins


def packed(rows: Sequence[tuple[str, Tokens]], wanted: int, fast: Fast) -> Iterator[ShownRow]:
    """Some of the sequences into which the rows of a step are packed, those of the most rows.

    Args:
        rows: of one step, each with where it stands.
        wanted: so many sequences.
    """
    lengths = [len(row.ids) for _, row in rows]
    laid = bins(lengths, max(lengths, default=0))
    most = sorted(range(len(laid)), key=lambda number: -len(laid[number]))[:wanted]
    for number in sorted(most):
        parts = [Part(tuple(learned(fast, rows[row][1])), rows[row][0]) for row in laid[number]]
        yield ShownRow(f"sequence {number + 1} of {len(laid)} of a step", tuple(parts), (_many(len(parts), "row"),))


def wrapped(epochs: Epochs, wanted: int, seed: str, fast: Fast) -> Iterator[ShownRow]:
    """Some of the sequences of the first epoch, as they are trained on."""
    rows = epochs.epoch(0)
    assert isinstance(rows, WrappedRows), "only documents that run on are shown so"
    chosen = random.Random(seed).sample(range(len(rows)), min(wanted, len(rows)))
    for place in sorted(chosen):
        segments = rows.segments(place)
        parts, ids = [], rows[place].ids
        for number, segment in enumerate(segments):
            start = sum(other.tokens for other in segments[:number])
            own = ids[start : start + segment.tokens]
            # nothing predicts the first token of a sequence
            marks = ["learned" if start or at else "given" for at in range(len(own))]
            parts.append(Part(tuple(tokens_of(fast, own, marks)), _heading(epochs, segment)))  # type: ignore[arg-type]
        yield ShownRow(f"sequence {place + 1} of {len(rows)}", tuple(parts), (_many(len(parts), "document"),))


def _heading(epochs: Epochs, segment: Segment) -> str:
    data = epochs.data_of(segment.store)
    words = [f"{data.name}, {data.where(segment.row)}"]
    words += ["goes on from the sequence before"] if not segment.begins else []
    words += ["goes on in the next one"] if not segment.ends else []
    return ", ".join(words)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count != 1 else "")
