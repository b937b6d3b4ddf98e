"""The start of a session that asks: which checkpoints, compared with what; then collecting, running and reporting."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runner import launch, verdicts
from runner.errors import BadCheckpoint, UserError
from runner.probing import github
from runner.probing.collecting import Collecting, Session
from runner.probing.judging import Baselines, Judge
from runner.probing.limits import Limits
from runner.probing.outcomes import Outcomes
from runner.probing.planning import Planner
from runner.probing.reporting import Reporting
from runner.probing.running import Running
from runner.probing.store import Store
from runner.probing.targets import Target, find, find_baseline, is_checkpoint, served
from runner.probing.workers import number_wanted


def start(config: pytest.Config) -> None:
    """Find the checkpoints that the options name and register the prober.

    Raises:
        UserError: they cannot be asked so.
    """
    invocation, rootdir = config.invocation_params.dir, config.rootpath
    for argument in config.args:
        if is_checkpoint(invocation / argument):
            raise UserError(
                f"{argument} is a checkpoint, and stands where pytest expects a test file",
                hint="give every checkpoint with --ckpt of its own, and quote a glob: --ckpt 'out/checkpoint-*'",
            )
    if hasattr(config, "workerinput") or config.getoption("numprocesses", None):
        raise UserError(
            "probes cannot be spread over processes: each would load the checkpoint and batch a part of the prompts",
            hint="leave -n away for probes; all replies of a checkpoint are generated in a few large batches",
        )
    tokens = config.getoption("--probe-batch-tokens")
    if tokens is not None and tokens < 1:
        raise UserError(f"--probe-batch-tokens is {tokens}", expected="a number above 0")
    number_wanted(config.getoption("--probe-workers"))
    asked = find(config.getoption("--ckpt"), invocation, rootdir)
    if url := config.getoption("--probe-endpoint"):
        asked.append(_served(config, url, asked))
    baseline: Target | verdicts.VerdictFile | None = None
    if wanted := config.getoption("--probe-baseline"):
        path = invocation / wanted
        baseline = verdicts.read(path) if path.is_file() else _baseline(wanted, asked, invocation, rootdir)
        if isinstance(baseline, Target) and (baseline in asked or not baseline.has_verdicts()):
            # what others are compared with comes first, wherever it was named
            asked = [baseline, *(target for target in asked if target != baseline)]
    if (path := config.getoption("--probe-verdicts")) is not None:
        _check_writable(path, invocation / path, several=sum(not target.is_baseline for target in asked) > 1)
    # a file that cannot be imported must not cost the other suites their verdicts
    config.option.continue_on_collection_errors = True
    _register(config, Planner(asked, config.getoption("--probe-suite"), rootdir), baseline)


def _register(config: pytest.Config, planner: Planner, baseline: Target | verdicts.VerdictFile | None) -> None:
    outcomes = Outcomes()
    baselines = Baselines(baseline, outcomes, required=config.getoption("--probe-require-baseline"))
    judge = Judge(planner, outcomes, baselines)
    chosen = baseline if isinstance(baseline, Target) else None
    session = Session(config, planner, outcomes, baselines, judge, chosen)
    store = Store.open(config.getoption("--probe-store"))
    config.pluginmanager.register(Collecting(session), "recipe-collecting")
    config.pluginmanager.register(Running(session, store), "recipe-running")
    config.pluginmanager.register(Reporting(session, store), "recipe-reporting")
    if launch.IN_A_RUN in os.environ and (path := config.getoption("--probe-verdicts")) is not None:
        config.pluginmanager.register(Limits(config.invocation_params.dir / path), "recipe-limits")
    if github.in_actions(os.environ):
        config.pluginmanager.register(github.plugin(session.judged, config.rootpath), "recipe-github")


def _baseline(given: str, asked: Sequence[Target], invocation: Path, rootdir: Path) -> Target:
    try:
        return find_baseline(given, asked, invocation, rootdir)
    except BadCheckpoint as error:
        problems = [
            replace(one, message=one.message.replace("--ckpt", "--probe-baseline", 1)) for one in error.problems
        ]
        raise BadCheckpoint(problems) from error


def _check_writable(given: str, path: Path, *, several: bool) -> None:
    """Whether verdicts can be written where `--probe-verdicts` says: it is too late to find out at the end.

    Raises:
        UserError: they cannot.
    """
    if several and path.is_file():
        raise UserError(
            f"--probe-verdicts {given} is a file", expected="of several checkpoints a folder, with a file for each"
        )
    folder = path if several or path.is_dir() else path.parent
    there = next(one for one in (folder, *folder.parents) if one.exists())  # what is missing is made
    if not there.is_dir():
        raise UserError(f"--probe-verdicts {given}: {there} is a file", expected="a folder, or a file in one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--probe-verdicts {given}: nothing can be written into {there}")


def _served(config: pytest.Config, url: str, others: Sequence[Target]) -> Target:
    """The server at `url`, once it has shown that it answers."""
    from runner.probing.endpoint import Endpoint

    model, concurrency = config.getoption("--probe-model"), config.getoption("--probe-concurrency")
    endpoint = Endpoint(url, model, concurrency, config.getoption("--probe-timeout"))
    endpoint.check()
    return served(endpoint, others)
