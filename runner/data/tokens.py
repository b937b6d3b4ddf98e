"""Texts → rows of token ids whose loss mask is right by construction.

What is given and what is said are tokenised apart and put together, so that the first token the loss sees is the first
of the answer, whatever the tokenizer would merge; the token that ends it comes after, and is supervised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from runner.data.chat import ChatTemplate
from runner.data.conversations import Conversations, Document, Piece, as_messages
from runner.data.cutting import Spans, Truncation, cut
from runner.data.examples import Example, Message
from runner.data.pairs import Pair
from runner.data.texts import BadExample
from runner.data.tokenizer import Fast
from runner.errors import BadData


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token ids of a row, and which of them the loss sees."""

    ids: Sequence[int]
    spans: Spans
    """Supervised ranges [start, stop) of `ids`, ascending and disjoint."""
    row: int
    truncated: bool = False
    """Whether a part of it was cut off."""

    @property
    def supervised(self) -> int:
        """Tokens that the loss sees; never a row's first one, which nothing predicts."""
        return sum(stop - max(start, 1) for start, stop in self.spans if stop > 1)


@dataclass(frozen=True)
class Encoding:
    """How texts become rows of token ids."""

    max_length: int
    """Tokens of the longest row."""
    whole: bool = False
    """Nothing counts as prompt: every token is supervised, as in pretraining."""
    truncation: Truncation = "keep_start"
    """What becomes of a longer row."""
    chunk_overlap: int = 0
    """Tokens that a chunk repeats of the one before it, unsupervised."""
    turns: Literal["all", "last"] = "all"
    """Which of the assistant's turns of a conversation are supervised."""
    chat: ChatTemplate | None = None
    """How conversations, and prompts with their completions, are written."""


@dataclass(frozen=True, slots=True)
class PairTokens:
    """The token ids of a pair; each completion ends in EOS unless it was cut off."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    row: int
    truncated: bool = False
    """Whether the end of a text was cut off."""


def encode(fast: Fast, examples: Sequence[Example], how: Encoding) -> list[tuple[Tokens, ...]]:
    """The rows of every example, in order: one; none where it was dropped; several where it was chunked, or where the
    chat template writes earlier answers of a conversation differently, so that each is learned in a row of its own.

    Raises:
        BadExample: a conversation cannot be written by the chat template.
    """
    chat = Conversations(how.chat, fast) if how.chat is not None else None
    # where every token is learned, answers need not be told apart
    turns: Literal["all", "last"] = "last" if how.whole else how.turns
    documents = [_documents(example, chat, turns) for example in examples]
    texts = [piece.text for found in documents for document in found for piece in document]
    ids = iter(fast.ids(texts))
    rows = []
    for example, found in zip(examples, documents, strict=True):
        chatted = chat is not None and bool(example.prompt or example.messages)
        made: list[Tokens] = []
        for document in found:
            parts = [(next(ids), piece.answer) for piece in document]
            whole, spans, prefix = _joined(fast, parts, how, chat if chatted else None)
            cuts = cut(whole, spans, how.max_length, how.truncation, how.chunk_overlap, prefix)
            made += (Tokens(row, kept, example.row, truncated) for row, kept, truncated in cuts)
        rows.append(tuple(made))
    return rows


def _documents(example: Example, chat: Conversations | None, turns: Literal["all", "last"]) -> Sequence[Document]:
    if chat is not None and (example.messages or example.prompt):
        messages = example.messages or as_messages(example.prompt, example.completion)
        return chat.documents(messages, turns, example.row)
    if example.messages:
        raise no_template(example.row)
    return [(Piece(example.prompt), Piece(example.completion, answer=True))]


def no_template(row: int) -> BadExample:
    """The error where a row is a conversation and nothing says how it is written."""
    return BadExample(
        row,
        "a conversation, and no chat template is set",
        hint="say model.chat_template: chatml, qwen3, llama3, alpaca, plain, or a file",
    )


def _joined(
    fast: Fast, parts: Sequence[tuple[list[int], bool]], how: Encoding, chat: Conversations | None
) -> tuple[list[int], Spans, int]:
    """Ids of a document, its supervised ranges, and how many ids at its beginning are the tokenizer's own."""
    ids: list[int] = [] if chat is not None else list(fast.prefix_ids)  # a chat template writes its own
    prefix, spans = len(ids), []
    for found, answer in parts:
        start = len(ids)
        ids += found
        if answer:
            if chat is None:
                ids.append(fast.eos_id)
            elif found[-1:] != [chat.stop_id]:
                raise BadData(f"the tokenizer does not read {chat.stop} behind an answer as one token")
            spans.append((start, len(ids)))
    if chat is not None and ids:
        prefix = int(ids[0] == fast.tokenizer.token_to_id(fast.names.get("bos_token", "")))
    return ids, ((0, len(ids)),) if how.whole else tuple(spans), prefix


def encode_pairs(
    fast: Fast, pairs: Sequence[Pair], max_length: int, chat: ChatTemplate | None = None
) -> list[PairTokens]:
    """The token ids of every pair, prompt and completion together cut to `max_length` at the end.

    Raises:
        BadExample: a prompt leaves no room for an answer, or a conversation cannot be written by the chat template.
    """
    conversations = Conversations(chat, fast) if chat is not None else None
    texts = [text for pair in pairs for text in _sides(pair, conversations)]
    ids = iter(fast.ids(texts))
    rows = []
    for pair in pairs:
        prompt, right, wrong = next(ids), next(ids), next(ids)
        # a chat template writes the beginning of a text, and the end of an answer
        given = prompt if conversations else [*fast.prefix_ids, *prompt]
        end = [] if conversations else [fast.eos_id]
        chosen, rejected = ([*side, *end] for side in (right, wrong))
        room = max_length - len(given)
        cut = max(len(chosen), len(rejected)) > room
        if room < 1:
            raise BadExample(
                pair.row,
                f"its prompt has {len(given)} tokens, and max_length is {max_length}: there is no room for an answer",
                hint="raise max_length, or leave such rows out: filter: {max_chars: …} in the data set",
            )
        rows.append(PairTokens(given, chosen[:room], rejected[:room], pair.row, cut))
    return rows


def _sides(pair: Pair, chat: Conversations | None) -> tuple[str, str, str]:
    """Prompt, chosen and rejected as they are tokenised."""
    if chat is None:
        if pair.messages:
            raise no_template(pair.row)
        return pair.prompt, pair.chosen, pair.rejected
    before = pair.messages or as_messages(pair.prompt)
    sides = []
    for said in (pair.chosen, pair.rejected):
        (document,) = chat.documents((*before, Message("assistant", said)), "last", pair.row)
        prompt, answer = document
        sides.append(answer.text)
    return prompt.text, sides[0], sides[1]
