"""dpo: TRL's DPOTrainer on our own token ids, with the checkpoint the stage starts from as its reference."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from runner import spec
from runner.data.epochs import epoch_order
from runner.data.tokens import PairTokens
from runner.train import processes
from runner.train.arguments import Setup, checked, trainer_arguments
from runner.train.batches import PACKED, micro_batches
from runner.train.finite import FiniteTrainer
from runner.train.rows import Dealt, StepLoader, loader

_COUNTED = "counted"
"""Key of how many pairs of a batch are trained on."""


@dataclass(frozen=True)
class Part:
    """A part of a micro-batch, of which all processes have equally many pairs."""

    pairs: Sequence[int]
    """Places in the epoch."""
    counted: int
    """How many of them the process trains on."""


class Ordered(torch.utils.data.Dataset[Any]):
    """The pairs of the current epoch, in the order they are trained on.

    Args:
        rows: all pairs, as TRL reads them.
        seed: of the order.
    """

    def __init__(self, rows: datasets.Dataset, seed: int) -> None:
        self._rows, self._seed = rows, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Reshuffle; called by `Dealt` at the start of each epoch."""
        self._places = epoch_order(len(self._rows), self._seed, epoch)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._rows[self._places[index]]

    def __getitems__(self, parts: Sequence[Part]) -> list[tuple[list[Any], int]]:
        """For torch's data loader: the pairs of each part, and how many of them count."""
        return [(self._rows.__getitems__([self._places[at] for at in part.pairs]), part.counted) for part in parts]


class DealtEvenly(Dealt):
    """Pairs for each process, always as many for all of them: TRL gathers a number for each pair of a micro-batch.

    Pairs that are left when all have as many make a part of their own, in which each process has one; some have the
    first of them, which does not count there.
    """

    def deal(self, rows: range, index: int, of: int) -> list[Part]:
        """See `Dealt`."""
        each, left = divmod(len(rows), of)
        parts = [Part(rows[each * index : each * (index + 1)], each)] if each else []
        if left:
            alone = rows[each * of :]
            parts.append(Part(alone[index : index + 1] or alone[:1], int(index < left)))
        return parts


class PreferenceTrainer(FiniteTrainer, DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer, given token ids instead of texts, and told the order of the pairs.

    A pair counts as much in a micro-batch that is smaller than the others, the last of an epoch, as in any other.
    Losses that are no mean over pairs (`sft`, over tokens; `aot`, of sorted pairs) are TRL's for each micro-batch.
    Where several processes train, gradients are averaged over them: the loss of each is its part of the step's times
    their number.

    Args:
        pairs: the rows of the train_dataset.
        batch: pairs per step, and steps per epoch.
        seed: of the order.
    """

    loss_is_scaled_for_ga = True
    """The loss of a micro-batch is its share of the step's."""

    def __init__(self, *, pairs: Sequence[PairTokens], batch: tuple[int, int], seed: int, **kwargs: Any) -> None:
        self._pairs, self._seed = pairs, seed
        self._rows_per_step, self._steps_per_epoch = batch
        self._counted: tuple[int, list[int]] = (-1, [])
        super().__init__(**kwargs)

    def tokens_in_step(self, step: int) -> tuple[int, int]:
        """Tokens that a step (from 0) reads, a prompt once per completion, and how many of them are completions'."""
        epoch, index = divmod(step, self._steps_per_epoch)
        if self._counted[0] != epoch:
            self._counted = (epoch, epoch_order(len(self._pairs), self._seed, epoch))
        chosen = self._counted[1][index * self._rows_per_step : (index + 1) * self._rows_per_step]
        rows = [self._pairs[position] for position in chosen]
        supervised = sum(len(row.chosen_ids) + len(row.rejected_ids) for row in rows)
        return supervised + 2 * sum(len(row.prompt_ids) for row in rows), supervised

    def get_train_dataloader(self) -> StepLoader:
        """This process's pairs."""
        pairs = Ordered(self.train_dataset, self._seed)
        dealt = DealtEvenly(pairs, self._rows_per_step, self.args.per_device_train_batch_size)
        return loader(self.args, pairs, dealt, self._collated)

    def _collated(self, parts: Sequence[tuple[list[Any], int]]) -> dict[str, Any]:
        made = [{**self.data_collator(rows), _COUNTED: counted} for rows, counted in parts]
        return made[0] if len(made) == 1 else {PACKED: made}

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The micro-batches of a step, and how many pairs all processes have of it."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        return batches, sum(processes.told(sum(part[_COUNTED] for part in micro_batches(batches))))

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of a micro-batch, part by part."""
        step = super().training_step
        return processes.in_parts(
            self.accelerator, model, micro_batches([inputs]), lambda part: step(model, part, num_items_in_batch)
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a micro-batch as its share of the global batch's; alone, where no batch is named."""
        read = {name: value for name, value in inputs.items() if name != _COUNTED}
        found = super().compute_loss(model, read, return_outputs)
        if num_items_in_batch is None:
            return found
        share = inputs[_COUNTED] / num_items_in_batch * processes.count()
        return (found[0] * share, found[1]) if return_outputs else found * share

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it walks all parameters at each step, and nobody reads it."""
        return 0

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """The ids are made (`runner.data.tokens`): where the answer begins, and its EOS, are ours to say."""
        return dataset

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
    rows = datasets.Dataset.from_list(
        [
            {"prompt_ids": pair.prompt_ids, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids}
            for pair in pairs
        ]
    )
    if processes.count() > 1 and stage.trainer_args.get("precompute_ref_log_probs"):
        rows = _in_a_file(rows, setup.state_folder / "pairs")
    return PreferenceTrainer(
        pairs=pairs,
        batch=(stage.global_batch_size, setup.job.steps_per_epoch),
        seed=setup.seed,
        model=model,
        ref_model=reference,
        args=checked(DPOConfig, stage, model, _dpo_arguments(stage, setup)),
        train_dataset=rows,
        processing_class=tokenizer,
    )


def _in_a_file(rows: datasets.Dataset, folder: Path) -> datasets.Dataset:
    """Pairs in a folder that all processes see: what the first one computes of them TRL writes beside their file."""
    with processes.first_alone():
        if processes.is_first():
            shutil.rmtree(folder, ignore_errors=True)
            rows.save_to_disk(folder)
    return datasets.load_from_disk(folder)


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
