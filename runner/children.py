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
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from runner import underway
from runner.errors import TrainingFailed
from runner.refused import about_room, in_short

Kind = Literal["train", "launch", "probe", "sample", "export", "look"]
SAY_WHERE = signal.SIGUSR1
"""Makes a prober write into its log which line of Python it is at."""
_LAST_WORDS_S = 0.5
EXIT_LATE = 124
"""Of a prober that left because a suite took too long; as of `timeout` of the coreutils."""


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
    limit_s: float | None = None
    """How long it may run; then it is ended."""
    is_late: bool = False
    """Whether it was ended for that."""
    due: float | None = None
    """When the next thing is done about it, by `time.monotonic`; of one that may run so long only."""

    def relay(self, who: str = "") -> underway.Relay:
        """What it tells of its work, as work of this process; see `underway.Relay`."""
        return underway.Relay(underway.beside(self.log), who)

    def log_tail(self, lines: int = 25) -> str:
        """The end of what it printed."""
        printed = self.log.read_bytes()[self.log_start :] if self.log.exists() else b""
        found = in_short(printed.decode("utf-8", errors="replace")).splitlines()[-lines:]
        return "\n".join(found) if found else f"(it printed nothing{about_room(self.log.parent)})"

    def how_it_ended(self) -> str:
        """`was killed by SIGTERM`, or `ended with exit code 3`; of one that has ended."""
        assert self.exit_code is not None
        if self.is_late:
            return f"did not end within {self.limit_s:,.0f} s and was ended"
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
        self,
        kind: Kind,
        argv: Sequence[str],
        log: Path,
        environment: Mapping[str, str] = MappingProxyType({}),
        limit_s: float | None = None,
    ) -> Child:
        """Fork a child that runs `argv` as a trainer, as a prober, to ask for negatives, or to merge an adapter.

        Args:
            kind: what it is.
            argv: its arguments.
            log: what it prints.
            environment: what is different in its environment from the host's.
            limit_s: how long it may run from when it is forked. Then it is told to write where it is into its log, and
                a moment later it and what it started are killed.
        """
        child = Child(len(self._children), kind, log, log.stat().st_size if log.exists() else 0, limit_s=limit_s)
        self._children[child.number] = child
        log.parent.mkdir(parents=True, exist_ok=True)
        child.relay().close()  # what an earlier child told last stays where its parent was killed
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
        """Wait at most so long for news, and note it in the children; end those that run for too long.

        Raises:
            TrainingFailed: the host itself died.
        """
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        self._end_the_late()
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
        if child.due is None and child.limit_s is not None:
            child.due = time.monotonic() + child.limit_s

    def _end_the_late(self) -> None:
        for child in self._children.values():
            if child.pid is None or child.exit_code is not None or child.due is None or child.due > time.monotonic():
                continue
            if not child.is_late:
                child.is_late, child.due = True, time.monotonic() + _LAST_WORDS_S
                self.signal(child, SAY_WHERE)
                continue
            for pid in (*below(child.pid), child.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

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


def late_path(verdicts: Path) -> Path:
    """Where a prober that leaves with `EXIT_LATE` says which suite took too long: beside its verdicts."""
    return verdicts.with_name(f"{verdicts.name}.late")


def below(pid: int) -> list[int]:
    """The processes that a process started, and theirs, where the system has /proc; the latest first."""
    above: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it ended meanwhile
            above[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in above.items() if its_parent == parent]
    return found[:0:-1]
