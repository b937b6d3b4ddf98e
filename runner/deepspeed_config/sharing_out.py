"""How a global batch is divided among processes and micro-batches, in DeepSpeed's words."""

from __future__ import annotations

from typing import Protocol

from runner import spec


class Shares(Protocol):
    """How a global batch is divided: of a plan, or of a job."""

    @property
    def per_device_batch_size(self) -> int:
        """Rows at a time on one device."""
        ...

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches of a step on one device."""
        ...

    @property
    def processes(self) -> int:
        """All of them."""
        ...


def shared(stage: spec.Stage, shares: Shares) -> tuple[int, int]:
    """Rows of a micro-batch, and micro-batches of a step; those of a packed step are divided only when it is packed."""
    if getattr(stage, "packing", False) is True:
        return stage.global_batch_size // shares.processes, 1
    return shares.per_device_batch_size, shares.accumulation_steps
