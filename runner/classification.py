"""Accuracy, precision, recall and F1 of closed questions: pure functions of (expected, answered) pairs.

Macro averages as in Sokolova and Lapalme 2009 (doi:10.1016/j.ipm.2009.03.002): every label counts the same, however
rare. F1 is the mean of the labels' F1, not the F1 of the means (Opitz and Burst 2019, arXiv:1911.03347).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

Pair = tuple[str, str]
"""The right label, and the one that was answered."""


@dataclass(frozen=True)
class Scores:
    """Each from 0 to 1."""

    accuracy: float
    precision: float
    recall: float
    f1: float


def scores(pairs: Sequence[Pair]) -> Scores:
    """Accuracy, and precision, recall and F1 averaged over the labels that occur, expected or answered.

    Accuracy is the share of pairs that agree. Of a label with `t` right answers, `a` times answered and `e` times
    expected: precision is t/a, recall t/e, F1 2t/(a+e); each 0 where its denominator is.

    Of four questions, "yes" was expected three times and answered twice, both rightly; "no" was expected once and
    answered twice, once rightly:

    >>> scores([("yes", "yes"), ("yes", "yes"), ("yes", "no"), ("no", "no")])
    Scores(accuracy=0.75, precision=0.75, recall=0.8333333333333333, f1=0.7333333333333334)

    Raises:
        ValueError: there are no pairs.
    """
    if not pairs:
        raise ValueError("no answers to score")
    right = Counter(expected for expected, answered in pairs if expected == answered)
    expected, answered = Counter(pair[0] for pair in pairs), Counter(pair[1] for pair in pairs)
    labels = sorted({*expected, *answered})
    return Scores(
        accuracy=right.total() / len(pairs),
        precision=_mean([right[label] / answered[label] if answered[label] else 0.0 for label in labels]),
        recall=_mean([right[label] / expected[label] if expected[label] else 0.0 for label in labels]),
        f1=_mean([2 * right[label] / (answered[label] + expected[label]) for label in labels]),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
