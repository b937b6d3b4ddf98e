"""The pytest plugin's options, and what probes do without a checkpoint; with one, `runner.probing.session` takes over.

This module is loaded in every pytest session of everyone who has the package installed: it imports nothing heavy, and
without `--ckpt` or `--probe-endpoint` it does nothing but skip probes.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from runner.asking import declared, misdeclared
from runner.errors import UserError, Where, printable
from runner.probing.misses import Crash, Escaped, escaped

WITHOUT_CHECKPOINT = "a probe is asked of a checkpoint: give one with --ckpt"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options; all but --ckpt carry a prefix, so that they clash with nobody's."""
    group = parser.getgroup("recipe", "probing checkpoints (recipe-runner)")
    group.addoption(
        "--ckpt", action="append", default=[], metavar="PATH",
        help="checkpoint, PEFT adapter, run folder (all its checkpoints), stage folder or quoted glob; repeatable",
    )  # fmt: skip
    group.addoption(
        "--probe-baseline", metavar="CKPT|FILE",
        help="compare case by case with this checkpoint or verdict file",
    )  # fmt: skip
    group.addoption(
        "--probe-require-baseline", action="store_true",
        help="a gate that compares is red where there is no baseline, instead of recorded",
    )  # fmt: skip
    group.addoption(
        "--probe-verdicts", metavar="FILE",
        help="write the verdicts there; of several checkpoints, a folder with a file for each",
    )  # fmt: skip
    group.addoption(
        "--probe-suite", action="append", default=[], metavar="NAME",
        help="ask only this suite; repeatable",
    )  # fmt: skip
    group.addoption(
        "--probe-dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"],
        help="default: float32 on a CPU, else the checkpoint's own",
    )  # fmt: skip
    group.addoption(
        "--probe-batch-tokens", type=int, metavar="N",
        help="prompt and reply tokens generated at a time; lower it where memory is short",
    )  # fmt: skip
    group.addoption(
        "--probe-workers", type=int, metavar="N",
        help="processes that generate, each for one checkpoint at a time; default: one for each visible device",
    )  # fmt: skip
    group.addoption(
        "--probe-store", default="auto", metavar="auto|off|FILE",
        help="where replies are kept, so that asking again generates nothing; see `recipe store`",
    )  # fmt: skip
    group.addoption(
        "--probe-endpoint", metavar="URL",
        help="ask an OpenAI-compatible server such as http://localhost:8000/v1; its key is in $OPENAI_API_KEY",
    )  # fmt: skip
    group.addoption("--probe-model", metavar="NAME", help="the model on that server; not needed where it has only one")
    group.addoption(
        "--probe-concurrency", type=int, default=16, metavar="N",
        help="questions that are with the server at a time; default: 16",
    )  # fmt: skip
    group.addoption(
        "--probe-timeout", type=float, default=600.0, metavar="SECONDS",
        help="how long a question may take the server, retries and all; default: 600",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Hand over to the prober where a checkpoint or a server is named."""
    if config.getoption("--probe-model") and not config.getoption("--probe-endpoint"):
        raise pytest.UsageError("--probe-model needs --probe-endpoint: the server that has the model")
    if config.getoption("--ckpt") or config.getoption("--probe-endpoint"):
        from runner.probing.session import start

        try:
            start(config)
        except UserError as error:
            raise pytest.UsageError(error.screen()) from error
        return
    for option in ("--probe-baseline", "--probe-require-baseline", "--probe-verdicts", "--probe-suite"):
        if config.getoption(option):
            raise pytest.UsageError(f"{option} needs --ckpt or --probe-endpoint: the model that is asked")
    config.pluginmanager.register(WithoutCheckpoint(), "recipe-without-checkpoint")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """What is wrong with a probe is said in a few lines, without the way through pytest and this package."""
    report = yield
    call = getattr(report, "call", None)  # pytest hands it on to those who look at the exception
    error = call.excinfo.value if call is not None and call.excinfo else None
    error = (misdeclared(error) or error) if error is not None else None
    if isinstance(error, UserError):
        where = error.problems[0].where or Where(str(collector.path))
        crash = Crash(where.file, where.line or 1, printable(error.problems[0].message))
        report.longrepr = Escaped(escaped(error.screen()), crash)  # type: ignore[assignment]
    return report


class WithoutCheckpoint:
    """Skips probes beside other tests, and refuses a session that asks for nothing else."""

    def __init__(self) -> None:
        self._only_probes = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Mark every probe as skipped, with the reason."""
        probes = [item for item in items if declared(getattr(item, "obj", None)) is not None]
        for item in probes:
            item.add_marker(pytest.mark.skip(reason=WITHOUT_CHECKPOINT))
        self._only_probes = bool(probes) and len(probes) == len(items) and not config.getoption("collectonly")

    def pytest_collection_finish(self) -> None:
        """Refuse, once other plugins have filtered too."""
        if self._only_probes:
            raise pytest.UsageError(WITHOUT_CHECKPOINT)
