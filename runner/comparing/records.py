"""Two verdict files to what is said about them: per suite lost, gained, and whether chance explains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from runner import gate
from runner.comparing.sides import Side
from runner.errors import UserError
from runner.gate import ALPHA, Comparison, Number, Tally

Outcome = Literal["worse", "better", "same", "not compared"]


@dataclass(frozen=True)
class SuiteCompared:
    """One suite on both sides."""

    suite: str
    before: Tally
    after: Tally
    comparison: Comparison
    p: float
    """Of so many flips in the direction in which there were more, one-sided."""
    adjusted: float
    """Holm's, over the suites; each direction is a family of its own, and has its own 5 %."""
    outcome: Outcome
    """`same`: no difference beyond chance; `not compared`: no case was answered on both sides."""
    numbers: tuple[Number, ...]
    """What was recorded; the means of both sides are over the cases that both recorded."""
    edited: bool
    """Whether the two sides were asked by another probe file, with other cases or another decoding."""

    @property
    def unasked(self) -> bool:
        """Whether the second side could not be asked: there is no answer, and an error."""
        return self.after.errors > 0 and self.after.errors == self.after.asked


@dataclass(frozen=True)
class Compared:
    """Everything that `recipe compare` shows."""

    before: Side
    after: Side
    suites: tuple[SuiteCompared, ...]
    only_before: tuple[str, ...]
    """Suites that were asked on that side alone."""
    only_after: tuple[str, ...]

    @property
    def worse(self) -> tuple[str, ...]:
        """The suites of which more was lost than chance explains."""
        return tuple(suite.suite for suite in self.suites if suite.outcome == "worse")

    @property
    def better(self) -> tuple[str, ...]:
        """The suites of which more was gained than chance explains."""
        return tuple(suite.suite for suite in self.suites if suite.outcome == "better")

    @property
    def unasked(self) -> tuple[str, ...]:
        """The suites that the second side could not be asked."""
        return tuple(suite.suite for suite in self.suites if suite.unasked)

    @property
    def is_red(self) -> bool:
        """Whether the second side is worse, or could not be asked whether it is."""
        return bool(self.worse or self.unasked)

    @property
    def same_weights(self) -> bool:
        """Whether both sides are about the same weights: then no flip comes from training."""
        return bool(self.before.file.weights_sha256) and (
            self.before.file.weights_sha256 == self.after.file.weights_sha256
        )


def compare(before: Side, after: Side) -> Compared:
    """Compare the suites that both sides were asked.

    Raises:
        UserError: there is none.
    """
    names = [asked.suite for asked in after.file.suites if before.file.asked(asked.suite)]
    only_before = tuple(asked.suite for asked in before.file.suites if asked.suite not in names)
    only_after = tuple(asked.suite for asked in after.file.suites if asked.suite not in names)
    if not names:
        raise UserError(
            f"{before.name} and {after.name} have no suite in common",
            expected="two that were asked the same suites",
            hint=f"the first was asked {_listed(only_before)}, the second {_listed(only_after)}",
        )
    pairs = [gate.compare(after.file.of(name), before.file.of(name)) for name in names]
    worse, better = _adjusted(pairs, lambda pair: pair.p), _adjusted(pairs, lambda pair: pair.p_better)
    suites = tuple(
        _suite(name, before, after, pair, worse[place], better[place])
        for place, (name, pair) in enumerate(zip(names, pairs, strict=True))
    )
    return Compared(before, after, suites, only_before, only_after)


def _adjusted(pairs: Sequence[Comparison], p_of: Callable[[Comparison], float]) -> tuple[float, ...]:
    return gate.holm([p_of(pair) for pair in pairs])


def _suite(name: str, before: Side, after: Side, pair: Comparison, worse: float, better: float) -> SuiteCompared:
    lost, gained = pair.facts
    outcome: Outcome = "worse" if worse < ALPHA else "better" if better < ALPHA else "same"
    then, now = before.file.asked(name), after.file.asked(name)
    assert then is not None  # only such names are compared
    assert now is not None
    old, new = before.file.of(name), after.file.of(name)
    return SuiteCompared(
        suite=name,
        before=gate.count(old),
        after=gate.count(new),
        comparison=pair,
        p=pair.p if lost >= gained else pair.p_better,
        adjusted=worse if lost >= gained else better,
        outcome=outcome if pair.common else "not compared",
        numbers=gate.numbers(new, old, now.values, then.values),
        edited=bool(then.key and now.key) and then.key != now.key,
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
