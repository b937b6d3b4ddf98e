"""What a stage starts with: its tokenizer, and the network that it trains, made from nothing, from a checkpoint or from
an adapter and its base."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from runner import jobs, loadable, model, spec
from runner.data import vocabulary
from runner.errors import BadCheckpoint, BadRecipe, Problem, first_line
from runner.folder import folder_or_hub_id, tokenizer_place
from runner.recipe import Loaded
from runner.train import frozen, processes, zero

if TYPE_CHECKING:
    from peft import PeftModel

_STATE = "state/start"
"""In a stage's folder: weights that ZeRO-3 divides while it loads them, where they were made for it."""


@dataclass(frozen=True)
class Start:
    """Where a stage begins, and how its network is held."""

    loaded: Loaded
    run: Path
    job: jobs.Job
    attention: str
    dtype: str
    """That is computed in."""
    deepspeed: Mapping[str, Any] = field(default_factory=dict)
    """What DeepSpeed is given; empty without."""

    @property
    def stage(self) -> spec.AnyStage:
        """What the recipe says."""
        return self.loaded.spec.stages[self.job.stage]

    @property
    def place(self) -> str | None:
        """A folder or hub id with the weights, or the adapter, that the stage starts from; None for a new model."""
        if self.job.start is not None:
            return str((self.run / self.job.stage / self.job.start.path).resolve())
        path = self.loaded.spec.model.path
        return folder_or_hub_id(path, self.loaded.root) if path is not None else None

    @property
    def tokenizer_place(self) -> str:
        """A stage that starts from a checkpoint has that checkpoint's tokenizer; the first one has the recipe's."""
        if self.job.start is not None and self.place is not None:
            return self.place
        return tokenizer_place(self.loaded.spec.model, self.loaded.root, self.run)

    @property
    def dropout(self) -> float | None:
        """Of every dropout of the model, while the stage trains; None leaves them.

        dpo has none unless the recipe says so: TRL takes the modules away that draw, but most models draw inside their
        attention, and where the reference is an adapter beside the one that is trained, it would draw too.
        """
        if self.stage.dropout is None and self.is_still:
            return 0.0
        return self.stage.dropout

    @property
    def is_still(self) -> bool:
        """Whether it is a stage that trains without dropout."""
        return isinstance(self.stage, spec.Dpo) and self.stage.trainer_args.get("disable_dropout") is not False

    @property
    def extends(self) -> bool:
        """Whether tokens are added to the vocabulary of what it starts from."""
        return self.job.start is None and self.loaded.spec.model.extend_vocabulary is not None

    @property
    def is_as_it_lies(self) -> bool:
        """Whether the stage starts with the weights of a folder or hub id, and nothing is merged in or added first."""
        return self.place is not None and not loadable.is_adapter(Path(self.place)) and not self.extends

    @property
    def dividing(self) -> Mapping[str, Any]:
        """What DeepSpeed is given, where weights can be divided while they are loaded: whether rows that share a
        sequence see each other is tried on whole ones."""
        return {} if getattr(self.stage, "packing", False) is True else self.deepspeed

    @property
    def goes_on(self) -> bool:
        """Whether the stage trains on the adapter that it starts from."""
        if self.place is None or not loadable.is_adapter(Path(self.place)):
            return False
        return (self.stage.adapter or ("continue" if self.stage.lora else "merge")) == "continue"


def network(start: Start, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel | PeftModel, tuple[str, ...]]:
    """The network that a stage trains, and what is worth a word about it; called again it is made again, alike.

    Weights that are trained are held in float32 and computed with in the dtype of the run; the base of an adapter,
    which is not, is held in that dtype.

    Raises:
        BadRecipe: the model cannot be trained as the stage says.
        BadCheckpoint: what the stage starts from cannot be loaded.
    """
    stage = start.stage
    with _about(start.job.stage):
        if stage.lora is None and not start.goes_on:
            made = _whole(start, tokenizer)
            return made, frozen.choose(made, stage)
        from runner.train import adapters  # PEFT, which most stages do without

        held = adapters.quantized(stage.lora)
        if start.goes_on and start.place is not None:
            base = model.base_of(Path(start.place))
            with zero.divided(start.dividing, start.dtype):
                on = model.load(base, start.attention, start.dtype, start.dropout, **held)
            return adapters.continued(_prepared(on, held), stage.lora, Path(start.place), str(base)), ()
        assert stage.lora is not None  # what follows is a new adapter
        base = _base(start, tokenizer)
        with zero.divided(start.dividing, start.dtype):
            on = model.load(base, start.attention, start.dtype, start.dropout, **held)
        adapters.check_output(on, stage.lora, stage.kind)
        return adapters.new(_prepared(on, held), stage.lora, str(base), start.loaded.spec.seed), ()


