"""A checkpoint that cannot vanish while it is asked: its files under a second name, in a folder of their own.

A trainer with `save_total_limit` deletes its older checkpoints whenever it likes. Hard links keep the files, and cost
no space until it does. Nothing is written into the checkpoint's own folder: Trainer tells by its time which is oldest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner import loadable

PREFIX = "_watched-"
"""The folder lies beside the checkpoint, so that a base model that an adapter names relative to itself is found; and
Trainer pushes nothing to the hub that begins so."""


@contextmanager
def held(checkpoint: Path) -> Iterator[Path]:
    """The folder to ask while the block runs; the checkpoint itself where the file system has no hard links.

    Raises:
        FileNotFoundError: the checkpoint, or a file of it, was deleted before all were held.
    """
    folder = checkpoint.with_name(PREFIX + checkpoint.name)
    _remove(folder)
    try:
        yield folder if _link(checkpoint, folder) else checkpoint
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link(checkpoint: Path, folder: Path) -> bool:
    folder.mkdir()
    for file in loadable.files(checkpoint):
        try:
            os.link(file.resolve(strict=True), folder / file.name)
        except FileNotFoundError:
            raise
        except OSError:
            return False
    return True


def release_all(folder: Path) -> None:
    """Delete what a watch that was killed left behind in `folder`."""
    for left in folder.glob(f"{PREFIX}*"):
        _remove(left)


def _remove(folder: Path) -> None:
    """A link, which no watch makes, is removed, and not what it leads to."""
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
