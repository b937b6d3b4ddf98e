"""Agreement: how far the logits of a batch lie from those of its rows alone, measured on the model itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from runner.probing.engine.answering import Batch
from runner.probing.engine.network import Network
from runner.probing.engine.padded import Padded
from runner.probing.engine.rows import Row

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Of the largest logit: rounding stays far below it, an attention that is not what the model wants far above."""
_COARSE = 0.1


@dataclass(frozen=True)
class Agreement:
    """What the measurement gave."""

    difference: float
    """The largest difference between two logits that should be equal."""
    agrees: bool
    """Whether that is rounding."""


def measure(network: Network, make: Callable[[Sequence[Row]], Batch], rows: Sequence[Row]) -> Agreement:
    """Compare two rows of unlike length, as a batch and alone: after their prompts, and after one token more."""
    two = [min(rows, key=lambda row: len(row.ids)), max(rows, key=lambda row: len(row.ids))]
    batch = make(two)
    _, first = batch.admit(two)
    tokens = first.argmax(dim=-1)
    together = torch.stack([first, batch.step(tokens)])  # (2, rows, V)
    separate = []
    for number, row in enumerate(two):
        alone = Padded(network, 1)
        _, first = alone.admit([row])
        separate.append(torch.cat([first, alone.step(tokens[number : number + 1])]))
    expected = torch.stack(separate, dim=1)  # (2, rows, V)
    difference = float((together - expected).float().abs().max())
    allowed = _TOLERANCE.get(network.compute, _COARSE) * max(float(expected.abs().max()), 1.0)
    return Agreement(difference, difference <= allowed)