def reference(
    start: Start, tokenizer: PreTrainedTokenizerBase, trained: PreTrainedModel | PeftModel
) -> PreTrainedModel | None:
    """The checkpoint that a stage starts from, which dpo compares with, as a network of its own.

    None where `trained` is an adapter: TRL then keeps a copy of the adapter as it is now beside the one that is
    trained, on the same base. Biases that are trained with an adapter have no such copy, and dropout would reach it.
    """
    config = getattr(trained, "peft_config", {}).get("default")
    if config is not None and config.bias == "none" and start.is_still:
        return None
    whole = _whole(start, tokenizer, dropout=False)
    whole.train(False)  # a new model would draw the dropouts of its configuration
    return whole if config is None else whole.to(getattr(torch, start.dtype))


def published_settings(start: Start) -> dict[str, float]:
    """The dropouts of the configuration that checkpoints carry, where the stage trains with others."""
    first = start.loaded.spec.model
    if start.dropout is None:
        return {}
    if start.place is None:
        assert first.config is not None
        return dict(model.dropouts(_config(start.loaded)))
    return dict(model.dropouts(AutoConfig.from_pretrained(_weights_at(start.place), trust_remote_code=False)))


def model_type(start: Start) -> str:
    """What transformers calls the kind of model that a stage trains."""
    if start.place is None:
        return str((start.loaded.spec.model.config or {}).get("model_type", ""))
    return str(AutoConfig.from_pretrained(_weights_at(start.place), trust_remote_code=False).model_type)


def first_type(loaded: Loaded) -> str:
    """The same of the model that the recipe begins with; empty where its configuration is not here."""
    try:
        return str(_config(loaded).model_type)
    except (BadCheckpoint, OSError, *model.IMPOSSIBLE):
        return ""


def _weights_at(place: str) -> Path | str:
    """The folder or hub id that holds a configuration: of an adapter, its base."""
    return model.base_of(Path(place)) if loadable.is_adapter(Path(place)) else place


def _prepared(network: PreTrainedModel, held: Any) -> PreTrainedModel:
    """A base in few bits as PEFT wants it: layer norms in float32, inputs with gradients."""
    if not held:
        return network
    from peft import prepare_model_for_kbit_training

    prepared: PreTrainedModel = prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)
    return prepared


def _whole(start: Start, tokenizer: PreTrainedTokenizerBase, dropout: bool = True) -> PreTrainedModel:
    """All weights that the stage starts with, in float32; an adapter merged in. Where ZeRO-3 trains, each process has
    its part of them, in the dtype of the run.

    Args:
        start: of the stage.
        tokenizer: its tokenizer.
        dropout: whether they have that of the stage.
    """
    if not zero.is_divided(start.dividing):
        return _made(start, tokenizer, dropout)
    # weights that are in no folder are made by one process: drawn in parts they would be others
    place = start.place if start.place is not None and start.is_as_it_lies else _write(start, tokenizer, _STATE)
    with zero.divided(start.dividing, start.dtype):
        return model.load(place, start.attention, start.dtype, start.dropout if dropout else None)


def _made(start: Start, tokenizer: PreTrainedTokenizerBase, dropout: bool) -> PreTrainedModel:
    first, rate = start.loaded.spec.model, start.dropout if dropout else None
    if start.place is None:
        assert first.config is not None
        return model.build(first.config, tokenizer, start.loaded.spec.seed, start.attention, rate)
    made = model.load(start.place, start.attention, "float32", rate)
    if start.extends:
        terms = vocabulary.read(start.run / "data")
        _check_read(tokenizer, terms)
        model.extend(made, terms)
    return made


def _check_read(tokenizer: PreTrainedTokenizerBase, terms: Sequence[vocabulary.Term]) -> None:
    """Whether transformers has the added tokens where the tokenizer's file has them: rows were tokenised by that.

    Raises:
        BadCheckpoint: it has not.
    """
    for term in terms:
        if tokenizer.convert_tokens_to_ids(term.text) != term.id:
            raise BadCheckpoint(
                f"model.extend_vocabulary: {type(tokenizer).__name__} does not read {term.text!r} as token {term.id}",
                hint="its class takes no tokens from tokenizer.json; save it as PreTrainedTokenizerFast",
            )


