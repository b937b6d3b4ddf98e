"""What is asked of which checkpoint: the suites a probe belongs to there, their cases, their gates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner import spec
from runner.asking import Case, Probe, ascii_id, case_id, suite_key
from runner.data import sources
from runner.errors import BadData, BadProbe, UserError
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

    def key(self) -> str:
        """Digest of what is asked; see `runner.asking.suite_key`."""
        return suite_key(self.file, self.function, self.cases)


@dataclass(frozen=True)
class Sitting:
    """A suite at a checkpoint."""

    target: Target
    suite: str


@dataclass(frozen=True)
class Ask:
    """One case of one suite, to be asked of one checkpoint by one probe."""

    sitting: Sitting
    probe: Probe
    probe_id: str
    """`file.py::function`, the file relative to the project."""
    case: Case
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
    asks: int = 0
    own_gate: Mapping[str, Any] | None = None
    """The gate written in the probe file."""


class Planner:
    """Answers, for every probe that pytest collects, what is asked of which checkpoint."""

    def __init__(self, targets: Sequence[Target], only: Sequence[str], rootdir: Path) -> None:
        self.targets = targets
        self._only = frozenset(only)
        self._rootdir = rootdir
        self.planned: dict[Sitting, Planned] = {}

    def asks(self, probe: Probe, file: Path, function: str) -> list[Ask]:
        """Everything this probe is asked, by checkpoint, suite and case.

        Raises:
            BadProbe: its gate is none, or contradicts that of another probe of the suite.
        """
        return [
            ask
            for target in self.targets
            for suite, probe_id in self._suites(target, file, function, alone=probe.cases is not None)
            for ask in self._sit(Sitting(target, suite.name), suite, probe, probe_id)
        ]

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
        return planned.suite.gate or (_gate(planned.own_gate) if planned.own_gate is not None else None)

    def _suites(self, target: Target, file: Path, function: str, *, alone: bool) -> list[tuple[Suite, str]]:
        """The suites that this probe belongs to at `target`, each with the probe's id; where no recipe names it and it
        can be asked `alone`, having cases of its own, that is a suite of its own name."""
        found = _suites_of_run(target.run, target, self._rootdir) if target.run else ()
        named = [
            (suite, f"{shown}::{function}")
            for suite, shown in found
            if suite.file == file and suite.function in (None, function)
        ]
        if not named and alone:
            shown = file.relative_to(_root_above(file)).as_posix()
            own = Suite(function.replace("::", "."), file, function, None, None)
            named = [(own, f"{shown}::{function}")]
        return [(suite, probe_id) for suite, probe_id in named if not self._only or suite.name in self._only]

    def _sit(self, sitting: Sitting, suite: Suite, probe: Probe, probe_id: str) -> list[Ask]:
        planned = self.planned.setdefault(sitting, Planned(suite))
        if planned.suite.file != suite.file:
            raise BadProbe(
                f"two probes are named {suite.name}: in {planned.suite.file} and in {suite.file}",
                hint="a probe that no recipe names is a suite of its own name: give them different names",
            )
        if probe.gate is not None:
            if planned.own_gate is not None and planned.own_gate != probe.gate:
                raise BadProbe(f"suite {suite.name} has two gates: {probe_id} has another than {planned.probe_ids[0]}")
            _gate(probe.gate)
            planned.own_gate = probe.gate
        try:
            if sitting.target.problem:
                raise UserError(f"{sitting.target.path}: {sitting.target.problem}")
            cases = _cases(probe, suite)
            asks = [Ask(sitting, probe, probe_id, case) for case in cases]
        except UserError as error:
            unable = "checkpoint" if sitting.target.problem else "cases"
            asks = [Ask(sitting, probe, probe_id, Case(unable, {}), error.screen())]
        planned.probe_ids.append(probe_id)
        planned.asks += len(asks)
        return asks


@cache
def _suites_of_run(run: Run, target: Target, rootdir: Path) -> tuple[tuple[Suite, str], ...]:
    """The run's suites, with the probe file as the recipe writes it. A checkout elsewhere, the one pytest works in,
    is as good as the one the run was made in."""
    roots = dict.fromkeys((run.root, rootdir))
    return tuple(
        (_suite_of_run(run, target, name, suite, root), suite.file.partition("::")[0])
        for root in roots
        for name, suite in run.recipe.probes.items()
    )


def _suite_of_run(run: Run, target: Target, name: str, suite: spec.Suite, root: Path) -> Suite:
    file, _, function = suite.file.partition("::")
    cases = run.folder / "data" / f"{suite.cases}.jsonl" if suite.cases else None
    gated = suite.stages is None or (target.at is not None and target.at.stage in suite.stages)
    return Suite(name, (root / file).resolve(), function or None, cases, suite.gate, gated)


@cache
def _root_above(file: Path) -> Path:
    return project_root(file)


def _gate(written: Mapping[str, Any]) -> spec.Gate:
    try:
        return spec.Gate.model_validate(dict(written))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadProbe(f"gate: {place} {first['msg']}", expected="the keys of gate: in a recipe") from error


def _cases(probe: Probe, suite: Suite) -> tuple[Case, ...]:
    if suite.cases is not None:
        return _from_file(suite.cases.parent, suite.cases.name)
    if probe.cases is None:
        raise BadProbe(
            f"{suite.file.name}::{suite.function or suite.name} has no cases of its own",
            hint="give @probe(cases=…), or ask it in a recipe's suite with cases:",
        )
    if isinstance(probe.cases, str):
        return _from_file(suite.file.parent, probe.cases)
    return _numbered(probe.cases, str(suite.file))


@cache
def _from_file(folder: Path, name: str) -> tuple[Case, ...]:
    try:
        table = sources.read(spec.Data(path=name), "cases", folder)
    except BadData as error:
        # said of a data set of a recipe; here it is the file that a probe names
        problems = (replace(found, message=found.message.removeprefix("data.cases: ")) for found in error.problems)
        raise BadProbe([replace(found, message=f"cases: {found.message}") for found in problems]) from error
    return _numbered([row.values for row in table.rows], str(folder / name))


def _numbered(rows: Sequence[Mapping[str, Any]], source: str) -> tuple[Case, ...]:
    """Cases with their ids, which must differ: a case's verdicts are found again by its id."""
    if not rows:
        raise BadProbe(f"{source}: there are no cases", expected="at least one row")
    found: dict[str, int] = {}
    cases = []
    for number, row in enumerate(rows, 1):
        name = case_id(row)
        if name in found:
            same = "are the same" if dict(row) == dict(rows[found[name] - 1]) else f"share the id {name}"
            raise BadProbe(f"{source}: rows {found[name]} and {number} {same}", expected="distinct cases")
        found[name] = number
        cases.append(Case(name, row))
    return tuple(cases)


def as_json(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A gate from a probe file as it is written to a verdict file."""
    return json.loads(json.dumps(values, default=list))  # type: ignore[no-any-return]
