"""What is asked of which checkpoint: the suites a probe belongs to there, their cases, their gates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from runner import spec
from runner.asking import Case, Decoding, Probe, ascii_id, decoding_fault, suite_key
from runner.errors import BadProbe, UserError, nearest
from runner.probing.cases import from_file, numbered
from runner.probing.own_gate import gate_of
from runner.probing.rendering import form_of
from runner.probing.targets import Run, Target
from runner.recipe import project_root


@dataclass(frozen=True)
class Suite:
    """A suite as it is asked of a checkpoint."""

    name: str
    file: Path
    function: str | None
    """The one probe of the file that is asked, if not all."""
    cases: Path | None
    """The case file of the run, for a suite with `cases:`."""
    gate: spec.Gate | None
    """The recipe's."""
    gated: bool = True
    """False where the suite does not gate this stage."""
    decoding: spec.DecodingChange | None = None
    """The recipe's."""
    leaks: str = "warn"
    """What it means where a question stands in the rows that the checkpoint was trained on; the recipe's."""
    is_control: bool = False
    """Asked only so that it is known which cases of others may be asked; no verdict file and no table has it."""

    @classmethod
    def of_file(cls, file: Path) -> Suite:
        """What stands for the suites of a file that cannot be read."""
        return cls(file.stem, file, None, None, None)

    def key(self) -> str:
        """Digest of what is asked; see `runner.asking.suite_key`."""
        return suite_key(self.file, self.function, self.cases, self.decoding.changes if self.decoding else None)


@dataclass(frozen=True)
class Defined:
    """A probe where it was collected."""

    probe: Probe
    file: Path
    """Resolved."""
    function: str
    """`test_it`, of a class `TestThis::test_it`."""
    is_imported: bool = False
    """From another probe file, where it is collected too."""


@dataclass(frozen=True)
class Sitting:
    """A suite at a checkpoint."""

    target: Target
    suite: str


@dataclass(frozen=True, eq=False)
class Ask:
    """One case of one suite, to be asked of one checkpoint by one probe."""

    sitting: Sitting
    probe: Probe
    probe_id: str
    """`file.py::function`, the file relative to the project."""
    case: Case
    decoding: Decoding
    """The probe's own, with what the suite changes."""
    problem: str = ""
    """Why it cannot be asked."""

    @property
    def id(self) -> str:
        """Its part of the test id: suite, checkpoint and case."""
        return f"{ascii_id(self.sitting.suite)}-{self.sitting.target.label}-{self.case.id}"


@dataclass
class Planned:
    """What has been planned for a sitting so far."""

    suite: Suite
    probe_ids: list[str] = field(default_factory=list)
    own_gate: Mapping[str, Any] | None = None
    """The gate written in the probe file."""
    own_rule: spec.Gate | None = None
    """The same, checked."""


class Planner:
    """Answers, for every probe that pytest collects, what is asked of which checkpoint."""

    def __init__(self, targets: Sequence[Target], only: Sequence[str], rootdir: Path) -> None:
        self.targets = targets
        self._only = frozenset(only)
        self._rootdir = rootdir.resolve()
        self.planned: dict[Sitting, Planned] = {}
        self._seen: set[str] = set()
        """Every suite that a collected probe belongs to, asked or not."""

    def asks(self, defined: Defined, followers: Sequence[Defined] = ()) -> list[Ask]:
        """Everything this probe is asked, by checkpoint, suite and case. What cannot be asked, for a fault of the
        checkpoint, the cases or the probe, is one ask that says why: the others go on.

        Args:
            followers: the probes that name it as their control, and those that name them.
        """
        return [
            ask
            for target in self.targets
            for suite, probe_id in self._suites_or_as_control(target, defined, followers)
            for ask in self._sit(Sitting(target, suite.name), suite, defined.probe, probe_id)
        ]

    def has_nothing_to_ask(self, defined: Defined) -> bool:
        """Whether a probe has no cases of its own, and belongs to no suite that has some."""
        if defined.probe.cases is not None or defined.is_imported:
            return False
        return not any(self._suites(target, defined) for target in self.targets)

    def unknown(self) -> UserError | None:
        """What to say of a name of `--probe-suite` that no suite has."""
        of_runs = {name for target in self.targets if target.run for name in target.run.recipe.probes}
        known = sorted(self._seen | of_runs)
        wrong = sorted(self._only.difference(known))
        if not wrong:
            return None
        close = nearest(wrong[0], known)
        return UserError(
            f"--probe-suite {wrong[0]}: there is no such suite here",
            expected=f"one of {', '.join(known)}" if known else None,
            hint=f"did you mean {close}?" if close else None,
        )

    def wanted(self, target: Target) -> Iterator[Suite]:
        """The suites of the run that `--probe-suite` names."""
        if target.run is not None:
            for name, suite in target.run.recipe.probes.items():
                if name in self._only:
                    yield _suite_of_run(target.run, target, name, suite, target.run.root)

    def gate(self, sitting: Sitting) -> spec.Gate | None:
        """The gate in force: the recipe's, else the probe file's; none at a stage that the suite does not name."""
        planned = self.planned[sitting]
        if sitting.target.is_baseline or not planned.suite.gated:
            return None
        return planned.suite.gate or planned.own_rule

    def _suites_or_as_control(
        self, target: Target, defined: Defined, followers: Sequence[Defined]
    ) -> list[tuple[Suite, str]]:
        """The suites that are asked of this probe at `target`, each with the probe's id. A control that is in none of
        them is asked all the same where a follower is: of its own suites, else of its followers', for their cases."""
        own = self._suites(target, defined)
        asked = self._wanted(own)
        if asked or not followers:
            return asked
        following = [one for follower in followers for one in self._wanted(self._suites(target, follower))]
        if not following:
            return []
        shown = own[0][1] if own else f"{following[0][1].partition('::')[0]}::{defined.function}"
        bases = {suite.name: replace(suite, decoding=None) for suite, _ in following}
        if own:
            bases = {suite.name: suite for suite, _ in own}
        elif defined.probe.cases is not None:
            bases = dict(list(bases.items())[:1])  # they would all ask the same
        return [
            (
                replace(
                    base,
                    name=f"given.{base.name}",
                    file=defined.file,
                    function=defined.function,
                    cases=base.cases if own or defined.probe.cases is None else None,
                    gate=None,
                    gated=False,
                    is_control=True,
                ),
                shown,
            )
            for base in bases.values()
        ]

    def _wanted(self, suites: list[tuple[Suite, str]]) -> list[tuple[Suite, str]]:
        return [(suite, shown) for suite, shown in suites if not self._only or suite.name in self._only]

    def _suites(self, target: Target, defined: Defined) -> list[tuple[Suite, str]]:
        """The suites that this probe belongs to at `target`, each with the probe's id; where no recipe names it and it
        can be asked alone, having cases of its own, that is a suite of its own name."""
        file, function = defined.file, defined.function
        found = _suites_of_run(target.run, target, self._rootdir) if target.run else ()
        named = [
            (suite, f"{shown}::{function}")
            for suite, shown in found
            if suite.file == file and suite.function in (None, function)
        ]
        if not named and defined.probe.cases is not None and not defined.is_imported:
            shown = file.relative_to(_root_above(file)).as_posix()
            own = Suite(function.replace("::", "."), file, function, None, None)
            named = [(own, f"{shown}::{function}")]
        self._seen.update(suite.name for suite, _ in named)
        return named

    def _sit(self, sitting: Sitting, suite: Suite, probe: Probe, probe_id: str) -> list[Ask]:
        planned = self.planned.setdefault(sitting, Planned(suite))
        # what its id is where it cannot be asked; a run ends where a probe file cannot be collected
        unable = "collection"
        try:
            _take_gate(planned, suite, probe, probe_id)
            decoding = _decoding(probe, suite)
            form_of(probe, decoding)
            unable = "checkpoint"
            if sitting.target.problem:
                raise UserError(f"{sitting.target.path}: {sitting.target.problem}")
            unable = "cases"
            asks = [Ask(sitting, probe, probe_id, case, decoding) for case in _cases(probe, suite)]
        except UserError as error:
            asks = [Ask(sitting, probe, probe_id, Case(unable, {}), probe.decoding, error.screen())]
        planned.probe_ids.append(probe_id)
        return asks


