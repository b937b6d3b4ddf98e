"""A tokenizer without transformers: trained from texts, saved so that transformers loads it too, and loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from runner import spec
from runner.data import tokenizer_files
from runner.data.chat import ChatTemplate, TemplateFault
from runner.data.texts import Message
from runner.errors import BadCheckpoint

if TYPE_CHECKING:
    import tokenizers

UNKNOWN, PADDING, END = "<unk>", "<pad>", "<eos>"
SPECIAL = (UNKNOWN, PADDING, END)
"""Special tokens of the tokenizers trained here, in the order of their ids."""
NAMES = {"unk_token": UNKNOWN, "pad_token": PADDING, "eos_token": END}
"""Special tokens by the names that chat templates use, of the tokenizers trained here."""


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


def train_tokenizer(how: spec.Tokenizer, texts: Iterable[str], chat: ChatTemplate | None = None) -> Fast:
    """A tokenizer with SPECIAL and the tokens of the chat template first, and a vocabulary from `texts` and the words
    of the template; the same texts give the same ids."""
    special = (*SPECIAL, *(token for token in (chat.tokens if chat else ()) if token not in SPECIAL))
    texts = chain(texts, _words(chat, special) if chat else ())
    tokenizer = _char(texts, special) if how.train == "char" else _bpe(texts, how.vocab_size or 0, special)
    # byte-level BPE knows every text
    unknown_id = SPECIAL.index(UNKNOWN) if how.train == "char" else None
    return Fast(tokenizer, (), SPECIAL.index(END), unknown_id, NAMES)


def _words(chat: ChatTemplate, special: Sequence[str]) -> Iterator[str]:
    """What a template writes around what is said, without special tokens."""
    turns = [Message(role, "") for role in ("system", "user", "assistant", "user")]
    for said in (turns, turns[1:], turns[1:3]):
        try:
            text = chat.render(said, NAMES, ask=True)
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
        **NAMES,
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
