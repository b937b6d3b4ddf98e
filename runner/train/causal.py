"""pretrain and sft: transformers' Trainer on our own token ids and loss weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from runner import spec
from runner.data.epochs import Epochs
from runner.train import penalties, processes, zero
from runner.train.arguments import Setup, checked, trainer_arguments
from runner.train.batches import IGNORED, Collate, Pack, micro_batches
from runner.train.finite import FiniteTrainer
from runner.train.penalties import Penalty, Share, model_inputs, weight_of
from runner.train.rows import Dealt, EpochRows, StepLoader, loader


def weighted_loss(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None, total: torch.Tensor
) -> torch.Tensor:
    """Sum of w_t * -log p(token_t | tokens before t), divided by `total`, the sum of w over the whole global batch.

    Args:
        logits: (B, T, V).
        labels: (B, T), IGNORED where there is no token.
        weights: (B, T), the weight of each label; each weighs 1 where there are none.
        total: scalar.
    """
    predicted = logits[:, :-1].float().flatten(0, 1)  # (B*(T-1), V)
    nll = functional.cross_entropy(predicted, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="none")
    return (nll if weights is None else nll * weights[:, 1:].flatten()).sum() / total


class CausalTrainer(FiniteTrainer):
    """transformers' Trainer, with a weight for prompt tokens where the recipe gives one, and terms added to the loss.

    Where several processes train, gradients are averaged over them: the loss of each is its part of the step's times
    their number.

    Args:
        batch: rows per step, and steps per epoch.
        penalties: the terms; what each adds to the loss is recorded under its name, and what is left of the loss, the
            cross-entropy, as `cross_entropy`.
    """

    train_dataset: EpochRows
    loss_is_scaled_for_ga = True
    """The loss of a micro-batch is its share of the step's, whatever the model's own code does with it."""

    def __init__(self, *, batch: tuple[int, int], penalties: Sequence[Penalty] = (), **kwargs: Any) -> None:
        self._rows_per_step, self._steps_per_epoch = batch
        self._penalties = tuple(penalties)
        self._micro_batch, self._micro_batches = 0, 1  # of the step
        self._added: dict[str, torch.Tensor] = {}  # by each term, since losses were last recorded
        self._unrecorded_steps = 0
        super().__init__(**kwargs)

    def tokens_in_step(self, step: int) -> tuple[int, int]:
        """Real tokens of a step (from 0), and how many of them the loss sees with full weight."""
        epoch, index = divmod(step, self._steps_per_epoch)
        return self.train_dataset.tokens_in(epoch, index * self._rows_per_step, (index + 1) * self._rows_per_step)

    def get_train_dataloader(self) -> StepLoader:
        """This process's rows; where they are packed, which is done for all processes at once, those of all."""
        packed = isinstance(self.data_collator, Pack)
        at_once = self._rows_per_step if packed else self.args.per_device_train_batch_size
        dealt = Dealt(self.train_dataset, self._rows_per_step, at_once, alone=packed)
        return loader(self.args, self.train_dataset, dealt, self.data_collator)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The micro-batches of a step, and the sum of the weights of the tokens that all processes have of it, by which
        the loss is divided."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        micro = micro_batches(batches)
        items = processes.total(torch.as_tensor(sum(weight_of(batch) for batch in micro)))
        self._micro_batch, self._micro_batches = 0, len(micro)
        self._unrecorded_steps += not self.leaves_out
        # a batch of rows that were all cut before their completion teaches nothing, and must not divide by zero
        return batches, items.to(self.args.device).clamp(min=1)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of a micro-batch; of a packed step, of all of its own, whose number differs from step to step."""
        step = super().training_step
        return processes.in_parts(
            self.accelerator, model, micro_batches([inputs]), lambda part: step(model, part, num_items_in_batch)
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a micro-batch as its share of the global batch's."""
        if "loss_weights" in inputs or not self.model_accepts_loss_kwargs:
            outputs = model(**model_inputs(inputs))
            loss = weighted_loss(outputs.logits, inputs["labels"], inputs.get("loss_weights"), num_items_in_batch)
        else:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if self._penalties:
            loss = loss + self._terms(model, inputs, outputs, num_items_in_batch)
        loss = loss * processes.count()
        return (loss, outputs) if return_outputs else loss

    def _terms(self, model: Any, inputs: dict[str, Any], outputs: Any, total: torch.Tensor) -> torch.Tensor:
        """What the penalties add for a micro-batch."""
        index, of = self._micro_batch * processes.count() + processes.rank(), self._micro_batches * processes.count()
        share = Share(self.state.global_step, index, of, total)
        self._micro_batch += 1
        terms = [penalty.loss(model, inputs, outputs, share) for penalty in self._penalties]
        for penalty, term in zip(self._penalties, terms, strict=True):
            self._added[penalty.name] = self._added.get(penalty.name, 0) + term.detach()
        return torch.stack(terms).sum()

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Record losses; the terms are means over the steps since the last time, as the loss is."""
        if "loss" in logs and self._penalties:
            steps = max(self._unrecorded_steps, 1)
            added = {name: processes.total(value).item() / steps for name, value in self._added.items()}
            logs = {**logs, "cross_entropy": logs["loss"] - sum(added.values()), **added}
            self._added, self._unrecorded_steps = {}, 0
        super().log(logs, *args, **kwargs)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it walks all parameters at each step, and nobody reads it."""
        return 0


