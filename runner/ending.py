"""What a run has come to: from its folder to the record that the last screen shows, and the exit code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner import gate
from runner.console import Ending
from runner.errors import EXIT_GATE_FAILED
from runner.gate import ALPHA, Decision, Flip
from runner.recipe import Loaded
from runner.standings import Checkpoint, Standings
from runner.tables import CheckpointRow, percent

Rows = Sequence[tuple[Checkpoint, Mapping[str, Decision]]]


def ending(
    loaded: Loaded, standings: Standings, run: Path, seconds: Mapping[str, float], stopped_at: Checkpoint | None
) -> Ending:
    """Judge the result, and gather what a reader wants to see at the end.

    Args:
        seconds: where the time of this invocation went.
        stopped_at: the checkpoint where a gate ended the run, which is then what is shown as its result.
    """
    recipe = loaded.spec
    rows = _rows(standings)
    losses = standings.losses()
    last_stage = next(reversed(recipe.stages))
    wanted = recipe.result.checkpoint if recipe.result else f"{last_stage}@last"
    checkpoint = stopped_at or standings.resolve(wanted)
    given = recipe.result.baseline if recipe.result and not stopped_at else None
    baseline = standings.resolve(given) if given else None
    decisions = standings.decisions(checkpoint, baseline)
    label = checkpoint.label if stopped_at or wanted == checkpoint.label else f"{wanted} = {checkpoint.label}"
    compared = [found.comparison.baseline for found in decisions if found.comparison]
    red = [decision for decision in decisions if decision.green is False]
    return Ending(
        rows=[CheckpointRow(found.label, losses.get(found.label), by_suite) for found, by_suite in rows],
        suites=tuple(dict.fromkeys(suite for _, by_suite in rows for suite in by_suite)),
        result_label=label,
        result_baseline=baseline.label if baseline else next(iter(compared), ""),
        result=decisions,
        turned=_turned(standings, rows),
        line=[end.label for end in standings.line(checkpoint)],
        forgetting=standings.forgetting(checkpoint),
        also_red=_also_red(rows, checkpoint),
        regressions=_regressions(checkpoint, red),
        seconds=seconds,
        commands=_commands(checkpoint, run, loaded),
        stopped=f"stopped at {stopped_at.label}: a gate with on_fail: stop is red" if stopped_at else "",
        exit_code=EXIT_GATE_FAILED if red or stopped_at else 0,
    )


def _rows(standings: Standings) -> Rows:
    rows = []
    for checkpoint in standings.all_checkpoints():
        rows.append((checkpoint, {decision.suite: decision for decision in standings.decisions(checkpoint)}))
    return rows


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
    suites = loaded.spec.probes.values()
    if not suites:
        return []
    files = {os.path.relpath(loaded.root / suite.file.partition("::")[0]) for suite in suites}
    folders = sorted({str(Path(file).parent) for file in files})
    one, all_of_them = os.path.relpath(checkpoint.path), os.path.relpath(run)
    asked = " ".join(folders)
    return [f"pytest {asked} --ckpt {one}", f"pytest {asked} --ckpt {all_of_them}    (every checkpoint of the run)"]
