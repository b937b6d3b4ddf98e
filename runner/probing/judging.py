"""Judging by hand as a run does: the gate in force, the baseline it is compared with, how often the run looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from runner import gate, spec
from runner.errors import UserError
from runner.gate import Decision, Matter, is_significant
from runner.probing.outcomes import Outcomes
from runner.probing.planning import Planner, Sitting
from runner.probing.targets import Target
from runner.verdicts import Verdict, VerdictFile


@dataclass(frozen=True)
class Before:
    """What a suite came to at the baseline."""

    verdicts: Sequence[Verdict] = ()
    pooled: Mapping[str, float] = field(default_factory=dict)
    """See `SuiteAsked.values`."""
    key: str = ""
    """See `SuiteAsked.key`; empty where it was asked in this session, and is the same."""


NOTHING = Before()
"""There is no baseline, or the suite was not asked there."""


def _in(file: VerdictFile | None, suite: str) -> Before:
    asked = file.asked(suite) if file else None
    return Before(file.of(suite), asked.values, asked.key) if file and asked else NOTHING


class Baselines:
    """What each suite's verdicts are compared with."""

    def __init__(self, chosen: Target | VerdictFile | None, outcomes: Outcomes, *, required: bool = False) -> None:
        """`required`: a gate that needs a baseline is red where there is none."""
        self._chosen = chosen
        self._outcomes = outcomes
        self._required = required
        self._recorded: dict[Sitting, Before] = {}

    def of(self, sitting: Sitting, rule: spec.Gate | None) -> Before:
        """What the same suite came to at the baseline: `--probe-baseline`, else in a run the gate's `baseline:`, else
        the checkpoint that the stage started from.

        Raises:
            UserError: a verdict file is damaged, or `baseline:` names a checkpoint that is not there.
        """
        if isinstance(self._chosen, Target):
            if self._chosen == sitting.target:
                return NOTHING
            before = Sitting(self._chosen, sitting.suite)
            if asked := self._outcomes.of(before):
                return Before(asked, self._outcomes.pooled(before))
        if sitting not in self._recorded:
            self._recorded[sitting] = self._read(sitting, rule)
        return self._recorded[sitting]

    def given(self, sitting: Sitting) -> str | None:
        """What `--probe-baseline` names, where it is not this checkpoint itself."""
        if self._chosen is None or self._chosen == sitting.target:
            return None
        return f"the baseline {self._chosen.ckpt if isinstance(self._chosen, VerdictFile) else self._chosen.label}"

    def required(self, sitting: Sitting) -> bool:
        """Whether this checkpoint must have a baseline: it need not be compared with itself."""
        return self._required and self._chosen != sitting.target

    def _read(self, sitting: Sitting, rule: spec.Gate | None) -> Before:
        if isinstance(self._chosen, VerdictFile):
            return _in(self._chosen, sitting.suite)
        target = self._chosen or sitting.target
        if target.run is None or target.at is None or target.problem:
            return NOTHING
        standings = target.run.standings
        found = target.at if target is self._chosen else standings.baseline_of(target.at, rule)
        return _in(standings.verdicts(found), sitting.suite) if found else NOTHING


