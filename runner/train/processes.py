"""The processes that train a stage together, each on its own rows: which one this is, and what they tell each other.

They are started by torchrun, or by what does the same, and find each other by the variables it sets. A process that
trains alone is the first of one, and nothing here waits or sends anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

TIMEOUT_S = 1800
"""How long one may wait for the others, as transformers has it (`ddp_timeout`)."""
_WORDS: list[distributed.ProcessGroup] = []
"""The group in which processes send each other numbers from the host's memory, where that is not the default one."""


@contextmanager
def together(on_cpu: bool, timeout_s: float = TIMEOUT_S, backend: str | None = None) -> Iterator[None]:
    """Meet the others, if there are any and they have not met, and part from them at the end.

    Args:
        on_cpu: whether gradients are exchanged from the host's memory (gloo), not from a device's (nccl).
        timeout_s: how long one may wait for the others.
        backend: what exchanges gradients instead, by torch's name for it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    limit = timedelta(seconds=timeout_s)
    if not on_cpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(backend or ("gloo" if on_cpu else "nccl"), timeout=limit)
    if distributed.get_backend() != "gloo":
        _WORDS.append(distributed.new_group(backend="gloo", timeout=limit))
    try:
        yield
    finally:
        _WORDS.clear()
        distributed.destroy_process_group()


def count() -> int:
    """How many there are, on all machines."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which one this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the one that writes what is written once."""
    return rank() == 0


def wait_for_all() -> None:
    """Go on when all have come here."""
    if count() > 1:
        distributed.barrier(_words())


@contextmanager
def first_alone() -> Iterator[None]:
    """What is inside is done by the first process, and by the others when it has done it: they find what it wrote."""
    if not is_first():
        wait_for_all()
    try:
        yield
    finally:
        if is_first():
            wait_for_all()


def told(number: int) -> list[int]:
    """What each process says, in their order."""
    if count() == 1:
        return [number]
    said = [torch.zeros((), dtype=torch.long) for _ in range(count())]
    distributed.all_gather(said, torch.tensor(number, dtype=torch.long), _words())
    return [int(one) for one in said]


def any_of(flag: bool) -> bool:
    """Whether it is true of one of them."""
    return any(told(flag))


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum of what each has, a tensor of few numbers, in the host's memory."""
    if count() == 1:
        return value
    sent = value.detach().cpu().clone()
    distributed.all_reduce(sent, group=_words())
    return sent


def add_up(tensor: torch.Tensor) -> None:
    """Make a tensor the sum of what each has, where it lies."""
    if count() > 1:
        distributed.all_reduce(tensor)


@contextmanager
def holding_back(accelerator: Any, model: Any) -> Iterator[None]:
    """Gradients of what is inside are kept, and exchanged with those of the next micro-batch; as transformers' Trainer
    does it between the batches that it accumulates.

    Args:
        accelerator: of the trainer.
        model: as the trainer calls it.
    """
    state = accelerator.gradient_state
    before = state.sync_gradients
    state._set_sync_gradients(False)  # DeepSpeed takes its steps by it
    try:
        with accelerator.no_sync(model):
            yield
    finally:
        state._set_sync_gradients(before)


def in_parts(
    accelerator: Any, model: Any, parts: Sequence[dict[str, Any]], step: Callable[[dict[str, Any]], torch.Tensor]
) -> torch.Tensor:
    """The sum of the losses of the parts of a batch, whose gradients are exchanged once, with those of the last.

    Args:
        accelerator: of the trainer.
        model: as the trainer calls it.
        parts: at least one; as many on every process.
        step: forward and backward of one part.
    """
    *before, last = parts
    losses = []
    for part in before:
        with holding_back(accelerator, model):
            losses.append(step(part))
    return torch.stack([*losses, step(last)]).sum()


def _words() -> distributed.ProcessGroup | None:
    return _WORDS[0] if _WORDS else None
