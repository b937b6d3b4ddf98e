"""Terms against forgetting that are added to a stage's loss: a pull towards what the start says (KL), or towards its
weights where they matter (EWC)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional
from transformers import PreTrainedModel

from runner import spec
from runner.data.epochs import Epochs
from runner.data.tokens import Tokens
from runner.train import processes
from runner.train.arguments import Setup
from runner.train.batches import IGNORED, Collate

_KEY = "stage_key"
"""In the metadata of a Fisher file: the stage that it was measured for."""


@dataclass(frozen=True)
class Share:
    """Which part of its step a micro-batch is. The terms of a step's micro-batches, of all processes, add up to the
    term of the step."""

    step: int
    """Optimizer step, from 0."""
    index: int
    """Of the micro-batch in its step, from 0: the first ones of all processes, then their second ones."""
    of: int
    """Micro-batches of the step, of all processes."""
    total: torch.Tensor
    """Scalar: weights of the supervised tokens of the whole step, by which its cross-entropy is divided."""


class Penalty(Protocol):
    """A term of the loss. A model that is trained is called with `inputs` less their labels and loss weights."""

    name: str
    """Under which its value is recorded."""

    def loss(self, model: Any, inputs: Mapping[str, Any], outputs: Any, share: Share) -> torch.Tensor:
        """The part of a micro-batch, a scalar.

        Args:
            model: as the trainer calls it.
            inputs: what the collator made, labels (B, T) and perhaps loss_weights (B, T) included.
            outputs: what the model made of them, with logits (B, T, V).
            share: what the micro-batch is of its step.
        """
        ...


def model_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch without what only the loss reads."""
    return {name: value for name, value in batch.items() if name not in ("labels", "loss_weights")}


class Start:
    """A model as it is now, where a stage begins, while the model itself is trained on.

    Only the parameters that are trained are copied: the rest stays as it is. So an adapter costs a copy of itself, and
    one that an earlier stage trained starts as that stage left it, not from nothing.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        self.network = network
        self.parameters = {name: value.detach().clone() for name, value in trained(network).items()}

    @torch.no_grad()
    def logits(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """What the start says, without dropout: (B, T, V)."""
        training = self.network.training
        self.network.train(False)
        now = trained(self.network)  # which DeepSpeed may hold in 16 bits
        parameters = {name: value.to(now[name].dtype) for name, value in self.parameters.items()}
        try:
            called = torch.func.functional_call(self.network, parameters, (), {**inputs, "use_cache": False})
        finally:
            self.network.train(training)
        logits: torch.Tensor = called.logits
        return logits


def trained(network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that a stage trains, by name; tied ones once."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


# --- KL ---


def divergence(before: torch.Tensor, now: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
    """Sum over supervised tokens of weight * KL(before || now), in nats.

    With p of `before` and q of `now`, each token's is the sum over the vocabulary of p (log p - log q) (Kullback and
    Leibler 1951). It keeps to all that the start would say; as a distillation loss: Li and Hoiem 2016, Learning without
    Forgetting, arXiv:1606.09282.

    Args:
        before: logits of the start, (B, T, V).
        now: logits, (B, T, V).
        batch: labels (B, T); loss_weights (B, T), otherwise each weighs 1.
    """
    seen = batch["labels"][:, 1:] != IGNORED  # (B, T-1)
    log_p, log_q = (torch.log_softmax(logits[:, :-1][seen].float(), dim=-1) for logits in (before, now))  # (N, V)
    nats = functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)  # (N,)
    return (nats * batch["loss_weights"][:, 1:][seen]).sum() if "loss_weights" in batch else nats.sum()


def weight_of(batch: Mapping[str, Any]) -> torch.Tensor:
    """The weights of a batch's supervised tokens, summed: a scalar."""
    if "loss_weights" in batch:
        return torch.as_tensor(batch["loss_weights"][:, 1:].sum())
    return torch.as_tensor((batch["labels"][:, 1:] != IGNORED).sum())


