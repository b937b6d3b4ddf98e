"""The pytest plugin's options, and what probes do without a checkpoint; with one, `runner.probing.session` takes over.

This module is loaded in every pytest session of everyone who has the package installed: it imports nothing heavy, and
without `--ckpt` it does nothing but skip probes.
"""

from __future__ import annotations

import pytest

from runner.asking import declared
from runner.errors import UserError

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


def pytest_configure(config: pytest.Config) -> None:
    """Hand over to the prober where a checkpoint is named."""
    if config.getoption("--ckpt"):
        from runner.probing.session import start

        try:
            start(config)
        except UserError as error:
            raise pytest.UsageError(error.screen()) from error
        return
    for option in ("--probe-baseline", "--probe-verdicts", "--probe-suite"):
        if config.getoption(option):
            raise pytest.UsageError(f"{option} needs --ckpt: the checkpoint that is asked")
    config.pluginmanager.register(WithoutCheckpoint(), "recipe-without-checkpoint")


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
