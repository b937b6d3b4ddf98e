"""Checkpoints and verdicts: what has digests, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runner import checkpoints, loadable, verdicts
from runner.checkpoints import MANIFEST
from runner.errors import UserError
from runner.verifying.findings import Finding, reason


def of_checkpoint(folder: Path) -> list[Finding]:
    """Whether every file has the digest that its manifest says."""
    try:
        manifest = checkpoints.read_manifest(folder)
        found = [Finding(one.path, one.found, checkpoints.RESTORE, one.expected) for one in checkpoints.damage(folder)]
    except UserError as error:
        return [Finding(folder / MANIFEST, reason(error, folder / MANIFEST), checkpoints.RESTORE)]
    if folder.name.startswith("ckpt-") and (folder.parent.name, folder.name) != (
        manifest.stage,
        f"ckpt-{manifest.step}",
    ):
        found.append(Finding(folder, f"is {manifest.label} by its manifest", "give it its own name again"))
    return found


def of_foreign(folder: Path) -> Iterator[Finding]:
    """A checkpoint outside a run: of one that another trainer wrote only what its files show."""
    if problem := loadable.problem(folder):
        what, _, hint = problem.partition("\n    hint: ")
        yield Finding(folder, what, hint or "restore it from a copy")
    elif not (folder / MANIFEST).is_file():
        yield Finding(folder, "has no manifest.json: there are no digests to compare with", is_damage=False)


def of_verdicts(path: Path) -> Iterator[Finding]:
    """Whether a file of verdicts can be read, and is about the checkpoint beside it."""
    again = "move it away: recipe run asks this checkpoint again; every other one keeps its verdicts"
    try:
        file = verdicts.read(path)
    except UserError as error:
        yield Finding(path, reason(error, path), again)
        return
    checkpoint = path.parent.parent / path.stem
    if (checkpoint / MANIFEST).is_file():
        try:
            weights = checkpoints.read_manifest(checkpoint).weights_sha256
        except UserError:
            return  # which is told of the checkpoint
        if file.weights_sha256 and file.weights_sha256 != weights:
            yield Finding(path, "is about other weights than the checkpoint beside it", again, f"SHA-256 {weights}")
    else:
        yield Finding(path, f"is about {path.stem}, which is not there", is_damage=False)
    for asked in file.suites:
        if (rows := len(file.of(asked.suite))) != asked.cases:
            yield Finding(path, f"has {rows} verdicts of suite {asked.suite}", again, str(asked.cases))
