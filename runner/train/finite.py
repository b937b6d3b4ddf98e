"""Training with numbers only: it ends at the first loss or gradient that is none, and leaves out what it is told to."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer

from runner.train import processes

_FINE, _GRADIENTS, _INFINITE, _NAN = range(4)
"""What a process sees of a step; of several, the greatest is said."""
_WORDS = {_GRADIENTS: "the gradients are not finite", _INFINITE: "the loss is infinite", _NAN: "the loss is nan"}


class NotFinite(Exception):
    """A step came to no number; every process of the stage raises it at the same step, before the step is saved."""

    def __init__(self, step: int, what: str) -> None:
        self.step, self.what = step, what
        super().__init__(f"{what} at step {step}")


class FiniteTrainer(Trainer):
    """transformers' Trainer with both.

    Only what is no number ends a stage. How high a loss may rise and still come down nobody can say beforehand; the
    gates of checkpoints judge that.
    """

    left_out: frozenset[int] = frozenset()
    """Steps, from 1, that are taken without their batch: no weight, no moment of the optimizer and no recorded loss
    changes; the order of the data moves on, and so does the schedule, which under DeepSpeed waits too."""

    @property
    def leaves_out(self) -> bool:
        """Whether the batch of the step that is being taken is left out."""
        return self.state.global_step + 1 in self.left_out

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of a micro-batch; none, where it is left out: an optimizer passes over weights without one."""
        if self.leaves_out:
            return torch.zeros((), device=self.args.device)
        return super().training_step(model, inputs, num_items_in_batch)

    def _clip_grad_norm(self, model: Any) -> Any:
        return torch.zeros(()) if self.leaves_out else super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm of the gradients of a whole step, called once before the optimizer's: here both are looked at."""
        if self.leaves_out:
            self._globalstep_last_logged += 1  # the next loss that is recorded is the mean over the steps that have one
            if self.args.fp16:  # the scaler refuses to step where no gradient was checked
                self.accelerator.gradient_state._set_sync_gradients(False)
            return 0.0
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        # the scaler of fp16 leaves out steps whose gradients overflow, and scales less: that is no fault
        seen = self._seen(None if self.args.fp16 else norm)
        if worst := max(processes.told(seen)):
            raise NotFinite(self.state.global_step + 1, _WORDS[worst])
        return norm

    def _seen(self, norm: Any) -> int:
        """What this process sees of the step. On a device it waits for one number, as transformers' own filter does."""
        loss = self._tr_loss.detach().float()
        numbers = [loss, torch.as_tensor(0.0 if norm is None else norm).to(loss)]
        if bool(torch.stack(numbers).isfinite().all()):
            return _FINE
        if bool(loss.isfinite()):
            return _GRADIENTS
        return _NAN if bool(loss.isnan()) else _INFINITE
