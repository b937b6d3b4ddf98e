"""Training stages, one class per kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from runner.spec.blocks import Block, EveryOrSteps, Fraction, Names, as_tuple, one_or_many
from runner.spec.methods import Ewc, Kl, Lora, Part, Replay, StopWhen


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
    """Rows (for dpo pairs, for contrast prompts) per optimizer step, on any hardware; per-device size and accumulation
    follow from it."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """At most so many rows at a time on one device; what is left of the global batch is accumulated."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """Tokens; what happens to a longer row `truncation` says, and the plan counts it."""
    lora: Lora | None = None
    """Train an adapter, and leave the weights as they are."""
    adapter: Literal["continue", "merge"] | None = None
    """What becomes of the adapter of the checkpoint that the stage starts from: it is trained on, or merged into the
    weights first. Default: `continue` where this stage has `lora`, else `merge`."""
    freeze: Annotated[tuple[str, ...], BeforeValidator(one_or_many)] = ()
    """Patterns of names of parameters that are not trained, for example `model.embed_tokens.*`."""
    train_only: Annotated[tuple[str, ...], BeforeValidator(one_or_many)] = ()
    """Patterns of names of parameters; all others are not trained."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Every dropout that the model's configuration knows, while this stage trains. Default: as it stands there."""
    stop_when: StopWhen | None = None
    """End the stage early, by its probes."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """What a loss or a gradient that is not finite does: end the run, or go back to the stage's last checkpoint (or its
    start) and go on without that batch; a second time from there without the last 10, a third without the last 100,
    then the run ends too. Default: such a batch, or such a learning rate, should be known."""
    save_strategy: Literal["steps", "epoch", "no"] = "steps"
    """When checkpoints are published (and probed). The stage's last step always is."""
    save_steps: EveryOrSteps = 500
    """With `save_strategy: steps`: a number, every so many steps; or a list of the steps themselves."""
    logging_steps: Annotated[int, Field(ge=1)] = 10
    """Steps between two recorded losses."""
    trainer_args: dict[str, Any] = Field(default_factory=dict)
    """Any other argument of transformers' TrainingArguments (for dpo: TRL's DPOConfig), checked by name."""

    @model_validator(mode="after")
    def _one_way_to_freeze(self) -> Stage:
        if self.freeze and self.train_only:
            raise ValueError("freeze and train_only say the same thing in two ways; give one")
        return self

    @property
    def penalty_data(self) -> dict[str, tuple[str, ...]]:
        """The data sets that are read by terms added to the loss, by term; their answers are not learned."""
        return {}


class Causal(Stage):
    """What stages of next-token prediction have in common."""

    truncation: Literal["keep_start", "keep_end", "drop", "chunk"] = "keep_start"
    """A row longer than `max_length` loses its end or its beginning, is left out, or becomes several rows."""
    chunk_overlap: Annotated[int, Field(ge=0)] = 0
    """With `truncation: chunk`: tokens that a row repeats of the one before it, unsupervised."""
    packing: bool | Literal["wrapped"] = False
    """Rows of a step share sequences of up to `max_length` tokens and do not see each other: what is learned stays the
    same, less time goes into padding. `wrapped` (pretrain): documents run on through sequences of exactly `max_length`
    and see each other; a row then is a sequence."""
    mix: dict[str, Part] = Field(default_factory=dict)
    """How often the rows of a data set are seen in an epoch, by the name it has in `data`."""
    replay: Replay | None = None
    """Rows of earlier data in each epoch."""
    neftune_noise_alpha: Annotated[float, Field(gt=0)] | None = None
    """Noise on the embeddings while training, uniform in ± alpha / sqrt(L d), for L tokens of d numbers each (NEFTune,
    Jain et al. 2023, arXiv:2310.05914)."""
    kl: Kl | None = None
    """A pull towards what the starting checkpoint says."""
    ewc: Ewc | None = None
    """A pull towards the starting weights, where they matter."""

    @model_validator(mode="after")
    def _fits_together(self) -> Causal:
        if self.chunk_overlap and self.truncation != "chunk":
            raise ValueError("chunk_overlap belongs to truncation: chunk")
        if self.chunk_overlap >= self.max_length // 2:
            raise ValueError(f"chunk_overlap is less than half of max_length, {self.max_length}")
        if self.packing == "wrapped" and "truncation" in self.model_fields_set:
            raise ValueError("with packing: wrapped documents run on, and none is truncated")
        if self.neftune_noise_alpha is not None and self.packing is not False:
            raise ValueError("neftune_noise_alpha needs rows of their own: packing would make their noise smaller")
        weighted = getattr(self, "prompt_loss_weight", 0) > 0
        if self.trainer_args.get("label_smoothing_factor") and (self.kl is not None or weighted):
            other = "kl" if self.kl is not None else "prompt_loss_weight"
            raise ValueError(f"trainer_args.label_smoothing_factor does not go with {other}: its loss is not smoothed")
        return self

    @property
    def penalty_data(self) -> dict[str, tuple[str, ...]]:
        """See `Stage`."""
        named = {"kl": self.kl.data if self.kl else None, "ewc": self.ewc.data if self.ewc else None}
        return {name: refs for name, refs in named.items() if refs}


class Pretrain(Causal):
    """Next-token prediction on every token of each document, its EOS included."""

    kind: Literal["pretrain"]
    """Next-token prediction on every token of each document, its EOS included."""


