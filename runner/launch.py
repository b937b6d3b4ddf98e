"""How the processes of a run are started: argv and environment, decided without starting anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner import spec

TRAINER, PREFERENCE_TRAINER, PROBER = "runner.train.worker", "runner.train.preference", "runner.probing.warm"
EXPORTER, LAUNCHER = "runner.train.exporting", "runner.train.launcher"
"""Modules that a child of each kind would otherwise import itself."""

IN_A_RUN = "RECIPE_PROBER"
"""Set where pytest is a prober that a command started: suites are then held to their `timeout_s`."""
_FOR_PYTEST_BY_HAND = {"PYTEST_ADDOPTS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "GITHUB_ACTIONS"}
"""Variables that would choose among the cases, end at the first miss, keep this package's plugin out, or write the
summary of a job at every checkpoint."""


def host_argv(first: str, then: Sequence[str]) -> list[str]:
    """The command line of the process that imports torch once and forks trainers and probers.

    Args:
        first: what the first child needs.
        then: what later children need; imported while the first one works.
    """
    return [sys.executable, "-m", "runner.host", first, "--then", *then]


def processes(how: spec.Launch, gpus: Sequence[str]) -> int:
    """Training processes of each node.

    Args:
        how: what the recipe says.
        gpus: the devices that are visible; without any, one process trains on CPUs.
    """
    if how.processes != "auto":
        return how.processes
    kept = 1 if how.probing == "beside" and len(gpus) > 1 else 0  # for the probes
    return max(len(gpus) - kept, 1)


def prober_environment(how: spec.Launch, gpus: Sequence[str]) -> Mapping[str, str]:
    """What is different for a prober that works beside a trainer: it sees the last device alone, where there are more
    than one.

    Args:
        how: what the recipe says.
        gpus: the devices that are visible.
    """
    if how.probing != "beside" or len(gpus) < 2:
        return {}
    return {"CUDA_VISIBLE_DEVICES": device_names(gpus)[len(gpus) - 1]}


def trainer_environment(processes: int, gpus: Sequence[str]) -> Mapping[str, str]:
    """What is different for the trainers of a node: of the devices, they see as many as they are.

    Args:
        processes: of this node.
        gpus: the devices that are visible.
    """
    return {"CUDA_VISIBLE_DEVICES": ",".join(device_names(gpus)[:processes])} if len(gpus) > processes else {}


def device_names(gpus: Sequence[str]) -> list[str]:
    """The devices as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in named.split(",")] if named else [str(number) for number in range(len(gpus))]


def environment() -> Mapping[str, str]:
    """The environment of every child: this one's, with telemetry off, and with nothing in the way that is meant for
    pytest by hand or lies in the working folder."""
    return {
        # a thread that waits by spinning keeps a core from the one it waits for: beside one other busy process, two
        # cores trained the demo 16 times slower
        "OMP_WAIT_POLICY": "PASSIVE",
        **{name: value for name, value in os.environ.items() if name not in _FOR_PYTEST_BY_HAND},
        "PYTHONSAFEPATH": "1",  # a runner.py in the working folder must not shadow this package
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",  # the tokenizers library warns and stalls when it is forked after use
        "TRANSFORMERS_VERBOSITY": "error",
    }


def train_argv(run: Path, stage: str) -> list[str]:
    """Arguments of `runner.train.worker`."""
    return [str(run), stage]


def launcher_argv(
    run: Path, stage: str, processes: int, node: tuple[int, int], rendezvous: str, attempt: str
) -> list[str]:
    """Arguments of `runner.train.launcher`.

    Args:
        run: the folder of the run.
        stage: its name.
        processes: of this node.
        node: its rank, and how many there are.
        rendezvous: `HOST:PORT`; empty for one node, which takes a free port.
        attempt: a name that all nodes know.
    """
    rank, count = node
    return [str(run), stage, str(processes), str(count), str(rank), rendezvous, attempt or "here"]


def probe_argv(checkpoint: Path, files: Sequence[str], suites: Sequence[str], verdicts: Path, root: Path) -> list[str]:
    """Arguments of pytest for probing one checkpoint of a run with some of its suites."""
    chosen = [argument for suite in suites for argument in ("--probe-suite", suite)]
    return [
        *files,
        "--ckpt",
        str(checkpoint),
        *chosen,
        "--probe-verdicts",
        str(verdicts),
        f"--rootdir={root}",
        "-o",
        "addopts=",  # the project's own are meant for pytest by hand: -x or -k would leave cases out
        "--import-mode=importlib",
        "--continue-on-collection-errors",  # a broken probe file must not cost the other suites their verdicts
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",  # this package is imported before pytest starts
        "-p",
        "no:cacheprovider",
        "-s",
        "--tb=no",  # reasons and replies are in the verdicts
        "-q",
    ]


def talk_argv(checkpoint: Path, **options: object) -> list[str]:
    """The command line of `recipe chat`'s child; options that are None are left out."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    return [sys.executable, "-m", "runner.probing.chatting", str(checkpoint), *given]
