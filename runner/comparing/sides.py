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
_RUN = "run.json"


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    """What the user wrote, and which checkpoint it means where that does not say it."""
    file: VerdictFile
    forgetting: Forgetting | None = None
    """Of a run with several stages: what the line of its result has kept."""


def find(given: str, where: Path, runs: Path = Path("results")) -> Side:
    """The side that `given` means: a verdict file, a checkpoint with its verdicts, or a run's result checkpoint.

    Args:
        where: the folder that relative paths start from.
        runs: the folder below it whose runs can be given by their names.

    Raises:
        UserError: it is none of them, or was asked nothing.
    """
    path = where / given
    if path.is_file():
        return _side(given, verdicts.read(path))
    folders = (folder for folder in (path, where / runs / given) if (folder / _RUN).is_file())
    if (run := next(folders, None)) is not None:
        return _result_of(given, run)
    if checkpoints.verdict_path(path).is_file():
        return _side(given, verdicts.read(checkpoints.verdict_path(path)))
    if not path.is_dir():
        close = nearest(given, _sides_near(path, given, where / runs))
        raise UserError(
            f"{given}: no such file or folder", expected=_EXPECTED, hint=f"did you mean {close}?" if close else None
        )
    if loadable.is_checkpoint(path) or loadable.NUMBERED.match(path.name):
        raise _nothing_asked(path)
    if inside := loadable.numbered(path):
        named = ", ".join(entry.name for entry in inside)
        raise UserError(f"{given} holds {len(inside)} checkpoints", expected="one of them", hint=f"there are: {named}")
    raise UserError(f"{given} is no checkpoint, and there are no verdicts of it", expected=_EXPECTED)


def _sides_near(path: Path, given: str, runs: Path) -> list[str]:
    """What could have been meant: runs by their names, and folders and verdict files that lie beside."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    names = [entry.name for entry in beside if entry.is_dir() or entry.suffix == ".jsonl"]
    named = (run.parent for pattern in (f"*/{_RUN}", f"*/*/{_RUN}") for run in sorted(runs.glob(pattern)))
    return [*(str(Path(given).with_name(name)) for name in names), *(run.relative_to(runs).as_posix() for run in named)]


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
