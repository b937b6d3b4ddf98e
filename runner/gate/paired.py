"""A suite at two checkpoints, case by case: what was lost and gained, what cannot be compared, how numbers moved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from runner.gate.chance import mcnemar, negative_flip_rate
from runner.verdicts import Verdict

_SAME = 1e-3
"""Log probabilities and margins of one reply that lie no farther apart may come from one model."""
_TOLERANCE = {"float32": 1e-4, "float16": 2 * 2**-6, "bfloat16": 2 * 2**-3}
"""A margin below this may turn with the batch a row is generated in. The best logits of large models are of the order
of 16 to 32; there the numbers of float16 lie 2**-6 apart and those of bfloat16 2**-3, and each of the two logits may be
off by one. In float32 they lie 2**-19 apart, and what differs is the order of long sums: about 50 such steps."""


def tolerance(dtype: str) -> float:
    """The margin below which a greedy reply of this dtype hangs by a hair, in logits; of a server that does not say
    what it computes in, as though it were bfloat16."""
    return _TOLERANCE.get(dtype, _TOLERANCE["bfloat16"])


def is_fragile(verdict: Verdict) -> bool:
    """Whether a verdict rests on a margin below tolerance and was not asked again alone in float32. A sampled reply
    does not: its tokens were drawn, whatever the margin."""
    how = verdict.generation
    if verdict.margin is None or how.get("again") or how.get("temperature"):
        return False
    return verdict.margin < tolerance(str(how.get("dtype", "")))


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


@dataclass(frozen=True)
class Flip:
    """A case whose outcome differs from the baseline's."""

    case_id: str
    before: Verdict
    after: Verdict

    @property
    def cluster(self) -> str:
        """The fact that the case is about; without one, the case itself."""
        return self.after.cluster or self.before.cluster or self.case_id

    @property
    def fragile(self) -> bool:
        """Whether either reply hung by a hair and was not asked again."""
        return is_fragile(self.before) or is_fragile(self.after)


@dataclass(frozen=True)
class Comparison:
    """The cases of a suite asked both at the baseline and now."""

    baseline: str
    """The baseline's name."""
    common: int
    """Cases that passed or missed on both sides, and ask the same on both."""
    lost: tuple[Flip, ...] = ()
    gained: tuple[Flip, ...] = ()
    new: int = 0
    """Asked now, not at the baseline."""
    changed: tuple[str, ...] = ()
    """Ids of those asked on both sides, but in other words, about another row or with another decoding; those in
    `rejudged` too."""
    rejudged: tuple[str, ...] = ()
    """Ids of those where the reply is the same and the outcome is not: that is no work of the model."""
    gone: int = 0
    """Asked at the baseline, not now."""
    unanswered: int = 0
    """Asked on both sides, and an error or not asked on one: no answer to compare."""

    @property
    def net(self) -> int:
        """Gained less lost."""
        return len(self.gained) - len(self.lost)

    @cached_property
    def facts(self) -> tuple[int, int]:
        """How many clusters lost more than they gained, and how many gained more than they lost.

        Cases about one fact turn together; counted one by one they would look like so many independent signs, and
        false alarms would be many times more frequent than the level says. So each cluster gives one sign, that of its
        net flips, and none where they are equal.
        """
        net: dict[str, int] = {}
        for flips, sign in ((self.lost, 1), (self.gained, -1)):
            for flip in flips:
                net[flip.cluster] = net.get(flip.cluster, 0) + sign
        signs = list(net.values())
        return sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)

    @property
    def p(self) -> float:
        """Chance of so many losses without any change of skill: the exact one-sided sign test over clusters, which is
        McNemar's test on cases where each case is a cluster of its own."""
        return mcnemar(*self.facts)

    @property
    def p_better(self) -> float:
        """Chance of so many gains without any change of skill: the same test in the other direction."""
        lost, gained = self.facts
        return mcnemar(gained, lost)

    @property
    def negative_flip_rate(self) -> float | None:
        """Share of the compared cases that were lost."""
        return negative_flip_rate(len(self.lost), self.common)

    @property
    def differences(self) -> str:
        """What could not be compared, in words: `2 new, 1 gone`; empty where both sides asked the same."""
        numbers = (self.new, len(self.changed), self.gone, self.unanswered)
        named = zip(numbers, ("new", "changed", "gone", "not answered"), strict=True)
        return ", ".join(f"{number} {word}" for number, word in named if number)


_ANSWERED = frozenset({"pass", "miss"})


