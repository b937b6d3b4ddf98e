"""The rule that turns a suite's verdicts into green or red: counting, intervals, paired comparison, and the decision.

Pure: verdicts in, a `Decision` out. The run and pytest call the same `judge`, so that they agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from runner import spec
from runner.asking import ascii_id
from runner.errors import nearest
from runner.verdicts import Verdict

ALPHA = 0.05
"""Chance that a run of checkpoints of equal skill shows any red `significant` gate, at most."""


@dataclass(frozen=True)
class Tally:
    """How many verdicts of each outcome."""

    passed: int = 0
    missed: int = 0
    errors: int = 0
    not_asked: int = 0

    @property
    def asked(self) -> int:
        """Cases that count: all but those whose control missed."""
        return self.passed + self.missed + self.errors

    @property
    def rate(self) -> float | None:
        """Share of the asked cases that passed; None where none was asked."""
        return (self.passed / self.asked) if self.asked else None


def count(verdicts: Sequence[Verdict]) -> Tally:
    """How many of `verdicts` have each outcome."""
    outcomes = [verdict.outcome for verdict in verdicts]
    return Tally(*(outcomes.count(outcome) for outcome in ("pass", "miss", "error", "not_asked")))


def wilson(passed: int, asked: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a rate (Wilson 1927, doi:10.1080/01621459.1927.10502953); (0, 1) of no cases."""
    if not asked:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = passed / asked
    middle = rate + z * z / (2 * asked)
    half = z * math.sqrt(rate * (1 - rate) / asked + z * z / (4 * asked * asked))
    scale = 1 + z * z / asked
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def mcnemar(lost: int, gained: int) -> float:
    """Exact one-sided McNemar p (McNemar 1947, doi:10.1007/BF02295996): the chance of at least `lost` losses among
    the flips, were a loss and a gain equally likely."""
    flips = lost + gained
    tail = sum(math.comb(flips, k) for k in range(lost, flips + 1))
    return float(tail / 2**flips)


@dataclass(frozen=True)
class Flip:
    """A case whose outcome differs from the baseline's."""

    case_id: str
    before: Verdict
    after: Verdict


@dataclass(frozen=True)
class Comparison:
    """The cases of a suite asked both at the baseline and now."""

    baseline: str
    """The baseline's name."""
    common: int
    lost: tuple[Flip, ...]
    gained: tuple[Flip, ...]
    new: int
    """Asked now, not at the baseline."""
    gone: int
    """Asked at the baseline, not now."""

    @property
    def p(self) -> float:
        """Chance of so many losses without any change of skill."""
        return mcnemar(len(self.lost), len(self.gained))


def compare(verdicts: Sequence[Verdict], baseline: Sequence[Verdict]) -> Comparison:
    """`verdicts` case by case beside the baseline's. Only passes and misses are compared: an error is no answer."""
    before = {verdict.identity: verdict for verdict in baseline if verdict.outcome in ("pass", "miss")}
    after = {verdict.identity: verdict for verdict in verdicts if verdict.outcome in ("pass", "miss")}
    flips = [Flip(now.case_id, before[key], now) for key, now in after.items() if key in before]
    return Comparison(
        baseline=baseline[0].ckpt if baseline else "",
        common=len(flips),
        lost=tuple(flip for flip in flips if flip.before.outcome == "pass" and flip.after.outcome == "miss"),
        gained=tuple(flip for flip in flips if flip.before.outcome == "miss" and flip.after.outcome == "pass"),
        new=len(after.keys() - before.keys()),
        gone=len(before.keys() - after.keys()),
    )


@dataclass(frozen=True)
class Decision:
    """What a gate says about a suite at a checkpoint, and why."""

    suite: str
    green: bool | None
    """None where the suite has no gate."""
    reasons: tuple[str, ...]
    """Why it is red; empty otherwise."""
    notes: tuple[str, ...]
    """What a reader should know besides, for example that there was no baseline."""
    tally: Tally
    comparison: Comparison | None
    """None where there was no baseline."""

    @property
    def lost(self) -> tuple[Flip, ...]:
        """Cases that passed at the baseline and miss now."""
        return self.comparison.lost if self.comparison else ()

    @property
    def gained(self) -> tuple[Flip, ...]:
        """Cases that missed at the baseline and pass now."""
        return self.comparison.gained if self.comparison else ()


@dataclass
class _Findings:
    reasons: list[str]
    notes: list[str]


def judge(
    gate: spec.Gate | None,
    suite: str,
    verdicts: Sequence[Verdict],
    baseline: Sequence[Verdict] | None,
    *,
    given: str | None = None,
    looks: int = 1,
    suites: int = 1,
) -> Decision:
    """Decide about one suite at one checkpoint.

    Args:
        gate: the rule; None counts and compares, and decides nothing.
        suite: the suite's name.
        verdicts: all verdicts of the suite at the checkpoint.
        baseline: those at the baseline; None or empty where it was not asked there.
        given: the baseline that the user named for this judgement: what needs one is red where it was not asked there.
        looks: at how many checkpoints of the run this suite is judged.
        suites: how many suites of the run are compared with a baseline.
    """
    counted = count(verdicts)
    comparison = compare(verdicts, baseline) if baseline else None
    if gate is None:
        return Decision(suite, None, (), (), counted, comparison)
    found = _Findings([], [])
    if counted.errors:
        first = next(verdict for verdict in verdicts if verdict.outcome == "error")
        found.reasons.append(f"{_cases(counted.errors)} ended in an error, the first {first.case_id}: {first.reason}")
    if counted.asked:
        _judge_rate(gate, counted, found)
        for name, bound in gate.bounds.items():
            _judge_bound(name, bound, verdicts, baseline, found)
    else:
        found.reasons.append("no case was asked")
    if comparison is not None:
        _judge_regression(gate, comparison, max(looks, 1) * max(suites, 1), found)
    elif given is not None and _needs_baseline(gate):
        found.reasons.append(f"{given} has no verdicts of {suite}, so nothing was compared")
    elif _needs_baseline(gate):
        found.notes.append("no baseline: recorded, not compared")
    _judge_pinned(gate, verdicts, comparison, found)
    return Decision(suite, not found.reasons, tuple(found.reasons), tuple(found.notes), counted, comparison)