class StepRows:
    """The same number of rows for every step, one epoch of them after the other: a step's follow from its number."""

    def __init__(self, epochs: Epochs, rows: int, collate: Collate) -> None:
        self._epochs, self._rows, self._collate = epochs, rows, collate

    def of_step(self, step: int) -> list[Tokens]:
        """The rows of a step, from 0."""
        return [self._row(place) for place in range(step * self._rows, (step + 1) * self._rows)]

    def batch(self, share: Share) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """A micro-batch's part of its step's rows, which may be padding alone; and the weight of all of them."""
        rows = self.of_step(share.step)
        total = weight_of(self._collate(rows)).clamp(min=1)
        own = rows[share.index * len(rows) // share.of : (share.index + 1) * len(rows) // share.of]
        return self._collate(own), total

    def _row(self, place: int) -> Tokens:
        epoch, index = divmod(place, len(self._epochs))
        return self._epochs.epoch(epoch)[index]


class KlToStart:
    """weight * KL(start || now), the mean over the supervised tokens of the step's own rows, or of `rows`."""

    name = "kl"

    def __init__(self, weight: float, start: Start, rows: StepRows | None = None) -> None:
        self._weight, self._start, self._rows = weight, start, rows

    def loss(self, model: Any, inputs: Mapping[str, Any], outputs: Any, share: Share) -> torch.Tensor:
        """See `Penalty`; on own rows the weights of tokens are those of the cross-entropy."""
        if self._rows is None:
            batch, total, now = inputs, share.total, outputs.logits
        else:
            drawn, total = self._rows.batch(share)
            batch = {name: value.to(outputs.logits.device) for name, value in drawn.items()}
            now = model(**model_inputs(batch)).logits
        return self._weight * divergence(self._start.logits(model_inputs(batch)), now, batch) / total


# --- EWC ---


class ElasticWeights:
    """weight / 2 * the sum over the trained parameters of F (parameter - start)^2 (Kirkpatrick et al. 2017,
    arXiv:1612.00796, equation 3)."""

    name = "ewc"

    def __init__(self, weight: float, start: Start, fisher: Mapping[str, torch.Tensor]) -> None:
        self._weight = weight
        parameters = trained(start.network)
        self._parts = [(parameters[name], start.parameters[name], fisher[name]) for name in parameters]

    def loss(self, model: Any, inputs: Mapping[str, Any], outputs: Any, share: Share) -> torch.Tensor:
        """See `Penalty`; a step's first micro-batch has the whole of it."""
        if share.index:
            return torch.zeros((), device=outputs.logits.device)
        distances = [(fisher * (now - start).square()).sum() for now, start, fisher in self._parts]
        return self._weight / 2 * torch.stack(distances).sum()


def fisher(network: PreTrainedModel, rows: Iterable[Tokens]) -> dict[str, torch.Tensor]:
    """The diagonal of the empirical Fisher information of the trained parameters: the mean over rows of the squared
    gradient of log p(supervised tokens of the row | its other tokens before them).

    Empirical: the tokens are those of the row, not drawn from the model, as the paper's formula would have it; the two
    are alike where the model knows the rows (Kunstner et al. 2019, arXiv:1905.12558, on when they are not). Per row:
    squaring a batch's mean gradient would let rows cancel out. Rows are taken one at a time, so none is padded, and
    dropout is off. Where several processes train, each takes some of the rows.
    """
    training, parameters = network.training, trained(network)
    device = next(iter(parameters.values())).device
    sums = [torch.zeros_like(value, dtype=torch.float32) for value in parameters.values()]
    count = 0
    network.train(False)
    for row in rows:
        count += 1
        if row.supervised == 0 or count % processes.count() != processes.rank():
            continue
        batch = {name: value.to(device) for name, value in Collate(0, 0.0)([row]).items()}
        logits = network(**model_inputs(batch), use_cache=False).logits[0, :-1].float()  # (T-1, V)
        log_likelihood = -functional.cross_entropy(
            logits, batch["labels"][0, 1:], ignore_index=IGNORED, reduction="sum"
        )
        gradients = torch.autograd.grad(
            log_likelihood, list(parameters.values()), allow_unused=True, materialize_grads=True
        )
        for total, gradient in zip(sums, gradients, strict=True):
            total.addcmul_(gradient.float(), gradient.float())
    network.train(training)
    for total in sums:
        processes.add_up(total)
    return {name: total / max(count, 1) for name, total in zip(parameters, sums, strict=True)}


def kept_fisher(path: Path, key: str, network: PreTrainedModel, rows: Iterable[Tokens]) -> dict[str, torch.Tensor]:
    """`fisher`, measured once for a stage: a trainer that resumes reads the same numbers from the file at `path`.

    Args:
        path: a safetensors file in the stage's state.
        key: of the stage; the file of another one is not taken.
        network: as the stage starts, on the device where it is trained.
        rows: what it is measured on.
    """
    if path.is_file():
        device = str(next(network.parameters()).device)
        with safe_open(path, framework="pt", device=device) as file:
            if file.metadata().get(_KEY) == key:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    measured = fisher(network, rows)
    if not processes.is_first():
        return measured
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(measured, temporary, metadata={_KEY: key, "format_version": "1"})
    temporary.replace(path)
    return measured


def build(
    stage: spec.Pretrain | spec.Sft,
    setup: Setup,
    network: PreTrainedModel,
    collate: Collate,
    rows: Mapping[str, Epochs],
) -> list[Penalty]:
    """The terms that a stage of the recipe asks for.

    Args:
        stage: what the recipe says of it.
        setup: what else it is trained with.
        network: as the stage starts, before a trainer that resumes loads its state into it; on its device.
        collate: what makes batches of the stage's own rows.
        rows: for each of `stage.penalty_data`, its rows.
    """
    if stage.kl is None and stage.ewc is None:
        return []
    start, found = Start(network), list[Penalty]()
    if stage.kl is not None:
        each = stage.kl.rows or stage.global_batch_size
        found.append(KlToStart(stage.kl.weight, start, StepRows(rows["kl"], each, collate) if "kl" in rows else None))
    if stage.ewc is not None:
        epoch = rows["ewc"].epoch(0)
        measured = (epoch[index] for index in range(min(len(epoch), stage.ewc.rows)))
        fisher_file = setup.state_folder / "fisher.safetensors"
        found.append(
            ElasticWeights(stage.ewc.weight, start, kept_fisher(fisher_file, setup.job.key, network, measured))
        )
    return found
