"""pretrain and sft: transformers' Trainer on our own token ids and loss weights."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

from runner import spec
from runner.data.epochs import Epochs
from runner.data.tokens import Tokens
from runner.train.arguments import Setup, checked, trainer_arguments

IGNORED = -100
"""The label that torch's cross-entropy leaves out."""


class EpochRows(Dataset[Tokens]):
    """The rows of the current epoch, in the order they are trained on."""

    def __init__(self, epochs: Epochs) -> None:
        self._epochs = epochs
        self._epoch = 0
        self._rows = epochs.epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Redraw and reshuffle; called by accelerate's data loader at the start of each epoch."""
        if epoch != self._epoch:
            self._epoch, self._rows = epoch, self._epochs.epoch(epoch)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Tokens:
        return self._rows[index]

    def tokens_in(self, epoch: int, start: int, stop: int) -> tuple[int, int]:
        """Tokens of rows start to stop of an epoch, and how many of them the loss sees with full weight."""
        self.set_epoch(epoch)
        rows = self._rows[start:stop]
        return sum(len(row.ids) for row in rows), sum(row.supervised for row in rows)


class Collate:
    """Pads rows to the longest of the batch.

    Returns input_ids, attention_mask and labels of shape (B, T); with a prompt weight also loss_weights (B, T), the
    weight of each position's own token: 0 for padding, `prompt_loss_weight` for prompt tokens, 1 for the rest.
    """

    def __init__(self, pad_id: int, prompt_loss_weight: float) -> None:
        self._pad_id, self._prompt_loss_weight = pad_id, prompt_loss_weight

    def __call__(self, rows: list[Tokens]) -> dict[str, torch.Tensor]:  # noqa: D102 - see the class
        longest = max(len(row.ids) for row in rows)
        weighted = self._prompt_loss_weight > 0
        ids, labels, mask, weights = [], [], [], []
        for row in rows:
            padding = longest - len(row.ids)
            ids.append(row.ids + [self._pad_id] * padding)
            mask.append([1] * len(row.ids) + [0] * padding)
            hidden = 0 if weighted else row.prompt_tokens
            labels.append([IGNORED] * hidden + row.ids[hidden:] + [IGNORED] * padding)
            completion = len(row.ids) - row.prompt_tokens
            weights.append([self._prompt_loss_weight] * row.prompt_tokens + [1.0] * completion + [0.0] * padding)
        batch = {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask),
            "labels": torch.tensor(labels),
        }
        return {**batch, "loss_weights": torch.tensor(weights)} if weighted else batch


def weighted_loss(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, total: torch.Tensor
) -> torch.Tensor:
    """Sum of w_t * -log p(token_t | tokens before t), divided by `total`, the sum of w over the whole global batch.

    Args:
        logits: (B, T, V).
        labels: (B, T), IGNORED where there is no token.
        weights: (B, T), the weight of each label.
        total: scalar.
    """
    predicted = logits[:, :-1].float().flatten(0, 1)  # (B*(T-1), V)
    nll = functional.cross_entropy(predicted, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="none")
    return (nll * weights[:, 1:].flatten()).sum() / total


class CausalTrainer(Trainer):
    """transformers' Trainer, with a weight for prompt tokens where the recipe gives one.

    Args:
        batch: rows per step, and steps per epoch.
    """

    train_dataset: EpochRows

    def __init__(self, *, batch: tuple[int, int], **kwargs: Any) -> None:
        self._rows_per_step, self._steps_per_epoch = batch
        super().__init__(**kwargs)

    def tokens_in_step(self, step: int) -> tuple[int, int]:
        """Real tokens of a step (from 0), and how many of them the loss sees with full weight."""
        epoch, index = divmod(step, self._steps_per_epoch)
        return self.train_dataset.tokens_in(epoch, index * self._rows_per_step, (index + 1) * self._rows_per_step)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The micro-batches of a step, and the sum of the weights of their tokens, by which the loss is divided."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        if batches and "loss_weights" in batches[0]:
            items = sum(batch["loss_weights"][:, 1:].sum() for batch in batches)
        # a batch of rows that were all cut before their completion teaches nothing, and must not divide by zero
        return batches, None if items is None else torch.as_tensor(items).clamp(min=1)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a micro-batch as its share of the global batch's."""
        if "loss_weights" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        weights, labels = inputs.pop("loss_weights"), inputs.pop("labels")
        outputs = model(**inputs)
        loss = weighted_loss(outputs.logits, labels, weights, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it walks all parameters at each step, and nobody reads it."""
        return 0


def build(
    stage: spec.Pretrain | spec.Sft,
    setup: Setup,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    epochs: Epochs,
) -> CausalTrainer:
    """The trainer of a stage."""
    # the rows of pretrain have no prompt (Epochs, whole=True)
    prompt_loss_weight = stage.prompt_loss_weight if isinstance(stage, spec.Sft) else 0.0
    return CausalTrainer(
        batch=(stage.global_batch_size, setup.job.steps_per_epoch),
        model=model,
        args=checked(TrainingArguments, stage, model, trainer_arguments(stage, setup)),
        data_collator=Collate(tokenizer.pad_token_id, prompt_loss_weight),
        train_dataset=EpochRows(epochs),
        processing_class=tokenizer,
    )
