"""Texts → token ids: making and loading a tokenizer, and rows of ids whose loss mask is right by construction.

What is given and what is said are tokenised apart and put together, so that the first token the loss sees is the first
of the answer, whatever the tokenizer would merge; the token that ends it comes after, and is supervised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from runner import spec
from runner.data import tokenizer_files
from runner.data.chat import ChatTemplate, TemplateFault
from runner.data.conversations import Conversations, Document, Piece, as_messages
from runner.data.cutting import Spans, Truncation, cut
from runner.data.examples import Example, Message
from runner.data.pairs import Pair
from runner.errors import BadCheckpoint, BadData

if TYPE_CHECKING:
    import tokenizers

UNKNOWN, PADDING, END = "<unk>", "<pad>", "<eos>"
SPECIAL = (UNKNOWN, PADDING, END)
"""Special tokens of the tokenizers trained here, in the order of their ids."""


@dataclass(frozen=True)
class Fast:
    """A loaded tokenizer, without transformers."""

    tokenizer: tokenizers.Tokenizer
    prefix_ids: tuple[int, ...]
    """What it puts before every text by itself, for example its BOS."""
    eos_id: int
    unknown_id: int | None
    """None where it knows every text, as byte-level ones do."""
    names: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Special tokens by name, such as `eos_token`, for chat templates."""

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of tokens that stand for no text."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset([*(number for number, token in added.items() if token.special), self.eos_id])

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, with nothing added."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


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


_NAMES = {"unk_token": UNKNOWN, "pad_token": PADDING, "eos_token": END}


def train_tokenizer(how: spec.Tokenizer, texts: Iterable[str], chat: ChatTemplate | None = None) -> Fast:
    """A tokenizer with SPECIAL and the tokens of the chat template first, and a vocabulary from `texts` and the words
    of the template; the same texts give the same ids."""
    special = (*SPECIAL, *(token for token in (chat.tokens if chat else ()) if token not in SPECIAL))
    texts = chain(texts, _words(chat, special) if chat else ())
    tokenizer = _char(texts, special) if how.train == "char" else _bpe(texts, how.vocab_size or 0, special)
    # byte-level BPE knows every text
    unknown_id = SPECIAL.index(UNKNOWN) if how.train == "char" else None
    return Fast(tokenizer, (), SPECIAL.index(END), unknown_id, _NAMES)


def _words(chat: ChatTemplate, special: Sequence[str]) -> Iterator[str]:
    """What a template writes around what is said, without special tokens."""
    turns = [Message(role, "") for role in ("system", "user", "assistant", "user")]
    for said in (turns, turns[1:], turns[1:3]):
        try:
            text = chat.render(said, _NAMES, ask=True)
        except TemplateFault:
            continue  # it takes no such conversation
        yield from re.split("|".join(map(re.escape, special)), text)


def _char(texts: Iterable[str], special: Sequence[str]) -> tokenizers.Tokenizer:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    characters = sorted({char for text in texts for char in text})
    vocabulary = {token: index for index, token in enumerate((*special, *characters))}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    # every single character, newlines too, which `.` would leave out
    tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()  # joins without spaces
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def _bpe(texts: Iterable[str], vocab_size: int, special: Sequence[str]) -> tokenizers.Tokenizer:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(fast: Fast, folder: Path, chat: ChatTemplate | None = None) -> None:
    """Write a tokenizer of `train_tokenizer` so that `load_tokenizer` and transformers' AutoTokenizer load it."""
    folder.mkdir(parents=True, exist_ok=True)
    own = [token for number in sorted(fast.special_ids) if (token := str(fast.tokenizer.id_to_token(number)))]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **_NAMES,
        "extra_special_tokens": [token for token in own if token not in SPECIAL],
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer.json").write_text(fast.tokenizer.to_str(pretty=True), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if chat is not None:
        (folder / tokenizer_files.TEMPLATE).write_text(chat.source, encoding="utf-8")


def load_tokenizer(place: str | Path) -> Fast:
    """The tokenizer in a folder, or of a hub id.

    Raises:
        BadCheckpoint: there is none that the tokenizers library can load, or it has no EOS.
    """
    import tokenizers

    folder = tokenizer_files.folder_of(place)
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise BadCheckpoint(f"{place} has no tokenizer.json", hint="save it with save_pretrained of a fast tokenizer")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more precise
        raise BadCheckpoint(f"{file} cannot be loaded: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    names = tokenizer_files.special_tokens(folder)
    ids = {name: tokenizer.token_to_id(text) for name, text in names.items()}
    if (eos_id := ids.get("eos_token")) is None:
        raise BadCheckpoint(f"the tokenizer in {place} has no EOS", expected="eos_token in tokenizer_config.json")
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    framed = tokenizer.encode("a", add_special_tokens=True).ids
    before = next((at for at in range(len(framed)) if framed[at : at + len(plain)] == plain), 0)
    return Fast(tokenizer, tuple(framed[:before]), eos_id, ids.get("unk_token"), names)


def encode(fast: Fast, examples: Sequence[Example], how: Encoding) -> list[tuple[Tokens, ...]]:
    """The rows of every example, in order: one; none where it was dropped; several where it was chunked, or where the
    chat template writes earlier answers of a conversation differently, so that each is learned in a row of its own.

    Raises:
        BadData: a conversation cannot be written by the chat template.
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


def no_template(row: int) -> BadData:
    """The error where a row is a conversation and nothing says how it is written."""
    return BadData(
        f"row {row + 1} is a conversation, and no chat template is set",
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
        BadData: a prompt leaves no room for an answer, or a conversation cannot be written by the chat template.
    """
    conversations = Conversations(chat, fast) if chat is not None else None
    texts = [text for pair in pairs for text in _sides(pair, conversations)]
    ids = iter(fast.ids(texts))
    rows = []
    for pair in pairs:
        prompt, right, wrong = next(ids), next(ids), next(ids)
        # a chat template writes the beginning of a text, and the end of an answer
        given = prompt if conversations else [*fast.prefix_ids, *prompt]
        end = conversations.stop_id if conversations else fast.eos_id
        chosen, rejected = ([*side, *([] if conversations else [end])] for side in (right, wrong))
        room = max_length - len(given)
        cut = max(len(chosen), len(rejected)) > room
        if room < 1:
            raise BadData(
                f"the prompt of row {pair.row + 1} has {len(given)} tokens, and max_length is {max_length}: "
                "there is no room for an answer",
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
