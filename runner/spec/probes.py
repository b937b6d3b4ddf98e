"""Probe suites, their gates, and what sets the exit code."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from runner.spec.blocks import Block, Fraction, Names, as_tuple, one_or_many


class Bound(Block):
    """Bounds on a number: one that the cases of a suite recorded, or one of the suite as a whole, such as `f1` or what
    `pooled=` computes; that one is its own mean, least and greatest."""

    max_mean: float | None = None
    """The mean may not be above this."""
    min_mean: float | None = None
    """The mean may not be below this."""
    max: float | None = None
    """No case may be above this."""
    min: float | None = None
    """No case may be below this."""
    max_mean_rise: float | None = None
    """The mean may not rise by more than this over the baseline's, of the cases that both recorded."""

    @model_validator(mode="after")
    def _bounds_something(self) -> Bound:
        if not self.model_fields_set:
            raise ValueError("give at least one of max_mean, min_mean, max, min, max_mean_rise")
        return self


class Gate(Block):
    """The rule that turns a suite's verdicts into green or red. Every part must hold; any `error` verdict is red."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, use_attribute_docstrings=True)
    __pydantic_extra__: dict[str, Bound]

    min_pass_rate: Fraction | None = None
    """Share of the asked cases that must pass."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] | None = None
    """With `min_pass_rate`: the lower bound of the Wilson interval at this confidence must reach the rate."""
    max_regression: Literal["significant"] | Annotated[int, Field(ge=0)] | None = None
    """Against the baseline: at most so many net lost cases, or none beyond chance (exact one-sided McNemar test, one
    sign for cases that share a fact, at 5 % for the whole run: Holm over the suites of a checkpoint, and an equal part
    for each checkpoint)."""
    pinned: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    """Case ids that must pass wherever they passed at the baseline."""
    baseline: str | None = None
    """The checkpoint to compare with. Default: the one the stage started from."""
    on_fail: Literal["continue", "stop", "rollback"] = "continue"
    """What a red gate does to the run: nothing, end it, or end the stage at the newest checkpoint before it that no
    such gate calls red, which `@last` then means. Only `result:` decides the exit code."""

    @model_validator(mode="after")
    def _gates_something(self) -> Gate:
        if self.confidence is not None and self.min_pass_rate is None:
            raise ValueError("confidence belongs to min_pass_rate")
        if self.min_pass_rate is None and self.max_regression is None and not self.pinned and not self.bounds:
            raise ValueError("a gate needs a rule, for example min_pass_rate: 0.95")
        return self

    @property
    def bounds(self) -> dict[str, Bound]:
        """Bounds by the name of the recorded number."""
        return dict(self.__pydantic_extra__ or {})


class DecodingChange(Block):
    """What a suite changes in the decoding of its probes, key by key; the rest stays as the probe file says."""

    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """At most so many tokens are generated."""
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(one_or_many)] | None = None
    """Strings that end a reply; an empty list takes the probe's away."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """0 is greedy; above it, tokens are drawn, seeded per case."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling: tokens are drawn from the most likely ones that have this share of the probability."""
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    """Above 1, tokens that already occurred become less likely; 1 changes nothing."""
    samples: Annotated[int, Field(ge=1)] | None = None
    """Replies per case; above 1 with a temperature above 0."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Of drawing, together with the case's id and the number of the sample."""

    @model_validator(mode="after")
    def _changes_something(self) -> DecodingChange:
        if not self.changes:
            raise ValueError("give at least one key, for example repetition_penalty: 1.2")
        if self.temperature == 0 and (self.samples or 1) > 1:
            raise ValueError("samples above 1 need a temperature above 0: greedy samples are all the same")
        return self

    @property
    def changes(self) -> dict[str, Any]:
        """The keys that are given, with their values."""
        return {name: value for name, value in self if value is not None}


class Suite(Block):
    """A probe file or one probe of it, the cases it is asked, how it is decoded, and its gate."""

    file: str
    """A pytest file, or `file.py::test_name`."""
    cases: str | None = None
    """A data set or split whose rows are the cases. Default: the cases the probe file names."""
    stages: Names | None = None
    """Stages whose checkpoints are asked. Default: all."""
    gate: Gate | None = None
    """Replaces the gate in the probe file."""
    decoding: DecodingChange | None = None
    """Changes single keys of the probes' own decoding, so that one file can be asked in two ways by two suites."""
    timeout_s: Annotated[float, Field(gt=0)] = 14_400.0
    """Seconds that its tests may take at a checkpoint; loading, generating and the tests of all suites that are due
    there may take the sum of theirs. What takes longer is taken for hung: it is ended, the other suites keep their
    verdicts, and the run ends with exit code 3. Default: four hours, far more than a suite takes that is asked at every
    checkpoint."""
    leaks: Literal["fail", "warn", "expected"] = "warn"
    """What a case means whose question stands in the rows that the checkpoint was trained on: nothing trains, or its
    verdict is an error (`fail`); it is said (`warn`); it is meant, as in a suite of trained questions (`expected`)."""


class Result(Block):
    """The checkpoint whose gates set the exit code."""

    checkpoint: str
    """For example `prefer@best`."""
    baseline: str | None = None
    """What it is compared with. Default: the checkpoint its stage started from."""
