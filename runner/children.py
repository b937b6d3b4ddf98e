"""The children of a run, as the parent sees them: start, watch, interrupt, and never leave one behind.

One host process imports torch and forks a child per job, so that a stage or a checkpoint does not pay the imports. It
ends when its standard input closes, that is, when the parent ends, and takes its children with it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from runner.errors import TrainingFailed

Kind = Literal["train", "launch", "probe", "sample", "export", "look"]


@dataclass
class Child:
    """A forked child; `exit_code` is None while it runs, negative where a signal ended it."""

    number: int
    kind: Kind
    log: Path
    log_start: int = 0
    """Bytes that were in the log before: of an earlier child."""
    pid: int | None = None
    exit_code: int | None = None

    def log_tail(self, lines: int = 25) -> str:
        """The end of what it printed."""
        printed = self.log.read_bytes()[self.log_start :] if self.log.exists() else b""
        found = printed.decode("utf-8", errors="replace").splitlines()[-lines:]
        return "\n".join(found) if found else "(it printed nothing)"

    def how_it_ended(self) -> str:
        """`was killed by SIGTERM`, or `ended with exit code 3`; of one that has ended."""
        assert self.exit_code is not None
        if self.exit_code < 0:
            name = signal.Signals(-self.exit_code).name
            return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"ended with exit code {self.exit_code}"


class Host:
    """The process that forks children; a context manager that leaves none behind."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                env=dict(environment),
                cwd=cwd,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then tells the trainer to save
            )
        self._children: dict[int, Child] = {}
        self._unread = b""

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(
        self, kind: Kind, argv: Sequence[str], log: Path, environment: Mapping[str, str] = MappingProxyType({})
    ) -> Child:
        """Fork a child that runs `argv` as a trainer, as a prober, to ask for negatives, or to merge an adapter.

        Args:
            kind: what it is.
            argv: its arguments.
            log: what it prints.
            environment: what is different in its environment from the host's.
        """
        child = Child(len(self._children), kind, log, log.stat().st_size if log.exists() else 0)
        self._children[child.number] = child
        log.parent.mkdir(parents=True, exist_ok=True)
        request: dict[str, Any] = {"number": child.number, "kind": kind, "argv": list(argv), "log": str(log)}
        request["environment"] = dict(environment)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._died() from error
        return child

    def poll(self, timeout_s: float) -> None:
        """Wait at most so long for news, and note it in the children.

        Raises:
            TrainingFailed: the host itself died.
        """
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        if not ready:
            return
        block = os.read(self._process.stdout.fileno(), 65536)
        if not block:
            raise self._died()
        *lines, self._unread = (self._unread + block).split(b"\n")
        for line in lines:
            self._note(json.loads(line))

    def _note(self, news: Mapping[str, Any]) -> None:
        child = self._children[news["number"]]
        child.pid = news.get("pid", child.pid)
        child.exit_code = news.get("exit_code")

    def signal(self, child: Child, number: signal.Signals) -> None:
        """Send a signal to a running child."""
        if child.pid is not None and child.exit_code is None:
            with suppress(ProcessLookupError):  # it ended in this moment; its exit code is on the way
                os.kill(child.pid, number)

    def kill(self) -> None:
        """End the host and every child, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for child in self._children.values():
            self.signal(child, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # a request that the host did not live to read
                    pipe.close()

    def _died(self) -> TrainingFailed:
        tail = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:]
        return TrainingFailed(
            "the process that starts trainers and probers died; the end of its log:\n" + "\n".join(tail)
        )
