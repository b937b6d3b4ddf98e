"""The runs of a project at a glance (`recipe list`), and the last screen of any of them (`recipe show`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from runner import jobs
from runner.console import ending_screen
from runner.ending import Result, ending, result_of
from runner.errors import EXIT_GATE_FAILED, UserError, nearest
from runner.events import Finished, Follower, Probed
from runner.folder import is_held
from runner.recipe import Loaded
from runner.standings import Standings, open_run
from runner.tables import BAD, DIM, GOOD, MARK, CheckpointRow, matrix, percent, said

RUN = "run.json"


@dataclass(frozen=True)
class Listed:
    """A run in the list."""

    name: str
    """Of its folder, below the folder that was listed."""
    state: str
    """`running`, `done`, `stopped`, `qa at step 40 of 96`, or what is wrong with it."""
    result: Result | None
    """None while no checkpoint is there that could be it."""
    best: str
    """The result's rate in the suite that chooses `@best`; empty where none does."""
    fault: bool = False
    """Whether its files cannot be read."""


def listed(folder: Path) -> list[Listed]:
    """Every run in a folder, variants of a matrix among them, in the order of their names.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", expected="the folder that runs are written to")
    found = [path.parent for pattern in (RUN, f"*/{RUN}", f"*/*/{RUN}") for path in folder.glob(pattern)]
    return [_listed(path, path.relative_to(folder).as_posix()) for path in sorted(found)]


def _listed(run: Path, name: str) -> Listed:
    try:
        opened = open_run(run)
        loaded, state = opened.loaded, _state(opened.loaded, run)
        try:
            result = result_of(loaded, opened.standings)
        except UserError:
            result = None  # it has not come so far
    except UserError as error:
        return Listed(name, said(error.problems[0].message), None, "", fault=True)
    best = next((one for one in result.decisions if one.suite == loaded.spec.best), None) if result else None
    rate = best.tally.rate if best else None
    return Listed(name, state, result, f"{best.suite} {percent(rate)}" if best and rate is not None else "")


def _state(loaded: Loaded, run: Path) -> str:
    if is_held(run):
        return "running"
    for name in loaded.spec.stages:
        job = jobs.read(run / name)
        if job is None:
            return f"{name} is to come"
        if job.state == "stopped":
            return f"stopped in {name}"
        if job.state != "done":
            steps = [int(path.parent.name.split("-")[1]) for path in (run / name / "state").glob("*/complete.json")]
            return f"{name} at step {max(steps, default=0)} of {job.total_steps}"
    return "done"


def list_screen(runs: Sequence[Listed]) -> RenderableType:
    """A line per run."""
    table = Table(box=None, padding=(0, 1), header_style=DIM, pad_edge=False)
    for title in ("run", "state", "result", "best", "gates"):
        table.add_column(title, overflow="fold")
    for one in runs:
        label = one.result.label.rpartition(" = ")[2] if one.result else ""
        table.add_row(
            Text(said(one.name), style=MARK), Text(one.state, style=BAD if one.fault else ""), Text(label),
            Text(one.best), _gates(one.result),
        )  # fmt: skip
    return table


def _gates(result: Result | None) -> Text:
    if result is None:
        return Text("")
    if not result.is_asked:
        return Text("not judged", style=BAD)
    if result.rehearsal:
        return Text("✗ rehearsal broke", style=BAD) if result.broken else Text("· rehearsal", style=DIM)
    judged = [decision for decision in result.decisions if decision.green is not None]
    red = [decision.suite for decision in judged if decision.green is False]
    if result.stopped:
        return Text("✗ stopped", style=BAD)
    if red:
        return Text(f"✗ {', '.join(red)}", style=BAD)
    return Text(f"✓ {len(judged)} green", style=GOOD) if judged else Text("· none", style=DIM)


def find(named: Path, runs: Path) -> Path:
    """The folder of a run by its path, or by its name among `runs`.

    Raises:
        UserError: there is none.
    """
    for path in (named, runs / named):
        if (path / RUN).is_file():
            return path
    names = [path.parent.relative_to(runs).as_posix() for pattern in (f"*/{RUN}", f"*/*/{RUN}")
             for path in sorted(runs.glob(pattern))]  # fmt: skip
    close = nearest(named.name, names)
    below = [name for name in names if name.startswith(f"{named.name}/")]
    hint = f"its variants are {', '.join(below)}" if below else f"did you mean {close}?" if close else None
    raise UserError(f"{named} is not the folder of a run", expected="a run: recipe list shows them", hint=hint)


def folder_of(named: Path, runs: Path) -> Path:
    """The same of what may also be the folder of a matrix, or of nothing that was listed: a folder is what it is.

    Raises:
        UserError: there is none.
    """
    return next((path for path in (named, runs / named) if path.is_dir()), None) or find(named, runs)


def show(run: Path, console: Console) -> int:
    """The last screen of a run as it stands now; gives its exit code, 1 where there is no result yet."""
    opened = open_run(run)
    loaded, standings = opened.loaded, opened.standings
    try:
        is_asked, why = result_of(loaded, standings).is_asked, ""
    except UserError as error:
        is_asked, why = False, error.problems[0].message
    if not is_asked:
        console.print(_so_far(loaded, standings, run, why))
        return EXIT_GATE_FAILED
    last = ending(loaded, standings, run, _seconds(run))
    console.print(ending_screen(last))
    return last.exit_code


def _so_far(loaded: Loaded, standings: Standings, run: Path, why: str) -> RenderableType:
    """A run without a result: what was asked, how far it is, and what goes on from there."""
    losses = standings.losses()
    rows = [
        CheckpointRow(one.label, losses.get(one.label), {found.suite: found for found in standings.decisions(one)})
        for one in standings.all_checkpoints()
    ]
    suites = tuple(dict.fromkeys(suite for row in rows for suite in row.decisions))
    state = _state(loaded, run)
    if state == "done":
        last = f"trained, and not judged: recipe watch {os.path.relpath(run)} asks; then recipe run judges"
    else:
        last = f"{state}: the same recipe run goes on from there" if state != "running" else "running"
    parts: list[RenderableType] = [matrix(rows, suites), Text()] if rows else []
    if why:
        parts.append(Text(said(why, 400), style=DIM))
    return Group(*parts, Text(last), Text("not judged: exit code 1", style=f"bold {BAD}"))


def _seconds(run: Path) -> dict[str, float]:
    """Where the time of all of its invocations went."""
    training = generating = 0.0
    for path in sorted((run / "events").glob("*.jsonl")):
        for stamped in Follower(path).new():
            if isinstance(stamped.event, Finished):
                training += stamped.event.training_s
            elif isinstance(stamped.event, Probed):
                generating += stamped.event.generation_s
    return {"training": training, "generating": generating}
