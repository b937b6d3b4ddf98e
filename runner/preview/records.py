"""What a preview holds: of each stage some rows, as its trainer gets them."""

from __future__ import annotations

from dataclasses import dataclass

from runner.preview.tokens import Mark, Token


@dataclass(frozen=True)
class Part:
    """Tokens of a row that belong together."""

    tokens: tuple[Token, ...]
    heading: str = ""
    """What stands above them: which row begins here, where several share a sequence."""


@dataclass(frozen=True)
class ShownRow:
    """One row that a trainer gets, or a sequence of several."""

    where: str
    """Its data set, and where it stands in the source; or which sequence it is."""
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    """What was cut off, and which chunk it is."""

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Those of all parts."""
        return tuple(token for part in self.parts for token in part.tokens)

    def marked(self, *marks: Mark) -> int:
        """How many of its tokens have one of these marks."""
        return sum(token.count for token in self.tokens if token.mark in marks)


@dataclass(frozen=True)
class StagePreview:
    """What is shown of a stage."""

    name: str
    kind: str
    refs: tuple[str, ...]
    amount: str
    """What it trains on in numbers: `40 rows`, `12 pairs`."""
    rows: tuple[ShownRow, ...]
    notes: tuple[str, ...]
    """How its texts are written, cut and laid together."""
