"""Stages that several variants of a recipe have in common: trained in the first, taken over by the others.

What makes two stages one is the key of their jobs, which digests everything their weights depend on. What is taken over
is complete in the other variant's folder, so that probing by hand, resuming, moving aside and deleting know nothing of
it; weights are hard links to the same bytes, which nothing ever changes, or copies where the file system has no links.
A stage that its probes ended early there brings its state with it, and goes on here where they do not end it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from runner import checkpoints, diverging, jobs
from runner.errors import UserError
from runner.loadable import BASE


def find(run: Path, stage: str, key: str) -> Path | None:
    """The folder of a stage of this key that ended in another variant of the recipe, or None.

    Args:
        run: the folder of a variant; its siblings are those beside it.
    """
    # the one that began first has most likely trained it
    for sibling in (
        path.parent for path in sorted(run.parent.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    ):
        if sibling == run:
            continue
        try:
            job = jobs.read(sibling / stage)
        except UserError:
            continue  # its own run will say that it is damaged
        if (
            job is not None
            and job.key == key
            and job.state != "running"
            and any(checkpoints.published(sibling / stage))
        ):
            return sibling / stage
    return None


def take_over(twin: Path, run: Path) -> bool:
    """Put the stage at `twin` into `run`, whole or not at all; False where it was moved away meanwhile.

    The losses that its trainer recorded come with it, and so do the verdicts: suites that this variant asks otherwise
    are asked again.
    """
    made = run / f".{twin.name}.{os.getpid()}"
    shutil.rmtree(made, ignore_errors=True)
    events = twin.parent / "events" / f"train-{twin.name}.jsonl"
    try:
        saved = [mark.parent for mark in twin.glob("state/checkpoint-*/complete.json")]
        for folder in saved:
            shutil.copytree(folder, made / "state" / folder.name, copy_function=_link_or_copy)
        for _, folder in checkpoints.published(twin):
            shutil.copytree(folder, made / folder.name, copy_function=_link_or_copy)
        if (twin / BASE).is_dir():  # its adapters name it by its place beside them
            shutil.copytree(twin / BASE, made / BASE, copy_function=_link_or_copy)
        for file in [twin / "stage.json", *twin.glob(diverging.FILE), *twin.glob("probes/*.jsonl")]:
            (made / file.relative_to(twin)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, made / file.relative_to(twin))
        told = events.read_bytes() if events.exists() else b""
    except (FileNotFoundError, shutil.Error):
        shutil.rmtree(made, ignore_errors=True)
        return False
    with (run / "events" / events.name).open("ab") as journal:
        journal.write(told)
    made.replace(run / twin.name)
    return True


def remove_unfinished(run: Path, stage: str) -> None:
    """Delete what a killed command left half taken over."""
    for folder in run.glob(f".{stage}.[0-9]*"):
        shutil.rmtree(folder)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
