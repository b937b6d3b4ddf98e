"""Conversations → pieces of text of which it is known whether the assistant says them: message by message, through the
chat template, so that no mask depends on finding a template's words in a text.

What the assistant says in turn k is what the template adds to the prompt for turn k (`add_generation_prompt`, as probes
ask) when the answer is there; it ends in the stop token. So the prompt is a prefix of what was trained, by construction
or with an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from runner.data.chat import ChatTemplate, TemplateFault
from runner.data.texts import BadExample, Message
from runner.errors import BadCheckpoint, UserError

if TYPE_CHECKING:
    from runner.data.tokenizer import Fast

_MARK = "\ue000answer\ue001"
"""An answer that no template has in its own words."""
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a document."""

    text: str
    answer: bool = False
    """Whether the assistant says it, and it is to be learned; an answer ends in the stop token."""


Document = tuple[Piece, ...]


class Writing:
    """How a chat template writes conversations.

    Args:
        chat: the template.
        names: the tokenizer's special tokens by name, such as `eos_token`.
        stop: the token that ends an answer.
    """

    def __init__(self, chat: ChatTemplate, names: Mapping[str, str], stop: str) -> None:
        self.chat, self.stop, self._names = chat, stop, names

    def ask(self, messages: Sequence[Message]) -> str:
        """The prompt for the next answer, as probes render it.

        Raises:
            TemplateFault: the template cannot write it.
        """
        return self._render(messages, ask=True)

    def documents(self, messages: Sequence[Message], turns: Literal["all", "last"], row: int) -> list[Document]:
        """The conversation as documents to learn from: one; or one for each answer, where several are learned and the
        template writes earlier ones differently. What comes after the last answer is left out.

        Args:
            row: index of the row, for errors.

        Raises:
            BadExample: the template cannot write it, or a prompt is not the beginning of what was trained.
        """
        answers = [place for place, message in enumerate(messages) if message.role == "assistant"]
        try:
            if not answers:
                return [(Piece(self._render(messages)),)]
            if turns == "last":
                return [self._document(messages[: answers[-1] + 1], answers[-1:], row)]
            if self.rewrites:
                return [self._document(messages[: place + 1], [place], row) for place in answers]
            return [self._document(messages[: answers[-1] + 1], answers, row)]
        except TemplateFault as problem:
            raise BadExample(
                row,
                f"the chat template of {self.chat.origin} cannot write it: {problem}",
                hint="on_bad_row: skip leaves such rows out, and counts them",
            ) from problem

    @cached_property
    def rewrites(self) -> bool:
        """Whether it writes an earlier answer differently from the newest one, as some write thinking."""
        turns = [Message("user", "?"), Message("assistant", "a"), Message("user", "?"), Message("assistant", "b")]
        try:
            first, both = self._render(turns[:2]), self._render(turns)
        except TemplateFault:
            return False  # it takes no second turn, and says so where there is one
        return not both.startswith(self._through_stop(first))

    @cached_property
    def _around(self) -> tuple[str, str]:
        """What it writes before and after an answer that an earlier prompt was given, through the stop token."""
        asked = Message("user", "?")
        prompt, whole = self.ask([asked]), self._render([asked, Message("assistant", _MARK)])
        before, _, after = self._through_stop(whole)[len(prompt) :].partition(_MARK)
        return before, after

    def _document(self, messages: Sequence[Message], answers: Sequence[int], row: int) -> Document:
        whole, pieces, written = self._render(messages), list[Piece](), 0
        for number, place in enumerate(answers, start=1):
            prompt = self.ask(messages[:place])
            self._check_prefix(prompt, whole, row, "the prompt as probes ask it")
            end = self._plain_end(whole, len(prompt), messages[place].content)
            if end is None:  # the template does more than to put its words around the answer
                through = whole if place == len(messages) - 1 else self._render(messages[: place + 1])
                self._check_prefix(prompt, through, row, "the prompt as probes ask it")
                end = len(self._through_stop(through))
                self._check_prefix(through[:end], whole, row, f"the conversation up to answer {number}")
            pieces += [Piece(whole[written : len(prompt)]), Piece(whole[len(prompt) : end], answer=True)]
            written = end
            if not pieces[-1].text.endswith(self.stop):
                raise BadExample(row, f"the chat template of {self.chat.origin} ends this answer in no {self.stop}")
        return tuple(pieces)

    def _plain_end(self, whole: str, start: int, answer: str) -> int | None:
        """Where an answer ends that stands in the text as it was said, between what stands around every answer; found
        without the text up to it being rendered. None where it does not stand so."""
        before, after = self._around
        plain = f"{before}{answer}{after}"
        return start + len(plain) if after and self.stop not in answer and whole.startswith(plain, start) else None

    def _through_stop(self, text: str) -> str:
        """A conversation that ends with an answer, without what comes after its stop token, as a newline."""
        return text[: text.rfind(self.stop) + len(self.stop)]

    def _check_prefix(self, start: str, whole: str, row: int, what: str) -> None:
        if whole.startswith(start):
            return
        at = next((place for place, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b), len(whole))
        raise BadExample(
            row,
            f"{what} is not a prefix of the text that is trained: after {start[:at][-_SHOWN:]!r} comes "
            f"{start[at : at + _SHOWN]!r} and not {whole[at : at + _SHOWN]!r}",
            expected=f"a chat template that writes what is said before an answer alike without it; {self.chat.origin} "
            "does not",
            hint="model.chat_template: a shipped name, a file, or none",
        )

    def _render(self, messages: Sequence[Message], *, ask: bool = False) -> str:
        return self.chat.render(messages, self._names, ask=ask)