def _take_gate(planned: Planned, suite: Suite, probe: Probe, probe_id: str) -> None:
    """Note the gate that a probe brings to its suite.

    Raises:
        BadProbe: it is none, or contradicts that of another probe of the suite.
    """
    if planned.suite.file != suite.file:
        raise BadProbe(
            f"two probes are named {suite.name}: in {planned.suite.file} and in {suite.file}",
            hint="a probe that no recipe names is a suite of its own name: give them different names",
        )
    if probe.gate is None or suite.is_control:
        return
    if planned.own_gate is not None and planned.own_gate != probe.gate:
        raise BadProbe(f"suite {suite.name} has two gates: {probe_id} has another than {planned.probe_ids[0]}")
    planned.own_rule = gate_of(probe.gate, probe.where)
    planned.own_gate = probe.gate


def _decoding(probe: Probe, suite: Suite) -> Decoding:
    """How a probe is decoded in a suite.

    Raises:
        BadProbe: what the suite changes does not go with the rest.
    """
    if suite.decoding is None:
        return probe.decoding
    named = f"probes.{suite.name}.decoding"
    if probe.choices is not None:
        raise BadProbe(
            f"{named} is given for a closed question, which generates nothing",
            where=probe.where,
            hint="name the probes that generate, one suite each: file: file.py::test_name",
        )
    decoding = replace(probe.decoding, **suite.decoding.changes)
    fault = decoding_fault(decoding)
    if fault is not None:
        raise BadProbe(f"{named} with the probe's own: {fault[0]}", where=probe.where, expected=fault[1])
    return decoding


@cache
def _suites_of_run(run: Run, target: Target, rootdir: Path) -> tuple[tuple[Suite, str], ...]:
    """The run's suites, with the probe file as the recipe writes it. A checkout elsewhere, the one pytest works in,
    is as good as the one the run was made in."""
    roots = dict.fromkeys((run.root.resolve(), rootdir))
    return tuple(
        (_suite_of_run(run, target, name, suite, root), suite.file.partition("::")[0])
        for root in roots
        for name, suite in run.recipe.probes.items()
    )


def _suite_of_run(run: Run, target: Target, name: str, suite: spec.Suite, root: Path) -> Suite:
    file, _, function = suite.file.partition("::")
    cases = run.folder / "data" / f"{suite.cases}.jsonl" if suite.cases else None
    gated = suite.stages is None or (target.at is not None and target.at.stage in suite.stages)
    return Suite(name, (root / file).resolve(), function or None, cases, suite.gate, gated, suite.decoding, suite.leaks)


@cache
def _root_above(file: Path) -> Path:
    return project_root(file)


def _cases(probe: Probe, suite: Suite) -> tuple[Case, ...]:
    if suite.cases is not None:
        return from_file(suite.cases.parent, suite.cases.name)
    if probe.cases is None:
        raise BadProbe(
            f"{suite.file.name}::{suite.function or suite.name} has no cases of its own",
            hint="give @probe(cases=…), or ask it in a recipe's suite with cases:",
        )
    if isinstance(probe.cases, str):
        return from_file(suite.file.parent, probe.cases)
    return numbered(probe.cases, str(suite.file))
