"""Verdicts and a baseline to a decision: counting, paired comparison, and the rule that makes it green or red."""

from runner.gate.chance import ALPHA, holm, mcnemar, negative_flip_rate, wilson
from runner.gate.paired import Comparison, Flip, Number, Tally, compare, count, is_fragile, numbers, tolerance
from runner.gate.records import Decision, Matter, Significance
from runner.gate.rules import EDITED, REJUDGED, is_pinned, is_significant, judge

__all__ = [
    "ALPHA", "EDITED", "REJUDGED", "Comparison", "Decision", "Flip", "Matter", "Number", "Significance", "Tally",
    "compare", "count", "holm", "is_fragile", "is_pinned", "is_significant", "judge", "mcnemar", "negative_flip_rate",
    "numbers", "tolerance", "wilson",
]  # fmt: skip
