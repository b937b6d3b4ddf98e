"""The preview as a terminal shows it: what is learned stands on lines of its own, with a mark that needs no colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.text import Text

from runner.errors import cells, printable
from runner.preview.records import ShownRow, StagePreview
from runner.preview.tokens import Mark, Token
from runner.tables import BAD, DIM, GOOD, MARK

_SIGN: dict[Mark, str] = {"given": " ", "learned": "+", "preferred": "+", "rejected": "-"}
_STYLE: dict[Mark, str] = {"given": DIM, "learned": GOOD, "preferred": GOOD, "rejected": BAD}
_INDENT = 4
_BETWEEN = "│"
_BEGINS = "┄"
_MOST_TOKENS = 240
"""Of a part of a row; of a longer one the middle is left out."""


def screen(stages: Sequence[StagePreview], width: int) -> Text:
    """All stages; `width` in cells."""
    shown = Text()
    for number, stage in enumerate(stages):
        shown.append("\n" if number else "")
        _stage(shown, stage, width)
    shown.append(f"\n{_legend(stages)}", DIM)
    return shown


def _legend(stages: Sequence[StagePreview]) -> str:
    tokens = [token for stage in stages for row in stage.rows for token in row.tokens]
    marks = {token.mark for token in tokens}
    words = ["+ learned"] if "learned" in marks else []
    words += ["+ chosen"] if "preferred" in marks else []
    words += ["- rejected"] if "rejected" in marks else []
    words += [f"{_BETWEEN} between tokens", "␣ blank", "↵ line break"]
    words += (
        [f"{_BEGINS} another row"]
        if any(part.heading for stage in stages for row in stage.rows for part in row.parts)
        else []
    )
    words += ["×3 a character of 3 tokens"] if any(token.count > 1 for token in tokens) else []
    return "; ".join(words)


def _stage(shown: Text, stage: StagePreview, width: int) -> None:
    shown.append(f"{stage.name}", MARK)
    head = f": {stage.kind} on {', '.join(stage.refs)}, {stage.amount}; {'; '.join(stage.notes)}"
    lines = _wrapped(head, width, len(stage.name))
    shown.append("\n".join(lines) + "\n")
    for row in stage.rows:
        _row(shown, row, width)


def _wrapped(text: str, width: int, used: int) -> list[str]:
    """Words in lines, of which the first has so many cells in use, and the others are indented by two."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        room = width - (used if not lines else 0)
        if line and cells(line) + 1 + cells(word) > room:
            lines.append(line)
            line = f"  {word}"
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _row(shown: Text, row: ShownRow, width: int) -> None:
    answers = [("learned", row.marked("learned")), ("chosen", row.marked("preferred"))]
    answers += [("rejected", row.marked("rejected"))]
    whole = row.marked("given", "learned", "preferred", "rejected")
    counts = [f"{whole} tokens"] + [f"{count} {name}" for name, count in answers if count]
    if whole and len(counts) == 1:
        counts.append("none learned")
    facts = ", ".join([*(counts if whole else []), *row.notes])
    shown.append("\n" + "\n".join(_wrapped(f"{row.where}: {facts}", width, 0)) + "\n")
    for part in row.parts:
        if part.heading:
            heading = "\n  ".join(_wrapped(f"{_BEGINS} {part.heading}", width - 2, 0))
            shown.append(f"  {heading}\n", DIM)
        _part(shown, part.tokens, width)


def _part(shown: Text, tokens: Sequence[Token], width: int) -> None:
    for mark, alike in groupby(tokens, key=lambda token: token.mark):
        for line in _lines(list(alike), width - _INDENT):
            shown.append(f"  {_SIGN[mark]} ", _STYLE[mark])
            for number, cell in enumerate(line):
                shown.append(_BETWEEN if number else "", DIM)
                shown.append(cell.text, f"{MARK} {_STYLE[mark]}" if cell.special else _STYLE[mark])
            shown.append("\n")


def _lines(tokens: Sequence[Token], width: int) -> Iterator[list[Token]]:
    """Tokens as they are written, in lines of at most `width` cells; each ends at a line break of the text."""
    line: list[Token] = []
    used = 0
    for token in _shortened(tokens):
        text = visible(token)
        for start in range(0, max(len(text), 1), width):  # a token may be wider than a line
            part = text[start : start + width]
            needed = cells(part) + bool(line)
            if line and used + needed > width:
                yield line
                line, used, needed = [], 0, cells(part)
            line.append(Token(part, token.mark, token.special))
            used += needed
        if token.text.endswith("\n"):
            yield line
            line, used = [], 0
    if line:
        yield line


def _shortened(tokens: Sequence[Token]) -> Sequence[Token]:
    left_out = len(tokens) - _MOST_TOKENS
    if left_out <= 0:
        return tokens
    start, end = _MOST_TOKENS * 2 // 3, _MOST_TOKENS // 3
    return [*tokens[:start], Token(f"… {left_out:,} more tokens …", tokens[0].mark, special=True), *tokens[-end:]]


def visible(token: Token) -> str:
    """A token's text with blanks and line breaks that can be seen, and nothing that a terminal obeys."""
    if token.special:
        return printable(token.text)
    text = token.text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")
    return printable(text) + (f"×{token.count}" if token.count > 1 else "")
