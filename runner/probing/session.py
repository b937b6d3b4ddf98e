"""The start of a session that asks: which checkpoints, compared with what; then collecting, running and reporting."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from runner import verdicts
from runner.errors import UserError
from runner.probing import github
from runner.probing.collecting import Collecting, Session
from runner.probing.judging import Baselines, Judge
from runner.probing.outcomes import Outcomes
from runner.probing.planning import Planner
from runner.probing.reporting import Reporting
from runner.probing.running import Running
from runner.probing.store import Store
from runner.probing.targets import Target, find, find_baseline, is_checkpoint, served


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
    asked = find(config.getoption("--ckpt"), invocation, rootdir)
    if url := config.getoption("--probe-endpoint"):
        asked.append(_served(config, url, asked))
    baseline: Target | verdicts.VerdictFile | None = None
    if wanted := config.getoption("--probe-baseline"):
        path = invocation / wanted
        baseline = verdicts.read(path) if path.is_file() else find_baseline(wanted, asked, invocation, rootdir)
        if isinstance(baseline, Target) and baseline not in asked and not baseline.has_verdicts():
            asked = [baseline, *asked]
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
    if github.in_actions(os.environ):
        config.pluginmanager.register(github.plugin(session.judged, config.rootpath), "recipe-github")


def _served(config: pytest.Config, url: str, others: Sequence[Target]) -> Target:
    """The server at `url`, once it has shown that it answers."""
    from runner.probing.endpoint import Endpoint

    model, concurrency = config.getoption("--probe-model"), config.getoption("--probe-concurrency")
    endpoint = Endpoint(url, model, concurrency, config.getoption("--probe-timeout"))
    endpoint.check()
    return served(endpoint, others)
