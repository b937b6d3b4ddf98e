"""Data sets: sources, splits, and the templates that write their rows."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from runner.spec.blocks import NAME_PATTERN, Block, Fraction, as_tuple, one_or_many


class Split(Block):
    """How the rows of a source are divided: by the value of a column, so that no key stands on two sides."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, use_attribute_docstrings=True)
    __pydantic_extra__: dict[str, Fraction]

    by: str
    """The column whose values are divided. Rows with the same value always land on the same side."""

    @model_validator(mode="after")
    def _shares_make_one(self) -> Split:
        if not self.shares:
            raise ValueError("name at least one split with its share, for example train: 0.8")
        for name in self.shares:
            if not re.fullmatch(NAME_PATTERN, name):
                raise ValueError(f"a split's name is a letter, then letters, digits, _ and -; found {name!r}")
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError(f"the shares of a split sum to 1, these sum to {sum(self.shares.values()):g}")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Share of the keys of every named split, in the order written."""
        return dict(self.__pydantic_extra__ or {})


class Text(Block):
    """One way to write a row: a `text`, or a `prompt` with its `completion`."""

    text: str | None = None
    """A document; every token of it is supervised by `pretrain`."""
    prompt: str | None = None
    """What is given; joined with `completion` as written."""
    completion: str | None = None
    """What is to be said; supervised, with the EOS after it."""

    @model_validator(mode="after")
    def _text_or_pair(self) -> Text:
        if (self.text is None) == (self.prompt is None and self.completion is None):
            raise ValueError("give either text, or prompt and completion")
        if (self.prompt is None) != (self.completion is None):
            raise ValueError("prompt and completion go together")
        return self


class Pick(Block):
    """Several ways to write a row, of which `n` are drawn anew for every row and epoch."""

    n: Annotated[int, Field(ge=1)]
    """How many are drawn; their texts are joined by a newline into one document."""
    of: Annotated[tuple[Text, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    """The templates to draw from, without repeating one."""

    @model_validator(mode="after")
    def _enough_of_one_shape(self) -> Pick:
        if self.n > len(self.of):
            raise ValueError(f"cannot draw n: {self.n} of {len(self.of)} templates")
        if self.n > 1 and any(text.text is None for text in self.of):
            raise ValueError("only templates of the form text: can be joined; with prompt and completion, n is 1")
        if len({text.text is None for text in self.of}) > 1:
            raise ValueError("the templates of one pick are all text: or all prompt: with completion:")
        return self


class Turn(Block):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    """Who speaks."""
    content: str
    """Template of what is said."""


class Filter(Block):
    """Rows that are left out, counted by the plan. Lengths are those of all texts of a row as they are written."""

    min_chars: Annotated[int, Field(ge=1)] | None = None
    """Shorter rows are left out."""
    max_chars: Annotated[int, Field(ge=1)] | None = None
    """Longer rows are left out."""
    duplicates: bool = False
    """Whether rows are left out that are written like an earlier one."""
    empty: bool = False
    """Whether rows are left out that have an empty text; otherwise such a row is bad (`on_bad_row`)."""

    @model_validator(mode="after")
    def _filters_something(self) -> Filter:
        if not self.model_fields_set:
            raise ValueError("give at least one of min_chars, max_chars, duplicates, empty")
        if self.min_chars and self.max_chars and self.min_chars > self.max_chars:
            raise ValueError("min_chars is above max_chars: no row would be left")
        return self


class Repeat(Block):
    """A negative that loops: a text said over and over."""

    repeat: str
    """Template of what is repeated, for example `{{ completion }}`."""
    times: Annotated[int, Field(ge=2)] = 4
    """How often it is said."""
    n: Annotated[int, Field(ge=1)] | None = None
    """Only its last so many characters are repeated, after the whole text once. Default: the whole text."""


class Sample(Block):
    """A checkpoint's own wrong replies to the prompts of these rows."""

    sample: str
    """The checkpoint: of a stage above, as `from:` names it, or a folder."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    """At most so many tokens are generated."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 is greedy; above it, tokens are drawn, seeded per row."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Replies per prompt; those that are right are dropped and counted, and those said before."""

    @model_validator(mode="after")
    def _draws_where_several(self) -> Sample:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"samples is {self.samples} and temperature is 0: greedy samples are all the same")
        return self


class FromFile(Block):
    """Negatives that a file gives: jsonl with `prompt` and `rejected`, which is a text or a list of them."""

    file: str
    """Its path, from the project's root."""


def _one_or_many_negatives(value: object) -> object:
    return (value,) if isinstance(value, dict) else one_or_many(value)


def _one_way(value: object) -> object:
    if isinstance(value, dict) and len(value.keys() & {"repeat", "sample", "file"}) != 1:
        raise ValueError("a negative is a template, or a map with one of repeat, sample and file")
    return value


def _way(value: object) -> str:
    if isinstance(value, dict):
        return "Repeat" if "repeat" in value else "Sample" if "sample" in value else "FromFile"
    return type(value).__name__ if isinstance(value, Block) else "str"


Negative = Annotated[
    # the tags are no keys, so that a place in an error is never taken for one
    Annotated[str, Tag("str")]
    | Annotated[Repeat, Tag("Repeat")]
    | Annotated[Sample, Tag("Sample")]
    | Annotated[FromFile, Tag("FromFile")],
    Discriminator(_way),
    BeforeValidator(_one_way),
]
"""One way to make negatives: a template, or one of the blocks above."""


