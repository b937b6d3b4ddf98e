"""What a report shows of a run, read from the run's folder: nothing is asked, nothing is written."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner import spec
from runner.ending import Result, result_of
from runner.errors import UserError
from runner.events import Follower, Logged, Started
from runner.folder import RunRecord
from runner.forgetting import Forgetting
from runner.gate import Decision
from runner.jobs import Job
from runner.recipe import Loaded
from runner.standings import Checkpoint, Standings, open_run
from runner.verdicts import VerdictFile

RUN = "run.json"


@dataclass(frozen=True)
class At:
    """A checkpoint of the report."""

    label: str
    stage: str
    step: int
    x: int
    """Steps since the first stage began, those of the stages before it included."""
    loss: float | None
    decisions: Mapping[str, Decision]
    """By suite."""
    file: VerdictFile | None
    """None where nothing was asked."""


@dataclass(frozen=True)
class Point:
    """What a trainer recorded at a step."""

    x: int
    """As of `At`."""
    logged: Logged


@dataclass(frozen=True)
class Stage:
    """A stage on the common axis of steps."""

    name: str
    kind: str
    begins: int
    """Where its step 0 lies on the axis."""
    points: Sequence[Point]
    started: Started | None
    """What it was last trained with."""
    job: Job | None
    """None where it has not begun."""


@dataclass(frozen=True)
class Run:
    """A run, as far as it has come."""

    name: str
    """`zhdict_dpo`, of a variant `zhdict_forgetting/replay`; its folder besides where another has the same name."""
    short: str
    """What tells it apart from those beside it: of the variants of one recipe, `replay`; otherwise its name."""
    folder: Path
    record: RunRecord
    recipe: spec.Recipe
    recipe_text: str
    stages: Sequence[Stage]
    checkpoints: Sequence[At]
    result: Result | None
    """None where no checkpoint is there yet that could be it."""
    baseline: str
    """The checkpoint that the recipe compares its result with, `qa@96`; empty where it names none, or none is there."""
    forgetting: Forgetting | None
    """What the stages up to the result have kept; None where no suite was asked at the end of two."""
    unfinished: str
    """Why there is no result; empty where there is one."""
    rows: Mapping[str, Mapping[str, Any]]
    """What became of the rows of each data set, as `data/manifest.json` has it."""

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites that were asked anywhere, in the order they were first."""
        return tuple(dict.fromkeys(suite for at in self.checkpoints for suite in at.decisions))


def runs_at(folder: Path) -> list[Path]:
    """The run folder itself, or the runs of the variants in it, in the order of the recipe's matrix.

    Raises:
        UserError: it is neither.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", expected="the folder of a run, results/NAME")
    if (folder / RUN).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{RUN}"))
    if not found:
        raise UserError(
            f"{folder} is not the folder of a run: it has no {RUN}",
            expected="a folder that recipe run wrote, results/NAME",
        )
    order = _variants(folder / "matrix.json")
    return sorted(found, key=lambda path: (order.index(path.name) if path.name in order else len(order), path.name))


def _variants(path: Path) -> list[str]:
    """Those of a table of variants, in the order of the recipe; none where there is no table yet."""
    if not path.is_file():
        return []
    try:
        return [row["variant"] for row in json.loads(path.read_text(encoding="utf-8"))["variants"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error})", hint="remove it: recipe run writes it again"
        ) from error


def gather_all(folders: Sequence[Path]) -> list[Run]:
    """Read the runs of these folders, those of variants too, each once; their names tell them apart.

    Raises:
        UserError: a folder is not one of a run, or a file of it is damaged.
    """
    found = {path.resolve(): path for folder in folders for path in runs_at(folder)}
    runs = [gather(path) for path in found.values()]
    names = Counter(run.name for run in runs)
    if len(runs) == len(names) and len({run.record.recipe for run in runs}) == 1:
        return [replace(run, short=run.record.variant or run.name) for run in runs]
    above = os.path.commonpath(found)
    told = [
        f"{run.name} ({path.relative_to(above)})" if names[run.name] > 1 else run.name
        for path, run in zip(found, runs, strict=True)
    ]
    return [replace(run, name=name, short=name) for run, name in zip(runs, told, strict=True)]


def gather(folder: Path) -> Run:
    """Read a run.

    Raises:
        UserError: the folder is not one of a run, or a file of it is damaged.
    """
    opened = open_run(folder)
    record, resolved, standings = opened.record, opened.loaded.spec, opened.standings
    stages, begins = [], 0
    for name, stage in resolved.stages.items():
        job = standings.job(name)
        stages.append(_stage(folder, name, stage.kind, begins, job))
        last = max((point.logged.step for point in stages[-1].points), default=0)
        begins += max(job.total_steps if job else 0, last)
    losses = standings.losses()
    places = {stage.name: stage.begins for stage in stages}
    found = [_at(one, places[one.stage], losses.get(one.label), standings) for one in standings.all_checkpoints()]
    result, why = _result(opened.loaded, standings)
    name = "/".join(part for part in (record.recipe, record.variant) if part)
    return Run(
        name=name,
        short=name,
        folder=folder,
        record=record,
        recipe=resolved,
        recipe_text=opened.loaded.path.read_text(encoding="utf-8"),
        stages=stages,
        checkpoints=found,
        result=result,
        baseline=_baseline(resolved, standings),
        forgetting=standings.forgetting(result.checkpoint) if result else None,
        unfinished=why,
        rows=_rows(folder),
    )


def _stage(folder: Path, name: str, kind: str, begins: int, job: Job | None) -> Stage:
    """Its recorded losses; what was recorded beyond a step that it was resumed or begun again from is left out."""
    points: dict[int, Point] = {}
    started = None
    for stamped in Follower(folder / "events" / f"train-{name}.jsonl").new():
        event = stamped.event
        if isinstance(event, Started):
            started = event
            points = {step: point for step, point in points.items() if step <= event.step}
        elif isinstance(event, Logged):
            points[event.step] = Point(begins + event.step, event)
    return Stage(name, kind, begins, [points[step] for step in sorted(points)], started, job)


def _at(one: Checkpoint, begins: int, loss: float | None, standings: Standings) -> At:
    decisions = {decision.suite: decision for decision in standings.decisions(one)}
    return At(one.label, one.stage, one.step, begins + one.step, loss, decisions, standings.verdicts(one))


def _result(loaded: Loaded, standings: Standings) -> tuple[Result | None, str]:
    try:
        return result_of(loaded, standings), ""
    except UserError as error:  # a run that has not come so far is shown as far as it came
        return None, error.problems[0].message


def _baseline(resolved: spec.Recipe, standings: Standings) -> str:
    if resolved.result is None or resolved.result.baseline is None:
        return ""
    try:
        found = standings.resolve(resolved.result.baseline)
    except UserError:  # not trained yet, or of another run, which is no row of the matrix
        return ""
    return found.label


def _rows(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    path = folder / "data" / "manifest.json"
    if not path.is_file():
        return {}
    try:
        found: Mapping[str, Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8")).get("rows", {})
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    return found
