"""What became of a data set's rows, for the plan and the files of a run: counted, measured, and by the first that are
bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runner.data import measures
from runner.data.examples import Dataset
from runner.data.layers import Layer, Shape
from runner.data.measures import Diversity
from runner.data.sources import SHOWN_BAD, BadRow

WORDS: Mapping[Shape, str] = {
    "text": "documents", "prompt": "prompt, completion", "messages": "conversations", "pairs": "pairs", "rows": "rows",
}  # fmt: skip


@dataclass(frozen=True)
class LeftOut:
    """Rows of one data set that are not used."""

    name: str
    """Of the data set that leaves them out: this one, or one that it is made from."""
    rows: Mapping[str, int]
    """By reason: `bad`, `empty`, `duplicate`, `longer than 500 characters`."""
    first_bad: tuple[BadRow, ...]
    """What is wrong with the first bad ones."""


@dataclass(frozen=True)
class Account:
    """A data set, or a split of it, as the plan shows it."""

    ref: str
    rows: int
    written_as: str
    """`documents`, `prompt, completion`, `conversations`, `pairs`, and the named format, declared or recognised."""
    duplicates: int
    """Rows that are written like an earlier one, and used all the same."""
    left_out: tuple[LeftOut, ...]
    diversity: Diversity

    def lines(self) -> tuple[str, ...]:
        """What is worth a sentence: what was left out, and the first bad rows."""
        found = []
        for left in self.left_out:
            reasons = ", ".join(f"{rows:,} {why}" for why, rows in left.rows.items())
            found.append(f"data.{left.name}: left out: {reasons}")
            found += [f"  {bad.where}: {bad.reason}" if bad.where else f"  {bad.reason}" for bad in left.first_bad]
        return tuple(found)

    def record(self) -> dict[str, Any]:
        """The counts and measures, for the files of a run."""
        return {
            "rows": self.rows,
            "written_as": self.written_as,
            "duplicates": self.duplicates,
            "left_out": {left.name: dict(left.rows) for left in self.left_out},
            "diversity": asdict(self.diversity),
        }


def of(data: Dataset, layer: Layer) -> Account:
    """Every row is written once, in all its ways.

    Args:
        layer: the one that `data` is a view of.

    Raises:
        BadData: a row cannot be read or written.
    """
    every = max(len(data) // measures.SAMPLE_ROWS, 1)
    sample = ("\n".join(data.example(position, 0).texts) for position in range(0, len(data), every))
    return Account(
        data.name,
        len(data),
        _written_as(layer),
        data.repeats,
        tuple(_left_out(layer)),
        measures.diversity(sample),
    )


def _written_as(layer: Layer) -> str:
    words = WORDS[layer.shape]
    source: Layer | None = layer
    while source is not None and not source.block.writes:
        if source.format is not None and source.format != "text":
            said = "declared" if source.block.format is not None else "recognised"
            return f"{words} ({source.format}, {said})"
        source = source.parent
    return words


def _left_out(layer: Layer) -> list[LeftOut]:
    """The source first."""
    found = _left_out(layer.parent) if layer.parent is not None else []
    rows, first = dict(layer.kept.left_out), layer.kept.first_bad
    if layer.parent is None and layer.table.bad:
        rows["bad"] = rows.get("bad", 0) + layer.table.bad
        first = (*layer.table.first_bad, *first)[:SHOWN_BAD]
    return [*found, LeftOut(layer.name, rows, first)] if rows else found
