"""How the processes of a run are started: argv and environment, decided without starting anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner import spec

TRAINER, PREFERENCE_TRAINER, PROBER = "runner.train.worker", "runner.train.preference", "runner.probing.warm"
EXPORTER = "runner.train.exporting"
"""Modules that a child of each kind would otherwise import itself."""

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