def _needs_baseline(gate: spec.Gate) -> bool:
    rises = any(bound.max_mean_rise is not None for bound in gate.bounds.values())
    return gate.max_regression is not None or bool(gate.pinned) or rises


def is_pinned(gate: spec.Gate, case_id: str) -> bool:
    """Whether the gate pins this case; ids are written as they are or in ASCII."""
    return any(case_id in (pin, ascii_id(pin)) for pin in gate.pinned)


def _judge_rate(gate: spec.Gate, counted: Tally, found: _Findings) -> None:
    if gate.min_pass_rate is None:
        return
    shown = f"{counted.passed} of {counted.asked} passed ({counted.passed / counted.asked:.1%})"
    if gate.confidence is None:
        if counted.passed / counted.asked < gate.min_pass_rate:
            found.reasons.append(f"{shown}, min_pass_rate is {gate.min_pass_rate:g}")
        return
    lower = wilson(counted.passed, counted.asked, gate.confidence)[0]
    if lower < gate.min_pass_rate:
        found.reasons.append(
            f"{shown}, at least {lower:.1%} at confidence {gate.confidence:g}, min_pass_rate is {gate.min_pass_rate:g}"
        )


def _judge_bound(
    name: str, bound: spec.Bound, verdicts: Sequence[Verdict], baseline: Sequence[Verdict] | None, found: _Findings
) -> None:
    values = _values(name, verdicts)
    if not values:
        recorded = sorted({key for verdict in verdicts for key in verdict.values})
        close = nearest(name, recorded)
        found.reasons.append(f"no case recorded {name}" + (f"; did you mean {close}?" if close else ""))
        return
    mean, largest = math.fsum(values) / len(values), max(values)
    if any(math.isnan(value) for value in values):
        found.reasons.append(f"{name} is not a number in {_cases(sum(map(math.isnan, values)))}")
        return
    if bound.max_mean is not None and mean > bound.max_mean:
        found.reasons.append(f"mean {name} is {mean:.4g}, max_mean is {bound.max_mean:g}")
    if bound.min_mean is not None and mean < bound.min_mean:
        found.reasons.append(f"mean {name} is {mean:.4g}, min_mean is {bound.min_mean:g}")
    if bound.max is not None and largest > bound.max:
        worst = next(verdict.case_id for verdict in verdicts if verdict.values.get(name) == largest)
        found.reasons.append(f"{name} is {largest:.4g} in {worst}, max is {bound.max:g}")
    if bound.max_mean_rise is not None and baseline:
        if not (before := _values(name, baseline)):
            found.notes.append(f"the baseline recorded no {name}: its rise is not judged")
            return
        rise = mean - math.fsum(before) / len(before)
        if rise > bound.max_mean_rise:
            found.reasons.append(
                f"mean {name} rose by {rise:.4g} to {mean:.4g}, max_mean_rise is {bound.max_mean_rise:g}"
            )


def _judge_regression(gate: spec.Gate, comparison: Comparison, tests: int, found: _Findings) -> None:
    if comparison.new or comparison.gone:
        found.notes.append(
            f"{comparison.common} cases compared with {comparison.baseline or 'the baseline'}; "
            f"{comparison.new} are new, {comparison.gone} gone since"
        )
    if not comparison.common and (gate.max_regression is not None or gate.pinned):
        found.reasons.append(f"no case was answered both here and at {comparison.baseline or 'the baseline'}")
    lost, gained = len(comparison.lost), len(comparison.gained)
    shown = f"{lost} lost and {gained} gained against {comparison.baseline or 'the baseline'}"
    if gate.max_regression == "significant":
        # Bonferroni over suites and looks: the chance of any false alarm in the whole run stays below ALPHA
        if comparison.p < ALPHA / tests:
            found.reasons.append(f"{shown}: p = {comparison.p:.2g}, below {ALPHA / tests:.2g}")
    elif gate.max_regression is not None and lost - gained > gate.max_regression:
        found.reasons.append(f"{shown}: net {lost - gained}, max_regression is {gate.max_regression}")


def _judge_pinned(
    gate: spec.Gate, verdicts: Sequence[Verdict], comparison: Comparison | None, found: _Findings
) -> None:
    ids = {verdict.case_id for verdict in verdicts}
    for pin in gate.pinned:
        if not {pin, ascii_id(pin)} & ids:
            close = nearest(ascii_id(pin), ids)
            found.reasons.append(
                f"pinned case {pin} is not a case of this suite" + (f"; did you mean {close}?" if close else "")
            )
    lost = [flip.case_id for flip in comparison.lost if is_pinned(gate, flip.case_id)] if comparison else []
    if lost:
        found.reasons.append(f"pinned and lost: {', '.join(lost)}")


def _values(name: str, verdicts: Sequence[Verdict]) -> list[float]:
    return [verdict.values[name] for verdict in verdicts if name in verdict.values]


def _cases(number: int) -> str:
    return f"{number} case" if number == 1 else f"{number} cases"
