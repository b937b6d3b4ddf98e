"""The rule that turns verdicts into green or red.

Pure: the suites asked at a checkpoint in, a `Decision` about each out. The run and pytest call the same `judge`, so
that they agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from runner import spec
from runner.asking import ascii_id
from runner.errors import nearest
from runner.gate.chance import ALPHA, holm, wilson
from runner.gate.paired import Comparison, Number, Tally, asks_otherwise, compare, count, numbers
from runner.gate.records import Decision, Matter, Significance

EDITED = "the probe file, its cases or its decoding changed in between"
REJUDGED = "judged otherwise on the same reply, because the probe's assert changed"
_NAMED = 5
"""Cases that a note names; more are counted."""


def judge(matters: Sequence[Matter], *, looks: int = 1, unseen: int = 0) -> tuple[Decision, ...]:
    """Decide about the suites asked at one checkpoint, all of them together.

    A gate with `max_regression: significant` is tested at ALPHA / looks over all such suites of the checkpoint (Holm),
    so that in a run of equal checkpoints the chance of any false alarm stays below ALPHA, whatever depends on what:
    the suites answer with one model, and the checkpoints are compared with one baseline.

    Args:
        matters: the suites.
        looks: at how many checkpoints of the run suites are so tested.
        unseen: suites that are so tested at the checkpoint and are not among `matters`.
    """
    compared = [compare(matter.verdicts, matter.baseline) if matter.baseline else None for matter in matters]
    tested = {
        place: comparison.p
        for place, (matter, comparison) in enumerate(zip(matters, compared, strict=True))
        if comparison is not None and is_significant(matter.gate)
    }
    adjusted = dict(zip(tested, holm(list(tested.values()), unseen), strict=True))
    return tuple(
        _decide(
            matter,
            compared[place],
            Significance(tested[place], adjusted[place], len(tested) + unseen, max(looks, 1))
            if place in tested
            else None,
        )
        for place, matter in enumerate(matters)
    )


def is_significant(gate: spec.Gate | None) -> bool:
    """Whether a gate asks for no loss beyond chance: such gates share the chance of a false alarm."""
    return gate is not None and gate.max_regression == "significant"


def _needs_baseline(gate: spec.Gate) -> bool:
    """Whether some of a gate's rules compare with a baseline."""
    rises = any(bound.max_mean_rise is not None for bound in gate.bounds.values())
    return gate.max_regression is not None or bool(gate.pinned) or rises


def is_pinned(gate: spec.Gate, case_id: str) -> bool:
    """Whether the gate pins this case; ids are written as they are or in ASCII."""
    return any(case_id in (pin, ascii_id(pin)) for pin in gate.pinned)


@dataclass
class _Findings:
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _decide(matter: Matter, comparison: Comparison | None, significance: Significance | None) -> Decision:
    gate, verdicts, counted = matter.gate, matter.verdicts, count(matter.verdicts)
    recorded = numbers(verdicts, matter.baseline, matter.pooled, matter.pooled_before)
    found = _Findings()
    if comparison is not None:
        _describe(comparison, found)
    if matter.key and matter.key_before and matter.key != matter.key_before:
        found.notes.append(EDITED)
    if matter.fault:
        (found.notes if gate is None else found.reasons).append(matter.fault)
    if gate is None:
        return Decision(matter.suite, None, (), tuple(found.notes), counted, comparison, None, recorded)
    if counted.errors:
        first = next(verdict for verdict in verdicts if verdict.outcome == "error")
        # where a suite could not be asked at all, its reason says what it was, and there is no first case
        whole = first.reason.startswith(f"{first.case_id}: ")
        told = f": {first.reason}" if whole else f", the first {first.case_id}: {first.reason}"
        found.reasons.append(f"{_cases(counted.errors)} ended in an error{told}")
    if counted.asked:
        _judge_rate(gate, counted, found)
        for name, bound in gate.bounds.items():
            _judge_bound(name, bound, matter, recorded, found)
    else:
        why = next((verdict.reason for verdict in verdicts if verdict.outcome == "not_asked"), "")
        found.reasons.append("no case was asked" + (f": {why}" if why else ""))
    if comparison is not None:
        _judge_regression(gate, comparison, significance, found)
    elif _needs_baseline(gate) and not matter.fault:
        _without_baseline(matter, found)
    _judge_pinned(gate, matter, comparison, found)
    green = None if _decides_nothing(gate, matter, comparison) and not found.reasons else not found.reasons
    return Decision(
        matter.suite, green, tuple(found.reasons), tuple(found.notes), counted, comparison, significance,
        recorded,
    )  # fmt: skip


def _decides_nothing(gate: spec.Gate, matter: Matter, comparison: Comparison | None) -> bool:
    """Whether all that a gate asks is a comparison, and there is nothing to compare with: it is recorded, not green."""
    alone = any(bound.model_fields_set - {"max_mean_rise"} for bound in gate.bounds.values())
    return comparison is None and not matter.fault and gate.min_pass_rate is None and not alone


def _without_baseline(matter: Matter, found: _Findings) -> None:
    if matter.given is not None:
        found.reasons.append(f"{matter.given} has no verdicts of {matter.suite}, so nothing was compared")
    elif matter.required:
        found.reasons.append("there is no baseline to compare with, and one is required")
    else:
        found.notes.append("no baseline: recorded, not compared")


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