def compare(verdicts: Sequence[Verdict], baseline: Sequence[Verdict]) -> Comparison:
    """`verdicts` case by case beside the baseline's. Only passes and misses are compared: an error is no answer."""
    before = {verdict.identity: verdict for verdict in baseline}
    lost: list[Flip] = []
    gained: list[Flip] = []
    changed: list[str] = []
    rejudged: list[str] = []
    common = new = unanswered = 0
    for now in verdicts:
        then = before.pop(now.identity, None)
        if then is None:
            new += 1
        elif asks_otherwise(then, now):
            changed.append(now.case_id)
        elif now.outcome not in _ANSWERED or then.outcome not in _ANSWERED:
            unanswered += 1
        elif then.outcome != now.outcome and _same_reply(then, now):
            changed.append(now.case_id)
            rejudged.append(now.case_id)
        else:
            common += 1
            if then.outcome != now.outcome:
                (lost if now.outcome == "miss" else gained).append(Flip(now.case_id, then, now))
    name = baseline[0].ckpt if baseline else ""
    return Comparison(
        name, common, tuple(lost), tuple(gained), new, tuple(changed), tuple(rejudged), len(before), unanswered
    )


def asks_otherwise(then: Verdict, now: Verdict) -> bool:
    """Whether a case of one identity asks something else, or about another row; of a file that does not tell, it is
    taken not to. Files of format 1 know no question, and tell by the prompt that came of it."""
    told = bool(then.question and now.question)
    pairs = [(then.row, now.row), (then.question, now.question) if told else (then.prompt, now.prompt)]
    return any(before != after and before and after for before, after in pairs)


def _same_reply(then: Verdict, now: Verdict) -> bool:
    """Whether two verdicts are about one and the same reply, as far as both files tell all that an assert can see."""
    told = ("stop_reason", "others", "thinking")
    before, after = ([verdict.generation.get(name) for name in told] for verdict in (then, now))
    if not before[0] or before != after or (then.reply, then.tokens) != (now.reply, now.tokens):
        return False
    choices = [verdict.generation.get("choices") or {} for verdict in (then, now)]
    pairs = [(then.logprob, now.logprob), (then.margin, now.margin)]
    pairs += [(choices[0].get(choice), choices[1].get(choice)) for choice in {**choices[0], **choices[1]}]
    return all(_close(old, new) for old, new in pairs)


def _close(old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return old is new  # a server may tell neither
    return old == new or abs(new - old) <= _SAME


@dataclass(frozen=True)
class Number:
    """A recorded number of a suite, and how it moved since the baseline."""

    name: str
    mean: float
    """Over the cases that recorded it; of a pooled number, the number itself. NaN where that cannot be said."""
    pooled: bool = False
    """About the suite as a whole, not recorded case by case."""
    before: float | None = None
    """The baseline's mean over the cases that both sides recorded and that ask the same; None where there is none."""
    rise: float | None = None
    """The mean over those cases now, less `before`."""


def numbers(
    verdicts: Sequence[Verdict],
    baseline: Sequence[Verdict] | None,
    pooled: Mapping[str, float],
    pooled_before: Mapping[str, float],
) -> tuple[Number, ...]:
    """Every number that the cases recorded, then those of the suite as a whole, each in the order first seen."""
    names = dict.fromkeys(name for verdict in verdicts for name in verdict.values)
    before = {then.identity: then for then in baseline or ()} if names else {}
    found = [_recorded(name, verdicts, before) for name in names]
    for name, value in pooled.items():
        then = pooled_before.get(name)
        found.append(Number(name, value, True, then, None if then is None else value - then))
    return tuple(found)


def _recorded(name: str, verdicts: Sequence[Verdict], before: Mapping[tuple[str, str], Verdict]) -> Number:
    here = [verdict for verdict in verdicts if name in verdict.values]
    pairs = [
        (then.values[name], now.values[name])
        for now in here
        if (then := before.get(now.identity)) and name in then.values and not asks_otherwise(then, now)
    ]
    now = mean(verdict.values[name] for verdict in here)
    if not pairs:
        return Number(name, now)
    then_mean = mean(pair[0] for pair in pairs)
    return Number(name, now, False, then_mean, mean(pair[1] for pair in pairs) - then_mean)


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean; NaN of nothing, and of infinities of both signs."""
    listed = list(values)
    try:
        return math.fsum(listed) / len(listed)
    except (ValueError, OverflowError, ZeroDivisionError):
        return math.nan
