"""Bytes and values made a little, or much, other than they were, as the generator that is given draws."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**30, 0.0, -0.0, 0.5, 1.5, 1e-320, 1e308,
    float("inf"), float("nan"),
    "", " ", "\n", "a", "心", "é\u0301", "\u2028", "\ufeff", "\ud800", "\x00", "\x1b[31m", "]]>", "../..", "/",
    "~", "*", "**", "%s",
    "{{", "{{ x }}", "{{ char }}", "{% for x in y %}", "{# ", "{{ other.char }}", "{{ 1/0 }}", "{{ {}.a.b }}",
    "on", "null", "2e-5",
    "1:30", "0x1f", "-", "a.b", "a@last", "a@-1", "base@epoch=0.5", "@", "x" * 5000, "'" * 99, [], {}, [[]],
    [None], [{}], [1, "a"],
    {"": None}, {"a": 1}, {"a": {"b": []}}, {"role": "user", "content": "x"}, [{"from": "gpt", "value": "x"}],
    [["q", "a"]],
)  # fmt: skip
"""Values that are seldom meant."""

Bytes = Callable[[random.Random, bytes], bytes]


def mutated(draw: random.Random, text: bytes, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """`text` with one to eight changes.

    Args:
        draw: decides everything.
        text: what is changed.
        words: that may mean something there.
        others: texts of which pieces are put in.
    """
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        text = draw.choice(_CHANGES)(draw, text, words, others)
    return text


def _place(draw: random.Random, text: bytes) -> tuple[int, int]:
    """A span of a few bytes, or of many."""
    start = draw.randint(0, len(text))
    return start, min(len(text), start + draw.choice((0, 1, 1, 2, 4, 16, 200)))


def _flipped(draw: random.Random, text: bytes, _words: Sequence[bytes], _others: Sequence[bytes]) -> bytes:
    if not text:
        return text
    at = draw.randrange(len(text))
    return text[:at] + bytes([text[at] ^ (1 << draw.randrange(8))]) + text[at + 1 :]


def _cut(draw: random.Random, text: bytes, _words: Sequence[bytes], _others: Sequence[bytes]) -> bytes:
    start, stop = _place(draw, text)
    return text[:start] + text[stop:]


def _ended(draw: random.Random, text: bytes, _words: Sequence[bytes], _others: Sequence[bytes]) -> bytes:
    return text[: draw.randint(0, len(text))]


def _said_again(draw: random.Random, text: bytes, _words: Sequence[bytes], _others: Sequence[bytes]) -> bytes:
    start, stop = _place(draw, text)
    return text[:stop] + text[start:stop] * draw.choice((1, 1, 2, 50)) + text[stop:]


def _worded(draw: random.Random, text: bytes, words: Sequence[bytes], _others: Sequence[bytes]) -> bytes:
    start, stop = _place(draw, text)
    return text[:start] + draw.choice(words) + text[stop if draw.random() < 0.5 else start :]


def _random(draw: random.Random, text: bytes, _words: Sequence[bytes], _others: Sequence[bytes]) -> bytes:
    start, stop = _place(draw, text)
    return text[:start] + draw.randbytes(draw.choice((1, 2, 4, 64))) + text[stop:]


def _spliced(draw: random.Random, text: bytes, _words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    other = draw.choice(others)
    start, stop = _place(draw, other)
    at = draw.randint(0, len(text))
    return text[:at] + other[start:stop] + text[at:]


def _lines(draw: random.Random, text: bytes, _words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """A line is dropped, moved, indented, said twice, or comes from another text."""
    lines = text.split(b"\n")
    at, to = draw.randrange(len(lines)), draw.randrange(len(lines))
    line = lines.pop(at)
    what = draw.randrange(5)
    if what == 1:
        lines.insert(to, line)
    elif what == 2:
        lines.insert(at, b" " * draw.randint(0, 9) + line.lstrip())
    elif what == 3:
        lines[at:at] = [line, line]
    elif what == 4:
        lines[at:at] = [line, draw.choice(draw.choice(others).split(b"\n"))]
    return b"\n".join(lines)


_CHANGES = (_flipped, _cut, _ended, _said_again, _worded, _worded, _random, _spliced, _lines, _lines)


def other_value(draw: random.Random, value: Any, make: Callable[[], Any]) -> Any:
    """`value` with one thing inside it exchanged for what `make` gives, dropped, or put elsewhere."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        if (what := draw.random()) < 0.08:
            return {name: item for name, item in value.items() if name != key}
        if what < 0.16:
            return {**value, draw.choice(("", "x", "心", str(key) + "s", "text", "rows")): make()}
        return {**value, key: other_value(draw, value[key], make)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        if draw.random() < 0.1:
            return value[:at] + value[at + 1 :]
        return [*value[:at], other_value(draw, value[at], make), *value[at + 1 :]]
    return make()
