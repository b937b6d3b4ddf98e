"""Prompts: questions become rows of token ids, through the chat template where there is one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from runner.data.chat import ChatTemplate, TemplateFault
from runner.data.texts import Message
from runner.errors import first_line
from runner.probing.engine.rows import Row
from runner.probing.questions import Question

_BEFORE = 32
"""Characters of the prompt before a choice that can change how the choice is cut into tokens."""


class Prompts:
    """A checkpoint's tokenizer, and how it is used."""

    def __init__(self, tokenizer: Any, longest: int | None, chat: bool) -> None:
        """Note what the tokenizer has.

        Args:
            longest: tokens that the model takes; None where it does not say.
            chat: ask through the tokenizer's chat template, where it has one.
        """
        self._tokenizer, self._longest = tokenizer, longest
        # rendered in the project's own sandbox: transformers', which gives the same text, lets a template run away
        found = bool(getattr(tokenizer, "chat_template", None))
        self._template = ChatTemplate(tokenizer.get_chat_template(), "the checkpoint") if found else None
        self._chat = chat and found
        special = [getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos")]
        self._start = [id for id in special if id is not None][:1]
        pairs = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        self._special: dict[str, int] = dict(pairs)
        self._choices: dict[tuple[str, str], tuple[int, ...]] = {}

    def rows(self, questions: Sequence[Question], adapters: Sequence[str]) -> list[Row]:
        """One row per question; of one that cannot be asked, the row says why."""
        rows = [self._rendered(number, *each) for number, each in enumerate(zip(questions, adapters, strict=True))]
        for templated in (True, False):
            some = [row for row in rows if not row.error and self._templated(row.question) == templated]
            if not some:
                continue
            # a chat template writes its own special tokens; otherwise the tokenizer adds what it adds to any text
            encoded = self._tokenizer([row.prompt for row in some], add_special_tokens=not templated)["input_ids"]
            for row, ids in zip(some, encoded, strict=True):
                row.ids = ids or list(self._start)
                self._measure(row)
        return rows

    def _templated(self, question: Question) -> bool:
        return not question.raw and (self._chat or bool(question.messages))

    def _rendered(self, number: int, question: Question, adapter: str) -> Row:
        row = Row(number, question, question.prompt, adapter=adapter)
        if not self._templated(question):
            return row
        if self._template is None:
            row.error = "the question has messages, and the checkpoint's tokenizer has no chat template"
            return row
        turns = [Message(message.role, message.content) for message in question.messages]
        turns = turns or [Message("user", question.prompt)]
        special = {name: str(token) for name, token in self._tokenizer.special_tokens_map.items()}
        try:
            row.prompt = self._template.render(turns, special, ask=True, more=json.loads(question.template_kwargs))
        except TemplateFault as error:
            row.error = f"the chat template cannot write the prompt: {first_line(error)}"
        return row

    def _measure(self, row: Row) -> None:
        """See that the model takes the row's prompt, and how far it can be answered."""
        decoding = row.question.decoding
        row.choices = [self._choice(row.prompt[-_BEFORE:], choice) for choice in row.question.choices]
        needed = max(map(len, row.choices), default=1)
        room = decoding.max_new_tokens if self._longest is None else self._longest - len(row.ids)
        if not row.ids:
            row.error = "the prompt is empty"
        elif room < needed:
            row.error = f"the prompt has {len(row.ids)} tokens and the model takes {self._longest}"
        elif empty := [choice for choice, ids in zip(row.question.choices, row.choices, strict=True) if not ids]:
            row.error = f"the choice {empty[0]!r} has no tokens"
        row.limit = min(decoding.max_new_tokens, room)
        row.stop_ids = frozenset(self._special[stop] for stop in decoding.stop if stop in self._special)

    def _choice(self, before: str, choice: str) -> tuple[int, ...]:
        """A choice's token ids as they follow the prompt.

        Where the end of the prompt keeps its tokens beside the choice, what follows them; else the choice's own.
        """
        key = before, choice
        if key not in self._choices:
            alone, both, own = (
                self._tokenizer(text, add_special_tokens=False)["input_ids"]
                for text in (before, before + choice, choice)
            )
            self._choices[key] = tuple(both[len(alone) :] if both[: len(alone)] == alone else own)
        return self._choices[key]
