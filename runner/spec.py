"""The recipe language: one frozen model per block of a recipe, each field documented where it stands.

The models hold what a recipe says after YAML, `extends`, `--set` and `vars` are resolved. Checks that need more than
one block (does the stage exist, is the column there) are in `runner.recipe`; everything later trusts these models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

FORMAT_VERSION = 1
"""Of a run's resolved recipe and of its `data/`. Every other file has the version of the module that owns it."""

NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A name that becomes a folder, a file or part of a test id: a letter, then letters, digits, `_` and `-`."""


class Block(BaseModel):
    """A block of the recipe: strict, frozen, no unknown keys, documented field by field."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        populate_by_name=True,
        allow_inf_nan=False,
    )


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, (str, int)) and not isinstance(value, bool) else _as_tuple(value)


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many), Field(min_length=1)]
Step = Annotated[int, Field(ge=1)]
EveryOrSteps = Annotated[Step | Annotated[tuple[Step, ...], Field(min_length=1)], BeforeValidator(_as_tuple)]
Templates = Annotated[tuple[str, ...], BeforeValidator(_one_or_many), Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


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


class Model(Block):
    """The model that the first stage starts from."""

    path: str | None = None
    """A folder or hub id with weights. Exactly one of `path` and `config` is given."""
    config: dict[str, Any] | None = None
    """A transformers configuration with `model_type`; weights are drawn from `seed`. `vocab_size` and the ids of the
    special tokens come from the tokenizer."""
    tokenizer: str | Tokenizer | None = None
    """A folder or hub id, or how to train one. Default: the tokenizer at `path`."""
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
        if self.path is not None and isinstance(self.tokenizer, Tokenizer):
            raise ValueError("tokenizer cannot be trained here: the weights at path know the ids of their own one")
        return self


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
    of: Annotated[tuple[Text, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
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


class Data(Block):
    """A named data set: a source read from files (`path`), or rows of another one written differently (`rows`)."""

    path: str | None = None
    """A file or glob: tsv, csv, json, jsonl, parquet or txt, plain, `.gz` or `.xz`."""
    separator: str | None = None
    """What stands between two records of a txt file; each record becomes a row with the one column `text`."""
    columns: dict[str, str] | None = None
    """Which column is used as which field, for example `{prompt: instruction, completion: output}`."""
    take: Annotated[int, Field(ge=1)] | None = None
    """Only the first so many rows."""
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
    pick: Pick | None = None
    """Several templates to draw from, instead of one."""
    chosen: str | None = None
    """Template of the preferred completion. Default: `completion`."""
    rejected: Templates | None = None
    """Templates of completions that are not preferred; each gives one pair. `other` is another row of the same rows."""

    @model_validator(mode="after")
    def _source_or_derived(self) -> Data:
        if (self.path is None) == (self.rows is None):
            raise ValueError("give either path (files) or rows (another data set)")
        if self.separator is not None and self.path is None:
            raise ValueError("separator belongs to a data set with path")
        if self.columns is not None and self.path is None:
            raise ValueError("columns belongs to a data set with path; use templates with rows")
        if self.pick is not None and (self.text or self.prompt or self.completion or self.rejected):
            raise ValueError("pick stands instead of text, prompt, completion and rejected")
        if self.text is not None and (self.prompt or self.completion or self.rejected):
            raise ValueError("give either text, or prompt with completion or rejected")
        return self


class Stage(Block):
    """What every training stage may say. Names and defaults are those of transformers' TrainingArguments."""

    from_: str | None = Field(default=None, alias="from")
    """The checkpoint to start from: `qa@best`, `qa@last`, `qa@epoch=2`, `qa@1264`, or a folder. Required on every
    stage but the first, which starts from `model`."""
    data: Names
    """One data set or split, or several that are shuffled together."""
    num_train_epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the data."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps; where given, it decides instead of `num_train_epochs`."""
    learning_rate: Annotated[float, Field(ge=0)] = 5.0e-5
    """Peak learning rate."""
    lr_scheduler_type: Literal[
        "linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt", "cosine_with_min_lr"
    ] = "linear"
    """Shape of the learning rate over the stage."""
    warmup_steps: Annotated[float, Field(ge=0)] = 0
    """Steps of linear warm-up; below 1 it is a share of all steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients are clipped to this norm; 0 leaves them."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's first beta."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's second beta."""
    global_batch_size: Annotated[int, Field(ge=1)] = 32
    """Rows (pairs, for dpo) per optimizer step, on any hardware; per-device size and accumulation follow from it."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """At most so many rows at a time on one device; what is left of the global batch is accumulated."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """Tokens; a longer row loses its end, and is counted by the plan."""
    save_strategy: Literal["steps", "epoch", "no"] = "steps"
    """When checkpoints are published (and probed). The stage's last step always is."""
    save_steps: EveryOrSteps = 500
    """With `save_strategy: steps`: a number, every so many steps; or a list of the steps themselves."""
    logging_steps: Annotated[int, Field(ge=1)] = 10
    """Steps between two recorded losses."""
    trainer_args: dict[str, Any] = Field(default_factory=dict)
    """Any other argument of transformers' TrainingArguments (for dpo: TRL's DPOConfig), checked by name."""


class Pretrain(Stage):
    """Next-token prediction on every token of each document, its EOS included."""

    kind: Literal["pretrain"]
    """Next-token prediction on every token of each document, its EOS included."""


class Sft(Stage):
    """Supervised fine-tuning: completion tokens and EOS are supervised."""

    kind: Literal["sft"]
    """Supervised fine-tuning: completion tokens and EOS are supervised."""
    prompt_loss_weight: Fraction = 0.0
    """Weight of a prompt token's loss beside a completion token's 1. The loss is the weighted mean over tokens."""


DpoLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft",
]  # fmt: skip


class Dpo(Stage):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) by TRL, on pairs."""

    kind: Literal["dpo"]
    """Direct preference optimisation by TRL; the reference is the checkpoint the stage starts from."""
    learning_rate: Annotated[float, Field(ge=0)] = 1.0e-6
    """Peak learning rate; TRL's default for DPO."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull towards the reference."""
    loss_type: Annotated[tuple[DpoLoss, ...], BeforeValidator(_one_or_many), Field(min_length=1)] = ("sigmoid",)
    """One of TRL's losses, or several that are summed with `loss_weights`; `sft` is the cross-entropy of chosen."""
    loss_weights: Annotated[tuple[float, ...], BeforeValidator(_as_tuple)] | None = None
    """One weight per entry of `loss_type`. Default: 1 each."""

    @model_validator(mode="after")
    def _a_weight_for_each_loss(self) -> Dpo:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(f"loss_weights has {len(self.loss_weights)} items, loss_type has {len(self.loss_type)}")
        return self


AnyStage = Annotated[Pretrain | Sft | Dpo, Field(discriminator="kind")]


class Bound(Block):
    """Bounds on a number: one that the cases of a suite recorded, or one of the suite as a whole, such as `f1` or what
    `pooled=` computes; that one is its own mean, least and greatest."""

    max_mean: float | None = None
    """The mean may not be above this."""
    min_mean: float | None = None
    """The mean may not be below this."""
    max: float | None = None
    """No case may be above this."""
    min: float | None = None
    """No case may be below this."""
    max_mean_rise: float | None = None
    """The mean may not rise by more than this over the baseline's, of the cases that both recorded."""

    @model_validator(mode="after")
    def _bounds_something(self) -> Bound:
        if not self.model_fields_set:
            raise ValueError("give at least one of max_mean, min_mean, max, min, max_mean_rise")
        return self


class Gate(Block):
    """The rule that turns a suite's verdicts into green or red. Every part must hold; any `error` verdict is red."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, use_attribute_docstrings=True)
    __pydantic_extra__: dict[str, Bound]

    min_pass_rate: Fraction | None = None
    """Share of the asked cases that must pass."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] | None = None
    """With `min_pass_rate`: the lower bound of the Wilson interval at this confidence must reach the rate."""
    max_regression: Literal["significant"] | Annotated[int, Field(ge=0)] | None = None
    """Against the baseline: at most so many net lost cases, or none beyond chance (exact one-sided McNemar test, one
    sign for cases that share a fact, at 5 % for the whole run: Holm over the suites of a checkpoint, and an equal part
    for each checkpoint)."""
    pinned: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Case ids that must pass wherever they passed at the baseline."""
    baseline: str | None = None
    """The checkpoint to compare with. Default: the one the stage started from."""
    on_fail: Literal["continue", "stop"] = "continue"
    """What a red gate does to the run. Only `result:` decides the exit code."""

    @model_validator(mode="after")
    def _gates_something(self) -> Gate:
        if self.confidence is not None and self.min_pass_rate is None:
            raise ValueError("confidence belongs to min_pass_rate")
        if self.min_pass_rate is None and self.max_regression is None and not self.pinned and not self.bounds:
            raise ValueError("a gate needs a rule, for example min_pass_rate: 0.95")
        return self

    @property
    def bounds(self) -> dict[str, Bound]:
        """Bounds by the name of the recorded number."""
        return dict(self.__pydantic_extra__ or {})


class DecodingChange(Block):
    """What a suite changes in the decoding of its probes, key by key; the rest stays as the probe file says."""

    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """At most so many tokens are generated."""
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_one_or_many)] | None = None
    """Strings that end a reply; an empty list takes the probe's away."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """0 is greedy; above it, tokens are drawn, seeded per case."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling: tokens are drawn from the most likely ones that have this share of the probability."""
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    """Above 1, tokens that already occurred become less likely; 1 changes nothing."""
    samples: Annotated[int, Field(ge=1)] | None = None
    """Replies per case; above 1 with a temperature above 0."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Of drawing, together with the case's id and the number of the sample."""

    @model_validator(mode="after")
    def _changes_something(self) -> DecodingChange:
        if not self.changes:
            raise ValueError("give at least one key, for example repetition_penalty: 1.2")
        if self.temperature == 0 and (self.samples or 1) > 1:
            raise ValueError("samples above 1 need a temperature above 0: greedy samples are all the same")
        return self

    @property
    def changes(self) -> dict[str, Any]:
        """The keys that are given, with their values."""
        return {name: value for name, value in self if value is not None}


class Suite(Block):
    """A probe file or one probe of it, the cases it is asked, how it is decoded, and its gate."""

    file: str
    """A pytest file, or `file.py::test_name`."""
    cases: str | None = None
    """A data set or split whose rows are the cases. Default: the cases the probe file names."""
    stages: Names | None = None
    """Stages whose checkpoints are asked. Default: all."""
    gate: Gate | None = None
    """Replaces the gate in the probe file."""
    decoding: DecodingChange | None = None
    """Changes single keys of the probes' own decoding, so that one file can be asked in two ways by two suites."""
    leaks: Literal["fail", "warn", "expected"] = "warn"
    """What a case means whose question stands in the rows that the checkpoint was trained on: nothing trains, or its
    verdict is an error (`fail`); it is said (`warn`); it is meant, as in a suite of trained questions (`expected`)."""


class Result(Block):
    """The checkpoint whose gates set the exit code."""

    checkpoint: str
    """For example `prefer@best`."""
    baseline: str | None = None
    """What it is compared with. Default: the checkpoint its stage started from."""


class Recipe(Block):
    """A whole recipe."""

    recipe: Name
    """Its name; the run is written to `results/NAME`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of weights, splits, templates, shuffling and dropout."""
    vars: dict[str, Any] = Field(default_factory=dict)
    """Values for `{{ name }}` in strings of the recipe; the texts of a data set take their names from its rows."""
    model: Model
    """The model the first stage starts from."""
    data: dict[Name, Data] = Field(min_length=1)
    """Named data sets."""
    stages: dict[Name, AnyStage] = Field(min_length=1)
    """Training stages, in the order they run."""
    probes: dict[Name, Suite] = Field(default_factory=dict)
    """Named probe suites."""
    best: str | None = None
    """The suite whose pass rate decides what `@best` means; it should gate nothing."""
    result: Result | None = None
    """The checkpoint whose gates set the exit code. Default: the last one of the last stage."""

    def lineage(self, stage: str) -> tuple[str, ...]:
        """A stage and those that its weights came through, the latest first."""
        found = [stage]
        while (start := self.stages[found[-1]].from_) and (ref := parse_ref(start)) and ref.stage in self.stages:
            found.append(ref.stage)
        return tuple(found)

    def trained_on(self, stage: str) -> tuple[str, ...]:
        """The data sets and splits that the checkpoints of a stage were trained on, the latest stage's first."""
        return tuple(dict.fromkeys(ref for name in self.lineage(stage) for ref in self.stages[name].data))

    def asked_at(self, stage: str) -> tuple[str, ...]:
        """The suites that are asked at the checkpoints of a stage."""
        return tuple(name for name, suite in self.probes.items() if suite.stages is None or stage in suite.stages)


ROW_TEMPLATES = frozenset({"text", "prompt", "completion", "chosen", "rejected"})
"""Keys of a data set whose strings are rendered per row; every other string is rendered once, with `vars`."""


@dataclass(frozen=True)
class Ref:
    """A reference to a checkpoint of a stage: `qa@best`, `qa@last`, `qa@epoch=2` or `qa@1264`."""

    stage: str
    which: Literal["best", "last", "epoch", "step"]
    number: float = 0
    """The epoch or the step, where `which` is one of them."""


_REF = re.compile(
    r"^(?P<stage>[A-Za-z][A-Za-z0-9_-]*)@(?:(?P<word>best|last)|epoch=(?P<epoch>\d+(?:\.\d+)?)|(?P<step>\d+))$"
)


def parse_ref(text: str) -> Ref | None:
    """The checkpoint that `text` refers to, or None where it is a path."""
    match = _REF.match(text)
    if match is None:
        return None
    if match["word"]:
        return Ref(match["stage"], "best" if match["word"] == "best" else "last")
    if match["epoch"]:
        return Ref(match["stage"], "epoch", float(match["epoch"]))
    return Ref(match["stage"], "step", int(match["step"]))
