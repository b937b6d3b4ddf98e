"""contrast: the right completion against all of its negatives at once, on transformers' Trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from runner import spec
from runner.data.candidates import Candidates, wrong_tokens
from runner.data.epochs import epoch_order
from runner.train import processes
from runner.train.arguments import Setup, checked, trainer_arguments
from runner.train.finite import FiniteTrainer
from runner.train.packing import NOTHING
from runner.train.rows import Dealt, StepLoader, loader


class Prompts(Dataset[Candidates]):
    """The prompts of the current epoch, in the order they are trained on."""

    def __init__(self, rows: Sequence[Candidates], seed: int) -> None:
        self._rows, self._seed = rows, seed
        self._epoch, self._order = 0, epoch_order(len(rows), seed, 0)

    def set_epoch(self, epoch: int) -> None:
        """Reshuffle; called by `Dealt` at the start of each epoch."""
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(len(self._rows), self._seed, epoch)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Candidates:
        return self._rows[self._order[index]]

    def tokens_in(self, epoch: int, start: int, stop: int) -> tuple[int, int]:
        """Tokens that prompts start to stop of an epoch are read as, and how many of them are completions'."""
        rows = [self._rows[at] for at in epoch_order(len(self._rows), self._seed, epoch)[start:stop]]
        return sum(row.tokens for row in rows), sum(row.supervised for row in rows)


class Collate:
    """All completions of some prompts as one padded batch: those of a prompt one after the other, chosen first.

    Returns, with R completions of B prompts: input_ids, attention_mask, said and wrong of shape (R, T), where `said` is
    1 at the tokens of the completion and `wrong` at those that chosen does not have (`wrong_tokens`); prompt_of and
    place of shape (R,): which prompt a completion answers, and its number there, 0 for chosen; and how many prompts
    they are. Of no prompts it makes one of padding, which counts as none: a process for which no prompt is left calls
    the model as often as the others.
    """

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, prompts: list[Candidates]) -> dict[str, Any]:  # noqa: D102 - see the class
        counted = len(prompts)
        prompts = prompts or [Candidates((self._pad_id,) * (NOTHING - 1), (self._pad_id,), ())]
        rows = [(number, row, said) for number, row in enumerate(prompts) for said in row.completions]
        longest = max(len(row.prompt_ids) + len(said) for _, row, said in rows)
        ids = torch.full((len(rows), longest), self._pad_id)
        masks = torch.zeros((3, len(rows), longest), dtype=torch.long)
        for at, (_, row, said) in enumerate(rows):
            start, stop = len(row.prompt_ids), len(row.prompt_ids) + len(said)
            ids[at, :stop] = torch.tensor([*row.prompt_ids, *said])
            masks[0, at, :stop] = 1
            masks[1, at, start:stop] = 1
            if said is not row.chosen_ids:
                wrong = wrong_tokens(row.chosen_ids, said)
                masks[2, at, start + wrong.start : start + wrong.stop] = 1
        return {
            "input_ids": ids,
            "attention_mask": masks[0],
            "said": masks[1],
            "wrong": masks[2],
            "prompt_of": torch.tensor([number for number, _, _ in rows]),
            "place": torch.tensor([place for row in prompts for place in range(len(row.completions))]),
            "prompts": counted,
        }


@dataclass(frozen=True)
class Parts:
    """What the loss of each prompt is made of; all of shape (B,)."""

    contrast: torch.Tensor
    sft: torch.Tensor
    unlikelihood: torch.Tensor
    """0, where it is not asked for."""
    accuracy: torch.Tensor
    """1 where chosen has the best score."""


