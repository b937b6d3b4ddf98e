"""What is brought before a gate, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runner import spec
from runner.gate.chance import ALPHA
from runner.gate.paired import Comparison, Flip, Number, Tally
from runner.verdicts import Verdict


@dataclass(frozen=True)
class Matter:
    """A suite at a checkpoint, with all that its gate needs to know."""

    suite: str
    gate: spec.Gate | None
    """None counts and compares, and decides nothing."""
    verdicts: Sequence[Verdict]
    """All verdicts of the suite at the checkpoint."""
    baseline: Sequence[Verdict] | None = None
    """Those at the baseline; None or empty where it was not asked there."""
    pooled: Mapping[str, float] = field(default_factory=dict)
    """Numbers about the suite as a whole; see `SuiteAsked.values`."""
    pooled_before: Mapping[str, float] = field(default_factory=dict)
    """Those at the baseline."""
    given: str | None = None
    """The baseline that the user named for this judgement: what needs one is red where it was not asked there."""
    key: str = ""
    """Digest of the probe file, the cases and the decoding; see `SuiteAsked.key`. Empty: unknown."""
    key_before: str = ""
    """That at the baseline."""
    fault: str = ""
    """Why the baseline cannot be read: a gate is red for it, whatever it asks."""
    required: bool = False
    """What needs a baseline is red where there is none at all."""


@dataclass(frozen=True)
class Significance:
    """How a suite stood the test of `max_regression: significant`."""

    p: float
    """Of the suite alone."""
    adjusted: float
    """Holm's, over the suites that are tested at the checkpoint."""
    suites: int
    """How many those are."""
    looks: int
    """At how many checkpoints of the run such a test is made; each has an equal part of ALPHA."""

    @property
    def level(self) -> float:
        """What the adjusted p must stay below to be red."""
        return ALPHA / self.looks

    @property
    def worse(self) -> bool:
        """Whether more was lost than chance explains."""
        return self.adjusted < self.level


@dataclass(frozen=True)
class Decision:
    """What a gate says about a suite at a checkpoint, and why."""

    suite: str
    green: bool | None
    """None where the suite has no gate, or one that only compares and there was no baseline: recorded."""
    reasons: tuple[str, ...]
    """Why it is red; empty otherwise."""
    notes: tuple[str, ...]
    """What a reader should know besides, for example that there was no baseline."""
    tally: Tally
    comparison: Comparison | None
    """None where there was no baseline."""
    significance: Significance | None = None
    """Of a gate with `max_regression: significant` that had a baseline."""
    numbers: tuple[Number, ...] = ()
    """What the cases recorded, and what is known of the suite as a whole."""
    broken_off: bool = False
    """Whether there is a gate, and it decided nothing because the session ended before all cases were asked."""

    @property
    def lost(self) -> tuple[Flip, ...]:
        """Cases that passed at the baseline and miss now."""
        return self.comparison.lost if self.comparison else ()

    @property
    def gained(self) -> tuple[Flip, ...]:
        """Cases that missed at the baseline and pass now."""
        return self.comparison.gained if self.comparison else ()