class Conversations(Writing):
    """How a chat template writes conversations for a tokenizer.

    Raises:
        BadCheckpoint: the tokenizer lacks a token that the template writes.
        UserError: the template ends no answer with a special token, so nothing would stop.
    """

    def __init__(self, chat: ChatTemplate, fast: Fast) -> None:
        lacking = [token for token in chat.tokens if fast.tokenizer.token_to_id(token) is None] if chat.chosen else []
        if lacking:
            raise BadCheckpoint(
                f"the tokenizer has no token {' and no '.join(lacking)}, which chat template {chat.origin} writes",
                expected="the tokenizer of a model that was trained with this template, or one that this run trains",
                hint="alpaca and plain need no tokens of their own",
            )
        stop, self.stop_id = self._stop(chat, fast)
        super().__init__(chat, fast.names, stop)

    @staticmethod
    def _stop(chat: ChatTemplate, fast: Fast) -> tuple[str, int]:
        """The token that ends an answer, and its id: the first special one behind it."""
        try:
            tail = _after_answer(chat, fast.names)
        except TemplateFault as problem:
            raise UserError(f"the chat template of {chat.origin} writes no plain conversation: {problem}") from None
        for number in fast.ids([tail])[0]:
            if number in fast.special_ids:
                return str(fast.tokenizer.id_to_token(number)), number
        raise UserError(
            f"the chat template of {chat.origin} writes no special token after an answer, so a model that learns "
            "it never stops",
            expected="a token such as {{ eos_token }} behind what the assistant says",
            hint="model.chat_template: a shipped name, or a file with a template of your own",
        )


def writing_of(chat: ChatTemplate, names: Mapping[str, str]) -> Writing | None:
    """The same where there is no tokenizer yet; None where it is not sure what ends an answer without one."""
    try:
        tail = _after_answer(chat, names)
    except TemplateFault:
        return None  # which is said when the tokenizer is there
    found = [(place, token) for token in {*names.values(), *chat.tokens} if (place := tail.find(token)) >= 0]
    return Writing(chat, names, min(found)[1]) if found else None


def _after_answer(chat: ChatTemplate, names: Mapping[str, str]) -> str:
    """What stands behind the answer of a conversation of one round."""
    whole = chat.render((Message("user", "?"), Message("assistant", _MARK)), names)
    return whole.rpartition(_MARK)[2] if _MARK in whole else ""


def as_messages(prompt: str, completion: str | None = None) -> tuple[Message, ...]:
    """A prompt, and its completion where it is given, as turns of user and assistant."""
    asked = Message("user", prompt)
    return (asked,) if completion is None else (asked, Message("assistant", completion))
