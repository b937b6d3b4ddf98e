"""The model that a run starts from, and its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from runner.spec.blocks import Block, Names, as_tuple

CHAT_TEMPLATES = ("chatml", "qwen3", "llama3", "alpaca", "plain")
"""Names of the chat templates that ship."""


class Tokenizer(Block):
    """A tokenizer trained from the recipe's own data before the first stage."""

    train: Literal["char", "bpe"]
    """`char`: one token per character, what was never seen is `<unk>`; `bpe`: byte-level BPE."""
    from_data: Names
    """Data sets whose every possible text (all templates of a `pick`) the vocabulary is made from."""
    vocab_size: Annotated[int, Field(ge=260)] | None = None
    """Size of a `bpe` vocabulary, special tokens included. `char` takes every character it sees."""

    @model_validator(mode="after")
    def _size_belongs_to_bpe(self) -> Tokenizer:
        if self.train == "bpe" and self.vocab_size is None:
            raise ValueError("a bpe tokenizer needs vocab_size")
        if self.train == "char" and self.vocab_size is not None:
            raise ValueError("vocab_size belongs to bpe; a char tokenizer takes every character it sees")
        return self


class ExtendVocabulary(Block):
    """Terms that become single tokens of the checkpoint's tokenizer. Each new embedding is the mean of those of its
    pieces."""

    terms: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    """The terms themselves."""
    file: str | None = None
    """A text file with a term per line."""
    text: Names | None = None
    """Data sets on whose texts tokens per character are counted, before and after, for the plan."""

    @model_validator(mode="after")
    def _names_terms(self) -> ExtendVocabulary:
        if not self.terms and self.file is None:
            raise ValueError("give terms, or a file with a term per line")
        return self


def embedding_rows(config: Mapping[str, Any], tokens: int) -> int:
    """Rows of a new model's embeddings: as many as its tokenizer has tokens, or more where `vocab_size` says so."""
    asked = config.get("vocab_size")
    return max(tokens, asked) if isinstance(asked, int) else tokens


class Model(Block):
    """The model that the first stage starts from."""

    path: str | None = None
    """A folder or hub id with weights. Exactly one of `path` and `config` is given."""
    config: dict[str, Any] | None = None
    """A transformers configuration with `model_type`; weights are drawn from `seed`. The ids of the
    special tokens come from the tokenizer, and `vocab_size`, unless a larger one stands here."""
    tokenizer: str | Tokenizer | None = None
    """A folder or hub id, or how to train one. Default: the tokenizer at `path`."""
    chat_template: str | None = None
    """How conversations, and prompts with their completions, are written: `chatml`, `qwen3`, `llama3`, `alpaca`,
    `plain`, or a file with a template; `none` takes the checkpoint's own away. Default: the tokenizer's own."""
    extend_vocabulary: ExtendVocabulary | None = None
    """Terms that become tokens, before the first stage."""
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """`auto` takes flash_attention_2 where it can run, else sdpa; the choice and its reason are printed."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` is float32 on a CPU, bfloat16 on a device that has it."""

    @model_validator(mode="after")
    def _one_start(self) -> Model:
        if (self.path is None) == (self.config is None):
            raise ValueError("give either path (a folder or hub id) or config (to start from nothing)")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("config needs model_type, for example qwen3")
        if self.config is not None and self.tokenizer is None:
            raise ValueError("a model made from config needs a tokenizer")
        if self.config is not None and self.extend_vocabulary is not None:
            raise ValueError("extend_vocabulary belongs to path: a new model's tokenizer is trained with its terms")
        if self.path is not None and isinstance(self.tokenizer, Tokenizer):
            raise ValueError("tokenizer cannot be trained here: the weights at path know the ids of their own one")
        return self
