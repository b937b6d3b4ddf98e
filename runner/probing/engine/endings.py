"""Endings: when a reply is over, and the text it then is."""

from __future__ import annotations

from typing import Any

from runner.probing.engine.rows import Row

_BYTES_PER_CHARACTER = 4
_DAMAGED = "\ufffd"


class Endings:
    """What a checkpoint's tokenizer says about the end of a reply."""

    def __init__(self, tokenizer: Any, eos: frozenset[int]) -> None:
        self.eos = eos
        self._tokenizer = tokenizer
        self._may_end: dict[tuple[str, ...], dict[int, bool]] = {}

    def stopped(self, row: Row) -> bool:
        """Whether the newest token of `row` completed one of its stop strings."""
        if row.new[-1] in row.stop_ids:
            return True
        stops = row.question.decoding.stop
        known = self._may_end.setdefault(stops, {})
        token = row.new[-1]
        if token not in known:
            known[token] = self._could_end(token, stops)
        if not known[token]:
            return False
        # a character takes up to four byte-level tokens: only so much of the end can hold a stop string that is new;
        # the whole text decides, because the end alone may begin in the middle of a character
        tail = self._decode(row.new[-_BYTES_PER_CHARACTER * (max(map(len, stops)) + 1) :])
        return any(stop in tail for stop in stops) and any(stop in self._decode(row.new) for stop in stops)

    def _could_end(self, token: int, stops: tuple[str, ...]) -> bool:
        """Whether this token can hold the last character of a stop string; most cannot, and the text is not read."""
        text = self._decode([token])
        # a part of a character, or a token whose text depends on what stands before it, such as a leading blank
        if _DAMAGED in text or any(stop[-1].isspace() for stop in stops):
            return True
        return any(stop[-1] in text for stop in stops)

    def text(self, row: Row) -> str:
        """The reply, without what ended it."""
        text = self._decode(row.new)
        if row.stop_reason != "stop":
            return text
        return text[: min((at for stop in row.question.decoding.stop if (at := text.find(stop)) >= 0), default=None)]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
