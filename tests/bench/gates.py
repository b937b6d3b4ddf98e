"""How often gates are red for nothing, and how much must be lost until they are: simulated runs, judged by the judge.

    python tests/bench/gates.py --runs 2000 --seed 0

A run is 10 checkpoints of 4 suites of 200 cases, each suite gated by `max_regression: significant` against the
checkpoint that the stage started from. In a run of equal skill a checkpoint turns 4 % of the cases against that
baseline, as many to right as to wrong: any red gate in it is a false alarm. Bar: at most 5 % of runs.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from runner import gate, spec
from runner.gate import ALPHA, Matter, wilson
from runner.verdicts import Verdict

CHECKPOINTS, SUITES, CASES, CHURN = 10, 4, 200, 0.04
SIGNIFICANT = spec.Gate(max_regression="significant")
Truth = list[bool]
"""Per case or fact, whether it is right."""


@dataclass(frozen=True)
class Scenario:
    """One way in which checkpoints of equal skill may differ."""

    name: str
    rates: tuple[float, ...] = (0.9,) * SUITES
    """Share of cases that are right, per suite."""
    facts: int = 0
    """Cases about one fact, which turn together; 0 where each is for itself."""
    told: bool = True
    """Whether the verdicts say which cases share a fact."""
    luck: bool = False
    """The baseline is drawn like every checkpoint: some cases are right by halves, and the baseline may be lucky."""
    shared: bool = False
    """Every suite asks the same: what turns in one turns in all."""
    drift: bool = False
    """Each checkpoint turns cases of the one before it, until the last one differs by the whole churn."""
    looks: int = CHECKPOINTS
    """What is corrected for."""


SCENARIOS = (
    Scenario("9 of 10 right"),
    Scenario("half of them right", rates=(0.5,) * SUITES),
    Scenario("unequal base rates", rates=(0.3, 0.6, 0.9, 0.97)),
    Scenario("a baseline that may be lucky", luck=True),
    Scenario("suites that turn together", shared=True),
    Scenario("a slow drift", drift=True),
    Scenario("100 facts of 2 cases", facts=2),
    Scenario("40 facts of 5 cases", facts=5),
)


def is_red(scenario: Scenario, generator: random.Random) -> bool:
    """Whether a run of checkpoints of equal skill shows any red gate."""
    suites = [_Suite(scenario, rate, generator) for rate in scenario.rates]
    for look in range(CHECKPOINTS):
        if scenario.shared:
            now = [suites[0].next(look)] * SUITES
            before = [suites[0].before] * SUITES
        else:
            now, before = [suite.next(look) for suite in suites], [suite.before for suite in suites]
        matters = [Matter(str(place), SIGNIFICANT, now[place], before[place]) for place in range(SUITES)]
        if any(decision.green is False for decision in gate.judge(matters, looks=scenario.looks)):
            return True
    return False


class _Suite:
    """A suite of a run: its verdicts at the baseline, and at one checkpoint after the other."""

    def __init__(self, scenario: Scenario, rate: float, generator: random.Random) -> None:
        self._scenario, self._rate, self._generator = scenario, rate, generator
        size = max(scenario.facts, 1)
        self._facts = CASES // size
        self._records = _records(size if scenario.told else 1, size)
        # a case that is right by halves turns at every second draw
        self._unstable = [scenario.luck and generator.random() < 2 * CHURN for _ in range(self._facts)]
        self._start = self._now = [generator.random() < (0.5 if one else rate) for one in self._unstable]
        self.before = self._verdicts(self._start)

    def next(self, look: int) -> Sequence[Verdict]:
        """The verdicts of the next checkpoint."""
        draw = self._generator.random
        if self._scenario.luck:
            self._now = [
                draw() < 0.5 if unstable else right for right, unstable in zip(self._start, self._unstable, strict=True)
            ]
        elif self._scenario.drift:
            self._now = self._turned(self._now, CHURN / CHECKPOINTS)
        else:
            self._now = self._turned(self._start, CHURN)
        return self._verdicts(self._now)

    def _turned(self, truth: Truth, churn: float) -> Truth:
        """As many to right as to wrong are expected, whatever share is right."""
        draw, lose, gain = self._generator.random, churn / 2 / self._rate, churn / 2 / (1 - self._rate)
        return [draw() >= lose if right else draw() < gain for right in truth]

    def _verdicts(self, truth: Truth) -> Sequence[Verdict]:
        size = CASES // self._facts
        return [self._records[place * size + case][right] for place, right in enumerate(truth) for case in range(size)]


_RECORDS: dict[int, list[tuple[Verdict, Verdict]]] = {}


def _records(told: int, size: int) -> list[tuple[Verdict, Verdict]]:
    """A missed and a passed verdict for every case, of which `told` share a cluster."""
    if told not in _RECORDS:
        _RECORDS[told] = [
            (
                Verdict("s", "t.py::t", f"c{case}", "miss", cluster=str(case // told) if told > 1 else ""),
                Verdict("s", "t.py::t", f"c{case}", "pass", cluster=str(case // told) if told > 1 else ""),
            )
            for case in range(CASES)
        ]
    return _RECORDS[told]


def loss_is_red(lost: int, gained: int, beside: int = SUITES - 1, looks: int = CHECKPOINTS) -> bool:
    """Whether a suite of 200 with so many lost and gained is red, beside suites that lost nothing."""
    records = _records(1, 1)
    before = [row[place >= gained] for place, row in enumerate(records)]
    now = [row[place < gained or place >= gained + lost] for place, row in enumerate(records)]
    matters = [Matter("s", SIGNIFICANT, now, before)]
    matters += [Matter(f"other {place}", SIGNIFICANT, before, before) for place in range(beside)]
    return gate.judge(matters, looks=looks)[0].green is False


def loss_is_found(points: float, everywhere: bool, generator: random.Random) -> bool:
    """Whether a checkpoint that knows `points` percent of the cases less is red, churn and all, at the one look.

    Args:
        everywhere: every suite lost as much; else one did.
    """
    scenario = SCENARIOS[0]
    suites = [_Suite(scenario, rate, generator) for rate in scenario.rates]
    matters = []
    for place, suite in enumerate(suites):
        now = list(suite.next(0))
        if everywhere or place == 0:
            records = _records(1, 1)
            share = points / 100 / scenario.rates[place]
            now = [
                records[case][0] if one.outcome == "pass" and generator.random() < share else one
                for case, one in enumerate(now)
            ]
        matters.append(Matter(str(place), SIGNIFICANT, now, suite.before))
    return gate.judge(matters, looks=CHECKPOINTS)[0].green is False


def _share(found: int, runs: int) -> str:
    low, high = wilson(found, runs)
    return f"{found / runs:7.2%} [{low:.2%} – {high:.2%}]"


def _reds(scenario: Scenario, runs: int, seed: int) -> int:
    return sum(is_red(scenario, random.Random(f"{seed} {run}")) for run in range(runs))


def _false_alarms(runs: int, few: int, seed: int) -> None:
    print(f"\nred for nothing ({CHURN:.0%} churn, equal skill; bar {ALPHA:.0%} of {runs} runs)")
    for scenario in SCENARIOS:
        found = _reds(scenario, runs, seed)
        print(f"  {scenario.name:<44} {_share(found, runs)}  {'ok' if found / runs <= ALPHA else 'ABOVE THE BAR'}")
    print(f"what the corrections are for ({few} runs)")
    for scenario in (
        Scenario("40 facts of 5 cases, not told to the judge", facts=5, told=False),
        Scenario("9 of 10 right, not corrected for the looks", looks=1),
    ):
        print(f"  {scenario.name:<44} {_share(_reds(scenario, few, seed), few)}")


def _power(few: int, seed: int) -> None:
    print(f"\n{CASES} cases, in a run of {SUITES} suites × {CHECKPOINTS} looks; the other suites lost nothing")
    for lost, gained in ((22, 2), (18, 2), (14, 2), (14, 0), (10, 2), (10, 0)):
        p = gate.mcnemar(lost, gained)
        print(f"  {lost} lost, {gained} gained: p = {p:.1e}  {'red' if loss_is_red(lost, gained) else 'green'}")
    print(f"\nfound at one of {CHECKPOINTS} looks, of {few} losses each, {CHURN:.0%} churn beside them")
    for points in (2, 4, 6, 8, 10, 12):
        shares = []
        for everywhere in (False, True):
            draws = (random.Random(f"{seed} {run}") for run in range(few))
            shares.append(sum(loss_is_found(points, everywhere, draw) for draw in draws) / few)
        print(f"  {points:>2} points lost: in one suite of {SUITES} {shares[0]:6.1%}, in every suite {shares[1]:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began, few = time.perf_counter(), max(options.runs // 10, 1)
    print(f"runs of {CHECKPOINTS} checkpoints × {SUITES} suites × {CASES} cases, seed {options.seed}")
    _false_alarms(options.runs, few, options.seed)
    _power(few, options.seed)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
