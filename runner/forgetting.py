"""Forgetting across stages: backward transfer and the forgetting measure, from pass rates at the ends of stages.

Both were defined where task i is trained in step i and every task is tested after every step, a_{k,j} being the
accuracy on task j after step k. A run's suites are its tasks and its stages the steps. A suite belongs to no stage, so
the step it was learned in is taken to be the first at whose end it was asked; it counts if it was asked at the last end
too, T.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class Kept:
    """How a suite fared from the first end of a stage at which it was asked to the last."""

    suite: str
    first: float
    """Pass rate where it was asked first."""
    best: float
    """The highest pass rate at any end before the last."""
    last: float
    """Pass rate at the last end."""

    @property
    def transfer(self) -> float:
        """a_{T,j} - a_{j,j}: below 0, what was learned later has cost it."""
        return self.last - self.first

    @property
    def forgotten(self) -> float:
        """max over k < T of a_{k,j}, less a_{T,j}: below 0, it was never as good as now."""
        return self.best - self.last


@dataclass(frozen=True)
class Forgetting:
    """What a line of stages has kept; at least one suite."""

    suites: tuple[Kept, ...]

    @property
    def backward_transfer(self) -> float:
        """BWT, the mean of a_{T,j} - a_{j,j} (Lopez-Paz & Ranzato 2017, arXiv:1706.08840, equation 3)."""
        return fmean(kept.transfer for kept in self.suites)

    @property
    def forgetting(self) -> float:
        """F_T, the mean of max a_{k,j} - a_{T,j} over k < T (Chaudhry et al. 2018, arXiv:1801.10112, section 4.1)."""
        return fmean(kept.forgotten for kept in self.suites)

    @property
    def worst(self) -> Kept:
        """The suite that forgot most."""
        return max(self.suites, key=lambda kept: kept.forgotten)


def measure(ends: Sequence[Mapping[str, float]]) -> Forgetting | None:
    """What was kept, or None where no suite was asked at the last end and at one before it.

    Args:
        ends: for the end of every stage, in the order of training, the pass rate (0 to 1) of each suite asked there.
    """
    if len(ends) < 2:
        return None
    kept = []
    for suite, last in ends[-1].items():
        earlier = [end[suite] for end in ends[:-1] if suite in end]
        if earlier:
            kept.append(Kept(suite, earlier[0], max(earlier), last))
    return Forgetting(tuple(kept)) if kept else None
