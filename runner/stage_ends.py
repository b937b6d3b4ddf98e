"""What ends a stage before its last step: a gate that says stop or roll back, or a suite that keeps getting worse.

Pure: what the probes said at each checkpoint in, where the stage ends out. It is decided anew from the verdicts each
time, so an interrupted run, a run again and a look by hand come to the same end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner import spec


@dataclass(frozen=True)
class Look:
    """What the probes of one checkpoint say about going on."""

    label: str
    stop: tuple[str, ...] = ()
    """Suites with `on_fail: stop` whose gate is red."""
    rollback: tuple[str, ...] = ()
    """Suites with `on_fail: rollback` whose gate is red."""
    rate: float | None = None
    """Pass rate of the suite that `stop_when` watches; None where it cannot be told."""


@dataclass(frozen=True)
class End:
    """Where and why a stage ends before its last step, or goes back behind it."""

    place: int
    """Index of the checkpoint at which training ends."""
    keeps: int | None
    """Index of the checkpoint that `@last` then means; None where the whole run stops."""
    why: str


def first_end(looks: Sequence[Look], rule: spec.StopWhen | None) -> End | None:
    """The first end that the checkpoints of a stage, first to last, give it; None where it goes on.

    At one checkpoint `on_fail: stop` comes before `rollback`, and both before `stop_when`. A checkpoint whose rate
    cannot be told (its suite ended in errors, or no case was asked) counts neither as worse nor as better.
    """
    best: tuple[float, str] | None = None
    worse = 0
    for place, look in enumerate(looks):
        if look.stop:
            return End(place, None, f"{', '.join(look.stop)} red at {look.label}, on_fail: stop")
        if look.rollback:
            why = f"{', '.join(look.rollback)} red at {look.label}, on_fail: rollback"
            if place == 0:
                return End(place, None, f"{why}, and no checkpoint before it to go back to")
            return End(place, place - 1, f"{why}: back to {looks[place - 1].label}")
        if rule is None or look.rate is None:
            continue
        if best is None or look.rate >= best[0]:
            # of equals the earlier is the best, as for @best
            best = (look.rate, look.label) if best is None or look.rate > best[0] else best
            worse = 0
            continue
        worse += 1
        if worse >= rule.worse_for:
            times = "" if worse == 1 else f", {worse} checkpoints in a row"
            why = f"{rule.suite} is below its best, {best[0]:.1%} at {best[1]}{times}"
            return End(place, place, why)
    return None
