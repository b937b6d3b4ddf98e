"""What `recipe compare` is given: a checkpoint, a run or a verdict file, each as the verdicts it stands for."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from runner import checkpoints, loadable, verdicts
from runner.errors import BadCheckpoint, UserError, nearest
from runner.forgetting import Forgetting
from runner.standings import open_run
from runner.verdicts import VerdictFile

_EXPECTED = "a checkpoint, the folder of a run, or a verdict file"


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    """What the user wrote, and which checkpoint it means where that does not say it."""
    file: VerdictFile
    forgetting: Forgetting | None = None
    """Of a run with several stages: what the line of its result has kept."""


def find(given: str, where: Path) -> Side:
    """The side that `given` means: a verdict file, a checkpoint with its verdicts, or a run's result checkpoint.

    Args:
        where: the folder that relative paths start from.

    Raises:
        UserError: it is none of them, or was asked nothing.
    """
    path = where / given
    if path.is_file():
        return _side(given, verdicts.read(path))
    if (path / "run.json").is_file():
        return _result_of(given, path)
    if checkpoints.verdict_path(path).is_file():
        return _side(given, verdicts.read(checkpoints.verdict_path(path)))
    if not path.is_dir():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = nearest(path.name, beside)
        meant = f"did you mean {Path(given).with_name(close)}?" if close else None
        raise UserError(f"{given}: no such file or folder", expected=_EXPECTED, hint=meant)
    if loadable.is_checkpoint(path) or loadable.NUMBERED.match(path.name):
        raise _nothing_asked(path)
    if inside := loadable.numbered(path):
        named = ", ".join(entry.name for entry in inside)
        raise UserError(f"{given} holds {len(inside)} checkpoints", expected="one of them", hint=f"there are: {named}")
    raise UserError(f"{given} is no checkpoint, and there are no verdicts of it", expected=_EXPECTED)


def _side(given: str, file: VerdictFile, forgetting: Forgetting | None = None) -> Side:
    told = Path(file.ckpt).name
    return Side(given if told in given else f"{given} ({file.ckpt})", file, forgetting)


def _result_of(given: str, run: Path) -> Side:
    """The checkpoint that a run's result is about; without `result:` the last one of the last stage."""
    opened = open_run(run)
    made, standings = opened.loaded.spec, opened.standings
    wanted = made.result.checkpoint if made.result else f"{next(reversed(made.stages))}@last"
    checkpoint = standings.resolve(wanted)
    file = standings.verdicts(checkpoint)
    if file is None:
        raise _nothing_asked(checkpoint.path)
    return _side(given, file, standings.forgetting(checkpoint))


def _nothing_asked(checkpoint: Path) -> BadCheckpoint:
    written = f"{checkpoint.resolve().name}.jsonl"
    here = shlex.quote(os.path.relpath(checkpoint))
    verdict_path = os.path.relpath(checkpoints.verdict_path(checkpoint))
    return BadCheckpoint(
        f"{os.path.relpath(checkpoint)} has no verdicts: there is no {verdict_path}",
        hint=f"ask it, and compare {written}: pytest probes --ckpt {here} --probe-verdicts {written}",
    )
