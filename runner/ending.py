"""What a run has come to: from its folder to the record that the last screen shows, and the exit code."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner import gate, spec
from runner.console import Ending
from runner.errors import EXIT_GATE_FAILED
from runner.gate import ALPHA, Decision, Flip
from runner.recipe import Loaded
from runner.standings import Checkpoint, Standings
from runner.tables import CheckpointRow, percent

Rows = Sequence[tuple[Checkpoint, Mapping[str, Decision]]]


@dataclass(frozen=True)
class Stopped:
    """A gate ended the whole run."""

    at: Checkpoint
    """Where it is red; this is then shown as the result."""
    why: str


@dataclass(frozen=True)
class Result:
    """The checkpoint that a run has come to, and what its gates say."""

    checkpoint: Checkpoint
    label: str
    """With the reference that means it: `qa@best = qa@96`."""
    baseline: str
    """What it is compared with, or empty."""
    decisions: Sequence[Decision]
    stopped: Stopped | None
    """Where a gate ended the run before its last stage."""
    is_asked: bool = True
    """Whether the suites that the recipe asks there have been (`launch.probing: elsewhere` leaves that to others)."""

    rehearsal: bool = False
    """Whether the run was cut down (`--scale`), and judges no model."""
    broken: tuple[str, ...] = ()
    """The suites some of whose cases could not be judged, at any checkpoint."""

    @property
    def red(self) -> list[Decision]:
        """The decisions that are red."""
        return [decision for decision in self.decisions if decision.green is False]

    @property
    def exit_code(self) -> int:
        """1 where a gate of the result is red, the run was stopped by one or nobody has asked the result, else 0; of a
        rehearsal 1 where a probe broke."""
        if self.rehearsal:
            return EXIT_GATE_FAILED if self.broken else 0
        return EXIT_GATE_FAILED if self.red or self.stopped or not self.is_asked else 0


def broken(standings: Standings) -> tuple[str, ...]:
    """The suites some of whose cases could not be judged: `held_out at qa@96`."""
    return tuple(
        f"{decision.suite} at {checkpoint.label}"
        for checkpoint, by_suite in _rows(standings)
        for decision in by_suite.values()
        if decision.tally.errors
    )


def result_of(loaded: Loaded, standings: Standings) -> Result:
    """What a run that is at its end has come to."""
    recipe = loaded.spec
    stopped = _stopped(recipe, standings)
    wanted = recipe.result.checkpoint if recipe.result else f"{next(reversed(recipe.stages))}@last"
    checkpoint = stopped.at if stopped else standings.resolve(wanted)
    given = recipe.result.baseline if recipe.result and not stopped else None
    baseline = standings.resolve(given) if given else None
    decisions = standings.decisions(checkpoint, baseline)
    label = checkpoint.label if stopped or wanted == checkpoint.label else f"{wanted} = {checkpoint.label}"
    compared = [found.comparison.baseline for found in decisions if found.comparison]
    against = baseline.label if baseline else next(iter(compared), "")
    is_asked = standings.verdicts(checkpoint) is not None or not recipe.asked_at(checkpoint.stage)
    errors = broken(standings) if loaded.rehearsal else ()
    return Result(checkpoint, label, against, decisions, stopped, is_asked, loaded.rehearsal, errors)


def _stopped(recipe: spec.Recipe, standings: Standings) -> Stopped | None:
    for stage in recipe.stages:
        end = standings.end(stage)
        if end is not None and end.keeps is None:
            return Stopped(standings.checkpoints(stage)[end.place], end.why)
    return None


def ending(loaded: Loaded, standings: Standings, run: Path, seconds: Mapping[str, float]) -> Ending:
    """Judge the result, and gather what a reader wants to see at the end.

    Args:
        seconds: where the time of this invocation went.
    """
    recipe = loaded.spec
    rows = _rows(standings)
    losses = standings.losses()
    result = result_of(loaded, standings)
    checkpoint = result.checkpoint
    return Ending(
        rows=[CheckpointRow(found.label, losses.get(found.label), by_suite) for found, by_suite in rows],
        suites=tuple(dict.fromkeys(suite for _, by_suite in rows for suite in by_suite)),
        result_label=result.label,
        result_baseline=result.baseline,
        result=result.decisions,
        ended=_ended(standings, recipe.stages),
        turned=_turned(standings, rows),
        line=[end.label for end in standings.line(checkpoint)],
        forgetting=standings.forgetting(checkpoint),
        also_red=_also_red(rows, checkpoint),
        regressions=_regressions(checkpoint, result.red),
        seconds=seconds,
        commands=_commands(checkpoint, run, loaded),
        stopped=f"stopped at {result.stopped.at.label}: {result.stopped.why}" if result.stopped else "",
        exit_code=result.exit_code,
        rehearsal=_rehearsal(result) if result.rehearsal else "",
    )


def _rehearsal(result: Result) -> str:
    """What there is to say of a run that judges no model."""
    if result.broken:
        return f"a rehearsal (--scale), and it broke: probes raised errors in {', '.join(result.broken)}"
    return "a rehearsal (--scale): everything ran; it judges no model, so its gates have no say in the exit code"


def _rows(standings: Standings) -> Rows:
    rows = []
    for checkpoint in standings.all_checkpoints():
        rows.append((checkpoint, {decision.suite: decision for decision in standings.decisions(checkpoint)}))
    return rows


def _ended(standings: Standings, stages: Iterable[str]) -> list[str]:
    """Which stages ended before their last step or went back, and why."""
    told = []
    for stage in stages:
        end, job = standings.end(stage), standings.job(stage)
        if end is not None and end.keeps is not None and job is not None:
            at = standings.checkpoints(stage)[end.place]
            told.append(f"{stage} ended at step {at.step} of {job.total_steps}: {end.why}")
    return told


def _turned(standings: Standings, rows: Rows) -> list[str]:
    """Where, inside a stage, a gated suite first fell below its best so far by more than chance."""
    sentences = []
    # it is looked for at every checkpoint of every gated suite, so each look must be that much surer
    tests = max(sum(decision.green is not None for _, found in rows for decision in found.values()), 1)
    best: dict[tuple[str, str], tuple[Checkpoint, Decision]] = {}
    told: set[tuple[str, str]] = set()
    for checkpoint, decisions in rows:
        for suite, decision in decisions.items():
            where = (checkpoint.stage, suite)
            rate = decision.tally.rate
            if decision.green is None or rate is None or where in told:
                continue
            if where not in best or rate > (best[where][1].tally.rate or 0):
                best[where] = (checkpoint, decision)
                continue
            top, top_decision = best[where]
            now, before = standings.suite_at(checkpoint, suite), standings.suite_at(top, suite)
            if now and before and gate.compare(now, before).p < ALPHA / tests:
                told.add(where)
                sentences.append(
                    f"{suite} turned at {checkpoint.label}: {percent(top_decision.tally.rate or 0)} at {top.label}, "
                    f"{percent(rate)} here"
                )
    return sentences


def _also_red(rows: Rows, result: Checkpoint) -> list[str]:
    """The other red gates, each at the last checkpoint of a stage that is red: they do not set the exit code."""
    last: dict[tuple[str, str], str] = {}
    for checkpoint, decisions in rows:
        for suite, decision in decisions.items():
            where = (checkpoint.stage, suite)
            if decision.green is False and checkpoint != result:
                last[where] = f"{suite} at {checkpoint.label}: {'; '.join(decision.reasons)}"
            elif decision.green:
                last.pop(where, None)
    return list(last.values())


def _regressions(checkpoint: Checkpoint, red: Sequence[Decision]) -> list[tuple[str, Sequence[Flip]]]:
    return [
        (f"{decision.suite} at {checkpoint.label} against {decision.comparison.baseline}", decision.comparison.lost)
        for decision in red
        if decision.comparison and decision.comparison.lost
    ]


def _commands(checkpoint: Checkpoint, run: Path, loaded: Loaded) -> list[str]:
    """What to type next, relative to where the user is."""
    page = os.path.relpath((run.parent if loaded.variant else run) / "report.html")
    suites = loaded.spec.probes.values()
    if not suites:
        return [f"{page}    (the run as a page)"]
    files = {os.path.relpath(loaded.root / suite.file.partition("::")[0]) for suite in suites}
    folders = sorted({str(Path(file).parent) for file in files})
    one, all_of_them = os.path.relpath(checkpoint.path), os.path.relpath(run)
    asked = " ".join(folders)
    return [
        f"pytest {asked} --ckpt {one}",
        f"pytest {asked} --ckpt {all_of_them}    (every checkpoint of the run)",
        f"{page}    (the run as a page)",
    ]
