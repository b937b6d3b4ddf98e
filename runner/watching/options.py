"""What `recipe watch` is told, and what of it cannot be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner import loadable
from runner.errors import BadProbe, UserError, nearest
from runner.spec.probes import Suite
from runner.watching.arrivals import GIVEN_UP_S, SETTLE_S

TIMEOUT_S: float = Suite.model_fields["timeout_s"].default
"""As long as a recipe gives a suite of which it says nothing else."""


@dataclass(frozen=True)
class Options:
    """The arguments of one call."""

    folder: Path
    probes: Sequence[str]
    """Probe files and folders of them, as pytest takes them; none for a run of a recipe, which has its own."""
    suites: Sequence[str] = ()
    """Only these, if any."""
    baseline: str | None = None
    """A checkpoint or a verdict file."""
    once: bool = False
    """End after what is there."""
    idle_s: float | None = None
    """End when no checkpoint came for so long."""
    timeout_s: float | None = None
    """How long a checkpoint may be asked, by all of `probes` together; where nothing is said, `TIMEOUT_S`."""
    settle_s: float = SETTLE_S
    given_up_s: float = GIVEN_UP_S


def check(options: Options) -> None:
    """Refuse what is no output folder of another trainer, before anything is started.

    Raises:
        UserError: the folder cannot be watched, or there are no such probes.
    """
    folder = options.folder
    if options.once and not folder.is_dir():
        beside = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        close = nearest(folder.name, beside)
        raise UserError(
            f"{folder}: no such folder",
            hint=f"did you mean {folder.with_name(close)}?" if close else "without --once it is waited for",
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file", expected="the output folder of a trainer")
    if not options.probes:
        _check_run(options)
        return
    run = next((parent for parent in (folder, folder.resolve().parent) if (parent / "run.json").is_file()), None)
    if run is not None:
        raise UserError(
            f"{folder} belongs to a run of a recipe",
            hint="recipe run probes its checkpoints; where that says launch.probing: elsewhere, "
            f"recipe watch {os.path.relpath(run)} does, with the suites of its recipe and without --probes",
        )
    if loadable.NUMBERED.match(folder.resolve().name) and folder.is_dir() and not loadable.numbered(folder):
        raise UserError(
            f"{folder} is a checkpoint", expected="the folder it is in", hint=f"recipe watch {folder.parent}"
        )
    for given in options.probes:
        if not Path(given.partition("::")[0]).exists():
            raise BadProbe(f"--probes {given}: no such file or folder")


def _check_run(options: Options) -> None:
    folder = options.folder
    if (folder.resolve().parent / "run.json").is_file():
        raise UserError(f"{folder} is a stage of a run", hint=f"recipe watch {os.path.relpath(folder.parent)}")
    variants = sorted(found.parent.name for found in folder.glob("*/run.json"))
    if variants:
        raise UserError(
            f"{folder} holds the runs of several variants",
            expected="one of them",
            hint=f"recipe watch {folder / variants[0]}",
        )
    if folder.exists() and not (folder / "run.json").is_file() and not (folder / "lock").is_file():
        raise UserError(
            f"{folder} is not the folder of a run",
            expected="--probes PATH: what is asked of the checkpoints of another trainer",
        )
    of_others = {"--suite": options.suites, "--baseline": options.baseline, "--timeout": options.timeout_s}
    for name, given in of_others.items():
        if given:
            raise UserError(f"{name} belongs to --probes", hint="a run is asked the suites of its recipe")
