"""Running the variants of a recipe one after the other, with one host, into one table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from runner import launch
from runner import run as running
from runner.console import waiting
from runner.ending import result_of
from runner.errors import FolderTaken
from runner.folder import BEFORE_A_RUN, check_inside, read_run
from runner.hosting import Hosting
from runner.matrix import records
from runner.matrix.records import Found, Table
from runner.matrix.screen import table_screen
from runner.nodes import ALONE, Node
from runner.preparation import HostedLook, Prepared, check_here, states
from runner.progress import Screen
from runner.recipe import Loaded
from runner.standings import Standings


def run(
    variants: Sequence[Loaded], out: Path, console: Console, *, only_as_locked: bool = False, node: Node = ALONE
) -> int:
    """Run every variant into `out/VARIANT`, and show the table of all; 1 where the result of any is red.

    One variant alone is run without a table.

    Raises:
        UserError: something cannot be done in one of them; raised before anything trains.
        TrainingFailed: a child died; what was won is kept.
        Interrupted: state is saved, the same call resumes.
    """
    claim(out, variants[0])
    prepared = [Prepared(loaded, out / loaded.variant) for loaded in variants]
    with waiting(console):
        unfinished = _checked(prepared, only_as_locked=only_as_locked)
    if unfinished or not (out / records.NAME).exists():
        out.mkdir(parents=True, exist_ok=True)
        records.write(out, variants[0].spec.recipe, _path(variants[0]), None)
    digest = running.digest_of(variants)
    with running.hosting_of(variants, prepared[0].run / "events" / "host.log", node) as hosting:
        if unfinished:
            log = prepared[0].run / "events" / "look.log"
            host = hosting.start(launch.TRAINER)
            with waiting(console), HostedLook(host, [one.loaded for one in unfinished], log) as look:
                for number in range(len(unfinished)):
                    look.seen(number).check()
        codes = [_run(one, console, hosting, out, digest) for one in prepared]
    if len(variants) < 2 or any(running.unasked(one) for one in prepared):  # each has said what is left to ask
        return max(codes)
    table = of_runs(prepared)
    records.write(out, table.recipe, _path(variants[0]), table)
    console.print(table_screen(table))
    return table.exit_code


def _checked(prepared: Sequence[Prepared], *, only_as_locked: bool) -> list[Prepared]:
    """The variants that have something left to train; nothing is wrong with any."""
    for one in prepared:
        running.check_free(one)
        check_here(one)
        if only_as_locked:
            running.check_locked(one)
    unfinished = [one for one in prepared if any(state != "done" for state in states(one).values())]
    for one in unfinished:
        one.check_steps()
        one.check_leaks()
    return unfinished


def _run(prepared: Prepared, console: Console, hosting: Hosting, out: Path, digest: str) -> int:
    console.print(Text.assemble(("variant ", ""), (prepared.loaded.variant, "bold")))
    code = running.run_prepared(prepared, Screen(console), hosting, out, digest)
    console.print()
    return code


def of_runs(prepared: Sequence[Prepared]) -> Table:
    """The table of variants that ran to their end, from their folders."""
    found = []
    for one in prepared:
        standings = Standings(one.recipe, one.run, read_run(one.run).looks)
        result = result_of(one.loaded, standings)
        file = standings.verdicts(result.checkpoint)
        asked = {decision.suite: file.of(decision.suite) for decision in result.decisions} if file else {}
        why = result.stopped.why if result.stopped else ""
        found.append(Found(one.loaded.variant, result.label, why, result.exit_code, result.decisions, asked))
    return records.compare(prepared[0].recipe.recipe, found)


def claim(out: Path, loaded: Loaded) -> None:
    """Refuse a folder that is not this recipe's, nor free.

    Raises:
        FolderTaken: it is another one's, or what is written there would land outside of it.
    """
    if not out.exists():
        return
    hint = "move it away, or give another folder with --out; nothing was written"
    if not out.is_dir():
        raise FolderTaken(f"{out} is a file, and a run needs a folder", hint=hint)
    check_inside(out)
    if (out / "run.json").exists():
        raise FolderTaken(f"{out} is the folder of a run without variants", hint=hint)
    if (out / records.NAME).exists():
        before = records.read(out)
        if (before["recipe"], before["recipe_path"]) != (loaded.spec.recipe, _path(loaded)):
            raise FolderTaken(
                f"{out} belongs to the recipe {before['recipe']!r} of {before['recipe_path']}",
                expected=f"the folder of {loaded.spec.recipe!r} of {_path(loaded)}",
                hint=hint,
            )
        return
    files = (path.name for path in out.iterdir() if not path.name.startswith("."))
    others = sorted(name for name in files if name not in BEFORE_A_RUN)
    if others:
        raise FolderTaken(
            f"{out} is not empty and is not the folder of a recipe with variants (it holds {others[0]!r}, "
            f"but no {records.NAME})",
            hint=hint,
        )


def _path(loaded: Loaded) -> str:
    return os.path.relpath(loaded.path, loaded.root)
