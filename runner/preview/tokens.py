"""Token ids as they are shown: the text that each adds, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from runner.data.tokenizer import Fast
from runner.data.tokens import Tokens

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


def learned(fast: Fast, row: Tokens) -> Iterator[Token]:
    """The tokens of a row that a stage of next-token prediction trains on."""
    # nothing predicts a row's first token
    places = {place for start, stop in row.spans for place in range(max(start, 1), stop)}
    marks: list[Mark] = ["learned" if place in places else "given" for place in range(len(row.ids))]
    return tokens_of(fast, row.ids, marks)


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