def parts(stage: spec.Contrast, logits: torch.Tensor, batch: Mapping[str, Any]) -> Parts:
    """The terms of `spec.Contrast`, for each prompt.

    Args:
        stage: score and temperature; whether the unlikelihood has a weight.
        logits: (R, T, V).
        batch: as `Collate` makes it.
    """
    said = batch["said"][:, 1:].bool()  # (R, T-1): the first token of a row is predicted by nothing
    row_of = said.nonzero()[:, 0]  # (N,), N tokens in all
    targets = batch["input_ids"][:, 1:][said]  # (N,)
    predicted = logits[:, :-1][said].float()  # (N, V)
    everything = predicted.logsumexp(1)  # (N,)
    log_p = predicted.gather(1, targets[:, None])[:, 0] - everything  # (N,)
    sums = log_p.new_zeros(len(said)).index_add(0, row_of, log_p)  # (R,)
    means = sums / said.sum(1).clamp(min=1)

    prompts = int(batch["prompt_of"][-1]) + 1
    of, place = batch["prompt_of"], batch["place"]
    scores = log_p.new_full((prompts, int(place.max()) + 1), -torch.inf)  # (B, W): chosen, then its negatives
    scores = scores.index_put((of, place), (sums if stage.score == "sum" else means) / stage.temperature)
    unlikelihood = log_p.new_zeros(prompts)
    if stage.unlikelihood_weight:
        wrong = batch["wrong"][:, 1:][said].bool()  # (N,)
        # -log(1 - p) from the other tokens' logits: exact where p is near 1, and its gradient stays finite
        others = predicted[wrong].scatter(1, targets[wrong][:, None], -torch.inf).logsumexp(1)
        prompt_of = of[row_of[wrong]]
        count = unlikelihood.index_add(0, prompt_of, torch.ones_like(others)).clamp(min=1)
        unlikelihood = unlikelihood.index_add(0, prompt_of, everything[wrong] - others) / count
    return Parts(
        contrast=scores.logsumexp(1) - scores[:, 0],
        sft=-means[place == 0],
        unlikelihood=unlikelihood,
        accuracy=(scores.detach().argmax(1) == 0).float(),
    )


class ContrastTrainer(FiniteTrainer):
    """transformers' Trainer with the loss of `spec.Contrast`: the mean over the prompts of the global batch.

    Where several processes train, gradients are averaged over them: the loss of each is its part of the step's times
    their number.

    Args:
        stage: weights, score and temperature.
        batch: prompts per step, and steps per epoch.
    """

    train_dataset: Prompts
    loss_is_scaled_for_ga = True
    """The loss of a micro-batch is its share of the step's."""

    def __init__(self, *, stage: spec.Contrast, batch: tuple[int, int], **kwargs: Any) -> None:
        self._stage = stage
        self._rows_per_step, self._steps_per_epoch = batch
        self._recorded: dict[str, torch.Tensor] = {}  # sums of means over steps, since losses were last recorded
        self._unrecorded_steps = 0
        super().__init__(**kwargs)

    def tokens_in_step(self, step: int) -> tuple[int, int]:
        """Tokens that a step (from 0) reads, a prompt once per completion, and how many of them are completions'."""
        epoch, index = divmod(step, self._steps_per_epoch)
        return self.train_dataset.tokens_in(epoch, index * self._rows_per_step, (index + 1) * self._rows_per_step)

    def get_train_dataloader(self) -> StepLoader:
        """This process's prompts."""
        dealt = Dealt(self.train_dataset, self._rows_per_step, self.args.per_device_train_batch_size)
        return loader(self.args, self.train_dataset, dealt, self.data_collator)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The micro-batches of a step, and how many prompts all processes have of it, by which the loss is divided."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        self._unrecorded_steps += not self.leaves_out
        return batches, sum(processes.told(sum(batch["prompts"] for batch in batches)))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a micro-batch as its share of the global batch's."""
        stage = self._stage
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        found = parts(stage, outputs.logits, inputs)
        loss = stage.contrast_weight * found.contrast + stage.sft_weight * found.sft
        if stage.unlikelihood_weight:
            loss = loss + stage.unlikelihood_weight * found.unlikelihood
        counts = inputs["prompts"] > 0
        for name, values in vars(found).items():
            if name != "unlikelihood" or stage.unlikelihood_weight:
                share = counts * values.detach().sum() / num_items_in_batch
                self._recorded[name] = self._recorded.get(name, 0) + share
        loss = counts * loss.sum() / num_items_in_batch * processes.count()
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Record losses; their parts are means over the steps since the last time, as the loss is."""
        if "loss" in logs:
            steps = max(self._unrecorded_steps, 1)
            means = {name: processes.total(value).item() / steps for name, value in self._recorded.items()}
            logs = {**logs, **means}
            self._recorded, self._unrecorded_steps = {}, 0
        super().log(logs, *args, **kwargs)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it walks all parameters at each step, and nobody reads it."""
        return 0


def build(
    stage: spec.Contrast,
    setup: Setup,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Candidates],
) -> ContrastTrainer:
    """The trainer of a stage."""
    return ContrastTrainer(
        stage=stage,
        batch=(stage.global_batch_size, setup.job.steps_per_epoch),
        model=model,
        args=checked(TrainingArguments, stage, model, trainer_arguments(stage, setup)),
        data_collator=Collate(tokenizer.pad_token_id),
        train_dataset=Prompts(rows, setup.seed),
        processing_class=tokenizer,
    )
