"""dpo: TRL's DPOTrainer on our own token ids, with the checkpoint the stage starts from as its reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from runner import spec
from runner.data.epochs import epoch_order
from runner.data.tokens import PairTokens
from runner.train.arguments import Setup, checked, trainer_arguments


class EpochOrder(torch.utils.data.Sampler[int]):
    """The order of pairs in each epoch, drawn from (seed, epoch)."""

    def __init__(self, length: int, seed: int) -> None:
        self._length, self._seed, self._epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's data loader at the start of each epoch."""
        self._epoch = epoch

    def order(self, epoch: int) -> list[int]:
        """Indices of all pairs, shuffled."""
        return epoch_order(self._length, self._seed, epoch)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self._epoch))

    def __len__(self) -> int:
        return self._length


class PreferenceTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer, given token ids instead of texts, and told the order of the pairs.

    A pair counts as much in a micro-batch that is smaller than the others, the last of an epoch, as in any other.
    Losses that are no mean over pairs (`sft`, over tokens; `aot`, of sorted pairs) are TRL's for each micro-batch.

    Args:
        pairs: the rows of the train_dataset.
        batch: pairs per step, and steps per epoch.
        seed: of the order.
    """

    loss_is_scaled_for_ga = True
    """The loss of a micro-batch is its share of the step's."""

    def __init__(self, *, pairs: Sequence[PairTokens], batch: tuple[int, int], seed: int, **kwargs: Any) -> None:
        self._pairs, self._order = pairs, EpochOrder(len(pairs), seed)
        self._rows_per_step, self._steps_per_epoch = batch
        self._counted: tuple[int, list[int]] = (-1, [])
        super().__init__(**kwargs)

    def tokens_in_step(self, step: int) -> tuple[int, int]:
        """Tokens that a step (from 0) reads, a prompt once per completion, and how many of them are completions'."""
        epoch, index = divmod(step, self._steps_per_epoch)
        if self._counted[0] != epoch:
            self._counted = (epoch, self._order.order(epoch))
        chosen = self._counted[1][index * self._rows_per_step : (index + 1) * self._rows_per_step]
        rows = [self._pairs[position] for position in chosen]
        supervised = sum(len(row.chosen_ids) + len(row.rejected_ids) for row in rows)
        return supervised + 2 * sum(len(row.prompt_ids) for row in rows), supervised

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The micro-batches of a step, and how many pairs they hold."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        return batches, sum(len(batch["input_ids"]) // 2 for batch in batches)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a micro-batch as its share of the global batch's; alone, where no batch is named."""
        found = super().compute_loss(model, inputs, return_outputs)
        if num_items_in_batch is None:
            return found
        share = len(inputs["input_ids"]) // 2 / num_items_in_batch
        return (found[0] * share, found[1]) if return_outputs else found * share

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it walks all parameters at each step, and nobody reads it."""
        return 0

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """The ids are made (`runner.data.tokens`): where the answer begins, and its EOS, are ours to say."""
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        return self._order

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No card for a state folder, which nobody reads."""


def build(
    stage: spec.Dpo,
    setup: Setup,
    model: PreTrainedModel,
    reference: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[PairTokens],
) -> PreferenceTrainer:
    """The trainer of a stage; `reference` is a second copy of the checkpoint that `model` starts from, None where that
    is an adapter of which TRL keeps a copy."""
    rows = [
        {"prompt_ids": pair.prompt_ids, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids}
        for pair in pairs
    ]
    return PreferenceTrainer(
        pairs=pairs,
        batch=(stage.global_batch_size, setup.job.steps_per_epoch),
        seed=setup.seed,
        model=model,
        ref_model=reference,
        args=checked(DPOConfig, stage, model, _dpo_arguments(stage, setup)),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def _dpo_arguments(stage: spec.Dpo, setup: Setup) -> dict[str, Any]:
    own: dict[str, Any] = {
        "beta": stage.beta,
        "loss_type": list(stage.loss_type),
        "loss_weights": list(stage.loss_weights) if stage.loss_weights else None,
        "max_length": stage.max_length,
        # TRL turns dropout off, in the reference too; a stage that asks for one gets it
        "disable_dropout": stage.dropout is None,
        # TRL turns it on; it trades a third of the speed for memory, and that is the user's choice to make
        "activation_checkpointing": False,
    }
    return {**own, **trainer_arguments(stage, setup)}