class Data(Block):
    """A named data set: a source read from files (`path`), or rows of another one written differently (`rows`)."""

    path: str | None = None
    """A file or glob: tsv, csv, json, jsonl, parquet or txt, plain, `.gz` or `.xz`; a folder that `datasets` wrote; or
    the id of a data set on the hub (`HF_ENDPOINT` names a mirror; `modelscope://ID` is ModelScope's)."""
    subset: str | None = None
    """Of a data set on the hub: its configuration."""
    from_split: str | None = None
    """Of a data set on the hub or in a folder: its split. Default: `train`."""
    format: Literal["alpaca", "sharegpt", "messages", "preference", "text"] | None = None
    """What the columns mean, where no template says so. Default: recognised from their names, and shown by the plan."""
    on_bad_row: Literal["fail", "skip"] = "fail"
    """What a row does that cannot be read or written: ends the plan, or is left out, counted and shown by file
    and line."""
    filter: Filter | None = None
    """Rows that are left out."""
    separator: str | None = None
    """What stands between two records of a txt file; each record becomes a row with the one column `text`."""
    columns: dict[str, str] | None = None
    """Which column is used as which field, for example `{prompt: instruction, completion: output}`."""
    take: Annotated[int, Field(ge=1)] | None = None
    """Only the first so many rows."""
    num_rows: Annotated[int, Field(ge=1)] | None = None
    """How many rows there are, said beforehand: `recipe plan` then plans where the files are not. A run finds out, and
    is refused where it is another number."""
    split: Split | None = None
    """Named splits; `NAME.train` then refers to one of them, here and in every data set made from these rows."""
    rows: str | None = None
    """Another data set, or a split of it, whose rows are written by the templates below."""
    text: str | None = None
    """Template of a document."""
    prompt: str | None = None
    """Template of what is given."""
    completion: str | None = None
    """Template of what is to be said."""
    system: str | None = None
    """Template of the system's message, before the conversation or the prompt."""
    messages: Annotated[tuple[Turn, ...], BeforeValidator(as_tuple), Field(min_length=1)] | None = None
    """Templates of the turns of a conversation."""
    pick: Pick | None = None
    """Several templates to draw from, instead of one."""
    chosen: str | None = None
    """Template of the preferred completion. Default: `completion`."""
    rejected: Annotated[tuple[Negative, ...], BeforeValidator(_one_or_many_negatives), Field(min_length=1)] | None = (
        None
    )
    """Completions that are not preferred: templates, of which each gives one pair and in which `other` is another row
    of the same rows; `{repeat: …}`, a looping text; `{sample: qa@last}`, a checkpoint's own wrong replies; `{file: …}`.
    One that is right for its prompt, equal to chosen, empty, or holds `None` is dropped and counted."""

    @model_validator(mode="after")
    def _source_or_derived(self) -> Data:
        if (self.path is None) == (self.rows is None):
            raise ValueError("give either path (files) or rows (another data set)")
        if self.separator is not None and self.path is None:
            raise ValueError("separator belongs to a data set with path")
        if self.separator == "":
            raise ValueError("separator is empty; say what stands between two records")
        if self.columns is not None and self.path is None:
            raise ValueError("columns belongs to a data set with path; use templates with rows")
        if self.pick is not None and (self.text or self.prompt or self.completion or self.rejected):
            raise ValueError("pick stands instead of text, prompt, completion and rejected")
        if self.text is not None and (self.prompt or self.completion or self.rejected):
            raise ValueError("give either text, or prompt with completion or rejected")
        if self.messages is not None and (self.text or self.prompt or self.completion or self.pick):
            raise ValueError("give either messages, or text, or prompt with completion")
        for name in ("subset", "from_split", "format", "num_rows"):
            if name in self.model_fields_set and self.path is None:
                raise ValueError(f"{name} belongs to a data set with path")
        if self.format is not None and self.writes:
            raise ValueError("format says what the columns mean, and so do templates; give one of them")
        return self

    @model_validator(mode="after")
    def _is_a_conversation(self) -> Data:
        turns = self.messages or ()
        if turns and turns[-1].role != "assistant":
            raise ValueError("messages end with a turn of the assistant, which is what is learned")
        if any(turn.role == "system" for turn in turns[1:]):
            raise ValueError("messages have a system turn at their beginning, or none")
        if self.system is not None and turns and turns[0].role == "system":
            raise ValueError("system is said twice: by system and by the first of messages")
        if self.system is not None and (self.text is not None or (self.pick and self.pick.of[0].text is not None)):
            raise ValueError("system opens a conversation; a document (text) has none")
        return self

    @property
    def writes(self) -> bool:
        """Whether its own templates say what is asked and said."""
        ways = (self.text, self.prompt, self.completion, self.messages, self.pick)
        return any(way is not None for way in ways)


ROW_TEMPLATES = frozenset({"text", "prompt", "completion", "chosen", "rejected", "system"})
"""Keys of a data set whose strings are rendered per row, as are `content` of its messages and `repeat` of a negative;
every other string is rendered once, with `vars`."""
