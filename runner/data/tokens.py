"""Texts → token ids: making and loading a tokenizer, and rows of ids whose loss mask is right by construction.

A prompt and its completion are tokenised apart and put together, so that the first token the loss sees is the first of
the completion, whatever the tokenizer would merge; the EOS comes after, and is supervised.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import spec
from runner.data.examples import Example, Pair
from runner.errors import BadCheckpoint

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

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, with nothing added."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token ids of an example: prompt, completion, EOS."""

    ids: list[int]
    prompt_tokens: int
    """How many of `ids` are the prompt (and a BOS), which the loss does not see."""
    row: int
    truncated: bool = False
    """Whether its end was cut off."""

    @property
    def supervised(self) -> int:
        """Tokens that the loss sees; never a row's first one, which nothing predicts."""
        return len(self.ids) - max(self.prompt_tokens, 1)


@dataclass(frozen=True, slots=True)
class PairTokens:
    """The token ids of a pair; each completion ends in EOS unless it was cut off."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    row: int
    truncated: bool = False
    """Whether the end of a text was cut off."""


def train_tokenizer(how: spec.Tokenizer, texts: Iterable[str]) -> Fast:
    """A tokenizer with SPECIAL as its first tokens and a vocabulary from `texts`; the same texts give the same ids."""
    tokenizer = _char(texts) if how.train == "char" else _bpe(texts, how.vocab_size or 0)
    # byte-level BPE knows every text
    return Fast(tokenizer, (), SPECIAL.index(END), SPECIAL.index(UNKNOWN) if how.train == "char" else None)


def _char(texts: Iterable[str]) -> tokenizers.Tokenizer:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    characters = sorted({char for text in texts for char in text})
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *characters))}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    # every single character, newlines too, which `.` would leave out
    tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()  # joins without spaces
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _bpe(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(fast: Fast, folder: Path) -> None:
    """Write a tokenizer of `train_tokenizer` so that `load_tokenizer` and transformers' AutoTokenizer load it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNKNOWN,
        "pad_token": PADDING,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer.json").write_text(fast.tokenizer.to_str(pretty=True), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_tokenizer(place: str | Path) -> Fast:
    """The tokenizer in a folder, or of a hub id.

    Raises:
        BadCheckpoint: there is none that the tokenizers library can load, or it has no EOS.
    """
    import tokenizers

    folder = Path(place) if Path(place).is_dir() else _from_hub(str(place))
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise BadCheckpoint(f"{place} has no tokenizer.json", hint="save it with save_pretrained of a fast tokenizer")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more precise
        raise BadCheckpoint(f"{file} cannot be loaded: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config_file = folder / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    eos_id = _special_id(tokenizer, config, "eos_token")
    if eos_id is None:
        raise BadCheckpoint(f"the tokenizer in {place} has no EOS", expected="eos_token in tokenizer_config.json")
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    framed = tokenizer.encode("a", add_special_tokens=True).ids
    before = next((at for at in range(len(framed)) if framed[at : at + len(plain)] == plain), 0)
    return Fast(tokenizer, tuple(framed[:before]), eos_id, _special_id(tokenizer, config, "unk_token"))


def encode(fast: Fast, examples: Sequence[Example], max_length: int, *, whole: bool = False) -> list[Tokens]:
    """The token ids of every example, in order, cut to `max_length` at the end.

    Args:
        whole: nothing counts as prompt: every token is supervised, as in pretraining.
    """
    prompts = fast.ids([example.prompt for example in examples])
    completions = fast.ids([example.completion for example in examples])
    prefix = list(fast.prefix_ids)
    rows = []
    for example, prompt, completion in zip(examples, prompts, completions, strict=True):
        ids = prefix + prompt + completion
        ids.append(fast.eos_id)
        given = 0 if whole else len(prefix) + len(prompt)
        rows.append(Tokens(ids[:max_length], min(given, max_length), example.row, len(ids) > max_length))
    return rows


def encode_pairs(fast: Fast, pairs: Sequence[Pair], max_length: int) -> list[PairTokens]:
    """The token ids of every pair, prompt and completion together cut to `max_length` at the end.

    A prompt that leaves no room is cut too, and both completions are the EOS alone: such a pair prefers nothing.
    """
    prompts = fast.ids([pair.prompt for pair in pairs])
    chosen = fast.ids([pair.chosen for pair in pairs])
    rejected = fast.ids([pair.rejected for pair in pairs])
    end = fast.eos_id
    rows = []
    for pair, prompt, right, wrong in zip(pairs, prompts, chosen, rejected, strict=True):
        given = [*fast.prefix_ids, *prompt]
        room = max_length - len(given)
        cut = max(len(right), len(wrong)) + 1 > room
        if room > 0:
            rows.append(PairTokens(given, [*right, end][:room], [*wrong, end][:room], pair.row, cut))
        else:
            rows.append(PairTokens(given[: max_length - 1], [end], [end], pair.row, cut))
    return rows


def _special_id(tokenizer: tokenizers.Tokenizer, config: dict[str, Any], name: str) -> int | None:
    token = config.get(name)
    text = token.get("content") if isinstance(token, dict) else token
    found: int | None = tokenizer.token_to_id(text) if isinstance(text, str) else None
    return found


def _from_hub(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=["tokenizer*.json"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BadCheckpoint(f"there is no folder {name}, and the hub does not give it: {error}") from error