def build(
    stage: spec.Pretrain | spec.Sft,
    setup: Setup,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    epochs: Epochs,
    penalty_rows: Mapping[str, Epochs] = MappingProxyType({}),
) -> CausalTrainer:
    """The trainer of a stage.

    Args:
        stage: what the recipe says of it.
        setup: what else it is trained with.
        model: as the stage starts.
        tokenizer: its tokenizer.
        epochs: the rows that it learns.
        penalty_rows: for each of `stage.penalty_data`, the rows that only a penalty reads.
    """
    # the rows of pretrain have no prompt (Epochs, whole=True)
    prompt_loss_weight = stage.prompt_loss_weight if isinstance(stage, spec.Sft) else 0.0
    own = trainer_arguments(stage, setup)
    if stage.packing is True:
        # the rows of a step come together, and are divided into micro-batches where they are packed
        share = stage.global_batch_size // processes.count()
        own |= {"per_device_train_batch_size": share, "gradient_accumulation_steps": 1}
        own |= {"use_cache": False}  # with a cache transformers does not look for rows that share a sequence
    arguments = checked(TrainingArguments, stage, model, own)
    collate = Collate(tokenizer.pad_token_id, prompt_loss_weight)
    return CausalTrainer(
        batch=(stage.global_batch_size, setup.job.steps_per_epoch),
        penalties=[
            *penalties.build(stage, setup, _on_device(model, setup, arguments), collate, penalty_rows),
            *_on_adapter(stage, model),
        ],
        model=model,
        args=arguments,
        data_collator=_packed(stage, setup, model, collate) if stage.packing is True else collate,
        train_dataset=EpochRows(epochs),
        processing_class=tokenizer,
    )


def _on_adapter(stage: spec.Pretrain | spec.Sft, model: PreTrainedModel) -> tuple[Penalty, ...]:
    """The term on the size of the adapter, where the recipe asks for it."""
    if stage.lora is None or not stage.lora.l2:
        return ()
    from runner.train.adapters import SmallAdapter  # PEFT, which most stages do without

    return (SmallAdapter(model, stage.lora.l2),)


def _packed(stage: spec.Pretrain | spec.Sft, setup: Setup, model: PreTrainedModel, padded: Collate) -> Pack:
    """Rows of a step share sequences, in the layout that the model's attention takes."""
    from runner.train import isolation

    layout = isolation.choose(model, model.config._attn_implementation)
    process = (processes.rank(), processes.count())
    return Pack(padded.pad_id, padded.prompt_loss_weight, layout, setup.job.per_device_batch_size, process)


def _on_device(model: PreTrainedModel, setup: Setup, arguments: TrainingArguments) -> PreTrainedModel:
    """The model where it will be trained, which is where the penalties keep what they need of it; one that ZeRO-3 is to
    divide stays where it is, and no device has to hold all of it."""
    if zero.is_divided(setup.deepspeed):
        return model
    if next(model.parameters()).device.type != arguments.device.type:
        model.to(arguments.device)  # type: ignore[arg-type]  # a device is one
    return model
