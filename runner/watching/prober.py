"""Asking a checkpoint of another trainer: a prober is forked for it, and its verdicts are taken."""

from __future__ import annotations

import re
import signal
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from runner import launch, verdicts
from runner.children import Child, Host
from runner.errors import BadProbe, UserError
from runner.recipe import project_root
from runner.verdicts import VerdictFile
from runner.watching.options import TIMEOUT_S, Options

_POLL_S = 0.05
_PYTESTS_MARK = re.compile(r"^E {2,}")
_USAGE_ERROR, _NOTHING_COLLECTED = 4, 5
"""Of pytest's exit codes."""


class ProberDied(Exception):
    """The prober of a checkpoint ended without verdicts; the message says how, and what it printed last."""

    def __init__(self, name: str, child: Child) -> None:
        self.how = child.how_it_ended()
        super().__init__(f"the prober of {name} {self.how}; the end of its log:\n{child.log_tail()}")


class Stopped(Exception):
    """The prober was killed, because the watch was interrupted."""


class ForeignProber:
    """Forks probers from one host, which is started when it is first needed."""

    def __init__(self, options: Options, stack: ExitStack, is_interrupted: Callable[[], bool]) -> None:
        """Nothing is started yet.

        Args:
            options: what is asked, and how long that may take.
            stack: ends the host.
            is_interrupted: asked while a prober runs; it is killed then.
        """
        self._probes, self._suites = options.probes, options.suites
        self._limit_s = options.timeout_s or TIMEOUT_S
        self._stack, self._is_interrupted = stack, is_interrupted
        self._work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recipe-watch-")))
        self._root = project_root(options.probes[0].partition("::")[0])
        self._host: Host | None = None

    def warm_up(self) -> Host:
        """Start the host; it imports torch while this process goes on."""
        if self._host is None:
            argv, log = launch.host_argv(launch.PROBER, []), self._work / "host.log"
            self._host = self._stack.enter_context(Host(argv, launch.environment(), log, Path.cwd()))
        return self._host

    def ask(self, name: str, folder: Path, shown: str, baseline: VerdictFile | None) -> VerdictFile:
        """The verdicts of the checkpoint in `folder`, which are said to be about `shown`.

        Args:
            baseline: cases lost or gained by a hair since then are asked once more before they count.

        Raises:
            UserError: pytest could not begin, or found no probe.
            ProberDied: there are no verdicts.
            Stopped: the watch was interrupted.
            TrainingFailed: the host itself died.
        """
        fresh = self._work / f"{name}.jsonl"
        fresh.unlink(missing_ok=True)
        argv = launch.probe_argv(folder, self._probes, self._suites, fresh, self._root)
        if baseline is not None:
            verdicts.write(self._work / "before.jsonl", baseline)
            argv += ["--probe-baseline", str(self._work / "before.jsonl")]
        child = self._finished(argv, self._work / f"{name}.log")
        if child.exit_code == _USAGE_ERROR:
            raise UserError(_complaint(child.log_tail()))
        if child.exit_code not in (0, 1, _NOTHING_COLLECTED) or not fresh.exists():
            raise ProberDied(name, child)
        file = verdicts.read(fresh)
        if not file.suites:
            places = ", ".join(self._probes)
            if child.exit_code == 1:
                raise BadProbe(f"nothing of {places} can be collected:\n{child.log_tail()}")
            chosen = f" of suite {', '.join(self._suites)}" if self._suites else ""
            raise BadProbe(f"there is no probe{chosen} in {places}")
        return _renamed(file, folder, shown)

    def _finished(self, argv: Sequence[str], log: Path) -> Child:
        host = self.warm_up()
        child = host.start("probe", argv, log, limit_s=self._limit_s)
        with child.relay(log.stem) as relay:
            while child.exit_code is None:
                host.poll(_POLL_S)
                relay.look()
                if self._is_interrupted():
                    host.signal(child, signal.SIGKILL)
        if self._is_interrupted():
            raise Stopped
        return child


def _complaint(log: str) -> str:
    """What pytest says is wrong with its arguments, in the words of `recipe watch`."""
    return log[max(log.rfind("ERROR: "), 0) :].removeprefix("ERROR: ").strip().replace("--probe-suite", "--suite")


def _renamed(file: VerdictFile, folder: Path, shown: str) -> VerdictFile:
    """The same verdicts, about the checkpoint's own folder and not about the one it was held in; and without pytest's
    mark in front of the error that a file could not be imported for."""
    rows = tuple(
        replace(verdict, ckpt=shown, reason=_PYTESTS_MARK.sub("", verdict.reason).replace(str(folder), shown))
        for verdict in file.verdicts
    )
    return replace(file, ckpt=shown, verdicts=rows)
