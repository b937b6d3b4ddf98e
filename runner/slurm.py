"""`recipe run FILE --slurm`: the script that runs a recipe on a Slurm cluster, and handing it in."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner import spec
from runner.atomic import publish_text
from runner.errors import UserError

NAME = "run.sbatch"
WARNING_S = 120
"""Seconds before its time is up that a job is told to save."""


@dataclass(frozen=True)
class Script:
    """A script that can be handed in."""

    path: Path
    text: str

    def write(self) -> None:
        """Put it where it belongs."""
        publish_text(self.path, self.text)


def script_of(recipe: spec.Recipe, folder: Path, command: Sequence[str]) -> Script:
    """The script for a recipe; nothing is written.

    Args:
        recipe: of its `launch:` block.
        folder: of the command's results; the script and its logs lie in `slurm/`.
        command: the arguments of `recipe` that each node is to be called with, from the current folder.
    """
    how = recipe.launch
    slurm = how.slurm or spec.Slurm()
    place = folder / "slurm"
    lines = [
        "#!/bin/bash",
        "# Written by recipe run --slurm. It can be read, changed, and handed in again: sbatch " + _short(place / NAME),
        "",
        *_options(recipe, slurm, how, place),
        "",
        "# what every node needs first",
        *(slurm.setup or (f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",)),
        "",
        "# One task of each node; it starts the node's processes, and node 0 leads. A run that was interrupted goes on",
        "# from the state it saved, so the same script is right for the first time and for every other.",
        *((f"export SRUN_CPUS_PER_TASK={slurm.cpus_per_task}",) if slurm.cpus_per_task else ()),
        f"srun {shlex.join(['recipe', *command])}",
        "code=$?",
        *(_REQUEUE if slurm.requeue else ()),
        "exit $code",
    ]
    return Script(place / NAME, "\n".join(lines) + "\n")


_REQUEUE = (
    "",
    "# 130: the run was told to stop, because of the time limit or of another job, and has saved its state",
    "# (143: it was told before it had any). It is put into the queue again, and goes on from there.",
    "# scancel is no such case: it ends this script too.",
    'if [ "$code" -eq 130 ] || [ "$code" -eq 143 ]; then',
    '    scontrol requeue "$SLURM_JOB_ID"',
    "fi",
)


def _options(recipe: spec.Recipe, slurm: spec.Slurm, how: spec.Launch, place: Path) -> Iterator[str]:
    gpus = slurm.gpus_per_node if slurm.gpus_per_node is not None or how.processes == "auto" else how.processes
    named: dict[str, str | int | None] = {
        "job-name": recipe.recipe,
        "chdir": str(Path.cwd()),
        "output": str(place / "%j.log"),
        "open-mode": "append",
        "nodes": how.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": gpus or None,  # see `asks_for_no_gpus`
        "cpus-per-task": slurm.cpus_per_task,
        "mem": slurm.mem,
        "time": slurm.time,
        "partition": slurm.partition,
        "account": slurm.account,
    }
    for name, value in named.items():
        if value is not None:
            yield f"#SBATCH --{name}={shlex.quote(str(value))}"
    for name, option in slurm.options.items():
        if option is True:
            yield f"#SBATCH --{name}"
        elif option is not False:
            yield f"#SBATCH --{name}={shlex.quote(str(option))}"
    yield f"# {WARNING_S} s before its time is up the run is told to save its state"
    yield f"#SBATCH --signal=TERM@{WARNING_S}"
    yield "#SBATCH --requeue" if slurm.requeue else "#SBATCH --no-requeue"


def asks_for_no_gpus(recipe: spec.Recipe) -> bool:
    """Whether a job would see no device, though nobody has said that it is to train on CPUs."""
    slurm = recipe.launch.slurm or spec.Slurm()
    return recipe.launch.processes == "auto" and slurm.gpus_per_node is None and "gpus" not in slurm.options


def submit(script: Script) -> str:
    """Write the script and hand it in; what to say about it.

    Raises:
        UserError: there is no sbatch here, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "sbatch is not installed here",
            expected="a machine of the cluster from which jobs are handed in",
            hint="--slurm --dry-run prints the script",
        )
    script.write()
    done = subprocess.run(["sbatch", "--parsable", str(script.path)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise UserError(f"sbatch refused {_short(script.path)}:\n{said}", hint="the options are those of launch.slurm")
    job = done.stdout.strip().partition(";")[0]
    log = _short(script.path.parent / f"{job}.log")
    return "\n".join([
        f"submitted as job {job}",
        f"script  {_short(script.path)}",
        f"follow  tail -F {log}",
        f"state   squeue --job {job}",
        f"stop    scancel {job}     (state is saved; the same command goes on from it)",
    ])  # fmt: skip


def _short(path: Path) -> str:
    return os.path.relpath(path)
