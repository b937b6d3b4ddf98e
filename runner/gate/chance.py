"""Could it be chance? Intervals of a rate, the paired test of lost and gained, correction for many tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

ALPHA = 0.05
"""Chance that a run of checkpoints of equal skill shows any red `significant` gate, at most."""


def wilson(passed: int, asked: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a rate (Wilson 1927, doi:10.1080/01621459.1927.10502953); (0, 1) of no cases."""
    if not asked:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = passed / asked
    middle = rate + z * z / (2 * asked)
    half = z * math.sqrt(rate * (1 - rate) / asked + z * z / (4 * asked * asked))
    scale = 1 + z * z / asked
    # at the ends the bounds are 0 and 1, which sums of rounded numbers miss
    return (middle - half) / scale if passed else 0.0, (middle + half) / scale if passed < asked else 1.0


@lru_cache(maxsize=4096)
def mcnemar(lost: int, gained: int) -> float:
    """Exact one-sided McNemar p (McNemar 1947, doi:10.1007/BF02295996): the chance of at least `lost` losses among
    the flips, were a loss and a gain equally likely. Cases that did not flip say nothing about it."""
    flips = lost + gained
    term = tail = math.comb(flips, lost)
    for k in range(lost, flips):
        term = term * (flips - k) // (k + 1)  # comb(flips, k + 1)
        tail += term
    return tail / (1 << flips)


def holm(ps: Sequence[float], unseen: int = 0) -> tuple[float, ...]:
    """Holm's step-down adjustment (Holm 1979, Scand. J. Statist. 6, 65-70): rejecting what is below a level keeps the
    chance of any false rejection at that level, however the tests depend on each other.

    Args:
        ps: one p per test.
        unseen: tests of the family whose p is not known; they count, and reject nothing.

    Returns:
        The adjusted p of each test, in their order: the largest of (tests - rank) * p up to its rank, at most 1.
    """
    tests = len(ps) + unseen
    adjusted, largest = [1.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        largest = max(largest, min(1.0, (tests - rank) * ps[place]))
        adjusted[place] = largest
    return tuple(adjusted)


def negative_flip_rate(lost: int, common: int) -> float | None:
    """Share of the compared cases that were right and are wrong now (Yan et al. 2021, arXiv:2011.09161); None of no
    cases. A rate that stays equal can hide it: what was gained elsewhere does not make up for it."""
    return lost / common if common else None