def _base(start: Start, tokenizer: PreTrainedTokenizerBase) -> str:
    """Where the base of a new adapter lies: where the stage starts, or, if those weights are in no folder of their own,
    `STAGE/base`, which is written now."""
    if start.place is not None and start.is_as_it_lies:
        return start.place
    return _write(start, tokenizer, loadable.BASE)


def _write(start: Start, tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """The weights that the stage starts with, in a folder of the stage; written once, whole or not at all."""
    folder = start.run / start.job.stage / name
    with processes.first_alone():
        if not folder.exists():
            temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
            shutil.rmtree(temporary, ignore_errors=True)
            whole = _made(start, tokenizer, dropout=False).to(getattr(torch, start.dtype))
            whole.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            temporary.replace(folder)
    return str(folder.resolve())


@contextmanager
def _about(stage: str) -> Iterator[None]:
    """A fault of a stage's own keys, with the stage's name before it."""
    try:
        yield
    except BadRecipe as error:
        own = ("lora.", "freeze:", "train_only", "freeze ", "dropout:")
        raise BadRecipe(
            Problem(
                f"stages.{stage}.{problem.message}" if problem.message.startswith(own) else problem.message,
                problem.where, problem.expected, problem.hint,
            )
            for problem in error.problems
        ) from error  # fmt: skip


# --- before anything trains ---


def check_all(loaded: Loaded, *, elsewhere: bool = False) -> None:
    """Whether the model has what every stage says of its parts: targets of adapters, names of parameters, dropouts. It
    is made without weights, on torch's meta device, so that a slip in the last stage is found before the first one
    trains. Stages that start from a folder of another model are looked at when their turn comes.

    Args:
        elsewhere: it will be trained on another machine; what is installed on this one does not matter.

    Raises:
        BadRecipe: it has not; with what is wrong in every stage.
    """
    recipe = loaded.spec
    named = {
        name: stage
        for name, stage in recipe.stages.items()
        if (stage.lora or stage.freeze or stage.train_only or stage.dropout is not None)
        and recipe.stages[recipe.lineage(name)[-1]].from_ is None
    }
    made = skeleton(loaded)[0] if named else None
    if made is None:
        return
    problems: list[Problem] = []
    for name, stage in named.items():
        try:
            with _about(name):
                _check(made, stage, elsewhere=elsewhere)
        except BadRecipe as error:
            problems += error.problems
    if problems:
        raise BadRecipe(problems)


def _check(made: PreTrainedModel, stage: spec.AnyStage, *, elsewhere: bool) -> None:
    model.set_dropout(made.config, stage.dropout)
    frozen.choose(made, stage)
    if stage.lora is not None:
        from runner.train import adapters

        if not elsewhere:
            adapters.quantized(stage.lora)
        adapters.check_targets(made, stage.lora.targets)
        adapters.check_output(made, stage.lora, stage.kind)


def skeleton(loaded: Loaded, attention: str = "") -> tuple[PreTrainedModel | None, str]:
    """The recipe's model without weights; None where it cannot be made, and why. It is made in earnest later.

    Args:
        attention: an implementation; that the model has none of it is told too.
    """
    try:
        config = _config(loaded)
        refused = _refused(config, attention)
        with torch.device("meta"):
            made: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        made.tie_weights()
    except (BadCheckpoint, OSError, *model.IMPOSSIBLE) as error:
        return None, first_line(error)
    return made, refused


def _refused(config: PreTrainedConfig, attention: str) -> str:
    """What the model's code says against an attention implementation; flash attention is not asked here."""
    if attention not in ("sdpa", "eager"):
        return ""
    try:
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, attn_implementation=attention)  # type: ignore[no-untyped-call]
    except ValueError as error:
        said = first_line(error)
        return f"model.attn_implementation: {said}" if "attention" in said.lower() else ""
    return ""


def _config(loaded: Loaded) -> PreTrainedConfig:
    first = loaded.spec.model
    if first.config is not None:
        own = {key: value for key, value in first.config.items() if key != "model_type"}
        return AutoConfig.for_model(first.config["model_type"], **own)
    found: PreTrainedConfig = AutoConfig.from_pretrained(
        _weights_at(folder_or_hub_id(first.path or "", loaded.root)), trust_remote_code=False
    )
    return found
