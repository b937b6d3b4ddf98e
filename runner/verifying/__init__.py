"""`recipe verify`: whether the files of a run or of a checkpoint are what was written; nothing is loaded or changed.

Every file that has a digest is read and compared; of every other one it is looked whether it can be read, and whether
it says what files beside it say.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from runner import loadable
from runner.checkpoints import MANIFEST
from runner.errors import UserError
from runner.folder import is_held
from runner.verifying.findings import EXIT_DAMAGED, Finding, Verified, below, looked
from runner.verifying.published import of_checkpoint, of_foreign, of_verdicts
from runner.verifying.run_files import of_json, of_run
from runner.verifying.screen import screen

__all__ = ["EXIT_DAMAGED", "Finding", "Verified", "screen", "verify"]

_DIGESTING = min(os.cpu_count() or 1, 8)
"""Checkpoints that are read at a time."""


def verify(folder: Path) -> Verified:
    """Look at every file of a run, of the runs of a matrix, or of one checkpoint.

    A run may be written meanwhile: what seems damaged is then looked at once more, and is damaged if it still seems so.

    Raises:
        UserError: it is none of them.
    """
    runs = [found.parent for found in (folder / "run.json", *sorted(folder.glob("*/run.json"))) if found.is_file()]
    if not runs and not loadable.is_checkpoint(folder) and not (folder / MANIFEST).is_file():
        raise UserError(
            f"{folder} is neither a run nor a checkpoint",
            expected="a folder with run.json, or with the files of a model",
            hint=None if folder.is_dir() else "there is no such folder",
        )
    was_held = any(is_held(run) for run in runs)
    found = _look(folder, runs)
    if not found.damages or not (was_held or any(is_held(run) for run in runs)):
        return found
    again = _look(folder, runs)
    kept = tuple(one for one in again.findings if not one.is_damage or one in found.findings)
    return Verified(folder, again.checkpoints, again.verdict_files, again.size_bytes, kept)


def _look(folder: Path, runs: Sequence[Path]) -> Verified:
    files = list(below(folder))
    # `data/` has a manifest too, of other things; a checkpoint may have lost any of its files
    described = [path.parent for path in files if path.name == MANIFEST]
    manifests = [one for one in described if loadable.is_checkpoint(one) or loadable.NUMBERED.match(one.name)]
    found: list[Finding] = []
    with ThreadPoolExecutor(_DIGESTING, "digests") as pool:
        for damages in pool.map(partial(looked, of_checkpoint), manifests):
            found += damages
    if not runs:
        found += of_foreign(folder)
    asked = [path for path in files if path.parent.name == "probes" and path.suffix == ".jsonl"]
    for path in asked:
        found += looked(of_verdicts, path)
    for run in runs:
        found += looked(of_run, run)
    digested = set(manifests)
    found += of_json((path for path in files if path.parent not in digested), folder)
    size = 0
    for path in files:
        if path.parent in digested:
            with suppress(FileNotFoundError):
                size += path.stat().st_size
    return Verified(folder, len(manifests), len(asked), size, tuple(dict.fromkeys(found)))