class Sft(Causal):
    """Supervised fine-tuning: completion tokens and EOS are supervised."""

    kind: Literal["sft", "lora"]
    """Supervised fine-tuning: completion tokens and EOS are supervised. `lora` is `sft` with `lora: {}`, an adapter
    with the defaults, where the stage gives none."""
    prompt_loss_weight: Fraction = 0.0
    """Weight of a prompt token's loss beside a completion token's 1. The loss is the weighted mean over tokens."""
    train_on_turns: Literal["all", "last"] = "all"
    """Which of the assistant's turns of a conversation are supervised."""

    @model_validator(mode="before")
    @classmethod
    def _default_adapter(cls, block: Any) -> Any:
        return {"lora": {}, **block} if isinstance(block, dict) and block.get("kind") == "lora" else block

    @model_validator(mode="after")
    def _no_wrapping(self) -> Sft:
        if self.packing == "wrapped":
            raise ValueError("packing: wrapped belongs to pretrain; sft packs with packing: true")
        return self


DpoLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip


_OF_THE_MARGIN = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
"""Losses that see chosen and rejected only as a difference: what other divergences leave out cancels there alone."""


class Dpo(Stage):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) by TRL, on pairs."""

    kind: Literal["dpo"]
    """Direct preference optimisation by TRL; the reference is the checkpoint the stage starts from."""
    learning_rate: Annotated[float, Field(ge=0)] = 1.0e-6
    """Peak learning rate; TRL's default for DPO."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull towards the reference."""
    loss_type: Annotated[tuple[DpoLoss, ...], BeforeValidator(one_or_many), Field(min_length=1)] = ("sigmoid",)
    """One of TRL's losses, or several that are summed with `loss_weights`; `sft` is the cross-entropy of chosen, so
    `[sigmoid, sft]` with `loss_weights: [1, 0.2]` adds 0.2 times it. What else changes a loss stands in `trainer_args`:
    `label_smoothing`, `f_divergence_type`, `f_alpha_divergence_coef`, `ld_alpha`, `use_weighting`, `discopop_tau`."""
    loss_weights: Annotated[tuple[Annotated[float, Field(ge=0)], ...], BeforeValidator(as_tuple)] | None = None
    """One weight per entry of `loss_type`. Default: 1 each."""

    @model_validator(mode="after")
    def _a_weight_for_each_loss(self) -> Dpo:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(f"loss_weights has {len(self.loss_weights)} items, loss_type has {len(self.loss_type)}")
        return self

    @model_validator(mode="after")
    def _losses_that_can_be(self) -> Dpo:
        """What TRL refuses only when it has loaded a model, or divides by zero for."""
        losses, arguments = set(self.loss_type), self.trainer_args
        smoothing = arguments.get("label_smoothing", 0.0)
        smoothing = smoothing if isinstance(smoothing, (int, float)) else 0.0
        if "exo_pair" in losses and smoothing <= 0:
            raise ValueError("loss_type exo_pair needs trainer_args: {label_smoothing: …} above 0, for example 1.0e-3")
        if "robust" in losses and not 0 <= smoothing < 0.5:
            raise ValueError(f"loss_type robust takes a label_smoothing from 0 to below 0.5, not {smoothing:g}")
        divergence = arguments.get("f_divergence_type", "reverse_kl")
        if divergence != "reverse_kl" and (others := sorted(losses - _OF_THE_MARGIN)):
            raise ValueError(f"loss_type {', '.join(others)} goes with no other f_divergence_type than reverse_kl")
        if arguments.get("use_weighting") and (sorting := sorted(losses & {"aot", "aot_unpaired"})):
            raise ValueError(f"loss_type {', '.join(sorting)} sorts pairs, which use_weighting does not go with")
        return self


class Contrast(Stage):
    """The right completion against all of its negatives at once: the "and" to DPO's "or".

    The loss of a step is the mean over its prompts of

        contrast_weight * -log(exp s(chosen) / (exp s(chosen) + sum over its negatives of exp s(rejected)))
        + sft_weight * mean over the tokens of chosen of -log p(token)
        + unlikelihood_weight * mean over the wrong tokens of its negatives of -log(1 - p(token))

    with s(y) the sum or mean (`score`) of the log probabilities of a completion's tokens, its EOS among them, divided
    by `temperature`. The first is InfoNCE (van den Oord et al. 2018, arXiv:1807.03748), the third unlikelihood (Welleck
    et al. 2020, arXiv:1908.04319). The wrong tokens of a negative are what remains when the longest beginning and then
    the longest end that it shares with chosen are taken off, and where nothing remains the one token that follows the
    shared beginning: only there does it say what chosen does not.
    """

    kind: Literal["contrast"]
    """The right completion against all of its negatives at once."""
    learning_rate: Annotated[float, Field(ge=0)] = 1.0e-5
    """Peak learning rate."""
    score: Literal["sum", "mean"] = "mean"
    """Of a completion's token log probabilities: their sum, or their mean, which lengths do not sway."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Scores are divided by it; below 1, the hardest negative counts most."""
    contrast_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of the softmax over chosen and its negatives."""
    sft_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of the cross-entropy of chosen."""
    unlikelihood_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of the unlikelihood of the negatives' tokens."""

    @model_validator(mode="after")
    def _learns_something(self) -> Contrast:
        if not (self.contrast_weight or self.sft_weight or self.unlikelihood_weight):
            raise ValueError("contrast_weight, sft_weight and unlikelihood_weight are 0: nothing would be learned")
        if self.trainer_args.get("label_smoothing_factor"):
            raise ValueError("trainer_args.label_smoothing_factor changes nothing here: contrast smooths no loss")
        return self


AnyStage = Annotated[Pretrain | Sft | Dpo | Contrast, Field(discriminator="kind")]