class Judge:
    """Decides about every suite at every checkpoint, with the same rule as the run."""

    def __init__(self, planner: Planner, outcomes: Outcomes, baselines: Baselines) -> None:
        self._planner = planner
        self._outcomes = outcomes
        self._baselines = baselines
        self.gated: dict[Sitting, spec.Gate] = {}
        """The suites that are asked whole, with the gate in force."""
        self._decided: dict[Target, tuple[int, dict[Sitting, Decision]]] = {}

    def decide(self, sitting: Sitting) -> Decision:
        """What its gate says about a suite at a checkpoint; without a gate, and where the session was broken off before
        all cases were asked, it is counted and compared."""
        return self.at(sitting.target)[sitting]

    def at(self, target: Target) -> dict[Sitting, Decision]:
        """The same of every suite that this checkpoint was asked.

        What is tested for losses beyond chance is corrected for all that is so tested. A run's suites are one family:
        those that this session leaves out count too, with what the run recorded of them. What a recipe does not name
        is a family of its own, as is all that is asked of a checkpoint that belongs to no run.
        """
        asked = {one: len(self._outcomes.of(one)) for one in self._planner.planned if one.target == target}
        cases = sum(asked.values())
        # every gate of a checkpoint asks, and the summary: they are decided together, once all cases are there
        if target not in self._decided or self._decided[target][0] != cases:
            self._decided[target] = cases, self._decide(target, [one for one, number in asked.items() if number])
        return self._decided[target][1]

    def _decide(self, target: Target, here: Sequence[Sitting]) -> dict[Sitting, Decision]:
        run_asks = set(target.run.recipe.asked_at(target.at.stage)) if target.run and target.at else set()
        families: dict[bool, list[Sitting]] = {}
        for sitting in here:
            families.setdefault(sitting.suite in run_asks, []).append(sitting)
        found: dict[Sitting, Decision] = {}
        for of_run, sittings in families.items():
            matters = [self._matter(sitting) for sitting in sittings]
            others, unseen = self._left_out(target, run_asks) if of_run else ([], 0)
            unseen += sum(
                one.target == target and (one.suite in run_asks) == of_run and is_significant(rule)
                for one, rule in self.gated.items()
                if self._is_broken_off(one)
            )
            looks = target.run.record.looks if of_run and target.run else self._looks()
            decisions = gate.judge([*matters, *others], looks=looks, unseen=unseen)
            for sitting, decision in zip(sittings, decisions, strict=False):  # without those about the others
                found[sitting] = self._told(sitting, decision)
        return {sitting: found[sitting] for sitting in here}

    def _is_broken_off(self, sitting: Sitting) -> bool:
        """Whether a suite that was to be asked whole was not."""
        return sitting in self.gated and not self._outcomes.is_whole(sitting)

    def _told(self, sitting: Sitting, decision: Decision) -> Decision:
        """The decision, which says so where its suite was broken off."""
        if not self._is_broken_off(sitting):
            return decision
        asked, cases = len(self._outcomes.of(sitting)), self._outcomes.tests[sitting]
        note = f"broken off: {asked} of {cases} cases were asked, and nothing is judged"
        return replace(decision, broken_off=True, notes=(note, *decision.notes))

    def _before(self, sitting: Sitting, rule: spec.Gate | None) -> tuple[Before, str]:
        """The baseline, and why it cannot be read."""
        try:
            return self._baselines.of(sitting, rule), ""
        except UserError as error:
            return NOTHING, "; ".join(
                f"{one.where}: {one.message}" if one.where else one.message for one in error.problems
            )

    def _matter(self, sitting: Sitting) -> Matter:
        rule = self.gated.get(sitting)
        before, fault = self._before(sitting, rule)
        key = self._planner.planned[sitting].suite.key() if before.key else ""
        return Matter(
            sitting.suite, None if self._is_broken_off(sitting) else rule, self._outcomes.of(sitting), before.verdicts,
            key=key, key_before=before.key, fault=fault,
            pooled=self._outcomes.pooled(sitting), pooled_before=before.pooled,
            given=self._baselines.given(sitting), required=self._baselines.required(sitting),
        )  # fmt: skip

    def _left_out(self, target: Target, run_asks: set[str]) -> tuple[list[Matter], int]:
        """The suites of the run that are tested at this checkpoint and that the session does not judge, and how many
        more there are of which the run recorded nothing."""
        assert target.run is not None  # where there is none, nothing is left out
        assert target.at is not None
        standings = target.run.standings
        try:
            file = standings.verdicts(target.at)
        except UserError:  # damaged: nothing is known of what the run recorded here, which is asked now
            file = None
        matters, unseen = [], 0
        for suite in sorted(run_asks):
            sitting = Sitting(target, suite)
            asked = file.asked(suite) if file else None
            rule = standings.gate_of(suite, file) if file and asked else target.run.recipe.probes[suite].gate
            if sitting in self.gated or not is_significant(rule):
                continue
            before, _ = self._before(sitting, rule)
            if file and asked and before.verdicts:
                matters.append(Matter(suite, rule, file.of(suite), before.verdicts))
            elif not asked:
                unseen += 1
        return matters, unseen

    def _looks(self) -> int:
        """At how many checkpoints this session tests for losses beyond chance."""
        return len({one.target for one, rule in self.gated.items() if is_significant(rule)})
