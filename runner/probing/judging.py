"""Judging by hand as a run does: the gate in force, the baseline it is compared with, how often the run looks."""

from __future__ import annotations

from collections.abc import Sequence

from runner import gate, spec
from runner.gate import Decision
from runner.probing.outcomes import Outcomes
from runner.probing.planning import Planner, Sitting
from runner.probing.targets import Target
from runner.verdicts import Verdict, VerdictFile


class Baselines:
    """What each suite's verdicts are compared with."""

    def __init__(self, chosen: Target | VerdictFile | None, outcomes: Outcomes) -> None:
        self._chosen = chosen
        self._outcomes = outcomes
        self._recorded: dict[Sitting, Sequence[Verdict] | None] = {}

    def of(self, sitting: Sitting, rule: spec.Gate | None) -> Sequence[Verdict] | None:
        """The verdicts of the same suite at the baseline: `--probe-baseline`, else in a run the gate's `baseline:`,
        else the checkpoint that the stage started from. None where there is none or the suite was not asked there.

        Raises:
            UserError: a verdict file is damaged, or `baseline:` names a checkpoint that is not there.
        """
        if isinstance(self._chosen, VerdictFile):
            return self._chosen.of(sitting.suite) or None
        if isinstance(self._chosen, Target):
            if self._chosen == sitting.target:
                return None
            if asked := self._outcomes.of(Sitting(self._chosen, sitting.suite)):
                return asked
        if sitting not in self._recorded:
            self._recorded[sitting] = self._read(sitting, rule)
        return self._recorded[sitting]

    def given(self, sitting: Sitting) -> str | None:
        """What `--probe-baseline` names, where it is not this checkpoint itself."""
        if self._chosen is None or self._chosen == sitting.target:
            return None
        return f"the baseline {self._chosen.ckpt if isinstance(self._chosen, VerdictFile) else self._chosen.label}"

    def _read(self, sitting: Sitting, rule: spec.Gate | None) -> Sequence[Verdict] | None:
        target = self._chosen if isinstance(self._chosen, Target) else sitting.target
        if target.run is None or target.at is None or target.problem:
            return None
        standings = target.run.standings
        found = target.at if target is self._chosen else standings.baseline_of(target.at, rule)
        return standings.suite_at(found, sitting.suite) if found else None


class Judge:
    """Decides about every suite at every checkpoint, with the same rule as the run."""

    def __init__(self, planner: Planner, outcomes: Outcomes, baselines: Baselines) -> None:
        self._planner = planner
        self._outcomes = outcomes
        self._baselines = baselines
        self.gated: dict[Sitting, spec.Gate] = {}
        """The suites that are asked whole, with the gate in force."""

    def decide(self, sitting: Sitting) -> Decision:
        """What its gate says about a suite at a checkpoint; without a gate it is counted and compared."""
        rule = self.gated.get(sitting)
        looks, suites = self._tests(sitting)
        before = self._baselines.of(sitting, rule)
        return gate.judge(
            rule,
            sitting.suite,
            self._outcomes.of(sitting),
            before,
            given=self._baselines.given(sitting),
            looks=looks,
            suites=suites,
        )

    def _tests(self, sitting: Sitting) -> tuple[int, int]:
        """At how many checkpoints the suite is judged, and how many suites are: of the run, or of this session."""
        run = sitting.target.run
        if run is not None:
            return run.record.looks.get(sitting.suite, 1), len(run.record.looks)
        significant = [one for one, rule in self.gated.items() if rule.max_regression == "significant"]
        looks = sum(one.suite == sitting.suite for one in significant)
        return looks, len({one.suite for one in significant})