def _judge_bound(name: str, bound: spec.Bound, matter: Matter, recorded: Sequence[Number], found: _Findings) -> None:
    number = next((number for number in recorded if number.name == name), None)
    if number is None:
        close = nearest(name, [number.name for number in recorded])
        found.reasons.append(f"no case recorded {name}" + (f"; did you mean {close}?" if close else ""))
        return
    values = [(f" in {one.case_id}", one.values[name]) for one in matter.verdicts if name in one.values]
    if number.pooled:
        values = [("", number.mean)]
    elif name in matter.pooled:
        found.notes.append(f"{name} is a number of the cases and of the suite: the cases' is judged")
    if math.isnan(number.mean):
        wrong = sum(math.isnan(value) for place, value in values if place)
        found.reasons.append(f"{name} is not a number" + (f" in {_cases(wrong)}" if wrong else ""))
        return
    of_all = name if number.pooled else f"mean {name}"
    if bound.max_mean is not None and number.mean > bound.max_mean:
        found.reasons.append(f"{of_all} is {number.mean:.4g}, max_mean is {bound.max_mean:g}")
    if bound.min_mean is not None and number.mean < bound.min_mean:
        found.reasons.append(f"{of_all} is {number.mean:.4g}, min_mean is {bound.min_mean:g}")
    least, most = (extreme(values, key=lambda value: value[1]) for extreme in (min, max))
    if bound.max is not None and most[1] > bound.max:
        found.reasons.append(f"{name} is {most[1]:.4g}{most[0]}, max is {bound.max:g}")
    if bound.min is not None and least[1] < bound.min:
        found.reasons.append(f"{name} is {least[1]:.4g}{least[0]}, min is {bound.min:g}")
    _judge_rise(of_all, bound, matter, number, found)


def _judge_rise(of_all: str, bound: spec.Bound, matter: Matter, number: Number, found: _Findings) -> None:
    if bound.max_mean_rise is None or not matter.baseline:
        return
    if number.rise is None:
        lacking = f"the baseline recorded no {number.name} to compare with: its rise is not judged"
        (found.reasons if matter.required else found.notes).append(lacking)
    elif not number.rise <= bound.max_mean_rise:  # NaN is no rise that was kept
        now = (number.before or 0.0) + number.rise
        found.reasons.append(
            f"{of_all} rose by {number.rise:.4g} to {now:.4g}, max_mean_rise is {bound.max_mean_rise:g}"
        )


def _describe(comparison: Comparison, found: _Findings) -> None:
    """Notes that every comparison has, gated or not."""
    if comparison.differences:
        name = comparison.baseline or "the baseline"
        found.notes.append(f"{_cases(comparison.common)} compared with {name}; {comparison.differences}")
    if comparison.rejudged:
        found.notes.append(f"{REJUDGED}: {_listed(comparison.rejudged)}")
    for word, flips in (("lost", comparison.lost), ("gained", comparison.gained)):
        hanging = [flip.case_id for flip in flips if flip.fragile]
        if hanging:
            verb = "hangs" if len(hanging) == 1 else "hang"
            found.notes.append(f"{len(hanging)} of the {len(flips)} {word} {verb} by a hair: {_listed(hanging)}")


def _judge_regression(
    gate: spec.Gate, comparison: Comparison, significance: Significance | None, found: _Findings
) -> None:
    name = comparison.baseline or "the baseline"
    if not comparison.common and (gate.max_regression is not None or gate.pinned):
        found.reasons.append(f"no case was answered both here and at {name}")
    lost, gained = len(comparison.lost), len(comparison.gained)
    shown = f"{lost} lost and {gained} gained against {name}"
    if significance is not None:
        if significance.worse:
            found.reasons.append(f"{shown}{_by_fact(comparison)}: {_in_words(significance)}")
    elif isinstance(gate.max_regression, int) and -comparison.net > gate.max_regression:
        found.reasons.append(f"{shown}: net {-comparison.net}, max_regression is {gate.max_regression}")


def _by_fact(comparison: Comparison) -> str:
    """How the flips count by fact, where that is another count."""
    lost, gained = comparison.facts
    if (lost, gained) == (len(comparison.lost), len(comparison.gained)):
        return ""
    return f" (by fact {lost} and {gained})"


def _in_words(significance: Significance) -> str:
    words = f"p = {significance.p:.2g}"
    if significance.suites > 1:
        words += f", {significance.adjusted:.2g} among {significance.suites} suites"
    words += f", below {significance.level:.2g}"
    return words + (f" ({ALPHA:.0%} over {significance.looks} looks)" if significance.looks > 1 else "")


def _judge_pinned(gate: spec.Gate, matter: Matter, comparison: Comparison | None, found: _Findings) -> None:
    ids = {verdict.case_id for verdict in matter.verdicts}
    for pin in gate.pinned:
        if not {pin, ascii_id(pin)} & ids:
            close = nearest(ascii_id(pin), ids)
            found.reasons.append(
                f"pinned case {pin} is not a case of this suite" + (f"; did you mean {close}?" if close else "")
            )
    lost = [flip.case_id for flip in comparison.lost if is_pinned(gate, flip.case_id)] if comparison else []
    if lost:
        found.reasons.append(f"pinned and lost: {', '.join(lost)}")
    passed = {then.identity: then for then in matter.baseline or () if then.outcome == "pass"} if gate.pinned else {}
    for now in matter.verdicts:
        then = passed.get(now.identity)
        if now.outcome != "not_asked" or then is None or not is_pinned(gate, now.case_id) or asks_otherwise(then, now):
            continue
        found.reasons.append(f"pinned, passed at {then.ckpt or 'the baseline'}, not asked now: {now.case_id}")
    changed = [case for case in comparison.changed if is_pinned(gate, case)] if comparison else []
    if changed:
        found.notes.append(f"pinned, but changed since the baseline: {_listed(changed)}")


def _listed(ids: Sequence[str]) -> str:
    more = len(ids) - _NAMED
    return ", ".join(ids[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _cases(number: int) -> str:
    return f"{number} case" if number == 1 else f"{number} cases"
